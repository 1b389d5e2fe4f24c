//! Who may speak to this node: what stands before its ports, as it was told at the start.
//!
//! ```text
//!   loopback            everybody who reaches it
//!   beyond              TLS and a token, or --insecure said aloud
//! ```
//!
//! A token is compared in constant time, so that its first bytes cannot be found out one by one. Deliberately absent: users
//! and rights (a token opens everything), client certificates, and reading the token again while the node runs (a
//! certificate is: `look`).

use anyhow::{Context as _, bail};
use myelin_tls::{ClientConfig, Own, ServerConfig};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// A token shorter than this can be guessed. **Units:** bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// A hello's credential is a text. **Units:** bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// The files that guard a node.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GuardFiles {
    /// The node's certificate, and those above it: data and HTTP are spoken over TLS 1.3 only.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, which nobody else may read (mode 600).
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// A file with the token that every client must show (mode 600).
    #[arg(long, value_name = "FILE")]
    pub auth_token_file: Option<PathBuf>,
}

/// What guards a node.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// How sealed connections are begun.
    pub tls: Option<Arc<ServerConfig>>,
    /// How the node's own gateway begins one.
    pub own: Option<Arc<ClientConfig>>,
    /// The certificate both show and believe, which may be renewed.
    pub certificate: Option<Arc<Own>>,
    /// What must be shown.
    pub token: Option<Token>,
}

/// The token of a node. It is never printed.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The hello's number for a credential that is a token.
    pub const KIND: u8 = 1;

    /// **Errors:** the file cannot be read, others can read it, or it holds no token that will do.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        myelin_tls::check_private(path)?;
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let token = text.trim();
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) || token.contains(char::is_whitespace) {
            bail!(
                "{} must hold one token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes without white space: openssl rand -hex 32",
                path.display()
            );
        }
        Ok(Self(token.into()))
    }

    /// Whether this is the token. **Cost:** the same for every text of its length.
    #[must_use]
    pub fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// For the node's own gateway, which shows it to its own node.
    #[must_use]
    pub fn reveal(&self) -> String {
        self.0.to_string()
    }
}

impl Guard {
    /// Reads the files. **Errors:** one that will not do, named with its fix.
    pub fn read(files: &GuardFiles) -> anyhow::Result<Self> {
        let mut guard = Self::default();
        match (&files.tls_cert, &files.tls_key) {
            (Some(certificate), Some(key)) => {
                let own = Own::read(certificate, key)?;
                guard.tls = Some(Arc::new(own.server()?));
                guard.own = Some(Arc::new(own.client()?));
                guard.certificate = Some(own);
            }
            (None, None) => {}
            // Each may be said elsewhere: by a flag, the environment, or the file.
            _ => bail!("a certificate (tls_cert) and its key (tls_key) go together, and one of them is missing"),
        }
        guard.token = files.auth_token_file.as_deref().map(Token::read).transpose()?;
        Ok(guard)
    }

    /// Looks whether the certificate was renewed, and says so. Reads files: not for a data core.
    pub fn look(&self) {
        let Some(certificate) = &self.certificate else { return };
        match certificate.look() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificate was renewed: connections from now on show it"),
            Err(error) => {
                tracing::warn!(%error, "the certificate was changed and will not do: the one before is shown")
            }
        }
    }

    /// **Errors:** the address is reached from other hosts, and something is missing for that.
    pub fn allows(&self, address: SocketAddr) -> anyhow::Result<()> {
        let missing = match (&self.tls, &self.token) {
            (Some(_), Some(_)) => return Ok(()),
            _ if address.ip().is_loopback() => return Ok(()),
            (None, None) => "neither TLS (--tls-cert, --tls-key) nor authentication (--auth-token-file) is on",
            (None, Some(_)) => "TLS (--tls-cert, --tls-key) is not on",
            (Some(_), None) => "authentication (--auth-token-file) is not on",
        };
        bail!("{address} is reachable from other hosts, and {missing}: say --insecure if that is meant")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else_and_is_never_printed() {
        let token = Token("0123456789abcdef".into());
        for (shown, is) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeg", false),
            ("0123456789abcde", false),
            ("0123456789abcdeff", false),
            ("", false),
        ] {
            assert_eq!(token.is(shown), is, "{shown}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
