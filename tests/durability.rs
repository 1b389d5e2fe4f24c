//! Acked means kept: `kill -9` at any moment, in any phase, and nothing acknowledged is gone or there twice.

use crate::node::{
    Node, Setup, done, markets, newest_segment, report, run, tick, trials, wait_for, wait_for_watermark,
};
use myelin::reflex::{Scope, Spec};
use myelin_client::{At, Client, FiringPlace, Mode, News, Outcome};
use myelin_datom::{EntityId, Tick};
use myelin_wire::Attribute;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const MARKETS: [&str; 4] = ["kill:{A}", "kill:{B}", "kill:{C}", "kill:{D}"];
const ROWS: u64 = 200;

/// True for the rows at which the standing question of the campaign fires: every second row of each market.
fn fires(row: u64) -> bool {
    row / 4 % 2 == 1
}

/// The frame of this number: the same rows whenever it is sent.
fn frame(ids: &[EntityId], number: u64) -> Vec<Tick> {
    let price = |row| if fires(row) { 100.0 + (number % 97) as f64 } else { (number % 13) as f64 + 1.0 };
    (0..ROWS).map(|row| tick(ids[(row % 4) as usize], number * ROWS + row + 1, price(row))).collect()
}

/// Where a kill is aimed. Pruning gets its row when there is some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Any moment.
    Load,
    /// A segment has its header, and hardly a record.
    Roll,
    /// A run is being written.
    Seal,
    /// A manifest is being written, or was a moment ago: files go, the watermark is stored, the log is released.
    Checkpoint,
}

const PHASES: [Phase; 4] = [Phase::Load, Phase::Roll, Phase::Seal, Phase::Checkpoint];

/// How long a phase may take to come under load.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// What the folder of core 0 showed when the load began. An earlier kill may have left unfinished files.
struct Before {
    epoch: u64,
    manifest: Option<String>,
    unfinished: BTreeSet<Unfinished>,
}

/// A file under the name it has while it is written.
type Unfinished = (String, SystemTime, u64);

fn unfinished(dir: &Path) -> BTreeSet<Unfinished> {
    let core = dir.join("core-0000");
    let folders = [core.join("runs"), core];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let unfinished = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is = name.ends_with(".partial") || name == "manifest.new";
        let metadata = entry.metadata().ok().filter(|_| is)?;
        Some((name, metadata.modified().ok()?, metadata.len()))
    });
    unfinished.collect()
}

fn newest_manifest(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir.join("core-0000")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("manifest-")).max()
}

impl Phase {
    /// Whether the folder shows that the node is in it.
    fn shows(self, dir: &Path, before: &Before) -> bool {
        let begun = |name: fn(&str) -> bool| {
            unfinished(dir).into_iter().any(|file| name(&file.0) && !before.unfinished.contains(&file))
        };
        match self {
            Self::Load => true,
            Self::Roll => newest_segment(dir).1 > before.epoch,
            Self::Seal => begun(|name| name.ends_with(".partial")),
            Self::Checkpoint => begun(|name| name == "manifest.new") || newest_manifest(dir) > before.manifest,
        }
    }
}

/// `kill -9` in a phase, as soon as the folder shows it or a few hundred microseconds later; false if it never came.
fn kill_in(node: &mut Node, dir: &Path, phase: Phase, round: u32) -> bool {
    let before = Before { epoch: newest_segment(dir).1, manifest: newest_manifest(dir), unfinished: unfinished(dir) };
    let begun = Instant::now();
    let mut seen = false;
    while !seen && begun.elapsed() < COMES_WITHIN {
        seen = phase.shows(dir, &before);
        std::thread::park_timeout(Duration::from_micros(50));
    }
    let later = match phase {
        Phase::Load => Duration::from_millis(u64::from(round * 37 % 160) + 5),
        _ => Duration::from_micros(u64::from(round * 37 % 8) * 150),
    };
    let seen_at = Instant::now();
    while seen_at.elapsed() < later {
        std::thread::park_timeout(later / 4);
    }
    node.kill();
    seen
}

/// Sends frames from `first` on until the node is gone; gives how many were acknowledged, in order.
async fn load(listen: std::net::SocketAddr, ids: &[EntityId], first: u64) -> u64 {
    let Some(client) = crate::node::hasty_client(listen).await else { return first };
    let (mut next, mut acked) = (first, first);
    let mut sent = std::collections::VecDeque::new();
    loop {
        while sent.len() < 16 {
            match client.send_ticks(&frame(ids, next), Mode::Whole).await {
                Ok(one) => sent.push_back(one),
                Err(_) => return acked,
            }
            next += 1;
        }
        let Some(one) = sent.pop_front() else { return acked };
        for part in one.wait().await {
            match part.outcome {
                Outcome::Done(_) => acked += 1,
                _ => return acked,
            }
        }
    }
}

/// Every firing of these frames comes once, in order, behind the place where the last one was taken; gives the next place.
async fn all_fired(client: &Client, place: FiringPlace, frames: std::ops::Range<u64>, round: u32) -> FiringPlace {
    let mut firings = client.subscribe(Some(1), &[(0, place)]).await.unwrap();
    let mut last = place;
    for number in frames {
        for row in (0..ROWS).filter(|row| fires(*row)) {
            match firings.next().await.unwrap() {
                Some(News::Firing(firing)) => {
                    assert_eq!(firing.row.tick.id, number * ROWS + row + 1, "round {round}: frame {number}, row {row}");
                    last = FiringPlace { tx: firing.row.tx, n: firing.row.n, reflex: firing.row.reflex };
                }
                other => panic!("round {round}: frame {number}, row {row}: {other:?}"),
            }
        }
    }
    last
}

#[test]
fn campaign_nothing_acknowledged_is_lost_or_doubled_when_the_node_is_killed() {
    let rounds = trials(8, 100, 1000);
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (ids, mut place) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        let mut registration = 1_u64.to_le_bytes().to_vec();
        Spec::Above(50.0).encode(&mut registration);
        Scope::All.encode(&mut registration);
        client.register(&registration, 1).await.unwrap();
        (ids, FiringPlace::behind_tx(client.now().await.unwrap()))
    });
    let mut kills: BTreeMap<Phase, u32> = PHASES.map(|phase| (phase, 0)).into();
    let (mut first, mut frames) = (0, 0);
    for round in 0..rounds {
        let phase = PHASES[round as usize % PHASES.len()];
        let listen = node.listen;
        let (acked, seen) = std::thread::scope(|threads| {
            let load = threads.spawn(|| run(load(listen, &ids, first)));
            let seen = kill_in(&mut node, &setup.dir, phase, round);
            (load.join().expect("the load ends with the node"), seen)
        });
        *kills.entry(phase).or_default() += u32::from(seen);
        frames += acked - first;
        node = setup.start();
        (first, place) = run(async {
            let client = node.client().await;
            // Everything acknowledged in this round is there: sent again, it is all duplicate.
            for number in first..acked {
                let (accepted, duplicates) = done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
                assert_eq!(
                    (accepted, duplicates),
                    (0, ROWS as u32),
                    "round {round}, {phase:?}, frame {number} of {acked}"
                );
            }
            // What was under way is there whole or not at all; sent again, it is there once.
            let mut next = acked;
            for number in acked..acked + 17 {
                let (accepted, duplicates) = done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
                assert!(
                    accepted == 0 || duplicates == 0,
                    "round {round}, {phase:?}, frame {number} was stored in part"
                );
                next = number + 1;
            }
            let counted = client.count(Attribute::Tick, None, At::default()).await.unwrap().value;
            assert_eq!(counted, next * ROWS, "round {round}, {phase:?}: every tick once");
            (next, all_fired(&client, place, first..next, round).await)
        });
    }
    println!("killed by phase, of {rounds}: {kills:?}; prune: there is none yet");
    println!("{frames} frames were acknowledged under load, {} firings came once each", first * ROWS / 2);
    assert!(kills.values().all(|hits| *hits > 0), "a phase was never hit: {kills:?}");
    report("kill-9", rounds);
}

#[test]
fn runs_that_pile_up_are_merged_and_no_answer_changes() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (ids, moments) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        let mut moments = Vec::new();
        let mut next = 0;
        // One seal a turn, so that there are at least eight runs.
        for turn in 1..=9 {
            for _ in 0..30 {
                done(&client.ticks(&frame(&ids, next), Mode::Whole).await.unwrap());
                next += 1;
            }
            moments.push((client.now().await.unwrap(), next * ROWS));
            node.wait_for_checkpoints(turn);
        }
        (ids, moments)
    });
    let merged = |name: &str| name.ends_with(".merged.ticks");
    wait_for("merged runs", || {
        let mut names = std::fs::read_dir(setup.dir.join("core-0000/runs")).unwrap().flatten();
        names.any(|entry| merged(&entry.file_name().to_string_lossy())).then_some(())
    });
    for restarted in [false, true] {
        if restarted {
            node.kill();
            node = setup.start();
        }
        run(async {
            let client = node.client().await;
            for (moment, rows) in &moments {
                let at = At { as_of: Some(*moment), ..At::default() };
                assert_eq!(client.count(Attribute::Tick, None, at).await.unwrap().value, *rows);
            }
            let again = client.ticks(&frame(&ids, 7), Mode::Whole).await.unwrap();
            assert_eq!(done(&again), (0, ROWS as u32), "what was merged is still known");
        });
    }
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let setup = Setup::fresh();
    let _node = setup.start();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&setup.dir.join("core-0000").display().to_string()), "{said}");
}

#[test]
fn a_hard_state_that_is_gone_is_not_made_up() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    run(async { markets(&node.client().await, &MARKETS).await });
    node.kill();
    std::fs::remove_file(setup.dir.join("core-0000/hard-state")).unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("hard state"), "{said}");
}

/// What the newest segment itself says of what was durable is gone with it; the hard state says it, too, after every roll and
/// every checkpoint.
///
/// Seen red with a watermark that is stored at the start only: the node served, and acknowledged rows were gone.
#[test]
fn a_newest_segment_that_is_gone_as_a_whole_is_damage() {
    for frames in [150, 240] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = Setup::new(dir.path());
        if frames == 150 {
            // Rolls alone: nothing is sealed.
            *setup.more.last_mut().expect("a flag's value") = "1000000".to_owned();
        }
        let mut node = setup.start();
        run(async {
            let client = node.client().await;
            let ids = markets(&client, &MARKETS).await;
            for number in 0..frames {
                done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
            }
        });
        wait_for_watermark(dir.path(), 1 << 20);
        node.kill();
        let (newest, epoch) = newest_segment(dir.path());
        assert!(epoch > 1, "the log has rolled");
        std::fs::remove_file(newest).unwrap();
        let (code, said) = setup.refuses_to_start();
        assert_eq!(code, Some(6), "{said}");
        assert!(said.contains("segment-") && said.contains("expected"), "{said}");
    }
}

#[test]
fn a_bit_flipped_in_the_durable_log_is_refused_by_file_and_offset_and_never_cut() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..8 {
            done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
        }
    });
    node.kill();
    let segment = setup.dir.join("core-0000/segment-0000");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the middle of the first frames: far below what later records prove durable.
    bytes[4096 + 20_000] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("segment-0000"), "{said}");
}
