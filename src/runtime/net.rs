//! Sockets of a data core: one listener, and connections as two halves that both executors speak.
//!
//! Listening sockets are opened before any core starts, so that a taken port is told at once and by name.

use super::{Executor, current};
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// The half that is read.
pub type ReadHalf = Box<dyn AsyncRead + Unpin>;
/// The half that is written.
pub type WriteHalf = Box<dyn AsyncWrite + Unpin>;

/// Opens a listening socket.
pub fn open_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = if address.is_ipv6() { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A node that was killed must be able to come back at once.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener of this data core.
pub enum Listener {
    /// glommio's.
    #[cfg(target_os = "linux")]
    Uring(glommio::net::TcpListener),
    /// tokio's.
    Portable(tokio::net::TcpListener),
}

impl Listener {
    /// Takes an open socket to this core's executor.
    pub fn adopt(listener: TcpListener) -> io::Result<Self> {
        match current() {
            #[cfg(target_os = "linux")]
            Executor::Uring => Ok(Self::Uring(adopt_uring(listener))),
            #[cfg(not(target_os = "linux"))]
            Executor::Uring => Err(io::Error::other("io_uring exists on Linux only")),
            Executor::Portable => tokio::net::TcpListener::from_std(listener).map(Self::Portable),
        }
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<(ReadHalf, WriteHalf)> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Uring(listener) => {
                let stream = listener.accept().await.map_err(io::Error::other)?;
                stream.set_nodelay(true).map_err(io::Error::other)?;
                let (read, write) = futures_lite::io::split(stream);
                Ok((Box::new(read), Box::new(write)))
            }
            Self::Portable(listener) => {
                use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (read, write) = stream.into_split();
                Ok((Box::new(read.compat()), Box::new(write.compat_write())))
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "glommio takes a listening socket only as a raw descriptor")]
fn adopt_uring(listener: TcpListener) -> glommio::net::TcpListener {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: `into_raw_fd` gives up ownership of an open, listening socket, and glommio's listener takes it.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}
