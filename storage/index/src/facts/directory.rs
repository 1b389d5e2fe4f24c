//! The frame of a run of facts: header, one directory entry per block with its first key, how many retractions there are of
//! each attribute.
//!
//! Every byte is drawn in `README.md`. Invariants: entries ascend by order, then by first key; a parsed directory is sound
//! (offsets within the file, orders in their turn), so readers need not check it again. Deliberately absent: the keys of
//! a block (`run.rs`).

use myelin_datom::{EntityId, Tx};

use super::key::{KeyRef, Order};
use crate::columns::wire::{Input, Malformed};
use crate::footer::{Family, Footer};
use crate::sealed::HEADER_BYTES;

/// Format version of a run of facts.
pub(crate) const VERSION: u16 = 3;
pub(crate) const HEADER_MAGIC: &[u8; 8] = b"MYELFCT\n";
/// Behind the first keys stands how many retractions there are of each attribute.
pub(crate) const FAMILY: Family =
    Family { magic: b"MYELFCT.", versions: VERSION..=VERSION, entry_bytes: 32, more_bytes: 24 };

/// One block of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub order: Order,
    pub keys: u32,
    /// **Units:** bytes from the start of the file.
    pub offset: u64,
    pub len: u32,
    pub crc: u32,
    /// What its keys begin with or lie behind, and those of the block before do not: as short as that allows.
    pub first: Box<[u8]>,
}

impl BlockEntry {
    pub(crate) fn write(&self, entries: &mut Vec<u8>, firsts: &mut Vec<u8>) {
        entries.extend_from_slice(&[self.order as u8, 0, 0, 0]);
        entries.extend_from_slice(&self.keys.to_le_bytes());
        entries.extend_from_slice(&self.offset.to_le_bytes());
        entries.extend_from_slice(&self.len.to_le_bytes());
        entries.extend_from_slice(&self.crc.to_le_bytes());
        entries.extend_from_slice(&(self.first.len() as u32).to_le_bytes());
        entries.extend_from_slice(&[0; 4]);
        firsts.extend_from_slice(&self.first);
    }

    fn read(input: &mut Input<'_>, firsts: &mut Input<'_>, blocks_end: u64) -> Result<Self, Malformed> {
        let number = input.u8()?;
        input.zeros(3)?;
        let (keys, offset, len, crc) = (input.u32()?, input.u64()?, input.u32()?, input.u32()?);
        let first_len = input.u32()?;
        input.zeros(4)?;
        let order = Order::kept(number);
        input.expect(
            "a block's keys",
            keys > 0 && u64::from(keys) * 4 + 4 <= u64::from(len),
            len.into(),
            keys.into(),
        )?;
        let end = offset.saturating_add(len.into());
        input.expect("a block's end", offset >= HEADER_BYTES as u64 && end <= blocks_end, blocks_end, end)?;
        let first = firsts.take(first_len as usize)?.into();
        match order {
            Some(order) => Ok(Self { order, keys, offset, len, crc, first }),
            None => Err(Malformed { at: input.at(), what: "a block's order", expected: 5, found: number.into() }),
        }
    }
}

/// Retractions of one attribute: where they lie below its horizon each is gone, and an assertion with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub attribute: EntityId,
    pub datoms: u64,
    /// The transaction of the last of them.
    pub last: Tx,
}

impl Taken {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for word in [self.attribute.bits(), self.datoms, self.last.bits()] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn read(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let (attribute, datoms, last) = (input.u64()?, input.u64()?, input.u64()?);
        Ok(Self { attribute: EntityId::from_bits(attribute), datoms, last: Tx::from_bits(last) })
    }
}

/// Reads a directory whose checksum was verified.
pub(crate) fn read(bytes: &[u8], footer: &Footer) -> Result<(Vec<BlockEntry>, Vec<Taken>), Malformed> {
    let mut input = Input::new(bytes);
    let mut entries = Input::new(input.take(footer.entries_len(&FAMILY))?);
    let mut firsts = Input::new(input.take(footer.texts_len as usize)?);
    let mut blocks: Vec<BlockEntry> = Vec::with_capacity(footer.blocks as usize);
    let mut datoms = 0_u64;
    for _ in 0..footer.blocks {
        let block = BlockEntry::read(&mut entries, &mut firsts, footer.directory_offset)?;
        if let Some(last) = blocks.last() {
            let follows = last.order < block.order
                || last.order == block.order && KeyRef::new(&last.first) < KeyRef::new(&block.first);
            entries.expect("order of blocks", follows, last.order as u64, block.order as u64)?;
        }
        datoms += if block.order == Order::Eavt { u64::from(block.keys) } else { 0 };
        blocks.push(block);
    }
    entries.expect("datoms of all blocks", datoms == footer.rows, footer.rows, datoms)?;
    firsts.expect("first keys of all blocks", firsts.left() == 0, 0, firsts.left() as u64)?;
    let kind = footer.kind;
    let (tx_min, tx_max) = (footer.tx_min, footer.tx_max);
    input.expect("transactions of a run", tx_min <= tx_max, tx_min.bits(), tx_max.bits())?;
    input.expect("a footer's kind", kind == super::FACTS_KIND, super::FACTS_KIND.into(), kind.into())?;
    let taken = (0..footer.more).map(|_| Taken::read(&mut input)).collect::<Result<Vec<_>, _>>()?;
    let retracted = taken.iter().fold(0_u64, |sum, taken| sum.saturating_add(taken.datoms));
    input.expect("retractions of all attributes", retracted <= datoms, datoms, retracted)?;
    Ok((blocks, taken))
}

/// **Shape:** magic 8, version u16, kind u8, zeros, CRC-32 u32.
pub(crate) fn write_header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10] = super::FACTS_KIND;
    let crc = crc32fast::hash(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Refuses bytes that are no header of this version.
pub(crate) fn read_header(header: &[u8; HEADER_BYTES]) -> Result<(), Malformed> {
    let mut input = Input::new(header);
    let magic = input.take(8)? == HEADER_MAGIC;
    input.expect("a header's magic", magic, 1, 0)?;
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    let expected = crc32fast::hash(body);
    let found = u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]);
    input.expect("a header's checksum", expected == found, expected.into(), found.into())?;
    // Which version it is the footer says.
    let (_version, kind) = (input.u16()?, input.u8()?);
    input.expect("a header's kind", kind == super::FACTS_KIND, super::FACTS_KIND.into(), kind.into())?;
    input.zeros(body.len() - 11)
}
