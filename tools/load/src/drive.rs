//! One connection: its lanes' frames out by schedule, answers in, latencies noted. The only loop that runs during a run.
//!
//! ```text
//!   loop   read what is there -> write what is due -> encode ahead -> nothing left to do: wait
//!   wait   poll until shortly before the next frame is due, then spin on the socket for at most `spin`
//! ```
//!
//! One thread for both directions: on a machine with two cores a second one would only take turns with the node's. A
//! write carries every frame that is due, up to [`WRITE_BYTES`]; an answer is timed when the read that brought it returns.

use crate::client::{busy_wait_ns, resume};
use crate::clock::{self, SECOND_NS};
use crate::lane::{Lane, Tally};
use crate::line::Line;
use crate::schedule::Schedule;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use myelin_wire::{AckBody, Code, Kind, write_frame};
use std::io::{ErrorKind, Read, Write};

/// **Units:** bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// **Units:** bytes of one write. More would keep answers waiting that have arrived.
const WRITE_BYTES: usize = 256 << 10;
/// **Units:** bytes that are encoded between two looks at the socket.
const MAKE_BYTES: usize = 32 << 10;
/// After the end, and as long as nothing is heard, this is waited for answers.
pub(crate) const GRACE_NS: u64 = 5 * SECOND_NS;
/// Frames that were due and could not leave may still do so for this long after the end.
const LATE_NS: u64 = SECOND_NS;
/// **Units:** nanoseconds of the longest poll, so that the end is noticed.
const POLL_NS: u64 = 100_000_000;

/// How a connection's run went.
#[derive(Debug)]
pub(crate) struct Driven {
    /// Beside the connection's lanes.
    pub tallies: Vec<Tally>,
    /// Measured frames, weighted by their ticks. **Units:** nanoseconds.
    pub ack_ns: Histogram<u64>,
    /// Ticks acknowledged since the warm-up.
    pub measured: u64,
    /// The last answer. **Units:** nanoseconds of our clock.
    pub last_answer_ns: u64,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

/// A histogram that every latency fits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 3_600 * SECOND_NS, 3).context("a histogram")
}

/// A connection and its lanes.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Line,
    lanes: Vec<Lane>,
    schedule: Schedule,
    spin_ns: u64,
    credit: u64,
    inbox: Vec<u8>,
    unread: usize,
    /// The lane whose frame is half written, or whose turn it is.
    turn: usize,
    blocked: bool,
    stopped: bool,
    driven: Driven,
}

impl Connection {
    /// Takes a socket that said hello.
    pub(crate) fn new(socket: Line, lanes: Vec<Lane>, schedule: Schedule, credit: u32, spin_us: u64) -> Result<Self> {
        socket.socket().set_nonblocking(true)?;
        Ok(Self {
            socket,
            lanes,
            schedule,
            spin_ns: spin_us * 1_000,
            credit: u64::from(credit.max(1)),
            inbox: vec![0; READ_BYTES],
            unread: 0,
            turn: 0,
            blocked: false,
            stopped: false,
            driven: Driven {
                tallies: Vec::new(),
                ack_ns: histogram()?,
                measured: 0,
                last_answer_ns: schedule.start_ns,
                error: None,
            },
        })
    }

    /// Runs until everything that was offered is answered, or the grace is over.
    pub(crate) fn run(mut self) -> Driven {
        if let Err(error) = self.turns() {
            self.driven.error = Some(format!("{error:#}"));
        }
        self.driven.tallies = self.lanes.into_iter().map(|lane| lane.tally).collect();
        self.driven
    }

    fn turns(&mut self) -> Result<()> {
        loop {
            let mut progress = self.read()?;
            let now_ns = clock::now_ns();
            if now_ns >= self.schedule.start_ns {
                progress |= self.write(now_ns)?;
            }
            if self.is_over(now_ns) {
                return Ok(());
            }
            progress |= self.make();
            if !progress {
                self.wait()?;
            }
        }
    }

    fn is_over(&mut self, now_ns: u64) -> bool {
        let end_ns = self.schedule.end_ns() + if self.schedule.is_open() { LATE_NS } else { 0 };
        if !self.stopped && now_ns >= end_ns {
            self.stopped = true;
            self.lanes.iter_mut().for_each(Lane::stop);
        }
        let given_up = self.stopped && now_ns > end_ns.max(self.driven.last_answer_ns) + GRACE_NS;
        given_up || self.lanes.iter().all(Lane::is_done)
    }

    fn read(&mut self) -> Result<bool> {
        let read = match self.socket.read(&mut self.inbox[self.unread..]) {
            Ok(0) => bail!("the node closed the connection"),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) => return Err(error).context("reading"),
        };
        let now_ns = clock::now_ns();
        let inbox = std::mem::take(&mut self.inbox);
        let end = self.unread + read;
        let mut at = 0;
        while let Some((frame, taken)) = myelin_wire::decode(&inbox[at..end], READ_BYTES as u32 / 2)? {
            self.hear(&frame, now_ns)?;
            at += taken;
        }
        self.inbox = inbox;
        self.inbox.copy_within(at..end, 0);
        self.unread = end - at;
        self.driven.last_answer_ns = now_ns;
        Ok(true)
    }

    fn hear(&mut self, frame: &myelin_wire::Frame<'_>, now_ns: u64) -> Result<()> {
        let header = &frame.header;
        if header.credit > 0 {
            self.credit = u64::from(header.credit);
        }
        let to = (header.session, header.shard);
        let lane = self.lanes.iter_mut().find(|lane| (lane.spec.session, lane.spec.shard) == to);
        let Some(lane) = lane else {
            bail!("{:?} about a session that is not ours, code {}", frame.kind, header.code);
        };
        match frame.kind {
            Kind::Ack => {
                let body = frame.body.get(..size_of::<AckBody>()).context("the ack is short")?;
                let body: AckBody = bytemuck::pod_read_unaligned(body);
                let basis_ns = lane.acked(header, body.duplicates)?;
                let ticks = u64::from(lane.spec.batch);
                if now_ns >= self.schedule.measured_from_ns {
                    self.driven.measured += ticks;
                }
                if basis_ns >= self.schedule.measured_from_ns {
                    self.driven.ack_ns.record_n(now_ns.saturating_sub(basis_ns).max(1), ticks)?;
                }
            }
            Kind::Refused => match Code::from_number(header.code) {
                Some(code) if code.passes() => lane.busy(header, busy_wait_ns(header), now_ns)?,
                Some(Code::SessionGap) if lane.is_stalled() => lane.busy(header, 0, now_ns)?,
                Some(code @ (Code::SessionGap | Code::SessionExpired | Code::OutcomeForgotten | Code::Unavailable)) => {
                    bail!("request {} refused: {}", header.request, code.name())
                }
                _ => lane.refused(header)?,
            },
            kind => bail!("{kind:?} was not asked for"),
        }
        Ok(())
    }

    /// One write to the socket, of one lane's due frames. True when something left.
    fn write(&mut self, now_ns: u64) -> Result<bool> {
        self.blocked = false;
        let in_flight: u64 = self.lanes.iter().map(Lane::in_flight).sum();
        for _ in 0..self.lanes.len() {
            let lane = &mut self.lanes[self.turn];
            if let Some(next) = lane.resume(now_ns) {
                let (session, shard) = (lane.spec.session, lane.spec.shard);
                self.write_resume(session, shard, next)?;
                return Ok(true);
            }
            let others = in_flight - lane.in_flight();
            let range = lane.due_bytes(now_ns, self.credit.saturating_sub(others));
            if !range.is_empty() {
                let range = range.start..range.end.min(range.start + WRITE_BYTES);
                let taken = match self.socket.write(lane.bytes(range)) {
                    Ok(taken) => taken,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return Ok(false);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    Err(error) => return Err(error).context("writing"),
                };
                lane.wrote(taken, now_ns);
                if !lane.is_inside_a_frame() {
                    self.turn = (self.turn + 1) % self.lanes.len();
                }
                return Ok(taken > 0);
            }
            self.turn = (self.turn + 1) % self.lanes.len();
        }
        Ok(false)
    }

    /// Rare and small, so it is simply written out.
    fn write_resume(&mut self, session: u64, shard: u16, next: u64) -> Result<()> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, resume(session, shard, next), &[]);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    clock::wait_for(self.socket.socket(), true, POLL_NS)?
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("resuming"),
            }
        }
        Ok(())
    }

    fn make(&mut self) -> bool {
        let mut made = 0;
        for lane in &mut self.lanes {
            let mut bytes = 0;
            while bytes < MAKE_BYTES && lane.can_make() {
                lane.make();
                bytes += crate::lane::frame_bytes(lane.spec.batch);
            }
            made += bytes;
        }
        made > 0
    }

    /// Sleeps until something arrives or a frame is almost due; the rest of the way the caller's loop spins.
    fn wait(&self) -> Result<()> {
        let in_flight: u64 = self.lanes.iter().map(Lane::in_flight).sum();
        let deadline = |lane: &Lane| lane.next_deadline_ns(self.credit.saturating_sub(in_flight - lane.in_flight()));
        let next_ns = self.lanes.iter().filter_map(deadline).min().unwrap_or(u64::MAX);
        let now_ns = clock::now_ns();
        let next_ns = if now_ns < self.schedule.start_ns { next_ns.max(self.schedule.start_ns) } else { next_ns };
        let ahead_ns = next_ns.saturating_sub(now_ns);
        let blocked = self.blocked || self.socket.owes();
        if ahead_ns > self.spin_ns || blocked {
            let sleep_ns = if blocked { POLL_NS } else { (ahead_ns - self.spin_ns).min(POLL_NS) };
            clock::wait_for(self.socket.socket(), blocked, sleep_ns)?;
        }
        Ok(())
    }
}
