//! Exact aggregates over one market: totals and bars, from partials that merge without changing a bit.
//!
//! ```text
//!   total   whole blocks: the totals in the directory, nothing decoded; the edges: prices and volumes, page by page
//!   bars    runs of rows of one interval -> one bar; sums rounded only when they are asked for
//!   add_*   the same in steps of whole pieces: a long read is many short ones
//! ```
//! Invariants: the answer is the same wherever the rows are (newest part, frozen, sealed, merged) and however partials are
//! merged. Every row counts, corrections too: the corrected row stays in history. Deliberately absent: empty bars.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use super::ColumnRow;
use super::read::{Filter, MarketView, Piece};
use super::scan::Scan;
use super::schema::{EVENT_TIME, PRICE, VOLUME, corrections};
use super::totals::{Adder, SUMMED};
use crate::IndexError;
use myelin_exact::{ExactSum, Gather, Totals};

/// One interval of event time. For quotes, price and volume are the bid's.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Where the interval begins: a multiple of the width. **Units:** Unix nanoseconds.
    pub start_ns: i64,
    /// Price of the earliest row by event time; of equal ones the first that came.
    pub open: f64,
    /// Greatest price.
    pub high: f64,
    /// Smallest price.
    pub low: f64,
    /// Price of the latest row by event time; of equal ones the last that came.
    pub close: f64,
    /// Rows.
    pub count: u64,
    /// Sum of the volumes.
    pub volume: ExactSum,
    /// Sum of price times volume, no product rounded.
    pub notional: ExactSum,
    /// Event time and row number of `open` and of `close`: what decides when two parts of a bar are merged.
    first: (i64, u32),
    last: (i64, u32),
}

impl Bar {
    /// Volume-weighted average price; `None` without volume.
    #[must_use]
    pub fn vwap(&self) -> Option<f64> {
        (!self.volume.is_zero()).then(|| self.notional.round() / self.volume.round())
    }

    /// Puts two parts of one market's interval together. **Panics** when they are of different intervals.
    pub fn merge(&mut self, other: &Self) {
        assert!(self.start_ns == other.start_ns);
        if other.first < self.first {
            (self.open, self.first) = (other.open, other.first);
        }
        if other.last > self.last {
            (self.close, self.last) = (other.close, other.last);
        }
        self.high = self.high.max(other.high);
        self.low = self.low.min(other.low);
        self.count += other.count;
        self.volume.merge(&other.volume);
        self.notional.merge(&other.notional);
    }
}

/// The bar that is being added to.
#[derive(Clone, Copy)]
struct Growing {
    start_ns: i64,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    count: u64,
    first: (i64, u32),
    last: (i64, u32),
}

/// Memory that sums are made in, 320 KiB: kept by whoever makes many of them.
#[derive(Default)]
pub struct Summing {
    adder: Adder,
    volume: Gather,
    notional: Gather,
}

/// Bars in the making, of one market. Parts of it are added in any order.
#[derive(Debug)]
pub struct Bars {
    width_ns: i64,
    max: usize,
    done: BTreeMap<i64, Bar>,
}

impl Bars {
    /// No bars yet; with more than `max` of them nothing more is added.
    ///
    /// **Panics** when `width_ns` is not positive: the query was checked.
    #[must_use]
    pub fn new(width_ns: i64, max: usize) -> Self {
        assert!(width_ns > 0, "an interval has a width");
        Self { width_ns, max, done: BTreeMap::new() }
    }

    /// True when there are more bars than it was told, and so not all that there are.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.done.len() > self.max
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// True when no row was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// The bars, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Bar> {
        self.done.values()
    }

    /// Puts a bar to the others.
    fn put(&mut self, bar: Bar) {
        match self.done.get_mut(&bar.start_ns) {
            Some(there) => there.merge(&bar),
            None => _ = self.done.insert(bar.start_ns, bar),
        }
    }
}

/// What a piece counts in a step of an aggregate when none of its rows are looked at. **Units:** rows.
const PIECE_ROWS: u64 = 64;
/// What a bar counts that is put to the others: two sums are taken out and find their place, 0.3 to 0.5 µs. **Units:** rows.
const BAR_ROWS: u64 = 32;

/// Adds rows to bars, a run of one interval at a time.
struct BarMaker<'a> {
    into: &'a mut Bars,
    /// What bars may still count. **Units:** rows.
    left: u64,
    growing: Option<Growing>,
    volume: &'a mut Gather,
    notional: &'a mut Gather,
}

impl<R: ColumnRow> MarketView<'_, R> {
    /// Count, extremes and exact sums of the rows of the filter.
    ///
    /// **Cost:** whole blocks nothing but their directory entry; else about 10 ns a row.
    pub fn total(&self, filter: &Filter) -> Result<Totals, IndexError> {
        let mut total = Totals::default();
        self.add_total(filter, &mut Summing::default(), &mut total, &mut { u64::MAX })?;
        Ok(total)
    }

    /// Adds up rows of the filter, whole pieces of the market until `left` is spent. Gives the row to go on from: the
    /// filter's `from_row` of the next step, the view's end when there is none.
    pub fn add_total(
        &self,
        filter: &Filter,
        summing: &mut Summing,
        total: &mut Totals,
        left: &mut u64,
    ) -> Result<u32, IndexError> {
        let range = self.range(filter)?;
        let columns: Vec<usize> = SUMMED.into_iter().chain(R::FLAGS).collect();
        let adder = &mut summing.adder;
        let mut next = self.end_row();
        for piece in self.pieces_in(range.clone()) {
            if *left == 0 {
                next = range.start.max(piece.first());
                break;
            }
            if let Piece::Block { run, block } = piece
                && piece.is_whole(&range, filter)
            {
                *left = left.saturating_sub(PIECE_ROWS);
                total.merge(&run.blocks()[block].totals);
                continue;
            }
            *left = left.saturating_sub(piece.cost(&range, filter));
            let mut scan = Scan::new(&columns, false, filter.event_time_ns.clone(), |batch| {
                adder.add(bytemuck::cast_slice(&batch.columns[0]), bytemuck::cast_slice(&batch.columns[1]));
                adder.correct(batch.columns.get(2).map_or(0, |flags| corrections(flags)));
                ControlFlow::Continue(())
            });
            // The visitor never breaks.
            let _ = scan.piece(&piece, &range)?;
        }
        total.merge(&adder.take());
        Ok(next)
    }

    /// The same as [`total`](Self::total), decoding every row: what the totals of blocks save, and their proof.
    pub fn total_decoded(&self, filter: &Filter) -> Result<Totals, IndexError> {
        let columns: Vec<usize> = SUMMED.into_iter().chain(R::FLAGS).collect();
        let mut adder = Adder::default();
        self.scan(filter, &columns, false, |batch| {
            adder.add(bytemuck::cast_slice(&batch.columns[0]), bytemuck::cast_slice(&batch.columns[1]));
            adder.correct(batch.columns.get(2).map_or(0, |flags| corrections(flags)));
            ControlFlow::Continue(())
        })?;
        Ok(adder.take())
    }

    /// The exact sum of any column of floats. **Panics** when the column holds something else.
    pub fn sum(&self, filter: &Filter, column: usize) -> Result<ExactSum, IndexError> {
        assert!(R::SPECS[column].shape.is_float(), "{} is not a column of floats", R::SPECS[column].name);
        let mut gather = Gather::default();
        self.scan(filter, &[column], false, |batch| {
            gather.add(bytemuck::cast_slice(&batch.columns[0]));
            ControlFlow::Continue(())
        })?;
        Ok(gather.take())
    }

    /// Open, high, low, close and volume by intervals of event time, ascending; intervals without rows are left out.
    ///
    /// **Panics** when `width_ns` is not positive: the query was checked.
    pub fn bars(&self, filter: &Filter, width_ns: i64) -> Result<Vec<Bar>, IndexError> {
        let mut bars = Bars::new(width_ns, usize::MAX);
        self.add_bars(filter, &mut Summing::default(), &mut bars, &mut { u64::MAX })?;
        Ok(bars.done.into_values().collect())
    }

    /// Adds rows of the filter to bars of this market, in steps as [`add_total`](Self::add_total); a step ends within a piece
    /// where its bars are many. Stops where there are too many bars.
    pub fn add_bars(
        &self,
        filter: &Filter,
        summing: &mut Summing,
        bars: &mut Bars,
        left: &mut u64,
    ) -> Result<u32, IndexError> {
        let Summing { volume, notional, .. } = summing;
        let mut maker = BarMaker { into: bars, left: *left, growing: None, volume, notional };
        let mut stopped = None;
        let next = self.scan_within(filter, &[EVENT_TIME, PRICE, VOLUME], false, left, |batch| {
            let [events, price, volume] = batch.columns else { unreachable!("three columns were asked for") };
            let (events, price, volume): (&[i64], &[f64], &[f64]) =
                (bytemuck::cast_slice(events), bytemuck::cast_slice(price), bytemuck::cast_slice(volume));
            stopped = maker.add(batch.numbers, events, price, volume);
            let goes_on = stopped.is_none() && !maker.into.are_too_many();
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        maker.finish();
        *left = maker.left.min(*left);
        Ok(stopped.unwrap_or(next))
    }

    /// The pieces that have some of these rows.
    pub(super) fn pieces_in(&self, rows: Range<u32>) -> impl Iterator<Item = Piece<'_, R>> {
        let Range { start, end } = rows;
        let before = move |piece: &Piece<'_, R>| piece.first() + piece.rows() <= start;
        self.pieces().skip_while(before).take_while(move |piece| piece.first() < end)
    }
}

impl<R: ColumnRow> Piece<'_, R> {
    /// Whether a filter takes the whole of a block, so that its totals are the answer.
    fn is_whole(&self, range: &Range<u32>, filter: &Filter) -> bool {
        let Self::Block { run, block } = self else { return false };
        let (entry, events) = (&run.blocks()[*block], &filter.event_time_ns);
        let rows = range.start <= entry.first_row && range.end >= entry.end_row();
        rows && events.contains(&entry.zone.event_min) && events.contains(&entry.zone.event_max)
    }

    /// Rows that are looked at for these rows of the filter.
    pub(super) fn cost(&self, range: &Range<u32>, filter: &Filter) -> u64 {
        let (from, upto) = (range.start.max(self.first()), range.end.min(self.first() + self.rows()));
        let passed = match self {
            Self::Block { run, block } => {
                let (zone, events) = (&run.blocks()[*block].zone, &filter.event_time_ns);
                zone.event_max < *events.start() || zone.event_min > *events.end()
            }
            Self::Part { .. } => false,
        };
        if passed { PIECE_ROWS } else { u64::from(upto.saturating_sub(from)).max(PIECE_ROWS) }
    }
}

impl BarMaker<'_> {
    /// Adds rows, a run of one interval at a time, until there were enough bars: then it gives the row to go on from.
    fn add(&mut self, numbers: &[u32], events: &[i64], price: &[f64], volume: &[f64]) -> Option<u32> {
        let mut from = 0;
        while from < events.len() {
            if self.left == 0 {
                return Some(numbers[from]);
            }
            let width_ns = self.into.width_ns;
            let start_ns = events[from].saturating_sub(events[from].rem_euclid(width_ns));
            let last_ns = start_ns.saturating_add(width_ns - 1);
            let run = events[from..].iter().take_while(|event| (start_ns..=last_ns).contains(event)).count();
            let upto = from + run;
            if self.growing.is_some_and(|growing| growing.start_ns != start_ns) {
                self.finish();
            }
            let growing = self.growing.get_or_insert(Growing {
                start_ns,
                open: price[from],
                high: price[from],
                low: price[from],
                close: price[from],
                count: 0,
                first: (events[from], numbers[from]),
                last: (events[from], numbers[from]),
            });
            growing.add(&numbers[from..upto], &events[from..upto], &price[from..upto]);
            self.volume.add(&volume[from..upto]);
            self.notional.add_products(&price[from..upto], &volume[from..upto]);
            from = upto;
        }
        None
    }

    /// Puts the growing bar to the others.
    fn finish(&mut self) {
        let Some(Growing { start_ns, open, high, low, close, count, first, last }) = self.growing.take() else {
            return;
        };
        let (volume, notional) = (self.volume.take(), self.notional.take());
        self.left = self.left.saturating_sub(BAR_ROWS);
        self.into.put(Bar { start_ns, open, high, low, close, count, volume, notional, first, last });
    }
}

impl Growing {
    fn add(&mut self, numbers: &[u32], events: &[i64], price: &[f64]) {
        let (low, high) = super::totals::extremes(price);
        self.low = self.low.min(low);
        self.high = self.high.max(high);
        self.count += price.len() as u64;
        for ((&number, &event), &price) in numbers.iter().zip(events).zip(price) {
            let key = (event, number);
            if key < self.first {
                (self.first, self.open) = (key, price);
            }
            if key >= self.last {
                (self.last, self.close) = (key, price);
            }
        }
    }
}
