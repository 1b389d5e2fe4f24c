//! Many runs of facts into one, so that a read touches fewer blocks and what was pruned gives back its room.
//!
//! Invariants: the merged runs stand side by side in age; every datom is kept but those below a horizon (`prune.rs`);
//! memory is a block whatever the runs hold. Deliberately absent: which runs to merge, and when.

use std::path::Path;
use std::sync::Arc;

use myelin_datom::Tx;

use super::key::Order;
use super::prune::Thinning;
use super::scan::{Merge, Source};
use super::write::Writer;
use super::{FactFloors, FactRun};
use crate::{IndexError, RunMeta, Sink};

/// Writes one run with the datoms of several that stand side by side, but for those that are gone; `oldest` says that the
/// first of them is the oldest there is. Blocking: for the seal thread. `None` when nothing is left. Install it with
/// [`Facts::install_merged`](super::Facts::install_merged).
pub fn merge_facts(
    runs: &[Arc<FactRun>],
    floors: &FactFloors,
    oldest: bool,
    path: &Path,
    sink: &mut dyn Sink,
) -> Result<Option<RunMeta>, IndexError> {
    // What is gone was there: a reader of the log that stands before it has to be told.
    let covered = runs.iter().map(|run| run.meta());
    let first = covered.clone().map(|meta| meta.tx_min).min().unwrap_or(Tx::MAX);
    let last = covered.map(|meta| meta.tx_max).max().unwrap_or(Tx::ZERO);
    let mut writer = Writer::create(path, first..=last, sink)?;
    let mut thinning = Thinning::new(floors, oldest);
    for order in Order::KEPT {
        thinning.turn();
        let mut keys = Merge::new(runs.iter().map(|run| Source::Run(run)), order, &[], None)?;
        while let Some(key) = keys.next()? {
            if thinning.keeps(order, key) {
                writer.key(order, key)?;
            }
        }
    }
    if writer.is_empty() {
        writer.abandon()?;
        return Ok(None);
    }
    writer.finish().map(Some)
}
