//! From a directory to a log that goes on, in two steps: what is there (`replay.rs`), and making it hold.
//!
//! ```text
//!   inspect    survey, replay, verdict                    reads only
//!   recover    survey, replay, verdict, scrub             writes at most one block, then hands out the parts
//! ```
//!
//! **Why a scrub.** Suppose a crash leaves a record with its header but not all of its payload. It is cut, the same record
//! is sent again, and the power goes in the middle of that write, too: the missing sector arrives, the new header does
//! not. Old header and new payload then make the old record whole, and what the first crash left behind it follows: three
//! records that the opening in between had declared not to exist. So the header at the cut, if it is still sealed, is
//! durably zeroed before anybody is told where the log ends.
//!
//! What lies further behind needs no scrubbing: the log goes on under an incarnation above every one that is sealed
//! there, and incarnations never fall along the chain. Recovery can be interrupted and repeated at any point.
//!
//! Deliberately absent: repair. A damaged log is refused as it is; other replicas have the bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::blocks::{Buffer, block_down};
use crate::live::{InUse, Live, Spare};
use crate::planted::{self, Bug};
use crate::record::{Chain, Record};
use crate::replay::{End, Found, replay};
use crate::segment::file_name;
use crate::survey::Survey;
use crate::tail::Resume;
use crate::{BLOCK_BYTES, Config, Disk, Lsn, Preparer, Syncer, Tail, Visited, WalError};

/// Where recovery starts, and what else is known to have been durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// The oldest place that anybody needs, a checkpoint's or a slow follower's: records from here on are visited,
    /// segments wholly below become spares. [`Lsn::ZERO`] for the oldest there is.
    pub from: Lsn,
    /// The watermark in the hard state, or [`Lsn::ZERO`]: a log that ends below it lost something.
    pub synced: Lsn,
}

/// The parts of a log that goes on, each for its own thread.
#[derive(Debug)]
pub struct Recovered {
    /// For the core.
    pub tail: Tail,
    /// For the sync thread.
    pub syncer: Syncer,
    /// For the maintenance thread.
    pub preparer: Preparer,
    /// For people.
    pub report: Report,
}

/// What recovery saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records visited.
    pub records: u64,
    /// Bytes of log verified.
    pub bytes: u64,
    /// Segments read.
    pub segments: usize,
    /// Where the oldest of them starts.
    pub oldest: Lsn,
    /// Where the log ends.
    pub end: Lsn,
    /// The opening that begins now; 1 for a new log.
    pub incarnation: u32,
    /// The torn tail that was cut, if the last stop was a crash in the middle of a batch.
    pub cut: Option<Cut>,
}

/// A torn tail: unacknowledged, because its batch's sync never returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes from there to the end of the last record that is still recognisable.
    pub bytes: u64,
    /// The first thing that was wrong.
    pub what: &'static str,
}

/// Reads a log back and makes it ready to go on. Visits every record from `start.from` on, in order, marks left out.
///
/// A directory without segments is a new log: its tail has no [`Tail::room`] until a spare is offered.
///
/// **Errors:** [`WalError::Corrupt`] if something that was durable is damaged or gone: nothing is cut, nothing changed.
/// [`WalError::Missing`] if the log does not reach `start.from`. **Cost:** one sequential read, above 1 GB/s from cache,
/// and one write if the last stop was a crash.
pub fn recover(
    disk: Arc<dyn Disk>,
    config: &Config,
    start: Start,
    visit: &mut dyn FnMut(Record<'_>) -> Visited,
) -> Result<Recovered, WalError> {
    let Found { survey, end, report } = replay(&*disk, config, start, visit)?;
    scrub(&survey, &end)?;
    let Survey { run, spares, unprepared, next_slot } = survey;
    let ends = run.iter().skip(1).map(|next| Some(next.header.previous_end)).chain([None]);
    let in_use: VecDeque<_> =
        run.iter().zip(ends).map(|(used, end)| InUse::new(used.slot, used.header.epoch, end)).collect();
    let resume = Resume {
        slot: end.slot,
        epoch: end.epoch,
        offset: end.offset,
        partial: &end.partial,
        chain: Chain { previous_crc: end.previous_crc, incarnation: report.incarnation },
        live: Live::new(in_use, spares.into_iter().map(|slot| Spare { slot }).collect()),
    };
    Ok(Recovered {
        tail: Tail::resume(config, resume),
        syncer: Syncer::new(Arc::clone(&disk)),
        preparer: Preparer::new(disk, config, unprepared, next_slot),
        report,
    })
}

/// As [`recover`], for a look at a directory at rest: the same verdict, and nothing is written.
pub fn inspect(
    disk: &dyn Disk,
    config: &Config,
    start: Start,
    visit: &mut dyn FnMut(Record<'_>) -> Visited,
) -> Result<Report, WalError> {
    replay(disk, config, start, visit).map(|found| found.report)
}

/// Makes sure that what is cut now stays cut: see above.
fn scrub(survey: &Survey, end: &End) -> Result<(), WalError> {
    let Some(newest) = survey.run.last().filter(|_| end.sealed_at_cut && !planted::is(Bug::NoScrub)) else {
        return Ok(());
    };
    let mut block = Buffer::new(BLOCK_BYTES);
    block.bytes_mut()[..end.partial.len()].copy_from_slice(&end.partial);
    let at = block_down(end.offset);
    newest.file.write_at(at, block.bytes()).map_err(WalError::io("write", &file_name(newest.slot), at))
}
