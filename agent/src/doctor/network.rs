//! What lies between this host and the services: names, proxy, TLS, clocks, credentials, and whether the command
//! service accepts this host.

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
use codedeploy_api::command::GetDeploymentSpecificationInput;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::Check;
use crate::aws::Access;
use crate::command::{CallError, CommandService, ServiceError};
use crate::config::Settings;
use crate::errors::Chain;
use crate::identity::Identity;
use trouble::Unreached;

/// How long one look may take.
const TIME: Duration = Duration::from_secs(8);
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Services refuse signatures when clocks are further apart (AWS: 5 minutes at the strictest).
const TOO_SKEWED: f64 = 300.0;
/// Beyond this, time synchronisation does not work.
const SKEWED: f64 = 30.0;

/// A deployment that no service has: asking for its specification changes nothing, whoever answers.
const NO_DEPLOYMENT: &str = "codedeploy-agent-doctor";

/// The checks that need the network; `None` stands for what is wrong already.
pub(super) async fn checks(
    settings: &Settings,
    identity: Option<&Identity>,
    access: Option<&Access>,
) -> Vec<Check> {
    let (Some(identity), Some(access)) = (identity, access) else {
        let names = ["credentials", "proxy", "dns", "tls", "clock", "service", "s3"];
        return names.map(|name| Check::skipped(name, "the identity")).into();
    };
    let endpoint = access.command_endpoint();
    let proxy = settings.endpoints.proxy.as_deref();
    let (credentials, proxy_check, dns, (answered, service), s3) = tokio::join!(
        credentials(access),
        through_proxy(proxy),
        resolve(&endpoint, proxy),
        command_service(access, identity, &endpoint),
        s3(access),
    );
    let clock = match &answered {
        Ok(answered) => clock(answered.date, answered.at),
        Err(_) => Check::skipped("clock", "tls"),
    };
    vec![credentials, proxy_check, dns, tls(&endpoint, &answered), clock, service, s3]
}

/// What any HTTP server says of itself.
#[derive(Debug)]
struct Answered {
    /// Its clock.
    date: Option<OffsetDateTime>,
    /// Ours at that moment.
    at: OffsetDateTime,
}

/// One unsigned GET; every answer is a good one.
async fn reach(access: &Access, endpoint: &str) -> Result<Answered, Unreached> {
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
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME).read_timeout(TIME).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .serializer(|()| -> Result<HttpRequest, BoxError> {
            let mut request = HttpRequest::new(SdkBody::empty());
            request.set_uri("/")?;
            Ok(request)
        })
        .deserializer(|answer: &HttpResponse| -> Result<Option<String>, OrchestratorError<ServiceError>> {
            Ok(answer.headers().get("date").map(str::to_owned))
        })
        .build();
    match timeout(TIME, operation.invoke(())).await {
        Ok(Ok(date)) => {
            let date = date.and_then(|date| {
                OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc2822).ok()
            });
            Ok(Answered { date, at: OffsetDateTime::now_utc() })
        }
        Ok(Err(error)) => Err(Unreached::new(Chain(&error).to_string())),
        Err(_) => Err(Unreached::new("timed out".into())),
    }
}

/// Whether the service is reached and, if so, what it thinks of a signed request.
async fn command_service(
    access: &Access,
    identity: &Identity,
    endpoint: &str,
) -> (Result<Answered, Unreached>, Check) {
    let answered = reach(access, endpoint).await;
    if answered.is_err() {
        return (answered, Check::skipped("service", "tls"));
    }
    let service = CommandService::new(access, identity.host_identifier.clone());
    // Never PollHostCommand: it would take a command that the agent is waiting for.
    let input = GetDeploymentSpecificationInput {
        deployment_execution_id: NO_DEPLOYMENT.into(),
        host_identifier: identity.host_identifier.clone(),
    };
    let check = match timeout(TIME, service.call(&input)).await {
        Ok(Ok(_)) => Check::ok("service", format!("{endpoint} accepts this host")),
        Ok(Err(error)) => refusal(endpoint, &error),
        Err(_) => Check::problem(
            "service",
            format!("{endpoint} has not answered a signed request within {} s", TIME.as_secs()),
            "try again; if it stays, the service or a proxy on the way is in trouble",
        ),
    };
    (answered, check)
}

/// What an error tells of the host that asked for a deployment which does not exist.
fn refusal(endpoint: &str, error: &CallError) -> Check {
    const NAME: &str = "service";
    let (status, kind, message) = match error {
        CallError::Service { source, .. } => (source.status, source.kind.as_str(), source.message.as_str()),
        CallError::Transport { reason, .. } => {
            let text = format!("no signed request reached {endpoint}: {reason}");
            return Check::problem(NAME, text, "mend what is said of credentials and tls");
        }
        CallError::Answer { .. } => {
            let text = format!("{endpoint} answers, but not as a command service does");
            return Check::problem(NAME, text, "correct deploy_control_endpoint");
        }
    };
    let said = format!("{endpoint} answers {kind} (HTTP {status}): {message}");
    match kind.trim_end_matches("Exception") {
        // The service got as far as looking for the deployment.
        "Client"
        | "InvalidInput"
        | "Validation"
        | "DeploymentDoesNotExist"
        | "InvalidDeploymentId"
        | "ResourceNotFound" => Check::ok(NAME, format!("{endpoint} accepts this host's signature")),
        "InvalidSignature" | "SignatureDoesNotMatch" | "IncompleteSignature" => Check::problem(
            NAME,
            said,
            "the secret access key is wrong, or the clock is, or a proxy changes requests; put the key that belongs \
             to this access key id in place",
        ),
        "UnrecognizedClient"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken" => Check::problem(
            NAME,
            said,
            "the access key is not known there; put this host's current key in place",
        ),
        "ExpiredToken" | "RequestExpired" => Check::problem(
            NAME,
            said,
            "the credentials have expired; mend what refreshes them, and check the clock",
        ),
        "AccessDenied" | "NotAuthorized" | "Unauthorized" => Check::problem(
            NAME,
            said,
            "register this host with the service, and allow its identity to call it",
        ),
        kind if kind.contains("Throttl") || kind == "TooManyRequests" || status == 429 => {
            Check::warning(NAME, said, "the service is called too often; try again later")
        }
        _ if status >= 500 => Check::warning(NAME, said, "the service is in trouble; try again later"),
        _ => Check::problem(
            NAME,
            said,
            "this is not what a command service says; correct deploy_control_endpoint or the region",
        ),
    }
}

fn tls(endpoint: &str, answered: &Result<Answered, Unreached>) -> Check {
    const NAME: &str = "tls";
    match answered {
        Err(error) => Check::problem(
            NAME,
            format!("{endpoint} is not reached: {}", error.words()),
            error.advice("deploy_control_endpoint"),
        ),
        Ok(_) if endpoint.starts_with("https://") => {
            Check::ok(NAME, format!("{endpoint} is reached and its certificate trusted"))
        }
        Ok(_) if is_loopback(endpoint) => Check::ok(NAME, format!("{endpoint} is reached, without TLS")),
        Ok(_) => Check::warning(
            NAME,
            format!("{endpoint} is reached without TLS: everybody on the way can read what is deployed"),
            "use https in deploy_control_endpoint",
        ),
    }
}

fn clock(theirs: Option<OffsetDateTime>, ours: OffsetDateTime) -> Check {
    const NAME: &str = "clock";
    let Some(theirs) = theirs else {
        return Check::warning(
            NAME,
            "the service does not tell its time",
            "compare this host's clock by hand",
        );
    };
    let ahead = (ours - theirs).as_seconds_f64();
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let text = format!("this host is {:.0} s {direction} the service", ahead.abs());
    let advice = "synchronise the clock, with chronyd or systemd-timesyncd";
    match ahead.abs() {
        skew if skew >= TOO_SKEWED => {
            Check::problem(NAME, format!("{text}, which refuses signatures that far off"), advice)
        }
        skew if skew >= SKEWED => Check::warning(NAME, text, advice),
        _ => Check::ok(NAME, "this host and the service agree on the time"),
    }
}

async fn credentials(access: &Access) -> Check {
    const NAME: &str = "credentials";
    let advice = "put valid keys where the identity says that they are";
    match timeout(TIME, access.credentials.provide_credentials()).await {
        Ok(Ok(found)) => {
            let expired = found.expiry().is_some_and(|expiry| expiry <= std::time::SystemTime::now());
            let text = format!("access key {}", found.access_key_id());
            if expired {
                Check::problem(NAME, format!("{text} has expired"), "mend what refreshes the credentials")
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
        return Check::problem(NAME, "proxy_uri names no host", "write http://[user:password@]host:port");
    };
    let advice = "correct proxy_uri, or start the proxy";
    match timeout(CONNECT_TIME, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => Check::ok(NAME, format!("{host}:{port} accepts connections")),
        Ok(Err(error)) => Check::problem(NAME, format!("{host}:{port} is not reached: {error}"), advice),
        Err(_) => {
            let text = format!("{host}:{port} does not answer within {} s", CONNECT_TIME.as_secs());
            Check::problem(NAME, text, advice)
        }
    }
}

async fn resolve(endpoint: &str, proxy: Option<&str>) -> Check {
    const NAME: &str = "dns";
    if proxy.is_some() {
        return Check::ok(NAME, "left to the proxy");
    }
    let Some(Server { host, port }) = Server::of(endpoint) else {
        return Check::problem(NAME, format!("{endpoint} names no host"), "correct deploy_control_endpoint");
    };
    let advice = "check /etc/resolv.conf, the region, and deploy_control_endpoint";
    match timeout(CONNECT_TIME, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            Check::ok(NAME, format!("{host} is {}", addresses.join(", ")))
        }
        Ok(Err(error)) => Check::problem(NAME, format!("{host} has no address: {error}"), advice),
        Err(_) => {
            let text = format!("no answer about {host} within {} s", CONNECT_TIME.as_secs());
            Check::problem(NAME, text, advice)
        }
    }
}

async fn s3(access: &Access) -> Check {
    let regional = || format!("https://s3.{}.{}", access.region, access.region.domain());
    let endpoint = access.s3_endpoint().unwrap_or_else(regional);
    match reach(access, &endpoint).await {
        Ok(_) => Check::ok(
            "s3",
            format!("{endpoint} is reached; whether a bucket may be read, its deployment shows"),
        ),
        Err(error) => Check::problem(
            "s3",
            format!("{endpoint} is not reached: {}", error.words()),
            error.advice("s3_endpoint_override"),
        ),
    }
}

/// Where a URL points; never who asks.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
        let default = if scheme == "https" { 443 } else { 80 };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (server, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

fn is_loopback(url: &str) -> bool {
    Server::of(url).is_some_and(|server| {
        server.host == "localhost"
            || server.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_with_direction() {
        let ours = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let cases = [
            (Some(0), Verdict::Ok, "agree"),
            (Some(29), Verdict::Ok, "agree"),
            (Some(31), Verdict::Warning, "31 s behind"),
            (Some(-90), Verdict::Warning, "90 s ahead of"),
            (Some(-300), Verdict::Problem, "300 s ahead of"),
            (Some(86_400), Verdict::Problem, "86400 s behind"),
            (None, Verdict::Warning, "does not tell"),
        ];
        for (seconds, verdict, text) in cases {
            let theirs = seconds.map(|seconds| ours + time::Duration::seconds(seconds));
            let check = clock(theirs, ours);
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text.contains(text), "{check:?}");
        }
    }

    #[test]
    fn an_answer_about_a_deployment_that_is_none_tells_what_the_service_thinks_of_the_host() {
        let cases = [
            (400, "ClientException", Verdict::Ok, None),
            (400, "DeploymentDoesNotExistException", Verdict::Ok, None),
            (400, "InvalidSignatureException", Verdict::Problem, Some("secret access key is wrong")),
            (403, "SignatureDoesNotMatch", Verdict::Problem, Some("secret access key is wrong")),
            (400, "UnrecognizedClientException", Verdict::Problem, Some("not known there")),
            (400, "ExpiredTokenException", Verdict::Problem, Some("have expired")),
            (400, "AccessDeniedException", Verdict::Problem, Some("register this host")),
            (400, "ThrottlingException", Verdict::Warning, Some("too often")),
            (503, "ServiceUnavailable", Verdict::Warning, Some("in trouble")),
            (404, "an error without a name", Verdict::Problem, Some("deploy_control_endpoint")),
            (400, "UnknownOperationException", Verdict::Problem, Some("deploy_control_endpoint")),
        ];
        for (status, kind, verdict, advice) in cases {
            let source = ServiceError { status, kind: kind.into(), message: "because".into() };
            let check = refusal("https://e", &CallError::Service { operation: "X", source });
            assert_eq!(check.verdict, verdict, "{check:?}");
            match advice {
                Some(expected) => assert!(check.advice.as_ref().unwrap().contains(expected), "{check:?}"),
                None => assert_eq!(check.advice, None),
            }
        }
    }

    #[test]
    fn a_server_is_found_in_every_form_of_url() {
        let server = |host: &str, port| Some(Server { host: host.into(), port });
        assert_eq!(Server::of("https://a.b/x:1"), server("a.b", 443));
        assert_eq!(Server::of("http://user:secret@proxy:3128"), server("proxy", 3128));
        assert_eq!(Server::of("http://[::1]:80/"), server("::1", 80));
        assert_eq!(Server::of("http://[::1]"), server("::1", 80));
        for none in ["", "http://", "a.b", "http://a:b"] {
            assert_eq!(Server::of(none), None);
        }
        assert!(is_loopback("http://127.0.0.2:8080") && !is_loopback("http://127.evil.example"));
    }
}
