//! Facts about the machine that a figure is worth nothing without.

use anyhow::{Context, Result};
use std::path::Path;

/// CPUs this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The scheduling class of this thread: the 41st field of its `stat`, counted behind the name in parentheses.
pub(crate) fn scheduling() -> String {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38));
    match policy {
        Some("0") => "SCHED_OTHER",
        Some("1") => "SCHED_FIFO",
        Some("2") => "SCHED_RR",
        Some("3") => "SCHED_BATCH",
        Some("5") => "SCHED_IDLE",
        Some("6") => "SCHED_DEADLINE",
        _ => "unknown",
    }
    .to_owned()
}

/// What a directory lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub name: String,
    /// Nothing there is ever on a device.
    pub is_memory: bool,
}

/// The file system of a directory.
#[cfg(target_os = "linux")]
pub(crate) fn file_system(dir: &Path) -> Result<FileSystem> {
    let found = rustix::fs::statfs(dir).with_context(|| format!("{}", dir.display()))?;
    let name = match found.f_type as u64 {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlayfs",
        0x6969 => "nfs",
        0x2fc1_2fc1 => "zfs",
        0x6573_5546 => "fuse",
        other => return Ok(FileSystem { name: format!("{other:#x}"), is_memory: false }),
    };
    Ok(FileSystem { name: name.to_owned(), is_memory: matches!(name, "tmpfs" | "ramfs") })
}

/// The file system of a directory; its name is not known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn file_system(dir: &Path) -> Result<FileSystem> {
    dir.metadata().with_context(|| format!("{}", dir.display()))?;
    Ok(FileSystem { name: "unknown".to_owned(), is_memory: false })
}
