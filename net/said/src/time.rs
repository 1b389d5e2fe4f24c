//! Times as people write them: an instant has its zone, a length its unit.

use myelin_datom::{Length, read_length};

/// Reads a length of time: a whole number and its unit. **Units:** gives nanoseconds, above 0. **Errors:** a sentence.
pub fn length(text: &str) -> Result<i64, String> {
    let ns = read_length(text).and_then(|ns| i64::try_from(ns).ok());
    ns.filter(|ns| *ns > 0).ok_or_else(|| {
        format!("'{text}' is no length: write a whole number with ns, us, ms, s, m, h or d, as in 1m, up to 106751d")
    })
}

/// Writes a length of time as [`length`] reads it, in the largest unit that has it whole. **Units:** nanoseconds.
#[must_use]
pub fn say_length(ns: u64) -> String {
    Length(ns).to_string()
}

/// Reads an instant. **Units:** gives Unix nanoseconds. **Errors:** a sentence.
pub fn instant(text: &str) -> Result<i64, String> {
    let read = text.parse::<jiff::Timestamp>().ok().and_then(|read| i64::try_from(read.as_nanosecond()).ok());
    read.ok_or_else(|| format!("'{text}' is no instant with its zone, as in 2024-08-08T00:00:00Z"))
}

/// Writes an instant as [`instant`] reads it. **Units:** Unix nanoseconds.
#[must_use]
pub fn say_instant(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| ns.to_string(), |instant| instant.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit_and_an_instant_a_zone() {
        for (text, ns) in [
            ("1m", Some(60_000_000_000)),
            ("250ms", Some(250_000_000)),
            ("5", None),
            ("0s", None),
            ("1.5s", None),
            ("s", None),
            ("99999999999d", None),
        ] {
            assert_eq!(length(text).ok(), ns, "{text}");
            assert!(ns.is_none_or(|ns| say_length(ns as u64) == text), "{text}");
        }
        assert_eq!(instant("1970-01-01T00:00:01Z"), Ok(1_000_000_000));
        assert!(instant("1723075200").is_err());
        assert!(instant("2024-08-08").is_err());
        assert_eq!(say_instant(1_000_000_001), "1970-01-01T00:00:01.000000001Z");
    }
}
