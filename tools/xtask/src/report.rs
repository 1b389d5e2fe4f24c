//! What the output of a step says: tests counted and named, campaigns with their trials and bounds.
//!
//! ```text
//!   test runtime::awake::a_keeper_parks ... ok            passed, until more is known
//!   ---- runtime::awake::a_keeper_parks stdout ----       with --show-output: what a passed test said
//!   skipped: this system grants no class below others     then it was skipped, and this is why
//!   test result: ok. 12 passed; ..                        closes a binary: counted
//! ```
//!
//! Reads what libtest and libtest-mimic print. Deliberately absent: JSON output of tests, which is not stable.

use std::collections::BTreeSet;

/// Tests of a step or of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// One line `campaign NAME trials=N failures=F bound=3/N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) name: String,
    pub(crate) trials: u64,
    pub(crate) failures: u64,
}

impl Campaign {
    /// With no failure in n trials, failures are rarer than this at 95 % confidence (the rule of three).
    pub(crate) fn bound(&self) -> String {
        if self.failures > 0 || self.trials == 0 {
            return "none".to_owned();
        }
        format!("3/{} = {:.1e}", self.trials, 3.0 / self.trials as f64)
    }
}

/// Everything the summary needs from one step's output, gathered line by line.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) count: Count,
    /// Tests that passed, as `binary name`.
    pub(crate) passed: BTreeSet<String>,
    /// Tests that ended well and said that they had tried nothing, as `binary name: why`.
    pub(crate) skips: Vec<String>,
    pub(crate) campaigns: Vec<Campaign>,
    binary: String,
    /// Whose output is read.
    saying: Option<String>,
    /// Skips of this binary, which its own result counts as passed.
    skipped_here: u64,
}

impl Report {
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(binary) = line.strip_prefix("Running ") {
            // `Running tests/main.rs (target/debug/deps/main-0123)`: the hash in brackets changes with the build.
            self.binary = binary.split(" (").next().unwrap_or(binary).to_owned();
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let (count, skipped) = (counts(result), std::mem::take(&mut self.skipped_here));
            let (passed, skipped) = (count.passed.saturating_sub(skipped), count.skipped + skipped);
            self.count += Count { passed, skipped, ..count };
            self.saying = None;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix("... ok")) {
            self.passed.insert(format!("{} {}", self.binary, name.trim()));
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.saying = Some(format!("{} {name}", self.binary));
        } else if let Some(why) = line.strip_prefix("skipped: ") {
            self.skip(why);
        } else if let Some(campaign) = line.strip_prefix("campaign ").and_then(campaign) {
            self.campaigns.push(campaign);
        }
    }

    /// Whoever is speaking was skipped. One that failed stays failed, and one that says it twice is one.
    fn skip(&mut self, why: &str) {
        if let Some(test) = self.saying.as_ref().filter(|test| self.passed.remove(*test)) {
            self.skips.push(format!("{test}: {why}"));
            self.skipped_here += 1;
        }
    }
}

/// `ok. 3 passed; 0 failed; 1 ignored; ..`
fn counts(result: &str) -> Count {
    let number = |what: &str| {
        let mut words = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            if words.peek() == Some(&what) {
                return word.parse().unwrap_or(0);
            }
        }
        0
    };
    Count { passed: number("passed"), failed: number("failed"), skipped: number("ignored") }
}

fn campaign(rest: &str) -> Option<Campaign> {
    let value = |key: &str| rest.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok());
    let name = rest.split(' ').next().filter(|name| !name.contains('='))?;
    Some(Campaign { name: name.to_owned(), trials: value("trials=")?, failures: value("failures=")? })
}

/// What distinguishes two lists of passed tests, the first few by name; nothing if they are equal.
pub(crate) fn difference(these: &BTreeSet<String>, those: &BTreeSet<String>) -> Option<String> {
    let only: Vec<&str> = these.symmetric_difference(those).map(String::as_str).collect();
    if only.is_empty() {
        return None;
    }
    let some = only.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    Some(format!("{} tests passed on one executor only: {some}", only.len()))
}

/// Rows as aligned columns; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Report {
        let mut report = Report::default();
        output.lines().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn tests_are_counted_over_all_binaries_of_a_step() {
        let report = read(
            "     Running unittests src/main.rs (target/debug/deps/myelin-0f)\n\
             test shard::a ... ok\ntest shard::b ... FAILED\ntest shard::c ... ignored\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             \x20    Running tests/main.rs (target/debug/deps/main-1e)\n\
             test a           ... ok\n\
             test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.20s\n",
        );
        assert_eq!(report.count, Count { passed: 13, failed: 1, skipped: 3 });
        let names: Vec<&str> = report.passed.iter().map(String::as_str).collect();
        assert_eq!(names, ["tests/main.rs a", "unittests src/main.rs shard::a"]);
    }

    /// A test that had nothing to try it on printed that, returned, and stood among those that passed.
    #[test]
    fn a_test_that_says_it_was_skipped_did_not_pass() {
        let report = read(
            "     Running unittests src/lib.rs (target/debug/deps/myelin-0f)\n\
             test awake::a ... ok\ntest awake::b ... ok\ntest awake::c ... FAILED\n\
             successes:\n\n---- awake::a stdout ----\nskipped: no such class\nskipped: said again\n\n\
             ---- awake::b stdout ----\ntwo frames were skipped: as they must be\n\n\
             failures:\n\n---- awake::c stdout ----\nskipped: but it failed\n\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured\n\
             skipped: nobody is speaking\n\
             \x20    Running tests/main.rs (target/debug/deps/main-1e)\n\
             test a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(report.count, Count { passed: 2, failed: 1, skipped: 2 });
        assert_eq!(report.skips, ["unittests src/lib.rs awake::a: no such class"]);
        let names: Vec<&str> = report.passed.iter().map(String::as_str).collect();
        assert_eq!(names, ["tests/main.rs a", "unittests src/lib.rs awake::b"]);
    }

    #[test]
    fn lists_of_tests_that_differ_are_named() {
        let (these, those) = (read("test a ... ok\ntest b ... ok"), read("test a ... ok\ntest b ... ignored"));
        assert_eq!(difference(&these.passed, &these.passed), None);
        assert!(difference(&these.passed, &those.passed).is_some_and(|text| text.contains('b')));
        assert!(difference(&those.passed, &these.passed).is_some());
    }

    #[test]
    fn campaigns_are_read_and_bounded_only_without_failures() {
        let rows = [
            ("campaign wal-cuts trials=300 failures=0 bound=3/300", Some("3/300 = 1.0e-2")),
            ("campaign wal-cuts trials=300 failures=2 bound=none", Some("none")),
            ("campaign wal-cuts trials=0 failures=0", Some("none")),
            ("campaign of last spring", None),
            ("a campaign x trials=1 failures=0", None),
        ];
        for (line, bound) in rows {
            assert_eq!(read(line).campaigns.first().map(Campaign::bound).as_deref(), bound, "{line}");
        }
    }

    #[test]
    fn a_table_has_straight_columns() {
        let rows = [vec!["step".to_owned(), "s".to_owned()], vec!["a".to_owned(), "10".to_owned()]];
        assert_eq!(table(&rows), "step  s\na     10\n");
    }
}
