//! `myelin demo`: the main job on an embedded node, on the screen, with a summary of what was kept, fired and how fast.
//!
//! ```text
//!   node in this process (a folder that goes afterwards) <- client <- tape: generated, and saying so, or --file
//!                                                        -> firings, the first of them printed
//! ```
//!
//! The summary's figures are measured by the client, from the outside, and asked back from the node. Who stops it in the middle
//! (Ctrl-C, SIGTERM) is told how far it came; who stops reading ends it, too. The folder goes all the same.

use crate::config::{Config, Limits};
use crate::node::Node;
use crate::reflex::{Kind, Scope, Spec};
use crate::runtime::{Wanted, clock};
use crate::stop::Signals;
use anyhow::{Context as _, bail};
use myelin_client::{At, Client, Mode, News, Options, Outcome};
use myelin_datom::{EntityId, Tick};
use myelin_feed::{Batch, Reader, RowKind, Tape};
use myelin_wire::{Attribute, FiringRow, MarketFlags, MarketSpec};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What the demo is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Demo {
    /// A real file of trades instead of a generated tape.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Ticks of the generated tape.
    #[arg(long, default_value_t = 10_000)]
    ticks: usize,
    /// Markets of the generated tape.
    #[arg(long, default_value_t = 20)]
    markets: u32,
    /// Ticks in a frame.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Who runs the data core.
    #[arg(long, value_enum, default_value = "auto")]
    executor: Wanted,
    /// Firings that are printed; the others are only counted.
    #[arg(long, default_value_t = 12)]
    show: usize,
    /// Where the node's folder is made; it is removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A folder that goes when the demo ends, however it ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        /// The node's threads go on until the process ends, and may make a file while we remove: again, then.
        const TRIES: u32 = 20;
        for _ in 0..TRIES {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
                _ => break,
            }
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        // A folder that cannot be removed is no reason to fail a demo that worked.
    }
}

/// Ticks in the order of their sending, and the names of their markets.
struct Input {
    ticks: Vec<Tick>,
    markets: Vec<u32>,
    names: Vec<String>,
}

/// What was measured. It grows while the tape plays, so that a demo that is stopped can tell how far it came.
#[derive(Default)]
struct Summary {
    /// When the first tick was sent, and when the last ack came. **Units:** monotonic nanoseconds.
    begun_ns: u64,
    acked_ns: u64,
    accepted: u64,
    counted: Option<u64>,
    /// When each firing came. **Units:** monotonic nanoseconds.
    firings: Vec<u64>,
    wanted: usize,
}

/// The screen that what happens is said on cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
struct Unsaid(#[from] io::Error);

/// Says a line. **Errors:** it cannot be written, or nobody reads on.
fn say(line: fmt::Arguments<'_>) -> Result<(), Unsaid> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

impl Summary {
    fn tell(&self) -> Result<(), Unsaid> {
        let seconds = self.acked_ns.saturating_sub(self.begun_ns) as f64 / 1e9;
        let rate = if seconds > 0.0 { self.accepted as f64 / seconds } else { 0.0 };
        say(format_args!("\ndurable     {} ticks in {seconds:.3} s ({rate:.0} a second)", self.accepted))?;
        if let Some(counted) = self.counted {
            say(format_args!("counted     tick/id = {counted}"))?;
        }
        let last = self.firings.iter().max().map_or(0.0, |at| at.saturating_sub(self.acked_ns) as f64 / 1e6);
        say(format_args!(
            "fired       {} firings, the last one {last:.2} ms after the last tick was acknowledged",
            self.firings.len()
        ))
    }
}

/// Runs the demo. **Errors:** whatever kept it from its end; a reader who left is nothing of that kind.
pub fn run(demo: &Demo) -> anyhow::Result<()> {
    let left = |error: &anyhow::Error| {
        error.downcast_ref().is_some_and(|Unsaid(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    match show(demo) {
        // `myelin demo | head`: who stopped reading got what was wanted.
        Err(error) if left(&error) => Ok(()),
        shown => shown,
    }
}

fn show(demo: &Demo) -> anyhow::Result<()> {
    let begun = clock::monotonic_ns();
    let input = match &demo.file {
        Some(file) => read_file(file)?,
        None => generate(demo),
    };
    let parent = demo.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = Folder(parent.join(format!("myelin-demo-{}", std::process::id())));
    let config = Config {
        data_dir: folder.0.clone(),
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        admin: ([127, 0, 0, 1], 0).into(),
        listen_moves: false,
        http_moves: false,
        admin_moves: false,
        shards: Some(1),
        executor: demo.executor,
        lean: true,
        pin: false,
        guard: crate::guard::Guard::default(),
        realtime: false,
        limits: Limits::lean(),
        said: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _within = runtime.enter();
        Signals::register()?
    };
    let node = Node::start(&config)?;
    let source = demo.file.as_ref().map_or("a generated tape".to_owned(), |file| file.display().to_string());
    say(format_args!("a node of one shard on the {} executor, in {}", node.executor, folder.0.display()))?;
    say(format_args!("{} ticks of {} markets from {source}", input.ticks.len(), input.names.len()))?;
    let address = node.listen.first().context("the node listens nowhere")?.to_string();
    let summary = RefCell::new(Summary::default());
    let stopped = runtime.block_on(async {
        tokio::select! {
            played = play(demo, &address, input, &summary) => played.map(|()| None),
            signal = signals.any() => Ok(Some(signal)),
        }
    })?;
    let summary = summary.into_inner();
    summary.tell()?;
    say(format_args!("ran         {:.2} s from start to here", (clock::monotonic_ns() - begun) as f64 / 1e9))?;
    if let Some(signal) = stopped {
        say(format_args!("stopped     by {signal}, before the end of the tape"))?;
        return Ok(());
    }
    let missing = summary.wanted - summary.firings.len();
    if summary.counted != Some(summary.accepted) || missing > 0 {
        bail!("{} ticks accepted, {:?} counted, {missing} firings missing", summary.accepted, summary.counted);
    }
    Ok(())
}

fn generate(demo: &Demo) -> Input {
    let mut tape = Tape::new(1, demo.markets, clock::unix_ns());
    let mut batch = Batch::default();
    tape.next_batch(demo.ticks, &mut batch);
    Input { ticks: batch.ticks, markets: batch.markets, names: tape.names().to_vec() }
}

fn read_file(file: &Path) -> anyhow::Result<Input> {
    let mut reader = Reader::open(file, &myelin_feed::Options::default())?;
    if reader.kind() != RowKind::Ticks {
        bail!("{} holds quotes; the demo plays trades", file.display());
    }
    let (mut input, mut batch) =
        (Input { ticks: Vec::new(), markets: Vec::new(), names: Vec::new() }, Batch::default());
    while reader.next_batch(4096, &mut batch)? > 0 {
        input.ticks.extend_from_slice(&batch.ticks);
        input.markets.extend_from_slice(&batch.markets);
    }
    input.names = reader.names().to_vec();
    Ok(input)
}

/// One band a market: above what its first tick says, so that most of them fire.
fn bands(input: &Input) -> (Vec<u8>, u32) {
    let mut first: BTreeMap<u32, f64> = BTreeMap::new();
    for (tick, market) in input.ticks.iter().zip(&input.markets) {
        first.entry(*market).or_insert(tick.price);
    }
    let mut body = Vec::new();
    for (market, price) in &first {
        body.extend_from_slice(&(u64::from(*market) + 1).to_le_bytes());
        Spec::Above(*price).encode(&mut body);
        Scope::Market(input.names[*market as usize].as_str().into()).encode(&mut body);
    }
    (body, first.len() as u32)
}

/// Firings the bands must give: rises above the first price, counted the naive way.
fn expected(input: &Input) -> usize {
    let mut seen: BTreeMap<u32, (f64, bool)> = BTreeMap::new();
    let mut fired = 0;
    for (tick, market) in input.ticks.iter().zip(&input.markets) {
        let (first, above) = seen.entry(*market).or_insert((tick.price, false));
        let now = tick.price > *first;
        fired += usize::from(now && !*above);
        *above = now;
    }
    fired
}

async fn play(demo: &Demo, address: &str, mut input: Input, summary: &RefCell<Summary>) -> anyhow::Result<()> {
    let client = Client::connect(address, Options::default()).await?;
    let specs: Vec<_> = input.names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name }).collect();
    let ids = client.markets(&specs).await?;
    for (tick, market) in input.ticks.iter_mut().zip(&input.markets) {
        tick.market = ids[*market as usize];
    }
    let (body, count) = bands(&input);
    client.register(&body, count).await?;
    let wanted = expected(&input);
    say(format_args!("{count} standing bands: each market above its first price; {wanted} firings are due"))?;
    let mut subscription = client.subscribe(None, &[]).await?;
    let names: BTreeMap<EntityId, String> = ids.iter().copied().zip(input.names.iter().cloned()).collect();
    {
        let mut summary = summary.borrow_mut();
        (summary.begun_ns, summary.wanted) = (clock::monotonic_ns(), wanted);
    }
    let send = async {
        let mut sent = VecDeque::new();
        for frame in input.ticks.chunks(demo.batch.max(1)) {
            sent.push_back(client.send_ticks(frame, Mode::Whole).await?);
        }
        for one in sent {
            for part in one.wait().await {
                match part.outcome {
                    Outcome::Done(ack) => {
                        let mut summary = summary.borrow_mut();
                        summary.accepted += u64::from(ack.accepted);
                        summary.acked_ns = clock::monotonic_ns();
                    }
                    other => bail!("a frame was not stored: {other:?}"),
                }
            }
        }
        Ok(())
    };
    let listen = async {
        let mut seen = 0;
        while seen < wanted {
            let within = std::time::Duration::from_secs(10);
            let Ok(news) = tokio::time::timeout(within, subscription.next()).await else { break };
            match news? {
                Some(News::Firing(firing)) => {
                    if seen < demo.show {
                        print_firing(&firing.row, &names)?;
                    }
                    seen += 1;
                    summary.borrow_mut().firings.push(clock::monotonic_ns());
                }
                Some(News::Ended { why, .. }) => bail!("the subscription ended: {why:?}"),
                None => break,
            }
        }
        Ok(())
    };
    tokio::try_join!(send, listen)?;
    let counted = client.count(Attribute::Tick, None, At::default()).await?.value;
    summary.borrow_mut().counted = Some(counted);
    Ok(())
}

fn print_firing(row: &FiringRow, names: &BTreeMap<EntityId, String>) -> Result<(), Unsaid> {
    let market = names.get(&row.tick.market).map_or("?", String::as_str);
    let kind = Kind::from_number(row.kind).map_or("?", Kind::as_str);
    let micros = (row.fired_ns - row.received_ns) / 1000;
    say(format_args!(
        "  fired  {market}  {kind}  price {}  tx {}.{}  {micros} µs after it came in",
        row.tick.price, row.tx, row.n
    ))
}
