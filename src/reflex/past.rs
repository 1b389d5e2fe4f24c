//! Bands, spreads and gaps over history, all at once: who asked what is found in the tables that live ticks use.
//!
//! ```text
//!   rows in (tx, n) order --> react_past --> leaps over cuts --> Untold --> next_past_firings --> Firing, Firing, ...
//!                             [ Pasts: a price per market ]
//! ```
//! A band and a spread have no state of their own: whether it was true follows from the prices before and from its
//! registration, and the tables know both. So they answer for any moment, as long as nobody was removed: who came later
//! than a row is passed over, and who has gone is not told any more. Invariant: the firings of each reflex are those of
//! [`Replay`](super::Replay). Deliberately absent: windows, which have an evaluator each, and spreads over two shards.

use super::band::key;
use super::expand::Untold;
use super::reach::Quiet;
use super::react::{Record, gaps, spread_leap, whats};
use super::register::Home;
use super::thresholds::Leap;
use super::{MarketIx, Reflexes};
use myelin_datom::{Tick, Tx, flags};
use std::collections::BTreeMap;

/// The price of a market on its way through history.
#[derive(Clone, Copy, Debug)]
struct Past {
    price: f64,
    tx: Tx,
    /// Prices that fire no band, whoever asks.
    quiet: Quiet,
}

/// The prices of markets on their way through history.
#[derive(Debug, Default)]
pub struct Pasts(BTreeMap<u32, Past>);

impl Pasts {
    /// A tick from before the place to begin at: it only leaves its price.
    pub fn prime(&mut self, tx: Tx, ix: MarketIx, tick: &Tick) {
        if tick.flags & flags::CORRECTION == 0 {
            self.0.insert(ix.0, Past { price: tick.price, tx, quiet: Quiet::NONE });
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
        let before = pasts.0.get(&ix.0).copied();
        let before = before.unwrap_or(Past { price: 0.0, tx: Tx::ZERO, quiet: Quiet::NONE });
        let market = &self.markets[ix.0 as usize];
        let mut asked = 0;
        let mut record = |what| untold.records.push_back(Record { tx, n, ix: ix.0, what });
        let mut quiet = before.quiet;
        if !quiet.contains(tick.price) {
            let leap = Leap { seen: before.tx, from: key(before.price), to: key(tick.price), tx };
            quiet = Quiet::ALL;
            for &at in &market.reaches {
                let (whats, calm) = whats(&self.reaches[at as usize].thresholds, Home::Reach(at), leap, f64::NAN);
                whats.for_each(&mut record);
                quiet = quiet.and(calm);
                asked += 1;
            }
        }
        for &at in &market.pairs {
            let pair = &self.pairs[at as usize];
            let other = pair.other(ix.0).and_then(|other| pasts.0.get(&other));
            let Some(other) = other else { continue };
            let own = (before.tx, before.price);
            let leap = spread_leap(pair, ix.0, own, (other.tx, other.price), (tx, tick.price));
            let (whats, _) = whats(&pair.thresholds, Home::Pair(at), leap, other.price);
            whats.for_each(&mut record);
            asked += 1;
        }
        pasts.0.insert(ix.0, Past { price: tick.price, tx, quiet });
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
