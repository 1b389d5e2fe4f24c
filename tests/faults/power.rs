//! The power fails under load, again and again: everything acknowledged is there once.

use super::rig::{End, MARKETS, Node, ROWS, Rig, count, end, frame, send, soon};
use crate::node::{markets, report, run, trials};
use myelin_client::Mode;
use myelin_datom::EntityId;
use myelin_faultfs::{Loss, PowerCut};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Frames under way at once.
const UNDER_WAY: usize = 16;

/// Sends frames from `first` on until the power fails under them; gives how many were acknowledged, in order, and what
/// the disk lost. After `after` the next moment counts at which something is written and not synced.
async fn load_until_dark(
    rig: &Rig,
    node: &mut Node,
    ids: &[EntityId],
    first: u64,
    after: Duration,
    how: PowerCut,
) -> (u64, Loss) {
    let client = node.client().await;
    let begun = Instant::now();
    let (mut next, mut acked, mut loss) = (first, first, None);
    let mut sent = VecDeque::new();
    loop {
        while loss.is_none() && sent.len() < UNDER_WAY {
            let one = client.send_ticks(&frame(ids, next), Mode::Whole).await;
            sent.push_back(one.expect("a node with power takes frames"));
            next += 1;
        }
        let waited = begun.elapsed();
        if loss.is_none() && waited > after {
            rig.disk.freeze();
            if rig.disk.unsynced_pages() > 0 || waited > after + Duration::from_secs(1) {
                loss = Some(rig.cut(node, how));
            }
            rig.disk.thaw();
        }
        let Some(one) = sent.pop_front() else { break };
        let told = soon("the end of a frame under way", one.wait()).await;
        match end(&told) {
            End::Done(..) => acked += 1,
            // Busy before the cut: what comes behind it is refused as well, and sent again.
            End::Refused(_) if loss.is_none() => {
                sent.clear();
                next = acked;
            }
            _ => sent.clear(),
        }
        if loss.is_some() && sent.is_empty() {
            break;
        }
    }
    (acked, loss.expect("the power fails"))
}

/// Seen red: the name of a core's folder was not synced at its making, and the first cut took the whole log with it. And
/// with `write_at` of `storage/wal/src/directory.rs` that does not sync.
#[test]
fn campaign_nothing_acknowledged_is_lost_or_doubled_when_the_power_fails() {
    let rounds = trials(3, 50, 500);
    let Some(mut rig) = Rig::new("power") else { return };
    let mut node = rig.start();
    let ids = run(async { markets(&node.patient_client().await, &MARKETS).await });
    let mut lost = Loss::default();
    let (mut first, mut dirty) = (0, 0);
    for round in 0..rounds {
        let how = if round % 2 == 0 { PowerCut::DropUnsynced } else { PowerCut::Random { seed: u64::from(round) } };
        let after = Duration::from_millis(u64::from(round * 37 % 160) + 5);
        let (acked, loss) = run(load_until_dark(&rig, &mut node, &ids, first, after, how));
        let story = format!("round {round}, {how:?}, {loss}");
        dirty += u32::from(loss.unsynced_pages > loss.kept_pages);
        lost.unsynced_pages += loss.unsynced_pages;
        lost.torn_pages += loss.torn_pages;
        lost.unsynced_names += loss.unsynced_names;
        // Two starts the log writes past the page cache, two starts through it with syncs of its own.
        rig.disk.refuse_direct(round / 2 % 2 == 0);
        node = rig.start();
        first = run(async {
            let client = node.patient_client().await;
            for number in first..acked {
                let told = soon("an answer", send(&client, &frame(&ids, number))).await;
                assert_eq!(told, End::Done(0, ROWS as u32), "{story}: frame {number} of {acked} was acknowledged");
            }
            let beyond = acked + UNDER_WAY as u64 + 1;
            for number in acked..beyond {
                let told = soon("an answer", send(&client, &frame(&ids, number))).await;
                assert!(matches!(told, End::Done(0, _) | End::Done(_, 0)), "{story}: frame {number}: {told:?}");
            }
            assert_eq!(count(&client).await, beyond * ROWS, "{story}: every tick once");
            beyond
        });
    }
    assert!(dirty > 0, "no cut lost anything unsynced: nothing was proved");
    println!("{dirty} of {rounds} cuts lost unsynced pages; over all: {lost}");
    report("power-cut", rounds);
}
