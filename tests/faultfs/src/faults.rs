//! What shall go wrong: which operation, on which files, the how-manieth, and with what error.
//!
//! Every operation is counted, so that a test can run once without faults, read the [`Counts`], and then fail each of
//! them in turn. Deliberately absent: chance. A fault that is wanted at random is chosen by the test, from its seed.

use std::fmt;
use std::str::FromStr;

use nix::libc;

use crate::image::Errno;

macro_rules! operations {
    ($($(#[$doc:meta])* $op:ident = $name:literal,)*) => {
        /// What can fail and is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op { $($(#[$doc])* $op,)* }

        impl Op {
            /// Every operation, in the order of [`Counts`].
            pub const ALL: &[Op] = &[$(Op::$op,)*];

            /// The word for it in faults and counts of the control socket.
            pub fn name(self) -> &'static str {
                match self { $(Op::$op => $name,)* }
            }
        }
    };
}

operations! {
    /// Opening a file that exists.
    Open = "open",
    /// Creating a file or a directory.
    Create = "create",
    /// Reading from a file; what the kernel has in its cache is not asked for.
    Read = "read",
    /// Writing to a file, also the write-back of a mapping.
    Write = "write",
    /// fsync, fdatasync, msync, and what follows a write under `O_DSYNC`.
    Sync = "sync",
    /// fsync of a directory.
    SyncDir = "syncdir",
    /// fallocate.
    Allocate = "allocate",
    /// ftruncate, and opening with `O_TRUNC`.
    Truncate = "truncate",
    /// rename.
    Rename = "rename",
    /// unlink and rmdir.
    Remove = "remove",
}

impl FromStr for Op {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Op::ALL.iter().copied().find(|op| op.name() == word).ok_or_else(|| format!("no operation is called {word}"))
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The device reports an error.
    Eio,
    /// No space.
    Enospc,
    /// Quota exceeded.
    Edquot,
    /// The file system went read-only.
    Erofs,
}

impl Failure {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Failure::Eio => libc::EIO,
            Failure::Enospc => libc::ENOSPC,
            Failure::Edquot => libc::EDQUOT,
            Failure::Erofs => libc::EROFS,
        }
    }

    /// The word for it on the control socket.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Eio => "EIO",
            Failure::Enospc => "ENOSPC",
            Failure::Edquot => "EDQUOT",
            Failure::Erofs => "EROFS",
        }
    }
}

impl FromStr for Failure {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Failure::Eio, Failure::Enospc, Failure::Edquot, Failure::Erofs];
        all.into_iter().find(|failure| failure.name() == word).ok_or_else(|| format!("no failure is called {word}"))
    }
}

/// One order to fail. `Fault::new(Op::Sync, Failure::Eio).on("wal/").skip(3)` fails the fourth sync of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation.
    pub op: Op,
    /// How it fails.
    pub failure: Failure,
    /// A part of the path below the mount; empty matches every file.
    pub path: String,
    /// How many matching operations go well first.
    pub skip: u64,
    /// How many fail then; `u64::MAX`: all.
    pub times: u64,
}

impl Fault {
    /// The next operation fails, once, on whichever file.
    pub fn new(op: Op, failure: Failure) -> Self {
        Fault { op, failure, path: String::new(), skip: 0, times: 1 }
    }

    /// Only on files whose path below the mount contains `part`.
    pub fn on(self, part: &str) -> Self {
        Fault { path: part.to_owned(), ..self }
    }

    /// The first `count` matching operations go well.
    pub fn skip(self, count: u64) -> Self {
        Fault { skip: count, ..self }
    }

    /// This many fail, not one.
    pub fn times(self, count: u64) -> Self {
        Fault { times: count, ..self }
    }

    /// All fail from there on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

/// How many operations there have been, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Op::ALL.len()]);

impl Counts {
    /// Operations of this kind.
    pub fn of(&self, op: Op) -> u64 {
        self.0[op as usize]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = Op::ALL.iter().map(|op| format!("{}={}", op.name(), self.of(*op))).collect();
        out.write_str(&words.join(" "))
    }
}

/// Failures that are remembered by name.
const STRUCK_MAX: usize = 1000;

/// What reading a file gives besides its bytes.
pub(crate) enum BadSpot {
    /// The byte at this offset comes with these bits turned.
    Flip { offset: u64, mask: u8 },
    /// Reading any of this range fails.
    Unreadable { from: u64, to: u64 },
}

/// Everything that is armed.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) counts: Counts,
    /// What failed since it was healed: `write wal/0001`.
    pub(crate) struck: Vec<String>,
    armed: Vec<Fault>,
    spots: Vec<(String, BadSpot)>,
}

impl Faults {
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    pub(crate) fn spoil(&mut self, path: &str, spot: BadSpot) {
        self.spots.push((path.to_owned(), spot));
    }

    /// Nothing goes wrong any more; the counts stay.
    pub(crate) fn clear(&mut self) {
        self.struck.clear();
        self.armed.clear();
        self.spots.clear();
    }

    /// Counts an operation and says whether it fails. Only the first fault that strikes is used up.
    pub(crate) fn strike(&mut self, op: Op, path: &str) -> Result<(), Errno> {
        self.counts.0[op as usize] += 1;
        for fault in self.armed.iter_mut().filter(|fault| fault.op == op && path.contains(&fault.path)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
                let errno = fault.failure.errno();
                self.note(op, path);
                return Err(errno);
            }
        }
        Ok(())
    }

    fn note(&mut self, op: Op, path: &str) {
        if self.struck.len() < STRUCK_MAX {
            self.struck.push(format!("{} {path}", op.name()));
        }
    }

    /// What the bad spots of a file do to bytes read from it.
    pub(crate) fn spoil_read(&self, path: &str, offset: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let end = offset + bytes.len() as u64;
        for (_, spot) in self.spots.iter().filter(|(of, _)| of == path) {
            match *spot {
                BadSpot::Flip { offset: at, mask } if (offset..end).contains(&at) => {
                    bytes[(at - offset) as usize] ^= mask
                }
                BadSpot::Unreadable { from, to } if from < end && offset < to => return Err(libc::EIO),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fault: Fault, path: &str, expected: &[bool]) {
        let mut faults = Faults::default();
        faults.arm(fault);
        let failed: Vec<bool> = expected.iter().map(|_| faults.strike(Op::Sync, path).is_err()).collect();
        assert_eq!(failed, expected);
        assert_eq!(faults.counts.of(Op::Sync), expected.len() as u64);
    }

    #[test]
    fn a_fault_strikes_the_nth_of_its_operation_on_its_files() {
        let fault = || Fault::new(Op::Sync, Failure::Eio);
        check(fault(), "a", &[true, false, false]);
        check(fault().skip(2), "a", &[false, false, true, false]);
        check(fault().skip(1).times(2), "a", &[false, true, true, false]);
        check(fault().always(), "a", &[true, true, true]);
        check(fault().on("wal/"), "data/wal/1", &[true, false]);
        check(fault().on("wal/"), "data/run/1", &[false, false]);
        check(Fault::new(Op::Write, Failure::Eio), "a", &[false]);
    }

    #[test]
    fn bad_spots_spoil_only_what_they_cover() {
        let mut faults = Faults::default();
        faults.spoil("a", BadSpot::Flip { offset: 10, mask: 4 });
        faults.spoil("a", BadSpot::Unreadable { from: 4096, to: 8192 });
        let mut bytes = [0; 4];
        assert_eq!((faults.spoil_read("a", 8, &mut bytes), bytes), (Ok(()), [0, 0, 4, 0]));
        assert_eq!(faults.spoil_read("a", 4094, &mut bytes), Err(libc::EIO));
        assert_eq!(
            (faults.spoil_read("b", 4094, &mut bytes), faults.spoil_read("a", 8192, &mut bytes)),
            (Ok(()), Ok(()))
        );
    }
}
