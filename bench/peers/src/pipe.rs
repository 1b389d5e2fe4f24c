//! One connection to a server that answers every request in order: written by hand over a socket, so that the client
//! costs as little as it can. Redis and NATS speak through it.
//!
//! ```text
//!   tape -> Dialect::ask -> socket -> Dialect::hear -> answers; the n-th answer is for the n-th request
//! ```

use crate::clock::{self, SECOND_NS, Span, histogram, now_ns};
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use myelin_datom::Tick;
use myelin_feed::Tape;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What all connections together may have unanswered, as in `myelin-load`.
const IN_FLIGHT_BYTES: usize = 1 << 20;
const IN_FLIGHT_MAX: usize = 1024;
const READ_BYTES: usize = 1 << 20;
/// As in `myelin-load`: the last of the way to an intended time is spun. **Units:** nanoseconds.
const SPIN_NS: u64 = 20_000;
/// After the last intended time an open loop waits no longer. **Units:** nanoseconds.
const BEHIND_NS: u64 = 10 * SECOND_NS;

/// How a protocol stores ticks.
pub(crate) trait Dialect: Send {
    /// Ready for [`Self::ask`] when it returns.
    fn hello(&mut self, socket: &mut TcpStream) -> Result<()>;
    /// Appends requests that store these ticks. **Cost:** returns how many answers will come.
    fn ask(&mut self, ticks: &[Tick], out: &mut Vec<u8>) -> usize;
    /// Takes whole answers from the front: how many bytes, and how many answers. **Errors:** an answer that is none.
    fn hear(&mut self, bytes: &[u8]) -> Result<(usize, usize)>;
}

/// One connection.
pub(crate) struct Pipe<D> {
    socket: TcpStream,
    dialect: D,
    tape: Tape,
    inbox: Vec<u8>,
    unread: usize,
}

impl<D: Dialect> Pipe<D> {
    pub(crate) fn connect(address: SocketAddr, mut dialect: D, tape: Tape) -> Result<Self> {
        clock::settle();
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        dialect.hello(&mut socket)?;
        Ok(Self { socket, dialect, tape, inbox: vec![0; READ_BYTES], unread: 0 })
    }

    /// As many as are taken, so many in a batch; several batches are under way.
    pub(crate) fn throughput(&mut self, batch: usize, connections: usize, seconds: f64) -> Result<Span> {
        let window = (IN_FLIGHT_BYTES / (batch * size_of::<Tick>()) / connections).clamp(2, IN_FLIGHT_MAX);
        let (mut ticks, mut out) = (Vec::with_capacity(batch), Vec::new());
        let mut span = Span::starting_now(seconds);
        let (mut awaited, mut answers_each) = (0, 1);
        loop {
            out.clear();
            while now_ns() < span.until_ns && awaited + answers_each <= window * answers_each {
                ticks.clear();
                ticks.extend((0..batch).map(|_| self.tape.next_tick().1));
                answers_each = self.dialect.ask(&ticks, &mut out);
                awaited += answers_each;
            }
            self.socket.write_all(&out)?;
            if awaited == 0 {
                return Ok(span);
            }
            let answers = self.read()?;
            awaited -= answers;
            span.acked(now_ns(), (answers * batch / answers_each) as u64);
        }
    }

    /// One tick at a time.
    pub(crate) fn closed_loop(&mut self, count: u32, warmup: u32) -> Result<Histogram<u64>> {
        let mut taken = histogram()?;
        let mut out = Vec::new();
        for turn in 0..count + warmup {
            out.clear();
            let tick = self.tape.next_tick().1;
            let start_ns = now_ns();
            self.dialect.ask(&[tick], &mut out);
            self.socket.write_all(&out)?;
            while self.read()? == 0 {}
            if turn >= warmup {
                taken.record((now_ns() - start_ns).max(1))?;
            }
        }
        Ok(taken)
    }

    /// Single ticks, each with an intended time from which its latency counts, however late it left.
    pub(crate) fn open_loop(&mut self, rate: u64, seconds: f64) -> Result<Histogram<u64>> {
        let mut taken = histogram()?;
        let mut out = Vec::new();
        let span = Span::starting_now(seconds);
        let start_ns = now_ns() + SECOND_NS / 200;
        let intended_ns = |n: u64| start_ns + n * SECOND_NS / rate;
        let count = (rate as f64 * seconds) as u64;
        let (mut sent, mut answered) = (0, 0);
        self.socket.set_nonblocking(true)?;
        while answered < count {
            while sent < count && intended_ns(sent) <= now_ns() {
                let tick = self.tape.next_tick().1;
                self.dialect.ask(&[tick], &mut out);
                sent += 1;
            }
            if !out.is_empty() {
                match self.socket.write(&out) {
                    Ok(written) => drop(out.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let answers = self.read()?;
            let now_ns = now_ns();
            for n in answered..answered + answers as u64 {
                if intended_ns(n) >= span.from_ns {
                    taken.saturating_record((now_ns - intended_ns(n)).max(1));
                }
            }
            answered += answers as u64;
            if now_ns > intended_ns(count) + BEHIND_NS {
                // Whatever is still unanswered took at least this long.
                (answered..count).for_each(|n| taken.saturating_record(now_ns - intended_ns(n)));
                break;
            }
            if answers == 0 {
                self.wait(if sent < count { intended_ns(sent) } else { now_ns + SECOND_NS / 100 }, !out.is_empty())?;
            }
        }
        self.socket.set_nonblocking(false)?;
        Ok(taken)
    }

    fn read(&mut self) -> Result<usize> {
        match self.socket.read(&mut self.inbox[self.unread..]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(read) => self.unread += read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(0),
            Err(error) => return Err(error).context("reading"),
        }
        let (taken, answers) = self.dialect.hear(&self.inbox[..self.unread])?;
        self.inbox.copy_within(taken..self.unread, 0);
        self.unread -= taken;
        Ok(answers)
    }

    /// Sleeps until something arrives or shortly before `until_ns`.
    fn wait(&self, until_ns: u64, writable: bool) -> Result<()> {
        let ahead_ns = until_ns.saturating_sub(now_ns());
        if ahead_ns > SPIN_NS {
            let sleep_ns = ahead_ns - SPIN_NS;
            let timeout = Timespec { tv_sec: (sleep_ns / SECOND_NS) as i64, tv_nsec: (sleep_ns % SECOND_NS) as _ };
            let flags = if writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Everything that is measured of a server that speaks a [`Dialect`].
pub(crate) fn measure<D: Dialect>(
    address: SocketAddr,
    settings: &crate::Settings,
    dialect: impl Fn() -> D,
    empty: impl Fn() -> Result<()>,
) -> Result<crate::report::Figures> {
    let mut figures = crate::report::Figures::new();
    let connect = |n: usize| Pipe::connect(address, dialect(), crate::tape(n));
    let taken = connect(0)?.closed_loop(crate::ACKS, crate::ACKS_UNMEASURED)?;
    figures.latency("ack", &taken);
    let taken = connect(0)?.open_loop(crate::OPEN_RATE, settings.seconds)?;
    figures.latency("open", &taken);
    for (key, batch, connections) in crate::THROUGHPUTS {
        empty()?;
        let pipes = (0..connections).map(connect).collect::<Result<Vec<_>>>()?;
        let spans = crate::on_threads(pipes, |mut pipe| pipe.throughput(batch, connections, settings.seconds))?;
        figures.insert(key, Span::rate(&spans));
    }
    Ok(figures)
}
