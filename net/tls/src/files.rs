//! Certificates and keys as files -> configurations; a file that will not do is said by its name and the fix.

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no configuration. All of them are mended by whoever starts the program.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read, or is no PEM.
    #[error("{path} cannot be read as PEM: {cause}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// There is nothing in it that is needed.
    #[error("{path} holds no {what}")]
    Empty {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Others can read the secret.
    #[error("{path} can be read by others (mode {mode:03o}): chmod 600 {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not spoken.
    #[error("{path} will not do: {cause}")]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// **Units:** Unix seconds.
    pub not_before: i64,
    /// **Units:** Unix seconds.
    pub not_after: i64,
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unreadable(path: &Path, cause: impl ToString) -> TlsError {
    TlsError::Unreadable { path: path.to_owned(), cause: cause.to_string() }
}

pub(crate) fn unfit(path: &Path, cause: impl ToString) -> TlsError {
    TlsError::Unfit { path: path.to_owned(), cause: cause.to_string() }
}

/// The certificates of a file, the node's own first.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, error))?.collect();
    let found = found.map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), what: "certificate" });
    }
    Ok(found)
}

/// A file with a secret, which nobody else may read. **Errors:** others can, or it is not there.
pub fn check_private(path: &Path) -> Result<(), TlsError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(TlsError::Open { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

/// A certificate with those above it, and the key that fits it.
pub(crate) fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate)?;
    check_private(key)?;
    let secret = match PrivateKeyDer::from_pem_file(key) {
        Ok(secret) => secret,
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            return Err(TlsError::Empty { path: key.to_owned(), what: "key" });
        }
        Err(error) => return Err(unreadable(key, error)),
    };
    CertifiedKey::from_der(chain, secret, &provider()).map_err(|error| unfit(key, error))
}

/// What a client needs: the certificates it believes, a signer's or the node's own.
pub fn trusting(authorities: &Path) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        roots.add(certificate).map_err(|error| unfit(authorities, error))?;
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| unfit(authorities, error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// From when to when the first certificate of a file holds.
pub fn expiry(certificate: &Path) -> Result<Expiry, TlsError> {
    let own = certificates(certificate)?.swap_remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&own).map_err(|error| unfit(certificate, error))?;
    let validity = parsed.validity();
    Ok(Expiry { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}
