//! Every bound of the gateway, with its unit and its reason.
//!
//! Whatever the senders do, the gateway holds at most [`BODIES_BYTES`] of bodies, about four times that while they are
//! read and sent, and [`WATCHERS`] streams of [`EVENTS_AHEAD`] events.

use myelin_wire::{BarRow, TopAsk};
use std::time::Duration;

/// Open connections; a further one is closed at once, as on a data core.
pub const CONNECTIONS: usize = 1024;
/// Reads that ask the node at the same time; a further one is told to come back.
pub const READS: usize = 128;
/// Bodies that are under way at the same time, apart from reads, so that slow senders hold up each other only.
pub const UPLOADS: usize = 128;
/// Streams of firings or of the log at the same time.
pub const WATCHERS: usize = 128;
/// Reflexes that stand only as long as somebody watches them.
pub const GUESTS: usize = 4096;
/// How long such a reflex waits for its watcher to come back: a few attempts of a browser to connect again.
pub const GUEST_STAYS: Duration = Duration::from_secs(60);

/// A request's head, and what is read ahead of a body. **Units:** bytes.
pub const HEAD_BYTES: usize = 64 << 10;
/// A head that is not whole by then ends the connection, and so does a connection that asks nothing.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// A body as it is sent. **Units:** bytes.
pub const BODY_BYTES: usize = 8 << 20;
/// A body when it is unpacked: what 262,144 raw rows take. **Units:** bytes.
pub const DECODED_BYTES: usize = 16 << 20;
/// Rows of a request, however short their text.
pub const ROWS: usize = DECODED_BYTES / 64;
/// The window a packed body may ask for: 8 MiB, as `zstd -19` does. **Units:** log2 of bytes.
pub const ZSTD_WINDOW_LOG: u32 = 23;
/// All bodies that are under way, sent and unpacked. **Units:** bytes.
pub const BODIES_BYTES: usize = 64 << 20;
/// What any body may take, however short.
pub const BODY_GRACE: Duration = Duration::from_secs(3);
/// Beyond the grace a body has to come this fast, over all. **Units:** bytes a second.
pub const BODY_RATE: u64 = 64 << 10;
/// A body that is refused unread is read on for so long, so that the sender sees the answer.
pub const DRAIN_WITHIN: Duration = Duration::from_millis(500);
/// Likewise. **Units:** bytes.
pub const DRAIN_BYTES: usize = 4 * BODY_BYTES;
/// Bodies above this are read on a thread of their own. **Units:** bytes; about 1 ms.
pub const INLINE_BYTES: usize = 32 << 10;
/// Threads that read such bodies: the data cores need the others.
pub const BODY_THREADS: usize = 2;

/// How long the node may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// How long a shard may say `Busy` before the sender is told.
pub const BUSY_FOR: Duration = Duration::from_secs(1);
/// What the system may keep of a response that is not taken. **Units:** bytes.
pub const SEND_BYTES: usize = 256 << 10;
/// A response of which nothing was taken for so long is given up with its connection.
pub const STALL_WITHIN: Duration = Duration::from_secs(30);

/// Rows in one frame to a shard: the 1 MiB that a body may have.
pub const ROWS_PER_FRAME: usize = 16 << 10;
/// Bad rows that are told one by one.
pub const BAD_ROWS: usize = 100;
/// Rows in one answer: what a page of the wire's has at most.
pub const ROWS_PER_PAGE: u32 = 8192;
/// Markets in one answer of the greatest: what a shard gives.
pub const TOP: u64 = TopAsk::LIMIT_MAX;
/// Bars in one answer: what one of the wire's has at most.
pub const BARS: u64 = BarRow::MAX as u64;
/// Facts in one answer: each may hold 16 KiB.
pub const DATOMS: usize = 2_000;
/// Names and ids of markets that are remembered; above it they are asked for again.
pub const MARKETS: usize = 1 << 18;

/// The files of the certificate are looked at this often: a renewed one is shown soon, and a look is two calls.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Events that wait for one watcher.
pub const EVENTS_AHEAD: usize = 256;
/// What is on its way from the node for one watcher and shard. **Units:** firings of 128 bytes, or credits of a tail.
pub const FIRINGS_WINDOW: u32 = 512;
/// A watcher for whom no event was taken for so long is too slow.
pub const SLOW_AFTER: Duration = Duration::from_secs(5);
/// A comment this often tells both ends that the line stands.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
