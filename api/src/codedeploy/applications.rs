//! Applications and their revisions.

use super::{ComputePlatform, Tag, Timestamp, enumerations, shapes};

enumerations! {
    /// The place of a revision's bundle.
    RevisionLocationType {
        S3 = "S3", GitHub = "GitHub", String = "String", AppSpecContent = "AppSpecContent",
    }

    /// The format of a bundle in S3.
    BundleType { Tar = "tar", Tgz = "tgz", Zip = "zip", Yaml = "YAML", Json = "JSON", }

    /// The sort key of ListApplicationRevisions.
    ApplicationRevisionSortBy {
        RegisterTime = "registerTime", FirstUsedTime = "firstUsedTime", LastUsedTime = "lastUsedTime",
    }

    SortOrder { Ascending = "ascending", Descending = "descending", }

    /// Whether ListApplicationRevisions lists the target revisions of groups, the others, or both.
    ListStateFilterAction { Include = "include", Exclude = "exclude", Ignore = "ignore", }
}

shapes! {
    ApplicationInfo {
        application_id: String,
        application_name: String,
        create_time: Timestamp,
        linked_to_git_hub: bool,
        git_hub_account_name: String,
        compute_platform: ComputePlatform,
    }

    CreateApplicationInput { application_name: String, compute_platform: ComputePlatform, tags: Vec<Tag>, }
    CreateApplicationOutput { application_id: String, }
    GetApplicationInput { application_name: String, }
    GetApplicationOutput { application: ApplicationInfo, }
    ListApplicationsInput { next_token: String, }
    ListApplicationsOutput { applications: Vec<String>, next_token: String, }
    BatchGetApplicationsInput { application_names: Vec<String>, }
    BatchGetApplicationsOutput { applications_info: Vec<ApplicationInfo>, }
    UpdateApplicationInput { application_name: String, new_application_name: String, }
    DeleteApplicationInput { application_name: String, }

    /// A pointer to a bundle. Two pointers are the same revision if all their members are equal.
    RevisionLocation {
        revision_type: RevisionLocationType,
        s3_location: S3Location,
        git_hub_location: GitHubLocation,
    }

    S3Location {
        bucket: String,
        key: String,
        bundle_type: BundleType,
        version: String,
        /// Without the quotation marks of the HTTP header.
        e_tag: String,
    }

    GitHubLocation {
        /// `account/repository`
        repository: String,
        commit_id: String,
    }

    GenericRevisionInfo {
        description: String,
        /// The names of the groups whose target revision this is.
        deployment_groups: Vec<String>,
        first_used_time: Timestamp,
        last_used_time: Timestamp,
        register_time: Timestamp,
    }

    RevisionInfo { revision_location: RevisionLocation, generic_revision_info: GenericRevisionInfo, }

    RegisterApplicationRevisionInput {
        application_name: String,
        description: String,
        revision: RevisionLocation,
    }
    GetApplicationRevisionInput { application_name: String, revision: RevisionLocation, }
    GetApplicationRevisionOutput {
        application_name: String,
        revision: RevisionLocation,
        revision_info: GenericRevisionInfo,
    }
    BatchGetApplicationRevisionsInput { application_name: String, revisions: Vec<RevisionLocation>, }
    BatchGetApplicationRevisionsOutput {
        application_name: String,
        /// Lists the revisions that are not registered; empty if all are.
        error_message: String,
        revisions: Vec<RevisionInfo>,
    }
    ListApplicationRevisionsInput {
        application_name: String,
        sort_by: ApplicationRevisionSortBy,
        sort_order: SortOrder,
        s3_bucket: String,
        s3_key_prefix: String,
        deployed: ListStateFilterAction,
        next_token: String,
    }
    ListApplicationRevisionsOutput { revisions: Vec<RevisionLocation>, next_token: String, }
}
