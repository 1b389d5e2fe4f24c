//! Two shards in one thread: what one asks of the other, and what comes of it when the other is late.

use super::{LIVE, Letter};
use crate::config::Limits;
use crate::reflex::{Scope, Spec};
use crate::shard::campaign::{Log, NOW, tick, written};
use crate::shard::replay::Place;
use crate::shard::reply::{Reply, Said};
use crate::shard::turn::{SEALED_PAGE, UNITS_PER_TURN};
use crate::shard::{ConnId, Now, Shard};
use myelin_datom::{EntityId, MarketName, SLOTS, Tick, Tx, flags};
use myelin_wire::{Code, FiringRow, Header, Kind, MarketFlags, MarketSpec, SlotRange, decode, markets_body};
use std::collections::VecDeque;

const WRITER: ConnId = ConnId { station: 0, generation: 1, index: 0 };
const LIVE_LISTENER: ConnId = ConnId { index: 1, ..WRITER };
pub(in crate::shard) const LISTENER: ConnId = ConnId { index: 2, ..WRITER };
const SPREAD: u64 = 77;
const OWN: u64 = 5;

/// Names of markets on a shard.
pub(in crate::shard) fn names(shard: u16) -> impl Iterator<Item = String> {
    let names = (0..).map(|n| format!("m{n}"));
    names.filter(move |name| MarketName::new(name).unwrap().slot().number() / (SLOTS / 2) == shard)
}

/// Both shards, their logs, and the letters between them.
pub(in crate::shard) struct Rig {
    pub(in crate::shard) shards: [Shard; 2],
    logs: [Log; 2],
    now: Now,
    requests: [u64; 2],
    id: u64,
    letters: VecDeque<Letter>,
    /// Letters of and to the second shard are under way.
    late: bool,
    pub(in crate::shard) said: Vec<Reply>,
}

impl Rig {
    pub(in crate::shard) fn new(firings_at_hand: usize) -> Self {
        let mut logs = [Log::new(), Log::new()];
        let half = SLOTS / 2;
        let shards = [0, 1].map(|number| {
            let mut shard = Shard::new(number, 1, &Limits { firings_at_hand, ..Limits::lean() });
            shard.own(number * half..(number + 1) * half);
            shard.place(vec![SlotRange { first: 0, shard: 0 }, SlotRange { first: half, shard: 1 }]);
            shard.take_the_lead(NOW, &mut logs[usize::from(number)].log).unwrap();
            shard
        });
        let (letters, said) = (VecDeque::new(), Vec::new());
        let mut rig = Self { shards, logs, now: NOW, requests: [0; 2], id: 0, letters, late: false, said };
        rig.settle();
        rig
    }

    pub(in crate::shard) fn frame(&mut self, shard: usize, from: ConnId, header: Header, body: &[u8]) {
        let bytes = written(header, body);
        let (frame, _) = decode(&bytes, 1 << 20).unwrap().unwrap();
        self.shards[shard].frame(self.now, from, &frame, &mut self.logs[shard].log).unwrap();
        self.logs[shard].apply(&mut self.shards[shard]);
        self.said.extend(std::iter::from_fn(|| self.shards[shard].poll_effect()));
    }

    /// What is written is acknowledged at once.
    fn write(&mut self, shard: usize, kind: Kind, count: usize, body: &[u8]) -> Reply {
        self.requests[shard] += 1;
        let header = Header { session: 1, request: self.requests[shard], count: count as u32, ..Header::new(kind) };
        self.frame(shard, WRITER, header, body);
        let at = self.said.iter().rposition(|reply| reply.to == WRITER).expect("it is answered");
        let reply = self.said.remove(at);
        assert!(!matches!(reply.said, Said::Refused(_)), "{reply:?}");
        reply
    }

    fn market(&mut self, shard: usize, name: &str) -> EntityId {
        let mut body = Vec::new();
        markets_body(&mut body, [MarketSpec { flags: MarketFlags(0), name }]);
        let Said::Answer { body, .. } = self.write(shard, Kind::Markets, 1, &body).said else { panic!("no id") };
        EntityId::from_bits(u64::from_le_bytes(body[..8].try_into().unwrap()))
    }

    pub(in crate::shard) fn markets(&mut self, shard: usize, names: &[String]) -> Vec<EntityId> {
        let mut body = Vec::new();
        markets_body(&mut body, names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }));
        let Said::Answer { body, .. } = self.write(shard, Kind::Markets, names.len(), &body).said else {
            panic!("no ids")
        };
        body.chunks_exact(8).map(|id| EntityId::from_bits(u64::from_le_bytes(id.try_into().unwrap()))).collect()
    }

    /// Every tick of a market is dropped by policy.
    fn drop_all(&mut self, shard: usize, market: EntityId) {
        let shard = &mut self.shards[shard];
        let end = shard.ticks.view(shard.ticks.market_ix(market).unwrap(), Tx::MAX).unwrap().end_row();
        let (applied, mut body) = (shard.group().applied_tx(), vec![0; 8]);
        body.extend([market.bits(), 0, applied.bits()].map(u64::to_le_bytes).concat());
        body.extend([&end.to_le_bytes()[..], &[myelin_datom::Kind::Tick as u8, 0, 0, 0]].concat());
        shard.apply_horizon(applied.next(), &body).unwrap();
        let kept = shard.ticks.kept(shard.ticks.market_ix(market).unwrap());
        assert_eq!((kept.rows, kept.dropped), (0, end));
    }

    /// What crosses is the leader's, in memory: a start has nothing of it.
    fn start_again(&mut self) {
        let limits = Limits { firings_at_hand: 100, ..Limits::lean() };
        self.letters.clear();
        for (shard, log) in self.shards.iter_mut().zip(&mut self.logs) {
            let placed = std::mem::take(&mut shard.crossing.placed);
            shard.crossing = super::Crossing::new(crate::shard::react::limits(&limits));
            shard.crossing.place(placed);
            shard.subscribers = crate::shard::Subscribers::new(&limits);
            shard.take_the_lead(self.now, &mut log.log).unwrap();
            log.apply(shard);
        }
    }

    /// Two shards count their transactions on from the clock, each by itself.
    fn a_second_later(&mut self) {
        self.now.unix_ns += 1_000_000_000;
    }

    /// The clock that never goes back goes on.
    pub(in crate::shard) fn later(&mut self, us: u64) {
        self.now.mono_us += us;
    }

    /// Corrections of a market's last row.
    fn correct(&mut self, shard: usize, market: EntityId, count: usize) {
        let row = |n: usize| Tick { flags: flags::CORRECTION, ..tick(market, self.id, 100.0 + n as f64) };
        let rows: Vec<Tick> = (0..count).map(row).collect();
        for rows in rows.chunks(1000) {
            self.write(shard, Kind::Ticks, rows.len(), bytemuck::cast_slice(rows));
        }
    }

    pub(in crate::shard) fn register(&mut self, id: u64, spec: &str, scope: &str) {
        let mut body = id.to_le_bytes().to_vec();
        spec.parse::<Spec>().unwrap().encode(&mut body);
        scope.parse::<Scope>().unwrap().encode(&mut body);
        self.write(0, Kind::Register, 1, &body);
    }

    /// Ticks of these markets in one transaction.
    pub(in crate::shard) fn ticks(&mut self, shard: usize, rows: &[(EntityId, f64)]) {
        let row = |(market, price): &(EntityId, f64)| {
            self.id += 1;
            tick(*market, self.id, *price)
        };
        let rows: Vec<Tick> = rows.iter().map(row).collect();
        self.write(shard, Kind::Ticks, rows.len(), bytemuck::cast_slice(&rows));
    }

    /// Listens to the first shard.
    pub(in crate::shard) fn subscribe(&mut self, from: ConnId, reflex: u64, after: Place, back_test: bool) {
        self.subscribe_with(100_000, from, reflex, after, back_test);
    }

    /// The same with so much credit.
    pub(in crate::shard) fn subscribe_with(
        &mut self,
        credit: u32,
        from: ConnId,
        reflex: u64,
        after: Place,
        back_test: bool,
    ) {
        let mut body = [0; 32];
        body[..8].copy_from_slice(&reflex.to_le_bytes());
        body[8..16].copy_from_slice(&after.0.to_le_bytes());
        body[16..20].copy_from_slice(&after.1.to_le_bytes());
        body[24..].copy_from_slice(&after.2.to_le_bytes());
        let flags = if back_test { Header::REPLAYED } else { 0 };
        let header = Header { session: 7, request: 1, count: credit, flags, ..Header::new(Kind::Subscribe) };
        self.frame(0, from, header, &body);
    }

    /// The first shard has one turn. True when there is more.
    pub(in crate::shard) fn turn(&mut self) -> bool {
        let more = self.shards[0].push_firings(self.now).unwrap();
        self.said.extend(std::iter::from_fn(|| self.shards[0].poll_effect()));
        more
    }

    /// True when the first shard owes somebody a place in history: its next turn gives it.
    pub(in crate::shard) fn owes_a_place(&self) -> bool {
        self.shards[0].owes_a_place(self.now)
    }

    /// Both shards have their turns, until nothing is left to do.
    pub(in crate::shard) fn settle(&mut self) {
        for _ in 0..1000 {
            let mut more = false;
            for (shard, log) in self.shards.iter_mut().zip(&mut self.logs) {
                let before = shard.group().applied();
                more |= shard.push_firings(self.now).unwrap();
                shard.close_if_due(self.now, &mut log.log);
                log.apply(shard);
                more |= shard.group().applied() != before;
                self.letters.extend(std::iter::from_fn(|| shard.poll_letter()));
                self.said.extend(std::iter::from_fn(|| shard.poll_effect()));
            }
            for letter in std::mem::take(&mut self.letters) {
                if self.late && letter.from.max(letter.to) == 1 {
                    self.letters.push_back(letter);
                    continue;
                }
                more = true;
                self.shards[usize::from(letter.to)].letter(self.now, letter);
            }
            self.now.mono_us += 10_000;
            if !more {
                return;
            }
        }
        panic!("there is always more to do");
    }

    /// What a listener was given so far.
    pub(in crate::shard) fn heard(&self, who: ConnId) -> Vec<Place> {
        let place = |row: &FiringRow| (row.tx, row.n, row.reflex);
        let rows = self.said.iter().filter(|reply| reply.to == who).filter_map(|reply| match &reply.said {
            Said::Firings { rows, .. } => Some(rows.iter().map(place)),
            _ => None,
        });
        rows.flatten().collect()
    }

    /// The merges over history that some shard has a question of.
    fn parked(&self) -> usize {
        let parked = self.shards.iter().flat_map(|shard| &shard.crossing.parked);
        parked.filter(|one| one.key != LIVE).count()
    }
}

/// A spread of a market here and one there, and another market here with a reflex of its own; each frame has a firing of both
/// reflexes in one transaction. Gives the place before them all.
fn both_fire(rig: &mut Rig, frames: usize) -> Place {
    let here: Vec<_> = names(0).take(2).collect();
    let there = names(1).next().unwrap();
    let [c, a] = [0, 1].map(|at| rig.market(0, &here[at]));
    let b = rig.market(1, &there);
    rig.register(SPREAD, &format!("spread {} {there} 3", here[1]), "all");
    rig.register(OWN, "above 4", &format!("market:{}", here[0]));
    rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
    rig.ticks(1, &[(b, 1.0)]);
    let begin = (rig.shards[0].group().applied_tx().bits(), u32::MAX, u64::MAX);
    for _ in 0..frames {
        rig.ticks(0, &[(c, 9.0), (a, 9.0)]);
        rig.ticks(0, &[(c, 1.0), (a, 1.0)]);
        rig.settle();
    }
    assert_eq!(rig.heard(LIVE_LISTENER).len(), 2 * frames, "live");
    begin
}

#[test]
fn history_of_all_goes_on_where_a_row_here_and_one_across_are_of_one_transaction_and_leaves_no_question_behind() {
    // Fewer at hand than fire.
    let mut rig = Rig::new(4);
    let begin = both_fire(&mut rig, 10);
    rig.subscribe(LISTENER, 0, begin, false);
    rig.settle();
    assert_eq!(rig.heard(LISTENER), rig.heard(LIVE_LISTENER));
    assert_eq!(rig.parked(), 0, "it is through: nothing is wanted any more");
    assert!(rig.shards[0].crossing.asked.is_empty());
}

#[test]
fn a_registration_while_the_other_shard_is_late_takes_nothing_from_history() {
    let mut rig = Rig::new(4);
    let begin = both_fire(&mut rig, 10);
    rig.late = true;
    rig.subscribe(LISTENER, 0, begin, false);
    rig.settle();
    rig.register(9, "above 1000", "all");
    rig.settle();
    rig.late = false;
    rig.settle();
    assert_eq!(rig.heard(LISTENER), rig.heard(LIVE_LISTENER));
    assert_eq!(rig.parked(), 0);
}

#[test]
fn a_listener_that_leaves_in_the_middle_of_history_leaves_no_question_behind() {
    let mut rig = Rig::new(4);
    let begin = both_fire(&mut rig, 10);
    rig.late = true;
    rig.subscribe(LISTENER, SPREAD, begin, false);
    rig.settle();
    rig.shards[0].closed(LISTENER);
    rig.late = false;
    rig.settle();
    assert_eq!(rig.parked(), 0);
    assert!(rig.shards[0].crossing.asked.is_empty());
}

#[test]
fn a_question_to_what_is_to_come_is_refused_or_waits_and_no_shard_closes_it() {
    let mut rig = Rig::new(100);
    both_fire(&mut rig, 1);
    let ahead = |rig: &Rig, millis: u64| rig.shards[0].group().applied_tx().bits() + (millis << 16);
    for (tx, back_test) in [(u64::MAX, true), (u64::MAX, false), (ahead(&rig, 10_000), true)] {
        rig.subscribe(LISTENER, SPREAD, (tx, u32::MAX, u64::MAX), back_test);
        let last = rig.said.pop().unwrap().said;
        assert!(matches!(last, Said::Refused(why) if why.code == Code::Future), "{tx}: {last:?}");
    }
    // A clock that is a little ahead of ours.
    let soon = ahead(&rig, 100);
    rig.subscribe(LISTENER, SPREAD, (soon, u32::MAX, u64::MAX), true);
    rig.settle();
    let answered = |reply: &Reply| reply.to == LISTENER && matches!(reply.said, Said::Answer { .. });
    assert!(rig.said.iter().any(answered));
    for shard in &rig.shards {
        assert!(shard.group().appended_tx() < Tx::from_bits(soon - 1), "{} is closed", shard.group().appended_tx());
    }
}

#[test]
fn what_two_shards_stamp_alike_fires_in_the_order_of_the_reflexes_at_the_edge_of_a_slice_too() {
    let mut rig = Rig::new(100);
    let here: Vec<_> = names(0).take(6).collect();
    let there: Vec<_> = names(1).take(7).collect();
    let ids_here: Vec<_> = here.iter().map(|name| rig.market(0, name)).collect();
    let ids_there: Vec<_> = there.iter().map(|name| rig.market(1, name)).collect();
    // The one that a row here decides has the greater id.
    rig.register(9, &format!("spread {} {} 3", here[0], there[0]), "all");
    rig.register(3, &format!("spread {} {} 3", here[1], there[1]), "all");
    for (n, there) in there.iter().enumerate().skip(2) {
        rig.register(100 + n as u64, &format!("spread {} {there} 3", here[n.min(5)]), "all");
    }
    rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
    let ones = |ids: &[EntityId]| ids.iter().map(|id| (*id, 1.0)).collect::<Vec<_>>();
    rig.ticks(0, &ones(&ids_here));
    rig.ticks(1, &ones(&ids_there));
    rig.settle();
    // A slice but one row that fires nothing, and then the last row of the slice and the first of the next one.
    for n in 2..6 {
        rig.ticks(0, &[(ids_here[n], 1.0); 250]);
        rig.ticks(1, &[(ids_there[n], 1.0); 250]);
    }
    rig.ticks(1, &[(ids_there[6], 1.0); super::ROWS_PER_SLICE - 2001]);
    rig.a_second_later();
    rig.ticks(0, &[(ids_here[0], 9.0)]);
    rig.ticks(1, &[(ids_there[1], 9.0)]);
    let tx = rig.shards[0].group().applied_tx();
    assert_eq!(tx, rig.shards[1].group().applied_tx(), "stamped alike");
    rig.settle();
    assert_eq!(rig.heard(LIVE_LISTENER), [(tx.bits(), 0, 3), (tx.bits(), 0, 9)]);
}

/// Three thousand markets there are compared with a dozen here; each has one row before and one after its spread stands.
#[test]
fn a_question_about_thousands_of_markets_is_answered_a_turn_at_a_time_and_each_spread_fires_once() {
    const MARKETS: usize = 3000;
    let mut rig = Rig::new(10_000);
    let here: Vec<_> = names(0).take(12).collect();
    let there: Vec<_> = names(1).take(MARKETS).collect();
    let ids_here = rig.markets(0, &here);
    let ids_there = rig.markets(1, &there);
    let rows = |ids: &[EntityId], price: f64| ids.iter().map(|id| (*id, price)).collect::<Vec<_>>();
    rig.ticks(0, &rows(&ids_here, 1.0));
    rig.ticks(1, &rows(&ids_there, 1.0));
    for (n, there) in there.iter().enumerate() {
        rig.register(n as u64 + 1, &format!("spread {} {there} 3", here[n % 12]), "all");
    }
    rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
    rig.settle();
    rig.a_second_later();
    rig.ticks(1, &rows(&ids_there, 9.0));
    rig.settle();
    rig.ticks(1, &rows(&ids_there, 8.0));
    rig.settle();
    let mut fired: Vec<_> = rig.heard(LIVE_LISTENER).iter().map(|place| place.2).collect();
    fired.sort_unstable();
    assert_eq!(fired.len(), MARKETS, "once each: it held before, at 8");
    assert!(fired.iter().copied().eq(1..=MARKETS as u64));
    let most = rig.shards[1].crossing.turn_units_max();
    assert!(most > UNITS_PER_TURN / 2, "it was much to do: {most}");
    assert!(most <= UNITS_PER_TURN + SEALED_PAGE, "{most} units in a turn");
}

/// The price a spread begins with lies before thousands of corrections.
#[test]
fn the_way_back_over_corrections_takes_as_many_turns_as_it_needs_and_finds_the_price() {
    let mut rig = Rig::new(100);
    let (here, there) = (names(0).next().unwrap(), names(1).next().unwrap());
    let (a, b) = (rig.market(0, &here), rig.market(1, &there));
    rig.ticks(0, &[(a, 1.0)]);
    // It holds before the spread is registered, so the next row finds that it held already.
    rig.ticks(1, &[(b, 9.0)]);
    rig.correct(1, b, 20_000);
    rig.a_second_later();
    rig.register(SPREAD, &format!("spread {here} {there} 3"), "all");
    rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
    rig.settle();
    let primed = rig.shards[0].crossing.markets[&b];
    assert_eq!(rig.shards[0].crossing.reflexes.latest(primed).map(|(_, price)| price), Some(9.0));
    rig.ticks(0, &[(a, 2.0)]);
    rig.settle();
    assert_eq!(rig.heard(LIVE_LISTENER).len(), 1);
    let most = rig.shards[1].crossing.turn_units_max();
    assert!(most > UNITS_PER_TURN / 2, "it was much to do: {most}");
    assert!(most <= UNITS_PER_TURN + SEALED_PAGE, "{most} units in a turn");
}

/// A policy drops the row of the last price; the spread held there, and a start does not forget that it did.
#[test]
fn a_spread_that_held_at_a_price_whose_row_was_dropped_fires_no_second_time_after_a_start() {
    let mut rig = Rig::new(100);
    let (here, there) = (names(0).next().unwrap(), names(1).next().unwrap());
    let (a, b) = (rig.market(0, &here), rig.market(1, &there));
    rig.register(SPREAD, &format!("spread {here} {there} 3"), "all");
    rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
    rig.ticks(0, &[(a, 1.0)]);
    rig.a_second_later();
    rig.ticks(1, &[(b, 9.0)]);
    rig.correct(1, b, 3);
    rig.settle();
    assert_eq!(rig.heard(LIVE_LISTENER).len(), 1);
    for dropped in [vec![(1, b)], vec![(0, a), (1, b)], vec![]] {
        rig.a_second_later();
        dropped.into_iter().for_each(|(shard, market)| rig.drop_all(shard, market));
        rig.a_second_later();
        rig.start_again();
        rig.subscribe(LIVE_LISTENER, 0, (0, 0, 0), false);
        rig.settle();
        // It holds on; then it does not; then it does again.
        for (price, firings) in [(8.5, 0), (2.0, 0), (9.0, 1)] {
            rig.said.clear();
            rig.ticks(1, &[(b, price)]);
            rig.settle();
            assert_eq!(rig.heard(LIVE_LISTENER).len(), firings, "at {price}");
        }
    }
}
