//! How the power fails: how much of the unsynced is left, what that was, and the chance it is chosen by.
//!
//! Deliberately absent: the loss itself, which is content.rs for pages and image.rs for names.

use std::fmt;

/// What is left of the unsynced when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing.
    DropUnsynced,
    /// A random part: pages kept, lost or torn by sector, sizes old or new, the first few changes of names.
    Random {
        /// The same seed over the same state leaves the same.
        seed: u64,
    },
}

/// What a power cut met. A cut with `unsynced_pages == 0` and no changes of names has proved nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Pages that were written and not synced.
    pub unsynced_pages: u64,
    /// Of those: there nevertheless.
    pub kept_pages: u64,
    /// Of those: half there.
    pub torn_pages: u64,
    /// Creations, renames and removals whose directory was not synced.
    pub unsynced_names: u64,
    /// Of those: there nevertheless.
    pub kept_names: u64,
}

impl fmt::Display for Loss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss { unsynced_pages, kept_pages, torn_pages, unsynced_names, kept_names } = self;
        write!(out, "unsynced_pages={unsynced_pages} kept_pages={kept_pages} torn_pages={torn_pages} ")?;
        write!(out, "unsynced_names={unsynced_names} kept_names={kept_names}")
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing pages, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// A number below `bound`, which is small: the bias does not matter.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
