//! The same on real files: both ways of writing durably, a second process, maps.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::harness::{Dice, Placed, Said, open, said};
use myelin_wal::{AppendPath, Config, Directory, Disk, HardState, HardStateFile, Lsn, MappedSegment, Recovered, Start};

/// A directory of this test's own, empty.
fn fresh(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("ours");
    }
    path
}

fn round_trip(disk: Arc<dyn Disk>, expected: &mut Vec<Placed>) {
    let config = Config::tiny(2);
    let (mut hard_file, hard) = HardStateFile::open(&*disk, &config).expect("sound");
    let start = Start { from: Lsn::ZERO, synced: hard.synced };
    let (seen, recovered) = open(Arc::clone(&disk), &config, start).expect("sound");
    assert_eq!(seen, *expected);
    let Recovered { mut tail, mut syncer, mut preparer, .. } = recovered;
    for n in 0..60 {
        while tail.spares() < 2 {
            tail.offer(preparer.prepare().expect("room"));
        }
        let said = said(n, n as usize * 50);
        tail.begin(said.entry);
        tail.push(&said.payload);
        expected.push((tail.end().lsn_start, said));
        let batch = tail.take_batch().expect("gathered");
        syncer.sync(&batch).expect("sound");
        tail.synced(batch.upto());
        tail.recycle(batch);
    }
    hard_file.store(&HardState { synced: tail.synced_upto(), groups: Vec::new() }).expect("sound");
    let pinned = tail.pin(tail.oldest()).expect("durable");
    let mapped = MappedSegment::open(&*disk, &config, pinned).expect("sealed");
    let mapped: Vec<Placed> = mapped.records().map(|record| (record.lsn, Said::from(record))).collect();
    assert!(!mapped.is_empty() && expected.starts_with(&mapped));
}

#[test]
fn real_files_keep_what_was_synced_directly_and_through_the_page_cache() {
    let path = fresh("round-trip");
    let mut expected = Vec::new();
    for life in 0..4 {
        // The way may change between two starts: the bytes are the same.
        let directory = if life % 2 == 0 { Directory::open(&path) } else { Directory::open_synced(&path) };
        let directory = directory.expect("a directory");
        println!("life {life}: {}", directory.append_path());
        round_trip(Arc::new(directory), &mut expected);
    }
    std::fs::remove_dir_all(path).expect("ours");
}

#[test]
fn a_directory_has_one_owner() {
    let path = fresh("one-owner");
    let first = Directory::open(&path).expect("a directory");
    let second = Directory::open(&path).expect_err("held");
    assert_eq!(second.kind(), std::io::ErrorKind::ResourceBusy);
    drop(first);
    let third = Directory::open_synced(&path).expect("free again");
    assert_eq!(third.append_path(), &AppendPath::Synced { why: "not asked for".to_owned() });
    assert_eq!(third.append_path().to_string(), "pwrite + fdatasync (O_DIRECT: not asked for)");
    std::fs::remove_dir_all(path).expect("ours");
}

#[test]
fn appends_never_change_a_files_name_size_or_number() {
    let path = fresh("fixed-slots");
    let disk: Arc<dyn Disk> = Arc::new(Directory::open(&path).expect("a directory"));
    let mut expected = Vec::new();
    round_trip(Arc::clone(&disk), &mut expected);
    let mut names = disk.list().expect("readable");
    names.sort();
    assert!(names.iter().all(|name| name == "hard-state" || name == "lock" || name.starts_with("segment-")));
    for name in names.iter().filter(|name| name.starts_with("segment-")) {
        assert_eq!(disk.open(name).expect("there").bytes().expect("readable"), 64 << 10);
    }
    std::fs::remove_dir_all(path).expect("ours");
}

const VICTIM: &str = "MYELIN_WAL_VICTIM";

/// Not a test but the process that the next test kills: appends, syncs and tells, until it is dead.
#[test]
fn the_victim_of_the_test_below() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let directory = Directory::open(PathBuf::from(path)).expect("a directory");
    let (seen, recovered) = open(Arc::new(directory), &Config::tiny(0), Start::default()).expect("sound");
    let Recovered { mut tail, mut syncer, mut preparer, .. } = recovered;
    for n in seen.len() as u64.. {
        while tail.spares() < 2 {
            tail.offer(preparer.prepare().expect("room"));
        }
        let said = said(n, (n as usize * 97) % 3000);
        tail.begin(said.entry);
        tail.push(&said.payload);
        tail.end();
        let batch = tail.take_batch().expect("gathered");
        syncer.sync(&batch).expect("sound");
        tail.synced(batch.upto());
        tail.recycle(batch);
        println!("\nacked {n}");
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let path = fresh("killed");
    let (mut dice, mut acked) = (Dice(9), 0);
    let lives = 12;
    for life in 0..lives {
        let mut victim = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "files::the_victim_of_the_test_below", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut told = || {
            lines
                .by_ref()
                .find_map(|line| line.expect("text").strip_prefix("acked ").map(|n| n.parse().expect("a number")))
        };
        for _ in 0..=dice.below(40) {
            let n: u64 = told().expect("it lives");
            acked = acked.max(n + 1);
        }
        victim.kill().expect("ours");
        while let Some(n) = told() {
            acked = acked.max(n + 1);
        }
        victim.wait().expect("ours");
        let directory = Directory::open(&path).expect("its lock died with it");
        let (seen, _) = open(Arc::new(directory), &Config::tiny(0), Start::default()).expect("sound");
        assert!(seen.len() as u64 >= acked, "life {life}: {} of {acked}", seen.len());
        for (n, (_, shown)) in (0..).zip(&seen) {
            assert_eq!(*shown, said(n, (n as usize * 97) % 3000));
        }
    }
    println!("{lives} kills, {acked} acknowledged records, none lost");
    std::fs::remove_dir_all(path).expect("ours");
}
