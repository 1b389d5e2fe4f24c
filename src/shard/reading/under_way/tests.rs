//! Whatever becomes of the rows between two slices, a read gives what one pass at its moment gave, or is refused.

use super::super::counts::Counted;
use super::super::rows::stored;
use super::super::sums::Wanted;
use super::*;
use crate::shard::reply::Reply;
use myelin_datom::{MarketName, received_delta};
use myelin_exact::Totals;
use myelin_index::{ColumnsConfig, Filter, MarketIx, MarketOptions, Retention, Run, merge};
use myelin_wire::{Attribute, BarRow, By, Code, Kind, MarketFlags, TopAsk, TopRow, VwapRow, write_market_row};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;

const CONN: ConnId = ConnId { station: 0, generation: 1, index: 7 };
const MARKETS: usize = 3;

/// What happens between two slices.
#[derive(Clone, Debug)]
enum Event {
    Rows(usize, u16),
    Freeze,
    Seal,
    Merge,
    Prune(usize, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..MARKETS, 1_u16..200).prop_map(|(market, rows)| Event::Rows(market, rows)),
        2 => Just(Event::Freeze),
        3 => Just(Event::Seal),
        1 => Just(Event::Merge),
        1 => (0..MARKETS, 1_u16..300).prop_map(|(market, keep)| Event::Prune(market, keep)),
    ]
}

struct World {
    ticks: Columns<Tick>,
    quotes: Columns<Quote>,
    markets: Markets,
    ids: u64,
    files: usize,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let (mut ticks, mut markets) = (Columns::new(ColumnsConfig::default()), Markets::default());
        for name in ["read:a", "read:b", "read:c"] {
            let market = markets.create(Tx::from_bits(1), MarketName::new(name).unwrap(), MarketFlags(0)).unwrap();
            ticks.add_market(market.id, MarketOptions::default());
        }
        Self {
            ticks,
            quotes: Columns::new(ColumnsConfig::default()),
            markets,
            ids: 0,
            files: 0,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn ix(&self, market: usize) -> MarketIx {
        self.ticks.market_ix(self.markets.get(market as u32).unwrap().id).unwrap()
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Rows(market, rows) => self.insert(market, rows),
            Event::Freeze => _ = self.ticks.freeze(),
            Event::Seal => self.seal(),
            Event::Merge => self.merge(),
            Event::Prune(market, keep) => {
                let (ix, at) = (self.ix(market), self.ticks.last_tx().next());
                drop(self.ticks.prune(Some(ix), Retention::Last(keep.into()), at).unwrap());
            }
        }
    }

    fn insert(&mut self, market: usize, rows: u16) {
        let market = self.markets.get(market as u32).unwrap().id;
        for _ in 0..rows.div_ceil(50) {
            let rows: Vec<Tick> = (0..rows.min(50))
                .map(|_| {
                    self.ids += 1;
                    let draw = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    Tick {
                        market,
                        id: self.ids,
                        // Times are not in order, and lie on both sides of 1970.
                        event_time_ns: (draw >> 40) as i64 - (1 << 22),
                        price: 1.0 + (draw >> 50) as f64 / 7.0,
                        volume: (draw >> 55) as f64 / 3.0,
                        received_delta_us: received_delta::UNKNOWN,
                        ..bytemuck::Zeroable::zeroed()
                    }
                })
                .collect();
            let mut verdicts = Vec::new();
            self.ticks.check(&rows, &mut verdicts).unwrap();
            self.ticks.insert(self.ticks.last_tx().next(), &rows, &verdicts);
        }
    }

    fn file(&mut self) -> std::path::PathBuf {
        self.files += 1;
        self.dir.path().join(format!("run-{}", self.files))
    }

    fn seal(&mut self) {
        let _frozen = self.ticks.freeze();
        let Some(oldest) = self.ticks.frozen().first().cloned() else { return };
        let path = self.file();
        let run = (oldest.live_rows() > 0).then(|| {
            oldest.write_run(&path, &mut ()).unwrap();
            opened(&path)
        });
        self.ticks.install(oldest, run);
    }

    fn merge(&mut self) {
        let (old, path) = (self.ticks.runs().to_vec(), self.file());
        if old.len() > 1 {
            let merged = merge::<Tick>(&old, &self.ticks.floors(), &path, &mut ()).unwrap();
            self.ticks.install_merged(&old, merged.map(|_| opened(&path)));
        }
    }

    fn here(&self) -> Here<'_> {
        Here { ticks: &self.ticks, quotes: &self.quotes, markets: &self.markets }
    }

    /// The answer of one pass, at this moment.
    fn in_one_pass(&self, ask: &Asked, basis: Tx) -> Result<Vec<u8>, IndexError> {
        match &ask.form {
            Form::Sums(wanted) => self.sums(wanted, ask, basis),
            Form::Count | Form::Each => self.counts(ask, basis),
            Form::Page(limit) => {
                let mut rows = Vec::new();
                self.ticks.view(self.ticks.market_ix(ask.market).unwrap(), basis)?.rows(&ask.filter, |found| {
                    rows.push(stored(&found));
                    if rows.len() < *limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                Ok(bytemuck::cast_slice(&rows).to_vec())
            }
            Form::Newest => {
                let newest = self.ticks.view(self.ticks.market_ix(ask.market).unwrap(), basis)?.latest()?;
                Ok(newest.map(|found| bytemuck::bytes_of(&stored(&found)).to_vec()).unwrap_or_default())
            }
        }
    }

    fn counts(&self, ask: &Asked, basis: Tx) -> Result<Vec<u8>, IndexError> {
        let (mut sum, mut list) = (0, Vec::new());
        for market in self.markets.iter().filter(|one| ask.market == EntityId::NONE || one.id == ask.market) {
            let count = u64::from(self.ticks.view(self.ticks.market_ix(market.id).unwrap(), basis)?.count());
            sum += count;
            write_market_row(&mut list, market.id, market.flags, count, 0, &market.name);
        }
        Ok(if matches!(ask.form, Form::Each) { list } else { u64::to_le_bytes(sum).to_vec() })
    }

    fn sums(&self, wanted: &Wanted, ask: &Asked, basis: Tx) -> Result<Vec<u8>, IndexError> {
        let mut averages = Vec::new();
        let mut greatest = Vec::new();
        let mut totals = Totals::default();
        for market in self.markets.iter().filter(|one| ask.market == EntityId::NONE || one.id == ask.market) {
            let view = self.ticks.view(self.ticks.market_ix(market.id).unwrap(), basis)?;
            match wanted {
                Wanted::Totals => totals.merge(&view.total_decoded(&ask.filter)?),
                Wanted::Bars { width_ns } => {
                    let bars = view.bars(&ask.filter, *width_ns)?;
                    let row = |bar: &myelin_index::Bar| BarRow {
                        start_ns: bar.start_ns,
                        open: bar.open,
                        high: bar.high,
                        low: bar.low,
                        close: bar.close,
                        volume: bar.volume.round(),
                        count: bar.count,
                        market: market.id.bits(),
                    };
                    return Ok(bytemuck::cast_slice(&bars.iter().map(row).collect::<Vec<_>>()).to_vec());
                }
                Wanted::Vwap => {
                    let total = view.total_decoded(&ask.filter)?;
                    let (notional, volume) = (total.notional.round(), total.volume.round());
                    let (market, vwap) = (market.id.bits(), notional / volume);
                    averages.push(VwapRow { market, count: total.count, notional, volume, vwap });
                }
                Wanted::Top { .. } => {
                    let bars = view.bars(&ask.filter, i64::MAX)?;
                    let total = view.total_decoded(&ask.filter)?;
                    let (Some(open), Some(close)) = (bars.first(), bars.last()) else { continue };
                    greatest.push(TopRow {
                        market: market.id.bits(),
                        count: total.count,
                        volume: total.volume.round(),
                        notional: total.notional.round(),
                        first: open.open,
                        last: close.close,
                        moved: (close.close - open.open) / open.open.abs(),
                    });
                }
            }
        }
        if let Wanted::Totals = wanted {
            let mut body = Vec::new();
            totals.write(&mut body);
            return Ok(body);
        }
        if let Wanted::Top { by, limit, .. } = wanted {
            greatest.sort_by(|a, b| by.rank(a, b));
            greatest.truncate(*limit);
            return Ok(bytemuck::cast_slice(&greatest).to_vec());
        }
        Ok(bytemuck::cast_slice(&averages).to_vec())
    }
}

fn opened(path: &Path) -> Arc<Run> {
    Arc::new(Run::open(path).unwrap())
}

enum Form {
    Sums(Wanted),
    Count,
    Each,
    Page(usize),
    Newest,
}

struct Asked {
    form: Form,
    market: EntityId,
    filter: Filter,
}

fn asked(world: &World, form: u8, narrow: bool, since: Tx) -> Asked {
    let market = world.markets.get(u32::from(form) % 3).unwrap().id;
    let events = if narrow { -100_000..=5_000_000 } else { i64::MIN..=i64::MAX };
    let filter = Filter { event_time_ns: events, ..Filter::default() };
    let top = |by, limit| Form::Sums(Wanted::top(&TopAsk { by, limit, from_ns: 0, to_ns: 0 }));
    let (form, market, filter) = match form % 15 {
        0 => (Form::Sums(Wanted::Vwap), EntityId::NONE, Filter::default()),
        1 => (Form::Sums(Wanted::Vwap), market, Filter::default()),
        2 => (Form::Sums(Wanted::Bars { width_ns: 100_000 }), market, filter),
        3 => (Form::Sums(Wanted::Bars { width_ns: 3_000_000 }), market, filter),
        4 => (top(By::Count, 2), EntityId::NONE, filter),
        5 => (top(By::Price, 2), EntityId::NONE, filter),
        6 => (top(By::Notional, 1), EntityId::NONE, filter),
        7 => (Form::Count, EntityId::NONE, Filter::default()),
        8 => (Form::Count, market, Filter::default()),
        9 => (Form::Each, EntityId::NONE, Filter::default()),
        10 => (Form::Page(70), market, filter),
        11 => (Form::Page(5000), market, Filter { since, ..filter }),
        12 => (Form::Sums(Wanted::Totals), EntityId::NONE, filter),
        13 => (Form::Sums(Wanted::Totals), market, filter),
        _ => (Form::Newest, market, Filter::default()),
    };
    Asked { form, market, filter }
}

/// The read, or why it is refused as it begins.
fn reading(world: &World, ask: Asked, basis: Tx) -> Result<Reading, Unanswered> {
    let header = Header { session: 1, request: 9, ..Header::new(Kind::Vwap) };
    let read = Read::of(CONN, header, Kind::Vwap, Vec::new(), basis);
    let Asked { form, market, filter } = ask;
    let all = 0..world.markets.len() as u32;
    let to_come = if market == EntityId::NONE { ToCome::numbered(all.clone()) } else { ToCome::one(market) };
    let walk = match form {
        Form::Sums(wanted) => Walk::Sums(Box::new(Sums::new(basis, wanted, to_come, filter))),
        Form::Count => Walk::Counts(Counts::of(basis, Counted::Ticks, to_come)),
        Form::Each => Walk::Counts(Counts::each(basis, all.clone(), all.end)),
        Form::Page(limit) => Walk::Rows(Rows::page(&world.here(), basis, Attribute::Tick, market, filter, limit)?),
        Form::Newest => Walk::Rows(Rows::newest(&world.here(), basis, Attribute::Tick, market)?),
    };
    Ok(Reading::new(1, &read, walk))
}

/// Which batch it is at, and how many rows it has come over in that, where it adds rows up.
fn reached(reading: &Reading) -> ((usize, bool), u64) {
    let Walk::Sums(sums) = &reading.walk else { return ((0, false), 0) };
    sums.reached()
}

/// The bytes of an answer; `None` when it was refused as below the horizon, about a market it was to read.
fn body(outcome: Result<Said, Unanswered>, ask: EntityId) -> Option<Vec<u8>> {
    match outcome {
        // A count is in the header.
        Ok(Said::Answer { count: 1, aux, body, .. }) if body.is_empty() => Some(aux.to_le_bytes().to_vec()),
        Ok(Said::Answer { body, .. }) => Some(body),
        Err(Unanswered::Refused(refusal)) => {
            assert_eq!(refusal.code, Code::BelowHorizon);
            assert!(refusal.about == ask || ask == EntityId::NONE && refusal.about != EntityId::NONE);
            None
        }
        Ok(_) | Err(Unanswered::Failed(_)) => panic!("no answer and no refusal"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn slices_give_the_answer_of_one_pass_whatever_happens_between_them(
        before in prop::collection::vec(event(), 1..14),
        between in prop::collection::vec(event(), 1..14),
        form in any::<u8>(), narrow in any::<bool>(), back in 0_u64..12, budget in 1_u64..400, since in 0_u64..12,
    ) {
        let mut world = World::new();
        // A basis is past: what comes later has a later transaction.
        world.insert(0, 1);
        before.iter().for_each(|event| world.happen(event));
        let basis = Tx::from_bits(world.ticks.last_tx().bits().saturating_sub(back).max(1));
        let since = Tx::from_bits(basis.bits().saturating_sub(since));
        let ask = asked(&world, form, narrow, since);
        let market = ask.market;
        let due = world.in_one_pass(&ask, basis);
        let mut reading = match reading(&world, ask, basis) {
            Ok(reading) => reading,
            Err(refused) => {
                prop_assert!(body(Err(refused), market).is_none(), "refused as it begins");
                return Ok(());
            }
        };
        let (mut summing, cache) = (Summing::default(), Cache::new(1 << 20));
        let mut events = between.iter().cycle();
        let mut pruned = false;
        let outcome = 'walk: loop {
            let (batch, rows) = reached(&reading);
            let mut left = budget;
            let step = reading.go_on(&world.here(), &mut summing, &mut left);
            let (batch_now, rows_now) = reached(&reading);
            // A batch that follows begins at other rows.
            prop_assert!(batch_now != batch || rows_now - rows <= budget, "a slice of {} rows", rows_now - rows);
            match step {
                Ok(Step::More) => {}
                Ok(Step::Away) => {
                    let (ticks, quotes) = (world.ticks.sealed(), world.quotes.sealed());
                    // What happens while it is away.
                    let event = events.next().unwrap();
                    pruned |= matches!(event, Event::Prune(..));
                    world.happen(event);
                    reading.travel(&ticks, &quotes, &cache, &mut summing, budget).unwrap();
                }
                Ok(Step::Answer(said)) => break 'walk Ok(said),
                Err(error) => break 'walk Err(error),
            }
            // Rows are bounded: the test's own end.
            if world.ids < 20_000 {
                let event = events.next().unwrap();
                pruned |= matches!(event, Event::Prune(..));
                world.happen(event);
            }
        };
        match (body(outcome, market), due) {
            (Some(body), Ok(due)) => prop_assert_eq!(body, due),
            (Some(_), Err(error)) => prop_assert!(false, "answered what is {error}"),
            (None, due) => prop_assert!(pruned || due.is_err(), "refused, and nothing was pruned"),
        }
    }
}

#[test]
fn a_refusal_names_the_market_that_was_pruned() {
    let mut world = World::new();
    world.insert(1, 100);
    let basis = world.ticks.last_tx();
    world.happen(&Event::Prune(1, 10));
    let ask = asked(&world, 4, false, Tx::ZERO);
    let Ok(mut reading) = reading(&world, ask, basis) else { panic!("it begins") };
    let error = reading.go_on(&world.here(), &mut Summing::default(), &mut 1000);
    let Err(Unanswered::Refused(refusal)) = error else { panic!("it was not refused") };
    let said = Said::Refused(refusal);
    let mut frame = Vec::new();
    Reply { to: CONN, session: 1, request: 9, shard: 0, tx: 0, said }.write(&mut frame, 1);
    let named = format!("about market {}.", world.markets.get(1).unwrap().id.bits());
    assert!(String::from_utf8_lossy(&frame).contains(&named));
}
