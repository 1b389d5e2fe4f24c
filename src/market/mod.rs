//! Markets: names, ids, and what each declared about itself. Replicated state of a shard, changed only by `apply`.
//!
//! A market is a partition of its own; its id is `slot . ordinal`, the ordinal being its number within the slot, given
//! out in the order of the log. Deliberately absent: removal (a market's facts stay), placement.

use hashbrown::{DefaultHashBuilder, HashMap};
use myelin_datom::{EntityId, MarketName, ORDINALS_PER_SLOT, Tx};
use myelin_wire::{Cursor, MarketFlags, Short};

/// One market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// Its entity id.
    pub id: EntityId,
    /// `market/id`.
    pub name: Box<str>,
    /// What it declared.
    pub flags: MarketFlags,
    /// The transaction that created it.
    pub created: Tx,
}

/// Every market of a shard, numbered densely in the order of their creation.
#[derive(Debug, Default)]
pub struct Markets {
    list: Vec<Market>,
    by_name: HashMap<Box<str>, u32, DefaultHashBuilder>,
    by_slot: HashMap<u16, u32, DefaultHashBuilder>,
}

impl Markets {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Market> {
        self.list.iter()
    }

    /// How many there were at a moment: numbers are given out in the order of the log.
    #[must_use]
    pub fn count_as_of(&self, as_of: Tx) -> usize {
        self.list.partition_point(|market| market.created <= as_of)
    }

    /// The market of this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Market> {
        self.list.get(number as usize)
    }

    /// The market of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Market> {
        self.by_name.get(name).and_then(|number| self.get(*number))
    }

    /// Creates a market that does not exist yet; `None` when its slot is full.
    ///
    /// **Panics** when the name is taken: the caller looked.
    pub fn create(&mut self, created: Tx, name: MarketName<'_>, flags: MarketFlags) -> Option<&Market> {
        let slot = name.slot();
        let ordinal = self.by_slot.get(&slot.number()).copied().unwrap_or(0);
        if ordinal >= ORDINALS_PER_SLOT {
            return None;
        }
        self.insert(Market { id: EntityId::market(slot, ordinal), name: name.as_str().into(), flags, created });
        self.list.last()
    }

    fn insert(&mut self, market: Market) {
        let number = self.list.len() as u32;
        let before = self.by_name.insert(market.name.clone(), number);
        assert!(before.is_none(), "a market's name is unique");
        let next = self.by_slot.entry(market.id.slot().number()).or_insert(0);
        *next = (*next).max(market.id.ordinal() + 1);
        self.list.push(market);
    }

    /// Writes them into a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.list.len() as u32).to_le_bytes());
        for market in &self.list {
            out.extend_from_slice(&market.created.bits().to_le_bytes());
            myelin_wire::write_market_row(out, market.id, market.flags, 0, 0, &market.name);
        }
    }

    /// Reads what [`Markets::write`] wrote. **Errors:** also for what could not have been written: a name twice or none at all,
    /// an id that is not of the name's slot, a market that is older than the one before.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        let mut markets = Self::default();
        for _ in 0..cursor.u32()? {
            let created = Tx::from_bits(cursor.u64()?);
            let id = EntityId::from_bits(cursor.u64()?);
            let _rows = (cursor.u64()?, cursor.u64()?);
            let flags = MarketFlags(cursor.u8()?);
            let text = cursor.text()?;
            let slot = MarketName::new(text).map(|name| name.slot());
            let placed = slot.is_ok_and(|slot| id == EntityId::market(slot, id.ordinal()));
            let in_order = markets.list.last().is_none_or(|last| last.created <= created);
            if !placed || !in_order || markets.named(text).is_some() {
                return Err(cursor.senseless());
            }
            markets.insert(Market { id, flags, name: text.into(), created });
        }
        Ok(markets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markets_of_one_slot_take_ordinals_in_order_and_survive_a_checkpoint() {
        let mut markets = Markets::default();
        for name in ["a:{X}1", "b:{X}2", "c:{Y}"] {
            markets.create(Tx::from_bits(7), MarketName::new(name).unwrap(), MarketFlags(0)).unwrap();
        }
        let mut bytes = Vec::new();
        markets.write(&mut bytes);
        let read = Markets::read(&mut Cursor::new(&bytes)).unwrap();
        assert_eq!(read.list, markets.list);
        let (first, second) = (markets.named("a:{X}1").unwrap(), markets.named("b:{X}2").unwrap());
        assert_eq!((first.id.ordinal(), second.id.ordinal()), (0, 1));
        assert_eq!(first.id.slot(), second.id.slot());
    }
}
