//! Reads records of one segment in order, and stops at the first place that is not the record that should follow.
//!
//! ```text
//!   file   |h|rec|rec|rec......|rec|...        window: a large pread, moved forward when a record leaves it
//!               [ window          ]
//! ```
//!
//! The header is verified before its length is believed, and the length is bounded by what is left of the segment, so no
//! bytes make the scan read elsewhere, allocate more than a segment, or panic. A scan that has lost its way tries every
//! 64th byte, but only to *diagnose*: records found so are never handed out.
//! Deliberately absent: any verdict. Whether a bad place is a torn tail or damage is decided in `replay.rs`.

use std::sync::Arc;

use crate::blocks::{Buffer, block_down};
use crate::planted::{self, Bug};
use crate::record::{Chain, Flaw, Header, Place, Record, expect};
use crate::segment::file_name;
use crate::{BLOCK_BYTES, Config, DiskFile, HEADER_BYTES, Lsn, Visited, WalError};

/// What one read fetches. **Units:** bytes.
const WINDOW_BYTES: usize = 1 << 20;

/// One segment file under one epoch, read through a moving window.
pub(crate) struct Scan {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) segment_bytes: u64,
    log_id: u64,
    window: Buffer,
    /// What of the file is in the window.
    start: u64,
    end: u64,
}

/// What is at a place.
pub(crate) enum Found<'a> {
    Record(Record<'a>),
    Bad(Flaw),
}

impl Scan {
    pub(crate) fn new(file: Arc<dyn DiskFile>, slot: u32, epoch: u32, config: &Config) -> Self {
        let segment_bytes = config.segment_bytes;
        let window = Buffer::new(WINDOW_BYTES.min(usize::try_from(segment_bytes).unwrap_or(WINDOW_BYTES)));
        Self { file, slot, epoch, segment_bytes, log_id: config.log_id, window, start: 0, end: 0 }
    }

    /// The record at an offset, if it is whole, ends by `limit`, and continues `chain` where one is given.
    pub(crate) fn record_at(&mut self, offset: u64, limit: u64, chain: Option<Chain>) -> Result<Found<'_>, WalError> {
        let lsn = Lsn::at(self.epoch, offset, self.segment_bytes);
        let (place, epoch) = (Place::new(lsn, self.log_id), self.epoch);
        let header = Header::read(self.bytes(offset, HEADER_BYTES)?);
        if let Err(flaw) = check_header(&header, place, epoch, limit - offset, chain) {
            return Ok(Found::Bad(flaw));
        }
        let payload = &self.bytes(offset, HEADER_BYTES + header.length as usize)?[HEADER_BYTES..];
        match expect("payload crc", header.payload_crc, crc32fast::hash(payload)) {
            Err(flaw) if !planted::is(Bug::NoPayloadCrc) => Ok(Found::Bad(flaw)),
            _ => Ok(Found::Record(Record { lsn, header, payload })),
        }
    }

    /// Visits the records from an offset on, each verified and chained to the one before. Ends at `limit` or at a flaw;
    /// answers where, what the next record must continue, and the flaw.
    pub(crate) fn walk(
        &mut self,
        from: u64,
        limit: u64,
        mut chain: Option<Chain>,
        visit: &mut dyn FnMut(Record<'_>) -> Visited,
    ) -> Result<Walked, WalError> {
        let mut offset = from;
        while offset < limit {
            let record = match self.record_at(offset, limit, chain)? {
                Found::Record(record) => record,
                Found::Bad(flaw) => return Ok(Walked { offset, chain, flaw: Some(flaw) }),
            };
            visit(record).map_err(|source| WalError::Replay { lsn: record.lsn, source })?;
            chain = Some(record.header.chain());
            offset += record.header.stride() as u64;
        }
        Ok(Walked { offset, chain, flaw: None })
    }

    /// Every header at or after an offset that was once sealed at its place under one of `epochs`, chained or not.
    pub(crate) fn sealed_headers(
        &mut self,
        from: u64,
        epochs: std::ops::RangeInclusive<u32>,
        visit: &mut dyn FnMut(u64, &Header),
    ) -> Result<(), WalError> {
        let mut offset = from;
        while offset + HEADER_BYTES as u64 <= self.segment_bytes {
            let header = Header::read(self.bytes(offset, HEADER_BYTES)?);
            if epochs.contains(&header.epoch) {
                let lsn = Lsn::at(header.epoch, offset, self.segment_bytes);
                if header.verify(Place::new(lsn, self.log_id), header.epoch).is_ok() {
                    visit(offset, &header);
                }
            }
            offset += HEADER_BYTES as u64;
        }
        Ok(())
    }

    /// Bytes of the file, through the window. **Panics** beyond the segment.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], WalError> {
        let end = offset + length as u64;
        assert!(end <= self.segment_bytes, "a scan stays in its segment");
        if offset < self.start || end > self.end {
            self.refill(offset, length)?;
        }
        let at = usize::try_from(offset - self.start).expect("the window is smaller than memory");
        Ok(&self.window.bytes()[at..at + length])
    }

    fn refill(&mut self, offset: u64, length: usize) -> Result<(), WalError> {
        // Whole blocks, so that the read need not go through the page cache.
        let start = block_down(offset);
        let ahead = usize::try_from(offset - start).expect("less than a block");
        if ahead + length > self.window.len() {
            self.window = Buffer::new(ahead + length + BLOCK_BYTES);
        }
        let left = usize::try_from(self.segment_bytes - start).unwrap_or(usize::MAX);
        let window = self.window.len().min(left);
        // Emptied first: after a failed read the window holds nothing.
        (self.start, self.end) = (start, start);
        let into = &mut self.window.bytes_mut()[..window];
        self.file.read_at(start, into).map_err(WalError::io("read", &file_name(self.slot), start))?;
        self.end = start + window as u64;
        Ok(())
    }
}

/// Where a walk ended.
#[derive(Debug)]
pub(crate) struct Walked {
    pub(crate) offset: u64,
    pub(crate) chain: Option<Chain>,
    pub(crate) flaw: Option<Flaw>,
}

/// Everything that can be said of a header before its payload is read. `left` is what the segment still holds.
fn check_header(header: &Header, place: Place, epoch: u32, left: u64, chain: Option<Chain>) -> Result<(), Flaw> {
    if planted::is(Bug::NoEpochInCrc) {
        expect("record magic", crate::record::MAGIC, header.magic)?;
    } else {
        header.verify(place, epoch)?;
        if let Some(chain) = chain {
            header.follows(chain)?;
        }
    }
    if header.stride() as u64 > left {
        return Err(Flaw { what: "stride at most", expected: left, found: header.stride() as u64 });
    }
    Ok(())
}
