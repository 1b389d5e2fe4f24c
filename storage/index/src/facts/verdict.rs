//! Why a transaction cannot be. One reason and the op it is about.
//!
//! Deliberately absent: how the wire numbers refusals (`net/wire`), and flaws of shape (decided at admission).

use crate::IndexError;

/// Why an op cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactWhy {
    /// An id that was never given out, an ident or lookup that finds nobody, a reference to nobody.
    NoEntity,
    /// No attribute of this name or id in the partition.
    UnknownAttribute,
    /// The value is of another type than the attribute's.
    Type,
    /// The value is outside of the attribute's checks.
    Check,
    /// The value of a unique attribute belongs to another entity, or a tempid would be two entities.
    Unique,
    /// Compare-and-set found another value than expected.
    Compare,
    /// The schema cannot become that: unsound, or data stands against it.
    Schema,
    /// It takes back or replaces what the same transaction asserted, or compares a set.
    Conflict,
    /// More datoms than one transaction may store, cascades included; or more attributes than a shard may have.
    TooLarge,
    /// The entity is of another partition.
    OtherPartition,
}

/// Which op, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactRefusal {
    /// From 0.
    pub op: u32,
    /// Why.
    pub why: FactWhy,
}

/// Why checking ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(FactRefusal),
    Failed(IndexError),
}

impl From<IndexError> for Stop {
    fn from(error: IndexError) -> Self {
        Self::Failed(error)
    }
}

impl FactWhy {
    pub(crate) const fn of(self, op: u32) -> Stop {
        Stop::Refused(FactRefusal { op, why: self })
    }

    /// The sentence for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEntity => "there is no such entity",
            Self::UnknownAttribute => "there is no such attribute",
            Self::Type => "the value is of another type than the attribute's",
            Self::Check => "the value is outside of what the attribute allows",
            Self::Unique => "the value belongs to another entity",
            Self::Compare => "the value is another one than expected",
            Self::Schema => "the schema cannot become that",
            Self::Conflict => "it contradicts another op of the transaction",
            Self::TooLarge => "the transaction is too large",
            Self::OtherPartition => "the entity is of another partition",
        }
    }
}
