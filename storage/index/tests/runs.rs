//! Run files: what comes back from large blocks, what recorded trades cost, and what damaged bytes do.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

mod recorded;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use myelin_datom::{EntityId, Quote, Slot, Tick, Tx, flags};
use myelin_index::{
    Columns, ColumnsConfig, Filter, FloorAt, Found, IndexError, MarketOptions, Retention, Run, Verdict, merge,
};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("runs-{name}.run"))
}

fn market(n: u32) -> EntityId {
    EntityId::market(Slot::new(77).unwrap(), n)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn tick(n: u32, id: u64, random: &mut Random) -> Tick {
    Tick {
        market: market(n),
        id,
        event_time_ns: id as i64 * 1_000_000 + random.below(40) as i64 * 500_000,
        price: random.below(10_000) as f64 / 100.0,
        // A third does not fit any decimal scale, so that floats are coded too.
        volume: if n == 2 { f64::from_bits(random.below(1 << 62)) } else { random.below(999) as f64 * 0.001 },
        trader: EntityId::from_bits(if n == 1 { random.below(1 << 60) } else { 0 }),
        side: random.below(3) as u8,
        flags: random.below(2) as u8 & flags::EVENT_TIME_UNKNOWN,
        zero_50: 0,
        received_delta_us: random.below(5_000_000) as i32 - 2_500_000,
        source: random.below(3) as u32,
        zero_60: 0,
    }
}

fn columns(markets: u32) -> Columns<Tick> {
    let mut columns = Columns::new(ColumnsConfig::default());
    (0..markets).for_each(|n| _ = columns.add_market(market(n), MarketOptions::default()));
    columns
}

fn insert(columns: &mut Columns<Tick>, rows: &[Tick], batch: usize) {
    let mut verdicts = Vec::new();
    for rows in rows.chunks(batch) {
        columns.check(rows, &mut verdicts).unwrap();
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
        columns.insert(columns.last_tx().next(), rows, &verdicts);
    }
}

fn seal(columns: &mut Columns<Tick>, name: &str) -> Arc<Run> {
    let frozen = columns.freeze().unwrap();
    let path = file(name);
    let meta = frozen.write_run(&path, &mut ()).unwrap();
    let run = Arc::new(Run::open(&path).unwrap());
    assert_eq!(run.meta(), &meta);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), meta.bytes);
    columns.install(frozen, Arc::clone(&run));
    run
}

type Answers = Vec<(u32, Vec<Found<Tick>>, myelin_exact::Totals, Vec<myelin_index::Bar>)>;

fn answers(columns: &Columns<Tick>, as_of: Tx, filter: &Filter) -> Answers {
    let each = columns.markets().map(|ix| {
        let view = columns.view(ix, as_of).unwrap();
        let mut rows = Vec::new();
        let visit = |found| {
            rows.push(found);
            ControlFlow::Continue(())
        };
        view.rows(filter, visit).unwrap();
        let total = view.total(filter).unwrap();
        assert_eq!(total, view.total_decoded(filter).unwrap());
        (view.count(), rows, total, view.bars(filter, 1_000_000_000).unwrap())
    });
    each.collect()
}

/// `README.md` draws these bytes.
#[test]
fn what_is_drawn_of_a_run_is_what_is_written() {
    let mut random = Random(3);
    let mut columns = columns(2);
    let rows: Vec<Tick> = (0..4_200).map(|n| tick(n % 2, u64::from(n) + 1, &mut random)).collect();
    insert(&mut columns, &rows, 2);
    let run = seal(&mut columns, "drawn");
    let (meta, bytes) = (run.meta(), std::fs::read(&run.meta().path).unwrap());
    let word =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let crc = |from: usize, upto: usize| u64::from(crc32fast::hash(&bytes[from..upto]));
    assert_eq!((&bytes[..8], word(8, 2), word(10, 1)), (&b"MYELRUN\n"[..], 2, 0));
    assert_eq!((word(60, 4), word(12 + bytes[11] as usize, 4)), (crc(0, 60), 0));
    let footer = bytes.len() - 128;
    assert_eq!((&bytes[footer..footer + 8], word(footer + 8, 2), word(footer + 10, 2)), (&b"MYELRUN."[..], 2, 0));
    let (blocks, directory, totals) = (word(footer + 12, 4), word(footer + 16, 8) as usize, word(footer + 24, 4));
    assert_eq!((blocks, directory + 2 * 104 + totals as usize), (2, footer));
    assert_eq!((word(footer + 28, 4), word(footer + 32, 8)), (crc(directory, footer), 4_200));
    assert_eq!((word(footer + 40, 8), word(footer + 48, 8)), (meta.tx_min.bits(), meta.tx_max.bits()));
    assert_eq!(word(footer + 56, 8), meta.hash as u64);
    assert!(bytes[footer + 72..footer + 124].iter().all(|byte| *byte == 0));
    assert_eq!(word(footer + 124, 4), crc(footer, footer + 124));
    let mut block_at = 64;
    for (n, entry) in (0..2).map(|n| (n, directory + n * 104)) {
        let len = word(entry + 24, 4) as usize;
        assert_eq!((word(entry, 8), word(entry + 8, 4)), (market(n as u32).bits(), 0));
        assert_eq!((word(entry + 12, 4), word(entry + 16, 8) as usize), (2_100, block_at));
        assert_eq!(word(entry + 28, 4), crc(block_at, block_at + len));
        assert_eq!((word(entry + 64, 8), word(entry + 72, 8)), (meta.tx_min.bits(), meta.tx_max.bits()));
        // Rows, transactions, C, rows of a page, transactions of a page.
        let header = [(0, 4), (4, 4), (8, 2), (10, 2), (12, 2), (14, 2)].map(|(at, len)| word(block_at + at, len));
        assert_eq!(header, [2_100, 2_100, 10 + 2, 2_048, 512, 0]);
        // Behind two zones the heads begin: the first with the block's first transaction, at row 0.
        let heads = block_at + 16 + 32 * 12 + 32 * 2;
        assert_eq!((word(heads, 8), word(heads + 8, 8)), (meta.tx_min.bits(), 0));
        assert_eq!(word(heads + 16 + 8, 8), 512, "each transaction has one row of this market");
        block_at += len;
    }
}

/// `fixtures/ticks-N.run` is what the program of format version N wrote of these rows: it stays readable.
#[test]
fn a_run_of_every_version_answers_what_memory_answers() {
    let mut random = Random(5);
    let rows: Vec<Tick> = (0..2_400).map(|n| tick(n % 3, u64::from(n) + 1, &mut random)).collect();
    let (mut memory, mut sealed) = (columns(3), columns(3));
    insert(&mut memory, &rows, 1);
    insert(&mut sealed, &rows, 1);
    let newest = seal(&mut sealed, "fixture");
    let version = |path: &Path| u16::from_le_bytes(std::fs::read(path).unwrap()[8..10].try_into().unwrap());
    assert_eq!(version(&newest.meta().path), 2, "a new version has its fixture, too");
    for number in 1..=2 {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/ticks-{number}.run"));
        assert_eq!(version(&path), number);
        let run = Arc::new(Run::open(&path).unwrap());
        run.verify().unwrap();
        let old = Columns::restore(ColumnsConfig::default(), &sealed.state(), vec![run]).unwrap();
        for tx in (0..=rows.len() as u64).step_by(97).map(Tx::from_bits) {
            let filter = Filter::default();
            assert!(answers(&old, tx, &filter) == answers(&memory, tx, &filter), "version {number} as of {tx}");
        }
    }
}

/// A block has a page for every 512 transactions, and so many that what a reader's cache keeps of two is told apart.
#[test]
fn moments_of_blocks_with_many_transactions_are_found_before_and_after_merging() {
    let mut random = Random(11);
    let mut columns = columns(2);
    let rows: Vec<Tick> = (0..5_000).map(|n| tick(n % 2, u64::from(n) + 1, &mut random)).collect();
    let (mut sealed, mut batches) = (Vec::new(), rows.chunks(1_700));
    for (n, rows) in batches.by_ref().enumerate() {
        insert(&mut columns, rows, 1);
        sealed.push(seal(&mut columns, &format!("moments-{n}")));
    }
    let check = |columns: &Columns<Tick>| {
        for (n, ix) in columns.markets().enumerate() {
            // A transaction brings one row, to each market in turn.
            for tx in 0..=rows.len() as u64 {
                let view = columns.view(ix, Tx::from_bits(tx)).unwrap();
                let expected = (tx as usize + 1 - n) / 2;
                assert_eq!(view.count() as usize, expected, "market {n} as of {tx}");
                let Some(number) = expected.checked_sub(1) else { continue };
                let found = view.latest().unwrap().unwrap();
                assert_eq!((found.number as usize, found.row), (number, rows[2 * number + n]));
                assert_eq!(found.tx.bits(), (2 * number + n) as u64 + 1);
                assert_eq!(view.tx_of(number as u32).unwrap(), Some(found.tx));
                assert_eq!(columns.row_after(ix, Tx::from_bits(tx)).unwrap() as usize, expected);
            }
        }
    };
    check(&columns);
    let path = file("moments-merged");
    merge::<Tick>(&sealed, &columns.floors(), &path, &mut ()).unwrap().unwrap();
    columns.install_merged(&sealed, Some(Arc::new(Run::open(&path).unwrap())));
    assert_eq!(columns.runs()[0].meta().blocks, 2, "2,500 transactions in each");
    check(&columns);
}

#[test]
fn blocks_of_many_pages_answer_what_memory_answered_before_and_after_merging() {
    let mut random = Random(7);
    let mut columns = columns(3);
    let mut ids = [1_u64; 3];
    let mut rows = Vec::new();
    for _ in 0..230_000 {
        let n = if random.below(10) < 6 { 0 } else { random.below(3) as u32 };
        // Market 1 gets its ids in no order at all.
        let id = if n == 1 { 1 + ids[1].wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 40) } else { ids[n as usize] };
        ids[n as usize] += 1;
        rows.push(tick(n, id, &mut random));
    }
    insert(&mut columns, &rows[..150_000], 700);
    columns.freeze().unwrap();
    insert(&mut columns, &rows[150_000..], 700);
    let last = columns.last_tx();
    let questions = [
        (last, Filter::default()),
        (Tx::from_bits(last.bits() / 2), Filter::default()),
        (Tx::from_bits(last.bits() - 3), Filter { since: Tx::from_bits(100), ..Filter::default() }),
        (last, Filter { event_time_ns: 20_000_000_000..=21_000_000_000, ..Filter::default() }),
        (last, Filter { event_time_ns: 500..=90_000_000_000, from_row: 3_000, ..Filter::default() }),
    ];
    let before: Vec<_> = questions.iter().map(|(as_of, filter)| answers(&columns, *as_of, filter)).collect();
    let points = |columns: &Columns<Tick>| {
        let mut points = Vec::new();
        for (ix, row) in columns.markets().flat_map(|ix| rows.iter().step_by(97).map(move |row| (ix, row))) {
            points.push(columns.view(ix, Tx::from_bits(200)).unwrap().row_by_id(row.id).unwrap());
        }
        points
    };
    let points_before = points(&columns);
    let check = |columns: &Columns<Tick>| {
        for ((as_of, filter), before) in questions.iter().zip(&before) {
            assert!(&answers(columns, *as_of, filter) == before, "{as_of} {filter:?}");
        }
        assert!(points(columns) == points_before);
    };

    let oldest = columns.frozen()[0].clone();
    let path = file("oldest");
    oldest.write_run(&path, &mut ()).unwrap();
    columns.install(oldest, Arc::new(Run::open(&path).unwrap()));
    check(&columns);
    seal(&mut columns, "second");
    check(&columns);

    // Every row is known now, wherever it lies.
    let mut verdicts = Vec::new();
    for rows in rows.chunks(1000).step_by(7) {
        let summary = columns.check(rows, &mut verdicts).unwrap();
        assert_eq!(summary.duplicates as usize, rows.len());
        let others: Vec<Tick> = rows.iter().map(|row| Tick { price: row.price + 1.0, ..*row }).collect();
        assert_eq!(columns.check(&others, &mut verdicts).unwrap().refused as usize, rows.len());
    }

    let old = columns.runs().to_vec();
    let path = file("merged");
    merge::<Tick>(&old, &columns.floors(), &path, &mut ()).unwrap().unwrap();
    let merged = Arc::new(Run::open(&path).unwrap());
    merged.verify().unwrap();
    assert!(merged.meta().blocks < old.iter().map(|run| run.meta().blocks).sum());
    columns.install_merged(&old, Some(merged));
    check(&columns);
}

#[test]
fn quotes_come_back_bit_for_bit() {
    let mut random = Random(3);
    let mut columns = Columns::<Quote>::new(ColumnsConfig::default());
    let ix = columns.add_market(market(0), MarketOptions::default());
    let rows: Vec<Quote> = (1..5_000)
        .map(|id| {
            let bid = random.below(100_000) as f64 / 100.0;
            Quote {
                market: market(0),
                id,
                event_time_ns: id as i64,
                bid,
                bid_volume: random.below(1000) as f64 * 0.00001,
                ask: bid + 0.01,
                ask_volume: random.below(1000) as f64,
                source: 3,
                received_delta_us: i32::MIN,
            }
        })
        .collect();
    let mut verdicts = Vec::new();
    columns.check(&rows, &mut verdicts).unwrap();
    columns.insert(Tx::from_bits(1), &rows, &verdicts);
    let frozen = columns.freeze().unwrap();
    let path = file("quotes");
    frozen.write_run(&path, &mut ()).unwrap();
    columns.install(frozen, Arc::new(Run::open(&path).unwrap()));
    let mut found = Vec::new();
    let visit = |row: Found<Quote>| {
        found.push(row.row);
        ControlFlow::Continue(())
    };
    columns.view(ix, Tx::MAX).unwrap().rows(&Filter::default(), visit).unwrap();
    assert!(found == rows);
}

#[test]
fn recorded_trades_take_at_most_five_bytes_each() {
    let Some(trades) = recorded::trades() else {
        eprintln!("skipped: the recorded trades are not present (../shared/data or MYELIN_DATA)");
        return;
    };
    for batch in [1000, 100] {
        let mut columns = Columns::new(ColumnsConfig::default());
        let options = MarketOptions { ascending_ids: true, ..MarketOptions::default() };
        trades.markets.iter().for_each(|&id| _ = columns.add_market(id, options));
        let mut verdicts = Vec::new();
        for (n, rows) in trades.rows.chunks(batch).enumerate() {
            assert_eq!(columns.check(rows, &mut verdicts).unwrap().new as usize, rows.len());
            // A leader stamps by its clock: batches arrive as the trades did, several to a millisecond or none.
            let last = rows[rows.len() - 1];
            let arrival = last.event_time_ns / 1_000_000 + i64::from(last.received_delta_us) / 1000 + n as i64 % 2;
            let tx = Tx::stamp(arrival as u64, columns.last_tx());
            columns.insert(tx, rows, &verdicts);
        }
        let run = seal(&mut columns, &format!("recorded-{batch}"));
        let bytes = run.meta().bytes as f64 / run.meta().rows as f64;
        assert!(bytes <= 5.0, "{bytes} bytes a trade in batches of {batch}");
        assert_eq!(run.meta().rows as usize, trades.rows.len());
        for (ix, &id) in columns.markets().zip(&trades.markets) {
            let mut found = Vec::new();
            let visit = |row: Found<Tick>| {
                found.push(row.row);
                ControlFlow::Continue(())
            };
            columns.view(ix, Tx::MAX).unwrap().rows(&Filter::default(), visit).unwrap();
            let expected: Vec<Tick> = trades.rows.iter().filter(|row| row.market == id).copied().collect();
            assert!(found == expected, "every byte comes back");
        }
    }
}

/// Reads whatever a run offers.
fn exhaust(path: &std::path::Path, state: &[u8]) -> Result<(), IndexError> {
    let run = Arc::new(Run::open(path)?);
    // Not only `verify`: readers come without it.
    let columns = Columns::<Tick>::restore(ColumnsConfig::default(), state, vec![run])?;
    for ix in columns.markets() {
        let view = columns.view(ix, Tx::from_bits(3))?;
        view.total_decoded(&Filter::default())?;
        view.rows(&Filter { since: Tx::from_bits(1), ..Filter::default() }, |_| ControlFlow::Continue(()))?;
        view.bars(&Filter::default(), 1_000_000)?;
        view.latest()?;
        view.row_by_id(1_500)?;
    }
    Ok(())
}

const FOOTER: usize = 128;

/// Makes every checksum right again, as somebody would who means harm.
fn sign(bytes: &mut [u8]) {
    let len = bytes.len();
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let footer = len - FOOTER;
    let (blocks, directory, totals) =
        (u32_at(bytes, footer + 12), u64_at(bytes, footer + 16), u32_at(bytes, footer + 24));
    let put = |bytes: &mut [u8], at: usize, crc: u32| bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    let end = directory.saturating_add(blocks * 104 + totals);
    if end <= footer {
        for entry in (0..blocks).map(|n| directory + n * 104) {
            let (offset, block) = (u64_at(bytes, entry + 16), u32_at(bytes, entry + 24));
            if let Some(block) = bytes.get(offset..offset.saturating_add(block)) {
                let crc = crc32fast::hash(block);
                put(bytes, entry + 28, crc);
            }
        }
        let crc = crc32fast::hash(&bytes[directory..end]);
        put(bytes, footer + 28, crc);
    }
    let crc = crc32fast::hash(&bytes[footer..len - 4]);
    put(bytes, len - 4, crc);
    let crc = crc32fast::hash(&bytes[..60]);
    put(bytes, 60, crc);
}

/// Damage of every kind; returns how many damaged files were read without an error.
fn fuzz(signed: bool, rounds: u32) -> u32 {
    let name = if signed { "fuzz-signed" } else { "fuzz" };
    let mut random = Random(99);
    let mut columns = columns(3);
    let rows: Vec<Tick> =
        (1..2_600_u64).flat_map(|id| (0..3).map(move |n| (n, id))).map(|(n, id)| tick(n, id, &mut random)).collect();
    insert(&mut columns, &rows, 2_000);
    let frozen = columns.freeze().unwrap();
    let state = columns.state();
    let path = file(name);
    frozen.write_run(&path, &mut ()).unwrap();
    exhaust(&path, &state).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut passed = 0;
    for round in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = match random.below(4) {
                0 => random.below(bytes.len() as u64) as usize,
                1 => bytes.len() - 1 - random.below(700) as usize,
                // Headers of columns and pco's metadata.
                2 => 64 + random.below(900) as usize,
                _ => random.below(64) as usize,
            };
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4) as usize],
                _ if signed => bytes[at] = bytes[at].wrapping_add(1),
                _ => bytes.truncate(at),
            }
            if bytes.len() < 2_000 {
                break;
            }
        }
        if signed {
            sign(&mut bytes);
        }
        let damaged = file(&format!("{name}-{}", round % 2));
        std::fs::write(&damaged, &bytes).unwrap();
        passed += u32::from(exhaust(&damaged, &state).is_ok() && bytes != whole);
    }
    passed
}

#[test]
fn a_damaged_run_is_an_error_and_never_passes_for_whole() {
    // What passes was damaged where nothing is read: nowhere, as every byte is under a checksum.
    assert_eq!(fuzz(false, 3_000), 0);
}

/// A checksum is no signature: bytes that somebody signed again are still read with every bound checked.
#[test]
fn a_run_that_was_damaged_and_signed_again_does_not_panic() {
    let passed = fuzz(true, 1_000);
    eprintln!("{passed} of 1000 damaged files passed every checksum and gave some answer");
}

#[test]
fn a_damaged_state_is_refused() {
    let mut random = Random(5);
    let mut columns = columns(2);
    insert(&mut columns, &(1..500).map(|id| tick(0, id, &mut random)).collect::<Vec<_>>(), 100);
    let run = seal(&mut columns, "state");
    let state = columns.state();
    let restore = |state: &[u8], runs| Columns::<Tick>::restore(ColumnsConfig::default(), state, runs);
    assert!(restore(&state, vec![Arc::clone(&run)]).is_ok());
    assert!(matches!(restore(&state, vec![]), Err(IndexError::State { .. })), "rows are missing");
    for at in 0..state.len() {
        let mut damaged = state.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(matches!(restore(&damaged, vec![Arc::clone(&run)]), Err(IndexError::State { .. })));
        assert!(matches!(restore(&state[..at], vec![Arc::clone(&run)]), Err(IndexError::State { .. })));
        // Signed again, it may be some state, but never a panic.
        let body = damaged.len() - 4;
        let crc = crc32fast::hash(&damaged[..body]);
        damaged[body..].copy_from_slice(&crc.to_le_bytes());
        let _ = restore(&damaged, vec![Arc::clone(&run)]);
    }
}

/// Version 1 did not say which transaction the last pruned row had: its bytes are those of version 2 without that.
#[test]
fn a_state_of_version_1_is_still_read() {
    let mut random = Random(5);
    let mut columns = columns(1);
    insert(&mut columns, &(1..500).map(|id| tick(0, id, &mut random)).collect::<Vec<_>>(), 100);
    let (ix, horizon) = (columns.market_ix(market(0)).unwrap(), columns.last_tx().next());
    columns.prune(Some(ix), Retention::Last(50), horizon).unwrap();
    let run = seal(&mut columns, "state-1");
    assert_eq!(run.meta().rows, 50, "what was pruned is not written");
    let mut state = columns.state();
    state[8] = 1;
    let gone = 24 + 8 + 4 + 4 + 4 + 8 + 8;
    state.drain(gone..gone + 8);
    let body = state.len() - 4;
    let crc = crc32fast::hash(&state[..body]);
    state[body..].copy_from_slice(&crc.to_le_bytes());
    let restored = Columns::<Tick>::restore(ColumnsConfig::default(), &state, vec![run]).unwrap();
    let (now, then) = (columns.kept(ix), restored.kept(ix));
    assert_eq!((then.rows, then.dropped, then.horizon), (now.rows, now.dropped, now.horizon));
    assert_eq!(then.gone, horizon, "not knowing better, nothing before the horizon is told to be complete");
}

#[test]
fn rows_are_never_gone_later_than_they_went_nor_without_a_horizon() {
    let mut random = Random(5);
    let mut columns = columns(1);
    insert(&mut columns, &(1..500).map(|id| tick(0, id, &mut random)).collect::<Vec<_>>(), 100);
    let (ix, at) = (columns.market_ix(market(0)).unwrap(), columns.last_tx().next());
    columns.raise([(ix, FloorAt { row: 450, id: 0, gone: Tx::MAX, whole: true })], at);
    assert_eq!(columns.kept(ix).gone, at);
    let run = seal(&mut columns, "state-gone");
    let mut state = columns.state();
    let restore = |state: &[u8]| Columns::<Tick>::restore(ColumnsConfig::default(), state, vec![Arc::clone(&run)]);
    assert!(restore(&state).is_ok());
    let (horizon, body) = (24 + 8 + 4 + 4 + 4 + 8, state.len() - 4);
    state[horizon..horizon + 16].fill(0);
    let crc = crc32fast::hash(&state[..body]);
    state[body..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(restore(&state), Err(IndexError::State { .. })), "answers of the past would be short");
}

#[test]
fn a_skipped_id_is_a_gap_unless_the_same_proposal_fills_it() {
    let mut random = Random(5);
    let mut columns = Columns::new(ColumnsConfig::default());
    columns.add_market(market(0), MarketOptions { dense_ids: true, ..MarketOptions::default() });
    let mut gaps_of = |ids: &[u64]| {
        let rows: Vec<Tick> = ids.iter().map(|&id| tick(0, id, &mut random)).collect();
        let mut verdicts = Vec::new();
        columns.check(&rows, &mut verdicts).unwrap();
        let tx = columns.last_tx().next();
        let gaps = columns.insert(tx, &rows, &verdicts).gaps.to_vec();
        gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>()
    };
    for (ids, gaps) in [
        (&[100, 101][..], &[][..]),
        (&[103], &[(102, 102)]),
        (&[106, 104, 105], &[]),
        (&[110, 108], &[(107, 107), (109, 109)]),
        (&[102], &[]),
        (&[50_000], &[(111, 49_999)]),
    ] {
        assert_eq!(gaps_of(ids), gaps, "{ids:?}");
    }
}
