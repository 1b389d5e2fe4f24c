//! `check`: what a transaction would store, or the first reason why it cannot be.
//!
//! ```text
//!   tempids -> ops in order, each over what those before it did -> unique values -> references -> schema -> plan
//! ```
//! Invariants: depends on the state, the ops and the transaction's number alone, so every replica reaches the same verdict;
//! attributes are those from before the transaction, so one that a transaction installs is used by later ones; everything
//! is bounded by [`DATOMS_PER_TX_MAX`](super::DATOMS_PER_TX_MAX). Deliberately absent: enforcement of references to other
//! partitions, and to entities that lose their last fact one by one.

use std::collections::{BTreeMap, BTreeSet};

use myelin_datom::{AttributeName, Entity, EntityId, Given, Kind, Op, Slot, Tx, Value, ValueType};

use super::draft::Draft;
use super::schema::{SCHEMA, Unique, born, described};
use super::tempids::Temps;
use super::verdict::{FactRefusal, FactWhy, Stop};
use super::view::Components;
use super::{ATTRIBUTES_MAX, Attribute, Facts, Order, Plan};
use crate::IndexError;

/// Old values that a transaction may look at where it changes the checks of attributes; with more it is refused.
const VERIFIED_MAX: u64 = 100_000;

/// What a client asks for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The partition.
    pub slot: Slot,
    /// In this order.
    pub ops: &'a [Op<'a>],
    /// Whether there is such a market: facts do not know them.
    pub market_exists: &'a dyn Fn(EntityId) -> bool,
}

impl Facts {
    /// Judges the ops of a transaction. Changes nothing that can be seen.
    ///
    /// **Errors:** a run that cannot be read; nothing was decided then.
    pub fn check(&self, tx: Tx, asked: Asked<'_>) -> Result<Result<Plan, FactRefusal>, IndexError> {
        let checking = Checking {
            facts: self,
            draft: Draft::new(self),
            slot: asked.slot,
            tx,
            this_tx: None,
            temps: Temps::default(),
            retracted: BTreeMap::new(),
            market_exists: asked.market_exists,
        };
        match checking.run(asked.ops) {
            Ok(plan) => Ok(Ok(plan)),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

pub(super) struct Checking<'a> {
    pub(super) facts: &'a Facts,
    pub(super) draft: Draft<'a>,
    pub(super) slot: Slot,
    tx: Tx,
    this_tx: Option<EntityId>,
    temps: Temps<'a>,
    /// Who was retracted as a whole, and by which op last.
    retracted: BTreeMap<EntityId, u32>,
    market_exists: &'a dyn Fn(EntityId) -> bool,
}

impl<'a> Checking<'a> {
    fn run(mut self, ops: &'a [Op<'a>]) -> Result<Plan, Stop> {
        let temps = self.bind_tempids(ops)?;
        let tempids = temps.decided();
        self.temps = temps;
        for (n, op) in (0..).zip(ops) {
            self.perform(n, op)?;
        }
        self.check_retracted()?;
        self.check_unique()?;
        self.check_references()?;
        let attributes = self.check_schema()?;
        Ok(self.draft.plan(tempids, attributes))
    }

    fn perform(&mut self, n: u32, op: &Op<'_>) -> Result<(), Stop> {
        match op {
            Op::Assert { e, a, v } => {
                let (e, a) = (self.subject(e, n)?, self.attribute(a, n)?);
                let v = self.given(a, v, n)?;
                self.draft.assert(a, e, v, n)
            }
            Op::Retract { e, a, v: Some(v) } => {
                let (e, a) = (self.subject(e, n)?, self.attribute(a, n)?);
                let v = self.typed(a, v, n)?;
                self.draft.set(a, e, v, false, n)
            }
            Op::Retract { e, a, v: None } => {
                let (e, a) = (self.subject(e, n)?, self.attribute(a, n)?);
                for v in self.draft.values(a, e, n)? {
                    self.draft.set(a, e, v, false, n)?;
                }
                Ok(())
            }
            Op::RetractEntity { e } => {
                let e = self.subject(e, n)?;
                self.retract_entity(e, n)
            }
            Op::CompareAndSet { e, a, expected, new } => {
                let (e, a) = (self.subject(e, n)?, self.attribute(a, n)?);
                if a.many {
                    return Err(FactWhy::Conflict.of(n));
                }
                let expected = expected.as_ref().map(|v| self.typed(a, v, n)).transpose()?;
                let new = new.as_ref().map(|v| self.given(a, v, n)).transpose()?;
                let current = self.draft.value(a, e, n)?;
                if current != expected {
                    return Err(FactWhy::Compare.of(n));
                }
                match (current, new) {
                    (_, Some(new)) => self.draft.assert(a, e, new, n),
                    (Some(current), None) => self.draft.set(a, e, current, false, n),
                    (None, None) => Ok(()),
                }
            }
        }
    }

    /// Everything about an entity goes, what points at it, and its components with theirs.
    fn retract_entity(&mut self, e: EntityId, n: u32) -> Result<(), Stop> {
        let (mut left, mut seen) = (vec![e], BTreeSet::from([e]));
        while let Some(e) = left.pop() {
            for (a, v) in self.draft.entity(e, n)? {
                let attribute = self.facts.schema.get(a).ok_or(FactWhy::UnknownAttribute.of(n))?;
                if let (true, Value::Ref(part)) = (attribute.component, &v)
                    && part.slot() == self.slot
                    && part.kind() == Some(Kind::Ordinary)
                    && seen.insert(*part)
                {
                    left.push(*part);
                }
                self.draft.set(attribute, e, v, false, n)?;
            }
            let target = Value::Ref(e);
            let pointing = Components { v: Some(&target), ..Components::default() };
            for datom in self.facts.view(Tx::MAX).datoms(Order::Vaet, &pointing) {
                let datom = datom?;
                self.draft.look(n)?;
                if datom.e.slot() != self.slot || self.draft.takes(datom.e, datom.a, &target) {
                    continue;
                }
                let attribute = self.facts.schema.get(datom.a).ok_or(FactWhy::UnknownAttribute.of(n))?;
                self.draft.set(attribute, datom.e, target.clone(), false, n)?;
            }
        }
        self.retracted.extend(seen.into_iter().map(|e| (e, n)));
        Ok(())
    }

    /// Nobody is pointed at by an op and taken away by a later one.
    fn check_retracted(&self) -> Result<(), Stop> {
        if self.retracted.is_empty() {
            return Ok(());
        }
        for (_, _, v, added, n) in self.draft.differences() {
            let Value::Ref(target) = v else { continue };
            if let Some(later) = self.retracted.get(target).filter(|later| added && n < **later) {
                return Err(FactWhy::Conflict.of(*later));
            }
        }
        Ok(())
    }

    // ---- names

    /// The attribute of this name, if there is one.
    pub(super) fn find_attribute(&self, name: &AttributeName<'_>) -> Option<&'a Attribute> {
        let id = match name {
            AttributeName::Id(id) => *id,
            AttributeName::Ident(ident) => self.facts.schema.named(self.slot, ident)?,
        };
        self.facts.schema.get(id).filter(|one| born::is_born(one.id) || one.id.slot() == self.slot)
    }

    fn attribute(&self, name: &AttributeName<'_>, n: u32) -> Result<&'a Attribute, Stop> {
        let attribute = self.find_attribute(name).ok_or(FactWhy::UnknownAttribute.of(n))?;
        // What the shard itself states is not for others to state.
        if born::is_ours(attribute.id) { Err(FactWhy::Schema.of(n)) } else { Ok(attribute) }
    }

    /// Who a fact is about: of this partition, given out before, and nothing that shards are born with.
    fn subject(&mut self, e: &Entity<'_>, n: u32) -> Result<EntityId, Stop> {
        let id = self.resolve(e, n)?;
        if born::is_born(id) {
            return Err(FactWhy::Schema.of(n));
        }
        if id.slot() != self.slot {
            return Err(FactWhy::OtherPartition.of(n));
        }
        let known = match id.kind() {
            Some(Kind::Market) => (self.market_exists)(id),
            Some(Kind::Ordinary | Kind::System | Kind::Transaction) => self.facts.was_given_out(&self.draft.next, id),
            // Ticks and quotes are columns.
            Some(Kind::Tick | Kind::Quote) | None => false,
        };
        if known { Ok(id) } else { Err(FactWhy::NoEntity.of(n)) }
    }

    fn resolve(&mut self, e: &Entity<'_>, n: u32) -> Result<EntityId, Stop> {
        let nobody = FactWhy::NoEntity.of(n);
        match e {
            Entity::Id(id) => Ok(*id),
            Entity::Temp(name) => self.temps.entity(name).ok_or(nobody),
            Entity::Ident(name) => self.facts.view(Tx::MAX).entity_named(self.slot, name)?.ok_or(nobody),
            Entity::Lookup(a, v) => {
                let attribute = self.find_attribute(a).ok_or(FactWhy::UnknownAttribute.of(n))?;
                if attribute.value_type != v.value_type() {
                    return Err(FactWhy::Type.of(n));
                }
                if attribute.unique.is_none() {
                    return Err(nobody);
                }
                self.holder(attribute, v)?.ok_or(nobody)
            }
            Entity::ThisTx => self.this_tx(n),
        }
    }

    /// The entity that stands for this transaction, made when it is first named.
    fn this_tx(&mut self, n: u32) -> Result<EntityId, Stop> {
        if let Some(entity) = self.this_tx {
            return Ok(entity);
        }
        let entity = self.draft.allocate(Kind::Transaction, self.slot);
        let instant = i64::try_from(self.tx.millis()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        for (a, v) in [(born::TX_ID, Value::I64(self.tx.bits() as i64)), (born::TX_INSTANT, Value::Instant(instant))] {
            let Some(attribute) = self.facts.schema.get(a) else { unreachable!("every shard is born with it") };
            self.draft.assert(attribute, entity, v, n)?;
        }
        self.this_tx = Some(entity);
        Ok(entity)
    }

    /// A value of the right type and within the checks.
    fn given(&mut self, a: &Attribute, given: &Given<'_>, n: u32) -> Result<Value<'static>, Stop> {
        let value = self.typed(a, given, n)?;
        if a.allows(&value) { Ok(value) } else { Err(FactWhy::Check.of(n)) }
    }

    fn typed(&mut self, a: &Attribute, given: &Given<'_>, n: u32) -> Result<Value<'static>, Stop> {
        let value = match given {
            Given::Value(value) => value.clone().into_owned(),
            Given::Entity(_) if a.value_type != ValueType::Ref => return Err(FactWhy::Type.of(n)),
            Given::Entity(entity) => Value::Ref(self.resolve(entity, n)?),
        };
        if value.value_type() == a.value_type { Ok(value) } else { Err(FactWhy::Type.of(n)) }
    }

    // ---- what holds at the end

    fn check_unique(&self) -> Result<(), Stop> {
        let mut claims = Vec::new();
        let mut first: Option<u32> = None;
        for (e, a, key, v, n) in self.draft.asserted() {
            let Some((attribute, unique)) = self.facts.schema.get(a).and_then(|one| Some((one, one.unique?))) else {
                continue;
            };
            claims.push((a, key, n, e));
            let born_so =
                a == born::IDENT && matches!(v, Value::Keyword(name) if self.facts.schema.born_as(name).is_some());
            // An entity that a tempid became had nobody in its way when that was decided.
            let looked = unique == Unique::Identity
                && attribute.value_type != ValueType::Ref
                && matches!(e.kind(), Some(Kind::Ordinary | Kind::System))
                && self.draft.is_new(e);
            let taken = || -> Result<bool, IndexError> {
                let holder = self.holder(attribute, v)?;
                Ok(holder.is_some_and(|holder| holder != e && !self.draft.takes(holder, a, v)))
            };
            if born_so || !looked && taken()? {
                first = Some(first.map_or(n, |first| first.min(n)));
            }
        }
        // Two that claim one value: the later op is the one too many.
        claims.sort_unstable();
        for two in claims.windows(2) {
            let [(a, key, _, one), (b, other, n, second)] = two else { continue };
            if (a, key) == (b, other) && one != second {
                first = Some(first.map_or(*n, |first| first.min(*n)));
            }
        }
        first.map_or(Ok(()), |n| Err(FactWhy::Unique.of(n)))
    }

    fn check_references(&self) -> Result<(), Stop> {
        let mut there = BTreeSet::new();
        for (_, _, v, added, n) in self.draft.differences() {
            let Value::Ref(target) = v else { continue };
            if !added || there.contains(target) {
                continue;
            }
            let enforced = target.slot() == self.slot && !born::is_born(*target);
            let exists = match target.kind() {
                None => false,
                Some(Kind::Market) if enforced => (self.market_exists)(*target),
                Some(Kind::Ordinary | Kind::System | Kind::Transaction) if enforced => self.draft.exists(*target, n)?,
                Some(_) => true,
            };
            if !exists {
                return Err(FactWhy::NoEntity.of(n));
            }
            there.insert(*target);
        }
        Ok(())
    }

    /// What becomes of attributes.
    fn check_schema(&self) -> Result<Vec<(EntityId, Option<Attribute>)>, Stop> {
        let mut touched: BTreeMap<EntityId, u32> = BTreeMap::new();
        for (e, _, _, _, n) in self.draft.differences().filter(|(_, a, ..)| SCHEMA.contains(a)) {
            let last = touched.entry(e).or_insert(n);
            *last = (*last).max(n);
        }
        let (mut attributes, mut left) = (Vec::new(), VERIFIED_MAX);
        for (e, n) in touched {
            let refused = || FactWhy::Schema.of(n);
            let mut facts = Vec::new();
            for a in SCHEMA {
                let Some(attribute) = self.facts.schema.get(a) else { unreachable!("every shard is born with it") };
                facts.extend(self.draft.values(attribute, e, n)?.into_iter().map(|value| (a, value)));
            }
            let new = described(e, &facts).map_err(|_| refused())?;
            let old = self.facts.schema.get(e);
            if old == new.as_ref() {
                continue;
            }
            if new.is_some() && e.kind() != Some(Kind::System) {
                return Err(refused());
            }
            if old.is_none() && self.facts.schema.installed() + attributes.len() >= ATTRIBUTES_MAX {
                return Err(FactWhy::TooLarge.of(n));
            }
            if let Some(old) = old {
                self.check_change(old, new.as_ref(), n, &mut left)?;
            }
            attributes.push((e, new));
        }
        Ok(attributes)
    }

    /// Whether the data of an attribute allows that it changes so; `left` values of all attributes may be looked at.
    fn check_change(&self, old: &Attribute, new: Option<&Attribute>, n: u32, left: &mut u64) -> Result<(), Stop> {
        let refused = FactWhy::Schema.of(n);
        if self.draft.differences().any(|(_, a, ..)| a == old.id) {
            return Err(FactWhy::Conflict.of(n));
        }
        let view = self.facts.view(Tx::MAX);
        if !view.has_data(old.id)? {
            return Ok(());
        }
        let Some(new) = new else { return Err(refused) };
        let fixed = |one: &Attribute| (one.value_type, one.form(), one.is_indexed());
        if fixed(old) != fixed(new) {
            return Err(refused);
        }
        let checks = |one: &Attribute| (one.min, one.max, one.one_of.clone(), one.pattern.clone());
        if checks(old) == checks(new) {
            return Ok(());
        }
        let mut datoms = view.datoms(Order::Aevt, &Components { a: Some(old.id), ..Components::default() });
        while let Some(datom) = datoms.next() {
            if !new.allows(&datom?.v) || datoms.there() > *left {
                return Err(refused);
            }
        }
        *left -= datoms.there().min(*left);
        Ok(())
    }
}
