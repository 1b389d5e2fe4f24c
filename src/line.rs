//! A connection's bytes, plain or sealed: what stands between a socket and its frames.
//!
//! ```text
//!   socket --> Source::fill --> frames            frames --> Sink::say --> socket
//!                    \--- Secure (net/tls), shared ---/
//!                  what the handshake owes: the source rings, the sink sends
//! ```
//!
//! A handshake costs the core a signature, 86 µs in all with a key on P-256 and 564 µs with RSA-2048 (`ring`, the machine of
//! `bench/README.md`). Who connects all at once is therefore taken one after the other ([`Handshakes`]), and at most half of
//! the core goes into it.
//!
//! Only the sink writes to the socket, so that one task at a time waits for it. Invariants: a plain connection costs
//! nothing here; a sealed one keeps a record's worth of bytes per direction, and no buffer is made for a frame. Deliberately
//! absent: deadlines (`shard/driver.rs` has them, the handshake included), which executor runs it.

use crate::runtime::clock;
use crate::runtime::net::{ReadHalf, WriteHalf};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use myelin_tls::{Opened, Secure, ServerConfig};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Sealed bytes that are read at once: a record and its frame. **Units:** bytes.
const SEALED_BYTES: usize = 17 << 10;
/// Frames are sealed in pieces of this, so that they are in memory once. **Units:** bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The handshakes of a core, in turn: each has a moment of its own, and between two there is as much time for others as
/// one takes. What they take is measured.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// When the next one may begin. **Units:** microseconds.
    next_us: Cell<u64>,
    /// What the costliest of late took. **Units:** microseconds.
    cost_us: Cell<u64>,
}

impl Handshakes {
    /// How long who comes now has to wait for its moment, which is its own from here on. **Units:** microseconds.
    fn reserve(&self, now_us: u64) -> u64 {
        let at = self.next_us.get().max(now_us);
        self.next_us.set(at + 2 * self.cost_us.get());
        at - now_us
    }

    /// Notes what one took.
    fn took(&self, us: u64) {
        let before = self.cost_us.get();
        self.cost_us.set(us.max(before - before / 8));
    }
}

/// The state both halves share.
struct Seal {
    secure: Secure,
    /// Whoever writes, while there is nothing to write.
    writer: Option<Waker>,
}

/// Where bytes come from.
pub struct Source {
    read: ReadHalf,
    sealed: Option<Sealed>,
}

struct Sealed {
    seal: Rc<RefCell<Seal>>,
    bytes: Box<[u8]>,
    /// Those of them that were not opened yet.
    from: usize,
    end: usize,
    /// Until it has begun.
    handshake: Option<Rc<Handshakes>>,
}

/// Where bytes go.
pub struct Sink {
    write: WriteHalf,
    seal: Option<Rc<RefCell<Seal>>>,
    sealed: Vec<u8>,
}

/// The two ends of an accepted connection. **Errors:** TLS cannot be begun.
pub fn open(
    read: ReadHalf,
    write: WriteHalf,
    tls: Option<&Arc<ServerConfig>>,
    handshakes: &Rc<Handshakes>,
) -> Result<(Source, Sink), myelin_tls::Error> {
    let seal = match tls {
        Some(tls) => Some(Rc::new(RefCell::new(Seal { secure: Secure::server(tls)?, writer: None }))),
        None => None,
    };
    let sealed = seal.clone().map(|seal| {
        let handshake = Some(Rc::clone(handshakes));
        Sealed { seal, bytes: vec![0; SEALED_BYTES].into(), from: 0, end: 0, handshake }
    });
    Ok((Source { read, sealed }, Sink { write, seal, sealed: Vec::new() }))
}

impl Source {
    /// Reads what is there into `space`, which is not empty; 0 = the peer is done.
    pub async fn fill(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else { return self.read.read(space).await };
        loop {
            if let Some(len) = sealed.open(space)? {
                return Ok(len);
            }
            (sealed.from, sealed.end) = (0, self.read.read(&mut sealed.bytes).await?);
            if sealed.end == 0 {
                return Ok(0);
            }
            if let Some(handshakes) = &sealed.handshake {
                let wait_us = handshakes.reserve(clock::monotonic_ns() / 1000);
                if wait_us > 0 {
                    crate::runtime::sleep(Duration::from_micros(wait_us)).await;
                }
            }
        }
    }
}

impl Sealed {
    /// Opens what is at hand; `None` when more must come first.
    fn open(&mut self, space: &mut [u8]) -> io::Result<Option<usize>> {
        let mut seal = self.seal.borrow_mut();
        loop {
            match seal.secure.take_opened(space) {
                Opened::Bytes(len) => return Ok(Some(len)),
                Opened::End => return Ok(Some(0)),
                Opened::Nothing if self.from == self.end => return Ok(None),
                Opened::Nothing => {}
            }
            let began_ns = self.handshake.is_some().then(clock::monotonic_ns);
            let taken = seal.secure.take_sealed(&self.bytes[self.from..self.end]);
            // Its answer is signed when the first bytes that make a greeting were taken: the rest costs little.
            if let (Some(began_ns), true) = (began_ns, seal.secure.owes()) {
                let took_us = (clock::monotonic_ns() - began_ns) / 1000;
                self.handshake.take().iter().for_each(|handshakes| handshakes.took(took_us));
            }
            if seal.secure.owes()
                && let Some(writer) = seal.writer.take()
            {
                writer.wake();
            }
            match taken {
                Ok(taken @ 1..) => self.from += taken,
                Ok(0) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

impl Sink {
    /// True when bytes of TLS's own wait; else leaves the waker for when some do.
    pub fn owes(&self, waker: &Waker) -> bool {
        let Some(seal) = &self.seal else { return false };
        let mut seal = seal.borrow_mut();
        if !seal.secure.owes() {
            seal.writer = Some(waker.clone());
            return false;
        }
        true
    }

    /// Sends these bytes, and what TLS owes.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(seal) = &self.seal else {
            self.write.write_all(bytes).await?;
            return self.write.flush().await;
        };
        let mut at = 0;
        loop {
            {
                let mut seal = seal.borrow_mut();
                at += seal.secure.seal(&bytes[at..bytes.len().min(at + PIECE_BYTES)]);
                seal.secure.put_sealed(&mut self.sealed)?;
            }
            if self.sealed.is_empty() {
                if at < bytes.len() {
                    // Frames before the handshake's end: nobody has asked for any.
                    return Err(io::ErrorKind::InvalidData.into());
                }
                return self.write.flush().await;
            }
            self.write.write_all(&self.sealed).await?;
            self.sealed.clear();
        }
    }

    /// Says goodbye and closes.
    pub async fn close(&mut self) -> io::Result<()> {
        if let Some(seal) = &self.seal {
            seal.borrow_mut().secure.say_goodbye();
            self.say(&[]).await?;
        }
        self.write.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_that_come_at_once_have_their_moments_and_half_of_the_time() {
        let handshakes = Handshakes::default();
        assert_eq!(handshakes.reserve(1_000), 0);
        handshakes.took(800);
        let waits: Vec<u64> = (0..5).map(|_| handshakes.reserve(2_000)).collect();
        assert_eq!(waits, [0, 1_600, 3_200, 4_800, 6_400]);
        // A calm core lets the next one in at once, whatever they cost before.
        assert_eq!(handshakes.reserve(20_000), 0);
        handshakes.took(100);
        assert_eq!(handshakes.cost_us.get(), 700, "what was costly is forgotten slowly");
    }
}
