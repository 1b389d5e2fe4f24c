//! The folder where the log will be: what file system, how much room, and what a durable write takes.
//!
//! Everything is tried in a folder of our own inside DIR (or the nearest one that exists), through the log's own
//! [`Directory`], so that what is measured is what an append does. The folder is removed at the end.

use super::Check;
use crate::config::Limits;
use crate::runtime::{clock, entropy};
use myelin_wal::{AppendPath, BLOCK_BYTES, Directory, Disk as _, DiskFile};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes that are timed of 4 KiB.
const WRITES: usize = 200;
/// File systems that forget.
const FORGETFUL: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];
/// File systems on which appends were measured or are known to be in place.
const KNOWN: [&str; 2] = ["ext4", "xfs"];

pub(super) fn checks(dir: &Path) -> Vec<Check> {
    if let Some(file) = in_the_way(dir) {
        return vec![Check::bad(
            "folder",
            format!("{} is no folder", file.display()),
            "--dir names one, or one to be made",
        )];
    }
    let folder = nearest(dir);
    let mut checks = vec![file_system(&folder), room(&folder)];
    match Bed::make(&folder, BLOCK_BYTES) {
        Err(error) => {
            let fix = format!("a folder this user may write, instead of {}", folder.display());
            checks.push(Check::bad("direct_io", error.to_string(), fix));
        }
        Ok(mut bed) => {
            checks.push(match bed.directory.append_path() {
                AppendPath::Direct => Check::ok("direct_io", "O_DIRECT|O_DSYNC accepted"),
                AppendPath::Synced { why } => {
                    Check::warn("direct_io", format!("refused: {why}; syncs go through the page cache"), "ext4 or xfs")
                }
            });
            checks.push(match bed.sync_us(BLOCK_BYTES, WRITES) {
                Ok(times) => judge_sync(&times),
                Err(error) => Check::bad("sync_4k", error.to_string(), "another disk"),
            });
        }
    }
    checks
}

/// What stands where the folder, or one above it, would be made.
fn in_the_way(dir: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = whole.ancestors().find(|path| path.exists())?;
    (!there.is_dir()).then(|| there.to_owned())
}

/// The folder itself, or the nearest above it that exists.
fn nearest(dir: &Path) -> PathBuf {
    let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = whole.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
    let folder = there.unwrap_or_else(|| PathBuf::from("/"));
    fs::canonicalize(&folder).unwrap_or(folder)
}

/// The file system a folder lies on, as `/proc/self/mountinfo` names it.
fn mounted(folder: &Path, mountinfo: &str) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let at = before.split(' ').nth(4)?.replace("\\040", " ");
        folder.starts_with(&at).then(|| (at.len(), after.split(' ').next().unwrap_or_default().to_owned()))
    });
    // The last of two mounts at one place hides the first.
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

fn file_system(folder: &Path) -> Check {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = folder.display();
    match mounted(folder, &mountinfo) {
        None => Check::ok("file_system", format!("unknown at {place}")),
        Some(kind) if FORGETFUL.contains(&kind.as_str()) => {
            let found = format!("{kind} at {place}: an ack would not survive a loss of power");
            Check::bad("file_system", found, "--dir on a disk")
        }
        Some(kind) if KNOWN.contains(&kind.as_str()) => Check::ok("file_system", format!("{kind} at {place}")),
        Some(kind) => {
            Check::warn("file_system", format!("{kind} at {place}"), "ext4 or xfs: appends were measured there")
        }
    }
}

#[cfg(target_os = "linux")]
fn free_bytes(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

#[cfg(not(target_os = "linux"))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

fn room(folder: &Path) -> Check {
    let limits = Limits::default();
    let (least, log) = (4 * limits.segment_bytes, u64::from(limits.max_segments) * limits.segment_bytes);
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    match free_bytes(folder) {
        None => Check::ok("room", "unknown on this system"),
        Some(free) if free < least => Check::bad(
            "room",
            format!("{} free, a log begins with {}", mib(free), mib(least)),
            "room on the disk, or --lean",
        ),
        Some(free) if free < log => {
            Check::warn("room", format!("{} free, one core's log may take {}", mib(free), mib(log)), "room on the disk")
        }
        Some(free) => Check::ok("room", format!("{} free", mib(free))),
    }
}

fn judge_sync(times: &[u64]) -> Check {
    let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
    let found = format!("p50 {p50} us, p99 {p99} us over {} writes", times.len());
    let busy = Limits::default().max_sync_latency_us;
    if p50 > busy {
        return Check::bad(
            "sync_4k",
            format!("{found}: above {busy} us a node answers Busy"),
            "an SSD, or another disk",
        );
    }
    if p50 > 1_000 || p99 > busy {
        return Check::warn("sync_4k", found, "an SSD of its own, a quieter host, or a real-time class (scheduling)");
    }
    Check::ok("sync_4k", found)
}

/// The value that this share of the sorted times does not exceed.
pub(super) fn quantile(times: &[u64], share: f64) -> u64 {
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

/// A folder and a zeroed file of our own; gone when dropped.
pub(super) struct Bed {
    path: PathBuf,
    directory: Directory,
    file: Arc<dyn DiskFile>,
    /// Room for a block's alignment.
    memory: Vec<u8>,
}

impl Bed {
    /// A file for writes of up to `bytes`, in DIR or the nearest folder that exists.
    pub(super) fn make(dir: &Path, bytes: usize) -> io::Result<Self> {
        let path = nearest(dir).join(format!(".myelin-doctor-{:016x}", entropy::nonzero_u64()));
        let made = Directory::open(&path).and_then(|directory| {
            let size = bytes * FILE_WRITES;
            directory.allocate("zeroed", size as u64)?;
            let file = directory.open("zeroed")?;
            Ok((directory, file))
        });
        let (directory, file) = made.inspect_err(|_| drop(fs::remove_dir_all(&path)))?;
        let bed = Self { path, directory, file, memory: vec![0; bytes + BLOCK_BYTES] };
        for write in 0..FILE_WRITES {
            bed.write(write, bytes)?;
        }
        Ok(bed)
    }

    /// How long each of `count` durable writes took, ascending. **Units:** microseconds.
    pub(super) fn sync_us(&mut self, bytes: usize, count: usize) -> io::Result<Vec<u64>> {
        let mut times = Vec::with_capacity(count);
        for write in 0..count {
            let begun = clock::monotonic_ns();
            self.write(write % FILE_WRITES, bytes)?;
            times.push((clock::monotonic_ns() - begun) / 1_000);
        }
        times.sort_unstable();
        Ok(times)
    }

    fn write(&self, at: usize, bytes: usize) -> io::Result<()> {
        let from = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        let block = self.memory.get(from..from + bytes).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.write_at((at * bytes) as u64, block)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A folder that cannot be removed is seen by who looks; the answer stands.
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// Writes that fit the file, one behind the other, as a log's do.
const FILE_WRITES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_the_deepest_one_above_the_folder() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 0:5 / /run rw - tmpfs tmpfs rw\n\
                      23 21 8:2 / /run/my\\040disk rw shared:1 - xfs /dev/sdb rw\n";
        for (folder, kind) in [("/srv/x", "ext4"), ("/run/x", "tmpfs"), ("/run/my disk/d", "xfs"), ("/running", "ext4")]
        {
            assert_eq!(mounted(Path::new(folder), mounts).as_deref(), Some(kind), "{folder}");
        }
    }

    #[test]
    fn a_quantile_is_a_time_that_was_measured() {
        let times: Vec<u64> = (1..=200).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99), quantile(&[], 0.5)), (100, 198, 0));
    }

    #[test]
    fn the_bed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut bed = Bed::make(&dir.path().join("not/there"), BLOCK_BYTES).unwrap();
        assert_eq!(bed.sync_us(BLOCK_BYTES, 3).unwrap().len(), 3);
        drop(bed);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
