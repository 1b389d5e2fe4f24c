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
    /// One value: an object, or an array of them.
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
    #[arg(long, value_name = "TX", value_parser = tx)]
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
