//! One shard's rows of one kind, ticks or quotes: who is new, what is stored, what can be read.
//!
//! ```text
//!   proposal --check--> verdicts --insert--> newest part --freeze--> Frozen --write_run--> Run (a file)
//!             (state only)                   (memory)                (memory, immutable)    |  ^
//!                                                 \____ view(market, as_of) ____ reads _____/  | merge
//! ```
//! `market` one market's state; `window` the ids it saw; `scratch` repeats within a proposal; `part` the newest rows;
//! `frozen` the part being sealed; `schema` rows as cells; `column`, `block`, `write`, `run` the file; `cache` decoded
//! pages; `read`, `aggregate` the answers, `sealed` what of them another thread reads; `merge`, `prune`, `state` what keeps it small and restartable.
//!
//! Invariants: `check` changes nothing that can be seen; `insert` stores exactly the rows judged `New`; transactions only
//! grow; a market's rows stand in `tx` order over runs, frozen parts and the newest part. Deliberately absent: the clock,
//! threads, and when to freeze, seal, merge or prune (the caller's policy).

mod aggregate;
mod block;
mod cache;
mod column;
mod directory;
pub(crate) mod frozen;
mod ingest;
pub(crate) mod market;
mod merge;
pub(crate) mod part;
mod prune;
mod read;
mod run;
mod scan;
pub mod schema;
mod scratch;
mod sealed;
mod state;
mod totals;
mod verdict;
mod window;
pub(crate) mod wire;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hashbrown::HashMap;
use myelin_datom::{EntityId, Tx};

pub use aggregate::{Bar, Bars, Summing};
pub use cache::Cache;
pub use frozen::Frozen;
use frozen::FrozenMarket;
pub use market::{MARKET_ROWS_MAX, MarketIx, MarketOptions, row_entity};
use market::{Market, MarketTable};
pub use merge::merge;
pub use prune::{FloorAt, Floors, Kept, Pruned, Retention};
pub use read::{Filter, Found, MarketView};
pub use run::{Run, RunMeta};
pub use schema::{ColumnRow, ColumnSpec, Shape};
use scratch::Scratch;
pub use sealed::Sealed;
pub use verdict::{Gap, Inserted, RowRefusal, Summary, Verdict};
pub use window::WINDOW_BITS;
pub use write::Sink;

/// Limits of one [`Columns`].
#[derive(Clone, Copy, Debug)]
pub struct ColumnsConfig {
    /// Decoded pages kept for point reads. **Units:** bytes.
    pub cache_bytes_max: usize,
    /// Emptied chunks kept for the next part. **Units:** chunks of 64 rows, 4 KiB.
    pub free_chunks_max: usize,
}

/// Chunks that one installed run gives back at most, 64 MiB: so many of one market take 0.1 ms.
const CHUNKS_BACK_MAX: usize = 16 << 10;
/// Markets that give some back: each is a line of memory that nobody has at hand, 0.1 µs.
const MARKETS_BACK_MAX: usize = 4 << 10;

impl Default for ColumnsConfig {
    fn default() -> Self {
        Self { cache_bytes_max: 64 << 20, free_chunks_max: 64 << 10 }
    }
}

/// One shard's rows of one kind.
pub struct Columns<R> {
    config: ColumnsConfig,
    table: MarketTable,
    markets: Vec<Market<R>>,
    /// Markets with rows in the newest part.
    touched: Vec<MarketIx>,
    newest_rows: u64,
    last_tx: Tx,
    /// Oldest first.
    frozen: Vec<Arc<Frozen<R>>>,
    /// Oldest first; all older than the frozen parts.
    runs: Vec<Arc<Run>>,
    cache: Cache,
    scratch: Scratch,
    /// Corrections of the last frame that was checked: the row of the same key before each.
    corrected: HashMap<u32, u32>,
    /// Markets of the rows of the last check.
    placed: Vec<MarketIx>,
    free: Vec<Vec<R>>,
    gaps: Vec<Gap>,
}

impl<R: ColumnRow> Columns<R> {
    /// Nothing yet.
    #[must_use]
    pub fn new(config: ColumnsConfig) -> Self {
        Self {
            config,
            table: MarketTable::new(),
            markets: Vec::new(),
            touched: Vec::new(),
            newest_rows: 0,
            last_tx: Tx::ZERO,
            frozen: Vec::new(),
            runs: Vec::new(),
            cache: Cache::new(config.cache_bytes_max),
            scratch: Scratch::default(),
            corrected: HashMap::new(),
            placed: Vec::new(),
            free: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// Registers a market. **Panics** when it is there already or the id is no market's: allocation gave it out once.
    pub fn add_market(&mut self, market: EntityId, options: MarketOptions) -> MarketIx {
        let ix = MarketIx(self.markets.len() as u32);
        self.table.put(market, ix);
        self.markets.push(Market::new(market, options));
        ix
    }

    /// The market with this id.
    #[must_use]
    pub fn market_ix(&self, market: EntityId) -> Option<MarketIx> {
        self.table.get(market)
    }

    /// The id of a market.
    #[must_use]
    pub fn market_id(&self, ix: MarketIx) -> EntityId {
        self.market(ix).id
    }

    /// Every market, in the order of `add_market`.
    pub fn markets(&self) -> impl ExactSizeIterator<Item = MarketIx> + use<R> {
        (0..self.markets.len() as u32).map(MarketIx)
    }

    fn market(&self, ix: MarketIx) -> &Market<R> {
        &self.markets[ix.0 as usize]
    }

    /// The last transaction that was inserted or that pruned.
    #[must_use]
    pub fn last_tx(&self) -> Tx {
        self.last_tx
    }

    /// Rows in the newest part: when to freeze is the caller's policy.
    #[must_use]
    pub fn newest_rows(&self) -> u64 {
        self.newest_rows
    }

    /// Rows that no run holds yet, those that are being written included as far as they are not.
    #[must_use]
    pub fn unsealed_rows(&self) -> u64 {
        self.newest_rows + self.frozen.iter().map(|frozen| frozen.unwritten_rows()).sum::<u64>()
    }

    /// **Units:** bytes of memory held by rows (newest and frozen), free chunks and decoded pages, rounded.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let newest: usize = self.touched.iter().map(|&ix| self.market(ix).part.bytes()).sum();
        let frozen: usize =
            self.frozen.iter().flat_map(|frozen| &frozen.markets).map(|market| market.part.bytes()).sum();
        newest + frozen + self.free.len() * part::CHUNK_ROWS * 64 + self.cache.bytes()
    }

    /// Memory for the next rows of a market, to be made on a thread that has the time; see [`Columns::stock`].
    #[must_use]
    pub fn chunk() -> Vec<R> {
        Vec::with_capacity(part::CHUNK_ROWS)
    }

    /// Takes chunks for rows to come, as many as its limits allow.
    pub fn stock(&mut self, chunks: impl Iterator<Item = Vec<R>>) {
        let room = self.config.free_chunks_max.saturating_sub(self.free.len());
        self.free.extend(chunks.take(room));
    }

    /// Swaps the newest part out; it stays readable. `None` when it holds nothing.
    ///
    /// **Cost:** O(m log m) in the markets touched; no row moves.
    pub fn freeze(&mut self) -> Option<Arc<Frozen<R>>> {
        if self.touched.is_empty() {
            return None;
        }
        let mut markets = Vec::with_capacity(self.touched.len());
        for ix in self.touched.drain(..) {
            let market = &mut self.markets[ix.0 as usize];
            let first = market.first;
            market.first = market.next_row();
            let dead = market.floor.row.clamp(first, market.first) - first;
            markets.push(FrozenMarket { id: market.id, first, dead, part: core::mem::take(&mut market.part) });
        }
        markets.sort_unstable_by_key(|market| market.id);
        let rows = core::mem::take(&mut self.newest_rows);
        let live = rows - markets.iter().map(|market| u64::from(market.dead)).sum::<u64>();
        let frozen = Arc::new(Frozen { markets, rows, live, upto: self.last_tx, written: AtomicU64::new(0) });
        self.frozen.push(Arc::clone(&frozen));
        Some(frozen)
    }

    /// Puts a run in the place of the frozen part it was written from, or nothing where no row of it was live. Answers do
    /// not change. Chunks of the part serve the next one, unless somebody still reads it; what is left of it comes back, to
    /// be let go where there is time for that, and not to be read.
    ///
    /// **Panics** when it is not the oldest frozen part, or the run is not its: sealing in order is the caller's contract.
    pub fn install(&mut self, mut frozen: Arc<Frozen<R>>, run: impl Into<Option<Arc<Run>>>) -> Arc<Frozen<R>> {
        let run: Option<Arc<Run>> = run.into();
        assert!(self.frozen.first().is_some_and(|oldest| Arc::ptr_eq(oldest, &frozen)), "runs are installed in order");
        let rows = run.as_ref().map_or(0, |run| run.meta().rows);
        let kind = run.as_ref().is_none_or(|run| run.meta().kind == R::KIND as u8);
        assert!(rows == frozen.live_rows() && kind, "the run is another part's");
        drop(self.frozen.remove(0));
        self.runs.extend(run);
        let room = self.config.free_chunks_max.min(self.free.len() + CHUNKS_BACK_MAX);
        let markets = Arc::get_mut(&mut frozen).into_iter().flat_map(|frozen| &mut frozen.markets);
        for market in markets.take(MARKETS_BACK_MAX) {
            if self.free.len() >= room {
                break;
            }
            market.part.release(&mut self.free, room);
        }
        frozen
    }

    /// Puts a merged run in the place of the runs it was made of. Answers do not change.
    ///
    /// Runs that were dropped meanwhile count as merged. **Panics** when the others do not stand side by side.
    pub fn install_merged(&mut self, old: &[Arc<Run>], new: Option<Arc<Run>>) {
        let is_old = |run: &Arc<Run>| old.iter().any(|old| Arc::ptr_eq(old, run));
        let Some(at) = self.runs.iter().position(is_old) else { return };
        let count = self.runs[at..].iter().take_while(|run| is_old(run)).count();
        assert!(!self.runs[at + count..].iter().any(is_old), "merged runs stand side by side");
        assert!(new.iter().all(|run| run.meta().kind == R::KIND as u8));
        self.runs.splice(at..at + count, new);
    }

    /// The runs, oldest first.
    #[must_use]
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// The parts that wait for their run, oldest first.
    #[must_use]
    pub fn frozen(&self) -> &[Arc<Frozen<R>>] {
        &self.frozen
    }
}
