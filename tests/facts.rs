//! Facts through the real binary: said, read as of any moment, kept through kills, restarts and seals, and dropped by policy.

use crate::node::{Node, Setup, markets, report, run, tick, trials, wait_for};
use crate::sessions::Line;
use myelin_client::{At, Client, Error, Mode, Place};
use myelin_datom::{AttributeName, Datom, Decimal, Entity, EntityId, Kind, Slot, Transaction, Tx, Value};
use myelin_wire::{Code, DatomsAsked, Header, Kind as FrameKind, MarketFlags, MarketSpec, PullAsked, read_tempids};
use serde_json::Value as Json;
use std::collections::BTreeMap;

const SCHEMA: &str = r#"[
    {"op":"assert","e":"?name","a":"db/ident","v":{"keyword":"person/name"}},
    {"op":"assert","e":"?name","a":"db/value-type","v":{"keyword":"string"}},
    {"op":"assert","e":"?name","a":"db/unique","v":{"keyword":"identity"}},
    {"op":"assert","e":"?age","a":"db/ident","v":{"keyword":"person/age"}},
    {"op":"assert","e":"?age","a":"db/value-type","v":{"keyword":"i64"}},
    {"op":"assert","e":"?age","a":"db/min","v":{"decimal":"0"}},
    {"op":"assert","e":"?friend","a":"db/ident","v":{"keyword":"person/friend"}},
    {"op":"assert","e":"?friend","a":"db/value-type","v":{"keyword":"ref"}},
    {"op":"assert","e":"?friend","a":"db/cardinality","v":{"keyword":"many"}}
]"#;

fn transaction(text: &str) -> Transaction<'static> {
    myelin_feed::facts::transaction(text.as_bytes()).unwrap()
}

async fn person(client: &Client, name: &str, age: i64) -> (Tx, EntityId) {
    let ops = format!(
        r#"[{{"op":"assert","e":"?p","a":"person/name","v":"{name}"}},{{"op":"assert","e":"?p","a":"person/age","v":{age}}}]"#
    );
    let done = client.transact(&transaction(&ops)).await.unwrap();
    (done.tx, done.tempids.unwrap()[0].1)
}

fn main_slot() -> Slot {
    Slot::of_name("main")
}

fn asked(history: bool, since: Tx, entity: Entity<'static>) -> PullAsked<'static> {
    PullAsked { history, slot: 0, limit: u32::MAX, since, entity, place: &[] }
}

/// What is said about an entity: attribute, value, added.
async fn told(client: &Client, asked: &PullAsked<'_>, at: At) -> Vec<(String, Value<'static>, bool)> {
    let (_, facts) = client.entity(main_slot(), asked, at, usize::MAX).await.unwrap().value.unwrap();
    facts.datoms.iter().map(|one| (facts.idents[&one.a].clone(), one.v.clone(), one.added)).collect()
}

async fn age_of(client: &Client, e: EntityId, at: At) -> Option<Value<'static>> {
    let told = told(client, &asked(false, Tx::ZERO, Entity::Id(e)), at).await;
    told.into_iter().find(|(a, ..)| a == "person/age").map(|(_, v, _)| v)
}

#[test]
fn what_was_said_is_read_as_of_since_and_as_history_through_kill_seal_and_restart() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (ann, first, second, last) = run(async {
        let client = node.client().await;
        client.transact(&transaction(SCHEMA)).await.unwrap();
        let (first, ann) = person(&client, "Ann", 40).await;
        // The same identity is the same entity; a new age takes the old one's place.
        let (second, again) = person(&client, "Ann", 41).await;
        assert_eq!(ann, again);
        assert_eq!((ann.kind(), ann.slot()), (Some(Kind::Ordinary), main_slot()));
        let gone = transaction(r#"[{"op":"retract","e":["person/name","Ann"],"a":"person/age"}]"#);
        let last = client.transact(&gone).await.unwrap().tx;
        (ann, first, second, last)
    });
    let check = |node: &Node| {
        run(async {
            let client = node.client().await;
            assert_eq!(age_of(&client, ann, At::as_of(first)).await, Some(Value::I64(40)));
            assert_eq!(age_of(&client, ann, At::as_of(second)).await, Some(Value::I64(41)));
            assert_eq!(age_of(&client, ann, At::as_of(last)).await, None);
            assert_eq!(age_of(&client, ann, At::NOW).await, None);
            let by_name = Entity::Lookup(AttributeName::ident("person/name"), Value::string("Ann"));
            let history = told(&client, &asked(true, Tx::ZERO, by_name), At::NOW).await;
            let ages = history.into_iter().filter(|(a, ..)| a == "person/age").map(|(_, v, added)| (v, added));
            let expected =
                [(41, false), (41, true), (40, false), (40, true)].map(|(age, added)| (Value::I64(age), added));
            assert_eq!(ages.collect::<Vec<_>>(), expected, "the newest first");
            let since = told(&client, &asked(true, first, Entity::Id(ann)), At::as_of(second)).await;
            assert_eq!(since.len(), 2, "one age for another: {since:?}");
            // Before the schema there was none, and nobody.
            let early = At::as_of(Tx::from_bits(first.bits() - 1));
            let nobody =
                asked(false, Tx::ZERO, Entity::Lookup(AttributeName::ident("person/name"), Value::string("Ann")));
            assert_eq!(client.entity(main_slot(), &nobody, early, 9).await.unwrap().value, None);
        });
    };
    check(&node);
    node.kill();
    let mut node = setup.start();
    check(&node);
    run(async {
        // Enough to be sealed: 5,000 rows' worth.
        let client = node.client().await;
        fill_from(&client, 0, 8).await;
    });
    node.wait_for_checkpoints(1);
    assert!(
        std::fs::read_dir(setup.dir.join("core-0000/runs")).unwrap().any(|file| file
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".facts")),
        "facts were sealed into a run"
    );
    check(&node);
    node.kill();
    let mut node = setup.start();
    check(&node);
    run(async {
        // The schema came back from the facts: it still binds, and ids go on where they were.
        let client = node.client().await;
        let unborn = transaction(r#"[{"op":"assert","e":["person/name","Ann"],"a":"person/age","v":-1}]"#);
        let refused = client.transact(&unborn).await.unwrap_err();
        assert_eq!(code(refused), (Some(Code::CheckFailed), Some(0)));
        let (_, bob) = person(&client, "Bob", 7).await;
        assert!(bob > ann);
        let names = DatomsAsked { order: 2, a: Some(AttributeName::ident("person/name")), ..DatomsAsked::all(0) };
        let found = client.datoms(Place::Partition("main"), &names, At::NOW, usize::MAX).await.unwrap().value;
        assert_eq!(found.datoms.len(), 1602, "page by page, each once");
        assert!(found.datoms.is_sorted_by_key(|datom| datom.e));
    });
    node.kill();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_myelin"))
        .args(["verify", "-o", "json"])
        .arg(&setup.dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Says so many pages of new names, two hundred a transaction.
async fn fill_from(client: &Client, first: usize, pages: usize) {
    for page in first..first + pages {
        let ops: Vec<String> = (0..200)
            .map(|n| format!(r#"{{"op":"assert","e":"?{n}","a":"person/name","v":"filler {page} {n}"}}"#))
            .collect();
        client.transact(&transaction(&format!("[{}]", ops.join(",")))).await.unwrap();
    }
}

#[test]
fn many_small_runs_of_facts_become_one_and_every_fact_is_still_there() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        client.transact(&transaction(SCHEMA)).await.unwrap();
        for seal in 1..=9 {
            fill_from(&client, seal * 10, 7).await;
            node.wait_for_checkpoints(seal as u64);
        }
    });
    wait_for("runs of facts to be merged", || {
        let mut runs = std::fs::read_dir(setup.dir.join("core-0000/runs")).unwrap();
        runs.any(|run| run.unwrap().file_name().to_string_lossy().ends_with("merged.facts")).then_some(())
    });
    for killed in [false, true] {
        if killed {
            node.kill();
            node = setup.start();
        }
        run(async {
            let names = DatomsAsked { order: 3, a: Some(AttributeName::ident("person/name")), ..DatomsAsked::all(0) };
            let client = node.client().await;
            let found = client.datoms(Place::Partition("main"), &names, At::NOW, usize::MAX).await.unwrap().value;
            assert_eq!(found.datoms.len(), 9 * 7 * 200);
            assert!(found.datoms.is_sorted_by_key(|datom| datom.v.clone()), "by value");
        });
    }
}

const PRICES: &str = r#"[
    {"op":"assert","e":"?price","a":"db/ident","v":{"keyword":"desk/price"}},
    {"op":"assert","e":"?price","a":"db/value-type","v":{"keyword":"i64"}},
    {"op":"assert","e":"?note","a":"db/ident","v":{"keyword":"desk/note"}},
    {"op":"assert","e":"?note","a":"db/value-type","v":{"keyword":"i64"}},
    {"op":"assert","e":"?id","a":"db/ident","v":{"keyword":"desk/id"}},
    {"op":"assert","e":"?id","a":"db/value-type","v":{"keyword":"i64"}},
    {"op":"assert","e":"?id","a":"db/unique","v":{"keyword":"identity"}}
]"#;

/// So many rounds over a hundred desks, each with another price and, the first time, a note.
async fn prices(client: &Client, rounds: std::ops::Range<i64>) -> Tx {
    let mut last = Tx::ZERO;
    for round in rounds {
        let ops: Vec<String> = (0..100)
            .flat_map(|desk| {
                let say = |a: &str, v: i64| format!(r#"{{"op":"assert","e":"?{desk}","a":"desk/{a}","v":{v}}}"#);
                [
                    Some(say("id", desk)),
                    Some(say("price", round * 1000 + desk)),
                    (round == 0).then(|| say("note", desk)),
                ]
            })
            .flatten()
            .collect();
        last = client.transact(&transaction(&format!("[{}]", ops.join(",")))).await.unwrap().tx;
    }
    last
}

fn of(a: &'static str) -> DatomsAsked<'static> {
    DatomsAsked { order: 2, a: Some(AttributeName::ident(a)), ..DatomsAsked::all(0) }
}

/// The horizon below which a read is refused; none when it is answered.
async fn refused_below(client: &Client, asked: &DatomsAsked<'_>, at: At) -> Option<Tx> {
    match client.datoms(Place::Partition("main"), asked, at, usize::MAX).await {
        Ok(_) => None,
        Err(Error::Refused(refusal)) => {
            assert_eq!(refusal.code, Some(Code::BelowHorizon));
            Some(Tx::from_bits(refusal.aux))
        }
        Err(error) => panic!("{error}"),
    }
}

fn bytes_of_fact_runs(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir.join("core-0000/runs")).unwrap().flatten();
    let facts = files.filter(|file| file.file_name().to_string_lossy().ends_with(".facts"));
    facts.map(|file| file.metadata().map_or(0, |file| file.len())).sum()
}

#[test]
fn a_past_that_no_policy_keeps_goes_with_its_room_and_what_holds_stays_through_kills() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (early, last) = run(async {
        let client = node.client().await;
        client.transact(&transaction(PRICES)).await.unwrap();
        let early = prices(&client, 0..1).await;
        (early, prices(&client, 1..120).await)
    });
    node.wait_for_checkpoints(2);
    let full = bytes_of_fact_runs(&setup.dir);
    let horizon = run(async {
        let client = node.client().await;
        assert_eq!(refused_below(&client, &of("desk/price"), At::as_of(early)).await, None, "all is kept");
        let policy = r#"[{"op":"assert","e":":desk/price","a":"db/retention","v":"latest"}]"#;
        client.transact(&transaction(policy)).await.unwrap();
        let until = std::time::Instant::now() + crate::node::PATIENCE;
        loop {
            if let Some(horizon) = refused_below(&client, &of("desk/price"), At::as_of(early)).await {
                break horizon;
            }
            assert!(std::time::Instant::now() < until, "waited for the past to go");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert_eq!(horizon, last, "what was said last, and nothing before it");
    wait_for("the room of 11,900 prices", || (bytes_of_fact_runs(&setup.dir) * 5 < full).then_some(()));
    for round in 0..3 {
        run(async {
            let client = node.client().await;
            let (whole, since) = (DatomsAsked { history: true, ..of("desk/price") }, horizon);
            assert_eq!(refused_below(&client, &of("desk/price"), At::as_of(early)).await, Some(horizon), "{round}");
            assert_eq!(refused_below(&client, &whole, At::NOW).await, Some(horizon), "a history from the beginning");
            let everything = DatomsAsked::all(0);
            assert_eq!(refused_below(&client, &everything, At::as_of(early)).await, Some(horizon), "it is in there");
            let desk = asked(false, Tx::ZERO, Entity::Lookup(AttributeName::ident("desk/id"), Value::I64(3)));
            let entity = client.entity(main_slot(), &desk, At::as_of(early), 9).await.unwrap_err();
            assert_eq!(code(entity).0, Some(Code::BelowHorizon), "round {round}");
            // What is said of another attribute, then and ever, is all there.
            assert_eq!(refused_below(&client, &of("desk/note"), At::as_of(early)).await, None);
            let notes = DatomsAsked { history: true, ..of("desk/note") };
            assert_eq!(refused_below(&client, &notes, At::NOW).await, None);
            // And so is what holds, and what was said since.
            let read = async |asked: DatomsAsked<'static>, at| {
                client.datoms(Place::Partition("main"), &asked, at, usize::MAX).await.unwrap().value.datoms
            };
            for at in [At::NOW, At::as_of(horizon)] {
                let prices: Vec<_> = read(of("desk/price"), at).await.into_iter().map(|datom| datom.v).collect();
                assert_eq!(
                    prices,
                    (0..100).map(|desk| Value::I64(119_000 + desk)).collect::<Vec<_>>(),
                    "round {round}"
                );
            }
            assert_eq!(read(DatomsAsked { since, ..whole }, At::NOW).await, []);
            let about = told(&client, &asked(false, Tx::ZERO, Entity::Ident("desk/price".into())), At::NOW).await;
            let dropped = about.iter().find(|(a, ..)| a == "db/pruned-datoms").map(|(_, v, _)| v.clone());
            assert_eq!(dropped, Some(Value::I64(2 * 11_900)), "each price taken back, and that it was");
        });
        let (status, body) = node.get(&format!("/v2/query/as_of/{early}?attribute=desk/price"));
        let told: Json = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &told["code"], &told["oldest"]),
            (422, &"below_horizon".into(), &horizon.to_string().into())
        );
        node.kill();
        if round == 1 {
            let output =
                std::process::Command::new(env!("CARGO_BIN_EXE_myelin")).arg("verify").arg(&setup.dir).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        node = setup.start();
    }
    // It goes on: the pruner of a node that started again counts what is said from now on.
    run(async {
        let client = node.client().await;
        let later = prices(&client, 120..122).await;
        let until = std::time::Instant::now() + crate::node::PATIENCE;
        while refused_below(&client, &of("desk/price"), At::as_of(horizon)).await != Some(later) {
            assert!(std::time::Instant::now() < until, "waited for the horizon to follow");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}

fn code(error: Error) -> (Option<Code>, Option<u32>) {
    match error {
        Error::Refused(refusal) => (refusal.code, refusal.first_bad),
        other => panic!("{other}"),
    }
}

#[test]
fn a_transaction_that_cannot_be_is_refused_by_its_op_and_nothing_of_it_is_stored() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        client.transact(&transaction(SCHEMA)).await.unwrap();
        let (_, ann) = person(&client, "Ann", 40).await;
        let good = r#"{"op":"assert","e":["person/name","Ann"],"a":"person/age","v":50}"#;
        for (bad, expected) in [
            (r#"{"op":"assert","e":"?b","a":"person/size","v":1}"#, Code::UnknownAttribute),
            (r#"{"op":"assert","e":"?b","a":"person/age","v":"old"}"#, Code::ValueType),
            (r#"{"op":"assert","e":"?b","a":"person/age","v":-3}"#, Code::CheckFailed),
            (r#"{"op":"assert","e":"?b","a":"person/friend","v":{"ref":"?nobody"}}"#, Code::NoEntity),
            (r#"{"op":"retract-entity","e":["person/name","Bob"]}"#, Code::NoEntity),
            (
                r#"{"op":"compare-and-set","e":["person/name","Ann"],"a":"person/age","expected":1,"new":2}"#,
                Code::CompareFailed,
            ),
            (r#"{"op":"assert","e":["person/name","Ann"],"a":"person/age","v":51}"#, Code::Contradiction),
            (r#"{"op":"assert","e":":person/name","a":"db/value-type","v":{"keyword":"f64"}}"#, Code::SchemaForbidden),
            (r#"{"op":"assert","e":":person/age","a":"feed/gap","v":{"ref":"?b"}}"#, Code::SchemaForbidden),
        ] {
            let error = client.transact(&transaction(&format!("[{good},{bad}]"))).await.unwrap_err();
            assert_eq!(code(error), (Some(expected), Some(1)), "{bad}");
        }
        assert_eq!(age_of(&client, ann, At::NOW).await, Some(Value::I64(40)), "nothing was half-applied");
        // The session goes on: a refusal spends its number and nothing else.
        let cas = r#"[{"op":"compare-and-set","e":["person/name","Ann"],"a":"person/age","expected":40,"new":41}]"#;
        client.transact(&transaction(cas)).await.unwrap();
        assert_eq!(code(client.transact(&transaction(cas)).await.unwrap_err()), (Some(Code::CompareFailed), Some(0)));
        let not_indexed = DatomsAsked { order: 3, a: Some(AttributeName::ident("person/age")), ..DatomsAsked::all(0) };
        let refused = client.datoms(Place::Partition("main"), &not_indexed, At::NOW, 9).await.unwrap_err();
        assert_eq!(code(refused).0, Some(Code::NotIndexed));
    });
}

#[test]
fn a_repeated_transaction_is_executed_once_and_bytes_that_are_none_leave_no_trace() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let mut body = Vec::new();
    transaction(SCHEMA).write(&mut body);
    let header = Header { session: 9, request: 1, count: 9, ..Header::new(FrameKind::Transact) };
    let mut line = Line::open(node.listen);
    for cut in [0, 1, 7, body.len() - 1] {
        let (refused, _) = line.ask(header, &body[..cut]);
        assert_eq!(Code::from_number(refused.code), Some(Code::BadFact), "cut at {cut}");
    }
    let (done, answer) = line.ask(header, &body);
    assert_eq!((done.code, done.count, done.aux), (0, 9, 0));
    assert_eq!(read_tempids(&answer).unwrap().len(), 3);
    node.kill();
    let node = setup.start();
    let mut line = Line::open(node.listen);
    let (again, answer) = line.ask(header, &body);
    assert_eq!((again.code, again.count, again.aux, again.tx), (0, 9, 1, done.tx));
    assert!(answer.is_empty(), "whom tempids became is not kept");
    let all = DatomsAsked { order: 2, a: Some(AttributeName::ident("db/value-type")), ..DatomsAsked::all(0) };
    let found = run(async {
        let client = node.client().await;
        client.datoms(Place::Partition("main"), &all, At::NOW, usize::MAX).await.unwrap().value.datoms
    });
    let installed = found.iter().filter(|datom| datom.tx != Tx::ZERO).count();
    assert_eq!(installed, 3, "nothing was executed twice");
}

#[test]
fn a_partition_lives_on_the_shard_of_its_name_with_a_schema_of_its_own() {
    let node = Setup::fresh().shards(2).start();
    let half = |half: u16| {
        (0..).map(|n| format!("part-{n}")).find(|name| Slot::of_name(name).number() / 2048 == half).unwrap()
    };
    run(async {
        let client = node.client().await;
        for half in [half(0), half(1)] {
            let schema = Transaction { partition: half.clone().into(), ..transaction(SCHEMA) };
            let done = client.transact(&schema).await.unwrap();
            let slot = Slot::of_name(&half);
            assert!(done.tempids.unwrap().iter().all(|(_, id)| id.slot() == slot && id.kind() == Some(Kind::System)));
        }
        // Main has heard of none of it.
        let error = client.transact(&transaction(r#"[{"op":"assert","e":"?a","a":"person/age","v":1}]"#)).await;
        assert_eq!(code(error.unwrap_err()).0, Some(Code::UnknownAttribute));
        let typed = DatomsAsked { order: 2, a: Some(AttributeName::ident("db/value-type")), ..DatomsAsked::all(0) };
        let found = client.datoms(Place::Everywhere, &typed, At::NOW, usize::MAX).await.unwrap();
        assert_eq!(found.value.datoms.iter().filter(|datom| datom.tx != Tx::ZERO).count(), 6);
        assert!(found.value.datoms.iter().all(|datom| datom.tx <= found.basis), "one cut");
    });
    let mut body = Vec::new();
    Transaction { partition: half(1).into(), ..transaction(SCHEMA) }.write(&mut body);
    let header = Header { session: 5, request: 1, count: 9, shard: 0, ..Header::new(FrameKind::Transact) };
    let (refused, _) = Line::open(node.listen).ask(header, &body);
    assert_eq!(Code::from_number(refused.code), Some(Code::WrongShard));
}

async fn dense(client: &Client) -> EntityId {
    let spec = MarketSpec { flags: MarketFlags(MarketFlags::DENSE), name: "dense:{X}" };
    client.markets(&[spec]).await.unwrap()[0]
}

#[test]
fn a_skipped_id_of_a_dense_feed_becomes_a_fact_of_the_same_transaction() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (market, gap_tx) = run(async {
        let client = node.client().await;
        let market = dense(&client).await;
        markets(&client, &["loose"]).await;
        let ticks = |ids: &[u64]| ids.iter().map(|id| tick(market, *id, 1.0)).collect::<Vec<_>>();
        client.ticks(&ticks(&[1, 2, 3]), Mode::Whole).await.unwrap();
        let parts = client.ticks(&ticks(&[7, 9, 8]), Mode::Whole).await.unwrap();
        let myelin_client::Outcome::Done(ack) = &parts[0].outcome else { panic!("{parts:?}") };
        (market, ack.tx)
    });
    for killed in [false, true] {
        if killed {
            node.kill();
            node = setup.start();
        }
        run(async {
            let client = node.client().await;
            let pointing = DatomsAsked { order: 4, v: Some(Value::Ref(market)), ..DatomsAsked::all(0) };
            let read = async |at| client.datoms(Place::Slot(market.slot()), &pointing, at, 9).await.unwrap().value;
            let gaps = read(At::as_of(gap_tx)).await;
            assert_eq!(gaps.datoms.len(), 1, "4 to 6; 8 came late and is none");
            let Datom { e, tx, .. } = gaps.datoms[0].clone();
            assert_eq!((tx, e.slot(), gaps.idents[&gaps.datoms[0].a].as_str()), (gap_tx, market.slot(), "feed/gap"));
            let about = client.entity(market.slot(), &asked(false, Tx::ZERO, Entity::Id(e)), At::NOW, 9).await.unwrap();
            let (_, facts) = about.value.unwrap();
            let said: BTreeMap<_, _> =
                facts.datoms.iter().map(|datom| (facts.idents[&datom.a].as_str(), datom.v.clone())).collect();
            assert_eq!(said["feed/gap-first"], Value::Decimal(Decimal::unsigned(4)));
            assert_eq!(said["feed/gap-last"], Value::Decimal(Decimal::unsigned(6)));
            assert_eq!(said["feed/gap-rows"], Value::keyword("tick"));
            let before = At::as_of(Tx::from_bits(gap_tx.bits() - 1));
            assert!(read(before).await.datoms.is_empty());
        });
    }
    // Whoever likes may say more about the market: its name is its partition.
    run(async {
        let text = format!(
            r#"{{"partition":"dense:{{X}}","ops":[{{"op":"assert","e":"{market}","a":"market/event","v":"X wins"}}]}}"#
        );
        let client = node.client().await;
        client.transact(&transaction(&text)).await.unwrap();
        let nobody = EntityId::market(market.slot(), 77).to_string();
        let error = client.transact(&transaction(&text.replace(&market.to_string(), &nobody))).await.unwrap_err();
        assert_eq!(code(error), (Some(Code::NoEntity), Some(0)), "no such market");
    });
    let (status, body) = node.get("/v2/query/as_of/now?attribute=market/event&market=dense:%7BX%7D");
    let answer: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["datoms"][0]["value"]), (200, &"X wins".into()), "{body}");
    let (status, body) = node.get(&format!("/v2/query/as_of/{gap_tx}?attribute=feed/gap&market=dense:%7BX%7D"));
    let answer: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answer["datoms"].as_array().unwrap().len()), (200, 1), "{body}");
    assert_eq!(answer["datoms"][0]["value"], market.to_string());
}

#[test]
fn the_command_line_and_http_say_facts_and_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let json = |arguments: &[&str]| -> Json {
        let (code, printed) = node.myelin(&[arguments, &["-o", "json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}");
        serde_json::from_str(&printed).unwrap()
    };
    json(&["transact", &file("schema.json", SCHEMA)]);
    let people = r#"{"ops":[
        {"op":"assert","e":"?ann","a":"person/name","v":"Ann"},
        {"op":"assert","e":"?ann","a":"person/age","v":40},
        {"op":"assert","e":"?bob","a":"person/name","v":"Bob"},
        {"op":"assert","e":"?bob","a":"person/friend","v":{"ref":"?ann"}}]}"#;
    let done = json(&["transact", &file("people.json", people)]);
    assert_eq!(done["datoms"], 4);
    let (tx, ann) = (done["tx"].as_str().unwrap(), done["tempids"]["ann"].as_str().unwrap());
    let about = json(&["entity", ann]);
    assert_eq!(about.as_array().unwrap().len(), 2);
    assert_eq!(about[1]["attribute"], "person/age");
    assert_eq!((&about[1]["value"], &about[1]["type"], &about[1]["tx"]), (&Json::from(40), &"i64".into(), &tx.into()));
    assert_eq!(json(&["entity", r#"["person/name","Ann"]"#]), about);
    let friends = json(&["datoms", "--value", &format!(r#"{{"ref":"{ann}"}}"#)]);
    assert_eq!(friends[0]["attribute"], "person/friend");
    json(&["transact", &file("older.json", r#"[{"op":"assert","e":["person/name","Ann"],"a":"person/age","v":41}]"#)]);
    let ages = |more: &[&str]| json(&[&["datoms", "--attribute", "person/age"][..], more].concat());
    assert_eq!(ages(&[])[0]["value"], 41);
    let count = |more: &[&str]| json(&[&["count"][..], more].concat());
    assert_eq!(count(&["person/name"]), serde_json::json!({ "count": 2 }));
    assert_eq!(count(&["person/name", "--as-of", tx, "--partition", "main"])["count"], 2);
    assert_eq!(
        (&count(&["person/age"])["count"], &count(&["feed/gap", "--everywhere"])["count"]),
        (&1.into(), &0.into())
    );
    assert_eq!(ages(&["--as-of", tx])[0]["value"], 40);
    assert_eq!(ages(&["--history"]).as_array().unwrap().len(), 3);
    assert_eq!(ages(&["--since", tx, "--history"]).as_array().unwrap().len(), 2);
    assert_eq!(node.myelin(&["entity", "3"]).0, Some(1), "nobody");
    assert_eq!(node.myelin(&["transact", &file("bad.json", r#"[{"op":"delete","e":"?a"}]"#)]).0, Some(2));
    let conflict = r#"[{"op":"compare-and-set","e":["person/name","Ann"],"a":"person/age","expected":1,"new":2}]"#;
    assert_eq!(node.myelin(&["transact", &file("conflict.json", conflict)]).0, Some(5));

    for (path, status, count) in [
        (format!("/v2/query/as_of/now?entity={ann}"), 200, 2),
        (format!("/v2/query/as_of/now?entity={ann}&attribute=person/age"), 200, 1),
        (format!("/v2/query/as_of/{tx}?attribute=person/name"), 200, 2),
        (format!("/v2/query/as_of/now?attribute=person/age&history=true&since={tx}"), 200, 2),
        ("/v2/query/as_of/now?attribute=person/none".to_owned(), 422, 0),
        ("/v2/query/as_of/now?attribute=person/age&partition=elsewhere".to_owned(), 422, 0),
        ("/v2/query/as_of/now?entity=x".to_owned(), 400, 0),
    ] {
        let (found, body) = node.get(&path);
        assert_eq!(found, status, "{path}: {body}");
        let answer: Json = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["datoms"].as_array().map_or(0, Vec::len), count, "{path}: {body}");
    }
    let (_, body) = node.get(&format!("/v2/query/as_of/{tx}?entity={ann}&attribute=person/age"));
    let answer: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((&answer["tx"], &answer["datoms"][0]["value"]), (&tx.into(), &40.into()));
}

#[test]
fn campaign_mutated_transactions_are_refused_or_applied_alike_by_a_replay() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let count = trials(300, 5_000, 100_000);
    let people = r#"[
        {"op":"assert","e":"?a","a":"person/name","v":"Ann"},{"op":"assert","e":"?a","a":"person/age","v":4},
        {"op":"assert","e":"?b","a":"person/name","v":"Bob"},{"op":"assert","e":"?b","a":"person/friend","v":{"ref":"?a"}},
        {"op":"compare-and-set","e":["person/name","Ann"],"a":"person/age","expected":4,"new":5},
        {"op":"retract-entity","e":["person/name","Bob"]},{"op":"assert","e":"tx","a":"person/age","v":1}]"#;
    let seeds = [SCHEMA, people].map(|text| {
        let mut body = Vec::new();
        transaction(text).write(&mut body);
        body
    });
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % below
    };
    let mut line = Line::open(node.listen);
    let (mut request, mut applied) = (1, 0);
    for trial in 0..count {
        let mut body = seeds[usize::from(trial > 0) * draw(2)].clone();
        for _ in 0..if trial == 0 { 0 } else { draw(4) } {
            let at = draw(body.len());
            body[at] = if draw(2) == 0 { draw(256) as u8 } else { draw(8) as u8 };
        }
        let header = Header { session: 3, request, ..Header::new(FrameKind::Transact) };
        let (answer, _) = line.ask(header, &body);
        let code = Code::from_number(answer.code);
        applied += u32::from(code.is_none());
        // What the door refuses has not used up its number.
        request += u64::from(!matches!(code, Some(Code::BadFact | Code::WrongShard)));
        assert!(!matches!(code, Some(Code::SessionGap | Code::Unavailable)), "{code:?}");
    }
    assert!(applied > 1, "nothing was applied: the test proves nothing");
    let all = |node: &Node| {
        run(async {
            let asked = DatomsAsked { history: true, ..DatomsAsked::all(0) };
            let client = node.client().await;
            client.datoms(Place::Partition("main"), &asked, At::NOW, usize::MAX).await.unwrap().value
        })
    };
    let before = all(&node);
    node.kill();
    let node = setup.start();
    assert_eq!(all(&node), before);
    report("mutated-transactions", count);
}

#[test]
fn campaign_a_counter_that_was_acked_is_never_lost_or_doubled_when_the_node_is_killed() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let anna = run(async {
        let client = node.client().await;
        client.transact(&transaction(SCHEMA)).await.unwrap();
        person(&client, "Anna", 0).await.1
    });
    let kills = trials(4, 60, 600);
    let (mut known, mut doubt) = (0, false);
    let next = async |client: Client, from: i64| {
        let ops = format!(
            r#"[{{"op":"compare-and-set","e":"{anna}","a":"person/age","expected":{from},"new":{}}}]"#,
            from + 1
        );
        client.transact(&transaction(&ops)).await
    };
    for kill in 0..kills {
        run(async {
            let client = node.hasty_client().await;
            let Some(Value::I64(found)) = age_of(&client, anna, At::NOW).await else { panic!("she has no age") };
            assert!(found == known || (doubt && found == known + 1), "{found}, acked up to {known}");
            known = found;
            for _ in 0..1 + kill % 7 {
                next(client.clone(), known).await.unwrap();
                known += 1;
            }
            // One more is under way when the node is killed: it counts, or it does not, but never twice.
            let last = next(client.clone(), known);
            let killed = async {
                for _ in 0..kill % 5 {
                    tokio::task::yield_now().await;
                }
                node.kill();
            };
            let (last, ()) = tokio::join!(last, killed);
            doubt = last.is_err();
            known += i64::from(!doubt);
        });
        node = setup.start();
    }
    run(async {
        let client = node.client().await;
        let history = told(&client, &asked(true, Tx::ZERO, Entity::Id(anna)), At::NOW).await;
        let ages: Vec<_> = history.into_iter().filter(|(a, _, added)| a == "person/age" && *added).collect();
        let Some(Value::I64(last)) = ages.first().map(|(_, v, _)| v.clone()) else { panic!("she has no age") };
        assert!(last == known || (doubt && last == known + 1));
        let values = ages.into_iter().map(|(_, v, _)| v);
        assert!(values.eq((0..=last).rev().map(Value::I64)), "every step once, none left out");
    });
    report("kill-9-facts", kills);
}
