//! One tick at a time: what an ack costs, beside what it is made of. Closed loop, everything in turns, so that whatever
//! drifts on a shared machine drifts for all of them.

use crate::args::{LatencyArgs, Output};
use crate::client::Client;
use crate::clock;
use crate::drive::histogram;
use crate::host;
use crate::recipe::{self, Recipe};
use crate::report::Percentiles;
use crate::say;
use crate::wal::{Device, Way};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use myelin_datom::Slot;
use serde::Serialize;

/// **Units:** bytes of one bare sync: the least a record of one tick can take.
const SYNC_BYTES: usize = 4 << 10;
/// Turns that are not measured.
const WARMUP: u32 = 100;
const MARKET: &str = "demo:{LATENCY}USD";

#[derive(Debug, Serialize)]
struct Report {
    count: u32,
    ack_us: Percentiles,
    ping_us: Percentiles,
    sync_us: Option<Percentiles>,
    fdatasync_us: Option<Percentiles>,
    /// Median ack / (median ping + median sync).
    ratio: Option<f64>,
    file_system: Option<String>,
    waiting: &'static str,
    cores: usize,
    scheduling: String,
}

/// Measures and prints.
pub(crate) fn run(args: &LatencyArgs, output: Output) -> Result<u8> {
    clock::settle(args.realtime);
    let control = Client::connect(&args.server, &args.door)?;
    let shard = control.welcome.shard_of(Slot::of_name(MARKET)).context("the slot table has a hole")?;
    let mut client = control.connect_to_shard(shard)?;
    let ids = client.markets(shard, &[MARKET])?;
    let now_ns = clock::unix_ns();
    let id_base = recipe::id_base(now_ns);
    let recipe = Recipe { seed: 1, start_ns: now_ns, step_ns: 1_000, shuffle: 1, id_base, ids, markets: vec![0] };
    if args.spin {
        client.spin()?;
    }
    let mut device = match &args.sync_dir {
        Some(dir) => {
            Some((Device::open(dir, Way::Direct)?, Device::open(dir, Way::Fdatasync)?, host::file_system(dir)?))
        }
        None => None,
    };
    let mut taken = [histogram()?, histogram()?, histogram()?, histogram()?];
    let mut ticks = recipe.ticks();
    for turn in 0..args.count + WARMUP {
        let [ack, ping, direct, fdatasync] = &mut taken;
        let measured = turn >= WARMUP;
        let (_, tick) = ticks.next();
        time(ack, measured, || client.tick(shard, &tick).map(drop))?;
        time(ping, measured, || client.ping())?;
        if let Some((by_direct, by_fdatasync, _)) = &mut device {
            time(direct, measured, || by_direct.write(SYNC_BYTES))?;
            time(fdatasync, measured, || by_fdatasync.write(SYNC_BYTES))?;
        }
    }
    let [ack, ping, direct, fdatasync] = taken.each_ref().map(Percentiles::of);
    let best = direct.p50.into_iter().chain(fdatasync.p50).reduce(f64::min);
    let ratio = |sync: f64| Some(((ack.p50? / (ping.p50? + sync)) * 1e3).round() / 1e3);
    let report = Report {
        count: args.count,
        ack_us: ack,
        ping_us: ping,
        sync_us: device.is_some().then_some(direct),
        fdatasync_us: device.is_some().then_some(fdatasync),
        ratio: best.and_then(ratio),
        file_system: device.map(|(_, _, found)| found.name),
        waiting: if args.spin { "spinning" } else { "sleeping" },
        cores: host::cores(),
        scheduling: host::scheduling(),
    };
    report.print(output)?;
    Ok(0)
}

/// How long one thing took.
pub(crate) fn time(into: &mut Histogram<u64>, measured: bool, thing: impl FnOnce() -> Result<()>) -> Result<()> {
    let start_ns = clock::now_ns();
    thing()?;
    if measured {
        into.record((clock::now_ns() - start_ns).max(1))?;
    }
    Ok(())
}

impl Report {
    fn print(&self, output: Output) -> Result<()> {
        if output == Output::Json {
            return say::figures(serde_json::to_string(self)?);
        }
        let mut lines =
            vec![format!("ack        {}", self.ack_us.line()), format!("ping       {}", self.ping_us.line())];
        if let (Some(direct), Some(fdatasync), Some(name)) = (&self.sync_us, &self.fdatasync_us, &self.file_system) {
            lines.push(format!("direct     {}   O_DIRECT|O_DSYNC, 4 KiB, {name}", direct.line()));
            lines.push(format!("fdatasync  {}   4 KiB, {name}", fdatasync.line()));
        }
        if let Some(ratio) = self.ratio {
            lines.push(format!("ratio      {ratio:.3}   median ack / (median ping + the faster median sync)"));
        }
        lines.push(format!("harness    {} answers, {} cores, {}", self.waiting, self.cores, self.scheduling));
        say::figures(lines.join("\n"))
    }
}
