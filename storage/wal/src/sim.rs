//! A disk in memory that fails on request: for the whole project's tests, behind the feature `sim`.
//!
//! ```text
//!   arm(n, PowerLoss(keep))   the n-th write from now leaves the sectors that `keep` chooses, then the power is gone
//!   arm(n, Fail(kind))        the n-th write from now changes nothing and errs; later ones succeed, as kernels do
//!   arm(n, Unsynced)          the n-th write from now is in the cache, which takes it for clean: it errs, later syncs do not
//!   lose_allocation()         the same of the next file that is allocated: its name and size go with the power
//!   arm(n, Lost | Misdirected(file, offset))      answers Ok and lies
//!   restart()                 the same bytes, power back, nothing armed
//!   flip / fill / bytes       damage at rest, and looking at it
//! ```
//!
//! Writes are durable when they return, as the seam says; what a crash may leave of the one under way is the point. After
//! a failed sync the cache lies until the file is settled or the power goes: then the device's own bytes show.
//! Deliberately absent: randomness of its own (a [`Keep::Seed`] is the caller's), and time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::map::Map;
use crate::{BLOCK_BYTES, Disk, DiskFile};

/// What a device writes as one. **Units:** bytes.
pub const SECTOR_BYTES: usize = 512;

/// Which sectors of an interrupted write reach the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None: as if the power had gone a moment earlier.
    None,
    /// All, but nobody was told.
    All,
    /// The first so many bytes; the last sector may be written in part, as no good device does.
    Prefix(usize),
    /// Sector `i` if bit `i % 64` is set.
    Mask(u64),
    /// Each sector or not, by a fair coin.
    Seed(u64),
}

/// What happens to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It changes nothing and errs.
    Fail(ErrorKind),
    /// It errs, and reads show it until the power goes or the file is settled: its sync failed.
    Unsynced,
    /// Part of it remains, and every later call fails until [`SimDisk::restart`].
    PowerLoss(Keep),
    /// It answers Ok and nothing was written.
    Lost,
    /// It answers Ok and was written to another file and place.
    Misdirected(String, u64),
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    /// As reads show them.
    files: BTreeMap<String, Vec<u8>>,
    /// Blocks, by file and offset, that the device has otherwise.
    unsynced: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    /// Files whose name and size the device never got.
    phantoms: BTreeSet<String>,
    next_allocation_is_lost: bool,
    writes: u64,
    armed: Vec<(u64, Fault)>,
    power_is_gone: bool,
    allocations_fail: Option<ErrorKind>,
    reads_fail: Option<ErrorKind>,
    capacity: Option<u64>,
}

impl SimDisk {
    /// Empty, with room without bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the bytes that would survive a loss of power, power on, nothing armed.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut all = self.state().clone();
        all.forget_caches();
        Self(Arc::new(Mutex::new(State { files: all.files, ..State::default() })))
    }

    /// Power is back; what no sync covered is gone, and nothing is armed any more.
    pub fn restart(&self) {
        let mut state = self.state();
        state.forget_caches();
        *state = State { files: std::mem::take(&mut state.files), capacity: state.capacity, ..State::default() };
    }

    /// Writes performed so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Lets a fault happen to the `nth` write from now; 0 is the next.
    pub fn arm(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.writes + nth;
        state.armed.push((at, fault));
    }

    /// From now on `allocate` errs, or does not.
    pub fn fail_allocations(&self, kind: Option<ErrorKind>) {
        self.state().allocations_fail = kind;
    }

    /// The next `allocate` errs at its sync: the file seems to be there, now and whatever follows, until the power goes.
    pub fn lose_allocation(&self) {
        self.state().next_allocation_is_lost = true;
    }

    /// From now on `read_at` errs, or does not.
    pub fn fail_reads(&self, kind: Option<ErrorKind>) {
        self.state().reads_fail = kind;
    }

    /// From now on all files together have at most so many bytes.
    pub fn limit(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// Inverts one bit at rest. **Panics** outside the file.
    pub fn flip(&self, file: &str, bit: u64) {
        self.change(file, |bytes| bytes[usize::try_from(bit / 8).expect("in memory")] ^= 1 << (bit % 8));
    }

    /// Changes a file at rest. **Panics** if it is not there.
    pub fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.state().files.get_mut(file).expect("the file is there"));
    }

    /// Takes a file away.
    pub fn remove(&self, file: &str) {
        self.state().files.remove(file);
    }

    /// A copy of a file. **Panics** if it is not there.
    #[must_use]
    pub fn bytes(&self, file: &str) -> Vec<u8> {
        self.state().files.get(file).expect("the file is there").clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("files", &self.state().files.len()).finish_non_exhaustive()
    }
}

impl State {
    fn powered(&self) -> io::Result<()> {
        if self.power_is_gone { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.files.get_mut(name).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn write(&mut self, name: &str, offset: u64, blocks: &[u8]) -> io::Result<()> {
        self.powered()?;
        let number = self.writes;
        self.writes += 1;
        let fault = self.armed.iter().position(|(at, _)| *at == number).map(|at| self.armed.swap_remove(at).1);
        match fault {
            None => self.store(name, offset, blocks, &Keep::All),
            Some(Fault::Fail(kind)) => Err(kind.into()),
            Some(Fault::Unsynced) => {
                self.keep_aside(name, offset, blocks.len())?;
                self.put(name, offset, blocks, &Keep::All)?;
                Err(io::Error::other("the sync failed"))
            }
            Some(Fault::Lost) => Ok(()),
            Some(Fault::Misdirected(elsewhere, at)) => self.store(&elsewhere, at, blocks, &Keep::All),
            Some(Fault::PowerLoss(keep)) => {
                self.store(name, offset, blocks, &keep)?;
                self.power_is_gone = true;
                self.powered()
            }
        }
    }

    /// Notes what the device has where the cache is about to lie.
    fn keep_aside(&mut self, name: &str, offset: u64, length: usize) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let file = self.files.get(name).ok_or(ErrorKind::NotFound)?;
        let aside = self.unsynced.entry(name.to_owned()).or_default();
        for at in (offset..offset + length).step_by(BLOCK_BYTES) {
            let block = file.get(at..at + BLOCK_BYTES).ok_or(ErrorKind::UnexpectedEof)?;
            aside.entry(at).or_insert_with(|| block.to_vec());
        }
        Ok(())
    }

    /// Reads show the device's own bytes of a file again.
    fn settle(&mut self, name: &str) {
        let file = self.files.get_mut(name);
        for (file, blocks) in file.into_iter().zip(self.unsynced.remove(name)) {
            for (at, block) in blocks {
                file[at..at + block.len()].copy_from_slice(&block);
            }
        }
    }

    fn forget_caches(&mut self) {
        let lying: Vec<_> = self.unsynced.keys().cloned().collect();
        lying.iter().for_each(|name| self.settle(name));
        for phantom in std::mem::take(&mut self.phantoms) {
            self.files.remove(&phantom);
        }
    }

    fn store(&mut self, name: &str, offset: u64, blocks: &[u8], keep: &Keep) -> io::Result<()> {
        // What is written again is dirty again, and this time its sync covers it.
        if let Some(aside) = self.unsynced.get_mut(name) {
            let written = offset..offset + blocks.len() as u64;
            aside.retain(|at, _| !written.contains(&(*at as u64)));
        }
        self.put(name, offset, blocks, keep)
    }

    fn put(&mut self, name: &str, offset: u64, blocks: &[u8], keep: &Keep) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let file = self.file(name)?;
        let Some(place) = file.get_mut(offset..offset + blocks.len()) else {
            return Err(io::Error::other("a write beyond the file"));
        };
        let mut coin = Coin::new(keep);
        for (sector, (to, from)) in place.chunks_mut(SECTOR_BYTES).zip(blocks.chunks(SECTOR_BYTES)).enumerate() {
            let kept = match keep {
                Keep::None => 0,
                Keep::All => from.len(),
                Keep::Prefix(bytes) => bytes.saturating_sub(sector * SECTOR_BYTES).min(from.len()),
                Keep::Mask(mask) => from.len() * usize::from(mask >> (sector % 64) & 1 == 1),
                Keep::Seed(_) => from.len() * usize::from(coin.toss()),
            };
            to[..kept].copy_from_slice(&from[..kept]);
        }
        Ok(())
    }
}

/// SplitMix64, one bit at a time (Steele, Lea, Flood 2014).
struct Coin(u64);

impl Coin {
    fn new(keep: &Keep) -> Self {
        Self(if let Keep::Seed(seed) = keep { *seed } else { 0 })
    }

    fn toss(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 63) == 1
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        Ok(state.files.keys().cloned().collect())
    }

    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.powered()?;
        if let Some(kind) = state.allocations_fail {
            return Err(kind.into());
        }
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let others: usize = state.files.iter().filter(|(other, _)| *other != name).map(|(_, file)| file.len()).sum();
        if state.capacity.is_some_and(|capacity| (others + length) as u64 > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        let is_new = !state.files.contains_key(name);
        let file = state.files.entry(name.to_owned()).or_default();
        if file.len() < length {
            file.resize(length, 0);
        }
        if std::mem::take(&mut state.next_allocation_is_lost) {
            if is_new {
                state.phantoms.insert(name.to_owned());
            }
            return Err(io::Error::other("the sync failed"));
        }
        Ok(())
    }

    fn discard(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.powered()?;
        state.files.remove(name);
        state.unsynced.remove(name);
        state.phantoms.remove(name);
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.powered()?;
        state.file(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), name: name.to_owned() }))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().file(&self.name)?.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.powered()?;
        if let Some(kind) = state.reads_fail {
            return Err(kind.into());
        }
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = state.file(&self.name)?.get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "a write starts at a block");
        assert!(blocks.len().is_multiple_of(BLOCK_BYTES), "a write is whole blocks");
        assert!(blocks.as_ptr().addr().is_multiple_of(BLOCK_BYTES), "a write comes from aligned memory");
        self.disk.state().write(&self.name, offset, blocks)
    }

    fn settle(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.powered()?;
        state.settle(&self.name);
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        let mut state = self.disk.state();
        state.powered()?;
        Ok(Map::copy_of(state.file(&self.name)?.clone()))
    }
}
