//! Exact aggregates over one market: totals and bars, from partials that merge without changing a bit.
//!
//! ```text
//!   total   whole blocks: the totals in the directory, nothing decoded; the edges: prices and volumes, page by page
//!   bars    runs of rows of one interval -> one bar; sums rounded only when they are asked for
//! ```
//! Invariants: the answer is the same wherever the rows are (newest part, frozen, sealed, merged) and however partials are
//! merged. Every row counts, corrections too: the corrected row stays in history. Deliberately absent: empty bars.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::ColumnRow;
use super::read::{Filter, MarketView, Piece};
use super::scan::Scan;
use super::schema::{EVENT_TIME, PRICE, VOLUME, corrections};
use super::totals::{Adder, Partial};
use crate::IndexError;
use crate::exact::{ExactSum, Gather};

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

/// Bars in the making.
#[derive(Default)]
struct Bars {
    width_ns: i64,
    growing: Option<Growing>,
    volume: Gather,
    notional: Gather,
    done: BTreeMap<i64, Bar>,
}

impl<R: ColumnRow> MarketView<'_, R> {
    /// Count, extremes and exact sums of the rows of the filter.
    ///
    /// **Cost:** whole blocks nothing but their directory entry; else about 10 ns a row.
    pub fn total(&self, filter: &Filter) -> Result<Partial, IndexError> {
        let range = self.range(filter)?;
        let columns: Vec<usize> = Partial::COLUMNS.into_iter().chain(R::FLAGS).collect();
        let mut adder = Adder::default();
        for piece in self.pieces() {
            if let Piece::Block { run, block } = piece {
                let entry = &run.blocks()[block];
                let events = &filter.event_time_ns;
                let whole = range.start <= entry.first_row && range.end >= entry.end_row();
                if whole && events.contains(&entry.zone.event_min) && events.contains(&entry.zone.event_max) {
                    adder.merge(&entry.totals);
                    continue;
                }
            }
            let mut scan = Scan::new(&columns, false, filter.event_time_ns.clone(), |batch| {
                adder.add(bytemuck::cast_slice(&batch.columns[0]), bytemuck::cast_slice(&batch.columns[1]));
                adder.correct(batch.columns.get(2).map_or(0, |flags| corrections(flags)));
                ControlFlow::Continue(())
            });
            // The visitor never breaks.
            let _ = scan.piece(&piece, &range)?;
        }
        Ok(adder.take())
    }

    /// The same as [`total`](Self::total), decoding every row: what the totals of blocks save, and their proof.
    pub fn total_decoded(&self, filter: &Filter) -> Result<Partial, IndexError> {
        let columns: Vec<usize> = Partial::COLUMNS.into_iter().chain(R::FLAGS).collect();
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
        assert!(width_ns > 0, "an interval has a width");
        let mut bars = Bars { width_ns, ..Bars::default() };
        self.scan(filter, &[EVENT_TIME, PRICE, VOLUME], false, |batch| {
            let [events, price, volume] = batch.columns else { unreachable!("three columns were asked for") };
            let (events, price, volume): (&[i64], &[f64], &[f64]) =
                (bytemuck::cast_slice(events), bytemuck::cast_slice(price), bytemuck::cast_slice(volume));
            bars.add(batch.numbers, events, price, volume);
            ControlFlow::Continue(())
        })?;
        bars.finish();
        Ok(bars.done.into_values().collect())
    }
}

impl Bars {
    /// Adds rows, a run of one interval at a time.
    fn add(&mut self, numbers: &[u32], events: &[i64], price: &[f64], volume: &[f64]) {
        let mut from = 0;
        while from < events.len() {
            let start_ns = events[from].saturating_sub(events[from].rem_euclid(self.width_ns));
            let last_ns = start_ns.saturating_add(self.width_ns - 1);
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
    }

    /// Puts the growing bar to the others.
    fn finish(&mut self) {
        let Some(Growing { start_ns, open, high, low, close, count, first, last }) = self.growing.take() else {
            return;
        };
        let (volume, notional) = (self.volume.take(), self.notional.take());
        let bar = Bar { start_ns, open, high, low, close, count, volume, notional, first, last };
        match self.done.get_mut(&start_ns) {
            Some(there) => there.merge(&bar),
            None => _ = self.done.insert(start_ns, bar),
        }
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
