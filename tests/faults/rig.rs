//! A node on a disk that fails when told to: started, asked, cut from its power, started again.

use crate::node::{PATIENCE, tick, wait_for};
use myelin_client::{At, Client, Mode, Options, Outcome, Part};
use myelin_datom::{EntityId, Tick};
use myelin_faultfs::{FaultFs, Loss, PowerCut, unavailable};
use myelin_wire::{Attribute, Code};
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Rows of a frame.
pub const ROWS: u64 = 200;
pub const MARKETS: [&str; 4] = ["fault:{A}", "fault:{B}", "fault:{C}", "fault:{D}"];

/// A disk, and how a node is started on it.
pub struct Rig {
    pub disk: FaultFs,
    /// What nodes said, beside the disk.
    logs: tempfile::TempDir,
    started: u32,
    shards: u16,
    more: Vec<&'static str>,
}

/// A node that serves. Killed when dropped.
pub struct Node {
    child: Child,
    said: PathBuf,
    listen: SocketAddr,
    http: SocketAddr,
}

/// What became of a start.
pub enum Started {
    Serving(Node),
    /// It ended by itself, and said this.
    Ended(ExitStatus, String),
}

impl Rig {
    /// An empty disk; `None`, with the reason printed, where none can be mounted.
    pub fn new(name: &str) -> Option<Self> {
        if let Some(reason) = unavailable() {
            println!("skipped: no disk can be mounted here: {reason}");
            return None;
        }
        let disk = FaultFs::temporary(name).expect("a disk is mounted");
        let logs = tempfile::tempdir().expect("a folder for logs");
        // Small segments and early sealing: rolls, seals and checkpoints within a few thousand ticks.
        let more = vec!["--lean", "--no-pin", "--segment-bytes", "1048576", "--seal-rows", "5000"];
        Some(Self { disk, logs, started: 0, shards: 1, more })
    }

    /// Shards on cores of their own.
    pub fn on_cores(mut self, shards: u16) -> Self {
        self.shards = shards;
        self.more.retain(|flag| *flag != "--lean");
        self
    }

    /// Checkpoints every so many rows.
    pub fn sealing_at(mut self, rows: &'static str) -> Self {
        if let Some(last) = self.more.last_mut() {
            *last = rows;
        }
        self
    }

    /// Where the node keeps everything; a folder that the node makes.
    pub fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    /// Starts a node and waits until it serves or ends.
    pub fn try_start(&mut self) -> Started {
        self.started += 1;
        let said = self.logs.path().join(self.started.to_string());
        let listening = self.data().join("listening");
        let _gone = std::fs::remove_file(&listening);
        let executor = std::env::var("MYELIN_TEST_EXECUTOR").unwrap_or_else(|_| "auto".to_owned());
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--executor", &executor]);
        command.arg("--data-dir").arg(self.data()).arg("--shards").arg(self.shards.to_string()).args(&self.more);
        command.env("MYELIN_LOG", "warn").stdin(Stdio::null()).stderr(File::create(&said).expect("a log"));
        let mut child = command.spawn().expect("the binary starts");
        let log = || std::fs::read_to_string(&said).unwrap_or_default();
        let outcome =
            wait_for("the node to serve or to end", || match child.try_wait().expect("a child can be asked") {
                Some(status) => Some(Err(status)),
                None => addresses_in_file(&listening).or_else(|| addresses_in_log(&log())).map(Ok),
            });
        match outcome {
            Err(status) => Started::Ended(status, log()),
            Ok((listen, http)) => Started::Serving(Node { child, said, listen, http }),
        }
    }

    /// Starts a node that must serve.
    pub fn start(&mut self) -> Node {
        match self.try_start() {
            Started::Serving(node) => node,
            Started::Ended(status, said) => panic!("the node ended with {status} before it served: {said}"),
        }
    }

    /// Starts a node that must refuse to serve with this exit code; gives what it said.
    pub fn refusal(&mut self, code: i32) -> String {
        match self.try_start() {
            Started::Serving(node) => panic!("the node serves: {}", node.said()),
            Started::Ended(status, said) => {
                assert_eq!(status.code(), Some(code), "{said}");
                assert!(!said.contains("panicked"), "{said}");
                said
            }
        }
    }

    /// The power of the node and its disk fails.
    pub fn cut(&self, node: &mut Node, how: PowerCut) -> Loss {
        assert!(node.ended().is_none(), "the node ended before its power did: {}", node.said());
        self.disk.cut_power_of(&mut node.child, how).expect("the power can be cut")
    }

    /// Files of a folder of core 0 whose name has this part, ascending; paths below the mount.
    pub fn files(&self, folder: &str, part: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.disk.path().join(folder)).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut found: Vec<_> =
            names.filter(|name| name.contains(part)).map(|name| format!("{folder}/{name}")).collect();
        found.sort();
        found
    }
}

/// Where a node listens, from the file it wrote.
fn addresses_in_file(listening: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(listening).ok()?).ok()?;
    let address = |value: &serde_json::Value| value.as_str()?.parse().ok();
    Some((address(&value["listen"][0])?, address(&value["http"])?))
}

/// The same from the log of a node that had no room for the file.
fn addresses_in_log(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = log.lines().find(|line| line.contains("no room for the file `listening`") && line.contains("error="))?;
    let (_, listen) = line.split_once("listen=[")?;
    let (_, http) = line.split_once("http=")?;
    Some((listen.split([',', ']']).next()?.parse().ok()?, http.split(' ').next()?.parse().ok()?))
}

impl Node {
    /// `kill -9`.
    pub fn kill(&mut self) {
        let _dead = self.child.kill();
        self.child.wait().expect("a killed child ends");
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// A client that gives up soon when the node goes away, stays silent or is busy.
    pub async fn client(&self) -> Client {
        let soon = Duration::from_millis(1);
        let options = Options { reconnect_for: soon, busy_for: Duration::ZERO, ..Options::default() };
        Client::connect(&self.listen.to_string(), options).await.expect("a node that serves is connected to")
    }

    /// A client that waits out `Busy`.
    pub async fn patient_client(&self) -> Client {
        Client::connect(&self.listen.to_string(), Options::default()).await.expect("a node that serves is connected to")
    }

    /// The body of a GET, with its status; `None` when the node is gone.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let status = response.split(' ').nth(1)?.parse().ok()?;
        Some((status, response.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// `/readyz`, status and body.
    pub fn readiness(&self) -> (u16, String) {
        self.get("/readyz").unwrap_or_else(|| panic!("the gateway answers: {}", self.said()))
    }

    /// A number of core 0 from `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, page) = self.get("/metrics").unwrap_or_else(|| panic!("the gateway answers: {}", self.said()));
        let prefix = format!("{name}{{core=\"0\"}} ");
        let found = page.lines().find_map(|line| line.strip_prefix(&prefix)?.parse().ok());
        found.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// Waits until every segment that is made ahead of need is there: what fails from now on is not their making.
    pub fn wait_for_spares(&self) {
        wait_for("three segments ahead", || (self.metric("myelin_log_spares") >= 3).then_some(()));
    }

    /// Waits until so many checkpoints were made since the start.
    pub fn wait_for_checkpoints(&self, count: u64) {
        wait_for("checkpoints", || (self.metric("myelin_checkpoints_total") >= count).then_some(()));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = (self.child.kill(), self.child.wait());
    }
}

/// The frame of this number: the same rows whenever it is sent. Prices do not compress, so that runs have many pages.
pub fn frame(ids: &[EntityId], number: u64) -> Vec<Tick> {
    let market = |row: u64| ids[(row % ids.len() as u64) as usize];
    let price = |id: u64| (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 12) as f64 / 1e6 + 1.0;
    let id = |row| number * ROWS + row + 1;
    (0..ROWS).map(|row| tick(market(row), id(row), price(id(row)))).collect()
}

/// How one frame to one shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Rows accepted, duplicates.
    Done(u32, u32),
    Refused(Option<Code>),
    /// Not told: unknown or not sent.
    Open,
}

pub fn end(parts: &[Part]) -> End {
    match parts {
        [Part { outcome: Outcome::Done(ack), .. }] => End::Done(ack.accepted, ack.duplicates),
        [Part { outcome: Outcome::Refused(refusal), .. }] => End::Refused(refusal.code),
        [Part { outcome: Outcome::Unknown(_) | Outcome::NotSent(_), .. }] => End::Open,
        other => panic!("expected one part, found {other:?}"),
    }
}

/// Sends a frame and waits for its end.
pub async fn send(client: &Client, rows: &[Tick]) -> End {
    match client.ticks(rows, Mode::Whole).await {
        Ok(parts) => end(&parts),
        Err(_) => End::Open,
    }
}

/// Waits for something that must come, and says what if it does not.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

pub async fn count(client: &Client) -> u64 {
    client.count(Attribute::Tick, None, At::default()).await.expect("a node that serves counts").value
}

/// Sends the frames `0..upto` again: what was acknowledged is there, what was not is there whole or not at all.
pub async fn sent_again(client: &Client, ids: &[EntityId], acked: &[u64], upto: u64, story: &str) {
    for number in 0..upto {
        match soon("an answer", send(client, &frame(ids, number))).await {
            End::Done(0, duplicates) if u64::from(duplicates) == ROWS => {}
            End::Done(accepted, 0) if u64::from(accepted) == ROWS => {
                assert!(!acked.contains(&number), "{story}: frame {number} was acknowledged and is gone");
            }
            other => panic!("{story}: frame {number} is there in part or not taken: {other:?}"),
        }
    }
}
