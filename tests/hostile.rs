//! Bytes that mean harm: each is refused by name, costs its sender the connection, and the node serves the others.

use crate::node::{PATIENCE, Setup, report, trials};
use crate::sessions::Line;
use myelin_wire::{Code, HEADER_BYTES, Header, Kind, write_frame};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn ping_frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, Header { session: 1, request: 1, ..Header::new(Kind::Ping) }, b"are you there");
    bytes
}

#[test]
fn bytes_that_are_no_frame_are_refused_by_name_and_end_the_connection() {
    let node = Setup::fresh().start();
    let mut wrong_version = ping_frame();
    wrong_version[4] = 9;
    let mut oversize = Vec::new();
    write_frame(&mut oversize, Header::new(Kind::Ping), &vec![0; 2 << 20]);
    let mut flipped = ping_frame();
    flipped[HEADER_BYTES + 3] ^= 1;
    let mut unknown_kind = Vec::new();
    write_frame(&mut unknown_kind, Header { kind: 99, ..Header::new(Kind::Ping) }, b"");
    let table = [
        (vec![b'x'; 200], Code::BadFrame),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody-who-is-lost\r\n\r\n".to_vec(), Code::BadFrame),
        (wrong_version, Code::WrongVersion),
        (oversize, Code::Oversize),
        (flipped, Code::BadFrame),
        (unknown_kind, Code::UnknownKind),
    ];
    for (bytes, code) in table {
        let mut line = Line::open(node.listen);
        line.say_bytes(&bytes);
        let refused = line.hear().expect("a refusal by name");
        assert_eq!(Code::from_number(refused.0.code), Some(code));
        assert!(line.hear().is_none(), "the connection is closed after {code:?}");
    }
    assert_eq!(Line::open(node.listen).ask(Header::new(Kind::Ping), b"x").0.kind, Kind::Pong as u8);
}

#[test]
fn a_hello_comes_first_and_once() {
    let node = Setup::fresh().start();
    let mut line = Line::silent(node.listen);
    assert_eq!(Code::from_number(line.ask(Header::new(Kind::Ping), b"").0.code), Some(Code::HelloExpected));
    assert!(line.hear().is_none());
    let mut line = Line::open(node.listen);
    assert_eq!(Code::from_number(line.ask(Header::new(Kind::Hello), b"").0.code), Some(Code::HelloExpected));
}

/// Sends these bytes one by one, ever slower than the node waits, until it closes. Gives what it said.
fn drip(address: std::net::SocketAddr, whole: &[u8], bytes: &[u8]) -> (Option<Code>, usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(whole).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut heard, mut sent) = (Vec::new(), 0);
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the node waits for ever");
        let mut more = [0; 1024];
        match stream.read(&mut more) {
            Ok(0) => break,
            Ok(len) => heard.extend_from_slice(&more[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                if let Some(byte) = bytes.get(sent) {
                    sent += usize::from(stream.write_all(&[*byte]).is_ok());
                }
            }
        }
    }
    let mut code = None;
    while let Some((frame, taken)) = myelin_wire::decode(&heard, 1 << 20).unwrap() {
        code = Code::from_number(frame.header.code);
        heard.drain(..taken);
    }
    (code, sent)
}

#[test]
fn a_frame_that_began_is_whole_in_time_or_its_sender_is_told_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let limits = dir.path().join("limits.toml");
    std::fs::write(&limits, "[limits]\nhello_within_ms = 300\nframe_within_ms = 300\n").unwrap();
    let mut setup = Setup::new(&dir.path().join("data"));
    setup.more.extend(["--config".to_owned(), limits.display().to_string()]);
    let node = setup.start();
    let begun = Instant::now();
    let mut idle = Line::open(node.listen);
    let mut halves = Line::open(node.listen);
    let mut hello = Vec::new();
    let mut body = Vec::new();
    myelin_wire::Hello { client: "drip", capabilities: 0, credential_kind: 0, credential: "" }.write(&mut body);
    write_frame(&mut hello, Header::new(Kind::Hello), &body);
    // As long as the frame lasts at one byte in 20 ms, nobody is patient.
    let mut long = Vec::new();
    write_frame(&mut long, Header { session: 1, request: 1, ..Header::new(Kind::Ping) }, &[1; 10_000]);
    for (whole, drop_by_drop) in [(&hello[..], &long[..]), (&[], &hello[..]), (&[], &[])] {
        let (code, sent) = drip(node.listen, whole, drop_by_drop);
        assert_eq!(code, Some(Code::TooSlow));
        assert!(sent < drop_by_drop.len().max(1), "it was cut before it was through");
    }
    assert!(begun.elapsed() > Duration::from_millis(900));
    // Who owes nothing may be silent for long; who sends in pieces and goes on is heard.
    assert_eq!(idle.ask(Header::new(Kind::Ping), b"x").0.kind, Kind::Pong as u8);
    for _ in 0..3 {
        let frame = ping_frame();
        halves.say_bytes(&frame[..70]);
        assert_eq!(idle.ask(Header::new(Kind::Ping), b"x").0.kind, Kind::Pong as u8, "a while later");
        halves.say_bytes(&frame[70..]);
        assert_eq!(halves.hear().map(|(header, _)| header.kind), Some(Kind::Pong as u8));
    }
}

#[test]
fn campaign_random_frames_in_random_order_leave_the_node_serving() {
    let node = Setup::fresh().start();
    let sequences = trials(200, 5_000, 100_000);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut answered = 0_u64;
    for _ in 0..sequences {
        let mut line = Line::open(node.listen);
        let mut bytes = Vec::new();
        for _ in 0..1 + draw(8) {
            // Every kind a client may speak, and some it may not; bodies of every small length, checksums right.
            let kind = draw(24) as u8;
            let body: Vec<u8> = (0..draw(200)).map(|_| draw(256) as u8).collect();
            let body = if draw(3) == 0 { vec![0; (draw(4) * 64) as usize] } else { body };
            let header = Header {
                kind,
                flags: draw(8) as u16,
                session: draw(4),
                request: draw(6),
                tx: if draw(2) == 0 { 0 } else { draw(u64::MAX) },
                shard: draw(3) as u16,
                count: draw(5) as u32,
                aux: draw(1 << 20),
                ..Header::new(Kind::Ping)
            };
            write_frame(&mut bytes, header, &body);
        }
        write_frame(&mut bytes, Header { session: 1, request: u64::MAX, ..Header::new(Kind::Ping) }, b"");
        line.say_bytes(&bytes);
        while let Some((header, _)) = line.hear() {
            answered += 1;
            if header.kind == Kind::Pong as u8 && header.request == u64::MAX {
                break;
            }
        }
    }
    assert!(answered > u64::from(sequences), "nothing was answered: the test proves nothing");
    let (status, body) = node.get("/readyz");
    assert_eq!(status, 200, "{body}");
    report("hostile-frames", sequences);
}
