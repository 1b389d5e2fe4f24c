//! Gaps of feeds: which are stated and fire, where they stand in the stream, and the way back to them from the facts.
//!
//! ```text
//!   apply    ids that were skipped -> stated: one by one, beyond a bound one per market -> facts, and firings
//!   replay   facts of each market, a page at a time --by (tx, n)--> the same gaps again
//!
//!   n        bit 31 | the market's number in its shard, 20 bits | which of the market's in this transaction, 11 bits
//! ```
//! What fires is what is stated, so a firing can be derived again from the facts, which retention does not take. A gap's `n`
//! lies behind those of all ticks and names no row. Deliberately absent: which ids are missing (the columns know).

use super::turn::{FACT, LOG_SEEK, Work};
use myelin_datom::{EntityId, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{Components, Facts, FactsView, Gap, IndexError, Order};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Gaps of one transaction that are stated one by one: a frame whose every second id is missing would be thousands.
const ONE_BY_ONE: usize = 64;
/// Gaps of a market that wait in memory.
const PAGE: usize = 64;
/// Keys of facts that are looked at for a page, those of other moments included: about a third of a turn.
const KEYS_PER_PAGE: u64 = 256;
const MARKET_BITS: u32 = 20;
const NTH_BITS: u32 = 11;
const _: () = assert!(1 + MARKET_BITS + NTH_BITS == 32);
const _: () = assert!(ONE_BY_ONE < 1 << NTH_BITS);

/// A gap as it is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// From the first id that is missing to the last.
    pub gap: Gap,
    /// How many are missing in between, where several gaps are stated as one.
    pub missing: Option<u64>,
}

/// The gaps of one transaction as they are stated: one by one, and those beyond a bound one for each market.
#[must_use]
pub fn stated(gaps: &[Gap]) -> Vec<Stated> {
    let (each, rest) = gaps.split_at(gaps.len().min(ONE_BY_ONE));
    let mut whole: BTreeMap<EntityId, (Gap, u64)> = BTreeMap::new();
    for gap in rest {
        let (one, missing) = whole.entry(gap.market).or_insert((*gap, 0));
        (one.first, one.last) = (one.first.min(gap.first), one.last.max(gap.last));
        *missing = missing.saturating_add(gap.last - gap.first + 1);
    }
    let each = each.iter().map(|gap| Stated { gap: *gap, missing: None });
    each.chain(whole.into_values().map(|(gap, missing)| Stated { gap, missing: Some(missing) })).collect()
}

/// The place within its transaction of a market's gap. **Panics** beyond the bounds of the picture, which are those of a shard.
#[must_use]
pub fn place(market: u32, nth: u32) -> u32 {
    assert!(market < 1 << MARKET_BITS, "a shard has fewer markets");
    assert!(nth < 1 << NTH_BITS, "a transaction states fewer gaps");
    1 << 31 | market << NTH_BITS | nth
}

/// A gap, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The transaction that skipped.
    pub tx: Tx,
    /// See [`place`].
    pub n: u32,
    /// First and last missing id.
    pub gap: Gap,
}

#[derive(Debug)]
struct Feed {
    market: EntityId,
    /// Its number within the shard.
    number: u32,
    at_hand: VecDeque<Skip>,
    /// Where the facts were read to; empty at their beginning.
    read_to: Vec<u8>,
    /// The transaction that was read last, and how many gaps of it there were.
    counted: (Tx, u32),
}

/// Gaps of several markets, back in the order in which they were told.
#[derive(Debug)]
pub struct Skips {
    feeds: Vec<Feed>,
    /// A feed that is not read to its end and has nothing at hand stands at the beginning of time.
    turns: BinaryHeap<Reverse<(Tx, u32, usize)>>,
    since: Tx,
    basis: Tx,
    /// Feeds before this one were begun in this stretch.
    begun: usize,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This, of the feed of this number.
    Gap(usize, Skip),
    /// Facts were read; ask again.
    Later,
}

impl Skips {
    /// Of these markets, each with its number, behind a transaction. Nothing is read before [`Skips::begin`].
    pub fn new(markets: impl Iterator<Item = (EntityId, u32)>, since: Tx) -> Self {
        let feed = |(market, number)| Feed {
            market,
            number,
            at_hand: VecDeque::new(),
            read_to: Vec::new(),
            counted: (Tx::ZERO, 0),
        };
        Self { feeds: markets.map(feed).collect(), turns: BinaryHeap::new(), since, basis: Tx::ZERO, begun: 0 }
    }

    /// Opens the stretch up to `basis`. Nothing is read yet.
    pub fn open(&mut self, basis: Tx) {
        (self.basis, self.begun) = (basis, 0);
        self.turns.retain(|Reverse((tx, ..))| *tx != Tx::ZERO);
    }

    /// Begins the markets that were not yet in this stretch. False when the turn is over before.
    pub fn begin(&mut self, facts: &Facts, work: &mut Work) -> Result<bool, IndexError> {
        while self.begun < self.feeds.len() {
            if work.is_spent() {
                return Ok(false);
            }
            work.spend(1);
            if self.feeds[self.begun].at_hand.is_empty() {
                self.fill(facts, self.begun, work)?;
            }
            self.begun += 1;
        }
        Ok(true)
    }

    /// The place of what comes next in this stretch, all of whose markets were begun.
    #[must_use]
    pub fn peek(&self) -> Option<(Tx, u32)> {
        self.turns.peek().map(|Reverse((tx, n, _))| (*tx, *n)).filter(|(tx, _)| *tx <= self.basis)
    }

    /// What stands there. **Panics** when there is nothing.
    pub fn next(&mut self, facts: &Facts, work: &mut Work) -> Result<Next, IndexError> {
        let Some(Reverse((_, _, at))) = self.turns.pop() else { unreachable!("the caller looked") };
        let Some(skip) = self.feeds[at].at_hand.pop_front() else {
            self.fill(facts, at, work)?;
            return Ok(Next::Later);
        };
        match self.feeds[at].at_hand.front() {
            Some(next) => self.turns.push(Reverse((next.tx, next.n, at))),
            None => self.fill(facts, at, work)?,
        }
        Ok(Next::Gap(at, skip))
    }

    /// Brings a feed's next page, and gives it its turn. Entities of a slot are numbered in the order of the log, so a
    /// market's gaps come in it.
    fn fill(&mut self, facts: &Facts, at: usize, work: &mut Work) -> Result<(), IndexError> {
        let feed = &mut self.feeds[at];
        work.spend(LOG_SEEK);
        // Up to whatever is there: what lies behind the stretch waits at hand.
        let view = facts.view(Tx::MAX);
        let market = Value::Ref(feed.market);
        let of_market = Components { v: Some(&market), a: Some(born::FEED_GAP), e: None };
        let mut datoms = view.since(self.since).datoms(Order::Vaet, &of_market);
        if !feed.read_to.is_empty() {
            let resumed = datoms.resume(&feed.read_to);
            assert!(resumed, "the place is one of this order");
        }
        while feed.at_hand.len() < PAGE && datoms.visited() < KEYS_PER_PAGE {
            // What is at hand is of use, however little it is.
            if work.is_spent() && !feed.at_hand.is_empty() {
                break;
            }
            let before = datoms.visited();
            let found = datoms.next_within(KEYS_PER_PAGE - datoms.visited())?;
            work.spend(FACT * (datoms.visited() - before) as u32);
            if let Some(place) = datoms.place() {
                feed.read_to = place.to_vec();
            }
            let Some(datom) = found else { break };
            work.spend(LOG_SEEK);
            let Some((first, last)) = of_ticks(&view, datom.e)? else { continue };
            if feed.counted.0 != datom.tx {
                feed.counted = (datom.tx, 0);
            }
            let n = place(feed.number, feed.counted.1);
            feed.counted.1 += 1;
            feed.at_hand.push_back(Skip { tx: datom.tx, n, gap: Gap { market: feed.market, first, last } });
        }
        match feed.at_hand.front() {
            Some(first) => self.turns.push(Reverse((first.tx, first.n, at))),
            None if !datoms.is_done() => self.turns.push(Reverse((Tx::ZERO, 0, at))),
            None => {}
        }
        Ok(())
    }
}

/// The ids that a stated gap names; `None` when it is one of quotes.
fn of_ticks(view: &FactsView<'_>, gap: EntityId) -> Result<Option<(u64, u64)>, IndexError> {
    if view.value(gap, born::FEED_GAP_ROWS)? != Some(Value::keyword("tick")) {
        return Ok(None);
    }
    let id = |a| {
        Ok::<_, IndexError>(match view.value(gap, a)? {
            Some(Value::Decimal(id)) => u64::try_from(id.units()).ok(),
            _ => None,
        })
    };
    Ok(id(born::FEED_GAP_FIRST)?.zip(id(born::FEED_GAP_LAST)?))
}
