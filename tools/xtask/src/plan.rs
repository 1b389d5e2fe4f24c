//! What is run: the tables of `cargo xtask ci` and `cargo xtask long`.
//!
//! To add a step, add a row. A campaign is a test whose name begins with `campaign`; it reads `MYELIN_CAMPAIGN` (absent: a
//! handful of trials for `cargo test`, `ci`: minutes, `long`: an hour) and prints one line when it is through:
//!
//!   campaign wal-crash-states trials=120000 failures=0 bound=3/120000
//!
//! A test that cannot try anything here prints `skipped: WHY` and returns; `--show-output` lets it be read, and counted so.
//! A row with `campaign: true` fails if no such line came, so that a filter that matches nothing cannot pass for success.
//! Deliberately absent: conditions and loops. What depends on the machine is a [`Need`].

/// One command and what it takes.
pub(crate) struct Step {
    /// Unique; what the summary and the filters of the command line call it.
    pub(crate) name: &'static str,
    /// Words separated by blanks; `xtask` as first word is this very program.
    pub(crate) command: &'static str,
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Above it the summary warns.
    pub(crate) budget_s: u64,
    pub(crate) needs: &'static [Need],
    /// Under `CI=true` a skip of this step is a failure.
    pub(crate) must_run: bool,
    /// At least one campaign line must come.
    pub(crate) campaign: bool,
    /// The tests that pass here must be exactly those that passed in the step of this name.
    pub(crate) same_tests_as: Option<&'static str>,
}

/// What a step cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "a need is there before the first row that has it")]
pub(crate) enum Need {
    Root,
    /// `/dev/fuse`, open for reading and writing.
    Fuse,
    /// A cgroup of our own, with a limit of memory.
    Cgroup,
    /// Network name spaces of our own.
    Netns,
    /// The kernel lets us have io_uring.
    Uring,
    /// The real feeds: `MYELIN_DATA` or the folder beside the repository.
    Data,
}

/// A table and the time that all of it may take.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) budget_s: u64,
    pub(crate) steps: &'static [Step],
}

/// What most rows share.
const STEP: Step = Step {
    name: "",
    command: "",
    env: &[],
    budget_s: 60,
    needs: &[],
    must_run: true,
    campaign: false,
    same_tests_as: None,
};

const CAMPAIGN_CI: &[(&str, &str)] = &[("MYELIN_CAMPAIGN", "ci")];
const CAMPAIGN_LONG: &[(&str, &str)] = &[("MYELIN_CAMPAIGN", "long")];
/// Our own crates optimised, what they link as `cargo test` has it: a third of the time that a release build takes. What
/// nobody compiles again needs no increments.
const DECODERS_CI: &[(&str, &str)] =
    &[("MYELIN_CAMPAIGN", "ci"), ("CARGO_PROFILE_TEST_OPT_LEVEL", "2"), ("CARGO_INCREMENTAL", "0")];
const DECODERS_LONG: &[(&str, &str)] =
    &[("MYELIN_CAMPAIGN", "long"), ("CARGO_PROFILE_TEST_OPT_LEVEL", "2"), ("CARGO_INCREMENTAL", "0")];
const DECODERS: &str =
    "cargo test -p myelin-wire -p myelin-index -p myelin --lib --test campaign -- --show-output campaign";

/// Everything a change must pass, within 30 minutes on two cores.
pub(crate) const CI: Plan = Plan {
    name: "ci",
    budget_s: 30 * 60,
    steps: &[
        Step { name: "dependencies", command: "cargo fetch --locked", ..STEP },
        Step { name: "format", command: "cargo fmt --all --check", budget_s: 15, ..STEP },
        Step { name: "tidy", command: "xtask tidy", budget_s: 20, ..STEP },
        Step {
            name: "clippy",
            command: "cargo clippy --locked --workspace --all-targets -- -D warnings",
            budget_s: 200,
            ..STEP
        },
        Step { name: "tests", command: "cargo test --workspace -- --show-output", budget_s: 360, ..STEP },
        Step {
            name: "tests on uring",
            command: "cargo test -p myelin --tests -- --show-output",
            env: &[("MYELIN_TEST_EXECUTOR", "uring")],
            budget_s: 180,
            needs: &[Need::Uring],
            ..STEP
        },
        Step {
            name: "tests on portable",
            command: "cargo test -p myelin --tests -- --show-output",
            env: &[("MYELIN_TEST_EXECUTOR", "portable")],
            budget_s: 100,
            same_tests_as: Some("tests on uring"),
            ..STEP
        },
        Step {
            name: "fault file system",
            command: "cargo test -p myelin-faultfs -- --show-output",
            needs: &[Need::Root, Need::Fuse],
            must_run: false,
            ..STEP
        },
        Step {
            name: "campaigns of the log",
            command: "cargo test --release -p myelin-wal --test wal -- --show-output crash:: fuzz::",
            env: CAMPAIGN_CI,
            budget_s: 120,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the formats",
            command: "cargo test --release -p myelin-feed --test feed -- --show-output campaign",
            env: CAMPAIGN_CI,
            budget_s: 80,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the decoders",
            command: DECODERS,
            env: DECODERS_CI,
            budget_s: 360,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the node",
            command: "cargo test -p myelin --test all -- --show-output campaign",
            env: CAMPAIGN_CI,
            budget_s: 180,
            campaign: true,
            ..STEP
        },
        Step {
            name: "memory of a small node",
            command: "xtask memory --debug --ticks 10000000 --limit 268435456 -- --lean",
            budget_s: 60,
            needs: &[Need::Root, Need::Cgroup],
            must_run: false,
            campaign: true,
            ..STEP
        },
    ],
};

/// The same campaigns with larger numbers, within 90 minutes on two cores.
pub(crate) const LONG: Plan = Plan {
    name: "long",
    budget_s: 90 * 60,
    steps: &[
        Step {
            name: "campaigns of the log",
            command: "cargo test --release -p myelin-wal --test wal -- --show-output crash:: fuzz::",
            env: CAMPAIGN_LONG,
            budget_s: 600,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the formats",
            command: "cargo test --release -p myelin-feed --test feed -- --show-output campaign",
            env: CAMPAIGN_LONG,
            budget_s: 180,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the decoders",
            command: DECODERS,
            env: DECODERS_LONG,
            budget_s: 1500,
            campaign: true,
            ..STEP
        },
        Step {
            name: "campaigns of the node",
            command: "cargo test -p myelin --test all -- --show-output campaign",
            env: CAMPAIGN_LONG,
            budget_s: 2700,
            campaign: true,
            ..STEP
        },
        Step {
            name: "memory",
            command: "xtask memory --ticks 100000000 --limit 1073741824",
            budget_s: 420,
            needs: &[Need::Root, Need::Cgroup],
            must_run: false,
            campaign: true,
            ..STEP
        },
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_references_point_backwards() {
        for plan in [&CI, &LONG] {
            for (at, step) in plan.steps.iter().enumerate() {
                let before = &plan.steps[..at];
                assert!(before.iter().all(|earlier| earlier.name != step.name), "{} twice", step.name);
                if let Some(name) = step.same_tests_as {
                    assert!(before.iter().any(|earlier| earlier.name == name), "{name} is not before {}", step.name);
                }
            }
        }
    }

    /// Else a test that was skipped counts as one that passed.
    #[test]
    fn every_step_of_tests_shows_what_they_say() {
        let steps = || CI.steps.iter().chain(LONG.steps).filter(|step| step.command.starts_with("cargo test"));
        assert!(steps().count() > 5);
        assert_eq!(steps().find(|step| !step.command.contains(" -- --show-output")).map(|step| step.name), None);
    }

    #[test]
    fn the_budgets_of_the_steps_fit_into_the_whole() {
        for plan in [&CI, &LONG] {
            let sum: u64 = plan.steps.iter().map(|step| step.budget_s).sum();
            assert!(sum <= plan.budget_s, "{}: {sum} s of steps in {} s", plan.name, plan.budget_s);
        }
    }
}
