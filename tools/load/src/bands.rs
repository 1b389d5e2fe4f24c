//! Price bands: where they lie, how they are registered, and when each must fire, asked as naively as it can be.
//!
//! ```text
//!   price ... --|------|------|---- p0 ----|------|------|-- ...      cuts, `spacing` apart on either side of the
//!             below  below  leaves  |    above  leaves above          market's first price; outwards is true
//! ```
//!
//! The tape's walk crosses a level outwards 0.625 times per tick and cent (the mean upward part of its step), so cuts that
//! lie 0.625 x F cents apart fire once in F ticks, wherever the walk is; an `enters` owns two cuts, once for either
//! direction. No band is true at the first price, so nothing fires for having been born true.
//!
//! Invariant: the evaluator compares prices with `<` and `<=` and remembers what was true; it shares no code and no idea
//! with the node's, except that bands without a cut between two prices cannot have changed.

use myelin_wire::Kind;

/// The tape's price unit. **Units:** per 1.00.
const CENTS: f64 = 100.0;
/// The mean of the upward part of the tape's step: the difference of two draws of 0..=3. **Units:** cents.
const UPWARD: f64 = 0.625;

/// What a band asks of a price. Numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Question {
    Above(f64),
    Below(f64),
    Enters(f64, f64),
    Leaves(f64, f64),
}

impl Question {
    fn holds(self, price: f64) -> bool {
        match self {
            Self::Above(x) => price > x,
            Self::Below(x) => price < x,
            Self::Enters(low, high) => low <= price && price <= high,
            Self::Leaves(low, high) => price < low || price > high,
        }
    }

    fn cuts(self) -> [Option<f64>; 2] {
        match self {
            Self::Above(x) | Self::Below(x) => [Some(x), None],
            Self::Enters(low, high) | Self::Leaves(low, high) => [Some(low), Some(high)],
        }
    }
}

/// A band on one market.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Band {
    pub reflex: u64,
    pub question: Question,
}

impl Band {
    /// Appends the registration: `reflex:8 | kind:1 | numbers | scope 1 = this market | length:1 | name`.
    pub(crate) fn write(&self, market: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.reflex.to_le_bytes());
        out.push(match self.question {
            Question::Above(_) => 1,
            Question::Below(_) => 2,
            Question::Enters(..) => 3,
            Question::Leaves(..) => 4,
        });
        for number in self.question.cuts().into_iter().flatten() {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(1);
        out.push(market.len() as u8);
        out.extend_from_slice(market.as_bytes());
    }

    /// The frame's kind.
    pub(crate) const KIND: Kind = Kind::Register;
}

/// `count` bands around a market's first price, so that one tick of all markets in `fire_one_in` fires. `random` shifts
/// the cuts as a whole, `reflex` numbers the bands.
pub(crate) fn around(
    first_price: f64,
    count: usize,
    fire_one_in: u32,
    random: u64,
    mut reflex: impl FnMut() -> u64,
) -> Vec<Band> {
    let spacing = (UPWARD * f64::from(fire_one_in)).max(1.0);
    let shift = (random % 1024) as f64 / 1024.0;
    let start = (first_price * CENTS).round();
    // Whole cents and halves by turns: with and without prices that stand exactly on the cut.
    let price = |cents: f64, turn: usize| (cents.floor() + 0.5 * (turn % 2) as f64) / CENTS;
    let (mut ups, mut downs) = (0, 0);
    let mut bands = Vec::with_capacity(count);
    for turn in 0..count {
        let mut up = || {
            ups += 1;
            price(start + 1.0 + (f64::from(ups) - 1.0 + shift) * spacing, turn)
        };
        let mut down = || {
            downs += 1;
            price(start - 1.0 - (f64::from(downs) - shift) * spacing, turn)
        };
        let question = match turn % 6 {
            0 => Question::Above(up()),
            1 => Question::Below(down()),
            2 => Question::Enters(up(), up()),
            3 => Question::Leaves(down(), up()),
            4 => {
                let high = down();
                Question::Enters(down(), high)
            }
            _ => Question::Above(up()),
        };
        // -0.0 is refused by the node; the tape has no price there either.
        bands.push(Band { reflex: reflex(), question: question.positive_zero() });
    }
    bands
}

impl Question {
    fn positive_zero(self) -> Self {
        match self {
            Self::Above(x) => Self::Above(x + 0.0),
            Self::Below(x) => Self::Below(x + 0.0),
            Self::Enters(low, high) => Self::Enters(low + 0.0, high + 0.0),
            Self::Leaves(low, high) => Self::Leaves(low + 0.0, high + 0.0),
        }
    }
}

/// What a market's bands must do, tick by tick.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    bands: Vec<(Band, bool)>,
    /// Every cut, ascending, with its band.
    cuts: Vec<(f64, u32)>,
    last: Option<f64>,
    /// No cut lies strictly between these, and the last price does.
    quiet: (f64, f64),
}

impl Watch {
    /// Nothing was seen yet, so nothing is true.
    pub(crate) fn new(bands: &[Band]) -> Self {
        let cuts =
            |(at, band): (usize, &Band)| band.question.cuts().into_iter().flatten().map(move |cut| (cut, at as u32));
        let mut cuts: Vec<_> = bands.iter().enumerate().flat_map(cuts).collect();
        cuts.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let bands = bands.iter().map(|band| (*band, false)).collect();
        Self { bands, cuts, last: None, quiet: (f64::INFINITY, f64::NEG_INFINITY) }
    }

    /// The next price; calls `fired` for each band that became true.
    #[inline]
    pub(crate) fn see(&mut self, price: f64, fired: impl FnMut(u64)) {
        if !(self.quiet.0 < price && price < self.quiet.1) {
            self.look(price, fired);
        }
    }

    fn look(&mut self, price: f64, mut fired: impl FnMut(u64)) {
        let mut ask = |(band, was): &mut (Band, bool)| {
            let is = band.question.holds(price);
            if is && !*was {
                fired(band.reflex);
            }
            *was = is;
        };
        match self.last {
            None => self.bands.iter_mut().for_each(&mut ask),
            Some(last) => {
                // Every band with a cut on the way, both ends included; one with two of them is asked twice, harmlessly.
                let first = self.cuts.partition_point(|(cut, _)| *cut < last.min(price));
                for (_, at) in self.cuts[first..].iter().take_while(|(cut, _)| *cut <= last.max(price)) {
                    ask(&mut self.bands[*at as usize]);
                }
            }
        }
        self.last = Some(price);
        let below = self.cuts.partition_point(|(cut, _)| *cut <= price);
        let at_or_above = self.cuts.partition_point(|(cut, _)| *cut < price);
        self.quiet = (
            below.checked_sub(1).map_or(f64::NEG_INFINITY, |at| self.cuts[at].0),
            self.cuts.get(at_or_above).map_or(f64::INFINITY, |cut| cut.0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use myelin_datom::{EntityId, Slot};

    fn fired(question: Question, prices: &[f64]) -> Vec<usize> {
        let mut watch = Watch::new(&[Band { reflex: 5, question }]);
        let mut at = Vec::new();
        for (n, price) in prices.iter().enumerate() {
            watch.see(*price, |reflex| {
                assert_eq!(reflex, 5);
                at.push(n);
            });
        }
        at
    }

    #[test]
    fn a_band_fires_when_it_becomes_true_and_only_then() {
        let walk = [1.0, 2.0, 2.5, 2.0, 3.0, 3.0, 4.0, 1.0, 2.0];
        for (question, expected) in [
            (Question::Above(2.0), &[2, 4][..]),
            (Question::Above(0.5), &[0]),
            (Question::Below(2.0), &[0, 7]),
            (Question::Enters(2.0, 3.0), &[1, 8]),
            (Question::Leaves(2.0, 3.0), &[0, 6]),
            (Question::Leaves(1.0, 4.0), &[]),
            (Question::Enters(3.0, 3.0), &[4]),
        ] {
            assert_eq!(fired(question, &walk), expected, "{question:?}");
        }
    }

    fn recipe(seed: u64, markets: u32) -> Recipe {
        let ids = (0..markets).map(|n| EntityId::market(Slot::new(1).unwrap(), n)).collect();
        let markets = (0..markets as usize).collect();
        Recipe { seed, start_ns: 0, step_ns: 1, shuffle: 1, id_base: 0, ids, markets }
    }

    /// The shortcut over cuts agrees with asking every band at every tick, and with the rate that was asked for.
    #[test]
    fn a_tape_fires_about_as_often_as_asked_and_the_shortcut_changes_nothing() {
        const TICKS: u32 = 400_000;
        for fire_one_in in [100, 1000] {
            let recipe = recipe(u64::from(fire_one_in), 20);
            let mut random = 1_u64;
            let all: Vec<Vec<Band>> = recipe
                .first_prices()
                .into_iter()
                .map(|price| {
                    random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
                    let mut reflex = 0;
                    around(price, 60, fire_one_in, random, || {
                        reflex += 1;
                        reflex
                    })
                })
                .collect();
            let mut watches: Vec<_> = all.iter().map(|bands| Watch::new(bands)).collect();
            let mut truth: Vec<Vec<bool>> = all.iter().map(|bands| vec![false; bands.len()]).collect();
            let mut firings = 0;
            let mut ticks = recipe.ticks();
            for n in 0..TICKS {
                let (market, tick) = ticks.next();
                let market = market as usize;
                let mut shortcut = Vec::new();
                watches[market].see(tick.price, |reflex| shortcut.push(reflex));
                let mut naive = Vec::new();
                for (band, was) in all[market].iter().zip(&mut truth[market]) {
                    let is = band.question.holds(tick.price);
                    if is && !*was {
                        naive.push(band.reflex);
                    }
                    *was = is;
                }
                shortcut.sort_unstable();
                assert_eq!(shortcut, naive, "tick {n}");
                firings += naive.len();
            }
            let asked = (TICKS / fire_one_in) as usize;
            assert!((asked / 2..asked * 2).contains(&firings), "{firings} firings, about {asked} were asked for");
        }
    }

    #[test]
    fn nothing_is_true_at_the_first_price_and_no_number_is_negative_zero() {
        for price in [5.0, 0.01, 83_000.0] {
            for random in [0, 511, 1023] {
                for band in around(price, 100, 16, random, || 1) {
                    assert!(!band.question.holds(price), "{band:?} at {price}");
                    for cut in band.question.cuts().into_iter().flatten() {
                        assert_ne!(cut.to_bits(), (-0.0_f64).to_bits());
                    }
                    if let Question::Enters(low, high) | Question::Leaves(low, high) = band.question {
                        assert!(low <= high);
                    }
                }
            }
        }
    }

    #[test]
    fn a_registration_is_the_bytes_of_the_reflex_page() {
        let mut bytes = Vec::new();
        Band { reflex: 2, question: Question::Enters(1.0, 2.0) }.write("AB", &mut bytes);
        let mut expected = vec![2, 0, 0, 0, 0, 0, 0, 0, 3];
        expected.extend_from_slice(&1.0_f64.to_le_bytes());
        expected.extend_from_slice(&2.0_f64.to_le_bytes());
        expected.extend_from_slice(&[1, 2, b'A', b'B']);
        assert_eq!(bytes, expected);
    }
}
