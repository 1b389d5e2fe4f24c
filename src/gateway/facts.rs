//! Facts over HTTP: what holds about an entity, or of an attribute, as of a transaction.
//!
//! ```text
//!   entity=ID [attribute=..]                    facts about it
//!   attribute=person/name [partition=people]    facts of a partition's attribute, by entity
//!   attribute=feed/gap market=NAME              entities that point at the market; any other attribute: facts about it
//!   .. [since=TX] [history=true]                only what was said later; everything that ever was
//! ```
//! At most [`limits::DATOMS`]; with more, `more` is true: ask by entity, or since. Deliberately absent: writing.

use super::asked::{Parameters, bad};
use super::failure::Failure;
use super::query::{failed, market_id, tx};
use super::{Shared, limits};
use myelin_client::{At, Client, Facts, Place};
use myelin_datom::{AttributeName, Entity, EntityId, Value, keyword_flaw};
use myelin_feed::facts::{attribute, say};
use myelin_wire::{Code, DatomsAsked};
use serde_json::{Value as Json, json};

/// The answer.
pub async fn facts(shared: &Shared, client: &Client, asked: &Parameters, at: At) -> Result<Json, Failure> {
    let since = asked.since.as_deref().map(tx).transpose()?.unwrap_or_default();
    let attribute = asked.attribute.as_deref().map(attribute).transpose().map_err(|error| bad(error.to_string()))?;
    if let Some(AttributeName::Ident(ident)) = &attribute
        && keyword_flaw(ident).is_some()
    {
        return Err(unknown(ident));
    }
    let mut question = DatomsAsked { history: asked.history, since, a: attribute, ..DatomsAsked::all(0) };
    let named = asked.partition.as_deref().unwrap_or("main");
    let place = match (&asked.entity, &asked.market) {
        (Some(_), Some(_)) => return Err(bad("say market or entity, not both")),
        (Some(text), None) => {
            let id = text.parse().map(EntityId::from_bits);
            let id = id.map_err(|_| bad(format!("'{text}' is no entity id: a decimal number")))?;
            question.e = Some(Entity::Id(id));
            Place::Slot(id.slot())
        }
        (None, Some(name)) => {
            let id = market_id(shared, client, name).await?;
            if question.a == Some(AttributeName::ident("feed/gap")) {
                (question.order, question.v) = (4, Some(Value::Ref(id)));
            } else {
                question.e = Some(Entity::Id(id));
            }
            Place::Slot(id.slot())
        }
        (None, None) => {
            question.order = 2;
            Place::Partition(named)
        }
    };
    let answer = client.datoms(place, &question, at, limits::DATOMS).await.map_err(failed)?;
    let Facts { idents, datoms, more } = answer.value;
    let said = |datom: &myelin_datom::Datom<'_>| {
        let attribute = idents.get(&datom.a).cloned().unwrap_or_else(|| datom.a.to_string());
        json!({
            "entity": datom.e.to_string(),
            "attribute": attribute,
            "value": say(&datom.v),
            "type": datom.v.value_type().name(),
            "tx": datom.tx.to_string(),
            "added": datom.added,
        })
    };
    let datoms: Vec<_> = datoms.iter().map(said).collect();
    Ok(json!({ "tx": answer.basis.to_string(), "datoms": datoms, "more": more }))
}

fn unknown(ident: &str) -> Failure {
    Failure::wire(Code::UnknownAttribute, format!("there is no attribute '{ident}'"))
}

/// **Errors:** nobody installed an attribute of this name: its facts would be waited for in silence.
pub async fn known(client: &Client, ident: &str) -> Result<(), Failure> {
    if client.is_attribute(ident).await.map_err(failed)? { Ok(()) } else { Err(unknown(ident)) }
}
