//! Myelin: one shard, everything on (guards, dedupe, columns, 1,000 bands of which one tick in a thousand fires), driven
//! by `myelin-load`, which afterwards counts what is stored and what fired: a run that lost anything is no figure.

use crate::Settings;
use crate::report::Figures;
use crate::server::{DataDir, Server, Stop, free_address, output_of};
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::Command;

pub(crate) const SETUP: &str = "serve --shards 1; columns, dedupe, 100 markets, 1,000 bands; checked after each run";

pub(crate) fn version(settings: &Settings) -> Result<String> {
    let said = output_of(Command::new(settings.bin_dir.join("myelin")).arg("--version"))?;
    Ok(said.trim().trim_start_matches("myelin ").to_owned())
}

/// One line of JSON from the harness.
pub(crate) fn load(settings: &Settings, words: &str) -> Result<Value> {
    let mut command = Command::new(settings.bin_dir.join("myelin-load"));
    command.args(words.split_whitespace()).args(["-o", "json"]);
    Ok(serde_json::from_str(&output_of(&mut command)?)?)
}

/// The bare sync of 4 KiB, and what the harness says of the machine. **Errors:** a directory without a device under it.
pub(crate) fn bare_sync(settings: &Settings) -> Result<(f64, Value)> {
    let mut command = Command::new(settings.bin_dir.join("myelin-load"));
    command.args(["wal", "--count", "300", "-o", "json", "--dir"]).arg(&settings.dir);
    let said: Value = serde_json::from_str(&output_of(&mut command)?)?;
    let figures = said["figures"].as_array().context("myelin-load wal gave no figures")?;
    let wanted = figures.iter().find(|one| one["way"] == "direct" && one["bytes"] == 4096);
    let p50 = wanted.and_then(|one| one["sync_us"]["p50"].as_f64()).context("no 4 KiB direct")?;
    Ok((p50, said))
}

/// One round.
pub(crate) fn round(settings: &Settings) -> Result<Figures> {
    let (address, http) = (free_address()?.to_string(), free_address()?.to_string());
    let dir = DataDir::new(&settings.dir, "myelin")?;
    let program = settings.bin_dir.join("myelin").canonicalize()?.display().to_string();
    let words = [
        &program,
        "serve",
        "--data-dir",
        "data",
        "--listen",
        &address,
        "--http",
        &http,
        "--admin",
        "127.0.0.1:0",
        "--shards",
        "1",
    ];
    let words = words.map(str::to_owned);
    let server = Server::start(&words, None, address.parse()?, dir, Stop::Term)?;
    let (at, seconds) = (server.address, settings.seconds);
    let mut figures = Figures::new();
    let said = load(settings, &format!("latency --server {at} --count {}", crate::ACKS))?;
    figures.insert("ack_p50_us", said["ack_us"]["p50"].as_f64().context("no p50")?);
    figures.insert("ack_p99_us", said["ack_us"]["p99"].as_f64().context("no p99")?);
    let ingest = |rate: &str, batch: usize, connections: usize| {
        let more = format!("--rate {rate} --batch {batch} --connections {connections}");
        load(settings, &format!("ingest --server {at} --seconds {seconds} --markets 100 --bands 1000 {more}"))
    };
    let said = ingest(&crate::OPEN_RATE.to_string(), 1, 1)?;
    figures.insert("open_p50_us", said["ack_us"]["p50"].as_f64().context("no p50")?);
    figures.insert("open_p99_us", said["ack_us"]["p99"].as_f64().context("no p99")?);
    for (key, batch, connections) in crate::THROUGHPUTS {
        let said = ingest("max", batch, connections)?;
        figures.insert(key, said["ticks_per_second"].as_f64().context("no ticks_per_second")?);
    }
    Ok(figures)
}
