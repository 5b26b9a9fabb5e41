//! Users without rights, and strangers with tricks.

use serde_json::json;

use super::fleet::call;
use super::pages::fail_at;
use crate::support::browser::{Browser, link};
use crate::support::{Controller, shop};

const CONFIG: &str = "{console: {}, timers: {poll: 5, lease: 60, pick_up: 300, run: 4200}}";

#[tokio::test]
async fn a_user_of_one_application_finds_nothing_of_another() {
    let (controller, client, agent) = shop::one_host(CONFIG).await;
    let id = shop::deploy(&client, "hidden.zip").await;
    fail_at(&agent, "AfterInstall").await;
    shop::ended(&client, &id).await;
    let admin = controller.operator();
    call(
        &admin,
        "CreateApplication",
        json!({"applicationName": "blog"}),
    )
    .await;
    let group = json!({
        "applicationName": "blog", "deploymentGroupName": "site", "serviceRoleArn": "arn:aws:iam::123456789012:role/r",
        "onPremisesInstanceTagFilters": [{"Key": "env", "Value": "other", "Type": "KEY_AND_VALUE"}],
    });
    call(&admin, "CreateDeploymentGroup", group).await;
    // What is shown of them to somebody who may see them.
    let secrets = ["hidden.zip", "after.sh", "it failed"];
    let mut operator = Browser::at(&controller, &[]).await;
    let whole = operator.page(&format!("/console/deployments/{id}")).await;
    assert!(
        whole.text.contains("after.sh") && whole.text.contains("hidden.zip"),
        "{}",
        whole.text
    );

    let mut limited = Browser::at(&controller, &["--application", "blog"]).await;
    for path in [
        "/console/",
        "/console/inbox",
        "/console/deployments",
        "/console/deployments?status=Failed",
        "/console/hosts",
        "/console/hosts?name=box",
        "/console/hosts?state=silent",
        "/console/groups/blog/site",
        "/console/groups/blog/site/deploy",
        "/console/groups/blog/site/deploy?other=s3%3A%2F%2Fbkt%2Fblog%2F1.zip",
    ] {
        for format in ["html", "json"] {
            let mark = if path.contains('?') { "&" } else { "?" };
            let shown = limited.page(&format!("{path}{mark}format={format}")).await;
            let others = ["shop", "box1", &id];
            for text in secrets.iter().chain(&others) {
                assert!(
                    !shown.text.contains(text),
                    "{path} has {text}: {}",
                    shown.text
                );
            }
            assert_eq!(shown.header("cache-control"), "no-store");
        }
    }
    // Whether something exists is not told, either.
    for (there, nowhere) in [
        ("/console/?application=shop", "/console/?application=none"),
        (
            "/console/deployments?application=shop&group=web",
            "/console/deployments?application=none&group=web",
        ),
        (
            "/console/hosts?application=shop&group=web",
            "/console/hosts?application=none&group=web",
        ),
        ("/console/hosts/box1", "/console/hosts/none"),
        (
            &format!("/console/deployments/{id}"),
            "/console/deployments/d-ABCDEFGHI",
        ),
        (
            &format!("/console/deployments/{id}/hosts/box1"),
            "/console/deployments/d-ABCDEFGHI/hosts/box1",
        ),
        ("/console/groups/shop/web", "/console/groups/none/web"),
        (
            "/console/groups/shop/web/deploy",
            "/console/groups/none/web/deploy",
        ),
        (
            "/console/groups/shop/web/rollback",
            "/console/groups/none/web/rollback",
        ),
        ("/console/audit", "/console/audit?who=x"),
    ] {
        // A stream of a page that is refused ends at once.
        for (format, expected) in [("html", 403), ("json", 403), ("live", 200)] {
            let mark = if there.contains('?') { "&" } else { "?" };
            let shown = limited.get(&format!("{there}{mark}format={format}")).await;
            let mark = if nowhere.contains('?') { "&" } else { "?" };
            let other = limited
                .get(&format!("{nowhere}{mark}format={format}"))
                .await;
            assert_eq!(
                (shown.status, other.status),
                (expected, expected),
                "{there} {format}: {}",
                shown.text
            );
            for text in secrets {
                assert!(
                    !shown.text.contains(text),
                    "{there} has {text}: {}",
                    shown.text
                );
            }
        }
    }
    let page = limited.page("/console/").await;
    for path in [
        format!("/console/deployments/{id}/stop"),
        format!("/console/deployments/{id}/continue"),
        "/console/groups/shop/web/deploy".to_owned(),
        "/console/groups/shop/web/rollback".to_owned(),
    ] {
        let fields = [("revision", "s3://bkt/hidden.zip"), ("rollback", "yes")];
        let shown = limited.submit(&page, &path, &fields).await;
        assert_eq!(shown.status, 403, "{path}: {}", shown.text);
    }
}

#[tokio::test]
async fn a_cookie_from_before_the_login_is_no_session_after_it() {
    let controller = Controller::start(CONFIG);
    let mut browser = Browser::new(&controller);
    let planted = Some("codedeploy-console=0123456789012345678901234567890123456789012".to_owned());
    browser.cookie.clone_from(&planted);
    let token = link(&controller, &[]);
    let shown = browser.post("/console/login", &[("link", &token)]).await;
    assert_eq!(shown.status, 303);
    assert!(browser.cookie.is_some() && browser.cookie != planted);
    browser.cookie = planted;
    assert_eq!(browser.get("/console/").await.status, 303);
}

#[tokio::test]
async fn no_text_of_a_request_becomes_a_header_or_a_large_page() {
    let controller = Controller::start(CONFIG);
    let mut browser = Browser::new(&controller);
    let long = "x".repeat(6000);
    for path in [
        "/console/login?next=%2Fconsole%2F%0D%0Aset-cookie:%20a=b",
        "/console/login/provider?next=%0D%0Aset-cookie:%20a=b",
        "/console/login/return?code=%0D%0Aset-cookie:%20a=b&state=%00",
        "/console/%0D%0Aset-cookie:%20a=b",
        &format!("/console/login?next=/console/{long}&link={long}"),
    ] {
        let shown = browser.get(path).await;
        assert!(
            (200..500).contains(&shown.status),
            "{path}: {}",
            shown.status
        );
        assert!(!shown.headers.contains_key("set-cookie"), "{path}");
    }
    let mut browser = Browser::at(&controller, &[]).await;
    for path in [
        format!("/console/?application={long}"),
        format!("/console/hosts?name={long}&tag={long}"),
        format!("/console/hosts/{long}"),
        format!("/console/audit?who={long}"),
        format!("/console/deployments/{long}"),
        format!("/console/{long}"),
    ] {
        for format in ["", "&format=json", "?format=json"] {
            let shown = browser.get(&format!("{path}{format}")).await;
            assert!(
                (200..500).contains(&shown.status),
                "{path}: {}",
                shown.status
            );
            assert!(
                shown.text.len() < 100_000,
                "{path}: {} bytes",
                shown.text.len()
            );
        }
    }
}
