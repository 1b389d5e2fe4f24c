//! What the rows of a set add up to, in a form that can be merged: totals of blocks, markets and shards.
//!
//! Invariants: merging changes no bit, in whatever order. A correction counts as a row of its own, like the row that it
//! corrects: leaving one out is the reader's decision ([`Totals::corrections`] says whether there is one to take).

use alloc::vec::Vec;

use crate::ExactSum;
use crate::sum::COUNT_MAX;

/// The totals of some rows. For quotes, price and volume are the bid's.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Rows.
    pub count: u64,
    /// Rows that correct another one.
    pub corrections: u64,
    /// Smallest price; infinite without rows.
    pub price_min: f64,
    /// Greatest price; minus infinite without rows.
    pub price_max: f64,
    /// Sum of the prices.
    pub price: ExactSum,
    /// Sum of the volumes.
    pub volume: ExactSum,
    /// Sum of price times volume, no product rounded.
    pub notional: ExactSum,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            count: 0,
            corrections: 0,
            price_min: f64::INFINITY,
            price_max: f64::NEG_INFINITY,
            price: ExactSum::default(),
            volume: ExactSum::default(),
            notional: ExactSum::default(),
        }
    }
}

impl Totals {
    /// Puts two sets together.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.corrections = self.corrections.saturating_add(other.corrections);
        self.price_min = self.price_min.min(other.price_min);
        self.price_max = self.price_max.max(other.price_max);
        self.price.merge(&other.price);
        self.volume.merge(&other.volume);
        self.notional.merge(&other.notional);
    }

    /// Volume-weighted average price: the rounded notional over the rounded volume; `None` without volume.
    #[must_use]
    pub fn vwap(&self) -> Option<f64> {
        (!self.volume.is_zero()).then(|| self.notional.round() / self.volume.round())
    }

    /// Average price, rounded once; `None` without rows, or with more than 2^53.
    #[must_use]
    pub fn average_price(&self) -> Option<f64> {
        (1..=COUNT_MAX).contains(&self.count).then(|| self.price.divided_by(self.count))
    }

    /// Average volume, likewise.
    #[must_use]
    pub fn average_volume(&self) -> Option<f64> {
        (1..=COUNT_MAX).contains(&self.count).then(|| self.volume.divided_by(self.count))
    }

    /// **Shape:** count u64, corrections u64, min f64, max f64, then three sums: base u16, words u16, words u64.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.corrections.to_le_bytes());
        out.extend_from_slice(&self.price_min.to_le_bytes());
        out.extend_from_slice(&self.price_max.to_le_bytes());
        [&self.price, &self.volume, &self.notional].iter().for_each(|sum| sum.write(out));
    }

    /// Reads foreign bytes, and leaves what follows; `None` where there are too few of them, or where they say more than rows
    /// can come to.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut word = || bytes.split_off(..8)?.try_into().ok().map(u64::from_le_bytes);
        let (count, corrections) = (word()?, word()?);
        if count > COUNT_MAX || corrections > count {
            return None;
        }
        let (price_min, price_max) = (f64::from_bits(word()?), f64::from_bits(word()?));
        let [price, volume, notional] = [ExactSum::read(bytes)?, ExactSum::read(bytes)?, ExactSum::read(bytes)?];
        Some(Self { count, corrections, price_min, price_max, price, volume, notional })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gather;
    use proptest::prelude::*;

    fn totals(rows: &[(f64, f64)]) -> Totals {
        let (prices, volumes): (Vec<f64>, Vec<f64>) = rows.iter().copied().unzip();
        let (mut price, mut volume, mut notional) = (Gather::default(), Gather::default(), Gather::default());
        price.add(&prices);
        volume.add(&volumes);
        notional.add_products(&prices, &volumes);
        Totals {
            count: rows.len() as u64,
            corrections: 0,
            price_min: prices.iter().copied().fold(f64::INFINITY, f64::min),
            price_max: prices.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            price: price.take(),
            volume: volume.take(),
            notional: notional.take(),
        }
    }

    /// Half of the bytes of a sum are its length and place: what they say is merged, rounded and divided, or refused.
    fn hostile_sum() -> impl Strategy<Value = Vec<u8>> {
        let small = 0_u16..80;
        let words = prop::collection::vec(prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)], 0..80);
        (prop_oneof![small, any::<u16>()], words).prop_map(|(base, words)| {
            let mut bytes = [base.to_le_bytes(), (words.len() as u16).to_le_bytes()].concat();
            words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
            bytes
        })
    }

    proptest! {
        #[test]
        fn whatever_was_read_is_merged_rounded_and_written_or_it_was_refused(
            counts in prop::array::uniform2(prop_oneof![0..9_u64, Just(1 << 53), Just((1 << 53) + 1), any::<u64>()]),
            sums in prop::array::uniform3(hostile_sum()),
        ) {
            let mut bytes = [counts[0].to_le_bytes(), counts[1].to_le_bytes(), [7; 8], [8; 8]].concat();
            sums.iter().for_each(|sum| bytes.extend_from_slice(sum));
            let Some(read) = Totals::read(&mut bytes.as_slice()) else {
                let wide = |sum: &Vec<u8>| usize::from(sum[0]) + 256 * usize::from(sum[1]) + sum.len() / 8 > 67;
                prop_assert!(counts[0] > 1 << 53 || counts[1] > counts[0] || sums.iter().any(wide));
                return Ok(());
            };
            let mut twice = read.clone();
            twice.merge(&read);
            let _ = (twice.average_price(), twice.average_volume(), twice.vwap());
            twice.write(&mut Vec::new());
        }

        #[test]
        fn parts_that_travelled_come_to_what_one_pass_gives(
            rows in prop::collection::vec((-1e9..1e9_f64, 0.0..1e6_f64), 0..60), cut in any::<prop::sample::Index>(),
        ) {
            let (left, right) = rows.split_at(cut.index(rows.len() + 1));
            let mut bytes = Vec::new();
            totals(right).write(&mut bytes);
            totals(left).write(&mut bytes);
            let mut rest = bytes.as_slice();
            let mut sum = Totals::default();
            while !rest.is_empty() {
                sum.merge(&Totals::read(&mut rest).unwrap());
            }
            prop_assert_eq!(&sum, &totals(&rows));
            let mut whole = Vec::new();
            sum.write(&mut whole);
            for cut in 0..whole.len() {
                prop_assert_eq!(Totals::read(&mut &whole[..cut]), None);
            }
        }
    }
}
