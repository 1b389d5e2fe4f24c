//! Totals, averages, bars, the greatest markets: a walk over markets, and over the rows of each.
//!
//! ```text
//!   markets to come -> [ feed feed feed ]   a batch
//!                         at^    sealed and frozen rows: away       newest rows: here, up to the basis
//!                      ended -> its row of the answer -> next feed ... next batch ... answer
//!   Top by count, volume, notional: once more over the winners, for their first and last price
//! ```
//!
//! Invariants: each row of the basis is added once, in whatever slices; a feed that retention has overtaken ends the read.
//! Sums are exact and bars know the places of their ends, so slices change no bit of the answer. Deliberately absent:
//! threads and turns (`mod.rs`, `reader.rs`).

use super::super::Refusal;
use super::super::ask::{Unanswered, items};
use super::super::reply::Said;
use super::under_way::{Here, MARKET_ROWS, Step, There, ToCome, about};
use crate::market::Markets;
use myelin_datom::{EntityId, Tick, Tx};
use myelin_exact::{ExactSum, Totals};
use myelin_index::{Bars, Columns, Filter, IndexError, MarketIx, MarketView, Summing};
use myelin_wire::{BarRow, By, Code, TopAsk, TopRow, VwapRow};

/// Markets of one batch: what a slice can look up.
const FEEDS_MAX: usize = 512;
/// Bars that are rounded on the core, and markets that are sorted there; more of them are rounded and sorted away.
const BARS_HERE: usize = 256;
const TOP_HERE: usize = 512;
/// An answer that takes longer than this to be let go. **Units:** bytes.
const MUCH: usize = 256 << 10;

/// What is asked for.
pub enum Wanted {
    /// What all of it comes to.
    Totals,
    /// Averages by market.
    Vwap,
    /// Bars of one market.
    Bars {
        /// **Units:** nanoseconds.
        width_ns: i64,
    },
    /// The greatest markets.
    Top {
        /// The measure.
        by: By,
        /// Markets at most.
        limit: usize,
        /// The rows have first and last prices: by a measure of prices at once, else in the second walk.
        priced: bool,
    },
}

impl Wanted {
    /// What a `Top` asks for; its limit was checked.
    pub fn top(ask: &TopAsk) -> Self {
        Self::Top { by: ask.by, limit: ask.limit as usize, priced: matches!(ask.by, By::Price | By::Move) }
    }

    fn sum(&self) -> Sum {
        match self {
            Self::Totals | Self::Vwap | Self::Top { priced: false, .. } => Sum::Total(Totals::default()),
            Self::Bars { width_ns } => Sum::Bars(Bars::new(*width_ns, BarRow::MAX)),
            // One bar of everything, or two where times lie on both sides of 1970.
            Self::Top { priced: true, .. } => Sum::Bars(Bars::new(i64::MAX, BarRow::MAX)),
        }
    }
}

/// What a market's rows come to.
enum Sum {
    Total(Totals),
    Bars(Bars),
}

impl Sum {
    /// Adds rows; gives the row to go on from.
    fn add(
        &mut self,
        rows: &MarketView<'_, Tick>,
        filter: &Filter,
        summing: &mut Summing,
        left: &mut u64,
    ) -> Result<u32, IndexError> {
        match self {
            Self::Total(total) => rows.add_total(filter, summing, total, left),
            Self::Bars(bars) => rows.add_bars(filter, summing, bars, left),
        }
    }

    fn is_too_much(&self) -> bool {
        matches!(self, Self::Bars(bars) if bars.are_too_many())
    }
}

/// One market on its way.
struct Feed {
    market: EntityId,
    ix: MarketIx,
    /// The next row.
    next: u32,
    /// Where the sealed rows ended when it left.
    sealed_end: u32,
    /// Every row of the basis was added.
    ended: bool,
    sum: Sum,
}

/// See the module's picture.
pub struct Sums {
    basis: Tx,
    wanted: Wanted,
    filter: Filter,
    to_come: ToCome,
    feeds: Vec<Feed>,
    at: usize,
    totals: Totals,
    /// Rows of the answer: in bytes, as it is 4 MB over 100,000 markets and must not be copied at the end.
    averages: Vec<u8>,
    greatest: Vec<TopRow>,
    /// The greatest are sorted.
    ranked: bool,
    /// Bars, rounded.
    bars: Option<(u32, Vec<u8>)>,
}

impl Sums {
    /// Of these markets, as of a moment.
    pub fn new(basis: Tx, wanted: Wanted, to_come: ToCome, filter: Filter) -> Self {
        let (totals, averages, greatest) = (Totals::default(), Vec::new(), Vec::new());
        let (feeds, ranked, bars) = (Vec::new(), false, None);
        Self { basis, wanted, filter, to_come, feeds, at: 0, totals, averages, greatest, ranked, bars }
    }

    /// True where it has come to so much that letting it go takes long.
    pub fn hold_much(&self) -> bool {
        let many = |feed: &Feed| matches!(&feed.sum, Sum::Bars(bars) if bars.len() > BARS_HERE);
        self.bars.as_ref().map_or(0, |(_, body)| body.len()) + self.averages.len() > MUCH || self.feeds.iter().any(many)
    }

    /// Which batch it is at, and how many rows it has come over in that.
    #[cfg(test)]
    pub(super) fn reached(&self) -> ((usize, bool), u64) {
        let second_walk = matches!(self.wanted, Wanted::Top { priced: true, .. });
        ((self.to_come.len(), second_walk), self.feeds.iter().map(|feed| u64::from(feed.next)).sum())
    }

    /// Goes on here, in memory, until `left` is spent.
    pub fn go_on(&mut self, here: &Here<'_>, summing: &mut Summing, left: &mut u64) -> Result<Step, Unanswered> {
        let Here { ticks, markets, .. } = here;
        while *left > 0 {
            let basis = self.basis;
            let Some(feed) = self.feeds.get_mut(self.at) else {
                if !self.to_come.is_empty() {
                    self.next_batch(ticks, markets, left)?;
                    continue;
                }
                match self.end_of_walk()? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            };
            if feed.sum.is_too_much() {
                return Err(Refusal::of(Code::TooMany).into());
            }
            if feed.ended {
                *left = left.saturating_sub(MARKET_ROWS);
                self.at += 1;
                self.take_row(left);
                continue;
            }
            if feed.next < ticks.sealed_end(feed.ix) {
                self.aim(ticks)?;
                return Ok(Step::Away);
            }
            let rows = ticks.newest_from(feed.ix, feed.next, basis).map_err(|error| about(feed.market, error))?;
            let end = rows.end_row();
            let slice = rows.before(feed.next.saturating_add(u32::try_from(*left).unwrap_or(u32::MAX)));
            feed.next = feed.sum.add(&slice, &self.filter, summing, left)?;
            feed.ended = feed.next == end;
        }
        Ok(Step::More)
    }

    /// Looks the next markets up. **Errors:** one of them was pruned since the basis.
    fn next_batch(&mut self, ticks: &Columns<Tick>, markets: &Markets, left: &mut u64) -> Result<(), Unanswered> {
        self.feeds.clear();
        self.at = 0;
        while self.feeds.len() < FEEDS_MAX && *left > 0 {
            let Some(market) = self.to_come.next(markets) else { break };
            *left = left.saturating_sub(MARKET_ROWS);
            let Some(ix) = ticks.market_ix(market) else { continue };
            let kept = ticks.kept(ix);
            if self.basis < kept.horizon {
                return Err(about(market, IndexError::BelowHorizon { horizon: kept.horizon }));
            }
            let sum = self.wanted.sum();
            self.feeds.push(Feed { market, ix, next: kept.dropped, sealed_end: 0, ended: false, sum });
        }
        Ok(())
    }

    /// Says of every feed how far the sealed rows reach. **Errors:** rows that were to come were pruned.
    fn aim(&mut self, ticks: &Columns<Tick>) -> Result<(), Unanswered> {
        for feed in self.feeds[self.at..].iter_mut().filter(|feed| !feed.ended) {
            let kept = ticks.kept(feed.ix);
            if feed.next < kept.dropped {
                return Err(about(feed.market, IndexError::BelowHorizon { horizon: kept.horizon }));
            }
            feed.sealed_end = ticks.sealed_end(feed.ix);
        }
        Ok(())
    }

    /// Goes on away from the core, over rows that are sealed or frozen, until `left` is spent or who asked has left.
    pub fn travel(&mut self, there: &There<'_>, summing: &mut Summing, mut left: u64) -> Result<(), IndexError> {
        for feed in &mut self.feeds[self.at..] {
            while !feed.ended && feed.next < feed.sealed_end {
                if left == 0 || there.nobody_asks() || feed.sum.is_too_much() {
                    return Ok(());
                }
                let rows = there.ticks.view(there.cache, feed.market, feed.next..feed.sealed_end, self.basis)?;
                feed.next = feed.sum.add(&rows, &self.filter, summing, &mut left)?;
                // The basis may end before the sealed rows do.
                feed.ended = feed.next == rows.end_row() && feed.next < feed.sealed_end;
            }
        }
        if self.at == self.feeds.len() && self.to_come.is_empty() {
            self.round_bars();
            self.rank();
            // A bar has two sums on the heap: they go where they were rounded.
            (self.feeds, self.at) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// The feed before this one has ended: its row of the answer.
    fn take_row(&mut self, left: &mut u64) {
        let Some(Feed { market, sum, .. }) = self.feeds.get(self.at - 1) else { return };
        match (&self.wanted, sum) {
            (Wanted::Totals, Sum::Total(total)) => self.totals.merge(total),
            (Wanted::Vwap, Sum::Total(total)) => {
                let (notional, volume) = (total.notional.round(), total.volume.round());
                let vwap = notional / volume;
                let row = VwapRow { market: market.bits(), count: total.count, notional, volume, vwap };
                self.averages.extend_from_slice(bytemuck::bytes_of(&row));
            }
            (Wanted::Top { by, limit, .. }, sum) => {
                self.greatest.extend(ranked(*market, sum));
                // In the second walk they come in their order.
                if !self.ranked && self.greatest.len() >= 2 * (*limit).max(FEEDS_MAX) {
                    *left = left.saturating_sub(self.greatest.len() as u64);
                    self.greatest.select_nth_unstable_by(*limit, |a, b| by.rank(a, b));
                    self.greatest.truncate(*limit);
                }
            }
            _ => {}
        }
    }

    /// Every market was walked: the answer, or nothing when there is more to do: the winners are sorted, and walked once more.
    fn end_of_walk(&mut self) -> Result<Option<Step>, Unanswered> {
        match &mut self.wanted {
            Wanted::Totals => {
                let mut body = Vec::new();
                self.totals.write(&mut body);
                Ok(Some(Step::Answer(Said::Answer { count: 1, aux: self.totals.count, more: false, body })))
            }
            Wanted::Vwap => {
                let body = std::mem::take(&mut self.averages);
                let count = (body.len() / size_of::<VwapRow>()) as u32;
                Ok(Some(Step::Answer(Said::Answer { count, aux: 0, more: false, body })))
            }
            Wanted::Bars { .. } => {
                if self.bars.is_none() {
                    if matches!(self.feeds.first(), Some(Feed { sum: Sum::Bars(bars), .. }) if bars.len() > BARS_HERE) {
                        return Ok(Some(Step::Away));
                    }
                    self.round_bars();
                }
                let (count, body) = self.bars.take().unwrap_or_default();
                Ok(Some(Step::Answer(Said::Answer { count, aux: 0, more: false, body })))
            }
            Wanted::Top { .. } if !self.ranked && self.greatest.len() > TOP_HERE => Ok(Some(Step::Away)),
            Wanted::Top { .. } if !self.ranked => {
                self.rank();
                Ok(None)
            }
            Wanted::Top { priced, .. } => {
                if *priced || self.greatest.is_empty() {
                    return Ok(Some(Step::Answer(items(&self.greatest))));
                }
                *priced = true;
                self.to_come = ToCome::listed(self.greatest.drain(..).map(|row| EntityId::from_bits(row.market)));
                Ok(None)
            }
        }
    }

    fn round_bars(&mut self) {
        if let (Wanted::Bars { .. }, Some(Feed { market, sum: Sum::Bars(bars), .. })) =
            (&self.wanted, self.feeds.first())
        {
            let rows: Vec<BarRow> = bars
                .iter()
                .map(|bar| BarRow {
                    start_ns: bar.start_ns,
                    open: bar.open,
                    high: bar.high,
                    low: bar.low,
                    close: bar.close,
                    volume: bar.volume.round(),
                    count: bar.count,
                    market: market.bits(),
                })
                .collect();
            self.bars = Some((rows.len() as u32, bytemuck::cast_slice(&rows).to_vec()));
        }
    }

    /// Sorts the greatest, at the end of the first walk.
    fn rank(&mut self) {
        if let Wanted::Top { by, limit, .. } = &self.wanted {
            self.greatest.sort_unstable_by(|a, b| by.rank(a, b));
            self.greatest.truncate(*limit);
            self.ranked = true;
        }
    }
}

/// A market's row of a `Top`; nothing without ticks.
fn ranked(market: EntityId, sum: &Sum) -> Option<TopRow> {
    let market = market.bits();
    match sum {
        Sum::Total(total) => {
            let (volume, notional) = (total.volume.round(), total.notional.round());
            let row = TopRow { market, count: total.count, volume, notional, ..bytemuck::Zeroable::zeroed() };
            (total.count > 0).then_some(row)
        }
        Sum::Bars(bars) => {
            let (first, last) = (bars.iter().next()?.open, bars.iter().last()?.close);
            let (mut volume, mut notional, mut count) = (ExactSum::default(), ExactSum::default(), 0);
            for bar in bars.iter() {
                volume.merge(&bar.volume);
                notional.merge(&bar.notional);
                count += bar.count;
            }
            let moved = if first == 0.0 { f64::NAN } else { (last - first) / first.abs() };
            let (volume, notional) = (volume.round(), notional.round());
            Some(TopRow { market, count, volume, notional, first, last, moved })
        }
    }
}
