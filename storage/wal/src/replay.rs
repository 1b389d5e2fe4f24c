//! What a directory says: the records that count, and where the log ends. Reads only.
//!
//! ```text
//!   survey          slots -> in use by epoch | spare | blank
//!   run             the epochs from the checkpoint's to the newest, none absent
//!   replay          sealed segments must be whole; the newest is read to the first bad place
//!   look behind     is there proof that the bad place was durable once?
//!                     yes -> Corrupt, nothing is cut             no -> torn tail: the log ends here
//! ```
//!
//! Proof that a place was durable: a watermark above it, from the hard state, from a segment header, or from any sealed
//! record behind it. A record is written only after the batch before it was durable, and says where its batch starts; so
//! one surviving record of a later batch proves all earlier ones. Valid records of the *same* batch prove nothing: a
//! device may write the last block first.
//!
//! Deliberately absent: guessing. Sealed records behind a bad place are evidence, they are never handed out.

use std::sync::Arc;

use crate::blocks::block_down;
use crate::planted::{self, Bug};
use crate::record::{Flaw, Header, KIND_MARK, Record};
use crate::recover::{Cut, Report, Start};
use crate::scan::{Scan, Walked};
use crate::segment::{RECORDS_AT, file_name};
use crate::survey::{Survey, Used, survey};
use crate::{Config, Disk, Lsn, Visited, WalError};

/// A directory that was read to its end.
pub(crate) struct Found {
    pub(crate) survey: Survey,
    pub(crate) end: End,
    pub(crate) report: Report,
}

/// Reads a log to its end, visiting every record from `start.from` on.
pub(crate) fn replay(
    disk: &dyn Disk,
    config: &Config,
    start: Start,
    visit: &mut dyn FnMut(Record<'_>) -> Visited,
) -> Result<Found, WalError> {
    config.check()?;
    let survey = survey(disk, config, start.from)?;
    let mut replay = Replay::new(config, start, &survey.run);
    for (segment, next) in survey.run.iter().zip(survey.run.iter().skip(1)) {
        replay.sealed(segment, next, visit)?;
    }
    let end = match survey.run.last() {
        Some(newest) => replay.newest(newest, visit)?,
        None => replay.nothing()?,
    };
    let report = replay.finish(&end)?;
    Ok(Found { survey, end, report })
}

/// Where the log ends.
pub(crate) struct End {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
    /// What the block under the end already holds.
    pub(crate) partial: Vec<u8>,
    /// `crc` of the last record.
    pub(crate) previous_crc: u32,
    /// Whether the record that was cut still has its header.
    pub(crate) sealed_at_cut: bool,
    /// Greatest incarnation seen anywhere.
    incarnation: u32,
    cut: Option<Cut>,
}

/// What is sealed behind the first bad place of the newest segment.
#[derive(Default)]
struct Behind {
    synced: Lsn,
    incarnation: u32,
    end: u64,
    sealed_at_cut: bool,
}

struct Replay<'a> {
    config: &'a Config,
    start: Start,
    oldest: Lsn,
    segments: usize,
    records: u64,
    bytes: u64,
}

impl<'a> Replay<'a> {
    fn new(config: &'a Config, start: Start, run: &[Used]) -> Self {
        let oldest = run.first().map_or(Lsn::ZERO, |used| Lsn::at(used.header.epoch, 0, config.segment_bytes));
        Self { config, start, oldest, segments: run.len(), records: 0, bytes: 0 }
    }

    /// A segment with a successor: every byte of it was durable, so whatever is wrong is damage.
    fn sealed(
        &mut self,
        used: &Used,
        next: &Used,
        visit: &mut dyn FnMut(Record<'_>) -> Visited,
    ) -> Result<(), WalError> {
        let (epoch, limit) = next.header.previous_end.place(self.config.segment_bytes).unwrap_or_default();
        if epoch != used.header.epoch || limit < RECORDS_AT {
            return Err(corrupt(next.slot, 0, flaw("previous end in epoch", used.header.epoch, epoch)));
        }
        let (walked, _) = self.walk(used, limit, visit)?;
        if let Some(flaw) = walked.flaw {
            return Err(corrupt(used.slot, walked.offset, flaw));
        }
        let last = walked.chain.map_or(used.header.previous_crc, |chain| chain.previous_crc);
        if walked.offset != limit || last != next.header.previous_crc {
            return Err(corrupt(next.slot, 0, flaw("previous crc", last, next.header.previous_crc)));
        }
        Ok(())
    }

    /// The segment the log was last written in.
    fn newest(&mut self, used: &Used, visit: &mut dyn FnMut(Record<'_>) -> Visited) -> Result<End, WalError> {
        let (walked, mut scan) = self.walk(used, self.config.segment_bytes, visit)?;
        let offset = walked.offset;
        let chain = walked.chain.unwrap_or(used.chain());
        let behind = look_behind(&mut scan, offset, chain.incarnation)?;
        let end = Lsn::at(used.header.epoch, offset, self.config.segment_bytes);
        let proof = self.start.synced.max(behind.synced);
        if proof > end && !planted::is(Bug::CutTheMiddle) {
            let watermark = Flaw { what: "durable watermark", expected: proof.bits(), found: end.bits() };
            return Err(corrupt(used.slot, offset, walked.flaw.unwrap_or(watermark)));
        }
        let partial_at = block_down(offset);
        let partial = match usize::try_from(offset - partial_at) {
            Ok(bytes) if bytes > 0 => scan.bytes(partial_at, bytes)?.to_vec(),
            _ => Vec::new(),
        };
        let torn = |flaw: Flaw| {
            let recognisable = behind.end > offset || !matches!(flaw.what, "record magic" | "record epoch");
            let bytes = behind.end.saturating_sub(offset);
            recognisable.then(|| Cut { file: file_name(used.slot), offset, bytes, what: flaw.what })
        };
        Ok(End {
            slot: used.slot,
            epoch: used.header.epoch,
            offset,
            partial,
            previous_crc: chain.previous_crc,
            sealed_at_cut: behind.sealed_at_cut,
            incarnation: chain.incarnation.max(behind.incarnation),
            cut: walked.flaw.and_then(torn),
        })
    }

    /// A new log ends where the first segment's first record will start, seen from the epoch before.
    fn nothing(&self) -> Result<End, WalError> {
        let offset = self.config.segment_bytes;
        let end = Lsn::at(0, offset, self.config.segment_bytes);
        if self.start.synced > end {
            let lost = Flaw { what: "durable watermark", expected: self.start.synced.bits(), found: end.bits() };
            return Err(corrupt(0, 0, lost));
        }
        let (partial, cut) = (Vec::new(), None);
        Ok(End {
            slot: u32::MAX,
            epoch: 0,
            offset,
            partial,
            previous_crc: 0,
            sealed_at_cut: false,
            incarnation: 0,
            cut,
        })
    }

    fn finish(&self, end: &End) -> Result<Report, WalError> {
        let newest = Lsn::at(end.epoch, end.offset, self.config.segment_bytes);
        if self.start.from > newest {
            return Err(WalError::Missing { from: self.start.from, oldest: self.oldest, newest });
        }
        let spent = || corrupt(end.slot, end.offset, flaw("incarnation below", u32::MAX, end.incarnation));
        let opened = end.incarnation.checked_add(1).ok_or_else(spent)?;
        Ok(Report {
            records: self.records,
            bytes: self.bytes,
            segments: self.segments,
            oldest: self.oldest,
            end: newest,
            incarnation: if planted::is(Bug::NoIncarnation) { 1 } else { opened },
            cut: end.cut.clone(),
        })
    }

    fn walk(
        &mut self,
        used: &Used,
        limit: u64,
        visit: &mut dyn FnMut(Record<'_>) -> Visited,
    ) -> Result<(Walked, Scan), WalError> {
        let mut scan = Scan::new(Arc::clone(&used.file), used.slot, used.header.epoch, self.config);
        let (from, records) = (self.start.from, &mut self.records);
        let walked = scan.walk(RECORDS_AT, limit, Some(used.chain()), &mut |record| {
            if record.lsn < from || record.header.kind == KIND_MARK {
                return Ok(());
            }
            *records += 1;
            visit(record)
        })?;
        self.bytes += walked.offset - RECORDS_AT;
        Ok((walked, scan))
    }
}

/// Looks for sealed records at and behind the first bad place: the same segment's, chained or not.
fn look_behind(scan: &mut Scan, offset: u64, incarnation: u32) -> Result<Behind, WalError> {
    let mut behind = Behind::default();
    // A record cannot know of anything behind its own start.
    let (epoch, segment_bytes) = (scan.epoch, scan.segment_bytes);
    let honest = |at, header: &Header| header.synced_upto <= Lsn::at(epoch, at, segment_bytes);
    if planted::is(Bug::NoLookBehindTheCut) {
        return Ok(behind);
    }
    scan.sealed_headers(offset, scan.epoch..=scan.epoch, &mut |at, header| {
        behind.sealed_at_cut |= at == offset;
        if honest(at, header) {
            behind.synced = behind.synced.max(header.synced_upto);
            behind.incarnation = behind.incarnation.max(header.incarnation);
            // What an earlier incarnation left was cut long ago.
            let end = if header.incarnation < incarnation { offset } else { at + header.stride() as u64 };
            behind.end = behind.end.max(end);
        }
    })?;
    Ok(behind)
}

pub(crate) fn corrupt(slot: u32, offset: u64, flaw: Flaw) -> WalError {
    let Flaw { what, expected, found } = flaw;
    WalError::Corrupt { file: file_name(slot), offset, what, expected, found }
}

pub(crate) fn flaw(what: &'static str, expected: u32, found: u32) -> Flaw {
    Flaw { what, expected: expected.into(), found: found.into() }
}
