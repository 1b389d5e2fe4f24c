//! What a shard promises, each beside the bug that breaks it: the check must be green, and red with the bug.

mod streams;

use super::campaign::{Log, NOW, body, tick, written};
use super::planted::{Bug, with};
use super::reply::Said;
use super::{ConnId, Now, Shard};
use crate::config::Limits;
use myelin_datom::{EntityId, Tick, Tx};
use myelin_index::Retention;
use myelin_wire::{Code, Header, Kind, MarketFlags, MarketSpec, decode, markets_body};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A promise kept, or in words what became of it.
type Verdict = Result<(), String>;
type Row = (Bug, &'static str, fn() -> Verdict);

const CONN: ConnId = ConnId { station: 0, generation: 1, index: 7 };
/// Where a client comes back from when its line was cut.
const AGAIN: ConnId = ConnId { index: 8, ..CONN };
const LATER: Now = Now { mono_us: NOW.mono_us + 50_000, unix_ns: NOW.unix_ns + 50_000_000 };

/// A shard with one market, and its log.
struct Rig {
    shard: Shard,
    log: Log,
    market: EntityId,
}

impl Rig {
    fn new() -> Self {
        let mut log = Log::new();
        let mut shard = Shard::new(0, 1, &Limits::lean());
        shard.take_the_lead(NOW, &mut log.log).unwrap();
        let markets = body(|out| markets_body(out, [MarketSpec { flags: MarketFlags(0), name: "a:X" }]));
        let mut rig = Self { shard, log, market: EntityId::NONE };
        rig.send(NOW, CONN, Header { session: 5, request: 1, count: 1, ..Header::new(Kind::Markets) }, &markets);
        let Some(Said::Answer { body, .. }) = rig.durable().pop() else { panic!("a market") };
        rig.market = EntityId::from_bits(u64::from_le_bytes(body.try_into().unwrap()));
        rig
    }

    fn send(&mut self, now: Now, from: ConnId, header: Header, body: &[u8]) {
        let bytes = written(header, body);
        // As a connection's buffer has them: rows are aligned.
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(&bytes);
        let (frame, _) = decode(&bytemuck::cast_slice(&words)[..bytes.len()], 1 << 20).unwrap().unwrap();
        self.shard.frame(now, from, &frame, &mut self.log.log).unwrap();
    }

    fn ticks(&mut self, now: Now, from: ConnId, request: u64, ticks: &[Tick]) {
        let header = Header { session: 5, request, count: ticks.len() as u32, ..Header::new(Kind::Ticks) };
        self.send(now, from, header, bytemuck::cast_slice(ticks));
    }

    fn said(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.shard.poll_effect()).map(|reply| reply.said).collect()
    }

    /// What is said once all that was appended is durable and applied.
    fn durable(&mut self) -> Vec<Said> {
        self.log.apply(&mut self.shard);
        self.said()
    }

    fn count(&mut self, now: Now, as_of: Tx) -> Option<u64> {
        let words = [1, self.market.bits()].map(u64::to_le_bytes).concat();
        self.send(now, CONN, Header { session: 5, tx: as_of.bits(), ..Header::new(Kind::Count) }, &words);
        match self.durable().pop() {
            Some(Said::Answer { aux, .. }) => Some(aux),
            _ => None,
        }
    }
}

fn is(what: &str, found: impl PartialEq<u64> + std::fmt::Debug, expected: u64) -> Verdict {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected}")) }
}

fn nothing_is_acked_before_it_is_durable() -> Verdict {
    let mut rig = Rig::new();
    rig.ticks(NOW, CONN, 2, &[tick(rig.market, 1, 5.0)]);
    is("said before the sync", rig.said().len() as u64, 0)?;
    is("said after it", rig.durable().len() as u64, 1)
}

fn a_repeated_request_is_executed_once() -> Verdict {
    let mut rig = Rig::new();
    // Without an id of its own: nothing but the session tells it from another one.
    let nameless = [tick(rig.market, 0, 5.0)];
    rig.ticks(NOW, CONN, 2, &nameless);
    rig.durable();
    rig.ticks(NOW, AGAIN, 2, &nameless);
    let said = rig.durable();
    let acked = matches!(said.as_slice(), [Said::Ack { outcome, .. }] if outcome.accepted == 1);
    is("told as it was told before", u64::from(acked), 1)?;
    is("rows", rig.count(NOW, Tx::ZERO).unwrap_or(0), 1)
}

fn what_a_moment_showed_it_shows_for_ever() -> Verdict {
    let mut rig = Rig::new();
    rig.ticks(NOW, CONN, 2, &[tick(rig.market, 1, 5.0)]);
    rig.durable();
    // A moment that the leader's clock has not come to.
    let ahead = Tx::at_millis(NOW.millis() + 100);
    let before = rig.count(NOW, ahead);
    rig.ticks(LATER, CONN, 3, &[tick(rig.market, 2, 5.0)]);
    rig.durable();
    let after = rig.count(LATER, ahead);
    if before == after && before.is_some() { Ok(()) } else { Err(format!("{before:?} became {after:?}")) }
}

fn a_row_is_stored_once_however_often_it_is_sent() -> Verdict {
    let mut rig = Rig::new();
    for request in 2..5 {
        rig.ticks(NOW, CONN, request, &[tick(rig.market, 9, 5.0)]);
        rig.durable();
    }
    is("rows", rig.count(NOW, Tx::ZERO).unwrap_or(0), 1)
}

fn a_frame_is_stored_whole_or_not_at_all() -> Verdict {
    let mut rig = Rig::new();
    rig.ticks(NOW, CONN, 2, &[tick(rig.market, 1, 5.0)]);
    rig.durable();
    // A new row, and one whose id has other bytes.
    rig.ticks(NOW, CONN, 3, &[tick(rig.market, 2, 5.0), tick(rig.market, 1, 6.0)]);
    let refused = matches!(rig.durable().as_slice(), [Said::Refused(refusal)] if refusal.code == Code::IdConflict && refusal.first_bad == 1);
    is("refused by its second row", u64::from(refused), 1)?;
    is("rows", rig.count(NOW, Tx::ZERO).unwrap_or(0), 1)
}

fn below_the_horizon_nothing_is_answered_short() -> Verdict {
    let mut rig = Rig::new();
    for id in 1..5 {
        rig.ticks(NOW, CONN, id + 1, &[tick(rig.market, id, 5.0)]);
        rig.durable();
    }
    let past = rig.shard.group().applied_tx();
    rig.ticks(NOW, CONN, 6, &[tick(rig.market, 5, 5.0)]);
    rig.durable();
    let ticks = &mut rig.shard.ticks;
    let (ix, at) = (ticks.market_ix(rig.market).unwrap(), ticks.last_tx().next());
    drop(ticks.prune(Some(ix), Retention::Last(2), at).unwrap());
    let far = i64::MAX as u64;
    let words = [rig.market.bits(), 1, 0, 0, i64::MIN as u64, far, 10].map(u64::to_le_bytes).concat();
    rig.send(NOW, CONN, Header { session: 5, tx: past.bits(), ..Header::new(Kind::Rows) }, &words);
    match rig.durable().pop() {
        Some(Said::Refused(refusal)) if refusal.code == Code::BelowHorizon => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn every_promise_is_kept_and_its_planted_bug_is_seen() {
    let rows: [Row; 12] = [
        (Bug::AckBeforeSync, "nothing is acked before it is durable", nothing_is_acked_before_it_is_durable),
        (Bug::RepeatExecuted, "a repeated request is executed once", a_repeated_request_is_executed_once),
        (Bug::MomentNotClosed, "what a moment showed it shows for ever", what_a_moment_showed_it_shows_for_ever),
        (Bug::DuplicateStored, "a row is stored once", a_row_is_stored_once_however_often_it_is_sent),
        (Bug::HalfAFrame, "a frame is stored whole or not at all", a_frame_is_stored_whole_or_not_at_all),
        (Bug::ShortBelowHorizon, "below the horizon: refused", below_the_horizon_nothing_is_answered_short),
        (Bug::PageCutLoses, "every firing, page by page", streams::who_listens_is_told_every_firing_page_by_page),
        (Bug::LiveFromTheEnd, "history, then live", streams::who_comes_from_history_is_told_what_fires_meanwhile),
        (Bug::HistoryForgetsTheRest, "all of a place", streams::who_asks_all_is_told_the_whole_of_a_place_in_history),
        (Bug::ResumeRepeats, "behind the last firing", streams::who_comes_back_goes_on_behind_its_last_firing),
        (Bug::TailSkipsAtTheSeam, "every entry of the log", streams::a_tail_gives_every_entry_from_history_and_live),
        (Bug::DropsOneTooMany, "a policy keeps what it says", streams::a_policy_keeps_what_it_says),
    ];
    // Red by failed assertion is expected here; its message would only alarm.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let run = |bug, check: fn() -> Verdict| match catch_unwind(AssertUnwindSafe(|| with(bug, check))) {
        Ok(verdict) => verdict,
        Err(_) => Err("a failed assertion".to_owned()),
    };
    let seen = rows.map(|(bug, name, check)| (bug, name, run(None, check), run(Some(bug), check)));
    std::panic::set_hook(hook);
    for (bug, name, without, with) in seen {
        println!("{name:<40} {without:?}; with {bug:?}: {with:?}");
        assert_eq!(without, Ok(()), "{name}");
        assert!(with.is_err(), "{bug:?} is not seen by: {name}");
    }
}
