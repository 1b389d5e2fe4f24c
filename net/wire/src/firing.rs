//! One firing as it is pushed: 128 bytes, fixed.
//!
//! ```text
//!  0 reflex:8 | 8 tx:8 | 16 n:4 | 20 kind:1 | 21 zero:1 | 22 slot:2 | 24 value:8 | 32 basis:8
//! 40 received_ns:8 | 48 durable_ns:8 | 56 fired_ns:8 | 64 the tick, 64 bytes
//! ```
//!
//! `(slot, tx, n, reflex)` is the firing's id, equal on every replica. The three instants are the stage timeline by the
//! node's clock; they are zero in firings that were derived from history. `src/reflex/firing.rs` says what the two values
//! mean for each kind.

use myelin_datom::Tick;

/// **Units:** bytes.
pub const FIRING_BYTES: usize = 128;

/// One firing. **Shape:** 128 bytes, little-endian, as drawn above.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct FiringRow {
    /// The reflex that fired.
    pub reflex: u64,
    /// The transaction of the tick.
    pub tx: u64,
    /// The tick's row within its transaction.
    pub n: u32,
    /// Which predicate became true.
    pub kind: u8,
    /// Zero.
    pub zero_21: u8,
    /// The market's slot.
    pub slot: u16,
    /// What was measured: bits of an f64, or an id.
    pub value: u64,
    /// What it was measured against, likewise.
    pub basis: u64,
    /// When the frame was decoded. **Units:** Unix nanoseconds.
    pub received_ns: i64,
    /// When its record was durable. **Units:** Unix nanoseconds.
    pub durable_ns: i64,
    /// When it fired. **Units:** Unix nanoseconds.
    pub fired_ns: i64,
    /// The tick itself.
    pub tick: Tick,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<FiringRow>() == FIRING_BYTES);
    assert!(offset_of!(FiringRow, tx) == 8);
    assert!(offset_of!(FiringRow, n) == 16);
    assert!(offset_of!(FiringRow, kind) == 20);
    assert!(offset_of!(FiringRow, slot) == 22);
    assert!(offset_of!(FiringRow, value) == 24);
    assert!(offset_of!(FiringRow, basis) == 32);
    assert!(offset_of!(FiringRow, received_ns) == 40);
    assert!(offset_of!(FiringRow, fired_ns) == 56);
    assert!(offset_of!(FiringRow, tick) == 64);
};
