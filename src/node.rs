//! The node: a data directory, its cores, and the threads around them.
//!
//! ```text
//!   <data-dir>/node            what it is, for life (identity.rs)
//!   <data-dir>/listening       where it listens, while it serves
//!   <data-dir>/core-0000/      one per data core
//!       segment-*, hard-state  the log (storage/wal)
//!       manifest-*, runs/      checkpoints (shard/manifest.rs)
//!
//!   per core   core thread (pinned) . sync thread . seal thread . upkeep thread      (core_thread.rs)
//!   per node   gateway thread
//! ```

use crate::config::Config;
use crate::core_thread::{CorePlan, Outgoing};
use crate::health::{CoreHealth, Health};
use crate::identity::{Identity, IdentityError, core_dir};
use crate::runtime::net::open_listener;
use crate::runtime::place;
use crate::runtime::ring::{self, Consumer};
use crate::runtime::threads::{self, Role};
use crate::runtime::{self, Chosen, Executor};
use crate::settings::SettingsError;
use crate::shard::ShardError;
use crate::shard::driver::Parcel;
use crate::shard::manifest::ManifestError;
use crate::stop::{self, Signals};
use anyhow::{Context as _, bail};
use myelin_feed::FeedError;
use myelin_index::IndexError;
use myelin_wal::WalError;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A node that serves.
pub struct Node {
    /// How its cores are.
    pub health: Arc<Health>,
    /// Where each core listens.
    pub listen: Vec<SocketAddr>,
    /// Where the gateway listens.
    pub http: SocketAddr,
    /// Where probes and metrics are.
    pub admin: SocketAddr,
    /// Who runs the data cores.
    pub executor: Executor,
    data_dir: PathBuf,
    threads: Vec<JoinHandle<()>>,
    /// Each thread holds the other end: when the last one is gone, so are all of them.
    alive: tokio::sync::mpsc::Receiver<()>,
}

impl Node {
    /// Starts everything; returns when every core serves. Nobody is told yet where: see [`Node::announce`].
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        // Ports first: a node that cannot listen leaves no directory behind.
        let first = open_or_next(config.listen, config.listen_moves, open_listener)?;
        let http = open_or_next(config.http, config.http_moves, TcpListener::bind)?;
        let admin = open_or_next(config.admin, config.admin_moves, TcpListener::bind)?;
        let cores = usize::from(Identity::cores(config));
        let others = [http.local_addr()?.port(), admin.local_addr()?.port()];
        let listeners = open_listeners(first, cores, config.listen_moves || config.listen.port() == 0, others)?;
        let identity = Identity::open(config)?;
        for kept in identity.keeps(&config.said) {
            tracing::warn!("{kept}");
        }
        let limits = identity.limits(&config.limits);
        let Chosen { executor, degraded } = runtime::choose(config.executor, cores).map_err(anyhow::Error::msg)?;
        if let Some(reason) = &degraded {
            tracing::warn!("{reason}; the portable executor takes over");
        }
        let listen: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (http_address, admin_address) = (http.local_addr()?, admin.local_addr()?);
        let health = Arc::new(Health {
            cores: (0..cores).map(|_| Arc::new(CoreHealth::default())).collect(),
            degraded: degraded.into_iter().collect(),
        });
        let (mut outgoing, mut incoming) = mesh(cores, limits.ring_items);
        let (life, alive) = tokio::sync::mpsc::channel(1);
        let (ready_tx, ready_rx) = std::sync::mpsc::channel::<anyhow::Result<()>>();
        let mut threads = Vec::new();
        let cpus = if config.pin { place::cpus(&config.data_dir) } else { Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            let plan = CorePlan {
                number: number as u16,
                identity: identity.clone(),
                dir: core_dir(&config.data_dir, number as u16),
                limits: limits.clone(),
                executor,
                cpu: cpus.get(number).copied(),
                realtime: config.realtime,
                ports: listen.iter().map(SocketAddr::port).collect(),
                health: Arc::clone(&health.cores[number]),
                guard: config.guard.clone(),
                outgoing: std::mem::take(&mut outgoing[number]),
                incoming: std::mem::take(&mut incoming[number]),
            };
            let (ready, life) = (ready_tx.clone(), life.clone());
            let body = move || {
                let _life = life;
                let served = plan.run(listener, || drop(ready.send(Ok(()))));
                if let Err(error) = served.with_context(|| format!("core {number}")) {
                    drop(ready.send(Err(error)));
                }
            };
            threads.push(threads::spawn(Role::Core, format!("myelin-core-{number}"), body)?);
        }
        drop(ready_tx);
        let (gateway, cores_at, guard) = (Arc::clone(&health), listen.clone(), config.guard.clone());
        threads.push(threads::spawn(Role::Gateway, "myelin-gateway".to_owned(), move || {
            let _life = life;
            if let Err(error) = crate::gateway::run(http, admin, &cores_at, gateway, guard) {
                tracing::error!(%error, "the gateway stopped");
            }
        })?);
        for _ in 0..cores {
            match ready_rx.recv() {
                Ok(served) => served?,
                Err(_) => bail!("a core ended before it served"),
            }
        }
        let data_dir = config.data_dir.clone();
        Ok(Self { health, listen, http: http_address, admin: admin_address, executor, data_dir, threads, alive })
    }

    /// Writes where it listens.
    pub fn announce(&self) -> anyhow::Result<()> {
        announce(&self.data_dir, &self.listen, self.http, self.admin)
    }

    /// Serves until it is asked to stop, and stops: nothing is left under way, if that can be had in some seconds.
    ///
    /// **Errors:** every thread ended, which they do not while all is well.
    pub async fn serve(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let signal = tokio::select! {
            signal = signals.any() => signal,
            _ = self.alive.recv() => {
                for thread in self.threads {
                    drop(thread.join());
                }
                bail!("every thread of the node ended");
            }
        };
        let quiet = stop::stop(&self.health, &mut signals).await;
        // It names ports on which nobody answers from now on.
        let _removed = std::fs::remove_file(self.data_dir.join("listening"));
        if quiet {
            tracing::info!(signal, "stopped: everything is answered, and the logs are marked");
        } else {
            tracing::warn!(signal, "stopped with requests under way: what was acknowledged is durable");
        }
        Ok(())
    }
}

/// Writes `<data-dir>/listening`, for scripts that started us on free ports. Whole or not there; on a disk without room for
/// it the log says the same.
fn announce(dir: &Path, listen: &[SocketAddr], http: SocketAddr, admin: SocketAddr) -> anyhow::Result<()> {
    let (temporary, path) = (dir.join("listening.new"), dir.join("listening"));
    let text = serde_json::to_vec(&serde_json::json!({ "listen": listen, "http": http, "admin": admin }))?;
    let write = || std::fs::write(&temporary, &text).and_then(|()| std::fs::rename(&temporary, &path));
    let full = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let mut written = write();
    if written.as_ref().is_err_and(full) {
        // An older one names ports that are not ours, and has the page that is missing.
        let _either_helps = (std::fs::remove_file(&path), std::fs::remove_file(&temporary));
        written = write();
    }
    match written {
        Err(error) if full(&error) => {
            let _empty = std::fs::remove_file(&temporary);
            tracing::warn!(?listen, %http, %admin, %error, "no room for the file `listening`");
            Ok(())
        }
        written => Ok(written?),
    }
}

/// True for an error that says: what is on disk is not what was written there.
#[must_use]
pub fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(IdentityError::Damaged { .. } | IdentityError::Gone { .. }))
        || match error.downcast_ref() {
            Some(WalError::Corrupt { .. } | WalError::Missing { .. }) => true,
            // The folder of another core, or of another node.
            Some(WalError::Mismatch { subject, .. }) => subject != "config",
            _ => false,
        }
        || match error.downcast_ref() {
            Some(ManifestError::Corrupt { .. } | ManifestError::WrongRun { .. }) => true,
            Some(ManifestError::Io { source, .. }) => source.kind() == ErrorKind::NotFound,
            _ => false,
        }
        || match error.downcast_ref() {
            Some(IndexError::Corrupt { .. }) => true,
            // A manifest names it, so it was there.
            Some(IndexError::Io { source, .. }) => source.kind() == ErrorKind::NotFound,
            _ => false,
        }
        || matches!(error.downcast_ref(), Some(FeedError::Corrupt { .. }))
        || matches!(error.downcast_ref(), Some(ShardError::Senseless(_) | ShardError::Checkpoint(_)))
}

/// True for an error that says: what was asked for will not do, and something else would.
#[must_use]
pub fn is_usage(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<SettingsError>()
        || error.is::<CannotListen>()
        || match error.downcast_ref() {
            Some(IdentityError::Shards { .. } | IdentityError::Held { .. }) => true,
            // A file where a folder is due.
            Some(IdentityError::Io { source, .. }) => {
                matches!(source.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory)
            }
            _ => false,
        }
        || error.downcast_ref().is_some_and(|error| !matches!(error, FeedError::Corrupt { .. }))
}

/// An address that a node was to listen on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
struct CannotListen {
    address: SocketAddr,
    source: io::Error,
}

/// Ports that are tried behind a default that is taken.
const PORTS_TRIED: u16 = 64;
/// The port of a node that was killed is free only when the kernel has taken its ring apart: so often it is looked again,
/// 10 ms apart.
const LOOKS: u32 = 100;

/// Opens this port, or the next free one where that is allowed, and says so. **Errors:** none is free, or may be taken.
fn open_or_next(
    wanted: SocketAddr,
    moves: bool,
    open: impl Fn(SocketAddr) -> std::io::Result<TcpListener>,
) -> anyhow::Result<TcpListener> {
    let mut address = wanted;
    let mut looks = 0;
    loop {
        let taken = match open(address) {
            Ok(listener) => {
                if address != wanted {
                    tracing::warn!("{wanted} is taken: listening on {address} instead");
                }
                return Ok(listener);
            }
            Err(error) => error,
        };
        if taken.kind() == std::io::ErrorKind::AddrInUse && looks < LOOKS {
            looks += 1;
            std::thread::park_timeout(Duration::from_millis(10));
            continue;
        }
        let next = address.port().checked_add(1).filter(|next| next - wanted.port() <= PORTS_TRIED);
        match next.filter(|_| moves && taken.kind() == std::io::ErrorKind::AddrInUse) {
            Some(next) => address.set_port(next),
            None => return Err(CannotListen { address, source: taken }.into()),
        }
    }
}

/// Core 0 where it was told; core k at k ports higher, those passed over that the node has for others; or, where nobody asked
/// for a port, wherever there is room.
///
/// **Errors:** a port that was asked for is taken, or there is none of that number.
fn open_listeners(
    opened: TcpListener,
    cores: usize,
    moves: bool,
    others: [u16; 2],
) -> anyhow::Result<Vec<TcpListener>> {
    let first = opened.local_addr()?;
    let mut listeners = vec![opened];
    let mut above = (first.port()..=u16::MAX).skip(1).filter(|port| !others.contains(port));
    for core in 1..cores {
        let near = above.next().map(|port| SocketAddr::new(first.ip(), port));
        let listener = match near {
            Some(near) if !moves => open_or_next(near, false, open_listener)?,
            None if !moves => {
                let what = format!("core {core} would listen {core} ports above, and there is none");
                return Err(
                    CannotListen { address: first, source: io::Error::new(ErrorKind::AddrNotAvailable, what) }.into()
                );
            }
            near => match near.map(open_listener) {
                Some(Ok(listener)) => listener,
                _ => open_listener(SocketAddr::new(first.ip(), 0))?,
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_is_taken_moves_to_the_next_free_port_and_a_port_that_was_asked_for_does_not() {
        let taken = open_listener(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = taken.local_addr().unwrap();
        assert!(open_or_next(address, false, open_listener).is_err());
        let moved = open_or_next(address, true, open_listener).unwrap().local_addr().unwrap();
        assert!(moved.port() > address.port() && moved.port() - address.port() <= PORTS_TRIED);
    }

    /// With the port above it taken a node listened on its own port and on any other.
    #[test]
    fn every_core_listens_at_its_port_or_none_does() {
        let any = || open_listener(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let below = |taken: &TcpListener| {
            let address = taken.local_addr().unwrap();
            open_listener(SocketAddr::new(address.ip(), address.port() - 1)).ok()
        };
        // The port below may be somebody's.
        let (taken, first) = (0..100)
            .find_map(|_| {
                let taken = any();
                below(&taken).map(|first| (taken, first))
            })
            .unwrap();
        let second = taken.local_addr().unwrap().port();
        let moved = open_listeners(first.try_clone().unwrap(), 2, true, [0; 2]).unwrap();
        assert_ne!(moved[1].local_addr().unwrap().port(), second);
        let error = open_listeners(first.try_clone().unwrap(), 2, false, [0; 2]).unwrap_err();
        assert!(format!("{error:#}").contains(&format!(":{second}")) && error.chain().any(is_usage), "{error:#}");
        drop(taken);
        let both = open_listeners(first.try_clone().unwrap(), 2, false, [0; 2]).unwrap();
        assert_eq!(both[1].local_addr().unwrap().port(), second);
        // As if the node itself had the port above for HTTP.
        drop(both);
        let above = SocketAddr::from(([127, 0, 0, 1], second + 1));
        let is_free = open_listener(above).is_ok();
        match open_listeners(first, 2, false, [0, second]) {
            Ok(passed) => assert_eq!(passed[1].local_addr().unwrap().port(), second + 1),
            // Then the port above is somebody's: it is the one that was tried.
            Err(error) => assert!(!is_free && format!("{error:#}").contains(&above.to_string()), "{error:#}"),
        }
        if let Ok(last) = open_listener(SocketAddr::from(([127, 0, 0, 1], u16::MAX))) {
            let error = open_listeners(last, 2, false, [0; 2]).unwrap_err();
            assert!(format!("{error:#}").contains(":65535") && error.chain().any(is_usage), "{error:#}");
        }
    }
}
