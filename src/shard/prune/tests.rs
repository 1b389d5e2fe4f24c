//! A shard and the log that made it: what is dropped, when, and that every replay of the log drops the same.

use super::*;
use crate::config::Limits;
use crate::shard::Committed;
use crate::shard::checkpoint::{Restoring, Sealing};
use myelin_datom::Tick;
use myelin_wire::{MarketFlags, MarketSpec, markets_body};

const MARKET_MS: u64 = 1_000_000;

/// A shard, and the log that made it: entries at the given milliseconds, as one session's requests.
struct Log {
    shard: Shard,
    entries: Vec<(EntryKind, Tx, Vec<u8>)>,
    requests: u64,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { shard: Shard::new(0, 1, &Limits::default()), entries: Vec::new(), requests: 0 };
        let mut body = Vec::new();
        let names = ["rising", "any"].map(|name| MarketSpec {
            flags: MarketFlags(if name == "rising" { MarketFlags::ASCENDING } else { 0 }),
            name,
        });
        markets_body(&mut body, names);
        log.say(EntryKind::Markets, MARKET_MS, &body, body.len());
        log
    }

    fn say(&mut self, kind: EntryKind, ms: u64, body: &[u8], count: usize) {
        self.requests += 1;
        let crc = crc32fast::hash(body);
        let proposal = match kind {
            EntryKind::Horizon => Proposal::new(0, 0, count as u32, false, crc),
            _ => Proposal::new(7, self.requests, count as u32, false, crc),
        };
        self.requests -= u64::from(kind == EntryKind::Horizon);
        let mut payload = bytemuck::bytes_of(&proposal).to_vec();
        payload.extend_from_slice(body);
        payload.resize(payload.len().next_multiple_of(8), 0);
        self.apply(kind, Tx::at_millis(ms), payload);
    }

    fn apply(&mut self, kind: EntryKind, tx: Tx, payload: Vec<u8>) {
        let index = LogIndex(self.entries.len() as u64 + 1);
        let entry = Committed { index, tx, kind: kind as u8, payload: &payload };
        self.shard.replay(entry).unwrap();
        self.entries.push((kind, tx, payload));
    }

    fn market(&self, name: &str) -> EntityId {
        self.shard.markets.named(name).unwrap().id
    }

    fn ticks(&mut self, name: &str, ms: u64, ids: impl Iterator<Item = u64>) {
        let market = self.market(name);
        let rows: Vec<Tick> = ids.map(|id| Tick { market, id, price: 1.0, volume: 1.0, ..Tick::zeroed() }).collect();
        self.say(EntryKind::Ticks, ms, bytemuck::cast_slice(&rows), rows.len());
    }

    fn retain(&mut self, name: &str, ms: u64, keep: Keep) {
        let row = RetainRow::new(self.market(name).bits(), RetainRow::TICKS, Some(keep));
        self.say(EntryKind::Retain, ms, bytemuck::bytes_of(&row), size_of::<RetainRow>());
    }

    /// What a leader would append at this moment, over as many turns as it takes.
    fn prune(&mut self, ms: u64) -> u32 {
        let now = Now { mono_us: ms * 1000, unix_ns: ms as i64 * 1_000_000 };
        self.shard.pruner.at = Some(0);
        let mut entries = 0;
        while self.shard.pruner.at.is_some() {
            let floors = self.shard.floors_due(now, &mut { SEARCHES }).unwrap();
            if !floors.is_empty() {
                let body = body_of(self.shard.retention.changed(), &floors);
                self.say(EntryKind::Horizon, ms + u64::from(entries), &body, body.len());
                entries += 1;
            }
        }
        entries
    }

    fn kept(&self, name: &str) -> (u32, u32) {
        let kept = self.shard.ticks.kept(self.shard.ticks.market_ix(self.market(name)).unwrap());
        (kept.rows, kept.dropped)
    }
}

#[test]
fn a_floor_that_costs_many_ids_is_reached_in_several_turns() {
    let mut log = Log::new();
    // Falling ids: nothing but reading them tells the greatest.
    log.ticks("rising", MARKET_MS + 1, (1..=40_000).rev());
    log.retain("rising", MARKET_MS + 2, Keep::Last(10));
    assert_eq!(log.prune(MARKET_MS + 3), (40_000_u32 - 10).div_ceil(IDS_PER_SEARCH));
    assert_eq!(log.kept("rising"), (10, 39_990));
    log.ticks("rising", MARKET_MS + 100, 40_001..40_002);
    log.shard.seal();
    let outcome = log.shard.counters.refused.get(&Code::TooOld).copied();
    log.ticks("rising", MARKET_MS + 101, 11..12);
    assert_eq!((outcome, log.shard.counters.refused[&Code::TooOld]), (None, 1), "the greatest id that went is 40,000");
}

#[test]
fn a_window_moves_in_steps_and_a_quiet_market_is_not_looked_at_again() {
    let mut log = Log::new();
    for second in 0..100 {
        log.ticks("any", MARKET_MS + second * 1000, second * 10 + 1..second * 10 + 11);
    }
    log.retain("any", MARKET_MS + 99_500, Keep::Window(64_000_000_000));
    log.prune(MARKET_MS + 100_000);
    assert_eq!(log.kept("any"), (640, 360), "what is 64 s old and younger stays");
    assert_eq!(log.prune(MARKET_MS + 103_000), 0, "less than a sixteenth of the window");
    assert_eq!(log.prune(MARKET_MS + 105_000), 1);
    assert_eq!(log.kept("any"), (590, 410));
}

/// Each may read a block from the disk: four of them were 2 ms in one turn of each shard.
#[test]
fn a_turn_looks_into_one_sealed_market_and_the_next_one_goes_on() {
    let mut log = Log::new();
    for (ms, market) in [(1, "rising"), (3, "any")] {
        log.ticks(market, MARKET_MS + ms, 1..1001);
        log.retain(market, MARKET_MS + ms + 1, Keep::Last(100));
    }
    log.shard.seal();
    assert_eq!(log.prune(MARKET_MS + 5), 2, "an entry for each");
    assert_eq!((log.kept("rising").0, log.kept("any").0), (100, 100));
}

/// A pass a second ended every read that took longer, and each further try of it.
#[test]
fn a_pass_waits_for_long_reads_but_not_for_ever() {
    let mut log = Log::new();
    log.ticks("any", MARKET_MS + 1, 1..10_001);
    log.retain("any", MARKET_MS + 2, Keep::Last(100));
    log.shard.pruner.again_us = 1_000_000;
    let due = |log: &Log, us: u64| log.shard.is_pass_due(Now { mono_us: us, unix_ns: 0 });
    assert!(!due(&log, 999_999) && due(&log, 1_000_000));
    let conn = crate::shard::ConnId { station: 0, generation: 1, index: 7 };
    let header = myelin_wire::Header { session: 1, request: 1, ..myelin_wire::Header::new(myelin_wire::Kind::Vwap) };
    let basis = Tx::at_millis(MARKET_MS + 2);
    let read = crate::shard::ask::Read::of(conn, header, myelin_wire::Kind::Vwap, vec![0; 8], basis);
    assert!(log.shard.begin_reading(&read).is_ok());
    assert!(!due(&log, 1_000_000 + READS_WAIT_US - 1) && due(&log, 1_000_000 + READS_WAIT_US));
    log.shard.closed(conn);
    assert!(due(&log, 1_000_000));
}

#[test]
fn what_was_worked_out_under_an_older_policy_changes_nothing() {
    let mut log = Log::new();
    log.ticks("any", MARKET_MS + 1, 1..1001);
    log.retain("any", MARKET_MS + 2, Keep::Last(100));
    let now = Now { mono_us: 0, unix_ns: (MARKET_MS as i64 + 3) * 1_000_000 };
    log.shard.pruner.at = Some(0);
    let floors = log.shard.floors_due(now, &mut { SEARCHES }).unwrap();
    assert_eq!(floors.iter().map(|floor| floor.row).collect::<Vec<_>>(), [900]);
    let body = body_of(log.shard.retention.changed(), &floors);
    log.retain("any", MARKET_MS + 4, Keep::All);
    log.say(EntryKind::Horizon, MARKET_MS + 5, &body, body.len());
    assert_eq!(log.kept("any"), (1000, 0));
}

#[test]
fn two_shards_that_apply_one_log_come_to_the_same_state_wherever_they_sealed() {
    let mut log = Log::new();
    for second in 0..50 {
        log.ticks("rising", MARKET_MS + second * 1000, second * 100 + 1..second * 100 + 101);
        log.ticks("any", MARKET_MS + second * 1000 + 1, (second * 100 + 1..second * 100 + 101).rev());
        match second {
            10 => log.retain("rising", MARKET_MS + 10_002, Keep::Last(450)),
            20 => log.retain("any", MARKET_MS + 20_002, Keep::Window(7_000_000_000)),
            30 => log.retain("any", MARKET_MS + 30_002, Keep::Latest),
            _ => {}
        }
        log.prune(MARKET_MS + second * 1000 + 100);
        if second % 7 == 0 {
            log.shard.seal();
        }
    }
    assert!(log.kept("rising").1 > 4000 && log.kept("any").0 == 1, "{:?} {:?}", log.kept("rising"), log.kept("any"));
    let mut other = Shard::new(0, 1, &Limits::default());
    for (at, (kind, tx, payload)) in log.entries.iter().enumerate() {
        let index = LogIndex(at as u64 + 1);
        other.replay(Committed { index, tx: *tx, kind: *kind as u8, payload }).unwrap();
    }
    assert_eq!(log.shard.seal().state, other.seal().state);
}

#[test]
fn an_entry_without_sense_is_told_and_a_market_that_is_not_there_is_passed_over() {
    let mut log = Log::new();
    assert!(log.shard.apply_horizon(Tx::at_millis(1), &[1; 7]).is_err());
    assert!(log.shard.apply_horizon(Tx::at_millis(1), &[0; 8 + 31]).is_err());
    let stranger = HorizonRow { market: 5, row: 7, ..HorizonRow::zeroed() };
    let body = body_of(Tx::ZERO, &[stranger]);
    assert!(log.shard.apply_horizon(Tx::at_millis(MARKET_MS + 1), &body).is_ok());
    assert_eq!(log.shard.counters.rows_dropped, 0);
}

/// The entry was taken, and the checkpoint behind it was refused at the next start, and at each one after that.
#[test]
fn a_horizon_of_rows_that_come_later_is_refused_where_it_is_read() {
    let mut log = Log::new();
    log.ticks("any", MARKET_MS + 1, 1..11);
    let (market, at) = (log.market("any").bits(), Tx::at_millis(MARKET_MS + 2));
    let row = |gone: Tx| HorizonRow { market, row: 10, gone: gone.bits(), ..HorizonRow::zeroed() };
    assert!(matches!(
        log.shard.apply_horizon(at, &body_of(Tx::ZERO, &[row(at.next())])),
        Err(ShardError::Senseless(_))
    ));
    assert_eq!(log.kept("any"), (10, 0), "nothing has changed");
    let body = body_of(Tx::ZERO, &[row(at)]);
    log.say(EntryKind::Horizon, MARKET_MS + 2, &body, body.len());
    assert_eq!(log.kept("any"), (0, 10));
    let Sealing { state, facts, floors, .. } = log.shard.seal();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.facts");
    facts.unwrap().write_run(&floors.facts, &path, &mut ()).unwrap();
    let facts = vec![std::sync::Arc::new(myelin_index::FactRun::open(&path).unwrap())];
    assert!(Shard::restore(0, 1, &Limits::default(), Restoring { state, facts, ..Restoring::default() }).is_ok());
}
