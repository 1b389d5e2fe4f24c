//! The real files, whole: row counts, first and last rows, sums that were computed from the text by other means.
//!
//! The data lies in `MYELIN_DATA`, or in `../shared/data` beside the project. Where it is absent, each test is listed
//! as ignored and the reason is printed: absent data never passes.

#![expect(clippy::unwrap_used, reason = "in a test, also in its helpers, a failure is a panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use myelin_datom::{EntityId, Row, Slot, flags, received_delta};
use myelin_feed::{Batch, Format, Options, Reader, RowKind};

fn data() -> PathBuf {
    match std::env::var_os("MYELIN_DATA") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    }
}

type Check = fn(&Path) -> Result<(), Failed>;

fn main() -> ExitCode {
    let data = data();
    let tests: [(&str, &str, Check); 3] = [
        ("binance_trades_load_whole", "binance-2024-08-08/trades.csv.gz", binance_trades),
        ("binance_quotes_load_whole", "binance-2024-08-08/quotes.csv.gz", binance_quotes),
        ("prediction_markets_load_whole_without_traders", "prediction-markets/trades.csv", prediction_markets),
    ];
    let trials = tests.map(|(name, file, test)| {
        let path = data.join(file);
        let absent = !path.is_file();
        if absent {
            eprintln!("skipped {name}: no file {file} in MYELIN_DATA or ../shared/data");
        }
        Trial::test(name, move || test(&path)).with_ignored_flag(absent)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// Reads in batches of an odd size, as recognised and as named, and puts ids of markets in.
fn load(path: &Path, format: Format) -> Result<(Reader, Batch), Failed> {
    let mut loaded = None;
    for asked in [Format::Auto, format] {
        let mut reader = Reader::open(path, &Options { format: asked, ..Options::default() })?;
        assert_eq!(reader.format(), format);
        let (mut all, mut batch) = (Batch::default(), Batch::default());
        while reader.next_batch(997, &mut batch)? > 0 {
            all.ticks.append(&mut batch.ticks);
            all.quotes.append(&mut batch.quotes);
            all.markets.append(&mut batch.markets);
            all.received_time_ns.append(&mut batch.received_time_ns);
        }
        let progress = reader.progress();
        assert_eq!(Some(progress.bytes_read), progress.bytes_total, "the whole file was read");
        assert_eq!((progress.rows, progress.skipped), (all.len() as u64, 0));
        assert_eq!(progress.lines, progress.rows + 1);
        let ids: Vec<_> =
            (0..reader.names().len() as u32).map(|n| EntityId::market(Slot::new(7).unwrap(), n)).collect();
        all.resolve(&ids).map_err(|index| format!("no id for name {index}"))?;
        assert!(all.ticks.iter().all(|tick| tick.flaw().is_none()));
        assert!(all.quotes.iter().all(|quote| quote.flaw().is_none()));
        if let Some((_, earlier)) = &loaded {
            assert!(earlier == &all, "auto and {format} read the same");
        }
        loaded = Some((reader, all));
    }
    loaded.ok_or_else(|| "nothing loaded".into())
}

fn rows_by_market(reader: &Reader, batch: &Batch) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for &market in &batch.markets {
        *counts.entry(reader.names()[market as usize].clone()).or_default() += 1;
    }
    counts
}

fn counts(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    rows.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

/// In units of 10^-8, exactly: every price and volume of these files has at most eight decimals.
fn sum_e8(values: impl Iterator<Item = f64>) -> i128 {
    values.map(|value| (value * 1e8).round() as i128).sum()
}

fn binance_trades(path: &Path) -> Result<(), Failed> {
    let (reader, all) = load(path, Format::BinanceTrades)?;
    assert_eq!((reader.kind(), all.ticks.len(), all.quotes.len()), (RowKind::Ticks, 55_270, 0));
    let expected = counts(&[
        ("binance-coinm:BTCUSD_PERP", 2_286),
        ("binance-coinm:ETHUSD_PERP", 1_732),
        ("binance-spot:BTCUSDT", 9_757),
        ("binance-spot:ETHUSDT", 6_106),
        ("binance-usdm:BTCUSDT", 21_313),
        ("binance-usdm:ETHUSDT", 14_076),
    ]);
    assert_eq!(rows_by_market(&reader, &all), expected);
    assert_eq!(reader.names()[..3], ["binance-spot:BTCUSDT", "binance-spot:ETHUSDT", "binance-usdm:BTCUSDT"]);
    let (first, last) = (all.ticks[0], all.ticks[55_269]);
    assert_eq!((first.id, first.event_time_ns), (3_735_683_259, 1_723_161_255_342_000_000));
    assert_eq!((first.price, first.volume, first.side, first.flags), (61_837.63, 0.02, 2, 0));
    // The recorder's clock runs more than a second behind the exchange's: -1,254,103,432 ns, rounded down.
    assert_eq!((first.received_delta_us, all.received_time_ns[0]), (-1_254_104, 1_723_161_254_087_896_568));
    assert_eq!((last.id, last.event_time_ns), (3_735_693_015, 1_723_161_601_271_000_000));
    assert_eq!((last.price, last.volume, last.side), (61_685.99, 0.0014, 2));
    assert_eq!(all.received_time_ns[55_269], 1_723_161_599_997_948_484);
    assert_eq!(sum_e8(all.ticks.iter().map(|tick| tick.price)), 211_686_266_432_000_000);
    assert_eq!(sum_e8(all.ticks.iter().map(|tick| tick.volume)), 34_686_766_205_000);
    let sum = |value: fn(&myelin_datom::Tick) -> i128| all.ticks.iter().map(value).sum::<i128>();
    assert_eq!(sum(|tick| tick.id.into()), 221_958_303_501_390);
    assert_eq!(sum(|tick| tick.event_time_ns.into()), 95_239_133_527_752_592_000_000);
    assert_eq!(sum(|tick| tick.received_delta_us.into()), -69_655_893_236);
    assert_eq!(sum(|tick| (tick.side == 2).into()), 29_631);
    assert_eq!(all.received_time_ns.iter().map(|&ns| i128::from(ns)).sum::<i128>(), 95_239_133_458_096_726_693_988);
    assert!(all.received_time_ns.is_sorted());
    Ok(())
}

fn binance_quotes(path: &Path) -> Result<(), Failed> {
    let (reader, all) = load(path, Format::BinanceQuotes)?;
    assert_eq!((reader.kind(), all.ticks.len(), all.quotes.len()), (RowKind::Quotes, 0, 207_146));
    let expected = counts(&[
        ("binance-coinm:BTCUSD_PERP", 19_136),
        ("binance-coinm:ETHUSD_PERP", 15_812),
        ("binance-spot:BTCUSDT", 28_040),
        ("binance-spot:ETHUSDT", 24_077),
        ("binance-usdm:BTCUSDT", 66_089),
        ("binance-usdm:ETHUSDT", 53_992),
    ]);
    assert_eq!(rows_by_market(&reader, &all), expected);
    let (first, dated, last) = (all.quotes[0], all.quotes[560], all.quotes[207_145]);
    assert_eq!((first.id, first.event_time_ns), (35_346_513_501, 1_723_161_254_024_619_568));
    assert_eq!((first.bid, first.bid_volume, first.ask, first.ask_volume), (2_683.8, 3.0292, 2_683.81, 31.4395));
    assert_eq!(first.received_delta_us, 0, "the exchange's time is empty: the event repeats the arrival");
    assert_eq!((dated.id, dated.event_time_ns), (5_123_107_838_717, 1_723_161_256_310_000_000));
    assert_eq!((dated.received_delta_us, all.received_time_ns[560]), (-1_221_835, 1_723_161_255_088_165_267));
    assert_eq!((last.id, last.event_time_ns), (50_093_421_612, 1_723_161_599_999_231_384));
    assert_eq!((last.bid, last.bid_volume, last.ask, last.ask_volume), (61_685.99, 1.25869, 61_686.0, 2.44807));
    let undated = all.quotes.iter().zip(&all.received_time_ns).filter(|(quote, ns)| quote.event_time_ns == **ns);
    assert_eq!(undated.count(), 52_117);
    assert_eq!(sum_e8(all.quotes.iter().map(|quote| quote.bid)), 724_292_452_531_000_000);
    assert_eq!(sum_e8(all.quotes.iter().map(|quote| quote.bid_volume)), 6_157_368_359_909_000);
    assert_eq!(sum_e8(all.quotes.iter().map(|quote| quote.ask)), 724_295_332_639_000_000);
    assert_eq!(sum_e8(all.quotes.iter().map(|quote| quote.ask_volume)), 6_128_375_841_122_000);
    assert_eq!(all.quotes.iter().map(|quote| i128::from(quote.id)).sum::<i128>(), 652_644_857_489_747_655);
    assert_eq!(all.received_time_ns.iter().map(|&ns| i128::from(ns)).sum::<i128>(), 356_945_997_339_223_323_642_266);
    Ok(())
}

fn prediction_markets(path: &Path) -> Result<(), Failed> {
    let (reader, all) = load(path, Format::PredictionMarkets)?;
    assert_eq!((all.ticks.len(), reader.names().len()), (4_368, 58));
    assert!(reader.note().is_some_and(|note| note.contains("trader")), "what is left out is said");
    let (first, last) = (all.ticks[0], all.ticks[4_367]);
    assert_eq!((first.id, first.event_time_ns), (4_804, 1_352_455_680_000_000_000));
    assert_eq!((first.price, first.volume, first.side), (0.495_024_916_874_629_6, 1.990_098_929, 2));
    assert_eq!((last.id, last.event_time_ns), (42_243, 1_430_704_755_000_000_000));
    assert_eq!((last.price, last.volume, last.side), (0.778_149_1, 6.472_528, 1));
    assert_eq!(reader.names()[all.markets[4_367] as usize], "EERP-45");
    assert!(all.ticks.iter().all(|tick| tick.trader == EntityId::NONE && tick.flags & flags::ALL == 0));
    assert!(all.ticks.iter().all(|tick| tick.received_delta_us == received_delta::UNKNOWN));
    assert_eq!(all.ticks.iter().filter(|tick| tick.side == 1).count(), 2_402);
    assert_eq!(all.ticks.iter().map(|tick| tick.id).sum::<u64>(), 651_190_546);
    // Plain sums in the order of the file, as any IEEE 754 machine adds them.
    assert_eq!(all.ticks.iter().map(|tick| tick.volume).fold(0.0, |sum, v| sum + v), 58_169.253_449_848_715);
    assert_eq!(all.ticks.iter().map(|tick| tick.price).fold(0.0, |sum, v| sum + v), 2_708.382_486_471_403);
    Ok(())
}
