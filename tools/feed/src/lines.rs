//! Bytes to lines, with a bound: a window slides over the input and never holds more than one line and one read.
//!
//! ```text
//!   buffer   [ given out | start .... scanned .... end | free ]
//!              done        one line being looked for      next read
//! ```
//!
//! A line ends at `\n` or at the end of the input; one `\r` before it belongs to the ending. A line above the bound is
//! reported once, at once, and its rest is thrown away as it arrives. Deliberately absent: any idea of what a
//! line says.

use std::io::{self, Read};

/// **Units:** bytes asked of the input at first; a feed on a pipe is seldom faster.
const FIRST_READ_BYTES: usize = 8 * 1024;
/// **Units:** bytes asked of an input that fills every read. More was no faster.
const READ_BYTES: usize = 256 * 1024;

pub(crate) struct Lines {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    ended: bool,
    /// The last read left no room.
    filled: bool,
    /// The rest of a line that was too long is still to be thrown away.
    discarding: bool,
    line: u64,
    line_bytes_max: usize,
    /// Where the line that was given out last began, until the window slides.
    given: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Text(&'a [u8]),
    /// As many of its first bytes as a line may have.
    TooLong(&'a [u8]),
    End,
}

impl Lines {
    pub(crate) fn new(input: Box<dyn Read + Send>, line_bytes_max: usize) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            end: 0,
            ended: false,
            filled: false,
            discarding: false,
            line: 0,
            line_bytes_max,
            given: None,
        }
    }

    /// **Units:** lines, from 1: the one given out last.
    pub(crate) fn number(&self) -> u64 {
        self.line
    }

    /// Gives the last line out again; at the end, where [`Lines::next`] gave none, nothing happens.
    pub(crate) fn put_back(&mut self) {
        if let Some(given) = self.given.take() {
            self.start = given;
            self.scanned = given;
            self.line -= 1;
        }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> io::Result<Line<'_>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..self.end]) {
                let (from, to) = (self.start, self.scanned + at);
                self.start = to + 1;
                self.scanned = to + 1;
                if std::mem::take(&mut self.discarding) {
                    continue;
                }
                return Ok(self.give(from, to));
            }
            if let Some((from, to)) = self.fill()? {
                return Ok(if from == to { Line::End } else { self.give(from, to) });
            }
        }
    }

    #[inline]
    fn give(&mut self, from: usize, to: usize) -> Line<'_> {
        self.line += 1;
        self.given = Some(from);
        let mut text = &self.buffer[from..to];
        if self.line == 1 {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        text = text.strip_suffix(b"\r").unwrap_or(text);
        match text.get(..self.line_bytes_max) {
            Some(head) if head.len() < text.len() => Line::TooLong(head),
            _ => Line::Text(text),
        }
    }

    /// Reads on. Gives a range when there is something to give out without a newline: an overlong line's beginning, the
    /// last line, or an empty range at the end.
    #[cold]
    fn fill(&mut self) -> io::Result<Option<(usize, usize)>> {
        self.given = None;
        self.scanned = self.end;
        if self.discarding {
            self.start = self.end;
        } else if self.end - self.start > self.line_bytes_max.saturating_add(5) {
            // Five more for a byte order mark and a line ending, which do not count.
            let range = (self.start, self.end);
            self.discarding = true;
            self.start = self.end;
            return Ok(Some(range));
        }
        if self.ended {
            let range = (self.start, self.end);
            self.start = self.end;
            return Ok(Some(range));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.scanned = self.end;
        let free = self.buffer.len() - self.end;
        if free < FIRST_READ_BYTES || (self.filled && self.buffer.len() < READ_BYTES) {
            self.buffer.resize((2 * self.buffer.len()).max(FIRST_READ_BYTES), 0);
        }
        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.end = (self.end + read).min(self.buffer.len());
                    self.filled = self.end == self.buffer.len();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most `step` bytes a read.
    struct Drip(Vec<u8>, usize, usize);

    impl Read for Drip {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.2.min(into.len()).min(self.0.len() - self.1);
            into[..count].copy_from_slice(&self.0[self.1..self.1 + count]);
            self.1 += count;
            Ok(count)
        }
    }

    fn check(text: &str, max: usize, expected: &[&str]) {
        for step in [1, 2, 3, 7, 1 << 20] {
            let mut lines = Lines::new(Box::new(Drip(text.as_bytes().to_vec(), 0, step)), max);
            let mut got = Vec::new();
            loop {
                match lines.next().unwrap() {
                    Line::Text(text) => got.push(String::from_utf8(text.to_vec()).unwrap()),
                    Line::TooLong(_) => got.push("<too long>".to_owned()),
                    Line::End => break,
                }
                assert_eq!(lines.number(), got.len() as u64);
            }
            assert_eq!(got, expected, "{text:?} by {step}");
            assert_eq!(lines.next().unwrap(), Line::End);
        }
    }

    #[test]
    fn lines_do_not_depend_on_how_the_input_arrives() {
        check("", 9, &[]);
        check("\n", 9, &[""]);
        check("a,b\r\n\nc", 9, &["a,b", "", "c"]);
        check("\u{feff}a\nb\n", 9, &["a", "b"]);
        check("\r\n", 9, &[""]);
        check("123456789\r\n1234567890\nx", 9, &["123456789", "<too long>", "x"]);
        check("1\n01234567890123456789012345678901234567890123456789\nx\n", 9, &["1", "<too long>", "x"]);
        check("01234567890123456789012345678901234567890123456789", 9, &["<too long>"]);
    }

    #[test]
    fn an_endless_line_does_not_grow_the_buffer() {
        let mut lines = Lines::new(Box::new(io::repeat(b'x').take(64 << 20)), 1 << 20);
        assert!(matches!(lines.next().unwrap(), Line::TooLong(_)));
        assert_eq!(lines.next().unwrap(), Line::End);
        assert!(lines.buffer.len() <= 2 << 20, "{}", lines.buffer.len());
    }

    #[test]
    fn a_line_can_be_put_back() {
        let mut lines = Lines::new(Box::new(&b"\xef\xbb\xbfone\ntwo\n"[..]), 9);
        for _ in 0..3 {
            assert_eq!(lines.next().unwrap(), Line::Text(b"one"));
            lines.put_back();
        }
        assert_eq!(lines.next().unwrap(), Line::Text(b"one"));
        assert_eq!(lines.next().unwrap(), Line::Text(b"two"));
        assert_eq!(lines.number(), 2);
    }
}
