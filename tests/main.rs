//! How we know: the real binary, driven from outside, on the executor that `MYELIN_TEST_EXECUTOR` names.
//!
//! One module per promise. Tests own time, ports and disk: free ports, own folders, bounded waits for a condition, no
//! sleeps that hope.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]
#![expect(clippy::disallowed_methods, reason = "tests wait for conditions, with a bound that is real time")]

mod at_rest;
mod command_line;
mod durability;
mod facts;
mod faults;
mod gateway;
mod hostile;
mod journey;
mod long_reads;
mod node;
mod python_client;
mod real_data;
mod reflexes;
mod retention;
mod sessions;
mod spreads;
mod starting;
mod tail;
mod tls;
mod top;
