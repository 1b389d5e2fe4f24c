//! What a log entry carries: one or more proposals, each 24 bytes and its body as the client sent it.
//!
//! ```text
//!   record payload   [ proposal:24 | body, padded to 8 ]*        every entry kind but these two:
//!   proposal         0 session:8 | 8 request:8 | 16 count:4 (bit 31: partial) | 20 body CRC:4
//!   Close            empty; the record's tx is the moment that is closed
//!   Lead             empty; a leader's first entry in its term
//! ```
//!
//! The first proposal of a record has the record's `tx`, each further one the next: one request's part for one shard is
//! one transaction. `count` is rows for Ticks and Quotes, bytes for commands. Nothing here trusts a length.

use bytemuck::{Pod, Zeroable};
use myelin_datom::{ROW_BYTES, Tx};

/// What an entry is; the record's `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Rows of ticks.
    Ticks = 1,
    /// Rows of quotes.
    Quotes = 2,
    /// Markets to create.
    Markets = 3,
    /// Reflexes to register.
    Register = 4,
    /// Reflexes to remove.
    Remove = 5,
    /// No later entry has a `tx` at or below this one's.
    Close = 6,
    /// A leader's first entry.
    Lead = 7,
    /// Facts.
    Transact = 8,
    /// What is kept of markets.
    Retain = 9,
    /// Floors that rise: rows below are gone. The leader's own proposal, of session 0.
    Horizon = 10,
    /// Horizons of attributes that rise: what no longer held by then is gone. The leader's own proposal, of session 0.
    FactHorizon = 13,
}

impl EntryKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ticks),
            2 => Some(Self::Quotes),
            3 => Some(Self::Markets),
            4 => Some(Self::Register),
            5 => Some(Self::Remove),
            6 => Some(Self::Close),
            7 => Some(Self::Lead),
            8 => Some(Self::Transact),
            9 => Some(Self::Retain),
            10 => Some(Self::Horizon),
            13 => Some(Self::FactHorizon),
            _ => None,
        }
    }

    /// How many bytes `count` items take.
    const fn body_bytes(self, count: u32) -> usize {
        match self {
            Self::Ticks | Self::Quotes => count as usize * ROW_BYTES,
            _ => count as usize,
        }
    }
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Proposal {
    /// The client's session.
    pub session: u64,
    /// Its number in session and shard.
    pub request: u64,
    count_and_flag: u32,
    /// CRC-32/ISO-HDLC of the body, as the client computed it.
    pub crc: u32,
}

/// **Units:** bytes.
pub const PROPOSAL_BYTES: usize = size_of::<Proposal>();
const _: () = assert!(PROPOSAL_BYTES == 24);

const PARTIAL: u32 = 1 << 31;

impl Proposal {
    /// A proposal of `count` items. **Panics** when the count does not fit: frames are bounded far below.
    #[must_use]
    pub fn new(session: u64, request: u64, count: u32, partial: bool, crc: u32) -> Self {
        assert!(count < PARTIAL, "a frame's count is bounded");
        Self { session, request, count_and_flag: count | if partial { PARTIAL } else { 0 }, crc }
    }

    /// Rows, or bytes of a command.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count_and_flag & !PARTIAL
    }

    /// A verdict per row instead of all or nothing.
    #[must_use]
    pub const fn partial(&self) -> bool {
        self.count_and_flag & PARTIAL != 0
    }
}

/// An entry that verified its checksum and yet has no sense: our own writer was wrong, or another version wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log entry of kind {kind} is cut short at byte {at} of its payload")]
pub struct Senseless {
    /// The record's kind.
    pub kind: u8,
    /// Where in the payload.
    pub at: usize,
}

/// The proposals of an entry, each with its `tx` and body.
#[derive(Clone, Debug)]
pub struct Proposals<'a> {
    kind: EntryKind,
    payload: &'a [u8],
    at: usize,
    tx: Tx,
}

impl<'a> Proposals<'a> {
    /// Over the payload of an entry of this kind.
    #[must_use]
    pub const fn new(kind: EntryKind, payload: &'a [u8], tx: Tx) -> Self {
        Self { kind, payload, at: 0, tx }
    }
}

impl<'a> Iterator for Proposals<'a> {
    type Item = Result<(Tx, Proposal, &'a [u8]), Senseless>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.payload.len() {
            return None;
        }
        let short = Senseless { kind: self.kind as u8, at: self.at };
        let body_at = self.at + PROPOSAL_BYTES;
        let Some(head) = self.payload.get(self.at..body_at) else {
            self.at = self.payload.len();
            return Some(Err(short));
        };
        let proposal: Proposal = bytemuck::pod_read_unaligned(head);
        let len = self.kind.body_bytes(proposal.count());
        let Some(body) = self.payload.get(body_at..body_at + len) else {
            self.at = self.payload.len();
            return Some(Err(short));
        };
        self.at = body_at + len.next_multiple_of(8);
        let tx = self.tx;
        self.tx = tx.next();
        Some(Ok((tx, proposal, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bodies: &[&[u8]]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (n, body) in bodies.iter().enumerate() {
            payload.extend_from_slice(bytemuck::bytes_of(&Proposal::new(
                7,
                n as u64 + 1,
                body.len() as u32,
                n == 1,
                0,
            )));
            payload.extend_from_slice(body);
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
        payload
    }

    #[test]
    fn proposals_are_read_back_each_with_its_own_tx() {
        let payload = payload(&[b"one", b"", b"three, longer"]);
        let read: Vec<_> =
            Proposals::new(EntryKind::Markets, &payload, Tx::from_bits(10)).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|(tx, ..)| tx.bits()).collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!(
            read.iter().map(|(_, p, _)| (p.request, p.partial())).collect::<Vec<_>>(),
            [(1, false), (2, true), (3, false)]
        );
        assert_eq!(read[2].2, b"three, longer");
    }

    #[test]
    fn a_cut_payload_is_told_and_ends() {
        let payload = payload(&[b"one", b"two"]);
        for cut in 1..payload.len() - 5 {
            let read: Vec<_> = Proposals::new(EntryKind::Markets, &payload[..cut], Tx::ZERO).collect();
            assert!(read.iter().filter(|item| item.is_err()).count() <= 1);
            assert!(read.len() <= 2);
        }
    }
}
