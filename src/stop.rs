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
    health.cores.iter().for_each(|core| core.ask_to_stop());
    let quiet = async {
        while !health.cores.iter().all(|core| core.has_stopped()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = quiet => true,
        () = tokio::time::sleep(PATIENCE) => false,
        _ = signals.any() => false,
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
