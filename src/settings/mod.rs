//! `myelin config`: every setting by its key, what it means, and where its value came from.
//!
//! ```text
//!   default (or lean)  <  --config FILE, [serve] and [limits]  <  MYELIN_SECTION__KEY  <  flag          layers.rs
//! ```
//!
//! What a limit means is written once, as the comment of its field in `config.rs`, beside its range; what a key of `[serve]`
//! means, in `serve.rs`. Deliberately absent: changing a value while a node runs.

mod layers;
mod serve;

use crate::at_rest::{Exit, Form, Printed, Table, complain, print};
use crate::config::{FOR_LIFE, Limits};
use clap::Subcommand;
pub use layers::{Layers, SettingsError};
use serde::Serialize;
pub use serve::Flags;
use std::fmt;
use std::path::PathBuf;

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prints a configuration file with every setting, its default, unit, range and reason.
    Default {
        /// How to print; a table is the file.
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
    /// Says what a setting means, its value here, where that came from, and when a change takes effect.
    Explain {
        /// The setting, as in the file.
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
    /// This line of the file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// The command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Switch(bool),
    Text(String),
}

impl Value {
    /// Of a key of `[serve]`; nothing is nothing.
    fn of(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "true" => Some(Self::Switch(true)),
            "false" => Some(Self::Switch(false)),
            text => Some(text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Number)),
        }
    }

    fn text(value: Option<&Self>) -> String {
        value.map_or_else(|| "-".to_owned(), Self::to_string)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A setting, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Told {
    section: &'static str,
    key: &'static str,
    value: Option<Value>,
    default: Option<Value>,
    lean: Option<Value>,
    unit: String,
    range: Option<[u64; 2]>,
    reason: String,
    source: String,
    takes_effect: &'static str,
}

/// Every setting.
#[derive(Serialize)]
#[serde(transparent)]
struct All(Vec<Told>);

impl Printed for All {
    fn text(&self) -> String {
        file(&self.0)
    }

    fn rows(&self) -> Table {
        rows(&self.0)
    }

    fn lines(&self) -> serde_json::Result<Vec<String>> {
        self.0.iter().map(serde_json::to_string).collect()
    }
}

impl Printed for Told {
    fn text(&self) -> String {
        text(self)
    }

    fn rows(&self) -> Table {
        rows(std::slice::from_ref(self))
    }
}

/// Performs a verb and says how it ended.
#[must_use]
pub fn run(command: &Command) -> Exit {
    let done = match command {
        Command::Default { output } => print(*output, &All(all(&Layers::default()))),
        Command::Explain { key, config, output } => {
            let told = Layers::read(config.as_deref()).and_then(|layers| {
                let key = layers::known(key)?;
                layers.apply(&mut serve::limits(&layers))?;
                Ok(all(&layers).into_iter().find(|told| told.key == key))
            });
            match told {
                Ok(told) => told.map_or(Ok(()), |told| print(*output, &told)),
                Err(error) => {
                    complain(error);
                    return Exit::Usage;
                }
            }
        }
    };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(error);
            Exit::Unfit
        }
        _ => Exit::Ok,
    }
}

/// Every setting under these layers.
fn all(layers: &Layers) -> Vec<Told> {
    let served = serve::KEYS.iter().map(|about| Told {
        section: "serve",
        key: about.key,
        value: Value::of(serve::value(layers, about.key)),
        default: Value::of(about.default),
        lean: Value::of(if about.key == "lean" { "true" } else { about.default }),
        unit: "none".to_owned(),
        range: None,
        reason: about.doc.to_owned(),
        source: layers.source(about.key).to_string(),
        takes_effect: about.takes_effect,
    });
    let (default, lean) = (Limits::default().values(), Limits::lean().values());
    let begun = serve::limits(layers).values();
    let limits = Limits::about().into_iter().zip(default.into_iter().zip(lean).zip(begun));
    let limits = limits.map(|(about, ((default, lean), begun))| {
        let (reason, unit) = reason_and_unit(about.doc);
        let number = |number| Some(Value::Number(number));
        let value = layers.limit(about.key).unwrap_or(begun);
        Told {
            section: "limits",
            key: about.key,
            value: number(value),
            default: number(default),
            lean: number(lean),
            unit,
            range: Some([*about.range.start(), *about.range.end()]),
            reason,
            source: layers.source(about.key).to_string(),
            takes_effect: takes_effect(about.key),
        }
    });
    served.chain(limits).collect()
}

fn takes_effect(key: &str) -> &'static str {
    if FOR_LIFE.contains(&key) { "in a new data directory: one that exists keeps its own" } else { "at the next start" }
}

/// Reason and unit of a limit, from its comment.
fn reason_and_unit(doc: &[&str]) -> (String, String) {
    let doc = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    match doc.split_once("**Units:** ") {
        Some((reason, unit)) => (reason.trim().to_owned(), unit.trim_end_matches('.').to_owned()),
        None => (doc, "count".to_owned()),
    }
}

/// The file with its comments.
fn file(all: &[Told]) -> String {
    let mut text = "# Every setting of a node, with its default. What is left out keeps it. Stronger than this file\n\
                    # is the environment (MYELIN_LIMITS__SEAL_ROWS=.., MYELIN_SERVE__LISTEN=..), and stronger than\n\
                    # that a flag.\n"
        .to_owned();
    let mut section = "";
    for told in all {
        if told.section != section {
            section = told.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push('\n');
        let range = told.range.map(|[from, to]| format!(" Unit: {}; {from} to {to}.", told.unit)).unwrap_or_default();
        for line in wrapped(&format!("{}{range} Changes: {}.", told.reason, told.takes_effect)) {
            text.push_str(&format!("# {line}\n"));
        }
        let value = match &told.value {
            Some(Value::Text(text)) => format!("\"{text}\""),
            value => Value::text(value.as_ref()),
        };
        // Where a node is is nobody's to repeat: a port that is said does not move.
        text.push_str(&match &told.value {
            None => format!("# {} = \"..\"\n", told.key),
            _ if told.section == "serve" => format!("# {} = {value}\n", told.key),
            _ => format!("{} = {value}\n", told.key),
        });
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

/// A row per setting.
fn rows(all: &[Told]) -> Table {
    let mut table = Table::new(&[
        "section",
        "key",
        "value",
        "unit",
        "source",
        "default",
        "lean",
        "least",
        "most",
        "takes_effect",
        "reason",
    ]);
    for told in all {
        let [least, most] = told.range.map_or(["-".to_owned(), "-".to_owned()], |ends| ends.map(|end| end.to_string()));
        let values = [&told.default, &told.lean].map(|value| Value::text(value.as_ref()));
        let head = [told.section.to_owned(), told.key.to_owned(), Value::text(told.value.as_ref()), told.unit.clone()];
        let tail = [least, most, told.takes_effect.to_owned(), told.reason.clone()];
        table.row(head.into_iter().chain([told.source.clone()]).chain(values).chain(tail));
    }
    table
}

/// A setting for people.
fn text(told: &Told) -> String {
    let mut table = Table::new(&["key", "value", "unit", "source", "default", "lean", "range"]);
    let range = told.range.map_or_else(|| "-".to_owned(), |[from, to]| format!("{from} to {to}"));
    let values = [&told.default, &told.lean].map(|value| Value::text(value.as_ref()));
    let head = [told.key.to_owned(), Value::text(told.value.as_ref()), told.unit.clone(), told.source.clone()];
    table.row(head.into_iter().chain(values).chain([range]));
    format!("{}\n{}\nA change takes effect {}.\n", table.text(), told.reason, told.takes_effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_reason_and_the_file_of_defaults_changes_nothing() {
        let told = all(&Layers::default());
        for told in &told {
            assert!(told.reason.len() > 10, "{} has no reason: {:?}", told.key, told.reason);
        }
        let unit = |key: &str| told.iter().find(|told| told.key == key).unwrap().unit.clone();
        assert_eq!((unit("max_sync_latency_us"), unit("ring_items")), ("microseconds".to_owned(), "count".to_owned()));
        let layers = Layers::parse(&file(&told), "f".into()).unwrap();
        let mut limits = Limits::default();
        layers.apply(&mut limits).unwrap();
        assert_eq!(limits.values(), Limits::default().values());
        assert!(Limits::about().iter().all(|about| matches!(layers.source(about.key), Source::File(..))));
        assert!(serve::KEYS.iter().all(|about| layers.source(about.key) == Source::Default));
    }

    #[test]
    fn what_a_directory_keeps_for_life_is_said_to_be_kept() {
        for told in all(&Layers::default()) {
            let kept = FOR_LIFE.contains(&told.key) || told.key == "shards";
            assert_eq!(told.takes_effect.contains("one that exists keeps its own"), kept, "{}", told.key);
        }
    }
}
