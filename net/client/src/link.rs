//! One connection's end of the conversation, without the connection: frames in, frames out, and what became of things.
//!
//! ```text
//!   write, read, subscribe, grant ->  +------+  <- handle_frame, connected, disconnected, handle_timeout
//!   poll_event (answers, firings) <-  | Link |  -> poll_transmit (bytes), next_deadline
//!                                     +------+
//!   one Session per shard · reads, repeated freely · subscriptions, resumed behind the last firing seen
//! ```
//!
//! Invariants: never more frames wait for an answer than the node granted; nothing is dropped without an event.
//! Deliberately absent: sockets, clocks (`now` is the time since the driver's start), threads.

use crate::error::Refusal;
use crate::session::{Fate, Reply, Session, Settled, Unexpected, Write};
use crate::subscriptions::Subscriptions;
use myelin_wire::{Code, Header, Kind, write_frame};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use crate::subscriptions::{Push, Subscribe};

/// A question that changes nothing. **Shape:** `header.kind`, `tx`, `aux`, `shard` and `count` are sent as given.
#[derive(Debug)]
pub struct Read<T> {
    /// Comes back with the answer.
    pub ticket: T,
    /// What is asked, and of whom.
    pub header: Header,
    /// The rest of it.
    pub body: Vec<u8>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<T> {
    /// A write or read ended.
    Settled(T, Fate),
    /// A subscription has news.
    Pushed(Push),
}

#[derive(Debug)]
struct Asked<T> {
    read: Read<T>,
    /// When it is sent, or `None` while it is under way.
    due: Option<Duration>,
    refused_since: Option<Duration>,
}

/// The bounds a link needs to know.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// See [`crate::Options`].
    pub busy_for: Duration,
    /// See [`crate::Options`].
    pub silence: Duration,
}

/// Bytes written ahead of the socket at most.
const AHEAD: usize = 256 << 10;
/// The key of our own pings among the reads.
const PING: u64 = 0;

/// See the module's picture.
#[derive(Debug)]
pub struct Link<T> {
    limits: LinkLimits,
    session_id: u64,
    sessions: BTreeMap<u16, Session<T>>,
    /// The shard that may send first: they take turns.
    turn: u16,
    reads: BTreeMap<u64, Asked<T>>,
    next_read: u64,
    subscriptions: Subscriptions,
    credit: usize,
    connected: bool,
    heard: Duration,
    pinged: bool,
    ping_due: bool,
    settled: Settled<T>,
    pushed: VecDeque<Push>,
}

impl<T> Link<T> {
    /// Not connected, nothing asked. `session_id` is random and not zero.
    #[must_use]
    pub fn new(session_id: u64, limits: LinkLimits) -> Self {
        Self {
            limits,
            session_id,
            sessions: BTreeMap::new(),
            turn: 0,
            reads: BTreeMap::new(),
            next_read: PING + 1,
            subscriptions: Subscriptions::default(),
            credit: 1,
            connected: false,
            heard: Duration::ZERO,
            pinged: false,
            ping_due: false,
            settled: VecDeque::new(),
            pushed: VecDeque::new(),
        }
    }

    /// True when nothing waits for the node.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.reads.is_empty() && self.subscriptions.is_empty() && self.sessions.values().all(Session::is_idle)
    }

    /// Queues a write at its shard, behind all before it.
    pub fn write(&mut self, shard: u16, write: Write<T>) {
        let (id, busy_for) = (self.session_id, self.limits.busy_for);
        self.sessions.entry(shard).or_insert_with(|| Session::new(shard, id, busy_for)).push(write);
    }

    /// Queues a question. Order among questions and writes is not kept.
    pub fn read(&mut self, read: Read<T>) {
        self.reads.insert(self.next_read, Asked { read, due: Some(Duration::ZERO), refused_since: None });
        self.next_read += 1;
    }

    /// Subscribes; its key names it from here on.
    pub fn subscribe(&mut self, subscribe: Subscribe) {
        self.subscriptions.add(subscribe);
    }

    /// So many firings were taken: as many more may come.
    pub fn grant(&mut self, key: u64, shard: u16, count: u32) {
        self.subscriptions.grant(key, shard, count);
    }

    /// Nobody listens any more.
    pub fn unsubscribe(&mut self, key: u64) {
        self.subscriptions.remove(key);
    }

    /// A connection stands, and the node has said hello.
    pub fn connected(&mut self, now: Duration, credit: u32) {
        self.connected = true;
        self.credit = (credit as usize).max(1);
        self.heard = now;
        self.pinged = false;
        self.ping_due = false;
    }

    /// It is gone. Everything that was under way will be sent again.
    pub fn disconnected(&mut self) {
        self.connected = false;
        for session in self.sessions.values_mut() {
            session.disconnected(&mut self.settled);
        }
        for asked in self.reads.values_mut() {
            asked.due.get_or_insert(Duration::ZERO);
        }
        self.subscriptions.disconnected();
    }

    /// It does not come back: everything ends.
    pub fn give_up(&mut self, why: &str) {
        self.disconnected();
        for session in self.sessions.values_mut() {
            session.give_up(why, &mut self.settled);
        }
        for asked in std::mem::take(&mut self.reads).into_values() {
            self.settled.push_back((asked.read.ticket, Fate::NotSent(why.to_owned())));
        }
        self.subscriptions.give_up(&mut self.pushed);
    }

    /// A frame came. **Errors:** it answers nothing that was asked; close the connection.
    pub fn handle_frame(&mut self, now: Duration, header: Header, kind: Kind, body: &[u8]) -> Result<(), Unexpected> {
        self.heard = now;
        self.pinged = false;
        if header.credit != 0 {
            self.credit = header.credit as usize;
        }
        if self.subscriptions.owns(&header) {
            return self.subscriptions.handle_frame(header, kind, body, &mut self.pushed);
        }
        if kind == Kind::Pong {
            return Ok(());
        }
        let reply = Reply { header, kind, body: body.to_vec() };
        if header.session == 0 {
            return self.handle_answer(now, reply);
        }
        let unexpected = Unexpected { shard: header.shard, request: header.request };
        let session = self.sessions.get_mut(&header.shard).ok_or(unexpected)?;
        session.handle_reply(now, reply, &mut self.settled)
    }

    fn handle_answer(&mut self, now: Duration, reply: Reply) -> Result<(), Unexpected> {
        let header = reply.header;
        let unexpected = Unexpected { shard: header.shard, request: header.request };
        let asked = self.reads.get_mut(&header.request).filter(|asked| asked.due.is_none()).ok_or(unexpected)?;
        if reply.kind == Kind::Refused {
            let wait = Code::from_number(header.code).and_then(|code| code.again_after(header.aux));
            let since = *asked.refused_since.get_or_insert(now);
            if let Some(wait) = wait.filter(|_| now.saturating_sub(since) <= self.limits.busy_for) {
                asked.due = Some(now + wait);
                return Ok(());
            }
        }
        if let Some(asked) = self.reads.remove(&header.request) {
            let fate = match reply.kind {
                Kind::Refused => Fate::Refused(Refusal::read(&header, &reply.body)),
                _ => Fate::Answered(reply),
            };
            self.settled.push_back((asked.read.ticket, fate));
        }
        Ok(())
    }

    /// Appends what can be said now to `out`.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) {
        if !self.connected {
            return;
        }
        if std::mem::take(&mut self.ping_due) {
            write_frame(out, Header { request: PING, ..Header::new(Kind::Ping) }, &[]);
        }
        self.subscriptions.poll_transmit(out);
        let writing: usize = self.sessions.values().map(Session::under_way).sum();
        let asking = self.reads.values().filter(|asked| asked.due.is_none()).count();
        let mut room = self.credit.saturating_sub(writing + asking);
        for (request, asked) in &mut self.reads {
            if room == 0 || out.len() >= AHEAD {
                break;
            }
            if asked.due.is_some_and(|due| due <= now) {
                asked.due = None;
                write_frame(out, Header { request: *request, session: 0, ..asked.read.header }, &asked.read.body);
                room -= 1;
            }
        }
        let turn = self.turn;
        let (before, behind): (Vec<_>, Vec<_>) = self.sessions.iter_mut().partition(|(shard, _)| **shard < turn);
        for (shard, session) in behind.into_iter().chain(before) {
            let sent = session.poll_transmit(now, room, AHEAD, out);
            room -= sent;
            if sent > 0 {
                self.turn = shard.wrapping_add(1);
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event<T>> {
        if let Some((ticket, fate)) = self.settled.pop_front() {
            return Some(Event::Settled(ticket, fate));
        }
        self.pushed.pop_front().map(Event::Pushed)
    }

    /// When to call [`Link::handle_timeout`] and then [`Link::poll_transmit`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if !self.connected {
            return None;
        }
        let sessions = self.sessions.values().filter_map(Session::next_deadline);
        let reads = self.reads.values().filter_map(|asked| asked.due);
        let listening = (!self.is_idle()).then_some(self.heard + self.limits.silence * (1 + u32::from(self.pinged)));
        sessions.chain(reads).chain(listening).min()
    }

    /// Time passed. False when the node has been silent for too long: close the connection.
    pub fn handle_timeout(&mut self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.heard);
        if !self.connected || self.is_idle() || silent < self.limits.silence {
            return true;
        }
        if self.pinged {
            return silent < self.limits.silence * 2;
        }
        self.pinged = true;
        self.ping_due = true;
        true
    }
}

#[cfg(test)]
mod tests;
