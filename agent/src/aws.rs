//! What every call to AWS, or to a service that speaks like it, has in common: HTTP and TLS, credentials, endpoints.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::config::{Endpoints, Settings};
use crate::identity::{CredentialSource, Region};

/// How the agent reaches services: one HTTP client with one trust store, and one source of credentials.
#[derive(Debug, Clone)]
pub struct Access {
    pub http: SharedHttpClient,
    pub credentials: SharedCredentialsProvider,
    pub region: Region,
    pub endpoints: Endpoints,
    pub read_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read the trusted certificates in {}", path.display())]
    Trust { path: PathBuf, source: std::io::Error },
    #[error("the trusted certificates cannot be used; each file must hold certificates in PEM form")]
    Tls { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("proxy_uri cannot be used; expected http://[user:password@]host:port")]
    Proxy { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("use_fips_mode: {region} has no FIPS endpoints; they exist in US and GovCloud regions only")]
    NoFips { region: Region },
}

impl Access {
    pub fn new(settings: &Settings, region: Region, source: &CredentialSource) -> Result<Self, AccessError> {
        let endpoints = settings.endpoints.clone();
        if endpoints.use_fips && !region.as_str().starts_with("us-") {
            return Err(AccessError::NoFips { region });
        }
        Ok(Self {
            http: http_client(&endpoints)?,
            credentials: credentials(source),
            region,
            endpoints,
            read_timeout: settings.http_read_timeout,
        })
    }

    /// Where commands come from: the configured address, else the region's.
    pub fn command_endpoint(&self) -> String {
        if let Some(endpoint) = &self.endpoints.deploy_control {
            return endpoint.clone();
        }
        let secure = if self.endpoints.secure { "-secure" } else { "" };
        let fips = if self.endpoints.use_fips { "-fips" } else { "" };
        format!("https://codedeploy-commands{secure}{fips}.{}.{}", self.region, self.region.domain())
    }

    /// The endpoint of S3 where the SDK's own rules do not name the right one.
    pub fn s3_endpoint(&self) -> Option<String> {
        let sovereign = || {
            let region = self.region.as_str();
            region.starts_with("eusc-").then(|| format!("https://s3.{region}.{}", self.region.domain()))
        };
        self.endpoints.s3.clone().or_else(sovereign)
    }
}

/// The client of every outgoing call: one trust store, one proxy.
pub fn http_client(endpoints: &Endpoints) -> Result<SharedHttpClient, AccessError> {
    let mut trust = TrustStore::default();
    for path in &endpoints.trust {
        for pem in pem_files(path)? {
            trust.add_pem_certificate(pem);
        }
    }
    let tls = TlsContext::builder().with_trust_store(trust).build();
    let tls = tls.map_err(|source| AccessError::Tls { source: source.into() })?;
    let proxy = endpoints.proxy.as_deref().map_or_else(|| Ok(ProxyConfig::disabled()), ProxyConfig::all);
    let proxy = proxy.map_err(|source| AccessError::Proxy { source: source.into() })?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone())
            .build()
    }))
}

/// The contents of `path`, or of every file in it when it is a folder.
fn pem_files(path: &Path) -> Result<Vec<Vec<u8>>, AccessError> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|source| AccessError::Trust { path: path.into(), source });
    if !path.is_dir() {
        return Ok(vec![read(path)?]);
    }
    let entries =
        std::fs::read_dir(path).map_err(|source| AccessError::Trust { path: path.into(), source })?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn credentials(source: &CredentialSource) -> SharedCredentialsProvider {
    match source {
        CredentialSource::Keys { access_key_id, secret_access_key, session_token, origin } => {
            let token = session_token.clone();
            SharedCredentialsProvider::new(Credentials::new(
                access_key_id,
                secret_access_key,
                token,
                None,
                origin,
            ))
        }
        CredentialSource::File(path) => {
            SharedCredentialsProvider::new(CredentialsFile { path: path.clone() })
        }
    }
}

/// How long credentials of a file are used before it is read again.
const REREAD_AFTER: Duration = Duration::from_secs(30 * 60);

/// A shared credentials file that somebody else keeps fresh.
#[derive(Debug)]
struct CredentialsFile {
    path: PathBuf,
}

impl ProvideCredentials for CredentialsFile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.read())
    }
}

impl CredentialsFile {
    fn read(&self) -> Result<Credentials, CredentialsError> {
        let path = self.path.display();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| CredentialsError::provider_error(format!("cannot read {path}: {error}")))?;
        let value = |key| default_profile(&text, key);
        let (Some(id), Some(secret)) = (value("aws_access_key_id"), value("aws_secret_access_key")) else {
            return Err(CredentialsError::invalid_configuration(format!(
                "{path}: the profile [default] must have aws_access_key_id and aws_secret_access_key"
            )));
        };
        let token = value("aws_session_token").map(str::to_owned);
        Ok(Credentials::new(id, secret, token, Some(SystemTime::now() + REREAD_AFTER), "credentials file"))
    }
}

/// The value of `key` in the section `[default]`.
fn default_profile<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == "default";
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim()).filter(|value| !value.is_empty());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn access(region: &str, endpoints: Endpoints) -> Result<Access, AccessError> {
        let settings = Settings { endpoints, ..Settings::defaults(&Environment::default()) };
        Access::new(&settings, Region::new(region).unwrap(), &CredentialSource::File("/none".into()))
    }

    #[test]
    fn endpoints_follow_region_and_mode() {
        let plain = Endpoints::default();
        let cases = [
            ("us-east-1", plain.clone(), "https://codedeploy-commands.us-east-1.amazonaws.com"),
            ("cn-north-1", plain.clone(), "https://codedeploy-commands.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", plain.clone(), "https://codedeploy-commands.eusc-de-east-1.amazonaws.eu"),
            (
                "us-gov-west-1",
                Endpoints { use_fips: true, secure: true, ..plain.clone() },
                "https://codedeploy-commands-secure-fips.us-gov-west-1.amazonaws.com",
            ),
        ];
        for (region, endpoints, expected) in cases {
            assert_eq!(access(region, endpoints).unwrap().command_endpoint(), expected);
        }
        assert_eq!(
            access("eusc-de-east-1", plain.clone()).unwrap().s3_endpoint().unwrap(),
            "https://s3.eusc-de-east-1.amazonaws.eu"
        );
        assert_eq!(access("us-east-1", plain.clone()).unwrap().s3_endpoint(), None);
        assert!(matches!(
            access("eu-west-1", Endpoints { use_fips: true, ..plain }),
            Err(AccessError::NoFips { .. })
        ));
    }

    #[test]
    fn the_default_profile_of_a_credentials_file_is_read() {
        let text =
            "[other]\naws_access_key_id = no\n[default]\naws_access_key_id = yes\naws_session_token=\n";
        assert_eq!(default_profile(text, "aws_access_key_id"), Some("yes"));
        assert_eq!(default_profile(text, "aws_session_token"), None);
        assert_eq!(default_profile(text, "aws_secret_access_key"), None);
    }
}
