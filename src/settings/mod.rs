//! `myelin config`: every limit by its key, what it means, and where its value came from.
//!
//! ```text
//!   default (or --lean)  <  --config FILE, [limits]  <  MYELIN_LIMITS__KEY  <  flag          layers.rs
//! ```
//!
//! What a key means is written once, as the doc comment of its field in `config.rs`, and read from there: a new field is
//! a new key with its reason, and the compiler insists on it below. Deliberately absent: changing a value while a node
//! runs.

mod layers;

use crate::at_rest::{Exit, Form, Table, print};
use crate::config::Limits;
use clap::Subcommand;
pub use layers::{Layers, SettingsError};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// A whole number of any width that a limit has.
trait Whole: Copy {
    fn into_wide(self) -> u64;
    fn from_wide(wide: u64) -> Option<Self>;
}

macro_rules! whole {
    ($($kind:ty),*) => { $(impl Whole for $kind {
        fn into_wide(self) -> u64 {
            self as u64
        }
        fn from_wide(wide: u64) -> Option<Self> {
            wide.try_into().ok()
        }
    })* };
}

whole!(u32, usize, u64);

/// Ties keys to fields. The pattern names every field, so that a limit without a key does not compile.
macro_rules! limits {
    ($($key:ident),* $(,)?) => {
        /// Every key, in the order of the file.
        const KEYS: &[&str] = &[$(stringify!($key)),*];

        fn values(limits: &Limits) -> Vec<u64> {
            let Limits { $($key),* } = limits;
            vec![$($key.into_wide()),*]
        }

        /// Sets a limit; false when its field is too narrow. **Panics** on a key that is none: the caller looked.
        fn set(limits: &mut Limits, key: &str, value: u64) -> bool {
            match key {
                $(stringify!($key) => Whole::from_wide(value).map(|value| limits.$key = value).is_some(),)*
                _ => unreachable!("{key} is no key"),
            }
        }
    };
}

limits!(
    max_body_bytes,
    connections_per_core,
    hello_within_ms,
    frame_within_ms,
    requests_per_connection,
    outbox_bytes,
    sessions_per_shard,
    markets_per_shard,
    reflexes_per_shard,
    subscriptions_per_shard,
    firings_at_hand,
    waiting_reads_per_shard,
    max_sync_latency_us,
    max_clock_offset_ms,
    segment_bytes,
    batch_bytes,
    batch_buffers,
    max_segments,
    seal_rows,
    seal_log_bytes,
    unsealed_rows_max,
    block_cache_bytes,
    ring_items,
    awake_us,
);

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prints a configuration file with every limit, its default, unit and reason.
    Default {
        /// How to print; a table is the file.
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
    /// Says what a limit means, its value here, where that came from, and when a change takes effect.
    Explain {
        /// The limit, as in the file.
        key: String,
        /// The file a node would be started with.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// A limit, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Told {
    key: &'static str,
    value: u64,
    default: u64,
    lean: u64,
    unit: String,
    reason: String,
    source: String,
    takes_effect: &'static str,
}

/// Performs a verb and says how it ended.
#[must_use]
pub fn run(command: &Command) -> Exit {
    let done = match command {
        Command::Default { output } => print(*output, &all(&Layers::default()), |all| file(all)),
        Command::Explain { key, config, output } => {
            let told = Layers::read(config.as_deref()).and_then(|layers| {
                let key = layers::known(key)?;
                Ok(all(&layers).into_iter().find(|told| told.key == key))
            });
            match told {
                Ok(told) => told.map_or(Ok(()), |told| print(*output, &told, text)),
                Err(error) => {
                    eprintln!("myelin: {error}");
                    return Exit::Usage;
                }
            }
        }
    };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("myelin: {error}");
            Exit::Unfit
        }
        _ => Exit::Ok,
    }
}

/// Every limit under these layers.
fn all(layers: &Layers) -> Vec<Told> {
    let (default, lean) = (values(&Limits::default()), values(&Limits::lean()));
    let mut limits = Limits::default();
    layers.apply(&mut limits);
    let value = values(&limits);
    let tell = |(at, key): (usize, &&'static str)| {
        let (reason, unit) = doc_of(key);
        let (value, default, lean) = (value[at], default[at], lean[at]);
        let source = layers.source(key).to_string();
        Told { key, value, default, lean, unit, reason, source, takes_effect: takes_effect(key) }
    };
    KEYS.iter().enumerate().map(tell).collect()
}

fn takes_effect(key: &str) -> &'static str {
    if key == "segment_bytes" { "in a new data directory: one that exists keeps its own" } else { "at the next start" }
}

/// Reason and unit of a limit, from the comment above its field.
fn doc_of(key: &str) -> (String, String) {
    let source = include_str!("../config.rs");
    let mut doc = Vec::new();
    for line in source.lines().map(str::trim).skip_while(|line| *line != "pub struct Limits {") {
        if let Some(words) = line.strip_prefix("/// ") {
            doc.push(words);
        } else if line.strip_prefix("pub ").and_then(|rest| rest.split_once(':')).is_some_and(|(name, _)| name == key) {
            break;
        } else {
            doc.clear();
        }
    }
    let doc = doc.join(" ");
    match doc.split_once("**Units:** ") {
        Some((reason, unit)) => (reason.trim().to_owned(), unit.trim_end_matches('.').to_owned()),
        None => (doc, "count".to_owned()),
    }
}

/// The file with its comments.
fn file(all: &[Told]) -> String {
    let mut text = "# Every limit of a node, with its default. What is left out keeps it. Stronger than this file\n\
                    # is the environment (MYELIN_LIMITS__SEAL_ROWS=..), and stronger than that a flag.\n\n[limits]\n"
        .to_owned();
    for told in all {
        text.push('\n');
        for line in wrapped(&format!("{} Unit: {}. Changes: {}.", told.reason, told.unit, told.takes_effect)) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("{} = {}\n", told.key, told.value));
    }
    text
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + word.len() < 100) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A limit for people.
fn text(told: &Told) -> String {
    let mut table = Table::new(&["key", "value", "unit", "source", "default", "lean"]);
    let numbers = [told.default, told.lean].map(|number| number.to_string());
    let head = [told.key.to_owned(), told.value.to_string(), told.unit.clone(), told.source.clone()];
    table.row(head.into_iter().chain(numbers));
    format!("{}\n{}\nA change takes effect {}.\n", table.text(), told.reason, told.takes_effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_reason_and_the_file_of_defaults_changes_nothing() {
        for told in all(&Layers::default()) {
            assert!(told.reason.len() > 10, "{} has no reason: {:?}", told.key, told.reason);
        }
        assert_eq!(doc_of("max_sync_latency_us").1, "microseconds");
        let text = file(&all(&Layers::default()));
        let layers = Layers::parse(&text, "f".into()).unwrap();
        let mut limits = Limits::default();
        layers.apply(&mut limits);
        assert_eq!(values(&limits), values(&Limits::default()));
        assert!(KEYS.iter().all(|key| layers.source(key) == Source::File("f".into())));
    }

    #[test]
    fn keys_stand_in_the_order_of_the_struct() {
        let printed = format!("{:?}", Limits::default());
        let places: Vec<_> = KEYS.iter().map(|key| printed.find(&format!(" {key}:"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    }
}
