//! One shard's facts: what a transaction may say, what is stored, what can be read as of any moment.
//!
//! ```text
//!   ops --check--> plan --insert--> newest part --freeze--> FrozenFacts --write_run--> FactRun (a file)
//!       (state only)                (memory)                (memory, immutable)          |  ^
//!                                        \____ view(as_of) ____ reads ______________/    | merge_facts
//! ```
//! `key` a datom as sortable bytes; `schema` what values must be; `draft` a transaction in the making; `tempids`, `check`
//! what it may do; `verdict` why not; `part` datoms in memory; `directory`, `write`, `run` the file; `scan`, `view` the
//! answers; `log` what was said, in order; `retention`, `prune` what is kept; `merge`, `state` what keeps it small and
//! restartable.
//!
//! Invariants: `check` changes nothing that can be seen; transactions only grow; a datom stands in one part or run, and the
//! newer of two stands in the newer one; what every shard is born with lies in a part of its own that no file holds.
//! Deliberately absent: the clock, threads, and when to freeze, seal, merge or prune (the caller's policy).

mod check;
mod directory;
mod draft;
mod key;
mod log;
mod merge;
mod part;
mod prune;
mod retention;
mod run;
mod scan;
mod schema;
mod state;
mod tempids;
mod verdict;
mod view;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use myelin_datom::{EntityId, Kind, SEQUENCES_PER_ORDINAL, Slot, Tx};

pub use check::Asked;
pub use draft::{Note, Plan};
pub use key::Order;
pub use log::{FactLog, LogPlace};
pub use merge::merge_facts;
pub use part::FrozenFacts;
use part::Part;
pub use prune::{FactFloor, FactFloors};
pub use run::FactRun;
use schema::Schema;
pub use schema::{Attribute, Unique, born};
pub use verdict::{FactRefusal, FactWhy};
pub use view::{Components, Datoms, FactsView};

/// Number of facts among the kinds of runs: that of the ordinary entities most of them are about.
pub const FACTS_KIND: u8 = Kind::Ordinary as u8;
/// Datoms one transaction stores at most, its cascades included.
pub const DATOMS_PER_TX_MAX: usize = 8_192;
/// Attributes a shard can have installed.
pub const ATTRIBUTES_MAX: usize = 100_000;

/// Where ids are given out: how many of a kind and slot were, and what the next one is.
type Counters = BTreeMap<(u8, u16), u64>;

/// One shard's facts.
pub struct Facts {
    schema: Schema,
    born: Part,
    newest: Part,
    /// Oldest first.
    frozen: Vec<Arc<FrozenFacts>>,
    /// Oldest first; all older than the frozen parts.
    runs: Vec<Arc<FactRun>>,
    next: Counters,
    floors: BTreeMap<EntityId, FactFloor>,
    /// Datoms that were ever stored.
    stored: u64,
    last_tx: Tx,
}

impl Default for Facts {
    fn default() -> Self {
        let (schema, born) = Schema::born();
        Self {
            schema,
            born,
            newest: Part::default(),
            frozen: Vec::new(),
            runs: Vec::new(),
            next: Counters::new(),
            floors: BTreeMap::new(),
            stored: 0,
            last_tx: Tx::ZERO,
        }
    }
}

impl Facts {
    /// Nothing but what every shard is born with.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores what was planned, as transaction `tx`; says how many datoms that were.
    ///
    /// **Panics** when `tx` does not follow every transaction before it, or the plan is another state's: applying in order
    /// is the caller's contract.
    pub fn insert(&mut self, tx: Tx, plan: &Plan) -> u32 {
        assert!(tx > self.last_tx, "{tx} does not follow {}", self.last_tx);
        assert!(plan.behind == self.last_tx, "a plan is carried out at once");
        self.last_tx = tx;
        for planned in &plan.datoms {
            let datom = planned.as_of(tx);
            let Some(attribute) = self.schema.get(datom.a) else { unreachable!("a planned attribute exists") };
            self.newest.insert(attribute, &datom);
        }
        self.stored += plan.datoms.len() as u64;
        self.next.extend(&plan.next);
        for (id, attribute) in &plan.attributes {
            self.schema.install(*id, attribute.clone());
        }
        plan.datoms.len() as u32
    }

    /// The attribute with this id.
    #[must_use]
    pub fn attribute(&self, id: EntityId) -> Option<&Attribute> {
        self.schema.get(id)
    }

    /// The attribute of this name, as the partition of this slot sees it.
    #[must_use]
    pub fn attribute_named(&self, slot: Slot, ident: &str) -> Option<&Attribute> {
        self.schema.named(slot, ident).and_then(|id| self.schema.get(id))
    }

    /// The last transaction that was inserted.
    #[must_use]
    pub fn last_tx(&self) -> Tx {
        self.last_tx
    }

    /// Datoms that are there, retractions included; what every shard is born with is not counted. The same wherever they
    /// lie: what was dropped is gone at once, though a run may have it still.
    #[must_use]
    pub fn datoms(&self) -> u64 {
        self.stored - self.floors.values().map(|floor| floor.dropped).sum::<u64>().min(self.stored)
    }

    /// Attributes whose past is not kept for good, from this id on.
    pub fn thinned(&self, from: EntityId) -> impl Iterator<Item = EntityId> {
        self.schema.thinned(from)
    }

    /// Datoms in memory, those on their way into a run included: when to freeze is the caller's policy.
    #[must_use]
    pub fn unsealed(&self) -> u64 {
        self.newest.datoms() + self.frozen.iter().map(|frozen| frozen.datoms()).sum::<u64>()
    }

    /// **Units:** bytes of memory held by datoms, rounded.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.newest.bytes() + self.frozen.iter().map(|frozen| frozen.part.bytes()).sum::<usize>()
    }

    /// Swaps the newest part out; it stays readable. `None` when it holds nothing.
    pub fn freeze(&mut self) -> Option<Arc<FrozenFacts>> {
        if self.newest.datoms() == 0 {
            return None;
        }
        let frozen = Arc::new(FrozenFacts { part: core::mem::take(&mut self.newest), upto: self.last_tx });
        self.frozen.push(Arc::clone(&frozen));
        Some(frozen)
    }

    /// Puts a run in the place of the frozen part it was written from. Answers do not change.
    ///
    /// **Panics** when it is not the oldest frozen part, or the run is not its: sealing in order is the caller's contract.
    pub fn install(&mut self, frozen: &Arc<FrozenFacts>, run: Arc<FactRun>) {
        assert!(self.frozen.first().is_some_and(|oldest| Arc::ptr_eq(oldest, frozen)), "runs are installed in order");
        assert!(run.meta().rows <= frozen.datoms(), "the run is another part's");
        drop(self.frozen.remove(0));
        self.runs.push(run);
    }

    /// Puts a merged run in the place of the runs it was made of. Answers do not change.
    ///
    /// **Panics** when they do not stand side by side.
    pub fn install_merged(&mut self, old: &[Arc<FactRun>], new: Arc<FactRun>) {
        let is_old = |run: &Arc<FactRun>| old.iter().any(|old| Arc::ptr_eq(old, run));
        let Some(at) = self.runs.iter().position(is_old) else { return };
        let count = self.runs[at..].iter().take_while(|run| is_old(run)).count();
        assert!(count == old.len(), "merged runs stand side by side");
        self.runs.splice(at..at + count, [new]);
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[Arc<FactRun>] {
        &self.runs
    }

    /// The facts as of a moment.
    #[must_use]
    pub fn view(&self, as_of: Tx) -> FactsView<'_> {
        FactsView::new(self, as_of)
    }

    /// True when this id was given out here.
    fn was_given_out(&self, next: &Counters, id: EntityId) -> bool {
        let Some(kind) = id.kind() else { return false };
        let number = u64::from(id.ordinal()) * u64::from(SEQUENCES_PER_ORDINAL) + u64::from(id.sequence());
        let key = (kind as u8, id.slot().number());
        let given = next.get(&key).or_else(|| self.next.get(&key)).copied().unwrap_or(0);
        number >= first_number(kind) && number < given
    }
}

/// The first number of a kind: 0 would be no entity, and what shards are born with has numbers of its own.
const fn first_number(kind: Kind) -> u64 {
    match kind {
        Kind::System => born::FIRST_FREE as u64,
        _ => 1,
    }
}

/// The id of this number.
fn id_of(kind: Kind, slot: Slot, number: u64) -> EntityId {
    let per_ordinal = u64::from(SEQUENCES_PER_ORDINAL);
    EntityId::new(kind, slot, (number / per_ordinal) as u32, (number % per_ordinal) as u32)
}
