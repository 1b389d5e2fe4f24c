//! Which runs are to become one, so that their number follows the size of the data and not its age, and pruned rows go.
//!
//! ```text
//!   oldest                                              newest
//!   [ 40 M ] [ 9 M ] [ 8 M ] [ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ][ 1 M ]
//!                            \______ eight side by side, none above half of them ____/
//! ```
//!
//! A row that is merged is in a run of at least twice the size afterwards, or in one that lost half of its rows: so it is
//! merged a number of times that is the logarithm of the data's size, and never again and again. Deliberately absent: when,
//! and the merging itself (`columns/merge.rs`, `facts/merge.rs`).

use core::ops::Range;

/// Runs that are merged at once.
const MERGED_AT_ONCE: usize = 8;
/// Fewer are merged where there are more runs than this.
const MANY: usize = 24;
/// The fewest.
const MERGED_LEAST: usize = 4;
/// Rows of what becomes of them: some hundred megabytes, so that room for it is found and a window's old rows go whole.
const MERGED_ROWS_MAX: u64 = 64_000_000;

/// What a run holds. **Units:** rows, or datoms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSize {
    /// All that are in the file.
    pub rows: u64,
    /// Those that lie above the floors.
    pub live: u64,
}

/// The runs side by side, of all of a kind and oldest first, that are to become one; those that lost most of their rows
/// first.
#[must_use]
pub fn worth_merging(sizes: &[RunSize]) -> Option<Range<usize>> {
    if let Some(at) = sizes.iter().position(|size| size.rows > 0 && size.live * 2 <= size.rows) {
        return Some(at..at + 1);
    }
    let fewer = if sizes.len() > MANY { MERGED_LEAST..MERGED_AT_ONCE } else { 0..0 };
    core::iter::once(MERGED_AT_ONCE).chain(fewer.rev()).find_map(|count| {
        let windows = sizes.windows(count).enumerate();
        let worth = windows.filter_map(|(at, window)| {
            let sum: u64 = window.iter().map(|size| size.live).sum();
            let greatest = window.iter().map(|size| size.live).max().unwrap_or(0);
            (sum <= MERGED_ROWS_MAX && greatest * 2 <= sum).then_some((sum, at))
        });
        worth.min().map(|(_, at)| at..at + count)
    })
}

/// True when a half of all facts is gone, and room for what is left is found: only where the oldest run is among them do
/// retractions go, and what they took back lies in any of the older ones.
#[must_use]
pub fn all_are_worth_merging(sizes: &[RunSize], gone: u64) -> bool {
    let rows: u64 = sizes.iter().map(|size| size.rows).sum();
    rows > 0 && gone * 2 >= rows && rows - gone.min(rows) <= MERGED_ROWS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(rows: u64) -> RunSize {
        RunSize { rows, live: rows }
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
            assert_eq!(worth_merging(&sizes.iter().copied().map(whole).collect::<Vec<_>>()), picked, "{sizes:?}");
        }
        assert!(!all_are_worth_merging(&[], 0));
        let two = [whole(10), whole(10)];
        assert!(all_are_worth_merging(&two, 10) && !all_are_worth_merging(&two, 8));
        let half_dead = [whole(10), RunSize { rows: 10, live: 5 }, whole(10)];
        assert_eq!(worth_merging(&half_dead), Some(1..2));
    }

    /// A year of sealing, in sizes that change: runs stay few, and no row is written more often than its run can double.
    #[test]
    fn runs_stay_few_and_a_row_is_rewritten_a_few_times() {
        for pattern in [&[1_000_000][..], &[1_000_000, 10, 10, 10], &[10, 3_000_000, 500, 500, 70_000]] {
            let (mut sizes, mut sealed, mut written) = (Vec::new(), 0_u64, 0_u64);
            for rows in pattern.iter().cycle().take(4_000) {
                sizes.push(whole(*rows));
                sealed += rows;
                while let Some(range) = worth_merging(&sizes) {
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
