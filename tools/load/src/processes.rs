//! Several processes: this one starts itself anew for each part, gives the word once all are ready, and merges.
//!
//! ```text
//!   parent -> child: the same arguments and --part i/n       child -> parent: "ready"
//!   parent -> child: "go"                                     child -> parent: what it found, one line of JSON
//! ```

use crate::args::{IngestArgs, Part};
use crate::ingest::Prepared;
use crate::report::Partial;
use crate::say;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Worker {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(number: u32, of: u32) -> Result<Self> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).arg(format!("--part={number}/{of}"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a process")?;
        let input = process.stdin.take().context("a process without input")?;
        let output = process.stdout.take().context("a process without output")?;
        Ok(Self { process, input, output: BufReader::new(output).lines() })
    }

    fn line(&mut self) -> Result<String> {
        self.output.next().context("a process ended early")?.context("a process cannot be heard")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After an error none is left behind; one that has ended does not mind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs every part in a process of its own.
pub(crate) fn parent(args: &IngestArgs) -> Result<Partial> {
    let mut workers = (0..args.processes).map(|at| Worker::start(at, args.processes)).collect::<Result<Vec<_>>>()?;
    for worker in &mut workers {
        ensure!(worker.line()? == "ready", "a process said something odd");
    }
    for worker in &mut workers {
        worker.input.write_all(b"go\n").context("a process does not listen")?;
    }
    let mut whole = Partial::default();
    for worker in &mut workers {
        let line = worker.line()?;
        whole.merge(serde_json::from_str(&line).context("a process's result cannot be read")?);
    }
    Ok(whole)
}

/// Is one of them.
pub(crate) fn child(args: &IngestArgs, _part: Part) -> Result<u8> {
    args.check()?;
    let prepared = Prepared::new(args)?;
    say::figures("ready")?;
    let mut word = String::new();
    std::io::stdin().read_line(&mut word)?;
    ensure!(word == "go\n", "the starting process is gone");
    say::figures(serde_json::to_string(&prepared.run()?)?)?;
    Ok(0)
}
