//! A browser without script: it keeps cookies, and sends forms with their origin.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use futures_util::StreamExt as _;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Controller;

/// A response.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Shown {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The page that a redirection leads to.
    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    /// The token in the forms of the page.
    pub(crate) fn csrf(&self) -> String {
        let (_, rest) = self
            .text
            .split_once("name=\"csrf\" value=\"")
            .expect("a form");
        rest.split('"').next().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.text).unwrap()
    }
}

/// A browser at one controller.
#[derive(Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    /// The cookie of its session.
    pub(crate) cookie: Option<String>,
    /// The cookie of a login at an identity provider.
    pub(crate) login: Option<String>,
    /// Headers of every request.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Browser {
    pub(crate) fn new(controller: &Controller) -> Self {
        Browser {
            address: controller.address,
            cookie: None,
            login: None,
            headers: Vec::new(),
        }
    }

    /// A browser that logged in with a link.
    pub(crate) async fn at(controller: &Controller, args: &[&str]) -> Self {
        let mut browser = Browser::new(controller);
        let link = link(controller, args);
        let shown = browser.post("/console/login", &[("link", &link)]).await;
        assert_eq!(
            (shown.status, shown.location()),
            (303, "/console/"),
            "{}",
            shown.text
        );
        browser
    }

    pub(crate) async fn get(&mut self, path: &str) -> Shown {
        let request = Request::get(self.url(path));
        self.send(request, String::new()).await
    }

    /// A page that must be there.
    pub(crate) async fn page(&mut self, path: &str) -> Shown {
        let shown = self.get(path).await;
        assert_eq!(
            shown.status,
            200,
            "{path}: {} {}",
            shown.location(),
            shown.text
        );
        shown
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let origin = format!("http://{}", self.address);
        self.post_from(Some(&origin), path, fields).await
    }

    pub(crate) async fn post_from(
        &mut self,
        origin: Option<&str>,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Shown {
        let mut request = Request::post(self.url(path))
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let mut form = form_urlencoded::Serializer::new(String::new());
        let body = form.extend_pairs(fields).finish();
        self.send(request, body).await
    }

    /// Sends the form of a page.
    pub(crate) async fn submit(
        &mut self,
        page: &Shown,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Shown {
        let csrf = page.csrf();
        let fields = [&[("csrf", csrf.as_str())], fields].concat();
        self.post(path, &fields).await
    }

    /// Reads a stream until it has had a number of events.
    pub(crate) async fn events(&mut self, path: &str, number: usize) -> String {
        let mut request = Request::get(self.url(path));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let response = client
            .request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = Body::new(response.into_body()).into_data_stream();
        let mut text = String::new();
        while text.matches("event: part").count() < number || !text.ends_with("\n\n") {
            let piece = tokio::time::timeout(Duration::from_secs(30), body.next()).await;
            let piece = piece.expect(&text).expect("the stream goes on").unwrap();
            text += std::str::from_utf8(&piece).unwrap();
        }
        text
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&mut self, mut request: axum::http::request::Builder, body: String) -> Shown {
        let cookies: Vec<&str> = [&self.cookie, &self.login]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        let response = client
            .request(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        let text = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        for cookie in head.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
            let kept = (!cookie.ends_with('=')).then(|| cookie.to_owned());
            match cookie.contains("codedeploy-login=") {
                true => self.login = kept,
                false => self.cookie = kept,
            }
        }
        Shown {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }
}

/// The token of a new login link.
pub(crate) fn link(controller: &Controller, args: &[&str]) -> String {
    let output = controller.admin(&[&["console"], args].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let url = String::from_utf8(output.stdout).unwrap();
    let begin = format!("http://{}/console/login?link=", controller.address);
    url.trim().strip_prefix(&begin).expect(&url).to_owned()
}
