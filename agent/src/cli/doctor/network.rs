//! Checks the path between this host and the services: names, proxy, TLS, clocks, credentials, and
//! whether the command service accepts this host.

mod clock;
mod service;
mod signer;
mod trouble;

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_async::time::SystemTimeSource;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::timeout::TimeoutConfig;
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::aws::Access;
use crate::cli::doctor::{Check, Verdict};
use crate::command::ServiceError;
use crate::config::Settings;
use crate::identity::Identity;
use clock::Clocks;
use codedeploy_api::chain::Chain;
use trouble::Unreached;

/// The timeout of one check.
const TIME: Duration = Duration::from_secs(8);
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The names of these checks, in order.
pub(super) const NAMES: [&str; 8] = [
    "credentials",
    "proxy",
    "dns",
    "tls",
    "clock",
    "service",
    "signer",
    "s3",
];

/// The checks that need the network; `None` stands for an earlier problem.
pub(super) async fn checks(
    settings: &Settings,
    identity: Option<&Identity>,
    access: Option<&Access>,
) -> Vec<Check> {
    let (Some(identity), Some(access)) = (identity, access) else {
        return NAMES
            .map(|name| Check::skipped(name, "the identity"))
            .into();
    };
    let endpoint = access.command_endpoint();
    let proxy = settings.endpoints.proxy.as_deref();
    let (credentials, mut proxy_check, dns, (answered, service::Asked { answer, signers }), s3) = tokio::join!(
        credentials(access),
        through_proxy(proxy),
        resolve(&endpoint, access, proxy),
        command_service(access, identity, &endpoint),
        reach_s3(access),
    );
    if proxy_check.verdict == Verdict::Ok
        && let Some(refused) = answered
            .as_ref()
            .err()
            .filter(|unreached| unreached.is_for_the_proxy())
    {
        proxy_check = Check::problem(
            "proxy",
            format!(
                "the proxy does not let this host through to {endpoint}: {}",
                refused.words()
            ),
            "correct the user and password in proxy_uri, or allow this address in the proxy",
        );
    }
    // The first of these that fails is the cause of all later failures.
    let cause = [&proxy_check, &dns]
        .into_iter()
        .find(|check| check.verdict == Verdict::Problem);
    let behind: Vec<Check> = if let Some(cause) = cause {
        ["tls", "clock", "service", "signer", "s3"]
            .map(|name| Check::skipped(name, cause.name))
            .into()
    } else {
        let seen = match &answered {
            Ok(clocks) => [
                clock::check(*clocks, service::signature(answer.as_ref())),
                service::check(&endpoint, answer.as_ref(), *clocks),
                signer::check(&settings.signer, signers.as_deref()),
            ],
            Err(_) => ["clock", "service", "signer"].map(|name| Check::skipped(name, "tls")),
        };
        [tls(&endpoint, &answered)]
            .into_iter()
            .chain(seen)
            .chain([s3])
            .collect()
    };
    [credentials, proxy_check, dns]
        .into_iter()
        .chain(behind)
        .collect()
}

/// Sends one unsigned GET; any response is good, and shows the server's clock.
async fn reach(access: &Access, endpoint: &str) -> Result<Clocks, Unreached> {
    let operation: Operation<(), Option<String>, ServiceError> = Operation::builder()
        .service_name("Doctor")
        .operation_name("Reach")
        .behavior_version(BehaviorVersion::latest())
        .http_client(access.http.clone())
        .endpoint_url(endpoint)
        .no_retry()
        .no_auth()
        .sleep_impl(TokioSleep::new())
        .time_source(SystemTimeSource::new())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIME)
                .read_timeout(TIME)
                .build(),
        )
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .serializer(|()| -> Result<HttpRequest, BoxError> {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_uri("/")?;
            Ok(request)
        })
        .deserializer(
            |answer: &HttpResponse| -> Result<Option<String>, OrchestratorError<ServiceError>> {
                Ok(answer.headers().get("date").map(str::to_owned))
            },
        )
        .build();
    match timeout(TIME, operation.invoke(())).await {
        Ok(Ok(date)) => {
            let theirs = date.and_then(|date| {
                OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc2822).ok()
            });
            Ok(Clocks {
                theirs,
                ours: OffsetDateTime::now_utc(),
            })
        }
        Ok(Err(error)) => Err(Unreached::new(Chain(&error).to_string())),
        Err(_) => Err(Unreached::new("timed out".into())),
    }
}

/// Connects to the service and, if that works, sends it a signed request.
async fn command_service(
    access: &Access,
    identity: &Identity,
    endpoint: &str,
) -> (Result<Clocks, Unreached>, service::Asked) {
    let answered = reach(access, endpoint).await;
    let asked = if answered.is_ok() {
        service::ask(access, identity).await
    } else {
        service::Asked::default()
    };
    (answered, asked)
}

fn tls(endpoint: &str, answered: &Result<Clocks, Unreached>) -> Check {
    const NAME: &str = "tls";
    match answered {
        Err(error) => Check::problem(
            NAME,
            format!("{endpoint} cannot be reached: {}", error.words()),
            error.advice("deploy_control_endpoint"),
        ),
        Ok(_) if endpoint.starts_with("https://") => Check::ok(
            NAME,
            format!("{endpoint} can be reached and its certificate is trusted"),
        ),
        Ok(_) if is_loopback(endpoint) => {
            Check::ok(NAME, format!("{endpoint} is reached, without TLS"))
        }
        Ok(_) => Check::warning(
            NAME,
            format!("{endpoint} does not use TLS: anyone on the network path can read deployments"),
            "use https in deploy_control_endpoint",
        ),
    }
}

async fn credentials(access: &Access) -> Check {
    const NAME: &str = "credentials";
    let advice = "put valid keys into the source that the identity names";
    match timeout(TIME, access.credentials.provide_credentials()).await {
        Ok(Ok(found)) => {
            let expired = found
                .expiry()
                .is_some_and(|expiry| expiry <= std::time::SystemTime::now());
            let text = format!("access key {}", found.access_key_id());
            if expired {
                Check::problem(
                    NAME,
                    format!("{text} has expired"),
                    "fix the program that renews the credentials",
                )
            } else {
                Check::ok(NAME, text)
            }
        }
        Ok(Err(error)) => Check::problem(NAME, Chain(&error).to_string(), advice),
        Err(_) => Check::problem(NAME, format!("none within {} s", TIME.as_secs()), advice),
    }
}

async fn through_proxy(proxy: Option<&str>) -> Check {
    const NAME: &str = "proxy";
    let Some(proxy) = proxy else {
        return Check::ok(NAME, "none is configured");
    };
    let Some(Server { host, port }) = Server::of(proxy) else {
        return Check::problem(
            NAME,
            "proxy_uri names no host",
            "write http://[user:password@]host:port",
        );
    };
    let advice = "correct proxy_uri, or start the proxy";
    match timeout(
        CONNECT_TIME,
        tokio::net::TcpStream::connect((host.as_str(), port)),
    )
    .await
    {
        Ok(Ok(_)) => Check::ok(NAME, format!("{host}:{port} accepts connections")),
        Ok(Err(error)) => Check::problem(
            NAME,
            format!("{host}:{port} cannot be reached: {error}"),
            advice,
        ),
        Err(_) => {
            let text = format!(
                "{host}:{port} does not answer within {} s",
                CONNECT_TIME.as_secs()
            );
            Check::problem(NAME, text, advice)
        }
    }
}

async fn resolve(endpoint: &str, access: &Access, proxy: Option<&str>) -> Check {
    const NAME: &str = "dns";
    if proxy.is_some() {
        return Check::ok(NAME, "the proxy looks names up");
    }
    let Some(Server { host, port }) = Server::of(endpoint) else {
        return Check::problem(
            NAME,
            format!("{endpoint} names no host"),
            "correct deploy_control_endpoint",
        );
    };
    let advice = match &access.endpoints.deploy_control {
        Some(_) => "correct deploy_control_endpoint, or this host's name server (/etc/resolv.conf)"
            .to_owned(),
        None => format!(
            "correct the region {:?}, or this host's name server (/etc/resolv.conf)",
            access.region.as_str()
        ),
    };
    match timeout(CONNECT_TIME, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<String> =
                addresses.map(|address| address.ip().to_string()).collect();
            Check::ok(NAME, format!("{host} is {}", addresses.join(", ")))
        }
        Ok(Err(error)) => Check::problem(NAME, format!("{host} has no address: {error}"), advice),
        Err(_) => {
            let text = format!("no answer for {host} within {} s", CONNECT_TIME.as_secs());
            Check::problem(NAME, text, advice)
        }
    }
}

async fn reach_s3(access: &Access) -> Check {
    let endpoint = access.s3_endpoint();
    match reach(access, &endpoint).await {
        Ok(_) => Check::ok(
            "s3",
            format!("{endpoint} can be reached; access to a bucket is checked by its deployments"),
        ),
        Err(error) => Check::problem(
            "s3",
            format!("{endpoint} cannot be reached: {}", error.words()),
            error.advice("s3_endpoint_override"),
        ),
    }
}

/// The server of a URL, without user and password.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let server = authority
            .rsplit_once('@')
            .map_or(authority, |(_, server)| server);
        let default = if scheme == "https" { 443 } else { 80 };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (server, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

fn is_loopback(url: &str) -> bool {
    Server::of(url).is_some_and(|server| {
        server.host == "localhost"
            || server
                .host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_in_every_form_of_url() {
        let server = |host: &str, port| {
            Some(Server {
                host: host.into(),
                port,
            })
        };
        assert_eq!(Server::of("https://a.b/x:1"), server("a.b", 443));
        assert_eq!(
            Server::of("http://user:secret@proxy:3128"),
            server("proxy", 3128)
        );
        assert_eq!(Server::of("http://[::1]:80/"), server("::1", 80));
        assert_eq!(Server::of("http://[::1]"), server("::1", 80));
        for none in ["", "http://", "a.b", "http://a:b"] {
            assert_eq!(Server::of(none), None);
        }
        assert!(is_loopback("http://127.0.0.2:8080") && !is_loopback("http://127.evil.example"));
    }
}
