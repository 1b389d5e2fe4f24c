//! The columns of a row under Myelin's names, and the map from a file's names to them.
//!
//! ```text
//!   --map price=px,volume=qty:abs,market=symbol,id=trade_id,event_time=ts:ms,side=maker:maker
//!         field=column[:how]      how of a time: ns us ms s rfc3339    of a volume: abs    of a side: maker
//!         market==NAME            every row belongs to this market
//! ```
//!
//! The same names are the keys of NDJSON and the columns of a CSV that needs no map; there a time carries its unit in
//! its name (`event_time_ns`) and a time without one is RFC 3339. Deliberately absent: arithmetic on columns.

use std::str::FromStr;

use crate::draft::RowKind;
use crate::error::FeedError;
use crate::time::Unit;

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// The market's name.
    Market,
    /// The source's id.
    Id,
    /// The exchange's time.
    EventTime,
    /// The recorder's time.
    ReceivedTime,
    /// Of a tick.
    Price,
    /// Of a tick.
    Volume,
    /// The aggressor's, of a tick.
    Side,
    /// An entity id, of a tick.
    Trader,
    /// The feed's ordinal.
    Source,
    /// Of a quote.
    Bid,
    /// Of a quote.
    BidVolume,
    /// Of a quote.
    Ask,
    /// Of a quote.
    AskVolume,
    /// Whether it corrects an earlier tick of its id.
    Corrects,
}

impl Field {
    /// In the order in which a row is described.
    pub const ALL: [Self; 14] = [
        Self::Market,
        Self::Id,
        Self::EventTime,
        Self::ReceivedTime,
        Self::Price,
        Self::Volume,
        Self::Side,
        Self::Trader,
        Self::Source,
        Self::Bid,
        Self::BidVolume,
        Self::Ask,
        Self::AskVolume,
        Self::Corrects,
    ];

    /// As in `--map` and, times apart, as a key of NDJSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Id => "id",
            Self::EventTime => "event_time",
            Self::ReceivedTime => "received_time",
            Self::Price => "price",
            Self::Volume => "volume",
            Self::Side => "side",
            Self::Trader => "trader",
            Self::Source => "source",
            Self::Bid => "bid",
            Self::BidVolume => "bid_volume",
            Self::Ask => "ask",
            Self::AskVolume => "ask_volume",
            Self::Corrects => "corrects",
        }
    }

    pub(crate) const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// Whether rows of this kind have it.
    #[must_use]
    pub const fn belongs_to(self, kind: RowKind) -> bool {
        match self {
            Self::Price | Self::Volume | Self::Side | Self::Trader | Self::Corrects => {
                matches!(kind, RowKind::Ticks)
            }
            Self::Bid | Self::BidVolume | Self::Ask | Self::AskVolume => matches!(kind, RowKind::Quotes),
            _ => true,
        }
    }

    /// A key that says its own unit: `price`, `event_time` (RFC 3339), `event_time_ns`.
    pub(crate) fn of_key(key: &[u8]) -> Option<(Self, How)> {
        let (field, unit) = match key {
            b"market" => (Self::Market, None),
            b"id" => (Self::Id, None),
            b"event_time" => (Self::EventTime, Some(Unit::Rfc3339)),
            b"event_time_ns" => (Self::EventTime, Some(Unit::Ns)),
            b"event_time_us" => (Self::EventTime, Some(Unit::Us)),
            b"event_time_ms" => (Self::EventTime, Some(Unit::Ms)),
            b"event_time_s" => (Self::EventTime, Some(Unit::S)),
            b"received_time" => (Self::ReceivedTime, Some(Unit::Rfc3339)),
            b"received_time_ns" => (Self::ReceivedTime, Some(Unit::Ns)),
            b"received_time_us" => (Self::ReceivedTime, Some(Unit::Us)),
            b"received_time_ms" => (Self::ReceivedTime, Some(Unit::Ms)),
            b"received_time_s" => (Self::ReceivedTime, Some(Unit::S)),
            b"price" => (Self::Price, None),
            b"volume" => (Self::Volume, None),
            b"side" => (Self::Side, None),
            b"trader" => (Self::Trader, None),
            b"source" => (Self::Source, None),
            b"bid" => (Self::Bid, None),
            b"bid_volume" => (Self::BidVolume, None),
            b"ask" => (Self::Ask, None),
            b"ask_volume" => (Self::AskVolume, None),
            b"corrects" => (Self::Corrects, None),
            _ => return None,
        };
        Some((field, unit.map_or(How::Plain, How::Time)))
    }
}

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Plain,
    Time(Unit),
    /// Without its sign: some exports give a sale's volume as a negative number.
    Absolute,
    /// 1 or true when the buyer was the maker.
    Maker,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) field: Field,
    pub(crate) column: String,
    pub(crate) how: How,
}

/// Which column of a file is which of ours. From text as drawn above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMap {
    pub(crate) columns: Vec<Mapped>,
    /// The market of every row, if it is not a column.
    pub(crate) market: Option<String>,
    pub(crate) kind: RowKind,
}

const A_FIELD: &str = "a field: market, id, event_time, received_time, price, volume, side, trader, source, \
                       corrects, bid, bid_volume, ask or ask_volume";

impl FromStr for ColumnMap {
    type Err = FeedError;

    fn from_str(text: &str) -> Result<Self, FeedError> {
        let mut columns = Vec::new();
        let mut market = None;
        for entry in text.split(',') {
            let (key, column) =
                entry.split_once('=').ok_or_else(|| refused("entries such as price=px, parted by commas", entry))?;
            let (field, default) = Field::of_key(key.as_bytes()).ok_or_else(|| refused(A_FIELD, key))?;
            match (field, column.strip_prefix('=')) {
                (Field::Market, Some(name)) if market.is_none() => {
                    myelin_datom::MarketName::new(name)
                        .map_err(|error| refused(&format!("a market name ({error})"), entry))?;
                    market = Some(name.to_owned());
                }
                (_, Some(_)) => return Err(refused("a constant only for the market, and once: market==NAME", entry)),
                (_, None) => columns.push(mapped(field, default, column, entry)?),
            }
        }
        Self::new(columns, market).map_err(|expected| refused(&expected, text))
    }
}

impl ColumnMap {
    /// Every header name that is one of ours maps to itself; the others are not read.
    pub(crate) fn of_own_names(header: &[String]) -> Result<Self, String> {
        let own = header.iter().filter_map(|column| {
            let (field, how) = Field::of_key(column.as_bytes())?;
            Some(Mapped { field, column: column.clone(), how })
        });
        Self::new(own.collect(), None)
    }

    /// The error is what was expected.
    fn new(columns: Vec<Mapped>, market: Option<String>) -> Result<Self, String> {
        let mut told = if market.is_some() { Field::Market.bit() } else { 0 };
        for mapped in &columns {
            if told & mapped.field.bit() != 0 {
                return Err(format!("{} once", mapped.field.as_str()));
            }
            told |= mapped.field.bit();
        }
        let quotes = told & (Field::Bid.bit() | Field::Ask.bit()) != 0;
        let kind = if quotes { RowKind::Quotes } else { RowKind::Ticks };
        let needs: &[Field] = match kind {
            RowKind::Ticks => &[Field::Market, Field::Price, Field::Volume],
            RowKind::Quotes => &[Field::Market, Field::Bid, Field::BidVolume, Field::Ask, Field::AskVolume],
        };
        if let Some(absent) = needs.iter().find(|field| told & field.bit() == 0) {
            return Err(format!("a column for {}", absent.as_str()));
        }
        if let Some(foreign) = columns.iter().find(|mapped| !mapped.field.belongs_to(kind)) {
            return Err(format!("ticks or quotes, and {} does not go with both", foreign.field.as_str()));
        }
        if told & (Field::EventTime.bit() | Field::ReceivedTime.bit()) == 0 {
            return Err("a column for event_time or received_time".to_owned());
        }
        Ok(Self { columns, market, kind })
    }
}

fn mapped(field: Field, default: How, column: &str, entry: &str) -> Result<Mapped, FeedError> {
    let is_time = matches!(field, Field::EventTime | Field::ReceivedTime);
    let is_volume = field == Field::Volume;
    let split = if is_time || is_volume || field == Field::Side { column.rsplit_once(':') } else { None };
    let (column, how) = match split {
        None => (column, default),
        Some((column, "abs")) if is_volume => (column, How::Absolute),
        Some((column, "maker")) if field == Field::Side => (column, How::Maker),
        Some((column, unit)) if is_time && default == How::Time(Unit::Rfc3339) => {
            let unit =
                Unit::from_name(unit).ok_or_else(|| refused("a unit of time: ns, us, ms, s or rfc3339", entry))?;
            (column, How::Time(unit))
        }
        Some(_) if is_time => return Err(refused("one unit, in the field's name or after the column's", entry)),
        Some(_) if is_volume => return Err(refused("nothing or :abs after the column of a volume", entry)),
        Some(_) => return Err(refused("nothing or :maker after the column of the side", entry)),
    };
    if column.is_empty() {
        return Err(refused("a column's name", entry));
    }
    Ok(Mapped { field, column: column.to_owned(), how })
}

fn refused(expected: &str, found: &str) -> FeedError {
    FeedError::Options { option: "--map", expected: expected.to_owned(), found: found.to_owned() }
}
