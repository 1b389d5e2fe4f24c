//! One market's state, and the way from its entity id to it.
//!
//! ```text
//!   EntityId --slot--> table of the slot --ordinal--> MarketIx --> Market { window, newest part, floor }
//! ```
//! Invariants: a `MarketIx` is dense and stays valid; rows are numbered from 0 within the market over all its parts, and
//! a row's entity *sequence* is its number plus 1, so that no row's id is [`EntityId::NONE`].

use myelin_datom::{EntityId, Kind, SEQUENCES_PER_ORDINAL, SLOTS, Tx};

use super::ColumnRow;
use super::part::Part;
use super::window::IdWindow;

/// Rows one market can hold: sequences 1 to 2^28 - 1.
pub const MARKET_ROWS_MAX: u32 = SEQUENCES_PER_ORDINAL - 1;

/// A market's dense number within its [`Columns`](super::Columns), in the order of `add_market`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarketIx(pub(crate) u32);

impl MarketIx {
    /// **Units:** markets added before it.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What a market promises about its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarketOptions {
    /// Prices below zero are sound.
    pub signed: bool,
    /// Ids only rise, but for late ones: below the pruned floor an unknown id is too old, not new.
    pub ascending_ids: bool,
    /// Every id follows the one before it: a skipped one is reported as a gap.
    pub dense_ids: bool,
}

impl MarketOptions {
    pub(crate) fn bits(self) -> u8 {
        u8::from(self.signed) | u8::from(self.ascending_ids) << 1 | u8::from(self.dense_ids) << 2
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        (bits < 8).then_some(Self { signed: bits & 1 != 0, ascending_ids: bits & 2 != 0, dense_ids: bits & 4 != 0 })
    }
}

/// What was pruned of a market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Rows below this number are gone.
    pub row: u32,
    /// The greatest id among them.
    pub id: u64,
    /// The transaction that pruned them: nothing before it can be asked for.
    pub horizon: Tx,
    /// The transaction of the last row that is gone.
    pub gone: Tx,
}

/// One market.
#[derive(Debug)]
pub(crate) struct Market<R> {
    pub id: EntityId,
    pub options: MarketOptions,
    pub window: IdWindow,
    /// Number of the newest part's first row.
    pub first: u32,
    pub part: Part<R>,
    pub floor: Floor,
}

impl<R: ColumnRow> Market<R> {
    pub(crate) fn new(id: EntityId, options: MarketOptions) -> Self {
        Self { id, options, window: IdWindow::default(), first: 0, part: Part::default(), floor: Floor::default() }
    }

    /// Number of the row that comes next.
    pub(crate) fn next_row(&self) -> u32 {
        self.first + self.part.rows()
    }
}

/// The entity id of a market's row number `row`.
#[must_use]
pub fn row_entity(market: EntityId, kind: Kind, row: u32) -> EntityId {
    market.row(kind, row + 1)
}

/// Entity id to market, in two loads.
#[derive(Debug)]
pub(crate) struct MarketTable {
    slots: Vec<Vec<u32>>,
}

const NOBODY: u32 = u32::MAX;
/// Bits of a market id that are neither slot nor ordinal.
const NOT_PLACE: u64 = 0xf000_0000_0fff_ffff;
const MARKET_KIND: u64 = (Kind::Market as u64) << 60;

impl MarketTable {
    pub(crate) fn new() -> Self {
        // Cloning an empty vector 4,096 times takes 18 µs, making as many next to nothing.
        Self { slots: core::iter::repeat_with(Vec::new).take(SLOTS.into()).collect() }
    }

    #[inline]
    pub(crate) fn get(&self, id: EntityId) -> Option<MarketIx> {
        if id.bits() & NOT_PLACE != MARKET_KIND {
            return None;
        }
        let ix = *self.slots[usize::from(id.slot().number())].get(id.ordinal() as usize)?;
        (ix != NOBODY).then_some(MarketIx(ix))
    }

    /// **Panics** when the id is no market's or is there already: allocation gave it out once.
    pub(crate) fn put(&mut self, id: EntityId, ix: MarketIx) {
        assert!(id.bits() & NOT_PLACE == MARKET_KIND, "{id:?} is not the id of a market");
        let ordinals = &mut self.slots[usize::from(id.slot().number())];
        let ordinal = id.ordinal() as usize;
        if ordinals.len() <= ordinal {
            ordinals.resize(ordinal + 1, NOBODY);
        }
        assert!(ordinals[ordinal] == NOBODY, "{id:?} was added before");
        ordinals[ordinal] = ix.0;
    }
}
