//! `GET /metrics`: what the cores count, in Prometheus' text format, rendered at the scrape.

use super::failure::Failure;
use super::{Nothing, Shared, parameters};
use crate::health::{BUCKETS_NS, CoreHealth, CoreHealthRef, Gauge, Histogram, Stage, Until};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use myelin_wire::Code;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// What the gateway counts.
#[derive(Debug, Default)]
pub struct Requests {
    /// By route and status: a few dozen.
    answered: Mutex<BTreeMap<(&'static str, u16), u64>>,
    turned_away: Gauge,
    /// Bodies that no core saw, by code.
    refused: Mutex<BTreeMap<String, u64>>,
    /// Streams that we ended, by code.
    ended: Mutex<BTreeMap<String, u64>>,
}

impl Requests {
    /// A response is on its way.
    pub fn answered(&self, route: &'static str, status: u16) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() += 1;
    }

    /// A body was refused for what it says, before any core saw it.
    pub fn refused(&self, code: &str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code.to_owned()).or_default() += 1;
    }

    /// A stream of events was ended, and its watcher told.
    pub fn ended(&self, code: &str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(code.to_owned()).or_default() += 1;
    }

    /// A connection was closed because there was no place for it.
    pub fn turned_away(&self) {
        self.turned_away.add(1);
    }
}

/// The route's name, whatever its parameters.
pub fn route(path: &str) -> &'static str {
    match path {
        "/v2/ingest" => "/v2/ingest",
        "/v2/markets" => "/v2/markets",
        "/v2/watch" => "/v2/watch",
        "/v2/tail" => "/v2/tail",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        _ if path == "/v2/retention" || path.starts_with("/v2/retention/") => "/v2/retention",
        _ if path == "/v2/reflexes" || path.starts_with("/v2/reflexes/") => "/v2/reflexes",
        _ if path.starts_with("/v2/query/as_of/") => "/v2/query/as_of",
        _ => "other",
    }
}

type Read = fn(&CoreHealth) -> u64;

const GAUGES: [(&str, &str, &str, Read); 12] = [
    ("myelin_connections", "gauge", "Open connections.", |core| core.connections.get()),
    ("myelin_bad_frames_total", "counter", "Connections ended by bytes that were no frame.", |core| {
        core.bad_frames.get()
    }),
    ("myelin_log_spares", "gauge", "Log segments ready for a roll.", |core| core.spares.get()),
    ("myelin_unsealed_rows", "gauge", "Rows in memory and in the log only.", |core| core.unsealed_rows.get()),
    ("myelin_checkpoints_total", "counter", "Checkpoints since the start.", |core| core.checkpoints.get()),
    ("myelin_rows_accepted_total", "counter", "Ticks and quotes stored since the start.", |core| {
        core.rows_accepted.get()
    }),
    ("myelin_rows_dropped_total", "counter", "Ticks and quotes dropped by policy since the start.", |core| {
        core.rows_dropped.get()
    }),
    ("myelin_firings_total", "counter", "Firings since the start.", |core| core.firings.get()),
    ("myelin_rows_duplicate_total", "counter", "Ticks and quotes that were there already, since the start.", |core| {
        core.duplicates.get()
    }),
    ("myelin_sessions", "gauge", "Sessions that are remembered.", |core| core.sessions.get()),
    ("myelin_subscriptions", "gauge", "Subscriptions to firings.", |core| core.subscriptions.get()),
    ("myelin_tails", "gauge", "Readers of the log.", |core| core.tails.get()),
];

/// The whole page.
pub async fn scrape(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Nothing>, QueryRejection>,
) -> Result<String, Failure> {
    let Nothing {} = parameters(query)?;
    let health = &shared.health;
    let mut page = String::new();
    for (name, kind, help, read) in GAUGES {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (number, core) in health.cores.iter().enumerate() {
            let _ = writeln!(page, "{name}{{core=\"{number}\"}} {}", read(core));
        }
    }
    refusals(&mut page, &health.cores, &shared.requests);
    rows_refused(&mut page, &health.cores);
    let name = "myelin_stage_seconds";
    let _ = writeln!(page, "# HELP {name} How long a stage of a tick's journey takes.\n# TYPE {name} histogram");
    for (number, core) in health.cores.iter().enumerate() {
        for stage in Stage::ALL {
            let labels = format!("core=\"{number}\",stage=\"{}\"", stage.name());
            histogram(&mut page, name, &labels, core.histogram(stage));
        }
    }
    let name = "myelin_since_received_seconds";
    let _ = writeln!(
        page,
        "# HELP {name} From a frame's taking until it was durable, acked, fired.\n# TYPE {name} histogram"
    );
    for (number, core) in health.cores.iter().enumerate() {
        for until in Until::ALL {
            let labels = format!("core=\"{number}\",until=\"{}\"", until.name());
            histogram(&mut page, name, &labels, core.since_received(until));
        }
    }
    requests(&mut page, &shared.requests);
    Ok(page)
}

fn histogram(page: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let (buckets, sum_ns) = histogram.read();
    let mut total = 0;
    for (at, count) in buckets.iter().enumerate() {
        total += count;
        let bound = BUCKETS_NS.get(at).map_or("+Inf".to_owned(), |ns| (*ns as f64 / 1e9).to_string());
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
    }
    let _ = writeln!(page, "{name}_sum{{{labels}}} {}", sum_ns as f64 / 1e9);
    let _ = writeln!(page, "{name}_count{{{labels}}} {total}");
}

/// Those there were, and those that pass by themselves, so that their rate is known before the first; the gateway's own beside
/// those of the cores.
fn refusals(page: &mut String, cores: &[CoreHealthRef], requests: &Requests) {
    let name = "myelin_refusals_total";
    let _ = writeln!(
        page,
        "# HELP {name} Requests that were refused since the start, by a core or before any saw them.\n# TYPE {name} counter"
    );
    for (number, core) in cores.iter().enumerate() {
        counted(page, name, number, core.refusals.read().filter(|(code, count)| *count > 0 || code.passes()));
    }
    for (code, count) in &*requests.refused.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = writeln!(page, "{name}{{core=\"gateway\",code=\"{code}\"}} {count}");
    }
}

/// Those there were.
fn rows_refused(page: &mut String, cores: &[CoreHealthRef]) {
    let name = "myelin_rows_refused_total";
    let _ = writeln!(
        page,
        "# HELP {name} Rows left out since the start of requests that asked for a verdict on each.\n# TYPE {name} counter"
    );
    for (number, core) in cores.iter().enumerate() {
        counted(page, name, number, core.rows_refused.read().filter(|(_, count)| *count > 0));
    }
}

fn counted(page: &mut String, name: &str, core: usize, counts: impl Iterator<Item = (Code, u64)>) {
    for (code, count) in counts {
        let _ = writeln!(page, "{name}{{core=\"{core}\",code=\"{}\"}} {count}", code.name());
    }
}

fn requests(page: &mut String, requests: &Requests) {
    let name = "myelin_http_requests_total";
    let _ = writeln!(page, "# HELP {name} Requests answered by the gateway.\n# TYPE {name} counter");
    for ((route, status), count) in &*requests.answered.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = writeln!(page, "{name}{{route=\"{route}\",status=\"{status}\"}} {count}");
    }
    let name = "myelin_http_watchers_ended_total";
    let _ = writeln!(page, "# HELP {name} Streams of events that the gateway ended.\n# TYPE {name} counter");
    for (code, count) in &*requests.ended.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = writeln!(page, "{name}{{code=\"{code}\"}} {count}");
    }
    let name = "myelin_http_connections_turned_away_total";
    let _ = writeln!(page, "# HELP {name} Connections to the gateway that found no place.\n# TYPE {name} counter");
    let _ = writeln!(page, "{name} {}", requests.turned_away.get());
}
