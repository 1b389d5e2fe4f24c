//! What a core must never forget and the log does not say: terms, votes, commits, and how far the log was durable.
//!
//! ```text
//!   hard-state   | copy 0: one block | copy 1: one block |
//!
//!    0 magic [u8;8] | 8 version u32 | 12 core u32 | 16 generation u64 | 24 synced u64 | 32 groups u32
//!   36 zero [u8;4] | 40 log_id u64 | 48 zero [u8;16]
//!   64 group[0] | 96 group[1] | ... at most 125 ...                                       | 4092 crc u32 of 0..4092
//!
//!   group   0 term u64 |  8 vote u64 | 16 commit u64 | 24 group u16 | 26 zero [u8;6]
//! ```
//!
//! A store writes copy 0, then copy 1, each durable before the next. So at any moment one copy is whole, and after a
//! store both are: damage to either cannot bring an old vote back. (One copy per store would be half the writes, and a
//! bad sector in the newer one would silently restore the vote before.) Costs two syncs, some 0.25 ms.
//! Deliberately absent: meaning. Who may vote for whom is Raft's.

use std::sync::Arc;

use bytemuck::Zeroable;

use crate::blocks::Buffer;
use crate::error::is_full;
use crate::planted::{self, Bug};
use crate::{BLOCK_BYTES, Config, Disk, DiskFile, Lsn, WalError};

const FILE: &str = "hard-state";
const MAGIC: [u8; 8] = *b"MyelnHrd";
const VERSION: u32 = 1;
const COPIES: usize = 2;
const GROUPS_AT: usize = 64;
const CRC_AT: usize = BLOCK_BYTES - 4;

/// Groups that one core's hard state has room for.
pub const GROUPS_MAX: usize = (CRC_AT - GROUPS_AT) / size_of::<GroupState>();

/// One group's part of the hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct GroupState {
    /// The latest term seen.
    pub term: u64,
    /// Whom this replica voted for in it; 0 is nobody.
    pub vote: u64,
    /// The highest index known committed; a hint, not a promise.
    pub commit: u64,
    /// Which group.
    pub group: u16,
    /// Zero.
    pub zero: [u8; 6],
}

/// What a core must never forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// All of the log below was durable: the place for [`Start::synced`](crate::Start::synced).
    pub synced: Lsn,
    /// At most [`GROUPS_MAX`].
    pub groups: Vec<GroupState>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: u32,
    core: u32,
    generation: u64,
    synced: Lsn,
    groups: u32,
    zero: [u8; 4],
    log_id: u64,
    reserved: [u8; 16],
}

const _: () = {
    assert!(size_of::<Head>() == GROUPS_AT);
    assert!(core::mem::offset_of!(Head, generation) == 16);
    assert!(core::mem::offset_of!(Head, synced) == 24);
    assert!(core::mem::offset_of!(Head, groups) == 32);
    assert!(core::mem::offset_of!(Head, log_id) == 40);
    assert!(size_of::<GroupState>() == 32);
    assert!(core::mem::offset_of!(GroupState, commit) == 16);
    assert!(core::mem::offset_of!(GroupState, group) == 24);
    assert!(GROUPS_MAX == 125);
};

/// The hard state's file.
#[derive(Debug)]
pub struct HardStateFile {
    file: Arc<dyn DiskFile>,
    core: u32,
    log_id: u64,
    generation: u64,
    poisoned: bool,
}

enum Copy {
    Blank,
    Damaged { found: u32, expected: u32 },
    Valid { generation: u64, state: HardState },
}

impl HardStateFile {
    /// Opens the file, creating it if need be, and reads the newest valid copy; a damaged or older copy is written
    /// again. **Errors:** [`WalError::Corrupt`] if a state was stored once and neither copy is valid: the replica has
    /// lost its vote and must come back under a new id.
    pub fn open(disk: &dyn Disk, config: &Config) -> Result<(Self, HardState), WalError> {
        let names = disk.list().map_err(WalError::io("list", ".", 0))?;
        let (mut file, mut copies) = read_copies(disk, config)?;
        if names.iter().any(|name| name == FILE) && matches!(copies, [Copy::Blank, Copy::Blank]) {
            // An earlier life made it and got no further: perhaps its name or size was never durable.
            disk.discard(FILE).map_err(WalError::io("discard", FILE, 0))?;
            (file, copies) = read_copies(disk, config)?;
        }
        let mut this = Self { file, core: config.core, log_id: config.log_id, generation: 0, poisoned: false };
        let [first, second] = &copies;
        let (generation, state) = match (first, second) {
            (Copy::Valid { generation: a, .. }, Copy::Valid { generation: b, state }) if b > a => (*b, state.clone()),
            (Copy::Valid { generation, state }, _) | (_, Copy::Valid { generation, state }) => {
                (*generation, state.clone())
            }
            // Copy 1 is written after copy 0, so while it is blank no store was ever complete.
            (_, Copy::Blank) => return Ok((this, HardState::default())),
            (Copy::Damaged { expected, found }, _) | (_, Copy::Damaged { expected, found }) => {
                let (expected, found) = (u64::from(*expected), u64::from(*found));
                return Err(WalError::Corrupt { file: FILE.to_owned(), offset: 0, what: "crc", expected, found });
            }
        };
        this.generation = generation;
        for (at, copy) in copies.iter().enumerate() {
            if !matches!(copy, Copy::Valid { generation: of, .. } if *of == generation) {
                this.write_copy(at, &state)?;
            }
        }
        Ok((this, state))
    }

    /// Makes a state durable; before this returns nothing may be promised on it. **Panics** beyond [`GROUPS_MAX`].
    /// **Errors:** [`WalError::Io`] once, and [`WalError::Poisoned`] ever after; [`WalError::Full`] where a disk has no room
    /// even for what was there: the state before stands, and this one may be stored again.
    pub fn store(&mut self, state: &HardState) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        self.generation += 1;
        let copies = if planted::is(Bug::OneHardState) { 1 } else { COPIES };
        (0..copies).try_for_each(|copy| self.write_copy(copy, state))
    }

    fn write_copy(&mut self, copy: usize, state: &HardState) -> Result<(), WalError> {
        assert!(state.groups.len() <= GROUPS_MAX, "the hard state is one block");
        let head = Head {
            magic: MAGIC,
            version: VERSION,
            core: self.core,
            generation: self.generation,
            synced: state.synced,
            groups: u32::try_from(state.groups.len()).expect("bounded above"),
            zero: [0; 4],
            log_id: self.log_id,
            reserved: [0; 16],
        };
        let mut block = Buffer::new(BLOCK_BYTES);
        let bytes = block.bytes_mut();
        bytes[..GROUPS_AT].copy_from_slice(bytemuck::bytes_of(&head));
        let groups: &[u8] = bytemuck::cast_slice(&state.groups);
        bytes[GROUPS_AT..GROUPS_AT + groups.len()].copy_from_slice(groups);
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let offset = (copy * BLOCK_BYTES) as u64;
        let written = self.file.write_at(offset, block.bytes());
        let full = written.as_ref().is_err_and(is_full);
        self.poisoned = written.is_err() && !full;
        if full {
            return Err(WalError::Full { file: FILE.to_owned(), bytes: BLOCK_BYTES as u64, limit: "device" });
        }
        written.map_err(WalError::io("write", FILE, offset))
    }
}

/// The file, made if need be, and what it holds.
fn read_copies(disk: &dyn Disk, config: &Config) -> Result<(Arc<dyn DiskFile>, [Copy; COPIES]), WalError> {
    disk.allocate(FILE, (COPIES * BLOCK_BYTES) as u64).map_err(WalError::io("allocate", FILE, 0))?;
    let file = disk.open(FILE).map_err(WalError::io("open", FILE, 0))?;
    file.settle().map_err(WalError::io("settle", FILE, 0))?;
    let copies = [read_copy(&*file, config, 0)?, read_copy(&*file, config, 1)?];
    Ok((file, copies))
}

fn read_copy(file: &dyn DiskFile, config: &Config, copy: usize) -> Result<Copy, WalError> {
    let mut block = [0; BLOCK_BYTES];
    let offset = (copy * BLOCK_BYTES) as u64;
    file.read_at(offset, &mut block).map_err(WalError::io("read", FILE, offset))?;
    if block.iter().all(|&byte| byte == 0) {
        return Ok(Copy::Blank);
    }
    let (expected, found) = (crc32fast::hash(&block[..CRC_AT]), crc_of(&block));
    let head: Head = bytemuck::pod_read_unaligned(&block[..GROUPS_AT]);
    if found != expected || head.magic != MAGIC || head.groups as usize > GROUPS_MAX {
        return Ok(Copy::Damaged { found, expected });
    }
    let (version, core) = ((VERSION.into(), head.version.into()), (config.core.into(), head.core.into()));
    let log_id = (config.log_id, head.log_id);
    for (what, (expected, found)) in [("format version", version), ("core", core), ("log_id", log_id)] {
        if expected != found {
            return Err(WalError::Mismatch { subject: FILE.to_owned(), what, expected, found });
        }
    }
    let mut groups = vec![GroupState::zeroed(); head.groups as usize];
    let bytes = size_of_val(groups.as_slice());
    bytemuck::cast_slice_mut(&mut groups).copy_from_slice(&block[GROUPS_AT..GROUPS_AT + bytes]);
    Ok(Copy::Valid { generation: head.generation, state: HardState { synced: head.synced, groups } })
}

fn crc_of(block: &[u8; BLOCK_BYTES]) -> u32 {
    bytemuck::pod_read_unaligned(&block[CRC_AT..])
}
