//! Many runs into one: small blocks become large ones, and what lies below the floors is left out.
//!
//! Invariants: the merged runs stand side by side in age, so a market's rows stay in `tx` order; rows keep their numbers;
//! memory is one block's draft whatever the runs hold. Deliberately absent: which runs to merge, and when.

use std::path::Path;
use std::sync::Arc;

use super::block::{BLOCK_ROWS, Draft};
use super::column::PAGE_ROWS;
use super::prune::Floors;
use super::write::{RunWriter, Sink};
use super::{ColumnRow, Run, RunMeta};
use crate::IndexError;
use myelin_datom::EntityId;

/// Writes one run with the rows of several that stand side by side, oldest first. Blocking: for the seal thread. `None`
/// when nothing lies above the floors. Install it with [`Columns::install_merged`](super::Columns::install_merged).
pub fn merge<R: ColumnRow>(
    runs: &[Arc<Run>],
    floors: &Floors,
    path: &Path,
    sink: &mut dyn Sink,
) -> Result<Option<RunMeta>, IndexError> {
    assert!(runs.iter().all(|run| run.meta().kind == R::KIND as u8), "runs of one kind are merged");
    let mut markets: Vec<EntityId> = runs.iter().flat_map(|run| run.blocks()).map(|block| block.market).collect();
    markets.sort_unstable();
    markets.dedup();
    let mut writer = RunWriter::<R>::create(path, sink)?;
    let mut draft = Draft::default();
    for market in markets {
        let floor = floors.row(market);
        draft.clear();
        let mut first_row = floor;
        for run in runs {
            for block in run.blocks_of(market) {
                let entry = &run.blocks()[block];
                let mut from = floor.saturating_sub(entry.first_row);
                while from < entry.rows {
                    if draft.rows == 0 {
                        first_row = entry.first_row + from;
                    }
                    let upto = entry.rows.min(from + (BLOCK_ROWS - draft.rows) as u32);
                    append::<R>(&mut draft, run, block, from..upto)?;
                    from = upto;
                    if draft.rows == BLOCK_ROWS {
                        writer.block(market, first_row, &draft)?;
                        draft.clear();
                    }
                }
            }
        }
        if draft.rows > 0 {
            writer.block(market, first_row, &draft)?;
        }
    }
    if writer.is_empty() {
        writer.abandon()?;
        return Ok(None);
    }
    writer.finish().map(Some)
}

/// Appends rows of a block to a draft.
fn append<R: ColumnRow>(
    draft: &mut Draft,
    run: &Run,
    block: usize,
    rows: core::ops::Range<u32>,
) -> Result<(), IndexError> {
    run.with_block::<R, _>(block, |opened, pco| {
        let runs = opened.runs(pco)?;
        let pages = rows.start as usize / PAGE_ROWS..(rows.end as usize).div_ceil(PAGE_ROWS);
        let mut cells = Vec::new();
        for column in 0..R::SPECS.len() {
            let mut opened_column = opened.column(pco, column)?;
            for page in pages.clone() {
                let base = page * PAGE_ROWS;
                cells.resize(opened.page_rows(page), 0);
                opened_column.page(page, &mut cells)?;
                let (from, upto) =
                    ((rows.start as usize).max(base) - base, (rows.end as usize - base).min(cells.len()));
                draft.columns[column].extend_from_slice(&cells[from..upto]);
            }
        }
        let first = runs.partition_point(|run| run.first <= rows.start) - 1;
        let shift = draft.rows;
        for run in runs[first..].iter().take_while(|run| run.first < rows.end) {
            draft.rows = shift + run.first.saturating_sub(rows.start) as usize;
            draft.begin(run.tx);
        }
        draft.rows = shift + rows.len();
        Ok(())
    })
}
