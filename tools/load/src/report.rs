//! What a run says: parts of it that can be merged, and the whole as JSON with stable keys or as a table.

use crate::args::{IngestArgs, Output, Rate};
use crate::say;
use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A histogram as it travels between processes: values and how often.
pub(crate) type Sparse = Vec<(u64, u64)>;

/// What one process found. Counts are ticks, unless they say otherwise.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Partial {
    pub scheduled: u64,
    pub sent: u64,
    pub acked: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub unanswered: u64,
    pub busy_frames: u64,
    pub stalls: u64,
    pub lost_ticks: u64,
    pub surplus_ticks: u64,
    pub firings_expected: u64,
    pub firings_received: u64,
    pub firings_missing: u64,
    pub firings_unexpected: u64,
    pub firings_repeated: u64,
    pub measured: u64,
    pub measured_ns: u64,
    pub cpu_ns: u64,
    pub ack_ns: Sparse,
    pub reflex_ns: Sparse,
    pub scheduling: String,
    pub errors: Vec<String>,
}

impl Partial {
    /// Adds what another process found.
    pub(crate) fn merge(&mut self, other: Self) {
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.acked += other.acked;
        self.duplicates += other.duplicates;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.busy_frames += other.busy_frames;
        self.stalls += other.stalls;
        self.lost_ticks += other.lost_ticks;
        self.surplus_ticks += other.surplus_ticks;
        self.firings_expected += other.firings_expected;
        self.firings_received += other.firings_received;
        self.firings_missing += other.firings_missing;
        self.firings_unexpected += other.firings_unexpected;
        self.firings_repeated += other.firings_repeated;
        self.measured += other.measured;
        self.measured_ns = self.measured_ns.max(other.measured_ns);
        self.cpu_ns += other.cpu_ns;
        self.ack_ns.extend(other.ack_ns);
        self.reflex_ns.extend(other.reflex_ns);
        self.scheduling = other.scheduling;
        self.errors.extend(other.errors);
    }
}

/// What is in a histogram.
pub(crate) fn sparse(histogram: &Histogram<u64>) -> Sparse {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// Percentiles. **Units:** microseconds; null when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<f64>,
    /// 99 of 100 are at or below.
    pub p99: Option<f64>,
    /// 999 of 1,000 are at or below.
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| (!histogram.is_empty()).then(|| (ns as f64 / 100.0).round() / 10.0);
        Self {
            p50: us(histogram.value_at_quantile(0.5)),
            p99: us(histogram.value_at_quantile(0.99)),
            p999: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
        }
    }

    fn of_sparse(values: &Sparse) -> Self {
        let Ok(mut histogram) = crate::drive::histogram() else { return Self::default() };
        for (value, count) in values {
            histogram.saturating_record_n(*value, *count);
        }
        Self::of(&histogram)
    }

    pub(crate) fn line(&self) -> String {
        let us = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        format!(
            "p50 {:>9}   p99 {:>9}   p99.9 {:>9}   max {:>9}   us",
            us(self.p50),
            us(self.p99),
            us(self.p999),
            us(self.max)
        )
    }
}

/// A run of `ingest`. The first keys are those that scripts depend on; none is ever renamed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Ticks the schedule asked for; at `--rate max` those that were sent.
    pub offered: u64,
    /// Ticks acknowledged as stored.
    pub acked: u64,
    /// Acknowledged ticks per second, after the warm-up.
    pub ticks_per_second: f64,
    /// Send to ack, each tick counted.
    pub ack_us: Percentiles,
    /// Send of the tick to the arrival of its firing.
    pub reflex_us: Percentiles,
    /// Frames that the node refused as `Busy` and got again.
    pub busy: u64,
    /// `lost_ticks` + `lost_firings`.
    pub lost: u64,
    /// Acknowledged and not stored.
    pub lost_ticks: u64,
    /// Due by the tape and not received.
    pub lost_firings: u64,
    /// Stored more often than sent.
    pub surplus_ticks: u64,
    /// Due by the tape.
    pub firings_expected: u64,
    /// Received, each counted once.
    pub firings_received: u64,
    /// Received without a reason.
    pub firings_unexpected: u64,
    /// Received again with the same id.
    pub firings_repeated: u64,
    /// Acknowledged as known before.
    pub duplicates: u64,
    /// Refused for good.
    pub refused: u64,
    /// Sent, and nothing was heard.
    pub unanswered: u64,
    /// Asked for by the schedule, and never sent because the node was behind.
    pub unsent: u64,
    /// How often `Busy` began.
    pub busy_stalls: u64,
    /// What was measured, without the warm-up.
    pub seconds: f64,
    /// Ticks per second times 64.
    pub mb_per_second: f64,
    /// `intended` (open loop) or `actual` (closed by the window): what latency counts from.
    pub latency_from: &'static str,
    /// CPU this harness took for a tick, system calls and firings included.
    pub load_cpu_ns_per_tick: f64,
    /// CPUs the harness may use.
    pub cores: usize,
    /// The class of its sending threads.
    pub scheduling: String,
    /// What else went wrong.
    pub errors: Vec<String>,
}

impl Report {
    pub(crate) fn new(args: &IngestArgs, partial: &Partial) -> Self {
        let seconds = partial.measured_ns as f64 / 1e9;
        let ticks_per_second = if seconds > 0.0 { (partial.measured as f64 / seconds).round() } else { 0.0 };
        let open = matches!(args.rate, Rate::PerSecond(_));
        Self {
            offered: if open { partial.scheduled } else { partial.sent },
            acked: partial.acked,
            ticks_per_second,
            ack_us: Percentiles::of_sparse(&partial.ack_ns),
            reflex_us: Percentiles::of_sparse(&partial.reflex_ns),
            busy: partial.busy_frames,
            lost: partial.lost_ticks + partial.firings_missing,
            lost_ticks: partial.lost_ticks,
            lost_firings: partial.firings_missing,
            surplus_ticks: partial.surplus_ticks,
            firings_expected: partial.firings_expected,
            firings_received: partial.firings_received,
            firings_unexpected: partial.firings_unexpected,
            firings_repeated: partial.firings_repeated,
            duplicates: partial.duplicates,
            refused: partial.refused,
            unanswered: partial.unanswered,
            unsent: partial.scheduled.saturating_sub(partial.sent),
            busy_stalls: partial.stalls,
            seconds: (seconds * 1e3).round() / 1e3,
            mb_per_second: (ticks_per_second * 64.0 / 1e5).round() / 10.0,
            latency_from: if open { "intended" } else { "actual" },
            load_cpu_ns_per_tick: (partial.cpu_ns as f64 / partial.sent.max(1) as f64 * 10.0).round() / 10.0,
            cores: crate::host::cores(),
            scheduling: partial.scheduling.clone(),
            errors: partial.errors.clone(),
        }
    }

    /// Everything acknowledged is there exactly once, and exactly what had to fire has fired.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let wrong = self.lost + self.surplus_ticks + self.firings_unexpected + self.unanswered;
        wrong == 0 && self.errors.is_empty()
    }

    pub(crate) fn print(&self, output: Output) -> Result<()> {
        self.errors.iter().for_each(say::words);
        if output == Output::Json {
            return say::figures(serde_json::to_string(self)?);
        }
        let (rate, mb, seconds) = (self.ticks_per_second, self.mb_per_second, self.seconds);
        let (cores, class, cost) = (self.cores, &self.scheduling, self.load_cpu_ns_per_tick);
        let (ticks, firings, surplus) = (self.lost_ticks, self.lost_firings, self.surplus_ticks);
        let lines = [
            format!("ticks       {} offered, {} acked, {} unsent", self.offered, self.acked, self.unsent),
            format!("throughput  {rate:.0} ticks/s, {mb:.1} MB/s over {seconds:.1} s"),
            format!("ack         {}   from the {} send", self.ack_us.line(), self.latency_from),
            format!("reflex      {}", self.reflex_us.line()),
            format!(
                "firings     {} expected, {} received, {} unexpected, {} repeated",
                self.firings_expected, self.firings_received, self.firings_unexpected, self.firings_repeated
            ),
            format!(
                "refusals    {} frames busy ({} times), {} ticks refused, {} duplicates, {} unanswered",
                self.busy, self.busy_stalls, self.refused, self.duplicates, self.unanswered
            ),
            format!("harness     {cost:.1} ns of CPU per tick, {cores} cores, {class}"),
            format!("lost        {} ({ticks} ticks, {firings} firings), {surplus} ticks stored too often", self.lost),
        ];
        say::figures(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_scripts_depend_on_come_first_and_keep_their_names() {
        let args = IngestArgs { seconds: 1.0, ..default_args() };
        let partial = Partial {
            scheduled: 10,
            sent: 10,
            acked: 10,
            measured: 9,
            measured_ns: 900_000_000,
            ack_ns: vec![(1_000, 99), (100_000, 1)],
            ..Partial::default()
        };
        let json = serde_json::to_string(&Report::new(&args, &partial)).unwrap();
        let start = r#"{"offered":10,"acked":10,"ticks_per_second":10.0,"ack_us":{"p50":1.0,"p99":1.0,"p999":"#;
        assert!(json.starts_with(start), "{json}");
        assert!(json.contains(r#""reflex_us":{"p50":null,"p99":null,"p999":null,"max":null},"busy":0,"lost":0,"#));
    }

    #[test]
    fn what_was_lost_in_one_process_is_lost_in_the_whole() {
        let mut whole = Partial { measured_ns: 5, firings_missing: 1, ..Partial::default() };
        whole.merge(Partial { measured_ns: 4, lost_ticks: 2, ack_ns: vec![(1, 1)], ..Partial::default() });
        let report = Report::new(&default_args(), &whole);
        assert_eq!((report.lost, whole.measured_ns, report.is_sound()), (3, 5, false));
    }

    fn default_args() -> IngestArgs {
        use clap::Parser;
        let cli = crate::args::Cli::try_parse_from(["myelin-load", "ingest"]).unwrap();
        let crate::args::Mode::Ingest(args) = cli.mode else { panic!("not ingest") };
        args
    }
}
