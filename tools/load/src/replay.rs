//! What must have happened: the same tape again, as far as it was answered, every band asked at every tick.
//!
//! Runs after the clock has stopped, so it may be as plain as it likes.

use crate::bands::{Band, Watch};
use crate::lane::Tally;
use crate::recipe::Recipe;
use crate::schedule::Schedule;

/// A firing that must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub reflex: u64,
    pub market: u64,
    pub id: u64,
    /// When the tick's frame was meant to leave, at `max` when it left. **Units:** nanoseconds of our clock.
    pub basis_ns: u64,
    /// False when its frame was never answered: it may have happened.
    pub certain: bool,
}

/// What one lane must have caused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replayed {
    /// Ticks that must be stored, beside the lane's markets.
    pub stored: Vec<u64>,
    /// Ticks that may be stored: of frames that left and were not answered.
    pub maybe: Vec<u64>,
    pub firings: Vec<Expected>,
}

/// Says it all again. `bands` run beside the recipe's markets.
pub(crate) fn replay(recipe: &Recipe, batch: u32, schedule: &Schedule, tally: &Tally, bands: &[Vec<Band>]) -> Replayed {
    let mut watches: Vec<Watch> = bands.iter().map(|bands| Watch::new(bands)).collect();
    let mut out = Replayed { stored: vec![0; bands.len()], maybe: vec![0; bands.len()], firings: Vec::new() };
    let mut refused = tally.refused.iter().copied().peekable();
    let mut left_at = tally.left_at.iter().copied().peekable();
    let mut left_ns = 0;
    let mut ticks = recipe.ticks();
    for frame in 0..tally.offered {
        while let Some((_, ns)) = left_at.next_if(|(first, _)| *first <= frame) {
            left_ns = ns;
        }
        if refused.next_if_eq(&frame).is_some() {
            (0..batch).for_each(|_| {
                ticks.next();
            });
            continue;
        }
        let certain = frame < tally.answered;
        let basis_ns = schedule.intended_ns(frame).unwrap_or(left_ns);
        for _ in 0..batch {
            let (market, tick) = ticks.next();
            let at = market as usize;
            if certain {
                out.stored[at] += 1;
            } else {
                out.maybe[at] += 1;
            }
            let (market, id) = (tick.market.bits(), tick.id);
            watches[at].see(tick.price, |reflex| {
                out.firings.push(Expected { reflex, market, id, basis_ns, certain });
            });
        }
    }
    out
}
