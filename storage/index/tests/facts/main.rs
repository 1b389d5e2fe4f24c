//! Facts, from outside: against a naive model, rule by rule, and as files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod files;
mod model;
mod rules;

use myelin_datom::{AttributeName, Datom, Entity, EntityId, Given, Op, Slot, Tx, Value};
use myelin_index::{Asked, Components, FactWhy, Facts, Order, Plan};

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
