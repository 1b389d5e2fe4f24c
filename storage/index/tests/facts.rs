//! Facts against a naive model: a vector of datoms, read from the beginning every time.
//!
//! Random transactions, with freezing, sealing, merging and restarts in between; at every random moment every read says the
//! same as the model. A seed that fails is printed by proptest.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use myelin_datom::{AttributeName, Datom, Entity, EntityId, Given, Op, Slot, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{
    Asked, Components, FactRun, FactWhy, Facts, FrozenFacts, IndexError, Note, Order, Plan, merge_facts,
};
use proptest::prelude::*;

const SLOT: u16 = 7;
/// Ident, type, many, extra facts.
type Described = (&'static str, &'static str, bool, &'static [(&'static str, &'static str)]);
const SCHEMA: [Described; 7] = [
    ("name", "string", false, &[("db/unique", "identity")]),
    ("age", "i64", false, &[]),
    ("tag", "keyword", true, &[]),
    ("friend", "ref", true, &[]),
    ("best", "ref", false, &[]),
    ("part", "ref", true, &[("db/component", "")]),
    ("score", "f64", true, &[("db/index", "")]),
];

fn slot() -> Slot {
    Slot::new(SLOT).unwrap()
}

fn ident(name: &str) -> AttributeName<'static> {
    AttributeName::Ident(name.to_owned().into())
}

fn assert_op(e: &Entity<'static>, a: &str, v: Value<'static>) -> Op<'static> {
    Op::Assert { e: e.clone(), a: ident(a), v: Given::Value(v) }
}

fn check(facts: &Facts, tx: u64, ops: &[Op<'_>]) -> Result<Plan, (u32, FactWhy)> {
    let asked = Asked { slot: slot(), ops, market_exists: &|_| true };
    facts.check(Tx::from_bits(tx), asked).unwrap().map_err(|refusal| (refusal.op, refusal.why))
}

fn transact(facts: &mut Facts, tx: u64, ops: &[Op<'_>]) -> Result<Plan, (u32, FactWhy)> {
    let plan = check(facts, tx, ops)?;
    facts.insert(Tx::from_bits(tx), &plan);
    Ok(plan)
}

/// A shard with the schema above, installed as transaction 1, and `entities` named e0, e1 .. as transaction 2.
fn shard(entities: usize) -> (Facts, Vec<EntityId>) {
    let mut facts = Facts::new();
    let mut ops = Vec::new();
    for (name, value_type, many, more) in SCHEMA {
        let e = Entity::temp(name);
        ops.push(assert_op(&e, "db/ident", Value::keyword(name)));
        ops.push(assert_op(&e, "db/value-type", Value::keyword(value_type)));
        ops.push(assert_op(&e, "db/cardinality", Value::keyword(if many { "many" } else { "one" })));
        for (a, v) in more {
            let v = if v.is_empty() { Value::Bool(true) } else { Value::keyword(*v) };
            ops.push(assert_op(&e, a, v));
        }
    }
    transact(&mut facts, 1, &ops).unwrap();
    let name = |n: usize| format!("e{n}");
    let ops: Vec<_> =
        (0..entities).map(|n| assert_op(&Entity::temp(name(n)), "name", Value::string(name(n)))).collect();
    let plan = transact(&mut facts, 2, &ops).unwrap();
    let ids = plan.tempids().iter().map(|(_, id)| *id).collect();
    (facts, ids)
}

fn attribute(facts: &Facts, name: &str) -> EntityId {
    facts.attribute_named(slot(), name).unwrap().id
}

fn all(facts: &Facts, as_of: u64, order: Order, components: &Components<'_>) -> Vec<Datom<'static>> {
    facts.view(Tx::from_bits(as_of)).datoms(order, components).map(|datom| datom.unwrap().into_owned()).collect()
}

// ---- the model

type Fact = (EntityId, EntityId, Value<'static>);

#[derive(Default)]
struct Model {
    datoms: Vec<Datom<'static>>,
}

impl Model {
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
    Freeze,
    Seal,
    Merge,
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
        1 => Just(Command::Freeze),
        1 => Just(Command::Seal),
        1 => Just(Command::Merge),
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
            let meta = frozen.write_run(&path, &mut ()).unwrap();
            let run = FactRun::open(&path).unwrap();
            run.verify().unwrap();
            assert_eq!(run.meta(), &meta);
            self.facts.install(&frozen, Arc::new(run));
        }
    }

    fn merge(&mut self) {
        let old = self.facts.runs().to_vec();
        if old.len() >= 2 {
            let path = self.path();
            merge_facts(&old, &path, &mut ()).unwrap();
            self.facts.install_merged(&old, Some(Arc::new(FactRun::open(&path).unwrap())));
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

fn compare(facts: &Facts, model: &Model, names: &Names, as_of: u64, since: u64) {
    let view = facts.view(Tx::from_bits(as_of));
    let mine = |datom: &Datom<'_>| names.attributes.values().any(|a| *a == datom.a);
    let holds = model.holds(as_of);
    let expected: BTreeSet<(Fact, Tx)> = holds.iter().map(|(fact, tx)| (fact.clone(), *tx)).collect();
    let fact = |datom: Datom<'static>| ((datom.e, datom.a, datom.v), datom.tx);
    for order in Order::ALL {
        let indexed = |a: EntityId| ["name", "score"].iter().any(|name| names.attribute(name) == a);
        let stands = |((_, a, v), _): &&(Fact, Tx)| match order {
            Order::Eavt | Order::Aevt => true,
            Order::Avet => indexed(*a),
            Order::Vaet => matches!(v, Value::Ref(_)),
        };
        let expected: BTreeSet<_> = expected.iter().filter(stands).cloned().collect();
        let read = || view.datoms(order, &Components::default()).map(|datom| datom.unwrap().into_owned());
        let found: Vec<_> = read().filter(mine).map(fact).collect();
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{order:?} as of {as_of}");
        assert_eq!(found.len(), expected.len(), "each once");
        // A page at a time gives the same.
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
        assert_eq!(paged, read().collect::<Vec<_>>());
    }
    for (n, e) in names.entities.iter().enumerate() {
        let of: BTreeSet<_> = expected.iter().filter(|((of, ..), _)| of == e).cloned().collect();
        let found: BTreeSet<_> = view.entity(*e).map(|datom| fact(datom.unwrap().into_owned())).collect();
        assert_eq!(found, of);
        for (name, _, many, _) in SCHEMA {
            let a = names.attribute(name);
            let values: Vec<_> = of.iter().filter(|((_, b, _), _)| *b == a).map(|((_, _, v), _)| v).collect();
            if !many {
                assert_eq!(view.value(*e, a).unwrap().as_ref(), values.last().copied(), "{name} of {n} as of {as_of}");
            }
            let v = Step::value(names, SCHEMA.iter().position(|one| one.0 == name).unwrap(), 1);
            for order in [Order::Eavt, Order::Aevt] {
                let components = Components { e: Some(*e), a: Some(a), v: Some(&v) };
                assert_eq!(all(facts, as_of, order, &components).len(), usize::from(values.contains(&&v)));
            }
        }
        let pointing = Value::Ref(*e);
        let components = Components { v: Some(&pointing), ..Components::default() };
        let pointed = expected.iter().filter(|((.., v), _)| *v == pointing).count();
        assert_eq!(all(facts, as_of, Order::Vaet, &components).len(), pointed);
    }
    let later: BTreeSet<_> = expected.iter().filter(|(_, tx)| tx.bits() > since).cloned().collect();
    let since_view = view.since(Tx::from_bits(since));
    let read = |view: myelin_index::FactsView<'_>| -> Vec<Datom<'static>> {
        let datoms = view.datoms(Order::Eavt, &Components::default());
        datoms.map(|datom| datom.unwrap().into_owned()).filter(mine).collect()
    };
    assert_eq!(read(since_view).into_iter().map(fact).collect::<BTreeSet<_>>(), later);
    let key = |datom: &Datom<'static>| (datom.e, datom.a, datom.v.clone(), datom.tx, datom.added);
    let mut history: Vec<_> = read(since_view.history()).iter().map(key).collect();
    let said = |datom: &&Datom<'static>| datom.tx.bits() > since && datom.tx.bits() <= as_of;
    let mut expected: Vec<_> = model.datoms.iter().filter(said).map(key).collect();
    history.sort();
    expected.sort();
    assert_eq!(history, expected);
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
                        (Err(expected), Err((_, found))) => prop_assert_eq!(expected, found),
                        (expected, found) => panic!("{ops:?}: expected {expected:?}, found {found:?}"),
                    }
                }
                Command::Freeze => rig.freeze(),
                Command::Seal => rig.seal(),
                Command::Merge => rig.merge(),
                Command::Restart => rig.restart(),
            }
        }
        for (as_of, since) in moments {
            compare(&rig.facts, &model, &names, as_of, since);
        }
        compare(&rig.facts, &model, &names, u64::MAX, 0);
    }
}

// ---- what a transaction may do

#[test]
fn a_tempid_with_the_value_of_an_identity_is_whoever_has_it() {
    let (mut facts, ids) = shard(2);
    let ops = [
        assert_op(&Entity::temp("x"), "name", Value::string("e1")),
        assert_op(&Entity::temp("x"), "age", Value::I64(7)),
        assert_op(&Entity::temp("y"), "name", Value::string("new")),
        assert_op(&Entity::temp("z"), "name", Value::string("new")),
        Op::Assert { e: Entity::temp("z"), a: ident("best"), v: Given::Entity(Entity::temp("x")) },
    ];
    let plan = transact(&mut facts, 3, &ops).unwrap();
    let found: BTreeMap<_, _> = plan.tempids().iter().map(|(name, id)| (&**name, *id)).collect();
    assert_eq!(found["x"], ids[1]);
    assert_eq!(found["y"], found["z"], "one value, one entity");
    assert!(!ids.contains(&found["y"]));
    assert_eq!(plan.datoms(), 3, "what was there is not stored again");
    let view = facts.view(Tx::MAX);
    assert_eq!(view.value(found["z"], attribute(&facts, "best")).unwrap(), Some(Value::Ref(ids[1])));
    let two = [
        assert_op(&Entity::temp("x"), "name", Value::string("e0")),
        Op::CompareAndSet {
            e: Entity::temp("x"),
            a: ident("name"),
            expected: None,
            new: Some(Given::Value(Value::string("e1"))),
        },
    ];
    assert_eq!(check(&facts, 4, &two), Err((1, FactWhy::Unique)), "it cannot be two");
}

#[test]
fn what_cannot_be_is_refused_by_name_with_its_op_and_nothing_is_stored() {
    let (mut facts, ids) = shard(2);
    let e = Entity::Id(ids[0]);
    let good = assert_op(&e, "age", Value::I64(1));
    let nobody = EntityId::new(myelin_datom::Kind::Ordinary, slot(), 0, 999);
    let elsewhere = EntityId::new(myelin_datom::Kind::Ordinary, Slot::new(8).unwrap(), 0, 1);
    let lookup = Entity::Lookup(ident("name"), Value::string("nobody"));
    for (op, why) in [
        (assert_op(&e, "size", Value::I64(1)), FactWhy::UnknownAttribute),
        (assert_op(&e, "age", Value::string("1")), FactWhy::Type),
        (assert_op(&e, "name", Value::string("e1")), FactWhy::Unique),
        (assert_op(&e, "age", Value::I64(2)), FactWhy::Conflict),
        (assert_op(&e, "best", Value::Ref(nobody)), FactWhy::NoEntity),
        (assert_op(&Entity::Id(nobody), "age", Value::I64(2)), FactWhy::NoEntity),
        (assert_op(&Entity::Id(elsewhere), "age", Value::I64(2)), FactWhy::OtherPartition),
        (assert_op(&lookup, "age", Value::I64(2)), FactWhy::NoEntity),
        (assert_op(&Entity::Ident("nobody".into()), "age", Value::I64(2)), FactWhy::NoEntity),
        (assert_op(&Entity::Ident("db/ident".into()), "db/doc", Value::string("x")), FactWhy::Schema),
        (assert_op(&e, "tx/id", Value::I64(2)), FactWhy::Schema),
        (Op::Assert { e: e.clone(), a: ident("age"), v: Given::Entity(e.clone()) }, FactWhy::Type),
    ] {
        assert_eq!(transact(&mut facts, 3, &[good.clone(), op]).unwrap_err(), (1, why));
    }
    assert_eq!(facts.last_tx(), Tx::from_bits(2));
    let other_partition = assert_op(&e, "best", Value::Ref(elsewhere));
    transact(&mut facts, 3, &[other_partition]).unwrap();
}

#[test]
fn checks_bind_new_values_and_a_change_that_old_data_forbids_is_refused() {
    let (mut facts, ids) = shard(1);
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    let age = Entity::Ident("age".into());
    transact(&mut facts, 3, &[assert_op(&Entity::Id(ids[0]), "age", Value::I64(40))]).unwrap();
    let forbids = |facts: &mut Facts, a: &str, v: Value<'static>| {
        transact(facts, 9, &[assert_op(&age, a, v)]).unwrap_err().1 == FactWhy::Schema
    };
    assert!(forbids(&mut facts, "db/max", decimal("39.5")));
    assert!(forbids(&mut facts, "db/value-type", Value::keyword("f64")));
    assert!(forbids(&mut facts, "db/cardinality", Value::keyword("many")));
    assert!(forbids(&mut facts, "db/unique", Value::keyword("value")));
    assert!(forbids(&mut facts, "db/value-type", Value::keyword("i65")));
    transact(&mut facts, 4, &[assert_op(&age, "db/max", decimal("40"))]).unwrap();
    let older = [assert_op(&Entity::Id(ids[0]), "age", Value::I64(41))];
    assert_eq!(check(&facts, 5, &older), Err((0, FactWhy::Check)));
    let tag = Entity::Ident("tag".into());
    transact(
        &mut facts,
        5,
        &[
            assert_op(&tag, "db/one-of", Value::string("red")),
            assert_op(&tag, "db/one-of", Value::string("reddish")),
            assert_op(&tag, "db/pattern", Value::string("*d")),
        ],
    )
    .unwrap();
    for (word, allowed) in [("red", true), ("reddish", false), ("bad", false)] {
        let ops = [assert_op(&Entity::Id(ids[0]), "tag", Value::keyword(word))];
        assert_eq!(check(&facts, 6, &ops).is_ok(), allowed, "{word}");
    }
    // What an attribute once was is part of its history.
    let id = attribute(&facts, "age");
    assert_eq!(facts.view(Tx::from_bits(3)).value(id, born::MAX).unwrap(), None);
    assert_eq!(facts.view(Tx::from_bits(4)).value(id, born::MAX).unwrap(), Some(decimal("40")));
}

#[test]
fn a_retracted_entity_takes_its_components_along_and_what_points_at_it() {
    let (mut facts, ids) = shard(4);
    let part = |e: usize, of: usize| assert_op(&Entity::Id(ids[e]), "part", Value::Ref(ids[of]));
    transact(
        &mut facts,
        3,
        &[part(0, 1), part(1, 2), part(2, 0), assert_op(&Entity::Id(ids[3]), "best", Value::Ref(ids[2]))],
    )
    .unwrap();
    transact(&mut facts, 4, &[Op::RetractEntity { e: Entity::Id(ids[0]) }]).unwrap();
    let left = |e: usize| facts.view(Tx::MAX).entity(ids[e]).count();
    assert_eq!([0, 1, 2, 3].map(left), [0, 0, 0, 1], "only the name of the last is left");
    assert_eq!(facts.view(Tx::from_bits(3)).entity(ids[1]).count(), 2, "the past did not change");
}

#[test]
fn a_transaction_too_large_is_refused_whole() {
    let (mut facts, ids) = shard(1);
    let tags = |from: u32| -> Vec<_> {
        (from..from + 8000).map(|n| assert_op(&Entity::Id(ids[0]), "tag", Value::keyword(format!("t{n}")))).collect()
    };
    for (n, tx) in (0..3).zip(3..) {
        transact(&mut facts, tx, &tags(n * 8000)).unwrap();
    }
    let gone = [Op::RetractEntity { e: Entity::Id(ids[0]) }];
    assert_eq!(check(&facts, 6, &gone), Err((0, FactWhy::TooLarge)));
}

#[test]
fn the_transaction_is_an_entity_when_somebody_says_something_about_it() {
    let (mut facts, _) = shard(1);
    let tx = Tx::at_millis(1_700_000_000_000);
    let ops = [assert_op(&Entity::ThisTx, "tag", Value::keyword("why"))];
    transact(&mut facts, tx.bits(), &ops).unwrap();
    let id = Value::I64(tx.bits() as i64);
    let found = all(&facts, u64::MAX, Order::Avet, &Components { a: Some(born::TX_ID), v: Some(&id), e: None });
    assert_eq!(found.len(), 1);
    let instant = facts.view(Tx::MAX).value(found[0].e, born::TX_INSTANT).unwrap();
    assert_eq!(instant, Some(Value::Instant(1_700_000_000_000_000_000)));
}

#[test]
fn the_shards_own_facts_are_stored_and_read_like_others() {
    let (mut facts, _) = shard(0);
    let market = EntityId::market(slot(), 3);
    let gap = Note {
        about: Err(slot()),
        facts: vec![(born::FEED_GAP, Value::Ref(market)), (born::FEED_GAP_ROWS, Value::keyword("tick"))],
    };
    let horizon = |tx: i64| Note { about: Ok(market), facts: vec![(born::MARKET_HORIZON, Value::I64(tx))] };
    let plan = facts.note(&[gap.clone(), gap, horizon(1)]).unwrap();
    facts.insert(Tx::from_bits(3), &plan);
    let plan = facts.note(&[horizon(3)]).unwrap();
    facts.insert(Tx::from_bits(4), &plan);
    let target = Value::Ref(market);
    let gaps = all(&facts, u64::MAX, Order::Vaet, &Components { v: Some(&target), ..Components::default() });
    assert_eq!(gaps.len(), 2);
    assert_ne!(gaps[0].e, gaps[1].e);
    assert_eq!(facts.view(Tx::MAX).value(market, born::MARKET_HORIZON).unwrap(), Some(Value::I64(3)));
    assert_eq!(facts.view(Tx::MAX).history().entity(market).count(), 3);
}

#[test]
fn values_are_read_by_range_where_they_are_indexed() {
    let (mut facts, ids) = shard(1);
    let ops: Vec<_> =
        (0..10).map(|n| assert_op(&Entity::Id(ids[0]), "score", Value::F64(f64::from(n) - 5.0))).collect();
    transact(&mut facts, 3, &ops).unwrap();
    let score = attribute(&facts, "score");
    let (from, to) = (Value::F64(-2.0), Value::F64(1.0));
    let found: Vec<_> =
        facts.view(Tx::MAX).range(score, Some(&from), Some(&to)).map(|datom| datom.unwrap().v).collect();
    assert_eq!(found, [-2.0, -1.0, 0.0, 1.0].map(Value::F64));
    assert_eq!(facts.view(Tx::MAX).range(score, None, Some(&from)).count(), 4);
}

// ---- files

fn sealed(dir: &Path) -> (Facts, std::path::PathBuf) {
    let (mut facts, ids) = shard(6);
    for tx in 3..60 {
        let e = Entity::Id(ids[tx as usize % 6]);
        let text = format!("{tx:0>700}");
        transact(
            &mut facts,
            tx,
            &[assert_op(&e, "tag", Value::keyword(format!("t{tx}"))), assert_op(&e, "name", Value::string(text))],
        )
        .unwrap();
    }
    let path = dir.join("a.facts");
    let frozen = facts.freeze().unwrap();
    frozen.write_run(&path, &mut ()).unwrap();
    (facts, path)
}

#[test]
fn every_flipped_byte_of_a_run_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (facts, path) = sealed(dir.path());
    let state = facts.state();
    let bytes = std::fs::read(&path).unwrap();
    assert!(FactRun::open(&path).unwrap().meta().blocks > 8, "a few blocks of each order");
    let bad = dir.path().join("bad.facts");
    for at in (0..bytes.len()).step_by(331).chain(bytes.len() - 160..bytes.len()).chain(0..64) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        std::fs::write(&bad, &broken).unwrap();
        let read = FactRun::open(&bad).and_then(|run| run.verify());
        assert!(matches!(read, Err(IndexError::Corrupt { .. } | IndexError::Version { .. })), "byte {at}: {read:?}");
        // And whoever reads it without verifying first is told, not lied to.
        if let Ok(run) = FactRun::open(&bad)
            && let Ok(facts) = Facts::restore(&state, vec![Arc::new(run)])
        {
            let orders = Order::ALL.map(|order| {
                facts.view(Tx::MAX).history().datoms(order, &Components::default()).any(|datom| datom.is_err())
            });
            assert!(orders.contains(&true), "byte {at} went unnoticed");
        }
    }
    for cut in (0..bytes.len()).step_by(997) {
        std::fs::write(&bad, &bytes[..cut]).unwrap();
        assert!(FactRun::open(&bad).is_err());
    }
}

#[test]
fn a_state_that_is_damaged_or_of_other_runs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (facts, path) = sealed(dir.path());
    let state = facts.state();
    let run = || vec![Arc::new(FactRun::open(&path).unwrap())];
    assert!(Facts::restore(&state, run()).is_ok());
    assert!(matches!(Facts::restore(&state, Vec::new()), Err(IndexError::State { .. })));
    assert!(matches!(Facts::restore(&[], run()), Err(IndexError::State { .. })));
    for at in 0..state.len() {
        let mut broken = state.clone();
        broken[at] ^= 1;
        assert!(matches!(Facts::restore(&broken, run()), Err(IndexError::State { .. })), "byte {at}");
        assert!(matches!(Facts::restore(&state[..at], run()), Err(IndexError::State { .. })), "cut {at}");
    }
}

#[test]
fn the_bytes_of_a_run_are_where_the_page_draws_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path) = sealed(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..11], b"MYELFCT\n\x01\0\x03");
    assert_eq!(u32_at(60), crc32fast::hash(&bytes[..60]));
    let footer = bytes.len() - 128;
    assert_eq!(&bytes[footer..footer + 12], b"MYELFCT.\x01\0\x03\0");
    let (blocks, directory, firsts) = (u32_at(footer + 12), u64_at(footer + 16) as usize, u32_at(footer + 24) as usize);
    assert_eq!(directory + blocks as usize * 32 + firsts, footer);
    assert_eq!(u32_at(footer + 28), crc32fast::hash(&bytes[directory..footer]));
    assert_eq!(u64_at(footer + 40), 1, "tx min");
    assert_eq!(u64_at(footer + 48), 59, "tx max");
    assert_eq!(u32_at(footer + 124), crc32fast::hash(&bytes[footer..footer + 124]));
    let mut datoms = 0;
    for block in 0..blocks as usize {
        let entry = directory + 32 * block;
        let (order, keys, offset) = (bytes[entry], u32_at(entry + 4), u64_at(entry + 8) as usize);
        let len = u32_at(entry + 16) as usize;
        assert_eq!(u32_at(entry + 20), crc32fast::hash(&bytes[offset..offset + len]));
        assert_eq!(u32_at(offset), keys);
        let last_end = u32_at(offset + 4 * keys as usize) as usize;
        assert_eq!(len, 4 + 4 * keys as usize + last_end);
        datoms += if order == 1 { u64::from(keys) } else { 0 };
    }
    assert_eq!(u64_at(footer + 32), datoms);
}
