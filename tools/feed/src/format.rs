//! The formats by name, what each begins with, and how one is recognised.
//!
//! | format               | begins with                        | rows   |
//! |----------------------|------------------------------------|--------|
//! | `binance-trades`     | its header, exactly                | ticks  |
//! | `binance-quotes`     | its header, exactly                | quotes |
//! | `prediction-markets` | its header, exactly                | ticks  |
//! | `csv`                | any header, or `--columns`         | either |
//! | `ndjson`             | `{`, or a name ending in `.ndjson` | either |
//!
//! The three exact formats are nothing but a header and a [`ColumnMap`]. Deliberately absent: guessing by content
//! beyond the first line.

use std::fmt;
use std::str::FromStr;

use crate::error::FeedError;

/// What a file looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the first line and the name's ending.
    #[default]
    Auto,
    /// Trades as recorded from Binance.
    BinanceTrades,
    /// Best bids and asks as recorded from Binance.
    BinanceQuotes,
    /// Trades of replication prediction markets. Their traders are pseudonyms, which cannot be ids: left unknown.
    PredictionMarkets,
    /// Any table with a column map.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// A format that is a fixed header and a map.
pub(crate) struct Preset {
    pub(crate) header: &'static str,
    pub(crate) map: &'static str,
}

impl Format {
    /// Every format, as `--format` lists them.
    pub const ALL: [Self; 6] =
        [Self::Auto, Self::BinanceTrades, Self::BinanceQuotes, Self::PredictionMarkets, Self::Csv, Self::Ndjson];

    /// As on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::BinanceTrades => "binance-trades",
            Self::BinanceQuotes => "binance-quotes",
            Self::PredictionMarkets => "prediction-markets",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    pub(crate) const fn preset(self) -> Option<Preset> {
        match self {
            Self::BinanceTrades => Some(Preset {
                header: "received_ns,market,trade_id,exchange_ms,price,quantity,buyer_is_maker",
                map: "received_time=received_ns:ns,market=market,id=trade_id,event_time=exchange_ms:ms,\
                      price=price,volume=quantity,side=buyer_is_maker:maker",
            }),
            Self::BinanceQuotes => Some(Preset {
                header: "received_ns,market,update_id,exchange_ms,bid,bid_quantity,ask,ask_quantity",
                map: "received_time=received_ns:ns,market=market,id=update_id,event_time=exchange_ms:ms,\
                      bid=bid,bid_volume=bid_quantity,ask=ask,ask_volume=ask_quantity",
            }),
            Self::PredictionMarkets => Some(Preset {
                header: "market,trade_id,time,trader,side,cost,shares,net_shares,price",
                map: "market=market,id=trade_id,event_time=time:rfc3339,side=side,volume=shares:abs,price=price",
            }),
            Self::Auto | Self::Csv | Self::Ndjson => None,
        }
    }

    /// The format of a file with this name and first line; never `Auto`.
    pub(crate) fn recognise(name: &str, first_line: &[u8]) -> Self {
        if first_line.trim_ascii_start().starts_with(b"{") {
            return Self::Ndjson;
        }
        let known = Self::ALL.into_iter().find(|format| match format.preset() {
            Some(preset) => preset.header.as_bytes() == first_line,
            None => false,
        });
        known.unwrap_or_else(|| if named_ndjson(name) { Self::Ndjson } else { Self::Csv })
    }
}

fn named_ndjson(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let bare = [".gz", ".zst", ".zstd"].into_iter().find_map(|packing| name.strip_suffix(packing)).unwrap_or(&name);
    bare.ends_with(".ndjson") || bare.ends_with(".jsonl")
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = FeedError;

    fn from_str(text: &str) -> Result<Self, FeedError> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| FeedError::Options {
            option: "--format",
            expected: Self::ALL.map(Self::as_str).join(", "),
            found: text.to_owned(),
        })
    }
}

/// One byte that parts fields: the character itself, or `tab`, `\t`, `comma`, `semicolon`, `pipe`.
pub fn parse_delimiter(text: &str) -> Result<u8, FeedError> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        "comma" => Ok(b','),
        "semicolon" => Ok(b';'),
        "pipe" => Ok(b'|'),
        _ => match text.as_bytes() {
            &[byte] if is_delimiter(byte) => Ok(byte),
            _ => Err(FeedError::Options {
                option: "--delimiter",
                expected: "one ASCII character that occurs in no number, no quote and no line break, or tab".to_owned(),
                found: text.to_owned(),
            }),
        },
    }
}

pub(crate) fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'"' | b'\r' | b'\n' | b'.' | b'-' | b'+' | 0)
}
