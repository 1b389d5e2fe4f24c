//! How each core is: written by the core with plain relaxed stores, read by the gateway. Nothing on a tick's path locks.

use myelin_wire::Code;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A number one thread writes and others read.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds to it. **Cost:** a load and a store: one thread writes, so nothing is locked.
    pub fn add(&self, value: u64) {
        self.0.store(self.get().wrapping_add(value), Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A stage of a tick's journey that is measured; `shard/driver/measures.rs` says when and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A frame's bytes, checked.
    Decode,
    /// From there to its shard's mailbox.
    Route,
    /// Checked by its shard, and copied into the log's buffer.
    Admit,
    /// In the log's buffer, until the disk takes it.
    Append,
    /// The disk: from the batch's handing over to the return of its sync.
    Sync,
    /// From the return of the sync to the core's turn.
    Wake,
    /// Applying a batch.
    Apply,
    /// A slice of what fired, written down and told.
    React,
    /// Telling whoever waited for a batch.
    Reply,
}

impl Stage {
    /// Every stage, in the order of the journey.
    pub const ALL: [Self; 9] = [
        Self::Decode,
        Self::Route,
        Self::Admit,
        Self::Append,
        Self::Sync,
        Self::Wake,
        Self::Apply,
        Self::React,
        Self::Reply,
    ];

    /// As in `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Route => "route",
            Self::Admit => "admit",
            Self::Append => "append",
            Self::Sync => "sync",
            Self::Wake => "wake",
            Self::Apply => "apply",
            Self::React => "react",
            Self::Reply => "reply",
        }
    }
}

/// What a request waits for, from when the core took its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It is on stable storage.
    Durable,
    /// Its answer is in the connection's outbox.
    Acked,
    /// What it fired is written down.
    Fired,
}

impl Until {
    /// Every one, in order.
    pub const ALL: [Self; 3] = [Self::Durable, Self::Acked, Self::Fired];

    /// As in `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Acked => "acked",
            Self::Fired => "fired",
        }
    }
}

/// Upper bounds of the histogram's buckets. **Units:** nanoseconds.
pub const BUCKETS_NS: [u64; 20] = [
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    75_000,
    100_000,
    150_000,
    200_000,
    350_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    250_000_000,
];

/// A histogram with fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Gauge; BUCKETS_NS.len() + 1],
    sum_ns: Gauge,
}

impl Histogram {
    /// Notes one value.
    pub fn note(&self, ns: u64) {
        self.buckets[BUCKETS_NS.partition_point(|bound| *bound < ns)].add(1);
        self.sum_ns.add(ns);
    }

    /// Values per bucket, the last one unbounded, and their sum.
    #[must_use]
    pub fn read(&self) -> (Vec<u64>, u64) {
        (self.buckets.iter().map(Gauge::get).collect(), self.sum_ns.get())
    }
}

/// Refusals that were told, by code.
#[derive(Debug)]
pub struct Refusals([Gauge; Code::ALL.len()]);

impl Default for Refusals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Gauge::default()))
    }
}

impl Refusals {
    /// One more.
    pub fn note(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|one| *one == code) {
            self.0[at].add(1);
        }
    }

    /// Each code and how often.
    pub fn read(&self) -> impl Iterator<Item = (Code, u64)> {
        Code::ALL.iter().zip(&self.0).map(|(code, count)| (*code, count.get()))
    }
}

/// One core.
#[derive(Debug, Default)]
pub struct CoreHealth {
    /// Set when the core serves.
    ready: AtomicBool,
    /// A planned stop: asked for, and come to.
    stop_asked: AtomicBool,
    stopped: AtomicBool,
    /// Open connections.
    pub connections: Gauge,
    /// Connections ended by bytes that were no frame.
    pub bad_frames: Gauge,
    /// Segments ready for a roll.
    pub spares: Gauge,
    /// Rows in memory and in the log only.
    pub unsealed_rows: Gauge,
    /// Checkpoints since the start.
    pub checkpoints: Gauge,
    /// Rows stored since the start.
    pub rows_accepted: Gauge,
    /// Rows dropped by policy since the start.
    pub rows_dropped: Gauge,
    /// Firings since the start.
    pub firings: Gauge,
    /// Rows that were there already, since the start.
    pub duplicates: Gauge,
    /// Sessions that are remembered.
    pub sessions: Gauge,
    /// Subscriptions to firings.
    pub subscriptions: Gauge,
    /// Readers of the log.
    pub tails: Gauge,
    /// Refusals since the start.
    pub refusals: Refusals,
    /// Rows that were left out, where each had its own verdict.
    pub rows_refused: Refusals,
    stages: [Histogram; Stage::ALL.len()],
    untils: [Histogram; Until::ALL.len()],
    failed: Mutex<Vec<String>>,
    seal_error: Mutex<Option<String>>,
    spare_error: Mutex<Option<String>>,
}

impl CoreHealth {
    /// Notes how long a stage took. **Units:** nanoseconds.
    pub fn stage(&self, stage: Stage, ns: u64) {
        self.histogram(stage).note(ns);
    }

    /// Notes how long a request had waited by then. **Units:** nanoseconds.
    pub fn until(&self, until: Until, ns: u64) {
        self.since_received(until).note(ns);
    }

    /// The histogram of what requests wait for.
    #[must_use]
    pub fn since_received(&self, until: Until) -> &Histogram {
        &self.untils[until as usize]
    }

    /// The histogram of a stage.
    #[must_use]
    pub fn histogram(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }

    /// The core serves.
    pub fn set_ready(&self) {
        self.ready.store(true, Relaxed);
    }

    /// The core is to end what is under way, and nothing more.
    pub fn ask_to_stop(&self) {
        self.stop_asked.store(true, Relaxed);
    }

    /// True when it was asked to.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop_asked.load(Relaxed)
    }

    /// Nothing is under way any more.
    pub fn set_stopped(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// True when nothing is.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// The core's shards stopped, for this reason.
    pub fn set_failed(&self, core: u16, shards: &[u16], reason: &str) {
        let shards = shards.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let stopped = format!("shards stopped: {reason}");
        let waits = format!(
            "core {core} failed, shards {shards} with it: spreads and subscriptions that need one of them stand still, on \
             other cores too, until it is started again"
        );
        *self.failed() = vec![stopped, waits];
    }

    /// Sealing fails for this reason, or works again.
    pub fn set_seal_error(&self, reason: Option<String>) {
        set(&self.seal_error, reason);
    }

    /// The log cannot grow for this reason, or can again.
    pub fn set_spare_error(&self, reason: Option<String>) {
        set(&self.spare_error, reason);
    }

    /// Why the core does not serve, or not well; empty when all is well.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.ready.load(Relaxed) {
            reasons.push("not serving yet".to_owned());
        }
        if self.is_stopping() {
            reasons.push("stopping".to_owned());
        }
        reasons.extend(self.failed().iter().cloned());
        reasons.extend(get(&self.seal_error).map(|reason| format!("sealing fails: {reason}")));
        reasons.extend(get(&self.spare_error).map(|reason| format!("no segment can be prepared: {reason}")));
        reasons
    }

    /// True when the core serves and nothing stopped it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ready.load(Relaxed) && !self.is_stopping() && self.failed().is_empty()
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn set(cell: &Mutex<Option<String>>, value: Option<String>) {
    *cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = value;
}

fn get(cell: &Mutex<Option<String>>) -> Option<String> {
    cell.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// The node.
#[derive(Debug, Default)]
pub struct Health {
    /// One per data core.
    pub cores: Vec<CoreHealthRef>,
    /// What the node had to do without, with the fix.
    pub degraded: Vec<String>,
}

/// Shared between a core and the gateway.
pub type CoreHealthRef = std::sync::Arc<CoreHealth>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_failed_says_which_shards_are_waited_for_in_vain() {
        let health = CoreHealth::default();
        health.set_ready();
        assert_eq!((health.serves(), health.reasons()), (true, vec![]));
        health.set_failed(1, &[1, 3], "the disk is gone");
        let [stopped, waits] = &health.reasons()[..] else { panic!("two reasons") };
        assert_eq!(stopped, "shards stopped: the disk is gone");
        assert!(waits.starts_with("core 1 failed, shards 1, 3 with it: spreads and subscriptions"), "{waits}");
        assert!(!health.serves());
    }
}
