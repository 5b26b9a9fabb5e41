//! `codedeploy-local plan`: shows what a deployment would do to this host, as text and as JSON.

mod json;
mod text;

use std::io::{self, IsTerminal, Write};

use codedeploy_support::plain::harmless_lines;

use crate::deployment::preview;
use crate::output;
use crate::shutdown::Shutdown;
use codedeploy_api::chain::Chain;

use crate::cli::local::LocalError;
use crate::cli::local::scratch::Scratch;
use text::{Paint, Text};

/// A deployment, and the form of its plan.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) deployment: crate::cli::local::Arguments,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Shows the plan, and returns whether the deployment could start.
pub(super) async fn plan(arguments: Arguments) -> Result<bool, LocalError> {
    let (host, spec, order) = crate::cli::local::prepare(&arguments.deployment).await?;
    let paint = Paint::new(
        io::stdout().is_terminal(),
        host.environment().text("NO_COLOR"),
    );
    let shutdown = Shutdown::on_signals(std::time::Duration::ZERO)?;
    crate::cli::local::check_events(&host, &spec, &order, &shutdown).await?;
    let scratch = Scratch::new(host.environment()).map_err(LocalError::Scratch)?;
    let preview = scratch
        .with(
            &shutdown,
            Box::pin(preview::preview(&host, &spec, &order, scratch.path())),
        )
        .await?;
    let mut out = io::stdout().lock();
    match &preview {
        Ok(preview) if arguments.json => writeln!(out, "{}", output::json(&json::plan(preview)))?,
        Ok(preview) => write!(out, "{}", Text { preview, paint })?,
        Err(error) if arguments.json => {
            writeln!(
                out,
                "{}",
                output::json(&json::failure(&Chain(error).to_string()))
            )?;
        }
        Err(error) => {
            let text = Chain(error).to_string();
            writeln!(
                out,
                "{}: {}",
                paint.bad("The deployment would fail"),
                harmless_lines(&text)
            )?;
        }
    }
    Ok(preview.is_ok_and(|preview| preview.can_start()))
}
