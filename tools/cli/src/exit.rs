//! How a verb can fail, in words that name the fix, and the exit code of each: decided here and nowhere else.
//!
//! ```text
//!   0 ok   1 negative answer   2 usage   3 cannot connect   4 refused (auth)   5 conflict, or no leader after retries
//!   6 data integrity   7 host unfit   128 + n: ended by signal n (ingest; watch and tail have no other end, and are ok)
//! ```

use crate::output::Io;
use myelin_client::wire::Code;
use myelin_client::{Error, Lost, Refusal};
use myelin_feed::FeedError;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// A process's last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The answer is no, or some of what was asked was refused.
    Negative = 1,
    /// The command line or a file cannot be understood.
    Usage = 2,
    /// Nobody answers.
    Unreachable = 3,
    /// Who asks is not allowed to.
    Auth = 4,
    /// Another value stands there, or the node stayed busy or leaderless.
    Conflict = 5,
    /// Bytes are damaged.
    Integrity = 6,
    /// This host lacks what is needed.
    Unfit = 7,
    /// A closed terminal ended it before it was through.
    HungUp = 129,
    /// Ctrl-C ended it before it was through.
    Interrupted = 130,
    /// SIGTERM ended it before it was through.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The node, or the way to it.
    #[error("{0}")]
    Client(#[from] Error),
    /// The file.
    #[error("{0}")]
    Feed(#[from] FeedError),
    /// Our own streams.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Said by the verb itself.
    #[error("{message}")]
    Said {
        /// How the process ends.
        exit: Exit,
        /// In full.
        message: String,
    },
}

impl Failure {
    pub(crate) const fn negative(message: String) -> Self {
        Self::Said { exit: Exit::Negative, message }
    }

    pub(crate) const fn usage(message: String) -> Self {
        Self::Said { exit: Exit::Usage, message }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(Error::Unreachable { .. } | Error::Unknown(Lost::Connection) | Error::Closed) => {
                Exit::Unreachable
            }
            Self::Client(Error::Unknown(Lost::Session | Lost::Outcome | Lost::Stopped)) => Exit::Conflict,
            Self::Client(Error::Protocol(_)) => Exit::Integrity,
            Self::Client(Error::Untrusted { .. }) => Exit::Auth,
            Self::Client(Error::Refused(refusal)) => of_refusal(refusal),
            Self::Feed(FeedError::Corrupt { .. }) => Exit::Integrity,
            Self::Feed(_) => Exit::Usage,
            // `myelin .. | head`: who stopped reading got what was wanted.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Io(_) => Exit::Unfit,
            Self::Said { exit, .. } => *exit,
        }
    }

    /// What to do about it, where that is not in the message.
    fn fix(&self) -> Option<String> {
        match self {
            Self::Client(Error::Unreachable { .. }) => {
                Some("start a node with `myelin serve`, or name another with --server HOST:PORT".to_owned())
            }
            Self::Client(Error::Unknown(_)) => {
                Some("rows that carry ids can be sent again safely; `myelin count` says what is there".to_owned())
            }
            Self::Client(Error::Protocol(_)) => Some("is this the node's data port, and of this version?".to_owned()),
            Self::Client(Error::Untrusted { .. }) => {
                Some("name who signed the node's certificate with --tls-ca FILE; `myelin doctor --tls-cert FILE` says until when one holds".to_owned())
            }
            Self::Client(Error::Refused(refusal)) => {
                let more = format!("more: myelin explain {}", refusal.name());
                // JSON has four types, and text is text.
                let typed = r#"a value says its type where JSON has none, as in {"keyword":"db/ident"} or {"decimal":"1.5"}"#;
                Some(if refusal.code == Some(Code::ValueType) { format!("{typed}\n  {more}") } else { more })
            }
            Self::Feed(_) | Self::Io(_) | Self::Said { .. } | Self::Client(Error::Closed) => None,
        }
    }

    /// Says it to people.
    pub(crate) fn tell(&self, io: &mut Io<'_>) {
        if self.exit() == Exit::Ok {
            return;
        }
        // Nobody is left to hear that this could not be said.
        let _ = writeln!(io.err, "myelin: {self}");
        if let Some(fix) = self.fix() {
            let _ = writeln!(io.err, "  {fix}");
        }
    }
}

/// Says to people what went wrong, where a verb has no streams of its own. Nobody left to hear it is no reason to fail otherwise.
pub fn complain(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "myelin: {what}");
}

/// A stream of one shard ended: why, and from where it can be had again.
pub(crate) fn sends_no_more(shard: u16, why: &Refusal) -> Failure {
    let oldest = if why.aux == 0 { String::new() } else { format!(", oldest at hand: --since {}", why.aux) };
    Failure::Said { exit: of_refusal(why), message: format!("shard {shard} sends no more: {why}{oldest}") }
}

/// The exit code of a refusal.
pub(crate) fn of_refusal(refusal: &Refusal) -> Exit {
    match refusal.code {
        Some(code) if code.passes() => Exit::Conflict,
        Some(
            Code::SessionExpired
            | Code::SessionGap
            | Code::OutcomeForgotten
            | Code::IdConflict
            | Code::ReflexConflict
            | Code::CompareFailed
            | Code::NotUnique,
        ) => Exit::Conflict,
        Some(
            Code::BadName
            | Code::BadReflex
            | Code::BadPolicy
            | Code::BadBody
            | Code::BadFact
            | Code::UnknownAttribute
            | Code::ValueType
            | Code::NotIndexed
            | Code::Oversize
            | Code::Flags,
        ) => Exit::Usage,
        Some(Code::BadFrame | Code::WrongVersion | Code::UnknownKind | Code::Unavailable) => Exit::Integrity,
        Some(Code::HelloExpected | Code::Unauthorized) => Exit::Auth,
        _ => Exit::Negative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_the_exit_code_that_is_promised() {
        let refused = |code: Code| {
            let message = String::new();
            Error::Refused(Refusal {
                number: code as u16,
                code: Some(code),
                first_bad: None,
                aux: 0,
                shard: 0,
                message,
            })
        };
        let unreachable = Error::Unreachable { addr: "a".to_owned(), reason: "b".to_owned() };
        for (error, exit) in [
            (unreachable, Exit::Unreachable),
            (Error::Unknown(Lost::Connection), Exit::Unreachable),
            (Error::Unknown(Lost::Session), Exit::Conflict),
            (Error::Protocol("x".to_owned()), Exit::Integrity),
            (refused(Code::Busy), Exit::Conflict),
            (refused(Code::NoSpace), Exit::Conflict),
            (refused(Code::IdConflict), Exit::Conflict),
            (refused(Code::UnknownMarket), Exit::Negative),
            (refused(Code::BelowHorizon), Exit::Negative),
            (refused(Code::BadReflex), Exit::Usage),
            (refused(Code::Unavailable), Exit::Integrity),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.exit(), exit, "{failure}");
        }
        assert_eq!(Failure::Io(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Ok);
    }
}
