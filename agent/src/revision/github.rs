//! Revisions on GitHub: the archive of one commit, as GitHub makes it.

use std::fmt;
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::archive::BundleType;
use super::download::{DownloadError, Incoming};
use super::web::{self, Address, Answer};
use super::{DeploymentFolder, FetchedBundle, GitHubRevision};
use crate::telemetry::milliseconds_since;

/// GitHub's address, unless `github_endpoint` names another.
pub(super) const DEFAULT_ENDPOINT: &str = "https://api.github.com";

/// The pauses between attempts, equal to those of the official agents.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(90),
];

/// GitHub itself needs one redirect.
const MOST_REDIRECTS: usize = 5;

/// The user agent; GitHub rejects requests without one.
const USER_AGENT: &str = concat!("codedeploy-agent/", env!("CARGO_PKG_VERSION"));

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    pub fn new(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(hidden)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GitHubError {
    #[error(
        "github_endpoint: {endpoint:?} is not a server's address; expected https://HOST/api/v3 or the like"
    )]
    Endpoint { endpoint: String },
    #[error(
        "github_endpoint: {endpoint} is reached without encryption, and the deployment has a token that must not be \
         sent so; use https://"
    )]
    Unencrypted { endpoint: String },
    #[error("cannot get {commit}: {problem}; {advice}")]
    Refused {
        commit: String,
        problem: String,
        advice: &'static str,
    },
    #[error(
        "cannot get {commit}, in {tries} tries: {problem}; check that this host reaches GitHub"
    )]
    Failing {
        commit: String,
        tries: usize,
        problem: String,
    },
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// The access to GitHub.
#[derive(Debug)]
pub(super) struct GitHub<'a> {
    pub(super) http: SharedHttpClient,
    pub(super) endpoint: &'a str,
    /// The longest silence that is tolerated.
    pub(super) read_timeout: Duration,
}

/// The reason why one attempt failed.
enum Failure {
    Temporary(String),
    Refused {
        problem: String,
        advice: &'static str,
    },
    Here(DownloadError),
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        Self::Here(error)
    }
}

impl GitHub<'_> {
    pub(super) async fn fetch(
        &self,
        revision: &GitHubRevision,
        folder: &DeploymentFolder,
    ) -> Result<FetchedBundle, GitHubError> {
        let address =
            Address::parse(&format!("{}{}", self.endpoint, path(revision))).ok_or_else(|| {
                GitHubError::Endpoint {
                    endpoint: self.endpoint.to_owned(),
                }
            })?;
        if revision.token.is_some() && !address.is_private() {
            return Err(GitHubError::Unencrypted {
                endpoint: self.endpoint.to_owned(),
            });
        }
        let began = Instant::now();
        let incoming = Incoming::create(folder)?;
        let GitHubRevision {
            account,
            repository,
            commit_id,
            ..
        } = revision;
        let commit = format!("commit {commit_id} of {account}/{repository}");
        let mut pauses = PAUSES.iter();
        let bytes = loop {
            let problem = match self
                .try_once(&address, revision.token.as_ref(), &incoming)
                .await
            {
                Ok(bytes) => break bytes,
                Err(Failure::Here(error)) => return Err(error.into()),
                Err(Failure::Refused { problem, advice }) => {
                    return Err(GitHubError::Refused {
                        commit,
                        problem,
                        advice,
                    });
                }
                Err(Failure::Temporary(problem)) => problem,
            };
            let Some(pause) = pauses.next() else {
                let tries = PAUSES.len() + 1;
                return Err(GitHubError::Failing {
                    commit,
                    tries,
                    problem,
                });
            };
            tracing::warn!(
                problem,
                retry_in_seconds = pause.as_secs(),
                "GitHub did not deliver; trying again"
            );
            tokio::time::sleep(*pause).await;
        };
        let file = incoming.finish()?;
        let (anonymous, duration_ms) = (revision.token.is_none(), milliseconds_since(began));
        tracing::info!(commit, bytes, anonymous, duration_ms, "bundle downloaded");
        Ok(FetchedBundle::File {
            file,
            bundle_type: revision.bundle_type,
        })
    }

    /// Downloads from the beginning; returns the bundle's size.
    async fn try_once(
        &self,
        address: &Address,
        token: Option<&AccessToken>,
        incoming: &Incoming,
    ) -> Result<u64, Failure> {
        let mut body = self.open(address, token, incoming).await?;
        incoming.restart()?;
        let mut writer = incoming.at(0);
        loop {
            let chunk = match tokio::time::timeout(self.read_timeout, body.body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => {
                    return Err(Failure::Temporary(
                        codedeploy_api::chain::Chain(&error).to_string(),
                    ));
                }
                Ok(None) => break,
                Err(_) => {
                    return Err(Failure::Temporary(format!(
                        "nothing arrived for {} s",
                        self.read_timeout.as_secs()
                    )));
                }
            };
            writer.write(&chunk).await?;
        }
        writer.flush().await?;
        let bytes = writer.position();
        match body.content_length() {
            _ if bytes == 0 => Err(Failure::Temporary("the answer is empty".into())),
            Some(expected) if expected != bytes => Err(Failure::Temporary(format!(
                "{bytes} of {expected} bytes arrived"
            ))),
            _ => Ok(bytes),
        }
    }

    /// Follows redirects to the archive. Only the first server receives the token.
    async fn open(
        &self,
        address: &Address,
        token: Option<&AccessToken>,
        incoming: &Incoming,
    ) -> Result<Answer, Failure> {
        let mut here = address.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = vec![
                ("user-agent", USER_AGENT.to_owned()),
                ("accept", "*/*".to_owned()),
            ];
            if let Some(AccessToken(token)) = token.filter(|_| here.origin == address.origin) {
                headers.push(("authorization", format!("token {token}")));
            }
            let answer = web::get(&self.http, &here, headers, self.read_timeout, None)
                .await
                .map_err(|error| Failure::Temporary(error.to_string()))?;
            match answer.status {
                200 if answer.is_page() => {
                    let problem =
                        format!("{} answered with a web page, not an archive", here.origin);
                    return Err(Failure::Temporary(problem));
                }
                200 => {
                    incoming.check_space(answer.content_length().unwrap_or_default())?;
                    return Ok(answer);
                }
                301 | 302 | 303 | 307 | 308 => {
                    let next = answer
                        .header("location")
                        .and_then(|location| here.redirected(location));
                    here = next.ok_or_else(|| Failure::Refused {
                        problem: format!(
                            "{} redirects to where this agent does not go",
                            here.origin
                        ),
                        advice: "expected an https:// address",
                    })?;
                }
                status @ (408 | 429 | 500..) => {
                    return Err(Failure::Temporary(format!(
                        "{} answered HTTP {status}",
                        here.origin
                    )));
                }
                status => {
                    let problem = format!("{} answered HTTP {status}", here.origin);
                    return Err(Failure::Refused {
                        problem,
                        advice: advice(status, token.is_some()),
                    });
                }
            }
        }
        Err(Failure::Refused {
            problem: format!("more than {MOST_REDIRECTS} redirects"),
            advice: "check github_endpoint",
        })
    }
}

fn advice(status: u16, has_token: bool) -> &'static str {
    match (status, has_token) {
        (401, true) => {
            "the token is not valid (any more); connect the application to GitHub again, or pass another token"
        }
        (403, false) => "requests without a token are few per hour and address; pass a token",
        (403, true) => {
            "the token may not read the repository, or its requests of this hour are used up"
        }
        (404, false) => {
            "check owner, repository and commit; a private repository needs a token, and there was none"
        }
        (404, true) => {
            "check owner, repository and commit, and that the token may read the repository"
        }
        _ => "check owner, repository and commit",
    }
}

fn path(revision: &GitHubRevision) -> String {
    let GitHubRevision {
        account,
        repository,
        commit_id,
        bundle_type,
        ..
    } = revision;
    let form = match bundle_type {
        BundleType::Zip => "zipball",
        BundleType::Tar | BundleType::Tgz => "tarball",
    };
    let (account, repository) = (
        utf8_percent_encode(account, &RESERVED),
        utf8_percent_encode(repository, &RESERVED),
    );
    let commit = utf8_percent_encode(commit_id, &RESERVED_IN_PATH);
    format!("/repos/{account}/{repository}/{form}/{commit}")
}

/// Everything but letters, digits and `-._~` (RFC 3986, section 2.3).
const RESERVED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same without `/`, which names of branches may contain.
const RESERVED_IN_PATH: AsciiSet = RESERVED.remove(b'/');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_the_archive_of_the_commit_and_the_token_is_not_shown() {
        let mut revision = GitHubRevision {
            account: "octo cat".into(),
            repository: "a/b".into(),
            commit_id: "feature/x#1".into(),
            bundle_type: BundleType::Tar,
            token: Some(AccessToken::new("ghp_secret".into())),
        };
        assert_eq!(
            path(&revision),
            "/repos/octo%20cat/a%2Fb/tarball/feature/x%231"
        );
        revision.bundle_type = BundleType::Zip;
        assert!(path(&revision).contains("/zipball/"));
        assert!(!format!("{revision:?}").contains("ghp_secret"));
    }
}
