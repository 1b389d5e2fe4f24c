//! Acked means kept: `kill -9` at any moment, in any phase, and nothing acknowledged is gone or there twice.

use crate::node::{
    Node, Setup, done, markets, newest_segment, report, run, tick, trials, wait_for, wait_for_watermark,
};
use myelin_client::{At, Mode, Outcome};
use myelin_datom::{EntityId, Tick};
use myelin_wire::Attribute;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const MARKETS: [&str; 4] = ["kill:{A}", "kill:{B}", "kill:{C}", "kill:{D}"];
const ROWS: u64 = 200;

/// The frame of this number: the same rows whenever it is sent.
fn frame(ids: &[EntityId], number: u64) -> Vec<Tick> {
    (0..ROWS).map(|row| tick(ids[(row % 4) as usize], number * ROWS + row + 1, (number % 97) as f64 + 1.0)).collect()
}

/// What the folder looked like when the node was killed.
fn phase(dir: &Path) -> &'static str {
    let core = dir.join("core-0000");
    let has = |path: &Path, what: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| what(&name))
    };
    let runs = std::fs::read_dir(core.join("runs")).into_iter().flatten().count();
    if has(&core, &|name| name == "manifest.new") {
        "checkpoint"
    } else if has(&core.join("runs"), &|name| name.ends_with(".new") || name.ends_with(".tmp")) {
        "seal"
    } else if runs > 0 {
        "after a seal"
    } else {
        "before a seal"
    }
}

/// Sends frames from `first` on until the node is killed under them; gives how many were acknowledged, in order.
async fn load_until_killed(node: &mut Node, ids: &[EntityId], first: u64, after: Duration) -> u64 {
    let client = node.hasty_client().await;
    let begun = Instant::now();
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
        if begun.elapsed() > after {
            node.kill();
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

#[test]
fn campaign_nothing_acknowledged_is_lost_or_doubled_when_the_node_is_killed() {
    let rounds = trials(6, 100, 1000);
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut node = setup.start();
    let ids = run(async { markets(&node.client().await, &MARKETS).await });
    let mut phases: BTreeMap<&str, u32> = BTreeMap::new();
    let mut first = 0;
    for round in 0..rounds {
        let after = Duration::from_millis(u64::from(round * 37 % 160) + 5);
        let acked = run(load_until_killed(&mut node, &ids, first, after));
        *phases.entry(phase(dir.path())).or_default() += 1;
        node = setup.start();
        first = run(async {
            let client = node.client().await;
            // Everything acknowledged in this round is there: sent again, it is all duplicate.
            for number in first..acked {
                let (accepted, duplicates) = done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
                assert_eq!((accepted, duplicates), (0, ROWS as u32), "round {round}, frame {number} of {acked}");
            }
            // What was under way is there whole or not at all; sent again, it is there once.
            let mut next = acked;
            for number in acked..acked + 17 {
                let (accepted, duplicates) = done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
                assert!(accepted == 0 || duplicates == 0, "round {round}, frame {number} was stored in part");
                next = number + 1;
            }
            let counted = client.count(Attribute::Tick, None, At::default()).await.unwrap().value;
            assert_eq!(counted, next * ROWS, "round {round}: every tick once");
            next
        });
    }
    println!("killed by phase: {phases:?}");
    report("kill-9", rounds);
}

#[test]
fn runs_that_pile_up_are_merged_and_no_answer_changes() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
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
        let mut names = std::fs::read_dir(dir.path().join("core-0000/runs")).unwrap().flatten();
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
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let _node = setup.start();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(7), "{said}");
}

#[test]
fn a_hard_state_that_is_gone_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut node = setup.start();
    run(async { markets(&node.client().await, &MARKETS).await });
    node.kill();
    std::fs::remove_file(dir.path().join("core-0000/hard-state")).unwrap();
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
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path());
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..8 {
            done(&client.ticks(&frame(&ids, number), Mode::Whole).await.unwrap());
        }
    });
    node.kill();
    let segment = dir.path().join("core-0000/segment-0000");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the middle of the first frames: far below what later records prove durable.
    bytes[4096 + 20_000] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("segment-0000"), "{said}");
}
