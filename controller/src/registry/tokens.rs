//! GitHub account tokens. AWS makes them in its console only, which this service does not have: there are none.

use codedeploy_api::codedeploy::*;

use super::Context;
use crate::error::{ApiError, ErrorName};
use crate::request;

pub fn list(
    context: &Context<'_>,
    request: request::ListGitHubAccountTokenNames,
) -> Result<ListGitHubAccountTokenNamesOutput, ApiError> {
    let listing = context.pages.listing::<String>("tokens", request.next_token.as_deref())?;
    let none = std::iter::empty::<Result<(String, String), ApiError>>();
    let (names, next_token) = listing.page(none)?;
    Ok(ListGitHubAccountTokenNamesOutput { token_name_list: Some(names), next_token })
}

pub fn delete(
    _: &Context<'_>,
    request: request::DeleteGitHubAccountToken,
) -> Result<DeleteGitHubAccountTokenOutput, ApiError> {
    Err(ErrorName::GitHubAccountTokenDoesNotExist
        .because(format!("No GitHub account token found for name: {}", request.token_name)))
}
