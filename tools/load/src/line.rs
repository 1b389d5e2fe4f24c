//! A connection's bytes, plain or sealed, for sockets that block and for sockets that do not.
//!
//! Sealed bytes that the socket does not take at once go out before anything else does: [`Line::owes`] says that some wait.
//! Deliberately absent: frames.

use anyhow::{Context, Result};
use myelin_tls::{ClientConfig, Opened, Secure, ServerName};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// Sealed bytes that are read at once: some records. **Units:** bytes.
const SEALED_BYTES: usize = 64 << 10;

/// How a guarded node is entered.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Door {
    /// The certificate of who signed the node's: speaks TLS.
    #[arg(long, value_name = "FILE", env = "MYELIN_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// A file with the token the node wants.
    #[arg(long, value_name = "FILE", env = "MYELIN_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// The same, read.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    tls: Option<(Arc<ClientConfig>, Option<ServerName<'static>>)>,
    pub token: Option<String>,
}

impl Key {
    /// For a node at `HOST:PORT`.
    pub(crate) fn read(door: &Door, server: &str) -> Result<Self> {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).ok();
        let tls = match &door.tls_ca {
            Some(path) => Some((Arc::new(myelin_tls::trusting(path)?), name)),
            None => None,
        };
        let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let token = door.token_file.as_ref().map(read).transpose()?;
        Ok(Self { tls, token: token.map(|token| token.trim().to_owned()) })
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    tcp: TcpStream,
    sealed: Option<Box<Sealed>>,
}

#[derive(Debug)]
struct Sealed {
    secure: Secure,
    /// What was read and is not opened yet: `from..end`.
    bytes: Vec<u8>,
    from: usize,
    end: usize,
    /// What is sealed and not sent yet.
    out: Vec<u8>,
}

impl Line {
    /// Over a socket that blocks; the handshake is done when it returns.
    pub(crate) fn open(tcp: TcpStream, address: SocketAddr, key: &Key) -> Result<Self> {
        let Some((config, name)) = &key.tls else { return Ok(Self { tcp, sealed: None }) };
        let name = name.clone().unwrap_or_else(|| ServerName::from(address.ip()));
        let secure = Secure::client(config, name).context("TLS cannot be begun")?;
        let sealed = Sealed { secure, bytes: vec![0; SEALED_BYTES], from: 0, end: 0, out: Vec::new() };
        let mut line = Self { tcp, sealed: Some(Box::new(sealed)) };
        while line.sealed.as_ref().is_some_and(|sealed| sealed.secure.is_handshaking()) {
            line.flush()?;
            anyhow::ensure!(line.fill()? > 0, "the node closed the connection within the handshake");
        }
        line.flush()?;
        Ok(line)
    }

    /// The socket, to wait for.
    pub(crate) const fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// True when sealed bytes wait for the socket.
    pub(crate) fn owes(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| !sealed.out.is_empty())
    }

    /// Reads sealed bytes and takes in what is at hand; says how many were read.
    fn fill(&mut self) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else { return Ok(0) };
        (sealed.from, sealed.end) = (0, self.tcp.read(&mut sealed.bytes)?);
        sealed.take_in()?;
        Ok(sealed.end)
    }
}

impl Sealed {
    fn take_in(&mut self) -> io::Result<()> {
        if self.from < self.end {
            let taken = self.secure.take_sealed(&self.bytes[self.from..self.end]);
            self.from += taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            self.secure.put_sealed(&mut self.out)?;
        }
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.sealed.is_none() {
            return self.tcp.read(into);
        }
        if self.owes() {
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        loop {
            let Some(sealed) = &mut self.sealed else { return Ok(0) };
            match sealed.secure.take_opened(into) {
                Opened::Bytes(len) => return Ok(len),
                Opened::End => return Ok(0),
                Opened::Nothing if sealed.from < sealed.end => sealed.take_in()?,
                Opened::Nothing if self.fill()? == 0 => return Ok(0),
                Opened::Nothing => {}
            }
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.sealed.is_none() {
            return self.tcp.write(bytes);
        }
        // Nothing is sealed before what was sealed is gone, so that little waits here.
        self.flush()?;
        let Some(sealed) = &mut self.sealed else { return Ok(0) };
        let taken = sealed.secure.seal(bytes);
        sealed.secure.put_sealed(&mut sealed.out)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(sealed) = &mut self.sealed else { return Ok(()) };
        sealed.secure.put_sealed(&mut sealed.out)?;
        let mut sent = 0;
        let done = loop {
            match sealed.out.get(sent..) {
                None | Some([]) => break Ok(()),
                Some(rest) => match self.tcp.write(rest) {
                    Ok(0) => break Err(ErrorKind::WriteZero.into()),
                    Ok(len) => sent += len,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                },
            }
        };
        sealed.out.drain(..sent);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Sends back what comes, until the peer is done.
    fn echo(listener: &TcpListener, config: Arc<myelin_tls::ServerConfig>) {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut secure = Secure::server(&config).unwrap();
        let (mut sealed, mut opened, mut out) = (vec![0; 5000], vec![0; 3000], Vec::new());
        while let Ok(len @ 1..) = tcp.read(&mut sealed) {
            let mut at = 0;
            while at < len {
                at += secure.take_sealed(&sealed[at..len]).unwrap();
                while let Opened::Bytes(len) = secure.take_opened(&mut opened) {
                    let mut back = 0;
                    while back < len {
                        back += secure.seal(&opened[back..len]);
                        secure.put_sealed(&mut out).unwrap();
                    }
                }
                secure.put_sealed(&mut out).unwrap();
            }
            tcp.write_all(&out).unwrap();
            out.clear();
        }
    }

    #[test]
    fn what_is_sent_sealed_without_blocking_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["own.crt", "own.key"].map(|name| dir.path().join(name));
        let pair = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&pair).unwrap();
        std::fs::write(&certificate, own.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let config = Arc::new(myelin_tls::Own::read(&certificate, &key).unwrap().server().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&listener, config));
            let door = Door { tls_ca: Some(certificate.clone()), token_file: None };
            let key = Key::read(&door, &address.to_string()).unwrap();
            let mut line = Line::open(TcpStream::connect(address).unwrap(), address, &key).unwrap();
            line.socket().set_nonblocking(true).unwrap();
            let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
            let (mut at, mut got, mut piece) = (0, Vec::new(), vec![0; 10_000]);
            let waits = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
            while got.len() < sent.len() {
                match line.write(&sent[at..sent.len().min(at + 100_000)]) {
                    Ok(len) => at += len,
                    Err(error) => assert!(waits(&error), "{error}"),
                }
                match line.read(&mut piece) {
                    Ok(len) => got.extend_from_slice(&piece[..len]),
                    Err(error) => assert!(waits(&error), "{error}"),
                }
            }
            assert!(got == sent && !line.owes());
        });
    }
}
