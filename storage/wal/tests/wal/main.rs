//! Everything the log promises, proven on a disk that fails on request and on a real one. One binary.
//!
//! | file | proves |
//! |---|---|
//! | `basics.rs` | what the log does while nothing fails |
//! | `layout.rs` | every byte as the README draws it |
//! | `pitfalls.rs` | the known ways in which logs lose data, one named test each |
//! | `crash.rs` | crash states, enumerated: every cut, every subset of sectors, every flipped bit; histories from seeds |
//! | `fuzz.rs` | no bytes make recovery panic or invent a record |
//! | `planted.rs` | the checks above see the bugs they are for |
//! | `files.rs` | the same on real files |
//!
//! `MYELIN_CAMPAIGN` sets how many states each enumeration visits: 500 without it, 40,000 with `ci`, with `long` every
//! single one of the flipped bits; `MYELIN_WAL_STATES` sets any other number, of states and of mutations.

mod basics;
mod crash;
mod files;
mod fuzz;
mod harness;
mod layout;
mod pitfalls;
mod planted;
