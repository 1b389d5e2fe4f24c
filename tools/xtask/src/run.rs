//! Runs a plan: one step after another, its output passed on as it comes, one summary at the end.
//!
//!   for each step   missing need? -> skipped, with the reason
//!                   run -> count tests, gather campaigns, compare lists of tests
//!   at the end      steps with result, seconds, budget; campaigns with trials and bound; tests that say they were skipped;
//!                   `N passed, N failed, N skipped`
//!
//! The last line never says `0 failed` after a failure: a step that failed without a failed test counts as one, and so does
//! a skip that `CI=true` does not allow. A step still running when the plan's time is up is killed with all its children.
//! Deliberately absent: running steps side by side (two cores, and cargo locks its folder), and retries.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::plan::{Need, Plan, Step};
use crate::report::{Campaign, Count, Report, difference, table};

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// One row of the summary.
struct Row {
    name: &'static str,
    outcome: Outcome,
    seconds: u64,
    budget_s: u64,
    count: Count,
    skips: Vec<String>,
    campaigns: Vec<Campaign>,
}

/// Runs the steps of `plan` whose name contains one of `filters`, or all; non-zero if anything failed.
pub(crate) fn run(root: &Path, plan: &Plan, filters: &[String]) -> Result<ExitCode> {
    if filters.iter().any(|word| word == "--list") {
        list(plan);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = filters.iter().find(|word| word.starts_with('-')) {
        bail!("unknown option {unknown}");
    }
    let start = now();
    let deadline = start + Duration::from_secs(plan.budget_s);
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let wanted = |step: &&Step| filters.is_empty() || filters.iter().any(|word| step.name.contains(word.as_str()));
    let mut reports: BTreeMap<&str, Report> = BTreeMap::new();
    let mut rows = Vec::new();
    for step in plan.steps.iter().filter(wanted) {
        println!("\n== {} ({} s): {}", step.name, step.budget_s, step.command);
        let began = now();
        let (outcome, report) = run_step(root, step, &reports, deadline, in_ci)?;
        if let Outcome::Failed(why) | Outcome::Skipped(why) = &outcome {
            println!("== {}: {why}", step.name);
        }
        rows.push(Row {
            name: step.name,
            outcome,
            seconds: (now() - began).as_secs(),
            budget_s: step.budget_s,
            count: report.count,
            skips: report.skips.clone(),
            // What `cargo test` tries of a campaign in passing is no result.
            campaigns: if step.campaign { report.campaigns.clone() } else { Vec::new() },
        });
        reports.insert(step.name, report);
    }
    if rows.is_empty() {
        bail!("no step of `{}` is called that; --list shows them", plan.name);
    }
    let seconds = (now() - start).as_secs();
    let (summary, total) = summarise(&rows, seconds, plan.budget_s);
    print!("\n{summary}");
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_step(
    root: &Path,
    step: &Step,
    earlier: &BTreeMap<&str, Report>,
    deadline: Instant,
    in_ci: bool,
) -> Result<(Outcome, Report)> {
    if let Some(reason) = step.needs.iter().find_map(|need| missing(*need, root)) {
        return Ok((skipped(step, reason, in_ci), Report::default()));
    }
    let (ended, report) = execute(root, step, deadline, &mut std::io::stdout())?;
    Ok((judge(step, ended, &report, earlier), report))
}

/// A step that cannot run here: a failure if this is CI and the step must run there.
fn skipped(step: &Step, reason: String, in_ci: bool) -> Outcome {
    if in_ci && step.must_run {
        return Outcome::Failed(format!("must run in CI, but {reason}"));
    }
    Outcome::Skipped(reason)
}

/// How the process ended, and what its output means on top of that.
fn judge(step: &Step, ended: Result<(), String>, report: &Report, earlier: &BTreeMap<&str, Report>) -> Outcome {
    if let Err(why) = ended {
        return Outcome::Failed(why);
    }
    if let Some(campaign) = report.campaigns.iter().find(|campaign| campaign.failures > 0) {
        return Outcome::Failed(format!("campaign {} failed {} times", campaign.name, campaign.failures));
    }
    if step.campaign && report.campaigns.iter().all(|campaign| campaign.trials == 0) {
        return Outcome::Failed("no campaign reported a trial".to_owned());
    }
    // If the other one was skipped there is nothing to compare, and the skip is in the summary already.
    let other = step.same_tests_as.and_then(|name| earlier.get(name)).filter(|other| other.count != Count::default());
    if let Some(why) = other.and_then(|other| difference(&other.passed, &report.passed)) {
        return Outcome::Failed(why);
    }
    Outcome::Passed
}

/// Runs the command with both outputs in one pipe, so that the names of test binaries stand before their tests.
fn execute(root: &Path, step: &Step, deadline: Instant, out: &mut dyn Write) -> Result<(Result<(), String>, Report)> {
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    let mut command = command(step)?;
    command.current_dir(root).envs(step.env.iter().copied()).stdin(Stdio::null()).process_group(0);
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", step.command))?;
    drop(command); // it holds our ends of the pipe
    let lines = lines_of(reader);
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(now())) {
            Ok(line) => {
                report.read(&line);
                writeln!(out, "{line}")?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
                // Not waited for: a process that hangs in the kernel would hold us up with it.
                return Ok((Err("killed: the time of the whole plan is up".to_owned()), report));
            }
        }
    }
    let status = child.wait()?;
    Ok((if status.success() { Ok(()) } else { Err(status.to_string()) }, report))
}

fn command(step: &Step) -> Result<Command> {
    let mut words = step.command.split(' ');
    let program = words.next().unwrap_or_default();
    let mut command = if program == "xtask" { Command::new(std::env::current_exe()?) } else { Command::new(program) };
    command.args(words);
    Ok(command)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool, not the appliance: the pipe is read while the deadline is watched"
)]
fn lines_of(reader: std::io::PipeReader) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
            if sender.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    lines
}

#[expect(clippy::disallowed_methods, reason = "a tool, not the appliance: steps are timed by the wall")]
fn now() -> Instant {
    Instant::now()
}

/// Why a need is not met on this machine, or nothing if it is.
fn missing(need: Need, root: &Path) -> Option<String> {
    let says_yes = |program: &str, arguments: &[&str]| {
        let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|status| status.success())
    };
    let (met, reason) = match need {
        Need::Root => (says_yes("test", &["-w", "/proc/1/oom_score_adj"]), "not root"),
        Need::Fuse => {
            let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
            (open.is_ok(), "/dev/fuse cannot be opened")
        }
        Need::Cgroup => (crate::memory::may_limit(), "no cgroup of our own"),
        Need::Netns => (says_yes("unshare", &["--net", "true"]), "no network name spaces"),
        Need::Uring => {
            let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            let off = disabled.is_ok_and(|value| value.trim() != "0");
            (cfg!(target_os = "linux") && !off, "io_uring is not available")
        }
        Need::Data => {
            let beside = root.join("../shared/data").is_dir();
            (beside || std::env::var_os("MYELIN_DATA").is_some(), "no real data: set MYELIN_DATA")
        }
    };
    (!met).then(|| reason.to_owned())
}

/// The closing tables, and the tests over all steps.
fn summarise(rows: &[Row], seconds: u64, budget_s: u64) -> (String, Count) {
    let mut total = Count::default();
    let mut steps =
        vec![["step", "result", "passed", "failed", "skipped", "seconds", "budget", ""].map(str::to_owned).to_vec()];
    let mut campaigns = vec![["campaign", "step", "trials", "failures", "bound"].map(str::to_owned).to_vec()];
    for row in rows {
        let mut count = row.count;
        let (result, note) = match &row.outcome {
            Outcome::Passed if row.seconds > row.budget_s => ("ok", "warning: over its budget"),
            Outcome::Passed => ("ok", ""),
            Outcome::Failed(why) => {
                count.failed = count.failed.max(1);
                ("FAILED", why.as_str())
            }
            Outcome::Skipped(why) => {
                count.skipped = count.skipped.max(1);
                ("skipped", why.as_str())
            }
        };
        total += count;
        let numbers =
            [count.passed, count.failed, count.skipped, row.seconds, row.budget_s].map(|number| number.to_string());
        steps.push(
            [row.name.to_owned(), result.to_owned()].into_iter().chain(numbers).chain([note.to_owned()]).collect(),
        );
        for found in &row.campaigns {
            let (trials, failures) = (found.trials.to_string(), found.failures.to_string());
            campaigns.push(vec![found.name.clone(), row.name.to_owned(), trials, failures, found.bound()]);
        }
    }
    let mut text = table(&steps);
    if campaigns.len() > 1 {
        text.push_str(&format!("\n{}", table(&campaigns)));
    }
    let skips = rows.iter().flat_map(|row| row.skips.iter().map(|skip| format!("skipped in {}: {skip}\n", row.name)));
    text.extend(std::iter::once("\n".to_owned()).chain(skips));
    text.push_str(&format!("{seconds} s of {budget_s} s"));
    if seconds > budget_s {
        total.failed += 1;
        text.push_str(": FAILED, over the budget of the whole");
    }
    text.push('\n');
    (text, total)
}

fn list(plan: &Plan) {
    let mut rows = vec![["step", "budget", "needs", "command"].map(str::to_owned).to_vec()];
    for step in plan.steps {
        let env: String = step.env.iter().map(|(key, value)| format!("{key}={value} ")).collect();
        let needs = step.needs.iter().map(|need| format!("{need:?}").to_lowercase()).collect::<Vec<_>>().join(" ");
        rows.push(vec![step.name.to_owned(), step.budget_s.to_string(), needs, env + step.command]);
    }
    print!("{}", table(&rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step = Step {
        name: "a",
        command: "true",
        env: &[],
        budget_s: 10,
        needs: &[],
        must_run: true,
        campaign: false,
        same_tests_as: None,
    };

    fn report(output: &str) -> Report {
        let mut report = Report::default();
        output.lines().for_each(|line| report.read(line));
        report
    }

    fn row(outcome: Outcome, output: &str) -> Row {
        let read = report(output);
        Row {
            name: "a",
            outcome,
            seconds: 1,
            budget_s: 10,
            count: read.count,
            skips: read.skips,
            campaigns: read.campaigns,
        }
    }

    const THREE: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured";

    #[test]
    fn the_last_line_counts_tests_and_never_hides_a_failed_step() {
        let rows = [
            (
                vec![row(Outcome::Passed, THREE), row(Outcome::Passed, "")],
                5,
                Count { passed: 3, failed: 0, skipped: 1 },
            ),
            (vec![row(Outcome::Failed("x".into()), THREE)], 5, Count { passed: 3, failed: 1, skipped: 1 }),
            (vec![row(Outcome::Failed("x".into()), "")], 5, Count { passed: 0, failed: 1, skipped: 0 }),
            (vec![row(Outcome::Skipped("x".into()), "")], 5, Count { passed: 0, failed: 0, skipped: 1 }),
            (vec![row(Outcome::Passed, THREE)], 101, Count { passed: 3, failed: 1, skipped: 1 }),
        ];
        for (rows, seconds, expected) in rows {
            assert_eq!(summarise(&rows, seconds, 100).1, expected);
        }
    }

    #[test]
    fn campaigns_of_all_steps_stand_in_one_table() {
        let (text, _) = summarise(&[row(Outcome::Passed, "campaign cuts trials=30 failures=0 bound=3/30")], 1, 100);
        assert!(text.contains("cuts") && text.contains("3/30 = 1.0e-1"), "{text}");
    }

    #[test]
    fn a_test_that_was_skipped_is_named_with_its_reason() {
        let said = "test x ... ok\n---- x stdout ----\nskipped: no disk\ntest result: ok. 1 passed; 0 failed;";
        let (text, count) = summarise(&[row(Outcome::Passed, said)], 1, 100);
        assert!(text.contains("\nskipped in a:  x: no disk\n"), "{text}");
        assert_eq!(count, Count { passed: 0, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_skip_fails_only_in_ci_and_only_a_step_that_must_run() {
        let may = Step { must_run: false, ..STEP };
        for (step, in_ci, red) in [(&STEP, true, true), (&STEP, false, false), (&may, true, false)] {
            assert_eq!(matches!(skipped(step, "no".to_owned(), in_ci), Outcome::Failed(_)), red);
        }
    }

    #[test]
    fn output_can_fail_a_step_whose_process_ended_well() {
        let campaign = Step { campaign: true, ..STEP };
        let twin = Step { same_tests_as: Some("b"), ..STEP };
        let earlier = BTreeMap::from([("b", report("test x ... ok\ntest result: ok. 1 passed; 0 failed;"))]);
        let rows = [
            (&STEP, Ok(()), "", false),
            (&STEP, Err("exit 1".to_owned()), "", true),
            (&STEP, Ok(()), "campaign cuts trials=30 failures=1", true),
            (&campaign, Ok(()), THREE, true),
            (&campaign, Ok(()), "campaign cuts trials=0 failures=0", true),
            (&campaign, Ok(()), "campaign cuts trials=30 failures=0", false),
            (&twin, Ok(()), "test x ... ok", false),
            (&twin, Ok(()), "test y ... ok", true),
        ];
        for (step, ended, output, red) in rows {
            let outcome = judge(step, ended, &report(output), &earlier);
            assert_eq!(matches!(outcome, Outcome::Failed(_)), red, "{output}");
        }
    }

    #[test]
    fn a_step_is_run_read_and_killed_when_time_is_up() {
        let root = std::env::temp_dir();
        let far = now() + Duration::from_secs(60);
        let says = Step { command: "echo test a ... ok", ..STEP };
        let (ended, read) = execute(&root, &says, far, &mut std::io::sink()).unwrap();
        assert_eq!((ended, read.passed.len()), (Ok(()), 1));
        assert!(execute(&root, &Step { command: "false", ..STEP }, far, &mut std::io::sink()).unwrap().0.is_err());
        let hangs = Step { command: "sleep 600", ..STEP };
        assert!(
            execute(&root, &hangs, now(), &mut std::io::sink()).unwrap().0.is_err_and(|why| why.contains("killed"))
        );
    }
}
