//! Facts: `transact FILE`, `entity WHO`, `datoms`. How they are written stands in `tools/feed/src/facts.rs`.

use crate::args::{self, Common, Format, Moment};
use crate::exit::{Exit, Failure, of_refusal};
use crate::output::{Io, Line, all, one};
use myelin_client::datom::{AttributeName, Datom, Entity, Op, Slot, Tx, Value};
use myelin_client::wire::{Code, DatomsAsked, PullAsked};
use myelin_client::{Error, Facts, Place, Refusal};
use myelin_feed::facts::{self, FactsError, say};
use serde::Serialize;
use serde_json::Value as Json;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

/// A file of operations at most; the node takes less in one frame. **Units:** bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The number that facts have which no transaction brought.
const BORN_TX: Tx = Tx::ZERO;

/// `transact`.
#[derive(Clone, Debug, clap::Args)]
pub struct TransactArgs {
    /// Operations as JSON; - is standard input.
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// `entity`.
#[derive(Clone, Debug, clap::Args)]
pub struct EntityArgs {
    /// A decimal id, :ident, or ["attribute", value].
    who: String,
    /// The partition whose idents are meant.
    #[arg(long, value_name = "NAME", default_value = "main")]
    partition: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// `datoms`.
#[derive(Clone, Debug, clap::Args)]
pub struct DatomsArgs {
    /// Of this attribute.
    #[arg(long, value_name = "IDENT")]
    attribute: Option<String>,
    /// With this value, as JSON or text; {"ref":"ID"} is a reference.
    #[arg(long, value_name = "VALUE")]
    value: Option<String>,
    /// Of this partition.
    #[arg(long, value_name = "NAME", default_value = "main", conflicts_with_all = ["market", "everywhere"])]
    partition: String,
    /// Of this market: what its shard states, gaps of its feed among it.
    #[arg(long, value_name = "NAME", conflicts_with = "everywhere")]
    market: Option<String>,
    /// Of every shard, at one moment.
    #[arg(long)]
    everywhere: bool,
    /// Without what every shard is born with.
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// Which facts.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Only what was said after this transaction, or from a time on.
    #[arg(long, value_name = "TX|TIME", value_parser = args::since)]
    since: Option<Tx>,
    /// Everything that was ever said, retractions too, instead of what holds.
    #[arg(long)]
    history: bool,
    /// Facts at most.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    moment: Moment,
}

#[derive(Serialize)]
struct Done {
    tx: String,
    datoms: u32,
    /// Whom tempids became; nothing where only a repeated answer came.
    tempids: Option<serde_json::Map<String, Json>>,
}

impl Line for Done {
    const KEYS: &'static [&'static str] = &["tx", "datoms", "tempids"];
    fn cells(&self) -> Vec<String> {
        let name = |(name, id): (&String, &Json)| format!("{name}={}", id.as_str().unwrap_or_default());
        let tempids = self.tempids.iter().flatten().map(name).collect::<Vec<_>>().join(" ");
        vec![self.tx.clone(), self.datoms.to_string(), tempids]
    }
}

#[derive(Serialize)]
struct DatomLine {
    entity: String,
    attribute: String,
    value: Json,
    #[serde(rename = "type")]
    value_type: &'static str,
    tx: String,
    added: bool,
}

impl DatomLine {
    fn new(facts: &Facts, datom: &Datom<'_>) -> Self {
        Self {
            entity: datom.e.to_string(),
            attribute: facts.idents.get(&datom.a).cloned().unwrap_or_else(|| datom.a.to_string()),
            value: say(&datom.v),
            value_type: datom.v.value_type().name(),
            tx: datom.tx.to_string(),
            added: datom.added,
        }
    }
}

impl Line for DatomLine {
    const KEYS: &'static [&'static str] = &["entity", "attribute", "value", "type", "tx", "added"];
    fn cells(&self) -> Vec<String> {
        let value = self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned);
        let (entity, attribute, value_type) = (self.entity.clone(), self.attribute.clone(), self.value_type.to_owned());
        vec![entity, attribute, value, value_type, self.tx.clone(), self.added.to_string()]
    }
}

fn usage(error: FactsError) -> Failure {
    Failure::usage(error.to_string())
}

/// Sends a transaction; prints its number and whom tempids became.
pub(crate) async fn transact(args: TransactArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let mut bytes = Vec::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(&args.file);
        let read = file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|error| Failure::usage(format!("{}: {error}", args.file.display())))?;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("a transaction is at most {FILE_BYTES_MAX} bytes of JSON")));
    }
    let transaction = facts::transaction(&bytes).map_err(usage)?;
    let done = match args.common.connect().await?.transact(&transaction).await {
        Ok(done) => done,
        // A refusal counts rows; here they are operations.
        Err(Error::Refused(refusal)) if refusal.first_bad.is_some() => {
            let (op, name) = (refusal.first_bad.unwrap_or_default(), refusal.name());
            let about = match (refusal.code, transaction.ops.get(op as usize).and_then(attribute_of)) {
                (Some(Code::UnknownAttribute), Some(attribute)) => format!(" '{attribute}'"),
                _ => String::new(),
            };
            let message = &refusal.message;
            let message =
                format!("op {op}: {name}{about}: {message} Nothing was stored.\n  more: myelin explain {name}");
            return Err(Failure::Said { exit: of_refusal(&refusal), message });
        }
        Err(error) => return Err(error.into()),
    };
    let named = |tempids: Vec<(String, myelin_client::datom::EntityId)>| {
        tempids.into_iter().map(|(name, id)| (name, Json::String(id.to_string()))).collect()
    };
    let line = Done { tx: done.tx.to_string(), datoms: done.datoms, tempids: done.tempids.map(named) };
    one(io, args.common.output, &line)?;
    Ok(Exit::Ok)
}

/// The attribute that an op is about.
fn attribute_of(op: &Op<'_>) -> Option<String> {
    match op {
        Op::Assert { a, .. } | Op::Retract { a, .. } | Op::CompareAndSet { a, .. } => Some(name_of(a)),
        Op::RetractEntity { e: Entity::Lookup(a, _) } => Some(name_of(a)),
        Op::RetractEntity { .. } => None,
    }
}

fn name_of(attribute: &AttributeName<'_>) -> String {
    match attribute {
        AttributeName::Id(id) => id.to_string(),
        AttributeName::Ident(ident) => ident.to_string(),
    }
}

/// The refusal, with the name that nobody knows in it.
pub(crate) fn named(error: Error, attribute: Option<&AttributeName<'_>>) -> Failure {
    match (error, attribute) {
        (Error::Refused(refusal), Some(attribute)) if refusal.code == Some(Code::UnknownAttribute) => {
            let message = format!("'{}': {}", name_of(attribute), refusal.message);
            Error::Refused(Refusal { message, ..refusal }).into()
        }
        (error, _) => error.into(),
    }
}

/// Prints what holds about an entity; exit code 1 when nobody is named so.
pub(crate) async fn entity(args: EntityArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let EntityArgs { who, partition, which, common } = args;
    let entity = facts::entity(&who).map_err(usage)?;
    let client = common.connect().await?;
    let asked = PullAsked {
        history: which.history,
        slot: 0,
        limit: u32::MAX,
        since: which.since.unwrap_or_default(),
        entity,
        place: &[],
    };
    let answer = client.entity(Slot::of_name(&partition), &asked, which.moment.into(), which.limit).await;
    let lookup = if let Entity::Lookup(attribute, _) = &asked.entity { Some(attribute) } else { None };
    let answer = answer.map_err(|error| named(error, lookup))?;
    match answer.value {
        Some((_, facts)) if !facts.datoms.is_empty() => print(io, common.output, &facts),
        _ => Err(Failure::negative(format!("nothing holds about {who}"))),
    }
}

/// Prints facts of an attribute, a value, a partition, a market.
pub(crate) async fn datoms(args: DatomsArgs, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let attribute = args.attribute.as_deref().map(facts::attribute).transpose().map_err(usage)?;
    let value = args.value.as_deref().map(facts::value).transpose().map_err(usage)?;
    let client = args.common.connect().await?;
    let market = args::market_id(&client, args.market.as_deref()).await?;
    // What points at a market is found by it; what is about an attribute by that.
    let (order, value) = match (market, value) {
        (Some(market), None) => (4, Some(Value::Ref(market))),
        (_, Some(value @ Value::Ref(_))) => (4, Some(value)),
        (_, value) => (if attribute.is_some() { 2 } else { 1 }, value),
    };
    let asked = DatomsAsked {
        order,
        history: args.which.history,
        // What a shard is born with was there before every transaction.
        since: args.which.since.unwrap_or_default().max(if args.own { BORN_TX.next() } else { BORN_TX }),
        a: attribute,
        v: value,
        ..DatomsAsked::all(0)
    };
    let place = match market {
        Some(market) => Place::Slot(market.slot()),
        None if args.everywhere => Place::Everywhere,
        None => Place::Partition(&args.partition),
    };
    let answer = client.datoms(place, &asked, args.which.moment.into(), args.which.limit).await;
    print(io, args.common.output, &answer.map_err(|error| named(error, asked.a.as_ref()))?.value)
}

fn print(io: &mut Io<'_>, format: Format, facts: &Facts) -> Result<Exit, Failure> {
    let lines: Vec<_> = facts.datoms.iter().map(|datom| DatomLine::new(facts, datom)).collect();
    all(io, format, &lines)?;
    if facts.more {
        writeln!(io.err, "there are more: raise --limit")?;
    }
    Ok(Exit::Ok)
}
