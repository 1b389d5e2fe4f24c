//! `replicate`: an appended record becomes a committed one. One group, its watermarks, and the majority's arithmetic.
//!
//! ```text
//!   acked <= applied <= committed <= appended        synced <= appended
//! ```
//!
//! A single node is a group of one voter: the path is the replicated one, the majority is one. The messages between voters
//! come with the replication; what must be stable before what is sent is decided here: a voter counts from the moment its
//! sync has returned, its own disk being one vote like any other.

use myelin_datom::Tx;

/// An entry's place in its group's log, from 1 without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogIndex(pub u64);

/// Where a group's log begins again after a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Position {
    /// The last entry in the log.
    pub index: LogIndex,
    /// The last `tx` in the log.
    pub tx: Tx,
}

/// Voters of a group at most.
const VOTERS_MAX: usize = 7;

/// One group as its leader sees it.
#[derive(Clone, Debug)]
pub struct Group {
    number: u16,
    term: u64,
    /// The first entry of our term: nothing older is committed by counting.
    term_first: LogIndex,
    appended: LogIndex,
    appended_tx: Tx,
    /// Somebody was told this moment as "now": what is stamped from here on is later. Leader's state, not in the log; a
    /// later leader's clock is beyond it.
    told: Tx,
    /// Per voter, our own disk first.
    synced: Vec<LogIndex>,
    committed: LogIndex,
    applied: LogIndex,
    applied_tx: Tx,
}

impl Group {
    /// Takes the lead of a group of one voter in a new term, behind everything its log holds.
    #[must_use]
    pub fn lead(number: u16, term: u64, log: Position) -> Self {
        Self {
            number,
            term,
            term_first: LogIndex(log.index.0 + 1),
            appended: log.index,
            appended_tx: log.tx,
            told: Tx::ZERO,
            synced: vec![log.index],
            committed: log.index,
            applied: log.index,
            applied_tx: log.tx,
        }
    }

    /// The group's number; group 0 is the system group.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The term we lead in.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The last entry that was given to the log.
    #[must_use]
    pub const fn appended(&self) -> LogIndex {
        self.appended
    }

    /// The last `tx` that was stamped.
    #[must_use]
    pub const fn appended_tx(&self) -> Tx {
        self.appended_tx
    }

    /// The last entry that was applied.
    #[must_use]
    pub const fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The last `tx` that was applied: what a read sees that names no moment.
    #[must_use]
    pub const fn applied_tx(&self) -> Tx {
        self.applied_tx
    }

    /// Gives out the next index and a stamp for an entry.
    pub fn append(&mut self, clock_millis: u64) -> (LogIndex, Tx) {
        self.append_at(Tx::stamp(clock_millis, self.appended_tx.max(self.told)))
    }

    /// Gives out the next index for an entry that is to carry this `tx`.
    pub fn append_at(&mut self, tx: Tx) -> (LogIndex, Tx) {
        assert!(tx > self.appended_tx, "a tx only grows");
        self.appended = LogIndex(self.appended.0 + 1);
        self.appended_tx = tx;
        (self.appended, tx)
    }

    /// A moment that what is stamped from now on is later than: not before the clock, nor before `least`.
    pub fn tell_now(&mut self, clock_millis: u64, least: Tx) -> Tx {
        self.told = self.told.max(self.appended_tx).max(least).max(Tx::at_millis(clock_millis));
        self.told
    }

    /// True while the next proposal may take the stamp that follows the last one.
    #[must_use]
    pub fn may_gather(&self) -> bool {
        self.told <= self.appended_tx
    }

    /// Stamps a further proposal of the entry that is still open.
    pub fn gather(&mut self) -> Tx {
        assert!(self.may_gather(), "a moment that was told lies behind us");
        self.appended_tx = self.appended_tx.next();
        self.appended_tx
    }

    /// Our own disk has everything up to here.
    pub fn synced(&mut self, upto: LogIndex) {
        assert!(upto <= self.appended, "what is synced was appended");
        if let Some(own) = self.synced.first_mut() {
            assert!(*own <= upto, "a disk does not unlearn");
            *own = upto;
        }
        self.advance_commit();
    }

    fn advance_commit(&mut self) {
        // On the stack: this runs for every record.
        let mut places = [LogIndex(0); VOTERS_MAX];
        let ascending = &mut places[..self.synced.len()];
        ascending.copy_from_slice(&self.synced);
        ascending.sort_unstable();
        // A majority of voters sits at this slot or above it.
        let on_majority = ascending[(ascending.len() - 1) / 2];
        if on_majority >= self.term_first && on_majority > self.committed {
            self.committed = on_majority;
        }
        assert!(self.committed <= self.appended);
    }

    /// An entry of our own log comes back at a start. A single voter's disk is its majority.
    pub fn replayed(&mut self, index: LogIndex, tx: Tx) {
        assert!(self.synced.len() == 1, "with more voters the log alone does not say what is committed");
        self.appended = index;
        self.appended_tx = tx;
        self.synced[0] = index;
        self.committed = index;
        self.term_first = LogIndex(index.0 + 1);
    }

    /// Notes that the next committed entry was applied; `last_tx` is the last one in it.
    pub fn applied_next(&mut self, index: LogIndex, last_tx: Tx) {
        assert!(index.0 == self.applied.0 + 1, "entries are applied in order, each once");
        assert!(index <= self.committed, "only what is committed is applied");
        assert!(last_tx >= self.applied_tx, "a tx only grows");
        self.applied = index;
        self.applied_tx = last_tx;
        self.appended_tx = self.appended_tx.max(last_tx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(index: u64, tx: u64) -> Position {
        Position { index: LogIndex(index), tx: Tx::from_bits(tx) }
    }

    #[test]
    fn a_new_leader_stamps_above_everything_in_its_log_even_when_its_clock_is_behind() {
        let mut group = Group::lead(1, 2, position(7, Tx::at_millis(5000).bits()));
        let (index, tx) = group.append(10);
        assert_eq!((index, tx), (LogIndex(8), Tx::at_millis(5000).next()));
        assert_eq!(group.gather(), tx.next());
        assert_eq!(group.append(6000).1, Tx::at_millis(6000));
    }

    #[test]
    fn nothing_is_committed_before_its_own_sync_returns() {
        let mut group = Group::lead(1, 1, position(0, 0));
        let (first, _) = group.append(1);
        let (second, tx) = group.append(1);
        assert_eq!(group.committed, LogIndex(0));
        group.synced(first);
        assert_eq!(group.committed, first);
        group.applied_next(first, tx);
        group.synced(second);
        assert_eq!((group.committed, group.applied), (second, first));
    }

    #[test]
    fn what_is_stamped_after_a_moment_was_told_is_later() {
        let mut group = Group::lead(1, 1, position(0, 0));
        let (_, first) = group.append(1000);
        assert!(group.may_gather());
        let told = group.tell_now(1000, Tx::ZERO);
        assert!(told >= first);
        let further = group.tell_now(1000, Tx::at_millis(1003));
        assert_eq!(further, Tx::at_millis(1003));
        assert!(!group.may_gather());
        assert!(group.append(1000).1 > further);
        assert!(group.may_gather());
    }

    #[test]
    #[should_panic(expected = "only what is committed is applied")]
    fn an_entry_that_is_not_committed_is_never_applied() {
        let mut group = Group::lead(1, 1, position(0, 0));
        let (first, tx) = group.append(1);
        group.applied_next(first, tx);
    }

    #[test]
    fn two_of_three_voters_commit_without_the_leaders_own_disk() {
        let mut group = Group::lead(1, 1, position(0, 0));
        group.synced = vec![LogIndex(0); 3];
        group.append(1);
        group.synced[1] = LogIndex(1);
        group.advance_commit();
        assert_eq!(group.committed, LogIndex(0));
        group.synced[2] = LogIndex(1);
        group.advance_commit();
        assert_eq!(group.committed, LogIndex(1));
    }
}
