//! The common parts of all calls to AWS, or to a compatible service: HTTP and TLS, credentials,
//! endpoints.

mod bounded;
pub(crate) mod bucket;
pub mod credentials;
mod http;
pub(crate) mod json;
pub(crate) mod signing;
mod trust;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;

use self::credentials::Credentials;
pub use self::http::client as http_client;
use crate::config::{Endpoints, Settings, SignerTrust};
use crate::identity::{CredentialSource, Region};

/// Regions with FIPS endpoints of both CodeDeploy and S3 (AWS: "AWS services with FIPS endpoints").
const FIPS_REGIONS: [&str; 6] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "us-gov-east-1",
    "us-gov-west-1",
];

/// The agent's access to services: one HTTP client with one trust store, and one source of
/// credentials.
#[derive(Debug, Clone)]
pub struct Access {
    pub http: SharedHttpClient,
    pub credentials: Credentials,
    pub region: Region,
    pub endpoints: Endpoints,
    pub read_timeout: Duration,
    /// The time to wait for a store that does not respond at all. Nobody watches while a daemon
    /// waits.
    pub outage: Duration,
    /// The accepted signers of specifications.
    pub signer: SignerTrust,
    /// Whether the operator has configured a command that updates the agent.
    pub can_update: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read the trusted certificates in {}", path.display())]
    Trust {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} holds no usable certificate: {what}; expected certificates in PEM form", path.display())]
    Certificate { path: PathBuf, what: String },
    #[error("the trusted certificates cannot be used")]
    Tls {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("proxy_uri cannot be used: {what}; expected http://[user:password@]host:port")]
    Proxy { what: &'static str },
    #[error("use_fips_mode: {region} has no FIPS endpoints; they exist in {}", FIPS_REGIONS.join(", "))]
    NoFips { region: Region },
}

impl Access {
    pub fn new(
        settings: &Settings,
        region: Region,
        source: &CredentialSource,
    ) -> Result<Self, AccessError> {
        let endpoints = settings.endpoints.clone();
        if endpoints.use_fips && !FIPS_REGIONS.contains(&region.as_str()) {
            return Err(AccessError::NoFips { region });
        }
        Ok(Self {
            http: http_client(&endpoints)?,
            credentials: Credentials::new(source.clone()),
            region,
            endpoints,
            read_timeout: settings.http_read_timeout,
            outage: Duration::ZERO,
            signer: settings.signer.clone(),
            can_update: settings.update_command.is_some(),
        })
    }

    /// The command service's endpoint: the configured address, else the region's.
    pub fn command_endpoint(&self) -> String {
        if let Some(endpoint) = &self.endpoints.deploy_control {
            return endpoint.clone();
        }
        let secure = if self.endpoints.secure { "-secure" } else { "" };
        let fips = if self.endpoints.use_fips { "-fips" } else { "" };
        format!(
            "https://codedeploy-commands{secure}{fips}.{}.{}",
            self.region,
            self.region.domain()
        )
    }

    /// The endpoint of CodeDeploy's public API in the region.
    pub(crate) fn codedeploy_endpoint(&self) -> String {
        let fips = if self.endpoints.use_fips { "-fips" } else { "" };
        format!(
            "https://codedeploy{fips}.{}.{}",
            self.region,
            self.region.domain()
        )
    }

    /// The endpoint of S3: the configured address, else the region's.
    pub(crate) fn s3_endpoint(&self) -> String {
        let regional = || bucket::regional(&self.region, self.endpoints.use_fips);
        self.endpoints.s3.clone().unwrap_or_else(regional)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn access(region: &str, endpoints: Endpoints) -> Result<Access, AccessError> {
        let settings = Settings {
            endpoints,
            ..Settings::defaults(&Environment::default())
        };
        Access::new(
            &settings,
            Region::new(region).unwrap(),
            &CredentialSource::File("/none".into()),
        )
    }

    #[test]
    fn endpoints_follow_region_and_mode() {
        let plain = Endpoints::default();
        let cases = [
            (
                "us-east-1",
                plain.clone(),
                "https://codedeploy-commands.us-east-1.amazonaws.com",
            ),
            (
                "cn-north-1",
                plain.clone(),
                "https://codedeploy-commands.cn-north-1.amazonaws.com.cn",
            ),
            (
                "eusc-de-east-1",
                plain.clone(),
                "https://codedeploy-commands.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "us-gov-west-1",
                Endpoints {
                    use_fips: true,
                    secure: true,
                    ..plain.clone()
                },
                "https://codedeploy-commands-secure-fips.us-gov-west-1.amazonaws.com",
            ),
        ];
        for (region, endpoints, expected) in cases {
            assert_eq!(
                access(region, endpoints).unwrap().command_endpoint(),
                expected
            );
        }
        let secure = Endpoints {
            use_fips: true,
            ..plain.clone()
        };
        let sovereign = access("eusc-de-east-1", plain.clone()).unwrap();
        assert_eq!(
            sovereign.s3_endpoint(),
            "https://s3.eusc-de-east-1.amazonaws.eu"
        );
        assert_eq!(
            sovereign.codedeploy_endpoint(),
            "https://codedeploy.eusc-de-east-1.amazonaws.eu"
        );
        assert_eq!(
            access("us-east-1", secure).unwrap().codedeploy_endpoint(),
            "https://codedeploy-fips.us-east-1.amazonaws.com"
        );
        assert!(matches!(
            access(
                "eu-west-1",
                Endpoints {
                    use_fips: true,
                    ..plain
                }
            ),
            Err(AccessError::NoFips { .. })
        ));
    }
}
