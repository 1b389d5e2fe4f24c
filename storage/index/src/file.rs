//! A file that is sealed when it is finished: written under another name, synced, renamed, its name synced.
//!
//! ```text
//!   path.partial: slices of 2 MiB, each through Sink --fsync--> rename to path --fsync of the directory
//! ```
//! Invariants: whoever was told that a file is finished has it on stable storage under its name; a crash leaves at most a
//! `.partial`, which the next attempt overwrites. Deliberately absent: when to write, and how fast.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::footer::{Family, Footer};
use crate::{IndexError, RunMeta, Sink};

/// **Units:** bytes handed to the operating system at once, and what they begin at a multiple of: a file system with large
/// folios keeps them as one, and one entry of the page tables maps it.
const SLICE_BYTES: usize = 2 << 20;

/// A file that is being written.
pub(crate) struct NewFile<'a> {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    sink: &'a mut dyn Sink,
    /// Bytes not handed over yet.
    pub pending: Vec<u8>,
    /// **Units:** bytes handed over.
    written: u64,
    hash: Box<Xxh3>,
}

impl<'a> NewFile<'a> {
    pub(crate) fn create(path: &Path, sink: &'a mut dyn Sink) -> Result<Self, IndexError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|source| IndexError::io(&partial, 0, source))?;
        let (path, hash) = (path.to_owned(), Box::new(Xxh3::new()));
        Ok(Self { path, partial, file, sink, pending: Vec::new(), written: 0, hash })
    }

    /// Where the next byte goes. **Units:** bytes from the start.
    pub(crate) fn at(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Hands over whole slices of what gathered.
    pub(crate) fn hand_over_if_full(&mut self) -> Result<(), IndexError> {
        self.hand_over(self.pending.len() / SLICE_BYTES * SLICE_BYTES)
    }

    /// Hands over so many bytes.
    fn hand_over(&mut self, bytes: usize) -> Result<(), IndexError> {
        for slice in self.pending[..bytes].chunks(SLICE_BYTES) {
            self.sink.before_slice(slice.len());
            self.hash.update(slice);
            self.file.write_all(slice).map_err(|source| IndexError::io(&self.partial, self.written, source))?;
            self.written += slice.len() as u64;
        }
        self.pending.drain(..bytes);
        Ok(())
    }

    /// Gives up: nothing stays behind.
    pub(crate) fn abandon(self) -> Result<(), IndexError> {
        std::fs::remove_file(&self.partial).map_err(|source| IndexError::io(&self.partial, 0, source))
    }

    /// Ends the file with this footer, and in it the hash of everything before it.
    pub(crate) fn finish(mut self, family: &Family, footer: Footer) -> Result<RunMeta, IndexError> {
        self.hand_over(self.pending.len())?;
        let footer = Footer { hash: self.hash.digest128(), ..footer };
        let bytes = footer.write(family);
        let io = |at: &Path, offset| {
            let at = at.to_owned();
            move |source| IndexError::Io { file: at, offset, source }
        };
        self.sink.before_slice(bytes.len());
        self.file.write_all(&bytes).map_err(io(&self.partial, self.written))?;
        self.written += bytes.len() as u64;
        self.file.sync_all().map_err(io(&self.partial, self.written))?;
        std::fs::rename(&self.partial, &self.path).map_err(io(&self.path, 0))?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(io(parent, 0))?;
        Ok(footer.meta(&self.path, self.written))
    }
}
