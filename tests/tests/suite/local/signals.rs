//! A signal ends a local deployment properly; a plan leaves nothing behind.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use codedeploy_tests::programs::{Program, Programs};
use codedeploy_tests::{bundle, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::machine::Machine;

const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
];

fn is_there(pid: Pid) -> bool {
    // A zombie has ended.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn local() -> OsString {
    Programs::built()
        .local
        .command::<&str>([])
        .as_std()
        .get_program()
        .to_owned()
}

#[tokio::test]
async fn every_signal_that_ends_ends_the_script_first_and_says_so() {
    for signal in ENDING {
        let machine = Machine::new();
        let pid = machine.path("pid");
        let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: a.sh\n";
        let script = format!(
            "#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nsleep 600\n",
            pid.display()
        );
        bundle::write(
            &machine.path("b"),
            &[("appspec.yml", appspec), ("a.sh", &script)],
        );
        // The terminal of whoever runs the tests may be gone already.
        let mut command = Program::at("env").command(["--default-signal"]);
        let child = command
            .arg(local())
            .args(["-c", machine.path("conf.yml").to_str().unwrap(), "-l"])
            .arg(machine.path("b"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let script = wait::until("the script runs", async || fs::read_to_string(&pid)).await;
        let script = Pid::from_raw(script.trim().parse().unwrap());
        kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            (output.status.code(), output.status.signal()),
            (Some(1), None),
            "{signal}: {said}"
        );
        assert!(
            said.contains("failed at AfterInstall")
                && said.contains("the script a.sh ran, and ended it"),
            "{signal}: {said}"
        );
        assert!(!is_there(script), "{signal}: the script runs on");
    }
}

#[tokio::test]
async fn a_hangup_that_is_ignored_ends_nothing() {
    let machine = Machine::new();
    let (begun, gate) = (machine.path("begun"), machine.path("gate"));
    let appspec = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: a.sh\n";
    let script = format!(
        "#!/bin/sh\ntouch {}\nwhile [ ! -e {} ]; do sleep 0.05; done\n",
        begun.display(),
        gate.display()
    );
    bundle::write(
        &machine.path("b"),
        &[("appspec.yml", appspec), ("a.sh", &script)],
    );
    let mut command = Program::at("nohup").command([local()]);
    command
        .args(["-c", machine.path("conf.yml").to_str().unwrap(), "-l"])
        .arg(machine.path("b"));
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait::until("the script runs", async || fs::metadata(&begun)).await;
    kill(
        Pid::from_raw(child.id().unwrap().cast_signed()),
        Signal::SIGHUP,
    )
    .unwrap();
    fs::write(&gate, "").unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[tokio::test]
async fn a_plan_that_a_signal_ends_leaves_nothing_behind() {
    for signal in ENDING {
        let machine = Machine::new();
        let folder = machine.path("b");
        bundle::write(&folder, &[("appspec.yml", "version: 0.0\nos: linux\n")]);
        for number in 0..2000 {
            let below = folder.join(format!("f{}", number / 100));
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join(number.to_string()), [b'x'; 4096]).unwrap();
        }
        fs::write(machine.path("b.tar"), bundle::tar(&folder)).unwrap();
        let tmp = machine.path("tmp");
        fs::create_dir(&tmp).unwrap();
        let mut command = Programs::built().local.command([
            "plan",
            "-t",
            "tar",
            "-c",
            machine.path("conf.yml").to_str().unwrap(),
            "-l",
        ]);
        command
            .arg(machine.path("b.tar"))
            .env("TMPDIR", &tmp)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait::until("it unpacks", async || {
            if files(&tmp) > 20 { Ok(()) } else { Err(()) }
        })
        .await;
        kill(Pid::from_raw(child.id().unwrap().cast_signed()), signal).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.signal(), None, "{signal}");
        assert_eq!(
            fs::read_dir(&tmp).unwrap().count(),
            0,
            "{signal}: {:?}",
            fs::read_dir(&tmp).unwrap().next()
        );
    }
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| {
            if entry.path().is_dir() {
                files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}
