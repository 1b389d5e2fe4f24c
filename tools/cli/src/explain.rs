//! `explain CODE`: what a refusal means and what to do about it. Needs no node.

use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, one};
use myelin_client::wire::{Code, HttpCode};
use serde::Serialize;
use std::io::Write;

/// `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The code's number or name; without one, all are listed.
    code: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Explained {
    /// Nothing for what only HTTP says.
    code: Option<u16>,
    name: &'static str,
    http_status: u16,
    meaning: &'static str,
}

impl From<Code> for Explained {
    fn from(code: Code) -> Self {
        let meaning = code.explanation().trim();
        Self { code: Some(code as u16), name: code.name(), http_status: code.http_status(), meaning }
    }
}

impl From<HttpCode> for Explained {
    fn from(code: HttpCode) -> Self {
        let meaning = code.explanation().trim();
        Self { code: None, name: code.name(), http_status: code.http_status(), meaning }
    }
}

/// Every code that can be said.
fn known() -> impl Iterator<Item = Explained> {
    let wire = Code::ALL.iter().copied().map(Explained::from);
    wire.chain(HttpCode::ALL.iter().copied().map(Explained::from))
}

impl Line for Explained {
    const KEYS: &'static [&'static str] = &["code", "name", "http_status", "meaning"];
    fn cells(&self) -> Vec<String> {
        let code = self.code.map(|code| code.to_string()).unwrap_or_default();
        vec![code, self.name.to_owned(), self.http_status.to_string(), self.meaning.to_owned()]
    }
}

/// Prints it; exit code 1 when there is no such code.
pub(crate) fn run(args: &Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let Some(wanted) = &args.code else {
        all(io, args.output, &known().collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    };
    let Some(found) = find(wanted) else {
        let fix = near(wanted).map_or("`myelin explain` lists all".to_owned(), |name| format!("did you mean {name}?"));
        return Err(Failure::negative(format!("there is no code '{wanted}': {fix}")));
    };
    match args.output {
        Format::Table => {
            let Explained { code, name, http_status, meaning } = found;
            let number = code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}"));
            writeln!(io.out, "{name} ({number}, HTTP {http_status})\n  {meaning}")?;
        }
        format => one(io, format, &found)?,
    }
    Ok(Exit::Ok)
}

fn find(wanted: &str) -> Option<Explained> {
    let by_name = known().find(|code| plain(code.name) == plain(wanted));
    by_name.or_else(|| wanted.parse().ok().and_then(Code::from_number).map(Explained::from))
}

/// The name that shares the longest beginning.
fn near(wanted: &str) -> Option<&'static str> {
    let wanted = plain(wanted);
    let shared = |name: &str| plain(name).chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    known().map(|code| code.name).max_by_key(|name| shared(name)).filter(|name| shared(name) >= 3)
}

/// However it is spelled.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['_', '-', ' '], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_number_and_by_either_spelling_of_its_name() {
        for wanted in ["31", "id_conflict", "id-conflict", "IdConflict"] {
            assert_eq!(find(wanted), Some(Code::IdConflict.into()));
        }
        assert_eq!(find("unknown-outcome"), Some(HttpCode::UnknownOutcome.into()));
        assert_eq!(find("999"), None);
        assert_eq!(near("idconflic"), Some("id_conflict"));
        assert_eq!(near("zebra"), None);
    }

    #[test]
    fn every_code_that_can_be_said_is_explained() {
        let names = Code::ALL.iter().map(|code| code.name()).chain(HttpCode::ALL.iter().map(|code| code.name()));
        for name in names {
            let told = find(name).map(|told| (told.name, told.meaning.len() > 20));
            assert_eq!(told, Some((name, true)), "{name}");
        }
    }
}
