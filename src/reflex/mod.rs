//! Reflexes: standing questions that are answered by every tick, as part of the replicated state machine.
//!
//! ```text
//!   tick --> react --> quiet? ----------------------------------> nothing            (2 compares)
//!              |
//!              +--> leaps over cuts, windows, pairs --> records --> next_firings --> Firing, Firing, ...
//!                   (O(log n), no expansion)            (bounded)   (in slices, by (tx, n, reflex))
//! ```
//!
//! Invariants
//! - A pure function of the log: no clock, no thread, no hash order; replicas that applied the same entries give the
//!   same firings and the same checkpoint, bit for bit.
//! - A reflex sees the ticks whose `tx` is above its registration. Bands and spreads have no state of their own: the
//!   predicate *was* true if the last tick came after the registration and it holds at the last price.
//! - A tick strictly inside its market's quiet interval changes nothing but that market's latest price.
//! - A tick that crosses a million bands costs one record; its expansion is sliced by the caller's budget.
//! - A correction (`flags::CORRECTION`) repairs history; it is no market event, so reflexes pass over it and count it.
//! - Nothing is unbounded: [`Limits`] bounds everything, [`Reflexes::full`] says when `react` must wait.
//!
//! Deliberately absent: subscriptions, paging and credit (the shard), slots (an id's market has one), I/O.

mod band;
mod checkpoint;
mod encode;
mod exact;
mod expand;
mod firing;
mod past;
mod reach;
mod react;
mod register;
mod replay;
mod spec;
#[cfg(test)]
mod tests;
mod text;
mod thresholds;
mod window;

pub use checkpoint::Registrations;
pub use encode::DecodeError;
pub use expand::Untold;
pub use firing::{Firing, Kind, ReflexId};
pub use past::Pasts;
pub use register::{Looked, RegisterError, Registration};
pub use replay::Replay;
pub use spec::{PATTERN_BYTES_MAX, Scope, Spec, SpecError, Spread, WINDOW_NS_MAX};
pub use text::TextError;
pub use window::{WINDOW_STEPS, step_ns};

use imbl::OrdMap;
use myelin_datom::{EntityId, Tx};
use reach::{Hot, Market, Pair, Quiet, Reach};
use register::Held;
use std::collections::BTreeMap;

/// A market's number within its shard, dense from 0; the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct MarketIx(pub u32);

/// What a shard's reflexes may grow to. Part of the state machine: equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Markets, hence the greatest [`MarketIx`] plus 1.
    pub markets: usize,
    /// Registered reflexes of all kinds; about 280 bytes each.
    pub reflexes: usize,
    /// Distinct `like:` patterns; each is tried against every new market.
    pub patterns: usize,
    /// Windows, counted per reflex and market; about 64 KiB each when every step has ticks.
    pub windows: usize,
    /// Windows over one market: what one of its ticks may cost.
    pub windows_per_market: usize,
    /// Distinct pairs of markets that spreads compare.
    pub pairs: usize,
    /// Pairs one market is in: what one of its ticks may cost.
    pub pairs_per_market: usize,
    /// Records that wait for their expansion, 72 bytes each.
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            markets: 1 << 20,
            reflexes: 2_000_000,
            patterns: 1024,
            windows: 4096,
            windows_per_market: 256,
            pairs: 4096,
            pairs_per_market: 256,
            records: 65_536,
        }
    }
}

/// What happened that is no firing. Replicated, in the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ticks older than a window's end, counted per window.
    pub late: u64,
    /// Corrections passed over by markets' reflexes.
    pub corrections: u64,
    /// Windows and pairs a new market would have brought beyond [`Limits`]: those reflexes do not see that market.
    pub left_out: u64,
}

/// All reflexes of one shard.
#[derive(Debug)]
pub struct Reflexes {
    limits: Limits,
    /// Shared with whoever writes it down: see [`Registrations`].
    held: OrdMap<ReflexId, Held>,
    /// Freed reaches and pairs are reused; their numbers never show.
    reaches: Vec<Reach>,
    free_reaches: Vec<u32>,
    by_scope: BTreeMap<Scope, u32>,
    pairs: Vec<Pair>,
    free_pairs: Vec<u32>,
    by_pair: BTreeMap<([Box<str>; 2], bool), u32>,
    hot: Vec<Hot>,
    markets: Vec<Market>,
    by_name: BTreeMap<Box<str>, u32>,
    windows: usize,
    counts: Counts,
    version: u64,
    untold: Untold,
}

impl Default for Reflexes {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Reflexes {
    /// No market, no reflex.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: OrdMap::new(),
            reaches: Vec::new(),
            free_reaches: Vec::new(),
            by_scope: BTreeMap::new(),
            pairs: Vec::new(),
            free_pairs: Vec::new(),
            by_pair: BTreeMap::new(),
            hot: Vec::new(),
            markets: Vec::new(),
            by_name: BTreeMap::new(),
            windows: 0,
            counts: Counts::default(),
            version: 0,
            untold: Untold::default(),
        }
    }

    /// Registered reflexes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True when nobody asks anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What happened that is no firing.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Changes with every registration and removal and with nothing else: while it stands, the registrations' part of a
    /// checkpoint need not be written again.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The bounds it was made with.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The markets it was told of, in their order.
    pub fn markets(&self) -> impl Iterator<Item = (EntityId, &str)> {
        self.markets.iter().map(|market| (market.id, &*market.name))
    }

    /// Tells of a market that exists; reflexes whose scope matches see it from its next tick. Telling twice changes
    /// nothing. Gives how many windows and pairs the limits left out (also counted): 0 unless a limit is reached.
    ///
    /// **Panics** when `ix` was another market, leaves a hole or is beyond [`Limits::markets`], or firings are pending.
    pub fn add_market(&mut self, ix: MarketIx, id: EntityId, name: &str) -> usize {
        assert!(!self.pending());
        let at = ix.0 as usize;
        assert!(at < self.limits.markets);
        if let Some(known) = self.markets.get(at) {
            assert!(known.id == id);
            assert!(&*known.name == name);
            return 0;
        }
        assert!(at == self.markets.len());
        assert!(!self.by_name.contains_key(name));
        self.by_name.insert(name.into(), ix.0);
        self.markets.push(Market::new(id, name));
        self.hot.push(Hot { quiet: Quiet::NONE, price: 0.0, tx: Tx::ZERO });
        let left_out = self.join_reaches(ix.0, name) + self.join_pairs(ix.0, name);
        self.counts.left_out += left_out as u64;
        left_out
    }

    /// A market's latest price and the transaction that left it; none before its first tick that is no correction.
    ///
    /// **Panics** when `ix` was never added.
    #[must_use]
    pub fn latest(&self, ix: MarketIx) -> Option<(Tx, f64)> {
        let hot = &self.hot[ix.0 as usize];
        (hot.tx != Tx::ZERO).then_some((hot.tx, hot.price))
    }

    /// Sets a market's latest price, from before anything that is asked about it here: nothing fires.
    ///
    /// **Panics** when `ix` was never added, or while firings are pending.
    pub fn prime(&mut self, ix: MarketIx, tx: Tx, price: f64) {
        assert!(!self.pending());
        self.hot[ix.0 as usize] = Hot { quiet: Quiet::NONE, price, tx };
        let market = &mut self.markets[ix.0 as usize];
        market.calm = Quiet::NONE;
        for at in &market.pairs {
            self.pairs[*at as usize].calm = Quiet::NONE;
        }
    }
}
