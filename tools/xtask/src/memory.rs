//! `cargo xtask memory`: so many million ticks into a node that lives in a cgroup, at the greatest rate there is.
//!
//!   build -> cgroup with a limit -> node inside -> myelin-load, again and again, until so many are acked
//!         -> still alive? every tick counted? killed for memory? greatest anonymous memory?
//!
//! The limit holds for everything the kernel charges to the node: its own memory and the pages of its files. Anonymous
//! memory is what a node could not live without; it has to stay below nine tenths of the limit, so that survival is no
//! accident. One line at the end says it, in the form of a campaign. Deliberately absent: swap (a cgroup without a limit for
//! it would hide growth, so a host that has some is told), and any load of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a node may take to serve.
const START: Duration = Duration::from_secs(60);
/// How long one round of load lasts. **Units:** seconds.
const ROUND_S: u64 = 10;

/// What is asked.
struct Asked {
    ticks: u64,
    limit: u64,
    dir: PathBuf,
    /// The builds of `cargo test`, which are there already; else release.
    debug: bool,
    /// For `myelin serve`.
    node: Vec<String>,
}

/// Reads `--debug --ticks N --limit BYTES --dir DIR -- FLAGS-OF-SERVE`.
fn read(arguments: &[String]) -> Result<Asked> {
    let mut asked =
        Asked { ticks: 10_000_000, limit: 256 << 20, dir: std::env::temp_dir(), debug: false, node: Vec::new() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--ticks" => asked.ticks = value()?.replace('_', "").parse().context("--ticks takes a number")?,
            "--limit" => asked.limit = value()?.replace('_', "").parse().context("--limit takes bytes")?,
            "--debug" => asked.debug = true,
            "--dir" => asked.dir = value()?.into(),
            "--" => asked.node = words.by_ref().cloned().collect(),
            other => bail!("unknown option {other}"),
        }
    }
    Ok(asked)
}

/// Performs the verb; a host without cgroups of our own is told and passed over.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let asked = read(arguments)?;
    let group = match Group::make(asked.limit) {
        Ok(group) => group,
        Err(error) => {
            println!("skipped: no cgroup of our own ({error:#})");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut build = Command::new("cargo");
    build.args(["build", "--locked", "-p", "myelin", "-p", "myelin-load"]).current_dir(root);
    if !asked.debug {
        build.arg("--release");
    }
    if !build.status()?.success() {
        bail!("the binaries do not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let dir = asked.dir.join(format!("myelin-memory-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let outcome = trial(&asked, &group, &target.join(if asked.debug { "debug" } else { "release" }), &dir);
    // Only what this run made.
    let removed = fs::remove_dir_all(&dir);
    outcome?;
    removed?;
    Ok(ExitCode::SUCCESS)
}

/// True where a cgroup can be made. Leaves none behind.
pub(crate) fn may_limit() -> bool {
    Group::make(1 << 30).is_ok()
}

fn trial(asked: &Asked, group: &Group, binaries: &Path, dir: &Path) -> Result<()> {
    let began = now();
    let mut node = Node::start(asked, group, binaries, dir)?;
    let (mut acked, mut anonymous) = (0, 0);
    while acked < asked.ticks {
        acked += node.load(binaries, &mut anonymous).with_context(|| format!("after {acked} ticks"))?;
        println!("{acked} ticks, {} MiB anonymous at most, {} MiB charged", anonymous >> 20, group.peak()? >> 20);
    }
    let counted = node.count(binaries)?;
    let (killed, charged) = (group.killed()?, group.peak()?);
    let seconds = (now() - began).as_secs();
    println!(
        "memory: {counted} ticks of {acked} acked in {seconds} s, {} bytes allowed, {anonymous} anonymous at most, \
         {charged} charged at most, {} on disk, {killed} killed",
        asked.limit,
        size_of(dir)
    );
    if counted != acked || killed > 0 || anonymous * 10 > asked.limit * 9 {
        bail!("the node did not stay within its memory");
    }
    println!("campaign memory trials=1 failures=0 bound=3.000000");
    Ok(())
}

/// A cgroup with a limit of memory. Removed when dropped, once its processes are gone.
struct Group {
    path: PathBuf,
    unified: bool,
}

impl Group {
    fn make(limit: u64) -> Result<Self> {
        let ours = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
        let find = |field: &str| {
            ours.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                controllers.split(',').any(|one| one == field).then(|| fields.next().unwrap_or("/").to_owned())
            })
        };
        let (base, unified) = match find("memory") {
            Some(path) => (format!("/sys/fs/cgroup/memory{path}"), false),
            None => (format!("/sys/fs/cgroup{}", find("").context("no hierarchy")?), true),
        };
        let path = PathBuf::from(base).join(format!("myelin-memory-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let group = Self { path, unified };
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        group.write(file, &limit.to_string())?;
        // Without swap where there is a limit for it.
        let (file, value) = if unified { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", limit) };
        if group.path.join(file).exists() {
            group.write(file, &value.to_string())?;
        } else if fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1) {
            println!("this host swaps, and that is not limited here");
        }
        Ok(group)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| path.display().to_string())
    }

    /// The greatest charge. **Units:** bytes; 0 where the kernel does not say.
    fn peak(&self) -> Result<u64> {
        let file = if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_else(|_| "0".to_owned());
        text.trim().parse().context("a charge")
    }

    /// Processes that were killed for want of memory.
    fn killed(&self) -> Result<u64> {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.path.join(file))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or("0");
        killed.trim().parse().context("a number of processes")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        println!("{} could not be removed", self.path.display());
    }
}

/// A node inside the cgroup. Killed when dropped.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(asked: &Asked, group: &Group, binaries: &Path, dir: &Path) -> Result<Self> {
        // The shell moves itself and becomes the node, so that not a page is charged elsewhere.
        let script = "echo $$ > \"$1\" && shift && exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(group.path.join("cgroup.procs")).arg(binaries.join("myelin"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(dir.join("data"));
        let child = command.args(&asked.node).stdin(Stdio::null()).spawn().context("no shell")?;
        let mut node = Self { child, address: String::new() };
        let until = now() + START;
        while now() < until {
            if let Some(status) = node.child.try_wait()? {
                bail!("the node ended with {status} before it served");
            }
            let listening = fs::read(dir.join("data/listening")).unwrap_or_default();
            let listening: serde_json::Value = serde_json::from_slice(&listening).unwrap_or_default();
            if let Some(address) = listening["listen"][0].as_str() {
                address.clone_into(&mut node.address);
                return Ok(node);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        bail!("the node does not serve after {START:?}")
    }

    /// A round of load; gives how many ticks were acked, and raises `anonymous` to the node's greatest.
    fn load(&mut self, binaries: &Path, anonymous: &mut u64) -> Result<u64> {
        let mut command = Command::new(binaries.join("myelin-load"));
        let seconds = ROUND_S.to_string();
        command.args(["ingest", "--server", &self.address, "--rate", "max", "--seconds", &seconds, "--batch", "1000"]);
        let mut load = command.args(["--bands", "0", "-o", "json"]).stdout(Stdio::piped()).spawn()?;
        let ended = loop {
            if let Some(status) = self.child.try_wait()? {
                let _ended = (load.kill(), load.wait());
                bail!("the node ended with {status}");
            }
            *anonymous = (*anonymous).max(self.anonymous().unwrap_or(0));
            match load.try_wait()? {
                Some(status) => break status,
                None => std::thread::park_timeout(Duration::from_millis(50)),
            }
        };
        let mut line = String::new();
        BufReader::new(load.stdout.take().context("no output")?).read_line(&mut line)?;
        let report: serde_json::Value = serde_json::from_str(&line).context("no report of the load")?;
        if !ended.success() {
            bail!("the load ended with {ended}: {line}");
        }
        report["acked"].as_u64().context("no count of acked ticks")
    }

    /// **Units:** bytes.
    fn anonymous(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    }

    fn count(&self, binaries: &Path) -> Result<u64> {
        let mut command = Command::new(binaries.join("myelin"));
        let output = command.args(["count", "tick/id", "--server", &self.address]).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().context("no count")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = (self.child.kill(), self.child.wait());
    }
}

fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() {
                    size_of(&entry.path())
                } else {
                    entry.metadata().map_or(0, |file| file.len())
                }
            },
        )
        .sum()
}

#[expect(clippy::disallowed_methods, reason = "a tool, not the appliance: a run is timed by the wall")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_and_what_it_does_not_know_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let asked = read(&words("--ticks 100_000_000 --limit 1073741824 --dir /d -- --shards 2")).unwrap();
        assert_eq!((asked.ticks, asked.limit), (100_000_000, 1 << 30));
        assert_eq!((asked.dir, asked.node), (PathBuf::from("/d"), words("--shards 2")));
        assert!(read(&words("--ticks many")).is_err() && read(&words("--tick 1")).is_err());
    }
}
