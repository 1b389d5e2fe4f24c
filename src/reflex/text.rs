//! Specs and scopes as people write them.
//!
//! ```text
//!   above 61000          enters 0.4..0.6     move 2% in 5m        spread A B 5        |a - b| >= 5
//!   below 0.5            leaves 0.4..0.6     volume 100 in 60s    spread A over B 5    a - b  >= 5
//!   gap                                      move 0.02 in 5m
//!   market:NAME          like:binance-*      all
//! ```
//!
//! Invariants: what is printed parses to the same value, bit for bit (a move is in percent where that is exact);
//! a duration has a unit, always: a bare number where a time is expected is refused. Deliberately absent: two ways to
//! say one thing, but for percent and fraction.

use super::spec::{Scope, Spec, SpecError, Spread};
use myelin_datom::{Length, read_length};
use std::fmt;
use std::str::FromStr;

/// Why a text is no spec or scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The first word names no kind.
    #[error("'{0}' is no question: say above, below, enters, leaves, move, volume, spread or gap")]
    Kind(String),
    /// The words after it do not fit.
    #[error("write it as: {0}")]
    Form(&'static str),
    /// Not a number.
    #[error("'{0}' is not a number")]
    Number(String),
    /// Not a duration.
    #[error("'{0}' is not a duration: write a whole number with ns, us, ms, s, m, h or d")]
    Duration(String),
    /// Not a scope.
    #[error("'{0}' is no scope: say market:NAME, like:PATTERN or all")]
    Scope(String),
    /// Well formed, and no question.
    #[error("{0}")]
    Spec(#[from] SpecError),
}

impl FromStr for Spec {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let spec = match &words[..] {
            ["above", x] => Self::Above(number(x)?),
            ["below", x] => Self::Below(number(x)?),
            ["enters", text] => {
                let (low, high) = range(text, "enters LOW..HIGH")?;
                Self::Enters { low, high }
            }
            ["leaves", text] => {
                let (low, high) = range(text, "leaves LOW..HIGH")?;
                Self::Leaves { low, high }
            }
            ["move", least, "in", window] => Self::Move { least: fraction(least)?, window_ns: duration(window)? },
            ["volume", least, "in", window] => Self::Volume { least: number(least)?, window_ns: duration(window)? },
            ["spread", a, b, least] => spread(a, b, least, false)?,
            ["spread", a, "over", b, least] => spread(a, b, least, true)?,
            ["gap"] => Self::Gap,
            ["above", ..] => return Err(TextError::Form("above PRICE")),
            ["below", ..] => return Err(TextError::Form("below PRICE")),
            ["enters", ..] => return Err(TextError::Form("enters LOW..HIGH")),
            ["leaves", ..] => return Err(TextError::Form("leaves LOW..HIGH")),
            ["move", ..] => return Err(TextError::Form("move PERCENT% in DURATION")),
            ["volume", ..] => return Err(TextError::Form("volume AMOUNT in DURATION")),
            ["spread", ..] => return Err(TextError::Form("spread A B DISTANCE, or spread A over B AMOUNT")),
            ["gap", ..] => return Err(TextError::Form("gap")),
            [other, ..] => return Err(TextError::Kind((*other).to_owned())),
            [] => return Err(TextError::Kind(String::new())),
        };
        spec.check()?;
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().as_str();
        match self {
            Self::Above(x) | Self::Below(x) => write!(f, "{kind} {x}"),
            Self::Enters { low, high } | Self::Leaves { low, high } => write!(f, "{kind} {low}..{high}"),
            Self::Move { least, window_ns } => {
                let percent = least * 100.0;
                if percent / 100.0 == *least {
                    write!(f, "{kind} {percent}% in {}", Length(window_ns.unsigned_abs()))
                } else {
                    write!(f, "{kind} {least} in {}", Length(window_ns.unsigned_abs()))
                }
            }
            Self::Volume { least, window_ns } => write!(f, "{kind} {least} in {}", Length(window_ns.unsigned_abs())),
            Self::Spread(spread) => {
                let Spread { a, b, least, signed } = &**spread;
                write!(f, "{kind} {a}{} {b} {least}", if *signed { " over" } else { "" })
            }
            Self::Gap => f.write_str(kind),
        }
    }
}

impl FromStr for Scope {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        let scope = match text.split_once(':') {
            Some(("market", name)) => Self::Market(name.into()),
            Some(("like", pattern)) => Self::Like(pattern.into()),
            None if text == "all" => Self::All,
            _ => return Err(TextError::Scope(text.to_owned())),
        };
        scope.check()?;
        Ok(scope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Market(name) => write!(f, "market:{name}"),
            Self::Like(pattern) => write!(f, "like:{pattern}"),
            Self::All => f.write_str("all"),
        }
    }
}

fn duration(text: &str) -> Result<i64, TextError> {
    let ns = read_length(text).and_then(|ns| i64::try_from(ns).ok());
    ns.ok_or_else(|| TextError::Duration(text.to_owned()))
}

fn number(text: &str) -> Result<f64, TextError> {
    // Adding zero makes -0 the 0 that was meant.
    text.parse::<f64>().map(|x| x + 0.0).map_err(|_| TextError::Number(text.to_owned()))
}

fn fraction(text: &str) -> Result<f64, TextError> {
    match text.strip_suffix('%') {
        Some(percent) => Ok(number(percent)? / 100.0),
        None => number(text),
    }
}

fn range(text: &str, form: &'static str) -> Result<(f64, f64), TextError> {
    let (low, high) = text.split_once("..").ok_or(TextError::Form(form))?;
    Ok((number(low)?, number(high)?))
}

fn spread(a: &str, b: &str, least: &str, signed: bool) -> Result<Spec, TextError> {
    Ok(Spec::Spread(Box::new(Spread { a: a.into(), b: b.into(), least: number(least)?, signed })))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{scopes, specs};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(spec in specs(), scope in scopes()) {
            prop_assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
            prop_assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "[a-z0-9. %:-]{0,40}|(move|volume|spread|enters) .{0,20}") {
            let _ = text.parse::<Spec>();
            let _ = text.parse::<Scope>();
        }
    }

    #[test]
    fn people_write_it_like_this() {
        for (text, printed) in [
            ("above 61000", "above 61000"),
            ("  below\t6.1e4 ", "below 61000"),
            ("above -0", "above 0"),
            ("enters 0.4..0.6", "enters 0.4..0.6"),
            ("leaves -5..-1", "leaves -5..-1"),
            ("move 2% in 5m", "move 2% in 5m"),
            ("move 0.02 in 300s", "move 2% in 5m"),
            ("volume 100 in 60s", "volume 100 in 1m"),
            ("volume 0.5 in 1500ms", "volume 0.5 in 1500ms"),
            ("spread A B 5", "spread A B 5"),
            ("spread A over B -5", "spread A over B -5"),
            ("spread over B 5", "spread over B 5"),
            ("gap", "gap"),
        ] {
            assert_eq!(text.parse::<Spec>().map(|spec| spec.to_string()).as_deref(), Ok(printed));
        }
    }

    #[test]
    fn a_text_that_is_no_question_is_told_how_to_become_one() {
        for (text, error) in [
            ("", TextError::Kind(String::new())),
            ("over 5", TextError::Kind("over".into())),
            ("above", TextError::Form("above PRICE")),
            ("above x", TextError::Number("x".into())),
            ("above nan", TextError::Spec(SpecError::NotFinite { field: "price" })),
            ("enters 5", TextError::Form("enters LOW..HIGH")),
            ("enters 6..5", TextError::Spec(SpecError::EmptyRange)),
            ("move 2% in 300", TextError::Duration("300".into())),
            ("volume 1 in 99999999999999d", TextError::Duration("99999999999999d".into())),
            ("spread A A 5", TextError::Spec(SpecError::OneMarket)),
        ] {
            assert_eq!(text.parse::<Spec>(), Err(error));
        }
        assert_eq!("everything".parse::<Scope>(), Err(TextError::Scope("everything".into())));
        assert_eq!("like:".parse::<Scope>(), Err(TextError::Spec(SpecError::Pattern)));
    }
}
