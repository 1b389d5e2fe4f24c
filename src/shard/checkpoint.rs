//! A shard's part of a checkpoint: what cannot be read from its runs, and the way back.
//!
//! ```text
//!   seal     -> newest rows frozen (still readable) + state bytes           on the core, no I/O
//!   (written by the seal thread: runs, then the manifest that names them)
//!   sealed   <- the runs, in place of the frozen rows                       on the core
//!   restore  <- state bytes + runs                                          at a start, then the log's tail is replayed
//!
//!   state    version:4 | position | sessions | markets | len:8 ticks | len:8 quotes | len:8 reflexes | len:8 facts | policies
//! ```
//!
//! The state is that of one applied entry: what lies behind it is in the log. Of the reflexes it has what runs; what is
//! registered has a file of its own (`registrations.rs`), because it is large and changes rarely.

use super::replicate::{Group, LogIndex, Position};
use super::seal::{Merged, NewRuns};
use super::session::Sessions;
use super::{Now, Shard, ShardError, columns_config, react};
use crate::config::Limits;
use crate::market::Markets;
use crate::reflex::{Reflexes, Registrations};
use crate::retention::Policies;
use myelin_datom::{Kind, Quote, Tick, Tx};
use myelin_index::{Columns, FactFloors, FactRun, Facts, Floors, Frozen, FrozenFacts, Run};
use myelin_wire::{Cursor, Short};
use std::sync::Arc;

/// Of the state bytes.
const VERSION: u32 = 5;

/// What the seal thread writes for one shard.
pub struct Sealing {
    /// The shard.
    pub shard: u16,
    /// Its newest ticks, if there are any.
    pub ticks: Option<Arc<Frozen<Tick>>>,
    /// Its newest quotes, if there are any.
    pub quotes: Option<Arc<Frozen<Quote>>>,
    /// Its newest facts, if there are any.
    pub facts: Option<Arc<FrozenFacts>>,
    /// What was pruned when the state was written down.
    pub floors: ShardFloors,
    /// The registered reflexes, if they changed since they were last written.
    pub registrations: Option<Registrations>,
    /// Everything else.
    pub state: Vec<u8>,
}

/// The floors of a shard's markets, and the horizons of its attributes.
#[derive(Clone, Debug, Default)]
pub struct ShardFloors {
    /// Of ticks.
    pub ticks: Floors,
    /// Of quotes.
    pub quotes: Floors,
    /// Of facts.
    pub facts: FactFloors,
}

/// What a start brings back for one shard.
#[derive(Default)]
pub struct Restoring {
    /// The state bytes.
    pub state: Vec<u8>,
    /// The registered reflexes; empty when there never were any.
    pub registrations: Vec<u8>,
    /// Its runs of ticks, oldest first.
    pub ticks: Vec<Arc<Run>>,
    /// Its runs of quotes, oldest first.
    pub quotes: Vec<Arc<Run>>,
    /// Its runs of facts, oldest first.
    pub facts: Vec<Arc<FactRun>>,
}

impl Shard {
    /// Freezes the newest rows and writes down the rest. Rows that come from now on belong to the next checkpoint.
    pub fn seal(&mut self) -> Sealing {
        self.drain_reflexes();
        let (ticks, quotes, facts) = (self.ticks.freeze(), self.quotes.freeze(), self.facts.freeze());
        let mut state = Vec::new();
        state.extend_from_slice(&VERSION.to_le_bytes());
        state.extend_from_slice(&self.group.applied().0.to_le_bytes());
        state.extend_from_slice(&self.group.applied_tx().bits().to_le_bytes());
        self.sessions.write(&mut state);
        self.markets.write(&mut state);
        let registrations =
            (self.reflexes.version() != self.registrations_written).then(|| self.reflexes.registrations());
        for part in [self.ticks.state(), self.quotes.state(), self.reflexes.running_state(), self.facts.state()] {
            state.extend_from_slice(&(part.len() as u64).to_le_bytes());
            state.extend_from_slice(&part);
        }
        self.retention.write(&mut state);
        self.reclaimed();
        Sealing { shard: self.number, ticks, quotes, facts, floors: self.floors(), registrations, state }
    }

    /// What is pruned as of now.
    #[must_use]
    pub fn floors(&self) -> ShardFloors {
        ShardFloors { ticks: self.ticks.floors(), quotes: self.quotes.floors(), facts: self.facts.floors() }
    }

    /// The frozen rows are in runs now, those of them that were not pruned. Their memory serves the next ones; what is left
    /// of the sealing is to be let go where there is time for that.
    pub fn sealed(&mut self, sealing: &mut Sealing, runs: NewRuns) {
        assert!(sealing.shard == self.number, "a run goes back to its shard");
        let NewRuns { ticks, quotes, facts } = runs;
        if let Some(registrations) = &sealing.registrations {
            self.registrations_written = registrations.version();
        }
        // Only who alone has a part may take its memory.
        sealing.ticks = sealing.ticks.take().map(|frozen| self.ticks.install(frozen, ticks));
        sealing.quotes = sealing.quotes.take().map(|frozen| self.quotes.install(frozen, quotes));
        if let (Some(frozen), Some(run)) = (&sealing.facts, facts) {
            self.facts.install(frozen, run);
        }
    }

    /// True with more runs than this of a kind, or more blocks in all of them.
    #[must_use]
    pub fn runs_over(&self, runs: usize, blocks: u64) -> bool {
        let over = |open: &[Arc<Run>]| {
            open.len() > runs || open.iter().map(|run| u64::from(run.meta().blocks)).sum::<u64>() > blocks
        };
        over(self.ticks.runs()) || over(self.quotes.runs())
    }

    /// Runs became one; no answer changes.
    pub fn merged(&mut self, merged: &Merged) {
        match merged {
            Merged::Rows { kind: Kind::Tick, old, new, .. } => self.ticks.install_merged(old, new.clone()),
            Merged::Rows { old, new, .. } => self.quotes.install_merged(old, new.clone()),
            Merged::Facts { old, new, .. } => self.facts.install_merged(old, Arc::clone(new)),
        }
    }

    /// The shard as the checkpoint left it.
    pub fn restore(number: u16, term: u64, limits: &Limits, from: Restoring) -> Result<Self, ShardError> {
        let mut shard = Self::new(number, term, limits);
        if from.state.is_empty() {
            return Ok(shard);
        }
        let short = |Short { at }| ShardError::Checkpoint(format!("short at byte {at}"));
        let mut cursor = Cursor::new(&from.state);
        let version = cursor.u32().map_err(short)?;
        if version != VERSION {
            return Err(ShardError::Checkpoint(format!("version {version}, {VERSION} is read")));
        }
        let position =
            Position { index: LogIndex(cursor.u64().map_err(short)?), tx: Tx::from_bits(cursor.u64().map_err(short)?) };
        if position.index.0.max(position.tx.bits()) > u64::MAX / 2 {
            return Err(ShardError::Checkpoint("it is of a position that no log comes to".to_owned()));
        }
        shard.group = Group::lead(number + 1, term, position);
        shard.sessions = Sessions::read(limits.sessions_per_shard, &mut cursor).map_err(short)?;
        shard.markets = Markets::read(&mut cursor).map_err(short)?;
        let mut part = || cursor.u64().and_then(|len| cursor.take(len as usize)).map_err(short);
        let (ticks, quotes, reflexes, facts) = (part()?, part()?, part()?, part()?);
        shard.retention = Policies::read(&mut cursor).map_err(short)?;
        cursor.end().map_err(short)?;
        shard.subscribers.known_from(position.tx);
        shard.ticks = Columns::restore(columns_config(limits), ticks, from.ticks)?;
        shard.quotes = Columns::restore(columns_config(limits), quotes, from.quotes)?;
        shard.facts = Facts::restore(facts, from.facts)?;
        let (bounds, registrations) = (react::limits(limits), from.registrations.as_slice());
        shard.reflexes = match registrations {
            [] => Reflexes::restore_parts(bounds, &Reflexes::new(bounds).registrations_state(), reflexes),
            written => Reflexes::restore_parts(bounds, written, reflexes),
        }
        .map_err(|error| ShardError::Checkpoint(error.to_string()))?;
        shard.registrations_written = shard.reflexes.version();
        // Parts of one checkpoint, each sound: found by a campaign over mutated ones.
        if shard.ticks.last_tx().max(shard.quotes.last_tx()).max(shard.facts.last_tx()) > position.tx {
            return Err(ShardError::Checkpoint("its rows or facts are younger than its position".to_owned()));
        }
        let ids = || shard.markets.iter().map(|market| market.id);
        let agree = shard.reflexes.markets().eq(shard.markets.iter().map(|market| (market.id, &*market.name)))
            && shard.ticks.markets().map(|ix| shard.ticks.market_id(ix)).eq(ids())
            && shard.quotes.markets().map(|ix| shard.quotes.market_id(ix)).eq(ids());
        if !agree {
            return Err(ShardError::Checkpoint("its rows or reflexes know other markets than it has".to_owned()));
        }
        Ok(shard)
    }

    /// Takes memory for the ticks that the log will bring back.
    pub fn stock(&mut self, chunks: impl Iterator<Item = Vec<Tick>>) {
        self.ticks.stock(chunks);
    }

    /// An entry that the log brought back at a start. In a group of one voter what its own disk holds is committed.
    pub fn replay(&mut self, entry: super::Committed<'_>) -> Result<(), ShardError> {
        if entry.index <= self.group.applied() {
            return Ok(());
        }
        if entry.index.0 != self.group.applied().0 + 1 {
            let (found, behind) = (entry.index.0, self.group.applied().0);
            return Err(ShardError::Checkpoint(format!("the log goes on with entry {found} behind entry {behind}")));
        }
        self.group.replayed(entry.index, entry.tx);
        self.apply(Now::default(), entry)?;
        self.effects.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reflex::{ReflexId, Scope, Spec};

    #[test]
    fn a_state_of_another_version_or_cut_short_is_refused() {
        let limits = Limits::default();
        let state = Shard::new(3, 1, &limits).seal().state;
        let restore = |state: &[u8]| {
            Shard::restore(3, 1, &limits, Restoring { state: state.to_vec(), ..Restoring::default() }).map(|_| ())
        };
        assert!(restore(&state).is_ok());
        for cut in 1..state.len() {
            assert!(restore(&state[..cut]).is_err(), "cut at {cut}");
        }
        for version in [0, VERSION - 1, VERSION + 1] {
            let other = [&version.to_le_bytes(), &state[4..]].concat();
            assert!(matches!(restore(&other), Err(ShardError::Checkpoint(_))), "version {version}");
        }
    }

    /// The job that was given back held on to the rows, so their memory was freed on the core, 64 MB at a time.
    #[test]
    fn memory_of_sealed_rows_serves_the_next_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = Shard::new(3, 1, &Limits::lean());
        let name = myelin_datom::MarketName::new("a").unwrap();
        let market = shard.markets.create(Tx::from_bits(1), name, myelin_wire::MarketFlags(0)).unwrap().id;
        shard.ticks.add_market(market, myelin_index::MarketOptions::default());
        let mut verdicts = Vec::new();
        for id in 1..=1000 {
            let tick = Tick { market, id, price: 1.0, ..bytemuck::Zeroable::zeroed() };
            shard.ticks.check(&[tick], &mut verdicts).unwrap();
            shard.ticks.insert(Tx::from_bits(id + 1), &[tick], &verdicts);
        }
        let mut sealing = shard.seal();
        let before = shard.ticks.memory_bytes();
        let path = dir.path().join("a.ticks");
        sealing.ticks.as_ref().unwrap().write_run(&path, &mut ()).unwrap();
        let runs = NewRuns { ticks: Some(Arc::new(Run::open(&path).unwrap())), ..NewRuns::default() };
        shard.sealed(&mut sealing, runs);
        let (free, rows) = (shard.ticks.memory_bytes(), 1000 * size_of::<Tick>());
        assert!((rows..=before).contains(&free), "{free} bytes of {before} are kept");
    }

    #[test]
    fn registered_reflexes_are_written_when_they_changed_and_come_back_from_their_own_file() {
        let limits = Limits::default();
        let mut shard = Shard::new(3, 1, &limits);
        assert!(shard.seal().registrations.is_none(), "there never were any");
        let register = |shard: &mut Shard, id| {
            let at = shard.group.applied_tx();
            shard.reflexes.register(ReflexId(id), Spec::Above(7.0), Scope::All, at).unwrap();
        };
        register(&mut shard, 1);
        let mut first = shard.seal();
        let written = first.registrations.as_ref().unwrap().bytes();
        assert!(shard.seal().registrations.is_some(), "until a checkpoint has it, each has to");
        shard.sealed(&mut first, NewRuns::default());
        let second = shard.seal();
        assert!(second.registrations.is_none(), "nothing changed");
        let from = |state: &[u8], registrations: &[u8]| {
            let (state, registrations) = (state.to_vec(), registrations.to_vec());
            Shard::restore(3, 1, &limits, Restoring { state, registrations, ..Restoring::default() })
        };
        let mut again = from(&second.state, &written).unwrap();
        assert_eq!(again.reflexes.state(), shard.reflexes.state());
        assert!(again.seal().registrations.is_none(), "the file that it came from has it");
        register(&mut again, 2);
        assert_eq!(again.seal().registrations.unwrap().bytes(), again.reflexes.registrations_state());
        assert!(from(&second.state, &written[..written.len() - 1]).is_err(), "a file that is cut");
    }
}
