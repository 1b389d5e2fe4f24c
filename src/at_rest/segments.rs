//! The log's files by their headers: which slot is in use, under which epoch, from where to where.
//!
//! The bytes are those that `storage/wal/README.md` draws. This only sorts and names: whether a segment is sound is the
//! log's own verdict (`myelin_wal::inspect`).

use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where a segment's first record starts. **Units:** bytes.
const RECORDS_AT: u64 = 4096;

/// A slot of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Segment {
    pub(super) file: String,
    /// `used`, `released` (holds nothing that is needed), `spare` (never used) or `blank` (being prepared, or damaged).
    pub(super) state: &'static str,
    /// 0 when it has none.
    pub(super) epoch: u32,
    /// Where its records begin.
    #[serde(serialize_with = "super::digits")]
    pub(super) first_lsn: u64,
    /// Where they end, if it is in use.
    #[serde(serialize_with = "super::digits")]
    pub(super) end_lsn: u64,
    #[serde(skip)]
    previous_end: u64,
    #[serde(skip)]
    oldest: u64,
}

/// The slots of a core's folder: used ones in the order of the log, the others behind them.
pub(super) fn list(dir: &Path, segment_bytes: u64) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("segment-").is_some_and(|slot| slot.len() == 4 && slot.parse::<u16>().is_ok()) {
            segments.push(look_at(dir, name, segment_bytes)?);
        }
    }
    segments.sort_unstable_by(|a, b| (a.epoch == 0, a.epoch, &a.file).cmp(&(b.epoch == 0, b.epoch, &b.file)));
    let oldest = segments.iter().rfind(|one| one.epoch > 0).map_or(0, |newest| newest.oldest);
    for at in 0..segments.len() {
        let next_epoch = segments[at].epoch.checked_add(1);
        let next = segments.get(at + 1).filter(|next| next.epoch > 0 && Some(next.epoch) == next_epoch);
        segments[at].end_lsn = next.map_or(0, |next| next.previous_end);
        let one = &mut segments[at];
        if one.epoch > 0 && u64::from(one.epoch) * segment_bytes + segment_bytes <= oldest {
            one.state = "released";
        }
    }
    Ok(segments)
}

/// The file in use under an epoch.
pub(super) fn file_of(segments: &[Segment], lsn: u64, segment_bytes: u64) -> (String, u64) {
    let place = lsn.saturating_sub(1);
    let (epoch, offset) = (place / segment_bytes, place % segment_bytes + 1);
    let found = segments.iter().find(|one| one.epoch > 0 && u64::from(one.epoch) == epoch);
    (found.map_or_else(|| format!("the log's epoch {epoch}"), |one| one.file.clone()), offset)
}

fn look_at(dir: &Path, file: String, segment_bytes: u64) -> io::Result<Segment> {
    let mut header = [0; 64];
    let handle = File::open(dir.join(&file))?;
    let whole = handle.metadata()?.len() >= header.len() as u64;
    if whole {
        handle.read_exact_at(&mut header, 0)?;
    }
    let long = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let short = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or_default();
    if !whole || &header[..8] != b"MyelnWal" || crc32fast::hash(&header[..60]) != short(60) {
        let (epoch, first_lsn, end_lsn) = (0, 0, 0);
        return Ok(Segment { file, state: "blank", epoch, first_lsn, end_lsn, previous_end: 0, oldest: 0 });
    }
    let epoch = short(16);
    let (state, first_lsn) = match epoch {
        0 => ("spare", 0),
        epoch => ("used", u64::from(epoch).saturating_mul(segment_bytes).saturating_add(RECORDS_AT)),
    };
    Ok(Segment { file, state, epoch, first_lsn, end_lsn: 0, previous_end: long(32), oldest: long(40) })
}
