//! `reflex list` and `reflex remove`.

use crate::House;
use crate::args::Common;
use crate::exit::{Exit, Failure};
use crate::output::{Io, Line, all};
use clap::Subcommand;
use serde::Serialize;

/// `reflex`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Lists what stands.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Removes standing questions.
    Remove {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<u64>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Serialize)]
struct Standing {
    id: String,
    spec: String,
    scope: String,
}

impl Line for Standing {
    const KEYS: &'static [&'static str] = &["id", "spec", "scope"];
    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.spec.clone(), self.scope.clone()]
    }
}

#[derive(Serialize)]
struct Removed {
    id: String,
    /// False where none stood.
    removed: bool,
}

impl Line for Removed {
    const KEYS: &'static [&'static str] = &["id", "removed"];
    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.removed.to_string()]
    }
}

/// `reflex`.
pub(crate) async fn run(args: Args, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    match args.form {
        Form::List { common } => list(&common, house, io).await,
        Form::Remove { ids, common } => remove(&ids, &common, io).await,
    }
}

async fn list(common: &Common, house: &House, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let standing: Vec<Standing> = common
        .connect()
        .await?
        .list_reflexes()
        .await?
        .into_iter()
        .map(|(id, asked)| {
            let (spec, scope) = (house.asked)(&asked).unwrap_or_else(|| ("?".to_owned(), "?".to_owned()));
            Standing { id: id.to_string(), spec, scope }
        })
        .collect();
    all(io, common.output, &standing)?;
    Ok(Exit::Ok)
}

/// Removes them; exit code 1 when one of them did not stand.
async fn remove(ids: &[u64], common: &Common, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let client = common.connect().await?;
    let mut lines = Vec::new();
    for id in ids {
        // One at a time: of several together only their number is told.
        let removed = client.remove(&[*id]).await? > 0;
        lines.push(Removed { id: id.to_string(), removed });
    }
    all(io, common.output, &lines)?;
    Ok(if lines.iter().all(|line| line.removed) { Exit::Ok } else { Exit::Negative })
}
