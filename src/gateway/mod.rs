//! The gateway thread: HTTP for people, probes, scrapers and programs. Handlers only.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v2/ingest` | rows in: 202 with the last `tx`, and what became of each part (`ingest.rs`) |
//! | `GET /v2/query/as_of/{tx}` | counts, averages, bars, the greatest (`query.rs`); rows (`pages.rs`); facts (`facts.rs`) |
//! | `GET /v2/markets` | every market and its rows |
//! | `GET /v2/retention`, `PUT`, `DELETE /v2/retention/{market}` | what is kept, and saying so (`retention.rs`) |
//! | `GET /v2/reflexes`, `DELETE /v2/reflexes/{id}` | standing questions, and removing one (`reflexes.rs`) |
//! | `GET /v2/watch` | firings as server-sent events (`watch.rs`) |
//! | `GET /v2/tail` | the log as server-sent events (`tail.rs`) |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when every core serves, else 503; reasons and degradations either way |
//! | `GET /metrics` | Prometheus text |
//!
//! The last three stand on the admin port too, without TLS and token.
//!
//! ```text
//!   socket -> serve (time and places) -> handler -> myelin_client -> loopback -> the node's own data cores
//! ```
//!
//! Invariants: the gateway is a client like any other, so whatever holds on the wire holds here; nothing it keeps is
//! without a bound (`limits.rs`). Deliberately absent: state of its own that would have to survive.

mod asked;
mod body;
#[cfg(test)]
mod campaign;
mod events;
mod facts;
mod failure;
mod guests;
mod ingest;
mod limits;
mod metrics;
mod names;
mod pages;
mod place;
mod query;
mod reflexes;
mod retention;
mod rows;
mod serve;
mod tail;
mod watch;

use crate::guard::{Guard, Token};
use crate::health::Health;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use body::Room;
use failure::{Failure, HttpCode};
use guests::Guests;
use metrics::Requests;
use myelin_client::{Client, Options, Tls};
use myelin_wire::Code;
use names::Names;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// What all handlers share.
struct Shared {
    health: Arc<Health>,
    /// Where each core is reached.
    cores: Vec<SocketAddr>,
    client: OnceCell<Client>,
    names: Names,
    guard: Guard,
    room: Room,
    guests: Guests,
    requests: Arc<Requests>,
    reads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

impl Shared {
    /// The node's client, connected when it is first asked for, through a core that serves: what the others do not answer
    /// they refuse by themselves. **Errors:** no core serves yet.
    async fn client(&self) -> Result<&Client, Failure> {
        let connect = || async {
            let none = || Failure::http(HttpCode::NotServing, "the node does not serve; /readyz has the reasons");
            let node = one_that_serves(&self.health, &self.cores).ok_or_else(none)?;
            let options = Options {
                name: "myelin gateway".to_owned(),
                reconnect_for: Duration::from_secs(3),
                busy_for: limits::BUSY_FOR,
                rows_per_frame: limits::ROWS_PER_FRAME,
                firings_window: limits::FIRINGS_WINDOW,
                tls: self.guard.own.clone().map(Tls::new),
                token: self.guard.token.as_ref().map(Token::reveal),
                ..Options::default()
            };
            Client::connect(&node.to_string(), options).await.map_err(|error| Failure::error(&error))
        };
        self.client.get_or_try_init(connect).await
    }

    /// A place for one more read.
    fn read(&self) -> Result<OwnedSemaphorePermit, Failure> {
        take_place(&self.reads, "as many reads as there are places for are under way")
    }
}

/// One of the places, or the advice to come back.
fn take_place(places: &Arc<Semaphore>, none: &str) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Failure::busy(none))
}

/// Where a core that serves is reached.
fn one_that_serves(health: &Health, cores: &[SocketAddr]) -> Option<SocketAddr> {
    health.cores.iter().zip(cores).find(|(core, _)| core.serves()).map(|(_, address)| *address)
}

/// Where a listener at this address is reached from this host.
const fn loopback(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

/// Serves until the process ends. `cores` is where each core listens.
pub fn run(
    listener: TcpListener,
    admin: TcpListener,
    cores: &[SocketAddr],
    health: Arc<Health>,
    guard: Guard,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(limits::BODY_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let adopt = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        let (listener, admin) = (adopt(listener)?, adopt(admin)?);
        let requests = Arc::new(Requests::default());
        let tls = guard.tls.clone().map(TlsAcceptor::from);
        let shared = Arc::new(Shared {
            health,
            guard,
            cores: cores.iter().copied().map(loopback).collect(),
            client: OnceCell::new(),
            names: Names::default(),
            room: Room::new(),
            guests: Guests::default(),
            requests: Arc::clone(&requests),
            reads: Arc::new(Semaphore::new(limits::READS)),
            uploads: Arc::new(Semaphore::new(limits::UPLOADS)),
            watchers: Arc::new(Semaphore::new(limits::WATCHERS)),
        });
        tokio::spawn(renew(shared.guard.clone()));
        tokio::spawn(serve::serve(admin, admin_routes(Arc::clone(&shared)), Arc::clone(&requests), None));
        serve::serve(listener, routes(shared), requests, tls).await;
        Ok(())
    })
}

/// Looks after the certificate's files, for the data cores too, which read no file while they run.
async fn renew(guard: Guard) {
    while guard.certificate.is_some() {
        tokio::time::sleep(limits::LOOK_EVERY).await;
        let guard = guard.clone();
        let _looked = tokio::task::spawn_blocking(move || guard.look()).await;
    }
}

/// What needs no token, on a port of its own: whoever watches over the host need not know it.
fn admin_routes(shared: Arc<Shared>) -> Router {
    counted(told_of_others(probes()), shared)
}

fn probes() -> Router<Arc<Shared>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).route("/metrics", get(metrics::scrape))
}

/// What is said of every other route.
fn told_of_others(routes: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    routes
        .fallback(|| async { Failure::http(HttpCode::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async { Failure::http(HttpCode::WrongMethod, "the route has another method") })
}

fn counted(routes: Router<Arc<Shared>>, shared: Arc<Shared>) -> Router {
    routes.layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), count)).with_state(shared)
}

fn routes(shared: Arc<Shared>) -> Router {
    let routes = probes()
        .route("/v2/ingest", post(ingest::ingest))
        .route("/v2/query/as_of/{tx}", get(query::as_of))
        .route("/v2/markets", get(query::markets))
        .route("/v2/retention", get(retention::list))
        .route("/v2/retention/{market}", put(retention::set).delete(retention::unset))
        .route("/v2/reflexes", get(reflexes::list))
        .route("/v2/reflexes/{id}", delete(reflexes::remove))
        .route("/v2/watch", get(watch::watch))
        .route("/v2/tail", get(tail::tail));
    // What is said of other routes is said to who shows the token.
    let allow = axum::middleware::from_fn_with_state(Arc::clone(&shared), allow);
    counted(told_of_others(routes).layer(allow), shared)
}

/// Lets a request in that shows the token, where one is wanted; probes need none.
async fn allow(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|shown| shown.to_str().ok());
    // A scheme's name is the same in capitals and not (RFC 9110, 11.1), and spaces follow it.
    let bearer =
        shown.and_then(|shown| shown.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let shown = bearer.map_or("", |(_, token)| token.trim_start_matches(' '));
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    match &shared.guard.token {
        Some(token) if !probe && !token.is(shown) => {
            let failure = Failure::wire(Code::Unauthorized, "show the node's token: Authorization: Bearer TOKEN");
            let mut response = failure.into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        _ => next.run(request).await,
    }
}

/// Counts a request by its route and status.
async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let route = metrics::route(request.uri().path());
    let response = next.run(request).await;
    shared.requests.answered(route, response.status().as_u16());
    response
}

/// The parameters of a request. **Errors:** one that cannot be read, or that is not known.
fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    query.map(|Query(parameters)| parameters).map_err(|error| Failure::http(HttpCode::BadQuery, error.body_text()))
}

/// What a path says. **Errors:** it is no text.
fn in_path(path: Result<Path<String>, PathRejection>) -> Result<String, Failure> {
    path.map(|Path(said)| said).map_err(|error| Failure::http(HttpCode::BadQuery, error.body_text()))
}

/// The parameters of a route that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn healthz(query: Result<Query<Nothing>, QueryRejection>) -> Result<&'static str, Failure> {
    parameters(query).map(|Nothing {}| "ok\n")
}

async fn readyz(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Nothing>, QueryRejection>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let Nothing {} = parameters(query)?;
    let health = &shared.health;
    let cores: Vec<Value> = health
        .cores
        .iter()
        .enumerate()
        .map(|(core, one)| json!({ "core": core, "serves": one.serves(), "reasons": one.reasons() }))
        .collect();
    let ready = health.cores.iter().all(|core| core.serves());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "ready": ready, "cores": cores, "degraded": health.degraded }))))
}
