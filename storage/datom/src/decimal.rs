//! A decimal number: a whole number of units and how many of its digits stand behind the point.
//!
//! ```text
//!   -12.50  ->  units -125, scale 1        canonical: no zero at the end behind the point, so equal numbers are one value
//!   key     0 negative, 1 zero, 2 positive | exponent + 128 | digit pairs + 1 .. | 0      negative: the rest complemented
//!           the number is 0.d1d2d3.. times 10^exponent
//! ```
//! Invariant: the order of keys, byte by byte, is the order of numbers. Deliberately absent: arithmetic.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

/// Digits of a decimal at most.
pub const DECIMAL_DIGITS: u32 = 38;
/// The least number of more digits.
const LIMIT: u128 = 10_u128.pow(DECIMAL_DIGITS);
/// Sign, exponent, 19 pairs, end.
const KEY_MAX: usize = 22;

/// A decimal number of at most 38 digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    units: i128,
    scale: u8,
}

impl Decimal {
    /// `units` times ten to the power of minus `scale`; `None` beyond 38 digits or a scale of 38.
    #[must_use]
    pub const fn new(units: i128, scale: u8) -> Option<Self> {
        if units.unsigned_abs() >= LIMIT || scale as u32 > DECIMAL_DIGITS {
            return None;
        }
        let (mut units, mut scale) = (units, scale);
        while scale > 0 && units % 10 == 0 {
            units /= 10;
            scale -= 1;
        }
        Some(Self { units, scale })
    }

    /// A whole number.
    #[must_use]
    pub const fn whole(number: i64) -> Self {
        Self { units: number as i128, scale: 0 }
    }

    /// A whole number that is not negative.
    #[must_use]
    pub const fn unsigned(number: u64) -> Self {
        Self { units: number as i128, scale: 0 }
    }

    /// The whole number of units.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.units
    }

    /// Digits behind the point.
    #[must_use]
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// The nearest float.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        alloc::format!("{self}").parse().unwrap_or(f64::NAN)
    }

    /// Its key, and how much of it counts.
    fn key(self) -> ([u8; KEY_MAX], usize) {
        let mut key = [0; KEY_MAX];
        if self.units == 0 {
            key[0] = 1;
            return (key, 1);
        }
        let mut digits = [0_u8; DECIMAL_DIGITS as usize + 2];
        let (mut rest, mut count) = (self.units.unsigned_abs(), 0);
        while rest > 0 {
            digits[count] = (rest % 10) as u8;
            rest /= 10;
            count += 1;
        }
        let exponent = count as i32 - i32::from(self.scale);
        digits[..count].reverse();
        let significant = digits[..count].iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        digits[significant..].fill(0);
        key[0] = 2;
        key[1] = (exponent + 128) as u8;
        let mut len = 2;
        for pair in digits[..significant.next_multiple_of(2)].chunks_exact(2) {
            key[len] = pair[0] * 10 + pair[1] + 1;
            len += 1;
        }
        len += 1;
        if self.units < 0 {
            key[0] = 0;
            key[1..len].iter_mut().for_each(|byte| *byte = !*byte);
        }
        (key, len)
    }

    /// Appends its key.
    pub(crate) fn write_key(self, out: &mut alloc::vec::Vec<u8>) {
        let (key, len) = self.key();
        out.extend_from_slice(&key[..len]);
    }

    /// Reads a key, and says how long it is.
    pub(crate) fn read_key(bytes: &[u8]) -> Option<(Self, usize)> {
        let sign = *bytes.first()?;
        if sign == 1 {
            return Some((Self { units: 0, scale: 0 }, 1));
        }
        let flip = match sign {
            0 => 0xff,
            2 => 0,
            _ => return None,
        };
        let exponent = i32::from(bytes.get(1)? ^ flip) - 128;
        let (mut units, mut digits, mut at) = (0_i128, 0, 2);
        loop {
            let pair = bytes.get(at)? ^ flip;
            at += 1;
            if pair == 0 {
                break;
            }
            if pair > 100 || at > KEY_MAX {
                return None;
            }
            units = units.checked_mul(100)?.checked_add(i128::from(pair - 1))?;
            digits += 2;
        }
        let (mut scale, grow) = (digits - exponent, exponent - digits);
        for _ in 0..grow.clamp(0, 40) {
            units = units.checked_mul(10)?;
        }
        // The last pair may end in a zero that is no digit of its own.
        if scale > 0 && units % 10 == 0 {
            (units, scale) = (units / 10, scale - 1);
        }
        let number = Self::new(if sign == 0 { -units } else { units }, u8::try_from(scale.max(0)).ok()?)?;
        // Only what was written is read: one number has one key.
        let (key, len) = number.key();
        (bytes.get(..at)? == key.get(..len)?).then_some((number, at))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((mine, len), (theirs, other_len)) = (self.key(), other.key());
        mine[..len].cmp(&theirs[..other_len])
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, units) = (if self.units < 0 { "-" } else { "" }, self.units.unsigned_abs());
        let one = 10_u128.pow(u32::from(self.scale));
        if self.scale == 0 {
            return write!(f, "{sign}{units}");
        }
        write!(f, "{sign}{}.{:0width$}", units / one, units % one, width = usize::from(self.scale))
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no decimal number of at most 38 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDecimal;

impl fmt::Display for NoDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a decimal number of at most 38 digits, as in -12.50")
    }
}

impl core::error::Error for NoDecimal {}

impl FromStr for Decimal {
    type Err = NoDecimal;

    fn from_str(text: &str) -> Result<Self, NoDecimal> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, behind) = digits.split_once('.').map_or((digits, None), |(whole, behind)| (whole, Some(behind)));
        if whole.is_empty() || behind.is_some_and(str::is_empty) {
            return Err(NoDecimal);
        }
        let behind = behind.unwrap_or_default().trim_end_matches('0');
        let mut units = 0_i128;
        for digit in whole.bytes().chain(behind.bytes()) {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(NoDecimal)?;
            units = units.checked_mul(10).and_then(|units| units.checked_add(i128::from(digit))).ok_or(NoDecimal)?;
        }
        let scale = u8::try_from(behind.len()).map_err(|_| NoDecimal)?;
        Self::new(if negative { -units } else { units }, scale).ok_or(NoDecimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn decimals_are_ordered_as_numbers_and_come_back_from_their_keys() {
        let ascending = [
            "-99999999999999999999999999999999999999",
            "-1000",
            "-100.5",
            "-100",
            "-12.5",
            "-12.49",
            "-1",
            "-0.10",
            "-0.01",
            "-0.00000000000000000000000000000000000001",
            "0",
            "0.00000000000000000000000000000000000001",
            "0.001",
            "0.01",
            "0.09",
            "0.1",
            "0.11",
            "0.9",
            "1",
            "1.1",
            "9.99",
            "10",
            "99",
            "100",
            "100.5",
            "101",
            "1500",
            "1501",
            "99999999999999999999999999999999999999",
        ];
        let numbers: Vec<Decimal> = ascending.iter().map(|text| text.parse().unwrap()).collect();
        for (n, number) in numbers.iter().enumerate() {
            let mut key = Vec::new();
            number.write_key(&mut key);
            assert_eq!(Decimal::read_key(&key), Some((*number, key.len())), "{number}");
            for (m, other) in numbers.iter().enumerate() {
                assert_eq!(number.cmp(other), n.cmp(&m), "{number} {other}");
            }
        }
        assert_eq!("-0.10".parse::<Decimal>().unwrap().to_string(), "-0.1");
        assert_eq!("1.500".parse::<Decimal>(), "1.5".parse());
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in ["", "-", ".5", "5.", "1e3", "1 ", "+1", "999999999999999999999999999999999999999", "1.2.3"] {
            assert_eq!(text.parse::<Decimal>(), Err(NoDecimal), "{text}");
        }
        for key in [&[][..], &[3], &[2], &[2, 129], &[2, 129, 102, 0], &[2, 129, 1, 0]] {
            assert_eq!(Decimal::read_key(key), None, "{key:?}");
        }
    }
}
