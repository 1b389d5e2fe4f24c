//! No bytes make recovery panic, loop, or invent a record: mutations of valid logs, counted by how deep they came.

use std::sync::Arc;

use crate::crash::log_of_256;
use crate::harness::{Dice, Placed, open, shown};
use myelin_wal::sim::SimDisk;
use myelin_wal::{Config, HEADER_BYTES, HardStateFile, Lsn, Start, WalError};

/// Inputs of each decoder.
fn trials() -> u64 {
    let asked = std::env::var("MYELIN_WAL_STATES").ok().and_then(|states| states.parse().ok());
    asked.unwrap_or_else(|| match std::env::var("MYELIN_CAMPAIGN").as_deref() {
        Ok("ci") => 1_000_000,
        Ok("long") => 4_000_000,
        _ => 500,
    })
}

/// The line of a campaign that is through, and how deep its inputs came.
fn report(what: &str, depth: &str) {
    let trials = trials();
    println!("campaign wal-{what} trials={trials} failures=0 bound={:.1e}\n{what}: {depth}", 3.0 / trials as f64);
}

/// Mutates one place in one of the ways that decoders have been seen to fall for.
fn mutate(dice: &mut Dice, bytes: &mut [u8]) {
    let length = bytes.len() as u64;
    let at = dice.below(length) as usize;
    let run = (dice.below(200) as usize + 1).min(bytes.len() - at);
    match dice.below(6) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at..at + run].fill(0),
        2 => bytes[at..at + run].fill(0xff),
        3 => bytes[at..at + run].iter_mut().for_each(|byte| *byte = dice.next() as u8),
        4 => {
            let from = dice.below(length - run as u64 + 1) as usize;
            bytes.copy_within(from..from + run, at);
        }
        _ => {
            let record = at - at % HEADER_BYTES;
            let from = dice.below(length / HEADER_BYTES as u64) as usize * HEADER_BYTES;
            bytes.copy_within(from..from + HEADER_BYTES, record);
        }
    }
}

/// After a mutation someone who knows the format makes the record header's checksum right again.
fn reseal(bytes: &mut [u8], at: usize, config: &Config) {
    let epoch = u64::from(u32::from_le_bytes(bytes[at + 48..at + 52].try_into().expect("four")));
    let lsn = epoch.wrapping_mul(config.segment_bytes).wrapping_add(at as u64);
    let sealed = [&(lsn ^ config.log_id).to_le_bytes(), &bytes[at..at + 60]].concat();
    bytes[at + 60..at + 64].copy_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
}

fn is_known(error: &WalError) -> bool {
    matches!(error, WalError::Corrupt { .. } | WalError::Mismatch { .. } | WalError::Missing { .. })
}

#[test]
fn mutated_segments_are_refused_or_cut_and_no_record_is_invented() {
    let log = log_of_256();
    // The hard state's watermark: a mutation may take the last record and the mark behind it together.
    let start = Start { from: Lsn::ZERO, synced: log.tail.synced_upto() };
    let originals = ["segment-0000", "segment-0001"].map(|file| (file, log.disk.bytes(file)));
    let (mut dice, mut whole, mut refused) = (Dice(1), 0, 0);
    for _ in 0..trials() {
        let (file, original) = &originals[dice.below(2) as usize];
        let mut mutated = original.clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut dice, &mut mutated);
        }
        log.disk.change(file, |bytes| *bytes = mutated);
        match open(Arc::new(log.disk.clone()), &log.config, start) {
            Ok((seen, _)) => {
                assert!(seen == log.acked, "a changed log was accepted: {} records", seen.len());
                whole += 1;
            }
            Err(error) => {
                assert!(is_known(&error), "{error}");
                refused += 1;
            }
        }
        log.disk.change(file, |bytes| bytes.clone_from(original));
    }
    assert!(refused > whole / 10);
    report("mutated-segments", &format!("{whole} unharmed, {refused} refused, 0 accepted wrongly"));
}

/// Checksums are no defence against a forger; bounds are.
#[test]
fn headers_with_a_right_checksum_and_wrong_fields_do_not_panic() {
    let log = log_of_256();
    let original = log.disk.bytes("segment-0000");
    let starts: Vec<usize> =
        log.acked.iter().map(|(lsn, _)| (lsn.bits() % log.config.segment_bytes) as usize).take(100).collect();
    let (mut dice, mut passed, mut refused) = (Dice(2), 0, 0);
    for _ in 0..trials() {
        let mut forged = original.clone();
        let at = starts[dice.below(starts.len() as u64) as usize];
        let field = [4, 5, 6, 8, 12, 24, 40, 44, 48, 52, 56][dice.below(11) as usize];
        let value = [0, 1, 63, 64, 0x7fff_ffff, u32::MAX, dice.next() as u32][dice.below(7) as usize];
        forged[at + field..at + field + 4].copy_from_slice(&value.to_le_bytes());
        reseal(&mut forged, at, &log.config);
        log.disk.change("segment-0000", |bytes| *bytes = forged);
        match shown(&log.disk, &log.config) {
            Ok(_) => passed += 1,
            Err(error) if is_known(&error) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0);
    report("forged-headers", &format!("all behind the checksum, {passed} in bounds, {refused} refused"));
}

#[test]
fn segment_headers_with_a_right_checksum_and_wrong_fields_do_not_panic() {
    let log = log_of_256();
    let (mut dice, mut passed, mut refused) = (Dice(4), 0, 0);
    for _ in 0..trials() {
        let segment = ["segment-0000", "segment-0001"][dice.below(2) as usize];
        let original = log.disk.bytes(segment);
        let field = [8, 12, 16, 20, 24, 32, 36, 40, 44, 48, 56][dice.below(11) as usize];
        let value = [0, 1, 2, 4096, 65_537, 0x7fff_ffff, u32::MAX, dice.next() as u32][dice.below(8) as usize];
        log.disk.change(segment, |bytes| {
            bytes[field..field + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        });
        match crate::harness::Log::try_on(log.disk.copy(), log.config.clone(), Start::default(), 2) {
            Ok(mut log) => {
                passed += 1;
                while log.append(&crate::harness::said(7, 8000)) && log.tail.spares() > 0 {
                    log.sync().expect("sound");
                }
            }
            Err(error) if is_known(&error) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        log.disk.change(segment, |bytes| *bytes = original);
    }
    assert!(refused > passed);
    report("forged-segment-headers", &format!("all behind the checksum, {passed} in bounds, {refused} refused"));
}

#[test]
fn segments_of_noise_are_blank_slots_and_are_prepared_again() {
    let config = Config::tiny(0);
    for seed in 0..20 {
        let disk = SimDisk::new();
        let mut dice = Dice(seed);
        myelin_wal::Disk::allocate(&disk, "segment-0003", config.segment_bytes).expect("room");
        disk.change("segment-0003", |bytes| bytes.iter_mut().for_each(|byte| *byte = dice.next() as u8));
        let mut log = crate::harness::Log::on(disk, config.clone(), 2);
        assert_eq!(log.acked, Vec::<Placed>::new());
        log.write(0, &[&[8000; 3], &[8000; 3], &[8000; 3]]);
        assert_eq!(log.shown().expect("sound"), log.acked);
    }
}

#[test]
fn mutated_hard_states_are_read_whole_from_the_other_copy_or_refused() {
    let config = Config::tiny(0);
    let disk = SimDisk::new();
    let (mut file, _) = HardStateFile::open(&disk, &config).expect("new");
    let state = myelin_wal::HardState { groups: vec![myelin_wal::GroupState::default(); 9], ..Default::default() };
    file.store(&state).expect("sound");
    let original = disk.bytes("hard-state");
    let (mut dice, mut whole) = (Dice(3), 0);
    for _ in 0..trials() {
        let mut mutated = original.clone();
        mutate(&mut dice, &mut mutated);
        disk.change("hard-state", |bytes| *bytes = mutated);
        match HardStateFile::open(&disk, &config) {
            Ok((_, read)) => {
                assert_eq!(read, state);
                whole += 1;
            }
            Err(error) => assert!(is_known(&error), "{error}"),
        }
        disk.change("hard-state", |bytes| bytes.clone_from(&original));
    }
    assert!(whole > 0);
    report("mutated-hard-states", &format!("{whole} read whole from one copy or the other"));
}

/// A payload may hold what looks like records of this very place in the log; who does not know the log's id cannot make
/// one that counts.
#[test]
fn a_payload_full_of_forged_headers_does_not_turn_a_torn_tail_into_damage() {
    let config = Config { log_id: 0x5eed, ..Config::tiny(0) };
    let guess = Config { log_id: 0, ..config.clone() };
    let mut log = crate::harness::Log::new(config.clone(), 1);
    log.write(0, &[&[100]]);
    let template = log.disk.bytes("segment-0000");
    // The forger knows everything but the id: epoch, offsets, and that a high watermark is what recovery looks for.
    let mut image = template.clone();
    for at in (4480..12_000).step_by(64) {
        image.copy_within(4096..4160, at);
        image[at + 40..at + 48].copy_from_slice(&(config.segment_bytes + at as u64).to_le_bytes());
        reseal(&mut image, at, &guess);
    }
    log.tail.begin(myelin_wal::Entry { kind: 1, ..Default::default() });
    log.tail.push(&image[4352..11_000]);
    log.tail.end();
    log.disk.arm(0, myelin_wal::sim::Fault::PowerLoss(myelin_wal::sim::Keep::Mask(!1)));
    log.sync().expect_err("the power is gone");
    log.disk.restart();
    let (seen, _) = open(Arc::new(log.disk.clone()), &config, Start::default()).expect("a torn tail");
    assert_eq!(seen, log.acked);
}
