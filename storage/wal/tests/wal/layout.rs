//! Every byte as the README draws it. A change here is a change of format: raise the version.

use std::path::Path;

use crate::harness::{Log, said};
use myelin_wal::{Config, GroupState, HardState, HardStateFile, Lsn};

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
}

#[test]
fn the_bytes_on_disk_are_the_bytes_in_the_readme() {
    let config = Config { core: 3, log_id: 0x0123_4567_89ab_cdef, ..Config::tiny(3) };
    let mut log = Log::new(config.clone(), 1);
    log.write(0, &[&[100], &[7]]);
    let bytes = log.disk.bytes("segment-0000");
    assert_eq!(bytes.len() as u64, config.segment_bytes);

    let segment = &bytes[..4096];
    assert_eq!(&segment[..8], b"MyelnWal");
    assert_eq!((u32_at(segment, 8), u32_at(segment, 12), u32_at(segment, 16), u32_at(segment, 20)), (1, 3, 1, 1));
    assert_eq!(u64_at(segment, 24), config.segment_bytes);
    assert_eq!(u64_at(segment, 32), config.segment_bytes, "epoch 0 ends where epoch 1 begins");
    assert_eq!(u64_at(segment, 40), config.segment_bytes);
    assert_eq!(u64_at(segment, 48), config.log_id);
    assert_eq!(u32_at(segment, 56), 0);
    assert_eq!(u32_at(segment, 60), crc32fast::hash(&segment[..60]));
    assert!(segment[64..].iter().all(|&byte| byte == 0));

    // Record 0 takes 64 + 128 bytes, so record 1 starts at 4,288.
    for (n, at, length, synced) in [(0, 4096, 100, config.segment_bytes), (1, 4288, 7, config.segment_bytes + 4288)] {
        let (said, record) = (said(n, length), &bytes[at..]);
        let lsn = config.segment_bytes + at as u64;
        assert_eq!(&record[..4], b"MyRc");
        assert_eq!((record[4], record[5], u16_at(record, 6)), (said.entry.kind, 1, said.entry.group));
        assert_eq!((u32_at(record, 8), u32_at(record, 12)), (length as u32, crc32fast::hash(&said.payload)));
        assert_eq!((u64_at(record, 16), u64_at(record, 24)), (said.entry.term, said.entry.index));
        assert_eq!((u64_at(record, 32), u64_at(record, 40)), (said.entry.tx, synced));
        assert_eq!((u32_at(record, 48), u32_at(record, 52)), (1, 1));
        assert_eq!(u32_at(record, 56), if n == 0 { 0 } else { u32_at(&bytes[4096..], 60) });
        let sealed = [&(lsn ^ config.log_id).to_le_bytes(), &record[..60]].concat();
        assert_eq!(u32_at(record, 60), crc32fast::hash(&sealed));
        assert_eq!(&record[64..64 + length], said.payload);
        assert!(record[64 + length..(64 + length).next_multiple_of(64)].iter().all(|&byte| byte == 0));
    }
    assert!(bytes[4288 + 128..].iter().all(|&byte| byte == 0), "nothing behind the end");
}

#[test]
fn the_hard_state_is_two_equal_blocks_with_their_checksums_last() {
    let config = Config { core: 3, log_id: 0x0123_4567_89ab_cdef, ..Config::tiny(3) };
    let disk = myelin_wal::sim::SimDisk::new();
    let (mut file, _) = HardStateFile::open(&disk, &config).expect("new");
    let group = GroupState { term: 5, vote: 6, commit: 7, group: 8, ..GroupState::default() };
    let state = HardState { synced: Lsn::from_bits(9), groups: vec![GroupState::default(), group] };
    file.store(&state).expect("sound");
    let bytes = disk.bytes("hard-state");
    assert_eq!(bytes.len(), 8192);
    assert_eq!(bytes[..4096], bytes[4096..]);
    assert_eq!(&bytes[..8], b"MyelnHrd");
    assert_eq!((u32_at(&bytes, 8), u32_at(&bytes, 12), u64_at(&bytes, 16), u64_at(&bytes, 24)), (1, 3, 1, 9));
    assert_eq!((u32_at(&bytes, 32), u32_at(&bytes, 36), u64_at(&bytes, 40)), (2, 0, config.log_id));
    assert!(bytes[48..96].iter().all(|&byte| byte == 0));
    assert_eq!((u64_at(&bytes, 96), u64_at(&bytes, 104), u64_at(&bytes, 112), u16_at(&bytes, 120)), (5, 6, 7, 8));
    assert_eq!(u32_at(&bytes, 4092), crc32fast::hash(&bytes[..4092]));
}

#[test]
fn every_file_that_the_readme_names_is_there() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(home.join("README.md")).expect("readable");
    let named: Vec<_> = readme.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")).collect();
    assert!(named.len() >= 5);
    for name in named {
        assert!(home.join(name).exists(), "{name}");
    }
}
