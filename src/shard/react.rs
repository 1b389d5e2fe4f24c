//! `react`: a stored tick asks every standing question; what fires goes to who subscribed.
//!
//! ```text
//!   apply -> reflexes.react -> records -> drain (in slices) -> firings at hand -> page by credit -> subscriber
//!                                                              [ ring, bounded ]   cursor per subscriber
//! ```
//!
//! The firings at hand are a window over the stream of all firings, which is a pure function of the log. A subscriber is a
//! cursor into it; one whose place lies before the window, or falls out of it, goes through history first (`replay.rs`).
//! `reacted <= applied`: the ack does not wait for any of this.

use super::replay::{Place, ReplayError, Replaying, Step};
use super::reply::Said;
use super::{ConnId, Now, Refusal, Shard, ShardError};
use crate::config::Limits;
use crate::reflex::{self, Firing, MarketIx, ReflexId};
use myelin_datom::{Tick, Tx};
use myelin_index::Gap;
use myelin_wire::{Code, Cursor, FiringRow, Frame, Header};
use std::collections::VecDeque;

/// Subscribers that go through history at once.
const REPLAYS_MAX: usize = 16;
/// Firings in one push at most: 64 KiB.
const FIRINGS_PER_PAGE: usize = 512;
/// Firings expanded in one slice: well under 250 µs.
const FIRINGS_PER_SLICE: usize = 1024;

/// The bounds of the reflexes of one shard.
pub fn limits(limits: &Limits) -> reflex::Limits {
    reflex::Limits { reflexes: limits.reflexes_per_shard, ..reflex::Limits::default() }
}

/// A tick something fired at, kept until all that fired at it is written down.
#[derive(Clone, Copy, Debug)]
struct Struck {
    tx: Tx,
    n: u32,
    tick: Tick,
    received_ns: i64,
    durable_ns: i64,
}

#[derive(Debug)]
struct Subscriber {
    conn: ConnId,
    /// The session and request of its `Subscribe`, told with every push.
    session: u64,
    request: u64,
    /// 0 = every reflex.
    reflex: u64,
    credit: u32,
    /// The next firing to look at, counted from the first since the start.
    next: u64,
    /// The last firing it was given, or the place it began behind.
    last: Place,
    /// Its way through history, before it is live.
    replaying: Option<Box<Replaying>>,
    /// It has to go through history from `last`, and waits for its turn.
    behind: bool,
}

/// The firings at hand, and who listens.
#[derive(Debug)]
pub struct Subscribers {
    list: Vec<Subscriber>,
    max: usize,
    at_hand: VecDeque<FiringRow>,
    at_hand_max: usize,
    /// The number of the first firing at hand.
    first: u64,
    /// Every firing behind this place is at hand.
    known_from: Place,
    struck: VecDeque<Struck>,
    expanded: Vec<Firing>,
}

impl Subscribers {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            list: Vec::new(),
            max: limits.subscriptions_per_shard,
            at_hand: VecDeque::new(),
            at_hand_max: limits.firings_at_hand,
            first: 0,
            known_from: (0, 0, 0),
            struck: VecDeque::new(),
            expanded: Vec::new(),
        }
    }

    /// How many listen.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Lets a subscription of this connection have `count` more firings.
    pub fn grant(&mut self, conn: ConnId, session: u64, count: u32) {
        for subscriber in self.list.iter_mut().filter(|one| one.conn == conn && one.session == session) {
            subscriber.credit = subscriber.credit.saturating_add(count);
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.list.retain(|subscriber| subscriber.conn != conn);
    }

    /// What fired up to this transaction is not at hand: a checkpoint was before.
    pub(super) fn known_from(&mut self, tx: Tx) {
        self.known_from = (tx.bits(), u32::MAX, u64::MAX);
    }

    fn end(&self) -> u64 {
        self.first + self.at_hand.len() as u64
    }

    fn keep(&mut self, row: FiringRow) {
        if self.at_hand.len() == self.at_hand_max {
            let gone = self.at_hand.pop_front();
            self.known_from = gone.as_ref().map_or(self.known_from, place_of);
            self.first += 1;
        }
        self.at_hand.push_back(row);
    }

    /// The number of the first firing behind a position, or `None` when older ones may be missing at hand.
    fn behind(&self, position: Place) -> Option<u64> {
        let id = |row: &FiringRow| (row.tx, row.n, row.reflex);
        let at = self.at_hand.partition_point(|row| id(row) <= position);
        (position >= self.known_from).then_some(self.first + at as u64)
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
            self.subscribers.struck.push_back(Struck { tx, n, tick: *tick, received_ns, durable_ns });
        }
    }

    /// Ids that a dense feed skipped.
    pub(super) fn react_to_gap(&mut self, tx: Tx, n: u32, gap: &Gap, received_ns: i64, durable_ns: i64) {
        let Some(market) = self.ticks.market_ix(gap.market) else { return };
        if self.reflexes.full() {
            self.drain_reflexes();
        }
        let before = self.reflexes.lag();
        self.reflexes.gap(tx, n, MarketIx(market.number()), gap.first, gap.last);
        if self.reflexes.lag() != before {
            let tick = Tick { market: gap.market, ..bytemuck::Zeroable::zeroed() };
            self.subscribers.struck.push_back(Struck { tx, n, tick, received_ns, durable_ns });
        }
    }

    /// Writes down everything that has fired.
    pub(super) fn drain_reflexes(&mut self) {
        while self.reflexes.pending() {
            self.drain_slice();
        }
    }

    fn drain_slice(&mut self) {
        let subscribers = &mut self.subscribers;
        subscribers.expanded.clear();
        self.reflexes.next_firings(FIRINGS_PER_SLICE, &mut subscribers.expanded);
        let fired_ns = self.now.unix_ns;
        for at in 0..subscribers.expanded.len() {
            let firing = subscribers.expanded[at];
            while subscribers.struck.front().is_some_and(|struck| (struck.tx, struck.n) < (firing.tx, firing.n)) {
                subscribers.struck.pop_front();
            }
            let Some(struck) = subscribers.struck.front().copied() else { continue };
            subscribers.keep(firing_row(&firing, &struck, fired_ns));
            self.counters.firings += 1;
        }
        if !self.reflexes.pending() {
            subscribers.struck.clear();
        }
    }

    /// A slice of what has fired is written down, and pages go out as far as credit reaches. True when there is more.
    pub fn push_firings(&mut self, now: Now) -> Result<bool, ShardError> {
        self.now = now;
        if self.reflexes.pending() {
            self.drain_slice();
        }
        let mut more = self.reflexes.pending();
        let mut at = 0;
        while at < self.subscribers.list.len() {
            match self.push_page(at) {
                Ok(further) => {
                    more |= further;
                    at += 1;
                }
                Err(ReplayError::Failed(error)) => return Err(error),
                Err(ReplayError::Refused(refusal)) => {
                    let one = self.subscribers.list.swap_remove(at);
                    let said = Said::Ended { code: refusal.code, oldest: refusal.aux };
                    self.say(one.conn, one.session, one.request, Tx::ZERO, said);
                }
            }
        }
        Ok(self.push_tails()? || more)
    }

    /// A page from history for one subscriber; at its end it is live.
    fn push_replayed(&mut self, at: usize, mut replaying: Box<Replaying>) -> Result<bool, ReplayError> {
        let subscriber = &self.subscribers.list[at];
        let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
        let room = (subscriber.credit as usize).min(FIRINGS_PER_PAGE);
        if room == 0 && replaying.is_resumable() {
            // It gives its place among those who replay to others and begins again behind the last firing it was given.
            self.subscribers.list[at].behind = true;
            return Ok(false);
        }
        if room == 0 {
            self.subscribers.list[at].replaying = Some(replaying);
            return Ok(false);
        }
        let step = self.replay_slice(&mut replaying, room)?;
        let rows: Vec<FiringRow> = replaying.ready.drain(..room.min(replaying.ready.len())).collect();
        let seen_all = step == Step::Done && replaying.ready.is_empty();
        if seen_all {
            // What was applied and has fired is at hand, so that the first live firing is the next one.
            self.drain_reflexes();
        }
        let (applied, end) = (self.group.applied_tx().bits(), self.subscribers.end());
        let live_at = self.subscribers.behind((applied, u32::MAX, u64::MAX)).unwrap_or(end);
        let subscriber = &mut self.subscribers.list[at];
        subscriber.credit -= rows.len() as u32;
        subscriber.last = rows.last().map_or(subscriber.last, place_of);
        if seen_all {
            subscriber.next = live_at;
        } else {
            subscriber.replaying = Some(replaying);
        }
        if let Some(last) = rows.last() {
            let tx = Tx::from_bits(last.tx);
            self.say(to, session, request, tx, Said::Firings { rows, replayed: true });
        }
        Ok(true)
    }

    /// One page for one subscriber. True when another could follow at once.
    fn push_page(&mut self, at: usize) -> Result<bool, ReplayError> {
        if let Some(replaying) = self.subscribers.list[at].replaying.take() {
            return self.push_replayed(at, replaying);
        }
        if self.subscribers.list[at].behind || self.subscribers.list[at].next < self.subscribers.first {
            let (reflex, last) = (self.subscribers.list[at].reflex, self.subscribers.list[at].last);
            // Without credit, or while others go through history, it waits where it is: its place is kept.
            if self.subscribers.list[at].credit == 0 || self.room_for_a_replay().is_err() {
                return Ok(false);
            }
            let replaying = self.replay_from(reflex, last, false)?;
            self.subscribers.list[at].behind = false;
            self.subscribers.list[at].replaying = Some(Box::new(replaying));
            return Ok(true);
        }
        let subscribers = &mut self.subscribers;
        let (first, end) = (subscribers.first, subscribers.end());
        let subscriber = &mut subscribers.list[at];
        let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
        if subscriber.next == end || subscriber.credit == 0 {
            return Ok(false);
        }
        let room = (subscriber.credit as usize).min(FIRINGS_PER_PAGE);
        let mut rows = Vec::new();
        while subscriber.next < end && rows.len() < room {
            let row = &subscribers.at_hand[(subscriber.next - first) as usize];
            subscriber.next += 1;
            subscriber.last = place_of(row);
            if subscriber.reflex == 0 || subscriber.reflex == row.reflex {
                rows.push(*row);
            }
        }
        subscriber.credit -= rows.len() as u32;
        let more = subscriber.next < end && subscriber.credit > 0;
        if let Some(last) = rows.last() {
            let tx = Tx::from_bits(last.tx);
            self.say(to, session, request, tx, Said::Firings { rows, replayed: false });
        }
        Ok(more)
    }

    fn room_for_a_replay(&self) -> Result<(), ReplayError> {
        let under_way = self.subscribers.list.iter().filter(|one| one.replaying.is_some()).count();
        if under_way < REPLAYS_MAX { Ok(()) } else { Err(Refusal::of(Code::TooMany).into()) }
    }

    /// `Subscribe`: body `reflex:8 | after tx:8 | after n:4 | zero:4 | after reflex:8`, `count` the first credit; `after`
    /// all zero = from now on. Flag `REPLAYED` = a back-test: the reflex is asked from `after` on, also before it was
    /// registered.
    pub(super) fn subscribe(&mut self, from: ConnId, frame: &Frame<'_>) -> Result<(), ShardError> {
        let header: &Header = &frame.header;
        let mut cursor = Cursor::new(frame.body);
        let read = (|| {
            let (reflex, tx, n, _zero, last) =
                (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?, cursor.u64()?);
            cursor.end().map(|()| (reflex, (tx, n, last)))
        })();
        let Ok((reflex, after)) = read else {
            self.refuse(from, header, Refusal::of(Code::BadBody));
            return Ok(());
        };
        let known = reflex == 0 || self.reflexes.get(ReflexId(reflex)).is_some();
        let full = self.subscribers.list.len() + self.tails.count() >= self.subscribers.max;
        if let Some(code) = (!known).then_some(Code::UnknownReflex).or(full.then_some(Code::TooMany)) {
            self.refuse(from, header, Refusal::of(code));
            return Ok(());
        }
        let back_test = header.flags & Header::REPLAYED != 0;
        let at_hand = if after == (0, 0, 0) { Some(self.subscribers.end()) } else { self.subscribers.behind(after) };
        let replaying = match at_hand.filter(|_| !back_test) {
            Some(_) => None,
            None => match self.room_for_a_replay().and_then(|()| self.replay_from(reflex, after, back_test)) {
                Ok(replaying) => Some(Box::new(replaying)),
                Err(ReplayError::Failed(error)) => return Err(error),
                Err(ReplayError::Refused(refusal)) => {
                    self.refuse(from, header, refusal);
                    return Ok(());
                }
            },
        };
        let next = at_hand.unwrap_or_else(|| self.subscribers.end());
        let from_now = (self.group.applied_tx().bits(), u32::MAX, u64::MAX);
        self.subscribers.list.push(Subscriber {
            conn: from,
            session: header.session,
            request: header.request,
            reflex,
            credit: header.count,
            next,
            last: if after == (0, 0, 0) { from_now } else { after },
            replaying,
            behind: false,
        });
        let basis = self.group.applied_tx();
        let said = Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() };
        self.say(from, header.session, header.request, basis, said);
        Ok(())
    }
}

fn place_of(row: &FiringRow) -> Place {
    (row.tx, row.n, row.reflex)
}

/// A firing that was derived from history: nobody measured it.
pub(super) fn derived_row(firing: &Firing, tick: &Tick) -> FiringRow {
    let struck = Struck { tx: firing.tx, n: firing.n, tick: *tick, received_ns: 0, durable_ns: 0 };
    firing_row(firing, &struck, 0)
}

fn firing_row(firing: &Firing, struck: &Struck, fired_ns: i64) -> FiringRow {
    // During recovery nobody measured anything: a timeline that was not seen is zero.
    let live = struck.received_ns != 0;
    FiringRow {
        reflex: firing.reflex.0,
        tx: firing.tx.bits(),
        n: firing.n,
        kind: firing.kind as u8,
        zero_21: 0,
        slot: firing.market.slot().number(),
        value: firing.values[0],
        basis: firing.values[1],
        received_ns: struck.received_ns,
        durable_ns: if live { struck.durable_ns } else { 0 },
        fired_ns: if live { fired_ns } else { 0 },
        tick: struck.tick,
    }
}
