//! What a turn may cost, however many read and however much there is: the others go on meanwhile.

use crate::config::Limits;
use crate::shard::campaign::{Log, NOW, body, tick, written};
use crate::shard::reply::{Reply, Said};
use crate::shard::turn::{SEALED_PAGE, UNITS_PER_TURN};
use crate::shard::ways::MARKETS;
use crate::shard::{ConnId, Now, Shard};
use myelin_datom::{AttributeName, Entity, EntityId, Given, MarketName, Op, Tick, Transaction, Tx, Value};
use myelin_wire::{
    Code, FROM_NOW, Header, Kind, LogKind, Logged, MarketFlags, MarketSpec, TailAsk, TailEntry, decode, markets_body,
    read_tail,
};

const WRITER: ConnId = ConnId { station: 0, generation: 1, index: 0 };

fn reader(index: u32) -> ConnId {
    ConnId { index: 1 + index, ..WRITER }
}

/// A shard, its log, and the writer's next request.
struct Rig {
    shard: Shard,
    log: Log,
    request: u64,
}

impl Rig {
    fn new() -> Self {
        let mut log = Log::new();
        let mut shard = Shard::new(0, 1, &Limits::lean());
        shard.take_the_lead(NOW, &mut log.log).unwrap();
        Self { shard, log, request: 0 }
    }

    fn frame(&mut self, from: ConnId, header: Header, body: &[u8]) {
        let bytes = written(header, body);
        let (frame, _) = decode(&bytes, 1 << 20).unwrap().unwrap();
        self.shard.frame(NOW, from, &frame, &mut self.log.log).unwrap();
        self.log.apply(&mut self.shard);
    }

    fn said(&mut self) -> Vec<Reply> {
        std::iter::from_fn(|| self.shard.poll_effect()).collect()
    }

    /// What is written is acknowledged at once, whoever reads.
    fn write(&mut self, kind: Kind, count: usize, body: &[u8]) -> Reply {
        self.request += 1;
        let header = Header { session: 1, request: self.request, count: count as u32, ..Header::new(kind) };
        self.frame(WRITER, header, body);
        let said = self.said().into_iter().find(|reply| reply.to == WRITER);
        said.filter(|reply| !matches!(reply.said, Said::Refused(_))).expect("it is acknowledged")
    }

    fn markets(&mut self, count: usize) -> Vec<EntityId> {
        let names: Vec<_> = (0..count).map(|n| format!("m{n}")).collect();
        let mut ids = Vec::new();
        for names in names.chunks(1000) {
            let spec = |name| MarketSpec { flags: MarketFlags(0), name };
            let mut body = Vec::new();
            markets_body(&mut body, names.iter().map(|name| spec(name)));
            let Said::Answer { body, .. } = self.write(Kind::Markets, names.len(), &body).said else {
                panic!("no ids")
            };
            ids.extend(body.chunks_exact(8).map(|id| EntityId::from_bits(u64::from_le_bytes(id.try_into().unwrap()))));
        }
        ids
    }

    fn ticks(&mut self, rows: &[Tick]) {
        for rows in rows.chunks(1000) {
            self.write(Kind::Ticks, rows.len(), bytemuck::cast_slice(rows));
        }
    }

    fn facts(&mut self, ops: Vec<Op<'_>>) {
        let (partition, count) = ("main".into(), ops.len());
        let body = body(|out| Transaction { partition, ops }.write(out));
        self.write(Kind::Transact, count, &body);
    }

    fn tail(&mut self, index: u32, ask: TailAsk<'_>, credit: u32) {
        let header = Header { session: 7, request: 1, count: credit, ..Header::new(Kind::Tail) };
        self.frame(reader(index), header, &body(|out| ask.write(out)));
    }

    /// One turn: whether there is more, and what it gave to each reader.
    fn turn(&mut self) -> (bool, Vec<(ConnId, Vec<TailEntry>)>) {
        self.turn_at(NOW)
    }

    fn turn_at(&mut self, now: Now) -> (bool, Vec<(ConnId, Vec<TailEntry>)>) {
        let more = self.shard.push_firings(now).unwrap();
        let page = |reply: Reply| match reply.said {
            Said::Tailed { body, .. } => Some((reply.to, read_tail(&body).unwrap())),
            _ => None,
        };
        (more, self.said().into_iter().filter_map(page).collect())
    }

    fn drain(&mut self) -> Vec<TailEntry> {
        let mut entries = Vec::new();
        loop {
            let (more, pages) = self.turn();
            entries.extend(pages.into_iter().flat_map(|(_, page)| page));
            if !more {
                return entries;
            }
        }
    }
}

fn told(entries: &[TailEntry]) -> Vec<(u64, u32, EntityId, u64)> {
    let one = |entry: &TailEntry| match &entry.what {
        Logged::Tick(tick) => (entry.tx, entry.n, tick.market, tick.id),
        Logged::Market { id, .. } => (entry.tx, 0, *id, 0),
        other => panic!("not written here: {other:?}"),
    };
    entries.iter().map(one).collect()
}

#[test]
fn a_tail_over_ten_thousand_markets_begins_a_turn_at_a_time_and_what_is_written_meanwhile_is_acked() {
    let mut rig = Rig::new();
    let ids = rig.markets(10_000);
    let rows: Vec<_> = (0..20_000).map(|n| tick(ids[n * 70 % 10_000], n as u64 + 1, 1.0)).collect();
    rig.ticks(&rows);
    rig.said();
    rig.tail(0, TailAsk::all(0), u32::MAX);
    let (mut turns_before, mut turns, mut written_meanwhile, mut entries) = (0, 0, 0, Vec::new());
    loop {
        let (more, pages) = rig.turn();
        turns += 1;
        let came: usize = pages.iter().map(|(_, page)| page.len()).sum();
        assert!(came <= UNITS_PER_TURN as usize, "{came} entries in one turn");
        assert!(rig.shard.tails.spent <= UNITS_PER_TURN + SEALED_PAGE, "a turn, and its last page");
        turns_before += u32::from(entries.is_empty() && came == 0);
        entries.extend(pages.into_iter().flat_map(|(_, page)| page));
        if turns % 10 == 0 {
            // Asserts that it is acknowledged before the next turn.
            written_meanwhile += 1;
            rig.ticks(&[tick(ids[0], 1_000_000 + written_meanwhile, 1.0)]);
        }
        if !more {
            break;
        }
    }
    assert!(turns_before >= 20, "10,000 markets were begun in {turns_before} turns");
    assert!(written_meanwhile > 5, "{written_meanwhile}");
    let told = told(&entries);
    assert_eq!(told.len() as u64, 10_000 + 20_000 + written_meanwhile);
    assert!(told.is_sorted_by_key(|one| one.0));
    let seen: Vec<u64> = told.iter().map(|one| one.3).filter(|id| *id != 0).collect();
    let due: Vec<u64> = (1..=20_000).chain((1..=written_meanwhile).map(|n| 1_000_000 + n)).collect();
    assert_eq!(seen, due);
}

/// Seen red: a reader of more than 10,000 markets was refused as `TooMany`.
#[test]
fn of_those_who_read_more_than_ten_thousand_markets_one_goes_on_at_a_time_and_all_are_told_everything() {
    const COUNT: usize = MARKETS + 2_000;
    const READERS: u32 = 3;
    let mut rig = Rig::new();
    let ids = rig.markets(COUNT);
    let rows: Vec<_> = (0..COUNT).map(|n| tick(ids[n * 71 % COUNT], n as u64 + 1, 1.0)).collect();
    rig.ticks(&rows);
    rig.said();
    // The first stops reading in the middle, for longer than others wait.
    (0..READERS).for_each(|index| rig.tail(index, TailAsk::all(0), if index == 0 { 1_000 } else { u32::MAX }));
    let (mut entries, mut turns) = (vec![Vec::new(); READERS as usize], 0);
    let mut now = NOW;
    let mut turn = |rig: &mut Rig, now: &mut Now| {
        turns += 1;
        assert!(turns < 100_000, "somebody waits for good");
        let owed = rig.shard.owes_a_place(*now);
        let (more, pages) = rig.turn_at(*now);
        now.mono_us += 100;
        let large = rig.shard.tails.list.iter().filter(|one| one.is_large()).count();
        assert!(large <= 1, "{large} are large");
        pages.into_iter().for_each(|(to, page)| entries[to.index as usize - 1].extend(told(&page)));
        let waits = rig.shard.tails.large_is_wanted;
        more || owed || waits
    };
    while turn(&mut rig, &mut now) {}
    let credit = Header { session: 7, count: u32::MAX, ..Header::new(Kind::Credit) };
    rig.frame(reader(0), credit, &[]);
    while turn(&mut rig, &mut now) {}
    assert_eq!(entries[0].len(), 2 * COUNT);
    assert!(entries[0].is_sorted_by_key(|one| one.0));
    assert!(entries.iter().all(|one| *one == entries[0]), "{:?}", entries.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn many_readers_share_a_turn_and_each_has_its_own() {
    let mut rig = Rig::new();
    let ids = rig.markets(1);
    (0..100).for_each(|index| rig.tail(index, TailAsk::all(FROM_NOW), u32::MAX));
    let rows: Vec<_> = (0..4000).map(|n| tick(ids[0], n + 1, 1.0)).collect();
    rig.ticks(&rows);
    let (mut seen, mut turns) = (vec![0; 100], 0);
    loop {
        let (more, pages) = rig.turn();
        turns += 1;
        let came: usize = pages.iter().map(|(_, page)| page.len()).sum();
        assert!(came <= UNITS_PER_TURN as usize, "{came} entries in one turn");
        for (to, page) in pages {
            seen[to.index as usize - 1] += page.len();
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(most - least <= 2 * UNITS_PER_TURN as usize, "they take turns: {least} to {most}");
        if !more {
            break;
        }
    }
    assert!(turns > 100 && seen.iter().all(|count| *count == 4000), "{turns} {seen:?}");
}

#[test]
fn who_reads_history_and_has_no_credit_gives_its_place_to_others_and_loses_nothing() {
    let mut rig = Rig::new();
    let ids = rig.markets(1);
    (0..40).for_each(|index| rig.tail(index, TailAsk::all(FROM_NOW), 10));
    // More than is kept at hand, before anybody takes anything: all go back to history, 16 at a time.
    let rows: Vec<_> = (0..18_000).map(|n| tick(ids[0], n + 1, 1.0)).collect();
    rig.ticks(&rows);
    let mut seen: Vec<Vec<u64>> = vec![Vec::new(); 40];
    let mut read_on = |rig: &mut Rig, who: std::ops::Range<u32>, credit: u32| -> Vec<usize> {
        for index in who {
            rig.frame(reader(index), Header { session: 7, count: credit, ..Header::new(Kind::Credit) }, &[]);
        }
        loop {
            let (more, pages) = rig.turn();
            for (to, page) in pages {
                seen[to.index as usize - 1].extend(told(&page).iter().map(|one| one.3));
            }
            if !more {
                return seen.iter().map(Vec::len).collect();
            }
        }
    };
    let came = read_on(&mut rig, 0..0, 0);
    assert_eq!((came.iter().filter(|came| **came == 10).count(), came.len()), (40, 40), "each in its turn");
    assert!(read_on(&mut rig, 0..16, 5)[..16].iter().all(|came| *came == 15));
    assert!(
        read_on(&mut rig, 16..40, u32::MAX)[16..].iter().all(|came| *came == 18_000),
        "nobody holds a place for nothing"
    );
    assert!(read_on(&mut rig, 0..16, u32::MAX).iter().all(|came| *came == 18_000));
    assert!(seen.iter().all(|ids| ids.is_sorted() && ids.first() == Some(&1) && ids.last() == Some(&18_000)));
}

#[test]
fn a_reader_that_falls_out_while_all_places_are_held_for_nothing_is_woken_without_anything_new() {
    let mut rig = Rig::new();
    let ids = rig.markets(1);
    // As many as go through history at once, each with credit for a part of it; and one that is behind nothing.
    (0..super::HISTORIES_MAX as u32).for_each(|index| rig.tail(index, TailAsk::all(0), 1));
    rig.tail(16, TailAsk::all(FROM_NOW), 20_000);
    rig.drain();
    let rows: Vec<_> = (0..18_000).map(|n| tick(ids[0], n + 1, 1.0)).collect();
    rig.ticks(&rows);
    let came = rig.drain();
    assert_eq!(came.len(), 18_000, "it falls out, and goes through history in the place of one that has no credit");
}

#[test]
fn facts_come_behind_the_rows_of_their_transaction_live_and_from_history_alike() {
    let mut rig = Rig::new();
    rig.tail(0, TailAsk::all(FROM_NOW), u32::MAX);
    rig.markets(1);
    let mut dense = Vec::new();
    markets_body(&mut dense, [MarketSpec { flags: MarketFlags(MarketFlags::DENSE), name: "dense" }]);
    let Said::Answer { body, .. } = rig.write(Kind::Markets, 1, &dense).said else { panic!("no id") };
    let id = EntityId::from_bits(u64::from_le_bytes(body[..8].try_into().unwrap()));
    // Two gaps of one frame.
    rig.ticks(&[tick(id, 1, 1.0), tick(id, 5, 1.0), tick(id, 9, 1.0)]);
    let said = |e, a: &'static str, v| Op::Assert { e, a: AttributeName::ident(a), v: Given::Value(v) };
    let attribute = || Entity::temp("a");
    rig.facts(vec![
        said(attribute(), "db/ident", Value::keyword("desk/limit")),
        said(attribute(), "db/value-type", Value::keyword("i64")),
    ]);
    rig.facts(vec![
        said(Entity::temp("d"), "db/ident", Value::keyword("desk/one")),
        said(Entity::temp("d"), "desk/limit", Value::I64(250)),
    ]);
    // More than a page of one transaction, and each longer than a credit pays for.
    let many: Vec<_> =
        (0..300).map(|n| said(Entity::temp(format!("t{n}")), "db/doc", Value::string("x".repeat(400)))).collect();
    rig.facts(many);
    rig.facts(vec![Op::Retract {
        e: Entity::Ident("desk/one".into()),
        a: AttributeName::ident("desk/limit"),
        v: None,
    }]);
    let live = rig.drain();
    assert!(live.is_sorted_by_key(|entry| entry.tx));
    let ident = |entry: &TailEntry| match &entry.what {
        Logged::Fact { ident, .. } => ident.clone(),
        other => format!("{other:?}").split([' ', '(']).next().unwrap().to_owned(),
    };
    let first: Vec<_> = live[..13].iter().map(ident).collect();
    let gap = ["feed/gap", "feed/gap-first", "feed/gap-last", "feed/gap-rows"];
    assert_eq!(first[..5], ["Market", "Market", "Tick", "Tick", "Tick"]);
    assert_eq!(first[5..], [gap, gap].concat());
    assert_eq!(live[5].tx, live[4].tx, "of the same transaction");
    assert_eq!(live[5..13].iter().map(|entry| entry.n).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(live.iter().filter(|entry| ident(entry) == "db/doc").count(), 300);
    let Logged::Fact { datom, .. } = &live.last().unwrap().what else { panic!("a fact") };
    assert!(!datom.added && datom.v == Value::I64(250), "what was retracted is told as well");
    // From any place on, in pieces of any size, paid for.
    rig.frame(reader(0), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
    for (index, from) in [0, 3, 8, 13, 20, 200, live.len() - 2].into_iter().enumerate() {
        let since = live[from].tx - 1;
        let due: Vec<_> = live.iter().filter(|entry| entry.tx > since).cloned().collect();
        rig.tail(index as u32 + 1, TailAsk::all(since), 3);
        let mut seen = Vec::new();
        while seen.len() < due.len() {
            let came = rig.drain();
            assert!(!came.is_empty(), "{} of {} came", seen.len(), due.len());
            let credits = came.iter().map(|entry| entry.credits).sum();
            assert!(credits <= 3 + 1, "one entry may cost more than is left");
            seen.extend(came);
            rig.frame(
                reader(index as u32 + 1),
                Header { session: 7, count: credits, ..Header::new(Kind::Credit) },
                &[],
            );
        }
        assert_eq!(seen, due, "behind {since}");
        rig.frame(reader(index as u32 + 1), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
        rig.said();
    }
    let filtered = |rig: &mut Rig, ask: TailAsk<'_>| {
        rig.tail(90, ask, u32::MAX);
        let came = rig.drain();
        rig.frame(reader(90), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
        came
    };
    let all = TailAsk { kinds: LogKind::Fact.bit(), ..TailAsk::all(0) };
    let limits = filtered(&mut rig, TailAsk { attributes: &["desk/limit", "feed/gap"], ..all });
    assert_eq!(limits.iter().map(ident).collect::<Vec<_>>(), ["feed/gap", "feed/gap", "desk/limit", "desk/limit"]);
    let of_market = filtered(&mut rig, TailAsk { named: myelin_wire::Named::Market("dense"), ..all });
    assert_eq!(of_market, live[5..13], "a market's gaps are its facts");
    assert_eq!(filtered(&mut rig, TailAsk { entity: id, ..all }), live[5..13]);
    let gap = match &live[5].what {
        Logged::Fact { datom, .. } => datom.e,
        other => panic!("{other:?}"),
    };
    assert_eq!(filtered(&mut rig, TailAsk { entity: gap, ..all }), live[5..9]);
    assert_eq!(filtered(&mut rig, TailAsk { named: myelin_wire::Named::Market("m0"), ..all }), []);
    assert!(MarketName::new("dense").is_ok_and(|name| name.slot() == id.slot()));
    assert!(rig.shard.group.applied_tx() > Tx::ZERO);
}

#[test]
fn an_end_answers_what_is_owed_and_frees_the_place() {
    let mut rig = Rig::new();
    rig.markets(2_500);
    for round in 0..3 * rig.shard.tails.max {
        rig.tail(0, if round % 2 == 0 { TailAsk::all(0) } else { TailAsk::all(FROM_NOW) }, 1);
        if round % 3 == 0 {
            rig.turn();
        }
        rig.frame(reader(0), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
        let last = rig.said().pop().unwrap().said;
        assert!(matches!(last, Said::Ended { code: None, .. }), "round {round}: {last:?}");
        assert_eq!(rig.shard.tails.count(), 0);
    }
    rig.tail(0, TailAsk::all(0), 1);
    rig.frame(reader(0), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
    let said: Vec<_> = rig.said().into_iter().map(|reply| reply.said).collect();
    assert!(
        matches!(said[..], [Said::Answer { .. }, Said::Ended { code: None, .. }]),
        "its request is answered: {said:?}"
    );
    rig.frame(reader(0), Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
    assert!(rig.said().is_empty(), "what is not there has no last frame");
}

/// Seen red: neither was told anything, for good.
#[test]
fn a_shard_that_stops_refuses_who_has_not_begun_and_ends_who_reads() {
    let mut rig = Rig::new();
    rig.markets(10_000);
    rig.tail(0, TailAsk::all(FROM_NOW), u32::MAX);
    rig.said();
    rig.tail(1, TailAsk::all(0), u32::MAX);
    rig.turn();
    assert!(rig.said().is_empty(), "it is not open yet");
    rig.shard.stop();
    let said = rig.said();
    let [begun, opening] = &said[..] else { panic!("{said:?}") };
    assert_eq!((begun.to, opening.to), (reader(0), reader(1)));
    assert!(matches!(begun.said, Said::Ended { code: Some(Code::Unavailable), .. }), "{begun:?}");
    assert!(matches!(&opening.said, Said::Refused(why) if why.code == Code::Unavailable), "{opening:?}");
    assert_eq!((rig.shard.tails.count(), rig.turn().0), (0, false));
}
