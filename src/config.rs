//! Every limit and default, with its unit and its reason; checked once, then passed down.
//!
//! Deliberately absent: reading files or the environment (the command line does), and any default hidden elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::guard::Guard;
use crate::runtime::Wanted;
use crate::shard::entry::PROPOSAL_BYTES;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the node remembers.
    pub data_dir: PathBuf,
    /// Where core 0 listens; core k listens k ports higher, or wherever there is room.
    pub listen: SocketAddr,
    /// The gateway's address.
    pub http: SocketAddr,
    /// The two are defaults nobody asked for: one that is taken moves to the next free port. A port that was asked for does
    /// not.
    pub listen_moves: bool,
    /// See [`Config::listen_moves`].
    pub http_moves: bool,
    /// Shards of this node; `None` = one per data core. Fixed when the data directory is made.
    pub shards: Option<u16>,
    /// Who runs the data cores.
    pub executor: Wanted,
    /// All shards on one thread, small buffers.
    pub lean: bool,
    /// Whether data cores are pinned.
    pub pin: bool,
    /// Who may speak to it.
    pub guard: Guard,
    /// Whether sync threads and data cores ask for real-time priority.
    pub realtime: bool,
    /// Everything that has a bound.
    pub limits: Limits,
}

/// The bounds. Nothing grows past one of these; what would is refused or waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A frame's body. Half of the log's longest payload, so that any frame fits a record. **Units:** bytes.
    pub max_body_bytes: u32,
    /// Connections a core serves; a further one is closed at once.
    pub connections_per_core: usize,
    /// A connection's first frame, the hello, is whole so long after it was opened, or the connection ends; over TLS the
    /// handshake is in it. **Units:** milliseconds.
    pub hello_within_ms: u64,
    /// A frame that began is whole so long after its first byte, or the connection ends. Enough for the longest frame at 2
    /// Mbit/s. **Units:** milliseconds.
    pub frame_within_ms: u64,
    /// Requests a connection may have under way before it is no longer read. Granted as credit.
    pub requests_per_connection: u32,
    /// Replies and pushes that wait for a slow reader; at twice this it is cut off. **Units:** bytes.
    pub outbox_bytes: usize,
    /// Sessions of a shard; the one that was silent longest makes room.
    pub sessions_per_shard: usize,
    /// Markets of a shard.
    pub markets_per_shard: usize,
    /// Reflexes of a shard.
    pub reflexes_per_shard: usize,
    /// Subscriptions of a shard.
    pub subscriptions_per_shard: usize,
    /// Firings a shard keeps at hand for subscribers that lag; older ones are derived again from ticks. A power of two
    /// times 128 bytes of memory.
    pub firings_at_hand: usize,
    /// Reads of a shard that wait for their moment to be closed.
    pub waiting_reads_per_shard: usize,
    /// `Busy` when the smallest admit-to-commit time of the last 100 ms is above this. **Units:** microseconds.
    pub max_sync_latency_us: u64,
    /// How far ahead of our clock a read may ask. **Units:** milliseconds.
    pub max_clock_offset_ms: u64,
    /// A segment of the log. **Units:** bytes.
    pub segment_bytes: u64,
    /// One buffer of the log; a sync carries at most this. **Units:** bytes.
    pub batch_bytes: usize,
    /// Buffers of the log: one fills, one syncs, one is applied.
    pub batch_buffers: usize,
    /// Segments of one core's log at most.
    pub max_segments: u32,
    /// Rows in memory at which a core seals its newest part into runs. **Units:** rows of 64 bytes.
    pub seal_rows: u64,
    /// Log written since the last checkpoint at which a core seals, however few rows. Bounds the replay at a start.
    /// **Units:** bytes.
    pub seal_log_bytes: u64,
    /// Rows that no run holds yet at which a core answers `Busy`. Memory holds them and the part that is being sealed, so
    /// at most twice as many. **Units:** rows of 64 bytes.
    pub unsealed_rows_max: u64,
    /// Decoded blocks kept per shard and kind. **Units:** bytes.
    pub block_cache_bytes: usize,
    /// Items a ring between two threads holds.
    pub ring_items: usize,
    /// How long a core's CPU is kept from halting while its log syncs; a quarter of it once the sync is done. Only idle
    /// time is used, and power; 0 where either is rationed. **Units:** microseconds.
    pub awake_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            connections_per_core: 4096,
            hello_within_ms: 5_000,
            frame_within_ms: 5_000,
            requests_per_connection: 1024,
            outbox_bytes: 4 << 20,
            sessions_per_shard: 4096,
            markets_per_shard: 100_000,
            reflexes_per_shard: 2_000_000,
            subscriptions_per_shard: 1024,
            firings_at_hand: 1 << 16,
            waiting_reads_per_shard: 1024,
            max_sync_latency_us: 10_000,
            max_clock_offset_ms: 250,
            segment_bytes: 64 << 20,
            batch_bytes: 8 << 20,
            batch_buffers: 3,
            max_segments: 64,
            seal_rows: 1_000_000,
            seal_log_bytes: 128 << 20,
            unsealed_rows_max: 2_000_000,
            block_cache_bytes: 64 << 20,
            ring_items: 1024,
            awake_us: 200,
        }
    }
}

impl Limits {
    /// The bounds of `--lean`: a node that fits beside other work.
    #[must_use]
    pub fn lean() -> Self {
        Self {
            segment_bytes: 8 << 20,
            batch_bytes: 3 << 20,
            seal_rows: 100_000,
            seal_log_bytes: 16 << 20,
            unsealed_rows_max: 500_000,
            block_cache_bytes: 8 << 20,
            firings_at_hand: 1 << 13,
            awake_us: 0,
            ..Self::default()
        }
    }

    /// The same with segments of another size, and batches and frames that fit them. **Units:** bytes.
    #[must_use]
    pub fn with_segment_bytes(self, bytes: u64) -> Self {
        let batch = (bytes / 2).next_multiple_of(4096).min(self.batch_bytes as u64);
        let body = (bytes / 8).min(u64::from(self.max_body_bytes));
        Self { segment_bytes: bytes, batch_bytes: batch as usize, max_body_bytes: body as u32, ..self }
    }

    /// Any frame, as it goes into a record. **Units:** bytes.
    #[must_use]
    pub const fn max_proposal(&self) -> usize {
        self.max_body_bytes as usize + PROPOSAL_BYTES + 8
    }

    /// The log's longest payload: any frame, and what has gathered before it. **Units:** bytes.
    #[must_use]
    pub const fn max_payload(&self) -> usize {
        self.max_proposal() + RECORD_GATHER_BYTES
    }
}

/// Proposals of one shard and kind gather in a record up to this. **Units:** bytes.
pub const RECORD_GATHER_BYTES: usize = 64 << 10;
