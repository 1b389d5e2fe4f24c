//! Facts against a naive model: a vector of datoms, read from the beginning every time.
//!
//! Random transactions, with horizons that rise, freezing, sealing, merging and restarts in between; at every random moment
//! every read says the same as the model, or is refused where the moment lies below a horizon. A seed that fails is printed
//! by proptest.

use crate::{SCHEMA, all, attribute, ident, shard, transact};
use myelin_datom::{Datom, Entity, EntityId, Given, Op, Tx, Value};
use myelin_index::facts::Datoms;
use myelin_index::{Components, FactRun, FactWhy, Facts, FrozenFacts, IndexError, LogPlace, Order, merge_facts};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Fact = (EntityId, EntityId, Value<'static>);

#[derive(Default)]
struct Model {
    datoms: Vec<Datom<'static>>,
    horizons: BTreeMap<EntityId, u64>,
}

impl Model {
    /// Datoms of the attribute that are said at or before the horizon and do not hold as of it.
    fn gone(&self, a: EntityId, horizon: u64) -> usize {
        let holds = self.holds(horizon);
        let below = self.datoms.iter().filter(|datom| datom.a == a && datom.tx.bits() <= horizon);
        below.filter(|d| !d.added || holds.get(&(d.e, d.a, d.v.clone())) != Some(&d.tx)).count()
    }

    fn raise(&mut self, facts: &mut Facts, a: EntityId, horizon: u64) {
        let before = self.horizons.get(&a).copied().unwrap_or(0);
        let gone = self.gone(a, horizon).saturating_sub(self.gone(a, before));
        assert_eq!(facts.raise(a, Tx::from_bits(horizon), gone as u64), horizon > before);
        self.horizons.insert(a, horizon.max(before));
    }

    /// The horizon of what is asked for: of one attribute, or the greatest of all that stand in the order.
    fn horizon(&self, names: &Names, order: Order, a: Option<EntityId>) -> u64 {
        let stands = |a: &EntityId| match order {
            Order::Eavt | Order::Aevt => true,
            Order::Avet => ["name", "score"].iter().any(|name| names.attribute(name) == *a),
            Order::Vaet => ["friend", "best", "part"].iter().any(|name| names.attribute(name) == *a),
            Order::Teav => unreachable!("the log is not asked what holds"),
        };
        let touched = |one: &EntityId| a.map_or(stands(one), |a| a == *one);
        self.horizons.iter().filter(|(one, _)| touched(one)).map(|(_, horizon)| *horizon).max().unwrap_or(0)
    }

    fn holds(&self, as_of: u64) -> BTreeMap<Fact, Tx> {
        let mut holds = BTreeMap::new();
        for datom in self.datoms.iter().filter(|datom| datom.tx.bits() <= as_of) {
            let fact = (datom.e, datom.a, datom.v.clone());
            if datom.added {
                holds.insert(fact, datom.tx)
            } else {
                holds.remove(&fact)
            };
        }
        holds
    }

    /// What the ops leave, or why not, by the plainest reading of the rules.
    fn transact(&self, tx: u64, ops: &[Step], names: &Names) -> Result<Vec<Datom<'static>>, FactWhy> {
        let before: BTreeSet<Fact> = self.holds(u64::MAX).into_keys().collect();
        let mut after = before.clone();
        let mut said: BTreeMap<Fact, bool> = BTreeMap::new();
        for step in ops {
            step.perform(names, &mut after, &mut said)?;
        }
        let new: BTreeSet<_> = after.difference(&before).cloned().collect();
        let name = names.attribute("name");
        for (e, a, v) in &new {
            if *a == name && after.iter().any(|(other, b, w)| b == a && w == v && other != e) {
                return Err(FactWhy::Unique);
            }
        }
        for (_, _, v) in &new {
            if let Value::Ref(target) = v
                && !after.iter().any(|(e, ..)| e == target)
            {
                return Err(FactWhy::NoEntity);
            }
        }
        let datom = |(e, a, v): &Fact, added| Datom { e: *e, a: *a, v: v.clone(), tx: Tx::from_bits(tx), added };
        let gone = before.difference(&after).map(|fact| datom(fact, false));
        Ok(gone.chain(new.iter().map(|fact| datom(fact, true))).collect())
    }
}

struct Names {
    entities: Vec<EntityId>,
    attributes: BTreeMap<&'static str, EntityId>,
}

impl Names {
    fn attribute(&self, name: &str) -> EntityId {
        self.attributes[name]
    }

    fn is_many(&self, a: EntityId) -> bool {
        SCHEMA.iter().any(|(name, _, many, _)| *many && self.attributes[name] == a)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assert(usize, usize, u8),
    Retract(usize, usize, Option<u8>),
    RetractEntity(usize),
    CompareAndSet(usize, usize, Option<u8>, Option<u8>),
}

impl Step {
    fn value(names: &Names, a: usize, v: u8) -> Value<'static> {
        match SCHEMA[a].1 {
            "string" => Value::string(format!("n{}", v % 4)),
            "i64" => Value::I64(i64::from(v) - 3),
            "keyword" => Value::keyword(format!("k{v}")),
            "f64" => Value::F64(f64::from(v) / 2.0 - 1.0),
            _ => Value::Ref(names.entities[usize::from(v) % names.entities.len()]),
        }
    }

    fn op(&self, names: &Names) -> Op<'static> {
        let entity = |e: usize| Entity::Id(names.entities[e % names.entities.len()]);
        let name = |a: usize| ident(SCHEMA[a].0);
        let given = |a: usize, v: u8| Given::Value(Self::value(names, a, v));
        match *self {
            Self::Assert(e, a, v) => Op::Assert { e: entity(e), a: name(a), v: given(a, v) },
            Self::Retract(e, a, v) => Op::Retract { e: entity(e), a: name(a), v: v.map(|v| given(a, v)) },
            Self::RetractEntity(e) => Op::RetractEntity { e: entity(e) },
            Self::CompareAndSet(e, a, expected, new) => Op::CompareAndSet {
                e: entity(e),
                a: name(a),
                expected: expected.map(|v| given(a, v)),
                new: new.map(|v| given(a, v)),
            },
        }
    }

    fn perform(
        &self,
        names: &Names,
        after: &mut BTreeSet<Fact>,
        said: &mut BTreeMap<Fact, bool>,
    ) -> Result<(), FactWhy> {
        let entity = |e: usize| names.entities[e % names.entities.len()];
        let id = |a: usize| names.attribute(SCHEMA[a].0);
        let of = |after: &BTreeSet<Fact>, e, a| -> Vec<Fact> {
            after.iter().filter(|(of, b, _)| (*of, *b) == (e, a)).cloned().collect()
        };
        let mut set = |after: &mut BTreeSet<Fact>, fact: Fact, holds: bool| {
            match said.get(&fact) {
                Some(before) if *before != holds => return Err(FactWhy::Conflict),
                _ => {}
            }
            let there = after.contains(&fact);
            if there || holds {
                said.insert(fact.clone(), holds);
            }
            if holds {
                after.insert(fact)
            } else {
                after.remove(&fact)
            };
            Ok(())
        };
        let mut assert = |after: &mut BTreeSet<Fact>, e, a, v: Value<'static>| {
            if !names.is_many(a) {
                for old in of(after, e, a).into_iter().filter(|old| old.2 != v) {
                    set(after, old, false)?;
                }
            }
            set(after, (e, a, v), true)
        };
        match *self {
            Self::Assert(e, a, v) => assert(after, entity(e), id(a), Self::value(names, a, v)),
            Self::Retract(e, a, Some(v)) => set(after, (entity(e), id(a), Self::value(names, a, v)), false),
            Self::Retract(e, a, None) => {
                of(after, entity(e), id(a)).into_iter().try_for_each(|fact| set(after, fact, false))
            }
            Self::RetractEntity(e) => {
                let (mut left, mut gone) = (vec![entity(e)], BTreeSet::from([entity(e)]));
                while let Some(e) = left.pop() {
                    let touching: Vec<Fact> =
                        after.iter().filter(|(of, _, v)| *of == e || *v == Value::Ref(e)).cloned().collect();
                    for fact in touching {
                        if let (true, Value::Ref(part)) = (fact.0 == e && fact.1 == names.attribute("part"), &fact.2)
                            && gone.insert(*part)
                        {
                            left.push(*part);
                        }
                        set(after, fact, false)?;
                    }
                }
                Ok(())
            }
            Self::CompareAndSet(e, a, expected, new) => {
                if names.is_many(id(a)) {
                    return Err(FactWhy::Conflict);
                }
                let current = of(after, entity(e), id(a)).pop();
                if current.as_ref().map(|fact| fact.2.clone()) != expected.map(|v| Self::value(names, a, v)) {
                    return Err(FactWhy::Compare);
                }
                match (current, new) {
                    (_, Some(v)) => assert(after, entity(e), id(a), Self::value(names, a, v)),
                    (Some(current), None) => set(after, current, false),
                    (None, None) => Ok(()),
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Command {
    Transact(Vec<Step>),
    /// Of the attribute with this number, so many transactions back.
    Raise(usize, u64),
    Freeze,
    Seal,
    Merge(usize),
    Restart,
}

fn command() -> impl Strategy<Value = Command> {
    let (e, a, v) = (0..6_usize, 0..SCHEMA.len(), 0..6_u8);
    let maybe = || prop::option::of(0..6_u8);
    let step = prop_oneof![
        6 => (e.clone(), a.clone(), v).prop_map(|(e, a, v)| Step::Assert(e, a, v)),
        2 => (e.clone(), a.clone(), maybe()).prop_map(|(e, a, v)| Step::Retract(e, a, v)),
        1 => e.clone().prop_map(Step::RetractEntity),
        1 => (e, a, maybe(), maybe()).prop_map(|(e, a, old, new)| Step::CompareAndSet(e, a, old, new)),
    ];
    prop_oneof![
        8 => prop::collection::vec(step, 1..5).prop_map(Command::Transact),
        2 => (0..SCHEMA.len(), 0..8_u64).prop_map(|(a, back)| Command::Raise(a, back)),
        1 => Just(Command::Freeze),
        1 => Just(Command::Seal),
        1 => (0..3_usize).prop_map(Command::Merge),
        1 => Just(Command::Restart),
    ]
}

/// A shard with its files.
struct Rig {
    facts: Facts,
    dir: tempfile::TempDir,
    waiting: Vec<Arc<FrozenFacts>>,
    files: u32,
}

impl Rig {
    fn path(&mut self) -> std::path::PathBuf {
        self.files += 1;
        self.dir.path().join(format!("{}.facts", self.files))
    }

    fn freeze(&mut self) {
        self.waiting.extend(self.facts.freeze());
    }

    fn seal(&mut self) {
        self.freeze();
        for frozen in std::mem::take(&mut self.waiting) {
            let path = self.path();
            let meta = frozen.write_run(&self.facts.floors(), &path, &mut ()).unwrap();
            let run = FactRun::open(&path).unwrap();
            run.verify().unwrap();
            assert_eq!(run.meta(), &meta);
            self.facts.install(&frozen, Arc::new(run));
        }
    }

    /// Merges all runs from this one on.
    fn merge(&mut self, from: usize) {
        let runs = self.facts.runs();
        let from = from.min(runs.len());
        let old = runs[from..].to_vec();
        if !old.is_empty() {
            let path = self.path();
            let floors = self.facts.floors();
            merge_facts(&old, &floors, from == 0, &path, &mut ()).unwrap();
            let new = Arc::new(FactRun::open(&path).unwrap());
            assert!(from > 0 || new.gone(&floors) == 0, "nothing is left to be dropped");
            self.facts.install_merged(&old, new);
        }
    }

    fn restart(&mut self) {
        self.seal();
        let state = self.facts.state();
        let open = |run: &Arc<FactRun>| Arc::new(FactRun::open(&run.meta().path).unwrap());
        let runs = self.facts.runs().iter().map(open).collect();
        self.facts = Facts::restore(&state, runs).unwrap();
        assert_eq!(self.facts.state(), state);
    }
}

/// What a read says: the datoms of it, or the horizon below which it is refused.
fn told(datoms: Datoms<'_, '_>, names: &Names) -> Result<Vec<Datom<'static>>, u64> {
    let mine = |datom: &Datom<'_>| names.attributes.values().any(|a| *a == datom.a);
    let mut found = Vec::new();
    for datom in datoms {
        if let Err(IndexError::BelowHorizon { horizon }) = datom {
            assert!(found.is_empty(), "refused before anything was said");
            return Err(horizon.bits());
        }
        found.push(datom.unwrap().into_owned());
    }
    found.retain(mine);
    Ok(found)
}

/// The log has what history has, in order, from any place on; below the horizon it is whole or refused.
fn compare_log(facts: &Facts, as_of: u64, since: u64, horizon: u64) {
    let (as_of, since) = (Tx::from_bits(as_of), Tx::from_bits(since));
    assert_eq!(facts.log_horizon(|_| true).bits(), horizon);
    let (mut logged, mut place) = (Vec::new(), LogPlace::behind(since));
    loop {
        let (before, mut log) = (logged.len(), facts.log(&place, as_of, Tx::from_bits(horizon)));
        while logged.len() - before < 3 {
            match log.read() {
                Ok(Some(datom)) => logged.push(datom),
                Ok(None) => break,
                Err(error) => {
                    let gone = matches!(error, IndexError::BelowHorizon { .. }) && since.bits() < horizon;
                    return assert!(gone, "{error}");
                }
            }
        }
        place = log.place();
        if logged.len() == before {
            break;
        }
    }
    if since.bits() < horizon || as_of.bits() < horizon {
        return;
    }
    let history = facts.view(as_of).history().since(since);
    let mut said: Vec<_> = history.datoms(Order::Eavt, &Components::default()).map(|datom| datom.unwrap()).collect();
    said.retain(|datom| datom.tx > since);
    said.sort_by_cached_key(|datom| {
        let mut value = Vec::new();
        datom.v.write_key(&mut value);
        (datom.tx, datom.e, datom.a, datom.added, value)
    });
    assert_eq!(logged, said, "as of {as_of} since {since}");
}

fn compare(facts: &Facts, model: &Model, names: &Names, as_of: u64, since: u64) {
    let view = facts.view(Tx::from_bits(as_of));
    let holds = model.holds(as_of);
    let expected: BTreeSet<(Fact, Tx)> = holds.iter().map(|(fact, tx)| (fact.clone(), *tx)).collect();
    let fact = |datom: Datom<'static>| ((datom.e, datom.a, datom.v), datom.tx);
    let indexed = |a: EntityId| ["name", "score"].iter().any(|name| names.attribute(name) == a);
    for order in Order::ALL {
        let stands = |((_, a, v), _): &&(Fact, Tx)| match order {
            Order::Eavt | Order::Aevt => true,
            Order::Avet => indexed(*a),
            Order::Vaet => matches!(v, Value::Ref(_)),
            Order::Teav => unreachable!("the log is not asked what holds"),
        };
        let expected: BTreeSet<_> = expected.iter().filter(stands).cloned().collect();
        let horizon = model.horizon(names, order, None);
        let read = || told(view.datoms(order, &Components::default()), names);
        if as_of < horizon {
            assert_eq!(read(), Err(horizon), "{order:?} as of {as_of}");
            continue;
        }
        let found: Vec<_> = read().unwrap().into_iter().map(fact).collect();
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{order:?} as of {as_of}");
        assert_eq!(found.len(), expected.len(), "each once");
        // A page at a time gives the same.
        let all = view.datoms(order, &Components::default()).map(|datom| datom.unwrap().into_owned());
        let (mut paged, mut place) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let mut datoms = view.datoms(order, &Components::default());
            if let Some(place) = &place {
                assert!(datoms.resume(place));
            }
            if let Some(datom) = datoms.next_within(3).unwrap() {
                paged.push(datom.into_owned());
            }
            if datoms.is_done() {
                break;
            }
            place = datoms.place().map(<[u8]>::to_vec).or(place);
        }
        assert_eq!(paged, all.collect::<Vec<_>>());
    }
    compare_log(facts, as_of, since, model.horizon(names, Order::Eavt, None));
    for (n, e) in names.entities.iter().enumerate() {
        let of: BTreeSet<_> = expected.iter().filter(|((of, ..), _)| of == e).cloned().collect();
        let horizon = model.horizon(names, Order::Eavt, None);
        match told(view.entity(*e), names) {
            Ok(found) => assert_eq!(found.into_iter().map(fact).collect::<BTreeSet<_>>(), of),
            Err(told) => assert!(as_of < horizon && told == horizon),
        }
        for (name, _, many, _) in SCHEMA {
            let a = names.attribute(name);
            let horizon = model.horizon(names, Order::Eavt, Some(a));
            let values: Vec<_> = of.iter().filter(|((_, b, _), _)| *b == a).map(|((_, _, v), _)| v).collect();
            if as_of < horizon {
                let below =
                    |error| matches!(error, IndexError::BelowHorizon { horizon: told } if told.bits() == horizon);
                assert!(view.value(*e, a).is_err_and(below), "{name} of {n} as of {as_of}");
                continue;
            }
            if !many {
                assert_eq!(view.value(*e, a).unwrap().as_ref(), values.last().copied(), "{name} of {n} as of {as_of}");
            }
            let v = Step::value(names, SCHEMA.iter().position(|one| one.0 == name).unwrap(), 1);
            for order in [Order::Eavt, Order::Aevt] {
                let components = Components { e: Some(*e), a: Some(a), v: Some(&v) };
                assert_eq!(all(facts, as_of, order, &components).len(), usize::from(values.contains(&&v)));
            }
            if name == "name" {
                let attribute = facts.attribute(a).unwrap();
                for v in &values {
                    assert_eq!(view.holder(attribute, v, crate::slot()).unwrap(), Some(*e));
                }
            }
        }
        let pointing = Value::Ref(*e);
        let components = Components { v: Some(&pointing), ..Components::default() };
        if as_of >= model.horizon(names, Order::Vaet, None) {
            let pointed = expected.iter().filter(|((.., v), _)| *v == pointing).count();
            assert_eq!(all(facts, as_of, Order::Vaet, &components).len(), pointed);
        }
    }
    let since_view = view.since(Tx::from_bits(since));
    let key = |datom: &Datom<'static>| (datom.e, datom.a, datom.v.clone(), datom.tx, datom.added);
    let asked = [None].into_iter().chain(names.attributes.values().copied().map(Some));
    for a in asked {
        let horizon = model.horizon(names, Order::Aevt, a);
        let components = Components { a, ..Components::default() };
        let mine = |one: &EntityId| a.is_none_or(|a| a == *one);
        let later: BTreeSet<_> =
            expected.iter().filter(|((_, a, _), tx)| tx.bits() > since && mine(a)).cloned().collect();
        match told(since_view.datoms(Order::Aevt, &components), names) {
            Ok(found) => assert_eq!(found.into_iter().map(fact).collect::<BTreeSet<_>>(), later),
            Err(told) => assert!(as_of < horizon && told == horizon),
        }
        let said = |datom: &&Datom<'static>| datom.tx.bits() > since && datom.tx.bits() <= as_of && mine(&datom.a);
        let mut expected: Vec<_> = model.datoms.iter().filter(said).map(key).collect();
        expected.sort();
        match told(since_view.history().datoms(Order::Aevt, &components), names) {
            Ok(found) => {
                let mut found: Vec<_> = found.iter().map(key).collect();
                found.sort();
                assert_eq!(found, expected, "history of {a:?} since {since} as of {as_of}");
                assert!(as_of >= horizon && since >= horizon, "a short answer");
            }
            Err(told) => assert!((as_of < horizon || since < horizon) && told == horizon),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_read_at_every_moment_says_what_the_naive_model_says(
        commands in prop::collection::vec(command(), 1..40), moments in prop::collection::vec((0..50_u64, 0..50_u64), 4),
    ) {
        let (facts, entities) = shard(6);
        let attributes = SCHEMA.iter().map(|(name, ..)| (*name, attribute(&facts, name))).collect();
        let names = Names { entities, attributes };
        let mut model = Model::default();
        for (n, e) in names.entities.iter().enumerate() {
            let v = Value::string(format!("e{n}"));
            model.datoms.push(Datom { e: *e, a: names.attribute("name"), v, tx: Tx::from_bits(2), added: true });
        }
        let mut rig = Rig { facts, dir: tempfile::tempdir().unwrap(), waiting: Vec::new(), files: 0 };
        let mut tx = 2;
        for command in &commands {
            match command {
                Command::Transact(steps) => {
                    tx += 1;
                    let ops: Vec<_> = steps.iter().map(|step| step.op(&names)).collect();
                    let expected = model.transact(tx, steps, &names);
                    let found = transact(&mut rig.facts, tx, &ops);
                    match (expected, found) {
                        (Ok(datoms), Ok(plan)) => {
                            prop_assert_eq!(plan.datoms(), datoms.len());
                            model.datoms.extend(datoms);
                        }
                        // Whom an op took away and an earlier one pointed at is found last, behind what is wrong with later ops.
                        (Err(FactWhy::Conflict), Err(_)) if steps.iter().any(|step| matches!(step, Step::RetractEntity(_))) => {}
                        (Err(expected), Err((_, found))) => prop_assert_eq!(expected, found),
                        (expected, found) => panic!("{ops:?}: expected {expected:?}, found {found:?}"),
                    }
                }
                Command::Raise(a, back) => {
                    let (a, horizon) = (names.attribute(SCHEMA[*a].0), rig.facts.last_tx().bits().saturating_sub(*back));
                    model.raise(&mut rig.facts, a, horizon);
                }
                Command::Freeze => rig.freeze(),
                Command::Seal => rig.seal(),
                Command::Merge(from) => rig.merge(*from),
                Command::Restart => rig.restart(),
            }
        }
        for (as_of, since) in moments {
            compare(&rig.facts, &model, &names, as_of, since);
        }
        compare(&rig.facts, &model, &names, u64::MAX, 0);
        // What is said to be there is there, and what is said to be gone is, once everything was merged.
        let kept = |facts: &Facts| {
            let mut kept = Vec::new();
            facts.each_kept(|datom| kept.push(datom.clone().into_owned())).unwrap();
            kept
        };
        let before = kept(&rig.facts);
        let mine = before.iter().filter(|datom| datom.tx > Tx::ZERO).count();
        prop_assert_eq!(mine as u64, rig.facts.datoms());
        rig.seal();
        rig.merge(0);
        let rows: u64 = rig.facts.runs().iter().map(|run| run.meta().rows).sum();
        prop_assert_eq!(rows, rig.facts.datoms());
        rig.restart();
        prop_assert_eq!(kept(&rig.facts), before);
        compare(&rig.facts, &model, &names, u64::MAX, rig.facts.last_tx().bits());
    }
}
