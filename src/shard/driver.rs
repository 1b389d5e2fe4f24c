//! The driver of one data core: sockets, rings and threads on one side, shards on the other.
//!
//! ```text
//!   connections --frames--> [ route ] --> shards of this core --proposals--> log --Batch--> sync thread
//!   other cores, gateway --parcels--^          ^ apply <------------------ Synced <-----------'
//!                                              '--- replies --> outboxes, parcels
//! ```
//!
//! One thread, no locks: tasks share the core through a `RefCell` that is never held across a wait. The order of a turn:
//! the next batch goes to the disk first, then the one that is durable is applied, then replies go out, then reflexes.
//!
//! A failed sync stops every shard of the core, for good: the page cache may lie. What the core still does is say so.

mod connections;
mod ending;
mod late;
mod letters;
mod measures;
mod parcels;
mod reads;
mod sealing;
#[cfg(test)]
mod tests;

use super::append::Appender;
use super::prune::SEARCHES;
use super::reading::Trip;
use super::reply::{Reply, Said};
use super::seal::{Old, SealError, SealJob};
use super::tidying::Tidying;
use super::{Committed, ConnId, DiskFull, Now, Refusal, Shard};
use crate::config::Limits;
use crate::guard::Token;
use crate::health::{CoreHealth, Stage};
use crate::runtime::awake::Keeper;
use crate::runtime::clock;
use crate::runtime::ring::{Producer, ThreadProducer};
use crate::shard::replicate::LogIndex;
use connections::Connection;
pub use connections::Taken;
use ending::is_write;
use letters::Letters;
use measures::{Disk, Oldest, Waiting, note_firing};
use myelin_wal::{Batch, Lsn, Spare, WalError};
use myelin_wire::{Code, Frame, Header, Kind, Welcome, write_frame};
pub use parcels::Parcel;
use sealing::Sealing;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Waker;

/// What the sync thread gives back.
#[derive(Debug)]
pub struct Synced {
    /// The batch that was given.
    pub batch: Batch,
    /// Whether it is durable.
    pub result: Result<(), WalError>,
    /// When the sync began. **Units:** as of `at_us`.
    pub began_us: u64,
    /// When the sync returned. **Units:** microseconds, as [`Now::mono_us`].
    pub at_us: u64,
}

/// A durable batch on its way.
struct Applying {
    batch: Batch,
    /// So many of its records were applied.
    records: usize,
    durable: Now,
    disk: Disk,
    oldest: Oldest,
}

/// What a core is built from.
pub struct Parts {
    /// This core's station.
    pub station: u16,
    /// The bounds.
    pub limits: Limits,
    /// The welcome of this core.
    pub welcome: Welcome,
    /// The shards of this core.
    pub shards: Vec<Shard>,
    /// The log of this core.
    pub log: Appender,
    /// Towards the sync thread.
    pub to_sync: ThreadProducer<Batch>,
    /// Towards the seal thread.
    pub to_seal: ThreadProducer<SealJob>,
    /// Towards the reader thread.
    pub to_reader: ThreadProducer<Trip>,
    /// Towards the other stations; none at our own place.
    pub peers: Vec<Option<Producer<Parcel>>>,
    /// Where we say how we are.
    pub health: Arc<CoreHealth>,
    /// Keeps our CPU awake while a sync is under way, where that can be had.
    pub keeper: Option<Keeper>,
    /// What a hello must show, if anything.
    pub token: Option<Token>,
    /// The place of the checkpoint we started from.
    pub checkpoint: Lsn,
    /// Everything below was replayed.
    pub applied: Lsn,
}

/// One data core.
pub struct Core {
    station: u16,
    limits: Limits,
    welcome: Welcome,
    shards: Vec<Shard>,
    log: Appender,
    to_sync: ThreadProducer<Batch>,
    sync_under_way: bool,
    /// A durable batch that is applied in part, and the one behind it.
    applying: Option<Applying>,
    applied_next: Option<Synced>,
    to_seal: ThreadProducer<SealJob>,
    to_reader: ThreadProducer<Trip>,
    /// The shard whose reads go on next.
    reads_next: usize,
    /// The shard that prunes first.
    prune_next: usize,
    /// Rows that this turn has looked at for reads, in all shards.
    turn_rows: u64,
    /// The job under way, or one that failed and waits to be given again.
    sealing: Sealing,
    /// What jobs have left behind: the next one takes it along.
    old: Vec<Old>,
    /// When runs are merged, and what was pruned is given back.
    tidying: Tidying,
    checkpoint: Lsn,
    applied_upto: Lsn,
    peers: Vec<Option<Producer<Parcel>>>,
    /// Parcels that found a full ring, in order, per station.
    held: Vec<VecDeque<Parcel>>,
    connections: Vec<Connection>,
    free: Vec<u32>,
    open_connections: usize,
    /// Connections whose reader waits for room.
    waiting_readers: Vec<ConnId>,
    /// Places of connections that may owe a hello, or the rest of a frame.
    owing: Vec<u32>,
    react_bell: Option<Waker>,
    /// When the stage of the frame that is timed began. **Units:** nanoseconds.
    lap_ns: Option<u64>,
    letters: Letters,
    disk_full: DiskFull,
    failed: bool,
    /// A planned stop was asked for.
    stopping: bool,
    /// The end of the log when it was last marked.
    marked: Lsn,
    /// The last watermark that went to the hard state, and the checkpoint there was then.
    noted: (Lsn, Lsn),
    health: Arc<CoreHealth>,
    keeper: Option<Keeper>,
    token: Option<Token>,
}

impl Core {
    /// Puts a core together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let held = parts.peers.iter().map(|_| VecDeque::new()).collect();
        Self {
            station: parts.station,
            limits: parts.limits,
            welcome: parts.welcome,
            shards: parts.shards,
            log: parts.log,
            to_sync: parts.to_sync,
            sync_under_way: false,
            applying: None,
            applied_next: None,
            to_seal: parts.to_seal,
            to_reader: parts.to_reader,
            reads_next: 0,
            prune_next: 0,
            turn_rows: 0,
            sealing: Sealing::Idle,
            old: Vec::new(),
            tidying: Tidying::default(),
            checkpoint: parts.checkpoint,
            applied_upto: parts.applied,
            peers: parts.peers,
            held,
            connections: Vec::new(),
            free: Vec::new(),
            open_connections: 0,
            waiting_readers: Vec::new(),
            owing: Vec::new(),
            react_bell: None,
            lap_ns: None,
            letters: Letters::default(),
            disk_full: DiskFull::default(),
            failed: false,
            stopping: false,
            marked: Lsn::ZERO,
            noted: (parts.applied, parts.checkpoint),
            health: parts.health,
            keeper: parts.keeper,
            token: parts.token,
        }
    }

    /// The time of this turn.
    #[must_use]
    pub fn now() -> Now {
        Now { mono_us: clock::monotonic_ns() / 1000, unix_ns: clock::unix_ns() }
    }

    /// Every shard's first entry in its term.
    pub fn take_the_lead(&mut self) {
        let now = Self::now();
        for shard in &mut self.shards {
            // An empty log has room for a header per shard; if it has not, the first write brings one.
            let _noted = shard.take_the_lead(now, &mut self.log);
        }
        self.turn();
    }

    /// `route`: to the shard it is addressed to, here or on another core.
    fn route(&mut self, now: Now, from: ConnId, frame: &Frame<'_>) {
        let header = frame.header;
        if frame.kind == Kind::Ping {
            let pong = Header { kind: Kind::Pong as u8, credit: self.limits.requests_per_connection, ..header };
            let mut frames = Vec::new();
            write_frame(&mut frames, pong, frame.body);
            return self.put(from, &frames, 0);
        }
        // What is refused here and now is an answer too, so it counts before it is looked at.
        if let Some(connection) = self.connection(from) {
            connection.in_flight += 1;
        }
        if (frame.kind as u8) >= 128 {
            return self.refuse(from, &header, Refusal::of(Code::UnknownKind));
        }
        let unanswered = matches!(frame.kind, Kind::Resume | Kind::Credit | Kind::End);
        let known = usize::from(header.shard) < self.welcome.shard_cores.len();
        if unanswered
            && known
            && let Some(connection) = self.connection(from)
        {
            connection.in_flight -= 1;
        }
        match self.welcome.shard_cores.get(usize::from(header.shard)).copied() {
            None => self.refuse(from, &header, Refusal::of(Code::WrongShard)),
            Some(core) if core == self.station => self.hand_to_shard(now, from, frame),
            Some(core) => {
                let mut bytes = Vec::with_capacity(myelin_wire::framed_len(frame.body.len()));
                write_frame(&mut bytes, header, frame.body);
                self.post(usize::from(core), Parcel::Request { from, frame: bytes });
                self.lap(Stage::Route);
            }
        }
    }

    fn hand_to_shard(&mut self, now: Now, from: ConnId, frame: &Frame<'_>) {
        if self.failed && matches!(frame.kind, Kind::Resume | Kind::Credit | Kind::End) {
            // Nobody waits for an answer.
            return;
        }
        if self.failed {
            return self.refuse(from, &frame.header, Refusal::of(Code::Unavailable));
        }
        if self.stopping && is_write(frame.kind) {
            return self.refuse(from, &frame.header, Refusal::of(Code::Stopping));
        }
        self.lap(Stage::Route);
        let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == frame.header.shard) else {
            return self.refuse(from, &frame.header, Refusal::of(Code::WrongShard));
        };
        shard.go_on_from(self.turn_rows);
        let done = shard.frame(now, from, frame, &mut self.log);
        self.turn_rows = shard.turn_rows();
        let reads = shard.has_readings();
        if matches!(frame.kind, Kind::Ticks | Kind::Quotes) {
            self.lap(Stage::Admit);
        }
        if let Err(error) = done {
            self.fail(&error);
            self.refuse(from, &frame.header, Refusal::of(Code::Unavailable));
        }
        if reads || matches!(frame.kind, Kind::Credit | Kind::Subscribe | Kind::Tail | Kind::End) {
            self.ring_react_bell();
        }
    }

    fn refuse(&mut self, to: ConnId, header: &Header, refusal: Refusal) {
        let said = Said::Refused(refusal);
        self.deliver(Reply { to, session: header.session, request: header.request, shard: header.shard, tx: 0, said });
    }

    // ---- the turn

    /// What happens from here on is another turn's: others went first.
    const fn begin_turn(&mut self) {
        self.turn_rows = 0;
    }

    /// Sends what gathered to the disk, and what was said to whom it concerns.
    fn turn(&mut self) {
        self.close_moments();
        self.start_sync();
        self.say_effects();
        self.post_held();
    }

    fn say_effects(&mut self) {
        for at in 0..self.shards.len() {
            while let Some(reply) = self.shards[at].poll_effect() {
                self.deliver(reply);
            }
        }
    }

    fn start_sync(&mut self) {
        if self.sync_under_way || self.failed {
            return;
        }
        if let Some(batch) = self.log.take_batch() {
            self.sync_under_way = true;
            // A sync that takes longer than this is not worth a CPU that stays awake.
            self.stay_awake(self.limits.awake_us);
            let pushed = self.to_sync.push(batch);
            assert!(pushed.is_ok(), "one batch is under way at a time");
        }
    }

    /// The sync thread is done with a batch: what it holds is durable, committed, and applied here.
    pub fn synced(&mut self, synced: Synced) {
        self.begin_turn();
        // What comes behind a batch that is applied in part is under way until its turn comes.
        self.sync_under_way = self.applying.is_some();
        if let Err(error) = &synced.result {
            return self.fail(error);
        }
        if self.failed {
            // It is in the log, and a recovery applies it; this core's state stands still.
            return;
        }
        if self.applying.is_some() {
            self.applied_next = Some(synced);
            return;
        }
        let done = self.begin_to_apply(synced);
        if self.failed {
            return;
        }
        self.push_slices();
        self.seal_if_due(done);
        // Who was answered may have the next request at hand.
        self.stay_awake(self.limits.awake_us / 4);
    }

    /// A durable batch is committed, and applied as far as it goes now; gives when that was done.
    fn begin_to_apply(&mut self, synced: Synced) -> Now {
        let disk = Disk::of(&synced);
        let Synced { batch, at_us, .. } = synced;
        self.sync_under_way = false;
        let woken = Self::now();
        self.log.tail().synced(batch.upto());
        // The disk goes on while we apply.
        self.start_sync();
        self.health.stage(Stage::Wake, woken.mono_us.saturating_sub(at_us) * 1000);
        let durable = Now { mono_us: at_us, ..woken };
        self.apply_on(woken, Applying { batch, records: 0, durable, disk, oldest: Oldest::default() })
    }

    /// Applies a batch, to its end or to an entry that changes who is asked: that waits until what has fired before is
    /// written down, so many a turn.
    fn apply_on(&mut self, began: Now, applying: Applying) -> Now {
        let Applying { batch, records, durable, disk, mut oldest } = applying;
        let mut halted = None;
        for (nth, record) in batch.records().enumerate().skip(records) {
            let Some(shard) = record.header.group.checked_sub(1) else { continue };
            let Some(shard) = self.shards.iter_mut().find(|one| one.number() == shard) else { continue };
            if shard.must_react_before(record.header.kind) {
                halted = Some(nth);
                break;
            }
            let index = LogIndex(record.header.index);
            shard.synced(index);
            let tx = myelin_datom::Tx::from_bits(record.header.tx);
            let entry = Committed { index, tx, kind: record.header.kind, payload: record.payload };
            let waiting = Waiting::at(shard);
            shard.go_on_from(self.turn_rows);
            if let Err(error) = shard.apply(durable, entry) {
                self.fail(&error);
                return began;
            }
            self.turn_rows = shard.turn_rows();
            oldest.note(shard, &waiting);
        }
        let done = Self::now();
        self.health.stage(Stage::Apply, done.mono_us.saturating_sub(began.mono_us) * 1000);
        if let Some(records) = halted {
            self.applying = Some(Applying { batch, records, durable, disk, oldest });
            self.turn();
            return done;
        }
        self.applied_upto = batch.upto();
        self.log.tail().recycle(batch);
        self.turn();
        self.note_batch(disk, done, &oldest);
        self.wake_readers();
        done
    }

    /// Keeps our CPU from halting that long from now. **Units:** microseconds.
    fn stay_awake(&self, us: u64) {
        if let Some(keeper) = &self.keeper {
            keeper.stay_until(clock::monotonic_ns() / 1000 + us);
        }
    }

    /// A turn of the react task: true when there is more for another.
    pub fn push_firings(&mut self) -> bool {
        self.begin_turn();
        self.push_slices()
    }

    /// One slice of firings and of a read; the react task goes on if there are more. A core that failed has no more to tell,
    /// whoever rings: what it lists may have a hole.
    fn push_slices(&mut self) -> bool {
        if self.failed {
            return false;
        }
        let now = Self::now();
        let mut more = false;
        for shard in &mut self.shards {
            let fired = shard.subscribers.fired();
            match shard.push_firings(now) {
                Ok(further) => {
                    more |= further;
                    note_firing(&self.health, fired, shard);
                }
                Err(error) => {
                    self.fail(&error);
                    return false;
                }
            }
        }
        self.note_slice(now);
        if let Some(applying) = self.applying.take() {
            self.apply_on(now, applying);
        } else if let Some(next) = self.applied_next.take() {
            self.begin_to_apply(next);
        }
        more |= self.applying.is_some() || self.applied_next.is_some();
        more |= self.read_on();
        more |= self.exchange_letters(now);
        self.turn();
        if more {
            self.ring_react_bell();
        }
        more
    }

    fn ring_react_bell(&mut self) {
        if let Some(bell) = self.react_bell.take() {
            bell.wake();
        }
    }

    /// Leaves the waker of the react task.
    pub fn await_firings(&mut self, waker: &Waker) {
        self.react_bell = Some(waker.clone());
    }

    /// Every 20 ms, or 60 while nothing happens: the mark of an idle log, sealing that is due, parcels that waited.
    pub fn housekeeping(&mut self) {
        let now = Self::now();
        let (end, synced) = (self.log.tail().end_lsn(), self.log.tail().synced_upto());
        if !self.failed && !self.sync_under_way && end == synced && end != self.marked && self.log.tail().mark() {
            self.marked = self.log.tail().end_lsn();
        }
        self.cut_the_late(now);
        self.cut_the_stalled(now);
        self.prune(now);
        self.turn();
        self.seal_if_due(now);
        self.wake_readers();
        if self.shards.iter().any(|shard| shard.owes_a_place(now)) {
            self.ring_react_bell();
        }
        self.note_counts();
        self.health.rows_dropped.set(self.shards.iter().map(|shard| shard.counters().rows_dropped).sum());
        self.health.spares.set(self.log.tail().spares() as u64);
        self.health.unsealed_rows.set(self.shards.iter().map(Shard::unsealed_rows).sum());
        self.health.rows_accepted.set(self.shards.iter().map(|shard| shard.counters().rows_accepted).sum());
        self.health.firings.set(self.shards.iter().map(|shard| shard.counters().firings).sum());
    }

    /// A prepared segment.
    pub fn offer(&mut self, spare: Spare) {
        self.log.tail().offer(spare);
        self.preparing_told(None);
        self.wake_readers();
    }

    /// Whether segments can be prepared: why not, or that there are enough.
    pub fn preparing_told(&mut self, error: Option<&WalError>) {
        self.health.set_spare_error(error.map(|error| describe(error)));
        let for_segments = error.is_some_and(|error| is_of_a_full_disk(error));
        self.tell_disk_full(DiskFull { for_segments, ..self.disk_full });
    }

    /// Whether rows can be sealed: why not, or that they were.
    fn sealing_told(&mut self, error: Option<&SealError>) {
        self.health.set_seal_error(error.map(|error| describe(error)));
        let for_runs = error.is_some_and(|error| is_of_a_full_disk(error));
        self.tell_disk_full(DiskFull { for_runs, ..self.disk_full });
    }

    fn tell_disk_full(&mut self, full: DiskFull) {
        self.disk_full = full;
        self.shards.iter_mut().for_each(|shard| shard.set_disk_full(full));
    }

    /// How far the log is durable, when that is worth a note in the hard state: a checkpoint was stored or a segment begun
    /// since the last one.
    pub fn note_due(&mut self) -> Option<Lsn> {
        let synced = self.log.tail().synced_upto();
        // A segment's first byte stands for the end of the one before.
        let segment = |lsn: Lsn| lsn.bits().saturating_sub(1) / self.limits.segment_bytes;
        let (noted, checkpoint) = self.noted;
        let due = !self.failed && synced > noted && (self.checkpoint > checkpoint || segment(synced) > segment(noted));
        due.then(|| {
            self.noted = (synced, self.checkpoint);
            synced
        })
    }

    /// What became of a note. One that failed at its sync stops the core: on that file everything is promised.
    pub fn noted(&mut self, done: Result<(), WalError>) {
        match done {
            Ok(()) => {}
            // It was there before; the next note tries again.
            Err(error @ WalError::Full { .. }) => {
                tracing::warn!(error = %describe(&error), "the watermark was not stored")
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Segments ready for a roll.
    pub fn spares(&mut self) -> usize {
        self.log.tail().spares()
    }

    /// Rows that no policy keeps go: a part of them each time. Shards share what a turn may spend, each first in its turn.
    fn prune(&mut self, now: Now) {
        let (count, mut left) = (self.shards.len(), SEARCHES);
        self.prune_next = (self.prune_next + 1) % count.max(1);
        for nth in 0..count {
            if self.failed {
                return;
            }
            let at = (self.prune_next + nth) % count;
            if let Err(error) = self.shards[at].prune_if_due(now, &mut self.log, &mut left) {
                self.fail(&error);
            }
        }
    }

    // ---- the end

    /// Stops every shard of this core, for good, and says so to whoever asks.
    fn fail(&mut self, error: &(dyn std::error::Error + 'static)) {
        let chain = describe(error);
        tracing::error!(core = self.station, error = %chain, "the core's shards stop");
        self.failed = true;
        (self.applying, self.applied_next) = (None, None);
        let shards: Vec<u16> = self.shards.iter().map(Shard::number).collect();
        self.health.set_failed(self.station, &shards, &chain);
        self.shards.iter_mut().for_each(Shard::stop);
        self.turn();
        self.wake_readers();
    }
}

/// An error and its causes in one line.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// Whether a disk without room is at the bottom of an error.
fn is_of_a_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || matches!(cause.downcast_ref(), Some(WalError::Full { limit: "device", .. }))
    })
}
