//! Writes: split by the slot table, numbered by the session, answered part by part.
//!
//! ```text
//!   ticks(rows) -> parts -> send (pipelined) -> Sent -> wait -> [ Part { shard, Done | Refused | Unknown } ]
//! ```
//!
//! Each part is atomic on its shard and is executed at most once, however often the line is cut. Repeating a whole call is
//! safe where rows carry ids. Deliberately absent: atomicity across shards.

use crate::client::Client;
use crate::driver::Command;
use crate::error::{Error, Lost, Refusal};
use crate::session::{Fate, Reply, Write};
use crate::split::{PartRows, Places, split};
use myelin_datom::{EntityId, Quote, Row, Tick, Tx};
use myelin_wire::{AckBody, Code, Cursor, Header, Kind, MarketSpec, markets_body};
use tokio::sync::oneshot;

/// What happens to a frame one row of which is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The whole part is refused; nothing of it is stored.
    #[default]
    Whole,
    /// The good rows are stored, and each row has its verdict.
    Partial,
}

/// What became of one row, where that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowVerdict {
    /// Stored.
    Stored,
    /// It was there already, byte for byte.
    Duplicate,
    /// Refused with this code.
    Refused(u16),
}

/// Durable and applied.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ack {
    /// The part's transaction.
    pub tx: Tx,
    /// Rows stored, or items done.
    pub accepted: u32,
    /// Rows that were there already, byte for byte.
    pub duplicates: u32,
    /// Rows refused; only [`Mode::Partial`].
    pub refused: u32,
    /// The first refused row, counted in the caller's batch, and its code.
    pub first_bad: Option<(u32, u16)>,
    /// One per row of the part, in its order; only [`Mode::Partial`], and empty when the answer is a repeated one.
    pub verdicts: Vec<RowVerdict>,
}

/// How a part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable and applied.
    Done(Ack),
    /// Nothing of it was stored.
    Refused(Refusal),
    /// Nobody knows.
    Unknown(Lost),
    /// It could not be sent; nothing of it was stored.
    NotSent(String),
}

/// One frame of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The shard it went to.
    pub shard: u16,
    /// Its rows.
    pub rows: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// A part that is under way.
#[derive(Debug)]
pub struct SentPart {
    shard: u16,
    rows: u32,
    places: Places,
    from: oneshot::Receiver<Fate>,
}

impl SentPart {
    /// Waits for its end.
    pub async fn wait(self) -> Part {
        let Self { shard, rows, places, from } = self;
        let outcome = match from.await {
            Ok(Fate::Answered(reply)) => read_ack(&reply, &places),
            Ok(Fate::Refused(mut refusal)) => {
                refusal.first_bad = refusal.first_bad.map(|n| places.of(n));
                Outcome::Refused(refusal)
            }
            Ok(Fate::Unknown(lost)) => Outcome::Unknown(lost),
            Ok(Fate::NotSent(why)) => Outcome::NotSent(why),
            Err(_) => Outcome::Unknown(Lost::Connection),
        };
        Part { shard, rows, outcome }
    }
}

/// A batch that is under way.
#[derive(Debug, Default)]
pub struct Sent {
    /// Its parts, in the order they were sent.
    pub parts: Vec<SentPart>,
}

impl Sent {
    /// Waits for the end of every part.
    pub async fn wait(self) -> Vec<Part> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            parts.push(part.wait().await);
        }
        parts
    }
}

/// Markets that a node creates by one frame at most.
const MARKETS_PER_FRAME: usize = 4096;

/// One shard's names in one body, each with where it stood.
struct PartNames {
    shard: u16,
    places: Vec<u32>,
    body: Vec<u8>,
}

impl Client {
    /// Sends ticks and waits for the outcome of every part. **Errors:** see [`Client::send_ticks`].
    pub async fn ticks(&self, ticks: &[Tick], mode: Mode) -> Result<Vec<Part>, Error> {
        Ok(self.send_ticks(ticks, mode).await?.wait().await)
    }

    /// Sends quotes and waits for the outcome of every part. **Errors:** see [`Client::send_ticks`].
    pub async fn quotes(&self, quotes: &[Quote], mode: Mode) -> Result<Vec<Part>, Error> {
        Ok(self.send_quotes(quotes, mode).await?.wait().await)
    }

    /// Queues ticks and returns as soon as there is room for them: the way to pipeline. Order is that of the calls.
    ///
    /// **Errors:** a row without shape (`Refused`, with [`Mode::Whole`]; nothing was sent); a connection that cannot be
    /// opened. What happens later is in the outcomes.
    pub async fn send_ticks(&self, ticks: &[Tick], mode: Mode) -> Result<Sent, Error> {
        self.send_rows(Kind::Ticks, ticks, mode).await
    }

    /// Queues quotes, as [`Client::send_ticks`] does ticks.
    pub async fn send_quotes(&self, quotes: &[Quote], mode: Mode) -> Result<Sent, Error> {
        self.send_rows(Kind::Quotes, quotes, mode).await
    }

    async fn send_rows<R: Row>(&self, kind: Kind, rows: &[R], mode: Mode) -> Result<Sent, Error> {
        let whole = mode == Mode::Whole;
        let parts = split(rows, whole, self.welcome(), self.options().rows_per_frame).map_err(Error::Refused)?;
        let flags = if whole { 0 } else { Header::PARTIAL };
        let mut sent = Sent::default();
        for PartRows { shard, rows, body, places } in parts {
            let from = self.send(kind, shard, flags, rows, body).await?;
            sent.parts.push(SentPart { shard, rows, places, from });
        }
        Ok(sent)
    }

    pub(crate) async fn send(
        &self,
        kind: Kind,
        shard: u16,
        flags: u16,
        count: u32,
        body: Vec<u8>,
    ) -> Result<oneshot::Receiver<Fate>, Error> {
        let (ticket, from) = Self::waiter(Some(self.room(body.len()).await?));
        self.command(shard, Command::Write { shard, write: Write { ticket, kind, flags, count, body } }).await?;
        Ok(from)
    }

    /// Creates the markets that do not exist and gives the ids of all, in the caller's order.
    ///
    /// **Errors:** `Refused` with the first bad name; what other shards did before stays, and repeating is safe.
    pub async fn markets(&self, markets: &[MarketSpec<'_>]) -> Result<Vec<EntityId>, Error> {
        let parts = self.split_markets(markets)?;
        let mut sent = Vec::with_capacity(parts.len());
        for PartNames { shard, places, body } in parts {
            let from = self.send(Kind::Markets, shard, 0, places.len() as u32, body).await?;
            sent.push((places, from));
        }
        let mut ids = vec![EntityId::NONE; markets.len()];
        for (places, from) in sent {
            let reply = answered(from, |n| places.get(n as usize).copied().unwrap_or(n)).await?;
            let mut cursor = Cursor::new(&reply.body);
            for place in places {
                let id = cursor.u64().map_err(|_| Error::short("the market ids"))?;
                ids[place as usize] = EntityId::from_bits(id);
            }
        }
        Ok(ids)
    }

    /// Names by shard, in bodies that fit.
    fn split_markets(&self, markets: &[MarketSpec<'_>]) -> Result<Vec<PartNames>, Error> {
        let mut parts: Vec<PartNames> = Vec::new();
        for (n, spec) in markets.iter().enumerate() {
            let n = n as u32;
            let own = |code| Error::Refused(Refusal::own(code, 0, Some(n)));
            myelin_datom::MarketName::new(spec.name).map_err(|_| own(Code::BadName))?;
            let shard = self.shard_of_name(spec.name).ok_or_else(|| own(Code::WrongShard))?;
            let mut item = Vec::new();
            markets_body(&mut item, [*spec]);
            let max_body = self.welcome().max_body as usize;
            let fits =
                |part: &PartNames| part.places.len() < MARKETS_PER_FRAME && part.body.len() + item.len() <= max_body;
            match parts.iter_mut().rev().find(|part| part.shard == shard).filter(|part| fits(part)) {
                Some(part) => {
                    part.places.push(n);
                    part.body.extend_from_slice(&item);
                }
                None => parts.push(PartNames { shard, places: vec![n], body: item }),
            }
        }
        Ok(parts)
    }

    /// Registers reflexes, encoded as the node reads them, on every shard, and says at which `tx` each shard did.
    /// **Errors:** the first shard's that refused.
    pub async fn register(&self, registrations: &[u8], count: u32) -> Result<Vec<(u16, Tx)>, Error> {
        let acks = self.everywhere(Kind::Register, registrations, count).await?;
        Ok((0..).zip(acks).map(|(shard, ack)| (shard, ack.tx)).collect())
    }

    /// Removes reflexes on every shard and says how many stood on at least one.
    pub async fn remove(&self, ids: &[u64]) -> Result<u32, Error> {
        let body: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let acks = self.everywhere(Kind::Remove, &body, ids.len() as u32).await?;
        Ok(acks.iter().map(|ack| ack.accepted).max().unwrap_or_default())
    }

    async fn everywhere(&self, kind: Kind, body: &[u8], count: u32) -> Result<Vec<Ack>, Error> {
        if body.len() > self.welcome().max_body as usize {
            return Err(Error::Refused(Refusal::own(Code::Oversize, 0, None)));
        }
        let mut sent = Vec::new();
        for shard in 0..self.shards() {
            sent.push(self.send(kind, shard, 0, count, body.to_vec()).await?);
        }
        // All are waited for, also when one of them was refused.
        let mut acks = Vec::new();
        for from in sent {
            acks.push(answered(from, |n| n).await.map(|reply| match read_ack(&reply, &Places::From(0)) {
                Outcome::Done(ack) => ack,
                _ => Ack::default(),
            }));
        }
        acks.into_iter().collect()
    }
}

/// Waits for an answer that is all or nothing.
pub(crate) async fn answered(from: oneshot::Receiver<Fate>, place: impl Fn(u32) -> u32) -> Result<Reply, Error> {
    match from.await {
        Ok(Fate::Answered(reply)) => Ok(reply),
        Ok(Fate::Refused(mut refusal)) => {
            refusal.first_bad = refusal.first_bad.map(place);
            Err(Error::Refused(refusal))
        }
        Ok(Fate::Unknown(lost)) => Err(Error::Unknown(lost)),
        Ok(Fate::NotSent(reason)) => Err(Error::Unreachable { addr: "the node".to_owned(), reason }),
        Err(_) => Err(Error::Closed),
    }
}

/// What the rows' own verdict is for one that was there already.
const DUPLICATE: u16 = 0xffff;

fn read_ack(reply: &Reply, places: &Places) -> Outcome {
    let (tx, accepted) = (Tx::from_bits(reply.header.tx), reply.header.count);
    let Some((head, verdicts)) = reply.body.split_at_checked(size_of::<AckBody>()) else {
        return Outcome::Done(Ack { tx, accepted, ..Ack::default() });
    };
    let body: AckBody = bytemuck::pod_read_unaligned(head);
    let verdict = |bytes: &[u8; 2]| match u16::from_le_bytes(*bytes) {
        0 => RowVerdict::Stored,
        DUPLICATE => RowVerdict::Duplicate,
        code => RowVerdict::Refused(code),
    };
    Outcome::Done(Ack {
        tx,
        accepted,
        duplicates: body.duplicates,
        refused: body.refused,
        first_bad: (body.first_bad != u32::MAX).then(|| (places.of(body.first_bad), body.first_code as u16)),
        verdicts: verdicts.as_chunks::<2>().0.iter().map(verdict).collect(),
    })
}
