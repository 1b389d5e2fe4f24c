//! `prune`: rows that no policy keeps are dropped, by an entry of the log.
//!
//! ```text
//!   policies, the leader's clock -> floors, some markets a turn -> Horizon -> committed -> apply: floors rise, runs go
//!
//!   Horizon    changed:8 | per market and kind: market:8 | id:8 | gone:8 | row:4 | kind:1 | zero:3
//! ```
//!
//! Who leads reads and the entry says what it found: the floor's row, the greatest id below it and the transaction of the
//! last row that goes. So `apply` needs no clock and no file, here, at a restart and on every replica alike. An entry that
//! was worked out under policies that have changed since changes nothing. A turn looks at few markets and reads few ids;
//! what it does not finish, the next one goes on with. What has gone of a market is a fact about it. Deliberately absent:
//! facts (`prune/facts.rs`); bytes, which a checkpoint gives back (`seal.rs`).

pub mod facts;

use super::append::Appender;
use super::apply::{Done, done, refused};
use super::entry::{EntryKind, Proposal, Senseless};
use super::planted::{self, Bug};
use super::replicate::LogIndex;
use super::{Now, Refusal, Shard, ShardError};
use bytemuck::{Pod, Zeroable};
use myelin_datom::{EntityId, Kind, Tx, Value};
use myelin_index::facts::born;
use myelin_index::{ColumnRow, Columns, FloorAt, IndexError, MarketIx, Note, Retention};
use myelin_wire::{Code, Keep, PolicyRow, RetainRow};
use std::collections::BTreeSet;

/// A pass over all markets, or attributes, begins this long after the one before at the earliest. **Units:** microseconds.
const PACE_US: u64 = 1_000_000;
/// A pass that is due waits for long reads this long at most. **Units:** microseconds.
const READS_WAIT_US: u64 = 5_000_000;
/// Markets and kinds that a turn looks at.
const LOOKS: usize = 4096;
/// What a turn of a core may spend on searches: one in memory costs 1, one in runs all of it.
pub const SEARCHES: u32 = 32;
/// A page of transactions of a block, and a part of its ids: up to half a millisecond, so one a turn.
const SEALED_SEARCH: u32 = SEARCHES;
/// Ids that one search reads one by one: well under 250 µs.
const IDS_PER_SEARCH: u32 = 8192;
/// Floors in one entry.
const FLOORS_MAX: usize = 512;
/// The horizon moves in steps of this part of a window, or of what is kept, so that moments between stay readable.
const STEPS: u64 = 16;
/// After so long less than a step is dropped as well. **Units:** milliseconds.
const REST_MS: u64 = 60_000;
/// Markets in one page of policies.
const MARKETS_PER_PAGE: usize = 4096;
/// Both kinds of row that a market has.
const KINDS: [Kind; 2] = [Kind::Tick, Kind::Quote];

/// Where the pruner stands. Leader's state: not in the log, and begun again by the next leader.
#[derive(Debug, Default)]
pub struct Pruner {
    /// A pass is under way, and this is the next place to look at: twice the market's number, and the kind.
    at: Option<usize>,
    again_us: u64,
    /// The entry that is not applied yet.
    under_way: Option<LogIndex>,
    /// Up to where windows were looked through, by place.
    looked: Vec<Tx>,
    /// Rows of runs, and datoms, that were dropped since the last checkpoint.
    sealed_rows: u64,
}

/// One floor of an entry. **Shape:** 32 bytes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct HorizonRow {
    market: u64,
    id: u64,
    gone: u64,
    row: u32,
    kind: u8,
    zero: [u8; 3],
}

const _: () = assert!(size_of::<HorizonRow>() == 32);

/// Rows that are gone.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    market: EntityId,
    rows: u32,
}

/// What became of looking at one market.
enum Look {
    /// Nothing is to go.
    Nothing,
    /// The turn has spent what it may.
    Later,
    /// This is to go; when it is not whole, the search goes on from there.
    Floor(FloorAt),
}

impl Shard {
    /// Drops what no policy keeps: appends an entry if a look at some markets found floors to raise. `left` is what the turn
    /// may still spend on searches; see [`SEARCHES`].
    ///
    /// **Cost:** nothing without policies; else a bounded part of a pass. **Errors:** a run that cannot be read.
    pub fn prune_if_due(&mut self, now: Now, log: &mut Appender, left: &mut u32) -> Result<(), ShardError> {
        self.prune_facts_if_due(now, log)?;
        if self.pruner.under_way.is_some_and(|index| index > self.group.applied()) {
            return Ok(());
        }
        if self.pruner.at.is_none() {
            if !self.is_pass_due(now) {
                return Ok(());
            }
            self.pruner.again_us = now.mono_us + PACE_US;
            self.pruner.at = Some(0);
        }
        let began = self.pruner.at;
        let floors = self.floors_due(now, left)?;
        if floors.is_empty() {
            return Ok(());
        }
        let body = body_of(self.retention.changed(), &floors);
        self.pruner.under_way = self.propose_to_drop(now, log, EntryKind::Horizon, &body);
        if self.pruner.under_way.is_none() {
            // What this turn looked through is to be found again.
            self.pruner.at = began;
            self.pruner.looked.clear();
        }
        Ok(())
    }

    /// A pass may begin. It waits for long reads, which would end where it drops what they have not come to, but not for ever.
    fn is_pass_due(&self, now: Now) -> bool {
        let waits_us = if self.readings.are_long_under_way() { READS_WAIT_US } else { 0 };
        now.mono_us >= self.pruner.again_us + waits_us && self.retention.drop_anything()
    }

    /// A pass has begun and goes on.
    #[must_use]
    pub const fn is_pruning(&self) -> bool {
        self.pruner.at.is_some()
    }

    /// Appends an entry that says what is to go; `None` where the log has no room for it.
    fn propose_to_drop(&mut self, now: Now, log: &mut Appender, kind: EntryKind, body: &[u8]) -> Option<LogIndex> {
        let proposal = Proposal::new(0, 0, body.len() as u32, false, crc32fast::hash(body));
        let proposed = log.propose(&mut self.group, now.millis(), kind, &proposal, body);
        proposed.ok().map(|_| self.group.appended())
    }

    fn floors_due(&mut self, now: Now, left: &mut u32) -> Result<Vec<HorizonRow>, IndexError> {
        let places = self.markets.len() * KINDS.len();
        self.pruner.looked.resize(places, Tx::ZERO);
        let mut floors = Vec::new();
        for _ in 0..LOOKS {
            let Some(at) = self.pruner.at.filter(|at| *at < places) else {
                self.pruner.at = None;
                break;
            };
            let (number, kind) = ((at / KINDS.len()) as u32, KINDS[at % KINDS.len()]);
            let Some(market) = self.markets.get(number).map(|market| market.id) else { break };
            let keep = self.retention.of(market, kind).keep;
            let looked = &mut self.pruner.looked[at];
            let look = match kind {
                Kind::Quote => look(&self.quotes, market, keep, now, looked, left)?,
                _ => look(&self.ticks, market, keep, now, looked, left)?,
            };
            match look {
                Look::Nothing => {}
                Look::Later => break,
                Look::Floor(FloorAt { row, id, gone, whole }) => {
                    let (market, gone, kind) = (market.bits(), gone.bits(), kind as u8);
                    let row = row + u32::from(planted::is(Bug::DropsOneTooMany));
                    floors.push(HorizonRow { market, id, gone, row, kind, zero: [0; 3] });
                    if !whole || floors.len() == FLOORS_MAX {
                        self.pruner.at = Some(at + usize::from(whole));
                        break;
                    }
                }
            }
            self.pruner.at = Some(at + 1);
        }
        Ok(floors)
    }

    /// Sets policies, all of the body or none; the ack counts what changed.
    pub(super) fn apply_retain(&mut self, tx: Tx, body: &[u8]) -> Done {
        let rows = || body.chunks_exact(size_of::<RetainRow>()).map(bytemuck::pod_read_unaligned::<RetainRow>);
        let known =
            |row: &RetainRow| row.market == 0 || self.ticks.market_ix(EntityId::from_bits(row.market)).is_some();
        if let Some(n) = rows().position(|row| !known(&row)) {
            return refused(tx, Refusal { first_bad: n as u32, ..Refusal::of(Code::UnknownMarket) });
        }
        let changed = rows().filter(|row| self.retention.set(tx, row)).count();
        if changed > 0 {
            // What was looked through under another policy says nothing about this one.
            self.pruner.looked.clear();
            (self.pruner.at, self.pruner.again_us) = (None, 0);
        }
        done(tx, changed as u32)
    }

    /// Raises the floors that an entry names. **Errors:** an entry without sense, a run of facts that cannot be read.
    pub(super) fn apply_horizon(&mut self, tx: Tx, body: &[u8]) -> Result<(), ShardError> {
        let senseless = Senseless { kind: EntryKind::Horizon as u8, at: 0 };
        let (changed, rows) = body.split_first_chunk::<8>().ok_or(senseless)?;
        let rows: Vec<HorizonRow> = rows_of(rows).ok_or(senseless)?;
        if Tx::from_bits(u64::from_le_bytes(*changed)) != self.retention.changed() {
            return Ok(());
        }
        // Rows that are gone were there before: a checkpoint that says otherwise would be refused at the next start.
        if rows.iter().any(|row| Tx::from_bits(row.gone) > tx) {
            return Err(senseless.into());
        }
        let mut gone = Vec::new();
        self.pruner.sealed_rows += raise(&mut self.ticks, &rows, tx, &mut gone);
        self.pruner.sealed_rows += raise(&mut self.quotes, &rows, tx, &mut gone);
        self.counters.rows_dropped += gone.iter().map(|dropped| u64::from(dropped.rows)).sum::<u64>();
        gone.iter().for_each(|dropped| self.keep_price(dropped.market));
        self.state_dropped(tx, &gone)
    }

    /// States of each market what has gone and since when, as facts about it, where that is news.
    fn state_dropped(&mut self, tx: Tx, gone: &[Dropped]) -> Result<(), ShardError> {
        let mut notes = Vec::new();
        for market in gone.iter().map(|dropped| dropped.market).collect::<BTreeSet<_>>() {
            let ticks = self.ticks.market_ix(market).map_or(0, |ix| self.ticks.kept(ix).dropped);
            let quotes = self.quotes.market_ix(market).map_or(0, |ix| self.quotes.kept(ix).dropped);
            let rows = i64::from(ticks) + i64::from(quotes);
            let stated = self.facts.view(tx).value(market, born::MARKET_PRUNED_ROWS)?;
            if !is_news(rows, stated.as_ref()) {
                continue;
            }
            notes.push(Note {
                about: Ok(market),
                facts: vec![
                    (born::MARKET_HORIZON, Value::I64(tx.bits() as i64)),
                    (born::MARKET_PRUNED_ROWS, Value::I64(rows)),
                ],
            });
        }
        if !notes.is_empty() {
            self.state_facts(tx, &notes)?;
        }
        Ok(())
    }

    /// Rows of runs and datoms that were dropped since the last checkpoint, and rows and datoms that runs still have.
    #[must_use]
    pub fn reclaimable(&self) -> (u64, u64) {
        let runs = self.ticks.runs().iter().chain(self.quotes.runs());
        let rows = runs.map(|run| run.meta().rows).sum::<u64>();
        let datoms = self.facts.runs().iter().map(|run| run.meta().rows).sum::<u64>();
        (self.pruner.sealed_rows, rows + datoms)
    }

    /// A checkpoint is on its way that gives back what was dropped.
    pub(super) fn reclaimed(&mut self) {
        self.pruner.sealed_rows = 0;
    }

    /// A page of policies from a market's number on: how many rows, the number to go on with, the rows.
    pub(super) fn policy_rows(&self, first: usize) -> (u32, usize, Vec<u8>) {
        let mut rows = Vec::new();
        if first == 0 {
            rows.extend(KINDS.map(|kind| self.policy_row(EntityId::NONE, kind)));
        }
        let page = self.markets.iter().skip(first).take(MARKETS_PER_PAGE);
        rows.extend(page.flat_map(|market| KINDS.map(|kind| self.policy_row(market.id, kind))));
        let next = first.saturating_add(MARKETS_PER_PAGE).min(self.markets.len());
        (rows.len() as u32, next, bytemuck::cast_slice(&rows).to_vec())
    }

    fn policy_row(&self, market: EntityId, kind: Kind) -> PolicyRow {
        let policy = self.retention.of(market, kind);
        let (keep, value) = policy.keep.to_parts();
        let kept = match kind {
            Kind::Quote => self.quotes.market_ix(market).map(|ix| self.quotes.kept(ix)),
            _ => self.ticks.market_ix(market).map(|ix| self.ticks.kept(ix)),
        };
        PolicyRow {
            market: market.bits(),
            value,
            kept: kept.map_or(0, |kept| kept.rows.into()),
            dropped: kept.map_or(0, |kept| kept.dropped.into()),
            horizon: kept.map_or(0, |kept| kept.horizon.bits()),
            kind: kind as u8 + 1,
            keep,
            own: policy.own.into(),
            zero_43: [0; 5],
        }
    }
}

/// The entry's body.
fn body_of(changed: Tx, floors: &[HorizonRow]) -> Vec<u8> {
    let mut body = changed.bits().to_le_bytes().to_vec();
    body.extend_from_slice(bytemuck::cast_slice(floors));
    body
}

/// The rows of a body; `None` where it is cut short.
fn rows_of<T: Pod>(body: &[u8]) -> Option<Vec<T>> {
    let whole = body.len().is_multiple_of(size_of::<T>());
    whole.then(|| body.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect())
}

/// The first transaction of a window of so many nanoseconds. A clock before 1970 drops nothing.
fn window_begins(now: Now, ns: u64) -> Tx {
    let clock = u64::try_from(now.unix_ns).unwrap_or(0);
    Tx::at_millis(clock.saturating_sub(ns) / 1_000_000)
}

/// True when so much has gone that it is stated: for the first time, or twice as much as was stated last. Facts are kept for
/// good, so their number must not follow the number of drops.
fn is_news(dropped: i64, stated: Option<&Value<'_>>) -> bool {
    !matches!(stated, Some(Value::I64(stated)) if dropped < stated.saturating_mul(2))
}

/// Looks at one market's rows of one kind.
fn look<R: ColumnRow>(
    columns: &Columns<R>,
    market: EntityId,
    keep: Keep,
    now: Now,
    looked: &mut Tx,
    left: &mut u32,
) -> Result<Look, IndexError> {
    let Some(ix) = columns.market_ix(market) else { return Ok(Look::Nothing) };
    let kept = columns.kept(ix);
    let beyond = |rows: u32| kept.rows.saturating_sub(rows);
    // Rows that stay, where their number says it: what is in the newest part is cheap to find.
    let (retention, stay) = match keep {
        Keep::All => return Ok(Look::Nothing),
        Keep::Latest if beyond(1) > 0 => (Retention::Latest, 1),
        Keep::Last(rows) if beyond(rows) > 0 => {
            let small = u64::from(beyond(rows)) <= u64::from(rows) / STEPS;
            if small && now.millis() < kept.horizon.millis() + REST_MS {
                return Ok(Look::Nothing);
            }
            (Retention::Last(rows), rows)
        }
        Keep::Window(ns) if kept.rows > 0 => {
            let since = window_begins(now, ns);
            if *looked != Tx::ZERO && since.millis() <= looked.millis() + ns / STEPS / 1_000_000 {
                return Ok(Look::Nothing);
            }
            (Retention::Since(since), kept.rows)
        }
        Keep::Latest | Keep::Last(_) | Keep::Window(_) => return Ok(Look::Nothing),
    };
    let cost = if stay < kept.newest || kept.newest == kept.rows { 1 } else { SEALED_SEARCH };
    if *left < cost {
        return Ok(Look::Later);
    }
    *left -= cost;
    let floor = columns.floor_for(ix, retention, IDS_PER_SEARCH)?;
    if let Retention::Since(since) = retention
        && floor.is_none_or(|floor| floor.whole)
    {
        *looked = since;
    }
    Ok(floor.map_or(Look::Nothing, Look::Floor))
}

/// Raises the floors of one kind; gives how many sealed rows went.
fn raise<R: ColumnRow>(columns: &mut Columns<R>, rows: &[HorizonRow], tx: Tx, gone: &mut Vec<Dropped>) -> u64 {
    let of_kind = rows.iter().filter(|row| row.kind == R::KIND as u8);
    let floors: Vec<(MarketIx, FloorAt)> = of_kind
        .filter_map(|row| {
            let floor = FloorAt { row: row.row, id: row.id, gone: Tx::from_bits(row.gone), whole: true };
            Some((columns.market_ix(EntityId::from_bits(row.market))?, floor))
        })
        .collect();
    if floors.is_empty() {
        return 0;
    }
    let before: Vec<u32> = floors.iter().map(|(ix, _)| columns.kept(*ix).dropped).collect();
    let pruned = columns.raise(floors.iter().copied(), tx);
    for ((ix, _), before) in floors.iter().zip(before) {
        let floor = columns.kept(*ix).dropped;
        if floor > before {
            gone.push(Dropped { market: columns.market_id(*ix), rows: floor - before });
        }
    }
    pruned.sealed_rows
}

#[cfg(test)]
mod tests;
