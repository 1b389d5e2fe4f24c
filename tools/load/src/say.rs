//! What is said: figures on standard output, words for people on standard error.
//!
//! Invariant: neither panics. Who stopped reading the figures got what was wanted; words that nobody can hear are lost.

use anyhow::Result;
use std::fmt;
use std::io::{self, Write as _};

/// Standard output cannot be written.
#[derive(Debug)]
pub(crate) struct Unsaid(io::Error);

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "standard output cannot be written: {}", self.0)
    }
}

impl std::error::Error for Unsaid {}

/// Lines of figures. **Errors:** they cannot be written, though somebody reads.
pub(crate) fn figures(lines: impl fmt::Display) -> Result<()> {
    let mut out = io::stdout();
    match writeln!(out, "{lines}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Unsaid(error).into()),
        _ => Ok(()),
    }
}

/// Words for people.
pub fn words(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "myelin-load: {what}");
}
