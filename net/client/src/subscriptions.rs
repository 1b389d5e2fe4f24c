//! Who listens to firings or to the log over one connection, and where they go on when it is lost.
//!
//! ```text
//!   Subscribe { reflex, after, credit } -> Answer -> Firings ... -> lost -> Subscribe { after the last one seen } ...
//!   Tail { since, credit }              -> Answer -> Tailed ...  -> lost -> Tail { since the last whole tx seen } ...
//!   dropped -> End -> what is under way is passed over -> Ended: its key is free
//! ```
//!
//! A firing's place is `(tx, n, reflex)`; a shard gives them in that order. The log is gone on with at the last transaction
//! seen, whose entries come in the same order again: as many as were seen are dropped. Credit is what the node may still
//! send, so what waits to be taken never exceeds the window, but for the last entry, which may cost more than is left.
//! Whatever the node says of one that was dropped is passed over, up to its last frame: one `Ended` or `Refused`.
//! Deliberately absent: queues; the driver hands on.

use crate::error::Refusal;
use crate::session::Unexpected;
use myelin_wire::{Code, FIRING_BYTES, FROM_NOW, FiringRow, Header, Kind, TailEntry, read_tail, write_frame};
use std::collections::VecDeque;

/// A place in a shard's stream of firings. **Order:** tx, then row, then reflex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FiringPlace {
    /// The tick's transaction.
    pub tx: u64,
    /// Its row there.
    pub n: u32,
    /// The reflex.
    pub reflex: u64,
}

impl FiringPlace {
    /// The place of a firing.
    #[must_use]
    pub const fn of(row: &FiringRow) -> Self {
        Self { tx: row.tx, n: row.n, reflex: row.reflex }
    }

    /// Behind everything that fired at `tx` or before.
    #[must_use]
    pub const fn behind(tx: u64) -> Self {
        Self { tx, n: u32::MAX, reflex: u64::MAX }
    }
}

/// A place in a shard's stream of the log: behind so many entries of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TailPlace {
    /// The transaction.
    pub tx: u64,
    /// How many of its entries were seen, of those that were asked for; `u32::MAX` = all there are.
    pub entries: u32,
}

impl TailPlace {
    /// Behind everything of `tx` or before.
    #[must_use]
    pub const fn behind(tx: u64) -> Self {
        Self { tx, entries: u32::MAX }
    }

    /// One more entry was seen.
    pub fn note(&mut self, tx: u64) {
        let again = tx == self.tx && self.entries != u32::MAX;
        *self = Self { tx, entries: if again { self.entries.saturating_add(1) } else { 1 } };
    }
}

/// What to listen to, at one shard.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Names the subscription; random, not zero, no session's id.
    pub key: u64,
    /// Where.
    pub shard: u16,
    /// Firings or entries that may come before the first grant.
    pub window: u32,
    /// What.
    pub stream: Stream,
}

/// See [`Subscribe`].
#[derive(Clone, Debug)]
pub enum Stream {
    /// What fires.
    Firings {
        /// 0 = every reflex.
        reflex: u64,
        /// Where to begin; `None` = from now on.
        after: Option<FiringPlace>,
        /// Asks history from `after` on, also before the reflex was registered.
        back_test: bool,
    },
    /// The log.
    Log {
        /// The whole body of a `Tail`; its first 8 bytes are where to begin.
        ask: Vec<u8>,
        /// Of the first transaction that comes, so many entries were seen; nothing = none.
        seen: TailPlace,
    },
}

/// News of a subscription.
#[derive(Debug)]
pub struct Push {
    /// Whose.
    pub key: u64,
    /// From where.
    pub shard: u16,
    /// What.
    pub said: Pushed,
}

/// See [`Push`].
#[derive(Debug)]
pub enum Pushed {
    /// The node listens to us from the place after `basis` on.
    Begun {
        /// The last transaction applied then.
        basis: u64,
    },
    /// Firings, in order.
    Firings {
        /// In the order of their places.
        rows: Vec<FiringRow>,
        /// Derived from history.
        replayed: bool,
        /// When the node made the page. **Units:** Unix nanoseconds.
        sent_ns: i64,
    },
    /// Entries of the log, in order.
    Entries {
        /// In the order in which they were applied.
        entries: Vec<TailEntry>,
        /// Read from history.
        replayed: bool,
        /// How far the shard was.
        applied: u64,
    },
    /// No more will come from this shard.
    Ended(Refusal),
    /// No more will come: the connection does not come back.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due,
    Asked,
    Live,
}

/// How much of a shard's log was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    tx: u64,
    /// Entries of `tx`.
    entries: u32,
    /// Of those, how many this connection will bring again.
    again: u32,
}

impl Seen {
    /// True when an entry of this transaction is new.
    fn is_new(&mut self, tx: u64) -> bool {
        if tx == self.tx && self.again > 0 {
            self.again -= 1;
            return false;
        }
        self.entries = if tx == self.tx { self.entries + 1 } else { 1 };
        (self.tx, self.again) = (tx, 0);
        true
    }
}

#[derive(Debug)]
struct Listener {
    what: Subscribe,
    /// The last place seen.
    after: Option<FiringPlace>,
    seen: Seen,
    /// What the node may still send; below 0 when the last entry cost more than was left.
    credit: i64,
    /// Credit not told yet.
    grant: u32,
    /// What a node that knows nothing of it was paid too much: not granted again.
    debt: u32,
    state: State,
    begun: bool,
}

impl Listener {
    /// So much came, of which so much is not handed on: that is granted again.
    fn paid(&mut self, came: u32, repeats: u32) {
        self.credit += i64::from(repeats) - i64::from(came);
        self.grant += repeats;
    }

    /// The log from now on is the log from this moment on.
    fn begin_log_at(&mut self, basis: u64) {
        if let Stream::Log { ask, .. } = &mut self.what.stream
            && ask.starts_with(&FROM_NOW.to_le_bytes())
        {
            write_since(ask, basis);
        }
    }
}

pub(crate) fn write_since(ask: &mut [u8], since: u64) {
    if let Some(first) = ask.first_chunk_mut() {
        *first = since.to_le_bytes();
    }
}

/// One that nobody listens to any more, and that the node still knows.
#[derive(Debug)]
struct Ending {
    key: u64,
    shard: u16,
    told: bool,
}

/// All of one connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    list: Vec<Listener>,
    ending: Vec<Ending>,
}

impl Subscriptions {
    /// True when nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A further one.
    pub fn add(&mut self, what: Subscribe) {
        let (after, seen) = match &what.stream {
            Stream::Firings { after, .. } => (*after, Seen::default()),
            Stream::Log { seen: TailPlace { tx, entries }, .. } => {
                (None, Seen { tx: *tx, entries: *entries, again: *entries })
            }
        };
        let credit = i64::from(what.window);
        self.list.push(Listener { what, after, seen, credit, grant: 0, debt: 0, state: State::Due, begun: false });
    }

    /// Ends one; what is under way is passed over. The node is told, if it knows of it.
    pub fn remove(&mut self, key: u64) {
        for one in self.list.extract_if(.., |one| one.what.key == key).filter(|one| one.state != State::Due) {
            self.ending.push(Ending { key, shard: one.what.shard, told: false });
        }
    }

    /// So many were taken.
    pub fn grant(&mut self, key: u64, shard: u16, count: u32) {
        if let Some(one) = self.list.iter_mut().find(|one| one.what.key == key && one.what.shard == shard) {
            let owed = count.min(one.debt);
            one.debt -= owed;
            let count = count - owed;
            one.credit += i64::from(count);
            if one.state != State::Due {
                one.grant = one.grant.saturating_add(count);
            }
        }
    }

    /// Whether a frame is for a subscription.
    #[must_use]
    pub fn owns(&self, header: &Header) -> bool {
        let push = [Kind::Firings, Kind::Tailed, Kind::Ended].into_iter().any(|kind| header.kind == kind as u8);
        let mut keys = self.list.iter().map(|one| one.what.key).chain(self.ending.iter().map(|one| one.key));
        push || (header.session != 0 && keys.any(|key| key == header.session))
    }

    /// What has to be told the node.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        for one in self.ending.iter_mut().filter(|one| !one.told) {
            let header = Header { session: one.key, request: 1, shard: one.shard, ..Header::new(Kind::End) };
            write_frame(out, header, &[]);
            one.told = true;
        }
        for one in &mut self.list {
            let header = |kind, count| Header {
                session: one.what.key,
                request: 1,
                shard: one.what.shard,
                count,
                ..Header::new(kind)
            };
            if one.state == State::Due {
                let credit = u32::try_from(one.credit.max(0)).unwrap_or(u32::MAX);
                match &one.what.stream {
                    Stream::Firings { reflex, after: from, back_test } => {
                        // A back-test depends on where it begins, so after a cut it begins there again; what was seen is
                        // dropped.
                        let after = if *back_test { *from } else { one.after }.unwrap_or_default();
                        let mut body = [0; 32];
                        body[..8].copy_from_slice(&reflex.to_le_bytes());
                        body[8..16].copy_from_slice(&after.tx.to_le_bytes());
                        body[16..20].copy_from_slice(&after.n.to_le_bytes());
                        body[24..].copy_from_slice(&after.reflex.to_le_bytes());
                        let flags = if *back_test { Header::REPLAYED } else { 0 };
                        write_frame(out, Header { flags, ..header(Kind::Subscribe, credit) }, &body);
                    }
                    Stream::Log { ask, .. } => write_frame(out, header(Kind::Tail, credit), ask),
                }
                one.state = State::Asked;
            } else if one.state == State::Live && one.grant > 0 {
                write_frame(out, header(Kind::Credit, one.grant), &[]);
                one.grant = 0;
            }
        }
    }

    /// A frame for one of them. **Errors:** a body of the wrong length.
    pub fn handle_frame(
        &mut self,
        header: Header,
        kind: Kind,
        body: &[u8],
        pushed: &mut VecDeque<Push>,
    ) -> Result<(), Unexpected> {
        let (key, shard) = (header.session, header.shard);
        let Some(at) = self.list.iter().position(|one| one.what.key == key && one.what.shard == shard) else {
            // It was removed while this was under way. Behind its last frame nothing more comes.
            if matches!(kind, Kind::Ended | Kind::Refused) {
                self.ending.retain(|one| (one.key, one.shard) != (key, shard));
            }
            return Ok(());
        };
        let one = &mut self.list[at];
        match kind {
            Kind::Answer => {
                one.state = State::Live;
                // Should the line be cut before anything came, this is where we go on.
                one.after.get_or_insert(FiringPlace::behind(header.tx));
                one.begin_log_at(header.tx);
                if !std::mem::replace(&mut one.begun, true) {
                    pushed.push_back(Push { key, shard, said: Pushed::Begun { basis: header.tx } });
                }
            }
            Kind::Firings => {
                if body.len() != header.count as usize * FIRING_BYTES {
                    return Err(Unexpected { shard, request: header.request });
                }
                let mut rows: Vec<FiringRow> =
                    body.chunks_exact(FIRING_BYTES).map(bytemuck::pod_read_unaligned).collect();
                let came = rows.len() as u32;
                let after = one.after;
                rows.retain(|row| after.is_none_or(|after| FiringPlace::of(row) > after));
                // Repeats were paid for and are not handed on.
                one.paid(came, came - rows.len() as u32);
                if let Some(last) = rows.last() {
                    one.after = Some(FiringPlace::of(last));
                    let replayed = header.flags & Header::REPLAYED != 0;
                    let sent_ns = header.aux as i64;
                    pushed.push_back(Push { key, shard, said: Pushed::Firings { rows, replayed, sent_ns } });
                }
            }
            Kind::Tailed => {
                let mut entries = read_tail(body).map_err(|_| Unexpected { shard, request: header.request })?;
                let price = |entries: &[TailEntry]| entries.iter().map(|entry| entry.credits).sum::<u32>();
                let came = price(&entries);
                entries.retain(|entry| one.seen.is_new(entry.tx));
                one.paid(came, came - price(&entries));
                if !entries.is_empty() {
                    let (replayed, applied) = (header.flags & Header::REPLAYED != 0, header.aux);
                    pushed.push_back(Push { key, shard, said: Pushed::Entries { entries, replayed, applied } });
                }
            }
            Kind::Ended | Kind::Refused => {
                let mut refusal = Refusal::read(&header, body);
                if kind == Kind::Ended {
                    refusal.first_bad = None;
                }
                let retry = refusal.code.is_some_and(Code::passes);
                if retry && kind == Kind::Refused {
                    one.state = State::Due;
                } else {
                    self.list.swap_remove(at);
                    pushed.push_back(Push { key, shard, said: Pushed::Ended(refusal) });
                }
            }
            _ => return Err(Unexpected { shard, request: header.request }),
        }
        Ok(())
    }

    /// All begin again on the next connection, behind the last place seen.
    pub fn disconnected(&mut self) {
        // With the connection the node forgot what it knew of it.
        self.ending.clear();
        for one in &mut self.list {
            one.state = State::Due;
            one.grant = 0;
            one.debt += u32::try_from(-one.credit.min(0)).unwrap_or(u32::MAX);
            one.credit = one.credit.max(0);
            one.seen.again = one.seen.entries;
            if let (Stream::Log { ask, .. }, 1..) = (&mut one.what.stream, one.seen.entries) {
                // A place that was handed to us may be within the first transaction there can be.
                write_since(ask, one.seen.tx.saturating_sub(1));
            }
        }
    }

    /// None begins again.
    pub fn give_up(&mut self, pushed: &mut VecDeque<Push>) {
        for one in self.list.drain(..) {
            pushed.push_back(Push { key: one.what.key, shard: one.what.shard, said: Pushed::Lost });
        }
    }
}
