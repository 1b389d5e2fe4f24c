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
        if let Some(at) = turn.filter(|_| !self.failed && self.turn_rows < ROWS_PER_TURN) {
            self.reads_next = at + 1;
            self.shards[at].go_on_from(self.turn_rows);
            if let Err(error) = self.shards[at].read_on() {
                self.fail(&error);
            }
            self.turn_rows = self.shards[at].turn_rows();
        }
        self.send_trips();
        !self.failed && self.shards.iter().any(Shard::has_readings)
    }

    fn send_trips(&mut self) {
        for shard in &mut self.shards {
            while let Some(trip) = shard.poll_trip() {
                assert!(self.to_reader.push(trip).is_ok(), "the ring has a place for every read that is under way");
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
