//! Spreads of markets on two shards: they fire as over one sorted stream, live, after `kill -9`, and over history.

use crate::node::{Node, Setup, done, markets, run, tick, trials, wait_for};
use myelin::reflex::Spec;
use myelin_client::{Client, Error, Firing, FiringPlace, Mode, News, Subscription, TailNews, TailWanted};
use myelin_datom::{EntityId, Tx};
use myelin_wire::{Code, FiringRow, Keep, Logged, RetainRow};

const SPREAD: u64 = 77;

/// Names of two markets on shard 0 and on shard 1.
fn names(client: &Client) -> [String; 2] {
    [0, 1].map(|shard| {
        let mut names = (0..).map(|n| format!("pair:{n}"));
        names.find(|name| client.shard_of_name(name) == Some(shard)).expect("slots are on both shards")
    })
}

async fn pair(client: &Client) -> [EntityId; 2] {
    let names = names(client);
    let ids = markets(client, &[&names[0], &names[1]]).await;
    [ids[0], ids[1]]
}

fn registration(id: u64, spec: &str) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    spec.parse::<Spec>().unwrap().encode(&mut body);
    myelin::reflex::Scope::All.encode(&mut body);
    body
}

/// Registers the spread of both markets at 3 apart; gives the transaction at its home.
async fn register(client: &Client) -> Tx {
    let [a, b] = names(client);
    let acks = client.register(&registration(SPREAD, &format!("spread {a} {b} 3")), 1).await.unwrap();
    acks[0].1
}

async fn next(firings: &mut Subscription) -> Firing {
    match firings.next().await.unwrap() {
        Some(News::Firing(firing)) => firing,
        other => panic!("expected a firing, found {other:?}"),
    }
}

/// What makes a firing: its place, market, measure and basis. Its times are not in it.
type Said = (u64, u32, u64, EntityId, u64, u64);

fn said(row: &FiringRow) -> Said {
    (row.tx, row.n, row.reflex, row.tick.market, row.value, row.basis)
}

/// Every tick of both markets with its place, sorted.
async fn rows(client: &Client, count: usize) -> Vec<(u64, u32, u16, f64, EntityId)> {
    let mut tail = client.tail(TailWanted { since: Some(Tx::ZERO), ..TailWanted::default() }).await.unwrap();
    let mut rows = Vec::new();
    while rows.len() < count {
        match tail.next().await.unwrap() {
            Some(TailNews::Entry { entry, .. }) => {
                if let Logged::Tick(tick) = entry.what {
                    rows.push((entry.tx, entry.n, tick.market.slot().number(), tick.price, tick.market));
                }
            }
            other => panic!("expected an entry, found {other:?}"),
        }
    }
    rows.sort_by_key(|row| (row.0, row.1, row.2));
    rows
}

/// What is due by definition: both prices are known, they are 3 apart, and were not before.
fn due(rows: &[(u64, u32, u16, f64, EntityId)], ids: [EntityId; 2], registered: Tx) -> Vec<Said> {
    let (mut prices, mut held, mut due) = ([None; 2], false, Vec::new());
    for (tx, n, _, price, market) in rows {
        let side = usize::from(*market != ids[0]);
        prices[side] = Some(*price);
        let (Some(a), Some(b)) = (prices[0], prices[1]) else { continue };
        let apart = f64::abs(a - b);
        if *tx <= registered.bits() {
            continue;
        }
        if apart >= 3.0 && !held {
            let other: f64 = if side == 0 { b } else { a };
            due.push((*tx, *n, SPREAD, *market, apart.to_bits(), other.to_bits()));
        }
        held = apart >= 3.0;
    }
    due
}

/// Ticks to both markets at once, a few in a frame, prices in 0..8 from a seed; ids go on from `first`.
async fn load(client: &Client, ids: [EntityId; 2], first: u64, frames: u64) -> usize {
    let side = |market: EntityId, salt: u64| async move {
        for frame in 0..frames {
            let price = |n: u64| ((first + n).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt) >> 40) % 8;
            let ids = (0..1 + frame % 3).map(|n| first + frame * 3 + n);
            let rows: Vec<_> = ids.map(|id| tick(market, id, price(id) as f64)).collect();
            done(&client.ticks(&rows, Mode::Whole).await.unwrap());
        }
    };
    tokio::join!(side(ids[0], 0x1234_5678), side(ids[1], 0x8765_4321));
    (0..frames).map(|frame| 2 * (1 + frame as usize % 3)).sum()
}

async fn take(firings: &mut Subscription, count: usize, replayed: Option<bool>) -> Vec<Said> {
    let mut taken = Vec::new();
    for n in 0..count {
        let firing = next(firings).await;
        assert!(replayed.is_none_or(|replayed| replayed == firing.replayed), "firing {n} of {count}: {firing:?}");
        assert_eq!(firing.shard, 0, "the home is the shard of the first market");
        taken.push(said(&firing.row));
    }
    taken
}

/// Two shards on two cores, and two on one.
fn setups(dir: &std::path::Path) -> [Setup; 2] {
    let apart = Setup::new(&dir.join("apart")).shards(2);
    let mut together = Setup::new(&dir.join("together"));
    together.shards = 2;
    [apart, together]
}

#[test]
fn a_spread_of_markets_on_two_shards_fires_as_over_one_sorted_stream() {
    let dir = tempfile::tempdir().unwrap();
    for setup in setups(dir.path()) {
        let node = setup.start();
        run(async {
            let client = node.client().await;
            let ids = pair(&client).await;
            // One price is older than the question, the other comes later.
            done(&client.ticks(&[tick(ids[1], 1, 1.0)], Mode::Whole).await.unwrap());
            let registered = register(&client).await;
            let mut firings = client.subscribe(Some(SPREAD), &[]).await.unwrap();
            done(&client.ticks(&[tick(ids[0], 1, 4.0)], Mode::Whole).await.unwrap());
            let first = next(&mut firings).await;
            assert_eq!((first.row.value, first.row.basis, first.replayed), (3_f64.to_bits(), 1_f64.to_bits(), false));
            let row = &first.row;
            assert!(row.received_ns > 0 && row.durable_ns >= row.received_ns && row.fired_ns >= row.durable_ns);
            let sent = load(&client, ids, 10, 150).await;
            let rows = rows(&client, sent + 2).await;
            let due = due(&rows, ids, registered);
            assert!(due.len() > 30, "{} firings are due", due.len());
            let mut live = vec![said(&first.row)];
            while live.len() < due.len() {
                let row = next(&mut firings).await.row;
                let stages = [row.received_ns, row.durable_ns, row.fired_ns];
                assert!(stages[0] > 0 && stages.is_sorted(), "from either shard with its stages: {stages:?}");
                live.push(said(&row));
            }
            assert_eq!(live, due);
            // Asked of history, behind the registration and from the beginning of time.
            let mut again = client.back_test(SPREAD, registered).await.unwrap();
            assert_eq!(take(&mut again, due.len(), Some(true)).await, due);
            let mut all = client.back_test(SPREAD, Tx::ZERO.next()).await.unwrap();
            assert_eq!(take(&mut all, due.len(), Some(true)).await, due, "nothing was apart before");
            // And both go on live: the two prices meet, and part.
            let id = 100_000;
            done(&client.ticks(&[tick(ids[0], id, 5.0)], Mode::Whole).await.unwrap());
            done(&client.ticks(&[tick(ids[1], id, 5.0)], Mode::Whole).await.unwrap());
            done(&client.ticks(&[tick(ids[1], id + 1, 50.0)], Mode::Whole).await.unwrap());
            for firings in [&mut again, &mut all] {
                loop {
                    let firing = next(firings).await;
                    assert!(!firing.replayed, "history is over");
                    if firing.row.tick.id == id + 1 {
                        break;
                    }
                }
            }
        });
    }
}

#[test]
fn campaign_firings_across_shards_come_once_each_over_kill_9_wherever_it_falls() {
    let dir = tempfile::tempdir().unwrap();
    let rounds = u64::from(trials(3, 30, 300));
    for mut setup in setups(dir.path()) {
        // Checkpoints fall in between.
        setup.more.iter_mut().filter(|flag| *flag == "5000").for_each(|rows| *rows = "300".to_owned());
        let mut node = setup.start();
        let (ids, registered) = run(async {
            let client = node.client().await;
            (pair(&client).await, register(&client).await)
        });
        let (mut seen, mut sent): (Vec<Said>, usize) = (Vec::new(), 0);
        for round in 0..rounds {
            let after = seen.last().map_or(FiringPlace::behind_tx(registered), |last| FiringPlace {
                tx: last.0,
                n: last.1,
                reflex: last.2,
            });
            let heard = run(async {
                let client = node.client().await;
                let mut firings = client.subscribe(Some(SPREAD), &[(0, after)]).await.unwrap();
                sent += load(&client, ids, 1 + round * 10_000, 200).await;
                let some = due(&rows(&client, sent).await, ids, registered).len() - seen.len();
                // What is left was fired, or not, when the node dies.
                take(&mut firings, some - some / 4, None).await
            });
            seen.extend(heard);
            if round % 2 == 1 {
                node.wait_for_checkpoints(1);
            }
            node.kill();
            node = setup.start();
        }
        run(async {
            let client = node.client().await;
            let due = due(&rows(&client, sent).await, ids, registered);
            let last = seen.last().unwrap();
            let after = FiringPlace { tx: last.0, n: last.1, reflex: last.2 };
            let mut firings = client.subscribe(Some(SPREAD), &[(0, after)]).await.unwrap();
            let left = due.len() - seen.len();
            seen.extend(take(&mut firings, left, None).await);
            assert_eq!(seen, due, "over {rounds} deaths every firing came once, in order");
            // The state of the edge survived too: the next firing is the next one by definition.
            let more = load(&client, ids, 9_000_000, 40).await;
            let all = self::due(&rows(&client, sent + more).await, ids, registered);
            assert!(all.len() > due.len());
            assert_eq!(take(&mut firings, all.len() - due.len(), Some(false)).await, all[due.len()..]);
        });
    }
    crate::node::report("kill-9-spreads", 2 * rounds as u32);
}

#[test]
fn who_listens_to_all_of_a_shard_hears_its_own_and_those_across_in_one_order() {
    let mut setup = Setup::fresh().shards(2);
    // So that history stands in runs too.
    setup.more.iter_mut().filter(|flag| *flag == "5000").for_each(|rows| *rows = "300".to_owned());
    let mut node = setup.start();
    let (ids, live) = run(async {
        let client = node.client().await;
        let ids = pair(&client).await;
        let [a, _] = names(&client);
        register(&client).await;
        let mut own = 5_u64.to_le_bytes().to_vec();
        "above 4".parse::<Spec>().unwrap().encode(&mut own);
        format!("market:{a}").parse::<myelin::reflex::Scope>().unwrap().encode(&mut own);
        client.register(&own, 1).await.unwrap();
        let mut all = client.subscribe(None, &[]).await.unwrap();
        let mut each =
            [client.subscribe(Some(5), &[]).await.unwrap(), client.subscribe(Some(SPREAD), &[]).await.unwrap()];
        load(&client, ids, 1, 300).await;
        // The last word is a firing of each.
        done(&client.ticks(&[tick(ids[0], 70_000, 1.0)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[1], 70_000, 1.0)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[0], 70_001, 900.0)], Mode::Whole).await.unwrap());
        let mut parts: Vec<Said> = Vec::new();
        for of in &mut each {
            while parts.last().is_none_or(|last| f64::from_bits(last.4) < 800.0) {
                parts.push(said(&next(of).await.row));
            }
            parts.push((u64::MAX, 0, 0, EntityId::NONE, 0, 0));
        }
        parts.retain(|one| one.0 != u64::MAX);
        parts.sort_unstable();
        let mut heard = Vec::new();
        while heard.len() < parts.len() {
            heard.push(said(&next(&mut all).await.row));
        }
        assert_eq!(heard, parts, "in order, none lost, none twice");
        (ids, heard)
    });
    node.kill();
    node = setup.start();
    run(async {
        let client = node.client().await;
        for from in [0, live.len() / 3, live.len() - 2] {
            let (tx, n, reflex, ..) = live[from];
            let mut all = client.subscribe(None, &[(0, FiringPlace { tx, n, reflex })]).await.unwrap();
            let mut heard = Vec::new();
            while heard.len() < live.len() - from - 1 {
                heard.push(said(&next(&mut all).await.row));
            }
            assert_eq!(heard, live[from + 1..], "behind firing {from}, after a restart");
        }
        done(&client.ticks(&[tick(ids[0], 80_000, 1.0)], Mode::Whole).await.unwrap());
    });
}

#[test]
fn a_spread_waits_for_a_market_that_comes_later_and_is_gone_when_it_is_removed() {
    let node = Setup::fresh().shards(2).start();
    run(async {
        let client = node.client().await;
        let [a, b] = names(&client);
        register(&client).await;
        let mut firings = client.subscribe(Some(SPREAD), &[]).await.unwrap();
        let first = markets(&client, &[&a]).await[0];
        done(&client.ticks(&[tick(first, 1, 10.0)], Mode::Whole).await.unwrap());
        let second = markets(&client, &[&b]).await[0];
        done(&client.ticks(&[tick(second, 1, 10.0), tick(second, 2, 20.0)], Mode::Whole).await.unwrap());
        let fired = next(&mut firings).await.row;
        assert_eq!((fired.tick.id, fired.tick.market, fired.basis), (2, second, 10_f64.to_bits()));
        assert_eq!(client.remove(&[SPREAD]).await.unwrap(), 1);
        // Registered again it begins anew: what is apart fires at the next tick.
        register(&client).await;
        let mut again = client.subscribe(Some(SPREAD), &[]).await.unwrap();
        done(&client.ticks(&[tick(first, 2, 9.0)], Mode::Whole).await.unwrap());
        assert_eq!(next(&mut again).await.row.tick.id, 2);
    });
}

#[test]
fn a_place_whose_price_was_dropped_on_the_other_shard_is_told_as_compacted_and_never_passed_over() {
    let setup = Setup::fresh().shards(2);
    let mut node = setup.start();
    let (ids, registered) = run(async {
        let client = node.client().await;
        let ids = pair(&client).await;
        let registered = register(&client).await;
        load(&client, ids, 1, 60).await;
        // Only of the market that is not at home.
        assert_eq!(client.retain(Some(ids[1]), RetainRow::TICKS, Some(Keep::Latest)).await.unwrap(), 1);
        (ids, registered)
    });
    wait_for("rows to go", || {
        let status = run(async { node.client().await.status().await.unwrap() });
        let mut counters = status.iter().flat_map(|shard| &shard.counters);
        counters.any(|(name, count)| *name == "rows_dropped" && *count > 0).then_some(())
    });
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        // It may end before the client has heard of all shards that they listen.
        let why = match client.subscribe(Some(SPREAD), &[(0, FiringPlace::behind_tx(registered))]).await {
            Err(Error::Refused(why)) => why,
            Ok(mut firings) => match firings.next().await.unwrap() {
                Some(News::Ended { shard: 0, why }) => why,
                other => panic!("expected the end of a place that cannot be resumed, found {other:?}"),
            },
            Err(other) => panic!("{other}"),
        };
        assert_eq!((why.code, why.shard), (Some(Code::Compacted), 0));
        let oldest = why.aux;
        // Behind what is said to be the oldest place it can, and goes over into what happens now.
        let mut firings = client.subscribe(Some(SPREAD), &[(0, FiringPlace::behind(oldest))]).await.unwrap();
        done(&client.ticks(&[tick(ids[0], 500_000, 1.0)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[1], 500_000, 1.0)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[0], 500_001, 100.0)], Mode::Whole).await.unwrap());
        while next(&mut firings).await.row.tick.id != 500_001 {}
    });
}

#[test]
fn a_question_to_what_is_far_ahead_is_refused_and_both_shards_go_on_as_before() {
    let setup = Setup::fresh().shards(2);
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        pair(&client).await;
        let registered = register(&client).await;
        for since in [Tx::MAX, Tx::at_millis(registered.millis() + 3_600_000)] {
            // It may end before the client has heard of all shards that they listen.
            let why = match client.back_test(SPREAD, since).await {
                Err(Error::Refused(why)) => why,
                Ok(mut firings) => match firings.next().await.unwrap() {
                    Some(News::Ended { why, .. }) => why,
                    other => panic!("expected a refusal, found {other:?}"),
                },
                Err(other) => panic!("{other}"),
            };
            assert_eq!(why.code, Some(Code::Future), "{since}");
        }
    });
    node.kill();
    node = setup.start();
    run(async {
        let client = node.client().await;
        let (begin, ids) = (client.now().await.unwrap(), pair(&client).await);
        let mut firings = client.subscribe(Some(SPREAD), &[]).await.unwrap();
        done(&client.ticks(&[tick(ids[0], 1, 1.0)], Mode::Whole).await.unwrap());
        done(&client.ticks(&[tick(ids[1], 1, 9.0)], Mode::Whole).await.unwrap());
        let fired = next(&mut firings).await.row.tx;
        assert!(fired < begin.bits() + Tx::at_millis(600_000).bits(), "{fired} is far behind {begin}");
    });
}

/// How often shards have closed a moment because somebody waited for it.
fn closes(node: &Node) -> u64 {
    run(async {
        let status = node.client().await.status().await.unwrap();
        let counters = status.iter().flat_map(|shard| &shard.counters);
        counters.filter(|(name, _)| *name == "moments_closed").map(|(_, count)| *count).sum()
    })
}

#[test]
fn moments_are_closed_while_rows_wait_and_not_by_an_idle_node() {
    let node = Setup::fresh().shards(2).start();
    run(async {
        let client = node.client().await;
        let ids = pair(&client).await;
        register(&client).await;
        let mut firings = client.subscribe(Some(SPREAD), &[]).await.unwrap();
        done(&client.ticks(&[tick(ids[1], 1, 1.0)], Mode::Whole).await.unwrap());
        // Only one of them goes on, for more than a millisecond of stamps: the other one has to close.
        for id in 1..40 {
            let price = if id % 2 == 0 { 9.0 } else { 1.0 };
            done(&client.ticks(&[tick(ids[0], id, price)], Mode::Whole).await.unwrap());
        }
        while next(&mut firings).await.row.tick.id != 38 {}
    });
    let closed = closes(&node);
    assert!(closed >= 1, "the second market's shard was silent, and had to close");
    // Time passes, in which a timer of 2 ms would have closed many.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
    wait_for("time to pass", || (std::time::Instant::now() > until).then_some(()));
    // The last row may have waited when they were counted.
    assert!(closes(&node) <= closed + 4, "{closed} closed while rows waited");
}
