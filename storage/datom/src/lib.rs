//! What a fact is: who it is about, when it became true for us, and the 64 bytes of a tick.
//!
//! Nothing here does I/O, allocates or reads a clock. The layouts are law: every offset is asserted at compile time and
//! drawn in `storage/README.md`.
//!
//! Source: `design.md`, sections "Identity and placement", "Time" and "Facts".
#![no_std]

mod entity;
mod tick;
mod tx;

pub use entity::{EntityId, Kind, MarketName, NameError, ORDINALS_PER_SLOT, SEQUENCES_PER_ORDINAL, SLOTS, Slot};
pub use tick::{Flaw, Quote, ROW_BYTES, Row, Side, Tick, flags, received_delta};
pub use tx::{Instant, Position, Tx};
