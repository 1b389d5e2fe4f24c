//! How a way through history is opened: which reflexes ask, which markets they ask about, and where the rows of each begin.
//!
//! ```text
//!   reflex by reflex --> market by market --> where its rows begin, by a search or a way back --> one stretch up to `basis`
//! ```
//! Every step ends with the turn and is gone on with in the next one: a reflex over ten thousand markets takes some hundred
//! turns. Invariant: what is opened is what stood when it began; reflexes and markets that come meanwhile have a say behind
//! `basis`. Deliberately absent: evaluating (`replay.rs`).

use super::{Evaluator, Feed, Place, ReplayError, Replaying, Step, compacted};
use crate::reflex::{self, Kind, Looked, ReflexId, Registration, Replay, Scope, Spec};
use crate::shard::across::Across;
use crate::shard::gaps::Skips;
use crate::shard::interleave::Interleave;
use crate::shard::seek::{Price, Seek};
use crate::shard::turn::{LOOKS, SEARCH, Work};
use crate::shard::{Refusal, Shard};
use myelin_datom::{EntityId, Tx};
use myelin_index::MarketIx;
use myelin_wire::{Code, MarketFlags};
use std::collections::{BTreeMap, VecDeque};

/// Reflexes one replay evaluates one by one at most, on one shard and across shards each. Of who asks
/// all these are windows only, and spreads over two shards: the rest is asked together, however many there are.
const EVALUATORS_MAX: usize = 4096;
/// Reflexes that are passed over before it is asked whether the turn is over.
const LOOKS_AT_ONCE: usize = 256;
/// Pairs of a reflex and a market in one replay at most, where these are more than the markets: each costs a search at its
/// start, all together some hundred milliseconds of a core, a turn at a time.
const PAIRS_MAX: usize = 20_000;
/// Rows that wait in memory, over all feeds.
const BUFFERED_ROWS: usize = 1 << 16;

/// See the module's picture.
#[derive(Debug)]
pub(super) struct Opening {
    /// What was applied when it began: the first stretch ends here.
    basis: Tx,
    /// Markets of lower numbers were there.
    markets: u32,
    /// Reflexes up to this one were looked at.
    looked: Option<ReflexId>,
    /// The one that is.
    asking: Option<Box<Asking>>,
    /// Markets below this number were looked at for those who ask together.
    together: u32,
    /// The feed whose beginning is sought.
    seeking: Option<(usize, Seek)>,
    /// By the market's number.
    feed_of: BTreeMap<u32, usize>,
    skip_of: BTreeMap<u32, usize>,
    skipping: Vec<(EntityId, u32)>,
    pairs: usize,
    /// Rows that it takes were pruned; behind this transaction it can begin.
    oldest: Option<Tx>,
    /// Spreads whose other market is on another shard.
    crossing: VecDeque<Registration>,
}

impl Opening {
    pub(super) fn new(basis: Tx, markets: usize) -> Self {
        Self {
            basis,
            markets: markets as u32,
            looked: None,
            asking: None,
            together: 0,
            seeking: None,
            feed_of: BTreeMap::new(),
            skip_of: BTreeMap::new(),
            skipping: Vec::new(),
            pairs: 0,
            oldest: None,
            crossing: VecDeque::new(),
        }
    }

    /// The feed of a market, made if need be.
    fn feed(&mut self, way: &mut Replaying, market: MarketIx) -> usize {
        *self.feed_of.entry(market.number()).or_insert_with(|| {
            way.feeds.push(Feed { market, evaluators: Vec::new(), together: false, first_row: u32::MAX });
            way.feeds.len() - 1
        })
    }
}

/// A reflex on its way over the markets.
#[derive(Debug)]
struct Asking {
    of: Registration,
    evaluator: usize,
    markets: Candidates,
}

#[derive(Debug)]
enum Candidates {
    /// All from this number on.
    From(u32),
    /// These.
    Named(Vec<EntityId>),
}

/// Where a market's rows begin for an evaluator.
enum Begin {
    /// At this row.
    Row(u32),
    /// They were pruned: it can begin behind this transaction, if its rows stay.
    Behind(Tx),
    /// At the price that stands there, which is to be sought.
    Seek(Seek),
}

impl Shard {
    /// Opens what is not open yet, as far as the turn goes.
    ///
    /// **Errors:** `Compacted` when rows that it takes are gone; `TooMany` reflexes.
    pub(in crate::shard) fn open_replay(&mut self, way: &mut Replaying, work: &mut Work) -> Result<Step, ReplayError> {
        let Some(mut opening) = way.opening.take() else { return Ok(Step::Done) };
        if !self.may_go_on(way) {
            way.opening = Some(opening);
            return Ok(Step::Waiting);
        }
        if !self.ask_all(way, &mut opening, work)?
            || !self.ask_together(way, &mut opening, work)?
            || !self.cross_all(way, &mut opening, work)?
        {
            way.opening = Some(opening);
            return Ok(Step::More);
        }
        let Opening { basis, oldest, skipping, .. } = *opening;
        if let Some(oldest) = oldest {
            return Err(compacted(oldest).into());
        }
        way.rows = Interleave::new(way.feeds.iter().map(|feed| (feed.market, feed.first_row)), BUFFERED_ROWS);
        way.rows.open(basis);
        // A place in the middle of a transaction: it is read again from its beginning.
        way.skips = Skips::new(skipping.into_iter(), Tx::from_bits(way.after.0.saturating_sub(1)));
        way.skips.open(basis);
        Ok(Step::Done)
    }

    /// Every reflex that is asked for, with every market that it asks about.
    fn ask_all(&self, way: &mut Replaying, opening: &mut Opening, work: &mut Work) -> Result<bool, ReplayError> {
        loop {
            if let Some(mut asking) = opening.asking.take()
                && !self.ask_markets(way, opening, &mut asking, work)?
            {
                opening.asking = Some(asking);
                return Ok(false);
            }
            if work.is_spent() {
                return Ok(false);
            }
            let Looked { found, last, looks } = self.next_asked(way, opening.looked);
            work.spend(1 + looks.div_ceil(LOOKS) as u32);
            if last.is_none() {
                return Ok(true);
            }
            opening.looked = last;
            let Some(of) = found else { continue };
            if of.registered_at > opening.basis {
                continue;
            }
            if matches!(&of.spec, Spec::Spread(spread) if self.crosses(spread)) {
                opening.crossing.push_back(of);
                if opening.crossing.len() > EVALUATORS_MAX {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                continue;
            }
            if way.asks_together() && !of.spec.is_window() {
                continue;
            }
            let Some(evaluator) = self.evaluator(&of, way.after, way.back_test) else { continue };
            way.evaluators.push(evaluator);
            if way.evaluators.len() > EVALUATORS_MAX {
                return Err(Refusal::of(Code::TooMany).into());
            }
            let (evaluator, markets) = (way.evaluators.len() - 1, self.candidates(&of));
            opening.asking = Some(Box::new(Asking { of, evaluator, markets }));
        }
    }

    /// The next reflex with an evaluator of its own, among some.
    fn next_asked(&self, way: &Replaying, looked: Option<ReflexId>) -> Looked {
        let found = match way.reflex {
            0 if way.asks_together() => return self.reflexes.next_evaluated(looked, LOOKS_AT_ONCE),
            0 => self.reflexes.list(looked).next(),
            one => self.reflexes.get(ReflexId(one)).filter(|_| looked.is_none()),
        };
        Looked { last: found.as_ref().map(|of| of.id), found, looks: 1 }
    }

    fn candidates(&self, of: &Registration) -> Candidates {
        let named = |name: &str| self.markets.named(name).map(|market| market.id);
        match (&of.spec, &of.scope) {
            (Spec::Spread(spread), _) => {
                Candidates::Named([named(&spread.b), named(&spread.a)].into_iter().flatten().collect())
            }
            (_, Scope::Market(name)) => Candidates::Named(named(name).into_iter().collect()),
            (_, Scope::Like(_) | Scope::All) => Candidates::From(0),
        }
    }

    /// The markets of one reflex, and where the rows of each begin.
    fn ask_markets(
        &self,
        way: &mut Replaying,
        opening: &mut Opening,
        asking: &mut Asking,
        work: &mut Work,
    ) -> Result<bool, ReplayError> {
        loop {
            if !self.seek_on(way, opening, work)? {
                return Ok(false);
            }
            if work.is_spent() || way.has_to_be_large() {
                return Ok(false);
            }
            work.spend(1);
            let market = match &mut asking.markets {
                Candidates::Named(markets) => match markets.pop() {
                    Some(market) => market,
                    None => return Ok(true),
                },
                Candidates::From(number) => {
                    let Some(market) = self.markets.get(*number) else { return Ok(true) };
                    *number += 1;
                    if !asking.of.scope.matches(&market.name) {
                        continue;
                    }
                    market.id
                }
            };
            let Some(ix) = self.ticks.market_ix(market).filter(|ix| ix.number() < opening.markets) else { continue };
            opening.pairs += 1;
            if opening.pairs > PAIRS_MAX.max(opening.markets as usize) {
                return Err(Refusal::of(Code::TooMany).into());
            }
            if asking.of.spec.kind() == Kind::Gap {
                self.ask_gaps(way, opening, Some(asking.evaluator), ix);
                continue;
            }
            let feed = opening.feed(way, ix);
            way.feeds[feed].evaluators.push(asking.evaluator);
            match self.begin(ix, &asking.of, way, work)? {
                Begin::Row(row) => way.feeds[feed].begins_at(row),
                Begin::Behind(tx) => opening.oldest = opening.oldest.max(Some(tx)),
                Begin::Seek(seek) => opening.seeking = Some((feed, seek)),
            }
        }
    }

    /// Goes on to where the rows of the feed in question begin. False when the turn is over before.
    fn seek_on(&self, way: &mut Replaying, opening: &mut Opening, work: &mut Work) -> Result<bool, ReplayError> {
        let Some((feed, seek)) = &mut opening.seeking else { return Ok(true) };
        let feed = &mut way.feeds[*feed];
        match seek.go_on(&self.ticks, feed.market, self.group.applied_tx(), work)? {
            None => return Ok(false),
            Some(Price::Row(row) | Price::Never(row)) => feed.begins_at(row),
            Some(Price::Gone { oldest, .. }) => opening.oldest = opening.oldest.max(Some(oldest)),
        }
        opening.seeking = None;
        Ok(true)
    }

    /// Every market whose price or gaps somebody asks about, when all are asked together.
    fn ask_together(&self, way: &mut Replaying, opening: &mut Opening, work: &mut Work) -> Result<bool, ReplayError> {
        if !way.asks_together() {
            return Ok(true);
        }
        loop {
            if !self.seek_on(way, opening, work)? {
                return Ok(false);
            }
            if work.is_spent() || way.has_to_be_large() {
                return Ok(false);
            }
            work.spend(1);
            let number = opening.together;
            let Some(market) = self.markets.get(number).filter(|_| number < opening.markets) else { return Ok(true) };
            opening.together += 1;
            work.spend(self.reflexes.tables(reflex::MarketIx(number)).div_ceil(LOOKS) as u32);
            let Some(ix) = self.ticks.market_ix(market.id) else { continue };
            if self.reflexes.gaps_are_asked(reflex::MarketIx(number)) {
                self.ask_gaps(way, opening, None, ix);
            }
            let Some(since) = self.reflexes.prices_asked_since(reflex::MarketIx(number)) else { continue };
            let feed = opening.feed(way, ix);
            way.feeds[feed].together = true;
            // Before the first of them was registered none has a place.
            let place = Tx::from_bits(way.after.0.max(since.bits()).saturating_sub(1));
            opening.seeking = Some((feed, Seek::behind(&self.ticks, ix, place, work)?));
        }
    }

    /// The gaps of a market, if its ids are dense.
    fn ask_gaps(&self, way: &mut Replaying, opening: &mut Opening, evaluator: Option<usize>, ix: MarketIx) {
        let market = self.markets.get(ix.number()).filter(|market| market.flags.has(MarketFlags::DENSE));
        let Some(market) = market else { return };
        let at = *opening.skip_of.entry(ix.number()).or_insert_with(|| {
            opening.skipping.push((market.id, ix.number()));
            way.skip_evaluators.push(Vec::new());
            way.skip_evaluators.len() - 1
        });
        way.skip_evaluators[at].extend(evaluator);
    }

    /// Where an evaluator's rows begin in a market: what it must have seen before `after` to be in its state there.
    fn begin(&self, ix: MarketIx, of: &Registration, way: &Replaying, work: &mut Work) -> Result<Begin, ReplayError> {
        let start = Tx::from_bits(way.after.0);
        let gone = self.ticks.kept(ix).gone;
        let mut behind = |tx: Tx| {
            work.spend(SEARCH);
            self.ticks.row_after(ix, tx).map(Begin::Row)
        };
        // A band's and a spread's state is the last price.
        let by_price = !of.spec.is_window();
        if way.back_test && start < of.registered_at && of.spec.kind() != Kind::Spread {
            return Ok(if start < gone { Begin::Behind(gone) } else { behind(start)? });
        }
        if !by_price {
            // A window's state is all it saw: without its first rows nothing behind them can be derived.
            let from = of.registered_at.min(start);
            return Ok(if from < gone { Begin::Behind(self.group.applied_tx()) } else { behind(from)? });
        }
        // The newest row before the place that is no correction; before its registration a reflex has no place.
        let place = if way.back_test { way.after.0 } else { way.after.0.max(of.registered_at.bits()) };
        Ok(Begin::Seek(Seek::behind(&self.ticks, ix, Tx::from_bits(place.saturating_sub(1)), work)?))
    }

    fn evaluator(&self, of: &Registration, after: Place, back_test: bool) -> Option<Evaluator> {
        let make = |registered_at: Tx| match &of.spec {
            Spec::Spread(spread) => {
                let (a, b) = (self.markets.named(&spread.a)?.id, self.markets.named(&spread.b)?.id);
                Replay::spread(of.id, (**spread).clone(), registered_at, a, b).ok()
            }
            spec => Replay::new(of.id, spec.clone(), registered_at).ok(),
        };
        Evaluator::new(of, after, back_test, make)
    }

    /// The spreads that live here and cross. What came before a reflex was registered it never saw, but for the price there
    /// was.
    fn cross_all(&mut self, way: &mut Replaying, opening: &mut Opening, work: &mut Work) -> Result<bool, ReplayError> {
        if way.across.is_none() {
            let Some(first) = opening.crossing.iter().map(|one| one.registered_at.bits()).min() else {
                return Ok(true);
            };
            let place = if way.back_test { way.after.0 } else { way.after.0.max(first) };
            // Other shards are asked for no moment that this one has not come to: what is asked for they close, for good.
            let begin = Tx::from_bits(place.saturating_sub(1)).min(opening.basis);
            way.across = Some(Box::new(Across::new(self.crossing.key(), begin, opening.basis)));
        }
        let Some(across) = &mut way.across else { return Ok(true) };
        while let Some(of) = opening.crossing.pop_front() {
            work.spend(4);
            let Spec::Spread(spread) = &of.spec else { continue };
            let shard = |name: &str| self.crossing.shard_of(name).unwrap_or(self.number);
            let markets = [(shard(&spread.a), &*spread.a), (shard(&spread.b), &*spread.b)];
            // Its markets are told of later.
            let make = |at: Tx| Replay::spread(of.id, (**spread).clone(), at, EntityId::NONE, EntityId::NONE).ok();
            if let Some(evaluator) = Evaluator::new(&of, way.after, way.back_test, make) {
                across.add(evaluator, markets);
            }
            if work.is_spent() {
                return Ok(opening.crossing.is_empty());
            }
        }
        Ok(true)
    }
}
