//! The client against a small node that is busy, cuts lines, strays and disappears.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod fake;

use fake::{Fault, Shared, name_on, start};
use myelin_client::datom::{EntityId, Tick, Tx};
use myelin_client::wire::{Attribute, Code, MarketFlags, MarketSpec};
use myelin_client::{At, Client, Error, Lost, Mode, News, Options, Outcome, Part};
use std::time::Duration;

fn tick(market: EntityId, id: u64) -> Tick {
    Tick { market, id, price: 1.5, volume: 1.0, ..bytemuck::Zeroable::zeroed() }
}

async fn connect(addr: &str, options: Options) -> Client {
    Client::connect(addr, options).await.unwrap()
}

async fn markets(client: &Client, names: &[String]) -> Vec<EntityId> {
    let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }).collect();
    client.markets(&specs).await.unwrap()
}

fn accepted(parts: &[Part]) -> u32 {
    let of = |part: &Part| match &part.outcome {
        Outcome::Done(ack) => ack.accepted,
        other => panic!("expected an ack, found {other:?}"),
    };
    parts.iter().map(of).sum()
}

/// Sends ticks 1..=count one a frame, pipelined, and waits for all.
async fn send_singles(client: &Client, market: EntityId, count: u64) -> Vec<Part> {
    let mut sent = Vec::new();
    for id in 1..=count {
        sent.push(client.send_ticks(&[tick(market, id)], Mode::Whole).await.unwrap());
    }
    let mut parts = Vec::new();
    for one in sent {
        parts.extend(one.wait().await);
    }
    parts
}

fn stored(shared: &Shared, shard: u16) -> Vec<u64> {
    shared.lock().unwrap().stored.get(&shard).cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_batch_is_split_by_slot_and_each_part_goes_to_its_core() {
    let (addr, shared) = start(2, 100, &[]).await;
    let client = connect(&addr, Options::default()).await;
    let names = [name_on(1, 2), name_on(0, 2)];
    let ids = markets(&client, &names).await;
    let rows: Vec<Tick> = (1..=10).map(|id| tick(ids[id as usize % 2], id)).collect();
    let parts = client.ticks(&rows, Mode::Whole).await.unwrap();
    assert_eq!((parts.len(), accepted(&parts)), (2, 10));
    assert_eq!((stored(&shared, 0), stored(&shared, 1)), (vec![1, 3, 5, 7, 9], vec![2, 4, 6, 8, 10]));
    assert!(shared.lock().unwrap().came_to.iter().all(|(shard, cores)| cores.iter().all(|core| core == shard)));
    let count = client.count(Attribute::Tick, None, At::NOW).await.unwrap();
    assert_eq!((count.value, count.basis), (10, Tx::from_bits(101)), "both shards were asked at one moment");
}

#[tokio::test]
async fn one_connection_is_enough_behind_a_forwarded_port() {
    let (addr, shared) = start(2, 100, &[]).await;
    let client = connect(&addr, Options { one_connection: true, ..Options::default() }).await;
    let ids = markets(&client, &[name_on(1, 2)]).await;
    assert_eq!(accepted(&client.ticks(&[tick(ids[0], 1)], Mode::Whole).await.unwrap()), 1);
    assert_eq!(shared.lock().unwrap().came_to[&1], [0, 0]);
}

#[tokio::test]
async fn busy_in_the_middle_delays_and_loses_nothing() {
    let faults = [Fault::Busy { request: 40 }, Fault::Busy { request: 41 }, Fault::Busy { request: 90 }];
    let (addr, shared) = start(1, 16, &faults).await;
    let client = connect(&addr, Options::default()).await;
    let ids = markets(&client, &["m".to_owned()]).await;
    let parts = send_singles(&client, ids[0], 200).await;
    assert_eq!(accepted(&parts), 200);
    assert_eq!(stored(&shared, 0), (1..=200).collect::<Vec<u64>>());
    let state = shared.lock().unwrap();
    assert_eq!(state.resumes, [40, 41, 90]);
    assert!(state.most_at_once <= 16, "{} requests under way, 16 were granted", state.most_at_once);
}

#[tokio::test]
async fn a_cut_line_is_mended_and_every_tick_is_stored_once() {
    let faults = [Fault::CutAfter { request: 7 }, Fault::CutAfter { request: 8 }, Fault::CutAfter { request: 60 }];
    let (addr, shared) = start(1, 16, &faults).await;
    let client = connect(&addr, Options::default()).await;
    let ids = markets(&client, &["m".to_owned()]).await;
    let parts = send_singles(&client, ids[0], 100).await;
    assert_eq!(accepted(&parts), 100);
    assert_eq!(stored(&shared, 0), (1..=100).collect::<Vec<u64>>());
    assert_eq!(shared.lock().unwrap().hellos, 4);
}

#[tokio::test]
async fn a_stray_answer_ends_the_connection_and_not_the_request() {
    let (addr, shared) = start(1, 16, &[Fault::Stray { request: 3 }]).await;
    let client = connect(&addr, Options::default()).await;
    let ids = markets(&client, &["m".to_owned()]).await;
    assert_eq!(accepted(&send_singles(&client, ids[0], 5).await), 5);
    assert_eq!(stored(&shared, 0), [1, 2, 3, 4, 5]);
    assert_eq!(shared.lock().unwrap().hellos, 2);
}

#[tokio::test]
async fn a_node_that_does_not_come_back_leaves_the_outcome_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (real, _shared) = start(1, 16, &[]).await;
    // A line that passes the hello and the market on and is cut at the first tick, for good.
    let line = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut far = tokio::net::TcpStream::connect(real).await.unwrap();
        let (mut from_near, mut to_near) = near.split();
        let (mut from_far, mut to_far) = far.split();
        let forth = async {
            let mut frame = vec![0; 4096];
            loop {
                let read = tokio::io::AsyncReadExt::read(&mut from_near, &mut frame).await.unwrap();
                if read == 0 || frame[5] == 2 {
                    return;
                }
                tokio::io::AsyncWriteExt::write_all(&mut to_far, &frame[..read]).await.unwrap();
            }
        };
        tokio::select! { () = forth => {}, _ = tokio::io::copy(&mut from_far, &mut to_near) => {} }
    });
    let options = Options { reconnect_for: Duration::from_millis(50), one_connection: true, ..Options::default() };
    let client = connect(&addr, options).await;
    let ids = markets(&client, &["m".to_owned()]).await;
    let parts = client.ticks(&[tick(ids[0], 1)], Mode::Whole).await.unwrap();
    assert_eq!(parts[0].outcome, Outcome::Unknown(Lost::Connection));
    line.await.unwrap();
    let parts = client.ticks(&[tick(ids[0], 2)], Mode::Whole).await.unwrap();
    assert!(matches!(parts[0].outcome, Outcome::NotSent(_)), "{parts:?}");
    assert!(matches!(client.count(Attribute::Tick, None, At::NOW).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_row_without_shape_is_refused_before_it_is_sent() {
    let (addr, shared) = start(1, 16, &[]).await;
    let client = connect(&addr, Options::default()).await;
    let ids = markets(&client, &["m".to_owned()]).await;
    let rows = [tick(ids[0], 1), Tick { price: f64::NAN, ..tick(ids[0], 2) }];
    let Err(Error::Refused(refusal)) = client.ticks(&rows, Mode::Whole).await else { panic!("it was sent") };
    assert_eq!((refusal.code, refusal.first_bad), (Some(Code::PriceNotFinite), Some(1)));
    assert!(stored(&shared, 0).is_empty());
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let Err(Error::Unreachable { addr: told, .. }) = Client::connect(&addr, Options::default()).await else {
        panic!("somebody answered")
    };
    assert_eq!(told, addr);
}

#[tokio::test]
async fn firings_go_on_behind_the_last_one_seen_and_credit_follows_what_was_taken() {
    let (addr, shared) = start(1, 16, &[Fault::CutFirings { sent: 5 }, Fault::CutFirings { sent: 9 }]).await;
    shared.lock().unwrap().firings = 20;
    let client = connect(&addr, Options { firings_window: 30, ..Options::default() }).await;
    let mut subscription = client.subscribe(Some(8), &[]).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let Some(News::Firing(firing)) = subscription.next().await.unwrap() else { panic!("it ended") };
        seen.push(firing.row.tx);
    }
    assert_eq!(seen, (1..=20).collect::<Vec<u64>>());
    // The next answer comes after the grant was heard.
    client.now().await.unwrap();
    let state = shared.lock().unwrap();
    assert_eq!(state.subscribed_after, [0, 5, 9]);
    assert!(state.credits <= 15);
}

#[tokio::test]
async fn who_drops_a_subscription_ends_it_on_every_shard() {
    let (addr, shared) = start(2, 100, &[]).await;
    let client = connect(&addr, Options::default()).await;
    for count in 1..=20 {
        drop(client.subscribe(None, &[]).await.unwrap());
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while shared.lock().unwrap().ended.len() < 2 * count {
            assert!(tokio::time::Instant::now() < until, "the node is told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let ended: std::collections::BTreeSet<u64> = shared.lock().unwrap().ended.iter().copied().collect();
    assert_eq!((ended.len(), shared.lock().unwrap().ended.len()), (20, 40), "each once on each shard");
    assert_eq!(shared.lock().unwrap().hellos, 2, "over connections that stay");
}
