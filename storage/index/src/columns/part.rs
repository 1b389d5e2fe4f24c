//! The newest rows of one market, in memory: raw 64-byte rows in chunks, `tx` run-length coded.
//!
//! ```text
//!   row     0 .. 63   64 .. 127   128 ..          first tx of the part ........ last
//!          [ chunk ] [  chunk  ] [ tail >         (tx, first row)  (tx, first row) ...
//! ```
//! Invariants: rows stand in `tx` order, so `as_of` is a prefix; a chunk never moves or grows, so nothing is copied when
//! the part grows; chunks come from a list and go back to it after the seal. The id index is built only for parts whose
//! ids do not ascend, when somebody looks for an old id. Deliberately absent: which ids were seen (`window.rs`).

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use hashbrown::HashMap;
use myelin_datom::Tx;

use super::ColumnRow;

/// **Units:** rows; 64 of them are one page of memory.
pub(crate) const CHUNK_ROWS: usize = 64;
/// Rows that are searched one by one before the id index is built.
const NEAR_ROWS: u32 = 256;

/// Where a transaction's rows begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxRun {
    pub tx: Tx,
    /// Row within the part or block.
    pub first: u32,
}

/// How many of `rows` rows belong to `as_of`.
pub(crate) fn prefix(runs: &[TxRun], rows: u32, as_of: Tx) -> u32 {
    let beyond = runs.partition_point(|run| run.tx <= as_of);
    runs.get(beyond).map_or(rows, |run| run.first)
}

/// The transaction of a row. **Panics** when there is no such row: the caller counted.
pub(crate) fn tx_of(runs: &[TxRun], row: u32) -> Tx {
    let beyond = runs.partition_point(|run| run.first <= row);
    assert!(beyond > 0, "every row has a transaction");
    runs[beyond - 1].tx
}

type Ids = HashMap<u64, u32, BuildHasherDefault<IdHasher>>;

/// One multiplication, folded; the seed is fixed so that replicas agree.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let wide = u128::from(number ^ self.0 ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }
}

/// The newest rows of one market.
#[derive(Debug)]
pub(crate) struct Part<R> {
    full: Vec<Vec<R>>,
    tail: Vec<R>,
    runs: Vec<TxRun>,
    rows: u32,
    last_id: u64,
    id_min: u64,
    id_max: u64,
    ascending: bool,
    ids: OnceLock<Ids>,
    /// Of a correction the row of the same id before it, if that is here.
    older: Ids,
}

impl<R: ColumnRow> Default for Part<R> {
    fn default() -> Self {
        Self {
            full: Vec::new(),
            tail: Vec::new(),
            runs: Vec::new(),
            rows: 0,
            last_id: 0,
            id_min: u64::MAX,
            id_max: 0,
            ascending: true,
            ids: OnceLock::new(),
            older: Ids::default(),
        }
    }
}

impl<R: ColumnRow> Part<R> {
    #[inline]
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    pub(crate) fn runs(&self) -> &[TxRun] {
        &self.runs
    }

    #[inline]
    pub(crate) fn push(&mut self, tx: Tx, row: &R, free: &mut Vec<Vec<R>>) {
        if (self.rows as usize).is_multiple_of(CHUNK_ROWS) {
            self.next_chunk(free);
        }
        if self.runs.last().is_none_or(|run| run.tx != tx) {
            self.runs.push(TxRun { tx, first: self.rows });
        }
        let id = row.id();
        if row.is_correction() {
            self.note_older(id);
        }
        self.tail.push(*row);
        if let Some(ids) = self.ids.get_mut() {
            ids.insert(id, self.rows);
        }
        self.ascending &= id > self.last_id;
        self.last_id = id;
        self.id_min = self.id_min.min(id);
        self.id_max = self.id_max.max(id);
        self.rows += 1;
    }

    /// The next row corrects one of this id.
    #[cold]
    fn note_older(&mut self, id: u64) {
        if let Some(older) = self.find(id, self.rows) {
            self.older.insert(self.rows.into(), older);
        }
    }

    /// The row of the same id before a correction, if that is in this part.
    pub(crate) fn older(&self, correction: u32) -> Option<u32> {
        self.older.get(&u64::from(correction)).copied()
    }

    #[cold]
    fn next_chunk(&mut self, free: &mut Vec<Vec<R>>) {
        let chunk = free.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_ROWS));
        assert!(chunk.is_empty());
        let full = core::mem::replace(&mut self.tail, chunk);
        if !full.is_empty() {
            self.full.push(full);
        }
    }

    /// Every id is greater than the one before it.
    pub(crate) fn is_ascending(&self) -> bool {
        self.ascending
    }

    #[inline]
    pub(crate) fn row(&self, row: u32) -> &R {
        let (chunk, within) = (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS);
        match self.full.get(chunk) {
            Some(full) => &full[within],
            None => &self.tail[within],
        }
    }

    /// The rows in order, a slice per chunk, from `from` to before `to`.
    pub(crate) fn slices(&self, from: u32, to: u32) -> impl DoubleEndedIterator<Item = (u32, &[R])> {
        let (from, to) = (from as usize, to.min(self.rows) as usize);
        let chunks = if from < to { from / CHUNK_ROWS..to.div_ceil(CHUNK_ROWS) } else { 0..0 };
        chunks.map(move |chunk| {
            let rows = self.full.get(chunk).unwrap_or(&self.tail);
            let base = chunk * CHUNK_ROWS;
            let (first, last) = (from.max(base), to.min(base + CHUNK_ROWS));
            (first as u32, &rows[first - base..last - base])
        })
    }

    /// The newest row of this id among the first `upto` rows.
    pub(crate) fn find(&self, id: u64, upto: u32) -> Option<u32> {
        if id < self.id_min || id > self.id_max || upto == 0 {
            return None;
        }
        if self.ascending {
            let (mut low, mut high) = (0, upto);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.row(middle).id() < id { low = middle + 1 } else { high = middle }
            }
            return (low < upto && self.row(low).id() == id).then_some(low);
        }
        if let Some(&newest) = self.ids.get().and_then(|ids| ids.get(&id))
            && newest < upto
        {
            return Some(newest);
        }
        let near = upto.saturating_sub(NEAR_ROWS);
        let scan = |from, to| {
            self.slices(from, to)
                .rev()
                .find_map(|(first, rows)| rows.iter().rposition(|row| row.id() == id).map(|at| first + at as u32))
        };
        if let Some(row) = scan(near, upto) {
            return Some(row);
        }
        let newest = *self.ids.get_or_init(|| self.index()).get(&id)?;
        // The index knows the newest row of an id; a reader of the past with a corrected row behind it looks further.
        if newest < upto { Some(newest) } else { scan(0, near) }
    }

    #[cold]
    fn index(&self) -> Ids {
        let mut ids = Ids::with_capacity_and_hasher(self.rows as usize, BuildHasherDefault::default());
        for (first, rows) in self.slices(0, self.rows) {
            rows.iter().enumerate().for_each(|(at, row)| _ = ids.insert(row.id(), first + at as u32));
        }
        ids
    }

    /// Gives chunks back, emptied, until there are `room` free ones. The part is not to be read any more.
    pub(crate) fn release(&mut self, free: &mut Vec<Vec<R>>, room: usize) {
        self.rows = 0;
        let tail = (self.tail.capacity() >= CHUNK_ROWS).then(|| core::mem::take(&mut self.tail));
        let count = room.saturating_sub(free.len());
        let full = self.full.drain(..count.min(self.full.len()));
        free.extend(tail.into_iter().chain(full).take(count).map(|mut chunk| {
            chunk.clear();
            chunk
        }));
    }

    /// **Units:** bytes of memory, rounded.
    pub(crate) fn bytes(&self) -> usize {
        (self.full.len() + 1) * CHUNK_ROWS * 64
            + self.runs.capacity() * size_of::<TxRun>()
            + self.ids.get().map_or(0, |ids| ids.allocation_size())
            + self.older.allocation_size()
    }
}
