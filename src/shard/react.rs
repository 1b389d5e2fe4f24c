//! `react`: a stored tick asks every standing question; what fires goes to who subscribed.
//!
//! ```text
//!   apply -> reflexes.react -> records -> drain (in slices) -> lane of firings --\
//!   other shards -> crossing.rs ---------------------------> lane of firings ----+--> page by credit -> subscriber
//!                                                           [ ring, bounded ]         cursor per subscriber and lane
//! ```
//!
//! The firings at hand are a window over the stream of all firings, which is a pure function of the log. A subscriber is a
//! cursor into it; one whose place lies before the window, or falls out of it, goes through history first (`replay.rs`).
//! Who listens to all reflexes of a shard hears both lanes as one, in order: as far as both have come.
//! `reacted <= applied`: the ack does not wait for any of this.

use super::gaps::{self, Stated};
use super::lane::{Lane, Struck, place_of};
use super::planted::{self, Bug};
use super::replay::{Place, ReplayError, Step};
use super::reply::Said;
use super::turn::{LOOKS, Work};
use super::ways::{Way, Ways};
use super::{ConnId, Now, Refusal, Shard, ShardError};
use crate::config::Limits;
use crate::reflex::{self, MarketIx, ReflexId, Spec};
use myelin_datom::{Tick, Tx};
use myelin_wire::{Code, Cursor, FiringRow, Frame, Header};

/// Firings in one push at most: 64 KiB.
const FIRINGS_PER_PAGE: usize = 512;
/// The lane of reflexes that the shard decides by itself.
pub(super) const OWN: usize = 0;
/// The lane of those that wait for other shards.
pub(super) const ACROSS: usize = 1;
const LANES: [usize; 2] = [OWN, ACROSS];

/// The bounds of the reflexes of one shard.
pub fn limits(limits: &Limits) -> reflex::Limits {
    reflex::Limits { reflexes: limits.reflexes_per_shard, ..reflex::Limits::default() }
}

#[derive(Debug)]
struct Subscriber {
    /// Its own, for as long as the shard runs.
    number: u64,
    conn: ConnId,
    /// The session and request of its `Subscribe`, told with every push.
    session: u64,
    request: u64,
    /// 0 = every reflex.
    reflex: u64,
    credit: u32,
    /// Its request was answered: nothing behind its place is missed.
    begun: bool,
    /// Which lanes it listens to.
    hears: [bool; 2],
    /// The next firing of each lane to look at, counted from the first since the start.
    next: [u64; 2],
    /// Up to here it was given all from history: a lane that comes here later tells it nothing new.
    seen: Place,
    /// The last firing it was given, or the place it began behind.
    last: Place,
    /// It is not live: it has a place in history, or waits for one to begin at `last`.
    behind: bool,
}

/// The firings at hand, and who listens.
#[derive(Debug)]
pub struct Subscribers {
    list: Vec<Subscriber>,
    /// How many have ever listened.
    numbered: u64,
    /// Those that go through history.
    pub(super) ways: Ways,
    /// Whose turn it is.
    turn: usize,
    /// Whether somebody waits for a place among those, as far as this turn knows.
    place_is_wanted: bool,
    max: usize,
    turn_units_max: u32,
    pub(super) lanes: [Lane; 2],
}

impl Subscribers {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            list: Vec::new(),
            numbered: 0,
            ways: Ways::default(),
            turn: 0,
            place_is_wanted: false,
            max: limits.subscriptions_per_shard,
            turn_units_max: 0,
            lanes: LANES.map(|_| Lane::new(limits.firings_at_hand)),
        }
    }

    /// How many listen.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// How much has fired, since the start, of what the shard decides by itself.
    pub(super) fn fired(&self) -> u64 {
        self.lanes[OWN].end()
    }

    /// The newest of what the shard decides by itself.
    pub(super) fn newest(&self) -> Option<&FiringRow> {
        let own = &self.lanes[OWN];
        own.end().checked_sub(1).and_then(|last| own.get(last))
    }

    /// Lets a subscription of this connection have `count` more firings.
    pub fn grant(&mut self, conn: ConnId, session: u64, count: u32) {
        for subscriber in self.list.iter_mut().filter(|one| one.conn == conn && one.session == session) {
            subscriber.credit = subscriber.credit.saturating_add(count);
            self.ways.resume(subscriber.number);
        }
    }

    /// True of one that has to go through history before it is told any more.
    fn is_behind(&self, one: &Subscriber) -> bool {
        one.behind || LANES.iter().any(|lane| one.hears[*lane] && one.next[*lane] < self.lanes[*lane].first())
    }

    /// Somebody with credit waits for a place in history, and every one is used, or a back-test's.
    fn wants_a_place(&self) -> bool {
        let waits = |one: &Subscriber| one.credit > 0 && self.is_behind(one) && !self.ways.has(one.number);
        self.ways.are_all_kept() && self.list.iter().any(waits)
    }

    /// The most that all of them cost in one turn. **Units:** those of `turn.rs`.
    #[must_use]
    pub const fn turn_units_max(&self) -> u32 {
        self.turn_units_max
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.list.retain(|subscriber| subscriber.conn != conn);
        self.ways.forget(conn);
    }

    /// What fired up to this transaction is not at hand: a checkpoint was before.
    pub(super) fn known_from(&mut self, tx: Tx) {
        self.lanes[OWN].begin_behind(tx);
    }

    /// How far the lane across shards has to come, even without rows: what fired here waits for it where somebody hears both.
    pub(super) fn waits_for(&self) -> Tx {
        let end = self.lanes[OWN].end();
        let waits = self.list.iter().any(|one| one.hears == [true; 2] && one.credit > 0 && one.next[OWN] < end);
        let last = self.lanes[OWN].end().checked_sub(1).and_then(|last| self.lanes[OWN].get(last));
        last.filter(|_| waits).map_or(Tx::ZERO, |row| Tx::from_bits(row.tx))
    }
}

impl Shard {
    /// One stored tick, in the order of the log.
    #[inline]
    pub(super) fn react(&mut self, tx: Tx, n: u32, market: u32, tick: &Tick, received_ns: i64, durable_ns: i64) {
        if self.reflexes.full() {
            self.drain_reflexes();
        }
        let before = self.reflexes.lag();
        self.reflexes.react(tx, n, MarketIx(market), tick);
        if self.reflexes.lag() != before {
            self.subscribers.lanes[OWN].strike(Struck { tx, n, tick: *tick, received_ns, durable_ns });
        }
    }

    /// Ids that dense feeds skipped, as they are stated: behind the ticks of the transaction, by market.
    pub(super) fn react_to_gaps(&mut self, tx: Tx, stated: &[Stated], received_ns: i64, durable_ns: i64) {
        let number = |one: &Stated| Some((self.ticks.market_ix(one.gap.market)?.number(), one.gap));
        let mut by_market: Vec<_> = stated.iter().filter_map(number).collect();
        by_market.sort_by_key(|(market, _)| *market);
        for of_market in by_market.chunk_by(|a, b| a.0 == b.0) {
            for (nth, (market, gap)) in (0..).zip(of_market) {
                if self.reflexes.full() {
                    self.drain_reflexes();
                }
                let (before, n) = (self.reflexes.lag(), gaps::place(*market, nth));
                self.reflexes.gap(tx, n, MarketIx(*market), gap.first, gap.last);
                if self.reflexes.lag() != before {
                    let tick = Tick { market: gap.market, ..bytemuck::Zeroable::zeroed() };
                    self.subscribers.lanes[OWN].strike(Struck { tx, n, tick, received_ns, durable_ns });
                }
            }
        }
    }

    /// Writes down everything that has fired.
    pub(super) fn drain_reflexes(&mut self) {
        while self.reflexes.pending() {
            self.drain_slice();
        }
    }

    fn drain_slice(&mut self) {
        let lane = &mut self.subscribers.lanes[OWN];
        self.counters.firings += lane.drain_slice(&mut self.reflexes, self.now.unix_ns);
    }

    /// A slice of what has fired is written down, and pages go out as far as credit reaches. True when there is more.
    pub fn push_firings(&mut self, now: Now) -> Result<bool, ShardError> {
        self.now = now;
        if self.reflexes.pending() {
            self.drain_slice();
        }
        let mut more = self.answer_asks()?;
        more |= self.merge_slice() || self.reflexes.pending();
        more |= self.push_pages()?;
        self.forget_replays();
        Ok(self.push_tails()? || more)
    }

    /// A page for each subscriber, as far as the turn reaches; who is not come to has the next one.
    fn push_pages(&mut self) -> Result<bool, ShardError> {
        let (mut work, mut more) = (Work::turn(), false);
        self.subscribers.place_is_wanted = self.subscribers.wants_a_place();
        self.subscribers.ways.begin_turn();
        for nth in 0..self.subscribers.list.len() {
            if work.is_spent() {
                more = true;
                break;
            }
            work.spend(u32::from(nth % LOOKS == 0));
            let at = if self.subscribers.turn < self.subscribers.list.len() { self.subscribers.turn } else { 0 };
            self.subscribers.turn = at + 1;
            match self.push_page(at, &mut work) {
                Ok(further) => more |= further,
                Err(ReplayError::Failed(error)) => return Err(error),
                Err(ReplayError::Refused(refusal)) => {
                    self.give_up(at, refusal);
                    more = true;
                }
            }
        }
        self.subscribers.turn_units_max = self.subscribers.turn_units_max.max(work.spent());
        Ok(more)
    }

    /// Nothing more comes of it.
    fn give_up(&mut self, at: usize, refusal: Refusal) {
        let Subscriber { number, conn, session, request, begun, .. } = self.subscribers.list.swap_remove(at);
        self.subscribers.turn = at;
        self.subscribers.ways.take(number);
        self.say_no_more(conn, (session, request), begun, refusal);
    }

    /// Nobody is pushed to any more, and who listened is told.
    pub(super) fn give_up_subscribers(&mut self) {
        self.subscribers.ways.clear();
        for Subscriber { conn, session, request, begun, .. } in std::mem::take(&mut self.subscribers.list) {
            self.say_no_more(conn, (session, request), begun, Refusal::of(Code::Unavailable));
        }
    }

    /// Nothing is missed from its place on.
    fn say_listens(&mut self, at: usize) {
        let subscriber = &mut self.subscribers.list[at];
        if !std::mem::replace(&mut subscriber.begun, true) {
            let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
            let said = Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() };
            self.say(to, session, request, self.group.applied_tx(), said);
        }
    }

    /// Ends the subscription that began with this session and request. False when there is none.
    pub(super) fn end_subscription(&mut self, conn: ConnId, session: u64, request: u64) -> bool {
        let is_it = |one: &Subscriber| one.conn == conn && one.session == session && one.request == request;
        let Some(at) = self.subscribers.list.iter().position(is_it) else { return false };
        // Its request is answered, whatever becomes of it.
        self.say_listens(at);
        let ended = self.subscribers.list.swap_remove(at);
        self.subscribers.ways.take(ended.number);
        true
    }

    /// A page from history for one subscriber; at its end it is live.
    fn push_replayed(&mut self, at: usize, mut way: Way, work: &mut Work) -> Result<bool, ReplayError> {
        let opened = self.open_replay(&mut way.replaying, work)?;
        if opened != Step::Done {
            self.subscribers.ways.put(way);
            return Ok(opened == Step::More);
        }
        self.say_listens(at);
        let subscriber = &self.subscribers.list[at];
        let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
        let room = (subscriber.credit as usize).min(FIRINGS_PER_PAGE);
        if room == 0 {
            // Who needs the place takes it; from a back-test, whose answers depend on where it began, only after a while.
            let Subscribers { ways, place_is_wanted, .. } = &mut self.subscribers;
            if way.pause(self.now) && (ways.keeps_from_large(&way) || std::mem::take(place_is_wanted)) {
                return Err(Refusal::of(Code::TooMany).into());
            }
            self.subscribers.ways.put(way);
            return Ok(false);
        }
        let step = self.replay_on(&mut way.replaying, room, work)?;
        if step != Step::Done {
            self.ask_for(&mut way.replaying);
        }
        let ready = &mut way.replaying.ready;
        let rows: Vec<FiringRow> = ready.drain(..room.min(ready.len())).collect();
        let seen_all = step == Step::Done && ready.is_empty();
        // What fired up to there and is not written down yet comes to a lane later, and is passed over.
        let seen = (way.replaying.seen_to().bits(), u32::MAX, u64::MAX);
        let live_at = LANES.map(|lane| {
            let lane = &self.subscribers.lanes[lane];
            lane.behind(seen).filter(|_| !planted::is(Bug::LiveFromTheEnd)).unwrap_or(lane.end())
        });
        let subscriber = &mut self.subscribers.list[at];
        subscriber.credit -= rows.len() as u32;
        subscriber.last = rows.last().map_or(subscriber.last, place_of);
        if seen_all {
            (subscriber.next, subscriber.seen, subscriber.behind) = (live_at, seen, false);
        } else {
            self.subscribers.ways.put(way);
        }
        let more = step != Step::Waiting || !rows.is_empty();
        if let Some(last) = rows.last() {
            let tx = Tx::from_bits(last.tx);
            work.spend_bytes(size_of_val(&*rows));
            let sent_ns = self.now.unix_ns;
            self.say(to, session, request, tx, Said::Firings { rows, replayed: true, sent_ns });
        }
        Ok(more)
    }

    /// True when something in history is due to who waits for it: the next turn gives it.
    pub(super) fn owes_a_place(&self, now: Now) -> bool {
        let Self { subscribers, tails, .. } = self;
        let place_is_due = || subscribers.ways.is_place_due(now) && subscribers.wants_a_place();
        subscribers.ways.owe_large(now) || tails.owe_large(now) || place_is_due()
    }

    /// One page for one subscriber. True when another could follow at once.
    fn push_page(&mut self, at: usize, work: &mut Work) -> Result<bool, ReplayError> {
        let one = &self.subscribers.list[at];
        if self.subscribers.is_behind(one) {
            let (number, conn, reflex, last) = (one.number, one.conn, one.reflex, one.last);
            // Without credit, or while others go through history, it waits where it is: its place is kept.
            let has_credit = one.credit > 0;
            if let Some(way) = self.subscribers.ways.take(number) {
                return self.push_replayed(at, way, work);
            }
            if !has_credit || !self.subscribers.ways.make_place() {
                return Ok(false);
            }
            let way = Way::new(number, conn, self.replay_from(reflex, last, false));
            self.subscribers.list[at].behind = true;
            self.subscribers.ways.put(way);
            return Ok(true);
        }
        let told_to = self.told_to();
        let Subscribers { list, lanes, .. } = &mut self.subscribers;
        let subscriber = &mut list[at];
        let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
        let room = (subscriber.credit as usize).min(FIRINGS_PER_PAGE);
        let mut rows = Vec::new();
        while rows.len() < room && !work.is_spent() {
            let heard = LANES.iter().filter(|lane| subscriber.hears[**lane]);
            let next = heard.filter_map(|lane| Some((lanes[*lane].get(subscriber.next[*lane])?, *lane)));
            let Some((row, lane)) = next.min_by_key(|(row, _)| place_of(row)) else { break };
            if subscriber.hears == [true; 2] && row.tx > told_to[lane].bits() {
                break;
            }
            subscriber.next[lane] += 1;
            work.spend(1);
            if place_of(row) <= subscriber.seen {
                continue;
            }
            subscriber.last = place_of(row);
            if subscriber.reflex == 0 || subscriber.reflex == row.reflex {
                rows.push(*row);
            }
        }
        if rows.len() == room && planted::is(Bug::PageCutLoses) {
            subscriber.next[OWN] += 1;
        }
        subscriber.credit -= rows.len() as u32;
        work.spend_bytes(size_of_val(&*rows));
        let more = work.is_spent() || !rows.is_empty() && rows.len() == room && subscriber.credit > 0;
        if let Some(last) = rows.last() {
            let tx = Tx::from_bits(last.tx);
            let sent_ns = self.now.unix_ns;
            self.say(to, session, request, tx, Said::Firings { rows, replayed: false, sent_ns });
        }
        Ok(more)
    }

    /// How far each lane may be told to who hears both: as far as the other one has come.
    fn told_to(&self) -> [Tx; 2] {
        let own = self.reflexes.pending_from().map_or(Tx::MAX, |tx| Tx::from_bits(tx.bits() - 1));
        [self.crossing.settled().unwrap_or(Tx::MAX), own]
    }

    /// `Subscribe`: body `reflex:8 | after tx:8 | after n:4 | zero:4 | after reflex:8`, `count` the first credit; `after`
    /// all zero = from now on, too far ahead = `Future`. The answer says that nothing behind `after` is missed; where that is
    /// history it comes when its markets were looked at, which may take some turns. Flag `REPLAYED` = a back-test: the reflex is asked from `after` on, also before it was
    /// registered.
    pub(super) fn subscribe(&mut self, from: ConnId, frame: &Frame<'_>) {
        let header: &Header = &frame.header;
        let mut cursor = Cursor::new(frame.body);
        let read = (|| {
            let (reflex, tx, n, _zero, last) =
                (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?, cursor.u64()?);
            cursor.end().map(|()| (reflex, (tx, n, last)))
        })();
        let Ok((reflex, after)) = read else {
            return self.refuse(from, header, Refusal::of(Code::BadBody));
        };
        let known = reflex == 0 || self.reflexes.get(ReflexId(reflex)).is_some();
        let full = self.subscribers.list.len() + self.tails.count() >= self.subscribers.max;
        if let Some(code) = (!known).then_some(Code::UnknownReflex).or(full.then_some(Code::TooMany)) {
            return self.refuse(from, header, Refusal::of(code));
        }
        // As a read of that moment is.
        if self.is_ahead(self.now, Tx::from_bits(after.0)) {
            let aux = self.group.applied_tx().bits();
            return self.refuse(from, header, Refusal { aux, ..Refusal::of(Code::Future) });
        }
        let back_test = header.flags & Header::REPLAYED != 0;
        let hears = self.hears(reflex);
        let end = LANES.map(|lane| self.subscribers.lanes[lane].end());
        let behind = LANES.map(|lane| self.subscribers.lanes[lane].behind(after).filter(|_| hears[lane]));
        let known = LANES.iter().all(|lane| !hears[*lane] || behind[*lane].is_some()) && !back_test;
        let from_history = !(known || (after == (0, 0, 0) && !back_test));
        if from_history && !self.subscribers.ways.make_place() {
            return self.refuse(from, header, Refusal::of(Code::TooMany));
        }
        self.subscribers.numbered += 1;
        let number = self.subscribers.numbered;
        if from_history {
            let way = Way::new(number, from, self.replay_from(reflex, after, back_test));
            self.subscribers.ways.put(way);
        }
        let next = LANES.map(|lane| behind[lane].filter(|_| after != (0, 0, 0)).unwrap_or(end[lane]));
        let from_now = (self.group.applied_tx().bits(), u32::MAX, u64::MAX);
        self.subscribers.list.push(Subscriber {
            number,
            conn: from,
            session: header.session,
            request: header.request,
            reflex,
            credit: header.count,
            begun: false,
            hears,
            next,
            seen: (0, 0, 0),
            last: if after == (0, 0, 0) { from_now } else { after },
            behind: from_history,
        });
        if !from_history {
            self.say_listens(self.subscribers.list.len() - 1);
        }
    }

    /// Which lanes have the firings of this reflex; 0 = of all.
    fn hears(&self, reflex: u64) -> [bool; 2] {
        let spec = self.reflexes.get(ReflexId(reflex)).map(|one| one.spec);
        match spec {
            _ if reflex == 0 => [true; 2],
            Some(Spec::Spread(spread)) if self.crosses(&spread) => [false, true],
            _ => [true, false],
        }
    }
}
