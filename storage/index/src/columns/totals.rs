//! What pages of prices and volumes add up to, as totals that merge (`storage/exact`).
//!
//! Every sealed block carries its own, so a sum over whole blocks decodes nothing.

use super::schema::{PRICE, VOLUME};
use myelin_exact::{Gather, Totals};

/// Columns whose cells [`Adder::add`] takes.
pub(crate) const SUMMED: [usize; 2] = [PRICE, VOLUME];

/// Adds up pages of prices and volumes.
#[derive(Default)]
pub(crate) struct Adder {
    totals: Totals,
    price: Gather,
    volume: Gather,
    notional: Gather,
}

impl Adder {
    pub(crate) fn add(&mut self, price: &[f64], volume: &[f64]) {
        self.totals.count += price.len() as u64;
        let (min, max) = extremes(price);
        self.totals.price_min = self.totals.price_min.min(min);
        self.totals.price_max = self.totals.price_max.max(max);
        self.price.add(price);
        self.volume.add(volume);
        self.notional.add_products(price, volume);
    }

    pub(crate) fn correct(&mut self, corrections: u64) {
        self.totals.corrections += corrections;
    }

    /// Everything added since the last call.
    pub(crate) fn take(&mut self) -> Totals {
        let mut totals = core::mem::take(&mut self.totals);
        totals.price.merge(&self.price.take());
        totals.volume.merge(&self.volume.take());
        totals.notional.merge(&self.notional.take());
        totals
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
