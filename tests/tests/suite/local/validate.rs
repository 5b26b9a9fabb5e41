//! `codedeploy-local validate`: AppSpec files checked as in CI.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;
use tokio::io::AsyncWriteExt;

const GOOD: &str = "version: 0.0\nos: linux\n";
const BAD: &str = "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: srv\nhooks:\n  Deploy, now:\n    \
                   - location: a.sh\n      timeout: 5m\n";
const ODD: &str = "version: 0.0\nos: linux\nhooks:\n  BeforeInstal:\n    - location: a.sh\n";

/// Runs in `folder`, so that names are short; returns the exit code and the output.
async fn validate(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Programs::built()
        .local
        .command([&["validate"][..], arguments].concat());
    let output = command.current_dir(folder).output().await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    bundle::write(folder.path(), files);
    folder
}

#[tokio::test]
async fn findings_have_file_line_and_column_and_decide_the_exit_code() {
    let folder = folder(&[("good.yml", GOOD), ("odd.yml", ODD)]);
    assert_eq!(
        validate(folder.path(), &["good.yml"]).await,
        (0, "1 file: 0 errors, 0 warnings\n".into())
    );
    let (code, text) = validate(folder.path(), &["good.yml", "odd.yml"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("odd.yml:4:3: warning: hooks.BeforeInstal: "),
        "{text}"
    );
    assert!(text.ends_with("2 files: 0 errors, 1 warning\n"), "{text}");
    let (code, text) = validate(folder.path(), &["--strict", "odd.yml"]).await;
    assert!(
        code == 1 && text.contains("odd.yml:4:3: error: "),
        "{code}: {text}"
    );
}

#[tokio::test]
async fn annotations_of_github_are_escaped() {
    let folder = folder(&[("a,b:c%.yml", "version: 0.0\nos: \"100%\\nlinux\"\n")]);
    let (code, text) = validate(folder.path(), &["--format", "github", "a,b:c%.yml"]).await;
    assert_eq!(code, 1, "{text}");
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("::error file=a%2Cb%3Ac%25.yml,line=2,col=5,title=AppSpec::os: "),
        "{first}"
    );
    assert!(first.contains("100%25"), "{first}");
    assert_eq!(
        text.lines().count(),
        2,
        "one line per finding, and the summary: {text}"
    );
}

#[tokio::test]
async fn json_holds_every_finding_of_every_file() {
    let folder = folder(&[("bad.yml", BAD), ("good.yml", GOOD)]);
    let (code, text) = validate(
        folder.path(),
        &["--json", "bad.yml", "good.yml", "missing.yml"],
    )
    .await;
    assert_eq!(code, 2, "{text}");
    insta::assert_snapshot!("json", text);
}

#[tokio::test]
async fn a_bundle_is_checked_with_what_its_appspec_names() {
    let appspec = "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: /srv/app\n  - source: gone\n    \
                   destination: /srv/app\nhooks:\n  ApplicationStart:\n    - location: start.sh\n    - location: stop.sh\n    \
                   - location: dos.sh\n";
    let files = [
        ("b/site/page", "x"),
        ("b/start.sh", "echo\n"),
        ("b/dos.sh", "#!/bin/sh\r\n"),
    ];
    let folder = folder(&files);
    bundle::write(folder.path(), &[("b/appspec.yml", appspec)]);
    let (code, text) = validate(folder.path(), &["b"]).await;
    assert_eq!(code, 1, "{text}");
    insta::assert_snapshot!("bundle", text);
}

#[tokio::test]
async fn every_example_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../appspec-examples");
    let names: Vec<String> = fs::read_dir(&examples)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let names: Vec<&str> = ["--strict"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let (code, text) = validate(&examples, &names).await;
    assert_eq!(code, 0, "{text}");
}

#[tokio::test]
async fn whatever_stands_in_a_files_place_is_an_answer_and_never_a_wait() {
    let folder = folder(&[("d/x", ""), ("empty", "")]);
    fs::write(folder.path().join("noise"), vec![0xA5; 10 << 20]).unwrap();
    fs::write(folder.path().join("binary"), b"version: \xff\n").unwrap();
    nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        ("empty", 1, "the file is empty"),
        ("noise", 1, "must not have more than 1048576"),
        ("binary", 1, "is not UTF-8"),
        ("fifo", 2, "found a FIFO, socket or device"),
        ("d", 2, "has no appspec.yml"),
        ("/dev/null", 2, "found a FIFO, socket or device"),
        ("missing", 2, "cannot be read: No such file"),
    ];
    for (name, expected, words) in cases {
        let (code, text) = validate(folder.path(), &[name]).await;
        assert!(
            code == expected && text.contains(words) && text.contains(name),
            "{name}: {code}: {text}"
        );
    }
    let (code, _) = validate(folder.path(), &[]).await;
    assert_eq!(code, 2, "a file must be named");
}

#[tokio::test]
async fn a_dash_is_the_standard_input() {
    let mut command = Programs::built().local.command(["validate", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(BAD.as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("<stdin>:5:18: error: files[0].destination: "),
        "{text}"
    );
}

#[tokio::test]
async fn entries_that_cannot_do_what_they_say_are_warned_of() {
    let head = "version: 0.0\nos: linux\nfiles:\n  - source: web\n    destination: /srv/app\npermissions:\n";
    let entry = |lines: &str| format!("{head}  - object: /srv/app\n    {lines}\n");
    let cases = [
        (entry("pattern: '**/*.sh'"), ":8:14: warning: ", "matches nothing"),
        (entry("except: [bin/console]"), ":8:14: warning: ", "excepts nothing"),
        (entry("mode: 644"), ":8:11: warning: ", "also applies to folders, such as \"/srv/app/bin\""),
        (entry("pattern: 'b*'\n    mode: 640"), ":9:11: warning: ", "such as \"/srv/app/bin\""),
        (
            "version: 0.0\nos: linux\nfiles:\n  - source: /index.html\n    destination: /srv/www/index.html\n".to_owned(),
            ":5:18: warning: ",
            "makes a folder \"index.html\" and puts the file into it; a destination is a folder: write \"/srv/www\"",
        ),
        (
            "version: 0.0\nos: linux\nfiles:\n  - source: /index.html\n    destination: /srv/www/start.html\n".to_owned(),
            ":5:18: warning: ",
            "a file keeps its name",
        ),
    ];
    for (appspec, place, words) in cases {
        let folder = folder(&[
            ("b/web/bin/console", ""),
            ("b/index.html", ""),
            ("b/appspec.yml", &appspec),
        ]);
        let (code, text) = validate(folder.path(), &["b"]).await;
        assert!(
            code == 0 && text.contains(&format!("b/appspec.yml{place}")) && text.contains(words),
            "{code}: {text}"
        );
        assert!(text.ends_with("1 warning\n"), "{text}");
        assert_eq!(validate(folder.path(), &["--strict", "b"]).await.0, 1);
    }
    for lines in [
        "pattern: '*.sh'\n    mode: 644",
        "mode: 644\n    type: [file]",
        "mode: 755",
        "except: [bin]\n    mode: 600\n    pattern: '*'",
    ] {
        let folder = folder(&[("b/web/bin/console", ""), ("b/appspec.yml", &entry(lines))]);
        let (code, text) = validate(folder.path(), &["--strict", "b"]).await;
        assert_eq!(code, 0, "{lines}: {text}");
    }
}

#[tokio::test]
async fn what_a_bundle_does_not_have_comes_with_what_may_be_meant() {
    let files = [
        ("b/target/app-1.2.jar", ""),
        ("b/scripts/a.sh", "#!/bin/sh\n"),
    ];
    let cases = [
        (
            "files: [{source: target/app-*.jar, destination: /srv}]",
            "a source has no wildcards",
            "\"target/app-1.2.jar\"",
        ),
        (
            "files: [{source: Target, destination: /srv}]",
            "did you mean",
            "\"target\"",
        ),
        (
            "hooks: {AfterInstall: [{location: scripts/a.sh worker 3}]}",
            "has no arguments",
            "\"scripts/a.sh\"",
        ),
        (
            "hooks: {AfterInstall: [{location: bash scripts/a.sh}]}",
            "and not a command",
            "\"scripts/a.sh\"",
        ),
        (
            "hooks: {AfterInstall: [{location: /srv/app/scripts/a.sh}]}",
            "\"/srv/app/scripts/a.sh\" is looked up in the revision",
            "\"scripts/a.sh\"",
        ),
        (
            "hooks: {AfterInstall: [{location: script/a.sh}]}",
            "did you mean",
            "\"scripts\"",
        ),
    ];
    for (lines, words, found) in cases {
        let folder = folder(&files);
        bundle::write(
            folder.path(),
            &[(
                "b/appspec.yml",
                &format!("version: 0.0\nos: linux\n{lines}\n"),
            )],
        );
        let (code, text) = validate(folder.path(), &["b"]).await;
        assert!(
            code == 1 && text.contains(words) && text.contains(found),
            "{lines}: {text}"
        );
    }
    let folder = folder(&[("b/deploy/linux/appspec.yml", "")]);
    let (code, text) = validate(folder.path(), &["b"]).await;
    assert!(
        code == 2 && text.contains("this bundle has \"deploy/linux/appspec.yml\""),
        "{text}"
    );
}

#[tokio::test]
async fn a_bundle_is_never_left_through_a_link() {
    let folder = folder(&[
        ("outside.yml", "canary: [\n"),
        ("secret/canary.txt", ""),
        ("b/inside.yml", GOOD),
    ]);
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap()
    };
    link("../outside.yml", "b/appspec.yml");
    let (code, text) = validate(folder.path(), &["b"]).await;
    assert!(
        code == 2 && text.contains("it is a link that leads out") && !text.contains("canary"),
        "{text}"
    );
    fs::remove_file(folder.path().join("b/appspec.yml")).unwrap();
    link("inside.yml", "b/appspec.yml");
    assert_eq!(validate(folder.path(), &["b"]).await.0, 0);
    link("../secret", "b/out");
    let lines = "files: [{source: out/canary.*, destination: /srv}, {source: out/canary.txt, destination: /srv}]\n";
    fs::write(folder.path().join("b/inside.yml"), format!("{GOOD}{lines}")).unwrap();
    let (code, text) = validate(folder.path(), &["b"]).await;
    assert!(
        code == 1 && text.contains("2 errors") && !text.contains("such as"),
        "{text}"
    );
}
