//! Many runs of facts into one, so that a read touches fewer blocks and what was pruned gives back its room.
//!
//! Invariants: the merged runs stand side by side in age; every datom is kept but those below a horizon (`prune.rs`);
//! what became of them covers the transactions that they covered, also where nothing is left; memory is a block whatever
//! the runs hold. Deliberately absent: which runs to merge, and when.

use std::path::Path;
use std::sync::Arc;

use super::key::Order;
use super::prune::Thinning;
use super::scan::{Merge, Source};
use super::write::Writer;
use super::{FactFloors, FactRun};
use crate::{IndexError, RunMeta, Sink};

/// Writes one run with the datoms of several that stand side by side, but for those that are gone; `oldest` says that the
/// first of them is the oldest there is. Blocking: for the seal thread. Where nothing is left it is a run all the same,
/// without datoms: a reader of the log that stands before what is gone has to be told. Install it with
/// [`Facts::install_merged`](super::Facts::install_merged). **Panics** without runs.
pub fn merge_facts(
    runs: &[Arc<FactRun>],
    floors: &FactFloors,
    oldest: bool,
    path: &Path,
    sink: &mut dyn Sink,
) -> Result<RunMeta, IndexError> {
    assert!(!runs.is_empty(), "a merge is of runs");
    let covered = runs[0].meta().tx_min..=runs[runs.len() - 1].meta().tx_max;
    let mut writer = Writer::create(path, covered, sink)?;
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
    writer.finish()
}
