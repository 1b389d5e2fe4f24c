//! Bands, spreads and gaps over history, all at once: who asked what is found in the tables that live ticks use.
//!
//! ```text
//!   rows in (tx, n) order --> react_past --> leaps over cuts --> Untold --> next_past_firings --> Firing, Firing, ...
//!                             [ Pasts: a price per market ]
//! ```
//! A band and a spread have no state of their own: whether it was true follows from the prices before and from its
//! registration, and the tables know both. So they answer for any moment, as long as nobody was removed: who came later
//! than a row is passed over, and who has gone is told no more than was found of it before. Invariant: the firings of each reflex are those of
//! [`Replay`](super::Replay). Deliberately absent: windows, which have an evaluator each, and spreads over two shards.

use super::band::key;
use super::expand::Untold;
use super::reach::Quiet;
use super::react::{Record, gaps, spread_leap, whats};
use super::register::Home;
use super::thresholds::{Leap, Thresholds};
use super::{MarketIx, Reflexes};
use myelin_datom::{Tick, Tx, flags};
use std::collections::BTreeMap;

/// Where a series may move unseen, and until when: somebody registered then, and has seen nothing yet.
#[derive(Clone, Copy, Debug)]
struct Calm {
    values: Quiet,
    until: Tx,
}

impl Calm {
    const NONE: Self = Self { values: Quiet::NONE, until: Tx::ZERO };
    const ALL: Self = Self { values: Quiet::ALL, until: Tx::MAX };

    fn contains(&self, tx: Tx, value: f64) -> bool {
        tx <= self.until && self.values.contains(value)
    }

    fn and(self, other: Self) -> Self {
        Self { values: self.values.and(other.values), until: self.until.min(other.until) }
    }
}

/// The price of a market on its way through history.
#[derive(Clone, Copy, Debug)]
struct Past {
    price: f64,
    tx: Tx,
    /// Prices that fire no band, whoever asks.
    calm: Calm,
}

impl Past {
    /// No price yet.
    const NONE: Self = Self { price: 0.0, tx: Tx::ZERO, calm: Calm::NONE };
}

/// The prices of markets on their way through history.
#[derive(Debug, Default)]
pub struct Pasts {
    markets: BTreeMap<u32, Past>,
    /// Of pairs: what is compared there, that fires no spread.
    pairs: BTreeMap<u32, Calm>,
}

impl Pasts {
    /// A tick from before the place to begin at: it only leaves its price.
    pub fn prime(&mut self, tx: Tx, ix: MarketIx, tick: &Tick) {
        if tick.flags & flags::CORRECTION == 0 {
            self.markets.insert(ix.0, Past { price: tick.price, tx, calm: Calm::NONE });
        }
    }
}

impl Reflexes {
    /// The first registration of a band or spread that sees this market; none where none does.
    ///
    /// **Panics** when `ix` was never added.
    #[must_use]
    pub fn prices_asked_since(&self, ix: MarketIx) -> Option<Tx> {
        let market = &self.markets[ix.0 as usize];
        let bands = market.reaches.iter().map(|at| &self.reaches[*at as usize].thresholds);
        let pairs = market.pairs.iter().map(|at| &self.pairs[*at as usize]);
        let spreads = pairs.filter(|pair| pair.markets.iter().all(Option::is_some)).map(|pair| &pair.thresholds);
        bands.chain(spreads).filter_map(|thresholds| thresholds.oldest()).min()
    }

    /// The tables that a tick or a gap of this market may have to be shown to: its scopes and its pairs.
    ///
    /// **Panics** when `ix` was never added.
    #[must_use]
    pub fn tables(&self, ix: MarketIx) -> usize {
        let market = &self.markets[ix.0 as usize];
        market.reaches.len() + market.pairs.len()
    }

    /// True when somebody asks about the gaps of this market.
    ///
    /// **Panics** when `ix` was never added.
    #[must_use]
    pub fn gaps_are_asked(&self, ix: MarketIx) -> bool {
        self.markets[ix.0 as usize].reaches.iter().any(|at| !self.reaches[*at as usize].gaps.is_empty())
    }

    /// Shows a tick from history to all bands and spreads that see its market. Rows come in (tx, n) order, and what is pending
    /// is expanded before a row of another place. Gives how many tables were asked.
    ///
    /// **Panics** when `ix` was never added.
    pub fn react_past(
        &self,
        pasts: &mut Pasts,
        untold: &mut Untold,
        (tx, n): (Tx, u32),
        ix: MarketIx,
        tick: &Tick,
    ) -> usize {
        if tick.flags & flags::CORRECTION != 0 {
            return 0;
        }
        let before = pasts.markets.get(&ix.0).copied().unwrap_or(Past::NONE);
        let market = &self.markets[ix.0 as usize];
        let mut asked = 0;
        let mut show = |thresholds: &Thresholds, home, leap, other| {
            let (whats, values) = whats(thresholds, home, leap, other);
            untold.records.extend(whats.map(|what| Record { tx, n, ix: ix.0, what }));
            asked += 1;
            Calm { values, until: thresholds.next_registered(tx) }
        };
        let mut calm = before.calm;
        if !calm.contains(tx, tick.price) {
            let leap = Leap { seen: before.tx, from: key(before.price), to: key(tick.price), tx };
            calm = Calm::ALL;
            for &at in &market.reaches {
                calm = calm.and(show(&self.reaches[at as usize].thresholds, Home::Reach(at), leap, f64::NAN));
            }
        }
        for &at in &market.pairs {
            let pair = &self.pairs[at as usize];
            let Some(other) = pair.other(ix.0).and_then(|other| pasts.markets.get(&other)) else { continue };
            let stood = pasts.pairs.get(&at).copied().unwrap_or(Calm::NONE);
            if stood.contains(tx, pair.measure(ix.0, tick.price, other.price)) {
                continue;
            }
            let own = (before.tx, before.price);
            let leap = spread_leap(pair, ix.0, own, (other.tx, other.price), (tx, tick.price));
            pasts.pairs.insert(at, show(&pair.thresholds, Home::Pair(at), leap, other.price));
        }
        pasts.markets.insert(ix.0, Past { price: tick.price, tx, calm });
        asked
    }

    /// Shows a gap from history to all who ask about the gaps of its market, as [`Reflexes::react_past`] does a tick.
    ///
    /// **Panics** when `ix` was never added.
    pub fn gap_past(&self, untold: &mut Untold, (tx, n): (Tx, u32), ix: MarketIx, missing: (u64, u64)) {
        let whats = gaps(&self.markets[ix.0 as usize], &self.reaches, missing.0, missing.1);
        untold.records.extend(whats.map(|what| Record { tx, n, ix: ix.0, what }));
    }
}
