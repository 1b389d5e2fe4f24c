//! The seam: which executor runs a data core, and the only home of clock, threads and entropy.
//!
//! ```text
//!   data core thread, pinned          Executor::Uring     glommio: one io_uring executor
//!                                     Executor::Portable  tokio current_thread + LocalSet
//!   sync, seal, gateway threads       plain threads, named and placed by `threads`
//! ```
//!
//! Everything above this folder is written once: tasks are spawned with [`spawn_local`], sockets are [`net`]'s, a task is
//! woken from another thread by its `Waker`, which both executors honour. Deliberately absent: executor-specific types in
//! any signature, channels that lock.

pub mod awake;
pub mod clock;
pub mod entropy;
pub mod net;
pub mod place;
pub mod ring;
#[cfg(target_os = "linux")]
pub mod sigbus;
pub mod threads;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Who runs a data core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// glommio on io_uring; Linux only.
    Uring,
    /// tokio's `current_thread`; anywhere.
    Portable,
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Portable => "portable",
        })
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// io_uring where it works, else portable.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// The portable executor.
    Portable,
}

/// What was chosen, and what was lost by it.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Who will run the data cores.
    pub executor: Executor,
    /// Why not the better one, with the one-line fix.
    pub degraded: Option<String>,
}

/// Chooses the executor for `cores` data cores.
///
/// **Errors:** only when io_uring was demanded and does not work; `auto` never refuses.
pub fn choose(wanted: Wanted, cores: usize) -> Result<Chosen, String> {
    let portable = |degraded| Chosen { executor: Executor::Portable, degraded };
    match wanted {
        Wanted::Portable => Ok(portable(None)),
        Wanted::Uring => probe_uring(cores).map(|()| Chosen { executor: Executor::Uring, degraded: None }),
        Wanted::Auto => Ok(match probe_uring(cores) {
            Ok(()) => Chosen { executor: Executor::Uring, degraded: None },
            Err(reason) => portable(Some(reason)),
        }),
    }
}

#[cfg(not(target_os = "linux"))]
fn probe_uring(_cores: usize) -> Result<(), String> {
    Err("io_uring exists on Linux only".to_owned())
}

/// Builds as many executors as there will be cores, all at once, as their locked memory adds up, and drops them again.
#[cfg(target_os = "linux")]
fn probe_uring(cores: usize) -> Result<(), String> {
    let probe = threads::spawn(threads::Role::Probe, "myelin-probe".to_owned(), move || {
        let built: Result<Vec<_>, _> = (0..cores).map(|_| uring_builder(None).make()).collect();
        built.map(drop).map_err(|error| error.to_string())
    });
    let reason = match probe.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(error))) => error,
        Ok(Err(_)) => "io_uring could not be set up (the probe panicked)".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "io_uring is not available: {reason}. Fix: `ulimit -l {}` or /proc/sys/kernel/io_uring_disabled = 0",
        512 * cores.max(1)
    ))
}

#[cfg(target_os = "linux")]
fn uring_builder(cpu: Option<usize>) -> glommio::LocalExecutorBuilder {
    let placement = cpu.map_or(glommio::Placement::Unbound, glommio::Placement::Fixed);
    // Files are not read or written through glommio, so its registered buffers stay small.
    glommio::LocalExecutorBuilder::new(placement).io_memory(64 << 10).ring_depth(256).record_io_latencies(false)
}

thread_local! {
    static CURRENT: Cell<Option<Executor>> = const { Cell::new(None) };
}

/// The executor of this data core. **Panics** off a data core: only its tasks ask.
pub(crate) fn current() -> Executor {
    let current = CURRENT.get();
    assert!(current.is_some(), "asked for the executor off a data core");
    current.unwrap_or(Executor::Portable)
}

/// Runs `future` to its end on this thread, as a data core.
///
/// **Errors:** when the executor cannot be built.
pub fn run_core<T>(executor: Executor, cpu: Option<usize>, future: impl Future<Output = T>) -> Result<T, String> {
    CURRENT.set(Some(executor));
    match executor {
        #[cfg(target_os = "linux")]
        Executor::Uring => {
            let executor = uring_builder(cpu).make().map_err(|error| error.to_string())?;
            Ok(executor.run(future))
        }
        #[cfg(not(target_os = "linux"))]
        Executor::Uring => Err("io_uring exists on Linux only".to_owned()),
        Executor::Portable => {
            if let Some(cpu) = cpu.filter(|cpu| !threads::pin(*cpu)) {
                tracing::warn!(cpu, "the core could not be pinned");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
        }
    }
}

/// Starts a task on this data core; it ends with the core.
pub fn spawn_local(future: impl Future<Output = ()> + 'static) {
    match current() {
        #[cfg(target_os = "linux")]
        Executor::Uring => {
            glommio::spawn_local(future).detach();
        }
        #[cfg(not(target_os = "linux"))]
        Executor::Uring => {}
        Executor::Portable => {
            tokio::task::spawn_local(future);
        }
    }
}

/// Lets whoever waits on this data core go first, sockets and rings included. For a task that has more to do than a turn:
/// one that merely yields is run again before the executor looks at its sockets, for up to 100 ms.
pub async fn let_others_go() {
    match current() {
        // A timer, however short, is waited for in the ring; the sockets are looked at there.
        #[cfg(target_os = "linux")]
        Executor::Uring => glommio::timer::sleep(Duration::from_micros(1)).await,
        #[cfg(not(target_os = "linux"))]
        Executor::Uring => {}
        Executor::Portable => tokio::task::yield_now().await,
    }
}

/// Waits on this data core.
pub async fn sleep(duration: Duration) {
    match current() {
        #[cfg(target_os = "linux")]
        Executor::Uring => glommio::timer::sleep(duration).await,
        #[cfg(not(target_os = "linux"))]
        Executor::Uring => {}
        Executor::Portable => tokio::time::sleep(duration).await,
    }
}
