//! The exit codes: the page, the help texts, and the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::service::Service;

/// Codes and their meanings, by command.
type Codes = BTreeMap<String, BTreeMap<u8, String>>;

const WRONG_USAGE: &str = "wrong usage";

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(path).unwrap()
}

/// The codes in the snapshots of all help texts.
fn of_help() -> Codes {
    let mut codes = Codes::new();
    for program in ["agent", "local", "controller"] {
        let snapshot =
            format!("tests/tests/suite/snapshots/suite__help__codedeploy-{program}.snap");
        let (mut command, mut in_codes) = (String::new(), false);
        for line in repository(&snapshot).lines() {
            if let Some(words) = line.strip_prefix("$ ") {
                command = words.trim_end_matches(" --help").to_owned();
                codes.entry(command.clone()).or_default();
                in_codes = false;
            } else if line == "Exit codes:" {
                in_codes = true;
            } else if in_codes && let Some(code) = line.strip_prefix("  ") {
                let (code, meaning) = code.split_once("  ").unwrap();
                let before = codes
                    .get_mut(&command)
                    .unwrap()
                    .insert(code.parse().unwrap(), meaning.to_owned());
                assert_eq!(before, None, "{command}: {code}");
            } else {
                in_codes = false;
            }
        }
    }
    codes
}

/// The codes on the page. All commands have the code for wrong usage, which has no row of its own.
fn of_page() -> Codes {
    let mut codes = Codes::new();
    for line in repository("docs/exit-codes.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", command, code, meaning, ""] = cells[..]
            && let Some(command) = command
                .strip_prefix('`')
                .and_then(|it| it.strip_suffix('`'))
        {
            let before = codes
                .entry(command.to_owned())
                .or_default()
                .insert(code.parse().unwrap(), meaning.to_owned());
            assert_eq!(before, None, "{command}: {code}");
        }
    }
    codes
}

#[test]
fn the_page_has_the_codes_of_every_help_text() {
    let mut help = of_help();
    let mut missing: Vec<&String> = help
        .iter()
        .filter(|(_, codes)| !codes.contains_key(&2))
        .map(|(command, _)| command)
        .collect();
    missing.retain(|command| !command.is_empty());
    assert!(
        missing.is_empty(),
        "no exit codes in the help of {missing:?}"
    );
    for codes in help.values_mut() {
        codes.retain(|_, meaning| meaning != WRONG_USAGE);
    }
    let rows = |codes: &Codes| -> BTreeSet<String> {
        codes
            .iter()
            .flat_map(|(command, codes)| {
                codes
                    .iter()
                    .map(move |(code, meaning)| format!("| `{command}` | {code} | {meaning} |"))
            })
            .collect()
    };
    let (help, page) = (rows(&help), rows(&of_page()));
    let only = |left: &BTreeSet<String>, right: &BTreeSet<String>| {
        left.difference(right)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(
        help == page,
        "docs/exit-codes.md lacks:\n{}\nand has only itself:\n{}",
        only(&help, &page),
        only(&page, &help)
    );
}

/// Programs in a folder of their own, and the codes with which they ended.
struct Runs {
    folder: tempfile::TempDir,
    ended: BTreeSet<(String, u8)>,
}

impl Runs {
    /// Runs a program. The command of `words` begins with `command` words. An error begins with the
    /// program's name.
    async fn run(
        &mut self,
        name: &str,
        program: &Program,
        command: usize,
        words: &[&str],
        code: u8,
    ) {
        let output = program
            .command(words)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("AWS_REGION")
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code.into()),
            "{name} {words:?}: {out}{err}"
        );
        // These print results, and the status has the words of AWS's agents.
        let prints = ["status", "doctor", "journal", "validate", "plan"];
        let has_result =
            words.first().is_some_and(|word| prints.contains(word)) || words.contains(&"unsound");
        let speaker = if words.first() == Some(&"deploy-local") {
            "codedeploy-local"
        } else {
            name
        };
        if code != 0 && !has_result {
            assert!(
                err.lines()
                    .any(|line| line.starts_with(&format!("{speaker}: "))),
                "{name} {words:?}: {out}{err}"
            );
        }
        let command = [&[name], &words[..command]].concat().join(" ");
        self.ended.insert((command, code));
    }
}

#[tokio::test]
async fn the_programs_end_with_the_codes_of_the_page() {
    let Programs {
        controller,
        agent,
        local,
    } = Programs::built();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let settings = format!(
        "root_dir: {0}/root\nlog_dir: {0}/log\npid_dir: {0}/run\non_premises_config_file: {0}/none\n",
        folder.path().display()
    );
    fs::write(at("agent.yml"), settings).unwrap();
    fs::write(at("sound.yml"), "region: eu-west-1\n").unwrap();
    fs::write(at("wrong.yml"), "no_such_setting: 1\nlisten: [\n").unwrap();
    let appspec = "version: 0.0\nos: linux\n";
    for bundle in ["sound", "unsound"] {
        fs::create_dir(at(bundle)).unwrap();
        fs::write(at(&format!("{bundle}/appspec.yml")), appspec).unwrap();
    }
    let failing = format!("{appspec}hooks:\n  AfterInstall:\n    - location: none.sh\n");
    fs::write(at("unsound/appspec.yml"), failing).unwrap();
    let (conf, wrong, data) = (at("agent.yml"), at("wrong.yml"), at("data"));
    let sound = at("sound.yml");
    let sound = sound.as_str();
    let (conf, wrong, data) = (conf.as_str(), wrong.as_str(), data.as_str());
    let mut runs = Runs {
        folder,
        ended: BTreeSet::new(),
    };

    let name = "codedeploy-agent";
    for (code, words) in [
        (0, &["status", "--help"][..]),
        (1, &["run", "--config-file", wrong]),
        (1, &["start", "--config-file", wrong]),
        (0, &["stop", "--config-file", conf]),
        (1, &["stop", "--config-file", wrong]),
        (1, &["restart", "--config-file", wrong]),
        (3, &["status", "--config-file", conf]),
        (4, &["status", "--config-file", wrong]),
        (1, &["doctor", "--config-file", wrong]),
        (0, &["journal", "--config-file", conf]),
        (1, &["journal", "--config-file", wrong]),
        (
            1,
            &[
                "rollback",
                "--deployment-group",
                "web",
                "--config-file",
                conf,
            ],
        ),
        (0, &["logs", "--config-file", conf]),
        (1, &["logs", "--config-file", wrong]),
        (0, &["config", "--config-file", conf]),
        (1, &["config", "--config-file", wrong]),
        (0, &["deploy-local", "-l", "sound", "--config-file", conf]),
        (1, &["deploy-local", "-l", "none", "--config-file", conf]),
        (
            1,
            &[
                "deregister",
                "--instance-name",
                "box1",
                "--region",
                "us-east-1",
                "--config-file",
                wrong,
            ],
        ),
    ] {
        runs.run(name, &agent, 1, words, code).await;
    }
    runs.run(name, &agent, 1, &["status", "--no-such-option"], 2)
        .await;
    runs.run(name, &agent, 0, &["no-such-command"], 2).await;

    let name = "codedeploy-local";
    for (code, command, words) in [
        (0, 0, &["-l", "sound", "-c", conf][..]),
        (1, 0, &["-l", "unsound", "-c", conf]),
        (2, 0, &["--no-such-option"]),
        (0, 1, &["plan", "-l", "sound", "-c", conf]),
        (1, 1, &["plan", "-l", "unsound", "-c", conf]),
        (2, 1, &["plan", "--no-such-option"]),
        (0, 1, &["validate", "sound"]),
        (1, 1, &["validate", "unsound"]),
        (2, 1, &["validate", "none.yml"]),
        (2, 1, &["validate", "--no-such-option"]),
    ] {
        runs.run(name, &local, command, words, code).await;
    }

    let name = "codedeploy-controller";
    let service = Service::start(&Programs::built(), Path::new(data)).await;
    service.stop().await;
    let file = runs.folder.path().join("backup").display().to_string();
    for (code, command, words) in [
        (
            78,
            1,
            &["serve", "--data-dir", data, "--config-file", wrong][..],
        ),
        (
            0,
            1,
            &["config", "--data-dir", data, "--config-file", sound],
        ),
        (
            78,
            1,
            &["config", "--data-dir", data, "--config-file", wrong],
        ),
        (
            0,
            2,
            &[
                "credentials",
                "create",
                "--role",
                "operator",
                "--data-dir",
                data,
            ],
        ),
        (0, 2, &["credentials", "list", "--data-dir", data]),
        (
            1,
            2,
            &["credentials", "revoke", "AKIANONE", "--data-dir", data],
        ),
        (0, 2, &["host", "list", "--data-dir", data]),
        (1, 2, &["host", "remove", "none", "--data-dir", data]),
        (0, 2, &["github-token", "list", "--data-dir", data]),
        (
            1,
            2,
            &["github-token", "remove", "none", "--data-dir", data],
        ),
        (0, 1, &["backup", &file, "--data-dir", data]),
        (0, 1, &["restore", &file, "--data-dir", data]),
        (1, 1, &["restore", "none", "--data-dir", data]),
        (2, 1, &["serve", "--no-such-option"]),
    ] {
        runs.run(name, &controller, command, words, code).await;
    }

    let page = of_page();
    for (command, code) in &runs.ended {
        assert!(
            *code == 2
                || page
                    .get(command)
                    .is_some_and(|codes| codes.contains_key(code)),
            "docs/exit-codes.md lacks the code {code} of {command}"
        );
    }
}

#[tokio::test]
async fn every_program_names_its_version_and_its_build() {
    let Programs {
        controller,
        agent,
        local,
    } = Programs::built();
    for (name, program) in [
        ("codedeploy-agent", agent),
        ("codedeploy-local", local),
        ("codedeploy-controller", controller),
    ] {
        let output = program.output(["--version"]).await;
        assert!(output.status.success());
        let line = String::from_utf8(output.stdout).unwrap();
        let version = format!("{name} {} (", env!("CARGO_PKG_VERSION"));
        let build = line
            .strip_prefix(&version)
            .unwrap_or_else(|| panic!("{line}"));
        let build = build
            .strip_suffix(")\n")
            .unwrap_or_else(|| panic!("{line}"));
        let (source, architecture) = build.rsplit_once(", ").unwrap();
        assert_eq!(architecture, std::env::consts::ARCH);
        assert!(
            source == "development build" || source.starts_with("commit "),
            "{line}"
        );
    }
}
