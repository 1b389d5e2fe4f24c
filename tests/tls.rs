//! TLS and tokens: who is believed and let in, who is not, and what each is told.

use crate::node::{Node, PATIENCE, Setup, done, markets, run, tick};
use myelin_client::{At, Client, Error, Mode, Options, Tls};
use myelin_tls::ServerName;
use myelin_wire::{Attribute, Code};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOKEN: &str = "a-token-of-the-tests-4711";

/// A node's files, made for this test.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    token: PathBuf,
}

impl Files {
    /// A certificate for 127.0.0.1 that holds until the end of this year.
    fn until(dir: &Path, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signer = KeyPair::generate().unwrap();
        let authority = params.self_signed(&signer).unwrap();
        let issuer = Issuer::new(params, signer);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let own = params.signed_by(&key, &issuer).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.join(format!("{year}-{name}"));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path
        };
        Self {
            certificate: write("node.crt", &own.pem()),
            key: write("node.key", &key.serialize_pem()),
            authority: write("authority.crt", &authority.pem()),
            token: write("token", &format!("{TOKEN}\n")),
        }
    }

    fn setup(&self, dir: &Path) -> Setup {
        let mut setup = Setup::new(dir);
        let files = [("--tls-cert", &self.certificate), ("--tls-key", &self.key), ("--auth-token-file", &self.token)];
        setup.more.extend(files.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]));
        setup
    }

    fn options(&self) -> Options {
        let (tls, token) = (Tls::trusting(&self.authority).unwrap(), TOKEN.to_owned());
        Options { tls: Some(tls), token: Some(token), reconnect_for: PATIENCE, ..Options::default() }
    }

    async fn connect(&self, node: &Node) -> Result<Client, Error> {
        Client::connect(&node.listen.to_string(), self.options()).await
    }
}

/// A GET over TLS; gives status and body.
fn get(files: &Files, address: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
    let config = Arc::new(myelin_tls::trusting(&files.authority).unwrap());
    let client = rustls::ClientConnection::new(config, ServerName::from(address.ip())).unwrap();
    let mut stream = rustls::StreamOwned::new(client, TcpStream::connect(address).unwrap());
    let shown = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{shown}Connection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    let _cut = stream.read_to_string(&mut response);
    let status = response.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, response.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

#[test]
fn a_client_over_tls_writes_reads_and_goes_on_when_the_node_was_killed_on_either_executor() {
    for executor in ["auto", "portable"] {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::until(dir.path(), 2100);
        let mut setup = files.setup(&dir.path().join("data")).shards(2);
        setup.executor = executor.to_owned();
        let mut node = setup.start();
        setup.listen = node.listen;
        run(async {
            let client = files.connect(&node).await.unwrap();
            let ids = markets(&client, &["sealed-a", "sealed-b", "sealed-c"]).await;
            let mut sent = 0;
            for life in 0..3_u64 {
                // Frames longer than a record of TLS, and many of them at once.
                let mut under_way = Vec::new();
                for frame in 0..20_u64 {
                    let first = life * 1_000_000 + frame * 3000;
                    let rows: Vec<_> = (1..=3000).map(|n| tick(ids[n as usize % 3], first + n, 1.0)).collect();
                    under_way.push(client.send_ticks(&rows, Mode::Whole).await.unwrap());
                    sent += 3000;
                }
                for one in under_way {
                    done(&one.wait().await);
                }
                node.kill();
                node = setup.start();
                let counted = client.count(Attribute::Tick, None, At::NOW).await.unwrap();
                assert_eq!(counted.value, sent, "{executor}, life {life}");
            }
            // An answer of many records.
            let page = client.ticks_of(ids[0], myelin_client::Stretch::default(), At::NOW).await.unwrap();
            assert_eq!(page.value.rows.len(), 8192);
        });
    }
}

#[test]
fn who_is_not_believed_or_speaks_otherwise_is_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (files, other) = (Files::until(dir.path(), 2100), Files::until(dir.path(), 2099));
    let expired = Files::until(dir.path(), 2001);
    let plain = Setup::new(&dir.path().join("plain")).start();
    let node = files.setup(&dir.path().join("data")).start();
    let stale = expired.setup(&dir.path().join("stale")).start();
    run(async {
        let untrusted = |error: Result<Client, Error>, why: &str| {
            assert!(matches!(&error, Err(Error::Untrusted { reason, .. }) if reason.contains(why)), "{error:?}");
        };
        untrusted(other.connect(&node).await, "invalid peer certificate");
        untrusted(expired.connect(&stale).await, "xpired");
        let address = format!("tls://{}", node.listen);
        untrusted(Client::connect(&address, Options::default()).await, "needs the certificate");
        let spoken = |error: Result<Client, Error>, what: &str| {
            assert!(matches!(&error, Err(Error::Untrusted { reason, .. }) if reason.contains(what)), "{error:?}");
        };
        let unsealed = Options { tls: None, ..files.options() };
        spoken(Client::connect(&node.listen.to_string(), unsealed).await, "speaks TLS only");
        spoken(files.connect(&plain).await, "does not speak TLS");
        for token in [None, Some("a-token-of-the-tests-4712".to_owned())] {
            let refused = Client::connect(&node.listen.to_string(), Options { token, ..files.options() }).await;
            assert!(
                matches!(&refused, Err(Error::Refused(refusal)) if refusal.code == Some(Code::Unauthorized)),
                "{refused:?}"
            );
        }
        files.connect(&node).await.expect("who shows the token and believes the signer is let in");
    });
}

#[test]
fn http_is_sealed_too_and_wants_the_token_but_for_probes() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::until(dir.path(), 2100);
    let node = files.setup(&dir.path().join("data")).start();
    run(async {
        let client = files.connect(&node).await.unwrap();
        let ids = markets(&client, &["over-http"]).await;
        done(&client.ticks(&[tick(ids[0], 1, 1.5)], Mode::Whole).await.unwrap());
    });
    assert_eq!(get(&files, node.http, "/readyz", None).0, 200);
    let (status, body) = get(&files, node.http, "/v2/markets", None);
    assert_eq!((status, body.contains("\"unauthorized\"")), (401, true), "{body}");
    assert_eq!(get(&files, node.http, "/metrics", Some("wrong")).0, 401);
    // Which routes there are is not told either.
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some(TOKEN), 404)] {
        assert_eq!(get(&files, node.http, "/v2/no-such-route", token).0, status, "{token:?}");
    }
    // The gateway is a client of its own node, over TLS and with the token.
    let (status, body) = get(&files, node.http, "/v2/markets", Some(TOKEN));
    assert_eq!((status, body.contains("over-http")), (200, true), "{body}");
    let mut plain = TcpStream::connect(node.http).unwrap();
    write!(plain, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _cut = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "nothing is said in the clear");
}

#[test]
fn a_handshake_that_does_not_end_costs_its_peer_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::until(dir.path(), 2100);
    let limits = dir.path().join("limits.toml");
    std::fs::write(&limits, "[limits]\nhello_within_ms = 300\nframe_within_ms = 300\n").unwrap();
    let mut setup = files.setup(&dir.path().join("data"));
    setup.more.extend(["--config".to_owned(), limits.display().to_string()]);
    let node = setup.start();
    for begun in [&b""[..], &[22, 3, 1, 2, 0, 1, 0]] {
        let mut stream = TcpStream::connect(node.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(begun).unwrap();
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    run(async { files.connect(&node).await.expect("others are served") });
}

/// A certificate that runs out is renewed under a running node.
#[test]
fn a_certificate_that_is_written_again_is_shown_from_then_on_and_nobody_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (files, other) = (Files::until(dir.path(), 2100), Files::until(dir.path(), 2099));
    let node = files.setup(&dir.path().join("data")).shards(2).start();
    // Whole or not there, as those who renew certificates write.
    let replace = |path: &Path, text: &[u8]| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&new, path).unwrap();
    };
    run(async {
        let stays = files.connect(&node).await.unwrap();
        let ids = markets(&stays, &["renewed"]).await;
        let hasty = |files: &Files| Options { reconnect_for: std::time::Duration::ZERO, ..files.options() };
        let address = node.listen.to_string();
        // For a moment certificate and key do not fit: the ones before are shown.
        replace(&files.certificate, &std::fs::read(&other.certificate).unwrap());
        replace(&files.key, &std::fs::read(&other.key).unwrap());
        let until = std::time::Instant::now() + PATIENCE;
        while Client::connect(&address, hasty(&other)).await.is_err() {
            assert!(std::time::Instant::now() < until, "the new certificate is never shown");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let untrusted = Client::connect(&address, hasty(&files)).await;
        assert!(matches!(untrusted, Err(Error::Untrusted { .. })), "{untrusted:?}");
        // Who was connected stays, and the gateway believes its own node still.
        done(&stays.ticks(&[tick(ids[0], 1, 1.5)], Mode::Whole).await.unwrap());
    });
    let (status, body) = get(&other, node.http, "/v2/markets", Some(TOKEN));
    assert_eq!((status, body.contains("renewed")), (200, true), "{body}");
}

#[test]
fn beyond_loopback_a_node_needs_tls_and_a_token_or_to_be_told_aloud() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::until(dir.path(), 2100);
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let beyond = |setup: Setup| Setup { listen: open, ..setup };
    let (_, said) = beyond(Setup::new(&dir.path().join("a"))).refuses_to_start();
    assert!(said.contains("neither TLS") && said.contains("--insecure"), "{said}");
    let mut setup = beyond(Setup::new(&dir.path().join("b")));
    setup.more.extend(["--auth-token-file".to_owned(), files.token.display().to_string()]);
    let (_, said) = setup.refuses_to_start();
    assert!(said.contains("TLS (--tls-cert, --tls-key) is not on"), "{said}");
    drop(beyond(files.setup(&dir.path().join("c"))).start());
    let mut setup = beyond(Setup::new(&dir.path().join("d")));
    setup.more.push("--insecure".to_owned());
    drop(setup.start());
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, said) = files.setup(&dir.path().join("e")).refuses_to_start();
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn the_command_line_speaks_tls_and_shows_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let (files, other) = (Files::until(dir.path(), 2100), Files::until(dir.path(), 2099));
    let node = files.setup(&dir.path().join("data")).start();
    let count = |authority: &Path, token: &Path| {
        let (authority, token) = (authority.display().to_string(), token.display().to_string());
        node.myelin(&["count", "tick/id", "--tls-ca", &authority, "--token-file", &token]).0
    };
    let wrong = dir.path().join("wrong");
    std::fs::write(&wrong, "not-the-token-at-all").unwrap();
    assert_eq!(count(&files.authority, &files.token), Some(0));
    assert_eq!(count(&files.authority, &wrong), Some(4), "refused");
    assert_eq!(count(&other.authority, &files.token), Some(4), "not believed");
}
