//! The log as a stream: what is asked for, and one entry of it.
//!
//! ```text
//!   Tail    0 since:8 | 8 kinds:4 | 12 zero:4 | 16 entity:8 | 24 scope: 1 name, 2 pattern, 3
//!   entry   0 bytes:4 | 4 kind:4 | 8 tx:8 | 16 n:4 | 20 number:4 | 24 what it is, padded to 8
//! ```
//!
//! An entry says its own length, so that a reader passes over kinds it does not know: a further kind is no new frame.

use crate::body::{Cursor, Short, put_text};
use crate::message::{Attribute, MarketFlags};
use myelin_datom::{EntityId, Quote, Tick};

/// `since` of a tail that begins with what comes next.
pub const FROM_NOW: u64 = u64::MAX;

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
    /// Bit `a - 1` for attribute `a` ([`Attribute`]); 0 = all.
    pub kinds: u32,
    /// Only what is about it: a market, or a tick's trader. 0 = everything.
    pub entity: EntityId,
    /// Only of these markets.
    pub named: Named<'a>,
}

impl TailAsk<'_> {
    /// The bit of an attribute.
    #[must_use]
    pub const fn bit(attribute: Attribute) -> u32 {
        1 << (attribute as u32 - 1)
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
            Named::Any => return out.push(3),
        };
        let name = &name.as_bytes()[..name.len().min(255)];
        out.extend_from_slice(&[number, name.len() as u8]);
        out.extend_from_slice(name);
    }
}

/// What stands before an entry. **Shape:** 24 bytes, little-endian, as drawn above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TailHead {
    /// With this head and the padding. **Units:** bytes.
    pub bytes: u32,
    /// An [`Attribute`]'s number.
    pub kind: u32,
    /// The transaction that brought it.
    pub tx: u64,
    /// Its place within the transaction; 0 for quotes, whose places are not stored.
    pub n: u32,
    /// The row's number within its market, the market's within its shard.
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
    /// Something a newer node knows.
    Other(u32),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct TailEntry {
    /// The transaction that brought it.
    pub tx: u64,
    /// Its place within the transaction; 0 for quotes.
    pub n: u32,
    /// The row's number within its market, the market's within its shard.
    pub number: u32,
    /// What it is.
    pub what: Logged,
}

/// Writes a tick or a quote as an entry.
pub fn write_tail_row(out: &mut Vec<u8>, kind: Attribute, tx: u64, n: u32, number: u32, row: &[u64; 8]) {
    let head = TailHead { bytes: (TAIL_HEAD_BYTES + size_of_val(row)) as u32, kind: kind as u32, tx, n, number };
    out.extend_from_slice(bytemuck::bytes_of(&head));
    out.extend_from_slice(bytemuck::bytes_of(row));
}

/// Writes the creation of a market as an entry.
pub fn write_tail_market(out: &mut Vec<u8>, tx: u64, number: u32, id: EntityId, flags: MarketFlags, name: &str) {
    let start = out.len();
    let head = TailHead { bytes: 0, kind: Attribute::Market as u32, tx, n: 0, number };
    out.extend_from_slice(bytemuck::bytes_of(&head));
    out.extend_from_slice(&id.bits().to_le_bytes());
    out.push(flags.0);
    put_text(out, name);
    let bytes = (out.len() - start).next_multiple_of(crate::ALIGN);
    out.resize(start + bytes, 0);
    out[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
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
        entries.push(TailEntry { tx: head.tx, n: head.n, number: head.number, what });
        at = end;
    }
    Ok(entries)
}

fn logged(kind: u32, body: &[u8]) -> Option<Logged> {
    Some(match Attribute::from_number(u64::from(kind)) {
        Some(Attribute::Tick) => Logged::Tick(bytemuck::try_pod_read_unaligned(body).ok()?),
        Some(Attribute::Quote) => Logged::Quote(bytemuck::try_pod_read_unaligned(body).ok()?),
        Some(Attribute::Market) => {
            let mut cursor = Cursor::new(body);
            let (id, flags) = (EntityId::from_bits(cursor.u64().ok()?), MarketFlags(cursor.u8().ok()?));
            Logged::Market { id, flags, name: cursor.text().ok()?.to_owned() }
        }
        None => Logged::Other(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_and_a_cut_page_is_an_error() {
        let tick = Tick { price: 2.5, ..bytemuck::Zeroable::zeroed() };
        let id = EntityId::from_bits(7);
        let mut body = Vec::new();
        write_tail_market(&mut body, 5, 3, id, MarketFlags(1), "abc");
        write_tail_row(&mut body, Attribute::Tick, 6, 1, 9, &bytemuck::cast(tick));
        let market = Logged::Market { id, flags: MarketFlags(1), name: "abc".to_owned() };
        let expected = vec![
            TailEntry { tx: 5, n: 0, number: 3, what: market },
            TailEntry { tx: 6, n: 1, number: 9, what: Logged::Tick(tick) },
        ];
        assert_eq!(read_tail(&body), Ok(expected));
        let whole = body.len() - (TAIL_HEAD_BYTES + 64);
        for cut in (1..body.len()).filter(|cut| *cut != whole) {
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
