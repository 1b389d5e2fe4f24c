//! Facts on their way to a reader: the log of facts, a page at a time.
//!
//! ```text
//!   place -> the log of facts -> a few hundred ready, each with what its attribute was called then -> one after the other
//! ```
//!
//! Invariant: what is ready is bounded in number and bytes. Deliberately absent: who wants a fact.

use super::entry::{Entry, Place, Stated, What};
use super::wanted::Wanted;
use crate::shard::turn::{FACT, LOG_SEEK, Work};
use myelin_datom::{EntityId, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{Facts, IndexError, LogPlace};
use std::collections::VecDeque;

/// Facts that are read at once.
const READY_MAX: usize = 128;
/// Reading stops when their values have grown to this. **Units:** bytes.
const READY_BYTES: usize = 64 << 10;

/// A reader's way through the log of facts.
#[derive(Debug)]
pub(super) struct FactFeed {
    place: LogPlace,
    /// The place of the last one that was read.
    last: Place,
    ready: VecDeque<Entry>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum NextFact {
    Fact(Entry),
    /// There is none up to the transaction asked for.
    End,
    /// The turn is over.
    Later,
}

impl FactFeed {
    /// Behind everything that was said in this transaction or before.
    pub(super) fn behind(tx: Tx) -> Self {
        Self { place: LogPlace::behind(tx), last: Place::behind(tx), ready: VecDeque::new() }
    }

    /// The next one up to a transaction.
    ///
    /// **Errors:** also where what was to come is below the horizon of what is wanted.
    pub(super) fn next(
        &mut self,
        facts: &Facts,
        wanted: &Wanted,
        upto: Tx,
        work: &mut Work,
    ) -> Result<NextFact, IndexError> {
        if self.ready.is_empty() {
            if work.is_spent() {
                return Ok(NextFact::Later);
            }
            self.fill(facts, wanted, upto, work)?;
        }
        Ok(self.ready.pop_front().map_or(NextFact::End, NextFact::Fact))
    }

    /// Reads one at least, where there is one.
    fn fill(&mut self, facts: &Facts, wanted: &Wanted, upto: Tx, work: &mut Work) -> Result<(), IndexError> {
        work.spend(LOG_SEEK);
        let mut log = facts.log(&self.place, upto, horizon(facts, wanted));
        let mut bytes = 0;
        while self.ready.len() < READY_MAX && bytes < READY_BYTES && (self.ready.is_empty() || !work.is_spent()) {
            let Some(datom) = log.read()? else { break };
            work.spend(FACT);
            let n = if datom.tx == self.last.tx { self.last.n.wrapping_add(1) } else { 0 };
            self.last = Place::of_fact(datom.tx, n);
            bytes += log.last_bytes();
            let ident = match at_the_time(facts.view(datom.tx).value(datom.a, born::IDENT))? {
                Some(Value::Keyword(ident)) => ident.into_owned(),
                _ => String::new(),
            };
            let what = What::Fact(Box::new(Stated { datom: datom.into_owned(), ident }));
            self.ready.push_back(Entry { place: self.last, what });
        }
        self.place = log.place();
        Ok(())
    }
}

/// The market whose feed has the gap that a fact describes.
pub(super) fn gap_of(facts: &Facts, stated: &Stated) -> Result<Option<EntityId>, IndexError> {
    if !stated.ident.starts_with("feed/gap") {
        return Ok(None);
    }
    let of = at_the_time(facts.view(stated.datom.tx).value(stated.datom.e, born::FEED_GAP))?;
    Ok(if let Some(Value::Ref(market)) = of { Some(market) } else { None })
}

/// Behind this the log has all facts that are wanted.
pub(super) fn horizon(facts: &Facts, wanted: &Wanted) -> Tx {
    facts.log_horizon(|attribute| wanted.attribute(&attribute.ident))
}

/// What was said then, nothing where that is gone.
fn at_the_time<T>(found: Result<Option<T>, IndexError>) -> Result<Option<T>, IndexError> {
    if let Err(IndexError::BelowHorizon { .. }) = found { Ok(None) } else { found }
}
