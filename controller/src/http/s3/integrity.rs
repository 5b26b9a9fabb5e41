//! The content's properties that a client declares, and their verification.

use axum::http::HeaderMap;
use s3s::dto::ETagCondition;
use s3s::{S3Request, S3Result, s3_error};

use crate::objects::{Algorithm, Checksums, Staged, Version};

/// Its length, digests and checksums: in headers before it, or in trailers after it.
pub(super) struct DeclaredContent {
    /// For content in chunks, which might end early.
    length: Option<u64>,
    md5: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    headers: Checksums,
    trailers: Option<s3s::TrailingHeaders>,
}

impl DeclaredContent {
    pub(super) fn new<T>(request: &S3Request<T>, md5: Option<String>, headers: Checksums) -> Self {
        let announced = request.headers.get_all("x-amz-trailer").iter();
        let announced: Vec<_> = announced.filter_map(|value| value.to_str().ok()).collect();
        let named = |algorithm: &Algorithm| {
            let trailer = |list: &&str| {
                list.split(',')
                    .any(|name| name.trim().eq_ignore_ascii_case(algorithm.header()))
            };
            headers.of(*algorithm).is_some() || announced.iter().any(trailer)
        };
        let algorithms = Algorithm::ALL.into_iter().filter(named).collect();
        let length = request.headers.get("x-amz-decoded-content-length");
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        DeclaredContent {
            length,
            md5,
            algorithms,
            headers,
            trailers: request.trailing_headers.clone(),
        }
    }

    pub(super) fn check(&self, content: &Staged) -> S3Result<()> {
        if let Some(length) = self.length.filter(|length| *length != content.size()) {
            return Err(s3_error!(
                IncompleteBody,
                "The content has {} bytes; {length} were announced.",
                content.size()
            ));
        }
        if let Some(md5) = &self.md5 {
            content.check_md5(md5)?;
        }
        for algorithm in &self.algorithms {
            let declared = self
                .headers
                .of(*algorithm)
                .cloned()
                .or_else(|| self.trailer(*algorithm));
            let Some(declared) = declared else {
                return Err(s3_error!(
                    InvalidRequest,
                    "The trailer with the checksum is missing."
                ));
            };
            content.checksums().check(*algorithm, &declared)?;
        }
        Ok(())
    }

    /// A checksum that came after the content.
    fn trailer(&self, algorithm: Algorithm) -> Option<String> {
        let read = |headers: &HeaderMap| {
            headers
                .get(algorithm.header())
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        self.trailers.as_ref()?.read(read).flatten()
    }
}

/// Whether an existing object may be replaced, by the conditions of an upload.
pub(super) fn may_replace(
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
) -> impl FnOnce(Option<&Version>) -> bool {
    move |present| {
        let is_it = |condition: ETagCondition| match (condition, present) {
            (_, None) => false,
            (ETagCondition::Any, Some(_)) => true,
            (ETagCondition::ETag(etag), Some(present)) => etag.value() == present.etag,
        };
        if_match.is_none_or(is_it) && !if_none_match.is_some_and(is_it)
    }
}
