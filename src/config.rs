//! Every limit and default, with its unit and its reason; checked once, then passed down.
//!
//! Deliberately absent: reading files or the environment (the command line does), and any default hidden elsewhere.

use crate::guard::Guard;
use crate::runtime::Wanted;
use crate::shard::entry::PROPOSAL_BYTES;
use myelin_wal::{BLOCK_BYTES, HEADER_BYTES};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the node remembers.
    pub data_dir: PathBuf,
    /// Where core 0 listens; core k listens k ports higher (those passed over that HTTP and probes have), or wherever there is
    /// room if nobody asked for a port.
    pub listen: SocketAddr,
    /// The gateway's address.
    pub http: SocketAddr,
    /// Where probes and metrics are served to whoever reaches it.
    pub admin: SocketAddr,
    /// They are defaults nobody asked for: one that is taken moves to the next free port. A port that was asked for does
    /// not.
    pub listen_moves: bool,
    /// See [`Config::listen_moves`].
    pub http_moves: bool,
    /// See [`Config::listen_moves`].
    pub admin_moves: bool,
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
    /// What was said of limits that a data directory keeps for life, and where: said to no purpose if it has others.
    pub said: Vec<(&'static str, u64, String)>,
}

/// A limit, as it is told: what stands beside it here.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name, as in the file.
    pub key: &'static str,
    /// Its comment, line by line.
    pub doc: &'static [&'static str],
    /// What it may be.
    pub range: RangeInclusive<u64>,
}

/// Ties a limit's key, its comment, its field and its range together: a limit without one of them does not compile.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $key:ident: $kind:ty, $range:expr;)*) => {
        /// The bounds. Nothing grows past one of these; what would is refused or waits.
        #[derive(Clone, Debug)]
        pub struct Limits {
            $($(#[doc = $doc])* pub $key: $kind,)*
        }

        impl Limits {
            /// Every limit, in the order of the file.
            #[must_use]
            pub fn about() -> Vec<About> {
                vec![$(About { key: stringify!($key), doc: &[$($doc),*], range: $range }),*]
            }

            /// Their values, in the same order.
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                let Self { $($key),* } = self;
                vec![$(*$key as u64),*]
            }

            /// Sets one; false when there is none of this name, or its field is too narrow.
            pub fn set(&mut self, key: &str, value: u64) -> bool {
                match key {
                    $(stringify!($key) => value.try_into().map(|value| self.$key = value).is_ok(),)*
                    _ => false,
                }
            }
        }
    };
}

// What each is, in which unit, and what it may be: less does not work, or more is surely a slip of the hand.
limits! {
    /// A frame's body. Half of the log's longest payload, so that any frame fits a record. **Units:** bytes.
    max_body_bytes: u32, 4 << 10..=256 << 20;
    /// Connections a core serves; a further one is closed at once.
    connections_per_core: usize, 1..=1_000_000;
    /// A connection's first frame, the hello, is whole so long after it was opened, or the connection ends; over TLS the
    /// handshake is in it. **Units:** milliseconds.
    hello_within_ms: u64, 10..=600_000;
    /// A frame that began is whole so long after its first byte, or the connection ends. Enough for the longest frame at 2
    /// Mbit/s. **Units:** milliseconds.
    frame_within_ms: u64, 10..=600_000;
    /// Requests a connection may have under way before it is no longer read. Granted as credit.
    requests_per_connection: u32, 1..=1 << 20;
    /// Replies and pushes that wait for a slow reader; at twice this it is cut off. **Units:** bytes.
    outbox_bytes: usize, 64 << 10..=1 << 30;
    /// Sessions of a shard; the one that was silent longest makes room. The gateway takes some, too.
    sessions_per_shard: usize, 16..=1 << 20;
    /// Markets of a shard.
    markets_per_shard: usize, 1..=1 << 20;
    /// Reflexes of a shard.
    reflexes_per_shard: usize, 0..=1 << 26;
    /// Subscriptions of a shard.
    subscriptions_per_shard: usize, 1..=1 << 20;
    /// Firings a shard keeps at hand for subscribers that lag; older ones are derived again from ticks. Each takes 128 bytes
    /// of memory.
    firings_at_hand: usize, 64..=1 << 24;
    /// Reads of a shard that wait for their moment to be closed.
    waiting_reads_per_shard: usize, 1..=1 << 20;
    /// `Busy` when the smallest admit-to-commit time of the last 100 ms is above this. **Units:** microseconds.
    max_sync_latency_us: u64, 100..=60_000_000;
    /// How far ahead of our clock a read may ask. **Units:** milliseconds.
    max_clock_offset_ms: u64, 0..=60_000;
    /// A segment of the log. **Units:** bytes.
    segment_bytes: u64, 1 << 20..=2 << 30;
    /// One buffer of the log; a sync carries at most this. **Units:** bytes.
    batch_bytes: usize, 32 << 10..=1 << 30;
    /// Buffers of the log: one fills, one syncs, one is applied.
    batch_buffers: usize, 2..=64;
    /// Segments of one core's log at most.
    max_segments: u32, 2..=10_000;
    /// Rows in memory at which a core seals its newest part into runs. **Units:** rows of 64 bytes.
    seal_rows: u64, 100..=1 << 32;
    /// Log written since the last checkpoint at which a core seals, however few rows. Bounds the replay at a start.
    /// **Units:** bytes.
    seal_log_bytes: u64, 64 << 10..=1 << 40;
    /// Rows that no run holds yet at which a core answers `Busy`. Memory holds them and the part that is being sealed, so
    /// at most twice as many. **Units:** rows of 64 bytes.
    unsealed_rows_max: u64, 1_000..=1 << 32;
    /// Decoded blocks kept per shard and kind. **Units:** bytes.
    block_cache_bytes: usize, 1 << 20..=1 << 40;
    /// Items a ring between two threads holds.
    ring_items: usize, 16..=1 << 20;
    /// How long a core's CPU is kept from halting while its log syncs; a quarter of it once the sync is done. Only idle
    /// time is used, and power; 0 where either is rationed. **Units:** microseconds.
    awake_us: u64, 0..=100_000;
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

/// A limit outside of its range, or against another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// Which.
    pub key: &'static str,
    /// What it is.
    pub found: u64,
    /// What it may be.
    pub takes: String,
}

impl Limits {
    /// Checks every limit, alone and beside the others: what the log will ask of its own is asked here, under the key's name.
    ///
    /// **Errors:** the first that is outside.
    pub fn check(&self) -> Result<(), OutOfRange> {
        for (about, found) in Self::about().into_iter().zip(self.values()) {
            if !about.range.contains(&found) {
                let (from, to) = about.range.into_inner();
                return Err(OutOfRange { key: about.key, found, takes: format!("{from} to {to}") });
            }
        }
        let block = BLOCK_BYTES as u64;
        let (batch, segment) = (self.batch_bytes as u64, self.segment_bytes);
        let batch_least = (self.max_payload() + HEADER_BYTES) as u64 + 4 * block;
        // A record takes at most a quarter of a segment; the rest of it is not the body's.
        let body_most = (segment / 4).saturating_sub(self.max_payload() as u64 - u64::from(self.max_body_bytes));
        let rules = [
            ("segment_bytes", segment, segment.is_multiple_of(block), format!("multiples of {block}")),
            ("batch_bytes", batch, batch.is_multiple_of(block), format!("multiples of {block}")),
            ("batch_bytes", batch, batch <= segment / 2, format!("at most half of segment_bytes, {}", segment / 2)),
            (
                "max_body_bytes",
                u64::from(self.max_body_bytes),
                u64::from(self.max_body_bytes) <= body_most,
                format!("at most {body_most}, as segment_bytes is {segment}"),
            ),
            (
                "batch_bytes",
                batch,
                batch >= batch_least,
                format!("at least {batch_least}, so that the longest record fits"),
            ),
            (
                "unsealed_rows_max",
                self.unsealed_rows_max,
                self.unsealed_rows_max >= self.seal_rows,
                format!("at least seal_rows, {}: else all writes are refused before any are sealed", self.seal_rows),
            ),
        ];
        match rules.into_iter().find(|(_, _, fits, _)| !fits) {
            Some((key, found, _, takes)) => Err(OutOfRange { key, found, takes }),
            None => Ok(()),
        }
    }

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

/// Limits that a data directory keeps as they were when it was made: what is applied, and where, depends on them.
pub const FOR_LIFE: [&str; 4] = ["segment_bytes", "sessions_per_shard", "markets_per_shard", "reflexes_per_shard"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_and_what_does_not_is_refused_under_its_own_key() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Limits::lean().check(), Ok(()));
        assert_eq!(Limits::lean().with_segment_bytes(1 << 20).check(), Ok(()));
        for (key, value) in [
            ("sessions_per_shard", 0),
            ("markets_per_shard", 0),
            ("unsealed_rows_max", 0),
            ("connections_per_core", 0),
            ("outbox_bytes", 0),
            ("ring_items", 1_000_000_000_000),
            ("firings_at_hand", 7),
            ("batch_buffers", 0),
            ("batch_buffers", 1),
            ("max_segments", 1),
            ("segment_bytes", (64 << 20) + 1),
            ("batch_bytes", 64 << 20),
            ("batch_bytes", 1 << 20),
            ("batch_bytes", (8 << 20) + 7),
            ("max_body_bytes", 16 << 20),
            ("unsealed_rows_max", 999_999),
        ] {
            let mut limits = Limits::default();
            assert!(limits.set(key, value), "{key}");
            let error = limits.check().unwrap_err();
            assert_eq!((error.key, error.found), (key, value), "{error:?}");
        }
    }

    /// Whatever passes here is taken by the log.
    #[test]
    fn the_log_takes_what_is_in_range() {
        let identity = crate::identity::Identity::drawn(1, 1, &Limits::default());
        for about in Limits::about() {
            for value in [*about.range.start(), *about.range.end()] {
                let mut limits = Limits::default();
                if limits.set(about.key, value) && limits.check().is_ok() {
                    let log = identity.wal_config(0, &limits);
                    assert!(log.check().is_ok(), "{} = {value}: {:?}", about.key, log.check());
                }
            }
        }
    }
}
