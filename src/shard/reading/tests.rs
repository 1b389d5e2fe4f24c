//! Places of long reads: how many there are, who has one, and when it is given back.

use super::*;
use crate::config::Limits;
use crate::shard::reply::{Reply, Said};
use myelin_datom::{MarketName, Tick, Tx, received_delta};
use myelin_index::MarketOptions;
use myelin_wire::MarketFlags;

const FROZEN_ROWS: u64 = 100;
const NEWEST_ROWS: u64 = 3 * ROWS_PER_TURN;

fn conn(index: u32) -> ConnId {
    ConnId { station: 0, generation: 1, index }
}

/// A shard with one market: some rows frozen, and more in the newest part than one turn looks at.
fn shard() -> Shard {
    let mut shard = Shard::new(0, 1, &Limits::lean());
    let market = shard.markets.create(Tx::from_bits(1), MarketName::new("a").unwrap(), MarketFlags(0)).unwrap().id;
    shard.ticks.add_market(market, MarketOptions::default());
    for id in 1..=FROZEN_ROWS + NEWEST_ROWS {
        let tick = Tick {
            market,
            id,
            event_time_ns: id as i64,
            price: 2.0,
            volume: 1.0,
            received_delta_us: received_delta::UNKNOWN,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut verdicts = Vec::new();
        shard.ticks.check(&[tick], &mut verdicts).unwrap();
        shard.ticks.insert(Tx::from_bits(id + 1), &[tick], &verdicts);
        if id == FROZEN_ROWS {
            shard.ticks.freeze().unwrap();
        }
    }
    shard
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
    (0..).take_while(|_| shard.has_readings() && shard.read_on().is_ok()).count()
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
fn who_finds_no_place_is_told_busy_and_who_leaves_gives_its_places_back() {
    let mut shard = shard();
    for request in 0..(READINGS_MAX + WAITING_MAX) as u64 {
        ask(&mut shard, conn(1), request).unwrap();
    }
    assert_eq!(ask(&mut shard, conn(2), 1), Err(Code::Busy));
    turns(&mut shard);
    let trips: Vec<Trip> = std::iter::from_fn(|| shard.poll_trip()).collect();
    assert_eq!(trips.len(), READINGS_MAX, "no more than the rings have places for");
    shard.closed(conn(1));
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
    (0..READINGS_MAX as u64).for_each(|request| ask(&mut shard, conn(1), request).unwrap());
    ask(&mut shard, conn(2), 1).unwrap();
    // All places are held by reads that are here, and none is away to come back.
    shard.closed(conn(1));
    assert!(shard.has_readings(), "the one that waited");
}

#[test]
fn a_shard_that_stops_tells_whoever_waits_for_a_long_read_once() {
    let mut shard = shard();
    for request in 0..(READINGS_MAX + 3) as u64 {
        ask(&mut shard, conn(request as u32 % 2), request).unwrap();
    }
    // One of them is away, the others wait here or for a place.
    shard.read_on().unwrap();
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
    assert!(told.into_iter().eq(0..(READINGS_MAX + 3) as u64));
    shard.is_back(Reader::default().travel(trip)).unwrap();
    assert!(!shard.has_readings() && said(&mut shard).is_empty());
}
