//! Reading little-endian fields from foreign bytes: every read is bounded, every refusal says where and why.
//!
//! Deliberately absent: files. [`Malformed`] becomes an [`IndexError`](crate::IndexError) where the file is known.

/// What is wrong with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// **Units:** bytes from the start of the input.
    pub at: u64,
    pub what: &'static str,
    pub expected: u64,
    pub found: u64,
}

/// A cursor over foreign bytes.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let left = self.left();
        if len > left {
            return Err(Malformed { at: self.at(), what: "bytes left", expected: len as u64, found: left as u64 });
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// So many bytes that have no meaning yet: whoever gives them one is of a later version.
    pub(crate) fn zeros(&mut self, len: usize) -> Result<(), Malformed> {
        let set = self.take(len)?.iter().filter(|&&byte| byte != 0).count();
        self.expect("bytes without a meaning", set == 0, 0, set as u64)
    }

    /// Refuses here unless `holds`.
    pub(crate) fn expect(&self, what: &'static str, holds: bool, expected: u64, found: u64) -> Result<(), Malformed> {
        if holds { Ok(()) } else { Err(Malformed { at: self.at(), what, expected, found }) }
    }
}
