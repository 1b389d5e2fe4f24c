//! Mutations of valid inputs: whatever the bytes, no panic, sound rows, nothing lost, and no dependence on how the
//! bytes arrive.
//!
//! `MYELIN_CAMPAIGN=ci` makes a million trials of each instead of a hundred thousand. A failure prints its seed, and
//! `trial` with that seed repeats it. Deliberately absent: coverage guidance; that is for a fuzzer with hours.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use myelin_datom::{EntityId, Row, Slot};
use myelin_feed::{Batch, FeedError, Format, OnBadRow, Options, Reader};

use crate::formats::csv;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Gives a few bytes a read, and now and then is interrupted.
struct Drip {
    bytes: Vec<u8>,
    at: usize,
    random: Random,
}

impl Read for Drip {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.random.below(16) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = (1 + self.random.below(200)).min(into.len()).min(self.bytes.len() - self.at);
        into[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Pieces that are worth putting in.
const PIECES: [&[u8]; 28] = [
    b",",
    b"\"",
    b"\n",
    b"\r\n",
    b"-",
    b".",
    b"e999",
    b"NaN",
    b"inf",
    b"-0.0",
    b"0",
    b"99999999999999999999",
    b"\xff",
    b"\0",
    b"{",
    b"}",
    b":",
    b"\\u",
    b"\\ud800",
    b"null",
    b"[[[[",
    b"\xef\xbb\xbf",
    b"buy",
    b"2024-02-30T00:00:00Z",
    b"\\\"",
    b" ",
    b"1e-400",
    b"\"\"",
];

fn mutated(valid: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(32) {
        // Short inputs and blank ones, which few mutations away from a valid input there are.
        0 => (0..random.below(6)).flat_map(|_| PIECES[random.below(PIECES.len())].iter().copied()).collect(),
        1 => b"\n".repeat(random.below(4)),
        _ => valid.to_vec(),
    };
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len());
        let to = (at + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..to)),
            3 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].iter().copied())),
            4 => drop(bytes.splice(at..to, PIECES[random.below(PIECES.len())].iter().copied())),
            5 => {
                let copy = bytes[at..to].to_vec();
                let place = random.below(bytes.len());
                bytes.splice(place..place, copy);
            }
            _ => bytes.truncate(bytes.len() - random.below(bytes.len().min(8))),
        }
    }
    bytes
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Read { rows: Batch, names: Vec<String>, skipped: u64, lines: u64 },
    Refused(String),
}

fn outcome(input: impl Read + Send + 'static, options: &Options, per_batch: usize) -> Outcome {
    let mut reader = match Reader::from_reader(input, "x", None, options) {
        Ok(reader) => reader,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let (mut rows, mut batch) = (Batch::default(), Batch::default());
    loop {
        let result = reader.next_batch(per_batch, &mut batch);
        rows.ticks.append(&mut batch.ticks);
        rows.quotes.append(&mut batch.quotes);
        rows.markets.append(&mut batch.markets);
        rows.received_time_ns.append(&mut batch.received_time_ns);
        match result {
            Ok(0) => break,
            Ok(_) => {}
            Err(error @ (FeedError::Row { .. } | FeedError::TooManyMarkets { .. })) => {
                assert!(!error.to_string().is_empty());
                assert!(options.on_bad_row == OnBadRow::Stop || matches!(error, FeedError::TooManyMarkets { .. }));
                return Outcome::Refused(error.to_string());
            }
            Err(error) => return Outcome::Refused(error.to_string()),
        }
    }
    let ids = vec![EntityId::market(Slot::new(1).unwrap(), 1); reader.names().len()];
    rows.resolve(&ids).unwrap();
    assert!(rows.ticks.iter().all(|row| row.flaw().is_none()) && rows.quotes.iter().all(|row| row.flaw().is_none()));
    assert_eq!(rows.ticks.len() + rows.quotes.len(), rows.markets.len());
    assert_eq!(rows.received_time_ns.len(), rows.markets.len());
    let (names, progress) = (reader.names().to_vec(), reader.progress());
    assert_eq!((progress.rows, progress.skipped), (rows.len() as u64, reader.skipped().count));
    assert_eq!(reader.skipped().first.len() as u64, progress.skipped.min(100));
    assert!(progress.rows + progress.skipped <= progress.lines);
    Outcome::Read { rows, names, skipped: progress.skipped, lines: progress.lines }
}

/// One mutated input, read at once and in drips: both must tell the same.
fn trial(corpus: &[(Options, Vec<u8>)], seed: u64) -> (Vec<u8>, Outcome) {
    let mut random = Random(seed);
    let (options, valid) = &corpus[random.below(corpus.len())];
    let mut options = options.clone();
    if random.below(4) > 0 {
        options.on_bad_row = OnBadRow::Skip;
    }
    if random.below(8) == 0 {
        options.line_bytes_max = 40 + random.below(80);
        options.markets_max = 1 + random.below(3);
    }
    let bytes = mutated(valid, &mut random);
    let at_once = outcome(io::Cursor::new(bytes.clone()), &options, 1 << 20);
    let drip = Drip { bytes: bytes.clone(), at: 0, random: Random(seed) };
    let in_drips = outcome(drip, &options, 1 + random.below(3));
    let packed = valid.starts_with(&[0x1f]) || valid.starts_with(&[0x28, 0xb5]);
    let refused_both = matches!((&at_once, &in_drips), (Outcome::Refused(_), Outcome::Refused(_)));
    // What a damaged compressed stream says may name another byte; that it is refused does not change.
    assert!(at_once == in_drips || (refused_both && packed), "{at_once:?}\n{in_drips:?}");
    (bytes, at_once)
}

fn campaign(name: &str, corpus: &[(Options, Vec<u8>)], divide: u64, also: impl Fn(&[u8], &Outcome)) {
    let full = if std::env::var("MYELIN_CAMPAIGN").is_ok_and(|which| which == "ci" || which == "long") {
        1_000_000
    } else {
        100_000
    };
    let trials = full / divide;
    for (options, valid) in corpus {
        let outcome = outcome(io::Cursor::new(valid.clone()), options, 10);
        assert!(matches!(&outcome, Outcome::Read { rows, skipped: 0, .. } if rows.len() >= 3), "{outcome:?}");
    }
    let mut failures = 0;
    for seed in 0..trials {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let (bytes, outcome) = trial(corpus, seed);
            also(&bytes, &outcome);
        }));
        if result.is_err() {
            failures += 1;
            eprintln!("campaign {name}: seed {seed} failed");
        }
        assert!(failures < 10, "campaign {name}: too many failures");
    }
    println!("campaign {name} trials={trials} failures={failures} bound={:.1e}", 3.0 / trials as f64);
    assert_eq!(failures, 0);
}

const TRADES: &str = "received_ns,market,trade_id,exchange_ms,price,quantity,buyer_is_maker\n\
    1723161254087896568,binance-spot:BTCUSDT,3735683259,1723161255342,61837.63000000,0.02000000,1\n\
    1723161254340863867,binance-spot:ETHUSDT,1520538925,,2683.80000000,0.00200000,0\n\
    1723161254340863868,binance-spot:BTCUSDT,3735683260,1723161255343,61837.64000000,0.00001000,1\n";
const QUOTES: &str = "received_ns,market,update_id,exchange_ms,bid,bid_quantity,ask,ask_quantity\r\n\
    1723161254024619568,binance-spot:ETHUSDT,35346513501,,2683.80000000,3.02920000,2683.81000000,31.43950000\r\n\
    1723161255088165267,binance-usdm:ETHUSDT,5123107838717,1723161256310,2681.62,1.165,2681.63,73.077\r\n\
    1723161255088165268,binance-usdm:ETHUSDT,5123107838718,1723161256311,2681.62,1.165,2681.63,73.078";
const PREDICTIONS: &str = "market,trade_id,time,trader,side,cost,shares,net_shares,price\r\n\
    RPP-7,4804,2012-11-09T10:08:00Z,d7rtl,sell,100,1.990098929,1.990098929,0.4950249168746296\r\n\
    RPP-1,4805,2012-11-09T10:08:20Z,37qus,sell,1000,19.0902828926,19.0902828926,0.45241870901807435\r\n\
    RPP-14,4806,2012-11-09T10:08:41Z,d7rtl,buy,1000,-19.0902828926,-19.0902828926,0.5475812909819257\r\n";
const QUOTED: &str = "\"ts\";px;qty;sym;side\n\"1.5\";1;2;\"a\"\"b\";buy\n2.25;\"3\";4;c;S\n\n3;5;6;\"d;e\";\n";
const OBJECTS: &str = concat!(
    r#"{"market":"v:BTC","id":"18446744073709551615","event_time_ns":1723161255342000000,"price":"61837.63","volume":0.02,"side":"sell"}"#,
    "\n",
    r#"{"price":1e2,"volume":"0","market":"\u00e9\ud83d\ude00\/","event_time":"1970-01-01T00:00:00.5Z","side":1,"id":null}"#,
    "\n",
    r#" { "market" : "v:BTC" , "received_time_ms" : 1.5 , "price" : 1 , "volume" : 1, "trader":3,"source":"4" } "#,
    "\n",
);
const QUOTE_OBJECTS: &str = concat!(
    r#"{"market":"m","bid":1,"bid_volume":"2","ask":3.5E-1,"ask_volume":4,"event_time_s":5,"received_time":"2024-08-08T00:00:00+01:00"}"#,
    "\n",
    r#"{"market":"m","bid":1,"bid_volume":"2","ask":3,"ask_volume":4,"event_time_us":6}"#,
    "\n",
    r#"{"market":"n","bid":1,"bid_volume":"2","ask":3,"ask_volume":4,"event_time_ms":7}"#,
);

fn corpus(texts: &[(Options, &str)]) -> Vec<(Options, Vec<u8>)> {
    texts.iter().map(|(options, text)| (options.clone(), text.as_bytes().to_vec())).collect()
}

fn named(format: Format) -> Options {
    Options { format, ..Options::default() }
}

#[test]
fn no_csv_bytes_break_the_reader() {
    let quoted = Options { delimiter: b';', ..csv("event_time=ts:s,price=px,volume=qty,market=sym,side=side") };
    let texts = corpus(&[
        (named(Format::Auto), TRADES),
        (named(Format::BinanceQuotes), QUOTES),
        (named(Format::PredictionMarkets), PREDICTIONS),
        (quoted, QUOTED),
    ]);
    campaign("feed-csv", &texts, 1, |_, _| {});
}

#[test]
fn no_ndjson_bytes_break_the_reader_and_what_it_takes_is_json() {
    let texts = corpus(&[(named(Format::Ndjson), OBJECTS), (named(Format::Auto), QUOTE_OBJECTS)]);
    campaign("feed-ndjson", &texts, 1, |bytes, outcome| {
        // Every row that was taken is an object for another reader too.
        if let Outcome::Read { rows, .. } = outcome {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let is_object =
                |line: &&[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
            let objects = bytes.split(|&byte| byte == b'\n').filter(is_object).count();
            assert!(objects >= rows.len(), "{objects} objects, {} rows", rows.len());
        }
    });
}

#[test]
fn no_packed_bytes_break_the_reader() {
    let many =
        TRADES.to_owned() + &TRADES.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>().repeat(20);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, many.as_bytes()).unwrap();
    let packed = [gzip.finish().unwrap(), zstd::encode_all(many.as_bytes(), 3).unwrap()];
    let corpus = packed.map(|bytes| (named(Format::Auto), bytes));
    campaign("feed-packed", &corpus, 10, |_, _| {});
}
