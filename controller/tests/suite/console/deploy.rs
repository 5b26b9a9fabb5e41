//! The form that deploys, and its preview.

use serde_json::json;

use crate::support::browser::{Browser, Shown};
use crate::support::{Controller, Forgery, shop};

const CONFIG: &str = "{console: {}, s3: {buckets: [revisions]}, timers: {poll: 5, lease: 60, pick_up: 300, run: 4200}}";
const PATH: &str = "/console/groups/shop/web/deploy";

fn has(page: &Shown, expected: &[&str]) {
    for text in expected {
        assert!(page.text.contains(text), "{text} is missing: {}", page.text);
    }
}

/// The value of a hidden field.
fn field(page: &Shown, name: &str) -> String {
    let begin = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.text.split_once(&begin).unwrap();
    rest.split('"').next().unwrap().replace("&#38;", "&")
}

async fn upload(controller: &Controller, key: &str) {
    let forgery = Forgery {
        service: "s3",
        ..Forgery::none("")
    };
    let request = format!("PUT /revisions/{key}");
    let done = controller
        .operator()
        .raw(forgery, &request, &[], b"bundle".to_vec())
        .await;
    assert_eq!(done.unwrap().0, 200);
}

#[tokio::test]
async fn a_deployment_is_previewed_and_then_made() {
    let controller = Controller::start(CONFIG);
    for number in 1..=4 {
        controller.host(&format!("box{number}"), &["env=prod"]);
    }
    let seen = controller.host("box5", &["env=prod"]);
    assert!(seen.poll().await.is_none());
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.HalfAtATime").await;
    upload(&controller, "shop/1.tgz").await;
    let mut browser = Browser::at(&controller, &[]).await;
    let front = browser.page("/console/").await;
    has(&front, &["/console/groups/shop/web/deploy"]);
    let form = browser.page(PATH).await;
    has(
        &form,
        &[
            "The group has no revision yet.",
            "CodeDeployDefault.HalfAtATime (the group's)",
            "RETAIN",
        ],
    );
    assert!(!form.text.contains("Deploy now"), "{}", form.text);

    let wrong = browser.page(&format!("{PATH}?other=nothing")).await;
    has(&wrong, &["This is no revision"]);
    let query = "other=s3%3A%2F%2Frevisions%2Fshop%2F1.tgz&config=CodeDeployDefault.OneAtATime&description=first+one&behavior=OVERWRITE";
    let preview = browser.page(&format!("{PATH}?{query}")).await;
    has(
        &preview,
        &[
            "Deploy now",
            "1 host at a time; 4 of 5 must stay healthy",
            "1 of 5: 1 host",
            "These hosts are silent, and would fail unless they return: box1, box2, box3, box4",
            "<dt>Version</dt>",
            "uploaded <time",
            "aws deploy create-deployment --application-name shop --deployment-group-name web --s3-location bucket=revisions,key=shop/1.tgz,bundleType=tgz,version=",
            "codedeploy-controller deploy shop web",
            "--config CodeDeployDefault.OneAtATime",
        ],
    );
    // The preview made nothing.
    let none = browser
        .page("/console/deployments?format=json")
        .await
        .json();
    assert_eq!(none, json!({"deployments": []}));
    let json = browser
        .page(&format!("{PATH}?{query}&format=json"))
        .await
        .json();
    assert_eq!(
        json["instances"][4],
        json!({"instanceName": "box5", "silent": false})
    );

    let pinned = field(&preview, "revision");
    assert!(
        pinned.starts_with("s3://revisions/shop/1.tgz?versionId="),
        "{pinned}"
    );
    let fields = [
        ("revision", pinned.as_str()),
        ("config", "CodeDeployDefault.OneAtATime"),
        ("description", "first one"),
        ("behavior", "OVERWRITE"),
    ];
    // A newer upload changes nothing about what was previewed.
    upload(&controller, "shop/1.tgz").await;
    assert_eq!(browser.post(PATH, &fields).await.status, 403);
    let done = browser.submit(&preview, PATH, &fields).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let id = done
        .location()
        .strip_prefix("/console/deployments/")
        .unwrap()
        .to_owned();
    let info = shop::info(&client, &id).await;
    assert_eq!(
        info.deployment_config_name(),
        Some("CodeDeployDefault.OneAtATime")
    );
    assert_eq!(info.description(), Some("first one"));
    assert_eq!(info.file_exists_behavior().unwrap().as_str(), "OVERWRITE");
    let version = info
        .revision()
        .unwrap()
        .s3_location()
        .unwrap()
        .version()
        .unwrap();
    assert!(pinned.contains(version), "{version} {pinned}");
    let audit = controller.admin_json(&["audit", "--json"]);
    let made = audit
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["operation"] == "CreateDeployment")
        .unwrap();
    assert_eq!(
        (&made["source"], &made["names"]["deploymentId"]),
        (&json!("console"), &json!(id))
    );

    let again = browser.page(&format!("{PATH}?{query}")).await;
    has(&again, &["already has an active Deployment"]);
    assert!(!again.text.contains("Deploy now"), "{}", again.text);
    has(
        &browser.page(PATH).await,
        &["type=\"radio\" name=\"revision\" value=\"s3://revisions/shop/1.tgz?versionId="],
    );
}

#[tokio::test]
async fn a_deployment_that_would_fail_at_once_says_so() {
    let (controller, _client, _agent) = shop::one_host(CONFIG).await;
    let mut browser = Browser::at(&controller, &[]).await;
    let key = "x%22%3E%3Cimg+src%3Dx%3E%E2%80%AE.zip";
    let page = browser
        .page(&format!("{PATH}?other=s3://b/{key}&outdated=yes"))
        .await;
    has(
        &page,
        &["Deploy now", r"x&#34;&#62;&#60;img src=x&#62;\u{202e}.zip"],
    );
    assert!(
        !page.text.contains("<img") && !page.text.contains('\u{202e}'),
        "{}",
        page.text
    );
    let output = controller.admin(&["host", "remove", "box1"]);
    assert!(output.status.success());
    let page = browser.page(&format!("{PATH}?other=s3://b/1.zip")).await;
    has(
        &page,
        &[
            "The deployment would fail at once: The deployment failed because no instances were found",
        ],
    );
}

#[tokio::test]
async fn a_reader_and_a_stranger_to_the_group_see_no_form() {
    let (controller, _client, _agent) = shop::one_host(CONFIG).await;
    let fields = [("revision", "s3://b/1.zip")];
    for args in [&["--role", "read-only"][..], &["--application", "blog"]] {
        let mut browser = Browser::at(&controller, args).await;
        let front = browser.page("/console/").await;
        assert!(!front.text.contains("Deploy…"), "{}", front.text);
        assert_eq!(browser.get(PATH).await.status, 403);
        assert_eq!(browser.submit(&front, PATH, &fields).await.status, 403);
    }
    let mut own = Browser::at(&controller, &["--application", "shop"]).await;
    let page = own.page(&format!("{PATH}?other=s3://b/1.zip")).await;
    assert_eq!(own.submit(&page, PATH, &fields).await.status, 303);
}
