//! Reads of rows: one slice a turn here, and the way to the reader thread and back.
//!
//! ```text
//!   react task, or a batch applied -> a slice of one shard's read -> answer
//!                                      \-> Trip --> reader thread --> Trip -> the next slice
//! ```
//!
//! One shard a turn, in turn: however many shards and reads, a turn has one slice. Deliberately absent: what a slice is
//! (`reading/`).

use super::Core;
use crate::shard::Shard;
use crate::shard::reading::Trip;

impl Core {
    /// One slice of one read. True when there is another at once.
    pub(super) fn read_on(&mut self) -> bool {
        let count = self.shards.len();
        let turn = (0..count).map(|n| (self.reads_next + n) % count).find(|at| self.shards[*at].has_readings());
        let Some(at) = turn.filter(|_| !self.failed) else { return false };
        self.reads_next = at + 1;
        if let Err(error) = self.shards[at].read_on() {
            self.fail(&error);
            return false;
        }
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
