//! A body's bytes to rows, whatever form they have.
//!
//! ```text
//!   application/json           {"ticks":[..]} | {"quotes":[..]} | [..] -> one object a line \
//!   application/x-ndjson       one object a line ---------------------------------------------> feed reader -> rows, names
//!   application/octet-stream   64 bytes a row, little-endian, market ids inside --------------------------> rows
//! ```
//!
//! Every row is numbered as it stands in the request, from 0, the bad ones counted. The readers are those of
//! `tools/feed`, so a value means the same in a file and in a request: `"corrects":true` corrects an earlier tick of its id.
//! Deliberately absent: what depends on the node.

use super::failure::{BadRow, Failure, HttpCode};
use super::limits;
use axum::http::{HeaderMap, header};
use myelin_datom::{Flaw, Quote, ROW_BYTES, Row, Tick};
use myelin_feed::{Batch, FeedError, Format, OnBadRow, Options, Reader, RowKind};
use myelin_wire::Code;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::io::{Cursor, Read as _};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document.
    Json,
    /// One object a line.
    Ndjson,
    /// 64 bytes a row.
    Raw,
}

impl Form {
    /// As the head says. **Errors:** none, or another: a form is never guessed.
    pub fn of(headers: &HeaderMap) -> Result<Self, Failure> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            "application/octet-stream" => Ok(Self::Raw),
            other => Err(Failure::http(
                HttpCode::UnsupportedMedia,
                format!(
                    "Content-Type is application/json, application/x-ndjson or application/octet-stream, not '{other}'"
                ),
            )),
        }
    }
}

/// What a body holds.
#[derive(Debug, Default)]
pub struct Rows {
    /// Sound rows; of ticks and quotes one is empty.
    pub ticks: Vec<Tick>,
    /// Likewise.
    pub quotes: Vec<Quote>,
    /// The index in `names` of each row's market; empty when rows carry ids.
    pub markets: Vec<u32>,
    /// The names of the markets, each once.
    pub names: Vec<String>,
    /// The number of each sound row in the request.
    pub places: Vec<u32>,
    /// Rows that are not sound.
    pub refused: u32,
    /// The first of them.
    pub bad: Vec<BadRow>,
}

impl Rows {
    /// Notes a row that is not sound.
    fn refuse(&mut self, bad: BadRow) {
        self.refused += 1;
        if self.bad.len() < limits::BAD_ROWS {
            self.bad.push(bad);
        }
    }

    /// Leaves out the sound rows for which `bad` has a reason.
    pub fn leave_out(&mut self, bad: impl Fn(&Self, usize) -> Option<BadRow>) {
        let reasons: Vec<_> = (0..self.places.len()).map(|at| bad(self, at)).collect();
        if reasons.iter().all(Option::is_none) {
            return;
        }
        keep(&mut self.ticks, &reasons);
        keep(&mut self.quotes, &reasons);
        keep(&mut self.markets, &reasons);
        keep(&mut self.places, &reasons);
        reasons.into_iter().flatten().for_each(|bad| self.refuse(bad));
        self.bad.sort_by_key(|bad| bad.row);
    }

    /// Leaves out rows whose shape the node would refuse.
    pub fn leave_out_flawed(&mut self) {
        self.leave_out(|rows, at| {
            let flaw = rows.ticks.get(at).and_then(Row::flaw).or_else(|| rows.quotes.get(at).and_then(Row::flaw));
            flaw.map(|flaw| BadRow::of(rows.places[at], flaw.into()))
        });
    }
}

fn keep<T>(list: &mut Vec<T>, reasons: &[Option<BadRow>]) {
    let mut at = 0;
    list.retain(|_| {
        at += 1;
        reasons.get(at - 1).is_none_or(Option::is_none)
    });
}

/// Reads all of a body. `kind` is what the sender says it holds. **Errors:** a body that is not of its form at all.
pub fn read(form: Form, kind: Option<RowKind>, bytes: &[u8]) -> Result<Rows, Failure> {
    match form {
        Form::Raw => raw(kind.unwrap_or(RowKind::Ticks), bytes),
        Form::Ndjson => lines(kind, bytes),
        Form::Json => {
            let document = document(bytes)?;
            match (kind, document.kind) {
                (Some(said), Some(held)) if said != held => {
                    Err(Failure::http(HttpCode::BadQuery, "the parameter 'kind' says otherwise than the body's key"))
                }
                (said, held) => lines(held.or(said), &document.elements.lines),
            }
        }
    }
}

fn raw(kind: RowKind, bytes: &[u8]) -> Result<Rows, Failure> {
    if !bytes.len().is_multiple_of(ROW_BYTES) {
        let message = format!("a row has {ROW_BYTES} bytes, and {} is no multiple of that", bytes.len());
        return Err(Failure::wire(Code::BadBody, message));
    }
    let mut rows = Rows { places: (0..(bytes.len() / ROW_BYTES) as u32).collect(), ..Rows::default() };
    // A body begins anywhere in memory, a row at a multiple of 8.
    match kind {
        RowKind::Ticks => rows.ticks = unaligned(bytes),
        RowKind::Quotes => rows.quotes = unaligned(bytes),
    }
    Ok(rows)
}

fn unaligned<R: Row>(bytes: &[u8]) -> Vec<R> {
    bytes.chunks_exact(ROW_BYTES).map(bytemuck::pod_read_unaligned).collect()
}

/// Rows read at a time.
const BATCH: usize = 4096;

fn lines(kind: Option<RowKind>, text: &[u8]) -> Result<Rows, Failure> {
    let options = Options {
        format: Format::Ndjson,
        on_bad_row: OnBadRow::Stop,
        kind,
        line_bytes_max: limits::HEAD_BYTES,
        markets_max: limits::ROWS,
        ..Options::default()
    };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    // The reader unpacks what begins like gzip or zstd, without our bounds; nothing packed begins with a new line.
    let input = Cursor::new(b"\n").chain(Cursor::new(text.to_vec()));
    let mut reader = Reader::from_reader(input, "body", None, &options).map_err(unreadable)?;
    let (mut rows, mut batch, mut next) = (Rows::default(), Batch::default(), 0_u32);
    loop {
        let read = reader.next_batch(BATCH, &mut batch);
        let end = next + batch.len() as u32;
        rows.places.extend(next..end);
        rows.ticks.append(&mut batch.ticks);
        rows.quotes.append(&mut batch.quotes);
        rows.markets.append(&mut batch.markets);
        next = end;
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(FeedError::Row { bad, .. }) => {
                let unread = if bad.bad_name { Code::BadName } else { Code::BadBody };
                let code = bad.flaw.map_or(unread, |flaw: Flaw| flaw.into());
                let message = format!("{}: expected {}, found {}", bad.column, bad.expected, bad.found);
                rows.refuse(BadRow { row: next, code: code.name().to_owned(), message });
                next += 1;
            }
            Err(error) => return Err(unreadable(error)),
        }
        if next as usize > limits::ROWS {
            return Err(too_many_rows());
        }
    }
    rows.names = reader.names().to_vec();
    Ok(rows)
}

fn unreadable(mut error: FeedError) -> Failure {
    // The reader counts the line that was put before the body.
    match &mut error {
        FeedError::Header { line, .. } | FeedError::TooManyMarkets { line, .. } => *line = line.saturating_sub(1),
        FeedError::Row { bad, .. } => bad.line = bad.line.saturating_sub(1),
        FeedError::Options { .. } | FeedError::Corrupt { .. } | FeedError::Io { .. } => {}
    }
    Failure::wire(Code::BadBody, error.to_string())
}

fn too_many_rows() -> Failure {
    Failure::wire(Code::Oversize, format!("a request has at most {} rows: send several", limits::ROWS))
}

/// The elements of an array, one a line.
#[derive(Debug, Default)]
struct Elements {
    lines: Vec<u8>,
    count: usize,
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Elements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Elements, A::Error> {
                let mut elements = Elements::default();
                while let Some(element) = from.next_element::<&RawValue>()? {
                    elements.count += 1;
                    if elements.count > limits::ROWS {
                        return Err(A::Error::custom("too many rows"));
                    }
                    // A line break in JSON is white space: in text it would be escaped.
                    elements.lines.extend(element.get().bytes().map(|byte| if byte == b'\n' { b' ' } else { byte }));
                    elements.lines.push(b'\n');
                }
                Ok(elements)
            }
        }
        from.deserialize_seq(Take)
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    ticks: Option<Elements>,
    quotes: Option<Elements>,
}

struct Document {
    kind: Option<RowKind>,
    elements: Elements,
}

fn document(bytes: &[u8]) -> Result<Document, Failure> {
    let unreadable = |error: serde_json::Error| {
        if error.to_string().starts_with("too many rows") {
            return too_many_rows();
        }
        Failure::wire(Code::BadBody, format!("the body is not {{\"ticks\":[..]}} nor an array of rows: {error}"))
    };
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let elements = serde_json::from_slice(bytes).map_err(unreadable)?;
        return Ok(Document { kind: None, elements });
    }
    match serde_json::from_slice::<Named>(bytes).map_err(unreadable)? {
        Named { ticks: Some(elements), quotes: None } => Ok(Document { kind: Some(RowKind::Ticks), elements }),
        Named { ticks: None, quotes: Some(elements) } => Ok(Document { kind: Some(RowKind::Quotes), elements }),
        _ => Err(Failure::wire(Code::BadBody, "a request holds one of \"ticks\" and \"quotes\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "{\"market\":\"a\",\"id\":\"7\",\"event_time_ns\":1,\"price\":2,\n\"volume\":3}";

    fn places(form: Form, text: &str) -> Result<(Vec<u32>, Vec<u32>), String> {
        let rows = read(form, None, text.as_bytes()).map_err(|failure| failure.words().code.to_owned())?;
        assert_eq!(rows.ticks.len() + rows.quotes.len(), rows.places.len());
        Ok((rows.places, rows.bad.iter().map(|bad| bad.row).collect()))
    }

    #[test]
    fn every_form_numbers_its_rows_alike() {
        let line = ONE.replace('\n', "");
        for (form, text, expected) in [
            (Form::Json, format!("[{ONE},3,{ONE}]"), Ok((vec![0, 2], vec![1]))),
            (Form::Json, format!("{{\"ticks\":[{ONE}]}}"), Ok((vec![0], vec![]))),
            (Form::Json, "[]".to_owned(), Ok((vec![], vec![]))),
            (Form::Json, "{\"ticks\":[],\"quotes\":[]}".to_owned(), Err("bad_body")),
            (Form::Json, "{\"tick\":[]}".to_owned(), Err("bad_body")),
            (Form::Json, "{}".to_owned(), Err("bad_body")),
            (Form::Json, "7".to_owned(), Err("bad_body")),
            (Form::Json, format!("[{ONE}"), Err("bad_body")),
            (Form::Ndjson, format!("{line}\n\nx\n{line}"), Ok((vec![0, 2], vec![1]))),
            (Form::Ndjson, String::new(), Ok((vec![], vec![]))),
            (Form::Raw, "x".repeat(65), Err("bad_body")),
        ] {
            assert_eq!(places(form, &text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn what_the_reader_knows_of_a_row_is_its_code() {
        let line = ONE.replace('\n', "");
        let with = |key: &str, value: &str| line.replace('}', &format!(",\"{key}\":{value}}}"));
        for (row, code) in [
            (with("side", "\"x\""), "side"),
            (with("side", "\"buy\",\"corrects\":7"), "bad_body"),
            (line.replace("\"a\"", "\"a b\""), "bad_name"),
            (line.replace("\"a\"", "\"\""), "bad_name"),
            (line.replace("\"a\"", "7"), "bad_body"),
            (line.replace("\"price\":2", "\"price\":\"inf\""), "price_not_finite"),
            (with("corrects", "true").replace("\"7\"", "\"0\""), "correction_without_id"),
        ] {
            let rows = read(Form::Ndjson, None, row.as_bytes()).unwrap();
            assert_eq!(rows.bad.first().map(|bad| bad.code.as_str()), Some(code), "{row}: {:?}", rows.bad);
        }
    }

    /// `{"ticks":[..]}` with kind=quotes stored ticks.
    #[test]
    fn a_body_is_of_the_kind_that_was_said() {
        for (kind, code) in [(None, None), (Some(RowKind::Ticks), None), (Some(RowKind::Quotes), Some("bad_query"))] {
            let read = read(Form::Json, kind, format!("{{\"ticks\":[{ONE}]}}").as_bytes());
            assert_eq!(read.err().map(|failure| failure.words().code.to_owned()).as_deref(), code);
        }
    }

    #[test]
    fn a_line_that_is_too_long_has_its_number() {
        let long = format!("{{\"market\":\"{}\"}}", "a".repeat(limits::HEAD_BYTES));
        let one = ONE.replace('\n', "");
        let rows = read(Form::Ndjson, None, format!("{one}\n{long}\n{one}\n").as_bytes()).unwrap();
        let bad: Vec<_> = rows.bad.iter().map(|bad| (bad.row, bad.message.contains("at most 65536 bytes"))).collect();
        assert_eq!((rows.ticks.len(), bad), (2, vec![(1, true)]), "{:?}", rows.bad);
    }

    #[test]
    fn what_looks_packed_is_not_unpacked_behind_our_back() {
        let packed = zstd::encode_all(ONE.replace('\n', "").as_bytes(), 3).unwrap();
        let rows = read(Form::Ndjson, None, &packed).unwrap();
        assert_eq!((rows.ticks.len(), rows.refused), (0, 1));
    }

    #[test]
    fn short_elements_do_not_outgrow_the_bound_on_rows() {
        let many = format!("[{}1]", "1,".repeat(limits::ROWS));
        assert_eq!(places(Form::Json, &many), Err("oversize".to_owned()));
        let many = "1\n".repeat(limits::ROWS + 1);
        assert_eq!(places(Form::Ndjson, &many), Err("oversize".to_owned()));
    }

    #[test]
    fn quotes_are_told_from_ticks_by_their_keys() {
        let quote = "{\"market\":\"a\",\"event_time_ns\":1,\"bid\":1,\"bid_volume\":1,\"ask\":2,\"ask_volume\":1}";
        assert_eq!(read(Form::Ndjson, None, quote.as_bytes()).unwrap().quotes.len(), 1);
        assert_eq!(read(Form::Json, None, format!("[{quote}]").as_bytes()).unwrap().quotes.len(), 1);
        assert_eq!(read(Form::Raw, Some(RowKind::Quotes), &[0; 128]).unwrap().quotes.len(), 2);
    }
}
