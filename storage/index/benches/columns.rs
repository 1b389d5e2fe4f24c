//! What ingesting, sealing and reading cost, in nanoseconds a row.
//!
//! `cargo bench -p myelin-index` prints every line of the table in `README.md`; an argument selects lines by their first
//! word (`ingest`, `seal`, `read`, `aggregate`, `growth`). Deliberately absent: statistics; each line is the best of its rounds.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use myelin_datom::{EntityId, Slot, Tick, Tx};
use myelin_index::{
    Cache, Columns, ColumnsConfig, Filter, MarketIx, MarketOptions, Run, RunSize, Verdict, merge, worth_merging,
};

/// xorshift64: the same rows every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn market(n: usize) -> EntityId {
    EntityId::market(Slot::new((n * 37 % 4096) as u16).unwrap(), (n / 4096) as u32)
}

/// Random walks of prices in random interleaving, ids shuffled within windows of 64 per market.
fn rows(markets: usize, count: usize, shuffle: bool) -> Vec<Tick> {
    let mut random = Random(88_172_645_463_325_252);
    let mut next: Vec<(u64, i64, Vec<u64>)> = (0..markets).map(|_| (1_000_000, 500_000, Vec::new())).collect();
    let mut time = 1_723_161_254_000_000_000_i64;
    (0..count)
        .map(|_| {
            let n = random.below(markets as u64) as usize;
            let (id, price, waiting) = &mut next[n];
            if waiting.is_empty() {
                waiting.extend(*id..*id + 64);
                *id += 64;
                waiting.reverse();
                if shuffle {
                    (1..64).rev().for_each(|at| waiting.swap(at, random.below(at as u64 + 1) as usize));
                }
            }
            *price += random.below(7) as i64 - 3;
            time += random.below(1_000) as i64 * 1_000;
            Tick {
                market: market(n),
                id: waiting.pop().unwrap(),
                event_time_ns: time / 1_000_000 * 1_000_000,
                price: *price as f64 / 100.0,
                volume: (1 + random.below(5_000)) as f64 / 1000.0,
                trader: EntityId::NONE,
                side: 1 + random.below(2) as u8,
                flags: 0,
                zero_50: 0,
                received_delta_us: 900_000 + random.below(3_000) as i32,
                source: 1,
                zero_60: 0,
            }
        })
        .collect()
}

fn columns(markets: usize) -> Columns<Tick> {
    let mut columns = Columns::new(ColumnsConfig::default());
    let options = MarketOptions { ascending_ids: true, dense_ids: true, signed: false };
    (0..markets).for_each(|n| _ = columns.add_market(market(n), options));
    columns
}

/// Time this thread has run: other load does not count. **Units:** nanoseconds.
fn now_ns() -> u64 {
    let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64
}

/// Best of some rounds, in nanoseconds a row.
fn best(rounds: usize, count: usize, mut run: impl FnMut()) -> f64 {
    (0..rounds)
        .map(|_| {
            let start = now_ns();
            run();
            (now_ns() - start) as f64 / count as f64
        })
        .fold(f64::INFINITY, f64::min)
}

struct Clock(u64);

impl Clock {
    fn tick(&mut self) -> Tx {
        // A proposal every 300 microseconds: several share a millisecond, as a leader stamps them.
        self.0 += 1;
        Tx::stamp(1_723_161_254_000 + self.0 * 3 / 10, Tx::at_millis(1_723_161_254_000 + (self.0 - 1) * 3 / 10))
    }
}

fn insert_all(columns: &mut Columns<Tick>, rows: &[Tick], batch: usize, clock: &mut Clock) {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for rows in rows.chunks(batch) {
        let summary = columns.check(rows, &mut verdicts).unwrap();
        assert!(summary.new as usize == rows.len(), "{summary:?}");
        let mut tx = clock.tick();
        if tx <= columns.last_tx() {
            tx = columns.last_tx().next();
        }
        black_box(columns.insert(tx, rows, &verdicts));
    }
}

fn ingest() {
    for (markets, batch, shuffle) in
        [(100, 1000, true), (100, 100, true), (100, 1000, false), (6_000, 1000, true), (1, 1000, false)]
    {
        let count = 2_000_000;
        let rows = rows(markets, count * 2, shuffle);
        let mut columns = columns(markets);
        let mut clock = Clock(0);
        // Warm: the first half fills the list of chunks.
        insert_all(&mut columns, &rows[..count], batch, &mut clock);
        let path = file("warm");
        let frozen = columns.freeze().unwrap();
        frozen.write_run(&path, &mut ()).unwrap();
        columns.install(frozen, Arc::new(Run::open(&path).unwrap()));
        let mut halves = rows[count..].chunks(count / 2);
        let ns = best(2, count / 2, || insert_all(&mut columns, halves.next().unwrap(), batch, &mut clock));
        let fresh: Vec<Tick> = rows[count..].iter().map(|row| Tick { id: row.id + (1 << 40), ..*row }).collect();
        let mut verdicts = Vec::new();
        let check = best(2, count, || {
            fresh.chunks(batch).for_each(|rows| _ = black_box(columns.check(rows, &mut verdicts).unwrap()));
        });
        let again = best(3, 100_000, || {
            let mut verdicts = Vec::new();
            for rows in rows[count * 2 - 100_000..].chunks(batch) {
                assert!(columns.check(rows, &mut verdicts).unwrap().duplicates as usize == rows.len());
            }
        });
        let old = best(3, 100_000, || {
            let mut verdicts = Vec::new();
            for rows in rows[..100_000].chunks(batch) {
                assert!(columns.check(rows, &mut verdicts).unwrap().duplicates as usize == rows.len());
            }
        });
        println!(
            "ingest     {markets:5} markets, batches of {batch:4}, ids {}: check+insert {ns:5.1} ns/tick (check {check:.1}), repeats {again:.0} ns/tick in memory, {old:.0} ns/tick sealed",
            if shuffle { "shuffled by 64" } else { "ascending" }
        );
    }
}

/// Cargo's own scratch directory for this crate, never one that others share; its files are written over, not removed.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");

fn file(name: &str) -> PathBuf {
    PathBuf::from(SCRATCH).join(format!("bench-{name}.run"))
}

fn seal_line(name: &str, columns: &mut Columns<Tick>) {
    let frozen = columns.freeze().unwrap();
    let path = file("seal");
    let mut meta = None;
    let count = frozen.rows() as usize;
    let ns = best(3, count, || meta = Some(frozen.write_run(&path, &mut ()).unwrap()));
    let meta = meta.unwrap();
    println!(
        "seal       {name}: {ns:.0} ns/tick, {:.2} bytes/tick ({} rows, {} blocks)",
        meta.bytes as f64 / meta.rows as f64,
        meta.rows,
        meta.blocks
    );
}

fn seal() {
    for batch in [1000, 100] {
        if let Some(trades) = recorded::trades() {
            let mut columns = columns(0);
            trades.markets.iter().for_each(|&id| _ = columns.add_market(id, MarketOptions::default()));
            insert_all(&mut columns, &trades.rows, batch, &mut Clock(0));
            seal_line(&format!("recorded trades, batches of {batch}"), &mut columns);
        }
    }
    for (markets, batch) in [(100, 1000), (100, 100), (6_000, 1000)] {
        let mut columns = columns(markets);
        insert_all(&mut columns, &rows(markets, 4_000_000, false), batch, &mut Clock(0));
        seal_line(&format!("random walk, {markets} markets, batches of {batch}"), &mut columns);
    }
}

fn sealed(count: usize) -> Columns<Tick> {
    let mut columns = columns(100);
    let rows = rows(100, count, false);
    let mut clock = Clock(0);
    for (n, rows) in rows.chunks(count / 4).enumerate() {
        insert_all(&mut columns, rows, 1000, &mut clock);
        let path = file(&format!("part-{n}"));
        let frozen = columns.freeze().unwrap();
        frozen.write_run(&path, &mut ()).unwrap();
        columns.install(frozen, Arc::new(Run::open(&path).unwrap()));
    }
    columns
}

fn read() {
    let count = 4_000_000;
    let mut columns = sealed(count);
    let mut clock = Clock(1_000_000);
    let fresh: Vec<Tick> = rows(100, count + 200_000, false).split_off(count);
    insert_all(&mut columns, &fresh, 1000, &mut clock);
    let mut random = Random(7);
    let reads = 100_000;
    let newest = best(3, reads, || {
        for _ in 0..reads {
            let view = columns.view(MarketIx::first(random.below(100) as u32, &columns), Tx::MAX).unwrap();
            let row = view.end_row() - 1 - random.below(1000) as u32;
            black_box(view.cell(row, 2).unwrap());
        }
    });
    println!("read       one attribute, newest part: {newest:.0} ns");
    let view = columns.view(MarketIx::first(3, &columns), Tx::MAX).unwrap();
    let cached = best(3, reads, || {
        for _ in 0..reads {
            black_box(view.cell(random.below(2_000) as u32, 2).unwrap());
        }
    });
    println!("read       one attribute, sealed, page cached: {cached:.0} ns");
    let row = best(3, reads, || {
        for _ in 0..reads {
            black_box(view.row(random.below(2_000) as u32).unwrap());
        }
    });
    println!("read       whole row with tx, sealed, pages cached: {row:.0} ns");
    // What whoever merges many markets pays: the next rows of one of them, and where they begin.
    let pages = |from: u32, upto: u32, page: usize| {
        let mut random = Random(7);
        best(3, 2_000, || {
            for _ in 0..2_000 {
                let market = MarketIx::first(random.below(100) as u32, &columns);
                let from_row = from + random.below(u64::from(upto - from)) as u32;
                let mut rows = 0;
                let view = columns.view_from(market, from_row, Tx::MAX).unwrap();
                view.rows(&Filter { from_row, ..Filter::default() }, |row| {
                    black_box(row);
                    rows += 1;
                    if rows < page { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })
                .unwrap();
            }
        }) / 1000.0
    };
    let (few, many) = (pages(0, 30_000, 8), pages(0, 30_000, 256));
    println!("read       the next 8, 256 rows of a market, sealed: {few:.1}, {many:.1} us");
    let (few, many) = (pages(40_500, 41_500, 8), pages(40_500, 41_500, 256));
    println!("read       the next 8, 256 rows of a market, newest part: {few:.2}, {many:.2} us");
    let few = best(3, reads, || {
        for _ in 0..reads {
            let market = MarketIx::first(random.below(100) as u32, &columns);
            let view = columns.view_from(market, 40_500, Tx::MAX).unwrap();
            let from = 40_500 + random.below(1_000) as u32;
            (from..from + 8).for_each(|row| _ = black_box(view.row(row).unwrap()));
        }
    });
    println!("read       the next 8 rows of a market, newest part, one by one: {:.2} us", few / 1000.0);
    let moments: Vec<Tx> = (0..1000).filter_map(|_| view.tx_of(random.below(30_000) as u32).unwrap()).collect();
    let begins = best(3, reads, || {
        for n in 0..reads {
            let market = MarketIx::first(random.below(100) as u32, &columns);
            black_box(columns.row_after(market, moments[n % moments.len()]).unwrap());
        }
    });
    println!("read       where rows of later transactions begin, sealed: {:.2} us", begins / 1000.0);
    let none = Cache::new(0);
    let (ix, sealed) = (MarketIx::first(3, &columns), columns.sealed());
    let cold = sealed.view(&none, columns.market_id(ix), 0..columns.sealed_end(ix), Tx::MAX).unwrap();
    let reads = 5_000;
    let cell = best(3, reads, || {
        for _ in 0..reads {
            black_box(cold.cell(random.below(u64::from(cold.count())) as u32, 2).unwrap());
        }
    });
    println!("read       one attribute, sealed, no cache: {:.1} us", cell / 1000.0);
    let by_id = best(3, reads, || {
        for _ in 0..reads {
            black_box(cold.row_by_id(1_000_000 + random.below(39_000)).unwrap());
        }
    });
    println!("read       whole row by id, sealed, no cache: {:.1} us", by_id / 1000.0);
}

fn aggregate() {
    let count = 10_000_000;
    let mut columns = sealed(count);
    let everything = Filter::default();
    let each = |columns: &Columns<Tick>, run: &dyn Fn(&myelin_index::MarketView<'_, Tick>)| {
        columns.markets().for_each(|ix| run(&columns.view(ix, Tx::MAX).unwrap()));
    };
    for pass in ["4 runs", "merged"] {
        let whole = best(3, 1000, || {
            (0..1000).for_each(|_| each(&columns, &|view| _ = black_box(view.total(&everything).unwrap().vwap())));
        });
        println!("aggregate  {pass}: vwap by market, 10 M rows, from block totals: {:.2} ms", whole / 1e6);
        let decoded =
            best(3, 1, || each(&columns, &|view| _ = black_box(view.total_decoded(&everything).unwrap().vwap())));
        println!("aggregate  {pass}: count, extremes, three sums, vwap, every row decoded: {:.0} ms", decoded / 1e6);
        let middle = 1_723_161_254_000_000_000 + count as i64 * 250_000;
        let half = Filter { event_time_ns: middle..=middle + 600_000_000_000, ..Filter::default() };
        let ten = best(3, 1, || each(&columns, &|view| _ = black_box(view.total(&half).unwrap().vwap())));
        println!("aggregate  {pass}: vwap by market of ten minutes in the middle: {:.2} ms", ten / 1e6);
        let bars =
            best(3, 1, || each(&columns, &|view| _ = black_box(view.bars(&everything, 60_000_000_000).unwrap())));
        println!("aggregate  {pass}: 1-minute bars by market: {:.0} ms", bars / 1e6);
        if pass == "4 runs" {
            let path = file("merged");
            let old = columns.runs().to_vec();
            let start = now_ns();
            let meta = merge::<Tick>(&old, &columns.floors(), &path, &mut ()).unwrap().unwrap();
            println!("aggregate  merging 4 runs: {:.0} ns/tick", (now_ns() - start) as f64 / meta.rows as f64);
            columns.install_merged(&old, Some(Arc::new(Run::open(&path).unwrap())));
        }
    }
}

/// What a million and a hundred million rows cost: the same ingest and the same point reads, at both sizes. A run of a
/// million rows each, merged as the node merges them when it is calm, and nothing cached: the worst a reader meets.
fn growth() {
    let (stretch, markets) = (1_000_000, 100);
    let pattern = rows(markets, stretch, true);
    let mut columns = Columns::new(ColumnsConfig { cache_bytes_max: 0, ..ColumnsConfig::default() });
    let options = MarketOptions { ascending_ids: true, dense_ids: true, signed: false };
    (0..markets).for_each(|n| _ = columns.add_market(market(n), options));
    let mut clock = Clock(0);
    let mut moments = Vec::new();
    for n in 0..=100_u64 {
        let shifted = |row: &Tick| Tick {
            id: row.id + n * (1 << 32),
            event_time_ns: row.event_time_ns + n as i64 * 1_000_000_000_000,
            ..*row
        };
        let rows: Vec<Tick> = pattern.iter().map(shifted).collect();
        let mut ingest = 0.0;
        for rows in rows.chunks(stretch / 10) {
            ingest += best(1, stretch, || insert_all(&mut columns, rows, 1000, &mut clock));
            moments.push(columns.last_tx());
        }
        if matches!(n, 1 | 10 | 100) {
            growth_line(&columns, n, ingest, &moments[..moments.len() - 10]);
        }
        let path = file(&format!("growth-{n}"));
        let frozen = columns.freeze().unwrap();
        frozen.write_run(&path, &mut ()).unwrap();
        columns.install(frozen, Arc::new(Run::open(&path).unwrap()));
        merge_as_a_node(&mut columns);
    }
    columns.runs().iter().for_each(|run| std::fs::remove_file(&run.meta().path).unwrap());
}

fn growth_line(columns: &Columns<Tick>, millions: u64, ingest: f64, sealed: &[Tx]) {
    let mut random = Random(9);
    let reads = 20_000;
    let mut point = |mut moment: Box<dyn FnMut(&mut Random) -> Tx>| {
        best(3, reads, || {
            for _ in 0..reads {
                let ix = MarketIx::first(random.below(100) as u32, columns);
                let view = columns.view(ix, moment(&mut random)).unwrap();
                black_box(view.cell(view.end_row() - 1 - random.below(64) as u32, 2).unwrap());
            }
        })
    };
    let now = columns.last_tx();
    let newest = point(Box::new(move |_| now)) / 1000.0;
    let (first, last) = (sealed[0].bits(), sealed[sealed.len() - 1].bits());
    let any = point(Box::new(move |random| Tx::from_bits(first + random.below(last - first)))) / 1000.0;
    println!(
        "growth     {millions:3} M rows in {:3} runs: check+insert {ingest:.1} ns/tick; one attribute as of a moment in a sealed part {any:.2} us, as of now {newest:.2} us",
        columns.runs().len()
    );
}

/// Merges what the node would merge, and removes what that was made of.
fn merge_as_a_node(columns: &mut Columns<Tick>) {
    let size = |run: &Arc<Run>| RunSize { rows: run.meta().rows, live: run.meta().rows };
    while let Some(range) = worth_merging(&columns.runs().iter().map(size).collect::<Vec<_>>()) {
        let old = columns.runs()[range].to_vec();
        let path = file(&format!("growth-merged-{}", old[old.len() - 1].meta().tx_max));
        merge::<Tick>(&old, &columns.floors(), &path, &mut ()).unwrap();
        columns.install_merged(&old, Some(Arc::new(Run::open(&path).unwrap())));
        old.iter().for_each(|run| std::fs::remove_file(&run.meta().path).unwrap());
    }
}

trait First {
    fn first(n: u32, columns: &Columns<Tick>) -> MarketIx;
}

impl First for MarketIx {
    fn first(n: u32, columns: &Columns<Tick>) -> MarketIx {
        columns.market_ix(market(n as usize)).unwrap()
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, run) in
        [("ingest", ingest as fn()), ("seal", seal), ("read", read), ("aggregate", aggregate), ("growth", growth)]
    {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            run();
        }
    }
}
