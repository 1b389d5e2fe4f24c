//! The client's verbs of the `myelin` command line; the binary flattens [`Command`] among its own and hands them here.
//!
//! ```text
//!   Command -> execute -> Client -> node          stdout: data        stderr: words for people
//!                 \-> Failure -> exit code (exit.rs, the one place)
//! ```
//!
//! Invariants: a table for people by default, the same keys in json, ndjson and csv; `tx` and ids are decimal strings in
//! JSON; no bars, no borders and never a colour off a terminal. Deliberately absent: what only the appliance knows (the
//! text of reflexes, the whole command line); it comes in as a [`House`].

mod args;
mod count;
mod exit;
mod explain;
mod facts;
mod ingest;
mod man;
mod market;
mod output;
mod pace;
mod progress;
mod query;
mod reflex;
mod retention;
mod status;
mod stop;
mod tail;
mod top;
mod totals;
mod watch;

pub use args::{Common, Format};
pub use exit::{Exit, Failure, complain};
pub use output::{Io, csv};

use clap::Subcommand;
use std::io::Write as _;
use std::process::ExitCode;

/// What only the appliance knows.
#[derive(Clone, Copy, Debug)]
pub struct House {
    /// The whole command line, for completions.
    pub command: fn() -> clap::Command,
    /// A reflex's id, spec and scope as people write them -> the registration's bytes, or what is wrong with the text.
    pub registration: fn(u64, &str, &str) -> Result<Vec<u8>, String>,
    /// The bytes of a spec and a scope -> both as people write them.
    pub asked: fn(&[u8]) -> Option<(String, String)>,
    /// The word for the kind of a firing.
    pub firing_kind: fn(u8) -> Option<&'static str>,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Sends a file of ticks or quotes; sending it again changes nothing.
    Ingest(ingest::Args),
    /// Counts rows or facts of an attribute, now or as of any transaction.
    Count(count::Args),
    /// The newest row of a market as of a moment, or stretches of its rows.
    Query(query::QueryArgs),
    /// Open, high, low, close and volume of a market per interval of event time.
    Bars(query::BarsArgs),
    /// Volume-weighted average price of a market, or of each.
    Vwap(query::VwapArgs),
    /// The greatest markets by count, volume, notional, price or move.
    Top(top::Args),
    /// What ticks come to: count, least and greatest price, sums and averages, rounded once.
    Totals(totals::Args),
    /// Registers a standing question and prints what fires, as it fires.
    Watch(watch::Args),
    /// Prints what is stored, as it is stored, or from any transaction on.
    Tail(tail::Args),
    /// Markets: add, list.
    Market(market::Args),
    /// Standing questions: list, remove.
    Reflex(reflex::Args),
    /// States facts: a file of operations, all or nothing.
    Transact(facts::TransactArgs),
    /// What holds about an entity, now or as of any transaction, or all that ever did.
    Entity(facts::EntityArgs),
    /// Facts of an attribute, of a value, or all of a partition.
    Datoms(facts::DatomsArgs),
    /// What is kept of markets: set, list.
    Retention(retention::Args),
    /// What every shard has counted about itself.
    Status(status::Args),
    /// Says what a refusal's code means, by number or name.
    Explain(explain::Args),
    /// Prints the completions of a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of the command line, or of a verb, for `man`.
    Man(man::Args),
}

/// Performs a verb on the process's own streams, on one thread, and says how it ended.
#[must_use]
pub fn run(command: Command, house: &House) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("no runtime: {error}"));
            return Exit::Unfit.into();
        }
    };
    let exit = runtime.block_on(async {
        let mut io = Io::process();
        match execute(command, house, &mut io).await {
            Ok(exit) => exit,
            Err(failure) => {
                failure.tell(&mut io);
                failure.exit()
            }
        }
    });
    // A reader of a file that nobody waits for may still sit in a read.
    runtime.shutdown_background();
    exit.into()
}

/// Performs a verb. **Errors:** whatever keeps it from an answer; a negative answer is none.
pub async fn execute(command: Command, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Ingest(args) => ingest::run(args, io).await,
        Command::Count(args) => count::run(args, io).await,
        Command::Query(args) => query::run(args, io).await,
        Command::Bars(args) => query::bars(args, io).await,
        Command::Vwap(args) => query::vwap(args, io).await,
        Command::Top(args) => top::run(args, io).await,
        Command::Totals(args) => totals::run(args, io).await,
        Command::Watch(args) => watch::run(args, house, io).await,
        Command::Tail(args) => tail::run(args, io).await,
        Command::Market(args) => market::run(args, io).await,
        Command::Reflex(args) => reflex::run(args, house, io).await,
        Command::Transact(args) => facts::transact(args, io).await,
        Command::Entity(args) => facts::entity(args, io).await,
        Command::Datoms(args) => facts::datoms(args, io).await,
        Command::Retention(args) => retention::run(args, io).await,
        Command::Status(args) => status::run(args, io).await,
        Command::Explain(args) => explain::run(&args, io),
        Command::Completions { shell } => {
            // Into memory: it would panic where nobody reads to the end.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut (house.command)(), "myelin", &mut script);
            io.out.write_all(&script)?;
            Ok(Exit::Ok)
        }
        Command::Man(args) => man::run(&args, house, io),
    }
}
