//! Memory that a direct write accepts: whole blocks, at addresses that are multiples of a block.
//!
//! The alignment is a property of the type, so no unsafe code has to promise it.

use bytemuck::Zeroable;

use crate::BLOCK_BYTES;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

/// A buffer of whole, aligned blocks. Never grows.
pub(crate) struct Buffer(Box<[Block]>);

impl Buffer {
    /// Zeroed, at least `bytes` long.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![Block::zeroed(); bytes.div_ceil(BLOCK_BYTES)].into_boxed_slice())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len() * BLOCK_BYTES
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Buffer").field(&self.len()).finish()
    }
}

/// The next multiple of a block at or above.
pub(crate) const fn block_up(at: usize) -> usize {
    at.next_multiple_of(BLOCK_BYTES)
}

/// The last multiple of a block at or below.
pub(crate) const fn block_down(at: u64) -> u64 {
    at - at % BLOCK_BYTES as u64
}
