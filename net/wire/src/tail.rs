//! The log as a stream: what is asked for, and one entry of it.
//!
//! ```text
//!   Tail    0 since:8 | 8 kinds:4 | 12 zero:4 | 16 entity:8 | 24 scope: 1 name, 2 pattern, 3 | idents of attributes, texts
//!   entry   0 bytes:4 | 4 kind:4 | 8 tx:8 | 16 n:4 | 20 number:4 | 24 what it is, padded to 8
//!           a tick's or quote's 64 bytes · market: id u64, flags u8, name text · fact: datom, its attribute's ident text
//! ```
//!
//! An entry says its own length, so that a reader passes over kinds it does not know: a further kind is no new frame. It
//! also says its price: a credit for every 256 bytes begun, so that a reader's credit bounds memory, whatever is stored.

use crate::body::{Cursor, Short, put_text};
use crate::message::{Attribute, MarketFlags};
use myelin_datom::{Bytes, Datom, EntityId, Quote, Tick};

/// `since` of a tail that begins with what comes next.
pub const FROM_NOW: u64 = u64::MAX;

/// Attributes that one tail may name: each is compared with every fact.
pub const TAIL_ATTRIBUTES_MAX: usize = 64;
/// What one credit pays for: any row, and most facts. **Units:** bytes of an entry.
pub const TAIL_CREDIT_BYTES: u32 = 256;

/// What an entry of the log is. Its number stands in the entry's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogKind {
    /// A tick was stored.
    Tick = 1,
    /// A quote was stored.
    Quote = 2,
    /// A market was created.
    Market = 3,
    /// A fact was asserted or retracted.
    Fact = 4,
}

impl LogKind {
    /// What is asked for by the name of an attribute: rows come whole, whichever of theirs it is; any other is of facts.
    #[must_use]
    pub fn of_attribute(name: &str) -> Self {
        match Attribute::from_name(name) {
            Some(Attribute::Tick) => Self::Tick,
            Some(Attribute::Quote) => Self::Quote,
            Some(Attribute::Market) => Self::Market,
            None => Self::Fact,
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tick, Self::Quote, Self::Market, Self::Fact];

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Its bit in [`TailAsk::kinds`].
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << (self as u32 - 1)
    }
}

/// Which markets, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// This one.
    Market(&'a str),
    /// Those whose name fits; `*` stands for anything.
    Like(&'a str),
    /// All.
    Any,
}

/// The body of a `Tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailAsk<'a> {
    /// Entries of later transactions; [`FROM_NOW`] = of those to come.
    pub since: u64,
    /// The bits of the kinds ([`LogKind::bit`]); 0 = all.
    pub kinds: u32,
    /// Only what is about it: a market, a tick's trader, an entity of facts or what points at it. 0 = everything.
    pub entity: EntityId,
    /// Only of these markets.
    pub named: Named<'a>,
    /// Facts only of attributes with these idents; none = of any.
    pub attributes: &'a [&'a str],
}

impl TailAsk<'_> {
    /// Everything from `since` on.
    #[must_use]
    pub const fn all(since: u64) -> Self {
        Self { since, kinds: 0, entity: EntityId::NONE, named: Named::Any, attributes: &[] }
    }

    /// Writes it. A name longer than 255 bytes is cut; the node refuses it by its length before.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.since.to_le_bytes());
        out.extend_from_slice(&self.kinds.to_le_bytes());
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&self.entity.bits().to_le_bytes());
        let (number, name) = match self.named {
            Named::Market(name) => (1, name),
            Named::Like(pattern) => (2, pattern),
            Named::Any => (3, ""),
        };
        out.push(number);
        if self.named != Named::Any {
            let name = &name.as_bytes()[..name.len().min(255)];
            out.push(name.len() as u8);
            out.extend_from_slice(name);
        }
        self.attributes.iter().for_each(|ident| put_text(out, ident));
    }
}

/// What stands before an entry. **Shape:** 24 bytes, little-endian, as drawn above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TailHead {
    /// With this head and the padding. **Units:** bytes.
    pub bytes: u32,
    /// A [`LogKind`]'s number.
    pub kind: u32,
    /// The transaction that brought it.
    pub tx: u64,
    /// Its place within the transaction, a fact's among its facts; 0 for quotes, whose places are not stored.
    pub n: u32,
    /// The row's number within its market, the market's within its shard; 0 for facts.
    pub number: u32,
}

/// **Units:** bytes.
pub const TAIL_HEAD_BYTES: usize = size_of::<TailHead>();
const _: () = assert!(TAIL_HEAD_BYTES == 24);

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    /// A tick was stored.
    Tick(Tick),
    /// A quote was stored.
    Quote(Quote),
    /// A market was created.
    Market {
        /// Its id.
        id: EntityId,
        /// What it declared.
        flags: MarketFlags,
        /// Its name.
        name: String,
    },
    /// A fact was asserted or retracted.
    Fact {
        /// Which.
        datom: Datom<'static>,
        /// What its attribute was called then; empty if it had no name.
        ident: String,
    },
    /// Something a newer node knows.
    Other(u32),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct TailEntry {
    /// The transaction that brought it.
    pub tx: u64,
    /// Its place within the transaction, a fact's among its facts; 0 for quotes.
    pub n: u32,
    /// The row's number within its market, the market's within its shard; 0 for facts.
    pub number: u32,
    /// What it costs. **Units:** credits.
    pub credits: u32,
    /// What it is.
    pub what: Logged,
}

/// Writes a tick or a quote as an entry.
pub fn write_tail_row(out: &mut Vec<u8>, kind: LogKind, tx: u64, n: u32, number: u32, row: &[u64; 8]) {
    let head = TailHead { bytes: (TAIL_HEAD_BYTES + size_of_val(row)) as u32, kind: kind as u32, tx, n, number };
    out.extend_from_slice(bytemuck::bytes_of(&head));
    out.extend_from_slice(bytemuck::bytes_of(row));
}

/// Writes the creation of a market as an entry.
pub fn write_tail_market(out: &mut Vec<u8>, tx: u64, number: u32, id: EntityId, flags: MarketFlags, name: &str) {
    write_entry(out, TailHead { bytes: 0, kind: LogKind::Market as u32, tx, n: 0, number }, |out| {
        out.extend_from_slice(&id.bits().to_le_bytes());
        out.push(flags.0);
        put_text(out, name);
    });
}

/// Writes a fact as an entry, with what its attribute was called then.
pub fn write_tail_fact(out: &mut Vec<u8>, n: u32, datom: &Datom<'_>, ident: &str) {
    let (kind, tx) = (LogKind::Fact as u32, datom.tx.bits());
    write_entry(out, TailHead { bytes: 0, kind, tx, n, number: 0 }, |out| {
        datom.write(out);
        put_text(out, ident);
    });
}

/// An entry whose length shows when it is written.
fn write_entry(out: &mut Vec<u8>, head: TailHead, what: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(bytemuck::bytes_of(&head));
    what(out);
    let bytes = (out.len() - start).next_multiple_of(crate::ALIGN);
    out.resize(start + bytes, 0);
    out[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
}

/// What an entry of this length costs. **Units:** bytes in, credits out.
#[must_use]
pub const fn tail_credits(bytes: u32) -> u32 {
    bytes.div_ceil(TAIL_CREDIT_BYTES)
}

/// Reads the body of a page, `count` entries. **Errors:** an entry that is cut, or a length that cannot be.
pub fn read_tail(body: &[u8]) -> Result<Vec<TailEntry>, Short> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let short = Short { at };
        let head: TailHead = bytemuck::pod_read_unaligned(body.get(at..at + TAIL_HEAD_BYTES).ok_or(short)?);
        let end = at.checked_add(head.bytes as usize).ok_or(short)?;
        let what = body.get(at + TAIL_HEAD_BYTES..end).ok_or(short)?;
        let what = logged(head.kind, what).ok_or(short)?;
        let credits = tail_credits(head.bytes);
        entries.push(TailEntry { tx: head.tx, n: head.n, number: head.number, credits, what });
        at = end;
    }
    Ok(entries)
}

fn logged(kind: u32, body: &[u8]) -> Option<Logged> {
    Some(match LogKind::from_number(kind) {
        Some(LogKind::Tick) => Logged::Tick(bytemuck::try_pod_read_unaligned(body).ok()?),
        Some(LogKind::Quote) => Logged::Quote(bytemuck::try_pod_read_unaligned(body).ok()?),
        Some(LogKind::Market) => {
            let mut cursor = Cursor::new(body);
            let (id, flags) = (EntityId::from_bits(cursor.u64().ok()?), MarketFlags(cursor.u8().ok()?));
            Logged::Market { id, flags, name: cursor.text().ok()?.to_owned() }
        }
        Some(LogKind::Fact) => {
            let mut input = Bytes::new(body);
            let datom = Datom::read(&mut input).ok()?.into_owned();
            Logged::Fact { datom, ident: input.text().ok()?.to_owned() }
        }
        None => Logged::Other(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_datom::{Tx, Value};

    #[test]
    fn entries_are_read_back_and_a_cut_page_is_an_error() {
        let tick = Tick { price: 2.5, ..bytemuck::Zeroable::zeroed() };
        let id = EntityId::from_bits(7);
        let (tx, v) = (Tx::from_bits(6), Value::string("x".repeat(300)));
        let datom = Datom { e: id, a: EntityId::from_bits(8), v, tx, added: false };
        let mut body = Vec::new();
        write_tail_market(&mut body, 5, 3, id, MarketFlags(1), "abc");
        let market_end = body.len();
        write_tail_fact(&mut body, 2, &datom, "a/b");
        let fact_end = body.len();
        write_tail_row(&mut body, LogKind::Tick, 6, 1, 9, &bytemuck::cast(tick));
        let market = Logged::Market { id, flags: MarketFlags(1), name: "abc".to_owned() };
        let fact = Logged::Fact { datom, ident: "a/b".to_owned() };
        let expected = vec![
            TailEntry { tx: 5, n: 0, number: 3, credits: 1, what: market },
            TailEntry { tx: 6, n: 2, number: 0, credits: 2, what: fact },
            TailEntry { tx: 6, n: 1, number: 9, credits: 1, what: Logged::Tick(tick) },
        ];
        assert_eq!(read_tail(&body), Ok(expected));
        for cut in (1..body.len()).filter(|cut| ![market_end, fact_end].contains(cut)) {
            assert!(read_tail(&body[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_entry_of_a_kind_that_is_not_known_is_passed_over() {
        let mut body = Vec::new();
        let head = TailHead { bytes: 32, kind: 999, tx: 4, n: 0, number: 0 };
        body.extend_from_slice(bytemuck::bytes_of(&head));
        body.extend_from_slice(&[0; 8]);
        write_tail_market(&mut body, 5, 3, EntityId::from_bits(7), MarketFlags(1), "abc");
        let read = read_tail(&body).unwrap();
        assert_eq!(read.iter().map(|entry| entry.tx).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(read[0].what, Logged::Other(999));
    }
}
