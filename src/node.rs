//! The node: a data directory, its cores, and the threads around them.
//!
//! ```text
//!   <data-dir>/node            node id, number of shards and cores: fixed when the directory is made
//!   <data-dir>/core-0000/      one per data core
//!       segment-*, hard-state  the log (storage/wal)
//!       manifest-*, runs/      checkpoints (manifest.rs)
//!
//!   per core   core thread (pinned) . sync thread . seal thread . prepare thread
//!   per node   gateway thread
//! ```
//!
//! A start: every core restores its newest checkpoint, replays its log's tail, leads in a new term, and serves.

use crate::config::{Config, Limits};
use crate::health::{CoreHealth, Health, Stage};
use crate::runtime::clock;
use crate::runtime::net::{Listener, ReadHalf, WriteHalf, open_listener};
use crate::runtime::ring::{self, Consumer, Producer};
use crate::runtime::threads::{self, Role};
use crate::runtime::{self, Chosen, Executor, entropy, spawn_local};
use crate::shard::append::Appender;
use crate::shard::driver::{Core, Parcel, Parts, Synced, Taken};
use crate::shard::manifest::{Manifest, ManifestError, runs_dir};
use crate::shard::replicate::LogIndex;
use crate::shard::seal::{Sealed, Sealer};
use crate::shard::{Committed, ConnId, Shard, ShardError};
use anyhow::{Context as _, bail};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, future};
use myelin_datom::{SLOTS, Tx};
use myelin_index::IndexError;
use myelin_wal::{Directory, Disk, HardStateFile, Recovered, Spare, Start, Step, WalError};
use myelin_wire::{SlotRange, Welcome};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

/// What is fixed when a data directory is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    node: u64,
    shards: u16,
    cores: u16,
    segment_bytes: u64,
}

const FORMAT: u32 = 1;

impl Identity {
    /// Reads it, or makes the directory.
    fn open(config: &Config) -> anyhow::Result<Self> {
        make_folder(&config.data_dir)
            .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
        let path = config.data_dir.join("node");
        match std::fs::read(&path) {
            Ok(bytes) => {
                let identity: Self = serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?;
                if identity.format != FORMAT {
                    bail!("{} has format {}, this build reads {FORMAT}", path.display(), identity.format);
                }
                if let Some(shards) = config.shards.filter(|shards| *shards != identity.shards) {
                    bail!(
                        "the data directory was made with {} shards, not {shards}: moving slots between shards is not \
                         possible yet; start with `--shards {}` or without",
                        identity.shards,
                        identity.shards
                    );
                }
                Ok(identity)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::make(config, &path),
            Err(error) => Err(error).with_context(|| format!("{}", path.display())),
        }
    }

    fn make(config: &Config, path: &Path) -> anyhow::Result<Self> {
        let cpus = if config.lean { 1 } else { threads::cpus() };
        let shards = config.shards.unwrap_or(cpus.min(64) as u16).clamp(1, 64);
        let cores = usize::from(shards).min(cpus) as u16;
        let identity =
            Self { format: FORMAT, node: entropy::nonzero_u64(), shards, cores, segment_bytes: config.limits.segment_bytes };
        let temporary = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            std::fs::write(&temporary, serde_json::to_vec_pretty(&identity)?)?;
            std::fs::File::open(&temporary)?.sync_all()?;
            std::fs::rename(&temporary, path)?;
            std::fs::File::open(&config.data_dir)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(identity)
    }

    fn core_of(&self, shard: u16) -> u16 {
        shard % self.cores
    }

    fn slots_of(&self, shard: u16) -> Range<u16> {
        let bound = |shard: u16| (u32::from(shard) * u32::from(SLOTS) / u32::from(self.shards)) as u16;
        bound(shard)..bound(shard + 1)
    }

    /// Slots in equal ranges, in the order of the shards.
    fn slots(&self) -> Vec<SlotRange> {
        (0..self.shards).map(|shard| SlotRange { first: self.slots_of(shard).start, shard }).collect()
    }
}

/// A node that serves.
pub struct Node {
    /// How its cores are.
    pub health: Arc<Health>,
    /// Where each core listens.
    pub listen: Vec<SocketAddr>,
    /// Where the gateway listens.
    pub http: SocketAddr,
    /// Who runs the data cores.
    pub executor: Executor,
    threads: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts everything; returns when every core serves.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        let identity = Identity::open(config)?;
        let limits = Limits { segment_bytes: identity.segment_bytes, ..config.limits.clone() };
        let cores = usize::from(identity.cores);
        let Chosen { executor, degraded } = runtime::choose(config.executor, cores).map_err(anyhow::Error::msg)?;
        if let Some(reason) = &degraded {
            tracing::warn!("{reason}; the portable executor takes over");
        }
        let listeners = open_listeners(config.listen, cores)?;
        let listen: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let http = std::net::TcpListener::bind(config.http).with_context(|| format!("cannot listen on {}", config.http))?;
        let http_address = http.local_addr()?;
        let health = Arc::new(Health {
            cores: (0..cores).map(|_| Arc::new(CoreHealth::default())).collect(),
            degraded: degraded.into_iter().collect(),
        });
        let (mut outgoing, mut incoming) = mesh(cores, limits.ring_items);
        let (ready_tx, ready_rx) = std::sync::mpsc::channel::<anyhow::Result<()>>();
        let mut threads = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let plan = CorePlan {
                number: number as u16,
                identity: identity.clone(),
                dir: config.data_dir.join(format!("core-{number:04}")),
                limits: limits.clone(),
                executor,
                cpu: config.pin.then_some(number),
                realtime: config.realtime,
                ports: listen.iter().map(SocketAddr::port).collect(),
                health: Arc::clone(&health.cores[number]),
                outgoing: std::mem::take(&mut outgoing[number]),
                incoming: std::mem::take(&mut incoming[number]),
            };
            let ready = ready_tx.clone();
            let body = move || {
                let served = plan.run(listener, || drop(ready.send(Ok(()))));
                if let Err(error) = served.with_context(|| format!("core {number}")) {
                    drop(ready.send(Err(error)));
                }
            };
            threads.push(threads::spawn(Role::Core, format!("myelin-core-{number}"), body)?);
        }
        drop(ready_tx);
        let (gateway, node) = (Arc::clone(&health), listen[0]);
        threads.push(threads::spawn(Role::Gateway, "myelin-gateway".to_owned(), move || {
            if let Err(error) = crate::gateway::run(http, node, gateway) {
                tracing::error!(%error, "the gateway stopped");
            }
        })?);
        for _ in 0..cores {
            match ready_rx.recv() {
                Ok(served) => served?,
                Err(_) => bail!("a core ended before it served"),
            }
        }
        announce(&config.data_dir, &listen, http_address)?;
        Ok(Self { health, listen, http: http_address, executor, threads })
    }

    /// Waits until a thread of the node ends, which they do not while all is well.
    pub fn join(self) {
        for thread in self.threads {
            drop(thread.join());
        }
    }
}

/// Makes a folder, and its name outlives a loss of power: else everything that was synced inside goes with the name.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = !path.is_dir();
    if missing {
        if !parent.is_dir() {
            make_folder(parent)?;
        }
        std::fs::create_dir_all(path)?;
    }
    // Also when it is there: who made it may have died before this. A parent that is not ours may refuse us then.
    let synced = std::fs::File::open(parent).and_then(|folder| folder.sync_all());
    if missing { synced } else { Ok(()) }
}

/// Writes `<data-dir>/listening`, for scripts that started us on free ports. Whole or not there.
fn announce(dir: &Path, listen: &[SocketAddr], http: SocketAddr) -> anyhow::Result<()> {
    let (temporary, path) = (dir.join("listening.new"), dir.join("listening"));
    std::fs::write(&temporary, serde_json::to_vec(&serde_json::json!({ "listen": listen, "http": http }))?)?;
    std::fs::rename(&temporary, &path)?;
    Ok(())
}

/// True for an error that says: what is on disk is not what was written there.
#[must_use]
pub fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(WalError::Corrupt { .. } | WalError::Missing { .. }))
        || matches!(error.downcast_ref(), Some(ManifestError::Corrupt { .. } | ManifestError::WrongRun { .. }))
        || matches!(error.downcast_ref(), Some(IndexError::Corrupt { .. }))
        || matches!(error.downcast_ref(), Some(ShardError::Senseless(_) | ShardError::Checkpoint(_)))
}

/// Core 0 where it was told; core k at k ports higher, or wherever there is room.
fn open_listeners(first: SocketAddr, cores: usize) -> anyhow::Result<Vec<TcpListener>> {
    let opened = open_listener(first).with_context(|| format!("cannot listen on {first}"))?;
    let first = opened.local_addr()?;
    let mut listeners = vec![opened];
    for core in 1..cores {
        let near = first.port().checked_add(core as u16).map(|port| SocketAddr::new(first.ip(), port));
        let listener = match near.map(open_listener) {
            Some(Ok(listener)) => listener,
            _ => open_listener(SocketAddr::new(first.ip(), 0))?,
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

type Outgoing = Vec<Option<Producer<Parcel>>>;

/// A ring from every station to every other.
fn mesh(stations: usize, items: usize) -> (Vec<Outgoing>, Vec<Vec<Consumer<Parcel>>>) {
    let mut outgoing: Vec<Outgoing> = (0..stations).map(|_| (0..stations).map(|_| None).collect()).collect();
    let mut incoming: Vec<Vec<Consumer<Parcel>>> = (0..stations).map(|_| Vec::new()).collect();
    for (from, row) in outgoing.iter_mut().enumerate() {
        for (to, place) in row.iter_mut().enumerate() {
            if from != to {
                let (producer, consumer) = ring::ring(items);
                *place = Some(producer);
                incoming[to].push(consumer);
            }
        }
    }
    (outgoing, incoming)
}

/// Everything one core thread is started with.
struct CorePlan {
    number: u16,
    identity: Identity,
    dir: PathBuf,
    limits: Limits,
    executor: Executor,
    cpu: Option<usize>,
    realtime: bool,
    ports: Vec<u16>,
    health: Arc<CoreHealth>,
    outgoing: Outgoing,
    incoming: Vec<Consumer<Parcel>>,
}

/// A core's state as its files have it.
struct Restored {
    shards: Vec<Shard>,
    recovered: Recovered,
    manifest: Option<Manifest>,
}

impl CorePlan {
    /// The core thread's whole life.
    fn run(self, listener: TcpListener, ready: impl FnOnce()) -> anyhow::Result<()> {
        let restored = self.restore()?;
        if self.realtime && !threads::make_realtime(Role::Core) {
            tracing::warn!(core = self.number, "no real-time priority for the core: CAP_SYS_NICE is needed");
        }
        let (executor, cpu) = (self.executor, self.cpu);
        runtime::run_core(executor, cpu, self.serve(restored, listener, ready)).map_err(anyhow::Error::msg)?
    }

    fn wal_config(&self) -> myelin_wal::Config {
        myelin_wal::Config {
            core: u32::from(self.number),
            log_id: self.identity.node,
            segment_bytes: self.limits.segment_bytes,
            max_payload: self.limits.max_payload(),
            batch_bytes: self.limits.batch_bytes,
            buffers: self.limits.batch_buffers,
            max_segments: self.limits.max_segments,
        }
    }

    fn restore(&self) -> anyhow::Result<Restored> {
        make_folder(&self.dir)?;
        make_folder(&runs_dir(&self.dir))?;
        let disk: Arc<dyn Disk> = Arc::new(Directory::open(&self.dir)?);
        let wal = self.wal_config();
        let (mut hard_state_file, mut hard_state) = HardStateFile::open(&*disk, &wal)?;
        let manifest = Manifest::newest(&self.dir)?;
        let mut restoring: BTreeMap<u16, _> =
            manifest.as_ref().map(|manifest| manifest.restore(&self.dir)).transpose()?.unwrap_or_default().into_iter().collect();
        let term = hard_state.groups.iter().map(|group| group.term).max().unwrap_or(0) + 1;
        let mine = (0..self.identity.shards).filter(|shard| self.identity.core_of(*shard) == self.number);
        let mut shards = Vec::new();
        for number in mine {
            let from = restoring.remove(&number).unwrap_or_default();
            let mut shard = Shard::restore(number, term, &self.limits, from)?;
            shard.own(self.identity.slots_of(number));
            shards.push(shard);
        }
        let start = Start { from: manifest.as_ref().map_or_else(Default::default, Manifest::lsn), synced: hard_state.synced };
        let mut failed: Option<ShardError> = None;
        let recovered = myelin_wal::recover(Arc::clone(&disk), &wal, start, &mut |record| {
            let Some(shard) = record.header.group.checked_sub(1) else { return Ok(()) };
            let Some(shard) = shards.iter_mut().find(|one| one.number() == shard) else { return Ok(()) };
            let entry = Committed {
                index: LogIndex(record.header.index),
                tx: Tx::from_bits(record.header.tx),
                kind: record.header.kind,
                payload: record.payload,
            };
            shard.replay(entry).map_err(|error| {
                let text = error.to_string();
                failed = Some(error);
                text.into()
            })
        });
        if let Some(error) = failed {
            return Err(error).context("the log's tail cannot be applied");
        }
        let recovered = recovered?;
        tracing::info!(
            core = self.number,
            records = recovered.report.records,
            bytes = recovered.report.bytes,
            cut = ?recovered.report.cut,
            "the log was replayed"
        );
        hard_state.synced = recovered.tail.synced_upto();
        hard_state.groups = shards
            .iter()
            .map(|shard| myelin_wal::GroupState {
                term,
                group: shard.group().number(),
                commit: shard.group().applied().0,
                ..Default::default()
            })
            .collect();
        hard_state_file.store(&hard_state)?;
        Ok(Restored { shards, recovered, manifest })
    }

    async fn serve(self, restored: Restored, listener: TcpListener, ready: impl FnOnce()) -> anyhow::Result<()> {
        let Restored { shards, recovered, manifest } = restored;
        let Recovered { mut tail, mut syncer, mut preparer, .. } = recovered;
        if tail.spares() == 0 {
            tail.offer(preparer.prepare()?);
        }
        let number = self.number;
        // The sync thread.
        let (batches, mut batches_out) = ring::thread_ring(2);
        let (mut synced_in, synced) = ring::ring::<Synced>(2);
        let health = Arc::clone(&self.health);
        let sync = threads::spawn(Role::Sync, format!("myelin-sync-{number}"), move || {
            // A thread that only waits for the disk starves nobody, and a log that waits for a time slice starves all.
            threads::make_realtime(Role::Sync);
            while let Some(batch) = batches_out.pop(true) {
                let before = clock::monotonic_ns() / 1000;
                let result = syncer.sync(&batch);
                let at_us = clock::monotonic_ns() / 1000;
                health.stage(Stage::Sync, at_us - before);
                if synced_in.push(Synced { batch, result, at_us }).is_err() {
                    return;
                }
            }
        })?;
        // The seal thread.
        let checkpoint = manifest.as_ref().map_or_else(|| tail.oldest(), Manifest::lsn);
        let (jobs, jobs_out) = ring::thread_ring(2);
        let (sealed_in, sealed) = ring::ring::<Sealed>(2);
        let sealer = Sealer::new(self.dir.clone(), u32::from(number), manifest);
        let seal = threads::spawn(Role::Seal, format!("myelin-seal-{number}"), move || sealer.run(jobs_out, sealed_in))?;
        // The prepare thread.
        let (wants, mut wants_out) = ring::thread_ring::<()>(8);
        let (mut spares_in, spares) = ring::ring::<Result<Spare, WalError>>(8);
        let prepare = threads::spawn(Role::Seal, format!("myelin-prepare-{number}"), move || {
            while wants_out.pop(false).is_some() {
                let spare = loop {
                    match preparer.step() {
                        Ok(Step::More) => {}
                        Ok(Step::Ready(spare)) => break Ok(spare),
                        Err(error) => break Err(error),
                    }
                };
                if spares_in.push(spare).is_err() {
                    return;
                }
            }
        })?;
        let welcome = Welcome {
            node: self.identity.node,
            capabilities: 0,
            max_body: self.limits.max_body_bytes,
            core: number,
            table: 1,
            ports: self.ports.clone(),
            shard_cores: (0..self.identity.shards).map(|shard| self.identity.core_of(shard)).collect(),
            slots: self.identity.slots(),
        };
        let core = Core::new(Parts {
            station: number,
            limits: self.limits.clone(),
            welcome,
            shards,
            log: Appender::new(tail),
            to_sync: ring::toward(batches, sync.thread().clone()),
            to_seal: ring::toward(jobs, seal.thread().clone()),
            peers: self.outgoing,
            health: Arc::clone(&self.health),
            checkpoint,
        });
        let core = Rc::new(RefCell::new(core));
        core.borrow_mut().take_the_lead();
        let wants = ring::toward(wants, prepare.thread().clone());
        spawn_local(each(Rc::clone(&core), synced, Core::synced));
        spawn_local(each(Rc::clone(&core), sealed, Core::sealed));
        for parcels in self.incoming {
            spawn_local(each(Rc::clone(&core), parcels, Core::unpack));
        }
        spawn_local(keep_house(Rc::clone(&core), wants, spares));
        spawn_local(react(Rc::clone(&core)));
        let listener = Listener::adopt(listener)?;
        self.health.set_ready();
        ready();
        loop {
            match listener.accept().await {
                Ok((read, write)) => {
                    let id = core.borrow_mut().connect();
                    if let Some(id) = id {
                        spawn_local(read_connection(Rc::clone(&core), id, read));
                        spawn_local(write_connection(Rc::clone(&core), id, write));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    runtime::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Hands every item of a ring to the core.
async fn each<T>(core: Rc<RefCell<Core>>, mut items: Consumer<T>, handle: impl Fn(&mut Core, T)) {
    while let Some(item) = items.pop().await {
        handle(&mut core.borrow_mut(), item);
    }
}

/// Every 20 ms: what is due without an event. Asks for segments ahead of need.
async fn keep_house(
    core: Rc<RefCell<Core>>,
    mut wants: ring::ThreadProducer<()>,
    mut spares: Consumer<Result<Spare, WalError>>,
) {
    /// Segments that should be ready for a roll.
    const SPARES: usize = 3;
    let mut asked = 0;
    let mut rest = 0_u32;
    loop {
        runtime::sleep(Duration::from_millis(20)).await;
        while let Some(made) = spares.try_pop() {
            asked -= 1;
            match made {
                Ok(spare) => core.borrow_mut().offer(spare),
                Err(error) => {
                    tracing::warn!(error = %crate::shard::driver::describe(&error), "no segment could be prepared");
                    rest = 50;
                }
            }
        }
        core.borrow_mut().housekeeping();
        rest = rest.saturating_sub(1);
        let ready = core.borrow_mut().spares();
        if rest == 0 && ready + asked < SPARES && wants.push(()).is_ok() {
            asked += 1;
        }
    }
}

/// Goes on with firings that did not fit a turn, one slice at a time.
async fn react(core: Rc<RefCell<Core>>) {
    loop {
        let more = core.borrow_mut().push_firings();
        if more {
            future::yield_now().await;
            continue;
        }
        let mut rung = false;
        future::poll_fn(|context| {
            if rung {
                return Poll::Ready(());
            }
            rung = true;
            core.borrow_mut().await_firings(context.waker());
            Poll::Pending
        })
        .await;
    }
}

/// How much is read at once. **Units:** bytes.
const READ_BYTES: usize = 256 << 10;

async fn read_connection(core: Rc<RefCell<Core>>, id: ConnId, mut read: ReadHalf) {
    // Whole frames of any allowed length fit, so a frame that does not end is refused, not awaited for ever. 8-byte words
    // keep the rows aligned.
    let max_body = core.borrow().max_body();
    let mut words = vec![0_u64; (READ_BYTES + 2 * max_body) / 8];
    let mut filled = 0;
    'connection: loop {
        let space: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        match read.read(&mut space[filled..]).await {
            Ok(0) | Err(_) => break,
            Ok(len) => filled += len,
        }
        let mut taken = 0;
        loop {
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            let (len, verdict) = core.borrow_mut().take_frames(id, &bytes[taken..filled]);
            taken += len;
            match verdict {
                Taken::More => break,
                Taken::Close => {
                    core.borrow_mut().close_when_said(id);
                    break 'connection;
                }
                Taken::Wait => future::poll_fn(|context| {
                    if core.borrow_mut().wait_for_room(id, context.waker()) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await,
            }
        }
        let space: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        space.copy_within(taken..filled, 0);
        filled -= taken;
    }
    core.borrow_mut().reader_ended(id);
}

async fn write_connection(core: Rc<RefCell<Core>>, id: ConnId, mut write: WriteHalf) {
    let mut buffer = Vec::new();
    loop {
        let taken = future::poll_fn(|context| match core.borrow_mut().take_outbox(id, &mut buffer, context.waker()) {
            None => Poll::Ready(false),
            Some(true) => Poll::Ready(true),
            Some(false) => Poll::Pending,
        })
        .await;
        if !taken || write.write_all(&buffer).await.is_err() || write.flush().await.is_err() {
            break;
        }
        buffer.clear();
    }
    drop(write.close().await);
    core.borrow_mut().disconnect(id);
}
