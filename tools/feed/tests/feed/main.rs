//! What a feed takes and refuses, format by format; what hostile bytes do to it; what a tape promises.
//!
//! `formats` is tables of text and rows, `campaign` mutates valid inputs, `tape` holds the generator to its word. The
//! real files have their own binary, because their tests may be skipped. Deliberately absent: timing.

#![expect(clippy::unwrap_used, reason = "in a test, also in its helpers, a failure is a panic")]

mod campaign;
mod formats;
mod tape;
