//! A lane: one session's frames to one shard, in a ring that is written and sent in place. No socket, no clock.
//!
//! ```text
//!   answered <= sent <= made <= answered + slots        frame f lies in slot f mod slots, request number f + 1
//!      |          |       '--- encoded ahead of time, while there is nothing else to do
//!      |          '----------- handed to the socket: at most `window` of them unanswered
//!      '---------------------- acknowledged or refused, in order
//! ```
//!
//! After `Busy` for frame k: what was sent behind it is refused too and is let pass by, the wait that the node asked for
//! is kept, then `Resume` and the same bytes again from k on. A frame is encoded once, however often it is sent.

use crate::recipe::{Recipe, Ticks};
use crate::schedule::Schedule;
use anyhow::{Result, bail};
use myelin_datom::ROW_BYTES;
use myelin_wire::{HEADER_BYTES, Header, Kind};
use std::ops::Range;

/// Refused frames of a lane that are remembered; with more, the run is given up.
const REFUSED_MAX: usize = 1 << 20;

/// What a lane is made from.
#[derive(Clone, Debug)]
pub(crate) struct LaneSpec {
    pub recipe: Recipe,
    pub shard: u16,
    pub session: u64,
    pub batch: u32,
    /// Frames that may be unanswered.
    pub window: u32,
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    from: u64,
    seen: u64,
    until_ns: u64,
}

/// What was counted, and what is needed to say the same again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Frames that left, at least once.
    pub offered: u64,
    /// Frames the schedule asked for.
    pub scheduled: u64,
    /// Frames answered, in order from the first.
    pub answered: u64,
    /// Of those, the ones that were refused for good.
    pub refused: Vec<u64>,
    pub rows_accepted: u64,
    pub rows_duplicate: u64,
    /// Frames answered `Busy`, and how often that began anew.
    pub busy: u64,
    pub stalls: u64,
    /// At `max`: from this frame on, frames left at this time.
    pub left_at: Vec<(u64, u64)>,
    /// The newest transaction that was acknowledged.
    pub last_tx: u64,
}

/// One session to one shard.
#[derive(Debug)]
pub(crate) struct Lane {
    pub spec: LaneSpec,
    pub tally: Tally,
    schedule: Schedule,
    ticks: Ticks,
    ring: Vec<u8>,
    basis_ns: Vec<u64>,
    frame_len: usize,
    slots: u64,
    total: Option<u64>,
    made: u64,
    due: u64,
    sent: u64,
    sent_bytes: usize,
    stall: Option<Stall>,
}

/// The bytes of a frame of so many ticks.
pub(crate) const fn frame_bytes(batch: u32) -> usize {
    HEADER_BYTES + batch as usize * ROW_BYTES
}

impl Lane {
    /// A lane whose first frame is its session's first request.
    pub(crate) fn new(spec: LaneSpec, schedule: Schedule) -> Self {
        let frame_len = frame_bytes(spec.batch);
        // Half a window is encoded ahead, so that an answer finds the next frames ready.
        let slots = u64::from(spec.window + spec.window.div_ceil(2));
        let total = schedule.frames();
        Self {
            tally: Tally { scheduled: total.unwrap_or(0), ..Tally::default() },
            ticks: spec.recipe.ticks(),
            ring: vec![0; slots as usize * frame_len],
            basis_ns: vec![0; slots as usize],
            spec,
            schedule,
            frame_len,
            slots,
            total,
            made: 0,
            due: 0,
            sent: 0,
            sent_bytes: 0,
            stall: None,
        }
    }

    /// True while there is room to encode ahead.
    pub(crate) fn can_make(&self) -> bool {
        self.made < self.tally.answered + self.slots && self.total.is_none_or(|total| self.made < total)
    }

    /// Encodes the next frame into its slot. **Cost:** a tick from the tape, 64 bytes, their checksum.
    pub(crate) fn make(&mut self) {
        let slot = (self.made % self.slots) as usize;
        let frame = &mut self.ring[slot * self.frame_len..(slot + 1) * self.frame_len];
        let (head, body) = frame.split_at_mut(HEADER_BYTES);
        for row in body.chunks_exact_mut(ROW_BYTES) {
            row.copy_from_slice(bytemuck::bytes_of(&self.ticks.next().1));
        }
        let mut header = Header {
            body_len: body.len() as u32,
            body_crc: crc32fast::hash(body),
            session: self.spec.session,
            request: self.made + 1,
            shard: self.spec.shard,
            count: self.spec.batch,
            ..Header::new(Kind::Ticks)
        };
        header.header_crc = crc32fast::hash(&bytemuck::bytes_of(&header)[..HEADER_BYTES - 4]);
        head.copy_from_slice(bytemuck::bytes_of(&header));
        self.basis_ns[slot] = self.schedule.intended_ns(self.made).unwrap_or(0);
        self.made += 1;
    }

    /// The bytes that should leave now: frames that are due and fit the window, up to the end of the ring. `allowed` is
    /// what the node's credit leaves for this lane.
    pub(crate) fn due_bytes(&mut self, now_ns: u64, allowed: u64) -> Range<usize> {
        let (slot, room) = ((self.sent % self.slots) as usize, self.slots - self.sent % self.slots);
        let from = slot * self.frame_len + self.sent_bytes;
        let upto = if self.stall.is_some() {
            self.sent + u64::from(self.sent_bytes > 0)
        } else {
            while let Some(due_ns) = self.schedule.intended_ns(self.due)
                && due_ns <= now_ns
                && self.total.is_none_or(|total| self.due < total)
            {
                self.due += 1;
            }
            let due = if self.schedule.is_open() { self.due } else { u64::MAX };
            let due = due.min(self.total.unwrap_or(u64::MAX));
            let window = self.tally.answered + allowed.min(u64::from(self.spec.window)).max(1);
            self.made.min(due).min(window).min(self.sent + room).max(self.sent + u64::from(self.sent_bytes > 0))
        };
        from..from.max((slot + (upto - self.sent) as usize) * self.frame_len)
    }

    /// These bytes of the ring.
    pub(crate) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.ring[range]
    }

    /// The socket took so many of the bytes it was offered at `now_ns`.
    pub(crate) fn wrote(&mut self, mut bytes: usize, now_ns: u64) {
        let first = self.tally.offered;
        while bytes > 0 {
            if self.sent_bytes == 0 && self.sent == self.tally.offered {
                self.tally.offered += 1;
                if !self.schedule.is_open() {
                    self.basis_ns[(self.sent % self.slots) as usize] = now_ns;
                }
            }
            let taken = bytes.min(self.frame_len - self.sent_bytes);
            bytes -= taken;
            self.sent_bytes += taken;
            if self.sent_bytes == self.frame_len {
                self.sent_bytes = 0;
                self.sent += 1;
            }
        }
        if self.tally.offered > first && !self.schedule.is_open() {
            self.tally.left_at.push((first, now_ns));
        }
    }

    /// True inside a frame: no other bytes may follow on this connection.
    pub(crate) const fn is_inside_a_frame(&self) -> bool {
        self.sent_bytes > 0
    }

    /// Frames on the wire.
    pub(crate) const fn in_flight(&self) -> u64 {
        self.sent - self.tally.answered
    }

    /// An ack. Gives the time its latency counts from.
    pub(crate) fn acked(&mut self, header: &Header, duplicates: u32) -> Result<u64> {
        let basis_ns = self.in_order(header)?;
        if header.count + duplicates != self.spec.batch {
            bail!("an ack for {} of {} ticks", header.count + duplicates, self.spec.batch);
        }
        self.tally.rows_accepted += u64::from(header.count);
        self.tally.rows_duplicate += u64::from(duplicates);
        self.tally.last_tx = self.tally.last_tx.max(header.tx);
        Ok(basis_ns)
    }

    /// The frame was refused for good; the session goes on.
    pub(crate) fn refused(&mut self, header: &Header) -> Result<()> {
        self.in_order(header)?;
        if self.tally.refused.len() == REFUSED_MAX {
            bail!("more than {REFUSED_MAX} frames refused, the last with code {}", header.code);
        }
        self.tally.refused.push(header.request - 1);
        Ok(())
    }

    fn in_order(&mut self, header: &Header) -> Result<u64> {
        let expected = self.tally.answered + 1;
        if header.request != expected || self.sent < expected {
            let (request, code) = (header.request, header.code);
            bail!("expected the answer to request {expected}, found one to {request} with code {code}");
        }
        self.tally.answered += 1;
        Ok(self.basis_ns[((expected - 1) % self.slots) as usize])
    }

    /// `Busy`: the frame and all behind it were not executed.
    pub(crate) fn busy(&mut self, header: &Header, wait_ns: u64, now_ns: u64) -> Result<()> {
        let Some(frame) =
            header.request.checked_sub(1).filter(|frame| (self.tally.answered..self.sent).contains(frame))
        else {
            bail!("busy about request {}, which is not under way", header.request);
        };
        self.tally.busy += 1;
        match &mut self.stall {
            Some(stall) => stall.seen += 1,
            None => {
                self.tally.stalls += 1;
                self.stall = Some(Stall { from: frame, seen: 1, until_ns: now_ns + wait_ns });
            }
        }
        Ok(())
    }

    /// True after `Busy`, until everything behind it was refused too.
    pub(crate) const fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// When the node may be asked again: gives the request to resume with, and goes back to it.
    pub(crate) fn resume(&mut self, now_ns: u64) -> Option<u64> {
        let stall = self.stall?;
        let passed_by = self.sent_bytes == 0 && stall.seen >= self.sent - stall.from;
        if !passed_by || now_ns < stall.until_ns {
            return None;
        }
        self.stall = None;
        self.sent = stall.from;
        Some(stall.from + 1)
    }

    /// No frame leaves any more that did not leave before.
    pub(crate) fn stop(&mut self) {
        self.total = Some(self.tally.offered);
        if !self.schedule.is_open() {
            self.tally.scheduled = self.tally.offered;
        }
    }

    /// Everything that was to leave has left and is answered.
    pub(crate) fn is_done(&self) -> bool {
        self.stall.is_none() && self.total.is_some_and(|total| self.tally.answered >= total)
    }

    /// When to look again although nothing was heard. **Units:** nanoseconds of our clock.
    pub(crate) fn next_deadline_ns(&self, allowed: u64) -> Option<u64> {
        if let Some(stall) = self.stall {
            return (stall.seen >= self.sent - stall.from).then_some(stall.until_ns);
        }
        let open = self.in_flight() < allowed.min(u64::from(self.spec.window)).max(1);
        let more = self.total.is_none_or(|total| self.sent < total);
        if open && more { self.schedule.intended_ns(self.sent) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, IngestArgs, Mode};
    use clap::Parser;
    use myelin_datom::{EntityId, Slot};

    fn lane(line: &str, window: u32) -> Lane {
        let cli = Cli::try_parse_from(format!("myelin-load ingest --batch 2 {line}").split_whitespace()).unwrap();
        let Mode::Ingest(args) = cli.mode else { panic!("not ingest") };
        let args: IngestArgs = args;
        let ids = vec![EntityId::market(Slot::new(1).unwrap(), 0)];
        let recipe = Recipe { seed: 1, start_ns: 0, step_ns: 1, shuffle: 1, id_base: 7, ids, markets: vec![0] };
        let spec = LaneSpec { recipe, shard: 3, session: 9, batch: 2, window };
        Lane::new(spec, Schedule::new(&args, 0, 0, 1))
    }

    fn fill(lane: &mut Lane) {
        while lane.can_make() {
            lane.make();
        }
    }

    fn send(lane: &mut Lane, now_ns: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let range = lane.due_bytes(now_ns, 1024);
            if range.is_empty() {
                return all;
            }
            all.extend_from_slice(lane.bytes(range.clone()));
            lane.wrote(range.len(), now_ns);
        }
    }

    fn requests(bytes: &[u8]) -> Vec<u64> {
        let mut at = 0;
        let mut found = Vec::new();
        while let Some((frame, taken)) = myelin_wire::decode(&bytes[at..], 1 << 20).unwrap() {
            assert_eq!((frame.kind, frame.header.count, frame.body.len()), (Kind::Ticks, 2, 128));
            found.push(frame.header.request);
            at += taken;
        }
        assert_eq!(at, bytes.len());
        found
    }

    fn reply(request: u64) -> Header {
        Header { request, count: 2, ..Header::new(Kind::Ack) }
    }

    #[test]
    fn frames_leave_when_they_are_due_and_the_window_holds_the_rest() {
        let mut lane = lane("--rate 2000 --seconds 1", 3);
        fill(&mut lane);
        assert_eq!(requests(&send(&mut lane, 0)), [1]);
        assert_eq!(requests(&send(&mut lane, 1_999_999)), [2]);
        assert_eq!(requests(&send(&mut lane, 50_000_000)), [3]);
        assert_eq!(lane.next_deadline_ns(1024), None, "the window is full");
        assert_eq!(lane.acked(&reply(1), 0).unwrap(), 0);
        assert_eq!(lane.acked(&reply(2), 0).unwrap(), 1_000_000, "latency counts from the intended time");
        fill(&mut lane);
        assert_eq!(requests(&send(&mut lane, 50_000_000)), [4, 5]);
        assert!(lane.acked(&reply(5), 0).is_err(), "answers come in order");
    }

    #[test]
    fn after_busy_the_same_bytes_leave_again_in_order_from_the_refused_frame_on() {
        let mut lane = lane("--rate max", 4);
        fill(&mut lane);
        let first = send(&mut lane, 10);
        assert_eq!(requests(&first), [1, 2, 3, 4]);
        for request in 2..=4 {
            assert_eq!(lane.resume(1_000), None, "what is behind the refused frame must pass by first");
            lane.busy(&reply(request), 100, 20).unwrap();
        }
        lane.acked(&reply(1), 0).unwrap();
        assert!(send(&mut lane, 30).is_empty(), "nothing leaves while stalled");
        assert_eq!((lane.resume(119), lane.next_deadline_ns(1)), (None, Some(120)));
        assert_eq!(lane.resume(120), Some(2));
        fill(&mut lane);
        let again = send(&mut lane, 130);
        assert_eq!(requests(&again), [2, 3, 4, 5]);
        assert_eq!(again[..3 * lane.frame_len], first[lane.frame_len..]);
        assert_eq!(lane.acked(&reply(2), 0).unwrap(), 10, "latency counts from the first time it left");
        assert_eq!((lane.tally.busy, lane.tally.stalls), (3, 1));
        assert_eq!(lane.tally.left_at, [(0, 10), (4, 130)]);
    }

    #[test]
    fn a_frame_that_was_cut_by_the_socket_is_completed_even_when_stalled() {
        let mut lane = lane("--rate max", 4);
        fill(&mut lane);
        let range = lane.due_bytes(0, 1024);
        lane.wrote(lane.frame_len + 10, 0);
        assert_eq!(range.len(), 4 * lane.frame_len);
        lane.busy(&reply(1), 0, 0).unwrap();
        let rest = lane.due_bytes(0, 1024);
        assert_eq!(rest, lane.frame_len + 10..2 * lane.frame_len);
        assert_eq!(lane.resume(5), None);
        lane.wrote(rest.len(), 5);
        assert_eq!(lane.resume(5), None, "its answer must pass by too");
        lane.busy(&reply(2), 0, 6).unwrap();
        assert_eq!(lane.resume(6), Some(1));
    }

    #[test]
    fn a_stopped_lane_is_done_when_what_left_is_answered() {
        let mut lane = lane("--rate max", 2);
        fill(&mut lane);
        send(&mut lane, 0);
        lane.stop();
        assert!(!lane.is_done());
        lane.acked(&reply(1), 0).unwrap();
        lane.refused(&reply(2)).unwrap();
        assert!(lane.is_done());
        assert!(send(&mut lane, 9).is_empty());
        assert_eq!((lane.tally.offered, lane.tally.refused.as_slice()), (2, &[1][..]));
    }

    /// A lane far behind its schedule was stopped, and went on sending what had been due before.
    #[test]
    fn what_was_due_before_the_stop_does_not_leave_after_it() {
        let mut lane = lane("--rate 2000 --seconds 1", 2);
        fill(&mut lane);
        assert_eq!(requests(&send(&mut lane, 900_000_000)), [1, 2]);
        lane.stop();
        lane.acked(&reply(1), 0).unwrap();
        assert!(send(&mut lane, 900_000_000).is_empty());
        lane.acked(&reply(2), 0).unwrap();
        assert!(lane.is_done());
        assert_eq!((lane.tally.offered, lane.tally.scheduled), (2, 1_000));
    }
}
