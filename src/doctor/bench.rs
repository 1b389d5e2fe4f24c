//! `--bench`: what an ack is made of on this host, and which published figures can follow from it.
//!
//! ```text
//!   ack of one tick, one at a time  ~  loopback round trip + sync of 4 KiB (+ hops where threads hand over)
//!   durable rate of batches of 1000 <= one batch in each sync of 64 KiB, the disk alone
//! ```
//!
//! Each part is measured alone and idle; a node that works at the same time is slower, never faster.

use super::disk::{Bed, quantile};
use crate::at_rest::Table;
use crate::runtime::{clock, threads};
use serde::Serialize;
use std::hint::spin_loop;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tick in its frame. **Units:** bytes.
const FRAME_BYTES: usize = 128;
/// A batch that a sync of 64 KiB carries. **Units:** ticks.
const BATCH: f64 = 1_000.0;
/// No part takes longer. **Units:** nanoseconds.
const PATIENCE_NS: u64 = 2_000_000_000;

/// What was measured. **Units:** microseconds, p50.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bench {
    round_trip_us: f64,
    hop_sleeping_us: f64,
    hop_spinning_us: f64,
    sync_4k_us: u64,
    sync_64k_us: u64,
    sync_1m_us: u64,
    figures: Vec<Figure>,
}

/// A published figure, and what follows here.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    figure: &'static str,
    published: f64,
    here_at_best: f64,
    reachable: bool,
    follows_from: &'static str,
}

/// Measures everything.
pub(super) fn run(dir: &Path) -> io::Result<Bench> {
    let sync = |bytes, count| -> io::Result<u64> { Ok(quantile(&Bed::make(dir, bytes)?.sync_us(bytes, count)?, 0.5)) };
    let mut bench = Bench {
        round_trip_us: round_trip()?,
        hop_sleeping_us: hop(false)?,
        hop_spinning_us: hop(true)?,
        sync_4k_us: sync(4 << 10, 200)?,
        sync_64k_us: sync(64 << 10, 200)?,
        sync_1m_us: sync(1 << 20, 50)?,
        figures: Vec::new(),
    };
    bench.figures = bench.figures();
    Ok(bench)
}

impl Bench {
    fn figures(&self) -> Vec<Figure> {
        let ack = self.round_trip_us + self.sync_4k_us as f64;
        let rate = BATCH / (self.sync_64k_us.max(1) as f64) * 1e6;
        let figure = |figure, published, here: f64, reachable, follows_from| Figure {
            figure,
            published,
            here_at_best: here.round(),
            reachable,
            follows_from,
        };
        let fired = ack + self.hop_sleeping_us;
        vec![
            figure("ack_p50_us", 130.0, ack, ack <= 130.0, "round trip + sync of 4 KiB"),
            figure("tick_to_firing_p50_us", 180.0, fired, fired <= 180.0, "the same + a hop"),
            figure("batch_1000_ticks_per_second", 3e6, rate, rate >= 3e6, "a batch per sync of 64 KiB; the disk alone"),
        ]
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut parts = Table::new(&["part", "p50_us"]);
        for (part, us) in [
            ("loopback round trip", self.round_trip_us),
            ("hop to a sleeping thread", self.hop_sleeping_us),
            ("hop to a spinning thread", self.hop_spinning_us),
            ("sync of 4 KiB", self.sync_4k_us as f64),
            ("sync of 64 KiB", self.sync_64k_us as f64),
            ("sync of 1 MiB", self.sync_1m_us as f64),
        ] {
            parts.row([part.to_owned(), us.to_string()]);
        }
        let mut figures = Table::new(&["figure", "published", "here_at_best", "reachable", "follows_from"]);
        for one in &self.figures {
            let answer = if one.reachable { "yes" } else { "no" };
            let numbers = [one.published, one.here_at_best].map(|number| number.to_string());
            let words = [answer.to_owned(), one.follows_from.to_owned()];
            figures.row([one.figure.to_owned()].into_iter().chain(numbers).chain(words));
        }
        format!("{}\n{}\n", parts.text(), figures.text())
    }
}

/// The median. **Units:** nanoseconds in, microseconds to a tenth out.
fn median_us(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    (quantile(&times, 0.5) as f64 / 100.0).round() / 10.0
}

/// Times `count` turns, or as many as patience allows.
fn timed(count: usize, mut turn: impl FnMut() -> io::Result<()>) -> io::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(count);
    let until = clock::monotonic_ns() + PATIENCE_NS;
    while times.len() < count {
        let begun = clock::monotonic_ns();
        if begun > until && !times.is_empty() {
            break;
        }
        turn()?;
        times.push(clock::monotonic_ns() - begun);
    }
    Ok(times)
}

/// A frame there and back over loopback.
fn round_trip() -> io::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let echo = threads::spawn(threads::Role::Probe, "myelin-echo".to_owned(), move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut frame = [0; FRAME_BYTES];
        while stream.read_exact(&mut frame).is_ok() {
            stream.write_all(&frame)?;
        }
        Ok(())
    })?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut frame = [0; FRAME_BYTES];
    let times = timed(2_000, || {
        stream.write_all(&frame)?;
        stream.read_exact(&mut frame)
    })?;
    drop(stream);
    drop(echo.join());
    Ok(median_us(times))
}

/// One way from a thread to another, half of there and back.
fn hop(spinning: bool) -> io::Result<f64> {
    const END: u64 = u64::MAX;
    let (there, back) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (in_there, out_back) = (Arc::clone(&there), Arc::clone(&back));
    let caller = std::thread::current();
    let await_change = move |place: &AtomicU64, last: u64| {
        loop {
            let now = place.load(Ordering::Acquire);
            if now != last {
                return now;
            }
            if spinning { spin_loop() } else { std::thread::park() }
        }
    };
    let other = threads::spawn(threads::Role::Probe, "myelin-hop".to_owned(), move || {
        let mut last = 0;
        while last != END {
            last = await_change(&in_there, last);
            out_back.store(last, Ordering::Release);
            caller.unpark();
        }
    })?;
    let mut turn = 0;
    let mut times = timed(2_000, || {
        turn += 1;
        there.store(turn, Ordering::Release);
        if !spinning {
            other.thread().unpark();
        }
        await_change(&back, turn - 1);
        Ok(())
    })?;
    there.store(END, Ordering::Release);
    other.thread().unpark();
    drop(other.join());
    times.iter_mut().for_each(|time| *time /= 2);
    Ok(median_us(times))
}
