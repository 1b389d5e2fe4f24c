//! One connection's TLS state: sealed bytes in, opened bytes out, and back.
//!
//! Nothing is kept beyond what rustls keeps: at most one record (16 KiB) on the way in, and what [`Secure::seal`] was given
//! until [`Secure::put_sealed`] takes it, which callers bound by sealing a piece at a time.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;

/// What stands opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// So many bytes.
    Bytes(usize),
    /// Nothing before more sealed bytes come.
    Nothing,
    /// The other end said that it sends no more.
    End,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Secure {
    tls: Connection,
}

impl Secure {
    /// The end that was connected to.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Self, Error> {
        ServerConnection::new(Arc::clone(config)).map(|tls| Self { tls: tls.into() })
    }

    /// The end that connects to a node of this name.
    pub fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        ClientConnection::new(Arc::clone(config), name).map(|tls| Self { tls: tls.into() })
    }

    /// Takes sealed bytes, and says how many: not all when opened ones wait to be taken first.
    ///
    /// **Errors:** the peer does not speak TLS, is not believed, or bytes were changed. What [`Secure::put_sealed`] gives
    /// then still says so to the peer.
    pub fn take_sealed(&mut self, mut sealed: &[u8]) -> Result<usize, Error> {
        let len = sealed.len();
        // Reading from memory fails only when what was opened is not taken.
        if matches!(self.tls.read_tls(&mut sealed), Ok(1..)) {
            self.tls.process_new_packets()?;
        }
        Ok(len - sealed.len())
    }

    /// Moves opened bytes into `into`, which has room.
    pub fn take_opened(&mut self, into: &mut [u8]) -> Opened {
        match self.tls.reader().read(into) {
            Ok(0) => Opened::End,
            Ok(len) => Opened::Bytes(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Opened::Nothing,
            // The line was cut without a word; whoever reads the socket sees it.
            Err(_) => Opened::End,
        }
    }

    /// Seals as many of these bytes as there is room for; [`Secure::put_sealed`] makes room.
    pub fn seal(&mut self, opened: &[u8]) -> usize {
        self.tls.writer().write(opened).unwrap_or(0)
    }

    /// True when sealed bytes wait to be sent.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.tls.wants_write()
    }

    /// Appends the sealed bytes that wait.
    pub fn put_sealed(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }

    /// True until both ends know each other.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Says that no more will come.
    pub fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
    }
}

/// True for the first bytes of what a TLS end answers to bytes that are not TLS.
#[must_use]
pub fn is_alert(bytes: &[u8]) -> bool {
    bytes.starts_with(&[21, 3])
}
