//! Every folder of `appspec-examples` is deployed twice as its README describes, and works as
//! promised; its checks fail when it is broken.

mod deployment;
mod observe;
mod readme;
mod world;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use deployment::{Deployment, deploy, zipped};
use observe::{acl, get, listing, post, running};
use serde_json::json;
use world::World;

use crate::pages;

/// Deploys `example` as a folder, then, as its next release, as a zip file. Returns the folder's
/// path and both deployments.
fn deployed_twice(world: &mut World, example: &str) -> (String, [Deployment; 2]) {
    let bundle = world.bring(&readme::folder().join(example), example);
    let steps = readme::steps(example);
    let first_steps: Vec<_> = steps
        .iter()
        .filter(|step| step.event != "ApplicationStop")
        .cloned()
        .collect();

    let first = deploy(world, &bundle, "");
    first.went_as(&first_steps);
    let zip = zipped(world, &bundle);
    let second = deploy(world, &zip, "");
    second.went_as(&steps);
    assert_eq!(
        world.say("ls -A /tmp"),
        "",
        "scripts left something in /tmp"
    );
    (bundle, [first, second])
}

#[test]
#[ignore = "needs root"]
fn the_host_does_not_notice_a_world_as_root() {
    let mut world = World::of_root();
    world.say("touch /etc/from-a-world /opt/from-a-world /tmp/from-a-world");
    for folder in ["/etc", "/opt", "/tmp"] {
        assert!(
            !std::path::Path::new(folder).join("from-a-world").exists(),
            "{folder} is the host's"
        );
    }
    let elsewhere = world.run("touch /usr/from-a-world");
    assert!(
        elsewhere.output.contains("Read-only file system"),
        "{}",
        elsewhere.output
    );
}

/// A home with the results of the README's installation lines; root needs no `sudo`.
const HOME: &str = r#"
mkdir -p /tmp/home/.cargo /tmp/home/aws/bin
ln -s /mnt/programs /tmp/home/.cargo/bin
printf '#!/bin/sh\nexec /mnt/tools/python/bin/python3 /mnt/tools/python/bin/aws "$@"\n' > /tmp/home/aws/bin/aws
printf '#!/bin/sh\nexec "$@"\n' > /tmp/home/aws/bin/sudo
chmod 755 /tmp/home/aws/bin/*
"#;

/// The controller's journal, including systemd's own lines.
const JOURNALCTL: &str = r#"
printf '#!/bin/sh\necho "Started codedeploy-controller.service."\ncat /tmp/home/codedeploy/log\n' \
  > /tmp/home/aws/bin/journalctl
chmod 755 /tmp/home/aws/bin/journalctl
"#;

/// Runs shell text whose every line must succeed, in a temporary home and in the repository's
/// folder.
fn at_home(shell: &str) -> String {
    format!("export HOME=/tmp/home PATH=/tmp/home/aws/bin:$PATH\ncd /mnt/repository\n{shell}")
}

#[test]
#[ignore = "needs root"]
fn the_walk_of_the_readme_works_as_it_stands_as_root() {
    let mut world = World::of_root();
    world.say(HOME);
    let here =
        pages::without_installations(&pages::recipes("README.md", "## Deploying on this machine"));
    let deployed = world.say(&at_home(&here));
    assert!(
        deployed.ends_with("Local deployment successful"),
        "{deployed}"
    );

    let service =
        pages::without_installations(&pages::recipes("README.md", "## A service and its hosts"));
    let said = world.say(&at_home(&service));
    let page =
        std::fs::read_to_string(readme::folder().join("static-site/site/index.html")).unwrap();
    let (_, commands) = said.split_once(page.trim_end()).expect(&said);
    assert!(commands.matches("Succeeded").count() >= 2, "{commands}");

    // The recipes for both logs, applied to the present logs.
    let logs = pages::recipes("docs/logs.md", "## Fields");
    let agents = world.say(&at_home(&logs));
    assert!(
        agents
            .lines()
            .any(|line| line.parse::<u64>().is_ok_and(|bytes| bytes > 0)),
        "{agents}"
    );
    world.say(JOURNALCTL);
    let recipes = pages::recipes("docs/logs.md", "## The controller");
    let controllers = world.say(&at_home(&format!("cd /tmp/home\n{recipes}")));
    assert!(
        controllers.contains("CreateDeploymentGroup"),
        "{controllers}"
    );
}

#[test]
fn every_readme_says_how_to_deploy() {
    let index = std::fs::read_to_string(readme::folder().join("README.md")).unwrap();
    let examples = readme::examples();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let text = readme::text(&example);
        assert!(
            index.contains(&format!("]({example})")),
            "the index does not link to {example}"
        );
        for line in [
            format!("codedeploy-local --bundle-location appspec-examples/{example}\n"),
            "aws deploy push --application-name ".to_owned(),
            format!(" --source appspec-examples/{example} "),
            "aws deploy create-deployment --application-name ".to_owned(),
            "\n## What happens, in order\n".to_owned(),
            "\n## What to change first\n".to_owned(),
        ] {
            assert!(
                text.contains(&line),
                "the README of {example} has no {line:?}"
            );
        }
        readme::steps(&example);
    }
}

#[test]
fn every_script_of_a_hook_can_run_and_stops_at_its_first_error() {
    for example in readme::examples() {
        let folder = readme::folder().join(&example);
        for location in readme::steps(&example)
            .into_iter()
            .filter_map(|step| step.script)
        {
            let path = folder.join(&location);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("#!/bin/sh\n# "),
                "{example}/{location} does not say what it does"
            );
            assert!(
                text.contains("\nset -eu\n"),
                "{example}/{location} goes on after an error"
            );
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(
                mode & 0o111,
                0o111,
                "{example}/{location} is not executable"
            );
        }
    }
}

#[test]
#[ignore = "needs root"]
fn static_site_is_served_as_bundled_as_root() {
    let mut world = World::of_root();
    let (bundle, _) = deployed_twice(&mut world, "static-site");
    assert_eq!(
        listing(&mut world, "/var/www/static-site"),
        [
            "644 root root 404.html",
            "755 root root assets",
            "644 root root assets/style.css",
            "644 root root index.html"
        ]
    );
    world.say(&format!("diff -r {bundle}/site /var/www/static-site"));

    world.say(&format!(
        "rm {bundle}/site/404.html && sed -i s/0644/0600/ {bundle}/appspec.yml"
    ));
    let unreadable = deploy(&mut world, &bundle, "");
    unreadable.failed_in(
        "ValidateService",
        "scripts/validate_service.sh",
        "has mode 600, expected 644",
    );
    assert_eq!(
        world.run("test -e /var/www/static-site/404.html").status,
        1,
        "a removed page is still served"
    );
}

#[test]
#[ignore = "needs root"]
fn web_service_serves_the_newest_version_as_root() {
    let mut world = World::of_root();
    let (bundle, _) = deployed_twice(&mut world, "web-service");
    let health = "http://127.0.0.1:8080/health";
    let server = "/opt/web-service/server.py";
    assert_eq!(
        get(&mut world, health),
        json!({"status": "ok", "version": "1.0.0"})
    );
    assert_eq!(running(&mut world, server), ["web-service"]);
    assert_eq!(
        listing(&mut world, "/opt/web-service"),
        ["644 root root VERSION", "644 root root server.py"]
    );
    let unit = world.say("stat -c '%a %U %G' /etc/systemd/system/web-service.service");
    assert_eq!(unit, "644 root root");
    let user = world
        .say("stat -c %U $(grep -las '/opt/web-service/server[.]py' /proc/[0-9]*/cmdline | cut -d/ -f1-3)");
    assert_eq!(user, "web-service");
    world.say("systemctl is-enabled web-service.service");

    world.say(&format!("echo 2.0.0 > {bundle}/app/VERSION"));
    assert!(deploy(&mut world, &bundle, "").succeeded);
    assert_eq!(get(&mut world, health)["version"], "2.0.0");

    world.say(&format!(
        "sed -i 's/\"ok\"/\"ill\"/' {bundle}/app/server.py"
    ));
    let ill = deploy(&mut world, &bundle, "VALIDATE_SECONDS=1");
    ill.failed_in(
        "ValidateService",
        "scripts/validate_service.sh",
        "not healthy after 1 s",
    );
    assert_eq!(get(&mut world, health)["status"], "ill");

    world.say(&format!(
        "sed -i 's/\"ill\"/\"ok\"/' {bundle}/app/server.py"
    ));
    assert!(deploy(&mut world, &bundle, "").succeeded);
    assert_eq!(get(&mut world, health)["status"], "ok");
    assert_eq!(running(&mut world, server), ["web-service"]);
}

#[test]
#[ignore = "needs root"]
fn web_service_that_does_not_listen_fails_its_deployment_as_root() {
    let mut world = World::of_root();
    let bundle = world.bring(&readme::folder().join("web-service"), "web-service");
    world.say(&format!(
        "echo 'import time; time.sleep(3600)' > {bundle}/app/server.py"
    ));
    let broken = deploy(&mut world, &bundle, "VALIDATE_SECONDS=1");
    broken.failed_in(
        "ValidateService",
        "scripts/validate_service.sh",
        "Connection refused",
    );

    // The host recovers with the next good revision.
    world.say(&format!("rm -r {bundle}"));
    let bundle = world.bring(&readme::folder().join("web-service"), "web-service");
    let repaired = deploy(&mut world, &bundle, "");
    assert!(repaired.succeeded, "{}", repaired.output);
}

#[test]
#[ignore = "needs root"]
fn multiple_scripts_keep_and_migrate_the_database_as_root() {
    let mut world = World::of_root();
    let bundle = world.bring(&readme::folder().join("multiple-scripts"), "release");
    let inventory = "/opt/inventory/inventory.py /var/lib/inventory/inventory.db";

    // The release before the last migration, with data in it.
    world.say(&format!("rm {bundle}/app/migrations/002_*"));
    let before = deploy(&mut world, &bundle, "");
    assert!(before.succeeded, "{}", before.output);
    world.say(&format!(
        "setpriv --reuid inventory --regid inventory --clear-groups {inventory} add bolts 12"
    ));
    assert_eq!(world.say(&format!("{inventory} version")), "001_items");

    let bundle = world.bring(
        &readme::folder().join("multiple-scripts"),
        "multiple-scripts",
    );
    let zip = zipped(&mut world, &bundle);
    deploy(&mut world, &bundle, "").went_as(&readme::steps("multiple-scripts"));
    assert_eq!(world.say(&format!("{inventory} count bolts")), "12");
    assert_eq!(
        world.say(&format!("{inventory} version")),
        "002_pieces_are_not_negative"
    );
    assert_ne!(
        world.run(&format!("{inventory} add bolts -13")).status,
        0,
        "the migration has no effect"
    );
    assert_eq!(world.say("ls -A /var/lib/inventory/backups | wc -l"), "1");
    let data = listing(&mut world, "/var/lib/inventory");
    assert!(
        data.iter()
            .all(|line| line.contains(" inventory inventory ")),
        "{data:#?}"
    );
    assert_eq!(world.say("stat -c %a /opt/inventory/inventory.py"), "755");

    world.say(&format!(
        "echo 'CREATE TABLE half (a); CREATE NONSENSE;' > {bundle}/app/migrations/003_wrong.sql"
    ));
    let failed = deploy(&mut world, &bundle, "");
    let script = "scripts/after_install/30_migrate_database.sh";
    failed.failed_in(
        "AfterInstall",
        script,
        "003_wrong.sql: near \"NONSENSE\": syntax error",
    );
    assert_eq!(
        world.say(&format!("{inventory} version")),
        "002_pieces_are_not_negative"
    );

    for _ in 0..3 {
        deploy(&mut world, &zip, "").went_as(&readme::steps("multiple-scripts"));
    }
    assert_eq!(
        world.say("ls -A /var/lib/inventory/backups | wc -l"),
        "3",
        "only three backups are kept"
    );
}

#[test]
#[ignore = "needs root"]
fn permissions_acl_are_set_as_root() {
    let mut world = World::of_root();
    let (bundle, _) = deployed_twice(&mut world, "permissions-acl");
    assert_eq!(
        listing(&mut world, "/srv/team-data"),
        [
            "640 root team-data handbook.txt",
            "750 root team-data reports",
            "750 root team-data reports/2026",
            "440 root team-data reports/2026/visits.csv",
            "440 root team-data reports/README.txt",
            "640 root root service.env",
            "2770 root team-data shared",
            "644 root root shared/README.txt",
        ]
    );
    let env = acl(&mut world, "/srv/team-data/service.env");
    assert_eq!(
        env,
        "user::rw-\nuser:team-reader:r--\ngroup::r--\nmask::r--\nother::---"
    );
    let shared = acl(&mut world, "/srv/team-data/shared");
    let access = "user::rwx\ngroup::rwx\ngroup:team-auditors:r-x\nmask::rwx\nother::---";
    let default = access
        .lines()
        .map(|entry| format!("\ndefault:{entry}"))
        .collect::<String>();
    assert_eq!(shared, format!("{access}{default}"));

    // The team's own files survive a deployment, in a folder that keeps its permissions.
    world.say("echo ours > /srv/team-data/shared/ours.txt");
    let again = deploy(&mut world, &bundle, "");
    assert!(again.succeeded, "{}", again.output);
    assert_eq!(world.say("cat /srv/team-data/shared/ours.txt"), "ours");
    assert_eq!(acl(&mut world, "/srv/team-data/shared"), shared);

    world.say(&format!(
        "sed -i 's/u:team-reader:r/u:team-member:r/' {bundle}/appspec.yml"
    ));
    let wrong = deploy(&mut world, &bundle, "");
    wrong.failed_in(
        "ValidateService",
        "scripts/validate_service/as_member.sh",
        "can read service.env",
    );
}

#[test]
#[ignore = "needs root"]
fn model_server_predicts_what_was_measured_as_root() {
    let mut world = World::of_root();
    let (bundle, [first, second]) = deployed_twice(&mut world, "model-server");
    assert!(
        second.output.contains("accuracy 0.983 on 60 held-out rows"),
        "{}",
        second.output
    );
    let health = "http://127.0.0.1:8090/health";
    let server = "/opt/model-server/server.py";
    assert_eq!(
        get(&mut world, health),
        json!({"status": "ok", "model": second.id})
    );
    assert_eq!(running(&mut world, server), ["model-server"]);
    let predict = "http://127.0.0.1:8090/predict";
    let rivet = json!({"instances": [{"length_mm": 18.98, "diameter_mm": 6.26, "mass_g": 3.41}]});
    assert_eq!(
        post(&mut world, predict, &rivet)["predictions"][0]["kind"],
        "rivet"
    );
    let nonsense = post(
        &mut world,
        predict,
        &json!({"instances": [{"length_mm": "long"}]}),
    );
    assert_eq!(
        nonsense["error"],
        "each instance needs the numbers length_mm, diameter_mm, mass_g"
    );
    let link = |world: &mut World, name: &str| {
        world.say(&format!("readlink /var/lib/model-server/{name}"))
    };
    assert_eq!(link(&mut world, "previous"), format!("models/{}", first.id));

    // A third release: the first model is two releases old and is removed.
    let third = deploy(&mut world, &bundle, "");
    assert!(third.succeeded, "{}", third.output);
    let mut kept = [second.id.as_str(), third.id.as_str()];
    kept.sort_unstable();
    assert_eq!(
        world.say("ls /var/lib/model-server/models"),
        kept.join("\n")
    );

    // A model whose predictions differ from the measured ones never stays in service.
    world.say(&format!(
        "sed -i '/\"labels\"/,/]/ {{ s/bolt/x/; s/rivet/bolt/; s/x/rivet/ }}' {bundle}/app/model.json"
    ));
    let wrong = deploy(&mut world, &bundle, "");
    wrong.failed_in(
        "ValidateService",
        "scripts/validate_service.sh",
        "training predicted",
    );
    assert!(wrong.output.contains(&format!(
        "the previous model, {}, is in service again",
        third.id
    )));
    assert_eq!(get(&mut world, health)["model"], third.id.as_str());
    assert_eq!(
        post(&mut world, predict, &rivet)["predictions"][0]["kind"],
        "rivet"
    );
    assert_eq!(running(&mut world, server), ["model-server"]);
    assert_eq!(
        world.say("ls /var/lib/model-server/models"),
        kept.join("\n")
    );
}

#[test]
#[ignore = "needs root"]
fn model_server_without_a_good_model_serves_none_as_root() {
    let mut world = World::of_root();
    let bundle = world.bring(&readme::folder().join("model-server"), "model-server");
    world.say(&format!(
        "sed -i 's/\"accuracy\": .*/\"accuracy\": 0.5,/' {bundle}/app/metrics.json"
    ));
    let wrong = deploy(&mut world, &bundle, "");
    let cause = "accuracy is 0.983 on the held-out rows, training measured 0.500";
    wrong.failed_in("ValidateService", "scripts/validate_service.sh", cause);
    assert_eq!(running(&mut world, "/opt/model-server/server.py"), [""; 0]);
    assert_eq!(
        world.say("ls -A /var/lib/model-server /var/lib/model-server/models"),
        "/var/lib/model-server:\nmodels\n\n/var/lib/model-server/models:"
    );
}

#[test]
fn the_model_is_what_training_on_the_data_gives() {
    let app = readme::folder().join("model-server/app");
    let python = |script: &str, argument: &std::ffi::OsStr| {
        let output = Command::new("python3")
            .arg("-B")
            .arg(app.join(script))
            .arg(argument)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    python("train.py", "--check".as_ref());

    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("measurements.csv");
    python("generate_data.py", data.as_os_str());
    assert_eq!(
        std::fs::read(data).unwrap(),
        std::fs::read(app.join("measurements.csv")).unwrap()
    );
}
