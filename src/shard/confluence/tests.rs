//! The merge against sorting: shards apply, close and answer in any order, and what comes out is what sorting gives.
//!
//! A script says who does what when. At every moment what came out must be the beginning of all rows, sorted; at its end, when
//! all have closed, it must be all of them; and a spread over it must fire as over the sorted rows.

use super::*;
use crate::reflex::{Firing, MarketIx, ReflexId, Reflexes, Scope, Spec, Spread};
use proptest::prelude::*;

/// Of two shards, the second of which has two.
const MARKETS: [(u16, &str); 3] = [(0, "left"), (1, "right"), (1, "other")];
const SHARDS: usize = 2;

fn slot_of(market: usize) -> Slot {
    MarketName::new(MARKETS[market].1).unwrap().slot()
}

fn id_of(market: usize) -> EntityId {
    EntityId::market(slot_of(market), market as u32)
}

/// A shard that has all of its rows from the start, and shows those that it has applied.
struct Fake {
    rows: [Vec<Found<Tick>>; 3],
    applied: Tx,
    parked: Option<Ask>,
    told: VecDeque<Tell>,
}

impl Fake {
    fn shown(&self, market: EntityId) -> &[Found<Tick>] {
        let rows = &self.rows[market.ordinal() as usize];
        &rows[..rows.partition_point(|row| row.tx <= self.applied)]
    }

    fn is_due(&self, ask: &Ask) -> bool {
        let due = |from: &From| match from {
            From::Behind { tx, .. } => *tx <= self.applied,
            From::Price { .. } => true,
            From::Row { market, row } => self.shown(*market).len() > *row as usize,
        };
        ask.until != Tx::ZERO && ask.until <= self.applied || ask.feeds.iter().any(|(_, from)| due(from))
    }

    /// Speaks of so many of the markets that it was asked about.
    fn answer(&mut self, markets: usize) {
        let Some(ask) = self.parked.take() else { return };
        if !self.is_due(&ask) {
            self.parked = Some(ask);
            return;
        }
        let mut tell = Tell { closed: self.applied, ..Tell::default() };
        for (feed, from) in ask.feeds.iter().take(markets) {
            let (market, row) = match from {
                From::Behind { tx, .. } if *tx > self.applied => continue,
                From::Behind { name, tx } => {
                    let market = id_of(MARKETS.iter().position(|one| *one.1 == **name).unwrap());
                    (market, self.shown(market).partition_point(|row| row.tx <= *tx).saturating_sub(1))
                }
                From::Price { .. } => unreachable!("it finds what it seeks at once"),
                From::Row { market, row } => (*market, *row as usize),
            };
            let shown = self.shown(market);
            let some = &shown[row..shown.len().min(row + ask.page)];
            let told = |found: &Found<Tick>| Told { feed: *feed, found: *found, received_ns: 0, durable_ns: 0 };
            tell.rows.extend(some.iter().map(told));
            let next_row = row + some.len();
            let whole = next_row == shown.len();
            tell.feeds.push(FeedTold {
                feed: *feed,
                market,
                next_row: next_row as u32,
                seek: None,
                whole,
                gone: Tx::ZERO,
            });
        }
        self.told.push_back(tell);
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A shard applies so many milliseconds more.
    Apply(usize, u64),
    /// A shard answers, if what it was asked is due, and speaks of so many markets.
    Answer(usize, usize),
    /// Its oldest answer arrives.
    Deliver(usize),
    /// So many rows are taken.
    Take(usize),
    /// What is due is asked.
    Ask,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let shard = 0..SHARDS;
    let op = prop_oneof![
        3 => (shard.clone(), 0..6_u64).prop_map(|(shard, more)| Op::Apply(shard, more)),
        3 => (shard.clone(), 1..3_usize).prop_map(|(shard, markets)| Op::Answer(shard, markets)),
        3 => shard.prop_map(Op::Deliver),
        2 => (0..40_usize).prop_map(Op::Take),
        3 => Just(Op::Ask),
    ];
    prop::collection::vec(op, 0..120)
}

/// Transactions of a shard: the milliseconds they are apart, and per row the market of the shard and its price.
type Stream = Vec<(u64, Vec<(bool, u8)>)>;

/// Of both shards, some of them stamped alike.
fn streams() -> impl Strategy<Value = Vec<Stream>> {
    let rows = prop::collection::vec((any::<bool>(), 0..6_u8), 1..12);
    prop::collection::vec(prop::collection::vec((1..3_u64, rows), 0..12), SHARDS)
}

fn rows_of(streams: &[Stream]) -> [Vec<Found<Tick>>; 3] {
    let mut rows: [Vec<Found<Tick>>; 3] = Default::default();
    for (shard, stream) in streams.iter().enumerate() {
        let mut at = 0;
        for (apart, of_tx) in stream {
            at += apart;
            for (n, (second, price)) in (0..).zip(of_tx) {
                let market = if shard == 0 { 0 } else { 1 + usize::from(*second) };
                let zero: Tick = bytemuck::Zeroable::zeroed();
                let row = Tick { market: id_of(market), price: f64::from(*price), ..zero };
                let number = rows[market].len() as u32;
                rows[market].push(Found { number, tx: Tx::at_millis(at), n, row });
            }
        }
    }
    rows
}

fn sorted(rows: &[Vec<Found<Tick>>; 3], begin: Tx) -> Vec<Found<Tick>> {
    let mut all: Vec<_> = rows.iter().flatten().filter(|row| row.tx > begin).copied().collect();
    all.sort_by_key(|row| (row.tx, row.n, row.row.market.slot()));
    all
}

fn firings(rows: &[Found<Tick>]) -> Vec<Firing> {
    let mut reflexes = Reflexes::default();
    (0..3).for_each(|at| _ = reflexes.add_market(MarketIx(at as u32), id_of(at), MARKETS[at].1));
    for (id, b) in [(1, "right"), (2, "other")] {
        let spread = Spec::Spread(Box::new(Spread { a: "left".into(), b: b.into(), least: 2.0, signed: false }));
        reflexes.register(ReflexId(id), spread, Scope::All, Tx::ZERO).unwrap();
    }
    rows.iter().for_each(|row| reflexes.react(row.tx, row.n, MarketIx(row.row.market.ordinal()), &row.row));
    let mut firings = Vec::new();
    while reflexes.pending() {
        reflexes.next_firings(64, &mut firings);
    }
    firings
}

/// Plays a script; says what is wrong with what came out.
fn check(streams: &[Stream], begin: u64, ops: &[Op], impatient: bool) -> Result<(), &'static str> {
    let (rows, begin) = (rows_of(streams), Tx::at_millis(begin));
    let due = sorted(&rows, begin);
    let mut fakes: Vec<_> = (0..SHARDS)
        .map(|_| Fake { rows: rows.clone(), applied: Tx::ZERO, parked: None, told: VecDeque::new() })
        .collect();
    let mut confluence = Confluence { impatient, ..Confluence::default() };
    let feeds = MARKETS.map(|(shard, name)| confluence.add(shard, name, begin));
    let mut primed: BTreeMap<FeedId, Found<Tick>> = BTreeMap::new();
    let mut given: Vec<Found<Tick>> = Vec::new();
    let end = Tx::at_millis(1_000);
    let rounds = 120;
    let last = (0..rounds).flat_map(|_| {
        let of_shard = |shard| [Op::Apply(shard, 1_000), Op::Answer(shard, 1), Op::Deliver(shard)];
        [Op::Ask].into_iter().chain((0..SHARDS).flat_map(of_shard)).chain([Op::Take(usize::MAX)])
    });
    for op in ops.iter().cloned().chain(last) {
        match op {
            Op::Apply(shard, more) => {
                let fake = &mut fakes[shard];
                fake.applied = Tx::at_millis(fake.applied.millis() + more).min(end);
            }
            Op::Answer(shard, markets) => fakes[shard].answer(markets),
            Op::Deliver(shard) => {
                if let Some(tell) = fakes[shard].told.pop_front() {
                    let gone = confluence.told(shard as u16, &tell, |told| _ = primed.insert(told.feed, told.found));
                    assert_eq!(gone, None);
                }
            }
            Op::Take(most) => {
                while given.len() < due.len().min(most.saturating_add(given.len())) {
                    let Some(told) = confluence.take() else { break };
                    given.push(told.found);
                }
            }
            Op::Ask => {
                for (shard, ask) in confluence.asks(Tx::ZERO) {
                    fakes[usize::from(shard)].parked = Some(ask);
                }
            }
        }
        let merged = confluence.merged().unwrap();
        if given[..] != due[..given.len()] {
            return Err("rows came out of order");
        }
        if due[given.len()..].first().is_some_and(|row| row.tx <= merged) {
            return Err("it says that it is further than it is");
        }
        assert!(confluence.waiting() <= MARKETS.len() * PAGE_ROWS.1 * 2, "what waits is bounded");
    }
    if given != due {
        return Err("rows are missing although all shards have closed");
    }
    for (market, feed) in feeds.into_iter().enumerate() {
        let before = rows[market].iter().rfind(|row| row.tx <= begin);
        if primed.get(&feed) != before {
            return Err("the price at the beginning is another");
        }
    }
    if firings(&given) == firings(&due) { Ok(()) } else { Err("a spread fired otherwise") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn rows_of_several_shards_come_sorted_whoever_applies_closes_and_answers_when(
        streams in streams(), begin in 0..6_u64, ops in ops(),
    ) {
        prop_assert_eq!(check(&streams, begin, &ops, false), Ok(()));
    }
}

/// The check sees the bug it is for: a merge that does not wait for the smallest closed transaction.
#[test]
fn a_merge_that_does_not_wait_for_who_has_not_closed_is_seen() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let result = runner.run(&(streams(), 0..6_u64, ops()), |(streams, begin, ops)| {
        prop_assert_eq!(check(&streams, begin, &ops, true), Ok(()));
        Ok(())
    });
    assert!(result.is_err(), "the planted bug is not seen");
}

/// A shard that has rows of its first market all the time, and a turn for one market only.
#[test]
fn answers_that_speak_of_one_market_come_to_every_market() {
    let rows: Vec<(bool, u8)> = (0..600).map(|n| (n % 300 == 299, (n % 5) as u8)).collect();
    let streams = vec![vec![(40, vec![(false, 1)])], (0..40).map(|_| (1, rows.clone())).collect()];
    assert_eq!(check(&streams, 0, &[], false), Ok(()));
}

#[test]
fn a_page_that_ends_within_a_transaction_does_not_stop_the_merge() {
    // Far more rows of one transaction than a page holds, on both sides.
    let rows: Vec<(bool, u8)> = (0..2_000).map(|n| (false, (n % 5) as u8)).collect();
    let streams = vec![vec![(1, rows.clone()), (1, rows.clone())], vec![(1, rows.clone()), (2, rows)]];
    assert_eq!(check(&streams, 0, &[], false), Ok(()));
}

#[test]
fn rows_that_two_shards_stamp_alike_come_together_where_a_page_ends_between_them_too() {
    let mut confluence = Confluence::default();
    let [left, right] = [(0, "left"), (1, "right")].map(|(shard, name)| confluence.add(shard, name, Tx::ZERO));
    assert_eq!(confluence.asks(Tx::ZERO).len(), 2);
    let tx = Tx::at_millis(9);
    let tell = |feed, market, whole| {
        let row = Tick { market: id_of(market), price: 1.0, ..bytemuck::Zeroable::zeroed() };
        let found = Found { number: 0, tx, n: 0, row };
        let said = FeedTold { feed, market: row.market, next_row: 1, seek: None, whole, gone: Tx::ZERO };
        Tell { closed: tx, feeds: vec![said], rows: vec![Told { feed, found, received_ns: 0, durable_ns: 0 }] }
    };
    // More of this transaction follows on either side.
    confluence.told(0, &tell(left, 0, false), |_| {});
    confluence.told(1, &tell(right, 1, false), |_| {});
    let places: Vec<_> = std::iter::from_fn(|| confluence.take()).map(|told| (told.found.tx, told.found.n)).collect();
    assert_eq!(places, [(tx, 0), (tx, 0)]);
    assert_eq!(confluence.merged(), Some(Tx::from_bits(tx.bits() - 1)), "not all of the transaction");
}

#[test]
fn a_question_that_waits_for_rows_alone_gives_way_to_one_that_waits_for_a_moment() {
    let mut confluence = Confluence::default();
    let (left, right) = (confluence.add(0, "left", Tx::ZERO), confluence.add(1, "right", Tx::ZERO));
    let asked = confluence.asks(Tx::ZERO);
    assert_eq!(asked.len(), 2);
    let tell = |feed, market, closed, rows: Vec<Told>| Tell {
        closed: Tx::at_millis(closed),
        feeds: vec![FeedTold {
            feed,
            market: id_of(market),
            next_row: rows.len() as u32,
            seek: None,
            whole: true,
            gone: Tx::ZERO,
        }],
        rows,
    };
    confluence.told(1, &tell(right, 1, 5, vec![]), |_| {});
    let waits_for_rows = confluence.asks(Tx::ZERO);
    assert!(matches!(&waits_for_rows[..], [(1, Ask { until: Tx::ZERO, .. })]), "nothing waits: {waits_for_rows:?}");
    let zero: Tick = bytemuck::Zeroable::zeroed();
    let row = Tick { market: id_of(0), price: 1.0, ..zero };
    let found = Found { number: 0, tx: Tx::at_millis(9), n: 0, row };
    confluence.told(0, &tell(left, 0, 9, vec![Told { feed: left, found, received_ns: 0, durable_ns: 0 }]), |_| {});
    assert!(confluence.take().is_none(), "the other shard has closed 5, this is 9");
    let waits: Vec<_> = confluence.asks(Tx::ZERO).into_iter().map(|(shard, ask)| (shard, ask.until)).collect();
    assert_eq!(waits, [(0, Tx::ZERO), (1, Tx::at_millis(9))]);
    assert!(confluence.asks(Tx::ZERO).is_empty(), "one that waits for a moment is answered");
    confluence.told(1, &tell(right, 1, 9, vec![]), |_| {});
    assert_eq!(confluence.take().map(|told| told.found.tx), Some(Tx::at_millis(9)));
}
