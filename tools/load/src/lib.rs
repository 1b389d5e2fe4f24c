//! The load harness: how fast a node is, and whether what it acknowledged is true.
//!
//! ```text
//!   args -> ingest -> client   markets, bands, counts: one request at a time
//!              |----> drive    a thread per connection: lane (frames in a ring) <-> socket, by schedule
//!              |----> firings  a thread per shard: what fired, and when it arrived
//!              '----> replay   afterwards: the same tape again, bands asked naively -> what must have happened
//!   report <- merge of lanes, connections, processes
//! ```
//!
//! Invariants: latency counts from the intended send time; nothing is computed during a run that can be computed after
//! it; expectations come from the tape and the bands alone, never from what the node says. Deliberately absent: starting
//! or stopping a node, TLS, any knowledge of how a node works.

pub mod args;
mod bands;
mod client;
mod clock;
mod cost;
mod drive;
mod firings;
mod host;
mod ingest;
mod lane;
mod latency;
mod line;
mod processes;
mod recipe;
mod replay;
pub mod report;
pub mod say;
mod schedule;
mod wal;

use anyhow::Result;
use args::{Cli, Mode};

/// Runs what was asked for and gives the exit code: 0, or 1 when something was lost.
pub fn run(cli: &Cli) -> Result<u8> {
    match &cli.mode {
        Mode::Ingest(args) => {
            if let Some(part) = args.part {
                return processes::child(args, part);
            }
            let report = ingest(args)?;
            report.print(cli.output)?;
            Ok(u8::from(!report.is_sound()))
        }
        Mode::Latency(args) => latency::run(args, cli.output),
        Mode::Wal(args) => wal::run(args, cli.output),
        Mode::Cost(args) => cost::run(args, cli.output),
    }
}

/// One whole run of `ingest`, in as many processes as asked for.
pub fn ingest(args: &args::IngestArgs) -> Result<report::Report> {
    args.check()?;
    let partial = if args.processes > 1 { processes::parent(args)? } else { ingest::whole(args)? };
    Ok(report::Report::new(args, &partial))
}

/// The exit code of an error: 3 cannot connect, 7 the host is unfit or takes no figures, else 2.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<client::CannotConnect>().is_some() {
        3
    } else if error.is::<wal::Unfit>() || error.is::<say::Unsaid>() {
        7
    } else {
        2
    }
}
