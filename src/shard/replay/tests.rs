//! Ways through history, and who listens: how much of them one turn does, and that nothing is missed by it.

use super::FIRINGS_AT_ONCE;
use crate::shard::ConnId;
use crate::shard::crossing::tests::{LISTENER, Rig, names};
use crate::shard::reply::{Reply, Said};
use crate::shard::turn::{SEALED_PAGE, UNITS_PER_TURN};
use crate::shard::ways::{FIRINGS, MARKETS};
use myelin_datom::EntityId;
use myelin_wire::{Code, Header, Kind};
use std::collections::BTreeMap;

const REFLEX: u64 = 5;
/// What one listener is given at once.
const PAGE: usize = 512;

fn listener(index: u32) -> ConnId {
    ConnId { index: 100 + index, ..LISTENER }
}

fn all_at(ids: &[EntityId], price: f64) -> Vec<(EntityId, f64)> {
    ids.iter().map(|id| (*id, price)).collect()
}

/// Each of these markets has been at 1 and at 9.
fn rig_of(markets: usize) -> (Rig, Vec<EntityId>) {
    let mut rig = Rig::new(1 << 16);
    let names: Vec<_> = names(0).take(markets).collect();
    let ids: Vec<_> = names.chunks(1000).flat_map(|names| rig.markets(0, names)).collect();
    for price in [1.0, 9.0] {
        ids.chunks(1000).for_each(|ids| rig.ticks(0, &all_at(ids, price)));
    }
    (rig, ids)
}

fn is_answer(reply: &Reply) -> bool {
    reply.to == LISTENER && matches!(reply.said, Said::Answer { .. })
}

#[test]
fn history_of_ten_thousand_markets_is_opened_over_many_turns_and_what_is_written_meanwhile_is_acked() {
    let (mut rig, ids) = rig_of(10_000);
    rig.register(REFLEX, "above 5", "all");
    rig.subscribe(LISTENER, REFLEX, (1, 0, 0), true);
    let (mut turns, mut turns_before, mut written) = (0, 0, 0);
    while rig.turn() {
        turns += 1;
        turns_before += u32::from(!rig.said.iter().any(is_answer));
        if turns % 10 == 0 {
            // It is acknowledged before the next turn, and it fires live: 9 was the price.
            written += 1;
            rig.ticks(0, &[(ids[7], 1.0), (ids[7], 9.0)]);
        }
        assert!(turns < 100_000, "under load history meets what is at hand");
    }
    assert!(turns_before >= 20, "10,000 markets were looked at in {turns_before} turns");
    assert!(written > 5, "{written}");
    assert_eq!(rig.said.iter().filter(|reply| is_answer(reply)).count(), 1);
    let heard = rig.heard(LISTENER);
    assert_eq!(heard.len(), 10_000 + written, "each market once, and what fired meanwhile");
    assert!(heard.is_sorted() && heard.windows(2).all(|two| two[0] != two[1]));
    let most = rig.shards[0].subscribers.turn_units_max();
    assert!((UNITS_PER_TURN..=UNITS_PER_TURN + SEALED_PAGE).contains(&most), "{most} units in a turn");
}

/// Seen red: who asks all reflexes was refused as `TooMany` once it had to go through history of more than 4,096.
#[test]
fn who_asks_all_is_told_of_every_reflex_that_a_tick_fired_also_from_history_and_from_the_middle() {
    const BANDS: u64 = 6_000;
    const SPREADS: u64 = 5_000;
    let mut rig = Rig::new(64);
    let names: Vec<_> = names(0).take(3).collect();
    let ids = rig.markets(0, &names);
    // Ids of other kinds between those of bands: a place is told in the order of ids.
    rig.register(BANDS / 2, "volume 1 in 1s", &format!("market:{}", names[0]));
    let others = [BANDS / 2];
    for id in (1..=BANDS).filter(|id| !others.contains(id)) {
        let scope = if id % 2 == 0 { "all".to_owned() } else { format!("market:{}", names[0]) };
        rig.register(id, &format!("above {}", 2.0 + id as f64 / 10_000.0), &scope);
    }
    for id in BANDS + 1..=BANDS + SPREADS {
        rig.register(id, &format!("spread {} {} {}", names[0], names[1], 1.0 + id as f64 / 10_000.0), "all");
    }
    // Seen red: windows over markets that are not there yet had evaluators, and there are no more than 4,096 of those.
    for id in 1..=4_100 {
        rig.register(20_000 + id, "volume 1 in 1s", &format!("market:nobody-{id}"));
    }
    rig.subscribe_with(1_000, LISTENER, 0, (0, 0, 0), false);
    rig.ticks(0, &[(ids[1], 1.0), (ids[0], 1.0)]);
    // Its own bands and all's, then those of all on another market.
    for _ in 0..2 {
        rig.ticks(0, &[(ids[0], 9.0), (ids[2], 9.0)]);
        rig.ticks(0, &[(ids[0], 1.0), (ids[2], 1.0)]);
    }
    let settle = |rig: &mut Rig, who: ConnId| {
        for _ in 0..100 {
            let before = rig.heard(who).len();
            rig.settle();
            rig.frame(0, who, Header { session: 7, count: 777, ..Header::new(Kind::Credit) }, &[]);
            rig.settle();
            if rig.heard(who).len() == before {
                return;
            }
        }
        panic!("it is told without end");
    };
    settle(&mut rig, LISTENER);
    let heard = rig.heard(LISTENER);
    assert!(heard.is_sorted() && heard.windows(2).all(|two| two[0] != two[1]));
    let of = |reflex: u64| heard.iter().filter(|place| place.2 == reflex).count();
    for id in (1..=BANDS).filter(|id| !others.contains(id)) {
        assert_eq!(of(id), if id % 2 == 0 { 4 } else { 2 }, "reflex {id}");
    }
    assert!((BANDS + 1..=BANDS + SPREADS).all(|id| of(id) == 2), "a spread comes and goes with one of its markets");
    assert_eq!(others.map(of), [1], "a window stays true");
    for at in [0, 1, 2_500, heard.len() - 70] {
        let one = listener(at as u32);
        rig.subscribe_with(500, one, 0, heard[at], false);
        settle(&mut rig, one);
        assert!(rig.heard(one) == heard[at + 1..], "from {:?} on", heard[at]);
    }
    let most = rig.shards[0].subscribers.turn_units_max();
    // A page, and what is looked for at once, may be given behind the last unit.
    let bound = UNITS_PER_TURN + (PAGE + 2 * FIRINGS_AT_ONCE) as u32;
    assert!((UNITS_PER_TURN..=bound).contains(&most), "{most} units in a turn");
}

/// Seen red: who had used up its credit began again for each page, 80 turns of looking where 2,500 markets begin.
#[test]
fn who_has_no_credit_keeps_its_way_until_somebody_needs_the_place_and_loses_nothing() {
    let mut rig = Rig::new(64);
    let names: Vec<_> = names(0).take(2500).collect();
    let ids: Vec<_> = names.chunks(500).flat_map(|names| rig.markets(0, names)).collect();
    rig.register(REFLEX, "above 5", "all");
    for price in [1.0, 9.0] {
        ids.chunks(500).for_each(|ids| rig.ticks(0, &all_at(ids, price)));
    }
    rig.settle();
    let credit = |rig: &mut Rig, who, count| {
        rig.frame(0, who, Header { session: 7, count, ..Header::new(Kind::Credit) }, &[]);
    };
    rig.subscribe_with(100, LISTENER, REFLEX, (1, 0, 0), false);
    rig.settle();
    assert_eq!(rig.heard(LISTENER).len(), 100);
    credit(&mut rig, LISTENER, 100);
    for _ in 0..3 {
        rig.turn();
    }
    assert_eq!(rig.heard(LISTENER).len(), 200, "it goes on where it was");
    for index in 0..20 {
        rig.subscribe_with(10, listener(index), REFLEX, (1, 0, 0), false);
        rig.settle();
        assert_eq!(rig.heard(listener(index)).len(), 10, "there is a place for who has credit");
    }
    for who in [LISTENER, listener(0), listener(19)] {
        credit(&mut rig, who, 10_000);
        rig.settle();
        let heard = rig.heard(who);
        assert_eq!(heard.len(), 2500);
        assert!(heard.is_sorted() && heard.windows(2).all(|two| two[0] != two[1]));
    }
}

#[test]
fn many_listeners_share_a_turn_and_each_has_its_own() {
    const LISTENERS: u32 = 200;
    let (mut rig, ids) = rig_of(1000);
    rig.register(REFLEX, "above 5", "all");
    (0..LISTENERS).for_each(|index| rig.subscribe(listener(index), 0, (0, 0, 0), false));
    rig.settle();
    rig.said.clear();
    for price in [1.0, 9.0, 1.0, 9.0] {
        rig.ticks(0, &all_at(&ids, price));
    }
    let (mut heard, mut more, mut turns) = (BTreeMap::new(), true, 0);
    while more {
        more = rig.turn();
        turns += 1;
        for reply in std::mem::take(&mut rig.said) {
            if let Said::Firings { rows, .. } = reply.said {
                *heard.entry(reply.to).or_insert(0) += rows.len();
            }
        }
        if heard.len() == LISTENERS as usize {
            let (least, most) = (heard.values().min().unwrap(), heard.values().max().unwrap());
            assert!(most - least <= 2 * PAGE, "they take turns: {least} to {most}");
        }
    }
    assert!(heard.values().all(|count| *count == 2000), "{heard:?}");
    assert!(turns > LISTENERS, "{turns} turns");
    let most = rig.shards[0].subscribers.turn_units_max();
    // A page may be given behind the last unit.
    assert!((UNITS_PER_TURN..=UNITS_PER_TURN + PAGE as u32).contains(&most), "{most} units in a turn");
}

#[test]
fn a_listener_that_ends_before_its_history_is_open_is_answered_first() {
    let (mut rig, _) = rig_of(2_500);
    rig.register(REFLEX, "above 5", "all");
    rig.said.clear();
    rig.subscribe(LISTENER, REFLEX, (1, 0, 0), true);
    assert!(rig.turn(), "it is not open yet");
    assert!(rig.said.is_empty(), "so it is not answered yet: {:?}", rig.said);
    rig.frame(0, LISTENER, Header { session: 7, request: 1, ..Header::new(Kind::End) }, &[]);
    let said: Vec<_> = rig.said.iter().map(|reply| &reply.said).collect();
    assert!(matches!(said[..], [Said::Answer { .. }, Said::Ended { code: None, .. }]), "{said:?}");
}

/// Seen red: neither was told anything, for good.
#[test]
fn a_shard_that_stops_refuses_who_has_not_begun_and_ends_who_listens() {
    let (mut rig, _) = rig_of(2_500);
    rig.register(REFLEX, "above 5", "all");
    rig.subscribe(listener(1), REFLEX, (0, 0, 0), false);
    rig.said.clear();
    rig.subscribe(LISTENER, REFLEX, (1, 0, 0), true);
    assert!(rig.turn() && rig.said.is_empty(), "it is not open yet");
    rig.shards[0].stop();
    rig.turn();
    let said: Vec<_> = rig.said.iter().map(|reply| (reply.to, reply.session, reply.request, &reply.said)).collect();
    let [(begun, 7, 1, Said::Ended { code: Some(Code::Unavailable), .. }), (opening, 7, 1, Said::Refused(refusal))] =
        said[..]
    else {
        panic!("{said:?}")
    };
    assert_eq!((begun, opening, refusal.code), (listener(1), LISTENER, Code::Unavailable));
    assert_eq!(rig.shards[0].subscribers.count(), 0);
}

/// Seen red: sixteen paused back-tests of a shard kept everybody who fell behind from history, for good.
#[test]
fn a_back_test_without_credit_gives_its_place_up_once_somebody_waits_for_it_and_is_told() {
    const FIRINGS: usize = 100;
    let mut rig = Rig::new(64);
    let names: Vec<_> = names(0).take(1).collect();
    let ids = rig.markets(0, &names);
    rig.register(REFLEX, "above 5", "all");
    rig.subscribe_with(0, LISTENER, REFLEX, (0, 0, 0), false);
    (0..FIRINGS).for_each(|_| rig.ticks(0, &[(ids[0], 1.0), (ids[0], 9.0)]));
    (0..16).for_each(|index| rig.subscribe_with(0, listener(index), REFLEX, (1, 0, 0), true));
    rig.settle();
    rig.said.clear();
    rig.later(60_000_000);
    rig.settle();
    assert!(rig.said.is_empty() && !rig.turn(), "as long as nobody waits: {:?}", rig.said);
    rig.frame(0, LISTENER, Header { session: 7, count: 1000, ..Header::new(Kind::Credit) }, &[]);
    rig.settle();
    assert_eq!(rig.heard(LISTENER).len(), FIRINGS);
    let ended = |reply: &&Reply| matches!(reply.said, Said::Ended { code: Some(Code::TooMany), .. });
    assert_eq!(rig.said.iter().filter(ended).count(), 1, "one place was wanted: {:?}", rig.said);
    assert_eq!(rig.shards[0].subscribers.count(), 16);
}

/// Each listener that waited for a place once looked at all others, a million looks a turn.
#[test]
fn a_thousand_that_fall_behind_together_wait_for_sixteen_places_and_none_loses_a_firing() {
    const LISTENERS: u32 = 1000;
    const MARKETS: usize = 200;
    let mut rig = Rig::new(64);
    let names: Vec<_> = names(0).take(MARKETS).collect();
    let ids = rig.markets(0, &names);
    rig.register(REFLEX, "above 5", "all");
    (0..LISTENERS).for_each(|index| rig.subscribe_with(30, listener(index), REFLEX, (0, 0, 0), false));
    for price in [1.0, 9.0] {
        rig.ticks(0, &all_at(&ids, price));
    }
    let (mut given, mut turns) = (BTreeMap::new(), 0);
    while given.values().sum::<usize>() < LISTENERS as usize * MARKETS {
        assert!(turns < 100_000, "{turns} turns");
        turns += 1;
        rig.turn();
        for reply in std::mem::take(&mut rig.said) {
            let Said::Firings { rows, .. } = reply.said else { continue };
            let places: &mut usize = given.entry(reply.to).or_default();
            *places += rows.len();
            // What was read is granted again, but by some only much later: they keep no place from the rest.
            if !reply.to.index.is_multiple_of(10) {
                rig.frame(0, reply.to, Header { session: 7, count: 30, ..Header::new(Kind::Credit) }, &[]);
            }
        }
        if given.len() == LISTENERS as usize && turns % 1000 == 0 {
            for index in (0..LISTENERS).filter(|index| listener(*index).index.is_multiple_of(10)) {
                rig.frame(0, listener(index), Header { session: 7, count: 100, ..Header::new(Kind::Credit) }, &[]);
            }
        }
    }
    assert!(given.values().all(|count| *count == MARKETS), "each has its own");
    let most = rig.shards[0].subscribers.turn_units_max();
    assert!((UNITS_PER_TURN..=UNITS_PER_TURN + PAGE as u32).contains(&most), "{most} units in a turn");
}

/// Seen red: each of sixteen ways held all firings of the tick, also those whose listener had gone to sleep.
#[test]
fn a_tick_across_many_bands_is_told_to_many_listeners_from_history_in_the_memory_of_one() {
    const BANDS: u64 = 80_000;
    let mut rig = Rig::new(64);
    let names: Vec<_> = names(0).take(1).collect();
    let ids = rig.markets(0, &names);
    for id in 1..=BANDS {
        rig.register(id, &format!("above {}", 2.0 + id as f64 / 100_000.0), "all");
    }
    rig.ticks(0, &[(ids[0], 1.0), (ids[0], 9.0)]);
    rig.settle();
    for index in 0..16 {
        // From the beginning, and from the middle of the tick.
        let after = if index % 2 == 0 { (1, 0, 0) } else { (rig.shards[0].group().applied_tx().bits(), 1, BANDS / 2) };
        rig.subscribe_with(if index == 0 { 1_000 } else { 100_000 }, listener(index), 0, after, false);
    }
    let (mut most, mut turns) = (0, 0);
    let mut turn = |rig: &mut Rig| {
        turns += 1;
        assert!(turns < 100_000, "{turns} turns");
        // The first one is the first to be large, and has no credit then: it stays so for a tenth of a second.
        rig.later(100);
        let owed = rig.owes_a_place();
        let more = rig.turn();
        most = most.max(rig.shards[0].subscribers.ways.held()[0]);
        more || owed
    };
    for _ in 0..3_000 {
        turn(&mut rig);
    }
    while turn(&mut rig) {}
    for index in 1..16 {
        let heard = rig.heard(listener(index));
        let from = if index % 2 == 0 { 0 } else { BANDS / 2 };
        assert!(heard.iter().map(|place| place.2).eq(from + 1..=BANDS), "{index}: {}", heard.len());
    }
    assert_eq!(rig.heard(listener(0)).len(), 1000);
    rig.frame(0, listener(0), Header { session: 7, count: 100_000, ..Header::new(Kind::Credit) }, &[]);
    while turn(&mut rig) {}
    assert!(rig.heard(listener(0)).iter().map(|place| place.2).eq(1..=BANDS));
    let bound = 15 * (FIRINGS + UNITS_PER_TURN as usize) + BANDS as usize;
    assert!(most > FIRINGS && most <= bound, "{most} firings held, {bound} at most");
}

/// Seen red: who asked about more than 10,000 markets was refused as `TooMany`, and so could not go on after a restart.
#[test]
fn of_those_who_go_through_more_than_ten_thousand_markets_one_goes_on_at_a_time_and_none_loses_a_firing() {
    const LISTENERS: u32 = 3;
    let (mut rig, ids) = rig_of(MARKETS + 2_000);
    rig.register(REFLEX, "above 5", "all");
    for price in [1.0, 9.0] {
        ids.chunks(1000).for_each(|ids| rig.ticks(0, &all_at(ids, price)));
    }
    // One reflex as one of all, a back-test, and one that stops reading in the middle.
    rig.subscribe_with(1_000, listener(0), REFLEX, (1, 0, 0), false);
    rig.subscribe_with(100_000, listener(1), 0, (1, 0, 0), false);
    rig.subscribe_with(100_000, listener(2), REFLEX, (1, 0, 0), true);
    let mut turns = 0;
    let mut turn = |rig: &mut Rig| {
        turns += 1;
        assert!(turns < 100_000, "somebody waits for good");
        rig.later(100);
        let owed = rig.owes_a_place();
        let more = rig.turn();
        let [_, markets] = rig.shards[0].subscribers.ways.held();
        assert!(markets <= LISTENERS as usize * (MARKETS + 1) + 2_000, "{markets}");
        more || owed || rig.shards[0].subscribers.ways.is_large_wanted()
    };
    while turn(&mut rig) {}
    rig.frame(0, listener(0), Header { session: 7, count: 100_000, ..Header::new(Kind::Credit) }, &[]);
    while turn(&mut rig) {}
    let live = rig.heard(listener(0));
    assert_eq!(live.len(), ids.len());
    assert!(live.is_sorted() && live.windows(2).all(|two| two[0] != two[1]));
    assert!(rig.heard(listener(1)) == live, "{}", rig.heard(listener(1)).len());
    let tested = rig.heard(listener(2));
    assert_eq!(tested.len(), 2 * ids.len(), "before it was registered as well");
    assert!(tested.ends_with(&live));
}

/// Seen red: it was begun again as if it were none, behind what it had been given.
#[test]
fn a_large_back_test_without_credit_gives_way_to_another_large_one_after_a_while_and_is_told() {
    let (mut rig, ids) = rig_of(MARKETS + 100);
    rig.register(REFLEX, "above 5", "all");
    rig.subscribe_with(500, LISTENER, REFLEX, (1, 0, 0), true);
    rig.settle();
    rig.subscribe_with(100_000, listener(1), REFLEX, (1, 0, 0), true);
    while rig.turn() {}
    let mut waited_us = 0;
    while rig.heard(listener(1)).is_empty() {
        rig.later(1_000);
        waited_us += 1_000;
        assert!(waited_us < 10_000_000, "it waits for good");
        if rig.owes_a_place() {
            while rig.turn() {}
        }
    }
    assert!(waited_us > 4_000_000, "{waited_us}");
    while rig.turn() {}
    assert_eq!(rig.heard(LISTENER).len(), 500);
    assert_eq!(rig.heard(listener(1)).len(), ids.len());
    let ended = |reply: &&Reply| matches!(reply.said, Said::Ended { code: Some(Code::TooMany), .. });
    assert_eq!(rig.said.iter().filter(ended).map(|reply| reply.to).collect::<Vec<_>>(), [LISTENER]);
}
