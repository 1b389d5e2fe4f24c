//! A page that goes bad under a map ends the process with a word: the file's name on stderr, and exit code 6.
//!
//! ```text
//!   load from a map -> the page cannot be read -> SIGBUS -> whose address is it? (/proc/self/maps)
//!                                    a file's:  "myelin: <file>: a page cannot be read", _exit(6)
//!                                    no file's: not ours; what would have happened without us happens
//! ```
//!
//! The kernel keeps the table of live maps, so nothing is registered when a run or a segment is mapped and nothing can be
//! forgotten; it is read with three system calls, without memory of the allocator. Refused: a table of our own, which every
//! crate that maps would have to keep, and a jump out of the load, which leaves whatever the thread was doing half done.
//!
//! Invariants: only calls that a signal handler may make (open, read, write, _exit); no lock, no allocation, no panic: a
//! line longer than the buffer is cut. Deliberately absent: other systems than Linux (there the process dies of the signal),
//! and going on: what a map said a moment ago cannot be trusted any more.

use rustix::fs::{Mode, OFlags};
use signal_hook_registry::register_sigaction;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Once;

/// The exit code for data that is not what was written.
const DAMAGED: i32 = 6;
/// The address exists, what is behind it cannot be had (`BUS_ADRERR` of `siginfo.h`).
const NO_SUCH_PAGE: i32 = 2;
/// Longest line of the table that is looked at; a longer name is cut.
const LINE_BYTES: usize = 1024;

/// From now on a bad page under a map is said and ends the process. Once is enough.
///
/// **Errors:** the system takes no handler; the process then dies of the signal, as without us.
pub fn install() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut done = Ok(());
    INSTALLED.call_once(|| {
        #[expect(
            unsafe_code,
            reason = "a signal's action may only call what is safe in a handler, which no type can prove"
        )]
        // SAFETY: `on_fault` opens, reads and writes by system calls of rustix, which touch no libc state, allocate nothing
        // and take no lock; it ends in `_exit` or returns. The buffers are on its stack.
        let registered = unsafe { register_sigaction(libc::SIGBUS, on_fault) };
        done = registered.map(drop);
    });
    done
}

fn on_fault(info: &libc::siginfo_t) {
    if info.si_code != NO_SUCH_PAGE {
        return;
    }
    #[expect(unsafe_code, reason = "which field of the union is set depends on the signal")]
    // SAFETY: for SIGBUS the kernel sets the address.
    let address = unsafe { info.si_addr() }.addr();
    let mut line = Line::default();
    if !find(address, &mut line).unwrap_or(false) {
        return;
    }
    let file = owner(line.bytes(), address).unwrap_or_default();
    let stderr = io::stderr();
    for part in
        [b"myelin: ".as_slice(), file, b": a page that was verified cannot be read any more: the medium failed\n"]
    {
        // There is nobody to tell that nobody can be told.
        let _unsaid = rustix::io::write(stderr.as_fd(), part);
    }
    #[expect(unsafe_code, reason = "the only way out of a handler that runs no destructor")]
    // SAFETY: it does not return and touches nothing of ours.
    unsafe {
        libc::_exit(DAMAGED)
    }
}

/// Reads the table of maps up to the line of this address; true when a file is mapped there.
fn find(address: usize, line: &mut Line) -> rustix::io::Result<bool> {
    let table = rustix::fs::open(c"/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut chunk = [0; 512];
    loop {
        let read = rustix::io::read(&table, &mut chunk)?;
        for byte in chunk.iter().take(read) {
            if *byte != b'\n' {
                line.push(*byte);
            } else if owner(line.bytes(), address).is_some() {
                return Ok(true);
            } else {
                *line = Line::default();
            }
        }
        if read == 0 {
            return Ok(false);
        }
    }
}

/// The start of one line.
struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LINE_BYTES], length: 0 }
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The file of a line of the table, if the address lies in it: `start-end perms offset device inode    path`.
fn owner(line: &[u8], address: usize) -> Option<&[u8]> {
    let dash = line.iter().position(|byte| *byte == b'-')?;
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let (start, end) = (hex(line.get(..dash)?)?, hex(line.get(dash + 1..blank)?)?);
    let path = line.get(line.iter().position(|byte| *byte == b'/')?..)?;
    (start <= address && address < end).then_some(path)
}

fn hex(digits: &[u8]) -> Option<usize> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits.iter().try_fold(0_usize, |value, byte| value.checked_mul(16)?.checked_add(digit(*byte)? as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_names_its_file_for_its_addresses_only() {
        let file = b"7f10a0000000-7f10a0004000 r--s 00000000 00:2c 5          /data dir/core-0000/runs/0000-01.ticks";
        let path = b"/data dir/core-0000/runs/0000-01.ticks".as_slice();
        let check = |line: &[u8], address, expected: Option<&[u8]>| assert_eq!(owner(line, address), expected);
        check(file, 0x7f10_a000_0000, Some(path));
        check(file, 0x7f10_a000_3fff, Some(path));
        check(file, 0x7f10_a000_4000, None);
        check(file, 0x7f10_9fff_ffff, None);
        check(b"7f10a0000000-7f10a0004000 rw-p 00000000 00:00 0", 0x7f10_a000_0000, None);
        check(b"7f10a0000000-7f10a0004000 rw-p 00000000 00:00 0    [heap]", 0x7f10_a000_0000, None);
        for senseless in [b"".as_slice(), b"-", b" /", b"zz-zz r /x", b"1-ffffffffffffffffff r /x"] {
            check(senseless, 0, None);
        }
    }

    #[test]
    fn the_table_of_this_process_has_a_mapped_file_and_not_the_stack() {
        // Code is mapped from the program's file: a function of ours lies in it.
        let mut line = Line::default();
        assert!(find(hex as *const () as usize, &mut line).unwrap());
        let program = std::env::current_exe().unwrap();
        let named = owner(line.bytes(), hex as *const () as usize).unwrap();
        assert_eq!(String::from_utf8_lossy(named), program.to_string_lossy());
        assert!(!find(std::ptr::from_ref(&line).addr(), &mut Line::default()).unwrap());
    }
}
