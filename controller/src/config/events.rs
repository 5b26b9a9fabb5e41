//! Receivers of events, and objects whose new versions are deployed.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The receivers of events, and the watched objects.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// They receive every change of state, in EventBridge's format.
    pub webhooks: Vec<Receiver>,
    /// They receive the events that the triggers of deployment groups ask for, by the ARN of the
    /// trigger's topic.
    pub topics: BTreeMap<String, Receiver>,
    /// New objects that are deployed.
    pub watches: Vec<Watch>,
    /// The token that senders of bucket notifications must present.
    pub token: Option<Secret>,
}

/// A receiver of messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receiver {
    pub url: String,
    /// The value of the header with this name.
    pub authorization: Option<Secret>,
}

/// Objects of a bucket whose new versions are deployed to a group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    pub bucket: String,
    /// The prefix of the keys; a whole key watches a single object.
    #[serde(default)]
    pub key_prefix: String,
    pub application: String,
    pub deployment_group: String,
}

/// A text that never appears in logs.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The smallest length of a token that others cannot guess.
pub(super) const MIN_TOKEN: usize = 20;

#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    // The URL may contain credentials, so it is not shown.
    #[error("{0}.url is no URL such as https://hooks.example.com/codedeploy")]
    Url(String),
    #[error(
        "events.topics has {0:?}: expected the ARN of a topic, such as arn:aws:sns:us-east-1:123456789012:ops"
    )]
    Topic(String),
    #[error(
        "events.token has fewer than {MIN_TOKEN} characters: make one with `openssl rand -hex 20`"
    )]
    Token,
}

impl Events {
    /// The mistakes in these settings.
    pub(crate) fn mistakes(&self) -> Vec<EventsError> {
        let mut mistakes = Vec::new();
        let webhooks = self
            .webhooks
            .iter()
            .zip(0..)
            .map(|(receiver, n)| (format!("events.webhooks[{n}]"), receiver));
        let topics = self
            .topics
            .iter()
            .map(|(arn, receiver)| (format!("events.topics[{arn:?}]"), receiver));
        for (key, receiver) in webhooks.chain(topics) {
            let uri = receiver.url.parse::<axum::http::Uri>().ok();
            let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
            if !matches!(scheme, Some("http" | "https")) {
                mistakes.push(EventsError::Url(key));
            }
        }
        let wrong = self
            .topics
            .keys()
            .filter(|arn| !arn.starts_with("arn:") || !arn.contains(":sns:"));
        mistakes.extend(wrong.map(|arn| EventsError::Topic(arn.clone())));
        if self
            .token
            .as_ref()
            .is_some_and(|Secret(token)| token.len() < MIN_TOKEN)
        {
            mistakes.push(EventsError::Token);
        }
        mistakes
    }

    /// Whether they contain something that is not for everyone to read.
    pub(crate) fn has_secrets(&self) -> bool {
        self.token.is_some()
            || self
                .receivers()
                .any(|receiver| receiver.authorization.is_some())
    }

    pub(crate) fn receivers(&self) -> impl Iterator<Item = &Receiver> {
        self.webhooks.iter().chain(self.topics.values())
    }
}
