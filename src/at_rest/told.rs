//! Errors of the log, the manifest, the runs and the shard, as damage with a file and an offset; or as no damage at all.

use super::home::core_name;
use super::{Damage, Fault};
use crate::shard::ShardError;
use myelin_index::IndexError;
use myelin_wal::WalError;
use std::path::{Path, PathBuf};

/// A file of a core, seen from the data directory.
pub(super) fn in_core(core: u16, file: &str) -> String {
    format!("{}/{file}", core_name(core))
}

fn relative(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap_or(file).display().to_string()
}

/// What the log says. **Errors:** whatever is no damage.
pub(super) fn of_log(core: u16, error: WalError) -> Result<Damage, Fault> {
    match error {
        WalError::Corrupt { ref file, offset, what, expected, found } => {
            let what = format!("{what} should be {expected:#x}, is {found:#x}");
            Ok(Damage { file: in_core(core, file), offset, what })
        }
        WalError::Missing { .. } => Ok(Damage { file: in_core(core, "the log"), offset: 0, what: error.to_string() }),
        WalError::Mismatch { ref subject, .. } if subject != "config" => {
            Ok(Damage { file: in_core(core, subject), offset: 0, what: error.to_string() })
        }
        WalError::Io { ref file, offset, ref source, .. } if is_medium(source) => {
            Ok(Damage { file: in_core(core, file), offset, what: source.to_string() })
        }
        WalError::Io { file, source, .. } => Err(Fault::Io { path: PathBuf::from(in_core(core, &file)), source }),
        other => Err(Fault::Unreadable(other.to_string())),
    }
}

/// What a run says. **Errors:** whatever is no damage.
pub(super) fn of_run(dir: &Path, file: &Path, error: IndexError) -> Result<Damage, Fault> {
    match error {
        IndexError::Corrupt { ref file, offset, what, expected, found } => {
            let what = format!("{what} should be {expected:#x}, is {found:#x}");
            Ok(Damage { file: relative(dir, file), offset, what })
        }
        IndexError::Version { ref file, .. } => {
            Ok(Damage { file: relative(dir, file), offset: 8, what: error.to_string() })
        }
        IndexError::State { offset, what, expected, found } => {
            let what = format!("in the columns' state, {what} should be {expected:#x}, is {found:#x}");
            Ok(Damage { file: relative(dir, file), offset, what })
        }
        IndexError::Io { ref file, offset, ref source } if is_medium(source) => {
            Ok(Damage { file: relative(dir, file), offset, what: source.to_string() })
        }
        IndexError::Io { file, source, .. } => Err(Fault::Io { path: file, source }),
        IndexError::BelowHorizon { .. } => Err(Fault::Unreadable(error.to_string())),
    }
}

/// What a shard says that was restored or replayed from `file`.
pub(super) fn of_shard(dir: &Path, file: &Path, offset: u64, error: ShardError) -> Result<Damage, Fault> {
    match error {
        ShardError::Index(error) => of_run(dir, file, error),
        other => Ok(Damage { file: relative(dir, file), offset, what: other.to_string() }),
    }
}

/// A file that is named and not there, or cut short, or under which the medium fails.
pub(super) fn is_medium(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    const EIO: i32 = 5;
    matches!(error.kind(), NotFound | UnexpectedEof | InvalidData) || error.raw_os_error() == Some(EIO)
}
