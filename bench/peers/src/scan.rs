//! Analytical questions over ten million ticks in one thread: Myelin's columns, sealed in four runs, against DuckDB's table.
//!
//! Both hold the same ticks of one tape in memory or the page cache; both are asked six times, the first not counted.

use crate::Settings;
use crate::clock::now_ns;
use crate::report::{Scan, median};
use crate::server::{DataDir, output_of};
use anyhow::{Context, Result, anyhow, ensure};
use myelin_datom::{Tick, Tx};
use myelin_feed::Tape;
use myelin_index::{ColumnRow, Columns, ColumnsConfig, Filter, MarketOptions, MarketView, Run};
use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const ROWS: usize = 10_000_000;
const RUNS: usize = 4;
const BATCH: usize = 1000;
/// So that the tape spans 83 minutes. **Units:** nanoseconds.
const STEP_NS: u32 = 500_000;
const MINUTE_NS: i64 = 60_000_000_000;

fn tape() -> Tape {
    crate::tape(0).with_step_ns(STEP_NS).with_shuffle(1)
}

/// The whole comparison.
pub(crate) fn run(settings: &Settings) -> Result<Scan> {
    let dir = DataDir::new(&settings.dir, "scan")?;
    let duckdb = duckdb(&dir.0)?;
    let number = |key: &str| duckdb[key].as_f64().with_context(|| format!("DuckDB gave no {key}"));
    let columns = columns(&dir.0)?;
    let all = Filter::default();
    let vwap = |view: &MarketView<'_, _>| Ok(_ = black_box(view.total(&all)?.vwap()));
    let decoded = |view: &MarketView<'_, _>| Ok(_ = black_box(view.total_decoded(&all)?.vwap()));
    let bars = |view: &MarketView<'_, _>| Ok(_ = black_box(view.bars(&all, MINUTE_NS)?));
    Ok(Scan {
        duckdb_version: duckdb["version"].as_str().unwrap_or("?").to_owned(),
        rows: duckdb["rows"].as_u64().unwrap_or(0),
        duckdb_vwap_ms: number("vwap_ms")?,
        duckdb_bars_ms: number("bars_ms")?,
        myelin_vwap_totals_ms: median_ms(&columns, vwap)?,
        myelin_vwap_decoded_ms: median_ms(&columns, decoded)?,
        myelin_bars_ms: median_ms(&columns, bars)?,
    })
}

fn duckdb(dir: &Path) -> Result<serde_json::Value> {
    let csv = dir.join("ticks.csv");
    let mut out = BufWriter::new(File::create(&csv)?);
    let mut tape = tape();
    for _ in 0..ROWS {
        let tick = tape.next_tick().1;
        writeln!(out, "{},{},{},{}", tick.market.bits(), tick.event_time_ns, tick.price, tick.volume)?;
    }
    out.flush()?;
    output_of(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
    let python = dir.join("venv/bin/python");
    output_of(Command::new(&python).args(["-m", "pip", "install", "--quiet", "duckdb"]))?;
    let script = ["-c", include_str!("scan.py")];
    let said = output_of(Command::new(&python).args(script).arg(&csv).arg(dir.join("ticks.duckdb")))?;
    Ok(serde_json::from_str(&said)?)
}

fn columns(dir: &Path) -> Result<Columns<Tick>> {
    let mut tape = tape();
    let mut columns = Columns::new(ColumnsConfig::default());
    let options = MarketOptions { ascending_ids: true, dense_ids: true, signed: false };
    crate::markets().into_iter().for_each(|id| _ = columns.add_market(id, options));
    let mut verdicts = Vec::new();
    for run in 0..RUNS {
        for batch in 0..ROWS / RUNS / BATCH {
            let ticks: Vec<_> = (0..BATCH).map(|_| tape.next_tick().1).collect();
            let summary = columns.check(&ticks, &mut verdicts).map_err(|error| anyhow!("{error:?}"))?;
            ensure!(summary.new as usize == BATCH, "the tape repeats itself");
            let tx = Tx::at_millis(1_723_161_254_000 + (run * ROWS / RUNS / BATCH + batch) as u64);
            columns.insert(tx.max(columns.last_tx().next()), &ticks, &verdicts);
        }
        let path = dir.join(format!("{run}.run"));
        let frozen = columns.freeze().context("nothing to seal")?;
        frozen.write_run(&path, &mut ())?;
        columns.install(frozen, Arc::new(Run::open(&path)?));
    }
    Ok(columns)
}

fn median_ms<T: ColumnRow>(columns: &Columns<T>, ask: impl Fn(&MarketView<'_, T>) -> Result<()>) -> Result<f64> {
    let mut taken = Vec::new();
    for _ in 0..6 {
        let start_ns = now_ns();
        for ix in columns.markets() {
            ask(&columns.view(ix, Tx::MAX).context("no view")?)?;
        }
        taken.push((now_ns() - start_ns) as f64 / 1e6);
    }
    Ok(median(taken.split_off(1)))
}
