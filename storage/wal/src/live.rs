//! Which slot is what: in use, held by a reader, or spare.
//!
//! ```text
//!   Preparer --Spare--> spares --roll--> in use --release--> retired --last reader gone--> spares
//! ```
//!
//! A released segment needs no I/O to be used again: its old bytes cannot verify under the new epoch. A reader holds a
//! counted [`Pinned`]; the count is asked, never waited for. Deliberately absent: giving slots back to the file system.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Lsn;
use crate::planted::{self, Bug};

/// A slot that is allocated, zeroed and not in use: what a roll consumes.
#[derive(Debug, PartialEq, Eq)]
pub struct Spare {
    pub(crate) slot: u32,
}

/// A segment that is not used again while this, or a clone of it, lives. Crosses threads.
#[derive(Clone, Debug)]
pub struct Pinned {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) end: Lsn,
    pub(crate) sealed: bool,
    _hold: Arc<()>,
}

impl Pinned {
    /// How far the segment could be read when it was pinned: its end, or the watermark of that moment.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Whether the segment was complete, and so may be mapped.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }
}

/// A segment that holds records somebody may need.
#[derive(Debug)]
pub(crate) struct InUse {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    /// Where its records end; none for the newest.
    pub(crate) end: Option<Lsn>,
    hold: Arc<()>,
}

impl InUse {
    pub(crate) fn new(slot: u32, epoch: u32, end: Option<Lsn>) -> Self {
        Self { slot, epoch, end, hold: Arc::new(()) }
    }

    /// Whether a reader is left. Asks for unique access, not for the count: that also orders the last reader's reads
    /// before whatever we write next.
    fn is_held(&mut self) -> bool {
        Arc::get_mut(&mut self.hold).is_none()
    }
}

/// All slots of a log, by what they are.
#[derive(Debug, Default)]
pub(crate) struct Live {
    in_use: VecDeque<InUse>,
    retired: Vec<InUse>,
    spares: VecDeque<Spare>,
}

impl Live {
    /// **Shape:** ascending epochs without a gap, all but the last with their end.
    pub(crate) fn new(in_use: VecDeque<InUse>, spares: VecDeque<Spare>) -> Self {
        assert!(in_use.iter().rev().skip(1).all(|segment| segment.end.is_some()), "only the newest is open");
        Self { in_use, retired: Vec::new(), spares }
    }

    pub(crate) fn offer(&mut self, spare: Spare) {
        let known = |slot| self.in_use.iter().chain(&self.retired).any(|segment| segment.slot == slot);
        assert!(!known(spare.slot) && !self.spares.contains(&spare), "a slot has one state");
        self.spares.push_back(spare);
    }

    pub(crate) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    pub(crate) fn spares(&mut self) -> usize {
        self.reclaim();
        self.spares.len()
    }

    /// Closes the newest segment at `end` and opens a spare under `epoch`. Answers its slot.
    pub(crate) fn roll(&mut self, end: Lsn, epoch: u32) -> u32 {
        if let Some(newest) = self.in_use.back_mut() {
            assert!(newest.epoch + 1 == epoch && newest.end.is_none(), "epochs follow each other");
            newest.end = Some(end);
        }
        let Spare { slot } = self.spares.pop_front().expect("the caller rolls only if there is a spare");
        self.in_use.push_back(InUse::new(slot, epoch, None));
        slot
    }

    /// Segments wholly below `upto` go; answers how many became spares.
    pub(crate) fn release(&mut self, upto: Lsn) -> usize {
        while self.in_use.front().and_then(|oldest| oldest.end).is_some_and(|end| end <= upto) {
            self.retired.extend(self.in_use.pop_front());
        }
        self.reclaim()
    }

    pub(crate) fn oldest(&self, segment_bytes: u64) -> Option<Lsn> {
        self.in_use.front().map(|oldest| Lsn::at(oldest.epoch, 0, segment_bytes))
    }

    pub(crate) fn pin(&self, lsn: Lsn, synced: Lsn, segment_bytes: u64) -> Option<Pinned> {
        if lsn < self.oldest(segment_bytes)? || lsn >= synced {
            return None;
        }
        let segment = self.in_use.iter().find(|segment| segment.end.is_none_or(|end| lsn < end))?;
        let end = segment.end.map_or(synced, |end| end.min(synced));
        let sealed = segment.end.is_some_and(|end| end <= synced);
        Some(Pinned { slot: segment.slot, epoch: segment.epoch, end, sealed, _hold: Arc::clone(&segment.hold) })
    }

    /// Moves what no reader holds to the spares.
    fn reclaim(&mut self) -> usize {
        let before = self.spares.len();
        let spares = &mut self.spares;
        self.retired.retain_mut(|segment| {
            let held = segment.is_held() && !planted::is(Bug::RecycleWhileRead);
            if !held {
                spares.push_back(Spare { slot: segment.slot });
            }
            held
        });
        self.spares.len() - before
    }
}
