//! Places of reads: how many there are, who has one, and when it is given back; and what is read where.

use super::*;
use crate::config::Limits;
use crate::shard::reply::{Reply, Said};
use myelin_datom::{MarketName, Tick, Tx, received_delta};
use myelin_index::{MarketOptions, Run};
use myelin_wire::{MarketFlags, StoredRow};
use std::ops::Range;

const FROZEN_ROWS: u64 = 100;
const NEWEST_ROWS: u64 = 3 * ROWS_PER_TURN;

fn conn(index: u32) -> ConnId {
    ConnId { station: 0, generation: 1, index }
}

/// A shard with one market: some rows frozen, and more in the newest part than one turn looks at.
fn shard() -> Shard {
    let mut shard = empty();
    fill(&mut shard, 1..FROZEN_ROWS + 1);
    shard.ticks.freeze().unwrap();
    fill(&mut shard, FROZEN_ROWS + 1..FROZEN_ROWS + NEWEST_ROWS + 1);
    shard
}

fn empty() -> Shard {
    let mut shard = Shard::new(0, 1, &Limits::lean());
    let market = shard.markets.create(Tx::from_bits(1), MarketName::new("a").unwrap(), MarketFlags(0)).unwrap().id;
    shard.ticks.add_market(market, MarketOptions::default());
    shard.quotes.add_market(market, MarketOptions::default());
    shard
}

/// A row of each of these ids, each by the transaction after its id.
fn fill(shard: &mut Shard, ids: Range<u64>) {
    let market = shard.markets.get(0).unwrap().id;
    ids.for_each(|id| fill_one(shard, market, id, 2.0));
}

fn fill_one(shard: &mut Shard, market: EntityId, id: u64, price: f64) {
    let tick = Tick {
        market,
        id,
        event_time_ns: id as i64,
        price,
        volume: 1.0,
        received_delta_us: received_delta::UNKNOWN,
        ..bytemuck::Zeroable::zeroed()
    };
    let mut verdicts = Vec::new();
    shard.ticks.check(&[tick], &mut verdicts).unwrap();
    shard.ticks.insert(Tx::from_bits(id + 1), &[tick], &verdicts);
}

const SEALED_ROWS: u64 = 300;

/// A shard with one market: rows in a sealed run, and some in the newest part.
fn sealed_shard(dir: &std::path::Path) -> Shard {
    let mut shard = empty();
    fill(&mut shard, 1..SEALED_ROWS + 1);
    let frozen = shard.ticks.freeze().unwrap();
    let path = dir.join("a.run");
    frozen.write_run(&path, &mut ()).unwrap();
    shard.ticks.install(frozen, Arc::new(Run::open(&path).unwrap()));
    fill(&mut shard, SEALED_ROWS + 1..2 * SEALED_ROWS + 1);
    shard
}

/// What is answered, and how many trips it took.
fn read(shard: &mut Shard, kind: Kind, words: &[u64], basis: u64) -> (Said, usize) {
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let read =
        Read::of(conn(1), Header { session: 1, request: 1, ..Header::new(kind) }, kind, body, Tx::from_bits(basis));
    shard.go_on_from(0);
    assert!(shard.begin_reading(&read).is_ok());
    let mut trips = 0;
    let mut reader = Reader::default();
    loop {
        turns(shard);
        let Some(trip) = shard.poll_trip() else { break };
        trips += 1;
        shard.is_back(reader.travel(trip)).unwrap();
    }
    let [reply] = self::said(shard).try_into().unwrap();
    (reply.said, trips)
}

/// Bars of a nanosecond: as many as there are rows.
const BARS: [u64; 3] = [1, i64::MIN as u64, i64::MAX as u64];

fn answer(said: Said) -> (u32, u64, bool, Vec<u8>) {
    let Said::Answer { count, aux, more, body } = said else { panic!("{said:?}") };
    (count, aux, more, body)
}

fn ask(shard: &mut Shard, from: ConnId, request: u64) -> Result<(), Code> {
    let header = Header { session: 1, request, ..Header::new(Kind::Vwap) };
    let read = Read::of(from, header, Kind::Vwap, vec![0; 8], Tx::from_bits(1 << 40));
    shard.begin_reading(&read).map_err(|refused| match refused {
        Unanswered::Refused(refusal) => refusal.code,
        Unanswered::Failed(error) => panic!("{error}"),
    })
}

fn said(shard: &mut Shard) -> Vec<Reply> {
    std::iter::from_fn(|| shard.poll_effect()).collect()
}

/// Turns until nobody can go on here.
fn turns(shard: &mut Shard) -> usize {
    (0..).take_while(|_| shard.has_readings() && turn(shard).is_ok()).count()
}

fn turn(shard: &mut Shard) -> Result<(), ShardError> {
    shard.go_on_from(0);
    shard.read_on(&|_| true)
}

/// A shard with so many markets and no rows: a count of all of them is [`MARKET_ROWS`] for each.
fn wide(markets: u64) -> Shard {
    let mut shard = Shard::new(0, 1, &Limits::lean());
    for number in 0..markets {
        let name = format!("wide:{number}");
        let name = MarketName::new(&name).unwrap();
        let market = shard.markets.create(Tx::from_bits(1), name, MarketFlags(0)).unwrap().id;
        shard.ticks.add_market(market, MarketOptions::default());
        shard.quotes.add_market(market, MarketOptions::default());
    }
    shard
}

fn frame(kind: Kind, request: u64, words: &[u64]) -> Read {
    let body = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let header = Header { session: 1, request, ..Header::new(kind) };
    Read::of(conn(1), header, kind, body, Tx::from_bits(1 << 40))
}

fn requests(said: &[Reply]) -> Vec<u64> {
    said.iter().map(|reply| reply.request).collect()
}

#[test]
fn a_read_takes_as_many_turns_as_its_rows_in_memory_need_and_no_turn_is_longer() {
    let mut shard = shard();
    ask(&mut shard, conn(1), 7).unwrap();
    assert_eq!(turns(&mut shard), 1, "the frozen rows are not the core's");
    let trip = shard.poll_trip().unwrap();
    shard.is_back(Reader::default().travel(trip)).unwrap();
    let turns = turns(&mut shard) as u64;
    assert!((NEWEST_ROWS / ROWS_PER_TURN..=NEWEST_ROWS / ROWS_PER_TURN + 1).contains(&turns), "{turns}");
    assert_eq!(shard.readings.turn_rows_max(), ROWS_PER_TURN);
    let [reply] = said(&mut shard).try_into().unwrap();
    let Said::Answer { count: 1, body, .. } = reply.said else { panic!("one average") };
    let row: myelin_wire::VwapRow = bytemuck::pod_read_unaligned(&body);
    assert_eq!((row.count, row.vwap), (FROZEN_ROWS + NEWEST_ROWS, 2.0));
}

#[test]
fn one_connection_does_not_have_all_places_of_long_reads_and_who_has_none_goes_first() {
    let mut shard = shard();
    for request in 0..(LONG_MAX + LONG_WAITING_EACH_MAX) as u64 {
        ask(&mut shard, conn(1), request).unwrap();
    }
    assert_eq!(ask(&mut shard, conn(1), 1000), Err(Code::Busy), "it has as many as one may have");
    ask(&mut shard, conn(2), 1).unwrap();
    turns(&mut shard);
    let mut reader = Reader::default();
    let trip = shard.poll_trip().unwrap();
    shard.is_back(reader.travel(trip)).unwrap();
    turns(&mut shard);
    assert_eq!(said(&mut shard).len(), 1, "a place is free");
    let next = std::iter::from_fn(|| shard.poll_trip()).last().unwrap();
    shard.is_back(reader.travel(next)).unwrap();
    turns(&mut shard);
    assert_eq!(said(&mut shard)[0].to, conn(2), "before the many that came before it");
}

#[test]
fn who_finds_no_place_is_told_busy_and_who_leaves_gives_its_places_back() {
    let mut shard = shard();
    for request in 0..(LONG_MAX + LONG_WAITING_MAX) as u64 {
        ask(&mut shard, conn(10 + request as u32 % 10), request).unwrap();
    }
    assert_eq!(ask(&mut shard, conn(2), 1), Err(Code::Busy));
    turns(&mut shard);
    let trips: Vec<Trip> = std::iter::from_fn(|| shard.poll_trip()).collect();
    assert_eq!(trips.len(), LONG_MAX, "no more than the rings have places for");
    (10..20).for_each(|who| shard.closed(conn(who)));
    ask(&mut shard, conn(2), 1).unwrap();
    assert!(!shard.has_readings(), "those that are away have their places until they are back");
    let mut reader = Reader::default();
    for trip in trips {
        shard.is_back(reader.travel(trip)).unwrap();
    }
    while shard.has_readings() {
        turns(&mut shard);
        while let Some(trip) = shard.poll_trip() {
            shard.is_back(reader.travel(trip)).unwrap();
        }
    }
    let told: Vec<(ConnId, u64)> = said(&mut shard).iter().map(|reply| (reply.to, reply.request)).collect();
    assert_eq!(told, [(conn(2), 1)], "nobody is answered who has left");
}

#[test]
fn who_waits_for_a_place_gets_that_of_who_left_without_anybody_else_asking() {
    let mut shard = shard();
    (0..LONG_MAX as u64).for_each(|request| ask(&mut shard, conn(1), request).unwrap());
    ask(&mut shard, conn(2), 1).unwrap();
    // All places are held by reads that are here, and none is away to come back.
    shard.closed(conn(1));
    assert!(shard.has_readings(), "the one that waited");
}

#[test]
fn a_shard_that_stops_tells_whoever_waits_for_a_long_read_once() {
    let mut shard = shard();
    for request in 0..(LONG_MAX + 3) as u64 {
        ask(&mut shard, conn(request as u32 % 2), request).unwrap();
    }
    // One of them is away, the others wait here or for a place.
    turn(&mut shard).unwrap();
    let trip = shard.poll_trip().unwrap();
    shard.stop();
    let mut told: Vec<u64> = said(&mut shard)
        .iter()
        .map(|reply| match &reply.said {
            Said::Refused(refusal) if refusal.code == Code::Unavailable => reply.request,
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort_unstable();
    assert!(told.into_iter().eq(0..(LONG_MAX + 3) as u64));
    shard.is_back(Reader::default().travel(trip)).unwrap();
    assert!(!shard.has_readings() && said(&mut shard).is_empty());
}

#[test]
fn what_stands_in_a_sealed_block_is_read_by_the_reader_thread_and_what_memory_knows_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = sealed_shard(dir.path());
    let market = shard.markets.get(0).unwrap().id.bits();
    let (newest, edge, middle) = (2 * SEALED_ROWS + 1, SEALED_ROWS + 1, SEALED_ROWS / 2 + 1);
    // The moment; how many rows there were; trips: only a moment within the block needs its transactions.
    for (basis, rows, trips) in
        [(newest, 2 * SEALED_ROWS, 0), (edge, SEALED_ROWS, 0), (middle, SEALED_ROWS / 2, 1), (1, 0, 0)]
    {
        for words in [[1, 0], [1, market]] {
            let (said, took) = read(&mut shard, Kind::Count, &words, basis);
            assert_eq!((answer(said).1, took), (rows, trips), "as of {basis}");
        }
        let (said, took) = read(&mut shard, Kind::ListMarkets, &[0], basis);
        let (count, next, more, body) = answer(said);
        assert_eq!((count, next, more, took), (1, 1, false, trips), "as of {basis}");
        let [listed] = myelin_wire::read_market_rows(&body).unwrap().try_into().unwrap();
        assert_eq!((listed.ticks, listed.quotes), (rows, 0));
    }
    // The newest row itself stands in the block.
    for (basis, id, trips) in [(newest, 2 * SEALED_ROWS, 0), (edge, SEALED_ROWS, 1), (middle, SEALED_ROWS / 2, 1)] {
        let (said, took) = read(&mut shard, Kind::Latest, &[market, 1], basis);
        let (count, behind, more, body) = answer(said);
        let found: StoredRow = bytemuck::pod_read_unaligned(&body);
        let tick: Tick = bytemuck::cast(found.row);
        assert_eq!((count, behind, more, took), (1, id, false, trips), "as of {basis}");
        assert_eq!((found.tx, u64::from(found.number), tick.id), (id + 1, id - 1, id), "as of {basis}");
    }
    assert_eq!(answer(read(&mut shard, Kind::Latest, &[market, 1], 1).0).0, 0, "before all rows");
    assert_eq!(answer(read(&mut shard, Kind::Latest, &[market, 2], newest).0).0, 0, "of quotes there are none");
}

#[test]
fn pages_over_sealed_and_newest_rows_are_whole_and_who_follows_a_market_never_travels() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = sealed_shard(dir.path());
    let market = shard.markets.get(0).unwrap().id.bits();
    let (least, most) = (i64::MIN as u64, i64::MAX as u64);
    for (basis, rows) in
        [(2 * SEALED_ROWS + 1, 2 * SEALED_ROWS), (SEALED_ROWS / 2 + 1, SEALED_ROWS / 2), (SEALED_ROWS + 1, SEALED_ROWS)]
    {
        for limit in [7, 100, 300, 10_000] {
            let (mut from, mut ids) = (0, Vec::new());
            loop {
                let (said, _) = read(&mut shard, Kind::Rows, &[market, 1, from, 0, least, most, limit], basis);
                let (count, next, more, body) = answer(said);
                assert!(u64::from(count) <= limit);
                ids.extend(body.chunks(80).map(|row| {
                    let row: StoredRow = bytemuck::pod_read_unaligned(row);
                    assert_eq!((row.tx, u64::from(row.number)), (row.row[1] + 1, row.row[1] - 1));
                    row.row[1]
                }));
                if !more {
                    break;
                }
                assert!(next > from, "a page that says more goes on");
                from = next;
            }
            assert!(ids.iter().copied().eq(1..=rows), "as of {basis}, {limit} a page: {} rows", ids.len());
        }
    }
    let follow = [market, 1, 0, SEALED_ROWS + 10, least, most, 10_000];
    let (said, trips) = read(&mut shard, Kind::Rows, &follow, 2 * SEALED_ROWS + 1);
    assert_eq!((u64::from(answer(said).0), trips), (SEALED_ROWS - 9, 0), "what came since is in memory");
}

#[test]
fn a_count_and_a_page_do_not_wait_for_the_places_of_long_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = sealed_shard(dir.path());
    for request in 0..(LONG_MAX + LONG_WAITING_EACH_MAX) as u64 {
        ask(&mut shard, conn(2), request).unwrap();
    }
    let body = [1_u64, 0].map(u64::to_le_bytes).concat();
    let read = |basis| {
        Read::of(
            conn(1),
            Header { request: basis, ..Header::new(Kind::Count) },
            Kind::Count,
            body.clone(),
            Tx::from_bits(basis),
        )
    };
    assert!(shard.begin_reading(&read(2 * SEALED_ROWS + 1)).is_ok());
    assert_eq!(said(&mut shard).len(), 1, "at once");
    assert!(shard.begin_reading(&read(SEALED_ROWS / 2 + 1)).is_ok());
    turn(&mut shard).unwrap();
    let trip = shard.poll_trip().expect("the first slice is the count's");
    shard.is_back(Reader::default().travel(trip)).unwrap();
    (0..2).for_each(|_| turn(&mut shard).unwrap());
    let told: Vec<u64> =
        said(&mut shard).iter().filter(|reply| reply.to == conn(1)).map(|reply| reply.request).collect();
    assert_eq!(told, [SEALED_ROWS / 2 + 1]);
}

/// Each of them had a turn's rows for itself, and a buffer full of them was seconds in one turn.
#[test]
fn reads_that_are_answered_at_once_share_the_rows_of_one_turn() {
    let mut shard = wide(300);
    let at_once = ROWS_PER_TURN / (300 * MARKET_ROWS);
    (0..10).for_each(|request| assert!(shard.begin_reading(&frame(Kind::Count, request, &[1, 0])).is_ok()));
    assert!(requests(&said(&mut shard)).into_iter().eq(0..at_once), "no more than the turn has rows for");
    assert_eq!(shard.readings.turn_rows_max(), ROWS_PER_TURN);
    let turns = turns(&mut shard) as u64;
    let mut answered = requests(&said(&mut shard));
    answered.sort_unstable();
    assert!(answered.into_iter().eq(at_once..10));
    assert_eq!(turns, (10 * 300 * MARKET_ROWS - 1) / ROWS_PER_TURN, "as many as their rows take");
    assert_eq!(shard.readings.turn_rows_max(), ROWS_PER_TURN);
}

#[test]
fn a_long_answer_without_a_walk_ends_the_turn_and_what_waits_behind_it_has_the_next() {
    let mut shard = wide(1000);
    assert!(shard.answer(&frame(Kind::Policies, 1, &[0])).is_ok());
    assert!(shard.readings.turn_is_spent(), "2,002 rows of policies");
    shard.wait_with(frame(Kind::ListReflexes, 2, &[0]));
    assert!(shard.answer_waiting().is_ok());
    assert_eq!(requests(&said(&mut shard)), [1]);
    assert!(shard.has_readings(), "its moment has come");
    assert_eq!(turns(&mut shard), 1);
    assert_eq!(requests(&said(&mut shard)), [2]);
}

/// The core let go what it came to, bar by bar: 65,536 of them with two sums each.
#[test]
fn bars_that_nobody_waits_for_any_more_are_let_go_by_the_reader_thread() {
    let mut shard = shard();
    let market = shard.markets.get(0).unwrap().id.bits();
    let words = [&[market], &BARS[..]].concat();
    assert!(shard.begin_reading(&frame(Kind::Bars, 1, &words)).is_ok());
    let mut reader = Reader::default();
    turns(&mut shard);
    let trip = shard.poll_trip().expect("frozen rows come first");
    shard.is_back(reader.travel(trip)).unwrap();
    (0..2).for_each(|_| turn(&mut shard).unwrap());
    shard.closed(conn(1));
    assert!(!shard.has_readings());
    let trip = shard.poll_trip().expect("it has come to hundreds of bars");
    let back = reader.travel(trip);
    assert!(back.reading.is_none());
    shard.is_back(back).unwrap();
    assert!(!shard.has_readings() && shard.poll_trip().is_none() && said(&mut shard).is_empty());
    assert!(shard.readings.long.away.is_empty(), "its place is free");
}

#[test]
fn many_bars_are_rounded_and_many_markets_are_sorted_by_the_reader_thread() {
    let mut shard = shard();
    let market = shard.markets.get(0).unwrap().id.bits();
    let words = [&[market], &BARS[..]].concat();
    let (said, trips) = read(&mut shard, Kind::Bars, &words, 1 << 40);
    let (bars, _, _, body) = answer(said);
    assert_eq!(
        (u64::from(bars), body.len()),
        (FROZEN_ROWS + NEWEST_ROWS, bars as usize * size_of::<myelin_wire::BarRow>())
    );
    assert_eq!(trips, 2, "the frozen rows, and rounding");

    let mut shard = wide(600);
    for number in 0..600 {
        let market = shard.markets.get(number).unwrap().id;
        fill_one(&mut shard, market, u64::from(number) + 1, f64::from(number * 7 % 600));
    }
    let top = TopAsk { by: myelin_wire::By::Price, limit: 5, from_ns: i64::MIN, to_ns: i64::MAX };
    let words: Vec<u64> = top.body().chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let (said, trips) = read(&mut shard, Kind::Top, &words, 1 << 40);
    let (count, _, _, body) = answer(said);
    let prices: Vec<f64> =
        body.chunks(56).map(|row| bytemuck::pod_read_unaligned::<myelin_wire::TopRow>(row).last).collect();
    assert_eq!((count, trips), (5, 1), "nothing is sealed");
    assert_eq!(prices, [599.0, 598.0, 597.0, 596.0, 595.0]);
}

/// A bar costs more than a row: a turn of 8,192 bars of one row each was 4 ms.
#[test]
fn narrow_bars_take_more_turns_than_rows() {
    let mut shard = shard();
    let market = shard.markets.get(0).unwrap().id.bits();
    assert!(shard.begin_reading(&frame(Kind::Bars, 1, &[&[market], &BARS[..]].concat())).is_ok());
    turns(&mut shard);
    let trip = shard.poll_trip().unwrap();
    shard.is_back(Reader::default().travel(trip)).unwrap();
    let turns = turns(&mut shard) as u64;
    assert!(turns > 30 * NEWEST_ROWS / ROWS_PER_TURN, "{turns} turns");
}
