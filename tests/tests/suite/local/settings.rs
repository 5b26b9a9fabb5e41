//! The effect of the agent's configuration, and of the machine, on a local deployment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use codedeploy_tests::bundle;
use codedeploy_tests::cloud::{Cloud, KeyRing};
use codedeploy_tests::metadata::{Fault, MetadataServer};
use codedeploy_tests::programs::Programs;

use super::machine::{Machine, ran};

#[tokio::test]
async fn a_key_of_the_configuration_that_means_nothing_is_warned_of() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let configured = fs::read_to_string(machine.path("conf.yml")).unwrap();
    fs::write(
        machine.path("conf.yml"),
        format!("{configured}max_revison: 1\n"),
    )
    .unwrap();
    let ran = machine.deploy(&["-l", revision.to_str().unwrap()]).await;
    let warning = format!(
        "{}: line 2: max_revison: unknown key",
        machine.path("conf.yml").display()
    );
    assert!(
        ran.succeeded && ran.stderr.contains(&warning),
        "{}",
        ran.everything()
    );
}

#[tokio::test]
async fn hardening_that_is_configured_refuses_and_hides_what_it_says() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let configured = fs::read_to_string(machine.path("conf.yml")).unwrap();
    let configure =
        |more: &str| fs::write(machine.path("conf.yml"), format!("{configured}{more}\n")).unwrap();
    std::os::unix::fs::symlink("index.html", revision.join("site/link")).unwrap();
    fs::set_permissions(
        revision.join("site/deep/er/page.html"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let appspec = fs::read_to_string(revision.join("appspec.yml")).unwrap();
    let context = format!(
        "permissions:\n  - object: {}/index.html\n    context: {{user: unconfined_u, type: httpd_sys_content_t}}\nhooks:",
        machine.app()
    );
    let tgz = machine.path("app.tgz");
    let deploy = async || {
        fs::write(&tgz, bundle::tgz(&revision)).unwrap();
        machine
            .deploy(&["-t", "tgz", "-l", tgz.to_str().unwrap()])
            .await
    };
    for (setting, told) in [
        (
            "archive_max_extraction_size: 100B",
            "archive_max_extraction_size",
        ),
        ("reject_symlinks_in_bundle: true", "site/link"),
        (
            "reject_unsafe_permissions_in_bundle: true",
            "site/deep/er/page.html",
        ),
    ] {
        configure(setting);
        let ran = deploy().await;
        assert!(
            !ran.succeeded && ran.stdout.contains(told),
            "{setting}: {}",
            ran.everything()
        );
        assert!(
            !Path::new(&machine.app()).exists(),
            "{setting}: nothing was installed"
        );
    }
    fs::write(
        revision.join("appspec.yml"),
        appspec.replace("hooks:", &context),
    )
    .unwrap();
    configure("reject_unconfined_selinux_in_bundle: true");
    let refused = deploy().await;
    assert!(
        !refused.succeeded && refused.stdout.contains("unconfined_u"),
        "{}",
        refused.everything()
    );
    assert!(!Path::new(&machine.app()).exists());

    fs::write(revision.join("appspec.yml"), appspec).unwrap();
    let note = format!("#!/bin/sh\nenv >> {}\n", machine.path("env").display());
    bundle::write(&revision, &[("note.sh", &note)]);
    for (setting, hidden, seen) in [
        (
            "restrict_hook_env_to_allowlist: true",
            "OPERATORS_OWN=",
            "TZ=UTC",
        ),
        (
            "strip_loader_env_in_hooks: true",
            "PYTHONPATH=",
            "OPERATORS_OWN=1",
        ),
    ] {
        configure(setting);
        let _ = fs::remove_file(machine.path("env"));
        let mut command = Programs::built()
            .local
            .command(["-l", revision.to_str().unwrap(), "-c"]);
        command
            .arg(machine.path("conf.yml"))
            .env("OPERATORS_OWN", "1")
            .env("PYTHONPATH", "/x")
            .env("TZ", "UTC");
        let deployed = ran(command.output().await.unwrap());
        assert!(deployed.succeeded, "{setting}: {}", deployed.everything());
        let seen_by_hooks = fs::read_to_string(machine.path("env")).unwrap();
        assert!(
            !seen_by_hooks.contains(hidden) && seen_by_hooks.contains(seen),
            "{setting}: {seen_by_hooks}"
        );
    }
}

#[tokio::test]
async fn on_an_ec2_instance_its_profile_has_the_keys_for_s3() {
    let machine = Machine::new();
    let keys = KeyRing {
        rotation: Duration::from_secs(86_400),
        overlap: Duration::from_secs(3600),
    };
    let metadata = MetadataServer::start(keys.clone()).await;
    // It verifies every signature.
    let cloud = Cloud::start(&machine.path("cloud"), keys, None).await;
    cloud.serve_bundle(bundle::tgz(&machine.revision("one")));
    let configuration = format!(
        "root_dir: {}\non_premises_config_file: {}\ns3_endpoint_override: http://{}\n",
        machine.path("root").display(),
        machine.path("none.yml").display(),
        cloud.address
    );
    fs::write(machine.path("conf.yml"), configuration).unwrap();
    let run = async |words: &[&str], metadata: &str| {
        let mut command = Programs::built().local.command(words);
        command.arg("-c").arg(machine.path("conf.yml")).env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata);
        ran(command.output().await.unwrap())
    };
    let s3 = ["-t", "tgz", "-l", "s3://revisions/app.tgz"];
    let elsewhere = run(&s3, "http://127.0.0.1:9").await;
    assert!(
        !elsewhere.succeeded && elsewhere.stderr.contains("no credentials for S3"),
        "{}",
        elsewhere.stderr
    );
    metadata.fail(Fault::Silence, 1);
    let silent = run(&s3, &metadata.endpoint).await;
    assert!(
        !silent.succeeded && silent.stderr.contains("no credentials for S3"),
        "{}",
        silent.stderr
    );
    let asked = metadata.requests().len();
    let deployed = run(&s3, &metadata.endpoint).await;
    assert!(deployed.succeeded, "{}", deployed.everything());
    assert_eq!(
        fs::read_to_string(machine.path("app/index.html")).unwrap(),
        "one"
    );
    assert_eq!(cloud.refusals(), [""; 0]);
    let asked_for_s3 = metadata.requests().len();
    assert!(asked_for_s3 > asked);
    let folder = machine.revision("two").display().to_string();
    assert!(run(&["-l", &folder], &metadata.endpoint).await.succeeded);
    assert_eq!(
        metadata.requests().len(),
        asked_for_s3,
        "only S3 needs keys"
    );
}

#[tokio::test]
async fn scripts_have_the_variables_of_the_agent_and_of_the_deployment_and_no_others() {
    let machine = Machine::new();
    let revision = machine.revision("one");
    let env = machine.path("env");
    let note = format!(
        "#!/usr/bin/python3\nimport os\nopen('{}', 'w').write('\\n'.join(os.environ))\n",
        env.display()
    );
    bundle::write(&revision, &[("note.sh", &note)]);
    let mut command = Programs::built()
        .local
        .command(["-l", revision.to_str().unwrap(), "-c"]);
    command
        .arg(machine.path("conf.yml"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("OPERATORS_OWN", "1");
    command
        .env("CODEDEPLOY_GITHUB_TOKEN", "secret")
        .env("INVOCATION_ID", "of the unit");
    let deployed = ran(command.output().await.unwrap());
    assert!(deployed.succeeded, "{}", deployed.everything());
    let seen = fs::read_to_string(env).unwrap();
    // Python sets it on hosts without a locale.
    let mut seen: Vec<&str> = seen.lines().filter(|name| *name != "LC_CTYPE").collect();
    seen.sort_unstable();
    let expected = [
        "APPLICATION_NAME",
        "CODEDEPLOY_HOOK_RUN",
        "DEPLOYMENT_GROUP_ID",
        "DEPLOYMENT_GROUP_NAME",
        "DEPLOYMENT_ID",
        "LIFECYCLE_EVENT",
        "OPERATORS_OWN",
        "PATH",
    ];
    assert_eq!(
        seen, expected,
        "docs/agent/switching.md names what AWS's agents do not set"
    );
}
