//! Who owes bytes: a hello that does not come, a frame that began and does not end.
//!
//! ```text
//!   connected, or a frame began -> due -> seen late -> told `too_slow` -> cut
//!                  \- whole in time: nothing is due
//! ```
//!
//! Those that may owe are looked at every 20 ms, so that no frame costs a timer. Deliberately absent: idle connections, which owe
//! nothing, and readers that are slow (their outbox has a bound).

use super::connections::Connection;
use super::{ConnId, Core};
use crate::shard::reply::{Reply, Said};
use crate::shard::{Now, Refusal};
use myelin_wire::Code;

/// What became of a connection whose bytes did not come in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Late {
    #[default]
    No,
    /// Its time is over; what stands unread in its socket still counts.
    Seen,
    /// It was told; now it has as much time again to listen.
    Told,
}

impl Core {
    /// Frames were taken, and another one has begun behind them or not: from its first byte on its time runs.
    pub(super) fn note_begun(&mut self, now: Now, id: ConnId, taken: usize, begun: bool) {
        let within_us = self.limits.frame_within_ms * 1000;
        let counts = |connection: &&mut Connection| connection.greeted && connection.late != Late::Told;
        let Some(connection) = self.connection(id).filter(counts) else { return };
        if !begun {
            connection.due_us = 0;
        } else if taken > 0 || connection.due_us == 0 {
            connection.due_us = now.mono_us + within_us;
            connection.late = Late::No;
            if !std::mem::replace(&mut connection.owes, true) {
                self.owing.push(id.index);
            }
        }
    }

    /// Who owes bytes for too long is told, and cut when that does not help. A socket that was not read because we were
    /// busy is read first: the time is looked at twice.
    pub(super) fn cut_the_late(&mut self, now: Now) {
        let mut at = 0;
        while let Some(index) = self.owing.get(at).copied() {
            let connection = &mut self.connections[index as usize];
            if !connection.open || connection.due_us == 0 {
                connection.owes = false;
                self.owing.swap_remove(at);
                continue;
            }
            at += 1;
            if now.mono_us < connection.due_us {
                continue;
            }
            let id = ConnId { station: self.station, generation: connection.generation, index };
            match connection.late {
                Late::No => connection.late = Late::Seen,
                Late::Seen => {
                    connection.late = Late::Told;
                    connection.due_us = now.mono_us + self.limits.frame_within_ms * 1000;
                    self.health.bad_frames.add(1);
                    let said = Said::Refused(Refusal::of(Code::TooSlow));
                    self.deliver(Reply { to: id, session: 0, request: 0, shard: 0, tx: 0, said });
                    self.reader_ended(id);
                }
                Late::Told => self.disconnect(id),
            }
        }
    }
}
