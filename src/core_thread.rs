//! A core thread's life: bring back what its files hold, lead in a new term, serve.
//!
//! ```text
//!   hard state, newest manifest -> shards -> the log's tail replayed -> term + 1 stored -> serve
//!
//!   core thread (pinned)   connections, shards, log        sync thread      writes and syncs batches
//!                                                          seal thread      runs and manifests
//!                                                          upkeep thread    zeroed segments ahead of need, the watermark
//! ```
//!
//! Invariant: nothing is served before everything the log holds is applied, and the new term is durable.

use crate::config::Limits;
use crate::endpoint;
use crate::guard::Guard;
use crate::health::{CoreHealth, Stage};
use crate::identity::{Identity, IdentityError, birth, hold_folder, io_error, make_folder};
use crate::line;
use crate::recovery;
use crate::runtime::awake::Keeper;
use crate::runtime::net::Listener;
use crate::runtime::ring::{self, Consumer, Producer};
use crate::runtime::threads::{self, Role};
use crate::runtime::{self, Executor, clock, spawn_local};
use crate::shard::Shard;
use crate::shard::append::Appender;
use crate::shard::driver::{Core, Parcel, Parts, Synced, describe};
use crate::shard::manifest::{Manifest, runs_dir};
use crate::shard::reading::{Reader, Trip, UNDER_WAY_MAX};
use crate::shard::seal::{OpenRuns, Sealed, Sealer};
use crate::stop::Bell;
use crate::upkeep::{Chore, Kept, Upkeep};
use anyhow::Context as _;
use futures_lite::future;
use myelin_wal::{Disk, HardState, HardStateFile, Recovered, Start, WalError};
use myelin_wire::Welcome;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Towards every other station; none at our own place.
pub type Outgoing = Vec<Option<Producer<Parcel>>>;

/// Everything one core thread is started with.
pub struct CorePlan {
    /// Which core.
    pub number: u16,
    /// The data directory.
    pub identity: Identity,
    /// The core's folder.
    pub dir: PathBuf,
    /// The bounds.
    pub limits: Limits,
    /// Who runs it.
    pub executor: Executor,
    /// Where it is pinned.
    pub cpu: Option<usize>,
    /// Whether it asks for real-time priority.
    pub realtime: bool,
    /// The port of every core.
    pub ports: Vec<u16>,
    /// Where it says how it is.
    pub health: Arc<CoreHealth>,
    /// Towards the other stations.
    pub outgoing: Outgoing,
    /// Who may speak to it.
    pub guard: Guard,
    /// From the other stations.
    pub incoming: Vec<Consumer<Parcel>>,
}

/// A core's state as its files have it.
struct Restored {
    shards: Vec<Shard>,
    recovered: Recovered,
    manifest: Option<Manifest>,
    open: BTreeMap<u16, OpenRuns>,
    hard_state_file: HardStateFile,
    hard_state: HardState,
}

impl CorePlan {
    /// The core thread's whole life.
    pub fn run(self, listener: TcpListener, ready: impl FnOnce()) -> anyhow::Result<()> {
        let restored = self.restore()?;
        if self.realtime && !threads::make_realtime(Role::Core) {
            tracing::warn!(core = self.number, "no real-time priority for the core: CAP_SYS_NICE is needed");
        }
        let (executor, cpu) = (self.executor, self.cpu);
        if let Some(cpu) = cpu {
            tracing::info!(core = self.number, cpu, "the core is pinned");
        }
        runtime::run_core(executor, cpu, self.serve(restored, listener, ready)).map_err(anyhow::Error::msg)?
    }

    fn restore(&self) -> anyhow::Result<Restored> {
        // The folder itself was made at the directory's birth; one that is gone since is not made again.
        let runs = runs_dir(&self.dir);
        make_folder(&runs).map_err(io_error(&runs))?;
        let disk: Arc<dyn Disk> = Arc::new(hold_folder(&self.dir)?);
        // The log names its files as seen from here.
        let here = || self.dir.display().to_string();
        let wal = self.identity.wal_config(self.number, &self.limits);
        let (mut hard_state_file, mut hard_state) = HardStateFile::open(&*disk, &wal).with_context(here)?;
        // The directory's birth stored one, so a core that holds none has lost its term and its watermark.
        if hard_state.groups.is_empty() {
            return Err(IdentityError::Gone { path: self.dir.join("hard-state"), what: birth::HARD_STATE_HOLDS }.into());
        }
        let manifest = Manifest::newest(&self.dir)?;
        let mut restoring: BTreeMap<u16, _> = manifest
            .as_ref()
            .map(|manifest| manifest.restore(&self.dir))
            .transpose()?
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut open = BTreeMap::new();
        let term = hard_state.groups.iter().map(|group| group.term).max().unwrap_or(0) + 1;
        let mut shards = Vec::new();
        for number in self.identity.shards_of(self.number) {
            let from = restoring.remove(&number).unwrap_or_default();
            let (ticks, quotes, facts) = (from.ticks.clone(), from.quotes.clone(), from.facts.clone());
            let mut shard = Shard::restore(number, term, &self.limits, from)?;
            let files = manifest.iter().flat_map(|manifest| &manifest.shards).find(|files| files.shard == number);
            let reflexes = files.and_then(|files| files.reflexes.clone());
            open.insert(number, OpenRuns { ticks, quotes, facts, reflexes, floors: shard.floors() });
            shard.own(self.identity.slots_of(number));
            shard.place(self.identity.slots());
            shards.push(shard);
        }
        let start =
            Start { from: manifest.as_ref().map_or_else(Default::default, Manifest::lsn), synced: hard_state.synced };
        let recovered = recovery::replay_tail(&disk, &wal, start, &mut shards).with_context(here)?;
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
        hard_state_file.store(&hard_state).with_context(here)?;
        Ok(Restored { shards, recovered, manifest, open, hard_state_file, hard_state })
    }

    async fn serve(self, restored: Restored, listener: TcpListener, ready: impl FnOnce()) -> anyhow::Result<()> {
        let Restored { shards, recovered, manifest, open, hard_state_file, hard_state } = restored;
        let Recovered { mut tail, mut syncer, mut preparer, .. } = recovered;
        let mut no_spare = None;
        if tail.spares() == 0 {
            match preparer.prepare() {
                Ok(spare) => tail.offer(spare),
                // What is there can be read. A write that finds no room is told so until there is some.
                Err(error @ WalError::Full { .. }) => no_spare = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let applied = tail.synced_upto();
        let number = self.number;
        // The sync thread.
        let (batches, mut batches_out) = ring::thread_ring(2);
        let (mut synced_in, synced) = ring::ring::<Synced>(2);
        let health = Arc::clone(&self.health);
        let sync = threads::spawn(Role::Sync, format!("myelin-sync-{number}"), move || {
            // A thread that only waits for the disk starves nobody, and a log that waits for a time slice starves all.
            threads::make_realtime(Role::Sync);
            while let Some(batch) = batches_out.pop() {
                let began_us = clock::monotonic_ns() / 1000;
                let result = syncer.sync(&batch);
                let at_us = clock::monotonic_ns() / 1000;
                health.stage(Stage::Sync, (at_us - began_us) * 1000);
                if synced_in.push(Synced { batch, result, began_us, at_us }).is_err() {
                    return;
                }
            }
        })?;
        // The seal thread.
        let checkpoint = manifest.as_ref().map_or_else(|| tail.oldest(), Manifest::lsn);
        let (jobs, jobs_out) = ring::thread_ring(2);
        let (sealed_in, sealed) = ring::ring::<Sealed>(2);
        let sealer = Sealer::new(self.dir.clone(), u32::from(number), manifest, open);
        let seal =
            threads::spawn(Role::Seal, format!("myelin-seal-{number}"), move || sealer.run(jobs_out, sealed_in))?;
        // The reader thread.
        let reads = UNDER_WAY_MAX * shards.len().max(1);
        let (trips, trips_out) = ring::thread_ring(reads);
        let (back_in, back) = ring::ring::<Trip>(reads);
        let reader = threads::spawn(Role::Reader, format!("myelin-reader-{number}"), move || {
            Reader::default().run(trips_out, back_in);
        })?;
        // The upkeep thread.
        let (chores, chores_out) = ring::thread_ring::<Chore>(8);
        let (kept_in, kept) = ring::ring::<Kept>(16);
        let upkeep = Upkeep { preparer, file: hard_state_file, state: hard_state };
        let upkeep = threads::spawn(Role::Seal, format!("myelin-upkeep-{number}"), move || {
            upkeep.run(chores_out, kept_in);
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
        let keeper = (self.limits.awake_us > 0).then(|| Keeper::start(format!("myelin-keeper-{number}"))).flatten();
        let core = Core::new(Parts {
            station: number,
            keeper,
            limits: self.limits.clone(),
            welcome,
            shards,
            log: Appender::new(tail),
            to_sync: ring::toward(batches, sync.thread().clone()),
            to_seal: ring::toward(jobs, seal.thread().clone()),
            to_reader: ring::toward(trips, reader.thread().clone()),
            peers: self.outgoing,
            health: Arc::clone(&self.health),
            token: self.guard.token.clone(),
            checkpoint,
            applied,
        });
        let core = Rc::new(RefCell::new(core));
        if let Some(error) = &no_spare {
            core.borrow_mut().preparing_told(Some(error));
        }
        core.borrow_mut().take_the_lead();
        let chores = ring::toward(chores, upkeep.thread().clone());
        spawn_local(each(Rc::clone(&core), synced, Core::synced));
        spawn_local(each(Rc::clone(&core), sealed, Core::sealed));
        spawn_local(each(Rc::clone(&core), back, Core::is_back));
        for parcels in self.incoming {
            spawn_local(each(Rc::clone(&core), parcels, Core::unpack));
        }
        let ending = Rc::<Bell>::default();
        spawn_local(keep_house(Rc::clone(&core), Arc::clone(&self.health), chores, kept, Rc::clone(&ending)));
        spawn_local(react(Rc::clone(&core)));
        spawn_local(close_in_time(Rc::clone(&core)));
        let listener = Listener::adopt(listener)?;
        let handshakes = Rc::default();
        self.health.set_ready();
        ready();
        let accepting = accept(&core, &listener, &self.guard, &handshakes);
        future::or(accepting, ending.rung()).await;
        // Whoever comes now finds the port closed, and goes to another node or waits.
        drop(listener);
        future::pending().await
    }
}

/// Takes connections for ever.
async fn accept(core: &Rc<RefCell<Core>>, listener: &Listener, guard: &Guard, handshakes: &Rc<line::Handshakes>) {
    loop {
        match listener.accept().await {
            Ok((read, write)) => {
                let id = core.borrow_mut().connect();
                let Some(id) = id else { continue };
                match line::open(read, write, guard.tls.as_ref(), handshakes) {
                    Ok((source, sink)) => {
                        spawn_local(endpoint::read(Rc::clone(core), id, source));
                        spawn_local(endpoint::write(Rc::clone(core), id, sink));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "TLS could not be begun");
                        core.borrow_mut().disconnect(id);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                runtime::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Hands every item of a ring to the core.
async fn each<T>(core: Rc<RefCell<Core>>, items: Consumer<T>, handle: impl Fn(&mut Core, T)) {
    items.each(|item| handle(&mut core.borrow_mut(), item)).await;
}

/// Every 20 ms, and every 60 ms while nothing happens: what is due without an event. Asks for segments ahead of need, and for a note of how far the log is durable.
async fn keep_house(
    core: Rc<RefCell<Core>>,
    health: Arc<CoreHealth>,
    mut chores: ring::ThreadProducer<Chore>,
    mut kept: Consumer<Kept>,
    ending: Rc<Bell>,
) {
    /// Segments that should be ready for a roll.
    const SPARES: usize = 3;
    const BUSY: Duration = Duration::from_millis(20);
    /// A wake-up costs 105 us of CPU, nearly all of it the executor's. Longer, and the spares of a small log could be used up
    /// before the first look.
    const IDLE: Duration = Duration::from_millis(60);
    let (mut asked, mut noting) = (0, false);
    let mut rest = 0_u32;
    let mut quiet = false;
    let mut pause = BUSY;
    loop {
        runtime::sleep(pause).await;
        while let Some(kept) = kept.try_pop() {
            match kept {
                Kept::Spare(Ok(spare)) => {
                    asked -= 1;
                    core.borrow_mut().offer(spare);
                }
                Kept::Spare(Err(error)) => {
                    asked -= 1;
                    tracing::warn!(error = %describe(&error), "no segment could be prepared");
                    core.borrow_mut().preparing_told(Some(&error));
                    rest = 50;
                }
                Kept::Watermark(done) => {
                    noting = false;
                    core.borrow_mut().noted(done);
                }
            }
        }
        core.borrow_mut().housekeeping();
        if health.is_stopping() {
            ending.ring();
            // Twice, so that what left the outbox last has gone to the socket.
            let ended = core.borrow_mut().come_to_an_end();
            if std::mem::replace(&mut quiet, ended) && ended {
                health.set_stopped();
            }
        }
        if !noting && let Some(watermark) = core.borrow_mut().note_due() {
            noting = chores.push(Chore::Watermark(watermark)).is_ok();
        }
        rest = rest.saturating_sub(1);
        let ready = core.borrow_mut().spares();
        if ready >= SPARES {
            // A checkpoint may have released what could not be made.
            core.borrow_mut().preparing_told(None);
        }
        if rest == 0 && ready + asked < SPARES && chores.push(Chore::Spare).is_ok() {
            asked += 1;
        }
        let idle = asked == 0 && !noting && core.borrow_mut().is_idle();
        pause = if idle { IDLE } else { BUSY };
    }
}

/// Goes on with firings that did not fit a turn, one slice at a time.
async fn react(core: Rc<RefCell<Core>>) {
    loop {
        let more = core.borrow_mut().push_firings();
        if more {
            runtime::let_others_go().await;
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

/// Closes moments that other shards wait for, when nothing else does.
async fn close_in_time(core: Rc<RefCell<Core>>) {
    loop {
        let wait = future::poll_fn(|context| match core.borrow_mut().until_close(context.waker()) {
            Some(wait) => Poll::Ready(wait),
            None => Poll::Pending,
        })
        .await;
        runtime::sleep(wait).await;
        core.borrow_mut().close_in_time();
    }
}
