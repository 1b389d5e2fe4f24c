//! What a reflex asks and of which markets: the two values a client sends, checked once.
//!
//! ```text
//!   Spec   above x | below x | enters lo..hi | leaves lo..hi | move r in w | volume v in w | spread a b x | gap
//!   Scope  market:NAME | like:PATTERN ('*' = any run of characters) | all
//! ```
//!
//! Invariants: what passed [`Spec::check`] has finite numbers, no -0.0, ordered ranges, windows of at least 1 ns.
//! Deliberately absent: expressions and user code. Text is in `text.rs`, bytes in `encode.rs`.

use super::band::Band;
use super::firing::Kind;
use myelin_datom::{MarketName, NameError};

/// **Units:** nanoseconds. The longest window, 366 days.
pub const WINDOW_NS_MAX: i64 = 366 * 86_400 * 1_000_000_000;
/// **Units:** bytes of a name pattern.
pub const PATTERN_BYTES_MAX: usize = 200;

/// What is asked. All kinds but `Gap` fire when their predicate *becomes* true, per reflex and market; it is false
/// before the first tick the reflex sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// price > x
    Above(f64),
    /// price < x
    Below(f64),
    /// low <= price <= high
    Enters {
        /// Lower end, inside.
        low: f64,
        /// Upper end, inside.
        high: f64,
    },
    /// price < low or price > high
    Leaves {
        /// Lower end, inside.
        low: f64,
        /// Upper end, inside.
        high: f64,
    },
    /// The price stands at least this fraction above the lowest or below the highest price of the window.
    Move {
        /// A fraction, above 0: 0.02 is 2 %.
        least: f64,
        /// **Units:** nanoseconds of event time.
        window_ns: i64,
    },
    /// The volumes of the window sum to at least this much.
    Volume {
        /// Above 0.
        least: f64,
        /// **Units:** nanoseconds of event time.
        window_ns: i64,
    },
    /// The latest prices of two markets stand apart; boxed, because it is rare and large.
    Spread(Box<Spread>),
    /// A feed skipped ids: every gap fires.
    Gap,
}

/// Two markets whose latest prices are compared. Its scope is [`Scope::All`]: the names say which markets count.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// One market's name; it may not exist yet.
    pub a: Box<str>,
    /// The other's.
    pub b: Box<str>,
    /// The predicate is `|a - b| >= least`, or `a - b >= least` when `signed`.
    pub least: f64,
    /// False: distance, `least` above 0. True: how far `a` stands over `b`, any `least`.
    pub signed: bool,
}

/// Which markets, those that appear later included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The market of this name.
    Market(Box<str>),
    /// Markets whose whole name matches; `*` stands for any run of characters, the empty one too.
    Like(Box<str>),
    /// Every market.
    All,
}

/// What is wrong with a spec or a scope: the sender's to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// NaN, an infinity or -0.0.
    #[error("{field} is not a finite number")]
    NotFinite {
        /// Which number.
        field: &'static str,
    },
    /// A fraction, amount or distance that every tick would satisfy.
    #[error("{field} must be above zero")]
    NotPositive {
        /// Which number.
        field: &'static str,
    },
    /// The range ends before it begins.
    #[error("the range's low end is above its high end")]
    EmptyRange,
    /// Below 1 ns or above [`WINDOW_NS_MAX`].
    #[error("the window must last between 1 ns and 366 days")]
    Window,
    /// Both names of a spread are the same.
    #[error("a spread needs two different markets")]
    OneMarket,
    /// A spread whose scope is not all.
    #[error("a spread names its own markets: its scope is all")]
    SpreadScope,
    /// Not a market name.
    #[error("{0}")]
    Name(NameError),
    /// Empty, longer than [`PATTERN_BYTES_MAX`], or with white space or control characters.
    #[error("a name pattern has 1 to 200 bytes and no white space")]
    Pattern,
}

impl Spec {
    /// The kind of its firings.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Above(_) => Kind::Above,
            Self::Below(_) => Kind::Below,
            Self::Enters { .. } => Kind::Enters,
            Self::Leaves { .. } => Kind::Leaves,
            Self::Move { .. } => Kind::Move,
            Self::Volume { .. } => Kind::Volume,
            Self::Spread(_) => Kind::Spread,
            Self::Gap => Kind::Gap,
        }
    }

    /// The same with its scope. **Errors:** likewise.
    pub fn check_in(&self, scope: &Scope) -> Result<(), SpecError> {
        self.check()?;
        scope.check()?;
        if matches!(self, Self::Spread(_)) && *scope != Scope::All { Err(SpecError::SpreadScope) } else { Ok(()) }
    }

    /// **Errors:** the first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Self::Above(x) | Self::Below(x) => finite("price", *x),
            Self::Enters { low, high } | Self::Leaves { low, high } => {
                finite("low", *low)?;
                finite("high", *high)?;
                if low > high { Err(SpecError::EmptyRange) } else { Ok(()) }
            }
            Self::Move { least, window_ns } => {
                positive("move", *least)?;
                window(*window_ns)
            }
            Self::Volume { least, window_ns } => {
                positive("volume", *least)?;
                window(*window_ns)
            }
            Self::Spread(spread) => {
                MarketName::new(&spread.a).map_err(SpecError::Name)?;
                MarketName::new(&spread.b).map_err(SpecError::Name)?;
                if spread.a == spread.b {
                    return Err(SpecError::OneMarket);
                }
                if spread.signed { finite("spread", spread.least) } else { positive("spread", spread.least) }
            }
            Self::Gap => Ok(()),
        }
    }

    /// The band this is, over the price or over the spread; `None` for windows and gaps.
    pub(super) fn band(&self) -> Option<Band> {
        match self {
            Self::Above(x) => Some(Band::above(*x)),
            Self::Below(x) => Some(Band::below(*x)),
            Self::Enters { low, high } => Some(Band::inside(*low, *high)),
            Self::Leaves { low, high } => Some(Band::outside(*low, *high)),
            Self::Spread(spread) => Some(Band::at_least(spread.least)),
            Self::Move { .. } | Self::Volume { .. } | Self::Gap => None,
        }
    }

    /// A question whose state is all it saw, not the latest price.
    #[must_use]
    pub const fn is_window(&self) -> bool {
        matches!(self, Self::Move { .. } | Self::Volume { .. })
    }
}

impl Spread {
    /// What is compared with `least`: one subtraction, rounded once.
    #[inline]
    pub(super) fn measure(signed: bool, a: f64, b: f64) -> f64 {
        if signed { a - b } else { (a - b).abs() }
    }
}

impl Scope {
    /// **Errors:** a name or a pattern that cannot be one.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Self::Market(name) => MarketName::new(name).map(drop).map_err(SpecError::Name),
            Self::Like(pattern) => {
                let sound = (1..=PATTERN_BYTES_MAX).contains(&pattern.len())
                    && !pattern.contains(|c: char| c.is_whitespace() || c.is_control());
                if sound { Ok(()) } else { Err(SpecError::Pattern) }
            }
            Self::All => Ok(()),
        }
    }

    /// Does a market of this name belong to it?
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Market(own) => &**own == name,
            Self::Like(pattern) => like(pattern.as_bytes(), name.as_bytes()),
            Self::All => true,
        }
    }
}

/// Greedy match with one way back, to the latest star. **Cost:** pattern times name at worst, no recursion.
fn like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

fn finite(field: &'static str, x: f64) -> Result<(), SpecError> {
    let negative_zero = x.to_bits() == (-0.0_f64).to_bits();
    if x.is_finite() && !negative_zero { Ok(()) } else { Err(SpecError::NotFinite { field }) }
}

fn positive(field: &'static str, x: f64) -> Result<(), SpecError> {
    finite(field, x)?;
    if x > 0.0 { Ok(()) } else { Err(SpecError::NotPositive { field }) }
}

fn window(window_ns: i64) -> Result<(), SpecError> {
    if (1..=WINDOW_NS_MAX).contains(&window_ns) { Ok(()) } else { Err(SpecError::Window) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, matches) in [
            ("*", "", true),
            ("*", "a", true),
            ("binance-*", "binance-spot:BTCUSDT", true),
            ("binance-*", "kraken:BTC", false),
            ("*USDT", "binance-spot:BTCUSDT", true),
            ("*USDT", "binance-spot:BTCUSD", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a**b", "ab", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "ä", false),
            ("*:{BTC}*", "binance-spot:{BTC}USDT", true),
        ] {
            assert_eq!(Scope::Like(pattern.into()).matches(name), matches, "{pattern} against {name}");
        }
    }

    #[test]
    fn a_bad_spec_is_refused_by_name() {
        let spread = |a: &str, b: &str, least, signed| {
            Spec::Spread(Box::new(Spread { a: a.into(), b: b.into(), least, signed }))
        };
        for (spec, error) in [
            (Spec::Above(f64::NAN), SpecError::NotFinite { field: "price" }),
            (Spec::Below(-0.0), SpecError::NotFinite { field: "price" }),
            (Spec::Enters { low: 2.0, high: 1.0 }, SpecError::EmptyRange),
            (Spec::Leaves { low: 2.0, high: f64::INFINITY }, SpecError::NotFinite { field: "high" }),
            (Spec::Move { least: 0.0, window_ns: 1 }, SpecError::NotPositive { field: "move" }),
            (Spec::Move { least: 0.1, window_ns: 0 }, SpecError::Window),
            (Spec::Volume { least: 1.0, window_ns: WINDOW_NS_MAX + 1 }, SpecError::Window),
            (spread("a", "a", 1.0, false), SpecError::OneMarket),
            (spread("a", "b", 0.0, false), SpecError::NotPositive { field: "spread" }),
            (spread("a", "", 1.0, false), SpecError::Name(NameError::Empty)),
        ] {
            assert_eq!(spec.check(), Err(error));
        }
        assert_eq!(spread("a", "b", -1.0, true).check(), Ok(()));
        assert_eq!(Scope::Like("a b".into()).check(), Err(SpecError::Pattern));
    }
}
