//! Reads: an answer at a basis, the moment it sees. `as_of(T)` waits until T is closed and applied here.
//!
//! ```text
//!   T not given            the last applied tx
//!   T <= last applied      closed: every later tx is greater
//!   T <= last appended     waits for what is under way
//!   T above that           the leader appends Close{T}, then waits: the promise is in the log
//!   T too far ahead        Refused::Future
//! ```
//!
//! What memory has at hand is answered here. What goes over rows is a walk (`reading/`), as sealed rows are not the core's to read.

use super::append::Appender;
use super::entry::EntryKind;
use super::facts::FACT_READ_BODY_MAX;
use super::planted::{self, Bug};
use super::reply::Said;
use super::{ConnId, Now, Refusal, Shard, ShardError};
use crate::reflex::ReflexId;
use crate::shard::replicate::LogIndex;
use myelin_datom::Tx;
use myelin_index::IndexError;
use myelin_wire::{Attribute, Code, Cursor, Frame, Header, Kind};
use std::collections::VecDeque;

/// Reads that wait for their moment.
#[derive(Debug, Default)]
pub struct Waiting {
    reads: VecDeque<Read>,
}

impl Waiting {
    /// The connection is gone, and with it its questions.
    pub fn forget(&mut self, conn: ConnId) {
        self.reads.retain(|read| read.from != conn);
    }

    /// The moment of the next one has come.
    pub fn is_due(&self, applied: LogIndex) -> bool {
        self.reads.front().is_some_and(|read| read.behind <= applied)
    }

    /// Nobody is answered any more: who asked, and what.
    pub fn give_up(&mut self) -> Vec<(ConnId, Header)> {
        self.reads.drain(..).map(|read| (read.from, read.header)).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) from: ConnId,
    pub(super) header: Header,
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    pub(super) basis: Tx,
    /// Applied when this entry is.
    behind: LogIndex,
}

#[cfg(test)]
impl Shard {
    /// A read whose moment has come.
    pub(super) fn wait_with(&mut self, read: Read) {
        self.waiting.reads.push_back(read);
    }
}

#[cfg(test)]
impl Read {
    /// A read of what is applied.
    pub(super) fn of(from: ConnId, header: Header, kind: Kind, body: Vec<u8>, basis: Tx) -> Self {
        Self { from, header, kind, body, basis, behind: LogIndex(0) }
    }
}

/// A read's question at most: the longest is 56 bytes, and it may have to wait. **Units:** bytes.
const READ_BODY_MAX: usize = 64;
/// Reflexes in one answer at most.
const REFLEXES_PER_PAGE: usize = 4096;

impl Shard {
    /// Answers a read, now or when its basis is closed and applied.
    pub(super) fn ask(
        &mut self,
        now: Now,
        from: ConnId,
        frame: &Frame<'_>,
        log: &mut Appender,
    ) -> Result<(), ShardError> {
        let header = frame.header;
        let facts = matches!(frame.kind, Kind::Datoms | Kind::Pull);
        if frame.body.len() > if facts { FACT_READ_BODY_MAX } else { READ_BODY_MAX } {
            self.refuse(from, &header, Refusal::of(Code::BadBody));
            return Ok(());
        }
        let (as_of, min_tx, applied) = (Tx::from_bits(header.tx), Tx::from_bits(header.aux), self.group.applied_tx());
        if frame.kind == Kind::Now {
            // A moment of this shard: what comes later is stamped later. Several shards share one by asking again with
            // the greatest of their answers.
            if as_of.millis() > now.millis() + self.limits.max_clock_offset_ms {
                self.refuse(from, &header, Refusal { aux: applied.bits(), ..Refusal::of(Code::Future) });
                return Ok(());
            }
            let told = self.group.tell_now(now.millis(), as_of);
            self.say(from, header.session, header.request, told, nothing());
            return Ok(());
        }
        let basis = if as_of == Tx::ZERO { applied.max(min_tx) } else { as_of };
        if self.is_ahead(now, basis) {
            self.refuse(from, &header, Refusal { aux: applied.bits(), ..Refusal::of(Code::Future) });
            return Ok(());
        }
        let closed = basis <= self.group.appended_tx() || planted::is(Bug::MomentNotClosed);
        if !closed && log.note(&mut self.group, EntryKind::Close, basis).is_err() {
            let busy = self.busy(now);
            self.refuse(from, &header, busy);
            return Ok(());
        }
        let read =
            Read { from, header, kind: frame.kind, body: frame.body.to_vec(), basis, behind: self.group.appended() };
        if basis <= applied || planted::is(Bug::MomentNotClosed) {
            return self.answer(&read);
        }
        if self.waiting.reads.len() >= self.limits.waiting_reads_per_shard {
            let busy = self.busy(now);
            self.refuse(from, &header, busy);
            return Ok(());
        }
        self.waiting.reads.push_back(read);
        Ok(())
    }

    /// True for a moment that lies further ahead than clocks may differ. What is applied is past, whatever a clock that was set
    /// back says of it.
    pub(super) fn is_ahead(&self, now: Now, moment: Tx) -> bool {
        moment > self.group.applied_tx() && moment.millis() > now.millis() + self.limits.max_clock_offset_ms
    }

    /// Answers the reads whose moment has come, as far as the turn reaches.
    pub(super) fn answer_waiting(&mut self) -> Result<(), ShardError> {
        let applied = self.group.applied();
        while !self.readings.turn_is_spent()
            && let Some(read) = self.waiting.reads.pop_front_if(|read| read.behind <= applied)
        {
            if let Err(error) = self.answer(&read) {
                // Who asked is told when the shard stops.
                self.waiting.reads.push_front(read);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, read: &Read) -> Result<(), ShardError> {
        let said = match read.kind {
            Kind::Count if is_of_markets(&read.body) => self.count_markets(read),
            // The answer comes at once or when they were read, some rows a turn.
            Kind::Count
            | Kind::ListMarkets
            | Kind::Latest
            | Kind::Rows
            | Kind::Vwap
            | Kind::Bars
            | Kind::Top
            | Kind::Totals => match self.begin_reading(read) {
                Ok(()) => return Ok(()),
                Err(refused) => Err(refused),
            },
            Kind::ListReflexes => self.list_reflexes(read),
            Kind::Datoms => self.datoms(read),
            Kind::Pull => self.pull(read),
            Kind::Policies => self.policies(read),
            Kind::Status => Ok(self.status()),
            _ => Err(Unanswered::Refused(Refusal::of(Code::UnknownKind))),
        };
        match said {
            Ok(said) => {
                if let Said::Answer { body, .. } = &said {
                    self.readings.answered(body.len());
                }
                self.say(read.from, read.header.session, read.header.request, read.basis, said);
            }
            Err(Unanswered::Refused(refusal)) => self.refuse(read.from, &read.header, refusal),
            Err(Unanswered::Failed(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// `Count` of markets: every one that there was.
    fn count_markets(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let _attribute_and_market = (cursor.u64().map_err(bad)?, cursor.u64().map_err(bad)?);
        cursor.end().map_err(bad)?;
        let count = self.markets.count_as_of(read.basis) as u64;
        Ok(Said::Answer { count: 1, aux: count, more: false, body: Vec::new() })
    }

    /// `ListReflexes`: body `after:8`, an id or 0; items `id:8 | registered tx:8 | len:4 | spec and scope`, `aux` the last id.
    fn list_reflexes(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let after = cursor.u64().map_err(bad)?;
        cursor.end().map_err(bad)?;
        let (mut body, mut count, mut last) = (Vec::new(), 0_u32, after);
        let mut registrations = self.reflexes.list((after != 0).then_some(ReflexId(after)));
        for one in registrations.by_ref().take(REFLEXES_PER_PAGE) {
            body.extend_from_slice(&one.id.0.to_le_bytes());
            body.extend_from_slice(&one.registered_at.bits().to_le_bytes());
            let mut asked = Vec::new();
            one.spec.encode(&mut asked);
            one.scope.encode(&mut asked);
            body.extend_from_slice(&(asked.len() as u32).to_le_bytes());
            body.extend_from_slice(&asked);
            (count, last) = (count + 1, one.id.0);
        }
        Ok(Said::Answer { count, aux: last, more: registrations.next().is_some(), body })
    }

    /// `Policies`: body `from:8`, the number of the first market; a page follows.
    fn policies(&self, read: &Read) -> Result<Said, Unanswered> {
        let mut cursor = Cursor::new(&read.body);
        let first = cursor.u64().map_err(bad)? as usize;
        cursor.end().map_err(bad)?;
        let (count, next, body) = self.policy_rows(first);
        Ok(Said::Answer { count, aux: next as u64, more: next < self.markets.len(), body })
    }

    /// `Status`: what the shard counts, as text lines `name value`.
    fn status(&self) -> Said {
        let mut lines = String::new();
        let mut line = |name: &str, value: u64| {
            lines.push_str(name);
            lines.push(' ');
            lines.push_str(&value.to_string());
            lines.push('\n');
        };
        line("rows_accepted", self.counters.rows_accepted);
        line("rows_duplicate", self.counters.rows_duplicate);
        line("rows_dropped", self.counters.rows_dropped);
        line("firings", self.counters.firings);
        line("moments_closed", self.counters.moments_closed);
        line("spreads_across", self.crossing.spreads() as u64);
        line("markets", self.markets.len() as u64);
        line("reflexes", self.reflexes.len() as u64);
        line("sessions", self.sessions.count() as u64);
        line("subscriptions", self.subscribers.count() as u64);
        line("datoms", self.facts.datoms());
        line("datoms_dropped", self.counters.datoms_dropped);
        line("tails", self.tails.count() as u64);
        line("unsealed_rows", self.unsealed_rows());
        line("read_turn_rows_max", self.readings.turn_rows_max());
        line("told_turn_units_max", self.crossing.turn_units_max().into());
        line("listen_turn_units_max", self.subscribers.turn_units_max().into());
        for (code, count) in &self.counters.refused {
            line(&format!("refused_{}", code.name()), *count);
        }
        Said::Answer { count: 1, aux: 0, more: false, body: lines.into_bytes() }
    }
}

/// Whether a `Count` is of markets themselves: they stand in memory, in order.
fn is_of_markets(body: &[u8]) -> bool {
    let attribute = Cursor::new(body).u64().ok().and_then(Attribute::from_number);
    attribute == Some(Attribute::Market)
}

/// Why there is no answer: the asker's fault, or the storage's.
pub(super) enum Unanswered {
    Refused(Refusal),
    Failed(IndexError),
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<IndexError> for Unanswered {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::BelowHorizon { horizon } => {
                Self::Refused(Refusal { aux: horizon.bits(), ..Refusal::of(Code::BelowHorizon) })
            }
            other => Self::Failed(other),
        }
    }
}

pub(super) fn bad(_: myelin_wire::Short) -> Unanswered {
    Refusal::of(Code::BadBody).into()
}

fn nothing() -> Said {
    Said::Answer { count: 0, aux: 0, more: false, body: Vec::new() }
}

pub(super) fn items<T: bytemuck::NoUninit>(rows: &[T]) -> Said {
    Said::Answer { count: rows.len() as u32, aux: 0, more: false, body: bytemuck::cast_slice(rows).to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::shard::campaign::body;
    use myelin_datom::{Decimal, Slot, Value};
    use myelin_index::facts::born;
    use myelin_index::{FactFloors, FactRun, Note};
    use myelin_wire::DatomsAsked;
    use std::sync::Arc;

    /// A shard whose facts are sealed, with one byte of the run flipped.
    fn damaged(dir: &std::path::Path) -> Shard {
        let mut shard = Shard::new(0, 1, &Limits::lean());
        let said = vec![(born::FEED_GAP_FIRST, Value::Decimal(Decimal::unsigned(7)))];
        shard.state_facts(Tx::from_bits(1 << 16), &[Note { about: Err(Slot::new(0).unwrap()), facts: said }]).unwrap();
        let (path, frozen) = (dir.join("a.facts"), shard.facts.freeze().unwrap());
        frozen.write_run(&FactFloors::default(), &path, &mut ()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        shard.facts.install(&frozen, Arc::new(FactRun::open(&path).unwrap()));
        shard
    }

    /// Seen red: the first one was never answered.
    #[test]
    fn a_read_that_fails_when_its_moment_has_come_is_answered_when_the_shard_stops() {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = damaged(dir.path());
        let asked = body(|out| DatomsAsked { history: true, ..DatomsAsked::all(0) }.write(out));
        for request in 1..3 {
            let header = Header { session: 1, request, ..Header::new(Kind::Datoms) };
            let from = ConnId { station: 0, generation: 1, index: 0 };
            let read = Read::of(from, header, Kind::Datoms, asked.clone(), Tx::from_bits(2 << 16));
            shard.waiting.reads.push_back(read);
        }
        assert!(matches!(shard.answer_waiting(), Err(ShardError::Index(_))));
        shard.stop();
        let told = std::iter::from_fn(|| shard.poll_effect()).map(|reply| match reply.said {
            Said::Refused(refusal) => (reply.request, refusal.code),
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [(1, Code::Unavailable), (2, Code::Unavailable)]);
    }
}
