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
use crate::identity::{self, Identity, IdentityError, birth};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A directory that no node can start on while this lives.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) identity: Identity,
    /// Every core's folder was made once, so one that is missing is gone with its facts.
    pub(super) born: bool,
    _locks: Vec<File>,
}

impl Home {
    /// **Errors:** it is no data directory; a node holds it; its identity is damaged or another version's.
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        let identity = Identity::read(dir).map_err(|error| match error {
            IdentityError::Io { source, .. }
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                // Cores without it are damage: who they are is lost.
                if identity::has_cores(dir).unwrap_or(false) {
                    let what = "gone, and the folders of cores are there".to_owned();
                    return Fault::Damaged(Damage { file: "node".to_owned(), offset: 0, what });
                }
                Fault::Usage(format!("{} is no data directory: it has no file named node", dir.display()))
            }
            IdentityError::Io { path, source } => Fault::Io { path, source },
            IdentityError::Damaged { offset, what, .. } => {
                Fault::Damaged(Damage { file: "node".to_owned(), offset, what })
            }
            other => Fault::Unreadable(other.to_string()),
        })?;
        let led = birth::was_led(dir, &identity).map_err(|error| match error {
            IdentityError::Io { path, source } => Fault::Io { path, source },
            other => Fault::Unreadable(other.to_string()),
        })?;
        let born = identity.born || led;
        let mut home = Self { dir: dir.to_owned(), identity, born, _locks: Vec::new() };
        home.wal_config(0).check().map_err(|error| {
            Fault::Damaged(Damage { file: "node".to_owned(), offset: 0, what: format!("no log of ours: {error}") })
        })?;
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

    /// What is missing when a core's folder is.
    pub(super) fn gone(&self, core: u16) -> Option<Damage> {
        let what = "the folder of a core is gone, with its facts".to_owned();
        (self.born && !self.core_dir(core).is_dir()).then(|| Damage { file: core_name(core), offset: 0, what })
    }

    /// The shards of a core.
    pub(super) fn shards_of(&self, core: u16) -> impl Iterator<Item = u16> + use<> {
        self.identity.shards_of(core)
    }

    /// The bounds that go with this directory's segments.
    pub(super) fn limits(&self) -> Limits {
        self.identity.limits(&Limits::default())
    }

    /// How the log of a core was written.
    pub(super) fn wal_config(&self, core: u16) -> myelin_wal::Config {
        self.identity.wal_config(core, &self.limits())
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
