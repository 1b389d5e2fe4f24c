//! What a transaction may do, and what comes of it.

use crate::{all, assert_op, attribute, check, ident, shard, slot, transact};
use myelin_datom::{Entity, EntityId, Given, Op, Slot, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{Components, FactWhy, Facts, Note, Order};
use std::collections::BTreeMap;

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
    let common = Op::Retract { e: Entity::Ident("name".into()), a: ident("db/unique"), v: None };
    let indexed = assert_op(&Entity::Ident("name".into()), "db/index", Value::Bool(true));
    assert_eq!(check(&facts, 9, &[indexed, common]), Err((1, FactWhy::Schema)), "its keys have another layout");
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
        (from..from + 4000).map(|n| assert_op(&Entity::Id(ids[0]), "tag", Value::keyword(format!("t{n}")))).collect()
    };
    for (n, tx) in (0..3).zip(3..) {
        transact(&mut facts, tx, &tags(n * 4000)).unwrap();
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

/// Ops that read the same thousands of values again and again would hold up a shard, and each start behind them.
#[test]
fn a_transaction_that_reads_too_much_is_refused_and_one_that_takes_away_once_is_not() {
    let (mut facts, ids) = shard(1);
    let e = Entity::Id(ids[0]);
    for (tx, first) in [(3, 0), (4, 4_000)] {
        let ops: Vec<_> = (first..first + 4_000).map(|n| assert_op(&e, "score", Value::F64(f64::from(n)))).collect();
        transact(&mut facts, tx, &ops).unwrap();
    }
    let take = Op::Retract { e: e.clone(), a: ident("score"), v: None };
    let gone = Op::RetractEntity { e };
    for op in [&take, &gone] {
        let again = vec![op.clone(); 4_000];
        assert_eq!(check(&facts, 5, &again).unwrap_err().1, FactWhy::TooLarge);
    }
    assert_eq!(check(&facts, 5, &[take]).unwrap().datoms(), 8_000);
}
