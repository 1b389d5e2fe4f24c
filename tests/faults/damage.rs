//! What was durable is not what was written any more: said by file and offset, never answered from.

use super::rig::{End, MARKETS, Node, ROWS, Rig, count, frame, send, sent_again, soon};
use crate::node::{markets, run, wait_for};
use myelin_client::At;
use myelin_datom::EntityId;
use myelin_faultfs::PowerCut;

const RUNS: &str = "data/core-0000/runs";
const CORE: &str = "data/core-0000";
/// Two checkpoints and rows behind them.
const FRAMES: u64 = 60;

/// A node that made two checkpoints at least, and was killed; the ids of its markets.
fn with_checkpoints(rig: &mut Rig) -> Vec<EntityId> {
    let mut node = rig.start();
    let ids = run(async {
        let client = node.patient_client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..FRAMES {
            assert_eq!(send(&client, &frame(&ids, number)).await, End::Done(ROWS as u32, 0));
        }
        ids
    });
    node.wait_for_checkpoints(2);
    node.kill();
    ids
}

/// All volume of a market, from every row there is: or the name of the refusal, or nothing when the node is gone.
fn volume(node: &Node, market: EntityId) -> Result<u64, String> {
    run(async {
        let client = node.client().await;
        let bars = client.bars(market, i64::MAX, 0, i64::MAX, At::default());
        let bars = soon("an answer about a damaged run", bars).await.map_err(|error| error.to_string())?;
        Ok(bars.value.iter().map(|bar| bar.volume).sum::<f64>() as u64)
    })
}

/// A read of a spoiled run is refused or stops the shard, and the reason names the file. The disk as it was: all is there.
fn a_spoiled_run(story: &str, spoil: impl Fn(&Rig, &str)) {
    let Some(mut rig) = Rig::new("run") else { return };
    let ids = with_checkpoints(&mut rig);
    let whole = FRAMES * ROWS / 4;
    let file = rig.files(RUNS, ".ticks").remove(0);
    spoil(&rig, &file);
    let mut node = rig.start();
    let name = file.rsplit('/').next().unwrap_or_default();
    let answers: Vec<_> = ids.iter().map(|id| volume(&node, *id)).collect();
    for answer in answers.iter().flatten() {
        assert_eq!(*answer, whole, "{story}: a wrong answer");
    }
    assert!(answers.iter().any(Result::is_err), "{story}: the spoiled page was read by no one");
    let (status, body) = node.readiness();
    assert!(status == 503 && body.contains(name) && body.contains("at byte"), "{story}: {body}");
    assert!(!node.said().contains("panicked"), "{story}: {}", node.said());
    // The medium is well again: nothing was changed by us meanwhile.
    node.kill();
    rig.disk.heal();
    let node = rig.start();
    for id in &ids {
        assert_eq!(volume(&node, *id), Ok(whole), "{story}");
    }
}

/// Seen red with the comparison of a block's checksum left out: nobody noticed. And: whoever asked was not answered.
#[test]
fn a_flipped_bit_in_a_sealed_run_is_named_and_never_answered_from() {
    a_spoiled_run("a flipped bit", |rig, file| rig.disk.flip_on_read(file, 300, 0x10).expect("a file"));
}

#[test]
fn a_bad_sector_in_a_sealed_run_is_named_and_never_answered_from() {
    a_spoiled_run("a bad page", |rig, file| {
        // The header is read at the start and the blocks follow it in the same page or the next: the node may refuse to start.
        let bytes = std::fs::metadata(rig.disk.path().join(file)).expect("a file").len();
        assert!(bytes > 3 * 4096, "a run of {bytes} bytes has a page that is neither header nor directory");
        rig.disk.bad_page(file, 1).expect("a file");
    });
}

/// Row 30: a page that was verified and goes bad later, under the map.
///
/// Seen red without the handler (`src/runtime/sigbus.rs`): the process died of the signal, without a word.
#[test]
fn a_page_that_goes_bad_under_the_map_ends_the_process_as_damaged() {
    let Some(mut rig) = Rig::new("map") else { return };
    let ids = with_checkpoints(&mut rig);
    let mut node = rig.start();
    let whole = FRAMES * ROWS / 4;
    ids.iter().for_each(|id| assert_eq!(volume(&node, *id), Ok(whole)));
    let runs = rig.files(RUNS, ".ticks");
    for file in &runs {
        for page in 0..4 {
            rig.disk.bad_page(file, page).expect("a file");
        }
    }
    // Every read of rows goes through the map, and the disk made the kernel forget what it had read.
    let told = volume(&node, ids[0]);
    assert!(told.is_err(), "answered from a page that is gone: {told:?}");
    let ended = wait_for("the end", || node.ended());
    let said = node.said();
    assert_eq!(ended.code(), Some(6), "{ended:?}: {said}");
    let named = runs.iter().any(|file| said.contains(&format!("/{file}: ")));
    assert!(named && said.contains("cannot be read"), "{said}");
    // The medium is well again: nothing was changed by us meanwhile.
    rig.disk.heal();
    let node = rig.start();
    ids.iter().for_each(|id| assert_eq!(volume(&node, *id), Ok(whole)));
}

/// Row 26, on the device's own word: nothing is cut and nothing is written.
#[test]
fn an_unreadable_page_of_the_durable_log_is_refused_by_file_and_offset() {
    let Some(mut rig) = Rig::new("log-page") else { return };
    let mut node = rig.start();
    let ids = run(async {
        let client = node.patient_client().await;
        let ids = markets(&client, &MARKETS).await;
        for number in 0..10 {
            assert_eq!(send(&client, &frame(&ids, number)).await, End::Done(ROWS as u32, 0));
        }
        ids
    });
    node.kill();
    rig.disk.bad_page("data/core-0000/segment-0000", 6).expect("a file");
    let said = rig.refusal(7);
    assert!(said.contains("segment-0000") && said.contains("at byte"), "{said}");
    rig.disk.heal();
    let node = rig.start();
    let acked: Vec<_> = (0..10).collect();
    run(async { sent_again(&node.patient_client().await, &ids, &acked, 10, "the page came back").await });
}

/// The newest manifest is of no use: one before it is kept, and so is the log behind that one.
fn without_the_newest_manifest(story: &str, spoil: impl Fn(&Rig, &str)) {
    let Some(mut rig) = Rig::new("manifest") else { return };
    let ids = with_checkpoints(&mut rig);
    let manifests = rig.files(CORE, "manifest-");
    assert!(manifests.len() >= 2, "{story}: {manifests:?}");
    spoil(&rig, &manifests[manifests.len() - 1]);
    let mut node = rig.start();
    let acked: Vec<_> = (0..FRAMES).collect();
    run(async {
        let client = node.patient_client().await;
        sent_again(&client, &ids, &acked, FRAMES, story).await;
        // It goes on from there, over the manifest that was damaged.
        for number in FRAMES..2 * FRAMES {
            assert_eq!(send(&client, &frame(&ids, number)).await, End::Done(ROWS as u32, 0), "{story}");
        }
    });
    node.wait_for_checkpoints(2);
    rig.cut(&mut node, PowerCut::DropUnsynced);
    rig.disk.heal();
    let node = rig.start();
    run(async {
        let client = node.patient_client().await;
        let acked: Vec<_> = (0..2 * FRAMES).collect();
        sent_again(&client, &ids, &acked, 2 * FRAMES, story).await;
        assert_eq!(count(&client).await, 2 * FRAMES * ROWS, "{story}");
    });
}

/// Seen red with `Manifest::newest` that gives the first error it meets.
#[test]
fn a_damaged_newest_manifest_costs_a_longer_replay_and_no_row() {
    without_the_newest_manifest("decayed", |rig, file| rig.disk.decay(file, 50, 1).expect("stored"));
}

/// Seen red: a manifest that could not be read ended the start, although the one before was whole.
#[test]
fn an_unreadable_newest_manifest_costs_a_longer_replay_and_no_row() {
    without_the_newest_manifest("unreadable", |rig, file| rig.disk.bad_page(file, 0).expect("a file"));
}

/// Seen red with the comparison of hashes in `Manifest::restore` left out: refused later, and not by name.
#[test]
fn a_run_that_is_missing_or_another_one_is_refused_by_name() {
    let Some(mut rig) = Rig::new("missing") else { return };
    let ids = with_checkpoints(&mut rig);
    let place = |file: &str| rig.disk.path().join(file);
    let runs = rig.files(RUNS, ".ticks");
    let (first, second) = (place(&runs[0]), place(&runs[1]));
    let aside = place("aside");
    let rename = |from, to| std::fs::rename::<&std::path::Path, &std::path::Path>(from, to).expect("renamed");
    rename(&first, &aside);
    let missing = rig.refusal(6);
    let name = runs[0].rsplit('/').next().unwrap_or_default();
    assert!(missing.contains(name), "{missing}");
    rename(&second, &first);
    rename(&aside, &second);
    let swapped = rig.refusal(6);
    assert!(swapped.contains(name) && swapped.contains("hash"), "{swapped}");
    rename(&first, &aside);
    rename(&second, &first);
    rename(&aside, &second);
    let node = rig.start();
    let acked: Vec<_> = (0..FRAMES).collect();
    run(async { sent_again(&node.patient_client().await, &ids, &acked, FRAMES, "both are back").await });
}
