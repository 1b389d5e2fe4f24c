//! A row on its way in: the fields of one line, checked one by one, then made into 64 bytes all at once.
//!
//! ```text
//!   field text -> Draft::set (shape and flaw, by column) -> Draft::finish (what is missing, clocks, name) -> Batch
//! ```
//!
//! CSV and NDJSON meet here, so a value means the same in both. A market's name enters the table last, when everything
//! else about its row is sound. Deliberately absent: what depends on the node (does the market exist, is it signed).

use std::borrow::Cow;

use myelin_datom::{EntityId, Flaw, Quote, Side, Tick, flags, received_delta};

use crate::columns::{Field, How};
use crate::error::{Expected, Fault, Found};
use crate::names::{NameRefused, Names};
use crate::number::{decimal, price_flaw, unsigned, volume_flaw};

/// What a file holds. One file, one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// Trades.
    Ticks,
    /// Best bids and asks.
    Quotes,
}

/// Rows and, for each, its market's index in `names()` and its arrival.
///
/// **Shape:** one of `ticks` and `quotes` is empty; the other, `markets` and `received_time_ns` are equally long and in
/// the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// With `market` [`EntityId::NONE`], until [`Batch::resolve`].
    pub ticks: Vec<Tick>,
    /// With `market` [`EntityId::NONE`], until [`Batch::resolve`].
    pub quotes: Vec<Quote>,
    /// Index into the table of names.
    pub markets: Vec<u32>,
    /// The arrival, or the event's time where no arrival is told: what a replay goes by. **Units:** Unix nanoseconds.
    pub received_time_ns: Vec<i64>,
}

impl Batch {
    /// An empty batch with room for so many ticks.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            ticks: Vec::with_capacity(rows),
            quotes: Vec::new(),
            markets: Vec::with_capacity(rows),
            received_time_ns: Vec::with_capacity(rows),
        }
    }

    /// Rows of either kind.
    #[must_use]
    pub fn len(&self) -> usize {
        self.markets.len()
    }

    /// No rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.markets.is_empty()
    }

    /// Forgets the rows, keeps the memory.
    pub fn clear(&mut self) {
        self.ticks.clear();
        self.quotes.clear();
        self.markets.clear();
        self.received_time_ns.clear();
    }

    /// Writes each row's market id. `ids` runs beside `names()`; gives the first index that it does not cover.
    pub fn resolve(&mut self, ids: &[EntityId]) -> Result<(), u32> {
        for (tick, &market) in self.ticks.iter_mut().zip(&self.markets) {
            tick.market = *ids.get(market as usize).ok_or(market)?;
        }
        for (quote, &market) in self.quotes.iter_mut().zip(&self.markets) {
            quote.market = *ids.get(market as usize).ok_or(market)?;
        }
        Ok(())
    }
}

/// Why a draft did not become a row.
pub(crate) enum Refusal<'a> {
    Fault(Fault<'a>),
    TooManyMarkets,
}

impl<'a> From<Fault<'a>> for Refusal<'a> {
    fn from(fault: Fault<'a>) -> Self {
        Self::Fault(fault)
    }
}

pub(crate) struct Draft<'a> {
    market: Cow<'a, [u8]>,
    id: u64,
    event_time_ns: i64,
    received_time_ns: i64,
    /// Price and volume, or bid, bid volume, ask, ask volume.
    numbers: [f64; 4],
    trader: u64,
    source: u32,
    side: u8,
    corrects: bool,
    /// Bit [`Field::bit`] of every field that has a value.
    told: u16,
}

const TICK_NEEDS: u16 = Field::Market.bit() | Field::Price.bit() | Field::Volume.bit();
const QUOTE_NEEDS: u16 =
    Field::Market.bit() | Field::Bid.bit() | Field::BidVolume.bit() | Field::Ask.bit() | Field::AskVolume.bit();

impl<'a> Draft<'a> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            market: Cow::Borrowed(b""),
            id: 0,
            event_time_ns: 0,
            received_time_ns: 0,
            numbers: [0.0; 4],
            trader: 0,
            source: 0,
            side: Side::Unknown as u8,
            corrects: false,
            told: 0,
        }
    }

    #[inline]
    pub(crate) fn set_market(&mut self, name: Cow<'a, [u8]>) {
        self.market = name;
        self.told |= Field::Market.bit();
    }

    /// Takes a field's text. An empty text leaves times, side, trader, source and corrects untold.
    #[inline]
    pub(crate) fn set(&mut self, field: Field, how: How, text: &[u8]) -> Result<(), Expected> {
        match field {
            Field::Market => return Err(Expected::Text("a market name")),
            Field::Id => self.id = unsigned(text).ok_or(Expected::Text("a whole number below 2^64"))?,
            Field::Price | Field::Bid | Field::Ask | Field::Volume | Field::BidVolume | Field::AskVolume => {
                self.set_number(field, how, text)?;
            }
            _ if text.is_empty() => return Ok(()),
            Field::EventTime => self.event_time_ns = instant(how, text)?,
            Field::ReceivedTime => self.received_time_ns = instant(how, text)?,
            Field::Side => self.side = side(how, text)? as u8,
            Field::Corrects => self.corrects = truth(text).ok_or(Expected::Text("true or false"))?,
            Field::Trader => {
                self.trader =
                    unsigned(text).ok_or(Expected::Text("a trader's entity id, a whole number below 2^64"))?;
            }
            Field::Source => {
                let source = unsigned(text).and_then(|number| u32::try_from(number).ok());
                self.source = source.ok_or(Expected::Text("a source's number, whole and below 2^32"))?;
            }
        }
        self.told |= field.bit();
        Ok(())
    }

    #[inline]
    fn set_number(&mut self, field: Field, how: How, text: &[u8]) -> Result<(), Expected> {
        let mut number = decimal(text).ok_or(Expected::Text("a decimal number"))?;
        let (at, flaw) = match field {
            Field::Price | Field::Bid => (0, price_flaw(number)),
            Field::Ask => (2, price_flaw(number)),
            Field::AskVolume => (3, volume_flaw(number)),
            _ => {
                if how == How::Absolute {
                    number = number.abs();
                }
                (1, volume_flaw(number))
            }
        };
        if let Some(flaw) = flaw {
            return Err(Expected::Sound(flaw));
        }
        self.numbers[at] = number;
        Ok(())
    }

    /// True when the field has a value already.
    pub(crate) fn is_told(&self, field: Field) -> bool {
        self.told & field.bit() != 0
    }

    /// Appends the row, or says what is missing.
    #[inline]
    pub(crate) fn finish<'f>(self, kind: RowKind, names: &mut Names, batch: &mut Batch) -> Result<(), Refusal<'f>>
    where
        'a: 'f,
    {
        let needs = match kind {
            RowKind::Ticks => TICK_NEEDS,
            RowKind::Quotes => QUOTE_NEEDS,
        };
        if self.told & needs != needs {
            return Err(missing(needs & !self.told).into());
        }
        let clocks = self.is_told(Field::EventTime) as u8 | (self.is_told(Field::ReceivedTime) as u8) << 1;
        let (event_time_ns, received_time_ns, received_delta_us, flags) = match clocks {
            0 => return Err(Fault::missing(b"event_time", "the event's time or its arrival").into()),
            1 => (self.event_time_ns, self.event_time_ns, received_delta::UNKNOWN, 0),
            2 => (self.received_time_ns, self.received_time_ns, 0, flags::EVENT_TIME_UNKNOWN),
            _ => {
                let delta = received_delta::between(self.event_time_ns, self.received_time_ns);
                (self.event_time_ns, self.received_time_ns, delta, 0)
            }
        };
        let flags = flags | if self.corrects { flags::CORRECTION } else { 0 };
        if self.corrects && self.id == 0 {
            let expected = Expected::Sound(Flaw::CorrectionWithoutId);
            return Err(Fault { column: b"id", expected, found: Found::Nothing }.into());
        }
        let market = match names.index_of(&self.market) {
            Ok(market) => market,
            Err(NameRefused::Full) => return Err(Refusal::TooManyMarkets),
            Err(NameRefused::Bad(expected)) => return Err(bad_name(self.market, expected).into()),
        };
        let (id, source) = (self.id, self.source);
        match kind {
            RowKind::Ticks => batch.ticks.push(Tick {
                market: EntityId::NONE,
                id,
                event_time_ns,
                price: self.numbers[0],
                volume: self.numbers[1],
                trader: EntityId::from_bits(self.trader),
                side: self.side,
                flags,
                zero_50: 0,
                received_delta_us,
                source,
                zero_60: 0,
            }),
            RowKind::Quotes => batch.quotes.push(Quote {
                market: EntityId::NONE,
                id,
                event_time_ns,
                bid: self.numbers[0],
                bid_volume: self.numbers[1],
                ask: self.numbers[2],
                ask_volume: self.numbers[3],
                source,
                received_delta_us,
            }),
        }
        batch.markets.push(market);
        batch.received_time_ns.push(received_time_ns);
        Ok(())
    }
}

#[cold]
fn missing(absent: u16) -> Fault<'static> {
    match Field::ALL.into_iter().find(|field| absent & field.bit() != 0) {
        Some(field) => Fault::missing(field.as_str().as_bytes(), "a value"),
        None => Fault::missing(crate::error::WHOLE_LINE, "a value"),
    }
}

#[cold]
fn bad_name<'f>(name: Cow<'f, [u8]>, expected: &'static str) -> Fault<'f> {
    // A name that had to be spelled out is not part of the line any more, so it cannot be shown.
    let found = match name {
        Cow::Borrowed(name) => Found::Bytes(name),
        Cow::Owned(_) => Found::Bytes(b"(a name with escapes)"),
    };
    Fault { column: b"market", expected: Expected::Name(expected), found }
}

#[inline]
fn instant(how: How, text: &[u8]) -> Result<i64, Expected> {
    match how {
        How::Time(unit) => unit.instant(text).ok_or(Expected::Text(unit.expected())),
        _ => Err(Expected::Text("a time with a unit")),
    }
}

/// As JSON has it, and as some exports do.
fn truth(text: &[u8]) -> Option<bool> {
    match text {
        b"1" => Some(true),
        b"0" => Some(false),
        _ if text.eq_ignore_ascii_case(b"true") => Some(true),
        _ if text.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

/// The aggressor's side.
#[inline]
fn side(how: How, text: &[u8]) -> Result<Side, Expected> {
    if how == How::Maker {
        // The buyer was the maker, so the seller crossed.
        return match truth(text) {
            Some(true) => Ok(Side::Sell),
            Some(false) => Ok(Side::Buy),
            None => Err(Expected::Text("whether the buyer was the maker: 0, 1, true or false")),
        };
    }
    let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
    match text {
        b"1" => Ok(Side::Buy),
        b"2" => Ok(Side::Sell),
        b"0" => Ok(Side::Unknown),
        _ if is("buy") || is("b") => Ok(Side::Buy),
        _ if is("sell") || is("s") => Ok(Side::Sell),
        _ if is("unknown") => Ok(Side::Unknown),
        _ => Err(Expected::Sound(Flaw::Side)),
    }
}
