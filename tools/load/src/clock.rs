//! The one place that reads clocks, waits and sleeps.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A second. **Units:** nanoseconds.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Never goes back. **Units:** nanoseconds since the first call in this process.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now_ns() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    EPOCH.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// **Units:** Unix nanoseconds.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn unix_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// CPU time of this process, system calls included. **Units:** nanoseconds.
pub(crate) fn cpu_ns() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * SECOND_NS + spent.tv_nsec as u64
}

/// Does nothing for as long as a node asked for.
#[expect(clippy::disallowed_methods, reason = "the node said how long to wait")]
pub(crate) fn pause(ns: u64) {
    std::thread::sleep(Duration::from_nanos(ns));
}

/// Wakes as soon as the socket can be read (or written, if asked for), at the latest after `timeout_ns`.
pub(crate) fn wait_for(socket: &TcpStream, writable: bool, timeout_ns: u64) -> std::io::Result<()> {
    let flags = if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let timeout = Timespec { tv_sec: (timeout_ns / SECOND_NS) as i64, tv_nsec: (timeout_ns % SECOND_NS) as _ };
    match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes this thread fit to measure: sharp timers, and real time if wanted. What was granted is reported elsewhere.
pub(crate) fn settle(realtime: bool) {
    #[cfg(target_os = "linux")]
    {
        // The kernel's habit is up to 50 us late. Refused only by odd sandboxes; then latencies tell.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
    if realtime && !make_realtime() {
        crate::say::words("real-time priority was not granted");
    }
}

fn make_realtime() -> bool {
    use thread_priority as tp;
    let policy = tp::ThreadSchedulePolicy::Realtime(tp::RealtimeThreadSchedulePolicy::RoundRobin);
    let Ok(level) = tp::ThreadPriorityValue::try_from(10_u8) else { return false };
    tp::set_thread_priority_and_policy(tp::thread_native_id(), tp::ThreadPriority::Crossplatform(level), policy).is_ok()
}

/// A random number, from the entropy that std seeds its hash tables with.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
