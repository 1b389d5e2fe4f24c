//! Runs and states as bytes: damage is noticed, and what is drawn is what is written.

use crate::{assert_op, ident, shard, transact};
use myelin_datom::{Entity, Op, Tx, Value};
use myelin_index::{Components, FactFloors, FactRun, Facts, IndexError, LogPlace, Order, merge_facts};
use std::path::Path;
use std::sync::Arc;

fn sealed(dir: &Path) -> (Facts, std::path::PathBuf) {
    let (mut facts, ids) = shard(6);
    for tx in 3..60 {
        let e = Entity::Id(ids[tx as usize % 6]);
        let text = format!("{tx:0>700}");
        transact(
            &mut facts,
            tx,
            &[assert_op(&e, "tag", Value::keyword(format!("t{tx}"))), assert_op(&e, "name", Value::string(text))],
        )
        .unwrap();
    }
    let path = dir.join("a.facts");
    let frozen = facts.freeze().unwrap();
    frozen.write_run(&FactFloors::default(), &path, &mut ()).unwrap();
    (facts, path)
}

#[test]
fn every_flipped_byte_of_a_run_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (facts, path) = sealed(dir.path());
    let state = facts.state();
    let bytes = std::fs::read(&path).unwrap();
    assert!(FactRun::open(&path).unwrap().meta().blocks > 8, "a few blocks of each order");
    let bad = dir.path().join("bad.facts");
    for at in (0..bytes.len()).step_by(331).chain(bytes.len() - 160..bytes.len()).chain(0..64) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        std::fs::write(&bad, &broken).unwrap();
        let read = FactRun::open(&bad).and_then(|run| run.verify());
        assert!(matches!(read, Err(IndexError::Corrupt { .. } | IndexError::Version { .. })), "byte {at}: {read:?}");
        // And whoever reads it without verifying first is told, not lied to.
        if let Ok(run) = FactRun::open(&bad)
            && let Ok(facts) = Facts::restore(&state, vec![Arc::new(run)])
        {
            let orders = Order::ALL.map(|order| {
                facts.view(Tx::MAX).history().datoms(order, &Components::default()).any(|datom| datom.is_err())
            });
            let (from, mut told) = (LogPlace::behind(Tx::ZERO), false);
            let mut log = facts.log(&from, Tx::MAX, Tx::ZERO);
            while !told {
                match log.read() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => told = true,
                }
            }
            assert!(told || orders.contains(&true), "byte {at} went unnoticed");
        }
    }
    for cut in (0..bytes.len()).step_by(997) {
        std::fs::write(&bad, &bytes[..cut]).unwrap();
        assert!(FactRun::open(&bad).is_err());
    }
}

#[test]
fn a_reader_of_the_log_is_told_of_what_a_merge_dropped_at_the_end_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (mut facts, ids) = shard(1);
    let e = Entity::Id(ids[0]);
    let age = facts.attribute_named(crate::slot(), "age").unwrap().id;
    transact(&mut facts, 60, &[assert_op(&e, "age", Value::I64(7))]).unwrap();
    transact(&mut facts, 61, &[Op::Retract { e: e.clone(), a: ident("age"), v: None }]).unwrap();
    let frozen = facts.freeze().unwrap();
    let (first, second) = (dir.path().join("1.facts"), dir.path().join("2.facts"));
    frozen.write_run(&facts.floors(), &first, &mut ()).unwrap();
    facts.install(&frozen, Arc::new(FactRun::open(&first).unwrap()));
    assert!(facts.raise(age, Tx::from_bits(61), 2));
    let old = facts.runs().to_vec();
    let meta = merge_facts(&old, &facts.floors(), true, &second, &mut ()).unwrap();
    assert_eq!(meta.rows + 2, old[0].meta().rows, "what was said and taken back is gone");
    facts.install_merged(&old, Arc::new(FactRun::open(&second).unwrap()));
    let horizon = facts.log_horizon(|_| true);
    let mut log = facts.log(&LogPlace::behind(Tx::from_bits(55)), Tx::from_bits(61), horizon);
    assert!(matches!(log.read(), Err(IndexError::BelowHorizon { .. })), "never passed over");
}

/// What was left of them was no run, and nobody knew any more that there had been transactions.
#[test]
fn a_reader_of_the_log_is_told_of_a_merge_that_left_nothing_also_behind_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut facts = Facts::new();
    let doc = facts.attribute_named(crate::slot(), "db/doc").unwrap().id;
    let plan = transact(&mut facts, 60, &[assert_op(&Entity::temp("e"), "db/doc", Value::string("x"))]).unwrap();
    let e = Entity::Id(plan.tempids().iter().next().unwrap().1);
    transact(&mut facts, 61, &[Op::Retract { e, a: ident("db/doc"), v: None }]).unwrap();
    let frozen = facts.freeze().unwrap();
    let (first, second) = (dir.path().join("1.facts"), dir.path().join("2.facts"));
    frozen.write_run(&facts.floors(), &first, &mut ()).unwrap();
    facts.install(&frozen, Arc::new(FactRun::open(&first).unwrap()));
    assert!(facts.raise(doc, Tx::from_bits(61), 2));
    let old = facts.runs().to_vec();
    let meta = merge_facts(&old, &facts.floors(), true, &second, &mut ()).unwrap();
    assert_eq!((meta.rows, meta.tx_min, meta.tx_max), (0, Tx::from_bits(60), Tx::from_bits(61)));
    let empty = || Arc::new(FactRun::open(&second).unwrap());
    facts.install_merged(&old, empty());
    let restored = Facts::restore(&facts.state(), vec![empty()]).unwrap();
    for facts in [&facts, &restored] {
        let horizon = facts.log_horizon(|_| true);
        let read = |behind| {
            facts
                .log(&LogPlace::behind(Tx::from_bits(behind)), Tx::from_bits(99), horizon)
                .read()
                .map(|datom| datom.is_none())
        };
        assert!(matches!(read(55), Err(IndexError::BelowHorizon { .. })), "never passed over");
        assert!(read(61).unwrap(), "whoever has seen it all goes on");
        assert_eq!(facts.datoms(), 0);
    }
}

#[test]
fn a_state_that_is_damaged_or_of_other_runs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (facts, path) = sealed(dir.path());
    let state = facts.state();
    let run = || vec![Arc::new(FactRun::open(&path).unwrap())];
    assert!(Facts::restore(&state, run()).is_ok());
    assert!(matches!(Facts::restore(&state, Vec::new()), Err(IndexError::State { .. })));
    assert!(matches!(Facts::restore(&[], run()), Err(IndexError::State { .. })));
    for at in 0..state.len() {
        let mut broken = state.clone();
        broken[at] ^= 1;
        assert!(matches!(Facts::restore(&broken, run()), Err(IndexError::State { .. })), "byte {at}");
        assert!(matches!(Facts::restore(&state[..at], run()), Err(IndexError::State { .. })), "cut {at}");
    }
}

/// Each alone was no more than there ever were, but not all together.
#[test]
fn more_is_never_gone_than_there_was_and_a_state_that_says_so_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut facts, path) = sealed(dir.path());
    let (there, restore) =
        (facts.datoms(), |state: &[u8]| Facts::restore(state, vec![Arc::new(FactRun::open(&path).unwrap())]));
    let before = facts.state();
    for name in ["age", "tag", "score"] {
        assert!(facts.raise(facts.attribute_named(crate::slot(), name).unwrap().id, Tx::from_bits(3), there - 1));
    }
    assert_eq!(facts.datoms(), 0);
    assert_eq!(restore(&facts.state()).unwrap().datoms(), 0);
    // Signed again: more datoms than are in the runs and gone, and more than can be counted on from.
    for stored in [there + 1, u64::MAX] {
        let mut forged = before.clone();
        forged[24..32].copy_from_slice(&stored.to_le_bytes());
        let body = forged.len() - 4;
        let crc = crc32fast::hash(&forged[..body]);
        forged[body..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(restore(&forged), Err(IndexError::State { .. })), "{stored}");
    }
}

#[test]
fn the_bytes_of_a_run_are_where_the_page_draws_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path) = sealed(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..11], b"MYELFCT\n\x03\0\x03");
    assert_eq!(u32_at(60), crc32fast::hash(&bytes[..60]));
    let footer = bytes.len() - 128;
    assert_eq!(&bytes[footer..footer + 12], b"MYELFCT.\x03\0\x03\0");
    let (blocks, directory, firsts) = (u32_at(footer + 12), u64_at(footer + 16) as usize, u32_at(footer + 24) as usize);
    assert_eq!(directory + blocks as usize * 32 + firsts + 24 * u32_at(footer + 72) as usize, footer);
    assert_eq!(u32_at(footer + 28), crc32fast::hash(&bytes[directory..footer]));
    assert_eq!(u64_at(footer + 40), 1, "tx min");
    assert_eq!(u64_at(footer + 48), 59, "tx max");
    let taken = u32_at(footer + 72) as usize;
    assert_eq!(taken, 1, "one attribute was retracted: a name for a name");
    let retractions = footer - 24 * taken;
    assert_eq!((u64_at(retractions + 8), u64_at(retractions + 16)), (57, 59), "datoms, and the last of them");
    assert_eq!(u32_at(footer + 124), crc32fast::hash(&bytes[footer..footer + 124]));
    let mut datoms = 0;
    for block in 0..blocks as usize {
        let entry = directory + 32 * block;
        let (order, keys, offset) = (bytes[entry], u32_at(entry + 4), u64_at(entry + 8) as usize);
        let len = u32_at(entry + 16) as usize;
        assert_eq!(u32_at(entry + 20), crc32fast::hash(&bytes[offset..offset + len]));
        assert_eq!(u32_at(offset), keys);
        let last_end = u32_at(offset + 4 * keys as usize) as usize;
        assert_eq!(len, 4 + 4 * keys as usize + last_end);
        datoms += if order == 1 { u64::from(keys) } else { 0 };
    }
    assert_eq!(u64_at(footer + 32), datoms);
}
