//! The only memory map, and the only unsafe code: a sealed file, mapped for reading.
//!
//! Invariants: a file is mapped only after its footer and directory were verified by `pread`, and a block is touched
//! through the map only after its checksum was verified by `pread` too, so a bad sector is a typed error, not a signal;
//! runs are written once, renamed into place and never written, truncated or reused. Deliberately absent: writing through
//! a map, which would turn a full disk into SIGBUS.

use std::fs::File;
use std::io;
use std::ops::Deref;

/// A whole file in memory.
#[derive(Debug)]
pub(crate) struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a sealed file.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "a map is sound only while nobody changes the file, which no type can prove")]
        // SAFETY: runs are sealed: written under another name, synced, renamed and never written or truncated again.
        // Whoever changes files of the data directory behind the process's back breaks this; a read past the end is
        // SIGBUS, which ends the process with its own exit code.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
