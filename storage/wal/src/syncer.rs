//! The device's end of the log: performs a batch's writes, in order, each durable before the next.
//!
//! After any failure the syncer is poisoned: the page cache may have forgotten what it could not write, and a second
//! sync would "succeed" (ATC 2020, "Can Applications Recover from fsync Failures?"). So nothing is ever retried.
//! Deliberately absent: a thread. Whoever owns the syncer lends it one.

use std::fmt;
use std::sync::Arc;

use crate::batch::Write;
use crate::planted::{self, Bug};
use crate::segment::file_name;
use crate::{Batch, Disk, DiskFile, WalError};

/// The device's end of one core's log.
pub struct Syncer {
    disk: Arc<dyn Disk>,
    /// Open files by slot; a slot is opened at its first write and stays open.
    files: Vec<Option<Arc<dyn DiskFile>>>,
    poisoned: bool,
}

impl Syncer {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, files: Vec::new(), poisoned: false }
    }

    /// Makes a batch durable. **Errors:** [`WalError::Io`] once, and [`WalError::Poisoned`] ever after; the batch may be
    /// durable in parts, nothing of it is to be acknowledged, and only a recovery knows what is there.
    pub fn sync(&mut self, batch: &Batch) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let done = self.write_all(batch);
        self.poisoned = done.is_err() && !planted::is(Bug::SyncRetried);
        done
    }

    /// Whether an earlier write failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn write_all(&mut self, batch: &Batch) -> Result<(), WalError> {
        if planted::is(Bug::HeaderAfterRecords) {
            let mut writes: Vec<_> = batch.writes().collect();
            writes.sort_by_key(|write| (write.epoch, write.offset == 0));
            return writes.into_iter().try_for_each(|write| self.write(write));
        }
        if planted::is(Bug::AckBeforeSync) {
            let writes = batch.writes().count();
            return batch.writes().take(writes - 1).try_for_each(|write| self.write(write));
        }
        batch.writes().try_for_each(|write| self.write(write))
    }

    fn write(&mut self, write: Write<'_>) -> Result<(), WalError> {
        let written = self.file(write.slot)?.write_at(write.offset, write.blocks);
        written.map_err(|source| WalError::io("write", &file_name(write.slot), write.offset)(source))
    }

    fn file(&mut self, slot: u32) -> Result<&Arc<dyn DiskFile>, WalError> {
        let at = slot as usize;
        if self.files.len() <= at {
            self.files.resize(at + 1, None);
        }
        let file = match self.files[at].take() {
            Some(file) => file,
            None => {
                let name = file_name(slot);
                self.disk.open(&name).map_err(WalError::io("open", &name, 0))?
            }
        };
        Ok(self.files[at].insert(file))
    }
}

impl fmt::Debug for Syncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syncer").field("disk", &self.disk).field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}
