//! No space, and no speed: the node degrades by name and goes on when room returns.

use super::rig::{End, MARKETS, ROWS, Rig, count, end, frame, send, sent_again, soon};
use crate::node::{markets, run, wait_for};
use myelin_client::{Client, Mode};
use myelin_datom::EntityId;
use myelin_faultfs::PowerCut;
use myelin_wire::Code;
use std::collections::VecDeque;
use std::fs::File;

/// Row 29. Frames that surely fit the segments that were made ahead.
///
/// Seen red with `Sealing::Failed` never given again: the wait for the next checkpoint ends the test.
#[test]
fn a_full_disk_stops_sealing_by_name_and_serving_goes_on() {
    let Some(mut rig) = Rig::new("full") else { return };
    let mut node = rig.start();
    let frames = 150;
    let ids = run(async {
        let client = node.patient_client().await;
        let ids = markets(&client, &MARKETS).await;
        node.wait_for_spares();
        rig.disk.leave_room(Some(0));
        for number in 0..frames {
            assert_eq!(soon("an ack", send(&client, &frame(&ids, number))).await, End::Done(ROWS as u32, 0));
        }
        wait_for("the reason", || node.readiness().1.contains("sealing fails").then_some(()));
        let (status, body) = node.readiness();
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("No space left"), "{body}");
        assert_eq!(node.metric("myelin_checkpoints_total"), 0);
        assert_eq!(soon("a count", count(&client)).await, frames * ROWS);
        ids
    });
    rig.disk.leave_room(None);
    node.wait_for_checkpoints(1);
    wait_for("the reason to go", || (!node.readiness().1.contains("sealing fails")).then_some(()));
    rig.cut(&mut node, PowerCut::DropUnsynced);
    let node = rig.start();
    run(async {
        let client = node.patient_client().await;
        let acked: Vec<_> = (0..frames).collect();
        sent_again(&client, &ids, &acked, frames, "a full disk").await;
        assert_eq!(count(&client).await, frames * ROWS);
    });
}

/// Sends frames until the log of a full disk has no room for one more; gives how many were acknowledged.
async fn fill_the_log(client: &Client, ids: &[EntityId]) -> u64 {
    let mut acked = 0;
    let told = loop {
        match soon("an ack or a refusal of a full log", send(client, &frame(ids, acked))).await {
            End::Done(..) => acked += 1,
            // A sync above 10 ms is a reason for `Busy`: it passes.
            End::Refused(Some(Code::Busy)) => {}
            other => break other,
        }
        assert!(acked < 1000, "the log is full at some time");
    };
    assert_eq!(told, End::Refused(Some(Code::NoSpace)));
    acked
}

/// Row 29: writes are refused as `no_space` when the log itself has no room left; reads and probes are served.
///
/// Seen red: connections were no longer read once the log was full, so that neither a write nor a read was answered.
#[test]
fn a_full_disk_and_a_full_log_answer_no_space_and_reads_go_on() {
    let Some(mut rig) = Rig::new("log-full") else { return };
    let node = rig.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        node.wait_for_spares();
        rig.disk.leave_room(Some(0));
        let acked = fill_the_log(&client, &ids).await;
        let body = node.readiness().1;
        assert!(body.contains("sealing fails") && body.contains("No space left"), "{body}");
        assert!(body.contains("no segment can be prepared") && body.contains("no room for a segment"), "{body}");
        let other = soon("a new connection", node.patient_client()).await;
        assert_eq!(soon("a count", count(&other)).await, acked * ROWS);
        rig.disk.leave_room(None);
        let number = acked;
        let told = soon("room", send(&other, &frame(&ids, number))).await;
        assert_eq!(told, End::Done(ROWS as u32, 0));
        wait_for("the reasons to go", || node.readiness().1.contains("\"reasons\":[]").then_some(()));
        assert_eq!(soon("a count", count(&other)).await, (acked + 1) * ROWS);
    });
}

/// Takes away every page that a start could find: the disk as it is, and not one page more.
fn fill(rig: &Rig) {
    // Whoever starts the node removes it, and its page must not be the room that is found; nor any other that was removed.
    let _gone = std::fs::remove_file(rig.data().join("listening"));
    for folder in [rig.data(), rig.data().join("core-0000")] {
        File::open(folder).and_then(|folder| folder.sync_all()).expect("synced");
    }
    rig.disk.leave_room(Some(0));
}

/// Row 29: a disk without a single free page costs no row and no start.
///
/// Seen red: the probe of the log and the file `listening` want a page each, and the start ended for want of them.
#[test]
fn a_node_starts_on_a_full_disk_and_serves_what_it_has() {
    let Some(mut rig) = Rig::new("start-full") else { return };
    let mut node = rig.start();
    let ids = run(async {
        let client = node.patient_client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..5 {
            assert_eq!(send(&client, &frame(&ids, number)).await, End::Done(ROWS as u32, 0));
        }
        ids
    });
    node.wait_for_spares();
    node.kill();
    fill(&rig);
    let node = rig.start();
    assert!(node.said().contains("no room for the file `listening`"), "{}", node.said());
    run(async {
        let client = node.patient_client().await;
        assert_eq!(soon("a count", count(&client)).await, 5 * ROWS);
        // The segments that were made ahead have room.
        assert_eq!(soon("an answer", send(&client, &frame(&ids, 5))).await, End::Done(ROWS as u32, 0));
        assert_eq!(soon("a count", count(&client)).await, 6 * ROWS);
    });
}

/// Row 29: neither the disk nor the log has room. What is there is served, a write is told `NoSpace`, and the reason is said.
///
/// Seen red: the first segment that could not be made ended the start.
#[test]
fn a_node_starts_on_a_full_disk_with_a_full_log_reads_and_says_why_it_does_not_write() {
    let Some(mut rig) = Rig::new("start-no-log") else { return };
    let mut node = rig.start();
    let (ids, acked) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        node.wait_for_spares();
        rig.disk.leave_room(Some(0));
        let acked = fill_the_log(&client, &ids).await;
        (ids, acked)
    });
    node.kill();
    fill(&rig);
    let node = rig.start();
    run(async {
        let client = node.client().await;
        assert_eq!(soon("a count", count(&client)).await, acked * ROWS);
        let told = soon("an answer", send(&client, &frame(&ids, acked))).await;
        assert_eq!(told, End::Refused(Some(Code::NoSpace)), "{}", node.said());
        let (status, body) = node.readiness();
        assert_eq!(status, 200, "{body}");
        assert!(body.contains("no segment can be prepared") && body.contains("no room for a segment"), "{body}");
        assert_eq!(soon("a count", count(&client)).await, acked * ROWS);
        rig.disk.leave_room(None);
        let patient = node.patient_client().await;
        let told = soon("room", send(&patient, &frame(&ids, acked))).await;
        assert_eq!(told, End::Done(ROWS as u32, 0));
        wait_for("the reasons to go", || node.readiness().1.contains("\"reasons\":[]").then_some(()));
        assert_eq!(soon("a count", count(&patient)).await, (acked + 1) * ROWS);
    });
}

/// 20 operations a second: one request at a time is slow and never `Busy`; many at a time are a standing delay.
///
/// Seen red with `Delay::standing_us` that ignores whether anything waits: the first part is told `Busy`.
#[test]
fn a_slow_disk_is_busy_only_when_delay_stands_and_loses_nothing() {
    let Some(mut rig) = Rig::new("slow") else { return };
    let mut node = rig.start();
    let (one_by_one, at_once) = (4, 40);
    let (ids, acked) = run(async {
        let client = node.client().await;
        let ids = markets(&client, &MARKETS).await;
        node.wait_for_spares();
        rig.disk.slow(Some(20));
        let mut acked = Vec::new();
        for number in 0..one_by_one {
            let told = soon("an ack", send(&client, &frame(&ids, number))).await;
            assert_eq!(told, End::Done(ROWS as u32, 0), "one at a time is slow, not busy");
            acked.push(number);
        }
        let status = soon("the counters", client.status()).await.expect("a node that serves counts");
        assert!(status[0].counters.iter().all(|(name, _)| name != "refused_busy"), "{status:?}");
        let (mut sent, mut busy, mut next) = (VecDeque::new(), 0, one_by_one);
        while next < one_by_one + at_once || !sent.is_empty() {
            // Always some under way: they wait for one another.
            while sent.len() < 6 && next < one_by_one + at_once {
                sent.push_back((next, client.send_ticks(&frame(&ids, next), Mode::Whole).await.expect("it is sent")));
                next += 1;
            }
            let Some((number, one)) = sent.pop_front() else { break };
            match end(&soon("an end", one.wait()).await) {
                End::Done(..) => acked.push(number),
                End::Refused(Some(Code::Busy)) => busy += 1,
                other => panic!("a slow disk is slow or busy, not {other:?}"),
            }
        }
        // The client waits out the first one by itself, so the node is asked how often it said so.
        let status = soon("the counters", client.status()).await.expect("a node that serves counts");
        let said = status[0].counters.iter().find(|(name, _)| name == "refused_busy").map_or(0, |(_, count)| *count);
        assert!(said > 0, "a delay of 100 ms that stands is `Busy`");
        println!("{} of {} acknowledged, {busy} busy", acked.len(), one_by_one + at_once);
        (ids, acked)
    });
    rig.disk.slow(None);
    rig.cut(&mut node, PowerCut::DropUnsynced);
    let node = rig.start();
    run(async {
        let client = node.patient_client().await;
        sent_again(&client, &ids, &acked, one_by_one + at_once, "a slow disk").await;
        assert_eq!(count(&client).await, (one_by_one + at_once) * ROWS);
    });
}
