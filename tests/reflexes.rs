//! No firing is lost: bands fire once per edge, survive restarts, and a subscriber goes on where it was.

use crate::node::{Setup, done, markets, run, tick};
use myelin::reflex::{Scope, Spec};
use myelin_client::{Mode, News, Subscription};
use myelin_wire::{FiringRow, MarketFlags, MarketSpec};

fn registration(id: u64, spec: &str, scope: &str) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    spec.parse::<Spec>().unwrap().encode(&mut body);
    scope.parse::<Scope>().unwrap().encode(&mut body);
    body
}

async fn next(subscription: &mut Subscription) -> FiringRow {
    match subscription.next().await.unwrap() {
        Some(News::Firing(firing)) => firing.row,
        other => panic!("expected a firing, found {other:?}"),
    }
}

#[test]
fn a_band_fires_when_it_becomes_true_and_not_again_until_it_was_false() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let id = run(async {
        let client = node.client().await;
        let id = markets(&client, &["band"]).await[0];
        client.register(&registration(5, "above 100", "market:band"), 1).await.unwrap();
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        let prices = [99.0, 101.0, 102.0, 100.0, 101.0];
        for (n, price) in prices.into_iter().enumerate() {
            done(&client.ticks(&[tick(id, n as u64 + 1, price)], Mode::Whole).await.unwrap());
        }
        let (first, second) = (next(&mut firings).await, next(&mut firings).await);
        assert_eq!((first.reflex, first.tick.id, second.tick.id), (5, 2, 5));
        assert!(first.received_ns > 0 && first.durable_ns >= first.received_ns && first.fired_ns >= first.durable_ns);
        id
    });
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let mut firings = client.subscribe(Some(5), &[]).await.unwrap();
        // The band was true when the node died, so the next higher price is no edge.
        for (n, price) in [103.0, 90.0, 110.0].into_iter().enumerate() {
            done(&client.ticks(&[tick(id, n as u64 + 10, price)], Mode::Whole).await.unwrap());
        }
        assert_eq!(next(&mut firings).await.tick.id, 12, "state survives the restart");
    });
}

#[test]
fn a_pattern_watches_markets_that_come_later() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        client.register(&registration(9, "enters 0.4..0.6", "like:vote-*"), 1).await.unwrap();
        let mut firings = client.subscribe(Some(9), &[]).await.unwrap();
        let ids = markets(&client, &["other", "vote-a", "vote-b"]).await;
        for id in &ids {
            done(&client.ticks(&[tick(*id, 1, 0.1), tick(*id, 2, 0.5)], Mode::Whole).await.unwrap());
        }
        let fired = [next(&mut firings).await.tick.market, next(&mut firings).await.tick.market];
        assert_eq!(fired, [ids[1], ids[2]]);
    });
}

#[test]
fn ids_that_a_dense_feed_skips_fire_a_gap_and_a_feed_that_may_skip_does_not() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let spec = |name, flags| MarketSpec { flags: MarketFlags(flags), name };
        let ids = client.markets(&[spec("dense", MarketFlags::DENSE), spec("sparse", 0)]).await.unwrap();
        client.register(&registration(4, "gap", "all"), 1).await.unwrap();
        let mut firings = client.subscribe(Some(4), &[]).await.unwrap();
        let rows: Vec<_> =
            [1, 2, 7, 9, 8].into_iter().flat_map(|n| ids.iter().map(move |id| tick(*id, n, 1.0))).collect();
        done(&client.ticks(&rows, Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[0], 20, 1.0)], Mode::Whole).await.unwrap());
        let fired = [next(&mut firings).await, next(&mut firings).await];
        assert_eq!(fired.map(|row| (row.tick.market, row.value, row.basis)), [(ids[0], 3, 6), (ids[0], 10, 19)]);
        let standing = client.list_reflexes().await.unwrap();
        assert_eq!(standing.len(), 1);
        assert_eq!(Spec::decode(&mut standing[0].1.as_slice()), Ok(Spec::Gap));
    });
}

#[test]
fn gaps_of_dense_feeds_are_given_again_from_history_as_they_fired() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let said = |row: &FiringRow| (row.tx, row.n, row.reflex, row.tick.market, row.value, row.basis);
    let (ids, live) = run(async {
        let client = node.client().await;
        let spec = |name, flags| MarketSpec { flags: MarketFlags(flags), name };
        let specs = [spec("d-one", MarketFlags::DENSE), spec("sparse", 0), spec("d-two", MarketFlags::DENSE)];
        let ids = client.markets(&specs).await.unwrap();
        client.register(&registration(4, "gap", "like:d-*"), 1).await.unwrap();
        client.register(&registration(3, "above 10", "all"), 1).await.unwrap();
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        let mut due = 0;
        for round in 0..1_200 {
            let base = round * 100;
            // Two gaps of each dense market in a frame, one of which is filled within it; and an edge at the last tick.
            let ids_of = [1, 2, 5, 6, 9, 7, 8, 20].map(|n| base + n);
            let rows: Vec<_> = ids_of.iter().flat_map(|n| ids.iter().map(|id| tick(*id, *n, 9.0))).collect();
            done(&client.ticks(&rows, Mode::Whole).await.unwrap());
            done(&client.ticks(&[tick(ids[1], base + 30, 11.0)], Mode::Whole).await.unwrap());
            due += 2 * (2 + usize::from(round > 0)) + 1;
        }
        let mut live = Vec::new();
        while live.len() < due {
            live.push(said(&next(&mut firings).await));
        }
        (ids, live)
    });
    assert!(live.is_sorted_by(|a, b| (a.0, a.1, a.2) < (b.0, b.1, b.2)), "a gap has a place of its own");
    let gaps: Vec<_> = live.iter().filter(|one| one.2 == 4).copied().collect();
    assert_eq!(
        gaps[..4].iter().map(|one| (one.3, one.4, one.5)).collect::<Vec<_>>(),
        [(ids[0], 3, 4), (ids[0], 10, 19), (ids[2], 3, 4), (ids[2], 10, 19)]
    );
    node.wait_for_checkpoints(1);
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let mut history = client.back_test(4, myelin_datom::Tx::ZERO.next()).await.unwrap();
        for due in &gaps {
            let Some(News::Firing(firing)) = history.next().await.unwrap() else { panic!("history ends early") };
            assert_eq!((said(&firing.row), firing.replayed), (*due, true));
        }
        for from in [0, 2, live.len() / 2, live.len() - 3] {
            let (tx, n, reflex, ..) = live[from];
            let place = myelin_client::FiringPlace { tx, n, reflex };
            let mut firings = client.subscribe(None, &[(0, place)]).await.unwrap();
            for due in &live[from + 1..] {
                assert_eq!(said(&next(&mut firings).await), *due, "behind firing {from}");
            }
        }
        done(&client.ticks(&[tick(ids[2], 1_000_000, 9.0)], Mode::Whole).await.unwrap());
        let Some(News::Firing(now)) = history.next().await.unwrap() else { panic!("nothing live follows") };
        assert_eq!((now.row.tick.market, now.row.basis, now.replayed), (ids[2], 999_999, false));
    });
}

/// Ticks that cross 10 upwards at every even id.
fn saw(market: myelin_datom::EntityId, ids: std::ops::RangeInclusive<u64>) -> Vec<myelin_datom::Tick> {
    ids.map(|n| tick(market, n, if n % 2 == 0 { 11.0 } else { 9.0 })).collect()
}

#[test]
fn a_subscriber_that_comes_back_after_a_restart_is_given_from_history_what_it_missed() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (id, place) = run(async {
        let client = node.client().await;
        let id = markets(&client, &["missed"]).await[0];
        client.register(&registration(1, "above 10", "market:missed"), 1).await.unwrap();
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        done(&client.ticks(&saw(id, 1..=10), Mode::Whole).await.unwrap());
        let mut last = next(&mut firings).await;
        while last.tick.id < 4 {
            last = next(&mut firings).await;
        }
        // Enough rows for several seals, so that the log's tail no longer holds what was missed.
        for chunk in 0..20_u64 {
            done(&client.ticks(&saw(id, chunk * 1000 + 11..=chunk * 1000 + 1010), Mode::Whole).await.unwrap());
        }
        (id, myelin_client::FiringPlace { tx: last.tx, n: last.n, reflex: last.reflex })
    });
    node.wait_for_checkpoints(2);
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let mut firings = client.subscribe(None, &[(0, place)]).await.unwrap();
        for due in (6..=20_010).step_by(2) {
            let firing = next(&mut firings).await;
            assert_eq!((firing.tick.id, firing.reflex), (due, 1));
        }
        done(&client.ticks(&saw(id, 20_011..=20_012), Mode::Whole).await.unwrap());
        assert_eq!(next(&mut firings).await.tick.id, 20_012, "history goes over into live firings");
    });
}

#[test]
fn a_slow_subscriber_is_given_everything_in_order_while_ticks_markets_and_reflexes_keep_coming() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let options = myelin_client::Options { firings_window: 64, ..Default::default() };
        let slow = myelin_client::Client::connect(&node.listen.to_string(), options).await.unwrap();
        let ids = markets(&client, &["slow-a", "slow-b"]).await;
        client.register(&registration(1, "above 10", "like:slow-*"), 1).await.unwrap();
        let mut firings = slow.subscribe(None, &[]).await.unwrap();
        // Far more firings than a lean shard keeps at hand, before the subscriber reads one.
        let mut due = 0;
        for chunk in 0..12_u64 {
            for id in &ids {
                done(&client.ticks(&saw(*id, chunk * 2000 + 1..=chunk * 2000 + 2000), Mode::Whole).await.unwrap());
                due += 1000;
            }
        }
        let mut last = (0, 0, 0);
        for n in 0..due {
            if n == due / 2 {
                // While it goes through history a market comes whose firings are due as well.
                let late = markets(&client, &["slow-c"]).await[0];
                done(&client.ticks(&saw(late, 1..=200), Mode::Whole).await.unwrap());
                done(&client.ticks(&saw(ids[0], 24_001..=24_200), Mode::Whole).await.unwrap());
                due_more(&mut last, &mut firings, 0).await;
            }
            let row = next(&mut firings).await;
            assert!((row.tx, row.n, row.reflex) > last, "firing {n} of {due} is out of order");
            last = (row.tx, row.n, row.reflex);
        }
        due_more(&mut last, &mut firings, 200).await;
    });
}

/// A market or a reflex that comes behind a tick which fires very often waits for those firings, a slice a turn; whoever
/// asks meanwhile is answered, and nothing is lost or overtaken.
#[test]
fn markets_and_reflexes_that_come_behind_many_firings_are_applied_in_their_order() {
    // Several slices of firings, and fewer than a lean shard has at hand.
    const BANDS: u64 = 6_000;
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let id = markets(&client, &["many-a"]).await[0];
        for chunk in (1..=BANDS).collect::<Vec<_>>().chunks(3000) {
            let bodies: Vec<u8> =
                chunk.iter().flat_map(|n| registration(*n, &format!("above {n}"), "like:many-*")).collect();
            client.register(&bodies, chunk.len() as u32).await.unwrap();
        }
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        done(&client.ticks(&[tick(id, 1, 0.5)], Mode::Whole).await.unwrap());
        let crossing = client.send_ticks(&[tick(id, 2, 1e6)], Mode::Whole).await.unwrap();
        let more = registration(BANDS + 1, "above 10", "like:many-*");
        let (late, registered) = tokio::join!(markets(&client, &["many-b"]), client.register(&more, 1));
        registered.unwrap();
        done(&crossing.wait().await);
        done(&client.ticks(&[tick(late[0], 1, 0.5)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(late[0], 2, 1.5)], Mode::Whole).await.unwrap());
        for n in 1..=BANDS {
            let row = next(&mut firings).await;
            assert_eq!((row.reflex, row.tick.market), (n, id));
        }
        let row = next(&mut firings).await;
        assert_eq!((row.reflex, row.tick.market), (1, late[0]), "of the market that came behind");
    });
}

/// More bands than one way through history evaluates one by one, crossed more often than a shard keeps at hand: who listens
/// to all is told of each, from the middle of a crossing on as well, and after a crash.
///
/// Seen red: it was refused as `too_many` once it had fallen behind.
#[test]
fn who_listens_to_twenty_thousand_bands_and_falls_behind_misses_none_through_a_crash() {
    const BANDS: u64 = 20_000;
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (half, id) = run(async {
        let client = node.client().await;
        let options = myelin_client::Options { firings_window: 64, ..Default::default() };
        let slow = myelin_client::Client::connect(&node.listen.to_string(), options).await.unwrap();
        let id = markets(&client, &["far-a"]).await[0];
        for chunk in (1..=BANDS).collect::<Vec<_>>().chunks(2000) {
            let scope = |n: u64| if n.is_multiple_of(2) { "market:far-a" } else { "all" };
            let bodies: Vec<u8> =
                chunk.iter().flat_map(|n| registration(*n, &format!("above {n}"), scope(*n))).collect();
            client.register(&bodies, chunk.len() as u32).await.unwrap();
        }
        let mut firings = slow.subscribe(None, &[]).await.unwrap();
        let rows: Vec<_> = (1..=6).map(|n| tick(id, n, if n % 2 == 0 { 1e6 } else { 0.5 })).collect();
        done(&client.ticks(&rows, Mode::Whole).await.unwrap());
        let mut last = None;
        for n in 0..BANDS + BANDS / 2 {
            let row = next(&mut firings).await;
            assert_eq!((row.tick.id, row.reflex), (2 + n / BANDS * 2, n % BANDS + 1));
            last = Some(row);
        }
        (last.unwrap(), id)
    });
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let place = myelin_client::FiringPlace { tx: half.tx, n: half.n, reflex: half.reflex };
        let mut firings = client.subscribe(None, &[(0, place)]).await.unwrap();
        for n in BANDS + BANDS / 2..3 * BANDS {
            let row = next(&mut firings).await;
            assert_eq!((row.tick.id, row.reflex), (2 + n / BANDS * 2, n % BANDS + 1));
        }
        done(&client.ticks(&[tick(id, 7, 0.5), tick(id, 8, 1.5)], Mode::Whole).await.unwrap());
        assert_eq!(next(&mut firings).await.tick.id, 8, "and goes on live");
    });
}

/// So many further firings, in order.
async fn due_more(last: &mut (u64, u32, u64), firings: &mut Subscription, count: usize) {
    for n in 0..count {
        let row = next(firings).await;
        assert!((row.tx, row.n, row.reflex) > *last, "late firing {n} is out of order");
        *last = (row.tx, row.n, row.reflex);
    }
}

#[test]
fn a_question_is_put_to_history_first_and_then_goes_on_live_without_a_gap() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["back-a", "back-b"]).await;
        let both: Vec<_> = (1..=100).flat_map(|n| ids.iter().flat_map(move |id| saw(*id, n..=n))).collect();
        done(&client.ticks(&both, Mode::Whole).await.unwrap());
        client.register(&registration(3, "above 10", "like:back-*"), 1).await.unwrap();
        let mut firings = client.back_test(3, myelin_datom::Tx::ZERO.next()).await.unwrap();
        let mut places = Vec::new();
        for due in (2..=100).step_by(2) {
            for market in &ids {
                let Some(News::Firing(firing)) = firings.next().await.unwrap() else { panic!("history ends early") };
                assert_eq!((firing.row.tick.id, firing.row.tick.market, firing.replayed), (due, *market, true));
                places.push((firing.row.tx, firing.row.n));
            }
        }
        assert!(places.is_sorted(), "history comes in the order in which it was applied");
        done(&client.ticks(&saw(ids[0], 101..=102), Mode::Whole).await.unwrap());
        let Some(News::Firing(live)) = firings.next().await.unwrap() else { panic!("nothing live follows") };
        assert_eq!((live.row.tick.id, live.replayed), (102, false));
    });
}

#[test]
fn a_subscriber_that_comes_back_goes_on_behind_the_last_firing_it_saw() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let id = markets(&client, &["resume"]).await[0];
        client.register(&registration(1, "above 10", "market:resume"), 1).await.unwrap();
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        let rows: Vec<_> = (1..=20).map(|n| tick(id, n, if n % 2 == 0 { 11.0 } else { 9.0 })).collect();
        done(&client.ticks(&rows, Mode::Whole).await.unwrap());
        let mut last = None;
        for _ in 0..4 {
            last = Some(next(&mut firings).await);
        }
        drop(firings);
        let last = last.unwrap();
        let place = myelin_client::FiringPlace { tx: last.tx, n: last.n, reflex: last.reflex };
        let mut firings = client.subscribe(None, &[(0, place)]).await.unwrap();
        for due in [10, 12, 14, 16, 18, 20] {
            assert_eq!(next(&mut firings).await.tick.id, due);
        }
    });
}
