//! What no policy keeps goes, for good and by name: exact above the horizon, refused below, and its room given back.

use crate::node::{Node, Setup, done, markets, report, run, tick, trials, wait_for};
use myelin_client::{At, Client, Error, Mode, News, Outcome, Stretch};
use myelin_datom::{EntityId, Tick, Tx};
use myelin_wire::{Attribute, Code, Keep, MarketFlags, MarketSpec, PolicyRow, RetainRow};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const BOTH: u8 = RetainRow::TICKS | RetainRow::QUOTES;

/// Ticks of these ids, whose prices say their ids.
fn rows(market: EntityId, ids: std::ops::Range<u64>) -> Vec<Tick> {
    ids.map(|id| tick(market, id, id as f64)).collect()
}

async fn send(client: &Client, rows: &[Tick]) {
    for frame in rows.chunks(500) {
        done(&client.ticks(frame, Mode::Whole).await.unwrap());
    }
}

/// The policy of a market's ticks, and what it has come to.
async fn ticks_of(client: &Client, market: EntityId) -> PolicyRow {
    let policies = client.policies().await.unwrap();
    *policies.iter().find(|row| row.market == market.bits() && row.kind == 1).unwrap()
}

/// Waits until so many ticks of a market are there.
async fn wait_for_kept(client: &Client, market: EntityId, kept: u64) -> PolicyRow {
    let until = Instant::now() + crate::node::PATIENCE;
    loop {
        let row = ticks_of(client, market).await;
        if row.kept == kept {
            return row;
        }
        assert!(Instant::now() < until, "waited for {kept} rows to stay: {row:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The code and the number of the refusal that an answer must be.
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (Code, u64) {
    match answer {
        Err(Error::Refused(refusal)) => (refusal.code.unwrap(), refusal.aux),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn run_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("core-0000/runs")).unwrap().flatten();
    // A file that is removed while we look has no length any more.
    entries.map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
}

fn segments(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("core-0000")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("segment-")).count()
}

#[test]
fn policies_and_what_they_dropped_survive_a_kill() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (ids, before) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &["keep:all", "keep:last", "keep:latest", "keep:window"]).await;
        for id in &ids {
            send(&client, &rows(*id, 1..1001)).await;
        }
        // The exceptions first: what has gone stays gone.
        assert_eq!(client.retain(Some(ids[0]), BOTH, Some(Keep::All)).await.unwrap(), 1);
        assert_eq!(client.retain(Some(ids[2]), RetainRow::TICKS, Some(Keep::Latest)).await.unwrap(), 1);
        assert_eq!(client.retain(Some(ids[3]), BOTH, Some(Keep::Window(1 << 50))).await.unwrap(), 1);
        assert_eq!(client.retain(Some(ids[3]), BOTH, Some(Keep::Window(1 << 50))).await.unwrap(), 0, "it is known");
        assert_eq!(client.retain(None, BOTH, Some(Keep::Last(300))).await.unwrap(), 1);
        for (id, kept) in ids.iter().zip([1000, 300, 1, 1000]) {
            let row = wait_for_kept(&client, *id, kept).await;
            assert_eq!((row.kept + row.dropped, row.horizon == 0), (1000, kept == 1000), "{row:?}");
        }
        (ids, client.policies().await.unwrap())
    });
    // From the log, then from a checkpoint.
    for start in ["log", "checkpoint"] {
        node.kill();
        node = setup.start();
        run(async {
            let client = node.client().await;
            let now = client.policies().await.unwrap();
            assert!(before.iter().all(|row| now.contains(row)), "from the {start}: {now:?}");
            assert_eq!(client.newest::<Tick>(ids[2], At::NOW).await.unwrap().value.unwrap().row.id, 1000);
            let page = client.ticks_of(ids[1], Stretch::default(), At::NOW).await.unwrap().value;
            assert!(page.rows.iter().map(|found| found.row.id).eq(701..1001));
            // What has gone of a market is a fact about it.
            let (status, body) = node.get("/v2/query/as_of/now?attribute=market/pruned-rows&market=keep:last");
            let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &answer["datoms"][0]["value"]), (200, &700.into()), "{body}");
            if start == "log" {
                // Enough for a checkpoint, in another market.
                let other = markets(&client, &["keep:more"]).await[0];
                send(&client, &rows(other, 1..6001)).await;
                node.wait_for_checkpoints(1);
            }
        });
    }
}

#[test]
fn a_window_gives_back_the_disk_and_the_log_stays_short() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let id = run(async { markets(&node.client().await, &["room"]).await[0] });
    run(async { send(&node.client().await, &rows(id, 1..60_001)).await });
    node.wait_for_checkpoints(3);
    let full = run_bytes(dir.path());
    // Three checkpoints hold 15,000 rows at least, and more where the disk was slow between them.
    assert!(full > 10_000, "{full} bytes of runs");
    let horizon = run(async {
        let client = node.client().await;
        client.retain(Some(id), BOTH, Some(Keep::Window(1_000_000_000))).await.unwrap();
        wait_for_kept(&client, id, 0).await.horizon
    });
    wait_for("the room of 60,000 rows", || (run_bytes(dir.path()) * 10 < full).then_some(()));
    assert!(horizon > 0);
    let before = segments(dir.path());
    run(async {
        let client = node.client().await;
        // As much again, four times: what comes is dropped while it comes.
        send(&client, &rows(id, 60_001..300_001)).await;
        wait_for_kept(&client, id, 0).await;
    });
    wait_for("the room of the rest", || (run_bytes(dir.path()) * 10 < full).then_some(()));
    // 300,000 rows are 20 segments of a MiB; a node of these settings keeps what two checkpoints need.
    assert!(segments(dir.path()) <= before + 8, "{before} segments became {}", segments(dir.path()));
}

#[test]
fn below_the_horizon_every_read_is_refused_and_above_it_no_answer_changes() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (id, old, horizon, answers) = run(async {
        let client = node.client().await;
        let id = markets(&client, &["past"]).await[0];
        send(&client, &rows(id, 1..7001)).await;
        let old = client.count(Attribute::Tick, None, At::NOW).await.unwrap();
        assert_eq!(old.value, 7000);
        client.retain(Some(id), BOTH, Some(Keep::Last(2000))).await.unwrap();
        let horizon = wait_for_kept(&client, id, 2000).await.horizon;
        assert!(horizon > old.basis.bits());
        send(&client, &rows(id, 7001..7051)).await;
        let answers = above(&client, id, Tx::from_bits(horizon)).await;
        assert_eq!(answers.0, 2000, "as of the horizon, exactly what was kept");
        (id, old.basis, horizon, answers)
    });
    for round in 0..3 {
        run(async {
            let client = node.client().await;
            let below = At::as_of(old);
            let refusal = (Code::BelowHorizon, horizon);
            assert_eq!(refused(client.count(Attribute::Tick, None, below).await), refusal);
            assert_eq!(refused(client.count(Attribute::Tick, Some(id), below).await), refusal);
            assert_eq!(refused(client.newest::<Tick>(id, below).await), refusal);
            assert_eq!(refused(client.vwap(None, below).await), refusal);
            assert_eq!(refused(client.bars(id, 1_000_000, i64::MIN, i64::MAX, below).await), refusal);
            assert_eq!(refused(client.ticks_of(id, Stretch::default(), below).await), refusal);
            assert_eq!(refused(client.list_markets(below).await), refusal);
            // Now is above every horizon, but rows behind a row that was dropped, or a transaction, would be too few.
            let behind = Stretch { from_row: 4999, ..Stretch::default() };
            assert_eq!(refused(client.ticks_of(id, behind, At::NOW).await), refusal);
            let since = Stretch { since: Tx::from_bits(1), ..Stretch::default() };
            assert_eq!(refused(client.ticks_of(id, since, At::NOW).await), refusal);
            assert_eq!(above(&client, id, Tx::from_bits(horizon)).await, answers, "round {round}");
        });
        for path in ["?attribute=tick/id", "?market=past", "?vwap=true", "?market=past&bars=1s"] {
            let (status, body) = node.get(&format!("/v2/query/as_of/{}{path}", old.bits()));
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let told = (status, body["code"].as_str(), body["oldest"].as_str());
            assert_eq!(told, (422, Some("below_horizon"), Some(&*horizon.to_string())), "{path}");
        }
        let (code, _) = node.myelin(&["count", "tick/id", "--as-of", &old.bits().to_string()]);
        assert_eq!(code, Some(1));
        let (code, counted) = node.myelin(&["count", "tick/id", "--as-of", &horizon.to_string()]);
        assert_eq!((code, counted.trim()), (Some(0), "2000"));
        if round == 0 {
            // What was dropped leaves the disk: the next round is answered from a run that was written again.
            node.wait_for_checkpoints(1);
        }
        node.kill();
        node = setup.start();
    }
}

/// Every answer as of a moment that has not to change.
async fn above(client: &Client, id: EntityId, tx: Tx) -> (u64, u64, String) {
    let at = At::as_of(tx);
    let count = client.count(Attribute::Tick, None, at).await.unwrap().value;
    let latest = client.newest::<Tick>(id, at).await.unwrap().value.unwrap().row.id;
    let vwap = client.vwap(Some(id), at).await.unwrap().value;
    let bars = client.bars(id, 100, i64::MIN, i64::MAX, at).await.unwrap().value;
    let page = client.ticks_of(id, Stretch::default(), at).await.unwrap().value;
    (count, latest, format!("{vwap:?} {bars:?} {:?}", page.rows))
}

#[test]
fn a_dropped_id_is_too_old_where_ids_ascend_and_new_elsewhere() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let ids = run(async {
        let client = node.client().await;
        let spec = |name, flags| MarketSpec { flags: MarketFlags(flags), name };
        let ids = client.markets(&[spec("rising", MarketFlags::ASCENDING), spec("any", 0)]).await.unwrap();
        for id in &ids {
            // Not in order, so that the greatest dropped id is none of the last.
            let mut shuffled = rows(*id, 1..2001);
            shuffled.chunks_mut(64).for_each(<[Tick]>::reverse);
            send(&client, &shuffled).await;
            client.retain(Some(*id), BOTH, Some(Keep::Last(500))).await.unwrap();
            wait_for_kept(&client, *id, 500).await;
        }
        ids
    });
    for _ in 0..2 {
        run(async {
            let client = node.client().await;
            let again = client.ticks(&rows(ids[0], 1000..1001), Mode::Whole).await.unwrap();
            assert_eq!(crate::node::refused(&again), Some(Code::TooOld));
            let known = client.ticks(&rows(ids[0], 1999..2000), Mode::Whole).await.unwrap();
            assert_eq!(done(&known), (0, 1), "what is there is known");
        });
        node.kill();
        node = setup.start();
    }
    run(async {
        let client = node.client().await;
        let again = client.ticks(&rows(ids[1], 1000..1001), Mode::Whole).await.unwrap();
        assert_eq!(done(&again), (1, 0), "taken as new");
    });
}

fn registration(id: u64, spec: &str, scope: &str) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    spec.parse::<myelin::reflex::Spec>().unwrap().encode(&mut body);
    scope.parse::<myelin::reflex::Scope>().unwrap().encode(&mut body);
    body
}

#[test]
fn history_below_the_horizon_is_compacted_and_the_oldest_place_told_can_be_taken() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let id = markets(&client, &["saw"]).await[0];
        let saw: Vec<Tick> = (1..3001).map(|n| tick(id, n, if n % 2 == 0 { 11.0 } else { 9.0 })).collect();
        send(&client, &saw[..2900]).await;
        // Transactions of their own, so that what is kept begins with one.
        for frame in saw[2900..].chunks(10) {
            send(&client, frame).await;
        }
        let early = client.count(Attribute::Tick, None, At::NOW).await.unwrap().basis;
        client.retain(Some(id), BOTH, Some(Keep::Last(100))).await.unwrap();
        wait_for_kept(&client, id, 100).await;
        client.register(&registration(1, "above 10", "market:saw"), 1).await.unwrap();
        let (code, oldest) = refused(client.back_test(1, Tx::ZERO).await.map(|_| ()));
        assert_eq!(code, Code::Compacted);
        assert!(oldest > 0 && oldest <= early.bits(), "{oldest} is no moment of the ticks, which end at {early}");
        let mut firings = client.back_test(1, Tx::from_bits(oldest)).await.unwrap();
        let mut fired = Vec::new();
        send(&client, &[tick(id, 3001, 9.0), tick(id, 3002, 12.0)]).await;
        while fired.last() != Some(&3002) {
            match firings.next().await.unwrap() {
                Some(News::Firing(firing)) => fired.push(firing.row.tick.id),
                other => panic!("expected a firing, found {other:?}"),
            }
        }
        assert_eq!(fired, (2902..=3002).step_by(2).collect::<Vec<_>>(), "all that is kept, and nothing twice");
        let (code, said) = node.myelin(&["watch", "above", "10", "--market", "saw", "--since", "1", "--count", "1"]);
        assert_eq!((code, said.as_str()), (Some(1), ""));
    });
}

#[test]
fn the_command_line_sets_and_lists_policies() {
    let node = Setup::fresh().shards(2).start();
    run(async {
        let client = node.client().await;
        for id in markets(&client, &["cli:{A}", "cli:{B}"]).await {
            send(&client, &rows(id, 1..101)).await;
        }
    });
    let set = |arguments: &[&str]| node.myelin(&[&["retention", "set", "-o", "json"], arguments].concat());
    assert_eq!(set(&["--all", "window", "7d"]).0, Some(0));
    let (code, told) = set(&["--market", "cli:{A}", "--kind", "tick", "last", "10"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told[0]["policy"], &told[0]["own"]), (Some(0), &"last 10".into(), &true.into()), "{told}");
    let listed = wait_for("ten rows to stay", || {
        let (_, listed) = node.myelin(&["retention", "list", "-o", "json"]);
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        listed.iter().any(|row| row["kept"] == 10).then_some(listed)
    });
    let brief: Vec<_> = listed
        .iter()
        .map(|row| format!("{} {} {} {} {}", row["market"], row["kind"], row["policy"], row["kept"], row["dropped"]))
        .map(|line| line.replace('"', ""))
        .collect();
    assert_eq!(
        brief,
        ["* tick window 7d 0 0", "* quote window 7d 0 0", "cli:{A} tick last 10 10 90", "cli:{B} tick window 7d 100 0"]
    );
    assert!(listed[2]["horizon"].as_str().unwrap().parse::<u64>().is_ok_and(|tx| tx > 0));
    for (arguments, exit) in [
        (&["--all", "default"][..], 2),
        (&["--all", "last", "0"], 2),
        (&["--market", "nobody", "all"], 1),
        (&["--market", "cli:{A}", "default"], 0),
    ] {
        assert_eq!(set(arguments).0, Some(exit), "{arguments:?}");
    }
}

fn verify(dir: &Path) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
    let output = command.arg("verify").arg(dir).args(["-o", "json"]).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{value} {}", String::from_utf8_lossy(&output.stderr));
    value
}

fn copy(from: &Path, to: &Path, take: &dyn Fn(&str) -> bool) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(&name), take);
        } else if take(&name) {
            std::fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

#[test]
fn a_replay_of_the_whole_log_comes_to_the_state_of_the_checkpoint_and_its_tail() {
    let (dir, bare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut setup = Setup::new(dir.path());
    // All of it in one segment, so that the log goes back to its beginning.
    setup.more =
        ["--lean", "--no-pin", "--segment-bytes", "33554432", "--seal-rows", "5000"].map(str::to_owned).to_vec();
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let spec = |name, flags| MarketSpec { flags: MarketFlags(flags), name };
        let ids = client.markets(&[spec("log:a", MarketFlags::ASCENDING), spec("log:b", 0)]).await.unwrap();
        client.retain(Some(ids[0]), BOTH, Some(Keep::Last(1500))).await.unwrap();
        client.retain(Some(ids[1]), BOTH, Some(Keep::Window(300_000_000))).await.unwrap();
        for from in (1..30_001).step_by(500) {
            for id in &ids {
                send(&client, &rows(*id, from..from + 500)).await;
            }
        }
        wait_for_kept(&client, ids[1], 0).await;
    });
    node.wait_for_checkpoints(4);
    node.kill();
    let is_log = |name: &str| !name.starts_with("manifest") && !name.ends_with("ticks") && !name.ends_with("quotes");
    copy(dir.path(), bare.path(), &is_log);
    let (whole, replayed) = (verify(dir.path()), verify(bare.path()));
    assert!(whole["checked"]["runs"].as_u64().unwrap() > 0 && replayed["checked"]["runs"] == 0, "{whole} {replayed}");
    assert!(whole["shards"][0]["ticks"].as_u64().unwrap() < 10_000, "{whole}");
    assert_eq!(whole["state_hash"], replayed["state_hash"]);
    assert!(whole["state_hash"].is_string());
}

#[test]
fn a_start_from_the_older_checkpoint_has_every_row_that_was_kept_and_brings_none_back() {
    let mut setup = Setup::fresh();
    setup.more =
        ["--lean", "--no-pin", "--segment-bytes", "4194304", "--seal-rows", "4000"].map(str::to_owned).to_vec();
    let mut node = setup.start();
    let ids = run(async {
        let client = node.client().await;
        let ids = markets(&client, &["older:last", "older:all"]).await;
        client.retain(Some(ids[0]), BOTH, Some(Keep::Last(700))).await.unwrap();
        for from in (1..20_001).step_by(500) {
            for id in &ids {
                send(&client, &rows(*id, from..from + 500)).await;
            }
        }
        wait_for_kept(&client, ids[0], 700).await;
        ids
    });
    node.wait_for_checkpoints(3);
    node.kill();
    let mut manifests: Vec<_> = std::fs::read_dir(setup.dir.join("core-0000"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("manifest-")))
        .collect();
    manifests.sort();
    assert_eq!(manifests.len(), 2, "the two newest are kept");
    let newest = manifests.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let row = ticks_of(&client, ids[0]).await;
        assert_eq!((row.kept, row.dropped), (700, 19_300), "{row:?}");
        for (id, from) in [(ids[0], 19_301), (ids[1], 1)] {
            let mut expected = from;
            let mut stretch = Stretch::default();
            loop {
                let page = client.ticks_of(id, stretch, At::NOW).await.unwrap().value;
                for found in &page.rows {
                    assert_eq!(found.row.id, expected, "every row once, in its order");
                    expected += 1;
                }
                let Some(next) = page.next else { break };
                stretch = next;
            }
            assert_eq!(expected, 20_001);
        }
        let below = Tx::from_bits(row.horizon - 1);
        assert_eq!(refused(client.newest::<Tick>(ids[0], At::as_of(below)).await).0, Code::BelowHorizon);
    });
}

/// Ticks of this market until the node is killed under them; gives the first id that was not acknowledged.
async fn load_until_killed(node: &mut Node, ids: &[EntityId], first: u64, after: Duration) -> u64 {
    let client = node.hasty_client().await;
    let begun = Instant::now();
    let mut acked = first;
    loop {
        let frame: Vec<Tick> = ids.iter().flat_map(|id| rows(*id, acked..acked + 200)).collect();
        let Ok(sent) = client.send_ticks(&frame, Mode::Whole).await else { return acked };
        if begun.elapsed() > after {
            node.kill();
        }
        for part in sent.wait().await {
            match part.outcome {
                Outcome::Done(_) => acked += 200,
                _ => return acked,
            }
        }
    }
}

/// A market's policy, and the ids of its oldest and its newest tick, all at one time: nothing was dropped in between.
async fn ends_of(client: &Client, id: EntityId) -> (PolicyRow, Option<u64>, Option<u64>) {
    loop {
        let row = ticks_of(client, id).await;
        let page = client.ticks_of(id, Stretch { limit: 1, ..Stretch::default() }, At::NOW).await.unwrap().value;
        let latest = client.newest::<Tick>(id, At::NOW).await.unwrap().value.map(|found| found.row.id);
        if ticks_of(client, id).await == row {
            return (row, page.rows.first().map(|found| found.row.id), latest);
        }
    }
}

#[test]
fn campaign_what_is_kept_is_whole_and_what_is_dropped_stays_dropped_when_the_node_is_killed() {
    let rounds = trials(5, 30, 600);
    let setup = Setup::fresh();
    let mut node = setup.start();
    let ids = run(async {
        let client = node.client().await;
        let ids = markets(&client, &["kill:last", "kill:latest", "kill:window", "kill:all"]).await;
        let keeps = [Keep::Last(3000), Keep::Latest, Keep::Window(50_000_000), Keep::All];
        for (id, keep) in ids.iter().zip(keeps) {
            client.retain(Some(*id), BOTH, Some(keep)).await.unwrap();
        }
        ids
    });
    let (mut first, mut before) = (1, Vec::<PolicyRow>::new());
    for round in 0..rounds {
        let after = Duration::from_millis(u64::from(round * 131 % 1700) + 40);
        let acked = run(load_until_killed(&mut node, &ids, first, after));
        if round % 4 == 0 {
            // Reads all there is, so not every time.
            assert_eq!(verify(&setup.dir)["sound"], true, "round {round}");
        }
        node = setup.start();
        (first, before) = run(async {
            let client = node.client().await;
            let now = client.policies().await.unwrap();
            let mut next = acked;
            for id in &ids {
                let (row, oldest, latest) = ends_of(&client, *id).await;
                let stored = row.kept + row.dropped;
                assert!(stored == acked - 1 || stored == acked + 199, "round {round}: {acked} acked, {row:?}");
                next = stored + 1;
                let earlier = before.iter().find(|earlier| (earlier.market, earlier.kind) == (row.market, 1));
                assert!(earlier.is_none_or(|earlier| earlier.dropped <= row.dropped && earlier.horizon <= row.horizon));
                assert_eq!(oldest, (row.kept > 0).then_some(row.dropped + 1), "round {round}: {row:?}");
                assert_eq!(latest, (row.kept > 0).then_some(stored), "round {round}: {row:?}");
            }
            let all = now.iter().find(|row| row.market == ids[3].bits() && row.kind == 1).unwrap();
            assert_eq!((all.dropped, all.kept), (0, next - 1), "round {round}: what is kept for ever is all there");
            (next, now)
        });
    }
    let dropped: u64 = before.iter().map(|row| row.dropped).sum();
    assert!(dropped > 0, "the campaign pruned nothing");
    report("kill-9-pruning", rounds);
}
