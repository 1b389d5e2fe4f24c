//! Sessions on the wire: a retry is never applied twice, order holds after `Busy`, strangers are refused by name.

use crate::node::{Setup, run, tick};
use myelin_datom::{EntityId, Tick};
use myelin_wire::{AckBody, Code, Header, Hello, Kind, MarketFlags, MarketSpec, decode, markets_body, write_frame};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A connection that says exactly what it is told.
pub struct Line {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Line {
    pub fn open(address: SocketAddr) -> Self {
        let mut line = Self::silent(address);
        let mut body = Vec::new();
        Hello { client: "test", capabilities: 0, credential_kind: 0, credential: "" }.write(&mut body);
        line.say(Header::new(Kind::Hello), &body);
        assert_eq!(line.hear().map(|(header, _)| header.kind), Some(Kind::Welcome as u8));
        line
    }

    /// Without a hello.
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(crate::node::PATIENCE)).unwrap();
        Self { stream, bytes: Vec::new() }
    }

    pub fn say(&mut self, header: Header, body: &[u8]) {
        let mut out = Vec::new();
        write_frame(&mut out, header, body);
        self.say_bytes(&out);
    }

    /// A peer that is closed on us is not our failure: what it answered is still read.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// The next frame, or `None` when the node closed.
    pub fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some((frame, taken)) = decode(&self.bytes, 1 << 24).unwrap() {
                let heard = (frame.header, frame.body.to_vec());
                self.bytes.drain(..taken);
                return Some(heard);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return None,
                Ok(len) => self.bytes.extend_from_slice(&more[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the node neither answers nor closes: {error}"),
            }
        }
    }

    pub fn ask(&mut self, header: Header, body: &[u8]) -> (Header, Vec<u8>) {
        self.say(header, body);
        self.hear().expect("an answer")
    }

    pub fn market(&mut self, session: u64, name: &str) -> EntityId {
        let mut body = Vec::new();
        markets_body(&mut body, [MarketSpec { flags: MarketFlags(0), name }]);
        let (header, ids) = self.ask(Header { session, request: 1, count: 1, ..Header::new(Kind::Markets) }, &body);
        assert_eq!(header.kind, Kind::Answer as u8);
        EntityId::from_bits(u64::from_le_bytes(ids[..8].try_into().unwrap()))
    }

    pub fn ticks(&mut self, session: u64, request: u64, rows: &[Tick]) -> Header {
        let header = Header { session, request, count: rows.len() as u32, ..Header::new(Kind::Ticks) };
        self.ask(header, bytemuck::cast_slice(rows)).0
    }
}

#[test]
fn a_request_that_is_sent_again_is_answered_again_and_not_executed_again() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "session");
    // Ids are zero: nothing but the session can tell a repeat.
    let rows = [tick(market, 0, 1.0), tick(market, 0, 1.0)];
    let first = line.ticks(7, 2, &rows);
    assert_eq!((first.kind, first.count), (Kind::Ack as u8, 2));
    let again = line.ticks(7, 2, &rows);
    assert_eq!((again.kind, again.count, again.tx), (Kind::Ack as u8, 2, first.tx));
    node.kill();
    let node = setup.start();
    let mut line = Line::open(node.listen);
    let again = line.ticks(7, 2, &rows);
    assert_eq!((again.kind, again.count, again.tx), (Kind::Ack as u8, 2, first.tx), "also after a restart");
    run(async {
        let counted = node.client().await.count(myelin_wire::Attribute::Tick, None, myelin_client::At::default()).await;
        assert_eq!(counted.unwrap().value, 2);
    });
}

#[test]
fn a_gap_a_stranger_and_a_request_without_a_session_are_refused_by_name() {
    let node = Setup::fresh().start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "order");
    let code = |header: Header| Code::from_number(header.code);
    assert_eq!(code(line.ticks(7, 4, &[tick(market, 1, 1.0)])), Some(Code::SessionGap));
    assert_eq!(code(line.ticks(8, 2, &[tick(market, 1, 1.0)])), Some(Code::SessionExpired));
    assert_eq!(code(line.ticks(0, 1, &[tick(market, 1, 1.0)])), Some(Code::SessionGap));
    assert_eq!(line.ticks(7, 2, &[tick(market, 1, 1.0)]).kind, Kind::Ack as u8, "the session goes on");
}

#[test]
fn a_verdict_per_row_is_given_when_it_is_asked_for() {
    let node = Setup::fresh().start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "partial");
    line.ticks(7, 2, &[tick(market, 1, 1.0)]);
    let rows = [tick(market, 1, 1.0), tick(market, 1, 2.0), tick(market, 2, 1.0)];
    let header = Header { session: 7, request: 3, count: 3, flags: Header::PARTIAL, ..Header::new(Kind::Ticks) };
    let (header, body) = line.ask(header, bytemuck::cast_slice(&rows));
    assert_eq!((header.kind, header.count), (Kind::Ack as u8, 1));
    let ack: AckBody = bytemuck::pod_read_unaligned(&body[..16]);
    assert_eq!((ack.duplicates, ack.refused, ack.first_bad), (1, 1, 1));
    let verdicts: Vec<u16> = body[16..].chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    assert_eq!(verdicts, [0xffff, Code::IdConflict as u16, 0]);
}

/// Codes per row, 0 = stored; the counts of the ack before them.
fn told(line: &mut Line, session: u64, request: u64, kind: Kind, rows: &[Tick]) -> (Header, AckBody, Vec<u16>) {
    let count = rows.len() as u32;
    let header = Header { session, request, count, flags: Header::PARTIAL, ..Header::new(kind) };
    let (header, body) = line.ask(header, bytemuck::cast_slice(rows));
    assert_eq!(header.kind, Kind::Ack as u8, "{:?}", Code::from_number(header.code));
    let verdicts = body[16..].chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    (header, bytemuck::pod_read_unaligned(&body[..16]), verdicts)
}

#[test]
fn a_flawed_row_costs_itself_where_a_verdict_per_row_is_asked_for_and_a_repeat_hears_the_same() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "flawed");
    let sound = |id| tick(market, id, 1.0);
    let rows = [
        sound(1),
        Tick { price: f64::NAN, ..sound(2) },
        sound(3),
        Tick { zero_60: 1, ..sound(4) },
        Tick { market: EntityId::NONE, ..sound(5) },
        Tick { side: 9, ..sound(3) },
        // A flawed row says nothing: this id is not taken by it.
        sound(2),
    ];
    let codes = [Code::PriceNotFinite, Code::Reserved, Code::MarketKind, Code::Side].map(|code| code as u16);
    let expected = [0, codes[0], 0, codes[1], codes[2], codes[3], 0];
    let (first, ack, verdicts) = told(&mut line, 7, 2, Kind::Ticks, &rows);
    assert_eq!((first.count, ack.refused, ack.duplicates, ack.first_bad), (3, 4, 0, 1));
    assert_eq!((ack.first_code, &verdicts[..]), (u32::from(codes[0]), &expected[..]));
    // Without the flag the frame is one, and nothing of it is stored.
    let whole = line.ticks(7, 3, &rows);
    assert_eq!((Code::from_number(whole.code), whole.count), (Some(Code::PriceNotFinite), 1));
    // As a quote: another volume, and an ask instead of the trader, behind it its volume of zero.
    let quotes = [-1.0, 1.0].map(|volume| Tick { volume, side: 0, received_delta_us: 0, ..sound(1) });
    let (_, _, verdicts) = told(&mut line, 7, 3, Kind::Quotes, &quotes);
    assert_eq!(verdicts, [Code::VolumeNegative as u16, 0], "a quote's fields stand elsewhere");
    for killed in [false, true] {
        if killed {
            node.kill();
            node = setup.start();
            line = Line::open(node.listen);
        }
        let (again, ack, verdicts) = told(&mut line, 7, 2, Kind::Ticks, &rows);
        assert_eq!((again.tx, again.count, ack.refused, ack.first_bad), (first.tx, 3, 4, 1));
        assert_eq!(verdicts, expected, "killed: {killed}");
        run(async {
            let client = node.client().await;
            let rows =
                client.ticks_of(market, Default::default(), myelin_client::At::default()).await.unwrap().value.rows;
            assert!(rows.iter().map(|found| found.row.id).eq([1, 3, 2]), "each in its place, once");
        });
    }
    // What only the database can refuse stands beside it.
    let rows = [sound(1), Tick { price: 2.0, ..sound(3) }, Tick { price: f64::INFINITY, ..sound(9) }, sound(9)];
    let (_, _, verdicts) = told(&mut line, 8, 1, Kind::Ticks, &rows);
    assert_eq!(verdicts, [0xffff, Code::IdConflict as u16, codes[0], 0]);
}

/// A client that was away while 4,096 others spoke sends its first request again: its rows have no ids, so nothing but
/// the session could tell that they are there.
#[test]
fn the_first_request_of_a_session_that_made_room_is_refused_and_not_executed_again() {
    let setup = Setup::fresh();
    let mut node = setup.start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "crowd");
    let row = [tick(market, 0, 1.0)];
    assert_eq!(line.ticks(8, 1, &row).count, 1);
    let mut crowd = 0_u64;
    while crowd < 4096 {
        let mut line = Line::open(node.listen);
        let mut left: Vec<u64> = (1000 + crowd..1064 + crowd).collect();
        while !left.is_empty() {
            for session in &left {
                // A slow disk says `Busy`: then the session goes on where it was.
                line.say(Header { session: *session, aux: 1, ..Header::new(Kind::Resume) }, &[]);
                let header = Header { session: *session, request: 1, count: 1, ..Header::new(Kind::Ticks) };
                line.say(header, bytemuck::cast_slice(&row));
            }
            for _ in 0..left.len() {
                let (header, _) = line.hear().expect("an answer");
                match Code::from_number(header.code) {
                    None => left.retain(|session| *session != header.session),
                    code => assert_eq!(code, Some(Code::Busy)),
                }
            }
        }
        crowd += 64;
    }
    for killed in [false, true] {
        if killed {
            node.kill();
            node = setup.start();
            line = Line::open(node.listen);
        }
        let again = line.ticks(8, 1, &row);
        assert_eq!(Code::from_number(again.code), Some(Code::SessionExpired), "killed: {killed}");
        run(async {
            let client = node.client().await;
            let count = client.count(myelin_wire::Attribute::Tick, None, myelin_client::At::default()).await.unwrap();
            assert_eq!(count.value, 1 + crowd);
        });
    }
    assert_eq!(line.ticks(9, 1, &row).count, 1, "another session begins");
}

#[test]
fn the_greatest_request_number_there_is_is_refused_and_the_node_lives() {
    let node = Setup::fresh().start();
    let mut line = Line::open(node.listen);
    let market = line.market(7, "numbers");
    let refused = line.ticks(8, u64::MAX, &[tick(market, 1, 1.0)]);
    assert_eq!(Code::from_number(refused.code), Some(Code::SessionGap));
    assert_eq!(line.ticks(7, 2, &[tick(market, 1, 1.0)]).kind, Kind::Ack as u8);
}
