//! The command line of `codedeploy-agent`, and the parts that `codedeploy-local` shares.

pub mod config;
pub mod control;
pub mod doctor;
mod help;
pub mod journal;
pub mod local;
pub mod logs;
pub mod register;
pub mod rollback;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};
pub use codedeploy_hooks::script::keep_script;

pub use crate::update::runner::run_update;

use crate::background::Waiter;
use crate::config::Environment;
use crate::daemon;
use crate::output::{self, fail, misused};
use codedeploy_support::version::version;

/// Deploys what a CodeDeploy service assigns to this host.
#[derive(Debug, Parser)]
#[command(
    name = "codedeploy-agent",
    version = version(),
    after_help = help::AGENT,
    arg_required_else_help = true,
    infer_long_args = true
)]
struct Arguments {
    /// The agent's configuration.
    #[arg(
        long,
        visible_alias = "config_file",
        global = true,
        value_name = "FILE"
    )]
    config_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground until stopped: poll for deployments and run them.
    #[command(after_help = help::RUN)]
    Run,
    /// Show the logs of the agent and of deployment scripts, in order of time.
    #[command(after_help = help::LOGS)]
    Logs(logs::Arguments),
    /// Run in the background; returns when the agent is up, or reports why it is not.
    #[command(after_help = help::START)]
    Start,
    /// Stop the agent and wait for its end; refused while a deployment is in progress.
    #[command(after_help = help::STOP)]
    Stop {
        /// Stop even if a deployment is in progress; its current lifecycle event is finished first.
        #[arg(long)]
        force: bool,
    },
    /// Stop the agent if it runs, then start it.
    #[command(after_help = help::RESTART)]
    Restart {
        /// Stop even if a deployment is in progress; its current lifecycle event is finished first.
        #[arg(long)]
        force: bool,
    },
    /// Report whether the agent runs.
    #[command(after_help = help::STATUS)]
    Status {
        /// Print the full status as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check everything that a deployment needs, and advise what to do.
    #[command(after_help = help::DOCTOR)]
    Doctor {
        /// Print the checks as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List Installs that a crash interrupted, and what the agent will do about them.
    #[command(after_help = help::JOURNAL)]
    Journal {
        /// Print all details as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take back the last deployment of a deployment group on this host: restore the files from
    /// before its Install, and start the previous revision again.
    #[command(after_help = help::ROLLBACK)]
    Rollback(rollback::Arguments),
    /// Deploy a bundle on this machine without a service; the same as `codedeploy-local`.
    #[command(disable_version_flag = true)]
    DeployLocal(Box<local::CommandLine>),
    /// Print the effective settings and the origin of each; secrets are hidden.
    #[command(after_help = help::CONFIG)]
    Config(config::Arguments),
    /// Register this machine with CodeDeploy as an on-premises instance.
    #[command(after_help = help::REGISTER)]
    Register(Box<register::RegisterArguments>),
    /// Undo `register`.
    #[command(after_help = help::DEREGISTER)]
    Deregister(register::DeregisterArguments),
}

/// Runs the program that `arguments` name first.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    let name = arguments.peek().map(PathBuf::from);
    if name
        .as_deref()
        .and_then(Path::file_name)
        .is_some_and(|name| name == "codedeploy-local")
    {
        local(arguments)
    } else {
        agent(arguments)
    }
}

/// The definition of `codedeploy-agent`'s command line, for its manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The definition of `codedeploy-local`'s command line.
pub fn local_command() -> clap::Command {
    local::CommandLine::command()
}

/// Runs `codedeploy-local`; `arguments` begin with the program's name.
pub fn local(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match read::<local::CommandLine>(arguments) {
        Ok(arguments) => local::main(arguments),
        Err(error) => misused("codedeploy-local", &error),
    }
}

/// Runs `codedeploy-agent`; `arguments` begin with the program's name.
pub fn agent(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match read::<Arguments>(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return misused("codedeploy-agent", &error),
    };
    match arguments.command {
        Command::Logs(logs) => logs::main(logs, arguments.config_file.as_deref()),
        Command::Run => daemon::run(arguments.config_file, Waiter::default()),
        Command::Start => control::start(arguments.config_file, daemon::run),
        Command::Stop { force } => control::stop(arguments.config_file.as_deref(), force),
        Command::Restart { force } => {
            match daemon::files_are_usable(arguments.config_file.as_deref()) {
                Ok(()) => control::restart(arguments.config_file, force, daemon::run),
                Err(error) => fail("codedeploy-agent", &error),
            }
        }
        Command::Status { json } => control::status(arguments.config_file.as_deref(), json),
        Command::Doctor { json } => doctor::main(arguments.config_file.as_deref(), json),
        Command::Journal { json } => journal::main(arguments.config_file.as_deref(), json),
        Command::Rollback(which) => rollback::main(&which, arguments.config_file.as_deref()),
        Command::DeployLocal(mut local) => {
            local.inherit_configuration(arguments.config_file);
            local::main(*local)
        }
        Command::Config(show) => {
            let (file, environment) = (arguments.config_file.as_deref(), Environment::of_process());
            let (mut out, mut complaints) = (output::out(), output::err());
            match config::show(&show, file, &environment, &mut out, &mut complaints) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail("codedeploy-agent", &error),
            }
        }
        Command::Register(register) => register::register(*register, arguments.config_file),
        Command::Deregister(deregister) => register::deregister(deregister, arguments.config_file),
    }
}

/// Reads a command line. A unique prefix of an option stands for it; an ambiguous prefix is an
/// error that lists all candidates.
fn read<P: Parser>(arguments: impl Iterator<Item = OsString>) -> Result<P, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    P::try_parse_from(&arguments).map_err(|error| {
        let mut command = P::command();
        command.build();
        ambiguous(&error, &mut command, &arguments).unwrap_or(error)
    })
}

fn ambiguous(
    error: &clap::Error,
    command: &mut clap::Command,
    arguments: &[OsString],
) -> Option<clap::Error> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(found))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let beginning = found.strip_prefix("--")?.split('=').next()?;
    let mut here = &*command;
    for argument in arguments.iter().skip(1) {
        here = here.find_subcommand(argument).unwrap_or(here);
    }
    let options = here.get_arguments().filter_map(clap::Arg::get_long);
    let fitting: Vec<_> = options
        .filter(|option| option.starts_with(beginning))
        .map(|option| format!("--{option}"))
        .collect();
    let words = format!(
        "--{beginning} could be {}; write more of it",
        fitting.join(" or ")
    );
    (fitting.len() > 1).then(|| command.error(ErrorKind::UnknownArgument, words))
}
