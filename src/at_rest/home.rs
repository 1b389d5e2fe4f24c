//! A data directory at rest: whose it is, and our hold on it.
//!
//! ```text
//!   DIR/node                identity: node id, shards, cores, segment size
//!   DIR/core-NNNN/lock      held shared while we look: other looks may join, a node may not
//! ```
//!
//! A copy may lack the lock files; nothing holds a copy. Deliberately absent: making anything.

use super::{Damage, Fault};
use crate::config::Limits;
use serde::Deserialize;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The format that is read here, as `src/node.rs` writes it.
const FORMAT: u32 = 1;

/// What was fixed when the directory was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) node: u64,
    pub(super) shards: u16,
    pub(super) cores: u16,
    pub(super) segment_bytes: u64,
}

/// A directory that no node can start on while this lives.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    _locks: Vec<File>,
}

impl Home {
    /// **Errors:** it is no data directory; a node holds it; its identity is damaged or another version's.
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        let path = dir.join("node");
        let bytes = fs::read(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                Fault::Usage(format!("{} is no data directory: it has no file named node", dir.display()))
            }
            _ => Fault::Io { path: path.clone(), source },
        })?;
        let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| {
            // serde_json counts lines and columns; a reader of bytes wants an offset.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
            let offset = lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
            Fault::Damaged(Damage { file: "node".to_owned(), offset: offset as u64, what: error.to_string() })
        })?;
        if identity.format != FORMAT {
            let (found, path) = (identity.format, path.display());
            return Err(Fault::Unreadable(format!("{path} has format {found}, this program reads {FORMAT}")));
        }
        if let Some(what) = identity.contradiction() {
            return Err(Fault::Damaged(Damage { file: "node".to_owned(), offset: 0, what }));
        }
        let mut home = Self { dir: dir.to_owned(), identity, _locks: Vec::new() };
        for core in 0..home.identity.cores {
            let locked = hold(&home.core_dir(core))?;
            home._locks.extend(locked);
        }
        Ok(home)
    }

    /// The folder of a core.
    pub(super) fn core_dir(&self, core: u16) -> PathBuf {
        self.dir.join(core_name(core))
    }

    /// The shards of a core.
    pub(super) fn shards_of(&self, core: u16) -> impl Iterator<Item = u16> + use<> {
        let cores = self.identity.cores;
        (0..self.identity.shards).filter(move |shard| shard % cores == core)
    }

    /// The bounds that go with this directory's segments.
    pub(super) fn limits(&self) -> Limits {
        Limits::default().with_segment_bytes(self.identity.segment_bytes)
    }

    /// How the log of a core was written.
    pub(super) fn wal_config(&self, core: u16) -> myelin_wal::Config {
        let limits = self.limits();
        myelin_wal::Config {
            core: u32::from(core),
            log_id: self.identity.node,
            segment_bytes: limits.segment_bytes,
            max_payload: limits.max_payload(),
            batch_bytes: limits.batch_bytes,
            buffers: limits.batch_buffers,
            max_segments: limits.max_segments,
        }
    }
}

impl Identity {
    /// What no writer of ours would have put together.
    fn contradiction(&self) -> Option<String> {
        let sound = self.node != 0 && self.cores > 0 && self.cores <= self.shards;
        (!sound)
            .then(|| format!("node {}, {} shards, {} cores contradict each other", self.node, self.shards, self.cores))
    }
}

/// A core's folder as seen from the data directory.
pub(super) fn core_name(core: u16) -> String {
    format!("core-{core:04}")
}

/// Takes the lock of a core's folder, shared, if there is one.
fn hold(dir: &Path) -> Result<Option<File>, Fault> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Fault::Io { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Fault::Held { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Fault::Io { path, source }),
    }
}
