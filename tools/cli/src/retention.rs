//! `retention set` and `retention list`.

use crate::args::{self, Common};
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all, maybe};
use clap::{Subcommand, ValueEnum};
use myelin_client::At;
use myelin_client::wire::RetainRow;
use myelin_said::{Kept, read_policy};
use std::collections::HashMap;

/// `retention`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rows {
    Tick,
    Quote,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Says what is kept of a market, or of all that have no policy of their own. What is not kept is dropped for good.
    Set {
        /// Of this market.
        #[arg(long, value_name = "NAME", required_unless_present = "all")]
        market: Option<String>,
        /// Of every market without a policy of its own.
        #[arg(long, conflicts_with = "market")]
        all: bool,
        /// Only of these rows; else of both.
        #[arg(long, value_enum)]
        kind: Option<Rows>,
        /// all · latest · last N (rows) · window LENGTH, as in 7d · default (no policy of the market's own)
        #[arg(required = true, num_args = 1..=2)]
        policy: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Lists what is kept, by policy and in fact.
    List {
        #[command(flatten)]
        common: Common,
    },
}

impl Line for Kept {
    const KEYS: &'static [&'static str] = &["market", "kind", "policy", "own", "kept", "dropped", "horizon"];
    fn cells(&self) -> Vec<String> {
        let counts = [self.kept, self.dropped].map(|number| number.to_string());
        let mut cells = vec![self.market.clone(), self.kind.to_owned(), self.policy.clone(), self.own.to_string()];
        cells.extend(counts);
        cells.push(maybe(self.horizon.as_ref()));
        cells
    }
}

/// Performs either.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::Set { market, all: _, kind, policy, common } => {
            let words: Vec<&str> = policy.iter().map(String::as_str).collect();
            let keep = read_policy(&words).map_err(Failure::usage)?;
            if keep.is_none() && market.is_none() {
                return Err(Failure::usage("`default` is for one market: name it with --market".to_owned()));
            }
            let kinds = match kind {
                Some(Rows::Tick) => RetainRow::TICKS,
                Some(Rows::Quote) => RetainRow::QUOTES,
                None => RetainRow::TICKS | RetainRow::QUOTES,
            };
            let client = common.connect().await?;
            let market = args::market_id(&client, market.as_deref()).await?;
            client.retain(market, kinds, keep).await?;
            list(&common, Some(market.map_or(0, |market| market.bits())), io).await?;
        }
        Form::List { common } => list(&common, None, io).await?,
    }
    Ok(Exit::Ok)
}

/// Prints what there is to say: of one market, or of all whose rows, or whose policy, there are.
async fn list(common: &Common, of: Option<u64>, io: &mut Io<'_>) -> Result<(), Failure> {
    let client = common.connect().await?;
    let policies = client.policies().await?;
    let markets = client.list_markets(At::NOW).await?;
    let names: HashMap<u64, String> = markets.into_iter().map(|market| (market.id.bits(), market.name)).collect();
    let lines = Kept::list(&policies, of, |id| names.get(&id).cloned());
    Ok(all(io, common.output, &lines)?)
}
