//! The clock: two readings, each with its name. Nothing outside `runtime` and the binaries' mains reads time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time since the process first asked; never goes back. **Units:** nanoseconds.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    elapsed.as_nanos() as u64
}

/// The wall clock. **Units:** nanoseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}
