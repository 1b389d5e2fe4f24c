//! The writing end of the log: records gather here in memory, a batch at a time. No I/O, no clock, no allocation once warm.
//!
//! ```text
//!   begin push.. end  -> | batch that fills |  -> take_batch -> Syncer::sync -> synced(upto) -> apply -> recycle
//!                              '--- gathers while the one before is being synced ---'
//!
//!   watermarks     released <= synced <= end
//! ```
//!
//! - One batch is under way at a time. That makes `synced_upto` exact: when a batch is sealed, all before it is durable,
//!   so on disk a record of a later batch proves every earlier batch complete.
//! - Headers are sealed when the batch is taken, not when a record ends: only then is that proof known.
//! - Nothing waits. When buffers, the segment or the spares run out, [`Tail::room`] says 0 and the caller pushes back.
//!
//! Deliberately absent: the bytes of older batches (the caller keeps those it needs, `reader.rs` reads the rest).

use crate::batch::{Batch, End, Span};
use crate::blocks::{Buffer, block_down, block_up};
use crate::live::{Live, Spare};
use crate::planted::{self, Bug};
use crate::record::{Chain, Entry, Header, KIND_MARK, PayloadCrc, Place};
use crate::segment::{Opening, SegmentHeader};
use crate::{BLOCK_BYTES, Config, HEADER_BYTES, Lsn, Pinned};

/// Where a record came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its first byte.
    pub lsn_start: Lsn,
    /// The next record's first byte at the earliest; the record is durable when the watermark is here.
    pub lsn_end: Lsn,
}

/// The writing end of one core's log.
pub struct Tail {
    config: Config,
    chain: Chain,
    synced: Lsn,
    under_way: Option<Lsn>,
    filling: Option<Batch>,
    /// Where the log ends, while no buffer is left to fill.
    parked: Option<Parked>,
    open: Option<Open>,
    /// Whether the last record is a mark; or there is none.
    marked: bool,
    pool: Vec<Buffer>,
    buffers_born: usize,
    live: Live,
}

#[derive(Debug)]
struct Open {
    entry: Entry,
    crc: PayloadCrc,
    length: usize,
}

struct Parked {
    slot: u32,
    epoch: u32,
    offset: u64,
    block: Box<[u8; BLOCK_BYTES]>,
}

/// What recovery found, for the tail that goes on there.
#[derive(Debug)]
pub(crate) struct Resume<'a> {
    pub(crate) slot: u32,
    pub(crate) epoch: u32,
    pub(crate) offset: u64,
    pub(crate) partial: &'a [u8],
    pub(crate) chain: Chain,
    pub(crate) live: Live,
}

impl Tail {
    pub(crate) fn resume(config: &Config, resume: Resume<'_>) -> Self {
        let Resume { slot, epoch, offset, partial, chain, live } = resume;
        let buffer = Buffer::new(config.batch_bytes);
        let filling = Batch::starting_at(buffer, End { slot, epoch, offset, partial }, config.segment_bytes);
        Self {
            config: config.clone(),
            chain,
            synced: filling.upto,
            under_way: None,
            filling: Some(filling),
            parked: None,
            open: None,
            marked: epoch == 0,
            pool: Vec::with_capacity(config.buffers),
            buffers_born: 1,
            live,
        }
    }

    /// Payload bytes that [`Tail::push`] still takes: into the open record, or into one begun now. 0 says: take a batch,
    /// recycle one, or offer a spare, whichever is late. A caller that sees 0 pushes back; nothing is wrong.
    #[must_use]
    pub fn room(&self) -> usize {
        let Some(batch) = &self.filling else { return 0 };
        let open = self.open.as_ref().map_or(0, |open| open.length);
        let whole = self.fits_here(batch).max(self.fits_after_a_roll(batch));
        whole.map_or(0, |payload| payload.min(self.config.max_payload).saturating_sub(open))
    }

    /// Opens a record. **Panics** if one is open, if `kind` is [`KIND_MARK`], or if there is no [`Tail::room`].
    pub fn begin(&mut self, entry: Entry) {
        assert!(entry.kind != KIND_MARK, "marks are the log's own");
        assert!(self.room() > 0, "the caller pushes back when there is no room");
        self.open(entry);
    }

    /// Appends to the open record's payload: one copy, into the buffer that is written. **Panics** beyond
    /// [`Tail::room`].
    pub fn push(&mut self, bytes: &[u8]) {
        self.copy_in(bytes);
        self.open_mut().crc.update(bytes);
    }

    /// As [`Tail::push`], with the bytes' CRC-32/ISO-HDLC as their sender computed it: from there to the sealed block
    /// one checksum covers them, and damage in between is found by whoever verifies next. **Cost:** the copy, and some
    /// 40 ns to combine the sums, whatever the length.
    pub fn push_with_crc(&mut self, bytes: &[u8], crc: u32) {
        self.copy_in(bytes);
        self.open_mut().crc.combine(crc, bytes.len());
    }

    /// Completes the open record. It is durable once [`Tail::synced_upto`] reaches `lsn_end`.
    pub fn end(&mut self) -> Appended {
        let open = self.open.take().expect("a record is open");
        self.make_place_for(open.length);
        self.marked = open.entry.kind == KIND_MARK;
        let incarnation = self.chain.incarnation;
        let batch = filling(&mut self.filling);
        let span = *batch.active();
        let length = u32::try_from(open.length).expect("a payload is bounded by the segment");
        let header = Header::unsealed(open.entry, length, open.crc.finish(), span.epoch, incarnation);
        let (payload_end, end) = (span.end + HEADER_BYTES + open.length, span.end + header.stride());
        let bytes = batch.buffer.bytes_mut();
        bytes[span.end..span.end + HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
        bytes[payload_end..end].fill(0);
        batch.active_mut().end = end;
        batch.records += 1;
        batch.upto = batch.lsn(&span, end);
        Appended { lsn_start: batch.lsn(&span, span.end), lsn_end: batch.upto }
    }

    /// Forgets the open record.
    pub fn abort(&mut self) {
        assert!(self.open.take().is_some(), "a record is open");
    }

    /// Appends an empty record whose only word is what is durable. A caller about to fall idle or to stop does this once
    /// all it gathered is synced, and syncs once more: the batch before is then proven complete on disk, so that damage
    /// to it is told from a torn tail. True if a mark was appended; false if records are still on their way, if the log
    /// ends with a mark already, or if there is no room.
    pub fn mark(&mut self) -> bool {
        assert!(self.open.is_none(), "no record is open");
        let idle = self.under_way.is_none() && self.filling.as_ref().is_some_and(|batch| batch.records == 0);
        let wanted = idle && !self.marked && self.room() > 0;
        if wanted {
            self.open(Entry { kind: KIND_MARK, ..Entry::default() });
            self.end();
        }
        wanted
    }

    /// Hands over what gathered, sealed; the next batch begins behind it. None while a batch is under way, or if nothing
    /// gathered. **Panics** if a record is open.
    pub fn take_batch(&mut self) -> Option<Batch> {
        assert!(self.open.is_none(), "a batch holds whole records");
        if self.under_way.is_some() || self.filling.as_ref().is_none_or(|batch| batch.records == 0) {
            return None;
        }
        let mut batch = self.filling.take()?;
        self.seal(&mut batch);
        self.under_way = Some(batch.upto);
        match self.spare_buffer() {
            Some(buffer) => self.filling = Some(Batch::starting_at(buffer, end_of(&batch), self.config.segment_bytes)),
            None => self.parked = Some(Parked::behind(&batch)),
        }
        Some(batch)
    }

    /// The batch under way is durable. **Panics** if `upto` is not its end.
    pub fn synced(&mut self, upto: Lsn) {
        assert!(self.under_way.take() == Some(upto), "batches are synced one at a time, in order");
        assert!(upto > self.synced, "the watermark only grows");
        self.synced = upto;
    }

    /// Takes a batch's buffer back, after its records were applied.
    pub fn recycle(&mut self, batch: Batch) {
        assert!(self.pool.len() < self.buffers_born, "only this log's batches come back");
        assert!(batch.buffer.len() == self.config.batch_bytes, "only this log's batches come back");
        match self.parked.take() {
            Some(parked) => {
                self.filling = Some(Batch::starting_at(batch.buffer, parked.end(), self.config.segment_bytes));
            }
            None => self.pool.push(batch.buffer),
        }
    }

    /// Everything below is durable.
    #[must_use]
    pub fn synced_upto(&self) -> Lsn {
        self.synced
    }

    /// Where the next record would start at the earliest.
    #[must_use]
    pub fn end_lsn(&self) -> Lsn {
        match (&self.filling, &self.parked) {
            (Some(batch), _) => batch.upto,
            (None, Some(parked)) => Lsn::at(parked.epoch, parked.offset, self.config.segment_bytes),
            (None, None) => unreachable!("a tail fills a buffer or waits for one"),
        }
    }

    /// Takes a prepared slot for a later roll.
    pub fn offer(&mut self, spare: Spare) {
        self.live.offer(spare);
    }

    /// Slots ready for a roll. Below two, the maintenance thread should prepare another or a checkpoint should come.
    pub fn spares(&mut self) -> usize {
        self.live.spares()
    }

    /// Nothing below `upto` is needed any more: segments wholly below become spares, those with readers when the last of
    /// them is gone. Answers how many became spares now. **Panics** above [`Tail::synced_upto`].
    pub fn release(&mut self, upto: Lsn) -> usize {
        assert!(upto <= self.synced, "only what is durable can be covered by a checkpoint");
        self.live.release(upto)
    }

    /// The start of the oldest segment in use: a scan may start here.
    #[must_use]
    pub fn oldest(&self) -> Lsn {
        self.live.oldest(self.config.segment_bytes).unwrap_or_else(|| self.end_lsn())
    }

    /// Holds the segment that `lsn` lies in against reuse, for a reader. None if it was released, or nothing durable is
    /// there yet.
    #[must_use]
    pub fn pin(&self, lsn: Lsn) -> Option<Pinned> {
        self.live.pin(lsn, self.synced, self.config.segment_bytes)
    }

    fn open(&mut self, entry: Entry) {
        assert!(self.open.is_none(), "records do not nest");
        self.open = Some(Open { entry, crc: PayloadCrc::default(), length: 0 });
    }

    fn open_mut(&mut self) -> &mut Open {
        self.open.as_mut().expect("a record is open")
    }

    fn copy_in(&mut self, bytes: &[u8]) {
        let length = self.open_mut().length + bytes.len();
        self.make_place_for(length);
        let batch = filling(&mut self.filling);
        let at = batch.active().end + HEADER_BYTES + length - bytes.len();
        batch.buffer.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.open_mut().length = length;
    }

    /// The longest payload for a record in the active segment; none if not even a header fits.
    fn fits_here(&self, batch: &Batch) -> Option<usize> {
        let span = batch.active();
        let segment_left = usize::try_from(self.config.segment_bytes - span.offset_of(span.end)).ok()?;
        segment_left.min(batch.buffer.len() - span.end).checked_sub(HEADER_BYTES)
    }

    /// The same for the next segment, if this batch may roll.
    fn fits_after_a_roll(&self, batch: &Batch) -> Option<usize> {
        let may_roll = !batch.rolled && self.live.has_spare();
        let start = block_up(batch.active().end) + BLOCK_BYTES;
        batch.buffer.len().checked_sub(start + HEADER_BYTES).filter(|_| may_roll)
    }

    /// Rolls if the open record would not fit with this payload.
    fn make_place_for(&mut self, payload: usize) {
        assert!(payload <= self.config.max_payload, "a payload is within its limit");
        let batch = self.filling.as_ref().expect("a batch is being filled");
        if self.fits_here(batch).is_some_and(|fits| payload <= fits) {
            return;
        }
        assert!(self.fits_after_a_roll(batch).is_some_and(|fits| payload <= fits), "the caller stays within the room");
        self.roll();
    }

    /// Goes on in a spare; the open record, if it has begun, moves along.
    fn roll(&mut self) {
        let moving = self.open.as_ref().map_or(0, |open| open.length);
        let batch = filling(&mut self.filling);
        let old = *batch.active();
        let old_end = Lsn::at(old.epoch, old.offset_of(old.end), self.config.segment_bytes);
        let epoch = old.epoch.checked_add(1).expect("four billion segments are more than a disk's life");
        let slot = self.live.roll(old_end, epoch);
        batch.roll_to(slot, epoch);
        let payload_at = old.end + HEADER_BYTES;
        let new_end = batch.active().end;
        let bytes = batch.buffer.bytes_mut();
        bytes.copy_within(payload_at..payload_at + moving, new_end + HEADER_BYTES);
        batch.upto = batch.lsn(batch.active(), new_end);
    }

    /// Makes every record of the batch final: watermark, chain, CRC, and zeros up to the block.
    fn seal(&mut self, batch: &mut Batch) {
        let [old, new] = batch.spans;
        self.seal_span(batch, old);
        if batch.rolled {
            let opening = Opening {
                epoch: new.epoch,
                incarnation: self.chain.incarnation,
                previous_end: batch.lsn(&old, old.end),
                oldest: self.live.oldest(self.config.segment_bytes).expect("a segment was just opened"),
                previous_crc: self.chain.previous_crc,
            };
            let block = &mut batch.buffer.bytes_mut()[new.at - BLOCK_BYTES..new.at];
            SegmentHeader::new(&self.config, opening).write(block);
            self.seal_span(batch, new);
        }
    }

    fn seal_span(&mut self, batch: &mut Batch, span: Span) {
        let mut at = span.records_at;
        while at < span.end {
            let lsn = batch.lsn(&span, at);
            let place = Place::new(lsn, self.config.log_id);
            let watermark = if planted::is(Bug::WatermarkAhead) { lsn } else { self.synced };
            let bytes = &mut batch.buffer.bytes_mut()[at..at + HEADER_BYTES];
            let mut header = Header::read(bytes);
            header.seal(place, watermark, self.chain.previous_crc);
            bytes.copy_from_slice(bytemuck::bytes_of(&header));
            self.chain.previous_crc = header.crc;
            at += header.stride();
        }
        batch.buffer.bytes_mut()[span.end..block_up(span.end)].fill(0);
    }

    fn spare_buffer(&mut self) -> Option<Buffer> {
        self.pool.pop().or_else(|| {
            let more = self.buffers_born < self.config.buffers;
            more.then(|| {
                self.buffers_born += 1;
                Buffer::new(self.config.batch_bytes)
            })
        })
    }
}

fn filling(filling: &mut Option<Batch>) -> &mut Batch {
    filling.as_mut().expect("a batch is being filled")
}

/// Where the log ends behind a batch.
fn end_of(batch: &Batch) -> End<'_> {
    let span = batch.active();
    let offset = span.offset_of(span.end);
    let copied = usize::try_from(offset - block_down(offset)).expect("less than a block");
    let partial = &batch.buffer.bytes()[span.end - copied..span.end];
    End { slot: span.slot, epoch: span.epoch, offset, partial }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (end, synced, room) = (self.end_lsn(), self.synced, self.room());
        f.debug_struct("Tail")
            .field("end", &end)
            .field("synced", &synced)
            .field("room", &room)
            .field("open", &self.open)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl Parked {
    fn behind(batch: &Batch) -> Self {
        let End { slot, epoch, offset, partial } = end_of(batch);
        let mut block = Box::new([0; BLOCK_BYTES]);
        block[..partial.len()].copy_from_slice(partial);
        Self { slot, epoch, offset, block }
    }

    fn end(&self) -> End<'_> {
        let copied = usize::try_from(self.offset - block_down(self.offset)).expect("less than a block");
        End { slot: self.slot, epoch: self.epoch, offset: self.offset, partial: &self.block[..copied] }
    }
}
