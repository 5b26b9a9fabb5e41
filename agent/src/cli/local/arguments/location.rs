//! The location of a bundle, as it is typed.

use std::path::PathBuf;

/// The bundle's location, checked before anything happens.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::local) enum Location {
    S3(S3Location),
    GitHub {
        account: String,
        repository: String,
        commit_id: String,
        bundle_type: String,
    },
    File(PathBuf),
    Directory(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::local) struct S3Location {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) version: Option<String>,
    pub(super) etag: Option<String>,
}

/// `s3://BUCKET/KEY`, with the parameters `versionId` and `etag`.
pub(super) fn s3_location(location: &str) -> Option<S3Location> {
    let (path, query) = match location.strip_prefix("s3://")?.split_once('?') {
        Some((path, query)) => (path, query),
        None => (location.strip_prefix("s3://")?, ""),
    };
    let (bucket, key) = path.split_once('/')?;
    if bucket.is_empty() || key.is_empty() {
        return None;
    }
    let parameter = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes())
            .filter(|(key, _)| key == name)
            .last();
        found
            .map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty())
    };
    Some(S3Location {
        bucket: bucket.into(),
        key: key.into(),
        version: parameter("versionId"),
        etag: parameter("etag")
            .map(|etag| etag.trim_matches('"').to_owned())
            .filter(|etag| !etag.is_empty()),
    })
}

/// `https://github.com/OWNER/REPOSITORY` or
/// `https://api.github.com/repos/OWNER/REPOSITORY/{zipball|tarball}/REF`.
pub(super) fn github_location(location: &str, kind: &str) -> Option<Location> {
    let github =
        |account: &str, repository: &str, commit_id: &str, bundle_type: &str| Location::GitHub {
            account: account.into(),
            repository: repository.trim_end_matches(".git").into(),
            commit_id: commit_id.into(),
            bundle_type: bundle_type.into(),
        };
    if let Some(path) = location.strip_prefix("https://api.github.com/repos/") {
        let mut parts = path.splitn(4, '/');
        let (account, repository, form, reference) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let bundle_type = match form {
            "zipball" => "zip",
            "tarball" => "tar",
            _ => return None,
        };
        return Some(github(account, repository, reference, bundle_type));
    }
    let mut parts = location
        .strip_prefix("https://github.com/")?
        .trim_end_matches('/')
        .split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(account), Some(repository), None)
            if !account.is_empty() && !repository.is_empty() =>
        {
            Some(github(
                account,
                repository,
                "HEAD",
                if kind == "zip" { "zip" } else { "tar" },
            ))
        }
        _ => None,
    }
}
