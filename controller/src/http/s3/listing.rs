//! Lists of objects and of their versions, a page at a time.

use std::collections::HashMap;

use s3s::dto::*;

use super::folder::{etag, size, timestamp};
use crate::objects::{ObjectError, Objects};

/// The number of keys in one response.
const PAGE: usize = 1000;

/// Lists the existing objects, the newest version of each.
pub(super) fn objects(
    objects: &Objects,
    input: ListObjectsV2Input,
) -> Result<ListObjectsV2Output, ObjectError> {
    let ListObjectsV2Input {
        bucket,
        continuation_token,
        delimiter,
        max_keys,
        prefix,
        start_after,
        ..
    } = input;
    let after = match &continuation_token {
        Some(token) => read_token(token)?,
        None => start_after.clone().unwrap_or_default(),
    };
    let (name, wanted, by) = (
        bucket.clone(),
        prefix.clone().unwrap_or_default(),
        delimiter.clone(),
    );
    let most = most(max_keys);
    let mut keys = objects.keys(&bucket, &wanted)?;
    // Deleted objects do not count against the page's limit.
    let mut versions = HashMap::new();
    let mut kept = Vec::with_capacity(keys.len());
    for key in keys.drain(..) {
        if let Some(version) = objects
            .versions(&bucket, &key)?
            .into_iter()
            .next()
            .filter(|newest| !newest.deleted)
        {
            versions.insert(key.clone(), version);
            kept.push(key);
        }
    }
    let page = page(kept, &wanted, by.as_deref(), &after, most);
    let contents: Vec<Object> = page
        .keys
        .into_iter()
        .filter_map(|key| versions.remove(&key).map(|version| (key, version)))
        .map(|(key, version)| Object {
            e_tag: etag(&version),
            last_modified: timestamp(&version),
            size: size(version.size),
            key: Some(key),
            ..Object::default()
        })
        .collect();
    let (prefixes, next) = (page.prefixes, page.next);
    Ok(ListObjectsV2Output {
        name: Some(name),
        prefix,
        delimiter,
        start_after,
        continuation_token,
        max_keys: i32::try_from(most).ok(),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next.map(hex::encode),
        contents: Some(contents),
        common_prefixes: common(prefixes),
        ..ListObjectsV2Output::default()
    })
}

/// The same for the older operation.
pub(super) fn plain(
    objects: &Objects,
    input: ListObjectsInput,
) -> Result<ListObjectsOutput, ObjectError> {
    let ListObjectsInput {
        bucket,
        delimiter,
        marker,
        max_keys,
        prefix,
        ..
    } = input;
    let asked = ListObjectsV2Input {
        bucket,
        delimiter,
        max_keys,
        prefix,
        start_after: marker,
        ..ListObjectsV2Input::default()
    };
    let listed = self::objects(objects, asked)?;
    Ok(ListObjectsOutput {
        next_marker: listed
            .next_continuation_token
            .as_deref()
            .map(read_token)
            .transpose()?,
        name: listed.name,
        prefix: listed.prefix,
        delimiter: listed.delimiter,
        marker: listed.start_after,
        max_keys: listed.max_keys,
        is_truncated: listed.is_truncated,
        contents: listed.contents,
        common_prefixes: listed.common_prefixes,
        ..ListObjectsOutput::default()
    })
}

/// A token is the end of the previous page, in hexadecimal because keys may have any character.
fn read_token(token: &str) -> Result<String, ObjectError> {
    let bytes = hex::decode(token).map_err(|_| ObjectError::Token)?;
    String::from_utf8(bytes).map_err(|_| ObjectError::Token)
}

/// Lists every version of every object, and the delete markers.
pub(super) fn versions(
    objects: &Objects,
    input: ListObjectVersionsInput,
) -> Result<ListObjectVersionsOutput, ObjectError> {
    let ListObjectVersionsInput {
        bucket,
        delimiter,
        key_marker,
        max_keys,
        prefix,
        ..
    } = input;
    let (name, wanted, by) = (
        bucket.clone(),
        prefix.clone().unwrap_or_default(),
        delimiter.clone(),
    );
    let after = key_marker.clone().unwrap_or_default();
    let most = most(max_keys);
    let page = page(
        objects.keys(&bucket, &wanted)?,
        &wanted,
        by.as_deref(),
        &after,
        most,
    );
    let (mut versions, mut marks) = (Vec::new(), Vec::new());
    for key in page.keys {
        for (place, version) in objects.versions(&bucket, &key)?.into_iter().enumerate() {
            let (key, is_latest) = (Some(key.clone()), Some(place == 0));
            let (last_modified, version_id) = (timestamp(&version), Some(version.id.clone()));
            if version.deleted {
                marks.push(DeleteMarkerEntry {
                    key,
                    is_latest,
                    last_modified,
                    version_id,
                    ..Default::default()
                });
            } else {
                let (e_tag, size) = (etag(&version), size(version.size));
                versions.push(ObjectVersion {
                    key,
                    is_latest,
                    last_modified,
                    version_id,
                    e_tag,
                    size,
                    ..Default::default()
                });
            }
        }
    }
    let (delete_markers, prefixes, next) = (marks, page.prefixes, page.next);
    Ok(ListObjectVersionsOutput {
        name: Some(name),
        prefix,
        delimiter,
        key_marker,
        max_keys: i32::try_from(most).ok(),
        is_truncated: Some(next.is_some()),
        next_key_marker: next,
        versions: Some(versions),
        delete_markers: Some(delete_markers),
        common_prefixes: common(prefixes),
        ..ListObjectVersionsOutput::default()
    })
}

/// The keys of one page, with those behind a delimiter grouped; `after` is excluded.
struct Page {
    keys: Vec<String>,
    prefixes: Vec<String>,
    /// The last of them, if there are more.
    next: Option<String>,
}

fn page(
    keys: Vec<String>,
    prefix: &str,
    delimiter: Option<&str>,
    after: &str,
    most: usize,
) -> Page {
    let mut page = Page {
        keys: Vec::new(),
        prefixes: Vec::new(),
        next: None,
    };
    let mut last = String::new();
    for key in keys {
        let rest = key.get(prefix.len()..).unwrap_or_default();
        let folder = delimiter
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| {
                rest.find(delimiter)
                    .map(|at| prefix.len() + at + delimiter.len())
            })
            .and_then(|end| key.get(..end));
        let entry = folder.unwrap_or(&key);
        // A page that ended with a folder included everything in it.
        if key.as_str() <= after
            || entry == after
            || page.prefixes.last().is_some_and(|last| last == entry)
        {
            continue;
        }
        if page.keys.len() + page.prefixes.len() >= most {
            // A request for zero keys is reported as complete, or it would be repeated for ever.
            page.next = (most > 0).then_some(last);
            break;
        }
        last = entry.to_owned();
        let (is_folder, entry) = (folder.is_some(), entry.to_owned());
        if is_folder {
            page.prefixes.push(entry)
        } else {
            page.keys.push(key)
        }
    }
    page
}

fn most(asked: Option<i32>) -> usize {
    asked
        .and_then(|asked| usize::try_from(asked).ok())
        .unwrap_or(PAGE)
        .min(PAGE)
}

fn common(prefixes: Vec<String>) -> Option<Vec<CommonPrefix>> {
    let prefixes = prefixes.into_iter().map(|prefix| CommonPrefix {
        prefix: Some(prefix),
    });
    Some(prefixes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_folders_are_listed_once() {
        let keys = || ["a", "b/1", "b/2", "c", "d/1"].map(str::to_owned).to_vec();
        let first = page(keys(), "", Some("/"), "", 2);
        assert_eq!(
            (first.keys, first.prefixes, first.next),
            (vec!["a".into()], vec!["b/".into()], Some("b/".into()))
        );
        let second = page(keys(), "", Some("/"), "b/", 2);
        assert_eq!(
            (second.keys, second.prefixes, second.next),
            (vec!["c".into()], vec!["d/".into()], None)
        );
        let from_within = page(keys(), "", Some("/"), "b/1", 2);
        assert_eq!(
            (from_within.keys, from_within.prefixes),
            (vec!["c".to_owned()], vec!["b/".to_owned()])
        );
        assert_eq!(page(keys(), "", None, "", 0).next, None);
        let inside = page(vec!["b/1".into(), "b/2".into()], "b/", Some("/"), "", 10);
        assert_eq!((inside.keys.len(), inside.prefixes.len()), (2, 0));
    }
}
