//! `cargo xtask`: how this repository is checked.
//!
//!   cargo xtask tidy    rules of the house that no compiler knows       tidy.rs, tidy/
//!   cargo xtask ci      everything `.ci/run` runs, in 30 minutes        plan.rs (the tables), run.rs, report.rs
//!   cargo xtask long    the same machinery with the long table
//!   cargo xtask memory  a node in a cgroup takes millions of ticks       memory.rs
//!
//! Deliberately absent: benchmarks (`bench/`) and anything that changes a file. A check only looks.

mod memory;
mod plan;
mod report;
mod run;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "usage: cargo xtask tidy | ci | long [--list] [STEP-NAME-PART..] | memory [..]

  tidy    check the rules of the house, with file:line for each breach
  ci      run the table of steps that .ci/run runs
  long    run the long campaigns, within 90 minutes
  memory  [--debug] [--ticks N] [--limit BYTES] [--dir DIR] [-- FLAGS OF SERVE]: a node in a cgroup takes so many ticks
  --list  print the table instead of running it
  a further word runs only the steps whose name contains it (never enough for a verdict on the whole)";

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let root = repository()?;
    match verb.as_str() {
        "tidy" => tidy::run(&root),
        "ci" => run::run(&root, &plan::CI, &rest),
        "long" => run::run(&root, &plan::LONG, &rest),
        "memory" => memory::run(&root, &rest),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// The nearest folder upwards whose `Cargo.toml` opens a workspace.
fn repository() -> Result<PathBuf> {
    let here = std::env::current_dir().context("no current directory")?;
    here.ancestors()
        .find(|folder| {
            std::fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
        })
        .map(PathBuf::from)
        .context("no workspace in this folder or above it")
}
