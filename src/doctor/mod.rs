//! `myelin doctor`: whether this host can carry a node, line by line, each with the one-line fix.
//!
//! ```text
//!   host.rs   kernel, io_uring, memlock, open files, clock, CPUs, scheduling, huge pages, ports
//!   disk.rs   the folder: file system, room, O_DIRECT, what a sync takes (in files of its own, removed again)
//!   bench.rs  --bench: round trip, hop, sync; and which published figures follow from them
//! ```
//!
//! `ok` needs nothing, `warn` works and is slower or smaller, `bad` does not keep what it promises: exit code 7.
//! What a node would do is tried by the node's own code (`runtime::choose`, the log's `Directory`), not guessed from
//! version numbers. Deliberately absent: changing anything.

mod bench;
mod disk;
mod host;

use crate::at_rest::{Exit, Form, Table, print};
use bench::Bench;
use serde::Serialize;
use std::path::PathBuf;

/// What `doctor` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Where the data directory is or will be.
    #[arg(long, value_name = "DIR", default_value = "myelin-data")]
    dir: PathBuf,
    /// Measures round trip, hop and syncs, and says which published figures this host can reach. Takes some seconds.
    #[arg(long)]
    bench: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Bad,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    found: String,
    fix: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), fix: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, state: State::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn bad(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Bad, ..Self::warn(check, found, fix) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    fit: bool,
    checks: Vec<Check>,
    bench: Option<Bench>,
}

/// Performs the verb and says how it ended.
#[must_use]
pub fn run(args: &Doctor) -> Exit {
    let mut checks = host::checks();
    checks.extend(disk::checks(&args.dir));
    let bench = args.bench.then(|| bench::run(&args.dir)).and_then(|bench| match bench {
        Ok(bench) => Some(bench),
        Err(error) => {
            checks.push(Check::bad("bench", error.to_string(), "mend what stands above"));
            None
        }
    });
    let fit = checks.iter().all(|check| check.state != State::Bad);
    match print(args.output, &Report { fit, checks, bench }, text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("myelin: {error}");
            Exit::Unfit
        }
        _ if fit => Exit::Ok,
        _ => Exit::Unfit,
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let mut table = Table::new(&["check", "state", "found"]);
    for check in &report.checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Bad => "BAD",
        };
        let fix = check.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
        table.row([check.check.to_owned(), state.to_owned(), format!("{}{fix}", check.found)]);
    }
    let bench = report.bench.as_ref().map(Bench::text).unwrap_or_default();
    let verdict = if report.fit { "fit to carry a node" } else { "NOT fit to carry a node" };
    format!("{}\n{bench}{verdict}\n", table.text())
}
