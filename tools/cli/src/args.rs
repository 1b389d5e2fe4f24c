//! What several verbs are told alike: which node, which form of output, which moment; and how people write them.

use crate::exit::Failure;
use clap::ValueEnum;
use myelin_client::datom::{EntityId, Tx};
use myelin_client::wire::MarketRow;
use myelin_client::{At, Client, Options, Tls};
pub(crate) use myelin_said::{instant, length, say_instant};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One value: an object, or an array of them; of a stream, which has no end, one object a line.
    Json,
    /// One object a line.
    Ndjson,
    /// With a line of names.
    Csv,
}

/// Which node, and how to answer.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// The node's address for data; tls://HOST:PORT insists on TLS.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400", env = "MYELIN_SERVER")]
    pub server: String,
    /// The certificate of who signed the node's: speaks TLS.
    #[arg(long, value_name = "FILE", env = "MYELIN_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// A file with the token the node wants.
    #[arg(long, value_name = "FILE", env = "MYELIN_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Everything through the address given, as behind a forwarded port; else one connection per core.
    #[arg(long)]
    pub one_connection: bool,
}

impl Common {
    /// Connects. **Errors:** `Unreachable`, exit code 3.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let name = concat!("myelin ", env!("CARGO_PKG_VERSION")).to_owned();
        // A node that is started again may have a long log to replay: who waits at a prompt can press Ctrl-C.
        let reconnect_for = Duration::from_secs(30);
        let tls = self.tls_ca.as_deref().map(Tls::trusting).transpose();
        let tls = tls.map_err(|error| Failure::usage(error.to_string()))?;
        let read = |path: &PathBuf| match std::fs::read_to_string(path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(Failure::usage(format!("{} cannot be read: {error}", path.display()))),
        };
        let token = self.token_file.as_ref().map(read).transpose()?;
        let one_connection = self.one_connection;
        let options = Options { name, tls, token, reconnect_for, one_connection, ..Options::default() };
        Ok(Client::connect(&self.server, options).await?)
    }
}

/// When to look.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Moment {
    /// As of this transaction; else now.
    #[arg(long, value_name = "TX", value_parser = as_of)]
    pub as_of: Option<Tx>,
    /// Not before this transaction.
    #[arg(long, value_name = "TX", value_parser = tx)]
    pub min_tx: Option<Tx>,
}

impl From<Moment> for At {
    fn from(moment: Moment) -> Self {
        Self { as_of: moment.as_of, min_tx: moment.min_tx }
    }
}

/// Reads a transaction id.
pub(crate) fn tx(text: &str) -> Result<Tx, String> {
    text.parse()
        .map(Tx::from_bits)
        .map_err(|_| "a transaction is a decimal number, as an ack or `ingest` names it".to_owned())
}

/// Reads the moment of a question. 0 is what a script says that never learnt its transaction, and "now" on the wire.
pub(crate) fn as_of(text: &str) -> Result<Tx, String> {
    match tx(text)? {
        Tx::ZERO => Err("no transaction has the number 0; without this option the question is about now".to_owned()),
        tx => Ok(tx),
    }
}

/// Reads where a stream begins: behind a transaction, or with what was stored from an instant on, its millisecond included.
pub(crate) fn since(text: &str) -> Result<Tx, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return tx(text);
    }
    let ns = instant(text).map_err(|_| {
        "a transaction is a decimal number, as an ack or `ingest` names it; a time has its zone, as in 2024-08-08T00:00:00Z"
            .to_owned()
    })?;
    let millis = u64::try_from(ns.div_euclid(1_000_000)).map_err(|_| "no transaction is older than 1970".to_owned())?;
    Ok(Tx::from_bits(Tx::at_millis(millis).bits().saturating_sub(1)))
}

/// Which event times, ends included.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct EventTimes {
    /// Event time from here on, as in 2024-08-08T00:00:00Z.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<i64>,
    /// Event time up to this, included.
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<i64>,
}

impl EventTimes {
    /// From and to. **Units:** Unix nanoseconds. **Errors:** the end lies before the beginning.
    pub(crate) fn ns(self) -> Result<(i64, i64), Failure> {
        match (self.from.unwrap_or(i64::MIN), self.to.unwrap_or(i64::MAX)) {
            (from, to) if from > to => {
                Err(Failure::usage(format!("--from {} is later than --to {}", say_instant(from), say_instant(to))))
            }
            stretch => Ok(stretch),
        }
    }
}

/// The market of this name. **Errors:** there is none, exit code 1.
pub(crate) async fn market(client: &Client, name: &str) -> Result<MarketRow, Failure> {
    client.find_market(name).await?.ok_or_else(|| {
        Failure::negative(format!("there is no market '{name}': `myelin market list` names those that exist"))
    })
}

/// The market's id, where one was named.
pub(crate) async fn market_id(client: &Client, name: Option<&str>) -> Result<Option<EntityId>, Failure> {
    match name {
        Some(name) => Ok(Some(market(client, name).await?.id)),
        None => Ok(None),
    }
}

/// Names of markets, read again when one is new.
pub(crate) struct Names {
    client: Client,
    by_id: HashMap<u64, String>,
}

impl Names {
    pub fn new(client: Client) -> Self {
        Self { client, by_id: HashMap::new() }
    }

    /// What is known already need not be asked.
    pub fn know(&mut self, id: EntityId, name: &str) {
        self.by_id.insert(id.bits(), name.to_owned());
    }

    /// The name, or the id where no market has it.
    pub async fn of(&mut self, id: u64) -> Result<String, Failure> {
        if !self.by_id.contains_key(&id) {
            let markets = self.client.list_markets(At::NOW).await?;
            self.by_id.extend(markets.into_iter().map(|market| (market.id.bits(), market.name)));
        }
        Ok(self.by_id.get(&id).cloned().unwrap_or_else(|| id.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_behind_a_transaction_or_with_a_millisecond() {
        let millis = Tx::at_millis(1_723_075_200_001);
        assert_eq!(since("2024-08-08T00:00:00.001Z"), Ok(Tx::from_bits(millis.bits() - 1)), "its own is behind it");
        assert_eq!(since("2024-08-08T00:00:00.001999Z"), since("2024-08-08T02:00:00.001+02:00"));
        assert_eq!(since("17"), Ok(Tx::from_bits(17)), "a bare number is never a time");
        assert_eq!(since("1970-01-01T00:00:00Z"), Ok(Tx::ZERO));
        for text in ["", "-1", "1969-12-31T23:59:59Z", "2024-08-08", "yesterday", "99999999999999999999"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_question_is_as_of_transaction_zero() {
        assert_eq!(as_of("0").ok(), None);
        assert_eq!(as_of("1"), Ok(Tx::from_bits(1)));
    }
}
