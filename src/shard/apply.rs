//! `apply`: a committed entry becomes a change of state. The same entries make the same state, on every replica, bit for
//! bit: nothing here knows the time, the connection, or the order of a hash.
//!
//! ```text
//!   proposal -> its turn in the session -> check rows -> all good, or partial -> insert -> react
//!                     \-> repeat: the old outcome           \-> refused: the outcome says why
//! ```

use super::entry::{EntryKind, Proposal, Proposals};
use super::planted::{self, Bug};
use super::reply::{DUPLICATE, Said};
use super::session::{Outcome, Turn};
use super::{Committed, InFlight, Now, Refusal, Shard, ShardError};
use crate::reflex::{MarketIx, ReflexId, RegisterError, Scope, Spec};
use bytemuck::Zeroable;
use myelin_datom::{MarketName, Quote, Row, Tick, Tx};
use myelin_index::{ColumnRow, Columns, Gap, MarketOptions, RowRefusal, Summary, Verdict};
use myelin_wire::{Code, MarketFlags, read_markets};

/// Memory that is used again and again.
#[derive(Debug, Default)]
pub struct Scratch {
    verdicts: Vec<Verdict>,
    ticks: Vec<Tick>,
    quotes: Vec<Quote>,
    gaps: Vec<Gap>,
}

/// What became of a proposal, before it is told.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) said: Said,
}

impl Shard {
    /// Applies the next committed entry; `durable` is when its sync was known to have returned. During recovery nobody waits for it, and nothing is answered.
    ///
    /// **Errors:** only what stops the shard: a run that cannot be read, an entry without sense.
    pub fn apply(&mut self, durable: Now, entry: Committed<'_>) -> Result<(), ShardError> {
        self.now = durable;
        let mut last_tx = entry.tx;
        if let Some(kind) = EntryKind::from_number(entry.kind) {
            for proposal in Proposals::new(kind, entry.payload, entry.tx) {
                let (tx, proposal, body) = proposal?;
                last_tx = tx;
                match kind {
                    // The leader's own: of no session, and nobody waits for them.
                    EntryKind::Horizon => self.apply_horizon(tx, body)?,
                    EntryKind::FactHorizon => self.apply_fact_horizon(tx, body)?,
                    _ => self.apply_proposal(durable, kind, tx, &proposal, body)?,
                }
            }
        } else {
            return Err(super::entry::Senseless { kind: entry.kind, at: 0 }.into());
        }
        self.group.applied_next(entry.index, last_tx);
        self.answer_waiting()
    }

    /// True where an entry of this kind changes who is asked while something has fired that is not written down: it may be
    /// applied all the same, but writes all of that down first, in one turn.
    #[must_use]
    pub fn must_react_before(&self, kind: u8) -> bool {
        use EntryKind::{Markets, Register, Remove};
        self.reflexes.pending() && matches!(EntryKind::from_number(kind), Some(Markets | Register | Remove))
    }

    fn apply_proposal(
        &mut self,
        durable: Now,
        kind: EntryKind,
        tx: Tx,
        proposal: &Proposal,
        body: &[u8],
    ) -> Result<(), ShardError> {
        let asked = self.in_flight.pop_front_if(|first| first.tx == tx);
        if let Some(InFlight { admitted, .. }) = asked {
            self.delay.note(durable.mono_us, durable.mono_us.saturating_sub(admitted.mono_us));
        }
        let turn = self.sessions.turn(proposal.session, proposal.request);
        let said = match turn {
            Turn::Next => {
                let received_ns = asked.map_or(0, |asked| asked.admitted.unix_ns);
                let done = match self.execute(kind, tx, proposal, body, received_ns, durable) {
                    Ok(done) => done,
                    Err(error) => {
                        // The shard stops, and answers whoever still waits.
                        asked.into_iter().for_each(|asked| self.in_flight.push_front(asked));
                        return Err(error);
                    }
                };
                self.sessions.settle(proposal.session, proposal.request, done.outcome);
                done.said
            }
            Turn::Repeat(_) if planted::is(Bug::RepeatExecuted) => {
                self.execute(kind, tx, proposal, body, 0, durable)?.said
            }
            Turn::Repeat(outcome) => self.repeat(kind, proposal, outcome, body),
            Turn::Gap { expected } => Said::Refused(Refusal { aux: expected, ..Refusal::of(Code::SessionGap) }),
            Turn::Expired => Said::Refused(Refusal::of(Code::SessionExpired)),
            Turn::Forgotten => Said::Refused(Refusal::of(Code::OutcomeForgotten)),
        };
        if let Said::Refused(refusal) = &said {
            *self.counters.refused.entry(refusal.code).or_insert(0) += 1;
        }
        if let Some(asked) = asked {
            let told_tx = if let Turn::Repeat(outcome) = turn { Tx::from_bits(outcome.tx) } else { tx };
            self.say(asked.to, proposal.session, proposal.request, told_tx, said);
        }
        Ok(())
    }

    fn execute(
        &mut self,
        kind: EntryKind,
        tx: Tx,
        proposal: &Proposal,
        body: &[u8],
        received_ns: i64,
        durable: Now,
    ) -> Result<Done, ShardError> {
        match kind {
            EntryKind::Ticks => self.apply_ticks(tx, proposal, body, received_ns, durable),
            EntryKind::Quotes => self.apply_quotes(tx, proposal, body),
            EntryKind::Markets => Ok(self.apply_markets(tx, body)),
            EntryKind::Register => Ok(self.apply_register(tx, body)),
            EntryKind::Remove => Ok(self.apply_remove(tx, body)),
            EntryKind::Transact => self.apply_transact(tx, body),
            EntryKind::Retain => Ok(self.apply_retain(tx, body)),
            EntryKind::Close | EntryKind::Lead | EntryKind::Horizon | EntryKind::FactHorizon => {
                Err(super::entry::Senseless { kind: kind as u8, at: 0 }.into())
            }
        }
    }

    /// What is told of a request that was executed before.
    fn repeat(&self, kind: EntryKind, proposal: &Proposal, outcome: Outcome, body: &[u8]) -> Said {
        match (Code::from_number(outcome.code), kind) {
            (Some(code), _) => Said::Refused(Refusal { first_bad: outcome.first_bad, ..Refusal::of(code) }),
            (None, EntryKind::Markets) => self.market_ids(body),
            // Whom its tempids became is not kept: as of its tx they can be looked up.
            (None, EntryKind::Transact) => {
                Said::Answer { count: outcome.accepted, aux: 1, more: false, body: Vec::new() }
            }
            (None, EntryKind::Ticks) if proposal.partial() => {
                Said::Ack { outcome, verdicts: told_again::<Tick>(outcome, body) }
            }
            (None, EntryKind::Quotes) if proposal.partial() => {
                Said::Ack { outcome, verdicts: told_again::<Quote>(outcome, body) }
            }
            (None, _) => Said::Ack { outcome, verdicts: None },
        }
    }

    fn apply_ticks(
        &mut self,
        tx: Tx,
        proposal: &Proposal,
        body: &[u8],
        received_ns: i64,
        durable: Now,
    ) -> Result<Done, ShardError> {
        let mut copied = std::mem::take(&mut self.scratch.ticks);
        let mut verdicts = std::mem::take(&mut self.scratch.verdicts);
        let rows = rows_of(body, &mut copied);
        let mut gaps = std::mem::take(&mut self.scratch.gaps);
        let done = apply_rows(&mut self.ticks, tx, proposal, rows, &mut verdicts, &mut gaps)?;
        if done.outcome.code == 0 {
            self.tails.at_hand().stored(&self.ticks, tx, rows, &verdicts);
            self.crossing.note(tx, received_ns, durable.unix_ns);
            for (n, row) in rows.iter().enumerate() {
                if verdicts[n] == Verdict::New
                    && let Some(market) = self.ticks.market_ix(row.market)
                {
                    let market = market.number();
                    self.react(tx, n as u32, market, row, received_ns, durable.unix_ns);
                }
            }
        }
        self.counters.rows_accepted += u64::from(done.outcome.accepted);
        self.counters.rows_duplicate += u64::from(done.outcome.duplicates);
        if !gaps.is_empty() {
            let stated = super::gaps::stated(&gaps);
            self.state_gaps(tx, "tick", &stated)?;
            self.react_to_gaps(tx, &stated, received_ns, durable.unix_ns);
            gaps.clear();
        }
        self.scratch.gaps = gaps;
        self.scratch.ticks = copied;
        self.scratch.verdicts = verdicts;
        Ok(done)
    }

    fn apply_quotes(&mut self, tx: Tx, proposal: &Proposal, body: &[u8]) -> Result<Done, ShardError> {
        let mut copied = std::mem::take(&mut self.scratch.quotes);
        let mut verdicts = std::mem::take(&mut self.scratch.verdicts);
        let mut gaps = std::mem::take(&mut self.scratch.gaps);
        let rows = rows_of(body, &mut copied);
        let done = apply_rows(&mut self.quotes, tx, proposal, rows, &mut verdicts, &mut gaps)?;
        if done.outcome.code == 0 {
            self.tails.at_hand().stored(&self.quotes, tx, rows, &verdicts);
        }
        self.state_gaps(tx, "quote", &super::gaps::stated(&gaps))?;
        gaps.clear();
        self.scratch.gaps = gaps;
        self.counters.rows_accepted += u64::from(done.outcome.accepted);
        self.counters.rows_duplicate += u64::from(done.outcome.duplicates);
        self.scratch.quotes = copied;
        self.scratch.verdicts = verdicts;
        Ok(done)
    }

    /// Creates the markets that do not exist, all or none, and answers the ids of all.
    fn apply_markets(&mut self, tx: Tx, body: &[u8]) -> Done {
        self.drain_reflexes();
        let specs = || read_markets(body).filter_map(Result::ok);
        let fresh = specs().filter(|spec| self.markets.named(spec.name).is_none()).count();
        if self.markets.len() + fresh > self.limits.markets_per_shard {
            return refused(tx, Refusal::of(Code::TooMany));
        }
        let mut created = 0;
        for (n, spec) in specs().enumerate() {
            if self.markets.named(spec.name).is_some() {
                continue;
            }
            let Ok(name) = MarketName::new(spec.name) else {
                return refused(tx, Refusal { first_bad: n as u32, ..Refusal::of(Code::BadName) });
            };
            if self.create_market(tx, name, spec.flags) {
                created += 1;
            }
        }
        let outcome = Outcome { tx: tx.bits(), accepted: created, first_bad: u32::MAX, ..Zeroable::zeroed() };
        Done { outcome, said: self.market_ids(body) }
    }

    fn create_market(&mut self, tx: Tx, name: MarketName<'_>, flags: MarketFlags) -> bool {
        let Some(market) = self.markets.create(tx, name, flags) else { return false };
        let number = self.ticks.add_market(market.id, market_options(flags)).number();
        let same = self.quotes.add_market(market.id, market_options(flags)).number();
        assert!(number == same, "a market has one number in a shard");
        self.tails.at_hand().created(tx, number);
        self.reflexes.add_market(MarketIx(number), market.id, &market.name);
        true
    }

    fn market_ids(&self, body: &[u8]) -> Said {
        let mut ids = Vec::new();
        for spec in read_markets(body).filter_map(Result::ok) {
            let id = self.markets.named(spec.name).map_or(0, |market| market.id.bits());
            ids.extend_from_slice(&id.to_le_bytes());
        }
        Said::Answer { count: (ids.len() / 8) as u32, aux: 0, more: false, body: ids }
    }

    /// Registers every reflex of the body, or none.
    fn apply_register(&mut self, tx: Tx, body: &[u8]) -> Done {
        self.drain_reflexes();
        let mut rest = body;
        let mut registered = Vec::new();
        while !rest.is_empty() {
            let bad = Refusal { first_bad: registered.len() as u32, ..Refusal::of(Code::BadReflex) };
            let known = self.reflexes.len();
            let done = match registration(&mut rest) {
                Some((id, spec, scope)) => match self.reflexes.register(id, spec, scope, tx) {
                    Ok(()) => Ok(id),
                    Err(RegisterError::Full { .. }) => Err(Refusal { code: Code::TooMany, ..bad }),
                    Err(RegisterError::IdTaken(_)) => Err(Refusal { code: Code::ReflexConflict, ..bad }),
                    // The door looked.
                    Err(RegisterError::Spec(_)) => Err(bad),
                },
                None => Err(bad),
            };
            match done {
                Ok(id) if self.reflexes.len() > known => registered.push(id),
                Ok(_) => {}
                Err(refusal) => {
                    for id in registered {
                        self.reflexes.remove(id);
                    }
                    return refused(tx, refusal);
                }
            }
        }
        registered.iter().for_each(|id| self.registered(*id));
        done(tx, registered.len() as u32)
    }

    fn apply_remove(&mut self, tx: Tx, body: &[u8]) -> Done {
        self.drain_reflexes();
        let mut removed = 0;
        for id in body.chunks_exact(8) {
            let id = ReflexId(u64::from_le_bytes(id.try_into().unwrap_or_default()));
            removed += u32::from(self.reflexes.remove(id));
            self.removed(id);
        }
        done(tx, removed)
    }
}

/// One registration of a body: `id:8 | spec | scope`, as `src/reflex/README.md` draws them.
pub(super) fn registration(rest: &mut &[u8]) -> Option<(ReflexId, Spec, Scope)> {
    let (id, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    let spec = Spec::decode(rest).ok()?;
    let scope = Scope::decode(rest).ok()?;
    let id = ReflexId(u64::from_le_bytes(*id));
    // Who listens to reflex 0 listens to all of them.
    (id != ReflexId(0) && spec.check_in(&scope).is_ok()).then_some((id, spec, scope))
}

fn market_options(flags: MarketFlags) -> MarketOptions {
    MarketOptions {
        signed: flags.has(MarketFlags::SIGNED),
        ascending_ids: flags.has(MarketFlags::ASCENDING),
        dense_ids: flags.has(MarketFlags::DENSE),
    }
}

pub(super) fn done(tx: Tx, accepted: u32) -> Done {
    let outcome = Outcome { tx: tx.bits(), accepted, first_bad: u32::MAX, ..Zeroable::zeroed() };
    Done { outcome, said: Said::Ack { outcome, verdicts: None } }
}

pub(super) fn refused(tx: Tx, refusal: Refusal) -> Done {
    let outcome = Outcome {
        tx: tx.bits(),
        first_bad: refusal.first_bad,
        code: refusal.code as u16,
        first_code: refusal.code as u16,
        ..Zeroable::zeroed()
    };
    Done { outcome, said: Said::Refused(refusal) }
}

/// The rows of a body: in place when it is aligned, as it is in the log's own buffers, else copied.
fn rows_of<'a, R: Row>(body: &'a [u8], copied: &'a mut Vec<R>) -> &'a [R] {
    match bytemuck::try_cast_slice(body) {
        Ok(rows) => rows,
        Err(_) => {
            copied.clear();
            copied.extend(body.chunks_exact(size_of::<R>()).map(bytemuck::pod_read_unaligned::<R>));
            copied
        }
    }
}

fn apply_rows<R: ColumnRow>(
    columns: &mut Columns<R>,
    tx: Tx,
    proposal: &Proposal,
    rows: &[R],
    verdicts: &mut Vec<Verdict>,
    gaps: &mut Vec<Gap>,
) -> Result<Done, ShardError> {
    // Where a verdict per row was asked for the door lets flawed rows in, each to be refused by itself.
    let summary: Summary =
        if proposal.partial() { columns.check_each(rows, verdicts)? } else { columns.check(rows, verdicts)? };
    if planted::is(Bug::DuplicateStored) {
        verdicts
            .iter_mut()
            .filter(|verdict| **verdict == Verdict::Duplicate)
            .for_each(|verdict| *verdict = Verdict::New);
    }
    let mut outcome = Outcome {
        tx: tx.bits(),
        accepted: summary.new,
        duplicates: summary.duplicates,
        refused: summary.refused,
        first_bad: u32::MAX,
        ..Zeroable::zeroed()
    };
    if let Some((n, refusal)) = summary.first_refused {
        let code = row_code(refusal, &rows[n as usize]);
        if !proposal.partial() && !planted::is(Bug::HalfAFrame) {
            return Ok(refused(tx, Refusal { first_bad: n, ..Refusal::of(code) }));
        }
        outcome.first_bad = n;
        outcome.first_code = code as u16;
    }
    gaps.extend_from_slice(columns.insert(tx, rows, verdicts).gaps);
    let told = proposal.partial().then(|| {
        let verdict = |(verdict, row): (&Verdict, &R)| match verdict {
            Verdict::New => 0,
            Verdict::Duplicate => DUPLICATE,
            Verdict::Refused(refusal) => row_code(*refusal, row) as u16,
        };
        verdicts.iter().zip(rows).map(verdict).collect()
    });
    Ok(Done { outcome, said: Said::Ack { outcome, verdicts: told } })
}

/// The verdicts of a request that was executed before, where its outcome and its rows say them all: nothing was a
/// duplicate, and what was refused is flawed.
fn told_again<R: Row>(outcome: Outcome, body: &[u8]) -> Option<Box<[u16]>> {
    let rows = body.chunks_exact(size_of::<R>()).map(bytemuck::pod_read_unaligned::<R>);
    let told: Box<[u16]> = rows.map(|row| row.flaw().map_or(0, |flaw| Code::from(flaw) as u16)).collect();
    let flawed = told.iter().filter(|code| **code != 0).count();
    let all = outcome.refused as usize == flawed && outcome.accepted as usize + flawed == told.len();
    all.then_some(told)
}

fn row_code<R: Row>(refusal: RowRefusal, row: &R) -> Code {
    match refusal {
        RowRefusal::UnknownMarket => Code::UnknownMarket,
        RowRefusal::IdConflict => Code::IdConflict,
        RowRefusal::TooOld => Code::TooOld,
        RowRefusal::NegativePrice => Code::NegativePrice,
        RowRefusal::NothingToCorrect => Code::NothingToCorrect,
        RowRefusal::MarketFull => Code::TooMany,
        RowRefusal::Flawed => row.flaw().map_or(Code::BadBody, Code::from),
    }
}
