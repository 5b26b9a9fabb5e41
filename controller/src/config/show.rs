//! The effective settings, as `codedeploy-controller config` shows them: every setting with its
//! origin.

use std::path::Path;
use std::time::Duration;

use axum::http::Uri;
use serde_json::{Value, json};

use super::{Arguments, ConfigError, DEFAULT_DATA_DIR, Settings, Tls, text};

/// One setting.
#[derive(Debug, serde::Serialize)]
pub struct Line {
    pub key: String,
    pub value: Value,
    /// The configuration file, `default`, `not set`, or another origin.
    pub origin: String,
}

const HIDDEN: &str = "(hidden)";

/// Reads the settings as [`Settings::load`] does. Secrets are hidden.
pub fn show(arguments: Arguments) -> Result<Vec<Line>, ConfigError> {
    let path = arguments.config_file.clone();
    let said = path
        .as_deref()
        .map(text::read)
        .transpose()?
        .map(|read| read.value)
        .unwrap_or_default();
    let settings = Settings::load(arguments)?;
    let mut lines = Vec::new();
    for (key, value) in plain(&settings) {
        let is_said = key
            .split('.')
            .try_fold(&said, |value, part| value.get(part))
            .is_some();
        let origin = match key {
            "data_dir" if settings.data_dir != Path::new(DEFAULT_DATA_DIR) => {
                "command line or environment".into()
            }
            _ => origin(path.as_deref().filter(|_| is_said), &value),
        };
        lines.push(Line {
            key: key.to_owned(),
            value,
            origin,
        });
    }
    for key in [
        "load_balancers",
        "alarms",
        "events",
        "identity_providers",
        "traces",
        "metrics",
        "console",
    ] {
        let value = said.get(key).map(|value| json!(value)).unwrap_or_default();
        let origin = origin(path.as_deref().filter(|_| !value.is_null()), &value);
        flatten(key, value, &origin, &mut lines);
    }
    Ok(lines)
}

fn origin(file: Option<&Path>, value: &Value) -> String {
    match file {
        Some(path) => path.display().to_string(),
        None if value.is_null() => "not set".into(),
        None => "default".into(),
    }
}

/// The settings that are not maps of names.
fn plain(settings: &Settings) -> Vec<(&'static str, Value)> {
    let Settings {
        data_dir,
        logging,
        listen,
        tls,
        endpoint,
        s3,
        partition,
        timers,
        quotas,
        retention,
        script_logs,
        ..
    } = settings;
    let seconds = |time: Duration| json!(time.as_secs_f64());
    let days = |time: Option<Duration>| json!(time.map(|time| time.as_secs_f64() / 86_400.0));
    let (certificate, key, names) = match tls {
        Tls::Off => (None, None, None),
        Tls::Given { certificate, key } => (Some(certificate), Some(key), None),
        Tls::SelfSigned { names } => (None, None, Some(names)),
    };
    vec![
        ("data_dir", json!(data_dir)),
        ("log_level", json!(logging.level)),
        ("log_format", json!(logging.format)),
        ("listen", json!(listen)),
        (
            "endpoint",
            json!(endpoint.as_ref().map(super::Endpoint::url)),
        ),
        ("region", json!(partition.region)),
        ("account_id", json!(partition.account_id)),
        ("tls.certificate", json!(certificate)),
        ("tls.key", json!(key)),
        ("tls.self_signed", json!(names.is_some())),
        ("tls.names", json!(names)),
        ("ca_bundle", json!(settings.ca_bundle)),
        ("s3.folder", json!(s3.as_ref().map(|s3| &s3.folder))),
        ("s3.buckets", json!(s3.as_ref().map(|s3| &s3.buckets))),
        ("timers.poll", seconds(timers.poll)),
        ("timers.request", seconds(timers.request)),
        ("timers.lease", seconds(timers.lease)),
        ("timers.pick_up", seconds(timers.pick_up)),
        ("timers.run", seconds(timers.run)),
        ("timers.deployment", seconds(timers.deployment)),
        ("timers.blue_green", seconds(timers.blue_green)),
        ("timers.traffic", seconds(timers.traffic)),
        ("timers.alarms", seconds(timers.alarms)),
        ("audit.keep_days", days(retention.audit)),
        ("deployments.keep_days", days(retention.deployments.age)),
        (
            "deployments.keep_per_group",
            json!(retention.deployments.per_group),
        ),
        ("script_logs.keep", json!(script_logs.keep)),
        ("script_logs.max_bytes", json!(script_logs.max_bytes)),
        (
            "script_logs.max_bytes_per_deployment",
            json!(script_logs.max_bytes_per_deployment),
        ),
        ("script_logs.keep_days", days(retention.script_logs)),
        ("quotas.applications", json!(quotas.applications)),
        (
            "quotas.deployment_groups_per_application",
            json!(quotas.deployment_groups_per_application),
        ),
        (
            "quotas.deployment_configs",
            json!(quotas.deployment_configs),
        ),
        (
            "quotas.active_deployments",
            json!(quotas.active_deployments),
        ),
        (
            "quotas.targets_per_deployment",
            json!(quotas.targets_per_deployment),
        ),
    ]
}

/// Adds a line for every value inside; none of these values is a secret.
fn flatten(key: &str, value: Value, origin: &str, lines: &mut Vec<Line>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(&format!("{key}.{name}"), value, origin, lines);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.into_iter().enumerate() {
                flatten(&format!("{key}.{index}"), value, origin, lines);
            }
        }
        value => {
            let name = key.rsplit('.').next().unwrap_or_default();
            let value = match (name, value.as_str()) {
                ("token" | "authorization", Some(_)) => HIDDEN.into(),
                (_, Some(_)) if key.starts_with("traces.headers.") => HIDDEN.into(),
                ("url" | "endpoint", Some(url)) => without_secrets(url).into(),
                _ => value,
            };
            lines.push(Line {
                key: key.to_owned(),
                value,
                origin: origin.to_owned(),
            });
        }
    }
}

/// A URL up to its host: the user, path and query of a webhook may be enough to call it.
fn without_secrets(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else {
        return HIDDEN.into();
    };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return HIDDEN.into();
    };
    let port = uri
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let user = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    let rest = if user || uri.query().is_some() || uri.path().len() > 1 {
        "/(hidden)"
    } else {
        ""
    };
    format!("{scheme}://{host}{port}{rest}")
}
