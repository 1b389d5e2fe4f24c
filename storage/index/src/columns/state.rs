//! What a checkpoint keeps besides the runs: markets, options, ids seen, row numbers, floors.
//!
//! ```text
//!   0        8         10     11      12             16         24
//!   [ magic | version | kind | zero | markets u32   | last tx  | market ... | CRC-32 ]
//!   market:  id u64, options u8, zero 3, rows so far u32, floor row u32, floor id u64, horizon u64, gone u64, window
//!   window:  greatest u64, least u64, words u32, words u64 ...
//! ```
//! Version 1 had no `gone` (the transaction of the last pruned row): there it counts as the horizon.
//!
//! Invariants: taken right after `freeze`, so that every row it speaks of is in the runs once that part is sealed; bytes
//! are decoded with bounds and compared with the runs, never trusted. Deliberately absent: rows.

use std::sync::Arc;

use myelin_datom::{EntityId, Kind, Tx};

use super::market::Floor;
use super::window::IdWindow;
use super::wire::{Input, Malformed};
use super::{ColumnRow, Columns, ColumnsConfig, MARKET_ROWS_MAX, MarketIx, MarketOptions, Run};
use crate::IndexError;

const MAGIC: &[u8; 8] = b"MYELCOL\n";
const VERSION: u16 = 2;
/// The oldest that is read.
const VERSION_MIN: u16 = 1;

impl<R: ColumnRow> Columns<R> {
    /// The state that goes with the runs, once every frozen part has become one.
    ///
    /// **Panics** when the newest part holds rows: freeze first, in the same step.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        assert!(self.newest_rows == 0, "the state belongs to sealed rows: freeze first");
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[R::KIND as u8, 0]);
        out.extend_from_slice(&(self.markets.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.last_tx.bits().to_le_bytes());
        for market in &self.markets {
            out.extend_from_slice(&market.id.bits().to_le_bytes());
            out.extend_from_slice(&[market.options.bits(), 0, 0, 0]);
            out.extend_from_slice(&market.next_row().to_le_bytes());
            out.extend_from_slice(&market.floor.row.to_le_bytes());
            out.extend_from_slice(&market.floor.id.to_le_bytes());
            out.extend_from_slice(&market.floor.horizon.bits().to_le_bytes());
            out.extend_from_slice(&market.floor.gone.bits().to_le_bytes());
            market.window.write(&mut out);
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// What [`state`](Self::state) described, with the runs of its checkpoint, oldest first.
    ///
    /// **Errors:** [`IndexError::State`] when the bytes are damaged or speak of other rows than the runs hold.
    pub fn restore(config: ColumnsConfig, state: &[u8], runs: Vec<Arc<Run>>) -> Result<Self, IndexError> {
        let refused = |malformed: Malformed| IndexError::State {
            offset: malformed.at,
            what: malformed.what,
            expected: malformed.expected,
            found: malformed.found,
        };
        let mut columns = Self::new(config);
        columns.runs = runs;
        columns.read_state(state).map_err(refused)?;
        columns.compare_runs().map_err(refused)?;
        Ok(columns)
    }

    fn read_state(&mut self, state: &[u8]) -> Result<(), Malformed> {
        let mut input = Input::new(state);
        let body = state.len().saturating_sub(4);
        let crc = Input::new(&state[body..]).u32()?;
        let expected = crc32fast::hash(&state[..body]);
        input.expect("the state's checksum", crc == expected, expected.into(), crc.into())?;
        let magic = input.take(8)? == MAGIC;
        input.expect("the state's magic", magic, 1, 0)?;
        let (version, kind, _) = (input.u16()?, input.u8()?, input.u8()?);
        let known = (VERSION_MIN..=VERSION).contains(&version);
        input.expect("the state's version", known, VERSION.into(), version.into())?;
        input.expect("the state's kind", kind == R::KIND as u8, R::KIND as u64, kind.into())?;
        let (markets, last_tx) = (input.u32()?, Tx::from_bits(input.u64()?));
        self.last_tx = last_tx;
        for _ in 0..markets {
            self.read_market(&mut input, version)?;
        }
        input.expect("bytes after the last market", input.left() == 4, 4, input.left() as u64)
    }

    fn read_market(&mut self, input: &mut Input<'_>, version: u16) -> Result<(), Malformed> {
        let id = EntityId::from_bits(input.u64()?);
        let (options, _) = (input.u8()?, input.take(3)?);
        let (next_row, floor_row, floor_id) = (input.u32()?, input.u32()?, input.u64()?);
        let horizon = Tx::from_bits(input.u64()?);
        let gone = if version == 1 { horizon } else { Tx::from_bits(input.u64()?) };
        let window = IdWindow::read(input)?;
        let is_market = id.kind() == Some(Kind::Market) && id == EntityId::market(id.slot(), id.ordinal());
        input.expect("a market's id", is_market, 2, id.bits() >> 60)?;
        input.expect("a market once", self.table.get(id).is_none(), 0, id.bits())?;
        input.expect("a market's rows", next_row <= MARKET_ROWS_MAX, MARKET_ROWS_MAX.into(), next_row.into())?;
        input.expect("a market's floor", floor_row <= next_row, next_row.into(), floor_row.into())?;
        input.expect("a market's horizon", horizon <= self.last_tx, self.last_tx.bits(), horizon.bits())?;
        // Rows that are gone and a past that can be asked for would be answers without them.
        let both = (floor_row == 0) == (horizon == Tx::ZERO);
        input.expect("a horizon where rows are gone", both, floor_row.into(), horizon.bits())?;
        input.expect("a market's last pruned tx", gone <= horizon, horizon.bits(), gone.bits())?;
        let Some(options) = MarketOptions::from_bits(options) else {
            return input.expect("a market's options", false, 7, options.into());
        };
        let MarketIx(at) = self.add_market(id, options);
        let market = &mut self.markets[at as usize];
        market.first = next_row;
        market.floor = Floor { row: floor_row, id: floor_id, horizon, gone };
        market.window = window;
        Ok(())
    }

    /// The runs hold every row from the floors to the rows so far, and none beyond.
    fn compare_runs(&self) -> Result<(), Malformed> {
        let malformed = |what, expected, found| Malformed { at: 0, what, expected, found };
        let mut last_tx = Tx::ZERO;
        let mut next: Vec<u32> = self.markets.iter().map(|market| market.floor.row).collect();
        for run in &self.runs {
            let meta = run.meta();
            if meta.kind != R::KIND as u8 {
                return Err(malformed("a run's kind", R::KIND as u64, meta.kind.into()));
            }
            if meta.rows > 0 && meta.tx_min <= last_tx {
                return Err(malformed("order of runs by tx", last_tx.bits(), meta.tx_min.bits()));
            }
            last_tx = last_tx.max(meta.tx_max);
            for block in run.blocks() {
                let Some(MarketIx(at)) = self.table.get(block.market) else {
                    return Err(malformed("market of a run's block", 0, block.market.bits()));
                };
                let next = &mut next[at as usize];
                if block.first_row > *next {
                    return Err(malformed("first row of a run's block", u64::from(*next), block.first_row.into()));
                }
                *next = (*next).max(block.end_row());
            }
        }
        if last_tx > self.last_tx {
            return Err(malformed("last tx of the runs", self.last_tx.bits(), last_tx.bits()));
        }
        match self.markets.iter().zip(next).find(|(market, next)| market.first != *next) {
            Some((market, next)) => Err(malformed("rows of a market in the runs", market.first.into(), next.into())),
            None => Ok(()),
        }
    }
}
