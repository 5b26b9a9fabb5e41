//! Tags of resources, and the names of GitHub tokens.

use super::{Tag, shapes};

shapes! {
    /// The members of the tag operations are spelled with a capital.
    TagResourceInput {
        #[serde(rename = "ResourceArn")]
        resource_arn: String,
        #[serde(rename = "Tags")]
        tags: Vec<Tag>,
    }
    UntagResourceInput {
        #[serde(rename = "ResourceArn")]
        resource_arn: String,
        #[serde(rename = "TagKeys")]
        tag_keys: Vec<String>,
    }
    ListTagsForResourceInput {
        #[serde(rename = "ResourceArn")]
        resource_arn: String,
        #[serde(rename = "NextToken")]
        next_token: String,
    }
    ListTagsForResourceOutput {
        #[serde(rename = "Tags")]
        tags: Vec<Tag>,
        #[serde(rename = "NextToken")]
        next_token: String,
    }

    ListGitHubAccountTokenNamesInput { next_token: String, }
    ListGitHubAccountTokenNamesOutput { token_name_list: Vec<String>, next_token: String, }
    DeleteGitHubAccountTokenInput { token_name: String, }
    DeleteGitHubAccountTokenOutput { token_name: String, }
}
