//! Bugs that can be switched on, one at a time, to prove that the tests would see them.
//!
//! Outside of the tests of this crate the question [`is`] is the constant `false` and nothing of this is in the program.
//! The switch is per thread, so that tests run side by side. What the log may do wrong is planted in `storage/wal`, what a
//! merge over shards may do wrong in `confluence/tests.rs`. Deliberately absent: any way to switch one on from outside.

/// A mistake that breaks a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// P1: the ack leaves when the request is appended.
    AckBeforeSync,
    /// A request that is repeated is executed again.
    RepeatExecuted,
    /// A moment ahead is answered, and nothing keeps rows from being stamped below it.
    MomentNotClosed,
    /// A row that is there already is stored again.
    DuplicateStored,
    /// P6: of a frame with a bad row the good ones are stored.
    HalfAFrame,
    /// P3: a moment below the horizon is answered with the rows that are left.
    ShortBelowHorizon,
    /// P4: the firing behind a full page is passed over.
    PageCutLoses,
    /// P4: who comes from history is live from the newest firing on, not from where it was.
    LiveFromTheEnd,
    /// P4: what is left of a place in history when the page is full is forgotten.
    HistoryForgetsTheRest,
    /// P4: who comes back is told again what stands at its place.
    ResumeRepeats,
    /// A tail that comes from history passes over the first entry at hand.
    TailSkipsAtTheSeam,
    /// One row more goes than a policy lets go.
    DropsOneTooMany,
}

#[cfg(test)]
pub use switch::{is, with};

/// Whether the bug is switched on: never.
#[cfg(not(test))]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub fn is(bug: Bug) -> bool {
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
