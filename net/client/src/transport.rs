//! The bytes below the frames: TCP, or TLS over it.
//!
//! Whether the other end speaks the same of the two is told by name, either way. Deliberately absent: anything a caller
//! could see of which of the two it is.

use crate::error::Error;
use crate::options::{Options, Tls};
use myelin_tls::is_alert;
use myelin_wire::{Frame, Header, Hello, Kind, Welcome, WireError, decode, write_frame};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Sealed(Box<TlsStream<TcpStream>>),
}

/// What is read.
pub(crate) type ReadEnd<'a> = Box<dyn AsyncRead + Unpin + Send + 'a>;
/// What is written.
pub(crate) type WriteEnd<'a> = Box<dyn AsyncWrite + Unpin + Send + 'a>;

impl Transport {
    async fn connect(addr: SocketAddr, tls: Option<&Tls>) -> Result<Self, Failed> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Plain(tcp)) };
        let connector = TlsConnector::from(tls.config.clone());
        match connector.connect(tls.name_of(addr), tcp).await {
            Ok(sealed) => Ok(Self::Sealed(Box::new(sealed))),
            Err(error) => Err(failed_handshake(addr, error)),
        }
    }

    /// Both directions at once, for one task: what is written is on its way when it was flushed.
    pub(crate) fn split(&mut self) -> (ReadEnd<'_>, WriteEnd<'_>) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.split();
                (Box::new(read), Box::new(write))
            }
            Self::Sealed(sealed) => {
                let (read, write) = tokio::io::split(sealed.as_mut());
                (Box::new(read), Box::new(write))
            }
        }
    }
}

fn failed_handshake(addr: SocketAddr, error: std::io::Error) -> Failed {
    let addr = addr.to_string();
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>());
    match cause {
        Some(tokio_rustls::rustls::Error::InvalidMessage(_)) => {
            let reason = "it does not speak TLS; without a signer it is spoken to plainly".to_owned();
            Failed::Other(Error::Untrusted { addr, reason })
        }
        Some(cause) => Failed::Other(Error::Untrusted { addr, reason: cause.to_string() }),
        None => Failed::Io(error),
    }
}

/// A body longer than this is not believed, whoever sends it. **Units:** bytes.
const MAX_REPLY: u32 = 64 << 20;

/// Bytes that came and are not frames yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbox {
    /// Reads what is there. 0 = the other end is done.
    pub(crate) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.reserve(64 << 10);
        from.read_buf(&mut self.bytes).await
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        match decode(&self.bytes[self.read..], MAX_REPLY)? {
            Some((frame, taken)) => {
                self.read += taken;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }

    /// True when what came is TLS's way to say that it does not understand.
    fn is_alert(&self) -> bool {
        is_alert(&self.bytes)
    }
}

/// A connection on which the hellos were said.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) transport: Transport,
    pub(crate) inbox: Inbox,
    pub(crate) welcome: Welcome,
    /// Requests that may be under way.
    pub(crate) credit: u32,
}

/// Connects and says hello. **Errors:** `Unreachable`, `Untrusted`, `Refused`, `Protocol`.
pub(crate) async fn greet(addr: SocketAddr, options: &Options) -> Result<Greeted, Error> {
    let unreachable = |reason: String| Error::Unreachable { addr: addr.to_string(), reason };
    match tokio::time::timeout(options.connect_within, hello(addr, options)).await {
        Err(_) => Err(unreachable(format!("no answer within {:?}", options.connect_within))),
        Ok(Err(Failed::Io(error))) => Err(unreachable(error.to_string())),
        Ok(Err(Failed::Other(error))) => Err(error),
        Ok(Ok(greeted)) => Ok(greeted),
    }
}

enum Failed {
    Io(std::io::Error),
    Other(Error),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

async fn hello(addr: SocketAddr, options: &Options) -> Result<Greeted, Failed> {
    let mut transport = Transport::connect(addr, options.tls.as_ref()).await?;
    let mut inbox = Inbox::default();
    let (welcome, credit) = {
        let (mut from, mut to) = transport.split();
        let token = options.token.as_deref();
        let hello = Hello {
            client: &options.name,
            capabilities: 0,
            credential_kind: u8::from(token.is_some()),
            credential: token.unwrap_or_default(),
        };
        let (mut body, mut frame) = (Vec::new(), Vec::new());
        hello.write(&mut body);
        write_frame(&mut frame, Header::new(Kind::Hello), &body);
        to.write_all(&frame).await?;
        to.flush().await?;
        loop {
            if let Some(frame) = inbox.next().map_err(|error| Failed::Other(error.into()))? {
                break read_welcome(&frame).map_err(Failed::Other)?;
            }
            if inbox.fill(&mut from).await? == 0 {
                if inbox.is_alert() {
                    let reason = "it speaks TLS only, and who signed its certificate was not named".to_owned();
                    return Err(Failed::Other(Error::Untrusted { addr: addr.to_string(), reason }));
                }
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
            }
        }
    };
    Ok(Greeted { transport, inbox, welcome, credit })
}

fn read_welcome(frame: &Frame<'_>) -> Result<(Welcome, u32), Error> {
    match frame.kind {
        Kind::Welcome => {
            let welcome = Welcome::read(frame.body).map_err(|_| Error::short("the welcome"))?;
            if welcome.ports.is_empty() || welcome.shard_cores.is_empty() || welcome.max_body < 64 {
                return Err(Error::Protocol("the welcome names no core, no shard or no room".to_owned()));
            }
            Ok((welcome, frame.header.credit))
        }
        Kind::Refused => Err(Error::Refused(crate::Refusal::read(&frame.header, frame.body))),
        other => Err(Error::Protocol(format!("expected a welcome, found {other:?}"))),
    }
}
