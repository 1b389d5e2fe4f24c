//! Text to an instant: a number *with* a unit, or RFC 3339. A bare number is never guessed at.
//!
//! Exact or refused: a fraction finer than a nanosecond, a leap second and an instant outside 1677..2262 are no
//! instants here. Deliberately absent: local times, week dates, lenient spellings.

use myelin_datom::Instant;

use crate::number::{digit, unsigned};

/// How a column spells its instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Ns,
    Us,
    Ms,
    S,
    Rfc3339,
}

impl Unit {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "ns" => Some(Self::Ns),
            "us" => Some(Self::Us),
            "ms" => Some(Self::Ms),
            "s" => Some(Self::S),
            "rfc3339" => Some(Self::Rfc3339),
            _ => None,
        }
    }

    /// The noun of an error.
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Self::Ns => "Unix nanoseconds, whole, from 1677 to 2262",
            Self::Us => "Unix microseconds, at most 3 decimals, from 1677 to 2262",
            Self::Ms => "Unix milliseconds, at most 6 decimals, from 1677 to 2262",
            Self::S => "Unix seconds, at most 9 decimals, from 1677 to 2262",
            Self::Rfc3339 => {
                "an RFC 3339 time such as 2024-08-08T00:00:00Z (a bare number needs a unit: ns, us, ms or s)"
            }
        }
    }

    /// The instant, exactly.
    #[inline]
    pub(crate) fn instant(self, text: &[u8]) -> Option<Instant> {
        match self {
            Self::Ns => scaled(text, 1, 0),
            Self::Us => scaled(text, 1_000, 3),
            Self::Ms => scaled(text, 1_000_000, 6),
            Self::S => scaled(text, 1_000_000_000, 9),
            Self::Rfc3339 => rfc3339(text),
        }
    }
}

#[inline]
fn scaled(text: &[u8], ns: i64, decimals: usize) -> Option<Instant> {
    match unsigned(text) {
        Some(whole) => i64::try_from(whole).ok()?.checked_mul(ns),
        None => scaled_slowly(text, ns, decimals),
    }
}

/// With a sign or a fraction.
fn scaled_slowly(text: &[u8], ns: i64, decimals: usize) -> Option<Instant> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, part) = match memchr::memchr(b'.', digits) {
        Some(dot) => (&digits[..dot], fraction(&digits[dot + 1..], decimals)?),
        None => (digits, 0),
    };
    let total = i128::from(unsigned(whole)?) * i128::from(ns) + i128::from(part);
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Digits after a point as a number of `decimals` digits; further digits must be zeros.
fn fraction(text: &[u8], decimals: usize) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0_i64;
    for at in 0..decimals.max(text.len()) {
        let next = match text.get(at) {
            Some(&byte) => digit(byte)?,
            None => 0,
        };
        if at < decimals {
            value = value * 10 + next as i64;
        } else if next != 0 {
            return None;
        }
    }
    Some(value)
}

/// `2024-08-08T12:34:56[.fraction](Z|+hh:mm|-hh:mm)`; `t`, `z` and a space for `T` are allowed, as in RFC 3339, 5.6.
fn rfc3339(text: &[u8]) -> Option<Instant> {
    let (stamp, rest) = text.split_at_checked(19)?;
    let part = |from: usize, to: usize| stamp.get(from..to).and_then(unsigned).map(|n| n as i64);
    let marks = (stamp[4], stamp[7], stamp[10], stamp[13], stamp[16]);
    if !matches!(marks, (b'-', b'-', b'T' | b't' | b' ', b':', b':')) {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (ns, zone) = match rest.strip_prefix(b".") {
        Some(after) => {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, zone) = after.split_at(digits);
            (fraction(digits, 9)?, zone)
        }
        None => (0, rest),
    };
    let offset = offset_seconds(zone)?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    i64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(ns)).ok()
}

fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (unsigned(&[*h1, *h2])? as i64, unsigned(&[*m1, *m2])? as i64);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// **Source:** Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_is_an_exact_instant_or_none() {
        for (unit, text, ns) in [
            (Unit::Ns, "1723161254087896568", Some(1_723_161_254_087_896_568)),
            (Unit::Ns, "-1", Some(-1)),
            (Unit::Ns, "1.5", None),
            (Unit::Ns, "1.0", Some(1)),
            (Unit::Ns, "9223372036854775807", Some(i64::MAX)),
            (Unit::Ns, "9223372036854775808", None),
            (Unit::Ns, "-9223372036854775808", Some(i64::MIN)),
            (Unit::Us, "1.001", Some(1_001)),
            (Unit::Ms, "1723161255342", Some(1_723_161_255_342_000_000)),
            (Unit::Ms, "9223372036855", None),
            (Unit::S, "1723161254.0878965", Some(1_723_161_254_087_896_500)),
            (Unit::S, "-1.5", Some(-1_500_000_000)),
            (Unit::S, "1.0000000001", None),
            (Unit::S, "1e9", None),
            (Unit::S, "1.", None),
            (Unit::S, ".5", None),
            (Unit::S, "", None),
            (Unit::Rfc3339, "1723161254", None),
        ] {
            assert_eq!(unit.instant(text.as_bytes()), ns, "{unit:?} {text}");
        }
    }

    #[test]
    fn an_rfc_3339_time_is_what_jiff_reads() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2012-11-09T10:08:00Z",
            "2024-02-29t23:59:59.999999999z",
            "1969-12-31 23:59:59.5+05:30",
            "1900-03-01T00:00:00-23:59",
            "2262-04-11T23:47:16.854775807Z",
            "2000-02-29T00:00:00.1+00:00",
        ] {
            let oracle = text.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
            assert_eq!(rfc3339(text.as_bytes()).map(i128::from), Some(oracle), "{text}");
        }
        let mut random = 3_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let ns = (random as i64).clamp(-9_200_000_000_000_000_000, 9_200_000_000_000_000_000);
            let text = jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap().to_string();
            assert_eq!(rfc3339(text.as_bytes()), Some(ns), "{text}");
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.1234567891Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01",
            "2262-04-11T23:47:16.854775808Z",
            "9999-12-31T00:00:00Z",
            "+024-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }
}
