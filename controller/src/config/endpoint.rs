//! The address of a service.

use axum::http::Uri;

/// The URL of a service: scheme, host and port, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    host: String,
}

impl Endpoint {
    /// Reads `https://host[:port]` or `http://host[:port]`; a slash at the end is dropped.
    pub fn read(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri
            .scheme_str()
            .filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))?;
        let host = uri.host().filter(|host| !host.is_empty())?;
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('#');
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        // It is written between quotes into the files of hosts.
        let plain = host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
        (bare && plain).then(|| Endpoint {
            url: format!("{scheme}://{authority}"),
            host,
        })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its host name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn is_tls(&self) -> bool {
        self.url.starts_with("https:")
    }
}

/// Whether a request could be sent to this URL.
pub(crate) fn is_url(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let read = |text: &str| Endpoint::read(text).map(|endpoint| (endpoint.url, endpoint.host));
        let both = |url: &str, host: &str| Some((url.to_owned(), host.to_owned()));
        assert_eq!(
            read("https://box.example:7080/"),
            both("https://box.example:7080", "box.example")
        );
        assert_eq!(read("http://[::1]:80"), both("http://[::1]:80", "::1"));
        for wrong in [
            "box",
            "https://",
            "https://me@box",
            "https://box/?a",
            "https://b\"x",
            "https://box/#x",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
