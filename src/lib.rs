//! What the appliance does: ticks come in, become durable facts, and fire the questions that wait for them.
//!
//! ```text
//!   main -> node -> one core thread each -> shard/driver -> shard (the journey of a tick) -> reflex
//!                \-> gateway (HTTP)                        storage, net: crates of their own
//! ```

pub mod at_rest;
pub mod config;
pub mod core_thread;
pub mod demo;
pub mod doctor;
pub mod endpoint;
pub mod gateway;
pub mod guard;
pub mod health;
pub mod identity;
pub mod line;
pub mod market;
pub mod node;
pub mod recovery;
pub mod reflex;
pub mod retention;
pub mod runtime;
pub mod settings;
pub mod shard;
pub mod stop;
pub mod upkeep;
