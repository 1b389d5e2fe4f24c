//! HTTP as its users speak it: rows in three forms, reads as of a moment, firings as events, and bodies that mean harm.

use crate::node::{Node, PATIENCE, Setup, run, tick, wait_for};
use myelin_datom::EntityId;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

mod kept;
mod resuming;
mod totals;

/// A response: status, head, body.
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }

    fn header(&self, name: &str) -> Option<String> {
        let head = self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name));
        head.map(|(_, value)| value.to_owned())
    }
}

fn open(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.http).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
    stream
}

fn hear(mut stream: TcpStream) -> Said {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "an answer, or the end");
    }
    let text = String::from_utf8(bytes).expect("text");
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    Said { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(node: &Node, path: &str) -> Said {
    let mut stream = open(node);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request is sent");
    hear(stream)
}

fn post(node: &Node, query: &str, head: &str, body: &[u8]) -> Said {
    let mut stream = open(node);
    let length = body.len();
    write!(
        stream,
        "POST /v2/ingest?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\nContent-Length: {length}\r\n\r\n"
    )
    .expect("a head is sent");
    // A node that refuses early need not read all of it.
    let _refused = stream.write_all(body);
    hear(stream)
}

const JSON: &str = "Content-Type: application/json";
const NDJSON: &str = "Content-Type: application/x-ndjson";
const RAW: &str = "Content-Type: application/octet-stream";

fn row(market: &str, id: u64, price: f64) -> Value {
    json!({ "market": market, "id": id.to_string(), "event_time_ns": 1_700_000_000_000_000_000_u64 + id, "price": price,
            "volume": 1.0, "side": "buy" })
}

fn lines(rows: &[Value]) -> Vec<u8> {
    rows.iter().flat_map(|row| format!("{row}\n").into_bytes()).collect()
}

fn counts(said: &Said) -> (u64, u64, u64) {
    let number = |key: &str| said.json()[key].as_u64().expect(&said.body);
    (number("accepted"), number("duplicates"), number("refused"))
}

fn count(node: &Node, tx: &str) -> u64 {
    let said = get(node, &format!("/v2/query/as_of/{tx}?attribute=tick/id"));
    assert_eq!(said.status, 200, "{}", said.body);
    said.json()["count"].as_u64().expect("a count")
}

#[test]
fn every_form_of_a_body_becomes_ticks_and_repeating_it_changes_nothing() {
    let node = Setup::fresh().shards(2).start();
    let rows =
        |from: u64| -> Vec<_> { (from..from + 6).map(|id| row(["a", "b", "c"][id as usize % 3], id, 1.5)).collect() };
    let zst = |body: &[u8]| zstd::encode_all(body, 3).unwrap();
    let json = json!({ "ticks": rows(1) }).to_string().into_bytes();
    let array = Value::from(rows(10)).to_string().into_bytes();
    let ndjson = lines(&rows(20));
    let packed = zst(&lines(&rows(30)));
    for (head, body) in [
        (JSON.to_owned(), json),
        (JSON.to_owned(), array),
        (NDJSON.to_owned(), ndjson),
        (format!("{NDJSON}\r\nContent-Encoding: zstd"), packed),
    ] {
        let said = post(&node, "create_markets=true", &head, &body);
        assert_eq!((said.status, counts(&said)), (202, (6, 0, 0)), "{}", said.body);
        let parts = said.json()["parts"].as_array().cloned().unwrap();
        assert!(parts.iter().all(|part| part["tx"].as_str().is_some_and(|tx| tx.parse::<u64>().is_ok())), "{parts:?}");
        let said = post(&node, "", &head, &body);
        assert_eq!((said.status, counts(&said)), (202, (0, 6, 0)), "{}", said.body);
    }
    let markets = get(&node, "/v2/markets").json();
    let ids: Vec<_> = markets["markets"].as_array().unwrap().iter().map(|market| market["entity"].clone()).collect();
    let id = |at: usize| EntityId::from_bits(ids[at].as_str().unwrap().parse().unwrap());
    let raw: Vec<_> = (40..46).map(|n| tick(id(n as usize % 3), n, 2.0)).collect();
    for expected in [(6, 0, 0), (0, 6, 0)] {
        let said = post(&node, "", RAW, bytemuck::cast_slice(&raw));
        assert_eq!((said.status, counts(&said)), (202, expected), "{}", said.body);
    }
    assert_eq!(count(&node, "now"), 30);
    let quotes = json!({ "quotes": [{ "market": "a", "id": 1, "event_time_s": 1, "bid": 1, "bid_volume": 1, "ask": 2,
                                      "ask_volume": 1 }] });
    assert_eq!(counts(&post(&node, "", JSON, quotes.to_string().as_bytes())), (1, 0, 0));
    let metrics = get(&node, "/metrics").body;
    assert!(metrics.contains("myelin_http_requests_total{route=\"/v2/ingest\",status=\"202\"} 11"), "{metrics}");
}

#[test]
fn bad_rows_are_named_and_nothing_is_stored_unless_partial_is_asked_for() {
    let node = Setup::fresh().shards(2).start();
    let mut rows: Vec<_> = (1..=8).map(|id| row(["a", "b"][id as usize % 2], id, 1.0)).collect();
    assert_eq!(post(&node, "create_markets=true", JSON, Value::from(rows.clone()).to_string().as_bytes()).status, 202);
    rows.iter_mut().for_each(|row| row["id"] = json!(100 + row["id"].as_str().unwrap().parse::<u64>().unwrap()));
    rows[2]["price"] = json!("NaN");
    rows[4] = json!({ "market": "a" });
    rows[6]["market"] = json!("nowhere");
    rows[7] = row("a", 2, 9.0);
    let body = lines(&rows);
    let said = post(&node, "", NDJSON, &body);
    let told = said.json();
    assert_eq!((said.status, &told["first_bad"], &told["accepted"]), (422, &json!(2), &json!(0)), "{told}");
    let named: Vec<_> = told["bad"].as_array().unwrap().iter().map(|bad| bad["row"].as_u64().unwrap()).collect();
    assert_eq!(named, [2, 4], "all that the body alone tells");
    let counted = "myelin_refusals_total{core=\"gateway\",code=\"price_not_finite\"} 1";
    assert!(get(&node, "/metrics").body.contains(counted), "it is counted as a core would");
    assert_eq!(count(&node, "0"), 8);
    let said = post(&node, "partial=true", NDJSON, &body);
    assert_eq!((said.status, counts(&said)), (202, (4, 0, 4)), "{}", said.body);
    let told = said.json();
    let named: Vec<_> = told["bad"].as_array().unwrap().iter().map(|bad| (&bad["row"], &bad["code"])).collect();
    assert_eq!(
        json!(named),
        json!([[2, "price_not_finite"], [4, "bad_body"], [6, "unknown_market"], [7, "id_conflict"]])
    );
    assert_eq!(count(&node, "0"), 12);
    // One shard's part is refused by what is stored; the other's is not undone, and the answer says so.
    let whole = lines(&[row("b", 200, 1.0), row("a", 2, 9.0), row("a", 201, 1.0)]);
    let said = post(&node, "", NDJSON, &whole);
    let told = said.json();
    assert_eq!((said.code(), &told["first_bad"]), ((409, "id_conflict".to_owned()), &json!(1)), "{told}");
    let stored: u64 = told["accepted"].as_u64().unwrap();
    assert_eq!(count(&node, "0"), 12 + stored);
    assert!(told["parts"].as_array().unwrap().iter().any(|part| part["code"] == json!("id_conflict")), "{told}");
}

/// What is wrong, query, head, body, status, code.
type Bad<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, &'a str);

#[test]
fn what_the_sender_did_wrong_has_a_code_and_no_time_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let one = lines(&[row("nowhere", 1, 1.0)]);
    let zst = format!("{NDJSON}\r\nContent-Encoding: zstd");
    let bomb = zstd::encode_all(std::io::repeat(b' ').take(512 << 20), 1).unwrap();
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
    let unknown = tick(EntityId::market(myelin_datom::Slot::of_name("x"), 7), 1, 1.0);
    let table: [Bad<'_>; 12] = [
        ("unknown market", "", NDJSON, &one, 422, "unknown_market"),
        ("unknown id", "", RAW, bytemuck::bytes_of(&unknown), 422, "unknown_market"),
        ("no type", "", "X: y", &one, 415, "unsupported_media"),
        ("gzip", "", "Content-Type: application/json\r\nContent-Encoding: gzip", &one, 415, "unsupported_media"),
        ("no JSON", "", JSON, b"{", 400, "bad_body"),
        ("half a row", "", RAW, &[0; 65], 400, "bad_body"),
        ("no market's id", "", RAW, &[0; 64], 422, "market_kind"),
        ("parameter", "creat_markets=true", JSON, b"[]", 400, "bad_query"),
        ("damaged", "", &zst, &bomb[..100], 400, "bad_body"),
        ("bomb", "", &zst, &bomb, 413, "oversize"),
        ("window", "", &zst, &window, 413, "oversize"),
        ("long", "", NDJSON, &[b' '; 9 << 20], 413, "oversize"),
    ];
    for (what, query, head, body, status, code) in table {
        let said = post(&node, query, head, body);
        assert_eq!(said.code(), (status, code.to_owned()), "{what}: {}", said.body);
        assert_eq!(said.header("retry-after"), None, "{what}");
    }
    for (path, status, code) in [
        ("/v2/query/as_of/now?attribute=tick/colour", 422, "unknown_attribute"),
        ("/v2/query/as_of/now?attribute=", 422, "unknown_attribute"),
        ("/v2/query/as_of/now?attribute=a%20b", 422, "unknown_attribute"),
        ("/v2/query/as_of/%ff?attribute=tick/id", 400, "bad_query"),
        ("/v2/query/as_of/now?market=nowhere", 422, "unknown_market"),
        ("/v2/query/as_of/now?entity=5", 422, "market_kind"),
        ("/v2/query/as_of/18446744073709551615?attribute=tick/id", 422, "future"),
        ("/v2/query/as_of/x?attribute=tick/id", 400, "bad_query"),
        ("/v2/query/as_of/now", 400, "bad_query"),
        ("/v2/query/as_of/now?vwap=true&attribute=tick/id", 400, "bad_query"),
        ("/v2/watch?spec=beside%205", 422, "bad_reflex"),
        ("/v2/watch?spec=above%205&scope=market:nowhere", 422, "unknown_market"),
        ("/v2/watch?spec=spread%20nowhere%20nobody%205", 422, "unknown_market"),
        ("/v2/watch?reflex=77", 422, "unknown_reflex"),
        ("/v2/watch", 400, "bad_query"),
        ("/v2/ingest", 405, "wrong_method"),
        ("/v3", 404, "not_found"),
    ] {
        assert_eq!(get(&node, path).code(), (status, code.to_owned()), "{path}");
    }
    assert!(peak_bytes(dir.path()) < 300 << 20, "the bomb was unpacked");
    assert_eq!(count(&node, "now"), 0);
}

/// The most memory that the node of this directory ever had; 0 where the system does not tell.
fn peak_bytes(dir: &std::path::Path) -> u64 {
    let dir = dir.to_str().expect("a plain path");
    let of = |process: std::fs::DirEntry| {
        let command = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let status = std::fs::read_to_string(process.path().join("status")).ok().filter(|_| command.contains(dir))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        peak.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kb| kb << 10)
    };
    std::fs::read_dir("/proc").map_or(0, |all| all.filter_map(Result::ok).filter_map(of).max().unwrap_or(0))
}

#[test]
fn reads_answer_as_of_the_moment_they_are_asked_for() {
    let node = Setup::fresh().shards(2).start();
    let first = post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 10.0), row("a", 2, 20.0)])).json();
    let then = first["tx"].as_str().unwrap().to_owned();
    let second = post(&node, "", NDJSON, &lines(&[row("a", 3, 30.0), row("a", 4, 5.0)])).json();
    let now = second["tx"].as_str().unwrap().to_owned();
    assert_eq!((count(&node, &then), count(&node, &now)), (2, 4));
    let latest = |tx: &str| get(&node, &format!("/v2/query/as_of/{tx}?market=a&min_tx={now}")).json();
    assert_eq!((&latest(&then)["tick"]["id"], &latest("now")["tick"]["id"]), (&json!("2"), &json!("4")));
    let entity = latest("now")["entity"].as_str().unwrap().to_owned();
    assert_eq!(get(&node, &format!("/v2/query/as_of/{then}?entity={entity}")).json()["tick"], latest(&then)["tick"]);
    let vwap = get(&node, &format!("/v2/query/as_of/{then}?vwap=true")).json();
    assert_eq!((&vwap["vwap"][0]["market"], &vwap["vwap"][0]["vwap"]), (&json!("a"), &json!(15.0)));
    let bars = get(&node, "/v2/query/as_of/now?bars=60s&market=a&from=2023-11-14T00:00:00Z&to=2023-11-15T00:00:00Z");
    let bar = &bars.json()["bars"][0];
    assert_eq!(json!([bar["open"], bar["high"], bar["low"], bar["close"]]), json!([10.0, 30.0, 5.0, 5.0]));
    assert_eq!(get(&node, "/v2/query/as_of/now?bars=60&market=a").code().0, 400, "a length has a unit");
}

/// A stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(node: &Node, query: &str, last: Option<&str>) -> Self {
        Self::of(node, &format!("/v2/watch?{query}"), last)
    }

    fn of(node: &Node, path: &str, last: Option<&str>) -> Self {
        // A small buffer here, so that who does not read is noticed soon.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a socket has a buffer");
        socket.connect(&node.http.into()).expect("the gateway listens");
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has time limits");
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n").expect("a request is sent");
        Self(BufReader::new(stream))
    }

    /// The status line's number.
    fn status(&mut self) -> u16 {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a status comes");
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    /// The next event: name, id, data. Everything else is passed over: the head, chunks, comments.
    fn next(&mut self) -> (String, String, Value) {
        let (mut name, mut id, mut data) = (String::new(), String::new(), Value::Null);
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).expect("an event comes"), 0, "the stream ended: {seen}");
            seen.push_str(&line);
            let line = line.trim_end();
            if let Some(value) = line.strip_prefix("event: ") {
                value.clone_into(&mut name);
            } else if let Some(value) = line.strip_prefix("id: ") {
                value.clone_into(&mut id);
            } else if let Some(value) = line.strip_prefix("data: ") {
                data = serde_json::from_str(value).expect("JSON");
            } else if line.is_empty() && !name.is_empty() {
                return (name, id, data);
            }
        }
    }
}

#[test]
fn a_watcher_that_does_not_read_is_ended_and_told() {
    let node = Setup::fresh().start();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0)])).status, 202);
    let mut slow = Events::open(&node, "spec=above%20100&id=9", None);
    assert_eq!(slow.next().0, "begun");
    let id = run(async { crate::node::markets(&node.client().await, &["a"]).await[0] });
    // More than the sockets' buffers hold, less than the node has at hand.
    let rows: Vec<_> = (2..12_002).map(|n| tick(id, n, if n % 2 == 0 { 1.0 } else { 101.0 })).collect();
    assert_eq!(counts(&post(&node, "", RAW, bytemuck::cast_slice(&rows))), (12_000, 0, 0));
    let ended = "myelin_http_watchers_ended_total{code=\"slow_consumer\"} 1";
    wait_for("the slow watcher to be ended", || get(&node, "/metrics").body.contains(ended).then_some(()));
    let (mut last, mut firings) = (String::new(), 0);
    loop {
        let (name, id, data) = slow.next();
        if name == "end" {
            assert_eq!(data["code"], json!("slow_consumer"));
            break;
        }
        firings += 1;
        last = id;
    }
    assert!((1..6_000).contains(&firings), "{firings}");
    let mut again = Events::open(&node, "reflex=9", Some(&last));
    assert_eq!(again.next().0, "begun");
    let number = |id: &str| id.parse::<u64>().unwrap();
    assert_eq!(number(again.next().2["tick"]["id"].as_str().unwrap()), 2 * firings + 3, "the one behind the last");
}

#[test]
fn heads_and_bodies_that_dribble_are_cut_off_and_others_are_served() {
    let node = Setup::fresh().start();
    let mut head = open(&node);
    let mut body = open(&node);
    write!(head, "GET /healthz HTTP/1.1\r\nHost: ").unwrap();
    write!(body, "POST /v2/ingest HTTP/1.1\r\nHost: x\r\n{NDJSON}\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    let mut ends = [None, None];
    wait_for("both to be cut off", || {
        for (stream, end) in [&mut head, &mut body].into_iter().zip(&mut ends) {
            stream.set_nonblocking(true).unwrap();
            let waits = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            if end.is_none() && (stream.write_all(b"x").is_err() || !waits) {
                *end = Some(());
            }
        }
        assert_eq!(get(&node, "/healthz").status, 200);
        ends.iter().all(Option::is_some).then_some(())
    });
    body.set_nonblocking(false).unwrap();
    let said = hear(body);
    if said.status != 0 {
        assert_eq!(said.code(), (408, "body_timeout".to_owned()));
    }
}

#[test]
fn two_thousand_watchers_who_came_and_went_leave_the_next_one_its_firing() {
    let node = Setup::fresh().start();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0)])).status, 202);
    assert_eq!(Events::open(&node, "spec=above%20100&id=9", None).next().0, "begun");
    // Whoever left has left for good: a place of the gateway is free when the node was told.
    for path in ["/v2/watch?reflex=9", "/v2/tail"] {
        for n in 0..2000 {
            let mut events = wait_for("a place", || {
                let mut events = Events::of(&node, path, None);
                (events.status() != 503).then_some(events)
            });
            assert_eq!(events.next().0, "begun", "{path} {n}");
        }
    }
    let mut watch = Events::open(&node, "reflex=9", None);
    let mut tail = Events::of(&node, "/v2/tail", None);
    assert_eq!((watch.next().0, tail.next().0), ("begun".to_owned(), "begun".to_owned()));
    assert_eq!(post(&node, "", NDJSON, &lines(&[row("a", 2, 101.0)])).status, 202);
    let (name, _, data) = watch.next();
    assert_eq!((name.as_str(), &data["tick"]["id"]), ("firing", &json!("2")));
    let (name, _, data) = tail.next();
    assert_eq!((name.as_str(), &data["tick"]["id"], &data["market"]), ("entry", &json!("2"), &json!("a")));
}

#[test]
fn the_log_is_told_from_any_transaction_and_goes_on_behind_the_last_entry_that_was_seen() {
    let node = Setup::fresh().shards(2).start();
    let send = |rows: &[Value]| {
        let said = post(&node, "create_markets=true", NDJSON, &lines(rows));
        assert_eq!(said.status, 202, "{}", said.body);
    };
    let rows =
        |from: u64| -> Vec<_> { (from..from + 5).flat_map(|id| [row("a", id, 1.0), row("b", id, 2.0)]).collect() };
    (0..20).for_each(|n| send(&rows(1 + 5 * n)));
    let due = |from: u64, to: u64| -> Vec<(String, u64)> {
        ["a", "b"].into_iter().flat_map(|market| (from..to).map(move |id| (market.to_owned(), id))).collect()
    };
    let tick_of = |data: &Value| {
        (data["market"].as_str().unwrap().to_owned(), data["tick"]["id"].as_str().unwrap().parse::<u64>().unwrap())
    };
    // Cut after every seven events, in the middle of transactions: as a browser comes back.
    let path = "/v2/tail?since=0&attribute=tick/id";
    let (mut last, mut seen) = (None::<String>, Vec::new());
    while seen.len() < 200 {
        let mut events = Events::of(&node, path, last.as_deref());
        let (name, id, _) = events.next();
        assert_eq!(name, "begun");
        last = Some(id);
        for _ in 0..7.min(200 - seen.len()) {
            let (name, id, data) = events.next();
            assert_eq!((name.as_str(), &data["attribute"]), ("entry", &json!("tick/id")));
            seen.push(tick_of(&data));
            last = Some(id);
        }
    }
    let in_order = |market: &str| seen.iter().filter(|one| one.0 == market).map(|one| one.1).is_sorted();
    assert!(in_order("a") && in_order("b"), "{seen:?}");
    seen.sort();
    assert_eq!(seen, due(1, 101), "each once, none left out");
    // What comes now comes to who went on behind the last one.
    let mut events = Events::of(&node, path, last.as_deref());
    assert_eq!(events.next().0, "begun");
    send(&[row("a", 500, 3.0)]);
    assert_eq!(tick_of(&events.next().2), ("a".to_owned(), 500));
    // By market, and by the transaction itself.
    let mut of_b = Events::of(&node, "/v2/tail?since=0&market=b", None);
    assert_eq!(of_b.next().0, "begun");
    let (_, _, made) = of_b.next();
    assert_eq!((&made["attribute"], &made["market"]), (&json!("market/id"), &json!("b")));
    let (_, _, first) = of_b.next();
    let tx: u64 = first["tx"].as_str().unwrap().parse().unwrap();
    assert_eq!(tick_of(&first), ("b".to_owned(), 1));
    for (since, id) in [(tx - 1, 1), (tx, 6)] {
        let mut events = Events::of(&node, &format!("/v2/tail?since={since}&market=b&attribute=tick/id"), None);
        assert_eq!(events.next().0, "begun");
        assert_eq!(tick_of(&events.next().2), ("b".to_owned(), id), "{since}");
    }
    // Any attribute of a kind of rows means the rows, and one that nobody installed nothing.
    let mut of_price = Events::of(&node, "/v2/tail?since=0&attribute=tick/price&market=a", None);
    assert_eq!(of_price.next().0, "begun");
    assert_eq!(tick_of(&of_price.next().2), ("a".to_owned(), 1));
    for attribute in ["foo/bar", "", "tick/id,", "a%20b", "tick/colour"] {
        let (status, code) = get(&node, &format!("/v2/tail?attribute={attribute}")).code();
        assert_eq!((status, code.as_str()), (422, "unknown_attribute"), "{attribute}");
    }
    let told = get(&node, "/v2/tail?from=0");
    assert!(told.status == 400 && told.body.contains("say since=TX"), "{}", told.body);
    let (status, code) = get(&node, "/v2/tail?market=nowhere").code();
    assert_eq!((status, code.as_str()), (422, "unknown_market"));
    for query in ["since=1&from=1", "from=1", "since=x", "entity=x", "until=5"] {
        assert_eq!(get(&node, &format!("/v2/tail?{query}")).code().0, 400, "{query}");
    }
}

#[test]
fn facts_are_told_by_the_name_of_their_attribute() {
    let node = Setup::fresh().start();
    let transact = |text: &str| {
        let transaction = myelin_feed::facts::transaction(text.as_bytes()).unwrap();
        run(async { node.client().await.transact(&transaction).await.unwrap() });
    };
    transact(
        r#"[{"op":"assert","e":"?a","a":"db/ident","v":{"keyword":"desk/limit"}},
            {"op":"assert","e":"?a","a":"db/value-type","v":{"keyword":"i64"}}]"#,
    );
    transact(r#"[{"op":"assert","e":"?d","a":"desk/limit","v":{"i64":250}}]"#);
    let mut events = Events::of(&node, "/v2/tail?since=0&attribute=desk/limit,tick/id", None);
    assert_eq!(events.next().0, "begun");
    let (_, _, data) = events.next();
    assert_eq!(json!([data["attribute"], data["value"], data["added"]]), json!(["desk/limit", 250, true]));
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0)])).status, 202);
    assert_eq!(events.next().2["tick"]["id"], json!("1"), "rows beside them");
}

/// An answer to another question than the one that was asked is worse than none: it was given, with 200.
#[test]
fn a_parameter_that_a_question_has_no_use_for_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0)])).status, 202);
    let later = "from=2030-01-01T00:00:00Z";
    for (query, name) in [
        (format!("vwap=true&market=a&{later}"), "from"),
        (format!("attribute=tick/id&{later}"), "from"),
        (format!("market=a&{later}"), "from"),
        ("attribute=tick/id&since=5".to_owned(), "since"),
        ("vwap=true&history=true".to_owned(), "history"),
        ("market=a&partition=nope".to_owned(), "partition"),
        ("market=a&limit=5".to_owned(), "limit"),
        ("top=volume&market=a".to_owned(), "market"),
        ("bars=1m&market=a&kind=quote".to_owned(), "kind"),
        ("attribute=feed/gap&market=a&partition=nope".to_owned(), "partition"),
        ("attribute=market/id&market=a".to_owned(), "market"),
    ] {
        let said = get(&node, &format!("/v2/query/as_of/now?{query}"));
        assert_eq!(said.code(), (400, "bad_query".to_owned()), "{query}: {}", said.body);
        let told = said.json()["message"].as_str().unwrap().to_owned();
        assert!(told.starts_with(&format!("'{name}' has no use here")), "{query}: {told}");
    }
    for path in
        ["/healthz", "/readyz", "/metrics", "/v2/markets", "/v2/retention", "/v2/reflexes", "/v2/watch", "/v2/tail"]
    {
        let said = get(&node, &format!("{path}?colour=red"));
        assert_eq!(said.code(), (400, "bad_query".to_owned()), "{path}");
        assert!(said.body.contains("colour"), "{path}: {}", said.body);
    }
}

#[test]
fn rows_and_quotes_of_a_market_are_read_a_page_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    let none = |kind: &str| get(&node, &format!("/v2/query/as_of/now?market=a&kind={kind}")).code();
    assert_eq!(none("quote"), (422, "unknown_market".to_owned()));
    let rows: Vec<_> = (1..=25).map(|id| row("a", id, id as f64)).collect();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&rows)).status, 202);
    let newest = |tx: &str| get(&node, &format!("/v2/query/as_of/{tx}?market=a&kind=quote")).json();
    assert_eq!(newest("now")["quote"], Value::Null);
    let quote = |id: u64| {
        json!({ "market": "a", "id": id, "event_time_s": id, "received_time_ms": id * 1000 + 5, "bid": 1.5, "bid_volume": id,
                "ask": 2, "ask_volume": 1 })
    };
    let sent = |from: u64| post(&node, "", NDJSON, &lines(&(from..from + 5).map(quote).collect::<Vec<_>>()));
    let then = sent(1).json()["tx"].as_str().unwrap().to_owned();
    assert_eq!(counts(&sent(6)), (5, 0, 0));
    let due = json!({ "id": "5", "event_time": "1970-01-01T00:00:05Z", "received_time": "1970-01-01T00:00:05.005Z",
                      "bid": 1.5, "bid_volume": 5.0, "ask": 2.0, "ask_volume": 1.0, "source": null, "tx": then });
    assert_eq!(newest(&then)["quote"], due);
    assert_eq!(newest("now")["quote"]["id"], json!("10"));
    // Page by page as of one moment, whatever comes meanwhile.
    let page = |query: &str, tx: &str| get(&node, &format!("/v2/query/as_of/{tx}?rows=true&market=a&{query}")).json();
    let ids = |page: &Value| -> Vec<u64> {
        let id = |row: &Value| row["id"].as_str().unwrap().parse().unwrap();
        page["rows"].as_array().unwrap_or_else(|| panic!("{page}")).iter().map(id).collect()
    };
    let first = page("limit=10", "now");
    let tx = first["tx"].as_str().unwrap().to_owned();
    assert_eq!(counts(&post(&node, "", NDJSON, &lines(&[row("a", 26, 1.0)]))), (1, 0, 0));
    let second = page(&format!("limit=10&from_row={}", first["next"]), &tx);
    let third = page(&format!("limit=10&from_row={}", second["next"]), &tx);
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat(), (1..=25).collect::<Vec<_>>());
    assert_eq!((&third["next"], &third["rows"][4]["number"]), (&Value::Null, &json!(24)));
    assert_eq!(ids(&page(&format!("since={tx}"), "now")), [26]);
    assert_eq!(ids(&page("kind=quote&from=1970-01-01T00:00:04Z&to=1970-01-01T00:00:07Z", "now")), [4, 5, 6, 7]);
    // What is pruned is passed over, and the newest is still the newest.
    let (code, _) = node.myelin(&["retention", "set", "--market", "a", "--kind", "quote", "last", "3"]);
    assert_eq!(code, Some(0));
    wait_for("quotes to be dropped", || (ids(&page("kind=quote", "now")).len() < 6).then_some(()));
    assert_eq!(newest("now")["quote"]["id"], json!("10"));
    for query in ["limit=0", "limit=8193", "kind=bar", "from=5", "from_row=x"] {
        assert_eq!(get(&node, &format!("/v2/query/as_of/now?rows=true&market=a&{query}")).code().0, 400, "{query}");
    }
    assert_eq!(get(&node, "/v2/query/as_of/now?rows=true").code().0, 400, "of which market?");
    // A stretch that ends before it begins was answered with nothing.
    for query in ["rows=true&market=a", "bars=1m&market=a", "top=volume", "totals=true"] {
        let backwards = "from=2024-08-09T00:00:00Z&to=2024-08-08T00:00:00Z";
        let said = get(&node, &format!("/v2/query/as_of/now?{query}&{backwards}"));
        assert_eq!((said.code().0, said.body.contains("is later than")), (400, true), "{query}: {}", said.body);
    }
    for limit in [0, 4097] {
        let said = get(&node, &format!("/v2/query/as_of/now?top=count&limit={limit}"));
        assert_eq!((said.code().0, said.body.contains("limit is 1 to 4096")), (400, true), "{}", said.body);
    }
}

#[test]
fn standing_questions_are_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0)])).status, 202);
    assert_eq!(get(&node, "/v2/reflexes").json(), json!({ "reflexes": [], "next": null }));
    let mut stays = Events::open(&node, "spec=above%20100&scope=market:a&id=9", None);
    let mut guest = Events::open(&node, "spec=below%205", None);
    assert_eq!((stays.next().0, guest.next().0), ("begun".to_owned(), "begun".to_owned()));
    let listed = || get(&node, "/v2/reflexes").json()["reflexes"].as_array().cloned().unwrap();
    let (one, two) = (listed()[0].clone(), listed()[1].clone());
    assert_eq!(
        json!([one["id"], one["spec"], one["scope"], one["guest"]]),
        json!(["9", "above 100", "market:a", false])
    );
    assert_eq!(json!([two["spec"], two["scope"], two["guest"]]), json!(["below 5", "all", true]));
    let said = get(&node, "/v2/watch?spec=above%205&id=9");
    assert_eq!((said.code().1.as_str(), said.body.contains("another question already")), ("reflex_conflict", true));
    assert_eq!(get(&node, "/v2/reflexes?after=9").json()["reflexes"].as_array().unwrap().len(), 1);
    let remove = |id: &str| {
        let mut stream = open(&node);
        let head = format!("DELETE /v2/reflexes/{id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request is sent");
        hear(stream)
    };
    assert_eq!((remove("9").status, listed().len()), (200, 1));
    assert_eq!(remove("9").code(), (422, "unknown_reflex".to_owned()));
    assert_eq!(remove("x").code(), (400, "bad_query".to_owned()));
    assert_eq!(remove("%ff").code(), (400, "bad_query".to_owned()));
    assert_eq!(remove(two["id"].as_str().unwrap()).status, 200);
    assert_eq!(listed(), [] as [Value; 0]);
}

/// The refusal of other bytes under a known id says: mark a correction as one. Over HTTP there was no way to.
#[test]
fn a_correction_is_said_in_json_and_both_rows_stay_in_history() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let first = post(&node, "create_markets=true", NDJSON, &lines(&[row("a", 1, 1.0), row("a", 2, 2.0)])).json();
    let mut corrected = row("a", 1, 9.0);
    assert_eq!(post(&node, "", NDJSON, &lines(&[corrected.clone()])).code(), (409, "id_conflict".to_owned()));
    corrected["corrects"] = json!(true);
    for due in [(1, 0, 0), (0, 1, 0)] {
        let said = post(&node, "", JSON, json!({ "ticks": [corrected] }).to_string().as_bytes());
        assert_eq!((said.status, counts(&said)), (202, due), "{}", said.body);
    }
    let prices = |tx: &Value| -> Vec<f64> {
        let path = format!("/v2/query/as_of/{}?rows=true&market=a", tx.as_str().unwrap());
        get(&node, &path).json()["rows"].as_array().unwrap().iter().map(|row| row["price"].as_f64().unwrap()).collect()
    };
    assert_eq!((prices(&first["tx"]), prices(&json!("now"))), (vec![1.0, 2.0], vec![1.0, 2.0, 9.0]));
    let odd = |key: &str, value: Value| {
        let mut row = corrected.clone();
        row[key] = value;
        post(&node, "", NDJSON, &lines(&[row])).code()
    };
    assert_eq!(odd("corrects", json!(false)), (409, "id_conflict".to_owned()));
    assert_eq!(odd("id", Value::Null), (422, "correction_without_id".to_owned()));
    assert_eq!(odd("id", json!(77)), (422, "nothing_to_correct".to_owned()));
    assert_eq!(odd("corrects", json!("perhaps")), (400, "bad_body".to_owned()));
    assert_eq!(odd("volume", json!(true)), (400, "bad_body".to_owned()));
}

/// A figure of `/metrics`, summed over cores.
fn figure(page: &str, name: &str, label: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn every_stage_has_a_histogram_and_the_admin_port_shows_it_without_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-of-the-tests-4711\n").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut setup = Setup::new(&dir.path().join("data")).shards(2);
    setup.more.extend(["--auth-token-file".to_owned(), token.to_str().unwrap().to_owned()]);
    let mut node = setup.start();
    let listening = std::fs::read(dir.path().join("data/listening")).unwrap();
    let admin = serde_json::from_slice::<Value>(&listening).unwrap()["admin"].as_str().unwrap().parse().unwrap();
    assert_eq!(get(&node, "/metrics").status, 401, "the gateway wants the token");
    for (shown, status) in [
        ("Bearer a-token-of-the-tests-4711", 200),
        ("bearer a-token-of-the-tests-4711", 200),
        ("BEARER  a-token-of-the-tests-4711", 200),
        ("Bearer a-token-of-the-tests-4712", 401),
        ("Basic a-token-of-the-tests-4711", 401),
        ("a-token-of-the-tests-4711", 401),
    ] {
        let mut stream = open(&node);
        let head =
            format!("GET /v2/markets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {shown}");
        write!(stream, "{head}\r\n\r\n").expect("a request is sent");
        assert_eq!(hear(stream).status, status, "{shown}");
    }
    run(async {
        let options = myelin_client::Options { token: Some("a-token-of-the-tests-4711".into()), ..Default::default() };
        let client = myelin_client::Client::connect(&node.listen.to_string(), options).await.unwrap();
        let ids = crate::node::markets(&client, &["a", "b"]).await;
        let mut body = 9_u64.to_le_bytes().to_vec();
        body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0x59, 0x40, 3]);
        client.register(&body, 1).await.unwrap();
        let mut firings = client.subscribe(Some(9), &[]).await.unwrap();
        let mut log = client.tail(myelin_client::TailWanted::default()).await.unwrap();
        for id in 1..=20 {
            let rows = [tick(ids[0], id, 50.0 + 100.0 * (id % 2) as f64), tick(ids[1], id, 1.0)];
            crate::node::done(&client.ticks(&rows, myelin_client::Mode::Whole).await.unwrap());
        }
        crate::node::done(&client.ticks(&[tick(ids[0], 1, 150.0)], myelin_client::Mode::Whole).await.unwrap());
        client.ticks(&[tick(ids[0], 1, 9.0)], myelin_client::Mode::Whole).await.unwrap();
        let rows = [tick(ids[0], 1, 9.0), tick(ids[0], 2, f64::NAN), tick(ids[0], 1, 150.0)];
        client.ticks(&rows, myelin_client::Mode::Partial).await.unwrap();
        assert!(firings.next().await.unwrap().is_some() && log.next().await.unwrap().is_some());
        node.http = admin;
        let due = [
            ("myelin_rows_duplicate_total", "", 2.0),
            ("myelin_rows_refused_total", "code=\"id_conflict\"", 1.0),
            ("myelin_rows_refused_total", "code=\"price_not_finite\"", 1.0),
            ("myelin_tails", "", 2.0),
            ("myelin_refusals_total", "code=\"id_conflict\"", 1.0),
            ("myelin_refusals_total", "code=\"unauthorized\"", 0.0),
            ("myelin_subscriptions", "", 2.0),
            ("myelin_rows_accepted_total", "", 40.0),
        ];
        // Each core says its counts when it looks after its house.
        let page = wait_for("the counts of both cores", || {
            let said = get(&node, "/metrics");
            assert_eq!(said.status, 200);
            due.iter().all(|(name, label, count)| figure(&said.body, name, label) == *count).then_some(said.body)
        });
        for stage in ["decode", "route", "admit", "append", "sync", "wake", "apply", "react", "reply"] {
            let label = format!("stage=\"{stage}\"");
            let count = figure(&page, "myelin_stage_seconds_count", &label);
            assert!(count >= 1.0, "{stage}: {page}");
            assert!(figure(&page, "myelin_stage_seconds_sum", &label) < 60.0 * count, "{stage} is in seconds: {page}");
        }
        let until = |until: &str| {
            let label = format!("until=\"{until}\"");
            let of = |what: &str| figure(&page, &format!("myelin_since_received_seconds_{what}"), &label);
            of("sum") / of("count")
        };
        assert!(0.0 < until("durable") && until("durable") <= until("acked") && until("fired") > 0.0, "{page}");
        assert!(page.contains("code=\"busy\"} ") && figure(&page, "myelin_sessions", "") >= 1.0, "{page}");
        assert_eq!((get(&node, "/healthz").status, get(&node, "/readyz").status), (200, 200));
        assert_eq!(get(&node, "/v2/markets").code(), (404, "not_found".to_owned()), "nothing else stands there");
    });
    // It asks for no token, so it is not shown to other hosts unless that is said aloud.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_myelin"));
    let refused = command.args(["serve", "--admin", "0.0.0.0:0", "--data-dir"]).arg(dir.path().join("none")).output();
    let refused = refused.expect("the binary starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("--insecure"), "{said}");
}
