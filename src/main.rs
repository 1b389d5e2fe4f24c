//! The appliance's entry: flags -> Config -> node, or a verb of the client's. Nothing else.

use clap::{CommandFactory as _, Parser, Subcommand};
use myelin::at_rest;
use myelin::demo::{self, Demo};
use myelin::doctor::{self, Doctor};
use myelin::node::Node;
use myelin::reflex::{Kind, Scope, Spec};
use myelin::settings::{self, Flags};
use myelin::stop::Signals;
use std::io::IsTerminal as _;
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
    Serve(Flags),
    /// Shows the main job on an embedded node: ticks in, durable, fired, counted.
    Demo(Demo),
    #[command(flatten)]
    AtRest(at_rest::Command),
    /// Says whether this host can carry a node: io_uring, limits, clock, disk, ports; each with its fix.
    Doctor(Doctor),
    /// Settings: a commented file of all of them, and what each means.
    #[command(subcommand)]
    Config(settings::Command),
    #[command(flatten)]
    Client(myelin_cli::Command),
}

/// The exit codes of the conventions that end a node: 2 when what was said will not do, a port or directory that another has among
/// it, 6 when data is damaged, 7 when the host does not do.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(myelin::node::is_damage) {
        return 6;
    }
    if error.chain().any(myelin::node::is_usage) { 2 } else { 7 }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would say on stderr that stderr cannot be written, and panic there: a disk that is full or a reader who left ends no node.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("MYELIN_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    #[cfg(target_os = "linux")]
    if let Err(error) = myelin::runtime::sigbus::install() {
        tracing::warn!(%error, "a page that goes bad under a map will end the process without a word");
    }
    let done = match Arguments::parse().verb {
        Verb::Serve(flags) => serve(&flags),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::AtRest(command) => return at_rest::run(&command).into(),
        Verb::Doctor(arguments) => return doctor::run(&arguments).into(),
        Verb::Config(command) => return settings::run(&command).into(),
        Verb::Client(command) => return myelin_cli::run(command, &HOUSE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            myelin_cli::complain(format_args!("{error:#}"));
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

fn serve(flags: &Flags) -> anyhow::Result<()> {
    let node = Node::start(&flags.config()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anybody is told where we are: from there on a stop is one that was planned.
        let signals = Signals::register()?;
        node.announce()?;
        tracing::info!(listen = ?node.listen, http = %node.http, admin = %node.admin, executor = %node.executor, "serving");
        node.serve(signals).await
    })
}
