//! Transcripts: what is told the session, and what it says then. Frames are written as their request's number.

use super::*;
use myelin_wire::{Frame, decode};

struct World {
    session: Session<u32>,
    now: Duration,
    settled: Settled<u32>,
    /// The ids the session spoke under, in the order they appeared.
    ids: Vec<u64>,
}

fn world() -> World {
    let session = Session::new(3, 77, Duration::from_secs(1));
    World { session, now: Duration::ZERO, settled: VecDeque::new(), ids: Vec::new() }
}

/// One line of a transcript.
enum Say {
    /// The caller queues writes with these tickets.
    Push(&'static [u32]),
    /// The node answers a request.
    Ack(u64),
    /// The node refuses a request, with this code and `aux`.
    Refuse(u64, Code, u64),
    /// Microseconds pass.
    Wait(u64),
    Cut,
    GiveUp,
}
use Say::{Ack, Cut, GiveUp, Push, Refuse, Wait};

impl World {
    fn reply(&mut self, kind: Kind, request: u64, code: u16, aux: u64) {
        let header = Header { request, code, aux, shard: 3, ..Header::new(kind) };
        let reply = Reply { header, kind, body: Vec::new() };
        self.session.handle_reply(self.now, reply, &mut self.settled).unwrap();
    }

    fn hear(&mut self, said: &Say) {
        match *said {
            Push(tickets) => {
                for ticket in tickets {
                    let body = ticket.to_le_bytes().to_vec();
                    self.session.push(Write { ticket: *ticket, kind: Kind::Ticks, flags: 0, count: 1, body });
                }
            }
            Ack(request) => self.reply(Kind::Ack, request, 0, 0),
            Refuse(request, code, aux) => self.reply(Kind::Refused, request, code as u16, aux),
            Wait(us) => self.now += Duration::from_micros(us),
            Cut => self.session.disconnected(&mut self.settled),
            GiveUp => self.session.give_up("gone", &mut self.settled),
        }
    }

    /// What it says now: frames as `request:ticket`, then what was settled.
    fn speak(&mut self) -> String {
        let mut out = Vec::new();
        self.session.poll_transmit(self.now, 3, usize::MAX, &mut out);
        let mut said = Vec::new();
        let mut at = 0;
        while let Some((frame, taken)) = decode(&out[at..], 100).unwrap() {
            said.push(self.name(&frame));
            at += taken;
        }
        for (ticket, fate) in self.settled.drain(..) {
            said.push(match fate {
                Fate::Answered(_) => format!("{ticket} done"),
                Fate::Refused(refusal) => format!("{ticket} {}", refusal.name()),
                Fate::Unknown(_) => format!("{ticket} unknown"),
                Fate::NotSent(_) => format!("{ticket} not sent"),
            });
        }
        said.join(", ")
    }

    fn name(&mut self, frame: &Frame<'_>) -> String {
        let header = frame.header;
        assert_eq!(header.shard, 3);
        if !self.ids.contains(&header.session) {
            self.ids.push(header.session);
        }
        let fresh = "'".repeat(self.ids.iter().position(|id| *id == header.session).unwrap_or_default());
        match frame.kind {
            Kind::Resume => format!("resume{fresh} {}", header.aux),
            _ => format!("{}{fresh}:{}", header.request, frame.body[0]),
        }
    }
}

fn check(transcript: &[(Say, &str)]) -> World {
    let mut world = world();
    for (line, (say, expected)) in transcript.iter().enumerate() {
        world.hear(say);
        assert_eq!(world.speak(), *expected, "line {line}");
    }
    world
}

#[test]
fn requests_are_numbered_in_order_and_answered_in_order() {
    let world = check(&[
        (Push(&[10, 11]), "1:10, 2:11"),
        (Ack(1), "10 done"),
        (Push(&[12]), "3:12"),
        (Ack(2), "11 done"),
        (Ack(3), "12 done"),
    ]);
    assert!(world.session.is_idle());
}

#[test]
fn after_busy_all_behind_it_waits_and_goes_on_in_order_under_the_same_numbers() {
    check(&[
        (Push(&[10, 11, 12]), "1:10, 2:11, 3:12"),
        (Refuse(2, Code::Busy, 5000), ""),
        (Push(&[13]), ""),
        // The stalled ones behind it carry the expected number, not a time: only the first one's wait counts.
        (Refuse(3, Code::Busy, 2), ""),
        (Wait(9000), ""),
        (Ack(1), "10 done"),
        (Wait(4999), ""),
        (Wait(1), "resume 2, 2:11, 3:12, 4:13"),
        (Ack(2), "11 done"),
        (Ack(3), "12 done"),
        (Ack(4), "13 done"),
    ]);
}

#[test]
fn a_full_disk_is_waited_for_as_busy_is() {
    check(&[
        (Push(&[10, 11]), "1:10, 2:11"),
        (Refuse(1, Code::NoSpace, 250_000), ""),
        (Refuse(2, Code::NoSpace, 1), ""),
        (Wait(249_999), ""),
        (Wait(1), "resume 1, 1:10, 2:11"),
        (Refuse(1, Code::NoSpace, 250_000), ""),
        (Refuse(2, Code::NoSpace, 1), ""),
        (Wait(250_000), "resume 1, 1:10, 2:11"),
        (Ack(1), "10 done"),
        (Ack(2), "11 done"),
    ]);
}

#[test]
fn a_cut_line_sends_again_what_was_unanswered_under_the_same_number() {
    check(&[
        (Push(&[10, 11, 12]), "1:10, 2:11, 3:12"),
        (Ack(1), "10 done"),
        (Cut, "2:11, 3:12"),
        (Ack(2), "11 done"),
        (Cut, "3:12"),
        (Ack(3), "12 done"),
    ]);
}

#[test]
fn a_cut_while_waiting_forgets_the_wait_because_a_new_connection_is_not_stalled() {
    check(&[
        (Push(&[10, 11]), "1:10, 2:11"),
        (Refuse(1, Code::Busy, 900_000), ""),
        (Cut, "1:10, 2:11"),
        (Ack(1), "10 done"),
    ]);
}

#[test]
fn a_refusal_by_the_log_spends_its_number_and_one_before_the_log_does_not() {
    check(&[
        (Push(&[10, 11, 12]), "1:10, 2:11, 3:12"),
        (Refuse(1, Code::IdConflict, 0), "10 id_conflict"),
        (Refuse(2, Code::WrongShard, 0), "11 wrong_shard"),
        (Refuse(3, Code::SessionGap, 2), "resume 2, 2:12"),
        (Ack(2), "12 done"),
    ]);
}

/// Told apart by its code alone, a refusal may be taken for one that spent its number. The gap says what is true.
#[test]
fn a_gap_below_our_number_brings_us_back_to_it() {
    check(&[
        (Push(&[10]), "1:10"),
        (Refuse(1, Code::TooMany, 0), "10 too_many"),
        (Push(&[11]), "2:11"),
        (Refuse(2, Code::SessionGap, 1), ""),
        (Wait(2000), "resume 1, 1:11"),
        (Ack(1), "11 done"),
    ]);
}

#[test]
fn an_expired_session_begins_anew_and_nothing_is_tried_twice_that_may_have_been_executed() {
    let world = check(&[
        (Push(&[10, 11]), "1:10, 2:11"),
        (Ack(1), "10 done"),
        (Cut, "2:11"),
        (Push(&[12]), "3:12"),
        (Refuse(2, Code::SessionExpired, 0), "11 unknown"),
        (Refuse(3, Code::SessionExpired, 0), "resume' 1, 1':12"),
        (Ack(1), "12 done"),
    ]);
    assert_eq!(world.ids.len(), 2);
}

#[test]
fn renumbered_requests_are_in_doubt_when_the_line_is_cut_and_the_session_ends() {
    check(&[
        (Push(&[10, 11]), "1:10, 2:11"),
        (Refuse(1, Code::WrongShard, 0), "10 wrong_shard"),
        (Cut, "11 unknown"),
        (Push(&[12]), "1':12"),
        (Ack(1), "12 done"),
    ]);
}

#[test]
fn busy_for_too_long_is_told_and_the_next_write_resumes_at_the_same_number() {
    check(&[
        (Push(&[10]), "1:10"),
        (Refuse(1, Code::Busy, 1000), ""),
        (Wait(1000), "resume 1, 1:10"),
        (Wait(1_000_000), ""),
        (Refuse(1, Code::Busy, 1000), "10 busy"),
        (Push(&[11]), ""),
        (Wait(1000), "resume 1, 1:11"),
        (Ack(1), "11 done"),
    ]);
}

#[test]
fn when_no_connection_comes_back_what_was_sent_is_unknown_and_the_rest_was_not_sent() {
    check(&[
        (Push(&[10, 11, 12, 13]), "1:10, 2:11, 3:12"),
        (GiveUp, "10 unknown, 11 unknown, 12 unknown, 13 not sent"),
        (Push(&[14]), "1':14"),
    ]);
}

#[test]
fn an_answer_nobody_waits_for_is_an_error() {
    let mut world = check(&[(Push(&[10]), "1:10"), (Ack(1), "10 done"), (Push(&[11]), "2:11")]);
    for request in [0, 1, 3, u64::MAX] {
        let header = Header { request, ..Header::new(Kind::Ack) };
        let reply = Reply { header, kind: Kind::Ack, body: Vec::new() };
        let error = world.session.handle_reply(Duration::ZERO, reply, &mut world.settled).unwrap_err();
        assert_eq!(error, Unexpected { shard: 3, request });
    }
}
