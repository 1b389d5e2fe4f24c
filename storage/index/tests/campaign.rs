//! Runs, blocks, directories and states against mutated inputs: no panic, bounded memory, and never a wrong answer.
//!
//! A run is a file of header, blocks, directory and footer, each under a checksum; in half of the trials whoever mutated it
//! makes all of them right again, so that the readers of blocks and pages are reached.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use myelin_datom::{AttributeName, Entity, EntityId, Given, Op, Quote, Slot, Tick, Tx, Value, received_delta};
use myelin_index::{
    Asked, ColumnRow, Columns, ColumnsConfig, Components, FactFloors, FactRun, Facts, Filter, IndexError, LogPlace,
    MarketOptions, Order, Run, merge_facts,
};
use myelin_mutants::{Depth, Dice, campaign, campaign_with, mutant};

/// The run's last bytes (`storage/index/README.md` draws them). **Units:** bytes.
const FOOTER_BYTES: usize = 128;
/// One block's line of the directory. **Units:** bytes.
const ENTRY_BYTES: usize = 104;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("campaign-{name}.run"))
}

/// A file for each thread of a campaign. It is written in place: one that is cut to nothing first is written out by ext4 when it
/// is closed, 3 ms each time.
fn files(name: &str) -> impl Fn() -> (File, PathBuf) + Sync {
    let made = AtomicU32::new(0);
    move || {
        let path = file(&format!("{name}-{}", made.fetch_add(1, Ordering::Relaxed)));
        (File::create(&path).unwrap(), path)
    }
}

fn market(n: u64) -> EntityId {
    EntityId::market(Slot::new(77).unwrap(), n as u32)
}

fn tick(n: u64) -> Tick {
    // One market's ids ascend, the other's do not.
    let id = if n.is_multiple_of(2) { n + 1 } else { 1 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 40) };
    Tick {
        market: market(n % 2),
        id,
        event_time_ns: n as i64 * 1_000_000,
        price: (n % 9) as f64 / 100.0,
        // A third does not fit any decimal scale, so that floats are coded too.
        volume: if n.is_multiple_of(3) { f64::from_bits(n << 50 | n) } else { n as f64 * 0.001 },
        trader: EntityId::from_bits(n % 5),
        side: (n % 3) as u8,
        received_delta_us: n as i32 * 10,
        source: (n % 2) as u32,
        ..bytemuck::Zeroable::zeroed()
    }
}

fn quote(n: u64) -> Quote {
    Quote {
        market: market(n % 2),
        id: n + 1,
        event_time_ns: n as i64 * 1_000_000,
        bid: 10.0 + (n % 7) as f64,
        bid_volume: 1.0,
        ask: 20.0,
        ask_volume: n as f64,
        received_delta_us: received_delta::UNKNOWN,
        source: 1,
    }
}

/// A run file's bytes, and the state that goes with it.
#[derive(Clone)]
struct Sound {
    run: Vec<u8>,
    state: Vec<u8>,
}

/// So many rows in transactions of `batch`.
fn sound<R: ColumnRow>(name: &str, row: impl Fn(u64) -> R, rows: u64, batch: usize) -> Sound {
    let mut columns = Columns::<R>::new(ColumnsConfig::default());
    (0..2).for_each(|n| _ = columns.add_market(market(n), MarketOptions::default()));
    let rows: Vec<R> = (0..rows).map(row).collect();
    let mut verdicts = Vec::new();
    for rows in rows.chunks(batch) {
        columns.check(rows, &mut verdicts).unwrap();
        columns.insert(columns.last_tx().next(), rows, &verdicts);
    }
    let frozen = columns.freeze().unwrap();
    let path = file(name);
    frozen.write_run(&path, &mut ()).unwrap();
    Sound { run: std::fs::read(&path).unwrap(), state: columns.state() }
}

/// Asks for what a run and a state offer: every row of every market, and in a thorough trial in every way.
fn exhaust<R: ColumnRow>(run: Arc<Run>, state: &[u8], thorough: bool) -> Result<(), IndexError> {
    let columns = Columns::<R>::restore(ColumnsConfig::default(), state, vec![run])?;
    let middle = Tx::from_bits(columns.last_tx().bits() / 2);
    for (number, ix) in columns.markets().enumerate() {
        columns.view(ix, middle)?.latest()?;
        let view = columns.view(ix, Tx::MAX)?;
        view.rows(&Filter { since: Tx::from_bits(1), ..Filter::default() }, |_| ControlFlow::Continue(()))?;
        if thorough {
            view.total(&Filter::default())?;
            view.total_decoded(&Filter::default())?;
            view.bars(&Filter::default(), 1_000_000)?;
            view.row_by_id(7 + number as u64)?;
        }
    }
    Ok(())
}

fn read(path: &Path, of: usize, state: &[u8], thorough: bool) -> Result<(), IndexError> {
    let run = Arc::new(Run::open(path)?);
    if of == 1 { exhaust::<Quote>(run, state, thorough) } else { exhaust::<Tick>(run, state, thorough) }
}

/// Where a family of runs keeps what a checksum is of. **Units:** bytes.
struct Frame {
    entry: usize,
    /// Within a block's entry.
    offset: usize,
    /// Of a footer's count of further entries, what one takes.
    more: usize,
}

const ROWS: Frame = Frame { entry: ENTRY_BYTES, offset: 16, more: 0 };
const FACTS: Frame = Frame { entry: 32, offset: 8, more: 24 };

/// Makes every checksum of a run right again, as somebody would who means harm. False when nothing is left to seal.
fn seal(bytes: &mut [u8], frame: &Frame) -> bool {
    let Some(footer) = bytes.len().checked_sub(FOOTER_BYTES).filter(|footer| *footer >= 64) else { return false };
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let (blocks, directory, texts) =
        (u32_at(bytes, footer + 12), u64_at(bytes, footer + 16), u32_at(bytes, footer + 24));
    let more = u32_at(bytes, footer + 72) * frame.more;
    let end = directory.saturating_add(blocks * frame.entry + texts + more);
    if end <= footer {
        for entry in (0..blocks).map(|n| directory + n * frame.entry) {
            // Offset, length and checksum stand side by side.
            let at = entry + frame.offset;
            let (offset, length) = (u64_at(bytes, at), u32_at(bytes, at + 8));
            if let Some(block) = bytes.get(offset..offset.saturating_add(length)) {
                let crc = crc32fast::hash(block);
                put(bytes, at + 12, crc);
            }
        }
        let crc = crc32fast::hash(&bytes[directory..end]);
        put(bytes, footer + 28, crc);
    }
    let last = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[footer..last]);
    put(bytes, last, crc);
    let crc = crc32fast::hash(&bytes[..60]);
    put(bytes, 60, crc);
    true
}

/// Mutates a run; in most trials at places that keep its length, so that more than the footer is tried.
fn spoiled(dice: &mut Dice, sound: &[u8], other: &[u8], entry_bytes: usize) -> Vec<u8> {
    if dice.one_in(3) {
        return mutant(dice, &[sound, other]);
    }
    let mut bytes = sound.to_vec();
    for _ in 0..1 + dice.below(3) {
        let footer = bytes.len() - FOOTER_BYTES;
        let at = match dice.below(4) {
            0 => dice.below(bytes.len()),
            // Headers of blocks and columns, and pco's metadata.
            1 => 64 + dice.below(footer.saturating_sub(64).min(400)),
            // The directory.
            2 => footer - 1 - dice.below((2 * entry_bytes + 200).min(footer - 64)),
            _ => footer + dice.below(FOOTER_BYTES),
        };
        let number = dice.number().to_le_bytes();
        let width = (*dice.pick(&[1, 1, 2, 4, 8])).min(bytes.len() - at);
        if dice.one_in(2) {
            bytes[at] ^= 1 << dice.below(8);
        } else {
            bytes[at..at + width].copy_from_slice(&number[..width]);
        }
    }
    bytes
}

#[test]
fn campaign_no_bytes_break_a_run_and_none_passes_for_another() {
    // The last one has more than one page of transactions in each market.
    let all = [
        sound("ticks", tick, 40, 25),
        sound("quotes", quote, 30, 25),
        sound("more", tick, 120, 25),
        sound("many-transactions", tick, 1_100, 1),
    ];
    campaign_with("index-runs", 3_000, 1, files("mutant"), |(mutant, path), dice| {
        let of = dice.below(all.len());
        let other = dice.pick(&all);
        let mut bytes = spoiled(dice, &all[of].run, &other.run, ENTRY_BYTES);
        let sealed = dice.one_in(2) && seal(&mut bytes, &ROWS);
        mutant.write_all_at(&bytes, 0).and_then(|()| mutant.set_len(bytes.len() as u64)).unwrap();
        match read(path, of, &all[of].state, dice.one_in(4)) {
            Ok(()) => {
                assert!(sealed || bytes == all[of].run, "what passes unsealed was not changed");
                Depth::Taken
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                if sealed { Depth::Inside } else { Depth::Outside }
            }
        }
    });
}

#[test]
fn campaign_no_bytes_break_a_state() {
    let all = [sound("state-ticks", tick, 20, 25), sound("state-quotes", quote, 20, 25)];
    let runs = ["state-ticks", "state-quotes"].map(|name| Arc::new(Run::open(&file(name)).unwrap()));
    campaign("index-states", 5_000, 1, |dice| {
        let of = dice.below(all.len());
        let mut state = mutant(dice, std::slice::from_ref(&all[of].state));
        let sealed = dice.one_in(2) && state.len() > 4;
        if sealed {
            let (content, crc) = state.split_last_chunk_mut::<4>().unwrap();
            *crc = crc32fast::hash(content).to_le_bytes();
        }
        let run = Arc::clone(&runs[of]);
        let thorough = dice.one_in(8);
        let read =
            if of == 1 { exhaust::<Quote>(run, &state, thorough) } else { exhaust::<Tick>(run, &state, thorough) };
        match read {
            Ok(()) => Depth::Taken,
            Err(_) if sealed => Depth::Inside,
            Err(_) => Depth::Outside,
        }
    });
}

/// A run of facts and its state: an attribute with one value, one with many, a unique one, and what was taken back.
fn sound_facts(name: &str, said: u64) -> Sound {
    let mut facts = Facts::new();
    let slot = Slot::new(7).unwrap();
    let assert = |e: &str, a: &str, v: Value<'static>| Op::Assert {
        e: Entity::temp(e.to_owned()),
        a: AttributeName::Ident(a.to_owned().into()),
        v: Given::Value(v),
    };
    let mut transact = |tx: u64, ops: &[Op<'_>]| {
        let asked = Asked { slot, ops, market_exists: &|_| true };
        let plan = facts.check(Tx::from_bits(tx), asked).unwrap().unwrap();
        facts.insert(Tx::from_bits(tx), &plan);
        plan.tempids().iter().map(|(_, id)| *id).collect::<Vec<_>>()
    };
    let mut ops = Vec::new();
    for (name, value_type, many) in [("name", "string", false), ("age", "i64", false), ("friend", "ref", true)] {
        ops.push(assert(name, "db/ident", Value::keyword(name)));
        ops.push(assert(name, "db/value-type", Value::keyword(value_type)));
        ops.push(assert(name, "db/cardinality", Value::keyword(if many { "many" } else { "one" })));
    }
    ops.push(assert("name", "db/unique", Value::keyword("identity")));
    transact(1, &ops);
    for n in 0..said {
        let name = Value::string(format!("e{}", n % 3));
        let ops = [assert("e", "name", name), assert("e", "age", Value::I64(n as i64))];
        let e = transact(2 + 2 * n, &ops)[0];
        let friend = |retract: bool| {
            let (e, a, v) = (Entity::Id(e), AttributeName::Ident("friend".into()), Value::Ref(e));
            if retract {
                Op::Retract { e, a, v: Some(Given::Value(v)) }
            } else {
                Op::Assert { e, a, v: Given::Value(v) }
            }
        };
        transact(3 + 2 * n, &[friend(n % 4 == 3)]);
    }
    let frozen = facts.freeze().unwrap();
    let path = file(name);
    frozen.write_run(&FactFloors::default(), &path, &mut ()).unwrap();
    facts.install(&frozen, Arc::new(FactRun::open(&path).unwrap()));
    Sound { run: std::fs::read(&path).unwrap(), state: facts.state() }
}

/// Reads a run of facts in every order and as a log; in a thorough trial it is merged as well.
fn read_facts(path: &Path, state: &[u8], thorough: bool) -> Result<(), IndexError> {
    let run = Arc::new(FactRun::open(path)?);
    let facts = Facts::restore(state, vec![Arc::clone(&run)])?;
    for order in Order::ALL {
        let view = facts.view(Tx::MAX).history();
        view.datoms(order, &Components::default()).try_for_each(|datom| datom.map(drop))?;
    }
    let mut log = facts.log(&LogPlace::behind(Tx::ZERO), Tx::MAX, Tx::ZERO);
    while log.read()?.is_some() {}
    if thorough {
        let merged = path.with_extension("merged");
        merge_facts(&[run], &FactFloors::default(), true, &merged, &mut ())?;
        FactRun::open(&merged)?.verify()?;
    }
    Ok(())
}

#[test]
fn campaign_no_bytes_break_a_run_of_facts() {
    let all = [sound_facts("facts", 6), sound_facts("more-facts", 20)];
    campaign_with("index-fact-runs", 3_000, 1, files("facts-mutant"), |(mutant, path), dice| {
        let of = dice.below(all.len());
        let other = dice.pick(&all);
        let mut bytes = spoiled(dice, &all[of].run, &other.run, FACTS.entry);
        let sealed = dice.one_in(2) && seal(&mut bytes, &FACTS);
        mutant.write_all_at(&bytes, 0).and_then(|()| mutant.set_len(bytes.len() as u64)).unwrap();
        // A merge is synced: it is asked for where there is something to merge, and seldom.
        match read_facts(path, &all[of].state, dice.one_in(500)) {
            Ok(()) => {
                assert!(sealed || bytes == all[of].run, "what passes unsealed was not changed");
                Depth::Taken
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                if sealed { Depth::Inside } else { Depth::Outside }
            }
        }
    });
}
