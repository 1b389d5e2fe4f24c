//! How a node starts and stops: what it refuses to begin with, and how it ends when it is asked to.

use crate::node::{Setup, done, markets, run, tick};
use myelin_client::Mode;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the binary; gives exit code, standard output, and what it said.
fn myelin(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_myelin")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn verify(dir: &Path) -> (Option<i32>, String, String) {
    myelin(&["verify", dir.to_str().unwrap(), "-o", "json"])
}

/// A directory of two shards on two cores, where there are two, that holds rows on both.
fn written(dir: &Path) -> Setup {
    let setup = Setup::new(dir).shards(2);
    let mut node = setup.start();
    run(async {
        let client = node.client().await;
        let ids = markets(&client, &["start:{A}", "start:{B}", "start:{C}", "start:{D}"]).await;
        let ticks: Vec<_> = (0..400).map(|n| tick(ids[n % 4], n as u64 / 4 + 1, 1.0)).collect();
        done(&client.ticks(&ticks, Mode::Whole).await.unwrap());
    });
    node.kill();
    setup
}

/// A folder of a core that did not come up, a mount for example, was made again empty: the node served without its half of
/// the facts, and `verify` called that sound.
#[test]
fn a_folder_or_hard_state_that_is_gone_is_damage_and_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let setup = written(dir.path());
    let last = if dir.path().join("core-0001").is_dir() { "core-0001" } else { "core-0000" };
    for gone in [last.to_owned(), format!("{last}/hard-state")] {
        let (from, aside) = (dir.path().join(&gone), dir.path().join("aside"));
        std::fs::rename(&from, &aside).unwrap();
        for _ in 0..2 {
            let (code, said) = setup.refuses_to_start();
            assert_eq!(code, Some(6), "{gone}: {said}");
            assert!(said.contains(&format!("{} is gone", from.display())), "{said}");
            assert!(!from.exists(), "{gone} was made again");
        }
        for verb in ["verify", "inspect"] {
            let (code, _, said) = myelin(&[verb, dir.path().to_str().unwrap()]);
            assert_eq!(code, Some(6), "{verb} {gone}: {said}");
            assert!(said.contains(&gone), "{said}");
        }
        std::fs::rename(&aside, &from).unwrap();
    }
    assert_eq!(verify(dir.path()).0, Some(0));
    drop(setup.start());
}

/// An identity that was lost was drawn again, and the cores were then refused for not being its own: by then it was written.
#[test]
fn cores_without_the_file_node_are_damage_and_nothing_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let setup = written(dir.path());
    std::fs::remove_file(dir.path().join("node")).unwrap();
    let (code, said) = setup.refuses_to_start();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("node is gone"), "{said}");
    assert!(!dir.path().join("node").exists() && !dir.path().join("node.new").exists(), "it was drawn again");
    assert_eq!(verify(dir.path()).0, Some(6));
}
