//! When to end: a signal that asks for it, or nobody who reads stdout any more.
//!
//! ```text
//!   Ctrl-C (SIGINT) | SIGTERM | a closed terminal (SIGHUP) | the other end of stdout's pipe is closed -> asked()
//! ```
//!
//! From [`Stop::signals`] on a signal ends nothing by itself: whoever listens cleans up, and ends. One that whoever started us
//! had told us to ignore (`nohup`, the background of a script) stays ignored. Deliberately absent: what cannot be heard
//! (`kill -9`), and a write that nobody takes up: it waits until its reader reads, or leaves.

use crate::exit::{Exit, Failure};
use crate::output::Io;
use std::io;
use std::os::fd::AsFd as _;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// The terminal is closed.
    HungUp,
    /// Nobody reads what is printed.
    Unread,
}

impl From<Why> for Exit {
    fn from(why: Why) -> Self {
        match why {
            Why::Interrupted => Self::Interrupted,
            Why::Terminated => Self::Terminated,
            Why::HungUp => Self::HungUp,
            Why::Unread => Self::Ok,
        }
    }
}

/// Listens for the end.
pub(crate) struct Stop {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
    /// Our end of stdout, where it has another one: a file is always there. Nothing is written by this way.
    stdout: Option<Sender>,
}

impl Stop {
    /// From here on signals are heard, and a reader who leaves.
    pub(crate) fn listen(io: &Io<'_>) -> Result<Self, Failure> {
        // Unchecked: the checked way makes stdout non-blocking, for whoever shares it with us too.
        let end = || Sender::from_owned_fd_unchecked(io::stdout().as_fd().try_clone_to_owned().ok()?).ok();
        let stdout = if io.out_is_stdout { end() } else { None };
        Ok(Self { stdout, ..Self::signals()? })
    }

    /// From here on signals are heard.
    pub(crate) fn signals() -> Result<Self, Failure> {
        let ignored = ignored();
        let heard = |kind: SignalKind| {
            let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
            if is_ignored { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            interrupt: heard(SignalKind::interrupt())?,
            terminate: heard(SignalKind::terminate())?,
            hang_up: heard(SignalKind::hangup())?,
            stdout: None,
        })
    }

    /// Returns when it is time to end; a signal is told each time, a reader who left once. Nothing is lost when it is dropped.
    pub(crate) async fn asked(&mut self) -> Why {
        let why = self.heard().await;
        if why == Why::Unread {
            // It stays so: told again, it would cut short what is done for the sake of the end.
            self.stdout = None;
        }
        why
    }

    async fn heard(&mut self) -> Why {
        let Self { interrupt, terminate, hang_up, stdout } = self;
        let unread = async {
            match stdout {
                Some(end) => drop(end.ready(Interest::ERROR).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = came(interrupt) => Why::Interrupted,
            () = came(terminate) => Why::Terminated,
            () = came(hang_up) => Why::HungUp,
            () = unread => Why::Unread,
        }
    }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Signals that were ignored when we were started, a bit each, the first for number 1; none where the system does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
