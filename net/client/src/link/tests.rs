//! What a link says, and when: credit, silence, reads that wait, subscriptions that go on.

use super::*;
use crate::subscriptions::{FiringPlace, Pushed, Stream, TailPlace};
use myelin_datom::{Datom, EntityId, Tx, Value};
use myelin_wire::{FROM_NOW, FiringRow, LogKind, TailAsk, decode, write_tail_fact, write_tail_row};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn link(credit: u32) -> Link<u32> {
    let mut link = Link::new(77, LinkLimits { busy_for: MS(1000), silence: MS(100) });
    link.connected(MS(0), credit);
    link
}

fn firings() -> Subscribe {
    let stream = Stream::Firings { reflex: 0, after: None, back_test: false };
    Subscribe { key: 9, shard: 2, window: 10, stream }
}

fn write(ticket: u32) -> Write<u32> {
    Write { ticket, kind: Kind::Ticks, flags: 0, count: 1, body: vec![0; 64] }
}

fn read(ticket: u32) -> Read<u32> {
    Read { ticket, header: Header::new(Kind::Count), body: Vec::new() }
}

fn said(link: &mut Link<u32>, now: Duration) -> Vec<Header> {
    let mut out = Vec::new();
    link.poll_transmit(now, &mut out);
    let mut headers = Vec::new();
    let mut at = 0;
    while let Some((frame, taken)) = decode(&out[at..], 1000).unwrap() {
        headers.push(frame.header);
        at += taken;
    }
    headers
}

fn kinds(headers: &[Header]) -> Vec<Kind> {
    headers.iter().map(|header| Kind::from_number(header.kind).unwrap()).collect()
}

fn answer(link: &mut Link<u32>, now: Duration, kind: Kind, to: &Header, header: Header, body: &[u8]) {
    let (session, request, shard) = (to.session, to.request, to.shard);
    link.handle_frame(now, Header { session, request, shard, kind: kind as u8, ..header }, kind, body).unwrap();
}

#[test]
fn never_more_is_under_way_than_was_granted_and_shards_take_turns() {
    let mut link = link(3);
    for n in 0..4 {
        link.write(0, write(n));
        link.write(1, write(10 + n));
    }
    let first = said(&mut link, MS(0));
    assert_eq!(first.iter().map(|header| (header.shard, header.request)).collect::<Vec<_>>(), [(0, 1), (0, 2), (0, 3)]);
    assert!(said(&mut link, MS(0)).is_empty());
    // Credit shrinks with an answer: nothing may follow until there is room again.
    answer(&mut link, MS(1), Kind::Ack, &first[0], Header { credit: 1, ..Header::new(Kind::Ack) }, &[]);
    assert!(said(&mut link, MS(1)).is_empty());
    for header in &first[1..] {
        answer(&mut link, MS(1), Kind::Ack, header, Header { credit: 2, ..Header::new(Kind::Ack) }, &[]);
    }
    let next = said(&mut link, MS(1));
    assert_eq!(next.iter().map(|header| (header.shard, header.request)).collect::<Vec<_>>(), [(1, 1), (1, 2)]);
}

#[test]
fn a_read_that_is_told_to_come_back_is_asked_again_after_the_wait() {
    let mut link = link(3);
    link.read(read(5));
    let asked = said(&mut link, MS(0));
    let busy = Header { code: Code::Busy as u16, aux: 4000, ..Header::new(Kind::Refused) };
    answer(&mut link, MS(1), Kind::Refused, &asked[0], busy, b"");
    assert!(link.poll_event().is_none());
    assert_eq!(link.next_deadline(), Some(MS(5)));
    assert!(said(&mut link, MS(4)).is_empty());
    let again = said(&mut link, MS(5));
    // Seen red: a read on a full disk was given up at once.
    let full = Header { code: Code::NoSpace as u16, aux: 2000, ..Header::new(Kind::Refused) };
    answer(&mut link, MS(5), Kind::Refused, &again[0], full, b"");
    assert!(link.poll_event().is_none());
    assert!(said(&mut link, MS(6)).is_empty());
    let again = said(&mut link, MS(7));
    answer(&mut link, MS(8), Kind::Answer, &again[0], Header { aux: 9, ..Header::new(Kind::Answer) }, b"");
    let Some(Event::Settled(5, Fate::Answered(reply))) = link.poll_event() else { panic!("no answer") };
    assert_eq!(reply.header.aux, 9);
    assert!(link.is_idle());
}

#[test]
fn a_read_is_asked_again_on_the_next_connection() {
    let mut link = link(3);
    link.read(read(5));
    assert_eq!(kinds(&said(&mut link, MS(0))), [Kind::Count]);
    link.disconnected();
    assert!(said(&mut link, MS(1)).is_empty());
    link.connected(MS(2), 3);
    assert_eq!(kinds(&said(&mut link, MS(2))), [Kind::Count]);
}

#[test]
fn silence_is_asked_about_once_and_then_ends_the_connection() {
    let mut link = link(3);
    assert!(link.handle_timeout(MS(10_000)), "an idle link may be silent");
    link.connected(MS(0), 3);
    link.write(0, write(1));
    said(&mut link, MS(0));
    assert_eq!(link.next_deadline(), Some(MS(100)));
    assert!(link.handle_timeout(MS(100)));
    assert_eq!(kinds(&said(&mut link, MS(100))), [Kind::Ping]);
    assert_eq!(link.next_deadline(), Some(MS(200)));
    answer(&mut link, MS(150), Kind::Pong, &Header::new(Kind::Ping), Header::new(Kind::Pong), &[]);
    assert!(link.handle_timeout(MS(200)));
    assert!(link.handle_timeout(MS(250)));
    assert_eq!(kinds(&said(&mut link, MS(250))), [Kind::Ping]);
    assert!(!link.handle_timeout(MS(350)));
}

#[test]
fn a_subscription_goes_on_behind_the_last_firing_and_pays_for_no_repeat() {
    let mut link = link(3);
    link.subscribe(firings());
    let asked = said(&mut link, MS(0));
    assert_eq!((asked[0].session, asked[0].count), (9, 10));
    answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
    let rows = |txs: &[u64]| -> Vec<u8> {
        let row = |tx: &u64| FiringRow { tx: *tx, ..bytemuck::Zeroable::zeroed() };
        bytemuck::cast_slice(&txs.iter().map(row).collect::<Vec<_>>()).to_vec()
    };
    let firings = |count| Header { count, ..Header::new(Kind::Firings) };
    answer(&mut link, MS(1), Kind::Firings, &asked[0], firings(2), &rows(&[41, 42]));
    link.disconnected();
    link.connected(MS(2), 3);
    let again = said(&mut link, MS(2));
    assert_eq!((kinds(&again), again[0].count), (vec![Kind::Subscribe], 8), "what waits here was paid for");
    answer(&mut link, MS(2), Kind::Answer, &again[0], Header { tx: 44, ..Header::new(Kind::Answer) }, &[]);
    answer(&mut link, MS(2), Kind::Firings, &again[0], firings(2), &rows(&[42, 43]));
    link.grant(9, 2, 3);
    let granted = said(&mut link, MS(3));
    assert_eq!((kinds(&granted), granted[0].count), (vec![Kind::Credit], 4), "three were taken, one was a repeat");
    let mut seen = Vec::new();
    while let Some(Event::Pushed(push)) = link.poll_event() {
        match push.said {
            Pushed::Begun { basis } => assert_eq!(basis, 40),
            Pushed::Firings { rows, .. } => seen.extend(rows.iter().map(FiringPlace::of).map(|place| place.tx)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [41, 42, 43]);
}

#[test]
fn a_subscription_that_heard_nothing_goes_on_where_it_began() {
    let mut link = link(3);
    link.subscribe(firings());
    let asked = said(&mut link, MS(0));
    answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
    link.disconnected();
    link.connected(MS(2), 3);
    let mut out = Vec::new();
    link.poll_transmit(MS(2), &mut out);
    let (frame, _) = decode(&out, 1000).unwrap().unwrap();
    assert_eq!(frame.body[8..16], 40_u64.to_le_bytes());
    assert_eq!(frame.body[16..20], u32::MAX.to_le_bytes());
}

#[test]
fn a_tail_goes_on_within_the_transaction_it_was_cut_in() {
    let mut link = link(3);
    let mut ask = Vec::new();
    TailAsk::all(FROM_NOW).write(&mut ask);
    link.subscribe(Subscribe { key: 9, shard: 2, window: 10, stream: Stream::Log { ask, seen: TailPlace::default() } });
    let asked = said(&mut link, MS(0));
    assert_eq!((kinds(&asked), asked[0].count), (vec![Kind::Tail], 10));
    answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
    let page = |places: &[(u64, u32)]| {
        let mut body = Vec::new();
        places.iter().for_each(|(tx, n)| write_tail_row(&mut body, LogKind::Tick, *tx, *n, 0, &[0; 8]));
        body
    };
    let since = |link: &mut Link<u32>, now| {
        let mut out = Vec::new();
        link.poll_transmit(now, &mut out);
        let (frame, _) = decode(&out, 1000).unwrap().unwrap();
        (frame.header, u64::from_le_bytes(frame.body[..8].try_into().unwrap()))
    };
    let tailed = |count| Header { count, ..Header::new(Kind::Tailed) };
    link.disconnected();
    link.connected(MS(1), 3);
    assert_eq!(since(&mut link, MS(1)).1, 40, "nothing came yet: from where it began");
    answer(&mut link, MS(1), Kind::Tailed, &asked[0], tailed(3), &page(&[(41, 0), (42, 0), (42, 1)]));
    link.disconnected();
    link.connected(MS(2), 3);
    let (again, from) = since(&mut link, MS(2));
    assert_eq!((from, again.count), (41, 7), "what waits here was paid for");
    answer(&mut link, MS(2), Kind::Tailed, &again, tailed(4), &page(&[(42, 0), (42, 1), (42, 2), (43, 0)]));
    let mut seen = Vec::new();
    while let Some(Event::Pushed(push)) = link.poll_event() {
        if let Pushed::Entries { entries, .. } = push.said {
            seen.extend(entries.iter().map(|entry| (entry.tx, entry.n)));
        }
    }
    assert_eq!(seen, [(41, 0), (42, 0), (42, 1), (42, 2), (43, 0)]);
}

#[test]
fn the_end_of_a_subscription_is_told_once_and_what_is_under_way_disturbs_nobody() {
    let mut link = link(3);
    link.subscribe(firings());
    let asked = said(&mut link, MS(0));
    link.unsubscribe(9);
    let told = said(&mut link, MS(0));
    assert_eq!((kinds(&told), told[0].session, told[0].request, told[0].shard), (vec![Kind::End], 9, 1, 2));
    assert!(said(&mut link, MS(0)).is_empty(), "once");
    assert!(link.is_idle());
    // Everything crossed it on the way.
    answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
    let row: FiringRow = bytemuck::Zeroable::zeroed();
    let page = Header { count: 1, ..Header::new(Kind::Firings) };
    answer(&mut link, MS(0), Kind::Firings, &asked[0], page, bytemuck::bytes_of(&row));
    answer(&mut link, MS(0), Kind::Ended, &asked[0], Header::new(Kind::Ended), &[]);
    assert!(link.poll_event().is_none());
    assert!(!link.subscriptions.owns(&asked[0]), "behind its last frame its key is free");
    // One that was refused meanwhile, and one that was never asked for.
    link.subscribe(firings());
    let asked = said(&mut link, MS(1));
    link.unsubscribe(9);
    answer(&mut link, MS(1), Kind::Refused, &asked[0], Header { code: 37, ..Header::new(Kind::Refused) }, &[]);
    link.subscribe(firings());
    link.unsubscribe(9);
    assert!(said(&mut link, MS(1)).is_empty());
    // With the connection the node forgets it.
    link.subscribe(firings());
    said(&mut link, MS(2));
    link.unsubscribe(9);
    link.disconnected();
    link.connected(MS(3), 3);
    assert!(said(&mut link, MS(3)).is_empty());
}

#[test]
fn what_a_shard_that_stopped_says_of_a_stream_is_told_and_the_stream_is_not_asked_for_again() {
    for kind in [Kind::Refused, Kind::Ended] {
        let mut link = link(3);
        link.subscribe(firings());
        let asked = said(&mut link, MS(0));
        if kind == Kind::Ended {
            answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
        }
        let header = Header { code: Code::Unavailable as u16, ..Header::new(kind) };
        answer(&mut link, MS(0), kind, &asked[0], header, &[]);
        let told = std::iter::from_fn(|| link.poll_event()).filter_map(|event| match event {
            Event::Pushed(Push { said: Pushed::Ended(why), .. }) => Some(why.code),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [Some(Code::Unavailable)]);
        assert!(said(&mut link, MS(1)).is_empty() && link.is_idle());
    }
}

#[test]
fn an_entry_that_costs_more_than_is_left_is_paid_for_before_the_next_one_comes() {
    let mut link = link(3);
    let mut ask = Vec::new();
    TailAsk::all(FROM_NOW).write(&mut ask);
    link.subscribe(Subscribe { key: 9, shard: 2, window: 10, stream: Stream::Log { ask, seen: TailPlace::default() } });
    let asked = said(&mut link, MS(0));
    answer(&mut link, MS(0), Kind::Answer, &asked[0], Header { tx: 40, ..Header::new(Kind::Answer) }, &[]);
    let (e, tx, v) = (EntityId::from_bits(7), Tx::from_bits(41), Value::string("x".repeat(12 * 256)));
    let mut body = Vec::new();
    write_tail_fact(&mut body, 0, &Datom { e, a: e, v, tx, added: true }, "a");
    answer(&mut link, MS(1), Kind::Tailed, &asked[0], Header { count: 1, ..Header::new(Kind::Tailed) }, &body);
    link.disconnected();
    link.connected(MS(2), 3);
    let again = said(&mut link, MS(2));
    assert_eq!((kinds(&again), again[0].count), (vec![Kind::Tail], 0), "13 came where 10 were granted");
    answer(&mut link, MS(2), Kind::Answer, &again[0], Header { tx: 44, ..Header::new(Kind::Answer) }, &[]);
    answer(&mut link, MS(2), Kind::Tailed, &again[0], Header { count: 1, ..Header::new(Kind::Tailed) }, &body);
    link.grant(9, 2, 13);
    let granted = said(&mut link, MS(3));
    assert_eq!(granted[0].count, 23, "10 of the 13, and the repeat");
}

#[test]
fn a_tail_that_was_begun_within_no_transaction_goes_on_from_the_beginning() {
    let mut link = link(3);
    let mut ask = Vec::new();
    TailAsk::all(0).write(&mut ask);
    // As somebody spelled it who named a last event that never was.
    let seen = TailPlace { tx: 0, entries: 5 };
    link.subscribe(Subscribe { key: 9, shard: 2, window: 10, stream: Stream::Log { ask, seen } });
    said(&mut link, MS(0));
    link.disconnected();
    link.connected(MS(1), 3);
    let mut out = Vec::new();
    link.poll_transmit(MS(1), &mut out);
    let (frame, _) = decode(&out, 1000).unwrap().unwrap();
    assert_eq!((frame.header.kind, &frame.body[..8]), (Kind::Tail as u8, &[0; 8][..]));
}

#[test]
fn a_tail_begins_behind_a_place_within_a_transaction() {
    let mut place = TailPlace::behind(40);
    [(40, (40, 1)), (41, (41, 1)), (41, (41, 2))].into_iter().for_each(|(tx, (of, entries))| {
        place.note(tx);
        assert_eq!(place, TailPlace { tx: of, entries });
    });
    let mut link = link(3);
    let mut ask = Vec::new();
    TailAsk::all(40).write(&mut ask);
    link.subscribe(Subscribe { key: 9, shard: 2, window: 10, stream: Stream::Log { ask, seen: place } });
    let asked = said(&mut link, MS(0));
    let mut body = Vec::new();
    [(41, 0), (41, 1), (41, 2)].iter().for_each(|(tx, n)| {
        write_tail_row(&mut body, LogKind::Tick, *tx, *n, 0, &[0; 8]);
    });
    answer(&mut link, MS(1), Kind::Tailed, &asked[0], Header { count: 3, ..Header::new(Kind::Tailed) }, &body);
    let Some(Event::Pushed(Push { said: Pushed::Entries { entries, .. }, .. })) = link.poll_event() else {
        panic!("no entries")
    };
    assert_eq!(entries.iter().map(|entry| entry.n).collect::<Vec<_>>(), [2]);
}
