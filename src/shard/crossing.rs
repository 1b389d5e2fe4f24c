//! Crossing: spreads of markets on two shards. One shard is their home, merges both, and reacts; every shard tells and closes.
//!
//! ```text
//!   home     register -> confluence --asks--> outbox      inbox --tells--> confluence -> reflexes -> lane of firings
//!   any      inbox --ask--> parked, until rows are applied, or a moment is closed -> tell -> outbox
//!   any      somebody waits for a moment that nothing closes --2 ms apart--> Close, an entry of the log
//! ```
//! The home of a spread is the shard of the market that it names first. Its own market is asked for in the same words as the
//! other, so there is one way for rows to come. What is kept here is the leader's, in memory, and follows from the log: a start
//! begins behind everything that was applied before it, takes both markets' latest prices of that moment, dropped or not, and
//! leaves what fired before to history.
//!
//! Invariants: a firing depends on rows that are closed on both shards, so it is the same whenever and by whomever it is
//! derived. Deliberately absent: how questions are answered (`telling.rs`), and how letters travel (`driver/letters.rs`).

mod telling;
#[cfg(test)]
pub(super) mod tests;

use super::confluence::{Ask, Confluence, FeedId, FeedTold, Tell, Told};
use super::lane::Struck;
use super::react::ACROSS;
use super::{Now, Shard};
use crate::reflex::{Limits, MarketIx, ReflexId, Reflexes, Registration, Scope, Spec, Spread};
use myelin_datom::{EntityId, MarketName, Slot, Tx, flags};
use myelin_wire::SlotRange;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use telling::Parked;

/// Rows that are merged in one slice: about 250 µs.
const ROWS_PER_SLICE: usize = 2048;
/// Transactions whose timeline is remembered for the homes of spreads.
const TIMELINES: usize = 4096;
/// The key of what is merged live; replays have keys of their own.
const LIVE: u64 = 0;

/// What one shard says to another of its node. Never lost; between cores it travels in a ring.
#[derive(Debug)]
pub struct Letter {
    /// The shard that says it.
    pub from: u16,
    /// The shard that it is for.
    pub to: u16,
    /// Of which merge of the home.
    pub key: u64,
    /// What it says.
    pub words: Words,
}

/// See [`Letter`].
#[derive(Debug)]
pub enum Words {
    /// Rows are wanted. It takes the place of the one before of the same home and key.
    Ask(Ask),
    /// Here they are.
    Tell(Tell),
    /// Nothing is wanted any more of this merge.
    Forget,
}

/// A price, and the transaction that left it.
type Latest = (Tx, f64);

/// A shard's part in spreads over two shards.
#[derive(Debug)]
pub struct Crossing {
    /// Where which slots are; empty = all are here.
    placed: Vec<SlotRange>,
    /// The log was replayed.
    leads: bool,
    /// The spreads that live here, over the markets that were told of.
    reflexes: Reflexes,
    confluence: Confluence,
    /// By name, and how many spreads name it.
    feeds: BTreeMap<Box<str>, (FeedId, usize)>,
    names: BTreeMap<FeedId, Box<str>>,
    markets: BTreeMap<EntityId, MarketIx>,
    keys: u64,
    /// Which merge over history has asked which shard.
    asked: BTreeSet<(u64, u16)>,
    /// Answers that are not merged yet. **Bound:** one question of each shard is under way, at most two.
    inbox: VecDeque<(u16, Tell)>,
    /// In the order of their turns.
    parked: VecDeque<Parked>,
    turn_units_max: u32,
    /// Prices of this shard's markets whose rows were dropped, as long as nobody knows a later one that was.
    stood: BTreeMap<EntityId, Latest>,
    /// Homes that merge our rows live: for them timelines are remembered.
    homes: BTreeSet<u16>,
    timelines: VecDeque<(Tx, i64, i64)>,
    outbox: VecDeque<Letter>,
    closed_us: u64,
}

impl Crossing {
    /// Nothing crosses yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        // The shard's own reflexes have counted: what they let in has room here.
        let limits = Limits { pairs_per_market: limits.pairs, ..limits };
        Self {
            placed: Vec::new(),
            leads: false,
            reflexes: Reflexes::new(limits),
            confluence: Confluence::default(),
            feeds: BTreeMap::new(),
            names: BTreeMap::new(),
            markets: BTreeMap::new(),
            keys: LIVE,
            asked: BTreeSet::new(),
            inbox: VecDeque::new(),
            parked: VecDeque::new(),
            turn_units_max: 0,
            stood: BTreeMap::new(),
            homes: BTreeSet::new(),
            timelines: VecDeque::new(),
            outbox: VecDeque::new(),
            closed_us: 0,
        }
    }

    /// Where slots are.
    pub fn place(&mut self, placed: Vec<SlotRange>) {
        self.placed = placed;
    }

    /// The shard of a market.
    pub(super) fn shard_of(&self, name: &str) -> Option<u16> {
        let slot: Slot = MarketName::new(name).ok()?.slot();
        let after = self.placed.partition_point(|range| range.first <= slot.number());
        after.checked_sub(1).and_then(|at| self.placed.get(at)).map(|range| range.shard)
    }

    /// The next letter to another shard, or to this one.
    pub fn poll_letter(&mut self) -> Option<Letter> {
        self.outbox.pop_front()
    }

    /// The most that the answers of one turn cost. **Units:** those of `turn.rs`.
    #[must_use]
    pub const fn turn_units_max(&self) -> u32 {
        self.turn_units_max
    }

    /// Spreads that live here.
    #[must_use]
    pub fn spreads(&self) -> usize {
        self.reflexes.len()
    }

    /// Everything up to here was merged, and what fired is written down; `None` while nothing crosses.
    pub(super) fn settled(&self) -> Option<Tx> {
        let merged = self.confluence.merged()?;
        let pending = self.reflexes.pending_from().map(|tx| Tx::from_bits(tx.bits() - 1));
        Some(pending.map_or(merged, |pending| pending.min(merged)))
    }

    /// A key of a new merge over history.
    pub(super) fn key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    /// Puts questions into the outbox.
    pub(super) fn ask(&mut self, from: u16, key: u64, asks: Vec<(u16, Ask)>) {
        if key != LIVE {
            self.asked.extend(asks.iter().map(|(to, _)| (key, *to)));
        }
        let letters = asks.into_iter().map(|(to, ask)| Letter { from, to, key, words: Words::Ask(ask) });
        self.outbox.extend(letters);
    }

    /// Merges over history that stand no more want nothing: what is parked for them would wait until the market's next row.
    fn forget_replays(&mut self, home: u16, stand: &BTreeSet<u64>) {
        let Self { asked, outbox, .. } = self;
        asked.retain(|(key, to)| {
            let stands = stand.contains(key);
            if !stands {
                outbox.push_back(Letter { from: home, to: *to, key: *key, words: Words::Forget });
            }
            stands
        });
    }

    /// Remembers when a transaction arrived and was durable, while some home merges our rows.
    pub(super) fn note(&mut self, tx: Tx, received_ns: i64, durable_ns: i64) {
        if self.homes.is_empty() || received_ns == 0 {
            return;
        }
        if self.timelines.len() == TIMELINES {
            self.timelines.pop_front();
        }
        self.timelines.push_back((tx, received_ns, durable_ns));
    }

    fn timeline(&self, tx: Tx) -> (i64, i64) {
        let found = self.timelines.binary_search_by_key(&tx, |(tx, ..)| *tx).ok().map(|at| self.timelines[at]);
        found.map_or((0, 0), |(_, received_ns, durable_ns)| (received_ns, durable_ns))
    }

    fn feed(&mut self, name: &str, begin: Tx) {
        if let Some((_, uses)) = self.feeds.get_mut(name) {
            *uses += 1;
            return;
        }
        let Some(shard) = self.shard_of(name) else { return };
        let feed = self.confluence.add(shard, name, begin);
        self.feeds.insert(name.into(), (feed, 1));
        self.names.insert(feed, name.into());
    }

    fn unfeed(&mut self, home: u16, name: &str) {
        let Some((feed, uses)) = self.feeds.get_mut(name) else { return };
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        let feed = *feed;
        self.feeds.remove(name);
        self.names.remove(&feed);
        if self.confluence.remove(feed)
            && let Some(to) = self.shard_of(name)
        {
            self.outbox.push_back(Letter { from: home, to, key: LIVE, words: Words::Forget });
        }
    }

    /// A market that was told of for the first time. Nothing is pending.
    fn know(&mut self, said: &FeedTold) {
        let Some(name) = self.names.get(&said.feed) else { return };
        if said.market == EntityId::NONE || self.markets.contains_key(&said.market) {
            return;
        }
        let ix = MarketIx(self.markets.len() as u32);
        self.reflexes.add_market(ix, said.market, name);
        self.markets.insert(said.market, ix);
    }
}

impl Shard {
    /// True when this spread lives here and its other market elsewhere.
    pub(super) fn crosses(&self, spread: &Spread) -> bool {
        let other = self.crossing.shard_of(&spread.b);
        self.crossing.shard_of(&spread.a) == Some(self.number) && other.is_some_and(|shard| shard != self.number)
    }

    /// The log was replayed: spreads that stand go on from `begin`, behind everything that was applied on any shard before.
    pub(super) fn lead_crossing(&mut self, begin: Tx) {
        self.crossing.leads = true;
        self.keep_prices();
        let standing: Vec<_> = self.reflexes.spreads().collect();
        if !standing.is_empty() {
            self.subscribers.lanes[ACROSS].begin_behind(begin);
        }
        standing.into_iter().for_each(|one| self.cross(one, begin));
    }

    /// A spread was registered.
    pub(super) fn registered(&mut self, id: ReflexId) {
        if self.crossing.leads
            && let Some(one) = self.reflexes.get(id)
        {
            let begin = one.registered_at;
            self.cross(one, begin);
        }
    }

    /// Merges what a spread needs from `begin` on, or from where the merge is.
    fn cross(&mut self, one: Registration, begin: Tx) {
        let Registration { id, spec, registered_at, .. } = one;
        let Spec::Spread(spread) = &spec else { return };
        if !self.crosses(spread) {
            return;
        }
        self.drain_crossing();
        let begin = self.crossing.confluence.merged().map_or(begin, |merged| merged.min(begin));
        self.crossing.feed(&spread.a, begin);
        self.crossing.feed(&spread.b, begin);
        let held = self.crossing.reflexes.register(id, spec, Scope::All, registered_at);
        assert!(held.is_ok(), "what the shard holds has room here: {held:?}");
    }

    /// A reflex was removed. What was not merged of it yet is not told.
    pub(super) fn removed(&mut self, id: ReflexId) {
        let Some(Registration { spec: Spec::Spread(spread), .. }) = self.crossing.reflexes.get(id) else { return };
        self.drain_crossing();
        self.crossing.reflexes.remove(id);
        self.crossing.unfeed(self.number, &spread.a);
        self.crossing.unfeed(self.number, &spread.b);
    }

    /// A letter from a shard of this node. It is put down; what comes of it is the next turn's.
    pub fn letter(&mut self, now: Now, letter: Letter) {
        self.now = now;
        let Letter { from, key, words, .. } = letter;
        match words {
            Words::Ask(ask) => {
                self.crossing.parked.retain(|one| (one.from, one.key) != (from, key));
                self.crossing.parked.push_back(Parked::new(from, key, ask));
                if key == LIVE {
                    self.crossing.homes.insert(from);
                }
            }
            Words::Forget => {
                self.crossing.parked.retain(|one| (one.from, one.key) != (from, key));
                if key == LIVE {
                    self.crossing.homes.remove(&from);
                }
                if self.crossing.homes.is_empty() {
                    self.crossing.timelines.clear();
                }
            }
            Words::Tell(tell) if key == LIVE => self.crossing.inbox.push_back((from, tell)),
            Words::Tell(tell) => self.subscribers.ways.told(key, from, &tell),
        }
    }

    /// Takes what was told, about a slice of it. What fired before is written down first: a new market and a price are known
    /// from one place on.
    fn read_tells(&mut self) {
        let mut read = 0;
        while read < ROWS_PER_SLICE && !self.crossing.reflexes.pending() {
            let Some((from, tell)) = self.crossing.inbox.pop_front() else { break };
            read += tell.rows.len() + tell.feeds.len();
            self.told_live(from, &tell);
        }
    }

    fn told_live(&mut self, from: u16, tell: &Tell) {
        let mut primes: Vec<Told> = Vec::new();
        let gone = self.crossing.confluence.told(from, tell, |told| primes.push(*told));
        if let Some(gone) = gone {
            tracing::warn!(shard = from, %gone, "rows that a spread would have seen were dropped: it goes on without them");
        }
        tell.feeds.iter().for_each(|said| self.crossing.know(said));
        for Told { found, .. } in primes {
            if found.row.flags & flags::CORRECTION == 0
                && let Some(ix) = self.crossing.markets.get(&found.row.market)
            {
                self.crossing.reflexes.prime(*ix, found.tx, found.row.price);
            }
        }
    }

    fn drain_crossing(&mut self) {
        while self.crossing.reflexes.pending() {
            let lane = &mut self.subscribers.lanes[ACROSS];
            self.counters.firings += lane.drain_slice(&mut self.crossing.reflexes, self.now.unix_ns);
        }
    }

    /// Ways through history that were finished, dropped or begun again ask for nothing any more.
    pub(super) fn forget_replays(&mut self) {
        if !self.crossing.asked.is_empty() {
            self.crossing.forget_replays(self.number, &self.subscribers.ways.merges());
        }
    }

    /// Merges and reacts to a slice of what is there, and asks for more. True when there is more to do at once.
    pub(super) fn merge_slice(&mut self) -> bool {
        self.read_tells();
        let Self { crossing, subscribers, .. } = self;
        let lane = &mut subscribers.lanes[ACROSS];
        let mut last = None;
        for taken in 0.. {
            // Two shards may stamp alike: what stands at one place is one slice's, so that it fires in the order of the
            // reflexes.
            let together = last.is_some() && crossing.confluence.peek() == last;
            if !together && taken >= ROWS_PER_SLICE || crossing.reflexes.full() {
                break;
            }
            let Some(Told { found, received_ns, durable_ns, .. }) = crossing.confluence.take() else { break };
            last = Some((found.tx, found.n));
            let Some(ix) = crossing.markets.get(&found.row.market) else { continue };
            let before = crossing.reflexes.lag();
            crossing.reflexes.react(found.tx, found.n, *ix, &found.row);
            if crossing.reflexes.lag() != before {
                lane.strike(Struck { tx: found.tx, n: found.n, tick: found.row, received_ns, durable_ns });
            }
        }
        if crossing.reflexes.pending() {
            self.counters.firings += lane.drain_slice(&mut crossing.reflexes, self.now.unix_ns);
        }
        let more = crossing.reflexes.pending() || crossing.confluence.peek().is_some() || !crossing.inbox.is_empty();
        let asks = crossing.confluence.asks(subscribers.waits_for());
        crossing.ask(self.number, LIVE, asks);
        more
    }
}
