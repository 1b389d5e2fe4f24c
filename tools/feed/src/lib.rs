//! Market data files in, rows that are ready to send out; and tapes where there is no file.
//!
//! ```text
//!   file, stdin -> input -> lines -> csv | json -> draft -> Batch { ticks | quotes, markets, received_time_ns }
//!                  (gz, zst) (1 MiB)  (columns)     (names)
//!   seed -------------------------------> tape -> Batch
//!   JSON -------------------------------> facts -> Transaction
//! ```
//!
//! Invariants: memory is bounded whatever the input (one line, one window of a decompressor, one table of names); no
//! byte sequence panics; a decimal becomes the nearest `f64`; a row is taken whole or refused with line and column.
//!
//! Deliberately absent: ids of markets and traders (a row names its market, the caller resolves it), sockets, clocks,
//! threads, and quoted line breaks (a row is a line, so that a bad row costs one line).

mod columns;
mod csv;
mod draft;
mod error;
pub mod facts;
mod fields;
mod format;
mod input;
mod json;
mod lines;
mod names;
mod number;
mod reader;
mod tape;
mod time;

pub use columns::{ColumnMap, Field};
pub use draft::{Batch, RowKind};
pub use error::{BadRow, FeedError};
pub use format::{Format, parse_delimiter};
pub use reader::{OnBadRow, Options, Progress, Reader, Skipped};
pub use tape::{TAPE_MARKETS_MAX, Tape};
