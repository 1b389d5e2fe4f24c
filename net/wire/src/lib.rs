//! What is said: frames, byte by byte. Bytes in, frames out, and back; no socket, no clock.
//!
//! ```text
//!   bytes -> frame::decode -> Frame { Header, body } -> Request  (a server reads)
//!                                                    -> Reply    (a client reads)
//! ```
//!
//! Invariants: a frame is checked once (length, header CRC, body CRC) and never copied; no length is believed before it
//! was bounded; every body starts at a multiple of 8 from its frame's start, so rows are used in place. Deliberately
//! absent: rkyv, enums on the wire, compression, any allocation for a frame of rows.
//!
//! `net/README.md` draws every byte; `tests/offsets.rs` asserts what is drawn.

mod body;
mod code;
mod facts;
mod firing;
mod frame;
mod message;
mod retention;
mod tail;
mod top;

pub use body::{Cursor, Short};
pub use code::{Code, HttpCode};
pub use facts::{DatomsAsked, FactsPage, PullAsked, read_tempids, write_tempids};
pub use firing::{FIRING_BYTES, FiringRow};
pub use frame::{
    ALIGN, Frame, HEADER_BYTES, Header, Kind, MAGIC, VERSION, WireError, begin, decode, finish, framed_len, write_frame,
};
pub use message::{
    AckBody, Attribute, BarRow, Hello, MarketFlags, MarketRow, MarketSpec, SlotRange, StoredRow, VwapRow, Welcome,
    markets_body, read_market_rows, read_markets, write_market_row,
};
pub use myelin_datom::Keep;
pub use retention::{PolicyRow, RetainRow};
pub use tail::{
    FROM_NOW, LogKind, Logged, Named, TAIL_ATTRIBUTES_MAX, TAIL_CREDIT_BYTES, TAIL_HEAD_BYTES, TailAsk, TailEntry,
    TailHead, read_tail, tail_credits, write_tail_fact, write_tail_market, write_tail_row,
};
pub use top::{By, TopAsk, TopRow};
