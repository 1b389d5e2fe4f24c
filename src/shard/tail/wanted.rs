//! What a reader of the log asks for, as far as this shard's markets were looked at.
//!
//! ```text
//!   Tail's body -> kinds, entity, scope, idents -> a bit per market, looked at once -> an entry is wanted, or not
//! ```
//!
//! Deliberately absent: what is at hand or in history; a fact is read before it is judged.

use super::entry::{Entry, Stated, What};
use crate::market::{Market, Markets};
use crate::reflex::Scope;
use crate::shard::Refusal;
use crate::shard::turn::Work;
use myelin_datom::{EntityId, Kind, Tick, Value};
use myelin_wire::{Code, Cursor, LogKind, Short, TAIL_ATTRIBUTES_MAX};

/// See the module's picture.
#[derive(Debug)]
pub(super) struct Wanted {
    kinds: u32,
    entity: EntityId,
    scope: Scope,
    /// Idents; none = any.
    attributes: Vec<Box<str>>,
    /// A bit per market of the shard, as far as they were looked at.
    markets: Vec<u64>,
    looked_at: u32,
}

impl Default for Wanted {
    /// Everything, of no market yet.
    fn default() -> Self {
        let (markets, attributes) = (Vec::new(), Vec::new());
        Self { kinds: 0, entity: EntityId::NONE, scope: Scope::All, attributes, markets, looked_at: 0 }
    }
}

impl Wanted {
    /// Reads the body of a `Tail`; also where to begin.
    pub(super) fn read(body: &[u8]) -> Result<(u64, Self), Refusal> {
        let bad = |_: Short| Refusal::of(Code::BadBody);
        let mut cursor = Cursor::new(body);
        let (since, kinds) = (cursor.u64().map_err(bad)?, cursor.u32().map_err(bad)?);
        let (zero, entity) = (cursor.u32().map_err(bad)?, cursor.u64().map_err(bad)?);
        let mut rest = cursor.rest();
        let scope = Scope::decode(&mut rest).map_err(|_| Refusal::of(Code::BadBody))?;
        let (mut idents, mut attributes) = (Cursor::new(rest), Vec::new());
        while !idents.is_done() && attributes.len() < TAIL_ATTRIBUTES_MAX {
            attributes.push(idents.text().map_err(bad)?.into());
        }
        let all = LogKind::ALL.into_iter().map(LogKind::bit).sum::<u32>();
        if zero != 0 || !idents.is_done() || scope.check().is_err() {
            return Err(Refusal::of(Code::BadBody));
        }
        if kinds & !all != 0 {
            return Err(Refusal::of(Code::UnknownAttribute));
        }
        let entity = EntityId::from_bits(entity);
        Ok((since, Self { kinds, entity, scope, attributes, ..Self::default() }))
    }

    pub(super) const fn kind(&self, kind: LogKind) -> bool {
        self.kinds == 0 || self.kinds & kind.bit() != 0
    }

    /// Looks at the markets that came since. False when the turn is over before all were looked at.
    pub(super) fn look(&mut self, markets: &Markets, work: &mut Work) -> bool {
        while let Some(market) = markets.get(self.looked_at) {
            if work.is_spent() {
                return false;
            }
            work.spend(1);
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
        true
    }

    /// Whether entries of this market can be wanted: a trader's may be in any.
    fn may_have(&self, market: &Market) -> bool {
        (!self.by_market() || market.id == self.entity) && self.scope.matches(&market.name)
    }

    fn by_market(&self) -> bool {
        self.entity.kind() == Some(Kind::Market)
    }

    /// Whether entries of the market of this number can be wanted. It was looked at.
    pub(super) fn market(&self, market: u32) -> bool {
        self.markets.get((market / 64) as usize).is_some_and(|word| word & 1 << (market % 64) != 0)
    }

    /// Whether a row, or a market that was created, is wanted. Its market was looked at.
    pub(super) fn entry(&self, entry: &Entry) -> bool {
        let about = match &entry.what {
            _ if self.entity == EntityId::NONE || self.by_market() => true,
            What::Tick(row) => bytemuck::cast::<_, Tick>(*row).trader == self.entity,
            _ => false,
        };
        about && self.kind(entry.kind()) && self.market(entry.place.market)
    }

    /// Whether facts of an attribute of this name can be wanted.
    pub(super) fn attribute(&self, ident: &str) -> bool {
        self.attributes.is_empty() || self.attributes.iter().any(|one| **one == *ident)
    }

    /// Whether a fact is wanted: it is about who is asked for, or points at them. `gap_of` is the market of a feed's gap
    /// that the fact describes; `number` a market's in this shard.
    pub(super) fn fact(
        &self,
        stated: &Stated,
        gap_of: Option<EntityId>,
        number: impl Fn(EntityId) -> Option<u32>,
    ) -> bool {
        let datom = &stated.datom;
        let target = if let Value::Ref(target) = datom.v { Some(target) } else { None };
        let mut about = [Some(datom.e), target, gap_of].into_iter().flatten();
        let in_scope = |id: EntityId| number(id).is_some_and(|number| self.market(number));
        self.attribute(&stated.ident)
            && self.kind(LogKind::Fact)
            && (self.entity == EntityId::NONE || about.clone().any(|id| id == self.entity))
            && (self.scope == Scope::All || about.any(in_scope))
    }
}
