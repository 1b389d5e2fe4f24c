//! `reply`: what became of a request, as a frame; and firings, as pages.
//!
//! The shard says *what*; only here it becomes bytes. A refusal's sentence is the code's own; numbers stand in the header.

use super::session::Outcome;
use super::{ConnId, Refusal};
use myelin_datom::EntityId;
use myelin_wire::{AckBody, Code, FiringRow, Header, Kind, begin, finish};

/// What goes back to one connection.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Who asked.
    pub to: ConnId,
    /// The request's session.
    pub session: u64,
    /// The request's number.
    pub request: u64,
    /// The shard that answers.
    pub shard: u16,
    /// The transaction: of the write, or the basis of the read.
    pub tx: u64,
    /// The rest.
    pub said: Said,
}

/// What is said.
#[derive(Clone, Debug)]
pub enum Said {
    /// Durable and applied; with a code per row if that was asked for.
    Ack {
        /// Counts.
        outcome: Outcome,
        /// One code per row, 0 = stored, 0xffff = a duplicate.
        verdicts: Option<Box<[u16]>>,
    },
    /// Refused.
    Refused(Refusal),
    /// An answer: `count` items, one number beside them, bytes.
    Answer {
        /// Items in the body.
        count: u32,
        /// The number of a counting read.
        aux: u64,
        /// More can be asked for.
        more: bool,
        /// The items.
        body: Vec<u8>,
    },
    /// A page of firings.
    Firings {
        /// In the order of their ids.
        rows: Vec<FiringRow>,
        /// True when they were derived from history.
        replayed: bool,
        /// When the page was made. **Units:** Unix nanoseconds.
        sent_ns: i64,
    },
    /// A page of the log.
    Tailed {
        /// Entries in the body.
        count: u32,
        /// True when they were read from history.
        replayed: bool,
        /// How far the shard was.
        applied: u64,
        /// The entries.
        body: Vec<u8>,
    },
    /// A subscription or a tail ended; nothing more comes of it.
    Ended {
        /// Why; none = its client wanted it.
        code: Option<Code>,
        /// The oldest `tx` it can be resumed from.
        oldest: u64,
    },
}

/// The verdict of a row that was there already.
pub const DUPLICATE: u16 = 0xffff;

impl Reply {
    /// Appends the frame to a connection's outbox. `credit` is how many requests the client may have under way.
    pub fn write(&self, out: &mut Vec<u8>, credit: u32) {
        let start = begin(out);
        let mut header = Header {
            session: self.session,
            request: self.request,
            shard: self.shard,
            tx: self.tx,
            credit,
            ..Header::new(self.kind())
        };
        match &self.said {
            Said::Ack { outcome, verdicts } => {
                header.count = outcome.accepted;
                let body = AckBody {
                    duplicates: outcome.duplicates,
                    refused: outcome.refused,
                    first_bad: outcome.first_bad,
                    first_code: u32::from(outcome.first_code),
                };
                out.extend_from_slice(bytemuck::bytes_of(&body));
                if let Some(verdicts) = verdicts {
                    out.extend_from_slice(bytemuck::cast_slice(verdicts));
                }
            }
            Said::Refused(refusal) => {
                header.code = refusal.code as u16;
                header.count = refusal.first_bad;
                header.aux = refusal.aux;
                out.extend_from_slice(refusal.code.explanation().trim().as_bytes());
                if refusal.about != EntityId::NONE {
                    out.extend_from_slice(format!(" It is about market {}.", refusal.about.bits()).as_bytes());
                }
            }
            Said::Answer { count, aux, more, body } => {
                header.count = *count;
                header.aux = *aux;
                header.flags = if *more { Header::MORE } else { 0 };
                out.extend_from_slice(body);
            }
            Said::Firings { rows, replayed, sent_ns } => {
                header.count = rows.len() as u32;
                header.aux = *sent_ns as u64;
                header.flags = if *replayed { Header::REPLAYED } else { 0 };
                out.extend_from_slice(bytemuck::cast_slice(rows));
            }
            Said::Tailed { count, replayed, applied, body } => {
                header.count = *count;
                header.flags = if *replayed { Header::REPLAYED } else { 0 };
                header.aux = *applied;
                out.extend_from_slice(body);
            }
            Said::Ended { code, oldest } => {
                header.code = code.map_or(0, |code| code as u16);
                header.aux = *oldest;
            }
        }
        finish(out, start, header);
    }

    const fn kind(&self) -> Kind {
        match self.said {
            Said::Ack { .. } => Kind::Ack,
            Said::Refused(_) => Kind::Refused,
            Said::Answer { .. } => Kind::Answer,
            Said::Firings { .. } => Kind::Firings,
            Said::Tailed { .. } => Kind::Tailed,
            Said::Ended { .. } => Kind::Ended,
        }
    }
}
