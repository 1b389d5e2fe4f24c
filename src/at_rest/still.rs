//! A disk that is looked at: the log's seam, without a way to write.
//!
//! Reading a hard state repairs a copy that a crash left behind; here the repair is noted and not done. Before a file is
//! believed its cache is dropped, so that what is checked is what the device holds. Deliberately absent: the lock
//! (`home.rs` has it) and the probe of `O_DIRECT`, which writes.

use myelin_wal::{Disk, DiskFile, Map};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One directory, read only.
#[derive(Debug)]
pub(super) struct Still {
    dir: PathBuf,
    unwritten: Arc<AtomicUsize>,
}

impl Still {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), unwritten: Arc::default() }
    }

    /// Writes that a node would have done where we only looked.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }
}

impl Disk for Still {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// Nothing: a file that is absent is told by `open`.
    fn allocate(&self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::open(self.dir.join(name))?;
        Ok(Arc::new(StillFile { file, unwritten: Arc::clone(&self.unwritten) }))
    }

    fn discard(&self, _: &str) -> io::Result<()> {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
struct StillFile {
    file: File,
    unwritten: Arc<AtomicUsize>,
}

impl DiskFile for StillFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        forget_cache(&self.file);
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        let mut bytes = vec![0; usize::try_from(self.bytes()?).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(Map::copy_of(bytes))
    }
}

/// Makes the next read of a file come from the device, where the system lets us; else it is only a weaker check.
pub(super) fn forget_cache(file: &File) {
    // What is dirty cannot be dropped: an earlier process may have left it in the cache.
    let _checked_weaker = file.sync_data();
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Advice, fadvise};
        let _checked_weaker = fadvise(file, 0, None, Advice::DontNeed);
    }
}

/// How a node would make writes durable in this folder, found out without a write.
pub(super) fn append_path(folder: &Path, segment: Option<&str>) -> &'static str {
    match segment {
        Some(segment) if opens_direct(&folder.join(segment)) => "O_DIRECT|O_DSYNC",
        Some(_) => "pwrite + fdatasync",
        None => "unknown: no segment yet",
    }
}

#[cfg(target_os = "linux")]
fn opens_direct(path: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn opens_direct(_: &Path) -> bool {
    false
}
