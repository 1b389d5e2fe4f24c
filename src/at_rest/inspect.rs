//! `myelin inspect DIR`: what a directory holds, by core: log, hard state, manifests, runs.
//!
//! It counts what can be read, and goes on to the next part behind damage; whether all of it is sound is `verify.rs`'s.

mod text;

use super::census::{Census, GroupCensus, RecordTold, rounded};
use super::home::Home;
use super::segments::{self, Segment};
use super::still::{Still, append_path};
use super::{Damage, Exit, Fault, Form, Printed, Table, conclude, digits, told};
use crate::shard::manifest::{self, Manifest, runs_dir};
use myelin_index::{FactRun, Run, RunMeta};
use myelin_wal::{HardState, HardStateFile, Start, WalError};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What `inspect` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Prints the last N records of each log.
    #[arg(long, value_name = "N", default_value_t = 0)]
    records: usize,
    /// This core only.
    #[arg(long, value_name = "K")]
    core: Option<u16>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Serialize)]
struct Inspection {
    directory: String,
    format: u32,
    #[serde(serialize_with = "digits")]
    node: u64,
    shards: u16,
    segment_bytes: u64,
    cores: Vec<CoreTold>,
    damage: Vec<Damage>,
}

#[derive(Debug, Default, Serialize)]
struct CoreTold {
    core: u16,
    shards: Vec<u16>,
    append_path: &'static str,
    log: LogTold,
    segments: Vec<Segment>,
    groups: Vec<GroupCensus>,
    hard_state: HardStateTold,
    manifests: Vec<ManifestTold>,
    runs: Vec<RunTold>,
    /// Files that no manifest names; the next checkpoint removes them.
    unnamed: Vec<String>,
    records: Vec<RecordTold>,
}

#[derive(Debug, Default, Serialize)]
struct LogTold {
    #[serde(serialize_with = "digits")]
    oldest_lsn: u64,
    #[serde(serialize_with = "digits")]
    end_lsn: u64,
    incarnation: u32,
    records: u64,
    bytes: u64,
    tick_rows: u64,
    tick_bytes: u64,
    log_bytes_per_tick: Option<f64>,
    /// A torn tail that the next start cuts; nothing in it was acknowledged.
    torn: Option<Torn>,
}

#[derive(Debug, Serialize)]
struct Torn {
    file: String,
    offset: u64,
    bytes: u64,
    what: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct HardStateTold {
    #[serde(serialize_with = "digits")]
    synced_lsn: u64,
    groups: Vec<GroupStateTold>,
}

#[derive(Debug, Serialize)]
struct GroupStateTold {
    group: u16,
    term: u64,
    #[serde(serialize_with = "digits")]
    vote: u64,
    commit: u64,
}

#[derive(Debug, Serialize)]
struct ManifestTold {
    file: String,
    number: u64,
    #[serde(serialize_with = "digits")]
    lsn: u64,
    bytes: u64,
    shards: Vec<ManifestShard>,
}

#[derive(Debug, Serialize)]
struct ManifestShard {
    shard: u16,
    state_bytes: usize,
    ticks: Vec<String>,
    quotes: Vec<String>,
    facts: Vec<String>,
    /// The file of the registered reflexes.
    reflexes: Option<String>,
}

#[derive(Debug, Serialize)]
struct RunTold {
    file: String,
    shard: u16,
    kind: &'static str,
    rows: u64,
    bytes: u64,
    bytes_per_row: Option<f64>,
    blocks: u32,
    #[serde(serialize_with = "digits")]
    tx_min: u64,
    #[serde(serialize_with = "digits")]
    tx_max: u64,
    hash: String,
}

/// Performs the verb.
pub(super) fn run(args: &InspectArgs) -> Result<Exit, Fault> {
    let home = Home::open(&args.dir)?;
    if let Some(core) = args.core.filter(|core| *core >= home.identity.cores) {
        return Err(Fault::Usage(format!("there is no core {core}: the node has {}", home.identity.cores)));
    }
    let mut damage = Vec::new();
    let cores = (0..home.identity.cores).filter(|core| args.core.is_none_or(|only| only == *core));
    let cores = cores.map(|core| look(&home, core, args.records, &mut damage)).collect::<Result<_, _>>()?;
    let identity = &home.identity;
    let report = Inspection {
        directory: args.dir.display().to_string(),
        format: identity.format,
        node: identity.node,
        shards: identity.shards,
        segment_bytes: identity.segment_bytes,
        cores,
        damage: damage.clone(),
    };
    conclude(args.output, &report, &damage)
}

impl Printed for Inspection {
    fn text(&self) -> String {
        text::text(self)
    }

    fn rows(&self) -> Table {
        text::rows(self)
    }
}

fn look(home: &Home, core: u16, records: usize, damage: &mut Vec<Damage>) -> Result<CoreTold, Fault> {
    let dir = home.core_dir(core);
    let mut this = CoreTold { core, shards: home.shards_of(core).collect(), ..CoreTold::default() };
    if !dir.is_dir() {
        damage.extend(home.gone(core));
        this.append_path = append_path(&dir, None);
        return Ok(this);
    }
    let still = Still::new(&dir);
    let config = home.wal_config(core);
    this.segments = segments::list(&dir, config.segment_bytes).map_err(Fault::io(&dir))?;
    this.append_path = append_path(&dir, this.segments.first().map(|one| one.file.as_str()));
    let hard_state = hard_state(home, core, &still, damage)?;
    let mut census = Census::new(records);
    let start = Start { synced: hard_state.synced, ..Start::default() };
    let read = myelin_wal::inspect(&still, &config, start, &mut |record| {
        census.count(&record);
        Ok(())
    });
    match read {
        Ok(report) => {
            this.log = LogTold {
                oldest_lsn: report.oldest.bits(),
                end_lsn: report.end.bits(),
                incarnation: report.incarnation - 1,
                records: report.records,
                bytes: report.bytes,
                torn: report.cut.map(|cut| Torn {
                    file: told::in_core(core, &cut.file),
                    offset: cut.offset,
                    bytes: cut.bytes,
                    what: cut.what,
                }),
                ..LogTold::default()
            };
            if let Some(newest) = this.segments.iter_mut().rfind(|one| one.epoch > 0) {
                newest.end_lsn = report.end.bits();
            }
        }
        Err(error) => damage.push(told::of_log(core, error)?),
    }
    let ticks = census.ticks();
    (this.log.tick_rows, this.log.tick_bytes) = (ticks.rows, ticks.bytes);
    this.log.log_bytes_per_tick = (ticks.rows > 0).then(|| rounded(ticks.bytes as f64 / ticks.rows as f64));
    this.groups = census.groups();
    this.records = census.last.into();
    this.hard_state = HardStateTold {
        synced_lsn: hard_state.synced.bits(),
        groups: hard_state
            .groups
            .iter()
            .map(|state| GroupStateTold {
                group: state.group,
                term: state.term,
                vote: state.vote,
                commit: state.commit,
            })
            .collect(),
    };
    checkpoints(home, core, &mut this, damage)?;
    Ok(this)
}

/// The hard state of a core; before the directory's first start came to its end there may be none.
pub(super) fn hard_state(home: &Home, core: u16, still: &Still, damage: &mut Vec<Damage>) -> Result<HardState, Fault> {
    match HardStateFile::open(still, &home.wal_config(core)) {
        Ok((_, state)) => {
            if home.born && state.groups.is_empty() {
                let what = "it holds no term and no watermark, and once did".to_owned();
                damage.push(Damage { file: told::in_core(core, "hard-state"), offset: 0, what });
            }
            Ok(state)
        }
        Err(WalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            if home.born {
                let what = "gone: its term and its watermark are lost".to_owned();
                damage.push(Damage { file: told::in_core(core, "hard-state"), offset: 0, what });
            }
            Ok(HardState::default())
        }
        Err(error) => {
            damage.push(told::of_log(core, error)?);
            Ok(HardState::default())
        }
    }
}

/// Manifests, and the runs they name, each once.
fn checkpoints(home: &Home, core: u16, this: &mut CoreTold, damage: &mut Vec<Damage>) -> Result<(), Fault> {
    let dir = home.core_dir(core);
    let mut named = BTreeSet::new();
    for (number, path) in manifest::numbered(&dir).map_err(Fault::io(&dir))? {
        let file = told::in_core(core, &file_name(&path));
        let bytes = fs::read(&path).map_err(Fault::io(&path))?;
        let manifest = match Manifest::decode(number, &bytes) {
            Ok(manifest) => manifest,
            Err((what, at)) => {
                damage.push(Damage { file, offset: at as u64, what: what.to_owned() });
                continue;
            }
        };
        let names = |runs: &[manifest::RunName]| runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>();
        let shards = manifest.shards.iter().map(|files| ManifestShard {
            shard: files.shard,
            state_bytes: files.state.len(),
            ticks: names(&files.ticks),
            quotes: names(&files.quotes),
            facts: names(&files.facts),
            reflexes: files.reflexes.as_ref().map(|file| file.name.clone()),
        });
        let (lsn, shards) = (manifest.lsn, shards.collect());
        this.manifests.push(ManifestTold { file, number, lsn, bytes: bytes.len() as u64, shards });
        for files in &manifest.shards {
            named.extend(files.reflexes.as_ref().map(|file| file.name.clone()));
            let runs =
                files.ticks.iter().map(|run| ("ticks", run)).chain(files.quotes.iter().map(|run| ("quotes", run)));
            let runs = runs.chain(files.facts.iter().map(|run| ("facts", run)));
            for (kind, run) in runs.filter(|(_, run)| named.insert(run.name.clone())) {
                let path = runs_dir(&dir).join(&run.name);
                let opened = match kind {
                    "facts" => FactRun::open(&path).map(|run| run.meta().clone()),
                    _ => Run::open(&path).map(|run| run.meta().clone()),
                };
                match opened {
                    Ok(meta) => this.runs.push(run_told(told::in_core(core, "runs"), files.shard, kind, &meta)),
                    Err(error) => damage.push(told::of_run(&home.dir, &path, error)?),
                }
            }
        }
    }
    this.unnamed = unnamed(&dir, &named)?;
    Ok(())
}

/// Files among the runs that no manifest names.
pub(super) fn unnamed(dir: &Path, named: &BTreeSet<String>) -> Result<Vec<String>, Fault> {
    let runs = runs_dir(dir);
    let entries = match fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Fault::Io { path: runs, source }),
    };
    let mut unnamed = Vec::new();
    for entry in entries {
        let name = entry.map_err(Fault::io(&runs))?.file_name().to_string_lossy().into_owned();
        if !named.contains(&name) {
            unnamed.push(name);
        }
    }
    unnamed.sort_unstable();
    Ok(unnamed)
}

fn run_told(folder: String, shard: u16, kind: &'static str, meta: &RunMeta) -> RunTold {
    RunTold {
        file: format!("{folder}/{}", file_name(&meta.path)),
        shard,
        kind,
        rows: meta.rows,
        bytes: meta.bytes,
        bytes_per_row: (meta.rows > 0).then(|| rounded(meta.bytes as f64 / meta.rows as f64)),
        blocks: meta.blocks,
        tx_min: meta.tx_min.bits(),
        tx_max: meta.tx_max.bits(),
        hash: format!("{:032x}", meta.hash),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
