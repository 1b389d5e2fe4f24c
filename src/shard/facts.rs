//! Facts of a shard: a transaction is applied, gaps of feeds are stated, datoms are answered a page at a time.
//!
//! ```text
//!   Transact   ops --check--> plan --insert--> datoms, whom tempids became         refused: the op and why
//!   Datoms     order, components, basis -> a page and where to go on               Pull: the same of one entity
//! ```
//! A partition is the slot of its name; its schema is transacted where its facts are, on the shard that owns the slot.
//! There is one node, so there is no system group that could hold a schema for all shards; a partition that carries its
//! own needs none to be moved either. Deliberately absent: Datalog; transactions that span partitions.

use super::apply::{Done, refused};
use super::ask::{Read, Unanswered};
use super::gaps::Stated;
use super::reply::Said;
use super::session::Outcome;
use super::{Refusal, Shard, ShardError};
use bytemuck::Zeroable;
use myelin_datom::{AttributeName, Entity, EntityId, Slot, Transaction, Tx, Value};
use myelin_index::facts::{Datoms, born};
use myelin_index::{Asked, Components, FactAttribute, FactWhy, FactsView, Gap, IndexError, Note, Order};
use myelin_wire::{Code, DatomsAsked, FactsPage, PullAsked, write_tempids};

/// A question about facts at most: an entity and a value of 16 KiB each, and a place. **Units:** bytes.
pub const FACT_READ_BODY_MAX: usize = 96 << 10;
/// Datoms of a page at most.
const DATOMS_PER_PAGE: usize = 1024;
/// A page ends when it has grown to this. **Units:** bytes.
const PAGE_BYTES: usize = 256 << 10;
/// Keys looked at for a page at most, those that say nothing included: a slice of a few hundred microseconds.
const KEYS_PER_PAGE: u64 = 2048;

impl Shard {
    pub(super) fn apply_transact(&mut self, tx: Tx, body: &[u8]) -> Result<Done, ShardError> {
        let transaction = match Transaction::read(body) {
            Ok(transaction) => transaction,
            // The door looked; an entry that another version let in is refused by every replica alike.
            Err(error) => return Ok(refused(tx, Refusal { first_bad: error.op, ..Refusal::of(Code::BadFact) })),
        };
        let ticks = &self.ticks;
        let market_exists = |id: EntityId| ticks.market_ix(id).is_some();
        let slot = Slot::of_name(&transaction.partition);
        let asked = Asked { slot, ops: &transaction.ops, market_exists: &market_exists };
        let plan = match self.facts.check(tx, asked)? {
            Ok(plan) => plan,
            Err(refusal) => {
                let code = fact_code(refusal.why);
                return Ok(refused(tx, Refusal { first_bad: refusal.op, ..Refusal::of(code) }));
            }
        };
        let stored = self.facts.insert(tx, &plan);
        self.fact_pruner.note(tx, plan.said());
        self.tails.at_hand().stated(tx, stored);
        let mut body = Vec::new();
        write_tempids(&mut body, plan.tempids().iter().map(|(name, id)| (&**name, *id)));
        let outcome = Outcome { tx: tx.bits(), accepted: stored, first_bad: u32::MAX, ..Zeroable::zeroed() };
        Ok(Done { outcome, said: Said::Answer { count: stored, aux: 0, more: false, body } })
    }

    /// States the ids that feeds skipped, as [`super::gaps::stated`] has them: one entity each, in the slot of its market.
    pub(super) fn state_gaps(&mut self, tx: Tx, rows: &'static str, gaps: &[Stated]) -> Result<(), IndexError> {
        if gaps.is_empty() {
            return Ok(());
        }
        let note = |gap: &Gap| Note {
            about: Err(gap.market.slot()),
            facts: vec![
                (born::FEED_GAP, Value::Ref(gap.market)),
                (born::FEED_GAP_FIRST, Value::Decimal(myelin_datom::Decimal::unsigned(gap.first))),
                (born::FEED_GAP_LAST, Value::Decimal(myelin_datom::Decimal::unsigned(gap.last))),
                (born::FEED_GAP_ROWS, Value::keyword(rows)),
            ],
        };
        let notes: Vec<Note> = gaps
            .iter()
            .map(|Stated { gap, missing }| {
                let mut one = note(gap);
                let missing = missing.map(|missing| Value::I64(i64::try_from(missing).unwrap_or(i64::MAX)));
                one.facts.extend(missing.map(|missing| (born::FEED_GAP_MISSING, missing)));
                one
            })
            .collect();
        self.state_facts(tx, &notes)
    }

    /// Stores facts that the shard itself states, as part of transaction `tx`; at most once in a transaction, behind its rows.
    pub(super) fn state_facts(&mut self, tx: Tx, notes: &[Note]) -> Result<(), IndexError> {
        let plan = self.facts.note(notes)?;
        let stored = self.facts.insert(tx, &plan);
        self.tails.at_hand().stated(tx, stored);
        Ok(())
    }

    /// Facts that no run holds yet, counted as the rows of 64 bytes that would take as much memory.
    pub(super) fn unsealed_facts_as_rows(&self) -> u64 {
        (self.facts.memory_bytes() as u64).div_ceil(64)
    }

    /// `Datoms`: body as `net/wire/src/facts.rs` draws it.
    pub(super) fn datoms(&self, read: &Read) -> Result<Said, Unanswered> {
        let asked = DatomsAsked::read(&read.body).map_err(|_| Refusal::of(Code::BadBody))?;
        let slot = Slot::new(asked.slot).ok_or(Refusal::of(Code::BadBody))?;
        let order = Order::from_number(asked.order).ok_or(Refusal::of(Code::BadBody))?;
        let now = self.facts.view(read.basis);
        let e = asked.e.as_ref().map(|e| self.entity(&now, slot, e)).transpose()?;
        let a = asked.a.as_ref().map(|a| self.attribute(slot, a)).transpose()?;
        if order == Order::Avet && a.is_some_and(|a| !a.is_indexed()) {
            return Err(Refusal::of(Code::NotIndexed).into());
        }
        if order == Order::Vaet && asked.v.as_ref().is_some_and(|v| !matches!(v, Value::Ref(_))) {
            return Err(Refusal::of(Code::ValueType).into());
        }
        let view = seen(now, asked.since, asked.history);
        let components = Components { e, a: a.map(|a| a.id), v: asked.v.as_ref() };
        page(&now, view.datoms(order, &components), asked.place, asked.limit, e)
    }

    /// `Pull`: body as `net/wire/src/facts.rs` draws it; `aux` is the entity.
    pub(super) fn pull(&self, read: &Read) -> Result<Said, Unanswered> {
        let asked = PullAsked::read(&read.body).map_err(|_| Refusal::of(Code::BadBody))?;
        let slot = Slot::new(asked.slot).ok_or(Refusal::of(Code::BadBody))?;
        let now = self.facts.view(read.basis);
        let e = self.entity(&now, slot, &asked.entity)?;
        page(&now, seen(now, asked.since, asked.history).entity(e), asked.place, asked.limit, Some(e))
    }

    fn entity(&self, view: &FactsView<'_>, slot: Slot, entity: &Entity<'_>) -> Result<EntityId, Unanswered> {
        let found = match entity {
            Entity::Id(id) => Some(*id),
            Entity::Ident(ident) => view.entity_named(slot, ident)?,
            Entity::Lookup(a, v) => {
                let attribute = self.attribute(slot, a)?;
                if attribute.unique.is_none() || attribute.value_type != v.value_type() {
                    return Err(Refusal::of(Code::ValueType).into());
                }
                view.holder(attribute, v, slot)?
            }
            // These have a meaning in a transaction only.
            Entity::Temp(_) | Entity::ThisTx => return Err(Refusal::of(Code::BadBody).into()),
        };
        found.ok_or(Refusal::of(Code::NoEntity).into())
    }

    fn attribute(&self, slot: Slot, name: &AttributeName<'_>) -> Result<&FactAttribute, Unanswered> {
        let attribute = match name {
            AttributeName::Id(id) => self.facts.attribute(*id),
            AttributeName::Ident(ident) => self.facts.attribute_named(slot, ident),
        };
        attribute.ok_or(Refusal::of(Code::UnknownAttribute).into())
    }
}

fn seen(view: FactsView<'_>, since: Tx, history: bool) -> FactsView<'_> {
    let view = view.since(since);
    if history { view.history() } else { view }
}

/// One page, and where the next one begins.
fn page(
    now: &FactsView<'_>,
    mut datoms: Datoms<'_, '_>,
    place: &[u8],
    limit: u32,
    entity: Option<EntityId>,
) -> Result<Said, Unanswered> {
    if !place.is_empty() && !datoms.resume(place) {
        return Err(Refusal::of(Code::BadBody).into());
    }
    let limit = (limit as usize).clamp(1, DATOMS_PER_PAGE);
    let mut page = FactsPage::default();
    let mut bytes = 0;
    while page.datoms.len() < limit && bytes < PAGE_BYTES && datoms.visited() < KEYS_PER_PAGE {
        let Some(datom) = datoms.next_within(KEYS_PER_PAGE - datoms.visited())? else { break };
        if !page.idents.contains_key(&datom.a)
            && let Some(Value::Keyword(ident)) = now.value(datom.a, born::IDENT)?
        {
            page.idents.insert(datom.a, ident.into_owned());
        }
        bytes += 32 + datoms.place().map_or(0, <[u8]>::len);
        page.datoms.push(datom.into_owned());
    }
    page.place = datoms.place().map_or_else(|| place.to_vec(), <[u8]>::to_vec);
    let mut body = Vec::new();
    page.write(&mut body);
    let (count, aux) = (page.datoms.len() as u32, entity.map_or(0, EntityId::bits));
    Ok(Said::Answer { count, aux, more: !datoms.is_done(), body })
}

const fn fact_code(why: FactWhy) -> Code {
    match why {
        FactWhy::NoEntity => Code::NoEntity,
        FactWhy::UnknownAttribute => Code::UnknownAttribute,
        FactWhy::Type => Code::ValueType,
        FactWhy::Check => Code::CheckFailed,
        FactWhy::Unique => Code::NotUnique,
        FactWhy::Compare => Code::CompareFailed,
        FactWhy::Schema => Code::SchemaForbidden,
        FactWhy::Conflict => Code::Contradiction,
        FactWhy::TooLarge => Code::TooLarge,
        FactWhy::OtherPartition => Code::OtherPartition,
    }
}
