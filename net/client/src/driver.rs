//! The task behind one connection: performs what a [`Link`] wants, and connects again when the line is cut.
//!
//! ```text
//!   commands (bounded) -> Link -> bytes -> socket -> bytes -> Link -> answers (oneshot), firings (bounded by credit)
//! ```
//!
//! It ends when nobody can command it any more and nothing waits. Deliberately absent: decisions; they are the link's.

use crate::error::Error;
use crate::link::{Event, Link, LinkLimits, Push, Read, Subscribe};
use crate::options::Options;
use crate::session::{Fate, Write};
use crate::transport::{Greeted, WriteEnd, greet};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

/// Where an answer goes; the room its body takes is free when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) to: oneshot::Sender<Fate>,
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

/// What a driver can be told.
#[derive(Debug)]
pub(crate) enum Command {
    Write { shard: u16, write: Write<Waiter> },
    Read(Read<Waiter>),
    Subscribe { what: Subscribe, to: mpsc::UnboundedSender<Push> },
    Grant { key: u64, shard: u16, count: u32 },
    Unsubscribe { key: u64 },
}

/// Commands that may wait for a driver.
const COMMANDS: usize = 1024;
/// Between attempts to connect: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Where a driver connects to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The core's own address.
    pub(crate) addr: SocketAddr,
    /// The address the client was given, which knows where the core went.
    pub(crate) host: SocketAddr,
    /// Which core.
    pub(crate) core: u16,
}

pub(crate) struct Driver {
    place: Place,
    node: u64,
    options: Arc<Options>,
    link: Link<Waiter>,
    commands: mpsc::Receiver<Command>,
    listeners: HashMap<u64, mpsc::UnboundedSender<Push>>,
    start: Instant,
}

impl Driver {
    /// Starts the task for a connection that stands.
    pub(crate) fn spawn(
        place: Place,
        greeted: Greeted,
        session_id: u64,
        options: Arc<Options>,
    ) -> mpsc::Sender<Command> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let limits = LinkLimits { busy_for: options.busy_for, silence: options.silence };
        let driver = Self {
            place,
            node: greeted.welcome.node,
            options,
            link: Link::new(session_id, limits),
            commands,
            listeners: HashMap::new(),
            start: Instant::now(),
        };
        tokio::spawn(driver.run(greeted));
        sender
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn run(mut self, first: Greeted) {
        let mut connection = Some(first);
        loop {
            let Some(greeted) = connection.take() else {
                match self.reconnect().await {
                    Some(greeted) => connection = Some(greeted),
                    None => return,
                }
                continue;
            };
            self.link.connected(self.now(), greeted.credit);
            let closed = self.converse(greeted).await;
            self.link.disconnected();
            self.tell();
            if closed {
                return;
            }
        }
    }

    /// Speaks until the line is cut, or until nobody wants anything any more (true).
    async fn converse(&mut self, greeted: Greeted) -> bool {
        let Greeted { mut transport, mut inbox, .. } = greeted;
        let (mut from, mut to) = transport.split();
        let (mut out, mut written) = (Vec::new(), 0);
        // What was written may wait in TLS; a plain socket has nothing to flush.
        let mut unflushed = false;
        let mut open = true;
        loop {
            if written == out.len() {
                out.clear();
                written = 0;
                self.link.poll_transmit(self.now(), &mut out);
            }
            self.tell();
            if !open && self.link.is_idle() && out.is_empty() && !unflushed {
                return true;
            }
            let deadline = self.link.next_deadline().map(|at| self.start + at);
            tokio::select! {
                read = inbox.fill(&mut from) => {
                    if !matches!(read, Ok(1..)) || !self.take_frames(&mut inbox) {
                        return false;
                    }
                }
                wrote = send(&mut to, &out[written..]), if written < out.len() || unflushed => match wrote {
                    Ok(_) if written == out.len() => unflushed = false,
                    Ok(len @ 1..) => (written, unflushed) = (written + len, true),
                    _ => return false,
                },
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.obey_all(command),
                    None => open = false,
                },
                () = at(deadline), if deadline.is_some() => {
                    if !self.link.handle_timeout(self.now()) {
                        return false;
                    }
                }
            }
        }
    }

    fn take_frames(&mut self, inbox: &mut crate::transport::Inbox) -> bool {
        let now = self.now();
        loop {
            match inbox.next() {
                Ok(Some(frame)) => {
                    if self.link.handle_frame(now, frame.header, frame.kind, frame.body).is_err() {
                        return false;
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn obey_all(&mut self, first: Command) {
        self.obey(first);
        let mut obeyed = 1;
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
            obeyed += 1;
        }
        // The queue was full, or may have been: who could not say then that nobody listens any more is found out now.
        if obeyed >= COMMANDS {
            self.forget_the_gone();
        }
    }

    fn forget_the_gone(&mut self) {
        for (key, _) in self.listeners.extract_if(|_, to| to.is_closed()) {
            self.link.unsubscribe(key);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Write { shard, write } => self.link.write(shard, write),
            Command::Read(read) => self.link.read(read),
            Command::Subscribe { what, to } => {
                self.listeners.insert(what.key, to);
                self.link.subscribe(what);
            }
            Command::Grant { key, shard, count } => self.link.grant(key, shard, count),
            Command::Unsubscribe { key } => {
                self.listeners.remove(&key);
                self.link.unsubscribe(key);
            }
        }
    }

    /// Hands over what is ready.
    fn tell(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                // Whoever asked may have stopped waiting.
                Event::Settled(waiter, fate) => drop(waiter.to.send(fate)),
                Event::Pushed(push) => {
                    let key = push.key;
                    if self.listeners.get(&key).is_some_and(|to| to.send(push).is_err()) {
                        self.listeners.remove(&key);
                        self.link.unsubscribe(key);
                    }
                }
            }
        }
    }

    /// Connects again, for as long as the options say; then what waits is settled, and the next command starts anew.
    async fn reconnect(&mut self) -> Option<Greeted> {
        let mut since = self.now();
        let mut pause = PAUSES.0;
        loop {
            if self.link.is_idle() {
                let command = self.commands.recv().await?;
                self.obey_all(command);
                (since, pause) = (self.now(), PAUSES.0);
            }
            let why = match greet(self.place.addr, &self.options).await {
                Ok(greeted) if greeted.welcome.node == self.node => return Some(greeted),
                Ok(greeted) => {
                    // Another data directory: sessions mean nothing there.
                    self.node = greeted.welcome.node;
                    self.give_up("another node answers at this address");
                    return Some(greeted);
                }
                Err(error @ (Error::Refused(_) | Error::Protocol(_) | Error::Untrusted { .. })) => {
                    self.give_up(&error.to_string());
                    continue;
                }
                Err(error) => error.to_string(),
            };
            if self.now().saturating_sub(since) > self.options.reconnect_for {
                self.give_up(&why);
                continue;
            }
            self.look_for_core().await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// A node that was started anew may have its cores elsewhere, or fewer of them: any core passes frames on.
    async fn look_for_core(&mut self) {
        let Place { addr, host, core } = self.place;
        if addr != host
            && let Ok(greeted) = greet(host, &self.options).await
            && greeted.welcome.node == self.node
        {
            let port = greeted.welcome.ports.get(usize::from(core)).copied().unwrap_or(host.port());
            self.place.addr.set_port(port);
        }
    }

    fn give_up(&mut self, why: &str) {
        self.link.give_up(why);
        self.tell();
    }
}

/// Writes what it can of these bytes; where there are none, sees to it that all are on their way.
async fn send(to: &mut WriteEnd<'_>, bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { to.flush().await.map(|()| 0) } else { to.write(bytes).await }
}

async fn at(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}
