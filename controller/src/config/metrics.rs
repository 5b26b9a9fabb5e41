//! Access to the service's metrics.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::events::{MIN_TOKEN, Secret};

/// The largest token file, in bytes.
const MAX_TOKEN: u64 = 4096;

/// The ways to the metrics, beside a signed request with a key of role operator or read-only.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub token: Option<Token>,
    /// A loopback address where the metrics are for everyone.
    pub listen: Option<SocketAddr>,
}

/// The source of the token that a scraper presents.
#[derive(Debug, Clone)]
pub enum Token {
    Given(Secret),
    File(PathBuf),
}

/// The section of the configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys such as token_file, or {}")]
pub(super) struct FileMetrics {
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    listen: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error(
        "metrics.listen is {0:?}: expected a loopback address and a port such as 127.0.0.1:9464"
    )]
    Listen(String),
    #[error(
        "metrics.listen is {0}: expected a loopback address, because this listener asks for no key; other hosts request \
         /metrics at the service's own address, with metrics.token or metrics.token_file"
    )]
    Reachable(SocketAddr),
    #[error("metrics.token and metrics.token_file are set: set only one of them")]
    TwoTokens,
    #[error("{place} has fewer than {MIN_TOKEN} characters: make one with `openssl rand -hex 20`")]
    ShortToken { place: String },
    #[error("metrics.token_file is {}: expected an absolute path", .0.display())]
    Relative(PathBuf),
    #[error("cannot read the file of metrics.token_file, {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl FileMetrics {
    pub(super) fn settle(self) -> Result<Metrics, Vec<MetricsError>> {
        let mut mistakes = Vec::new();
        let token = match (self.token, self.token_file) {
            (Some(_), Some(_)) => {
                mistakes.push(MetricsError::TwoTokens);
                None
            }
            (Some(Secret(token)), None) if token.len() < MIN_TOKEN => {
                let place = "metrics.token".into();
                mistakes.push(MetricsError::ShortToken { place });
                None
            }
            (None, Some(path)) if !path.is_absolute() => {
                mistakes.push(MetricsError::Relative(path));
                None
            }
            (Some(token), None) => Some(Token::Given(token)),
            (None, Some(path)) => Some(Token::File(path)),
            (None, None) => None,
        };
        let listen = self.listen.and_then(|text| match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                mistakes.push(MetricsError::Listen(text));
                None
            }
        });
        if let Some(address) = listen.filter(|address: &SocketAddr| !address.ip().is_loopback()) {
            mistakes.push(MetricsError::Reachable(address));
        }
        if mistakes.is_empty() {
            Ok(Metrics { token, listen })
        } else {
            Err(mistakes)
        }
    }
}

impl Metrics {
    /// The file with the token, if there is one.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        match &self.token {
            Some(Token::File(path)) => Some(path),
            Some(Token::Given(_)) | None => None,
        }
    }

    /// Returns the token, if there is one.
    pub(crate) fn token(&self) -> Result<Option<Secret>, MetricsError> {
        match &self.token {
            None => Ok(None),
            Some(Token::Given(token)) => Ok(Some(token.clone())),
            Some(Token::File(path)) => read(path).map(Some),
        }
    }
}

fn read(path: &Path) -> Result<Secret, MetricsError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text))
        .map_err(|source| MetricsError::Read {
            path: path.to_owned(),
            source,
        })?;
    let token = text.trim();
    if token.len() < MIN_TOKEN {
        let place = format!("the file of metrics.token_file, {},", path.display());
        return Err(MetricsError::ShortToken { place });
    }
    Ok(Secret(token.to_owned()))
}
