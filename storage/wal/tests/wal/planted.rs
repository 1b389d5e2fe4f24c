//! The checks see the bugs they are for: each bug is switched on, and the check must turn red; off, it must be green.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::crash::{self, Verdict};
use crate::harness::{Log, open, said, shown};
use myelin_wal::planted::{Bug, with};
use myelin_wal::sim::{Fault, Keep, SimDisk};
use myelin_wal::{Config, GroupState, HardState, HardStateFile, Start};

/// A bug, the check that must see it, and the check's name.
type Row = (Bug, &'static str, fn() -> Verdict);

/// Red is a violation in words or a failed assertion.
fn is_red(bug: Option<Bug>, check: fn() -> Verdict) -> bool {
    !matches!(catch_unwind(AssertUnwindSafe(|| with(bug, check))), Ok(Ok(_)))
}

#[test]
fn every_planted_bug_turns_its_check_red_and_without_it_the_check_is_green() {
    let rows: [Row; 14] = [
        (Bug::CutTheMiddle, "flipped bits", || crash::flipped_bits(500)),
        (Bug::WatermarkAhead, "sector subsets", || crash::sector_subsets(200)),
        (Bug::AckBeforeSync, "histories", || crash::histories(7, 200)),
        (Bug::NoEpochInCrc, "histories", || crash::histories(7, 200)),
        (Bug::NoIncarnation, "sector subsets", || crash::sector_subsets(400)),
        (Bug::NoScrub, "torn twice", || crash::torn_twice(1_000)),
        (Bug::HeaderAfterRecords, "rolls", || crash::rolls(100)),
        (Bug::NoPayloadCrc, "byte cuts", || crash::byte_cuts(500)),
        (Bug::NoLookBehindTheCut, "flipped bits", || crash::flipped_bits(500)),
        (Bug::SyncRetried, "a sync after a failed one", sync_after_a_failed_one),
        (Bug::RecycleWhileRead, "a reader on a released segment", reader_on_a_released_segment),
        (Bug::OneHardState, "a damaged copy of a vote", damaged_copy_of_a_vote),
        (Bug::NoEpochGapCheck, "a missing segment", missing_segment),
        (Bug::SlotTriedAgain, "a slot whose making failed", slot_whose_making_failed),
    ];
    // Red by failed assertion is expected here; its message would only alarm.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let seen: Vec<_> = rows.map(|(bug, name, check)| (bug, name, is_red(None, check), is_red(Some(bug), check))).into();
    std::panic::set_hook(hook);
    println!("{:<20} {:<32} without  with", "bug", "check");
    for (bug, name, without, with) in &seen {
        let colour = |red: &bool| if *red { "red" } else { "green" };
        println!("{:<20} {name:<32} {:<8} {}", format!("{bug:?}"), colour(without), colour(with));
    }
    assert!(seen.iter().all(|(_, _, without, with)| !without && *with));
}

fn sync_after_a_failed_one() -> Verdict {
    let mut log = Log::new(Config::tiny(0), 1);
    assert!(log.append(&said(0, 10)));
    let batch = log.tail.take_batch().expect("gathered");
    log.disk.arm(0, Fault::Fail(ErrorKind::Other));
    let first = log.syncer.sync(&batch);
    let second = log.syncer.sync(&batch);
    if first.is_err() && second.is_err() { Ok(1) } else { Err("acknowledged after a failure".to_owned()) }
}

fn reader_on_a_released_segment() -> Verdict {
    let mut log = Log::new(Config::tiny(0), 2);
    log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
    let pinned = log.tail.pin(log.tail.oldest()).expect("durable");
    let freed = log.tail.release(log.tail.synced_upto());
    drop(pinned);
    if freed == 0 { Ok(1) } else { Err("a segment was recycled under its reader".to_owned()) }
}

fn damaged_copy_of_a_vote() -> Verdict {
    let (disk, config) = (SimDisk::new(), Config::tiny(0));
    let vote = |term| HardState {
        groups: vec![GroupState { term, vote: 1, ..GroupState::default() }],
        ..HardState::default()
    };
    let (mut file, _) = HardStateFile::open(&disk, &config).map_err(|error| error.to_string())?;
    file.store(&vote(1)).map_err(|error| error.to_string())?;
    file.store(&vote(2)).map_err(|error| error.to_string())?;
    disk.flip("hard-state", 64 * 8);
    let (_, read) = HardStateFile::open(&disk, &config).map_err(|error| error.to_string())?;
    if read == vote(2) { Ok(1) } else { Err("the vote is forgotten".to_owned()) }
}

fn missing_segment() -> Verdict {
    let mut log = Log::new(Config::tiny(0), 4);
    log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3]]);
    log.disk.remove("segment-0000");
    if shown(&log.disk, &log.config).is_err() { Ok(1) } else { Err("a third of the log is gone".to_owned()) }
}

fn slot_whose_making_failed() -> Verdict {
    let mut log = Log::new(Config::tiny(0), 1);
    let n = log.write(0, &[&[100]]);
    log.disk.lose_allocation();
    assert!(log.prepare(1).is_err(), "its sync failed");
    log.prepare(1).map_err(|error| error.to_string())?;
    // A roll: the last of these lie in the slot that was made second.
    log.write(n, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
    log.disk.restart();
    let shown = log.shown().map_err(|error| error.to_string())?;
    if shown == log.acked { Ok(1) } else { Err(format!("{} of {} are there", shown.len(), log.acked.len())) }
}

/// The simulated disk itself: what is torn is torn, and lies stay lies.
#[test]
fn the_simulated_disk_does_what_it_is_asked() {
    let mut log = Log::new(Config::tiny(0), 1);
    assert!(log.append(&said(0, 8000)));
    log.disk.arm(0, Fault::PowerLoss(Keep::Prefix(600)));
    log.sync().expect_err("the power is gone");
    assert!(open(Arc::new(log.disk.clone()), &log.config, Start::default()).is_err(), "no power, no disk");
    log.disk.restart();
    let bytes = log.disk.bytes("segment-0000");
    assert!(bytes[600..4096].iter().all(|&byte| byte == 0), "the first write was the header, cut at 600");
    assert!(bytes[4096..].iter().all(|&byte| byte == 0));
}
