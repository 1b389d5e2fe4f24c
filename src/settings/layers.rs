//! What was said, by the file, the environment and flags. An unknown key stops the boot and names the nearest one.
//!
//! Later layers win: each call replaces what was said before. A value is looked at when it is said, so an error names the
//! line, the variable or the flag; what limits say of each other is looked at when they are all there.

use super::Source;
use super::serve;
use crate::config::{Limits, OutOfRange};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The sections of the file, and of the environment's names.
const SECTIONS: &[&str] = &["serve", "limits"];
const PREFIX: &str = "MYELIN_";
/// Variables that are read elsewhere: the log's level, the client's, and what the tests are told.
const ELSEWHERE: &[&str] = &["LOG", "SERVER", "TLS_CA", "TOKEN_FILE", "DATA", "CAMPAIGN", "TEST_EXECUTOR", "TRIAL"];
/// Of the tests of the log.
const ELSEWHERE_PREFIX: &str = "WAL_";
/// Letters in which a variable may differ from one of ours and is still taken for a slip of the hand.
const SLIP: usize = 2;

/// Why a node is not started with these settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No setting of this name.
    #[error("{place}: there is no setting `{name}`{}", nearest(name, among))]
    Unknown {
        /// The file and line, the variable, or the flag.
        place: String,
        /// What was written.
        name: String,
        /// What would have been known.
        among: Vec<&'static str>,
    },
    /// Not a value that fits.
    #[error("{place}: `{key}` takes {takes}, not {found}")]
    Value {
        /// The file and line, the variable, or the flag.
        place: String,
        /// The setting.
        key: &'static str,
        /// What would do.
        takes: String,
        /// What was written.
        found: String,
    },
    /// Not a configuration file.
    #[error("{}: {said}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        said: String,
    },
    /// The settings fit one by one, and yet a node is not started with them.
    #[error("{0}")]
    Together(String),
}

/// What was said, each value with where it was said.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    limits: BTreeMap<&'static str, (u64, Source)>,
    served: BTreeMap<&'static str, (String, Source)>,
}

impl Layers {
    /// Reads the file, if there is one, then the environment.
    ///
    /// **Errors:** a key that is none, a value that does not fit, a file that cannot be read.
    pub fn read(file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut layers = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|error| SettingsError::File { path: path.to_owned(), said: error.to_string() })?;
                Self::parse(&text, path.to_owned())?
            }
            None => Self::default(),
        };
        let environment =
            std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
        for stranger in layers.environment(environment)? {
            tracing::warn!("the variable {stranger} is none of ours and changes nothing");
        }
        Ok(layers)
    }

    /// Reads a file's text.
    pub(super) fn parse(text: &str, path: PathBuf) -> Result<Self, SettingsError> {
        let said = |error: toml::de::Error| SettingsError::File { path: path.clone(), said: error.to_string() };
        let root = DeTable::parse(text).map_err(said)?;
        let mut layers = Self::default();
        let at = |from: usize| Source::File(path.clone(), text[..from].matches('\n').count() + 1);
        for (section, content) in root.get_ref() {
            let place = at(section.span().start);
            let table = content.get_ref().as_table().filter(|_| SECTIONS.contains(&section.get_ref().as_ref()));
            let Some(table) = table else {
                let name = section.get_ref().to_string();
                return Err(SettingsError::Unknown { place: place.to_string(), name, among: SECTIONS.to_vec() });
            };
            for (name, value) in table {
                layers.say(section.get_ref(), name.get_ref(), spelled(value.get_ref()), at(name.span().start))?;
            }
        }
        Ok(layers)
    }

    /// Reads `MYELIN_SECTION__KEY` among the variables. Gives those that begin as ours do and are none: a cluster manager
    /// makes such of a service's name, so they only get a word.
    ///
    /// **Errors:** an unknown section or key behind two underscores, and whatever is nearly one of ours.
    pub(super) fn environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<String>, SettingsError> {
        let mut strangers = Vec::new();
        for (variable, value) in variables {
            let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
            let Some((section, name)) = rest.split_once("__") else {
                if ELSEWHERE.contains(&rest) || rest.starts_with(ELSEWHERE_PREFIX) {
                    continue;
                }
                if let Some(meant) = slip_of(rest) {
                    let (place, name) = ("environment".to_owned(), variable.clone());
                    return Err(SettingsError::Unknown { place, name, among: vec![meant] });
                }
                strangers.push(variable);
                continue;
            };
            let source = Source::Environment(variable.clone());
            let section = section.to_ascii_lowercase();
            if !SECTIONS.contains(&section.as_str()) {
                let (place, among) = (source.to_string(), SECTIONS.to_vec());
                return Err(SettingsError::Unknown { place, name: section, among });
            }
            self.say(&section, &name.to_ascii_lowercase(), value.trim().to_owned(), source)?;
        }
        Ok(strangers)
    }

    /// Says one, over what was said before.
    ///
    /// **Errors:** a key that is none, a value that does not fit.
    pub(super) fn say(
        &mut self,
        section: &str,
        name: &str,
        value: String,
        source: Source,
    ) -> Result<(), SettingsError> {
        let key = find(section, name, &source)?;
        let wrong =
            |takes: String| SettingsError::Value { place: source.to_string(), key, takes, found: value.clone() };
        if section == "serve" {
            serve::check(key, &value).map_err(wrong)?;
            self.served.insert(key, (value, source));
            return Ok(());
        }
        let number: u64 = value.parse().map_err(|_| wrong("a whole number".to_owned()))?;
        let about = Limits::about().into_iter().find(|about| about.key == key);
        if let Some(about) = about.filter(|about| !about.range.contains(&number)) {
            return Err(wrong(format!("{} to {}", about.range.start(), about.range.end())));
        }
        self.limits.insert(key, (number, source));
        Ok(())
    }

    /// Puts what was said in the place of what is there, and looks at the whole.
    ///
    /// **Errors:** limits that contradict each other.
    pub fn apply(&self, limits: &mut Limits) -> Result<(), SettingsError> {
        for (key, (value, _)) in &self.limits {
            let fitted = limits.set(key, *value);
            assert!(fitted, "a value was tried when it was said");
        }
        limits.check().map_err(|OutOfRange { key, found, takes }| SettingsError::Value {
            place: self.source(key).to_string(),
            key,
            takes,
            found: found.to_string(),
        })
    }

    /// What was said of a key of `[serve]`.
    pub(super) fn served(&self, key: &str) -> Option<&str> {
        self.served.get(key).map(|(value, _)| value.as_str())
    }

    /// What was said of a limit.
    pub(super) fn limit(&self, key: &str) -> Option<u64> {
        self.limits.get(key).map(|(value, _)| *value)
    }

    /// Where a value comes from.
    #[must_use]
    pub fn source(&self, key: &str) -> Source {
        let limit = self.limits.get(key).map(|(_, source)| source);
        limit.or_else(|| self.served.get(key).map(|(_, source)| source)).cloned().unwrap_or(Source::Default)
    }
}

/// The key of this name, as a person typed it.
pub(super) fn known(name: &str) -> Result<&'static str, SettingsError> {
    let bare = SECTIONS.iter().find_map(|section| name.strip_prefix(section)?.strip_prefix('.')).unwrap_or(name);
    let found = SECTIONS.iter().flat_map(|section| keys(section)).find(|key| *key == bare);
    found.ok_or_else(|| SettingsError::Unknown {
        place: "config explain".to_owned(),
        name: name.to_owned(),
        among: SECTIONS.iter().flat_map(|section| keys(section)).collect(),
    })
}

/// The keys of a section.
fn keys(section: &str) -> Vec<&'static str> {
    match section {
        "serve" => serve::KEYS.iter().map(|about| about.key).collect(),
        _ => Limits::about().into_iter().map(|about| about.key).collect(),
    }
}

fn find(section: &str, name: &str, source: &Source) -> Result<&'static str, SettingsError> {
    let among = keys(section);
    match among.iter().find(|key| **key == name) {
        Some(key) => Ok(key),
        None => Err(SettingsError::Unknown { place: source.to_string(), name: name.to_owned(), among }),
    }
}

/// A value as the environment would have it.
fn spelled(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.to_string(),
        },
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        other => format!("a {}", other.type_str()),
    }
}

/// The setting whose variable this nearly is; both without regard to how many underscores stand between the words.
fn slip_of(rest: &str) -> Option<&'static str> {
    let all = SECTIONS.iter().flat_map(|section| keys(section).into_iter().map(move |key| (section, key)));
    let near = all.map(|(section, key)| (distance(&rest.to_ascii_lowercase(), &format!("{section}_{key}")), key));
    near.min().filter(|(distance, _)| *distance <= SLIP).map(|(_, key)| key)
}

/// What was probably meant.
fn nearest(name: &str, among: &[&str]) -> String {
    if name.starts_with(PREFIX)
        && let [key] = among
    {
        let section = if keys("serve").contains(key) { "SERVE" } else { "LIMITS" };
        return format!("; did you mean `{PREFIX}{section}__{}`?", key.to_ascii_uppercase());
    }
    let best = among.iter().map(|key| (distance(name, key), key)).min();
    let near = best.filter(|(distance, key)| *distance <= key.len() / 2);
    near.map_or_else(
        || "; `myelin config default` prints them all".to_owned(),
        |(_, key)| format!("; did you mean `{key}`?"),
    )
}

/// Letters to put in, take out or change. Source: V. Levenshtein, 1965.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str, value: &str) -> std::iter::Once<(String, String)> {
        std::iter::once((name.to_owned(), value.to_owned()))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_both_over_the_default() {
        let text = "[limits]\nseal_rows = 7_000\nring_items = 0x20\n[serve]\nlisten = \"127.0.0.1:1\"\nlean = true\n";
        let mut layers = Layers::parse(text, "my.toml".into()).unwrap();
        layers.environment(env("MYELIN_LIMITS__SEAL_ROWS", "9000")).unwrap();
        layers.environment(env("MYELIN_SERVE__LISTEN", "127.0.0.1:2")).unwrap();
        assert!(layers.environment(env("MYELIN_LOG", "info")).unwrap().is_empty());
        let mut limits = Limits::default();
        layers.apply(&mut limits).unwrap();
        assert_eq!((limits.seal_rows, limits.ring_items, limits.batch_buffers), (9000, 32, 3));
        assert_eq!((layers.served("listen"), layers.served("lean")), (Some("127.0.0.1:2"), Some("true")));
        assert_eq!(layers.source("seal_rows").to_string(), "environment MYELIN_LIMITS__SEAL_ROWS");
        assert_eq!(layers.source("ring_items").to_string(), "file my.toml, line 3");
        assert_eq!(layers.source("lean").to_string(), "file my.toml, line 6");
        assert_eq!(layers.source("batch_buffers"), Source::Default);
    }

    #[test]
    fn what_is_not_known_stops_the_boot_with_a_suggestion() {
        for (text, said) in [
            ("[limits]\nseal_row = 7\n", "did you mean `seal_rows`?"),
            ("[limit]\nseal_rows = 7\n", "did you mean `limits`?"),
            ("[serve]\nlistens = \"a\"\n", "line 2: there is no setting `listens`; did you mean `listen`?"),
            ("[limits]\nzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz = 7\n", "prints them all"),
            ("[limits]\nseal_rows = -7\n", "takes a whole number, not -7"),
            ("[limits]\nseal_rows = 7\n", "`seal_rows` takes 100 to 4294967296, not 7"),
            ("[limits]\n\nsessions_per_shard = 0\n", "my.toml, line 3: `sessions_per_shard` takes 16 to"),
            ("[limits]\nmax_body_bytes = 4294967296\n", "`max_body_bytes` takes 4096 to"),
            ("[serve]\nshards = 0\n", "`shards` takes auto, or 1 to 64, not 0"),
            ("[serve]\nlean = 1\n", "`lean` takes true or false, not 1"),
            ("[serve]\nexecutor = \"fast\"\n", "`executor` takes auto, uring or portable"),
            ("[serve]\nlisten = \"7400\"\n", "`listen` takes"),
            ("[limits\n", "my.toml"),
        ] {
            let error = Layers::parse(text, "my.toml".into()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("my.toml"), "{error}");
        }
    }

    #[test]
    fn a_variable_that_is_nearly_ours_is_refused_and_a_strange_one_gets_a_word() {
        let mut layers = Layers::default();
        for (name, value, said) in [
            ("MYELIN_LIMITS__SEAL_ROW", "7", "did you mean `seal_rows`?"),
            ("MYELIN_LIMIT__SEAL_ROWS", "7", "did you mean `limits`?"),
            ("MYELIN_LIMITS__SEAL_ROWS", "many", "takes a whole number, not many"),
            ("MYELIN_LIMITS_SEAL_ROWS", "7000", "did you mean `MYELIN_LIMITS__SEAL_ROWS`?"),
            ("MYELIN_SERVE_LISTEN", "127.0.0.1:1", "did you mean `MYELIN_SERVE__LISTEN`?"),
            ("MYELIN_SERVE__SHARDS", "many", "MYELIN_SERVE__SHARDS: `shards` takes auto, or 1 to 64"),
        ] {
            let error = layers.environment(env(name, value)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(said), "{error}");
        }
        for name in ["MYELIN_PORT", "MYELIN_PORT_7400_TCP_ADDR", "MYELIN_SERVICE_HOST"] {
            assert_eq!(layers.environment(env(name, "x")).unwrap(), [name]);
        }
        for name in ["MYELIN_SERVER", "MYELIN_DATA", "MYELIN_CAMPAIGN", "MYELIN_TEST_EXECUTOR", "MYELIN_WAL_STATES"] {
            assert!(layers.environment(env(name, "x")).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused_where_they_were_said() {
        let layers = Layers::parse("[limits]\nbatch_bytes = 67108864\n", "my.toml".into()).unwrap();
        let error = layers.apply(&mut Limits::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("file my.toml, line 2: `batch_bytes` takes at most half of segment_bytes"),
            "{error}"
        );
    }
}
