//! The Rust client of Myelin: markets, ticks, quotes and facts in, counts, bars, datoms and firings out.
//!
//! ```text
//!   Client --split by slot--> Link (sans-IO: sessions, reads, subscriptions) <--frames--> driver (a task) <--> socket
//! ```
//!
//! Invariants: a write is executed at most once, also when the line is cut and after `Busy`; its outcome is one of done,
//! refused, unknown; nothing waits without a bound. Deliberately absent: a runtime of its
//! own, decoding of reflexes (they are bytes here).

mod client;
mod driver;
mod error;
mod facts;
mod link;
mod options;
mod read;
mod retention;
mod session;
mod split;
mod subscribe;
mod subscriptions;
mod tail;
mod transport;
mod write;

pub use client::Client;
pub use error::{Error, Lost, Refusal};
pub use facts::{Facts, Place, Transacted};
pub use options::{Options, Tls};
pub use read::{Answer, At, MarketRows, Page, Placed, ShardStatus, Stretch, TickPage};
pub use session::Reply;
pub use subscribe::{Firing, News, Subscription};
pub use subscriptions::{FiringPlace, TailPlace};
pub use tail::{Tail, TailNews, TailWanted};
pub use write::{Ack, Mode, Outcome, Part, RowVerdict, Sent, SentPart};

pub use myelin_datom as datom;
pub use myelin_wire as wire;
