//! Reads of rows: slices here, so many rows a turn, and the way to the reader thread and back.
//!
//! ```text
//!   react task, or a batch applied -> slices of one shard's reads -> answers
//!                                      \-> Trip --> reader thread --> Trip -> the next slice
//! ```
//!
//! One shard a turn, in turn: however many shards and reads, a turn looks at so many rows, those included that were read
//! before in the same turn. No slice is read for a connection whose outbox is full: its answers wait as reads, a place each,
//! until it takes what stands there, and one that does not is cut off. Deliberately absent: what a slice is (`reading/`), and
//! outboxes of other cores, of which nothing is known here.

use super::connections::Connection;
use super::{ConnId, Core};
use crate::shard::reading::{ROWS_PER_TURN, Trip};
use crate::shard::{Now, Shard};
use std::collections::BTreeSet;

/// Who has reads under way takes its answers at least at this pace, 2 Mbit/s, or is cut off: the places of its reads are
/// others' too. **Units:** bytes per second.
const TAKEN_AT_LEAST: u64 = 256 << 10;

impl Core {
    /// Slices of one shard's reads. True when there are others at once.
    pub(super) fn read_on(&mut self) -> bool {
        if self.failed {
            return false;
        }
        let (station, outbox_max) = (self.station, self.limits.outbox_bytes);
        let takes = |id: ConnId| id.station != station || has_room(&self.connections, id, outbox_max);
        let count = self.shards.len();
        let mut turns = (0..count).map(|n| (self.reads_next + n) % count);
        let next = turns.find(|at| self.shards[*at].can_read_on(&takes));
        if let Some(at) = next.filter(|_| self.turn_rows < ROWS_PER_TURN) {
            self.reads_next = at + 1;
            self.shards[at].go_on_from(self.turn_rows);
            let read = self.shards[at].read_on(&takes);
            self.turn_rows = self.shards[at].turn_rows();
            if let Err(error) = read {
                self.fail(&error);
                return false;
            }
        }
        let more = self.shards.iter().any(|shard| shard.can_read_on(&takes));
        self.send_trips();
        more
    }

    fn send_trips(&mut self) {
        for shard in &mut self.shards {
            while let Some(trip) = shard.poll_trip() {
                assert!(self.to_reader.push(trip).is_ok(), "the ring has a place for every read that is under way");
            }
        }
    }

    /// Whoever keeps reads waiting for room in its outbox, and takes nothing from it for too long, is cut off.
    pub(super) fn cut_the_stalled(&mut self, now: Now) {
        let (station, outbox_max) = (self.station, self.limits.outbox_bytes);
        // What a socket's writer holds and what stands behind it is twice the bound at most.
        let patience_us = 2 * outbox_max as u64 * 1_000_000 / TAKEN_AT_LEAST;
        let here = self.shards.iter().flat_map(Shard::who_reads).filter(|id| id.station == station);
        for id in here.collect::<BTreeSet<ConnId>>() {
            if has_room(&self.connections, id, outbox_max) {
                continue;
            }
            let Some(connection) = self.connection(id) else { continue };
            let since = *connection.stalled_us.get_or_insert(now.mono_us);
            if now.mono_us.saturating_sub(since) >= patience_us {
                self.disconnect(id);
            }
        }
    }

    /// A read is back from the reader thread.
    pub fn is_back(&mut self, trip: Trip) {
        let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == trip.shard()) else { return };
        if let Err(error) = shard.is_back(trip) {
            return self.fail(&error);
        }
        self.send_trips();
        if self.shards.iter().any(Shard::has_readings) {
            self.ring_react_bell();
        }
    }
}

/// True when a connection of this core has room for an answer; one that is gone has, as nobody waits for it.
fn has_room(connections: &[Connection], id: ConnId, outbox_max: usize) -> bool {
    let connection = connections.get(id.index as usize).filter(|one| one.open && one.generation == id.generation);
    connection.is_none_or(|one| one.outbox.len() < outbox_max)
}
