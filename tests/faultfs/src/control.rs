//! The same handle for another process: a Unix socket, one command a line, one line back, `ok ..` or `error ..`.
//!
//! ```text
//!   power-cut [SEED]                                     ok unsynced_pages=40 kept_pages=0 ..
//!   fail OP ERROR [path=PART] [skip=N] [times=N|always]  OP: open create read write sync syncdir allocate truncate rename
//!                                                        remove; ERROR: EIO ENOSPC EDQUOT EROFS
//!   room BYTES|plenty      slow N|off      freeze      thaw      uncached on|off      heal
//!   flip PATH OFFSET MASK      decay PATH OFFSET MASK      bad-page PATH PAGE
//!   counts                                               ok open=2 create=1 .. unsynced_pages=3
//! ```
//!
//! Deliberately absent: paths with blanks, and any right to use the socket beyond that of its file.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::thread::Builder;

use crate::faults::Fault;
use crate::mount::FaultFs;
use crate::power::PowerCut;

/// One line of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// [`FaultFs::power_cut`].
    PowerCut(PowerCut),
    /// [`FaultFs::fail`].
    Fail(Fault),
    /// [`FaultFs::leave_room`].
    Room(Option<u64>),
    /// [`FaultFs::slow`].
    Slow(Option<u32>),
    /// [`FaultFs::freeze`] or [`FaultFs::thaw`].
    Freeze(bool),
    /// [`FaultFs::bypass_cache`].
    Uncached(bool),
    /// [`FaultFs::flip_on_read`].
    Flip(String, u64, u8),
    /// [`FaultFs::decay`].
    Decay(String, u64, u8),
    /// [`FaultFs::bad_page`].
    BadPage(String, u64),
    /// [`FaultFs::heal`].
    Heal,
    /// [`FaultFs::counts`].
    Counts,
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["power-cut"] => Command::PowerCut(PowerCut::DropUnsynced),
            ["power-cut", seed] => Command::PowerCut(PowerCut::Random { seed: number(seed)? }),
            ["fail", op, failure, rest @ ..] => Command::Fail(fault(op, failure, rest)?),
            ["room", "plenty"] => Command::Room(None),
            ["room", bytes] => Command::Room(Some(number(bytes)?)),
            ["slow", "off"] => Command::Slow(None),
            ["slow", count] => Command::Slow(Some(number(count)?)),
            ["freeze"] => Command::Freeze(true),
            ["thaw"] => Command::Freeze(false),
            ["uncached", switch @ ("on" | "off")] => Command::Uncached(*switch == "on"),
            ["flip", path, offset, mask] => Command::Flip((*path).to_owned(), number(offset)?, number(mask)?),
            ["decay", path, offset, mask] => Command::Decay((*path).to_owned(), number(offset)?, number(mask)?),
            ["bad-page", path, page] => Command::BadPage((*path).to_owned(), number(page)?),
            ["heal"] => Command::Heal,
            ["counts"] => Command::Counts,
            _ => return Err(format!("not a command: {line}")),
        })
    }
}

fn fault(op: &str, failure: &str, rest: &[&str]) -> Result<Fault, String> {
    rest.iter().try_fold(Fault::new(op.parse()?, failure.parse()?), |fault, word| match word.split_once('=') {
        Some(("path", part)) => Ok(fault.on(part)),
        Some(("skip", count)) => Ok(fault.skip(number(count)?)),
        Some(("times", count)) => Ok(fault.times(number(count)?)),
        None if *word == "always" => Ok(fault.always()),
        _ => Err(format!("not a part of a fault: {word}")),
    })
}

fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("not a number that fits: {word}"))
}

impl FaultFs {
    /// Does what a line asks and says what came of it.
    pub fn obey(&self, command: Command) -> io::Result<String> {
        match command {
            Command::PowerCut(how) => return self.power_cut(how).map(|loss| loss.to_string()),
            Command::Fail(fault) => self.fail(fault),
            Command::Room(bytes) => self.leave_room(bytes),
            Command::Slow(count) => self.slow(count),
            Command::Freeze(true) => self.freeze(),
            Command::Freeze(false) => self.thaw(),
            Command::Uncached(bypass) => self.bypass_cache(bypass),
            Command::Flip(path, offset, mask) => self.flip_on_read(&path, offset, mask)?,
            Command::Decay(path, offset, mask) => self.decay(&path, offset, mask)?,
            Command::BadPage(path, page) => self.bad_page(&path, page)?,
            Command::Heal => self.heal(),
            Command::Counts => return Ok(format!("{} unsynced_pages={}", self.counts(), self.unsynced_pages())),
        }
        Ok(String::new())
    }

    /// Listens at `socket` and serves clients one at a time, in a thread of its own, until the handle is dropped.
    pub fn listen(self: &Arc<Self>, socket: &Path) -> io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        // Weak: a control thread must not keep a disk mounted that its test has let go of.
        let disk = Arc::downgrade(self);
        Builder::new().name("faultfs-control".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in the middle of a line is no reason to stop.
                let _ = attend(&disk, stream);
            }
        })?;
        Ok(())
    }
}

fn attend(disk: &Weak<FaultFs>, stream: UnixStream) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let Some(disk) = disk.upgrade() else { return Ok(()) };
        let answer = line?.parse().and_then(|command| disk.obey(command).map_err(|error| error.to_string()));
        drop(disk); // before answering, so that whoever has the answer holds the disk alone
        match answer {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(why) => writeln!(out, "error {why}")?,
        }
    }
    Ok(())
}

/// The other end of the socket.
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a disk that listens.
    pub fn connect(socket: &Path) -> io::Result<Client> {
        Ok(Client { lines: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Sends one command line and waits for the answer, given without its `ok`.
    pub fn ask(&mut self, line: &str) -> io::Result<String> {
        writeln!(self.lines.get_mut(), "{line}")?;
        let mut answer = String::new();
        self.lines.read_line(&mut answer)?;
        match answer.strip_prefix("ok ") {
            Some(said) => Ok(said.trim_end().to_owned()),
            None => Err(io::Error::other(answer.trim_end().to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Failure, Op};

    #[test]
    fn every_line_of_the_header_is_understood_and_others_are_refused() {
        let fault = Fault::new(Op::Sync, Failure::Eio).on("wal/").skip(3).always();
        let rows = [
            ("power-cut", Some(Command::PowerCut(PowerCut::DropUnsynced))),
            ("power-cut 7", Some(Command::PowerCut(PowerCut::Random { seed: 7 }))),
            ("fail sync EIO path=wal/ skip=3 always", Some(Command::Fail(fault))),
            ("fail write ENOSPC times=2", Some(Command::Fail(Fault::new(Op::Write, Failure::Enospc).times(2)))),
            ("room 0", Some(Command::Room(Some(0)))),
            ("room plenty", Some(Command::Room(None))),
            ("slow 20", Some(Command::Slow(Some(20)))),
            ("slow off", Some(Command::Slow(None))),
            ("freeze", Some(Command::Freeze(true))),
            ("thaw", Some(Command::Freeze(false))),
            ("uncached on", Some(Command::Uncached(true))),
            ("flip wal/1 4096 128", Some(Command::Flip("wal/1".to_owned(), 4096, 128))),
            ("decay wal/1 0 1", Some(Command::Decay("wal/1".to_owned(), 0, 1))),
            ("bad-page wal/1 3", Some(Command::BadPage("wal/1".to_owned(), 3))),
            ("heal", Some(Command::Heal)),
            ("counts", Some(Command::Counts)),
            ("", None),
            ("power-cut now", None),
            ("fail sync", None),
            ("fail sync EIO tomes=3", None),
            ("flip wal/1 4096 256", None),
            ("uncached maybe", None),
        ];
        for (line, expected) in rows {
            assert_eq!(line.parse::<Command>().ok(), expected, "{line}");
        }
    }
}
