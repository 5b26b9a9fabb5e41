//! Revisions in S3: one object, in the version and with the ETag of the deployment.
//!
//! The first request asks for the whole object. A small object is read to its end. A large one comes
//! in parts, four at a time, the first ones first ([`transfer`]). A stream that breaks off is resumed
//! where it ended.

mod error;
mod transfer;

use std::time::{Duration, Instant};

use super::archive::BundleType;
use super::download::Incoming;
use super::retry::Failures;
use super::web::{self, Address, Answer};
use super::{Arriving, DeploymentFolder, FetchedBundle, S3Revision};
use crate::aws::bucket::Place;
use crate::aws::signing::signing;
use crate::aws::{Access, credentials};
use crate::identity::Region;
use crate::telemetry::milliseconds_since;
pub(super) use error::S3Error;
use error::{ErrorAnswer, Failure, ObjectName};
use transfer::Transfer;

const USER_AGENT: &str = concat!("codedeploy-agent/", env!("CARGO_PKG_VERSION"));

/// Downloads the object, and returns its ETag, without quotes.
pub(super) async fn fetch(
    revision: &S3Revision,
    folder: &DeploymentFolder,
    access: &Access,
    arriving: Arriving,
) -> Result<(FetchedBundle, String), S3Error> {
    let began = Instant::now();
    let (source, first) = Source::find(revision, access).await?;
    let etag = first.header("etag").unwrap_or_default().to_owned();
    let found = etag.trim_matches('"').to_owned();
    if let Some(expected) = &revision.etag
        && *expected != found
    {
        let (object, expected) = (source.name(), expected.clone());
        return Err(S3Error::NotTheEtag {
            object,
            expected,
            found,
        });
    }
    let incoming = Incoming::create(folder)?;
    let total = first.content_length();
    incoming.check_space(total.unwrap_or_default())?;
    if revision.bundle_type != BundleType::Zip {
        incoming.take_room(total.unwrap_or_default());
        // Without a reader, the bundle is read when it is complete.
        let _ = arriving.send((incoming.bundle(), revision.bundle_type));
    }
    let bytes = Transfer {
        source: &source,
        etag: &etag,
        total,
        incoming: &incoming,
    }
    .run(first.body)
    .await?;
    let file = incoming.finish()?;
    tracing::info!(
        bucket = revision.bucket,
        key = revision.key,
        version = revision.version.as_deref(),
        etag = found,
        bytes,
        duration_ms = milliseconds_since(began),
        "bundle downloaded"
    );
    Ok((
        FetchedBundle::File {
            file,
            bundle_type: revision.bundle_type,
        },
        found,
    ))
}

/// An object, and the access to it.
#[derive(Debug)]
struct Source<'a> {
    revision: &'a S3Revision,
    access: &'a Access,
    place: Place,
}

/// The conditions of a request for an object.
#[derive(Debug, Default)]
struct Condition {
    /// The header's value.
    range: Option<String>,
    /// As S3 sent it, with quotes.
    etag: Option<String>,
}

impl<'a> Source<'a> {
    /// Requests the whole object, in the bucket's own region.
    async fn find(revision: &'a S3Revision, access: &'a Access) -> Result<(Self, Answer), S3Error> {
        let mut source = Self {
            revision,
            access,
            place: place(revision, access, &access.region)?,
        };
        let mut failures = Failures::new(access.outage);
        let mut may_move = access.endpoints.s3.is_none();
        loop {
            match source.get(Condition::default()).await {
                Ok(object) => return Ok((source, object)),
                Err(Failure::Elsewhere(region)) if may_move => {
                    tracing::info!(bucket = revision.bucket, %region, "the bucket is in another region");
                    source.place = place(revision, access, &region)?;
                    may_move = false;
                }
                Err(Failure::Temporary { reason, away }) => match failures.pause_after(0, away) {
                    Some(pause) => {
                        tracing::warn!(reason, object = %source.name(), "S3 did not answer; trying again");
                        tokio::time::sleep(pause).await;
                    }
                    None => {
                        return Err(S3Error::Failing {
                            object: source.name(),
                            reason,
                        });
                    }
                },
                Err(failure) => return Err(source.error(failure).await),
            }
        }
    }

    async fn get(&self, condition: Condition) -> Result<Answer, Failure> {
        let used = self.access.credentials.generation();
        let mut answered = self.send(&condition).await?;
        let refused = answered
            .as_ref()
            .is_err_and(|error| error.code().is_some_and(credentials::is_refusal));
        if refused && self.access.credentials.refused(used).await {
            answered = self.send(&condition).await?;
        }
        let answer = answered?;
        match foreign(&answer) {
            Some(reason) => Err(Failure::Temporary {
                reason: reason.into(),
                away: false,
            }),
            None => Ok(answer),
        }
    }

    async fn send(&self, condition: &Condition) -> Result<Result<Answer, ErrorAnswer>, Failure> {
        let S3Revision { key, version, .. } = self.revision;
        let address = self.place.object(key, version.as_deref());
        let address = Address::parse(&address).ok_or_else(|| {
            Failure::Permanent(format!("{address} is not an address of http or https"))
        })?;
        let conditions = [("range", &condition.range), ("if-match", &condition.etag)];
        let headers = conditions
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)));
        let headers = headers.chain([("user-agent", USER_AGENT.to_owned())]);
        let access = self.access;
        let signature = signing(&access.credentials, &self.place.scope);
        let answer = web::get(
            &access.http,
            &address,
            headers.collect(),
            access.read_timeout,
            Some(signature),
        );
        let answer = answer.await?;
        Ok(match answer.status {
            200..300 => Ok(answer),
            _ => Err(ErrorAnswer::read(answer, access.read_timeout).await?),
        })
    }

    fn name(&self) -> ObjectName {
        self.revision.into()
    }

    /// Describes a failure that is not retried.
    async fn error(&self, failure: Failure) -> S3Error {
        let object = self.name();
        match failure {
            Failure::Forbidden(answer) => {
                let action = if self.revision.version.is_some() {
                    "s3:GetObjectVersion"
                } else {
                    "s3:GetObject"
                };
                S3Error::Forbidden {
                    object,
                    identity: self.identity().await,
                    answer,
                    action,
                }
            }
            Failure::Missing(answer) => S3Error::Missing {
                object,
                identity: self.identity().await,
                answer,
            },
            Failure::Replaced => S3Error::Replaced {
                object,
                expected: "what it was".into(),
            },
            Failure::Elsewhere(region) => {
                let reason = format!(
                    "the bucket is in {region}; check s3_endpoint_override and the region of the host"
                );
                S3Error::Get { object, reason }
            }
            Failure::Temporary { reason, .. } | Failure::Permanent(reason) => {
                S3Error::Get { object, reason }
            }
        }
    }

    /// Identifies the credentials that were used, without secrets.
    async fn identity(&self) -> String {
        use aws_credential_types::provider::ProvideCredentials;
        match self.access.credentials.provide_credentials().await {
            Ok(credentials) => format!("the access key {}", credentials.access_key_id()),
            Err(_) => "credentials that cannot be read".into(),
        }
    }

    /// The longest silence of a stream that is tolerated.
    fn read_timeout(&self) -> Duration {
        self.access.read_timeout
    }
}

/// The reason why a successful response does not come from an object store: proxies and portals
/// send pages.
fn foreign(answer: &Answer) -> Option<&'static str> {
    let numbers = ["x-amz-request-id", "x-amzn-requestid"];
    match answer.header("etag") {
        None | Some("" | "\"\"") => Some("the answer has no ETag, so it is not the store's"),
        Some(_) if answer.is_page() && numbers.iter().all(|name| answer.header(name).is_none()) => {
            Some("the answer is a web page without a request id, so it is not the store's")
        }
        Some(_) => None,
    }
}

fn place(revision: &S3Revision, access: &Access, region: &Region) -> Result<Place, S3Error> {
    Place::of(&revision.bucket, region, &access.endpoints).map_err(|error| S3Error::Get {
        object: revision.into(),
        reason: error.to_string(),
    })
}
