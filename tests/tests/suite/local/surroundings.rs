//! The environment that scripts get from their machine: shell, limits, variables and umask, and
//! none of the agent's secrets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use codedeploy_tests::bundle;
use codedeploy_tests::mounts::in_own_mounts;
use codedeploy_tests::programs::{Program, Programs};

use super::machine::{Machine, Ran, ran};

const APPSPEC: &str = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n";

/// An account and files of /etc that only this test's machine has.
struct Accounts {
    folder: PathBuf,
}

impl Accounts {
    fn with_app(machine: &Machine, shell: &str) -> Self {
        let accounts = Self {
            folder: machine.path("etc"),
        };
        fs::create_dir(&accounts.folder).unwrap();
        let home = machine.path("home");
        fs::create_dir(&home).unwrap();
        let lines = [
            (
                "passwd",
                format!("app:x:12345:12345::{}:{shell}", home.display()),
            ),
            ("group", "app:x:12345:".to_owned()),
            ("shadow", "app:*:19000:0:99999:7:::".to_owned()),
        ];
        for (file, line) in lines {
            let found = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            accounts.replace(&format!("/etc/{file}"), &format!("{found}{line}\n"));
        }
        accounts
    }

    /// Mounts a file with this content over an existing one.
    fn replace(&self, path: &str, content: &str) {
        let own = self
            .folder
            .join(path.trim_start_matches('/').replace('/', "-"));
        fs::write(&own, content).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).unwrap();
        if !Path::new(path).exists() {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        }
        bind(&own, path);
    }

    /// Mounts an empty folder over an existing one.
    fn empty(&self, path: &str) {
        let own = self.folder.join("empty");
        fs::create_dir_all(&own).unwrap();
        bind(&own, path);
    }
}

fn bind(own: &Path, path: &str) {
    let none = None::<&str>;
    nix::mount::mount(Some(own), path, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
}

/// Fails on a machine that lacks a path over which a test mounts its own files.
fn needs(paths: &[&str]) {
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !Path::new(path).exists())
        .collect();
    assert!(missing.is_empty(), "this machine has no {missing:?}");
}

impl Machine {
    fn hooks(&self, scripts: &[(&str, &str, Option<&str>)]) -> PathBuf {
        let mut appspec = APPSPEC.to_owned();
        for (name, _, user) in scripts {
            appspec += &format!("    - location: {name}\n      timeout: 30\n");
            user.iter()
                .for_each(|user| appspec += &format!("      runas: {user}\n"));
        }
        let mut files = vec![("appspec.yml", appspec.as_str())];
        files.extend(scripts.iter().map(|(name, text, _)| (*name, *text)));
        let folder = self.path("hooks");
        bundle::write(&folder, &files);
        folder
    }

    fn configure(&self, line: &str) {
        let configured = fs::read_to_string(self.path("conf.yml")).unwrap();
        fs::write(self.path("conf.yml"), format!("{configured}{line}\n")).unwrap();
    }

    /// The output of scripts.
    fn script_output(&self) -> String {
        let log = self.path("root/deployment-logs/codedeploy-agent-deployments.log");
        let log = fs::read_to_string(log).unwrap_or_default();
        let output = log.lines().filter_map(|line| line.split_once("[stdout]"));
        output.map(|(_, line)| format!("{line}\n")).collect()
    }
}

async fn deploy(machine: &Machine, revision: &Path) -> Ran {
    machine.deploy(&["-l", revision.to_str().unwrap()]).await
}

#[test]
#[ignore = "needs root"]
fn the_login_shell_of_the_user_runs_a_script_without_an_interpreter_which_needs_root() {
    const BASH: &str = "# deploys\nlist=(a b)\n[[ ${#list[@]} == 2 ]] && echo \"bash ran it\"\n";
    in_own_mounts(async || {
        let machine = Machine::new();
        Accounts::with_app(&machine, "/bin/bash");
        let plain = "# plain\necho \"sh ran it in $SHELL\"\n";
        let revision = machine.hooks(&[
            ("my script.sh", BASH, Some("app")),
            ("plain.sh", plain, None),
            ("nobodys.sh", plain, Some("nobody")),
        ]);
        let ran = deploy(&machine, &revision).await;
        assert!(ran.succeeded, "{}", ran.everything());
        let output = machine.script_output();
        assert!(output.starts_with("bash ran it\nsh ran it in "), "{output}");
        assert!(
            output.lines().nth(2).unwrap().ends_with("/nologin"),
            "{output}"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn an_account_without_a_usable_shell_gets_the_systems_which_needs_root() {
    for shell in ["", "/no/such/shell", "/bin/false", "/bin/sync", "relative"] {
        in_own_mounts(async move || {
            let machine = Machine::new();
            Accounts::with_app(&machine, shell);
            let revision = machine.hooks(&[("a.sh", "echo \"$0 $SHELL\"\n", Some("app"))]);
            let ran = deploy(&machine, &revision).await;
            assert!(ran.succeeded, "{shell}: {}", ran.everything());
            let expected = if shell.is_empty() { "/bin/sh" } else { shell };
            assert!(
                machine
                    .script_output()
                    .ends_with(&format!("/a.sh {expected}\n")),
                "{shell}"
            );
        });
    }
}

#[tokio::test]
async fn what_stands_before_an_interpreter_line_is_warned_of() {
    let machine = Machine::new();
    let revision = machine.hooks(&[("a.sh", "\u{feff}#!/bin/bash\necho ran\n", None)]);
    let ran = deploy(&machine, &revision).await;
    assert!(ran.succeeded, "{}", ran.everything());
    assert!(
        ran.stderr
            .contains("a.sh: a byte-order mark stands before its #!"),
        "{}",
        ran.everything()
    );

    let checked = Programs::built()
        .local
        .output(["validate", revision.to_str().unwrap()])
        .await;
    assert!(checked.status.success());
    assert!(
        String::from_utf8_lossy(&checked.stdout).contains("a byte-order mark"),
        "{checked:?}"
    );
}

const LOGIN: &str = "#!/bin/bash\necho \"$APP_ENV $LANG $DEPLOYMENT_GROUP_NAME [$CODEDEPLOY_TOKEN] [$LD_PRELOAD] \
    $(ulimit -Sn)/$(ulimit -Hn)\"\n";
const LOGIN_FILES: [&str; 3] = [
    "/etc/environment",
    "/etc/security/limits.conf",
    "/etc/default/locale",
];

fn logins(machine: &Machine) -> Accounts {
    let accounts = Accounts::with_app(machine, "/bin/bash");
    let environment = "APP_ENV=production\nDEPLOYMENT_GROUP_NAME=other\nCODEDEPLOY_TOKEN=t\n";
    accounts.replace("/etc/environment", environment);
    accounts.replace("/etc/default/locale", "LANG=ko_KR.UTF-8\n");
    accounts.replace(
        "/etc/security/limits.conf",
        "@app soft nofile 777\napp hard nofile 888\n* hard nofile 5\n",
    );
    accounts
}

#[test]
#[ignore = "needs root"]
fn a_user_has_what_a_session_of_su_gives_which_needs_root() {
    needs(&LOGIN_FILES);
    needs(&["/etc/pam.d/su"]);
    in_own_mounts(async || {
        let machine = Machine::new();
        let accounts = logins(&machine);
        let marks =
            [machine.path("opened"), machine.path("closed")].map(|path| path.display().to_string());
        let note = machine.path("note.sh");
        let [opened, closed] = &marks;
        let lines = format!(
            "#!/bin/sh\n[ $PAM_TYPE = open_session ] && touch {opened} || touch {closed}\n"
        );
        fs::write(&note, lines).unwrap();
        fs::set_permissions(&note, fs::Permissions::from_mode(0o755)).unwrap();
        let stack = format!(
            "auth sufficient pam_rootok.so\nsession required pam_env.so readenv=1\n\
             session required pam_env.so readenv=1 envfile=/etc/default/locale\n\
             session required pam_limits.so\nsession required pam_exec.so {}\n",
            note.display()
        );
        accounts.replace("/etc/pam.d/su", &stack);
        let revision = machine.hooks(&[("a.sh", LOGIN, Some("app"))]);
        let ran = deploy(&machine, &revision).await;
        assert!(ran.succeeded, "{}", ran.everything());
        assert_eq!(
            machine.script_output(),
            "production ko_KR.UTF-8 LocalFleet [] [] 777/888\n"
        );
        assert!(
            marks.iter().all(|mark| Path::new(mark).exists()),
            "opened, and closed again"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn without_pam_what_it_would_read_is_read_which_needs_root() {
    needs(&LOGIN_FILES);
    needs(&["/etc/pam.d"]);
    in_own_mounts(async || {
        let machine = Machine::new();
        let accounts = logins(&machine);
        accounts.empty("/etc/pam.d");
        if Path::new("/usr/lib/pam.d/su").exists() {
            accounts.empty("/usr/lib/pam.d");
        }
        let revision = machine.hooks(&[("a.sh", LOGIN, Some("app"))]);
        let ran = deploy(&machine, &revision).await;
        assert!(ran.succeeded, "{}", ran.everything());
        assert_eq!(
            machine.script_output(),
            "production ko_KR.UTF-8 LocalFleet [] [] 777/888\n"
        );
    });
}

#[test]
#[ignore = "needs root"]
fn a_session_that_su_would_be_refused_fails_the_script_unless_sessions_are_off_which_needs_root() {
    needs(&LOGIN_FILES);
    needs(&["/etc/pam.d/su"]);
    in_own_mounts(async || {
        let machine = Machine::new();
        let accounts = logins(&machine);
        accounts.replace(
            "/etc/pam.d/su",
            "auth sufficient pam_rootok.so\nsession required pam_deny.so\n",
        );
        let revision = machine.hooks(&[("a.sh", LOGIN, Some("app"))]);
        let refused = deploy(&machine, &revision).await;
        assert!(!refused.succeeded, "{}", refused.everything());
        for part in [
            "a.sh run as user app could not be started: the PAM session of su cannot be opened",
            "runas_session: false",
        ] {
            assert!(
                refused.stdout.contains(part),
                "{part}: {}",
                refused.everything()
            );
        }
        assert_eq!(machine.script_output(), "");

        machine.configure("runas_session: false");
        let ran = deploy(&machine, &revision).await;
        assert!(ran.succeeded, "{}", ran.everything());
        let output = machine.script_output();
        assert!(
            !output.contains("production") && !output.contains("777"),
            "{output}"
        );
    });
}

#[tokio::test]
async fn no_token_of_whoever_deploys_reaches_a_script() {
    let machine = Machine::new();
    let mut scripts = vec![("a.sh", "#!/bin/sh\nenv\n", None)];
    if nix::unistd::geteuid().is_root() {
        scripts.push(("b.sh", "#!/bin/sh\nenv\n", Some("nobody")));
    }
    let revision = machine.hooks(&scripts);
    let configuration = machine.path("conf.yml");
    let mut command = Programs::built()
        .local
        .command(["-c", configuration.to_str().unwrap()]);
    command.args(["-l", revision.to_str().unwrap()]);
    for name in [
        "CODEDEPLOY_GITHUB_TOKEN",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "CODEDEPLOY_OTHER",
    ] {
        command.env(name, "canary");
    }
    let ran = ran(command.output().await.unwrap());
    assert!(ran.succeeded, "{}", ran.everything());
    let output = machine.script_output();
    assert_eq!(
        output.matches("LIFECYCLE_EVENT=AfterInstall").count(),
        scripts.len(),
        "{output}"
    );
    assert!(
        !output.contains("canary") && !ran.everything().contains("canary"),
        "{output}"
    );
}

#[tokio::test]
async fn folders_and_what_scripts_make_follow_the_umask_and_scripts_can_be_reached_whatever_it_is()
{
    let local = PathBuf::from(
        Programs::built()
            .local
            .command::<&str>([])
            .as_std()
            .get_program(),
    );
    for (umask, folder, file) in [
        ("027", 0o750, 0o640),
        ("077", 0o700, 0o600),
        ("002", 0o775, 0o664),
    ] {
        let machine = Machine::new();
        fs::create_dir(machine.path("root")).unwrap();
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: web\n    destination: {}\nhooks:\n  AfterInstall:\n    \
             - location: scripts/a.sh\n{}",
            machine.app(),
            if nix::unistd::geteuid().is_root() {
                "    - location: scripts/b.sh\n      runas: nobody\n"
            } else {
                ""
            }
        );
        let made = machine.path("by-script");
        let script = format!("#!/bin/sh\necho 1 > {}\n", made.display());
        let revision = machine.path("revision");
        bundle::write(
            &revision,
            &[
                ("appspec.yml", &appspec),
                ("web/d/i", "1"),
                ("scripts/a.sh", &script),
                ("scripts/b.sh", "#!/bin/sh\nid -un\n"),
            ],
        );
        let command = format!(
            "umask {umask}; exec {} -c {} -l {}",
            local.display(),
            machine.path("conf.yml").display(),
            revision.display()
        );
        let ran = ran(Program::at("/bin/sh").output(["-c", &command]).await);
        assert!(ran.succeeded, "{umask}: {}", ran.everything());
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        let app = machine.path("app");
        assert_eq!(
            [mode(&app), mode(&app.join("d")), mode(&made)],
            [folder, folder, file],
            "{umask}"
        );
    }
}

#[tokio::test]
async fn a_process_without_a_trace_of_its_script_does_not_outlive_a_timeout() {
    let machine = Machine::new();
    let pid = machine.path("escaped");
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\n(setsid env -i /bin/sh -c 'trap \"\" TERM; echo $$ > {}; exec /bin/sleep 60' \
         >/dev/null 2>&1 </dev/null &)\nsleep 60\n",
        pid.display()
    );
    let revision = machine.hooks(&[("a.sh", &script, None)]);
    let appspec = fs::read_to_string(revision.join("appspec.yml"))
        .unwrap()
        .replace("timeout: 30", "timeout: 2");
    fs::write(revision.join("appspec.yml"), appspec).unwrap();
    machine.configure("hook_kill_grace: 1");
    let ran = deploy(&machine, &revision).await;
    assert!(
        !ran.succeeded && ran.stdout.contains("failed to complete in 2 seconds"),
        "{}",
        ran.everything()
    );
    let pid = fs::read_to_string(pid).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn how_long_output_is_waited_for_is_a_setting_that_the_message_names() {
    let machine = Machine::new();
    let pid = machine.path("holder");
    let script = format!("#!/bin/sh\nsleep 60 & echo $! > {}\n", pid.display());
    let revision = machine.hooks(&[("a.sh", &script, None)]);
    machine.configure("output_drain_seconds: 0.2");
    let ran = deploy(&machine, &revision).await;
    let holder: i32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(holder),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let expected = format!(
        "stayed open for 0.2 more seconds (output_drain_seconds); held by process {holder}"
    );
    assert!(
        !ran.succeeded && ran.stdout.contains(&expected),
        "{}",
        ran.everything()
    );
}

#[tokio::test]
async fn a_program_gets_umask_and_limits_of_the_profile_as_well_as_its_variables() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("systemd/with-profile");
    let profile = folder.path().join("profile");
    let said = async |lines: &str| {
        fs::write(&profile, lines).unwrap();
        let mut command = Program::at(&program).command([
            "/bin/bash",
            "-c",
            "echo $(umask) $(ulimit -Sn)/$(ulimit -Hn) $(ulimit -c) $A",
        ]);
        command
            .env("CODEDEPLOY_PROFILE", &profile)
            .env("RUNTIME_DIRECTORY", folder.path());
        let output = command.output().await.unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(
        said("umask 027; ulimit -c 0; ulimit -Sn 200; ulimit -Hn 300; A=b").await,
        "0027 200/300 0 b"
    );
    assert_eq!(
        said("set -u -o noclobber; umask 077; ulimit -c 0; ulimit -n 250").await,
        "0077 250/250 0"
    );
    let own = said(":").await;
    assert_eq!(
        said("umask 027; ulimit -n 100; exit 1").await,
        own,
        "a profile that ends its shell counts in nothing"
    );
}
