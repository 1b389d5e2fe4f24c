//! How a node starts and stops: what it refuses to begin with, and how it ends when it is asked to.

use crate::node::{Setup, done, markets, run, tick, wait_for};
use myelin_client::Mode;
use myelin_wire::{Code, Header, Hello, Kind, write_frame};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Runs the binary; gives exit code, standard output, and what it said.
fn myelin(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_myelin")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn verify(dir: &Path) -> (Option<i32>, String, String) {
    myelin(&["verify", dir.to_str().unwrap(), "-o", "json"])
}

/// A directory of two shards on two cores, where there are two, that holds rows on both.
fn written(dir: &Path) -> Setup {
    let setup = Setup::new(dir).shards(2);
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["start:{A}", "start:{B}", "start:{C}", "start:{D}"]).await;
        let ticks: Vec<_> = (0..400).map(|n| tick(ids[n % 4], n as u64 / 4 + 1, 1.0)).collect();
        done(&client.ticks(&ticks, Mode::Whole).await.unwrap());
    });
    node.kill();
    setup
}

/// A folder of a core that did not come up, a mount for example, was made again empty: the node served without its half of
/// the facts, and `verify` called that sound.
#[test]
fn a_folder_or_hard_state_that_is_gone_is_damage_and_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let setup = written(dir.path());
    let last = if dir.path().join("core-0001").is_dir() { "core-0001" } else { "core-0000" };
    for gone in [last.to_owned(), format!("{last}/hard-state")] {
        let (from, aside) = (dir.path().join(&gone), dir.path().join("aside"));
        std::fs::rename(&from, &aside).unwrap();
        for _ in 0..2 {
            let (code, said) = setup.refuses_to_start();
            assert_eq!(code, Some(6), "{gone}: {said}");
            assert!(said.contains(&format!("{} is gone", from.display())), "{said}");
            assert!(!from.exists(), "{gone} was made again");
        }
        for verb in ["verify", "inspect"] {
            let (code, _, said) = myelin(&[verb, dir.path().to_str().unwrap()]);
            assert_eq!(code, Some(6), "{verb} {gone}: {said}");
            assert!(said.contains(&gone), "{said}");
        }
        std::fs::rename(&aside, &from).unwrap();
    }
    assert_eq!(verify(dir.path()).0, Some(0));
    drop(setup.start());
}

/// An identity that was lost was drawn again, and the cores were then refused for not being its own: by then it was written.
#[test]
fn cores_without_the_file_node_are_damage_and_nothing_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let setup = written(dir.path());
    std::fs::remove_file(dir.path().join("node")).unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("node is gone"), "{said}");
    assert!(!dir.path().join("node").exists() && !dir.path().join("node.new").exists(), "it was drawn again");
    assert_eq!(verify(dir.path()).0, Some(6));
}

/// What was out of range was a panic, or was served with, or was told under the log's name for it.
#[test]
fn what_was_said_and_will_not_do_is_a_usage_error_that_names_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    let data = dir.path().join("data");
    let mut setup = Setup::new(&data);
    setup.more = ["--config", file.to_str().unwrap()].map(str::to_owned).to_vec();
    for (text, said) in [
        ("[limits]\nsessions_per_shard = 0\n", "my.toml, line 2: `sessions_per_shard` takes 16 to 1048576, not 0"),
        ("[limits]\nmarkets_per_shard = 0\n", "`markets_per_shard` takes 1 to"),
        ("[limits]\n\nring_items = 1000000000000\n", "my.toml, line 3: `ring_items` takes 16 to"),
        ("[limits]\nbatch_buffers = 0\n", "`batch_buffers` takes 2 to"),
        ("[limits]\nfirings_at_hand = 7\n", "`firings_at_hand` takes 64 to"),
        ("[limits]\nunsealed_rows_max = 5000\n", "`unsealed_rows_max` takes at least seal_rows"),
        ("[serve]\nlistens = \"127.0.0.1:0\"\n", "did you mean `listen`?"),
        ("[serve]\ntls_cert = \"a.crt\"\n", "go together"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, told) = setup.refuses_to_start();
        assert_eq!(code, Some(2), "{text}: {told}");
        assert!(told.contains(said) && !told.contains("panicked"), "{text}: {told}");
        assert!(!data.exists(), "{text} left a directory behind");
    }
    let token = dir.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let data = data.to_str().unwrap();
    for (arguments, said) in [
        (vec!["--shards", "0"], "flag --shards: `shards` takes auto, or 1 to 64, not 0"),
        (vec!["--shards", "100"], "not 100"),
        (vec!["--shards", "foo"], "not foo"),
        (vec!["--listen", "0.0.0.0:0"], "flag --listen: 0.0.0.0:0 is reachable from other hosts"),
        (vec!["--auth-token-file", token.to_str().unwrap()], "can be read by others"),
        (vec!["--config", "/nowhere/my.toml"], "/nowhere/my.toml"),
    ] {
        let (code, _, told) = myelin(&[vec!["serve", "--data-dir", data], arguments.clone()].concat());
        assert_eq!(code, Some(2), "{arguments:?}: {told}");
        assert!(told.contains(said), "{arguments:?}: {told}");
    }
    let (code, _, told) = myelin(&["demo", "--file", "/nowhere/trades.csv"]);
    assert_eq!(code, Some(2), "{told}");
}

/// What a start of another directory would have taken was ignored without a word.
#[test]
fn what_a_directory_keeps_for_life_is_said_when_it_is_asked_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(dir.path());
    drop(setup.start());
    let file = dir.path().join("my.toml");
    std::fs::write(&file, "[limits]\nmarkets_per_shard = 5\n").unwrap();
    setup.more.extend(["--config", file.to_str().unwrap()].map(str::to_owned));
    let (mut node, log) = logged(&setup);
    stop(&mut node);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("my.toml, line 2: `markets_per_shard` = 5 changes nothing"), "{log}");
    assert!(log.contains("made with 100000"), "{log}");
    setup.shards = 2;
    setup.more.clear();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("made with 1 shards, not 2"), "{said}");
}

/// File, environment and flag, each over the one before, and `config explain` says which it was.
#[test]
fn a_node_is_told_where_to_listen_by_file_environment_or_flag() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("my.toml"), dir.path().join("data"));
    let text = "[serve]\nlisten = \"127.0.0.1:7999\"\nhttp = \"localhost:0\"\nshards = 1\nlean = true\n";
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.args(["serve", "--config", file.to_str().unwrap()]);
    command.env("MYELIN_SERVE__LISTEN", "localhost:0").env("MYELIN_SERVE__DATA_DIR", &data).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let listening = wait_for("the node to serve", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        serde_json::from_slice::<Value>(&std::fs::read(data.join("listening")).ok()?).ok()
    });
    stop(&mut child);
    assert!(!listening["listen"][0].as_str().unwrap().ends_with(":7999"), "{listening}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.args(["config", "explain", "listen", "--config", file.to_str().unwrap(), "-o", "json"]);
    for (variable, value, source) in [
        (None, "127.0.0.1:7999", format!("file {}, line 2", file.display())),
        (Some("localhost:1"), "localhost:1", "environment MYELIN_SERVE__LISTEN".to_owned()),
    ] {
        command.envs(variable.map(|value| ("MYELIN_SERVE__LISTEN", value)));
        let told: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        assert_eq!((told["value"].as_str(), told["source"].as_str()), (Some(value), Some(source.as_str())), "{told}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    let output = command.args(["config", "explain", "listen"]).env("MYELIN_LIMITS_SEAL_ROWS", "7000").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean `MYELIN_LIMITS__SEAL_ROWS`?"), "{said}");
}

/// Every verb that looks at things here has the forms of all the others.
#[test]
fn reports_come_as_json_ndjson_and_csv() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path()));
    let dir = dir.path().to_str().unwrap();
    for (verb, head) in [
        (vec!["verify", dir], "shard,applied_index,applied_tx"),
        (vec!["inspect", dir], "core,group,kind,records"),
        (vec!["doctor", "--dir", dir], "check,state,found,fix"),
        (vec!["config", "default"], "section,key,value,unit"),
        (vec!["config", "explain", "seal_rows"], "section,key,value,unit"),
    ] {
        let printed = |form: &str| myelin(&[verb.clone(), vec!["-o", form]].concat()).1;
        assert!(printed("csv").starts_with(head), "{verb:?}: {}", printed("csv"));
        assert!(printed("csv").lines().count() > 1, "{verb:?}");
        let objects = printed("ndjson");
        assert!(objects.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|one| one.is_object())));
        assert!(serde_json::from_str::<Value>(&printed("json")).is_ok(), "{verb:?}");
    }
}

/// SIGTERM killed at once, without a word, and `listening` went on naming ports on which nobody was.
#[test]
fn a_planned_stop_answers_what_is_under_way_marks_the_log_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let (mut child, log) = logged(&setup);
    let listening = std::fs::read(dir.path().join("listening")).unwrap();
    let listening: Value = serde_json::from_slice(&listening).unwrap();
    let address = listening["listen"][0].as_str().unwrap().parse().unwrap();
    let (mut sent, mut refused) = (0, None);
    run(async {
        let client = crate::node::hasty_client(address).await.unwrap();
        let ids = markets(&client, &["stop:A"]).await;
        // Sent before the signal, answered after it or before: either way it is stored.
        let mut waiting = Vec::new();
        for id in 1..=2_000 {
            waiting.push(client.send_ticks(&[tick(ids[0], id, 1.0)], Mode::Whole).await.unwrap());
        }
        signal(&child, "TERM");
        for one in waiting {
            for part in one.wait().await {
                match part.outcome {
                    myelin_client::Outcome::Done(ack) => sent += u64::from(ack.accepted),
                    myelin_client::Outcome::Refused(refusal) => refused = refused.or(refusal.code),
                    _ => {}
                }
            }
        }
    });
    let status = wait_for("the node to stop", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(matches!(refused, None | Some(Code::Stopping)), "{refused:?}");
    assert!(!dir.path().join("listening").exists(), "`listening` names ports that are closed");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("stopped: everything is answered") && log.contains("SIGTERM"), "{log}");
    let (code, report, said) = verify(dir.path());
    assert_eq!(code, Some(0), "{said}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(report["shards"][0]["ticks"].as_u64().unwrap() >= sent && sent > 0, "{report}");
}

/// Who asks and does not read holds a stop; meanwhile `/readyz` says so, and a second signal ends it.
#[test]
fn a_stop_that_waits_for_who_does_not_read_is_told_as_stopping_and_ends_at_a_second_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, log) = logged(&Setup::new(dir.path()));
    let listening: Value = serde_json::from_slice(&std::fs::read(dir.path().join("listening")).unwrap()).unwrap();
    let mut stream = TcpStream::connect(listening["listen"][0].as_str().unwrap()).unwrap();
    let mut frames = Vec::new();
    let mut hello = Vec::new();
    Hello { client: "deaf", capabilities: 0, credential_kind: 0, credential: "" }.write(&mut hello);
    write_frame(&mut frames, Header::new(Kind::Hello), &hello);
    stream.write_all(&frames).unwrap();
    let mut ping = Vec::new();
    write_frame(&mut ping, Header::new(Kind::Ping), &vec![0; 1 << 19]);
    // Until the node takes no more: its outbox is full, and both sockets are.
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while stream.write_all(&ping).is_ok() {}
    let readyz = || {
        let mut http = TcpStream::connect(listening["admin"].as_str().unwrap()).unwrap();
        http.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        http.read_to_string(&mut said).unwrap();
        said
    };
    assert!(readyz().starts_with("HTTP/1.1 200"));
    signal(&child, "TERM");
    let said = wait_for("the stop", || Some(readyz()).filter(|said| said.starts_with("HTTP/1.1 503")));
    assert!(said.contains("\"reasons\":[\"stopping\"]"), "{said}");
    assert!(child.try_wait().unwrap().is_none(), "it waits for the reader");
    signal(&child, "TERM");
    let status = wait_for("the node to stop", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("stopped with requests under way"), "{log}");
}

/// A demo that was stopped left its folder of 75 MB, and no word.
#[test]
fn a_demo_that_is_stopped_takes_its_folder_along_and_tells_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    command.args(["demo", "--ticks", "2000000", "--batch", "1", "--dir", dir.path().to_str().unwrap()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the demo's node", || {
        let entry = std::fs::read_dir(dir.path()).unwrap().next()?.unwrap();
        entry.path().join("core-0000/hard-state").exists().then_some(())
    });
    signal(&child, "INT");
    let output = child.wait_with_output();
    let output = output.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("durable") && told.contains("stopped     by SIGINT"), "{told}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it left its folder behind");
}

/// Nobody read what it said, and it went on: the demo and the node ended with a panic, and the demo's folder stayed.
#[test]
fn what_cannot_be_said_ends_no_node_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let demo = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.args(["demo", "--ticks", "2000", "--dir", dir.path().to_str().unwrap()]).stdin(Stdio::null());
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it left its folder behind");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = demo(Stdio::piped());
    assert_eq!((code, said.contains("panicked")), (Some(0), false), "{said}");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").map(Stdio::from);
    if let Ok(full) = full() {
        let (code, said) = demo(full);
        assert_eq!((code, said.contains("panicked")), (Some(7), false), "{said}");
    }
    for log in [Some(Stdio::piped()), full().ok()].into_iter().flatten() {
        let setup = Setup::new(dir.path());
        let _old = std::fs::remove_file(dir.path().join("listening"));
        let mut child = setup.command().env("MYELIN_LOG", "trace").stderr(log).spawn().unwrap();
        drop(child.stderr.take());
        let listening = wait_for("the node to serve", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            serde_json::from_slice::<Value>(&std::fs::read(dir.path().join("listening")).ok()?).ok()
        });
        run(async {
            let address = listening["listen"][0].as_str().unwrap().parse().unwrap();
            let client = crate::node::hasty_client(address).await.unwrap();
            assert_eq!(markets(&client, &["said:A"]).await.len(), 1);
        });
        stop(&mut child);
    }
}

/// The path was not said, or was said with the code of a host that is unfit.
#[test]
fn what_stands_in_the_way_of_a_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for data in [file.clone(), file.join("below")] {
        let (code, said) = Setup::new(&data).refuses_to_start();
        assert_eq!((code, said.contains(file.to_str().unwrap())), (Some(2), true), "{said}");
        let (code, told, _) = myelin(&["doctor", "--dir", data.to_str().unwrap()]);
        assert_eq!((code, told.contains(&format!("{} is no folder", file.display()))), (Some(7), true), "{told}");
    }
}

/// `verify` called both damage, and a start the host's fault.
#[test]
fn a_run_that_is_gone_and_folders_that_were_swapped_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let setup = written(dir.path());
    let folders = ["core-0000", "core-0001"].map(|core| dir.path().join(core));
    if folders[1].is_dir() {
        let swap = || {
            let aside = dir.path().join("aside");
            for (from, to) in [(&folders[0], &aside), (&folders[1], &folders[0]), (&aside, &folders[1])] {
                std::fs::rename(from, to).unwrap();
            }
        };
        swap();
        let (code, said) = setup.refuses_to_start();
        assert_eq!(code, Some(6), "{said}");
        assert!(folders.iter().any(|folder| said.contains(folder.to_str().unwrap())), "{said}");
        assert_eq!(verify(dir.path()).0, Some(6));
        swap();
    }
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["start:A"]).await;
        let ticks: Vec<_> = (1..=6_000).map(|id| tick(ids[0], id, 1.0)).collect();
        done(&client.ticks(&ticks, Mode::Whole).await.unwrap());
    });
    node.wait_for_checkpoints(1);
    node.kill();
    let runs: Vec<_> = std::fs::read_dir(dir.path().join("core-0000/runs")).unwrap().flatten().collect();
    assert!(!runs.is_empty());
    runs.iter().for_each(|run| std::fs::remove_file(run.path()).unwrap());
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("core-0000/runs/") && said.matches("os error").count() == 1, "{said}");
    assert_eq!(verify(dir.path()).0, Some(6));
}

/// A node whose log lies in the file given, at the level of what a person should see.
fn logged(setup: &Setup) -> (Child, std::path::PathBuf) {
    let log = setup.dir.join("node.log");
    let mut command = setup.command();
    command.env("MYELIN_LOG", "info").stderr(std::fs::File::create(&log).unwrap());
    let _old = std::fs::remove_file(setup.dir.join("listening"));
    let mut child = command.spawn().unwrap();
    wait_for("the node to serve", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", std::fs::read_to_string(&log).unwrap());
        setup.dir.join("listening").exists().then_some(())
    });
    (child, log)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "the signal was not sent");
}

fn stop(child: &mut Child) {
    signal(child, "TERM");
    let status = wait_for("the node to stop", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
