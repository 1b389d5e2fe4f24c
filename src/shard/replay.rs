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
//! All who go through history share one budget a turn with those who listen (`react.rs`). Deliberately absent: look-ahead, an
//! evaluator sees a tick when it is its turn; and how a way is opened (`replay/opening.rs`).

mod opening;
#[cfg(test)]
mod tests;

use super::across::Across;
use super::gaps::{self, Skips};
use super::interleave::{self, Interleave};
use super::lane::derived_row;
use super::planted::{self, Bug};
use super::react::{ACROSS, OWN};
use super::turn::{LOOKS, Work};
use super::ways::{FIRINGS, MARKETS};
use super::{Refusal, Shard, ShardError};
use crate::reflex::{self, Firing, Pasts, Registration, Replay, Untold};
use myelin_datom::{EntityId, Tick, Tx};
use myelin_index::{Gap, MarketIx};
use myelin_wire::{Code, FiringRow};
use opening::Opening;
use std::collections::VecDeque;

/// Evaluators that see a row for one unit: one of them costs 30 to 60 ns.
const EVALUATORS_PER_UNIT: usize = 2;
/// What it costs to ask a table, the bands of a scope or the spreads of a pair, about a row.
const TABLE_UNITS: u32 = 4;
/// Cuts that are visited for one unit: one of them costs 63 ns.
const VISITS_PER_UNIT: usize = 2;
/// Firings of those who ask together that are looked for before it is asked whether the turn is over.
const FIRINGS_AT_ONCE: usize = 64;

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
    /// A reflex from `after` on; `make` makes one that was registered at a moment.
    fn new(of: &Registration, after: Place, back_test: bool, make: impl Fn(Tx) -> Option<Replay>) -> Option<Self> {
        let start = Tx::from_bits(after.0);
        let before = if back_test && start < of.registered_at { Some(make(start)?) } else { None };
        Some(Self { registered_at: of.registered_at, before, since: make(of.registered_at)? })
    }

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
    /// Bands and spreads ask together about it.
    together: bool,
    /// Where its rows begin.
    first_row: u32,
}

impl Feed {
    fn begins_at(&mut self, row: u32) {
        self.first_row = self.first_row.min(row);
    }
}

/// What fired at one place and is not given yet.
#[derive(Debug, Default)]
struct Struck {
    /// What evaluators found, by reflex.
    fired: VecDeque<(Firing, Tick)>,
    /// Whom a tick or a gap concerns of those who ask together, and that tick.
    untold: Untold,
    tick: Option<Tick>,
}

/// A subscriber's way through history.
#[derive(Debug)]
pub struct Replaying {
    /// What is not opened yet.
    opening: Option<Box<Opening>>,
    evaluators: Vec<Evaluator>,
    feeds: Vec<Feed>,
    /// The rows of the feeds, up to a basis; then the next stretch, until nothing new was applied.
    rows: Interleave<Tick>,
    /// Gaps of dense markets, and who asks about each.
    skips: Skips,
    skip_evaluators: Vec<Vec<usize>>,
    /// The prices of those markets that are asked about together.
    pasts: Pasts,
    /// Spreads whose other market is on another shard.
    pub(super) across: Option<Box<Across>>,
    after: Place,
    reflex: u64,
    back_test: bool,
    /// What the feeds were made from.
    markets: usize,
    registrations: u64,
    /// The place that is being given: one tick may fire a million bands.
    struck: Struck,
    /// It may hold more than every way may (`ways.rs`).
    large: bool,
    /// Firings that wait for credit.
    pub ready: VecDeque<FiringRow>,
}

impl Replaying {
    /// True when nothing is lost by beginning again behind the last firing that was given out: a back-test is not, as its
    /// answers depend on where it began.
    pub fn is_resumable(&self) -> bool {
        !self.back_test
    }

    /// True of the one that may hold more than the others.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    /// Firings that were found and are not given, and markets that are read.
    pub(super) fn holds(&self) -> [usize; 2] {
        [self.struck.untold.found(), self.feeds.len()]
    }

    /// It holds as much as every way may: only a large one goes on.
    fn has_to_be_large(&self) -> bool {
        let [firings, markets] = self.holds();
        !self.large && (firings >= FIRINGS || markets > MARKETS)
    }

    /// How far everything was seen, once it is done.
    pub(super) fn seen_to(&self) -> Tx {
        match &self.across {
            Some(across) if !self.is_mixed() => across.merged(),
            _ => self.rows.basis(),
        }
    }

    /// True when what this shard decides by itself is asked for, beside what crosses.
    fn is_mixed(&self) -> bool {
        self.reflex == 0
    }

    /// True when all are asked from where they were registered on: bands, spreads and gaps need no evaluators then.
    fn asks_together(&self) -> bool {
        self.reflex == 0 && !self.back_test
    }
}

/// What a slice of replaying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more history.
    More,
    /// Another shard has to say how it goes on.
    Waiting,
    /// What was seen reaches what is at hand: the rest is live.
    Done,
}

impl Shard {
    /// The way from `after` through history for one reflex, or for all (0). It is opened as it is gone.
    pub(super) fn replay_from(&self, reflex: u64, after: Place, back_test: bool) -> Replaying {
        Replaying {
            opening: Some(Box::new(Opening::new(self.group.applied_tx(), self.markets.len()))),
            evaluators: Vec::new(),
            feeds: Vec::new(),
            rows: Interleave::new(std::iter::empty(), 0),
            skips: Skips::new(std::iter::empty(), Tx::ZERO),
            skip_evaluators: Vec::new(),
            pasts: Pasts::default(),
            across: None,
            after,
            reflex,
            back_test,
            markets: self.markets.len(),
            registrations: self.reflexes.version(),
            struck: Struck { untold: Untold::behind(after), ..Struck::default() },
            large: false,
            ready: VecDeque::new(),
        }
    }

    /// Puts what a way through history has to ask other shards into the outbox.
    pub(super) fn ask_for(&mut self, replaying: &mut Replaying) {
        if replaying.opening.is_some() {
            return;
        }
        let mixed = replaying.is_mixed();
        let basis = replaying.rows.basis();
        let Some(across) = &mut replaying.across else { return };
        let at_hand = Tx::from_bits(self.subscribers.lanes[ACROSS].known_from().0);
        let asks = across.asks(if mixed { basis.max(at_hand) } else { at_hand });
        self.crossing.ask(self.number, across.key(), asks);
    }

    /// Goes on until the turn is over, or a page of firings is ready.
    pub(super) fn replay_on(
        &mut self,
        replaying: &mut Replaying,
        page: usize,
        work: &mut Work,
    ) -> Result<Step, ReplayError> {
        while replaying.ready.len() < page {
            match self.give_struck(replaying, page, work) {
                Step::Done => {}
                unfinished => return Ok(unfinished),
            }
            match self.open_replay(replaying, work)? {
                Step::Done => {}
                unfinished => return Ok(unfinished),
            }
            let is_begun = replaying.rows.begin(&self.ticks, work)? && replaying.skips.begin(&self.facts, work)?;
            if !is_begun || work.is_spent() {
                break;
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
            if skip == Some(place) && !self.replay_skip(replaying, work)? {
                continue;
            }
            if row == Some(place) {
                self.replay_row(replaying, work)?;
            }
            let after = replaying.after;
            let fired = &mut replaying.struck.fired;
            while let Some(across) = &mut replaying.across
                && across.peek()? == Some(place)
            {
                let saw = across.step(after, |firing, told| fired.push_back((firing, told.found.row)));
                work.spend(1 + (saw / EVALUATORS_PER_UNIT) as u32);
            }
            fired.make_contiguous().sort_by_key(|(firing, _)| firing.reflex);
            work.spend(fired.len() as u32);
        }
        Ok(Step::More)
    }

    /// Makes what fired at the open place ready, by reflex, as far as the page and the turn go.
    fn give_struck(&mut self, replaying: &mut Replaying, page: usize, work: &mut Work) -> Step {
        let mut found = Vec::new();
        while replaying.struck.untold.pending() {
            let room = page.saturating_sub(replaying.ready.len());
            if room == 0 || work.is_spent() {
                if planted::is(Bug::HistoryForgetsTheRest) {
                    replaying.struck.untold = Untold::default();
                }
                return Step::More;
            }
            if !self.may_go_on(replaying) {
                return Step::Waiting;
            }
            let Replaying { struck: Struck { fired, untold, tick }, ready, .. } = replaying;
            let visits = self.reflexes.next_past_firings(untold, room.min(FIRINGS_AT_ONCE), &mut found);
            work.spend(1 + (found.len() + visits / VISITS_PER_UNIT) as u32);
            for firing in found.drain(..) {
                while let Some((one, tick)) = fired.pop_front_if(|(one, _)| one.reflex < firing.reflex) {
                    ready.push_back(derived_row(&one, &tick));
                }
                ready.extend(tick.as_ref().map(|tick| derived_row(&firing, tick)));
            }
        }
        let Replaying { struck: Struck { fired, .. }, ready, large, feeds, .. } = replaying;
        *large &= feeds.len() > MARKETS;
        ready.extend(fired.drain(..).map(|(firing, tick)| derived_row(&firing, &tick)));
        Step::Done
    }

    /// A way that holds as much as every way may goes on once it is the large one. False until then.
    fn may_go_on(&mut self, way: &mut Replaying) -> bool {
        if way.has_to_be_large() {
            way.large = self.subscribers.ways.make_place_for_large(self.now);
        }
        !way.has_to_be_large()
    }

    fn replay_row(&self, replaying: &mut Replaying, work: &mut Work) -> Result<(), ReplayError> {
        let interleave::Next::Row(at, found) = replaying.rows.step(&self.ticks, work)? else { return Ok(()) };
        let Replaying { feeds, evaluators, pasts, struck, after, .. } = replaying;
        let feed = &feeds[at];
        work.spend((feed.evaluators.len() / EVALUATORS_PER_UNIT) as u32);
        for evaluator in &feed.evaluators {
            let firing = evaluators[*evaluator].react(found.tx, found.n, &found.row);
            let firing =
                firing.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > *after || planted::is(Bug::ResumeRepeats));
            struck.fired.extend(firing.map(|one| (one, found.row)));
        }
        let ix = reflex::MarketIx(feed.market.number());
        if feed.together && found.tx.bits() < after.0 {
            pasts.prime(found.tx, ix, &found.row);
        } else if feed.together {
            let asked = self.reflexes.react_past(pasts, &mut struck.untold, (found.tx, found.n), ix, &found.row);
            work.spend(asked as u32 * TABLE_UNITS);
            struck.tick = Some(found.row);
        }
        Ok(())
    }

    /// False when facts had to be read first.
    fn replay_skip(&self, replaying: &mut Replaying, work: &mut Work) -> Result<bool, ReplayError> {
        let gaps::Next::Gap(at, skip) = replaying.skips.next(&self.facts, work)? else { return Ok(false) };
        work.spend((replaying.skip_evaluators[at].len() / EVALUATORS_PER_UNIT) as u32);
        let tick = Tick { market: skip.gap.market, ..bytemuck::Zeroable::zeroed() };
        for evaluator in &replaying.skip_evaluators[at] {
            let firing = replaying.evaluators[*evaluator].gap(skip.tx, skip.n, &skip.gap);
            let firing = firing.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > replaying.after);
            replaying.struck.fired.extend(firing.map(|one| (one, tick)));
        }
        if replaying.asks_together()
            && let Some(ix) = self.ticks.market_ix(skip.gap.market)
        {
            let (ix, missing) = (reflex::MarketIx(ix.number()), (skip.gap.first, skip.gap.last));
            work.spend(self.reflexes.tables(ix).div_ceil(LOOKS) as u32);
            self.reflexes.gap_past(&mut replaying.struck.untold, (skip.tx, skip.n), ix, missing);
            replaying.struck.tick = Some(tick);
        }
        Ok(true)
    }

    /// The stretch is at its end: goes on with what was applied meanwhile, unless its firings are at hand. Over thousands of
    /// markets a stretch takes many turns, and under load history never ends.
    fn catch_up(&mut self, replaying: &mut Replaying) -> Result<Step, ReplayError> {
        let (seen, applied) = (replaying.rows.basis(), self.group.applied_tx());
        let lanes = if replaying.is_mixed() { &[OWN, ACROSS][..] } else { &[OWN] };
        let end = (seen.bits(), u32::MAX, u64::MAX);
        let met = lanes.iter().all(|lane| self.subscribers.lanes[*lane].known_from() <= end);
        if met || !replaying.is_mixed() && replaying.across.is_some() {
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
            let mut further = self.replay_from(replaying.reflex, behind, false);
            further.back_test = replaying.back_test;
            further.ready = std::mem::take(&mut replaying.ready);
            *replaying = further;
            return Ok(Step::More);
        }
        replaying.rows.open(applied);
        replaying.skips.open(applied);
        Ok(Step::More)
    }
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
