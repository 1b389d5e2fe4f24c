//! The log: every record from the oldest on, in groups without holes, and its tail applied in memory.
//!
//! What the log itself promises (checksums, chain, watermarks) is `myelin_wal::inspect`'s to check. Here is what it cannot
//! know: that indices of a group follow each other, that a `tx` and a term never fall, that a payload is proposals, each
//! body the bytes its client summed, and that the tail goes on where the checkpoint ends.

use super::super::segments::{Segment, file_of};
use super::super::still::Still;
use super::super::{Damage, Fault, told};
use super::{Report, lsn_or_begin};
use crate::at_rest::home::Home;
use crate::shard::entry::{EntryKind, PROPOSAL_BYTES, Proposals};
use crate::shard::replicate::LogIndex;
use crate::shard::{Committed, Shard, ShardError};
use myelin_datom::Tx;
use myelin_wal::{Config, HEADER_BYTES, Lsn, Record, Start};
use std::collections::BTreeMap;

/// The shards of a core by number.
type Shards = BTreeMap<u16, Shard>;

/// What is known before the log is read.
pub(super) struct LogCheck<'a> {
    pub(super) home: &'a Home,
    pub(super) core: u16,
    pub(super) slots: &'a [Segment],
    /// Where the newest checkpoint's tail begins.
    pub(super) from: Lsn,
    pub(super) synced: Lsn,
}

/// What a group's next record follows.
#[derive(Clone, Copy, Debug)]
struct Last {
    index: u64,
    term: u64,
    tx: Tx,
}

/// Why the reading ended before the log did.
enum Ended {
    Damage(Damage),
    Shard(Damage, Box<ShardError>),
}

impl LogCheck<'_> {
    /// Reads the log and applies its tail to the shards; gives them back unless the log is damaged.
    pub(super) fn run(
        &self,
        still: &Still,
        config: &Config,
        mut shards: Shards,
        report: &mut Report,
    ) -> Result<Option<Shards>, Fault> {
        let mut groups: BTreeMap<u16, Last> = BTreeMap::new();
        let mut ended = None;
        let start = Start { from: Lsn::ZERO, synced: self.synced };
        let read = myelin_wal::inspect(still, config, start, &mut |record| {
            let checked = self.follows(&mut groups, &record).map_err(Ended::Damage);
            checked.and_then(|()| self.apply(&mut shards, &record)).map_err(|why| {
                ended = Some(why);
                "told apart".into()
            })
        });
        let log = match (read, ended) {
            (Ok(log), _) => log,
            (Err(_), Some(Ended::Damage(damage))) => {
                report.damage.push(damage);
                return Ok(None);
            }
            (Err(_), Some(Ended::Shard(at, error))) => {
                let dir = &self.home.dir;
                report.damage.push(told::of_shard(dir, &dir.join(&at.file), at.offset, *error)?);
                return Ok(None);
            }
            (Err(error), None) => {
                report.damage.push(told::of_log(self.core, error)?);
                return Ok(None);
            }
        };
        report.checked.segments += log.segments;
        report.checked.records += log.records;
        report.checked.log_bytes += log.bytes;
        if let Some(cut) = &log.cut {
            let file = told::in_core(self.core, &cut.file);
            let (offset, what) = (cut.offset, cut.what);
            report.notes.push(format!(
                "{file} at byte {offset}: a torn tail ({what}); the next start cuts it, nothing in it was acknowledged"
            ));
        }
        if self.from > log.end || self.from != Lsn::ZERO && self.from < log.oldest {
            let (from, oldest, end) = (lsn_or_begin(self.from), log.oldest, log.end);
            let what = format!("the log reaches from {oldest} to {end}, the newest checkpoint goes on from {from}");
            report.damage.push(Damage { file: told::in_core(self.core, "the log"), offset: 0, what });
            return Ok(None);
        }
        Ok(Some(shards))
    }

    fn damage(&self, record: &Record<'_>, within: usize, what: String) -> Damage {
        let (file, offset) = file_of(self.slots, record.lsn.bits(), self.home.identity.segment_bytes);
        Damage { file: told::in_core(self.core, &file), offset: offset + within as u64, what }
    }

    /// Whether a record follows its group's last one, and is made of whole proposals.
    fn follows(&self, groups: &mut BTreeMap<u16, Last>, record: &Record<'_>) -> Result<(), Damage> {
        let header = &record.header;
        let at = |within, what| self.damage(record, within, what);
        let Some(kind) = EntryKind::from_number(header.kind) else {
            return Err(at(4, format!("there is no entry kind {}", header.kind)));
        };
        let shard = header.group.checked_sub(1);
        if shard.is_some_and(|shard| self.home.shards_of(self.core).all(|ours| ours != shard)) {
            return Err(at(6, format!("group {} is that of no shard of this core", header.group)));
        }
        let mut tx = Tx::from_bits(header.tx);
        if let Some(last) = groups.get(&header.group) {
            if header.index != last.index + 1 {
                let (group, index) = (header.group, last.index);
                return Err(at(24, format!("in group {group} index {} follows {index}", header.index)));
            }
            if header.term < last.term {
                return Err(at(16, format!("term {} follows {}", header.term, last.term)));
            }
            if tx < last.tx {
                return Err(at(32, format!("tx {tx} follows {}", last.tx)));
            }
        }
        let mut within = HEADER_BYTES;
        for proposal in Proposals::new(kind, record.payload, tx) {
            let (own, proposal, body) = match proposal {
                Ok(whole) => whole,
                Err(senseless) => return Err(at(HEADER_BYTES + senseless.at, senseless.to_string())),
            };
            let found = crc32fast::hash(body);
            if found != proposal.crc {
                let what = format!("the body of request {} sums to {found:#x}", proposal.request);
                return Err(at(within, format!("{what}, its client said {:#x}", proposal.crc)));
            }
            within += PROPOSAL_BYTES + body.len().next_multiple_of(8);
            tx = own;
        }
        groups.insert(header.group, Last { index: header.index, term: header.term, tx });
        Ok(())
    }

    /// Applies a record of the tail.
    fn apply(&self, shards: &mut Shards, record: &Record<'_>) -> Result<(), Ended> {
        if record.lsn < self.from {
            return Ok(());
        }
        let header = &record.header;
        let Some(shard) = header.group.checked_sub(1).and_then(|number| shards.get_mut(&number)) else {
            return Ok(());
        };
        let (index, applied) = (header.index, shard.group().applied().0);
        // The shard asserts what our own writer guarantees; a directory that was put together by hand is told, not asserted.
        if index > applied + 1 {
            let what = format!("index {index} is the first behind the checkpoint, which ends at {applied}");
            return Err(Ended::Damage(self.damage(record, 24, what)));
        }
        if index == applied + 1 && Tx::from_bits(header.tx) < shard.group().applied_tx() {
            let what = format!("tx {} follows {}", header.tx, shard.group().applied_tx());
            return Err(Ended::Damage(self.damage(record, 32, what)));
        }
        let (tx, kind) = (Tx::from_bits(header.tx), header.kind);
        let entry = Committed { index: LogIndex(index), tx, kind, payload: record.payload };
        shard.replay(entry).map_err(|error| Ended::Shard(self.damage(record, 0, String::new()), Box::new(error)))
    }
}
