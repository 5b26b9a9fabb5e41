//! Who gets in, by what, and what is kept out.

use serde_json::json;

use crate::support::browser::{Browser, Shown, link};
use crate::support::{Controller, text};

const ON: &str = "console: {}";

#[tokio::test]
async fn there_is_none_unless_it_is_configured() {
    let controller = Controller::start("{}");
    let mut browser = Browser::new(&controller);
    for path in [
        "/console",
        "/console/",
        "/console/login",
        "/console/assets/console.css",
    ] {
        let shown = browser.get(path).await;
        assert!(
            !(200..400).contains(&shown.status),
            "{path}: {}",
            shown.status
        );
        assert!(!shown.text.contains("<html"), "{path}: {}", shown.text);
    }
    let refused = controller.admin(&["console"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && error.contains("console: {}"),
        "{error}"
    );
}

fn is_protected(shown: &Shown) {
    let policy = shown.header("content-security-policy");
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(shown.header("x-content-type-options"), "nosniff");
    // Nothing inline, which the policy would block.
    assert!(
        !shown.text.contains(" style=") && !shown.text.contains(" onclick="),
        "{}",
        shown.text
    );
}

#[tokio::test]
async fn every_response_is_protected() {
    let controller = Controller::start(ON);
    let mut browser = Browser::at(&controller, &[]).await;
    for (path, status) in [
        ("/console/", 200),
        ("/console/login", 200),
        ("/console/?format=json", 200),
        ("/console/nowhere", 404),
        ("/console/groups/a/b/rollback", 404),
        ("/console/assets/console.js", 200),
        ("/console/assets/none", 404),
    ] {
        let shown = browser.get(path).await;
        assert_eq!(shown.status, status, "{path}: {}", shown.text);
        is_protected(&shown);
    }
    let front = browser.get("/console/").await;
    assert_eq!(front.header("cache-control"), "no-store");
    browser.headers.push(("accept", "text/html,*/*".into()));
    let shown = browser.get("/").await;
    assert_eq!((shown.status, shown.location()), (303, "/console/"));
}

#[tokio::test]
async fn a_link_logs_in_once() {
    let controller = Controller::start(ON);
    let token = link(&controller, &[]);
    let mut browser = Browser::new(&controller);
    let shown = browser.get("/console/?application=shop").await;
    let login = "/console/login?next=%2Fconsole%2F%3Fapplication%3Dshop";
    assert_eq!((shown.status, shown.location()), (303, login));
    // A program that previews the link does not use it up.
    for _ in 0..2 {
        let page = browser.page(&format!("/console/login?link={token}")).await;
        assert!(
            page.text.contains(&format!("value=\"{token}\"")),
            "{}",
            page.text
        );
    }
    let next = "/console/?application=shop";
    let shown = browser
        .post("/console/login", &[("link", &token), ("next", next)])
        .await;
    assert_eq!((shown.status, shown.location()), (303, next));
    let cookie = shown.header("set-cookie");
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(
        cookie.starts_with("codedeploy-console=") && cookie.contains("Path=/;"),
        "{cookie}"
    );
    let page = browser.page("/console/").await;
    assert!(
        page.text.contains("local/") && page.text.contains(">operator"),
        "{}",
        page.text
    );

    let mut second = Browser::new(&controller);
    for token in [token.as_str(), "guess", ""] {
        let shown = second.post("/console/login", &[("link", token)]).await;
        assert_eq!(shown.status, 403);
        assert!(
            shown.text.contains("used before") && second.cookie.is_none(),
            "{}",
            shown.text
        );
    }
    // A login is recorded, and nobody is led to another site.
    let audit = browser.page("/console/?format=json").await;
    assert_eq!(audit.json(), json!({"groups": []}));
    let entries = controller.admin_json(&["audit", "--json"]);
    let entries = entries.as_array().unwrap();
    let login = entries
        .iter()
        .find(|entry| entry["operation"] == "ConsoleLogin")
        .unwrap();
    assert_eq!(login["source"], "console");
    let third = link(&controller, &[]);
    let shown = second
        .post(
            "/console/login",
            &[("link", &third), ("next", "//evil.example/")],
        )
        .await;
    assert_eq!(shown.location(), "/console/");
}

#[tokio::test]
async fn an_access_key_logs_in_and_its_end_is_the_end_of_the_session() {
    let mut controller = Controller::start(ON);
    let key = controller.admin_json(&["credentials", "create", "--role", "operator", "--json"]);
    let (id, secret) = (text(&key, "access_key_id"), text(&key, "secret_access_key"));
    let mut browser = Browser::new(&controller);
    for (id, secret) in [(id.as_str(), "wrong"), ("AKIANOBODY", &secret), (&id, "")] {
        let fields = [("access_key_id", id), ("secret_access_key", secret)];
        let shown = browser.post("/console/login", &fields).await;
        assert_eq!(shown.status, 403, "{id}");
        assert!(!shown.text.contains(secret) || secret.is_empty() || secret == "wrong");
    }
    let host = controller.admin_json(&["host", "add", "box1", "--json"]);
    let (host, its) = (
        text(&host, "access_key_id"),
        text(&host, "secret_access_key"),
    );
    let fields = [
        ("access_key_id", host.as_str()),
        ("secret_access_key", its.as_str()),
    ];
    let shown = browser.post("/console/login", &fields).await;
    assert!(
        shown.status == 403 && shown.text.contains("the key of a host"),
        "{}",
        shown.text
    );
    let fields = [
        ("access_key_id", id.as_str()),
        ("secret_access_key", secret.as_str()),
    ];
    assert_eq!(browser.post("/console/login", &fields).await.status, 303);
    browser.page("/console/").await;

    // Sessions outlive a restart.
    controller.crash_and_return();
    let front = browser.page("/console/").await;
    assert!(
        controller
            .admin(&["credentials", "revoke", &id])
            .status
            .success()
    );
    assert_eq!(browser.get("/console/").await.status, 303);
    let shown = browser.submit(&front, "/console/logout", &[]).await;
    assert_eq!(
        (shown.status, shown.location()),
        (303, "/console/login?next=%2Fconsole%2Flogout")
    );
    let refused = browser.get("/console/?format=json").await;
    assert_eq!(
        (refused.status, refused.json()["__type"].clone()),
        (401, json!("MissingAuthenticationTokenException"))
    );
}

#[tokio::test]
async fn a_temporary_key_needs_its_token() {
    let controller = Controller::start(ON);
    let args = [
        "credentials",
        "create",
        "--role",
        "read-only",
        "--expires-in",
        "1h",
        "--json",
    ];
    let key = controller.admin_json(&args);
    let (id, secret) = (text(&key, "access_key_id"), text(&key, "secret_access_key"));
    let fields = [
        ("access_key_id", id.as_str()),
        ("secret_access_key", secret.as_str()),
    ];
    let mut browser = Browser::new(&controller);
    assert_eq!(browser.post("/console/login", &fields).await.status, 403);
    let token = text(&key, "session_token");
    let fields = [&fields[..], &[("session_token", token.as_str())]].concat();
    let shown = browser.post("/console/login", &fields).await;
    assert_eq!(shown.status, 303, "{}", shown.text);
    let cookie = shown.header("set-cookie");
    let age = cookie
        .split("Max-Age=")
        .nth(1)
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    assert!(
        (3500..=3600).contains(&age.parse::<u32>().unwrap()),
        "{cookie}"
    );
}

#[tokio::test]
async fn logging_out_ends_the_session_and_its_key() {
    let controller = Controller::start(ON);
    let mut browser = Browser::at(&controller, &[]).await;
    let cookie = browser.cookie.clone();
    let keys = || controller.admin_json(&["credentials", "list", "--json"]);
    assert_eq!(keys().as_array().unwrap().len(), 1);
    let page = browser.page("/console/").await;
    let shown = browser.submit(&page, "/console/logout", &[]).await;
    assert_eq!((shown.status, shown.location()), (303, "/console/login"));
    assert_eq!(browser.cookie, None);
    browser.cookie = cookie;
    assert_eq!(browser.get("/console/").await.status, 303);
    assert_eq!(keys(), json!([]));
}

#[tokio::test]
async fn forms_are_taken_from_pages_of_the_session_alone() {
    let controller = Controller::start(ON);
    let mut browser = Browser::at(&controller, &[]).await;
    let page = browser.page("/console/").await;
    let mut other = Browser::at(&controller, &[]).await;
    let foreign = other.page("/console/").await.csrf();
    for csrf in ["", "guess", &foreign] {
        let shown = browser.post("/console/logout", &[("csrf", csrf)]).await;
        assert_eq!(shown.status, 403, "{csrf}");
    }
    assert_eq!(browser.post("/console/logout", &[]).await.status, 403);
    let csrf = page.csrf();
    for origin in [
        None,
        Some("http://evil.example"),
        Some("null"),
        Some("http://127.0.0.1:1"),
    ] {
        let fields = [("csrf", csrf.as_str())];
        let shown = browser.post_from(origin, "/console/logout", &fields).await;
        assert_eq!(shown.status, 403, "{origin:?}");
        let token = link(&controller, &[]);
        let shown = browser
            .post_from(origin, "/console/login", &[("link", &token)])
            .await;
        assert_eq!(shown.status, 403, "{origin:?}");
    }
    browser.page("/console/").await;
    assert_eq!(browser.get("/console/logout").await.status, 405);
}

#[tokio::test]
async fn a_client_that_guesses_has_to_wait() {
    let controller = Controller::start(ON);
    let mut browser = Browser::new(&controller);
    for _ in 0..10 {
        let shown = browser.post("/console/login", &[("link", "guess")]).await;
        assert_eq!(shown.status, 403);
    }
    let good = link(&controller, &[]);
    let shown = browser.post("/console/login", &[("link", &good)]).await;
    assert_eq!(shown.status, 429, "{}", shown.text);
    assert!(shown.header("retry-after").parse::<u32>().unwrap() > 500);
}

#[tokio::test]
async fn links_on_other_sites_lead_to_their_page() {
    let controller = Controller::start(ON);
    let mut browser = Browser::at(&controller, &[]).await;
    let cookie = browser.cookie.take();
    browser
        .headers
        .push(("sec-fetch-site", "cross-site".into()));
    let shown = browser.page("/console/?application=a%22b").await;
    assert!(
        shown
            .text
            .contains("http-equiv=\"refresh\" content=\"0; url=/console/?application=a%22b\""),
        "{}",
        shown.text
    );
    browser.headers.clear();
    browser.cookie = cookie;
    assert_eq!(browser.get("/console/?application=shop").await.status, 404);
}

#[tokio::test]
async fn with_tls_the_cookie_is_for_this_host_alone() {
    let controller = Controller::start("{console: {}, endpoint: 'https://deploy.example.com'}");
    let mut browser = Browser::new(&controller);
    let output = controller.admin(&["console"]);
    let url = String::from_utf8(output.stdout).unwrap();
    let begin = "https://deploy.example.com/console/login?link=";
    let token = url.trim().strip_prefix(begin).expect(&url);
    // Whoever can change plain http on the way could send a form in the name of this host.
    let plain = Some("http://deploy.example.com");
    let shown = browser
        .post_from(plain, "/console/login", &[("link", token)])
        .await;
    assert_eq!(shown.status, 403);
    let origin = Some("https://deploy.example.com");
    let shown = browser
        .post_from(origin, "/console/login", &[("link", token)])
        .await;
    let cookie = shown.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-codedeploy-console=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    browser.page("/console/").await;
}

#[tokio::test]
async fn a_restored_backup_has_no_sessions() {
    let mut controller = Controller::start(ON);
    let mut browser = Browser::at(&controller, &[]).await;
    let unused = link(&controller, &[]);
    let backup = controller.folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    assert!(controller.admin(&["backup", backup]).status.success());
    let cookie = browser.cookie.clone();
    let page = browser.page("/console/").await;
    browser.submit(&page, "/console/logout", &[]).await;
    controller.terminate();
    assert!(controller.admin(&["restore", backup]).status.success());
    controller.start_again();
    let mut again = Browser::new(&controller);
    again.cookie = cookie;
    assert_eq!(again.get("/console/").await.status, 303);
    let shown = again.post("/console/login", &[("link", &unused)]).await;
    assert_eq!(shown.status, 403);
    assert_eq!(
        controller.admin_json(&["credentials", "list", "--json"]),
        json!([])
    );
}
