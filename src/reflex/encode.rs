//! Specs and scopes as bytes, for the wire, the log and the checkpoint; little-endian, drawn in `README.md`.
//!
//! ```text
//!   spec   kind u8 | its numbers, 8 bytes each | spread: signed u8, least, two names
//!   scope  kind u8 | market, like: a name               name = length u8 | bytes, UTF-8
//! ```
//!
//! Invariants: decoding never panics, takes exactly what it needs and leaves the rest; what it gives passed `check`;
//! one value has one encoding. Deliberately absent: optional fields and versions; a new meaning is a new kind.

use super::firing::Kind;
use super::spec::{Scope, Spec, SpecError, Spread};

const SCOPE_MARKET: u8 = 1;
const SCOPE_LIKE: u8 = 2;
const SCOPE_ALL: u8 = 3;

/// Why bytes are no spec, scope or checkpoint. `at` counts from the start of what was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the bytes end early: {missing} more are needed")]
    Short {
        /// At least so many more.
        missing: usize,
    },
    /// A number that names a kind names none.
    #[error("{what} {number} is unknown")]
    Unknown {
        /// What it should name.
        what: &'static str,
        /// What was found.
        number: u64,
    },
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// Well formed, and no question.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// A checkpoint that contradicts itself.
    #[error("the checkpoint is corrupt: {what}")]
    Corrupt {
        /// What does not fit.
        what: &'static str,
    },
    /// The checkpoint holds more than the limits allow.
    #[error("the checkpoint holds more {of} than the limit of {max}")]
    Full {
        /// What there is too much of.
        of: &'static str,
        /// The bound.
        max: usize,
    },
}

impl Spec {
    /// Appends the bytes of this spec. **Panics** on one that [`Spec::check`] refuses for the length of a name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind() as u8);
        match self {
            Self::Above(x) | Self::Below(x) => put_f64(out, *x),
            Self::Enters { low, high } | Self::Leaves { low, high } => {
                put_f64(out, *low);
                put_f64(out, *high);
            }
            Self::Move { least, window_ns } | Self::Volume { least, window_ns } => {
                put_f64(out, *least);
                out.extend_from_slice(&window_ns.to_le_bytes());
            }
            Self::Spread(spread) => {
                out.push(u8::from(spread.signed));
                put_f64(out, spread.least);
                put_name(out, &spread.a);
                put_name(out, &spread.b);
            }
            Self::Gap => {}
        }
    }

    /// Takes one spec off the front. **Errors:** [`DecodeError`]; what `from` points at then means nothing.
    pub fn decode(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = take_u8(from)?;
        let kind =
            Kind::from_number(number).ok_or(DecodeError::Unknown { what: "reflex kind", number: u64::from(number) })?;
        let spec = match kind {
            Kind::Above => Self::Above(take_f64(from)?),
            Kind::Below => Self::Below(take_f64(from)?),
            Kind::Enters => Self::Enters { low: take_f64(from)?, high: take_f64(from)? },
            Kind::Leaves => Self::Leaves { low: take_f64(from)?, high: take_f64(from)? },
            Kind::Move => Self::Move { least: take_f64(from)?, window_ns: take_i64(from)? },
            Kind::Volume => Self::Volume { least: take_f64(from)?, window_ns: take_i64(from)? },
            Kind::Spread => {
                let signed = take_bool(from)?;
                let least = take_f64(from)?;
                let (a, b) = (take_name(from)?, take_name(from)?);
                Self::Spread(Box::new(Spread { a, b, least, signed }))
            }
            Kind::Gap => Self::Gap,
        };
        spec.check()?;
        Ok(spec)
    }
}

impl Scope {
    /// Appends the bytes of this scope. **Panics** on a name or pattern longer than 200 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Market(name) => {
                out.push(SCOPE_MARKET);
                put_name(out, name);
            }
            Self::Like(pattern) => {
                out.push(SCOPE_LIKE);
                put_name(out, pattern);
            }
            Self::All => out.push(SCOPE_ALL),
        }
    }

    /// Takes one scope off the front. **Errors:** [`DecodeError`]; what `from` points at then means nothing.
    pub fn decode(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let scope = match take_u8(from)? {
            SCOPE_MARKET => Self::Market(take_name(from)?),
            SCOPE_LIKE => Self::Like(take_name(from)?),
            SCOPE_ALL => Self::All,
            number => return Err(DecodeError::Unknown { what: "scope kind", number: u64::from(number) }),
        };
        scope.check()?;
        Ok(scope)
    }
}

pub(super) fn put_f64(out: &mut Vec<u8>, x: f64) {
    out.extend_from_slice(&x.to_bits().to_le_bytes());
}

pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    assert!(name.len() <= 200);
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

pub(super) fn take<'a>(from: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], DecodeError> {
    let Some((taken, rest)) = from.split_at_checked(bytes) else {
        return Err(DecodeError::Short { missing: bytes - from.len() });
    };
    *from = rest;
    Ok(taken)
}

pub(super) fn take_array<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let Some((taken, rest)) = from.split_first_chunk::<N>() else {
        return Err(DecodeError::Short { missing: N - from.len() });
    };
    *from = rest;
    Ok(*taken)
}

pub(super) fn take_u8(from: &mut &[u8]) -> Result<u8, DecodeError> {
    Ok(u8::from_le_bytes(take_array(from)?))
}

pub(super) fn take_bool(from: &mut &[u8]) -> Result<bool, DecodeError> {
    match take_u8(from)? {
        0 => Ok(false),
        1 => Ok(true),
        number => Err(DecodeError::Unknown { what: "truth value", number: u64::from(number) }),
    }
}

pub(super) fn take_u32(from: &mut &[u8]) -> Result<u32, DecodeError> {
    Ok(u32::from_le_bytes(take_array(from)?))
}

pub(super) fn take_u64(from: &mut &[u8]) -> Result<u64, DecodeError> {
    Ok(u64::from_le_bytes(take_array(from)?))
}

pub(super) fn take_i64(from: &mut &[u8]) -> Result<i64, DecodeError> {
    Ok(i64::from_le_bytes(take_array(from)?))
}

pub(super) fn take_f64(from: &mut &[u8]) -> Result<f64, DecodeError> {
    Ok(f64::from_bits(take_u64(from)?))
}

pub(super) fn take_name(from: &mut &[u8]) -> Result<Box<str>, DecodeError> {
    let bytes = take_u8(from)?;
    let name = std::str::from_utf8(take(from, usize::from(bytes))?).map_err(|_| DecodeError::NotUtf8)?;
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{scopes, specs};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn specs_and_scopes_come_back_from_their_bytes(spec in specs(), scope in scopes()) {
            let mut bytes = Vec::new();
            spec.encode(&mut bytes);
            scope.encode(&mut bytes);
            bytes.push(7);
            let mut from = &bytes[..];
            prop_assert_eq!(Spec::decode(&mut from).unwrap(), spec);
            prop_assert_eq!(Scope::decode(&mut from).unwrap(), scope);
            prop_assert_eq!(from, &[7]);
        }

        #[test]
        fn bad_bytes_are_refused_and_what_is_taken_has_one_encoding(
            spec in specs(), scope in scopes(), flip in 1u8..,
            at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            spec.encode(&mut bytes);
            scope.encode(&mut bytes);
            let end = cut.index(bytes.len());
            prop_assert!(Spec::decode(&mut &bytes[..end]).and(Scope::decode(&mut &bytes[..0])).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut from = &bytes[..];
            if let Ok(spec) = Spec::decode(&mut from) && let Ok(scope) = Scope::decode(&mut from) {
                let mut again = Vec::new();
                spec.encode(&mut again);
                scope.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - from.len()]);
            }
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Spec::decode(&mut &noise[..]);
            let _ = Scope::decode(&mut &noise[..]);
        }
    }

    /// The bytes drawn in the README: changing them breaks every log.
    #[test]
    fn the_bytes_are_those_of_the_readme() {
        let bytes = |spec: Spec| {
            let mut out = Vec::new();
            spec.encode(&mut out);
            out
        };
        assert_eq!(bytes(Spec::Above(1.0)), [1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(bytes(Spec::Volume { least: 1.0, window_ns: 2 })[9..], [2, 0, 0, 0, 0, 0, 0, 0]);
        let spread = Spread { a: "A".into(), b: "BC".into(), least: 1.0, signed: true };
        let drawn = [7, 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 1, b'A', 2, b'B', b'C'];
        assert_eq!(bytes(Spec::Spread(Box::new(spread))), drawn);
        assert_eq!(bytes(Spec::Gap), [8]);
    }
}
