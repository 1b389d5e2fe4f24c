//! The reader thread of a core: it goes through sealed and frozen rows, so that a page fault or a read of the disk never
//! holds the core.
//!
//! ```text
//!   core --Trip { what the read has come to, Sealed }--> reader thread: up to a million rows --Trip--> core
//! ```
//!
//! Short reads (a page, a count) go first: they never wait for more than one trip of a long one. A trip has a bound, so that
//! the reads of several clients come in turn, and ends early when who asked has left. What nobody asks for any more and
//! the files it read are let go here as well: giving a map back, or sums of 65,536 bars, is no work for a core. Invariant: one
//! ring there and one back, each with a place for every read that can be under way. Deliberately absent: which rows
//! (`sums.rs`, `counts.rs`, `rows.rs`), and tasks of its own.

use super::under_way::Reading;
use super::{LONG_MAX, SHORT_MAX};
use crate::runtime::ring::{Producer, ThreadConsumer};
use myelin_datom::{Quote, Tick};
use myelin_index::{Cache, IndexError, Sealed, Summing};
use std::collections::VecDeque;

/// Rows of one trip: at 10 ns a row 10 ms, after which another read has its turn. A trip ends with the block or frozen part
/// in which it has come so far.
const ROWS_PER_TRIP: u64 = 1 << 20;
/// Pages of transactions that are kept: where a moment of the past ends in a block. **Units:** bytes.
const CACHE_BYTES: usize = 8 << 20;

/// A read on its way.
pub struct Trip {
    shard: u16,
    pub(super) number: u64,
    pub(super) long: bool,
    /// Nothing when who asked has left: it may be large, and was let go on the way.
    pub(super) reading: Option<Box<Reading>>,
    sealed: Option<(Sealed<Tick>, Sealed<Quote>)>,
    pub(super) result: Result<(), IndexError>,
}

impl Trip {
    pub(super) fn new(shard: u16, reading: Box<Reading>, ticks: Sealed<Tick>, quotes: Sealed<Quote>) -> Self {
        let (number, long) = (reading.number(), reading.is_long());
        Self { shard, number, long, reading: Some(reading), sealed: Some((ticks, quotes)), result: Ok(()) }
    }

    /// Whose read it is.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }
}

/// What the thread owns.
pub struct Reader {
    summing: Summing,
    cache: Cache,
}

impl Default for Reader {
    fn default() -> Self {
        Self { summing: Summing::default(), cache: Cache::new(CACHE_BYTES) }
    }
}

impl Reader {
    /// The thread's whole life: short trips first, as many as there may be, then one long one.
    pub fn run(mut self, mut trips: ThreadConsumer<Trip>, mut back: Producer<Trip>) {
        let mut long = VecDeque::with_capacity(LONG_MAX);
        loop {
            for _ in 0..SHORT_MAX {
                let next = if long.is_empty() { trips.pop() } else { trips.try_pop() };
                match next {
                    Some(trip) if trip.long => long.push_back(trip),
                    Some(trip) => {
                        if back.push(self.travel(trip)).is_err() {
                            return;
                        }
                    }
                    None if long.is_empty() => return,
                    None => break,
                }
            }
            if let Some(trip) = long.pop_front()
                && back.push(self.travel(trip)).is_err()
            {
                return;
            }
        }
    }

    /// One trip. What fails is told with it.
    pub fn travel(&mut self, mut trip: Trip) -> Trip {
        if let (Some((ticks, quotes)), Some(reading)) = (trip.sealed.take(), &mut trip.reading)
            && !reading.nobody_asks()
        {
            let Self { summing, cache } = self;
            trip.result = reading.travel(&ticks, &quotes, cache, summing, ROWS_PER_TRIP);
            if trip.result.is_err() {
                // Half of a block may stand in it.
                self.summing = Summing::default();
            }
        }
        trip.reading.take_if(|reading| reading.nobody_asks());
        trip
    }
}
