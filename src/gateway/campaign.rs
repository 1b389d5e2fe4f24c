//! The gateway's bodies against mutated inputs: every form of rows, packed and not, and bombs.
//!
//! A packed body is mutated where it is packed, so that the unpacker is tried, or before it is packed, so that what reads the
//! rows is reached. A bomb is kilobytes that unpack to 17 MiB or to 256 MiB.

use super::body::{Room, unpack_zstd};
use super::failure::Failure;
use super::limits;
use super::rows::{Form, Rows, read};
use myelin_datom::{Quote, Row, Tick};
use myelin_feed::RowKind;
use myelin_mutants::{Depth, campaign, campaign_with, mutant};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use zstd::stream::read::Encoder;
use zstd::zstd_safe::{CCtx, CParameter, DCtx};

const TICKS: &str = concat!(
    r#"{"market":"v:BTC","id":"18446744073709551615","event_time_ns":1723161255342000000,"price":"61837.63","volume":0.02,"side":"sell"}"#,
    "\n",
    r#"{"price":1e2,"volume":"0","market":"\u00e9\ud83d\ude00\/","event_time":"1970-01-01T00:00:00.5Z","side":1,"id":7,"corrects":true}"#,
    "\n",
);
const QUOTES: &str = concat!(
    r#"{"market":"m","bid":1,"bid_volume":"2","ask":3.5E-1,"ask_volume":4,"event_time_s":5,"received_time":"2024-08-08T00:00:00+01:00"}"#,
    "\n",
    r#"{"market":"m","bid":1,"bid_volume":"2","ask":3,"ask_volume":4,"event_time_us":6}"#,
    "\n",
);

/// Sound bodies, each with its form.
fn sound() -> Vec<(Form, Vec<u8>)> {
    let array = |lines: &str| format!("[{}]", lines.trim_end().replace('\n', ","));
    let rows: Vec<Tick> = vec![Tick { price: 1.0, ..bytemuck::Zeroable::zeroed() }; 2];
    vec![
        (Form::Json, array(TICKS).into_bytes()),
        (Form::Json, format!("{{\"ticks\": {}}}", array(TICKS)).into_bytes()),
        (Form::Json, format!(" {{\"quotes\":\n{}}}", array(QUOTES)).into_bytes()),
        (Form::Ndjson, TICKS.as_bytes().to_vec()),
        (Form::Ndjson, QUOTES.as_bytes().to_vec()),
        (Form::Raw, bytemuck::cast_slice(&rows).to_vec()),
    ]
}

/// What must be true of rows, however their body came about.
fn check(rows: &Rows, form: Form) {
    assert!(rows.ticks.is_empty() || rows.quotes.is_empty());
    assert_eq!(rows.ticks.len() + rows.quotes.len(), rows.places.len());
    assert!(rows.places.is_sorted_by(|one, next| one < next), "places ascend");
    assert!(rows.bad.len() <= limits::BAD_ROWS && rows.bad.len() <= rows.refused as usize);
    if form != Form::Raw {
        assert!(rows.markets.len() == rows.places.len());
        assert!(rows.markets.iter().all(|market| (*market as usize) < rows.names.len()));
    }
}

/// Reads as the handler does.
fn taken(form: Form, kind: Option<RowKind>, bytes: &[u8]) -> Result<(), Failure> {
    let mut rows = read(form, kind, bytes)?;
    check(&rows, form);
    if form == Form::Raw {
        rows.leave_out_flawed();
        check(&rows, form);
        assert!(rows.ticks.iter().all(|row: &Tick| row.flaw().is_none()));
        assert!(rows.quotes.iter().all(|row: &Quote| row.flaw().is_none()));
    }
    Ok(())
}

#[test]
fn campaign_no_body_breaks_the_reader_of_rows() {
    let sound = sound();
    let bodies: Vec<_> = sound.iter().map(|(_, body)| body.clone()).collect();
    campaign("gateway-bodies", 5_000, 1, |dice| {
        let (form, body) = dice.pick(&sound);
        let bytes = if dice.one_in(8) { mutant(dice, &bodies) } else { mutant(dice, std::slice::from_ref(body)) };
        let kind = *dice.pick(&[None, Some(RowKind::Ticks), Some(RowKind::Quotes)]);
        match taken(*form, kind, &bytes) {
            Ok(()) => Depth::Taken,
            Err(failure) => {
                assert!(!failure.words().code.is_empty());
                Depth::Inside
            }
        }
    });
}

/// So many MiB of zeros, packed without holding them.
fn bomb_of(mebibytes: u64) -> Vec<u8> {
    let mut packer = zstd::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(mebibytes << 20), &mut packer).unwrap();
    packer.finish().unwrap()
}

/// What packs and what unpacks, made once: on a virtual machine that takes longer than the rest of a trial.
struct Zstd {
    packer: CCtx<'static>,
    unpacker: DCtx<'static>,
}

impl Zstd {
    fn new() -> Self {
        let mut packer = CCtx::create();
        packer.set_parameter(CParameter::CompressionLevel(1)).unwrap();
        Self { packer, unpacker: DCtx::create() }
    }

    fn pack(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        Encoder::with_context(bytes, &mut self.packer).read_to_end(&mut packed).unwrap();
        packed
    }
}

#[test]
fn campaign_no_packed_body_breaks_the_unpacker_and_bombs_are_refused() {
    let sound = sound();
    let mut zstd = Zstd::new();
    let packed: Vec<_> = sound.iter().map(|(_, body)| zstd.pack(body)).collect();
    let many: Vec<u8> = TICKS.as_bytes().repeat(40);
    let (many, bombs) = (zstd.pack(&many), [17, 256].map(bomb_of));
    assert!(bombs.iter().all(|bomb| bomb.len() < 64 << 10), "a bomb is short");
    let room = Room::new();
    let bombs_refused = AtomicU64::new(0);
    campaign_with("gateway-packed", 5_000, 1, Zstd::new, |zstd, dice| {
        let at = dice.below(sound.len());
        let (form, body) = &sound[at];
        let bomb = dice.one_in(2_000);
        let bytes = match dice.below(4) {
            _ if bomb => dice.pick(&bombs).clone(),
            0 => zstd.pack(&mutant(dice, std::slice::from_ref(body))),
            1 | 2 => mutant(dice, std::slice::from_ref(&packed[at])),
            _ => mutant(dice, std::slice::from_ref(&many)),
        };
        let plain = match unpack_zstd(&bytes, &mut zstd.unpacker, &mut room.hold()) {
            Ok(plain) => plain,
            Err(failure) => {
                assert!(!bomb || failure.words().code == "oversize");
                bombs_refused.fetch_add(u64::from(bomb), Ordering::Relaxed);
                return Depth::Outside;
            }
        };
        assert!(!bomb && plain.len() <= limits::DECODED_BYTES, "a bomb went off");
        if taken(*form, None, &plain).is_ok() { Depth::Taken } else { Depth::Inside }
    });
    println!("gateway-packed: {} bombs were refused", bombs_refused.into_inner());
}
