//! What numbers add up to, whoever added which part of them: in a block, on a shard, at a client.
//!
//! | file | what |
//! |---|---|
//! | `sum.rs` | sums of floats and of products, exact until they are rounded once |
//! | `totals.rs` | what rows come to: count, least and greatest price, sums; merged without a bit's difference |
//!
//! Deliberately absent: other crates of ours. Those who store rows and those who ask for them share this, and nothing else
//! of each other.
#![no_std]

extern crate alloc;

mod sum;
mod totals;

pub use sum::{ExactSum, Gather};
pub use totals::Totals;
