//! One shard: one group, one slice of the facts, one mailbox.
//!
//! This file is the journey of a tick, and nothing else decides its order.
//!
//! ```text
//!   socket -> decode -> route -> admit -> append ----> apply -> react -> reply -> socket
//!             (wire)    (core)           \-> replicate -/
//!
//!   watermarks         acked <= applied <= committed <= appended,   synced <= appended,   reacted <= applied
//! ```
//!
//! Nothing here waits, reads a clock or touches a socket: [`Shard`] takes events and gives effects, and `driver.rs`
//! performs them. Deliberately absent: other shards; what spans them is put together by who asked.

mod across;
pub mod admit;
pub mod append;
pub mod apply;
pub mod ask;
#[cfg(test)]
mod campaign;
pub mod checkpoint;
pub mod confluence;
pub mod crossing;
pub mod driver;
pub mod entry;
pub mod facts;
pub mod gaps;
pub mod interleave;
mod lane;
pub mod manifest;
pub mod merge;
mod planted;
#[cfg(test)]
mod promises;
pub mod prune;
pub mod react;
pub mod reading;
pub mod registrations;
pub mod replay;
pub mod replicate;
pub mod reply;
pub mod seal;
pub mod seek;
pub mod session;
pub mod tail;
pub mod tidying;
pub mod turn;
mod ways;

use crate::config::Limits;
use crate::market::Markets;
use crate::reflex::Reflexes;
use crate::retention::Policies;
use admit::{Delay, Gates};
use append::{Appender, NoRoom};
use crossing::{Crossing, Letter};
use entry::{EntryKind, Proposal, Senseless};
use myelin_datom::{EntityId, Quote, SLOTS, Tick, Tx};
use myelin_index::{Columns, ColumnsConfig, Facts, IndexError};
use myelin_wire::{Code, Frame, Header, Kind, SlotRange, WireError};
use planted::Bug;
use react::Subscribers;
use replicate::{Group, LogIndex, Position};
use reply::{Reply, Said};
use session::Sessions;
use std::collections::VecDeque;
use std::ops::Range;
use tail::Tails;

/// How long a write waits on a full disk: nothing comes of asking more often, as sealing does not either.
/// **Units:** microseconds.
const DISK_FULL_US: u64 = 250_000;

/// For what a disk has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFull {
    /// For another segment of the log.
    pub for_segments: bool,
    /// For the rows that are to be sealed.
    pub for_runs: bool,
}

/// A connection of this node: the station that holds it (a core or the gateway), and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// The thread that holds the socket.
    pub station: u16,
    /// How often the place was used before.
    pub generation: u16,
    /// The place.
    pub index: u32,
}

/// The time, read once per turn by the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Never goes back. **Units:** microseconds.
    pub mono_us: u64,
    /// **Units:** Unix nanoseconds.
    pub unix_ns: i64,
}

impl Now {
    /// What a leader stamps. **Units:** Unix milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        (self.unix_ns / 1_000_000) as u64
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason's number.
    pub code: Code,
    /// The first row or item it is about, else `u32::MAX`.
    pub first_bad: u32,
    /// What the code says: microseconds to wait, the request expected, the horizon.
    pub aux: u64,
    /// The market it is about, where the request named several; else none.
    pub about: EntityId,
}

impl Refusal {
    /// A refusal that needs no numbers.
    #[must_use]
    pub const fn of(code: Code) -> Self {
        Self { code, first_bad: u32::MAX, aux: 0, about: EntityId::NONE }
    }
}

/// Why a shard stops. It is never restarted in place: what it holds in memory may no longer be what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A run could not be read.
    #[error("the index failed")]
    Index(#[from] IndexError),
    /// An entry that verified has no sense.
    #[error(transparent)]
    Senseless(#[from] Senseless),
    /// A checkpoint that verified has no sense.
    #[error("a checkpoint has no sense: {0}")]
    Checkpoint(String),
}

/// A request that was appended and waits for its entry.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    to: ConnId,
    session: u64,
    request: u64,
    tx: Tx,
    admitted: Now,
}

/// A committed entry.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// Its place.
    pub index: LogIndex,
    /// The `tx` of its first proposal.
    pub tx: Tx,
    /// What it is.
    pub kind: u8,
    /// What it carries.
    pub payload: &'a [u8],
}

/// What the shard counts about itself.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Ticks and quotes stored.
    pub rows_accepted: u64,
    /// Rows that were there already.
    pub rows_duplicate: u64,
    /// Ticks and quotes that no policy kept.
    pub rows_dropped: u64,
    /// Datoms that no policy kept.
    pub datoms_dropped: u64,
    /// Firings given out.
    pub firings: u64,
    /// Moments that were closed because another shard waited for them.
    pub moments_closed: u64,
    /// Refusals by code.
    pub refused: std::collections::BTreeMap<Code, u64>,
}

/// One shard.
pub struct Shard {
    number: u16,
    /// The slots that are placed here.
    slots: Range<u16>,
    limits: Limits,
    group: Group,
    gates: Gates,
    delay: Delay,
    in_flight: VecDeque<InFlight>,
    sessions: Sessions,
    markets: Markets,
    ticks: Columns<Tick>,
    quotes: Columns<Quote>,
    facts: Facts,
    reflexes: Reflexes,
    /// The version of their registrations that a checkpoint has.
    registrations_written: u64,
    /// The last segment or run that was to be made found no room on the disk.
    disk_full: DiskFull,
    retention: Policies,
    pruner: prune::Pruner,
    fact_pruner: prune::facts::FactPruner,
    subscribers: Subscribers,
    crossing: Crossing,
    tails: Tails,
    waiting: ask::Waiting,
    readings: reading::Readings,
    scratch: apply::Scratch,
    effects: VecDeque<Reply>,
    counters: Counters,
    /// The time of the event that is handled.
    now: Now,
}

impl Shard {
    /// An empty shard that leads its group behind an empty log.
    #[must_use]
    pub fn new(number: u16, term: u64, limits: &Limits) -> Self {
        Self {
            number,
            slots: 0..SLOTS,
            limits: limits.clone(),
            group: Group::lead(number + 1, term, Position::default()),
            gates: Gates::default(),
            delay: Delay::default(),
            in_flight: VecDeque::new(),
            sessions: Sessions::new(limits.sessions_per_shard),
            markets: Markets::default(),
            ticks: Columns::new(columns_config(limits)),
            quotes: Columns::new(columns_config(limits)),
            facts: Facts::new(),
            reflexes: Reflexes::new(react::limits(limits)),
            registrations_written: 0,
            disk_full: DiskFull::default(),
            retention: Policies::default(),
            pruner: prune::Pruner::default(),
            fact_pruner: prune::facts::FactPruner::default(),
            subscribers: Subscribers::new(limits),
            crossing: Crossing::new(react::limits(limits)),
            tails: Tails::new(limits),
            waiting: ask::Waiting::default(),
            readings: reading::Readings::default(),
            scratch: apply::Scratch::default(),
            effects: VecDeque::new(),
            counters: Counters::default(),
            now: Now::default(),
        }
    }

    /// Says which slots are placed here; until then it is all of them.
    pub fn own(&mut self, slots: Range<u16>) {
        self.slots = slots;
    }

    /// Says for what the disk has no room.
    pub fn set_disk_full(&mut self, full: DiskFull) {
        self.disk_full = full;
    }

    /// Says where slots are, this shard's and others'; until then spreads over two shards stand still.
    pub fn place(&mut self, placed: Vec<SlotRange>) {
        self.crossing.place(placed);
    }

    /// The next letter to a shard of this node, in order.
    pub fn poll_letter(&mut self) -> Option<Letter> {
        self.crossing.poll_letter()
    }

    /// The shard's number; its group is one higher, group 0 being the system's.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The group whose log this shard applies.
    #[must_use]
    pub const fn group(&self) -> &Group {
        &self.group
    }

    /// What it counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<Reply> {
        self.effects.pop_front()
    }

    /// A frame from a connection. Writes are admitted and appended; everything else is answered or waits.
    pub fn frame(&mut self, now: Now, from: ConnId, frame: &Frame<'_>, log: &mut Appender) -> Result<(), ShardError> {
        self.now = now;
        match frame.kind {
            Kind::Ticks => self.write(now, from, frame, EntryKind::Ticks, log),
            Kind::Quotes => self.write(now, from, frame, EntryKind::Quotes, log),
            Kind::Markets => self.write(now, from, frame, EntryKind::Markets, log),
            Kind::Register => self.write(now, from, frame, EntryKind::Register, log),
            Kind::Remove => self.write(now, from, frame, EntryKind::Remove, log),
            Kind::Transact => self.write(now, from, frame, EntryKind::Transact, log),
            Kind::Retain => self.write(now, from, frame, EntryKind::Retain, log),
            Kind::Resume => self.gates.resume(from, frame.header.session, frame.header.aux),
            Kind::Subscribe => self.subscribe(from, frame),
            Kind::Tail => self.tail(from, frame),
            Kind::Credit => {
                self.subscribers.grant(from, frame.header.session, frame.header.count);
                self.tails.grant(from, frame.header.session, frame.header.count);
            }
            Kind::End => self.end(from, &frame.header),
            Kind::Count
            | Kind::Latest
            | Kind::Vwap
            | Kind::Bars
            | Kind::Rows
            | Kind::ListMarkets
            | Kind::ListReflexes
            | Kind::Top
            | Kind::Totals
            | Kind::Policies
            | Kind::Now
            | Kind::Datoms
            | Kind::Pull
            | Kind::Status => self.ask(now, from, frame, log)?,
            _ => self.refuse(from, &frame.header, Refusal::of(Code::UnknownKind)),
        }
        Ok(())
    }

    /// `admit`, then `append`. What fails here leaves no trace in the log.
    fn write(&mut self, now: Now, from: ConnId, frame: &Frame<'_>, kind: EntryKind, log: &mut Appender) {
        let header = &frame.header;
        let admitted = self.admit(now, from, frame);
        let appended = admitted.and_then(|()| {
            let partial = header.flags & Header::PARTIAL != 0;
            let count =
                if matches!(kind, EntryKind::Ticks | EntryKind::Quotes) { header.count } else { header.body_len };
            let proposal = Proposal::new(header.session, header.request, count, partial, header.body_crc);
            log.propose(&mut self.group, now.millis(), kind, &proposal, frame.body).map_err(|NoRoom| {
                // Segments of what was not sealed are not given back.
                let DiskFull { for_segments, for_runs } = self.disk_full;
                self.no_room(now, for_segments || for_runs)
            })
        });
        match appended {
            Ok(tx) => {
                self.gates.passed(from, header.session, header.request);
                self.in_flight.push_back(InFlight {
                    to: from,
                    session: header.session,
                    request: header.request,
                    tx,
                    admitted: now,
                });
                if planted::is(Bug::AckBeforeSync) {
                    self.say(from, header.session, header.request, tx, apply::done(tx, header.count).said);
                }
            }
            Err(refusal) => {
                if refusal.code.passes() {
                    self.gates.stall(from, header.session, header.request, refusal.code);
                }
                self.refuse(from, header, refusal);
            }
        }
    }

    fn admit(&self, now: Now, from: ConnId, frame: &Frame<'_>) -> Result<(), Refusal> {
        if frame.header.session == 0 || frame.header.request == 0 || frame.header.request == u64::MAX {
            return Err(Refusal::of(Code::SessionGap));
        }
        self.gates.check(from, frame.header.session, frame.header.request)?;
        admit::shape(frame, &self.slots)?;
        let oldest = self.in_flight.front().map(|first| now.mono_us.saturating_sub(first.admitted.mono_us));
        if self.unsealed_rows() > self.limits.unsealed_rows_max {
            return Err(self.no_room(now, self.disk_full.for_runs));
        }
        let overloaded =
            self.delay.standing_us(now.mono_us, oldest) > self.limits.max_sync_latency_us || self.reflexes.full();
        if overloaded { Err(self.busy(now)) } else { Ok(()) }
    }

    /// Neither the log nor memory takes more before rows are sealed: soon, or not before somebody makes room on the disk.
    fn no_room(&self, now: Now, disk_full: bool) -> Refusal {
        if disk_full { Refusal { aux: DISK_FULL_US, ..Refusal::of(Code::NoSpace) } } else { self.busy(now) }
    }

    /// `Busy`, with the time after which it may have passed.
    fn busy(&self, now: Now) -> Refusal {
        let oldest = self.in_flight.front().map(|first| now.mono_us.saturating_sub(first.admitted.mono_us));
        let standing = self.delay.standing_us(now.mono_us, oldest);
        Refusal { aux: standing.clamp(1_000, 1_000_000), ..Refusal::of(Code::Busy) }
    }

    /// `End`: the stream that began with this session and request. What was said of it stands before its last frame.
    fn end(&mut self, from: ConnId, header: &Header) {
        let (session, request) = (header.session, header.request);
        let ended = self.end_subscription(from, session, request) || self.end_tail(from, session, request);
        if ended {
            self.say(from, session, request, self.group.applied_tx(), Said::Ended { code: None, oldest: 0 });
        }
    }

    /// The last frame of a stream, by the session and request it was asked for with: refused when it has not begun, else ended.
    fn say_no_more(&mut self, to: ConnId, (session, request): (u64, u64), begun: bool, refusal: Refusal) {
        if begun {
            let said = Said::Ended { code: Some(refusal.code), oldest: refusal.aux };
            self.say(to, session, request, Tx::ZERO, said);
        } else {
            self.refuse(to, &Header { session, request, ..bytemuck::Zeroable::zeroed() }, refusal);
        }
    }

    fn refuse(&mut self, to: ConnId, header: &Header, refusal: Refusal) {
        *self.counters.refused.entry(refusal.code).or_insert(0) += 1;
        self.say(to, header.session, header.request, self.group.applied_tx(), Said::Refused(refusal));
    }

    fn say(&mut self, to: ConnId, session: u64, request: u64, tx: Tx, said: Said) {
        self.effects.push_back(Reply { to, session, request, shard: self.number, tx: tx.bits(), said });
    }

    /// Our own disk has everything up to here: one vote. What is committed by it comes next, through [`Shard::apply`].
    pub fn synced(&mut self, upto: LogIndex) {
        self.group.synced(upto);
    }

    /// The shard stops: whoever waits for it, listens or reads the log is told so. What was appended may be there after a
    /// recovery, or not.
    pub fn stop(&mut self) {
        for InFlight { to, session, request, .. } in std::mem::take(&mut self.in_flight) {
            self.say(to, session, request, self.group.applied_tx(), Said::Refused(Refusal::of(Code::Unavailable)));
        }
        for (to, header) in self.waiting.give_up().into_iter().chain(self.readings.give_up()) {
            self.refuse(to, &header, Refusal::of(Code::Unavailable));
        }
        self.give_up_subscribers();
        self.give_up_tails();
    }

    /// The connection is gone; what it has under way goes on, unanswered.
    pub fn closed(&mut self, conn: ConnId) {
        self.gates.forget(conn);
        self.subscribers.forget(conn);
        self.tails.forget(conn);
        self.waiting.forget(conn);
        self.forget_readings(conn);
    }

    /// A leader's first entry in its term: nothing older is committed by counting.
    pub fn take_the_lead(&mut self, now: Now, log: &mut Appender) -> Result<(), NoRoom> {
        let tx = Tx::stamp(now.millis(), self.group.appended_tx());
        self.lead_crossing(tx);
        log.note(&mut self.group, EntryKind::Lead, tx)
    }

    /// Rows that no run holds yet: they are in memory and in the log.
    #[must_use]
    pub fn unsealed_rows(&self) -> u64 {
        self.ticks.unsealed_rows() + self.quotes.unsealed_rows() + self.unsealed_facts_as_rows()
    }
}

/// The answer to bytes that are no frame.
#[must_use]
pub fn refuse_bytes(to: ConnId, error: &WireError) -> Reply {
    Reply { to, session: 0, request: 0, shard: 0, tx: 0, said: Said::Refused(Refusal::of(error.code())) }
}

fn columns_config(limits: &Limits) -> ColumnsConfig {
    ColumnsConfig { cache_bytes_max: limits.block_cache_bytes, ..ColumnsConfig::default() }
}
