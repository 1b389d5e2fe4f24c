//! Tables: a text and the rows it gives, or the refusal with its line and column.
//!
//! A row is shown as `market#id event+delta price*volume side flags`, a quote as `market#id event+delta bid*v ask*v`.

use std::fmt::Write as _;
use std::io::Cursor;

use myelin_datom::{Flaw, received_delta};
use myelin_feed::{Batch, ColumnMap, FeedError, Format, OnBadRow, Options, Reader, RowKind, parse_delimiter};

pub(crate) fn csv(map: &str) -> Options {
    Options { map: Some(map.parse().unwrap()), ..Options::default() }
}

fn read(text: &str, name: &str, options: &Options) -> Result<(String, Reader), FeedError> {
    let mut reader = Reader::from_reader(Cursor::new(text.as_bytes().to_vec()), name, None, options)?;
    let (mut shown, mut batch) = (String::new(), Batch::default());
    while reader.next_batch(2, &mut batch)? > 0 {
        for (n, tick) in batch.ticks.iter().enumerate() {
            let name = &reader.names()[batch.markets[n] as usize];
            let delta = delta(tick.received_delta_us);
            let (side, flags) = (["-", "B", "S"][tick.side as usize], tick.flags);
            let trader = tick.trader.bits();
            let (id, at, price, volume, source) = (tick.id, tick.event_time_ns, tick.price, tick.volume, tick.source);
            writeln!(shown, "{name}#{id} {at}{delta} {price}*{volume} {side} f{flags} t{trader} s{source}").unwrap();
        }
        for (n, quote) in batch.quotes.iter().enumerate() {
            let name = &reader.names()[batch.markets[n] as usize];
            let (id, at, delta) = (quote.id, quote.event_time_ns, delta(quote.received_delta_us));
            let (bid, bid_volume, ask, ask_volume) = (quote.bid, quote.bid_volume, quote.ask, quote.ask_volume);
            writeln!(shown, "{name}#{id} {at}{delta} {bid}*{bid_volume} {ask}*{ask_volume}").unwrap();
        }
    }
    Ok((shown, reader))
}

fn delta(us: i32) -> String {
    if us == received_delta::UNKNOWN { "+?".to_owned() } else { format!("{us:+}") }
}

#[track_caller]
fn check(text: &str, options: &Options, expected: &str) {
    match read(text, "x", options) {
        Ok((shown, _)) => assert_eq!(shown.trim_end(), expected, "{text}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
    }
}

#[test]
fn a_map_names_columns_units_and_a_constant_market() {
    let map = "price=px,volume=qty,market=symbol,id=trade_id,event_time=ts:ms,side=dir,received_time=seen:ns";
    check(
        "ts,seen,symbol,trade_id,px,qty,dir,note\n5,5250000,a,7,1.5,2,buy,x\n5,,\"b,c\",8,1e-3,0,2,\"say \"\"hi\"\"\"\n,9000,a,9,3,4,,\n",
        &csv(map),
        "a#7 5000000+250 1.5*2 B f0 t0 s0\nb,c#8 5000000+? 0.001*0 S f0 t0 s0\na#9 9000+0 3*4 - f1 t0 s0",
    );
    let options =
        Options { delimiter: parse_delimiter("tab").unwrap(), ..csv("market==v:X,price=p,volume=v,event_time=t:s") };
    check("p\tv\tt\r\n\r\n1\t2\t3.5\r\n", &options, "v:X#0 3500000000+? 1*2 - f0 t0 s0");
    let columns = Some("id,p,q,quote,t,maker,best".split(',').map(str::to_owned).collect());
    let dump = Options { columns, ..csv("market==BTCUSDT,id=id,price=p,volume=q,event_time=t:ms,side=maker:maker") };
    check(
        "1,2.0,3.0,6.0,4,True,True\n2,2.0,3.0,6.0,5,False,True",
        &dump,
        "BTCUSDT#1 4000000+? 2*3 S f0 t0 s0\nBTCUSDT#2 5000000+? 2*3 B f0 t0 s0",
    );
    let quotes = csv("market=m,bid=b,bid_volume=bv,ask=a,ask_volume=av,received_time_us=r,source=s");
    check("m,b,bv,a,av,r,s\nx,1,2,3,4,5,6\n", &quotes, "x#0 5000+0 1*2 3*4");
}

#[test]
fn own_names_need_no_map_and_known_headers_no_format() {
    let own = "market,event_time,price,volume,trader,source,comment\na,1970-01-01T00:00:01Z,-1,2,3,4,x\n";
    check(own, &Options::default(), "a#0 1000000000+? -1*2 - f0 t3 s4");
    let trades =
        "received_ns,market,trade_id,exchange_ms,price,quantity,buyer_is_maker\n2000,m,1,,1,2,1\n1000000,m,2,1,1,2,0\n";
    check(trades, &Options::default(), "m#1 2000+0 1*2 S f1 t0 s0\nm#2 1000000+0 1*2 B f0 t0 s0");
    let (_, reader) = read("{}", "x", &Options { on_bad_row: OnBadRow::Skip, ..Options::default() }).unwrap();
    assert_eq!((reader.format(), reader.skipped().count), (Format::Ndjson, 1));
    let (_, reader) = read("", "x.ndjson.gz", &Options::default()).unwrap();
    assert_eq!(reader.format(), Format::Ndjson);
}

/// The first line is read at opening and put back. Where every line was blank there was nothing to put back, and the
/// window had moved on: the reader once looked for its line in front of the window.
#[test]
fn an_input_of_blank_lines_has_no_rows() {
    let names = Some(["m", "n", "t"].map(str::to_owned).into());
    let columns = Options { columns: names, ..csv("market==a,price=m,volume=n,event_time=t:s") };
    for text in ["", "\n", "\n\n", " \r\n\n  ", &"\n".repeat(100_000)] {
        for options in [Options { format: Format::Ndjson, ..Options::default() }, columns.clone()] {
            let (shown, reader) = read(text, "x", &options).unwrap();
            assert_eq!((shown.as_str(), reader.progress().lines), ("", text.lines().count() as u64), "{text:?}");
        }
    }
}

#[test]
fn a_refused_row_is_told_by_line_and_column() {
    let options = csv("market=m,id=i,price=p,volume=v,event_time=t:ns,side=s,trader=w,source=f");
    let rows = [
        ("a,1,x,1,1,b,,", r#"column p: expected a decimal number, found "x""#),
        ("a,1,,1,1,b,,", r#"column p: expected a decimal number, found """#),
        ("a,1,NaN,1,1,b,,", r#"column p: expected a price that is a finite number, found "NaN""#),
        ("a,1,1e999,1,1,b,,", r#"column p: expected a price that is a finite number, found "1e999""#),
        ("a,1,-0.0,1,1,b,,", r#"column p: expected a price that is not negative zero, found "-0.0""#),
        ("a,1,1,-1,1,b,,", r#"column v: expected a volume that is not negative, found "-1""#),
        ("a,1,1,-0,1,b,,", r#"column v: expected a volume that is not negative, found "-0""#),
        ("a,1,1,inf,1,b,,", r#"column v: expected a volume that is a finite number, found "inf""#),
        ("a,,1,1,1,b,,", r#"column i: expected a whole number below 2^64, found """#),
        (
            "a,18446744073709551616,1,1,1,b,,",
            r#"column i: expected a whole number below 2^64, found "18446744073709551616""#,
        ),
        ("a,1,1,1,,b,,", "column event_time: expected the event's time or its arrival, found nothing"),
        ("a,1,1,1,1.5,b,,", r#"column t: expected Unix nanoseconds, whole, from 1677 to 2262, found "1.5""#),
        (
            "a,1,1,1,1,3,,",
            r#"column s: expected a side: buy, sell, b, s, 1 (buy), 2 (sell), or 0 (unknown), found "3""#,
        ),
        ("a,1,1,1,1,b,bob,", r#"column w: expected a trader's entity id, a whole number below 2^64, found "bob""#),
        (
            "a,1,1,1,1,b,,4294967296",
            r#"column f: expected a source's number, whole and below 2^32, found "4294967296""#,
        ),
        (",1,1,1,1,b,,", r#"column market: expected a market name, found """#),
        (
            "a b,1,1,1,1,b,,",
            r#"column market: expected a market name without white space, control characters and *, found "a b""#,
        ),
        ("a,1,1,1", "column line: expected 8 fields as in the header, found 4 fields"),
        ("a,1,1,1,1,b,,,", "column line: expected 8 fields as in the header, found 9 fields"),
        ("\"a,1,1,1,1,b,,", r#"column line: expected a closing quote on the same line, found "\"a,1,1,1,1,b,,""#),
    ];
    for (row, expected) in rows {
        check(&format!("m,i,p,v,t,s,w,f\n\n{row}\n"), &options, &format!("x: line 3, {expected}"));
    }
    let bare = csv("market=m,price=p,volume=v,event_time=t");
    let expected = "x: line 2, column t: expected an RFC 3339 time such as 2024-08-08T00:00:00Z (a bare number needs a \
                    unit: ns, us, ms or s), found \"1723161254\"";
    check("m,p,v,t\na,1,1,1723161254\n", &bare, expected);
}

#[test]
fn an_option_that_makes_no_sense_is_refused_before_the_first_row() {
    for (map, expected) in [
        ("price", "entries such as price=px"),
        ("cost=x", "a field: market"),
        ("market=m,price=p,price=q", "price once"),
        ("market=m,price=p,event_time=t:ns", "a column for volume"),
        ("market=m,price=p,volume=v", "a column for event_time or received_time"),
        ("market=m,price=p,volume=v,event_time=t:min", "a unit of time"),
        ("market=m,price=p,volume=v,event_time_ns=t:ms", "one unit"),
        ("market=m,price=p,volume=v,event_time=t:ns,side=s:x", "nothing or :maker"),
        ("market=m,price=p,volume=v:x,event_time=t:ns", "nothing or :abs"),
        ("market==a b,price=p,volume=v,event_time=t:ns", "a market name"),
        ("market==a,market==b,price=p,volume=v,event_time=t:ns", "market==NAME"),
        ("market=m,bid=b,bid_volume=c,ask=a,ask_volume=d,event_time=t:ns,side=s", "ticks or quotes"),
        ("market=m,price=,volume=v,event_time=t:ns", "a column's name"),
    ] {
        let error = map.parse::<ColumnMap>().unwrap_err();
        assert!(matches!(&error, FeedError::Options { option: "--map", .. }), "{map}");
        assert!(error.to_string().contains(expected), "{map}: {error}");
    }
    for (text, options, expected) in [
        (
            "a,b\n",
            Options::default(),
            "x: line 1: expected a known header, --map, or a header in Myelin's own names with a column for market",
        ),
        ("", Options::default(), "x: line 0: expected a header line in UTF-8"),
        ("m,p,v,u\n", csv("market=m,price=p,volume=v,event_time=t:ns"), "x: line 1: expected a column t"),
        ("m,p,v,t,t\n", csv("market=m,price=p,volume=v,event_time=t:ns"), "x: line 1: expected one column t"),
        (
            "a\n",
            Options { format: Format::BinanceTrades, ..Options::default() },
            "x: line 1: expected the header of binance-trades",
        ),
        (
            "{}",
            Options { format: Format::Ndjson, delimiter: b';', ..Options::default() },
            "--map, --columns, --delimiter: expected the format csv",
        ),
        ("a", Options { delimiter: b'"', ..Options::default() }, "--delimiter"),
    ] {
        let error = read(text, "x", &options).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    assert!("csv2".parse::<Format>().unwrap_err().to_string().contains("binance-quotes"));
    assert!(parse_delimiter("ab").is_err() && parse_delimiter("1").is_err());
}

#[test]
fn an_object_is_a_row_whether_its_numbers_are_numbers_or_text() {
    check(
        concat!(
            r#"{"market":"v:BTC","id":"18446744073709551615","event_time_ns":1723161255342000000,"received_time_ns":"1723161254087896568","price":"61837.63","volume":0.02,"side":"sell","trader":"5","source":6}"#,
            "\n\n",
            r#" { "price" : 1e2 , "volume":"0", "market":"\u00e9\u007a\ud83d\ude00\/","event_time":"1970-01-01T00:00:00.5Z","side":1,"id":null } "#,
            "\r\n",
            r#"{"market":"v:BTC","received_time_ms":1,"price":1,"volume":1}"#,
        ),
        &Options::default(),
        "v:BTC#18446744073709551615 1723161255342000000-1254104 61837.63*0.02 S f0 t5 s6\n\u{e9}z\u{1f600}/#0 500000000+? 100*0 B f0 t0 s0\nv:BTC#0 1000000+0 1*1 - f1 t0 s0",
    );
    let sound = r#""market":"m","event_time_ns":1,"price":1,"volume":1"#;
    for (corrects, due) in [("true", "f2"), ("\"true\"", "f2"), ("1", "f2"), ("false", "f0"), ("null", "f0")] {
        let row = format!("{{{sound},\"id\":7,\"corrects\":{corrects}}}");
        check(&row, &Options::default(), &format!("m#7 1+? 1*1 - {due} t0 s0"));
    }
    let quote = r#"{"market":"m","bid":1,"bid_volume":"2","ask":3,"ask_volume":4,"event_time_s":5}"#;
    check(quote, &Options::default(), "m#0 5000000000+? 1*2 3*4");
    check(
        quote,
        &Options { kind: Some(RowKind::Ticks), ..Options::default() },
        concat!(
            "x: line 1, column bid: expected a key of a tick: market, id, event_time[_ns|_us|_ms|_s], ",
            "received_time[_ns|_us|_ms|_s], price, volume, side, trader, source, corrects, found \"bid\""
        ),
    );
}

#[test]
fn an_object_that_is_not_a_row_is_refused_by_key() {
    let sound = r#""market":"m","event_time_ns":1,"price":1,"volume":1"#;
    let rows = [
        (format!("{{{sound},\"px\":1}}"), "column px: expected a key of a tick"),
        (format!("{{{sound},\"price\":1}}"), "column price: expected each field once"),
        (format!("{{{sound},\"event_time\":null}}"), "column event_time: expected each field once"),
        (
            format!("{{{sound},\"side\":[1]}}"),
            "column side: expected a number, text in quotes, or null, found \"[1]}\"",
        ),
        (format!("{{{sound},\"side\":true}}"), "column side: expected a number, text in quotes"),
        (format!("{{{sound},\"id\":7,\"corrects\":2}}"), "column corrects: expected true or false"),
        (format!("{{{sound},\"id\":7,\"corrects\":truly}}"), "column corrects: expected a value as JSON has them"),
        (format!("{{{sound},\"corrects\":tru}}"), "column corrects: expected a value as JSON has them"),
        (
            format!("{{{sound},\"corrects\":true}}"),
            "column id: expected the id of the row that is corrected, found nothing",
        ),
        (format!("{{{sound},\"id\":01}}"), "column id: expected a number as JSON has them"),
        (format!("{{{sound},\"id\":1.0}}"), "column id: expected a whole number below 2^64, found \"1.0\""),
        (format!("{{{sound},\"id\":-}}"), "column id: expected a number as JSON has them"),
        (format!("{{{sound},}}"), "column line: expected a key in quotes"),
        (format!("{{{sound}"), "column line: expected a comma or a closing brace, found \"\""),
        (format!("{{{sound}}} x"), "column line: expected the end of the line after the object, found \"x\""),
        (
            r#"{"market":"m","event_time":1723161254,"price":1,"volume":1}"#.to_owned(),
            "column event_time: expected an RFC 3339 time",
        ),
        (
            r#"{"market":"m","event_time_ns":1,"price":"nan","volume":1}"#.to_owned(),
            "column price: expected a price that is a finite number, found \"\\\"nan\\\"\"",
        ),
        (
            r#"{"market":"m","event_time_ns":1,"price":1,"volume":-0}"#.to_owned(),
            "column volume: expected a volume that is not negative, found \"-0\"",
        ),
        (r#"{"market":"m","event_time_ns":1,"volume":1}"#.to_owned(), "column price: expected a value, found nothing"),
        (
            r#"{"market":7,"event_time_ns":1,"price":1,"volume":1}"#.to_owned(),
            "column market: expected a market name, found \"7\"",
        ),
        (r#"{"market":"\ud800","event_time_ns":1,"price":1,"volume":1}"#.to_owned(), "column line: expected an escape"),
        (r#"{"market":"m"#.to_owned(), "column line: expected a closing quote"),
        ("[]".to_owned(), "column line: expected an object: {, found \"[]\""),
    ];
    for (row, expected) in rows {
        let options = Options { format: Format::Ndjson, ..Options::default() };
        let error = read(&format!("{{{sound}}}\n{row}\n"), "x", &options).err().unwrap().to_string();
        assert!(error.starts_with(&format!("x: line 2, {expected}")), "{row}\n{error}");
    }
}

#[test]
fn skip_counts_all_bad_rows_and_shows_the_first_hundred() {
    let mut text = "market,event_time_ns,price,volume\n".to_owned();
    for n in 0..500 {
        let price = if n % 2 == 0 { "NaN" } else { "1" };
        writeln!(text, "{},{n},{price},1", if n % 2 == 0 { "bad" } else { "good" }).unwrap();
    }
    let long = "x".repeat(2_000);
    writeln!(text, "{long}\ngood,1,1,1").unwrap();
    let options = Options { on_bad_row: OnBadRow::Skip, line_bytes_max: 1_000, ..Options::default() };
    let (shown, reader) = read(&text, "x", &options).unwrap();
    assert_eq!((shown.lines().count(), reader.skipped().count, reader.skipped().first.len()), (251, 251, 100));
    assert_eq!(reader.names(), ["good"], "a refused row leaves no name behind");
    let bad = &reader.skipped().first[1];
    assert_eq!((bad.line, bad.column.as_str(), bad.flaw), (4, "price", Some(Flaw::PriceNotFinite)));
    assert_eq!((reader.progress().rows, reader.progress().skipped, reader.progress().lines), (251, 251, 503));
}

#[test]
fn after_a_bad_row_the_batch_keeps_what_was_sound_and_reading_can_go_on() {
    let text = "market,event_time_ns,price,volume\na,1,1,1\na,2,x,1\na,3,1,1\n";
    let mut reader = Reader::from_reader(Cursor::new(text), "x", None, &Options::default()).unwrap();
    let mut batch = Batch::default();
    assert!(matches!(reader.next_batch(10, &mut batch), Err(FeedError::Row { bad, .. }) if bad.line == 3));
    assert_eq!(batch.ticks.len(), 1);
    assert_eq!(reader.next_batch(10, &mut batch).unwrap(), 1);
    assert_eq!(batch.ticks[0].event_time_ns, 3);
    assert_eq!(reader.next_batch(10, &mut batch).unwrap(), 0);
}

#[test]
fn a_table_with_ever_new_markets_is_stopped() {
    let mut text = "market,event_time_ns,price,volume\n".to_owned();
    (0..20).for_each(|n| writeln!(text, "m{n},1,1,1").unwrap());
    let options = Options { markets_max: 10, on_bad_row: OnBadRow::Skip, ..Options::default() };
    let error = read(&text, "x", &options).err().unwrap();
    assert!(matches!(error, FeedError::TooManyMarkets { line: 12, limit: 10, .. }), "{error}");
}

#[test]
fn a_damaged_stream_is_an_error_on_every_further_call() {
    let text = "market,event_time_ns,price,volume\n".to_owned() + &"a,1,1,1\n".repeat(10_000);
    let mut packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
    packed.truncate(packed.len() - 3);
    let mut batch = Batch::default();
    let errors: Vec<_> = match Reader::from_reader(Cursor::new(packed), "x", None, &Options::default()) {
        Err(error) => vec![error],
        Ok(mut reader) => (0..3).filter_map(|_| reader.next_batch(1 << 20, &mut batch).err()).collect(),
    };
    assert!(matches!(errors[0], FeedError::Corrupt { .. }), "{}", errors[0]);
    assert!(errors.len() == 1 || errors.len() == 3);
}

/// A correction that a file could not say was sent as another tick of the same id, and refused as a conflict.
#[test]
fn a_correction_is_said_in_a_column_or_a_key() {
    let own = "market,id,event_time_ns,price,volume,corrects\na,1,5,1,2,\na,1,6,3,2,true\na,1,7,4,2,0\n";
    check(own, &Options::default(), "a#1 5+? 1*2 - f0 t0 s0\na#1 6+? 3*2 - f2 t0 s0\na#1 7+? 4*2 - f0 t0 s0");
    let ndjson = Options { format: Format::Ndjson, ..Options::default() };
    let row = |corrects: &str| {
        format!(r#"{{"market":"a","id":1,"received_time_ns":5,"price":1,"volume":2,"corrects":{corrects}}}"#)
    };
    for (corrects, flags) in [("true", 3), ("false", 1), ("null", 1), ("1", 3), (r#""TRUE""#, 3)] {
        check(&row(corrects), &ndjson, &format!("a#1 5+0 1*2 - f{flags} t0 s0"));
    }
    check(&row("2"), &ndjson, "x: line 1, column corrects: expected true or false, found \"2\"");
    let price = r#"{"market":"a","event_time_ns":5,"price":true,"volume":2}"#;
    check(price, &ndjson, "x: line 1, column price: expected a number, text in quotes, or null, found \"true\"");
    let quote = r#"{"market":"a","event_time_ns":5,"bid":1,"bid_volume":1,"ask":2,"ask_volume":1,"corrects":true}"#;
    assert!(read(quote, "x", &ndjson).is_err(), "a quote has no such flag");
}
