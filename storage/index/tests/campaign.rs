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

use myelin_datom::{EntityId, Quote, Slot, Tick, Tx, received_delta};
use myelin_index::{ColumnRow, Columns, ColumnsConfig, Filter, IndexError, MarketOptions, Run};
use myelin_mutants::{Depth, Dice, campaign, campaign_with, mutant};

/// The run's last bytes (`storage/index/README.md` draws them). **Units:** bytes.
const FOOTER_BYTES: usize = 128;
/// One block's line of the directory. **Units:** bytes.
const ENTRY_BYTES: usize = 104;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("campaign-{name}.run"))
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

fn sound<R: ColumnRow>(name: &str, row: impl Fn(u64) -> R, rows: u64) -> Sound {
    let mut columns = Columns::<R>::new(ColumnsConfig::default());
    (0..2).for_each(|n| _ = columns.add_market(market(n), MarketOptions::default()));
    let rows: Vec<R> = (0..rows).map(row).collect();
    let mut verdicts = Vec::new();
    for rows in rows.chunks(25) {
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
    for (number, ix) in columns.markets().enumerate() {
        columns.view(ix, Tx::from_bits(1))?.latest()?;
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

/// Makes every checksum of a run right again, as somebody would who means harm. False when nothing is left to seal.
fn seal(bytes: &mut [u8]) -> bool {
    let Some(footer) = bytes.len().checked_sub(FOOTER_BYTES).filter(|footer| *footer >= 64) else { return false };
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let (blocks, directory, totals) =
        (u32_at(bytes, footer + 12), u64_at(bytes, footer + 16), u32_at(bytes, footer + 24));
    let end = directory.saturating_add(blocks * ENTRY_BYTES + totals);
    if end <= footer {
        for entry in (0..blocks).map(|n| directory + n * ENTRY_BYTES) {
            let (offset, length) = (u64_at(bytes, entry + 16), u32_at(bytes, entry + 24));
            if let Some(block) = bytes.get(offset..offset.saturating_add(length)) {
                let crc = crc32fast::hash(block);
                put(bytes, entry + 28, crc);
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
fn spoiled(dice: &mut Dice, sound: &Sound, other: &Sound) -> Vec<u8> {
    if dice.one_in(3) {
        return mutant(dice, &[&sound.run, &other.run]);
    }
    let mut bytes = sound.run.clone();
    for _ in 0..1 + dice.below(3) {
        let footer = bytes.len() - FOOTER_BYTES;
        let at = match dice.below(4) {
            0 => dice.below(bytes.len()),
            // Headers of blocks and columns, and pco's metadata.
            1 => 64 + dice.below(footer.saturating_sub(64).min(400)),
            // The directory.
            2 => footer - 1 - dice.below((2 * ENTRY_BYTES + 200).min(footer - 64)),
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
    let all = [sound("ticks", tick, 40), sound("quotes", quote, 30), sound("more", tick, 120)];
    // Written in place: a file that is cut to nothing first is written out by ext4 when it is closed, 3 ms each time.
    let files_made = AtomicU32::new(0);
    let a_file = || {
        let path = file(&format!("mutant-{}", files_made.fetch_add(1, Ordering::Relaxed)));
        (File::create(&path).unwrap(), path)
    };
    campaign_with("index-runs", 3_000, 1, a_file, |(mutant, path), dice| {
        let of = dice.below(all.len());
        let other = dice.pick(&all);
        let mut bytes = spoiled(dice, &all[of], other);
        let sealed = dice.one_in(2) && seal(&mut bytes);
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
    let all = [sound("state-ticks", tick, 20), sound("state-quotes", quote, 20)];
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
