//! The errors of an object in S3, and whether a retry can help.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::identity::Region;
use crate::revision::S3Revision;
use crate::revision::download::DownloadError;
use crate::revision::web::{Answer, NoAnswer};
use codedeploy_api::chain::Chain;

/// An object's name in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName(String);

impl From<&S3Revision> for ObjectName {
    fn from(revision: &S3Revision) -> Self {
        let S3Revision {
            bucket,
            key,
            version,
            ..
        } = revision;
        let version = version
            .as_ref()
            .map(|version| format!(" in version {version}"))
            .unwrap_or_default();
        Self(format!("s3://{bucket}/{key}{version}"))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("cannot get {object}: {reason}")]
    Get { object: ObjectName, reason: String },
    #[error(
        "cannot get {object}, in several tries: {reason}; check that this host reaches S3 (network, proxy_uri, \
         s3_endpoint_override), and deploy again"
    )]
    Failing { object: ObjectName, reason: String },
    #[error(
        "S3 refuses {object} to {identity}: {answer}; check that this identity is allowed {action} on the object \
         (and kms:Decrypt, if its encryption uses a KMS key), and that bucket and key are right: S3 answers so for an \
         object that does not exist, too, unless s3:ListBucket is allowed"
    )]
    Forbidden {
        object: ObjectName,
        identity: String,
        answer: String,
        action: &'static str,
    },
    #[error(
        "{object} does not exist, asked for with {identity}: {answer}; check the bucket, the key and the version of \
         the revision, and that the object was not deleted"
    )]
    Missing {
        object: ObjectName,
        identity: String,
        answer: String,
    },
    #[error(
        "{object} has the ETag {found}, but the deployment names {expected}; deploy the revision that is there, or upload this one again"
    )]
    NotTheEtag {
        object: ObjectName,
        expected: String,
        found: String,
    },
    #[error(
        "{object} was replaced while it was downloaded (its ETag is no longer {expected}); deploy again"
    )]
    Replaced {
        object: ObjectName,
        expected: String,
    },
    #[error("{object} broke off after {received} bytes, again and again: {reason}")]
    BrokeOff {
        object: ObjectName,
        received: u64,
        reason: String,
    },
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// The reason why one request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The bucket is in another region.
    Elsewhere(Region),
    /// A retry can help. `away`: the store itself did not respond.
    Temporary {
        reason: String,
        away: bool,
    },
    Forbidden(String),
    Missing(String),
    /// The object is not the one requested with If-Match.
    Replaced,
    Permanent(String),
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        let away = match error {
            NoAnswer::NotSent(reason) => return Self::Permanent(reason),
            NoAnswer::Unreached(_) => true,
            NoAnswer::Lost(_) => false,
        };
        Self::Temporary {
            reason: error.to_string(),
            away,
        }
    }
}

/// An error response.
#[derive(Debug)]
pub(super) struct ErrorAnswer {
    status: u16,
    content_type: Option<String>,
    region: Option<String>,
    body: String,
}

impl ErrorAnswer {
    /// Reads the body, whose size the HTTP client bounds.
    pub(super) async fn read(answer: Answer, timeout: Duration) -> Result<Self, Failure> {
        let header = |name| answer.header(name).map(str::to_owned);
        let (content_type, region) = (header("content-type"), header("x-amz-bucket-region"));
        let status = answer.status;
        let broken = |reason: String| Failure::Temporary {
            reason: format!("the answer is HTTP {status}, and its text cannot be read: {reason}"),
            away: false,
        };
        let body = tokio::time::timeout(timeout, answer.body.collect()).await;
        let body = body.map_err(|_| broken(format!("nothing for {} s", timeout.as_secs())))?;
        let body = body.map_err(|error| broken(Chain(&error).to_string()))?;
        Ok(Self {
            status,
            content_type,
            region,
            body: String::from_utf8_lossy(&body.into_bytes()).into_owned(),
        })
    }

    /// The error's name; `None` for a page of a proxy.
    pub(super) fn code(&self) -> Option<&str> {
        element(self.document()?, "Code")
    }

    /// The content of S3's error document.
    fn document(&self) -> Option<&str> {
        let (_, rest) = self.body.split_once("<Error")?;
        rest.starts_with(['>', ' ']).then_some(rest)
    }

    /// Returns the bucket's region, from the header of a redirect or from the body of an
    /// AuthorizationHeaderMalformed.
    fn region(&self) -> Option<Region> {
        let in_body = || element(self.document()?, "Region");
        Region::new(self.region.as_deref().or_else(in_body)?).ok()
    }
}

impl From<ErrorAnswer> for Failure {
    fn from(error: ErrorAnswer) -> Self {
        let status = error.status;
        let temporary = |reason| Self::Temporary {
            reason,
            away: (502..=504).contains(&status),
        };
        // Proxies between a host and its store respond with pages; stores name their errors.
        let Some(code) = error.code() else {
            let kind = error.content_type.as_deref().unwrap_or("no content type");
            return temporary(format!(
                "the answer is HTTP {status} ({kind}), and not an error of S3's"
            ));
        };
        let message = error.document().and_then(|text| element(text, "Message"));
        let answer = match message.map(unescaped) {
            Some(message) => format!("{code} (HTTP {status}): {message}"),
            None => format!("{code} (HTTP {status})"),
        };
        match status {
            301 | 307 | 400 => match error.region() {
                Some(region) => Self::Elsewhere(region),
                None if code == "RequestTimeout" => temporary(answer),
                None => Self::Permanent(answer),
            },
            401 | 403 => Self::Forbidden(answer),
            404 => Self::Missing(answer),
            412 => Self::Replaced,
            408 | 429 | 500.. => temporary(answer),
            _ => Self::Permanent(answer),
        }
    }
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

/// Text without XML's references to characters.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ];
    let plain = named
        .into_iter()
        .fold(text.to_owned(), |text, (reference, character)| {
            text.replace(reference, character)
        });
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, region: Option<&str>, body: &str) -> ErrorAnswer {
        ErrorAnswer {
            status,
            content_type: Some("application/xml".into()),
            region: region.map(str::to_owned),
            body: body.into(),
        }
    }

    #[test]
    fn the_right_region_is_in_a_header_or_in_the_error() {
        let malformed =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        let named = |header, body| match Failure::from(answer(400, header, body)) {
            Failure::Elsewhere(region) => Some(region.to_string()),
            _ => None,
        };
        assert_eq!(named(None, malformed).as_deref(), Some("eu-west-1"));
        assert_eq!(
            named(Some("us-west-2"), malformed).as_deref(),
            Some("us-west-2")
        );
        let moved = "<Error><Code>PermanentRedirect</Code></Error>";
        assert_eq!(named(None, moved), None);
        assert_eq!(named(Some("evil.example/"), moved), None);
    }

    #[test]
    fn the_store_s_own_words_are_told_and_a_page_is_not_taken_for_them() {
        let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code>\
            <Message>You &amp; &quot;they&quot; &lt;b&gt; &amp;lt;</Message></Error>";
        let Failure::Forbidden(words) = answer(403, None, document).into() else {
            panic!("a refusal is one");
        };
        assert_eq!(words, "AccessDenied (HTTP 403): You & \"they\" <b> &lt;");
        for page in [
            "",
            "<html><Code>AccessDenied</Code></html>",
            "<Errors><Code>x</Code></Errors>",
        ] {
            let failure = answer(403, None, page).into();
            assert!(
                matches!(&failure, Failure::Temporary { away: false, reason } if reason.contains("application/xml")),
                "{failure:?}"
            );
        }
    }
}
