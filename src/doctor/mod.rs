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
//! version numbers. With `--tls-cert` it says until when a certificate
//! holds. Deliberately absent: changing anything.

mod bench;
mod disk;
mod host;

use crate::at_rest::{Exit, Form, Printed, Table, complain, print};
use crate::runtime::clock;
use bench::Bench;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A certificate that ends sooner is told before it does. **Units:** seconds.
const EXPIRES_SOON: i64 = 30 * 86_400;

/// What `doctor` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Where the data directory is or will be.
    #[arg(long, value_name = "DIR", default_value = "myelin-data")]
    dir: PathBuf,
    /// Measures round trip, hop and syncs, and says which published figures this host can reach. Takes some seconds.
    #[arg(long)]
    bench: bool,
    /// A node's certificate: says until when it holds.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
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

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
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

impl Printed for Report {
    fn text(&self) -> String {
        text(self)
    }

    fn rows(&self) -> Table {
        let mut table = Table::new(&["check", "state", "found", "fix"]);
        for check in &self.checks {
            let fix = check.fix.clone().unwrap_or_default();
            table.row([check.check.to_owned(), check.state.as_str().to_owned(), check.found.clone(), fix]);
        }
        table
    }
}

/// Performs the verb and says how it ended.
#[must_use]
pub fn run(args: &Doctor) -> Exit {
    let mut checks = host::checks();
    checks.extend(disk::checks(&args.dir));
    checks.extend(args.tls_cert.as_deref().map(|path| certificate(path, clock::unix_ns() / 1_000_000_000)));
    let bench = args.bench.then(|| bench::run(&args.dir)).and_then(|bench| match bench {
        Ok(bench) => Some(bench),
        Err(error) => {
            checks.push(Check::bad("bench", error.to_string(), "mend what stands above"));
            None
        }
    });
    let fit = checks.iter().all(|check| check.state != State::Bad);
    match print(args.output, &Report { fit, checks, bench }) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(error);
            Exit::Unfit
        }
        _ if fit => Exit::Ok,
        _ => Exit::Unfit,
    }
}

/// Until when a certificate holds. **Units:** `now` in Unix seconds.
fn certificate(path: &Path, now: i64) -> Check {
    const CHECK: &str = "certificate";
    const RENEW: &str = "renew the file: a node that serves shows the new one within seconds";
    let held = match myelin_tls::expiry(path) {
        Ok(held) => held,
        Err(error) => return Check::bad(CHECK, error.to_string(), "name a certificate in PEM"),
    };
    let say =
        |seconds: i64| jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string());
    let until = say(held.not_after);
    if now < held.not_before {
        return Check::bad(CHECK, format!("holds from {} on", say(held.not_before)), "set the clock, or wait");
    }
    match held.not_after - now {
        ..0 => Check::bad(CHECK, format!("expired at {until}"), RENEW),
        left @ 0..EXPIRES_SOON => Check::warn(CHECK, format!("expires at {until}, in {} days", left / 86_400), RENEW),
        _ => Check::ok(CHECK, format!("holds until {until}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_before_it_ends_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.crt");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 31);
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let at = |day: &str| format!("{day}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second();
        for (day, state, found) in [
            ("2025-12-31", State::Bad, "holds from 2026-01-01"),
            ("2026-06-01", State::Ok, "holds until 2026-12-31"),
            ("2026-12-11", State::Warn, "in 20 days"),
            ("2027-01-01", State::Bad, "expired at 2026-12-31"),
        ] {
            let check = certificate(&path, at(day));
            assert!(check.state == state && check.found.contains(found), "{day}: {check:?}");
        }
        assert_eq!(certificate(dir.path(), 0).state, State::Bad);
    }
}
