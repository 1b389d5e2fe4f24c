//! How answers read: the stable keys of every row that HTTP and the command line give, and how people write times.
//!
//! ```text
//!   wire rows (BarRow, TopRow, ..) -> Bar, Ranked, ..  -> JSON objects, or the cells of a table
//!   text <-> instants, lengths, policies
//! ```
//! Invariants: a key never changes its name or meaning; ids and transactions are decimal strings, for they exceed 2^53; what
//! is written is read back as the same. Deliberately absent: who asks, tables, and what only one of the two says.

mod policy;
mod rows;
mod time;

pub use policy::{Kept, read_policy, say_policy};
pub use rows::{Averaged, Bar, Listed, QuoteSaid, Ranked, TickSaid, Totalled, say_side};
pub use time::{instant, length, say_instant, say_length};
