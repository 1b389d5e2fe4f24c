//! Transaction ids: a hybrid logical clock in 64 bits, 48 of milliseconds and 16 of counter.
//!
//! The leader stamps `max(clock, last tx in its log + 1)`; a full counter borrows the next millisecond, because `+ 1`
//! carries. `apply` has no clock. Deliberately absent: any way to read the time.

use core::fmt;

/// An instant everywhere in Myelin. **Units:** nanoseconds since the Unix epoch.
pub type Instant = i64;

/// A transaction id: one request's part for one shard. Only grows, also across restarts.
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
pub struct Tx(u64);

impl Tx {
    /// Before every transaction.
    pub const ZERO: Self = Self(0);
    /// After every transaction.
    pub const MAX: Self = Self(u64::MAX);

    /// Takes the bits as they travel.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The smallest `tx` of a millisecond. **Units:** milliseconds since the Unix epoch, below 2^48.
    #[must_use]
    pub const fn at_millis(millis: u64) -> Self {
        Self(millis << 16)
    }

    /// The bits as they travel and as JSON spells them in decimal.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// **Units:** milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The `tx` that follows. **Panics** at the end of time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// What a leader stamps on an entry: not below its clock, above everything in its log.
    #[must_use]
    pub fn stamp(clock_millis: u64, last: Self) -> Self {
        Self::at_millis(clock_millis).max(last.next())
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tx{}", self.0)
    }
}

impl fmt::Display for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a shard's history: the `n`-th row of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The transaction.
    pub tx: Tx,
    /// The row within it, from 0.
    pub n: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_the_clock_and_never_goes_back() {
        let last = Tx::at_millis(1000);
        assert_eq!(Tx::stamp(2000, last), Tx::at_millis(2000));
        assert_eq!(Tx::stamp(1000, last), last.next());
        assert_eq!(Tx::stamp(5, last), last.next(), "a clock that went back does not take us along");
    }

    #[test]
    fn a_full_counter_borrows_the_next_millisecond() {
        let last = Tx::from_bits((1000 << 16) | 0xffff);
        assert_eq!(Tx::stamp(1000, last), Tx::at_millis(1001));
    }
}
