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
use crate::subscriptions::{FiringPlace, Pushed, Stream};
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
    /// When the node said it, by its clock. **Units:** Unix nanoseconds.
    pub sent_ns: i64,
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
    heard: Heard<Firing>,
}

/// Takes out of a push what is listened to, each with its price in credits.
type Items<T> = fn(u16, Pushed) -> Vec<(u32, T)>;

/// One that waits to be taken: from which shard, with its price; or why that shard sends no more.
type Waits<T> = (u16, Result<(u32, T), Refusal>);

/// What came from the shards that are listened to, and waits to be taken: firings, or entries of the log.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    client: Client,
    key: u64,
    from: mpsc::UnboundedReceiver<Push>,
    items: Items<T>,
    ready: VecDeque<Waits<T>>,
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
        let stream = |shard| {
            let after = after.iter().find(|(of, _)| *of == shard).map(|(_, place)| *place);
            Stream::Firings { reflex: reflex.unwrap_or(0), after, back_test }
        };
        Ok(Subscription { heard: Heard::listen(self, stream, firings).await? })
    }
}

fn firings(shard: u16, said: Pushed) -> Vec<(u32, Firing)> {
    match said {
        Pushed::Firings { rows, replayed, sent_ns } => {
            rows.into_iter().map(|row| (1, Firing { shard, replayed, sent_ns, row })).collect()
        }
        _ => Vec::new(),
    }
}

impl Subscription {
    /// The last transaction each shard had applied when it began to listen.
    #[must_use]
    pub fn begun(&self) -> &[(u16, Tx)] {
        self.heard.begun()
    }

    /// The next firing, or the end of a shard's stream; `None` when no shard is listened to any more.
    ///
    /// **Errors:** `Unknown` when a connection did not come back in time.
    pub async fn next(&mut self) -> Result<Option<News>, Error> {
        Ok(self.heard.next().await?.map(|(shard, heard)| match heard {
            Ok(firing) => News::Firing(firing),
            Err(why) => News::Ended { shard, why },
        }))
    }
}

impl<T> Heard<T> {
    /// Listens at every shard; returns when all of them do. `items` takes out of a push what is listened to.
    pub(crate) async fn listen(
        client: &Client,
        stream: impl Fn(u16) -> Stream,
        items: Items<T>,
    ) -> Result<Self, Error> {
        let (to, from) = mpsc::unbounded_channel();
        let window = client.options().firings_window.max(1);
        let mut heard = Self {
            client: client.clone(),
            key: random(),
            from,
            items,
            ready: VecDeque::new(),
            taken: HashMap::new(),
            grant_at: window.div_ceil(2),
            listening: usize::from(client.shards()),
            begun: Vec::new(),
        };
        for shard in 0..client.shards() {
            let what = Subscribe { key: heard.key, shard, window, stream: stream(shard) };
            client.command(shard, Command::Subscribe { what, to: to.clone() }).await?;
        }
        drop(to);
        while heard.begun.len() < usize::from(client.shards()) {
            let push = heard.from.recv().await.ok_or(Error::Closed)?;
            match push.said {
                Pushed::Begun { basis } => heard.begun.push((push.shard, Tx::from_bits(basis))),
                Pushed::Ended(refusal) => return Err(Error::Refused(refusal)),
                Pushed::Lost => return Err(Error::Unknown(Lost::Connection)),
                Pushed::Firings { .. } | Pushed::Entries { .. } => heard.keep(push),
            }
        }
        Ok(heard)
    }

    pub(crate) fn begun(&self) -> &[(u16, Tx)] {
        &self.begun
    }

    /// The next one, or why a shard sends no more; `None` when no shard is listened to any more.
    pub(crate) async fn next(&mut self) -> Result<Option<(u16, Result<T, Refusal>)>, Error> {
        loop {
            if let Some((shard, next)) = self.ready.pop_front() {
                match &next {
                    Ok((credits, _)) => self.took(shard, *credits).await,
                    Err(_) => self.listening = self.listening.saturating_sub(1),
                }
                return Ok(Some((shard, next.map(|(_, item)| item))));
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
            Pushed::Ended(why) => self.ready.push_back((shard, Err(why))),
            said => self.ready.extend((self.items)(shard, said).into_iter().map(|item| (shard, Ok(item)))),
        }
    }

    async fn took(&mut self, shard: u16, credits: u32) {
        let taken = self.taken.entry(shard).or_insert(0);
        *taken += credits;
        if *taken >= self.grant_at {
            let count = std::mem::take(taken);
            // A driver that is gone shows at the next `recv`.
            drop(self.client.command(shard, Command::Grant { key: self.key, shard, count }).await);
        }
    }
}

impl<T> Drop for Heard<T> {
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
