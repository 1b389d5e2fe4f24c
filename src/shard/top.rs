//! `Top`: the greatest markets of this shard by a measure, as of a moment.
//!
//! ```text
//!   every market -> its measure -> rank -> the first n -> their first and last price
//! ```
//!
//! Counts and sums come from the totals of whole blocks; prices need the rows, so by those measures every row of the range
//! is read. Deliberately absent: other shards; who asked puts the answers together (`net/wire/src/top.rs` has the order).

use super::ask::{Unanswered, bad, items};
use super::reply::Said;
use super::{Refusal, Shard};
use myelin_datom::Tx;
use myelin_index::{ExactSum, Filter, IndexError, MarketIx};
use myelin_wire::{By, Code, TopAsk, TopRow};

/// Markets in one answer at most: 224 KiB.
const TOP_MAX: u64 = 4096;

impl Shard {
    /// The answer to a `Top`.
    pub(super) fn top(&self, body: &[u8], basis: Tx) -> Result<Said, Unanswered> {
        let ask = TopAsk::read(body).map_err(bad)?;
        if !(1..=TOP_MAX).contains(&ask.limit) {
            return Err(Refusal::of(Code::TooMany).into());
        }
        let filter = Filter { event_time_ns: ask.from_ns..=ask.to_ns, ..Filter::default() };
        let by_price = matches!(ask.by, By::Price | By::Move);
        let mut rows = Vec::new();
        for market in self.markets.iter().take(self.markets.count_as_of(basis)) {
            let Some(ix) = self.ticks.market_ix(market.id) else { continue };
            let row = if by_price { self.priced(ix, basis, &filter)? } else { self.summed(ix, basis, &filter)? };
            rows.extend(row.map(|row| (ix, row)));
        }
        rows.sort_unstable_by(|(_, a), (_, b)| ask.by.rank(a, b));
        rows.truncate(ask.limit as usize);
        if !by_price {
            for (ix, row) in &mut rows {
                *row = self.priced(*ix, basis, &filter)?.unwrap_or(*row);
            }
        }
        let rows: Vec<TopRow> = rows.into_iter().map(|(_, row)| row).collect();
        Ok(items(&rows))
    }

    /// Count and sums of a market; nothing without ticks.
    fn summed(&self, ix: MarketIx, basis: Tx, filter: &Filter) -> Result<Option<TopRow>, IndexError> {
        let total = self.ticks.view(ix, basis)?.total(filter)?;
        let (market, count) = (self.ticks.market_id(ix).bits(), total.count);
        let (volume, notional) = (total.volume.round(), total.notional.round());
        let row = TopRow { market, count, volume, notional, ..bytemuck::Zeroable::zeroed() };
        Ok((count > 0).then_some(row))
    }

    /// The same with first and last price: as one bar of everything, or two where times lie on both sides of 1970.
    fn priced(&self, ix: MarketIx, basis: Tx, filter: &Filter) -> Result<Option<TopRow>, IndexError> {
        let bars = self.ticks.view(ix, basis)?.bars(filter, i64::MAX)?;
        let (Some(open), Some(close)) = (bars.first(), bars.last()) else { return Ok(None) };
        let (mut volume, mut notional, mut count) = (ExactSum::default(), ExactSum::default(), 0);
        for bar in &bars {
            volume.merge(&bar.volume);
            notional.merge(&bar.notional);
            count += bar.count;
        }
        let (first, last) = (open.open, close.close);
        let moved = if first == 0.0 { f64::NAN } else { (last - first) / first.abs() };
        let (market, volume, notional) = (self.ticks.market_id(ix).bits(), volume.round(), notional.round());
        Ok(Some(TopRow { market, count, volume, notional, first, last, moved }))
    }
}
