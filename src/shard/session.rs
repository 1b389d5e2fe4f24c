//! Sessions: what makes a retry harmless. Replicated state: changed only by `apply`.
//!
//! ```text
//!   session -> next request expected, the last 1,024 outcomes (32 bytes each), the tx it last spoke at
//!   evicted -> the ids of the last 65,536 that made room
//! ```
//!
//! A request below `next` was executed once and is answered from its outcome; one above is a gap and refused; an unknown
//! session may only begin at 1. When the table is full the session that was silent longest makes room: a function of
//! applied entries alone, so every replica evicts the same one. An evicted one is known by its id and never begins again:
//! what looks like its first request may be a repeat. Deliberately absent: ids evicted before those; a request that is
//! repeated after so many other sessions came and went may be executed again.

use bytemuck::{Pod, Zeroable};
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use myelin_datom::Tx;
use std::collections::{BTreeSet, VecDeque};

/// Outcomes a session keeps.
pub const OUTCOMES: usize = 1024;
/// Evicted sessions that are remembered: at a hundred new sessions a second those of ten minutes.
const EVICTED: usize = 1 << 16;

/// How a request ended. **Shape:** 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Outcome {
    /// Its transaction.
    pub tx: u64,
    /// Rows stored, or items done.
    pub accepted: u32,
    /// Rows that were there already.
    pub duplicates: u32,
    /// Rows refused.
    pub refused: u32,
    /// The first refused row, else `u32::MAX`.
    pub first_bad: u32,
    /// The code of the whole request, 0 = done.
    pub code: u16,
    /// The code of the first bad row, else 0.
    pub first_code: u16,
    /// Zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Outcome>() == 32);

/// What a request is to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The one expected: execute it.
    Next,
    /// Executed before; this came of it.
    Repeat(Outcome),
    /// Executed before, so long ago that what came of it is forgotten.
    Forgotten,
    /// One or more before it are missing.
    Gap {
        /// The request that is expected.
        expected: u64,
    },
    /// The session is not known (any more), and this is not its first request.
    Expired,
}

#[derive(Clone, Debug)]
struct Session {
    next: u64,
    last_tx: Tx,
    outcomes: VecDeque<Outcome>,
}

/// The sessions of a shard.
#[derive(Debug)]
pub struct Sessions {
    by_id: HashMap<u64, Session, DefaultHashBuilder>,
    /// Who was silent longest: ordered by the tx a session last spoke at.
    by_age: BTreeSet<(Tx, u64)>,
    evicted: Evicted,
    max: usize,
}

/// Who made room, in the order in which it happened.
#[derive(Debug, Default)]
struct Evicted {
    ids: HashSet<u64, DefaultHashBuilder>,
    order: VecDeque<u64>,
}

impl Evicted {
    /// Remembers one more; the oldest is forgotten where there are too many. False when it is known.
    fn note(&mut self, id: u64) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > EVICTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Sessions {
    /// An empty table of at most `max` sessions.
    #[must_use]
    pub fn new(max: usize) -> Self {
        assert!(max > 0, "a shard needs room for a session");
        Self { by_id: HashMap::default(), by_age: BTreeSet::new(), evicted: Evicted::default(), max }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// What this request is to its session.
    #[must_use]
    pub fn turn(&self, id: u64, request: u64) -> Turn {
        let Some(session) = self.by_id.get(&id) else {
            return if request == 1 && !self.evicted.ids.contains(&id) { Turn::Next } else { Turn::Expired };
        };
        if request >= session.next {
            return if request == session.next { Turn::Next } else { Turn::Gap { expected: session.next } };
        }
        let back = (session.next - request) as usize;
        match session.outcomes.len().checked_sub(back).and_then(|at| session.outcomes.get(at)) {
            Some(outcome) => Turn::Repeat(*outcome),
            None => Turn::Forgotten,
        }
    }

    /// Notes how the expected request ended. **Panics** when it was not expected.
    pub fn settle(&mut self, id: u64, request: u64, outcome: Outcome) {
        assert!(self.turn(id, request) == Turn::Next, "only the expected request is executed");
        let tx = Tx::from_bits(outcome.tx);
        if !self.by_id.contains_key(&id) && self.by_id.len() == self.max {
            self.evict();
        }
        let session =
            self.by_id.entry(id).or_insert_with(|| Session { next: 1, last_tx: Tx::ZERO, outcomes: VecDeque::new() });
        self.by_age.remove(&(session.last_tx, id));
        self.by_age.insert((tx, id));
        session.last_tx = tx;
        session.next = request + 1;
        if session.outcomes.len() == OUTCOMES {
            session.outcomes.pop_front();
        }
        session.outcomes.push_back(outcome);
    }

    fn evict(&mut self) {
        if let Some((_, id)) = self.by_age.pop_first() {
            self.by_id.remove(&id);
            self.evicted.note(id);
        }
    }

    /// Writes the table into a checkpoint, in the order of age, and then the evicted.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.by_age.len() as u64).to_le_bytes());
        for (tx, id) in &self.by_age {
            let session = &self.by_id[id];
            for number in [*id, tx.bits(), session.next, session.outcomes.len() as u64] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for outcome in &session.outcomes {
                out.extend_from_slice(bytemuck::bytes_of(outcome));
            }
        }
        out.extend_from_slice(&(self.evicted.order.len() as u64).to_le_bytes());
        self.evicted.order.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    }

    /// Reads what [`Sessions::write`] wrote. **Errors:** also for what no table could have written: more sessions than `max`,
    /// one of them twice, not in the order of age, or with outcomes that it cannot have; an evicted one that is there.
    pub fn read(max: usize, cursor: &mut myelin_wire::Cursor<'_>) -> Result<Self, myelin_wire::Short> {
        let mut sessions = Self::new(max);
        for _ in 0..cursor.u64()? {
            let (id, tx, next, count) = (cursor.u64()?, Tx::from_bits(cursor.u64()?), cursor.u64()?, cursor.u64()?);
            let youngest = sessions.by_age.last().is_none_or(|last| *last < (tx, id));
            let known = sessions.by_id.contains_key(&id);
            if sessions.by_id.len() == max || !youngest || known || count > OUTCOMES as u64 || count >= next {
                return Err(cursor.senseless());
            }
            let mut outcomes = VecDeque::new();
            for _ in 0..count {
                outcomes.push_back(bytemuck::pod_read_unaligned(cursor.take(size_of::<Outcome>())?));
            }
            sessions.by_age.insert((tx, id));
            sessions.by_id.insert(id, Session { next, last_tx: tx, outcomes });
        }
        for _ in 0..cursor.u64()? {
            let id = cursor.u64()?;
            if sessions.evicted.order.len() == EVICTED || sessions.by_id.contains_key(&id) || !sessions.evicted.note(id)
            {
                return Err(cursor.senseless());
            }
        }
        Ok(sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tx: u64) -> Outcome {
        Outcome { tx, ..Zeroable::zeroed() }
    }

    #[test]
    fn a_repeat_is_answered_a_gap_and_a_stranger_are_refused() {
        let mut sessions = Sessions::new(2);
        assert_eq!(sessions.turn(5, 2), Turn::Expired);
        assert_eq!(sessions.turn(5, 1), Turn::Next);
        sessions.settle(5, 1, outcome(10));
        assert_eq!(sessions.turn(5, 1), Turn::Repeat(outcome(10)));
        assert_eq!(sessions.turn(5, 3), Turn::Gap { expected: 2 });
        assert_eq!(sessions.turn(5, 2), Turn::Next);
    }

    #[test]
    fn the_last_1024_outcomes_are_kept_and_older_ones_are_never_executed_again() {
        let mut sessions = Sessions::new(1);
        for request in 1..=OUTCOMES as u64 + 10 {
            sessions.settle(5, request, outcome(request));
        }
        assert_eq!(sessions.turn(5, 10), Turn::Forgotten);
        assert_eq!(sessions.turn(5, 11), Turn::Repeat(outcome(11)));
    }

    #[test]
    fn the_session_that_was_silent_longest_makes_room_and_the_table_survives_a_checkpoint() {
        let mut sessions = Sessions::new(2);
        sessions.settle(1, 1, outcome(10));
        sessions.settle(2, 1, outcome(11));
        sessions.settle(1, 2, outcome(12));
        sessions.settle(3, 1, outcome(13));
        let mut bytes = Vec::new();
        sessions.write(&mut bytes);
        let read = Sessions::read(2, &mut myelin_wire::Cursor::new(&bytes)).unwrap();
        for table in [&sessions, &read] {
            assert_eq!(table.turn(2, 2), Turn::Expired);
            assert_eq!(table.turn(1, 2), Turn::Repeat(outcome(12)));
            assert_eq!(table.turn(3, 2), Turn::Next);
        }
    }

    /// A client whose first and only request was executed, and whose answer was lost, asks again after its session made room.
    #[test]
    fn the_first_request_of_an_evicted_session_is_not_executed_again() {
        let mut sessions = Sessions::new(2);
        for id in 1..=3 {
            sessions.settle(id, 1, outcome(id));
        }
        let mut bytes = Vec::new();
        sessions.write(&mut bytes);
        let read = Sessions::read(2, &mut myelin_wire::Cursor::new(&bytes)).unwrap();
        for table in [&sessions, &read] {
            assert_eq!(table.turn(1, 1), Turn::Expired, "it was executed once");
            assert_eq!(table.turn(4, 1), Turn::Next, "a new one begins");
        }
        for id in 4..EVICTED as u64 + 10 {
            sessions.settle(id, 1, outcome(id));
        }
        assert_eq!(sessions.evicted.order.len(), EVICTED, "what is remembered is bounded");
        assert_eq!(sessions.evicted.ids.len(), EVICTED);
        assert_eq!(sessions.turn(EVICTED as u64, 1), Turn::Expired);
    }

    /// Found by a campaign over mutated checkpoints: a table with a session twice stopped the shard when it was next written,
    /// and one above its bound grew for ever.
    #[test]
    fn a_table_that_nobody_could_have_written_is_refused() {
        let entry = |id: u64, tx: u64, next: u64, outcomes: u64| {
            let mut bytes = [id, tx, next, outcomes].map(u64::to_le_bytes).concat();
            bytes.resize(32 + outcomes as usize * size_of::<Outcome>(), 0);
            bytes
        };
        let read = |entries: &[Vec<u8>], evicted: &[u64]| {
            let count = |number: usize| (number as u64).to_le_bytes().to_vec();
            let ids = evicted.iter().flat_map(|id: &u64| id.to_le_bytes()).collect();
            let bytes = [count(entries.len()), entries.concat(), count(evicted.len()), ids].concat();
            Sessions::read(2, &mut myelin_wire::Cursor::new(&bytes)).map(|sessions| sessions.count()).ok()
        };
        for (story, entries, expected) in [
            ("sound", vec![entry(1, 10, 2, 1), entry(2, 11, 2, 1)], Some(2)),
            ("a session twice", vec![entry(1, 10, 2, 1), entry(1, 11, 2, 1)], None),
            ("not by age", vec![entry(1, 11, 2, 1), entry(2, 10, 2, 1)], None),
            ("above the bound", vec![entry(1, 10, 2, 1), entry(2, 11, 2, 1), entry(3, 12, 2, 1)], None),
            ("an outcome of nothing", vec![entry(1, 10, 1, 1)], None),
            ("too many outcomes", vec![entry(1, 10, 5000, OUTCOMES as u64 + 1)], None),
        ] {
            assert_eq!(read(&entries, &[7, 8]), expected, "{story}");
            assert_eq!(read(&entries, &[7, 7]), None, "{story}, and evicted twice");
            assert_eq!(read(&entries, &[1]), None, "{story}, and evicted though it is there");
        }
    }
}
