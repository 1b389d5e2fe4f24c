//! Firings: taken down as they arrive, one thread per shard, and compared with what must have fired when all is over.

use crate::client::Client;
use crate::clock::{self, SECOND_NS};
use crate::line::Line;
use crate::replay::Expected;
use anyhow::{Context, Result, bail};
use hashbrown::{HashMap, HashSet};
use hdrhistogram::Histogram;
use myelin_wire::{Code, FIRING_BYTES, FiringRow, Header, Kind, write_frame};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Pushes a subscription may have before it must be topped up.
const CREDIT: u32 = 1 << 20;
/// Firings taken down at most: 3 GiB of them.
const TAKEN_MAX: usize = 1 << 26;
/// **Units:** bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// A firing as it arrived. **Units:** nanoseconds of our clock.
#[derive(Clone, Copy, Debug)]
struct Taken {
    reflex: u64,
    market: u64,
    id: u64,
    tx: u64,
    n: u32,
    at_ns: u64,
}

/// What has arrived, for whoever waits for it.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Taken>,
    over: bool,
    ended: Option<String>,
}

impl Arrivals {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so many arrived, or nothing has for the grace.
    pub(crate) fn wait_for(&self, count: usize, grace_ns: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.taken.len() < count && state.ended.is_none() {
            let had = state.taken.len();
            let waited = self.news.wait_timeout(state, Duration::from_nanos(grace_ns));
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.taken.len() == had {
                return;
            }
        }
    }

    /// Tells the threads to end.
    pub(crate) fn close(&self) {
        self.with(|state| state.over = true);
    }
}

/// A subscription to one shard.
#[derive(Debug)]
pub(crate) struct Subscription {
    socket: Line,
    inbox: Vec<u8>,
    unread: usize,
    shard: u16,
    session: u64,
    used: u32,
    /// Reflexes of this run; others are not ours.
    ours: Range<u64>,
}

impl Subscription {
    /// Subscribes, on a connection of its own.
    pub(crate) fn new(node: &Client, shard: u16, ours: Range<u64>) -> Result<Self> {
        let mut client = node.connect_to_shard(shard)?;
        let session = client.subscribe(shard, CREDIT)?;
        let (socket, mut inbox) = client.into_parts();
        socket.socket().set_read_timeout(Some(Duration::from_nanos(SECOND_NS / 10)))?;
        let unread = inbox.len();
        inbox.resize(READ_BYTES.max(unread), 0);
        Ok(Self { socket, inbox, unread, shard, session, used: 0, ours })
    }

    /// Takes down what arrives until [`Arrivals::close`].
    pub(crate) fn run(mut self, arrivals: &Arrivals) {
        if let Err(error) = self.turns(arrivals) {
            arrivals.with(|state| state.ended = Some(format!("{error:#}")));
            arrivals.news.notify_all();
        }
    }

    fn turns(&mut self, arrivals: &Arrivals) -> Result<()> {
        while !arrivals.with(|state| state.over) {
            let read = match self.socket.read(&mut self.inbox[self.unread..]) {
                Ok(0) => bail!("the node closed the subscription"),
                Ok(read) => read,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(error).context("reading firings"),
            };
            let now_ns = clock::now_ns();
            let end = self.unread + read;
            let mut at = 0;
            while let Some((frame, taken)) = myelin_wire::decode(&self.inbox[at..end], READ_BYTES as u32 - 64)? {
                match frame.kind {
                    Kind::Firings => self.used += take_down(&frame, &self.ours, now_ns, arrivals)?,
                    Kind::Ended => {
                        let why = Code::from_number(frame.header.code).map_or("unknown", Code::name);
                        bail!("the node ended the subscription: {why}");
                    }
                    kind => bail!("{kind:?} on a subscription, code {}", frame.header.code),
                }
                at += taken;
            }
            self.inbox.copy_within(at..end, 0);
            self.unread = end - at;
            if self.used > CREDIT / 4 {
                self.top_up()?;
            }
        }
        Ok(())
    }

    fn top_up(&mut self) -> Result<()> {
        let (session, shard) = (self.session, self.shard);
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Header { session, shard, count: self.used, ..Header::new(Kind::Credit) }, &[]);
        self.used = 0;
        self.socket.write_all(&bytes).and_then(|()| self.socket.flush()).context("topping up a subscription")
    }
}

fn take_down(frame: &myelin_wire::Frame<'_>, ours: &Range<u64>, at_ns: u64, arrivals: &Arrivals) -> Result<u32> {
    let (rows, rest) = frame.body.as_chunks::<FIRING_BYTES>();
    if !rest.is_empty() || rows.len() != frame.header.count as usize {
        bail!("a page of firings of {} bytes", frame.body.len());
    }
    let full = arrivals.with(|state| {
        for row in rows {
            let row: FiringRow = bytemuck::pod_read_unaligned(row);
            let FiringRow { reflex, tx, n, tick, .. } = row;
            if ours.contains(&reflex) {
                state.taken.push(Taken { reflex, market: tick.market.bits(), id: tick.id, tx, n, at_ns });
            }
        }
        state.taken.len() > TAKEN_MAX
    });
    if full {
        bail!("more than {TAKEN_MAX} firings");
    }
    arrivals.news.notify_all();
    Ok(frame.header.count)
}

/// Expected and received, compared.
#[derive(Debug)]
pub(crate) struct Compared {
    /// Certain ones, from the tape.
    pub expected: u64,
    /// Those that came, each counted once.
    pub received: u64,
    /// Certain, and not received.
    pub missing: u64,
    /// Came although nothing of the kind could have fired.
    pub unexpected: u64,
    /// Came again, with the same id.
    pub repeated: u64,
    /// **Units:** nanoseconds, of measured ones.
    pub reflex_ns: Histogram<u64>,
    /// Why a subscription ended early, if one did.
    pub ended: Option<String>,
}

/// Each expected firing must have come once; nothing else may have.
pub(crate) fn compare(expected: &[Expected], arrivals: &Arrivals, measured_from_ns: u64) -> Result<Compared> {
    let certain = expected.iter().filter(|one| one.certain).count() as u64;
    let mut compared = Compared {
        expected: certain,
        received: 0,
        missing: certain,
        unexpected: 0,
        repeated: 0,
        reflex_ns: crate::drive::histogram()?,
        ended: None,
    };
    let mut open: HashMap<(u64, u64, u64), &Expected> =
        expected.iter().map(|one| ((one.reflex, one.market, one.id), one)).collect();
    let mut seen = HashSet::new();
    let (taken, ended) = arrivals.with(|state| (std::mem::take(&mut state.taken), state.ended.take()));
    for one in taken {
        if !seen.insert((one.tx, one.n, one.reflex)) {
            compared.repeated += 1;
            continue;
        }
        let Some(expected) = open.remove(&(one.reflex, one.market, one.id)) else {
            compared.unexpected += 1;
            continue;
        };
        compared.received += 1;
        compared.missing -= u64::from(expected.certain);
        if expected.basis_ns >= measured_from_ns {
            compared.reflex_ns.record(one.at_ns.saturating_sub(expected.basis_ns).max(1))?;
        }
    }
    compared.ended = ended;
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_repeated_and_unexpected_firings_are_told_apart() {
        let expected = |id, certain| Expected { reflex: 1, market: 2, id, basis_ns: 100, certain };
        let taken = |id, n| Taken { reflex: 1, market: 2, id, tx: 5, n, at_ns: 350 };
        let arrivals = Arrivals::default();
        arrivals.with(|state| state.taken = vec![taken(10, 0), taken(10, 0), taken(12, 2), taken(13, 3)]);
        let all = [expected(10, true), expected(11, true), expected(12, false), expected(14, false)];
        let compared = compare(&all, &arrivals, 0).unwrap();
        assert_eq!((compared.expected, compared.received, compared.missing), (2, 2, 1));
        assert_eq!((compared.unexpected, compared.repeated), (1, 1));
        assert_eq!(compared.reflex_ns.value_at_quantile(0.5), 250);
    }
}
