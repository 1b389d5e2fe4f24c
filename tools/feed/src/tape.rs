//! A tape where there is no file: a seeded random walk on a tick grid, endless, the same for the same seed.
//!
//! ```text
//!   splitmix64 -> market (uniform), step (-3..=3 cents, mostly small), volume (heavy tail), gap to the next event
//!   ids        1, 2, 3, ... per market; shuffled: a permutation of each window of 2^k ids, never a hole or a repeat
//!   event time advances by 0..2 x step_ns and never goes back; arrival = event + 350 us
//! ```
//!
//! No table is read and nothing is allocated per tick. Who uses a tape says that it is generated. Deliberately absent:
//! correlation between markets, jumps, the hours of a day. This is load and a demo, not a model.

use myelin_datom::{EntityId, Side, Tick};

use crate::draft::Batch;

/// Markets one tape can have.
pub const TAPE_MARKETS_MAX: u32 = 1 << 24;
/// **Units:** microseconds from event to arrival.
const RECEIVED_DELTA_US: i32 = 350;
/// Prices are whole cents. A decimal price is this quotient, correctly rounded, as if it had been parsed.
const UNITS_PER_PRICE: f64 = 100.0;
const LOTS_PER_VOLUME: f64 = 10_000.0;

/// An endless stream of ticks.
#[derive(Clone, Debug)]
pub struct Tape {
    state: u64,
    seed: u64,
    event_time_ns: i64,
    gap_ns_max: u64,
    /// **Units:** log2 of ids.
    window_log: u32,
    walks: Vec<Walk>,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    market: EntityId,
    emitted: u64,
    price: u32,
    floor: u32,
    ceiling: u32,
    last_side: u8,
}

impl Tape {
    /// A tape of so many markets (1 to 2^24, clamped) from this instant on, one tick a microsecond on average.
    ///
    /// **Units:** `start_ns` in Unix nanoseconds.
    #[must_use]
    pub fn new(seed: u64, markets: u32, start_ns: i64) -> Self {
        let markets = markets.clamp(1, TAPE_MARKETS_MAX);
        let walks = (0..u64::from(markets)).map(|n| {
            // From 5.00 to about 83,000.00, evenly over the orders of magnitude.
            let random = mixed(seed ^ mixed(n));
            let price = (500 + (random as u32 & 0x1ff)) << ((random >> 32) % 14);
            Walk { market: EntityId::NONE, emitted: 0, price, floor: price / 2, ceiling: price * 2, last_side: 1 }
        });
        let names = (1..=markets).map(|n| format!("demo:{{M{n:04}}}USD"));
        Self {
            state: mixed(seed),
            seed,
            event_time_ns: start_ns,
            gap_ns_max: 2_000,
            window_log: 0,
            walks: walks.collect(),
            names: names.collect(),
        }
    }

    /// **Units:** nanoseconds between two events of the whole tape, on average; at most a second.
    #[must_use]
    pub fn with_step_ns(mut self, step_ns: u32) -> Self {
        self.gap_ns_max = 2 * u64::from(step_ns.min(1_000_000_000));
        self
    }

    /// Each market's ids come in a shuffled order within windows of `ids`, rounded down to a power of two, at most
    /// 2^16. After a whole number of windows a market's ids are dense.
    #[must_use]
    pub fn with_shuffle(mut self, ids: u32) -> Self {
        self.window_log = ids.clamp(1, 1 << 16).ilog2();
        self
    }

    /// Ticks come with these ids from now on; `ids` runs beside [`Tape::names`]; a market without one keeps its own.
    pub fn bind(&mut self, ids: &[EntityId]) {
        for (walk, &id) in self.walks.iter_mut().zip(ids) {
            walk.market = id;
        }
    }

    /// `demo:{M0001}USD` and so on.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The next tick and its market's index. **Cost:** about 9 ns, shuffled 12, in batches on an EPYC core.
    #[inline]
    pub fn next_tick(&mut self) -> (u32, Tick) {
        let random = self.random();
        let more = self.random();
        let gap = ((more >> 32) * self.gap_ns_max) >> 32;
        self.event_time_ns = self.event_time_ns.saturating_add(gap as i64);
        let index = (((random >> 32) * self.walks.len() as u64) >> 32) as usize;
        let (window_log, seed) = (self.window_log, self.seed);
        let walk = &mut self.walks[index];
        let (price, side) = walk.step(random as u32);
        let id = walk.next_id(window_log, seed ^ (index as u64) << 40);
        // A mantissa of 1..=256 and an exponent that is one higher half as often: mostly small, sometimes 4,096 times.
        let lots = (1 + (more as u32 & 0xff)) << (((more >> 8) as u32 | 1 << 12).trailing_zeros());
        let tick = Tick {
            market: walk.market,
            id,
            event_time_ns: self.event_time_ns,
            price: f64::from(price) / UNITS_PER_PRICE,
            volume: f64::from(lots) / LOTS_PER_VOLUME,
            trader: EntityId::NONE,
            side,
            flags: 0,
            zero_50: 0,
            received_delta_us: RECEIVED_DELTA_US,
            source: 0,
            zero_60: 0,
        };
        (index as u32, tick)
    }

    /// Replaces what `batch` holds by so many ticks.
    pub fn next_batch(&mut self, rows: usize, batch: &mut Batch) {
        batch.clear();
        let Batch { ticks, markets, received_time_ns, .. } = batch;
        markets.reserve(rows);
        ticks.extend((0..rows).map(|_| {
            let (market, tick) = self.next_tick();
            markets.push(market);
            tick
        }));
        let arrival = |tick: &Tick| tick.event_time_ns.saturating_add(i64::from(RECEIVED_DELTA_US) * 1_000);
        received_time_ns.extend(ticks.iter().map(arrival));
    }

    #[inline]
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finalize(self.state)
    }
}

impl Walk {
    /// One step: the difference of two draws of 0..=3, so that no change is the commonest change.
    #[inline]
    fn step(&mut self, random: u32) -> (u32, u8) {
        let (up, down) = (random & 3, (random >> 2) & 3);
        self.price = (self.price + up - down).clamp(self.floor, self.ceiling);
        // Whoever crosses moves the price his way; without a move, the last side as a rule. In masks, because a branch
        // on a random number is mispredicted half the time and cost a third of the tick.
        let moved = Side::Buy as u8 + u8::from(up < down);
        let stayed = self.last_side ^ (3 * u8::from(random & 0x70 == 0));
        let no_move = u8::from(up == down).wrapping_neg();
        self.last_side = (stayed & no_move) | (moved & !no_move);
        (self.price, self.last_side)
    }

    /// Dense from 1. Within a window of 2^k, `n -> (odd * n + shift) mod 2^k`: a permutation without a table.
    #[inline]
    fn next_id(&mut self, window_log: u32, seed: u64) -> u64 {
        let n = self.emitted;
        self.emitted += 1;
        if window_log == 0 {
            return n + 1;
        }
        let mask = (1_u64 << window_log) - 1;
        let key = finalize(seed ^ (n >> window_log));
        let within = (n & mask).wrapping_mul(key | 1).wrapping_add(key >> 32) & mask;
        (n & !mask) + within + 1
    }
}

/// **Source:** Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
#[inline]
const fn finalize(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

const fn mixed(value: u64) -> u64 {
    finalize(value.wrapping_add(0x9e37_79b9_7f4a_7c15))
}
