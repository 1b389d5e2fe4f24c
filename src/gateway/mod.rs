//! The gateway thread: HTTP for people, probes and scrapers. Handlers only.
//!
//! | route | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when every core serves, else 503; reasons and degradations either way |
//! | `GET /metrics` | Prometheus text |

mod metrics;

use crate::health::Health;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Arc;

/// Serves until the process ends.
pub fn run(listener: TcpListener, health: Arc<Health>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let routes = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics::scrape))
            .with_state(health);
        axum::serve(listener, routes).await
    })
}

async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, Json<Value>) {
    let cores: Vec<Value> = health
        .cores
        .iter()
        .enumerate()
        .map(|(core, one)| json!({ "core": core, "serves": one.serves(), "reasons": one.reasons() }))
        .collect();
    let ready = health.cores.iter().all(|core| core.serves());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "cores": cores, "degraded": health.degraded })))
}
