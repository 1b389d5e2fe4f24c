//! The birth of a data directory: every core gets its folder and a first hard state, then `node` says so, for good.
//!
//! ```text
//!   node {born: false} -> core-NNNN/, core-NNNN/runs/ -> hard-state, of term 0 -> node {born: true} -> cores serve
//!                  a stop at any arrow: the next start does it again            ^ from here on: what is gone is damage
//! ```
//!
//! Why a mark. A folder that is gone (a mount that did not come up, a hand that slipped) looks like one that was never made;
//! made again, it would serve with a part of the facts, and say nothing. Nothing is served before the mark, so whatever is
//! done again holds nothing. A hard state with a term was led from, so it is a mark, too: it stands for directories whose
//! `node` was written before there was one. Deliberately absent: looking into the log (`recovery.rs` does).

use super::{Identity, IdentityError, core_dir, hold_folder, io_error, make_folder};
use crate::config::Limits;
use crate::shard::manifest::runs_dir;
use myelin_wal::{GroupState, HardState, HardStateFile, WalError};
use std::io::{self, ErrorKind};
use std::path::Path;

/// The file of a core's hard state.
const HARD_STATE: &str = "hard-state";
/// What is lost with it.
pub const HARD_STATE_HOLDS: &str = "a core's hard state, its term and watermark";
/// What is lost with a core's folder.
const FOLDER_HOLDS: &str = "a core's folder and its facts";

/// Makes the folders of a directory that is new, and marks it; of one that is not, looks that they are there.
///
/// **Errors:** [`IdentityError::Gone`] for a folder or hard state that was there once. Nothing is written then.
pub fn settle(data_dir: &Path, identity: &mut Identity, limits: &Limits) -> Result<(), IdentityError> {
    if identity.born || was_led(data_dir, identity)? {
        whole(data_dir, identity)?;
    } else {
        for core in 0..identity.cores {
            bear(&core_dir(data_dir, core), core, identity, limits)?;
        }
    }
    if identity.born {
        return Ok(());
    }
    identity.born = true;
    identity.write(data_dir)
}

/// Looks that every core's folder is there, with its hard state. Never writes.
///
/// **Errors:** [`IdentityError::Gone`] for the first that is not.
pub fn whole(data_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let folders = (0..identity.cores).map(|core| core_dir(data_dir, core));
    let places = folders.flat_map(|folder| {
        let hard_state = folder.join(HARD_STATE);
        [(folder, FOLDER_HOLDS), (hard_state, HARD_STATE_HOLDS)]
    });
    for (place, what) in places {
        match place.metadata() {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(IdentityError::Gone { path: place, what });
            }
            Err(error) => return Err(io_error(&place)(error)),
        }
    }
    Ok(())
}

/// True when the hard state of any core holds a term. Never writes; what cannot be read is left to who opens it.
///
/// **Errors:** the operating system.
pub fn was_led(data_dir: &Path, identity: &Identity) -> Result<bool, IdentityError> {
    /// Where the first group's term stands (`storage/wal/src/hard_state.rs` draws it).
    const TERM: std::ops::Range<usize> = 64..72;
    for core in 0..identity.cores {
        let path = core_dir(data_dir, core).join(HARD_STATE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(io_error(&path)(error)),
        };
        if bytes.get(TERM).is_some_and(|term| term.iter().any(|byte| *byte != 0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One core's folder, and a hard state in which its groups have no term yet.
fn bear(folder: &Path, core: u16, identity: &Identity, limits: &Limits) -> Result<(), IdentityError> {
    make_folder(folder).map_err(io_error(folder))?;
    let runs = runs_dir(folder);
    make_folder(&runs).map_err(io_error(&runs))?;
    let disk = hold_folder(folder)?;
    let path = folder.join(HARD_STATE);
    let failed = |error: WalError| match error {
        WalError::Io { source, .. } => IdentityError::Io { path: path.clone(), source },
        WalError::Full { .. } => IdentityError::Io { path: path.clone(), source: ErrorKind::StorageFull.into() },
        other => IdentityError::Io { path: path.clone(), source: io::Error::other(other) },
    };
    let (mut file, state) = HardStateFile::open(&disk, &identity.wal_config(core, limits)).map_err(failed)?;
    if !state.groups.is_empty() {
        return Ok(());
    }
    let group = |shard: u16| GroupState { group: shard + 1, ..GroupState::default() };
    let groups = identity.shards_of(core).map(group).collect();
    file.store(&HardState { groups, ..HardState::default() }).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_wal::Directory;
    use std::fs;

    fn identity() -> Identity {
        Identity::drawn(3, 2, &Limits::lean())
    }

    /// A first start that ends anywhere before its mark is done again, and nothing that is served is made again.
    #[test]
    fn a_birth_is_repeated_until_it_is_marked_and_never_after() {
        let limits = Limits::lean();
        // What an earlier life got done: nothing, a folder, an empty hard state, one core, all but the mark.
        for done in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let mut identity = identity();
            identity.write(dir.path()).unwrap();
            let folder = core_dir(dir.path(), 0);
            match done {
                0 => {}
                1 => fs::create_dir(&folder).unwrap(),
                2 => {
                    fs::create_dir(&folder).unwrap();
                    fs::write(folder.join(HARD_STATE), [0; 8192]).unwrap();
                }
                cores => {
                    (0..cores - 2).for_each(|core| bear(&core_dir(dir.path(), core), core, &identity, &limits).unwrap())
                }
            }
            settle(dir.path(), &mut identity, &limits).unwrap();
            assert!(Identity::read(dir.path()).unwrap().born, "{done}");
            settle(dir.path(), &mut identity, &limits).unwrap();
            let gone = core_dir(dir.path(), 1);
            fs::remove_dir_all(&gone).unwrap();
            let error = settle(dir.path(), &mut identity, &limits).unwrap_err();
            assert!(matches!(&error, IdentityError::Gone { path, .. } if *path == gone), "{error}");
            assert!(!gone.exists(), "it was made again");
        }
    }

    /// `node` files of before the mark: whoever led has written a term.
    #[test]
    fn a_directory_without_a_mark_that_was_led_is_not_new() {
        let (dir, limits) = (tempfile::tempdir().unwrap(), Limits::lean());
        let mut identity = identity();
        identity.write(dir.path()).unwrap();
        settle(dir.path(), &mut identity, &limits).unwrap();
        identity.born = false;
        identity.write(dir.path()).unwrap();
        let folder = core_dir(dir.path(), 0);
        {
            let disk = Directory::open(&folder).unwrap();
            let (mut file, mut state) = HardStateFile::open(&disk, &identity.wal_config(0, &limits)).unwrap();
            state.groups[0].term = 1;
            file.store(&state).unwrap();
        }
        settle(dir.path(), &mut identity, &limits).unwrap();
        assert!(Identity::read(dir.path()).unwrap().born);
        identity.born = false;
        identity.write(dir.path()).unwrap();
        fs::remove_dir_all(core_dir(dir.path(), 1)).unwrap();
        assert!(matches!(settle(dir.path(), &mut identity, &limits), Err(IdentityError::Gone { .. })));
    }
}
