//! All bands over a market's past at once: what thousands of them missed is found in the tables that live ticks use.
//!
//! ```text
//!   a market's rows in tx order --> react_past --> leaps over cuts --> Untold --> next_past_firings --> Firing, Firing, ...
//!                                   [ Past: the price before ]
//! ```
//! A band has no state of its own: whether it was true follows from the price before and from its registration, and the
//! tables know both. So they answer for any moment, as long as nobody was removed: who came later than a row is passed over,
//! and who has gone is not told any more. Invariant: the firings of each band are those of [`Replay`](super::Replay).
//! Deliberately absent: windows, spreads and gaps, which have an evaluator each.

use super::band::key;
use super::expand::Untold;
use super::reach::Quiet;
use super::react::{Record, whats};
use super::register::Home;
use super::thresholds::Leap;
use super::{MarketIx, Reflexes};
use myelin_datom::{Tick, Tx, flags};

/// The price of a market on its way through history.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    price: f64,
    tx: Tx,
    /// Prices that fire nothing, whoever asks.
    quiet: Quiet,
}

impl Default for Past {
    /// Before the first tick.
    fn default() -> Self {
        Self { price: 0.0, tx: Tx::ZERO, quiet: Quiet::NONE }
    }
}

impl Past {
    /// A tick from before the place to begin at: it only leaves its price.
    pub fn prime(&mut self, tx: Tx, tick: &Tick) {
        if tick.flags & flags::CORRECTION == 0 {
            *self = Self { price: tick.price, tx, quiet: Quiet::NONE };
        }
    }
}

impl Reflexes {
    /// The first registration of a band that sees this market; none where no band does.
    ///
    /// **Panics** when `ix` was never added.
    #[must_use]
    pub fn bands_since(&self, ix: MarketIx) -> Option<Tx> {
        let reaches = &self.markets[ix.0 as usize].reaches;
        reaches.iter().filter_map(|at| self.reaches[*at as usize].thresholds.oldest()).min()
    }

    /// Shows a tick from history to all bands that see its market; rows come in (tx, n) order per market, and of one `Untold`
    /// what is pending is expanded before a row of another place. Gives how many tables were asked.
    ///
    /// **Panics** when `ix` was never added.
    pub fn react_past(
        &self,
        past: &mut Past,
        untold: &mut Untold,
        (tx, n): (Tx, u32),
        ix: MarketIx,
        tick: &Tick,
    ) -> u32 {
        if tick.flags & flags::CORRECTION != 0 {
            return 0;
        }
        let mut asked = 0;
        let mut quiet = past.quiet;
        if !quiet.contains(tick.price) {
            let leap = Leap { seen: past.tx, from: key(past.price), to: key(tick.price), tx };
            quiet = Quiet::ALL;
            for &at in &self.markets[ix.0 as usize].reaches {
                let (whats, calm) = whats(&self.reaches[at as usize].thresholds, Home::Reach(at), leap, f64::NAN);
                untold.records.extend(whats.map(|what| Record { tx, n, ix: ix.0, what }));
                quiet = quiet.and(calm);
                asked += 1;
            }
        }
        *past = Past { price: tick.price, tx, quiet };
        asked
    }
}
