//! Makes spares ahead of need: the only place where the log can run out of room.
//!
//! ```text
//!   step: (remove what is left), allocate the whole slot -> step: zero 1 MiB -> ... -> step: header "spare" -> Spare
//!
//!   no room      the same slot goes on when there is room       nothing was synced, so nothing was promised
//!   any other    the slot is given up                           after a failed sync the page cache takes for written what is not
//! ```
//!
//! Zeroed once, so that no later write finds an extent to convert. The header comes last: a slot without one was
//! interrupted, is removed at the next start and made from nothing. A slot that is given up is removed if that is possible,
//! and its number rests until then: a log in a file whose size or name was never durable would be gone with the power.
//! A failure here costs nothing that was acknowledged; `Full` may be retried. Deliberately absent: pacing. The caller
//! steps when the foreground leaves room.

use std::io;
use std::sync::Arc;

use crate::blocks::Buffer;
use crate::error::is_full;
use crate::live::Spare;
use crate::planted::{self, Bug};
use crate::segment::{SLOTS_MAX, SegmentHeader, file_name};
use crate::{BLOCK_BYTES, Config, Disk, DiskFile, WalError};

/// Most that is zeroed in one step. **Units:** bytes.
const SLICE_BYTES: usize = 1 << 20;

/// Slots that are given up in one life. A device that fails more often is not asked again: each one costs a number.
const GIVEN_UP_MAX: u32 = 8;

/// What a step achieved.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The slot needs more steps.
    More,
    /// Hand this to [`Tail::offer`](crate::Tail::offer); the next step begins another slot.
    Ready(Spare),
}

/// Makes spares, one slice at a time, on whatever thread may wait for the disk.
#[derive(Debug)]
pub struct Preparer {
    disk: Arc<dyn Disk>,
    config: Config,
    /// Numbers that were not prepared when the log was opened, then the first one above all.
    unprepared: Vec<u32>,
    next: u32,
    filling: Option<Filling>,
    given_up: u32,
}

#[derive(Debug)]
struct Filling {
    slot: u32,
    file: Arc<dyn DiskFile>,
    at: u64,
    zeros: Buffer,
}

impl Preparer {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: &Config, unprepared: Vec<u32>, next: u32) -> Self {
        Self { disk, config: config.clone(), unprepared, next, filling: None, given_up: 0 }
    }

    /// Goes on by one slice.
    ///
    /// **Errors:** [`WalError::Full`] if the device or `max_segments` leaves no room: the same step may be tried again
    /// later. [`WalError::Io`]: nothing acknowledged is at stake, but the device is failing; the slot is given up and the
    /// next step begins another. [`WalError::Poisoned`]: that happened too often.
    pub fn step(&mut self) -> Result<Step, WalError> {
        let Some(mut filling) = self.filling.take() else {
            self.filling = Some(self.begin()?);
            return Ok(Step::More);
        };
        let (at, written) = filling.go_on(&self.config);
        match written {
            Ok(Step::More) => {
                self.filling = Some(filling);
                Ok(Step::More)
            }
            Ok(ready) => Ok(ready),
            Err(source) if is_full(&source) => {
                let full = self.full(&file_name(filling.slot), "device");
                self.filling = Some(filling);
                Err(full)
            }
            Err(source) if planted::is(Bug::SlotTriedAgain) => {
                let name = file_name(filling.slot);
                self.filling = Some(filling);
                Err(WalError::io("write", &name, at)(source))
            }
            Err(source) => {
                let slot = filling.slot;
                drop(filling);
                Err(self.give_up("write", slot, at, source))
            }
        }
    }

    /// Steps until a slot is ready. **Cost:** writes a whole segment.
    pub fn prepare(&mut self) -> Result<Spare, WalError> {
        loop {
            if let Step::Ready(spare) = self.step()? {
                return Ok(spare);
            }
        }
    }

    fn begin(&mut self) -> Result<Filling, WalError> {
        if self.given_up >= GIVEN_UP_MAX {
            return Err(WalError::Poisoned);
        }
        let again = self.unprepared.last().copied();
        let slot = again.unwrap_or(self.next);
        let name = file_name(slot);
        // What was given up holds nothing, so it does not count.
        if slot >= (self.config.max_segments + self.given_up).min(SLOTS_MAX) {
            return Err(self.full(&name, "max_segments"));
        }
        match self.make(&name, again.is_some()) {
            Ok(file) => {
                self.take_number();
                let slice = usize::try_from(self.config.segment_bytes).map_or(SLICE_BYTES, |all| all.min(SLICE_BYTES));
                Ok(Filling { slot, file, at: 0, zeros: Buffer::new(slice) })
            }
            Err((_, source)) if is_full(&source) => Err(self.full(&name, "device")),
            Err((during, source)) if planted::is(Bug::SlotTriedAgain) => Err(WalError::io(during, &name, 0)(source)),
            Err((during, source)) => {
                self.take_number();
                Err(self.give_up(during, slot, 0, source))
            }
        }
    }

    /// The file of a slot, from nothing: what an earlier life left under its name may be what no sync ever covered.
    fn make(&self, name: &str, leftover: bool) -> Result<Arc<dyn DiskFile>, (&'static str, io::Error)> {
        if leftover {
            self.disk.discard(name).map_err(|source| ("discard", source))?;
        }
        self.disk.allocate(name, self.config.segment_bytes).map_err(|source| ("allocate", source))?;
        self.disk.open(name).map_err(|source| ("open", source))
    }

    /// The number that [`Preparer::begin`] looked at is used, and never again.
    fn take_number(&mut self) {
        if self.unprepared.pop().is_none() {
            self.next += 1;
        }
    }

    /// The slot's number is not used again before the log is opened anew.
    fn give_up(&mut self, during: &'static str, slot: u32, at: u64, source: io::Error) -> WalError {
        self.given_up += 1;
        let name = file_name(slot);
        // It holds nothing. If it cannot be removed, the next start does that.
        let _left_for_the_next_start = self.disk.discard(&name);
        WalError::io(during, &name, at)(source)
    }

    fn full(&self, name: &str, limit: &'static str) -> WalError {
        WalError::Full { file: name.to_owned(), bytes: self.config.segment_bytes, limit }
    }
}

impl Filling {
    /// Writes the next slice of zeros, or the header when they are all there. Gives also where.
    fn go_on(&mut self, config: &Config) -> (u64, io::Result<Step>) {
        let left = config.segment_bytes - self.at;
        if left == 0 {
            let mut block = Buffer::new(BLOCK_BYTES);
            SegmentHeader::spare(config).write(block.bytes_mut());
            let written = self.file.write_at(0, block.bytes());
            return (0, written.map(|()| Step::Ready(Spare { slot: self.slot })));
        }
        let slice = usize::try_from(left).map_or(self.zeros.len(), |left| left.min(self.zeros.len()));
        let at = self.at;
        let written = self.file.write_at(at, &self.zeros.bytes()[..slice]);
        if written.is_ok() {
            self.at += slice as u64;
        }
        (at, written.map(|()| Step::More))
    }
}
