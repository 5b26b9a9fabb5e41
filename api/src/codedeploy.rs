//! The public API, `CodeDeploy_20141006`, in AWS JSON 1.1
//! (`X-Amz-Target: CodeDeploy_20141006.<Operation>`) and in RPC v2 CBOR
//! (`/service/CodeDeploy_20141006/operation/<Operation>`).
//!
//! Every member of every shape is optional, as on the wire: null and absent are the same, and
//! unknown members are ignored. The service checks that required members are present, and names a
//! missing one. Enumerations keep unknown texts ([`Other`](ComputePlatform::Other)), so that a
//! service can reject them by name and a client can read values of a newer service.

mod applications;
mod configs;
mod deployments;
mod groups;
mod instances;
mod resources;
mod timestamp;

pub use applications::*;
pub use configs::*;
pub use deployments::*;
pub use groups::*;
pub use instances::*;
pub use resources::*;
pub use timestamp::Timestamp;

/// The name of the service: the prefix of `X-Amz-Target`.
pub const TARGET_PREFIX: &str = "CodeDeploy_20141006";
/// The namespace of the service and its shapes.
pub const NAMESPACE: &str = "com.amazonaws.codedeploy";
/// SigV4 service name.
pub const SIGNING_NAME: &str = "codedeploy";

/// Shapes: structs whose members are all optional.
macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $member:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", remote = "Self")]
        pub struct $name {
            $(
                $(#[$attribute])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $member: Option<$type>,
            )*
        }

        $crate::object::objects! { $name }
    )*};
}

/// Enumerations that keep unknown texts.
macro_rules! enumerations {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($variant,)*
            /// An unknown text.
            Other(String),
        }

        impl $name {
            /// The known texts.
            pub const KNOWN: &'static [&'static str] = &[$($text,)*];

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text),
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.as_str().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

pub(crate) use {enumerations, shapes};

enumerations! {
    /// The kind of target that a deployment deploys to.
    ComputePlatform { Server = "Server", Lambda = "Lambda", Ecs = "ECS", }
}

shapes! {
    /// A key and a value on a resource or an on-premises instance.
    Tag {
        #[serde(rename = "Key")]
        key: String,
        #[serde(rename = "Value")]
        value: String,
    }

    /// The output of an operation that returns nothing: the body is empty.
    Nothing {}

    /// The output of an operation that returns an object without members.
    Empty {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_absent_and_unknown_members_are_the_same() {
        let shape: CreateApplicationInput =
            serde_json::from_str(r#"{"applicationName":null,"newerMember":{"a":1}}"#).unwrap();
        assert_eq!(shape, CreateApplicationInput::default());
        assert_eq!(serde_json::to_string(&shape).unwrap(), "{}");
    }

    #[test]
    fn a_wrong_json_type_is_an_error() {
        assert!(
            serde_json::from_str::<CreateApplicationInput>(r#"{"applicationName":1}"#).is_err()
        );
    }

    #[test]
    fn a_list_of_values_is_no_structure() {
        for (json, wrong) in [
            (
                r#"{"minimumHealthyHosts":{"type":"HOST_COUNT","value":1}}"#,
                false,
            ),
            (r#"{"minimumHealthyHosts":["HOST_COUNT",1]}"#, true),
            (r#"["shop"]"#, true),
        ] {
            assert_eq!(
                serde_json::from_str::<CreateDeploymentConfigInput>(json).is_err(),
                wrong,
                "{json}"
            );
        }
        for json in [
            r#"{"deploymentStyle":["IN_PLACE"]}"#,
            r#"{"tags":[["k","v"]]}"#,
            r#"["shop"]"#,
        ] {
            assert!(
                serde_json::from_str::<CreateDeploymentGroupInput>(json).is_err(),
                "{json}"
            );
        }
    }

    #[test]
    fn unknown_texts_survive_a_round_trip() {
        let text = r#"{"type":"MOST_CONCURRENCY","value":1}"#;
        let shape: MinimumHealthyHosts = serde_json::from_str(text).unwrap();
        assert!(!shape.kind.as_ref().unwrap().is_known());
        assert_eq!(serde_json::to_string(&shape).unwrap(), text);
    }

    #[test]
    fn the_names_that_break_the_camel_case_rule_are_kept() {
        let text =
            r#"{"revisionType":"GitHub","gitHubLocation":{"repository":"a/b","commitId":"c"}}"#;
        let revision: RevisionLocation = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&revision).unwrap(), text);
        let text = r#"{"bucket":"b","key":"k","bundleType":"zip","version":"1","eTag":"e"}"#;
        let location: S3Location = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&location).unwrap(), text);
        let text = r#"{"ec2TagSetList":[[{"Key":"a","Value":"b","Type":"KEY_AND_VALUE"}]]}"#;
        let set: Ec2TagSet = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), text);
    }
}
