//! Across: the way of one subscriber through the history of spreads over two shards.
//!
//! ```text
//!   evaluators <-- rows in one order -- confluence --asks--> the shards of the markets; tells come back by key
//! ```
//! The same rows in the same order as what is merged live (`crossing.rs`), from another beginning. Deliberately absent: pages,
//! credit, and the reflexes of one shard (`replay.rs`).

use super::confluence::{Ask, Confluence, FeedId, FeedTold, Tell, Told};
use super::replay::{Evaluator, Place, ReplayError, compacted};
use crate::reflex::Firing;
use myelin_datom::{EntityId, Tx, flags};
use std::collections::BTreeMap;

/// Who asks about a market, and on which side of its spread it stands.
type Asking = Vec<(usize, usize)>;

/// See the module's picture.
#[derive(Debug)]
pub struct Across {
    key: u64,
    /// Its markets are merged from behind here on.
    begin: Tx,
    /// History goes to here at least; what comes later may be at hand.
    until: Tx,
    evaluators: Vec<Evaluator>,
    confluence: Confluence,
    feeds: BTreeMap<Box<str>, FeedId>,
    asking: BTreeMap<FeedId, Asking>,
    /// Rows that were wanted are gone: the transaction behind which there are all.
    gone: Option<Tx>,
}

impl Across {
    /// Over no market yet, from behind `begin` up to `until` at least; answers to its questions carry `key`.
    pub fn new(key: u64, begin: Tx, until: Tx) -> Self {
        Self {
            key,
            begin,
            until,
            evaluators: Vec::new(),
            confluence: Confluence::default(),
            feeds: BTreeMap::new(),
            asking: BTreeMap::new(),
            gone: None,
        }
    }

    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Adds a spread over two markets, each with its shard.
    pub fn add(&mut self, evaluator: Evaluator, markets: [(u16, &str); 2]) {
        let number = self.evaluators.len();
        self.evaluators.push(evaluator);
        for (side, (shard, name)) in markets.into_iter().enumerate() {
            let feed = match self.feeds.get(name) {
                Some(feed) => *feed,
                None => {
                    let feed = self.confluence.add(shard, name, self.begin);
                    self.feeds.insert(name.into(), feed);
                    feed
                }
            };
            self.asking.entry(feed).or_default().push((number, side));
        }
    }

    /// An answer of a shard.
    pub fn told(&mut self, from: u16, tell: &Tell) {
        let Self { evaluators, confluence, asking, gone, .. } = self;
        for FeedTold { feed, market, .. } in &tell.feeds {
            for (evaluator, side) in asking.get(feed).into_iter().flatten().filter(|_| *market != EntityId::NONE) {
                evaluators[*evaluator].named(*side, *market);
            }
        }
        let prime = |told: &Told| {
            for (evaluator, _) in asking.get(&told.feed).into_iter().flatten() {
                if told.found.row.flags & flags::CORRECTION == 0 {
                    evaluators[*evaluator].prime(told.found.tx, &told.found.row);
                }
            }
        };
        *gone = confluence.told(from, tell, prime).max(*gone);
    }

    /// Where the next row stands. **Errors:** `Compacted`, once that is known.
    pub fn peek(&self) -> Result<Option<(Tx, u32)>, ReplayError> {
        match self.gone {
            Some(oldest) => Err(compacted(oldest).into()),
            None => Ok(self.confluence.peek()),
        }
    }

    /// Everything up to here was given.
    pub fn merged(&self) -> Tx {
        self.confluence.merged().unwrap_or(Tx::MAX)
    }

    /// Evaluates the next row; what fires behind `after` goes out with its tick. Gives how many evaluators saw it.
    pub fn step(&mut self, after: Place, mut fired: impl FnMut(Firing, &Told)) -> usize {
        let Some(told) = self.confluence.take() else { return 0 };
        let asking = self.asking.get(&told.feed).map_or(&[][..], Vec::as_slice);
        for (evaluator, _) in asking {
            let firing = self.evaluators[*evaluator].react(told.found.tx, told.found.n, &told.found.row);
            if let Some(firing) = firing.filter(|one| (one.tx.bits(), one.n, one.reflex.0) > after) {
                fired(firing, &told);
            }
        }
        asking.len()
    }

    /// True when it has come to its end, and to `least`.
    pub fn is_through(&self, least: Tx) -> bool {
        self.merged() >= self.until.max(least)
    }

    /// What is to be asked, to come to its end and to `least`.
    pub fn asks(&mut self, least: Tx) -> Vec<(u16, Ask)> {
        self.confluence.asks(if self.is_through(least) { Tx::ZERO } else { self.until.max(least) })
    }
}
