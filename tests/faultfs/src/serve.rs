//! What the kernel asks and what the device answers: one method of FUSE each, all of them short.
//!
//! Opens leave the page cache in place, so that mappings work and `O_DIRECT` goes past it by the kernel's own means; a file
//! opened under `uncached` never enters it. The kernel writes through: what is in its cache is in our volatile pages too,
//! except what was stored into a mapping and not yet written back.
//!
//! Deliberately absent: links, attributes beyond mode and size, locks (the kernel keeps those itself).

use std::ffi::OsStr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno as FuseErrno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::libc;

use crate::content::PAGE;
use crate::device::{Device, ROOMY_PAGES, State};
use crate::faults::Op;
use crate::image::{Errno, Image, Kind};

/// Only the kernel changes anything, so it may remember what it asked. A power cut mounts afresh.
const REMEMBER: Duration = Duration::from_secs(60);

/// One mount of the device.
pub(crate) struct Mounted {
    pub(crate) device: Arc<Device>,
    pub(crate) epoch: u64,
}

impl Mounted {
    fn enter(&self, op: Op, id: INodeNo) -> Result<MutexGuard<'_, State>, Errno> {
        self.device.enter(self.epoch, op, id.0)
    }

    fn add(&self, parent: INodeNo, name: &OsStr, kind: Kind, mode: u32) -> Result<(FileAttr, FopenFlags), Errno> {
        let mut state = self.enter(Op::Create, parent)?;
        let id = state.image.create(parent.0, name, kind, (mode & 0o7777) as u16)?;
        Ok((attributes(&state.image, id)?, cache_flags(&state)))
    }
}

fn cache_flags(state: &State) -> FopenFlags {
    if state.uncached { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
}

fn attributes(image: &Image, id: u64) -> Result<FileAttr, Errno> {
    let node = image.node(id)?;
    let (kind, size, pages, nlink) = match &node.kind {
        Kind::File(content) => (FileType::RegularFile, content.size(), content.pages(), 1),
        Kind::Folder { .. } => (FileType::Directory, 0, 0, 2),
    };
    let time = UNIX_EPOCH + Duration::from_secs(node.changed);
    Ok(FileAttr {
        ino: INodeNo(id),
        size,
        blocks: pages * (PAGE / 512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.mode,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    })
}

fn error(errno: Errno) -> FuseErrno {
    FuseErrno::from_i32(errno)
}

fn empty(reply: ReplyEmpty, answer: Result<(), Errno>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(error(errno)),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Shared mappings of files opened past the cache; kernels before 6.6 do not have it and refuse the mapping.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.device.look(self.epoch).and_then(|state| {
            let id = state.image.lookup(parent.0, name)?;
            attributes(&state.image, id)
        });
        match found {
            Ok(attr) => reply.entry(&REMEMBER, &attr, Generation(0)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.device.look(self.epoch).and_then(|state| attributes(&state.image, ino.0)) {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || {
            let mut state = match size {
                Some(_) => self.enter(Op::Truncate, ino)?,
                None => self.device.look(self.epoch)?,
            };
            if let Some(size) = size {
                state.image.content_mut(ino.0)?.resize(size);
            }
            if let Some(mode) = mode {
                state.image.node_mut(ino.0)?.mode = (mode & 0o7777) as u16;
            }
            attributes(&state.image, ino.0)
        };
        match change() {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(FuseErrno::EPERM);
        }
        match self.add(parent, name, Image::file(), mode) {
            Ok((attr, _)) => reply.entry(&REMEMBER, &attr, Generation(0)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        match self.add(parent, name, Image::folder(), mode) {
            Ok((attr, _)) => reply.entry(&REMEMBER, &attr, Generation(0)),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.add(parent, name, Image::file(), mode) {
            Ok((attr, flags)) => {
                self.device.state().image.opened(attr.ino.0);
                reply.created(&REMEMBER, &attr, Generation(0), FileHandle(0), flags);
            }
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.enter(Op::Open, ino).and_then(|mut state| {
            state.image.content(ino.0)?;
            if state.refuse_direct && flags.0 & libc::O_DIRECT != 0 {
                return Err(libc::EINVAL);
            }
            state.image.opened(ino.0);
            Ok(cache_flags(&state))
        });
        match opened {
            Ok(flags) => reply.opened(FileHandle(0), flags),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(mut state) = self.device.look(self.epoch) {
            state.image.closed(ino.0);
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.enter(Op::Read, ino).and_then(|state| {
            let mut bytes = state.image.content(ino.0)?.read(offset, u64::from(size));
            state.faults.spoil_read(&state.image.path(ino.0), offset, &mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.enter(Op::Write, ino).and_then(|mut state| {
            state.make_room(state.image.content(ino.0)?.missing_pages(offset, data.len() as u64))?;
            let past_cache = state.uncached && flags.0 & libc::O_DSYNC != 0;
            let content = state.image.content_mut(ino.0)?;
            content.write(offset, data);
            // Through the page cache and for `O_DIRECT` the kernel sends a sync of its own; past the cache it leaves it to us.
            if past_cache {
                content.sync();
            }
            Ok(data.len() as u32)
        });
        match written {
            Ok(length) => reply.written(length),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = match self.enter(Op::Sync, ino) {
            Ok(mut state) => state.image.content_mut(ino.0).map(|content| content.sync()),
            Err(errno) => {
                // As Linux does: the error is told once, and the pages are clean from then on.
                if let Ok(mut state) = self.device.look(self.epoch)
                    && let Ok(content) = state.image.content_mut(ino.0)
                {
                    content.forget_dirty();
                }
                Err(errno)
            }
        };
        empty(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.enter(Op::SyncDir, ino).map(|mut state| state.image.sync_folder(ino.0)));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocate = || {
            let mut state = self.enter(Op::Allocate, ino)?;
            let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
            let zero = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
            let known = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
            if mode & !known != 0 {
                return Err(libc::EOPNOTSUPP);
            }
            if zero {
                state.image.content_mut(ino.0)?.punch(offset, length);
            }
            if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 {
                state.make_room(state.image.content(ino.0)?.missing_pages(offset, length))?;
                state.image.content_mut(ino.0)?.allocate(offset, length, keep_size);
            }
            Ok(())
        };
        empty(reply, allocate());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.enter(Op::Remove, parent).and_then(|mut state| state.image.remove(parent.0, name, false)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.enter(Op::Remove, parent).and_then(|mut state| state.image.remove(parent.0, name, true)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.enter(Op::Rename, parent).and_then(|mut state| {
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return Err(libc::EINVAL);
            }
            let keep_target = flags.contains(RenameFlags::RENAME_NOREPLACE);
            state.image.rename((parent.0, name), (newparent.0, newname), keep_target)
        });
        empty(reply, renamed);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.device.look(self.epoch).and_then(|state| {
            let names = state.image.names(ino.0)?;
            let dots = [(".".into(), ino.0), ("..".into(), state.image.parent(ino.0))];
            let all = dots.into_iter().chain(names.iter().map(|(name, id)| (name.clone(), *id)));
            for (at, (name, id)) in (1..).zip(all).skip(offset as usize) {
                let kind = match state.image.node(id)?.kind {
                    Kind::File(_) => FileType::RegularFile,
                    Kind::Folder { .. } => FileType::Directory,
                };
                if reply.add(INodeNo(id), at, kind, &name) {
                    break;
                }
            }
            Ok(())
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(error(errno)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.device.state();
        let (free, page) = (state.free_pages(), PAGE as u32);
        let all = state.room_pages.min(ROOMY_PAGES);
        reply.statfs(all, free, free, 1 << 20, 1 << 20, page, 255, page);
    }
}
