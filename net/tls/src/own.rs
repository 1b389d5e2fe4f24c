//! A node's own certificate and key, as their files have them now.
//!
//! ```text
//!   files --read at the start--> shown <--every handshake asks-- server configurations, for as long as the node runs
//!     \--look(), every few seconds: changed? fit? -->/           and the node's own clients, who believe exactly this one
//! ```
//!
//! A certificate is renewed by writing its files again: connections that begin later show the new one, those that stand stay.
//! Files that will not do keep what is shown, and are said once, until they change again; so a certificate that is written
//! before its key is no more than a line in the log. Deliberately absent: watching the file system, and the token, which is
//! read at the start only.

use crate::files::{TlsError, certified, provider, unfit};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// What tells that a file was changed: its length, when it was written, which one it is, and when that was said of it.
type Seen = [Option<(u64, SystemTime, (u64, i64, i64))>; 2];

/// See the module's picture.
#[derive(Debug)]
pub struct Own {
    certificate: PathBuf,
    key: PathBuf,
    shown: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<Seen>,
}

impl Own {
    /// Reads the files. **Errors:** one that will not do, named with its fix.
    pub fn read(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        // Looked at before it is read: what changes in between is read again.
        let seen = Mutex::new(seen(&certificate, &key));
        let shown = RwLock::new(Arc::new(certified(&certificate, &key)?));
        Ok(Arc::new(Self { certificate, key, shown, seen }))
    }

    /// Looks at the files; true when they were changed and are shown from now on. **Errors:** they were changed and will not
    /// do; the next look says nothing unless they are changed again. **Cost:** two calls of the file system.
    pub fn look(&self) -> Result<bool, TlsError> {
        let now = seen(&self.certificate, &self.key);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Ok(false);
        }
        *seen = now;
        let fresh = Arc::new(certified(&self.certificate, &self.key)?);
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    /// How connections to this node are begun.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| unfit(&self.certificate, error))?.with_no_client_auth();
        let shows: Arc<dyn ResolvesServerCert> = Arc::new(Shows(Arc::clone(self)));
        let mut config = builder.with_cert_resolver(shows);
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// What a part of the node needs that speaks to its own node: exactly its certificate is believed, under any name.
    pub fn client(self: &Arc<Self>) -> Result<ClientConfig, TlsError> {
        let verifier = Arc::new(Pinned { own: Arc::clone(self), provider: provider() });
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|error| unfit(&self.certificate, error))?;
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn seen(certificate: &Path, key: &Path) -> Seen {
    [certificate, key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        // Also who may read it: a key that others could read will do once that is mended.
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            (file.ino(), file.ctime(), file.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = (0, 0, 0);
        Some((file.len(), file.modified().ok()?, changed))
    })
}

/// Shows what is shown now.
#[derive(Debug)]
struct Shows(Arc<Own>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.shown())
    }
}

/// Believes the node's own certificate, byte for byte, as it is now; the handshake's signature proves that its key is there.
#[derive(Debug)]
struct Pinned {
    own: Arc<Own>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = self.own.shown();
        if own.cert.first().is_some_and(|own| own.as_ref() == shown.as_ref()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
