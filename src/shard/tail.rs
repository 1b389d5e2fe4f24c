//! `tail`: the log as a stream. What was stored, in the order in which it was applied, from any `tx` on, then live.
//!
//! ```text
//!   columns, markets --- merge.rs, by tx --> history --\
//!                                                       +--> page by credit --> reader
//!   apply --> entries at hand (while anybody tails) ---/     cursor per reader
//!             [ ring, bounded ]
//! ```
//!
//! History needs nothing that was written for it: it is read from the columns, which carry `tx` and place. The entries at
//! hand are a window over the same stream; a reader whose place lies before the window goes through history first, and one
//! that falls out of it goes back there. So a slow reader costs no more memory than a fast one; each page tells how far the
//! shard is. What retention took is refused as `compacted`, never passed over.
//!
//! Order: by `tx`, which is one request's and so of one kind; within it ticks by their place, quotes and markets by market.
//! Deliberately absent: other shards (the client's), and what is refused or repeated (it is not in the stream).

use super::interleave::Interleave;
use super::replay::ReplayError;
use super::reply::Said;
use super::{ConnId, Refusal, Shard, ShardError};
use crate::config::Limits;
use crate::market::{Market, Markets};
use crate::reflex::Scope;
use myelin_datom::{EntityId, Kind, Quote, Tick, Tx};
use myelin_index::{ColumnRow, Columns, MarketIx, Verdict};
use myelin_wire::{
    Attribute, Code, Cursor, FROM_NOW, Frame, Header, Short, TailAsk, write_tail_market, write_tail_row,
};
use std::collections::VecDeque;

/// Readers that go through history at once.
const HISTORIES_MAX: usize = 16;
/// Markets one reader's history is merged from at most: each costs a search at its start, all together some ten
/// milliseconds.
const FEEDS_MAX: usize = 10_000;
/// Rows of one kind that wait in memory for one reader's history.
const BUFFERED_ROWS: usize = 1 << 14;
/// Entries in one page at most: 45 KiB of ticks.
const ENTRIES_PER_PAGE: usize = 512;
/// Entries looked at in one slice: about 250 µs.
const ENTRIES_PER_SLICE: usize = 2048;
/// Entries a shard keeps at hand while anybody tails it: 1.5 MiB.
const AT_HAND_MAX: usize = 1 << 14;

/// Where an entry stands in the stream. **Order:** the stream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    tx: Tx,
    /// The tick's place within its transaction; 0 for others.
    n: u32,
    /// The market's number within the shard.
    market: u32,
    /// The row's number within the market.
    number: u32,
}

impl Place {
    const fn behind(tx: Tx) -> Self {
        Self { tx, n: u32::MAX, market: u32::MAX, number: u32::MAX }
    }
}

/// One entry of the stream.
#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    kind: Attribute,
    /// A tick or a quote; nothing for others.
    row: [u64; 8],
}

/// What a reader asks for.
#[derive(Debug)]
struct Wanted {
    kinds: u32,
    entity: EntityId,
    scope: Scope,
    /// A bit per market of the shard, as far as they were looked at.
    markets: Vec<u64>,
    looked_at: u32,
}

impl Wanted {
    fn kind(&self, kind: Attribute) -> bool {
        self.kinds == 0 || self.kinds & TailAsk::bit(kind) != 0
    }

    /// Looks at the markets that came since.
    fn look(&mut self, markets: &Markets) {
        while let Some(market) = markets.get(self.looked_at) {
            if self.looked_at.is_multiple_of(64) {
                self.markets.push(0);
            }
            if self.may_have(market)
                && let Some(word) = self.markets.last_mut()
            {
                *word |= 1 << (self.looked_at % 64);
            }
            self.looked_at += 1;
        }
    }

    /// Whether entries of this market can be wanted: a trader's may be in any.
    fn may_have(&self, market: &Market) -> bool {
        (!self.by_market() || market.id == self.entity) && self.scope.matches(&market.name)
    }

    fn by_market(&self) -> bool {
        self.entity.kind() == Some(Kind::Market)
    }

    fn entry(&self, entry: &Entry) -> bool {
        let market = entry.place.market;
        let bit = self.markets.get((market / 64) as usize).is_some_and(|word| word & 1 << (market % 64) != 0);
        let about = self.entity == EntityId::NONE
            || self.by_market()
            || (entry.kind == Attribute::Tick && bytemuck::cast::<_, Tick>(entry.row).trader == self.entity);
        bit && about && self.kind(entry.kind)
    }
}

/// A reader's way through history.
#[derive(Debug)]
struct History {
    ticks: Interleave<Tick>,
    quotes: Interleave<Quote>,
    /// The next row of either, read ahead to see whose turn it is.
    next_tick: Option<Entry>,
    next_quote: Option<Entry>,
    /// The next market whose creation is an entry.
    next_market: u32,
    /// Markets that have a feed if they are wanted.
    markets: u32,
    basis: Tx,
}

#[derive(Debug)]
struct Reader {
    conn: ConnId,
    /// The session and request of its `Tail`, told with every page.
    session: u64,
    request: u64,
    wanted: Wanted,
    credit: u32,
    /// The next entry to look at, counted from the first since the start.
    next: u64,
    /// The last entry it looked at, or the place it began behind.
    last: Place,
    history: Option<Box<History>>,
    /// It has to go through history from `last`, and waits for its turn.
    behind: bool,
}

/// Who goes through history, while pages are given out.
struct Turn {
    /// Somebody waits for a place.
    waiting: bool,
    histories: usize,
}

/// The entries at hand, and who reads.
#[derive(Debug)]
pub struct Tails {
    list: Vec<Reader>,
    at_hand: VecDeque<Entry>,
    /// The number of the first entry at hand.
    first: u64,
    /// Memory of [`Tails::stored`].
    placed: Vec<Place>,
    max: usize,
}

impl Tails {
    /// Nobody reads yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let max = limits.subscriptions_per_shard;
        Self { list: Vec::new(), at_hand: VecDeque::new(), first: 0, placed: Vec::new(), max }
    }

    /// How many read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Lets a reader of this connection have `count` more entries.
    pub fn grant(&mut self, conn: ConnId, session: u64, count: u32) {
        for reader in self.list.iter_mut().filter(|one| one.conn == conn && one.session == session) {
            reader.credit = reader.credit.saturating_add(count);
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.list.retain(|reader| reader.conn != conn);
        self.forget_entries();
    }

    /// What nobody reads is not kept.
    fn forget_entries(&mut self) {
        if self.list.is_empty() {
            self.first = self.end();
            self.at_hand = VecDeque::new();
        }
    }

    fn end(&self) -> u64 {
        self.first + self.at_hand.len() as u64
    }

    fn keep(&mut self, entry: Entry) {
        if self.at_hand.len() == AT_HAND_MAX {
            self.at_hand.pop_front();
            self.first += 1;
        }
        self.at_hand.push_back(entry);
    }

    /// Rows that were just stored. **Cost:** nothing while nobody reads.
    pub fn stored<R: ColumnRow>(&mut self, columns: &Columns<R>, tx: Tx, rows: &[R], verdicts: &[Verdict]) {
        if self.list.is_empty() {
            return;
        }
        let mut placed = std::mem::take(&mut self.placed);
        placed.clear();
        for (n, (row, verdict)) in (0_u32..).zip(rows.iter().zip(verdicts)) {
            if *verdict == Verdict::New
                && let Some(market) = columns.market_ix(row.market())
            {
                placed.push(Place { tx, n, market: market.number(), number: 0 });
            }
        }
        placed.sort_unstable_by_key(|place| (place.market, place.n));
        for of_market in placed.chunk_by_mut(|a, b| a.market == b.market) {
            let market = columns.market_ix(rows[of_market[0].n as usize].market());
            // All of its rows: what was inserted last stands last.
            let Some(Ok(view)) = market.map(|market| columns.view(market, Tx::MAX)) else { continue };
            let first = view.end_row() - of_market.len() as u32;
            (first..).zip(of_market).for_each(|(number, place)| place.number = number);
        }
        let places = R::KIND == Kind::Tick;
        if places {
            placed.sort_unstable_by_key(|place| place.n);
        }
        for place in &placed {
            let row = bytemuck::cast(rows[place.n as usize]);
            let place = Place { n: if places { place.n } else { 0 }, ..*place };
            self.keep(Entry { place, kind: attribute_of::<R>(), row });
        }
        self.placed = placed;
    }

    /// A market that was just created.
    pub fn created(&mut self, tx: Tx, market: u32) {
        if !self.list.is_empty() {
            self.keep(market_entry(tx, market));
        }
    }
}

fn attribute_of<R: ColumnRow>() -> Attribute {
    if R::KIND == Kind::Tick { Attribute::Tick } else { Attribute::Quote }
}

fn market_entry(tx: Tx, market: u32) -> Entry {
    Entry { place: Place { tx, n: 0, market, number: market }, kind: Attribute::Market, row: [0; 8] }
}

impl Shard {
    /// `Tail`: body as [`TailAsk`], `count` the first credit. The answer says that nothing behind `since` is missed.
    pub(super) fn tail(&mut self, from: ConnId, frame: &Frame<'_>) -> Result<(), ShardError> {
        let header: &Header = &frame.header;
        match self.begin_tail(from, frame) {
            Ok(reader) => {
                self.tails.list.push(reader);
                let said = Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() };
                self.say(from, header.session, header.request, self.group.applied_tx(), said);
            }
            Err(ReplayError::Refused(refusal)) => self.refuse(from, header, refusal),
            Err(ReplayError::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    fn begin_tail(&self, from: ConnId, frame: &Frame<'_>) -> Result<Reader, ReplayError> {
        let (since, mut wanted) = read_ask(frame.body)?;
        let busy = self.tails.list.iter().filter(|one| one.history.is_some()).count();
        let applied = self.group.applied_tx();
        let live = since == FROM_NOW || Tx::from_bits(since) >= applied;
        if self.tails.list.len() + self.subscribers.count() >= self.tails.max || (!live && busy >= HISTORIES_MAX) {
            return Err(Refusal::of(Code::TooMany).into());
        }
        wanted.look(&self.markets);
        let last = Place::behind(if live { applied } else { Tx::from_bits(since) });
        let history = if live { None } else { Some(Box::new(self.history(&wanted, last)?)) };
        Ok(Reader {
            conn: from,
            session: frame.header.session,
            request: frame.header.request,
            wanted,
            credit: frame.header.count,
            next: self.tails.end(),
            last,
            history,
            behind: false,
        })
    }

    /// The way from behind a place through history. **Errors:** `Compacted` when something behind it is gone.
    fn history(&self, wanted: &Wanted, after: Place) -> Result<History, ReplayError> {
        // Behind the middle of a transaction: it is read again from its beginning, and what was given is passed over.
        let whole = if after.n == u32::MAX { after.tx } else { Tx::from_bits(after.tx.bits().saturating_sub(1)) };
        let (mut ticks, mut quotes) = (Vec::new(), Vec::new());
        for market in self.markets.iter().filter(|market| wanted.may_have(market)) {
            if wanted.kind(Attribute::Tick) {
                ticks.extend(first_row(&self.ticks, market.id, whole)?);
            }
            if wanted.kind(Attribute::Quote) {
                quotes.extend(first_row(&self.quotes, market.id, whole)?);
            }
            if ticks.len().max(quotes.len()) > FEEDS_MAX {
                return Err(Refusal::of(Code::TooMany).into());
            }
        }
        let mut history = History {
            ticks: Interleave::new(ticks.into_iter(), BUFFERED_ROWS),
            quotes: Interleave::new(quotes.into_iter(), BUFFERED_ROWS),
            next_tick: None,
            next_quote: None,
            next_market: self.markets.count_as_of(whole) as u32,
            markets: self.markets.len() as u32,
            basis: Tx::ZERO,
        };
        self.next_stretch(wanted, &mut history)?;
        Ok(history)
    }

    /// Goes on with what was applied meanwhile. False when nothing was.
    fn next_stretch(&self, wanted: &Wanted, history: &mut History) -> Result<bool, ReplayError> {
        let applied = self.group.applied_tx();
        if history.basis == applied {
            return Ok(false);
        }
        while let Some(market) = self.markets.get(history.markets) {
            history.markets += 1;
            if !wanted.may_have(market) {
                continue;
            }
            if let Some(ix) = self.ticks.market_ix(market.id).filter(|_| wanted.kind(Attribute::Tick)) {
                history.ticks.add(ix);
            }
            if let Some(ix) = self.quotes.market_ix(market.id).filter(|_| wanted.kind(Attribute::Quote)) {
                history.quotes.add(ix);
            }
        }
        history.basis = applied;
        history.ticks.go_on(&self.ticks, applied)?;
        history.quotes.go_on(&self.quotes, applied)?;
        history.next_tick = next_row(&self.ticks, &mut history.ticks)?;
        history.next_quote = next_row(&self.quotes, &mut history.quotes)?;
        Ok(true)
    }

    /// The next entry of this stretch.
    fn next_entry(&self, history: &mut History) -> Result<Option<Entry>, ReplayError> {
        let market = self.markets.get(history.next_market).filter(|market| market.created <= history.basis);
        let market = market.map(|market| market_entry(market.created, history.next_market));
        let first =
            [history.next_tick, history.next_quote, market].into_iter().flatten().min_by_key(|one| one.place.tx);
        match first.map(|entry| entry.kind) {
            Some(Attribute::Tick) => {
                history.next_tick = next_row(&self.ticks, &mut history.ticks)?;
            }
            Some(Attribute::Quote) => {
                history.next_quote = next_row(&self.quotes, &mut history.quotes)?;
            }
            Some(Attribute::Market) => history.next_market += 1,
            None => {}
        }
        Ok(first)
    }

    /// Pages go out as far as credit reaches. True when there is more.
    pub(super) fn push_tails(&mut self) -> Result<bool, ShardError> {
        let mut turn = Turn {
            waiting: self.tails.list.iter().any(|one| one.behind),
            histories: self.tails.list.iter().filter(|one| one.history.is_some()).count(),
        };
        let mut more = false;
        let mut at = 0;
        while at < self.tails.list.len() {
            match self.push_tail(at, &mut turn) {
                Ok(further) => {
                    more |= further;
                    at += 1;
                }
                Err(ReplayError::Failed(error)) => return Err(error),
                Err(ReplayError::Refused(refusal)) => {
                    let one = self.tails.list.swap_remove(at);
                    self.tails.forget_entries();
                    let said = Said::Ended { code: refusal.code, oldest: refusal.aux };
                    self.say(one.conn, one.session, one.request, Tx::ZERO, said);
                }
            }
        }
        Ok(more)
    }

    /// One page for one reader. True when another could follow at once.
    fn push_tail(&mut self, at: usize, turn: &mut Turn) -> Result<bool, ReplayError> {
        let first = self.tails.first;
        let reader = &mut self.tails.list[at];
        if reader.credit == 0 {
            // It gives its place among those who read history to others; where it was is known.
            if turn.waiting && reader.history.take().is_some() {
                turn.histories -= 1;
                reader.behind = true;
            }
            return Ok(false);
        }
        reader.behind |= reader.history.is_none() && reader.next < first;
        if reader.behind {
            if turn.histories >= HISTORIES_MAX {
                return Ok(false);
            }
            turn.histories += 1;
            // Markets that came while it was behind are part of the history it goes back to.
            self.tails.list[at].wanted.look(&self.markets);
            let history = self.history(&self.tails.list[at].wanted, self.tails.list[at].last)?;
            let reader = &mut self.tails.list[at];
            (reader.history, reader.behind) = (Some(Box::new(history)), false);
            return Ok(true);
        }
        match reader.history.take() {
            Some(history) => self.push_history(at, history),
            None => Ok(self.push_live(at)),
        }
    }

    /// A page from history; at its end the reader is live.
    fn push_history(&mut self, at: usize, mut history: Box<History>) -> Result<bool, ReplayError> {
        let (mut page, mut count) = (Vec::new(), 0_u32);
        let reader = &self.tails.list[at];
        let (room, mut last) = (reader.credit.min(ENTRIES_PER_PAGE as u32), reader.last);
        let mut live = false;
        for _ in 0..ENTRIES_PER_SLICE {
            if count == room {
                break;
            }
            match self.next_entry(&mut history)? {
                Some(entry) if entry.place > last => {
                    last = entry.place;
                    if self.tails.list[at].wanted.entry(&entry) {
                        write(&self.markets, &mut page, &entry);
                        count += 1;
                    }
                }
                Some(_) => {}
                None => {
                    self.tails.list[at].wanted.look(&self.markets);
                    if !self.next_stretch(&self.tails.list[at].wanted, &mut history)? {
                        live = true;
                        break;
                    }
                }
            }
        }
        let end = self.tails.end();
        let reader = &mut self.tails.list[at];
        reader.last = last;
        if live {
            reader.next = end;
        } else {
            reader.history = Some(history);
        }
        self.say_page(at, page, count, true);
        Ok(true)
    }

    /// A page of what is at hand.
    fn push_live(&mut self, at: usize) -> bool {
        let Self { tails, markets, .. } = self;
        let (first, end) = (tails.first, tails.end());
        let reader = &mut tails.list[at];
        if reader.next == end {
            return false;
        }
        reader.wanted.look(markets);
        let (mut page, mut count) = (Vec::new(), 0_u32);
        let room = reader.credit.min(ENTRIES_PER_PAGE as u32);
        let upto = end.min(reader.next + ENTRIES_PER_SLICE as u64);
        while reader.next < upto && count < room {
            let entry = &tails.at_hand[(reader.next - first) as usize];
            reader.next += 1;
            reader.last = entry.place;
            if reader.wanted.entry(entry) {
                write(markets, &mut page, entry);
                count += 1;
            }
        }
        let more = reader.next < end && reader.credit > count;
        self.say_page(at, page, count, false);
        more
    }

    fn say_page(&mut self, at: usize, body: Vec<u8>, count: u32, replayed: bool) {
        if count == 0 {
            return;
        }
        let reader = &mut self.tails.list[at];
        reader.credit -= count;
        let (to, session, request, tx) = (reader.conn, reader.session, reader.request, reader.last.tx);
        let applied = self.group.applied_tx().bits();
        self.say(to, session, request, tx, Said::Tailed { count, replayed, applied, body });
    }
}

/// Where a market's rows of later transactions begin. **Errors:** `Compacted`.
fn first_row<R: ColumnRow>(
    columns: &Columns<R>,
    market: EntityId,
    since: Tx,
) -> Result<Option<(MarketIx, u32)>, ReplayError> {
    let Some(ix) = columns.market_ix(market) else { return Ok(None) };
    let gone = columns.kept(ix).gone;
    if since < gone {
        return Err(Refusal { aux: gone.bits(), ..Refusal::of(Code::Compacted) }.into());
    }
    Ok(Some((ix, columns.row_after(ix, since)?)))
}

/// The next row of a merge, as an entry.
fn next_row<R: ColumnRow>(columns: &Columns<R>, merge: &mut Interleave<R>) -> Result<Option<Entry>, ReplayError> {
    let Some((feed, found)) = merge.next(columns)? else { return Ok(None) };
    let place = Place { tx: found.tx, n: found.n, market: merge.market(feed).number(), number: found.number };
    Ok(Some(Entry { place, kind: attribute_of::<R>(), row: bytemuck::cast(found.row) }))
}

fn write(markets: &Markets, out: &mut Vec<u8>, entry: &Entry) {
    let Place { tx, n, market, number } = entry.place;
    match (entry.kind, markets.get(market)) {
        (Attribute::Market, Some(created)) => {
            write_tail_market(out, tx.bits(), number, created.id, created.flags, &created.name);
        }
        _ => write_tail_row(out, entry.kind, tx.bits(), n, number, &entry.row),
    }
}

/// Reads the body of a `Tail`.
fn read_ask(body: &[u8]) -> Result<(u64, Wanted), Refusal> {
    let bad = |_: Short| Refusal::of(Code::BadBody);
    let mut cursor = Cursor::new(body);
    let (since, kinds) = (cursor.u64().map_err(bad)?, cursor.u32().map_err(bad)?);
    let (zero, entity) = (cursor.u32().map_err(bad)?, cursor.u64().map_err(bad)?);
    let mut rest = cursor.rest();
    let scope = Scope::decode(&mut rest).map_err(|_| Refusal::of(Code::BadBody))?;
    let all = [Attribute::Tick, Attribute::Quote, Attribute::Market].into_iter().map(TailAsk::bit).sum::<u32>();
    if zero != 0 || !rest.is_empty() || scope.check().is_err() {
        return Err(Refusal::of(Code::BadBody));
    }
    if kinds & !all != 0 {
        return Err(Refusal::of(Code::UnknownAttribute));
    }
    let entity = EntityId::from_bits(entity);
    Ok((since, Wanted { kinds, entity, scope, markets: Vec::new(), looked_at: 0 }))
}
