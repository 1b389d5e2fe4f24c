//! Facts in the order in which they were said: by transaction, within it by entity and attribute.
//!
//! ```text
//!   runs, oldest first -> frozen parts -> newest part       each from the place on, one after the other: no merge
//! ```
//! Invariants: every part and run holds whole transactions, those of the newer one later, so reading one after the other
//! is the order of the log; a place is a key, so it stays good whatever is sealed or merged meanwhile. What shards are born
//! with was said by nobody and is not in it. Below the horizon of what is wanted runs may lack datoms: there the log is
//! refused, never short; in memory all are there. **Cost:** a seek where a part or run begins, then a key a datom.

use myelin_datom::{Datom, Tx};

use super::key::{self, Key, Order};
use super::scan::{Cursor, Source};
use super::{Attribute, Facts};
use crate::IndexError;

/// Where a reader of the log is: everything from here on is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace(Box<[u8]>);

impl LogPlace {
    /// Behind everything that was said in this transaction or before.
    #[must_use]
    pub fn behind(tx: Tx) -> Self {
        Self(tx.bits().saturating_add(1).to_be_bytes().into())
    }

    /// The first transaction that may still come.
    fn tx(&self) -> Tx {
        Tx::from_bits(self.0.first_chunk().map_or(0, |tx| u64::from_be_bytes(*tx)))
    }
}

/// Facts as they were said, read as they are asked for.
pub struct FactLog<'a> {
    facts: &'a Facts,
    from: LogPlace,
    upto: Tx,
    horizon: Tx,
    /// The part or run that is read, by age.
    source: usize,
    cursor: Option<Cursor<'a>>,
    last: Option<&'a [u8]>,
}

impl Facts {
    /// What was said from a place on, up to a transaction, for whoever needs everything behind `horizon` or is told
    /// ([`Facts::log_horizon`]). Nothing is read yet.
    #[must_use]
    pub fn log(&self, from: &LogPlace, upto: Tx, horizon: Tx) -> FactLog<'_> {
        FactLog { facts: self, from: from.clone(), upto, horizon, source: 0, cursor: None, last: None }
    }

    /// The greatest horizon of the attributes that are wanted: behind it the log is whole.
    #[must_use]
    pub fn log_horizon(&self, wanted: impl Fn(&Attribute) -> bool) -> Tx {
        let horizons = self.floors.iter().filter(|(a, _)| self.schema.get(**a).is_none_or(&wanted));
        horizons.map(|(_, floor)| floor.horizon).max().unwrap_or(Tx::ZERO)
    }

    /// Parts and runs, oldest first, each with its first and last transaction at the widest.
    fn by_age(&self, at: usize) -> Option<(Source<'_>, Tx, Tx)> {
        if let Some(run) = self.runs.get(at) {
            return Some((Source::Run(run), run.meta().tx_min, run.meta().tx_max));
        }
        let at = at - self.runs.len();
        if let Some(frozen) = self.frozen.get(at) {
            return Some((Source::Part(&frozen.part), frozen.part.first_tx().unwrap_or(Tx::MAX), frozen.upto));
        }
        let newest = (Source::Part(&self.newest), self.newest.first_tx().unwrap_or(Tx::MAX), self.last_tx);
        (at == self.frozen.len()).then_some(newest)
    }
}

impl<'a> FactLog<'a> {
    /// The next one. **Errors:** a run that cannot be read; what was to come is below the horizon.
    pub fn read(&mut self) -> Result<Option<Datom<'a>>, IndexError> {
        loop {
            let Some(cursor) = &mut self.cursor else {
                let Some((source, first, last)) = self.facts.by_age(self.source) else { return Ok(None) };
                if first > self.upto {
                    return Ok(None);
                }
                if last < self.from.tx() {
                    self.source += 1;
                } else if matches!(source, Source::Run(_)) && first.max(self.from.tx()) <= self.horizon {
                    return Err(IndexError::BelowHorizon { horizon: self.horizon });
                } else {
                    self.cursor = Some(source.from(Order::Teav, &Key::new(&self.from.0))?);
                }
                continue;
            };
            match cursor.next()? {
                None => (self.source, self.cursor) = (self.source + 1, None),
                Some(key) => {
                    if key::said_by(Order::Teav, key.bytes).is_some_and(|(tx, _)| tx > self.upto) {
                        return Ok(None);
                    }
                    self.last = Some(key.bytes);
                    if let Some(datom) = key::read(Order::Teav, key.bytes) {
                        return Ok(Some(datom));
                    }
                }
            }
        }
    }

    /// The length of the last one's key, its value included. **Units:** bytes.
    #[must_use]
    pub fn last_bytes(&self) -> usize {
        self.last.map_or(0, <[u8]>::len)
    }

    /// How far this has come: where the next [`Facts::log`] goes on.
    #[must_use]
    pub fn place(&self) -> LogPlace {
        // No key is the beginning of another, so this is behind it and before every other.
        self.last.map_or_else(|| self.from.clone(), |key| LogPlace([key, &[0]].concat().into()))
    }
}
