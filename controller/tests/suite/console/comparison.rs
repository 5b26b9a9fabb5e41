//! What differs from what runs, in the preview of a deployment.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::browser::{Browser, Shown};
use crate::support::{Agent, Controller, Forgery, shop, text};

const CONFIG: &str = "{console: {}, s3: {buckets: [revisions]}, timers: {poll: 0.05}}";
const PATH: &str = "/console/groups/shop/web/deploy";

fn write(folder: &Path, path: &str, text: &str, mode: u32) {
    let path = folder.join(path);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn appspec(timeout: u32) -> String {
    format!(
        "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - {{location: after.sh, timeout: {timeout}}}\n"
    )
}

/// A controller whose group runs a revision that was made of a folder.
async fn running() -> (Controller, PathBuf) {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let folder = controller.folder.path().join("site");
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder, "appspec.yml", &appspec(30), 0o644);
    write(&folder, "after.sh", "#!/bin/sh\nexit 0\n", 0o755);
    write(&folder, "old.txt", "old", 0o644);
    write(&folder, "same.txt", "same", 0o644);
    let path = folder.to_str().unwrap();
    let deployed = controller.admin_json(&["deploy", "shop", "web", path, "--json"]);
    agent.run_to("ValidateService").await;
    shop::ended(&client, &text(&deployed, "deploymentId")).await;
    (controller, folder)
}

/// Uploads the folder as another revision, and returns the query that previews it.
async fn upload(controller: &Controller, key: &str, bundle: Vec<u8>) -> String {
    let forgery = Forgery {
        service: "s3",
        ..Forgery::none("")
    };
    let request = format!("PUT /revisions/{key}");
    let operator: Agent = controller.operator();
    let done = operator.raw(forgery, &request, &[], bundle).await;
    assert_eq!(done.unwrap().0, 200);
    format!(
        "{PATH}?other=s3%3A%2F%2Frevisions%2F{}",
        key.replace('/', "%2F")
    )
}

fn bundle(folder: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", folder).unwrap();
    archive.into_inner().unwrap()
}

fn has(page: &Shown, expected: &[&str]) {
    for text in expected {
        assert!(page.text.contains(text), "{text} is missing: {}", page.text);
    }
}

#[tokio::test]
async fn a_preview_shows_what_differs_from_what_runs() {
    let (controller, folder) = running().await;
    let mut browser = Browser::at(&controller, &[]).await;
    std::fs::remove_file(folder.join("old.txt")).unwrap();
    write(&folder, "appspec.yml", &appspec(60), 0o644);
    write(&folder, "after.sh", "#!/bin/sh\nexit 0\n", 0o700);
    write(&folder, "<b>new\u{1b}[2J.txt", "new", 0o644);
    for number in 0..130 {
        write(&folder, &format!("more{number:03}"), "", 0o644);
    }
    let preview = upload(&controller, "shop/2.tar", bundle(&folder)).await;
    let page = browser.page(&preview).await;
    has(
        &page,
        &[
            "What differs from what runs",
            "1 file is equal.",
            "<b>added</b> <span class=\"mono\">&#60;b&#62;new",
            "<b>removed</b> <span class=\"mono\">old.txt</span>",
            "<b>changed</b> <span class=\"mono\">appspec.yml</span>",
            "mode 755 before, now 700",
            "and 34 more",
            "Hooks that differ",
            "after.sh (timeout 30) before, now after.sh (timeout 60)",
        ],
    );
    assert!(!page.text.contains('\u{1b}'), "{}", page.text);
    let json = browser.page(&format!("{preview}&format=json")).await.json();
    assert_eq!(json["files"].as_array().unwrap().len(), 100);
    assert_eq!(
        (&json["moreFiles"], &json["equalFiles"]),
        (&json!(34), &json!(1))
    );
    assert_eq!(json["files"][0]["changes"], json!(["Mode"]));
    assert_eq!(json["hooks"][0]["lifecycleEventName"], "AfterInstall");
    assert_eq!(json["comparisonProblem"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_compared_is_said() {
    let (controller, folder) = running().await;
    let mut browser = Browser::at(&controller, &[]).await;
    let damaged = upload(
        &controller,
        "shop/damaged.zip",
        b"PK\x03\x04 and no more".to_vec(),
    )
    .await;
    let page = browser.page(&damaged).await;
    has(
        &page,
        &[
            "Deploy now",
            "Unknown: s3://revisions/shop/damaged.zip",
            "cannot be compared here",
        ],
    );
    let elsewhere = format!("{PATH}?other=s3%3A%2F%2Felsewhere%2Fshop%2F1.tgz");
    let page = browser.page(&elsewhere).await;
    has(
        &page,
        &[
            "Unknown: the controller does not hold s3://elsewhere/shop/1.tgz",
            "codedeploy-controller diff shop web s3://elsewhere/shop/1.tgz",
        ],
    );
    let json = browser
        .page(&format!("{elsewhere}&format=json"))
        .await
        .json();
    assert_eq!(
        json["comparisonProblem"],
        "the controller does not hold s3://elsewhere/shop/1.tgz"
    );

    // A bundle that grows without end when it is unpacked.
    let many = controller.folder.path().join("many");
    std::fs::create_dir(&many).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..20_001 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        archive
            .append_data(&mut header, format!("f{number}"), std::io::empty())
            .unwrap();
    }
    let many = upload(&controller, "shop/many.tar", archive.into_inner().unwrap()).await;
    has(
        &browser.page(&many).await,
        &["it has more than 20000 files"],
    );

    // A user of one application sees nothing of the bundles of others.
    let secret = upload(&controller, "blog/secret.tar", bundle(&folder)).await;
    let limited = ["--application", "shop"];
    let mut browser = Browser::at(&controller, &limited).await;
    let page = browser.page(&secret).await;
    has(
        &page,
        &["Unknown: the controller does not hold s3://revisions/blog/secret.tar"],
    );
    let own = upload(&controller, "shop/3.tar", bundle(&folder)).await;
    has(&browser.page(&own).await, &["All files are equal."]);
}
