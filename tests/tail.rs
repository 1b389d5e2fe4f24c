//! The log as a stream: everything once, in the order in which it was applied, from any `tx`, for slow readers too.

use crate::node::{Node, Setup, done, markets, run, tick};
use crate::sessions::Line;
use myelin_client::{Client, Mode, Options, Tail, TailNews, TailWanted};
use myelin_datom::{EntityId, Quote, Tick, Tx};
use myelin_wire::{Code, Header, Kind, LogKind, Logged, Named, TailAsk, TailEntry};

/// What an entry says about itself: transaction, place, kind, market and the source's id.
type Told = (u64, u32, u64, EntityId, u64);

fn told(entry: &TailEntry) -> Told {
    let (kind, market, id) = match &entry.what {
        Logged::Tick(tick) => (LogKind::Tick, tick.market, tick.id),
        Logged::Quote(quote) => (LogKind::Quote, quote.market, quote.id),
        Logged::Market { id, .. } => (LogKind::Market, *id, 0),
        Logged::Fact { .. } => panic!("no facts are written here"),
        Logged::Other(kind) => panic!("a kind that is not known here: {kind}"),
    };
    (entry.tx, entry.n, kind as u64, market, id)
}

async fn next(tail: &mut Tail) -> (TailEntry, bool) {
    match tail.next().await.unwrap() {
        Some(TailNews::Entry { replayed, applied, entry, .. }) => {
            assert!(applied.bits() >= entry.tx, "what is told was applied");
            (entry, replayed)
        }
        other => panic!("expected an entry, found {other:?}"),
    }
}

async fn take(tail: &mut Tail, count: usize) -> Vec<Told> {
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(told(&next(tail).await.0));
    }
    entries
}

fn quote(market: EntityId, id: u64) -> Quote {
    let zeroed: Quote = bytemuck::Zeroable::zeroed();
    let event_time_ns = 1_700_000_000_000_000_000 + id as i64;
    Quote { market, id, event_time_ns, bid: 1.0, ask: 2.0, ..zeroed }
}

fn since(tx: Tx) -> TailWanted<'static> {
    TailWanted { since: Some(tx), ..TailWanted::default() }
}

/// Three markets, and frames of ticks and quotes that mix them; gives the ids and all that is due.
async fn write(client: &Client, rounds: u64) -> (Vec<EntityId>, Vec<Told>) {
    let mut due = Vec::new();
    let mut ids = Vec::new();
    for name in ["tail-a", "tail-b", "other"] {
        ids.push(markets(client, &[name]).await[0]);
    }
    for round in 0..rounds {
        let rows: Vec<Tick> = (0..6).map(|n| tick(ids[(n as usize * 2) % 3], round * 10 + n + 1, 1.5)).collect();
        let parts = client.ticks(&rows, Mode::Whole).await.unwrap();
        assert_eq!(done(&parts), (6, 0));
        // A repeat is no entry.
        done(&client.ticks(&rows[..2], Mode::Whole).await.unwrap());
        let tx = tx_of(&parts);
        due.extend((0..6_u32).map(|n| {
            let row = &rows[n as usize];
            (tx, n, LogKind::Tick as u64, row.market, row.id)
        }));
        let rows: Vec<Quote> =
            [2, 0, 1, 0].into_iter().zip(1..).map(|(at, n)| quote(ids[at], round * 10 + n)).collect();
        let parts = client.quotes(&rows, Mode::Whole).await.unwrap();
        // By market, in the order the markets were named.
        for at in [1, 3, 2, 0] {
            due.push((tx_of(&parts), 0, LogKind::Quote as u64, rows[at].market, rows[at].id));
        }
    }
    (ids, due)
}

fn tx_of(parts: &[myelin_client::Part]) -> u64 {
    match parts {
        [myelin_client::Part { outcome: myelin_client::Outcome::Done(ack), .. }] => ack.tx.bits(),
        other => panic!("expected one part that is done, found {other:?}"),
    }
}

fn is_market(told: &Told) -> bool {
    told.2 == LogKind::Market as u64
}

#[test]
fn what_is_stored_comes_in_the_order_of_the_log_live_and_from_history_alike() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (ids, live) = run(async {
        let client = node.client().await;
        let mut tail = client.tail(TailWanted::default()).await.unwrap();
        // More than is sealed at once, so that history stands in runs and in memory.
        let (ids, due) = write(&client, 900).await;
        let live = take(&mut tail, due.len() + 3).await;
        assert_eq!(
            live[..3].iter().map(|one| (is_market(one), one.3)).collect::<Vec<_>>(),
            ids.iter().map(|id| (true, *id)).collect::<Vec<_>>()
        );
        assert_eq!(live[3..], due);
        (ids, live)
    });
    node.wait_for_checkpoints(1);
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let mut tail = client.tail(since(Tx::ZERO)).await.unwrap();
        assert_eq!(take(&mut tail, live.len()).await, live, "history is the same stream");
        done(&client.ticks(&[tick(ids[1], 99_999, 1.0)], Mode::Whole).await.unwrap());
        let (entry, replayed) = next(&mut tail).await;
        assert_eq!((told(&entry).4, replayed), (99_999, false), "and goes over into what is stored now");
        for from in [0, 1, 7, 500, live.len() / 2, live.len() - 20] {
            let after = live[from].0;
            let due: Vec<_> = live.iter().filter(|one| one.0 > after).copied().collect();
            let mut tail = client.tail(since(Tx::from_bits(after))).await.unwrap();
            assert_eq!(take(&mut tail, due.len()).await, due, "from the middle, behind entry {from}");
        }
    });
}

#[test]
fn a_tail_is_filtered_by_kind_market_pattern_and_entity() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let (ids, due) = write(&client, 20).await;
        let trader = EntityId::from_bits(0x3000_0000_0000_0007);
        let theirs = Tick { trader, ..tick(ids[2], 70_000, 3.0) };
        done(&client.ticks(&[tick(ids[2], 60_000, 3.0), theirs], Mode::Whole).await.unwrap());
        let all = since(Tx::ZERO);
        let mark = [tick(ids[0], 80_000, 3.0), tick(ids[1], 80_000, 3.0), theirs_again(theirs)];
        let due = |keep: &dyn Fn(&Told) -> bool| due.iter().filter(|one| keep(one)).copied().collect::<Vec<_>>();
        let quotes = TailWanted { kinds: &[LogKind::Quote], ..all };
        let of_market = TailWanted { named: Named::Market("tail-b"), kinds: &[LogKind::Tick], ..all };
        let by_id = TailWanted { entity: Some(ids[1]), kinds: &[LogKind::Tick], ..all };
        let pattern = TailWanted { named: Named::Like("tail-*"), kinds: &[LogKind::Tick, LogKind::Quote], ..all };
        for (wanted, due) in [
            (quotes, due(&|one| one.2 == LogKind::Quote as u64)),
            (of_market, due(&|one| one.2 == LogKind::Tick as u64 && one.3 == ids[1])),
            (by_id, due(&|one| one.2 == LogKind::Tick as u64 && one.3 == ids[1])),
            (pattern, due(&|one| one.3 != ids[2])),
        ] {
            let mut tail = client.tail(wanted).await.unwrap();
            assert_eq!(take(&mut tail, due.len()).await, due, "{wanted:?}");
        }
        let mut tail = client.tail(TailWanted { entity: Some(trader), ..all }).await.unwrap();
        assert_eq!(next(&mut tail).await.0.what, Logged::Tick(theirs));
        done(&client.ticks(&mark, Mode::Whole).await.unwrap());
        assert_eq!(next(&mut tail).await.0.what, Logged::Tick(mark[2]), "live as well");
    });
}

fn theirs_again(tick: Tick) -> Tick {
    Tick { id: tick.id + 1, ..tick }
}

#[test]
fn a_slow_reader_is_given_everything_in_order_while_ticks_and_markets_keep_coming() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let options = Options { firings_window: 64, ..Options::default() };
        let slow = Client::connect(&node.listen.to_string(), options).await.unwrap();
        let mut tail = slow.tail(TailWanted { kinds: &[LogKind::Tick], ..TailWanted::default() }).await.unwrap();
        let mut ids = markets(&client, &["slow-a", "slow-b"]).await;
        // Twice as many entries as a shard keeps at hand, before the reader takes one.
        let mut sent = Vec::new();
        for chunk in 0..16_u64 {
            if chunk == 4 {
                // It comes when the reader has no credit left, and is behind what is kept when it has some again.
                ids.extend(markets(&client, &["slow-d"]).await);
            }
            let rows: Vec<_> =
                (0..2000).map(|n| tick(ids[n as usize % ids.len()], chunk * 2000 + n + 1, 1.0)).collect();
            done(&client.ticks(&rows, Mode::Whole).await.unwrap());
            sent.extend(rows);
        }
        let mut seen = Vec::new();
        while seen.len() < sent.len() {
            if seen.len() == 1000 {
                // It goes through history when a market comes whose ticks are due as well.
                let late = markets(&client, &["slow-c"]).await[0];
                let rows: Vec<_> = (1..=200).map(|n| tick(late, n, 1.0)).collect();
                done(&client.ticks(&rows, Mode::Whole).await.unwrap());
                sent.extend(rows);
            }
            let (entry, _) = next(&mut tail).await;
            let Logged::Tick(tick) = entry.what else { panic!("not a tick") };
            seen.push(tick);
        }
        assert_eq!(seen, sent);
    });
}

#[test]
fn a_reader_whose_node_dies_goes_on_without_a_gap_or_a_repeat() {
    let mut setup = Setup::fresh().shards(2);
    let mut node = setup.start();
    setup.listen = node.listen;
    run(async {
        let options = Options { firings_window: 64, reconnect_for: crate::node::PATIENCE, ..Options::default() };
        let client = Client::connect(&node.listen.to_string(), options).await.unwrap();
        let ids = markets(&client, &["cut-a", "cut-b", "cut-c", "cut-d"]).await;
        let mut tail = client.tail(TailWanted { kinds: &[LogKind::Tick], ..TailWanted::default() }).await.unwrap();
        let mut seen = std::collections::BTreeMap::<EntityId, Vec<u64>>::new();
        for life in 0..4_u64 {
            let rows: Vec<_> = (0..400).map(|n| tick(ids[n as usize % 4], life * 1000 + n + 1, 1.0)).collect();
            done(&client.ticks(&rows, Mode::Whole).await.unwrap());
            // It dies while half of a transaction was taken.
            for _ in 0..if life == 3 { 1000 } else { 200 } {
                let one = told(&next(&mut tail).await.0);
                seen.entry(one.3).or_default().push(one.4);
            }
            if life < 3 {
                node.kill();
                node = setup.start();
            }
        }
        for (at, id) in ids.iter().enumerate() {
            let due: Vec<u64> = (0..4)
                .flat_map(|life| (0..400).filter(move |n| *n as usize % 4 == at).map(move |n| life * 1000 + n + 1))
                .collect();
            assert_eq!(seen[id], due);
        }
    });
}

fn refusal(node: &Node, ask: TailAsk<'_>) -> Option<Code> {
    let mut body = Vec::new();
    ask.write(&mut body);
    let (header, _) = Line::open(node.listen).ask(Header { count: 1, ..Header::new(Kind::Tail) }, &body);
    Code::from_number(header.code)
}

#[test]
fn what_cannot_be_asked_is_refused_by_name() {
    let node = Setup::fresh().start();
    let all = TailAsk::all(0);
    assert_eq!(refusal(&node, all), None);
    assert_eq!(refusal(&node, TailAsk { kinds: 1 << 31, ..all }), Some(Code::UnknownAttribute));
    assert_eq!(refusal(&node, TailAsk { named: Named::Like("a b"), ..all }), Some(Code::BadBody));
    assert_eq!(refusal(&node, TailAsk { attributes: &["a"; 65], ..all }), Some(Code::BadBody));
    let (header, _) = Line::open(node.listen).ask(Header { count: 1, ..Header::new(Kind::Tail) }, &[0; 23]);
    assert_eq!(Code::from_number(header.code), Some(Code::BadBody));
}

#[test]
fn the_command_line_prints_the_log_from_any_transaction() {
    let node = Setup::fresh().start();
    let due = run(async { write(&node.client().await, 3).await.1 });
    let lines = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let (code, out) = node.myelin(&[&["tail", "-o", "ndjson"], arguments].concat());
        assert_eq!(code, Some(0));
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&["--since", "0", "--count", "33"]);
    assert_eq!(all[0]["attribute"], "market/id");
    assert_eq!(all[0]["market"], "tail-a");
    let told: Vec<_> = all[3..].iter().map(|line| line["tx"].as_str().unwrap().parse::<u64>().unwrap()).collect();
    assert_eq!(told, due.iter().map(|one| one.0).collect::<Vec<_>>());
    let after = due[9].0.to_string();
    let transact = |text: &str| {
        let transaction = myelin_feed::facts::transaction(text.as_bytes()).unwrap();
        run(async { node.client().await.transact(&transaction).await.unwrap() });
    };
    transact(
        r#"[{"op":"assert","e":"?a","a":"db/ident","v":{"keyword":"desk/limit"}},
            {"op":"assert","e":"?a","a":"db/value-type","v":{"keyword":"decimal"}}]"#,
    );
    transact(r#"[{"op":"assert","e":"?d","a":"desk/limit","v":{"decimal":"250000"}}]"#);
    let facts = lines(&["--since", "0", "--attribute", "desk/limit", "--count", "1"]);
    assert_eq!((&facts[0]["value"], &facts[0]["added"]), (&serde_json::json!("250000"), &serde_json::json!(true)));
    let schema = lines(&["--since", "0", "--attribute", "db/ident", "--attribute", "db/value-type", "--count", "2"]);
    assert_eq!((&schema[0]["value"], &schema[1]["value"]), (&"desk/limit".into(), &"decimal".into()));
    let ticks = lines(&["--since", &after, "--attribute", "tick/id", "--market", "tail-*", "--count", "8"]);
    assert!(ticks.iter().all(|line| line["price"] == 1.5 && line["bid"].is_null() && line["market"] != "other"));
    assert_eq!(node.myelin(&["tail", "--market", "nobody", "--count", "1"]).0, Some(1));
}

/// Streams that come and go over one connection, more of them than a shard has places for.
#[test]
fn two_thousand_streams_that_ended_leave_a_place_for_the_next_one() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let id = markets(&client, &["ends"]).await[0];
        register(&client).await;
        for _ in 0..2000 {
            drop(client.tail(TailWanted::default()).await.unwrap());
            drop(client.subscribe(None, &[]).await.unwrap());
            drop(client.tail(since(Tx::ZERO)).await.unwrap());
        }
        let mut tail = client.tail(TailWanted::default()).await.unwrap();
        let mut firings = client.subscribe(Some(9), &[]).await.unwrap();
        done(&client.ticks(&[tick(id, 1, 101.0)], Mode::Whole).await.unwrap());
        assert!(matches!(next(&mut tail).await.0.what, Logged::Tick(tick) if tick.id == 1));
        assert!(
            matches!(firings.next().await.unwrap(), Some(myelin_client::News::Firing(one)) if one.row.tick.id == 1)
        );
    });
}

/// Registers "above 100" of everything as 9.
async fn register(client: &Client) {
    let mut body = 9_u64.to_le_bytes().to_vec();
    body.push(1);
    body.extend_from_slice(&100.0_f64.to_le_bytes());
    body.push(3);
    client.register(&body, 1).await.unwrap();
}

#[test]
fn one_stream_of_a_connection_is_ended_by_its_number_and_the_others_go_on() {
    let node = Setup::fresh().start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "numbered");
    let mut ask = Vec::new();
    TailAsk { kinds: LogKind::Tick.bit(), ..TailAsk::all(myelin_wire::FROM_NOW) }.write(&mut ask);
    let tail = |request| Header { session: 5, request, count: 100, ..Header::new(Kind::Tail) };
    assert_eq!(line.ask(tail(1), &ask).0.kind, Kind::Answer as u8);
    assert_eq!(line.ask(tail(2), &ask).0.kind, Kind::Answer as u8);
    let subscribe = Header { session: 5, request: 3, count: 100, ..Header::new(Kind::Subscribe) };
    assert_eq!(line.ask(subscribe, &[0; 32]).0.kind, Kind::Answer as u8);
    for request in [1, 3] {
        let (last, _) = line.ask(Header { session: 5, request, ..Header::new(Kind::End) }, &[]);
        assert_eq!((last.kind, last.code, last.session, last.request), (Kind::Ended as u8, 0, 5, request));
    }
    // What is not there is not answered: the next frame is another one's.
    line.say(Header { session: 5, request: 1, ..Header::new(Kind::End) }, &[]);
    assert_eq!(line.ticks(7, 2, &[tick(market, 1, 1.0)]).kind, Kind::Ack as u8);
    let (page, _) = line.hear().unwrap();
    assert_eq!((page.kind, page.request, page.count), (Kind::Tailed as u8, 2, 1));
    assert_eq!(
        line.ticks(7, 3, &[tick(market, 2, 1.0)]).kind,
        Kind::Ack as u8,
        "and nothing came of the one that ended"
    );
}

#[test]
fn facts_are_in_the_stream_and_stay_where_they_were_after_sealing_and_a_restart() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let entries =
        |tail: Vec<TailEntry>| tail.into_iter().map(|entry| (entry.tx, entry.n, entry.what)).collect::<Vec<_>>();
    async fn all(tail: &mut Tail, count: usize) -> Vec<TailEntry> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.push(next(tail).await.0);
        }
        entries
    }
    let live = run(async {
        let client = node.client().await;
        let mut tail = client.tail(TailWanted::default()).await.unwrap();
        let id = markets(&client, &["mixed"]).await[0];
        let mut count = 1;
        for round in 0..60_u64 {
            let ops = format!(
                r#"[{{"op":"assert","e":"?d{round}","a":"db/doc","v":{{"string":"{}"}}}},
                    {{"op":"assert","e":"{}","a":"market/event","v":{{"string":"round {round}"}}}}]"#,
                "x".repeat(round as usize * 40),
                id.bits()
            );
            let transaction = myelin_feed::facts::transaction(ops.as_bytes()).unwrap();
            let transaction = myelin_datom::Transaction { partition: "mixed".into(), ..transaction };
            count += client.transact(&transaction).await.unwrap().datoms as usize;
            let rows: Vec<_> = (0..200).map(|n| tick(id, round * 200 + n + 1, 1.0)).collect();
            count += done(&client.ticks(&rows, Mode::Whole).await.unwrap()).0 as usize;
        }
        entries(all(&mut tail, count).await)
    });
    assert!(live.iter().filter(|one| matches!(one.2, Logged::Fact { .. })).count() >= 120);
    node.wait_for_checkpoints(1);
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let mut tail = client.tail(since(Tx::ZERO)).await.unwrap();
        assert_eq!(entries(all(&mut tail, live.len()).await), live, "history is the same stream");
        let events = TailWanted { attributes: &["market/event"], kinds: &[LogKind::Fact], ..since(Tx::ZERO) };
        let mut tail = client.tail(events).await.unwrap();
        let due: Vec<_> = live
            .iter()
            .filter(|one| matches!(&one.2, Logged::Fact { ident, .. } if ident == "market/event"))
            .cloned()
            .collect();
        assert_eq!(entries(all(&mut tail, due.len()).await), due);
    });
}
