//! Logging in at an identity provider.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fleet::call;
use crate::support::browser::{Browser, Shown};
use crate::support::issuer::in_seconds;
use crate::support::provider::{CLIENT, Provider};
use crate::support::{Controller, command, eventually};

const BEGIN: &str = "/console/login/provider";

/// A provider, and a controller whose users log in there.
async fn both() -> (Provider, Controller, tempfile::TempDir) {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let controller = Controller::start(&provider.settings(folder.path(), ""));
    (provider, controller, folder)
}

/// Begins a login, and returns the path to which the provider sends the browser back.
async fn go_there(provider: &Provider, browser: &mut Browser, begin: &str) -> String {
    let shown = browser.get(begin).await;
    assert_eq!(shown.status, 303, "{}", shown.text);
    let back = provider.visit(shown.location()).await;
    let (_, path) = back.split_once("/console/").expect(&back);
    format!("/console/{path}")
}

async fn log_in(provider: &Provider, browser: &mut Browser) -> Shown {
    let back = go_there(provider, browser, BEGIN).await;
    browser.get(&back).await
}

/// Asserts that a login is refused with a reason, and leaves no session.
fn is_refused(shown: &Shown, browser: &Browser, status: u16, reason: &str) {
    assert_eq!(shown.status, status, "{}", shown.text);
    assert!(shown.text.contains(reason), "{reason}: {}", shown.text);
    assert!(shown.text.contains("Log in with acme"), "{}", shown.text);
    assert_eq!(browser.cookie, None);
}

/// The field `state` in the path to which the provider sends a browser back.
fn state(back: &str) -> &str {
    let mut parts = back.split('&');
    parts.find(|part| part.starts_with("state=")).unwrap()
}

fn logins(controller: &Controller) -> Vec<Value> {
    let entries = controller.admin_json(&["audit", "--json"]);
    let entries = entries.as_array().unwrap().iter();
    let logins = entries.filter(|entry| entry["operation"] == "ConsoleLogin");
    logins.cloned().collect()
}

#[tokio::test]
async fn a_person_logs_in_and_returns_to_the_page_that_was_asked_for() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    let shown = browser.get("/console/inbox?x=a%22b").await;
    let page = browser.page(shown.location()).await;
    let href = "/console/login/provider?next=%2Fconsole%2Finbox%3Fx%3Da%2522b";
    assert!(
        page.text.contains(&format!("href=\"{href}\"")),
        "{}",
        page.text
    );
    let back = go_there(&provider, &mut browser, href).await;
    let shown = browser.page(&back).await;
    // The page loads the next one itself, so that the browser sends a strict cookie with it.
    let next = "content=\"0; url=/console/inbox?x=a%22b\"";
    assert!(shown.text.contains(next), "{}", shown.text);
    let cookies = shown.headers.get_all("set-cookie").iter();
    let cookies: Vec<&str> = cookies.map(|cookie| cookie.to_str().unwrap()).collect();
    assert!(
        cookies[0].starts_with("codedeploy-console=") && cookies[0].ends_with("SameSite=Strict"),
        "{cookies:?}"
    );
    assert!(
        cookies[1].starts_with("codedeploy-login=; Path=/; Max-Age=0"),
        "{cookies:?}"
    );

    // The person is the author of changes.
    let inbox = browser.page("/console/inbox").await;
    assert!(
        inbox.text.contains("deployers/alice@acme.example") && inbox.text.contains(">operator"),
        "{}",
        inbox.text
    );
    let login = &logins(&controller)[0];
    let arn = "arn:aws:sts::123456789012:assumed-role/deployers/alice@acme.example";
    assert_eq!(login["who"], arn);
    assert_eq!(login["source"], "console");
    assert_eq!(
        login["names"],
        json!({"identityProvider": "acme", "role": "deployers", "subject": "u-17"})
    );
    let admin = controller.operator();
    call(
        &admin,
        "CreateApplication",
        json!({"applicationName": "shop"}),
    )
    .await;
    let keys = controller.admin_json(&["credentials", "list", "--json"]);
    let own = |keys: &Value| {
        keys.as_array()
            .unwrap()
            .iter()
            .filter(|key| key["arn"] == arn)
            .count()
    };
    assert_eq!(own(&keys), 1);
    let keys = keys.as_array().unwrap();
    let key = keys.iter().find(|key| key["arn"] == arn).unwrap();
    let lasts = key["expires"].as_f64().unwrap() - key["created"].as_f64().unwrap();
    assert!((lasts - 12.0 * 3600.0).abs() < 1.0, "{key}");
    assert_eq!(key["subject"], "u-17");
    browser.submit(&inbox, "/console/logout", &[]).await;
    let keys = controller.admin_json(&["credentials", "list", "--json"]);
    assert_eq!((browser.cookie.clone(), own(&keys)), (None, 0));
}

#[tokio::test]
async fn claims_decide_on_the_role() {
    let (provider, controller, _folder) = both().await;
    let admin = controller.operator();
    for name in ["shop", "blog"] {
        call(
            &admin,
            "CreateApplication",
            json!({"applicationName": name}),
        )
        .await;
    }
    provider.is_visited_by(json!({"sub": "u-1", "email": "bob@acme.example"}));
    let mut browser = Browser::new(&controller);
    assert_eq!(log_in(&provider, &mut browser).await.status, 200);
    let page = browser.page("/console/").await;
    assert!(
        page.text.contains("watchers/bob@acme.example"),
        "{}",
        page.text
    );
    assert!(page.text.contains(">read-only<"), "{}", page.text);

    provider.is_visited_by(json!({"sub": "u-2", "email": "eve@acme.example", "email_verified": false, "groups": "shop"}));
    let mut browser = Browser::new(&controller);
    assert_eq!(log_in(&provider, &mut browser).await.status, 200);
    let page = browser.page("/console/").await;
    assert!(
        page.text
            .contains("shop/u-2 <span class=\"role\">operator, limited"),
        "{}",
        page.text
    );
    assert_eq!(browser.get("/console/?application=blog").await.status, 403);

    let hostile = "<script>alert(1)</script>@evil.example";
    provider
        .is_visited_by(json!({"sub": "u-3", "email": hostile, "groups": ["Deployers", "shop2"]}));
    let mut browser = Browser::new(&controller);
    let shown = log_in(&provider, &mut browser).await;
    is_refused(
        &shown,
        &browser,
        403,
        "u-3 may not use this console: the claims",
    );
    assert_eq!(logins(&controller).len(), 2);
}

#[tokio::test]
async fn an_answer_is_good_for_one_login_of_one_browser() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    let back = go_there(&provider, &mut browser, BEGIN).await;

    // A stranger leads a browser to the answer of the stranger's own login.
    let mut victim = Browser::new(&controller);
    is_refused(
        &victim.get(&back).await,
        &victim,
        403,
        "belongs to another login",
    );
    go_there(&provider, &mut victim, BEGIN).await;
    is_refused(
        &victim.get(&back).await,
        &victim,
        403,
        "belongs to another login",
    );
    assert!(!provider.paths().contains(&"/token".to_owned()));
    let refusal = "/console/login/return?error=x&error_description=call+555&state=guess";
    let shown = victim.get(refusal).await;
    is_refused(&shown, &victim, 403, "belongs to another login");
    assert!(!shown.text.contains("555"), "{}", shown.text);

    // The provider exchanges a code once, also for the same browser.
    let waiting = browser.clone();
    assert_eq!(browser.get(&back).await.status, 200);
    let mut again = waiting;
    let shown = again.get(&back).await;
    is_refused(
        &shown,
        &again,
        403,
        "did not accept the code of this login: invalid_grant (no &#60;b&#62;luck",
    );
    is_refused(
        &browser.get(&back).await,
        &Browser::new(&controller),
        403,
        "another login",
    );
    assert_eq!(logins(&controller).len(), 1);
}

#[tokio::test]
async fn a_token_counts_for_the_login_that_asked_for_it() {
    let (provider, controller, _folder) = both().await;
    for (name, value, reason) in [
        ("nonce", json!("other"), "token belongs to another login"),
        ("nonce", Value::Null, "token belongs to another login"),
        (
            "aud",
            json!("sts.amazonaws.com"),
            "The token is for &#34;sts.amazonaws.com&#34;",
        ),
        ("aud", json!([CLIENT, "other"]), "no usable claim azp"),
        ("azp", json!("other"), "The token is for &#34;other&#34;"),
        ("exp", json!(in_seconds(-61)), "The token has expired"),
        ("iat", json!(in_seconds(3600)), "not valid yet"),
        (
            "iss",
            json!("https://evil.example"),
            "No identity provider of this controller",
        ),
        ("sub", Value::Null, "no usable claim sub"),
    ] {
        provider.change(move |claims| claims[name] = value.clone());
        let mut browser = Browser::new(&controller);
        let shown = log_in(&provider, &mut browser).await;
        is_refused(&shown, &browser, 403, reason);
    }
    provider.recover();
    provider.sign_with_another_key();
    let mut browser = Browser::new(&controller);
    let shown = log_in(&provider, &mut browser).await;
    is_refused(&shown, &browser, 403, "signature is not one of its issuer");
}

#[tokio::test]
async fn a_provider_that_fails_is_named_and_asked_again() {
    let (provider, controller, _folder) = both().await;
    let issuer = provider.issuer();
    let huge = "x".repeat(65 * 1024);
    let document = |endpoint: &str, issuer: &str| {
        json!({"issuer": issuer, "authorization_endpoint": endpoint, "token_endpoint": format!("{issuer}/token")})
            .to_string()
    };
    for (status, text, reason) in [
        (500, String::new(), "answered 500"),
        (302, String::new(), "answered 302"),
        (200, "<html>".into(), "no document of OpenID Connect"),
        (200, huge.clone(), "cannot be read; at most 65536 bytes"),
        (
            200,
            document("https://a/b", "https://evil.example"),
            "expected the issuer",
        ),
        (
            200,
            document("http://evil.example/a", &issuer),
            "authorization_endpoint",
        ),
        (
            200,
            document("javascript:alert(1)", &issuer),
            "authorization_endpoint",
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        provider.answer_with("/.well-known/openid-configuration", move || {
            (status, text.clone()).into_response()
        });
        // A failure is remembered for a moment.
        eventually("the failure is reported", async || {
            let shown = Browser::new(&controller).get(BEGIN).await;
            assert_eq!(shown.status, 502, "{}", shown.text);
            shown.text.contains(reason).then_some(())
        })
        .await;
    }
    provider.recover();
    eventually("logins begin again", async || {
        let shown = Browser::new(&controller).get(BEGIN).await;
        (shown.status == 303).then_some(())
    })
    .await;
    for (status, text, reason) in [
        (503, "{}".to_owned(), "answered 503"),
        (200, huge, "cannot be read"),
        (200, "{}".into(), "without an id_token"),
        (
            200,
            json!({"id_token": "a.b.c"}).to_string(),
            "not a signed JSON Web Token",
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        provider.answer_with("/token", move || (status, text.clone()).into_response());
        let mut browser = Browser::new(&controller);
        let shown = log_in(&provider, &mut browser).await;
        let expected = if reason.contains("signed") { 403 } else { 502 };
        is_refused(&shown, &browser, expected, reason);
    }
    provider.recover();
    let mut browser = Browser::new(&controller);
    assert_eq!(log_in(&provider, &mut browser).await.status, 200);
}

#[tokio::test]
async fn the_words_of_the_provider_are_shown_to_the_browser_that_was_there() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    let back = go_there(&provider, &mut browser, BEGIN).await;
    let state = state(&back);
    let denied = format!(
        "/console/login/return?error=access_denied&error_description=%3Cb%3Eno%E2%80%AE&{state}"
    );
    let shown = browser.get(&denied).await;
    is_refused(
        &shown,
        &browser,
        403,
        "refused the login: access_denied (&#60;b&#62;no",
    );
    assert!(!shown.text.contains('\u{202e}'), "{}", shown.text);
    let other = format!("/console/login/return?code=x&iss=https%3A%2F%2Fevil.example&{state}");
    is_refused(
        &browser.get(&other).await,
        &browser,
        403,
        "another identity provider",
    );
    let without = format!("/console/login/return?{state}");
    is_refused(&browser.get(&without).await, &browser, 403, "it is missing");
}

#[tokio::test]
async fn guesses_are_limited_and_lead_nowhere_else() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    for next in [
        "//evil.example",
        "https://evil.example/console/",
        "/console/login/provider",
    ] {
        let begin = format!("{BEGIN}?next={next}");
        let back = go_there(&provider, &mut browser, &begin).await;
        let shown = browser.page(&back).await;
        assert!(shown.text.contains("url=/console/\""), "{}", shown.text);
        browser.cookie = None;
    }
    // Nor does a page that somebody has written into the cookie.
    let back = go_there(&provider, &mut browser, BEGIN).await;
    let cookie = browser.login.take().unwrap();
    let (secret, _) = cookie.split_once('.').unwrap();
    let evil = URL_SAFE_NO_PAD.encode("https://evil.example/");
    browser.login = Some(format!("{secret}.{evil}"));
    let shown = browser.page(&back).await;
    assert!(shown.text.contains("url=/console/\""), "{}", shown.text);
    browser.cookie = None;

    let back = go_there(&provider, &mut browser, BEGIN).await;
    let state = state(&back);
    for _ in 0..10 {
        let guess = format!("/console/login/return?code=guess&{state}");
        assert_eq!(browser.get(&guess).await.status, 403);
    }
    let shown = browser.get(&back).await;
    assert_eq!(shown.status, 429, "{}", shown.text);

    // Without the setting there is none.
    let controller = Controller::start("console: {}");
    let mut browser = Browser::new(&controller);
    for path in [BEGIN, "/console/login/return?code=x"] {
        assert_eq!(browser.get(path).await.status, 404);
    }
    assert!(
        !browser
            .page("/console/login")
            .await
            .text
            .contains("Log in with")
    );
}

#[tokio::test]
async fn with_tls_the_cookie_of_a_login_is_for_this_host_alone() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let endpoint = "endpoint: https://deploy.example.com";
    let controller = Controller::start(&provider.settings(folder.path(), endpoint));
    let mut browser = Browser::new(&controller);
    let shown = browser.get(BEGIN).await;
    let back = "redirect_uri=https%3A%2F%2Fdeploy.example.com%2Fconsole%2Flogin%2Freturn&";
    assert!(shown.location().contains(back), "{}", shown.location());
    let cookie = shown.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-codedeploy-login=")
            && cookie.ends_with("; Max-Age=600; HttpOnly; SameSite=Lax; Secure"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_keeps_the_service_from_starting() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("controller.yml");
    std::fs::write(&file, provider.settings(folder.path(), "")).unwrap();
    let check = || {
        let mut program = command(env!("CARGO_BIN_EXE_codedeploy-controller"));
        let output = program
            .args(["config", "--config-file"])
            .arg(&file)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (is_good, error) = check();
    assert!(is_good, "{error}");
    std::fs::write(folder.path().join("client-secret"), " \n").unwrap();
    let (is_good, error) = check();
    assert!(
        !is_good && error.contains("is empty or has several lines"),
        "{error}"
    );
    std::fs::remove_file(folder.path().join("client-secret")).unwrap();
    let (is_good, error) = check();
    assert!(
        !is_good && error.contains("cannot read the file of console.login.client_secret_file"),
        "{error}"
    );
}

#[tokio::test]
async fn strangers_who_lead_a_browser_here_do_not_keep_it_from_logging_in() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    let back = go_there(&provider, &mut browser, BEGIN).await;
    for _ in 0..12 {
        let foreign = "/console/login/return?code=x&state=guess";
        is_refused(
            &browser.get(foreign).await,
            &browser,
            403,
            "belongs to another login",
        );
    }
    assert_eq!(browser.get(&back).await.status, 200);
}

#[tokio::test]
async fn guesses_that_come_all_at_once_are_limited_too() {
    let (provider, controller, _folder) = both().await;
    let mut browser = Browser::new(&controller);
    let back = go_there(&provider, &mut browser, BEGIN).await;
    let guess = format!("/console/login/return?code=guess&{}", state(&back));
    let guesses = (0..60).map(|_| {
        let (mut browser, guess) = (browser.clone(), guess.clone());
        async move { browser.get(&guess).await.status }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let asked = provider
        .paths()
        .iter()
        .filter(|path| *path == "/token")
        .count();
    assert!((10..20).contains(&asked), "{asked} codes were tried");
    assert!(answers.iter().all(|status| [403, 429].contains(status)));
}

#[tokio::test]
async fn browsers_that_hang_up_do_not_keep_others_from_the_provider() {
    let (provider, controller, _folder) = both().await;
    let (release, released) = tokio::sync::watch::channel(false);
    let issuer = provider.issuer();
    let document = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
    });
    provider.answer_with("/.well-known/openid-configuration", move || {
        let (mut released, document) = (released.clone(), document.to_string());
        let late = async move {
            released.wait_for(|released| *released).await.unwrap();
            Ok::<_, std::io::Error>(Bytes::from(document))
        };
        Response::new(Body::from_stream(late.into_stream()))
    });
    let asked = || provider.paths().len();
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(controller.address)
            .await
            .unwrap();
        let request = format!("GET {BEGIN} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        eventually("the provider is asked", async || {
            (asked() > 0).then_some(())
        })
        .await;
        stream.shutdown().await.unwrap();
        // The controller has noticed, and closes the connection.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut browser = Browser::new(&controller);
    let waiting = tokio::spawn(async move { browser.get(BEGIN).await.status });
    release.send(true).unwrap();
    assert_eq!(waiting.await.unwrap(), 303);
    assert_eq!(asked(), 1, "one answer is enough for all");
}

#[tokio::test]
async fn an_address_that_the_provider_has_not_verified_gives_neither_a_name_nor_a_role() {
    let (provider, controller, _folder) = both().await;
    for doubtful in [json!(false), json!("false"), json!("no"), json!(0)] {
        let boss = json!({"sub": "u-9", "email": "boss@acme.example", "email_verified": doubtful});
        let mut deployer = boss.clone();
        deployer["groups"] = json!(["deployers"]);
        provider.is_visited_by(boss);
        let mut browser = Browser::new(&controller);
        let shown = log_in(&provider, &mut browser).await;
        is_refused(&shown, &browser, 403, "u-9 may not use this console");
        provider.is_visited_by(deployer);
        let mut browser = Browser::new(&controller);
        assert_eq!(log_in(&provider, &mut browser).await.status, 200);
        let page = browser.page("/console/").await;
        assert!(page.text.contains("deployers/u-9"), "{}", page.text);
    }
    for verified in [json!(true), json!("true"), json!("True")] {
        provider.is_visited_by(
            json!({"sub": "u-9", "email": "boss@acme.example", "email_verified": verified}),
        );
        let mut browser = Browser::new(&controller);
        assert_eq!(log_in(&provider, &mut browser).await.status, 200);
        let page = browser.page("/console/").await;
        assert!(
            page.text.contains("watchers/boss@acme.example"),
            "{}",
            page.text
        );
    }
}

#[tokio::test]
async fn a_person_has_a_limited_number_of_sessions() {
    let (provider, controller, _folder) = both().await;
    let mut first = Browser::new(&controller);
    assert_eq!(log_in(&provider, &mut first).await.status, 200);
    let mut last = Browser::new(&controller);
    for _ in 0..100 {
        last = Browser::new(&controller);
        assert_eq!(log_in(&provider, &mut last).await.status, 200);
    }
    last.page("/console/").await;
    let shown = first.get("/console/").await;
    assert_eq!((shown.status, shown.location()), (303, "/console/login"));
    let keys = controller.admin_json(&["credentials", "list", "--json"]);
    assert_eq!(keys.as_array().unwrap().len(), 100);
    // That of others is not affected.
    provider.is_visited_by(json!({"sub": "u-1", "email": "bob@acme.example"}));
    let mut other = Browser::new(&controller);
    assert_eq!(log_in(&provider, &mut other).await.status, 200);
    last.page("/console/").await;
}

#[tokio::test]
async fn a_token_of_another_provider_of_the_controller_logs_nobody_in() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    // Its keys are the same, so that only its name tells it from the one at which people log in.
    let issuer = provider.issuer();
    let other = format!(
        "  other:\n    issuer: {issuer}/\n    jwks_url: {issuer}/keys\n    roles:\n      deployers: {{role: operator, claims: \
         {{sub: 'u-*'}}}}\n"
    );
    let controller = Controller::start(&provider.settings(folder.path(), &other));
    let its = format!("{issuer}/");
    provider.change(move |claims| claims["iss"] = json!(its));
    let mut browser = Browser::new(&controller);
    let shown = log_in(&provider, &mut browser).await;
    is_refused(&shown, &browser, 403, "is of another identity provider");
}
