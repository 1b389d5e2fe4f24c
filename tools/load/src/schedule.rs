//! When each frame of a lane is meant to leave. Pure arithmetic: no clock, and no rounding that adds up.
//!
//! ```text
//!   process p of P, lane l of L, frame i   ->  place j = (i*L + l)*P + p  ->  start + j * batch / rate
//! ```
//!
//! So the frames of all lanes of all processes interleave evenly, and together they offer exactly the rate.

use crate::args::{IngestArgs, Part, Rate};
use crate::clock::SECOND_NS;

/// The schedule of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// When the run begins. **Units:** nanoseconds of our clock.
    pub start_ns: u64,
    /// How long frames are offered. **Units:** nanoseconds.
    pub offered_ns: u64,
    /// Earlier frames are not measured. **Units:** nanoseconds of our clock.
    pub measured_from_ns: u64,
    pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    rate: u64,
    batch: u32,
    stride: u64,
    place: u64,
}

impl Schedule {
    /// The schedule of lane `lane` of `lanes` in this process.
    pub(crate) fn new(args: &IngestArgs, start_ns: u64, lane: usize, lanes: usize) -> Self {
        let Part { number, of } = args.own_part();
        let pace = match args.rate {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(Pace {
                rate,
                batch: args.batch,
                stride: lanes as u64 * u64::from(of),
                place: lane as u64 * u64::from(of) + u64::from(number),
            }),
        };
        Self {
            start_ns,
            offered_ns: (args.seconds * SECOND_NS as f64) as u64,
            measured_from_ns: start_ns + (args.warmup_seconds() * SECOND_NS as f64) as u64,
            pace,
        }
    }

    /// No intended times, no end.
    pub(crate) const fn endless() -> Self {
        Self { start_ns: 0, offered_ns: u64::MAX, measured_from_ns: 0, pace: None }
    }

    /// When ticks are no longer offered. **Units:** nanoseconds of our clock.
    pub(crate) const fn end_ns(&self) -> u64 {
        self.start_ns + self.offered_ns
    }

    /// True when frames have an intended time.
    pub(crate) const fn is_open(&self) -> bool {
        self.pace.is_some()
    }

    /// When frame `frame` is meant to leave; at `max` there is no such time.
    pub(crate) fn intended_ns(&self, frame: u64) -> Option<u64> {
        self.pace.map(|pace| {
            let ticks = u128::from(frame * pace.stride + pace.place) * u128::from(pace.batch);
            self.start_ns + (ticks * u128::from(SECOND_NS) / u128::from(pace.rate)) as u64
        })
    }

    /// How many frames this lane offers; at `max` as many as are taken.
    pub(crate) fn frames(&self) -> Option<u64> {
        self.pace.map(|pace| {
            let ticks = u128::from(pace.rate) * u128::from(self.offered_ns) / u128::from(SECOND_NS);
            let all = (ticks / u128::from(pace.batch)) as u64;
            all.saturating_sub(pace.place).div_ceil(pace.stride)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Mode};
    use clap::Parser;

    fn args(line: &str) -> IngestArgs {
        match Cli::try_parse_from(format!("myelin-load ingest {line}").split_whitespace()).unwrap().mode {
            Mode::Ingest(args) => args,
            _ => panic!("not ingest"),
        }
    }

    #[test]
    fn lanes_of_processes_interleave_and_offer_exactly_the_rate() {
        for (line, lanes, processes, frames) in [
            ("--rate 10000 --seconds 10 --batch 100", 1, 1, 1_000),
            ("--rate 10000 --seconds 10 --batch 100", 3, 2, 1_000),
            ("--rate 7 --seconds 2.5 --batch 1", 2, 2, 17),
            ("--rate 10 --seconds 1 --batch 100", 2, 1, 0),
        ] {
            let mut times = Vec::new();
            for number in 0..processes {
                let args = IngestArgs { part: Some(Part { number, of: processes }), ..args(line) };
                for lane in 0..lanes {
                    let schedule = Schedule::new(&args, 1_000, lane, lanes);
                    times.extend((0..schedule.frames().unwrap()).map(|frame| schedule.intended_ns(frame).unwrap()));
                }
            }
            times.sort_unstable();
            assert_eq!(times.len(), frames, "{line}");
            let args = args(line);
            let Rate::PerSecond(rate) = args.rate else { panic!("not a rate") };
            for (place, time) in times.iter().enumerate() {
                assert_eq!(*time, 1_000 + place as u64 * u64::from(args.batch) * SECOND_NS / rate);
            }
        }
    }

    #[test]
    fn the_warm_up_is_a_part_of_the_run_and_max_has_no_intended_times() {
        let schedule = Schedule::new(&args("--rate max --seconds 10 --warmup 2"), 5, 0, 1);
        assert_eq!(schedule.measured_from_ns, 5 + 2 * SECOND_NS);
        assert_eq!((schedule.frames(), schedule.intended_ns(3), schedule.is_open()), (None, None, false));
        assert_eq!(schedule.end_ns(), 5 + 10 * SECOND_NS);
    }
}
