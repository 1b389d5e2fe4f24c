//! The next runs of a shard that are to become one: which is decided by their sizes alone (`storage/index/src/merging.rs`).
//!
//! Deliberately absent: when (`driver.rs`), and the files (`seal.rs`).

use super::seal::OpenRuns;
use myelin_datom::Kind;
use myelin_index::{FactFloors, FactRun, Floors, Run, RunSize, all_are_worth_merging, worth_merging};
use std::sync::Arc;

/// Runs side by side that are to become one.
pub enum Candidate {
    /// Of ticks or quotes.
    Rows {
        /// Whose they are.
        shard: u16,
        /// Ticks or quotes.
        kind: Kind,
        /// Oldest first.
        old: Vec<Arc<Run>>,
        /// What lies below them is left out.
        floors: Floors,
    },
    /// Of facts.
    Facts {
        /// Whose they are.
        shard: u16,
        /// Oldest first.
        old: Vec<Arc<FactRun>>,
        /// What lies below them is left out.
        floors: FactFloors,
        /// Nothing older lies anywhere.
        oldest: bool,
    },
}

impl Candidate {
    /// Whose they are.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        match self {
            Self::Rows { shard, .. } | Self::Facts { shard, .. } => *shard,
        }
    }

    /// The end of the file's name.
    #[must_use]
    pub const fn file_kind(&self) -> &'static str {
        match self {
            Self::Rows { kind: Kind::Quote, .. } => "merged.quotes",
            Self::Rows { .. } => "merged.ticks",
            Self::Facts { .. } => "merged.facts",
        }
    }
}

/// The next runs of a shard that are worth it; those that lost most of their rows first.
pub fn candidate(shard: u16, open: &OpenRuns) -> Option<Candidate> {
    let rows = |kind, runs: &[Arc<Run>], floors: &Floors| {
        let size = |run: &Arc<Run>| RunSize { rows: run.meta().rows, live: run.live_rows(floors) };
        let range = worth_merging(&runs.iter().map(size).collect::<Vec<_>>())?;
        Some(Candidate::Rows { shard, kind, old: runs[range].to_vec(), floors: floors.clone() })
    };
    let facts = || {
        let floors = open.floors.facts.clone();
        let size = |run: &Arc<FactRun>| RunSize { rows: run.meta().rows, live: run.meta().rows };
        let gone = open.facts.iter().map(|run| run.gone(&floors)).sum();
        let sizes: Vec<RunSize> = open.facts.iter().map(size).collect();
        let range = if all_are_worth_merging(&sizes, gone) { 0..sizes.len() } else { worth_merging(&sizes)? };
        let oldest = range.start == 0;
        Some(Candidate::Facts { shard, old: open.facts[range].to_vec(), floors, oldest })
    };
    rows(Kind::Tick, &open.ticks, &open.floors.ticks)
        .or_else(|| rows(Kind::Quote, &open.quotes, &open.floors.quotes))
        .or_else(facts)
}
