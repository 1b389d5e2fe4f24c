//! The log as a stream: what was stored, in order per shard, from any `tx` on, then live; gone on with when a line is cut.
//!
//! ```text
//!   tail -> one listener per shard -> entries -> next() -> taken -> credit for as many more
//! ```
//!
//! Invariant: at most the window of entries per shard waits here; none is given twice, none is left out. Deliberately
//! absent: order across shards. Each entry says its shard and its `tx`: who needs one order sorts by it.

use crate::client::Client;
use crate::error::{Error, Refusal};
use crate::subscribe::Heard;
use crate::subscriptions::{Pushed, Stream, TailPlace, write_since};
use myelin_datom::{EntityId, Tx};
use myelin_wire::{FROM_NOW, LogKind, Named, TailAsk, TailEntry};

/// What of the log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailWanted<'a> {
    /// Entries of later transactions; `None` = from now on.
    pub since: Option<Tx>,
    /// Where to go on, by shard; shards that are not named begin at `since`. The same entries must be wanted as before.
    pub after: &'a [(u16, TailPlace)],
    /// Of these kinds; none = all.
    pub kinds: &'a [LogKind],
    /// Only what is about it: a market, a tick's trader, an entity of facts or what points at it.
    pub entity: Option<EntityId>,
    /// Only of these markets.
    pub named: Named<'a>,
    /// Facts only of attributes with these idents; none = of any.
    pub attributes: &'a [&'a str],
}

impl Default for TailWanted<'_> {
    fn default() -> Self {
        Self { since: None, after: &[], kinds: &[], entity: None, named: Named::Any, attributes: &[] }
    }
}

/// What a tail gives.
#[derive(Clone, Debug, PartialEq)]
pub enum TailNews {
    /// Something was stored.
    Entry {
        /// Where.
        shard: u16,
        /// Read from history, not seen as it happened.
        replayed: bool,
        /// How far the shard was when the entry's page left: how far behind we are.
        applied: Tx,
        /// What.
        entry: TailEntry,
    },
    /// Nothing more comes from this shard; a `Compacted` refusal's `aux` is the oldest `tx` that can be asked for.
    Ended {
        /// Which shard.
        shard: u16,
        /// Why.
        why: Refusal,
    },
}

/// A stream of the log. Ends when dropped.
#[derive(Debug)]
pub struct Tail {
    heard: Heard<TailNews>,
}

impl Client {
    /// Reads the log as a stream, from behind `since` on, then live without a gap.
    ///
    /// Returns when every shard has begun. **Errors:** the first refusal (`Compacted` with the horizon, `TooMany`,
    /// `BadBody` for a name that cannot be one).
    pub async fn tail(&self, wanted: TailWanted<'_>) -> Result<Tail, Error> {
        let TailWanted { after, named, attributes, .. } = wanted;
        let kinds = wanted.kinds.iter().fold(0, |kinds, kind| kinds | kind.bit());
        let (since, entity) = (wanted.since.map_or(FROM_NOW, Tx::bits), wanted.entity.unwrap_or(EntityId::NONE));
        let mut ask = Vec::new();
        TailAsk { since, kinds, entity, named, attributes }.write(&mut ask);
        let stream = |shard| {
            let (mut ask, mut seen) = (ask.clone(), TailPlace::default());
            match after.iter().find(|(of, _)| *of == shard).map(|(_, place)| *place) {
                None => {}
                Some(place) if place == TailPlace::behind(place.tx) => write_since(&mut ask, place.tx),
                Some(place) => {
                    // Its transaction comes whole again, in the same order; what was seen of it is dropped.
                    write_since(&mut ask, place.tx.saturating_sub(1));
                    seen = place;
                }
            }
            Stream::Log { ask, seen }
        };
        Ok(Tail { heard: Heard::listen(self, stream, entries).await? })
    }
}

fn entries(shard: u16, said: Pushed) -> Vec<(u32, TailNews)> {
    match said {
        Pushed::Entries { entries, replayed, applied } => {
            let applied = Tx::from_bits(applied);
            let news = |entry: TailEntry| (entry.credits, TailNews::Entry { shard, replayed, applied, entry });
            entries.into_iter().map(news).collect()
        }
        _ => Vec::new(),
    }
}

impl Tail {
    /// The last transaction each shard had applied when it began.
    #[must_use]
    pub fn begun(&self) -> &[(u16, Tx)] {
        self.heard.begun()
    }

    /// The next entry, or the end of a shard's stream; `None` when no shard sends any more.
    ///
    /// **Errors:** `Unknown` when a connection did not come back in time.
    pub async fn next(&mut self) -> Result<Option<TailNews>, Error> {
        Ok(self.heard.next().await?.map(|(shard, heard)| heard.unwrap_or_else(|why| TailNews::Ended { shard, why })))
    }
}
