//! The recorded trades, through the command line that scripts depend on. Skipped, and saying so, where the data is absent.

use crate::node::Setup;
use serde_json::Value;
use std::path::PathBuf;

fn data(file: &str) -> Option<String> {
    let folder = std::env::var_os("MYELIN_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    let path = folder.join("binance-2024-08-08").join(file);
    if path.exists() {
        return Some(path.to_string_lossy().into_owned());
    }
    println!("skipped: {} is absent (MYELIN_DATA names the folder)", path.display());
    None
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

#[test]
fn the_recorded_trades_go_in_once_and_are_counted_as_of_any_moment() {
    let Some(trades) = data("trades.csv.gz") else { return };
    let setup = Setup::fresh();
    let mut node = setup.start();
    let ingest = ["ingest", &trades, "--format", "binance-trades", "--create-markets", "-o", "json"];
    let (code, said) = node.myelin(&ingest);
    let said = json(&said);
    assert_eq!(code, Some(0));
    assert_eq!((&said["accepted"], &said["duplicates"], &said["refused"]), (&55270.into(), &0.into(), &0.into()));
    let last_tx = said["last_tx"].as_str().expect("a tx is a string").to_owned();
    node.kill();
    let node = setup.start();
    let said = json(&node.myelin(&ingest).1);
    assert_eq!((&said["accepted"], &said["duplicates"]), (&0.into(), &55270.into()), "a second run stores nothing");
    assert_eq!(json(&node.myelin(&["count", "tick/id", "-o", "json"]).1)["count"], 55270);
    let as_of = ["count", "tick/id", "--as-of", &last_tx, "-o", "json"];
    assert_eq!(json(&node.myelin(&as_of).1)["count"], 55270);
}

#[test]
fn the_recorded_quotes_go_in_once() {
    let Some(quotes) = data("quotes.csv.gz") else { return };
    let node = Setup::fresh().start();
    let ingest = ["ingest", &quotes, "--format", "binance-quotes", "--create-markets", "-o", "json"];
    let said = json(&node.myelin(&ingest).1);
    assert_eq!((&said["accepted"], &said["duplicates"]), (&207_146.into(), &0.into()));
    assert_eq!(json(&node.myelin(&["count", "quote/id", "-o", "json"]).1)["count"], 207_146);
}
