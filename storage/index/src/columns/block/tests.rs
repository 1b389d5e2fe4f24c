//! Blocks as bytes: where a moment is found, what version 1 looked like, and what is malformed.

use super::*;
use myelin_datom::Tick;

/// Rows of transactions that bring one, two, three .. rows.
fn draft(transactions: u64) -> Draft {
    let mut draft = Draft::default();
    for n in 0..transactions {
        draft.begin(Tx::from_bits(1_000 + n * n));
        for row in 0..=n % 3 {
            draft.rows += 1;
            draft.columns[..Tick::SPECS.len()].iter_mut().for_each(|column| column.push(n * 3 + row));
        }
    }
    draft
}

fn encoded(draft: &Draft) -> (Vec<u8>, FileDecompressor) {
    let mut bytes = Vec::new();
    encode::<Tick>(draft, &mut Encoder::default(), &mut bytes);
    let mut header = Vec::new();
    pco::wrapped::FileCompressor::default().write_header(&mut header).unwrap();
    (bytes, FileDecompressor::new(header.as_slice()).unwrap().0)
}

#[test]
fn a_moment_and_a_row_are_found_in_one_page_of_transactions() {
    let draft = draft(3 * PAGE_TXS as u64 + 7);
    let (bytes, pco) = encoded(&draft);
    let block = Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).unwrap();
    assert!(block.runs(&pco).unwrap() == draft.runs);
    let mut pages = Vec::new();
    for (at, run) in draft.runs.iter().enumerate() {
        let by_tx = block.tx_page(|head| head.tx <= run.tx).unwrap();
        assert_eq!(by_tx, block.tx_page(|head| head.first <= run.first).unwrap());
        assert_eq!(by_tx.number, at / PAGE_TXS);
        let end = draft.runs.get((by_tx.number + 1) * PAGE_TXS).map_or(draft.rows as u32, |next| next.first);
        assert_eq!(by_tx.end, end);
        if at % PAGE_TXS == 0 {
            pages.extend(block.runs_of(&pco, by_tx.number).unwrap());
        }
    }
    assert!(pages == draft.runs);
}

/// The same rows as version 1 laid them out: no heads, page ends of all columns, then of each metadata and pages.
fn version_1(bytes: &[u8], rows: usize) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
    let columns = Tick::SPECS.len() + 2;
    let table: Vec<usize> = (0..columns).map(|column| HEADER_BYTES + column * ENTRY_BYTES).collect();
    let zones_end = HEADER_BYTES + columns * ENTRY_BYTES + rows.div_ceil(PAGE_ROWS) * ZONE_BYTES;
    let (mut out, mut tail) = (bytes[..zones_end].to_vec(), Vec::new());
    out[12..14].fill(0);
    let ends_len: usize = table.iter().map(|entry| u32_at(entry + 28) * 4).sum();
    for entry in table {
        let (meta, pages, pages_len) = (u32_at(entry + 4), u32_at(entry + 8), u32_at(entry + 12));
        let (ends, count) = (u32_at(entry + 24), u32_at(entry + 28));
        let places = [zones_end + ends_len + tail.len(), meta + pages_len, out.len()];
        for (field, place) in [8, 12, 24].into_iter().zip(places) {
            out[entry + field..entry + field + 4].copy_from_slice(&(place as u32).to_le_bytes());
        }
        out.extend_from_slice(&bytes[ends..ends + 4 * count]);
        tail.extend_from_slice(&bytes[ends + 4 * count..ends + 4 * count + meta]);
        tail.extend_from_slice(&bytes[pages..pages + pages_len]);
    }
    [out, tail].concat()
}

#[test]
fn a_block_of_version_1_is_still_read() {
    let draft = draft(PAGE_TXS as u64);
    let (bytes, pco) = encoded(&draft);
    let bytes = version_1(&bytes, draft.rows);
    let block = Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).unwrap();
    assert!(block.runs(&pco).unwrap() == draft.runs);
    assert_eq!(block.tx_page(|_| true).unwrap(), TxPage { number: 0, end: draft.rows as u32 });
    for column in 0..Tick::SPECS.len() {
        let mut cells = vec![0; block.page_rows(0)];
        block.column(&pco, column).unwrap().page(0, &mut cells).unwrap();
        assert!(cells == draft.columns[column][..cells.len()]);
    }
}

#[test]
fn a_page_of_transactions_that_is_not_where_its_head_says_is_malformed() {
    let draft = draft(2 * PAGE_TXS as u64);
    let (bytes, pco) = encoded(&draft);
    let columns = Tick::SPECS.len() + 2;
    let heads_at = HEADER_BYTES + columns * ENTRY_BYTES + draft.rows.div_ceil(PAGE_ROWS) * ZONE_BYTES;
    for at in [heads_at + HEAD_BYTES, heads_at + HEAD_BYTES + 8] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let block = Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).unwrap();
        assert!(block.runs(&pco).is_err() && block.runs_of(&pco, 1).is_err());
    }
    for at in [12, 14] {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        assert!(Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).is_err());
    }
}

/// What the page before it ends with: more rows than there are, or none.
#[test]
fn a_head_that_is_not_within_the_block_or_not_behind_its_page_is_malformed() {
    let draft = draft(2 * PAGE_TXS as u64);
    let (bytes, pco) = encoded(&draft);
    let columns = Tick::SPECS.len() + 2;
    let heads_at = HEADER_BYTES + columns * ENTRY_BYTES + draft.rows.div_ceil(PAGE_ROWS) * ZONE_BYTES;
    let first_at = heads_at + HEAD_BYTES + 8;
    for first in [0, draft.rows as u64, u64::from(u32::MAX), 1 << 32 | 900] {
        let mut bytes = bytes.clone();
        bytes[first_at..first_at + 8].copy_from_slice(&first.to_le_bytes());
        let block = Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).unwrap();
        assert!(block.tx_page(|_| false).is_err(), "{first}");
    }
    let mut bytes = bytes;
    bytes[first_at..first_at + 8].copy_from_slice(&900_u64.to_le_bytes());
    let block = Block::new(&bytes, draft.rows as u32, Tick::SPECS.len()).unwrap();
    assert!(block.runs_of(&pco, 0).is_err(), "the page before it reaches further");
}
