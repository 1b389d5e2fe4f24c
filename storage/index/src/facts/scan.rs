//! Keys of several parts and runs as one ascending stream, read as they are asked for.
//!
//! ```text
//!   newest -\
//!   frozen --> the smallest first --> keys          a run gives a block at a time, verified when it is first touched
//!   run ... -/
//! ```
//! Invariants: nothing is materialised; a key stands in one source only. Deliberately absent: what holds (`view.rs`).

use std::collections::btree_set::Range;

use myelin_datom::Tx;

use super::key::{Key, KeyRef, Order};
use super::part::Part;
use super::run::RunCursor;
use super::{FactRun, Facts};
use crate::IndexError;

#[cfg(test)]
thread_local! {
    /// Seeks, and keys that were taken from a scan.
    pub(crate) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Where datoms lie.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Part(&'a Part),
    Run(&'a FactRun),
}

impl Facts {
    /// Whatever holds datoms of this moment or before, newest first.
    pub(crate) fn sources(&self, as_of: Tx) -> impl Iterator<Item = Source<'_>> {
        let parts = [&self.newest].into_iter().chain(self.frozen.iter().rev().map(|frozen| &frozen.part));
        let parts = parts.filter(move |part| part.first_tx().is_some_and(|tx| tx <= as_of)).map(Source::Part);
        let runs = self.runs.iter().rev().filter(move |run| run.meta().tx_min <= as_of);
        parts.chain(runs.map(|run| Source::Run(run))).chain([Source::Part(&self.born)])
    }
}

impl<'a> Source<'a> {
    /// Keys from this place on.
    pub(crate) fn from(self, order: Order, seek: &Key) -> Result<Cursor<'a>, IndexError> {
        Ok(match self {
            Self::Part(part) => Cursor::Part(part.from(order, seek)),
            Self::Run(run) => Cursor::Run(run.from(order, seek.as_ref())?),
        })
    }

    /// The first key at this place or behind it.
    pub(crate) fn first(self, order: Order, seek: &Key) -> Result<Option<KeyRef<'a>>, IndexError> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        match self {
            Self::Part(part) => Ok(part.from(order, seek).next().map(Key::as_ref)),
            Self::Run(run) => run.from(order, seek.as_ref())?.next(),
        }
    }
}

/// A place in one source.
pub(crate) enum Cursor<'a> {
    Part(Range<'a, Key>),
    Run(RunCursor<'a>),
}

impl<'a> Cursor<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<KeyRef<'a>>, IndexError> {
        match self {
            Self::Part(keys) => Ok(keys.next().map(Key::as_ref)),
            Self::Run(run) => run.next(),
        }
    }
}

/// See the module's picture.
pub(crate) struct Merge<'a> {
    cursors: Vec<(Cursor<'a>, KeyRef<'a>)>,
    upper: Option<Key>,
}

impl<'a> Merge<'a> {
    /// Keys from `lower` to before `upper`.
    pub(crate) fn new(
        sources: impl Iterator<Item = Source<'a>>,
        order: Order,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<Self, IndexError> {
        let lower = Key::new(lower);
        let mut merge = Self { cursors: Vec::new(), upper: upper.map(Key::new) };
        for source in sources {
            let mut cursor = source.from(order, &lower)?;
            if let Some(first) = merge.within(cursor.next()?) {
                merge.cursors.push((cursor, first));
            }
        }
        Ok(merge)
    }

    fn within(&self, key: Option<KeyRef<'a>>) -> Option<KeyRef<'a>> {
        key.filter(|key| self.upper.as_ref().is_none_or(|upper| *key < upper.as_ref()))
    }

    /// The next key. **Cost:** a comparison per source.
    pub(crate) fn next(&mut self) -> Result<Option<KeyRef<'a>>, IndexError> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let smallest = self.cursors.iter().enumerate().min_by(|(_, (_, a)), (_, (_, b))| a.cmp(b)).map(|(at, _)| at);
        let Some(at) = smallest else { return Ok(None) };
        let next = self.cursors[at].0.next()?;
        let found = self.cursors[at].1;
        match self.within(next) {
            Some(next) => self.cursors[at].1 = next,
            None => drop(self.cursors.swap_remove(at)),
        }
        Ok(Some(found))
    }
}
