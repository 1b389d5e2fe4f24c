//! The log's tail at a start: one thread reads and verifies it, the core applies it.
//!
//! ```text
//!   reader   disk -> verified records -> [ stretch ] --4 at most--> core: apply, record by record
//!            <-------------------------- emptied <------------------
//! ```
//!
//! Half of a start is reading, checking, and touching memory for the first time; the other half is `apply`. On two threads
//! they overlap. A reader that is ahead makes the memory that rows will lie in and sends it along, so that neither waits.
//!
//! Invariants: records are applied in the order of the log; whatever the reader finds wrong, even behind what was applied
//! already, ends the start: the shards are dropped. Deliberately absent: deciding what is torn or corrupt (the log does).

use crate::runtime::threads::{self, Role};
use crate::shard::replicate::LogIndex;
use crate::shard::{Committed, Shard, ShardError};
use anyhow::Context as _;
use myelin_datom::{Tick, Tx};
use myelin_index::Columns;
use myelin_wal::{Disk, Record, Recovered, Start};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

/// A piece of the log on its way from the reader to the core.
#[derive(Default)]
struct Stretch {
    entries: Vec<Entry>,
    payload: Vec<u8>,
    /// Memory for the rows that follow.
    chunks: Vec<Vec<Tick>>,
}

/// A record of a stretch, without its bytes.
struct Entry {
    group: u16,
    kind: u8,
    index: u64,
    tx: u64,
    from: usize,
    to: usize,
}

/// What a stretch gathers before it is sent. **Units:** bytes.
const STRETCH_BYTES: usize = 1 << 20;
/// Stretches between the two threads.
const STRETCHES: usize = 4;
/// Memory that one stretch brings along at most: twice what its own rows take. **Units:** chunks.
const CHUNKS: usize = STRETCH_BYTES / CHUNK_BYTES * 2;
/// A chunk is 64 rows of 64 bytes.
const CHUNK_BYTES: usize = 4096;

/// Brings the log back and applies what lies behind the checkpoint.
///
/// **Errors:** a log that is damaged or not reachable, an entry that cannot be applied.
pub fn replay_tail(
    disk: &Arc<dyn Disk>,
    config: &myelin_wal::Config,
    start: Start,
    shards: &mut [Shard],
) -> anyhow::Result<Recovered> {
    let (filled_in, filled) = sync_channel(STRETCHES);
    let (emptied_in, emptied) = channel();
    std::thread::scope(|scope| {
        let reader = threads::spawn_scoped(scope, Role::Reader, "myelin-reader".to_owned(), move || {
            let mut reader = Reader { open: Stretch::default(), filled: filled_in, emptied };
            let recovered = myelin_wal::recover(Arc::clone(disk), config, start, &mut |record| reader.take(&record))?;
            reader.send().map_err(|Gone| anyhow::anyhow!("nobody applies the log"))?;
            Ok::<_, anyhow::Error>(recovered)
        })?;
        // What cannot be applied is said before what the reader then says of a core that is gone.
        let applied = apply(shards, &filled, &emptied_in);
        drop(filled);
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader of the log panicked"))?;
        applied.context("the log's tail cannot be applied")?;
        read
    })
}

/// The core's side: everything, in order.
fn apply(shards: &mut [Shard], filled: &Receiver<Stretch>, emptied: &Sender<Stretch>) -> Result<(), ShardError> {
    for mut stretch in filled {
        for Entry { group, kind, index, tx, from, to } in stretch.entries.drain(..) {
            let Some(number) = group.checked_sub(1) else { continue };
            let Some(shard) = shards.iter_mut().find(|one| one.number() == number) else { continue };
            // As much as its rows can fill, so that every shard gets its share.
            let share = ((to - from) / CHUNK_BYTES * 2 + 1).min(stretch.chunks.len());
            shard.stock(stretch.chunks.drain(..share));
            let payload = &stretch.payload[from..to];
            shard.replay(Committed { index: LogIndex(index), tx: Tx::from_bits(tx), kind, payload })?;
        }
        stretch.payload.clear();
        // A reader that is through needs it no more.
        let _kept = emptied.send(stretch);
    }
    Ok(())
}

/// The reader's side.
struct Reader {
    open: Stretch,
    filled: SyncSender<Stretch>,
    emptied: Receiver<Stretch>,
}

/// The core has given up.
struct Gone;

impl Reader {
    fn take(&mut self, record: &Record<'_>) -> myelin_wal::Visited {
        let Stretch { entries, payload, .. } = &mut self.open;
        // Rows are used in place, so they stay aligned.
        let from = payload.len().next_multiple_of(8);
        payload.resize(from, 0);
        payload.extend_from_slice(record.payload);
        let myelin_wal::Header { group, kind, index, tx, .. } = record.header;
        entries.push(Entry { group, kind, index, tx, from, to: payload.len() });
        if self.open.payload.len() >= STRETCH_BYTES {
            self.send().map_err(|Gone| "nobody applies the log")?;
        }
        Ok(())
    }

    /// Hands the open stretch over. While the core is behind, makes memory for the rows that it will store.
    fn send(&mut self) -> Result<(), Gone> {
        let mut stretch = std::mem::replace(&mut self.open, self.emptied.try_recv().unwrap_or_default());
        while stretch.chunks.len() < CHUNKS {
            match self.filled.try_send(stretch) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Gone),
                Err(TrySendError::Full(back)) => stretch = back,
            }
            stretch.chunks.push(Columns::<Tick>::chunk());
        }
        self.filled.send(stretch).map_err(|_| Gone)
    }
}
