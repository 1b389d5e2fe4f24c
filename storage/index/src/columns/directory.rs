//! The end of a run file: one entry per block, the blocks' totals.
//!
//! Every byte is drawn in `README.md`. Invariants: entries ascend by market, then by first row; a parsed directory is
//! sound (offsets within the file, rows within bounds, zones the right way round), so readers need not check it again.

use myelin_datom::{EntityId, Kind, Tx};

use super::block::{BLOCK_ROWS, Zone};
use super::wire::{Input, Malformed};
use crate::footer::{Family, Footer};
use crate::sealed::HEADER_BYTES;
use myelin_exact::Totals;

/// Format version of a run file.
pub(crate) const VERSION: u16 = 2;
pub(crate) const HEADER_MAGIC: &[u8; 8] = b"MYELRUN\n";
/// Blocks of version 1 had all transactions in one page.
pub(crate) const FAMILY: Family = Family { magic: b"MYELRUN.", versions: 1..=VERSION, entry_bytes: 104, more_bytes: 0 };

/// One block of a run.
#[derive(Clone, Debug)]
pub(crate) struct BlockEntry {
    pub market: EntityId,
    /// Number of the block's first row within the market.
    pub first_row: u32,
    pub rows: u32,
    /// **Units:** bytes from the start of the file.
    pub offset: u64,
    pub len: u32,
    pub crc: u32,
    pub zone: Zone,
    pub tx_min: Tx,
    pub tx_max: Tx,
    pub price_min: f64,
    pub price_max: f64,
    /// Ids rise strictly: a page is found by its zone alone.
    pub ascending: bool,
    pub totals: Totals,
}

impl BlockEntry {
    pub(crate) fn end_row(&self) -> u32 {
        self.first_row + self.rows
    }

    pub(crate) fn write(&self, entries: &mut Vec<u8>, totals: &mut Vec<u8>) {
        let before = totals.len();
        self.totals.write(totals);
        entries.extend_from_slice(&self.market.bits().to_le_bytes());
        entries.extend_from_slice(&self.first_row.to_le_bytes());
        entries.extend_from_slice(&self.rows.to_le_bytes());
        entries.extend_from_slice(&self.offset.to_le_bytes());
        entries.extend_from_slice(&self.len.to_le_bytes());
        entries.extend_from_slice(&self.crc.to_le_bytes());
        for word in [
            self.zone.id_min,
            self.zone.id_max,
            self.zone.event_min as u64,
            self.zone.event_max as u64,
            self.tx_min.bits(),
            self.tx_max.bits(),
            self.price_min.to_bits(),
            self.price_max.to_bits(),
        ] {
            entries.extend_from_slice(&word.to_le_bytes());
        }
        entries.extend_from_slice(&u32::from(self.ascending).to_le_bytes());
        entries.extend_from_slice(&((totals.len() - before) as u32).to_le_bytes());
    }

    fn read(input: &mut Input<'_>, totals: &mut Input<'_>, blocks_end: u64) -> Result<Self, Malformed> {
        let market = EntityId::from_bits(input.u64()?);
        let (first_row, rows, offset) = (input.u32()?, input.u32()?, input.u64()?);
        let (len, crc) = (input.u32()?, input.u32()?);
        let zone = Zone {
            id_min: input.u64()?,
            id_max: input.u64()?,
            event_min: input.u64()? as i64,
            event_max: input.u64()? as i64,
        };
        let (tx_min, tx_max) = (Tx::from_bits(input.u64()?), Tx::from_bits(input.u64()?));
        let (price_min, price_max) = (f64::from_bits(input.u64()?), f64::from_bits(input.u64()?));
        let (ascending, totals_len) = (input.u32()?, input.u32()?);
        input.expect("a block's market", market.kind() == Some(Kind::Market), 2, market.bits() >> 60)?;
        let rows_sound = rows > 0 && rows as usize <= BLOCK_ROWS && first_row.checked_add(rows).is_some();
        input.expect("a block's rows", rows_sound, BLOCK_ROWS as u64, rows.into())?;
        let end = offset.saturating_add(len.into());
        input.expect("a block's end", offset >= HEADER_BYTES as u64 && end <= blocks_end, blocks_end, end)?;
        input.expect("a block's transactions", tx_min <= tx_max, tx_min.bits(), tx_max.bits())?;
        let zones = zone.id_min <= zone.id_max && zone.event_min <= zone.event_max && price_min <= price_max;
        input.expect("a block's zones", zones, 1, 0)?;
        input.expect("a block's flags", ascending < 2, 1, ascending.into())?;
        let mut own = totals.take(totals_len as usize)?;
        let totals = Totals::read(&mut own).filter(|_| own.is_empty()).unwrap_or_default();
        input.expect("a block's totals", totals.count == u64::from(rows), rows.into(), totals.count)?;
        Ok(Self {
            market,
            first_row,
            rows,
            offset,
            len,
            crc,
            zone,
            tx_min,
            tx_max,
            price_min,
            price_max,
            ascending: ascending == 1,
            totals,
        })
    }
}

/// Reads a directory whose checksum was verified.
pub(crate) fn read(bytes: &[u8], footer: &Footer) -> Result<Vec<BlockEntry>, Malformed> {
    let mut input = Input::new(bytes);
    let mut entries = Input::new(input.take(footer.entries_len(&FAMILY))?);
    let mut totals = Input::new(input.take(footer.texts_len as usize)?);
    let mut blocks: Vec<BlockEntry> = Vec::with_capacity(footer.blocks as usize);
    let mut rows = 0_u64;
    for _ in 0..footer.blocks {
        let block = BlockEntry::read(&mut entries, &mut totals, footer.directory_offset)?;
        if let Some(last) = blocks.last() {
            let follows = last.market < block.market
                || last.market == block.market && last.end_row() <= block.first_row && last.tx_max <= block.tx_min;
            entries.expect("order of blocks", follows, last.end_row().into(), block.first_row.into())?;
        }
        let covered = footer.tx_min <= block.tx_min && block.tx_max <= footer.tx_max;
        entries.expect("transactions of a run", covered, footer.tx_max.bits(), block.tx_max.bits())?;
        rows += u64::from(block.rows);
        blocks.push(block);
    }
    entries.expect("rows of all blocks", rows == footer.rows, footer.rows, rows)?;
    totals.expect("totals of all blocks", totals.left() == 0, 0, totals.left() as u64)?;
    Ok(blocks)
}
