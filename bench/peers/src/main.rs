//! Myelin beside its peers: the same ticks, the same disk, one run.
//!
//! ```text
//!   for each round:  bare sync -> Myelin, Redis, PostgreSQL, NATS (the first one takes turns)
//!   each of them:    start -> ack one at a time -> open loop at 10,000/s -> full rate in batches -> stop, remove, sync
//!   afterwards:      DuckDB and Myelin's columns over ten million ticks -> medians, ratios
//! ```
//!
//! Every server is a child of this process, set up to be durable before it answers (NATS cannot: labelled). Myelin does
//! more per tick than any of them here: it looks for repeated ids, keeps columns, and evaluates 1,000 bands. Deliberately
//! absent: anything tuned for one system that another has too.

mod clock;
mod myelin;
mod nats;
mod pipe;
mod postgres;
mod redis;
mod report;
mod scan;
mod server;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, ValueEnum};
use myelin_datom::{EntityId, Slot};
use myelin_feed::Tape;
use report::{Figures, Report, System};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Ticks acknowledged one at a time, and those before them.
pub(crate) const ACKS: u32 = 2_000;
pub(crate) const ACKS_UNMEASURED: u32 = 100;
/// **Units:** single ticks per second of the open loop.
pub(crate) const OPEN_RATE: u64 = 10_000;
pub(crate) const MARKETS: u32 = 100;
/// Of the tapes. **Units:** Unix nanoseconds.
const START_NS: i64 = 1_723_161_254_000_000_000;
/// Key, ticks in a batch, connections.
pub(crate) const THROUGHPUTS: [(&str, usize, usize); 6] = [
    ("batch_1000", 1000, 1),
    ("batch_1000_by_4", 1000, 4),
    ("batch_100", 100, 1),
    ("batch_100_by_4", 100, 4),
    ("singles", 1, 1),
    ("singles_by_4", 1, 4),
];

/// Myelin beside its peers: the same ticks, in one run. Nothing else should be running.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
pub(crate) struct Settings {
    /// Where data directories are made, on the device in question; they are removed.
    #[arg(long)]
    pub dir: PathBuf,
    /// How long each rate is measured, the warm-up (a tenth, at most one) included.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// The median of so many counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Who is compared with Myelin.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::value_variants().to_vec())]
    pub only: Vec<Peer>,
    /// Where `myelin` and `myelin-load` are.
    #[arg(long, default_value = "target/release")]
    pub bin_dir: PathBuf,
    /// Run everything, servers and clients alike, in the class SCHED_RR.
    #[arg(long)]
    pub realtime: bool,
    /// How to say it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Redis,
    #[value(alias = "postgresql")]
    Postgres,
    Nats,
    Duckdb,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

type Round = fn(&Settings) -> Result<Figures>;

fn main() -> ExitCode {
    match run(Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(mut settings: Settings) -> Result<()> {
    if settings.rounds == 0 || !(0.5..=100.0).contains(&settings.seconds) {
        bail!("--rounds begins at 1, --seconds is 0.5 to 100");
    }
    std::fs::create_dir_all(&settings.dir)?;
    settings.dir = settings.dir.canonicalize()?;
    let settings = &settings;
    if settings.realtime {
        make_realtime()?;
    }
    let mut report = describe(settings)?;
    let mut rounds: Vec<Round> = vec![myelin::round];
    report.systems.push(system("Myelin", myelin::version(settings)?, myelin::SETUP));
    for peer in &settings.only {
        let (named, round): (_, Round) = match peer {
            Peer::Redis => (system("Redis", redis::version()?, redis::SETUP), redis::round),
            Peer::Postgres => (system("PostgreSQL", postgres::version()?, postgres::SETUP), postgres::round),
            Peer::Nats => (system("NATS", nats::version()?, nats::SETUP), nats::round),
            Peer::Duckdb => continue,
        };
        report.systems.push(named);
        rounds.push(round);
    }
    let systems = rounds.len();
    for round in 0..if systems > 1 { settings.rounds } else { 0 } {
        report.bare_sync_p50_us_rounds.push(myelin::bare_sync(settings)?.0);
        for turn in 0..systems {
            let who = (round + turn) % systems;
            let system = &mut report.systems[who];
            eprintln!("peers: round {} of {}, {}", round + 1, settings.rounds, system.name);
            let figures = rounds[who](settings).context(system.name)?;
            eprintln!("peers: {}", serde_json::to_string(&figures)?);
            system.rounds.push(figures);
        }
    }
    report.bare_sync_p50_us = report::median(report.bare_sync_p50_us_rounds.clone());
    for system in &mut report.systems {
        system.median = Figures::medians(&system.rounds);
    }
    report.compare();
    if settings.only.contains(&Peer::Duckdb) {
        eprintln!("peers: DuckDB");
        // The figures of minutes are not thrown away because the last one fails.
        match scan::run(settings) {
            Ok(scan) => report.scan = Some(scan),
            Err(error) => eprintln!("peers: DuckDB: {error:#}"),
        }
    }
    report.print(settings)
}

fn system(name: &'static str, version: String, setup: &'static str) -> System {
    System { name, version, setup, median: Figures::new(), rounds: Vec::new() }
}

/// Children and threads inherit the class.
fn make_realtime() -> Result<()> {
    let mut chrt = Command::new("chrt");
    chrt.args(["--rr", "--pid", "10", &std::process::id().to_string()]);
    server::output_of(&mut chrt).map(drop).context("real-time priority is not permitted")
}

/// The machine. **Errors:** a directory on no device.
fn describe(settings: &Settings) -> Result<Report> {
    let (_, said) = myelin::bare_sync(settings)?;
    let text = |key: &str| said[key].as_str().unwrap_or("unknown").to_owned();
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(Report {
        date: server::output_of(Command::new("date").args(["-u", "+%F %H:%M UTC"]))?.trim().to_owned(),
        cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        file_system: text("file_system"),
        scheduling: text("scheduling"),
        seconds: settings.seconds,
        bare_sync_p50_us: 0.0,
        bare_sync_p50_us_rounds: Vec::new(),
        systems: Vec::new(),
        ratios: BTreeMap::new(),
        scan: None,
    })
}

/// The ticks of connection `n`, in markets that are the same for all.
pub(crate) fn tape(n: usize) -> Tape {
    let mut tape = Tape::new(1 + n as u64, MARKETS, START_NS).with_shuffle(64);
    tape.bind(&markets());
    tape
}

pub(crate) fn markets() -> Vec<EntityId> {
    let slot = Slot::of_name("demo:{PEERS}USD");
    (0..MARKETS).map(|ordinal| EntityId::market(slot, ordinal)).collect()
}

/// Runs each connection on a thread of its own, until all have ended.
pub(crate) fn on_threads<T: Send, R: Send>(all: Vec<T>, run: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = all.into_iter().map(|one| scope.spawn(move || run(one))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client failed"))?).collect()
    })
}
