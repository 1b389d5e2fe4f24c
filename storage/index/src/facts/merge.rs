//! Many runs of facts into one, so that a read touches fewer blocks.
//!
//! Invariants: the merged runs stand side by side in age; every datom is kept; memory is a block whatever the runs hold.
//! Deliberately absent: which runs to merge, and when; leaving out what was pruned (facts are not pruned yet).

use std::path::Path;
use std::sync::Arc;

use super::FactRun;
use super::key::Order;
use super::scan::{Merge, Source};
use super::write::Writer;
use crate::{IndexError, RunMeta, Sink};

/// Writes one run with the datoms of several that stand side by side. Blocking: for the seal thread. `None` when they hold
/// nothing. Install it with [`Facts::install_merged`](super::Facts::install_merged).
pub fn merge_facts(runs: &[Arc<FactRun>], path: &Path, sink: &mut dyn Sink) -> Result<Option<RunMeta>, IndexError> {
    let mut writer = Writer::create(path, sink)?;
    for order in Order::ALL {
        let mut keys = Merge::new(runs.iter().map(|run| Source::Run(run)), order, &[], None)?;
        while let Some(key) = keys.next()? {
            writer.key(order, key)?;
        }
    }
    if writer.is_empty() {
        writer.abandon()?;
        return Ok(None);
    }
    writer.finish().map(Some)
}
