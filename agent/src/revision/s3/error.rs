//! The errors of an object in S3, and whether a retry can help.

use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::identity::Region;
use crate::revision::S3Revision;
use crate::revision::download::DownloadError;
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

impl Failure {
    pub(super) fn of(error: SdkError<GetObjectError, HttpResponse>) -> Self {
        let SdkError::ServiceError(context) = &error else {
            let reason = Chain(&error).to_string();
            return match error {
                SdkError::ConstructionFailure(_) => Self::Permanent(reason),
                SdkError::DispatchFailure(_) => Self::Temporary { reason, away: true },
                _ => Self::Temporary {
                    reason,
                    away: false,
                },
            };
        };
        let (raw, known) = (context.raw(), context.err());
        let status = raw.status().as_u16();
        let temporary = |reason| Self::Temporary {
            reason,
            away: (502..=504).contains(&status),
        };
        // Proxies between a host and its store respond with pages; stores name their errors.
        let Some(code) = known.code() else {
            let kind = raw
                .headers()
                .get("content-type")
                .unwrap_or("no content type");
            return temporary(format!(
                "the answer is HTTP {status} ({kind}), and not an error of S3's"
            ));
        };
        let answer = match known.message() {
            Some(message) => format!("{code} (HTTP {status}): {message}"),
            None => format!("{code} (HTTP {status})"),
        };
        let body = raw.body().bytes().unwrap_or_default();
        match status {
            301 | 307 | 400 => match region_named(raw.headers().get("x-amz-bucket-region"), body) {
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

/// Returns the bucket's region, from the header of a redirect or from the body of an
/// AuthorizationHeaderMalformed.
fn region_named(header: Option<&str>, body: &[u8]) -> Option<Region> {
    let text = String::from_utf8_lossy(body);
    let element = || {
        text.split_once("<Region>")?
            .1
            .split_once("</Region>")
            .map(|(region, _)| region.trim())
    };
    Region::new(header.or_else(element)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_region_is_in_a_header_or_in_the_error() {
        let malformed =
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        let named =
            |header, body: &[u8]| region_named(header, body).map(|region| region.to_string());
        assert_eq!(named(None, malformed).as_deref(), Some("eu-west-1"));
        assert_eq!(named(Some("us-west-2"), b"").as_deref(), Some("us-west-2"));
        assert_eq!(named(None, b"<Error/>"), None);
        assert_eq!(named(Some("evil.example/"), b""), None);
    }
}
