//! A record: 64 bytes of header, the payload, zeros up to the next multiple of 64.
//!
//! ```text
//!    0 magic u32 |  4 kind u8 |  5 version u8 |  6 group u16 |  8 length u32 | 12 payload_crc u32
//!   16 term u64                              | 24 index u64
//!   32 tx u64                                | 40 synced_upto u64
//!   48 epoch u32 | 52 incarnation u32        | 56 previous_crc u32          | 60 crc u32
//! ```
//!
//! - `crc` covers the record's place (its LSN xor the log's id, 8 bytes, not stored) and bytes 0..60. Bytes of an earlier
//!   use of the segment, of another log, or written to a wrong place, never verify.
//! - `previous_crc` chains records into one order; the payload's CRC is inside the header, so the chain covers it.
//! - `incarnation` counts the openings of the log and never falls along the chain. What a crash left behind the cut
//!   belongs to an earlier one, and so can never follow a record written after it, even one equal in every other byte.
//! - `synced_upto` is where the record's batch starts: all below was durable before the batch was written.
//!
//! A header never straddles a sector, as both are powers of two. Deliberately absent: decoding payloads.

use crc32fast::Hasher;

use crate::Lsn;

/// Size of a record's header, and what records are aligned to. **Units:** bytes.
pub const HEADER_BYTES: usize = 64;

/// "MyRc", read as a little-endian word.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"MyRc");

/// Version of the record's layout.
pub(crate) const VERSION: u8 = 1;

/// The one kind that is the log's own: an empty record that carries a watermark. Scans do not show it.
pub const KIND_MARK: u8 = 0;

/// What the caller says of a record. The log keeps it and does not read it, but for [`KIND_MARK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What the payload is; not [`KIND_MARK`].
    pub kind: u8,
    /// The Raft group.
    pub group: u16,
    /// Its term.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// The transaction id, as bits.
    pub tx: u64,
}

/// A record's header as it is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Header {
    /// "MyRc".
    pub magic: u32,
    /// See [`Entry::kind`].
    pub kind: u8,
    /// 1.
    pub version: u8,
    /// See [`Entry::group`].
    pub group: u16,
    /// Length of the payload. **Units:** bytes.
    pub length: u32,
    /// CRC-32/ISO-HDLC of the payload.
    pub payload_crc: u32,
    /// See [`Entry::term`].
    pub term: u64,
    /// See [`Entry::index`].
    pub index: u64,
    /// See [`Entry::tx`].
    pub tx: u64,
    /// All below was durable before this record's batch was written.
    pub synced_upto: Lsn,
    /// The segment's use that this record belongs to.
    pub epoch: u32,
    /// The opening of the log in which it was written.
    pub incarnation: u32,
    /// `crc` of the record before, across segments; 0 before the first.
    pub previous_crc: u32,
    /// CRC-32/ISO-HDLC of the place (LSN xor log id) and bytes 0..60.
    pub crc: u32,
}

const CRC_AT: usize = 60;

const _: () = {
    assert!(cfg!(target_endian = "little"), "the layouts are little-endian and used in place");
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(core::mem::offset_of!(Header, magic) == 0);
    assert!(core::mem::offset_of!(Header, kind) == 4);
    assert!(core::mem::offset_of!(Header, version) == 5);
    assert!(core::mem::offset_of!(Header, group) == 6);
    assert!(core::mem::offset_of!(Header, length) == 8);
    assert!(core::mem::offset_of!(Header, payload_crc) == 12);
    assert!(core::mem::offset_of!(Header, term) == 16);
    assert!(core::mem::offset_of!(Header, index) == 24);
    assert!(core::mem::offset_of!(Header, tx) == 32);
    assert!(core::mem::offset_of!(Header, synced_upto) == 40);
    assert!(core::mem::offset_of!(Header, epoch) == 48);
    assert!(core::mem::offset_of!(Header, incarnation) == 52);
    assert!(core::mem::offset_of!(Header, previous_crc) == 56);
    assert!(core::mem::offset_of!(Header, crc) == CRC_AT);
};

/// What is mixed into a header's CRC so that it verifies only where, when and in the log in which it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn new(lsn: Lsn, log_id: u64) -> Self {
        Self(lsn.bits() ^ log_id)
    }
}

/// A record in memory that someone else owns: a batch, a window of a scan, a map.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// Its header.
    pub header: Header,
    /// Its payload, verified against `payload_crc` if it came from a disk.
    pub payload: &'a [u8],
}

/// A place where the bytes are not the record that should follow: which field, what it should be, what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) what: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// What the next record must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) previous_crc: u32,
    pub(crate) incarnation: u32,
}

impl Header {
    /// The header of a record that is complete but not yet sealed.
    pub(crate) fn unsealed(entry: Entry, length: u32, payload_crc: u32, epoch: u32, incarnation: u32) -> Self {
        Self {
            magic: MAGIC,
            kind: entry.kind,
            version: VERSION,
            group: entry.group,
            length,
            payload_crc,
            term: entry.term,
            index: entry.index,
            tx: entry.tx,
            synced_upto: Lsn::ZERO,
            epoch,
            incarnation,
            previous_crc: 0,
            crc: 0,
        }
    }

    /// Sets watermark, chain and CRC: the record is final.
    pub(crate) fn seal(&mut self, place: Place, synced_upto: Lsn, previous_crc: u32) {
        self.synced_upto = synced_upto;
        self.previous_crc = previous_crc;
        self.crc = self.crc_at(place);
    }

    /// Whether the header is what was once sealed at this place; says nothing about payload and chain.
    pub(crate) fn verify(&self, place: Place, epoch: u32) -> Result<(), Flaw> {
        expect("record magic", MAGIC, self.magic)?;
        expect("record epoch", epoch, self.epoch)?;
        expect("header crc", self.crc_at(place), self.crc)?;
        expect("record version", VERSION, self.version)
    }

    /// Whether this header continues the chain.
    pub(crate) fn follows(&self, chain: Chain) -> Result<(), Flaw> {
        if self.incarnation < chain.incarnation {
            return expect("incarnation at least", chain.incarnation, self.incarnation);
        }
        expect("previous crc", chain.previous_crc, self.previous_crc)
    }

    /// What follows this record.
    pub(crate) fn chain(&self) -> Chain {
        Chain { previous_crc: self.crc, incarnation: self.incarnation }
    }

    /// Bytes from this record's start to the next one's.
    #[must_use]
    pub fn stride(&self) -> usize {
        stride(self.length as usize)
    }

    /// Reads a header; its fields are whatever the bytes say. **Panics** on fewer than [`HEADER_BYTES`].
    pub(crate) fn read(bytes: &[u8]) -> Self {
        bytemuck::pod_read_unaligned(&bytes[..HEADER_BYTES])
    }

    fn crc_at(&self, place: Place) -> u32 {
        let mut sealed = [0; 8 + CRC_AT];
        sealed[..8].copy_from_slice(&place.0.to_le_bytes());
        sealed[8..].copy_from_slice(&bytemuck::bytes_of(self)[..CRC_AT]);
        crc32fast::hash(&sealed)
    }
}

/// Bytes that a record with this much payload takes.
pub(crate) const fn stride(payload: usize) -> usize {
    HEADER_BYTES + payload.next_multiple_of(HEADER_BYTES)
}

/// Names what disagrees.
pub(crate) fn expect<T: Into<u64> + PartialEq>(what: &'static str, expected: T, found: T) -> Result<(), Flaw> {
    if expected == found { Ok(()) } else { Err(Flaw { what, expected: expected.into(), found: found.into() }) }
}

/// The CRC of a payload that arrives in pieces, some with a CRC of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct PayloadCrc(Hasher);

impl PayloadCrc {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// As `update`, with the CRC known: the bytes are not read.
    pub(crate) fn combine(&mut self, crc: u32, bytes: usize) {
        self.0.combine(&Hasher::new_with_initial_len(crc, bytes as u64));
    }

    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}
