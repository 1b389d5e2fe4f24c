//! Sums of floats that are exact until they are rounded, once.
//!
//! ```text
//!   f64 = mantissa * 2^e      product = mantissa * mantissa (106 bits) * 2^(e + e)
//!   Gather     bins[e] += mantissa      one i128 per exponent: an addition per number, no carry
//!   ExactSum   words * 2^(64 base - 2150)   the bins put together: two's complement, as long as it has to be
//! ```
//! Invariants: no addition here rounds, so order, block, thread and shard change no bit; a product of two floats enters
//! with all its 106 bits (not rounded first, exact even where an error-free product in floats would underflow); equal
//! sums have equal representations. Numbers are finite: admission refuses others.
//!
//! Deliberately absent: division by another sum; a VWAP divides two rounded sums, once.
//!
//! Source: R. M. Neal, "Fast exact summation using small and large superaccumulators", 2015 (arXiv 1505.05571), section 4:
//! one chunk per exponent. The crate `xsum` (the same paper) keeps its chunks to itself, so its sums cannot be merged or
//! stored; it is the oracle of the tests here, for positive sums.

use alloc::vec;
use alloc::vec::Vec;

/// Exponents of a product of two floats.
const BINS: usize = 4096;
/// Bit 0 of the fixed-point number is 2 to the power of minus this.
const SCALE: u32 = 2150;
/// What a single float's exponent is moved by, to share the products' scale.
const SINGLE: usize = 1075;
/// Additions that surely fit a bin: 2^106 products below 2^127, with room to spare.
const ADDS_MAX: u32 = 1 << 20;
/// Rows that a sum may be of: above it a count is no float any more.
pub(crate) const COUNT_MAX: u64 = 1 << 53;
/// Words that a sum can reach to: the products' exponents, 2^64 times the greatest, and room to spare.
const WORDS_MAX: usize = BINS / 64 + 4;

/// Adds up floats, or products of floats, exactly. **Cost:** about 1.5 ns a float and 2 ns a product; 64 KiB, of which
/// only the exponents that occur are touched.
pub struct Gather {
    bins: Vec<i128>,
    low: usize,
    high: usize,
    adds: u32,
    sum: ExactSum,
}

impl Default for Gather {
    fn default() -> Self {
        Self { bins: vec![0; BINS], low: BINS, high: 0, adds: 0, sum: ExactSum::default() }
    }
}

/// Sign as 0 or -1, mantissa with its hidden bit, exponent as if normal.
#[inline(always)]
fn parts(bits: u64) -> (u64, usize) {
    let exponent = (bits >> 52) as usize & 0x7ff;
    let normal = usize::from(exponent != 0);
    (bits & ((1 << 52) - 1) | (normal as u64) << 52, exponent + 1 - normal)
}

impl Gather {
    #[inline(always)]
    fn put(&mut self, bin: usize, mantissa: u128, negative: u64) {
        let sign = -i128::from(negative);
        let bin = bin & (BINS - 1);
        self.low = self.low.min(bin);
        self.high = self.high.max(bin);
        self.bins[bin] = self.bins[bin].wrapping_add((mantissa as i128 ^ sign).wrapping_sub(sign));
    }

    fn reserve(&mut self, adds: usize) {
        assert!(adds <= ADDS_MAX as usize, "the caller passes at most a block");
        if self.adds + adds as u32 > ADDS_MAX {
            self.settle();
        }
        self.adds += adds as u32;
    }

    /// Adds numbers. **Shape:** at most 2^20 at once.
    pub fn add(&mut self, numbers: &[f64]) {
        self.reserve(numbers.len());
        for number in numbers {
            let bits = number.to_bits();
            let (mantissa, exponent) = parts(bits);
            self.put(exponent + SINGLE, mantissa.into(), bits >> 63);
        }
    }

    /// Adds `a[i] * b[i]`, each exact. **Shape:** equal lengths, at most 2^20 at once.
    pub fn add_products(&mut self, a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len());
        self.reserve(a.len());
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (a.to_bits(), b.to_bits());
            let ((mantissa_a, exponent_a), (mantissa_b, exponent_b)) = (parts(a), parts(b));
            let product = u128::from(mantissa_a) * u128::from(mantissa_b);
            self.put(exponent_a + exponent_b, product, (a ^ b) >> 63);
        }
    }

    /// Adds what was summed elsewhere.
    pub fn merge(&mut self, other: &ExactSum) {
        self.sum.merge(other);
    }

    /// The sum of everything added since the last call.
    pub fn take(&mut self) -> ExactSum {
        self.settle();
        core::mem::take(&mut self.sum)
    }

    fn settle(&mut self) {
        if self.low > self.high {
            return;
        }
        let base = self.low / 64;
        let mut words = [0_u64; WORDS_MAX];
        let upto = self.high / 64 + 4;
        for bin in self.low..=self.high {
            let value = core::mem::take(&mut self.bins[bin]);
            if value != 0 {
                add_shifted(&mut words[bin / 64..upto], value, bin as u32 % 64);
            }
        }
        self.sum.merge(&ExactSum::normal(base, &words[base..upto]));
        (self.low, self.high, self.adds) = (BINS, 0, 0);
    }
}

/// `words += value << shift`, two's complement.
fn add_shifted(words: &mut [u64], value: i128, shift: u32) {
    let sign = (value >> 127) as u64;
    let low = (value as u128) << shift;
    let top = if shift == 0 { sign } else { (value >> (128 - shift)) as u64 };
    let mut carry = false;
    for (at, word) in words.iter_mut().enumerate() {
        let addend = match at {
            0 => low as u64,
            1 => (low >> 64) as u64,
            2 => top,
            _ if sign == 0 && !carry => break,
            _ => sign,
        };
        (*word, carry) = add_with_carry(*word, addend, carry);
    }
}

#[inline]
fn add_with_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, over) = a.overflowing_add(b);
    let (sum, over_again) = sum.overflowing_add(carry.into());
    (sum, over | over_again)
}

/// An exact sum that can be merged with others and rounded at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    /// Words of zeros below `words`.
    base: u32,
    /// Two's complement, least word first, as short as possible; empty is zero.
    words: Vec<u64>,
}

impl ExactSum {
    fn normal(base: usize, words: &[u64]) -> Self {
        let mut end = words.len();
        while end > 0 {
            let below = if end > 1 { words[end - 2] >> 63 } else { 0 };
            let redundant = words[end - 1] == if below == 1 { u64::MAX } else { 0 };
            if !redundant {
                break;
            }
            end -= 1;
        }
        let zeros = words[..end].iter().take_while(|&&word| word == 0).count();
        if zeros == end {
            return Self::default();
        }
        Self { base: (base + zeros) as u32, words: words[zeros..end].to_vec() }
    }

    /// The sum of one number.
    #[must_use]
    pub fn of(number: f64) -> Self {
        let (mantissa, exponent) = parts(number.to_bits());
        let mut words = [0; 4];
        let bin = exponent + SINGLE;
        let value = i128::from(mantissa) * if number.is_sign_negative() { -1 } else { 1 };
        add_shifted(&mut words, value, bin as u32 % 64);
        Self::normal(bin / 64, &words)
    }

    /// True when nothing was added, or everything cancelled.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.words.is_empty()
    }

    fn word(&self, at: u32) -> u64 {
        match at.checked_sub(self.base) {
            None => 0,
            Some(within) => self.words.get(within as usize).copied().unwrap_or_else(|| self.sign()),
        }
    }

    fn sign(&self) -> u64 {
        self.words.last().map_or(0, |&top| (top as i64 >> 63) as u64)
    }

    /// Adds another sum, exactly.
    pub fn merge(&mut self, other: &Self) {
        if other.is_zero() {
            return;
        }
        if self.is_zero() {
            self.clone_from(other);
            return;
        }
        let base = self.base.min(other.base);
        let end = (self.base + self.words.len() as u32).max(other.base + other.words.len() as u32) + 1;
        let mut carry = false;
        let mut words = Vec::with_capacity((end - base) as usize);
        for at in base..end {
            let (word, over) = add_with_carry(self.word(at), other.word(at), carry);
            words.push(word);
            carry = over;
        }
        *self = Self::normal(base as usize, &words);
    }

    /// The sum, rounded once, to the nearest float, ties to even; infinite when it exceeds them all.
    #[must_use]
    pub fn round(&self) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let negative = self.sign() != 0;
        let mut words = self.words.clone();
        if negative {
            let mut carry = true;
            words.iter_mut().for_each(|word| (*word, carry) = add_with_carry(!*word, 0, carry));
        }
        let Some(top) = words.iter().rposition(|&word| word != 0) else { return 0.0 };
        let bit = |at: u32| {
            at.checked_sub(self.base * 64)
                .and_then(|at| words.get(at as usize / 64).map(|word| word >> (at % 64) & 1))
                .unwrap_or(0)
        };
        let highest = self.base * 64 + top as u32 * 64 + 63 - words[top].leading_zeros();
        // The place of the last bit kept: 53 bits, or down to the smallest subnormal.
        let smallest = SCALE - 1074;
        let last = highest.saturating_sub(52).max(smallest);
        let mut mantissa = 0;
        for at in (last..=highest).rev() {
            mantissa = mantissa << 1 | bit(at);
        }
        if bit(last - 1) == 1 {
            let sticky = (self.base * 64..last - 1).any(|at| bit(at) == 1);
            mantissa += u64::from(sticky) | mantissa & 1;
        }
        let exponent = u64::from(last - smallest);
        let bits = if exponent >= 2046 { f64::INFINITY.to_bits() } else { (exponent << 52) + mantissa };
        let magnitude = f64::from_bits(bits.min(f64::INFINITY.to_bits()));
        if negative { -magnitude } else { magnitude }
    }

    /// The float nearest to the quotient, ties to even: the sum is not rounded before it is divided. Infinite where the sum
    /// rounds to that. **Panics** unless `count` is 1 to [`COUNT_MAX`].
    #[must_use]
    pub fn divided_by(&self, count: u64) -> f64 {
        assert!((1..=COUNT_MAX).contains(&count), "a count of rows is a float without rounding");
        let mut low = self.round() / count as f64;
        if self.is_zero() || !low.is_finite() {
            return low;
        }
        // The quotient of the rounded sum is at most some places off: go to the one at or below the exact quotient.
        while self.is_below(low, count) {
            low = low.next_down();
        }
        let mut high = low.next_up();
        while high.is_finite() && !self.is_below(high, count) {
            (low, high) = (high, high.next_up());
        }
        // Which is nearer: the sign of (sum - low count) + (sum - high count).
        let mut rest = self.less(low, count);
        rest.merge(&self.less(high, count));
        let tie_to_low = low.to_bits() & 1 == 0;
        match (rest.is_zero(), rest.sign() != 0) {
            (true, _) => {
                if tie_to_low {
                    low
                } else {
                    high
                }
            }
            (false, true) => low,
            (false, false) => high,
        }
    }

    /// `self - number * count`, exactly.
    fn less(&self, number: f64, count: u64) -> Self {
        let mut gather = Gather::default();
        gather.add_products(&[-number], &[count as f64]);
        gather.merge(self);
        gather.take()
    }

    /// True when the sum is less than `number * count`.
    fn is_below(&self, number: f64, count: u64) -> bool {
        self.less(number, count).sign() != 0
    }

    /// **Shape:** base u16, words u16, the words.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(self.base as usize + self.words.len() <= WORDS_MAX, "a sum of finite numbers");
        out.extend_from_slice(&(self.base as u16).to_le_bytes());
        out.extend_from_slice(&(self.words.len() as u16).to_le_bytes());
        self.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// Reads foreign bytes, and leaves what follows; `None` where there are too few, or where they are beyond every sum of
    /// floats. Whatever else they are, they are some number.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut half = || bytes.split_off(..2)?.try_into().ok().map(u16::from_le_bytes);
        let (base, count) = (half()?, half()?);
        // One word less than a sum may have, so that it can be merged.
        if usize::from(base) + usize::from(count) >= WORDS_MAX {
            return None;
        }
        let (words, _) = bytes.split_off(..usize::from(count) * 8)?.as_chunks::<8>();
        let words: Vec<u64> = words.iter().copied().map(u64::from_le_bytes).collect();
        Some(Self::normal(base.into(), &words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xsum::{Xsum, XsumSmall};

    /// xsum 0.1.6 rounds negative sums wrongly (it gives another float for the sum of the one number
    /// -1.1262208375542482e86), so a negative sum is asked for as minus the sum of the opposites.
    fn oracle(numbers: &[f64]) -> f64 {
        let sum_of = |sign: f64| {
            let mut sum = XsumSmall::new();
            numbers.iter().for_each(|number| sum.add(sign * number));
            sum.sum()
        };
        let sum = sum_of(1.0);
        if sum < 0.0 { -sum_of(-1.0) } else { sum + 0.0 }
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |x| x.is_finite()),
            (-1_000_000_i64..1_000_000).prop_map(|n| n as f64 / 100.0),
            (-40_i32..40).prop_map(|e| f64::powi(2.0, e)),
            Just(f64::MIN_POSITIVE / 4.0),
            Just(-f64::MAX),
        ]
    }

    #[test]
    fn an_average_is_the_float_nearest_to_the_quotient() {
        let of = |numbers: &[f64], count| {
            let mut gather = Gather::default();
            gather.add(numbers);
            gather.take().divided_by(count)
        };
        // The sum is 2^53 + 1, which is no float: rounded first, it came to 3002399751580330.5.
        assert_eq!(of(&[9_007_199_254_740_992.0, 1.0], 3), 3_002_399_751_580_331.0);
        assert_eq!(of(&[-9_007_199_254_740_992.0, -1.0], 3), -3_002_399_751_580_331.0);
        assert_eq!(of(&[0.1, 0.2], 2).to_bits(), 0.150_000_000_000_000_02_f64.to_bits());
        assert_eq!((of(&[], 7), of(&[5.0, -5.0], 2), of(&[f64::MAX, f64::MAX], 2)), (0.0, 0.0, f64::INFINITY));
        assert_eq!(of(&[f64::from_bits(1)], 2), 0.0, "half of the smallest is a tie, and 0 is even");
        assert_eq!(of(&[f64::from_bits(3)], 2).to_bits(), 2);
    }

    proptest! {
        #[test]
        fn no_float_is_nearer_to_the_quotient(numbers in prop::collection::vec(-1_i64 << 48..1 << 48, 1..50)) {
            let count = numbers.len() as i128;
            let sum: i128 = numbers.iter().map(|number| i128::from(*number)).sum();
            let mut gather = Gather::default();
            gather.add(&numbers.iter().map(|number| *number as f64).collect::<Vec<_>>());
            let average = gather.take().divided_by(count as u64);
            // In units of 2^-60, which all of them are whole numbers of unless they are smaller than 1/256.
            let far = |float: f64| ((sum << 60) - (float * 2_f64.powi(60)) as i128 * count).unsigned_abs();
            if average.abs() >= 1.0 / 256.0 {
                prop_assert!(far(average) <= far(average.next_up()) && far(average) <= far(average.next_down()));
            }
        }

        #[test]
        fn the_sum_of_one_number_is_that_number(number in number()) {
            prop_assert_eq!(ExactSum::of(number).round().to_bits(), (number + 0.0).to_bits());
            let mut gather = Gather::default();
            gather.add(&[number]);
            prop_assert_eq!(gather.take(), ExactSum::of(number));
        }

        #[test]
        fn a_sum_is_what_the_oracle_says_however_it_was_split(
            numbers in prop::collection::vec(number(), 0..200), cut in any::<prop::sample::Index>(),
        ) {
            let mut whole = Gather::default();
            whole.add(&numbers);
            let whole = whole.take();
            prop_assert_eq!(whole.round().to_bits(), oracle(&numbers).to_bits());

            let (left, right) = numbers.split_at(cut.index(numbers.len() + 1));
            let mut gather = Gather::default();
            gather.add(right);
            let mut split = gather.take();
            left.iter().rev().for_each(|&number| split.merge(&ExactSum::of(number)));
            prop_assert_eq!(&split, &whole);
            let mut bytes = Vec::new();
            split.write(&mut bytes);
            prop_assert_eq!(bytes.len(), 4 + 8 * split.words.len());
        }

        #[test]
        fn a_sum_of_products_loses_no_bit(
            pairs in prop::collection::vec((-1e12..1e12_f64, -1e9..1e9_f64), 0..200),
        ) {
            let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let mut gather = Gather::default();
            gather.add_products(&a, &b);
            let exact: Vec<f64> = a.iter().zip(&b).flat_map(|(a, b)| [a * b, a.mul_add(*b, -(a * b))]).collect();
            prop_assert_eq!(gather.take().round().to_bits(), oracle(&exact).to_bits());
        }
    }

    #[test]
    fn numbers_that_cancel_leave_no_trace() {
        let mut gather = Gather::default();
        gather.add(&[1e300, 1.0, -1e300, -1.0]);
        assert_eq!(gather.take(), ExactSum::default());
    }

    #[test]
    fn products_below_the_smallest_float_still_add_up() {
        let tiny = vec![2.0_f64.powi(-540); 4];
        let mut gather = Gather::default();
        gather.add_products(&tiny, &[2.0_f64.powi(-536); 4]);
        // Each product is 2^-1076, which rounds to zero; four of them are 2^-1074.
        assert_eq!(gather.take().round(), f64::from_bits(1));
    }

    #[test]
    fn a_million_additions_and_more_do_not_overflow_a_bin() {
        let (a, b) = (vec![f64::MAX; 1 << 18], vec![1.0; 1 << 18]);
        let mut gather = Gather::default();
        (0..20).for_each(|_| gather.add_products(&a, &b));
        (0..20).for_each(|_| gather.add_products(&a, &vec![-1.0; 1 << 18]));
        assert!(gather.take().is_zero());
    }
}
