//! When a core's runs are merged, and when what was pruned is given back.
//!
//! ```text
//!   sealed -> there may be something to merge -> calm, or too many runs -> a job without rows -> merged: more, or not
//!   rows of runs dropped -> an eighth of them, or a minute -> a checkpoint, though no row waits for one
//! ```
//!
//! Deliberately absent: which runs (`merge.rs`), and doing it (`seal.rs`).

use super::{Now, Shard};

/// How long nothing was sealed before runs are merged: at full rate a core seals several times in it. **Units:**
/// microseconds.
const CALM_US: u64 = 1_000_000;
/// Runs, and blocks of runs, of a shard from which on they are merged also when the core is not calm: what is known of each
/// block stays in memory, some hundred bytes.
const RUNS_MANY: usize = 48;
const BLOCKS_MANY: u64 = 1 << 16;
/// A checkpoint gives back what was pruned when that is an eighth of what runs hold and no trifle, or anything at all after
/// the longer time. **Units:** microseconds; rows.
const GIVE_BACK_US: u64 = 2_000_000;
const GIVE_BACK_LITTLE_US: u64 = 60_000_000;
const GIVE_BACK_ROWS: u64 = 1000;

/// What a core remembers of it.
#[derive(Debug)]
pub struct Tidying {
    /// When a sealing was last done. **Units:** microseconds.
    sealed_us: u64,
    /// There may be runs to merge.
    wanted: bool,
    /// A job that merges is under way; one that seals may be given beside it.
    merging: bool,
}

impl Default for Tidying {
    /// A start may have found runs to merge.
    fn default() -> Self {
        Self { sealed_us: 0, wanted: true, merging: false }
    }
}

impl Tidying {
    /// Rows were sealed.
    pub const fn sealed(&mut self, now: Now) {
        (self.sealed_us, self.wanted) = (now.mono_us, true);
    }

    /// The job that merges is done.
    pub const fn merged(&mut self, again: bool) {
        (self.merging, self.wanted) = (false, again);
    }

    /// True when a job that merges is to be given now, once.
    pub fn merge_is_due(&mut self, now: Now, shards: &[Shard]) -> bool {
        let calm = now.mono_us.saturating_sub(self.sealed_us) > CALM_US;
        let due = self.wanted
            && !self.merging
            && (calm || shards.iter().any(|shard| shard.runs_over(RUNS_MANY, BLOCKS_MANY)));
        self.merging |= due;
        due
    }

    /// True when a checkpoint is worth what it gives back.
    pub fn much_is_to_be_given_back(&self, now: Now, shards: &[Shard]) -> bool {
        let since = now.mono_us.saturating_sub(self.sealed_us);
        let much = |(dropped, held): (u64, u64)| {
            dropped > 0 && (dropped >= GIVE_BACK_ROWS.max(held / 8) || since > GIVE_BACK_LITTLE_US)
        };
        since > GIVE_BACK_US && shards.iter().any(|shard| much(shard.reclaimable()))
    }
}
