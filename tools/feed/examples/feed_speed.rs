//! How fast a plain CSV, an NDJSON and a tape become rows on one core. Prints one line each.
//!
//! `cargo run --release -p myelin-feed --example feed_speed [FILE]`; without a file,
//! 4 million generated rows in memory.
//!
//! A measurement, not a test: nothing fails here when a machine is slow. Deliberately absent: sockets.

use std::fmt::Write as _;
use std::io::Cursor;
use std::time::Instant;

use myelin_feed::{Batch, FeedError, Options, Reader, Tape};

const ROWS: usize = 4_000_000;
const BATCH: usize = 1_000;

fn main() -> Result<(), FeedError> {
    if let Some(path) = std::env::args().nth(1) {
        return measure(&path, || Reader::open(&path, &Options::default()));
    }
    let mut tape = Tape::new(1, 100, 1_723_161_254_000_000_000);
    let mut csv = String::from("received_ns,market,trade_id,exchange_ms,price,quantity,buyer_is_maker\n");
    let mut ndjson = String::new();
    for n in 0..ROWS {
        let (market, tick) = tape.next_tick();
        let (name, ms) = (&tape.names()[market as usize], tick.event_time_ns / 1_000_000);
        let (id, ns, price, volume) = (tick.id + 3_735_683_259, tick.event_time_ns + 350_000, tick.price, tick.volume);
        let maker = u8::from(tick.side == 2);
        // A string takes any text.
        let _ = writeln!(csv, "{ns},{name},{id},{ms},{price:.8},{volume:.8},{maker}");
        if n < ROWS / 4 {
            let _ = writeln!(
                ndjson,
                r#"{{"market":"{name}","id":"{id}","event_time_ns":{ns},"price":{price},"volume":{volume},"side":{}}}"#,
                tick.side
            );
        }
    }
    let (csv, ndjson) = (csv.into_bytes(), ndjson.into_bytes());
    for _ in 0..3 {
        let (csv, ndjson) = (csv.clone(), ndjson.clone());
        measure("csv", || Reader::from_reader(Cursor::new(csv), "csv", None, &Options::default()))?;
        measure("ndjson", || Reader::from_reader(Cursor::new(ndjson), "ndjson", None, &Options::default()))?;
        for (name, shuffle) in [("tape", 1), ("tape, shuffled", 64)] {
            let mut tape = Tape::new(2, 100, 0).with_shuffle(shuffle);
            let mut batch = Batch::with_capacity(BATCH);
            let began = now();
            let mut sum = 0_u64;
            for _ in 0..10 * ROWS / BATCH {
                tape.next_batch(BATCH, &mut batch);
                sum = sum.wrapping_add(batch.ticks.last().map_or(0, |tick| tick.id));
            }
            let ns = began.elapsed().as_nanos() as f64 / (10 * ROWS) as f64;
            println!("{name}: {ns:.1} ns a tick (check {sum})");
        }
    }
    Ok(())
}

fn measure(name: &str, open: impl FnOnce() -> Result<Reader, FeedError>) -> Result<(), FeedError> {
    let began = now();
    let mut reader = open()?;
    let mut batch = Batch::with_capacity(BATCH);
    while reader.next_batch(BATCH, &mut batch)? > 0 {}
    let (seconds, progress) = (began.elapsed().as_secs_f64(), reader.progress());
    let (millions, megabytes) = (progress.rows as f64 / 1e6, progress.bytes_read as f64 / 1e6);
    println!(
        "{name}: {} rows, {:.2} million rows/s, {:.0} MB/s as it lies there",
        progress.rows,
        millions / seconds,
        megabytes / seconds
    );
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}
