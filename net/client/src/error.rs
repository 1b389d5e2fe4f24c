//! Why the node could not be asked, or said no. A write has three ends: done, refused, unknown; a read has two.
//!
//! Deliberately absent: one variant per code. A refusal carries its [`Code`]; whoever cares matches on that.

use myelin_wire::{Code, Header, WireError};
use std::fmt;

/// A refusal, as the node said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable number on the wire; a newer node may know more than this client.
    pub number: u16,
    /// The reason, if it is known here.
    pub code: Option<Code>,
    /// The first row or item it is about, counted as the caller gave them.
    pub first_bad: Option<u32>,
    /// What the code says: microseconds to wait, the request expected, the horizon, the oldest position.
    pub aux: u64,
    /// The shard that refused.
    pub shard: u16,
    /// The node's sentence.
    pub message: String,
}

impl Refusal {
    pub(crate) fn read(header: &Header, body: &[u8]) -> Self {
        let code = Code::from_number(header.code);
        let said = String::from_utf8_lossy(body).trim().to_owned();
        let message = match code {
            Some(code) if said.is_empty() => code.explanation().trim().to_owned(),
            _ => said,
        };
        let first_bad = (header.count != u32::MAX).then_some(header.count);
        Self { number: header.code, code, first_bad, aux: header.aux, shard: header.shard, message }
    }

    /// A refusal that needed no node: the shape of the caller's input is wrong.
    pub(crate) fn own(code: Code, shard: u16, first_bad: Option<u32>) -> Self {
        let message = code.explanation().trim().to_owned();
        Self { number: code as u16, code: Some(code), first_bad, aux: 0, shard, message }
    }

    /// The code's stable name, or its number in words.
    #[must_use]
    pub fn name(&self) -> String {
        self.code.map_or_else(|| format!("code_{}", self.number), |code| code.name().to_owned())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.message)?;
        if matches!(self.code, Some(Code::BelowHorizon | Code::Compacted)) && self.aux != 0 {
            write!(f, " (oldest: {})", self.aux)?;
        }
        match self.first_bad {
            Some(row) => write!(f, " (first at row {row})"),
            None => Ok(()),
        }
    }
}

/// Why nobody knows whether a write was executed. Sending its rows again is safe where they carry ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The connection was lost and did not come back in time.
    #[error("the connection was lost before the answer came")]
    Connection,
    /// The shard stopped while it was under way; a recovery may bring it back.
    #[error("the shard stopped before the answer came")]
    Stopped,
    /// The node forgot the session while the answer was under way.
    #[error("the session expired before the answer came")]
    Session,
    /// It was executed once, so long ago that what came of it is forgotten.
    #[error("it was executed, and what came of it is forgotten")]
    Outcome,
}

/// Why a call did not do what it was asked. One variant per *decision* of the caller:
///
/// | variant                  | what to do                                                        |
/// |--------------------------|-------------------------------------------------------------------|
/// | [`Error::Unreachable`]   | start the node, or mend the address; nothing was executed         |
/// | [`Error::Untrusted`]     | name who signed the node's certificate, or renew it; or name none |
/// | [`Error::Refused`]       | read the code; nothing was executed                               |
/// | [`Error::Unknown`]       | ask, or send again with ids                                       |
/// | [`Error::Protocol`]      | the other end is no node of this version, or bytes were damaged   |
/// | [`Error::Closed`]        | this client was dropped                                           |
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection within the time allowed.
    #[error("cannot connect to {addr}: {reason}")]
    Unreachable {
        /// Where to.
        addr: String,
        /// Why not.
        reason: String,
    },
    /// The other end's certificate is not believed: another signer, another name, or its time is over. Or one end speaks
    /// TLS, and the other does not.
    #[error("{addr} is not believed: {reason}")]
    Untrusted {
        /// Where to.
        addr: String,
        /// Why not.
        reason: String,
    },
    /// The node said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Nobody knows.
    #[error("the outcome is unknown: {0}")]
    Unknown(#[from] Lost),
    /// Bytes that make no sense.
    #[error("the answer makes no sense: {0}")]
    Protocol(String),
    /// The client's own end is gone.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    pub(crate) fn short(what: &str) -> Self {
        Self::Protocol(format!("the body of {what} has not the length its kind demands"))
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Protocol(error.to_string())
    }
}
