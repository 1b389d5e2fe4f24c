//! The client: one handle, one connection per core that is used, sessions that survive a lost line.
//!
//! ```text
//!   Client -> slot table -> core's driver (a task) -> socket
//! ```
//!
//! Cheap to clone; all clones share connections and sessions. Invariant: what is sent by one task to one shard arrives in
//! that order. Deliberately absent: a runtime; any tokio runtime with time and I/O will do, one thread included.

use crate::driver::{Command, Driver, Place, Waiter};
use crate::error::Error;
use crate::options::Options;
use crate::session::Fate;
use crate::transport::{Greeted, greet};
use myelin_datom::Slot;
use myelin_tls::ServerName;
use myelin_wire::Welcome;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Arc<Options>,
    welcome: Welcome,
    host: SocketAddr,
    session: u64,
    cores: Vec<OnceCell<mpsc::Sender<Command>>>,
    /// Whoever answered first, for cores that cannot be reached by themselves.
    first: mpsc::Sender<Command>,
    /// Free room for bodies that wait for their answer, in [`ROOM_UNIT`]s.
    room: Arc<Semaphore>,
}

/// **Units:** bytes.
const ROOM_UNIT: usize = 256;

impl Client {
    /// Connects to `host:port` and reads the tables; `tls://host:port` insists on TLS.
    ///
    /// **Errors:** `Unreachable`, `Untrusted`, `Refused`, `Protocol`.
    pub async fn connect(addr: &str, mut options: Options) -> Result<Self, Error> {
        let (addr, sealed) = addr.strip_prefix("tls://").map_or((addr, false), |addr| (addr, true));
        match &mut options.tls {
            Some(tls) => {
                let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).trim_matches(['[', ']']);
                tls.name = ServerName::try_from(host.to_owned()).ok();
            }
            None if sealed => {
                let reason = "tls:// needs the certificate of who signed the node's".to_owned();
                return Err(Error::Untrusted { addr: addr.to_owned(), reason });
            }
            None => {}
        }
        let unreachable = |reason: String| Error::Unreachable { addr: addr.to_owned(), reason };
        let found: Vec<_> =
            tokio::net::lookup_host(addr).await.map_err(|error| unreachable(error.to_string()))?.collect();
        let options = Arc::new(options);
        let mut last = unreachable("the name has no address".to_owned());
        for addr in found {
            match greet(addr, &options).await {
                Ok(greeted) => return Ok(Self::greeted(addr, greeted, options)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn greeted(host: SocketAddr, greeted: Greeted, options: Arc<Options>) -> Self {
        let session = random();
        let welcome = greeted.welcome.clone();
        let place = Place { addr: host, host, core: welcome.core };
        let first = Driver::spawn(place, greeted, session, Arc::clone(&options));
        let cores: Vec<_> = welcome.ports.iter().map(|_| OnceCell::new()).collect();
        if let Some(core) = cores.get(usize::from(welcome.core)) {
            // A cell that was just made is empty.
            drop(core.set(first.clone()));
        }
        let units = (options.pending_bytes / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(units));
        Self { shared: Arc::new(Shared { options, welcome, host, session, cores, first, room }) }
    }

    /// Who answers, and who owns what: as told when this client connected.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shared.welcome.shard_cores.len() as u16
    }

    /// The shard that owns markets of this name.
    #[must_use]
    pub fn shard_of_name(&self, name: &str) -> Option<u16> {
        self.shared.welcome.shard_of(Slot::of_name(name))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The driver of the connection that leads to this shard, opened now if it was not.
    pub(crate) async fn driver(&self, shard: u16) -> Result<&mpsc::Sender<Command>, Error> {
        let shared = &*self.shared;
        let core = shared.welcome.shard_cores.get(usize::from(shard)).copied();
        let core = core.ok_or_else(|| Error::Protocol(format!("there is no shard {shard}")))?;
        let (Some(cell), Some(port)) =
            (shared.cores.get(usize::from(core)), shared.welcome.ports.get(usize::from(core)))
        else {
            return Err(Error::Protocol(format!("the node has no core {core}")));
        };
        if shared.options.one_connection {
            return Ok(&shared.first);
        }
        let opened = cell.get_or_init(|| async {
            let addr = SocketAddr::new(shared.host.ip(), *port);
            match greet(addr, &shared.options).await {
                Ok(greeted) if greeted.welcome.node == shared.welcome.node => Driver::spawn(
                    Place { addr, host: shared.host, core },
                    greeted,
                    shared.session,
                    Arc::clone(&shared.options),
                ),
                // Any core passes frames on to the one they are for: a forwarded port is enough.
                _ => shared.first.clone(),
            }
        });
        Ok(opened.await)
    }

    /// Tells the driver of `shard`.
    pub(crate) async fn command(&self, shard: u16, command: Command) -> Result<(), Error> {
        self.driver(shard).await?.send(command).await.map_err(|_| Error::Closed)
    }

    /// Ends a subscription on every connection, without waiting.
    pub(crate) fn forget_subscription(&self, key: u64) {
        for driver in self.shared.cores.iter().filter_map(OnceCell::get).chain([&self.shared.first]) {
            // A driver whose queue is full looks for listeners that are gone when it has emptied it.
            drop(driver.try_send(Command::Unsubscribe { key }));
        }
    }

    /// Waits until a body of this length may be under way.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let most = self.shared.options.pending_bytes / ROOM_UNIT;
        let units = bytes.div_ceil(ROOM_UNIT).clamp(1, most.max(1)) as u32;
        Arc::clone(&self.shared.room).acquire_many_owned(units).await.map_err(|_| Error::Closed)
    }

    /// A pair: where the driver answers, and where to wait for it.
    pub(crate) fn waiter(room: Option<OwnedSemaphorePermit>) -> (Waiter, oneshot::Receiver<Fate>) {
        let (to, from) = oneshot::channel();
        (Waiter { to, _room: room }, from)
    }
}

/// A random number that is not zero.
pub(crate) fn random() -> u64 {
    // std seeds its maps' hashers from the operating system.
    RandomState::new().build_hasher().finish().max(1)
}
