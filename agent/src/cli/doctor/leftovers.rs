//! Another agent on this host, besides this one: AWS's own, in Ruby or as a binary, running or
//! enabled.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::bounded_read;
use crate::cli::doctor::Check;
use crate::config::{DEFAULT_FILE, Environment, Settings};
use crate::control_socket::Place;
use crate::pidfile::{self, Holder};

const NAME: &str = "other-agents";

/// The folder in which AWS's packages install their agent.
const AWS_PROGRAM: &str = "/opt/codedeploy-agent/bin/";

/// The links that enable this agent's unit and AWS's, which have the same name.
const ENABLED_UNITS: [&str; 2] = [
    "/etc/systemd/system/multi-user.target.wants/codedeploy-agent.service",
    "/etc/systemd/system/default.target.wants/codedeploy-agent.service",
];

/// AWS's init script. systemd ignores it where a unit of the same name exists.
const INIT_SCRIPTS: [&str; 2] = [
    "/etc/rc3.d/S20codedeploy-agent",
    "/etc/init.d/codedeploy-agent",
];

/// The places of the unit of that name, in order of priority.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/codedeploy-agent.service",
    "/usr/lib/systemd/system/codedeploy-agent.service",
    "/lib/systemd/system/codedeploy-agent.service",
];

/// The largest unit or command line that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// A process that looks like another agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Foreign {
    pid: i32,
    ruby: bool,
    /// The folder of its deployments; `None` if that cannot be seen.
    root: Option<PathBuf>,
}

pub(super) fn check(settings: &Settings, place: &Place, environment: &Environment) -> Check {
    let ours = match pidfile::holder(&place.pid_file) {
        Ok(Holder::Agent(pid)) => pid,
        _ => None,
    };
    let named = if ours.is_none() {
        pidfile::named(&place.pid_file)
    } else {
        None
    };
    let running = processes(ours, environment);
    let unit = UNITS
        .into_iter()
        .find_map(|path| read(Path::new(path)))
        .map(|text| starter(&text));
    let scripts = if unit.is_none() {
        &INIT_SCRIPTS[..]
    } else {
        &[]
    };
    let enabled: Vec<&str> = ENABLED_UNITS
        .iter()
        .chain(scripts)
        .copied()
        .filter(|path| starter(&read(Path::new(path)).unwrap_or_default()) == Starter::AwsAgent)
        .collect();
    let name_is_ours = unit == Some(Starter::ThisAgent);
    judge(&settings.root_dir, &running, &enabled, named, name_is_ours)
}

/// `name_is_ours`: the unit `codedeploy-agent` is this agent's own, so no advice may disable it.
fn judge(
    root: &Path,
    running: &[Foreign],
    enabled: &[&str],
    named: Option<Pid>,
    name_is_ours: bool,
) -> Check {
    let advice = match running.first() {
        Some(other) if name_is_ours => {
            format!("end process {} and remove what starts it", other.pid)
        }
        _ => "stop and disable it: systemctl disable --now codedeploy-agent, or remove its package"
            .to_owned(),
    };
    if let Some(other) = running
        .iter()
        .find(|other| other.root.as_deref() == Some(root))
    {
        let text = format!(
            "process {} is another agent on the same root_dir {}",
            other.pid,
            root.display()
        );
        return Check::problem(NAME, text, advice);
    }
    // A binary with a root of its own is a second instance, set up on purpose.
    if let Some(other) = running
        .iter()
        .find(|other| other.ruby || other.root.is_none())
    {
        let text = match &other.root {
            Some(root) => format!(
                "process {} is another agent, on {}",
                other.pid,
                root.display()
            ),
            None => format!(
                "process {} is another agent; its root_dir cannot be seen",
                other.pid
            ),
        };
        let text = format!("{text}: if it has the same identity, it takes commands away");
        return Check::warning(NAME, text, advice);
    }
    if let Some(path) = enabled.first() {
        return Check::warning(
            NAME,
            format!("{path} starts AWS's agent at the next boot"),
            advice,
        );
    }
    match named {
        Some(pid) => Check::warning(
            NAME,
            format!("the pid file names process {pid}, which is not this agent"),
            "if that process is no agent, do nothing: the next start replaces the file",
        ),
        None => Check::ok(NAME, "no other agent is running or enabled"),
    }
}

/// Returns the agents among the processes of this host, except for `ours` and the calling one.
fn processes(ours: Option<Pid>, environment: &Environment) -> Vec<Foreign> {
    let ours = ours.map(|pid| pid.as_raw_nonzero().get());
    let own = i32::try_from(std::process::id()).ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter(|pid| Some(*pid) != own && Some(*pid) != ours);
    others
        .filter_map(|pid| foreign(pid, &command_line(pid)?, environment))
        .collect()
}

fn command_line(pid: i32) -> Option<Vec<OsString>> {
    let text = read(Path::new(&format!("/proc/{pid}/cmdline")))?;
    Some(
        text.split(|byte| *byte == 0)
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect(),
    )
}

fn read(path: &Path) -> Option<Vec<u8>> {
    bounded_read::read_up_to(path, MAX_BYTES).ok()
}

/// Recognises an agent's master by its command line: `codedeploy-agent: master …` for Ruby, or a
/// binary that polls.
fn foreign(pid: i32, words: &[OsString], environment: &Environment) -> Option<Foreign> {
    let first = words.first()?.to_str()?;
    if first.starts_with("codedeploy-agent: master") {
        return Some(Foreign {
            pid,
            ruby: true,
            root: root_of(Path::new(DEFAULT_FILE), environment),
        });
    }
    let polls = words
        .iter()
        .skip(1)
        .any(|word| word == "run" || word == "start" || word == "restart");
    if Path::new(first).file_name()? != "codedeploy-agent" || !polls {
        return None;
    }
    let file = configuration_of(words).unwrap_or_else(|| DEFAULT_FILE.into());
    Some(Foreign {
        pid,
        ruby: false,
        root: root_of(&file, environment),
    })
}

fn configuration_of(words: &[OsString]) -> Option<PathBuf> {
    let mut words = words.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        for option in ["--config-file", "--config_file"] {
            match word.strip_prefix(option) {
                Some("") => return words.next().map(PathBuf::from),
                Some(value) => return value.strip_prefix('=').map(PathBuf::from),
                None => {}
            }
        }
    }
    None
}

/// Reads the `root_dir` of a configuration; if the default file is missing, the defaults count.
fn root_of(file: &Path, environment: &Environment) -> Option<PathBuf> {
    let named = (file != Path::new(DEFAULT_FILE)).then_some(file);
    Settings::load(named, environment)
        .ok()
        .map(|(settings, _)| settings.root_dir)
}

/// The agent that a unit or an init script starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starter {
    ThisAgent,
    AwsAgent,
    Neither,
}

/// This agent's unit runs it in the foreground (`run`); AWS's units and scripts start it in the
/// background (`start`).
fn starter(text: &[u8]) -> Starter {
    let text = String::from_utf8_lossy(text);
    let mut found = Starter::Neither;
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with(['#', ';']))
    {
        let Some((_, command)) = line.split_once(AWS_PROGRAM) else {
            continue;
        };
        if command.starts_with("with-profile ") || command.starts_with("codedeploy-agent run") {
            found = Starter::ThisAgent;
        } else {
            return Starter::AwsAgent;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn seen(words: &[&str]) -> Option<Foreign> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        foreign(7, &words, &Environment::default())
    }

    #[test]
    fn agents_are_known_by_their_command_line() {
        assert!(seen(&["codedeploy-agent: master 4711", ""]).unwrap().ruby);
        assert_eq!(
            seen(&["codedeploy-agent: InstanceAgent::Plugins::CodeDeployPlugin of master 1"]),
            None
        );
        for none in [
            &["vi", "codedeploy-agent.yml"][..],
            &["codedeploy-agent", "status"],
            &["sh"],
            &[""],
            &[],
        ] {
            assert_eq!(seen(none), None, "{none:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yml");
        fs::write(&file, "root_dir: /srv/other\n").unwrap();
        let file = file.to_str().unwrap();
        let joined = format!("--config_file={file}");
        for words in [
            &["/usr/bin/codedeploy-agent", "run", "--config-file", file][..],
            &["codedeploy-agent", joined.as_str(), "start"],
        ] {
            let found = seen(words).unwrap();
            assert_eq!(
                (found.ruby, found.root.as_deref()),
                (false, Some(Path::new("/srv/other")))
            );
        }
    }

    #[test]
    fn another_agent_matters_most_on_the_same_root() {
        let root = Path::new("/r");
        let agent = |ruby, root: Option<&str>| Foreign {
            pid: 7,
            ruby,
            root: root.map(PathBuf::from),
        };
        let cases = [
            (vec![], vec![], None, Verdict::Ok, "no other agent"),
            (
                vec![agent(true, Some("/other"))],
                vec![],
                None,
                Verdict::Warning,
                "process 7",
            ),
            (
                vec![agent(false, Some("/other"))],
                vec![],
                None,
                Verdict::Ok,
                "no other agent",
            ),
            (
                vec![agent(false, None)],
                vec![],
                None,
                Verdict::Warning,
                "process 7",
            ),
            (
                vec![agent(true, Some("/o")), agent(false, Some("/r"))],
                vec![],
                None,
                Verdict::Problem,
                "/r",
            ),
            (
                vec![],
                vec!["/etc/init.d/codedeploy-agent"],
                None,
                Verdict::Warning,
                "next boot",
            ),
            (
                vec![],
                vec![],
                Pid::from_raw(1),
                Verdict::Warning,
                "names process 1",
            ),
        ];
        for (running, enabled, named, verdict, text) in cases {
            let check = judge(root, &running, &enabled, named, false);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text.contains(text), "{check:?}");
        }
    }

    #[test]
    fn advice_never_disables_the_unit_of_this_agent() {
        let other = Foreign {
            pid: 7,
            ruby: true,
            root: Some("/r".into()),
        };
        let check = judge(Path::new("/r"), &[other], &[], None, true);
        assert_eq!(check.verdict, Verdict::Problem);
        assert!(!check.advice.unwrap().contains("disable"));
    }

    #[test]
    fn units_are_told_apart_by_what_they_start() {
        let ours = "[Unit]\nDescription=CodeDeploy agent\n[Service]\n\
            ExecStart=/opt/codedeploy-agent/bin/with-profile /opt/codedeploy-agent/bin/codedeploy-agent run\n";
        assert_eq!(starter(ours.as_bytes()), Starter::ThisAgent);
        assert_eq!(
            starter(b"ExecStart=/opt/codedeploy-agent/bin/codedeploy-agent run -v\n"),
            Starter::ThisAgent
        );
        for theirs in [
            "ExecStart=/bin/bash -a -c '[ -f /etc/profile ] && source /etc/profile; \
             /opt/codedeploy-agent/bin/codedeploy-agent start'\n",
            "ExecStart=/opt/codedeploy-agent/bin/codedeploy-agent start\nExecStop=/opt/codedeploy-agent/bin/codedeploy-agent stop\n",
            "#!/bin/sh\nDAEMON=/opt/codedeploy-agent/bin/codedeploy-agent\n$DAEMON start\n",
        ] {
            assert_eq!(starter(theirs.as_bytes()), Starter::AwsAgent, "{theirs}");
        }
        for neither in [
            &b""[..],
            b"\xff\xfe",
            b"# /opt/codedeploy-agent/bin/codedeploy-agent start\n",
        ] {
            assert_eq!(starter(neither), Starter::Neither);
        }
    }
}
