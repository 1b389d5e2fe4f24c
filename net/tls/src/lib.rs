//! TLS 1.3 between bytes and frames, without a socket.
//!
//! ```text
//!   socket -> sealed bytes -> take_sealed -> Secure -> opened -> frames
//!   socket <- sealed bytes <- put_sealed  <-        <- seal   <- frames
//! ```
//!
//! `secure` is the core: one connection's state, `rustls` inside. `files` makes its configuration from a certificate, a key
//! and the certificates of who signed them; `own` renews a node's own while it runs. Invariants: TLS 1.3 only, one provider (`ring`), no session is resumed, so that
//! connections share nothing but what never changes. Deliberately absent: sockets, clocks beside the one that rustls asks
//! for validity, client certificates, roots of the operating system (a node's signer is named, not guessed).

mod files;
mod own;
mod secure;

pub use files::{Expiry, TlsError, check_private, expiry, trusting};
pub use own::Own;
pub use rustls::pki_types::ServerName;
pub use rustls::{ClientConfig, Error, ServerConfig};
pub use secure::{Opened, Secure, is_alert};
