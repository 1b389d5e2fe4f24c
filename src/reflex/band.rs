//! A price as an integer that sorts alike, and a band as a half-open range of such integers.
//!
//! ```text
//!   above x        [k(x)+1 .......... MAX)          k: f64 -> u64, order kept
//!   below x        [0 ...... k(x))
//!   enters lo..hi  [k(lo) .. k(hi)+1)               inside
//!   leaves lo..hi  [k(lo) .. k(hi)+1)               outside
//!   spread >= x    [k(x) ............ MAX)
//! ```
//!
//! Invariants: a band changes its truth only where a value crosses one of its *cuts*, an end of the range; a value `v`
//! is beyond a cut `c` when `k(v) >= c`. So strict and loose comparisons are one thing and no epsilon exists. Keys of
//! finite numbers lie strictly between 0 and MAX: those two ends are nobody's cut. Deliberately absent: NaN, infinities
//! and -0.0, which specs and ticks refuse.

/// The end below everything: no cut.
pub(super) const BOTTOM: u64 = 0;
/// The end above everything: no cut.
pub(super) const TOP: u64 = u64::MAX;

const SIGN: u64 = 1 << 63;

/// The integer that sorts where this number sorts. Both zeros give the same.
#[inline]
pub(super) fn key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The number of a key. Ends give the infinities, so that every finite number lies between them.
#[inline]
pub(super) fn value(key: u64) -> f64 {
    match key {
        BOTTOM => f64::NEG_INFINITY,
        TOP => f64::INFINITY,
        _ if key & SIGN == 0 => f64::from_bits(!key),
        _ => f64::from_bits(key & !SIGN),
    }
}

/// A range of keys, and whether the truth lies inside or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Band {
    pub low: u64,
    pub high: u64,
    pub outside: bool,
}

impl Band {
    pub(super) fn above(x: f64) -> Self {
        Self { low: key(x) + 1, high: TOP, outside: false }
    }

    pub(super) fn below(x: f64) -> Self {
        Self { low: BOTTOM, high: key(x), outside: false }
    }

    pub(super) fn at_least(x: f64) -> Self {
        Self { low: key(x), high: TOP, outside: false }
    }

    pub(super) fn inside(low: f64, high: f64) -> Self {
        Self { low: key(low), high: key(high) + 1, outside: false }
    }

    pub(super) fn outside(low: f64, high: f64) -> Self {
        Self { outside: true, ..Self::inside(low, high) }
    }

    /// Is it true at this key?
    #[inline]
    pub(super) fn holds(&self, key: u64) -> bool {
        (self.low <= key && key < self.high) != self.outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ODD: [f64; 10] =
        [f64::MIN, -2.5, -f64::MIN_POSITIVE, -5e-324, 0.0, 5e-324, f64::MIN_POSITIVE, 1.0, 61_000.0, f64::MAX];

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![proptest::sample::select(&ODD[..]), any::<f64>().prop_filter("finite", |x| x.is_finite())]
            .prop_map(|x| x + 0.0)
    }

    proptest! {
        #[test]
        fn keys_sort_as_numbers_sort_and_come_back(a in number(), b in number()) {
            prop_assert_eq!(key(a).cmp(&key(b)), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(value(key(a)).to_bits(), a.to_bits());
            prop_assert!(key(a) > BOTTOM + 1 && key(a) < TOP - 1);
        }

        #[test]
        fn a_band_says_what_the_comparison_says(p in number(), x in number(), y in number()) {
            let (lo, hi) = if x <= y { (x, y) } else { (y, x) };
            let k = key(p);
            prop_assert_eq!(Band::above(x).holds(k), p > x);
            prop_assert_eq!(Band::below(x).holds(k), p < x);
            prop_assert_eq!(Band::at_least(x).holds(k), p >= x);
            prop_assert_eq!(Band::inside(lo, hi).holds(k), lo <= p && p <= hi);
            prop_assert_eq!(Band::outside(lo, hi).holds(k), p < lo || p > hi);
        }

        #[test]
        fn a_quiet_interval_of_numbers_is_the_interval_of_keys(p in number(), x in number(), y in number()) {
            let (low, high) = (key(x), key(y) + 1);
            prop_assert_eq!(p >= value(low) && p < value(high), low <= key(p) && key(p) < high);
        }
    }
}
