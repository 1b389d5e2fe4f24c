//! `watch SPEC`: registers a standing question and prints what fires, as it fires.
//!
//! ```text
//!   register -> listen behind the registration's tx -> firings ... -> enough, or asked to end -> remove (unless --id kept it)
//!                                                                     (stop.rs)
//! ```
//!
//! Deliberately absent: the language of questions; the appliance reads it.

use crate::House;
use crate::args::{self, Common, Names};
use crate::exit::{Exit, Failure, sends_no_more};
use crate::output::{Flow, Io, Line, maybe};
use crate::stop::Stop;
use myelin_client::datom::Tx;
use myelin_client::wire::Code;
use myelin_client::{Client, Error, Firing, FiringPlace, News};
use myelin_said::TickSaid;
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
    /// The question's id. With it the question stays when this ends; else it is removed, unless this, or the node, is killed: see `myelin reflex list` and `reflex remove`.
    #[arg(long)]
    id: Option<u64>,
    /// Asks history first, from behind this transaction (0: from the first) or from a time on (2024-08-08T00:00:00Z; refused where its rows were dropped), then goes on live without a gap.
    #[arg(long, value_name = "TX|TIME", value_parser = args::since)]
    since: Option<Tx>,
    /// Ends after so many firings.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// A firing. The first columns are for people, see [`WIDTHS`]; programs get all. What a firing has not is `null`: a gap's
/// tick, which never came; the first price's basis; the timeline of what was derived from history.
#[derive(Serialize)]
struct Fired {
    market: String,
    kind: String,
    /// What was measured: the price, the move, the sum, the distance; a gap's first missing id as a string.
    value: Option<Value>,
    price: Option<f64>,
    tx: String,
    n: u32,
    /// From the frame's arrival at the node to the firing. **Units:** microseconds.
    received_to_fired_us: Option<f64>,
    /// From the firing to here, by two clocks if the hosts are two. **Units:** microseconds.
    fired_to_here_us: Option<f64>,
    /// What the value was measured against; a gap's last missing id as a string.
    basis: Option<Value>,
    volume: Option<f64>,
    event_time: Option<String>,
    received_time: Option<String>,
    id: Option<String>,
    side: Option<&'static str>,
    trader: Option<String>,
    source: Option<String>,
    reflex: String,
    shard: u16,
    replayed: bool,
    /// When the node decoded the tick's frame, by its clock. **Units:** Unix nanoseconds.
    received_ns: Option<String>,
    /// When the tick was on stable storage, likewise.
    durable_ns: Option<String>,
    /// When it was committed, likewise: on one node when it was durable.
    committed_ns: Option<String>,
    /// When it fired, likewise.
    fired_ns: Option<String>,
    /// When the node said it, likewise, also where it comes from history.
    sent_ns: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Id(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Id(id) => f.write_str(id),
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
        "received_time",
        "id",
        "side",
        "trader",
        "source",
        "reflex",
        "shard",
        "replayed",
        "received_ns",
        "durable_ns",
        "committed_ns",
        "fired_ns",
        "sent_ns",
    ];

    fn cells(&self) -> Vec<String> {
        let us = |us: Option<f64>| maybe(us.map(|us| format!("{us:.0}")));
        let text = |text: &Option<String>| maybe(text.as_ref());
        vec![
            self.market.clone(),
            self.kind.clone(),
            maybe(self.value.as_ref()),
            maybe(self.price),
            self.tx.clone(),
            self.n.to_string(),
            us(self.received_to_fired_us),
            us(self.fired_to_here_us),
            maybe(self.basis.as_ref()),
            maybe(self.volume),
            text(&self.event_time),
            text(&self.received_time),
            text(&self.id),
            maybe(self.side),
            text(&self.trader),
            text(&self.source),
            self.reflex.clone(),
            self.shard.to_string(),
            self.replayed.to_string(),
            text(&self.received_ns),
            text(&self.durable_ns),
            text(&self.committed_ns),
            text(&self.fired_ns),
            self.sent_ns.clone(),
        ]
    }
}

/// Of the columns that a table has.
const WIDTHS: &[usize] = &[28, 6, 12, 12, 20, 4, 20, 16];
/// The kind whose values are ids and not numbers, and that no tick made fire.
const GAP: u8 = 8;
/// The kind whose markets stand in the question.
const SPREAD: u8 = 7;

/// Registers, listens, prints, removes.
pub(crate) async fn run(args: Args, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let registration = registration(&args, house)?;
    let client = args.common.connect().await?;
    // A question about a market that does not exist would wait for it in silence.
    let spread = registration.as_ref().and_then(|(_, bytes)| spread(bytes));
    for market in args.market.iter().map(String::as_str).chain(spread.into_iter().flatten()) {
        args::market(&client, market).await?;
    }
    // From here on a signal is not the end, but asks for it: what is registered is removed.
    let mut stop = Stop::listen(io)?;
    let id = registration.as_ref().map(|(id, _)| *id).or(args.id).unwrap_or_default();
    let ours = registration.is_some() && args.id.is_none();
    let watched = tokio::select! {
        watched = watch(&client, id, registration, &args, house, io) => watched,
        _ = stop.asked() => Ok(Exit::Ok),
    };
    // Also where a signal came while it was being registered, or one shard refused it: it may stand on the others.
    if ours {
        let ids = [id];
        let removed = tokio::select! {
            removed = client.remove(&ids) => removed.map_err(Failure::from),
            why = stop.asked() => Err(Failure::Said { exit: why.into(), message: "asked to end at once".to_owned() }),
        };
        if removed.is_err() {
            io.say(&format!("the question may still stand: myelin reflex remove {id}"))?;
        }
        return watched.and_then(|exit| removed.map(|_| exit));
    }
    watched
}

/// The markets of a spread, as a registration has them: `id u64 | 7 | signed u8 | least f64 | name | name | ..`.
fn spread(registration: &[u8]) -> Option<[&str; 2]> {
    let names = registration.get(8..)?.strip_prefix(&[SPREAD])?.get(9..)?;
    fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
        let (len, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        Some((str::from_utf8(name).ok()?, rest))
    }
    let (a, rest) = name(names)?;
    Some([a, name(rest)?.0])
}

/// Registers on every shard. **Errors:** exit code 5 where the id is another question's.
async fn register(client: &Client, id: u64, bytes: &[u8]) -> Result<Vec<(u16, Tx)>, Failure> {
    let refused = match client.register(bytes, 1).await {
        Ok(registered) => return Ok(registered),
        Err(error) => error,
    };
    if matches!(&refused, Error::Refused(why) if why.code == Some(Code::ReflexConflict)) {
        let message =
            format!("reflex {id} is another question already: see `myelin reflex list`, or take another --id");
        return Err(Failure::Said { exit: Exit::Conflict, message });
    }
    Err(refused.into())
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
    registration: Option<(u64, Vec<u8>)>,
    args: &Args,
    house: &House,
    io: &mut Io<'_>,
) -> Result<Exit, Failure> {
    let after = match registration {
        Some((id, bytes)) => positions(&register(client, id, &bytes).await?),
        None => Vec::new(),
    };
    if io.err_is_terminal {
        io.say(&format!("listening to reflex {id}; Ctrl-C ends"))?;
    }
    let mut subscription = match args.since {
        Some(since) => client.back_test(id, since).await?,
        None => client.subscribe(Some(id), &after).await?,
    };
    let mut names = Names::new(client.clone());
    let mut flow = Flow::new(args.common.output, WIDTHS);
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(news) = subscription.next().await? else { break };
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

fn fired(firing: &Firing, now_ns: i64, market: String, house: &House) -> Fired {
    let row = &firing.row;
    let value = |bits: u64| match f64::from_bits(bits) {
        _ if row.kind == GAP => Some(Value::Id(bits.to_string())),
        number => (!number.is_nan()).then_some(Value::Number(number)),
    };
    // What was derived from history has no timeline.
    let live = row.fired_ns != 0;
    let us = |from: i64, to: i64| live.then_some(to.saturating_sub(from) as f64 / 1000.0);
    let ns = |ns: i64| live.then(|| ns.to_string());
    let tick = (row.kind != GAP).then(|| TickSaid::new(Tx::from_bits(row.tx), &row.tick));
    let (price, volume) = (tick.as_ref().map(|tick| tick.price), tick.as_ref().map(|tick| tick.volume));
    let side = tick.as_ref().map(|tick| tick.side);
    let [event_time, received_time, id, trader, source] = match tick {
        Some(tick) => [tick.event_time, tick.received_time, tick.id, tick.trader, tick.source],
        None => Default::default(),
    };
    Fired {
        market,
        kind: (house.firing_kind)(row.kind).map_or_else(|| row.kind.to_string(), str::to_owned),
        value: value(row.value),
        price,
        tx: row.tx.to_string(),
        n: row.n,
        received_to_fired_us: us(row.received_ns, row.fired_ns),
        fired_to_here_us: us(row.fired_ns, now_ns),
        basis: value(row.basis),
        volume,
        event_time,
        received_time,
        id,
        side,
        trader,
        source,
        reflex: row.reflex.to_string(),
        shard: firing.shard,
        replayed: firing.replayed,
        received_ns: ns(row.received_ns),
        durable_ns: ns(row.durable_ns),
        committed_ns: ns(row.durable_ns),
        fired_ns: ns(row.fired_ns),
        sent_ns: firing.sent_ns.to_string(),
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
