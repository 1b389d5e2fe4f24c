//! The first look at a directory: which slots hold the log, which are spare, which are blank. Reads headers only.
//!
//! ```text
//!   slots on disk    7   2*  8   -   5   0   6         number: epoch    0: spare    -: no valid header
//!   run              5 6 7 8                           from the checkpoint's epoch to the newest, none absent
//!   spares           2, 0                              * released long ago
//!   unprepared       -, and numbers without a file     made from nothing, unless records in use are found in it: damage
//! ```
//!
//! Deliberately absent: any belief in file names beyond the slot's number, and in sizes beyond "large enough".

use std::sync::Arc;

use crate::planted::{self, Bug};
use crate::record::Chain;
use crate::replay::{corrupt, flaw};
use crate::scan::Scan;
use crate::segment::{SPARE_EPOCH, SegmentHeader, file_name, slot_of};
use crate::{BLOCK_BYTES, Config, Disk, DiskFile, Lsn, WalError};

/// A slot whose header is valid and in use.
pub(crate) struct Used {
    pub(crate) slot: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
}

impl Used {
    /// What the segment's first record continues.
    pub(crate) fn chain(&self) -> Chain {
        Chain { previous_crc: self.header.previous_crc, incarnation: self.header.incarnation }
    }
}

/// All slots of a directory, by what they are.
pub(crate) struct Survey {
    /// The segments that matter, oldest first, epochs without a gap.
    pub(crate) run: Vec<Used>,
    pub(crate) spares: Vec<u32>,
    /// Numbers below `next_slot` that hold nothing.
    pub(crate) unprepared: Vec<u32>,
    pub(crate) next_slot: u32,
}

enum Slot {
    Used(Used),
    Spare,
    Blank(Arc<dyn DiskFile>),
}

/// Sorts the slots of a directory for a recovery from `from` on.
pub(crate) fn survey(disk: &dyn Disk, config: &Config, from: Lsn) -> Result<Survey, WalError> {
    let names = disk.list().map_err(WalError::io("list", ".", 0))?;
    let mut slots: Vec<u32> = names.iter().filter_map(|name| slot_of(name)).collect();
    slots.sort_unstable();
    let (mut used, mut spares, mut blank) = (Vec::new(), Vec::new(), Vec::new());
    for &slot in &slots {
        match look_at(disk, config, slot)? {
            Slot::Used(found) => used.push(found),
            Slot::Spare => spares.push(slot),
            Slot::Blank(file) => blank.push((slot, file)),
        }
    }
    let (run, old) = run(used, config, from)?;
    spares.extend(old.iter().map(|used| used.slot));
    let first = run.first().map_or(SPARE_EPOCH + 1, |used| used.header.epoch);
    for (slot, file) in &blank {
        refuse_orphans(*slot, file, first, config)?;
    }
    let next_slot = slots.last().map_or(0, |last| last + 1);
    // A number without a file was given up in an earlier life, or its making never became durable.
    let absent = (0..next_slot).filter(|slot| slots.binary_search(slot).is_err());
    let unprepared = blank.into_iter().map(|(slot, _)| slot).chain(absent).collect();
    Ok(Survey { run, spares, unprepared, next_slot })
}

fn look_at(disk: &dyn Disk, config: &Config, slot: u32) -> Result<Slot, WalError> {
    let name = file_name(slot);
    let file = disk.open(&name).map_err(WalError::io("open", &name, 0))?;
    // Before anything of it is believed: an earlier process may have left a cache that the device never saw.
    file.settle().map_err(WalError::io("settle", &name, 0))?;
    let bytes = file.bytes().map_err(WalError::io("open", &name, 0))?;
    let mut block = [0; BLOCK_BYTES];
    if bytes < BLOCK_BYTES as u64 {
        return Ok(Slot::Blank(file));
    }
    file.read_at(0, &mut block).map_err(WalError::io("read", &name, 0))?;
    let Ok(readable) = SegmentHeader::read(&block, config) else {
        return Ok(Slot::Blank(file));
    };
    let header = readable.map_err(|flaw| WalError::Mismatch {
        subject: name.clone(),
        what: flaw.what,
        expected: flaw.expected,
        found: flaw.found,
    })?;
    if bytes < config.segment_bytes {
        let (what, expected, found) = ("file size", config.segment_bytes, bytes);
        return Err(WalError::Corrupt { file: name, offset: 0, what, expected, found });
    }
    if header.epoch == SPARE_EPOCH {
        return Ok(Slot::Spare);
    }
    if header.epoch == u32::MAX {
        // No disk lives that long; and the next roll would count beyond it.
        return Err(corrupt(slot, 0, flaw("epoch below", u32::MAX, header.epoch)));
    }
    Ok(Slot::Used(Used { slot, file, header }))
}

/// Splits off what lies wholly before the start, and insists that nothing in between is absent.
fn run(mut used: Vec<Used>, config: &Config, from: Lsn) -> Result<(Vec<Used>, Vec<Used>), WalError> {
    used.sort_unstable_by_key(|used| used.header.epoch);
    if let Some([one, other]) = used.array_windows().find(|[one, other]| one.header.epoch == other.header.epoch) {
        return Err(corrupt(other.slot, 0, flaw("epoch other than", one.header.epoch, other.header.epoch)));
    }
    let Some(oldest) = used.last().map(|newest| newest.header.oldest) else {
        return Ok((used, Vec::new()));
    };
    let floor = if from == Lsn::ZERO { oldest } else { from };
    let mut first = used.len() - 1;
    while used[first].header.previous_end > floor {
        let needed = used[first].header.epoch - 1;
        if first > 0 && used[first - 1].header.epoch == needed {
            first -= 1;
            continue;
        }
        if planted::is(Bug::NoEpochGapCheck) {
            break;
        }
        let here = Lsn::at(used[first].header.epoch, 0, config.segment_bytes);
        if here <= oldest {
            let newest = Lsn::at(used[used.len() - 1].header.epoch, config.segment_bytes, config.segment_bytes);
            return Err(WalError::Missing { from, oldest: here, newest });
        }
        return Err(corrupt(used[first].slot, 0, flaw("segment before, of epoch", needed, SPARE_EPOCH)));
    }
    let run = used.split_off(first);
    Ok((run, used))
}

/// A slot without a valid header must not hold records that matter: headers are durable before records, so a crash
/// cannot leave that.
fn refuse_orphans(slot: u32, file: &Arc<dyn DiskFile>, first: u32, config: &Config) -> Result<(), WalError> {
    let bytes = file.bytes().map_err(WalError::io("open", &file_name(slot), 0))?;
    if bytes < config.segment_bytes {
        return Ok(());
    }
    let mut orphan = None;
    let mut scan = Scan::new(Arc::clone(file), slot, first, config);
    scan.sealed_headers(0, first..=u32::MAX, &mut |_, header| orphan = orphan.or(Some(header.epoch)))?;
    match orphan {
        Some(epoch) => Err(corrupt(slot, 0, flaw("segment header of epoch", epoch, SPARE_EPOCH))),
        None => Ok(()),
    }
}
