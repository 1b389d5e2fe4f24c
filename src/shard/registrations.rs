//! The file of a shard's registered reflexes: written when they changed, named by every manifest until they change again.
//!
//! ```text
//!   seal (core) --Registrations, shared--> seal thread: <shard>-<manifest>.reflexes --name, hash--> manifest
//! ```
//!
//! A million bands are 40 MB; a checkpoint every half second is too often for that. Invariants: the file is durable before a
//! manifest names it, and is never changed; what is read has the hash that the manifest says. Deliberately absent: a checksum
//! of its own (the hash is one), and what runs, which changes with every tick (`checkpoint.rs` has it).

use super::manifest::{ManifestError, RunName, runs_dir};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes them to `path`: synced, renamed, its folder synced. **Errors:** the operating system's; then nothing of that name
/// is there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<RunName> {
    let temporary = path.with_added_extension("partial");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(RunName { name, hash: xxhash_rust::xxh3::xxh3_128(bytes) })
}

/// The bytes of the one that a manifest names. **Errors:** it cannot be read, or is another one.
pub fn read(core_dir: &Path, named: &RunName) -> Result<Vec<u8>, ManifestError> {
    let path = runs_dir(core_dir).join(&named.name);
    let file = || path.display().to_string();
    let bytes = fs::read(&path).map_err(|source| ManifestError::Io { file: file(), source })?;
    let found = xxhash_rust::xxh3::xxh3_128(&bytes);
    let wrong = || ManifestError::WrongRun { file: file(), expected: named.hash, found };
    if found == named.hash { Ok(bytes) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_any_other_bytes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(runs_dir(dir.path())).unwrap();
        let path = runs_dir(dir.path()).join("0000-1.reflexes");
        let name = write(&path, b"bands").unwrap();
        assert_eq!(name.name, "0000-1.reflexes");
        assert_eq!(read(dir.path(), &name).unwrap(), b"bands");
        assert_eq!(fs::read_dir(runs_dir(dir.path())).unwrap().count(), 1, "nothing else is left there");
        fs::write(&path, b"bends").unwrap();
        assert!(matches!(read(dir.path(), &name), Err(ManifestError::WrongRun { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(dir.path(), &name), Err(ManifestError::Io { .. })));
    }
}
