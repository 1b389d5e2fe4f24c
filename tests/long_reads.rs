//! Reads that go over much: exact while rows arrive and are sealed, in turns with a bound, ended when who asked has left.

use crate::node::{PATIENCE, Setup, done, markets, run, tick};
use myelin_client::{At, Client, Error, Mode, Stretch};
use myelin_datom::{EntityId, Tick};
use myelin_wire::{By, Code, TopAsk};
use std::time::Instant;

/// What a shard says of itself under this name.
async fn status(client: &Client, name: &str) -> u64 {
    let told = client.status().await.unwrap();
    let line = told[0].counters.iter().find(|(key, _)| key == name);
    line.map_or_else(|| panic!("no {name} in {told:?}"), |(_, value)| *value)
}

/// Ticks whose sums are exact in plain floats.
fn rows(ids: &[EntityId], first: u64, count: u64) -> Vec<Tick> {
    (first..first + count)
        .map(|id| {
            let made = tick(ids[id as usize % ids.len()], id, 1.0 + (id % 512) as f64 / 8.0);
            Tick { volume: (id % 16) as f64 / 4.0, event_time_ns: id as i64 * 1_000, ..made }
        })
        .collect()
}

async fn send(client: &Client, rows: &[Tick]) {
    for frame in rows.chunks(2000) {
        done(&client.ticks(frame, Mode::Whole).await.unwrap());
    }
}

#[test]
fn long_reads_are_exact_while_rows_arrive_and_no_turn_is_long() {
    let dir = tempfile::tempdir().unwrap();
    // The newest part grows beyond what a turn may look at.
    let mut setup = Setup::new(dir.path());
    setup.more.iter_mut().filter(|flag| *flag == "5000").for_each(|rows| *rows = "30000".to_owned());
    let node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["long:a", "long:b", "long:c"]).await;
        let mut sent = 100_000;
        let before = rows(&ids, 1, sent);
        send(&client, &before).await;
        let basis = client.now().await.unwrap();
        let at = At::as_of(basis);
        let of: Vec<&Tick> = before.iter().filter(|tick| tick.market == ids[1]).collect();
        let notional: f64 = of.iter().map(|tick| tick.price * tick.volume).sum();
        let volume: f64 = of.iter().map(|tick| tick.volume).sum();
        let top = TopAsk { by: By::Price, limit: 3, from_ns: i64::MIN, to_ns: i64::MAX };
        let writer = node.client().await;
        for _ in 0..12 {
            let more = rows(&ids, sent + 1, 10_000);
            sent += 10_000;
            let ((), vwap, bars, greatest) = tokio::join!(
                send(&writer, &more),
                client.vwap(None, at),
                client.bars(ids[1], 3_000_000, i64::MIN, i64::MAX, at),
                client.top(top, at),
            );
            let vwap = vwap.unwrap().value;
            let row = vwap.iter().find(|row| row.market == ids[1].bits()).unwrap();
            assert_eq!((row.count, row.volume, row.notional), (of.len() as u64, volume, notional));
            let bars = bars.unwrap().value;
            assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), of.len() as u64);
            assert_eq!(bars.iter().map(|bar| bar.volume).sum::<f64>(), volume);
            assert!(bars.len() > 30 && bars.is_sorted_by_key(|bar| bar.start_ns));
            let greatest = greatest.unwrap().value;
            assert_eq!(greatest.iter().map(|row| row.count).sum::<u64>(), before.len() as u64);
        }
        node.wait_for_checkpoints(2);
        let turn = status(&client, "read_turn_rows_max").await;
        assert!((1..=8192).contains(&turn), "a turn of {turn} rows");
    });
}

#[test]
fn more_long_reads_than_there_are_places_for_are_refused_and_those_who_leave_give_theirs_back() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["long:many"]).await;
        send(&client, &rows(&ids, 1, 40_000)).await;
        let all = |client: &Client| {
            let asks = (0..900).map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.vwap(None, At::NOW).await.map(|told| told.value[0].count) })
            });
            asks.collect::<Vec<_>>()
        };
        // One that leaves in the middle of it, and one that stays.
        let leaves = node.client().await;
        let left = all(&leaves);
        left.iter().for_each(tokio::task::JoinHandle::abort);
        drop(leaves);
        let (mut answered, mut busy) = (0, 0);
        for one in all(&client) {
            match one.await.unwrap() {
                Ok(count) => {
                    assert_eq!(count, 40_000);
                    answered += 1;
                }
                Err(Error::Refused(refusal)) if refusal.code == Some(Code::Busy) => busy += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(answered >= 128, "{answered} answered, {busy} refused");
        let until = Instant::now() + PATIENCE;
        while client.vwap(None, At::NOW).await.is_err() {
            assert!(Instant::now() < until, "the places come back");
        }
    });
}

#[test]
fn a_page_whose_times_match_few_rows_is_short_and_all_pages_together_are_whole() {
    let node = Setup::fresh().start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["long:sparse"]).await;
        // Times in no order: no block can be passed over by them.
        let time = |id: u64| (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i64;
        let all: Vec<Tick> =
            rows(&ids, 1, 90_000).into_iter().map(|tick| Tick { event_time_ns: time(tick.id), ..tick }).collect();
        send(&client, &all).await;
        node.wait_for_checkpoints(2);
        let (from_ns, to_ns) = (1_000_000, 1_010_000);
        let mut at = At::NOW;
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut next = Some(Stretch { from_ns, to_ns, ..Stretch::default() });
        while let Some(stretch) = next {
            let page = client.ticks_of(ids[0], stretch, at).await.unwrap();
            at = At::as_of(page.basis);
            found.extend(page.value.rows.iter().map(|found| found.row.id));
            next = page.value.next;
            pages += 1;
        }
        let due = all.iter().filter(|tick| (from_ns..=to_ns).contains(&tick.event_time_ns)).map(|tick| tick.id);
        assert!(found.iter().copied().eq(due), "{found:?}");
        assert!((2..10).contains(&pages) && (1..1000).contains(&found.len()), "{pages} pages, {} rows", found.len());
    });
}
