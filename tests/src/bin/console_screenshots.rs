//! Pictures of the web console: its pages in a small fleet of real programs, light and dark, wide
//! and narrow.

#![allow(
    clippy::expect_used,
    reason = "when the fleet cannot be set up, it ends"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use codedeploy_tests::chromium::Chromium;
use codedeploy_tests::roles;
use codedeploy_tests::scene::Scene;

const USAGE: &str = "\
Starts a controller with a small fleet in a temporary folder, and writes pictures of the pages of its web console.
Needs chromium and chromedriver, which tests/tools.sh installs.

Usage: console_screenshots FOLDER
";

/// The widths of the pictures, with the heights of the windows.
const SIZES: [(u32, u32); 2] = [(1280, 800), (360, 740)];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = roles::play(&arguments) {
        return code;
    }
    let folder = match arguments.as_slice() {
        [_, folder] if !folder.to_string_lossy().starts_with('-') => PathBuf::from(folder),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(take(&folder));
    ExitCode::SUCCESS
}

async fn take(folder: &Path) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let place = tempfile::tempdir().expect("a temporary folder");
    let scene = Scene::start(&roles::programs(), place.path()).await;
    let browser = Chromium::start().await;
    browser.open(&scene.service.login_link().await).await;
    browser.click("Log in with the link").await;
    browser.shows("Fleet").await;
    let deploy = "/console/groups/shop/api/deploy?other=s3%3A%2F%2Frevisions%2Fshop%2Fapi-6.tgz";
    let pages = [
        ("fleet", "/console/".to_owned()),
        ("inbox", "/console/inbox".into()),
        (
            "deployment",
            format!("/console/deployments/{}", scene.running),
        ),
        ("failure", format!("/console/deployments/{}", scene.failed)),
        ("deploy", deploy.into()),
        ("deployments", "/console/deployments".into()),
        (
            "target",
            format!("/console/deployments/{}/hosts/blog1", scene.failed),
        ),
        ("hosts", "/console/hosts".into()),
        ("host", "/console/hosts/blog1".into()),
        ("group", "/console/groups/blog/site".into()),
        ("audit", "/console/audit".into()),
    ];
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for (width, height) in SIZES {
            for (name, path) in &pages {
                browser.resize(width, height).await;
                browser
                    .open(&format!("{}{path}", scene.service.endpoint))
                    .await;
                let file = folder.join(format!("{name}-{scheme}-{width}.png"));
                let picture = browser.picture(width).await;
                std::fs::write(&file, picture).expect("the picture can be written");
                println!("{}", file.display());
            }
        }
    }
    drop(browser);
    // An agent ends its scripts before it stops.
    scene.release();
    scene.ended(&scene.running).await;
    scene.stop().await;
}
