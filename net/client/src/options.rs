//! Every limit of a client, with its unit and its reason.

use myelin_tls::{ClientConfig, ServerName, TlsError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a client may use and how long it waits. Defaults fit one process that writes and reads.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who is speaking, for the node's logs.
    pub name: String,
    /// A token, if the node wants one.
    pub token: Option<String>,
    /// Speaks TLS, and believes these; else plainly.
    pub tls: Option<Tls>,
    /// One attempt to connect, the hello included.
    pub connect_within: Duration,
    /// How long a lost connection is tried again before what was under way counts as unknown.
    pub reconnect_for: Duration,
    /// How long one shard may answer `Busy` without doing anything before the caller is told.
    pub busy_for: Duration,
    /// Silence after which the node is asked whether it is there; as much again ends the connection.
    pub silence: Duration,
    /// Bodies that wait for their answer; a further write waits for room. **Units:** bytes.
    pub pending_bytes: usize,
    /// Rows in one frame at most, however large a body may be.
    pub rows_per_frame: usize,
    /// Firings of one subscription and shard that may be under way or wait to be taken.
    pub firings_window: u32,
    /// Everything through the connection that was opened first, as behind a forwarded port.
    pub one_connection: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: concat!("myelin-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            token: None,
            tls: None,
            connect_within: Duration::from_secs(3),
            reconnect_for: Duration::from_secs(10),
            busy_for: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            pending_bytes: 16 << 20,
            rows_per_frame: 4096,
            firings_window: 4096,
            one_connection: false,
        }
    }
}

/// How a node is spoken to that speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// The name its certificate must hold for; else the address.
    pub(crate) name: Option<ServerName<'static>>,
}

impl Tls {
    /// Believes nodes whose certificate was signed by one of this file, or stands in it.
    pub fn trusting(authorities: &Path) -> Result<Self, TlsError> {
        Ok(Self::new(Arc::new(myelin_tls::trusting(authorities)?)))
    }

    /// By a configuration of the caller's own.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, name: None }
    }

    pub(crate) fn name_of(&self, addr: SocketAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::from(addr.ip()))
    }
}
