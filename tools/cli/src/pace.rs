//! How fast a file is replayed: as fast as it goes, or by its received times.
//!
//! ```text
//!   received_time_ns - first  /  factor   =  when a row is due, from the start of the replay
//! ```
//!
//! Rows that are due go together, so that a slow host falls behind in time and not in number. Deliberately absent:
//! clocks; how much time has passed is an argument.

use std::str::FromStr;
use std::time::Duration;

/// What `--speed` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as it goes.
    Max,
    /// So many times as fast as it was.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let factor = text.strip_suffix('x').and_then(|number| number.parse::<f64>().ok());
        factor
            .filter(|factor| factor.is_finite() && *factor > 0.0)
            .map(Self::Times)
            .ok_or_else(|| "say max, or a factor as in 1x, 10x, 0.5x".to_owned())
    }
}

/// The plan of one replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    speed: Speed,
    first_ns: Option<i64>,
}

/// Rows that are due within this go together.
const TOGETHER: Duration = Duration::from_millis(1);

impl Pace {
    pub(crate) const fn new(speed: Speed) -> Self {
        Self { speed, first_ns: None }
    }

    /// How many of these rows are due after `elapsed`, and when the next one is if none are.
    pub(crate) fn due(&mut self, received_ns: &[i64], elapsed: Duration) -> (usize, Duration) {
        let (Speed::Times(factor), Some(first)) = (self.speed, received_ns.first()) else {
            return (received_ns.len(), Duration::ZERO);
        };
        let start = *self.first_ns.get_or_insert(*first);
        let at = |ns: i64| Duration::from_nanos((ns.saturating_sub(start).max(0) as f64 / factor) as u64);
        let due = received_ns.iter().take_while(|ns| at(**ns) <= elapsed + TOGETHER).count();
        (due, at(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_by_their_received_time_divided_by_the_speed() {
        let ms = |ms: u64| Duration::from_millis(ms);
        let received: Vec<i64> = [1000, 1000, 1100, 1050, 2000].iter().map(|ms| ms * 1_000_000).collect();
        let mut pace = Pace::new("10x".parse().unwrap());
        assert_eq!(pace.due(&received, ms(0)), (2, ms(0)));
        assert_eq!(pace.due(&received[2..], ms(5)), (0, ms(10)));
        // A row that came out of order goes with the one before it.
        assert_eq!(pace.due(&received[2..], ms(10)), (2, ms(10)));
        assert_eq!(pace.due(&received[4..], ms(50)), (0, ms(100)));
        assert_eq!(Pace::new(Speed::Max).due(&received, ms(0)).0, 5);
        for bad in ["10", "x", "-1x", "0x", "fast"] {
            assert!(bad.parse::<Speed>().is_err());
        }
    }
}
