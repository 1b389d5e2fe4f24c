//! Which runs are to become one, so that their number follows the size of the data and not its age, and pruned rows go.
//!
//! ```text
//!   oldest                                              newest
//!   [ 40 M ] [ 9 M ] [ 8 M ] [ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ]
//!                            \______ eight side by side, none above half of them ____/
//! ```
//!
//! A row that is merged is in a run of at least twice the size afterwards, or in one that lost half of its rows: so it is
//! merged a number of times that is the logarithm of the data's size, and never again and again. Deliberately absent: when
//! (`driver.rs`), and the files (`seal.rs`).

use super::seal::OpenRuns;
use myelin_datom::Kind;
use myelin_index::{FactFloors, FactRun, Floors, Run};
use std::sync::Arc;

/// Runs that are merged at once.
const MERGED_AT_ONCE: usize = 8;
/// Fewer are merged where there are more runs than this.
const MANY: usize = 24;
/// The fewest.
const MERGED_LEAST: usize = 4;
/// Rows of what becomes of them: some hundred megabytes, so that room for it is found and a window's old rows go whole.
const MERGED_ROWS_MAX: u64 = 64_000_000;

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
        let size = |run: &Arc<Run>| Size { rows: run.meta().rows, live: run.live_rows(floors) };
        let range = pick(&runs.iter().map(size).collect::<Vec<_>>())?;
        Some(Candidate::Rows { shard, kind, old: runs[range].to_vec(), floors: floors.clone() })
    };
    let facts = || {
        let floors = open.floors.facts.clone();
        let size = |run: &Arc<FactRun>| Size { rows: run.meta().rows, live: run.meta().rows };
        let gone = open.facts.iter().map(|run| run.gone(&floors)).sum();
        let sizes: Vec<Size> = open.facts.iter().map(size).collect();
        let range = if all_are_worth_it(&sizes, gone) { 0..sizes.len() } else { pick(&sizes)? };
        let oldest = range.start == 0;
        Some(Candidate::Facts { shard, old: open.facts[range].to_vec(), floors, oldest })
    };
    rows(Kind::Tick, &open.ticks, &open.floors.ticks)
        .or_else(|| rows(Kind::Quote, &open.quotes, &open.floors.quotes))
        .or_else(facts)
}

/// True when a half of all facts is gone, and room for what is left is found: only where the oldest run is among them do
/// retractions go, and what they took back lies in any of the older ones.
fn all_are_worth_it(sizes: &[Size], gone: u64) -> bool {
    let rows: u64 = sizes.iter().map(|size| size.rows).sum();
    rows > 0 && gone * 2 >= rows && rows - gone.min(rows) <= MERGED_ROWS_MAX
}

#[derive(Clone, Copy, Debug)]
struct Size {
    rows: u64,
    live: u64,
}

fn pick(sizes: &[Size]) -> Option<std::ops::Range<usize>> {
    if let Some(at) = sizes.iter().position(|size| size.rows > 0 && size.live * 2 <= size.rows) {
        return Some(at..at + 1);
    }
    let fewer = if sizes.len() > MANY { MERGED_LEAST..MERGED_AT_ONCE } else { 0..0 };
    std::iter::once(MERGED_AT_ONCE).chain(fewer.rev()).find_map(|count| {
        let windows = sizes.windows(count).enumerate();
        let worth = windows.filter_map(|(at, window)| {
            let sum: u64 = window.iter().map(|size| size.live).sum();
            let greatest = window.iter().map(|size| size.live).max().unwrap_or(0);
            (sum <= MERGED_ROWS_MAX && greatest * 2 <= sum).then_some((sum, at))
        });
        worth.min().map(|(_, at)| at..at + count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rows: u64) -> Size {
        Size { rows, live: rows }
    }

    #[test]
    fn equal_neighbours_are_merged_and_a_large_one_is_left_alone() {
        for (sizes, picked) in [
            (vec![1; 7], None),
            (vec![1; 8], Some(0..8)),
            ([vec![100], vec![1; 8]].concat(), Some(1..9)),
            ([vec![100], vec![1; 7]].concat(), None),
            (vec![MERGED_ROWS_MAX / 4; 8], None),
            (vec![1, 2, 4, 8, 16, 32, 64, 128], None),
        ] {
            assert_eq!(pick(&sizes.iter().copied().map(whole).collect::<Vec<_>>()), picked, "{sizes:?}");
        }
        assert!(!all_are_worth_it(&[], 0));
        assert!(all_are_worth_it(&[whole(10), whole(10)], 10) && !all_are_worth_it(&[whole(10), whole(10)], 8));
        let half_dead = [whole(10), Size { rows: 10, live: 5 }, whole(10)];
        assert_eq!(pick(&half_dead), Some(1..2));
    }

    /// A year of sealing, in sizes that change: runs stay few, and no row is written more often than its run can double.
    #[test]
    fn runs_stay_few_and_a_row_is_rewritten_a_few_times() {
        for pattern in [&[1_000_000][..], &[1_000_000, 10, 10, 10], &[10, 3_000_000, 500, 500, 70_000]] {
            let (mut sizes, mut sealed, mut written) = (Vec::new(), 0_u64, 0_u64);
            for rows in pattern.iter().cycle().take(4_000) {
                sizes.push(whole(*rows));
                sealed += rows;
                while let Some(range) = pick(&sizes) {
                    let sum = sizes[range.clone()].iter().map(|size| size.live).sum();
                    written += sum;
                    sizes.splice(range, [whole(sum)]);
                }
                let most = MANY as u64 + 4 * sealed / MERGED_ROWS_MAX;
                assert!((sizes.len() as u64) <= most, "{} runs of {sealed} rows", sizes.len());
            }
            assert!(written <= 5 * sealed, "{written} rows were written for {sealed}");
        }
    }
}
