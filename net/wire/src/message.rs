//! The bodies of the kinds that are not rows: drawn in `net/README.md`, written and read here, side by side.

use crate::body::{Cursor, Short, put_text};
use myelin_datom::EntityId;

/// The body of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Who is speaking, for logs.
    pub client: &'a str,
    /// What the client can do; no bit has a meaning yet.
    pub capabilities: u64,
    /// 0 none, 1 token, 2 client certificate.
    pub credential_kind: u8,
    /// The token, if there is one.
    pub credential: &'a str,
}

impl<'a> Hello<'a> {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.push(self.credential_kind);
        put_text(out, self.client);
        put_text(out, self.credential);
    }

    /// Reads it.
    pub fn read(body: &'a [u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        let capabilities = cursor.u64()?;
        let credential_kind = cursor.u8()?;
        let client = cursor.text()?;
        let credential = cursor.text()?;
        cursor.end()?;
        Ok(Self { client, capabilities, credential_kind, credential })
    }
}

/// Slots from `first` on, up to the next range's first, belong to `shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub first: u16,
    /// Who owns it.
    pub shard: u16,
}

/// The body of a welcome: who answers, how much may be sent, and who owns what.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Welcome {
    /// The node's id, drawn once when its data directory was made.
    pub node: u64,
    /// What the node can do; no bit has a meaning yet.
    pub capabilities: u64,
    /// **Units:** bytes of a body.
    pub max_body: u32,
    /// The core that answers.
    pub core: u16,
    /// The version of the slot table.
    pub table: u32,
    /// The port of each core, on the host that was connected to.
    pub ports: Vec<u16>,
    /// The core of each shard.
    pub shard_cores: Vec<u16>,
    /// Ascending; the first begins at slot 0.
    pub slots: Vec<SlotRange>,
}

impl Welcome {
    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        out.extend_from_slice(&self.max_body.to_le_bytes());
        out.extend_from_slice(&self.table.to_le_bytes());
        out.extend_from_slice(&self.core.to_le_bytes());
        for list in [&self.ports, &self.shard_cores] {
            out.extend_from_slice(&(list.len() as u16).to_le_bytes());
            for item in list {
                out.extend_from_slice(&item.to_le_bytes());
            }
        }
        out.extend_from_slice(&(self.slots.len() as u16).to_le_bytes());
        for range in &self.slots {
            out.extend_from_slice(&range.first.to_le_bytes());
            out.extend_from_slice(&range.shard.to_le_bytes());
        }
    }

    /// Reads it.
    pub fn read(body: &[u8]) -> Result<Self, Short> {
        let mut cursor = Cursor::new(body);
        let mut welcome = Self {
            node: cursor.u64()?,
            capabilities: cursor.u64()?,
            max_body: cursor.u32()?,
            table: cursor.u32()?,
            core: cursor.u16()?,
            ..Self::default()
        };
        for _ in 0..cursor.u16()? {
            welcome.ports.push(cursor.u16()?);
        }
        for _ in 0..cursor.u16()? {
            welcome.shard_cores.push(cursor.u16()?);
        }
        for _ in 0..cursor.u16()? {
            welcome.slots.push(SlotRange { first: cursor.u16()?, shard: cursor.u16()? });
        }
        cursor.end()?;
        Ok(welcome)
    }

    /// Who owns this slot.
    #[must_use]
    pub fn shard_of(&self, slot: myelin_datom::Slot) -> Option<u16> {
        let after = self.slots.partition_point(|range| range.first <= slot.number());
        after.checked_sub(1).and_then(|at| self.slots.get(at)).map(|range| range.shard)
    }
}

/// The body of an ack, 16 bytes; a verdict per row follows when `PARTIAL` was asked for.
///
/// `header.count` is how many rows were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct AckBody {
    /// Rows that were there already, byte for byte.
    pub duplicates: u32,
    /// Rows refused (only with `PARTIAL`).
    pub refused: u32,
    /// The first refused row (only with `PARTIAL`), else `u32::MAX`.
    pub first_bad: u32,
    /// Its code, else 0.
    pub first_code: u32,
}

/// What a market declares about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MarketFlags(pub u8);

impl MarketFlags {
    /// Prices may be negative.
    pub const SIGNED: u8 = 1;
    /// Ids only ascend: what lies below the pruned floor is `TooOld`.
    pub const ASCENDING: u8 = 1 << 1;
    /// Ids come without holes: a skipped one becomes a `feed/gap`.
    pub const DENSE: u8 = 1 << 2;
    /// Every bit that means something.
    pub const ALL: u8 = Self::SIGNED | Self::ASCENDING | Self::DENSE;

    /// True when the bit is set.
    #[must_use]
    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// One market to be created if it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketSpec<'a> {
    /// What it declares; ignored when it exists.
    pub flags: MarketFlags,
    /// `market/id`.
    pub name: &'a str,
}

/// Writes the body of a `Markets` frame.
pub fn markets_body<'a>(out: &mut Vec<u8>, markets: impl IntoIterator<Item = MarketSpec<'a>>) {
    for market in markets {
        out.push(market.flags.0);
        put_text(out, market.name);
    }
}

/// Reads the body of a `Markets` frame, one spec at a time.
pub fn read_markets(body: &[u8]) -> impl Iterator<Item = Result<MarketSpec<'_>, Short>> {
    let mut cursor = Cursor::new(body);
    core::iter::from_fn(move || {
        if cursor.is_done() {
            return None;
        }
        let spec = cursor.u8().and_then(|flags| Ok(MarketSpec { flags: MarketFlags(flags), name: cursor.text()? }));
        if spec.is_err() {
            cursor = Cursor::new(&[]);
        }
        Some(spec)
    })
}

/// A market as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketRow {
    /// Its entity id.
    pub id: EntityId,
    /// What it declared.
    pub flags: MarketFlags,
    /// Ticks stored.
    pub ticks: u64,
    /// Quotes stored.
    pub quotes: u64,
    /// `market/id`.
    pub name: String,
}

/// Writes one market of a list.
pub fn write_market_row(out: &mut Vec<u8>, id: EntityId, flags: MarketFlags, ticks: u64, quotes: u64, name: &str) {
    out.extend_from_slice(&id.bits().to_le_bytes());
    out.extend_from_slice(&ticks.to_le_bytes());
    out.extend_from_slice(&quotes.to_le_bytes());
    out.push(flags.0);
    put_text(out, name);
}

/// Reads a list of markets.
pub fn read_market_rows(body: &[u8]) -> Result<Vec<MarketRow>, Short> {
    let mut cursor = Cursor::new(body);
    let mut rows = Vec::new();
    while !cursor.is_done() {
        let (id, ticks, quotes, flags) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u8()?);
        let name = cursor.text()?.to_owned();
        rows.push(MarketRow { id: EntityId::from_bits(id), flags: MarketFlags(flags), ticks, quotes, name });
    }
    Ok(rows)
}

/// An attribute that can be counted. Every tick and quote attribute counts the rows that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attribute {
    /// `tick/...`
    Tick = 1,
    /// `quote/...`
    Quote = 2,
    /// `market/id`
    Market = 3,
}

impl Attribute {
    /// The attribute of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "tick/id" | "tick/market" | "tick/event-time" | "tick/received-time" | "tick/price" | "tick/volume"
            | "tick/trader" | "tick/side" | "tick/source" => Some(Self::Tick),
            "quote/id"
            | "quote/market"
            | "quote/event-time"
            | "quote/received-time"
            | "quote/bid"
            | "quote/bid-volume"
            | "quote/ask"
            | "quote/ask-volume"
            | "quote/source" => Some(Self::Quote),
            "market/id" => Some(Self::Market),
            _ => None,
        }
    }

    /// The attribute with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Tick),
            2 => Some(Self::Quote),
            3 => Some(Self::Market),
            _ => None,
        }
    }
}

/// One market's volume-weighted average price. **Shape:** 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct VwapRow {
    /// The market.
    pub market: u64,
    /// Its ticks.
    pub count: u64,
    /// Sum of price times volume, rounded once.
    pub notional: f64,
    /// Sum of volume, rounded once.
    pub volume: f64,
    /// Their quotient; NaN when there was no volume.
    pub vwap: f64,
}

/// A stored row and where it stands. **Shape:** 80 bytes; the last 64 are a tick or a quote.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StoredRow {
    /// The transaction that brought it.
    pub tx: u64,
    /// Its number within the market, from 0.
    pub number: u32,
    /// Its place within the transaction; 0 for quotes.
    pub n: u32,
    /// The row.
    pub row: [u64; 8],
}

const _: () = assert!(size_of::<StoredRow>() == 80);

/// One bar. **Shape:** 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BarRow {
    /// Where the interval begins. **Units:** Unix nanoseconds.
    pub start_ns: i64,
    /// First price by event time.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price by event time.
    pub close: f64,
    /// Sum of volume, rounded once.
    pub volume: f64,
    /// Ticks in it.
    pub count: u64,
    /// The market.
    pub market: u64,
}

impl BarRow {
    /// Bars in one answer at most: 4 MiB. Who wants more asks for a shorter stretch.
    pub const MAX: usize = 1 << 16;
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::Slot;

    #[test]
    fn a_welcome_is_read_back_and_knows_who_owns_a_slot() {
        let welcome = Welcome {
            node: 9,
            capabilities: 1,
            max_body: 1 << 20,
            core: 1,
            table: 3,
            ports: vec![7400, 7401],
            shard_cores: vec![0, 1],
            slots: vec![SlotRange { first: 0, shard: 0 }, SlotRange { first: 2048, shard: 1 }],
        };
        let mut body = Vec::new();
        welcome.write(&mut body);
        assert_eq!(Welcome::read(&body), Ok(welcome.clone()));
        for cut in 0..body.len() {
            assert!(Welcome::read(&body[..cut]).is_err());
        }
        for (slot, shard) in [(0, 0), (2047, 0), (2048, 1), (4095, 1)] {
            assert_eq!(welcome.shard_of(Slot::new(slot).unwrap()), Some(shard));
        }
    }

    #[test]
    fn markets_are_read_back_and_a_cut_list_is_an_error() {
        let specs = [MarketSpec { flags: MarketFlags(1), name: "a" }, MarketSpec { flags: MarketFlags(0), name: "bc" }];
        let mut body = Vec::new();
        markets_body(&mut body, specs);
        let read: Result<Vec<_>, _> = read_markets(&body).collect();
        assert_eq!(read, Ok(specs.to_vec()));
        let cut: Result<Vec<_>, _> = read_markets(&body[..body.len() - 1]).collect();
        assert!(cut.is_err());
    }
}
