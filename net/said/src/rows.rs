//! Rows of answers as objects with stable keys.
//!
//! `entity` stands in rows over HTTP, whose readers go on with ids; at the command line names are enough, and it is left out.
//! `tx`, the moment that was read, stands once beside rows over HTTP; at the command line, where rows stand alone, in each.
//! What nobody said is nothing (`null`, an empty cell), never 0.

use crate::time::say_instant;
use myelin_datom::{Quote, Side, Tick, Tx, flags, received_delta};
use myelin_exact::Totals;
use myelin_wire::{BarRow, MarketFlags, MarketRow, TopRow, VwapRow};
use serde::Serialize;

/// The word for a tick's side.
#[must_use]
pub fn say_side(tick: &Tick) -> &'static str {
    match Side::from_number(tick.side) {
        Some(Side::Buy) => "buy",
        Some(Side::Sell) => "sell",
        _ => "unknown",
    }
}

/// An id as JSON has it: nothing where there is none.
fn some(id: u64) -> Option<String> {
    (id != 0).then(|| id.to_string())
}

/// The recorder's time, where it was told.
fn received(event_time_ns: i64, delta_us: i32) -> Option<String> {
    let told = delta_us != received_delta::UNKNOWN;
    told.then(|| say_instant(event_time_ns.saturating_add(i64::from(delta_us).saturating_mul(1000))))
}

/// A whole tick. What it does not say is nothing, in every answer alike.
#[derive(Clone, Debug, Serialize)]
pub struct TickSaid {
    /// The transaction that brought it.
    pub tx: String,
    /// The source's id; nothing where it has none.
    pub id: Option<String>,
    /// Nothing where the source did not say.
    pub event_time: Option<String>,
    /// Nothing where the recorder did not say.
    pub received_time: Option<String>,
    /// As it came.
    pub price: f64,
    /// As it came.
    pub volume: f64,
    /// buy, sell or unknown.
    pub side: &'static str,
    /// Its entity id; nothing where the source did not say.
    pub trader: Option<String>,
    /// The feed's number; nothing where it was not told.
    pub source: Option<String>,
    /// It corrects an earlier tick of this id.
    pub corrects: bool,
}

impl TickSaid {
    /// A tick of this transaction.
    #[must_use]
    pub fn new(tx: Tx, tick: &Tick) -> Self {
        Self {
            tx: tx.to_string(),
            id: some(tick.id),
            event_time: (tick.flags & flags::EVENT_TIME_UNKNOWN == 0).then(|| say_instant(tick.event_time_ns)),
            received_time: received(tick.event_time_ns, tick.received_delta_us),
            price: tick.price,
            volume: tick.volume,
            side: say_side(tick),
            trader: some(tick.trader.bits()),
            source: some(u64::from(tick.source)),
            corrects: tick.flags & flags::CORRECTION != 0,
        }
    }
}

/// A whole quote.
#[derive(Clone, Debug, Serialize)]
pub struct QuoteSaid {
    /// The transaction that brought it.
    pub tx: String,
    /// The source's id; nothing where it has none.
    pub id: Option<String>,
    /// The arrival, where the source did not say: a quote has no room to tell the two apart.
    pub event_time: String,
    /// Nothing where the recorder did not say.
    pub received_time: Option<String>,
    /// As it came.
    pub bid: f64,
    /// As it came.
    pub bid_volume: f64,
    /// As it came.
    pub ask: f64,
    /// As it came.
    pub ask_volume: f64,
    /// The feed's number; nothing where it was not told.
    pub source: Option<String>,
}

impl QuoteSaid {
    /// A quote of this transaction.
    #[must_use]
    pub fn new(tx: Tx, quote: &Quote) -> Self {
        Self {
            tx: tx.to_string(),
            id: some(quote.id),
            event_time: say_instant(quote.event_time_ns),
            received_time: received(quote.event_time_ns, quote.received_delta_us),
            bid: quote.bid,
            bid_volume: quote.bid_volume,
            ask: quote.ask,
            ask_volume: quote.ask_volume,
            source: some(u64::from(quote.source)),
        }
    }
}

/// A bar.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// Where it begins.
    pub start: String,
    /// First price by event time.
    pub open: f64,
    /// Greatest price.
    pub high: f64,
    /// Smallest price.
    pub low: f64,
    /// Last price by event time.
    pub close: f64,
    /// Sum of volumes.
    pub volume: f64,
    /// Ticks.
    pub count: u64,
    /// The moment that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<String>,
}

impl From<&BarRow> for Bar {
    fn from(bar: &BarRow) -> Self {
        let BarRow { start_ns, open, high, low, close, volume, count, .. } = *bar;
        Self { start: say_instant(start_ns), open, high, low, close, volume, count, tx: None }
    }
}

impl Bar {
    /// The same with the moment that was read.
    #[must_use]
    pub fn with_tx(self, tx: Tx) -> Self {
        Self { tx: Some(tx.to_string()), ..self }
    }
}

/// A market's average.
#[derive(Clone, Debug, Serialize)]
pub struct Averaged {
    /// Its name.
    pub market: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Nothing where there was no volume.
    pub vwap: Option<f64>,
    /// Sum of volumes.
    pub volume: f64,
    /// Sum of price times volume.
    pub notional: f64,
    /// Ticks.
    pub count: u64,
    /// The moment that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<String>,
}

impl Averaged {
    /// A row of this market.
    #[must_use]
    pub fn new(market: String, row: &VwapRow) -> Self {
        let VwapRow { volume, notional, count, .. } = *row;
        let vwap = row.vwap.is_finite().then_some(row.vwap);
        Self { market, entity: None, vwap, volume, notional, count, tx: None }
    }

    /// The same with the moment that was read.
    #[must_use]
    pub fn with_tx(self, tx: Tx) -> Self {
        Self { tx: Some(tx.to_string()), ..self }
    }

    /// The same with the market's id.
    #[must_use]
    pub fn with_entity(self, row: &VwapRow) -> Self {
        Self { entity: Some(row.market.to_string()), ..self }
    }
}

/// One of the greatest markets.
#[derive(Clone, Debug, Serialize)]
pub struct Ranked {
    /// Its name.
    pub market: String,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Ticks.
    pub count: u64,
    /// Sum of volumes.
    pub volume: f64,
    /// Sum of price times volume.
    pub notional: f64,
    /// First price by event time.
    pub first: f64,
    /// Last price by event time.
    pub last: f64,
    /// Nothing where the first price was 0.
    #[serde(rename = "move")]
    pub moved: Option<f64>,
    /// The moment that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx: Option<String>,
}

impl Ranked {
    /// A row of this market.
    #[must_use]
    pub fn new(market: String, row: &TopRow) -> Self {
        let TopRow { count, volume, notional, first, last, .. } = *row;
        let moved = row.moved.is_finite().then_some(row.moved);
        Self { market, entity: None, count, volume, notional, first, last, moved, tx: None }
    }

    /// The same with the moment that was read.
    #[must_use]
    pub fn with_tx(self, tx: Tx) -> Self {
        Self { tx: Some(tx.to_string()), ..self }
    }

    /// The same with the market's id.
    #[must_use]
    pub fn with_entity(self, row: &TopRow) -> Self {
        Self { entity: Some(row.market.to_string()), ..self }
    }
}

/// What the ticks of a market, or of all, come to.
#[derive(Clone, Debug, Serialize)]
pub struct Totalled {
    /// Ticks, corrections among them.
    pub count: u64,
    /// Ticks that correct an earlier one.
    pub corrections: u64,
    /// The least price; nothing without ticks.
    pub price_min: Option<f64>,
    /// The greatest price.
    pub price_max: Option<f64>,
    /// The average price, rounded once.
    pub price_avg: Option<f64>,
    /// Sum of the prices, rounded once.
    pub price_sum: f64,
    /// The average volume, likewise.
    pub volume_avg: Option<f64>,
    /// Sum of the volumes, rounded once.
    pub volume_sum: f64,
    /// Sum of price times volume, rounded once.
    pub notional: f64,
    /// Notional over volume; nothing without volume.
    pub vwap: Option<f64>,
    /// The moment that was read: asked again as of it, the answer is the same.
    pub tx: String,
}

impl Totalled {
    /// Totals as of a moment.
    #[must_use]
    pub fn new(totals: &Totals, basis: Tx) -> Self {
        let of_some = |number: f64| (totals.count > 0).then_some(number);
        Self {
            count: totals.count,
            corrections: totals.corrections,
            price_min: of_some(totals.price_min),
            price_max: of_some(totals.price_max),
            price_avg: totals.average_price(),
            price_sum: totals.price.round(),
            volume_avg: totals.average_volume(),
            volume_sum: totals.volume.round(),
            notional: totals.notional.round(),
            vwap: totals.vwap(),
            tx: basis.bits().to_string(),
        }
    }
}

/// A market and its rows.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub market: String,
    /// Its id.
    pub entity: String,
    /// Ticks that are there.
    pub ticks: u64,
    /// Quotes that are there.
    pub quotes: u64,
    /// Prices may be negative.
    pub signed: bool,
    /// Ids only ascend.
    pub ascending: bool,
    /// Ids come without holes.
    pub dense: bool,
}

impl From<MarketRow> for Listed {
    fn from(row: MarketRow) -> Self {
        let MarketRow { id, flags, ticks, quotes, name } = row;
        let [signed, ascending, dense] =
            [MarketFlags::SIGNED, MarketFlags::ASCENDING, MarketFlags::DENSE].map(|flag| flags.has(flag));
        Self { market: name, entity: id.bits().to_string(), ticks, quotes, signed, ascending, dense }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::EntityId;

    /// Programs read these: a key that goes or changes its form is a break.
    #[test]
    fn the_keys_of_rows_are_these() {
        let row = TopRow { market: 7, count: 2, volume: 1.5, notional: 3.0, first: 0.0, last: 2.0, moved: f64::NAN };
        let said = Ranked::new("m".to_owned(), &row);
        let json = serde_json::to_string(&said).unwrap();
        let due = r#"{"market":"m","count":2,"volume":1.5,"notional":3.0,"first":0.0,"last":2.0,"move":null}"#;
        assert_eq!(json, due);
        let json = serde_json::to_string(&said.with_entity(&row)).unwrap();
        assert!(json.starts_with(r#"{"market":"m","entity":"7","count":2"#), "{json}");
        let row = VwapRow { market: 7, count: 0, notional: 0.0, volume: 0.0, vwap: f64::NAN };
        let json = serde_json::to_string(&Averaged::new("m".to_owned(), &row)).unwrap();
        assert_eq!(json, r#"{"market":"m","vwap":null,"volume":0.0,"notional":0.0,"count":0}"#);
        let bar = BarRow {
            start_ns: 1_000_000_000,
            open: 1.0,
            high: 4.0,
            low: 0.5,
            close: 2.0,
            volume: 8.0,
            count: 3,
            market: 7,
        };
        let json = serde_json::to_string(&Bar::from(&bar)).unwrap();
        let due =
            r#"{"start":"1970-01-01T00:00:01Z","open":1.0,"high":4.0,"low":0.5,"close":2.0,"volume":8.0,"count":3}"#;
        assert_eq!(json, due);
        let json = serde_json::to_string(&Bar::from(&bar).with_tx(Tx::from_bits(9))).unwrap();
        assert!(json.ends_with(r#""count":3,"tx":"9"}"#), "{json}");
    }

    /// A number where nobody said one would be read as one: the arrival as the exchange's time, trader 0 as a trader.
    #[test]
    fn what_nobody_said_of_a_row_is_null() {
        let tick = Tick {
            market: EntityId::from_bits(7),
            id: 0,
            event_time_ns: 1_000_000_000,
            price: 1.5,
            volume: 2.0,
            trader: EntityId::NONE,
            side: 0,
            flags: flags::EVENT_TIME_UNKNOWN,
            zero_50: 0,
            received_delta_us: 0,
            source: 0,
            zero_60: 0,
        };
        let said = |tick: &Tick| serde_json::to_string(&TickSaid::new(Tx::from_bits(9), tick)).unwrap();
        let due = r#"{"tx":"9","id":null,"event_time":null,"received_time":"1970-01-01T00:00:01Z","price":1.5,"volume":2.0,"side":"unknown","trader":null,"source":null,"corrects":false}"#;
        assert_eq!(said(&tick), due);
        let whole = Tick {
            id: u64::MAX,
            trader: EntityId::from_bits(6),
            side: 2,
            flags: flags::CORRECTION,
            received_delta_us: received_delta::UNKNOWN,
            source: 8,
            ..tick
        };
        let due = r#"{"tx":"9","id":"18446744073709551615","event_time":"1970-01-01T00:00:01Z","received_time":null,"price":1.5,"volume":2.0,"side":"sell","trader":"6","source":"8","corrects":true}"#;
        assert_eq!(said(&whole), due);
        let quote = Quote {
            market: EntityId::from_bits(7),
            id: 0,
            event_time_ns: 1_000_000_000,
            bid: 1.0,
            bid_volume: 2.0,
            ask: 3.0,
            ask_volume: 4.0,
            source: 0,
            received_delta_us: 1_000_000,
        };
        let due = r#"{"tx":"9","id":null,"event_time":"1970-01-01T00:00:01Z","received_time":"1970-01-01T00:00:02Z","bid":1.0,"bid_volume":2.0,"ask":3.0,"ask_volume":4.0,"source":null}"#;
        assert_eq!(serde_json::to_string(&QuoteSaid::new(Tx::from_bits(9), &quote)).unwrap(), due);
    }
}
