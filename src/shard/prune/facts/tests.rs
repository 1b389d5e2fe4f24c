//! A shard and the log that made it: what of its facts is dropped, when, and that every replay of the log drops the same.

use super::*;
use crate::config::Limits;
use crate::shard::Committed;
use crate::shard::checkpoint::Restoring;
use crate::shard::entry::Proposal;
use myelin_datom::{AttributeName, Entity, Given, Op, Slot, Transaction};
use std::borrow::Cow;

const BEGUN_MS: u64 = 1_000_000;
const N: &str = "n";

/// A shard, and the log that made it: entries at the given milliseconds, as one session's requests.
struct Log {
    shard: Shard,
    entries: Vec<(EntryKind, Tx, Vec<u8>)>,
    requests: u64,
}

fn word(word: &'static str) -> Value<'static> {
    Value::keyword(word)
}

impl Log {
    /// With an attribute of numbers, and one that can be looked up.
    fn new() -> Self {
        let mut log = Self { shard: Shard::new(0, 1, &Limits::default()), entries: Vec::new(), requests: 0 };
        let (n, id) = (Entity::temp("n"), Entity::temp("id"));
        log.say(
            BEGUN_MS - 1,
            &[
                (n.clone(), "db/ident", word(N)),
                (n, "db/value-type", word("i64")),
                (id.clone(), "db/ident", word("id")),
                (id.clone(), "db/value-type", word("i64")),
                (id, "db/unique", word("identity")),
            ],
        );
        log
    }

    fn say(&mut self, ms: u64, said: &[(Entity<'static>, &'static str, Value<'static>)]) {
        let op = |(e, a, v): &(Entity<'static>, &'static str, Value<'static>)| Op::Assert {
            e: e.clone(),
            a: AttributeName::ident(*a),
            v: Given::Value(v.clone()),
        };
        let mut body = Vec::new();
        Transaction { partition: Cow::Borrowed("main"), ops: said.iter().map(op).collect() }.write(&mut body);
        self.requests += 1;
        self.append(EntryKind::Transact, ms, Proposal::new(7, self.requests, body.len() as u32, false, 0), &body);
        assert!(self.shard.counters.refused.is_empty(), "{:?}", self.shard.counters.refused);
    }

    fn append(&mut self, kind: EntryKind, ms: u64, proposal: Proposal, body: &[u8]) {
        let mut payload = bytemuck::bytes_of(&proposal).to_vec();
        payload.extend_from_slice(body);
        payload.resize(payload.len().next_multiple_of(8), 0);
        let (index, tx) = (LogIndex(self.entries.len() as u64 + 1), Tx::at_millis(ms));
        self.shard.replay(Committed { index, tx, kind: kind as u8, payload: &payload }).unwrap();
        self.entries.push((kind, tx, payload));
    }

    /// Entity `id` says the number.
    fn count(&mut self, ms: u64, id: i64, n: i64) {
        let e = || Entity::temp("e");
        self.say(ms, &[(e(), "id", Value::I64(id)), (e(), N, Value::I64(n))]);
    }

    fn keep(&mut self, ms: u64, policy: &'static str) {
        self.say(ms, &[(Entity::Ident(N.into()), "db/retention", Value::string(policy))]);
    }

    /// What a leader would append at this moment, over as many turns as it takes; says how many those were.
    fn prune(&mut self, ms: u64) -> u32 {
        let now = Now { mono_us: ms * 1000, unix_ns: ms as i64 * 1_000_000 };
        let facts = &self.shard.facts;
        let pruner = &mut self.shard.fact_pruner;
        pruner.tallies.retain(|a, tally| facts.attribute(*a).is_some_and(|one| one.keep == tally.keep));
        pruner.at = Some(EntityId::NONE);
        let mut turns = 0;
        loop {
            while self.shard.fact_pruner.at.is_some() {
                let rows = self.shard.horizons_due(now).unwrap();
                turns += 1;
                if !rows.is_empty() {
                    self.horizon(ms + u64::from(turns), bytemuck::cast_slice(&rows));
                }
            }
            if self.shard.fact_pruner.behind.is_none() {
                return turns;
            }
            while self.shard.fact_pruner.behind.is_some() {
                self.shard.look_back(now).unwrap();
                turns += 1;
            }
            self.shard.fact_pruner.at = Some(EntityId::NONE);
        }
    }

    fn horizon(&mut self, ms: u64, body: &[u8]) {
        self.append(EntryKind::FactHorizon, ms, Proposal::new(0, 0, body.len() as u32, false, 0), body);
    }

    fn attribute(&self) -> EntityId {
        self.shard.facts.attribute_named(Slot::of_name("main"), N).unwrap().id
    }

    /// The numbers that were said since the horizon, and the horizon in milliseconds.
    fn past(&self) -> (Vec<i64>, u64) {
        let a = self.attribute();
        let horizon = self.shard.facts.floor(a).horizon;
        let view = self.shard.facts.view(Tx::MAX).since(horizon).history();
        let datoms = view.datoms(Order::Aevt, &Components { a: Some(a), ..Components::default() });
        let mut said: Vec<(Tx, i64)> = datoms
            .map(Result::unwrap)
            .filter(|datom| datom.added)
            .map(|datom| match datom.v {
                Value::I64(n) => (datom.tx, n),
                other => panic!("{other:?}"),
            })
            .collect();
        said.sort_unstable();
        (said.into_iter().map(|(_, n)| n).collect(), horizon.millis())
    }

    /// What holds, by entity.
    fn now(&self) -> Vec<i64> {
        let components = Components { a: Some(self.attribute()), ..Components::default() };
        let datoms = self.shard.facts.view(Tx::MAX).datoms(Order::Aevt, &components);
        datoms.map(|datom| if let Value::I64(n) = datom.unwrap().v { n } else { panic!("a number") }).collect()
    }

    fn stated(&self, a: EntityId) -> Option<i64> {
        match self.shard.facts.view(Tx::MAX).value(self.attribute(), a).unwrap() {
            Some(Value::I64(number)) => Some(number),
            _ => None,
        }
    }
}

#[test]
fn each_policy_keeps_what_it_says_and_what_holds() {
    for (policy, past, horizon) in [
        ("all", (0..20).collect(), 0),
        ("latest", vec![], BEGUN_MS + 19_001),
        ("last 3", vec![17, 18, 19], BEGUN_MS + 16_001),
        ("window 5s", (15..20).collect(), BEGUN_MS + 14_001),
    ] {
        let mut log = Log::new();
        // One that never changes, and one that changes each second.
        log.count(BEGUN_MS, 100, -1);
        for second in 0..20 {
            log.count(BEGUN_MS + 1 + second * 1000, 1, second as i64);
        }
        log.keep(BEGUN_MS + 19_500, policy);
        log.prune(BEGUN_MS + 20_000);
        let all: Vec<i64> = if policy == "all" { std::iter::once(-1).chain(past).collect() } else { past };
        assert_eq!(log.past(), (all, horizon), "{policy}");
        assert_eq!(log.now(), [-1, 19], "{policy}");
        assert_eq!(log.stated(born::PRUNED_DATOMS).is_some(), policy != "all", "what has gone is a fact");
    }
}

#[test]
fn horizons_follow_what_is_said_and_rise_only_where_that_drops_something() {
    let mut log = Log::new();
    log.keep(BEGUN_MS + 1, "last 10");
    log.prune(BEGUN_MS + 2);
    for n in 0..100 {
        log.count(BEGUN_MS + 10 + n * 10, 1, n as i64);
        log.prune(BEGUN_MS + 15 + n * 10);
    }
    assert_eq!(log.past().0, (90..100).collect::<Vec<_>>());
    let before = log.entries.len();
    // New entities: nothing is taken back, so nothing goes, however many come.
    for n in 0..100 {
        log.count(BEGUN_MS + 2000 + n * 10, 50 + n as i64, n as i64);
    }
    log.prune(BEGUN_MS + 4000);
    log.prune(BEGUN_MS + 5000);
    // But what was taken back before them is gone now: one entry says so, and no more.
    assert_eq!(log.entries.len(), before + 101);
    assert_eq!(log.now().len(), 101);
    let dropped = log.shard.facts.floor(log.attribute()).dropped;
    assert_eq!(dropped, 2 * 99, "every number but the last, and its retraction");
    assert_eq!(log.shard.counters.datoms_dropped, dropped);
    let stated = log.stated(born::PRUNED_DATOMS).unwrap() as u64;
    assert!(stated <= dropped && stated * 2 > dropped, "{stated} of {dropped}");
}

#[test]
fn a_tally_stays_short_where_nothing_is_ever_taken_back() {
    for policy in ["latest", "last 3", "last 1000", "window 1ms", "window 1h"] {
        let mut log = Log::new();
        log.keep(BEGUN_MS + 1, policy);
        log.prune(BEGUN_MS + 2);
        for n in 0..3000 {
            log.count(BEGUN_MS + 10 + n * 100, n as i64, 1);
            if n % 50 == 0 {
                log.prune(BEGUN_MS + 15 + n * 100);
            }
        }
        log.prune(BEGUN_MS + 1_000_000);
        let told = log.shard.fact_pruner.tallies[&log.attribute()].said.len();
        assert!(told <= TOLD_FEW, "{told} with {policy}");
        assert_eq!(log.past(), (vec![1; 3000], 0), "nothing goes: everything holds");
    }
}

#[test]
fn a_tally_is_bounded_between_two_passes_too() {
    let mut log = Log::new();
    log.keep(BEGUN_MS + 1, "last 3");
    log.prune(BEGUN_MS + 2);
    let attribute = log.attribute();
    let said = |n: u64| Tx::at_millis(BEGUN_MS + 10 + n);
    (0..3 * TOLD_MAX as u64).for_each(|n| log.shard.fact_pruner.note(said(n), [(attribute, true)].into_iter()));
    let told = log.shard.fact_pruner.tallies[&attribute].said.len();
    assert!(told <= TOLD_MAX, "{told}");
}

#[test]
fn a_long_past_is_looked_through_in_slices_and_nothing_is_counted_twice_or_missed() {
    for policy in ["latest", "last 1000", "window 10s"] {
        let mut log = Log::new();
        for n in 0..300 {
            let entities = (0..20).flat_map(|id| {
                let e = Entity::temp(format!("e{id}"));
                [(e.clone(), "id", Value::I64(id)), (e, N, Value::I64(n * 20 + id))]
            });
            log.say(BEGUN_MS + 1 + n as u64 * 100, &entities.collect::<Vec<_>>());
        }
        log.keep(BEGUN_MS + 40_000, policy);
        // While it is looked through, more is said.
        let now = Now { mono_us: 0, unix_ns: (BEGUN_MS as i64 + 40_001) * 1_000_000 };
        log.shard.fact_pruner.at = Some(EntityId::NONE);
        assert!(log.shard.horizons_due(now).unwrap().is_empty());
        log.shard.look_back(now).unwrap();
        log.count(BEGUN_MS + 40_002, 3, -3);
        log.count(BEGUN_MS + 40_003, 3, -4);
        assert!(log.prune(BEGUN_MS + 41_000) >= 3, "{policy}");
        let facts = &log.shard.facts;
        let floor = facts.floor(log.attribute());
        let datoms = |log: &Log| {
            let view = log.shard.facts.view(Tx::MAX).since(floor.horizon).history();
            let datoms = view.datoms(Order::Aevt, &Components { a: Some(log.attribute()), ..Components::default() });
            datoms.map(Result::unwrap).filter(|datom| !datom.added).count() as u64
        };
        let retractions = 299 * 20 + 2;
        assert_eq!(floor.dropped, 2 * (retractions - datoms(&log)), "{policy}: {floor:?}");
        let kept = log.past().0.len();
        match policy {
            "latest" => assert_eq!(kept, 0),
            "last 1000" => assert!((1000..1000 + 1000 / 16 + 40).contains(&kept), "{kept}"),
            _ => assert!(kept > 0 && floor.horizon.millis() < BEGUN_MS + 31_000, "{kept} {floor:?}"),
        }
    }
}

#[test]
fn what_was_worked_out_under_an_older_policy_changes_nothing() {
    let mut log = Log::new();
    (0..10).for_each(|n| log.count(BEGUN_MS + 10 + n, 1, n as i64));
    log.keep(BEGUN_MS + 30, "latest");
    let now = Now { mono_us: 0, unix_ns: (BEGUN_MS as i64 + 31) * 1_000_000 };
    log.shard.fact_pruner.at = Some(EntityId::NONE);
    assert!(log.shard.horizons_due(now).unwrap().is_empty(), "its past is looked through first");
    log.shard.look_back(now).unwrap();
    log.shard.fact_pruner.at = Some(EntityId::NONE);
    let rows = log.shard.horizons_due(now).unwrap();
    assert_eq!(rows.len(), 1);
    log.keep(BEGUN_MS + 32, "all");
    log.horizon(BEGUN_MS + 33, bytemuck::cast_slice(&rows));
    assert_eq!(log.past(), ((0..10).collect(), 0));
    log.prune(BEGUN_MS + 34);
    assert_eq!(log.past(), ((0..10).collect(), 0));
    assert!(log.shard.fact_pruner.tallies.is_empty(), "what keeps all is not counted");
}

#[test]
fn two_shards_that_apply_one_log_come_to_the_same_state_wherever_they_sealed() {
    let mut log = Log::new();
    for n in 0..200 {
        log.count(BEGUN_MS + 100 + n * 100, n as i64 % 7, n as i64);
        match n {
            20 => log.keep(BEGUN_MS + 2_150, "last 20"),
            90 => log.keep(BEGUN_MS + 9_150, "window 3s"),
            150 => log.keep(BEGUN_MS + 15_150, "latest"),
            _ => {}
        }
        log.prune(BEGUN_MS + 160 + n * 100);
        if n % 13 == 0 {
            log.shard.seal();
        }
    }
    assert!(log.past().0.len() < 7 && log.shard.facts.floor(log.attribute()).dropped > 300);
    let mut other = Shard::new(0, 1, &Limits::default());
    for (at, (kind, tx, payload)) in log.entries.iter().enumerate() {
        let index = LogIndex(at as u64 + 1);
        other.replay(Committed { index, tx: *tx, kind: *kind as u8, payload }).unwrap();
    }
    assert_eq!(log.shard.seal().state, other.seal().state);
}

#[test]
fn a_checkpoint_brings_horizons_back_and_the_pruner_goes_on() {
    let mut log = Log::new();
    log.keep(BEGUN_MS + 1, "last 5");
    (0..50).for_each(|n| log.count(BEGUN_MS + 100 + n, 1, n as i64));
    log.prune(BEGUN_MS + 200);
    let floor = log.shard.facts.floor(log.attribute());
    let dir = tempfile::tempdir().unwrap();
    let sealing = log.shard.seal();
    let path = dir.path().join("a.facts");
    let meta = sealing.facts.as_ref().unwrap().write_run(&sealing.floors.facts, &path, &mut ()).unwrap();
    assert!(meta.rows < 50, "what had gone before it was sealed is not written: {}", meta.rows);
    let run = std::sync::Arc::new(myelin_index::FactRun::open(&path).unwrap());
    let from = Restoring { state: sealing.state, facts: vec![run], ..Restoring::default() };
    log.shard = Shard::restore(0, 1, &Limits::default(), from).unwrap();
    assert_eq!(log.shard.facts.floor(log.attribute()), floor);
    let a = log.attribute();
    let below = log.shard.facts.view(Tx::from_bits(floor.horizon.bits() - 1));
    assert!(matches!(below.value(a, a), Err(IndexError::BelowHorizon { horizon }) if horizon == floor.horizon));
    assert!(matches!(below.value(a, born::IDENT), Ok(Some(_))), "another attribute is all there");
    (50..60).for_each(|n| log.count(BEGUN_MS + 300 + n, 1, n as i64));
    log.prune(BEGUN_MS + 400);
    assert_eq!(log.past().0, (55..60).collect::<Vec<_>>());
    assert_eq!(log.shard.facts.floor(a).dropped, 2 * 54);
}

#[test]
fn an_entry_without_sense_is_told_and_an_attribute_that_is_not_there_is_passed_over() {
    let mut log = Log::new();
    assert!(log.shard.apply_fact_horizon(Tx::at_millis(1), &[1; 39]).is_err());
    let row = HorizonRow { attribute: 5, horizon: 7, datoms: 9, value: 0, keep: 2, zero: [0; 7] };
    log.horizon(BEGUN_MS + 5, bytemuck::bytes_of(&row));
    let born = HorizonRow { attribute: born::IDENT.bits(), keep: 1, ..row };
    log.horizon(BEGUN_MS + 6, bytemuck::bytes_of(&born));
    // Nor of an attribute that keeps all, though the entry says so too.
    assert_eq!(log.shard.counters.datoms_dropped, 0);
}

/// The entry was taken, and the checkpoint behind it was refused at the next start: more was gone than was ever there.
#[test]
fn a_horizon_of_more_datoms_than_there_are_is_refused_where_it_is_read() {
    let mut log = Log::new();
    log.keep(BEGUN_MS + 1, "latest");
    (0..10).for_each(|n| log.count(BEGUN_MS + 10 + n, 1, n as i64));
    let (there, at) = (log.shard.facts.datoms(), Tx::at_millis(BEGUN_MS + 40));
    let row = |datoms| {
        let (keep, value) = Keep::Latest.to_parts();
        let horizon = Tx::at_millis(BEGUN_MS + 19).bits();
        HorizonRow { attribute: log.attribute().bits(), horizon, datoms, value, keep, zero: [0; 7] }
    };
    let (forged, sound) = (row(there + 1), row(18));
    let refused = log.shard.apply_fact_horizon(at, bytemuck::bytes_of(&forged));
    assert!(matches!(refused, Err(ShardError::Senseless(_))));
    assert_eq!(log.shard.facts.datoms(), there, "nothing has changed");
    log.horizon(BEGUN_MS + 40, bytemuck::bytes_of(&sound));
    let stated = 2;
    assert_eq!(log.shard.facts.datoms(), there - 18 + stated);
}
