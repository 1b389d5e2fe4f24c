//! The device that one mount after another stands on: the image, and everything that makes it a bad one.
//!
//! Each mount has an epoch. A power cut begins the next one: whoever waits here from before, or comes later through a file
//! that was open before, gets `EIO`. Every operation passes [`Device::enter`], which is where it waits (frozen, slow),
//! is counted, and fails.
//!
//! Deliberately absent: anything of FUSE.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;

use crate::content::PAGE;
use crate::faults::{Counts, Faults, Op};
use crate::image::{Errno, Image};
use crate::power::{Loss, PowerCut};

/// What `statfs` says when nothing limits the space.
pub(crate) const ROOMY_PAGES: u64 = 1 << 26;

pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) faults: Faults,
    pub(crate) epoch: u64,
    /// Pages that all files together may take.
    pub(crate) room_pages: u64,
    /// Every open asks for the page cache to be left out.
    pub(crate) uncached: bool,
    /// Opens with `O_DIRECT` are refused.
    pub(crate) refuse_direct: bool,
    frozen: bool,
    pace: Option<Duration>,
    next_turn: Option<Instant>,
}

impl State {
    /// Whether `more` further pages find space.
    pub(crate) fn make_room(&self, more: u64) -> Result<(), Errno> {
        if more > 0 && self.image.pages() + more > self.room_pages { Err(libc::ENOSPC) } else { Ok(()) }
    }

    pub(crate) fn free_pages(&self) -> u64 {
        self.room_pages.saturating_sub(self.image.pages())
    }
}

pub(crate) struct Device {
    state: Mutex<State>,
    changed: Condvar,
}

impl Device {
    pub(crate) fn new() -> Self {
        let state = State {
            image: Image::new(),
            faults: Faults::default(),
            epoch: 0,
            room_pages: ROOMY_PAGES,
            uncached: false,
            refuse_direct: false,
            frozen: false,
            pace: None,
            next_turn: None,
        };
        Device { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The state as it is, for whoever controls the device.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves an image that is still good enough to report on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a question about names and sizes through: it waits only while the device is frozen.
    pub(crate) fn look(&self, epoch: u64) -> Result<MutexGuard<'_, State>, Errno> {
        let frozen = |state: &mut State| state.frozen && state.epoch == epoch;
        let state = self.changed.wait_while(self.state(), frozen).unwrap_or_else(PoisonError::into_inner);
        if state.epoch == epoch { Ok(state) } else { Err(libc::EIO) }
    }

    /// Lets an operation on node `id` through, or fails it.
    pub(crate) fn enter(&self, epoch: u64, op: Op, id: u64) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.look(epoch)?;
        if matches!(op, Op::Read | Op::Write | Op::Sync | Op::SyncDir) {
            state = self.wait_for_turn(state, epoch)?;
        }
        let path = state.image.path(id);
        state.faults.strike(op, &path)?;
        Ok(state)
    }

    /// A slow device does so many operations a second, one after another, whoever asks.
    fn wait_for_turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        epoch: u64,
    ) -> Result<MutexGuard<'a, State>, Errno> {
        let Some(pace) = state.pace else { return Ok(state) };
        let turn = state.next_turn.map_or_else(now, |turn| turn.max(now()));
        state.next_turn = Some(turn + pace);
        while state.epoch == epoch && state.pace.is_some() {
            let left = (turn + pace).saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.look(epoch)
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.state().frozen = frozen;
        self.changed.notify_all();
    }

    pub(crate) fn slow(&self, operations_a_second: Option<u32>) {
        let mut state = self.state();
        state.pace = operations_a_second.map(|count| Duration::from_secs(1) / count.max(1));
        state.next_turn = None;
        drop(state);
        self.changed.notify_all();
    }

    /// Free space from now on, rounded down to pages; `None`: as much as is wanted.
    pub(crate) fn leave_room(&self, bytes: Option<u64>) {
        let mut state = self.state();
        state.room_pages = bytes.map_or(ROOMY_PAGES, |bytes| state.image.pages() + bytes / PAGE);
    }

    /// The power fails. Thaws and hurries whoever waits; armed faults and limits stay.
    pub(crate) fn cut(&self, how: PowerCut) -> Loss {
        let mut state = self.state();
        state.epoch += 1;
        state.frozen = false;
        state.next_turn = None;
        let loss = state.image.cut(how);
        drop(state);
        self.changed.notify_all();
        loss
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().faults.counts
    }
}

#[expect(clippy::disallowed_methods, reason = "a disk has a clock of its own: the slow mode paces by the wall")]
fn now() -> Instant {
    Instant::now()
}
