//! What transacting, sealing and reading facts cost.
//!
//! `cargo bench -p myelin-index --bench facts [-- largest]` prints every line of the table in `README.md`. Each line is the best of its
//! rounds, in thread time; reads are of entities in random order. Deliberately absent: statistics.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use myelin_datom::{AttributeName, Entity, EntityId, Given, Op, Slot, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{Asked, FactFloors, FactRun, Facts, LogPlace, Plan};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTITIES: usize = 200_000;
const OPS: usize = 1000;
const READS: usize = 200_000;

fn slot() -> Slot {
    Slot::of_name("main")
}

fn transact(facts: &mut Facts, tx: u64, ops: &[Op<'_>]) -> Plan {
    let asked = Asked { slot: slot(), ops, market_exists: &|_| true };
    let plan = facts.check(Tx::from_bits(tx), asked).unwrap().unwrap();
    facts.insert(Tx::from_bits(tx), &plan);
    plan
}

fn assert_op(e: Entity<'static>, a: &'static str, v: Value<'static>) -> Op<'static> {
    Op::Assert { e, a: AttributeName::ident(a), v: Given::Value(v) }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn schema(facts: &mut Facts) {
    let attribute = |name: &'static str, value_type: &'static str, more: Option<&'static str>| {
        let e = || Entity::temp(name);
        let mut ops = vec![
            assert_op(e(), "db/ident", Value::keyword(name)),
            assert_op(e(), "db/value-type", Value::keyword(value_type)),
        ];
        ops.extend(more.map(|unique| assert_op(e(), "db/unique", Value::keyword(unique))));
        ops
    };
    let ops = [
        attribute("name", "string", Some("identity")),
        attribute("age", "i64", None),
        attribute("counter", "i64", None),
        attribute("note", "string", None),
    ]
    .concat();
    transact(facts, 1, &ops);
}

/// What this thread has run so far, by the scheduler's account where there is one: what others take counts for nothing.
fn now_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    ran.and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

fn per(what: &str, count: usize, rounds: usize, mut work: impl FnMut()) {
    let best = (0..rounds)
        .map(|_| {
            let begun = now_ns();
            work();
            now_ns() - begun
        })
        .min()
        .unwrap_or_default();
    println!("{what:<72} {:>9.0} ns", best as f64 / count as f64);
}

fn reads(what: &str, facts: &Facts, ids: &[EntityId], as_of: Tx) {
    let age = facts.attribute_named(slot(), "age").unwrap().id;
    per(&format!("read one attribute, {what}"), READS, 3, || {
        let mut seed = 88_172_645_463_325_252;
        for _ in 0..READS {
            let e = ids[(random(&mut seed) % ids.len() as u64) as usize];
            black_box(facts.view(as_of).value(e, age).unwrap().unwrap());
        }
    });
    per(&format!("read an entity (2 attributes), {what}"), READS / 10, 3, || {
        let mut seed = 88_172_645_463_325_252;
        for _ in 0..READS / 10 {
            let e = ids[(random(&mut seed) % ids.len() as u64) as usize];
            assert_eq!(facts.view(as_of).entity(e).count(), 2);
        }
    });
}

/// The whole log, a hundred facts at a time, each with what its attribute was called then.
fn log(what: &str, facts: &Facts) {
    let count = facts.datoms() as usize;
    per(&format!("the log, {what}: a fact"), count, 2, || {
        let (mut place, mut read) = (LogPlace::behind(Tx::ZERO), 0);
        while read < count {
            let mut log = facts.log(&place, Tx::MAX, Tx::ZERO);
            for _ in 0..100 {
                let Some(datom) = log.read().unwrap() else { break };
                black_box(facts.view(datom.tx).value(datom.a, born::IDENT).unwrap());
                black_box(datom.into_owned());
                read += 1;
            }
            place = log.place();
        }
    });
}

/// Opens every block for the first time: a point read in a run whose blocks nobody has verified.
fn first_touch(state: &[u8], path: &Path, ids: &[EntityId]) {
    let mut took = Vec::new();
    for n in 0..200 {
        let facts = Facts::restore(state, vec![Arc::new(FactRun::open(path).unwrap())]).unwrap();
        let age = facts.attribute_named(slot(), "age").unwrap().id;
        let e = ids[n * 997 % ids.len()];
        let begun = Instant::now();
        black_box(facts.view(Tx::MAX).value(e, age).unwrap().unwrap());
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let [median, worst] = [100, 198].map(|at| took[at].as_nanos());
    println!(
        "{:<72} {median:>9} ns, 99 of 100 below {worst} ns",
        "read one attribute, sealed, its block touched first"
    );
}

/// As much as one transaction may ask for: how long it holds up a shard.
fn largest(unique: bool) {
    let mut facts = Facts::new();
    schema(&mut facts);
    let mut tx = 1;
    let what = if unique { "half of them unique" } else { "none unique" };
    let mut best = u128::MAX;
    for _ in 0..60 {
        let ops: Vec<_> = (0..2048)
            .flat_map(|n| {
                let e = || Entity::temp(format!("{n}"));
                let name = if unique { "name" } else { "note" };
                let said = Value::string(format!("somebody {tx} {n}"));
                [assert_op(e(), name, said), assert_op(e(), "age", Value::I64(n))]
            })
            .collect();
        tx += 1;
        // By the clock: the scheduler's account has steps of milliseconds. The best of many rounds had the CPU for itself.
        let begun = Instant::now();
        black_box(transact(&mut facts, tx, &ops));
        best = best.min(begun.elapsed().as_nanos());
    }
    println!("{:<72} {best:>9} ns", format!("one transaction of 4,096 new facts, {what}"));
}

fn main() {
    largest(true);
    largest(false);
    if std::env::args().any(|arg| arg == "largest") {
        return;
    }
    let mut facts = Facts::new();
    schema(&mut facts);
    let mut ids = Vec::new();
    let mut tx = 1;
    let begun = now_ns();
    for page in 0..ENTITIES / (OPS / 2) {
        let ops: Vec<_> = (0..OPS / 2)
            .flat_map(|n| {
                let number = page * OPS / 2 + n;
                let e = || Entity::temp(format!("{n}"));
                let name = Value::string(format!("somebody {number}"));
                [assert_op(e(), "name", name), assert_op(e(), "age", Value::I64(number as i64))]
            })
            .collect();
        tx += 1;
        let plan = transact(&mut facts, tx, &ops);
        ids.extend(plan.tempids().iter().map(|(_, id)| *id));
    }
    let datoms = facts.datoms();
    println!(
        "{:<72} {:>9.0} ns",
        "transact, 1,000 new facts at a time, half of them unique: a fact",
        (now_ns() - begun) as f64 / datoms as f64
    );
    println!("{:<72} {:>9} bytes", "memory: a fact", facts.memory_bytes() as u64 / datoms);
    reads("newest part", &facts, &ids, Tx::MAX);
    reads("newest part, as of half of it", &facts, &ids[..ids.len() / 2], Tx::from_bits(tx / 2 + 1));
    log("newest part", &facts);

    let counter = facts.attribute_named(slot(), "counter").unwrap().id;
    for n in 0..100_000 {
        tx += 1;
        transact(&mut facts, tx, &[assert_op(Entity::Id(ids[0]), "counter", Value::I64(n))]);
    }
    per("read an attribute that changed 100,000 times", READS, 3, || {
        (0..READS).for_each(|_| _ = black_box(facts.view(Tx::MAX).value(ids[0], counter).unwrap().unwrap()));
    });
    ids.remove(0);

    let path = std::env::temp_dir().join(format!("myelin-bench-{}.facts", std::process::id()));
    let frozen = facts.freeze().unwrap();
    let begun = now_ns();
    let meta = frozen.write_run(&FactFloors::default(), &path, &mut ()).unwrap();
    println!("{:<72} {:>9.0} ns", "seal: a datom", (now_ns() - begun) as f64 / meta.rows as f64);
    println!("{:<72} {:>9} bytes", "run: a datom", meta.bytes / meta.rows);
    facts.install(&frozen, Arc::new(FactRun::open(&path).unwrap()));
    drop(frozen);
    reads("sealed, blocks verified", &facts, &ids, Tx::MAX);
    log("sealed, blocks verified", &facts);
    first_touch(&facts.state(), &path, &ids);
    std::fs::remove_file(&path).unwrap();
}
