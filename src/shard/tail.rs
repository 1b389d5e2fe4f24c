//! `tail`: the log as a stream. What was stored, in the order in which it was applied, from any `tx` on, then live.
//!
//! ```text
//!   columns, markets, facts -- by tx --> history --\
//!                                                   +--> page by credit --> reader      all share what a turn may cost
//!   apply --> entries at hand (while anybody tails) /     cursor per reader
//!             [ ring, bounded ]
//! ```
//!
//! History (`tail/history.rs`) needs nothing that was written for it but the order of facts: it is read from the columns,
//! which carry `tx` and place. The entries at hand are a window over the same stream; a reader whose place lies before the
//! window goes through history first, and one that falls out of it goes back there. So a slow reader costs no more memory
//! than a fast one; each page tells how far the shard is. What retention took is refused as `compacted`, never passed over.
//!
//! Order: by `tx`; within it rows before facts, ticks by their place, quotes and markets by market, facts by entity.
//! Deliberately absent: other shards (the client's), and what is refused or repeated (it is not in the stream).

mod at_hand;
mod entry;
mod facts;
mod history;
#[cfg(test)]
mod tests;
mod wanted;

use super::planted::{self, Bug};
use super::replay::ReplayError;
use super::reply::Said;
use super::turn::Work;
use super::ways::LARGE_CREDIT_WITHIN_US;
use super::{ConnId, Now, Refusal, Shard, ShardError};
use crate::config::Limits;
use at_hand::AtHand;
use entry::{Entry, Page, Place, What};
use facts::{FactFeed, NextFact, gap_of};
use history::{History, Step};
use myelin_datom::Tx;
use myelin_wire::{Code, FROM_NOW, Frame, Header, LogKind};
use wanted::Wanted;

/// Readers that go through history at once; one of them over more than [`MARKETS`](super::ways::MARKETS).
const HISTORIES_MAX: usize = 16;

/// Where a reader reads.
#[derive(Debug)]
enum Way {
    /// What is at hand.
    Live,
    /// Nothing: it goes on in history from the last place, when it has credit and its turn among those who do.
    Behind,
    History(Box<History>),
}

#[derive(Debug)]
struct Reader {
    conn: ConnId,
    /// The session and request of its `Tail`, told with every page.
    session: u64,
    request: u64,
    wanted: Wanted,
    /// Below 0 when the last entry cost more than was left.
    credit: i64,
    /// It was told that nothing is missed.
    begun: bool,
    way: Way,
    /// The next entry at hand, counted from the first since the start.
    next: u64,
    /// Its way through the facts of the next entry at hand, if it gave some of them.
    within: Option<Box<FactFeed>>,
    /// The last entry it looked at, or the place it began behind.
    last: Place,
    /// Since when it has no credit. **Units:** microseconds.
    paused_us: Option<u64>,
}

impl Reader {
    fn is_large(&self) -> bool {
        matches!(&self.way, Way::History(history) if history.large)
    }

    /// It is large, and has had no credit for so long that another one may be.
    fn yields(&self, now: Now) -> bool {
        self.paused_us.is_some_and(|since| now.mono_us.saturating_sub(since) >= LARGE_CREDIT_WITHIN_US)
    }
}

/// Where a way through history has led to.
enum Reached {
    /// The entry at hand of this number comes next.
    AtHand(u64),
    /// The page is full, or the turn over.
    History,
    /// Another reader is the large one.
    Waits,
}

/// The entries at hand, and who reads.
#[derive(Debug)]
pub struct Tails {
    list: Vec<Reader>,
    /// Whose turn it is.
    turn: usize,
    /// A reader waits until it may be large.
    large_is_wanted: bool,
    at_hand: AtHand,
    max: usize,
    /// What the last turn cost.
    spent: u32,
}

impl Tails {
    /// Nobody reads yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let max = limits.subscriptions_per_shard;
        Self { list: Vec::new(), turn: 0, large_is_wanted: false, at_hand: AtHand::default(), max, spent: 0 }
    }

    /// How many read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Lets a reader of this connection have `count` more credits.
    pub fn grant(&mut self, conn: ConnId, session: u64, count: u32) {
        for reader in self.list.iter_mut().filter(|one| one.conn == conn && one.session == session) {
            reader.credit = reader.credit.saturating_add(i64::from(count));
            reader.paused_us = None;
        }
    }

    /// What is applied goes through here.
    pub const fn at_hand(&mut self) -> &mut AtHand {
        &mut self.at_hand
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.list.retain(|reader| reader.conn != conn);
        self.forget_entries();
    }

    /// What nobody reads is not kept.
    fn forget_entries(&mut self) {
        if self.list.is_empty() {
            self.at_hand.forget();
        }
    }

    fn take(&mut self, at: usize) -> Reader {
        let one = self.list.swap_remove(at);
        self.turn = at;
        self.forget_entries();
        one
    }

    /// Makes sure that no reader is large but the one that asks, whose way is taken. False when one is and stays so.
    fn make_place_for_large(&mut self, now: Now) -> bool {
        let large = self.list.iter_mut().find(|one| one.is_large());
        let stays = large.as_ref().is_some_and(|one| !one.yields(now));
        if let Some(one) = large.filter(|_| !stays) {
            one.way = Way::Behind;
        }
        self.large_is_wanted |= stays;
        !stays
    }

    /// True when who waits to be large may be.
    pub(super) fn owe_large(&self, now: Now) -> bool {
        self.large_is_wanted && self.list.iter().filter(|one| one.is_large()).all(|one| one.yields(now))
    }

    fn histories(&self) -> usize {
        self.list.iter().filter(|one| matches!(one.way, Way::History(_))).count()
    }
}

impl Shard {
    /// `Tail`: body as [`TailAsk`](myelin_wire::TailAsk), `count` the first credit. The answer says that nothing behind
    /// `since` is missed; it comes when all markets were looked at, which may take some turns.
    pub(super) fn tail(&mut self, from: ConnId, frame: &Frame<'_>) {
        let header: &Header = &frame.header;
        if let Err(refusal) = self.begin_tail(from, header, frame.body) {
            self.refuse(from, header, refusal);
        }
    }

    fn begin_tail(&mut self, from: ConnId, header: &Header, body: &[u8]) -> Result<(), Refusal> {
        let (since, wanted) = Wanted::read(body)?;
        let applied = self.group.applied_tx();
        let since = if since == FROM_NOW { applied } else { Tx::from_bits(since) };
        // As a subscription from there on: what is stored until then would be left out without a word.
        if self.is_ahead(self.now, since) {
            return Err(Refusal { aux: applied.bits(), ..Refusal::of(Code::Future) });
        }
        self.tails.at_hand.keep_from(applied);
        let at_hand = self.tails.at_hand.behind(since);
        let full = self.tails.list.len() + self.subscribers.count() >= self.tails.max;
        if full || (at_hand.is_none() && self.tails.histories() >= HISTORIES_MAX) {
            self.tails.forget_entries();
            return Err(Refusal::of(Code::TooMany));
        }
        let last = Place::behind(since);
        let way = match at_hand {
            Some(_) => Way::Live,
            None => Way::History(Box::new(History::behind(last, &self.markets))),
        };
        self.tails.list.push(Reader {
            conn: from,
            session: header.session,
            request: header.request,
            wanted,
            credit: i64::from(header.count),
            begun: false,
            way,
            next: at_hand.unwrap_or_else(|| self.tails.at_hand.end()),
            within: None,
            last,
            paused_us: None,
        });
        if at_hand.is_some() {
            self.say_begun(self.tails.list.len() - 1);
        }
        Ok(())
    }

    /// Nothing is missed from its place on.
    fn say_begun(&mut self, at: usize) {
        let reader = &mut self.tails.list[at];
        if !std::mem::replace(&mut reader.begun, true) {
            let (to, session, request) = (reader.conn, reader.session, reader.request);
            let said = Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() };
            self.say(to, session, request, self.group.applied_tx(), said);
        }
    }

    /// Ends the tail that began with this session and request. False when there is none.
    pub(super) fn end_tail(&mut self, conn: ConnId, session: u64, request: u64) -> bool {
        let is_it = |one: &Reader| one.conn == conn && one.session == session && one.request == request;
        let Some(at) = self.tails.list.iter().position(is_it) else { return false };
        // Its request is answered, whatever becomes of it.
        self.say_begun(at);
        self.tails.take(at);
        true
    }

    /// Pages go out as far as credit and the turn reach. True when there is more.
    pub(super) fn push_tails(&mut self) -> Result<bool, ShardError> {
        let waits = |one: &Reader| matches!(one.way, Way::Behind) && one.credit > 0;
        let waiting = self.tails.histories() >= HISTORIES_MAX && self.tails.list.iter().any(waits);
        self.tails.large_is_wanted = false;
        let (mut more, mut work) = (false, Work::turn());
        for _ in 0..self.tails.list.len() {
            if work.is_spent() {
                more = true;
                break;
            }
            let at = if self.tails.turn < self.tails.list.len() { self.tails.turn } else { 0 };
            self.tails.turn = at + 1;
            match self.push_tail(at, waiting, &mut work) {
                Ok(further) => more |= further,
                Err(ReplayError::Failed(error)) => return Err(error),
                Err(ReplayError::Refused(refusal)) => {
                    self.give_up_tail(at, refusal);
                    more = true;
                }
            }
        }
        self.tails.spent = work.spent();
        Ok(more)
    }

    /// Nothing more comes of it.
    fn give_up_tail(&mut self, at: usize, refusal: Refusal) {
        let Reader { conn, session, request, begun, .. } = self.tails.take(at);
        self.say_no_more(conn, (session, request), begun, refusal);
    }

    /// Nobody is told the log any more, and who read it is told so.
    pub(super) fn give_up_tails(&mut self) {
        for Reader { conn, session, request, begun, .. } in std::mem::take(&mut self.tails.list) {
            self.say_no_more(conn, (session, request), begun, Refusal::of(Code::Unavailable));
        }
        self.tails.forget_entries();
    }

    /// One page for one reader. True when another could follow at once.
    fn push_tail(&mut self, at: usize, waiting: bool, work: &mut Work) -> Result<bool, ReplayError> {
        let first = self.tails.at_hand.first();
        let reader = &mut self.tails.list[at];
        if reader.credit <= 0 && reader.begun {
            reader.paused_us.get_or_insert(self.now.mono_us);
            // It gives its place among those who read history to others; where it was is known.
            let gives = waiting && matches!(reader.way, Way::History(_));
            if gives {
                reader.way = Way::Behind;
            }
            return Ok(gives);
        }
        let fell_out = matches!(reader.way, Way::Live);
        match std::mem::replace(&mut reader.way, Way::Live) {
            Way::History(history) => self.push_history(at, history, work),
            Way::Live if reader.next >= first => self.push_live(at, work),
            Way::Live | Way::Behind => {
                let turn = self.tails.histories() < HISTORIES_MAX;
                let reader = &mut self.tails.list[at];
                reader.within = None;
                let way = || Way::History(Box::new(History::behind(reader.last, &self.markets)));
                reader.way = if turn { way() } else { Way::Behind };
                // Who begins to wait is seen in the next turn by those who hold a place for nothing.
                Ok(turn || fell_out)
            }
        }
    }

    /// A page from history; where it meets what is at hand the reader is live.
    fn push_history(&mut self, at: usize, mut history: Box<History>, work: &mut Work) -> Result<bool, ReplayError> {
        // Markets, for the time being, so that the shard can be read beside them.
        let mut wanted = std::mem::take(&mut self.tails.list[at].wanted);
        let mut page = Page::new(self.tails.list[at].credit);
        let read = self.read_history(at, &mut wanted, &mut history, &mut page, work);
        self.tails.list[at].wanted = wanted;
        let reached = read?;
        let waits = matches!(reached, Reached::Waits);
        match reached {
            Reached::AtHand(next) => self.tails.list[at].next = next,
            Reached::History | Reached::Waits => self.tails.list[at].way = Way::History(history),
        }
        self.say_page(at, page, true);
        Ok(!waits)
    }

    /// Reads on until the page is full or the turn is over.
    fn read_history(
        &mut self,
        at: usize,
        wanted: &mut Wanted,
        history: &mut History,
        page: &mut Page,
        work: &mut Work,
    ) -> Result<Reached, ReplayError> {
        loop {
            if history.has_to_be_large() {
                history.large = self.tails.make_place_for_large(self.now);
            }
            if history.has_to_be_large() {
                return Ok(Reached::Waits);
            }
            if !self.open_history(wanted, history, work)? {
                return Ok(Reached::History);
            }
            self.say_begun(at);
            if page.is_full() {
                return Ok(Reached::History);
            }
            match self.next_of_history(wanted, history, work)? {
                Step::Later => return Ok(Reached::History),
                Step::Entry(entry) if entry.place <= self.tails.list[at].last => {}
                Step::Entry(entry) => {
                    self.tails.list[at].last = entry.place;
                    if self.is_wanted(wanted, &entry)? {
                        page.write(&self.markets, &entry, work);
                    }
                }
                Step::Stretch => match self.tails.at_hand.behind(history.basis) {
                    Some(next) => {
                        return Ok(Reached::AtHand(next + u64::from(planted::is(Bug::TailSkipsAtTheSeam))));
                    }
                    None => history.next_stretch(),
                },
            }
        }
    }

    fn is_wanted(&self, wanted: &Wanted, entry: &Entry) -> Result<bool, ReplayError> {
        let What::Fact(stated) = &entry.what else { return Ok(wanted.entry(entry)) };
        let gap_of = gap_of(&self.facts, stated)?;
        Ok(wanted.fact(stated, gap_of, |id| self.ticks.market_ix(id).map(|market| market.number())))
    }

    /// A page of what is at hand.
    fn push_live(&mut self, at: usize, work: &mut Work) -> Result<bool, ReplayError> {
        let end = self.tails.at_hand.end();
        if self.tails.list[at].next == end {
            return Ok(false);
        }
        if !self.tails.list[at].wanted.look(&self.markets, work) {
            return Ok(true);
        }
        let mut page = Page::new(self.tails.list[at].credit);
        while self.tails.list[at].next < end && !page.is_full() && !work.is_spent() {
            work.spend(1);
            let reader = &self.tails.list[at];
            let entry = self.tails.at_hand.entry(reader.next);
            let place = entry.place;
            if place.tx <= reader.last.whole() {
                // It began further on.
            } else if let What::Facts = entry.what {
                if !self.push_facts(at, place.tx, &mut page, work)? {
                    break;
                }
            } else {
                if place > reader.last && reader.wanted.entry(entry) {
                    page.write(&self.markets, entry, work);
                }
                self.tails.list[at].last = place;
            }
            self.tails.list[at].next += 1;
        }
        let reader = &self.tails.list[at];
        let more = reader.next < end && reader.credit > i64::from(page.credits);
        self.say_page(at, page, false);
        Ok(more)
    }

    /// Facts of a transaction at hand. True when all were looked at; else the reader goes on within them.
    fn push_facts(&mut self, at: usize, tx: Tx, page: &mut Page, work: &mut Work) -> Result<bool, ReplayError> {
        if self.tails.list[at].wanted.kind(LogKind::Fact) {
            let start = || Box::new(FactFeed::behind(Place::of_fact(tx, 0).whole()));
            let mut feed = self.tails.list[at].within.take().unwrap_or_else(start);
            while !page.is_full() {
                match feed.next(&self.facts, &self.tails.list[at].wanted, tx, work)? {
                    NextFact::Later => break,
                    NextFact::End => {
                        self.tails.list[at].last = Place::behind(tx);
                        return Ok(true);
                    }
                    NextFact::Fact(entry) => {
                        let reader = &self.tails.list[at];
                        if entry.place > reader.last && self.is_wanted(&reader.wanted, &entry)? {
                            page.write(&self.markets, &entry, work);
                        }
                        let last = &mut self.tails.list[at].last;
                        *last = entry.place.max(*last);
                    }
                }
            }
            self.tails.list[at].within = Some(feed);
            return Ok(false);
        }
        self.tails.list[at].last = Place::behind(tx);
        Ok(true)
    }

    fn say_page(&mut self, at: usize, page: Page, replayed: bool) {
        let Page { body, count, credits, .. } = page;
        if count == 0 {
            return;
        }
        let reader = &mut self.tails.list[at];
        reader.credit -= i64::from(credits);
        let (to, session, request, tx) = (reader.conn, reader.session, reader.request, reader.last.tx);
        let applied = self.group.applied_tx().bits();
        self.say(to, session, request, tx, Said::Tailed { count, replayed, applied, body });
    }
}
