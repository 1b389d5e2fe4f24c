//! `myelin verify DIR`: everything is read and checked, and what it comes to is one hash per shard.
//!
//! ```text
//!   identity -> hard state -> manifests -> runs: every block, content hash
//!            -> log: every record from the oldest on, chain, groups without holes, the clients' own checksums
//!            -> newest whole manifest + the log's tail behind it -> shards in memory -> state hash
//! ```
//!
//! A state hash covers what a shard would serve: sessions, markets, reflexes, and every tick and quote with its `tx`, in
//! order, wherever they are stored. So it is equal for two copies of a directory, and does not change by sealing.

mod checkpoints;
mod digest;
mod log;

use super::home::{Home, core_name};
use super::inspect::{hard_state, unnamed};
use super::still::Still;
use super::{Damage, Exit, Fault, Form, Printed, Table, conclude, digits, segments, told};
use crate::shard::Shard;
use checkpoints::Checkpoints;
use digest::ShardDigest;
use log::LogCheck;
use myelin_wal::Lsn;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `verify` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The data directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    directory: String,
    #[serde(serialize_with = "digits")]
    node: u64,
    sound: bool,
    /// Over those of all shards; absent when one of them could not be brought back.
    state_hash: Option<String>,
    shards: Vec<ShardDigest>,
    checked: Checked,
    /// What is no damage and yet worth knowing.
    notes: Vec<String>,
    damage: Vec<Damage>,
}

/// How much was read.
#[derive(Clone, Debug, Default, Serialize)]
struct Checked {
    segments: usize,
    records: u64,
    log_bytes: u64,
    manifests: usize,
    runs: usize,
    blocks: u64,
    run_bytes: u64,
}

/// Performs the verb.
pub(super) fn run(args: &VerifyArgs) -> Result<Exit, Fault> {
    let home = Home::open(&args.dir)?;
    let mut report =
        Report { directory: args.dir.display().to_string(), node: home.identity.node, ..Report::default() };
    let mut whole = true;
    for core in 0..home.identity.cores {
        if home.core_dir(core).is_dir() {
            whole &= check_core(&home, core, &mut report)?;
        } else if let Some(gone) = home.gone(core) {
            report.damage.push(gone);
            whole = false;
        }
    }
    report.sound = report.damage.is_empty();
    report.shards.sort_unstable_by_key(|shard| shard.shard);
    report.state_hash = whole.then(|| digest::of_all(&report.shards));
    let damage = report.damage.clone();
    conclude(args.output, &report, &damage)
}

impl Printed for Report {
    fn text(&self) -> String {
        text(self)
    }

    fn rows(&self) -> Table {
        rows(&self.shards)
    }
}

/// Checks one core; true when its shards could be brought back.
fn check_core(home: &Home, core: u16, report: &mut Report) -> Result<bool, Fault> {
    let dir = home.core_dir(core);
    let config = home.wal_config(core);
    let slots = segments::list(&dir, config.segment_bytes).map_err(Fault::io(&dir))?;
    let still = Still::new(&dir);
    let hard_state = hard_state(home, core, &still, &mut report.damage)?;
    if still.unwritten() > 0 {
        let name = core_name(core);
        report
            .notes
            .push(format!("{name}/hard-state: one of its two copies is older or damaged; the next start mends it"));
    }
    let checkpoints = Checkpoints::check(home, core, report)?;
    let left = unnamed(&dir, &checkpoints.named)?;
    if !left.is_empty() {
        let (count, name) = (left.len(), core_name(core));
        report
            .notes
            .push(format!("{name}/runs: {count} files that no manifest names; the next checkpoint removes them"));
    }
    let from = checkpoints.lsn();
    let (shards, replays) = match restore(home, core, checkpoints, report)? {
        Some(shards) => (shards, true),
        None => (BTreeMap::new(), false),
    };
    let check = LogCheck { home, core, slots: &slots, from, synced: hard_state.synced };
    let shards = check.run(&still, &config, shards, report)?;
    let Some(shards) = shards.filter(|_| replays) else { return Ok(false) };
    for (number, shard) in shards {
        match ShardDigest::of(number, core, shard) {
            Ok(digest) => report.shards.push(digest),
            Err(error) => {
                report.damage.push(told::of_run(&home.dir, &dir, error)?);
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The shards of a core as its newest whole manifest left them; none when that cannot be done.
fn restore(
    home: &Home,
    core: u16,
    checkpoints: Checkpoints,
    report: &mut Report,
) -> Result<Option<BTreeMap<u16, Shard>>, Fault> {
    let Checkpoints { newest, path, whole, mut restoring, .. } = checkpoints;
    if !whole {
        return Ok(None);
    }
    let mut shards = BTreeMap::new();
    for number in home.shards_of(core) {
        let from = restoring.remove(&number);
        if from.is_none() && newest.is_some() {
            let what = format!("shard {number} is not in it");
            report.damage.push(Damage { file: path.clone(), offset: 24, what });
            return Ok(None);
        }
        match Shard::restore(number, 1, &home.limits(), from.unwrap_or_default()) {
            Ok(shard) => drop(shards.insert(number, shard)),
            Err(error) => {
                report.damage.push(told::of_shard(&home.dir, &home.dir.join(&path), 0, error)?);
                return Ok(None);
            }
        }
    }
    if let Some(stranger) = restoring.keys().next() {
        let what = format!("shard {stranger} is another core's");
        report.damage.push(Damage { file: path, offset: 24, what });
        return Ok(None);
    }
    Ok(Some(shards))
}

/// A place in words of the log.
fn lsn_or_begin(lsn: Lsn) -> String {
    if lsn == Lsn::ZERO { "its beginning".to_owned() } else { lsn.to_string() }
}

/// A row per shard.
fn rows(shards: &[ShardDigest]) -> Table {
    let mut table = Table::new(&["shard", "applied_index", "applied_tx", "ticks", "quotes", "markets", "state_hash"]);
    for one in shards {
        let numbers = [u64::from(one.shard), one.applied_index, one.applied_tx, one.ticks, one.quotes, one.markets];
        table.row(numbers.map(|number| number.to_string()).into_iter().chain([one.state_hash.clone()]));
    }
    table
}

/// The report for people.
fn text(report: &Report) -> String {
    let checked = &report.checked;
    let mut text = format!(
        "{}: node {}\nread: {} records in {} segments ({} bytes), {} manifests, {} runs of {} blocks ({} bytes)\n\n",
        report.directory,
        report.node,
        checked.records,
        checked.segments,
        checked.log_bytes,
        checked.manifests,
        checked.runs,
        checked.blocks,
        checked.run_bytes
    );
    text.push_str(&rows(&report.shards).under("shards"));
    if let Some(hash) = &report.state_hash {
        text.push_str(&format!("state hash {hash}\n"));
    }
    report.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    let places = report.damage.len();
    text.push_str(&if report.sound { "sound\n".to_owned() } else { format!("DAMAGED in {places} places\n") });
    text
}
