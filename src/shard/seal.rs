//! The seal thread of a core: frozen rows become runs, a manifest names them, and the log's head is free.
//!
//! ```text
//!   core --SealJob--> write runs, open them -> store manifest -> sweep --Sealed--> core installs the runs, releases the log
//! ```
//!
//! When the core has been calm for a while, or holds many runs, it gives a job without rows: runs side by side become one
//! (`merge.rs`), or one loses the rows that were pruned. A job with rows that comes meanwhile is done in between, so
//! sealing waits for a slice of a merge and never for a merge. Files that no manifest names any more go when a manifest is
//! stored; if nothing else wants one, a job without rows stores it.
//!
//! The order is the promise: a manifest is stored only after every run it names is durable, the log is released only after
//! the manifest is durable; a run loses only rows that are below the floors of the state that goes with it. What fails
//! changes nothing: the job can be given again.

use super::checkpoint::{Sealing, ShardFloors};
use super::manifest::{Manifest, RunName, ShardFiles, runs_dir};
use super::merge::{Candidate, candidate};
use super::registrations;
use crate::runtime::ring::{Producer, ThreadConsumer};
use myelin_datom::{Kind, Quote, Tick};
use myelin_index::{FactRun, IndexError, Run, RunMeta, Sink};
use myelin_wal::Lsn;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Frozen shards, and the place in the log they stand for.
pub struct SealJob {
    /// Everything below is in the frozen rows, the states, or older runs.
    pub lsn: Lsn,
    /// One per shard of the core; none = merge what can be merged.
    pub sealings: Vec<Sealing>,
    /// What the core is done with, to be let go here.
    pub old: Vec<Old>,
}

/// What takes long to let go: rows by the thousand, maps of files.
pub enum Old {
    /// What is left of frozen rows whose runs were installed.
    Sealed(Vec<Sealing>),
    /// Runs in whose place others are.
    Merged(Merged),
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
        /// Theirs, without a datom where none is left.
        new: Arc<FactRun>,
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
    /// There may be more of that to do.
    pub again: bool,
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

/// The runs of one shard that are open, by kind, oldest first.
#[derive(Clone, Default)]
pub struct OpenRuns {
    /// Of ticks.
    pub ticks: Vec<Arc<Run>>,
    /// Of quotes.
    pub quotes: Vec<Arc<Run>>,
    /// Of facts.
    pub facts: Vec<Arc<FactRun>>,
    /// The file of the registered reflexes.
    pub reflexes: Option<RunName>,
    /// Those of the state that goes with them: what lies below is not needed.
    pub floors: ShardFloors,
}

impl OpenRuns {
    fn of(&mut self, kind: Kind) -> &mut Vec<Arc<Run>> {
        if kind == Kind::Quote { &mut self.quotes } else { &mut self.ticks }
    }

    fn count(&self) -> usize {
        self.ticks.len() + self.quotes.len()
    }

    fn drop_dead(&mut self) {
        self.ticks.retain(|run| run.live_rows(&self.floors.ticks) > 0);
        self.quotes.retain(|run| run.live_rows(&self.floors.quotes) > 0);
    }

    fn files(&self, shard: u16, state: Vec<u8>) -> ShardFiles {
        let names = |runs: &[Arc<Run>]| runs.iter().map(|run| RunName::of(run.meta())).collect();
        let facts = self.facts.iter().map(|run| RunName::of(run.meta())).collect();
        let reflexes = self.reflexes.clone();
        ShardFiles { shard, ticks: names(&self.ticks), quotes: names(&self.quotes), facts, reflexes, state }
    }
}

/// What the thread remembers between two jobs.
pub struct Sealer {
    dir: PathBuf,
    core: u32,
    /// The manifest that counts.
    last: Option<Manifest>,
    /// What it names.
    open: BTreeMap<u16, OpenRuns>,
    /// There are files that only the manifest before names.
    stale: bool,
    /// The file that is being written, and that no manifest names yet.
    writing: Option<String>,
}

/// Who gave the jobs is gone.
struct Gone;

impl Sealer {
    /// Goes on from the manifest that counts and the runs it names.
    #[must_use]
    pub const fn new(dir: PathBuf, core: u32, last: Option<Manifest>, open: BTreeMap<u16, OpenRuns>) -> Self {
        Self { dir, core, last, open, stale: false, writing: None }
    }

    /// The thread's whole life.
    pub fn run(mut self, mut jobs: ThreadConsumer<SealJob>, mut done: Producer<Sealed>) {
        self.stale = self.has_strangers();
        while let Some(mut job) = jobs.pop() {
            job.old.clear();
            let performed = if job.sealings.is_empty() {
                let result = self.merge(&mut jobs, &mut done);
                done.push(Sealed { job, result }).map_err(|_| Gone)
            } else {
                self.perform(job, &mut done)
            };
            if performed.is_err() {
                return;
            }
        }
    }

    /// True when files are there that the manifest does not name: they were to go when the process ended. Not knowing counts
    /// as no; the next checkpoint removes them either way.
    fn has_strangers(&self) -> bool {
        let shards = self.last.iter().flat_map(|last| &last.shards);
        let named: BTreeSet<&str> = shards.flat_map(ShardFiles::runs).map(|run| run.name.as_str()).collect();
        let files = std::fs::read_dir(runs_dir(&self.dir)).into_iter().flatten().flatten();
        self.last.is_some() && files.map(|file| file.file_name()).any(|name| !named.contains(&*name.to_string_lossy()))
    }

    fn perform(&mut self, job: SealJob, done: &mut Producer<Sealed>) -> Result<(), Gone> {
        let result = self.seal(&job);
        done.push(Sealed { job, result }).map_err(|_| Gone)
    }

    fn seal(&mut self, job: &SealJob) -> Result<Made, SealError> {
        assert!(!job.sealings.is_empty(), "a checkpoint is that of all shards");
        let number = self.last.as_ref().map_or(1, |last| last.number + 1);
        let runs = runs_dir(&self.dir);
        let mut manifest = Manifest { number, core: self.core, lsn: job.lsn.bits(), shards: Vec::new() };
        let mut made = Made { again: true, ..Made::default() };
        // A copy, so that a manifest that cannot be stored leaves everything as it was.
        let mut open_runs = self.open.clone();
        let mut stale = self.stale;
        for sealing in &job.sealings {
            let open = open_runs.entry(sealing.shard).or_default();
            open.floors.clone_from(&sealing.floors);
            let before = open.count();
            open.drop_dead();
            stale |= open.count() < before;
            let mut new = NewRuns::default();
            if let Some(frozen) = sealing.ticks.as_ref().filter(|frozen| frozen.live_rows() > 0) {
                let path = run_path(&runs, sealing.shard, number, "ticks");
                frozen.write_run(&path, &mut ())?;
                new.ticks = Some(Arc::new(Run::open(&path)?));
            }
            if let Some(frozen) = sealing.quotes.as_ref().filter(|frozen| frozen.live_rows() > 0) {
                let path = run_path(&runs, sealing.shard, number, "quotes");
                frozen.write_run(&path, &mut ())?;
                new.quotes = Some(Arc::new(Run::open(&path)?));
            }
            if let Some(frozen) = &sealing.facts {
                let path = run_path(&runs, sealing.shard, number, "facts");
                frozen.write_run(&sealing.floors.facts, &path, &mut ())?;
                new.facts = Some(Arc::new(FactRun::open(&path)?));
            }
            if let Some(registrations) = &sealing.registrations {
                let path = run_path(&runs, sealing.shard, number, "reflexes");
                stale |= open.reflexes.replace(registrations::write(&path, &registrations.bytes())?).is_some();
            }
            open.ticks.extend(new.ticks.clone());
            open.quotes.extend(new.quotes.clone());
            open.facts.extend(new.facts.clone());
            manifest.shards.push(open.files(sealing.shard, sealing.state.clone()));
            made.runs.push(new);
        }
        self.store(manifest, stale)?;
        self.open = open_runs;
        Ok(made)
    }

    /// Does the next thing that makes runs fewer or smaller, if there is one; else forgets files that only the manifest
    /// before names. The checkpoint stays where it is.
    fn merge(&mut self, jobs: &mut ThreadConsumer<SealJob>, done: &mut Producer<Sealed>) -> Result<Made, SealError> {
        let Some(last) = &self.last else { return Ok(Made::default()) };
        let found = self.open.iter().find_map(|(shard, open)| candidate(*shard, open));
        let Some(found) = found else {
            if self.stale {
                let manifest = Manifest { number: last.number + 1, ..last.clone() };
                self.store(manifest, false)?;
            }
            return Ok(Made::default());
        };
        let path = run_path(&runs_dir(&self.dir), found.shard(), last.number + 1, found.file_kind());
        self.writing = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut between = Between { sealer: self, jobs, done };
        let written = write(&found, &path, &mut between);
        let made = written.map_err(SealError::from).and_then(|new| self.put_in_place(found, new));
        self.writing = None;
        made
    }

    /// What was merged takes the place of what it was made of. Meanwhile rows may have been sealed, and runs pruned.
    fn put_in_place(&mut self, of: Candidate, new: New) -> Result<Made, SealError> {
        let Some(last) = &self.last else { return Ok(Made::default()) };
        let shard = of.shard();
        let mut open = self.open.get(&shard).cloned().unwrap_or_default();
        let merged = match (of, new) {
            (Candidate::Facts { old, .. }, New::Facts(new)) => {
                replace(&mut open.facts, &old, Some(&new));
                Merged::Facts { shard, old, new }
            }
            (Candidate::Rows { kind, old, .. }, New::Rows(new)) => {
                replace(open.of(kind), &old, new.as_ref());
                open.drop_dead();
                let new = new.filter(|new| open.of(kind).iter().any(|run| Arc::ptr_eq(run, new)));
                Merged::Rows { shard, kind, old, new }
            }
            _ => unreachable!("rows become rows, and facts become facts"),
        };
        let mut manifest = Manifest { number: last.number + 1, ..last.clone() };
        for files in manifest.shards.iter_mut().filter(|files| files.shard == shard) {
            *files = open.files(shard, std::mem::take(&mut files.state));
        }
        self.store(manifest, true)?;
        self.open.insert(shard, open);
        Ok(Made { merged: vec![merged], again: true, ..Made::default() })
    }

    /// Stores a manifest and removes what it and the one before do not name. `stale` says whether the one before names
    /// files that this one does not.
    fn store(&mut self, manifest: Manifest, stale: bool) -> Result<(), SealError> {
        manifest.store(&self.dir)?;
        // The checkpoint stands. What could not be removed is in nobody's way but the disk's, and the next sweep finds it.
        if let Err(error) = manifest.sweep(&self.dir, self.last.as_ref(), self.writing.as_deref()) {
            tracing::warn!(%error, "files that no checkpoint names could not be removed");
        }
        self.last = Some(manifest);
        self.stale = stale;
        Ok(())
    }
}

/// Between two slices of a merge whoever waits for the thread has his turn.
struct Between<'a> {
    sealer: &'a mut Sealer,
    jobs: &'a mut ThreadConsumer<SealJob>,
    done: &'a mut Producer<Sealed>,
}

impl Sink for Between<'_> {
    fn before_slice(&mut self, _bytes: usize) {
        while let Some(mut job) = self.jobs.try_pop() {
            job.old.clear();
            // Who gave it is gone: the thread ends when the merge does.
            let Ok(()) = self.sealer.perform(job, self.done) else { return };
        }
    }
}

/// What a merge wrote.
enum New {
    Rows(Option<Arc<Run>>),
    Facts(Arc<FactRun>),
}

fn write(of: &Candidate, path: &Path, sink: &mut dyn Sink) -> Result<New, IndexError> {
    let open = |meta: Option<RunMeta>| meta.is_some().then(|| Run::open(path)).transpose();
    Ok(match of {
        Candidate::Facts { old, floors, oldest, .. } => {
            myelin_index::merge_facts(old, floors, *oldest, path, sink)?;
            New::Facts(Arc::new(FactRun::open(path)?))
        }
        Candidate::Rows { kind: Kind::Quote, old, floors, .. } => {
            New::Rows(open(myelin_index::merge::<Quote>(old, floors, path, sink)?)?.map(Arc::new))
        }
        Candidate::Rows { old, floors, .. } => {
            New::Rows(open(myelin_index::merge::<Tick>(old, floors, path, sink)?)?.map(Arc::new))
        }
    })
}

/// Puts the new one in the place of those of the old ones that are still there; none are there where all were pruned.
fn replace<T>(runs: &mut Vec<Arc<T>>, old: &[Arc<T>], new: Option<&Arc<T>>) {
    let is_old = |run: &Arc<T>| old.iter().any(|old| Arc::ptr_eq(old, run));
    let at = runs.iter().position(is_old);
    runs.retain(|run| !is_old(run));
    if let (Some(at), Some(new)) = (at, new) {
        runs.insert(at, Arc::clone(new));
    }
}

fn run_path(runs: &Path, shard: u16, number: u64, kind: &str) -> PathBuf {
    runs.join(format!("{shard:04x}-{number:016x}.{kind}"))
}
