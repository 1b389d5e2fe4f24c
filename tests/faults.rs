//! What a node does when its disk does not: the real binary on a disk (`tests/faultfs`) that loses what was not synced, fails
//! where it is told to, fills up, crawls and rots.
//!
//! | module | what goes wrong |
//! |---|---|
//! | `power` | the power, under load: the unsynced is gone, or torn at random |
//! | `errors` | one write or sync of the log; then every operation of a short run, one after the other |
//! | `room` | no space at all, or 20 operations a second |
//! | `damage` | what was durable: a run, the log, a manifest; missing, swapped, unreadable |
//!
//! Each test says how it was seen red. Where nothing can be mounted (no `/dev/fuse`, no root) they pass and print why.
//! Deliberately absent: a real device under the file system, and several nodes.
#![cfg(target_os = "linux")]
#![expect(clippy::panic, reason = "helpers of tests fail the test")]
#![expect(clippy::disallowed_methods, reason = "a test is timed by the wall")]

mod damage;
mod errors;
mod power;
mod rig;
mod room;
