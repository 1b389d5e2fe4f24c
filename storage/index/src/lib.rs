//! What can be asked: the rows and facts of one shard, as of any transaction above the horizon.
//!
//! ```text
//!   columns/   ticks and quotes: per-market columns in tx order, so that `as_of` is a prefix
//!   exact      sums of floats that are rounded once, whatever the order, block, thread or shard
//!   map        the only memory map, and the only unsafe code
//!   error      one variant per decision of the caller
//! ```
//! Facts in EAVT, AEVT, AVET and VAET are a second family beside `columns/`; they share `map`, `error` and the file
//! conventions of `README.md`.
//!
//! Nothing here reads a clock or starts a thread: blocking work ([`Frozen::write_run`], [`merge`]) is a function that
//! the caller runs on its seal thread. Deliberately absent: placement, agreement, durability (the log has it).
//!
//! Source: `design.md`, sections "Facts" and "Storage".

pub mod columns;
mod error;
mod exact;
mod map;

pub use columns::{
    Bar, Cache, ColumnRow, ColumnSpec, Columns, ColumnsConfig, Filter, Floors, Found, Frozen, Gap, Inserted,
    MARKET_ROWS_MAX, MarketIx, MarketOptions, MarketView, Partial, Pruned, Reader, Retention, RowRefusal, Run, RunMeta,
    Shape, Sink, Summary, Verdict, WINDOW_BITS, merge, row_entity,
};
pub use error::IndexError;
pub use exact::{ExactSum, Gather};
