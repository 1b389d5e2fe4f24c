//! What is promised to who listens, and what policies promise to keep.

use super::{CONN, LATER, NOW, Rig, Verdict, is};
use crate::shard::ConnId;
use crate::shard::campaign::{body, tick};
use crate::shard::crossing::tests::{LISTENER, Rig as Listened, names};
use crate::shard::prune::SEARCHES;
use crate::shard::reply::Said;
use myelin_datom::{EntityId, Tx};
use myelin_wire::{Header, Keep, Kind, RetainRow, TailAsk, read_tail};

const REFLEX: u64 = 5;

/// A band on all of so many markets, which each have fired so often; some firings are at hand.
fn fired(markets: usize, times: usize, at_hand: usize) -> (Listened, Vec<EntityId>) {
    let mut rig = Listened::new(at_hand);
    let names: Vec<_> = names(0).take(markets).collect();
    let ids = rig.markets(0, &names);
    rig.register(REFLEX, "above 5", "all");
    (0..times).for_each(|_| fire(&mut rig, &ids));
    (rig, ids)
}

fn fire(rig: &mut Listened, ids: &[EntityId]) {
    for price in [1.0, 9.0] {
        let rows: Vec<_> = ids.iter().map(|id| (*id, price)).collect();
        rig.ticks(0, &rows);
    }
}

fn credit(rig: &mut Listened, count: u32) {
    rig.frame(0, LISTENER, Header { session: 7, count, ..Header::new(Kind::Credit) }, &[]);
    rig.settle();
}

pub(super) fn who_listens_is_told_every_firing_page_by_page() -> Verdict {
    let (mut rig, ids) = fired(1, 0, 1 << 10);
    rig.subscribe_with(2, LISTENER, REFLEX, (0, 0, 0), false);
    (0..6).for_each(|_| fire(&mut rig, &ids));
    rig.settle();
    (0..3).for_each(|_| credit(&mut rig, 2));
    is("firings", rig.heard(LISTENER).len() as u64, 6)
}

pub(super) fn who_comes_from_history_is_told_what_fires_meanwhile() -> Verdict {
    const MARKETS: usize = 400;
    let (mut rig, ids) = fired(MARKETS, 2, MARKETS);
    rig.settle();
    rig.subscribe(LISTENER, REFLEX, (1, 0, 0), true);
    for _ in 0..3 {
        assert!(rig.turn(), "400 markets are not opened at once");
        fire(&mut rig, &ids[..1]);
    }
    rig.settle();
    is("firings", rig.heard(LISTENER).len() as u64, 2 * MARKETS as u64 + 3)
}

pub(super) fn who_asks_all_is_told_the_whole_of_a_place_in_history() -> Verdict {
    // More than a page.
    const BANDS: u64 = 1_500;
    let (mut rig, ids) = fired(1, 0, 4);
    (1..=BANDS).filter(|id| *id != REFLEX).for_each(|id| rig.register(id, "above 5", "all"));
    rig.subscribe(LISTENER, 0, (0, 0, 0), false);
    fire(&mut rig, &ids);
    rig.settle();
    is("firings", rig.heard(LISTENER).len() as u64, BANDS)
}

pub(super) fn who_comes_back_goes_on_behind_its_last_firing() -> Verdict {
    let (mut rig, _) = fired(1, 6, 2);
    rig.settle();
    rig.subscribe(LISTENER, REFLEX, (1, 0, 0), true);
    rig.settle();
    let heard = rig.heard(LISTENER);
    is("firings", heard.len() as u64, 6)?;
    let back = ConnId { index: 100, ..LISTENER };
    rig.subscribe(back, REFLEX, heard[2], false);
    rig.settle();
    is("firings behind the third", rig.heard(back).len() as u64, 3)
}

pub(super) fn a_tail_gives_every_entry_from_history_and_live() -> Verdict {
    let mut rig = Rig::new();
    for id in 1..=5 {
        rig.ticks(NOW, CONN, id + 1, &[tick(rig.market, id, 5.0)]);
        rig.durable();
    }
    let header = Header { session: 7, request: 1, count: 10_000, ..Header::new(Kind::Tail) };
    rig.send(NOW, CONN, header, &body(|out| TailAsk::all(0).write(out)));
    // Applied before its first page: at hand, where history meets it.
    for id in 6..=8 {
        rig.ticks(NOW, CONN, id + 1, &[tick(rig.market, id, 5.0)]);
        rig.durable();
    }
    let mut entries = 0;
    for id in 9..=11 {
        while rig.shard.push_firings(NOW).unwrap() {}
        for said in rig.said() {
            let Said::Tailed { body, .. } = said else { continue };
            let ticks = read_tail(&body).unwrap();
            entries += ticks.iter().filter(|entry| matches!(entry.what, myelin_wire::Logged::Tick(_))).count();
        }
        rig.ticks(NOW, CONN, id + 1, &[tick(rig.market, id, 5.0)]);
        rig.log.apply(&mut rig.shard);
    }
    is("ticks", entries as u64, 10)
}

pub(super) fn a_policy_keeps_what_it_says() -> Verdict {
    let mut rig = Rig::new();
    for id in 1..=50 {
        rig.ticks(NOW, CONN, id + 1, &[tick(rig.market, id, 5.0)]);
        rig.durable();
    }
    let row = RetainRow::new(rig.market.bits(), RetainRow::TICKS, Some(Keep::Last(20)));
    rig.send(
        NOW,
        CONN,
        Header { session: 5, request: 52, count: 1, ..Header::new(Kind::Retain) },
        bytemuck::bytes_of(&row),
    );
    is("set", u64::from(matches!(rig.durable().pop(), Some(Said::Ack { .. }))), 1)?;
    rig.shard.prune_if_due(LATER, &mut rig.log.log, &mut { SEARCHES }).unwrap();
    rig.durable();
    is("rows", rig.count(LATER, Tx::ZERO).unwrap_or(0), 20)
}
