//! One window over one market: what happened within the last `w` nanoseconds of event time.
//!
//! ```text
//!        (end - w                       end]      end = the greatest event time seen
//!   -----[ step | step | step | ... | step ]      a step is about w/4096; steps with ticks are kept
//!          out <-                      <- in      a tick older than the end counts for nothing, and is counted
//! ```
//!
//! Invariants: steps are aligned to the epoch, so a window's content depends only on the rows, never on when it was
//! started or restored. Its older edge is therefore sharp to one step (see [`step_ns`]: 2.5 us for 10 ms, 75 ms for
//! 5 min), exact where event times are multiples of it, and memory is bounded whatever the feed does. Volumes are
//! summed exactly; lowest and highest price are kept in rising and falling lists. The predicate is evaluated at ticks
//! that count, never by silence. Deliberately absent: ticks from before the registration.

use super::exact::{Exact, MOST, PARTS_MAX, two_sum};
use super::firing::Kind;
use super::spec::Spec;
use myelin_datom::{Instant, Tick, Tx};
use std::collections::VecDeque;

/// Steps a window is divided into, at most.
pub const WINDOW_STEPS: i64 = 4096;

/// What a tick did to a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Nothing,
    /// The predicate became true: the two values of the firing.
    Fired([u64; 2]),
    /// Older than the window's end.
    Late,
}

/// One number in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    pub step: i64,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Ascending prices from front to back, and descending: fronts are the lowest and the highest.
    Move { lowest: VecDeque<Entry>, highest: VecDeque<Entry> },
    /// Each step's exact volume as one or more parts, and the exact sum of them all.
    Volume { parts: VecDeque<Entry>, sum: Exact },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// It sees ticks of later transactions.
    pub registered: Tx,
    pub least: f64,
    /// **Units:** nanoseconds.
    pub step_ns: i64,
    /// Steps that belong to it, the newest included.
    pub steps: i64,
    /// The greatest event time seen, once there is one.
    pub end: Option<Instant>,
    /// Was the predicate true at the last tick that counted?
    pub holds: bool,
    pub content: Content,
}

impl Window {
    /// `None` when the spec is not a window.
    pub(super) fn new(spec: &Spec, registered: Tx) -> Option<Self> {
        let (least, window_ns, content) = match *spec {
            Spec::Move { least, window_ns } => {
                (least, window_ns, Content::Move { lowest: VecDeque::new(), highest: VecDeque::new() })
            }
            Spec::Volume { least, window_ns } => {
                (least, window_ns, Content::Volume { parts: VecDeque::new(), sum: Exact::default() })
            }
            _ => return None,
        };
        let step_ns = step_ns(window_ns);
        Some(Self { registered, least, step_ns, steps: ceil_div(window_ns, step_ns), end: None, holds: false, content })
    }

    pub(super) fn kind(&self) -> Kind {
        match self.content {
            Content::Move { .. } => Kind::Move,
            Content::Volume { .. } => Kind::Volume,
        }
    }

    /// Takes one tick in `tx` order.
    pub(super) fn take(&mut self, tick: &Tick) -> Outcome {
        if self.end.is_some_and(|end| tick.event_time_ns < end) {
            return Outcome::Late;
        }
        self.end = Some(tick.event_time_ns);
        let step = tick.event_time_ns.div_euclid(self.step_ns);
        let first = step.saturating_sub(self.steps - 1);
        let (measure, basis) = match &mut self.content {
            Content::Move { lowest, highest } => {
                slide(lowest, first, Entry { step, value: tick.price }, |old, new| old >= new);
                slide(highest, first, Entry { step, value: tick.price }, |old, new| old <= new);
                largest_move(tick.price, lowest, highest)
            }
            Content::Volume { parts, sum } => {
                while parts.front().is_some_and(|part| part.step < first) {
                    parts.pop_front().into_iter().for_each(|gone| sum.subtract(gone.value));
                }
                let volume = tick.volume.min(MOST);
                sum.add(volume);
                add_to_step(parts, step, volume);
                (sum.rounded(), tick.price)
            }
        };
        let held = std::mem::replace(&mut self.holds, measure >= self.least);
        if self.holds && !held { Outcome::Fired([measure.to_bits(), basis.to_bits()]) } else { Outcome::Nothing }
    }
}

/// **Units:** nanoseconds both. The resolution of a window of this length: a whole number of steps if one between 2,049
/// and 4,096 divides it (4,000 for round decimal lengths), so that ticks that stand on steps are windowed exactly.
#[must_use]
pub fn step_ns(window_ns: i64) -> i64 {
    let whole = (WINDOW_STEPS / 2 + 1..=WINDOW_STEPS).rev().find(|steps| window_ns % steps == 0);
    whole.map_or(ceil_div(window_ns, WINDOW_STEPS), |steps| window_ns / steps).max(1)
}

fn ceil_div(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b != 0)
}

/// Drops what is too old and what the new entry makes irrelevant; one entry a step remains at most.
fn slide(list: &mut VecDeque<Entry>, first: i64, new: Entry, beaten: impl Fn(f64, f64) -> bool) {
    while list.front().is_some_and(|old| old.step < first) {
        list.pop_front();
    }
    while list.back().is_some_and(|old| beaten(old.value, new.value)) {
        list.pop_back();
    }
    if list.back().is_none_or(|old| old.step < new.step) {
        list.push_back(new);
    }
}

/// The larger of the rise from the lowest and the fall from the highest, and where it started.
fn largest_move(price: f64, lowest: &VecDeque<Entry>, highest: &VecDeque<Entry>) -> (f64, f64) {
    let bases = (lowest.front().map_or(price, |e| e.value), highest.front().map_or(price, |e| e.value));
    let (rise, fall) = (relative(price, bases.0), relative(price, bases.1));
    if fall > rise { (fall, bases.1) } else { (rise, bases.0) }
}

/// |price - base| / |base|: a move from nothing to something is infinite.
fn relative(price: f64, base: f64) -> f64 {
    if price == base { 0.0 } else { (price - base).abs() / base.abs() }
}

/// Folds a volume into the newest step, in place: its parts stay exact and few (see `exact.rs`).
fn add_to_step(parts: &mut VecDeque<Entry>, step: i64, volume: f64) {
    let first = parts.iter().rposition(|part| part.step != step).map_or(0, |before| before + 1);
    let mut carried = volume;
    let mut kept = first;
    for at in first..parts.len() {
        let (sum, error) = two_sum(carried, parts[at].value);
        if error != 0.0 {
            parts[kept].value = error;
            kept += 1;
        }
        carried = sum;
    }
    parts.truncate(kept);
    if carried != 0.0 {
        parts.push_back(Entry { step, value: carried });
    }
    if parts.len() - first > PARTS_MAX {
        let mut packed = Exact::default();
        parts.drain(first..).for_each(|part| packed.add(part.value));
        parts.extend(packed.parts().iter().map(|&value| Entry { step, value }));
    }
}
