//! A fact, and what a transaction asks for: the same bytes in the frame, the log entry and the WAL.
//!
//! ```text
//!   transaction   partition text | ops u32 | op ..
//!   op            1 assert          entity | attribute | given
//!                 2 retract         entity | attribute | 0, or 1 given          nothing given = every value
//!                 3 retract entity  entity                                      with its components, and what points at it
//!                 4 compare and set entity | attribute | 0, or 1 given | 0, or 1 given          expected, then new
//!   entity        1 id u64 | 2 tempid text | 3 ident text | 4 lookup: attribute | value | 5 this transaction
//!   attribute     1 id u64 | 3 ident text
//!   given         0 value | 1 entity            a reference may be given as any entity
//!   datom         e u64 | a u64 | tx u64 | added u8 | value
//! ```
//! A text is its length (u16) and UTF-8; numbers are little-endian; `value` is drawn in `value.rs`. Invariants: what was
//! read is sound in itself (names, numbers, lengths); nothing nests, so nothing recurses. Whether it fits the schema and
//! the database is decided in `apply`. Deliberately absent: functions that run inside a transaction.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::Bytes;
use crate::value::{Value, keyword_flaw, put_text};
use crate::{EntityId, MarketName, Tx};

/// Ops of one transaction at most: as many new facts hold up a shard for 5 ms.
pub const OPS_MAX: u32 = 4096;
/// Of a tempid. **Units:** bytes.
pub const TEMPID_BYTES_MAX: usize = 200;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datom<'a> {
    /// Who it is about.
    pub e: EntityId,
    /// What about them.
    pub a: EntityId,
    /// What it is.
    pub v: Value<'a>,
    /// The transaction that said so.
    pub tx: Tx,
    /// Asserted; else retracted.
    pub added: bool,
}

impl<'a> Datom<'a> {
    /// Appends it as it travels.
    pub fn write(&self, out: &mut Vec<u8>) {
        for word in [self.e.bits(), self.a.bits(), self.tx.bits()] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.push(u8::from(self.added));
        self.v.write(out);
    }

    /// Reads it as it travels.
    pub fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        let (e, a, tx) = (input.u64()?, input.u64()?, input.u64()?);
        let added = match input.u8()? {
            0 => false,
            1 => true,
            _ => return Err(input.flaw(FactFlaw::Tag)),
        };
        let v = Value::read(input)?;
        Ok(Self { e: EntityId::from_bits(e), a: EntityId::from_bits(a), v, tx: Tx::from_bits(tx), added })
    }

    /// The same, with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Datom<'static> {
        Datom { e: self.e, a: self.a, v: self.v.into_owned(), tx: self.tx, added: self.added }
    }
}

/// How an attribute is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeName<'a> {
    /// By its id.
    Id(EntityId),
    /// By its `db/ident`.
    Ident(Cow<'a, str>),
}

/// How an entity is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entity<'a> {
    /// By its id.
    Id(EntityId),
    /// By a name that counts in this transaction only; without an entity of its own it becomes a new one.
    Temp(Cow<'a, str>),
    /// By its `db/ident`.
    Ident(Cow<'a, str>),
    /// By the value of a unique attribute.
    Lookup(AttributeName<'a>, Value<'a>),
    /// The transaction itself.
    ThisTx,
}

/// A value as an op gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// As it is.
    Value(Value<'a>),
    /// A reference to whoever is named so.
    Entity(Entity<'a>),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module's picture says what each is")]
pub enum Op<'a> {
    Assert { e: Entity<'a>, a: AttributeName<'a>, v: Given<'a> },
    Retract { e: Entity<'a>, a: AttributeName<'a>, v: Option<Given<'a>> },
    RetractEntity { e: Entity<'a> },
    CompareAndSet { e: Entity<'a>, a: AttributeName<'a>, expected: Option<Given<'a>>, new: Option<Given<'a>> },
}

/// What a client asks for at once: all of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The partition's name: placed as a market of this name would be.
    pub partition: Cow<'a, str>,
    /// In this order; each sees what those before it did.
    pub ops: Vec<Op<'a>>,
}

/// What is wrong with bytes or values, whatever the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactFlaw {
    /// The bytes end.
    Short,
    /// Bytes follow the end.
    Long,
    /// Not UTF-8.
    NotText,
    /// A number that names no kind of op, entity or value.
    Tag,
    /// A string, bytes or a vector of more than 16 KiB.
    TooLong,
    /// NaN, or a vector with an element that is not finite.
    NotANumber,
    /// -0.0, which would be a second zero.
    NegativeZero,
    /// A keyword or ident that is empty, longer than 200 bytes, or with white space in it.
    Keyword,
    /// A decimal of more than 38 digits.
    Decimal,
    /// The entity 0.
    NoEntity,
    /// A tempid that is empty or longer than 200 bytes.
    Tempid,
    /// A partition's name that is none.
    Partition,
    /// No ops, or more than 4,096.
    Ops,
}

impl FactFlaw {
    /// The sentence for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "the bytes end too soon",
            Self::Long => "bytes follow the end",
            Self::NotText => "a text is not UTF-8",
            Self::Tag => "a number names no kind of op, entity or value",
            Self::TooLong => "a value is longer than 16 KiB",
            Self::NotANumber => "a number is NaN, or not finite in a vector",
            Self::NegativeZero => "a number is -0.0",
            Self::Keyword => "a keyword is empty, longer than 200 bytes, begins with a colon or has white space in it",
            Self::Decimal => "a decimal has more than 38 digits",
            Self::NoEntity => "0 is no entity",
            Self::Tempid => "a tempid is empty or longer than 200 bytes",
            Self::Partition => "a partition's name is empty, longer than 200 bytes or has white space in it",
            Self::Ops => "a transaction has no ops, or more than 4,096",
        }
    }
}

/// Where and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactError {
    /// **Units:** bytes from the start.
    pub at: usize,
    /// The op, from 0; `u32::MAX` outside of ops.
    pub op: u32,
    /// What.
    pub flaw: FactFlaw,
}

impl fmt::Display for FactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (byte {})", self.flaw.as_str(), self.at)
    }
}

impl core::error::Error for FactError {}

impl<'a> Transaction<'a> {
    /// Appends it as it travels: the body of a frame and of a log entry.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_text(out, &self.partition);
        out.extend_from_slice(&(self.ops.len() as u32).to_le_bytes());
        self.ops.iter().for_each(|op| op.write(out));
    }

    /// Reads it. **Errors:** whatever no database could make right. **Cost:** borrows names and values.
    pub fn read(body: &'a [u8]) -> Result<Self, FactError> {
        let mut input = Bytes::new(body);
        let partition = input.text()?;
        if MarketName::new(partition).is_err() {
            return Err(Bytes::new(body).flaw(FactFlaw::Partition));
        }
        let count = input.u32()?;
        if count == 0 || count > OPS_MAX {
            return Err(input.flaw(FactFlaw::Ops));
        }
        let mut ops = Vec::new();
        for op in 0..count {
            ops.push(Op::read(&mut input).map_err(|error| FactError { op, ..error })?);
        }
        if input.is_done() { Ok(Self { partition: partition.into(), ops }) } else { Err(input.flaw(FactFlaw::Long)) }
    }
}

impl<'a> Op<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Assert { e, a, v } => {
                out.push(1);
                e.write(out);
                a.write(out);
                v.write(out);
            }
            Self::Retract { e, a, v } => {
                out.push(2);
                e.write(out);
                a.write(out);
                write_optional(v.as_ref(), out);
            }
            Self::RetractEntity { e } => {
                out.push(3);
                e.write(out);
            }
            Self::CompareAndSet { e, a, expected, new } => {
                out.push(4);
                e.write(out);
                a.write(out);
                write_optional(expected.as_ref(), out);
                write_optional(new.as_ref(), out);
            }
        }
    }

    fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        let before = *input;
        let kind = input.u8()?;
        if !(1..=4).contains(&kind) {
            return Err(before.flaw(FactFlaw::Tag));
        }
        let e = Entity::read(input)?;
        if kind == 3 {
            return Ok(Self::RetractEntity { e });
        }
        let a = AttributeName::read(input)?;
        Ok(match kind {
            1 => Self::Assert { e, a, v: Given::read(input)? },
            2 => Self::Retract { e, a, v: read_optional(input)? },
            _ => Self::CompareAndSet { e, a, expected: read_optional(input)?, new: read_optional(input)? },
        })
    }
}

fn write_optional(given: Option<&Given<'_>>, out: &mut Vec<u8>) {
    out.push(u8::from(given.is_some()));
    if let Some(given) = given {
        given.write(out);
    }
}

fn read_optional<'a>(input: &mut Bytes<'a>) -> Result<Option<Given<'a>>, FactError> {
    match input.u8()? {
        0 => Ok(None),
        1 => Given::read(input).map(Some),
        _ => Err(input.flaw(FactFlaw::Tag)),
    }
}

impl<'a> Given<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) => {
                out.push(0);
                value.write(out);
            }
            Self::Entity(entity) => {
                out.push(1);
                entity.write(out);
            }
        }
    }

    fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        match input.u8()? {
            0 => Value::read(input).map(Self::Value),
            1 => Entity::read(input).map(Self::Entity),
            _ => Err(input.flaw(FactFlaw::Tag)),
        }
    }
}

impl<'a> AttributeName<'a> {
    /// By its `db/ident`.
    #[must_use]
    pub fn ident(name: impl Into<Cow<'a, str>>) -> Self {
        Self::Ident(name.into())
    }

    /// Appends it as it travels.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Id(id) => {
                out.push(1);
                out.extend_from_slice(&id.bits().to_le_bytes());
            }
            Self::Ident(name) => {
                out.push(3);
                put_text(out, name);
            }
        }
    }

    /// Reads it as it travels.
    pub fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        let before = *input;
        match input.u8()? {
            1 => Ok(Self::Id(EntityId::from_bits(input.u64()?))),
            3 => ident(input, before).map(Self::Ident),
            _ => Err(before.flaw(FactFlaw::Tag)),
        }
    }
}

fn ident<'a>(input: &mut Bytes<'a>, before: Bytes<'a>) -> Result<Cow<'a, str>, FactError> {
    let name = input.text()?;
    keyword_flaw(name).map_or(Ok(name.into()), |flaw| Err(before.flaw(flaw)))
}

impl<'a> Entity<'a> {
    /// A name that counts in one transaction only.
    #[must_use]
    pub fn temp(name: impl Into<Cow<'a, str>>) -> Self {
        Self::Temp(name.into())
    }

    /// Appends it as it travels.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Id(id) => {
                out.push(1);
                out.extend_from_slice(&id.bits().to_le_bytes());
            }
            Self::Temp(name) => {
                out.push(2);
                put_text(out, name);
            }
            Self::Ident(name) => {
                out.push(3);
                put_text(out, name);
            }
            Self::Lookup(attribute, value) => {
                out.push(4);
                attribute.write(out);
                value.write(out);
            }
            Self::ThisTx => out.push(5),
        }
    }

    /// Reads it as it travels.
    pub fn read(input: &mut Bytes<'a>) -> Result<Self, FactError> {
        let before = *input;
        match input.u8()? {
            1 => match input.u64()? {
                0 => Err(before.flaw(FactFlaw::NoEntity)),
                bits => Ok(Self::Id(EntityId::from_bits(bits))),
            },
            2 => {
                let name = input.text()?;
                if name.is_empty() || name.len() > TEMPID_BYTES_MAX {
                    return Err(before.flaw(FactFlaw::Tempid));
                }
                Ok(Self::Temp(name.into()))
            }
            3 => ident(input, before).map(Self::Ident),
            4 => Ok(Self::Lookup(AttributeName::read(input)?, Value::read(input)?)),
            5 => Ok(Self::ThisTx),
            _ => Err(before.flaw(FactFlaw::Tag)),
        }
    }
}
