//! What the log does while nothing fails.

use std::sync::Arc;

use crate::harness::{Log, Placed, Said, open, said};
use myelin_wal::{Config, Entry, Lsn, MappedSegment, Start, read};

#[test]
fn what_was_synced_is_shown_again_in_order_across_segments_and_openings() {
    let mut log = Log::new(Config::tiny(0), 20);
    let mut n = 0;
    for round in 0..40 {
        n = log.write(n, &[&[1, 64, 65, 0, round * 100][..], &[5000], &[8192, 100, 8000]]);
    }
    assert_eq!(log.shown().expect("sound"), log.acked);
    let mut again = Log::on(log.disk.copy(), log.config.clone(), 20);
    assert_eq!(again.acked, log.acked);
    again.write(n, &[&[7, 700], &[7000]]);
    assert_eq!(again.shown().expect("sound"), again.acked);
}

/// Payload lengths around every edge of a segment: a record moves to the next one exactly when it does not fit.
#[test]
fn a_record_never_spans_segments_wherever_the_edge_falls() {
    for last in (0..=8192).step_by(32) {
        let mut log = Log::new(Config::tiny(0), 3);
        // Seven records leave 65,536 - 4,096 - 7 * 8,256 = 3,648 bytes of the segment.
        let n = log.write(0, &[&[8192; 3], &[8192; 3], &[8192]]);
        log.write(n, &[&[last], &[10]]);
        assert_eq!(log.shown().expect("sound"), log.acked, "with a last record of {last}");
        let moved = log.acked[7].0 > Lsn::from_bits(2 * log.config.segment_bytes);
        assert_eq!(moved, last > 3648 - 64, "a record of {last} bytes");
    }
}

#[test]
fn an_aborted_record_leaves_no_trace_even_if_it_caused_a_roll() {
    let mut log = Log::new(Config::tiny(0), 3);
    let n = log.write(0, &[&[8192; 3], &[8192; 3], &[8192]]);
    log.tail.begin(Entry { kind: 9, ..Entry::default() });
    log.tail.push(&[1; 3000]);
    log.tail.push(&[2; 3000]);
    log.tail.abort();
    assert!(log.tail.take_batch().is_none(), "nothing gathered");
    let n = log.write(n, &[&[100]]);
    assert!(log.append(&said(n, 5)));
    log.tail.begin(Entry { kind: 9, ..Entry::default() });
    log.tail.push(&[3; 100]);
    log.tail.abort();
    log.sync().expect("sound");
    assert_eq!(log.shown().expect("sound"), log.acked);
    assert_eq!(log.acked.len(), 9);
}

#[test]
fn no_room_is_an_answer_and_the_log_goes_on_when_there_is_room_again() {
    let mut log = Log::new(Config::tiny(0), 0);
    assert_eq!(log.tail.room(), 0, "a new log waits for its first spare");
    log.prepare(1).expect("room");
    assert_eq!(log.tail.room(), log.config.max_payload);
    let mut n = 0;
    while log.append(&said(n, 4000)) {
        n += 1;
    }
    assert!(n > 0 && log.tail.spares() == 0);
    log.sync().expect("sound");
    while log.append(&said(n, 4000)) {
        n += 1;
        log.sync().expect("sound");
    }
    assert!(log.tail.room() < 4000, "the segment is full and there is no spare");
    log.prepare(1).expect("room");
    log.write(n, &[&[4000]]);
    assert_eq!(log.shown().expect("sound"), log.acked);
}

#[test]
fn one_batch_is_under_way_at_a_time_and_buffers_are_bounded() {
    let mut log = Log::new(Config::tiny(0), 4);
    assert!(log.append(&said(0, 100)));
    let first = log.tail.take_batch().expect("gathered");
    let upto = log.tail.end_lsn();
    assert_eq!(first.upto(), upto);
    assert!(log.append(&said(1, 100)));
    assert!(log.tail.take_batch().is_none(), "one at a time");
    log.syncer.sync(&first).expect("sound");
    log.tail.synced(first.upto());
    let second = log.tail.take_batch().expect("gathered");
    log.syncer.sync(&second).expect("sound");
    log.tail.synced(second.upto());
    assert!(log.append(&said(2, 100)));
    let third = log.tail.take_batch().expect("gathered");
    assert_eq!(log.tail.room(), 0, "three buffers, all out");
    assert_eq!(log.tail.end_lsn(), third.upto());
    log.syncer.sync(&third).expect("sound");
    log.tail.synced(third.upto());
    log.tail.recycle(first);
    assert!(log.append(&said(3, 100)), "a buffer came back");
    let fourth = log.tail.take_batch().expect("gathered");
    log.syncer.sync(&fourth).expect("sound");
    assert_eq!(log.shown().expect("sound"), log.gathered);
}

#[test]
fn the_same_buffers_carry_every_batch() {
    let mut log = Log::new(Config::tiny(0), 8);
    let mut addresses = std::collections::BTreeSet::new();
    for n in 0..100 {
        assert!(log.append(&said(n, 64)));
        let batch = log.tail.take_batch().expect("gathered");
        addresses.insert(batch.writes().next().expect("one").blocks.as_ptr().addr());
        log.syncer.sync(&batch).expect("sound");
        log.acknowledge(batch);
    }
    assert_eq!(addresses.len(), 2, "one fills while the other is synced");
}

#[test]
fn a_mark_is_made_once_and_only_when_all_is_synced() {
    let mut log = Log::new(Config::tiny(0), 2);
    assert!(!log.tail.mark(), "nothing to say of a new log");
    assert!(log.append(&said(0, 10)));
    assert!(!log.tail.mark(), "records gather");
    let batch = log.tail.take_batch().expect("gathered");
    assert!(!log.tail.mark(), "a batch is under way");
    log.syncer.sync(&batch).expect("sound");
    log.acknowledge(batch);
    let end = log.tail.end_lsn();
    log.mark();
    assert!(log.tail.end_lsn() > end);
    assert!(!log.tail.mark(), "said already");
    log.write(1, &[&[10]]);
    log.mark();
    assert_eq!(log.shown().expect("sound"), log.acked, "marks are not shown");
    // After an opening nothing is known of the last record's kind, so one more is made.
    let mut again = Log::on(log.disk.copy(), log.config.clone(), 2);
    again.mark();
    assert_eq!(again.shown().expect("sound"), log.acked);
}

#[test]
fn a_checksum_that_the_sender_computed_is_the_one_that_is_stored() {
    let mut log = Log::new(Config::tiny(0), 1);
    let (head, body) = (said(1, 24).payload, said(2, 6000).payload);
    log.tail.begin(Entry { kind: 1, ..Entry::default() });
    log.tail.push(&head);
    log.tail.push_with_crc(&body, crc32fast::hash(&body));
    log.tail.push(&head);
    log.tail.end();
    let whole = [head.clone(), body.clone(), head].concat();
    let batch = log.tail.take_batch().expect("gathered");
    assert_eq!(batch.records().next().expect("one").header.payload_crc, crc32fast::hash(&whole));
    log.syncer.sync(&batch).expect("sound");
    assert_eq!(log.shown().expect("sound")[0].1.payload, whole);

    // A body that changed after its sender summed it is found by the next reader, not stored under a new sum.
    let mut log = Log::new(Config::tiny(0), 1);
    log.tail.begin(Entry { kind: 1, ..Entry::default() });
    log.tail.push_with_crc(&body, crc32fast::hash(&body) ^ 1);
    log.tail.end();
    let batch = log.tail.take_batch().expect("gathered");
    log.syncer.sync(&batch).expect("sound");
    assert_eq!(log.shown().expect("torn, never acknowledged"), Vec::new());
}

#[test]
fn a_checkpoint_frees_segments_and_the_log_lives_in_a_bounded_number_of_them() {
    let config = Config { max_segments: 4, ..Config::tiny(0) };
    let mut log = Log::new(config.clone(), 4);
    let mut n = 0;
    for _ in 0..200 {
        n = log.write(n, &[&[3000; 3]]);
        let checkpoint = log.tail.synced_upto();
        log.tail.release(checkpoint);
        assert!(log.tail.oldest() <= checkpoint);
    }
    assert!(log.tail.end_lsn().bits() > 20 * config.segment_bytes, "every slot was used many times");
    let from = log.acked[log.acked.len() - 5].0;
    let (seen, recovered) =
        open(Arc::new(log.disk.copy()), &config, Start { from, synced: log.tail.synced_upto() }).expect("sound");
    assert_eq!(seen, log.acked[log.acked.len() - 5..]);
    assert_eq!(recovered.report.end, log.tail.end_lsn());
    // Without a checkpoint the log shows what the last roll knew to be needed.
    let all = log.shown().expect("sound");
    assert!(log.acked.ends_with(&all) && all.len() >= 5);
}

#[test]
fn durable_records_can_be_read_back_from_any_segment_and_mapped_from_sealed_ones() {
    let mut log = Log::new(Config::tiny(0), 8);
    let mut n = 0;
    for _ in 0..30 {
        n = log.write(n, &[&[3000, 10], &[3000, 500]]);
    }
    log.mark();
    let mut read_back: Vec<Placed> = Vec::new();
    let mut at = log.tail.oldest();
    while let Some(pinned) = log.tail.pin(at) {
        at = read(&log.disk, &log.config, &pinned, at, &mut |record| {
            read_back.push((record.lsn, Said::from(record)));
            Ok(())
        })
        .expect("sound");
    }
    assert_eq!(read_back, log.acked);
    assert_eq!(at, log.tail.synced_upto());

    let mut mapped: Vec<Placed> = Vec::new();
    let mut at = log.tail.oldest();
    while let Some(pinned) = log.tail.pin(at).filter(myelin_wal::Pinned::is_sealed) {
        let segment = MappedSegment::open(&log.disk, &log.config, pinned).expect("sound");
        mapped.extend(segment.records().map(|record| (record.lsn, Said::from(record))));
        at = segment.end();
    }
    assert!(mapped.len() > 100 && log.acked.starts_with(&mapped));

    let from = log.acked[57].0;
    let pinned = log.tail.pin(from).expect("durable");
    let mut first = None;
    read(&log.disk, &log.config, &pinned, from, &mut |record| {
        first = first.or(Some(record.lsn));
        Ok(())
    })
    .expect("sound");
    assert_eq!(first, Some(from));
}

#[test]
fn a_visitors_refusal_ends_the_recovery_with_its_reason() {
    let mut log = Log::new(Config::tiny(0), 2);
    log.write(0, &[&[10, 20, 30]]);
    let mut left = 2;
    let ended = myelin_wal::recover(Arc::new(log.disk.copy()), &log.config, Start::default(), &mut |_| {
        left -= 1;
        if left == 0 { Err("enough".into()) } else { Ok(()) }
    });
    let error = ended.expect_err("refused");
    assert!(matches!(error, myelin_wal::WalError::Replay { lsn, .. } if lsn == log.acked[1].0), "{error}");
}

#[test]
fn what_a_core_must_hand_over_can_cross_threads() {
    fn crosses<T: Send>() {}
    crosses::<myelin_wal::Batch>();
    crosses::<myelin_wal::Tail>();
    crosses::<myelin_wal::Syncer>();
    crosses::<myelin_wal::Preparer>();
    crosses::<myelin_wal::Pinned>();
    crosses::<myelin_wal::MappedSegment>();
    crosses::<myelin_wal::HardStateFile>();
}
