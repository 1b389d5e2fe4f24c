//! A shard as numbers and one hash, so that two copies can be compared without laying them side by side.
//!
//! ```text
//!   state_hash = XXH3-128 of: state bytes of the checkpoint that could be written now | ticks | quotes | facts
//!   ticks, quotes:  per market, in the order of their creation:  market id | per row: tx, n, 64 bytes
//!   facts:          every datom that no policy let go, retractions too, by entity, as it travels
//! ```

use super::super::digits;
use crate::shard::Shard;
use myelin_index::{ColumnRow, Columns, Facts, Filter, IndexError};
use serde::Serialize;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::Xxh3;

/// What a shard came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShardDigest {
    pub(super) shard: u16,
    pub(super) core: u16,
    pub(super) applied_index: u64,
    #[serde(serialize_with = "digits")]
    pub(super) applied_tx: u64,
    pub(super) ticks: u64,
    pub(super) quotes: u64,
    pub(super) markets: u64,
    pub(super) state_hash: String,
}

impl ShardDigest {
    /// Reads every row of a shard. **Errors:** a block that cannot be read. **Cost:** decodes everything once.
    pub(super) fn of(number: u16, core: u16, mut shard: Shard) -> Result<Self, IndexError> {
        // Freezes the newest rows, in memory: they stay readable, and the rest becomes bytes.
        let sealing = shard.seal();
        let mut hash = Xxh3::new();
        hash.update(&sealing.state);
        let (ticks, quotes) = shard.columns();
        let markets = ticks.markets().len() as u64;
        let (ticks, quotes) = (rows(ticks, &mut hash)?, rows(quotes, &mut hash)?);
        datoms(shard.facts(), &mut hash)?;
        let group = shard.group();
        Ok(Self {
            shard: number,
            core,
            applied_index: group.applied().0,
            applied_tx: group.applied_tx().bits(),
            ticks,
            quotes,
            markets,
            state_hash: hex(&hash),
        })
    }
}

/// One hash over those of all shards, in the order given.
pub(super) fn of_all(shards: &[ShardDigest]) -> String {
    let mut hash = Xxh3::new();
    for one in shards {
        hash.update(&one.shard.to_le_bytes());
        hash.update(one.state_hash.as_bytes());
    }
    hex(&hash)
}

fn hex(hash: &Xxh3) -> String {
    format!("{:032x}", hash.digest128())
}

fn rows<R: ColumnRow>(columns: &Columns<R>, hash: &mut Xxh3) -> Result<u64, IndexError> {
    let mut rows = 0;
    for market in columns.markets() {
        hash.update(&columns.market_id(market).bits().to_le_bytes());
        columns.view(market, columns.last_tx())?.rows(&Filter::default(), |found| {
            hash.update(&found.tx.bits().to_le_bytes());
            hash.update(&found.n.to_le_bytes());
            hash.update(bytemuck::bytes_of(&found.row));
            rows += 1;
            ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

fn datoms(facts: &Facts, hash: &mut Xxh3) -> Result<(), IndexError> {
    let mut bytes = Vec::new();
    facts.each_kept(|datom| {
        bytes.clear();
        datom.write(&mut bytes);
        hash.update(&bytes);
    })
}
