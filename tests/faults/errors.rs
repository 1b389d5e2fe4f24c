//! The device reports an error: once, at any operation. Whoever cannot keep a promise stops giving it.

use super::rig::{End, MARKETS, Node, ROWS, Rig, Started, count, frame, send, sent_again, soon};
use crate::node::{markets, report, run, trials, wait_for};
use myelin_client::Client;
use myelin_datom::EntityId;
use myelin_faultfs::{Failure, Fault, Op, PowerCut};
use myelin_wire::Code;

/// One market on each of two shards.
async fn a_market_per_shard(client: &Client) -> [EntityId; 2] {
    let name_on = |shard| {
        let mut names = (0..1000).map(|number| format!("fault:{{{number}}}"));
        names.find(|name| client.shard_of_name(name) == Some(shard)).expect("slots are spread over shards")
    };
    let names = [name_on(0), name_on(1)];
    let ids = markets(client, &[&names[0], &names[1]]).await;
    [ids[0], ids[1]]
}

/// Rows 22 and 24: the shard that lost a sync never acknowledges again, however well the disk does afterwards.
///
/// Seen red: a request whose sync failed was not answered at all, and its client waited for ever.
fn a_failed_log(op: Op, failure: Failure, direct: bool) {
    let Some(rig) = Rig::new("log") else { return };
    let mut rig = rig.on_cores(2);
    rig.disk.refuse_direct(!direct);
    let mut node = rig.start();
    if !node.readiness().1.contains("\"core\":1") {
        println!("skipped: one core only");
        return;
    }
    let story = format!("{} {} direct={direct}", op.name(), failure.name());
    let ([here, there], acked, upto) = run(async {
        let client = node.patient_client().await;
        let [here, there] = a_market_per_shard(&client).await;
        assert_eq!(send(&client, &frame(&[there], 0)).await, End::Done(ROWS as u32, 0));
        node.wait_for_spares();
        rig.disk.fail(Fault::new(op, failure).on("core-0000/segment").skip(3));
        let (mut acked, mut number) = (Vec::new(), 0);
        let told = loop {
            let told = soon("a request whose sync failed to be answered", send(&client, &frame(&[here], number))).await;
            number += 1;
            match told {
                End::Done(..) => acked.push(number - 1),
                other => break other,
            }
            assert!(number < 100, "{story}: the fault strikes");
        };
        assert_eq!(told, End::Open, "{story}: what a stopped shard says of a write is that nobody knows");
        // The fault was a single one: the disk is well again, and the shard must not believe it.
        for _ in 0..3 {
            let told = soon("an answer", send(&client, &frame(&[here], number))).await;
            assert_eq!(told, End::Open, "{story}");
        }
        assert_eq!(soon("the other core", send(&client, &frame(&[there], 1))).await, End::Done(ROWS as u32, 0));
        ([here, there], acked, number + 1)
    });
    assert_eq!(rig.disk.struck().len(), 1, "{story}");
    // The gateway was asked for nothing before. Seen red: it refused everything while any one core did not serve.
    let (status, body) =
        node.get(&format!("/v2/query/as_of/now?entity={}", there.bits())).expect("the gateway answers");
    assert!(status == 200 && body.contains("\"tick\":{"), "{story}: {status} {body}");
    let (status, body) = node.readiness();
    assert_eq!(status, 503, "{story}: {body}");
    assert!(body.contains("shards stopped") && body.contains("segment-0000"), "{story}: {body}");
    rig.cut(&mut node, PowerCut::DropUnsynced);
    rig.disk.heal();
    let node = rig.start();
    run(async {
        let client = node.patient_client().await;
        sent_again(&client, &[here], &acked, upto, &story).await;
        sent_again(&client, &[there], &[0, 1], 2, &story).await;
        assert_eq!(count(&client).await, (upto + 2) * ROWS, "{story}: every tick once");
    });
}

#[test]
fn a_failed_sync_of_the_log_stops_the_core_and_no_other() {
    a_failed_log(Op::Sync, Failure::Eio, true);
    a_failed_log(Op::Sync, Failure::Eio, false);
}

#[test]
fn a_failed_write_of_the_log_stops_the_core_and_no_other() {
    a_failed_log(Op::Write, Failure::Eio, true);
    a_failed_log(Op::Write, Failure::Enospc, false);
}

/// What no checkpoint names any more cannot be removed: that is in nobody's way but the disk's, and the next one finds it.
///
/// Seen red with a `sweep` whose failure is the checkpoint's: sealing failed from the third checkpoint on.
#[test]
fn files_that_cannot_be_removed_do_not_stop_checkpoints_and_go_when_they_can() {
    let Some(mut rig) = small_seals() else { return };
    let node = rig.start();
    rig.disk.fail(Fault::new(Op::Remove, Failure::Eio).on("core-0000").always());
    run(async {
        let client = node.patient_client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..8 * FRAMES_PER_CHECKPOINT {
            assert_eq!(send(&client, &frame(&ids, number)).await, End::Done(ROWS as u32, 0));
            if number % FRAMES_PER_CHECKPOINT == FRAMES_PER_CHECKPOINT - 1 {
                node.wait_for_checkpoints((number + 1) / FRAMES_PER_CHECKPOINT);
            }
            if number == 5 * FRAMES_PER_CHECKPOINT {
                let (struck, kept) = (rig.disk.struck(), rig.files(CORE, "manifest-"));
                assert!(struck.len() >= 2 && kept.len() >= 4, "{struck:?}, {kept:?}");
                assert!(node.readiness().1.contains("\"reasons\":[]"), "{}", node.readiness().1);
                rig.disk.heal();
            }
        }
    });
    wait_for("older manifests to go", || (rig.files(CORE, "manifest-").len() == 2).then_some(()));
}

const CORE: &str = "data/core-0000";

/// Operations that a run is failed at.
const POINTS: [Op; 8] =
    [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Allocate, Op::Truncate, Op::Rename, Op::Remove];
/// Frames of a run: three checkpoints of 1000 rows each, of which the first is removed again.
const FRAMES: u64 = 3 * FRAMES_PER_CHECKPOINT;
const FRAMES_PER_CHECKPOINT: u64 = 6;

/// What the client was told in a run.
#[derive(Default)]
struct Told {
    ids: Option<Vec<EntityId>>,
    acked: Vec<u64>,
    sent: u64,
}

/// A short life of a node, from an empty disk on. Ends early when something fails.
fn a_run(rig: &mut Rig, story: &str) -> (Option<Node>, Told) {
    let mut told = Told::default();
    let mut node = match rig.try_start() {
        Started::Serving(node) => node,
        Started::Ended(status, said) => {
            assert_eq!(status.code(), Some(7), "{story}: {said}");
            assert!(!said.contains("panicked"), "{story}: {said}");
            return (None, told);
        }
    };
    run(async {
        let client = node.patient_client().await;
        let specs = MARKETS.map(|name| myelin_wire::MarketSpec { flags: myelin_wire::MarketFlags(0), name });
        let Ok(ids) = soon(&format!("{story}: markets, or their refusal"), client.markets(&specs)).await else {
            return;
        };
        for number in 0..FRAMES {
            told.sent = number + 1;
            match soon(&format!("{story}: an answer"), send(&client, &frame(&ids, number))).await {
                End::Done(..) => told.acked.push(number),
                End::Open | End::Refused(Some(Code::Unavailable | Code::Busy)) => break,
                other => panic!("{story}: {other:?}"),
            }
            if told.sent % FRAMES_PER_CHECKPOINT == 0 {
                wait_for("a checkpoint, or a reason for its absence", || {
                    let gone = node.ended().is_some() || !node.readiness().1.contains("\"reasons\":[]");
                    let made = gone || node.metric("myelin_checkpoints_total") >= told.sent / FRAMES_PER_CHECKPOINT;
                    made.then_some(())
                });
            }
        }
        told.ids = Some(ids);
    });
    (Some(node), told)
}

/// Seen red with `Syncer::sync` (`storage/wal/src/syncer.rs`) that says all went well: an acknowledged frame is gone.
#[test]
fn campaign_an_error_at_any_operation_never_acknowledges_what_is_not_there() {
    let Some(mut rig) = small_seals() else { return };
    let (node, told) = a_run(&mut rig, "without faults");
    assert_eq!(told.acked.len() as u64, FRAMES);
    drop(node);
    let counts = rig.disk.counts();
    drop(rig);
    let kinds = [(Failure::Eio, 1), (Failure::Enospc, 1), (Failure::Eio, u64::MAX), (Failure::Enospc, u64::MAX)];
    let points = POINTS.iter().flat_map(|op| (0..counts.of(*op)).map(move |nth| (*op, nth)));
    let points: Vec<_> = points.flat_map(|point| kinds.map(|kind| (point, kind))).collect();
    let wanted = (trials(12, 160, 2_000) as usize).min(points.len());
    let (mut struck, mut ended, mut stopped, mut served) = (0, 0, 0, 0);
    for trial in 0..wanted {
        let ((op, nth), (failure, times)) = points[trial * points.len() / wanted];
        let story = format!("{} {nth} of {} {} times {times}", op.name(), counts.of(op), failure.name());
        let Some(mut rig) = small_seals() else { return };
        rig.disk.fail(Fault::new(op, failure).skip(nth).times(times));
        let (node, told) = a_run(&mut rig, &story);
        let hit = rig.disk.struck();
        let story = format!("{story}, struck {:?}", hit.first());
        struck += u32::from(!hit.is_empty());
        assert!(!hit.is_empty() || told.acked.len() as u64 == FRAMES, "{story}: nothing failed, and it failed");
        match node {
            Some(mut node) => {
                assert!(node.ended().is_none_or(|status| status.code().is_some_and(|code| code != 0)), "{story}");
                assert!(!node.said().contains("panicked"), "{story}: {}", node.said());
                if node.ended().is_some() {
                    ended += 1;
                } else if node.readiness().0 == 503 {
                    stopped += 1;
                } else {
                    served += 1;
                }
                match node.ended() {
                    None => drop(rig.cut(&mut node, PowerCut::DropUnsynced)),
                    Some(_) => drop(rig.disk.power_cut(PowerCut::DropUnsynced).expect("the power can be cut")),
                }
            }
            None => {
                ended += 1;
                rig.disk.power_cut(PowerCut::DropUnsynced).expect("the power can be cut");
            }
        }
        rig.disk.heal();
        let node = match rig.try_start() {
            Started::Serving(node) => node,
            Started::Ended(status, said) => panic!("{story}: on the healed disk it ended with {status}: {said}"),
        };
        run(async {
            let client = node.patient_client().await;
            let ids = markets(&client, &MARKETS).await;
            assert!(told.ids.is_none_or(|told| told == ids), "{story}: a market is another one");
            sent_again(&client, &ids, &told.acked, told.sent, &story).await;
            assert_eq!(count(&client).await, told.sent * ROWS, "{story}: every tick once");
        });
    }
    println!("{counts}; {struck} of {wanted} struck: {ended} ended, {stopped} stopped shards, {served} served on");
    assert!(struck * 2 > wanted as u32, "most faults strike, else nothing was proved");
    report("failed-operations", wanted as u32);
}

fn small_seals() -> Option<Rig> {
    Some(Rig::new("point")?.sealing_at("1000"))
}
