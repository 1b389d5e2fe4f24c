//! The manifest: which files a checkpoint is made of, and where the log goes on behind it.
//!
//! ```text
//!   manifest-<16 hex digits>
//!     0 magic "MyelnChk" | 8 version:4 | 12 core:4 | 16 lsn:8 | 24 shards:4 | 28 zero:4
//!     per shard   shard:2 | reflexes:2 | facts:4 | ticks:4 | quotes:4 | state bytes:8
//!                 per run  hash:16 | name bytes:2 | name             (ticks oldest first, then quotes, facts, reflexes)
//!                 state
//!     last 4      CRC-32 of everything before
//! ```
//!
//! Files of registered reflexes: one or none.
//!
//! A manifest is written whole under another name, synced, renamed, and the directory synced: it exists or it does not. The
//! two newest are kept, so that a damaged newest one costs a longer replay and nothing else. Files no manifest names go.

use super::checkpoint::Restoring;
use super::registrations;
use myelin_datom::{Quote, Tick};
use myelin_index::{Columns, FactRun, Facts, Run, RunMeta};
use myelin_wal::Lsn;
use myelin_wire::{Cursor, Short};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"MyelnChk";
const VERSION: u32 = 3;
const PREFIX: &str = "manifest-";

/// A run as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The file's name in the core's `runs` folder.
    pub name: String,
    /// Its content hash.
    pub hash: u128,
}

impl RunName {
    /// The name of a run that was written.
    #[must_use]
    pub fn of(meta: &RunMeta) -> Self {
        let name = meta.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, hash: meta.hash }
    }
}

/// One shard in a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardFiles {
    /// The shard.
    pub shard: u16,
    /// Its runs of ticks, oldest first.
    pub ticks: Vec<RunName>,
    /// Its runs of quotes, oldest first.
    pub quotes: Vec<RunName>,
    /// Its runs of facts, oldest first.
    pub facts: Vec<RunName>,
    /// Its registered reflexes; none when there never were any.
    pub reflexes: Option<RunName>,
    /// Its state.
    pub state: Vec<u8>,
}

impl ShardFiles {
    /// All of them: ticks, quotes, facts, each oldest first, and the registered reflexes.
    pub fn runs(&self) -> impl Iterator<Item = &RunName> {
        self.ticks.iter().chain(&self.quotes).chain(&self.facts).chain(&self.reflexes)
    }
}

/// A checkpoint of one core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its number; the greatest valid one counts.
    pub number: u64,
    /// Whose it is.
    pub core: u32,
    /// Where the log goes on.
    pub lsn: u64,
    /// What it is made of.
    pub shards: Vec<ShardFiles>,
}

/// Why there is no checkpoint to start from although there was one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Every manifest there is is damaged.
    #[error("{file}: {what} at byte {at}; no other manifest is whole")]
    Corrupt {
        /// The newest of them.
        file: String,
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// The operating system.
    #[error("{file} cannot be used")]
    Io {
        /// The file.
        file: String,
        /// What it said.
        source: io::Error,
    },
    /// A run that a manifest names is missing or damaged.
    #[error("a run of the checkpoint cannot be used")]
    Run(#[from] myelin_index::IndexError),
    /// A run is whole but not the one the manifest means.
    #[error("{file}: the content hash is {found:032x}, the manifest says {expected:032x}")]
    WrongRun {
        /// The file.
        file: String,
        /// What the manifest says.
        expected: u128,
        /// What it is.
        found: u128,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ManifestError + '_ {
    move |source| ManifestError::Io { file: path.display().to_string(), source }
}

impl Manifest {
    /// The manifest's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.core.to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for files in &self.shards {
            out.extend_from_slice(&files.shard.to_le_bytes());
            out.extend_from_slice(&u16::from(files.reflexes.is_some()).to_le_bytes());
            out.extend_from_slice(&(files.facts.len() as u32).to_le_bytes());
            out.extend_from_slice(&(files.ticks.len() as u32).to_le_bytes());
            out.extend_from_slice(&(files.quotes.len() as u32).to_le_bytes());
            out.extend_from_slice(&(files.state.len() as u64).to_le_bytes());
            for run in files.runs() {
                out.extend_from_slice(&run.hash.to_le_bytes());
                out.extend_from_slice(&(run.name.len() as u16).to_le_bytes());
                out.extend_from_slice(run.name.as_bytes());
            }
            out.extend_from_slice(&files.state);
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads a manifest's bytes. Never panics.
    pub(crate) fn decode(number: u64, bytes: &[u8]) -> Result<Self, (&'static str, usize)> {
        let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return Err(("it is too short", bytes.len())) };
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err(("the checksum does not fit", content.len()));
        }
        let short = |Short { at }| ("it is cut short", at);
        let mut cursor = Cursor::new(content);
        if cursor.take(8).map_err(short)? != MAGIC {
            return Err(("it is no manifest", 0));
        }
        if cursor.u32().map_err(short)? != VERSION {
            return Err(("its version is not read here", 8));
        }
        let mut manifest = Self { number, core: cursor.u32().map_err(short)?, ..Self::default() };
        manifest.lsn = cursor.u64().map_err(short)?;
        let shards = cursor.u32().map_err(short)?;
        cursor.take(4).map_err(short)?;
        for _ in 0..shards {
            let mut files = ShardFiles { shard: cursor.u16().map_err(short)?, ..ShardFiles::default() };
            let reflexes = cursor.u16().map_err(short)?;
            if reflexes > 1 {
                return Err(("more than one file of reflexes", content.len() - cursor.rest().len()));
            }
            let facts = cursor.u32().map_err(short)?;
            let (ticks, quotes) = (cursor.u32().map_err(short)?, cursor.u32().map_err(short)?);
            let state = cursor.u64().map_err(short)?;
            let (behind_ticks, behind_quotes) = (u64::from(ticks), u64::from(ticks) + u64::from(quotes));
            let behind_facts = behind_quotes + u64::from(facts);
            for n in 0..behind_facts + u64::from(reflexes) {
                let hash = cursor.take(16).map_err(short)?.try_into().map(u128::from_le_bytes).unwrap_or_default();
                let name = cursor.text().map_err(short)?.to_owned();
                if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
                    return Err(("a run's name is a path", content.len() - cursor.rest().len()));
                }
                let run = RunName { name, hash };
                match n {
                    n if n < behind_ticks => files.ticks.push(run),
                    n if n < behind_quotes => files.quotes.push(run),
                    n if n < behind_facts => files.facts.push(run),
                    _ => files.reflexes = Some(run),
                }
            }
            files.state = cursor.take(state as usize).map_err(short)?.to_vec();
            manifest.shards.push(files);
        }
        cursor.end().map_err(short)?;
        Ok(manifest)
    }

    /// Writes the manifest into the core's folder; durable when this returns. Older ones but the one before, and runs that
    /// neither names, are removed.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        let (temporary, path) = (dir.join("manifest.new"), dir.join(format!("{PREFIX}{:016x}", self.number)));
        let mut file = File::create(&temporary)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    }

    /// Where the log goes on.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        Lsn::from_bits(self.lsn)
    }

    /// The newest whole manifest of a core's folder; `None` when there never was one.
    pub fn newest(dir: &Path) -> Result<Option<Self>, ManifestError> {
        let mut first_bad = None;
        for (number, path) in numbered(dir).map_err(io_error(dir))?.into_iter().rev() {
            let file = || path.display().to_string();
            let read = fs::read(&path).map_err(io_error(&path)).and_then(|bytes| {
                Self::decode(number, &bytes).map_err(|(what, at)| ManifestError::Corrupt { file: file(), what, at })
            });
            match read {
                Ok(manifest) => return Ok(Some(manifest)),
                // Also one that cannot be read: a bad sector is damage like any other.
                Err(error) => drop(first_bad.get_or_insert(error)),
            }
        }
        first_bad.map_or(Ok(None), Err)
    }

    /// Opens what the manifest names.
    pub fn restore(&self, dir: &Path) -> Result<Vec<(u16, Restoring)>, ManifestError> {
        let meant = |run: &RunName, meta: &RunMeta| {
            let (file, found) = (meta.path.display().to_string(), meta.hash);
            let wrong = ManifestError::WrongRun { file, expected: run.hash, found };
            if found == run.hash { Ok(()) } else { Err(wrong) }
        };
        let open = |run: &RunName| -> Result<Arc<Run>, ManifestError> {
            let opened = Run::open(&runs_dir(dir).join(&run.name))?;
            meant(run, opened.meta())?;
            Ok(Arc::new(opened))
        };
        let open_facts = |run: &RunName| -> Result<Arc<FactRun>, ManifestError> {
            let opened = FactRun::open(&runs_dir(dir).join(&run.name))?;
            meant(run, opened.meta())?;
            Ok(Arc::new(opened))
        };
        let mut restored = Vec::new();
        for files in &self.shards {
            let ticks = files.ticks.iter().map(open).collect::<Result<_, _>>()?;
            let quotes = files.quotes.iter().map(open).collect::<Result<_, _>>()?;
            let facts = files.facts.iter().map(open_facts).collect::<Result<_, _>>()?;
            let read = files.reflexes.as_ref().map(|named| registrations::read(dir, named)).transpose()?;
            let (state, registrations) = (files.state.clone(), read.unwrap_or_default());
            restored.push((files.shard, Restoring { state, registrations, ticks, quotes, facts }));
        }
        Ok(restored)
    }

    /// Removes manifests older than `before` and every run that neither of the two names, but the one that is being written.
    pub fn sweep(&self, dir: &Path, before: Option<&Self>, writing: Option<&str>) -> io::Result<()> {
        let oldest_kept = before.map_or(self.number, |before| before.number);
        for (number, path) in numbered(dir)? {
            if number < oldest_kept {
                fs::remove_file(path)?;
            }
        }
        let kept: BTreeSet<&str> = [Some(self), before]
            .into_iter()
            .flatten()
            .flat_map(|manifest| &manifest.shards)
            .flat_map(ShardFiles::runs)
            .map(|run| run.name.as_str())
            .collect();
        for entry in fs::read_dir(runs_dir(dir))? {
            let (entry, writing) = (entry?, writing.unwrap_or_default());
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_writing = !writing.is_empty() && name.strip_suffix(".partial").unwrap_or(&name) == writing;
            if !kept.contains(name.as_str()) && !is_writing {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl super::Shard {
    /// Ticks and quotes, for who compares two copies of a directory at rest.
    pub(crate) const fn columns(&self) -> (&Columns<Tick>, &Columns<Quote>) {
        (&self.ticks, &self.quotes)
    }

    /// Facts, likewise.
    pub(crate) const fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// Where a core's runs are.
#[must_use]
pub fn runs_dir(core_dir: &Path) -> PathBuf {
    core_dir.join("runs")
}

/// Manifests by number, ascending.
pub(crate) fn numbered(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_string_lossy().strip_prefix(PREFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(number: u64) -> Manifest {
        let run = |name: &str| RunName { name: name.to_owned(), hash: 7 };
        let (ticks, quotes, facts) = (vec![run("a"), run("b")], vec![run("c")], vec![run("d")]);
        let reflexes = Some(run("e"));
        let files = ShardFiles { shard: 3, ticks, quotes, facts, reflexes, state: vec![1, 2, 3] };
        Manifest { number, core: 1, lsn: 4096, shards: vec![files, ShardFiles::default()] }
    }

    #[test]
    fn a_manifest_is_read_back_and_every_flipped_bit_is_noticed() {
        let manifest = manifest(5);
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(5, &bytes), Ok(manifest));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(5, &broken).is_err());
        }
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(5, &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_manifest_of_another_version_is_refused() {
        for version in [0, VERSION - 1, VERSION + 1] {
            let mut bytes = manifest(5).encode();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let content = bytes.len() - 4;
            let crc = crc32fast::hash(&bytes[..content]);
            bytes[content..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Manifest::decode(5, &bytes), Err(("its version is not read here", 8)));
        }
    }

    #[test]
    fn a_damaged_newest_manifest_costs_a_longer_replay_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(runs_dir(dir.path())).unwrap();
        assert_eq!(Manifest::newest(dir.path()).unwrap(), None);
        for number in [1, 2, 3] {
            manifest(number).store(dir.path()).unwrap();
        }
        manifest(3).sweep(dir.path(), Some(&manifest(2)), None).unwrap();
        fs::write(dir.path().join("manifest-0000000000000003"), b"damaged").unwrap();
        assert_eq!(Manifest::newest(dir.path()).unwrap().unwrap().number, 2);
        fs::write(dir.path().join("manifest-0000000000000002"), b"damaged").unwrap();
        assert!(matches!(Manifest::newest(dir.path()), Err(ManifestError::Corrupt { .. })));
    }

    /// Row 20 of the pitfalls: what was applied, and how far, must not be stored apart. Whatever of the newest file arrived, a
    /// start gets the state and the place of one and the same checkpoint.
    #[test]
    fn applied_state_and_applied_index_are_stored_together() {
        let dir = tempfile::tempdir().unwrap();
        let with = |number, lsn, state: u8| {
            let files = ShardFiles { state: vec![state; 300], ..ShardFiles::default() };
            Manifest { number, core: 1, lsn, shards: vec![files] }
        };
        let (before, after) = (with(1, 4096, 1), with(2, 8192, 2));
        before.store(dir.path()).unwrap();
        let (path, bytes) = (dir.path().join("manifest-0000000000000002"), after.encode());
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let expected = if cut == bytes.len() { &after } else { &before };
            assert_eq!(Manifest::newest(dir.path()).unwrap().as_ref(), Some(expected), "cut at {cut}");
        }
        // Parts of it in any order: the head of one and the tail of the other, of equal length.
        let other = before.encode();
        for (head, tail) in [(&bytes, &other), (&other, &bytes)] {
            for cut in 1..bytes.len() {
                fs::write(&path, [&head[..cut], &tail[cut..]].concat()).unwrap();
                let found = Manifest::newest(dir.path()).unwrap().unwrap();
                let is = |one: &Manifest| found.lsn == one.lsn && found.shards == one.shards;
                assert!(is(&before) || is(&after), "mixed at {cut}");
            }
        }
    }
}
