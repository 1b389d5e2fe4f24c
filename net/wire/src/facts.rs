//! The bodies about facts: what is asked of datoms, a page of them, and whom tempids became.
//!
//! ```text
//!   Datoms   order u8 | flags u8 | slot u16 | limit u32 | since u64 | e | a | v | place
//!   Pull     flags u8 | zero u8 | slot u16 | limit u32 | since u64 | entity | place
//!            e, a, v: 0, or 1 and an entity, attribute, value      place: what is left, as the page before gave it
//!   page     length u32, place | attributes u32, each id u64 and ident text | datoms
//!   tempids  each text and id u64
//! ```
//! Entities, attributes, values, datoms and transactions are drawn in `storage/datom/src/fact.rs` and `value.rs`.
//! Deliberately absent: what a place says: only the shard that gave it reads it.

use crate::body::{Cursor, Short, put_text};
use myelin_datom::{AttributeName, Bytes, Datom, Entity, EntityId, FactError, FactFlaw, Tx, Value};
use std::collections::BTreeMap;

const HISTORY: u8 = 1;

/// Which datoms are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatomsAsked<'a> {
    /// 1 EAVT, 2 AEVT, 3 AVET, 4 VAET.
    pub order: u8,
    /// Every datom, retractions too, instead of what holds.
    pub history: bool,
    /// The partition whose idents are meant.
    pub slot: u16,
    /// Datoms of a page at most; the node has its own bound.
    pub limit: u32,
    /// Only what was said after this transaction.
    pub since: Tx,
    /// About whom.
    pub e: Option<Entity<'a>>,
    /// What about them.
    pub a: Option<AttributeName<'a>>,
    /// What it is.
    pub v: Option<Value<'a>>,
    /// Where the page before stopped; empty at first.
    pub place: &'a [u8],
}

impl DatomsAsked<'static> {
    /// Everything that holds in a partition, in the order of entities.
    #[must_use]
    pub const fn all(slot: u16) -> Self {
        Self { order: 1, history: false, slot, limit: u32::MAX, since: Tx::ZERO, e: None, a: None, v: None, place: &[] }
    }
}

impl<'a> DatomsAsked<'a> {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.order, if self.history { HISTORY } else { 0 }]);
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.limit.to_le_bytes());
        out.extend_from_slice(&self.since.bits().to_le_bytes());
        out.push(u8::from(self.e.is_some()));
        self.e.iter().for_each(|e| e.write(out));
        out.push(u8::from(self.a.is_some()));
        self.a.iter().for_each(|a| a.write(out));
        out.push(u8::from(self.v.is_some()));
        self.v.iter().for_each(|v| v.write(out));
        out.extend_from_slice(self.place);
    }

    /// Reads it.
    pub fn read(body: &'a [u8]) -> Result<Self, FactError> {
        let mut input = Bytes::new(body);
        let (order, flags) = (input.u8()?, input.u8()?);
        let (slot, limit, since) = (input.u16()?, input.u32()?, Tx::from_bits(input.u64()?));
        let e = if is_given(&mut input)? { Some(Entity::read(&mut input)?) } else { None };
        let a = if is_given(&mut input)? { Some(AttributeName::read(&mut input)?) } else { None };
        let v = if is_given(&mut input)? { Some(Value::read(&mut input)?) } else { None };
        let place = body.get(input.at()..).unwrap_or_default();
        Ok(Self { order, history: flags & HISTORY != 0, slot, limit, since, e, a, v, place })
    }
}

fn is_given(input: &mut Bytes<'_>) -> Result<bool, FactError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(input.flaw(FactFlaw::Tag)),
    }
}

/// Which entity is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullAsked<'a> {
    /// Every datom, retractions too, instead of what holds.
    pub history: bool,
    /// The partition whose idents are meant.
    pub slot: u16,
    /// Datoms of a page at most; the node has its own bound.
    pub limit: u32,
    /// Only what was said after this transaction.
    pub since: Tx,
    /// Whom.
    pub entity: Entity<'a>,
    /// Where the page before stopped; empty at first.
    pub place: &'a [u8],
}

impl<'a> PullAsked<'a> {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[if self.history { HISTORY } else { 0 }, 0]);
        out.extend_from_slice(&self.slot.to_le_bytes());
        out.extend_from_slice(&self.limit.to_le_bytes());
        out.extend_from_slice(&self.since.bits().to_le_bytes());
        self.entity.write(out);
        out.extend_from_slice(self.place);
    }

    /// Reads it.
    pub fn read(body: &'a [u8]) -> Result<Self, FactError> {
        let mut input = Bytes::new(body);
        let (flags, _) = (input.u8()?, input.u8()?);
        let (slot, limit, since) = (input.u16()?, input.u32()?, Tx::from_bits(input.u64()?));
        let entity = Entity::read(&mut input)?;
        let place = body.get(input.at()..).unwrap_or_default();
        Ok(Self { history: flags & HISTORY != 0, slot, limit, since, entity, place })
    }
}

/// One page of datoms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactsPage {
    /// Where to go on; empty when the page is the last one and nothing was there.
    pub place: Vec<u8>,
    /// The idents of the attributes, as of the moment.
    pub idents: BTreeMap<EntityId, String>,
    /// In the order asked for.
    pub datoms: Vec<Datom<'static>>,
}

impl FactsPage {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.place.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.place);
        out.extend_from_slice(&(self.idents.len() as u32).to_le_bytes());
        for (id, ident) in &self.idents {
            out.extend_from_slice(&id.bits().to_le_bytes());
            put_text(out, ident);
        }
        self.datoms.iter().for_each(|datom| datom.write(out));
    }

    /// Reads it.
    pub fn read(body: &[u8]) -> Result<Self, FactError> {
        let mut input = Bytes::new(body);
        let mut page = Self::default();
        let len = input.u32()?;
        page.place = input.take(len as usize)?.to_vec();
        for _ in 0..input.u32()? {
            let id = EntityId::from_bits(input.u64()?);
            page.idents.insert(id, input.text()?.to_owned());
        }
        while !input.is_done() {
            page.datoms.push(Datom::read(&mut input)?.into_owned());
        }
        Ok(page)
    }
}

/// Writes whom tempids became.
pub fn write_tempids<'a>(out: &mut Vec<u8>, tempids: impl IntoIterator<Item = (&'a str, EntityId)>) {
    for (name, id) in tempids {
        put_text(out, name);
        out.extend_from_slice(&id.bits().to_le_bytes());
    }
}

/// Reads whom tempids became.
pub fn read_tempids(body: &[u8]) -> Result<Vec<(String, EntityId)>, Short> {
    let mut cursor = Cursor::new(body);
    let mut tempids = Vec::new();
    while !cursor.is_done() {
        tempids.push((cursor.text()?.to_owned(), EntityId::from_bits(cursor.u64()?)));
    }
    Ok(tempids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_pages_are_read_back_and_cut_ones_are_errors() {
        let asked = DatomsAsked {
            order: 3,
            history: true,
            slot: 9,
            limit: 10,
            since: Tx::from_bits(4),
            e: Some(Entity::Ident("a/b".into())),
            a: Some(AttributeName::Id(EntityId::from_bits(5))),
            v: Some(Value::Bool(true)),
            place: b"xyz",
        };
        let mut body = Vec::new();
        asked.write(&mut body);
        assert_eq!(DatomsAsked::read(&body), Ok(asked));
        let pull = PullAsked {
            history: false,
            slot: 9,
            limit: 1,
            since: Tx::ZERO,
            entity: Entity::Lookup(AttributeName::ident("a"), Value::I64(3)),
            place: &[],
        };
        let mut body = Vec::new();
        pull.write(&mut body);
        assert_eq!(PullAsked::read(&body), Ok(pull));
        for cut in 0..body.len() {
            assert!(PullAsked::read(&body[..cut]).is_err());
        }
        let datom = Datom {
            e: EntityId::from_bits(1),
            a: EntityId::from_bits(2),
            v: Value::string("x"),
            tx: Tx::from_bits(3),
            added: true,
        };
        let page = FactsPage {
            place: vec![1, 2],
            idents: [(EntityId::from_bits(2), "a/b".to_owned())].into(),
            datoms: vec![datom.clone(), datom],
        };
        let mut body = Vec::new();
        page.write(&mut body);
        assert_eq!(FactsPage::read(&body), Ok(page));
        assert!(FactsPage::read(&body[..body.len() - 1]).is_err());
        let mut body = Vec::new();
        write_tempids(&mut body, [("t", EntityId::from_bits(7))]);
        assert_eq!(read_tempids(&body), Ok(vec![("t".to_owned(), EntityId::from_bits(7))]));
        assert!(read_tempids(&body[..4]).is_err());
    }
}
