//! Crash states, enumerated: what a disk may look like after the power went, and what recovery must make of it.
//!
//! ```text
//!   states    every byte cut of a batch | every subset of its sectors | a crash in each write of a roll
//!             every flipped bit of a 256-record log | histories of crashes on top of crashes, from seeds
//!   oracle    shown = acknowledged, then a prefix of what was under way;  damage below the watermark is refused;
//!             and the log goes on: what is appended after the crash is shown after the next opening, and nothing else
//! ```
//!
//! Each check gives the number of states it visited or the first violation in words, so that `planted.rs` can ask
//! whether it sees a bug. Deliberately absent: chance without a seed.

use std::sync::Arc;

use crate::harness::{Dice, Log, Placed, open, said, shown};
use myelin_wal::sim::{Fault, Keep, SimDisk};
use myelin_wal::{Config, Lsn, Start, WalError};

/// States visited, or what went wrong first.
pub type Verdict = Result<u64, String>;

/// How many states each enumeration visits at least, if it has as many.
pub fn budget() -> u64 {
    let asked = std::env::var("MYELIN_WAL_STATES").ok().and_then(|states| states.parse().ok());
    asked.unwrap_or_else(|| match std::env::var("MYELIN_CAMPAIGN").as_deref() {
        Ok("ci") => 40_000,
        Ok("long") => 2_100_000,
        _ => 500,
    })
}

fn report(what: &str, verdict: Verdict) {
    let states = verdict.expect(what);
    println!("campaign wal-{} trials={states} failures=0 bound={:.1e}", what.replace(' ', "-"), 3.0 / states as f64);
}

/// About `budget` of `all`, all if there are fewer; the step is odd, so that every bit of the number varies.
fn every(all: u64, budget: u64) -> impl Iterator<Item = u64> {
    (0..all).step_by(usize::try_from(all / budget.max(1)).expect("small") | 1)
}

#[test]
fn after_every_byte_cut_of_the_last_batch_the_acknowledged_prefix_is_whole() {
    report("byte cuts", byte_cuts(budget()));
}

#[test]
fn after_every_subset_of_the_last_batchs_sectors_the_acknowledged_prefix_is_whole() {
    report("sector subsets", sector_subsets(budget()));
}

#[test]
fn after_a_crash_in_any_write_of_a_roll_the_acknowledged_prefix_is_whole() {
    report("rolls", rolls(budget()));
}

/// A history from seed 499 found it: the second torn write completed the first one's record, with the first one's
/// successors behind it.
#[test]
fn a_torn_write_over_a_torn_write_brings_nothing_back_that_was_cut() {
    report("torn twice", torn_twice(budget()));
}

#[test]
fn every_flipped_bit_below_the_watermark_is_harmless_or_refused_and_never_cut() {
    report("flipped bits", flipped_bits(budget()));
}

#[test]
fn histories_of_crashes_on_crashes_keep_every_acknowledged_record() {
    report("histories", histories(0, budget()));
}

/// A log with records behind it, whose last batch is under way: two records after a partial block.
fn before_the_last_batch(lengths: &[usize]) -> Log {
    let mut log = Log::new(Config::tiny(0), 2);
    let n = log.write(0, &[&[100, 900], &[3000], &[10, 20, 30]]);
    for (n, &length) in (n..).zip(lengths) {
        assert!(log.append(&said(n, length)));
    }
    log
}

pub fn byte_cuts(budget: u64) -> Verdict {
    let mut states = 0;
    for lengths in [[1500, 2500], [64, 1], [5000, 8000]] {
        let bytes = lengths.iter().sum::<usize>() as u64 + 4096;
        for cut in every(bytes, budget / 3) {
            let log = before_the_last_batch(&lengths);
            crash_and_go_on(log, 0, Keep::Prefix(cut as usize)).map_err(|why| format!("cut at {cut}: {why}"))?;
            states += 1;
        }
    }
    Ok(states)
}

pub fn sector_subsets(budget: u64) -> Verdict {
    let mut states = 0;
    // Two blocks, all 2^16 subsets; the same with a record that ends at the edge of the blocks (its successor is not
    // overwritten when it is sent again); eight pages of 4 KiB, each whole or not.
    let (apart, at_the_edge, pages) = (&[300, 2100, 1500, 100][..], &[3456, 1000, 1000][..], &[8000; 3][..]);
    for (lengths, pages, of) in [(apart, false, 1 << 16), (at_the_edge, false, 1 << 16), (pages, true, 1 << 8)] {
        for subset in every(of, budget / 2) {
            let mask =
                if pages { (0..8).map(|page| (subset >> page & 1) * (0xff << (8 * page))).sum() } else { subset };
            let log = before_the_last_batch(lengths);
            crash_and_go_on(log, 0, Keep::Mask(mask)).map_err(|why| format!("sectors {mask:#x}: {why}"))?;
            states += 1;
        }
    }
    Ok(states)
}

pub fn torn_twice(budget: u64) -> Verdict {
    let mut states = 0;
    // The first record takes seven sectors, up to a block's edge; two more are behind it. Which of the seven arrive at
    // the first crash, and which of the eight that are written at the second.
    for pair in every(1 << 15, budget) {
        let (first, second) = (pair & 0x7f, pair >> 7);
        let mut log = before_the_last_batch(&[3456, 1000, 1000]);
        log.disk.arm(0, Fault::PowerLoss(Keep::Mask(!0xff | first << 1)));
        log.sync().err().ok_or("the first crash was acknowledged")?;
        log.disk.restart();
        let sent = log.gathered[0].1.clone();
        let mut log = Log::on(log.disk, log.config, 2);
        if log.acked.len() == 6 {
            log.append(&sent);
        }
        crash_and_go_on(log, 0, Keep::Mask(second)).map_err(|why| format!("{first:#x}, then {second:#x}: {why}"))?;
        states += 1;
    }
    Ok(states)
}

pub fn rolls(budget: u64) -> Verdict {
    let mut states = 0;
    // One record still fits into the old segment, two go into the new one; or all go there, the first up to a block's
    // edge, in an opening that has written nothing yet.
    for (write, lengths, reopen) in
        [(0, [1000, 3000, 500], false), (1, [1000, 3000, 500], false), (2, [1000, 3000, 500], false)]
            .into_iter()
            .chain([(0, [4032, 500, 500], true), (1, [4032, 500, 500], true)])
    {
        for mask in every(1 << 10, budget / 5) {
            let mut log = Log::new(Config::tiny(0), 3);
            let n = log.write(0, &[&[8192; 3], &[8192; 3], &[8192]]);
            if reopen {
                log = Log::on(log.disk, log.config, 2);
            }
            for (n, length) in (n..).zip(lengths) {
                assert!(log.append(&said(n, length)));
            }
            crash_and_go_on(log, write, Keep::Mask(mask))
                .map_err(|why| format!("write {write}, sectors {mask:#x}: {why}"))?;
            states += 1;
        }
    }
    Ok(states)
}

/// The power goes in the `nth` write of the batch that gathered; then the log must go on.
fn crash_and_go_on(mut log: Log, nth: u64, keep: Keep) -> Result<(), String> {
    log.disk.arm(nth, Fault::PowerLoss(keep));
    let synced = log.sync();
    if synced.is_ok() && !log.gathered.is_empty() {
        return Err("a sync that failed was acknowledged".to_owned());
    }
    log.disk.restart();
    let (acked, under_way, config) = (log.acked, log.gathered, log.config);
    let mut log = Log::try_on(log.disk, config, Start::default(), 2).map_err(|error| error.to_string())?;
    check_shown(&log.acked, &acked, &under_way)?;
    // What was lost is sent again, byte for byte the same: the likeliest way to chain onto what the crash left.
    let lost = log.acked.len() - acked.len();
    if let Some((_, said)) = under_way.get(lost) {
        log.append(said);
        log.sync().map_err(|error| error.to_string())?;
    }
    let again = shown(&log.disk, &log.config).map_err(|error| format!("the opening after: {error}"))?;
    if again != log.acked {
        return Err(format!("{} records after going on, expected {}", again.len(), log.acked.len()));
    }
    Ok(())
}

/// Acknowledged records first and whole, then a prefix of what was under way.
fn check_shown(shown: &[Placed], acked: &[Placed], under_way: &[Placed]) -> Result<(), String> {
    if !shown.starts_with(acked) {
        let same = shown.iter().zip(acked).take_while(|(a, b)| a == b).count();
        return Err(format!("{} acknowledged, {} shown, the first {same} alike", acked.len(), shown.len()));
    }
    let more = &shown[acked.len()..];
    let alike = more.len() <= under_way.len() && more.iter().zip(under_way).all(|(a, b)| a == b);
    if alike { Ok(()) } else { Err(format!("{} records that nobody wrote there", more.len())) }
}

/// A log of 256 records in several segments, each below the watermark.
pub fn log_of_256() -> Log {
    let mut log = Log::new(Config::tiny(0), 4);
    for n in 0..256 {
        log.write(n, &[&[(n as usize * 37) % 400]]);
    }
    log.mark();
    log
}

pub fn flipped_bits(budget: u64) -> Verdict {
    let log = log_of_256();
    let mut states = 0;
    let used = log.disk.bytes("segment-0000").len() as u64 * 8;
    for segment in ["segment-0000", "segment-0001"] {
        for bit in every(used, budget / 2) {
            log.disk.flip(segment, bit);
            let seen = shown(&log.disk, &log.config);
            log.disk.flip(segment, bit);
            match seen {
                Ok(seen) if seen == log.acked => {}
                Err(WalError::Corrupt { .. }) => {}
                Ok(seen) => return Err(format!("{segment} bit {bit}: {} records of 256 and no word", seen.len())),
                Err(error) => return Err(format!("{segment} bit {bit}: {error}")),
            }
            states += 1;
        }
    }
    Ok(states)
}

/// Openings, appends, checkpoints, marks and crashes in any order, on one disk, until `budget` crashes happened.
pub fn histories(seed: u64, budget: u64) -> Verdict {
    let mut states = 0;
    for seed in seed.. {
        if states >= budget {
            break;
        }
        states += History::new(seed).run(50).map_err(|why| format!("seed {seed}: {why}"))?;
    }
    Ok(states)
}

struct History {
    dice: Dice,
    config: Config,
    disk: SimDisk,
    acked: Vec<Placed>,
    under_way: Vec<Placed>,
    checkpoint: Lsn,
    /// A watermark that some hard state has stored.
    stored: Lsn,
    n: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let config = Config { max_segments: 8, log_id: seed, ..Config::tiny(1) };
        let (disk, acked, under_way) = (SimDisk::new(), Vec::new(), Vec::new());
        Self { dice: Dice(seed), config, disk, acked, under_way, checkpoint: Lsn::ZERO, stored: Lsn::ZERO, n: 0 }
    }

    fn run(mut self, lives: u64) -> Verdict {
        for life in 0..lives {
            self.live().map_err(|why| format!("life {life}: {why}"))?;
        }
        Ok(lives)
    }

    /// From one opening to one crash.
    fn live(&mut self) -> Result<(), String> {
        let start = Start { from: self.checkpoint, synced: self.stored };
        let mut log = Log::try_on(self.disk.clone(), self.config.clone(), start, 0).map_err(|e| e.to_string())?;
        check_shown(&log.acked, &self.acked, &self.under_way)?;
        if self.dice.one_in(10) {
            self.disk.arm(self.dice.below(3), Fault::PowerLoss(Keep::Seed(self.dice.next())));
        }
        let mut alive = log.prepare(3).is_ok();
        for _ in 0..self.dice.below(8) {
            alive = alive && self.step(&mut log)?;
        }
        if alive {
            let keep = match self.dice.below(4) {
                0 => Keep::Prefix(self.dice.below(20_000) as usize),
                1 => Keep::All,
                _ => Keep::Seed(self.dice.next()),
            };
            self.disk.arm(self.dice.below(3), Fault::PowerLoss(keep));
            self.gather(&mut log);
        }
        (self.acked, self.under_way) = (log.acked, log.gathered);
        self.disk.restart();
        Ok(())
    }

    /// One thing that a living log does. False if the power went.
    fn step(&mut self, log: &mut Log) -> Result<bool, String> {
        match self.dice.below(8) {
            0 => {
                let at = self.dice.below(log.acked.len() as u64 + 1) as usize;
                self.checkpoint = log.acked.get(at).map_or(log.tail.synced_upto(), |(lsn, _)| *lsn);
                log.acked.drain(..at);
                log.tail.release(self.checkpoint);
            }
            1 => self.stored = log.tail.synced_upto(),
            2 if log.tail.mark() => {
                if log.sync().is_err() {
                    return Ok(false);
                }
                self.damage(log)?;
            }
            _ if !self.gather(log) => return Ok(false),
            _ => {}
        }
        Ok(log.prepare(3).map_or_else(|error| matches!(error, WalError::Full { .. }), |()| true))
    }

    /// Appends a few records and syncs them. False if the power went.
    fn gather(&mut self, log: &mut Log) -> bool {
        self.n = log.acked.last().map_or(self.n, |(_, said)| said.entry.index + 1);
        for n in self.n..=self.n + self.dice.below(6) {
            // A record's length follows from its number: a lost one comes again as it was.
            let length = Dice(n ^ self.config.log_id).below(if n % 7 == 0 { 8192 } else { 500 }) as usize;
            if !log.append(&said(n, length)) {
                break;
            }
        }
        log.sync().is_ok()
    }

    /// All is below the watermark now: a flipped bit is harmless or refused.
    fn damage(&mut self, log: &Log) -> Result<(), String> {
        let slot = format!("segment-{:04}", self.dice.below(3));
        let bit = self.dice.below(self.config.segment_bytes * 8);
        let start = Start { from: self.checkpoint, synced: self.stored };
        self.disk.flip(&slot, bit);
        let seen = open(Arc::new(self.disk.clone()), &self.config, start);
        self.disk.flip(&slot, bit);
        match seen {
            Ok((seen, _)) if seen == log.acked => Ok(()),
            Err(WalError::Corrupt { .. }) => Ok(()),
            Ok((seen, _)) => Err(format!("{slot} bit {bit}: {} of {} records", seen.len(), log.acked.len())),
            Err(error) => Err(format!("{slot} bit {bit}: {error}")),
        }
    }
}
