//! What is kept of markets, over HTTP as at the command line.

use super::{JSON, NDJSON, Said, get, hear, lines, open, post, row};
use crate::node::{Setup, wait_for};
use serde_json::Value;
use std::io::Write as _;

#[test]
fn what_is_kept_is_said_and_asked_over_http_as_at_the_command_line() {
    let node = Setup::fresh().shards(2).start();
    let rows: Vec<_> = (1..=500).map(|id| row(["keep:a", "keep:b/c"][id as usize % 2], id, 1.5)).collect();
    assert_eq!(post(&node, "create_markets=true", NDJSON, &lines(&rows)).status, 202);
    let ask = |method: &str, path: &str, body: &str| {
        let mut stream = open(&node);
        let head = format!("{method} /v2/retention{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{JSON}");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("a request is sent");
        hear(stream)
    };
    let listed = |said: &Said| said.json()["retention"].as_array().cloned().expect(&said.body);
    let all = listed(&get(&node, "/v2/retention"));
    assert_eq!(all.len(), 2 + 2, "the policy of all, and the ticks of two markets: {all:?}");
    assert!(all[..2].iter().all(|line| line["market"] == "*" && line["policy"] == "all"), "{all:?}");
    // A name is a part of the path, whatever stands in it.
    let said = ask("PUT", "/keep%3Ab%2Fc?kind=tick", r#"{"policy":"last 100"}"#);
    assert_eq!(said.status, 200, "{}", said.body);
    assert_eq!(
        (listed(&said)[0]["policy"].as_str(), listed(&said)[0]["own"].as_bool()),
        (Some("last 100"), Some(true))
    );
    wait_for("rows to be dropped", || {
        let line = listed(&get(&node, "/v2/retention?market=keep%3Ab%2Fc"))[0].clone();
        (line["kept"] == 100 && line["dropped"] == 150).then_some(())
    });
    let (code, out) = node.myelin(&["retention", "list", "-o", "json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&out).unwrap()),
        (Some(0), get(&node, "/v2/retention").json()["retention"].clone())
    );
    assert_eq!(listed(&ask("PUT", "/*", r#"{"policy":"window 7d"}"#))[0]["policy"], "window 7d");
    let back = listed(&ask("DELETE", "/keep%3Ab%2Fc", ""));
    assert_eq!((back[0]["policy"].as_str(), back[0]["own"].as_bool()), (Some("window 7d"), Some(false)));
    for (method, path, body, due) in [
        ("PUT", "/keep:a", r#"{"policy":"some"}"#, (400, "bad_query")),
        ("PUT", "/keep:a", r#"{"policy":"default"}"#, (400, "bad_query")),
        ("PUT", "/keep:a", "all", (400, "bad_query")),
        ("PUT", "/keep:a?kind=bar", r#"{"policy":"all"}"#, (400, "bad_query")),
        ("PUT", "/keep:none", r#"{"policy":"all"}"#, (422, "unknown_market")),
        ("DELETE", "/*", "", (400, "bad_query")),
        ("DELETE", "/%ff", "", (400, "bad_query")),
        ("POST", "/keep:a", "", (405, "wrong_method")),
    ] {
        assert_eq!(ask(method, path, body).code(), (due.0, due.1.to_owned()), "{method} {path} {body}");
    }
    // So much of it as is read: an answer before bytes that nobody takes could be lost.
    let mut stream = open(&node);
    let head = format!("PUT /v2/retention/keep:a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{JSON}");
    write!(stream, "{head}\r\nContent-Length: 3000000\r\n\r\n").expect("a head is sent");
    stream.write_all(&[b' '; (2 << 20) + 1]).expect("a body is sent");
    assert_eq!(hear(stream).code(), (413, "oversize".to_owned()));
}
