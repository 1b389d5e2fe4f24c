//! What `net/README.md` draws is what the types are: every table of offsets, kinds and codes, every check value.
//!
//! ```text
//!   "### Header: 64 bytes" -> rows "| 0 | 4 | `magic` |" -> [(0, 4, "magic"), ..] == offset_of!, size of the field
//! ```
//!
//! Bodies without a Rust layout (hello, welcome, lists) are written by the crate and read back at the places the page
//! says. Deliberately absent: the bytes of reflexes, which `tests/python_client.rs` compares.

use core::mem::offset_of;
use myelin_datom::{Datom, EntityId, Quote, Slot, Tick, Tx, Value};
use myelin_wire::{
    AckBody, BarRow, Code, FiringRow, Header, Hello, Kind, LogKind, MarketFlags, MarketSpec, Named, PolicyRow,
    RetainRow, SlotRange, TAIL_ATTRIBUTES_MAX, TAIL_CREDIT_BYTES, TailAsk, TailHead, TopRow, VwapRow, Welcome, decode,
    markets_body, write_frame, write_market_row, write_tail_fact, write_tail_market,
};

const PAGE: &str = include_str!("../../README.md");

/// The lines of the section with this title, up to the next title.
fn section(title: &str) -> impl Iterator<Item = &'static str> {
    let mut lines = PAGE.lines();
    let found = lines.by_ref().any(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == title);
    assert!(found, "the page has no section '{title}'");
    let mut fenced = false;
    lines.take_while(move |line| {
        fenced ^= line.starts_with("```");
        fenced || !line.starts_with('#')
    })
}

/// The cells of the rows of a section's tables, backticks taken off; rows that do not begin with a number left out.
fn rows(title: &str) -> Vec<Vec<&'static str>> {
    let cells =
        |line: &'static str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let rows = section(title).filter(|line| line.starts_with('|')).map(cells);
    rows.filter(|row: &Vec<&str>| row[0].starts_with(|letter: char| letter.is_ascii_digit())).collect()
}

/// Offset, length and name of every row whose offset and length are plain numbers.
fn drawn(title: &str) -> Vec<(usize, usize, &'static str)> {
    let number = |text: &str| text.parse().ok();
    rows(title).iter().filter_map(|row| Some((number(row[0])?, number(row[1])?, row[2]))).collect()
}

/// Offset, length and name of every field, as the compiler has them.
macro_rules! laid_out {
    ($layout:ty: $($field:ident)*) => {{
        let zeroed: $layout = bytemuck::Zeroable::zeroed();
        vec![$((offset_of!($layout, $field), size_of_val(&zeroed.$field), stringify!($field)),)*]
    }};
}

#[test]
fn every_offset_that_is_drawn_is_the_types_offset() {
    let table = [
        (
            "Header: 64 bytes",
            64,
            laid_out!(Header: magic version kind flags body_len body_crc session request tx shard code count aux credit header_crc),
        ),
        (
            "Tick: 64 bytes",
            64,
            laid_out!(Tick: market id event_time_ns price volume trader side flags zero_50 received_delta_us source zero_60),
        ),
        (
            "Quote: 64 bytes",
            64,
            laid_out!(Quote: market id event_time_ns bid bid_volume ask ask_volume source received_delta_us),
        ),
        ("Ack: 16 bytes", 16, laid_out!(AckBody: duplicates refused first_bad first_code)),
        ("Policy to set: 24 bytes", 24, laid_out!(RetainRow: market value kinds keep zero_18)),
        (
            "Policy as listed: 48 bytes",
            48,
            laid_out!(PolicyRow: market value kept dropped horizon kind keep own zero_43),
        ),
        ("Row of a vwap: 40 bytes", 40, laid_out!(VwapRow: market count notional volume vwap)),
        ("Row of a top: 56 bytes", 56, laid_out!(TopRow: market count volume notional first last moved)),
        ("Bar: 64 bytes", 64, laid_out!(BarRow: start_ns open high low close volume count market)),
        (
            "Firing: 128 bytes",
            128,
            laid_out!(FiringRow: reflex tx n kind zero_21 slot value basis received_ns durable_ns fired_ns tick),
        ),
        ("Head of an entry: 24 bytes", 24, laid_out!(TailHead: bytes kind tx n number)),
    ];
    for (title, bytes, fields) in table {
        assert_eq!(drawn(title), fields, "{title}");
        let end = fields.iter().try_fold(0, |at, (offset, size, _)| (*offset == at).then_some(at + size));
        assert_eq!(end, Some(bytes), "{title}: fields without holes, up to the end");
    }
}

#[test]
fn every_kind_and_every_code_stands_in_its_table_and_no_other() {
    let drawn: Vec<(u8, String)> =
        rows("Kinds").iter().map(|row| (row[0].parse().unwrap(), row[1].to_owned())).collect();
    let spoken: Vec<(u8, String)> =
        (0..=255).filter_map(|number| Some((number, format!("{:?}", Kind::from_number(number)?)))).collect();
    assert_eq!(drawn, spoken);
    let drawn: Vec<(u16, &str, u16)> =
        rows("Codes").iter().map(|row| (row[0].parse().unwrap(), row[1], row[2].parse().unwrap())).collect();
    let given: Vec<(u16, &str, u16)> =
        Code::ALL.iter().map(|code| (*code as u16, code.name(), code.http_status())).collect();
    assert_eq!(drawn, given);
}

#[test]
fn the_flags_and_the_check_values_are_those_of_the_code() {
    assert_eq!((Header::PARTIAL, Header::MORE, Header::REPLAYED), (1, 2, 4));
    assert_eq!((MarketFlags::SIGNED, MarketFlags::ASCENDING, MarketFlags::DENSE), (1, 2, 4));
    assert_eq!((myelin_datom::flags::EVENT_TIME_UNKNOWN, myelin_datom::flags::CORRECTION), (1, 2));
    assert!(PAGE.contains(&format!("`{:#010x}`", crc32fast::hash(b"123456789"))));
    for name in ["BTC", "binance-spot:{BTC}USDT", "binance-spot:BTCUSDT"] {
        let row = format!("| `{name}` | {} |", Slot::of_name(name).number());
        assert!(PAGE.contains(&row), "the page lacks: {row}");
    }
    let market = EntityId::market(Slot::new(0xabc).unwrap(), 1);
    assert_eq!(market.bits(), 2 << 60 | 0xabc << 48 | 1 << 28);
}

#[test]
fn the_frame_that_is_printed_is_the_frame_it_claims_to_be() {
    let (_, rest) = PAGE.split_once("```hex\n").unwrap();
    let (hex, _) = rest.split_once("```").unwrap();
    let bytes: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let (frame, taken) = decode(&bytes, 1 << 20).unwrap().unwrap();
    assert_eq!((frame.kind, taken), (Kind::Hello, bytes.len()));
    let expected = Hello { client: "probe", capabilities: 0, credential_kind: 0, credential: "" };
    assert_eq!(Hello::read(frame.body), Ok(expected));
}

#[test]
fn bodies_of_changing_length_have_their_fields_where_the_page_says() {
    let at = |title: &str, field: &str| {
        let row = drawn(title).into_iter().find(|(_, _, name)| *name == field);
        row.map(|(offset, bytes, _)| offset..offset + bytes).unwrap_or_else(|| panic!("{title} draws no {field}"))
    };
    let mut body = Vec::new();
    Hello { client: "ab", capabilities: 0x11, credential_kind: 1, credential: "xyz" }.write(&mut body);
    assert_eq!(body[at("Body of a hello", "capabilities")], 0x11_u64.to_le_bytes());
    assert_eq!(body[at("Body of a hello", "credential_kind")], [1]);
    // client at 9: 2 + n; credential at 11 + n: 2 + m; n = 2, m = 3.
    assert_eq!(&body[9..], b"\x02\0ab\x03\0xyz");

    let welcome = Welcome {
        node: 0x11,
        capabilities: 0x22,
        max_body: 0x33,
        core: 0x44,
        table: 0x55,
        ports: vec![0x66, 0x77],
        shard_cores: vec![0, 1, 0],
        slots: vec![SlotRange { first: 0, shard: 2 }],
    };
    let mut body = Vec::new();
    welcome.write(&mut body);
    let fields: [(&str, &[u8]); 6] = [
        ("node", &0x11_u64.to_le_bytes()),
        ("capabilities", &0x22_u64.to_le_bytes()),
        ("max_body", &0x33_u32.to_le_bytes()),
        ("table", &0x55_u32.to_le_bytes()),
        ("core", &0x44_u16.to_le_bytes()),
        ("ports", &2_u16.to_le_bytes()),
    ];
    for (field, bytes) in fields {
        assert_eq!(&body[at("Body of a welcome", field)], bytes, "{field}");
    }
    let (p, s, r) = (2, 3, 1);
    assert_eq!(body[28..32], [0x66, 0, 0x77, 0]);
    assert_eq!(body[28 + 2 * p..30 + 2 * p], [3, 0]);
    assert_eq!(body[30 + 2 * p..30 + 2 * p + 2 * s], [0, 0, 1, 0, 0, 0]);
    assert_eq!(body[30 + 2 * p + 2 * s..], [1, 0, 0, 0, 2, 0]);
    assert_eq!(body.len(), 32 + 2 * p + 2 * s + 4 * r);

    let mut body = Vec::new();
    markets_body(
        &mut body,
        [MarketSpec { flags: MarketFlags(5), name: "ab" }, MarketSpec { flags: MarketFlags(0), name: "c" }],
    );
    assert_eq!(body, b"\x05\x02\0ab\0\x01\0c");

    let mut body = Vec::new();
    write_market_row(&mut body, EntityId::from_bits(0x11), MarketFlags(3), 0x22, 0x33, "ab");
    let title = "Row of a market list";
    for (field, number) in [("id", 0x11_u64), ("ticks", 0x22), ("quotes", 0x33)] {
        assert_eq!(body[at(title, field)], number.to_le_bytes(), "{field}");
    }
    assert_eq!(body[at(title, "flags")], [3]);
    assert_eq!(&body[25..], b"\x02\0ab");

    let title = "Body of a tail";
    let mut body = Vec::new();
    let entity = EntityId::from_bits(0x33);
    let (named, attributes) = (Named::Like("a*"), &["x/y", "z"][..]);
    TailAsk { since: 0x11, kinds: 0x22, entity, named, attributes }.write(&mut body);
    assert_eq!(body[at(title, "since")], 0x11_u64.to_le_bytes());
    assert_eq!(body[at(title, "kinds")], 0x22_u32.to_le_bytes());
    assert_eq!(body[at(title, "zero")], [0; 4]);
    assert_eq!(body[at(title, "entity")], 0x33_u64.to_le_bytes());
    assert_eq!(&body[24..], b"\x02\x02a*\x03\0x/y\x01\0z");
    let mut body = Vec::new();
    TailAsk::all(0).write(&mut body);
    assert_eq!(&body[24..], b"\x03");
    let mut body = Vec::new();
    write_tail_market(&mut body, 0x11, 0x22, entity, MarketFlags(3), "ab");
    assert_eq!(&body[24..], b"\x33\0\0\0\0\0\0\0\x03\x02\0ab\0\0\0");
    let datom =
        Datom { e: entity, a: EntityId::from_bits(0x44), v: Value::I64(7), tx: Tx::from_bits(0x11), added: true };
    let (mut body, mut drawn_datom) = (Vec::new(), Vec::new());
    write_tail_fact(&mut body, 5, &datom, "x/y");
    datom.write(&mut drawn_datom);
    let title = "Head of an entry: 24 bytes";
    assert_eq!(body[at(title, "kind")], 4_u32.to_le_bytes());
    assert_eq!(
        (&body[at(title, "tx")], &body[at(title, "n")]),
        (&0x11_u64.to_le_bytes()[..], &5_u32.to_le_bytes()[..])
    );
    assert_eq!(body[at(title, "bytes")], (body.len() as u32).to_le_bytes());
    assert!(body[24..].starts_with(&[&drawn_datom[..], b"\x03\0x/y"].concat()));
    assert!(PAGE.contains(&format!("a credit for every {TAIL_CREDIT_BYTES} bytes begun")));
    assert!(PAGE.contains(&format!("idents, texts, at most {TAIL_ATTRIBUTES_MAX}: facts only")));
    for (kind, name) in LogKind::ALL.into_iter().zip(["tick", "quote", "market", "fact"]) {
        assert!(
            PAGE.contains(&format!("{} {name}", kind as u32))
                && PAGE.contains(&format!("bit {} {name}s", kind as u32 - 1))
        );
    }
    // An `End` has no body: it is its header.
    let mut frame = Vec::new();
    write_frame(&mut frame, Header { session: 0x11, request: 0x22, shard: 3, ..Header::new(Kind::End) }, &[]);
    let title = "Header: 64 bytes";
    assert_eq!((frame.len(), frame[5]), (64, 27));
    assert_eq!(frame[at(title, "session")], 0x11_u64.to_le_bytes());
    assert_eq!(frame[at(title, "request")], 0x22_u64.to_le_bytes());
    assert_eq!(frame[at(title, "shard")], 3_u16.to_le_bytes());

    // The body of a subscribe is read by the shard, a field at a time; here only that the drawing has no holes.
    let end =
        drawn("Body of a subscribe").iter().try_fold(0, |at, (offset, size, _)| (*offset == at).then_some(at + size));
    assert_eq!(end, Some(32));
}

#[test]
fn the_transaction_that_is_printed_is_the_one_it_claims_to_be() {
    use myelin_datom::{AttributeName, Entity, Given, Op, Transaction, Value};
    let op = Op::Assert { e: Entity::temp("a"), a: AttributeName::ident("n"), v: Given::Value(Value::I64(7)) };
    let mut body = Vec::new();
    Transaction { partition: "main".into(), ops: vec![op] }.write(&mut body);
    let hex: Vec<String> = body.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(PAGE.contains(&format!("`{}`", hex.join(" "))), "the page lacks: {}", hex.join(" "));
}
