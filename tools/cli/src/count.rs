//! `count ATTRIBUTE`: exact, over all shards at one moment. The number and nothing else; `totals` says the moment too.

use crate::args::{self, Common, Format, Moment};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, one};
use myelin_client::wire::Attribute;
use serde::Serialize;
use std::io::Write;

/// What to count.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The attribute: tick/id, tick/price, quote/bid, market/id ..
    attribute: String,
    /// Only in this market.
    #[arg(long, value_name = "NAME")]
    market: Option<String>,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

impl Line for Count {
    const KEYS: &'static [&'static str] = &["count"];
    fn cells(&self) -> Vec<String> {
        vec![self.count.to_string()]
    }
}

/// Prints the number.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let attribute = attribute(&args.attribute)?;
    let client = args.common.connect().await?;
    let market = args::market_id(&client, args.market.as_deref()).await?;
    let answer = client.count(attribute, market, args.moment.into()).await?;
    match args.common.output {
        Format::Table => writeln!(io.out, "{}", answer.value)?,
        format => one(io, format, &Count { count: answer.value })?,
    }
    Ok(Exit::Ok)
}

fn attribute(name: &str) -> Result<Attribute, Failure> {
    Attribute::from_name(name).ok_or_else(|| {
        Failure::usage(format!("no attribute '{name}': try tick/id, tick/price, quote/id, quote/bid or market/id"))
    })
}
