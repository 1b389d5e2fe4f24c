//! Creates a market, sends a tick, counts: `cargo run -p myelin-client --example count` beside a node.

use myelin_client::datom::Tick;
use myelin_client::wire::{Attribute, MarketFlags, MarketSpec};
use myelin_client::{At, Client, Mode, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::connect("127.0.0.1:7400", Options::default()).await?;
    let ids = client.markets(&[MarketSpec { flags: MarketFlags(0), name: "example:BTCUSD" }]).await?;
    let zero: Tick = bytemuck::Zeroable::zeroed();
    let tick = Tick { market: ids[0], id: 1, price: 61_000.0, volume: 0.5, ..zero };
    for part in client.ticks(&[tick], Mode::Whole).await? {
        println!("{part:?}");
    }
    let count = client.count(Attribute::Tick, None, At::NOW).await?;
    println!("{} ticks as of {}", count.value, count.basis);
    Ok(())
}
