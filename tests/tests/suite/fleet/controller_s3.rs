//! The controller's own S3 endpoint, over TLS with a self-made certificate: the real aws CLI
//! uploads revisions, and a real agent with only the files of `host add` deploys them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use codedeploy_tests::bucket::{Keys, python_tool};
use codedeploy_tests::programs::{Program, Programs, Running};
use codedeploy_tests::service::{SETTINGS, Service, keys};
use codedeploy_tests::{bundle, wait};
use serde_json::Value;

/// A controller with TLS and a folder of revisions.
struct Place {
    folder: tempfile::TempDir,
    service: Service,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("controller");
        fs::create_dir(&data).unwrap();
        fs::write(data.join(SETTINGS), settings("")).unwrap();
        let service = Service::start(&Programs::built(), &data).await;
        assert!(
            service.endpoint.starts_with("https://127.0.0.1:"),
            "{}",
            service.endpoint
        );
        let place = Self { folder, service };
        let authority = Programs::built()
            .controller
            .command(["certificate", "--data-dir"])
            .arg(&data)
            .output();
        fs::write(place.path("authority.pem"), authority.await.unwrap().stdout).unwrap();
        place
    }

    /// Starts the controller again with other settings of its folder.
    async fn restarted(self, s3: &str) -> Self {
        fs::write(self.service.data.join(SETTINGS), settings(s3)).unwrap();
        Self {
            service: self.service.kill_and_restart().await,
            ..self
        }
    }

    /// The ids of the versions whose keys have this prefix, the newest of each first; delete
    /// markers have a minus.
    async fn versions(&self, prefix: &str) -> Vec<String> {
        let list = [
            "s3api",
            "list-object-versions",
            "--bucket",
            "revisions",
            "--prefix",
            prefix,
        ];
        let listed = self.aws(&list).await;
        let listed = if listed.is_empty() {
            Value::Null
        } else {
            json(&listed)
        };
        let ids = |member: &str, sign: &str| -> Vec<String> {
            let found = listed[member].as_array().cloned().unwrap_or_default();
            found
                .iter()
                .map(|version| format!("{sign}{}", version["VersionId"].as_str().unwrap()))
                .collect()
        };
        [ids("DeleteMarkers", "-"), ids("Versions", "")].concat()
    }

    /// Runs a Python script with boto3 as the operator; returns its output.
    async fn python(&self, script: &str) -> String {
        let ran = self
            .run("python3", &self.service.operator, &["-c", script])
            .await;
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8(ran.stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a Python program with the service and keys in its environment, as operators set them.
    async fn run(&self, program: &str, keys: &Keys, arguments: &[&str]) -> Output {
        let mut command = Program::at(python_tool(program)).command(arguments);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("nobody"));
        command.env("AWS_ENDPOINT_URL", &self.service.endpoint);
        command.env("AWS_CA_BUNDLE", self.path("authority.pem"));
        command.env("AWS_ACCESS_KEY_ID", &keys.access_key_id);
        command.env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key);
        command
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("AWS_PAGER", "").env("AWS_MAX_ATTEMPTS", "1");
        command.output().await.unwrap()
    }

    /// The output of a successful aws CLI command.
    async fn aws(&self, arguments: &[&str]) -> String {
        let output = self.run("aws", &self.service.operator, arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn aws_line(&self, line: &str) -> String {
        self.aws(&line.split_whitespace().collect::<Vec<_>>()).await
    }

    async fn refused(&self, keys: &Keys, arguments: &[&str]) -> String {
        let output = self.run("aws", keys, arguments).await;
        assert!(!output.status.success(), "{arguments:?} was not refused");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn settings(s3: &str) -> String {
    format!("tls: {{self_signed: true}}\ns3: {{buckets: [revisions], {s3}}}\n")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Starts an agent that sees its own default folders in a mount namespace.
fn start_agent(conf: &Path, log: &Path) -> Running {
    let namespace = ["--mount", "--map-root-user"];
    let agent = Programs::built().agent.command::<&str>([]);
    let script = "mount -t tmpfs none /opt && mount -t tmpfs none /var/log && exec \"$@\"";
    Program::at("unshare").start(
        |command| {
            command
                .args(namespace)
                .args(["sh", "-c", script, "agent"])
                .arg(agent.as_std().get_program());
            command
                .args(["run", "--config-file"])
                .arg(conf.join("codedeployagent.yml"));
        },
        log,
    )
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_new_host_deploys_from_the_controller_with_nothing_but_the_files_of_host_add() {
    let place = Place::new().await;
    let conf = place.path("conf");
    let text = conf.to_str().unwrap();
    let add = [
        "host",
        "add",
        "box1",
        "--tag",
        "env=prod",
        "--output",
        text,
        "--conf-dir",
        text,
        "--json",
    ];
    place.service.administer(&add).await;
    let agent = start_agent(&conf, &place.path("agent.out"));

    place
        .aws_line("deploy create-application --application-name site")
        .await;
    place
        .aws_line(
            "deploy create-deployment-group --application-name site --deployment-group-name web \
             --service-role-arn arn:aws:iam::123456789012:role/cd --deployment-config-name CodeDeployDefault.AllAtOnce \
             --on-premises-instance-tag-filters Key=env,Value=prod,Type=KEY_AND_VALUE",
        )
        .await;
    let source = place.path("source");
    let www = place.path("www");
    let appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: /\n    destination: {}\n",
        www.display()
    );
    // Large enough for a multipart upload, and for a download of several ranges.
    let numbers = (0..1_500_000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let noise: String = numbers.map(|number| format!("{number:x}")).collect();
    bundle::write(
        &source,
        &[
            ("appspec.yml", &appspec),
            ("page", "one\n"),
            ("noise", &noise),
        ],
    );
    let push = format!(
        "deploy push --application-name site --s3-location s3://revisions/site.zip --source {}",
        source.display()
    );
    let pushed = place.aws_line(&push).await;
    let location = pushed
        .split_whitespace()
        .skip_while(|word| *word != "--s3-location")
        .nth(1)
        .unwrap();
    assert!(
        location.contains("eTag=") && location.contains("version="),
        "{pushed}"
    );
    let etag = location
        .split(',')
        .find_map(|member| member.strip_prefix("eTag="))
        .unwrap();
    assert!(
        etag.contains('-'),
        "it was not uploaded in parts: {location}"
    );

    // A newer version under the same key is not the deployed one.
    let other = place.path("other");
    fs::write(&other, "not a zip").unwrap();
    place
        .aws(&[
            "s3",
            "cp",
            other.to_str().unwrap(),
            "s3://revisions/site.zip",
        ])
        .await;
    let create = format!(
        "deploy create-deployment --application-name site --deployment-group-name web --s3-location {location}"
    );
    let id = json(&place.aws_line(&create).await)["deploymentId"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = wait::until("the deployment ends", async || {
        let shown = json(
            &place
                .aws(&["deploy", "get-deployment", "--deployment-id", &id])
                .await,
        );
        let ended =
            ["Succeeded", "Failed"].contains(&shown["deploymentInfo"]["status"].as_str().unwrap());
        if ended { Ok(shown) } else { Err(shown) }
    })
    .await;
    assert_eq!(
        shown["deploymentInfo"]["status"],
        "Succeeded",
        "{}{shown}",
        agent.output()
    );
    assert_eq!(fs::read_to_string(www.join("page")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(www.join("noise")).unwrap(), noise);
    agent.stop().await;
    place.service.stop().await;
}

#[tokio::test]
async fn the_aws_cli_keeps_objects_and_their_versions() {
    let place = Place::new().await;
    let small = place.path("small");
    fs::write(&small, "one\n").unwrap();
    let small = small.to_str().unwrap();
    place.aws(&["s3", "mb", "s3://more"]).await;
    place
        .aws(&["s3", "cp", small, "s3://more/a b/small.txt"])
        .await;
    fs::write(small, "two\n").unwrap();
    place
        .aws(&["s3", "cp", small, "s3://more/a b/small.txt"])
        .await;
    place.aws(&["s3", "cp", small, "s3://more/top"]).await;
    assert_eq!(
        place
            .aws(&["s3", "cp", "s3://more/a b/small.txt", "-"])
            .await,
        "two\n"
    );
    let listed = place.aws(&["s3", "ls", "s3://more/"]).await;
    assert!(
        listed.contains("PRE a b/") && listed.contains(" 4 top"),
        "{listed}"
    );
    let versions = json(
        &place
            .aws(&[
                "s3api",
                "list-object-versions",
                "--bucket",
                "more",
                "--prefix",
                "a b/",
            ])
            .await,
    );
    let versions = versions["Versions"].as_array().unwrap().clone();
    assert_eq!(versions.len(), 2);
    assert_eq!(
        (&versions[0]["IsLatest"], &versions[1]["IsLatest"]),
        (&true.into(), &false.into())
    );
    let first = versions[1]["VersionId"].as_str().unwrap();
    let etag = versions[1]["ETag"].as_str().unwrap();
    let out = place.path("out");
    let out = out.to_str().unwrap();
    let get = [
        "s3api",
        "get-object",
        "--bucket",
        "more",
        "--key",
        "a b/small.txt",
        "--version-id",
        first,
        "--if-match",
        etag,
    ];
    place.aws(&[&get[..], &[out]].concat()).await;
    assert_eq!(fs::read_to_string(out).unwrap(), "one\n");
    place
        .aws(&[&get[..], &["--range", "bytes=1-2", out]].concat())
        .await;
    assert_eq!(fs::read_to_string(out).unwrap(), "ne");
    let newest = [
        "s3api",
        "get-object",
        "--bucket",
        "more",
        "--key",
        "a b/small.txt",
        "--if-match",
        etag,
        out,
    ];
    assert!(
        place
            .refused(&place.service.operator, &newest)
            .await
            .contains("PreconditionFailed")
    );
    let status = place
        .aws(&["s3api", "get-bucket-versioning", "--bucket", "more"])
        .await;
    assert_eq!(json(&status)["Status"], "Enabled");

    // A multipart upload and its download.
    let large = place.path("large");
    let noise: Vec<u8> = (0..20 * 1024 * 1024u64)
        .map(|number| (number.wrapping_mul(0x9e37_79b9) >> 13) as u8)
        .collect();
    fs::write(&large, &noise).unwrap();
    place
        .aws(&["s3", "cp", large.to_str().unwrap(), "s3://more/large"])
        .await;
    let head = json(
        &place
            .aws(&["s3api", "head-object", "--bucket", "more", "--key", "large"])
            .await,
    );
    assert!(head["ETag"].as_str().unwrap().ends_with("-3\""), "{head}");
    place.aws(&["s3", "cp", "s3://more/large", out]).await;
    assert!(fs::read(out).unwrap() == noise);

    // A deletion sets a marker; earlier versions are still available.
    place.aws(&["s3", "rm", "s3://more/a b/small.txt"]).await;
    assert!(!place.aws(&["s3", "ls", "s3://more/"]).await.contains("PRE"));
    place.aws(&[&get[..], &[out]].concat()).await;
    place
        .aws(&[
            "s3",
            "sync",
            place.path("controller").to_str().unwrap(),
            "s3://more/sync",
            "--exclude",
            "*",
            "--include",
            "address",
        ])
        .await;
    place.aws(&["s3", "rm", "--recursive", "s3://more/"]).await;
    assert_eq!(place.aws(&["s3", "ls", "s3://more/"]).await, "");
    assert!(
        place
            .refused(&place.service.operator, &["s3", "rb", "s3://more"])
            .await
            .contains("BucketNotEmpty")
    );
    assert!(
        place
            .refused(&place.service.operator, &["s3", "ls", "s3://none"])
            .await
            .contains("NoSuchBucket")
    );
    place.service.stop().await;
}

/// A chunked upload that announces 1000 bytes, and sends five of them.
const CUT_UPLOAD: &str = "\
import os, ssl, urllib.request, urllib.error, boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
class Unsigned(S3SigV4Auth):
    def payload(self, request): return 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'
headers = {'x-amz-decoded-content-length': '1000', 'content-encoding': 'aws-chunked',
    'x-amz-trailer': 'x-amz-checksum-crc32'}
url = os.environ['AWS_ENDPOINT_URL'] + '/revisions/cut'
body = b'5\\r\\nhello\\r\\n0\\r\\nx-amz-checksum-crc32:NhCmhg==\\r\\n\\r\\n'
request = AWSRequest('PUT', url, headers=headers, data=body)
Unsigned(boto3.Session().get_credentials(), 's3', 'us-east-1').add_auth(request)
context = ssl.create_default_context(cafile=os.environ['AWS_CA_BUNDLE'])
sent = urllib.request.Request(url, body, dict(request.headers), method='PUT')
try: print(urllib.request.urlopen(sent, context=context).status)
except urllib.error.HTTPError as error: print(error.code, error.read().decode())
";

#[tokio::test]
async fn hosts_read_and_strangers_do_nothing() {
    let place = Place::new().await;
    let small = place.path("small");
    fs::write(&small, "one\n").unwrap();
    let small = small.to_str().unwrap();
    place.aws(&["s3", "cp", small, "s3://revisions/one"]).await;
    let host = keys(
        &place
            .service
            .administer(&["host", "add", "box1", "--json"])
            .await,
    );
    let reader = keys(
        &place
            .service
            .administer(&["credentials", "create", "--role", "read-only", "--json"])
            .await,
    );
    for keys in [&host, &reader] {
        let read = place
            .run("aws", keys, &["s3", "cp", "s3://revisions/one", "-"])
            .await;
        assert_eq!(
            read.stdout,
            b"one\n",
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
        assert!(
            place
                .refused(keys, &["s3", "cp", small, "s3://revisions/one"])
                .await
                .contains("AccessDenied")
        );
        assert!(
            place
                .refused(keys, &["s3", "rm", "s3://revisions/one"])
                .await
                .contains("AccessDenied")
        );
    }
    let mut wrong = place.service.operator.clone();
    wrong.secret_access_key = "wrong".into();
    let list = ["s3", "ls", "s3://revisions"];
    assert!(
        place
            .refused(&wrong, &list)
            .await
            .contains("SignatureDoesNotMatch")
    );
    wrong.access_key_id = "AKIANOBODY".into();
    assert!(
        place
            .refused(&wrong, &list)
            .await
            .contains("InvalidAccessKeyId")
    );
    let anonymous = [&list[..], &["--no-sign-request"]].concat();
    assert!(
        place
            .refused(&wrong, &anonymous)
            .await
            .contains("AccessDenied")
    );
    let presigned = place.aws(&["s3", "presign", "s3://revisions/one"]).await;
    let script = "import sys, ssl, urllib.request, urllib.error\n\
        context = ssl.create_default_context(cafile=sys.argv[1])\n\
        try: print(urllib.request.urlopen(sys.argv[2], context=context).status)\n\
        except urllib.error.HTTPError as error: print(error.code, error.read().decode())";
    let authority = place.path("authority.pem");
    let run = ["-c", script, authority.to_str().unwrap(), presigned.trim()];
    let fetched = place.run("python3", &wrong, &run).await;
    let fetched = String::from_utf8(fetched.stdout).unwrap();
    assert!(
        fetched.starts_with("403 ") && fetched.contains("Authorization header"),
        "{fetched}"
    );

    // boto3 trusts the authority too, with all checks of Python.
    let script = "import boto3\n\
        body = boto3.client('s3').get_object(Bucket='revisions', Key='one')['Body'].read()\n\
        print(boto3.client('codedeploy').list_applications()['applications'], body)";
    let ran = place
        .run("python3", &place.service.operator, &["-c", script])
        .await;
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(
        printed,
        "[] b'one\\n'\n",
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );

    // An incomplete upload is not stored.
    let cut = place
        .run("python3", &place.service.operator, &["-c", CUT_UPLOAD])
        .await;
    let printed = String::from_utf8_lossy(&cut.stdout).into_owned();
    assert!(
        printed.starts_with("400 ") && printed.contains("IncompleteBody"),
        "{printed}{}",
        String::from_utf8_lossy(&cut.stderr)
    );

    // A removed host can no longer read anything.
    let data = place.service.data.display().to_string();
    let removed = Programs::built()
        .controller
        .output(["host", "remove", "box1", "--data-dir", &data])
        .await;
    assert!(removed.status.success());
    assert!(
        place
            .refused(&host, &list)
            .await
            .contains("InvalidAccessKeyId")
    );
    place.service.stop().await;
}

#[tokio::test]
async fn objects_are_copied_without_leaving_the_service() {
    let place = Place::new().await;
    let (small, large, out) = (place.path("small"), place.path("large"), place.path("out"));
    let (one, out) = (small.to_str().unwrap(), out.to_str().unwrap());
    fs::write(&small, "one\n").unwrap();
    place.aws(&["s3", "mb", "s3://more"]).await;
    place
        .aws(&[
            "s3",
            "cp",
            one,
            "s3://revisions/a b+c",
            "--metadata",
            "team=web",
        ])
        .await;
    place
        .aws(&["s3", "cp", "s3://revisions/a b+c", "s3://more/copy"])
        .await;
    assert_eq!(
        place.aws(&["s3", "cp", "s3://more/copy", "-"]).await,
        "one\n"
    );
    let head = async |key: &str| {
        json(
            &place
                .aws(&["s3api", "head-object", "--bucket", "more", "--key", key])
                .await,
        )
    };
    assert_eq!(head("copy").await["Metadata"]["team"], "web");
    let replace = [
        "--metadata-directive",
        "REPLACE",
        "--metadata",
        "team=ops",
        "--content-type",
        "text/x",
    ];
    place
        .aws(
            &[
                &["s3", "cp", "s3://more/copy", "s3://more/copy"][..],
                &replace,
            ]
            .concat(),
        )
        .await;
    let replaced = head("copy").await;
    assert_eq!(
        (&replaced["Metadata"]["team"], &replaced["ContentType"]),
        (&"ops".into(), &"text/x".into())
    );
    place
        .aws(&["s3", "mv", "s3://more/copy", "s3://more/moved"])
        .await;
    assert!(
        place
            .aws(&["s3", "ls", "s3://more/"])
            .await
            .trim_end()
            .ends_with(" 4 moved")
    );

    // A multipart copy, as the aws CLI copies large objects.
    let noise: Vec<u8> = (0..20 * 1024 * 1024u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8)
        .collect();
    fs::write(&large, &noise).unwrap();
    place
        .aws(&["s3", "cp", large.to_str().unwrap(), "s3://revisions/large"])
        .await;
    place
        .aws(&["s3", "cp", "s3://revisions/large", "s3://more/large"])
        .await;
    assert_eq!(
        head("large").await["ETag"]
            .as_str()
            .unwrap()
            .split('-')
            .nth(1),
        Some("3\"")
    );
    place.aws(&["s3", "cp", "s3://more/large", out]).await;
    assert!(fs::read(out).unwrap() == noise);

    // An earlier version becomes the newest, through boto3.
    fs::write(&small, "two\n").unwrap();
    place.aws(&["s3", "cp", one, "s3://revisions/a b+c"]).await;
    let first = place.versions("a b").await.remove(1);
    let script = format!(
        "import boto3\n\
         s3 = boto3.client('s3')\n\
         source = {{'Bucket': 'revisions', 'Key': 'a b+c', 'VersionId': '{first}'}}\n\
         done = s3.copy_object(Bucket='revisions', Key='a b+c', CopySource=source, ChecksumAlgorithm='SHA256')\n\
         print(done['CopySourceVersionId'] == '{first}', done['VersionId'] == '{first}',\n\
               s3.get_object(Bucket='revisions', Key='a b+c', IfMatch=done['CopyObjectResult']['ETag'])['Body'].read(),\n\
               done['CopyObjectResult']['ChecksumSHA256'])\n\
         for wrong in [{{}}, {{'Key': 'new', 'CopySourceIfMatch': 'other'}}, {{'Key': 'new', 'CopySource': 'none/x'}}, \
                       {{'Key': 'new', 'CopySource': 'revisions/none'}}]:\n\
         \x20   try: s3.copy_object(**{{'Bucket': 'revisions', 'Key': 'a b+c', 'CopySource': 'revisions/a b+c', **wrong}})\n\
         \x20   except Exception as error: print(error.response['Error']['Code'])"
    );
    let said = place.python(&script).await;
    let mut lines = said.lines();
    let sum = "LIsI2lzmA5jh8Zrw5dzMdE3ydLgmq+WF6rpoxSVDSAY=";
    assert_eq!(
        lines.next(),
        Some(format!("True False b'one\\n' {sum}").as_str())
    );
    let refusals: Vec<_> = lines.collect();
    assert_eq!(
        refusals,
        [
            "InvalidRequest",
            "PreconditionFailed",
            "NoSuchBucket",
            "NoSuchKey"
        ]
    );

    let reader = keys(
        &place
            .service
            .administer(&["credentials", "create", "--role", "read-only", "--json"])
            .await,
    );
    let copy = ["s3", "cp", "s3://revisions/large", "s3://revisions/other"];
    assert!(place.refused(&reader, &copy).await.contains("AccessDenied"));

    // Everything at once, with every version: then the bucket can be deleted.
    let script = "import boto3\n\
        bucket = boto3.resource('s3').Bucket('more')\n\
        print(sorted(one.key for one in bucket.objects.all()))\n\
        bucket.objects.delete()\n\
        print(list(bucket.objects.all()))\n\
        bucket.object_versions.delete()\n\
        bucket.delete()";
    assert_eq!(place.python(script).await, "['large', 'moved']\n[]\n");
    assert!(!place.aws(&["s3", "ls"]).await.contains("more"));
    place.service.stop().await;
}

#[tokio::test]
async fn old_versions_are_deleted_but_none_that_a_deployment_may_come_back_to() {
    let mut place = Place::new().await;
    place
        .python(
            "import boto3\n\
             s3 = boto3.client('s3')\n\
             for number in range(5): s3.put_object(Bucket='revisions', Key='shop.zip', Body=str(number))\n\
             s3.put_object(Bucket='revisions', Key='gone.zip', Body='x')\n\
             s3.delete_object(Bucket='revisions', Key='gone.zip')",
        )
        .await;
    let [fifth, fourth, _, _, first] =
        <[String; 5]>::try_from(place.versions("shop.zip").await).unwrap();
    place
        .aws_line("deploy create-application --application-name shop")
        .await;
    let group = "--application-name shop --deployment-group-name web";
    let role = "--service-role-arn arn:aws:iam::123456789012:role/cd";
    place
        .aws_line(&format!("deploy create-deployment-group {group} {role}"))
        .await;
    let location = format!("bucket=revisions,key=shop.zip,bundleType=zip,version={first}");
    // It fails because there are no hosts, but it sets the group's target revision.
    place
        .aws_line(&format!(
            "deploy create-deployment {group} --s3-location {location}"
        ))
        .await;

    place = place.restarted("keep_versions: 2").await;
    let expected = [fifth.clone(), fourth, first.clone()];
    wait::until("old versions are deleted", async || {
        let left = place.versions("shop.zip").await;
        if left == expected { Ok(()) } else { Err(left) }
    })
    .await;
    assert_eq!(place.versions("gone.zip").await.len(), 2);
    // From then on, old versions are deleted when a new one arrives.
    place
        .python("import boto3; boto3.client('s3').put_object(Bucket='revisions', Key='shop.zip', Body='new')")
        .await;
    let mut sixth = String::new();
    wait::until("the oldest makes room", async || {
        let left = place.versions("shop.zip").await;
        sixth = left.first().cloned().unwrap_or_default();
        if left == [sixth.clone(), fifth.clone(), first.clone()] {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;

    place = place.restarted("keep_days: 0.000001").await;
    wait::until("all that can go is gone", async || {
        let left = [
            place.versions("shop.zip").await,
            place.versions("gone.zip").await,
        ]
        .concat();
        if left == [sixth.clone(), first.clone()] {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
    let bucket = place.service.data.join("s3/revisions");
    assert!(!bucket.join("gone.zip%v").exists());
    assert_eq!(fs::read_dir(bucket.join("shop.zip%v")).unwrap().count(), 4);
    place.service.stop().await;
}
