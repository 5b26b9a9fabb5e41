//! `codedeploy-agent register` and `deregister`, with a real controller on the other side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use codedeploy_tests::bucket::Keys;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::service::{REGION, Service, keys};

const ARN: &str = "arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1";
const SESSION_ARN: &str = "arn:aws:sts::123456789012:assumed-role/hosts/box2";

/// A controller, and a machine that will become its host.
struct Place {
    folder: tempfile::TempDir,
    service: Service,
    host: Keys,
}

struct Ran {
    code: i32,
    text: String,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start(&Programs::built(), &folder.path().join("controller")).await;
        let create = [
            "credentials",
            "create",
            "--role",
            "host",
            "--user-arn",
            ARN,
            "--json",
        ];
        let host = keys(&service.administer(&create).await);
        fs::write(
            folder.path().join("secret"),
            format!("{}\n", host.secret_access_key),
        )
        .unwrap();
        Self {
            folder,
            service,
            host,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("conf/codedeploy.onpremises.yml")
    }

    /// Runs with the operator's keys in the environment.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let file = self.file();
        let mut command = Programs::built().agent.command(arguments);
        command.args([
            "--endpoint-url",
            &self.service.endpoint,
            "--region",
            REGION,
            "--on-premises-file",
        ]);
        command.arg(file).env_clear();
        command.env("AWS_ACCESS_KEY_ID", &self.service.operator.access_key_id);
        command.env(
            "AWS_SECRET_ACCESS_KEY",
            &self.service.operator.secret_access_key,
        );
        let output = command.output().await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(
            !text.contains(&self.host.secret_access_key),
            "the secret was printed: {text}"
        );
        let text = text.replace(&self.folder.path().display().to_string(), "");
        Ran {
            code: output.status.code().unwrap(),
            text: text.replace(&self.service.endpoint, "http://controller"),
        }
    }

    async fn register(&self, more: &[&str]) -> Ran {
        let secret = self.path("secret").display().to_string();
        let key = self.host.access_key_id.as_str();
        let user = [
            "register",
            "--instance-name",
            "box1",
            "--iam-user-arn",
            ARN,
            "--access-key-id",
            key,
        ];
        self.run(&[&user[..], &["--secret-access-key-file", &secret], more].concat())
            .await
    }

    /// Whether the instance is registered, and its tags as `key=value`; `None` if there was never
    /// one.
    async fn instance(&self, name: &str) -> Option<(bool, Vec<String>)> {
        let answer = self
            .service
            .client
            .get_on_premises_instance()
            .instance_name(name)
            .send()
            .await
            .ok()?;
        let info = answer.instance_info.unwrap();
        let tags = info.tags.unwrap_or_default();
        let mut tags: Vec<String> = tags
            .iter()
            .map(|tag| format!("{}={}", tag.key().unwrap(), tag.value().unwrap()))
            .collect();
        tags.sort();
        Some((info.deregister_time.is_none(), tags))
    }
}

#[tokio::test]
async fn a_host_is_registered_tagged_and_told_who_it_is_and_all_of_it_is_undone() {
    let place = Place::new().await;
    let tags = ["--tag", "env=prod", "--tag", "rack=a=1"];
    let ran = place.register(&tags).await;
    assert_eq!(ran.code, 0, "{}", ran.text);
    let expected = "\
Registering the on-premises instance box1 as arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1... DONE
Adding tags to box1: env=prod, rack=a=1... DONE
Writing /conf/codedeploy.onpremises.yml... DONE
For deployments from http://controller, set deploy_control_endpoint in the agent's configuration
box1 is registered; (re)start the agent: systemctl restart codedeploy-agent
";
    assert_eq!(ran.text, expected);
    assert_eq!(
        place.instance("box1").await,
        Some((true, vec!["env=prod".into(), "rack=a=1".into()]))
    );
    let file = fs::metadata(place.file()).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(place.file()).unwrap();
    let (key, secret) = (&place.host.access_key_id, &place.host.secret_access_key);
    let values: Vec<_> = text
        .lines()
        .map(|line| line.replace(['\'', '"'], ""))
        .collect();
    let expected = [
        "---".to_owned(),
        format!("region: {REGION}"),
        format!("iam_user_arn: {ARN}"),
        format!("aws_access_key_id: {key}"),
        format!("aws_secret_access_key: {secret}"),
    ];
    assert_eq!(values, expected);

    let again = place.register(&tags).await;
    assert_eq!(again.code, 0, "{}", again.text);
    assert!(
        again.text.starts_with("box1 is registered already"),
        "{}",
        again.text
    );
    assert_eq!(fs::read_to_string(place.file()).unwrap(), text);

    let gone = place.run(&["deregister", "--instance-name", "box1"]).await;
    let expected = "\
Removing tags from box1: env=prod, rack=a=1... DONE
Deregistering the on-premises instance box1... DONE
Removing /conf/codedeploy.onpremises.yml... DONE
box1 is deregistered; if its agent runs here, stop it: systemctl stop codedeploy-agent
";
    assert_eq!((gone.code, gone.text.as_str()), (0, expected));
    assert_eq!(place.instance("box1").await, Some((false, vec![])));
    assert!(!place.file().exists());
    let again = place.run(&["deregister", "--instance-name", "box1"]).await;
    assert_eq!(again.code, 0, "{}", again.text);
    assert!(
        again.text.starts_with("box1 is deregistered already"),
        "{}",
        again.text
    );
    let never = place.run(&["deregister", "--instance-name", "box9"]).await;
    assert_eq!(
        (never.code, never.text.as_str()),
        (0, "box9 was never registered; nothing to do\n")
    );
    place.service.stop().await;
}

#[tokio::test]
async fn a_registration_whose_file_cannot_be_written_is_taken_back() {
    let place = Place::new().await;
    // A file in place of the folder stops root as well.
    fs::write(place.path("conf"), "").unwrap();
    let ran = place.register(&["--tag", "env=prod", "--force"]).await;
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text
            .contains("Taking the registration of box1 back... DONE"),
        "{}",
        ran.text
    );
    assert!(ran.text.contains("/conf"), "{}", ran.text);
    assert_eq!(place.instance("box1").await, Some((false, vec![])));
    fs::remove_file(place.path("conf")).unwrap();
    let ran = place.register(&[]).await;
    assert_eq!(ran.code, 0, "the name is free again: {}", ran.text);
    place.service.stop().await;
}

#[tokio::test]
async fn another_hosts_file_is_neither_replaced_nor_removed() {
    let place = Place::new().await;
    fs::create_dir(place.path("conf")).unwrap();
    let other = ":iam_user_arn: arn:aws:iam::123456789012:user/other\n";
    fs::write(place.file(), other).unwrap();
    let ran = place.register(&[]).await;
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text
            .contains("is for arn:aws:iam::123456789012:user/other; --force replaces it"),
        "{}",
        ran.text
    );
    assert_eq!(place.instance("box1").await, None, "nothing was sent");
    assert_eq!(place.register(&["--force"]).await.code, 0);
    fs::write(place.file(), other).unwrap();
    let gone = place.run(&["deregister", "--instance-name", "box1"]).await;
    assert_eq!(gone.code, 0, "{}", gone.text);
    assert!(
        gone.text
            .contains("is kept: it is for arn:aws:iam::123456789012:user/other"),
        "{}",
        gone.text
    );
    assert_eq!(fs::read_to_string(place.file()).unwrap(), other);

    fs::remove_file(place.file()).unwrap();
    nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = place.register(&[]).await;
    assert!(
        ran.code == 1 && ran.text.contains("expected a regular file"),
        "{}: {}",
        ran.code,
        ran.text
    );
    place.service.stop().await;
}

#[tokio::test]
async fn what_an_interrupted_registration_began_to_write_is_removed_by_the_next() {
    let place = Place::new().await;
    fs::create_dir(place.path("conf")).unwrap();
    let half = place.path("conf/.codedeploy-0123456789abcdef-0");
    fs::write(
        &half,
        format!("aws_secret_access_key: {}", place.host.secret_access_key),
    )
    .unwrap();
    let ran = place.register(&[]).await;
    assert_eq!(ran.code, 0, "{}", ran.text);
    let names: Vec<_> = fs::read_dir(place.path("conf"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["codedeploy.onpremises.yml"]);
    place.service.stop().await;
}

#[tokio::test]
async fn a_session_is_registered_with_the_file_that_keeps_its_keys() {
    let place = Place::new().await;
    let session = [
        "register",
        "--instance-name",
        "box2",
        "--iam-session-arn",
        SESSION_ARN,
        "--credentials-file",
        "/etc/keys",
    ];
    let ran = place.run(&session).await;
    assert_eq!(ran.code, 0, "{}", ran.text);
    let text = fs::read_to_string(place.file()).unwrap();
    assert_eq!(
        text,
        format!(
            "---\nregion: {REGION}\niam_session_arn: {SESSION_ARN}\naws_credentials_file: /etc/keys\n"
        )
    );
    let other = [
        "register",
        "--instance-name",
        "box2",
        "--iam-session-arn",
        &SESSION_ARN.replace("box2", "x"),
    ];
    let ran = place
        .run(&[&other[..], &["--credentials-file", "/etc/keys", "--force"]].concat())
        .await;
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert!(
        ran.text
            .contains(&format!("box2 is registered already, as {SESSION_ARN}")),
        "{}",
        ran.text
    );
    place.service.stop().await;
}

#[tokio::test]
async fn what_the_service_would_refuse_is_refused_before_it_is_asked() {
    let place = Place::new().await;
    let user = ["--iam-user-arn", ARN, "--access-key-id", "AKID"];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--instance-name", "i-123"], 1, "begins with i-"),
        (&["--instance-name", "a/b"], 1, "--instance-name"),
        (
            &["--instance-name", "box1", "--tag", "novalue"],
            2,
            "expected KEY=VALUE",
        ),
        (
            &["--instance-name", "box1", "--tag", "a=1", "--tag", "a=2"],
            1,
            "the key a is given twice",
        ),
        (
            &["--instance-name", "box1"],
            1,
            "CODEDEPLOY_HOST_SECRET_ACCESS_KEY",
        ),
        (
            &[
                "--instance-name",
                "box1",
                "--secret-access-key-file",
                "/nowhere",
            ],
            1,
            "cannot read /nowhere",
        ),
    ];
    for (arguments, code, expected) in cases {
        let ran = place
            .run(&[&["register"][..], &user, arguments].concat())
            .await;
        assert!(
            ran.code == code && ran.text.contains(expected),
            "{arguments:?}: {}: {}",
            ran.code,
            ran.text
        );
    }
    let none = place.run(&["register", "--instance-name", "box1"]).await;
    assert!(
        none.code == 2 && none.text.contains("--iam-user-arn"),
        "{}: {}",
        none.code,
        none.text
    );
    assert_eq!(place.instance("box1").await, None);
    assert!(!place.path("conf").exists());
    place.service.stop().await;
}
