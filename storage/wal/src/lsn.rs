//! A place in the log: one number that only grows.
//!
//! ```text
//!   lsn = epoch * segment_bytes + offset in the segment
//!
//!   epoch 1              epoch 2              epoch 3
//!   |h|records......|    |h|records....|      |h|rec        h = header block, 4,096 bytes
//!                    ^ offset 0 of epoch 2 is never a record's place, so it stands for the end of epoch 1
//! ```
//!
//! Places are comparable across segments without a table, and a place names its segment and offset by one division.
//! Deliberately absent: arithmetic. Only the crate's own geometry makes a place from parts.

use core::fmt;

/// A log sequence number: where a record starts, or where everything before is meant ("up to").
///
/// **Order:** that of the log, across segments and restarts. [`Lsn::ZERO`] is before everything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self(0);

    /// Takes the bits as they are stored, in a checkpoint's manifest for example.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits as they are stored.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The place at `offset` of the segment's `epoch`-th use.
    #[must_use]
    pub(crate) fn at(epoch: u32, offset: u64, segment_bytes: u64) -> Self {
        assert!(offset <= segment_bytes, "a place lies in its segment");
        Self(u64::from(epoch) * segment_bytes + offset)
    }

    /// Epoch and offset; the first byte of a segment stands for the end of the one before. The inverse of [`Lsn::at`].
    ///
    /// None for numbers that no segment of this size can hold: the bits may come from a foreign file.
    #[must_use]
    pub(crate) fn place(self, segment_bytes: u64) -> Option<(u32, u64)> {
        let last = self.0.checked_sub(1)?;
        Some((u32::try_from(last / segment_bytes).ok()?, last % segment_bytes + 1))
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lsn{}", self.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_one_number_and_back() {
        for (epoch, offset) in [(0, 1), (1, 4096), (1, 65536), (2, 64), (u32::MAX, 65536)] {
            assert_eq!(Lsn::at(epoch, offset, 65536).place(65536), Some((epoch, offset)));
        }
        assert_eq!(Lsn::ZERO.place(65536), None);
        assert_eq!(Lsn::from_bits(u64::MAX).place(65536), None);
    }
}
