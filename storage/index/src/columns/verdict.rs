//! What `check` decides about each row of a proposal, and what `insert` did.
//!
//! Deliberately absent: how the wire numbers refusals (`net/wire`), and which flaw of shape it is (`Row::flaw`).

use myelin_datom::EntityId;

/// What becomes of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is stored.
    New,
    /// The same key with the same 64 bytes is there: acknowledged, not stored.
    Duplicate,
    /// It cannot be stored.
    Refused(RowRefusal),
}

/// Why a row cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowRefusal {
    /// No such market in this shard.
    UnknownMarket = 1,
    /// A row with this key and other bytes is there, and this one does not say that it corrects it.
    IdConflict = 2,
    /// Its id lies below the pruned floor of a market whose ids ascend: nobody can tell whether it was seen.
    TooOld = 3,
    /// A price below zero on a market that is not signed.
    NegativePrice = 4,
    /// A correction of an id that has no row.
    NothingToCorrect = 5,
    /// The market holds as many rows as its ordinal has sequences; it takes a further ordinal.
    MarketFull = 6,
    /// Its shape is flawed: [`Row::flaw`](myelin_datom::Row::flaw) says how. Only where the door did not look.
    Flawed = 7,
}

impl RowRefusal {
    /// The sentence for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownMarket => "the market does not exist",
            Self::IdConflict => "another row has this id",
            Self::TooOld => "the id lies below what was pruned",
            Self::NegativePrice => "the price is negative and the market is not signed",
            Self::NothingToCorrect => "no row has the id that this one corrects",
            Self::MarketFull => "the market holds all rows its ordinal has room for",
            Self::Flawed => "a field has a value that no row may have",
        }
    }
}

/// Verdicts, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows to store.
    pub new: u32,
    /// Rows that are there already.
    pub duplicates: u32,
    /// Rows that cannot be stored; a frame is atomic, so one is enough to refuse it.
    pub refused: u32,
    /// The first refused row and why.
    pub first_refused: Option<(u32, RowRefusal)>,
}

/// Ids that a market with dense ids skipped, and that this insertion did not fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The market.
    pub market: EntityId,
    /// First missing id.
    pub first: u64,
    /// Last missing id.
    pub last: u64,
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inserted<'a> {
    /// Rows stored.
    pub rows: u32,
    /// Gaps that opened, in the order of the rows that opened them.
    pub gaps: &'a [Gap],
}

const _: () = assert!(size_of::<Verdict>() == 1);
