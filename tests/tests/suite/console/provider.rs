//! Logging in at an identity provider with a browser, which leaves the console's site and returns.

use codedeploy_tests::chromium::Chromium;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::provider::Provider;
use codedeploy_tests::service::{SETTINGS, Service};
use codedeploy_tests::wait;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_returns_from_the_provider_to_the_page_that_was_asked_for() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join(SETTINGS), provider.settings()).unwrap();
    let service = Service::start(&Programs::built(), folder.path()).await;
    let browser = Chromium::start().await;
    for scripts in [true, false] {
        browser.let_scripts_run(scripts).await;
        let page = "/console/deployments?status=Failed";
        browser.open(&format!("{}{page}", service.endpoint)).await;
        browser.shows("Log in with acme").await;
        if scripts {
            assert_eq!(browser.findings().await, [""; 0]);
        }
        browser.click("Log in with acme").await;
        browser.click("I am Alice").await;
        browser.shows("staff/alice@acme.example").await;
        wait::until("the page that was asked for", async || {
            let path = browser.path().await;
            (path == page).then_some(()).ok_or(path)
        })
        .await;
        browser.click("Log out").await;
        browser.shows("Log in with acme").await;
    }
    let mut errors = browser.errors().await;
    errors.retain(|error| !error.contains("/favicon.ico"));
    assert_eq!(errors, [""; 0]);
    drop(browser);
    service.stop().await;
}
