//! Reading little-endian fields from foreign bytes, never past the end. Only for the bodies of facts.
//!
//! Deliberately absent: recursion, and any allocation by a length that was not proven.

use crate::fact::{FactError, FactFlaw};

/// A place in foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    /// At the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// **Units:** bytes from the start.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// True at the end.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// What is wrong, here.
    #[must_use]
    pub const fn flaw(&self, flaw: FactFlaw) -> FactError {
        FactError { at: self.at, op: u32::MAX, flaw }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], FactError> {
        let short = self.flaw(FactFlaw::Short);
        let end = self.at.checked_add(len).ok_or(short)?;
        let taken = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FactError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, FactError> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16, FactError> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32, FactError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> Result<u64, FactError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next sixteen bytes as a number.
    pub fn u128(&mut self) -> Result<u128, FactError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A string: u16 length, UTF-8.
    pub fn text(&mut self) -> Result<&'a str, FactError> {
        let before = *self;
        let len = self.u16()?;
        core::str::from_utf8(self.take(usize::from(len))?).map_err(|_| before.flaw(FactFlaw::NotText))
    }
}
