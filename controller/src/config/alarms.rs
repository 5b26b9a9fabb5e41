//! The alarms that deployment groups may name, and the sources of their states.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::endpoint::is_url;

/// The sources of alarm states, by the names that deployment groups use.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Alarms {
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    by_name: BTreeMap<String, Source>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    Prometheus(Prometheus),
    Webhook(Webhook),
}

/// A server that answers instant queries as Prometheus does.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prometheus {
    /// Without the path of the query.
    pub(crate) url: String,
    /// Active while its result has any element, like that of an alerting rule, or is a scalar other
    /// than zero. Default: the alert with the alarm's name.
    pub(crate) query: Option<String>,
}

/// A server that responds with `{"state": "OK"}`, `"ALARM"` or `"INSUFFICIENT_DATA"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    pub(crate) url: String,
}

impl Alarms {
    /// The names of alarms that have a source.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The source of an alarm's state.
    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.by_name.get(name)
    }

    /// The mistakes in these settings, one sentence each.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let wrong = |(name, source): (&String, &Source)| {
            let (Source::Prometheus(Prometheus { url, .. }) | Source::Webhook(Webhook { url })) =
                source;
            (!is_url(url)).then(|| {
                format!(
                    "alarms.{name} has the url {url:?}, which is not a URL such as http://prometheus:9090"
                )
            })
        };
        self.by_name.iter().filter_map(wrong).collect()
    }
}
