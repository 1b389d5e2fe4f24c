//! Entity ids and slots: 64 bits that say what a thing is and which slot it lives in, never which shard.
//!
//! ```text
//!   63 62  60 59        48 47             28 27                    0
//!   0 | kind |    slot    |     ordinal     |       sequence        |
//!   1 |  3   |     12     |       20        |          28           |
//! ```
//!
//! A market's ordinal is its number within its slot; a row's sequence is its number within market and kind. Ids are
//! allocated in `apply`, never hashed from names. Deliberately absent: any function from an id to a shard.

use core::fmt;

/// Slots in the cluster; a market's slot is a pure function of its name.
pub const SLOTS: u16 = 4096;
/// Markets one slot can hold.
pub const ORDINALS_PER_SLOT: u32 = 1 << 20;
/// Rows one ordinal can hold; a market that outgrows them takes a further ordinal.
pub const SEQUENCES_PER_ORDINAL: u32 = 1 << 28;

/// What an entity is. Numbers 6 and 7 are reserved for mergeable facts and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One trade of one market.
    Tick = 0,
    /// One best bid and ask of one market.
    Quote = 1,
    /// One outcome of one instrument at one venue.
    Market = 2,
    /// Anything a user names.
    Ordinary = 3,
    /// A transaction, about which facts can be stated too.
    Transaction = 4,
    /// What the system group holds: schema, feeds, nodes, reflexes.
    System = 5,
}

/// One of 4,096 units of placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOTS { Some(Self(number)) } else { None }
    }

    /// The slot of a market name: XXH3-64, seed 0, of the part in braces if there is one, else of the whole name.
    ///
    /// `binance-spot:{BTC}USDT` and `binance-usdm:{BTC}USDT` share a slot.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let key = braced(name).unwrap_or(name);
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        Self((hash % u64::from(SLOTS)) as u16)
    }

    /// **Units:** 0..4096.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// The part in the first pair of braces; an empty pair counts for nothing.
fn braced(name: &str) -> Option<&str> {
    let (_, after) = name.split_once('{')?;
    let (inner, _) = after.split_once('}')?;
    if inner.is_empty() { None } else { Some(inner) }
}

/// A 64-bit entity id. Zero is no entity: it is what "unknown" looks like in a reference.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    bytemuck::Pod,
    bytemuck::Zeroable,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
#[repr(transparent)]
pub struct EntityId(u64);

impl EntityId {
    /// No entity.
    pub const NONE: Self = Self(0);

    /// Takes the bits as they are; [`EntityId::kind`] tells whether they mean anything.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// **Panics** when ordinal or sequence exceed their field: allocation checks them first.
    #[must_use]
    pub const fn new(kind: Kind, slot: Slot, ordinal: u32, sequence: u32) -> Self {
        assert!(ordinal < ORDINALS_PER_SLOT);
        assert!(sequence < SEQUENCES_PER_ORDINAL);
        Self((kind as u64) << 60 | (slot.0 as u64) << 48 | (ordinal as u64) << 28 | sequence as u64)
    }

    /// The id of a market: sequence 0 of its ordinal.
    #[must_use]
    pub const fn market(slot: Slot, ordinal: u32) -> Self {
        Self::new(Kind::Market, slot, ordinal, 0)
    }

    /// The bits, as they travel and as JSON spells them in decimal.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What it is; `None` for reserved kinds and when bit 63 is set.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self.0 >> 60 {
            0 => Some(Kind::Tick),
            1 => Some(Kind::Quote),
            2 => Some(Kind::Market),
            3 => Some(Kind::Ordinary),
            4 => Some(Kind::Transaction),
            5 => Some(Kind::System),
            _ => None,
        }
    }

    /// Where it is placed.
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot(((self.0 >> 48) & 0xfff) as u16)
    }

    /// The market's number within its slot.
    #[must_use]
    pub const fn ordinal(self) -> u32 {
        ((self.0 >> 28) & 0xf_ffff) as u32
    }

    /// The row's number within market and kind.
    #[must_use]
    pub const fn sequence(self) -> u32 {
        (self.0 & 0xfff_ffff) as u32
    }

    /// The id of row `sequence` of this market. **Panics** when the sequence exceeds its field.
    #[must_use]
    pub const fn row(self, kind: Kind, sequence: u32) -> Self {
        Self::new(kind, self.slot(), self.ordinal(), sequence)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => {
                write!(f, "{kind:?}/{}.{}.{}", self.slot().number(), self.ordinal(), self.sequence())
            }
            None => write!(f, "EntityId({:#x})", self.0),
        }
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A market name that was checked: 1..=200 bytes, no white space, control characters or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MarketName<'a>(&'a str);

/// Why a market name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    Empty,
    /// More than 200 bytes.
    TooLong,
    /// White space, a control character or `*`, at this byte.
    BadCharacter {
        /// Where in the name.
        at: usize,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a market name is empty"),
            Self::TooLong => f.write_str("a market name is longer than 200 bytes"),
            Self::BadCharacter { at } => {
                write!(f, "a market name has white space, a control character or * at byte {at}")
            }
        }
    }
}

impl core::error::Error for NameError {}

impl<'a> MarketName<'a> {
    /// **Units:** bytes.
    pub const MAX_BYTES: usize = 200;

    /// Checks the name once: no blanks, and no `*`, which patterns of names have.
    pub fn new(name: &'a str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        match name.char_indices().find(|(_, c)| c.is_whitespace() || c.is_control() || *c == '*') {
            Some((at, _)) => Err(NameError::BadCharacter { at }),
            None => Ok(Self(name)),
        }
    }

    /// The name as given.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Where markets of this name live.
    #[must_use]
    pub fn slot(self) -> Slot {
        Slot::of_name(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_id_gives_back_what_it_was_made_of() {
        for (kind, slot, ordinal, sequence) in [
            (Kind::Tick, 0, 0, 1),
            (Kind::Market, 4095, ORDINALS_PER_SLOT - 1, 0),
            (Kind::System, 17, 3, SEQUENCES_PER_ORDINAL - 1),
        ] {
            let slot = Slot::new(slot).unwrap();
            let id = EntityId::new(kind, slot, ordinal, sequence);
            assert_eq!((id.kind(), id.slot(), id.ordinal(), id.sequence()), (Some(kind), slot, ordinal, sequence));
            assert_eq!(id.bits() >> 63, 0);
        }
    }

    #[test]
    fn markets_that_share_a_braced_part_share_a_slot() {
        let slot = Slot::of_name("binance-spot:{BTC}USDT");
        assert_eq!(slot, Slot::of_name("binance-usdm:{BTC}USDT"));
        assert_eq!(slot, Slot::of_name("BTC"));
        assert_eq!(Slot::of_name("a{}b"), Slot(0).max(Slot::of_name("a{}b")));
        // Law: these two numbers decide where data lives and may never change.
        assert_eq!(Slot::of_name("BTC").number(), (xxhash_rust::xxh3::xxh3_64(b"BTC") % 4096) as u16);
    }

    #[test]
    fn a_bad_market_name_is_refused_by_name() {
        assert_eq!(MarketName::new(""), Err(NameError::Empty));
        assert_eq!(MarketName::new("a b"), Err(NameError::BadCharacter { at: 1 }));
        assert_eq!(MarketName::new("a\n"), Err(NameError::BadCharacter { at: 1 }));
        assert_eq!(MarketName::new("*"), Err(NameError::BadCharacter { at: 0 }), "it would be taken for all markets");
        assert!(MarketName::new("binance-spot:BTCUSDT").is_ok());
    }
}
