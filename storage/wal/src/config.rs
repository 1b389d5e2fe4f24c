//! The limits of one core's log, checked once.
//!
//! `segment_bytes`, `core` and `log_id` are part of what is on disk: a directory keeps them for life. The rest may change between
//! two starts. Deliberately absent: paths (the [`Disk`](crate::Disk) has one) and times (nothing here waits).

use crate::WalError;
use crate::record::HEADER_BYTES;
use crate::segment::SLOTS_MAX;

/// Unit of every write: offsets, lengths and addresses are multiples of it. **Units:** bytes.
pub const BLOCK_BYTES: usize = 4096;

/// The limits of one core's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whose log this is; a directory of another core is refused.
    pub core: u32,
    /// A random number drawn when the log was made, kept by whoever made it; 0 in tests. Files of another log are
    /// refused, and who does not know it cannot write a payload that passes for a record.
    pub log_id: u64,
    /// Size of a segment file with its header block. A multiple of [`BLOCK_BYTES`], 64 KiB to 2 GiB. **Units:** bytes.
    pub segment_bytes: u64,
    /// Longest payload of a record, at most a quarter of a segment. **Units:** bytes.
    pub max_payload: usize,
    /// Size of a batch buffer; a multiple of [`BLOCK_BYTES`], at most half a segment, and a longest record with four
    /// blocks to spare must fit. **Units:** bytes.
    pub batch_bytes: usize,
    /// Batch buffers at most: one filling, one syncing, the rest being applied. At least 2; memory is this times
    /// `batch_bytes`.
    pub buffers: usize,
    /// Segment files at most, spares included.
    pub max_segments: u32,
}

impl Default for Config {
    /// 64 MiB segments, 16 GiB at most; payloads to 1 MiB, gathered in up to three buffers of 4 MiB.
    fn default() -> Self {
        Self {
            core: 0,
            log_id: 0,
            segment_bytes: 64 << 20,
            max_payload: 1 << 20,
            batch_bytes: 4 << 20,
            buffers: 3,
            max_segments: 256,
        }
    }
}

impl Config {
    /// The smallest useful log, for tests: 64 KiB segments, payloads to 8 KiB, batches of 32 KiB.
    #[must_use]
    pub fn tiny(core: u32) -> Self {
        Self {
            core,
            log_id: 0,
            segment_bytes: 64 << 10,
            max_payload: 8 << 10,
            batch_bytes: 32 << 10,
            buffers: 3,
            max_segments: 64,
        }
    }

    /// Says which limit contradicts another. **Errors:** [`WalError::Mismatch`] about `config`.
    pub fn check(&self) -> Result<(), WalError> {
        let block = BLOCK_BYTES as u64;
        let (batch, payload) = (self.batch_bytes as u64, self.max_payload as u64);
        let at_least = |what, found, limit| at(what, found, limit, found >= limit);
        let at_most = |what, found, limit| at(what, found, limit, found <= limit);
        at_least("segment_bytes", self.segment_bytes, 16 * block)?;
        at_most("segment_bytes", self.segment_bytes, 1 << 31)?;
        at("segment_bytes modulo the block", self.segment_bytes % block, 0, self.segment_bytes.is_multiple_of(block))?;
        at_most("max_payload", payload, self.segment_bytes / 4)?;
        at("batch_bytes modulo the block", batch % block, 0, batch.is_multiple_of(block))?;
        at_most("batch_bytes", batch, self.segment_bytes / 2)?;
        at_least("batch_bytes", batch, payload + HEADER_BYTES as u64 + 4 * block)?;
        at_least("buffers", self.buffers as u64, 2)?;
        at_least("max_segments", u64::from(self.max_segments), 2)?;
        at_most("max_segments", u64::from(self.max_segments), u64::from(SLOTS_MAX))
    }
}

fn at(what: &'static str, found: u64, expected: u64, fits: bool) -> Result<(), WalError> {
    if fits { Ok(()) } else { Err(WalError::Mismatch { subject: "config".to_owned(), what, expected, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_and_contradictions_are_refused_by_name() {
        assert!(Config::default().check().is_ok());
        assert!(Config::tiny(3).check().is_ok());
        let tiny = Config::tiny(0);
        for (bad, name) in [
            (Config { segment_bytes: 4096, ..tiny.clone() }, "segment_bytes"),
            (Config { segment_bytes: (64 << 10) + 1, ..tiny.clone() }, "segment_bytes modulo the block"),
            (Config { max_payload: 17 << 10, ..tiny.clone() }, "max_payload"),
            (Config { batch_bytes: 16 << 10, ..tiny.clone() }, "batch_bytes"),
            (Config { batch_bytes: 48 << 10, ..tiny.clone() }, "batch_bytes"),
            (Config { buffers: 1, ..tiny.clone() }, "buffers"),
            (Config { max_segments: 1, ..tiny }, "max_segments"),
        ] {
            assert!(matches!(bad.check(), Err(WalError::Mismatch { what, .. }) if what == name), "{name}");
        }
    }
}
