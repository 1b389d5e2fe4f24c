//! What the harness itself costs: ticks from the tape, into frames, with checksums; no socket.

use crate::args::{CostArgs, Output};
use crate::clock;
use crate::lane::{Lane, LaneSpec, frame_bytes};
use crate::recipe::Recipe;
use crate::say;
use crate::schedule::Schedule;
use anyhow::Result;
use myelin_datom::{EntityId, Slot};

const TICKS: u64 = 20_000_000;

/// Encodes, and never sends.
pub(crate) fn run(args: &CostArgs, output: Output) -> Result<u8> {
    let slot = Slot::of_name("cost");
    let recipe = Recipe {
        seed: 1,
        start_ns: clock::unix_ns(),
        step_ns: 1_000,
        shuffle: args.shuffle,
        id_base: 0,
        ids: (0..args.markets).map(|n| EntityId::market(slot, n)).collect(),
        markets: (0..args.markets as usize).collect(),
    };
    let window = ((1 << 20) / frame_bytes(args.batch)).clamp(2, 1024) as u32;
    let spec = LaneSpec { recipe, shard: 0, session: 1, batch: args.batch.max(1), window };
    let mut lane = Lane::new(spec, Schedule::endless());
    let frames = TICKS / u64::from(args.batch.max(1));
    let start_ns = clock::cpu_ns();
    for _ in 0..frames {
        lane.make();
    }
    let per_tick = (clock::cpu_ns() - start_ns) as f64 / (frames * u64::from(args.batch.max(1))) as f64;
    let batch = args.batch;
    say::figures(match output {
        Output::Json => format!("{{\"ns_per_tick\":{per_tick:.2},\"batch\":{batch}}}"),
        Output::Table => format!("{per_tick:.2} ns a tick to generate, encode and checksum frames of {batch}"),
    })?;
    Ok(0)
}
