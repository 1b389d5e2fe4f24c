//! One JSON object to a draft: a flat object of known keys, read in one pass, with nothing allocated but escaped text.
//!
//! ```text
//!   {"market":"v:BTC","id":"7","event_time_ns":1723161255342000000,"price":"61837.63","volume":0.02,"side":"sell"}
//! ```
//!
//! RFC 8259, strictly; a number may also be a decimal string; `null` is as good as absent; a key twice, a key that is
//! not ours and a nested value are refused by name. Deliberately absent: a tree, recursion, and so any depth to attack.

use std::borrow::Cow;

use crate::columns::{Field, How};
use crate::draft::{Draft, RowKind};
use crate::error::{Expected, Fault, Found, WHOLE_LINE};

enum Value<'a> {
    Text(Cow<'a, [u8]>),
    Number(&'a [u8]),
    Truth(&'a [u8]),
    Null,
}

/// Reads one line as a row of this kind.
pub(crate) fn draft(line: &[u8], kind: RowKind) -> Result<Draft<'_>, Fault<'_>> {
    if str::from_utf8(line).is_err() {
        return Err(Fault::text(WHOLE_LINE, "UTF-8", line));
    }
    let mut cursor = Cursor { rest: line };
    let mut draft = Draft::new();
    let mut seen = 0_u16;
    cursor.skip_space();
    cursor.token(b'{', "an object: {")?;
    cursor.skip_space();
    if cursor.rest.first() == Some(&b'}') {
        cursor.advance(1);
    } else {
        loop {
            cursor.skip_space();
            pair(&mut cursor, &mut draft, kind, &mut seen)?;
            cursor.skip_space();
            match cursor.rest.first() {
                Some(b',') => cursor.advance(1),
                Some(b'}') => break cursor.advance(1),
                _ => return Err(cursor.fault("a comma or a closing brace")),
            }
        }
    }
    cursor.skip_space();
    if cursor.rest.is_empty() { Ok(draft) } else { Err(cursor.fault("the end of the line after the object")) }
}

fn pair<'a>(cursor: &mut Cursor<'a>, draft: &mut Draft<'a>, kind: RowKind, seen: &mut u16) -> Result<(), Fault<'a>> {
    let (spelled, key) = cursor.string("a key in quotes")?;
    let (field, how) = match Field::of_key(&key) {
        Some((field, how)) if field.belongs_to(kind) => (field, how),
        _ => return Err(Fault::text(spelled, known_keys(kind), spelled)),
    };
    if *seen & field.bit() != 0 {
        return Err(Fault::text(spelled, "each field once, under one key", spelled));
    }
    *seen |= field.bit();
    cursor.skip_space();
    cursor.token(b':', "a colon after the key")?;
    cursor.skip_space();
    let before = cursor.rest;
    let value = cursor.value(spelled)?;
    let shown = &before[..before.len() - cursor.rest.len()];
    take(draft, field, how, value).map_err(|expected| Fault { column: spelled, expected, found: Found::Bytes(shown) })
}

fn take<'a>(draft: &mut Draft<'a>, field: Field, how: How, value: Value<'a>) -> Result<(), Expected> {
    match (field, value) {
        (_, Value::Null) => Ok(()),
        (Field::Market, Value::Text(name)) => {
            draft.set_market(name);
            Ok(())
        }
        (Field::Corrects, Value::Truth(text)) => draft.set(field, how, text),
        (_, Value::Truth(_)) => Err(Expected::Text("a number, text in quotes, or null")),
        (_, Value::Text(text)) => draft.set(field, how, &text),
        (_, Value::Number(text)) => draft.set(field, how, text),
    }
}

const fn known_keys(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Ticks => {
            "a key of a tick: market, id, event_time[_ns|_us|_ms|_s], received_time[_ns|_us|_ms|_s], price, volume, \
             side, trader, source, corrects"
        }
        RowKind::Quotes => {
            "a key of a quote: market, id, event_time[_ns|_us|_ms|_s], received_time[_ns|_us|_ms|_s], bid, bid_volume, \
             ask, ask_volume, source"
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn fault(&self, expected: &'static str) -> Fault<'a> {
        Fault::text(WHOLE_LINE, expected, self.rest)
    }

    fn token(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault<'a>> {
        if self.rest.first() != Some(&byte) {
            return Err(self.fault(expected));
        }
        self.advance(1);
        Ok(())
    }

    fn value(&mut self, key: &'a [u8]) -> Result<Value<'a>, Fault<'a>> {
        match self.rest.first() {
            Some(b'"') => Ok(Value::Text(self.string("text in quotes")?.1)),
            Some(b'-' | b'0'..=b'9') => self.number(key),
            Some(b'n') if self.rest.starts_with(b"null") => {
                self.advance(4);
                Ok(Value::Null)
            }
            Some(b't' | b'f') => {
                let truth: &[u8] = if self.rest.starts_with(b"t") { b"true" } else { b"false" };
                let text = self.rest.get(..truth.len()).filter(|text| *text == truth);
                let text = text.ok_or_else(|| Fault::text(key, "a value as JSON has them", self.rest))?;
                self.advance(truth.len());
                Ok(Value::Truth(text))
            }
            _ => Err(Fault::text(key, "a number, text in quotes, or null", self.rest)),
        }
    }

    /// The text between the quotes, as spelled and as meant.
    fn string(&mut self, expected: &'static str) -> Result<(&'a [u8], Cow<'a, [u8]>), Fault<'a>> {
        let body = match self.rest.split_first() {
            Some((b'"', body)) => body,
            _ => return Err(self.fault(expected)),
        };
        let mut meant: Option<Vec<u8>> = None;
        let mut at = 0;
        loop {
            match body.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let meant = meant.get_or_insert_with(|| body[..at].to_vec());
                    let used = unescape(&body[at..], meant)
                        .ok_or_else(|| Fault::text(WHOLE_LINE, "an escape as JSON has them", &body[at..]))?;
                    at += used;
                }
                Some(&byte) if byte >= 0x20 => {
                    if let Some(meant) = &mut meant {
                        meant.push(byte);
                    }
                    at += 1;
                }
                _ => {
                    return Err(Fault::text(
                        WHOLE_LINE,
                        "a closing quote before the line or a control character",
                        self.rest,
                    ));
                }
            }
        }
        self.rest = &body[at + 1..];
        Ok((&body[..at], meant.map_or(Cow::Borrowed(&body[..at]), Cow::Owned)))
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self, key: &'a [u8]) -> Result<Value<'a>, Fault<'a>> {
        let text = self.rest;
        let digits =
            |from: usize| text.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
        let sign = usize::from(text.first() == Some(&b'-'));
        let whole = digits(sign);
        let mut end = sign + whole;
        let mut sound = whole == 1 || (whole > 1 && text.get(sign) != Some(&b'0'));
        if text.get(end) == Some(&b'.') {
            let part = digits(end + 1);
            sound &= part > 0;
            end += 1 + part;
        }
        if matches!(text.get(end), Some(b'e' | b'E')) {
            let signed = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let part = digits(end + 1 + signed);
            sound &= part > 0;
            end += 1 + signed + part;
        }
        if !sound {
            return Err(Fault::text(key, "a number as JSON has them", text));
        }
        self.advance(end);
        Ok(Value::Number(&text[..end]))
    }
}

/// Writes what an escape means; gives its length.
fn unescape(text: &[u8], into: &mut Vec<u8>) -> Option<usize> {
    let plain = match text.get(1)? {
        b'"' => b'"',
        b'\\' => b'\\',
        b'/' => b'/',
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unicode(text, into),
        _ => return None,
    };
    into.push(plain);
    Some(2)
}

fn unescape_unicode(text: &[u8], into: &mut Vec<u8>) -> Option<usize> {
    let high = four_hex(text.get(2..6)?)?;
    let (code, used) = match high {
        0xd800..=0xdbff => {
            let low = match text.get(6..12)? {
                [b'\\', b'u', hex @ ..] => four_hex(hex)?,
                _ => return None,
            };
            if !(0xdc00..=0xdfff).contains(&low) {
                return None;
            }
            (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12)
        }
        _ => (high, 6),
    };
    // A lone half of a pair is no character.
    let character = char::from_u32(code)?;
    into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(used)
}

fn four_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
}
