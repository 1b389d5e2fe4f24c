//! What a tape promises: the same seed the same tape, ids dense per market, time that never goes back, sound rows.

use std::collections::{BTreeMap, BTreeSet};

use myelin_datom::{EntityId, Row, Slot, Tick};
use myelin_feed::{Batch, TAPE_MARKETS_MAX, Tape};

fn ticks(tape: &mut Tape, count: usize) -> Vec<(u32, Tick)> {
    (0..count).map(|_| tape.next_tick()).collect()
}

#[test]
fn the_same_seed_gives_the_same_tape_however_it_is_taken() {
    for seed in [0, 1, u64::MAX] {
        let tape = || Tape::new(seed, 7, 1_000).with_shuffle(64);
        let one = ticks(&mut tape(), 5_000);
        assert_eq!(one, ticks(&mut tape(), 5_000));
        let (mut other, mut batch, mut taken) = (tape(), Batch::default(), Vec::new());
        for rows in [1, 999, 4_000] {
            other.next_batch(rows, &mut batch);
            taken.extend(batch.markets.iter().copied().zip(batch.ticks.iter().copied()));
            let arrivals =
                batch.ticks.iter().map(|tick| tick.event_time_ns + i64::from(tick.received_delta_us) * 1_000);
            assert!(arrivals.eq(batch.received_time_ns.iter().copied()));
        }
        assert_eq!(one, taken);
        assert_ne!(one, ticks(&mut Tape::new(seed ^ 2, 7, 1_000).with_shuffle(64), 5_000));
    }
}

#[test]
fn a_tape_written_down_today_is_the_tape_of_tomorrow() {
    let mut tape = Tape::new(42, 3, 1_723_161_254_000_000_000).with_shuffle(8);
    let shown: Vec<_> =
        ticks(&mut tape, 4).iter().map(|(m, t)| (*m, t.id, t.event_time_ns, t.price, t.volume, t.side)).collect();
    let written_down = [
        (1, 8, 1_723_161_254_000_001_911, 86.55, 0.5504, 2),
        (1, 5, 1_723_161_254_000_002_045, 86.57, 0.1352, 1),
        (2, 3, 1_723_161_254_000_002_180, 434.55, 0.5888, 2),
        (0, 8, 1_723_161_254_000_003_649, 125.27, 0.0143, 2),
    ];
    assert_eq!(shown, written_down);
}

#[test]
fn ids_are_dense_per_market_and_shuffled_only_within_their_window() {
    for (markets, window) in [(1, 1), (1, 2), (3, 64), (5, 1_000)] {
        let mut tape = Tape::new(9, markets, 0).with_shuffle(window);
        let mut ids: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (market, tick) in ticks(&mut tape, 20_000) {
            ids.entry(market).or_default().push(tick.id);
        }
        assert_eq!(ids.len() as u32, markets);
        let window = 1_usize << window.ilog2();
        let mut out_of_order = 0;
        for ids in ids.values() {
            for (n, block) in ids.chunks_exact(window).enumerate() {
                let first = (n * window) as u64 + 1;
                let expected: BTreeSet<_> = (first..first + window as u64).collect();
                assert_eq!(block.iter().copied().collect::<BTreeSet<_>>(), expected);
                out_of_order += usize::from(!block.is_sorted());
            }
        }
        assert_eq!(out_of_order > 0, window > 1);
    }
}

#[test]
fn rows_are_sound_on_the_grid_and_in_time() {
    let mut tape = Tape::new(3, 100, 5_000).with_step_ns(2_000);
    let ids: Vec<_> = (0..100).map(|n| EntityId::market(Slot::new(n).unwrap(), 1)).collect();
    tape.bind(&ids);
    let (mut last_ns, mut volumes) = (5_000, Vec::new());
    for (market, tick) in ticks(&mut tape, 200_000) {
        assert_eq!((tick.flaw(), tick.market), (None, ids[market as usize]));
        assert!(tick.event_time_ns >= last_ns);
        last_ns = tick.event_time_ns;
        let cents = format!("{:.2}", tick.price);
        assert_eq!(cents.parse::<f64>().unwrap().to_bits(), tick.price.to_bits(), "a price is its decimal, parsed");
        assert!((2.5..170_000.0).contains(&tick.price) && matches!(tick.side, 1 | 2));
        volumes.push(tick.volume);
    }
    let mean_step = (last_ns - 5_000) / 200_000;
    assert!((1_950..2_050).contains(&mean_step), "{mean_step}");
    volumes.sort_by(f64::total_cmp);
    assert!(volumes[0] > 0.0 && volumes[199_000] > 20.0 * volumes[100_000], "a heavy tail");
}

#[test]
fn names_share_no_slot_by_accident_of_the_braces() {
    let tape = Tape::new(0, 10_001, 0);
    assert_eq!((tape.names()[0].as_str(), tape.names()[10_000].as_str()), ("demo:{M0001}USD", "demo:{M10001}USD"));
    assert_eq!(Slot::of_name(&tape.names()[0]), Slot::of_name("M0001"));
    assert_eq!(Tape::new(0, 0, 0).names().len(), 1);
    const { assert!(TAPE_MARKETS_MAX >= 1 << 20) };
}
