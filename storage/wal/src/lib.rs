//! The write-ahead log of one core: what was acknowledged is here, in one order, for all of the core's Raft groups.
//!
//! ```text
//!   core            begin push end -> | Tail |  -- Batch -->  apply records, recycle
//!                                        |  take_batch   ^ synced(upto)
//!   sync thread                          v               |
//!                                     | Syncer |  writes, durable, in order
//!                                        |
//!   disk            segment-0000  segment-0001  segment-0002 ...      hard-state
//!                                        ^
//!   maintenance     | Preparer | -- Spare --> Tail::offer             reader: Tail::pin -> read | MappedSegment
//! ```
//!
//! | file | what |
//! |---|---|
//! | `record.rs`, `segment.rs`, `lsn.rs` | every byte, and the number of a place |
//! | `tail.rs`, `batch.rs`, `live.rs`, `blocks.rs` | the pure writer: no I/O |
//! | `syncer.rs`, `preparer.rs` | the writes: appends, and spares ahead of need |
//! | `recover.rs`, `replay.rs`, `survey.rs`, `scan.rs` | the way back after a stop of any kind |
//! | `reader.rs`, `map.rs` | reading what is durable |
//! | `hard_state.rs` | terms, votes, the watermark |
//! | `disk.rs`, `directory.rs`, `sim.rs` | the seam, the real disk, the simulated one |
//!
//! Invariants: an append changes no metadata; `released <= synced <= end`; nothing durable is ever cut; no bytes on the
//! disk make this crate panic. Deliberately absent: threads, clocks, retries, knowledge of payloads, other crates of ours.
//! Every byte is drawn in `README.md` beside this crate's manifest.

mod batch;
mod blocks;
mod config;
mod directory;
mod disk;
mod error;
mod hard_state;
mod live;
mod lsn;
mod map;
#[cfg(not(feature = "planted"))]
mod planted;
#[cfg(feature = "planted")]
pub mod planted;
mod preparer;
mod reader;
mod record;
mod recover;
mod replay;
mod scan;
mod segment;
#[cfg(feature = "sim")]
pub mod sim;
mod survey;
mod syncer;
mod tail;

pub use batch::{Batch, Write};
pub use config::{BLOCK_BYTES, Config};
pub use directory::{AppendPath, Directory};
pub use disk::{Disk, DiskFile};
pub use error::{Visited, WalError};
pub use hard_state::{GROUPS_MAX, GroupState, HardState, HardStateFile};
pub use live::{Pinned, Spare};
pub use lsn::Lsn;
pub use map::Map;
pub use preparer::{Preparer, Step};
pub use reader::{MappedSegment, read};
pub use record::{Entry, HEADER_BYTES, Header, KIND_MARK, Record};
pub use recover::{Cut, Recovered, Report, Start, inspect, recover};
pub use syncer::Syncer;
pub use tail::{Appended, Tail};
