//! `man [VERB ..]`: manual pages in the form that `man` reads. Needs no node.

use crate::House;
use crate::exit::{Exit, Failure};
use crate::output::Io;
use std::io::Write as _;

/// `man`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of this verb, as in `retention set`; else of the whole, which names the verbs.
    verb: Vec<String>,
}

/// Prints the page, as in `myelin man ingest | man -l -`.
pub(crate) fn run(args: &Args, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let mut command = (house.command)();
    // Fills in what verbs have from above: their full names, the version.
    command.build();
    let mut page = &command;
    for word in &args.verb {
        let unknown = || Failure::usage(format!("there is no verb '{}': see myelin --help", args.verb.join(" ")));
        page = page.find_subcommand(word).ok_or_else(unknown)?;
    }
    let mut roff = Vec::new();
    clap_mangen::Man::new(page.clone()).render(&mut roff)?;
    io.out.write_all(&roff)?;
    Ok(Exit::Ok)
}
