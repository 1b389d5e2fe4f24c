//! Whatever the bytes: no panic, bounded memory, and what is taken is what was meant.
//!
//! Frames are mutated, in half of the trials sealed again with right checksums, and what decodes is read as the body of its
//! kind; bodies are mutated on their own, too, and what is taken must be written back to the same bytes. The kinds that only
//! a shard reads are in `src/shard/campaign.rs`.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use myelin_datom::EntityId;
use myelin_mutants::{Depth, Dice, campaign, mutant};
use myelin_wire::{
    AckBody, Attribute, FIRING_BYTES, FiringRow, HEADER_BYTES, Header, Hello, Kind, MarketFlags, MarketSpec, SlotRange,
    Welcome, decode, framed_len, markets_body, read_market_rows, read_markets, write_frame, write_market_row,
};

const BODY_BYTES_MAX: u32 = 4096;

fn hello() -> Vec<u8> {
    let mut body = Vec::new();
    Hello { client: "a client", capabilities: 3, credential_kind: 1, credential: "a token" }.write(&mut body);
    body
}

fn welcome() -> Vec<u8> {
    let slots = vec![SlotRange { first: 0, shard: 0 }, SlotRange { first: 2048, shard: 1 }];
    let (ports, shard_cores) = (vec![7400, 7401], vec![0, 1]);
    let mut body = Vec::new();
    Welcome { node: 9, capabilities: 0, max_body: 1 << 20, core: 1, table: 1, ports, shard_cores, slots }
        .write(&mut body);
    body
}

fn markets() -> Vec<u8> {
    let mut body = Vec::new();
    let spec = |flags, name| MarketSpec { flags: MarketFlags(flags), name };
    markets_body(&mut body, [spec(0, "venue:BTCUSDT"), spec(7, "b"), spec(2, "über:{ETH}USDT")]);
    body
}

fn listed() -> Vec<u8> {
    let mut body = Vec::new();
    write_market_row(&mut body, EntityId::from_bits(5), MarketFlags(1), 10, 20, "venue:BTCUSDT");
    write_market_row(&mut body, EntityId::from_bits(6), MarketFlags(0), 0, u64::MAX, "");
    body
}

/// A frame of every kind, with a body as it has one.
fn frames() -> Vec<Vec<u8>> {
    let kinds = (0..=u8::MAX).filter_map(Kind::from_number);
    let frame = |kind: Kind| {
        let body = match kind {
            Kind::Hello => hello(),
            Kind::Welcome => welcome(),
            Kind::Markets => markets(),
            Kind::Answer => listed(),
            Kind::Ack => bytemuck::bytes_of(&AckBody { duplicates: 1, ..AckBody::default() }).to_vec(),
            Kind::Ticks | Kind::Quotes => vec![1; 128],
            Kind::Firings => vec![2; 2 * FIRING_BYTES],
            Kind::Refused => b"a sentence".to_vec(),
            _ => vec![0; 16],
        };
        let mut bytes = Vec::new();
        let header = Header { session: 7, request: 9, tx: 1 << 40, shard: 1, count: 2, aux: 3, ..Header::new(kind) };
        write_frame(&mut bytes, header, &body);
        bytes
    };
    kinds.map(frame).collect()
}

/// Makes both checksums right again; in half of the cases the length as well.
fn seal(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    if dice.one_in(2) {
        let body = (bytes.len() - HEADER_BYTES) as u32;
        bytes[8..12].copy_from_slice(&body.to_le_bytes());
        bytes.resize(framed_len(body as usize), 0);
    }
    let claimed = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    if let Some(body) = bytes.get(HEADER_BYTES..HEADER_BYTES.saturating_add(claimed)) {
        let crc = crc32fast::hash(body);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    // A wrong magic or version ends it all too early to be of interest every time.
    if dice.one_in(2) {
        bytes[..5].copy_from_slice(b"MYLN\x01");
    }
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a body as who receives its kind does; true if it was taken.
fn read_body(kind: Kind, header: &Header, body: &[u8]) -> bool {
    match kind {
        Kind::Hello => Hello::read(body).is_ok(),
        Kind::Welcome => Welcome::read(body).is_ok(),
        Kind::Markets => read_markets(body).all(|spec| spec.is_ok()),
        Kind::Answer => read_market_rows(body).is_ok(),
        Kind::Ack => body.get(..16).is_some_and(|ack| bytemuck::try_pod_read_unaligned::<AckBody>(ack).is_ok()),
        Kind::Firings => {
            let rows = body.chunks_exact(FIRING_BYTES).map(bytemuck::pod_read_unaligned::<FiringRow>);
            rows.count() == header.count as usize
        }
        Kind::Count => Attribute::from_number(header.aux).is_some(),
        _ => true,
    }
}

#[test]
fn campaign_no_bytes_break_the_decoder_of_frames() {
    let corpus = frames();
    campaign("wire-frames", 20_000, 1, |dice| {
        // Two frames in a row, as they come from a socket.
        let mut bytes = mutant(dice, &corpus);
        let sealed = dice.one_in(2);
        if sealed {
            seal(dice, &mut bytes);
        }
        let next: &Vec<u8> = dice.pick(&corpus);
        bytes.extend_from_slice(next);
        let (mut at, mut depth) = (0, Depth::Outside);
        while at < bytes.len() {
            match decode(&bytes[at..], BODY_BYTES_MAX) {
                Ok(Some((frame, taken))) => {
                    assert!(taken >= HEADER_BYTES && taken <= bytes.len() - at, "no more is taken than is there");
                    assert!(frame.body.len() <= BODY_BYTES_MAX as usize);
                    let whole = read_body(frame.kind, &frame.header, frame.body);
                    if at == 0 {
                        depth = if whole { Depth::Taken } else { Depth::Inside };
                    }
                    at += taken;
                }
                // More bytes are awaited, but never more than a frame of the longest body.
                Ok(None) => {
                    assert!(bytes.len() - at < framed_len(BODY_BYTES_MAX as usize));
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    if at == 0 && sealed && bytes.len() >= HEADER_BYTES {
                        depth = Depth::Inside;
                    }
                    break;
                }
            }
        }
        depth
    });
}

#[test]
fn campaign_no_body_breaks_its_reader_and_what_is_taken_is_written_back_alike() {
    let corpus = [hello(), welcome(), markets(), listed()];
    campaign("wire-bodies", 20_000, 1, |dice| {
        let body = mutant(dice, &corpus);
        let mut again = Vec::new();
        let mut taken = false;
        if let Ok(hello) = Hello::read(&body) {
            hello.write(&mut again);
            assert_eq!(again, body);
            taken = true;
        }
        if let Ok(welcome) = Welcome::read(&body) {
            again.clear();
            welcome.write(&mut again);
            assert_eq!(again, body);
            taken = true;
        }
        let specs: Result<Vec<_>, _> = read_markets(&body).collect();
        if let Ok(specs) = specs {
            again.clear();
            markets_body(&mut again, specs);
            assert_eq!(again, body);
            taken = true;
        }
        if let Ok(rows) = read_market_rows(&body) {
            again.clear();
            for row in rows {
                write_market_row(&mut again, row.id, row.flags, row.ticks, row.quotes, &row.name);
            }
            assert_eq!(again, body);
            taken = true;
        }
        if taken { Depth::Taken } else { Depth::Inside }
    });
}
