//! Parcels: whole frames between the threads of this node, and replies on their way to whoever asked.
//!
//! ```text
//!   frame for another core's shard -> ring -> that core -> its shard
//!   reply to another core's connection, or the gateway's -> ring -> outbox
//!                                      \- full: held here in order; connections wait meanwhile
//! ```
//!
//! Invariant: parcels of two stations keep their order. Deliberately absent: a bound here; `has_room_for` stops reading
//! sockets while many are held.

use super::{ConnId, Core};
use crate::shard::crossing::Letter;
use crate::shard::reply::{Reply, Said};
use myelin_wire::{Code, decode};

/// What crosses between two threads of this node: whole frames, owned.
#[derive(Debug)]
pub enum Parcel {
    /// A frame for a shard of the receiver, from a connection of the sender.
    Request {
        /// Whose it is.
        from: ConnId,
        /// One frame.
        frame: Vec<u8>,
    },
    /// A frame for a connection of the receiver.
    Reply {
        /// Whose it is.
        to: ConnId,
        /// One or more frames.
        frames: Vec<u8>,
        /// How many requests it answers.
        answers: u32,
    },
    /// A connection of the sender is gone.
    Closed(ConnId),
    /// From a shard of the sender to one of the receiver.
    Letter(Letter),
}

impl Core {
    /// A parcel from another station.
    pub fn unpack(&mut self, parcel: Parcel) {
        let now = Self::now();
        self.begin_turn();
        match parcel {
            Parcel::Request { from, frame } => match decode(&frame, self.limits.max_body_bytes) {
                Ok(Some((frame, _))) => self.hand_to_shard(now, from, &frame),
                _ => self.health.bad_frames.add(1),
            },
            Parcel::Reply { to, frames, answers } => self.put(to, &frames, answers),
            Parcel::Closed(conn) => {
                self.shards.iter_mut().for_each(|shard| shard.closed(conn));
                self.ring_react_bell();
            }
            Parcel::Letter(letter) => {
                // What comes of it is a turn's work: letters that came together share it.
                self.hand_over(now, letter);
                self.ring_react_bell();
            }
        }
        self.turn();
    }

    /// Sends a parcel, or holds it behind those that are held.
    pub(super) fn post(&mut self, station: usize, parcel: Parcel) {
        let Some(Some(peer)) = self.peers.get_mut(station) else { return };
        if !self.held[station].is_empty() {
            self.held[station].push_back(parcel);
        } else if let Err(parcel) = peer.push(parcel) {
            self.held[station].push_back(parcel);
        }
    }

    /// Sends what was held, as far as there is room now.
    pub(super) fn post_held(&mut self) {
        for (peer, held) in self.peers.iter_mut().zip(&mut self.held) {
            let Some(peer) = peer else { continue };
            while let Some(parcel) = held.pop_front() {
                if let Err(parcel) = peer.push(parcel) {
                    held.push_front(parcel);
                    break;
                }
            }
        }
    }

    /// Puts a reply into the outbox it is for, here or on another station.
    pub(super) fn deliver(&mut self, reply: Reply) {
        let answers = u32::from(!matches!(reply.said, Said::Firings { .. } | Said::Tailed { .. } | Said::Ended { .. }));
        let credit = self.limits.requests_per_connection;
        match &reply.said {
            Said::Refused(refusal) => self.health.refusals.note(refusal.code),
            Said::Ack { verdicts: Some(verdicts), .. } => {
                let refused = verdicts.iter().filter_map(|verdict| Code::from_number(*verdict));
                refused.for_each(|code| self.health.rows_refused.note(code));
            }
            _ => {}
        }
        if reply.to.station == self.station {
            self.put_with(reply.to, answers, |outbox| reply.write(outbox, credit));
        } else {
            let mut frames = Vec::new();
            reply.write(&mut frames, credit);
            self.post(usize::from(reply.to.station), Parcel::Reply { to: reply.to, frames, answers });
        }
    }
}
