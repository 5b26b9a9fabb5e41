//! On-premises instances and their tags.

use super::{Nothing, Tag, Timestamp, enumerations, shapes};
use crate::operation::operations;

enumerations! {
    /// The halves of a tag that a filter compares.
    TagFilterType { KeyOnly = "KEY_ONLY", ValueOnly = "VALUE_ONLY", KeyAndValue = "KEY_AND_VALUE", }

    RegistrationStatus { Registered = "Registered", Deregistered = "Deregistered", }
}

shapes! {
    /// A filter on one tag, of an on-premises instance or (EC2TagFilter in AWS's API) an EC2
    /// instance.
    TagFilter {
        #[serde(rename = "Key")]
        key: String,
        #[serde(rename = "Value")]
        value: String,
        #[serde(rename = "Type")]
        kind: TagFilterType,
    }

    /// An on-premises instance.
    InstanceInfo {
        instance_name: String,
        iam_session_arn: String,
        iam_user_arn: String,
        instance_arn: String,
        register_time: Timestamp,
        /// Present after the instance was deregistered.
        deregister_time: Timestamp,
        tags: Vec<Tag>,
    }

    RegisterOnPremisesInstanceInput {
        instance_name: String,
        iam_session_arn: String,
        iam_user_arn: String,
    }
    DeregisterOnPremisesInstanceInput { instance_name: String, }
    GetOnPremisesInstanceInput { instance_name: String, }
    GetOnPremisesInstanceOutput { instance_info: InstanceInfo, }
    BatchGetOnPremisesInstancesInput { instance_names: Vec<String>, }
    BatchGetOnPremisesInstancesOutput { instance_infos: Vec<InstanceInfo>, }
    ListOnPremisesInstancesInput {
        registration_status: RegistrationStatus,
        tag_filters: Vec<TagFilter>,
        next_token: String,
    }
    ListOnPremisesInstancesOutput { instance_names: Vec<String>, next_token: String, }
    AddTagsToOnPremisesInstancesInput { tags: Vec<Tag>, instance_names: Vec<String>, }
    RemoveTagsFromOnPremisesInstancesInput { tags: Vec<Tag>, instance_names: Vec<String>, }
}

operations! {
    "RegisterOnPremisesInstance": RegisterOnPremisesInstanceInput => Nothing, may_be_empty;
    "DeregisterOnPremisesInstance": DeregisterOnPremisesInstanceInput => Nothing, may_be_empty;
    "GetOnPremisesInstance": GetOnPremisesInstanceInput => GetOnPremisesInstanceOutput;
    "AddTagsToOnPremisesInstances": AddTagsToOnPremisesInstancesInput => Nothing, may_be_empty;
    "RemoveTagsFromOnPremisesInstances": RemoveTagsFromOnPremisesInstancesInput => Nothing, may_be_empty;
}
