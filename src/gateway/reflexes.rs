//! Standing questions: `GET /v2/reflexes` and `DELETE /v2/reflexes/{id}`.
//!
//! ```text
//!   GET    /v2/reflexes [after=ID]     {"reflexes":[{"id","registered","spec","scope","guest"}],"next"}
//!   DELETE /v2/reflexes/{id}           {"removed":ID}; who watches it hears nothing more
//! ```
//! By id, a page at a time: `next` is what to say as `after`, null at the end. A guest goes with its last watcher
//! (`guests.rs`). A reflex stands on every shard, so one is asked. Deliberately absent: registering, which `watch` does.

use super::asked::bad;
use super::failure::{Failure, HttpCode};
use super::query::{failed, in_time};
use super::{Nothing, Shared, in_path, parameters};
use crate::reflex::{Scope, Spec};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use myelin_client::Client;
use myelin_wire::{Code, Cursor, Header, Kind, Short};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What is asked of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    after: Option<String>,
}

fn id(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| bad(format!("'{text}' is no reflex: a decimal number")))
}

/// The handler of the list.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<Listed>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let _place = shared.read()?;
    let Listed { after } = parameters(query)?;
    let after = after.as_deref().map(id).transpose()?.unwrap_or(0);
    let client = shared.client().await?;
    in_time(async {
        let asked = client.ask(Header::new(Kind::ListReflexes), after.to_le_bytes().to_vec()).await;
        let reply = asked.map_err(failed)?;
        let mut cursor = Cursor::new(&reply.body);
        let mut reflexes = Vec::new();
        while !cursor.is_done() {
            let (reflex, registered, mut asked) = one(&mut cursor).map_err(senseless)?;
            let spec = Spec::decode(&mut asked).map(|spec| spec.to_string()).ok();
            let scope = Scope::decode(&mut asked).map(|scope| scope.to_string()).ok();
            let guest = shared.guests.knows(reflex);
            reflexes.push(json!({ "id": reflex.to_string(), "registered": registered.to_string(), "spec": spec,
                                  "scope": scope, "guest": guest }));
        }
        let more = reply.header.flags & Header::MORE != 0;
        Ok(json!({ "reflexes": reflexes, "next": more.then(|| reply.header.aux.to_string()) }))
    })
    .await
    .map(Json)
}

/// What a reflex asks, spec and scope as they travel; nothing where it does not stand.
pub async fn asked(client: &Client, reflex: u64) -> Result<Option<Vec<u8>>, Failure> {
    // A page begins behind an id.
    let after = reflex.saturating_sub(1);
    let reply = client.ask(Header::new(Kind::ListReflexes), after.to_le_bytes().to_vec()).await.map_err(failed)?;
    if reply.body.is_empty() {
        return Ok(None);
    }
    let (first, _, asked) = one(&mut Cursor::new(&reply.body)).map_err(senseless)?;
    Ok((first == reflex).then(|| asked.to_vec()))
}

fn senseless(_: Short) -> Failure {
    Failure::http(HttpCode::NotServing, "the list of reflexes ends early")
}

/// An item of the list: id, transaction, question.
fn one<'a>(cursor: &mut Cursor<'a>) -> Result<(u64, u64, &'a [u8]), Short> {
    let (reflex, registered, len) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
    Ok((reflex, registered, cursor.take(len as usize)?))
}

/// The handler of `DELETE`.
pub async fn remove(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Nothing>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let _place = shared.read()?;
    let Nothing {} = parameters(query)?;
    let reflex = id(&in_path(path)?)?;
    let client = shared.client().await?;
    in_time(async {
        // Not `failed`: a write whose answer was lost may have been done.
        let removed = client.remove(&[reflex]).await.map_err(|error| Failure::error(&error))?;
        shared.guests.forget(reflex);
        if removed == 0 {
            return Err(Failure::wire(Code::UnknownReflex, format!("there is no reflex {reflex}")));
        }
        Ok(json!({ "removed": reflex.to_string() }))
    })
    .await
    .map(Json)
}
