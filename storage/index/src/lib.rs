//! What can be asked: the rows and facts of one shard, as of any transaction above the horizon.
//!
//! ```text
//!   columns/   ticks and quotes: per-market columns in tx order, so that `as_of` is a prefix
//!   facts/     datoms in EAVT, AEVT, AVET and VAET, the newest of a fact first, so that `as_of` is a seek; in TEAV, the log
//!   merging    which runs are to become one, by their sizes
//!   file       a file that is sealed when it is finished; footer: its last bytes; sealed: it, opened for reading
//!   map        the only memory map, and the only unsafe code
//!   error      one variant per decision of the caller
//! ```
//! The two families are built alike (check, insert, freeze, write_run, merge, state) and share `map`, `error` and the
//! file conventions of `README.md`. Exact sums are the crate `storage/exact`.
//!
//! Nothing here reads a clock or starts a thread: blocking work ([`Frozen::write_run`], [`merge`],
//! [`FrozenFacts::write_run`], [`merge_facts`]) is a function that the caller runs on its seal thread. Deliberately absent: placement, agreement, durability (the log has it).
//!
//! Source: `design.md`, sections "Facts" and "Storage".

pub mod columns;
mod error;
pub mod facts;
mod file;
mod footer;
mod map;
mod merging;
mod sealed;

pub use columns::{
    Bar, Bars, Cache, ColumnRow, ColumnSpec, Columns, ColumnsConfig, Filter, FloorAt, Floors, Found, Frozen, Gap,
    Inserted, Kept, MARKET_ROWS_MAX, MarketIx, MarketOptions, MarketView, Pruned, Retention, RowRefusal, Run, RunMeta,
    Sealed, Shape, Sink, Summary, Summing, Verdict, WINDOW_BITS, merge, row_entity,
};
pub use error::IndexError;
pub use facts::{
    Asked, Attribute as FactAttribute, Components, FactFloor, FactFloors, FactLog, FactRefusal, FactRun, FactWhy,
    Facts, FactsView, FrozenFacts, LogPlace, Note, Order, Plan, merge_facts,
};
pub use merging::{RunSize, all_are_worth_merging, worth_merging};
