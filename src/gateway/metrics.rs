//! `GET /metrics`: what the cores count, in Prometheus' text format, rendered at the scrape.

use crate::health::{BUCKETS_US, CoreHealth, Health, Stage};
use axum::extract::State;
use std::fmt::Write as _;
use std::sync::Arc;

type Read = fn(&CoreHealth) -> u64;

const GAUGES: [(&str, &str, &str, Read); 7] = [
    ("myelin_connections", "gauge", "Open connections.", |core| core.connections.get()),
    ("myelin_bad_frames_total", "counter", "Connections ended by bytes that were no frame.", |core| core.bad_frames.get()),
    ("myelin_log_spares", "gauge", "Log segments ready for a roll.", |core| core.spares.get()),
    ("myelin_unsealed_rows", "gauge", "Rows in memory and in the log only.", |core| core.unsealed_rows.get()),
    ("myelin_checkpoints_total", "counter", "Checkpoints since the start.", |core| core.checkpoints.get()),
    ("myelin_rows_accepted_total", "counter", "Ticks and quotes stored since the start.", |core| core.rows_accepted.get()),
    ("myelin_firings_total", "counter", "Firings since the start.", |core| core.firings.get()),
];

/// The whole page.
pub async fn scrape(State(health): State<Arc<Health>>) -> String {
    let mut page = String::new();
    for (name, kind, help, read) in GAUGES {
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (number, core) in health.cores.iter().enumerate() {
            let _ = writeln!(page, "{name}{{core=\"{number}\"}} {}", read(core));
        }
    }
    let name = "myelin_stage_seconds";
    let _ = writeln!(page, "# HELP {name} How long a stage of a tick's journey takes.\n# TYPE {name} histogram");
    for (number, core) in health.cores.iter().enumerate() {
        for stage in Stage::ALL {
            let labels = format!("core=\"{number}\",stage=\"{}\"", stage.name());
            let (buckets, sum_us) = core.histogram(stage).read();
            let mut total = 0;
            for (at, count) in buckets.iter().enumerate() {
                total += count;
                let bound = BUCKETS_US.get(at).map_or("+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
                let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
            }
            let _ = writeln!(page, "{name}_sum{{{labels}}} {}", sum_us as f64 / 1e6);
            let _ = writeln!(page, "{name}_count{{{labels}}} {total}");
        }
    }
    page
}
