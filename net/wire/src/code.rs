//! Why something was refused: one number each, given once and never reused.
//!
//! A refusal is a value, not an error: it is counted by code and answered. `myelin explain CODE` prints the long form. What
//! only HTTP can say has a name and no number: [`HttpCode`].

use myelin_datom::Flaw;
use std::time::Duration;

/// What every code can say of itself, with a number or without.
macro_rules! told {
    ($code:ident: $($(#[doc = $doc:literal])* $variant:ident, $name:literal, $status:literal;)*) => {
        impl $code {
            /// Every one, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name, as in JSON and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status this refusal has on the gateway.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means and what to do, for people.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*),)* }
            }
        }
    };
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, $name:literal, $status:literal;)*) => {
        /// A refusal's stable number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])* $variant = $number,)* }

        impl Code {
            /// The code with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Whether nothing was done, and the same request may well be done a little later.
            #[must_use]
            pub const fn passes(self) -> bool {
                self.again_after(0).is_some()
            }

            /// How long to wait before the same request is sent again, where nothing was done and that may help: `Busy` and
            /// `NoSpace` say it in their `aux` (microseconds, taken as 1 ms to 1 s).
            #[must_use]
            pub const fn again_after(self, aux: u64) -> Option<Duration> {
                match self {
                    Self::Busy | Self::NoSpace if aux < 1_000 => Some(Duration::from_millis(1)),
                    Self::Busy | Self::NoSpace if aux > 1_000_000 => Some(Duration::from_secs(1)),
                    Self::Busy | Self::NoSpace => Some(Duration::from_micros(aux)),
                    Self::NotLeader | Self::Stopping => Some(Duration::from_millis(20)),
                    _ => None,
                }
            }
        }

        told! { Code: $($(#[doc = $doc])* $variant, $name, $status;)* }
    };
}

codes! {
    /// The bytes are no frame: wrong magic or a checksum that does not fit. The connection is closed.
    BadFrame = 1, "bad_frame", 400;
    /// The frame's version is not spoken here. The connection is closed.
    WrongVersion = 2, "wrong_version", 400;
    /// The frame is longer than the limit in the welcome. The connection is closed.
    Oversize = 3, "oversize", 413;
    /// The frame's kind is not known here.
    UnknownKind = 4, "unknown_kind", 400;
    /// The body does not have the shape its kind demands.
    BadBody = 5, "bad_body", 400;
    /// A hello must come first, once.
    HelloExpected = 6, "hello_expected", 400;
    /// A row's market is not the id of a market.
    MarketKind = 11, "market_kind", 422;
    /// A row's price is not a finite number.
    PriceNotFinite = 12, "price_not_finite", 422;
    /// A row's price is negative zero.
    PriceNegativeZero = 13, "price_negative_zero", 422;
    /// A row's volume is not a finite number.
    VolumeNotFinite = 14, "volume_not_finite", 422;
    /// A row's volume is negative.
    VolumeNegative = 15, "volume_negative", 422;
    /// A row's side is not 0, 1 or 2.
    Side = 16, "side", 422;
    /// A row's flags have a bit that means nothing.
    Flags = 17, "flags", 422;
    /// A row's reserved byte is not zero.
    Reserved = 18, "reserved", 422;
    /// A correction carries no id, so there is nothing it could correct.
    CorrectionWithoutId = 19, "correction_without_id", 422;
    /// The market does not exist: create it first (`market add`).
    UnknownMarket = 30, "unknown_market", 422;
    /// The id is known with other bytes; send a correction if that is meant (flag bit 1, `corrects` in JSON and CSV).
    IdConflict = 31, "id_conflict", 409;
    /// The id lies below what is still retained, and the market's ids ascend.
    TooOld = 32, "too_old", 422;
    /// A negative price on a market that was not declared signed.
    NegativePrice = 33, "negative_price", 422;
    /// A correction names an id that was never seen.
    NothingToCorrect = 34, "nothing_to_correct", 422;
    /// A market's name is empty, longer than 200 bytes, or has white space in it.
    BadName = 35, "bad_name", 422;
    /// The market lives on another shard: split by the slot table of the welcome.
    WrongShard = 36, "wrong_shard", 422;
    /// A bound of this node is reached (markets, reflexes, sessions, subscriptions, reflexes that a history is asked of at once).
    TooMany = 37, "too_many", 422;
    /// The node is behind: wait `retry_after`, then say from which request you resume.
    Busy = 40, "busy", 429;
    /// Another node leads this shard.
    NotLeader = 41, "not_leader", 503;
    /// The session was evicted or never seen: its outcomes are unknown here. Nothing was executed.
    SessionExpired = 42, "session_expired", 409;
    /// A request number was skipped.
    SessionGap = 43, "session_gap", 409;
    /// The request is too old for its outcome to be still known. It was executed once.
    OutcomeForgotten = 44, "outcome_forgotten", 409;
    /// The shard stopped, because its storage failed: `/readyz` says why. A write that was under way may be there after a restart, or not: send it again then, with its ids.
    Unavailable = 45, "unavailable", 503;
    /// The node's disk has no room for what is written: free some, and it goes on by itself. Reads are served. Wait `retry_after`, then say from which request you resume.
    NoSpace = 46, "no_space", 507;
    /// The moment asked for lies further ahead than clocks may differ.
    Future = 50, "future", 422;
    /// The moment asked for lies below what is retained: an answer would be short.
    BelowHorizon = 51, "below_horizon", 422;
    /// No attribute of this name.
    UnknownAttribute = 52, "unknown_attribute", 422;
    /// No reflex of this id.
    UnknownReflex = 53, "unknown_reflex", 422;
    /// The reflex cannot be read, is out of its bounds, or its id is 0.
    BadReflex = 54, "bad_reflex", 422;
    /// The subscriber's position lies below what is retained; the oldest one that can be served is told.
    Compacted = 55, "compacted", 409;
    /// The policy cannot be read: kinds, what is kept, or its number are out of their bounds.
    BadPolicy = 56, "bad_policy", 422;
    /// The id has another question already: list the reflexes, or take another id.
    ReflexConflict = 57, "reflex_conflict", 409;
    /// The node stops: connect again.
    Stopping = 60, "stopping", 503;
    /// An op of a transaction cannot be read, or its value is one that nothing may be (NaN, -0.0, too long).
    BadFact = 70, "bad_fact", 422;
    /// An op names an entity that does not exist: an id never given out, an ident or lookup that finds nobody.
    NoEntity = 71, "no_entity", 422;
    /// A value is of another type than its attribute's.
    ValueType = 72, "value_type", 422;
    /// A value is outside of what its attribute allows (db/min, db/max, db/one-of, db/pattern).
    CheckFailed = 73, "check_failed", 422;
    /// A value of a unique attribute belongs to another entity.
    NotUnique = 74, "not_unique", 409;
    /// A compare-and-set found another value than the expected one: read again and decide anew.
    CompareFailed = 75, "compare_failed", 409;
    /// The schema cannot become that: it is unsound, old data stands against it, or only the node states it.
    SchemaForbidden = 76, "schema_forbidden", 409;
    /// Two ops of the transaction contradict each other.
    Contradiction = 77, "contradiction", 422;
    /// The transaction would store more datoms than one may, its cascades included: split it.
    TooLarge = 78, "too_large", 422;
    /// The entity is of another partition than the transaction.
    OtherPartition = 79, "other_partition", 422;
    /// The attribute has no index by value (db/index, db/unique).
    NotIndexed = 80, "not_indexed", 422;
    /// The hello, or a frame that began, was not whole in time: the connection is closed. Send frames in one go.
    TooSlow = 90, "too_slow", 408;
    /// The node wants its token, and the hello (over HTTP, the bearer token) did not show it: name it with `--token-file`.
    Unauthorized = 91, "unauthorized", 401;
}

macro_rules! http_codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// A refusal that only HTTP knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum HttpCode { $($(#[doc = $doc])* $variant,)* }

        told! { HttpCode: $($(#[doc = $doc])* $variant, $name, $status;)* }
    };
}

http_codes! {
    /// A parameter of the query cannot be read, or is not known: the message names it.
    BadQuery = "bad_query", 400;
    /// There is no such route: `net/README.md` has the table of all.
    NotFound = "not_found", 404;
    /// The route has another method.
    WrongMethod = "wrong_method", 405;
    /// The body came too slowly: at least 64 KiB a second, after 3 s of grace.
    BodyTimeout = "body_timeout", 408;
    /// The body's type or packing is not read here: JSON, NDJSON or raw ticks, plain or as zstd.
    UnsupportedMedia = "unsupported_media", 415;
    /// The node is not serving yet, or its answer did not come in time: `/readyz` says why. Come back.
    NotServing = "not_serving", 503;
    /// Nobody knows whether it was done: send it again, rows with ids are not stored twice.
    UnknownOutcome = "unknown_outcome", 503;
    /// A watcher did not take its events, and was cut: watch again from the last position.
    SlowConsumer = "slow_consumer", 408;
}

impl From<Flaw> for Code {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::MarketKind => Self::MarketKind,
            Flaw::PriceNotFinite => Self::PriceNotFinite,
            Flaw::PriceNegativeZero => Self::PriceNegativeZero,
            Flaw::VolumeNotFinite => Self::VolumeNotFinite,
            Flaw::VolumeNegative => Self::VolumeNegative,
            Flaw::Side => Self::Side,
            Flaw::Flags => Self::Flags,
            Flaw::Reserved => Self::Reserved,
            Flaw::CorrectionWithoutId => Self::CorrectionWithoutId,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_and_has_a_name_of_its_own() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.extend(HttpCode::ALL.iter().map(|code| code.name()));
        assert!(HttpCode::ALL.iter().all(|code| code.explanation().len() > 20 && code.http_status() >= 400));
        for code in Code::ALL {
            assert_eq!(Code::from_number(*code as u16), Some(*code));
            assert!(code.explanation().len() > 20);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len() + HttpCode::ALL.len());
    }
}
