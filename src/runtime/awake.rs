//! Keeps a core's CPU from halting while an answer is on its way.
//!
//! ```text
//!   core   start of a sync ----------> its end ---> reply
//!   keeper [ spins at the lowest class there is: whoever can run, runs ][ a little longer ][ parked ]
//! ```
//!
//! A CPU that halts has to be woken: 30 to 70 µs on a virtual machine, several times on the way of one tick, beside a sync
//! of 130. The keeper is a thread of class SCHED_IDLE on the core's own CPU: it never takes a moment that another thread
//! could use, and a core that has nothing under way lets it park. Measured, one tick at a time: 293 µs without, 250 µs
//! with it (`myelin-load latency`, `awake_us` 0 and 600). What it costs is the power of a CPU that does not sleep between ticks, so it can be switched off.
//!
//! Refused: spinning in the core itself, which takes its CPU from sealing and the gateway; a timer that wakes the core
//! shortly before a sync ends, which the executor's clock is too coarse for. Deliberately absent where the system has no
//! such class: there a core just sleeps.

use super::clock;
use super::threads::{self, Role};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// The core's hold on its keeper.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// **Units:** microseconds of the monotonic clock.
    until_us: AtomicU64,
    parked: AtomicBool,
    ended: AtomicBool,
}

impl Keeper {
    /// A keeper for the CPU this thread runs on; `None` where there is no class below all others.
    #[must_use]
    pub fn start(name: String) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let (granted_in, granted) = std::sync::mpsc::sync_channel(1);
        let thread = threads::spawn(Role::Keeper, name, move || {
            let yields = threads::yield_to_all();
            let _told = granted_in.send(yields);
            if yields {
                keep(&theirs);
            }
        });
        let thread = thread.ok()?;
        granted.recv().unwrap_or(false).then(|| Self { shared, thread: thread.thread().clone() })
    }

    /// Keeps the CPU awake until then at least. **Units:** microseconds of the monotonic clock. **Cost:** a store; a wake when it
    /// had parked.
    pub fn stay_until(&self, until_us: u64) {
        self.shared.until_us.fetch_max(until_us, Ordering::SeqCst);
        if self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Spins between two looks at the clock: below a microsecond.
const SPINS: u32 = 32;

fn keep(shared: &Shared) {
    while !shared.ended.load(Ordering::SeqCst) {
        if clock::monotonic_ns() / 1000 < shared.until_us.load(Ordering::SeqCst) {
            for _ in 0..SPINS {
                std::hint::spin_loop();
            }
            continue;
        }
        shared.parked.store(true, Ordering::SeqCst);
        // Again, after the flag stands: a wish in between would wake nobody. The bound of a park covers a missed end.
        if clock::monotonic_ns() / 1000 >= shared.until_us.load(Ordering::SeqCst) {
            std::thread::park_timeout(std::time::Duration::from_millis(500));
        }
        shared.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now_us() -> u64 {
        clock::monotonic_ns() / 1000
    }

    #[test]
    fn a_keeper_parks_when_its_time_is_over_and_ends_with_its_core() {
        let Some(keeper) = Keeper::start("keeper-test".to_owned()) else {
            println!("skipped: this system grants no class below all others (SCHED_IDLE)");
            return;
        };
        let parked = || keeper.shared.parked.load(Ordering::SeqCst);
        keeper.stay_until(now_us() + 2_000);
        while !parked() {
            std::thread::yield_now();
        }
        assert!(now_us() >= keeper.shared.until_us.load(Ordering::SeqCst), "it parked before its time was over");
        let shared = Arc::downgrade(&keeper.shared);
        drop(keeper);
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
