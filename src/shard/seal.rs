//! The seal thread of a core: frozen rows become runs, a manifest names them, and the log's head is free.
//!
//! ```text
//!   core --SealJob--> write runs, open them -> store manifest -> sweep --Sealed--> core installs the runs, releases the log
//! ```
//!
//! The order is the promise: a manifest is stored only after every run it names is durable, the log is released only after
//! the manifest is durable. What fails changes nothing: the job can be given again.

use super::checkpoint::Sealing;
use super::manifest::{Manifest, RunName, ShardFiles, runs_dir};
use crate::runtime::ring::{Producer, ThreadConsumer};
use myelin_index::{IndexError, Run};
use myelin_wal::Lsn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Frozen shards, and the place in the log they stand for.
pub struct SealJob {
    /// Everything below is in the frozen rows, the states, or older runs.
    pub lsn: Lsn,
    /// One per shard of the core.
    pub sealings: Vec<Sealing>,
}

/// The runs of one shard.
#[derive(Default)]
pub struct NewRuns {
    /// Of ticks.
    pub ticks: Option<Arc<Run>>,
    /// Of quotes.
    pub quotes: Option<Arc<Run>>,
}

/// What became of a job.
pub struct Sealed {
    /// The job, so that it can be given again.
    pub job: SealJob,
    /// One per shard, in the job's order.
    pub result: Result<Vec<NewRuns>, SealError>,
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

/// What the thread remembers between two jobs.
#[derive(Debug)]
pub struct Sealer {
    dir: PathBuf,
    core: u32,
    last: Option<Manifest>,
}

impl Sealer {
    /// Goes on behind the manifest the core started from.
    #[must_use]
    pub const fn new(dir: PathBuf, core: u32, last: Option<Manifest>) -> Self {
        Self { dir, core, last }
    }

    /// The thread's whole life.
    pub fn run(mut self, mut jobs: ThreadConsumer<SealJob>, mut done: Producer<Sealed>) {
        while let Some(job) = jobs.pop(false) {
            let result = self.seal(&job);
            if done.push(Sealed { job, result }).is_err() {
                return;
            }
        }
    }

    fn seal(&mut self, job: &SealJob) -> Result<Vec<NewRuns>, SealError> {
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
            files.state.clone_from(&sealing.state);
            manifest.shards.push(files);
            new.push(made);
        }
        manifest.store(&self.dir)?;
        manifest.sweep(&self.dir, self.last.as_ref())?;
        self.last = Some(manifest);
        Ok(new)
    }

    fn files_before(&self, shard: u16) -> ShardFiles {
        let last = self.last.as_ref().and_then(|last| last.shards.iter().find(|files| files.shard == shard));
        last.map_or(ShardFiles { shard, ..ShardFiles::default() }, |files| ShardFiles {
            state: Vec::new(),
            ..files.clone()
        })
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
