//! The appliance's entry: arguments -> Config -> node. Nothing else.

use clap::{Parser, Subcommand};
use myelin::config::{Config, Limits};
use myelin::node::Node;
use myelin::runtime::Wanted;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A thread-per-core appliance for market facts.
#[derive(Parser)]
#[command(name = "myelin", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a node.
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Everything the node remembers.
    #[arg(long, default_value = "myelin-data")]
    data_dir: PathBuf,
    /// Where ticks come in.
    #[arg(long, default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// HTTP: probes, metrics.
    #[arg(long, default_value = "127.0.0.1:7480")]
    http: SocketAddr,
    /// Shards, fixed when the data directory is made: a number, or auto = one per data core.
    #[arg(long, default_value = "auto")]
    shards: String,
    /// Who runs the data cores.
    #[arg(long, value_enum, default_value = "auto")]
    executor: Wanted,
    /// Everything on one thread, small buffers.
    #[arg(long)]
    lean: bool,
    /// Leave data cores where the scheduler puts them.
    #[arg(long)]
    no_pin: bool,
    /// Real-time priority for sync threads and data cores.
    #[arg(long)]
    realtime: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("MYELIN_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    let Arguments { verb: Verb::Serve(arguments) } = Arguments::parse();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let shards = match arguments.shards.as_str() {
        "auto" => None,
        number => Some(number.parse().map_err(|_| anyhow::anyhow!("--shards takes a number or auto"))?),
    };
    let config = Config {
        data_dir: arguments.data_dir,
        listen: arguments.listen,
        http: arguments.http,
        shards,
        executor: arguments.executor,
        lean: arguments.lean,
        pin: !arguments.no_pin,
        realtime: arguments.realtime,
        limits: if arguments.lean { Limits::lean() } else { Limits::default() },
    };
    let node = Node::start(&config)?;
    tracing::info!(listen = ?node.listen, http = %node.http, executor = %node.executor, "serving");
    node.join();
    Ok(())
}
