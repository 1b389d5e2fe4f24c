//! Which entity a tempid is: one that has the value of an identity, or a new one.
//!
//! ```text
//!   assert ?t, identity attribute, value    somebody has the value: ?t is them.   two tempids, one value: they are one
//! ```
//! Invariants: decided from the state before the transaction and its ops alone; new ids are given out in the order in
//! which tempids were first named. A value that is itself a tempid decides nothing. A new entity that is given a
//! `db/value-type` is of kind system, others are ordinary.

use std::collections::BTreeMap;

use myelin_datom::{Entity, EntityId, Given, Kind, Op, Tx, Value};

use super::check::Checking;
use super::schema::{Unique, born};
use super::verdict::{FactWhy, Stop};

#[derive(Debug)]
struct Temp<'a> {
    name: &'a str,
    /// The tempid it is one with.
    one_with: usize,
    /// Of all, once they are given out; before that of those that are known.
    entity: Option<EntityId>,
    is_attribute: bool,
}

/// The tempids of a transaction, in the order in which they were first named.
#[derive(Debug, Default)]
pub(super) struct Temps<'a> {
    list: Vec<Temp<'a>>,
    by_name: BTreeMap<&'a str, usize>,
}

impl<'a> Temps<'a> {
    fn of(&mut self, entity: &'a Entity<'_>) -> Option<usize> {
        let Entity::Temp(name) = entity else { return None };
        let next = self.list.len();
        let at = *self.by_name.entry(name).or_insert(next);
        if at == next {
            self.list.push(Temp { name, one_with: next, entity: None, is_attribute: false });
        }
        Some(at)
    }

    /// The first named of all that are one with it. Paths are shortened on the way.
    fn root(&mut self, mut at: usize) -> usize {
        while self.list[at].one_with != at {
            self.list[at].one_with = self.list[self.list[at].one_with].one_with;
            at = self.list[at].one_with;
        }
        at
    }

    /// Says that it is this entity. False when it is another one already.
    fn bind(&mut self, at: usize, entity: EntityId) -> bool {
        let root = self.root(at);
        *self.list[root].entity.get_or_insert(entity) == entity
    }

    /// Says that two are one. False when they are two entities already.
    fn unite(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        // The one that was named first stays.
        let (first, second) = (a.min(b), a.max(b));
        if first == second {
            return true;
        }
        if let Some(entity) = self.list[second].entity
            && *self.list[first].entity.get_or_insert(entity) != entity
        {
            return false;
        }
        self.list[second].one_with = first;
        true
    }
}

impl Temps<'_> {
    /// Whom a tempid became.
    pub(super) fn entity(&self, name: &str) -> Option<EntityId> {
        self.list[*self.by_name.get(name)?].entity
    }

    /// Whom all of them became.
    pub(super) fn decided(&self) -> Vec<(Box<str>, EntityId)> {
        self.list.iter().filter_map(|temp| Some((temp.name.into(), temp.entity?))).collect()
    }
}

impl<'a> Checking<'a> {
    /// Decides every tempid of the ops.
    pub(super) fn bind_tempids(&mut self, ops: &'a [Op<'a>]) -> Result<Temps<'a>, Stop> {
        let mut temps = Temps::default();
        let mut claims: BTreeMap<(EntityId, Vec<u8>), usize> = BTreeMap::new();
        for (n, op) in (0..).zip(ops) {
            let (e, a, values): (_, _, [Option<&Given<'_>>; 2]) = match op {
                Op::Assert { e, a, v } => (e, Some(a), [Some(v), None]),
                Op::Retract { e, a, v } => (e, Some(a), [None, v.as_ref()]),
                Op::RetractEntity { e } => (e, None, [None, None]),
                Op::CompareAndSet { e, a, expected, new } => (e, Some(a), [new.as_ref(), expected.as_ref()]),
            };
            let temp = temps.of(e);
            for given in values.into_iter().flatten() {
                if let Given::Entity(entity) = given {
                    temps.of(entity);
                }
            }
            let (Some(temp), Some(a), Some(Given::Value(v))) = (temp, a, values[0]) else { continue };
            let Some(attribute) = self.find_attribute(a) else { continue };
            temps.list[temp].is_attribute |= attribute.id == born::VALUE_TYPE;
            if attribute.unique != Some(Unique::Identity) || attribute.value_type != v.value_type() {
                continue;
            }
            let mut claim = Vec::new();
            v.write_key(&mut claim);
            let claimed = *claims.entry((attribute.id, claim)).or_insert(temp);
            let holder = self.holder(attribute, v)?;
            if !temps.unite(claimed, temp) || holder.is_some_and(|holder| !temps.bind(temp, holder)) {
                return Err(FactWhy::Unique.of(n));
            }
        }
        self.give_out(&mut temps);
        Ok(temps)
    }

    fn give_out(&mut self, temps: &mut Temps<'_>) {
        for at in 0..temps.list.len() {
            let root = temps.root(at);
            temps.list[root].is_attribute |= temps.list[at].is_attribute;
        }
        for at in 0..temps.list.len() {
            let root = temps.root(at);
            let kind = if temps.list[root].is_attribute { Kind::System } else { Kind::Ordinary };
            let entity = match temps.list[root].entity {
                Some(entity) => entity,
                None => self.draft.allocate(kind, self.slot),
            };
            temps.list[root].entity = Some(entity);
            temps.list[at].entity = Some(entity);
        }
    }

    /// Who has this value of a unique attribute, before this transaction, in this partition.
    pub(super) fn holder(
        &self,
        attribute: &super::Attribute,
        value: &Value<'_>,
    ) -> Result<Option<EntityId>, crate::IndexError> {
        self.facts.view(Tx::MAX).holder(attribute, value, self.slot)
    }
}
