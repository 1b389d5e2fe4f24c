//! A node without a disk, an index or a doubt: speaks the wire, keeps counts, asks every band at every tick, and has
//! exactly the faults it is told to have. A thread per connection, one lock.

use myelin_datom::{EntityId, Slot, Tick};
use myelin_wire::{
    AckBody, Code, Cursor, FiringRow, Frame, Header, Kind, SlotRange, Welcome, read_markets, write_frame,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// What goes wrong, at which tick or firing counted from 1; 0 = never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Shards it claims to have, 0 = 1.
    pub shards: u16,
    /// Every so many requests of a session, the next is refused as busy once.
    pub busy_every: u64,
    pub drop_tick: u64,
    pub double_tick: u64,
    pub drop_firing: u64,
    pub repeat_firing: u64,
    pub wrong_firing: u64,
    /// Closes the connection instead of answering this request.
    pub hang_up_at: u64,
}

struct Band {
    reflex: u64,
    market: String,
    kind: u8,
    numbers: [f64; 2],
    was: bool,
}

#[derive(Default)]
struct Session {
    next: u64,
    stalled: bool,
    refused: u64,
}

#[derive(Default)]
struct State {
    faults: Faults,
    markets: Vec<(String, EntityId, u64)>,
    bands: Vec<Band>,
    subscribers: Vec<(u16, u64, u64, TcpStream)>,
    sessions: HashMap<(u64, u16), Session>,
    tx: u64,
    ticks: u64,
    firings: u64,
    out_of_order: u64,
}

pub struct Node {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Node {
    pub fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { faults, ..State::default() }));
        let shared = Arc::clone(&state);
        let accept = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // A harness that hangs up in the middle is no business of the node's.
                Builder::new().spawn(move || drop(serve(stream, &shared))).unwrap();
            }
        };
        Builder::new().spawn(accept).unwrap();
        Self { address, state }
    }

    fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn stored(&self) -> u64 {
        self.with(|state| state.markets.iter().map(|(_, _, ticks)| ticks).sum())
    }

    pub fn bands(&self) -> usize {
        self.with(|state| state.bands.len())
    }

    pub fn out_of_order(&self) -> u64 {
        self.with(|state| state.out_of_order)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        inbox.extend_from_slice(&piece[..read]);
        let mut at = 0;
        let mut out = Vec::new();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((frame, taken)) = myelin_wire::decode(&inbox[at..], 1 << 20).unwrap() {
            if !state.frame(&frame, &stream, &mut out) {
                return Ok(());
            }
            at += taken;
        }
        drop(state);
        inbox.drain(..at);
        stream.write_all(&out)?;
    }
}

impl State {
    /// False hangs up.
    fn frame(&mut self, frame: &Frame<'_>, stream: &TcpStream, out: &mut Vec<u8>) -> bool {
        let asked = frame.header;
        let of = |kind| Header {
            session: asked.session,
            request: asked.request,
            shard: asked.shard,
            credit: 256,
            ..Header::new(kind)
        };
        match frame.kind {
            Kind::Hello => write_frame(out, of(Kind::Welcome), &self.welcome(stream)),
            Kind::Ping => write_frame(out, of(Kind::Pong), &[]),
            Kind::Resume => {
                let session = self.sessions.entry((asked.session, asked.shard)).or_default();
                self.out_of_order += u64::from(!session.stalled || session.next != asked.aux);
                session.stalled = false;
            }
            Kind::Credit => {}
            Kind::Count => {
                let market = u64::from_le_bytes(frame.body[8..].try_into().unwrap());
                let found = self.markets.iter().find(|(_, id, _)| id.bits() == market).unwrap();
                write_frame(out, Header { aux: found.2, count: 1, ..of(Kind::Answer) }, &[]);
            }
            Kind::Subscribe => {
                let socket = stream.try_clone().unwrap();
                self.subscribers.push((asked.shard, asked.session, asked.request, socket));
                write_frame(out, of(Kind::Answer), &[]);
            }
            Kind::Ticks | Kind::Markets | Kind::Register | Kind::Remove => {
                if frame.kind == Kind::Ticks && asked.request == self.faults.hang_up_at {
                    return false;
                }
                if let Some(refusal) = self.gate(frame) {
                    write_frame(out, Header { code: refusal.code, aux: refusal.aux, ..of(Kind::Refused) }, b"later");
                    return true;
                }
                self.tx += 1;
                let tx = self.tx;
                match frame.kind {
                    Kind::Ticks => self.ticks(frame, tx),
                    Kind::Markets => {
                        let ids = self.create(frame.body);
                        write_frame(out, Header { tx, ..of(Kind::Answer) }, &ids);
                        return true;
                    }
                    Kind::Register => self.register(frame.body),
                    _ => {
                        let gone: Vec<u64> = bytemuck::pod_collect_to_vec(frame.body);
                        self.bands.retain(|band| !gone.contains(&band.reflex));
                    }
                }
                let body = AckBody { first_bad: u32::MAX, ..AckBody::default() };
                write_frame(out, Header { tx, count: asked.count, ..of(Kind::Ack) }, bytemuck::bytes_of(&body));
            }
            kind => panic!("{kind:?} is not known here"),
        }
        true
    }

    fn welcome(&self, stream: &TcpStream) -> Vec<u8> {
        let shards = self.faults.shards.max(1);
        let slots = (0..shards).map(|shard| SlotRange { first: shard * (4096 / shards), shard }).collect();
        let ports = vec![stream.local_addr().unwrap().port()];
        let shard_cores = vec![0; usize::from(shards)];
        let welcome = Welcome { max_body: 1 << 20, ports, shard_cores, slots, ..Welcome::default() };
        let mut body = Vec::new();
        welcome.write(&mut body);
        body
    }

    /// Order within the session, and `Busy` where it was asked for.
    fn gate(&mut self, frame: &Frame<'_>) -> Option<Header> {
        let asked = frame.header;
        let session = self.sessions.entry((asked.session, asked.shard)).or_default();
        session.next = session.next.max(1);
        let busy = |aux| Some(Header { code: Code::Busy as u16, aux, ..Header::new(Kind::Refused) });
        if session.stalled {
            return busy(session.next);
        }
        let every = self.faults.busy_every;
        let due = frame.kind == Kind::Ticks && every > 0 && asked.request.is_multiple_of(every);
        if due && session.refused != asked.request {
            session.refused = asked.request;
            session.stalled = true;
            return busy(2_000);
        }
        self.out_of_order += u64::from(asked.request != session.next);
        session.next = asked.request + 1;
        None
    }

    fn create(&mut self, body: &[u8]) -> Vec<u8> {
        let mut ids = Vec::new();
        for spec in read_markets(body).map(Result::unwrap) {
            if !self.markets.iter().any(|(name, ..)| name == spec.name) {
                let id = EntityId::market(Slot::of_name(spec.name), self.markets.len() as u32);
                self.markets.push((spec.name.to_owned(), id, 0));
            }
            let found = self.markets.iter().find(|(name, ..)| name == spec.name).unwrap();
            ids.extend_from_slice(&found.1.bits().to_le_bytes());
        }
        ids
    }

    fn register(&mut self, body: &[u8]) {
        let mut cursor = Cursor::new(body);
        while !cursor.is_done() {
            let (reflex, kind) = (cursor.u64().unwrap(), cursor.u8().unwrap());
            let mut numbers = [f64::from_bits(cursor.u64().unwrap()), 0.0];
            if kind > 2 {
                numbers[1] = f64::from_bits(cursor.u64().unwrap());
            }
            assert_eq!(cursor.u8().unwrap(), 1);
            let len = cursor.u8().unwrap();
            let market = String::from_utf8(cursor.take(usize::from(len)).unwrap().to_vec()).unwrap();
            self.bands.push(Band { reflex, market, kind, numbers, was: false });
        }
    }

    fn ticks(&mut self, frame: &Frame<'_>, tx: u64) {
        let rows: Vec<Tick> = bytemuck::pod_collect_to_vec(frame.body);
        assert_eq!(rows.len(), frame.header.count as usize);
        let mut pages: Vec<FiringRow> = Vec::new();
        for (n, tick) in rows.into_iter().enumerate() {
            self.ticks += 1;
            let found = self.markets.iter_mut().find(|(_, id, _)| *id == tick.market).unwrap();
            found.2 += 1;
            found.2 -= u64::from(self.ticks == self.faults.drop_tick);
            found.2 += u64::from(self.ticks == self.faults.double_tick);
            let name = found.0.clone();
            for band in self.bands.iter_mut().filter(|band| band.market == name) {
                let [x, y] = band.numbers;
                let is = match band.kind {
                    1 => tick.price > x,
                    2 => tick.price < x,
                    3 => (x..=y).contains(&tick.price),
                    4 => !(x..=y).contains(&tick.price),
                    kind => panic!("kind {kind}"),
                };
                if is && !band.was {
                    self.firings += 1;
                    let zero: FiringRow = bytemuck::Zeroable::zeroed();
                    let row = FiringRow { reflex: band.reflex, tx, n: n as u32, kind: band.kind, tick, ..zero };
                    if self.firings != self.faults.drop_firing {
                        pages.push(row);
                    }
                    if self.firings == self.faults.repeat_firing {
                        pages.push(row);
                    }
                    if self.firings == self.faults.wrong_firing {
                        pages.push(FiringRow { tx: tx + 1_000_000, ..row });
                    }
                }
                band.was = is;
            }
        }
        let shard = frame.header.shard;
        for (_, session, request, socket) in self.subscribers.iter_mut().filter(|(of, ..)| *of == shard) {
            if pages.is_empty() {
                break;
            }
            let (session, request, count) = (*session, *request, pages.len() as u32);
            let mut out = Vec::new();
            let header = Header { session, request, shard, tx, count, ..Header::new(Kind::Firings) };
            write_frame(&mut out, header, bytemuck::cast_slice(&pages));
            // A subscriber of an earlier run is gone; those of this one are checked by what they miss.
            let _ = socket.write_all(&out);
        }
    }
}
