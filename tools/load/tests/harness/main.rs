//! The whole harness against a node that is none: everything acknowledged, or something quietly dropped.
//!
//! Every fault here is one that a real node must never have, and each must be told by name: a harness that cannot fail
//! proves nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests, and a node that is one")]

mod node;

use clap::Parser;
use myelin_load::args::{Cli, IngestArgs, Mode};
use myelin_load::report::Report;
use node::{Faults, Node};

fn args(node: &Node, line: &str) -> IngestArgs {
    let line = format!("myelin-load ingest --server {} --seconds 0.5 --markets 10 {line}", node.address);
    let line = if line.contains("--bands") { line } else { line + " --bands 100" };
    match Cli::try_parse_from(line.split_whitespace()).unwrap().mode {
        Mode::Ingest(args) => args,
        _ => panic!("not ingest"),
    }
}

fn run(faults: Faults, line: &str) -> (Report, Node) {
    let node = Node::start(faults);
    let report = myelin_load::ingest(&args(&node, line)).unwrap();
    (report, node)
}

#[test]
fn an_honest_node_loses_nothing_at_a_rate() {
    for line in [
        "--rate 20000 --batch 10 --fire-one-in 50",
        "--rate 20000 --batch 10 --fire-one-in 50 --connections 3 --shuffle 8",
        "--rate 2000 --batch 1 --fire-one-in 20 --seed 7",
    ] {
        let (report, node) = run(Faults::default(), line);
        assert!(report.is_sound(), "{line}: {report:?}");
        assert_eq!((report.offered, report.acked), (report.acked, node.stored()), "{line}");
        assert_eq!(report.latency_from, "intended");
        assert!(report.firings_expected > 0, "{line}: bands that never fire prove nothing");
        assert_eq!((report.firings_received, node.bands()), (report.firings_expected, 0), "{line}");
        assert!(report.ack_us.p50.is_some() && report.reflex_us.p50.is_some());
    }
}

#[test]
fn an_honest_node_loses_nothing_at_the_maximum_and_on_two_shards() {
    let faults = Faults { shards: 2, ..Faults::default() };
    let (report, node) = run(faults, "--rate max --batch 100 --fire-one-in 1000 --connections 1");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.latency_from, report.acked), ("actual", node.stored()));
    assert!(report.ticks_per_second > 0.0 && report.firings_expected > 0);
}

#[test]
fn busy_is_waited_out_and_nothing_is_sent_twice_or_out_of_order() {
    for line in ["--rate max --batch 10", "--rate 20000 --batch 10 --connections 2"] {
        let (report, node) = run(Faults { busy_every: 40, ..Faults::default() }, line);
        assert!(report.is_sound(), "{report:?}");
        assert!(report.busy_stalls > 0 && report.busy >= report.busy_stalls);
        assert_eq!(report.acked, node.stored());
        assert_eq!(node.out_of_order(), 0);
    }
}

#[test]
fn an_acked_tick_that_is_not_stored_is_told() {
    let (report, _) = run(Faults { drop_tick: 300, ..Faults::default() }, "--rate 20000 --batch 10 --bands 0");
    assert_eq!((report.lost, report.lost_ticks, report.lost_firings), (1, 1, 0));
    assert!(!report.is_sound());
}

#[test]
fn a_tick_that_is_stored_twice_is_told() {
    let (report, _) = run(Faults { double_tick: 300, ..Faults::default() }, "--rate 20000 --batch 10 --bands 0");
    assert_eq!((report.lost, report.surplus_ticks, report.is_sound()), (0, 1, false));
}

#[test]
fn a_firing_that_never_comes_is_told() {
    let faults = Faults { drop_firing: 3, ..Faults::default() };
    let (report, _) = run(faults, "--rate 20000 --batch 10 --fire-one-in 50");
    assert_eq!((report.lost, report.lost_ticks, report.lost_firings), (1, 0, 1));
    assert_eq!(report.firings_received + 1, report.firings_expected);
}

#[test]
fn a_firing_for_no_reason_is_told_and_a_repeated_one_is_only_counted() {
    let faults = Faults { wrong_firing: 3, repeat_firing: 5, ..Faults::default() };
    let (report, _) = run(faults, "--rate 20000 --batch 10 --fire-one-in 50");
    assert_eq!((report.lost, report.firings_unexpected, report.firings_repeated), (0, 1, 1));
    assert!(!report.is_sound());
}

#[test]
fn a_node_that_goes_away_leaves_ticks_unanswered_and_is_told() {
    let (report, _) = run(Faults { hang_up_at: 500, ..Faults::default() }, "--rate max --batch 10 --bands 0");
    assert!(report.unanswered > 0 && !report.is_sound());
    assert!(!report.errors.is_empty());
}

#[test]
fn several_processes_share_the_load_and_add_up() {
    let node = Node::start(Faults::default());
    let line = format!(
        "ingest --server {} --seconds 0.5 --markets 10 --bands 100 --rate 20000 --batch 10 --fire-one-in 50 \
         --processes 2 -o json",
        node.address
    );
    let program = env!("CARGO_BIN_EXE_myelin-load");
    let output = std::process::Command::new(program).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["acked"].as_u64(), report["offered"].as_u64()), (Some(10_000), Some(10_000)));
    assert_eq!((node.stored(), node.bands()), (10_000, 0));
    assert_eq!(report["lost"], 0);
}

#[test]
fn a_single_tick_is_measured_beside_the_bare_round_trip() {
    let node = Node::start(Faults::default());
    let line = format!("latency --server {} --count 50 -o json", node.address);
    let program = env!("CARGO_BIN_EXE_myelin-load");
    let output = std::process::Command::new(program).args(line.split_whitespace()).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["ack_us"]["p50"].as_f64() > Some(0.0) && report["ping_us"]["p50"].as_f64() > Some(0.0));
    assert_eq!((report["sync_us"].is_null(), node.stored()), (true, 150));
}

#[test]
fn without_a_node_the_exit_code_says_so() {
    let program = env!("CARGO_BIN_EXE_myelin-load");
    let status = std::process::Command::new(program).args(["ingest", "--server", "127.0.0.1:1"]).status().unwrap();
    assert_eq!(status.code(), Some(3));
}
