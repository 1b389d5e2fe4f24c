//! The recorded trades, as rows: real input for tests and benchmarks, absent where the data is not present.
//!
//! Looked for in `../shared/data` from the project's root, then in `MYELIN_DATA`; see the data's own page.

use std::io::Read;
use std::path::PathBuf;

use myelin_datom::{EntityId, Slot, Tick, received_delta};

/// Trades of six markets in order of arrival.
pub struct Trades {
    /// Their markets.
    pub markets: Vec<EntityId>,
    /// The trades.
    pub rows: Vec<Tick>,
}

fn path() -> Option<PathBuf> {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let named = std::env::var_os("MYELIN_DATA").map(PathBuf::from);
    let files = [Some(shared), named].into_iter().flatten();
    files.map(|data| data.join("binance-2024-08-08/trades.csv.gz")).find(|file| file.exists())
}

/// The trades; `None` where they are not present.
#[expect(clippy::unwrap_used, reason = "tests and benchmarks may stop")]
pub fn trades() -> Option<Trades> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path()?).unwrap()).read_to_string(&mut text).unwrap();
    let mut names: Vec<&str> = Vec::new();
    let mut markets = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [received, name, id, exchange_ms, price, quantity, maker] = fields[..] else { return None };
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            markets.push(EntityId::market(Slot::of_name(name), 0));
            names.len() - 1
        });
        let event_time_ns = exchange_ms.parse::<i64>().unwrap() * 1_000_000;
        rows.push(Tick {
            market: markets[at],
            id: id.parse().unwrap(),
            event_time_ns,
            price: price.parse().unwrap(),
            volume: quantity.parse().unwrap(),
            trader: EntityId::NONE,
            side: if maker == "1" { 2 } else { 1 },
            flags: 0,
            zero_50: 0,
            received_delta_us: received_delta::between(event_time_ns, received.parse().unwrap()),
            source: at as u32 / 2 + 1,
            zero_60: 0,
        });
    }
    Some(Trades { markets, rows })
}
