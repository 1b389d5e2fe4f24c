//! A small node that speaks the wire and keeps what it is told, with faults on request. One task, no disk.

use myelin_client::datom::{Slot, Tick, Tx};
use myelin_client::wire::{
    AckBody, Code, FiringRow, Header, Kind, SlotRange, Welcome, decode, read_markets, write_frame,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the node does wrong, once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Answers this request with `Busy`, and stalls the session until it resumes.
    Busy { request: u64 },
    /// Executes this request and cuts the line instead of answering.
    CutAfter { request: u64 },
    /// Answers a request that nobody made, instead of this one.
    Stray { request: u64 },
    /// Cuts the line after so many firings.
    CutFirings { sent: u64 },
}

#[derive(Debug, Default)]
pub struct State {
    pub faults: Vec<Fault>,
    pub ports: Vec<u16>,
    pub credit: u32,
    /// Per shard: ids of the ticks stored, in order.
    pub stored: HashMap<u16, Vec<u64>>,
    /// The next request per session and shard.
    next: HashMap<(u64, u16), u64>,
    pub resumes: Vec<u64>,
    pub hellos: u32,
    /// The cores that frames of each shard came to.
    pub came_to: HashMap<u16, Vec<u16>>,
    pub subscribed_after: Vec<u64>,
    pub credits: u64,
    /// The subscriptions that were ended by their client.
    pub ended: Vec<u64>,
    pub most_at_once: usize,
    /// How many firings a subscriber gets in all.
    pub firings: u64,
}

pub type Shared = Arc<Mutex<State>>;

/// Starts a node with a shard on each of `cores` cores.
pub async fn start(cores: u16, credit: u32, faults: &[Fault]) -> (String, Shared) {
    let shared = Shared::default();
    let mut listeners = Vec::new();
    for _ in 0..cores {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    {
        let mut state = shared.lock().unwrap();
        state.ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        state.credit = credit;
        state.faults = faults.to_vec();
    }
    let addr = listeners[0].local_addr().unwrap().to_string();
    for (core, listener) in listeners.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, core as u16, Arc::clone(&shared)));
            }
        });
    }
    (addr, shared)
}

/// A name that lives on the shard.
pub fn name_on(shard: u16, cores: u16) -> String {
    let on = |name: &String| Slot::of_name(name).number() / (4096 / cores) == shard;
    (0..).map(|n| format!("fake:M{n}")).find(on).unwrap()
}

/// One connection.
struct Conversation {
    core: u16,
    shared: Shared,
    stalled: HashMap<(u64, u16), u64>,
    out: Vec<u8>,
    /// Frames of one turn: answers come only when all that was there is read.
    at_once: usize,
}

async fn serve(mut stream: TcpStream, core: u16, shared: Shared) {
    let mut conversation = Conversation { core, shared, stalled: HashMap::new(), out: Vec::new(), at_once: 0 };
    let mut bytes = Vec::new();
    while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
        conversation.at_once = 0;
        let mut at = 0;
        let mut go_on = true;
        while let Some((frame, taken)) = decode(&bytes[at..], 1 << 20).unwrap() {
            at += taken;
            go_on &= conversation.hear(&frame.header, frame.kind, frame.body);
            if !go_on {
                break;
            }
        }
        bytes.drain(..at);
        if stream.write_all(&std::mem::take(&mut conversation.out)).await.is_err() || !go_on {
            return;
        }
    }
}

impl Conversation {
    fn say(&mut self, to: &Header, kind: Kind, header: Header, body: &[u8]) {
        let credit = self.shared.lock().unwrap().credit;
        let (session, request, shard) = (to.session, to.request, to.shard);
        write_frame(&mut self.out, Header { session, request, shard, credit, kind: kind as u8, ..header }, body);
    }

    fn refuse(&mut self, to: &Header, code: Code, aux: u64) {
        let header = Header { code: code as u16, aux, count: u32::MAX, ..Header::new(Kind::Refused) };
        self.say(to, Kind::Refused, header, b"");
    }

    fn fault(&mut self, fault: Fault) -> bool {
        let faults = &mut self.shared.lock().unwrap().faults;
        let at = faults.iter().position(|one| *one == fault);
        at.map(|at| faults.remove(at)).is_some()
    }

    /// False: the line is cut.
    fn hear(&mut self, header: &Header, kind: Kind, body: &[u8]) -> bool {
        match kind {
            Kind::Hello => self.welcome(header),
            Kind::Ticks | Kind::Markets => return self.write(header, kind, body),
            Kind::Resume => {
                self.stalled.remove(&(header.session, header.shard));
                self.shared.lock().unwrap().resumes.push(header.aux);
            }
            Kind::Count => {
                let count = self.shared.lock().unwrap().stored.get(&header.shard).map_or(0, Vec::len) as u64;
                assert_eq!(header.session, 0);
                self.say(header, Kind::Answer, Header { aux: count, tx: header.tx, ..Header::new(kind) }, &[]);
            }
            Kind::Now => {
                self.say(header, Kind::Answer, Header { tx: 100 + u64::from(header.shard), ..Header::new(kind) }, &[])
            }
            Kind::Subscribe => return self.subscribe(header, body),
            Kind::Credit => self.shared.lock().unwrap().credits += u64::from(header.count),
            Kind::End => {
                self.shared.lock().unwrap().ended.push(header.session);
                self.say(header, Kind::Ended, Header::new(kind), &[]);
            }
            Kind::Ping => self.say(header, Kind::Pong, Header::new(kind), &[]),
            other => panic!("the fake does not know {other:?}"),
        }
        true
    }

    fn welcome(&mut self, header: &Header) {
        let ports = {
            let mut state = self.shared.lock().unwrap();
            state.hellos += 1;
            state.ports.clone()
        };
        let cores = ports.len() as u16;
        let welcome = Welcome {
            node: 5,
            max_body: 1 << 20,
            core: self.core,
            shard_cores: (0..cores).collect(),
            slots: (0..cores).map(|shard| SlotRange { first: shard * (4096 / cores), shard }).collect(),
            ports,
            ..Welcome::default()
        };
        let mut body = Vec::new();
        welcome.write(&mut body);
        self.say(header, Kind::Welcome, Header::new(Kind::Welcome), &body);
    }

    fn write(&mut self, header: &Header, kind: Kind, body: &[u8]) -> bool {
        let key = (header.session, header.shard);
        let request = header.request;
        self.at_once += 1;
        {
            let mut state = self.shared.lock().unwrap();
            state.most_at_once = state.most_at_once.max(self.at_once);
            state.came_to.entry(header.shard).or_default().push(self.core);
        }
        if let Some(next) = self.stalled.get(&key) {
            let next = *next;
            self.refuse(header, Code::Busy, next);
            return true;
        }
        if self.fault(Fault::Busy { request }) {
            self.stalled.insert(key, request);
            self.refuse(header, Code::Busy, 1000);
            return true;
        }
        let next = self.shared.lock().unwrap().next.get(&key).copied().unwrap_or(1);
        if request > next {
            self.refuse(header, Code::SessionGap, next);
            return true;
        }
        if request == next {
            let mut state = self.shared.lock().unwrap();
            state.next.insert(key, next + 1);
            if kind == Kind::Ticks {
                let ids = body.chunks_exact(64).map(|row| bytemuck::pod_read_unaligned::<Tick>(row).id);
                state.stored.entry(header.shard).or_default().extend(ids);
            }
        }
        if self.fault(Fault::CutAfter { request }) {
            return false;
        }
        if self.fault(Fault::Stray { request }) {
            self.say(&Header { request: 9999, ..*header }, Kind::Ack, Header::new(Kind::Ack), &[]);
            return true;
        }
        self.answer_write(header, kind, body);
        true
    }

    fn answer_write(&mut self, header: &Header, kind: Kind, body: &[u8]) {
        let tx = Tx::at_millis(1000).bits() + header.request;
        if kind == Kind::Markets {
            let id = |name: &str| (2_u64 << 60 | u64::from(Slot::of_name(name).number()) << 48).to_le_bytes();
            let ids: Vec<u8> = read_markets(body).flat_map(|spec| id(spec.unwrap().name)).collect();
            self.say(header, Kind::Answer, Header { tx, count: header.count, ..Header::new(kind) }, &ids);
        } else {
            let ack = AckBody { first_bad: u32::MAX, ..AckBody::default() };
            self.say(
                header,
                Kind::Ack,
                Header { tx, count: header.count, ..Header::new(kind) },
                bytemuck::bytes_of(&ack),
            );
        }
    }

    /// Gives firings 1, 2, 3 .. as far as the first credit goes.
    fn subscribe(&mut self, header: &Header, body: &[u8]) -> bool {
        let after = u64::from_le_bytes(body[8..16].try_into().unwrap());
        let firings = {
            let mut state = self.shared.lock().unwrap();
            state.subscribed_after.push(after);
            state.firings
        };
        self.say(header, Kind::Answer, Header { tx: 0, ..Header::new(Kind::Answer) }, &[]);
        for tx in (after + 1..=firings).take(header.count as usize) {
            let row = FiringRow { tx, reflex: 8, ..bytemuck::Zeroable::zeroed() };
            self.say(
                header,
                Kind::Firings,
                Header { count: 1, tx, ..Header::new(Kind::Firings) },
                bytemuck::bytes_of(&row),
            );
            if self.fault(Fault::CutFirings { sent: tx }) {
                return false;
            }
        }
        true
    }
}
