//! Writing a run: one file, block after block, then the directory; synced, renamed, synced again.
//!
//! ```text
//!   path.partial: [header][block]...[directory][footer] --fsync--> rename to path --fsync of the directory--> RunMeta
//! ```
//! Invariants: whoever holds a [`RunMeta`] holds a file that is on stable storage under its name; a crash leaves at most a
//! `.partial`, which the next attempt overwrites; the file is written front to back in slices of 2 MiB, each
//! through [`Sink`], where the caller may hold it back. Deliberately absent: when to write, and how fast.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use myelin_datom::{EntityId, Tx};

use super::block::{self, BLOCK_ROWS, Draft};
use super::column::Encoder;
use super::directory::{BlockEntry, FAMILY};
use super::frozen::Frozen;
use super::run::{RunMeta, write_header};
use super::schema::{ID, PRICE, VOLUME, corrections};
use super::totals::{Adder, extremes};
use super::{ColumnRow, part::TxRun};
use crate::IndexError;
use crate::file::NewFile;
use crate::footer::Footer;

/// Where slices go: the file, after whatever holds background writes back.
pub trait Sink {
    /// Called before a slice of this many bytes is written; may block.
    fn before_slice(&mut self, bytes: usize);
}

/// Writes as fast as the device takes it.
impl Sink for () {
    fn before_slice(&mut self, _bytes: usize) {}
}

impl<R: ColumnRow> Frozen<R> {
    /// Writes this part as one run, without the rows that were pruned when it was frozen. Blocking: for the seal thread.
    /// **Cost:** about 100 ns a row of one core. **Panics** when none of its rows is live: there is nothing to write.
    pub fn write_run(&self, path: &Path, sink: &mut dyn Sink) -> Result<RunMeta, IndexError> {
        assert!(self.live_rows() > 0, "a run holds rows");
        let mut writer = RunWriter::<R>::create(path, sink)?;
        let mut draft = Draft::default();
        // What is dead is not owed; and an attempt before this one may have failed half-way.
        self.written.store(self.rows - self.live_rows(), Relaxed);
        for market in &self.markets {
            let rows = market.part.rows();
            for from in (market.dead..rows).step_by(BLOCK_ROWS) {
                let upto = rows.min(from + BLOCK_ROWS as u32);
                draft.clear();
                for (first, slice) in market.part.slices(from, upto) {
                    assert!(first - from == draft.rows as u32);
                    (0..R::SPECS.len()).for_each(|column| R::cells(slice, column, &mut draft.columns[column]));
                    draft.rows += slice.len();
                }
                let runs = market.part.runs();
                let first = runs.partition_point(|run| run.first <= from) - 1;
                draft.runs.extend(
                    runs[first..]
                        .iter()
                        .take_while(|run| run.first < upto)
                        .map(|run| TxRun { tx: run.tx, first: run.first.saturating_sub(from) }),
                );
                writer.block(market.id, market.first + from, &draft)?;
                self.written.fetch_add(draft.rows as u64, Relaxed);
            }
        }
        writer.finish()
    }
}

/// A run that is being written.
pub(crate) struct RunWriter<'a, R> {
    file: NewFile<'a>,
    entries: Vec<u8>,
    totals: Vec<u8>,
    blocks: u32,
    rows: u64,
    tx_min: Tx,
    tx_max: Tx,
    encoder: Encoder,
    adder: Adder,
    kind: core::marker::PhantomData<R>,
}

impl<'a, R: ColumnRow> RunWriter<'a, R> {
    pub(crate) fn create(path: &Path, sink: &'a mut dyn Sink) -> Result<Self, IndexError> {
        let mut file = NewFile::create(path, sink)?;
        file.pending.extend_from_slice(&write_header(R::KIND as u8));
        Ok(Self {
            file,
            entries: Vec::new(),
            totals: Vec::new(),
            blocks: 0,
            rows: 0,
            tx_min: Tx::MAX,
            tx_max: Tx::ZERO,
            encoder: Encoder::default(),
            adder: Adder::default(),
            kind: core::marker::PhantomData,
        })
    }

    /// Adds a block. Markets ascend, and rows within a market.
    pub(crate) fn block(&mut self, market: EntityId, first_row: u32, draft: &Draft) -> Result<(), IndexError> {
        let (start, offset) = (self.file.pending.len(), self.file.at());
        let zone = block::encode::<R>(draft, &mut self.encoder, &mut self.file.pending);
        let bytes = &self.file.pending[start..];
        self.adder.add(draft.floats(PRICE), draft.floats(VOLUME));
        self.adder.correct(R::FLAGS.map_or(0, |column| corrections(&draft.columns[column])));
        let (price_min, price_max) = R::PRICES
            .iter()
            .map(|&column| extremes(draft.floats(column)))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), (low, high)| (min.min(low), max.max(high)));
        let (Some(first_tx), Some(last_tx)) = (draft.runs.first(), draft.runs.last()) else {
            unreachable!("every row has a transaction")
        };
        let entry = BlockEntry {
            market,
            first_row,
            rows: draft.rows as u32,
            offset,
            len: bytes.len() as u32,
            crc: crc32fast::hash(bytes),
            zone,
            tx_min: first_tx.tx,
            tx_max: last_tx.tx,
            price_min,
            price_max,
            ascending: draft.columns[ID].is_sorted_by(|a, b| a < b),
            totals: self.adder.take(),
        };
        entry.write(&mut self.entries, &mut self.totals);
        self.blocks += 1;
        self.rows += u64::from(entry.rows);
        self.tx_min = self.tx_min.min(entry.tx_min);
        self.tx_max = self.tx_max.max(entry.tx_max);
        self.file.hand_over_if_full()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Gives up: nothing stays behind.
    pub(crate) fn abandon(self) -> Result<(), IndexError> {
        self.file.abandon()
    }

    /// Writes directory and footer, syncs, renames, syncs the name.
    pub(crate) fn finish(mut self) -> Result<RunMeta, IndexError> {
        let directory_offset = self.file.at();
        let directory = [self.entries.as_slice(), &self.totals].concat();
        self.file.pending.extend_from_slice(&directory);
        let Self { blocks, rows, tx_min, tx_max, .. } = self;
        let footer = Footer {
            kind: R::KIND as u8,
            blocks,
            directory_offset,
            texts_len: self.totals.len() as u32,
            rows,
            tx_min,
            tx_max,
            hash: 0,
            directory_crc: crc32fast::hash(&directory),
            more: 0,
        };
        self.file.finish(&FAMILY, footer)
    }
}
