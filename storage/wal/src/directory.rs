//! The real disk: one directory, locked, and the decision how a write becomes durable.
//!
//! ```text
//!   Direct    O_DIRECT|O_DSYNC     one call, no page cache between us and the device      where the probe succeeds
//!   Synced    pwrite + fdatasync   two calls through the page cache                       tmpfs, FUSE, other systems
//! ```
//!
//! Measured on 2 cores, ext4 on virtio, microseconds for 4 KiB, 64 KiB, 256 KiB, 1 MiB: direct 117, 106, 140, 293;
//! synced 101, 159, 211, 356. The choice is made once, by writing a block and reading it back, and is reported by
//! [`Directory::append_path`]. Deliberately absent: io_uring (158 us: a kernel worker syncs, behind busy cores) and
//! `mmap` + `msync` (180 us, and the kernel may write any page at any time).

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blocks::Buffer;
use crate::error::is_full;
use crate::map::Map;
use crate::{BLOCK_BYTES, Disk, DiskFile};

const LOCK: &str = "lock";
const PROBE: &str = "probe";

/// How a write becomes durable here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendPath {
    /// `O_DIRECT|O_DSYNC`.
    Direct,
    /// `pwrite` and `fdatasync`, because direct writes were refused.
    Synced {
        /// What the probe was answered.
        why: String,
    },
}

impl fmt::Display for AppendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("O_DIRECT|O_DSYNC"),
            Self::Synced { why } => write!(f, "pwrite + fdatasync (O_DIRECT: {why})"),
        }
    }
}

/// A directory that this process alone uses.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    append_path: AppendPath,
    /// Held for as long as the directory: a second process is refused.
    _lock: File,
}

impl Directory {
    /// Opens a directory, creating it if need be, and finds out how it takes durable writes.
    ///
    /// **Errors:** `ResourceBusy` if another process holds it.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::open_as(path.into(), probe)
    }

    /// As [`Directory::open`], through the page cache: to compare, or where the operator knows better.
    pub fn open_synced(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::open_as(path.into(), |_| Ok(AppendPath::Synced { why: "not asked for".to_owned() }))
    }

    /// How a write becomes durable here, to be logged and shown.
    #[must_use]
    pub fn append_path(&self) -> &AppendPath {
        &self.append_path
    }

    fn open_as(path: PathBuf, choose: impl FnOnce(&Path) -> io::Result<AppendPath>) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(ErrorKind::ResourceBusy, "another process holds this log"),
            TryLockError::Error(error) => error,
        })?;
        let append_path = choose(&path)?;
        sync_directory(&path)?;
        Ok(Self { path, append_path, _lock: lock })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join(name))?;
        reserve(&file, bytes)?;
        synced(file.sync_all())?;
        synced(sync_directory(&self.path))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let direct = self.append_path == AppendPath::Direct;
        let reader = File::open(&path)?;
        let writer = if direct { open_direct(&path)? } else { OpenOptions::new().write(true).open(&path)? };
        Ok(Arc::new(OnDisk { path, reader, writer, direct }))
    }

    fn discard(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            // Also when it was gone: the removal may be one that no sync covered.
            _ => synced(sync_directory(&self.path)),
        }
    }
}

/// A file with two handles: small reads and maps go through the page cache, writes and large reads perhaps not.
struct OnDisk {
    path: PathBuf,
    reader: File,
    writer: File,
    direct: bool,
}

impl DiskFile for OnDisk {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.reader.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let at_blocks = [offset, into.len() as u64, into.as_ptr().addr() as u64];
        let aligned = at_blocks.iter().all(|number| number.is_multiple_of(BLOCK_BYTES as u64));
        // Past the page cache, a large read takes neither new memory nor a copy. What goes wrong there, such as a file that
        // ends within a block, is asked again the ordinary way, which says what it is.
        if self.direct && aligned && self.writer.read_exact_at(into, offset).is_ok() {
            return Ok(());
        }
        self.reader.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "a write starts at a block");
        assert!(blocks.len().is_multiple_of(BLOCK_BYTES), "a write is whole blocks");
        assert!(blocks.as_ptr().addr().is_multiple_of(BLOCK_BYTES), "a write comes from aligned memory");
        self.writer.write_all_at(blocks, offset)?;
        if self.direct { Ok(()) } else { synced(self.writer.sync_data()) }
    }

    fn settle(&self) -> io::Result<()> {
        self.writer.sync_data()?;
        // After a failed sync the cache may show bytes that the device refused. Direct writes leave none.
        if self.direct { Ok(()) } else { forget_cache(&self.reader) }
    }

    fn map(&self) -> io::Result<Map> {
        Map::of(&self.reader)
    }
}

impl fmt::Debug for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDisk").field("path", &self.path).field("direct", &self.direct).finish_non_exhaustive()
    }
}

/// A sync that fails for want of room is a failed sync: nobody may take it for a refusal and try again.
fn synced(done: io::Result<()>) -> io::Result<()> {
    done.map_err(|error| if is_full(&error) { io::Error::other(error) } else { error })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a block directly and reads it back. A refusal of direct writes is an answer, and so is a disk without room for a
/// block: what the log has is still to be served, and the way through the page cache is never wrong. The rest are errors.
fn probe(path: &Path) -> io::Result<AppendPath> {
    let path = path.join(PROBE);
    let mut block = Buffer::new(BLOCK_BYTES);
    block.bytes_mut().fill(0x5a);
    if let Err(error) = fs::write(&path, vec![0; BLOCK_BYTES]) {
        let _removed_at_the_next_start = fs::remove_file(&path);
        return if is_full(&error) {
            Ok(AppendPath::Synced { why: format!("not tried, {error}") })
        } else {
            Err(error)
        };
    }
    let written = open_direct(&path).and_then(|file| file.write_all_at(block.bytes(), 0));
    let read_back = fs::read(&path)?;
    fs::remove_file(&path)?;
    match written {
        Ok(()) if read_back == block.bytes() => Ok(AppendPath::Direct),
        Ok(()) => Ok(AppendPath::Synced { why: "what was written was not read back".to_owned() }),
        Err(error) if is_full(&error) || matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(AppendPath::Synced { why: error.to_string() })
        }
        Err(error) => Err(error),
    }
}

#[cfg(target_os = "linux")]
mod system {
    use super::{File, OpenOptions, Path, io};
    use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate};
    use rustix::io::Errno;
    use std::os::unix::fs::OpenOptionsExt;

    pub(super) fn open_direct(path: &Path) -> io::Result<File> {
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits().cast_signed();
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
    }

    /// Reserves extents, so that a later write cannot meet a full disk; where that is not known, zeroing does it.
    pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if file.metadata()?.len() < bytes => file.set_len(bytes),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            answer => Ok(answer?),
        }
    }

    pub(super) fn forget_cache(file: &File) -> io::Result<()> {
        Ok(fadvise(file, 0, None, Advice::DontNeed)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{ErrorKind, File, Path, io};

    pub(super) fn open_direct(_: &Path) -> io::Result<File> {
        Err(io::Error::new(ErrorKind::Unsupported, "not on this system"))
    }

    /// Sets the size; zeroing, which follows, reserves the extents.
    pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
        if file.metadata()?.len() < bytes { file.set_len(bytes) } else { Ok(()) }
    }

    pub(super) fn forget_cache(_: &File) -> io::Result<()> {
        Ok(())
    }
}

use system::{forget_cache, open_direct, reserve};
