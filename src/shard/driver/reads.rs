//! Reads of rows: slices here, so many rows a turn, and the way to the reader thread and back.
//!
//! ```text
//!   react task, or a batch applied -> slices of one shard's reads -> answers
//!                                      \-> Trip --> reader thread --> Trip -> the next slice
//! ```
//!
//! One shard a turn, in turn: however many shards and reads, a turn looks at so many rows, those included that were read
//! before in the same turn. Deliberately absent: what a slice is
//! (`reading/`).

use super::Core;
use crate::shard::Shard;
use crate::shard::reading::{ROWS_PER_TURN, Trip};

impl Core {
    /// Slices of one shard's reads. True when there are others at once.
    pub(super) fn read_on(&mut self) -> bool {
        let count = self.shards.len();
        let turn = (0..count).map(|n| (self.reads_next + n) % count).find(|at| self.shards[*at].has_readings());
        let Some(at) = turn.filter(|_| !self.failed) else { return false };
        if self.turn_rows >= ROWS_PER_TURN {
            return true;
        }
        self.reads_next = at + 1;
        self.shards[at].go_on_from(self.turn_rows);
        if let Err(error) = self.shards[at].read_on() {
            self.fail(&error);
            return false;
        }
        self.turn_rows = self.shards[at].turn_rows();
        while let Some(trip) = self.shards[at].poll_trip() {
            assert!(self.to_reader.push(trip).is_ok(), "the ring has a place for every read that is under way");
        }
        self.shards.iter().any(Shard::has_readings)
    }

    /// A read is back from the reader thread.
    pub fn is_back(&mut self, trip: Trip) {
        let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == trip.shard()) else { return };
        if let Err(error) = shard.is_back(trip) {
            return self.fail(&error);
        }
        if self.shards.iter().any(Shard::has_readings) {
            self.ring_react_bell();
        }
    }
}
