//! How a row is columns: names, shapes and the way between 64 bytes and 64-bit cells.
//!
//! ```text
//!   tick    0 id  1 event_time  2 price  3 volume  4 trader  5 side  6 flags  7 received_delta  8 source  9 n
//!   quote   0 id  1 event_time  2 bid    3 bid_volume  4 ask  5 ask_volume  6 received_delta  7 source
//! ```
//! Invariants: a cell is the field's bits in a `u64` (floats by `to_bits`, signed integers sign-extended), so every
//! 64-byte row comes back bit for bit; `market` is not a column, the block implies it; the order is part of the file
//! format. A stored tick carries its place within its transaction (`n`) in the reserved bytes 60..64, so that history
//! can be put back into the order in which it was applied across markets; no tick leaves the index with it. Deliberately absent: how a column is compressed (`column.rs`).

use myelin_datom::{EntityId, Kind, Quote, Row, Tick, flags};

/// Column of the source's id, in every kind.
pub const ID: usize = 0;
/// Column of the exchange's time, in every kind.
pub const EVENT_TIME: usize = 1;
/// Column of the price (of a quote: the best bid).
pub const PRICE: usize = 2;
/// Column of the volume (of a quote: the volume at the best bid).
pub const VOLUME: usize = 3;
/// Column of a tick's trader.
pub const TRADER: usize = 4;
/// Column of a quote's best ask.
pub const ASK: usize = 4;
/// Columns of the widest kind.
pub const COLUMNS_MAX: usize = 10;

/// Rows that correct another, among these cells of [`ColumnRow::FLAGS`].
pub(crate) fn corrections(cells: &[u64]) -> u64 {
    cells.iter().filter(|&&cell| cell & u64::from(flags::CORRECTION) != 0).count() as u64
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Ids and instants: neighbours are close to each other.
    Rising,
    /// Whole numbers without an order.
    Whole,
    /// Whole numbers of which there are few.
    Small,
    /// Floats whose neighbours are close to each other.
    Price,
    /// Floats without an order.
    Volume,
    /// Microseconds from the event time to the arrival; arrivals rise.
    Delta,
}

impl Shape {
    /// True when the cells are bits of floats.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Price | Self::Volume)
    }
}

/// One column of a kind of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The field's name.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
}

const fn spec(name: &'static str, shape: Shape) -> ColumnSpec {
    ColumnSpec { name, shape }
}

/// A row that can be taken apart into cells and put together again.
pub trait ColumnRow: Row + core::fmt::Debug + PartialEq + Send + Sync + 'static {
    /// What its entity ids say.
    const KIND: Kind;
    /// Its columns, in the order of the file.
    const SPECS: &'static [ColumnSpec];
    /// Columns that hold prices.
    const PRICES: &'static [usize];
    /// The column whose cells say by a bit ([`flags::CORRECTION`]) that a row corrects another.
    const FLAGS: Option<usize>;

    /// A row of this market with nothing in it.
    fn empty(market: EntityId) -> Self;
    /// The exchange's time. **Units:** nanoseconds.
    fn event_time_ns(&self) -> i64;
    /// The bits of one field. **Panics** when there is no such column.
    fn cell(&self, column: usize) -> u64;
    /// Puts the bits of one field back. **Panics** when there is no such column.
    fn set_cell(&mut self, column: usize, bits: u64);
    /// Its place within its transaction, as it is stored; 0 where a kind has no room for it.
    fn place(&self) -> u32;
    /// Sets the place; nothing where a kind has no room for it.
    fn set_place(&mut self, n: u32);
    /// Appends the bits of one column of many rows. **Panics** when there is no such column.
    fn cells(rows: &[Self], column: usize, out: &mut Vec<u64>);
}

macro_rules! column_row {
    ($row:ty, $kind:expr, $prices:expr, $flags:expr, $place:expr, $set_place:expr, [$($at:literal $name:literal $shape:ident $get:expr, $set:expr;)*]) => {
        impl ColumnRow for $row {
            const KIND: Kind = $kind;
            const SPECS: &'static [ColumnSpec] = &[$(spec($name, Shape::$shape)),*];
            const PRICES: &'static [usize] = $prices;
            const FLAGS: Option<usize> = $flags;

            fn empty(market: EntityId) -> Self {
                Self { market, ..bytemuck::Zeroable::zeroed() }
            }

            #[inline]
            fn event_time_ns(&self) -> i64 {
                self.event_time_ns
            }

            #[inline]
            fn cell(&self, column: usize) -> u64 {
                match column {
                    $($at => ($get as fn(&$row) -> u64)(self),)*
                    _ => unreachable!("{column} is not a column"),
                }
            }

            #[inline]
            fn set_cell(&mut self, column: usize, bits: u64) {
                match column {
                    $($at => ($set as fn(&mut $row, u64))(self, bits),)*
                    _ => unreachable!("{column} is not a column"),
                }
            }

            #[inline]
            fn place(&self) -> u32 {
                ($place as fn(&$row) -> u32)(self)
            }

            #[inline]
            fn set_place(&mut self, n: u32) {
                ($set_place as fn(&mut $row, u32))(self, n);
            }

            fn cells(rows: &[Self], column: usize, out: &mut Vec<u64>) {
                match column {
                    $($at => out.extend(rows.iter().map($get)),)*
                    _ => unreachable!("{column} is not a column"),
                }
            }
        }
    };
}

column_row!(Tick, Kind::Tick, &[PRICE], Some(6), |r| r.zero_60, |r, n| r.zero_60 = n, [
    0 "id" Rising |r: &Tick| r.id, |r, bits| r.id = bits;
    1 "event_time_ns" Rising |r: &Tick| r.event_time_ns as u64, |r, bits| r.event_time_ns = bits as i64;
    2 "price" Price |r: &Tick| r.price.to_bits(), |r, bits| r.price = f64::from_bits(bits);
    3 "volume" Volume |r: &Tick| r.volume.to_bits(), |r, bits| r.volume = f64::from_bits(bits);
    4 "trader" Whole |r: &Tick| r.trader.bits(), |r, bits| r.trader = EntityId::from_bits(bits);
    5 "side" Small |r: &Tick| u64::from(r.side), |r, bits| r.side = bits as u8;
    6 "flags" Small |r: &Tick| u64::from(r.flags), |r, bits| r.flags = bits as u8;
    7 "received_delta_us" Delta |r: &Tick| i64::from(r.received_delta_us) as u64,
        |r, bits| r.received_delta_us = bits as i32;
    8 "source" Small |r: &Tick| u64::from(r.source), |r, bits| r.source = bits as u32;
    9 "n" Whole |r: &Tick| u64::from(r.zero_60), |r, bits| r.zero_60 = bits as u32;
]);

column_row!(Quote, Kind::Quote, &[PRICE, ASK], None, |_| 0, |_, _| (), [
    0 "id" Rising |r: &Quote| r.id, |r, bits| r.id = bits;
    1 "event_time_ns" Rising |r: &Quote| r.event_time_ns as u64, |r, bits| r.event_time_ns = bits as i64;
    2 "bid" Price |r: &Quote| r.bid.to_bits(), |r, bits| r.bid = f64::from_bits(bits);
    3 "bid_volume" Volume |r: &Quote| r.bid_volume.to_bits(), |r, bits| r.bid_volume = f64::from_bits(bits);
    4 "ask" Price |r: &Quote| r.ask.to_bits(), |r, bits| r.ask = f64::from_bits(bits);
    5 "ask_volume" Volume |r: &Quote| r.ask_volume.to_bits(), |r, bits| r.ask_volume = f64::from_bits(bits);
    6 "received_delta_us" Delta |r: &Quote| i64::from(r.received_delta_us) as u64,
        |r, bits| r.received_delta_us = bits as i32;
    7 "source" Small |r: &Quote| u64::from(r.source), |r, bits| r.source = bits as u32;
]);

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::{ROW_BYTES, Slot};

    fn check<R: ColumnRow>(mut bytes: [u8; ROW_BYTES]) {
        let market = EntityId::market(Slot::new(9).unwrap(), 77);
        bytes[..8].copy_from_slice(&market.bits().to_le_bytes());
        let row: R = bytemuck::cast(bytes);
        let mut back = R::empty(market);
        for column in 0..R::SPECS.len() {
            back.set_cell(column, row.cell(column));
            let mut cells = Vec::new();
            R::cells(&[row, row], column, &mut cells);
            assert_eq!(cells, [row.cell(column); 2]);
        }
        assert_eq!(bytemuck::bytes_of(&back), bytes);
    }

    #[test]
    fn every_byte_of_a_row_comes_back_from_its_cells() {
        for seed in 1..50_u8 {
            let mut bytes = core::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(seed.wrapping_mul(101)));
            check::<Quote>(bytes);
            // A tick's reserved bytes are zero by admission.
            bytes[50..52].fill(0);
            check::<Tick>(bytes);
        }
    }
}
