//! The pages of the console in a browser: journeys with and without script, accessibility, the
//! keyboard, hostile texts, a reader, a large deployment.
//!
//! One browser and one fleet serve all of it, because both take seconds to start.

use std::time::Instant;

use codedeploy_tests::chromium::{Chromium, ENTER, TAB};
use codedeploy_tests::programs::Programs;
use codedeploy_tests::scene::Scene;
use codedeploy_tests::wait;
use rusqlite::Connection;

/// The widest page of a phone that every page must fit.
const NARROW: u32 = 320;

/// The largest page, in bytes.
const LARGEST: usize = 300 * 1024;

/// A name that would be harmful as HTML.
const HOSTILE: &str = "<img src=x onerror=hacked()>\"'<script>hacked()</script>";

/// A browser that is logged in to a fleet.
struct Visitor<'a> {
    browser: &'a Chromium,
    scene: &'a Scene,
}

impl Visitor<'_> {
    async fn log_in(&self, arguments: &[&str]) {
        self.browser.forget().await;
        let link = self.scene.service.login_link_with(arguments).await;
        self.browser.open(&link).await;
        self.browser.click("Log in with the link").await;
        self.browser.shows("Fleet").await;
    }

    async fn go(&self, path: &str) {
        let url = format!("{}{path}", self.scene.service.endpoint);
        self.browser.open(&url).await;
    }

    /// Every page, in the states of the scene.
    fn pages(&self) -> Vec<String> {
        let (running, failed) = (&self.scene.running, &self.scene.failed);
        [
            "/console/",
            "/console/?application=shop",
            "/console/inbox",
            "/console/deployments",
            "/console/deployments?status=Failed",
            &format!("/console/deployments/{running}"),
            &format!("/console/deployments/{failed}"),
            &format!("/console/deployments/{failed}/hosts/blog1"),
            "/console/hosts",
            "/console/hosts/blog1",
            "/console/hosts/web1",
            "/console/hosts/spare1",
            "/console/groups/shop/api",
            "/console/groups/shop/web",
            "/console/groups/shop/staging",
            "/console/groups/blog/site",
            "/console/groups/shop/api/deploy",
            "/console/groups/shop/api/deploy?other=s3%3A%2F%2Frevisions%2Fshop%2Fapi-6.tgz",
            "/console/groups/shop/api/deploy?other=nonsense",
            "/console/groups/shop/api/rollback",
            "/console/audit",
            "/console/audit?who=nobody",
            "/console/nowhere",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Looks at every page with axe-core, in both colours, and in a narrow window.
    async fn check_all_pages(&self) {
        let mut findings = Vec::new();
        for path in self.pages() {
            self.go(&path).await;
            self.browser.prefer("light").await;
            let mut found = self.browser.findings().await;
            self.browser.prefer("dark").await;
            found.extend(self.browser.contrast_findings().await);
            findings.extend(found.iter().map(|found| format!("{path}: {found}")));
            self.browser.resize(NARROW, 640).await;
            let width = self
                .browser
                .evaluate("return document.documentElement.scrollWidth");
            let width = width.await.as_u64().unwrap_or_default();
            if width > NARROW.into() {
                findings.push(format!("{path} is {width} wide in a window of {NARROW}"));
            }
            self.browser.resize(1280, 900).await;
        }
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    /// A stranger finds the failing script with one click.
    async fn find_the_failing_script(&self) {
        self.go("/console/").await;
        self.browser
            .click(&format!("Why {} failed", self.scene.failed))
            .await;
        for text in [
            "scripts/migrate.sh",
            "exit code 3",
            "posts_slug_key",
            "What to do",
        ] {
            self.browser.shows(text).await;
        }
    }

    /// Goes back in two clicks.
    async fn go_back(&self, application: &str, group: &str) {
        self.go("/console/").await;
        self.browser
            .click(&format!("Go back: {application} {group}"))
            .await;
        self.browser.click("Go back now").await;
        self.arrive_and_end(application, group).await;
    }

    /// Deploys a registered revision with a preview.
    async fn deploy(&self, application: &str, group: &str) {
        self.go("/console/").await;
        self.browser
            .click(&format!("Deploy: {application} {group}"))
            .await;
        self.browser.click("api-7.tgz").await;
        self.browser.click("Preview").await;
        self.browser.shows("Order").await;
        self.browser.click("Deploy now").await;
        self.arrive_and_end(application, group).await;
    }

    /// Waits for the page of the new deployment, and for its end.
    async fn arrive_and_end(&self, application: &str, group: &str) {
        let path = wait::until("the page of the deployment", async || {
            let path = self.browser.path().await;
            match path.starts_with("/console/deployments/") {
                true => Ok(path),
                false => Err(path),
            }
        })
        .await;
        let id = self.scene.last(application, group).await;
        assert_eq!(path, format!("/console/deployments/{id}"));
        self.scene.ended(&id).await;
    }

    /// Sees the end of a deployment without loading its page again.
    async fn watch_the_end(&self) {
        let id = &self.scene.running;
        self.go(&format!("/console/deployments/{id}")).await;
        self.browser.shows("Deploying").await;
        self.browser.shows("Live").await;
        self.browser.evaluate("window.sameDocument = true").await;
        self.scene.release();
        self.browser.shows("Succeeded").await;
        let same = self
            .browser
            .evaluate("return window.sameDocument === true")
            .await;
        assert_eq!(same, true, "the page was loaded again");
    }

    /// Stops a deployment that is held.
    async fn stop(&self) {
        self.scene.hold();
        let id = self.scene.deploy("shop", "web", "shop/web-12.tgz").await;
        self.go(&format!("/console/deployments/{id}")).await;
        self.browser.click_on("form[action$='/stop'] button").await;
        // Before a host has a command, it is stopped at once.
        wait::until("the page tells of the stop", async || {
            let text = self.browser.text().await;
            let tells = text.contains("then it stops") || text.contains("MANUAL_STOP");
            tells.then_some(()).ok_or(text)
        })
        .await;
        self.scene.release();
        assert_eq!(self.scene.ended(&id).await.as_str(), "Stopped");
    }

    /// Reaches the way back and takes it by keys alone; the focus is always visible.
    async fn use_keys_alone(&self) {
        self.go("/console/").await;
        self.tab_to("Skip to the content").await;
        self.browser.press(ENTER).await;
        self.tab_to("Go back: blog site").await;
        self.browser.press(ENTER).await;
        self.browser.shows("Go back now").await;
        self.tab_to("Go back now").await;
        self.browser.press(ENTER).await;
        self.arrive_and_end("blog", "site").await;
    }

    async fn tab_to(&self, label: &str) {
        let script = "const at = document.activeElement; const style = getComputedStyle(at);
            return [at.getAttribute('aria-label') ?? at.innerText ?? '', at === document.body ? 'body' : style.outlineStyle]";
        let mut seen = Vec::new();
        for _ in 0..80 {
            self.browser.press(TAB).await;
            let focus = self.browser.evaluate(script).await;
            assert_ne!(focus[1], "none", "the focus is not visible: {focus}");
            let name = focus[0].as_str().unwrap_or_default().to_owned();
            if name == label {
                return;
            }
            seen.push(name);
        }
        panic!("{label} is not among {seen:?}");
    }

    /// Texts of hosts, bundles and users that would be harmful as HTML are text.
    async fn meet_hostile_texts(&self) {
        let Scene { service, .. } = self.scene;
        let tag = format!("evil={HOSTILE}");
        let host = ["host", "add", "evil", "--tag", &tag, "--json"];
        service.administer(&host).await;
        let key = "blog/<img src=x>.tgz";
        let output = format!(
            "cat <<'END'\n{HOSTILE}\n\u{1b}[31mred\u{1b}]0;title\u{7}\n\u{202e}evil\nEND\nexit 9\n"
        );
        self.scene.push(key, "", &output).await;
        let id = self.scene.deploy_saying(HOSTILE, "blog", "site", key).await;
        assert_eq!(self.scene.ended(&id).await.as_str(), "Failed");
        self.browser.errors().await;
        let encoded =
            |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        for (path, is_shown) in [
            ("/console/", false),
            ("/console/inbox", true),
            ("/console/deployments", true),
            (&format!("/console/deployments/{id}"), true),
            (&format!("/console/deployments/{id}/hosts/blog1"), true),
            ("/console/groups/blog/site", true),
            ("/console/groups/blog/site/deploy", true),
            ("/console/groups/blog/site/rollback", true),
            ("/console/hosts", false),
            ("/console/hosts/evil", true),
            ("/console/hosts/blog1", true),
            ("/console/audit", true),
            (&format!("/console/audit?who={}", encoded(HOSTILE)), false),
            (&format!("/console/{}", encoded(HOSTILE)), false),
        ] {
            self.go(path).await;
            let script =
                "return [window.hacked, document.querySelectorAll('img, script:not([src])').length,
                document.documentElement.innerHTML.includes('\u{202e}'), document.title]";
            let found = self.browser.evaluate(script).await;
            let is_text = found[0].is_null() && found[1] == 0 && found[2] == false;
            assert!(is_text, "{path}: {found}");
            let text = self.browser.text().await;
            assert!(!text.contains('\u{1b}'), "{path}: {text}");
            assert!(!is_shown || text.contains("<img src=x"), "{path}: {text}");
        }
        let errors = self.browser.errors().await;
        let other: Vec<_> = errors
            .iter()
            .filter(|error| !error.contains("404"))
            .collect();
        assert!(other.is_empty(), "{other:#?}");
    }

    /// A reader sees everything and can change nothing.
    async fn read_only(&self) {
        self.log_in(&["--role", "read-only"]).await;
        for path in self.pages() {
            if path.contains("/deploy?") || path.ends_with("/deploy") || path.ends_with("/rollback")
            {
                continue;
            }
            self.go(&path).await;
            let script = "return [document.querySelectorAll('form[method=post]').length,
                [...document.querySelectorAll('main a, main button')].map((found) => found.innerText)
                    .filter((words) => /^(Go back|Deploy…|Stop$|Stop and|Continue)/.test(words)).length]";
            let found = self.browser.evaluate(script).await;
            assert!(found[0] == 1 && found[1] == 0, "{path}: {found}");
        }
    }

    /// A deployment to 10,000 hosts has a page that a browser loads at once.
    async fn open_a_large_deployment(&self) {
        let id = self.scene.last("shop", "large").await;
        wait::until("all hosts are asked", async || {
            let info = self.scene.service.deployment(&id).await;
            let counts = info.deployment_overview.clone();
            let all = counts.map_or(0, |counts| counts.in_progress + counts.pending);
            (all == 10_000).then_some(()).ok_or(info)
        })
        .await;
        for path in [
            format!("/console/deployments/{id}"),
            "/console/".to_owned(),
            "/console/hosts".to_owned(),
            "/console/groups/shop/large".to_owned(),
            "/console/inbox".to_owned(),
        ] {
            let began = Instant::now();
            self.go(&path).await;
            let script = "const found = performance.getEntriesByType('navigation')[0];
                return [found.responseStart - found.requestStart, found.decodedBodySize, found.domContentLoadedEventEnd]";
            let times = self.browser.evaluate(script).await;
            let size = times[1].as_u64().unwrap_or_default();
            println!(
                "{path}: first byte after {:.0} ms, {size} bytes, shown after {:.0} ms, loaded after {:.0} ms",
                times[0].as_f64().unwrap_or_default(),
                times[2].as_f64().unwrap_or_default(),
                began.elapsed().as_secs_f64() * 1000.0,
            );
            assert!(size > 0 && size <= LARGEST as u64, "{path}: {size} bytes");
        }
    }
}

/// 10,000 hosts like one that is there, in a group of their own.
const LARGE: &str = "
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)
    INSERT INTO instances (arn, name, principal, registered, tags, agent_version, last_seen)
        SELECT arn || n, printf('host%05d', n), principal || n, registered, replace(tags, 'spare', 'large'), 'TEST', last_seen
        FROM instances, n WHERE name = 'spare1';
";

#[tokio::test(flavor = "multi_thread")]
async fn the_console_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::start(&Programs::built(), folder.path()).await;
    scene.group("shop", "large", "large", "AllAtOnce").await;
    let began = Instant::now();
    let browser = Chromium::start().await;
    let step = |name: &str| println!("{name} after {:.1} s", began.elapsed().as_secs_f64());
    let visitor = Visitor {
        browser: &browser,
        scene: &scene,
    };
    browser
        .open(&format!("{}/console/login", scene.service.endpoint))
        .await;
    assert_eq!(browser.findings().await, [""; 0]);
    visitor.log_in(&[]).await;
    step("log in");
    visitor.check_all_pages().await;
    step("axe");

    // With script.
    visitor.find_the_failing_script().await;
    step("find the failing script");
    visitor.go_back("shop", "api").await;
    step("go back");
    visitor.deploy("shop", "api").await;
    step("deploy");
    visitor.watch_the_end().await;
    visitor.use_keys_alone().await;
    let errors = browser.errors().await;
    assert!(
        errors.iter().all(|error| error.contains("404")),
        "{errors:#?}"
    );
    step("journeys with script");

    // Without.
    browser.let_scripts_run(false).await;
    visitor.deploy("shop", "api").await;
    visitor.go_back("shop", "api").await;
    visitor.stop().await;
    browser.let_scripts_run(true).await;
    visitor.stop().await;
    step("journeys without script");

    visitor.meet_hostile_texts().await;
    step("hostile texts");
    visitor.read_only().await;
    step("a reader");
    visitor.log_in(&[]).await;
    let database = scene.service.data.join("codedeploy.sqlite3");
    Connection::open(database)
        .unwrap()
        .execute_batch(LARGE)
        .unwrap();
    scene.deploy("shop", "large", "shop/api-6.tgz").await;
    visitor.open_a_large_deployment().await;
    step("a large deployment");
    drop(browser);
    scene.stop().await;
}
