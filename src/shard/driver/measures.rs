//! What a core measures of itself, without a look at the clock for a tick.
//!
//! ```text
//!   of a read's first frame     decode . route . admit              looks at the clock: 4 a read from a socket
//!   of a batch                  append . sync . wake . apply . reply                     1 a batch, beside the turn's own
//!   of its oldest request       received -> durable, -> acked                            0
//!   of a slice                  react, and of its newest firing received -> fired        1 a slice
//! ```
//!
//! A look costs 25 to 50 ns, a value noted 5: at a tick a frame, thousands of frames a read, that is nothing a tick; of one
//! tick at a time, 0.2 of 130 µs. So figures are samples: each read's first frame, each batch's oldest request, which
//! waited longest. `admit` has the copy into the log's buffer in it, `append` is the wait for the disk to be free: what
//! gathers there shares the next sync. Deliberately absent: what a sync takes, which its thread measures
//! (`core_thread.rs`).

use super::{Core, Now, Synced};
use crate::health::{CoreHealth, Stage, Until};
use crate::runtime::clock;
use crate::shard::Shard;

/// The request of a batch that waited longest: when it was admitted. **Units:** microseconds.
#[derive(Debug, Default)]
pub(super) struct Oldest(Option<u64>);

/// Who waits longest at a shard, before an entry is applied.
#[derive(Debug)]
pub(super) struct Waiting {
    requests: usize,
    oldest_us: u64,
}

impl Waiting {
    pub(super) fn at(shard: &Shard) -> Self {
        let oldest_us = shard.in_flight.front().map_or(0, |first| first.admitted.mono_us);
        Self { requests: shard.in_flight.len(), oldest_us }
    }
}

impl Oldest {
    /// An entry was applied: if it answered somebody, the one who had waited longest is one of them.
    pub(super) fn note(&mut self, shard: &Shard, before: &Waiting) {
        if shard.in_flight.len() < before.requests {
            self.0 = Some(self.0.map_or(before.oldest_us, |known| known.min(before.oldest_us)));
        }
    }
}

/// When a batch was given to its sync, and when that returned. **Units:** microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    began_us: u64,
    ended_us: u64,
}

impl Disk {
    pub(super) const fn of(synced: &Synced) -> Self {
        Self { began_us: synced.began_us, ended_us: synced.at_us }
    }
}

impl Core {
    /// The first frame of a read begins; others are not timed.
    pub(super) fn begin_laps(&mut self, first: bool) {
        self.lap_ns = first.then(clock::monotonic_ns);
    }

    /// A stage of the frame that is timed ends, and the next begins.
    pub(super) fn lap(&mut self, stage: Stage) {
        if let Some(since) = self.lap_ns {
            let now = clock::monotonic_ns();
            self.health.stage(stage, now - since);
            self.lap_ns = Some(now);
        }
    }

    /// A batch is applied since `applied`, and whoever waited for it was told.
    pub(super) fn note_batch(&self, disk: Disk, applied: Now, oldest: &Oldest) {
        let told_us = clock::monotonic_ns() / 1000;
        let since = |us: u64, from_us: u64| us.saturating_sub(from_us) * 1000;
        self.health.stage(Stage::Reply, since(told_us, applied.mono_us));
        if let Oldest(Some(admitted_us)) = *oldest {
            self.health.stage(Stage::Append, since(disk.began_us, admitted_us));
            self.health.until(Until::Durable, since(disk.ended_us, admitted_us));
            self.health.until(Until::Acked, since(told_us, admitted_us));
        }
    }

    /// A slice of firings of each shard was written down, and pages were made, since `began`.
    pub(super) fn note_slice(&self, began: Now) {
        self.health.stage(Stage::React, (clock::monotonic_ns() / 1000).saturating_sub(began.mono_us) * 1000);
    }

    /// What the shards count, as far as others ask for it.
    pub(super) fn note_counts(&self) {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum();
        self.health.duplicates.set(sum(|shard| shard.counters().rows_duplicate));
        self.health.sessions.set(sum(|shard| shard.sessions.count() as u64));
        self.health.subscriptions.set(sum(|shard| shard.subscribers.count() as u64));
        self.health.tails.set(sum(|shard| shard.tails.count() as u64));
    }
}

/// Of the newest firing that a slice of a shard wrote down into its own lane, if it wrote down any since the lane had come to
/// `before`; one without its times was derived again.
pub(super) fn note_firing(health: &CoreHealth, before: u64, shard: &Shard) {
    if shard.subscribers.fired() == before {
        return;
    }
    let newest = shard.subscribers.newest().filter(|row| row.received_ns != 0);
    if let Some(row) = newest {
        health.until(Until::Fired, row.fired_ns.saturating_sub(row.received_ns).max(0) as u64);
    }
}
