//! Rules about single files: how they open, what they are called, how long they are, what must not stand in them.
//!
//! The words these rules look for are spelled with `concat!`, so that this file passes its own rules.
//! Deliberately absent: exceptions per file. A rule that needs one is a bad rule.

use super::{Finding, Source, Tree};

const TOP_LEVEL: &[&str] = &["Cargo.toml", "README.md", "bench", "net", "src", "storage", "tests", "tools"];
const TOP_LEVEL_BESIDE: &[&str] = &["CHANGELOG.md", "Cargo.lock", "LICENSE", "rust-toolchain.toml"];
const EMPTY_NAMES: &[&str] = &["utils", "common", "types", "helpers", "misc"];
const CODE: &[&str] = &["rs", "py", "sh"];
const LINES_MAX: usize = 800;
const LINES_LISTED: usize = 400;
const MARKERS: &[&str] =
    &[concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("#[ig", "nore"), concat!("FIX", "ME"), MARKER_XS];
const MARKER_XS: &str = concat!("X", "XX");
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

pub(crate) fn top_level_is_as_prescribed(tree: &Tree) -> Vec<Finding> {
    let top = tree.paths.iter().filter(|path| !path.contains('/') && !path.starts_with('.'));
    let known = |name: &str| TOP_LEVEL.contains(&name) || TOP_LEVEL_BESIDE.contains(&name);
    let foreign =
        top.filter(|name| !known(name)).map(|name| Finding::error(name, 1, "does not belong at the top level"));
    let missing = TOP_LEVEL.iter().filter(|name| !tree.paths.contains(**name));
    foreign.chain(missing.map(|name| Finding::error(name, 1, "is missing at the top level"))).collect()
}

pub(crate) fn every_rust_file_opens_with_a_header(tree: &Tree) -> Vec<Finding> {
    let opens_well = |source: &Source| {
        source
            .lines()
            .map(|(_, line)| line.trim())
            .find(|line| !line.is_empty() && !line.starts_with("#!"))
            .is_some_and(|line| line.starts_with("//!"))
    };
    rust(tree)
        .filter(|source| !opens_well(source))
        .map(|source| Finding::error(&source.path, 1, "does not open with a `//!` header"))
        .collect()
}

pub(crate) fn no_file_is_named_after_nothing(tree: &Tree) -> Vec<Finding> {
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split_once('.').map_or(name, |(stem, _)| stem).to_lowercase()
    };
    tree.paths
        .iter()
        .filter(|path| EMPTY_NAMES.contains(&stem(path).as_str()))
        .map(|path| Finding::error(path, 1, "is named after nothing: say which noun it holds"))
        .collect()
}

pub(crate) fn files_stay_small(tree: &Tree) -> Vec<Finding> {
    let judge = |source: &Source| {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            Some(Finding::error(
                &source.path,
                lines,
                format!("{lines} lines, at most {LINES_MAX}: which noun is missing?"),
            ))
        } else if lines > LINES_LISTED {
            Some(Finding::warning(&source.path, lines, format!("{lines} lines, aim for {LINES_LISTED}")))
        } else {
            None
        }
    };
    tree.sources.iter().filter(|source| CODE.contains(&source.extension())).filter_map(judge).collect()
}

pub(crate) fn nothing_is_left_for_later(tree: &Tree) -> Vec<Finding> {
    let code = tree.sources.iter().filter(|source| CODE.contains(&source.extension()) || source.name() == "Cargo.toml");
    every_line(code, |line| {
        let marker = MARKERS.iter().find(|marker| holds_word(line, marker))?;
        Some(format!("`{marker}`: what is left for later belongs in an issue"))
    })
}

pub(crate) fn no_path_of_a_machine(tree: &Tree) -> Vec<Finding> {
    every_line(tree.sources.iter(), |line| {
        let path = MACHINE_PATHS.iter().find(|path| opens_a_path(line, path))?;
        Some(format!("`{path}`: a path of one machine, not of every clone"))
    })
}

pub(crate) fn every_crate_inherits_the_lints(tree: &Tree) -> Vec<Finding> {
    let inherits = |source: &Source| {
        let mut section = "";
        source.lines().map(|(_, line)| line.trim()).any(|line| {
            if line.starts_with('[') {
                section = line;
            }
            let plain: String = line.chars().filter(|letter| !letter.is_whitespace()).collect();
            (section == "[lints]" && plain == "workspace=true") || plain == "lints.workspace=true"
        })
    };
    let manifests =
        tree.sources.iter().filter(|source| source.name() == "Cargo.toml" && source.text.contains("[package]"));
    manifests
        .filter(|source| !inherits(source))
        .map(|source| Finding::error(&source.path, 1, "does not inherit the lints: `[lints]`, `workspace = true`"))
        .collect()
}

fn rust(tree: &Tree) -> impl Iterator<Item = &Source> {
    tree.sources.iter().filter(|source| source.extension() == "rs")
}

fn every_line<'a>(sources: impl Iterator<Item = &'a Source>, judge: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let of_one = |source: &'a Source| -> Vec<Finding> {
        source.lines().filter_map(|(at, line)| Some(Finding::error(&source.path, at, judge(line)?))).collect()
    };
    sources.flat_map(of_one).collect()
}

/// Whether `word` stands in `line` and is not a part of a longer word.
fn holds_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part);
        let after = line[at + word.len()..].chars().next().is_some_and(part);
        let (opens, closes) = (word.starts_with(part), word.ends_with(part));
        !(opens && before || closes && after)
    })
}

/// Whether an absolute path begins with `path` in `line`; `network/..`, `../x/` and URLs do not.
fn opens_a_path(line: &str, path: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || "._-/}*".contains(letter);
    line.match_indices(path).any(|(at, _)| !line[..at].chars().next_back().is_some_and(part))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_stranger_or_a_gap_at_the_top_level_is_found() {
        let full: Vec<(&str, &str)> = vec![
            ("Cargo.toml", ""),
            ("README.md", ""),
            ("bench/a", ""),
            ("net/a", ""),
            ("src/a", ""),
            ("storage/a", ""),
            ("tests/a", ""),
            ("tools/a", ""),
            ("LICENSE", ""),
            (".gitignore", ""),
        ];
        let mut strange = full.clone();
        strange.push(("notes.txt", ""));
        check(
            top_level_is_as_prescribed,
            &[(&full, &[]), (&strange, &["notes.txt:1"]), (&full[1..], &["Cargo.toml:1"])],
        );
    }

    #[test]
    fn a_rust_file_without_a_header_is_found() {
        check(
            every_rust_file_opens_with_a_header,
            &[
                (&[("a.rs", "//! What it is.\n")], &[]),
                (&[("a.rs", "#![no_std]\n\n//! What it is.\n")], &[]),
                (&[("a.rs", "use std::fmt;\n//! late\n")], &["a.rs:1"]),
                (&[("a.rs", "")], &["a.rs:1"]),
                (&[("a.py", "import os")], &[]),
            ],
        );
    }

    #[test]
    fn a_file_or_folder_named_after_nothing_is_found() {
        check(
            no_file_is_named_after_nothing,
            &[
                (&[("src/helpers.rs", "")], &["src/helpers.rs:1"]),
                (&[("tests/common/mod.rs", "")], &["tests/common:1"]),
                (&[("src/route.rs", ""), ("src/uncommon.rs", "")], &[]),
            ],
        );
    }

    #[test]
    fn a_long_file_is_listed_and_a_very_long_one_refused() {
        let (small, long, very_long) = ("x\n".repeat(400), "x\n".repeat(401), "x\n".repeat(801));
        check(
            files_stay_small,
            &[
                (&[("a.rs", &small)], &[]),
                (&[("a.rs", &long)], &["a.rs:401?"]),
                (&[("a.rs", &very_long)], &["a.rs:801"]),
                (&[("a.txt", &very_long)], &[]),
            ],
        );
    }

    #[test]
    fn every_marker_is_found_and_words_that_hold_one_are_not() {
        for marker in MARKERS {
            let line = format!("fn a() {{}}\n    {marker}\n");
            check(nothing_is_left_for_later, &[(&[("a.rs", &line)], &["a.rs:2"]), (&[("a.md", &line)], &[])]);
        }
        let templates = format!("mktemp {MARKER_XS}{MARKER_XS}");
        check(nothing_is_left_for_later, &[(&[("a.sh", &templates)], &[])]);
    }

    #[test]
    fn a_path_of_a_machine_is_found_and_a_relative_one_or_a_url_is_not() {
        for path in MACHINE_PATHS {
            let rows = [format!("# \"{path}x\""), format!("..{path}x"), format!("https://example.org{path}x")];
            check(
                no_path_of_a_machine,
                &[
                    (&[("a.md", &rows[0])], &["a.md:1"]),
                    (&[("a.toml", &rows[0])], &["a.toml:1"]),
                    (&[("a.md", &rows[1])], &[]),
                    (&[("a.md", &rows[2])], &[]),
                ],
            );
        }
    }

    #[test]
    fn a_crate_with_lints_of_its_own_is_found() {
        check(
            every_crate_inherits_the_lints,
            &[
                (&[("a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n")], &[]),
                (&[("a/Cargo.toml", "[package]\nlints.workspace = true\n")], &[]),
                (&[("a/Cargo.toml", "[package]\n[dependencies]\nworkspace = true\n")], &["a/Cargo.toml:1"]),
                (&[("Cargo.toml", "[workspace]\n")], &[]),
            ],
        );
    }
}
