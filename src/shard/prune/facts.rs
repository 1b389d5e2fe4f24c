//! Facts that no policy keeps are dropped: by an entry of the log that says up to which transaction.
//!
//! ```text
//!   db/retention, what was said when, the leader's clock -> horizons -> FactHorizon -> committed -> apply: horizons rise
//!
//!   FactHorizon    per attribute: attribute:8 | horizon:8 | datoms:8 | value:8 | keep:1 | zero:7
//!   tally          by transaction, some told as one: assertions, retractions         a retraction drops itself and
//!                  one look through the attribute's past, then kept as facts come    what it took back
//! ```
//!
//! The entry says what the leader found, so that `apply` needs no clock and no file: here, at a restart and on every replica
//! alike. One that was worked out under another policy than there is now changes nothing. A horizon rises only where that
//! drops something. What has gone of an attribute is a fact about it. Deliberately absent: which datoms are gone at a horizon
//! (`storage/index/src/facts/prune.rs`), and bytes: runs lose them when they become one (`merge.rs`).

use super::super::append::Appender;
use super::super::entry::{EntryKind, Senseless};
use super::super::replicate::LogIndex;
use super::super::{Now, Shard, ShardError};
use super::{PACE_US, STEPS, is_news, rows_of, window_begins};
use bytemuck::{Pod, Zeroable};
use myelin_datom::{EntityId, Keep, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{Components, Facts, IndexError, Note, Order};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Attributes that a turn looks at.
const LOOKS: usize = 256;
/// Keys that a turn reads: well under a millisecond.
const KEYS: u64 = 2048;
/// Horizons in one entry.
const HORIZONS_MAX: usize = 256;
/// A tally is told more coarsely at the next pass when it has grown to this: some 35 are what every policy comes to.
const TOLD_FEW: usize = 64;
/// Transactions of a tally that are told one by one at most, between two passes and while a past is looked through.
const TOLD_MAX: usize = 4096;

/// Where the pruner of facts stands. Leader's state: not in the log, and begun again by the next leader.
#[derive(Debug, Default)]
pub struct FactPruner {
    tallies: BTreeMap<EntityId, Tally>,
    /// A pass is under way, and this is the next attribute to look at.
    at: Option<EntityId>,
    /// The attribute whose past is looked through. The others do not wait for it.
    behind: Option<EntityId>,
    again_us: u64,
    /// The entry that is not applied yet.
    under_way: Option<LogIndex>,
}

/// One horizon of an entry. **Shape:** 40 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct HorizonRow {
    attribute: u64,
    horizon: u64,
    datoms: u64,
    value: u64,
    keep: u8,
    zero: [u8; 7],
}

const _: () = assert!(size_of::<HorizonRow>() == 40);

/// What was said of an attribute since its horizon.
#[derive(Debug)]
struct Tally {
    keep: Keep,
    /// Up to this transaction the past is still looked through, and where that goes on.
    scan: Option<(Tx, Vec<u8>)>,
    said: BTreeMap<Tx, Said>,
}

/// What was said from `first` on up to the transaction that it stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    first: Tx,
    asserted: u64,
    retracted: u64,
}

impl FactPruner {
    /// Counts what a transaction said of attributes that are counted.
    pub(in crate::shard) fn note(&mut self, tx: Tx, said: impl Iterator<Item = (EntityId, bool)>) {
        if self.tallies.is_empty() {
            return;
        }
        for (a, added) in said {
            if let Some(tally) = self.tallies.get_mut(&a) {
                tally.note(tx, added);
            }
        }
    }
}

impl Shard {
    /// Drops what no policy keeps: appends an entry if a look at some attributes found horizons to raise.
    ///
    /// **Cost:** nothing where every attribute keeps all; else a bounded part of a pass. **Errors:** a run that cannot be read.
    pub(super) fn prune_facts_if_due(&mut self, now: Now, log: &mut Appender) -> Result<(), ShardError> {
        if self.fact_pruner.under_way.is_some_and(|index| index > self.group.applied()) {
            return Ok(());
        }
        self.look_back(now)?;
        if self.fact_pruner.at.is_none() {
            if now.mono_us < self.fact_pruner.again_us {
                return Ok(());
            }
            self.fact_pruner.again_us = now.mono_us + PACE_US;
            self.fact_pruner.at = Some(EntityId::NONE);
            let facts = &self.facts;
            let same = |a: &EntityId, tally: &mut Tally| facts.attribute(*a).is_some_and(|one| one.keep == tally.keep);
            self.fact_pruner.tallies.retain(same);
        }
        let rows = self.horizons_due(now)?;
        if rows.is_empty() {
            return Ok(());
        }
        self.fact_pruner.under_way =
            self.propose_to_drop(now, log, EntryKind::FactHorizon, bytemuck::cast_slice(&rows));
        if self.fact_pruner.under_way.is_none() {
            // What is due stays due: the next pass finds it again.
            self.fact_pruner.at = None;
        }
        Ok(())
    }

    /// Looks through a part of the past of one attribute, if there is one whose past was not counted yet.
    fn look_back(&mut self, now: Now) -> Result<(), IndexError> {
        let Self { facts, fact_pruner: FactPruner { tallies, behind, .. }, .. } = self;
        let mut keys = KEYS;
        while let Some(a) = *behind
            && keys > 0
        {
            let through = match tallies.get_mut(&a) {
                Some(tally) => tally.look_back(facts, a, now, &mut keys)?,
                None => true,
            };
            if !through {
                return Ok(());
            }
            // One without facts costs keys as well.
            keys = keys.saturating_sub(8);
            let mut next = tallies.range((Excluded(a), Unbounded)).take(LOOKS);
            *behind = next.find(|(_, tally)| tally.scan.is_some()).map(|(a, _)| *a);
        }
        Ok(())
    }

    fn horizons_due(&mut self, now: Now) -> Result<Vec<HorizonRow>, IndexError> {
        let Self { facts, fact_pruner: FactPruner { tallies, at, behind, .. }, .. } = self;
        let mut rows = Vec::new();
        let Some(from) = *at else { return Ok(rows) };
        let mut attributes = facts.thinned(from);
        for a in attributes.by_ref().take(LOOKS) {
            *at = Some(a);
            let Some(keep) = facts.attribute(a).map(|attribute| attribute.keep) else { continue };
            let tally = tallies.entry(a).or_insert_with(|| Tally::new(keep, facts.last_tx()));
            if rows.len() == HORIZONS_MAX {
                // Goes on with this one.
                return Ok(rows);
            }
            if tally.scan.is_some() {
                behind.get_or_insert(a);
                continue;
            }
            // Where nothing is taken back nothing is due, and no horizon would make it shorter.
            tally.shorten(TOLD_FEW, now);
            if let Some((horizon, datoms)) = tally.due(now) {
                let (keep, value) = tally.keep.to_parts();
                let (attribute, horizon) = (a.bits(), horizon.bits());
                rows.push(HorizonRow { attribute, horizon, datoms, value, keep, zero: [0; 7] });
            }
        }
        *at = attributes.next();
        Ok(rows)
    }

    /// Raises the horizons that an entry names. **Errors:** an entry without sense, a run of facts that cannot be read.
    pub(in crate::shard) fn apply_fact_horizon(&mut self, tx: Tx, body: &[u8]) -> Result<(), ShardError> {
        let senseless = Senseless { kind: EntryKind::FactHorizon as u8, at: 0 };
        let rows: Vec<HorizonRow> = rows_of(body).ok_or(senseless)?;
        let mut raised = Vec::new();
        for row in rows {
            let (a, horizon) = (EntityId::from_bits(row.attribute), Tx::from_bits(row.horizon));
            let meant = Keep::from_parts(row.keep, row.value).filter(|keep| *keep != Keep::All);
            let same = self.facts.attribute(a).is_some_and(|attribute| Some(attribute.keep) == meant);
            // What goes was there: a checkpoint that says otherwise would be refused at the next start.
            if same && row.datoms > self.facts.datoms() {
                return Err(senseless.into());
            }
            if same && self.facts.raise(a, horizon, row.datoms) {
                self.counters.datoms_dropped = self.counters.datoms_dropped.saturating_add(row.datoms);
                self.pruner.sealed_rows = self.pruner.sealed_rows.saturating_add(row.datoms);
                raised.push(a);
            }
            if let Some(tally) = self.fact_pruner.tallies.get_mut(&a) {
                tally.forget(self.facts.floor(a).horizon);
            }
        }
        self.state_raised(tx, &raised)
    }

    /// States of each attribute what has gone and up to when, as facts about it, where that is news.
    fn state_raised(&mut self, tx: Tx, raised: &[EntityId]) -> Result<(), ShardError> {
        let mut notes = Vec::new();
        for a in raised {
            let floor = self.facts.floor(*a);
            let dropped = i64::try_from(floor.dropped).unwrap_or(i64::MAX);
            let stated = self.facts.view(tx).value(*a, born::PRUNED_DATOMS)?;
            if !is_news(dropped, stated.as_ref()) {
                continue;
            }
            let horizon = Value::I64(floor.horizon.bits() as i64);
            let facts = vec![(born::HORIZON, horizon), (born::PRUNED_DATOMS, Value::I64(dropped))];
            notes.push(Note { about: Ok(*a), facts });
        }
        if !notes.is_empty() {
            self.state_facts(tx, &notes)?;
        }
        Ok(())
    }
}

impl Tally {
    const fn new(keep: Keep, upto: Tx) -> Self {
        Self { keep, scan: Some((upto, Vec::new())), said: BTreeMap::new() }
    }

    /// Counts what is said now: transactions only grow.
    fn note(&mut self, tx: Tx, added: bool) {
        match self.said.last_entry() {
            Some(last) if *last.key() == tx => last.into_mut().join(Said::one(tx, added)),
            _ => {
                self.said.insert(tx, Said::one(tx, added));
                self.join_last_but_one(tx);
                // Without a clock nothing is too old, and neighbours become one all the same.
                self.shorten(TOLD_MAX, Now::default());
            }
        }
    }

    /// Tells it more coarsely when it has grown beyond so many.
    fn shorten(&mut self, most: usize, now: Now) {
        if self.said.len() > most {
            self.said = coarser(self.keep, std::mem::take(&mut self.said), now);
        }
    }

    /// Before the newest transaction come two that may be told as one now.
    fn join_last_but_one(&mut self, newest: Tx) {
        let mut before = self.said.range(..newest).rev().map(|(tx, said)| (*tx, *said));
        let (Some(second), Some(first)) = (before.next(), before.next()) else { return };
        if self.keep.are_one(first, second) {
            self.said.remove(&first.0);
            self.said.entry(second.0).and_modify(|said| said.join(first.1));
        }
    }

    /// Looks through the past that nobody counted; false when there is more of it than `keys` allow.
    fn look_back(&mut self, facts: &Facts, a: EntityId, now: Now, keys: &mut u64) -> Result<bool, IndexError> {
        let Some((upto, place)) = &mut self.scan else { return Ok(true) };
        let (horizon, components) = (facts.floor(a).horizon, Components { a: Some(a), ..Components::default() });
        if horizon > *upto {
            // What was counted is gone.
            *self = Self::new(self.keep, facts.last_tx());
            return Ok(false);
        }
        let view = facts.view(*upto).since(horizon).history();
        let mut datoms = view.datoms(Order::Aevt, &components);
        let _resumed = place.is_empty() || datoms.resume(place);
        while *keys > datoms.visited() {
            let Some(datom) = datoms.next_within(*keys - datoms.visited())? else { break };
            let one = Said::one(datom.tx, datom.added);
            self.said.entry(datom.tx).and_modify(|said| said.join(one)).or_insert(one);
            if self.said.len() > TOLD_MAX {
                self.said = coarser(self.keep, std::mem::take(&mut self.said), now);
            }
        }
        *keys = keys.saturating_sub(datoms.visited());
        if let Some(reached) = datoms.place() {
            *place = reached.to_vec();
        }
        if !datoms.is_done() {
            return Ok(false);
        }
        self.scan = None;
        self.said = coarser(self.keep, std::mem::take(&mut self.said), now);
        Ok(true)
    }

    /// The horizon to rise to, and how many datoms go by that; `None` where nothing would.
    fn due(&self, now: Now) -> Option<(Tx, u64)> {
        let (mut horizon, mut retracted) = (Tx::ZERO, 0);
        for (tx, said) in &self.said {
            // Told as one they may reach into each other: what surely came later.
            let later = self.said.values().filter(|said| said.first > *tx).map(|said| said.asserted).sum();
            if !self.keep.may_go(*tx, later, now) {
                break;
            }
            (horizon, retracted) = (*tx, retracted + said.retracted);
        }
        (retracted > 0).then_some((horizon, 2 * retracted))
    }

    /// What lies below a horizon is no news.
    fn forget(&mut self, horizon: Tx) {
        self.said = self.said.split_off(&horizon.next());
    }
}

/// The same, with neighbours told as one where no horizon comes to lie between them.
fn coarser(keep: Keep, said: BTreeMap<Tx, Said>, now: Now) -> BTreeMap<Tx, Said> {
    let mut left: u64 = said.values().map(|said| said.asserted).sum();
    let mut told: Vec<(Tx, Said)> = Vec::with_capacity(64);
    for (tx, said) in said {
        left -= said.asserted;
        match told.last_mut() {
            Some(last) if keep.may_go(tx, left, now) || keep.are_one(*last, (tx, said)) => {
                last.0 = tx;
                last.1.join(said);
            }
            _ => told.push((tx, said)),
        }
    }
    told.into_iter().collect()
}

impl Said {
    fn one(tx: Tx, added: bool) -> Self {
        Self { first: tx, asserted: u64::from(added), retracted: u64::from(!added) }
    }

    fn join(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.asserted += other.asserted;
        self.retracted += other.retracted;
    }
}

/// How a policy looks at what was said.
trait Rule {
    /// Whether what was said up to this transaction may go, where so many assertions were said after it.
    fn may_go(self, tx: Tx, later: u64, now: Now) -> bool;
    /// Whether two neighbours lie within one step of the horizon.
    fn are_one(self, first: (Tx, Said), second: (Tx, Said)) -> bool;
}

impl Rule for Keep {
    fn may_go(self, tx: Tx, later: u64, now: Now) -> bool {
        match self {
            Self::All => false,
            Self::Latest => true,
            Self::Last(assertions) => later >= assertions.into(),
            Self::Window(ns) => tx < window_begins(now, ns),
        }
    }

    fn are_one(self, (first, a): (Tx, Said), (second, b): (Tx, Said)) -> bool {
        match self {
            Self::All | Self::Latest => true,
            Self::Last(assertions) => a.asserted + b.asserted <= u64::from(assertions) / STEPS,
            Self::Window(ns) => {
                let step = (ns / STEPS / 1_000_000).max(1);
                first.millis() / step == second.millis() / step
            }
        }
    }
}

#[cfg(test)]
mod tests;
