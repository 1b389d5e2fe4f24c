//! A directory at rest: looked at without being touched, checked to the last byte, compared by one hash.

use crate::node::{Setup, done, markets, newest_segment, run, tick, wait_for, wait_for_watermark};
use myelin_client::Mode;
use myelin_datom::Tick;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a verb; gives exit code, the JSON it printed, and what it said.
fn myelin(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    let output = command.args(arguments).args(["-o", "json"]).stdin(Stdio::null()).output().expect("the binary starts");
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), value, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn look(verb: &str, dir: &Path) -> (Option<i32>, Value, String) {
    myelin(&[verb, dir.to_str().expect("a path of letters")])
}

/// Every file below a folder with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder is listed") {
        let path = entry.expect("an entry is read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("a file is read"));
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).expect("a file is below its folder"));
        std::fs::create_dir_all(target.parent().expect("a file has a folder")).expect("a folder is made");
        std::fs::write(target, bytes).expect("a file is written");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file is read");
    bytes[at] ^= 4;
    std::fs::write(path, bytes).expect("a file is written");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder is listed");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry is read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const ROWS: u64 = 30_000;

/// A directory that a node wrote until it was killed: sealed runs, a checkpoint or two, and a tail behind them.
fn written(dir: &Path, shards: u16) {
    let setup = Setup::new(dir).shards(shards);
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["rest:{A}", "rest:{B}", "rest:{C}", "rest:{D}"]).await;
        let ticks: Vec<Tick> =
            (0..ROWS).map(|n| tick(ids[(n % 4) as usize], n / 4 + 1, (n % 97) as f64 + 1.0)).collect();
        for (n, frame) in ticks.chunks(500).enumerate() {
            done(&client.ticks(frame, Mode::Whole).await.expect("a frame is answered"));
            // The first rows are sealed before the last ones come, so that there are two checkpoints and a tail.
            let wanted = if n == 30 { 1 } else { 2 * usize::from(n == 55) };
            wait_for("checkpoints", || {
                let there = names(&dir.join("core-0000"));
                (there.iter().filter(|name| name.starts_with("manifest-0")).count() >= wanted).then_some(())
            });
        }
    });
    wait_for_watermark(dir, 1 << 20);
    node.kill();
}

#[test]
fn inspect_and_verify_read_what_a_killed_node_left_and_change_nothing() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(dir.path(), 1);
    copy(dir.path(), other.path());
    let before = files(dir.path());
    let (code, report, said) = myelin(&["inspect", dir.path().to_str().unwrap(), "--records", "3", "--core", "0"]);
    assert_eq!(code, Some(0), "{said}");
    let core = &report["cores"][0];
    let sealed: u64 = core["runs"].as_array().unwrap().iter().map(|run| run["rows"].as_u64().unwrap()).sum();
    assert!(sealed > 0 && core["log"]["tick_rows"].as_u64().unwrap() > 0, "{report}");
    assert!(core["log"]["log_bytes_per_tick"].as_f64().unwrap() < 72.0, "{}", core["log"]);
    assert!(core["groups"][0]["last_tx"].is_string() && report["node"].is_string(), "{report}");
    let records = core["records"].as_array().unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[2]["proposals"][0]["count"], 500, "{}", records[2]);
    assert_eq!(core["groups"][0]["last_index"], records[2]["index"]);
    let (code, first, said) = look("verify", dir.path());
    assert_eq!((code, &first["sound"]), (Some(0), &Value::Bool(true)), "{said} {first}");
    assert_eq!(first["shards"][0]["ticks"], ROWS);
    assert_eq!(first["shards"][0]["markets"], 4);
    assert_eq!(first["checked"]["runs"].as_u64().unwrap(), core["runs"].as_array().unwrap().len() as u64);
    assert!(files(dir.path()) == before, "a look changed the directory");
    let (_, second, _) = look("verify", other.path());
    assert_eq!(first["state_hash"], second["state_hash"]);
    assert!(first["state_hash"].is_string());
}

#[test]
fn the_state_hash_tells_apart_what_differs_and_is_that_of_every_shard() {
    let (dir, less) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(dir.path(), 2);
    let (code, report, said) = look("verify", dir.path());
    assert_eq!(code, Some(0), "{said}");
    let shards = report["shards"].as_array().unwrap();
    let ticks: u64 = shards.iter().map(|shard| shard["ticks"].as_u64().unwrap()).sum();
    assert_eq!((shards.len(), ticks), (2, ROWS));
    assert_ne!(shards[0]["state_hash"], shards[1]["state_hash"]);
    written(less.path(), 2);
    assert_ne!(look("verify", less.path()).1["state_hash"], report["state_hash"], "another node, other transactions");
}

#[test]
fn verify_finds_a_flipped_bit_wherever_it_is_and_names_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 1);
    let core = dir.path().join("core-0000");
    let run = names(&core.join("runs")).into_iter().find(|name| name.ends_with(".ticks")).unwrap();
    let manifests: Vec<_> = names(&core).into_iter().filter(|name| name.starts_with("manifest-")).collect();
    let (_, report, _) = look("inspect", dir.path());
    let used = report["cores"][0]["segments"].as_array().unwrap().iter().rfind(|one| one["state"] == "used").unwrap();
    let segment = used["file"].as_str().unwrap();
    let sound = look("verify", dir.path()).1["state_hash"].clone();
    assert!(manifests.len() >= 2 && sound.is_string());
    // A checkpoint that is damaged has another one before it: the log's longer tail comes to the same state.
    let places = [
        (format!("core-0000/runs/{run}"), 1000, &Value::Null),
        (format!("core-0000/{segment}"), 4096 + 100, &Value::Null),
        (format!("core-0000/{}", manifests.last().unwrap()), 60, &sound),
        (format!("core-0000/{}", manifests[0]), 9, &sound),
    ];
    for (file, at, hash) in places {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        flip(&copied.path().join(&file), at);
        let (code, report, said) = look("verify", copied.path());
        assert_eq!(code, Some(6), "{file}: {said} {report}");
        assert_eq!(&report["state_hash"], hash, "{file}: {report}");
        let damage = &report["damage"][0];
        assert_eq!(
            (damage["file"].as_str(), report["sound"].as_bool()),
            (Some(file.as_str()), Some(false)),
            "{report}"
        );
        assert!(damage["offset"].is_u64() && said.contains(&file), "{said}");
    }
    // A run, the newest segment and the hard state: what is gone as a whole is damage, too.
    let newest = newest_segment(dir.path()).0.file_name().unwrap().to_string_lossy().into_owned();
    for gone in [format!("core-0000/runs/{run}"), format!("core-0000/{newest}"), "core-0000/hard-state".to_owned()] {
        let copied = tempfile::tempdir().unwrap();
        copy(dir.path(), copied.path());
        std::fs::remove_file(copied.path().join(&gone)).unwrap();
        let (code, report, said) = look("verify", copied.path());
        assert_eq!(code, Some(6), "{gone}: {said} {report}");
    }
}

/// A hard state is stored twice, so that one bad sector costs nothing.
#[test]
fn one_damaged_copy_of_the_hard_state_is_a_note_and_both_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(Setup::new(dir.path()).start());
    let file = dir.path().join("core-0000/hard-state");
    let whole = std::fs::read(&file).unwrap();
    flip(&file, 4096 + 20);
    let flipped = std::fs::read(&file).unwrap();
    let (code, report, said) = look("verify", dir.path());
    assert_eq!((code, report["notes"].as_array().map(Vec::len)), (Some(0), Some(1)), "{said} {report}");
    assert!(std::fs::read(&file).unwrap() == flipped && flipped != whole, "verify mended the hard state");
    flip(&file, 20);
    let (code, report, said) = look("verify", dir.path());
    assert_eq!((code, report["damage"][0]["file"].as_str()), (Some(6), Some("core-0000/hard-state")), "{said}");
}

#[test]
fn a_node_that_is_alive_is_not_looked_at_and_a_folder_that_is_none_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Setup::new(dir.path()).start();
    for verb in ["inspect", "verify"] {
        let (code, _, said) = look(verb, dir.path());
        assert_eq!(code, Some(7), "{said}");
        assert!(said.contains("stop it first"), "{said}");
        let (code, _, said) = look(verb, &dir.path().join("core-0000"));
        assert_eq!(code, Some(2), "{said}");
    }
    node.kill();
    let (code, report, said) = wait_for("the lock to go with its holder", || {
        Some(look("verify", dir.path())).filter(|(code, ..)| *code != Some(7))
    });
    assert_eq!((code, report["shards"][0]["ticks"].as_u64()), (Some(0), Some(0)), "{said}");
}

#[test]
fn doctor_says_of_every_check_how_it_is_and_how_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (code, report, said) = myelin(&["doctor", "--dir", dir.path().to_str().unwrap()]);
    let fit = report["fit"].as_bool().unwrap_or_else(|| panic!("{said}"));
    assert_eq!(code, Some(if fit { 0 } else { 7 }), "{said}");
    let checks = report["checks"].as_array().unwrap();
    let found: Vec<_> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    let expected = "kernel io_uring memlock open_files clock_source clock cpus scheduling huge_pages port_7400 \
                    port_7480 port_7490 file_system room direct_io sync_4k";
    assert_eq!(found, expected.split_whitespace().collect::<Vec<_>>());
    for check in checks {
        let state = check["state"].as_str().unwrap();
        assert!(["ok", "warn", "bad"].contains(&state) && check["found"].is_string(), "{check}");
        assert_eq!(state == "ok", check["fix"].is_null(), "{check}");
    }
    assert!(names(dir.path()).is_empty(), "doctor left something behind");
}

#[test]
fn the_file_of_defaults_starts_a_node_and_an_unknown_key_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_myelin")).args(["config", "default"]).output().unwrap();
    let file = dir.path().join("myelin.toml");
    let file_text = String::from_utf8(output.stdout).unwrap();
    assert!(file_text.contains("\n# Unit: bytes") || file_text.contains("Unit: bytes"), "{file_text}");
    std::fs::write(&file, &file_text).unwrap();
    let mut setup = Setup::new(&dir.path().join("data"));
    std::fs::create_dir(&setup.dir).unwrap();
    setup.more = ["--no-pin", "--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
    drop(setup.start());
    std::fs::write(&file, "[limits]\nseal_row = 7\n").unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("did you mean `seal_rows`?"), "{said}");
    let explain = |key: &str| myelin(&["config", "explain", key]);
    let (code, told, _) = explain("seal_rows");
    assert_eq!((code, &told["value"], &told["source"]), (Some(0), &Value::from(1_000_000), &Value::from("default")));
    assert_eq!(explain("seal_row").0, Some(2));
}
