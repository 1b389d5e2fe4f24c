//! A connection's bytes, plain or sealed: what stands between a socket and its frames.
//!
//! ```text
//!   socket --> Source::fill --> frames            frames --> Sink::say --> socket
//!                    \--- Secure (net/tls), shared ---/
//!                  what the handshake owes: the source rings, the sink sends
//! ```
//!
//! Only the sink writes to the socket, so that one task at a time waits for it. Invariants: a plain connection costs
//! nothing here; a sealed one keeps a record's worth of bytes per direction, and no buffer is made for a frame. Deliberately
//! absent: deadlines (`shard/driver.rs` has them, the handshake included), which executor runs it.

use crate::runtime::net::{ReadHalf, WriteHalf};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use myelin_tls::{Opened, Secure, ServerConfig};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

/// Sealed bytes that are read at once: a record and its frame. **Units:** bytes.
const SEALED_BYTES: usize = 17 << 10;
/// Frames are sealed in pieces of this, so that they are in memory once. **Units:** bytes.
const PIECE_BYTES: usize = 64 << 10;

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
) -> Result<(Source, Sink), myelin_tls::Error> {
    let seal = match tls {
        Some(tls) => Some(Rc::new(RefCell::new(Seal { secure: Secure::server(tls)?, writer: None }))),
        None => None,
    };
    let sealed = seal.clone().map(|seal| Sealed { seal, bytes: vec![0; SEALED_BYTES].into(), from: 0, end: 0 });
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
            let taken = seal.secure.take_sealed(&self.bytes[self.from..self.end]);
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
