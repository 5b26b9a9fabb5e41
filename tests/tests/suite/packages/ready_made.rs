//! The files in `examples/` that prepare a host: the Ansible role, and the document for cloud-init.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use codedeploy_tests::bucket::python_tool;
use codedeploy_tests::programs::Program;
use serde_yaml::Value;

use super::site::{CONFIGURATION, ON_PREMISES, Site, UNIT, appspec, pack, succeeded};
use crate::pages::{read, repository};

/// What Ansible uses as ssh: it runs the command, its last argument, in the machine.
const SSH: &str = "#!/bin/sh\nfor line; do :; done\nexec nsenter --target INIT --all -- /usr/bin/env -i HOME=/root \
     PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 /bin/sh -c \"$line\"\n";

/// Runs a playbook of the examples against the machine, and returns its recap.
async fn play(site: &Site, playbook: &str, variables: &[String]) -> String {
    let folder = site.folder.path();
    let ssh = folder.join("ssh");
    std::fs::write(&ssh, SSH.replace("INIT", &site.machine.init().to_string())).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let inventory = format!(
        "[controller]\ndeploy ansible_connection=local ansible_become=false ansible_python_interpreter={python}\n\
         [agents]\nbox1 ansible_user=root ansible_ssh_executable={ssh} ansible_ssh_transfer_method=piped \
         ansible_python_interpreter=/usr/bin/python3\n\
         [agents:vars]\ncodedeploy_agent_controller=deploy\ncodedeploy_agent_tags={{\"env\": \"test\"}}\n\
         codedeploy_agent_settings={{\"s3_endpoint_override\": \"{bucket}\"}}\n",
        python = python_tool("python").display(),
        ssh = ssh.display(),
        bucket = site.bucket.endpoint,
    );
    std::fs::write(folder.join("hosts.ini"), inventory).unwrap();
    let built = std::env::current_exe().unwrap();
    let built = built.parent().and_then(Path::parent).unwrap();
    let mut command = Program::at(python_tool("ansible-playbook")).command::<&str>([]);
    command.arg("-i").arg(folder.join("hosts.ini"));
    for variable in variables {
        command.args(["-e", variable]);
    }
    let output = command
        .arg(repository().join("examples/ansible").join(playbook))
        .env("PATH", format!("{}:/usr/bin:/bin", built.display()))
        .env("HOME", folder)
        .env("ANSIBLE_LOCAL_TEMP", folder.join("ansible"))
        .env("CODEDEPLOY_CONTROLLER_DATA_DIR", folder.join("controller"))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let recap = said.lines().rfind(|line| line.starts_with("box1 "));
    recap.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// A package of AWS's agent, as far as switching back needs one.
fn awss_package(folder: &Path) -> std::path::PathBuf {
    let tree = folder.join("aws");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("opt/codedeploy-agent/bin")).unwrap();
    let control = "Package: codedeploy-agent\nVersion: 1.8.1-17\nArchitecture: all\nMaintainer: AWS <none@example.com>\n\
         Description: AWS CodeDeploy Host Agent\n";
    std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
    std::fs::write(tree.join("opt/codedeploy-agent/bin/ruby-agent"), "").unwrap();
    let file = folder.join("codedeploy-agent_1.8.1-17_all.deb");
    let built = std::process::Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .args([&tree, &file])
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    file
}

#[tokio::test]
#[ignore = "needs root"]
async fn ansible_takes_a_host_from_awss_agent_to_this_one_and_back_which_needs_root() {
    let site = Site::open().await;
    let aws = awss_package(site.folder.path());
    let theirs = format!("/root/{}", aws.file_name().unwrap().to_string_lossy());
    std::fs::copy(&aws, site.machine.path(&theirs)).unwrap();
    site.machine
        .succeed(&format!("dpkg --install {theirs}"))
        .await;

    let packages = pack(
        site.folder.path(),
        &["--version", "0.1.0", "--format", "deb"],
    )
    .await;
    let ours = packages
        .iter()
        .find(|path| path.to_string_lossy().contains("codedeploy-agent_"))
        .unwrap();
    let ours = [format!("codedeploy_agent_package={}", ours.display())];
    let first = play(&site, "agents.yml", &ours).await;
    assert!(!first.contains("changed=0"), "{first}");
    // A change of its files restarts it, and nobody waits for that.
    site.machine
        .until_property(UNIT, "ActiveState", "active")
        .await;
    assert!(
        site.machine
            .read(ON_PREMISES)
            .contains("aws_secret_access_key")
    );
    let id = site
        .create(&[("appspec.yml", &appspec(&[])), ("page", "one")])
        .await;
    succeeded(&site.outcome(&id).await);

    let again = play(&site, "agents.yml", &ours).await;
    assert!(
        again.contains("changed=0"),
        "a second run changed something: {again}"
    );

    let back = [format!("aws_agent_package={}", aws.display())];
    play(&site, "switch-back.yml", &back).await;
    assert!(
        site.machine
            .path("/opt/codedeploy-agent/bin/ruby-agent")
            .exists()
    );
    assert!(
        site.machine
            .read(CONFIGURATION)
            .contains("deploy_control_endpoint")
    );
    site.close().await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_host_that_cloud_init_prepares_takes_part_in_deployments_which_needs_root() {
    let site = Site::open().await;
    let registered = site
        .service
        .administer(&["host", "add", "box1", "--tag", "env=test", "--json"])
        .await;
    let document: Value =
        serde_yaml::from_str(&read(Path::new("examples/cloud-init/agent.yaml"))).unwrap();
    assert_eq!(document["packages"][0], "codedeploy-agent");
    let package = site.package("codedeploy-agent", "0.1.0").await;
    // cloud-init(1) writes the files before it installs packages, and runs the commands last.
    for file in document["write_files"].as_sequence().unwrap() {
        let (path, text) = (
            file["path"].as_str().unwrap(),
            file["content"].as_str().unwrap(),
        );
        site.machine
            .write(path, &filled_in(text, &registered, &site));
        let mode = file["permissions"].as_str().unwrap();
        site.machine.succeed(&format!("chmod {mode} {path}")).await;
    }
    site.machine
        .succeed(&format!("dpkg --force-confold --install {package} 2>&1"))
        .await;
    for command in document["runcmd"].as_sequence().unwrap() {
        let words: Vec<&str> = command
            .as_sequence()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        site.machine.succeed(&words.join(" ")).await;
    }
    let id = site
        .create(&[("appspec.yml", &appspec(&[])), ("page", "one")])
        .await;
    succeeded(&site.outcome(&id).await);
    site.close().await;
}

/// Puts the values of `host add` in place of those of the example.
fn filled_in(text: &str, registered: &serde_json::Value, site: &Site) -> String {
    let made = ["codedeployagent.yml", "codedeploy.onpremises.yml"]
        .map(|file| registered[file].as_str().unwrap())
        .join("\n");
    let value = |key: &str| {
        made.lines()
            .find(|line| line.starts_with(&format!("{key}: ")))
    };
    let bucket = format!(":s3_endpoint_override: {}", site.bucket.endpoint);
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some((":s3_endpoint_override", _)) => &*bucket,
        Some((key, _)) => value(key).unwrap_or(line),
        None => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}
