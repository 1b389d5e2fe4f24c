//! A firing: one match of one reflex, flat and copyable, equal bit for bit on every replica.
//!
//! ```text
//!   id of a firing = (slot, tx, n, reflex)      the slot is that of `market`
//!
//!   kind                          values[0]                values[1]
//!   above, below, enters, leaves  price                    the market's price before, NaN at the reflex's first tick
//!   move                          the move, a fraction     the price it is measured from
//!   volume                        the sum in the window    price of the tick
//!   spread                        the spread               price of the other market
//!   gap                           first missing id (u64)   last missing id (u64)
//! ```
//!
//! Invariants: at most one firing per id. Deliberately absent: the reflex's own numbers; `Reflexes::get` has them.

use myelin_datom::{EntityId, Tx};

/// Names one reflex. Whoever registers chooses it; the caller of this module keeps it unique per shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ReflexId(pub u64);

/// Which question was answered. The numbers travel and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The price rose above a level.
    Above = 1,
    /// The price fell below a level.
    Below = 2,
    /// The price came into a range.
    Enters = 3,
    /// The price went out of a range.
    Leaves = 4,
    /// The price moved by a fraction within a window.
    Move = 5,
    /// A window's volume reached an amount.
    Volume = 6,
    /// Two markets' prices stand apart.
    Spread = 7,
    /// A feed skipped ids.
    Gap = 8,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Above,
            2 => Self::Below,
            3 => Self::Enters,
            4 => Self::Leaves,
            5 => Self::Move,
            6 => Self::Volume,
            7 => Self::Spread,
            8 => Self::Gap,
            _ => return None,
        })
    }

    /// The word for people, the first of the text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
            Self::Enters => "enters",
            Self::Leaves => "leaves",
            Self::Move => "move",
            Self::Volume => "volume",
            Self::Spread => "spread",
            Self::Gap => "gap",
        }
    }
}

/// One match. Equality compares bits, so that two replicas can be compared with `==` although a value may be NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Who asked.
    pub reflex: ReflexId,
    /// Whose tick (or gap) made it true.
    pub market: EntityId,
    /// The transaction of that tick.
    pub tx: Tx,
    /// The row within it.
    pub n: u32,
    /// Which question.
    pub kind: Kind,
    /// What was measured, as the table above says: `f64` bits, or ids for [`Kind::Gap`].
    pub values: [u64; 2],
}

impl Firing {
    /// What was measured: price, move, volume or spread. `None` for a gap.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        (self.kind != Kind::Gap).then(|| f64::from_bits(self.values[0]))
    }

    /// What it is measured against; `None` for a gap and where there is nothing before.
    #[must_use]
    pub fn basis(&self) -> Option<f64> {
        let basis = f64::from_bits(self.values[1]);
        (self.kind != Kind::Gap && !basis.is_nan()).then_some(basis)
    }

    /// First and last id that are missing; `None` unless it is a gap.
    #[must_use]
    pub fn missing(&self) -> Option<(u64, u64)> {
        (self.kind == Kind::Gap).then_some((self.values[0], self.values[1]))
    }
}
