//! Sources of revisions over a bad connection: `codedeploy-local` against servers that fail on
//! purpose.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use codedeploy_tests::bundle;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::s3_stub::{Reply, Request, S3Stub};
use codedeploy_tests::wait;
use tokio::runtime::Handle;

const MIB: usize = 1024 * 1024;

/// The keys for the deployment.
const KEYS: [(&str, &str); 3] = [
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "AKIAPERSON"),
    ("AWS_SECRET_ACCESS_KEY", "top-secret"),
];

/// A machine that deploys what it downloads.
struct Machine {
    folder: tempfile::TempDir,
}

struct Ran {
    succeeded: bool,
    output: String,
    seconds: f64,
}

impl Machine {
    fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let text = format!("root_dir: {}\n{configuration}", root.display());
        fs::write(folder.path().join("conf.yml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tar whose only installed file has `size` incompressible bytes.
    fn revision(&self, size: usize) -> Arc<Vec<u8>> {
        let folder = self.path("revision");
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: data\n    destination: {}\n",
            self.path("app").display()
        );
        bundle::write(&folder, &[("appspec.yml", &appspec)]);
        fs::write(folder.join("data"), noise(size)).unwrap();
        Arc::new(bundle::tar(&folder))
    }

    async fn deploy(&self, location: &str, environment: &[(&str, &str)]) -> Ran {
        let began = Instant::now();
        let mut command = Programs::built()
            .local
            .command(["-t", "tar", "-l", location, "-c"]);
        command
            .arg(self.path("conf.yml"))
            .envs(environment.iter().copied());
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            succeeded: output.status.success(),
            output: text(&output.stdout) + &text(&output.stderr),
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    async fn deploy_from_s3(&self, stub: &S3Stub) -> Ran {
        let [region, id, secret] = KEYS;
        let environment = [
            ("AWS_ENDPOINT_URL_S3", stub.endpoint.as_str()),
            region,
            id,
            secret,
        ];
        self.deploy("s3://bucket/app.tar?versionId=v7", &environment)
            .await
    }

    fn assert_installed(&self, size: usize) {
        assert!(
            fs::read(self.path("app/data")).unwrap() == noise(size),
            "the file is not what was uploaded"
        );
    }

    /// The files of DownloadBundle in the deployment's folder, except logs.
    fn left(&self) -> Vec<String> {
        let group = self.path("root/default-local-deployment-group");
        let deployments = fs::read_dir(group)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let names = deployments.flat_map(|path| fs::read_dir(path).unwrap());
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| name != "logs");
        names.sort();
        names
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(size).collect()
}

fn ranges(stub: &S3Stub) -> Vec<Option<(usize, usize)>> {
    stub.requests().iter().map(Request::range).collect()
}

#[tokio::test]
async fn a_small_object_is_one_request_and_a_large_one_comes_in_four_streams() {
    for (size, streams) in [(MIB, 1), (20 * MIB, 4)] {
        let machine = Machine::new("");
        let body = machine.revision(size);
        let total = body.len();
        let stub = S3Stub::serve(move |_, request| Reply::object(request, &body, "e1")).await;
        let ran = machine.deploy_from_s3(&stub).await;
        assert!(ran.succeeded, "{}", ran.output);
        machine.assert_installed(size);
        let requests = stub.requests();
        assert_eq!(requests.len(), streams, "{requests:?}");
        assert!(
            requests
                .iter()
                .all(|request| request.path.contains("versionId=v7"))
        );
        for request in &requests[1..] {
            assert_eq!(request.header("if-match"), Some("\"e1\""));
            let (from, last) = request.range().unwrap();
            assert!(last - from < total.div_ceil(4), "more than a quarter");
        }
        assert!(
            machine.left().contains(&".bundle-etag".to_owned()),
            "{:?}",
            machine.left()
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_is_continued_where_it_ended() {
    let machine = Machine::new("");
    let body = machine.revision(8 * MIB);
    let (total, cut) = (body.len(), body.len() * 9 / 10);
    let stub = S3Stub::serve(move |number, request| {
        let cut = (number == 0).then_some(cut);
        Reply {
            cut,
            ..Reply::object(request, &body, "e1")
        }
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(ran.succeeded, "{}", ran.output);
    machine.assert_installed(8 * MIB);
    let asked = ranges(&stub);
    assert_eq!(asked.len(), 2, "{asked:?}");
    let (from, last) = asked[1].unwrap();
    assert!(
        from > cut - MIB && from <= cut && last == total - 1,
        "{asked:?} after {cut} of {total}"
    );
    assert_eq!(stub.requests()[1].header("if-match"), Some("\"e1\""));
}

#[tokio::test]
async fn every_stream_of_a_large_object_survives_being_cut_and_hung() {
    let machine = Machine::new("http_read_timeout: 1\n");
    let body = machine.revision(20 * MIB);
    let total = body.len();
    let stub = S3Stub::serve(move |number, request| {
        let reply = Reply::object(request, &body, "e1");
        match number {
            1..=3 => Reply {
                cut: Some(MIB),
                ..reply
            },
            4 => Reply {
                hang: Some(MIB),
                ..reply
            },
            5 => Reply::error(503, "SlowDown"),
            _ => reply,
        }
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(ran.succeeded, "{}", ran.output);
    machine.assert_installed(20 * MIB);
    let asked: usize = ranges(&stub)
        .iter()
        .flatten()
        .map(|(from, last)| last - from + 1)
        .sum();
    assert!(
        asked < total * 2,
        "{asked} bytes were asked for, of {total}"
    );
}

/// The path of the archive while a deployment unpacks it.
fn unpacking(root: &Path) -> Option<PathBuf> {
    let groups = fs::read_dir(root).ok()?.flatten();
    let deployments = groups.filter_map(|group| fs::read_dir(group.path()).ok());
    let paths = deployments
        .flat_map(|deployments| deployments.flatten())
        .map(|deployment| deployment.path().join(".deployment-archive.incoming"));
    paths.into_iter().find(|path| path.exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_is_unpacked_while_it_arrives() {
    let machine = Machine::new("");
    let body = machine.revision(80 * MIB);
    let root = machine.path("root");
    // The end of the bundle is sent once its beginning is unpacked.
    let stub = S3Stub::serve(move |_, request| {
        if request.range().is_some_and(|(from, _)| from > 50 * MIB) {
            let begun = async || {
                let archive = unpacking(&root).ok_or("nothing is unpacked")?;
                let begun = archive.join("appspec.yml").exists();
                begun.then_some(()).ok_or("the beginning is not there")
            };
            let waiting = wait::until("the beginning is unpacked", begun);
            tokio::task::block_in_place(|| Handle::current().block_on(waiting));
        }
        Reply::object(request, &body, "e1")
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(ran.succeeded, "{}", ran.output);
    machine.assert_installed(80 * MIB);
}

#[tokio::test]
async fn a_tar_that_is_refused_is_not_downloaded_any_further() {
    let machine = Machine::new("");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    tar.append(&header, &b""[..]).unwrap();
    let mut body = tar.into_inner().unwrap();
    body.resize(40 * MIB, 0);
    let body = Arc::new(body);
    // Nobody waits for the rest, which would not come.
    let stub = S3Stub::serve(move |_, request| Reply {
        hang: Some(MIB),
        ..Reply::object(request, &body, "e1")
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("../evil"),
        "{}",
        ran.output
    );
    assert!(ran.seconds < 30.0, "{} s", ran.seconds);
    assert_eq!(machine.left(), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_that_is_replaced_meanwhile_fails_clearly_and_leaves_nothing() {
    let machine = Machine::new("");
    let body = machine.revision(8 * MIB);
    let stub = S3Stub::serve(move |number, request| match number {
        0 => Reply {
            cut: Some(MIB),
            ..Reply::object(request, &body, "e1")
        },
        _ => Reply::object(request, &body, "e2"),
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("was replaced while it was downloaded"),
        "{}",
        ran.output
    );
    assert!(
        ran.output.contains("s3://bucket/app.tar in version v7"),
        "{}",
        ran.output
    );
    assert_eq!(stub.requests().len(), 2);
    assert_eq!(machine.left(), Vec::<String>::new());
}

#[tokio::test]
async fn a_store_that_ignores_ranges_works_large_or_cut() {
    for (size, cut) in [(20 * MIB, None), (4 * MIB, Some(2 * MIB))] {
        let machine = Machine::new("");
        let body = machine.revision(size);
        let stub = S3Stub::serve(move |number, request| {
            let request = Request {
                headers: Default::default(),
                ..request.clone()
            };
            Reply {
                cut: cut.filter(|_| number == 0),
                ..Reply::object(&request, &body, "e1")
            }
        })
        .await;
        let ran = machine.deploy_from_s3(&stub).await;
        assert!(ran.succeeded, "{}", ran.output);
        machine.assert_installed(size);
        assert_eq!(stub.requests().len(), 2);
    }
}

#[tokio::test]
async fn errors_that_may_pass_are_retried_and_end_after_a_bounded_time() {
    let machine = Machine::new("");
    let body = machine.revision(MIB);
    let stub = S3Stub::serve(move |number, request| match number {
        0 => Reply::error(500, "InternalError"),
        1 => Reply::error(503, "SlowDown"),
        _ => Reply::object(request, &body, "e1"),
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(ran.succeeded, "{}", ran.output);
    assert_eq!(stub.requests().len(), 3);

    let machine = Machine::new("");
    let short = Arc::new(vec![0; 1000]);
    let stub = S3Stub::serve(move |_, request| {
        let claimed_length = request.range().is_none().then_some(5000);
        Reply {
            claimed_length,
            cut: Some(0),
            ..Reply::object(request, &short, "e1")
        }
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("broke off after"),
        "{}",
        ran.output
    );
    assert!(
        ran.seconds < 30.0 && stub.requests().len() <= 8,
        "{} s",
        ran.seconds
    );
    assert_eq!(machine.left(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_proxy_or_a_portal_answers_is_no_object_and_is_tried_again() {
    let page = || Reply::new(200, "<html>please log in</html>").header("content-type", "text/html");
    let pages: [fn() -> Reply; 5] = [
        || Reply::new(200, ""),
        || Reply::new(200, "<html>please log in</html>").header("content-type", "text/html"),
        || {
            Reply::new(200, "<html>log in</html>")
                .header("content-type", "text/html")
                .header("etag", "\"p\"")
        },
        || Reply::new(403, "<html>blocked</html>").header("content-type", "text/html"),
        || Reply::new(302, "").header("location", "http://portal.example/"),
    ];
    for (number, foreign) in pages.into_iter().enumerate() {
        let machine = Machine::new("");
        let body = machine.revision(MIB);
        let stub = S3Stub::serve(move |number, request| match number {
            0 => foreign(),
            _ => Reply::object(request, &body, "e1"),
        })
        .await;
        let ran = machine.deploy_from_s3(&stub).await;
        assert!(ran.succeeded, "{number}: {}", ran.output);
        machine.assert_installed(MIB);
        assert_eq!(stub.requests().len(), 2, "{number}");
    }

    let archives = Machine::new("");
    let archive = git_archive(&archives);
    let api = S3Stub::serve(move |number, _| match number {
        0 => page(),
        _ => Reply::new(200, archive.clone()),
    })
    .await;
    let machine = Machine::new(&format!("github_endpoint: {}\n", api.endpoint));
    let ran = machine.deploy("https://github.com/octo/shop", &[]).await;
    assert!(ran.succeeded, "{}", ran.output);
}

#[tokio::test]
async fn an_error_of_any_size_takes_little_memory() {
    let machine = Machine::new("");
    let huge = Arc::new(vec![b'x'; 64 * MIB]);
    let stub = S3Stub::serve(move |_, _| {
        let part = 0..huge.len();
        Reply {
            body: Arc::clone(&huge),
            part,
            ..Reply::new(500, "")
        }
    })
    .await;
    let mut command =
        Programs::built()
            .local
            .command(["-t", "tar", "-l", "s3://bucket/app.tar", "-c"]);
    command
        .arg(machine.path("conf.yml"))
        .envs(KEYS)
        .env("AWS_ENDPOINT_URL_S3", &stub.endpoint);
    let mut local = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", local.id().unwrap());
    let mut peak = 0;
    let ended = wait::until("codedeploy-local gives up", async || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap_or_default();
        let kib = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        peak = peak.max(kib);
        local.try_wait().unwrap().ok_or(peak)
    })
    .await;
    assert_eq!(ended.code(), Some(1));
    assert!(peak > 0 && peak < 48 << 10, "{peak} KiB");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_said_to_be_in_words() {
    let machine = Machine::new("");
    // A port on which nobody listens any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let [region, id, secret] = KEYS;
    let environment = [
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
        region,
        id,
        secret,
    ];
    let ran = machine.deploy("s3://bucket/app.tar", &environment).await;
    assert!(
        !ran.succeeded && ran.output.contains("Connection refused"),
        "{}",
        ran.output
    );
    assert!(
        ran.output.contains("check that this host reaches S3"),
        "{}",
        ran.output
    );
    assert!(!ran.output.contains("ConnectorError"), "{}", ran.output);
}

#[tokio::test]
async fn what_is_refused_or_missing_fails_at_once_and_says_what_to_check() {
    for (status, code, advice) in [
        (
            403,
            "AccessDenied",
            "check that this identity is allowed s3:GetObjectVersion",
        ),
        (
            404,
            "NoSuchKey",
            "check the bucket, the key and the version",
        ),
        (
            404,
            "NoSuchBucket",
            "check the bucket, the key and the version",
        ),
    ] {
        let machine = Machine::new("verbose: true\n");
        let stub = S3Stub::serve(move |_, _| Reply::error(status, code)).await;
        let ran = machine.deploy_from_s3(&stub).await;
        assert!(
            !ran.succeeded && stub.requests().len() == 1,
            "{}",
            ran.output
        );
        for expected in [
            "s3://bucket/app.tar in version v7",
            "the access key AKIAPERSON",
            code,
            advice,
        ] {
            assert!(
                ran.output.contains(expected),
                "{expected} not in\n{}",
                ran.output
            );
        }
        assert!(!ran.output.contains("top-secret"), "{}", ran.output);
    }
}

#[tokio::test]
async fn an_object_larger_than_the_disk_fails_before_it_is_downloaded() {
    let machine = Machine::new("");
    let body = machine.revision(MIB);
    let stub = S3Stub::serve(move |_, request| {
        let claimed_length = Some(1 << 60);
        Reply {
            claimed_length,
            ..Reply::object(request, &body, "e1")
        }
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("free; make room there"),
        "{}",
        ran.output
    );
    assert_eq!(machine.left(), Vec::<String>::new());
}

#[tokio::test]
async fn a_bucket_in_another_region_is_found_by_what_s3_says_once_and_not_behind_an_override() {
    let hosts = [
        "bucket.s3.us-east-1.amazonaws.com",
        "bucket.s3.eu-west-1.amazonaws.com",
    ];
    for status in [301, 400] {
        let machine = Machine::new("");
        let body = machine.revision(MIB);
        let (stub, certificate) = S3Stub::serve_all(&hosts, move |_, request| {
            let there = request.header("host") == Some(hosts[1]);
            let elsewhere =
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
            match (there, status) {
                (true, _) => Reply::object(request, &body, "e1"),
                (false, 301) => {
                    Reply::error(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-1")
                }
                (false, status) => Reply::new(status, elsewhere),
            }
        })
        .await;
        fs::write(machine.path("ca.pem"), certificate).unwrap();
        let configuration = fs::read_to_string(machine.path("conf.yml")).unwrap();
        let more = format!(
            "proxy_uri: {}\nssl_ca_bundle: {}\n",
            stub.endpoint,
            machine.path("ca.pem").display()
        );
        fs::write(machine.path("conf.yml"), configuration + &more).unwrap();
        let ran = machine.deploy("s3://bucket/app.tar", &KEYS).await;
        assert!(ran.succeeded, "{status}: {}", ran.output);
        machine.assert_installed(MIB);
        let requests = stub.requests();
        let asked: Vec<_> = requests
            .iter()
            .filter_map(|request| request.header("host"))
            .collect();
        assert_eq!(asked, hosts);
        assert!(
            requests[1]
                .header("authorization")
                .unwrap()
                .contains("/eu-west-1/s3/")
        );
    }

    let machine = Machine::new("");
    let stub = S3Stub::serve(|_, _| {
        Reply::error(301, "PermanentRedirect").header("x-amz-bucket-region", "eu-west-1")
    })
    .await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("the bucket is in eu-west-1"),
        "{}",
        ran.output
    );
    assert_eq!(stub.requests().len(), 1);
}

/// A repository's archive in the form of `git archive`: a pax header, and one folder around
/// everything.
fn git_archive(machine: &Machine) -> Vec<u8> {
    machine.revision(MIB);
    let repository = machine.path("revision");
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command
            .arg("-C")
            .arg(&repository)
            .args(["-c", "user.name=t", "-c", "user.email=t@t"]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "one"]);
    git(&[
        "archive",
        "--format=tar.gz",
        "--prefix=octo-shop-1a2b3c4/",
        "HEAD",
    ])
}

#[tokio::test]
async fn a_commit_on_github_is_deployed_and_the_token_stays_with_the_api() {
    let archives = Machine::new("");
    let archive = git_archive(&archives);
    // GitHub stores archives on another host, which must not see the token.
    let storage = S3Stub::serve(move |_, _| Reply::new(200, archive.clone())).await;
    let elsewhere = format!("{}/octo/shop/tar.gz/HEAD?sig=1", storage.endpoint);
    let api = S3Stub::serve(move |number, _| match number {
        0 => Reply::error(502, "BadGateway"),
        _ => Reply::new(302, "").header("location", &elsewhere),
    })
    .await;

    let machine = Machine::new(&format!(
        "verbose: true\ngithub_endpoint: {}/api/v3\n",
        api.endpoint
    ));
    let token = [("CODEDEPLOY_GITHUB_TOKEN", "ghp_topsecret")];
    let ran = machine.deploy("https://github.com/octo/shop", &token).await;
    assert!(ran.succeeded, "{}", ran.output);
    assert!(fs::read(archives.path("app/data")).unwrap() == noise(MIB));
    let asked = api.requests();
    assert_eq!(asked.len(), 2, "once again after an error that may pass");
    assert_eq!(asked[1].path, "/api/v3/repos/octo/shop/tarball/HEAD");
    assert_eq!(
        asked[1].header("authorization"),
        Some("token ghp_topsecret")
    );
    let asked = storage.requests();
    assert_eq!(asked[0].path, "/octo/shop/tar.gz/HEAD?sig=1");
    assert_eq!(asked[0].header("authorization"), None);
    assert!(!ran.output.contains("ghp_topsecret"));
}

#[tokio::test]
async fn what_github_refuses_fails_at_once_with_a_hint_at_the_token() {
    for (status, token, hint) in [
        (
            404,
            None,
            "a private repository needs a token, and there was none",
        ),
        (404, Some("ghp_x"), "that the token may read the repository"),
        (401, Some("ghp_x"), "the token is not valid"),
    ] {
        let api = S3Stub::serve(move |_, _| Reply::error(status, "NotFound")).await;
        let machine = Machine::new(&format!("github_endpoint: {}\n", api.endpoint));
        let environment: Vec<_> = token
            .map(|token| ("CODEDEPLOY_GITHUB_TOKEN", token))
            .into_iter()
            .collect();
        let location = "https://api.github.com/repos/octo/shop/tarball/v1";
        let ran = machine.deploy(location, &environment).await;
        assert!(
            !ran.succeeded && ran.output.contains(hint),
            "{}",
            ran.output
        );
        assert!(
            ran.output.contains("commit v1 of octo/shop"),
            "{}",
            ran.output
        );
        assert!(
            !ran.output.contains("ghp_x") && ran.seconds < 9.0,
            "{}",
            ran.output
        );
        assert_eq!(api.requests().len(), 1);
        assert_eq!(
            api.requests()[0].header("authorization").is_some(),
            token.is_some()
        );
    }
}

#[tokio::test]
async fn a_revision_deeper_than_256_folders_is_rejected_before_anything_is_installed() {
    let machine = Machine::new("");
    for (depth, fits) in [(256, true), (257, false)] {
        let revision = machine.path(&format!("revision-{depth}"));
        let app = machine.path(&format!("app-{depth}"));
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: page\n    destination: {}\n",
            app.display()
        );
        bundle::write(&revision, &[("appspec.yml", &appspec), ("page", "x")]);
        fs::create_dir_all(revision.join("d/".repeat(depth))).unwrap();
        let tar = machine.path(&format!("{depth}.tar"));
        fs::write(&tar, bundle::tar(&revision)).unwrap();
        for (bundle_type, location) in [("directory", &revision), ("tar", &tar)] {
            let output = Programs::built()
                .local
                .command(["-t", bundle_type, "-l"])
                .arg(location)
                .arg("-c")
                .arg(machine.path("conf.yml"))
                .output()
                .await
                .unwrap();
            let said =
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(
                output.status.success(),
                fits,
                "{depth}, {bundle_type}: {said}"
            );
            assert_eq!(app.exists(), fits, "{depth}, {bundle_type}: {said}");
            if !fits {
                assert!(said.contains("256 folders"), "{bundle_type}: {said}");
                assert!(said.contains("DownloadBundle"), "{bundle_type}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_unpacked_leaves_no_archive() {
    let machine = Machine::new("");
    let body = machine.revision(2 * MIB);
    let truncated = Arc::new(body[..MIB].to_vec());
    let stub = S3Stub::serve(move |_, request| Reply::object(request, &truncated, "e1")).await;
    let ran = machine.deploy_from_s3(&stub).await;
    assert!(
        !ran.succeeded && ran.output.contains("cannot be unpacked"),
        "{}",
        ran.output
    );
    let left = machine.left();
    assert!(
        !left.iter().any(|name| name.contains("archive")),
        "{left:?}"
    );
    assert!(!Path::new(&machine.path("app")).exists());
}
