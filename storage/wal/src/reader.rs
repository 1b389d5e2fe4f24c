//! Reads durable records back: by `read_at` from any segment, by map from sealed ones.
//!
//! ```text
//!   Tail::pin(lsn) -> Pinned -> read(disk, pinned, from)      catching a follower up; also the active segment
//!                            -> MappedSegment::open(..)       scans that run long; sealed segments only
//! ```
//!
//! Both hold the segment against reuse. Deliberately absent: a cache (the kernel has one) and the way from one segment
//! to the next (pin again at [`Pinned::end`]).

use std::sync::Arc;

use crate::map::Map;
use crate::record::{Header, KIND_MARK, Record};
use crate::replay::{corrupt, flaw};
use crate::scan::Scan;
use crate::segment::{RECORDS_AT, SegmentHeader, file_name};
use crate::{BLOCK_BYTES, Config, Disk, DiskFile, HEADER_BYTES, Lsn, Pinned, Visited, WalError};

/// Visits the records of one segment from `from` (where a record starts; or the segment's start) to [`Pinned::end`],
/// each verified. Answers where the next segment goes on. **Errors:** [`WalError::Corrupt`] for any flaw: all of it was
/// durable; also for a `from` that is no record's place.
pub fn read(
    disk: &dyn Disk,
    config: &Config,
    pinned: &Pinned,
    from: Lsn,
    visit: &mut dyn FnMut(Record<'_>) -> Visited,
) -> Result<Lsn, WalError> {
    let name = file_name(pinned.slot);
    let file = disk.open(&name).map_err(WalError::io("open", &name, 0))?;
    let limit = limit_of(pinned, config)?;
    let from = match from.place(config.segment_bytes) {
        Some((epoch, offset)) if epoch == pinned.epoch => offset.max(RECORDS_AT),
        _ => RECORDS_AT,
    };
    let mut scan = Scan::new(file, pinned.slot, pinned.epoch, config);
    let walked = scan.walk(from, limit, None, &mut |record| match record.header.kind {
        KIND_MARK => Ok(()),
        _ => visit(record),
    })?;
    match walked.flaw {
        Some(flaw) => Err(corrupt(pinned.slot, walked.offset, flaw)),
        None => Ok(pinned.end()),
    }
}

/// A sealed segment in memory, verified, held against reuse.
#[derive(Debug)]
pub struct MappedSegment {
    /// Declared before `pinned`, so unmapped before the hold is gone.
    map: Map,
    pinned: Pinned,
    segment_bytes: u64,
    limit: usize,
}

impl MappedSegment {
    /// Verifies every record by `read_at`, then maps. **Panics** if the segment is not sealed.
    /// **Cost:** reads the segment once.
    pub fn open(disk: &dyn Disk, config: &Config, pinned: Pinned) -> Result<Self, WalError> {
        assert!(pinned.is_sealed(), "the active segment is never mapped");
        let name = file_name(pinned.slot);
        let file = disk.open(&name).map_err(WalError::io("open", &name, 0))?;
        let limit = limit_of(&pinned, config)?;
        verify(&file, config, &pinned, limit)?;
        let map = file.map().map_err(WalError::io("map", &name, 0))?;
        let limit = usize::try_from(limit).expect("a segment fits into memory");
        assert!(map.bytes().len() >= limit, "a segment keeps its size");
        Ok(Self { map, pinned, segment_bytes: config.segment_bytes, limit })
    }

    /// The segment's records, marks left out. **Cost:** none is copied or verified again.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut at = RECORDS_AT as usize;
        let next = move || {
            let (header, rest) = self.map.bytes()[..self.limit].get(at..)?.split_at_checked(HEADER_BYTES)?;
            let header = Header::read(header);
            // The bytes were verified; should the medium change its mind, this ends instead of reading elsewhere.
            let payload = rest.get(..header.length as usize)?;
            let lsn = Lsn::at(self.pinned.epoch, at as u64, self.segment_bytes);
            at += header.stride();
            Some(Record { lsn, header, payload })
        };
        std::iter::from_fn(next).filter(|record| record.header.kind != KIND_MARK)
    }

    /// Where the next segment goes on.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.pinned.end()
    }
}

fn verify(file: &Arc<dyn DiskFile>, config: &Config, pinned: &Pinned, limit: u64) -> Result<(), WalError> {
    let mut block = [0; BLOCK_BYTES];
    file.read_at(0, &mut block).map_err(WalError::io("read", &file_name(pinned.slot), 0))?;
    let header = SegmentHeader::read(&block, config).and_then(|readable| readable);
    let header = header.map_err(|flaw| corrupt(pinned.slot, 0, flaw))?;
    if header.epoch != pinned.epoch {
        return Err(corrupt(pinned.slot, 0, flaw("epoch", pinned.epoch, header.epoch)));
    }
    let chain = crate::record::Chain { previous_crc: header.previous_crc, incarnation: header.incarnation };
    let mut scan = Scan::new(Arc::clone(file), pinned.slot, pinned.epoch, config);
    match scan.walk(RECORDS_AT, limit, Some(chain), &mut |_| Ok(()))? {
        crate::scan::Walked { flaw: Some(flaw), offset, .. } => Err(corrupt(pinned.slot, offset, flaw)),
        _ => Ok(()),
    }
}

fn limit_of(pinned: &Pinned, config: &Config) -> Result<u64, WalError> {
    let place = pinned.end().place(config.segment_bytes).filter(|&(epoch, _)| epoch == pinned.epoch);
    place.map(|(_, offset)| offset).ok_or(WalError::Mismatch {
        subject: file_name(pinned.slot),
        what: "segment_bytes",
        expected: pinned.end().bits(),
        found: config.segment_bytes,
    })
}
