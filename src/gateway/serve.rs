//! Connections: how many, how long each may take to ask, and how long it may leave an answer lying.
//!
//! ```text
//!   accept -> room for one more? -> head within 5 s, at most 64 KiB -> handler -> response, each write taken within 30 s
//!                  \- no: closed at once, counted
//! ```
//!
//! Invariant: a peer that does nothing costs a bounded place for a bounded time. With TLS the
//! handshake has as long as a head. Deliberately absent: HTTP/2, and bounds of bodies (`body.rs`).

use super::limits;
use super::metrics::Requests;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

/// Accepts for ever.
pub async fn serve(listener: TcpListener, routes: Router, requests: Arc<Requests>, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits::HEAD_WITHIN).max_buf_size(limits::HEAD_BYTES);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the gateway could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            requests.turned_away();
            continue;
        };
        // A small answer that waits for the next one is of no use to anyone.
        drop(stream.set_nodelay(true));
        // Else the system buffers megabytes for a peer that does not read.
        drop(socket2::SockRef::from(&stream).set_send_buffer_size(limits::SEND_BYTES));
        let (http, tls, stream) = (http.clone(), tls.clone(), Patient::new(stream));
        let service = TowerToHyperService::new(routes.clone());
        drop(tokio::spawn(async move {
            // Whatever ends a connection was its peer's doing, and it is gone.
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(Ok(sealed)) = tokio::time::timeout(limits::HEAD_WITHIN, tls.accept(stream)).await {
                        drop(http.serve_connection(TokioIo::new(sealed), service).await);
                    }
                }
            }
            drop(place);
        }));
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Patient {
    stream: TcpStream,
    /// When patience ends, while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, until: None }
    }

    fn patiently<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.until = None;
            return wrote;
        }
        let until =
            self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limits::STALL_WITHIN)));
        ready!(until.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.patiently(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
