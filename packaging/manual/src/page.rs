//! One manual page.

use std::fmt::Write as _;
use std::io;

use clap::Command;
use clap_mangen::Man;

/// The subcommands that have pages.
pub(crate) fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

/// The name of a command's page: the program and its subcommands, joined by hyphens.
pub(crate) fn name(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

/// The page of a command, in the language of man(7).
pub(crate) fn page(command: &Command, section: &str) -> io::Result<Vec<u8>> {
    let name = name(command);
    // Help has examples and exit codes as a text at its end. Here they are sections.
    let end = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let version = command.get_version().map_or_else(
        || env!("CARGO_PKG_VERSION"),
        |version| version.split(' ').next().unwrap_or_default(),
    );
    let title = escaped(&name.to_uppercase());
    let mut page =
        format!(".TH \"{title}\" {section} \"\" \"codedeploy {version}\" \"CodeDeploy\"\n")
            .into_bytes();
    let man = Man::new(command.clone());
    man.render_name_section(&mut page)?;
    page.extend(synopsis(command).bytes());
    man.render_description_section(&mut page)?;
    if command.get_opts().next().is_some() || command.get_positionals().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    page.extend(listed(command, section).bytes());
    page.extend(sections(&end).bytes());
    page.extend(see_also(&name).bytes());
    Ok(page)
}

/// The usage, as help shows it.
fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage:").unwrap_or(&usage);
    let lines: String = usage
        .lines()
        .map(|words| line(words.trim()) + "\n")
        .collect();
    format!(".SH SYNOPSIS\n.nf\n{lines}.fi\n")
}

/// The subcommands with their pages.
fn listed(command: &Command, section: &str) -> String {
    let mut text = String::new();
    for (index, command) in subcommands(command).enumerate() {
        if index == 0 {
            text += ".SH SUBCOMMANDS\n";
        }
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let page = escaped(&name(command));
        let _ = write!(
            text,
            ".TP\n\\fB{page}\\fR({section})\n{}\n",
            line(about.trim())
        );
    }
    text
}

/// Turns a text of headings that end in a colon, each with an indented block, into sections.
fn sections(text: &str) -> String {
    let mut page = String::new();
    let mut in_block = false;
    let mut end_block = |page: &mut String, begins: bool| {
        if in_block {
            page.push_str(".fi\n");
        }
        in_block = begins;
    };
    for words in text.lines().filter(|words| !words.trim().is_empty()) {
        match words.strip_suffix(':').filter(|_| !words.starts_with(' ')) {
            Some(heading) => {
                end_block(&mut page, true);
                let heading = match heading {
                    // The name of this section in every manual.
                    "Exit codes" => "EXIT STATUS".to_owned(),
                    other => other.to_uppercase(),
                };
                let _ = write!(page, ".SH {heading}\n.nf\n");
            }
            None => {
                page += &line(words.strip_prefix("  ").unwrap_or(words));
                page.push('\n');
            }
        }
    }
    end_block(&mut page, false);
    page
}

/// The pages of the programs.
fn see_also(name: &str) -> String {
    let mut text = ".SH SEE ALSO\n".to_owned();
    let programs = [
        ("codedeploy-agent", "8"),
        ("codedeploy-local", "1"),
        ("codedeploy-controller", "8"),
    ];
    let others: Vec<String> = programs
        .iter()
        .filter(|(program, _)| *program != name)
        .map(|(program, of)| format!("\\fB{}\\fR({of})", escaped(program)))
        .collect();
    let _ = writeln!(text, "{}", others.join(", "));
    text
}

/// A line of text that begins with no request.
fn line(text: &str) -> String {
    let text = escaped(text);
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
