//! `reflex list` and `reflex remove`.

use crate::args::Common;
use crate::exit::{Exit, Failure};
use crate::output::Io;
use clap::Subcommand;

/// `reflex`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Clone, Debug, Subcommand)]
enum Form {
    /// Removes standing questions.
    Remove {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<u64>,
        #[command(flatten)]
        common: Common,
    },
}

/// Removes them; exit code 1 when one of them did not stand.
pub(crate) async fn run(args: Args, io: &mut Io<'_>) -> Result<Exit, Failure> {
    let Form::Remove { ids, common } = args.form;
    let removed = common.connect().await?.remove(&ids).await?;
    io.say(&format!("{removed} of {} removed", ids.len()))?;
    Ok(if removed as usize == ids.len() { Exit::Ok } else { Exit::Negative })
}
