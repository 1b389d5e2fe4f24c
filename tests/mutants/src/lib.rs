//! Valid inputs, made invalid: what the campaigns of all decoders share.
//!
//! ```text
//!   corpus --mutate--> bytes --(a share is sealed again, so that what is behind the checksum is reached)--> decoder --> Depth
//!
//!   campaign wire-frames trials=1000000 failures=0 bound=0.000003
//!   wire-frames: 312811 refused outside, 441002 behind the checksum, 246187 taken
//! ```
//!
//! | `MYELIN_CAMPAIGN` | trials |
//! |---|---|
//! | absent | what the campaign says: a moment of `cargo test` |
//! | `ci` | a million |
//! | `long` | four million |
//!
//! A trial is a function of its number: `MYELIN_TRIAL=N` runs the N-th alone, and which of the threads runs it does not
//! matter. Memory is bounded by an allocator that counts what each thread holds: no trial ever holds [`MEMORY_BYTES_MAX`] at
//! once, whatever lengths the bytes claim, and it is the trial that did which is named. Refused: a counter of the process,
//! under which all trials that run at the same time share a bound, and whoever looks first is blamed.
//! Deliberately absent: guidance by coverage, which is for a fuzzer with days.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What a trial may hold at once, with all that those before it on its thread left behind. A valid body unpacks to 16 MiB at
/// most, in a buffer that doubles: 48 MiB while it is moved. **Units:** bytes.
pub const MEMORY_BYTES_MAX: i64 = 64 << 20;

/// Failures after which a campaign gives up.
const FAILURES_MAX: u64 = 10;

/// Threads of a campaign. The longest one would else have a core to itself while the other idles.
const THREADS: usize = 2;

/// Trials that a thread takes at a time.
const AT_A_TIME: u64 = 32;

/// SplitMix64 (Steele, Lea, Flood 2014): a number gives a trial, and the number is printed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a trial.
    #[must_use]
    pub fn of(trial: u64) -> Self {
        Self(trial.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// 64 fair bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    /// True once in so many throws.
    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// A number that lengths, counts and offsets have been seen to be mistaken about, or any.
    pub fn number(&mut self) -> u64 {
        let any = self.draw();
        if any.is_multiple_of(4) { any } else { *self.pick(&NUMBERS) }
    }

    /// One of a list. **Panics** on an empty one.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Numbers that lengths, counts and offsets have been seen to be mistaken about.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 7, 8, 63, 64, 65, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// Changes one place, in one of the ways that decoders have been seen to fall for. `other` is another valid input.
pub fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(bytes.len());
    let run = (1 + dice.below(24)).min(bytes.len() - at);
    match dice.below(10) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        2 if !bytes.is_empty() => bytes[at] = dice.draw() as u8,
        3 | 4 => {
            // A little-endian number, of a width that fields have, at a place where fields begin.
            let (width, number) = (*dice.pick(&[1, 2, 4, 8]), *dice.pick(&NUMBERS));
            let number = if dice.one_in(4) { bytes.len() as u64 + number % 64 } else { number };
            let at = at - at % width;
            for (to, from) in bytes.iter_mut().skip(at).zip(number.to_le_bytes()).take(width) {
                *to = from;
            }
        }
        5 => drop(bytes.drain(at..at + run)),
        6 => {
            let copy = bytes[at..at + run].to_vec();
            let to = dice.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        7 => {
            let from = dice.below(other.len());
            let piece = &other[from..other.len().min(from + run)];
            bytes.splice(at..at + run, piece.iter().copied());
        }
        8 => bytes.truncate(at),
        _ => {
            let noise: Vec<u8> = (0..dice.below(9)).map(|_| dice.draw() as u8).collect();
            bytes.splice(at..at, noise);
        }
    }
}

/// A mutant of one of the corpus, with up to four changes; now and then with none, so that the sound way stays in use.
pub fn mutant(dice: &mut Dice, corpus: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = dice.pick(corpus).as_ref().to_vec();
    for _ in 0..dice.below(5) {
        let other = dice.pick(corpus);
        mutate(dice, &mut bytes, other.as_ref());
    }
    bytes
}

/// How far bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Refused by a checksum, or before one was looked at.
    Outside,
    /// Every checksum fits; refused by what they cover.
    Inside,
    /// Taken.
    Taken,
}

/// Runs a campaign of `few` inputs, or of as many as `MYELIN_CAMPAIGN` asks for, and prints its line. One trial tries `each`
/// inputs.
///
/// **Panics** when a trial did, when memory ran away, or when nothing came behind the checksum: then nothing was tried.
pub fn campaign(name: &str, few: u64, each: u64, trial: impl Fn(&mut Dice) -> Depth + Sync) {
    campaign_with(name, few, each, || (), |(), dice| trial(dice));
}

/// The same for trials that need something which is dear to make and holds nothing of them: each thread makes its own.
pub fn campaign_with<T>(
    name: &str,
    few: u64,
    each: u64,
    tools: impl Fn() -> T + Sync,
    trial: impl Fn(&mut T, &mut Dice) -> Depth + Sync,
) {
    let (first, trials) = asked_for(few, each);
    let run = Run { name, next: AtomicU64::new(first), end: first + trials, failures: AtomicU64::new(0) };
    let work = || run.work(&mut tools(), &trial);
    // A trial that is repeated alone stays on the thread of its test.
    let depths = if trials == 1 { vec![work()] } else { side_by_side(&work) };
    let failures = run.failures.into_inner();
    assert!(failures < FAILURES_MAX, "campaign {name}: too many failures");
    let inputs = trials * each;
    let [outside, inside, taken] = [0, 1, 2].map(|depth| depths.iter().map(|counted| counted[depth]).sum::<u64>());
    let came = format!("{outside} refused outside, {inside} behind the checksum, {taken} taken");
    assert!(failures == 0, "campaign {name}: {failures} of {inputs} trials failed; {came}");
    let reached = trials == 1 || (inside > trials / 50 && taken > 0);
    assert!(reached, "campaign {name}: hardly anything was reached: {came}");
    // The line of one that is through: whoever counts them takes no line for no result.
    println!("campaign {name} trials={inputs} failures=0 bound={:.6}\n{name}: {came}", 3.0 / inputs as f64);
}

/// Runs the work on all threads; what each of them counted.
fn side_by_side(work: &(impl Fn() -> Depths + Sync)) -> Vec<Depths> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// How many trials came how far, by [`Depth`].
type Depths = [u64; 3];

/// A campaign under way.
struct Run<'a> {
    name: &'a str,
    /// The first trial that nobody has taken.
    next: AtomicU64,
    end: u64,
    failures: AtomicU64,
}

impl Run<'_> {
    /// Takes trials until there are none.
    fn work<T>(&self, tools: &mut T, trial: &impl Fn(&mut T, &mut Dice) -> Depth) -> Depths {
        let (mut depths, mut left_behind) = ([0; 3], 0);
        loop {
            let first = self.next.fetch_add(AT_A_TIME, Ordering::Relaxed);
            if first >= self.end {
                return depths;
            }
            for number in first..self.end.min(first + AT_A_TIME) {
                let mut ended = None;
                let held = allocation_counter::measure(|| {
                    ended = catch_unwind(AssertUnwindSafe(|| trial(tools, &mut Dice::of(number)))).ok();
                });
                match ended {
                    Some(depth) => depths[depth as usize] += 1,
                    None => self.failed(number, "failed"),
                }
                let peak = left_behind + held.bytes_max as i64;
                if peak >= MEMORY_BYTES_MAX {
                    self.failed(number, &format!("held {peak} bytes at once"));
                }
                left_behind += held.bytes_current;
            }
        }
    }

    fn failed(&self, number: u64, how: &str) {
        eprintln!("campaign {}: MYELIN_TRIAL={number} {how}", self.name);
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            // Nothing is left for any thread.
            self.next.store(self.end, Ordering::Relaxed);
        }
    }
}

fn asked_for(few: u64, each: u64) -> (u64, u64) {
    if let Some(number) = std::env::var("MYELIN_TRIAL").ok().and_then(|number| number.parse().ok()) {
        return (number, 1);
    }
    let trials = match std::env::var("MYELIN_CAMPAIGN").as_deref() {
        Ok("ci") => 1_000_000,
        Ok("long") => 4_000_000,
        _ => few,
    };
    (0, trials.div_ceil(each))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    #[test]
    fn mutants_differ_from_each_other_and_the_same_trial_gives_the_same_one() {
        let corpus = [b"one of two sound inputs".to_vec(), b"the other one, a little longer".to_vec()];
        let all: BTreeSet<_> = (0..1000).map(|trial| mutant(&mut Dice::of(trial), &corpus)).collect();
        assert!(all.len() > 600, "{}", all.len());
        assert!(corpus.iter().all(|sound| all.contains(sound)));
        assert_eq!(mutant(&mut Dice::of(7), &corpus), mutant(&mut Dice::of(7), &corpus));
        let empty = (0..100).map(|trial| mutant(&mut Dice::of(trial), &[Vec::new()])).map(|bytes| bytes.len()).max();
        assert!(empty.is_some_and(|length| length > 0), "an empty input grows");
    }

    #[test]
    #[should_panic(expected = "1 of 100 trials failed")]
    fn a_trial_that_panics_fails_its_campaign() {
        campaign("mutants-test", 100, 1, |dice| {
            let drawn = dice.draw();
            assert!(drawn != Dice::of(50).draw(), "the fiftieth trial");
            if drawn % 2 == 0 { Depth::Inside } else { Depth::Taken }
        });
    }

    #[test]
    fn every_trial_is_run_once_whichever_thread_takes_it() {
        let drawn = Mutex::new(Vec::new());
        let tools_made = AtomicU64::new(0);
        let tools = || tools_made.fetch_add(1, Ordering::Relaxed);
        campaign_with("mutants-test", 1001, 1, tools, |_, dice| {
            let mut drawn = drawn.lock().unwrap();
            drawn.push(dice.draw());
            if drawn.len().is_multiple_of(2) { Depth::Inside } else { Depth::Taken }
        });
        let mut expected: Vec<_> = (0..1001).map(|trial| Dice::of(trial).draw()).collect();
        let mut drawn = drawn.into_inner().unwrap();
        expected.sort_unstable();
        drawn.sort_unstable();
        assert!(drawn == expected);
        assert_eq!(tools_made.into_inner(), THREADS as u64);
    }

    #[test]
    #[should_panic(expected = "1 of 100 trials failed")]
    fn a_trial_that_holds_too_much_fails_its_campaign() {
        campaign("mutants-test", 100, 1, |dice| {
            let drawn = dice.draw();
            let bytes = if drawn == Dice::of(50).draw() { 64 << 20 } else { 1 << 20 };
            drop(std::hint::black_box(Vec::<u8>::with_capacity(bytes)));
            if drawn % 2 == 0 { Depth::Inside } else { Depth::Taken }
        });
    }

    #[test]
    #[should_panic(expected = "too many failures")]
    fn a_trial_that_leaves_memory_behind_fails_its_campaign() {
        campaign_with("mutants-test", 400, 1, Vec::new, |kept: &mut Vec<Vec<u8>>, _| {
            kept.push(Vec::with_capacity(1 << 20));
            Depth::Inside
        });
    }

    #[test]
    #[should_panic(expected = "hardly anything was reached")]
    fn a_campaign_that_never_comes_behind_the_checksum_fails() {
        campaign("mutants-test", 100, 1, |_| Depth::Outside);
    }
}
