//! Firings from history: what a subscriber missed, or what a question would have answered, derived again from the ticks.
//!
//! ```text
//!   rows of the markets that are asked about --- merge.rs, by (tx, n) --> evaluators --> page by credit --> then live
//! ```
//!
//! A reflex that stands gives exactly the firings it gave, from its registration on. A back-test asks from its start on
//! as well, as if the reflex had been registered there; from the registration on it is the live reflex again, so the
//! stream goes over into live firings without a gap. Gaps of feeds are not stored and so not derived again. Where rows that
//! this takes were pruned, the answer is `Compacted` with the oldest place that does without them, never fewer firings.
//! Deliberately absent: look-ahead; an evaluator sees a tick when it is its turn.

use super::interleave::Interleave;
use super::{Refusal, Shard, ShardError};
use crate::reflex::{Kind, Registration, Replay, Spec};
use myelin_datom::{Tick, Tx, flags};
use myelin_index::{Filter, MarketIx};
use myelin_wire::{Code, FiringRow};
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
struct Evaluator {
    registered_at: Tx,
    /// Before the registration, in a back-test.
    before: Option<Replay>,
    /// From the registration on.
    since: Replay,
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
}

/// What a slice of replaying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more history.
    More,
    /// Every row that is applied was seen: the rest is live.
    Done,
}

impl Shard {
    /// Prepares the way from `after` through history for one reflex, or for all (0).
    pub(super) fn replay_from(&self, reflex: u64, after: Place, back_test: bool) -> Result<Replaying, ReplayError> {
        let mut asked_pairs = 0;
        let mut oldest = None;
        let mut evaluators = Vec::new();
        let mut feeds: Vec<Feed> = Vec::new();
        let mut feed_of: Vec<Option<usize>> = vec![None; self.markets.len()];
        for registration in self.reflexes.list(None).filter(|one| reflex == 0 || one.id.0 == reflex) {
            if registration.spec.kind() == Kind::Gap {
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
                let feed = *feed_of[number].get_or_insert_with(|| {
                    feeds.push(Feed { market: ix, evaluators: Vec::new(), first_row: u32::MAX });
                    feeds.len() - 1
                });
                if feeds.len() > FEEDS_MAX {
                    return Err(Refusal::of(Code::TooMany).into());
                }
                feeds[feed].evaluators.push(evaluators.len() - 1);
                asked_pairs += 1;
                if asked_pairs > PAIRS_MAX {
                    return Err(Refusal::of(Code::TooMany).into());
                }
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
        Ok(Replaying {
            evaluators,
            feeds,
            rows,
            after,
            reflex,
            back_test,
            markets: self.markets.len(),
            registrations: self.reflexes.version(),
            ready: VecDeque::new(),
        })
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
    pub(super) fn replay_slice(&self, replaying: &mut Replaying, page: usize) -> Result<Step, ReplayError> {
        for _ in 0..ROWS_PER_SLICE {
            if replaying.ready.len() >= page {
                return Ok(Step::More);
            }
            let Some((at, found)) = replaying.rows.next(&self.ticks)? else { return self.catch_up(replaying) };
            for evaluator in &replaying.feeds[at].evaluators {
                let evaluator = &mut replaying.evaluators[*evaluator];
                // The live one sees every row: from before its registration it keeps the price, and fires nothing.
                let live = evaluator.since.react(found.tx, found.n, &found.row);
                let fired = match &mut evaluator.before {
                    Some(before) if found.tx <= evaluator.registered_at => before.react(found.tx, found.n, &found.row),
                    _ => live,
                };
                let firing = fired.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > replaying.after);
                replaying.ready.extend(firing.map(|one| super::react::derived_row(&one, &found.row)));
            }
        }
        Ok(Step::More)
    }

    /// The stretch is at its end: goes on with what was applied meanwhile, if anything was.
    fn catch_up(&self, replaying: &mut Replaying) -> Result<Step, ReplayError> {
        let (seen, applied) = (replaying.rows.basis(), self.group.applied_tx());
        if seen == applied {
            return Ok(Step::Done);
        }
        let grown = (self.markets.len(), self.reflexes.version()) != (replaying.markets, replaying.registrations);
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

fn compacted(oldest: Tx) -> Refusal {
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
