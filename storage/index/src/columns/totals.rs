//! What the rows of a set add up to, in a form that can be merged: partials of blocks, markets and shards.
//!
//! Invariants: merging changes no bit, in whatever order; every sealed block carries its own, so a sum over whole blocks
//! decodes nothing. A correction counts as a row of its own, like the row that it corrects: leaving one out is the
//! reader's decision ([`Partial::corrections`] says whether there is one to take).

use super::schema::{PRICE, VOLUME};
use super::wire::{Input, Malformed};
use crate::exact::{ExactSum, Gather};

/// The totals of some rows. For quotes, price and volume are the bid's.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
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

impl Default for Partial {
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

impl Partial {
    /// Columns whose cells [`Adder::add`] takes.
    pub(crate) const COLUMNS: [usize; 2] = [PRICE, VOLUME];

    /// Puts two sets together.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.corrections += other.corrections;
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

    /// Average price: the rounded sum over the count; `None` without rows.
    #[must_use]
    pub fn average(&self) -> Option<f64> {
        (self.count > 0).then(|| self.price.round() / self.count as f64)
    }

    /// **Shape:** count u64, corrections u64, min f64, max f64, then three sums: base u16, words u16, words.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.corrections.to_le_bytes());
        out.extend_from_slice(&self.price_min.to_le_bytes());
        out.extend_from_slice(&self.price_max.to_le_bytes());
        [&self.price, &self.volume, &self.notional].iter().for_each(|sum| sum.write(out));
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let (count, corrections) = (input.u64()?, input.u64()?);
        let (price_min, price_max) = (f64::from_bits(input.u64()?), f64::from_bits(input.u64()?));
        let [price, volume, notional] = [sum(input)?, sum(input)?, sum(input)?];
        Ok(Self { count, corrections, price_min, price_max, price, volume, notional })
    }
}

fn sum(input: &mut Input<'_>) -> Result<ExactSum, Malformed> {
    let (base, words) = (input.u16()?, input.u16()?);
    input.expect("a sum's words", usize::from(words) * 8 <= input.left(), input.left() as u64 / 8, words.into())?;
    let words = (0..words).map(|_| input.u64()).collect::<Result<Vec<_>, _>>()?;
    Ok(ExactSum::from_words(base, &words))
}

/// Adds up pages of prices and volumes.
#[derive(Default)]
pub(crate) struct Adder {
    partial: Partial,
    price: Gather,
    volume: Gather,
    notional: Gather,
}

impl Adder {
    pub(crate) fn add(&mut self, price: &[f64], volume: &[f64]) {
        self.partial.count += price.len() as u64;
        let (min, max) = extremes(price);
        self.partial.price_min = self.partial.price_min.min(min);
        self.partial.price_max = self.partial.price_max.max(max);
        self.price.add(price);
        self.volume.add(volume);
        self.notional.add_products(price, volume);
    }

    pub(crate) fn correct(&mut self, corrections: u64) {
        self.partial.corrections += corrections;
    }

    /// Everything added since the last call.
    pub(crate) fn take(&mut self) -> Partial {
        let mut partial = core::mem::take(&mut self.partial);
        partial.price.merge(&self.price.take());
        partial.volume.merge(&self.volume.take());
        partial.notional.merge(&self.notional.take());
        partial
    }
}

/// Smallest and greatest, eight lanes at a time.
pub(crate) fn extremes(numbers: &[f64]) -> (f64, f64) {
    let (mut min, mut max) = ([f64::INFINITY; 8], [f64::NEG_INFINITY; 8]);
    let (lanes, rest) = numbers.as_chunks::<8>();
    for lane in lanes {
        for at in 0..8 {
            min[at] = if lane[at] < min[at] { lane[at] } else { min[at] };
            max[at] = if lane[at] > max[at] { lane[at] } else { max[at] };
        }
    }
    let min = min.iter().chain(rest).copied().fold(f64::INFINITY, f64::min);
    let max = max.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max);
    (min, max)
}
