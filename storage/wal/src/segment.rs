//! A segment: a file of fixed size that is used again and again, each time under a new epoch.
//!
//! ```text
//!   segment-0003   | header block 4,096 | record | record | record .....            | never renamed, never truncated
//!
//!    0 magic [u8;8] |  8 version u32 | 12 core u32 | 16 epoch u32 | 20 incarnation u32 | 24 segment_bytes u64
//!   32 previous_end u64 | 40 oldest u64 | 48 log_id u64 | 56 previous_crc u32 | 60 crc u32 of 0..60 | 64.. zero
//! ```
//!
//! The header is one sector, written and durable *before* the segment's first record and *after* the last record of the
//! segment before. So a valid header proves that all below `previous_end` was durable, and records without their header
//! are damage, never a crash. Epoch 0 marks a spare: allocated, zeroed, never used.

use crate::record::{Flaw, expect};
use crate::{BLOCK_BYTES, Config, Lsn};

/// Size of what is used of the header block. **Units:** bytes.
const USED_BYTES: usize = 64;
const CRC_AT: usize = 60;
const MAGIC: [u8; 8] = *b"MyelnWal";
const VERSION: u32 = 1;

/// Where a segment's first record starts. **Units:** bytes.
pub(crate) const RECORDS_AT: u64 = BLOCK_BYTES as u64;

/// The epoch in the header of a slot that was prepared and never used.
pub(crate) const SPARE_EPOCH: u32 = 0;

/// Slots that four digits can name.
pub(crate) const SLOTS_MAX: u32 = 10_000;

/// A segment's header as it is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct SegmentHeader {
    magic: [u8; 8],
    version: u32,
    core: u32,
    pub(crate) epoch: u32,
    /// The opening of the log in which this use began.
    pub(crate) incarnation: u32,
    segment_bytes: u64,
    /// Where the records of the previous epoch end; all below is durable.
    pub(crate) previous_end: Lsn,
    /// Where the oldest segment in use began, when this use began.
    pub(crate) oldest: Lsn,
    log_id: u64,
    /// `crc` of the last record before this segment.
    pub(crate) previous_crc: u32,
    crc: u32,
}

const _: () = {
    assert!(size_of::<SegmentHeader>() == USED_BYTES);
    assert!(core::mem::offset_of!(SegmentHeader, version) == 8);
    assert!(core::mem::offset_of!(SegmentHeader, core) == 12);
    assert!(core::mem::offset_of!(SegmentHeader, epoch) == 16);
    assert!(core::mem::offset_of!(SegmentHeader, incarnation) == 20);
    assert!(core::mem::offset_of!(SegmentHeader, segment_bytes) == 24);
    assert!(core::mem::offset_of!(SegmentHeader, previous_end) == 32);
    assert!(core::mem::offset_of!(SegmentHeader, oldest) == 40);
    assert!(core::mem::offset_of!(SegmentHeader, log_id) == 48);
    assert!(core::mem::offset_of!(SegmentHeader, previous_crc) == 56);
    assert!(core::mem::offset_of!(SegmentHeader, crc) == CRC_AT);
};

/// What a segment's use begins with, but for its configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) epoch: u32,
    pub(crate) incarnation: u32,
    pub(crate) previous_end: Lsn,
    pub(crate) oldest: Lsn,
    pub(crate) previous_crc: u32,
}

impl SegmentHeader {
    pub(crate) fn new(config: &Config, opening: Opening) -> Self {
        let mut header = Self {
            magic: MAGIC,
            version: VERSION,
            core: config.core,
            epoch: opening.epoch,
            incarnation: opening.incarnation,
            segment_bytes: config.segment_bytes,
            previous_end: opening.previous_end,
            oldest: opening.oldest,
            log_id: config.log_id,
            previous_crc: opening.previous_crc,
            crc: 0,
        };
        header.crc = header.crc_now();
        header
    }

    /// The header of a slot that waits for its first use.
    pub(crate) fn spare(config: &Config) -> Self {
        Self::new(
            config,
            Opening { epoch: SPARE_EPOCH, incarnation: 0, previous_end: Lsn::ZERO, oldest: Lsn::ZERO, previous_crc: 0 },
        )
    }

    /// Fills a whole header block. **Panics** unless it is one.
    pub(crate) fn write(&self, block: &mut [u8]) {
        assert!(block.len() == BLOCK_BYTES, "a header takes one block");
        block.fill(0);
        block[..USED_BYTES].copy_from_slice(bytemuck::bytes_of(self));
    }

    /// The header if it was once written as it is. The outer error is damage, the inner one another owner's file.
    pub(crate) fn read(bytes: &[u8], config: &Config) -> Result<Result<Self, Flaw>, Flaw> {
        let header: Self = bytemuck::pod_read_unaligned(&bytes[..USED_BYTES]);
        expect("segment magic", u64::from_le_bytes(MAGIC), u64::from_le_bytes(header.magic))?;
        expect("segment header crc", header.crc_now(), header.crc)?;
        Ok(header.fits(config).map(|()| header))
    }

    fn fits(&self, config: &Config) -> Result<(), Flaw> {
        expect("format version", VERSION, self.version)?;
        expect("core", config.core, self.core)?;
        expect("log_id", config.log_id, self.log_id)?;
        expect("segment_bytes", config.segment_bytes, self.segment_bytes)
    }

    fn crc_now(&self) -> u32 {
        crc32fast::hash(&bytemuck::bytes_of(self)[..CRC_AT])
    }
}

/// The file of a slot.
pub(crate) fn file_name(slot: u32) -> String {
    format!("segment-{slot:04}")
}

/// The slot of a file; none if the file is not a segment.
pub(crate) fn slot_of(file: &str) -> Option<u32> {
    let slot = file.strip_prefix("segment-")?.parse().ok()?;
    (slot < SLOTS_MAX && file_name(slot) == file).then_some(slot)
}
