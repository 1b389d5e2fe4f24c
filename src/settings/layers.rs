//! What was said about limits, by the file and the environment. An unknown key stops the boot and names the nearest one.

use super::{KEYS, Source, set};
use crate::config::Limits;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The one section of the file, and of the environment's names.
const SECTION: &str = "limits";
const PREFIX: &str = "MYELIN_";

/// Why a node is not started with these settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No setting of this name.
    #[error("{place}: there is no setting `{name}`{}", nearest(name, among))]
    Unknown {
        /// The file, or the variable.
        place: String,
        /// What was written.
        name: String,
        /// What would have been known.
        among: &'static [&'static str],
    },
    /// Not a value that fits.
    #[error("{place}: `{key}` takes a whole number that fits its field, not {found}")]
    Value {
        /// The file, or the variable.
        place: String,
        /// The setting.
        key: &'static str,
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
}

/// What was said, each value with where it was said.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    said: BTreeMap<&'static str, (u64, Source)>,
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
        layers.environment(environment)?;
        Ok(layers)
    }

    /// Reads a file's text.
    pub(super) fn parse(text: &str, path: PathBuf) -> Result<Self, SettingsError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| SettingsError::File { path: path.clone(), said: error.to_string() })?;
        let place = path.display().to_string();
        let mut layers = Self::default();
        for (section, content) in &table {
            let unknown = || SettingsError::Unknown { place: place.clone(), name: section.clone(), among: &[SECTION] };
            let section = content.as_table().filter(|_| section == SECTION).ok_or_else(unknown)?;
            for (name, value) in section {
                let key = find(name, &place)?;
                let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
                layers.say(key, number, &spelled(value), &place, Source::File(path.clone()))?;
            }
        }
        Ok(layers)
    }

    /// Reads `MYELIN_LIMITS__KEY` among the variables; one with two underscores and another section is a mistake.
    fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), SettingsError> {
        for (variable, value) in variables {
            let Some((section, name)) = variable.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
                continue;
            };
            if !section.eq_ignore_ascii_case(SECTION) {
                let (place, name) = (variable.clone(), section.to_ascii_lowercase());
                return Err(SettingsError::Unknown { place, name, among: &[SECTION] });
            }
            let key = find(&name.to_ascii_lowercase(), &variable)?;
            self.say(key, value.trim().parse().ok(), &value, &variable, Source::Environment(variable.clone()))?;
        }
        Ok(())
    }

    fn say(
        &mut self,
        key: &'static str,
        number: Option<u64>,
        found: &str,
        place: &str,
        source: Source,
    ) -> Result<(), SettingsError> {
        let fits = number.filter(|number| set(&mut Limits::default(), key, *number));
        let wrong = || SettingsError::Value { place: place.to_owned(), key, found: found.to_owned() };
        self.said.insert(key, (fits.ok_or_else(wrong)?, source));
        Ok(())
    }

    /// Puts what was said in the place of what is there.
    pub fn apply(&self, limits: &mut Limits) {
        for (key, (value, _)) in &self.said {
            let fitted = set(limits, key, *value);
            assert!(fitted, "a value was tried when it was said");
        }
    }

    /// Where a value comes from.
    #[must_use]
    pub fn source(&self, key: &str) -> Source {
        self.said.get(key).map_or(Source::Default, |(_, source)| source.clone())
    }
}

/// The key of this name, as a person typed it.
pub(super) fn known(name: &str) -> Result<&'static str, SettingsError> {
    find(name.strip_prefix("limits.").unwrap_or(name), "config explain")
}

/// A value as its writer would know it again.
fn spelled(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::String(text) => format!("\"{text}\""),
        other => format!("a {}", other.type_str()),
    }
}

fn find(name: &str, place: &str) -> Result<&'static str, SettingsError> {
    let unknown = || SettingsError::Unknown { place: place.to_owned(), name: name.to_owned(), among: KEYS };
    KEYS.iter().find(|key| **key == name).copied().ok_or_else(unknown)
}

/// What was probably meant.
fn nearest(name: &str, among: &[&str]) -> String {
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
        let mut layers = Layers::parse("[limits]\nseal_rows = 7\nring_items = 8\n", "my.toml".into()).unwrap();
        layers.environment(env("MYELIN_LIMITS__SEAL_ROWS", "9")).unwrap();
        layers.environment(env("MYELIN_LOG", "info")).unwrap();
        let mut limits = Limits::default();
        layers.apply(&mut limits);
        assert_eq!((limits.seal_rows, limits.ring_items, limits.batch_buffers), (9, 8, 3));
        assert_eq!(layers.source("seal_rows").to_string(), "environment MYELIN_LIMITS__SEAL_ROWS");
        assert_eq!(layers.source("ring_items").to_string(), "file my.toml");
        assert_eq!(layers.source("batch_buffers"), Source::Default);
    }

    #[test]
    fn what_is_not_known_stops_the_boot_with_a_suggestion() {
        for (text, said) in [
            ("[limits]\nseal_row = 7\n", "did you mean `seal_rows`?"),
            ("[limit]\nseal_rows = 7\n", "did you mean `limits`?"),
            ("[limits]\nzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz = 7\n", "prints them all"),
            ("[limits]\nseal_rows = -7\n", "takes a whole number"),
            ("[limits]\nmax_body_bytes = 4294967296\n", "takes a whole number"),
            ("[limits\n", "my.toml"),
        ] {
            let error = Layers::parse(text, "my.toml".into()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("my.toml"), "{error}");
        }
        let mut layers = Layers::default();
        for (name, value) in
            [("MYELIN_LIMITS__SEAL_ROW", "7"), ("MYELIN_LIMIT__SEAL_ROWS", "7"), ("MYELIN_LIMITS__SEAL_ROWS", "many")]
        {
            assert!(layers.environment(env(name, value)).unwrap_err().to_string().starts_with(name));
        }
    }
}
