//! One tick, or one gap, against all reflexes that see it: what changed is recorded, nothing is expanded.
//!
//! ```text
//!   react -> quiet? latest price, done
//!         -> loud:  price leap     -> up to 8 cuts: What::Fired for each match; more: one What::Leap, the range
//!                   each window    -> What::Fired
//!                   each pair      -> as the price
//! ```
//!
//! Invariants: records stand in (tx, n) order; those of one position are expanded together. Deliberately absent: any
//! work that grows with the bands crossed.

use super::band::{key, value};
use super::firing::{Kind, ReflexId};
use super::reach::{Market, Pair, Quiet, Reach};
use super::register::Home;
use super::thresholds::{Leap, Thresholds};
use super::window::Outcome;
use super::{MarketIx, Reflexes};
use myelin_datom::{Tick, Tx, flags};

/// What happened at one position, not yet expanded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub tx: Tx,
    pub n: u32,
    pub ix: u32,
    pub what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A longer range of cuts crossed, of one scope or one pair; `other` is the price a spread is measured against.
    Leap {
        home: Home,
        leap: Leap,
        other: f64,
    },
    /// Ids that a feed skipped, for one scope.
    Gap {
        reach: u32,
        first: u64,
        last: u64,
    },
    Fired {
        reflex: ReflexId,
        kind: Kind,
        values: [u64; 2],
    },
}

impl Reflexes {
    /// Shows one committed tick to the reflexes. Ticks come in (tx, n) order per market and in `tx` order over all.
    ///
    /// Call it only while [`Reflexes::full`] is false: `react` is a cursor that may stop between any two ticks.
    /// **Panics** when `ix` was never added, or when it is called although `full` is true and something happens.
    /// **Cost:** see the README; a quiet tick is two compares and two stores.
    #[inline]
    pub fn react(&mut self, tx: Tx, n: u32, ix: MarketIx, tick: &Tick) {
        let hot = &mut self.hot[ix.0 as usize];
        if hot.quiet.contains(tick.price) && tick.flags & flags::CORRECTION == 0 {
            hot.price = tick.price;
            hot.tx = tx;
            return;
        }
        self.react_loud(tx, n, ix.0, tick);
    }

    /// Shows a gap in a feed: ids `first_missing..=last_missing` of this market were skipped. At most one call per
    /// position and market; a gap found at a tick is told right before or after that tick's `react`, with no expansion
    /// in between.
    pub fn gap(&mut self, tx: Tx, n: u32, ix: MarketIx, first_missing: u64, last_missing: u64) {
        let Self { untold, markets, reaches, .. } = self;
        assert!(untold.records.back().is_none_or(|last| (last.tx, last.n) <= (tx, n)));
        let whats = gaps(&markets[ix.0 as usize], reaches, first_missing, last_missing);
        untold.records.extend(whats.map(|what| Record { tx, n, ix: ix.0, what }));
    }

    /// Firings not yet expanded.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> bool {
        self.untold.pending()
    }

    /// The transaction of the first of them.
    #[must_use]
    pub fn pending_from(&self) -> Option<Tx> {
        self.untold.records.front().map(|record| record.tx)
    }

    /// Records that wait for their expansion.
    #[must_use]
    pub fn lag(&self) -> usize {
        self.untold.records.len()
    }

    /// The bound of the lag is reached: expand before the next tick, and answer `Busy` upstream.
    #[inline]
    #[must_use]
    pub fn full(&self) -> bool {
        self.untold.records.len() >= self.limits.records
    }

    #[inline(never)]
    fn react_loud(&mut self, tx: Tx, n: u32, ix: u32, tick: &Tick) {
        let at = ix as usize;
        let market = &self.markets[at];
        if tick.flags & flags::CORRECTION != 0 {
            self.counts.corrections += 1;
            return;
        }
        assert!(!self.full());
        assert!(self.untold.records.back().is_none_or(|last| (last.tx, last.n) <= (tx, n)));
        let (calm, eager) = (market.calm, !market.windows.is_empty() || !market.pairs.is_empty());
        let calm = if calm.contains(tick.price) { calm } else { self.price_leaps(tx, n, ix, tick.price) };
        if eager {
            self.turn_windows(tx, n, ix, tick);
            self.spreads_leap(tx, n, ix, tick.price);
        }
        let hot = &mut self.hot[at];
        hot.quiet = if eager { Quiet::NONE } else { calm };
        hot.price = tick.price;
        hot.tx = tx;
        self.markets[at].calm = calm;
    }

    /// Records the leap if it crosses anything; gives the interval that is quiet from here.
    fn price_leaps(&mut self, tx: Tx, n: u32, ix: u32, price: f64) -> Quiet {
        let market = &self.markets[ix as usize];
        let hot = &self.hot[ix as usize];
        let leap = Leap { seen: hot.tx, from: key(hot.price), to: key(price), tx };
        let mut calm = Quiet::ALL;
        for &at in &market.reaches {
            let reach = &mut self.reaches[at as usize];
            let (whats, quiet) = whats(&reach.thresholds, Home::Reach(at), leap, f64::NAN);
            let quiet = if reach.thresholds.awaits_later_than(tx) { Quiet::NONE } else { quiet };
            self.untold.records.extend(whats.map(|what| Record { tx, n, ix, what }));
            calm = calm.and(quiet);
            reach.settled = true;
        }
        calm
    }

    fn turn_windows(&mut self, tx: Tx, n: u32, ix: u32, tick: &Tick) {
        let market = &mut self.markets[ix as usize];
        for (reflex, window) in &mut market.windows {
            if window.registered >= tx {
                continue;
            }
            match window.take(tick) {
                Outcome::Nothing => {}
                Outcome::Late => self.counts.late += 1,
                Outcome::Fired(values) => {
                    let what = What::Fired { reflex: *reflex, kind: window.kind(), values };
                    self.untold.records.push_back(Record { tx, n, ix, what });
                }
            }
        }
    }

    fn spreads_leap(&mut self, tx: Tx, n: u32, ix: u32, price: f64) {
        let market = &self.markets[ix as usize];
        for &at in &market.pairs {
            let pair = &mut self.pairs[at as usize];
            let Some(other) = pair.other(ix).map(|other| self.hot[other as usize]) else { continue };
            if other.tx == Tx::ZERO || pair.calm.contains(pair.measure(ix, price, other.price)) {
                continue;
            }
            let own = &self.hot[ix as usize];
            let leap = spread_leap(pair, ix, (own.tx, own.price), (other.tx, other.price), (tx, price));
            let (whats, quiet) = whats(&pair.thresholds, Home::Pair(at), leap, other.price);
            pair.calm = if pair.thresholds.awaits_later_than(tx) { Quiet::NONE } else { quiet };
            self.untold.records.extend(whats.map(|what| Record { tx, n, ix, what }));
        }
    }
}

/// A gap for each scope in which somebody asks about the gaps of this market.
pub(super) fn gaps(market: &Market, reaches: &[Reach], first: u64, last: u64) -> impl Iterator<Item = What> {
    let asked = market.reaches.iter().filter(|at| !reaches[**at as usize].gaps.is_empty());
    asked.map(move |at| What::Gap { reach: *at, first, last })
}

/// What a tick of one market of a pair does to what is compared. **Units:** `own` and `other` are the latest tick of each
/// market before, and its price.
pub(super) fn spread_leap(pair: &Pair, ix: u32, own: (Tx, f64), other: (Tx, f64), now: (Tx, f64)) -> Leap {
    let seen = if own.0 == Tx::ZERO { Tx::ZERO } else { own.0.max(other.0) };
    let at = |price: f64| key(pair.measure(ix, price, other.1));
    Leap { seen, from: at(own.1), to: at(now.1), tx: now.0 }
}

/// What a leap of one series leaves to be told: the matches if they are found at once, else the range. And where the
/// series may move unseen from here, until a later registration: between its cuts.
pub(super) fn whats(
    thresholds: &Thresholds,
    home: Home,
    leap: Leap,
    other: f64,
) -> (impl Iterator<Item = What> + use<>, Quiet) {
    let (few, (low, high)) = thresholds.leap(&leap);
    let range = few.is_none().then_some(What::Leap { home, leap, other });
    let fired = move |(reflex, kind, fresh)| What::Fired {
        reflex: ReflexId(reflex),
        kind,
        values: leap_values(home, &leap, other, fresh),
    };
    (few.into_iter().flatten().map(fired).chain(range), Quiet { low: value(low), high: value(high) })
}

/// The two values of a firing that a leap caused, as the table in `firing.rs` says.
pub(super) fn leap_values(home: Home, leap: &Leap, other: f64, fresh: bool) -> [u64; 2] {
    let basis = match home {
        Home::Pair(_) => other,
        Home::Reach(_) if fresh => f64::NAN,
        Home::Reach(_) => value(leap.from),
    };
    [value(leap.to).to_bits(), basis.to_bits()]
}
