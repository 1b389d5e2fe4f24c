//! The greatest markets: over all shards exactly what one pass over all ticks gives, as of any moment, in every surface.

use crate::node::{Setup, done, markets, run, tick};
use myelin_client::{At, Mode};
use myelin_datom::{EntityId, Tick, Tx};
use myelin_wire::{By, Code, TopAsk};

const ALL: TopAsk = TopAsk { by: By::Count, limit: 4096, from_ns: i64::MIN, to_ns: i64::MAX };

/// What is due, by the plainest means: in dyadic numbers, whose sums in f64 are exact.
fn due(ids: &[EntityId], ticks: &[Tick], ask: TopAsk) -> Vec<(EntityId, u64, f64, f64, f64, f64)> {
    let mut rows = Vec::new();
    for id in ids {
        let of: Vec<&Tick> = ticks
            .iter()
            .filter(|tick| tick.market == *id && (ask.from_ns..=ask.to_ns).contains(&tick.event_time_ns))
            .collect();
        let first = of.iter().min_by_key(|tick| tick.event_time_ns);
        let last = of.iter().max_by_key(|tick| tick.event_time_ns);
        let (Some(first), Some(last)) = (first, last) else { continue };
        let volume: f64 = of.iter().map(|tick| tick.volume).sum();
        let notional: f64 = of.iter().map(|tick| tick.price * tick.volume).sum();
        rows.push((*id, of.len() as u64, volume, notional, first.price, last.price));
    }
    let measure = |row: &(EntityId, u64, f64, f64, f64, f64)| match ask.by {
        By::Count => row.1 as f64,
        By::Volume => row.2,
        By::Notional => row.3,
        By::Price => row.5,
        By::Move => ((row.5 - row.4) / row.4).abs(),
    };
    rows.sort_by(|a, b| measure(b).total_cmp(&measure(a)).then(a.0.cmp(&b.0)));
    rows.truncate(ask.limit as usize);
    rows
}

#[test]
fn the_greatest_of_all_shards_are_those_of_one_pass_over_every_tick() {
    let node = Setup::fresh().shards(2).start();
    run(async {
        let client = node.client().await;
        let names: Vec<String> = (0..40).map(|n| format!("top-{n}")).collect();
        let ids = markets(&client, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut moments: Vec<(Tx, usize)> = Vec::new();
        let mut ticks: Vec<Tick> = Vec::new();
        for round in 0..12_u64 {
            // The last markets stay without ticks; event times do not ascend.
            let rows: Vec<Tick> = (0..700)
                .map(|n| {
                    let made = tick(ids[draw(37) as usize], round * 1000 + n + 1, 1.0 + draw(512) as f64 / 8.0);
                    let event_time_ns = made.event_time_ns + (draw(1000) * 1_000_000 + round * 1000 + n) as i64;
                    Tick { volume: draw(64) as f64 / 4.0, event_time_ns, ..made }
                })
                .collect();
            done(&client.ticks(&rows, Mode::Whole).await.unwrap());
            ticks.extend(rows);
            moments.push((client.now().await.unwrap(), ticks.len()));
        }
        let from_ns = 1_700_000_000_200_000_000;
        for by in By::ALL.map(|(by, _)| by) {
            for (limit, from_ns, to_ns) in
                [(5, i64::MIN, i64::MAX), (4096, i64::MIN, i64::MAX), (7, from_ns, from_ns + 400_000_000)]
            {
                let ask = TopAsk { by, limit, from_ns, to_ns };
                for (moment, count) in [moments[0], moments[5], moments[11]] {
                    let told = client.top(ask, At::as_of(moment)).await.unwrap();
                    assert_eq!(told.basis, moment);
                    let told: Vec<_> = told
                        .value
                        .iter()
                        .map(|row| {
                            (EntityId::from_bits(row.market), row.count, row.volume, row.notional, row.first, row.last)
                        })
                        .collect();
                    assert_eq!(told, due(&ids, &ticks[..count], ask), "{ask:?}");
                }
            }
        }
        for limit in [0, 4097] {
            let refused = client.top(TopAsk { limit, ..ALL }, At::NOW).await;
            assert!(matches!(refused, Err(myelin_client::Error::Refused(why)) if why.code == Some(Code::TooMany)));
        }
    });
}

#[test]
fn the_command_line_and_http_say_the_same() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["small", "great", "none"]).await;
        let rows = [tick(ids[0], 1, 4.0), tick(ids[0], 2, 2.0), Tick { volume: 9.0, ..tick(ids[1], 1, 3.0) }];
        done(&client.ticks(&rows, Mode::Whole).await.unwrap());
    });
    let (code, out) = node.myelin(&["top", "--by", "volume", "--limit", "10", "-o", "json"]);
    assert_eq!(code, Some(0));
    let mut told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told[0]["market"], "great");
    // HTTP says the moment once, beside the rows.
    let tx = told[1].as_object_mut().and_then(|row| row.remove("tx")).expect("the moment that was read");
    assert!(tx.as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(
        told[1],
        serde_json::json!({ "market": "small", "count": 2, "volume": 2.0, "notional": 6.0, "first": 4.0, "last": 2.0, "move": -0.5 })
    );
    let (status, body) = node.get("/v2/query/as_of/now?top=move&limit=1");
    let said: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &said["by"], said["top"].as_array().unwrap().len()), (200, &"move".into(), 1));
    for (key, value) in told[1].as_object().unwrap() {
        assert_eq!(&said["top"][0][key], value, "{key}");
    }
    assert_eq!(node.get("/v2/query/as_of/now?top=luck").0, 400);
    assert_eq!(node.get("/v2/query/as_of/now?top=volume&market=small").0, 400);
}

/// Sums that rounding part by part would spoil: over three markets on two shards, in any split, as over sorted rows.
#[test]
fn totals_of_all_shards_are_those_of_one_pass_and_are_rounded_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["sum:a", "sum:b", "sum:c", "sum:d"]).await;
        assert!(
            ["sum:b", "sum:c", "sum:d"].iter().any(|name| client.shard_of_name(name) != client.shard_of_name("sum:a")),
            "on one shard there is nothing to merge"
        );
        // 2^53 and ones: one after the other, each 1 is lost.
        let great = 9_007_199_254_740_992.0;
        let prices = [great, 1.0, 1.0, 1.0];
        for (n, price) in prices.into_iter().enumerate() {
            let row = Tick { volume: 0.1, event_time_ns: n as i64, ..tick(ids[n], 1, price) };
            done(&client.ticks(&[row], Mode::Whole).await.unwrap());
        }
        let all = client.totals(None, i64::MIN, i64::MAX, At::NOW).await.unwrap();
        let totals = &all.value;
        assert_eq!((totals.count, totals.price_min, totals.price_max), (4, 1.0, great));
        assert_eq!(totals.price.round(), great + 4.0, "2^53 + 3, rounded once, to the even one");
        let later = tick(ids[0], 2, 5.0);
        done(&client.ticks(&[later], Mode::Whole).await.unwrap());
        let again = client.totals(None, i64::MIN, i64::MAX, At::as_of(all.basis)).await.unwrap();
        assert_eq!(again.value, *totals, "as of the moment that was told");
        let some = client.totals(None, 1, 2, At::NOW).await.unwrap().value;
        assert_eq!((some.count, some.price.round()), (2, 2.0));
        let one = client.totals(Some(ids[1]), i64::MIN, i64::MAX, At::NOW).await.unwrap().value;
        assert_eq!((one.count, one.average_price()), (1, Some(1.0)));
    });
    let (code, out) = node.myelin(&["totals", "--market", "sum:b", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["count"], &told["price_max"], &told["volume_sum"]),
        (Some(0), &1.into(), &1.0.into(), &0.1.into())
    );
}
