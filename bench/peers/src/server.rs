//! A server as a child on a free port of the loopback, with a data directory that goes when it goes.
//!
//! Each runs under `setpriv --pdeathsig`: should this process end without [`Drop`], by a panic (which aborts) or by a
//! signal, the kernel stops the child. Deliberately absent: services of the system; they are neither used nor touched.

use crate::clock::{SECOND_NS, now_ns, sleep_until};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// From the start to the first answer.
const START_NS: u64 = 30 * SECOND_NS;
/// From the signal to the end; afterwards it is killed.
const STOP_NS: u64 = 10 * SECOND_NS;

/// How a server is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Term,
    /// PostgreSQL would wait for its clients on TERM.
    Quit,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stop: Stop,
    dir: DataDir,
    pub address: SocketAddr,
}

/// Removed with everything in it.
#[derive(Debug)]
pub(crate) struct DataDir(pub PathBuf);

impl DataDir {
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("peers-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(path))
    }

    fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("peers: {} is left behind: {error}", self.0.display());
        }
        // What one server left dirty is not paid by the next.
        rustix::fs::sync();
    }
}

/// A port nobody listens on. Another process could take it in between; then the server says so and the run ends.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Server {
    /// Starts `words` as `user` (if we may choose) and returns when the port takes connections.
    pub(crate) fn start(
        words: &[String],
        user: Option<&str>,
        address: SocketAddr,
        dir: DataDir,
        stop: Stop,
    ) -> Result<Self> {
        let signal = if stop == Stop::Quit { "QUIT" } else { "TERM" };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal]);
        if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        let log = File::create(dir.log())?;
        command.arg("--").args(words).current_dir(&dir.0).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("setpriv of util-linux")?;
        let mut server = Self { child, stop, dir, address };
        server.ready().with_context(|| words.join(" "))?;
        Ok(server)
    }

    fn ready(&mut self) -> Result<()> {
        let start_ns = now_ns();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || now_ns() > start_ns + START_NS {
                let log = std::fs::read_to_string(self.dir.log()).unwrap_or_default();
                bail!("did not start ({ended:?}): {log}");
            }
            sleep_until(now_ns() + SECOND_NS / 100);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let signal = if self.stop == Stop::Quit { Signal::QUIT } else { Signal::TERM };
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, signal);
        }
        let start_ns = now_ns();
        while matches!(self.child.try_wait(), Ok(None)) {
            if now_ns() > start_ns + STOP_NS {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            sleep_until(now_ns() + SECOND_NS / 100);
        }
    }
}

/// What a command says on its standard output.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
