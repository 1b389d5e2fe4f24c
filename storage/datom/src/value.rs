//! What an attribute can hold: eleven types, one order, one key.
//!
//! ```text
//!   tag 1 bool | 2 i64 | 3 f64 | 4 string | 5 bytes | 6 keyword | 7 instant | 8 uuid | 9 decimal | 10 ref | 11 vector
//!
//!   wire   tag, then: 1 byte | 8 | 8 | u16 length, UTF-8 | u32 length, bytes | as string | 8 | 16, as it is printed
//!          | units i128, scale u8 | u64 | u16 count, f32 each                                    numbers little-endian
//!   key    tag, then: 1 byte | 8 big-endian, sign flipped | 8, ordered bits | text, 0 as 00 ff, end 00 01 | as string
//!          | as string | as i64 | 16 | see decimal.rs | 8 big-endian | u16 big-endian count, f32 each as on the wire
//! ```
//! Invariants: two keys compare, byte by byte, as their values do, and no key is the beginning of another; equal values
//! are one key. So NaN is no value, and neither is -0.0, which would be a second zero: both are refused where bytes come
//! in, as in a tick. An infinity is a value. Vectors are ordered by length and bytes: an order, not a meaning.
//! Deliberately absent: conversion between types.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::bytes::Bytes;
use crate::decimal::Decimal;
use crate::fact::{FactError, FactFlaw};
use crate::{EntityId, Instant};

/// Of a string, bytes or a vector. **Units:** bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 10;
/// Of a keyword. **Units:** bytes.
pub const KEYWORD_BYTES_MAX: usize = 200;

/// The type of a value; its number is law.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the module's picture says what each is")]
pub enum ValueType {
    Bool = 1,
    I64 = 2,
    F64 = 3,
    String = 4,
    Bytes = 5,
    Keyword = 6,
    Instant = 7,
    Uuid = 8,
    Decimal = 9,
    Ref = 10,
    Vector = 11,
}

impl ValueType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Bool,
        Self::I64,
        Self::F64,
        Self::String,
        Self::Bytes,
        Self::Keyword,
        Self::Instant,
        Self::Uuid,
        Self::Decimal,
        Self::Ref,
        Self::Vector,
    ];

    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as u8 == number)
    }

    /// As `db/value-type` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Keyword => "keyword",
            Self::Instant => "instant",
            Self::Uuid => "uuid",
            Self::Decimal => "decimal",
            Self::Ref => "ref",
            Self::Vector => "vector",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// A vector of f32 as its little-endian bytes, so that it can be read where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floats<'a>(Cow<'a, [u8]>);

impl Floats<'static> {
    /// Of these numbers.
    #[must_use]
    pub fn of(floats: &[f32]) -> Self {
        Self(floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>().into())
    }
}

impl Floats<'_> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f32> {
        self.0.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}

/// A value: its own, or lying in somebody's bytes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the module's picture says what each is")]
pub enum Value<'a> {
    Bool(bool),
    I64(i64),
    F64(f64),
    String(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// `namespace/name` or `name`, without a colon.
    Keyword(Cow<'a, str>),
    /// **Units:** Unix nanoseconds.
    Instant(Instant),
    /// As it is printed, the first digit highest.
    Uuid(u128),
    Decimal(Decimal),
    Ref(EntityId),
    Vector(Floats<'a>),
}

impl<'a> Value<'a> {
    /// A keyword that is not checked yet; see [`Value::flaw`].
    #[must_use]
    pub fn keyword(name: impl Into<Cow<'a, str>>) -> Self {
        Self::Keyword(name.into())
    }

    /// A string that is not checked yet; see [`Value::flaw`].
    #[must_use]
    pub fn string(text: impl Into<Cow<'a, str>>) -> Self {
        Self::String(text.into())
    }

    /// Its type.
    #[must_use]
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Bool(_) => ValueType::Bool,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
            Self::String(_) => ValueType::String,
            Self::Bytes(_) => ValueType::Bytes,
            Self::Keyword(_) => ValueType::Keyword,
            Self::Instant(_) => ValueType::Instant,
            Self::Uuid(_) => ValueType::Uuid,
            Self::Decimal(_) => ValueType::Decimal,
            Self::Ref(_) => ValueType::Ref,
            Self::Vector(_) => ValueType::Vector,
        }
    }

    /// What keeps it from being stored, whatever the schema says.
    #[must_use]
    pub fn flaw(&self) -> Option<FactFlaw> {
        let too_long = |bytes: usize| (bytes > VALUE_BYTES_MAX).then_some(FactFlaw::TooLong);
        match self {
            Self::F64(float) if float.is_nan() => Some(FactFlaw::NotANumber),
            Self::F64(float) if *float == 0.0 && float.is_sign_negative() => Some(FactFlaw::NegativeZero),
            Self::String(text) => too_long(text.len()),
            Self::Bytes(bytes) => too_long(bytes.len()),
            Self::Keyword(name) => keyword_flaw(name),
            Self::Vector(floats) if !floats.iter().all(f32::is_finite) => Some(FactFlaw::NotANumber),
            Self::Vector(floats) => too_long(floats.0.len()),
            Self::Ref(EntityId::NONE) => Some(FactFlaw::NoEntity),
            _ => None,
        }
    }

    /// The same, with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Bool(value) => Value::Bool(value),
            Self::I64(value) => Value::I64(value),
            Self::F64(value) => Value::F64(value),
            Self::String(value) => Value::String(value.into_owned().into()),
            Self::Bytes(value) => Value::Bytes(value.into_owned().into()),
            Self::Keyword(value) => Value::Keyword(value.into_owned().into()),
            Self::Instant(value) => Value::Instant(value),
            Self::Uuid(value) => Value::Uuid(value),
            Self::Decimal(value) => Value::Decimal(value),
            Self::Ref(value) => Value::Ref(value),
            Self::Vector(Floats(value)) => Value::Vector(Floats(value.into_owned().into())),
        }
    }

    /// Appends it as it travels. What does not fit its length field is cut: see [`Value::flaw`].
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.value_type() as u8);
        match self {
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::I64(value) | Self::Instant(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::F64(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
            Self::String(text) | Self::Keyword(text) => put_text(out, text),
            Self::Bytes(bytes) => {
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Uuid(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Decimal(value) => {
                out.extend_from_slice(&value.units().to_le_bytes());
                out.push(value.scale());
            }
            Self::Ref(entity) => out.extend_from_slice(&entity.bits().to_le_bytes()),
            Self::Vector(floats) => {
                out.extend_from_slice(&(floats.len() as u16).to_le_bytes());
                out.extend_from_slice(&floats.0);
            }
        }
    }

    /// Reads it as it travels. **Errors:** bytes that are none, and values that may not be stored.
    pub fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        let before = *input;
        let number = input.u8()?;
        let Some(value_type) = ValueType::from_number(number) else { return Err(before.flaw(FactFlaw::Tag)) };
        let value = match value_type {
            ValueType::Bool => match input.u8()? {
                0 => Self::Bool(false),
                1 => Self::Bool(true),
                _ => return Err(before.flaw(FactFlaw::Tag)),
            },
            ValueType::I64 => Self::I64(input.u64()? as i64),
            ValueType::F64 => Self::F64(f64::from_bits(input.u64()?)),
            ValueType::String => Self::String(input.text()?.into()),
            ValueType::Bytes => {
                let len = input.u32()?;
                Self::Bytes(input.take(len as usize)?.into())
            }
            ValueType::Keyword => Self::Keyword(input.text()?.into()),
            ValueType::Instant => Self::Instant(input.u64()? as i64),
            ValueType::Uuid => Self::Uuid(input.u128()?.swap_bytes()),
            ValueType::Decimal => {
                let (units, scale) = (input.u128()? as i128, input.u8()?);
                Self::Decimal(Decimal::new(units, scale).ok_or(before.flaw(FactFlaw::Decimal))?)
            }
            ValueType::Ref => Self::Ref(EntityId::from_bits(input.u64()?)),
            ValueType::Vector => {
                let count = input.u16()?;
                Self::Vector(Floats(input.take(usize::from(count) * 4)?.into()))
            }
        };
        value.flaw().map_or(Ok(value), |flaw| Err(before.flaw(flaw)))
    }

    /// Appends its key.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(self.value_type() as u8);
        match self {
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::I64(value) | Self::Instant(value) => out.extend_from_slice(&flipped(*value).to_be_bytes()),
            Self::F64(value) => out.extend_from_slice(&ordered(value.to_bits()).to_be_bytes()),
            Self::String(text) | Self::Keyword(text) => put_escaped(out, text.as_bytes()),
            Self::Bytes(bytes) => put_escaped(out, bytes),
            Self::Uuid(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Decimal(value) => value.write_key(out),
            Self::Ref(entity) => out.extend_from_slice(&entity.bits().to_be_bytes()),
            Self::Vector(floats) => {
                out.extend_from_slice(&(floats.len() as u16).to_be_bytes());
                out.extend_from_slice(&floats.0);
            }
        }
    }

    /// Reads the key at the start of `bytes`, and says how long it is. `None` when there is none. Borrows what it can:
    /// everything but text and bytes with a zero in them.
    #[must_use]
    pub fn read_key(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (number, rest) = bytes.split_first()?;
        let word = || Some(u64::from_be_bytes(*rest.first_chunk()?));
        let (value, len) = match ValueType::from_number(*number)? {
            ValueType::Bool => (Self::Bool(*rest.first()? == 1), 1),
            ValueType::I64 => (Self::I64(unflipped(word()?)), 8),
            ValueType::Instant => (Self::Instant(unflipped(word()?)), 8),
            ValueType::F64 => (Self::F64(f64::from_bits(unordered(word()?))), 8),
            ValueType::String => escaped_text(rest).map(|(text, len)| (Self::String(text), len))?,
            ValueType::Keyword => escaped_text(rest).map(|(text, len)| (Self::Keyword(text), len))?,
            ValueType::Bytes => escaped(rest).map(|(bytes, len)| (Self::Bytes(bytes), len))?,
            ValueType::Uuid => (Self::Uuid(u128::from_be_bytes(*rest.first_chunk()?)), 16),
            ValueType::Decimal => Decimal::read_key(rest).map(|(value, len)| (Self::Decimal(value), len))?,
            ValueType::Ref => (Self::Ref(EntityId::from_bits(word()?)), 8),
            ValueType::Vector => {
                let len = usize::from(u16::from_be_bytes(*rest.first_chunk()?)) * 4;
                (Self::Vector(Floats(rest.get(2..2 + len)?.into())), 2 + len)
            }
        };
        Some((value, 1 + len))
    }
}

/// What is wrong with a keyword: empty, too long, white space or control characters in it, or a colon before it.
#[must_use]
pub fn keyword_flaw(name: &str) -> Option<FactFlaw> {
    let sound = !name.is_empty()
        && name.len() <= KEYWORD_BYTES_MAX
        && !name.starts_with(':')
        && !name.chars().any(|c| c.is_whitespace() || c.is_control());
    (!sound).then_some(FactFlaw::Keyword)
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..len]);
}

const fn flipped(number: i64) -> u64 {
    number as u64 ^ 1 << 63
}

const fn unflipped(bits: u64) -> i64 {
    (bits ^ 1 << 63) as i64
}

/// Bits of a float that compare as the float does.
const fn ordered(bits: u64) -> u64 {
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

const fn unordered(bits: u64) -> u64 {
    if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits }
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for (n, piece) in bytes.split(|byte| *byte == 0).enumerate() {
        if n > 0 {
            out.extend_from_slice(&[0, 0xff]);
        }
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(&[0, 1]);
}

/// The bytes up to the end mark, and how long they and the mark are.
fn escaped(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, usize)> {
    let mut copied: Option<Vec<u8>> = None;
    let mut from = 0;
    loop {
        let zero = from + bytes.get(from..)?.iter().position(|byte| *byte == 0)?;
        match bytes.get(zero + 1)? {
            1 => {
                let taken = match copied {
                    None => Cow::Borrowed(&bytes[..zero]),
                    Some(mut copied) => {
                        copied.extend_from_slice(&bytes[from..zero]);
                        Cow::Owned(copied)
                    }
                };
                return Some((taken, zero + 2));
            }
            0xff => {
                let copied = copied.get_or_insert_with(Vec::new);
                copied.extend_from_slice(&bytes[from..=zero]);
                from = zero + 2;
            }
            _ => return None,
        }
    }
}

fn escaped_text(bytes: &[u8]) -> Option<(Cow<'_, str>, usize)> {
    let (taken, len) = escaped(bytes)?;
    let text = match taken {
        Cow::Borrowed(bytes) => Cow::Borrowed(core::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(alloc::string::String::from_utf8(bytes).ok()?),
    };
    Some((text, len))
}

impl Ord for Value<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::I64(a), Self::I64(b)) | (Self::Instant(a), Self::Instant(b)) => a.cmp(b),
            (Self::F64(a), Self::F64(b)) => a.total_cmp(b),
            (Self::String(a), Self::String(b)) | (Self::Keyword(a), Self::Keyword(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Ref(a), Self::Ref(b)) => a.cmp(b),
            (Self::Vector(a), Self::Vector(b)) => a.len().cmp(&b.len()).then_with(|| a.0.cmp(&b.0)),
            _ => self.value_type().cmp(&other.value_type()),
        }
    }
}

impl PartialOrd for Value<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value<'_> {}
