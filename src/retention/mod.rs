//! What is kept of each market: a policy per kind of row, of the market's own or the shard's. Replicated state of a
//! shard, changed only by `apply`.
//!
//! ```text
//!   Retain (a write) -> Policies ----> who leads works out floors (shard/prune.rs) -> Horizon (an entry) -> floors rise
//!
//!   state    changed:8 | the shard's, ticks 16, quotes 16 | count:4 | each market:8, ticks 16, quotes 16
//!   a keep   number:1 | zero:7 | value:8         number 0: none of its own
//! ```
//!
//! Invariants: a policy changes nothing by itself; what was worked out under policies that have changed since is not
//! applied ([`Policies::changed`]). Deliberately absent: markets and rows; and what a `window` is measured by, which is the
//! leader's clock when it prunes.

use myelin_datom::{EntityId, Kind, Tx};
use myelin_wire::{Cursor, Keep, RetainRow, Short};
use std::collections::BTreeMap;

/// Ticks first, then quotes.
const KINDS: [Kind; 2] = [Kind::Tick, Kind::Quote];

/// What is kept in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// For markets without one of their own.
    shard: [Keep; 2],
    own: BTreeMap<EntityId, [Option<Keep>; 2]>,
    changed: Tx,
}

/// What is kept of one kind of row, and whose policy says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What is kept.
    pub keep: Keep,
    /// It is the market's own.
    pub own: bool,
}

const fn place(kind: Kind) -> usize {
    matches!(kind, Kind::Quote) as usize
}

impl Policies {
    /// What is kept of a market's rows of this kind; of the shard's own policy when the market is `NONE`.
    #[must_use]
    pub fn of(&self, market: EntityId, kind: Kind) -> Policy {
        let own = self.own.get(&market).and_then(|own| own[place(kind)]);
        Policy { keep: own.unwrap_or(self.shard[place(kind)]), own: own.is_some() }
    }

    /// True when something is to be dropped at all.
    #[must_use]
    pub fn drop_anything(&self) -> bool {
        let own = self.own.values().flatten().flatten();
        self.shard.iter().chain(own).any(|keep| *keep != Keep::All)
    }

    /// The transaction that changed a policy last.
    #[must_use]
    pub const fn changed(&self) -> Tx {
        self.changed
    }

    /// Sets what a row says, as transaction `tx`; true when that changed something. A row that says nothing sound is
    /// passed over: `admit` refused it.
    pub fn set(&mut self, tx: Tx, row: &RetainRow) -> bool {
        let Some(keep) = row.policy() else { return false };
        let (market, before) = (EntityId::from_bits(row.market), self.said_of(row.market));
        for kind in KINDS.into_iter().filter(|kind| row.kinds >> place(*kind) & 1 == 1) {
            match (market, keep) {
                (EntityId::NONE, Some(keep)) => self.shard[place(kind)] = keep,
                (EntityId::NONE, None) => {}
                (market, keep) => self.own.entry(market).or_default()[place(kind)] = keep,
            }
        }
        if self.own.get(&market) == Some(&[None; 2]) {
            self.own.remove(&market);
        }
        let changed = before != self.said_of(row.market);
        if changed {
            self.changed = tx;
        }
        changed
    }

    fn said_of(&self, market: u64) -> [Option<Keep>; 2] {
        match self.own.get(&EntityId::from_bits(market)) {
            Some(own) => *own,
            None if market == 0 => self.shard.map(Some),
            None => [None; 2],
        }
    }

    /// Writes them into a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        let put = |keeps: [Option<Keep>; 2]| {
            let mut bytes = [0; 32];
            for (at, keep) in keeps.into_iter().enumerate() {
                let (number, value) = keep.map_or((0, 0), Keep::to_parts);
                bytes[16 * at] = number;
                bytes[16 * at + 8..16 * at + 16].copy_from_slice(&value.to_le_bytes());
            }
            bytes
        };
        out.extend_from_slice(&self.changed.bits().to_le_bytes());
        out.extend_from_slice(&put(self.shard.map(Some)));
        out.extend_from_slice(&(self.own.len() as u32).to_le_bytes());
        for (market, keeps) in &self.own {
            out.extend_from_slice(&market.bits().to_le_bytes());
            out.extend_from_slice(&put(*keeps));
        }
    }

    /// Reads what [`Policies::write`] wrote, and nothing that it would not write.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, Short> {
        let mut policies = Self { changed: Tx::from_bits(cursor.u64()?), ..Self::default() };
        for (at, keep) in keeps(cursor)?.into_iter().enumerate() {
            policies.shard[at] = keep.ok_or(cursor.senseless())?;
        }
        for _ in 0..cursor.u32()? {
            let (market, own) = (EntityId::from_bits(cursor.u64()?), keeps(cursor)?);
            let last = policies.own.last_key_value().map_or(EntityId::NONE, |(last, _)| *last);
            if market <= last || own == [None; 2] {
                return Err(cursor.senseless());
            }
            policies.own.insert(market, own);
        }
        Ok(policies)
    }
}

fn keeps(cursor: &mut Cursor<'_>) -> Result<[Option<Keep>; 2], Short> {
    let mut keeps = [None; 2];
    for keep in &mut keeps {
        let (number, zero) = (cursor.u8()?, cursor.take(7)?);
        let value = cursor.u64()?;
        *keep = match (number, value) {
            (0, 0) => None,
            (number, value) => Some(Keep::from_parts(number, value).ok_or(cursor.senseless())?),
        };
        if zero != [0; 7] {
            return Err(cursor.senseless());
        }
    }
    Ok(keeps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::Slot;

    const BOTH: u8 = RetainRow::TICKS | RetainRow::QUOTES;

    fn market(n: u32) -> EntityId {
        EntityId::market(Slot::new(7).unwrap(), n)
    }

    #[test]
    fn a_market_follows_the_shard_until_it_has_a_policy_of_its_own_and_again_without() {
        let mut policies = Policies::default();
        assert!(!policies.drop_anything());
        let steps = [
            (RetainRow::new(0, BOTH, Some(Keep::Last(5))), true),
            (RetainRow::new(0, BOTH, Some(Keep::Last(5))), false),
            (RetainRow::new(market(1).bits(), RetainRow::TICKS, Some(Keep::All)), true),
            (RetainRow::new(market(2).bits(), BOTH, Some(Keep::Window(1 << 40))), true),
            (RetainRow::new(market(2).bits(), RetainRow::QUOTES, None), true),
            (RetainRow::new(market(3).bits(), BOTH, None), false),
        ];
        for (at, (row, changes)) in steps.into_iter().enumerate() {
            let tx = Tx::from_bits(at as u64 + 1);
            assert_eq!(policies.set(tx, &row), changes, "{row:?}");
            assert_eq!(policies.changed() == tx, changes);
        }
        let of = |n, kind| policies.of(market(n), kind);
        assert_eq!(of(1, Kind::Tick), Policy { keep: Keep::All, own: true });
        assert_eq!(of(1, Kind::Quote), Policy { keep: Keep::Last(5), own: false });
        assert_eq!(of(2, Kind::Tick), Policy { keep: Keep::Window(1 << 40), own: true });
        assert_eq!(of(2, Kind::Quote), Policy { keep: Keep::Last(5), own: false });
        assert_eq!(policies.own.len(), 2, "what says nothing takes no room");
        assert!(policies.drop_anything());
        let mut bytes = Vec::new();
        policies.write(&mut bytes);
        assert_eq!(Policies::read(&mut Cursor::new(&bytes)), Ok(policies.clone()));
        for cut in 0..bytes.len() {
            assert!(Policies::read(&mut Cursor::new(&bytes[..cut])).is_err());
        }
        // The shard's numbers, the zeros behind one, a market's number, and its id before that of the one before.
        for (at, byte) in [(8, 5), (8, 0), (9, 1), (8 + 32 + 4 + 8, 9), (8 + 32 + 4 + 40 + 7, 0)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert!(Policies::read(&mut Cursor::new(&bytes)).is_err(), "{byte} at {at}");
        }
    }
}
