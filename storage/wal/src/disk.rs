//! The seam: all that the log asks of a disk, in nine methods.
//!
//! ```text
//!   Disk      list . allocate . open . discard one directory
//!   DiskFile  bytes . read_at . write_at . settle . map
//! ```
//!
//! A write is durable when it returns; how that is done (`O_DIRECT|O_DSYNC`, or a sync after it) is the decision of one
//! implementation, `directory.rs`. `sim.rs` is the other, for tests.
//!
//! `StorageFull` and `QuotaExceeded` mean: refused, before any sync. The same call may be made again. A sync that fails for
//! want of room is a failed sync and bears another kind: the page cache then takes for written what is not.
//!
//! Deliberately absent: rename, truncate and append. The log never needs them, so no state of a directory has to survive a
//! crash but a file's existence.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::map::Map;

/// One directory that belongs to one core's log.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Reserves `bytes` for a file, creating it if need be; name and size are durable when this returns. Bytes that
    /// were never written read as zero. **Errors:** `StorageFull` or `QuotaExceeded` before any byte is promised.
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Opens a file that exists, to read and to write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file that holds nothing and may not be what it seems; durable when this returns. No file is no error.
    fn discard(&self, name: &str) -> io::Result<()>;
}

/// One open file of fixed size.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// The file's size.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `into` from `offset`; fewer bytes than that are an error.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes whole blocks; **they are durable when this returns**. An interrupted write may leave any part of its
    /// sectors, in any order. **Shape:** offset, length and address are multiples of
    /// [`BLOCK_BYTES`](crate::BLOCK_BYTES).
    fn write_at(&self, offset: u64, blocks: &[u8]) -> io::Result<()>;

    /// Makes what `read_at` shows and what would survive a loss of power the same: flushes what an earlier process
    /// left in a cache, then forgets the cache.
    fn settle(&self) -> io::Result<()>;

    /// Maps the file for reading. The caller has verified it and holds it against reuse.
    fn map(&self) -> io::Result<Map>;
}
