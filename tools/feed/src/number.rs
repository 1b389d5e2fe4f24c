//! Decimal text to numbers: the nearest `f64`, or an integer that fits; anything else is no number.
//!
//! Rounding is `fast-float2`'s, which is exact (Lemire 2021, "Number parsing at a gigabyte per second"); a test holds
//! it against `std`. Deliberately absent: spaces, thousands separators, hexadecimal, a decimal comma.

use myelin_datom::Flaw;

/// The nearest `f64`. `nan` and `inf` are numbers here, so that the flaw can be named by [`price_flaw`].
#[inline]
pub(crate) fn decimal(text: &[u8]) -> Option<f64> {
    fast_float2::parse::<f64, _>(text).ok()
}

/// As the node says it of `price`, `bid` and `ask`. A negative price is no flaw of shape: the market may be signed.
#[inline]
pub(crate) fn price_flaw(price: f64) -> Option<Flaw> {
    if !price.is_finite() {
        return Some(Flaw::PriceNotFinite);
    }
    if price.to_bits() == (-0.0_f64).to_bits() {
        return Some(Flaw::PriceNegativeZero);
    }
    None
}

/// As the node says it of every volume.
#[inline]
pub(crate) fn volume_flaw(volume: f64) -> Option<Flaw> {
    if !volume.is_finite() {
        return Some(Flaw::VolumeNotFinite);
    }
    if volume.is_sign_negative() {
        return Some(Flaw::VolumeNegative);
    }
    None
}

/// Digits only, at least one, below 2^64; leading zeros are allowed.
#[inline]
pub(crate) fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    // Up to 19 digits cannot overflow; a 20th may, and so may leading zeros in any number: those go the slow way.
    if text.len() > 19 {
        return unsigned_checked(text);
    }
    let mut value = 0_u64;
    let (eights, rest) = text.as_chunks::<8>();
    for eight in eights {
        value = value * 100_000_000 + eight_digits(*eight)?;
    }
    for &byte in rest {
        value = value * 10 + digit(byte)?;
    }
    Some(value)
}

#[cold]
fn unsigned_checked(text: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for &byte in text {
        value = value.checked_mul(10)?.checked_add(digit(byte)?)?;
    }
    Some(value)
}

#[inline]
pub(crate) fn digit(byte: u8) -> Option<u64> {
    let value = byte.wrapping_sub(b'0');
    (value < 10).then_some(u64::from(value))
}

/// Eight digits in three multiplications instead of eight dependent ones: half the cost of a 19-digit instant.
#[inline]
fn eight_digits(chunk: [u8; 8]) -> Option<u64> {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let text = u64::from_le_bytes(chunk);
    let all_digits = (text & HIGH) | ((text.wrapping_add(0x0606_0606_0606_0606) & HIGH) >> 4);
    if all_digits != 0x3333_3333_3333_3333 {
        return None;
    }
    let ones = text & 0x0f0f_0f0f_0f0f_0f0f;
    let tens = ones.wrapping_mul(10).wrapping_add(ones >> 8) & 0x00ff_00ff_00ff_00ff;
    let hundreds = tens.wrapping_mul(100).wrapping_add(tens >> 16) & 0x0000_ffff_0000_ffff;
    Some(hundreds.wrapping_mul(10_000).wrapping_add(hundreds >> 32) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::{EntityId, Row, Side, Slot, Tick};

    #[test]
    fn an_unsigned_number_is_what_std_reads_or_nothing() {
        let mut random = 7_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let text = (random >> (random & 63)).to_string();
            assert_eq!(unsigned(text.as_bytes()), text.parse().ok(), "{text}");
            let mut broken = text.into_bytes();
            let at = (random >> 20) as usize % broken.len();
            broken[at] = (random >> 40) as u8;
            let std = str::from_utf8(&broken).ok().filter(|t| !t.starts_with('+')).and_then(|t| t.parse().ok());
            assert_eq!(unsigned(&broken), std, "{broken:?}");
        }
        for (text, value) in [
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("00000000000000000000000007", Some(7)),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1 ", None),
        ] {
            assert_eq!(unsigned(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn a_decimal_is_the_nearest_float() {
        let mut random = 11_u64;
        for _ in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (whole, part) = (random >> 44, random & 0xffff_ffff_ffff);
            for text in [format!("{whole}.{part:015}"), format!("{part}e{}", (random >> 50) as i64 % 340 - 330)] {
                let ours = decimal(text.as_bytes()).unwrap();
                assert_eq!(ours.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
            }
        }
        // Halfway cases and the edges of the range.
        for text in ["9007199254740993", "2.2250738585072011e-308", "1.7976931348623158e308", "4.9e-324", "0.1", "1e23"]
        {
            assert_eq!(decimal(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        for text in ["", ".", "-", "1,5", " 1", "1 ", "0x10", "1e", "1_0", "--1"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_flaw_here_is_the_nodes_flaw() {
        let values = [0.0, -0.0, 1.5, -1.5, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324];
        for price in values {
            for volume in values {
                let tick = Tick {
                    market: EntityId::market(Slot::new(1).unwrap(), 1),
                    id: 1,
                    event_time_ns: 0,
                    price,
                    volume,
                    trader: EntityId::NONE,
                    side: Side::Buy as u8,
                    flags: 0,
                    zero_50: 0,
                    received_delta_us: 0,
                    source: 0,
                    zero_60: 0,
                };
                assert_eq!(price_flaw(price).or(volume_flaw(volume)), tick.flaw(), "{price} {volume}");
            }
        }
    }
}
