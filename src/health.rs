//! How each core is: written by the core with plain relaxed stores, read by the gateway. Nothing on a tick's path locks.

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

    /// Adds to it.
    pub fn add(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A stage of a tick's journey that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The disk: from the batch's handing over to the return of its sync.
    Sync,
    /// From the return of the sync to the core's turn.
    Wake,
    /// Applying a batch.
    Apply,
}

impl Stage {
    /// Every stage, in the order of the journey.
    pub const ALL: [Self; 3] = [Self::Sync, Self::Wake, Self::Apply];

    /// As in `/metrics`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Wake => "wake",
            Self::Apply => "apply",
        }
    }
}

/// Upper bounds of the histogram's buckets. **Units:** microseconds.
pub const BUCKETS_US: [u64; 16] =
    [5, 10, 20, 50, 75, 100, 150, 200, 350, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 250_000];

/// A histogram with fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Gauge; BUCKETS_US.len() + 1],
    sum_us: Gauge,
}

impl Histogram {
    /// Notes one value.
    pub fn note(&self, us: u64) {
        self.buckets[BUCKETS_US.partition_point(|bound| *bound < us)].add(1);
        self.sum_us.add(us);
    }

    /// Values per bucket, the last one unbounded, and their sum.
    #[must_use]
    pub fn read(&self) -> (Vec<u64>, u64) {
        (self.buckets.iter().map(Gauge::get).collect(), self.sum_us.get())
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
    stages: [Histogram; Stage::ALL.len()],
    failed: Mutex<Vec<String>>,
    seal_error: Mutex<Option<String>>,
    spare_error: Mutex<Option<String>>,
}

impl CoreHealth {
    /// Notes how long a stage took.
    pub fn stage(&self, stage: Stage, us: u64) {
        self.histogram(stage).note(us);
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
