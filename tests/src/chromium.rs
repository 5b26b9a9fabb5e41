//! A real browser: Debian's Chromium, by its WebDriver. It reaches loopback and nothing else.
//!
//! The protocol is JSON over HTTP, and half of the calls are Chromium's own; no library is needed
//! for a dozen of them.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::bucket::tools;
use crate::programs::{Program, Running};
use crate::wait;

/// The key of an element's id, as WebDriver defines it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The keys that tests press.
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// A browser with one window; it ends when it is dropped.
#[derive(Debug)]
pub struct Chromium {
    client: Client<HttpConnector, Body>,
    /// The URL of its session.
    session: String,
    _driver: Running,
    _folder: tempfile::TempDir,
}

/// The rules that axe-core checks: those of WCAG 2.2 AA.
const RULES: [&str; 5] = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];

impl Chromium {
    /// Starts a browser with its own empty profile.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("chromedriver.log");
        let configured = |command: &mut tokio::process::Command| {
            command.arg("--port=0").env("HOME", folder.path());
        };
        let driver = Program::at("/usr/bin/chromedriver").start(configured, &log);
        let port = wait::until("chromedriver listens", async || {
            let output = driver.output();
            let port = output.split_once("started successfully on port ");
            let port = port.and_then(|(_, rest)| rest.split('.').next()?.parse::<u16>().ok());
            port.ok_or(output)
        })
        .await;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut browser = Self {
            client,
            session: format!("http://127.0.0.1:{port}/session"),
            _driver: driver,
            _folder: folder,
        };
        let profile = browser._folder.path().join("profile");
        let options = json!({"args": arguments(&profile), "binary": "/usr/bin/chromium"});
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
            "unhandledPromptBehavior": "ignore", "timeouts": {"script": 60_000, "pageLoad": 60_000},
        }}});
        let made = browser.call("POST", "", &wanted).await.expect("a session");
        let id = made["sessionId"].as_str().expect("its id");
        browser.session += &format!("/{id}");
        browser
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let text = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .body(Body::from(text))
            .expect("a request");
        let answer = tokio::time::timeout(Duration::from_secs(120), self.client.request(request));
        let answer = answer.await.map_err(|_| format!("{path}: no answer"))?;
        let (head, body) = answer
            .map_err(|error| format!("{path}: {error}"))?
            .into_parts();
        let bytes = to_bytes(Body::new(body), usize::MAX).await;
        let bytes = bytes.map_err(|error| format!("{path}: {error}"))?;
        let mut value: Value = serde_json::from_slice(&bytes).expect("WebDriver answers in JSON");
        let value = value["value"].take();
        match head.status.is_success() {
            true => Ok(value),
            false => Err(format!("{path}: {} {}", value["error"], value["message"])),
        }
    }

    async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        match self.call(method, path, &body).await {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// Loads a page.
    pub async fn open(&self, url: &str) {
        self.must("POST", "/url", json!({"url": url})).await;
    }

    /// The path of the present page.
    pub async fn path(&self) -> String {
        let url = self.must("GET", "/url", Value::Null).await;
        let url = url.as_str().expect("a URL");
        let (_, rest) = url.split_once("://").expect("a URL");
        rest.split_once('/')
            .map_or("/".into(), |(_, path)| format!("/{path}"))
    }

    /// Runs the body of a function in the page.
    pub async fn evaluate(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.must("POST", "/execute/sync", body).await
    }

    /// The text of the page, as it is shown.
    pub async fn text(&self) -> String {
        let text = self.evaluate("return document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows a text.
    pub async fn shows(&self, text: &str) {
        wait::until("the page shows the text", async || {
            let shown = self.text().await;
            match shown.contains(text) {
                true => Ok(()),
                false => Err(format!("{text} is not in {shown}")),
            }
        })
        .await;
    }

    /// Clicks on the first link, button or label with these words, as a user does: it must be visible.
    pub async fn click(&self, words: &str) {
        let quoted = words.replace('\'', "");
        let found = format!(
            "//a[contains(normalize-space(.), '{quoted}') or contains(@aria-label, '{quoted}')] | //button[contains(normalize-space(.), '{quoted}')] | //label[contains(., '{quoted}')]"
        );
        self.click_at("xpath", &found).await;
    }

    /// Clicks on the first element that matches a CSS selector.
    pub async fn click_on(&self, selector: &str) {
        self.click_at("css selector", selector).await;
    }

    async fn click_at(&self, using: &str, value: &str) {
        // A part of a live page may be replaced between the search and the click.
        wait::until("the element can be clicked", async || {
            let found = self
                .call("POST", "/element", &json!({"using": using, "value": value}))
                .await?;
            let id = found[ELEMENT].as_str().unwrap_or_default();
            self.call("POST", &format!("/element/{id}/click"), &json!({}))
                .await
        })
        .await;
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.must("POST", "/actions", body).await;
    }

    /// Sends a command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.must("POST", "/goog/cdp/execute", body).await
    }

    /// Whether pages may run their scripts.
    pub async fn let_scripts_run(&self, may: bool) {
        let parameters = json!({"value": !may});
        self.devtools("Emulation.setScriptExecutionDisabled", parameters)
            .await;
    }

    /// The size of the window, in CSS pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        let parameters =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", parameters)
            .await;
    }

    /// Whether pages are dark, and move.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// Forgets all logins.
    pub async fn forget(&self) {
        self.devtools("Network.clearBrowserCookies", json!({}))
            .await;
    }

    /// A picture of the whole page in a window of a width, as PNG.
    pub async fn picture(&self, width: u32) -> Vec<u8> {
        let height = self.evaluate("return document.documentElement.scrollHeight");
        let height = height.await.as_u64().unwrap_or_default();
        self.resize(width, u32::try_from(height).unwrap_or(u32::MAX))
            .await;
        let body = json!({"cmd": "Page.captureScreenshot", "params": {"format": "png"}});
        // A window that changed its size may have none for a moment.
        let picture = wait::until("a picture", async || {
            self.call("POST", "/goog/cdp/execute", &body).await
        })
        .await;
        let data = picture["data"].as_str().expect("a picture");
        STANDARD.decode(data).expect("base64")
    }

    /// The errors in the browser's log since the last call: of scripts, of the network, violations
    /// of the page's policy.
    pub async fn errors(&self) -> Vec<String> {
        let entries = self
            .must("POST", "/se/log", json!({"type": "browser"}))
            .await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        let severe = entries
            .iter()
            .filter(|entry| entry["level"] != "INFO" && entry["level"] != "DEBUG");
        severe.map(|entry| entry["message"].to_string()).collect()
    }

    /// The findings of axe-core on the present page.
    pub async fn findings(&self) -> Vec<String> {
        let rules = json!({"type": "tag", "values": RULES});
        self.findings_of(&rules).await
    }

    /// Those about contrasts alone, for another colour scheme.
    pub async fn contrast_findings(&self) -> Vec<String> {
        let rules = json!({"type": "rule", "values": ["color-contrast"]});
        self.findings_of(&rules).await
    }

    async fn findings_of(&self, rules: &Value) -> Vec<String> {
        if self.evaluate("return typeof window.axe").await == "undefined" {
            let axe = axe();
            self.evaluate(&format!("(function () {{ {axe} }}).call(window)"))
                .await;
        }
        let script = format!(
            "const done = arguments[arguments.length - 1];
             axe.run(document, {{runOnly: {rules}, resultTypes: ['violations']}}).then(
               (found) => done({{passes: found.passes.length, violations: found.violations.map((rule) =>
                 `${{rule.id}}: ${{rule.help}}: ` + rule.nodes.slice(0, 3).map((node) =>
                   node.html + ' ' + node.failureSummary).join(' | '))}}),
               (error) => done({{passes: 0, violations: [String(error)]}}));"
        );
        let body = json!({"script": script, "args": []});
        let found = self.must("POST", "/execute/async", body).await;
        assert!(
            found["passes"].as_u64() > Some(0),
            "axe-core checked nothing: {found}"
        );
        let violations = found["violations"].as_array().cloned().unwrap_or_default();
        violations.iter().map(Value::to_string).collect()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver ends with this process's handle, and its browser would outlive it.
        let session = self.session.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async {
                let client = Client::builder(TokioExecutor::new()).build_http();
                let request = Request::delete(session).body(Body::empty()).ok()?;
                tokio::time::timeout(Duration::from_secs(10), client.request(request))
                    .await
                    .ok()?
                    .ok()
            })
        });
        let _ = ended.join();
    }
}

/// Nothing is called but pages of loopback: everything else is sent to a proxy that is not there.
fn arguments(profile: &Path) -> Vec<String> {
    let fixed = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-sync",
        "--disable-features=OptimizationHints,MediaRouter,Translate",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE 127.0.0.2",
        "--proxy-server=127.0.0.1:9",
        "--proxy-bypass-list=127.0.0.1;127.0.0.2",
        "--window-size=1280,900",
    ];
    let profile = format!("--user-data-dir={}", profile.display());
    fixed
        .map(str::to_owned)
        .into_iter()
        .chain([profile])
        .collect()
}

/// The text of axe-core, which `tests/run` installs from PyPI.
fn axe() -> String {
    let folder = tools().join("python/lib");
    let versions = std::fs::read_dir(&folder).expect("tests/run installs it");
    let found = versions.flatten().find_map(|version| {
        let file = version
            .path()
            .join("site-packages/axe_playwright_python/axe.min.js");
        std::fs::read_to_string(file).ok()
    });
    found.unwrap_or_else(|| {
        panic!(
            "axe.min.js is missing below {}; tests/run installs it",
            folder.display()
        )
    })
}
