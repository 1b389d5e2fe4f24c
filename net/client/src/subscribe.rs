//! Firings as a stream over all shards, in order per shard, going on behind the last one seen when a line is cut.
//!
//! ```text
//!   subscribe -> one listener per shard -> firings -> next() -> taken -> credit for as many more
//! ```
//!
//! Invariant: at most the window of firings per shard waits here. Deliberately absent: order across shards.

use crate::client::{Client, random};
use crate::driver::Command;
use crate::error::{Error, Lost, Refusal};
use crate::link::{Push, Subscribe};
use crate::subscriptions::{FiringPlace, Pushed};
use myelin_datom::Tx;
use myelin_wire::FiringRow;
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc;

/// One firing and where it came from. `(slot, tx, n, reflex)` is its id; a repeat has the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Firing {
    /// The shard.
    pub shard: u16,
    /// Derived from history, not seen as it happened.
    pub replayed: bool,
    /// What fired.
    pub row: FiringRow,
}

/// What a subscription gives.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Something fired.
    Firing(Firing),
    /// Nothing more comes from this shard; a `Compacted` refusal's `aux` is the oldest `tx` it can be resumed from.
    Ended {
        /// Which shard.
        shard: u16,
        /// Why.
        why: Refusal,
    },
}

/// A stream of firings. Ends the subscription when dropped.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    key: u64,
    from: mpsc::UnboundedReceiver<Push>,
    ready: VecDeque<News>,
    taken: HashMap<u16, u32>,
    grant_at: u32,
    listening: usize,
    begun: Vec<(u16, Tx)>,
}

impl Client {
    /// Listens to one reflex or to all, from now on or behind a place per shard (shards not named: from now on).
    ///
    /// Returns when every shard listens: what is written after that is heard. **Errors:** the first refusal
    /// (`UnknownReflex`, `Compacted`, `TooMany`).
    pub async fn subscribe(&self, reflex: Option<u64>, after: &[(u16, FiringPlace)]) -> Result<Subscription, Error> {
        self.listen(reflex, after, false).await
    }

    /// Runs a reflex over history from behind `since` on, as if it had been registered there, then live without a gap.
    ///
    /// Firings from history are flagged `replayed` and have no timeline. **Errors:** as [`Client::subscribe`].
    pub async fn back_test(&self, reflex: u64, since: Tx) -> Result<Subscription, Error> {
        let after: Vec<_> = (0..self.shards()).map(|shard| (shard, FiringPlace::behind_tx(since))).collect();
        self.listen(Some(reflex), &after, true).await
    }

    async fn listen(
        &self,
        reflex: Option<u64>,
        after: &[(u16, FiringPlace)],
        back_test: bool,
    ) -> Result<Subscription, Error> {
        let (to, from) = mpsc::unbounded_channel();
        let window = self.options().firings_window.max(1);
        let mut subscription = Subscription {
            client: self.clone(),
            key: random(),
            from,
            ready: VecDeque::new(),
            taken: HashMap::new(),
            grant_at: window.div_ceil(2),
            listening: usize::from(self.shards()),
            begun: Vec::new(),
        };
        for shard in 0..self.shards() {
            let after = after.iter().find(|(of, _)| *of == shard).map(|(_, place)| *place);
            let what =
                Subscribe { key: subscription.key, shard, reflex: reflex.unwrap_or(0), after, back_test, window };
            self.command(shard, Command::Subscribe { what, to: to.clone() }).await?;
        }
        drop(to);
        while subscription.begun.len() < usize::from(self.shards()) {
            let push = subscription.from.recv().await.ok_or(Error::Closed)?;
            match push.said {
                Pushed::Begun { basis } => subscription.begun.push((push.shard, Tx::from_bits(basis))),
                Pushed::Ended(refusal) => return Err(Error::Refused(refusal)),
                Pushed::Lost => return Err(Error::Unknown(Lost::Connection)),
                Pushed::Firings { .. } => subscription.keep(push),
            }
        }
        Ok(subscription)
    }
}

impl Subscription {
    /// The last transaction each shard had applied when it began to listen.
    #[must_use]
    pub fn begun(&self) -> &[(u16, Tx)] {
        &self.begun
    }

    /// The next firing, or the end of a shard's stream; `None` when no shard is listened to any more.
    ///
    /// **Errors:** `Unknown` when a connection did not come back in time.
    pub async fn next(&mut self) -> Result<Option<News>, Error> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                match &news {
                    News::Firing(firing) => self.took(firing.shard).await,
                    News::Ended { .. } => self.listening = self.listening.saturating_sub(1),
                }
                return Ok(Some(news));
            }
            if self.listening == 0 {
                return Ok(None);
            }
            let push = self.from.recv().await.ok_or(Error::Closed)?;
            if matches!(push.said, Pushed::Lost) {
                self.listening = self.listening.saturating_sub(1);
                return Err(Error::Unknown(Lost::Connection));
            }
            self.keep(push);
        }
    }

    fn keep(&mut self, push: Push) {
        let shard = push.shard;
        match push.said {
            Pushed::Firings { rows, replayed } => {
                self.ready.extend(rows.into_iter().map(|row| News::Firing(Firing { shard, replayed, row })));
            }
            Pushed::Ended(why) => self.ready.push_back(News::Ended { shard, why }),
            Pushed::Begun { .. } | Pushed::Lost => {}
        }
    }

    async fn took(&mut self, shard: u16) {
        let taken = self.taken.entry(shard).or_insert(0);
        *taken += 1;
        if *taken >= self.grant_at {
            let count = std::mem::take(taken);
            // A driver that is gone shows at the next `recv`.
            drop(self.client.command(shard, Command::Grant { key: self.key, shard, count }).await);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.forget_subscription(self.key);
    }
}

impl FiringPlace {
    /// Behind everything up to this transaction.
    #[must_use]
    pub const fn behind_tx(tx: Tx) -> Self {
        Self::behind(tx.bits())
    }
}
