//! stdout: the same rows as a table, JSON, NDJSON or CSV.
//!
//! Invariants: keys and their order are those of [`Line::KEYS`] in every form; a table has borders on a terminal only.
//! Deliberately absent: colour, so that `NO_COLOR` has nothing to switch off.

use crate::args::Format;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The streams of a verb.
pub struct Io<'a> {
    /// Data.
    pub out: Box<dyn Write + Send + 'a>,
    /// Words for people.
    pub err: Box<dyn Write + Send + 'a>,
    /// `out` is the process's own, whose reader may leave.
    pub out_is_stdout: bool,
    /// Somebody looks at `out`.
    pub out_is_terminal: bool,
    /// Somebody looks at `err`.
    pub err_is_terminal: bool,
}

impl Io<'static> {
    /// The process's own.
    #[must_use]
    pub fn process() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_is_terminal, err_is_terminal) = (out.is_terminal(), err.is_terminal());
        Self { out: Box::new(out), err: Box::new(err), out_is_stdout: true, out_is_terminal, err_is_terminal }
    }
}

impl Io<'_> {
    /// Says something to people.
    pub(crate) fn say(&mut self, words: &str) -> io::Result<()> {
        writeln!(self.err, "{words}")
    }
}

/// A line of a result: an object in JSON, cells elsewhere.
pub(crate) trait Line: Serialize {
    /// Its keys, in order.
    const KEYS: &'static [&'static str];
    /// Its values as text, in the same order.
    fn cells(&self) -> Vec<String>;
}

/// Prints one result that is a single object.
pub(crate) fn one<L: Line>(io: &mut Io<'_>, format: Format, line: &L) -> io::Result<()> {
    match format {
        Format::Json | Format::Ndjson => writeln!(io.out, "{}", json(line)?),
        Format::Table | Format::Csv => all(io, format, std::slice::from_ref(line)),
    }
}

/// Prints a list.
pub(crate) fn all<L: Line>(io: &mut Io<'_>, format: Format, lines: &[L]) -> io::Result<()> {
    match format {
        Format::Json => writeln!(io.out, "{}", json(&lines)?),
        Format::Ndjson => lines.iter().try_for_each(|line| writeln!(io.out, "{}", json(line)?)),
        Format::Csv => {
            writeln!(io.out, "{}", L::KEYS.join(","))?;
            lines.iter().try_for_each(|line| writeln!(io.out, "{}", csv(&line.cells())))
        }
        Format::Table => {
            let rows: Vec<_> = lines.iter().map(Line::cells).collect();
            let keys: Vec<_> = L::KEYS.iter().map(|key| (*key).to_owned()).collect();
            table(io, &keys, rows)
        }
    }
}

/// Prints a table with these names above its columns.
pub(crate) fn table(io: &mut Io<'_>, keys: &[String], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(if io.out_is_terminal { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Disabled).set_header(keys);
    let numeric: Vec<bool> = (0..keys.len())
        .map(|at| rows.iter().all(|row| row.get(at).is_some_and(|cell| cell.parse::<f64>().is_ok())))
        .collect();
    table.add_rows(rows);
    for (at, numeric) in numeric.into_iter().enumerate() {
        if numeric && let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(io.out, "{}", table.trim_fmt())
}

/// Prints lines as they come, where the whole is never known: JSON is one object a line, a table has the first columns,
/// as many as have a width.
#[derive(Debug)]
pub(crate) struct Flow {
    format: Format,
    widths: &'static [usize],
    begun: bool,
}

impl Flow {
    pub(crate) const fn new(format: Format, widths: &'static [usize]) -> Self {
        Self { format, widths, begun: false }
    }

    pub(crate) fn line<L: Line>(&mut self, io: &mut Io<'_>, line: &L) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.begun, true);
        let keys = || L::KEYS.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        match self.format {
            Format::Json | Format::Ndjson => writeln!(io.out, "{}", json(line)?)?,
            Format::Csv => {
                if first {
                    writeln!(io.out, "{}", csv(&keys()))?;
                }
                writeln!(io.out, "{}", csv(&line.cells()))?;
            }
            Format::Table => {
                if first {
                    writeln!(io.out, "{}", self.padded(&keys()))?;
                }
                writeln!(io.out, "{}", self.padded(&line.cells()))?;
            }
        }
        io.out.flush()
    }

    fn padded(&self, cells: &[String]) -> String {
        let padded = cells.iter().zip(self.widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// A cell, empty where nothing is said.
pub(crate) fn maybe(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn json(value: &impl Serialize) -> io::Result<String> {
    serde_json::to_string(value).map_err(io::Error::other)
}

/// One line of CSV, quoted where it must be.
#[must_use]
pub fn csv(cells: &[String]) -> String {
    let quoted = cells.iter().map(|cell| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    });
    quoted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair {
        name: String,
        count: u64,
    }

    impl Line for Pair {
        const KEYS: &'static [&'static str] = &["name", "count"];
        fn cells(&self) -> Vec<String> {
            vec![self.name.clone(), self.count.to_string()]
        }
    }

    fn printed(format: Format) -> String {
        let mut out = Vec::new();
        let mut io = Io {
            out: Box::new(&mut out),
            err: Box::new(io::sink()),
            out_is_stdout: false,
            out_is_terminal: false,
            err_is_terminal: false,
        };
        let pairs = [Pair { name: "a,b".into(), count: 5 }, Pair { name: "c".into(), count: 10 }];
        all(&mut io, format, &pairs).unwrap();
        drop(io);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_same_rows_in_every_form() {
        for (format, expected) in [
            (Format::Json, "[{\"name\":\"a,b\",\"count\":5},{\"name\":\"c\",\"count\":10}]\n"),
            (Format::Ndjson, "{\"name\":\"a,b\",\"count\":5}\n{\"name\":\"c\",\"count\":10}\n"),
            (Format::Csv, "name,count\n\"a,b\",5\nc,10\n"),
            (Format::Table, " name  count\n a,b       5\n c        10\n"),
        ] {
            assert_eq!(printed(format), expected);
        }
    }
}
