//! `codedeploy-local plan`: what a deployment would do to this host, for people and as JSON.

mod document;
mod words;

use std::io::{self, IsTerminal, Write};

use crate::config::Environment;
use crate::errors::Chain;
use crate::shutdown::Shutdown;

use super::LocalError;
use words::{Paint, Words};

/// A deployment, and how its plan is shown.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) deployment: super::Arguments,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows the plan, and says whether the deployment could start.
pub(super) async fn plan(arguments: Arguments) -> Result<bool, LocalError> {
    let (host, spec, order) = super::prepare(&arguments.deployment).await?;
    let paint = Paint::new(io::stdout().is_terminal(), host.environment.text("NO_COLOR"));
    let shutdown = Shutdown::on_signals(std::time::Duration::ZERO)?;
    // Private: the revision may hold secrets. It goes with this value.
    let scratch = scratch(&host.environment).map_err(LocalError::Scratch)?;
    let preview = tokio::select! {
        preview = host.preview(&spec, &order, scratch.path()) => preview,
        () = shutdown.no_more_work.cancelled() => return Err(LocalError::Interrupted),
    };
    let mut out = io::stdout().lock();
    match &preview {
        Ok(preview) if arguments.json => writeln!(out, "{}", document::plan(preview))?,
        Ok(preview) => write!(out, "{}", Words { preview, paint })?,
        Err(error) if arguments.json => writeln!(out, "{}", document::failure(&Chain(error).to_string()))?,
        Err(error) => writeln!(out, "{}: {}", paint.bad("The deployment would fail"), Chain(error))?,
    }
    Ok(preview.is_ok_and(|preview| preview.can_start()))
}

fn scratch(environment: &Environment) -> io::Result<tempfile::TempDir> {
    let folder = environment.text("TMPDIR").filter(|folder| folder.starts_with('/')).unwrap_or("/tmp");
    // Links on the way would make paths of the revision look as if they were elsewhere.
    let folder = std::fs::canonicalize(folder)?;
    tempfile::Builder::new().prefix("codedeploy-plan-").tempdir_in(folder)
}
