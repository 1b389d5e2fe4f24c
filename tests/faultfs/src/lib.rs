//! A file system in memory that loses what was not synced, and fails when told to.
//!
//! Faults that are injected into a process do not reach io_uring or stores to a mapping. A file system does: whatever way
//! the bytes take, they arrive here.
//!
//! ```text
//!   process under test            kernel                       this crate
//!   write, mmap, io_uring  ->  page cache, /dev/fuse  ->  mount -> device -> image -> content
//!                                                           |        |        |         pages: volatile and durable
//!                                                           |        |        directories: the same, by a log of changes
//!                                                           |        epoch, freeze, slowness, faults that are armed
//!                                                           FaultFs: the handle of a test; control: the same over a socket
//! ```
//!
//! - A written page is volatile until the file is synced (fsync, fdatasync, msync, `O_DSYNC`).
//! - A created, renamed or removed name is volatile until its directory is synced; syncing the file does not help.
//! - [`FaultFs::power_cut`] keeps what is durable and mounts it afresh at the same place. Whoever still has a file open from
//!   before gets errors for ever. After a failed sync the pages count as clean, as in Linux: a second sync "succeeds" and
//!   they are lost all the same.
//!
//! - **The process under test is another process.** One that serves a disk and stores into a mapping of a file on it can hang
//!   for good: munmap writes back under the lock that the serving threads need for their own memory (seen).
//!   Plain reads and writes of its own disk are fine.
//!
//! How an end-to-end test uses it:
//!
//! ```no_run
//! # #[cfg(target_os = "linux")] fn test(mut start: impl FnMut(&std::path::Path) -> std::process::Child) -> std::io::Result<()> {
//! use myelin_faultfs::{FaultFs, PowerCut};
//! let disk = FaultFs::temporary("power-cut")?;
//! let mut node = start(disk.path());              // myelin serve --data-dir ..
//! let lost = disk.cut_power_of(&mut node, PowerCut::Random { seed: 7 })?;
//! println!("{lost}");                             // 12 of 40 unsynced pages kept, 3 torn, ..
//! let mut node = start(disk.path());              // and everything acknowledged is there
//! # node.kill() }
//! ```
//!
//! Deliberately absent: a real disk below, hard and symbolic links, permissions, extended attributes, wall-clock times
//! (a file's times count changes), and everything on systems other than Linux.
#![cfg(target_os = "linux")]

mod content;
mod control;
mod device;
mod faults;
mod image;
mod mount;
mod power;
mod serve;

pub use control::{Client, Command};
pub use faults::{Counts, Failure, Fault, Op};
pub use mount::{FaultFs, unavailable};
pub use power::{Loss, PowerCut};
