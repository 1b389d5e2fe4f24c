//! One request at a time: what happens before and after a run. Blocking, and patient with `Busy`.
//!
//! Deliberately absent: pipelining (that is `drive`), following a shard to another node.

use crate::clock;
use crate::line::{Door, Key, Line};
use anyhow::{Context, Result, bail, ensure};
use myelin_datom::{EntityId, Tick};
use myelin_wire::{AckBody, Attribute, Code, Header, Hello, Kind, MarketFlags, MarketSpec, Welcome, write_frame};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A read that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a request is repeated after `Busy`.
const BUSY_MAX: u32 = 1_000;
/// Numbers of reads; writes count from 1.
const READS_FROM: u64 = 1 << 62;
/// **Units:** bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// There is no node where one was expected.
#[derive(Debug)]
pub(crate) struct CannotConnect {
    server: String,
    cause: std::io::Error,
}

impl std::fmt::Display for CannotConnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot connect to {}: {}", self.server, self.cause)
    }
}

impl std::error::Error for CannotConnect {}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub header: Header,
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Reply {
    fn refused(&self) -> Option<Code> {
        if self.kind == Kind::Refused { Code::from_number(self.header.code) } else { None }
    }

    /// Fails when it is a refusal, with the node's sentence.
    fn accepted(self, what: &str) -> Result<Self> {
        if self.kind == Kind::Refused {
            bail!("{what}: refused with code {}: {}", self.header.code, String::from_utf8_lossy(&self.body));
        }
        Ok(self)
    }
}

/// A connection that said hello.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Line,
    key: Key,
    address: SocketAddr,
    inbox: Vec<u8>,
    spinning: bool,
    /// What the node said first.
    pub welcome: Welcome,
    /// Requests the node lets a connection have under way.
    pub credit: u32,
    session: u64,
    writes: hashbrown::HashMap<u16, u64>,
    reads: u64,
}

impl Client {
    /// Connects and says hello.
    pub(crate) fn connect(server: &str, door: &Door) -> Result<Self> {
        let key = Key::read(door, server)?;
        let cannot = |cause| CannotConnect { server: server.to_owned(), cause };
        let mut addresses = server.to_socket_addrs().map_err(cannot)?;
        let address = addresses.next().with_context(|| format!("{server} has no address"))?;
        Self::connect_to(address, key)
    }

    fn connect_to(address: SocketAddr, key: Key) -> Result<Self> {
        let cannot = |cause| CannotConnect { server: address.to_string(), cause };
        let stream = TcpStream::connect(address).map_err(cannot)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self {
            stream: Line::open(stream, address, &key)?,
            key,
            address,
            inbox: Vec::new(),
            spinning: false,
            welcome: Welcome::default(),
            credit: 0,
            session: clock::random() | 1,
            writes: hashbrown::HashMap::new(),
            reads: READS_FROM,
        };
        let mut body = Vec::new();
        let (credential_kind, token) = (u8::from(client.key.token.is_some()), client.key.token.clone());
        let credential = token.as_deref().unwrap_or_default();
        Hello { client: "myelin-load", capabilities: 0, credential_kind, credential }.write(&mut body);
        client.send(Header::new(Kind::Hello), &body)?;
        let reply = client.receive()?.accepted("hello")?;
        ensure!(reply.kind == Kind::Welcome, "expected a welcome, found {:?}", reply.kind);
        client.welcome = Welcome::read(&reply.body).context("the welcome cannot be read")?;
        client.credit = reply.header.credit;
        Ok(client)
    }

    /// Another connection, to the core that has this shard.
    pub(crate) fn connect_to_shard(&self, shard: u16) -> Result<Self> {
        let core = self.welcome.shard_cores.get(usize::from(shard));
        let port = core.and_then(|core| self.welcome.ports.get(usize::from(*core))).copied().filter(|port| *port != 0);
        let mut address = self.address;
        address.set_port(port.unwrap_or(address.port()));
        Self::connect_to(address, self.key.clone())
    }

    /// The socket, and what was read from it and not yet looked at.
    pub(crate) fn into_parts(self) -> (Line, Vec<u8>) {
        (self.stream, self.inbox)
    }

    fn send(&mut self, header: Header, body: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(myelin_wire::framed_len(body.len()));
        write_frame(&mut bytes, header, body);
        self.stream.write_all(&bytes).and_then(|()| self.stream.flush()).context("the node closed the connection")
    }

    fn receive(&mut self) -> Result<Reply> {
        loop {
            if let Some((frame, taken)) = myelin_wire::decode(&self.inbox, u32::MAX)? {
                let reply = Reply { header: frame.header, kind: frame.kind, body: frame.body.to_vec() };
                self.inbox.drain(..taken);
                return Ok(reply);
            }
            let had = self.inbox.len();
            self.inbox.resize(had + READ_BYTES, 0);
            let read = self.stream.read(&mut self.inbox[had..]);
            self.inbox.truncate(had + *read.as_ref().unwrap_or(&0));
            match read {
                Err(error) if self.spinning && error.kind() == std::io::ErrorKind::WouldBlock => {}
                Ok(0) => bail!("the node closed the connection"),
                other => drop(other.context("no answer")?),
            }
        }
    }

    /// From now on, answers are awaited by spinning.
    pub(crate) fn spin(&mut self) -> Result<()> {
        self.spinning = true;
        Ok(self.stream.socket().set_nonblocking(true)?)
    }

    fn answer_to(&mut self, request: u64) -> Result<Reply> {
        loop {
            let reply = self.receive()?;
            if reply.header.request == request && reply.kind != Kind::Firings {
                return Ok(reply);
            }
            // Anything else is about a request that was given up; a refusal of the bytes themselves is not.
            if reply.kind == Kind::Refused && reply.header.request == 0 {
                reply.accepted("the connection")?;
            }
        }
    }

    /// Asks something that changes nothing.
    pub(crate) fn read(&mut self, header: Header, body: &[u8]) -> Result<Reply> {
        for _ in 0..BUSY_MAX {
            self.reads += 1;
            self.send(Header { session: self.session, request: self.reads, ..header }, body)?;
            let reply = self.answer_to(self.reads)?;
            if !reply.refused().is_some_and(Code::passes) {
                return reply.accepted("read");
            }
            clock::pause(busy_wait_ns(&reply.header));
        }
        bail!("the node stays busy")
    }

    /// Writes, once: after `Busy` the same request goes out again.
    pub(crate) fn write(&mut self, header: Header, body: &[u8]) -> Result<Reply> {
        let next = self.writes.entry(header.shard).or_insert(0);
        *next += 1;
        let header = Header { session: self.session, request: *next, ..header };
        for _ in 0..BUSY_MAX {
            self.send(header, body)?;
            let reply = self.answer_to(header.request)?;
            if !reply.refused().is_some_and(Code::passes) {
                return reply.accepted("write");
            }
            clock::pause(busy_wait_ns(&reply.header));
            self.send(resume(self.session, header.shard, header.request), &[])?;
        }
        bail!("the node stays busy")
    }

    /// Creates markets that do not exist, all of one shard; gives the ids of all.
    pub(crate) fn markets(&mut self, shard: u16, names: &[&str]) -> Result<Vec<EntityId>> {
        let mut ids = Vec::with_capacity(names.len());
        for names in names.chunks(1_000) {
            let mut body = Vec::new();
            let specs = names.iter().map(|name| MarketSpec { flags: MarketFlags(0), name });
            myelin_wire::markets_body(&mut body, specs);
            let header = Header { shard, count: names.len() as u32, ..Header::new(Kind::Markets) };
            let reply = self.write(header, &body).context("markets")?;
            ensure!(reply.body.len() == names.len() * 8, "the node did not answer one id for each market");
            let id = |bytes: &[u8; 8]| EntityId::from_bits(u64::from_le_bytes(*bytes));
            ids.extend(reply.body.as_chunks::<8>().0.iter().map(id));
        }
        Ok(ids)
    }

    /// Ticks stored for a market, not before `min_tx`.
    pub(crate) fn count(&mut self, shard: u16, market: EntityId, min_tx: u64) -> Result<u64> {
        let mut body = (Attribute::Tick as u64).to_le_bytes().to_vec();
        body.extend_from_slice(&market.bits().to_le_bytes());
        let header = Header { shard, aux: min_tx, ..Header::new(Kind::Count) };
        Ok(self.read(header, &body).context("count")?.header.aux)
    }

    /// Stores one tick.
    pub(crate) fn tick(&mut self, shard: u16, tick: &Tick) -> Result<AckBody> {
        let header = Header { shard, count: 1, ..Header::new(Kind::Ticks) };
        let reply = self.write(header, bytemuck::bytes_of(tick)).context("tick")?;
        let body = reply.body.get(..size_of::<AckBody>()).context("the ack is short")?;
        ensure!(reply.kind == Kind::Ack && reply.header.count == 1, "the tick was not accepted as new");
        Ok(bytemuck::pod_read_unaligned(body))
    }

    /// A round trip that does nothing.
    pub(crate) fn ping(&mut self) -> Result<()> {
        let reply = self.read(Header::new(Kind::Ping), &[])?;
        ensure!(reply.kind == Kind::Pong, "expected a pong, found {:?}", reply.kind);
        Ok(())
    }

    /// Firings of every reflex of this shard come to this connection from now on. Gives the subscription's session.
    pub(crate) fn subscribe(&mut self, shard: u16, credit: u32) -> Result<u64> {
        let header = Header { shard, count: credit, ..Header::new(Kind::Subscribe) };
        self.read(header, &[0; 32]).context("subscribe")?;
        Ok(self.session)
    }
}

/// How long a `Busy` asks to wait. Behind the first one the number means something else, so it is bounded.
pub(crate) fn busy_wait_ns(header: &Header) -> u64 {
    header.aux.clamp(100, 1_000_000) * 1_000
}

/// Says with which request a session goes on after `Busy`.
pub(crate) fn resume(session: u64, shard: u16, next: u64) -> Header {
    Header { session, shard, aux: next, ..Header::new(Kind::Resume) }
}
