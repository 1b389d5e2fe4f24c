//! Firings from history: what a subscriber missed, or what a question would have answered, derived again from the ticks.
//!
//! ```text
//!   rows of the markets that are asked about --- interleave.rs --\
//!   gaps of dense feeds, stated as facts ------- gaps.rs ---------+-- by (tx, n) --> evaluators --> page by credit --> then live
//!   rows of spreads over two shards ------------ across.rs -------/
//! ```
//!
//! A reflex that stands gives exactly the firings it gave, from its registration on. A back-test asks from its start on
//! as well, as if the reflex had been registered there; from the registration on it is the live reflex again, so the
//! stream goes over into live firings without a gap. Where rows that
//! this takes were pruned, the answer is `Compacted` with the oldest place that does without them, never fewer firings.
//! Deliberately absent: look-ahead; an evaluator sees a tick when it is its turn.

use super::across::Across;
use super::gaps::{Next, Skips};
use super::interleave::Interleave;
use super::lane::derived_row;
use super::react::ACROSS;
use super::{Refusal, Shard, ShardError};
use crate::reflex::{Firing, Kind, ReflexId, Registration, Replay, Spec, Spread};
use myelin_datom::{EntityId, Tick, Tx, flags};
use myelin_index::{Filter, Gap, MarketIx};
use myelin_wire::{Code, FiringRow, MarketFlags};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Reflexes one replay evaluates at most.
const EVALUATORS_MAX: usize = 4096;
/// Markets one replay reads at most.
const FEEDS_MAX: usize = 10_000;
/// Pairs of a reflex and a market in one replay at most: each costs a search at its start, all together some ten
/// milliseconds.
const PAIRS_MAX: usize = 20_000;
/// Rows that wait in memory, over all feeds.
const BUFFERED_ROWS: usize = 1 << 16;
/// Rows looked at in one slice: about 250 µs.
const ROWS_PER_SLICE: usize = 2048;

/// A firing's place: `(tx, n, reflex)`.
pub type Place = (u64, u32, u64);

/// One reflex over history.
#[derive(Debug)]
pub(super) struct Evaluator {
    registered_at: Tx,
    /// Before the registration, in a back-test.
    before: Option<Replay>,
    /// From the registration on.
    since: Replay,
}

impl Evaluator {
    /// A spread's market of a side was told of.
    pub fn named(&mut self, side: usize, market: EntityId) {
        self.before.iter_mut().chain([&mut self.since]).for_each(|one| one.named(side, market));
    }

    /// A row from before the beginning.
    pub fn prime(&mut self, tx: Tx, tick: &Tick) {
        self.before.iter_mut().chain([&mut self.since]).for_each(|one| one.prime(tx, tick));
    }

    /// The live one sees every row: from before its registration it keeps the price, and fires nothing.
    pub fn react(&mut self, tx: Tx, n: u32, tick: &Tick) -> Option<Firing> {
        let live = self.since.react(tx, n, tick);
        match &mut self.before {
            Some(before) if tx <= self.registered_at => before.react(tx, n, tick),
            _ => live,
        }
    }

    fn gap(&mut self, tx: Tx, n: u32, gap: &Gap) -> Option<Firing> {
        let one = match &mut self.before {
            Some(before) if tx <= self.registered_at => before,
            _ => &mut self.since,
        };
        one.gap(tx, n, gap.market, gap.first, gap.last)
    }
}

/// One market that is asked about.
#[derive(Debug)]
struct Feed {
    market: MarketIx,
    /// Who asks about it, in the order of ids.
    evaluators: Vec<usize>,
    /// Where its rows begin.
    first_row: u32,
}

/// A subscriber's way through history.
#[derive(Debug)]
pub struct Replaying {
    evaluators: Vec<Evaluator>,
    feeds: Vec<Feed>,
    /// The rows of the feeds, up to a basis; then the next stretch, until nothing new was applied.
    rows: Interleave<Tick>,
    /// Gaps of dense markets, and who asks about each.
    skips: Skips,
    skip_evaluators: Vec<Vec<usize>>,
    /// Spreads whose other market is on another shard.
    pub(super) across: Option<Box<Across>>,
    after: Place,
    reflex: u64,
    back_test: bool,
    /// What the feeds were made from.
    markets: usize,
    registrations: u64,
    /// Firings that wait for credit.
    pub ready: VecDeque<FiringRow>,
}

impl Replaying {
    /// True when nothing is lost by beginning again behind the last firing that was given out: a back-test is not, as its
    /// answers depend on where it began.
    pub fn is_resumable(&self) -> bool {
        !self.back_test
    }

    /// How far everything was seen, once it is done; `applied` by this shard.
    pub(super) fn seen_to(&self, applied: Tx) -> Tx {
        match &self.across {
            Some(across) if !self.is_mixed() => across.merged(),
            _ => applied,
        }
    }

    /// True when what this shard decides by itself is asked for, beside what crosses.
    fn is_mixed(&self) -> bool {
        self.reflex == 0
    }
}

/// What a slice of replaying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more history.
    More,
    /// Another shard has to say how it goes on.
    Waiting,
    /// Every row that is applied was seen: the rest is live.
    Done,
}

impl Shard {
    /// Prepares the way from `after` through history for one reflex, or for all (0).
    pub(super) fn replay_from(&mut self, reflex: u64, after: Place, back_test: bool) -> Result<Replaying, ReplayError> {
        let mut asked_pairs = 0;
        let mut oldest = None;
        let mut evaluators = Vec::new();
        let mut feeds: Vec<Feed> = Vec::new();
        let (mut skipping, mut skip_evaluators): (Vec<(EntityId, u32)>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
        let across = self.across(reflex, after, back_test)?;
        let mut feed_of: Vec<Option<usize>> = vec![None; self.markets.len()];
        let mut skip_of = feed_of.clone();
        for registration in self.reflexes.list(None).filter(|one| reflex == 0 || one.id.0 == reflex) {
            if matches!(&registration.spec, Spec::Spread(spread) if self.crosses(spread)) {
                continue;
            }
            let Some(evaluator) = self.evaluator(&registration, after, back_test) else { continue };
            evaluators.push(evaluator);
            if evaluators.len() > EVALUATORS_MAX {
                return Err(Refusal::of(Code::TooMany).into());
            }
            for (number, market) in self.markets.iter().enumerate() {
                let asked = match &registration.spec {
                    Spec::Spread(spread) => *spread.a == *market.name || *spread.b == *market.name,
                    _ => registration.scope.matches(&market.name),
                };
                let Some(ix) = self.ticks.market_ix(market.id).filter(|_| asked) else { continue };
                asked_pairs += 1;
                if asked_pairs > PAIRS_MAX {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                if registration.spec.kind() == Kind::Gap {
                    if market.flags.has(MarketFlags::DENSE) {
                        let at = *skip_of[number].get_or_insert_with(|| {
                            skipping.push((market.id, ix.number()));
                            skip_evaluators.push(Vec::new());
                            skipping.len() - 1
                        });
                        skip_evaluators[at].push(evaluators.len() - 1);
                    }
                    continue;
                }
                let feed = *feed_of[number].get_or_insert_with(|| {
                    feeds.push(Feed { market: ix, evaluators: Vec::new(), first_row: u32::MAX });
                    feeds.len() - 1
                });
                if feeds.len() > FEEDS_MAX {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                feeds[feed].evaluators.push(evaluators.len() - 1);
                match self.first_row(ix, &registration, after, back_test)? {
                    Begin::Row(from) => feeds[feed].first_row = feeds[feed].first_row.min(from),
                    Begin::Behind(tx) => oldest = oldest.max(Some(tx)),
                }
            }
        }
        if let Some(oldest) = oldest {
            return Err(compacted(oldest).into());
        }
        let mut rows = Interleave::new(feeds.iter().map(|feed| (feed.market, feed.first_row)), BUFFERED_ROWS);
        rows.go_on(&self.ticks, self.group.applied_tx())?;
        // A place in the middle of a transaction: it is read again from its beginning.
        let mut skips = Skips::new(skipping.into_iter(), Tx::from_bits(after.0.saturating_sub(1)));
        skips.go_on(&self.facts, self.group.applied_tx())?;
        Ok(Replaying {
            evaluators,
            feeds,
            rows,
            skips,
            skip_evaluators,
            across,
            after,
            reflex,
            back_test,
            markets: self.markets.len(),
            registrations: self.reflexes.version(),
            ready: VecDeque::new(),
        })
    }

    /// The way through history of the spreads that live here and cross; none when there are none.
    fn across(&mut self, reflex: u64, after: Place, back_test: bool) -> Result<Option<Box<Across>>, ReplayError> {
        let crosses = |one: &Registration| matches!(&one.spec, Spec::Spread(spread) if self.crosses(spread));
        let asked: Vec<_> = if reflex == 0 {
            self.reflexes.spreads().filter(crosses).collect()
        } else {
            self.reflexes.get(ReflexId(reflex)).filter(crosses).into_iter().collect()
        };
        // What came before a reflex was registered it never saw, but for the price there was.
        let first = asked.iter().map(|one| one.registered_at.bits()).min();
        let Some(first) = first else { return Ok(None) };
        let place = if back_test { after.0 } else { after.0.max(first) };
        // Other shards are asked for no moment that this one has not come to: what is asked for they close, for good.
        let begin = Tx::from_bits(place.saturating_sub(1)).min(self.group.applied_tx());
        let mut across = Box::new(Across::new(self.crossing.key(), self.group.applied_tx()));
        for registration in asked {
            let Spec::Spread(spread) = &registration.spec else { continue };
            let shard = |name: &str| self.crossing.shard_of(name).unwrap_or(self.number);
            let markets = [(shard(&spread.a), &*spread.a), (shard(&spread.b), &*spread.b)];
            let Some(evaluator) = spread_evaluator(&registration, spread, after, back_test) else { continue };
            across.add(evaluator, markets, begin);
            across.check(EVALUATORS_MAX)?;
        }
        Ok(Some(across))
    }

    /// Puts what a way through history has to ask other shards into the outbox.
    pub(super) fn ask_for(&mut self, replaying: &mut Replaying) {
        let mixed = replaying.is_mixed();
        let basis = replaying.rows.basis();
        let Some(across) = &mut replaying.across else { return };
        let at_hand = Tx::from_bits(self.subscribers.lanes[ACROSS].known_from().0);
        let asks = across.asks(if mixed { basis.max(at_hand) } else { at_hand });
        self.crossing.ask(self.number, across.key(), asks);
    }

    fn evaluator(&self, registration: &Registration, after: Place, back_test: bool) -> Option<Evaluator> {
        let make = |registered_at: Tx| match &registration.spec {
            Spec::Spread(spread) => {
                let (a, b) = (self.markets.named(&spread.a)?.id, self.markets.named(&spread.b)?.id);
                Replay::spread(registration.id, (**spread).clone(), registered_at, a, b).ok()
            }
            spec => Replay::new(registration.id, spec.clone(), registered_at).ok(),
        };
        let start = Tx::from_bits(after.0);
        let before = if back_test && start < registration.registered_at { Some(make(start)?) } else { None };
        Some(Evaluator { registered_at: registration.registered_at, before, since: make(registration.registered_at)? })
    }

    /// Where an evaluator's rows begin in a market: what it must have seen before `after` to be in its state there.
    fn first_row(&self, ix: MarketIx, of: &Registration, after: Place, back_test: bool) -> Result<Begin, ReplayError> {
        let start = Tx::from_bits(after.0);
        let gone = self.ticks.kept(ix).gone;
        // A band's and a spread's state is the last price.
        let by_price = matches!(of.spec.kind(), Kind::Above | Kind::Below | Kind::Enters | Kind::Leaves | Kind::Spread);
        let view = self.ticks.view(ix, self.group.applied_tx())?;
        if back_test && start < of.registered_at && of.spec.kind() != Kind::Spread {
            return if start < gone { Ok(Begin::Behind(gone)) } else { self.row_after(ix, start).map(Begin::Row) };
        }
        if !by_price {
            // A window's state is all it saw: without its first rows nothing behind them can be derived.
            let from = of.registered_at.min(start);
            let now = self.group.applied_tx();
            return if from < gone { Ok(Begin::Behind(now)) } else { self.row_after(ix, from).map(Begin::Row) };
        }
        // The newest row before the place that is no correction; before its registration a reflex has no place.
        let place = if back_test { after.0 } else { after.0.max(of.registered_at.bits()) };
        let mut row = self.row_after(ix, Tx::from_bits(place.saturating_sub(1)))?;
        while row > view.first_row() {
            row -= 1;
            match view.row(row)? {
                Some(found) if found.row.flags & flags::CORRECTION != 0 => {}
                _ => return Ok(Begin::Row(row)),
            }
        }
        if gone == Tx::ZERO { Ok(Begin::Row(row)) } else { self.oldest_price(ix).map(Begin::Behind) }
    }

    /// The first transaction that left a price which was not pruned; now when there is none.
    fn oldest_price(&self, ix: MarketIx) -> Result<Tx, ReplayError> {
        let mut oldest = self.group.applied_tx();
        self.ticks.view(ix, oldest)?.rows(&Filter::default(), |found| {
            if found.row.flags & flags::CORRECTION != 0 {
                return ControlFlow::Continue(());
            }
            // A place in the middle of a transaction takes the row before it: its own is not enough.
            oldest = found.tx.next();
            ControlFlow::Break(())
        })?;
        Ok(oldest)
    }

    /// The first row of a market after a transaction.
    fn row_after(&self, ix: MarketIx, tx: Tx) -> Result<u32, ReplayError> {
        let view = self.ticks.view(ix, self.group.applied_tx())?;
        let mut first = view.end_row();
        view.rows(&Filter { since: tx, ..Filter::default() }, |found| {
            first = found.number;
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// Goes on by a slice; stops early when a page of firings is ready.
    pub(super) fn replay_slice(&mut self, replaying: &mut Replaying, page: usize) -> Result<Step, ReplayError> {
        let mut fired: Vec<(Firing, Tick)> = Vec::new();
        for _ in 0..ROWS_PER_SLICE {
            if replaying.ready.len() >= page {
                return Ok(Step::More);
            }
            let across =
                replaying.across.as_ref().map(|across| Ok::<_, ReplayError>((across.peek()?, across.merged())));
            let (told, merged) = across.transpose()?.unwrap_or((None, Tx::MAX));
            let (row, skip) = (replaying.rows.peek(), replaying.skips.peek());
            let Some(place) = [row, skip, told].into_iter().flatten().min() else { return self.catch_up(replaying) };
            // A row that is told may be given, and so may all that stands before it.
            if told.is_none() && place.0 > merged {
                return Ok(Step::Waiting);
            }
            if replaying.is_mixed() && place.0 > replaying.rows.basis() {
                // This shard has rows in between.
                return self.catch_up(replaying);
            }
            // All that stands at one place fires in the order of the reflexes.
            if skip == Some(place) && !self.replay_skip(replaying, &mut fired)? {
                return Ok(Step::More);
            }
            if row == Some(place) {
                self.replay_row(replaying, &mut fired)?;
            }
            let after = replaying.after;
            while let Some(across) = &mut replaying.across
                && across.peek()? == Some(place)
            {
                across.step(after, |firing, told| fired.push((firing, told.found.row)));
            }
            fired.sort_by_key(|(firing, _)| firing.reflex);
            replaying.ready.extend(fired.drain(..).map(|(firing, tick)| derived_row(&firing, &tick)));
        }
        Ok(Step::More)
    }

    fn replay_row(&self, replaying: &mut Replaying, fired: &mut Vec<(Firing, Tick)>) -> Result<(), ReplayError> {
        let Some((at, found)) = replaying.rows.next(&self.ticks)? else { return Ok(()) };
        for evaluator in &replaying.feeds[at].evaluators {
            let firing = replaying.evaluators[*evaluator].react(found.tx, found.n, &found.row);
            let firing = firing.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > replaying.after);
            fired.extend(firing.map(|one| (one, found.row)));
        }
        Ok(())
    }

    /// False when facts had to be read first.
    fn replay_skip(&self, replaying: &mut Replaying, fired: &mut Vec<(Firing, Tick)>) -> Result<bool, ReplayError> {
        let Next::Gap(at, skip) = replaying.skips.next(&self.facts)? else { return Ok(false) };
        let tick = Tick { market: skip.gap.market, ..bytemuck::Zeroable::zeroed() };
        for evaluator in &replaying.skip_evaluators[at] {
            let firing = replaying.evaluators[*evaluator].gap(skip.tx, skip.n, &skip.gap);
            let firing = firing.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > replaying.after);
            fired.extend(firing.map(|one| (one, tick)));
        }
        Ok(true)
    }

    /// The stretch is at its end: goes on with what was applied meanwhile, if anything was.
    fn catch_up(&mut self, replaying: &mut Replaying) -> Result<Step, ReplayError> {
        let (seen, applied) = (replaying.rows.basis(), self.group.applied_tx());
        if seen == applied || !replaying.is_mixed() && replaying.across.is_some() {
            let at_hand = Tx::from_bits(self.subscribers.lanes[ACROSS].known_from().0);
            let wanted = if replaying.is_mixed() { seen.max(at_hand) } else { at_hand };
            let through = replaying.across.as_ref().is_none_or(|across| across.is_through(wanted));
            return Ok(if through { Step::Done } else { Step::Waiting });
        }
        let grown = (self.markets.len(), self.reflexes.version()) != (replaying.markets, replaying.registrations);
        if grown && replaying.across.as_ref().is_some_and(|across| across.merged() < seen) {
            // Who begins again behind this stretch is not given what fires across shards within it.
            return Ok(Step::Waiting);
        }
        if grown {
            // Markets or reflexes that came meanwhile have a say behind this stretch.
            let behind = replaying.after.max((seen.bits(), u32::MAX, u64::MAX));
            let mut further = self.replay_from(replaying.reflex, behind, false)?;
            further.back_test = replaying.back_test;
            further.ready = std::mem::take(&mut replaying.ready);
            *replaying = further;
            return Ok(Step::More);
        }
        replaying.rows.go_on(&self.ticks, applied)?;
        replaying.skips.go_on(&self.facts, applied)?;
        Ok(Step::More)
    }
}

/// Where a market's rows begin for an evaluator.
enum Begin {
    /// At this row.
    Row(u32),
    /// They were pruned: it can begin behind this transaction, if its rows stay.
    Behind(Tx),
}

/// A spread whose markets are told of later.
fn spread_evaluator(of: &Registration, spread: &Spread, after: Place, back_test: bool) -> Option<Evaluator> {
    let make = |at: Tx| Replay::spread(of.id, spread.clone(), at, EntityId::NONE, EntityId::NONE).ok();
    let start = Tx::from_bits(after.0);
    let before = if back_test && start < of.registered_at { Some(make(start)?) } else { None };
    Some(Evaluator { registered_at: of.registered_at, before, since: make(of.registered_at)? })
}

pub(super) fn compacted(oldest: Tx) -> Refusal {
    Refusal { aux: oldest.bits(), ..Refusal::of(Code::Compacted) }
}

/// Why there is no way through history: refused, or the storage failed.
#[derive(Debug)]
pub enum ReplayError {
    /// The subscriber is told.
    Refused(Refusal),
    /// The shard stops.
    Failed(ShardError),
}

impl From<Refusal> for ReplayError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<myelin_index::IndexError> for ReplayError {
    fn from(error: myelin_index::IndexError) -> Self {
        match error {
            myelin_index::IndexError::BelowHorizon { horizon } => {
                Self::Refused(Refusal { aux: horizon.bits(), ..Refusal::of(Code::Compacted) })
            }
            other => Self::Failed(other.into()),
        }
    }
}
