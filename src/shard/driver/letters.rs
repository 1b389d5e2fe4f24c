//! Letters between the shards of a node, and the moments that are closed for them.
//!
//! ```text
//!   shard --letter--> here? the other shard, at once        a moment is waited for --> Close, or a timer, 2 ms apart
//!                     \--> a parcel to its core
//! ```
//! A letter that finds a full ring waits in order with the other parcels, and connections are not read meanwhile. Their number
//! is bounded by who asks: one question of each merge and shard is under way, at most two. A core that has failed answers none;
//! who waits for it goes on after a start.

use super::{Core, Parcel};
use crate::shard::crossing::Letter;
use crate::shard::{Now, Shard};
use std::task::Waker;
use std::time::Duration;

/// When the next moment is to be closed, and who sleeps until then.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// **Units:** microseconds, as [`Now::mono_us`].
    due_us: Option<u64>,
    bell: Option<Waker>,
}

impl Core {
    /// Letters that the shards have written go where they are for. True when a shard of this core got one.
    pub(super) fn exchange_letters(&mut self, now: Now) -> bool {
        let mut here = false;
        for at in 0..self.shards.len() {
            while let Some(letter) = self.shards[at].poll_letter() {
                match self.welcome.shard_cores.get(usize::from(letter.to)).copied() {
                    Some(core) if core == self.station => {
                        here = true;
                        self.hand_over(now, letter);
                    }
                    Some(core) => self.post(usize::from(core), Parcel::Letter(letter)),
                    None => {}
                }
            }
        }
        here
    }

    /// A letter for a shard of this core.
    pub(super) fn hand_over(&mut self, now: Now, letter: Letter) {
        if self.failed {
            return;
        }
        if let Some(shard) = self.shards.iter_mut().find(|shard| shard.number() == letter.to) {
            shard.letter(now, letter);
        }
    }

    /// Closes the moments that are due.
    pub(super) fn close_moments(&mut self) {
        self.letters.due_us = None;
        // A look at the clock in every turn is not for free.
        if self.failed || !self.shards.iter().any(Shard::is_waited_for) {
            return;
        }
        let now = Self::now();
        let log = &mut self.log;
        let due = self.shards.iter_mut().filter_map(|shard| shard.close_if_due(now, log)).min();
        self.letters.due_us = due;
        if due.is_some()
            && let Some(bell) = self.letters.bell.take()
        {
            bell.wake();
        }
    }

    /// How long until a moment is to be closed; leaves a waker when there is none.
    pub fn until_close(&mut self, waker: &Waker) -> Option<Duration> {
        match self.letters.due_us {
            Some(due) => Some(Duration::from_micros(due.saturating_sub(Self::now().mono_us))),
            None => {
                self.letters.bell = Some(waker.clone());
                None
            }
        }
    }

    /// The time has come.
    pub fn close_in_time(&mut self) {
        self.turn();
    }
}
