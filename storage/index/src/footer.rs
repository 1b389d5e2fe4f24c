//! The last bytes of a sealed file, whatever its blocks hold.
//!
//! ```text
//!   0        8         10     11     12       16               24          28    32     40            56     72     76      124
//!   [ magic | version | kind | zero | blocks | directory's at | texts len | CRC | rows | tx min, max | hash | more | zeros | CRC ]
//!   directory:  an entry per block | texts of them, of any length | more entries, where a family has them
//! ```
//! Every byte is drawn in `README.md`. Deliberately absent: what an entry says (`columns/directory.rs`, `facts/directory.rs`).

use core::ops::RangeInclusive;
use std::path::Path;

use myelin_datom::Tx;

use crate::RunMeta;
use crate::columns::wire::{Input, Malformed};
use crate::sealed::{HEADER_BYTES, Stretch};

pub(crate) const FOOTER_BYTES: usize = 128;

/// What the files of a family have in common.
pub(crate) struct Family {
    /// What their footers begin with.
    pub magic: &'static [u8; 8],
    /// Versions that are read; the last is written.
    pub versions: RangeInclusive<u16>,
    /// **Units:** bytes of a block's entry.
    pub entry_bytes: usize,
    /// **Units:** bytes of one of the entries behind the texts; 0 where there are none.
    pub more_bytes: usize,
}

/// The last bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub kind: u8,
    pub blocks: u32,
    pub directory_offset: u64,
    /// **Units:** bytes of what stands behind the blocks' entries: totals, or first keys.
    pub texts_len: u32,
    pub directory_crc: u32,
    /// Rows, or datoms.
    pub rows: u64,
    pub tx_min: Tx,
    pub tx_max: Tx,
    /// XXH3-128, seed 0, of everything before the footer.
    pub hash: u128,
    /// Entries behind the texts.
    pub more: u32,
}

impl Footer {
    /// **Units:** bytes of the blocks' entries.
    pub(crate) fn entries_len(&self, family: &Family) -> usize {
        self.blocks as usize * family.entry_bytes
    }

    /// Where the directory lies; it ends before the footer.
    pub(crate) fn directory(&self, family: &Family) -> Stretch {
        let more = u64::from(self.more) * family.more_bytes as u64;
        let len = self.entries_len(family) as u64 + u64::from(self.texts_len) + more;
        Stretch { offset: self.directory_offset, len, crc: self.directory_crc }
    }

    /// What a manifest says of the file.
    pub(crate) fn meta(&self, path: &Path, bytes: u64) -> RunMeta {
        let Self { kind, rows, blocks, tx_min, tx_max, hash, .. } = *self;
        RunMeta { path: path.to_owned(), bytes, hash, kind, rows, blocks, tx_min, tx_max }
    }

    pub(crate) fn write(&self, family: &Family) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(family.magic);
        out.extend_from_slice(&family.versions.end().to_le_bytes());
        out.extend_from_slice(&[self.kind, 0]);
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.directory_offset.to_le_bytes());
        out.extend_from_slice(&self.texts_len.to_le_bytes());
        out.extend_from_slice(&self.directory_crc.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.tx_min.bits().to_le_bytes());
        out.extend_from_slice(&self.tx_max.bits().to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.more.to_le_bytes());
        out.resize(FOOTER_BYTES - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the end of a file of so many bytes. `Ok(Err(version))` when it is of another version.
    pub(crate) fn read(
        family: &Family,
        bytes: &[u8; FOOTER_BYTES],
        file_len: u64,
    ) -> Result<Result<Self, u16>, Malformed> {
        let mut input = Input::new(bytes);
        let magic = input.take(8)? == family.magic;
        input.expect("a footer's magic", magic, 1, 0)?;
        let mut crc_at = Input::new(&bytes[FOOTER_BYTES - 4..]);
        let (crc, expected) = (crc_at.u32()?, crc32fast::hash(&bytes[..FOOTER_BYTES - 4]));
        input.expect("a footer's checksum", crc == expected, expected.into(), crc.into())?;
        let version = input.u16()?;
        if !family.versions.contains(&version) {
            return Ok(Err(version));
        }
        let kind = input.u8()?;
        input.zeros(1)?;
        let (blocks, directory_offset) = (input.u32()?, input.u64()?);
        let (texts_len, directory_crc) = (input.u32()?, input.u32()?);
        let (rows, tx_min, tx_max) = (input.u64()?, Tx::from_bits(input.u64()?), Tx::from_bits(input.u64()?));
        let hash = u128::from(input.u64()?) | u128::from(input.u64()?) << 64;
        let more = input.u32()?;
        input.expect("entries behind the texts", more == 0 || family.more_bytes > 0, 0, more.into())?;
        input.zeros(FOOTER_BYTES - 4 - input.at() as usize)?;
        let footer =
            Self { kind, blocks, directory_offset, texts_len, directory_crc, rows, tx_min, tx_max, hash, more };
        let Stretch { offset, len, .. } = footer.directory(family);
        let end = offset.saturating_add(len).saturating_add(FOOTER_BYTES as u64);
        input.expect("a directory's end", offset >= HEADER_BYTES as u64 && end == file_len, file_len, end)?;
        Ok(Ok(footer))
    }
}
