//! The whole path: a tick goes in, is counted, is seen as of its moment, and is still there after a restart.

use crate::node::{Setup, done, markets, refused, run, tick};
use crate::sessions::Line;
use myelin_client::{At, Mode, Stretch};
use myelin_datom::{EntityId, Slot, Tick, Tx};
use myelin_wire::{Attribute, Code, Header, Kind, MarketFlags, MarketSpec};

#[test]
fn a_tick_travels_from_the_socket_to_the_count_and_survives_a_restart() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let (before, after) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &["a", "b"]).await;
        let first: Vec<Tick> = (1..=100).map(|id| tick(ids[0], id, 10.0)).collect();
        assert_eq!(done(&client.ticks(&first, Mode::Whole).await.unwrap()), (100, 0));
        let before = client.now().await.unwrap();
        let second: Vec<Tick> = (1..=50).map(|id| tick(ids[1], id, 20.0)).collect();
        assert_eq!(done(&client.ticks(&second, Mode::Whole).await.unwrap()), (50, 0));
        let count = async |at| client.count(Attribute::Tick, None, at).await.unwrap().value;
        assert_eq!(count(At::default()).await, 150);
        assert_eq!(count(At { as_of: Some(before), ..At::default() }).await, 100);
        (before, client.now().await.unwrap())
    });
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let as_of = |tx| At { as_of: Some(tx), ..At::default() };
        assert_eq!(client.count(Attribute::Tick, None, as_of(before)).await.unwrap().value, 100, "the past changed");
        assert_eq!(client.count(Attribute::Tick, None, as_of(after)).await.unwrap().value, 150, "the past changed");
        assert!(client.now().await.unwrap() >= after, "a tx went back");
    });
}

#[test]
fn ten_thousand_ticks_are_durable_counted_and_have_fired_as_the_founders_asked() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let names: Vec<String> = (0..100).map(|n| format!("founding:{{M{n}}}")).collect();
        let ids = markets(&client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut bands = Vec::new();
        for (n, name) in names.iter().enumerate() {
            bands.extend_from_slice(&(n as u64 + 1).to_le_bytes());
            myelin::reflex::Spec::Above(100.0).encode(&mut bands);
            myelin::reflex::Scope::Market(name.as_str().into()).encode(&mut bands);
        }
        client.register(&bands, 100).await.unwrap();
        let mut firings = client.subscribe(None, &[]).await.unwrap();
        let ticks: Vec<Tick> = (0..10_000_u64)
            .map(|n| tick(ids[(n % 100) as usize], n / 100 + 1, if n >= 9_900 { 101.0 } else { 99.0 }))
            .collect();
        let begun = std::time::Instant::now();
        let mut sent = Vec::new();
        for frame in ticks.chunks(100) {
            sent.push(client.send_ticks(frame, Mode::Whole).await.unwrap());
        }
        let mut accepted = 0;
        for one in sent {
            accepted += done(&one.wait().await).0;
        }
        let durable = begun.elapsed();
        let acked = std::time::Instant::now();
        for fired in 0..100 {
            let news = firings.next().await.unwrap();
            assert!(matches!(news, Some(myelin_client::News::Firing(_))), "firing {fired}: {news:?}");
        }
        let last_firing = acked.elapsed();
        assert_eq!(accepted, 10_000);
        assert_eq!(client.count(Attribute::Tick, None, At::default()).await.unwrap().value, 10_000);
        println!("10,000 ticks durable in {durable:?}, the last firing {last_firing:?} after the last ack");
        // The figures belong to the bench; a debug build on a busy machine only has to be in their neighbourhood.
        assert!(durable < std::time::Duration::from_secs(5), "{durable:?}");
    });
}

#[test]
fn markets_of_two_shards_are_written_and_counted_at_one_moment() {
    let setup = Setup::fresh().shards(2);
    let mut node = setup.start();
    let moment = run(async {
        let client = node.client().await;
        assert_eq!(client.shards(), 2);
        let names: Vec<String> = (0..16).map(|n| format!("spread:{{M{n}}}")).collect();
        let ids = markets(&client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let halves = ids.iter().filter(|id| client.welcome().shard_of(id.slot()) == Some(0)).count();
        assert!(halves > 0 && halves < 16, "the names fall on one shard: the test proves nothing");
        let ticks: Vec<Tick> = ids.iter().flat_map(|id| (1..=100).map(|n| tick(*id, n, 1.0))).collect();
        assert_eq!(done(&client.ticks(&ticks, Mode::Whole).await.unwrap()), (1600, 0));
        let counted = client.count(Attribute::Tick, None, At::default()).await.unwrap();
        assert_eq!(counted.value, 1600);
        client.now().await.unwrap()
    });
    node.kill();
    let node = setup.start();
    run(async {
        let at = At { as_of: Some(moment), ..At::default() };
        assert_eq!(node.client().await.count(Attribute::Tick, None, at).await.unwrap().value, 1600);
    });
}

#[test]
fn what_no_row_may_be_is_refused_by_name_and_nothing_of_its_frame_is_stored() {
    let node = Setup::fresh().start();
    // The client refuses such rows itself, so this speaks to the node directly.
    let mut line = Line::open(node.listen);
    let id = line.market(7, "guard");
    run(async {
        let client = node.client().await;
        let sound = tick(id, 1, 5.0);
        let stranger = EntityId::market(Slot::of_name("guard"), 77);
        let rows = [
            (Tick { price: f64::NAN, ..sound }, Code::PriceNotFinite),
            (Tick { price: -0.0, ..sound }, Code::PriceNegativeZero),
            (Tick { price: -1.0, ..sound }, Code::NegativePrice),
            (Tick { volume: f64::INFINITY, ..sound }, Code::VolumeNotFinite),
            (Tick { volume: -1.0, ..sound }, Code::VolumeNegative),
            (Tick { side: 3, ..sound }, Code::Side),
            (Tick { zero_50: 1, ..sound }, Code::Reserved),
            (Tick { flags: 128, ..sound }, Code::Flags),
            (Tick { market: stranger, ..sound }, Code::UnknownMarket),
        ];
        let mut request = 2;
        for (bad, code) in rows {
            let refused = line.ticks(7, request, &[tick(id, 2, 1.0), bad]);
            assert_eq!((Code::from_number(refused.code), refused.count), (Some(code), 1));
            // What `admit` refuses uses up no number; what `apply` refuses is an outcome of the session.
            request += u64::from(matches!(code, Code::NegativePrice | Code::UnknownMarket));
        }
        assert_eq!(client.count(Attribute::Tick, None, At::default()).await.unwrap().value, 0, "a frame is atomic");
    });
}

#[test]
fn a_repeated_id_is_a_duplicate_with_the_same_bytes_and_a_conflict_with_others() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let ids = run(async {
        let client = node.client().await;
        let ids = markets(&client, &["dedupe"]).await;
        let rows: Vec<Tick> = (1..=10).map(|n| tick(ids[0], n * 2, 1.0)).collect();
        assert_eq!(done(&client.ticks(&rows, Mode::Whole).await.unwrap()), (10, 0));
        ids
    });
    node.kill();
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let id = ids[0];
        assert_eq!(done(&client.ticks(&[tick(id, 4, 1.0), tick(id, 5, 1.0)], Mode::Whole).await.unwrap()), (1, 1));
        assert_eq!(refused(&client.ticks(&[tick(id, 4, 2.0)], Mode::Whole).await.unwrap()), Some(Code::IdConflict));
        let correction = Tick { flags: myelin_datom::flags::CORRECTION, ..tick(id, 4, 2.0) };
        assert_eq!(done(&client.ticks(&[correction], Mode::Whole).await.unwrap()), (1, 0));
        let nothing = Tick { flags: myelin_datom::flags::CORRECTION, ..tick(id, 99, 2.0) };
        assert_eq!(refused(&client.ticks(&[nothing], Mode::Whole).await.unwrap()), Some(Code::NothingToCorrect));
        assert_eq!(client.count(Attribute::Tick, None, At::default()).await.unwrap().value, 12);
    });
}

#[test]
fn a_moment_too_far_ahead_is_refused_and_one_just_ahead_is_closed_first() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let id = markets(&client, &["moment"]).await[0];
        client.ticks(&[tick(id, 1, 1.0)], Mode::Whole).await.unwrap();
        let now = client.now().await.unwrap();
        let just_ahead = Tx::at_millis(now.millis() + 50);
        let at = |tx| At { as_of: Some(tx), ..At::default() };
        assert_eq!(client.count(Attribute::Tick, None, at(just_ahead)).await.unwrap().value, 1);
        // What comes after the closed moment carries a later tx, so the answer stays what it was.
        client.ticks(&[tick(id, 2, 1.0)], Mode::Whole).await.unwrap();
        assert_eq!(client.count(Attribute::Tick, None, at(just_ahead)).await.unwrap().value, 1, "the past changed");
        assert_eq!(client.count(Attribute::Tick, None, At::default()).await.unwrap().value, 2);
        let far = Tx::at_millis(now.millis() + 3_600_000);
        let refusal = client.count(Attribute::Tick, None, at(far)).await.unwrap_err();
        assert!(matches!(refusal, myelin_client::Error::Refused(refusal) if refusal.code == Some(Code::Future)));
    });
}

#[test]
fn a_node_says_when_it_serves_and_counts_what_it_does() {
    let node = Setup::fresh().start();
    assert_eq!(node.get("/healthz").0, 200);
    let (status, body) = node.get("/readyz");
    assert_eq!(status, 200, "{body}");
    let (status, page) = node.get("/metrics");
    assert_eq!(status, 200);
    assert!(page.contains("myelin_stage_seconds_bucket{core=\"0\",stage=\"sync\""), "{page}");
}

#[test]
fn a_data_directory_keeps_its_shards_for_life() {
    let dir = tempfile::tempdir().unwrap();
    drop(Setup::new(dir.path()).start());
    let (code, said) = Setup::new(dir.path()).shards(2).refuses_to_start();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("made with 1 shards"), "{said}");
}

#[test]
fn a_market_is_created_on_the_shard_of_its_slot_and_nowhere_else() {
    let node = Setup::fresh().shards(2).start();
    let mut line = Line::open(node.listen);
    for shard in [0, 1] {
        // One name of each half of the slots, asked of the wrong half.
        let name =
            (0..).map(|n| format!("half:{n}")).find(|name| Slot::of_name(name).number() / 2048 != shard).unwrap();
        let mut body = Vec::new();
        myelin_wire::markets_body(&mut body, [MarketSpec { flags: MarketFlags(0), name: &name }]);
        let header = Header { session: 5, request: 1, count: 1, shard, ..Header::new(Kind::Markets) };
        let (refused, _) = line.ask(header, &body);
        assert_eq!(Code::from_number(refused.code), Some(Code::WrongShard));
    }
}

#[test]
fn markets_that_come_later_are_not_in_the_past() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let before = run(async {
        let client = node.client().await;
        markets(&client, &["early"]).await;
        let before = client.now().await.unwrap();
        markets(&client, &["late-1", "late-2"]).await;
        before
    });
    for restarted in [false, true] {
        if restarted {
            node.kill();
            node = setup.start();
        }
        run(async {
            let client = node.client().await;
            let at = At { as_of: Some(before), ..At::default() };
            assert_eq!(client.count(Attribute::Market, None, at).await.unwrap().value, 1);
            assert_eq!(client.list_markets(at).await.unwrap().len(), 1);
            assert_eq!(client.count(Attribute::Market, None, At::default()).await.unwrap().value, 3);
        });
    }
}

#[test]
fn rows_come_back_in_the_order_they_were_applied_page_by_page() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["pages"]).await;
        let all: Vec<Tick> = (1..=12_000).map(|n| tick(ids[0], n, n as f64)).collect();
        for frame in all.chunks(1000) {
            done(&client.ticks(frame, Mode::Whole).await.unwrap());
        }
        let mut stretch = Some(Stretch { limit: 5000, ..Stretch::default() });
        let mut seen = Vec::new();
        while let Some(next) = stretch {
            let page = client.ticks_of(ids[0], next, At::default()).await.unwrap().value;
            seen.extend(page.rows);
            stretch = page.next;
        }
        assert!(seen.is_sorted_by_key(|found| (found.tx, found.n)));
        assert!(seen.iter().map(|found| &found.row).eq(&all), "every row, bit for bit, once");
        let from_ns = all[6000].event_time_ns;
        let some = Stretch { from_ns, to_ns: from_ns + 9, ..Stretch::default() };
        let page = client.ticks_of(ids[0], some, At::default()).await.unwrap().value;
        assert_eq!((page.rows.len(), page.next), (10, None));
    });
}
