//! What is typed: rows whole and alike in every form, moments that can be asked for again, ends that leave nothing standing.

use crate::node::{Node, Setup, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

const TICKS: &str = "market,id,event_time,received_time,price,volume,side,trader,source,corrects
a,1,2024-08-08T00:00:00Z,2024-08-08T00:00:01Z,10,1,buy,7,3,
a,2,,2024-08-08T00:00:02Z,11,1,,,,
a,1,2024-08-08T00:00:00Z,2024-08-08T00:00:01Z,12,1,buy,7,3,true
";
const QUOTES: &str = "market,id,event_time,received_time,bid,bid_volume,ask,ask_volume
a,1,2024-08-08T00:00:00Z,2024-08-08T00:00:01Z,1,2,3,4
a,2,2024-08-08T00:00:03Z,,5,6,7,8
";

fn command(node: &Node, arguments: &[&str]) -> Command {
    verb(Command::new(env!("CARGO_BIN_EXE_myelin")), node, arguments)
}

fn verb(mut command: Command, node: &Node, arguments: &[&str]) -> Command {
    command.args(arguments).args(["--server", &node.listen.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A verb that hears signals, also where whoever runs these tests was told to ignore them (`nohup`, the background of a script).
fn hearing(node: &Node, arguments: &[&str]) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // SIGHUP is 1, SIGINT 2, SIGTERM 15.
    if ignored.unwrap_or(0) & (1 | 1 << 1 | 1 << 14) == 0 {
        return command(node, arguments);
    }
    let mut env = Command::new("env");
    env.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_myelin")]);
    verb(env, node, arguments)
}

/// Exit code, standard output and words of a verb that is given `input`.
fn given(node: &Node, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = command(node, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

fn one(node: &Node, arguments: &[&str]) -> Value {
    let (code, out, said) = given(node, &[arguments, &["-o", "json"]].concat(), "");
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    serde_json::from_str(&out).unwrap()
}

fn ingest(node: &Node, rows: &str) -> Value {
    let arguments = ["ingest", "-", "--format", "csv", "--create-markets", "-o", "json"];
    let (code, out, said) = given(node, &arguments, rows);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&out).unwrap()
}

/// `event_time` was the arrival where the source gave none, and the arrival stood nowhere else: a back-test that must not look
/// ahead could not be told from the command line.
#[test]
fn a_row_is_said_whole_and_what_nobody_said_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let last = ingest(&node, TICKS)["last_tx"].as_str().unwrap().to_owned();
    let rows = one(&node, &["query", "rows", "--market", "a"]);
    let due = json!({ "market": "a", "tx": last, "id": "1", "event_time": "2024-08-08T00:00:00Z",
        "received_time": "2024-08-08T00:00:01Z", "price": 12.0, "volume": 1.0, "side": "buy", "trader": "7",
        "source": "3", "corrects": true, "n": 2 });
    assert_eq!(rows[2], due, "a correction is another row, and says so");
    let silent = json!({ "market": "a", "tx": last, "id": "2", "event_time": null,
        "received_time": "2024-08-08T00:00:02Z", "price": 11.0, "volume": 1.0, "side": "unknown", "trader": null,
        "source": null, "corrects": false, "n": 1 });
    assert_eq!(rows[1], silent);
    assert_eq!(one(&node, &["query", "as-of", &last, "--market", "a"])[0], due);
    let (_, csv, _) = given(&node, &["query", "rows", "--market", "a", "-o", "csv"], "");
    let row = csv.lines().nth(2).unwrap();
    assert_eq!(row, format!("a,{last},2,,2024-08-08T00:00:02Z,11,1,unknown,,,false,1"), "{csv}");
    // The stream of the log says the same of a row.
    let tail = ["tail", "--since", "0", "--attribute", "tick/price", "--count", "3", "-o", "ndjson"];
    for (said, row) in lines(&given(&node, &tail, "").1).iter().zip(rows.as_array().unwrap()) {
        for (key, value) in row.as_object().unwrap() {
            assert_eq!(&said[key], value, "{key}: {said}");
        }
    }
    // And a firing says the tick, and when what happened to it.
    let watch = ["watch", "above", "10.5", "--market", "a", "--since", "0", "--count", "1", "-o", "ndjson"];
    let fired = &lines(&given(&node, &watch, "").1)[0];
    for key in ["price", "volume", "event_time", "received_time", "id", "side", "trader", "source", "tx", "n"] {
        assert_eq!(fired[key], silent[key], "{key}: {fired}");
    }
    assert!(fired["fired_ns"].is_null(), "what is derived from history has no timeline: {fired}");
}

#[test]
fn quotes_are_read_as_ticks_are() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let first = ingest(&node, &QUOTES.lines().take(2).fold(String::new(), |all, line| all + line + "\n"));
    let last = ingest(&node, QUOTES)["last_tx"].as_str().unwrap().to_owned();
    let rows = one(&node, &["query", "rows", "--market", "a", "--quotes"]);
    let due = json!({ "market": "a", "tx": last, "id": "2", "event_time": "2024-08-08T00:00:03Z", "received_time": null,
        "bid": 5.0, "bid_volume": 6.0, "ask": 7.0, "ask_volume": 8.0, "source": null });
    assert_eq!((rows.as_array().unwrap().len(), &rows[1]), (2, &due));
    assert_eq!(one(&node, &["query", "as-of", &last, "--market", "a", "--quotes"]), json!([due]));
    let first = first["last_tx"].as_str().unwrap();
    let then = one(&node, &["query", "as-of", first, "--market", "a", "--quotes"]);
    assert_eq!(then, json!([rows[0]]), "and as of then the one of then");
    assert_eq!(given(&node, &["query", "as-of", &last, "--market", "a"], "").0, Some(1), "it has no tick");
    // What is pruned away under it leaves the newest: its number is no longer the count.
    let more: String = (3..3000).map(|id| format!("a,{id},2024-08-08T00:00:04Z,,1,1,2,1\n")).collect();
    let head = QUOTES.lines().next().unwrap();
    let last = ingest(&node, &format!("{head}\n{more}"))["last_tx"].as_str().unwrap().to_owned();
    assert_eq!(given(&node, &["retention", "set", "--market", "a", "latest"], "").0, Some(0));
    wait_for("quotes to be dropped", || {
        let kept = one(&node, &["retention", "list"]);
        kept.as_array()?.iter().find(|line| line["kind"] == "quote" && line["dropped"].as_u64() > Some(0)).cloned()
    });
    let now = one(&node, &["totals"])["tx"].as_str().unwrap().to_owned();
    let newest = one(&node, &["query", "as-of", &now, "--market", "a", "--quotes"]);
    assert_eq!((&newest[0]["id"], &newest[0]["tx"]), (&json!("2999"), &json!(last)));
}

/// `count --as-of "$TX"` with TX unset-and-zero told the present, and nobody noticed.
#[test]
fn an_answer_says_its_moment_and_no_moment_is_zero() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    ingest(&node, TICKS);
    let told = [
        one(&node, &["totals"]),
        one(&node, &["vwap"])[0].clone(),
        one(&node, &["top"])[0].clone(),
        one(&node, &["bars", "--market", "a"])[0].clone(),
    ];
    ingest(&node, "market,id,event_time,price,volume\na,9,2024-08-08T00:00:09Z,99,9\n");
    let verbs: [&[&str]; 4] = [&["totals"], &["vwap"], &["top"], &["bars", "--market", "a"]];
    for (verb, was) in verbs.into_iter().zip(told) {
        let tx = was["tx"].as_str().expect("a moment");
        let again = one(&node, &[verb, &["--as-of", tx]].concat());
        assert_eq!(if again.is_array() { &again[0] } else { &again }, &was, "{verb:?}");
        assert_eq!(given(&node, &[verb, &["--as-of", "0"]].concat(), "").0, Some(2), "{verb:?}");
    }
    let (_, out, _) = given(&node, &["count", "tick/id", "-o", "json"], "");
    assert_eq!((out.trim(), given(&node, &["count", "tick/id", "--as-of", "0"], "").0), ("{\"count\":4}", Some(2)));
    for verb in [&["query", "as-of", "0", "--market", "a"][..], &["entity", ":a", "--as-of", "0"]] {
        assert_eq!(given(&node, verb, "").0, Some(2), "{verb:?}");
    }
    for verb in [&["bars", "--market", "a"][..], &["top"], &["query", "rows", "--market", "a"]] {
        let backwards = ["--from", "2024-08-09T00:00:00Z", "--to", "2024-08-08T00:00:00Z"];
        assert_eq!(given(&node, &[verb, &backwards].concat(), "").0, Some(2), "{verb:?}");
    }
}

/// A signal as `kill` sends it.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn standing(node: &Node) -> usize {
    one(node, &["reflex", "list"]).as_array().unwrap().len()
}

fn ended(child: &mut Child) -> Option<i32> {
    wait_for("the verb to end", || child.try_wait().unwrap()).code()
}

/// What is watched without `--id` is nobody's when its watcher is gone, and fired for ever.
#[test]
fn watch_takes_its_question_back_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    ingest(&node, TICKS);
    for how in ["INT", "TERM", "HUP", "reader"] {
        let mut child = hearing(&node, &["watch", "above", "1000", "--market", "a"]).spawn().unwrap();
        wait_for("the question to stand", || (standing(&node) == 1).then_some(()));
        match how {
            "reader" => drop(child.stdout.take()),
            name => signal(&child, name),
        }
        assert_eq!(ended(&mut child), Some(0), "{how}");
        assert_eq!(standing(&node), 0, "{how}");
    }
    // A tail ends likewise.
    let mut child = command(&node, &["tail"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(ended(&mut child), Some(0));
}

/// Listening to SIGHUP undid `nohup`: an ingest of hours ended with its terminal.
#[test]
fn what_nohup_began_outlives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    ingest(&node, TICKS);
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_myelin"));
    let mut child = verb(nohup, &node, &["tail", "--since", "0", "--count", "5", "-o", "ndjson"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    signal(&child, "HUP");
    ingest(&node, "market,id,event_time,price,volume\na,77,2024-08-08T00:00:09Z,99,9\n");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((ended(&mut child), rest.lines().count()), (Some(0), 4), "{line}{rest}");
    assert!(rest.contains("\"77\""), "{rest}");
}

#[test]
fn ingest_says_what_it_stored_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let arguments = ["ingest", "-", "--format", "csv", "--create-markets", "-o", "json"];
    let (code, out, said) = given(&node, &arguments, &format!("{TICKS}a,3,then,,1,1,,,,\n"));
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("no summary: {out} {said}"));
    assert_eq!((code, &told["accepted"]), (Some(2), &json!(3)), "{said}");
    assert!(said.contains("line 5"), "{said}");
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut child = hearing(&node, &[&arguments[..], &["--batch", "1", "--speed", "1x"]].concat()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The second row is due in a day.
        let row = |id: u32, day: u32| format!("b,{id},2024-08-{day:02}T00:00:00Z,1,1\n");
        let rows = [row(code, 1), row(code + 1000, 2)].concat();
        stdin.write_all(format!("market,id,received_time,price,volume\n{rows}").as_bytes()).unwrap();
        drop(stdin);
        let stored = || {
            let rows = one(&node, &["query", "rows", "--market", "b"]);
            rows.as_array()?.iter().find(|row| row["id"] == json!(code.to_string())).cloned()
        };
        wait_for("the market", || (given(&node, &["query", "rows", "--market", "b"], "").0 == Some(0)).then_some(()));
        let first = wait_for("the first row", stored);
        signal(&child, name);
        assert_eq!(ended(&mut child), Some(code as i32), "{name}");
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&told["accepted"], &told["last_tx"]), (&json!(1), &first["tx"]), "{name}");
    }
}

/// A correction that came again was stored again, and one that had been corrected since was the newest once more.
#[test]
fn a_file_with_its_corrections_can_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(dir.path());
    setup.more = ["--lean", "--no-pin", "--seal-rows", "150"].map(str::to_owned).to_vec();
    let mut node = setup.start();
    let row = |price: u32, corrects: &str| format!("a,1,2024-08-08T00:00:00Z,{price},1,buy,{corrects}\n");
    let others: String = (2..200).map(|id| format!("a,{id},2024-08-08T00:00:01Z,5,1,sell,\n")).collect();
    let file = ["market,id,event_time,price,volume,side,corrects\n", &row(10, ""), &row(11, "true"), &row(12, "true")]
        .concat();
    assert_eq!(ingest(&node, &(file.clone() + &others))["accepted"], 201);
    let newest = |node: &Node| one(node, &["query", "rows", "--market", "a", "--limit", "1000"]);
    let was = newest(&node);
    for killed in [false, true] {
        if killed {
            node.wait_for_checkpoints(1);
            node.kill();
            node = setup.start();
        }
        // In one request, and one by one.
        for batch in ["1000", "1"] {
            let again = ["ingest", "-", "--format", "csv", "--batch", batch, "-o", "json"];
            let (code, out, said) = given(&node, &again, &(file.clone() + &others));
            let told: Value = serde_json::from_str(&out).unwrap();
            assert_eq!((code, &told["accepted"], &told["duplicates"]), (Some(0), &json!(0), &json!(201)), "{said}");
        }
        assert_eq!(newest(&node), was);
    }
}

/// What can never come was waited for in silence.
#[test]
fn what_can_never_come_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    ingest(&node, TICKS);
    for (arguments, code, why) in [
        (&["tail", "--attribute", "foo/bar"][..], 2, "foo/bar"),
        (&["tail", "--attribute", "foo bar"], 2, "foo bar"),
        (&["tail", "--since", "2100-01-01T00:00:00Z"], 1, "future"),
        (&["watch", "spread", "a", "nowhere", "5"], 1, "nowhere"),
        (&["watch", "spread", "nobody", "over", "a", "5"], 1, "nobody"),
        (&["datoms", "--attribute", "foo/bar"], 2, "foo/bar"),
        (&["count", "foo/bar"], 2, "foo/bar"),
        (&["count", "tick/id", "--partition", "main"], 2, "--partition"),
        (&["watch", "above", "5", "--id", "0"], 2, "id is 0"),
        (&["market", "add", "*"], 2, "name"),
        (&["entity", r#"["foo/bar",1]"#], 2, "foo/bar"),
        (&["entity", r#"["db/ident","desk/btc"]"#], 2, r#"{"keyword":"#),
    ] {
        let (ended, _, said) = given(&node, arguments, "");
        assert_eq!((ended, said.contains(why)), (Some(code), true), "{arguments:?}: {said}");
    }
    let (code, _, said) = given(&node, &["transact", "-"], r#"[{"op":"assert","e":"?x","a":"foo/bar","v":1}]"#);
    assert_eq!((code, said.contains("'foo/bar'")), (Some(2), true), "{said}");
    for verb in ["transact", "ingest"] {
        let (code, _, said) = given(&node, &[verb, dir.path().to_str().unwrap()], "");
        assert_eq!((code, said.contains(dir.path().to_str().unwrap())), (Some(2), true), "{verb}: {said}");
    }
    assert_eq!(standing(&node), 0);
    // What stands in the log is given for any of its attributes, and from a time on.
    let all = ["tail", "--since", "2020-01-01T00:00:00Z", "--count", "3", "-o", "csv"];
    for attribute in ["tick/price", "tick/id"] {
        let (_, out, _) = given(&node, &[&all[..], &["--attribute", attribute]].concat(), "");
        assert_eq!(out.lines().count(), 4, "{out}");
    }
}

#[test]
fn who_is_there_already_is_told_from_who_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let add = |names: &[&str]| {
        let (code, out, said) = given(&node, &[&["market", "add", "-o", "json"], names].concat(), "");
        let told: Value = serde_json::from_str(&out).unwrap();
        let new: Vec<bool> = told.as_array().unwrap().iter().map(|line| line["new"].as_bool().unwrap()).collect();
        (code, new, said)
    };
    assert_eq!(add(&["a", "d", "--dense"]), (Some(0), vec![true, true], String::new()));
    assert_eq!(add(&["b"]), (Some(0), vec![true], String::new()));
    assert_eq!(add(&["d", "--dense"]), (Some(0), vec![false], String::new()));
    assert_eq!(add(&["d"]).0, Some(0));
    let (code, new, said) = add(&["b", "c", "--dense"]);
    assert_eq!((code, new), (Some(5), vec![false, true]));
    assert!(said.contains("b exists and is not dense"), "{said}");
    // A reflex's id is one question's.
    let watch = |price: &str| ["watch", "above", price, "--id", "7", "--count", "1"].map(str::to_owned);
    let mut first = command(&node, &watch("5").each_ref().map(String::as_str)).spawn().unwrap();
    wait_for("the question to stand", || (standing(&node) == 1).then_some(()));
    let (code, _, said) = given(&node, &watch("6").each_ref().map(String::as_str), "");
    assert_eq!((code, said.contains("another question")), (Some(5), true), "{said}");
    signal(&first, "TERM");
    assert_eq!(ended(&mut first), Some(0));
    assert_eq!(standing(&node), 1, "and the one with an id stays");
    let (code, out, _) = given(&node, &["reflex", "remove", "7", "8", "-o", "ndjson"], "");
    let due = [json!({ "id": "7", "removed": true }), json!({ "id": "8", "removed": false })];
    assert_eq!((code, lines(&out)), (Some(1), due.to_vec()));
}

/// A gap's firing has no tick: it had a price of 0 at the beginning of 1970.
#[test]
fn a_gap_that_fires_has_no_price_and_no_time_and_facts_can_be_told_from_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    assert_eq!(given(&node, &["market", "add", "g", "--dense"], "").0, Some(0));
    let mut child = command(&node, &["watch", "gap", "--market", "g", "--count", "1", "-o", "json"]).spawn().unwrap();
    wait_for("the question to stand", || (standing(&node) == 1).then_some(()));
    ingest(&node, "market,id,event_time,price,volume\ng,1,2024-08-08T00:00:00Z,1,1\ng,4,2024-08-08T00:00:01Z,1,1\n");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(ended(&mut child), Some(0));
    let fired: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&fired["value"], &fired["basis"]), (&json!("2"), &json!("3")), "{fired}");
    for key in ["price", "volume", "event_time", "received_time", "id", "side", "trader", "source"] {
        assert!(fired[key].is_null(), "{key}: {fired}");
    }
    let moments = ["received_ns", "durable_ns", "committed_ns", "fired_ns", "sent_ns"]
        .map(|key| fired[key].as_str().unwrap().parse::<i64>().unwrap());
    assert!(moments.is_sorted(), "{fired}");
    // What a shard is born with is left out, what was said is not.
    let all = one(&node, &["datoms"]);
    let said: Vec<_> = all.as_array().unwrap().iter().filter(|datom| datom["tx"] != "0").collect();
    assert!(!said.is_empty() && said.len() < all.as_array().unwrap().len());
    assert_eq!(one(&node, &["datoms", "--own"]), json!(said));
    let kept = one(&node, &["retention", "list"]);
    assert!(kept[0]["horizon"].is_null(), "{kept}");
}

/// `completions bash | head` ended with a panic.
#[test]
fn nobody_who_reads_to_the_end_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    ingest(&node, TICKS);
    let alone: [&[&str]; 5] = [&["completions", "bash"], &["man"], &["man", "watch"], &["explain"], &["help"]];
    let asked: [&[&str]; 6] = [
        &["count", "tick/id"],
        &["query", "rows", "--market", "a"],
        &["datoms"],
        &["status"],
        &["market", "list"],
        &["retention", "list"],
    ];
    for verb in alone.into_iter().chain(asked) {
        let mut command = if alone.contains(&verb) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
            command.args(verb).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        } else {
            command(&node, verb)
        };
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(ended(&mut child), Some(0), "{verb:?}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{verb:?}");
    }
}
