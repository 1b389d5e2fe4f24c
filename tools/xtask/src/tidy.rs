//! Rules of the house that no compiler knows, each a function from a [`Tree`] to findings with file and line.
//!
//!   files.rs    headers, names, sizes, markers, paths of a machine, the top level, lints inherited
//!   links.rs    every path a README names exists
//!   arrows.rs   who may depend on whom, and what only Linux links
//!
//! A new rule is a function and one row of [`RULES`]; its test shows it going red on a small tree in memory.
//! Deliberately absent: fixing what is found, and rules that clippy or rustfmt already have.

mod arrows;
mod files;
mod links;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

/// Files above this are not text that a person wrote.
const SOURCE_BYTES_MAX: u64 = 1 << 20;
/// Folders that are not ours to judge: what git keeps and what builds leave behind.
const NOT_OURS: &[&str] = &[".git", "target", "__pycache__"];

type Rule = fn(&Tree) -> Vec<Finding>;

/// The rules that need nothing but the files. Those that ask cargo are called in [`run`].
const RULES: &[(&str, Rule)] = &[
    ("top level", files::top_level_is_as_prescribed),
    ("headers", files::every_rust_file_opens_with_a_header),
    ("names", files::no_file_is_named_after_nothing),
    ("sizes", files::files_stay_small),
    ("markers", files::nothing_is_left_for_later),
    ("machine paths", files::no_path_of_a_machine),
    ("lints", files::every_crate_inherits_the_lints),
    ("named paths", links::every_named_path_exists),
];

/// The repository as the rules see it. **Shape**: paths relative to the root, with `/`, sorted.
#[derive(Default)]
pub(crate) struct Tree {
    /// Every file and every folder.
    pub(crate) paths: BTreeSet<String>,
    /// Every file that is text.
    pub(crate) sources: Vec<Source>,
}

/// One text file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// The part after the last dot of the name, empty if there is none.
    pub(crate) fn extension(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, extension)| extension)
    }

    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Lines numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

/// One breach of a rule; a warning is listed and does not fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) warning: bool,
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn error(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, warning: false, what: what.into() }
    }

    pub(crate) fn warning(path: &str, line: usize, what: impl Into<String>) -> Self {
        Finding { warning: true, ..Finding::error(path, line, what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.warning { "warning: " } else { "" };
        write!(out, "{}:{}: {weight}{}", self.path, self.line, self.what)
    }
}

/// Checks the repository at `root`, prints what was found, answers non-zero if any of it is an error.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let tree = read(root)?;
    let mut verdicts: Vec<(&str, Vec<Finding>)> = RULES.iter().map(|(name, rule)| (*name, rule(&tree))).collect();
    let graph = arrows::Graph::from_cargo(root)?;
    verdicts.push(("arrows", arrows::no_forbidden_arrow(&graph, &tree)));
    verdicts.push(("linux only", arrows::linux_only_crates_stay_on_linux(root)?));

    let mut errors = 0;
    for (name, findings) in &mut verdicts {
        findings.sort();
        for finding in findings.iter() {
            println!("{finding}  [{name}]");
        }
        errors += findings.iter().filter(|finding| !finding.warning).count();
    }
    println!("tidy: {} rules over {} files, {errors} errors", verdicts.len(), tree.sources.len());
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads every file below `root` that is ours.
fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && entry.metadata()?.len() <= SOURCE_BYTES_MAX
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                tree.sources.push(Source { path: relative.clone(), text });
            }
            tree.paths.insert(relative);
        }
    }
    tree.sources.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(tree)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Small trees in memory for the tests of the rules.

    use super::{Finding, Source, Tree};

    /// A tree of these files; their folders follow from the paths.
    pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            for (at, _) in path.match_indices('/') {
                tree.paths.insert(path[..at].to_owned());
            }
            tree.paths.insert((*path).to_owned());
            tree.sources.push(Source { path: (*path).to_owned(), text: (*text).to_owned() });
        }
        tree
    }

    /// One row: files in, `path:line` out (with `?` behind a warning).
    pub(crate) type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

    /// Runs one rule over each row and compares where it went red.
    pub(crate) fn check(rule: fn(&Tree) -> Vec<Finding>, rows: &[Row<'_>]) {
        for (files, expected) in rows {
            let mut found: Vec<String> = rule(&tree(files))
                .into_iter()
                .map(|f| format!("{}:{}{}", f.path, f.line, if f.warning { "?" } else { "" }))
                .collect();
            found.sort();
            assert_eq!(&found, expected, "over {files:?}");
        }
    }
}
