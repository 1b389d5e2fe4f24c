//! Totals over HTTP: exact, or rounded once, wherever the rows are and however many shards have a part.

use super::{NDJSON, RAW, counts, get, lines, post, row};
use crate::node::{Setup, run, tick};
use serde_json::{Value, json};

#[test]
fn totals_over_all_shards_are_rounded_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).shards(2).start();
    let totals = |tx: &str, query: &str| get(&node, &format!("/v2/query/as_of/{tx}?totals=true{query}")).json();
    let empty = totals("now", "");
    assert_eq!(
        json!([empty["count"], empty["price_sum"], empty["price_avg"], empty["price_min"]]),
        json!([0, 0.0, null, null])
    );
    // 2^53 + 1 is no float: parts that are rounded before they are put together lose the 1.
    let rows = [row("a", 1, 9_007_199_254_740_992.0), row("b", 1, 1.0), row("c", 1, 0.0)];
    let first = post(&node, "create_markets=true", NDJSON, &lines(&rows)).json();
    let then = first["tx"].as_str().unwrap().to_owned();
    let all = totals("now", "");
    assert_eq!(
        json!([all["market"], all["count"], all["price_sum"], all["price_avg"], all["price_min"], all["price_max"]]),
        json!([null, 3, 9_007_199_254_740_992.0, 3_002_399_751_580_331.0, 0.0, 9_007_199_254_740_992.0])
    );
    assert_eq!(totals("now", "&market=b")["price_sum"], json!(1.0));
    // Sealed and not, as of then and of now, and by event time.
    let ids = run(async { crate::node::markets(&node.client().await, &["a", "b", "c"]).await });
    let rows: Vec<_> = (2..30_002_u64)
        .map(|n| {
            let mut tick = tick(ids[n as usize % 3], n, 1.0 + (n % 7) as f64);
            tick.volume = (n % 1000) as f64;
            tick
        })
        .collect();
    for part in rows.chunks(10_000) {
        assert_eq!(counts(&post(&node, "", RAW, bytemuck::cast_slice(part))), (10_000, 0, 0));
    }
    node.wait_for_checkpoints(1);
    let sum: f64 = rows.iter().map(|row| row.volume).sum();
    let volume = totals("now", "");
    assert_eq!(
        json!([volume["count"], volume["volume_sum"], volume["volume_avg"], volume["corrections"]]),
        json!([30_003, sum + 3.0, (sum + 3.0) / 30_003.0, 0])
    );
    let of_then = |key: &str| totals(&then, "")[key].clone();
    assert_eq!((of_then("count"), of_then("price_avg")), (json!(3), all["price_avg"].clone()));
    // Event time: 2023-11-14T22:13:20Z and as many nanoseconds as the id.
    let of_some = totals("now", "&market=a&from=2023-11-14T22:13:20.000000999Z&to=2023-11-14T22:13:20.000001002Z");
    assert_eq!(json!([of_some["count"], of_some["volume_sum"]]), json!([2, 999.0 + 2.0]), "{of_some}");
    for (query, status) in [("what", 400), ("true&market=nowhere", 422), ("true&limit=5", 400), ("true&from=5", 400)] {
        assert_eq!(get(&node, &format!("/v2/query/as_of/now?totals={query}")).status, status, "{query}");
    }
    assert_ne!(totals("now", "")["tx"], Value::Null);
}
