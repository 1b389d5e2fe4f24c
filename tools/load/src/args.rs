//! The command line, and what of it makes no sense.

pub use crate::line::Door;
use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;

/// Load for a Myelin node, with a check of everything that was acknowledged.
#[derive(Clone, Debug, Parser)]
#[command(name = "myelin-load", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
    /// How to say it.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One line, stable keys.
    Json,
}

/// The modes.
#[derive(Clone, Debug, Subcommand)]
pub enum Mode {
    /// Ticks at a rate, bands that fire, and a check at the end. Exit code 1 when something is lost.
    Ingest(IngestArgs),
    /// One tick at a time, beside the bare round trip and the bare sync.
    Latency(LatencyArgs),
    /// What a device takes to sync, without a node.
    Wal(WalArgs),
    /// What this harness itself costs per tick, without a socket.
    Cost(CostArgs),
}

/// Ticks offered per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Open loop: frames have intended send times.
    PerSecond(u64),
    /// Closed by the window of frames in flight.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.replace('_', "").parse() {
            Ok(rate) if (1..=1_000_000_000).contains(&rate) => Ok(Self::PerSecond(rate)),
            _ => Err("expected `max` or 1 to 1000000000 ticks per second".to_owned()),
        }
    }
}

/// Process `number` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// This part's share of `total` things, as a range; the parts are disjoint and together they are everything.
    #[must_use]
    pub fn range(self, total: usize) -> std::ops::Range<usize> {
        let at = |number: u32| (total as u128 * u128::from(number) / u128::from(self.of)) as usize;
        at(self.number)..at(self.number + 1)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if number < of => Ok(Self { number, of }),
            _ => Err("expected NUMBER/OF".to_owned()),
        }
    }
}

/// `ingest`.
#[derive(Clone, Debug, Args)]
pub struct IngestArgs {
    /// Where the node listens: HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub server: String,
    /// How a guarded node is entered.
    #[command(flatten)]
    pub door: Door,
    /// Ticks per second over all connections and processes, or `max`.
    #[arg(long, default_value = "10000")]
    pub rate: Rate,
    /// How long ticks are offered.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// The first of these seconds that are checked but not measured [default: 1, at most a tenth of --seconds].
    #[arg(long)]
    pub warmup: Option<f64>,
    /// Ticks in a frame.
    #[arg(long, default_value_t = 100)]
    pub batch: u32,
    /// Connections of each process; each has markets of its own.
    #[arg(long, default_value_t = 1)]
    pub connections: u32,
    /// Markets over all processes.
    #[arg(long, default_value_t = 100)]
    pub markets: u32,
    /// Price bands registered over all markets, removed at the end.
    #[arg(long, default_value_t = 1000)]
    pub bands: u32,
    /// Bands are spread so that about one tick in this many fires.
    #[arg(long, default_value_t = 1000)]
    pub fire_one_in: u32,
    /// Each market's ids are shuffled within windows of this many; 1 = ascending.
    #[arg(long, default_value_t = 64)]
    pub shuffle: u32,
    /// Of the tape and the bands.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Frames each connection may have unanswered [default: its share of 1 MiB, 2 to 1024 of them].
    #[arg(long)]
    pub in_flight: Option<u32>,
    /// Processes, with disjoint markets; `--rate`, `--markets` and `--bands` are totals.
    #[arg(long, default_value_t = 1)]
    pub processes: u32,
    /// How long a connection spins before a frame is due, instead of sleeping; in microseconds.
    #[arg(long, default_value_t = 20)]
    pub spin_us: u64,
    /// Ask for SCHED_RR for the threads that send and receive. At `--rate max` they may meet the kernel's limit for it.
    #[arg(long)]
    pub realtime: bool,
    /// This process is one of several.
    #[arg(long, hide = true)]
    pub part: Option<Part>,
}

impl IngestArgs {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<()> {
        if !(self.seconds.is_finite() && self.seconds > 0.0) {
            bail!("--seconds must be above 0");
        }
        if !(0.0..self.seconds).contains(&self.warmup_seconds()) {
            bail!("--warmup is a part of --seconds and must leave some to be measured");
        }
        if self.batch == 0 || self.connections == 0 || self.processes == 0 || self.fire_one_in == 0 || self.shuffle == 0
        {
            bail!("--batch, --connections, --processes, --fire-one-in and --shuffle begin at 1");
        }
        if self.markets < self.processes {
            bail!("--markets must be at least --processes: they share no market");
        }
        if self.in_flight == Some(0) {
            bail!("--in-flight must be at least 1");
        }
        Ok(())
    }

    /// What is not measured. **Units:** seconds.
    #[must_use]
    pub fn warmup_seconds(&self) -> f64 {
        self.warmup.unwrap_or_else(|| (self.seconds / 10.0).min(1.0))
    }

    /// Which part of the whole this process is.
    #[must_use]
    pub fn own_part(&self) -> Part {
        self.part.unwrap_or(Part::WHOLE)
    }
}

/// `latency`.
#[derive(Clone, Debug, Args)]
pub struct LatencyArgs {
    /// Where the node listens: HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:7400")]
    pub server: String,
    /// How a guarded node is entered.
    #[command(flatten)]
    pub door: Door,
    /// Ticks, pings and syncs, each.
    #[arg(long, default_value_t = 2000)]
    pub count: u32,
    /// Also measure bare 4 KiB syncs here; the file is removed.
    #[arg(long)]
    pub sync_dir: Option<PathBuf>,
    /// Wait for answers by spinning instead of sleeping.
    #[arg(long)]
    pub spin: bool,
    /// Ask for SCHED_RR.
    #[arg(long)]
    pub realtime: bool,
}

/// `wal`.
#[derive(Clone, Debug, Args)]
pub struct WalArgs {
    /// On the device in question; the file is removed.
    #[arg(long)]
    pub dir: PathBuf,
    /// Writes of each size and way.
    #[arg(long, default_value_t = 500)]
    pub count: u32,
    /// Offer a bare log so many records a second for five seconds as well, from their intended times.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// Ask for SCHED_RR.
    #[arg(long)]
    pub realtime: bool,
}

/// `cost`.
#[derive(Clone, Debug, Args)]
pub struct CostArgs {
    /// Ticks in a frame.
    #[arg(long, default_value_t = 1000)]
    pub batch: u32,
    /// Markets.
    #[arg(long, default_value_t = 100)]
    pub markets: u32,
    /// Each market's ids are shuffled within windows of this many; 1 = ascending.
    #[arg(long, default_value_t = 64)]
    pub shuffle: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_together_everything() {
        for (total, of) in [(100, 1), (100, 3), (2, 2), (7, 4)] {
            let ranges: Vec<_> = (0..of).map(|number| Part { number, of }.range(total)).collect();
            let all: Vec<usize> = ranges.into_iter().flatten().collect();
            assert_eq!(all, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_exact_call_of_scripts_is_understood() {
        let call = "myelin-load ingest --server 127.0.0.1:1 --rate max --seconds 10 --batch 100 --connections 1 \
                    --markets 100 --bands 1000 -o json";
        let cli = Cli::try_parse_from(call.split_whitespace()).unwrap();
        assert_eq!(cli.output, Output::Json);
        let Mode::Ingest(args) = cli.mode else { panic!("not ingest") };
        assert_eq!((args.rate, args.batch), (Rate::Max, 100));
        args.check().unwrap();
        assert_eq!("10000".parse(), Ok(Rate::PerSecond(10_000)));
        assert!("0".parse::<Rate>().is_err());
        assert!(IngestArgs { warmup: Some(10.0), ..args }.check().is_err());
    }
}
