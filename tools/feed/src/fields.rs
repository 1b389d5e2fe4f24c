//! One line of CSV to its fields: RFC 4180, except that a quoted field ends on its line.
//!
//! A line without a quote is cut in place; a line with one is spelled out into a scratch buffer first. Deliberately
//! absent: quoted line breaks (a bad row must not swallow the next) and trimming (a space is part of a field).

use crate::error::{Fault, WHOLE_LINE};

/// Reused from line to line.
#[derive(Default)]
pub(crate) struct Fields {
    ranges: Vec<(u32, u32)>,
    scratch: Vec<u8>,
}

/// The fields of one line.
#[derive(Clone, Copy)]
pub(crate) struct Cut<'a> {
    text: &'a [u8],
    ranges: &'a [(u32, u32)],
}

impl<'a> Cut<'a> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Empty when there is no such field.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> &'a [u8] {
        match self.ranges.get(at) {
            Some(&(from, to)) => self.text.get(from as usize..to as usize).unwrap_or_default(),
            None => b"",
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(move |at| self.get(at))
    }
}

impl Fields {
    #[inline]
    pub(crate) fn cut<'a>(&'a mut self, line: &'a [u8], delimiter: u8) -> Result<Cut<'a>, Fault<'a>> {
        self.ranges.clear();
        let mut from = 0;
        for at in memchr::memchr2_iter(delimiter, b'"', line) {
            if line[at] == b'"' {
                return self.cut_quoted(line, delimiter);
            }
            self.ranges.push((from, at as u32));
            from = at as u32 + 1;
        }
        self.ranges.push((from, line.len() as u32));
        Ok(Cut { text: line, ranges: &self.ranges })
    }

    #[cold]
    fn cut_quoted<'a>(&'a mut self, line: &'a [u8], delimiter: u8) -> Result<Cut<'a>, Fault<'a>> {
        self.ranges.clear();
        self.scratch.clear();
        let mut rest = line;
        loop {
            let from = self.scratch.len() as u32;
            let after = match rest.strip_prefix(b"\"") {
                Some(quoted) => unquote(quoted, &mut self.scratch)
                    .ok_or_else(|| Fault::text(WHOLE_LINE, "a closing quote on the same line", rest))?,
                None => {
                    let (field, after) = rest.split_at(memchr::memchr(delimiter, rest).unwrap_or(rest.len()));
                    self.scratch.extend_from_slice(field);
                    after
                }
            };
            self.ranges.push((from, self.scratch.len() as u32));
            match after.split_first() {
                None => return Ok(Cut { text: &self.scratch, ranges: &self.ranges }),
                Some((&byte, next)) if byte == delimiter => rest = next,
                Some(_) => return Err(Fault::text(WHOLE_LINE, "a delimiter after a closing quote", after)),
            }
        }
    }
}

/// Spells out a field after its opening quote; gives what follows its closing quote.
fn unquote<'a>(mut text: &'a [u8], into: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (before, after) = text.split_at(memchr::memchr(b'"', text)?);
        into.extend_from_slice(before);
        match after {
            [_, b'"', next @ ..] => {
                into.push(b'"');
                text = next;
            }
            [_, next @ ..] => return Some(next),
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, delimiter: u8, expected: Result<&[&str], &str>) {
        let mut fields = Fields::default();
        let got = fields.cut(line.as_bytes(), delimiter);
        match (got, expected) {
            (Ok(cut), Ok(expected)) => {
                let texts: Vec<_> = cut.iter().map(|field| str::from_utf8(field).unwrap()).collect();
                assert_eq!(texts, expected, "{line}");
            }
            (Err(fault), Err(expected)) => assert_eq!(fault.at_line(1).expected, expected, "{line}"),
            (got, _) => assert!(expected.is_err() && got.is_err(), "{line}"),
        }
    }

    #[test]
    fn a_line_is_cut_as_rfc_4180_says() {
        check("a,b,c", b',', Ok(&["a", "b", "c"]));
        check("", b',', Ok(&[""]));
        check(",", b',', Ok(&["", ""]));
        check("a;b,c", b';', Ok(&["a", "b,c"]));
        check("\"a,b\",c", b',', Ok(&["a,b", "c"]));
        check("x,\"say \"\"hi\"\"\",", b',', Ok(&["x", "say \"hi\"", ""]));
        check("\"\",\"\"", b',', Ok(&["", ""]));
        check("5\",6", b',', Ok(&["5\"", "6"]));
        check("a,\"b", b',', Err("a closing quote on the same line"));
        check("\"a\"b,c", b',', Err("a delimiter after a closing quote"));
    }
}
