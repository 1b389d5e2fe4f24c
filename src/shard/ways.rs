//! The places in history: who goes through it, and who gives a place up when another needs it.
//!
//! ```text
//!   falls behind --> a place is free? --> Way --> live: the place is free again
//!                    none: who is longest without credit gives its own, and begins again from the last it was given
//! ```
//!
//! There are few places and many listeners, so whatever is asked here looks at the places alone. Invariants: a place that is
//! given away loses nobody a firing (`is_resumable`); of all ways at most one is large: it has found more than [`FIRINGS`] of
//! one place, or reads more than [`MARKETS`]. So memory is that of sixteen small ways and a large one. Deliberately absent:
//! pages (`react.rs`), and what a way does (`replay.rs`).

use super::confluence::Tell;
use super::replay::Replaying;
use super::{ConnId, Now};
use std::collections::BTreeSet;

/// Subscribers that go through history at once.
const WAYS_MAX: usize = 16;
/// Firings of one place that every way may hold: 512 KiB.
pub(super) const FIRINGS: usize = 1 << 15;
/// Markets that every way may read, with a page of rows each: 8 MiB.
pub(super) const MARKETS: usize = 10_000;
/// A back-test keeps its place without credit, as its answers depend on where it began: so long, where somebody waits for it.
/// The gateway gives a watcher as much time. **Units:** microseconds.
const CREDIT_WITHIN_US: u64 = 5_000_000;
/// To come again to where it is takes a large way some hundred milliseconds of a core: without credit it stays so long where
/// another wants to be large. **Units:** microseconds.
pub(super) const LARGE_CREDIT_WITHIN_US: u64 = 100_000;

/// A subscriber's place in history.
#[derive(Debug)]
pub(super) struct Way {
    /// The subscriber, by its number.
    of: u64,
    conn: ConnId,
    pub replaying: Box<Replaying>,
    /// Since when it has no credit. **Units:** microseconds.
    paused_us: Option<u64>,
}

impl Way {
    pub(super) fn new(of: u64, conn: ConnId, replaying: Replaying) -> Self {
        Self { of, conn, replaying: Box::new(replaying), paused_us: None }
    }

    /// There is no credit. True of a back-test that has kept its place so for as long as it may while others wait.
    pub(super) fn pause(&mut self, now: Now) -> bool {
        self.paused_us.get_or_insert(now.mono_us);
        !self.replaying.is_resumable() && self.is_paused_for(CREDIT_WITHIN_US, now)
    }

    fn is_paused_for(&self, us: u64, now: Now) -> bool {
        self.paused_us.is_some_and(|since| now.mono_us.saturating_sub(since) >= us)
    }

    /// True of a large one without credit for so long that another one may be.
    fn yields(&self, now: Now) -> bool {
        self.replaying.is_resumable() && self.is_paused_for(LARGE_CREDIT_WITHIN_US, now)
    }

    /// It is open and without credit, and loses nothing by beginning again behind the last firing it was given.
    fn can_be_given_up(&self) -> bool {
        self.paused_us.is_some() && self.replaying.is_resumable()
    }
}

/// See the module's picture.
#[derive(Debug, Default)]
pub(super) struct Ways {
    all: Vec<Way>,
    /// One of them waits until it may be large, and did so in the turn before.
    large_is_wanted: bool,
    large_was_wanted: bool,
}

impl Ways {
    /// The way of this subscriber, to go on with; it is put back as long as it is not at its end.
    pub(super) fn take(&mut self, of: u64) -> Option<Way> {
        let at = self.all.iter().position(|way| way.of == of)?;
        Some(self.all.swap_remove(at))
    }

    pub(super) fn has(&self, of: u64) -> bool {
        self.all.iter().any(|way| way.of == of)
    }

    pub(super) fn put(&mut self, way: Way) {
        self.all.push(way);
    }

    /// Who waits says so again.
    pub(super) fn begin_turn(&mut self) {
        self.large_was_wanted = std::mem::take(&mut self.large_is_wanted);
    }

    /// It has credit again.
    pub(super) fn resume(&mut self, of: u64) {
        self.all.iter_mut().filter(|way| way.of == of).for_each(|way| way.paused_us = None);
    }

    /// Every place is taken, and none can be given up.
    pub(super) fn are_all_kept(&self) -> bool {
        self.all.len() >= WAYS_MAX && !self.all.iter().any(Way::can_be_given_up)
    }

    /// Makes sure that there is a place. False when there is none.
    pub(super) fn make_place(&mut self) -> bool {
        if self.all.len() < WAYS_MAX {
            return true;
        }
        let idle = self.all.iter().enumerate().filter(|(_, way)| way.can_be_given_up());
        let Some((at, _)) = idle.min_by_key(|(_, way)| way.paused_us) else { return false };
        self.all.swap_remove(at);
        true
    }

    /// Makes sure that no way is large but the one that asks, which is taken. False when one is and stays so.
    pub(super) fn make_place_for_large(&mut self, now: Now) -> bool {
        let large = self.all.iter().position(|way| way.replaying.is_large());
        let stays = large.is_some_and(|at| !self.all[at].yields(now));
        if let Some(at) = large.filter(|_| !stays) {
            self.all.swap_remove(at);
        }
        self.large_is_wanted |= stays;
        !stays
    }

    /// True when a back-test has kept a place for as long as it may while others wait.
    pub(super) fn is_place_due(&self, now: Now) -> bool {
        self.all.iter().any(|way| way.is_paused_for(CREDIT_WITHIN_US, now))
    }

    /// True when a back-test, which is taken, keeps another way from being large.
    pub(super) fn keeps_from_large(&self, way: &Way) -> bool {
        self.large_was_wanted && way.replaying.is_large()
    }

    /// True when who waits to be large may be.
    pub(super) fn owe_large(&self, now: Now) -> bool {
        let gives = |way: &Way| way.yields(now) || way.is_paused_for(CREDIT_WITHIN_US, now);
        self.large_is_wanted && self.all.iter().filter(|way| way.replaying.is_large()).all(gives)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.all.retain(|way| way.conn != conn);
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// An answer of a shard to somebody's way through history; whoever asked may be gone.
    pub(super) fn told(&mut self, key: u64, from: u16, tell: &Tell) {
        let mut across = self.all.iter_mut().filter_map(|way| way.replaying.across.as_mut());
        if let Some(across) = across.find(|one| one.key() == key) {
            across.told(from, tell);
        }
    }

    /// The keys of the merges over history.
    pub(super) fn merges(&self) -> BTreeSet<u64> {
        self.all.iter().filter_map(|way| way.replaying.across.as_ref()).map(|across| across.key()).collect()
    }

    #[cfg(test)]
    pub(super) fn is_large_wanted(&self) -> bool {
        self.large_is_wanted
    }

    /// What all of them hold: firings that were found and are not given, markets that are read.
    #[cfg(test)]
    pub(super) fn held(&self) -> [usize; 2] {
        [0, 1].map(|of| self.all.iter().map(|way| way.replaying.holds()[of]).sum())
    }
}
