//! A look at a data directory while no node runs on it: what is there, and whether it is what was written.
//!
//! ```text
//!   DIR -> home (identity, locks) -> still (a disk that cannot be written) -> inspect   counts, places, records
//!                                                                         \-> verify    every checksum, and a replay
//! ```
//!
//! Invariants: nothing on the disk changes, not even by a probe; a node that is alive is never looked at under its feet,
//! and none can start while we look; damage is told by file and offset and does not end the look where something is left
//! to see. Deliberately absent: repair (other replicas have the bytes).
//!
//! These are modules of the appliance and no crate of their own: they read with the appliance's own manifest, entries
//! and shard, so that nothing on disk has a second reader, and the binary that dispatches to them is the appliance's.

mod census;
mod home;
mod inspect;
mod segments;
mod still;
mod table;
mod told;
mod verify;

use clap::{Subcommand, ValueEnum};
pub use inspect::InspectArgs;
pub use myelin_cli::{Exit, complain};
use serde::Serialize;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
pub use table::Table;
pub use verify::VerifyArgs;

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// One object, or one list of them.
    Json,
    /// An object a line.
    Ndjson,
    /// Comma separated values under their keys, in the order of `json`: the rows that are most of a report.
    Csv,
}

/// A report that can be printed in every form.
pub trait Printed: Serialize {
    /// For people.
    fn text(&self) -> String;
    /// Its rows.
    fn rows(&self) -> Table;
    /// Its objects, each as JSON: a report that is one is one line.
    ///
    /// **Errors:** as `serde_json`.
    fn lines(&self) -> serde_json::Result<Vec<String>> {
        Ok(vec![serde_json::to_string(self)?])
    }
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Shows what a data directory holds while no node runs on it; changes nothing.
    Inspect(InspectArgs),
    /// Reads and checks every byte of a data directory that matters, and gives a hash of its state; changes nothing.
    Verify(VerifyArgs),
}

/// Bytes that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file, seen from the data directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.offset, self.what)
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not what the verb is about.
    #[error("{0}")]
    Usage(String),
    /// A node is alive.
    #[error("a node holds {}: stop it first, or look at a copy of the directory", dir.display())]
    Held {
        /// What it holds.
        dir: PathBuf,
    },
    /// Another version's.
    #[error("{0}")]
    Unreadable(String),
    /// Nothing can be made of it.
    #[error("{0}")]
    Damaged(Damage),
    /// The operating system.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Our own output.
    #[error("{0}")]
    Out(#[from] io::Error),
}

impl Fault {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Damaged(_) => Exit::Integrity,
            Self::Held { .. } | Self::Unreadable(_) | Self::Io { .. } | Self::Out(_) => Exit::Unfit,
        }
    }
}

/// Performs a verb and says how it ended.
#[must_use]
pub fn run(command: &Command) -> Exit {
    let done = match command {
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
    };
    done.unwrap_or_else(|fault| match fault {
        // `myelin inspect .. | head`: who stopped reading got what was wanted.
        Fault::Out(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        fault => {
            complain(&fault);
            fault.exit()
        }
    })
}

/// Prints a report in its form, then its damage for people, and gives the exit code.
fn conclude(form: Form, report: &impl Printed, damage: &[Damage]) -> Result<Exit, Fault> {
    print(form, report)?;
    for damage in damage {
        complain(format_args!("damaged: {damage}"));
    }
    Ok(if damage.is_empty() { Exit::Ok } else { Exit::Integrity })
}

/// Prints a report in its form.
///
/// **Errors:** when nobody reads.
pub fn print(form: Form, report: &impl Printed) -> io::Result<()> {
    let text = match form {
        Form::Json => serde_json::to_string(report)? + "\n",
        Form::Ndjson => report.lines()?.into_iter().map(|line| line + "\n").collect(),
        Form::Csv => report.rows().csv(),
        Form::Table => report.text(),
    };
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A number that JSON's readers would round: as its decimal digits.
fn digits<S: serde::Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
