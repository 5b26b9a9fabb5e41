//! The style, the script and the icon, which are parts of the program.

use std::sync::OnceLock;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::{HeaderValue, Response, StatusCode, header};

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "console.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("assets/console.css"),
    },
    Asset {
        name: "console.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/console.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        text: include_str!("assets/icon.svg"),
    },
];

/// The version in their addresses, so that browsers may keep them.
pub(super) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut all = Context::new(&SHA256);
        for asset in &ASSETS {
            all.update(asset.text.as_bytes());
        }
        hex::encode(all.finish().as_ref()).split_off(52)
    })
}

pub(super) async fn get(params: RawPathParams) -> Response<Body> {
    let name = params.iter().next().map(|(_, name)| name);
    let Some(asset) = ASSETS.iter().find(|asset| Some(asset.name) == name) else {
        let mut response = Response::new(Body::from("There is no such file.\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let mut response = Response::new(Body::from(asset.text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let long = HeaderValue::from_static("public, max-age=31536000, immutable");
    headers.insert(header::CACHE_CONTROL, long);
    response.extensions_mut().insert(super::kind("assets"));
    response
}
