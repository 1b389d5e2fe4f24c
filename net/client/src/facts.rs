//! Facts: transactions in, datoms out, of a partition, an entity, or every shard at one cut.
//!
//! ```text
//!   transact(partition, ops) -> its tx, whom tempids became        datoms(place, question, at, most) -> pages until enough
//! ```
//! A transaction is atomic on the shard of its partition and executed at most once. Deliberately absent: transactions over
//! several partitions; what a repeated answer does not tell (whom tempids became).

use crate::client::Client;
use crate::error::{Error, Refusal};
use crate::read::{Answer, At};
use crate::write::answered;
use myelin_datom::{AttributeName, Datom, Entity, EntityId, Slot, Transaction, Tx, Value, keyword_flaw};
use myelin_wire::{Code, DatomsAsked, FactsPage, Header, Kind, PullAsked, read_tempids};
use std::collections::BTreeMap;

/// What became of a transaction of facts: it is durable and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// Its number.
    pub tx: Tx,
    /// Datoms stored; what was there already is not stored again.
    pub datoms: u32,
    /// Whom tempids became; `None` when the line was cut and the answer is a repeated one: look them up as of `tx`.
    pub tempids: Option<Vec<(String, EntityId)>>,
}

/// Whose facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Of the partition of this name, or of the market.
    Partition(&'a str),
    /// Of the slot an entity says.
    Slot(Slot),
    /// Of every shard, at one moment; idents are those that every shard is born with.
    Everywhere,
}

/// Datoms, and what their attributes are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Idents by attribute.
    pub idents: BTreeMap<EntityId, String>,
    /// In the order asked for, shard by shard.
    pub datoms: Vec<Datom<'static>>,
    /// There are more than were asked for.
    pub more: bool,
}

impl Client {
    /// Performs a transaction, all or nothing. **Errors:** `Refused` with the op (`first_bad`) and the reason.
    pub async fn transact(&self, transaction: &Transaction<'_>) -> Result<Transacted, Error> {
        let mut body = Vec::new();
        transaction.write(&mut body);
        let own = |code, op| Error::Refused(Refusal::own(code, 0, op));
        if body.len() > self.welcome().max_body as usize {
            return Err(own(Code::Oversize, None));
        }
        // Read back as the node will: what it would refuse at the door costs no round trip.
        Transaction::read(&body).map_err(|error| own(Code::BadFact, (error.op != u32::MAX).then_some(error.op)))?;
        let shard = self.shard_of_name(&transaction.partition).ok_or_else(|| own(Code::WrongShard, None))?;
        let from = self.send(Kind::Transact, shard, 0, transaction.ops.len() as u32, body).await?;
        let reply = answered(from, |n| n).await?;
        let repeated = reply.header.aux != 0;
        let tempids = read_tempids(&reply.body).map_err(|_| Error::short("whom tempids became"))?;
        let tempids = (!repeated).then_some(tempids);
        Ok(Transacted { tx: Tx::from_bits(reply.header.tx), datoms: reply.header.count, tempids })
    }

    /// True when somebody installed an attribute of this name, on any shard.
    pub async fn is_attribute(&self, ident: &str) -> Result<bool, Error> {
        if keyword_flaw(ident).is_some() {
            return Ok(false);
        }
        let (a, v) = (Some(AttributeName::ident("db/ident")), Some(Value::keyword(ident)));
        let asked = DatomsAsked { order: 2, a, v, ..DatomsAsked::all(0) };
        Ok(!self.datoms(Place::Everywhere, &asked, At::NOW, 1).await?.value.datoms.is_empty())
    }

    /// Datoms of an order, `most` at most, a page at a time and all of one moment. The slot of the question is set here.
    pub async fn datoms(
        &self,
        place: Place<'_>,
        asked: &DatomsAsked<'_>,
        at: At,
        most: usize,
    ) -> Result<Answer<Facts>, Error> {
        let mut facts = Facts::default();
        let limit = u32::try_from(most).unwrap_or(u32::MAX).clamp(1, asked.limit.max(1));
        let asked = DatomsAsked { limit, ..asked.clone() };
        let basis = self.pages_of_datoms(place, &asked, at, |page, further| facts.take(page, further, most)).await?;
        Ok(Answer { value: facts, basis })
    }

    /// How many datoms of an order there are, all of one moment. **Cost:** they are read a page at a time, and none is kept.
    pub async fn count_datoms(&self, place: Place<'_>, asked: &DatomsAsked<'_>, at: At) -> Result<Answer<u64>, Error> {
        let mut count = 0;
        let counted = |page: FactsPage, _| {
            count += page.datoms.len() as u64;
            true
        };
        let basis = self.pages_of_datoms(place, asked, at, counted).await?;
        Ok(Answer { value: count, basis })
    }

    /// Gives pages to `take`, and whether there are more of that shard, until it has enough; gives the moment.
    async fn pages_of_datoms(
        &self,
        place: Place<'_>,
        asked: &DatomsAsked<'_>,
        at: At,
        mut take: impl FnMut(FactsPage, bool) -> bool,
    ) -> Result<Tx, Error> {
        let slot = match place {
            Place::Partition(name) => Slot::of_name(name),
            Place::Slot(slot) => slot,
            Place::Everywhere => {
                let moment = match at.as_of {
                    Some(tx) => tx,
                    None => self.now().await?.max(at.min_tx.unwrap_or_default()),
                };
                for shard in 0..self.shards() {
                    let first = self.welcome().slots.iter().find(|range| range.shard == shard).map(|range| range.first);
                    let Some(slot) = first.and_then(Slot::new) else { continue };
                    self.pages_of_shard(shard, slot, asked, At::as_of(moment), &mut take).await?;
                }
                return Ok(moment);
            }
        };
        self.pages_of_shard(self.shard_of_slot(slot)?, slot, asked, at, &mut take).await
    }

    async fn pages_of_shard(
        &self,
        shard: u16,
        slot: Slot,
        asked: &DatomsAsked<'_>,
        at: At,
        take: &mut impl FnMut(FactsPage, bool) -> bool,
    ) -> Result<Tx, Error> {
        let (mut place, mut at) = (asked.place.to_vec(), at);
        loop {
            let mut body = Vec::new();
            DatomsAsked { slot: slot.number(), place: &place, ..asked.clone() }.write(&mut body);
            let (basis, more, page) = self.facts_page(Kind::Datoms, shard, body, at).await?;
            // Every further page is of the same moment as the first.
            at = At::as_of(basis);
            let further = goes_on(&page, more, &mut place);
            if !take(page, further) || !further {
                return Ok(basis);
            }
        }
    }

    /// What holds about an entity, or its history; `None` when nobody is named so. An entity that is given by id and has
    /// no facts is one without datoms.
    pub async fn entity(
        &self,
        slot: Slot,
        asked: &PullAsked<'_>,
        at: At,
        most: usize,
    ) -> Result<Answer<Option<(EntityId, Facts)>>, Error> {
        let slot = if let Entity::Id(id) = asked.entity { id.slot() } else { slot };
        let shard = self.shard_of_slot(slot)?;
        let (mut facts, mut place, mut at) = (Facts::default(), Vec::new(), at);
        loop {
            let limit = u32::try_from(most.saturating_sub(facts.datoms.len())).unwrap_or(u32::MAX).max(1);
            let mut body = Vec::new();
            PullAsked { slot: slot.number(), limit, place: &place, ..asked.clone() }.write(&mut body);
            let header = self.facts_header(Kind::Pull, shard, at);
            let reply = match self.ask(header, body).await {
                Ok(reply) => reply,
                Err(Error::Refused(refusal)) if refusal.code == Some(Code::NoEntity) => {
                    return Ok(Answer { value: None, basis: at.as_of.unwrap_or_default() });
                }
                Err(error) => return Err(error),
            };
            let page = FactsPage::read(&reply.body).map_err(|_| Error::short("a page of datoms"))?;
            let (basis, id) = (Tx::from_bits(reply.header.tx), EntityId::from_bits(reply.header.aux));
            at = At::as_of(basis);
            let further = goes_on(&page, reply.header.flags & Header::MORE != 0, &mut place);
            if !facts.take(page, further, most) || !further {
                return Ok(Answer { value: Some((id, facts)), basis });
            }
        }
    }

    async fn facts_page(&self, kind: Kind, shard: u16, body: Vec<u8>, at: At) -> Result<(Tx, bool, FactsPage), Error> {
        let reply = self.ask(self.facts_header(kind, shard, at), body).await?;
        let page = FactsPage::read(&reply.body).map_err(|_| Error::short("a page of datoms"))?;
        Ok((Tx::from_bits(reply.header.tx), reply.header.flags & Header::MORE != 0, page))
    }

    fn facts_header(&self, kind: Kind, shard: u16, at: At) -> Header {
        let (tx, aux) = (at.as_of.unwrap_or_default().bits(), at.min_tx.unwrap_or_default().bits());
        Header { shard, tx, aux, ..Header::new(kind) }
    }

    fn shard_of_slot(&self, slot: Slot) -> Result<u16, Error> {
        self.welcome().shard_of(slot).ok_or_else(|| Error::Refused(Refusal::own(Code::WrongShard, 0, None)))
    }
}

impl Facts {
    /// Adds a page; `further` = another one follows. False when it is enough.
    fn take(&mut self, page: FactsPage, further: bool, most: usize) -> bool {
        self.idents.extend(page.idents);
        self.datoms.extend(page.datoms);
        let enough = self.datoms.len() >= most;
        self.more |= self.datoms.len() > most || further && enough;
        self.datoms.truncate(most);
        !enough
    }
}

/// Whether a page is followed by another, which begins at `place`. One that came no further would come back for ever.
fn goes_on(page: &FactsPage, more: bool, place: &mut Vec<u8>) -> bool {
    let further = more && !page.place.is_empty() && page.place != *place;
    place.clone_from(&page.place);
    further
}
