//! Writing a run of facts: order after order, block after block, then the directory.
//!
//! ```text
//!   [header][EAVT blocks][AEVT blocks][AVET blocks][VAET blocks][TEAV blocks][directory: entries, first keys, retractions][footer]
//!   block    keys u32 | end of each key u32 .. | keys
//! ```
//! Every byte is drawn in `README.md`. Invariants: keys come in ascending order; the file is front to back. Deliberately
//! absent: when to write, and how fast.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use myelin_datom::{EntityId, Tx};

use super::directory::{BlockEntry, FAMILY, Taken, write_header};
use super::key::{self, KeyRef, Order};
use super::prune::Thinning;
use super::{FACTS_KIND, FactFloors, FrozenFacts};
use crate::file::NewFile;
use crate::footer::Footer;
use crate::{IndexError, RunMeta, Sink};

/// A block is ended when it has grown to this: one `pread` and one checksum at the first touch. **Units:** bytes.
const BLOCK_BYTES: usize = 16 << 10;

impl FrozenFacts {
    /// Writes this part as one run, but for what is gone already. Blocking: for the seal thread.
    pub fn write_run(&self, floors: &FactFloors, path: &Path, sink: &mut dyn Sink) -> Result<RunMeta, IndexError> {
        let first = self.part.first_tx().unwrap_or(self.upto);
        let mut writer = Writer::create(path, first..=self.upto, sink)?;
        let mut thinning = Thinning::new(floors, false);
        for order in Order::KEPT {
            thinning.turn();
            for key in self.part.keys(order) {
                if thinning.keeps(order, key.as_ref()) {
                    writer.key(order, key.as_ref())?;
                }
            }
        }
        writer.finish()
    }
}

/// A run that is being written.
pub(crate) struct Writer<'a> {
    file: NewFile<'a>,
    order: Order,
    ends: Vec<u32>,
    keys: Vec<u8>,
    first: Vec<u8>,
    /// The last key of the block before, of the same order.
    last: Vec<u8>,
    entries: Vec<u8>,
    firsts: Vec<u8>,
    blocks: u32,
    datoms: u64,
    /// What it covers, kept or not.
    tx_min: Tx,
    tx_max: Tx,
    /// Retractions by attribute.
    taken: BTreeMap<EntityId, Taken>,
}

impl<'a> Writer<'a> {
    /// A run that says whatever was said from one transaction to another, all of it or what was kept.
    pub(crate) fn create(path: &Path, covers: RangeInclusive<Tx>, sink: &'a mut dyn Sink) -> Result<Self, IndexError> {
        let mut file = NewFile::create(path, sink)?;
        file.pending.extend_from_slice(&write_header());
        Ok(Self {
            file,
            order: Order::Eavt,
            ends: Vec::new(),
            keys: Vec::new(),
            first: Vec::new(),
            last: Vec::new(),
            entries: Vec::new(),
            firsts: Vec::new(),
            blocks: 0,
            datoms: 0,
            tx_min: *covers.start(),
            tx_max: *covers.end(),
            taken: BTreeMap::new(),
        })
    }

    /// Adds a key. Orders ascend, and keys within an order.
    pub(crate) fn key(&mut self, order: Order, key: KeyRef<'_>) -> Result<(), IndexError> {
        if order != self.order || self.keys.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        if order != self.order {
            assert!(order > self.order, "orders ascend");
            self.order = order;
            self.last.clear();
        }
        if self.ends.is_empty() {
            // One byte behind what it shares with the key before is enough to tell the blocks apart.
            let shared = self.last.iter().zip(key.bytes).take_while(|(a, b)| a == b).count();
            self.first = key.bytes[..(shared + 1).min(key.bytes.len())].to_vec();
        }
        let Some((tx, added)) = key::said_by(order, key.bytes) else {
            unreachable!("only keys are written");
        };
        if order == Order::Eavt {
            assert!((self.tx_min..=self.tx_max).contains(&tx), "a run covers what it holds");
            self.datoms += 1;
            if let (false, Some(a)) = (added, key::attribute(order, key.bytes)) {
                let taken = self.taken.entry(a).or_insert(Taken { attribute: a, datoms: 0, last: Tx::ZERO });
                (taken.datoms, taken.last) = (taken.datoms + 1, taken.last.max(tx));
            }
        }
        self.keys.extend_from_slice(key.bytes);
        self.ends.push(self.keys.len() as u32);
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), IndexError> {
        let Some(last_end) = self.ends.pop() else { return Ok(()) };
        let last_from = self.ends.last().copied().unwrap_or(0);
        self.last = self.keys[last_from as usize..last_end as usize].to_vec();
        self.ends.push(last_end);
        let (offset, start) = (self.file.at(), self.file.pending.len());
        let out = &mut self.file.pending;
        out.extend_from_slice(&(self.ends.len() as u32).to_le_bytes());
        self.ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
        out.extend_from_slice(&self.keys);
        let bytes = &out[start..];
        let entry = BlockEntry {
            order: self.order,
            keys: self.ends.len() as u32,
            offset,
            len: bytes.len() as u32,
            crc: crc32fast::hash(bytes),
            first: self.first.as_slice().into(),
        };
        entry.write(&mut self.entries, &mut self.firsts);
        self.blocks += 1;
        self.ends.clear();
        self.keys.clear();
        self.file.hand_over_if_full()
    }

    /// Writes directory and footer, syncs, renames, syncs the name.
    pub(crate) fn finish(mut self) -> Result<RunMeta, IndexError> {
        self.end_block()?;
        let directory_offset = self.file.at();
        let mut directory = [self.entries.as_slice(), &self.firsts].concat();
        self.taken.values().for_each(|taken| taken.write(&mut directory));
        self.file.pending.extend_from_slice(&directory);
        let Self { blocks, datoms, tx_min, tx_max, .. } = self;
        let footer = Footer {
            kind: FACTS_KIND,
            blocks,
            directory_offset,
            texts_len: self.firsts.len() as u32,
            directory_crc: crc32fast::hash(&directory),
            rows: datoms,
            tx_min,
            tx_max,
            hash: 0,
            more: self.taken.len() as u32,
        };
        self.file.finish(&FAMILY, footer)
    }
}
