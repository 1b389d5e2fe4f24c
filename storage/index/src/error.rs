//! Why the index could not answer or could not keep. One variant per *decision*, so that the caller can match and act:
//!
//! | variant                            | whose fault      | what the shard does                                   |
//! |------------------------------------|------------------|-------------------------------------------------------|
//! | [`BelowHorizon`]                   | the reader's     | answers with the horizon, never with fewer rows       |
//! | [`Corrupt`]                        | the medium       | fetches the file from another replica                 |
//! | [`Version`]                        | an older program | refuses to start, names both versions                 |
//! | [`State`]                          | the medium       | takes an older checkpoint                             |
//! | [`Io`]                             | operating system | stops sealing; after a failed sync it stops the shard |
//!
//! [`BelowHorizon`]: IndexError::BelowHorizon
//! [`Corrupt`]: IndexError::Corrupt
//! [`Version`]: IndexError::Version
//! [`State`]: IndexError::State
//! [`Io`]: IndexError::Io

use std::path::{Path, PathBuf};

use myelin_datom::Tx;

/// See the table above.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The reader asks for a time whose rows were pruned.
    #[error("rows before {horizon} were pruned")]
    BelowHorizon {
        /// The oldest transaction that can be asked for.
        horizon: Tx,
    },
    /// Bytes of a file are not what was written.
    #[error("{} is corrupt at byte {offset}: {what} should be {expected}, is {found}", file.display())]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Which field or check.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A file of a format that this program does not know.
    #[error("{} has format version {found}, this program reads up to {supported}", file.display())]
    Version {
        /// Which file.
        file: PathBuf,
        /// Its version.
        found: u16,
        /// Ours.
        supported: u16,
    },
    /// The bytes of a checkpoint's state are not what [`crate::Columns::state`] gave, or do not belong to these runs.
    #[error("the columns' state is unusable at byte {offset}: {what} should be {expected}, is {found}")]
    State {
        /// Where in the bytes.
        offset: u64,
        /// Which field or check.
        what: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// The operating system refused.
    #[error("{} at byte {offset} cannot be reached", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Why.
        source: std::io::Error,
    },
}

impl IndexError {
    pub(crate) fn io(file: &Path, offset: u64, source: std::io::Error) -> Self {
        Self::Io { file: file.to_owned(), offset, source }
    }
}
