//! The handle of a test on its disk: mount it, spoil it, cut its power, and mount it again at the same place.
//!
//! A mount is a thread with a FUSE session and ends when the kernel lets go of it; unmounting is by force and lazy, so that
//! a process that still has files open cannot hold it up. Deliberately absent: running the process under test.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::content::PAGE;
use crate::device::Device;
use crate::faults::{BadSpot, Counts, Fault};
use crate::power::{Loss, PowerCut};
use crate::serve::Mounted;

/// Threads per mount: one may wait for its turn on a slow device while others ask for names.
const THREADS: usize = 4;
/// The capability that mounting takes (linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// Why no file system can be mounted here, if so: the reason under which a test is skipped.
pub fn unavailable() -> Option<String> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    if let Err(error) = device {
        return Some(format!("/dev/fuse: {error}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let may_mount =
        effective.is_some_and(|bits| u64::from_str_radix(bits.trim(), 16).unwrap_or(0) >> CAP_SYS_ADMIN & 1 == 1);
    (!may_mount).then(|| "mounting needs root".to_owned())
}

/// A mounted disk. Dropping it unmounts.
pub struct FaultFs {
    device: Arc<Device>,
    path: PathBuf,
    temporary: bool,
    notifier: Mutex<Option<Notifier>>,
}

impl FaultFs {
    /// An empty disk at `path`, a directory that exists.
    pub fn mount(path: &Path) -> io::Result<FaultFs> {
        // A mount whose process died answers ENOTCONN for ever: it may go.
        if std::fs::metadata(path).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN)) {
            umount2(path, MntFlags::MNT_DETACH)?;
        }
        let path = path.canonicalize()?;
        let disk = FaultFs { device: Arc::new(Device::new()), path, temporary: false, notifier: Mutex::new(None) };
        disk.attach()?;
        Ok(disk)
    }

    /// An empty disk at a new directory of its own, which goes with it.
    pub fn temporary(name: &str) -> io::Result<FaultFs> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("faultfs-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        let mut disk = FaultFs::mount(&path)?;
        disk.temporary = true;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The power fails and comes back. Files that were open stay dead (`EIO`, `ENOTCONN`); the path shows what was left.
    /// Armed faults, room and slowness stay, a freeze ends.
    pub fn power_cut(&self, how: PowerCut) -> io::Result<Loss> {
        let loss = self.device.cut(how);
        self.detach()?;
        self.attach()?;
        Ok(loss)
    }

    /// The power of a process and its disk fails: `kill -9` and [`FaultFs::power_cut`], then the process is reaped.
    pub fn cut_power_of(&self, process: &mut Child, how: PowerCut) -> io::Result<Loss> {
        process.kill()?;
        // Before waiting: a process in a frozen operation dies only when that returns.
        let loss = self.power_cut(how)?;
        process.wait()?;
        Ok(loss)
    }

    /// Arms a fault.
    pub fn fail(&self, fault: Fault) {
        self.device.state().faults.arm(fault);
    }

    /// Disarms all faults, bad spots, freeze, slowness and lack of space.
    pub fn heal(&self) {
        self.device.state().faults.clear();
        self.device.freeze(false);
        self.device.slow(None);
        self.device.leave_room(None);
    }

    /// Leaves this much free space; 0: allocated pages can be written, no other; `None`: plenty.
    pub fn leave_room(&self, bytes: Option<u64>) {
        self.device.leave_room(bytes);
    }

    /// Reads, writes and syncs take turns, so many a second; `None`: at full speed.
    pub fn slow(&self, operations_a_second: Option<u32>) {
        self.device.slow(operations_a_second);
    }

    /// Nothing returns until [`FaultFs::thaw`] or a power cut.
    pub fn freeze(&self) {
        self.device.freeze(true);
    }

    /// What was frozen goes on.
    pub fn thaw(&self) {
        self.device.freeze(false);
    }

    /// Files opened from now on are read and written past the page cache: every read comes here.
    pub fn bypass_cache(&self, bypass: bool) {
        self.device.state().uncached = bypass;
    }

    /// Reads of `path` (below the mount) find these bits turned at `offset`, until healed.
    pub fn flip_on_read(&self, path: &str, offset: u64, mask: u8) -> io::Result<()> {
        self.spoil(path, BadSpot::Flip { offset, mask })
    }

    /// Reads of this 4 KiB page of `path` fail with `EIO`, until healed.
    pub fn bad_page(&self, path: &str, page: u64) -> io::Result<()> {
        self.spoil(path, BadSpot::Unreadable { from: page * PAGE, to: (page + 1) * PAGE })
    }

    /// Turns bits of `path` for good, also in what is durable. An error if nothing is stored there.
    pub fn decay(&self, path: &str, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.device.state();
        let found = state.image.find(path).map_err(io::Error::from_raw_os_error)?;
        let content = state.image.content_mut(found).map_err(io::Error::from_raw_os_error)?;
        if !content.decay(offset, mask) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing is stored at this offset"));
        }
        drop(state);
        self.forget_cached()
    }

    /// Files opened from now on with `O_DIRECT` are refused with `EINVAL`, as file systems do that cannot; also when healed.
    pub fn refuse_direct(&self, refuse: bool) {
        self.device.state().refuse_direct = refuse;
    }

    /// What armed faults struck since the disk was healed, in order, the first thousand: `write wal/0001`.
    pub fn struck(&self) -> Vec<String> {
        self.device.state().faults.struck.clone()
    }

    /// Operations so far, over all mounts.
    pub fn counts(&self) -> Counts {
        self.device.counts()
    }

    /// Pages that a power cut would drop now.
    pub fn unsynced_pages(&self) -> u64 {
        self.device.state().image.dirty_pages()
    }

    fn spoil(&self, path: &str, spot: BadSpot) -> io::Result<()> {
        self.device.state().faults.spoil(path.trim_matches('/'), spot);
        self.forget_cached()
    }

    /// The kernel drops what it has read, so that the next read comes here.
    fn forget_cached(&self) -> io::Result<()> {
        let ids = self.device.state().image.ids();
        let notifier = self.notifier.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(notifier) = notifier.as_ref() else { return Ok(()) };
        for id in ids {
            match notifier.inval_inode(INodeNo(id), 0, 0) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn attach(&self) -> io::Result<()> {
        let epoch = self.device.state().epoch;
        // Mounted by hand: a session that mounts for itself would, when it ends, unmount whatever is at its path by then,
        // and after a power cut that is the next session (fuser 0.18 takes an error on its device for a live mount).
        let kernel = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let ids = "user_id=0,group_id=0,allow_other";
        let options = format!("fd={},rootmode=40000,{ids}", kernel.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
        mount(Some("faultfs"), &self.path, Some("fuse"), flags, Some(options.as_str()))?;
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        let mounted = Mounted { device: Arc::clone(&self.device), epoch };
        let session = Session::from_fd(mounted, kernel.into(), SessionACL::All, config)?;
        *self.notifier.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.notifier());
        // The thread ends when the kernel closes the connection: `detach` sees to it.
        Builder::new().name("faultfs".to_owned()).spawn(move || session.run())?;
        Ok(())
    }

    fn detach(&self) -> io::Result<()> {
        *self.notifier.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // By force: the kernel drops the connection, whoever waits in it returns, and no open file keeps the session alive.
        Ok(umount2(&self.path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH)?)
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        // Whoever waits in it goes on, with an error. A mount that cannot be taken down is left to the machine's end.
        self.device.cut(PowerCut::DropUnsynced);
        if self.detach().is_ok() && self.temporary {
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
