//! A batch: what gathered while the disk was busy, as the disk will take it.
//!
//! ```text
//!   buffer   | copy of the last partial block | record | record | pad |              one segment: one write
//!   buffer   | copy | record | pad | header block | record | record | pad |          a roll: three writes, in order
//!            '----- span of epoch e -----'        '- span of epoch e+1 -'
//! ```
//!
//! The copy makes every write whole blocks; it repeats bytes that are durable already, so tearing it changes nothing.
//! A batch rolls at most once. Its records can be read before, during and after the sync, without copying.
//! Deliberately absent: growth. A batch has the size it was born with, and goes back to the tail's pool.

use crate::blocks::{Buffer, block_up};
use crate::record::{Header, KIND_MARK, Record};
use crate::segment::RECORDS_AT;
use crate::{BLOCK_BYTES, Lsn};

/// A part of the buffer that belongs to one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    /// Where in the segment the span starts; a whole block.
    pub(crate) file_at: u64,
    /// Where in the buffer the span starts; a whole block.
    pub(crate) at: usize,
    /// Where in the buffer this batch's own records start.
    pub(crate) records_at: usize,
    /// Where in the buffer the next record would start.
    pub(crate) end: usize,
}

impl Span {
    /// The place of a byte of the buffer in the segment.
    pub(crate) fn offset_of(&self, at: usize) -> u64 {
        assert!(at >= self.at, "the byte lies in this span");
        self.file_at + (at - self.at) as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records_at == self.end
    }
}

/// What is still in memory only, or just became durable: records, and the writes that store them.
pub struct Batch {
    pub(crate) buffer: Buffer,
    pub(crate) spans: [Span; 2],
    pub(crate) rolled: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) records: usize,
    pub(crate) upto: Lsn,
}

/// One write of whole blocks.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Which segment file.
    pub slot: u32,
    /// Which use of it.
    pub epoch: u32,
    /// Where in the file.
    pub offset: u64,
    /// What.
    pub blocks: &'a [u8],
}

impl Batch {
    /// The end of the batch's last record: what is durable after its sync.
    #[must_use]
    pub fn upto(&self) -> Lsn {
        self.upto
    }

    /// The number of records, marks included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records
    }

    /// Never: an empty batch is not handed over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The writes, **in the order in which they must become durable**: the rest of the old segment, then the new one's
    /// header, then its records. At most three.
    pub fn writes(&self) -> impl Iterator<Item = Write<'_>> {
        let [old, new] = &self.spans;
        let header = self.rolled.then(|| Write {
            slot: new.slot,
            epoch: new.epoch,
            offset: 0,
            blocks: &self.buffer.bytes()[new.at - BLOCK_BYTES..new.at],
        });
        [self.span_write(old), header, self.span_write(new)].into_iter().flatten()
    }

    /// The records in log order, marks left out. **Cost:** nothing is copied but 64 bytes of header.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.spans.iter().flat_map(|span| self.span_records(span)).filter(|record| record.header.kind != KIND_MARK)
    }

    fn span_write(&self, span: &Span) -> Option<Write<'_>> {
        let blocks = &self.buffer.bytes()[span.at..block_up(span.end)];
        (!span.is_empty()).then_some(Write { slot: span.slot, epoch: span.epoch, offset: span.file_at, blocks })
    }

    fn span_records<'a>(&'a self, span: &Span) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let (span, mut at) = (*span, span.records_at);
        std::iter::from_fn(move || {
            let record = (at < span.end).then(|| self.record(&span, at))?;
            at += record.header.stride();
            Some(record)
        })
    }

    fn record(&self, span: &Span, at: usize) -> Record<'_> {
        let (header, payload) = self.buffer.bytes()[at..span.end].split_at(crate::HEADER_BYTES);
        let header = Header::read(header);
        Record { lsn: self.lsn(span, at), header, payload: &payload[..header.length as usize] }
    }

    /// The place in the log of a byte of the buffer.
    pub(crate) fn lsn(&self, span: &Span, at: usize) -> Lsn {
        Lsn::at(span.epoch, span.offset_of(at), self.segment_bytes)
    }

    /// The span that is being filled.
    pub(crate) fn active(&self) -> &Span {
        &self.spans[usize::from(self.rolled)]
    }

    /// As [`Batch::active`], to change it.
    pub(crate) fn active_mut(&mut self) -> &mut Span {
        &mut self.spans[usize::from(self.rolled)]
    }

    /// An empty batch that goes on where `end` is: the block under it is copied, unless the place is a block's start.
    pub(crate) fn starting_at(mut buffer: Buffer, end: End<'_>, segment_bytes: u64) -> Self {
        let copied = end.partial.len();
        assert!(copied < BLOCK_BYTES, "only a partial block is carried over");
        assert!(end.offset % BLOCK_BYTES as u64 == copied as u64, "the partial block ends where the log ends");
        buffer.bytes_mut()[..copied].copy_from_slice(end.partial);
        let span = Span {
            slot: end.slot,
            epoch: end.epoch,
            file_at: end.offset - copied as u64,
            at: 0,
            records_at: copied,
            end: copied,
        };
        let upto = Lsn::at(end.epoch, end.offset, segment_bytes);
        Self {
            buffer,
            spans: [span, Span { records_at: 0, end: 0, ..span }],
            rolled: false,
            segment_bytes,
            records: 0,
            upto,
        }
    }

    /// Opens the second span, in `slot`, behind a header block.
    pub(crate) fn roll_to(&mut self, slot: u32, epoch: u32) {
        assert!(!self.rolled, "a batch rolls at most once");
        let old = self.spans[0];
        let at = block_up(old.end) + BLOCK_BYTES;
        self.spans[1] = Span { slot, epoch, file_at: RECORDS_AT, at, records_at: at, end: at };
        self.rolled = true;
    }
}

/// Where the log ends, for the batch that goes on there.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
    /// What the block under the end already holds.
    pub(crate) partial: &'a [u8],
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("records", &self.records).field("upto", &self.upto).finish_non_exhaustive()
    }
}
