//! A core without its threads: what it says to its connections when a shard fails, when answers are long, when it measures.

use super::*;
use crate::health::Until;
use crate::reflex::{Scope, Spec};
use crate::runtime::ring::{self, ThreadConsumer};
use crate::shard::ShardError;
use crate::shard::campaign::{Log, body, tick, written};
use crate::shard::crossing::tests::{Rig as Crossing, names};
use crate::shard::entry::Senseless;
use crate::shard::reading::Reader;
use crate::shard::seal::{Made, Sealed};
use myelin_datom::EntityId;
use myelin_wire::{FROM_NOW, Hello, MarketFlags, MarketSpec, SlotRange, TailAsk, decode, markets_body};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const REFLEX: u64 = 5;

/// One core with one shard, and the far ends of its rings.
struct Rig {
    core: Core,
    batches: ThreadConsumer<Batch>,
    trips: ThreadConsumer<Trip>,
    bell: Arc<Bell>,
    request: u64,
    _dir: tempfile::TempDir,
}

/// The react task's, which counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Rig {
    fn new(limits: Limits) -> Self {
        // As the log's.
        let limits = &limits.with_segment_bytes(1 << 20);
        let (log, dir) = Log::new().apart();
        let thread = || std::thread::current();
        let (to_sync, batches) = ring::thread_ring(2);
        let (to_seal, _jobs) = ring::thread_ring(2);
        let (to_reader, trips) = ring::thread_ring(crate::shard::reading::UNDER_WAY_MAX);
        let welcome = Welcome {
            node: 1,
            capabilities: 0,
            max_body: limits.max_body_bytes,
            core: 0,
            table: 1,
            ports: vec![0],
            shard_cores: vec![0],
            slots: vec![SlotRange { first: 0, shard: 0 }],
        };
        let mut core = Core::new(Parts {
            station: 0,
            limits: limits.clone(),
            welcome,
            shards: vec![Shard::new(0, 1, limits)],
            log,
            to_sync: ring::toward(to_sync, thread()),
            to_seal: ring::toward(to_seal, thread()),
            to_reader: ring::toward(to_reader, thread()),
            peers: vec![None],
            health: Arc::default(),
            keeper: None,
            token: None,
            checkpoint: Lsn::ZERO,
            applied: Lsn::ZERO,
        });
        core.take_the_lead();
        let mut rig = Self { core, batches, trips, bell: Arc::default(), request: 0, _dir: dir };
        rig.sync();
        rig
    }

    /// The disk and the reader thread do all that was given to them, and the react task goes on until it has nothing to do.
    fn sync(&mut self) {
        let mut more = true;
        while more {
            more = self.core.push_firings();
            while let Some(batch) = self.batches.try_pop() {
                self.core.synced(Synced { batch, result: Ok(()), began_us: 1, at_us: 1 });
                more = true;
            }
            while let Some(trip) = self.trips.try_pop() {
                self.core.is_back(Reader::default().travel(trip));
                more = true;
            }
        }
        self.core.await_firings(&self.bell.clone().into());
        self.rung();
    }

    /// How often the react task was woken since it last had nothing to do.
    fn rung(&self) -> u32 {
        self.bell.0.swap(0, Relaxed)
    }

    fn connect(&mut self) -> ConnId {
        let id = self.core.connect().unwrap();
        let hello = Hello { client: "rig", capabilities: 0, credential_kind: 0, credential: "" };
        self.say(id, Header::new(Kind::Hello), &body(|out| hello.write(out)));
        assert_eq!(self.hear(id).len(), 1, "the welcome");
        id
    }

    fn say(&mut self, id: ConnId, header: Header, body: &[u8]) {
        let bytes = written(header, body);
        assert_eq!(self.core.take_frames(id, &bytes), (bytes.len(), Taken::More));
    }

    /// What stands in the outbox: kinds, sessions, codes and bodies.
    fn hear(&mut self, id: ConnId) -> Vec<(Kind, u64, u16, Vec<u8>)> {
        let (mut buffer, mut heard, mut at) = (Vec::new(), Vec::new(), 0);
        self.core.take_outbox(id, &mut buffer, Waker::noop()).expect("the connection is there");
        while let Some((frame, len)) = decode(&buffer[at..], u32::MAX).unwrap() {
            heard.push((frame.kind, frame.header.session, frame.header.code, frame.body.to_vec()));
            at += len;
        }
        heard
    }

    /// What is written is acknowledged.
    fn write(&mut self, id: ConnId, kind: Kind, count: usize, body: &[u8]) -> Vec<u8> {
        self.request += 1;
        let header = Header { session: 1, request: self.request, count: count as u32, ..Header::new(kind) };
        self.say(id, header, body);
        self.sync();
        let heard = self.hear(id);
        let [(Kind::Ack | Kind::Answer, 1, 0, body)] = &heard[..] else { panic!("{heard:?}") };
        body.clone()
    }

    fn market(&mut self, id: ConnId, name: &str) -> EntityId {
        let spec = [MarketSpec { flags: MarketFlags(0), name }];
        let made = self.write(id, Kind::Markets, 1, &body(|out| markets_body(out, spec)));
        EntityId::from_bits(u64::from_le_bytes(made[..8].try_into().unwrap()))
    }

    fn ticks(&mut self, id: ConnId, market: EntityId, prices: impl IntoIterator<Item = f64>) {
        let rows: Vec<_> =
            (1_u64..).zip(prices).map(|(n, price)| tick(market, self.request * 10_000 + n, price)).collect();
        self.write(id, Kind::Ticks, rows.len(), bytemuck::cast_slice(&rows));
    }
}

/// Seen red: what fired before the core failed was still told, and who went through history was told what is live across the
/// hole; and no stream was ended.
#[test]
fn a_core_that_fails_ends_its_streams_and_pushes_nothing_behind_that() {
    let mut rig = Rig::new(Limits::lean());
    let [writer, listener, other] = [rig.connect(), rig.connect(), rig.connect()];
    let market = rig.market(writer, "a");
    let registration = body(|out| {
        out.extend(REFLEX.to_le_bytes());
        "above 5".parse::<Spec>().unwrap().encode(out);
        "all".parse::<Scope>().unwrap().encode(out);
    });
    rig.write(writer, Kind::Register, 1, &registration);
    let asks = |session, kind| Header { session, request: 1, ..Header::new(kind) };
    rig.say(listener, asks(7, Kind::Subscribe), &[0; 32]);
    rig.say(listener, asks(8, Kind::Tail), &body(|out| TailAsk::all(FROM_NOW).write(out)));
    assert_eq!(rig.hear(listener).len(), 2, "both have begun");
    rig.ticks(writer, market, [1.0, 9.0]);
    assert_eq!(rig.hear(listener), [], "without credit nothing is told");
    for session in [7, 8] {
        rig.say(listener, Header { count: 100, ..asks(session, Kind::Credit) }, &[]);
    }
    rig.core.fail(&ShardError::from(Senseless { kind: 0, at: 0 }));
    let ended = |session| (Kind::Ended, session, Code::Unavailable as u16, Vec::new());
    assert_eq!(rig.hear(listener), [ended(7), ended(8)]);
    rig.core.disconnect(other);
    assert!(!rig.core.push_firings());
    assert_eq!(rig.hear(listener), []);
    rig.say(listener, Header { count: 100, ..asks(9, Kind::Subscribe) }, &[0; 32]);
    assert!(matches!(rig.hear(listener)[..], [(Kind::Refused, 9, code, _)] if code == Code::Unavailable as u16));
}

/// Bars of 3,000 ticks a nanosecond apart: 192,000 bytes, where an outbox has room for 64 KiB and is cut off at 128.
#[test]
fn long_answers_wait_for_who_takes_them_and_none_of_them_cuts_the_connection_off() {
    const BARS: usize = 3_000;
    let mut rig = Rig::new(Limits { outbox_bytes: 64 << 10, ..Limits::lean() });
    let [asker, other] = [rig.connect(), rig.connect()];
    let market = rig.market(asker, "a");
    for _ in 0..3 {
        rig.ticks(asker, market, (0..BARS / 3).map(|_| 2.0));
    }
    let words = [market.bits(), 1, i64::MIN as u64, i64::MAX as u64];
    let ask = words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>();
    let bars = |session| Header { session, request: 1, ..Header::new(Kind::Bars) };
    for session in 1..=4 {
        rig.say(asker, bars(session), &ask);
    }
    rig.sync();
    let mut told = Vec::new();
    for _ in 1..=4 {
        assert!(!rig.core.push_firings(), "nobody reads on for who does not take");
        let heard = rig.hear(asker);
        let [(Kind::Answer, session, 0, body)] = &heard[..] else { panic!("one at a time: {} frames", heard.len()) };
        assert_eq!(body.len(), BARS * 64);
        told.push(*session);
        assert_eq!(rig.rung(), 1, "the react task goes on when there is room");
        rig.sync();
    }
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4]);
    // Who takes nothing keeps a place, and others have theirs.
    for session in 5..=8 {
        rig.say(asker, bars(session), &ask);
    }
    rig.sync();
    rig.say(other, bars(9), &ask);
    rig.sync();
    assert!(matches!(&rig.hear(other)[..], [(Kind::Answer, 9, 0, _)]));
    let mut now = Core::now();
    rig.core.cut_the_stalled(now);
    now.mono_us += 1_000_000;
    rig.core.cut_the_stalled(now);
    assert!(!rig.core.connections[asker.index as usize].open, "two outboxes of 64 KiB at 2 Mbit/s are half a second");
    assert!(!rig.core.shards[0].has_readings(), "its reads go with it");
}

/// Seen red: each time that only a spread over two shards fired, the shard's own newest firing was measured once more.
#[test]
fn an_old_firing_is_not_measured_again_when_only_a_spread_across_shards_fires() {
    let mut rig = Crossing::new(100);
    let (here, there): (Vec<_>, Vec<_>) = (names(0).take(2).collect(), names(1).take(1).collect());
    let (ours, theirs) = (rig.markets(0, &here), rig.markets(1, &there));
    rig.register(REFLEX, "above 4", &format!("market:{}", here[0]));
    rig.register(77, &format!("spread {} {} 3", here[1], there[0]), "all");
    let health = CoreHealth::default();
    let measured = |rig: &mut Crossing| {
        let before = rig.shards[0].subscribers.fired();
        rig.settle();
        note_firing(&health, before, &rig.shards[0]);
        health.since_received(Until::Fired).read().0.iter().sum::<u64>()
    };
    rig.ticks(0, &[(ours[0], 1.0), (ours[0], 9.0)]);
    assert_eq!(measured(&mut rig), 1);
    rig.ticks(1, &[(theirs[0], 1.0)]);
    rig.ticks(0, &[(ours[1], 9.0)]);
    assert_eq!((measured(&mut rig), rig.shards[0].counters.firings), (1, 2));
}

/// Seen red: a merge that found no room refused every write until the next checkpoint, and one that found some let them
/// wait as `Busy` while rows could not be sealed.
#[test]
fn writes_are_told_of_a_full_disk_as_long_as_rows_cannot_be_sealed_and_whatever_becomes_of_a_merge() {
    let mut rig = Rig::new(Limits::lean());
    let full = || Err(SealError::Io(io::ErrorKind::StorageFull.into()));
    let lsn = rig.core.applied_upto;
    let merge = || SealJob { lsn, sealings: Vec::new(), old: Vec::new() };
    let told = |rig: &Rig| (rig.core.disk_full.for_segments, rig.core.disk_full.for_runs);
    rig.core.sealed(Sealed { job: merge(), result: full() });
    assert_eq!(told(&rig), (false, false));
    let job = SealJob { sealings: vec![rig.core.shards[0].seal()], ..merge() };
    rig.core.sealed(Sealed { job, result: full() });
    assert_eq!(told(&rig), (false, true));
    rig.core.sealed(Sealed { job: merge(), result: Ok(Made::default()) });
    assert_eq!(told(&rig), (false, true), "a merge says nothing of the rows that wait");
    let full_of_log = WalError::Full { file: String::new(), bytes: 1, limit: "device" };
    rig.core.preparing_told(Some(&full_of_log));
    assert_eq!(told(&rig), (true, true));
    let Sealing::Failed(job, _) = std::mem::replace(&mut rig.core.sealing, Sealing::UnderWay) else { panic!() };
    rig.core.sealed(Sealed { job: *job, result: Ok(Made::default()) });
    assert_eq!(told(&rig), (true, false));
    rig.core.preparing_told(None);
    assert_eq!(told(&rig), (false, false));
}
