//! Confluence: ticks of markets on several shards in one order, as far as all of these shards have closed.
//!
//! ```text
//!   shard s    rows by (tx, n) ----> [ a page ]  closed 40 --\
//!   shard t    rows by (tx, n) ----> [        ]  closed 37 ---+--> by (tx, n, slot), up to 37
//!              <---- ask: from which row on, and how far it is waited for ----
//! ```
//! Rows are asked for, a page at a time, from the row on that comes next: so nothing is lost when a shard is slow, starts
//! again, or says a thing twice, and no more waits here than was asked for. One question per shard is under way; a second one
//! takes its place when something begins to wait.
//!
//! Invariants: a row is given only when every market without a row at hand was told of up to its place, so the order is that of
//! all rows sorted, however they came; at one `(tx, n)` the smaller slot comes first, since two shards may stamp alike, and
//! when the first of them is given the others are there.
//! Deliberately absent: who answers, what is done with the rows, and when a shard closes (`crossing.rs`).

use super::seek::Seek;
use myelin_datom::{EntityId, MarketName, Slot, Tick, Tx};
use myelin_index::Found;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Rows of one market that are asked for at once: the fewest, and the most.
const PAGE_ROWS: (usize, usize) = (8, 256);
/// Rows that wait over all markets, about.
const ROWS_WAITING: usize = 1 << 16;

/// One market of a confluence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub u32);

/// A row as its shard told it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Of which market.
    pub feed: FeedId,
    /// The row, and where it stands.
    pub found: Found<Tick>,
    /// When its frame arrived, if that is still known, else 0. **Units:** Unix nanoseconds.
    pub received_ns: i64,
    /// When it was on stable storage, likewise.
    pub durable_ns: i64,
}

/// From where on a market's rows are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The newest row up to this transaction that is no correction, and what came later.
    Behind {
        /// The market.
        name: Box<str>,
        /// The transaction.
        tx: Tx,
    },
    /// The same, where the way to that row was begun: it may take several answers.
    Price {
        /// The market.
        market: EntityId,
        /// The transaction.
        tx: Tx,
        /// Where the way is.
        seek: Seek,
    },
    /// From this row on.
    Row {
        /// The market.
        market: EntityId,
        /// The row's number.
        row: u32,
    },
}

/// What a shard is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// It is answered when there are rows, and at the latest when the shard has closed and applied this; zero = only with rows.
    pub until: Tx,
    /// Rows of one market at most.
    pub page: usize,
    /// Which markets. Those that are waited for stand first, and of them those that were not spoken of for the longest time.
    pub feeds: Vec<(FeedId, From)>,
}

/// What a shard says of one market.
#[derive(Clone, Copy, Debug)]
pub struct FeedTold {
    /// Which one.
    pub feed: FeedId,
    /// Its id; none as long as it does not exist.
    pub market: EntityId,
    /// The row that comes next.
    pub next_row: u32,
    /// The row to begin with is not found yet: the way to it goes on here, and no row is told.
    pub seek: Option<Seek>,
    /// These are all rows up to the answer's `closed`.
    pub whole: bool,
    /// Rows that were wanted were dropped; behind this transaction there are all. Else zero.
    pub gone: Tx,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Tell {
    /// No later row has a `tx` at or below this.
    pub closed: Tx,
    /// The markets it speaks of: of those asked for the first ones, as many as there was room for, and a turn. Of the others
    /// it says nothing; they are asked about again.
    pub feeds: Vec<FeedTold>,
    /// Their rows, ascending for each. Where the row of a market's price was dropped and its price is known, one stands in its
    /// place that has market, price and transaction, and nothing else.
    pub rows: Vec<Told>,
}

#[derive(Debug)]
struct Feed {
    shard: u16,
    slot: Slot,
    from: From,
    /// Rows up to here are from before the beginning: they are no part of the stream.
    begin: Tx,
    rows: VecDeque<Told>,
    /// Every row up to here was told: a page may end within a transaction.
    closed: (Tx, u32),
    /// It was spoken of.
    heard: bool,
    /// The question under way at its shard is about it too.
    asked: bool,
}

/// What is asked of one shard.
#[derive(Debug, Default)]
struct Asking {
    /// The question under way: how far it waits.
    under_way: Option<Tx>,
    /// The market whose turn it is.
    turn: FeedId,
}

/// Markets of a shard that have room for rows.
type Low<'a> = Vec<(FeedId, &'a mut Feed)>;

/// See the module's picture.
#[derive(Debug, Default)]
pub struct Confluence {
    feeds: BTreeMap<FeedId, Feed>,
    asked: BTreeMap<u16, Asking>,
    /// Something changed since it was looked what is to be asked, or another moment is waited for now.
    stirred: bool,
    waits_for: Tx,
    turns: BinaryHeap<Reverse<(Tx, u32, Slot, FeedId)>>,
    numbers: u32,
    /// The smallest place up to which every row was told, of all markets without a row at hand.
    bound: (Tx, u32),
    /// The latest row that came.
    newest: Tx,
    /// Does not wait for who has no row at hand: the bug that the tests must see.
    #[cfg(test)]
    pub(super) impatient: bool,
}

impl Confluence {
    /// Adds a market of a shard; its rows come from behind `begin` on. **Panics** when `name` is no market's.
    pub fn add(&mut self, shard: u16, name: &str, begin: Tx) -> FeedId {
        let Ok(slot) = MarketName::new(name).map(|name| name.slot()) else { unreachable!("'{name}' was checked") };
        let feed = FeedId(self.numbers);
        self.numbers += 1;
        let from = From::Behind { name: name.into(), tx: begin };
        let rows = VecDeque::new();
        self.feeds
            .insert(feed, Feed { shard, slot, from, begin, rows, closed: whole(begin), heard: false, asked: false });
        // A question that does not speak of it is not waited for.
        self.asked.entry(shard).or_default().under_way = None;
        self.bound = if self.feeds.len() == 1 { whole(begin) } else { self.bound.min(whole(begin)) };
        self.stirred = true;
        #[cfg(test)]
        self.be_impatient();
        feed
    }

    /// Takes a market out; true when its shard has none left here.
    pub fn remove(&mut self, feed: FeedId) -> bool {
        let Some(gone) = self.feeds.remove(&feed) else { return false };
        self.turns.retain(|Reverse((.., of))| *of != feed);
        self.find_bound();
        self.stirred = true;
        let last = self.feeds.values().all(|one| one.shard != gone.shard);
        if last {
            self.asked.remove(&gone.shard);
        }
        last
    }

    /// Every row up to this transaction was given; none when there is no market.
    #[must_use]
    pub fn merged(&self) -> Option<Tx> {
        let before = |tx: Tx| Tx::from_bits(tx.bits().saturating_sub(1));
        let first = self.turns.peek().map_or(Tx::MAX, |Reverse((tx, ..))| before(*tx));
        let bound = if self.bound == whole(self.bound.0) { self.bound.0 } else { before(self.bound.0) };
        (!self.feeds.is_empty()).then(|| bound.min(first))
    }

    /// Rows that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.feeds.values().map(|feed| feed.rows.len()).sum()
    }

    /// The place of the next row, when it may be given.
    #[must_use]
    pub fn peek(&self) -> Option<(Tx, u32)> {
        self.turns.peek().map(|Reverse((tx, n, ..))| (*tx, *n)).filter(|place| *place <= self.bound)
    }

    /// The next row.
    pub fn take(&mut self) -> Option<Told> {
        self.peek()?;
        let Reverse((.., at)) = self.turns.pop()?;
        let feed = self.feeds.get_mut(&at)?;
        self.stirred = true;
        let told = feed.rows.pop_front();
        match feed.rows.front() {
            Some(next) => self.turns.push(Reverse((next.found.tx, next.found.n, feed.slot, at))),
            None => self.bound = self.bound.min(feed.closed),
        }
        #[cfg(test)]
        self.be_impatient();
        told
    }

    /// What is to be asked now. `least` = all shards are waited for up to here, whether rows wait or not.
    pub fn asks(&mut self, least: Tx) -> Vec<(u16, Ask)> {
        let waits = self.turns.peek().is_some_and(|Reverse((tx, n, ..))| (*tx, *n) > self.bound);
        let until = if waits { self.newest.max(least) } else { least };
        if !std::mem::take(&mut self.stirred) && until == self.waits_for {
            return Vec::new();
        }
        self.waits_for = until;
        let page = (ROWS_WAITING / self.feeds.len().max(1)).clamp(PAGE_ROWS.0, PAGE_ROWS.1);
        let mut low: BTreeMap<u16, [Low<'_>; 3]> = BTreeMap::new();
        for (id, feed) in &mut self.feeds {
            let Some(asking) = self.asked.get(&feed.shard) else { continue };
            let is_answered = asking.under_way.is_some_and(|until| until > Tx::ZERO);
            if is_answered || feed.rows.len() * 2 >= page {
                continue;
            }
            // Those that are waited for come first, and of them first those from the one on whose turn it is.
            let place = if !feed.rows.is_empty() { 2 } else { usize::from(*id < asking.turn) };
            low.entry(feed.shard).or_default()[place].push((*id, feed));
        }
        let mut asks = Vec::new();
        for (shard, low) in low {
            let mut low: Low<'_> = low.into_iter().flatten().collect();
            let late = low.iter().any(|(_, feed)| feed.rows.is_empty() && feed.closed < whole(until));
            let unheard = low.iter().filter(|(_, feed)| !feed.heard).map(|(_, feed)| feed.begin).max();
            let until = unheard.unwrap_or(Tx::ZERO).max(if late { until } else { Tx::ZERO });
            let Some(asking) = self.asked.get_mut(&shard) else { continue };
            // What waits for rows of all of them waits on.
            if asking.under_way.is_some() && until == Tx::ZERO && low.iter().all(|(_, feed)| feed.asked) {
                continue;
            }
            asking.under_way = Some(until);
            low.iter_mut().for_each(|(_, feed)| feed.asked = true);
            let feeds = low.iter().map(|(id, feed)| (*id, feed.from.clone())).collect();
            asks.push((shard, Ask { until, page, feeds }));
        }
        asks
    }

    /// An answer of a shard. What lies before a market's beginning goes to `prime`; gives the transaction behind which all
    /// rows are there, when some that were wanted are gone.
    pub fn told(&mut self, shard: u16, tell: &Tell, mut prime: impl FnMut(&Told)) -> Option<Tx> {
        self.stirred = true;
        if let Some(asking) = self.asked.get_mut(&shard) {
            let last = tell.feeds.last().map_or(asking.turn, |said| FeedId(said.feed.0 + 1));
            *asking = Asking { under_way: None, turn: last };
        }
        self.feeds.values_mut().filter(|feed| feed.shard == shard).for_each(|feed| feed.asked = false);
        let mut last = BTreeMap::new();
        for told in &tell.rows {
            let Some(feed) = self.feeds.get_mut(&told.feed) else { continue };
            last.insert(told.feed, (told.found.tx, told.found.n));
            if matches!(feed.from, From::Row { row, .. } if told.found.number < row) {
                continue;
            }
            if told.found.tx <= feed.begin {
                prime(told);
                continue;
            }
            if feed.rows.is_empty() {
                self.turns.push(Reverse((told.found.tx, told.found.n, feed.slot, told.feed)));
            }
            self.newest = self.newest.max(told.found.tx);
            feed.rows.push_back(*told);
        }
        let mut gone = None;
        for said in &tell.feeds {
            let Some(feed) = self.feeds.get_mut(&said.feed) else { continue };
            if let Some(seek) = said.seek {
                if !matches!(feed.from, From::Row { .. }) {
                    feed.from = From::Price { market: said.market, tx: feed.begin, seek };
                }
                continue;
            }
            feed.heard = true;
            gone = gone.max((said.gone != Tx::ZERO).then_some(said.gone));
            if said.market != EntityId::NONE {
                let row = if let From::Row { row, .. } = feed.from { row.max(said.next_row) } else { said.next_row };
                feed.from = From::Row { market: said.market, row };
            }
            let closed = if said.whole { Some(whole(tell.closed)) } else { last.get(&said.feed).copied() };
            feed.closed = closed.map_or(feed.closed, |closed| feed.closed.max(closed));
        }
        self.find_bound();
        gone
    }

    fn find_bound(&mut self) {
        let closed = self.feeds.values().filter(|feed| feed.rows.is_empty()).map(|feed| feed.closed);
        self.bound = closed.min().unwrap_or(whole(Tx::MAX));
        #[cfg(test)]
        self.be_impatient();
    }

    #[cfg(test)]
    fn be_impatient(&mut self) {
        if self.impatient {
            self.bound = whole(Tx::MAX);
        }
    }
}

/// The end of a transaction.
const fn whole(tx: Tx) -> (Tx, u32) {
    (tx, u32::MAX)
}

#[cfg(test)]
mod tests;
