//! The reader: one input, one format, batches of rows until the end.
//!
//! ```text
//!   Reader::open -> first line -> format, plan -> next_batch: line -> draft -> finish -> Batch
//!                                                         |       |- fault -> Stop: error | Skip: count, first 100
//!                                                         '- end -> 0
//! ```
//!
//! Invariants: `next_batch` gives 0 only at the end of the input; a refused row leaves no trace in batch or names;
//! after an error of the input every further call is an error. Deliberately absent: threads; a caller that wants
//! reading and sending to overlap moves the reader, which is `Send`.

use std::io::{self, Read};
use std::path::Path;

use crate::columns::ColumnMap;
use crate::csv::Plan;
use crate::draft::{Batch, Refusal, RowKind};
use crate::error::{BadRow, Expected, Fault, FeedError, Found, WHOLE_LINE, excerpt};
use crate::fields::Fields;
use crate::format::{Format, is_delimiter};
use crate::input::Input;
use crate::json;
use crate::lines::{Line, Lines};
use crate::names::Names;

/// What a bad row does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// Ends the reading with [`FeedError::Row`].
    #[default]
    Stop,
    /// Is counted and left out.
    Skip,
}

/// How a file is read.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--format`.
    pub format: Format,
    /// `--map`, for `csv`. Without it, columns that carry Myelin's own names are read.
    pub map: Option<ColumnMap>,
    /// `--columns`, for `csv`: the file has no header line, and these are its columns.
    pub columns: Option<Vec<String>>,
    /// `--delimiter`, for `csv`; see [`crate::parse_delimiter`].
    pub delimiter: u8,
    /// Stop or skip.
    pub on_bad_row: OnBadRow,
    /// What NDJSON holds. `None`: quotes if the first line has a key `bid` or `ask`, else ticks.
    pub kind: Option<RowKind>,
    /// **Units:** bytes, without the line's ending. Market rows take about 100.
    pub line_bytes_max: usize,
    /// Different names in one file. At most about 30 MB at the default.
    pub markets_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            map: None,
            columns: None,
            delimiter: b',',
            on_bad_row: OnBadRow::Stop,
            kind: None,
            line_bytes_max: 1 << 20,
            markets_max: 100_000,
        }
    }
}

/// How far the reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// **Units:** bytes of the file as it lies there, compressed or not; runs ahead of the rows by a buffer.
    pub bytes_read: u64,
    /// The file's length, if it has one.
    pub bytes_total: Option<u64>,
    /// Lines seen, blank ones and the header counted.
    pub lines: u64,
    /// Rows given.
    pub rows: u64,
    /// Rows left out.
    pub skipped: u64,
}

/// What `Skip` left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// All of them.
    pub count: u64,
    /// The first 100.
    pub first: Vec<BadRow>,
}

const SKIPPED_SHOWN: usize = 100;

enum Mode {
    Csv(Plan),
    Json(RowKind),
}

/// Gives the rows of one file, batch by batch.
pub struct Reader {
    input: Input,
    lines: Lines,
    mode: Mode,
    format: Format,
    fields: Fields,
    names: Names,
    on_bad_row: OnBadRow,
    line_bytes_max: usize,
    skipped: Skipped,
    rows: u64,
    failed: bool,
}

impl Reader {
    /// Opens a file, or stdin for `-`, and reads its first line.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, FeedError> {
        Self::new(Input::open(path.as_ref())?, options)
    }

    /// The same for any source of bytes; `name` stands in errors and may end in `.ndjson`.
    pub fn from_reader(
        raw: impl Read + Send + 'static,
        name: &str,
        bytes_total: Option<u64>,
        options: &Options,
    ) -> Result<Self, FeedError> {
        Self::new(Input::wrap(Box::new(raw), name.to_owned(), bytes_total)?, options)
    }

    fn new(mut input: Input, options: &Options) -> Result<Self, FeedError> {
        check_options(options)?;
        let stream = input.stream.take().unwrap_or_else(|| Box::new(io::empty()));
        let mut lines = Lines::new(stream, options.line_bytes_max);
        let first = first_line(&input, &mut lines)?;
        let format = match options.format {
            Format::Auto if options.map.is_some() || options.columns.is_some() => Format::Csv,
            Format::Auto => Format::recognise(&input.name, &first),
            format => format,
        };
        if format != Format::Csv && (options.map.is_some() || options.columns.is_some() || options.delimiter != b',') {
            return Err(FeedError::Options {
                option: "--map, --columns, --delimiter",
                expected: "the format csv".to_owned(),
                found: format.to_string(),
            });
        }
        let mode = match format {
            Format::Ndjson => {
                lines.put_back();
                Mode::Json(options.kind.unwrap_or_else(|| json_kind(&first)))
            }
            _ => Mode::Csv(plan(&input, &mut lines, &first, format, options)?),
        };
        Ok(Self {
            input,
            lines,
            mode,
            format,
            fields: Fields::default(),
            names: Names::new(options.markets_max),
            on_bad_row: options.on_bad_row,
            line_bytes_max: options.line_bytes_max,
            skipped: Skipped::default(),
            rows: 0,
            failed: false,
        })
    }

    /// Replaces what `batch` holds by the next rows, at most `max_rows`; 0 is the end of the input.
    ///
    /// **Errors:** the batch keeps the sound rows before the bad one; a further call goes on behind a bad row.
    pub fn next_batch(&mut self, max_rows: usize, batch: &mut Batch) -> Result<usize, FeedError> {
        batch.clear();
        if self.failed {
            let cause = io::Error::other("an earlier error of this input ended the reading");
            return Err(FeedError::Io { input: self.input.name.clone(), cause });
        }
        let result = self.read_rows(max_rows.max(1), batch);
        self.rows += batch.len() as u64;
        result.map(|()| batch.len())
    }

    fn read_rows(&mut self, max_rows: usize, batch: &mut Batch) -> Result<(), FeedError> {
        let Self { lines, mode, fields, names, input, .. } = self;
        while batch.len() < max_rows {
            let number = lines.number() + 1;
            let result = match lines.next() {
                Ok(Line::End) => return Ok(()),
                Ok(Line::Text(line)) if line.trim_ascii_start().is_empty() => continue,
                Ok(Line::Text(line)) => match mode {
                    Mode::Csv(plan) => plan
                        .draft(line, fields)
                        .map_err(Refusal::from)
                        .and_then(|draft| draft.finish(plan.kind, names, batch)),
                    Mode::Json(kind) => json::draft(line, *kind)
                        .map_err(Refusal::from)
                        .and_then(|draft| draft.finish(*kind, names, batch)),
                },
                Ok(Line::TooLong(head)) => {
                    let expected = Expected::AtMost(self.line_bytes_max);
                    Err(Refusal::Fault(Fault { column: WHOLE_LINE, expected, found: Found::Bytes(head) }))
                }
                Err(error) => {
                    self.failed = true;
                    return Err(input.failed(error));
                }
            };
            match result {
                Ok(()) => {}
                Err(Refusal::TooManyMarkets) => {
                    let (input, limit) = (input.name.clone(), names.as_slice().len());
                    return Err(FeedError::TooManyMarkets { input, line: number, limit });
                }
                Err(Refusal::Fault(fault)) if self.on_bad_row == OnBadRow::Stop => {
                    return Err(FeedError::Row { input: input.name.clone(), bad: fault.at_line(number) });
                }
                Err(Refusal::Fault(fault)) => {
                    self.skipped.count += 1;
                    if self.skipped.first.len() < SKIPPED_SHOWN {
                        self.skipped.first.push(fault.at_line(number));
                    }
                }
            }
        }
        Ok(())
    }

    /// The markets seen so far, in order of appearance; only grows.
    #[must_use]
    pub fn names(&self) -> &[String] {
        self.names.as_slice()
    }

    /// What this file holds.
    #[must_use]
    pub fn kind(&self) -> RowKind {
        match &self.mode {
            Mode::Csv(plan) => plan.kind,
            Mode::Json(kind) => *kind,
        }
    }

    /// The format it is read as; never `Auto`.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// For a progress bar.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            bytes_read: self.input.raw_read(),
            bytes_total: self.input.raw_total,
            lines: self.lines.number(),
            rows: self.rows,
            skipped: self.skipped.count,
        }
    }

    /// The rows that were left out.
    #[must_use]
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// What a person should know about rows of this format.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        match self.format {
            Format::PredictionMarkets => Some(
                "traders are pseudonyms here and a trader is an entity id: the column is not read, traders are unknown",
            ),
            _ => None,
        }
    }
}

fn check_options(options: &Options) -> Result<(), FeedError> {
    let refused = |option, expected: &str, found: String| {
        Err(FeedError::Options { option, expected: expected.to_owned(), found })
    };
    if !is_delimiter(options.delimiter) {
        let found = char::from(options.delimiter).to_string();
        return refused(
            "--delimiter",
            "one ASCII character that occurs in no number, no quote and no line break",
            found,
        );
    }
    if !(1..=1 << 30).contains(&options.line_bytes_max) {
        return refused("line_bytes_max", "1 to 1073741824", options.line_bytes_max.to_string());
    }
    if options.markets_max == 0 {
        return refused("markets_max", "at least 1", options.markets_max.to_string());
    }
    Ok(())
}

/// The first line that is not blank; empty at the end of the input.
fn first_line(input: &Input, lines: &mut Lines) -> Result<Vec<u8>, FeedError> {
    loop {
        match lines.next() {
            Ok(Line::Text(line)) if line.trim_ascii().is_empty() => {}
            Ok(Line::Text(line)) => return Ok(line.to_vec()),
            Ok(Line::End) => return Ok(Vec::new()),
            Ok(Line::TooLong(head)) => {
                let found = excerpt(head);
                let expected = "a first line within the bound on lines".to_owned();
                return Err(FeedError::Header { input: input.name.clone(), line: lines.number(), expected, found });
            }
            Err(error) => return Err(input.failed(error)),
        }
    }
}

fn json_kind(first: &[u8]) -> RowKind {
    let has = |key: &[u8]| memchr::memmem::find(first, key).is_some();
    if has(b"\"bid\"") || has(b"\"ask\"") { RowKind::Quotes } else { RowKind::Ticks }
}

fn plan(input: &Input, lines: &mut Lines, first: &[u8], format: Format, options: &Options) -> Result<Plan, FeedError> {
    let line = lines.number();
    let refused =
        |expected: String, found: String| FeedError::Header { input: input.name.clone(), line, expected, found };
    if let Some(preset) = format.preset() {
        if first != preset.header.as_bytes() {
            return Err(refused(format!("the header of {format}, {}", preset.header), excerpt(first)));
        }
        let header = preset.header.split(',').map(str::to_owned).collect();
        return Plan::new(header, &preset.map.parse()?, b',').map_err(|(expected, found)| refused(expected, found));
    }
    let header = match &options.columns {
        Some(columns) => {
            lines.put_back();
            columns.clone()
        }
        None => header_of(first, options.delimiter)
            .ok_or_else(|| refused("a header line in UTF-8".to_owned(), excerpt(first)))?,
    };
    let map = match &options.map {
        Some(map) => map.clone(),
        None => ColumnMap::of_own_names(&header).map_err(|expected| {
            let expected = format!("a known header, --map, or a header in Myelin's own names with {expected}");
            refused(expected, excerpt(first))
        })?,
    };
    Plan::new(header, &map, options.delimiter).map_err(|(expected, found)| refused(expected, excerpt(found.as_bytes())))
}

fn header_of(first: &[u8], delimiter: u8) -> Option<Vec<String>> {
    if first.is_empty() {
        return None;
    }
    let mut fields = Fields::default();
    let cut = fields.cut(first, delimiter).ok()?;
    cut.iter().map(|name| str::from_utf8(name).ok().map(str::to_owned)).collect()
}
