//! Lengths of time as people write them: a whole number and its unit, as in `7d`.

use core::fmt;

/// Ascending, each with its nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads a length; `None` when it is none. **Units:** gives nanoseconds.
#[must_use]
pub fn read_length(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*ns)
}

/// Writes a length as [`read_length`] reads it, in the largest unit that has it whole. **Units:** nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Length(pub u64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |unit: &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(unit.1);
        let (name, ns) = UNITS.iter().rev().find(whole).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_length_is_a_whole_number_and_a_unit() {
        assert_eq!(read_length("7d"), Some(604_800_000_000_000));
        assert_eq!(read_length("0ns"), Some(0));
        for text in ["7d", "36h", "90s", "1500us", "0ns", "7ns"] {
            assert_eq!(read_length(text).map(|ns| Length(ns).to_string()).as_deref(), Some(text));
        }
        for text in ["", "7", "d", "-7d", "1.5s", "7 d", "7D", "99999999999d"] {
            assert_eq!(read_length(text), None, "{text}");
        }
    }
}
