//! Two ends of the core without a socket, and files that will not do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use myelin_tls::{ClientConfig, Opened, Own, Secure, ServerConfig, TlsError, expiry, is_alert, trusting};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A signer, and a certificate for `localhost` that it signed: certificate, key and signer as files.
fn made(dir: &Path, name: &str) -> [PathBuf; 3] {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let write = |what: &str, text: String| {
        let path = dir.join(format!("{name}.{what}"));
        std::fs::write(&path, text).unwrap();
        private(&path, 0o600);
        path
    };
    [write("crt", own.pem()), write("key", key.serialize_pem()), write("ca", authority.pem())]
}

fn server(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    Own::read(certificate, key)?.server()
}

fn private(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Carries sealed bytes over until neither end owes any. **Errors:** the first that does not believe the other.
fn shake_hands(client: &mut Secure, node: &mut Secure) -> Result<(), rustls::Error> {
    loop {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.put_sealed(&mut there).unwrap();
        carry(&there, node)?;
        node.put_sealed(&mut back).unwrap();
        carry(&back, client)?;
        if there.is_empty() && back.is_empty() {
            return Ok(());
        }
    }
}

fn carry(sealed: &[u8], to: &mut Secure) -> Result<(), rustls::Error> {
    let mut at = 0;
    while at < sealed.len() {
        at += to.take_sealed(&sealed[at..])?;
    }
    Ok(())
}

fn ends(node: ServerConfig, client: ClientConfig) -> (Secure, Secure) {
    let name = "localhost".try_into().unwrap();
    (Secure::client(&Arc::new(client), name).unwrap(), Secure::server(&Arc::new(node)).unwrap())
}

#[test]
fn what_one_end_seals_the_other_opens_a_record_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key, authority] = made(dir.path(), "node");
    for client in [trusting(&authority).unwrap(), Own::read(&certificate, &key).unwrap().client().unwrap()] {
        let (mut client, mut node) = ends(server(&certificate, &key).unwrap(), client);
        shake_hands(&mut client, &mut node).unwrap();
        assert!(!client.is_handshaking() && !node.is_handshaking());
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let (mut got, mut at) = (Vec::new(), 0);
        let mut piece = [0; 1000];
        while at < sent.len() {
            at += client.seal(&sent[at..]);
            let (mut sealed, mut carried) = (Vec::new(), 0);
            client.put_sealed(&mut sealed).unwrap();
            while carried < sealed.len() {
                // What is opened is taken before more is: memory stays at a record.
                carried += node.take_sealed(&sealed[carried..sealed.len().min(carried + 5000)]).unwrap();
                while let Opened::Bytes(len) = node.take_opened(&mut piece) {
                    got.extend_from_slice(&piece[..len]);
                }
            }
        }
        assert_eq!(got, sent);
        client.say_goodbye();
        shake_hands(&mut client, &mut node).unwrap();
        assert_eq!(node.take_opened(&mut piece), Opened::End);
    }
}

#[test]
fn a_stranger_is_not_believed_and_bytes_that_are_not_tls_are_answered_with_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key, _] = made(dir.path(), "node");
    let [other, other_key, other_authority] = made(dir.path(), "other");
    for client in [trusting(&other_authority).unwrap(), Own::read(&other, &other_key).unwrap().client().unwrap()] {
        let (mut client, mut node) = ends(server(&certificate, &key).unwrap(), client);
        assert!(matches!(shake_hands(&mut client, &mut node), Err(rustls::Error::InvalidCertificate(_))));
    }
    let mut node = Secure::server(&Arc::new(server(&certificate, &key).unwrap())).unwrap();
    assert!(node.take_sealed(b"MYLN, and what follows").is_err());
    let mut said = Vec::new();
    node.put_sealed(&mut said).unwrap();
    assert!(is_alert(&said));
}

#[test]
fn a_file_that_will_not_do_is_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key, authority] = made(dir.path(), "node");
    let [_, other_key, _] = made(dir.path(), "other");
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(server(&nowhere, &key), Err(TlsError::Unreadable { path, .. }) if path == nowhere));
    assert!(matches!(server(&key, &key), Err(TlsError::Empty { what: "certificate", .. })));
    assert!(matches!(server(&certificate, &certificate), Err(TlsError::Empty { what: "key", .. })));
    assert!(matches!(server(&certificate, &other_key), Err(TlsError::Unfit { path, .. }) if path == other_key));
    assert!(matches!(trusting(&key), Err(TlsError::Empty { .. })));
    private(&key, 0o640);
    let said = server(&certificate, &key).unwrap_err().to_string();
    assert_eq!(said, format!("{0} can be read by others (mode 640): chmod 600 {0}", key.display()));
    let held = expiry(&authority).unwrap();
    assert!(held.not_before < held.not_after);
}

#[test]
fn files_that_are_written_again_are_shown_and_those_that_will_not_do_are_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key, authority] = made(dir.path(), "node");
    let [next, next_key, next_authority] = made(dir.path(), "next");
    let own = Own::read(&certificate, &key).unwrap();
    // Made once, as a node makes them: every connection of its life begins with these.
    let (node, itself) = (Arc::new(own.server().unwrap()), Arc::new(own.client().unwrap()));
    let believes = |authority: &Path| {
        let client = Arc::new(trusting(authority).unwrap());
        let mut ends =
            (Secure::client(&client, "localhost".try_into().unwrap()).unwrap(), Secure::server(&node).unwrap());
        shake_hands(&mut ends.0, &mut ends.1).is_ok()
    };
    let believes_itself = || {
        let mut ends =
            (Secure::client(&itself, "any.name".try_into().unwrap()).unwrap(), Secure::server(&node).unwrap());
        shake_hands(&mut ends.0, &mut ends.1).is_ok()
    };
    let replace = |from: &Path, to: &Path| {
        let new = to.with_extension("new");
        std::fs::copy(from, &new).unwrap();
        private(&new, 0o600);
        std::fs::rename(&new, to).unwrap();
    };
    assert!(!own.look().unwrap(), "nothing was changed");
    replace(&next, &certificate);
    assert!(matches!(own.look(), Err(TlsError::Unfit { path, .. }) if path == key), "the key does not fit yet");
    assert!(!own.look().unwrap(), "that was said");
    assert!(believes(&authority) && believes_itself(), "the one before is shown");
    replace(&next_key, &key);
    assert!(own.look().unwrap());
    assert!(believes(&next_authority) && believes_itself() && !believes(&authority));
    std::fs::remove_file(&certificate).unwrap();
    assert!(matches!(own.look(), Err(TlsError::Unreadable { .. })));
    assert!(!own.look().unwrap() && believes(&next_authority), "what is gone is shown until another comes");
}
