//! A file's bytes for readers: the one place that maps memory.
//!
//! Only sealed segments are mapped, after they were verified by `read_at`, and while a [`Pinned`](crate::Pinned) keeps
//! them from being used again. Nothing truncates a segment, so a fault in the map means that the medium failed; the
//! process then ends (exit code 6), it does not guess. Deliberately absent: writing through a map.

use std::fs::File;
use std::io;

/// The bytes of a file: mapped, or a copy where the disk is simulated.
pub struct Map(Bytes);

enum Bytes {
    Mapped(memmap2::Mmap),
    Copied(Vec<u8>),
}

impl Map {
    /// Maps a file that nobody writes while the map lives.
    #[expect(unsafe_code, reason = "a file mapping cannot be proven unchanging by the compiler")]
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        // SAFETY: the file is a sealed segment. This process writes a segment only after a roll onto it, and a roll
        // takes only slots whose `Pinned` count is zero (`live.rs`); the reader that owns this map owns a `Pinned`.
        // Other processes are kept out by the directory's lock (`directory.rs`).
        let mapped = unsafe { memmap2::Mmap::map(file)? };
        Ok(Self(Bytes::Mapped(mapped)))
    }

    /// A copy, for disks that have no memory to map.
    #[must_use]
    pub fn copy_of(bytes: Vec<u8>) -> Self {
        Self(Bytes::Copied(bytes))
    }

    /// The file's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(mapped) => mapped,
            Bytes::Copied(copied) => copied,
        }
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Map").field(&self.bytes().len()).finish()
    }
}
