//! Who goes on behind the last event it saw misses nothing.

use super::{Events, NDJSON, lines, post, row};
use crate::node::{Setup, run};
use serde_json::{Value, json};

#[test]
fn a_watcher_hears_what_fires_and_goes_on_behind_the_last_event_it_saw() {
    let node = Setup::fresh().shards(2).start();
    let send = |rows: &[Value]| assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(rows)).status, 202);
    send(&[row("a", 1, 50.0), row("b", 1, 50.0)]);
    let mut events = Events::open(&node, "spec=above%20100&scope=all", None);
    let (name, id, begun) = events.next();
    assert_eq!((name.as_str(), id.split(',').count()), ("begun", 2));
    let reflex = begun["reflex"].as_str().unwrap().to_owned();
    drop(events);
    let mut events = Events::open(&node, "spec=above%20100&scope=all", Some(&id));
    assert_eq!(events.next().2["reflex"], json!(reflex), "an id names the reflex before anything fired");
    let fire = |from: u64| {
        for id in from..from + 3 {
            for market in ["a", "b"] {
                send(&[row(market, 10 * id, 1.0), row(market, 10 * id + 1, 101.0)]);
            }
        }
    };
    let tick_of =
        |data: &Value| (data["market"].as_str().unwrap().to_owned(), data["tick"]["id"].as_str().unwrap().to_owned());
    fire(1);
    let mut heard = Vec::new();
    let mut last = String::new();
    for _ in 0..4 {
        let (name, id, data) = events.next();
        assert_eq!((name.as_str(), &data["kind"], &data["reflex"]), ("firing", &json!("above"), &json!(reflex)));
        let ns = |key: &str| data[key].as_str().unwrap_or_else(|| panic!("{key}: {data}")).parse::<i64>().unwrap();
        let line = ["received_ns", "durable_ns", "committed_ns", "fired_ns", "sent_ns"].map(ns);
        assert!(line.is_sorted(), "{data}");
        heard.push(tick_of(&data));
        last = id;
    }
    drop(events);
    fire(4);
    // As a browser does: the same address, and the id of the last event.
    let mut events = Events::open(&node, "spec=above%20100&scope=all", Some(&last));
    assert_eq!(events.next().2["reflex"], json!(reflex));
    for _ in 0..8 {
        heard.push(tick_of(&events.next().2));
    }
    // Another question's event is nothing to go on behind.
    for query in ["spec=above%20101&scope=all", "spec=above%20100&scope=market:a", "spec=above%20100&id=77"] {
        assert_eq!(Events::open(&node, query, Some(&last)).status(), 400, "{query}");
    }
    heard.sort();
    let due = |market: &str| (1..7).map(|id| (market.to_owned(), (10 * id + 1).to_string())).collect::<Vec<_>>();
    assert_eq!(heard, [due("a"), due("b")].concat(), "each once, none left out");
    let mut since = Events::open(&node, "spec=above%20100&scope=market:a&since=0", None);
    assert_eq!(since.next().0, "begun");
    for id in 1..7 {
        let (_, _, data) = since.next();
        assert_eq!(
            (tick_of(&data).1, &data["replayed"], &data["fired_ns"]),
            (format!("{id}1"), &json!(true), &Value::Null)
        );
    }
}

/// Seen red: a shard that the id does not name was taken as seen up to where it was when the stream began again, and what had
/// fired there since was left out.
#[test]
fn a_shard_that_the_last_id_does_not_name_leaves_nothing_out() {
    let node = Setup::fresh().shards(2).start();
    let names = run(async {
        let client = node.client().await;
        let on = |shard| (0..).map(|n| format!("m{n}")).find(|name| client.shard_of_name(name) == Some(shard)).unwrap();
        [on(0), on(1)]
    });
    let send = |shard: usize, id: u64, price: f64| {
        let said = post(&node, "create_markets=true", NDJSON, &lines(&[row(&names[shard], id, price)]));
        assert_eq!(said.status, 202, "{}", said.body);
    };
    let tick_of = |data: &Value| (data["shard"].as_u64().unwrap(), data["tick"]["id"].as_str().unwrap().to_owned());
    (0..2).for_each(|shard| send(shard, 1, 1.0));
    let mut events = Events::open(&node, "spec=above%20100&scope=all&id=9", None);
    assert_eq!(events.next().0, "begun");
    send(0, 2, 101.0);
    let (_, id, data) = events.next();
    assert_eq!(tick_of(&data), (0, "2".to_owned()));
    drop(events);
    send(1, 2, 101.0);
    let tx = data["tx"].as_str().unwrap();
    let named = id.split(',').next().unwrap();
    assert_eq!(named, format!("0:{tx}:0:9"));
    let mut events = Events::open(&node, "reflex=9", Some(named));
    assert_eq!(events.next().0, "begun");
    // Where the first one is left out, this is what comes.
    send(1, 3, 1.0);
    send(1, 4, 101.0);
    assert_eq!(tick_of(&events.next().2), (1, "2".to_owned()));
    // Both shards may stamp alike.
    let before = tx.parse::<u64>().unwrap() - 1;
    let path = format!("/v2/tail?attribute=tick/id&market={}", names[1]);
    let mut events = Events::of(&node, &path, Some(&format!("0:{before}")));
    let (name, id, _) = events.next();
    assert_eq!((name.as_str(), id), ("begun", format!("0:{before},1:{before}")));
    assert_eq!(tick_of(&events.next().2), (1, "2".to_owned()));
}
