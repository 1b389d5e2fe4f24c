//! Every path that a README or the change log names exists.
//!
//! Named means: the target of a link, or a word in backticks that can only be a path. That is
//!
//!   src/shard/mod.rs  storage/  tests/data/*.txt   a `/`, and it ends in `/`, in a known extension, or begins with
//!                                                  a folder that is there (of the README or of the root)
//!   route.rs                                       no `/`, and an extension of ours: a file of that name, anywhere
//!                                                  below the README's folder
//!
//! Deliberately not a path: URLs, routes (`/v2/ingest`), attributes (`tick/id`), placeholders (`DIR`, `<file>`, `$x`),
//! what lies outside the repository (`../shared`), fenced blocks.

use super::{Finding, Source, Tree};

/// With one of these at its end a word with a `/` is a path, whatever it begins with.
const EXTENSIONS: &[&str] =
    &["rs", "md", "toml", "txt", "sh", "py", "json", "csv", "yml", "html", "js", "proto", "lock"];
/// With one of these even a bare word is the name of one of our files.
const EXTENSIONS_BARE: &[&str] = &["rs", "md", "sh", "py"];
/// First halves of attribute names: `market/id` is no file, although `src/market` is a folder.
const ATTRIBUTES: &[&str] = &["tick", "quote", "market", "feed", "tx", "reflex", "db", "schema", "node", "topic"];

pub(crate) fn every_named_path_exists(tree: &Tree) -> Vec<Finding> {
    let pages =
        tree.sources.iter().filter(|source| matches!(source.name(), "README.md" | "CHANGELOG.md" | "CHANGELOG"));
    pages.flat_map(|page| named_in(page, tree)).collect()
}

fn named_in(page: &Source, tree: &Tree) -> Vec<Finding> {
    let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut fenced = false;
    let mut findings = Vec::new();
    for (at, line) in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let words = in_backticks(line).filter(|word| is_path(word, folder, tree));
        let links = link_targets(line).filter(|target| !is_elsewhere(target));
        for named in words.chain(links) {
            if !exists(named, folder, tree) {
                findings.push(Finding::error(&page.path, at, format!("`{named}` does not exist")));
            }
        }
    }
    findings
}

/// The words of the code spans of one line.
fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).flat_map(str::split_whitespace)
}

/// The targets of the links of one line.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// Whether a word in backticks can only be a path of ours.
fn is_path(word: &str, folder: &str, tree: &Tree) -> bool {
    let plain = without_place(word);
    if is_elsewhere(plain) || plain.split('/').any(is_placeholder) {
        return false;
    }
    let ends_in =
        |known: &[&str]| plain.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && known.contains(&end));
    let Some((first, rest)) = plain.split_once('/') else { return ends_in(EXTENSIONS_BARE) };
    let attribute = ATTRIBUTES.contains(&first) && !rest.contains(['/', '.']) && !rest.is_empty();
    let begins = first.starts_with('.') || exists(first, folder, tree);
    !attribute && (plain.ends_with('/') || ends_in(EXTENSIONS) || begins)
}

/// Not in this repository: a URL, an anchor, a route or a file of the system.
fn is_elsewhere(target: &str) -> bool {
    target.is_empty() || target.contains(':') || target.starts_with(['#', '/', '-', '~'])
}

/// `DIR`, `D`, `<file>`, `{tx}`, `$HOME`: the reader's own. A star is not: the folder before it is checked.
fn is_placeholder(part: &str) -> bool {
    let letters = part.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let shouted = !letters.is_empty() && letters.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    let known = matches!(part, "README" | "LICENSE" | "CHANGELOG");
    (shouted && !known) || part.contains(['<', '>', '{', '}', '$', '=', '(', ')', ',', '|', '…', '"', '\'', '@', '?'])
}

/// Without what may follow a path: `:12`, `::name`, `#anchor`, a full stop.
fn without_place(word: &str) -> &str {
    let word = word.split_once("::").map_or(word, |(path, _)| path);
    let word = word.split_once('#').map_or(word, |(path, _)| path);
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    word.rsplit_once(':').filter(|(_, place)| number(place)).map_or(word, |(path, _)| path)
}

/// Relative to the README's folder or to the root; a bare name anywhere below the README's folder.
fn exists(named: &str, folder: &str, tree: &Tree) -> bool {
    let named = without_place(named).trim_end_matches('/');
    if let Some((before, _)) = named.split_once('*') {
        let parent = before.rsplit_once('/').map_or("", |(parent, _)| parent);
        return parent.is_empty() || exists(parent, folder, tree);
    }
    let Some(from_here) = join(folder, named) else { return true };
    let holds = |path: &str| path.is_empty() || tree.paths.contains(path);
    let bare = || {
        let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        tree.paths.iter().any(|path| path.starts_with(&below) && path.ends_with(&format!("/{named}")))
    };
    holds(&from_here) || join("", named).is_some_and(|path| holds(&path)) || (!named.contains('/') && bare())
}

/// `named` seen from `folder`, or nothing if that lies outside the repository.
fn join(folder: &str, named: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in named.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    /// One README in a folder `src` among these files: which of the words in it are found missing.
    fn red(readme: &str, count: usize) {
        let expected = vec!["src/README.md:1"; count];
        check(
            every_named_path_exists,
            &[(
                &[
                    ("src/README.md", readme),
                    ("src/shard/route.rs", ""),
                    ("src/market/mod.rs", ""),
                    ("storage/wal/a.txt", ""),
                ],
                &expected,
            )],
        );
    }

    #[test]
    fn a_path_that_is_gone_is_found() {
        red("`src/shard/gone.rs`", 1);
        red("`shard/gone`", 1);
        red("`storage/gone/`", 1);
        red("see [this](shard/gone.rs) and `gone.rs`", 2);
        red("`cargo run src/gone.rs`", 1);
        red("`storage/gone/*.txt`", 1);
        red("`src/gone.rs:12`", 1);
        red("`.ci/gone`", 1);
    }

    #[test]
    fn a_path_that_exists_is_passed() {
        red("`src/shard/route.rs` `shard/route.rs` `route.rs` `shard/` `storage/wal/*.txt`", 0);
        red("[a](shard/route.rs) [b](../storage/wal) [c](shard/route.rs#L3) `src/shard/route.rs::walk`", 0);
    }

    #[test]
    fn what_is_no_path_is_passed() {
        red("`/v2/ingest` `https://example.org/a.rs` [a](https://example.org) `market/id` `tick/id`", 0);
        red("`DIR/wal` `<file>/x.rs` `../../shared/data/trades.csv` `application/json` `ticks/s` `127.0.0.1:7400`", 0);
        red("```\n`src/gone.rs`\n```", 0);
        red("`trades.csv.gz` `as_of` `0.5` [up](../../elsewhere)", 0);
    }
}
