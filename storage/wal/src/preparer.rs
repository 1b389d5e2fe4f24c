//! Makes spares ahead of need: the only place where the log can run out of room.
//!
//! ```text
//!   step: allocate the whole slot -> step: zero 1 MiB -> ... -> step: zero 1 MiB -> step: header "spare" -> Spare
//! ```
//!
//! Zeroed once, so that no later write finds an extent to convert. The header comes last: a slot without one was
//! interrupted, and is prepared again. A failure here costs nothing that was acknowledged; `Full` may be retried.
//! Deliberately absent: pacing. The caller steps when the foreground leaves room.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::blocks::Buffer;
use crate::live::Spare;
use crate::segment::{SegmentHeader, file_name};
use crate::{BLOCK_BYTES, Config, Disk, DiskFile, WalError};

/// Most that is zeroed in one step. **Units:** bytes.
const SLICE_BYTES: usize = 1 << 20;

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
    /// Slots that exist without being prepared, then the first that does not exist.
    unprepared: Vec<u32>,
    next: u32,
    filling: Option<Filling>,
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
        Self { disk, config: config.clone(), unprepared, next, filling: None }
    }

    /// Goes on by one slice. **Errors:** [`WalError::Full`] if the device or `max_segments` leaves no room: the same step
    /// may be tried again later. [`WalError::Io`]: nothing acknowledged is at stake, but the device is failing.
    pub fn step(&mut self) -> Result<Step, WalError> {
        let Some(mut filling) = self.filling.take() else {
            self.filling = Some(self.begin()?);
            return Ok(Step::More);
        };
        let name = file_name(filling.slot);
        let left = self.config.segment_bytes - filling.at;
        if left > 0 {
            let slice = usize::try_from(left).map_or(filling.zeros.len(), |left| left.min(filling.zeros.len()));
            let at = filling.at;
            let written = filling.file.write_at(at, &filling.zeros.bytes()[..slice]);
            filling.at += if written.is_ok() { slice as u64 } else { 0 };
            self.filling = Some(filling);
            return written.map(|()| Step::More).map_err(|source| self.refused("write", &name, at, source));
        }
        let mut block = Buffer::new(BLOCK_BYTES);
        SegmentHeader::spare(&self.config).write(block.bytes_mut());
        filling.file.write_at(0, block.bytes()).map_err(WalError::io("write", &name, 0))?;
        Ok(Step::Ready(Spare { slot: filling.slot }))
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
        let again = self.unprepared.last().copied();
        let slot = again.unwrap_or(self.next);
        let file = file_name(slot);
        let bytes = self.config.segment_bytes;
        if slot >= self.config.max_segments {
            return Err(WalError::Full { file, bytes, limit: "max_segments" });
        }
        self.disk.allocate(&file, bytes).map_err(|source| self.refused("allocate", &file, 0, source))?;
        let opened = self.disk.open(&file).map_err(WalError::io("open", &file, 0))?;
        match again {
            Some(_) => drop(self.unprepared.pop()),
            None => self.next += 1,
        }
        let slice = usize::try_from(bytes).map_or(SLICE_BYTES, |bytes| bytes.min(SLICE_BYTES));
        Ok(Filling { slot, file: opened, at: 0, zeros: Buffer::new(slice) })
    }

    /// A device without room is load, everything else is the operating system's.
    fn refused(&self, during: &'static str, file: &str, at: u64, source: io::Error) -> WalError {
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                WalError::Full { file: file.to_owned(), bytes: self.config.segment_bytes, limit: "device" }
            }
            _ => WalError::io(during, file, at)(source),
        }
    }
}
