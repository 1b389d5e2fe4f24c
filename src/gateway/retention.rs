//! What is kept of markets: `GET /v2/retention` and `PUT`, `DELETE /v2/retention/{market}`.
//!
//! ```text
//!   GET    /v2/retention [market=NAME]         {"retention":[{"market","kind","policy","own","kept","dropped","horizon"}]}
//!   PUT    /v2/retention/{market} [kind=tick]  body {"policy":"window 7d"}; the market `*` is all without one of their own
//!   DELETE /v2/retention/{market} [kind=tick]  the market goes back to the policy of all
//! ```
//! The last two answer with what is kept of that market then. A policy is written as at the command line: `all`, `latest`,
//! `last N`, `window LENGTH`. What is not kept is dropped for good; setting the same again changes nothing. Deliberately
//! absent: an answer that waits until rows have gone.

use super::asked::bad;
use super::failure::Failure;
use super::query::{failed, in_time, market_id};
use super::{Shared, in_path, parameters};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use myelin_client::{At, Client};
use myelin_datom::EntityId;
use myelin_said::{Kept, read_policy};
use myelin_wire::{Code, Keep, RetainRow};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// What is asked of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    market: Option<String>,
}

/// Of which rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    kind: Option<String>,
}

/// The body of a `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    policy: String,
}

/// The handler of the list.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Listed>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let _place = shared.read()?;
    let Listed { market } = parameters(query)?;
    let client = shared.client().await?;
    in_time(async {
        let of = match &market {
            Some(name) => Some(named(&shared, client, name).await?),
            None => None,
        };
        kept(client, of).await
    })
    .await
    .map(Json)
}

/// The handler of `PUT`.
pub async fn set(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Rows>, QueryRejection>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let market = in_path(path)?;
    let Rows { kind } = parameters(query)?;
    let Json(Wanted { policy }) = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::wire(Code::Oversize, error.body_text()),
        _ => bad(error.body_text()),
    })?;
    let words: Vec<&str> = policy.split_ascii_whitespace().collect();
    let keep =
        read_policy(&words).map_err(bad)?.ok_or_else(|| bad("DELETE gives a market back to the policy of all"))?;
    retain(&shared, &market, kind.as_deref(), Some(keep)).await
}

/// The handler of `DELETE`.
pub async fn unset(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Rows>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let market = in_path(path)?;
    let Rows { kind } = parameters(query)?;
    if market == "*" {
        return Err(bad("DELETE is for one market; PUT {\"policy\":\"all\"} keeps everything"));
    }
    retain(&shared, &market, kind.as_deref(), None).await
}

async fn retain(shared: &Shared, market: &str, kind: Option<&str>, keep: Option<Keep>) -> Result<Json<Value>, Failure> {
    let kinds = match kind {
        None => RetainRow::TICKS | RetainRow::QUOTES,
        Some("tick") => RetainRow::TICKS,
        Some("quote") => RetainRow::QUOTES,
        Some(other) => return Err(bad(format!("'{other}' is no kind of row: tick or quote"))),
    };
    let _place = shared.read()?;
    let client = shared.client().await?;
    in_time(async {
        let market = named(shared, client, market).await?;
        // Not `failed`: a write whose answer was lost may have been done.
        client.retain(market, kinds, keep).await.map_err(|error| Failure::error(&error))?;
        kept(client, Some(market)).await
    })
    .await
    .map(Json)
}

/// The market of this name; nothing for `*`, which is all. **Errors:** there is none.
async fn named(shared: &Shared, client: &Client, name: &str) -> Result<Option<EntityId>, Failure> {
    if name == "*" { Ok(None) } else { market_id(shared, client, name).await.map(Some) }
}

/// What is kept: of everything, or of one market, or what stands for all.
async fn kept(client: &Client, of: Option<Option<EntityId>>) -> Result<Value, Failure> {
    let policies = client.policies().await.map_err(failed)?;
    let markets = client.list_markets(At::NOW).await.map_err(failed)?;
    let names: HashMap<u64, String> = markets.into_iter().map(|market| (market.id.bits(), market.name)).collect();
    let of = of.map(|market| market.map_or(0, EntityId::bits));
    let lines = Kept::list(&policies, of, |id| names.get(&id).cloned());
    Ok(json!({ "retention": lines }))
}
