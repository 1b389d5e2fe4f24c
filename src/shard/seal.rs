//! The seal thread of a core: frozen rows become runs, a manifest names them, and the log's head is free.
//!
//! ```text
//!   core --SealJob--> write runs, open them -> store manifest -> sweep --Sealed--> core installs the runs, releases the log
//! ```
//!
//! When the core has been calm for a while it gives a job without rows: eight small runs side by side become one, so that
//! the number of runs follows the size of the data and not its age. A run is merged once at most; a larger merge would
//! keep the thread from sealing for too long.
//!
//! The order is the promise: a manifest is stored only after every run it names is durable, the log is released only after
//! the manifest is durable. What fails changes nothing: the job can be given again.

use super::checkpoint::Sealing;
use super::manifest::{Manifest, RunName, ShardFiles, runs_dir};
use crate::runtime::ring::{Producer, ThreadConsumer};
use myelin_datom::{Kind, Quote, Tick};
use myelin_index::{ColumnRow, FactRun, Floors, IndexError, Run, RunMeta};
use myelin_wal::Lsn;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Frozen shards, and the place in the log they stand for.
pub struct SealJob {
    /// Everything below is in the frozen rows, the states, or older runs.
    pub lsn: Lsn,
    /// One per shard of the core; none = merge what can be merged.
    pub sealings: Vec<Sealing>,
}

/// Runs that became one.
pub enum Merged {
    /// Of ticks or quotes.
    Rows {
        /// The shard.
        shard: u16,
        /// Ticks or quotes.
        kind: Kind,
        /// Side by side, oldest first.
        old: Vec<Arc<Run>>,
        /// Theirs.
        new: Option<Arc<Run>>,
    },
    /// Of facts.
    Facts {
        /// The shard.
        shard: u16,
        /// Side by side, oldest first.
        old: Vec<Arc<FactRun>>,
        /// Theirs.
        new: Option<Arc<FactRun>>,
    },
}

impl Merged {
    /// Whose runs they are.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        match self {
            Self::Rows { shard, .. } | Self::Facts { shard, .. } => *shard,
        }
    }
}

/// What a job made.
#[derive(Default)]
pub struct Made {
    /// One per shard, in the job's order.
    pub runs: Vec<NewRuns>,
    /// What was merged.
    pub merged: Vec<Merged>,
}

/// The runs of one shard.
#[derive(Default)]
pub struct NewRuns {
    /// Of ticks.
    pub ticks: Option<Arc<Run>>,
    /// Of quotes.
    pub quotes: Option<Arc<Run>>,
    /// Of facts.
    pub facts: Option<Arc<FactRun>>,
}

/// What became of a job.
pub struct Sealed {
    /// The job, so that it can be given again.
    pub job: SealJob,
    /// What it made, all of it durable.
    pub result: Result<Made, SealError>,
}

/// Why sealing failed. The rows stay in memory and in the log.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A run could not be written.
    #[error("a run could not be written")]
    Index(#[from] IndexError),
    /// The manifest could not be written.
    #[error("the manifest could not be written")]
    Io(#[from] io::Error),
}

/// Runs that are merged at once.
const MERGED_AT_ONCE: usize = 8;
/// Rows that are merged at once: a third of a second, so that sealing is not kept waiting. What a busy core seals is larger
/// and stays as it is.
const MERGED_ROWS_MAX: u64 = 2_000_000;

/// The runs of one shard that are open, by kind, oldest first.
#[derive(Clone, Default)]
pub struct OpenRuns {
    /// Of ticks.
    pub ticks: Vec<Arc<Run>>,
    /// Of quotes.
    pub quotes: Vec<Arc<Run>>,
    /// Of facts.
    pub facts: Vec<Arc<FactRun>>,
}

/// What the thread remembers between two jobs.
pub struct Sealer {
    /// The core's folder.
    pub dir: PathBuf,
    /// The core.
    pub core: u32,
    /// The manifest that counts.
    pub last: Option<Manifest>,
    /// What it names.
    pub open: BTreeMap<u16, OpenRuns>,
    /// Rows at which a core seals: a run of less than eight times as many is small.
    pub seal_rows: u64,
}

impl Sealer {
    /// The thread's whole life.
    pub fn run(mut self, mut jobs: ThreadConsumer<SealJob>, mut done: Producer<Sealed>) {
        while let Some(job) = jobs.pop() {
            let result = if job.sealings.is_empty() { self.merge() } else { self.seal(&job) };
            if done.push(Sealed { job, result }).is_err() {
                return;
            }
        }
    }

    /// Merges the first small runs that stand side by side, of each shard and kind. The checkpoint stays where it is.
    fn merge(&mut self) -> Result<Made, SealError> {
        let Some(last) = &self.last else { return Ok(Made::default()) };
        let number = last.number + 1;
        let mut manifest = Manifest { number, ..last.clone() };
        let mut made = Made::default();
        // A copy, so that a manifest that cannot be stored leaves everything as it was.
        let mut open_runs = self.open.clone();
        for files in &mut manifest.shards {
            let Some(open) = open_runs.get_mut(&files.shard) else { continue };
            let folder =
                Merging { runs: runs_dir(&self.dir), shard: files.shard, number, small_rows: 8 * self.seal_rows };
            made.merged.extend(folder.merge::<Tick>(&mut open.ticks, &mut files.ticks)?);
            made.merged.extend(folder.merge::<Quote>(&mut open.quotes, &mut files.quotes)?);
            made.merged.extend(folder.merge_facts(&mut open.facts, &mut files.facts)?);
        }
        if !made.merged.is_empty() {
            self.store(manifest)?;
            self.open = open_runs;
        }
        Ok(made)
    }

    fn store(&mut self, manifest: Manifest) -> Result<(), SealError> {
        manifest.store(&self.dir)?;
        manifest.sweep(&self.dir, self.last.as_ref())?;
        self.last = Some(manifest);
        Ok(())
    }

    fn seal(&mut self, job: &SealJob) -> Result<Made, SealError> {
        let number = self.last.as_ref().map_or(1, |last| last.number + 1);
        let runs = runs_dir(&self.dir);
        let mut manifest = Manifest { number, core: self.core, lsn: job.lsn.bits(), shards: Vec::new() };
        let mut new = Vec::new();
        for sealing in &job.sealings {
            let mut files = self.files_before(sealing.shard);
            let mut made = NewRuns::default();
            if let Some(frozen) = &sealing.ticks {
                let path = run_path(&runs, sealing.shard, number, "ticks");
                frozen.write_run(&path, &mut ())?;
                made.ticks = Some(open(&path, &mut files.ticks)?);
            }
            if let Some(frozen) = &sealing.quotes {
                let path = run_path(&runs, sealing.shard, number, "quotes");
                frozen.write_run(&path, &mut ())?;
                made.quotes = Some(open(&path, &mut files.quotes)?);
            }
            if let Some(frozen) = &sealing.facts {
                let path = run_path(&runs, sealing.shard, number, "facts");
                frozen.write_run(&path, &mut ())?;
                made.facts = Some(open_facts(&path, &mut files.facts)?);
            }
            files.state.clone_from(&sealing.state);
            manifest.shards.push(files);
            new.push(made);
        }
        self.store(manifest)?;
        for (sealing, runs) in job.sealings.iter().zip(&new) {
            let open = self.open.entry(sealing.shard).or_default();
            open.ticks.extend(runs.ticks.clone());
            open.quotes.extend(runs.quotes.clone());
            open.facts.extend(runs.facts.clone());
        }
        Ok(Made { runs: new, merged: Vec::new() })
    }

    fn files_before(&self, shard: u16) -> ShardFiles {
        let last = self.last.as_ref().and_then(|last| last.shards.iter().find(|files| files.shard == shard));
        last.map_or(ShardFiles { shard, ..ShardFiles::default() }, |files| ShardFiles {
            state: Vec::new(),
            ..files.clone()
        })
    }
}

/// Where merged runs go.
struct Merging {
    runs: PathBuf,
    shard: u16,
    number: u64,
    small_rows: u64,
}

impl Merging {
    /// Eight small runs side by side become one, in the list of open runs and in the manifest's.
    fn merge<R: ColumnRow>(
        &self,
        open: &mut Vec<Arc<Run>>,
        names: &mut Vec<RunName>,
    ) -> Result<Option<Merged>, IndexError> {
        let Some(at) = self.small_ones(open.iter().map(|run| run.meta()), names) else { return Ok(None) };
        let kind = if R::KIND == Kind::Tick { "merged.ticks" } else { "merged.quotes" };
        let path = run_path(&self.runs, self.shard, self.number, kind);
        let old = open[at..at + MERGED_AT_ONCE].to_vec();
        let meta = myelin_index::merge::<R>(&old, &Floors::default(), &path, &mut ())?;
        let new = meta.is_some().then(|| Run::open(&path)).transpose()?.map(Arc::new);
        names.splice(at..at + MERGED_AT_ONCE, new.iter().map(|run| RunName::of(run.meta())));
        open.splice(at..at + MERGED_AT_ONCE, new.clone());
        Ok(Some(Merged::Rows { shard: self.shard, kind: R::KIND, old, new }))
    }

    /// The same for facts.
    fn merge_facts(
        &self,
        open: &mut Vec<Arc<FactRun>>,
        names: &mut Vec<RunName>,
    ) -> Result<Option<Merged>, IndexError> {
        let Some(at) = self.small_ones(open.iter().map(|run| run.meta()), names) else { return Ok(None) };
        let path = run_path(&self.runs, self.shard, self.number, "merged.facts");
        let old = open[at..at + MERGED_AT_ONCE].to_vec();
        let meta = myelin_index::merge_facts(&old, &path, &mut ())?;
        let new = meta.is_some().then(|| FactRun::open(&path)).transpose()?.map(Arc::new);
        names.splice(at..at + MERGED_AT_ONCE, new.iter().map(|run| RunName::of(run.meta())));
        open.splice(at..at + MERGED_AT_ONCE, new.clone());
        Ok(Some(Merged::Facts { shard: self.shard, old, new }))
    }

    /// Where eight small runs stand side by side.
    fn small_ones<'a>(&self, open: impl Iterator<Item = &'a RunMeta>, names: &[RunName]) -> Option<usize> {
        let rows: Vec<u64> = open.map(|meta| meta.rows).collect();
        assert!(rows.len() == names.len(), "the manifest names what is open");
        let fits = |rows: &[u64]| {
            rows.iter().all(|rows| *rows < self.small_rows) && rows.iter().sum::<u64>() <= MERGED_ROWS_MAX
        };
        rows.windows(MERGED_AT_ONCE).position(fits)
    }
}

fn run_path(runs: &Path, shard: u16, number: u64, kind: &str) -> PathBuf {
    runs.join(format!("{shard:04x}-{number:016x}.{kind}"))
}

fn open(path: &Path, names: &mut Vec<RunName>) -> Result<Arc<Run>, IndexError> {
    let run = Run::open(path)?;
    names.push(RunName::of(run.meta()));
    Ok(Arc::new(run))
}

fn open_facts(path: &Path, names: &mut Vec<RunName>) -> Result<Arc<FactRun>, IndexError> {
    let run = FactRun::open(path)?;
    names.push(RunName::of(run.meta()));
    Ok(Arc::new(run))
}
