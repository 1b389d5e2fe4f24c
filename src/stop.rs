//! A planned stop: what is under way ends, what was said is sent, and the log says that nothing is missing behind its end.
//!
//! ```text
//!   SIGTERM, SIGINT -> every core: no new connection, writes are refused as `stopping`
//!                      -> until all is synced and said, and the log is marked; 5 s at most -> `listening` goes -> exit 0
//! ```
//!
//! It is a courtesy to clients and to who reads the log, and no more: whatever an ack promised is durable before the ack, so
//! that a node which is killed loses nothing either, and that is what the tests do. A second signal ends the wait.
//! Deliberately absent: a last checkpoint (the replay is bounded already), and waiting for subscribers (they resume).

use crate::health::Health;
use std::cell::Cell;
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a stop waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the cores. They look at the wish every 60 ms at least.
const LOOK: Duration = Duration::from_millis(5);

/// The signals that ask a process to end. From the moment this is made they do not end it by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// **Errors:** the system takes no handler. **Panics** outside of a tokio runtime with I/O.
    pub fn register() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one; gives its name.
    pub async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Asks every core to come to an end; true when all did in time.
pub async fn stop(health: &Health, signals: &mut Signals) -> bool {
    come_to_an_end(health, PATIENCE, signals.any()).await
}

/// The same within so long, or until somebody wants it at once.
async fn come_to_an_end(health: &Health, patience: Duration, at_once: impl Future<Output = &'static str>) -> bool {
    health.cores.iter().for_each(|core| core.ask_to_stop());
    let quiet = async {
        while !health.cores.iter().all(|core| core.has_stopped()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = quiet => true,
        () = tokio::time::sleep(patience) => false,
        _ = at_once => false,
    }
}

/// Rung once, by a task of this thread for another.
#[derive(Default)]
pub struct Bell {
    rung: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Bell {
    /// Rings it.
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until it has rung.
    pub async fn rung(&self) {
        std::future::poll_fn(|context| {
            if self.rung.get() {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::Arc;

    /// A core that ends its work when it is asked to, and one that may not.
    fn check(both_end: bool, patience: Duration, at_once: impl Future<Output = &'static str>) -> bool {
        let health = Health { cores: vec![Arc::default(), Arc::default()], degraded: Vec::new() };
        health.cores.iter().for_each(|core| core.set_ready());
        health.cores[0].set_stopped();
        let said = async {
            while health.cores.iter().any(|core| core.serves()) {
                tokio::task::yield_now().await;
            }
            assert!(health.cores.iter().all(|core| core.reasons() == ["stopping"]), "as `/readyz` says it");
            if both_end {
                health.cores[1].set_stopped();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::join!(come_to_an_end(&health, patience, at_once), said).0 })
    }

    #[test]
    fn a_stop_ends_with_the_last_core_or_when_its_time_is_over_or_at_a_second_signal() {
        const LONG: Duration = Duration::from_secs(3600);
        assert!(check(true, LONG, pending()));
        assert!(!check(false, Duration::from_millis(20), pending()), "a request is held past its time");
        assert!(!check(false, LONG, ready("SIGTERM")));
    }
}
