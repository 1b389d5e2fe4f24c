//! Bugs that can be switched on, one at a time, to prove that the tests would see them.
//!
//! Without the feature `planted` the question [`is`] is the constant `false` and nothing of this is in the program.
//! The switch is per thread, so that tests run side by side. Deliberately absent: any way to switch one on from outside.

/// A mistake that a write-ahead log has been seen to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Recovery takes damage below the watermark for a torn tail, and cuts.
    CutTheMiddle,
    /// A record claims that what its own batch wrote before it is durable.
    WatermarkAhead,
    /// The sync answers before its last write is durable.
    AckBeforeSync,
    /// A record of an earlier use of the segment verifies.
    NoEpochInCrc,
    /// Every opening of the log has the same incarnation: what lies behind a cut may chain on.
    NoIncarnation,
    /// A roll writes the new segment's records before its header.
    HeaderAfterRecords,
    /// A payload's checksum is not looked at.
    NoPayloadCrc,
    /// After a failed write the next one is tried as if nothing had happened.
    SyncRetried,
    /// A segment is used again while a reader holds it.
    RecycleWhileRead,
    /// The hard state has one copy, overwritten in place.
    OneHardState,
    /// A record that was cut keeps its header: a later torn write may complete it.
    NoScrub,
    /// Recovery ends at the first bad place without looking at what follows it.
    NoLookBehindTheCut,
    /// Recovery does not mind segments that are not there.
    NoEpochGapCheck,
    /// A slot whose preparation failed at a sync is prepared again under the same name.
    SlotTriedAgain,
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub(crate) fn is(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// Runs `body` with the bug switched on in this thread, also if it panics.
    pub fn with<T>(bug: Option<Bug>, body: impl FnOnce() -> T) -> T {
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                ON.set(None);
            }
        }
        let _off = Off;
        ON.set(bug);
        body()
    }
}

#[cfg(feature = "planted")]
pub(crate) use switch::is;
#[cfg(feature = "planted")]
pub use switch::with;

/// Whether the bug is switched on: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
