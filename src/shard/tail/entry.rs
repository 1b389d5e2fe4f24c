//! One entry of the stream: where it stands, what it is, and a page of them on their way to a reader.
//!
//! ```text
//!   order   tx | rows and markets, then facts | n | market | number
//!   page    512 entries, 64 KiB, or as far as credit reaches: whatever comes first
//! ```
//!
//! Deliberately absent: who wants an entry, and where it is read.

use crate::market::Markets;
use crate::shard::turn::Work;
use myelin_datom::{Datom, Tx};
use myelin_wire::{LogKind, tail_credits, write_tail_fact, write_tail_market, write_tail_row};

/// Entries in one page at most: 45 KiB of ticks.
const ENTRIES_PER_PAGE: u32 = 512;
/// A page ends when it has grown to this: a fact may have 16 KiB. **Units:** bytes.
const PAGE_BYTES: usize = 64 << 10;

/// Where an entry stands in the stream. **Order:** the stream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) tx: Tx,
    /// Facts of a transaction stand behind its rows.
    pub(super) fact: bool,
    /// The tick's place within its transaction, the fact's among its facts; 0 for others.
    pub(super) n: u32,
    /// The market's number within the shard.
    pub(super) market: u32,
    /// The row's number within the market.
    pub(super) number: u32,
}

impl Place {
    /// Behind everything of this transaction.
    pub(super) const fn behind(tx: Tx) -> Self {
        Self { tx, fact: true, n: u32::MAX, market: u32::MAX, number: u32::MAX }
    }

    pub(super) const fn of_fact(tx: Tx, n: u32) -> Self {
        Self { tx, fact: true, n, market: 0, number: 0 }
    }

    /// The last transaction of which nothing has to be read again by who goes on behind this.
    pub(super) fn whole(self) -> Tx {
        if self == Self::behind(self.tx) { self.tx } else { Tx::from_bits(self.tx.bits().saturating_sub(1)) }
    }
}

/// A fact as it was said, and what its attribute was called then.
#[derive(Debug)]
pub(super) struct Stated {
    pub(super) datom: Datom<'static>,
    pub(super) ident: String,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum What {
    Tick([u64; 8]),
    Quote([u64; 8]),
    Market,
    Fact(Box<Stated>),
    /// Facts of this transaction, which are read where they lie: their values may be long.
    Facts,
}

/// One entry of the stream.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) what: What,
}

impl Entry {
    /// A market that was created.
    pub(super) const fn market(tx: Tx, market: u32) -> Self {
        Self { place: Place { tx, fact: false, n: 0, market, number: market }, what: What::Market }
    }

    pub(super) const fn kind(&self) -> LogKind {
        match self.what {
            What::Tick(_) => LogKind::Tick,
            What::Quote(_) => LogKind::Quote,
            What::Market => LogKind::Market,
            What::Fact(_) | What::Facts => LogKind::Fact,
        }
    }
}

/// A page on its way to a reader.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) body: Vec<u8>,
    pub(super) count: u32,
    /// What it costs.
    pub(super) credits: u32,
    credit: i64,
}

impl Page {
    /// An empty one for a reader with so much credit.
    pub(super) const fn new(credit: i64) -> Self {
        Self { body: Vec::new(), count: 0, credits: 0, credit }
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= ENTRIES_PER_PAGE || self.body.len() >= PAGE_BYTES || i64::from(self.credits) >= self.credit
    }

    pub(super) fn write(&mut self, markets: &Markets, entry: &Entry, work: &mut Work) {
        let Place { tx, n, market, number, .. } = entry.place;
        let (tx, start) = (tx.bits(), self.body.len());
        match &entry.what {
            What::Tick(row) | What::Quote(row) => write_tail_row(&mut self.body, entry.kind(), tx, n, number, row),
            What::Fact(stated) => write_tail_fact(&mut self.body, n, &stated.datom, &stated.ident),
            What::Market => {
                let Some(created) = markets.get(market) else { return };
                write_tail_market(&mut self.body, tx, number, created.id, created.flags, &created.name);
            }
            What::Facts => return,
        }
        let bytes = self.body.len() - start;
        self.credits += tail_credits(bytes as u32);
        self.count += 1;
        work.spend_bytes(bytes);
    }
}
