//! What a log holds, counted while it is read: by group, by kind, and the last records one by one.

use super::digits;
use crate::shard::entry::{EntryKind, Proposals};
use myelin_datom::Tx;
use myelin_wal::Record;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Records of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct KindCensus {
    pub(super) records: u64,
    pub(super) proposals: u64,
    /// Ticks or quotes; 0 of commands.
    pub(super) rows: u64,
    /// **Units:** bytes of log, headers and padding included.
    pub(super) bytes: u64,
}

/// Records of one group.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct GroupCensus {
    pub(super) group: u16,
    pub(super) kinds: BTreeMap<&'static str, KindCensus>,
    pub(super) first_index: u64,
    pub(super) last_index: u64,
    #[serde(serialize_with = "digits")]
    pub(super) last_tx: u64,
    pub(super) last_term: u64,
    pub(super) log_bytes_per_tick: Option<f64>,
}

/// One record, for people who look for one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RecordTold {
    #[serde(serialize_with = "digits")]
    pub(super) lsn: u64,
    pub(super) kind: &'static str,
    pub(super) group: u16,
    pub(super) term: u64,
    pub(super) index: u64,
    #[serde(serialize_with = "digits")]
    pub(super) tx: u64,
    pub(super) bytes: u32,
    pub(super) proposals: Vec<ProposalTold>,
}

/// One proposal of a record.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ProposalTold {
    #[serde(serialize_with = "digits")]
    pub(super) tx: u64,
    #[serde(serialize_with = "digits")]
    pub(super) session: u64,
    pub(super) request: u64,
    /// Rows, or bytes of a command.
    pub(super) count: u32,
    pub(super) partial: bool,
}

/// Everything counted.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) groups: BTreeMap<u16, GroupCensus>,
    pub(super) last: VecDeque<RecordTold>,
    keep: usize,
}

impl Census {
    /// Keeps the last `keep` records.
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Counts one more.
    pub(super) fn count(&mut self, record: &Record<'_>) {
        let header = &record.header;
        let number = header.group;
        let group = self.groups.entry(number).or_insert_with(|| GroupCensus {
            group: number,
            first_index: header.index,
            ..GroupCensus::default()
        });
        group.last_index = header.index;
        group.last_term = header.term;
        let proposals = proposals(record);
        group.last_tx = proposals.last().map_or(header.tx, |last| last.tx);
        let kind = group.kinds.entry(kind_name(header.kind)).or_default();
        kind.records += 1;
        kind.proposals += proposals.len() as u64;
        kind.bytes += header.stride() as u64;
        if is_rows(header.kind) {
            kind.rows += proposals.iter().map(|proposal| u64::from(proposal.count)).sum::<u64>();
        }
        if self.keep > 0 {
            if self.last.len() == self.keep {
                self.last.pop_front();
            }
            self.last.push_back(RecordTold {
                lsn: record.lsn.bits(),
                kind: kind_name(header.kind),
                group: number,
                term: header.term,
                index: header.index,
                tx: header.tx,
                bytes: header.length,
                proposals,
            });
        }
    }

    /// The counts by group. **Units:** log bytes per tick are those of the records that carry ticks.
    pub(super) fn groups(&self) -> Vec<GroupCensus> {
        let per_tick = |group: &GroupCensus| {
            let ticks = group.kinds.get("ticks").filter(|ticks| ticks.rows > 0)?;
            Some(rounded(ticks.bytes as f64 / ticks.rows as f64))
        };
        self.groups.values().map(|group| GroupCensus { log_bytes_per_tick: per_tick(group), ..group.clone() }).collect()
    }

    /// Rows and log bytes of all records with ticks.
    pub(super) fn ticks(&self) -> KindCensus {
        let mut sum = KindCensus::default();
        for ticks in self.groups.values().filter_map(|group| group.kinds.get("ticks")) {
            sum.records += ticks.records;
            sum.proposals += ticks.proposals;
            sum.rows += ticks.rows;
            sum.bytes += ticks.bytes;
        }
        sum
    }
}

/// Bytes per row to two digits.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn is_rows(kind: u8) -> bool {
    matches!(EntryKind::from_number(kind), Some(EntryKind::Ticks | EntryKind::Quotes))
}

/// The word for a record's kind.
pub(super) const fn kind_name(kind: u8) -> &'static str {
    match EntryKind::from_number(kind) {
        Some(EntryKind::Ticks) => "ticks",
        Some(EntryKind::Quotes) => "quotes",
        Some(EntryKind::Markets) => "markets",
        Some(EntryKind::Register) => "register",
        Some(EntryKind::Remove) => "remove",
        Some(EntryKind::Close) => "close",
        Some(EntryKind::Lead) => "lead",
        Some(EntryKind::Transact) => "transact",
        Some(EntryKind::Retain) => "retain",
        Some(EntryKind::Horizon) => "horizon",
        Some(EntryKind::FactHorizon) => "fact-horizon",
        None => "unknown",
    }
}

/// The proposals that make sense; `verify` tells of those that do not.
fn proposals(record: &Record<'_>) -> Vec<ProposalTold> {
    let Some(kind) = EntryKind::from_number(record.header.kind) else { return Vec::new() };
    let all = Proposals::new(kind, record.payload, Tx::from_bits(record.header.tx));
    all.map_while(Result::ok)
        .map(|(tx, proposal, _)| ProposalTold {
            tx: tx.bits(),
            session: proposal.session,
            request: proposal.request,
            count: proposal.count(),
            partial: proposal.partial(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::entry::{PROPOSAL_BYTES, Proposal};
    use myelin_wal::HEADER_BYTES;

    #[test]
    fn ticks_are_counted_with_the_bytes_they_cost() {
        assert_eq!(HEADER_BYTES, 64);
        let proposal = Proposal::new(5, 1, 3, true, 0);
        let mut payload = bytemuck::bytes_of(&proposal).to_vec();
        payload.resize(PROPOSAL_BYTES + 3 * 64, 0);
        let header = myelin_wal::Header {
            kind: EntryKind::Ticks as u8,
            group: 1,
            length: payload.len() as u32,
            index: 9,
            tx: 77,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut census = Census::new(1);
        for _ in 0..2 {
            census.count(&Record { lsn: myelin_wal::Lsn::from_bits(4096), header, payload: &payload });
        }
        let ticks = census.ticks();
        assert_eq!((ticks.records, ticks.proposals, ticks.rows, ticks.bytes), (2, 2, 6, 2 * (64 + 256)));
        assert_eq!(census.groups()[0].log_bytes_per_tick, Some(106.67));
        assert_eq!((census.last.len(), census.last[0].proposals[0].count), (1, 3));
    }
}
