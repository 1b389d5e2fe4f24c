//! When a core has nothing to do: for a while, and for good.
//!
//! ```text
//!   is_idle           nothing is due soon          -> the next look at the house waits longer
//!   come_to_an_end    nothing is under way or owed -> a planned stop may end the process (stop.rs)
//! ```
//!
//! Deliberately absent: a stop for want of a sync (`fail`), which nothing ends.

use super::Core;
use super::connections::Connection;
use super::sealing::Sealing;
use crate::shard::Shard;
use myelin_wire::Kind;
use std::collections::VecDeque;

impl Core {
    /// True when the next look at the house may wait a little longer: nothing is written, sealed, pruned, owed or held, and the
    /// log's end is marked.
    pub fn is_idle(&mut self) -> bool {
        let end = self.log.tail().end_lsn();
        let quiet = !self.sync_under_way && end == self.marked && matches!(self.sealing, Sealing::Idle);
        let quiet = quiet && !self.shards.iter().any(Shard::is_pruning);
        quiet && self.owing.is_empty() && self.waiting_readers.is_empty() && self.held.iter().all(VecDeque::is_empty)
    }

    /// A planned stop: writes are refused from now on. True when nothing is under way, everything is said, and the log is
    /// marked up to its end.
    pub fn come_to_an_end(&mut self) -> bool {
        self.stopping = true;
        let (end, synced) = (self.log.tail().end_lsn(), self.log.tail().synced_upto());
        let quiet = !self.sync_under_way && self.applying.is_none() && end == synced && end == self.marked;
        let said = |one: &Connection| !one.open || (one.outbox.is_empty() && one.in_flight == 0);
        self.failed || (quiet && self.connections.iter().all(said) && self.held.iter().all(VecDeque::is_empty))
    }
}

/// True of a frame that changes what is remembered.
pub(super) const fn is_write(kind: Kind) -> bool {
    use Kind::{Markets, Quotes, Register, Remove, Retain, Ticks, Transact};
    matches!(kind, Ticks | Quotes | Markets | Register | Remove | Transact | Retain)
}
