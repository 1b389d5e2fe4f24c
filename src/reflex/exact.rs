//! Sums of f64 without error: a number as a few parts that do not overlap, rounded once when it is read.
//!
//! ```text
//!   0.1 + 0.2 + 1e16  ->  parts [2^-54.., 0.3.., 1e16]  ->  nearest f64 of the exact sum
//! ```
//!
//! Invariants: the parts ascend in magnitude and their exact sum is the exact sum of all that was added; hence the
//! value does not depend on order or on what came and went in between, and a window can add at one end and subtract at
//! the other for ever. At most [`PARTS_MAX`] parts whatever is fed, two or three in practice. Inputs are below 2^900,
//! so that nothing overflows. Deliberately absent: multiplication.
//!
//! Source: Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997, grow-expansion; the rounding at the end
//! is that of Python's `math.fsum`.

/// The greatest magnitude that can be added; larger volumes count as this much.
pub(super) const MOST: f64 = f64::from_bits((900 + 1023) << 52);

/// Parts beyond which a sum is packed: then neighbours lie 53 bits apart and 2,098 bits make at most 41.
pub(super) const PARTS_MAX: usize = 64;

/// An exact sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Exact {
    parts: Vec<f64>,
}

impl Exact {
    pub(super) fn add(&mut self, value: f64) {
        let mut carried = value;
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let (sum, error) = two_sum(carried, self.parts[at]);
            if error != 0.0 {
                self.parts[kept] = error;
                kept += 1;
            }
            carried = sum;
        }
        self.parts.truncate(kept);
        if carried != 0.0 {
            self.parts.push(carried);
        }
        if self.parts.len() > PARTS_MAX {
            self.pack();
        }
    }

    pub(super) fn parts(&self) -> &[f64] {
        &self.parts
    }

    /// The same sum in as few parts as it needs.
    #[cold]
    fn pack(&mut self) {
        let mut packed = Vec::with_capacity(PARTS_MAX);
        let mut high = 0.0;
        for &part in self.parts.iter().rev() {
            let (sum, error) = two_sum(high, part);
            if error == 0.0 {
                high = sum;
            } else {
                packed.push(sum);
                high = error;
            }
        }
        packed.push(high);
        packed.reverse();
        self.parts = packed;
    }

    pub(super) fn subtract(&mut self, value: f64) {
        self.add(-value);
    }

    /// The f64 nearest to the exact sum, ties to even.
    pub(super) fn rounded(&self) -> f64 {
        let mut above = self.parts.iter().rev();
        let Some(&largest) = above.next() else { return 0.0 };
        let mut high = largest;
        let mut low = 0.0;
        for &part in above.by_ref() {
            (high, low) = two_sum(high, part);
            if low != 0.0 {
                break;
            }
        }
        // Exactly half way so far: the next smaller part decides, which `high + low` alone could not know.
        if let Some(&next) = above.next()
            && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
        {
            let twice = low * 2.0;
            let moved = high + twice;
            if twice == moved - high {
                high = moved;
            }
        }
        high
    }
}

/// `a + b` and its rounding error, exactly. Source: Knuth, TAOCP 2, 4.2.2, theorem B.
#[inline]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum_of(terms: impl IntoIterator<Item = f64>) -> Exact {
        let mut sum = Exact::default();
        terms.into_iter().for_each(|term| sum.add(term));
        sum
    }

    /// Nearest f64 of `n * 2^-100`, by the integer conversion, which rounds to nearest even.
    fn nearest(n: i128) -> f64 {
        n as f64 * 2f64.powi(-100)
    }

    proptest! {
        /// Against 128-bit integers: numbers of very different size whose sum is known.
        #[test]
        fn a_sum_is_the_nearest_number_to_the_exact_sum(
            terms in prop::collection::vec((-(1i64 << 53)..(1i64 << 53), 0u32..60), 1..60),
        ) {
            let mut sum = Exact::default();
            let mut whole = 0i128;
            for &(mantissa, shift) in &terms {
                whole += i128::from(mantissa) << shift;
                sum.add((i128::from(mantissa) << shift) as f64 * 2f64.powi(-100));
            }
            prop_assert_eq!(sum.rounded().to_bits(), (nearest(whole) + 0.0).to_bits());
            sum.pack();
            prop_assert_eq!(sum.rounded().to_bits(), (nearest(whole) + 0.0).to_bits());
            prop_assert!(sum.parts.len() <= 4);
        }

        #[test]
        fn what_leaves_leaves_nothing_behind(
            kept in prop::collection::vec(0.0f64..1e12, 0..20),
            gone in prop::collection::vec(any::<f64>(), 0..40),
        ) {
            let plain = sum_of(kept.iter().copied());
            let mut sum = Exact::default();
            let gone: Vec<f64> = gone.into_iter().filter(|x| x.abs() <= MOST).collect();
            gone.iter().for_each(|&x| sum.add(x));
            kept.iter().for_each(|&x| sum.add(x));
            gone.iter().for_each(|&x| sum.subtract(x));
            prop_assert_eq!(sum.rounded().to_bits(), plain.rounded().to_bits());
            prop_assert!(sum.parts.len() <= PARTS_MAX);
        }
    }

    #[test]
    fn half_way_cases_look_at_the_smaller_parts() {
        let half_ulp = 2f64.powi(-53);
        for (terms, sum) in [
            (vec![1.0, half_ulp], 1.0),
            (vec![1.0, half_ulp, 1e-30], 1.0 + f64::EPSILON),
            (vec![1.0, half_ulp, -1e-30], 1.0),
            (vec![1e100, 1.0, -1e100], 1.0),
            (vec![], 0.0),
        ] {
            assert_eq!(sum_of(terms).rounded(), sum);
        }
    }
}
