//! `watch SPEC`: registers a standing question and prints what fires, as it fires.
//!
//! ```text
//!   register -> listen behind the registration's tx -> firings ... -> enough, or Ctrl-C -> remove (unless --id kept it)
//! ```
//!
//! Deliberately absent: the language of questions; the appliance reads it.

use crate::House;
use crate::args::{self, Common, Names, say_instant};
use crate::exit::{Exit, Failure, sends_no_more};
use crate::output::{Flow, Io, Line};
use myelin_client::datom::Tx;
use myelin_client::{Client, Firing, FiringPlace, News, Subscription};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// What to watch.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The question: above 61000 · below 0.5 · enters 0.4..0.6 · leaves 0.4..0.6 · move 2% in 5m · volume 100 in 60s ·
    /// spread A B 5 · gap. Without one, --id names a question that stands.
    #[arg(required_unless_present = "id", allow_negative_numbers = true)]
    spec: Vec<String>,
    /// Of this market.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["like", "all"])]
    market: Option<String>,
    /// Of all markets whose name fits, as in binance-*
    #[arg(long, value_name = "PATTERN", conflicts_with = "all")]
    like: Option<String>,
    /// Of all markets: the default.
    #[arg(long)]
    all: bool,
    /// The question's id. With it the question stays when this ends; else it is removed.
    #[arg(long)]
    id: Option<u64>,
    /// Asks history first, from behind this transaction on (0: from the first; refused where its rows were dropped), then goes on live without a gap.
    #[arg(long, value_name = "TX", value_parser = args::tx)]
    since: Option<Tx>,
    /// Ends after so many firings.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// A firing. The first columns are for people, see [`WIDTHS`]; programs get all.
#[derive(Serialize)]
struct Fired {
    market: String,
    kind: String,
    /// What was measured: the price, the move, the sum, the distance; a gap's first missing id as a string.
    value: Value,
    price: f64,
    tx: String,
    n: u32,
    /// From the frame's arrival at the node to the firing. **Units:** microseconds.
    received_to_fired_us: Option<f64>,
    /// From the firing to here, by two clocks if the hosts are two. **Units:** microseconds.
    fired_to_here_us: Option<f64>,
    /// What the value was measured against; a gap's last missing id as a string.
    basis: Value,
    volume: f64,
    event_time: String,
    reflex: String,
    shard: u16,
    replayed: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Id(String),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Number(number) if number.is_nan() => "-".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Id(id) => id.clone(),
        }
    }
}

impl Line for Fired {
    const KEYS: &'static [&'static str] = &[
        "market",
        "kind",
        "value",
        "price",
        "tx",
        "n",
        "received_to_fired_us",
        "fired_to_here_us",
        "basis",
        "volume",
        "event_time",
        "reflex",
        "shard",
        "replayed",
    ];

    fn cells(&self) -> Vec<String> {
        let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
        vec![
            self.market.clone(),
            self.kind.clone(),
            self.value.text(),
            self.price.to_string(),
            self.tx.clone(),
            self.n.to_string(),
            us(self.received_to_fired_us),
            us(self.fired_to_here_us),
            self.basis.text(),
            self.volume.to_string(),
            self.event_time.clone(),
            self.reflex.clone(),
            self.shard.to_string(),
            self.replayed.to_string(),
        ]
    }
}

/// Of the columns that a table has.
const WIDTHS: &[usize] = &[28, 6, 12, 12, 20, 4, 20, 16];
/// The kind whose values are ids and not numbers.
const GAP: u8 = 8;

/// Registers, listens, prints, removes.
pub(crate) async fn run(args: Args, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let registration = registration(&args, house)?;
    let client = args.common.connect().await?;
    if let Some(market) = &args.market {
        // A question about a market that does not exist would wait for it in silence.
        args::market(&client, market).await?;
    }
    let (id, after) = match registration {
        Some((id, bytes)) => (id, positions(&client.register(&bytes, 1).await?)),
        None => (args.id.unwrap_or_default(), Vec::new()),
    };
    if io.err_is_terminal {
        io.say(&format!("listening to reflex {id}; Ctrl-C ends"))?;
    }
    let watched = watch(&client, id, &after, &args, house, io).await;
    if args.id.is_none() {
        client.remove(&[id]).await?;
    }
    watched
}

/// The question's id and bytes, if one is to be registered.
fn registration(args: &Args, house: &House) -> Result<Option<(u64, Vec<u8>)>, Failure> {
    if args.spec.is_empty() {
        return Ok(None);
    }
    let scope = match (&args.market, &args.like) {
        (Some(name), _) => format!("market:{name}"),
        (None, Some(pattern)) => format!("like:{pattern}"),
        (None, None) => "all".to_owned(),
    };
    let id = args.id.unwrap_or_else(random);
    let bytes = (house.registration)(id, &args.spec.join(" "), &scope).map_err(Failure::usage)?;
    Ok(Some((id, bytes)))
}

fn positions(registered: &[(u16, Tx)]) -> Vec<(u16, FiringPlace)> {
    registered.iter().map(|(shard, tx)| (*shard, FiringPlace::behind_tx(*tx))).collect()
}

async fn watch(
    client: &Client,
    id: u64,
    after: &[(u16, FiringPlace)],
    args: &Args,
    house: &House,
    io: &mut Io<'_>,
) -> Result<Exit, Failure> {
    let mut subscription = match args.since {
        Some(since) => client.back_test(id, since).await?,
        None => client.subscribe(Some(id), after).await?,
    };
    let mut names = Names::new(client.clone());
    let mut flow = Flow::new(args.common.output, WIDTHS);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(news) = next(&mut subscription).await? else { break };
        match news {
            News::Firing(firing) => {
                let fired = fired(&firing, now_ns(), names.of(firing.row.tick.market.bits()).await?, house);
                flow.line(io, &fired)?;
                left -= 1;
            }
            News::Ended { shard, why } => return Err(sends_no_more(shard, &why)),
        }
    }
    Ok(Exit::Ok)
}

/// The next news, or nothing when Ctrl-C was pressed.
async fn next(subscription: &mut Subscription) -> Result<Option<News>, Failure> {
    tokio::select! {
        news = subscription.next() => Ok(news?),
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

fn fired(firing: &Firing, now_ns: i64, market: String, house: &House) -> Fired {
    let row = &firing.row;
    let value =
        |bits: u64| if row.kind == GAP { Value::Id(bits.to_string()) } else { Value::Number(f64::from_bits(bits)) };
    // What was derived from history has no timeline.
    let live = row.fired_ns != 0;
    let us = |from: i64, to: i64| live.then_some(to.saturating_sub(from) as f64 / 1000.0);
    Fired {
        market,
        kind: (house.firing_kind)(row.kind).map_or_else(|| row.kind.to_string(), str::to_owned),
        value: value(row.value),
        price: row.tick.price,
        tx: row.tx.to_string(),
        n: row.n,
        received_to_fired_us: us(row.received_ns, row.fired_ns),
        fired_to_here_us: us(row.fired_ns, now_ns),
        basis: value(row.basis),
        volume: row.tick.volume,
        event_time: say_instant(row.tick.event_time_ns),
        reflex: row.reflex.to_string(),
        shard: firing.shard,
        replayed: firing.replayed,
    }
}

fn now_ns() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "how late a firing is, is asked of the clock of whoever watches")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// A random id that fits JSON numbers elsewhere.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    (RandomState::new().build_hasher().finish() >> 11).max(1)
}
