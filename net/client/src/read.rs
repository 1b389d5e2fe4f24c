//! Reads: of one shard, or of all at one cut.
//!
//! ```text
//!   as_of given                  every shard is asked at that T
//!   not given, one shard         plainly: the last applied tx, not before min_tx
//!   not given, several shards    T = the greatest of the shards' clocks and min_tx; then every shard at T
//! ```
//!
//! Every answer carries the `tx` it was given at. Deliberately absent: writes that look like reads: an unknown market is
//! refused, never created.

use crate::client::Client;
use crate::driver::Command;
use crate::error::{Error, Refusal};
use crate::link::Read;
use crate::session::Reply;
use crate::write::answered;
use bytemuck::AnyBitPattern;
use myelin_datom::{EntityId, Quote, Row, Tick, Tx};
use myelin_exact::Totals;
use myelin_wire::{
    Attribute, BarRow, Code, Cursor, Header, Kind, MarketRow, StoredRow, TopAsk, TopRow, VwapRow, read_market_rows,
};

/// When to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct At {
    /// As of this transaction; else now.
    pub as_of: Option<Tx>,
    /// Not before this one: what was acked up to it is seen. Counts for nothing beside `as_of`.
    pub min_tx: Option<Tx>,
}

/// Which rows of a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// From this row on, counted within the market.
    pub from_row: u32,
    /// Rows of later transactions only.
    pub since: Tx,
    /// Event time from here on. **Units:** Unix nanoseconds.
    pub from_ns: i64,
    /// Event time up to this, included. **Units:** Unix nanoseconds.
    pub to_ns: i64,
    /// Rows of a page at most; the node has its own bound.
    pub limit: u32,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { from_row: 0, since: Tx::ZERO, from_ns: i64::MIN, to_ns: i64::MAX, limit: 8192 }
    }
}

/// A row of a market, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<R> {
    /// The transaction that brought it.
    pub tx: Tx,
    /// Its place within that, from 0; of a quote always 0.
    pub n: u32,
    /// Its number within the market, from 0.
    pub number: u32,
    /// The row.
    pub row: R,
}

/// Rows in the order in which they were applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<R> {
    /// The page.
    pub rows: Vec<Placed<R>>,
    /// What to ask for next; `None` at the end.
    pub next: Option<Stretch>,
}

impl At {
    /// Now.
    pub const NOW: Self = Self { as_of: None, min_tx: None };

    /// As of `tx`.
    #[must_use]
    pub const fn as_of(tx: Tx) -> Self {
        Self { as_of: Some(tx), min_tx: None }
    }

    /// True when a market was pruned between the moment that was taken and the answer, and a later moment will do: the
    /// caller named none.
    fn may_ask_again<T>(self, asked: &Result<T, Error>, tried: usize) -> bool {
        let pruned = matches!(asked, Err(Error::Refused(refusal)) if refusal.code == Some(Code::BelowHorizon));
        pruned && self.as_of.is_none() && tried < MOMENTS
    }
}

/// An answer and the moment it was given at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The transaction it is as of.
    pub basis: Tx,
}

/// What one shard has counted about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: u16,
    /// Name and number, in the node's order.
    pub counters: Vec<(String, u64)>,
}

/// Moments that are tried when one is pruned away under a question: a market is pruned about once a second.
const MOMENTS: usize = 4;

/// A page of ticks.
pub type TickPage = Page<Tick>;

/// Rows that a market has.
pub trait MarketRows: Row {
    /// Which of the two kinds.
    const ATTRIBUTE: Attribute;
}

impl MarketRows for Tick {
    const ATTRIBUTE: Attribute = Attribute::Tick;
}

impl MarketRows for Quote {
    const ATTRIBUTE: Attribute = Attribute::Quote;
}

impl Client {
    /// Asks one shard anything: a read of `header.kind`. The raw form of all others.
    pub async fn ask(&self, header: Header, body: Vec<u8>) -> Result<Reply, Error> {
        let (ticket, from) = Self::waiter(None);
        self.command(header.shard, Command::Read(Read { ticket, header, body })).await?;
        answered(from, |n| n).await
    }

    /// Asks every shard, all at the same time; answers in the order of shards.
    async fn ask_all(&self, header: Header, body: &[u8]) -> Result<Vec<Reply>, Error> {
        let mut asked = Vec::new();
        for shard in 0..self.shards() {
            let (ticket, from) = Self::waiter(None);
            let read = Read { ticket, header: Header { shard, ..header }, body: body.to_vec() };
            self.command(shard, Command::Read(read)).await?;
            asked.push(from);
        }
        let mut replies = Vec::new();
        for from in asked {
            replies.push(answered(from, |n| n).await?);
        }
        Ok(replies)
    }

    /// A moment that every shard can be read at, not below anything that was acked before the call.
    pub async fn now(&self) -> Result<Tx, Error> {
        let replies = self.ask_all(Header::new(Kind::Now), &[]).await?;
        let now = replies.iter().map(|reply| reply.header.tx).max().unwrap_or_default();
        if replies.len() > 1 {
            // The others stamp later than it, too, from here on.
            self.ask_all(Header { tx: now, ..Header::new(Kind::Now) }, &[]).await?;
        }
        Ok(Tx::from_bits(now))
    }

    /// Asks every shard at one moment; again at a later one when a market was pruned in between.
    async fn ask_all_at(&self, kind: Kind, at: At, body: &[u8]) -> Result<Vec<Reply>, Error> {
        let mut tried = 0;
        loop {
            let asked = self.ask_all(self.cut(kind, at).await?, body).await;
            tried += 1;
            if !at.may_ask_again(&asked, tried) {
                return asked;
            }
        }
    }

    /// The header of a read of all shards: one moment for all of them.
    async fn cut(&self, kind: Kind, at: At) -> Result<Header, Error> {
        let min_tx = at.min_tx.unwrap_or_default();
        let as_of = match at.as_of {
            Some(tx) => tx,
            None if self.shards() == 1 => Tx::ZERO,
            None => self.now().await?.max(min_tx),
        };
        Ok(Header { tx: as_of.bits(), aux: min_tx.bits(), ..Header::new(kind) })
    }

    /// The header of a read of one market's shard.
    fn of_market(&self, kind: Kind, market: EntityId, at: At) -> Result<Header, Error> {
        let shard = self.welcome().shard_of(market.slot());
        let shard = shard.ok_or_else(|| Error::Refused(Refusal::own(Code::WrongShard, 0, None)))?;
        let (tx, aux) = (at.as_of.unwrap_or_default().bits(), at.min_tx.unwrap_or_default().bits());
        Ok(Header { shard, tx, aux, ..Header::new(kind) })
    }

    /// Asks a market's shard; again at a later moment when the market was pruned in between.
    async fn ask_of(&self, kind: Kind, market: EntityId, at: At, body: Vec<u8>) -> Result<Reply, Error> {
        let header = self.of_market(kind, market, at)?;
        let mut tried = 0;
        loop {
            let asked = self.ask(header, body.clone()).await;
            tried += 1;
            if !at.may_ask_again(&asked, tried) {
                return asked;
            }
        }
    }

    /// How many rows have the attribute, over all markets or in one.
    pub async fn count(&self, attribute: Attribute, market: Option<EntityId>, at: At) -> Result<Answer<u64>, Error> {
        let id = market.unwrap_or(EntityId::NONE);
        let body = [(attribute as u64).to_le_bytes(), id.bits().to_le_bytes()].concat();
        let replies = match market {
            Some(market) => vec![self.ask_of(Kind::Count, market, at, body).await?],
            None => self.ask_all_at(Kind::Count, at, &body).await?,
        };
        Ok(Answer { value: replies.iter().map(|reply| reply.header.aux).sum(), basis: basis(&replies) })
    }

    /// All markets, by name.
    pub async fn list_markets(&self, at: At) -> Result<Vec<MarketRow>, Error> {
        let mut tried = 0;
        loop {
            let listed = self.list_markets_once(at).await;
            tried += 1;
            if !at.may_ask_again(&listed, tried) {
                return listed;
            }
        }
    }

    async fn list_markets_once(&self, at: At) -> Result<Vec<MarketRow>, Error> {
        let header = self.cut(Kind::ListMarkets, at).await?;
        let mut markets = Vec::new();
        for shard in 0..self.shards() {
            self.pages(Header { shard, ..header }, |page| {
                markets.extend(page);
                true
            })
            .await?;
        }
        markets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(markets)
    }

    /// The market of this name, if it exists. **Cost:** reads its shard's list.
    pub async fn find_market(&self, name: &str) -> Result<Option<MarketRow>, Error> {
        let Some(shard) = self.shard_of_name(name) else { return Ok(None) };
        let mut found = None;
        self.pages(Header { shard, ..Header::new(Kind::ListMarkets) }, |page| {
            found = page.into_iter().find(|market| market.name == name);
            found.is_none()
        })
        .await?;
        Ok(found)
    }

    async fn pages(&self, header: Header, mut take: impl FnMut(Vec<MarketRow>) -> bool) -> Result<(), Error> {
        let mut first = 0_u64;
        loop {
            let reply = self.ask(header, first.to_le_bytes().to_vec()).await?;
            let page = read_market_rows(&reply.body).map_err(|_| Error::short("a list of markets"))?;
            let more = reply.header.flags & Header::MORE != 0 && reply.header.aux > first;
            first = reply.header.aux;
            if !take(page) || !more {
                return Ok(());
            }
        }
    }

    /// Volume-weighted average price, of one market or of each.
    pub async fn vwap(&self, market: Option<EntityId>, at: At) -> Result<Answer<Vec<VwapRow>>, Error> {
        let body = market.unwrap_or(EntityId::NONE).bits().to_le_bytes().to_vec();
        let replies = match market {
            Some(market) => vec![self.ask_of(Kind::Vwap, market, at, body).await?],
            None => self.ask_all_at(Kind::Vwap, at, &body).await?,
        };
        let mut rows = Vec::new();
        for reply in &replies {
            rows.extend(rows_of::<VwapRow>(&reply.body, "averages")?);
        }
        Ok(Answer { value: rows, basis: basis(&replies) })
    }

    /// What ticks come to, of one market or of all shards as of one moment: how many, least and greatest price, sums that are
    /// exact until they are rounded. Ticks of event time `from_ns` to `to_ns`, both included, count.
    pub async fn totals(
        &self,
        market: Option<EntityId>,
        from_ns: i64,
        to_ns: i64,
        at: At,
    ) -> Result<Answer<Totals>, Error> {
        let mut body = market.unwrap_or(EntityId::NONE).bits().to_le_bytes().to_vec();
        [from_ns, to_ns].iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        let replies = match market {
            Some(market) => vec![self.ask_of(Kind::Totals, market, at, body).await?],
            None => self.ask_all_at(Kind::Totals, at, &body).await?,
        };
        let mut value = Totals::default();
        for reply in &replies {
            let part = Totals::read(&mut reply.body.as_slice());
            value.merge(&part.ok_or_else(|| Error::short("totals"))?);
        }
        Ok(Answer { value, basis: basis(&replies) })
    }

    /// The greatest markets by a measure, of all shards as of one moment, the greatest first; ticks of the event time asked
    /// for count. **Errors:** `TooMany` for none, or more than 4,096.
    pub async fn top(&self, ask: TopAsk, at: At) -> Result<Answer<Vec<TopRow>>, Error> {
        // Each shard its greatest; a market stands on one, so the greatest of all are among them.
        let replies = self.ask_all_at(Kind::Top, at, &ask.body()).await?;
        let mut rows = Vec::new();
        for reply in &replies {
            rows.extend(rows_of::<TopRow>(&reply.body, "the greatest markets")?);
        }
        rows.sort_unstable_by(|a, b| ask.by.rank(a, b));
        rows.truncate(usize::try_from(ask.limit).unwrap_or(usize::MAX));
        Ok(Answer { value: rows, basis: basis(&replies) })
    }

    /// Bars of one market over `event_time_ns` from `from_ns` to `to_ns`, both included, each `width_ns` long.
    pub async fn bars(
        &self,
        market: EntityId,
        width_ns: i64,
        from_ns: i64,
        to_ns: i64,
        at: At,
    ) -> Result<Answer<Vec<BarRow>>, Error> {
        let mut body = market.bits().to_le_bytes().to_vec();
        for number in [width_ns, from_ns, to_ns] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let reply = self.ask_of(Kind::Bars, market, at, body).await?;
        Ok(Answer { value: rows_of(&reply.body, "bars")?, basis: Tx::from_bits(reply.header.tx) })
    }

    /// The newest tick or quote of a market, if it has one.
    pub async fn newest<R: MarketRows>(&self, market: EntityId, at: At) -> Result<Answer<Option<Placed<R>>>, Error> {
        let body = [market.bits().to_le_bytes(), (R::ATTRIBUTE as u64).to_le_bytes()].concat();
        let reply = self.ask_of(Kind::Latest, market, at, body).await?;
        let rows = placed::<R>(&reply.body)?;
        Ok(Answer { value: rows.first().copied(), basis: Tx::from_bits(reply.header.tx) })
    }

    /// A page of a market's ticks: [`Client::rows_of`] of them.
    pub async fn ticks_of(&self, market: EntityId, stretch: Stretch, at: At) -> Result<Answer<TickPage>, Error> {
        self.rows_of(market, stretch, at).await
    }

    /// A page of a market's ticks or quotes, in the order in which they were applied. **Shape:** the page's rows, and the
    /// stretch that goes on behind them if there are more.
    pub async fn rows_of<R: MarketRows>(
        &self,
        market: EntityId,
        stretch: Stretch,
        at: At,
    ) -> Result<Answer<Page<R>>, Error> {
        let mut body = market.bits().to_le_bytes().to_vec();
        for number in [R::ATTRIBUTE as u64, u64::from(stretch.from_row), stretch.since.bits()] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        for number in [stretch.from_ns, stretch.to_ns, i64::from(stretch.limit)] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let reply = self.ask_of(Kind::Rows, market, at, body).await?;
        let rows = placed(&reply.body)?;
        let more = reply.header.flags & Header::MORE != 0;
        let next = more.then_some(Stretch { from_row: reply.header.aux as u32, ..stretch });
        Ok(Answer { value: Page { rows, next }, basis: Tx::from_bits(reply.header.tx) })
    }

    /// Every standing reflex: its id and the bytes of its spec and scope. A reflex stands on every shard, so one is asked.
    pub async fn list_reflexes(&self) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let mut reflexes = Vec::new();
        let mut after = 0_u64;
        loop {
            let reply = self.ask(Header::new(Kind::ListReflexes), after.to_le_bytes().to_vec()).await?;
            let mut cursor = Cursor::new(&reply.body);
            while !cursor.is_done() {
                let one = (|| {
                    let (id, _registered, len) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
                    cursor.take(len as usize).map(|asked| (id, asked.to_vec()))
                })();
                reflexes.push(one.map_err(|_| Error::short("a list of reflexes"))?);
            }
            if reply.header.flags & Header::MORE == 0 || reply.header.aux <= after {
                return Ok(reflexes);
            }
            after = reply.header.aux;
        }
    }

    /// What every shard has counted about itself.
    pub async fn status(&self) -> Result<Vec<ShardStatus>, Error> {
        let replies = self.ask_all(Header::new(Kind::Status), &[]).await?;
        Ok(replies.iter().map(read_status).collect())
    }
}

fn read_status(reply: &Reply) -> ShardStatus {
    let text = String::from_utf8_lossy(&reply.body);
    let counter = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    ShardStatus { shard: reply.header.shard, counters: text.lines().filter_map(counter).collect() }
}

fn basis(replies: &[Reply]) -> Tx {
    replies.iter().map(|reply| Tx::from_bits(reply.header.tx)).max().unwrap_or_default()
}

fn placed<R: MarketRows>(body: &[u8]) -> Result<Vec<Placed<R>>, Error> {
    let placed = |stored: StoredRow| {
        let StoredRow { tx, number, n, row } = stored;
        Placed { tx: Tx::from_bits(tx), n, number, row: bytemuck::cast(row) }
    };
    Ok(rows_of(body, "rows")?.into_iter().map(placed).collect())
}

pub(crate) fn rows_of<R: AnyBitPattern>(body: &[u8], what: &str) -> Result<Vec<R>, Error> {
    if !body.len().is_multiple_of(size_of::<R>()) {
        return Err(Error::short(what));
    }
    Ok(body.chunks_exact(size_of::<R>()).map(bytemuck::pod_read_unaligned).collect())
}
