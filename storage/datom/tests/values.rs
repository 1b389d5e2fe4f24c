//! Values and transactions: what is written is read back, keys are ordered as values are, foreign bytes never panic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use myelin_datom::{
    AttributeName, Bytes, Datom, Decimal, Entity, EntityId, FactFlaw, Floats, Given, Op, Transaction, Tx, Value,
    ValueType,
};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value<'static>> {
    let float = prop_oneof![
        any::<f64>().prop_filter("no value", |f| Value::F64(*f).flaw().is_none()),
        Just(0.0),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MIN_POSITIVE),
        -3.0..3.0
    ];
    // Few letters, zeros and high ones among them, so that beginnings are shared.
    let bytes = || prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), Just(b'a')], 0..6);
    let text = "[a\\x00b\u{10ffff}]{0,5}";
    let decimal = (any::<i64>(), 0_u8..30).prop_map(|(units, scale)| Decimal::new(units.into(), scale).unwrap());
    let small = (-20_i128..20, 0_u8..3).prop_map(|(units, scale)| Decimal::new(units, scale).unwrap());
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        (-2_i64..3).prop_map(Value::I64),
        float.prop_map(Value::F64),
        text.prop_map(Value::string),
        bytes().prop_map(|bytes| Value::Bytes(bytes.into())),
        "[a-c/]{1,4}".prop_map(Value::keyword),
        any::<i64>().prop_map(Value::Instant),
        any::<u128>().prop_map(Value::Uuid),
        decimal.prop_map(Value::Decimal),
        small.prop_map(Value::Decimal),
        (1..u64::MAX).prop_map(|bits| Value::Ref(EntityId::from_bits(bits))),
        prop::collection::vec(-4.0_f32..4.0, 0..5).prop_map(|floats| Value::Vector(Floats::of(&floats))),
    ]
}

fn key(value: &Value<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    value.write_key(&mut key);
    key
}

fn entity() -> impl Strategy<Value = Entity<'static>> {
    prop_oneof![
        (1..u64::MAX).prop_map(|bits| Entity::Id(EntityId::from_bits(bits))),
        "[a-z]{1,3}".prop_map(Entity::temp),
        "[a-z/]{1,3}".prop_map(|name| Entity::Ident(name.into())),
        (attribute(), value()).prop_map(|(a, v)| Entity::Lookup(a, v)),
        Just(Entity::ThisTx),
    ]
}

fn attribute() -> impl Strategy<Value = AttributeName<'static>> {
    prop_oneof![
        any::<u64>().prop_map(|bits| AttributeName::Id(EntityId::from_bits(bits))),
        "[a-z/]{1,3}".prop_map(AttributeName::ident),
    ]
}

fn given_value() -> impl Strategy<Value = Given<'static>> {
    prop_oneof![value().prop_map(Given::Value), entity().prop_map(Given::Entity)]
}

fn op() -> impl Strategy<Value = Op<'static>> {
    let maybe = || prop::option::of(given_value());
    prop_oneof![
        (entity(), attribute(), given_value()).prop_map(|(e, a, v)| Op::Assert { e, a, v }),
        (entity(), attribute(), maybe()).prop_map(|(e, a, v)| Op::Retract { e, a, v }),
        entity().prop_map(|e| Op::RetractEntity { e }),
        (entity(), attribute(), maybe(), maybe()).prop_map(|(e, a, expected, new)| Op::CompareAndSet {
            e,
            a,
            expected,
            new
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn keys_compare_byte_by_byte_as_their_values_do(a in value(), b in value()) {
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        prop_assert_eq!(a == b, key(&a) == key(&b));
    }

    #[test]
    fn no_key_is_the_beginning_of_another_and_each_gives_back_its_value(a in value(), b in value()) {
        let (mine, theirs) = (key(&a), key(&b));
        prop_assert!(a == b || !theirs.starts_with(&mine));
        let followed = [mine.as_slice(), &theirs].concat();
        let (read, len) = Value::read_key(&followed).unwrap();
        prop_assert_eq!((&read, len), (&a, mine.len()));
        prop_assert_eq!(read.value_type(), a.value_type());
        for cut in 0..mine.len() {
            prop_assert!(Value::read_key(&mine[..cut]).is_none_or(|(read, _)| read != a));
        }
    }

    #[test]
    fn a_datom_and_a_transaction_are_read_back_as_they_were_written(
        v in value(), added in any::<bool>(), ops in prop::collection::vec(op(), 1..6),
    ) {
        let datom = Datom { e: EntityId::from_bits(7), a: EntityId::from_bits(8), v, tx: Tx::from_bits(9), added };
        let mut bytes = Vec::new();
        datom.write(&mut bytes);
        prop_assert_eq!(Datom::read(&mut Bytes::new(&bytes)), Ok(datom));
        let transaction = Transaction { partition: "main".into(), ops };
        let mut bytes = Vec::new();
        transaction.write(&mut bytes);
        prop_assert_eq!(Transaction::read(&bytes), Ok(transaction));
        for cut in 0..bytes.len() {
            prop_assert!(Transaction::read(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        prop_assert_eq!(Transaction::read(&bytes).unwrap_err().flaw, FactFlaw::Long);
    }

    #[test]
    fn foreign_bytes_are_refused_or_read_and_never_panic(
        ops in prop::collection::vec(op(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Vec::new();
        Transaction { partition: "main".into(), ops }.write(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = Transaction::read(&bytes) {
            let mut again = Vec::new();
            read.write(&mut again);
            prop_assert_eq!(Transaction::read(&again), Ok(read));
        }
        drop(Transaction::read(&noise));
        drop(Value::read(&mut Bytes::new(&noise)));
        if let Some((value, len)) = Value::read_key(&noise) {
            prop_assert!(len <= noise.len());
            drop(value);
        }
    }
}

#[test]
fn what_no_value_may_be_is_refused_where_it_comes_in() {
    let long = "x".repeat(16_385);
    let vector = Value::Vector(Floats::of(&[1.0, f32::NAN]));
    for (value, flaw) in [
        (Value::F64(f64::NAN), FactFlaw::NotANumber),
        (Value::F64(-0.0), FactFlaw::NegativeZero),
        (Value::string(long.as_str()), FactFlaw::TooLong),
        (Value::keyword(""), FactFlaw::Keyword),
        (Value::keyword(":a"), FactFlaw::Keyword),
        (Value::keyword("a b"), FactFlaw::Keyword),
        (Value::Ref(EntityId::NONE), FactFlaw::NoEntity),
        (vector, FactFlaw::NotANumber),
    ] {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        assert_eq!(Value::read(&mut Bytes::new(&bytes)).unwrap_err().flaw, flaw, "{value:?}");
    }
    assert_eq!(Value::read(&mut Bytes::new(&[0])).unwrap_err().flaw, FactFlaw::Tag);
    assert_eq!(Value::read(&mut Bytes::new(&[1, 2])).unwrap_err().flaw, FactFlaw::Tag);
    assert_eq!(ValueType::ALL.map(|one| one as u8), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "law: they lie on disk");
}

#[test]
fn a_transaction_is_bounded_and_names_the_op_that_is_wrong() {
    let op = || Op::RetractEntity { e: Entity::Ident("a".into()) };
    for (ops, flaw) in [(0, FactFlaw::Ops), (8193, FactFlaw::Ops)] {
        let mut bytes = Vec::new();
        Transaction { partition: "main".into(), ops: (0..ops).map(|_| op()).collect() }.write(&mut bytes);
        assert_eq!(Transaction::read(&bytes).unwrap_err().flaw, flaw);
    }
    let mut bytes = Vec::new();
    let bad = Op::RetractEntity { e: Entity::temp("") };
    Transaction { partition: "main".into(), ops: vec![op(), bad] }.write(&mut bytes);
    let error = Transaction::read(&bytes).unwrap_err();
    assert_eq!((error.op, error.flaw), (1, FactFlaw::Tempid));
    let mut bytes = Vec::new();
    Transaction { partition: "a b".into(), ops: vec![op()] }.write(&mut bytes);
    assert_eq!(Transaction::read(&bytes).unwrap_err().flaw, FactFlaw::Partition);
}

#[test]
fn the_page_draws_every_type_and_its_key() {
    const PAGE: &str = include_str!("../../README.md");
    for one in ValueType::ALL {
        let row = format!("| {} | {} |", one as u8, one.name());
        assert!(PAGE.contains(&row), "storage/README.md lacks: {row}");
    }
    let cases: [(Value<'_>, &[u8], &[u8]); 6] = [
        (Value::I64(-1), &[2, 255, 255, 255, 255, 255, 255, 255, 255], &[2, 127, 255, 255, 255, 255, 255, 255, 255]),
        (Value::F64(1.0), &[3, 0, 0, 0, 0, 0, 0, 240, 63], &[3, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0]),
        (Value::F64(-1.0), &[3, 0, 0, 0, 0, 0, 0, 240, 191], &[3, 0x40, 0x0f, 255, 255, 255, 255, 255, 255]),
        (Value::string("a\0"), &[4, 2, 0, 97, 0], &[4, 97, 0, 255, 0, 1]),
        (
            Value::Decimal("1.5".parse().unwrap()),
            &[9, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[9, 2, 129, 16, 0],
        ),
        (Value::Vector(Floats::of(&[1.0])), &[11, 1, 0, 0, 0, 128, 63], &[11, 0, 1, 0, 0, 128, 63]),
    ];
    for (value, wire, as_key) in cases {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        assert_eq!((bytes.as_slice(), key(&value).as_slice()), (wire, as_key), "{value:?}");
    }
}
