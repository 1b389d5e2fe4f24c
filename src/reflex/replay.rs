//! One reflex over ticks from history: exactly the firings live evaluation produced, for resume and for back-tests.
//!
//! ```text
//!   history in tx order:   ... | prime, prime, prime | react, react, react ...
//!                                                    ^ the position to resume from
//!   what to prime    from the first tick: nothing
//!   bands, spread    the market's (both markets') previous tick that is no correction
//!   windows          let H be the greatest event time since the registration: every tick after the registration whose
//!                    event time lies in [H - w - step, H], in tx order
//!   gap              nothing
//! ```
//!
//! Invariants: it runs the same bands and the same windows as live evaluation, only without the shared tables. Memory
//! is per market seen. Deliberately absent: scopes and limits; the caller feeds the ticks of the markets that match.

use super::band::key;
use super::firing::{Firing, Kind, ReflexId};
use super::spec::{Spec, SpecError, Spread};
use super::window::{Outcome, Window};
use myelin_datom::{EntityId, Tick, Tx, flags};
use std::collections::BTreeMap;

/// One reflex, all by itself.
#[derive(Clone, Debug)]
pub struct Replay {
    id: ReflexId,
    spec: Spec,
    registered_at: Tx,
    /// The two markets of a spread.
    pair: Option<[EntityId; 2]>,
    markets: BTreeMap<EntityId, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    price: f64,
    tx: Tx,
    window: Option<Window>,
}

impl Replay {
    /// A reflex of any kind but spread. **Errors:** what [`Spec::check`] says, or that a spread needs its markets.
    pub fn new(id: ReflexId, spec: Spec, registered_at: Tx) -> Result<Self, SpecError> {
        spec.check()?;
        if spec.kind() == Kind::Spread {
            return Err(SpecError::SpreadScope);
        }
        Ok(Self { id, spec, registered_at, pair: None, markets: BTreeMap::new() })
    }

    /// A spread, with the ids its two names stand for.
    pub fn spread(
        id: ReflexId,
        spread: Spread,
        registered_at: Tx,
        a: EntityId,
        b: EntityId,
    ) -> Result<Self, SpecError> {
        let spec = Spec::Spread(Box::new(spread));
        spec.check()?;
        Ok(Self { id, spec, registered_at, pair: Some([a, b]), markets: BTreeMap::new() })
    }

    /// Says which market one of a spread's two names stands for, once it is there: side 0 is `a`. Until then it is
    /// [`EntityId::NONE`], which no tick is of.
    pub fn named(&mut self, side: usize, market: EntityId) {
        if let Some(pair) = &mut self.pair {
            pair[side] = market;
        }
    }

    /// Shows a tick from before the position to start from. Ticks from before the registration only set a price.
    pub fn prime(&mut self, tx: Tx, tick: &Tick) {
        let _ = self.react(tx, 0, tick);
    }

    /// Shows one tick; gives the firing it caused.
    pub fn react(&mut self, tx: Tx, n: u32, tick: &Tick) -> Option<Firing> {
        if tick.flags & flags::CORRECTION != 0 {
            return None;
        }
        let values = if self.spec.is_window() {
            self.turn_window(tx, tick)
        } else if let Some(pair) = self.pair {
            self.spread_fires(tx, pair, tick)
        } else {
            self.band_fires(tx, tick)
        };
        if !self.spec.is_window() {
            self.markets.insert(tick.market, Seen { price: tick.price, tx, window: None });
        }
        Some(Firing { reflex: self.id, market: tick.market, tx, n, kind: self.spec.kind(), values: values? })
    }

    /// Shows one gap.
    pub fn gap(&mut self, tx: Tx, n: u32, market: EntityId, first_missing: u64, last_missing: u64) -> Option<Firing> {
        let sees = self.spec == Spec::Gap && tx > self.registered_at;
        let values = [first_missing, last_missing];
        sees.then_some(Firing { reflex: self.id, market, tx, n, kind: Kind::Gap, values })
    }

    fn band_fires(&self, tx: Tx, tick: &Tick) -> Option<[u64; 2]> {
        let band = self.spec.band()?;
        let before = self.markets.get(&tick.market).filter(|seen| seen.tx > self.registered_at);
        let held = before.is_some_and(|seen| band.holds(key(seen.price)));
        let basis = before.map_or(f64::NAN, |seen| seen.price);
        (tx > self.registered_at && !held && band.holds(key(tick.price)))
            .then(|| [tick.price.to_bits(), basis.to_bits()])
    }

    fn spread_fires(&self, tx: Tx, [a, b]: [EntityId; 2], tick: &Tick) -> Option<[u64; 2]> {
        let Spec::Spread(spread) = &self.spec else { return None };
        let band = self.spec.band()?;
        if tick.market != a && tick.market != b {
            return None;
        }
        let other = self.markets.get(if tick.market == a { &b } else { &a })?;
        let measure = |own: f64| {
            let (x, y) = if tick.market == a { (own, other.price) } else { (other.price, own) };
            Spread::measure(spread.signed, x, y)
        };
        let held = self
            .markets
            .get(&tick.market)
            .is_some_and(|own| own.tx.max(other.tx) > self.registered_at && band.holds(key(measure(own.price))));
        let now = measure(tick.price);
        (tx > self.registered_at && !held && band.holds(key(now))).then(|| [now.to_bits(), other.price.to_bits()])
    }

    fn turn_window(&mut self, tx: Tx, tick: &Tick) -> Option<[u64; 2]> {
        if tx <= self.registered_at {
            return None;
        }
        let new = || Seen { price: tick.price, tx, window: Window::new(&self.spec, self.registered_at) };
        let seen = self.markets.entry(tick.market).or_insert_with(new);
        match seen.window.as_mut()?.take(tick) {
            Outcome::Fired(values) => Some(values),
            Outcome::Nothing | Outcome::Late => None,
        }
    }
}
