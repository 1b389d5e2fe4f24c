//! `myelin-load`: see `myelin-load --help` and the README beside this crate.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = myelin_load::args::Cli::parse();
    match myelin_load::run(&cli) {
        Ok(code) => code.into(),
        Err(error) => {
            myelin_load::say::words(format_args!("{error:#}"));
            myelin_load::exit_code(&error).into()
        }
    }
}
