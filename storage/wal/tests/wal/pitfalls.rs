//! The ways in which logs have lost data, one test each. The numbers are rows of the project's list of pitfalls.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::crash::log_of_256;
use crate::harness::{Log, open, said, shown};
use myelin_wal::sim::{Fault, Keep, SimDisk};
use myelin_wal::{
    Config, Disk as _, GroupState, HardState, HardStateFile, Lsn, MappedSegment, Start, Step, WalError, inspect,
};

fn is_corrupt<T>(outcome: &Result<T, WalError>) -> bool {
    matches!(outcome, Err(WalError::Corrupt { .. }))
}

/// Row 22. After a failed sync the kernel marks the pages clean, and the next sync "succeeds".
#[test]
fn a_failed_sync_is_never_retried_and_nothing_of_it_is_acknowledged() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[100, 200]]);
    assert!(log.append(&said(n, 300)));
    let batch = log.tail.take_batch().expect("gathered");
    log.disk.arm(0, Fault::Fail(ErrorKind::Other));
    assert!(matches!(log.syncer.sync(&batch), Err(WalError::Io { during: "write", .. })));
    assert!(log.syncer.is_poisoned());
    assert!(matches!(log.syncer.sync(&batch), Err(WalError::Poisoned)), "the disk would take it now");
    assert_eq!(log.tail.take_batch().map(|batch| batch.upto()), None, "nothing follows it");
    assert_eq!(log.shown().expect("sound"), log.acked);
}

/// Row 23. There is no length word, commit mark or footer to be written later than what it describes.
#[test]
fn a_record_counts_only_if_all_of_it_is_there() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[100]]);
    assert!(log.append(&said(n, 3000)));
    // The header's sector arrives, the payload's last one does not.
    log.disk.arm(0, Fault::PowerLoss(Keep::Mask(0b0011_1111)));
    log.sync().expect_err("the power is gone");
    log.disk.restart();
    let (seen, recovered) = open(Arc::new(log.disk.clone()), &log.config, Start::default()).expect("a torn tail");
    assert_eq!(seen, log.acked);
    assert_eq!(recovered.report.cut.expect("torn").what, "payload crc");
}

/// Row 24. A segment is named, sized and zeroed before it is offered; a half-made one is made again.
#[test]
fn a_crash_while_a_slot_is_prepared_costs_nothing() {
    for nth in 0..3 {
        let mut log = Log::new(Config::tiny(0), 1);
        log.write(0, &[&[100, 200]]);
        log.disk.arm(nth, Fault::PowerLoss(Keep::Mask(0x5555_5555)));
        let prepared = log.preparer.prepare();
        log.disk.restart();
        drop(prepared);
        let mut again = Log::on(log.disk.clone(), log.config.clone(), 3);
        assert_eq!(again.acked, log.acked);
        let n = again.write(2, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
        again.write(n, &[&[8000; 3], &[8000; 3]]);
        assert_eq!(again.shown().expect("sound"), again.acked);
    }
}

/// The slots of a disk, by number.
fn slots(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().expect("power");
    names.retain(|name| name.starts_with("segment-"));
    names
}

/// Rows 22 and 24. The sync of a slot in the making fails; the next one "succeeds", and the power takes the whole log with
/// the name or the size that was never durable. So the number rests until the next start, which makes it from nothing.
#[test]
fn a_slot_whose_making_failed_is_given_up_and_made_from_nothing_at_the_next_start() {
    type Fail = fn(&SimDisk);
    let failures: [(&str, Fail); 4] = [
        ("the sync of its allocation", SimDisk::lose_allocation),
        ("its allocation", |disk| disk.fail_allocations(Some(ErrorKind::Other))),
        ("the sync of its zeros", |disk| disk.arm(0, Fault::Unsynced)),
        ("the sync of its header", |disk| disk.arm(1, Fault::Unsynced)),
    ];
    for (story, fail) in failures {
        let mut log = Log::new(Config::tiny(0), 1);
        let n = log.write(0, &[&[100]]);
        fail(&log.disk);
        assert!(matches!(log.prepare(1), Err(WalError::Io { file, .. }) if file == "segment-0001"), "{story}");
        log.disk.fail_allocations(None);
        log.prepare(1).expect("the device is well again");
        assert_eq!(slots(&log.disk), ["segment-0000", "segment-0002"], "{story}");
        let n = log.write(n, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
        log.disk.restart();
        assert_eq!(log.shown().expect("sound"), log.acked, "{story}");
        let mut again = Log::on(log.disk.clone(), log.config.clone(), 1);
        assert_eq!(slots(&again.disk), ["segment-0000", "segment-0001", "segment-0002"], "{story}");
        again.write(n, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
        again.disk.restart();
        assert_eq!(again.shown().expect("sound"), again.acked, "{story}");
    }
}

/// Row 24. What a failed sync left in the cache of a process that died looks prepared to the next one, until it is settled.
#[test]
fn a_header_that_only_the_cache_has_does_not_make_a_spare() {
    let mut log = Log::new(Config::tiny(0), 1);
    let n = log.write(0, &[&[100]]);
    let made = log.preparer.step().expect("room");
    assert_eq!((made, log.preparer.step().expect("zeroed")), (Step::More, Step::More));
    // As if the process died before it removed the slot: the header is in the cache, and nowhere else.
    let header = log.disk.copy();
    let whole = Log::on(header.clone(), log.config.clone(), 1);
    drop(whole);
    let prepared = header.bytes("segment-0001")[..4096].to_vec();
    log.disk.arm(0, Fault::Unsynced);
    let file = log.disk.open("segment-0001").expect("there");
    let mut block = Box::new(AlignedBlock([0; 4096]));
    block.0.copy_from_slice(&prepared);
    file.write_at(0, &block.0).expect_err("its sync fails");
    assert_eq!(log.disk.bytes("segment-0001")[..8], *b"MyelnWal");
    let (_, mut recovered) = open(Arc::new(log.disk.clone()), &log.config, Start::default()).expect("sound");
    assert_eq!(recovered.tail.spares(), 0, "a slot that is not prepared");
    let mut again = Log::on(log.disk.clone(), log.config.clone(), 1);
    again.write(n, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
    again.disk.restart();
    assert_eq!(again.shown().expect("sound"), again.acked);
}

/// As the seam wants what is written.
#[repr(align(4096))]
struct AlignedBlock([u8; 4096]);

/// Row 29. A full disk is asked again and again; that costs no number and nothing that was written.
#[test]
fn a_full_disk_costs_no_slot_however_often_it_is_asked() {
    let mut log = Log::new(Config { max_segments: 3, ..Config::tiny(0) }, 1);
    log.disk.limit(log.config.segment_bytes);
    for _ in 0..100 {
        assert!(matches!(log.preparer.step(), Err(WalError::Full { limit: "device", .. })));
    }
    log.disk.limit(2 * log.config.segment_bytes);
    // Also where a file system promised too much: while it is zeroed, and at the header.
    for _ in ["allocated", "zeroed"] {
        assert_eq!(log.preparer.step().expect("room"), Step::More);
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded].repeat(50) {
            log.disk.arm(0, Fault::Fail(kind));
            assert!(matches!(log.preparer.step(), Err(WalError::Full { file, .. }) if file == "segment-0001"));
        }
    }
    log.prepare(2).expect("the same slot goes on");
    assert_eq!(slots(&log.disk), ["segment-0000", "segment-0001"]);
}

/// Row 22. A device that keeps failing is not asked for ever, and its numbers are there again at the next start.
#[test]
fn a_device_that_fails_every_slot_is_left_alone_and_costs_the_log_no_room() {
    let mut log = Log::new(Config { max_segments: 3, ..Config::tiny(0) }, 1);
    log.disk.fail_allocations(Some(ErrorKind::Other));
    let refusals: Vec<_> = (0..20).map(|_| log.preparer.prepare().expect_err("the device fails")).collect();
    let given_up = refusals.iter().filter(|refusal| matches!(refusal, WalError::Io { .. })).count();
    assert_eq!(given_up, 8);
    assert!(refusals[given_up..].iter().all(|refusal| matches!(refusal, WalError::Poisoned)));
    log.disk.fail_allocations(None);
    let again = Log::on(log.disk.clone(), log.config.clone(), 3);
    assert_eq!(slots(&again.disk), ["segment-0000", "segment-0001", "segment-0002"]);
    // Some fail, then the device is well: what failed does not count against the limit.
    let mut log = Log::new(Config { max_segments: 3, ..Config::tiny(0) }, 1);
    for _ in 0..3 {
        log.disk.lose_allocation();
        log.preparer.prepare().expect_err("the device fails");
    }
    log.prepare(3).expect("three segments are allowed");
    assert!(matches!(log.preparer.prepare(), Err(WalError::Full { limit: "max_segments", .. })));
}

/// Rows 22 and 31. A hard state whose making failed is made from nothing, and what is stored in it stays.
#[test]
fn a_hard_state_whose_making_failed_is_made_from_nothing_at_the_next_start() {
    let (disk, config) = (SimDisk::new(), Config::tiny(0));
    disk.lose_allocation();
    assert!(matches!(HardStateFile::open(&disk, &config), Err(WalError::Io { during: "allocate", .. })));
    let (mut file, new) = HardStateFile::open(&disk, &config).expect("the device is well again");
    assert_eq!(new, HardState::default());
    let state = HardState { synced: Lsn::from_bits(64), ..HardState::default() };
    disk.arm(1, Fault::Fail(ErrorKind::StorageFull));
    assert!(matches!(file.store(&state), Err(WalError::Full { .. })), "a full disk may be asked again");
    file.store(&state).expect("room again");
    disk.restart();
    assert_eq!(HardStateFile::open(&disk, &config).expect("sound").1, state);
}

/// Row 25. A later block may reach the medium without an earlier one; whole records behind a hole prove nothing.
#[test]
fn whole_records_behind_a_hole_in_the_same_batch_are_a_torn_tail() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[100]]);
    for n in n..n + 12 {
        assert!(log.append(&said(n, 900)));
    }
    log.disk.arm(0, Fault::PowerLoss(Keep::Mask(!0b1000)));
    log.sync().expect_err("the power is gone");
    log.disk.restart();
    let (seen, recovered) = open(Arc::new(log.disk.clone()), &log.config, Start::default()).expect("a torn tail");
    assert!(seen.starts_with(&log.acked) && seen.len() < log.acked.len() + 12);
    let cut = recovered.report.cut.expect("torn");
    assert!(cut.bytes > 5000, "what is behind the hole is recognised: {cut:?}");
}

/// Row 26. One flipped bit in the middle is not the end of the log.
#[test]
fn a_bad_record_with_a_later_batch_behind_it_is_damage_and_is_not_cut() {
    let log = log_of_256();
    let before = log.disk.bytes("segment-0000");
    for victim in [0, 1, 100, 254, 255] {
        let (lsn, said) = &log.acked[victim];
        let slot = lsn.bits() / log.config.segment_bytes - 1;
        let at = lsn.bits() % log.config.segment_bytes;
        let file = format!("segment-{slot:04}");
        for bit in [at * 8 + 90, (at + 64) * 8].into_iter().take(1 + usize::from(!said.payload.is_empty())) {
            log.disk.flip(&file, bit);
            match shown(&log.disk, &log.config) {
                Err(WalError::Corrupt { file: named, offset, .. }) => assert_eq!((named, offset), (file.clone(), at)),
                other => panic!("record {victim}: {:?}", other.map(|seen| seen.len())),
            }
            log.disk.flip(&file, bit);
        }
    }
    assert_eq!(log.disk.bytes("segment-0000"), before, "recovery writes nothing");
}

/// Row 26. The last batch has no batch behind it; a mark or the hard state is what proves it was durable.
#[test]
fn damage_to_the_last_batch_is_told_from_a_torn_tail_by_a_mark_or_by_the_hard_state() {
    let mut log = Log::new(Config::tiny(0), 2);
    log.write(0, &[&[100], &[200]]);
    let at = log.acked[1].0.bits() % log.config.segment_bytes;
    let disk = log.disk.copy();
    disk.flip("segment-0000", (at + 64) * 8);
    assert_eq!(shown(&disk, &log.config).expect("indistinguishable").len(), 1);
    let start = Start { from: Lsn::ZERO, synced: log.tail.synced_upto() };
    assert!(is_corrupt(&open(Arc::new(disk), &log.config, start)));

    log.mark();
    log.disk.flip("segment-0000", (at + 64) * 8);
    assert!(is_corrupt(&log.shown()));
}

/// Row 27. The length is believed only under a valid header checksum, and bounded by the segment even then.
#[test]
fn a_corrupt_length_does_not_lead_the_scan_astray() {
    let mut log = Log::new(Config::tiny(0), 2);
    log.write(0, &[&[100], &[200], &[300]]);
    log.mark();
    let at = (log.acked[1].0.bits() % log.config.segment_bytes) as usize;
    for length in [0, 1, 63, 65_536, u32::MAX] {
        let disk = log.disk.copy();
        disk.change("segment-0000", |bytes| bytes[at + 8..at + 12].copy_from_slice(&length.to_le_bytes()));
        let outcome = shown(&disk, &log.config);
        assert!(matches!(&outcome, Err(WalError::Corrupt { what: "header crc", offset, .. }) if *offset == at as u64));
    }
}

/// Row 28. A slot that is used again still holds the valid records of its last use.
#[test]
fn stale_records_of_a_recycled_segment_are_never_shown() {
    let config = Config { max_segments: 2, ..Config::tiny(0) };
    let mut log = Log::new(config.clone(), 2);
    let mut n = 0;
    while log.tail.end_lsn().bits() < 6 * config.segment_bytes {
        n = log.write(n, &[&[700; 3]]);
        log.tail.release(log.tail.synced_upto());
        let from = log.acked.len() - 3;
        let start = Start { from: log.acked[from].0, synced: log.tail.synced_upto() };
        let (seen, recovered) = open(Arc::new(log.disk.copy()), &config, start).expect("sound");
        assert_eq!(seen, log.acked[from..]);
        assert_eq!(recovered.report.cut, None, "stale bytes are no torn tail");
    }
}

/// Row 28. What a crash left behind the cut is as valid as what is written there next, and may even be the same bytes.
#[test]
fn what_lies_behind_a_cut_never_follows_what_is_written_there_later() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[448]]);
    // From 4,608 on: a record up to the block's edge and four behind it. The first one's header is lost, they arrive.
    for (n, length) in (n..).zip([3520, 448, 448, 448, 448]) {
        assert!(log.append(&said(n, length)));
    }
    log.disk.arm(0, Fault::PowerLoss(Keep::Mask(!0b10)));
    log.sync().expect_err("the power is gone");
    log.disk.restart();
    let mut again = Log::on(log.disk.clone(), log.config.clone(), 1);
    assert_eq!(again.acked.len(), 1);
    // The same record again, alike in every byte the caller decides: its stale successor lies right behind it.
    again.write(n, &[&[3520]]);
    assert_eq!(again.shown().expect("sound"), again.acked);
    assert_eq!(again.acked.len(), 2);
}

/// Row 29. Only a spare needs room, so a full disk is met ahead of need and refuses appends, nothing else.
#[test]
fn a_full_disk_is_a_typed_refusal_that_ends_when_a_checkpoint_frees_a_segment() {
    let mut log = Log::new(Config::tiny(0), 2);
    log.disk.limit(2 * log.config.segment_bytes);
    assert!(matches!(log.preparer.step(), Err(WalError::Full { limit: "device", .. })));
    let mut n = 0;
    while log.append(&said(n, 4000)) {
        log.sync().expect("a full disk does not fail what has its room");
        n += 1;
    }
    assert!(n > 20 && log.tail.room() < 4000);
    assert_eq!(log.shown().expect("still readable"), log.acked);
    assert!(matches!(log.preparer.step(), Err(WalError::Full { .. })), "still full, still typed");
    assert_eq!(log.tail.release(log.tail.synced_upto()), 1);
    log.write(n, &[&[4000], &[4000]]);

    log.disk.limit(3 * log.config.segment_bytes);
    assert_eq!(log.preparer.step().expect("room again"), Step::More);
    log.disk.arm(0, Fault::Fail(ErrorKind::StorageFull));
    assert!(matches!(log.preparer.step(), Err(WalError::Full { .. })), "a file system that promised too much");
    log.preparer.prepare().expect("the same slot goes on");
}

/// Row 29. `max_segments` bounds the log as a device would.
#[test]
fn the_log_stops_growing_at_its_limit_of_segments() {
    let mut log = Log::new(Config { max_segments: 2, ..Config::tiny(0) }, 2);
    assert!(matches!(log.preparer.prepare(), Err(WalError::Full { limit: "max_segments", .. })));
}

/// Row 30. A segment that somebody reads is not used again, whatever a checkpoint says.
#[test]
fn a_segment_that_is_mapped_is_not_recycled_until_its_last_reader_is_gone() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
    let pinned = log.tail.pin(log.tail.oldest()).expect("durable");
    let clone = pinned.clone();
    let mapped = MappedSegment::open(&log.disk, &log.config, pinned).expect("sound");
    let shown: Vec<_> = mapped.records().map(|record| record.header.index).collect();
    assert_eq!(log.tail.release(log.tail.synced_upto()), 0, "held");
    assert_eq!(log.tail.spares(), 0);
    drop(mapped);
    assert_eq!(log.tail.spares(), 0, "still held by a clone");
    drop(clone);
    assert_eq!(log.tail.spares(), 1);
    log.write(n, &[&[8000; 3], &[8000; 3]]);
    assert_eq!(shown, [0, 1, 2, 3, 4, 5, 6]);
}

/// Row 30. Truncation is damage, found before anything is mapped.
#[test]
fn a_truncated_segment_is_refused_by_name() {
    let log = log_of_256();
    log.disk.change("segment-0000", |bytes| bytes.truncate(20_000));
    let outcome = shown(&log.disk, &log.config);
    assert!(matches!(outcome, Err(WalError::Corrupt { what: "file size", found: 20_000, .. })));
}

/// Row 30. A map is made after verification; damage in between is found by it.
#[test]
fn a_damaged_segment_is_not_mapped() {
    let mut log = Log::new(Config::tiny(0), 2);
    log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
    let pinned = log.tail.pin(log.tail.oldest()).expect("durable");
    log.disk.flip("segment-0000", 8 * 9000);
    assert!(is_corrupt(&MappedSegment::open(&log.disk, &log.config, pinned)));
}

/// Row 31. A vote that was stored survives damage to either copy, and a crash in the middle of the next store.
#[test]
fn a_stored_vote_survives_damage_to_either_copy_and_a_torn_store() {
    let config = Config::tiny(0);
    let state = |term| HardState {
        synced: Lsn::from_bits(term * 64),
        groups: vec![GroupState { term, vote: 2, group: 1, ..GroupState::default() }],
    };
    for sector in 0..16 {
        let disk = SimDisk::new();
        let (mut file, new) = HardStateFile::open(&disk, &config).expect("new");
        assert_eq!(new, HardState::default());
        file.store(&state(1)).expect("sound");
        file.store(&state(2)).expect("sound");
        disk.change("hard-state", |bytes| bytes[sector * 512..(sector + 1) * 512].fill(0xa5));
        let (mut file, read) = HardStateFile::open(&disk, &config).expect("one copy is whole");
        assert_eq!(read, state(2));
        for nth in 0..2 {
            disk.arm(nth, Fault::PowerLoss(Keep::Mask(1 << (sector % 8))));
            file.store(&state(3)).expect_err("the power is gone");
            disk.restart();
            let (reopened, read) = HardStateFile::open(&disk, &config).expect("one copy is whole");
            assert!(read == state(2) || (nth == 1 && read == state(3)));
            file = reopened;
            file.store(&state(2)).expect("sound");
        }
    }
}

/// Row 31. A state that is lost is not an empty state.
#[test]
fn a_hard_state_with_both_copies_damaged_is_refused() {
    let disk = SimDisk::new();
    let config = Config::tiny(0);
    let (mut file, _) = HardStateFile::open(&disk, &config).expect("new");
    file.store(&HardState::default()).expect("sound");
    disk.flip("hard-state", 100);
    disk.flip("hard-state", 4096 * 8 + 100);
    assert!(is_corrupt(&HardStateFile::open(&disk, &config)));
    disk.arm(0, Fault::Fail(ErrorKind::Other));
    assert!(matches!(file.store(&HardState::default()), Err(WalError::Io { .. })));
    assert!(matches!(file.store(&HardState::default()), Err(WalError::Poisoned)));
}

/// A device that answered Ok and wrote nothing, or wrote elsewhere: seen as soon as a later batch is there.
#[test]
fn a_lost_and_a_misdirected_write_are_damage() {
    for fault in [Fault::Lost, Fault::Misdirected("segment-0001".to_owned(), 8192)] {
        let mut log = Log::new(Config::tiny(0), 2);
        let n = log.write(0, &[&[5000]]);
        log.disk.arm(0, fault);
        let n = log.write(n, &[&[5000]]);
        log.write(n, &[&[5000]]);
        assert!(is_corrupt(&log.shown()));
    }
}

/// A segment that is not there is not skipped, and neither is a log that is gone.
#[test]
fn a_missing_segment_or_an_empty_directory_is_refused_when_something_was_durable() {
    let mut log = Log::new(Config::tiny(0), 4);
    let n = log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3], &[8000; 3]]);
    log.write(n, &[&[10]]);
    for slot in 0..2 {
        let disk = log.disk.copy();
        disk.remove(&format!("segment-{slot:04}"));
        assert!(is_corrupt(&shown(&disk, &log.config)), "without slot {slot}");
    }
    let newest = log.disk.copy();
    newest.remove("segment-0002");
    let start = Start { from: Lsn::ZERO, synced: log.tail.synced_upto() };
    assert!(is_corrupt(&open(Arc::new(newest), &log.config, start)));
    assert!(is_corrupt(&open(Arc::new(SimDisk::new()), &log.config, start)));
    let start = Start { from: log.tail.end_lsn(), synced: Lsn::ZERO };
    let gone = open(Arc::new(SimDisk::new()), &log.config, start);
    assert!(matches!(gone, Err(WalError::Missing { .. })));
}

/// A checkpoint that is older than what was released cannot be replayed from.
#[test]
fn a_checkpoint_below_what_was_released_is_refused_as_missing() {
    let mut log = Log::new(Config { max_segments: 3, ..Config::tiny(0) }, 3);
    let mut n = 0;
    for _ in 0..12 {
        n = log.write(n, &[&[8000; 3]]);
        log.tail.release(log.tail.synced_upto());
    }
    let start = Start { from: log.acked[0].0, synced: Lsn::ZERO };
    let outcome = open(Arc::new(log.disk.copy()), &log.config, start);
    assert!(matches!(outcome, Err(WalError::Missing { .. })), "{:?}", outcome.map(|(seen, _)| seen.len()));
}

/// Damage to a header alone does not make the segment's records vanish.
#[test]
fn a_segment_whose_header_is_gone_but_whose_records_are_there_is_damage() {
    let log = log_of_256();
    for segment in ["segment-0000", "segment-0001"] {
        let disk = log.disk.copy();
        disk.change(segment, |bytes| bytes[..4096].fill(0));
        assert!(is_corrupt(&shown(&disk, &log.config)), "{segment}");
    }
}

/// Files of another core, log or segment size are the operator's mistake, not damage.
#[test]
fn a_directory_of_another_log_is_refused_by_the_field_that_differs() {
    let log = log_of_256();
    let config = &log.config;
    for (other, name) in [
        (Config { core: 1, ..config.clone() }, "core"),
        (Config { log_id: 1, ..config.clone() }, "log_id"),
        (Config { segment_bytes: 128 << 10, ..config.clone() }, "segment_bytes"),
    ] {
        let outcome = shown(&log.disk, &other);
        assert!(matches!(outcome, Err(WalError::Mismatch { what, .. }) if what == name), "{name}");
    }
}

/// Reading is refused by name too.
#[test]
fn a_device_that_cannot_be_read_is_an_io_error_with_file_and_place() {
    let log = log_of_256();
    log.disk.fail_reads(Some(ErrorKind::Other));
    let outcome = shown(&log.disk, &log.config);
    assert!(matches!(outcome, Err(WalError::Io { during: "read", file, offset: 0, .. }) if file == "segment-0000"));
}

/// Looking changes nothing; recovering takes the header of what was cut, and may be interrupted and repeated.
#[test]
fn a_torn_log_says_the_same_however_often_it_is_opened() {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[100]]);
    assert!(log.append(&said(n, 3000)));
    log.disk.arm(0, Fault::PowerLoss(Keep::Mask(0b11)));
    log.sync().expect_err("the power is gone");
    log.disk.restart();
    let (bytes, writes) = (log.disk.bytes("segment-0000"), log.disk.writes());
    let look = || inspect(&log.disk, &log.config, Start::default(), &mut |_| Ok(())).expect("torn");
    let torn = look();
    assert_eq!(torn, look());
    assert_eq!(log.disk.bytes("segment-0000"), bytes);
    assert_eq!(log.disk.writes(), writes);

    log.disk.arm(0, Fault::PowerLoss(Keep::None));
    assert!(matches!(open(Arc::new(log.disk.clone()), &log.config, Start::default()), Err(WalError::Io { .. })));
    log.disk.restart();
    assert_eq!(look(), torn);
    let (_, recovered) = open(Arc::new(log.disk.clone()), &log.config, Start::default()).expect("torn");
    assert_eq!(recovered.report, torn);
    assert_eq!(log.disk.writes(), 1);
    assert_eq!(look().end, torn.end);
    assert_eq!(look().cut, None);
}
