//! What a feed refuses, and where: line, column, what was expected, what was found.
//!
//! [`Fault`] is the inner form: it borrows from the line and allocates nothing, because under `Skip` a file may hold
//! millions of them. [`BadRow`] is the same fact for people, built only for the rows that are shown.
//!
//! Deliberately absent: a variant per column or per format. A caller can stop, skip, or ask for other options.

use std::fmt;
use std::io;

use myelin_datom::Flaw;

/// Why a file could not be read. One variant per *decision*:
///
/// | variant            | whose fault      | what to do                                            |
/// |--------------------|------------------|-------------------------------------------------------|
/// | [`Options`]        | the command line | correct the option that is named                      |
/// | [`Header`]         | file or options  | give `--format`, `--map` or `--columns`               |
/// | [`Row`]            | the file         | repair that line, or skip bad rows                    |
/// | [`TooManyMarkets`] | file or limit    | check the market column, or raise the limit           |
/// | [`Corrupt`]        | the medium       | fetch the compressed file again                       |
/// | [`Io`]             | operating system | try again                                             |
///
/// [`Options`]: FeedError::Options
/// [`Header`]: FeedError::Header
/// [`Row`]: FeedError::Row
/// [`TooManyMarkets`]: FeedError::TooManyMarkets
/// [`Corrupt`]: FeedError::Corrupt
/// [`Io`]: FeedError::Io
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// An option makes no sense, whatever the file.
    #[error("{option}: expected {expected}, found {found:?}")]
    Options {
        /// The flag, as on the command line.
        option: &'static str,
        /// What it takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The first line does not fit the format.
    #[error("{input}: line {line}: expected {expected}, found {found:?}")]
    Header {
        /// The file.
        input: String,
        /// **Units:** lines, from 1.
        line: u64,
        /// What the format begins with.
        expected: String,
        /// What the file begins with.
        found: String,
    },
    /// A row was refused and the policy is to stop.
    #[error("{input}: {bad}")]
    Row {
        /// The file.
        input: String,
        /// Which row and why.
        bad: BadRow,
    },
    /// The names of markets would outgrow their bound.
    #[error("{input}: line {line}: more than {limit} different markets; is the market column right?")]
    TooManyMarkets {
        /// The file.
        input: String,
        /// **Units:** lines, from 1.
        line: u64,
        /// `Options::markets_max`.
        limit: usize,
    },
    /// The compressed stream is damaged, cut short, or asks for too much memory.
    #[error("{input}: the {packing} stream is damaged near byte {at}: {cause}")]
    Corrupt {
        /// The file.
        input: String,
        /// `gzip` or `zstd`.
        packing: &'static str,
        /// **Units:** compressed bytes read so far.
        at: u64,
        /// What the decompressor said. In the sentence already, so no `source`: a chain would say it twice.
        cause: io::Error,
    },
    /// The bytes could not be read.
    #[error("{input}: {cause}")]
    Io {
        /// The file.
        input: String,
        /// What the system said, as above.
        cause: io::Error,
    },
}

/// One refused row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// **Units:** lines, from 1, the header and blank lines counted.
    pub line: u64,
    /// The column's name in the file, or `line` when the line as a whole is at fault.
    pub column: String,
    /// What stands there in a sound row.
    pub expected: String,
    /// What stands there, shortened.
    pub found: String,
    /// The reason that the node would give for the same row, if it would refuse it by its shape.
    pub flaw: Option<Flaw>,
    /// The market's name is one that no market may have.
    pub bad_name: bool,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, expected, found, .. } = self;
        write!(f, "line {line}, column {column}: expected {expected}, found {found}")
    }
}

impl std::error::Error for BadRow {}

/// What a sound row has at the place of the fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    /// A noun.
    Text(&'static str),
    /// A value without this flaw.
    Sound(Flaw),
    /// A market's name, in these words.
    Name(&'static str),
    /// So many fields.
    Fields(usize),
    /// A line of at most so many bytes.
    AtMost(usize),
}

/// What the row has there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Found<'a> {
    /// These bytes of the line.
    Bytes(&'a [u8]),
    /// So many fields.
    Fields(usize),
    /// No such column or key.
    Nothing,
}

/// A refused row, before anyone asked to see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault<'a> {
    pub(crate) column: &'a [u8],
    pub(crate) expected: Expected,
    pub(crate) found: Found<'a>,
}

/// The column of a fault that is not in one column.
pub(crate) const WHOLE_LINE: &[u8] = b"line";

impl<'a> Fault<'a> {
    #[cold]
    pub(crate) fn text(column: &'a [u8], expected: &'static str, found: &'a [u8]) -> Self {
        Self { column, expected: Expected::Text(expected), found: Found::Bytes(found) }
    }

    #[cold]
    pub(crate) fn missing(column: &'a [u8], expected: &'static str) -> Self {
        Self { column, expected: Expected::Text(expected), found: Found::Nothing }
    }

    /// The same fact, for people.
    pub(crate) fn at_line(&self, line: u64) -> BadRow {
        let (expected, flaw) = match self.expected {
            Expected::Text(text) | Expected::Name(text) => (text.to_owned(), None),
            Expected::Sound(flaw) => (wanted(flaw).to_owned(), Some(flaw)),
            Expected::Fields(count) => (format!("{count} fields as in the header"), None),
            Expected::AtMost(bytes) => (format!("at most {bytes} bytes"), None),
        };
        let found = match self.found {
            Found::Bytes(bytes) => excerpt(bytes),
            Found::Fields(count) => format!("{count} fields"),
            Found::Nothing => "nothing".to_owned(),
        };
        let bad_name = matches!(self.expected, Expected::Name(_));
        BadRow { line, column: plain_excerpt(self.column), expected, found, flaw, bad_name }
    }
}

/// What a value without this flaw would be.
const fn wanted(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::PriceNotFinite => "a price that is a finite number",
        Flaw::PriceNegativeZero => "a price that is not negative zero",
        Flaw::VolumeNotFinite => "a volume that is a finite number",
        Flaw::VolumeNegative => "a volume that is not negative",
        Flaw::Side => "a side: buy, sell, b, s, 1 (buy), 2 (sell), or 0 (unknown)",
        Flaw::CorrectionWithoutId => "the id of the row that is corrected",
        other => other.as_str(),
    }
}

const EXCERPT_BYTES: usize = 64;

fn plain_excerpt(bytes: &[u8]) -> String {
    let shown = bytes.get(..EXCERPT_BYTES).unwrap_or(bytes);
    let mut text: String = String::from_utf8_lossy(shown).escape_debug().collect();
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

/// At most 64 bytes, in quotes, control characters spelled out.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    format!("\"{}\"", plain_excerpt(bytes))
}
