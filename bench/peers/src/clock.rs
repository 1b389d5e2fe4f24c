//! The one place that reads the clock and sleeps, and what a measured interval becomes.

use anyhow::Result;
use hdrhistogram::Histogram;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// **Units:** nanoseconds.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Never goes back. **Units:** nanoseconds since the first call.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now_ns() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Sleeps until then, if it is not past.
#[expect(clippy::disallowed_methods, reason = "who sends by a schedule waits for it")]
pub(crate) fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
}

/// Sharp timers for this thread: the kernel's habit is up to 50 us late. As `myelin-load` does it.
pub(crate) fn settle() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Up to a minute, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60 * SECOND_NS, 3)?)
}

/// **Units:** microseconds.
pub(crate) fn quantile_us(taken: &Histogram<u64>, quantile: f64) -> f64 {
    taken.value_at_quantile(quantile) as f64 / 1e3
}

/// What one connection did in a measurement at full rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The first of these seconds are not measured, as in `myelin-load`: a tenth, at most one.
    pub from_ns: u64,
    /// No more is sent.
    pub until_ns: u64,
    /// Acknowledged after `from_ns`.
    pub ticks: u64,
    /// The last of them. **Units:** nanoseconds of our clock.
    pub last_ns: u64,
}

impl Span {
    pub(crate) fn starting_now(seconds: f64) -> Self {
        let start_ns = now_ns();
        let from_ns = start_ns + ((seconds / 10.0).min(1.0) * 1e9) as u64;
        Self { from_ns, until_ns: start_ns + (seconds * 1e9) as u64, ticks: 0, last_ns: from_ns }
    }

    pub(crate) fn acked(&mut self, now_ns: u64, ticks: u64) {
        if now_ns >= self.from_ns {
            self.ticks += ticks;
            self.last_ns = now_ns;
        }
    }

    /// Ticks per second of all connections of one measurement together.
    pub(crate) fn rate(all: &[Self]) -> f64 {
        let ticks: u64 = all.iter().map(|span| span.ticks).sum();
        let from_ns = all.iter().map(|span| span.from_ns).min().unwrap_or(0);
        let last_ns = all.iter().map(|span| span.last_ns.max(span.until_ns)).max().unwrap_or(0);
        ticks as f64 * 1e9 / (last_ns - from_ns).max(1) as f64
    }
}
