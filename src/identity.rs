//! What a data directory is, for life: the file `node` in it.
//!
//! ```text
//!   node    JSON: format, node id, shards, cores, segment size, the bounds that `apply` depends on, whether every core's
//!           folder was made (`identity/birth.rs`), and a checksum
//! ```
//!
//! Shards and cores decide which folder holds what; the bounds decide what an entry does when it is applied, so a replay
//! must find the ones it was written under. Everything else may change from one start to the next.

pub mod birth;

use crate::config::{Config, Limits};
use crate::runtime::{entropy, threads};
use myelin_datom::SLOTS;
use myelin_wal::Directory;
use myelin_wire::SlotRange;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is fixed when a data directory is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of this file and everything beside it.
    pub format: u32,
    /// Drawn once.
    pub node: u64,
    /// Shards of the node.
    pub shards: u16,
    /// Data cores, each with a folder of its own.
    pub cores: u16,
    /// A segment of every log. **Units:** bytes.
    pub segment_bytes: u64,
    /// [`Limits::sessions_per_shard`].
    pub sessions_per_shard: usize,
    /// [`Limits::markets_per_shard`].
    pub markets_per_shard: usize,
    /// [`Limits::reflexes_per_shard`].
    pub reflexes_per_shard: usize,
    /// Every core's folder was made, and may hold facts: what is missing is damage from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub born: bool,
    check: u32,
}

/// The format that is written and read here.
pub const FORMAT: u32 = 1;
/// Shards of a node at most: a shard has a slot at least, and what a node does not need costs memory. Groups of one core's
/// hard state at most are 125.
pub const SHARDS_MAX: u16 = 64;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("{} is held by another process: a node that runs on this directory, or a look at it", path.display())]
    Held {
        /// A core's folder.
        path: PathBuf,
    },
    /// It is not what was written there.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// It was there once, with what it held.
    #[error(
        "{} is gone, {what}: is a file system not mounted? It is not made again; put it back, or take a backup",
        path.display()
    )]
    Gone {
        /// The file or folder.
        path: PathBuf,
        /// What goes with it.
        what: &'static str,
    },
    /// Another version's.
    #[error("{} has format {found}, this build reads {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: u32,
    },
    /// The directory was made otherwise.
    #[error(
        "the data directory was made with {made} shards, not {asked}: moving slots between shards is not possible yet; \
         start with `--shards {made}` or without"
    )]
    Shards {
        /// How many it has.
        made: u16,
        /// How many were asked for.
        asked: u16,
    },
}

impl Identity {
    /// Reads it, or makes the directory. What `node` says is durable when this returns, and every core has its folder.
    ///
    /// **Errors:** a folder of a core without the file `node`, or the other way round, is [`IdentityError::Gone`], before
    /// anything is drawn or written.
    pub fn open(config: &Config) -> Result<Self, IdentityError> {
        let dir = &config.data_dir;
        make_folder(dir).map_err(io_error(dir))?;
        let mut identity = match Self::read(dir) {
            Ok(identity) => match config.shards {
                Some(asked) if asked != identity.shards => {
                    return Err(IdentityError::Shards { made: identity.shards, asked });
                }
                _ => identity,
            },
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if has_cores(dir).map_err(io_error(dir))? {
                    let what = "and the folders of its cores are there";
                    return Err(IdentityError::Gone { path: dir.join("node"), what });
                }
                Self::make(config)?
            }
            Err(error) => return Err(error),
        };
        let limits = identity.limits(&config.limits);
        birth::settle(dir, &mut identity, &limits)?;
        Ok(identity)
    }

    /// Reads it. Never writes.
    pub fn read(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join("node");
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        Self::decode(&bytes, path)
    }

    /// The identity of these bytes, which stand at `path`.
    fn decode(bytes: &[u8], path: PathBuf) -> Result<Self, IdentityError> {
        let identity: Self = serde_json::from_slice(bytes).map_err(|error| {
            // serde_json counts lines and columns; a reader of bytes wants an offset.
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
            let offset = lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
            IdentityError::Damaged { path: path.clone(), offset: offset as u64, what: error.to_string() }
        })?;
        if identity.format != FORMAT {
            return Err(IdentityError::Format { path, found: identity.format });
        }
        let sound = identity.node != 0
            && (1..=SHARDS_MAX).contains(&identity.shards)
            && (1..=identity.shards).contains(&identity.cores);
        let fits = identity.check == identity.checksum();
        let what = match (fits, sound) {
            (true, true) => return Ok(identity),
            (false, _) => "the checksum does not fit",
            (true, false) => "no directory is made with such a node, shards or cores",
        };
        Err(IdentityError::Damaged { path, offset: 0, what: what.to_owned() })
    }

    /// The data cores that the directory has, or will have. Never writes; what cannot be read is left to [`Identity::open`].
    #[must_use]
    pub fn cores(config: &Config) -> u16 {
        Self::read(&config.data_dir).map_or_else(|_| Self::planned(config).1, |identity| identity.cores)
    }

    /// Shards and cores of a new directory.
    fn planned(config: &Config) -> (u16, u16) {
        let cpus = if config.lean { 1 } else { threads::cpus() };
        let shards = config.shards.unwrap_or(cpus.min(usize::from(SHARDS_MAX)) as u16);
        (shards, usize::from(shards).min(cpus) as u16)
    }

    fn make(config: &Config) -> Result<Self, IdentityError> {
        let (shards, cores) = Self::planned(config);
        let identity = Self::drawn(shards, cores, &config.limits);
        identity.write(&config.data_dir)?;
        Ok(identity)
    }

    /// A new one.
    pub(crate) fn drawn(shards: u16, cores: u16, limits: &Limits) -> Self {
        Self {
            format: FORMAT,
            node: entropy::nonzero_u64(),
            shards,
            cores,
            segment_bytes: limits.segment_bytes,
            sessions_per_shard: limits.sessions_per_shard,
            markets_per_shard: limits.markets_per_shard,
            reflexes_per_shard: limits.reflexes_per_shard,
            born: false,
            check: 0,
        }
    }

    /// Puts it in the place of what is there, whole or not at all.
    fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join("node");
        let temporary = path.with_extension("new");
        let sealed = Self { check: self.checksum(), ..self.clone() };
        let write = || -> io::Result<()> {
            fs::write(&temporary, serde_json::to_vec_pretty(&sealed)?)?;
            File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(io_error(&path))
    }

    /// CRC-32 of the other fields' JSON, in their order.
    fn checksum(&self) -> u32 {
        let fields = Self { check: 0, ..self.clone() };
        serde_json::to_vec(&fields).map_or(0, |bytes| crc32fast::hash(&bytes))
    }

    /// The bounds that go with this directory, the rest as they are.
    #[must_use]
    pub fn limits(&self, limits: &Limits) -> Limits {
        Limits {
            sessions_per_shard: self.sessions_per_shard,
            markets_per_shard: self.markets_per_shard,
            reflexes_per_shard: self.reflexes_per_shard,
            ..limits.clone().with_segment_bytes(self.segment_bytes)
        }
    }

    /// What was said of limits that stand otherwise here, each with what holds.
    pub fn keeps(&self, said: &[(&'static str, u64, String)]) -> Vec<String> {
        let here = self.limits(&Limits::default());
        let (keys, values) = (Limits::about(), here.values());
        let held = |key: &str| keys.iter().zip(&values).find(|(about, _)| about.key == key).map(|(_, value)| *value);
        let differ = said.iter().filter_map(|(key, asked, place)| {
            let held = held(key).filter(|held| held != asked)?;
            Some(format!("{place}: `{key}` = {asked} changes nothing: the data directory was made with {held}"))
        });
        differ.collect()
    }

    /// How the log of a core is written under these bounds.
    #[must_use]
    pub fn wal_config(&self, core: u16, limits: &Limits) -> myelin_wal::Config {
        myelin_wal::Config {
            core: u32::from(core),
            log_id: self.node,
            segment_bytes: limits.segment_bytes,
            max_payload: limits.max_payload(),
            batch_bytes: limits.batch_bytes,
            buffers: limits.batch_buffers,
            max_segments: limits.max_segments,
        }
    }

    /// The core that runs a shard.
    #[must_use]
    pub fn core_of(&self, shard: u16) -> u16 {
        shard % self.cores
    }

    /// The shards of a core.
    pub fn shards_of(&self, core: u16) -> impl Iterator<Item = u16> + use<> {
        let cores = self.cores;
        (0..self.shards).filter(move |shard| shard % cores == core)
    }

    /// The slots that are placed on a shard.
    #[must_use]
    pub fn slots_of(&self, shard: u16) -> Range<u16> {
        let bound = |shard: u16| (u32::from(shard) * u32::from(SLOTS) / u32::from(self.shards)) as u16;
        bound(shard)..bound(shard + 1)
    }

    /// Slots in equal ranges, in the order of the shards.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotRange> {
        (0..self.shards).map(|shard| SlotRange { first: self.slots_of(shard).start, shard }).collect()
    }
}

/// True when a core left its folder in this directory, so that it is no new one.
///
/// **Errors:** the folder cannot be listed.
pub fn has_cores(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("core-"));
        if number.is_some_and(|number| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A core's folder.
#[must_use]
pub fn core_dir(data_dir: &Path, core: u16) -> PathBuf {
    data_dir.join(format!("core-{core:04}"))
}

/// Takes a folder for this process alone. **Errors:** another one has it, or the operating system's.
pub fn hold_folder(path: &Path) -> Result<Directory, IdentityError> {
    Directory::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => IdentityError::Held { path: path.to_owned() },
        _ => io_error(path)(error),
    })
}

/// Names the file or folder of an operating system's refusal.
pub fn io_error(path: &Path) -> impl FnOnce(io::Error) -> IdentityError + '_ {
    move |source| IdentityError::Io { path: path.to_owned(), source }
}

/// Makes a folder, and its name outlives a loss of power: else everything that was synced inside goes with the name.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = !path.is_dir();
    if missing {
        if !parent.is_dir() {
            make_folder(parent)?;
        }
        fs::create_dir_all(path)?;
    }
    // Also when it is there: who made it may have died before this. A parent that is not ours may refuse us then.
    let synced = File::open(parent).and_then(|folder| folder.sync_all());
    if missing { synced } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_mutants::{Depth, campaign, mutant};

    fn identity(shards: u16, cores: u16) -> Identity {
        let limits = Limits::default();
        let mut identity = Identity { born: true, ..Identity::drawn(shards, cores, &limits) };
        identity.check = identity.checksum();
        identity
    }

    /// Seen red: the campaign's trials were slow, for 65,535 shards under a right checksum were those of a node.
    #[test]
    fn shards_and_cores_that_no_directory_is_made_with_are_refused() {
        for (shards, cores, read) in
            [(1, 1, true), (64, 64, true), (65, 1, false), (u16::MAX, 1, false), (0, 0, false), (2, 3, false)]
        {
            let bytes = serde_json::to_vec(&identity(shards, cores)).unwrap();
            let found = Identity::decode(&bytes, PathBuf::from("node"));
            assert_eq!(found.is_ok(), read, "{shards} shards on {cores} cores: {found:?}");
        }
    }

    #[test]
    fn campaign_no_bytes_break_the_reader_of_identities() {
        let limits = Limits::default();
        let sound = identity(5, 2);
        let corpus = [serde_json::to_vec_pretty(&sound).unwrap()];
        campaign("identities", 10_000, 1, |dice| {
            let mut bytes = mutant(dice, &corpus);
            // Other numbers under a checksum that fits.
            let mut other = serde_json::from_slice::<Identity>(&bytes).unwrap_or_else(|_| sound.clone());
            let sealed = dice.one_in(2);
            if sealed {
                match dice.below(5) {
                    0 => other.cores = dice.number() as u16,
                    1 => other.shards = dice.number() as u16,
                    2 => other.segment_bytes = dice.number(),
                    3 => other.sessions_per_shard = dice.number() as usize,
                    _ => other.format = dice.below(3) as u32,
                }
                other.check = other.checksum();
                bytes = serde_json::to_vec(&other).unwrap();
            }
            match Identity::decode(&bytes, PathBuf::from("node")) {
                Ok(identity) => {
                    // What a start makes of it before anything is opened.
                    let limits = identity.limits(&limits);
                    let _refused_by_name = identity.wal_config(0, &limits).check();
                    let owned: usize = (0..identity.shards).map(|shard| identity.slots_of(shard).len()).sum();
                    assert_eq!(owned, usize::from(SLOTS));
                    assert_eq!(identity.slots().len(), usize::from(identity.shards));
                    assert!((0..identity.shards).all(|shard| identity.core_of(shard) < identity.cores));
                    Depth::Taken
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    if sealed { Depth::Inside } else { Depth::Outside }
                }
            }
        });
    }
}
