//! Who may depend on whom. Arrows point down: the appliance knows storage and net, never the other way round.
//!
//! [`FORBIDDEN`] is the whole law, one row per arrow with its reason. What only tests depend on does not count.
//! Deliberately absent: a list of allowed arrows. What is not forbidden here is a matter for review.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Finding, Tree};

/// What an arrow must not reach.
enum To {
    /// Any crate of this repository.
    AnyOfOurs,
    /// A crate of this repository in this folder, other than itself.
    Folder(&'static str),
    /// Crates by name, ours or not.
    Named(&'static [&'static str]),
}

/// Crates in the folder `from` (or below it, if it ends in `/`) must not reach `to`, not even through others.
struct Arrow {
    from: &'static str,
    to: To,
    why: &'static str,
}

const EXECUTORS: To = To::Named(&["tokio", "glommio-ng", "glommio", "io-uring"]);
const APPLIANCE: To = To::Named(&["myelin"]);

const FORBIDDEN: &[Arrow] = &[
    Arrow { from: "storage/wal", to: To::AnyOfOurs, why: "to the log a payload is bytes" },
    Arrow { from: "net/raft", to: To::AnyOfOurs, why: "to consensus a payload is bytes" },
    Arrow { from: "storage/datom", to: To::AnyOfOurs, why: "what a fact is depends on nothing" },
    Arrow { from: "storage/exact", to: To::AnyOfOurs, why: "numbers add up alike for whoever has them" },
    Arrow { from: "storage/", to: APPLIANCE, why: "storage remembers for whoever asks, arrows point down" },
    Arrow { from: "storage/", to: To::Folder("net/"), why: "what is stored does not know how it travels" },
    Arrow { from: "storage/", to: EXECUTORS, why: "cores do no I/O, drivers live in src/runtime" },
    Arrow { from: "net/wire", to: APPLIANCE, why: "frames are decoded below the appliance" },
    Arrow { from: "net/wire", to: To::Folder("net/"), why: "the wire is the lowest crate of net" },
    Arrow { from: "net/wire", to: EXECUTORS, why: "cores do no I/O, drivers live in src/runtime and net/link" },
    Arrow { from: "net/raft", to: EXECUTORS, why: "consensus is a state machine, the simulator drives it" },
];

/// Crates that the portable build must not link, with the target that shows it.
const LINUX_ONLY: &[&str] = &["glommio-ng", "io-uring"];
const PORTABLE_TARGET: &str = "aarch64-apple-darwin";

/// The crates that a build links, from `cargo metadata`.
#[derive(Default)]
pub(crate) struct Graph {
    /// Package id -> name.
    names: BTreeMap<String, String>,
    /// Package id of each crate of ours -> its folder, relative, empty for the root package.
    ours: BTreeMap<String, String>,
    /// Package id -> package ids it links or builds with; tests' own dependencies left out.
    links: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Asks cargo, for the machine it runs on.
    pub(crate) fn from_cargo(root: &Path) -> Result<Graph> {
        let version = output(Command::new("rustc").arg("-vV"))?.stdout;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
        let mut metadata = Command::new("cargo");
        metadata.current_dir(root).args(["metadata", "--format-version", "1", "--filter-platform", host]);
        let answer = output(&mut metadata)?;
        if !answer.success {
            bail!("cargo metadata failed: {}", answer.stderr);
        }
        Graph::parse(&answer.stdout)
    }

    fn parse(json: &str) -> Result<Graph> {
        let metadata: Value = serde_json::from_str(json).context("cargo metadata is not JSON")?;
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let root = text(&metadata, "workspace_root");
        let members: BTreeSet<String> =
            list(&metadata["workspace_members"]).iter().filter_map(|id| id.as_str().map(str::to_owned)).collect();
        let mut graph = Graph::default();
        for package in list(&metadata["packages"]) {
            let id = text(&package, "id");
            if members.contains(&id) {
                let manifest = text(&package, "manifest_path");
                let folder = manifest.strip_prefix(&root).unwrap_or(&manifest).trim_end_matches("Cargo.toml");
                graph.ours.insert(id.clone(), folder.trim_matches('/').to_owned());
            }
            graph.names.insert(id, text(&package, "name"));
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let linked =
                |edge: &&Value| list(&edge["dep_kinds"]).iter().any(|kind| kind["kind"].as_str() != Some("dev"));
            let edges = list(&node["deps"]);
            graph.links.insert(text(&node, "id"), edges.iter().filter(linked).map(|edge| text(edge, "pkg")).collect());
        }
        Ok(graph)
    }

    /// Every package that `from` reaches, each with the shortest way there, `from` first.
    fn reached_from(&self, from: &str) -> BTreeMap<String, Vec<String>> {
        let mut ways = BTreeMap::from([(from.to_owned(), vec![from.to_owned()])]);
        let mut queue = VecDeque::from([from.to_owned()]);
        while let Some(id) = queue.pop_front() {
            for next in self.links.get(&id).into_iter().flatten() {
                if !ways.contains_key(next) {
                    let way = ways[&id].iter().chain([next]).cloned().collect();
                    ways.insert(next.clone(), way);
                    queue.push_back(next.clone());
                }
            }
        }
        ways.remove(from);
        ways
    }

    fn is(&self, id: &str, to: &To) -> bool {
        match to {
            To::AnyOfOurs => self.ours.contains_key(id),
            To::Folder(folder) => self.ours.get(id).is_some_and(|path| path.starts_with(folder)),
            To::Named(names) => self.names.get(id).is_some_and(|name| names.contains(&name.as_str())),
        }
    }
}

pub(crate) fn no_forbidden_arrow(graph: &Graph, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, folder) in &graph.ours {
        let applies =
            |arrow: &&Arrow| folder == arrow.from || (arrow.from.ends_with('/') && folder.starts_with(arrow.from));
        let ways = graph.reached_from(id);
        for arrow in FORBIDDEN.iter().filter(applies) {
            for way in ways.iter().filter(|(to, _)| graph.is(to, &arrow.to)).map(|(_, way)| way) {
                let names: Vec<&str> = way.iter().map(|id| graph.names.get(id).map_or("?", String::as_str)).collect();
                let manifest = format!("{folder}/Cargo.toml");
                let line = line_of(tree, &manifest, names.get(1).copied().unwrap_or_default());
                findings.push(Finding::error(&manifest, line, format!("{}: {}", names.join(" -> "), arrow.why)));
            }
        }
    }
    findings
}

/// The line of a manifest that names a dependency, else the first.
fn line_of(tree: &Tree, manifest: &str, dependency: &str) -> usize {
    let source = tree.sources.iter().find(|source| source.path == manifest);
    source.and_then(|source| source.lines().find(|(_, line)| line.starts_with(dependency))).map_or(1, |(at, _)| at)
}

/// What only Linux may link does not appear in the portable build.
pub(crate) fn linux_only_crates_stay_on_linux(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in LINUX_ONLY {
        let mut tree = Command::new("cargo");
        tree.current_dir(root).args(["tree", "--workspace", "--target", PORTABLE_TARGET, "-e", "normal", "-i", name]);
        findings.extend(judge_tree(name, &output(&mut tree)?));
    }
    Ok(findings)
}

/// Absent means: cargo knows no such package, or knows it and has nothing to print for this target.
fn judge_tree(name: &str, answer: &Answer) -> Option<Finding> {
    let unknown = answer.stderr.contains("did not match any packages");
    let nothing = answer.success && answer.stdout.trim().is_empty();
    if unknown || nothing {
        return None;
    }
    let why = if answer.success { format!("{name} is linked for {PORTABLE_TARGET}") } else { answer.stderr.clone() };
    Some(Finding::error("Cargo.toml", 1, why.trim().to_owned()))
}

struct Answer {
    success: bool,
    stdout: String,
    stderr: String,
}

fn output(command: &mut Command) -> Result<Answer> {
    let answer = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { success: answer.status.success(), stdout: text(&answer.stdout), stderr: text(&answer.stderr) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    /// Arrows by name, and those found.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

    /// Crates as (folder, name), arrows by name; a foreign crate has no folder.
    fn graph(crates: &[(&str, &str)], arrows: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (folder, name) in crates {
            graph.names.insert((*name).to_owned(), (*name).to_owned());
            if *folder != "-" {
                graph.ours.insert((*name).to_owned(), (*folder).to_owned());
            }
        }
        for (from, to) in arrows {
            graph.links.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    }

    #[test]
    fn every_forbidden_arrow_is_found_also_through_others() {
        let crates = [
            ("", "myelin"),
            ("storage/wal", "myelin-wal"),
            ("storage/datom", "myelin-datom"),
            ("storage/index", "myelin-index"),
            ("net/wire", "myelin-wire"),
            ("net/raft", "myelin-raft"),
            ("net/link", "myelin-link"),
            ("-", "tokio"),
            ("-", "zstd"),
            ("-", "between"),
        ];
        let rows: &[Row<'_>] = &[
            (&[("myelin", "myelin-wal"), ("myelin", "tokio"), ("myelin-index", "myelin-datom")], &[]),
            (&[("myelin-wal", "myelin-datom")], &["myelin-wal -> myelin-datom"]),
            (&[("myelin-raft", "myelin-wire")], &["myelin-raft -> myelin-wire"]),
            (&[("myelin-datom", "myelin-index")], &["myelin-datom -> myelin-index"]),
            (&[("myelin-index", "myelin")], &["myelin-index -> myelin"]),
            (&[("myelin-index", "myelin-wire")], &["myelin-index -> myelin-wire"]),
            (&[("myelin-index", "between"), ("between", "tokio")], &["myelin-index -> between -> tokio"]),
            (&[("myelin-wire", "myelin-link")], &["myelin-wire -> myelin-link"]),
            (&[("myelin-wire", "tokio")], &["myelin-wire -> tokio"]),
            (&[("myelin-link", "tokio"), ("myelin-link", "myelin-wire"), ("myelin-wal", "zstd")], &[]),
        ];
        for (arrows, expected) in rows {
            let findings = no_forbidden_arrow(&graph(&crates, arrows), &tree(&[]));
            let found: Vec<&str> = findings.iter().filter_map(|finding| finding.what.split(": ").next()).collect();
            assert_eq!(&found, expected);
        }
    }

    #[test]
    fn a_finding_points_at_the_line_of_the_dependency() {
        let crates = [("storage/wal", "myelin-wal"), ("storage/datom", "myelin-datom")];
        let manifest =
            tree(&[("storage/wal/Cargo.toml", "[package]\n[dependencies]\nmyelin-datom.workspace = true\n")]);
        let findings = no_forbidden_arrow(&graph(&crates, &[("myelin-wal", "myelin-datom")]), &manifest);
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("storage/wal/Cargo.toml", 3));
    }

    #[test]
    fn metadata_is_read_and_dependencies_of_tests_do_not_count() {
        let json = r#"{"workspace_root": "/r", "workspace_members": ["w", "d"], "packages": [
            {"id": "w", "name": "myelin-wal", "manifest_path": "/r/storage/wal/Cargo.toml"},
            {"id": "d", "name": "myelin-datom", "manifest_path": "/r/storage/datom/Cargo.toml"}],
            "resolve": {"nodes": [{"id": "w", "deps": [{"pkg": "d", "dep_kinds": [{"kind": KIND}]}]}]}}"#;
        for (kind, count) in [("null", 1), ("\"build\"", 1), ("\"dev\"", 0)] {
            let graph = Graph::parse(&json.replace("KIND", kind)).unwrap();
            assert_eq!(no_forbidden_arrow(&graph, &tree(&[])).len(), count, "{kind}");
        }
    }

    #[test]
    fn a_linux_crate_in_the_portable_build_is_found() {
        let rows = [
            (true, "", "warning: nothing to print.", false),
            (false, "", "error: package ID specification `io-uring` did not match any packages", false),
            (true, "io-uring v0.7.0\n`-- myelin", "", true),
            (false, "", "error: specification `io-uring` is ambiguous", true),
            (false, "", "error: failed to parse manifest", true),
        ];
        for (success, stdout, stderr, red) in rows {
            let answer = Answer { success, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
            assert_eq!(judge_tree("io-uring", &answer).is_some(), red, "{stdout} {stderr}");
        }
    }
}
