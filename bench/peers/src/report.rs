//! What a run says: medians of the rounds, each round beside them, and the ratios Myelin : peer.

use crate::Settings;
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Key and what it is. Ticks per second, or microseconds.
pub(crate) const ROWS: [(&str, &str); 10] = [
    ("batch_1000", "durable ticks/s, batches of 1000, 1 connection"),
    ("batch_1000_by_4", "durable ticks/s, batches of 1000, 4 connections"),
    ("batch_100", "durable ticks/s, batches of 100, 1 connection"),
    ("batch_100_by_4", "durable ticks/s, batches of 100, 4 connections"),
    ("singles", "durable ticks/s, singles pipelined, 1 connection"),
    ("singles_by_4", "durable ticks/s, singles pipelined, 4 connections"),
    ("ack_p50_us", "ack of one tick, one at a time, p50 us"),
    ("ack_p99_us", "ack of one tick, one at a time, p99 us"),
    ("open_p50_us", "ack at 10,000 singles/s offered, p50 us"),
    ("open_p99_us", "ack at 10,000 singles/s offered, p99 us"),
];

/// The figures of one round, by key.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn insert(&mut self, key: &str, value: f64) {
        self.0.insert(key.to_owned(), (value * 10.0).round() / 10.0);
    }

    pub(crate) fn latency(&mut self, name: &str, taken: &Histogram<u64>) {
        self.insert(&format!("{name}_p50_us"), crate::clock::quantile_us(taken, 0.5));
        self.insert(&format!("{name}_p99_us"), crate::clock::quantile_us(taken, 0.99));
    }

    /// Key by key.
    pub(crate) fn medians(rounds: &[Self]) -> Self {
        let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (key, value) in rounds.iter().flat_map(|round| &round.0) {
            all.entry(key.clone()).or_default().push(*value);
        }
        Self(all.into_iter().map(|(key, values)| (key, median(values))).collect())
    }
}

/// The middle one; of an even number, the mean of the two in the middle. 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// One system.
#[derive(Debug, Serialize)]
pub(crate) struct System {
    pub name: &'static str,
    pub version: String,
    pub setup: &'static str,
    pub median: Figures,
    pub rounds: Vec<Figures>,
}

/// Ten million ticks asked in one thread. **Units:** milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Scan {
    pub duckdb_version: String,
    pub rows: u64,
    pub duckdb_vwap_ms: f64,
    pub duckdb_bars_ms: f64,
    /// From the exact sums that a run keeps of each block.
    pub myelin_vwap_totals_ms: f64,
    /// Every row decoded.
    pub myelin_vwap_decoded_ms: f64,
    pub myelin_bars_ms: f64,
}

/// The whole run. Keys are never renamed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub date: String,
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    pub file_system: String,
    pub scheduling: String,
    pub seconds: f64,
    /// Median, and before each round. **Units:** microseconds; `O_DIRECT|O_DSYNC`, 4 KiB.
    pub bare_sync_p50_us: f64,
    pub bare_sync_p50_us_rounds: Vec<f64>,
    /// Myelin first.
    pub systems: Vec<System>,
    /// Myelin's figure divided by the peer's.
    pub ratios: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    pub scan: Option<Scan>,
}

impl Report {
    pub(crate) fn compare(&mut self) {
        let Some((myelin, peers)) = self.systems.split_first() else { return };
        for peer in peers {
            let ratio = |key: &str| Some((myelin.median.0.get(key)? / peer.median.0.get(key)? * 1e3).round() / 1e3);
            let all = ROWS.iter().filter_map(|(key, _)| Some((*key, ratio(key)?)));
            self.ratios.insert(peer.name, all.collect());
        }
    }

    pub(crate) fn print(&self, settings: &Settings) -> Result<()> {
        if settings.output == crate::Output::Json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { cpu, cpus, kernel, file_system, scheduling, date, .. } = self;
        println!("{date}; {cpus} CPUs, {cpu}; Linux {kernel}; {file_system}; {scheduling}");
        let syncs = &self.bare_sync_p50_us_rounds;
        println!("bare sync p50 {:.0} us (O_DIRECT|O_DSYNC, 4 KiB; by round {syncs:.0?})", self.bare_sync_p50_us);
        let (seconds, rounds) = (self.seconds, syncs.len());
        println!("{seconds} s each, median of {rounds} alternating rounds, in parentheses Myelin : peer\n");
        let names: Vec<String> = self.systems.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
        println!("| | {} |", names.join(" | "));
        println!("|---|{}", "---:|".repeat(names.len()));
        for (key, title) in ROWS {
            let cells = self.systems.iter().map(|one| {
                let Some(value) = one.median.0.get(key) else { return "-".to_owned() };
                match self.ratios.get(one.name).and_then(|ratios| ratios.get(key)) {
                    Some(ratio) => format!("{} ({ratio:.2})", grouped(*value)),
                    None => grouped(*value),
                }
            });
            println!("| {title} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        println!();
        for one in &self.systems {
            println!("{}: {}", one.name, one.setup);
        }
        if let Some(scan) = &self.scan {
            println!(
                "\n{} ticks in 100 markets, one thread, DuckDB {}",
                grouped(scan.rows as f64),
                scan.duckdb_version
            );
            println!("| ms | Myelin | DuckDB |\n|---|---:|---:|");
            let (totals, decoded) = (scan.myelin_vwap_totals_ms, scan.myelin_vwap_decoded_ms);
            println!("| VWAP by market, from block totals | {totals:.2} | |");
            println!("| VWAP by market, every row read | {decoded:.0} | {:.0} |", scan.duckdb_vwap_ms);
            println!("| 1-minute bars by market | {:.0} | {:.0} |", scan.myelin_bars_ms, scan.duckdb_bars_ms);
        }
        Ok(())
    }
}

/// 1234567.8 -> 1,234,568.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_digits_come_in_threes() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![1.0, 2.0]), median(vec![])), (2.0, 1.5, 0.0));
        for (value, said) in [(7.0, "7"), (999.6, "1,000"), (123_456.0, "123,456"), (1_234_567.0, "1,234,567")] {
            assert_eq!(grouped(value), said);
        }
    }
}
