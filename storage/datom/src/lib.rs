//! What a fact is: who it is about, what it says, when it became true for us, and the 64 bytes of a tick.
//!
//! Nothing here does I/O or reads a clock, and a tick's path does not allocate. The layouts are law: every offset is
//! asserted at compile time and drawn in `storage/README.md`.
//!
//! Source: `design.md`, sections "Identity and placement", "Time" and "Facts".
#![no_std]

extern crate alloc;

mod bytes;
mod decimal;
mod entity;
mod fact;
mod keep;
mod length;
mod tick;
mod tx;
mod value;

pub use bytes::Bytes;
pub use decimal::{DECIMAL_DIGITS, Decimal, NoDecimal};
pub use entity::{EntityId, Kind, MarketName, NameError, ORDINALS_PER_SLOT, SEQUENCES_PER_ORDINAL, SLOTS, Slot};
pub use fact::{AttributeName, Datom, Entity, FactError, FactFlaw, Given, OPS_MAX, Op, TEMPID_BYTES_MAX, Transaction};
pub use keep::Keep;
pub use length::{Length, read_length};
pub use tick::{Flaw, Quote, ROW_BYTES, Row, Side, Tick, flags, received_delta};
pub use tx::{Instant, Position, Tx};
pub use value::{Floats, KEYWORD_BYTES_MAX, VALUE_BYTES_MAX, Value, ValueType, keyword_flaw};
