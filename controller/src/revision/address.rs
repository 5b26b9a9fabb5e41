//! Revisions as people write them: `s3://bucket/key?versionId=…&etag=…`, or
//! `account/repository@commit`.

use codedeploy_api::codedeploy::{
    BundleType, GitHubLocation, RevisionLocation, RevisionLocationType, S3Location,
};

/// Reads the address of a revision.
pub fn read(text: &str) -> Option<RevisionLocation> {
    if text.starts_with("s3://") {
        return Some(RevisionLocation {
            revision_type: Some(RevisionLocationType::S3),
            s3_location: Some(object(text)?),
            ..RevisionLocation::default()
        });
    }
    let (repository, commit) = text.rsplit_once('@')?;
    Some(RevisionLocation {
        revision_type: Some(RevisionLocationType::GitHub),
        git_hub_location: Some(GitHubLocation {
            repository: Some(repository.to_owned()),
            commit_id: Some(commit.to_owned()),
        }),
        ..RevisionLocation::default()
    })
}

/// Reads the address of an object in S3. Its name shows the format of the bundle, unless
/// `bundleType` does; other names are those of zip archives.
pub fn object(text: &str) -> Option<S3Location> {
    let rest = text.strip_prefix("s3://")?;
    let (object, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, key) = object.split_once('/')?;
    if bucket.is_empty() || key.is_empty() {
        return None;
    }
    let (mut version, mut e_tag, mut kind) = (None, None, bundle_type(key));
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "versionId" | "version" => version = Some(value.into_owned()),
            "etag" | "eTag" => e_tag = Some(value.into_owned()),
            "bundleType" => kind = Some(BundleType::from(value.into_owned())),
            _ => return None,
        }
    }
    Some(S3Location {
        bucket: Some(bucket.to_owned()),
        key: Some(key.to_owned()),
        bundle_type: Some(kind.unwrap_or(BundleType::Zip)),
        version,
        e_tag,
    })
}

/// Writes the address of a revision, which [`read`] understands. A key with a question mark has
/// none.
pub fn write(location: &RevisionLocation) -> Option<String> {
    if let Some(commit) = &location.git_hub_location {
        let (repository, id) = (commit.repository.as_ref()?, commit.commit_id.as_ref()?);
        return Some(format!("{repository}@{id}"));
    }
    let s3 = location.s3_location.as_ref()?;
    let (bucket, key) = (s3.bucket.as_ref()?, s3.key.as_ref()?);
    let implied = bundle_type(key).unwrap_or(BundleType::Zip);
    let kind = s3.bundle_type.as_ref().filter(|kind| **kind != implied);
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("versionId", s3.version.as_deref()),
        ("etag", s3.e_tag.as_deref()),
        ("bundleType", kind.map(BundleType::as_str)),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    let mark = if query.is_empty() { "" } else { "?" };
    (!key.contains('?')).then(|| format!("s3://{bucket}/{key}{mark}{query}"))
}

/// The format of a bundle with a name.
pub fn bundle_type(name: &str) -> Option<BundleType> {
    let types = [
        (".zip", BundleType::Zip),
        (".tar", BundleType::Tar),
        (".tgz", BundleType::Tgz),
        (".tar.gz", BundleType::Tgz),
    ];
    types
        .into_iter()
        .find(|(end, _)| name.ends_with(end))
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "s3://b/a/k.tar.gz?versionId=v%2B1&etag=e",
            "s3://b/k",
            "s3://b/k?bundleType=tar",
            "a/b@0123456789012345678901234567890123456789",
        ] {
            assert_eq!(write(&read(text).unwrap()).as_deref(), Some(text));
        }
        for wrong in ["s3://b", "s3:///k", "s3://b/", "s3://b/k?other=1", "site"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
