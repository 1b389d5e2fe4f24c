//! What the core gives to its seal thread, and what it does with what comes back.
//!
//! ```text
//!   enough rows, log, or pruned rows -> shards frozen -> SealJob --> seal thread --> Sealed -> runs installed, log released
//!   calm, or too many runs           -> a job without rows       -->             -->        -> merged runs installed
//! ```
//!
//! One job that seals and one that merges are under way at most. What they leave behind, rows and files, goes back with the
//! next job: the last one who has it frees and unmaps it, and that is no work for a core. Deliberately absent: files
//! (`seal.rs`), and which runs are merged (`merge.rs`, `storage/index/src/merging.rs`).

use super::{Core, describe};
use crate::shard::seal::{Old, SealJob, Sealed};
use crate::shard::{Now, Shard};

/// Where the core stands with its checkpoint.
pub(super) enum Sealing {
    /// Nothing is owed.
    Idle,
    /// A job is under way.
    UnderWay,
    /// A job failed and is given again at this time. **Units:** microseconds.
    Failed(Box<SealJob>, u64),
}

/// How long a failed sealing rests before it is tried again. **Units:** microseconds.
const SEAL_AGAIN_US: u64 = 1_000_000;

impl Core {
    /// Freezes rows and gives them away, when there are enough of them, of log, or of what was pruned.
    pub(super) fn seal_if_due(&mut self, now: Now) {
        // A checkpoint writes down all that has fired, in one turn: not while that is waited for.
        if self.failed || self.applying.is_some() {
            return;
        }
        match std::mem::replace(&mut self.sealing, Sealing::UnderWay) {
            Sealing::UnderWay => {}
            Sealing::Failed(job, at) if now.mono_us >= at => self.give_to_seal(*job),
            waits @ Sealing::Failed(..) => self.sealing = waits,
            Sealing::Idle => {
                let rows: u64 = self.shards.iter().map(Shard::unsealed_rows).sum();
                let log = self.applied_upto.bits().saturating_sub(self.checkpoint.bits());
                let something = self.applied_upto > self.checkpoint;
                let due = rows >= self.limits.seal_rows || log >= self.limits.seal_log_bytes;
                if something && (due || self.tidying.much_is_to_be_given_back(now, &self.shards)) {
                    let sealings = self.shards.iter_mut().map(Shard::seal).collect();
                    let old = std::mem::take(&mut self.old);
                    self.give_to_seal(SealJob { lsn: self.applied_upto, sealings, old });
                } else {
                    self.sealing = Sealing::Idle;
                }
            }
        }
        self.merge_if_due(now);
    }

    fn merge_if_due(&mut self, now: Now) {
        if self.tidying.merge_is_due(now, &self.shards) {
            let old = std::mem::take(&mut self.old);
            let job = SealJob { lsn: self.checkpoint, sealings: Vec::new(), old };
            assert!(self.to_seal.push(job).is_ok(), "one job that merges is under way at a time");
        }
    }

    fn give_to_seal(&mut self, job: SealJob) {
        self.sealing = Sealing::UnderWay;
        assert!(self.to_seal.push(job).is_ok(), "one job that seals is under way at a time");
    }

    /// The seal thread is done with a job.
    pub fn sealed(&mut self, sealed: Sealed) {
        let now = Self::now();
        let Sealed { mut job, result } = sealed;
        match result {
            Ok(made) if job.sealings.is_empty() => {
                self.tidying.merged(made.again);
                for merged in &made.merged {
                    if let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == merged.shard()) {
                        shard.merged(merged);
                    }
                }
                self.old.extend(made.merged.into_iter().map(Old::Merged));
            }
            Ok(made) => {
                self.tidying.sealed(now);
                for (sealing, runs) in job.sealings.iter_mut().zip(made.runs) {
                    if let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == sealing.shard) {
                        shard.sealed(sealing, runs);
                    }
                }
                self.old.push(Old::Sealed(job.sealings));
                // The checkpoint before stays usable: the log is kept from there on.
                self.log.tail().release(self.checkpoint);
                self.checkpoint = job.lsn;
                self.sealing = Sealing::Idle;
                self.sealing_told(None);
                self.health.checkpoints.add(1);
            }
            Err(error) => {
                if job.sealings.is_empty() {
                    // A merge is not owed to anybody: sealing goes on without it, and brings it back.
                    tracing::warn!(error = %describe(&error), "runs were not merged; they stay as they are");
                    self.tidying.merged(false);
                } else {
                    tracing::warn!(error = %describe(&error), "sealing failed; rows stay in memory and in the log");
                    self.sealing_told(Some(&error));
                    self.sealing = Sealing::Failed(Box::new(job), now.mono_us + SEAL_AGAIN_US);
                }
            }
        }
        self.wake_readers();
    }
}
