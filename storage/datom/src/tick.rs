//! A tick and a quote: one cache line each, the same 64 bytes in the frame body, the log entry and the WAL.
//!
//! ```text
//!        0        8       16              24      32       40       48   49    50    52         56      60
//! tick   market | id    | event_time_ns | price | volume | trader | side|flags| zero | recv_delta | source | zero
//! quote  market | id    | event_time_ns | bid   | bid_vol| ask    | ask_volume       |            | source | recv_delta
//!                                                                   48 .. 56                        56       60
//! ```
//!
//! The shape is checked here, once, at admission ([`Tick::flaw`]); whatever depends on the database value (does the
//! market exist, is the id new) is decided in `apply`.

use crate::{EntityId, Instant};

/// **Units:** bytes of a tick or a quote.
pub const ROW_BYTES: usize = 64;

/// Bits of [`Tick::flags`].
pub mod flags {
    /// The exchange's time is not known; `event_time_ns` repeats the arrival.
    pub const EVENT_TIME_UNKNOWN: u8 = 1;
    /// This row corrects an earlier tick of the same id.
    pub const CORRECTION: u8 = 1 << 1;
    /// Every bit that means something.
    pub const ALL: u8 = EVENT_TIME_UNKNOWN | CORRECTION;
}

/// The aggressor's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Side {
    /// Not told.
    Unknown = 0,
    /// The buyer crossed.
    Buy = 1,
    /// The seller crossed.
    Sell = 2,
}

impl Side {
    /// The side with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Unknown),
            1 => Some(Self::Buy),
            2 => Some(Self::Sell),
            _ => None,
        }
    }
}

/// `received_delta_us` of a row whose arrival is unknown or more than 35 minutes from its event.
pub mod received_delta {
    /// Arrival unknown.
    pub const UNKNOWN: i32 = i32::MIN;

    /// Arrival minus event, if it fits. **Units:** both nanoseconds; gives microseconds, rounded down.
    #[must_use]
    pub fn between(event_time_ns: i64, received_time_ns: i64) -> i32 {
        match received_time_ns.checked_sub(event_time_ns).map(|ns| i32::try_from(ns.div_euclid(1000))) {
            Some(Ok(us)) if us != UNKNOWN => us,
            _ => UNKNOWN,
        }
    }
}

/// One trade. **Shape:** 64 bytes, little-endian, offsets as drawn above.
#[derive(
    Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[repr(C)]
pub struct Tick {
    /// A market that exists; decided in `apply`.
    pub market: EntityId,
    /// The source's id; 0 = the source has none.
    pub id: u64,
    /// The exchange's time. **Units:** Unix nanoseconds.
    pub event_time_ns: Instant,
    /// Finite, not -0.0, not negative unless the market is signed.
    pub price: f64,
    /// Finite, not -0.0, not negative.
    pub volume: f64,
    /// Entity id of the trader, [`EntityId::NONE`] unknown.
    pub trader: EntityId,
    /// 0 unknown, 1 buy, 2 sell.
    pub side: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Zero.
    pub zero_50: u16,
    /// Arrival minus event, see [`received_delta`]. **Units:** microseconds.
    pub received_delta_us: i32,
    /// The feed's ordinal in the system group, 0 unknown.
    pub source: u32,
    /// Zero.
    pub zero_60: u32,
}

/// One best bid and ask. **Shape:** 64 bytes, little-endian, offsets as drawn above.
#[derive(
    Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
#[repr(C)]
pub struct Quote {
    /// A market that exists; decided in `apply`.
    pub market: EntityId,
    /// The source's id; 0 = the source has none.
    pub id: u64,
    /// The exchange's time. **Units:** Unix nanoseconds.
    pub event_time_ns: Instant,
    /// Best bid.
    pub bid: f64,
    /// Volume at the best bid.
    pub bid_volume: f64,
    /// Best ask.
    pub ask: f64,
    /// Volume at the best ask.
    pub ask_volume: f64,
    /// The feed's ordinal in the system group, 0 unknown.
    pub source: u32,
    /// Arrival minus event, see [`received_delta`]. **Units:** microseconds.
    pub received_delta_us: i32,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(cfg!(target_endian = "little"), "the layouts are little-endian and used in place");
    assert!(size_of::<Tick>() == ROW_BYTES);
    assert!(offset_of!(Tick, market) == 0);
    assert!(offset_of!(Tick, id) == 8);
    assert!(offset_of!(Tick, event_time_ns) == 16);
    assert!(offset_of!(Tick, price) == 24);
    assert!(offset_of!(Tick, volume) == 32);
    assert!(offset_of!(Tick, trader) == 40);
    assert!(offset_of!(Tick, side) == 48);
    assert!(offset_of!(Tick, flags) == 49);
    assert!(offset_of!(Tick, zero_50) == 50);
    assert!(offset_of!(Tick, received_delta_us) == 52);
    assert!(offset_of!(Tick, source) == 56);
    assert!(offset_of!(Tick, zero_60) == 60);
    assert!(size_of::<Quote>() == ROW_BYTES);
    assert!(offset_of!(Quote, bid) == 24);
    assert!(offset_of!(Quote, bid_volume) == 32);
    assert!(offset_of!(Quote, ask) == 40);
    assert!(offset_of!(Quote, ask_volume) == 48);
    assert!(offset_of!(Quote, source) == 56);
    assert!(offset_of!(Quote, received_delta_us) == 60);
};

/// What no database value could make right about a row: the field and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flaw {
    /// `market` is not the id of a market.
    MarketKind = 1,
    /// `price`, `bid` or `ask` is NaN or infinite.
    PriceNotFinite = 2,
    /// `price`, `bid` or `ask` is -0.0.
    PriceNegativeZero = 3,
    /// A volume is NaN or infinite.
    VolumeNotFinite = 4,
    /// A volume is negative or -0.0.
    VolumeNegative = 5,
    /// `side` is above 2.
    Side = 6,
    /// `flags` has a bit without a meaning.
    Flags = 7,
    /// A reserved byte is not zero.
    Reserved = 8,
    /// A correction without an id corrects nothing.
    CorrectionWithoutId = 9,
}

impl Flaw {
    /// The sentence for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MarketKind => "market is not the id of a market",
            Self::PriceNotFinite => "price is not a finite number",
            Self::PriceNegativeZero => "price is negative zero",
            Self::VolumeNotFinite => "volume is not a finite number",
            Self::VolumeNegative => "volume is negative",
            Self::Side => "side is not 0, 1 or 2",
            Self::Flags => "flags has a bit that means nothing",
            Self::Reserved => "a reserved byte is not zero",
            Self::CorrectionWithoutId => "a correction carries no id",
        }
    }
}

const MARKET_BITS: u64 = EntityId::market_kind_bits();

impl EntityId {
    /// Bits 63..60 of every market id.
    const fn market_kind_bits() -> u64 {
        (crate::Kind::Market as u64) << 60
    }
}

fn price_flaw(price: f64) -> Option<Flaw> {
    if !price.is_finite() {
        return Some(Flaw::PriceNotFinite);
    }
    if price.to_bits() == (-0.0_f64).to_bits() {
        return Some(Flaw::PriceNegativeZero);
    }
    None
}

fn volume_flaw(volume: f64) -> Option<Flaw> {
    if !volume.is_finite() {
        return Some(Flaw::VolumeNotFinite);
    }
    if volume.is_sign_negative() {
        return Some(Flaw::VolumeNegative);
    }
    None
}

fn market_flaw(market: EntityId) -> Option<Flaw> {
    let bits = market.bits();
    if bits & 0xf000_0000_0fff_ffff == MARKET_BITS { None } else { Some(Flaw::MarketKind) }
}

/// What ticks and quotes have in common, so that one path serves both.
pub trait Row: bytemuck::Pod {
    /// The first thing that is wrong with its shape, in field order. A negative price is not a flaw of shape: whether
    /// the market is signed is decided in `apply`.
    fn flaw(&self) -> Option<Flaw>;
    /// The market it belongs to.
    fn market(&self) -> EntityId;
    /// The source's id, 0 if it has none.
    fn id(&self) -> u64;
    /// True when it asks to replace an earlier row of the same id.
    fn is_correction(&self) -> bool;
    /// True when a price is below zero.
    fn has_negative_price(&self) -> bool;
}

impl Row for Tick {
    #[inline]
    fn flaw(&self) -> Option<Flaw> {
        // One branch for the common case: every test folded into one bit, the reasons looked up only for a bad row.
        let sound = (self.market.bits() & 0xf000_0000_0fff_ffff == MARKET_BITS)
            & self.price.is_finite()
            & (self.price.to_bits() != (-0.0_f64).to_bits())
            & self.volume.is_finite()
            & self.volume.is_sign_positive()
            & (self.side <= 2)
            & (self.flags <= flags::EVENT_TIME_UNKNOWN)
            & (self.zero_50 == 0)
            & (self.zero_60 == 0);
        if sound { None } else { self.flaw_by_name() }
    }

    #[inline]
    fn market(&self) -> EntityId {
        self.market
    }

    #[inline]
    fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    fn is_correction(&self) -> bool {
        self.flags & flags::CORRECTION != 0
    }

    #[inline]
    fn has_negative_price(&self) -> bool {
        self.price < 0.0
    }
}

impl Tick {
    #[cold]
    fn flaw_by_name(&self) -> Option<Flaw> {
        market_flaw(self.market)
            .or_else(|| price_flaw(self.price))
            .or_else(|| volume_flaw(self.volume))
            .or_else(|| Side::from_number(self.side).is_none().then_some(Flaw::Side))
            .or_else(|| (self.flags & !flags::ALL != 0).then_some(Flaw::Flags))
            .or_else(|| (self.zero_50 != 0 || self.zero_60 != 0).then_some(Flaw::Reserved))
            .or_else(|| (self.is_correction() && self.id == 0).then_some(Flaw::CorrectionWithoutId))
    }
}

impl Row for Quote {
    #[inline]
    fn flaw(&self) -> Option<Flaw> {
        market_flaw(self.market)
            .or_else(|| price_flaw(self.bid))
            .or_else(|| price_flaw(self.ask))
            .or_else(|| volume_flaw(self.bid_volume))
            .or_else(|| volume_flaw(self.ask_volume))
    }

    #[inline]
    fn market(&self) -> EntityId {
        self.market
    }

    #[inline]
    fn id(&self) -> u64 {
        self.id
    }

    #[inline]
    fn is_correction(&self) -> bool {
        false
    }

    #[inline]
    fn has_negative_price(&self) -> bool {
        self.bid < 0.0 || self.ask < 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    fn tick() -> Tick {
        Tick {
            market: EntityId::market(Slot::new(7).unwrap(), 3),
            id: 1,
            event_time_ns: 0,
            price: 0.5,
            volume: 1.0,
            trader: EntityId::NONE,
            side: 1,
            flags: 0,
            zero_50: 0,
            received_delta_us: received_delta::UNKNOWN,
            source: 0,
            zero_60: 0,
        }
    }

    #[test]
    fn every_flaw_of_a_tick_is_told_by_name() {
        let sound = tick();
        assert_eq!(sound.flaw(), None);
        let rows: [(Tick, Flaw); 14] = [
            (Tick { market: EntityId::NONE, ..sound }, Flaw::MarketKind),
            (Tick { market: EntityId::from_bits(sound.market.bits() | 1), ..sound }, Flaw::MarketKind),
            (Tick { price: f64::NAN, ..sound }, Flaw::PriceNotFinite),
            (Tick { price: f64::INFINITY, ..sound }, Flaw::PriceNotFinite),
            (Tick { price: -0.0, ..sound }, Flaw::PriceNegativeZero),
            (Tick { volume: f64::NEG_INFINITY, ..sound }, Flaw::VolumeNotFinite),
            (Tick { volume: f64::NAN, ..sound }, Flaw::VolumeNotFinite),
            (Tick { volume: -1.0, ..sound }, Flaw::VolumeNegative),
            (Tick { volume: -0.0, ..sound }, Flaw::VolumeNegative),
            (Tick { side: 3, ..sound }, Flaw::Side),
            (Tick { flags: 4, ..sound }, Flaw::Flags),
            (Tick { zero_50: 1, ..sound }, Flaw::Reserved),
            (Tick { zero_60: 1, ..sound }, Flaw::Reserved),
            (Tick { flags: flags::CORRECTION, id: 0, ..sound }, Flaw::CorrectionWithoutId),
        ];
        for (row, flaw) in rows {
            assert_eq!(row.flaw(), Some(flaw));
        }
        assert_eq!(Tick { flags: flags::ALL, ..sound }.flaw(), None);
    }

    #[test]
    fn an_arrival_that_does_not_fit_is_unknown() {
        assert_eq!(received_delta::between(1_000_000, 3_000_000), 2_000);
        assert_eq!(received_delta::between(3_000_000, 1_000_001), -2_000);
        assert_eq!(received_delta::between(0, 36 * 60 * 1_000_000_000), received_delta::UNKNOWN);
        assert_eq!(received_delta::between(i64::MIN, i64::MAX), received_delta::UNKNOWN);
    }

    #[test]
    fn a_tick_is_its_bytes() {
        let row = tick();
        let bytes: [u8; ROW_BYTES] = bytemuck::cast(row);
        assert_eq!(bytes[8], 1);
        assert_eq!(bytes[48], 1);
        assert_eq!(bytemuck::cast::<_, Tick>(bytes), row);
    }
}
