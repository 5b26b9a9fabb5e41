//! Notifications of buckets: the new objects that each tells of.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::revision::{Bundle, Revision, S3Object};

/// A new version of an object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub bucket: String,
    pub key: String,
    pub etag: Option<String>,
    pub version: Option<String>,
    /// Hexadecimal digits that order the notifications of one object.
    pub sequencer: Option<String>,
}

/// The contents of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketNotification {
    Created(Vec<Created>),
    /// A topic asks for confirmation: somebody must open this URL.
    Confirm(String),
}

/// Reads a notification of S3: sent directly, through EventBridge, or through an SNS topic.
pub fn read(body: &[u8]) -> Option<BucketNotification> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let body = match body["Type"].as_str() {
        Some("SubscriptionConfirmation") => {
            return Some(BucketNotification::Confirm(
                body["SubscribeURL"].as_str()?.to_owned(),
            ));
        }
        Some("Notification") => serde_json::from_str(body["Message"].as_str()?).ok()?,
        _ => body,
    };
    if body["source"] == "aws.s3" {
        let detail = &body["detail"];
        let created = Created {
            bucket: text(&detail["bucket"]["name"])?,
            key: text(&detail["object"]["key"])?,
            etag: text(&detail["object"]["etag"]),
            version: text(&detail["object"]["version-id"]),
            sequencer: text(&detail["object"]["sequencer"]),
        };
        let new = body["detail-type"] == "Object Created";
        return Some(BucketNotification::Created(
            new.then_some(created).into_iter().collect(),
        ));
    }
    if body["Event"] == "s3:TestEvent" {
        return Some(BucketNotification::Created(Vec::new()));
    }
    let new = |record: &&Value| {
        let name = record["eventName"].as_str().unwrap_or_default();
        name.trim_start_matches("s3:").starts_with("ObjectCreated:")
    };
    let created = body["Records"]
        .as_array()?
        .iter()
        .filter(new)
        .map(|record| {
            let object = &record["s3"]["object"];
            Some(Created {
                bucket: text(&record["s3"]["bucket"]["name"])?,
                key: form_decode(object["key"].as_str()?)?,
                etag: text(&object["eTag"]),
                version: text(&object["versionId"]),
                sequencer: text(&object["sequencer"]),
            })
        });
    created
        .collect::<Option<Vec<_>>>()
        .map(BucketNotification::Created)
}

fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .map(|text| text.trim_matches('"'))
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Decodes a key of a notification that S3 sends itself: it is encoded as a form is.
fn form_decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .ok()
        .map(Cow::into_owned)
}

/// Returns the revision of an object, with its format taken from its name.
pub(super) fn revision(created: &Created) -> Option<Revision> {
    let kinds = [
        (".zip", Bundle::Zip),
        (".tar", Bundle::Tar),
        (".tgz", Bundle::Tgz),
        (".tar.gz", Bundle::Tgz),
    ];
    let (_, bundle) = kinds
        .into_iter()
        .find(|(ending, _)| created.key.ends_with(ending))?;
    Some(Revision::S3(S3Object {
        bucket: created.bucket.clone(),
        key: created.key.clone(),
        bundle,
        version: created.version.clone(),
        etag: created.etag.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn created(body: &Value) -> Option<Vec<Created>> {
        match read(body.to_string().as_bytes())? {
            BucketNotification::Created(created) => Some(created),
            BucketNotification::Confirm(_) => None,
        }
    }

    #[test]
    fn notifications_of_every_form_name_the_same_object() {
        let object = Created {
            bucket: "revisions".into(),
            key: "shop/my app.zip".into(),
            etag: Some("d41d8c".into()),
            version: Some("3L4k".into()),
            sequencer: Some("0055AED6DCD90281E5".into()),
        };
        let own = json!({"Records": [
            {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {
                "bucket": {"name": "revisions"},
                "object": {"key": "shop/my+app.zip", "eTag": "d41d8c", "versionId": "3L4k",
                    "sequencer": "0055AED6DCD90281E5"}}},
            {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete", "s3": {
                "bucket": {"name": "revisions"}, "object": {"key": "x"}}},
        ]});
        let event = json!({"source": "aws.s3", "detail-type": "Object Created", "detail": {
            "bucket": {"name": "revisions"},
            "object": {"key": "shop/my app.zip", "etag": "d41d8c", "version-id": "3L4k",
                "sequencer": "0055AED6DCD90281E5"}}});
        for message in [own, event] {
            let wrapped = json!({"Type": "Notification", "Message": message.to_string()});
            assert_eq!(created(&message), Some(vec![object.clone()]));
            assert_eq!(created(&wrapped), Some(vec![object.clone()]));
        }
        let Some(Revision::S3(location)) = revision(&object) else {
            panic!("{object:?} is no revision")
        };
        assert_eq!(
            (location.bundle, location.version),
            (Bundle::Zip, object.version)
        );
    }

    #[test]
    fn what_is_no_notification_is_not_taken_for_one() {
        for body in [
            json!({}),
            json!([]),
            json!({"Records": [{"eventName": "ObjectCreated:Put"}]}),
            json!("x"),
            json!({"Type": "Notification", "Message": "hello"}),
            json!({"source": "aws.s3"}),
        ] {
            assert_eq!(created(&body), None, "{body}");
        }
        assert_eq!(read(&[0xff; 1000]), None);
        assert_eq!(created(&json!({"Event": "s3:TestEvent"})), Some(Vec::new()));
        let confirm = json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns/x"});
        assert_eq!(
            read(confirm.to_string().as_bytes()),
            Some(BucketNotification::Confirm("https://sns/x".into()))
        );
    }
}
