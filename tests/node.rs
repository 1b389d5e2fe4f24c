//! A node as a process: started on free ports, asked for readiness, killed without warning, started again.

use myelin_client::{Client, Options, Outcome, Part};
use myelin_datom::{EntityId, Tick, received_delta};
use myelin_wire::{MarketFlags, MarketSpec};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test says it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running node. Killed when dropped.
pub struct Node {
    child: Child,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    /// Stays while the node runs.
    _folder: Option<Arc<TempDir>>,
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub dir: PathBuf,
    pub shards: u16,
    /// Where it listens: a free port, or the one it had before.
    pub listen: SocketAddr,
    /// Who runs the data cores.
    pub executor: String,
    pub more: Vec<String>,
    /// What `dir` names, where it is to go with the last that uses it.
    pub folder: Option<Arc<TempDir>>,
}

impl Setup {
    /// In a folder of its own, which goes with the setup and its nodes.
    pub fn fresh() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder is made"));
        Self { folder: Some(Arc::clone(&folder)), ..Self::new(folder.path()) }
    }

    pub fn new(dir: &Path) -> Self {
        // Small segments and early sealing: rolls, seals and checkpoints happen within a test's few thousand ticks.
        let more = ["--lean", "--no-pin", "--segment-bytes", "1048576", "--seal-rows", "5000"];
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let executor = std::env::var("MYELIN_TEST_EXECUTOR").unwrap_or_else(|_| "auto".to_owned());
        Self { dir: dir.to_owned(), shards: 1, listen, executor, more: more.map(str::to_owned).to_vec(), folder: None }
    }

    pub fn shards(mut self, shards: u16) -> Self {
        self.shards = shards;
        // More than one core needs more than one thread.
        self.more.retain(|flag| flag != "--lean");
        self
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.args([
            "serve",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--executor",
            &self.executor,
            "--listen",
        ]);
        command.arg(self.listen.to_string());
        command.arg("--data-dir").arg(&self.dir).arg("--shards").arg(self.shards.to_string()).args(&self.more);
        command.env("MYELIN_LOG", "warn").stdin(Stdio::null());
        command
    }

    /// Starts a node and waits until it serves.
    pub fn start(&self) -> Node {
        let listening = self.dir.join("listening");
        let _gone = std::fs::remove_file(&listening);
        let mut child = self.command().spawn().expect("the binary starts");
        let addresses = wait_for("the node to serve", || {
            if let Some(status) = child.try_wait().expect("a child can be asked") {
                // Ports that it had before: another test may have one of them for a while.
                let again = self.listen.port() != 0 && status.code() == Some(2);
                assert!(again, "the node ended with {status} before it served");
                child = self.command().spawn().expect("the binary starts");
            }
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&listening).ok()?).ok()
        });
        let address =
            |value: &serde_json::Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
        Node {
            child,
            listen: address(&addresses["listen"][0]),
            http: address(&addresses["http"]),
            _folder: self.folder.clone(),
        }
    }

    /// Starts a node that must refuse to serve; gives its exit code and what it said.
    pub fn refuses_to_start(&self) -> (Option<i32>, String) {
        let output = self.command().stderr(Stdio::piped()).output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Node {
    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.listen.to_string(), Options::default()).await.expect("a node that serves is connected to")
    }

    /// A client that gives up soon when the node goes away.
    pub async fn hasty_client(&self) -> Client {
        hasty_client(self.listen).await.expect("a node that serves is connected to")
    }

    /// The body of a GET, with its status.
    pub fn get(&self, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(self.http).expect("the gateway listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("a request is sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("an answer comes");
        let status = response.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, response.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    /// Waits until core 0 has stored so many checkpoints since its start.
    pub fn wait_for_checkpoints(&self, count: u64) {
        wait_for("checkpoints", || {
            let page = self.get("/metrics").1;
            let stored = page.lines().find_map(|line| line.strip_prefix("myelin_checkpoints_total{core=\"0\"} "));
            stored.and_then(|stored| stored.parse::<u64>().ok()).filter(|stored| *stored >= count)
        });
    }

    /// Runs a verb of the command line against this node; gives exit code and standard output.
    pub fn myelin(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myelin"));
        command.args(arguments).args(["--server", &self.listen.to_string()]).stdin(Stdio::null());
        let output = command.output().expect("the binary starts");
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A client that gives up soon when the node goes away; none if it is gone already.
pub async fn hasty_client(listen: SocketAddr) -> Option<Client> {
    let options = Options { reconnect_for: Duration::from_millis(1), ..Options::default() };
    Client::connect(&listen.to_string(), options).await.ok()
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended = (self.child.kill(), self.child.wait());
    }
}

/// Waits for a condition, without hoping: a test that waits too long says for what.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs a future on a thread of its own making.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, future).await.expect("the test hangs") })
}

/// Creates markets of these names.
pub async fn markets(client: &Client, names: &[&str]) -> Vec<EntityId> {
    let specs: Vec<_> = names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }).collect();
    client.markets(&specs).await.expect("markets are created")
}

/// A sound tick.
pub fn tick(market: EntityId, id: u64, price: f64) -> Tick {
    Tick {
        market,
        id,
        event_time_ns: 1_700_000_000_000_000_000 + id as i64,
        price,
        volume: 1.0,
        trader: EntityId::NONE,
        side: 1,
        flags: 0,
        zero_50: 0,
        received_delta_us: received_delta::UNKNOWN,
        source: 0,
        zero_60: 0,
    }
}

/// Rows accepted and duplicate in parts that must all be done.
pub fn done(parts: &[Part]) -> (u32, u32) {
    parts.iter().fold((0, 0), |(accepted, duplicates), part| match &part.outcome {
        Outcome::Done(ack) => (accepted + ack.accepted, duplicates + ack.duplicates),
        other => panic!("a part was not done: {other:?}"),
    })
}

/// The code of the refusal that a part must be.
pub fn refused(parts: &[Part]) -> Option<myelin_wire::Code> {
    match parts {
        [Part { outcome: Outcome::Refused(refusal), .. }] => refusal.code,
        other => panic!("expected one refused part, found {other:?}"),
    }
}

/// The newest segment of core 0's log and the number of its use (`storage/wal/README.md` draws the header).
pub fn newest_segment(dir: &Path) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(dir.join("core-0000")).expect("a core has a folder").flatten();
    let segments = entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/segment-"));
    let epoch = |path: &Path| {
        let mut head = [0; 20];
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head)).ok()?;
        head.starts_with(b"MyelnWal").then(|| head[16..].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    let used = segments.filter_map(|path| Some((epoch(&path)?, path)));
    used.max().map(|(epoch, path)| (path, epoch)).expect("a log has a segment")
}

/// Waits until the hard state of core 0 knows that something in the newest segment was durable: a node notes that within
/// some milliseconds of a roll and of a checkpoint.
pub fn wait_for_watermark(dir: &Path, segment_bytes: u64) {
    wait_for("a watermark in the newest segment", || {
        let bytes = std::fs::read(dir.join("core-0000/hard-state")).ok()?;
        let synced = bytes.get(24..32)?.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        (synced.saturating_sub(1) / segment_bytes == newest_segment(dir).1).then_some(())
    });
}

/// Trials of a campaign: few in `cargo test`, more with `MYELIN_CAMPAIGN=ci`, most with `long`.
pub fn trials(few: u32, ci: u32, long: u32) -> u32 {
    match std::env::var("MYELIN_CAMPAIGN").as_deref() {
        Ok("ci") => ci,
        Ok("long") => long,
        _ => few,
    }
}

/// The line the campaign tables are made of.
pub fn report(campaign: &str, trials: u32) {
    println!("campaign {campaign} trials={trials} failures=0 bound={:.6}", 3.0 / f64::from(trials));
}
