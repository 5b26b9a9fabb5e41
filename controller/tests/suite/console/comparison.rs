//! What differs from what runs, in the preview of a deployment.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tar::EntryType;
use tokio::io::AsyncWriteExt as _;

use crate::support::browser::{Browser, Shown};
use crate::support::revision::{appspec, gzip, header, revision, tar, write};
use crate::support::{Agent, Controller, Forgery, eventually, shop, text};

const CONFIG: &str = "{console: {}, s3: {buckets: [revisions]}, timers: {poll: 0.05}}";
const PATH: &str = "/console/groups/shop/web/deploy";

/// A controller whose group runs a revision that was made of a folder.
async fn running() -> (Controller, PathBuf) {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let folder = controller.folder.path().join("site");
    revision(&folder);
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
    let preview = upload(&controller, "shop/2.tar", tar(&folder)).await;
    let page = browser.page(&preview).await;
    has(
        &page,
        &[
            "What differs from what runs",
            "2 files are equal.",
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
        (&json!(34), &json!(2))
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
    let secret = upload(&controller, "blog/secret.tar", tar(&folder)).await;
    let limited = ["--application", "shop"];
    let mut browser = Browser::at(&controller, &limited).await;
    let page = browser.page(&secret).await;
    has(
        &page,
        &["Unknown: the controller does not hold s3://revisions/blog/secret.tar"],
    );
    let own = upload(&controller, "shop/3.tar", tar(&folder)).await;
    has(&browser.page(&own).await, &["All files are equal."]);
}

#[tokio::test]
async fn the_version_that_is_named_is_compared() {
    let (controller, folder) = running().await;
    let mut browser = Browser::at(&controller, &[]).await;
    let preview = upload(&controller, "shop/v.tar", tar(&folder)).await;
    let json = browser.page(&format!("{preview}&format=json")).await.json();
    let version = text(&json["revision"]["s3Location"], "version");
    write(&folder, "same.txt", "other", 0o644);
    upload(&controller, "shop/v.tar", tar(&folder)).await;
    has(&browser.page(&preview).await, &["same.txt"]);
    let first = format!("{preview}%3FversionId%3D{version}");
    has(&browser.page(&first).await, &["All files are equal."]);
}

/// A megabyte as a member of a gzip stream.
fn megabyte(byte: u8) -> Vec<u8> {
    gzip(&[byte].repeat(1 << 20))
}

#[tokio::test]
async fn a_hostile_bundle_takes_neither_memory_nor_an_answer() {
    let (controller, _) = running().await;
    let mut browser = Browser::at(&controller, &[]).await;
    let size = 400 << 20;
    let long = |kind| {
        let content = megabyte(b'x').repeat(400);
        [gzip(&header(kind, "x", size)), content].concat()
    };
    let appspecs = (0..400).flat_map(|number| {
        let path = format!("folder{number}/appspec.yml");
        let head = gzip(&header(EntryType::Regular, &path, 1 << 20));
        [head, megabyte(b'#')].concat()
    });
    let aliases = format!(
        "x: &x [{}]\nhooks: [{}]\n",
        vec!["y"; 20_000].join(","),
        vec!["*x"; 400].join(",")
    );
    let aliases = [
        header(EntryType::Regular, "appspec.yml", aliases.len() as u64),
        aliases.into_bytes(),
        vec![0; 512 * 4],
    ];
    let mut listed = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for number in 0..400_000 {
        listed.start_file(number.to_string(), options).unwrap();
    }
    let device = gzip(&header(EntryType::Char, "x", 2000 << 20));
    let device = [device, megabyte(0).repeat(2000)].concat();
    let bundles = [
        ("name.tgz", long(EntryType::GNULongName), "too long"),
        ("link.tgz", long(EntryType::GNULongLink), "too long"),
        ("header.tgz", long(EntryType::XHeader), "too long"),
        ("appspecs.tgz", appspecs.collect(), "added"),
        (
            "aliases.tar",
            aliases.concat(),
            "its aliases repeat too much",
        ),
        (
            "listed.zip",
            listed.finish().unwrap().into_inner(),
            "cannot be compared here",
        ),
        ("device.tgz", device, "more than 1073741824 bytes"),
    ];
    for (name, bundle, words) in bundles {
        let preview = upload(&controller, &format!("shop/{name}"), bundle).await;
        let before = controller.most_memory();
        let page = browser.page(&preview).await;
        assert!(page.text.contains(words), "{name}: {}", page.text);
        let grown = controller.most_memory() - before;
        assert!(grown < 128 << 20, "{name}: {grown} bytes");
    }
}

#[tokio::test]
async fn previews_that_nobody_waits_for_are_made_one_after_the_other() {
    let (controller, _) = running().await;
    let browser = Browser::at(&controller, &[]).await;
    let head = gzip(&header(EntryType::Regular, "large", 900 << 20));
    let bundle = [head, megabyte(0).repeat(900)].concat();
    let preview = upload(&controller, "shop/large.tgz", bundle).await;
    let request = format!(
        "GET {preview} HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n",
        browser.cookie.as_ref().unwrap()
    );
    let objects = controller.data().join("s3");
    let open = || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", controller.id())).unwrap();
        let files = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        files.filter(|file| file.starts_with(&objects)).count()
    };
    let mut first = tokio::net::TcpStream::connect(controller.address)
        .await
        .unwrap();
    first.write_all(request.as_bytes()).await.unwrap();
    eventually("the first begins", async || (open() > 0).then_some(())).await;
    drop(first);
    let mut browser = browser;
    let second = tokio::spawn(async move { browser.page(&preview).await });
    while !second.is_finished() {
        assert!(open() <= 1, "{} bundles are read at a time", open());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(second.await.unwrap().text.contains("Deploy now"));
}
