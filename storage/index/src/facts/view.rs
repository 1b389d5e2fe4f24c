//! The facts of a shard as of a moment: one value, one entity, or a stretch of an order.
//!
//! ```text
//!   as_of T           a fact holds when the newest of its datoms at or before T asserts it
//!   .since(S)         of those, the ones said after S
//!   .history()        every datom after S up to T, retractions too, the newest of a fact first
//! ```
//! Invariants: below the horizon of what is asked for there is no answer (`prune.rs`); what a view answers does not depend on where its datoms lie, so sealing and merging change no answer; reads
//! are lazy: a scan holds a key per part and run, a point read touches one block of each run at most. Deliberately
//! absent: joins, and anything that waits.

use myelin_datom::{Datom, EntityId, Slot, Tx, Value};

use super::key::{self, Key, KeyRef, Order};
use super::scan::{Merge, Source};
use super::schema::born;
use super::{Attribute, Facts};
use crate::IndexError;

/// An immutable database value.
#[derive(Clone, Copy)]
pub struct FactsView<'a> {
    facts: &'a Facts,
    as_of: Tx,
    since: Tx,
    history: bool,
}

/// Which datoms: those that agree with all that is given. What an order begins with narrows the scan, the rest filters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Components<'v> {
    /// About whom.
    pub e: Option<EntityId>,
    /// What about them.
    pub a: Option<EntityId>,
    /// What it is.
    pub v: Option<&'v Value<'v>>,
}

impl<'a> FactsView<'a> {
    pub(super) fn new(facts: &'a Facts, as_of: Tx) -> Self {
        // What every shard is born with was there before every transaction.
        Self { facts, as_of, since: Tx::ZERO, history: false }
    }

    /// Only what was said after this transaction.
    #[must_use]
    pub fn since(self, since: Tx) -> Self {
        Self { since, ..self }
    }

    /// Every datom instead of what holds.
    #[must_use]
    pub fn history(self) -> Self {
        Self { history: true, ..self }
    }

    /// The value of an attribute of cardinality one. **Cost:** one seek per part and run until it is found.
    pub fn value(&self, e: EntityId, a: EntityId) -> Result<Option<Value<'a>>, IndexError> {
        self.allow(self.facts.floor(a).horizon, false)?;
        let found = self.newest(e, a)?.filter(|datom| self.since == Tx::ZERO || datom.tx > self.since);
        Ok(found.map(|datom| datom.v))
    }

    /// What holds about an entity, or its history.
    #[must_use]
    pub fn entity(&self, e: EntityId) -> Datoms<'a, 'static> {
        self.datoms(Order::Eavt, &Components { e: Some(e), ..Components::default() })
    }

    /// Datoms in an order.
    #[must_use]
    pub fn datoms<'v>(&self, order: Order, components: &Components<'v>) -> Datoms<'a, 'v> {
        let lower = self.prefix(order, components);
        let upper = key::behind(&lower);
        self.between(order, *components, lower, upper)
    }

    /// Datoms of an indexed attribute by value, from `from` to `to`, both included.
    #[must_use]
    pub fn range(&self, a: EntityId, from: Option<&Value<'_>>, to: Option<&Value<'_>>) -> Datoms<'a, 'static> {
        let bound = |value: Option<&Value<'_>>| {
            let mut bytes = a.bits().to_be_bytes().to_vec();
            if let Some(value) = value {
                value.write_key(&mut bytes);
            }
            bytes
        };
        let components = Components { a: Some(a), ..Components::default() };
        self.between(Order::Avet, components, bound(from), key::behind(&bound(to)))
    }

    /// The entity that goes by this name in a partition.
    pub fn entity_named(&self, slot: Slot, ident: &str) -> Result<Option<EntityId>, IndexError> {
        if let Some(id) = self.facts.schema.born_as(ident) {
            return Ok(Some(id));
        }
        let Some(attribute) = self.facts.schema.get(born::IDENT) else { return Ok(None) };
        self.holder(attribute, &Value::keyword(ident), slot)
    }

    /// Who of a partition has this value of a unique attribute. **Cost:** one seek per part and run until the newest of its
    /// datoms is found, however often it changed hands.
    pub fn holder(&self, a: &Attribute, v: &Value<'_>, slot: Slot) -> Result<Option<EntityId>, IndexError> {
        self.allow(self.facts.floor(a.id).horizon, false)?;
        let mut group = Vec::with_capacity(64);
        key::write_held(a.id, v, slot, &mut group);
        let found = self.decides(Order::Avet, &group)?.and_then(|key| key::read(Order::Avet, key.bytes));
        let later = |datom: &Datom<'_>| self.since == Tx::ZERO || datom.tx > self.since;
        let holder = found.filter(|datom| datom.added && later(datom)).map(|datom| datom.e);
        Ok(holder.filter(|e| slot.number() != 0 || !born::is_born(*e)))
    }

    /// What holds about an entity, of one attribute or all.
    pub(super) fn of_entity(&self, e: EntityId, a: Option<&Attribute>) -> Datoms<'a, 'static> {
        self.datoms(Order::Eavt, &Components { e: Some(e), a: a.map(|a| a.id), v: None })
    }

    /// Whether a fact holds.
    pub(super) fn holds(&self, a: &Attribute, e: EntityId, v: &Value<'_>) -> Result<bool, IndexError> {
        if !a.many {
            return Ok(self.newest(e, a.id)?.is_some_and(|datom| datom.v == *v));
        }
        let mut group = Vec::new();
        key::write_group(Order::Eavt, true, e, a.id, v, &mut group);
        let found = self.decides(Order::Eavt, &group)?;
        Ok(found.and_then(|key| key::said(key.bytes, group.len())).is_some_and(|(_, added)| added))
    }

    /// Whether an attribute ever had a datom.
    pub(super) fn has_data(&self, a: EntityId) -> Result<bool, IndexError> {
        if self.facts.floor(a).horizon > Tx::ZERO {
            return Ok(true);
        }
        let components = Components { a: Some(a), ..Components::default() };
        self.history().datoms(Order::Aevt, &components).next().transpose().map(|found| found.is_some())
    }

    /// The datom of a cardinality of one that holds, whatever `since` says.
    #[inline]
    pub(super) fn newest(&self, e: EntityId, a: EntityId) -> Result<Option<Datom<'a>>, IndexError> {
        let found = self.decides(Order::Eavt, &key::one_group(e, a))?;
        Ok(found.and_then(|key| key::read(Order::Eavt, key.bytes)).filter(|datom| datom.added))
    }

    /// The newest key of a group as of this moment.
    fn decides(&self, order: Order, group: &[u8]) -> Result<Option<KeyRef<'a>>, IndexError> {
        let seek = Key::of([group, &key::mark(self.as_of, true)].concat());
        for source in self.facts.sources(self.as_of) {
            let found = Source::first(source, order, &seek)?;
            if let Some(key) = found.filter(|key| key.bytes.starts_with(group)) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Refuses where something below this horizon would be told, or left out.
    fn allow(&self, horizon: Tx, history: bool) -> Result<(), IndexError> {
        let whole = self.as_of >= horizon && !(history && self.since < horizon);
        if whole { Ok(()) } else { Err(IndexError::BelowHorizon { horizon }) }
    }

    /// What the keys of the datoms asked for begin with.
    fn prefix(&self, order: Order, components: &Components<'_>) -> Vec<u8> {
        let id = |id: Option<EntityId>| id.map(|id| id.bits().to_be_bytes().to_vec());
        let value = |tagged: bool| {
            components.v.map(|v| match v {
                Value::Ref(target) if !tagged => target.bits().to_be_bytes().to_vec(),
                v => {
                    let mut key = Vec::new();
                    v.write_key(&mut key);
                    key
                }
            })
        };
        let attribute = components.a.and_then(|a| self.facts.schema.get(a));
        let (many, unique) = attribute.map_or((false, false), |a| (a.many, a.unique.is_some()));
        // Behind entity and attribute a cardinality of one goes on with the mark.
        let in_entity = || value(true).filter(|_| many).map(|v| [vec![1], v].concat());
        let parts = match order {
            Order::Eavt => [id(components.e), id(components.a), in_entity()],
            Order::Aevt => [id(components.a), id(components.e), in_entity()],
            // Behind the value of a unique attribute comes the partition, then the mark.
            Order::Avet if unique => {
                [id(components.a), value(true), components.e.map(|e| e.slot().number().to_be_bytes().to_vec())]
            }
            Order::Avet => [id(components.a), value(true), id(components.e)],
            Order::Vaet => [value(false), id(components.a), id(components.e)],
            Order::Teav => unreachable!("the log is read by `Facts::log`"),
        };
        parts.into_iter().map_while(|part| part).collect::<Vec<_>>().concat()
    }

    fn between<'v>(
        &self,
        order: Order,
        components: Components<'v>,
        lower: Vec<u8>,
        upper: Option<Vec<u8>>,
    ) -> Datoms<'a, 'v> {
        let (keys, group, last) = (None, Vec::new(), None);
        let (visited, there, done) = (0, 0, false);
        Datoms { view: *self, order, components, lower, upper, keys, group, last, visited, there, done }
    }
}

/// Datoms, read as they are asked for.
pub struct Datoms<'a, 'v> {
    view: FactsView<'a>,
    order: Order,
    components: Components<'v>,
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
    /// None until the first is asked for.
    keys: Option<Merge<'a>>,
    /// The group that was decided last.
    group: Vec<u8>,
    last: Option<KeyRef<'a>>,
    visited: u64,
    there: u64,
    done: bool,
}

impl<'a> Datoms<'a, '_> {
    /// Goes on behind a [`Datoms::place`] of the same question and moment. False when it is no place of it.
    #[must_use]
    pub fn resume(&mut self, place: &[u8]) -> bool {
        let key = KeyRef::new(place);
        let within =
            key >= KeyRef::new(&self.lower) && self.upper.as_ref().is_none_or(|upper| key < KeyRef::new(upper));
        let Some((mark_at, (tx, _))) =
            key::mark_at(self.order, place).and_then(|at| Some((at, key::said(place, at)?))).filter(|_| within)
        else {
            return false;
        };
        if tx <= self.view.as_of {
            self.group = place[..mark_at].to_vec();
        }
        // No key is the beginning of another, so this is behind it and before every other.
        self.lower = [place, &[0]].concat();
        true
    }

    /// How far this has come, for [`Datoms::resume`]; `None` before the first.
    #[must_use]
    pub fn place(&self) -> Option<&'a [u8]> {
        self.last.map(|key| key.bytes)
    }

    /// Keys looked at so far, those that say nothing included: what a slice of work is measured by.
    #[must_use]
    pub const fn visited(&self) -> u64 {
        self.visited
    }

    /// Of those, the ones that are not below a horizon, or hold: the same whatever was merged, so that a verdict may count
    /// them.
    pub(super) const fn there(&self) -> u64 {
        self.there
    }

    /// The next datom; `Ok(None)` also when `keys` more were looked at and none was found.
    ///
    /// **Errors:** a run that cannot be read; a moment below the horizon of what is asked for.
    pub fn next_within(&mut self, keys: u64) -> Result<Option<Datom<'a>>, IndexError> {
        if self.keys.is_none() {
            // What holds now is above every horizon: to look for the greatest costs a step for each attribute.
            if self.view.history || self.view.as_of < self.view.facts.last_tx() {
                self.view.allow(self.view.facts.horizon(self.order, &self.components), self.view.history)?;
            }
            let sources = self.view.facts.sources(self.view.as_of);
            self.keys = Some(Merge::new(sources, self.order, &self.lower, self.upper.as_deref())?);
        }
        let until = self.visited.saturating_add(keys);
        while self.visited < until {
            let Some(merge) = &mut self.keys else { return Ok(None) };
            let Some(key) = merge.next()? else {
                self.done = true;
                return Ok(None);
            };
            self.visited += 1;
            self.last = Some(key);
            let said = self.says(key);
            self.there += u64::from(said.is_some() || self.is_above_horizon(key));
            if let Some(datom) = said {
                return Ok(Some(datom));
            }
        }
        Ok(None)
    }

    /// True when the last datom was given.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    fn is_above_horizon(&self, key: KeyRef<'_>) -> bool {
        let tx = key::mark_at(self.order, key.bytes).and_then(|at| key::said(key.bytes, at)).map(|(tx, _)| tx);
        let horizon = key::attribute(self.order, key.bytes).map(|a| self.view.facts.floor(a).horizon);
        tx > horizon
    }

    /// The datom of a key, when it is asked for.
    fn says(&mut self, key: KeyRef<'a>) -> Option<Datom<'a>> {
        let FactsView { as_of, since, history, .. } = self.view;
        let mark_at = key::mark_at(self.order, key.bytes)?;
        let (tx, added) = key::said(key.bytes, mark_at)?;
        if tx > as_of {
            return None;
        }
        if !history {
            let group = &key.bytes[..mark_at];
            if self.group == group {
                return None;
            }
            self.group.clear();
            self.group.extend_from_slice(group);
            if !added {
                return None;
            }
        }
        if since > Tx::ZERO && tx <= since {
            return None;
        }
        let Components { e, a, v } = self.components;
        key::read(self.order, key.bytes).filter(|datom| {
            e.is_none_or(|e| e == datom.e) && a.is_none_or(|a| a == datom.a) && v.is_none_or(|v| *v == datom.v)
        })
    }
}

impl<'a> Iterator for Datoms<'a, '_> {
    type Item = Result<Datom<'a>, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.next_within(u64::MAX) {
            Ok(found) => found.map(Ok),
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::LOOKS;
    use super::super::{Asked, FactFloors, FactRun};
    use super::*;
    use myelin_datom::{AttributeName, Entity, Given, Op};
    use std::sync::Arc;

    fn say(facts: &mut Facts, tx: u64, said: &[(Entity<'static>, &'static str, Value<'static>)]) -> Vec<EntityId> {
        let op = |(e, a, v): &(Entity<'static>, &'static str, Value<'static>)| Op::Assert {
            e: e.clone(),
            a: AttributeName::ident(*a),
            v: Given::Value(v.clone()),
        };
        let ops: Vec<_> = said.iter().map(op).collect();
        let asked = Asked { slot: Slot::of_name("main"), ops: &ops, market_exists: &|_| false };
        let plan = facts.check(Tx::from_bits(tx), asked).unwrap().unwrap();
        facts.insert(Tx::from_bits(tx), &plan);
        plan.tempids().iter().map(|(_, id)| *id).collect()
    }

    /// A badge that goes from hand to hand: each look at it walked over everybody who ever had it.
    #[test]
    fn who_has_a_unique_value_is_found_by_one_look_a_part_however_many_had_it_before() {
        let mut facts = Facts::new();
        let word = |word: &'static str| Value::keyword(word);
        let badge = Entity::temp("badge");
        say(
            &mut facts,
            1,
            &[
                (badge.clone(), "db/ident", word("badge")),
                (badge.clone(), "db/value-type", word("string")),
                (badge, "db/unique", word("value")),
            ],
        );
        let gold = || Value::string("gold");
        let attribute = facts.attribute_named(Slot::of_name("main"), "badge").unwrap().clone();
        let dir = tempfile::tempdir().unwrap();
        let mut holders = Vec::new();
        for tx in 0..900 {
            // The one who had it takes another, in the same transaction.
            let mut said = vec![(Entity::temp("next"), "badge", gold())];
            said.extend(holders.last().map(|last| (Entity::Id(*last), "badge", Value::string(format!("old {tx}")))));
            holders.push(say(&mut facts, 2 + tx, &said)[0]);
            if tx % 300 == 299 {
                let frozen = facts.freeze().unwrap();
                let path = dir.path().join(format!("{tx}.facts"));
                frozen.write_run(&FactFloors::default(), &path, &mut ()).unwrap();
                facts.install(&frozen, Arc::new(FactRun::open(&path).unwrap()));
            }
        }
        for (as_of, holder, sources) in [(u64::MAX, 899, 4), (2 + 350, 350, 3), (2, 0, 2)] {
            LOOKS.set(0);
            let view = facts.view(Tx::from_bits(as_of));
            let found = view.holder(&attribute, &gold(), Slot::of_name("main")).unwrap();
            assert_eq!(found, Some(holders[holder]), "as of {as_of}");
            assert!(LOOKS.get() <= sources, "{} looks as of {as_of}", LOOKS.get());
        }
        let nobody = facts.view(Tx::from_bits(1)).holder(&attribute, &gold(), Slot::of_name("main")).unwrap();
        assert_eq!(nobody, None);
    }
}
