//! Who runs where: the table of threads, their names, places and priorities.
//!
//! | role    | where                    | priority                          |
//! |---------|--------------------------|-----------------------------------|
//! | sync    | on its core's CPU        | SCHED_RR 30 where it is granted   |
//! | core    | pinned to its CPU        | SCHED_RR 20 with `--realtime`     |
//! | gateway | any CPU of the process   | SCHED_OTHER, whatever was started |
//! | seal    | any CPU of the process   | SCHED_OTHER, whatever was started |
//! | reader  | any CPU of the process   | SCHED_OTHER, whatever was started |
//! | keeper  | on its core's CPU        | SCHED_IDLE, or it does not run    |
//!
//! A thread inherits the place of who starts it, and a core is pinned: what has no place of its own is let go, else it
//! would seal on the one CPU that is busy (3.0 instead of 4.2 M ticks/s). The sync thread stays with its core: waking it
//! there needs no signal to another CPU (305 against 320 µs an ack), and it never spins there. The link thread of the
//! replication will stand above them all. Real time is asked for, never assumed: what was granted is reported.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue,
    ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes and syncs one core's log.
    Sync,
    /// Runs shards.
    Core,
    /// HTTP and metrics.
    Gateway,
    /// Seals columns, prepares segments: blocking work without a deadline.
    Seal,
    /// Reads the log at a start (`recovery.rs`), and sealed rows for long reads (`shard/reading/`).
    Reader,
    /// Keeps a core's CPU awake: see `awake.rs`.
    Keeper,
    /// Tries something out at start and ends.
    Probe,
}

impl Role {
    const fn realtime(self) -> Option<u8> {
        match self {
            Self::Sync => Some(30),
            Self::Core => Some(20),
            Self::Gateway | Self::Seal | Self::Reader | Self::Keeper | Self::Probe => None,
        }
    }

    /// Work without a deadline never inherits the class the process was started with: a seal thread in a real-time class
    /// would hold up the very core it works for.
    const fn is_background(self) -> bool {
        matches!(self, Self::Gateway | Self::Seal | Self::Reader | Self::Probe)
    }
}

/// Starts a thread of this role.
pub fn spawn<T: Send + 'static>(
    role: Role,
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name).spawn(move || {
        settle(role);
        body()
    })
}

/// The same for a thread that ends within `scope`.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    role: Role,
    name: String,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name).spawn_scoped(scope, move || {
        settle(role);
        body()
    })
}

/// Takes a background thread out of the class and off the CPU of who started it.
fn settle(role: Role) {
    if role.is_background() {
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        // The ordinary class at the ordinary priority: at the lowest one sealing falls behind beside any other work, and
        // `Busy` follows. Where the system does not let us, the thread keeps what it has.
        let ordinary = ThreadPriorityValue::try_from(50).map_or(ThreadPriority::Min, ThreadPriority::Crossplatform);
        let _kept = set_thread_priority_and_policy(thread_native_id(), ordinary, policy);
        let _stays = unpin();
    }
}

/// Gives this thread the real-time priority of its role. True when it was granted.
pub fn make_realtime(role: Role) -> bool {
    let Some(priority) = role.realtime().and_then(|level| ThreadPriorityValue::try_from(level).ok()) else {
        return false;
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), policy).is_ok()
}

/// Pins this thread to a CPU. True when the system agreed.
pub fn pin(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// Lets this thread run wherever the process may. True when the system agreed.
#[cfg(target_os = "linux")]
fn unpin() -> bool {
    // The process's first thread is never pinned, so its CPUs are the process's.
    let process = rustix::thread::sched_getaffinity(Some(rustix::process::getpid()));
    process.is_ok_and(|cpus| rustix::thread::sched_setaffinity(None, &cpus).is_ok())
}

/// Elsewhere nothing was pinned for good.
#[cfg(not(target_os = "linux"))]
const fn unpin() -> bool {
    true
}

/// Puts this thread below all others: it runs only when its CPU has nothing else to do. True when the system agreed.
#[cfg(target_os = "linux")]
pub fn yield_to_all() -> bool {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).is_ok()
}

/// There is no such class elsewhere.
#[cfg(not(target_os = "linux"))]
pub const fn yield_to_all() -> bool {
    false
}

/// How many CPUs this process may use, at least one.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
