//! The upkeep thread of a core: segments ahead of need, and in the hard state how far the log is durable.
//!
//! ```text
//!   core --Spare-->                                zero a segment, one slice at a time --Spare--> core offers it to the log
//!        --Watermark(lsn)-->  between two slices:  store the hard state                --Watermark--> a failure stops the core
//! ```
//!
//! Why a watermark. What a log says of itself proves all but its last batches: a newest segment that is gone as a whole
//! takes its own proof along. So the hard state, another file with syncs of its own, notes how far the log was durable when
//! a checkpoint was stored and when a segment was begun; a log that ends before that is damaged, not short.
//!
//! Invariant: a watermark is stored only for what is durable already. Deliberately absent: votes; a group of one has none.

use crate::runtime::ring::{Producer, ThreadConsumer};
use myelin_wal::{HardState, HardStateFile, Lsn, Preparer, Spare, Step, WalError};

/// What the core asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// One segment more.
    Spare,
    /// A note that everything below was durable.
    Watermark(Lsn),
}

/// What became of it.
#[derive(Debug)]
pub enum Kept {
    /// A segment that waits for its use.
    Spare(Result<Spare, WalError>),
    /// The note is durable.
    Watermark(Result<(), WalError>),
}

/// What the thread owns.
pub struct Upkeep {
    /// Makes segments.
    pub preparer: Preparer,
    /// Where the note goes.
    pub file: HardStateFile,
    /// What stands there.
    pub state: HardState,
}

impl Upkeep {
    /// The thread's whole life.
    pub fn run(mut self, mut chores: ThreadConsumer<Chore>, mut done: Producer<Kept>) {
        let mut wanted = 0_u32;
        loop {
            let chore = if wanted > 0 { chores.try_pop() } else { chores.pop() };
            let kept = match chore {
                Some(Chore::Spare) => {
                    wanted += 1;
                    continue;
                }
                Some(Chore::Watermark(synced)) => Kept::Watermark(self.note(synced)),
                None if wanted == 0 => return,
                None => match self.preparer.step() {
                    Ok(Step::More) => continue,
                    Ok(Step::Ready(spare)) => Kept::Spare(Ok(spare)),
                    Err(error) => Kept::Spare(Err(error)),
                },
            };
            wanted -= u32::from(matches!(kept, Kept::Spare(_)));
            if done.push(kept).is_err() {
                return;
            }
        }
    }

    fn note(&mut self, synced: Lsn) -> Result<(), WalError> {
        assert!(synced >= self.state.synced, "the watermark only grows");
        let state = HardState { synced, ..self.state.clone() };
        self.file.store(&state)?;
        self.state = state;
        Ok(())
    }
}
