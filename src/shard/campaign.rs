//! Every decoder of a shard against mutated inputs: frames, registrations, checkpoints, manifests.
//!
//! Frames have right checksums: what is behind them is what is tried, and what `admit` lets through must be applied. A
//! checkpoint is mutated part by part, the parts that have a checksum are sealed again in half of the trials; one that is
//! taken must answer and must be written again.

use super::append::Appender;
use super::checkpoint::Restoring;
use super::manifest::{Manifest, RunName, ShardFiles};
use super::replicate::LogIndex;
use super::reply::Said;
use super::{Committed, ConnId, Now, Shard};
use crate::config::Limits;
use crate::reflex::{Reflexes, Scope, Spec};
use myelin_datom::{AttributeName, Entity, EntityId, Given, Op, Quote, Tick, Transaction, Tx, Value, received_delta};
use myelin_index::{FactRun, Run};
use myelin_mutants::{Depth, Dice, campaign, campaign_with, mutant};
use myelin_wal::{Config, Directory, Start};
use myelin_wire::{
    By, DatomsAsked, FROM_NOW, Header, Keep, Kind, LogKind, MarketFlags, MarketSpec, Named, PullAsked, RetainRow,
    TailAsk, TopAsk, decode, markets_body, write_frame,
};
use std::sync::Arc;

const SEGMENT_BYTES: u64 = 1 << 20;
pub(super) const NOW: Now = Now { mono_us: 1_000_000, unix_ns: 1_700_000_000_000_000_000 };
const CONN: ConnId = ConnId { station: 0, generation: 1, index: 7 };

fn limits() -> Limits {
    Limits {
        sessions_per_shard: 4,
        markets_per_shard: 8,
        reflexes_per_shard: 8,
        subscriptions_per_shard: 2,
        firings_at_hand: 64,
        waiting_reads_per_shard: 4,
        ..Limits::lean().with_segment_bytes(SEGMENT_BYTES)
    }
}

/// A log that is never written: what is taken from it counts as durable at once.
pub(super) struct Log {
    pub(super) log: Appender,
    _dir: tempfile::TempDir,
}

impl Log {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = limits();
        let config = Config {
            segment_bytes: SEGMENT_BYTES,
            max_payload: limits.max_payload(),
            batch_bytes: limits.batch_bytes,
            ..Config::default()
        };
        let disk = Arc::new(Directory::open_synced(dir.path()).unwrap());
        let recovered = myelin_wal::recover(disk, &config, Start::default(), &mut |_| Ok(())).unwrap();
        let (mut tail, mut preparer) = (recovered.tail, recovered.preparer);
        (0..3).for_each(|_| tail.offer(preparer.prepare().unwrap()));
        Self { log: Appender::new(tail), _dir: dir }
    }

    /// The log by itself, and its folder.
    pub(super) fn apart(self) -> (Appender, tempfile::TempDir) {
        (self.log, self._dir)
    }

    /// What was appended is durable, and applied.
    pub(super) fn apply(&mut self, shard: &mut Shard) {
        while let Some(batch) = self.log.take_batch() {
            self.log.tail().synced(batch.upto());
            for record in batch.records() {
                let (index, tx) = (LogIndex(record.header.index), Tx::from_bits(record.header.tx));
                shard.synced(index);
                let entry = Committed { index, tx, kind: record.header.kind, payload: record.payload };
                shard.apply(NOW, entry).expect("what was admitted can be applied");
            }
            let upto = batch.upto();
            self.log.tail().recycle(batch);
            self.log.tail().release(upto);
        }
    }

    /// One frame and all that follows from it; what was said.
    fn hear(&mut self, shard: &mut Shard, frame: &[u8]) -> Vec<Said> {
        let (frame, _) = decode(frame, limits().max_body_bytes).unwrap().unwrap();
        shard.frame(NOW, CONN, &frame, &mut self.log).expect("no frame stops a shard");
        self.apply(shard);
        while shard.push_firings(NOW).expect("no subscriber stops a shard") {}
        let mut reader = super::reading::Reader::default();
        while shard.has_readings() {
            shard.go_on_from(0);
            shard.read_on(&|_| true).expect("no read stops a shard");
            while let Some(trip) = shard.poll_trip() {
                shard.is_back(reader.travel(trip)).expect("no read stops a shard");
            }
        }
        let (mut said, mut out) = (Vec::new(), Vec::new());
        while let Some(reply) = shard.poll_effect() {
            out.clear();
            reply.write(&mut out, 1);
            assert!(matches!(decode(&out, u32::MAX), Ok(Some(_))), "a reply is a frame");
            said.push(reply.said);
        }
        said
    }
}

pub(super) fn written(header: Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, header, body);
    bytes
}

fn asks(kind: Kind, count: u32) -> Header {
    Header { session: 5, request: 1, count, ..Header::new(kind) }
}

pub(super) fn tick(market: EntityId, id: u64, price: f64) -> Tick {
    Tick {
        market,
        id,
        event_time_ns: NOW.unix_ns + id as i64,
        price,
        volume: 1.5,
        received_delta_us: received_delta::UNKNOWN,
        ..bytemuck::Zeroable::zeroed()
    }
}

fn quote(market: EntityId, id: u64) -> Quote {
    Quote {
        market,
        id,
        event_time_ns: NOW.unix_ns + id as i64,
        bid: 10.0,
        bid_volume: 1.0,
        ask: 11.0,
        ask_volume: 2.0,
        received_delta_us: received_delta::UNKNOWN,
        ..bytemuck::Zeroable::zeroed()
    }
}

fn names() -> Vec<u8> {
    let mut body = Vec::new();
    let spec = |flags, name| MarketSpec { flags: MarketFlags(flags), name };
    markets_body(&mut body, [spec(0, "a:{X}1"), spec(1, "b:{X}2"), spec(4, "c:{Y}")]);
    body
}

fn registrations() -> Vec<u8> {
    let mut body = Vec::new();
    let specs = ["above 10", "below 9", "move 1 in 1s", "volume 2 in 10s", "gap"];
    for (id, spec) in (1_u64..).zip(specs) {
        body.extend_from_slice(&id.to_le_bytes());
        spec.parse::<Spec>().unwrap().encode(&mut body);
        let scope = if id % 2 == 0 { Scope::All } else { "market:a:{X}1".parse().unwrap() };
        scope.encode(&mut body);
    }
    body
}

/// A shard with markets, reflexes, rows, a session and a subscriber.
fn lived_in(log: &mut Log) -> (Shard, Vec<EntityId>) {
    let mut shard = Shard::new(0, 1, &limits());
    shard.take_the_lead(NOW, &mut log.log).unwrap();
    let made = log.hear(&mut shard, &written(asks(Kind::Markets, 3), &names()));
    let Some(Said::Answer { body, .. }) = made.first() else { panic!("markets: {made:?}") };
    let ids: Vec<_> =
        body.chunks_exact(8).map(|id| EntityId::from_bits(u64::from_le_bytes(id.try_into().unwrap()))).collect();
    let mut request = 1;
    let mut next = |kind, count| {
        request += 1;
        Header { request, ..asks(kind, count) }
    };
    let subscribe = vec![0; 32];
    let ticks: Vec<_> = (1..9).map(|id| tick(ids[id as usize % 3], id, 5.0 + id as f64)).collect();
    let quotes: Vec<_> = (1..5).map(|id| quote(ids[id as usize % 3], id)).collect();
    for (header, body) in [
        (next(Kind::Register, 5), registrations()),
        (Header { session: 6, ..next(Kind::Subscribe, 100) }, subscribe),
        (Header { request: 3, ..next(Kind::Ticks, 8) }, bytemuck::cast_slice(&ticks).to_vec()),
        (Header { request: 4, ..next(Kind::Quotes, 4) }, bytemuck::cast_slice(&quotes).to_vec()),
        (Header { request: 5, ..next(Kind::Retain, 2) }, policies(&ids)),
        (Header { request: 6, ..next(Kind::Transact, 3) }, transaction(ids[0])),
    ] {
        log.hear(&mut shard, &written(header, &body));
    }
    assert_eq!((shard.counters().rows_accepted, ids.len()), (12, 3), "{:?}", shard.counters());
    (shard, ids)
}

/// A sound frame of every kind that a client may say to a shard.
fn frames(ids: &[EntityId]) -> Vec<(Header, Vec<u8>)> {
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let market = ids[0].bits();
    let ticks = [tick(ids[0], 100, 12.0), tick(ids[1], 101, 3.0)];
    let quotes = [quote(ids[0], 100), quote(ids[2], 101)];
    let far = i64::MAX as u64;
    vec![
        (asks(Kind::Ticks, 2), bytemuck::cast_slice(&ticks).to_vec()),
        (Header { flags: Header::PARTIAL, ..asks(Kind::Ticks, 2) }, bytemuck::cast_slice(&ticks).to_vec()),
        (asks(Kind::Quotes, 2), bytemuck::cast_slice(&quotes).to_vec()),
        (asks(Kind::Markets, 3), names()),
        (asks(Kind::ListMarkets, 0), words(&[0])),
        (asks(Kind::Count, 0), words(&[1, market])),
        (asks(Kind::Latest, 0), words(&[1, market])),
        (asks(Kind::Rows, 0), words(&[1, market, 0, 0, far, 0, 10])),
        (asks(Kind::Vwap, 0), words(&[market])),
        (asks(Kind::Bars, 0), words(&[market, 1000, 0, far])),
        (asks(Kind::Register, 5), registrations()),
        (asks(Kind::Remove, 2), words(&[1, 2])),
        (asks(Kind::ListReflexes, 0), words(&[0])),
        (asks(Kind::Subscribe, 10), words(&[0, 0, 0, 0])),
        (Header { flags: Header::REPLAYED, ..asks(Kind::Subscribe, 10) }, words(&[1, 0, 0, 0])),
        (asks(Kind::Credit, 10), Vec::new()),
        (asks(Kind::Resume, 0), Vec::new()),
        (asks(Kind::Now, 0), Vec::new()),
        (asks(Kind::Status, 0), Vec::new()),
        (asks(Kind::Retain, 2), policies(ids)),
        (asks(Kind::Policies, 0), words(&[0])),
        (asks(Kind::Transact, 3), transaction(ids[0])),
        (
            asks(Kind::Datoms, 0),
            body(|out| DatomsAsked { e: Some(Entity::Id(ids[0])), ..DatomsAsked::all(0) }.write(out)),
        ),
        (asks(Kind::Pull, 0), body(|out| pull(ids[0]).write(out))),
        (asks(Kind::Tail, 10), body(|out| TailAsk::all(FROM_NOW).write(out))),
        (asks(Kind::Tail, 10), body(|out| TailAsk::all(0).write(out))),
        (asks(Kind::Tail, 10), body(|out| facts_since(0).write(out))),
        (asks(Kind::End, 0), Vec::new()),
        (asks(Kind::Totals, 0), words(&[market, 0, far])),
        (asks(Kind::Top, 0), TopAsk { by: By::Volume, limit: 10, from_ns: 0, to_ns: i64::MAX }.body()),
    ]
}

pub(super) fn body(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body);
    body
}

/// One market keeps its last two ticks, the others an hour.
fn policies(ids: &[EntityId]) -> Vec<u8> {
    let hour = RetainRow::new(0, RetainRow::TICKS | RetainRow::QUOTES, Some(Keep::Window(3_600_000_000_000)));
    let last = RetainRow::new(ids[0].bits(), RetainRow::TICKS, Some(Keep::Last(2)));
    bytemuck::cast_slice(&[hour, last]).to_vec()
}

/// An attribute is installed, and a market is said to belong to an event.
fn transaction(market: EntityId) -> Vec<u8> {
    let named = |name: &'static str| AttributeName::Ident(name.into());
    let said = |e: Entity<'static>, a, v: Value<'static>| Op::Assert { e, a: named(a), v: Given::Value(v) };
    let attribute = || Entity::Temp("age".into());
    let ops = vec![
        said(attribute(), "db/ident", Value::keyword("person/age")),
        said(attribute(), "db/value-type", Value::keyword("i64")),
        said(Entity::Id(market), "market/event", Value::String("X wins".into())),
    ];
    body(|out| Transaction { partition: "a:{X}1".into(), ops }.write(out))
}

fn pull(market: EntityId) -> PullAsked<'static> {
    let (slot, entity) = (market.slot().number(), Entity::Id(market));
    PullAsked { history: true, slot, limit: 100, since: Tx::ZERO, entity, place: &[] }
}

fn facts_since(since: u64) -> TailAsk<'static> {
    let attributes = &["market/event", "feed/gap"];
    TailAsk { kinds: LogKind::Fact.bit(), named: Named::Like("*X*"), attributes, ..TailAsk::all(since) }
}

/// Another header, in up to three fields.
fn other_header(dice: &mut Dice, mut header: Header) -> Header {
    for _ in 0..dice.below(4) {
        let number = dice.number();
        match dice.below(8) {
            0 => header.kind = number as u8,
            1 => header.flags = number as u16,
            2 => header.session = number,
            3 => header.request = number,
            4 => header.tx = if dice.one_in(2) { number } else { Tx::at_millis(NOW.millis() + number % 300).bits() },
            5 => header.count = number as u32,
            _ => header.aux = number,
        }
    }
    header
}

#[test]
fn campaign_no_frame_stops_a_shard_and_what_is_admitted_is_applied() {
    let (_, ids) = lived_in(&mut Log::new());
    let frames = frames(&ids);
    let bodies: Vec<_> = frames.iter().map(|(_, body)| body.clone()).collect();
    // One input is a frame; a trial says eight of them to a shard of its own.
    campaign_with("shard-frames", 500, 8, Log::new, |log, dice| {
        let (mut shard, _) = lived_in(log);
        let mut refused = 0;
        for number in 0..8 {
            let (header, body) = dice.pick(&frames);
            let body = if dice.one_in(8) { mutant(dice, &bodies) } else { mutant(dice, std::slice::from_ref(body)) };
            let header = Header { session: 100 + number, ..*header };
            let header = Header { count: if dice.one_in(2) { header.count } else { body.len() as u32 / 64 }, ..header };
            let frame = written(other_header(dice, header), &body);
            // What is no frame for a shard does not come to one.
            if matches!(decode(&frame, limits().max_body_bytes), Ok(Some(_))) {
                let said = log.hear(&mut shard, &frame);
                refused += u32::from(said.iter().any(|said| matches!(said, Said::Refused(_))));
            }
        }
        shard.closed(CONN);
        if refused < 4 { Depth::Taken } else { Depth::Inside }
    });
}

#[test]
fn campaign_no_bytes_break_the_reader_of_registrations() {
    let body = registrations();
    campaign("reflex-registrations", 20_000, 1, |dice| {
        let bytes = mutant(dice, std::slice::from_ref(&body));
        let (mut rest, mut again) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let Some((id, spec, scope)) = super::apply::registration(&mut rest) else { return Depth::Inside };
            again.extend_from_slice(&id.0.to_le_bytes());
            spec.encode(&mut again);
            scope.encode(&mut again);
            // As people write it, it is the same question.
            assert_eq!(spec.to_string().parse::<Spec>().as_ref(), Ok(&spec));
        }
        assert_eq!(again, bytes, "one question has one encoding");
        Depth::Taken
    });
}

#[test]
fn campaign_no_bytes_break_the_reader_of_manifests() {
    let run = |name: &str| RunName { name: name.to_owned(), hash: 7 << 90 };
    let files = |shard| ShardFiles {
        shard,
        ticks: vec![run("0000-01.ticks"), run("0000-02.merged.ticks")],
        quotes: vec![run("0000-01.quotes")],
        facts: vec![run("0000-02.facts")],
        reflexes: Some(run("0000-0000000000000001.reflexes")),
        state: vec![9; 50],
    };
    let manifest = |shards| Manifest { number: 3, core: 1, lsn: 4096, shards };
    let corpus = [manifest(vec![]).encode(), manifest(vec![files(0), ShardFiles::default(), files(2)]).encode()];
    campaign("manifests", 20_000, 1, |dice| {
        let mut bytes = mutant(dice, &corpus);
        let sealed = dice.one_in(2) && reseal(&mut bytes);
        match Manifest::decode(3, &bytes) {
            Ok(manifest) => {
                assert_eq!(Manifest::decode(3, &manifest.encode()), Ok(manifest));
                Depth::Taken
            }
            Err((what, at)) => {
                assert!(!what.is_empty() && at <= bytes.len());
                if sealed { Depth::Inside } else { Depth::Outside }
            }
        }
    });
}

/// Makes the CRC-32 in the last four bytes right again; false when there is no room for one.
fn reseal(bytes: &mut [u8]) -> bool {
    let Some((content, crc)) = bytes.split_last_chunk_mut::<4>() else { return false };
    *crc = crc32fast::hash(content).to_le_bytes();
    true
}

/// A checkpoint's state, taken apart.
#[derive(Clone)]
struct Parts {
    /// Position, sessions, markets.
    head: Vec<u8>,
    /// Of ticks, of quotes, of reflexes, of facts.
    tails: [Vec<u8>; 4],
    policies: Vec<u8>,
    /// In a file of its own.
    registrations: Vec<u8>,
}

impl Parts {
    fn of(shard: &Shard, state: &[u8]) -> Self {
        let (ticks, quotes) = shard.columns();
        let tails = [ticks.state(), quotes.state(), shard.reflexes.running_state(), shard.facts.state()];
        let policies = body(|out| shard.retention.write(out));
        let behind = tails.iter().map(|part| 8 + part.len()).sum::<usize>() + policies.len();
        let registrations = shard.reflexes.registrations_state();
        Self { head: state[..state.len() - behind].to_vec(), tails, policies, registrations }
    }

    fn joined(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        for part in &self.tails {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.policies);
        bytes
    }
}

#[test]
fn campaign_no_bytes_break_the_reader_of_checkpoints_and_what_is_taken_answers() {
    let (mut shard, ids) = lived_in(&mut Log::new());
    let sealing = shard.seal();
    let dir = tempfile::tempdir().unwrap();
    let written_run = |path: &std::path::Path| Arc::new(Run::open(path).unwrap());
    let (ticks, quotes, facts) = (dir.path().join("ticks"), dir.path().join("quotes"), dir.path().join("facts"));
    sealing.ticks.as_ref().unwrap().write_run(&ticks, &mut ()).unwrap();
    sealing.quotes.as_ref().unwrap().write_run(&quotes, &mut ()).unwrap();
    sealing.facts.as_ref().unwrap().write_run(&sealing.floors.facts, &facts, &mut ()).unwrap();
    let (ticks, quotes, facts) = (written_run(&ticks), written_run(&quotes), Arc::new(FactRun::open(&facts).unwrap()));
    let parts = Parts::of(&shard, &sealing.state);
    assert!(parts.joined() == sealing.state, "the state is what this takes apart");
    let questions: Vec<_> = frames(&ids).into_iter().map(|(header, body)| written(header, &body)).collect();
    campaign_with("checkpoint-states", 2_000, 1, Log::new, |log, dice| {
        let mut parts = parts.clone();
        let mut inside = true;
        match dice.below(7) {
            0 | 1 => parts.head = mutant(dice, std::slice::from_ref(&parts.head)),
            at @ (2 | 3) => parts.tails[at] = mutant(dice, std::slice::from_ref(&parts.tails[at])),
            4 => parts.policies = mutant(dice, std::slice::from_ref(&parts.policies)),
            5 => parts.registrations = mutant(dice, std::slice::from_ref(&parts.registrations)),
            at => {
                let part = &mut parts.tails[at - 6];
                *part = mutant(dice, std::slice::from_ref(part));
                inside = dice.one_in(2) && reseal(part);
            }
        }
        let mut state = parts.joined();
        if dice.one_in(8) {
            state = mutant(dice, &[state]);
        }
        let from = Restoring {
            state,
            registrations: parts.registrations,
            ticks: vec![Arc::clone(&ticks)],
            quotes: vec![Arc::clone(&quotes)],
            facts: vec![Arc::clone(&facts)],
        };
        let Ok(mut shard) = Shard::restore(0, 2, &limits(), from) else {
            return if inside { Depth::Inside } else { Depth::Outside };
        };
        // A head that is cut before its first byte is the head of a shard that never was.
        let _led = shard.take_the_lead(NOW, &mut log.log);
        for _ in 0..3 {
            log.hear(&mut shard, dice.pick(&questions).as_slice());
        }
        drop(shard.seal());
        Depth::Taken
    });
}

#[test]
fn campaign_no_bytes_break_the_reader_of_reflex_states() {
    let (shard, _) = lived_in(&mut Log::new());
    let corpus = [shard.reflexes.state()];
    let limits = super::react::limits(&limits());
    campaign("reflex-states", 20_000, 1, |dice| {
        let bytes = mutant(dice, &corpus);
        match Reflexes::restore(limits, &bytes) {
            Ok(reflexes) => {
                let state = reflexes.state();
                let again = Reflexes::restore(limits, &state).map(|again| again.state());
                assert_eq!(again.as_ref(), Ok(&state));
                Depth::Taken
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                Depth::Inside
            }
        }
    });
}
