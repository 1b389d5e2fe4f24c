//! One read under way: who asked, and its walk over what there is.
//!
//! ```text
//!   go_on   on the core: memory only, so many rows or look-ups a slice -> More | Away | Answer
//!   travel  on the reader thread: what is sealed, so much a trip
//! ```
//! A walk keeps the numbers of its next rows; a row keeps its number wherever it moves. Deliberately absent: places and turns
//! (`mod.rs`).

use super::super::ask::{Read, Unanswered};
use super::super::reply::Said;
use super::super::{ConnId, Refusal};
use super::counts::Counts;
use super::rows::Rows;
use super::sums::Sums;
use crate::market::Markets;
use myelin_datom::{EntityId, Quote, Tick, Tx};
use myelin_index::{Cache, Columns, IndexError, Sealed, Summing};
use myelin_wire::Header;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What it costs to look a market up. **Units:** rows.
pub const MARKET_ROWS: u64 = 16;

/// What a read finds on the core.
pub struct Here<'a> {
    /// Ticks.
    pub ticks: &'a Columns<Tick>,
    /// Quotes.
    pub quotes: &'a Columns<Quote>,
    /// Names and numbers.
    pub markets: &'a Markets,
}

/// What a read finds on the reader thread.
pub struct There<'a> {
    /// Ticks.
    pub ticks: &'a Sealed<Tick>,
    /// Quotes.
    pub quotes: &'a Sealed<Quote>,
    /// The thread's own.
    pub cache: &'a Cache,
    /// Set when who asked has left.
    pub gone: &'a AtomicBool,
}

impl There<'_> {
    /// Who asked has left.
    pub fn nobody_asks(&self) -> bool {
        self.gone.load(Relaxed)
    }
}

/// What a slice came to.
pub enum Step {
    /// There is more to read here.
    More,
    /// What comes next is not in memory, or is much to round or to sort.
    Away,
    /// That is all.
    Answer(Said),
}

/// Markets that are still to be looked at: some by their ids, then some by their numbers.
pub struct ToCome {
    listed: VecDeque<EntityId>,
    numbers: Range<u32>,
}

impl ToCome {
    /// One.
    pub fn one(market: EntityId) -> Self {
        Self { listed: VecDeque::from([market]), numbers: 0..0 }
    }

    /// Those of these numbers.
    pub const fn numbered(numbers: Range<u32>) -> Self {
        Self { listed: VecDeque::new(), numbers }
    }

    /// These, in their order.
    pub fn listed(markets: impl Iterator<Item = EntityId>) -> Self {
        Self { listed: markets.collect(), numbers: 0..0 }
    }

    /// The next one.
    pub fn next(&mut self, markets: &Markets) -> Option<EntityId> {
        let numbered = |number| markets.get(number).map(|market| market.id);
        self.listed.pop_front().or_else(|| self.numbers.next().and_then(numbered))
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len() + self.listed.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.numbers.is_empty()
    }
}

/// What it is after.
pub enum Walk {
    /// Sums over rows.
    Sums(Box<Sums>),
    /// Numbers of rows.
    Counts(Counts),
    /// Rows of one market.
    Rows(Rows),
}

impl Walk {
    /// True for what goes over many rows, and may take seconds.
    pub const fn is_long(&self) -> bool {
        matches!(self, Self::Sums(_))
    }
}

/// One read.
pub struct Reading {
    number: u64,
    from: ConnId,
    header: Header,
    basis: Tx,
    gone: Arc<AtomicBool>,
    walk: Walk,
}

impl Reading {
    /// A read that begins.
    pub fn new(number: u64, read: &Read, walk: Walk) -> Self {
        Self { number, from: read.from, header: read.header, basis: read.basis, gone: Arc::default(), walk }
    }

    /// Which of the shard's reads it is.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Who asked.
    pub const fn from(&self) -> ConnId {
        self.from
    }

    /// The question's header.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The moment it sees.
    pub const fn basis(&self) -> Tx {
        self.basis
    }

    /// Set when who asked has left.
    pub fn gone(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.gone)
    }

    /// Who asked has left.
    pub fn nobody_asks(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// See [`Walk::is_long`].
    pub const fn is_long(&self) -> bool {
        self.walk.is_long()
    }

    /// True where it has come to so much that letting it go takes long.
    pub fn holds_much(&self) -> bool {
        matches!(&self.walk, Walk::Sums(sums) if sums.hold_much())
    }

    /// Goes on here, in memory, until `left` is spent. **Units:** rows.
    pub fn go_on(&mut self, here: &Here<'_>, summing: &mut Summing, left: &mut u64) -> Result<Step, Unanswered> {
        match &mut self.walk {
            Walk::Sums(sums) => sums.go_on(here, summing, left),
            Walk::Counts(counts) => counts.go_on(here, left),
            Walk::Rows(rows) => rows.go_on(here, left),
        }
    }

    /// Goes on away from the core, over rows that are sealed or frozen, until `left` is spent or who asked has left.
    pub fn travel(
        &mut self,
        ticks: &Sealed<Tick>,
        quotes: &Sealed<Quote>,
        cache: &Cache,
        summing: &mut Summing,
        left: u64,
    ) -> Result<(), IndexError> {
        let there = There { ticks, quotes, cache, gone: &self.gone };
        match &mut self.walk {
            Walk::Sums(sums) => sums.travel(&there, summing, left),
            Walk::Counts(counts) => counts.travel(&there),
            Walk::Rows(rows) => rows.travel(&there),
        }
    }
}

/// The same refusal with the market's name on it.
pub fn about(market: EntityId, error: IndexError) -> Unanswered {
    match Unanswered::from(error) {
        Unanswered::Refused(refusal) => Unanswered::Refused(Refusal { about: market, ..refusal }),
        failed => failed,
    }
}

#[cfg(test)]
mod tests;
