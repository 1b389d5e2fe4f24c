//! The columns against a model that keeps every row in one list: whatever is proposed, frozen, sealed, merged, pruned or
//! restarted, and whenever, every answer as of every transaction is the model's.
//!
//! The model knows nothing of windows, parts, runs or blocks: a list of rows with their transactions, searched from the end.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use myelin_datom::{EntityId, Kind, Slot, Tick, Tx, flags};
use myelin_exact::{ExactSum, Totals};
use myelin_index::{
    Bars, Cache, Columns, ColumnsConfig, Filter, Found, IndexError, MarketIx, MarketOptions, Retention, RowRefusal,
    Run, Summing, Verdict, merge, row_entity,
};
use proptest::prelude::*;

const MARKETS: usize = 3;

fn market(n: usize) -> EntityId {
    EntityId::market(Slot::new([5, 5, 900][n]).unwrap(), [1, 0, 7][n])
}

fn options(n: usize) -> MarketOptions {
    MarketOptions { signed: n == 1, ascending_ids: n != 2, dense_ids: n == 0 }
}

#[derive(Clone, Debug)]
struct Ask {
    market: usize,
    id: u64,
    price: i32,
    correction: bool,
    late: i64,
}

#[derive(Clone, Debug)]
enum Step {
    Propose(Vec<Ask>),
    /// Of a market, from a row on so many.
    Repeat(usize, usize, usize),
    Freeze,
    Seal,
    Merge,
    Prune(usize, Retention),
    /// As a shard does it: a floor worked out with so many ids read, set later.
    PruneSlice(usize, Retention, u32),
    Restart,
    Read(u64),
}

fn ask() -> impl Strategy<Value = Ask> {
    // Mostly a rising id with small steps back; sometimes any id of a range wider than the window.
    let id = prop_oneof![4 => 0..60_u64, 1 => 20_000..20_060_u64, 1 => 40_000..40_040_u64];
    (0..=MARKETS, id, -2..6_i32, prop::bool::weighted(0.2), -3..4_i64)
        .prop_map(|(market, id, price, correction, late)| Ask { market, id, price, correction, late })
}

fn step() -> impl Strategy<Value = Step> {
    let keep = prop_oneof![
        Just(Retention::All),
        Just(Retention::Latest),
        (0..30_u32).prop_map(Retention::Last),
        (0..60_u64).prop_map(|tx| Retention::Since(Tx::from_bits(tx))),
    ];
    let slice = (0..MARKETS, keep.clone(), 1..30_u32);
    prop_oneof![
        8 => prop::collection::vec(ask(), 0..40).prop_map(Step::Propose),
        3 => (0..MARKETS, 0..400_usize, 1..60_usize).prop_map(|(market, from, rows)| Step::Repeat(market, from, rows)),
        2 => Just(Step::Freeze),
        2 => Just(Step::Seal),
        1 => Just(Step::Merge),
        1 => (0..=MARKETS, keep).prop_map(|(market, keep)| Step::Prune(market, keep)),
        2 => slice.prop_map(|(market, keep, rows_max)| Step::PruneSlice(market, keep, rows_max)),
        1 => Just(Step::Restart),
        3 => (0..70_u64).prop_map(Step::Read),
    ]
}

#[derive(Default)]
struct Model {
    /// Transaction, place in it, row.
    rows: [Vec<(Tx, u32, Tick)>; MARKETS],
    floor: [usize; MARKETS],
    horizon: [Tx; MARKETS],
}

impl Model {
    fn judge(&self, accepted: &[Tick], row: &Tick) -> Verdict {
        let Some(n) = (0..MARKETS).find(|&n| market(n) == row.market) else {
            return Verdict::Refused(RowRefusal::UnknownMarket);
        };
        if row.price < 0.0 && !options(n).signed {
            return Verdict::Refused(RowRefusal::NegativePrice);
        }
        if row.id == 0 {
            return Verdict::New;
        }
        let (gone, there) = self.rows[n].split_at(self.floor[n]);
        let same_market = accepted.iter().filter(|other| other.market == row.market);
        let stored: Vec<_> = there.iter().map(|(_, _, row)| row).chain(same_market).collect();
        let newest = stored.iter().rev().filter(|stored| stored.id == row.id);
        // So many are compared.
        let same = newest.clone().take(16).any(|stored| bytemuck::bytes_of(*stored) == bytemuck::bytes_of(row));
        let gone_max = gone.iter().map(|(_, _, row)| row.id).max().unwrap_or(0);
        match newest.clone().next() {
            Some(_) if same => Verdict::Duplicate,
            Some(_) if row.flags & flags::CORRECTION != 0 => Verdict::New,
            Some(_) => Verdict::Refused(RowRefusal::IdConflict),
            None if options(n).ascending_ids && row.id <= gone_max => Verdict::Refused(RowRefusal::TooOld),
            None if row.flags & flags::CORRECTION != 0 => Verdict::Refused(RowRefusal::NothingToCorrect),
            None => Verdict::New,
        }
    }

    fn wanted(&self, n: usize, keep: Retention) -> usize {
        let rows = &self.rows[n];
        match keep {
            Retention::All => 0,
            Retention::Latest => rows.len().saturating_sub(1),
            Retention::Last(last) => rows.len().saturating_sub(last as usize),
            Retention::Since(since) => rows.iter().take_while(|(tx, ..)| *tx < since).count(),
        }
    }

    fn raise(&mut self, n: usize, floor: usize, at: Tx) {
        if floor > self.floor[n] {
            self.floor[n] = floor;
            self.horizon[n] = at;
        }
    }

    fn as_of(&self, n: usize, as_of: Tx) -> Vec<Found<Tick>> {
        let rows = self.rows[n].iter().enumerate().skip(self.floor[n]);
        rows.filter(|(_, (tx, ..))| *tx <= as_of)
            .map(|(at, &(tx, n, row))| Found { number: at as u32, tx, n, row })
            .collect()
    }
}

struct World {
    directory: PathBuf,
    files: u32,
    tx: u64,
    columns: Columns<Tick>,
    model: Model,
}

impl World {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let name = format!("myelin-model-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        // Created here and nowhere else, so that removing it removes only what this world wrote.
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut columns = Columns::new(config());
        (0..MARKETS).for_each(|n| _ = columns.add_market(market(n), options(n)));
        Self { directory, files: 0, tx: 0, columns, model: Model::default() }
    }

    fn tick(&self, ask: &Ask) -> Tick {
        let mut bytes = [0; 64];
        bytes[48] = (ask.price & 1) as u8 + 1;
        Tick {
            market: if ask.market < MARKETS { market(ask.market) } else { EntityId::market(Slot::new(1).unwrap(), 0) },
            id: ask.id,
            event_time_ns: (self.tx as i64 * 4 + ask.late) * 1_000_000,
            price: f64::from(ask.price) / 8.0 + 0.0,
            volume: f64::from(ask.price.unsigned_abs()) * 0.1,
            flags: if ask.correction && ask.id != 0 { flags::CORRECTION } else { 0 },
            received_delta_us: ask.price * 1000,
            ..bytemuck::cast::<[u8; 64], Tick>(bytes)
        }
    }

    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.directory.join(format!("{:06}.run", self.files))
    }

    fn seal(&mut self) {
        while let Some(frozen) = self.columns.frozen().first().cloned() {
            let path = self.path();
            if frozen.live_rows() == 0 {
                self.columns.install(frozen, None);
                continue;
            }
            let meta = frozen.write_run(&path, &mut ()).unwrap();
            assert_eq!(meta.rows, frozen.live_rows());
            let run = Arc::new(Run::open(&path).unwrap());
            assert_eq!(run.meta(), &meta);
            run.verify().unwrap();
            self.columns.install(frozen, run);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Propose(asks) => {
                let rows: Vec<Tick> = asks.iter().map(|ask| self.tick(ask)).collect();
                self.propose(&rows);
            }
            Step::Repeat(n, from, rows) => self.repeat(*n, *from, *rows),
            Step::Freeze => _ = self.columns.freeze(),
            Step::Seal => self.seal(),
            Step::Merge => {
                let old = self.columns.runs().to_vec();
                let path = self.path();
                let merged = merge::<Tick>(&old, &self.columns.floors(), &path, &mut ()).unwrap();
                let new = merged.map(|meta| Arc::new(Run::open(&meta.path).unwrap()));
                self.columns.install_merged(&old, new);
            }
            Step::Prune(n, keep) => self.prune(*n, *keep),
            Step::PruneSlice(n, keep, rows_max) => self.prune_slice(*n, *keep, *rows_max),
            Step::Restart => {
                self.columns.freeze();
                let state = self.columns.state();
                self.seal();
                let runs =
                    self.columns.runs().iter().map(|run| Arc::new(Run::open(&run.meta().path).unwrap())).collect();
                self.columns = Columns::restore(config(), &state, runs).unwrap();
            }
            Step::Read(tx) => self.compare(Tx::from_bits(*tx)),
        }
    }

    /// Rows that are there, or were, as whoever sends a file again does.
    fn repeat(&mut self, n: usize, from: usize, rows: usize) {
        let there = &self.model.rows[n];
        let from = from % (there.len() + 1);
        let again: Vec<Tick> = there[from..].iter().take(rows).map(|(_, _, row)| *row).collect();
        self.propose(&again);
    }

    fn propose(&mut self, rows: &[Tick]) {
        let mut verdicts = Vec::new();
        let summary = self.columns.check(rows, &mut verdicts).unwrap();
        let mut accepted = Vec::new();
        for (at, (row, verdict)) in rows.iter().zip(&verdicts).enumerate() {
            assert_eq!(*verdict, self.model.judge(&accepted, row), "row {at} {row:?}");
            if *verdict == Verdict::New {
                accepted.push(*row);
            }
        }
        assert_eq!(summary.new as usize, accepted.len());
        assert_eq!((summary.new + summary.duplicates + summary.refused) as usize, rows.len());
        let again = self.columns.check(rows, &mut verdicts).unwrap();
        assert_eq!(again, summary, "a check changes nothing");
        self.tx += 1;
        let tx = Tx::from_bits(self.tx);
        assert_eq!(self.columns.insert(tx, rows, &verdicts).rows, summary.new);
        for (place, row) in rows.iter().enumerate().filter(|(at, _)| verdicts[*at] == Verdict::New) {
            let n = (0..MARKETS).find(|&n| market(n) == row.market).unwrap();
            self.model.rows[n].push((tx, place as u32, *row));
        }
    }

    fn prune(&mut self, n: usize, keep: Retention) {
        self.tx += 1;
        let at = Tx::from_bits(self.tx);
        let which = (n < MARKETS).then(|| self.columns.market_ix(market(n)).unwrap());
        self.columns.prune(which, keep, at).unwrap();
        for n in if n < MARKETS { n..n + 1 } else { 0..MARKETS } {
            let floor = self.model.wanted(n, keep);
            self.model.raise(n, floor, at);
        }
    }

    fn prune_slice(&mut self, n: usize, keep: Retention, rows_max: u32) {
        let ix = self.columns.market_ix(market(n)).unwrap();
        let wanted = self.model.wanted(n, keep);
        let found = self.columns.floor_for(ix, keep, rows_max).unwrap();
        let Some(floor) = found else {
            assert!(wanted <= self.model.floor[n], "rows that are to go are gone from");
            return;
        };
        let row = floor.row as usize;
        assert!(self.model.floor[n] < row && row <= wanted);
        let gone = &self.model.rows[n][..row];
        assert_eq!(Some(floor.gone), gone.last().map(|(tx, ..)| *tx));
        if options(n).ascending_ids {
            assert_eq!(Some(floor.id), gone.iter().map(|(_, _, row)| row.id).max());
        }
        self.tx += 1;
        let before = self.columns.kept(ix);
        let pruned = self.columns.raise([(ix, floor)], Tx::from_bits(self.tx));
        let after = self.columns.kept(ix);
        assert_eq!(pruned.rows, u64::from(after.dropped - before.dropped));
        assert_eq!((after.dropped + after.rows, after.gone), (before.dropped + before.rows, floor.gone));
        self.model.raise(n, row, Tx::from_bits(self.tx));
    }

    fn compare(&self, as_of: Tx) {
        for n in 0..MARKETS {
            let ix = self.columns.market_ix(market(n)).unwrap();
            if as_of < self.model.horizon[n] {
                let refused = self.columns.view(ix, as_of).map(|view| view.count());
                assert!(
                    matches!(refused, Err(IndexError::BelowHorizon { horizon }) if horizon == self.model.horizon[n])
                );
                continue;
            }
            let expected = self.model.as_of(n, as_of);
            let end = self.columns.end_in_memory(ix, as_of).unwrap();
            let rows = end.map(|end| (end - self.columns.kept(ix).dropped) as usize);
            assert!(rows.is_none_or(|rows| rows == expected.len()), "{rows:?} by memory, {} in truth", expected.len());
            self.compare_market(n, as_of, &expected);
        }
    }

    fn compare_market(&self, n: usize, as_of: Tx, expected: &[Found<Tick>]) {
        let ix = self.columns.market_ix(market(n)).unwrap();
        let view = self.columns.view(ix, as_of).unwrap();
        assert_eq!(view.count() as usize, expected.len());
        assert_eq!(view.latest().unwrap().as_ref(), expected.last());
        let filter = |since, from_row, events: (i64, i64)| Filter {
            since: Tx::from_bits(since),
            from_row,
            event_time_ns: events.0..=events.1,
        };
        let middle = self.tx as i64 * 2_000_000;
        for filter in [
            Filter::default(),
            filter(as_of.bits() / 2, 0, (i64::MIN, i64::MAX)),
            filter(0, 7, (middle, i64::MAX)),
            filter(2, 0, (middle / 2, middle)),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .filter(|found| found.tx > filter.since && found.number >= filter.from_row)
                .filter(|found| filter.event_time_ns.contains(&found.row.event_time_ns))
                .copied()
                .collect();
            let mut rows = Vec::new();
            let visit = |found| {
                rows.push(found);
                ControlFlow::Continue(())
            };
            view.rows(&filter, visit).unwrap();
            assert_eq!(rows, expected);
            self.compare_totals(&view, &filter, &expected);
        }
        for found in expected {
            assert_eq!(view.row(found.number).unwrap().as_ref(), Some(found));
            assert_eq!(view.cell(found.number, 2).unwrap(), Some(found.row.price.to_bits()));
            assert_eq!(found.entity(), row_entity(market(n), Kind::Tick, found.number));
        }
        for id in (0..62).chain(20_000..20_062).chain(40_000..40_042) {
            let newest = expected.iter().rev().find(|found| found.row.id == id && id != 0);
            assert_eq!(view.row_by_id(id).unwrap().as_ref(), newest, "id {id}");
        }
        self.compare_in_steps(ix, as_of, expected);
    }

    /// A read in steps, the sealed rows as another thread reads them, the newest as the data core does.
    fn compare_in_steps(&self, ix: MarketIx, as_of: Tx, expected: &[Found<Tick>]) {
        let (cache, view) = (Cache::new(1 << 16), self.columns.view(ix, as_of).unwrap());
        let (mut next, end) = (view.first_row(), self.columns.sealed_end(ix));
        let (mut total, mut bars) = (Totals::default(), Bars::new(8_000_000, usize::MAX));
        let mut summing = Summing::default();
        let sealed = self.columns.sealed();
        let mut steps = 0;
        while next < end {
            let rows = sealed.view(&cache, view.market(), next..end, as_of).unwrap();
            let filter = Filter { from_row: next, ..Filter::default() };
            let reached = rows.add_total(&filter, &mut summing, &mut total, &mut 1).unwrap();
            // Where bars are many a step ends within a piece, but not beyond it.
            let mut at = next;
            while at < reached {
                let filter = Filter { from_row: at, ..Filter::default() };
                let to = rows.add_bars(&filter, &mut summing, &mut bars, &mut 1).unwrap();
                assert!((at + 1..=reached).contains(&to), "a step gets on");
                at = to;
            }
            steps += 1;
            assert!(reached > next || reached == rows.end_row(), "a step gets on");
            next = reached;
            if next == rows.end_row() {
                break;
            }
        }
        assert!(steps < 1000, "{steps} steps");
        if next >= end {
            loop {
                let rows = self.columns.newest_from(ix, next, as_of).unwrap().before(next + 7);
                rows.add_total(&Filter::default(), &mut summing, &mut total, &mut { u64::MAX }).unwrap();
                rows.add_bars(&Filter::default(), &mut summing, &mut bars, &mut { u64::MAX }).unwrap();
                if rows.end_row() == next {
                    break;
                }
                next = rows.end_row();
            }
        }
        assert_eq!(total.count as usize, expected.len());
        assert_eq!(total, view.total(&Filter::default()).unwrap());
        assert!(bars.iter().eq(&view.bars(&Filter::default(), 8_000_000).unwrap()));
    }

    fn compare_totals(&self, view: &myelin_index::MarketView<'_, Tick>, filter: &Filter, expected: &[Found<Tick>]) {
        let sum = |number: fn(&Tick) -> f64| {
            expected.iter().fold(ExactSum::default(), |mut sum, found| {
                sum.merge(&ExactSum::of(number(&found.row)));
                sum
            })
        };
        let total = view.total(filter).unwrap();
        assert_eq!(total, view.total_decoded(filter).unwrap(), "the blocks' totals are what their rows add up to");
        assert_eq!(total.count as usize, expected.len());
        let corrections = expected.iter().filter(|found| found.row.flags & flags::CORRECTION != 0).count();
        assert_eq!(total.corrections as usize, corrections);
        assert_eq!(total.price, sum(|row| row.price));
        assert_eq!(total.volume, sum(|row| row.volume));
        assert_eq!(view.sum(filter, 3).unwrap(), total.volume);
        let bars = view.bars(filter, 8_000_000).unwrap();
        assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), total.count);
        for bar in &bars {
            let mut rows: Vec<_> = expected
                .iter()
                .filter(|found| found.row.event_time_ns.div_euclid(8_000_000) * 8_000_000 == bar.start_ns)
                .collect();
            rows.sort_by_key(|found| (found.row.event_time_ns, found.number));
            assert_eq!((bar.open, bar.close), (rows[0].row.price, rows[rows.len() - 1].row.price));
            let prices = rows.iter().map(|found| found.row.price);
            assert_eq!((bar.high, bar.low), (prices.clone().fold(f64::MIN, f64::max), prices.fold(f64::MAX, f64::min)));
        }
        let mut volume = ExactSum::default();
        bars.iter().for_each(|bar| volume.merge(&bar.volume));
        assert_eq!(volume, total.volume);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn config() -> ColumnsConfig {
    // A cache of a few pages, so that they are decoded again and again.
    ColumnsConfig { cache_bytes_max: 2_000, free_chunks_max: 4 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_the_models_whatever_was_sealed_merged_pruned_or_restarted(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        for tx in 0..=world.tx + 1 {
            world.compare(Tx::from_bits(tx));
        }
        // And nothing of it changes when everything is sealed and merged.
        world.step(&Step::Restart);
        world.step(&Step::Merge);
        for tx in 0..=world.tx + 1 {
            world.compare(Tx::from_bits(tx));
        }
    }
}
