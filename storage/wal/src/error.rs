//! Why the log could not do what it was asked.
//!
//! A torn tail is not here: it is what a crash leaves, recovery cuts it and says so in its report.
//! Deliberately absent: retries. What may be retried says so below, and the caller decides when.

use std::error::Error;
use std::io::{self, ErrorKind};

use crate::Lsn;

/// One variant per *decision* the caller can take.
///
/// | variant                          | whose fault      | what the shard does                                       |
/// |----------------------------------|------------------|-----------------------------------------------------------|
/// | [`Full`](Self::Full)             | load             | pushes back, releases segments after a checkpoint, retries|
/// | [`Corrupt`](Self::Corrupt)       | the medium       | does not vote; is repaired from another replica           |
/// | [`Missing`](Self::Missing)       | the checkpoint   | takes an older one, or a snapshot from another replica    |
/// | [`Mismatch`](Self::Mismatch)     | the operator     | refuses to start until the configuration fits             |
/// | [`Io`](Self::Io)                 | operating system | stops: after a failed sync the page cache may lie         |
/// | [`Poisoned`](Self::Poisoned)     | an earlier `Io`  | stops: nothing was written                                |
/// | [`Replay`](Self::Replay)         | the visitor      | whatever the visitor's own error asks for                 |
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// No room for another segment: on the device, or under [`Config::max_segments`](crate::Config::max_segments).
    #[error("{file}: no room for a segment of {bytes} bytes ({limit} limits)")]
    Full {
        /// The slot that was being prepared.
        file: String,
        /// Its size.
        bytes: u64,
        /// What ran out: `device` or `max_segments`.
        limit: &'static str,
    },
    /// Bytes that were durable once are not what was written. Nothing was changed on the disk.
    #[error("{file}: corrupt at byte {offset}: expected {what} {expected:#x}, found {found:#x}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where in the file the record or header starts.
        offset: u64,
        /// The field that disagrees.
        what: &'static str,
        /// What it should have been.
        expected: u64,
        /// What it was.
        found: u64,
    },
    /// The log no longer reaches back to, or does not yet reach up to, where the checkpoint asks it to start.
    #[error("the log holds {oldest} to {newest}, asked to start from {from}")]
    Missing {
        /// Where recovery was asked to start.
        from: Lsn,
        /// The oldest place still there.
        oldest: Lsn,
        /// Where the log ends.
        newest: Lsn,
    },
    /// The configuration contradicts itself or the files: another core's directory, another segment size or version.
    #[error("{subject}: {what} is {found}, expected {expected}")]
    Mismatch {
        /// A file, or `config`.
        subject: String,
        /// The field.
        what: &'static str,
        /// What would fit.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// The operating system refused. After a write this is final: whoever reported it is poisoned.
    #[error("{file}: {during} at byte {offset} failed")]
    Io {
        /// `list`, `allocate`, `open`, `read`, `write`, `settle`, `discard` or `map`.
        during: &'static str,
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// An earlier write failed; what is on the disk is known only after a recovery.
    #[error("an earlier write failed; the log must be recovered before it is written again")]
    Poisoned,
    /// The visitor of a scan gave up.
    #[error("the record at {lsn} was not accepted: {source}")]
    Replay {
        /// The record.
        lsn: Lsn,
        /// The visitor's reason.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// What a visitor of records answers; an error ends the scan as [`WalError::Replay`].
pub type Visited = Result<(), Box<dyn Error + Send + Sync>>;

impl WalError {
    /// Names the file and place of an operating system's refusal.
    pub(crate) fn io(during: &'static str, file: &str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { during, file, offset, source }
    }
}

/// A refusal for want of room: as the seam promises (`disk.rs`), nothing was synced, so the same may be tried again.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
