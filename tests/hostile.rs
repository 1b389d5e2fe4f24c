//! Bytes that mean harm: each is refused by name, costs its sender the connection, and the node serves the others.

use crate::node::{Setup, report, trials};
use crate::sessions::Line;
use myelin_wire::{Code, HEADER_BYTES, Header, Kind, write_frame};

fn ping_frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, Header { session: 1, request: 1, ..Header::new(Kind::Ping) }, b"are you there");
    bytes
}

#[test]
fn bytes_that_are_no_frame_are_refused_by_name_and_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
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
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
    let mut line = Line::silent(node.listen);
    assert_eq!(Code::from_number(line.ask(Header::new(Kind::Ping), b"").0.code), Some(Code::HelloExpected));
    assert!(line.hear().is_none());
    let mut line = Line::open(node.listen);
    assert_eq!(Code::from_number(line.ask(Header::new(Kind::Hello), b"").0.code), Some(Code::HelloExpected));
}

#[test]
fn campaign_random_frames_in_random_order_leave_the_node_serving() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start();
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
