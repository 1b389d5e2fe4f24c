//! `explain CODE`: what a refusal means and what to do about it. Needs no node.

use crate::args::Format;
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, one};
use myelin_client::wire::Code;
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

#[derive(Serialize)]
struct Explained {
    code: u16,
    name: &'static str,
    http_status: u16,
    meaning: &'static str,
}

impl From<Code> for Explained {
    fn from(code: Code) -> Self {
        let meaning = code.explanation().trim();
        Self { code: code as u16, name: code.name(), http_status: code.http_status(), meaning }
    }
}

impl Line for Explained {
    const KEYS: &'static [&'static str] = &["code", "name", "http_status", "meaning"];
    fn cells(&self) -> Vec<String> {
        vec![self.code.to_string(), self.name.to_owned(), self.http_status.to_string(), self.meaning.to_owned()]
    }
}

/// Prints it; exit code 1 when there is no such code.
pub(crate) fn run(args: &Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let Some(wanted) = &args.code else {
        all(io, args.output, &Code::ALL.iter().copied().map(Explained::from).collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    };
    let Some(code) = find(wanted) else {
        let fix = near(wanted).map_or("`myelin explain` lists all".to_owned(), |name| format!("did you mean {name}?"));
        return Err(Failure::negative(format!("there is no code '{wanted}': {fix}")));
    };
    match args.output {
        Format::Table => {
            let Explained { code, name, http_status, meaning } = code.into();
            writeln!(io.out, "{name} (code {code}, HTTP {http_status})\n  {meaning}")?;
        }
        format => one(io, format, &Explained::from(code))?,
    }
    Ok(Exit::Ok)
}

fn find(wanted: &str) -> Option<Code> {
    let by_name = Code::ALL.iter().copied().find(|code| plain(code.name()) == plain(wanted));
    by_name.or_else(|| wanted.parse().ok().and_then(Code::from_number))
}

/// The name that shares the longest beginning.
fn near(wanted: &str) -> Option<&'static str> {
    let wanted = plain(wanted);
    let shared = |name: &str| plain(name).chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    Code::ALL.iter().map(|code| code.name()).max_by_key(|name| shared(name)).filter(|name| shared(name) >= 3)
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
            assert_eq!(find(wanted), Some(Code::IdConflict));
        }
        assert_eq!(find("999"), None);
        assert_eq!(near("idconflic"), Some("id_conflict"));
        assert_eq!(near("zebra"), None);
    }
}
