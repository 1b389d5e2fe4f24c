//! Registering, removing and listing reflexes; joining markets to them.
//!
//! ```text
//!   register -> held (by id) -> reach (by scope) -> thresholds | gaps | windows of each market
//!                           \-> pair (by names) -> thresholds
//! ```
//!
//! Invariants: either everything about a registration changes or nothing; a market whose reflexes changed is loud until
//! its next tick, which settles it; registrations and removals never meet pending firings (the caller drains first).
//! Deliberately absent: who may register, and quotas per client (the shard).

use super::Reflexes;
use super::firing::ReflexId;
use super::reach::{Pair, Quiet, Reach};
use super::spec::{Scope, Spec, SpecError, Spread};
use super::thresholds::{Asked, Thresholds};
use super::window::Window;
use myelin_datom::Tx;
use std::ops::Bound::{Excluded, Unbounded};

/// Why a reflex was not registered. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The question itself.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// This id asks something else already.
    #[error("reflex {} is registered with another question or scope", .0.0)]
    IdTaken(ReflexId),
    /// A bound of [`super::Limits`] is reached: remove some, or narrow the scope.
    #[error("this shard holds no more than {max} {of}")]
    Full {
        /// What there would be too many of.
        of: &'static str,
        /// The bound.
        max: usize,
    },
}

/// A reflex as it was registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Its id.
    pub id: ReflexId,
    /// What it asks.
    pub spec: Spec,
    /// Of which markets.
    pub scope: Scope,
    /// The transaction that registered it; it sees ticks of later ones.
    pub registered_at: Tx,
}

/// What a look along the registrations came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// What was sought.
    pub found: Option<Registration>,
    /// The last one that was looked at; none behind the end.
    pub last: Option<ReflexId>,
    /// How many were looked at.
    pub looks: usize,
}

/// A registration as it is kept: the scope by number.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub spec: Spec,
    pub registered: Tx,
    pub home: Home,
}

/// Where a reflex lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    Reach(u32),
    Pair(u32),
}

impl Held {
    pub(super) fn asked(&self, id: ReflexId) -> Option<Asked> {
        let band = self.spec.band()?;
        Some(Asked { reflex: id.0, band, kind: self.spec.kind(), registered: self.registered })
    }
}

impl Reflexes {
    /// Registers a question. The same id with the same question and scope again changes nothing, its first
    /// `registered_at` stays.
    ///
    /// **Errors:** [`RegisterError`]; nothing changed. **Cost:** O(log n); a window also visits the markets it matches.
    /// **Panics** while firings are pending: what is recorded must expand to what was registered then.
    pub fn register(&mut self, id: ReflexId, spec: Spec, scope: Scope, registered_at: Tx) -> Result<(), RegisterError> {
        assert!(!self.pending());
        spec.check_in(&scope)?;
        if let Some(held) = self.held.get(&id) {
            let same = held.spec == spec && *self.scope_of(held) == scope;
            return if same { Ok(()) } else { Err(RegisterError::IdTaken(id)) };
        }
        let max = self.limits.reflexes;
        if self.held.len() >= max {
            return Err(RegisterError::Full { of: "reflexes", max });
        }
        let home = match &spec {
            Spec::Spread(spread) => Home::Pair(self.pair_for(spread)?),
            _ => Home::Reach(self.reach_for(&spec, scope)?),
        };
        let held = Held { spec, registered: registered_at, home };
        self.settle_in(id, &held);
        self.held.insert(id, held);
        self.version += 1;
        Ok(())
    }

    /// Removes a reflex; false when there is none of this id. **Panics** while firings are pending.
    pub fn remove(&mut self, id: ReflexId) -> bool {
        assert!(!self.pending());
        let Some(held) = self.held.remove(&id) else { return false };
        self.version += 1;
        match held.home {
            Home::Reach(at) => self.leave_reach(at, id, &held),
            Home::Pair(at) => self.leave_pair(at, id, &held),
        }
        true
    }

    /// The registration of this id.
    #[must_use]
    pub fn get(&self, id: ReflexId) -> Option<Registration> {
        self.held.get(&id).map(|held| self.registration(id, held))
    }

    /// Registrations in id order, those after `after`: take as many as a page holds and pass the last id next time.
    pub fn list(&self, after: Option<ReflexId>) -> impl Iterator<Item = Registration> + '_ {
        let from = after.map_or(Unbounded, Excluded);
        self.held.range((from, Unbounded)).map(|(id, held)| self.registration(*id, held))
    }

    /// The first behind `after` whose past an evaluator of its own has to tell, among so many: a window over markets that are
    /// there, or a spread of which a market is not among these.
    #[must_use]
    pub fn next_evaluated(&self, after: Option<ReflexId>, looks: usize) -> Looked {
        let from = after.map_or(Unbounded, Excluded);
        let mut looked = Looked::default();
        for (id, held) in self.held.range((from, Unbounded)).take(looks) {
            (looked.last, looked.looks) = (Some(*id), looked.looks + 1);
            let is_evaluated = match held.home {
                Home::Pair(at) => self.pairs[at as usize].markets.contains(&None),
                Home::Reach(at) => held.spec.is_window() && !self.reaches[at as usize].markets.is_empty(),
            };
            if is_evaluated {
                looked.found = Some(self.registration(*id, held));
                break;
            }
        }
        looked
    }

    /// The spreads among them, in id order. **Cost:** a look at each reflex.
    pub fn spreads(&self) -> impl Iterator<Item = Registration> + '_ {
        let spreads = self.held.iter().filter(|(_, held)| matches!(held.home, Home::Pair(_)));
        spreads.map(|(id, held)| self.registration(*id, held))
    }

    fn registration(&self, id: ReflexId, held: &Held) -> Registration {
        let (spec, scope) = (held.spec.clone(), self.scope_of(held).clone());
        Registration { id, spec, scope, registered_at: held.registered }
    }

    pub(super) fn scope_of(&self, held: &Held) -> &Scope {
        match held.home {
            Home::Reach(at) => &self.reaches[at as usize].scope,
            Home::Pair(_) => &Scope::All,
        }
    }

    /// The reach of a scope, made if need be, after every check that could refuse.
    pub(super) fn reach_for(&mut self, spec: &Spec, scope: Scope) -> Result<u32, RegisterError> {
        let known = self.by_scope.get(&scope).copied();
        if spec.is_window() {
            self.check_windows(known, &scope)?;
        }
        if let Some(at) = known {
            return Ok(at);
        }
        if matches!(scope, Scope::Like(_)) {
            let (first, last) = (Scope::Like("".into()), Scope::All);
            let max = self.limits.patterns;
            if self.by_scope.range(first..last).count() >= max {
                return Err(RegisterError::Full { of: "name patterns", max });
            }
        }
        let mut reach = Reach::new(scope.clone());
        reach.markets = self.matching(&scope);
        let at = place(&mut self.reaches, &mut self.free_reaches, reach);
        for &ix in &self.reaches[at as usize].markets {
            self.markets[ix as usize].reaches.push(at);
        }
        self.by_scope.insert(scope, at);
        Ok(at)
    }

    fn check_windows(&self, known: Option<u32>, scope: &Scope) -> Result<(), RegisterError> {
        let found;
        let matching = match known {
            Some(at) => &self.reaches[at as usize].markets,
            None => {
                found = self.matching(scope);
                &found
            }
        };
        let (max, per_market) = (self.limits.windows, self.limits.windows_per_market);
        if self.windows + matching.len() > max {
            return Err(RegisterError::Full { of: "windows", max });
        }
        let crowded = |ix: &u32| self.markets[*ix as usize].windows.len() >= per_market;
        // The scope's own number is bounded too: a market that appears later brings them all at once.
        let waiting = known.map_or(0, |at| self.reaches[at as usize].windows.len());
        if waiting >= per_market || matching.iter().any(crowded) {
            return Err(RegisterError::Full { of: "windows over one market", max: per_market });
        }
        Ok(())
    }

    fn matching(&self, scope: &Scope) -> Vec<u32> {
        if let Scope::Market(name) = scope {
            return self.by_name.get(name).copied().into_iter().collect();
        }
        (0..).zip(&self.markets).filter(|(_, market)| scope.matches(&market.name)).map(|(ix, _)| ix).collect()
    }

    fn pair_for(&mut self, spread: &Spread) -> Result<u32, RegisterError> {
        let key = ([spread.a.clone(), spread.b.clone()], spread.signed);
        if let Some(&at) = self.by_pair.get(&key) {
            return Ok(at);
        }
        let max = self.limits.pairs;
        if self.by_pair.len() >= max {
            return Err(RegisterError::Full { of: "pairs of markets", max });
        }
        let markets = [&spread.a, &spread.b].map(|name| self.by_name.get(name).copied());
        let per_market = self.limits.pairs_per_market;
        let crowded = |ix: &u32| self.markets[*ix as usize].pairs.len() >= per_market;
        if markets.iter().flatten().any(crowded) {
            return Err(RegisterError::Full { of: "pairs of one market", max: per_market });
        }
        let thresholds = Thresholds::default();
        let pair = Pair { names: key.0.clone(), signed: key.1, markets, thresholds, calm: Quiet::NONE };
        let at = place(&mut self.pairs, &mut self.free_pairs, pair);
        for ix in markets.into_iter().flatten() {
            self.markets[ix as usize].pairs.push(at);
            self.hot[ix as usize].quiet = Quiet::NONE;
        }
        self.by_pair.insert(key, at);
        Ok(at)
    }

    /// Enters a reflex where it lives. All checks are done.
    fn settle_in(&mut self, id: ReflexId, held: &Held) {
        match held.home {
            Home::Pair(at) => {
                let pair = &mut self.pairs[at as usize];
                pair.calm = Quiet::NONE;
                held.asked(id).into_iter().for_each(|asked| pair.thresholds.insert(asked));
            }
            Home::Reach(at) => {
                self.wake(at);
                let reach = &mut self.reaches[at as usize];
                reach.reflexes += 1;
                if let Some(asked) = held.asked(id) {
                    reach.thresholds.insert(asked);
                } else if held.spec.is_window() {
                    reach.windows.insert(id.0, (held.spec.clone(), held.registered));
                    let markets = reach.markets.clone();
                    markets.into_iter().for_each(|ix| self.open_window(ix, id, &held.spec, held.registered));
                } else {
                    reach.gaps.insert(id.0, held.registered);
                }
            }
        }
    }

    fn open_window(&mut self, ix: u32, id: ReflexId, spec: &Spec, registered: Tx) {
        let market = &mut self.markets[ix as usize];
        let Some(window) = Window::new(spec, registered) else { return };
        if let Err(at) = market.windows.binary_search_by_key(&id, |(id, _)| *id) {
            market.windows.insert(at, (id, window));
            self.windows += 1;
            self.hot[ix as usize].quiet = Quiet::NONE;
        }
    }

    /// Makes every market of a reach loud until its next tick.
    fn wake(&mut self, at: u32) {
        let reach = &mut self.reaches[at as usize];
        if !std::mem::replace(&mut reach.settled, false) {
            return;
        }
        for &ix in &reach.markets {
            self.hot[ix as usize].quiet = Quiet::NONE;
            self.markets[ix as usize].calm = Quiet::NONE;
        }
    }

    fn leave_reach(&mut self, at: u32, id: ReflexId, held: &Held) {
        let reach = &mut self.reaches[at as usize];
        reach.reflexes -= 1;
        held.asked(id).into_iter().for_each(|asked| reach.thresholds.remove(asked));
        reach.gaps.remove(&id.0);
        if reach.windows.remove(&id.0).is_some() {
            for &ix in &reach.markets {
                let market = &mut self.markets[ix as usize];
                if let Ok(found) = market.windows.binary_search_by_key(&id, |(id, _)| *id) {
                    market.windows.remove(found);
                    self.windows -= 1;
                }
            }
        }
        if reach.reflexes == 0 {
            let gone = std::mem::replace(reach, Reach::new(Scope::All));
            self.by_scope.remove(&gone.scope);
            self.free_reaches.push(at);
            for &ix in &gone.markets {
                self.markets[ix as usize].reaches.retain(|r| *r != at);
            }
        }
    }

    fn leave_pair(&mut self, at: u32, id: ReflexId, held: &Held) {
        let pair = &mut self.pairs[at as usize];
        held.asked(id).into_iter().for_each(|asked| pair.thresholds.remove(asked));
        if pair.thresholds.is_empty() {
            let names = std::mem::take(&mut pair.names);
            for ix in std::mem::take(&mut pair.markets).into_iter().flatten() {
                self.markets[ix as usize].pairs.retain(|p| *p != at);
            }
            self.by_pair.remove(&(names, self.pairs[at as usize].signed));
            self.free_pairs.push(at);
        }
    }

    /// Joins a new market to the reaches that match its name. Gives the windows that did not fit.
    pub(super) fn join_reaches(&mut self, ix: u32, name: &str) -> usize {
        let own = Scope::Market(name.into());
        let shared = self.by_scope.range(Scope::Like("".into())..).filter(|(scope, _)| scope.matches(name));
        let joined: Vec<u32> = self.by_scope.get(&own).into_iter().chain(shared.map(|(_, at)| at)).copied().collect();
        let mut left_out = 0;
        for &at in &joined {
            let reach = &mut self.reaches[at as usize];
            reach.markets.push(ix);
            let windows: Vec<_> = reach.windows.iter().map(|(id, window)| (*id, window.clone())).collect();
            for (id, (spec, registered)) in windows {
                let of_market = self.markets[ix as usize].windows.len();
                if self.windows < self.limits.windows && of_market < self.limits.windows_per_market {
                    self.open_window(ix, ReflexId(id), &spec, registered);
                } else {
                    left_out += 1;
                }
            }
        }
        self.markets[ix as usize].reaches = joined;
        left_out
    }

    /// Joins a new market to the pairs that name it. Gives the pairs that did not fit.
    pub(super) fn join_pairs(&mut self, ix: u32, name: &str) -> usize {
        let named: Vec<u32> = self
            .by_pair
            .iter()
            .filter(|((names, _), _)| names.iter().any(|n| &**n == name))
            .map(|(_, at)| *at)
            .collect();
        let room = self.limits.pairs_per_market.min(named.len());
        for &at in &named[..room] {
            let pair = &mut self.pairs[at as usize];
            let side = usize::from(&*pair.names[0] != name);
            pair.markets[side] = Some(ix);
        }
        self.markets[ix as usize].pairs = named[..room].to_vec();
        named.len() - room
    }
}

/// Puts a thing where one was freed, or at the end.
fn place<T>(all: &mut Vec<T>, free: &mut Vec<u32>, thing: T) -> u32 {
    if let Some(at) = free.pop() {
        all[at as usize] = thing;
        return at;
    }
    all.push(thing);
    (all.len() - 1) as u32
}
