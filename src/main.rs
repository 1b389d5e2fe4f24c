//! The appliance's entry: arguments -> Config -> node, or a verb of the client's. Nothing else.

use clap::{CommandFactory as _, Parser, Subcommand};
use myelin::at_rest;
use myelin::config::{Config, Limits};
use myelin::demo::{self, Demo};
use myelin::doctor::{self, Doctor};
use myelin::guard::{Guard, GuardFiles};
use myelin::node::Node;
use myelin::reflex::{Kind, Scope, Spec};
use myelin::runtime::Wanted;
use myelin::settings::{self, Layers};
use myelin::stop::Signals;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A thread-per-core appliance for market facts.
#[derive(Parser)]
#[command(name = "myelin", version, about, subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs a node.
    Serve(Serve),
    /// Shows the main job on an embedded node: ticks in, durable, fired, counted.
    Demo(Demo),
    #[command(flatten)]
    AtRest(at_rest::Command),
    /// Says whether this host can carry a node: io_uring, limits, clock, disk, ports; each with its fix.
    Doctor(Doctor),
    /// Limits: a commented file of all of them, and what each means.
    #[command(subcommand)]
    Config(settings::Command),
    #[command(flatten)]
    Client(myelin_cli::Command),
}

#[derive(clap::Args)]
struct Serve {
    /// Everything the node remembers.
    #[arg(long, default_value = "myelin-data")]
    data_dir: PathBuf,
    /// Where ticks come in.
    #[arg(long, value_name = "ADDRESS", help = "Where ticks come in [default: 127.0.0.1:7400, or the next free port]")]
    listen: Option<SocketAddr>,
    /// HTTP: probes, metrics.
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "HTTP: reads, probes, metrics [default: 127.0.0.1:7480, or the next free port]"
    )]
    http: Option<SocketAddr>,
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
    #[command(flatten)]
    guard: GuardFiles,
    /// Listen beyond this host although TLS or authentication is missing.
    #[arg(long)]
    insecure: bool,
    /// A file of limits, as `myelin config default` prints it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rows in memory at which they are sealed into runs.
    #[arg(long, hide = true)]
    seal_rows: Option<u64>,
    /// Size of a log segment, fixed when the data directory is made. **Units:** bytes.
    #[arg(long, hide = true)]
    segment_bytes: Option<u64>,
}

/// The exit codes of the conventions that end a node: 6 when its data is damaged, 7 when the host does not do.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<settings::SettingsError>() {
        return 2;
    }
    if error.chain().any(myelin::node::is_damage) { 6 } else { 7 }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("MYELIN_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    #[cfg(target_os = "linux")]
    if let Err(error) = myelin::runtime::sigbus::install() {
        tracing::warn!(%error, "a page that goes bad under a map will end the process without a word");
    }
    let done = match Arguments::parse().verb {
        Verb::Serve(arguments) => serve(arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::AtRest(command) => return at_rest::run(&command).into(),
        Verb::Doctor(arguments) => return doctor::run(&arguments).into(),
        Verb::Config(command) => return settings::run(&command).into(),
        Verb::Client(command) => return myelin_cli::run(command, &HOUSE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myelin: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What the client's verbs ask of the appliance.
const HOUSE: myelin_cli::House = myelin_cli::House {
    command: Arguments::command,
    registration: |id, spec, scope| {
        let spec: Spec = spec.parse().map_err(|error: myelin::reflex::TextError| error.to_string())?;
        let scope: Scope = scope.parse().map_err(|error: myelin::reflex::TextError| error.to_string())?;
        let mut bytes = id.to_le_bytes().to_vec();
        spec.encode(&mut bytes);
        scope.encode(&mut bytes);
        Ok(bytes)
    },
    asked: |mut bytes| {
        let spec = Spec::decode(&mut bytes).ok()?;
        let scope = Scope::decode(&mut bytes).ok()?;
        Some((spec.to_string(), scope.to_string()))
    },
    firing_kind: |number| Kind::from_number(number).map(Kind::as_str),
};

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let shards = match arguments.shards.as_str() {
        "auto" => None,
        number => Some(number.parse().map_err(|_| anyhow::anyhow!("--shards takes a number or auto"))?),
    };
    let guard = Guard::read(&arguments.guard)?;
    let listen = arguments.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7400)));
    let http = arguments.http.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7480)));
    for address in [listen, http] {
        if !arguments.insecure {
            guard.allows(address)?;
        }
    }
    let mut limits = if arguments.lean { Limits::lean() } else { Limits::default() };
    Layers::read(arguments.config.as_deref())?.apply(&mut limits);
    limits.seal_rows = arguments.seal_rows.unwrap_or(limits.seal_rows);
    if let Some(bytes) = arguments.segment_bytes {
        limits = limits.with_segment_bytes(bytes);
    }
    let config = Config {
        data_dir: arguments.data_dir,
        listen,
        http,
        listen_moves: arguments.listen.is_none(),
        http_moves: arguments.http.is_none(),
        shards,
        executor: arguments.executor,
        lean: arguments.lean,
        pin: !arguments.no_pin,
        realtime: arguments.realtime,
        guard,
        limits,
    };
    let node = Node::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anybody is told where we are: from there on a stop is one that was planned.
        let signals = Signals::register()?;
        node.announce()?;
        tracing::info!(listen = ?node.listen, http = %node.http, executor = %node.executor, "serving");
        node.serve(signals).await
    })
}
