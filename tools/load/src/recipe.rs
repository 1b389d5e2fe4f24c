//! What a lane sends: a pure function of a few numbers, so that it can be said again when the run is over.

use myelin_datom::{EntityId, Tick};
use myelin_feed::Tape;

/// Ids of one run start here: milliseconds since 1970, with room for a million ticks in each. So the ids of runs against
/// one node never meet, and ascend from run to run.
pub(crate) const fn id_base(unix_ns: i64) -> u64 {
    ((unix_ns as u64) / 1_000_000) << 20
}

/// The recipe of one lane's ticks.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Of the tape.
    pub seed: u64,
    /// The event time it begins at. **Units:** Unix nanoseconds.
    pub start_ns: i64,
    /// **Units:** nanoseconds of event time between ticks, on average.
    pub step_ns: u32,
    /// **Units:** ids in a shuffled window.
    pub shuffle: u32,
    /// Before the first id.
    pub id_base: u64,
    /// The lane's markets.
    pub ids: Vec<EntityId>,
    /// Beside `ids`: each market's number in this process.
    pub markets: Vec<usize>,
}

/// The ticks of a lane, from the first on.
#[derive(Clone, Debug)]
pub(crate) struct Ticks {
    tape: Tape,
    id_base: u64,
}

impl Recipe {
    /// The same ticks every time.
    pub(crate) fn ticks(&self) -> Ticks {
        let mut tape = Tape::new(self.seed, self.ids.len() as u32, self.start_ns)
            .with_step_ns(self.step_ns)
            .with_shuffle(self.shuffle);
        tape.bind(&self.ids);
        Ticks { tape, id_base: self.id_base }
    }

    /// The price each market's first tick has.
    pub(crate) fn first_prices(&self) -> Vec<f64> {
        let mut first = vec![None; self.ids.len()];
        let mut missing = first.len();
        let mut ticks = self.ticks();
        while missing > 0 {
            let (market, tick) = ticks.next();
            let price = &mut first[market as usize];
            missing -= usize::from(price.is_none());
            price.get_or_insert(tick.price);
        }
        first.into_iter().flatten().collect()
    }
}

impl Ticks {
    /// The next tick, and its market's place in the lane.
    #[inline]
    pub(crate) fn next(&mut self) -> (u32, Tick) {
        let (market, mut tick) = self.tape.next_tick();
        tick.id += self.id_base;
        (market, tick)
    }
}
