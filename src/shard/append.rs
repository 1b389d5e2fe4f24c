//! `append`: proposals that gather become one record at one [`LogIndex`](super::replicate::LogIndex).
//!
//! ```text
//!   proposal --copied once--> [ open record ] --full, other shard or kind, or the disk is free--> batch --> sync
//! ```
//!
//! One log serves all shards of a core; the record that is open belongs to one of them. No timer decides how much
//! gathers: while one sync runs, what comes shares the next one. Deliberately absent: I/O; the driver takes the batch.

use super::entry::{EntryKind, Proposal};
use super::replicate::Group;
use crate::config::RECORD_GATHER_BYTES;
use myelin_datom::Tx;
use myelin_wal::{Batch, Entry, Tail};

/// The core's end of its log.
#[derive(Debug)]
pub struct Appender {
    tail: Tail,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    group: u16,
    kind: EntryKind,
    bytes: usize,
}

/// The log has no room now: the caller waits for the sync under way, or refuses (`Shard::no_room`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Appender {
    /// Goes on at the end of the log.
    #[must_use]
    pub const fn new(tail: Tail) -> Self {
        Self { tail, open: None }
    }

    /// Puts a proposal at the end of the log and stamps it. It is durable only once its batch is.
    pub fn propose(
        &mut self,
        group: &mut Group,
        clock_millis: u64,
        kind: EntryKind,
        proposal: &Proposal,
        body: &[u8],
    ) -> Result<Tx, NoRoom> {
        let padding = body.len().next_multiple_of(8) - body.len();
        let bytes = size_of::<Proposal>() + body.len() + padding;
        let fits = group.may_gather()
            && self.open.is_some_and(|open| {
                open.group == group.number() && open.kind == kind && open.bytes + bytes <= RECORD_GATHER_BYTES
            });
        if !fits {
            self.close();
        }
        if self.tail.room() < bytes {
            return Err(NoRoom);
        }
        let tx = match &mut self.open {
            Some(open) => {
                open.bytes += bytes;
                group.gather()
            }
            None => self.open(group, clock_millis, kind, bytes),
        };
        self.tail.push(bytemuck::bytes_of(proposal));
        // One checksum from the client to the sealed block where it pays: combining costs as much as 32 KiB of hashing.
        if body.len() >= CRC_COMBINE_BYTES {
            self.tail.push_with_crc(body, proposal.crc);
        } else {
            self.tail.push(body);
        }
        self.tail.push(&[0; 8][..padding]);
        Ok(tx)
    }

    /// Appends an entry without proposals: a leader's first, or a moment that is closed.
    pub fn note(&mut self, group: &mut Group, kind: EntryKind, tx: Tx) -> Result<(), NoRoom> {
        self.close();
        if self.tail.room() == 0 {
            return Err(NoRoom);
        }
        let (index, tx) = group.append_at(tx);
        self.tail.begin(entry(group, kind, index.0, tx));
        self.tail.end();
        Ok(())
    }

    fn open(&mut self, group: &mut Group, clock_millis: u64, kind: EntryKind, bytes: usize) -> Tx {
        let (index, tx) = group.append(clock_millis);
        self.tail.begin(entry(group, kind, index.0, tx));
        self.open = Some(Open { group: group.number(), kind, bytes });
        tx
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.tail.end();
        }
    }

    /// What gathered, for the sync; `None` while one is under way or nothing gathered.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.close();
        self.tail.take_batch()
    }

    /// The log itself, for its watermarks, spares and releases.
    pub fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }
}

/// From here on a body keeps the client's checksum without being hashed again. **Units:** bytes.
const CRC_COMBINE_BYTES: usize = 32 << 10;

fn entry(group: &Group, kind: EntryKind, index: u64, tx: Tx) -> Entry {
    Entry { kind: kind as u8, group: group.number(), term: group.term(), index, tx: tx.bits() }
}
