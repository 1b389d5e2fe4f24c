//! Reading the small bodies: a cursor that never goes past the end.
//!
//! Rows never pass here: they are used in place. Strings are a u16 length and UTF-8.

/// The body ended, a string in it is not UTF-8, or what stands there has no sense, at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is short, not text or without sense at byte {at}")]
pub struct Short {
    /// Where in the body.
    pub at: usize,
}

/// A place in a body.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let short = Short { at: self.at };
        let end = self.at.checked_add(len).ok_or(short)?;
        let taken = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next eight bytes as a signed number.
    pub fn i64(&mut self) -> Result<i64, Short> {
        self.array().map(i64::from_le_bytes)
    }

    /// A string: u16 length, UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Short> {
        let at = self.at;
        let len = self.u16()?;
        core::str::from_utf8(self.take(usize::from(len))?).map_err(|_| Short { at })
    }

    /// For who read something that could not have been written.
    #[must_use]
    pub const fn senseless(&self) -> Short {
        Short { at: self.at }
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// True at the end.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Nothing may follow.
    pub const fn end(&self) -> Result<(), Short> {
        if self.is_done() { Ok(()) } else { Err(Short { at: self.at }) }
    }
}

/// Writes a string as [`Cursor::text`] reads it; what does not fit in a u16 is cut at a character.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..len]);
}
