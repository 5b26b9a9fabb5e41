//! Writes the manual pages and shell completions of all programs, from the definitions that also
//! read their command lines.
//!
//!     cargo run --package codedeploy-manual -- [FOLDER]
//!
//! `FOLDER` is `target/manual` by default:
//!
//! * `man/man1` and `man/man8`: one page for each program and each subcommand;
//! * `completions/bash`, `completions/zsh` and `completions/fish`: one file for each program, under
//!   the name that the shell looks for.

mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, ValueEnum as _};
use clap_complete::Shell;

/// A program and the section of its manual pages: 1 for everybody's commands, 8 for the
/// administrator's.
struct Program {
    command: Command,
    section: &'static str,
}

fn programs() -> [Program; 3] {
    [
        Program {
            command: codedeploy_agent::cli::command(),
            section: "8",
        },
        Program {
            command: codedeploy_agent::cli::local_command(),
            section: "1",
        },
        Program {
            command: codedeploy_controller::cli::command(),
            section: "8",
        },
    ]
}

fn main() -> ExitCode {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(|| "target/manual".into(), PathBuf::from);
    for program in programs() {
        if let Err(error) = write(program, &folder) {
            eprintln!("manual: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(program: Program, folder: &Path) -> io::Result<()> {
    let mut built = program.command.clone();
    built.build();
    let pages = folder.join(format!("man/man{}", program.section));
    fs::create_dir_all(&pages)?;
    write_pages(&built, program.section, &pages)?;

    let name = program.command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let of_shell = shell.to_possible_value().unwrap_or_default();
        let folder = folder.join("completions").join(of_shell.get_name());
        fs::create_dir_all(&folder)?;
        let file = match shell {
            Shell::Zsh => format!("_{name}"),
            Shell::Fish => format!("{name}.fish"),
            _ => name.clone(),
        };
        fs::write(
            folder.join(file),
            completions(shell, &program.command, &name),
        )?;
    }
    Ok(())
}

fn completions(shell: Shell, command: &Command, name: &str) -> String {
    // For bash, the generator joins the parts of a name with a hyphen in two ways, so that
    // subcommands are not found.
    let word = match shell {
        Shell::Bash => name.replace('-', "_"),
        _ => name.to_owned(),
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), &word, &mut text);
    let text = String::from_utf8_lossy(&text);
    text.replace(
        &format!("-o default {word}\n"),
        &format!("-o default {name}\n"),
    )
}

/// Writes the page of a command, and those of its subcommands.
fn write_pages(command: &Command, section: &str, folder: &Path) -> io::Result<()> {
    let name = page::name(command);
    fs::write(
        folder.join(format!("{name}.{section}")),
        page::page(command, section)?,
    )?;
    page::subcommands(command).try_for_each(|command| write_pages(command, section, folder))
}
