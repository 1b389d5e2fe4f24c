//! The connections of a core: who is here, what they may still ask, what waits to be said to them.
//!
//! ```text
//!   connect -> hello -> frames, as long as there is room: credit, outbox, the log, other cores
//!                        \- no room: the reader leaves a waker, and stands in the list of those who wait
//!   replies -> outbox -> the writer takes it whole
//! ```
//!
//! Invariants: a place is used again under another generation, so nobody is answered in another's name; what waits for a
//! slow reader has a bound, at which it is cut off; nobody is looked at who neither waits nor owes. Deliberately absent:
//! sockets (`endpoint.rs`), and where a frame goes (`route`).

use super::late::Late;
use super::parcels::Parcel;
use super::{ConnId, Core};
use crate::guard::Token;
use crate::health::Stage;
use crate::shard::reading::ROWS_PER_TURN;
use crate::shard::{Refusal, refuse_bytes};
use myelin_wire::{Code, Frame, Header, Hello, Kind, decode, write_frame};
use std::task::Waker;

/// One connection of this core.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) generation: u16,
    pub(super) open: bool,
    pub(super) greeted: bool,
    /// Ends once everything is said that is owed.
    pub(super) closing: bool,
    pub(super) outbox: Vec<u8>,
    pub(super) in_flight: u32,
    pub(super) writer: Option<Waker>,
    reader: Option<Waker>,
    /// It stands in the list of those whose reader waits.
    listed: bool,
    /// Who waits for its end: its reader and its writer, each inside a read or a write.
    pub(super) at_end: Vec<Waker>,
    /// Until when the hello, or the frame that has begun, must be whole; 0 = nothing is owed. **Units:** microseconds.
    pub(super) due_us: u64,
    pub(super) late: Late,
    /// It stands in the list of those that may owe.
    pub(super) owes: bool,
    /// Since when its reads wait for room in a full outbox of which nothing is taken. **Units:** microseconds.
    pub(super) stalled_us: Option<u64>,
}

/// What to do after frames were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Read more.
    More,
    /// There are whole frames left, but no room now.
    Wait,
    /// There may be whole frames left, but this turn has done enough: others go first.
    Later,
    /// Say what is in the outbox and close.
    Close,
}

/// A hello's body at most: a token is 4 KiB at most. **Units:** bytes.
const HELLO_BYTES: u32 = 8 << 10;
/// Wakers that wait for a connection's end: two tasks, and room for executors whose wakers change.
const WAKERS_AT_END: usize = 8;

impl Core {
    /// A place for a new connection; `None` when there are too many.
    pub fn connect(&mut self) -> Option<ConnId> {
        if self.open_connections >= self.limits.connections_per_core {
            return None;
        }
        self.open_connections += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::default());
            (self.connections.len() - 1) as u32
        });
        let due_us = Self::now().mono_us + self.limits.hello_within_ms * 1000;
        let connection = &mut self.connections[index as usize];
        let generation = connection.generation.wrapping_add(1);
        let listed = std::mem::replace(
            connection,
            Connection { generation, open: true, due_us, owes: true, ..Connection::default() },
        );
        if !listed.owes {
            self.owing.push(index);
        }
        self.health.connections.set(self.open_connections as u64);
        Some(ConnId { station: self.station, generation, index })
    }

    /// **Units:** bytes of a frame's body at most.
    #[must_use]
    pub const fn max_body(&self) -> usize {
        self.limits.max_body_bytes as usize
    }

    /// Nothing more is read; what stands in the outbox is still said.
    pub fn close_when_said(&mut self, id: ConnId) {
        if let Some(connection) = self.connection(id) {
            connection.closing = true;
        }
    }

    /// The peer sends no more. What it asked is still answered while it listens.
    pub fn reader_ended(&mut self, id: ConnId) {
        let Some(connection) = self.connection(id) else { return };
        connection.closing = true;
        if let Some(writer) = connection.writer.take() {
            writer.wake();
        }
    }

    /// The connection is gone.
    pub fn disconnect(&mut self, id: ConnId) {
        let Some(connection) = self.connection(id) else { return };
        connection.open = false;
        let wakers = [connection.writer.take(), connection.reader.take()];
        connection.outbox = Vec::new();
        wakers.into_iter().flatten().for_each(Waker::wake);
        connection.at_end.drain(..).for_each(Waker::wake);
        self.free.push(id.index);
        self.open_connections -= 1;
        self.health.connections.set(self.open_connections as u64);
        for shard in &mut self.shards {
            shard.closed(id);
        }
        // Its place among those who read history may be another's now.
        self.ring_react_bell();
        for station in 0..self.peers.len() {
            self.post(station, Parcel::Closed(id));
        }
    }

    /// True when the connection has ended; leaves the waker for its end.
    pub fn is_gone(&mut self, id: ConnId, waker: &Waker) -> bool {
        let Some(connection) = self.connection(id) else { return true };
        if !connection.at_end.iter().any(|one| one.will_wake(waker)) {
            if connection.at_end.len() >= WAKERS_AT_END {
                connection.at_end.remove(0);
            }
            connection.at_end.push(waker.clone());
        }
        false
    }

    pub(super) fn connection(&mut self, id: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(id.index as usize)?;
        (connection.open && connection.generation == id.generation).then_some(connection)
    }

    /// A turn: takes whole frames from the front of `bytes`. Gives how many bytes were taken, and what to do next.
    pub fn take_frames(&mut self, id: ConnId, bytes: &[u8]) -> (usize, Taken) {
        let now = Self::now();
        self.begin_turn();
        let mut taken = 0;
        let verdict = loop {
            if self.turn_rows >= ROWS_PER_TURN && taken < bytes.len() {
                break Taken::Later;
            }
            if !self.has_room_for(id) {
                break Taken::Wait;
            }
            // Who has not said hello is not believed that more than one is coming.
            let greeted = self.connection(id).is_some_and(|connection| connection.greeted);
            let max_body = if greeted { self.limits.max_body_bytes } else { HELLO_BYTES };
            self.begin_laps(taken == 0);
            match decode(&bytes[taken..], max_body) {
                Ok(Some((frame, len))) => {
                    self.lap(Stage::Decode);
                    taken += len;
                    if !self.greeted_or_greet(id, &frame) {
                        break Taken::Close;
                    }
                    if frame.kind != Kind::Hello {
                        self.route(now, id, &frame);
                        // Answers count against the outbox at once, so that a pipeline of reads waits for its reader.
                        self.say_effects();
                    }
                }
                Ok(None) => break Taken::More,
                Err(error) => {
                    self.health.bad_frames.add(1);
                    let reply = refuse_bytes(id, &error);
                    self.deliver(reply);
                    break Taken::Close;
                }
            }
        };
        self.begin_laps(false);
        self.note_begun(now, id, taken, verdict == Taken::More && taken < bytes.len());
        self.turn();
        (taken, verdict)
    }

    /// True when a frame of any size may be taken from this connection now.
    fn has_room_for(&mut self, id: ConnId) -> bool {
        let (requests, outbox) = (self.limits.requests_per_connection, self.limits.outbox_bytes);
        // Room that no sync will bring is not waited for: a write is refused, a read is answered.
        let log_has_room = self.failed || !self.sync_under_way || self.log.tail().room() >= self.limits.max_proposal();
        let held = self.held.iter().any(|held| held.len() > self.limits.ring_items);
        match self.connection(id) {
            Some(connection) => {
                log_has_room && !held && connection.in_flight < requests && connection.outbox.len() < outbox
            }
            None => true,
        }
    }

    /// Leaves a waker for when there is room again. True when there is room now.
    pub fn wait_for_room(&mut self, id: ConnId, waker: &Waker) -> bool {
        if self.has_room_for(id) {
            return true;
        }
        if let Some(connection) = self.connection(id) {
            connection.reader = Some(waker.clone());
            if !std::mem::replace(&mut connection.listed, true) {
                self.waiting_readers.push(id);
            }
        }
        false
    }

    /// The first frame must be a hello, and only the first.
    fn greeted_or_greet(&mut self, id: ConnId, frame: &Frame<'_>) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let (hello, greeted) = (frame.kind == Kind::Hello, connection.greeted);
        if greeted && !hello {
            return true;
        }
        let shown = Hello::read(frame.body);
        let allowed = match (&self.token, &shown) {
            (Some(token), Ok(hello)) => hello.credential_kind == Token::KIND && token.is(hello.credential),
            _ => true,
        };
        let refusal = match (greeted, hello, shown) {
            (false, true, Ok(_)) if !allowed => Code::Unauthorized,
            (false, true, Ok(_)) => {
                if let Some(connection) = self.connection(id) {
                    connection.greeted = true;
                }
                let mut body = Vec::new();
                self.welcome.write(&mut body);
                let header = Header {
                    session: frame.header.session,
                    request: frame.header.request,
                    credit: self.limits.requests_per_connection,
                    ..Header::new(Kind::Welcome)
                };
                let mut welcome = Vec::new();
                write_frame(&mut welcome, header, &body);
                self.put(id, &welcome, 0);
                return true;
            }
            (false, true, Err(_)) => Code::BadBody,
            _ => Code::HelloExpected,
        };
        self.refuse(id, &frame.header, Refusal::of(refusal));
        false
    }

    pub(super) fn put(&mut self, to: ConnId, frames: &[u8], answers: u32) {
        self.put_with(to, answers, |outbox| outbox.extend_from_slice(frames));
    }

    /// Puts frames that answer so many requests into an outbox, and wakes who writes it.
    pub(super) fn put_with(&mut self, to: ConnId, answers: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let outbox_max = self.limits.outbox_bytes * 2;
        let Some(connection) = self.connection(to) else { return };
        if connection.outbox.len() > outbox_max {
            return self.disconnect(to);
        }
        write(&mut connection.outbox);
        connection.in_flight = connection.in_flight.saturating_sub(answers);
        let wakers = [connection.writer.take(), connection.reader.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Swaps the outbox with an empty buffer; `None` when the connection is gone. Leaves a waker when there is nothing.
    pub fn take_outbox(&mut self, id: ConnId, buffer: &mut Vec<u8>, waker: &Waker) -> Option<bool> {
        let outbox_max = self.limits.outbox_bytes;
        let connection = self.connection(id)?;
        if connection.outbox.is_empty() {
            if connection.closing && connection.in_flight == 0 {
                return None;
            }
            connection.writer = Some(waker.clone());
            return Some(false);
        }
        let was_full = connection.outbox.len() >= outbox_max;
        std::mem::swap(&mut connection.outbox, buffer);
        connection.stalled_us = None;
        if let Some(reader) = connection.reader.take() {
            reader.wake();
        }
        if was_full {
            // Its reads go on.
            self.ring_react_bell();
        }
        Some(true)
    }

    /// Whoever waited for room looks again. **Cost:** a wake for each of those.
    pub(super) fn wake_readers(&mut self) {
        for id in std::mem::take(&mut self.waiting_readers) {
            let Some(connection) = self.connection(id) else { continue };
            connection.listed = false;
            if let Some(reader) = connection.reader.take() {
                reader.wake();
            }
        }
    }
}
