//! One session at one shard: which requests are under way, and what to do when the node says "later" or the line is cut.
//!
//! ```text
//!   push -> [ queued ] -> sent -> answered: done, or refused          base = the number of the first that is not done
//!                          |  \-> Busy, NotLeader, SessionGap: back, and so is everything behind it
//!                          |        draining -> all answered -> wait -> Resume { base } -> sent again, in order
//!                          \--- the connection is lost: sent again on the next one under the same number
//! ```
//!
//! Invariants: numbers have no holes and follow the order of `push`; a number is given to another request only when
//! everything sent on this connection was answered, so no late answer can be taken for another's; a session whose next
//! number is in doubt is never used again. Deliberately absent: sockets, clocks, other shards.

use crate::error::{Lost, Refusal};
use myelin_wire::{Code, Header, Kind, begin, finish, write_frame};
use std::collections::VecDeque;
use std::time::Duration;

/// A write that waits for its answer. `T` is whatever the caller wants back with the answer.
#[derive(Debug)]
pub struct Write<T> {
    /// Comes back with the answer.
    pub ticket: T,
    /// What it is.
    pub kind: Kind,
    /// See [`Header`].
    pub flags: u16,
    /// Rows or items.
    pub count: u32,
    /// The frame's body.
    pub body: Vec<u8>,
}

/// An answer, as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its header.
    pub header: Header,
    /// Its kind.
    pub kind: Kind,
    /// Its body.
    pub body: Vec<u8>,
}

/// How a request ended.
#[derive(Debug)]
pub enum Fate {
    /// Answered.
    Answered(Reply),
    /// Refused: nothing was executed.
    Refused(Refusal),
    /// Nobody knows.
    Unknown(Lost),
    /// It never left: nothing was executed.
    NotSent(String),
}

/// An answer to a request that is not under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} answered request {request}, which is not under way")]
pub struct Unexpected {
    /// Who answered.
    pub shard: u16,
    /// Which request.
    pub request: u64,
}

/// The answers that are ready to be handed over.
pub type Settled<T> = VecDeque<(T, Fate)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not sent on this connection.
    Queued,
    /// Sent on this connection, not answered.
    Sent,
    /// Answered "later".
    Back,
    /// Its number is spent.
    Done,
    /// Refused before it had a number in the log: the number goes to the next one.
    Gone,
}

#[derive(Debug)]
struct Entry<T> {
    /// Taken when it is settled.
    ticket: Option<T>,
    state: State,
    /// Was under way when a connection was lost: it may have been executed.
    doubtful: bool,
    kind: Kind,
    flags: u16,
    count: u32,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Flowing,
    /// Sends nothing until everything sent was answered. `by` is the number whose wait counts: the lowest.
    Draining {
        by: u64,
        wait: Duration,
    },
    Waiting {
        until: Duration,
    },
}

/// See the module's picture.
#[derive(Debug)]
pub struct Session<T> {
    shard: u16,
    id: u64,
    base: u64,
    entries: VecDeque<Entry<T>>,
    /// The first entry not sent on this connection.
    next: usize,
    /// Frames on this connection that wait for an answer.
    under_way: usize,
    phase: Phase,
    /// The node holds the session back until it is told where we go on.
    resume_due: bool,
    expired: bool,
    /// What a gap said the node expects.
    expected: u64,
    busy_since: Option<Duration>,
    busy_for: Duration,
    last_refusal: Option<Refusal>,
}

/// Waits shorter than this are not worth a timer; longer ones are not believed.
const WAIT: (Duration, Duration) = (Duration::from_micros(200), Duration::from_secs(2));

impl<T> Session<T> {
    /// A session that has not spoken yet. `id` is random and not zero.
    #[must_use]
    pub fn new(shard: u16, id: u64, busy_for: Duration) -> Self {
        Self {
            shard,
            id,
            base: 1,
            entries: VecDeque::new(),
            next: 0,
            under_way: 0,
            phase: Phase::Flowing,
            resume_due: false,
            expired: false,
            expected: 0,
            busy_since: None,
            busy_for,
            last_refusal: None,
        }
    }

    /// Frames that wait for an answer on this connection.
    #[must_use]
    pub const fn under_way(&self) -> usize {
        self.under_way
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// When [`Session::poll_transmit`] has something to say that it has not now.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Flowing | Phase::Draining { .. } => None,
        }
    }

    /// Queues a write behind all others.
    pub fn push(&mut self, write: Write<T>) {
        let Write { ticket, kind, flags, count, body } = write;
        self.entries.push_back(Entry {
            ticket: Some(ticket),
            state: State::Queued,
            doubtful: false,
            kind,
            flags,
            count,
            body,
        });
    }

    /// Appends frames to `out`, at most `room` that wait for an answer, while `out` is below `bytes`; says how many.
    pub fn poll_transmit(&mut self, now: Duration, room: usize, bytes: usize, out: &mut Vec<u8>) -> usize {
        match self.phase {
            Phase::Draining { .. } => return 0,
            Phase::Waiting { until } if now < until => return 0,
            Phase::Waiting { .. } => self.phase = Phase::Flowing,
            Phase::Flowing => {}
        }
        let mut frames = 0;
        while frames < room && out.len() < bytes && self.next < self.entries.len() {
            if std::mem::take(&mut self.resume_due) {
                let header =
                    Header { session: self.id, shard: self.shard, aux: self.base, ..Header::new(Kind::Resume) };
                let start = begin(out);
                finish(out, start, header);
            }
            let request = self.base + self.next as u64;
            let entry = &mut self.entries[self.next];
            if entry.state == State::Done {
                self.next += 1;
                continue;
            }
            let header = Header {
                session: self.id,
                request,
                shard: self.shard,
                flags: entry.flags,
                count: entry.count,
                ..Header::new(entry.kind)
            };
            write_frame(out, header, &entry.body);
            entry.state = State::Sent;
            self.next += 1;
            frames += 1;
        }
        self.under_way += frames;
        frames
    }

    /// The node answered one of ours. **Errors:** an answer nobody waits for; the connection is of no use any more.
    pub fn handle_reply(&mut self, now: Duration, reply: Reply, settled: &mut Settled<T>) -> Result<(), Unexpected> {
        let request = reply.header.request;
        let unexpected = Unexpected { shard: self.shard, request };
        let at = request.checked_sub(self.base).and_then(|at| usize::try_from(at).ok()).ok_or(unexpected)?;
        let entry = self.entries.get_mut(at).filter(|entry| entry.state == State::Sent).ok_or(unexpected)?;
        self.under_way -= 1;
        match meaning(&reply) {
            Meaning::Done(fate) => {
                entry.settle(State::Done, fate(reply), settled);
                self.busy_since = None;
            }
            Meaning::Doubt => {
                // It may be in the log and be executed by a recovery: the number is neither free nor known to be spent, so
                // nothing may ever be sent under it again.
                entry.settle(State::Gone, Fate::Unknown(Lost::Stopped), settled);
                self.expired = true;
                self.drain(request, Duration::ZERO);
            }
            Meaning::Unspent => {
                entry.settle(State::Gone, Fate::Refused(Refusal::read(&reply.header, &reply.body)), settled);
                self.drain(request, Duration::ZERO);
            }
            Meaning::Later(wait) => {
                entry.state = State::Back;
                if reply.header.code == Code::SessionGap as u16 {
                    self.expected = self.expected.max(reply.header.aux);
                }
                self.last_refusal = Some(Refusal::read(&reply.header, &reply.body));
                self.busy_since.get_or_insert(now);
                self.drain(request, wait.clamp(WAIT.0, WAIT.1));
            }
            Meaning::Expired => {
                if entry.doubtful {
                    entry.settle(State::Gone, Fate::Unknown(Lost::Session), settled);
                } else {
                    entry.state = State::Back;
                }
                self.expired = true;
                self.drain(request, Duration::ZERO);
            }
        }
        while self.entries.front().is_some_and(|entry| entry.state == State::Done) {
            self.entries.pop_front();
            self.base += 1;
            self.next -= 1;
        }
        if let (Phase::Draining { wait, .. }, 0) = (self.phase, self.under_way) {
            self.drained(now, wait, settled);
        }
        Ok(())
    }

    fn drain(&mut self, request: u64, wait: Duration) {
        match self.phase {
            // What is behind the first one waits for it: only its time counts.
            Phase::Draining { by, .. } if by <= request => {}
            _ => self.phase = Phase::Draining { by: request, wait },
        }
    }

    /// Nothing is under way: numbers can be given anew.
    fn drained(&mut self, now: Duration, wait: Duration, settled: &mut Settled<T>) {
        let expected = std::mem::take(&mut self.expected);
        self.entries.retain(|entry| !matches!(entry.state, State::Gone | State::Done));
        if std::mem::take(&mut self.expired) {
            self.renew(Lost::Session, settled);
        } else if expected != 0 && expected < self.base {
            // A refusal that we took for executed was none: the node waits for its number.
            self.base = expected;
        }
        if self.busy_since.is_some_and(|since| now.saturating_sub(since) > self.busy_for) {
            self.busy_since = None;
            if let Some(refusal) = self.last_refusal.take() {
                if self.entries.iter().any(|entry| entry.doubtful) {
                    self.renew(Lost::Connection, settled);
                }
                self.fail_if(|_| Some(Fate::Refused(refusal.clone())), settled);
            }
        }
        for entry in &mut self.entries {
            entry.state = State::Queued;
        }
        self.next = 0;
        self.resume_due = true;
        self.phase = Phase::Waiting { until: now + wait };
    }

    /// The connection is gone. What was under way is sent again on the next one, under the same number.
    pub fn disconnected(&mut self, settled: &mut Settled<T>) {
        let renumbered = self.expired || self.entries.iter().any(|entry| entry.state == State::Gone);
        if renumbered {
            // Numbers behind a hole were to be given anew, and the old connection may still be read: a doubt that only a
            // new session ends.
            self.fail_if(|entry| (entry.state == State::Sent).then_some(Fate::Unknown(Lost::Connection)), settled);
            self.renew(Lost::Connection, settled);
        }
        for entry in &mut self.entries {
            entry.doubtful |= entry.state == State::Sent;
            if entry.state != State::Done {
                entry.state = State::Queued;
            }
        }
        self.next = 0;
        self.under_way = 0;
        self.phase = Phase::Flowing;
        self.resume_due = false;
        self.expired = false;
        self.expected = 0;
    }

    /// No connection came back: everything is settled, and this session is never used again.
    pub fn give_up(&mut self, why: &str, settled: &mut Settled<T>) {
        self.disconnected(settled);
        self.renew(Lost::Connection, settled);
        self.fail_if(|_| Some(Fate::NotSent(why.to_owned())), settled);
    }

    fn fail_if(&mut self, fate: impl Fn(&Entry<T>) -> Option<Fate>, settled: &mut Settled<T>) {
        self.entries.retain_mut(|entry| match (entry.state, fate(entry)) {
            (State::Done | State::Gone, _) => false,
            (_, None) => true,
            (_, Some(fate)) => {
                entry.settle(State::Gone, fate, settled);
                false
            }
        });
    }

    /// Another id, which nobody has spoken under. What may have been executed under the old one is not tried again.
    fn renew(&mut self, lost: Lost, settled: &mut Settled<T>) {
        self.fail_if(|entry| entry.doubtful.then_some(Fate::Unknown(lost)), settled);
        // One step of splitmix64: as random as the id before.
        let mut id = self.id.wrapping_add(0x9e37_79b9_7f4a_7c15);
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.id = (id ^ (id >> 31)).max(1);
        self.base = 1;
    }
}

impl<T> Entry<T> {
    fn settle(&mut self, state: State, fate: Fate, settled: &mut Settled<T>) {
        self.state = state;
        self.body = Vec::new();
        if let Some(ticket) = self.ticket.take() {
            settled.push_back((ticket, fate));
        }
    }
}

enum Meaning {
    /// Executed, or refused by `apply`: its number is spent.
    Done(fn(Reply) -> Fate),
    /// Refused before the log: its number is free.
    Unspent,
    /// The shard stopped: whether it was executed shows after a recovery.
    Doubt,
    /// Not executed; it may be later.
    Later(Duration),
    /// The node does not know the session.
    Expired,
}

fn meaning(reply: &Reply) -> Meaning {
    if reply.kind != Kind::Refused {
        return Meaning::Done(Fate::Answered);
    }
    let refused = |reply: Reply| Fate::Refused(Refusal::read(&reply.header, &reply.body));
    let code = Code::from_number(reply.header.code);
    if let Some(wait) = code.and_then(|code| code.again_after(reply.header.aux)) {
        return Meaning::Later(wait);
    }
    match code {
        Some(Code::SessionGap) => Meaning::Later(Duration::from_millis(1)),
        Some(Code::SessionExpired) => Meaning::Expired,
        Some(Code::Unavailable) => Meaning::Doubt,
        Some(Code::OutcomeForgotten) => Meaning::Done(|_| Fate::Unknown(Lost::Outcome)),
        Some(
            Code::UnknownMarket
            | Code::IdConflict
            | Code::TooOld
            | Code::NegativePrice
            | Code::NothingToCorrect
            | Code::TooMany
            | Code::UnknownReflex
            | Code::ReflexConflict
            | Code::UnknownAttribute
            | Code::NoEntity
            | Code::ValueType
            | Code::CheckFailed
            | Code::NotUnique
            | Code::CompareFailed
            | Code::SchemaForbidden
            | Code::Contradiction
            | Code::TooLarge
            | Code::OtherPartition,
        ) => Meaning::Done(refused),
        // `admit` leaves no trace in the log.
        _ => Meaning::Unspent,
    }
}

#[cfg(test)]
mod tests;
