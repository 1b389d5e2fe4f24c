//! `react`: a stored tick asks every standing question; what fires goes to who subscribed.
//!
//! ```text
//!   apply -> reflexes.react -> records -> drain (in slices) -> firings at hand -> page by credit -> subscriber
//!                                                              [ ring, bounded ]   cursor per subscriber
//! ```
//!
//! The firings at hand are a window over the stream of all firings, which is a pure function of the log. A subscriber is a
//! cursor into it; one whose cursor falls out of the window is told `Compacted` with the position it can resume from.
//! `reacted <= applied`: the ack does not wait for any of this.

use super::reply::Said;
use super::{ConnId, Now, Refusal, Shard};
use crate::config::Limits;
use crate::reflex::{self, Firing, MarketIx, ReflexId};
use myelin_datom::{Tick, Tx};
use myelin_wire::{Code, Cursor, FiringRow, Frame, Header};
use std::collections::VecDeque;

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
    struck: VecDeque<Struck>,
    /// Everything up to here was derived by this process; below it, at hand is all there is.
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
            struck: VecDeque::new(),
            expanded: Vec::new(),
        }
    }

    /// How many listen.
    #[must_use]
    pub fn len(&self) -> usize {
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

    fn end(&self) -> u64 {
        self.first + self.at_hand.len() as u64
    }

    fn keep(&mut self, row: FiringRow) {
        if self.at_hand.len() == self.at_hand_max {
            self.at_hand.pop_front();
            self.first += 1;
        }
        self.at_hand.push_back(row);
    }

    /// The number of the first firing behind a position, or `None` when older ones may be missing at hand.
    fn behind(&self, position: (u64, u32, u64)) -> Option<u64> {
        let id = |row: &FiringRow| (row.tx, row.n, row.reflex);
        let at = self.at_hand.partition_point(|row| id(row) <= position);
        let known = at > 0 || self.first == 0;
        known.then_some(self.first + at as u64)
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
    pub fn push_firings(&mut self, now: Now) -> bool {
        self.now = now;
        if self.reflexes.pending() {
            self.drain_slice();
        }
        let mut more = self.reflexes.pending();
        let mut ended = Vec::new();
        for at in 0..self.subscribers.list.len() {
            more |= self.push_page(at, &mut ended);
        }
        for at in ended.into_iter().rev() {
            self.subscribers.list.swap_remove(at);
        }
        more
    }

    /// One page for one subscriber. True when another could follow at once.
    fn push_page(&mut self, at: usize, ended: &mut Vec<usize>) -> bool {
        let subscribers = &mut self.subscribers;
        let (first, end) = (subscribers.first, subscribers.end());
        let subscriber = &mut subscribers.list[at];
        let (to, session, request) = (subscriber.conn, subscriber.session, subscriber.request);
        if subscriber.next < first {
            let oldest = subscribers.at_hand.front().map_or(0, |row| row.tx);
            ended.push(at);
            self.say(to, session, request, Tx::ZERO, Said::Ended { code: Code::Compacted, oldest });
            return false;
        }
        if subscriber.next == end || subscriber.credit == 0 {
            return false;
        }
        let room = (subscriber.credit as usize).min(FIRINGS_PER_PAGE);
        let mut rows = Vec::new();
        while subscriber.next < end && rows.len() < room {
            let row = &subscribers.at_hand[(subscriber.next - first) as usize];
            subscriber.next += 1;
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
        more
    }

    /// `Subscribe`: body `reflex:8 | after tx:8 | after n:4 | zero:4 | after reflex:8`, `count` the first credit; flag
    /// `REPLAYED` clear and `after` zero = from now on.
    pub(super) fn subscribe(&mut self, from: ConnId, frame: &Frame<'_>) {
        let header: &Header = &frame.header;
        let mut cursor = Cursor::new(frame.body);
        let read = (|| {
            let (reflex, tx, n, _zero, last) = (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?, cursor.u64()?);
            cursor.end().map(|()| (reflex, (tx, n, last)))
        })();
        let Ok((reflex, after)) = read else {
            return self.refuse(from, header, Refusal::of(Code::BadBody));
        };
        if self.subscribers.len() >= self.subscribers.max {
            return self.refuse(from, header, Refusal::of(Code::TooMany));
        }
        if reflex != 0 && self.reflexes.get(ReflexId(reflex)).is_none() {
            return self.refuse(from, header, Refusal::of(Code::UnknownReflex));
        }
        let next = if after == (0, 0, 0) { Some(self.subscribers.end()) } else { self.subscribers.behind(after) };
        let Some(next) = next else {
            let oldest = self.subscribers.at_hand.front().map_or(0, |row| row.tx);
            return self.refuse(from, header, Refusal { aux: oldest, ..Refusal::of(Code::Compacted) });
        };
        self.subscribers.list.push(Subscriber {
            conn: from,
            session: header.session,
            request: header.request,
            reflex,
            credit: header.count,
            next,
        });
        let basis = self.group.applied_tx();
        let said = Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() };
        self.say(from, header.session, header.request, basis, said);
    }
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
