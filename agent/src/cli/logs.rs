//! `codedeploy-agent logs`: shows the logs of the agent and of scripts to a person (docs/logs.md).

mod merge;
mod parse;
mod series;
mod since;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::config::{ConfigError, Environment, Settings};
use crate::output;
use crate::output::fail;
use crate::runtime::on_runtime;
use crate::telemetry::colours;
use crate::telemetry::record::{Record, harmless};
use crate::telemetry::words::{Colour, Style};
use codedeploy_hooks::clock::LocalTime;
use merge::{Merge, Wanted};
use series::Problem;

/// The interval between checks of followed logs.
const POLL: Duration = Duration::from_millis(500);

/// The number of records to print before following.
const BEFORE_FOLLOWING: usize = 20;

/// The number of problems that are reported one by one.
const MAX_PROBLEMS: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Follow the logs until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only lines of this deployment.
    #[arg(long, value_name = "ID")]
    deployment: Option<String>,
    /// Only the agent's own log.
    #[arg(long, conflicts_with = "scripts")]
    agent: bool,
    /// Only the output of scripts.
    #[arg(long)]
    scripts: bool,
    /// Only lines newer than this: 90s, 30m, 1h, 2d, 1w, or a time such as "2026-11-22 21:00".
    #[arg(long, value_name = "WHEN", value_parser = since::parse)]
    since: Option<SystemTime>,
    /// Only the last N lines.
    #[arg(short = 'n', long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    lines: Option<u32>,
    /// Print JSON lines, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there are no log lines of the deployment {id} in {logs}")]
    NoSuchDeployment { id: String, logs: String },
    #[error("no log can be read; run this as root, or as a member of the group adm")]
    Unreadable,
    #[error("cannot write to the standard output")]
    Output(#[source] io::Error),
}

/// Runs `codedeploy-agent logs`.
pub fn main(arguments: Arguments, config_file: Option<&Path>) -> ExitCode {
    match on_runtime(show(arguments, config_file)) {
        // The reader has closed the pipe, as `head` does.
        Ok(Err(LogsError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail("codedeploy-agent", &error),
        Err(error) => fail("codedeploy-agent", &error),
    }
}

async fn show(arguments: Arguments, config_file: Option<&Path>) -> Result<(), LogsError> {
    let environment = Environment::of_process();
    let (settings, _) = Settings::load(config_file, &environment)?;
    let wanted = Wanted {
        agent: !arguments.scripts,
        scripts: !arguments.agent,
        deployment: arguments.deployment.clone(),
        since: arguments.since,
    };
    let stdout = io::stdout();
    let colour = stdout.is_terminal() && colours(&environment);
    let mut page = Page {
        out: io::BufWriter::new(stdout.lock()),
        json: arguments.json,
        style: Style {
            colour,
            time: true,
            in_deployment: false,
        },
        headed: None,
    };
    let mut merge = Merge::new(&settings, wanted);
    let shown = page
        .all(&mut merge, limit(&arguments), !arguments.follow)
        .map_err(LogsError::Output)?;
    let problems = merge.problems();
    tell(&problems);
    if arguments.follow {
        return follow(page, merge).await;
    }
    match (shown, arguments.deployment) {
        (0, _) if !problems.is_empty() => Err(LogsError::Unreadable),
        (0, Some(id)) => Err(LogsError::NoSuchDeployment {
            id,
            logs: places(&settings),
        }),
        (0, None) => {
            output::complain(format_args!(
                "there are no log lines yet in {}",
                places(&settings)
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn follow(mut page: Page<impl Write>, mut merge: Merge) -> Result<(), LogsError> {
    loop {
        tokio::time::sleep(POLL).await;
        merge.look_again();
        page.all(&mut merge, None, false)
            .map_err(LogsError::Output)?;
        tell(&merge.problems());
    }
}

fn limit(arguments: &Arguments) -> Option<usize> {
    let chosen = arguments.since.is_some() || arguments.deployment.is_some();
    let given = arguments
        .lines
        .and_then(|lines| usize::try_from(lines).ok());
    given.or((arguments.follow && !chosen).then_some(BEFORE_FOLLOWING))
}

fn places(settings: &Settings) -> String {
    format!(
        "{} and {}",
        settings.log_dir.display(),
        settings.root_dir.display()
    )
}

fn tell(problems: &[Problem]) {
    for problem in problems.iter().take(MAX_PROBLEMS) {
        output::complain(format_args!("not shown: {problem}"));
    }
    if problems.len() > MAX_PROBLEMS {
        output::complain(format_args!(
            "not shown: {} more files",
            problems.len() - MAX_PROBLEMS
        ));
    }
    if problems
        .iter()
        .any(|problem| problem.reason.kind() == io::ErrorKind::PermissionDenied)
    {
        output::complain(
            "script output is for root and the group that reads logs: run this with sudo",
        );
    }
}

/// Prints records line by line.
struct Page<W: Write> {
    out: W,
    json: bool,
    style: Style,
    /// The deployment in the last heading. Lines without a deployment stay under it.
    headed: Option<String>,
}

impl<W: Write> Page<W> {
    /// Prints the existing records, the last `limit` of them, and returns how many.
    fn all(
        &mut self,
        merge: &mut Merge,
        limit: Option<usize>,
        unfinished: bool,
    ) -> io::Result<usize> {
        let mut shown = 0;
        let mut newest = VecDeque::new();
        while let Some(record) = merge.next(unfinished) {
            match limit {
                None => {
                    shown += 1;
                    self.record(&record)?;
                }
                Some(limit) => {
                    if newest.len() == limit {
                        newest.pop_front();
                    }
                    newest.push_back(record);
                }
            }
        }
        shown += newest.len();
        newest.iter().try_for_each(|record| self.record(record))?;
        self.out.flush()?;
        Ok(shown)
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        if self.json {
            return writeln!(self.out, "{}", record.json());
        }
        let deployment = record.fields.text("deployment_id");
        if let Some(id) = deployment
            && self.headed.as_deref() != Some(id)
        {
            self.header(id, record)?;
            self.headed = Some(id.to_owned());
        }
        if record.target == parse::SCRIPT_LOG {
            return self.output(record);
        }
        let style = Style {
            in_deployment: deployment.is_some(),
            ..self.style
        };
        writeln!(self.out, "{}", style.words(record))
    }

    fn header(&mut self, id: &str, record: &Record) -> io::Result<()> {
        let named = [("application", " of "), ("deployment_group", " to ")];
        let named = named
            .iter()
            .filter_map(|(name, word)| Some(format!("{word}{}", record.fields.text(name)?)));
        let title = format!("── {id}{}", named.collect::<String>());
        writeln!(
            self.out,
            "{}",
            self.style.paint(Colour::Bold, &harmless(&title))
        )
    }

    /// Formats one line of a script log: the script's name and its output, with stderr marked, or
    /// the script's place in the deployment.
    fn output(&mut self, record: &Record) -> io::Result<()> {
        let time = LocalTime::of(record.time).milliseconds();
        let time = self.style.paint(Colour::Dim, &time);
        let message = harmless(&record.message);
        let (bar, colour) = match record.fields.text(parse::STREAM) {
            Some("stderr") => ("!", Colour::Yellow),
            Some(_) => ("|", Colour::Dim),
            None => {
                return writeln!(
                    self.out,
                    "{time}   {}",
                    self.style.paint(Colour::Dim, &message)
                );
            }
        };
        let script = harmless(record.fields.text("script").unwrap_or("script"));
        let (script, bar) = (
            self.style.paint(Colour::Cyan, &script),
            self.style.paint(colour, bar),
        );
        writeln!(self.out, "{time}   {script} {bar} {message}")
    }
}
