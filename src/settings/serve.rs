//! The section `[serve]`: where a node is and how it runs. Each key is a flag, too.
//!
//! ```text
//!   file [serve]  <  MYELIN_SERVE__KEY  <  --flag          all three by the same check, so that all say the same
//! ```
//!
//! Deliberately absent: a key for `--config`, which says where this is read from.

use super::{Layers, SettingsError, Source};
use crate::config::{Config, FOR_LIFE, Limits};
use crate::guard::{Guard, GuardFiles};
use crate::identity::SHARDS_MAX;
use crate::runtime::Wanted;
use clap::ValueEnum as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

/// A key of the section.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) key: &'static str,
    /// Empty: nothing.
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
    pub(super) takes_effect: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Path,
    Address,
    Shards,
    Executor,
    Switch,
}

const NEXT: &str = "at the next start";
const LISTEN: &str = "127.0.0.1:7400";
const HTTP: &str = "127.0.0.1:7480";
const ADMIN: &str = "127.0.0.1:7490";
const DATA_DIR: &str = "myelin-data";

const fn about(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> About {
    About { key, default, doc, takes_effect: NEXT, kind }
}

/// Every key, in the order of the file.
pub(super) const KEYS: &[About] = &[
    about("data_dir", Kind::Path, DATA_DIR, "Everything the node remembers."),
    about("listen", Kind::Address, LISTEN, "Where ticks come in. The default moves to the next free port."),
    about("http", Kind::Address, HTTP, "HTTP: reads, probes, metrics. The default moves to the next free port."),
    about("admin", Kind::Address, ADMIN, "Probes and metrics, without TLS and token. The default moves likewise."),
    About {
        takes_effect: "in a new data directory: one that exists keeps its own, and refuses another number",
        ..about("shards", Kind::Shards, "auto", "Shards: a number, or auto = one per data core.")
    },
    about("executor", Kind::Executor, "auto", "Who runs the data cores: io_uring, the portable one, or what works."),
    about("lean", Kind::Switch, "false", "Everything on one thread, small buffers."),
    about("pin", Kind::Switch, "true", "Data cores stay on a CPU of their own."),
    about("realtime", Kind::Switch, "false", "Real-time priority for data cores."),
    About {
        takes_effect: "while the node serves, when the file itself is renewed; another file at the next start",
        ..about("tls_cert", Kind::Path, "", "The node's certificate, and those above it: TLS 1.3 only, with tls_key.")
    },
    about("tls_key", Kind::Path, "", "The certificate's key, which nobody else may read (mode 600)."),
    about("auth_token_file", Kind::Path, "", "A file with the token that every client must show (mode 600)."),
    about("insecure", Kind::Switch, "false", "Listen beyond this host although TLS or authentication is missing."),
];

/// The flags of `myelin serve`: what is not said is the environment's, the file's, or the default.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// Everything the node remembers [default: myelin-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where ticks come in [default: 127.0.0.1:7400, or the next free port]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// HTTP: reads, probes, metrics [default: 127.0.0.1:7480, or the next free port]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Probes and metrics, without TLS and token [default: 127.0.0.1:7490, or the next free port]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Shards, fixed when the data directory is made: a number, or auto = one per data core [default: auto]
    #[arg(long, value_name = "N|auto")]
    shards: Option<String>,
    /// Who runs the data cores [default: auto]
    #[arg(long, value_enum)]
    executor: Option<Wanted>,
    /// Everything on one thread, small buffers
    #[arg(long)]
    lean: bool,
    /// Leave data cores where the scheduler puts them
    #[arg(long)]
    no_pin: bool,
    /// Real-time priority for data cores
    #[arg(long)]
    realtime: bool,
    #[command(flatten)]
    guard: GuardFiles,
    /// Listen beyond this host although TLS or authentication is missing
    #[arg(long)]
    insecure: bool,
    /// A file of settings, as `myelin config default` prints it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rows in memory at which they are sealed into runs
    #[arg(long, hide = true)]
    seal_rows: Option<u64>,
    /// Size of a log segment, fixed when the data directory is made. **Units:** bytes
    #[arg(long, hide = true)]
    segment_bytes: Option<u64>,
}

impl Flags {
    /// What the flags say, by key.
    fn said(&self) -> Vec<(&'static str, &'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let switch = |on: bool, value: &str| on.then(|| value.to_owned());
        let executor = self.executor.and_then(|wanted| wanted.to_possible_value());
        let all = [
            ("data_dir", "--data-dir", path(&self.data_dir)),
            ("listen", "--listen", self.listen.clone()),
            ("http", "--http", self.http.clone()),
            ("admin", "--admin", self.admin.clone()),
            ("shards", "--shards", self.shards.clone()),
            ("executor", "--executor", executor.map(|value| value.get_name().to_owned())),
            ("lean", "--lean", switch(self.lean, "true")),
            ("pin", "--no-pin", switch(self.no_pin, "false")),
            ("realtime", "--realtime", switch(self.realtime, "true")),
            ("tls_cert", "--tls-cert", path(&self.guard.tls_cert)),
            ("tls_key", "--tls-key", path(&self.guard.tls_key)),
            ("auth_token_file", "--auth-token-file", path(&self.guard.auth_token_file)),
            ("insecure", "--insecure", switch(self.insecure, "true")),
        ];
        all.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value?))).collect()
    }

    /// Everything a node is started with: file, environment and flags, checked.
    ///
    /// **Errors:** whatever was said that will not do, and where.
    pub fn config(&self) -> Result<Config, SettingsError> {
        let mut layers = Layers::read(self.config.as_deref())?;
        for (key, flag, value) in self.said() {
            layers.say("serve", key, value, Source::Flag(flag))?;
        }
        let mut limits = limits(&layers);
        if let Some(rows) = self.seal_rows {
            layers.say("limits", "seal_rows", rows.to_string(), Source::Flag("--seal-rows"))?;
            // By itself it means that so many may wait, too; what is said of that still stands.
            limits.unsealed_rows_max = limits.unsealed_rows_max.max(rows);
        }
        if let Some(bytes) = self.segment_bytes {
            layers.say("limits", "segment_bytes", bytes.to_string(), Source::Flag("--segment-bytes"))?;
            // By itself it means a smaller log altogether; what is said of its parts still stands.
            limits = limits.with_segment_bytes(bytes);
        }
        layers.apply(&mut limits)?;
        settled(&layers, limits)
    }
}

/// The limits before anything is said of them.
pub(super) fn limits(layers: &Layers) -> Limits {
    if is_on(layers, "lean") { Limits::lean() } else { Limits::default() }
}

fn is_on(layers: &Layers, key: &'static str) -> bool {
    value(layers, key) == "true"
}

/// What stands after all layers.
pub(super) fn value<'a>(layers: &'a Layers, key: &str) -> &'a str {
    let default = KEYS.iter().find(|about| about.key == key).map_or("", |about| about.default);
    layers.served(key).unwrap_or(default)
}

/// The node's configuration of these layers.
fn settled(layers: &Layers, limits: Limits) -> Result<Config, SettingsError> {
    let together = |error: anyhow::Error| SettingsError::Together(format!("{error:#}"));
    let path = |key: &str| Some(value(layers, key)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let files =
        GuardFiles { tls_cert: path("tls_cert"), tls_key: path("tls_key"), auth_token_file: path("auth_token_file") };
    let guard = Guard::read(&files).map_err(together)?;
    let [listen, http, admin] = ["listen", "http", "admin"].map(|key| address(value(layers, key)));
    let (Some(listen), Some(http), Some(admin)) = (listen, http, admin) else {
        return Err(SettingsError::Together("an address that was found is gone: try again".to_owned()));
    };
    for (key, address) in [("listen", listen), ("http", http)] {
        if !is_on(layers, "insecure") {
            let said = |error| SettingsError::Together(format!("{}: {error}", layers.source(key)));
            guard.allows(address).map_err(said)?;
        }
    }
    if !is_on(layers, "insecure") && !admin.ip().is_loopback() {
        let source = layers.source("admin");
        return Err(SettingsError::Together(format!(
            "{source}: {admin} is reachable from other hosts and asks for no token: say --insecure if that is meant"
        )));
    }
    let said = FOR_LIFE.iter().filter_map(|key| Some((*key, layers.limit(key)?, layers.source(key).to_string())));
    Ok(Config {
        data_dir: PathBuf::from(value(layers, "data_dir")),
        listen,
        http,
        admin,
        listen_moves: layers.source("listen") == Source::Default,
        http_moves: layers.source("http") == Source::Default,
        admin_moves: layers.source("admin") == Source::Default,
        shards: value(layers, "shards").parse().ok(),
        executor: Wanted::from_str(value(layers, "executor"), true).unwrap_or(Wanted::Auto),
        lean: is_on(layers, "lean"),
        pin: is_on(layers, "pin"),
        guard,
        realtime: is_on(layers, "realtime"),
        limits,
        said: said.collect(),
    })
}

/// Looks at a value. **Errors:** what the key takes instead.
pub(super) fn check(key: &str, value: &str) -> Result<(), String> {
    let Some(about) = KEYS.iter().find(|about| about.key == key) else { return Ok(()) };
    let (fits, takes) = match about.kind {
        Kind::Path => (!value.is_empty(), "a path".to_owned()),
        Kind::Address => (
            address(value).is_some(),
            format!(
                "an address and a port, as {}, or localhost and one, or a name that can be looked up",
                about.default
            ),
        ),
        Kind::Shards => {
            let number = value.parse().is_ok_and(|number: u16| (1..=SHARDS_MAX).contains(&number));
            (value == "auto" || number, format!("auto, or 1 to {SHARDS_MAX}"))
        }
        Kind::Executor => (Wanted::from_str(value, true).is_ok(), "auto, uring or portable".to_owned()),
        Kind::Switch => (matches!(value, "true" | "false"), "true or false".to_owned()),
    };
    if fits { Ok(()) } else { Err(takes) }
}

/// The address of a text: numbers as they stand, a name by asking the system, IPv4 before IPv6 as most clients do.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let found: Vec<_> = text.to_socket_addrs().ok()?.collect();
    found.iter().find(|address| address.is_ipv4()).or_else(|| found.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_loopback_is_an_address() {
        assert_eq!(address("localhost:7400"), Some(SocketAddr::from(([127, 0, 0, 1], 7400))));
        assert_eq!(address("[::1]:7400").map(|address| address.is_ipv6()), Some(true));
        assert_eq!(address("7400"), None);
    }

    #[test]
    fn a_flag_wins_and_a_default_may_move() {
        let flags = Flags { listen: Some("localhost:7400".to_owned()), lean: true, ..Flags::default() };
        let config = flags.config().unwrap();
        assert_eq!((config.listen_moves, config.http_moves, config.lean), (false, true, true));
        assert_eq!(config.limits.seal_rows, Limits::lean().seal_rows);
        assert_eq!((config.shards, config.pin), (None, true));
        for shards in ["0", "65", "100", "foo"] {
            let flags = Flags { shards: Some(shards.to_owned()), ..Flags::default() };
            let error = flags.config().unwrap_err().to_string();
            assert_eq!(error, format!("flag --shards: `shards` takes auto, or 1 to 64, not {shards}"));
        }
        let flags = Flags { http: Some("0.0.0.0:1".to_owned()), ..Flags::default() };
        let error = flags.config().unwrap_err().to_string();
        assert!(error.starts_with("flag --http: 0.0.0.0:1 is reachable from other hosts"), "{error}");
        let flags = Flags { admin: Some("0.0.0.0:1".to_owned()), ..Flags::default() };
        let error = flags.config().unwrap_err().to_string();
        assert!(error.starts_with("flag --admin: 0.0.0.0:1 is reachable from other hosts"), "{error}");
    }
}
