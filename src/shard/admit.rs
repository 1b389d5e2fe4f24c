//! `admit`: a frame becomes a proposal, or is refused with the reason.
//!
//! Refused here is what no database value could make right: shape, order within the session, and load. Whatever depends
//! on the database value is decided in `apply`. Leader's state only: nothing here is replicated.
//!
//! ```text
//!   gate   per connection and session: the next request, or "stalled" after a retryable refusal until `Resume`
//!   delay  the smallest admit-to-commit time of the last 100 ms: above the limit it stands, and `Busy` follows
//! ```

use super::{ConnId, Refusal};
use bytemuck::Pod;
use hashbrown::{DefaultHashBuilder, HashMap};
use myelin_datom::{Quote, ROW_BYTES, Row, Tick};
use myelin_wire::{Code, Frame, Header, Kind, RetainRow, read_markets};
use std::ops::Range;

/// Sessions one connection may use with one shard. A router needs one per feed it carries.
const SESSIONS_PER_CONNECTION: usize = 64;

/// Markets one frame may create: each is looked at by every name pattern there is.
const MARKETS_PER_FRAME: u32 = 4096;

/// Order within a session, as one connection sees it.
#[derive(Debug, Default)]
pub struct Gates {
    by_session: HashMap<(ConnId, u64), Gate, DefaultHashBuilder>,
}

#[derive(Clone, Copy, Debug)]
struct Gate {
    next: u64,
    stalled: Option<Code>,
}

impl Gates {
    /// Whether this request may go on, as far as order goes. The first one a connection sends may have any number:
    /// `apply` knows what the session has done before.
    pub fn check(&self, from: ConnId, session: u64, request: u64) -> Result<(), Refusal> {
        match self.by_session.get(&(from, session)) {
            None if self.by_session.keys().filter(|(conn, _)| *conn == from).count() >= SESSIONS_PER_CONNECTION => {
                Err(Refusal::of(Code::TooMany))
            }
            None => Ok(()),
            // Not before `Resume`; a wait is only told with the refusal that stalled the gate.
            Some(Gate { stalled: Some(code), .. }) => Err(Refusal::of(*code)),
            Some(gate) if request > gate.next => Err(Refusal { aux: gate.next, ..Refusal::of(Code::SessionGap) }),
            Some(_) => Ok(()),
        }
    }

    /// The request was appended.
    pub fn passed(&mut self, from: ConnId, session: u64, request: u64) {
        let gate = self.by_session.entry((from, session)).or_insert(Gate { next: 0, stalled: None });
        gate.next = gate.next.max(request + 1);
    }

    /// The request was refused in a way a retry can mend: everything behind it gets the same answer until the client says
    /// where it goes on.
    pub fn stall(&mut self, from: ConnId, session: u64, request: u64, code: Code) {
        let gate = self.by_session.entry((from, session)).or_insert(Gate { next: request, stalled: None });
        gate.stalled = Some(code);
    }

    /// The client goes on with `next`.
    pub fn resume(&mut self, from: ConnId, session: u64, next: u64) {
        // A gate that was never closed needs no opening, and so no memory.
        if let Some(gate) = self.by_session.get_mut(&(from, session)) {
            *gate = Gate { next, stalled: None };
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, from: ConnId) {
        self.by_session.retain(|(conn, _), _| *conn != from);
    }
}

/// The shape of a writing frame, checked once.
///
/// A market of another shard's slots is refused here: the same name on two shards would be two markets of one id.
pub fn shape(frame: &Frame<'_>, slots: &Range<u16>) -> Result<(), Refusal> {
    match frame.kind {
        Kind::Ticks => rows::<Tick>(frame),
        Kind::Quotes => rows::<Quote>(frame),
        Kind::Markets => {
            if frame.header.count > MARKETS_PER_FRAME {
                return Err(Refusal { first_bad: MARKETS_PER_FRAME, ..Refusal::of(Code::BadBody) });
            }
            let mut count = 0;
            for spec in read_markets(frame.body) {
                let spec = spec.map_err(|_| Refusal { first_bad: count, ..Refusal::of(Code::BadBody) })?;
                if spec.flags.0 & !myelin_wire::MarketFlags::ALL != 0 {
                    return Err(Refusal { first_bad: count, ..Refusal::of(Code::Flags) });
                }
                let Ok(name) = myelin_datom::MarketName::new(spec.name) else {
                    return Err(Refusal { first_bad: count, ..Refusal::of(Code::BadName) });
                };
                if !slots.contains(&name.slot().number()) {
                    return Err(Refusal { first_bad: count, ..Refusal::of(Code::WrongShard) });
                }
                count += 1;
            }
            if count == frame.header.count { Ok(()) } else { Err(Refusal::of(Code::BadBody)) }
        }
        Kind::Register => registrations(frame.body),
        Kind::Transact => transaction(frame.body, slots),
        Kind::Retain => policies(frame),
        Kind::Remove if !frame.body.len().is_multiple_of(8) => Err(Refusal::of(Code::BadBody)),
        _ => Ok(()),
    }
}

/// Every op can be read, and the partition is placed here.
fn transaction(body: &[u8], slots: &Range<u16>) -> Result<(), Refusal> {
    let read = myelin_datom::Transaction::read(body);
    let transaction = read.map_err(|error| Refusal { first_bad: error.op, ..Refusal::of(Code::BadFact) })?;
    if slots.contains(&myelin_datom::Slot::of_name(&transaction.partition).number()) {
        Ok(())
    } else {
        Err(Refusal::of(Code::WrongShard))
    }
}

/// Every registration can be read; whether there is room for it is decided in `apply`.
fn registrations(mut body: &[u8]) -> Result<(), Refusal> {
    let mut count = 0;
    while !body.is_empty() {
        if super::apply::registration(&mut body).is_none() {
            return Err(Refusal { first_bad: count, ..Refusal::of(Code::BadReflex) });
        }
        count += 1;
    }
    Ok(())
}

/// Every policy says something sound; whether its market exists is decided in `apply`.
fn policies(frame: &Frame<'_>) -> Result<(), Refusal> {
    let rows = frame.body.chunks_exact(size_of::<RetainRow>()).map(bytemuck::pod_read_unaligned::<RetainRow>);
    if frame.header.count == 0 || frame.body.len() != frame.header.count as usize * size_of::<RetainRow>() {
        return Err(Refusal::of(Code::BadBody));
    }
    match rows.enumerate().find(|(_, row)| row.policy().is_none()) {
        Some((n, _)) => Err(Refusal { first_bad: n as u32, ..Refusal::of(Code::BadPolicy) }),
        None => Ok(()),
    }
}

fn rows<R: Row + Pod>(frame: &Frame<'_>) -> Result<(), Refusal> {
    if frame.body.len() != frame.header.count as usize * ROW_BYTES || frame.body.is_empty() {
        return Err(Refusal::of(Code::BadBody));
    }
    let Ok(rows) = bytemuck::try_cast_slice::<u8, R>(frame.body) else {
        return Err(Refusal::of(Code::BadBody));
    };
    if frame.header.flags & Header::PARTIAL != 0 {
        // A flawed row costs itself: `apply` refuses it, and whoever repeats the request hears the same.
        return Ok(());
    }
    match rows.iter().enumerate().find_map(|(n, row)| row.flaw().map(|flaw| (n, flaw))) {
        Some((n, flaw)) => Err(Refusal { first_bad: n as u32, ..Refusal::of(flaw.into()) }),
        None => Ok(()),
    }
}

/// The standing delay: what a queue costs that does not drain.
#[derive(Clone, Copy, Debug)]
pub struct Delay {
    halves: [Half; 2],
}

#[derive(Clone, Copy, Debug)]
struct Half {
    number: u64,
    smallest_us: u64,
}

/// Half of the window. **Units:** microseconds.
const HALF_US: u64 = 50_000;

/// From here on a sync that does not return is a stuck disk. Shared disks show single syncs of 50 to 130 ms every ten
/// seconds or so; credits bound what gathers behind one. **Units:** microseconds.
const STUCK_US: u64 = 400_000;

impl Default for Delay {
    fn default() -> Self {
        Self { halves: [Half { number: 0, smallest_us: 0 }; 2] }
    }
}

impl Delay {
    /// An entry was committed at `now_us`, `waited_us` after it was admitted.
    pub fn note(&mut self, now_us: u64, waited_us: u64) {
        let number = now_us / HALF_US;
        if self.halves[1].number == number {
            self.halves[1].smallest_us = self.halves[1].smallest_us.min(waited_us);
        } else {
            self.halves = [self.halves[1], Half { number, smallest_us: waited_us }];
        }
    }

    /// The smallest admit-to-commit time of the last 100 ms; with nothing committed in that time, the age of the oldest
    /// that waits once that is no single slow sync any more. **Units:** microseconds.
    #[must_use]
    pub fn standing_us(&self, now_us: u64, oldest_waiting_us: Option<u64>) -> u64 {
        let number = now_us / HALF_US;
        let recent = self.halves.iter().filter(|half| half.number + 1 >= number).map(|half| half.smallest_us).min();
        match (recent, oldest_waiting_us) {
            (_, None) => 0,
            (Some(smallest), Some(_)) => smallest,
            (None, Some(age)) if age >= STUCK_US => age,
            (None, Some(_)) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { station: 0, generation: 0, index: 1 };

    #[test]
    fn after_busy_everything_later_waits_for_resume() {
        let mut gates = Gates::default();
        assert!(gates.check(CONN, 7, 12).is_ok(), "a connection may begin anywhere");
        gates.passed(CONN, 7, 12);
        assert_eq!(gates.check(CONN, 7, 14).unwrap_err().code, Code::SessionGap);
        for code in [Code::Busy, Code::NoSpace] {
            gates.stall(CONN, 7, 13, code);
            assert_eq!(gates.check(CONN, 7, 13).unwrap_err().code, code);
            assert_eq!(gates.check(CONN, 7, 14).unwrap_err().code, code);
            gates.resume(CONN, 7, 13);
            assert!(gates.check(CONN, 7, 13).is_ok());
        }
        assert_eq!(gates.check(CONN, 7, 14).unwrap_err().code, Code::SessionGap);
        gates.forget(CONN);
        assert!(gates.check(CONN, 7, 99).is_ok());
    }

    #[test]
    fn one_slow_sync_does_not_flap_busy_and_a_standing_queue_shows() {
        let mut delay = Delay::default();
        delay.note(1_000_000, 200);
        delay.note(1_010_000, 60_000);
        assert_eq!(delay.standing_us(1_020_000, Some(1)), 200);
        delay.note(1_060_000, 50_000);
        delay.note(1_110_000, 40_000);
        assert_eq!(delay.standing_us(1_120_000, Some(1)), 40_000);
        assert_eq!(delay.standing_us(1_120_000, None), 0, "nothing waits, nothing stands");
        assert_eq!(delay.standing_us(9_000_000, Some(130_000)), 0, "one slow sync does not stand");
        assert_eq!(delay.standing_us(9_000_000, Some(500_000)), 500_000, "a stuck disk shows by age");
    }
}
