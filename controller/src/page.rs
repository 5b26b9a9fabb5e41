//! Pagination with tokens that the service does not keep: a token says where to go on, and proves that it is ours.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{ApiError, ErrorName};

/// Items on a page.
pub const PAGE: usize = 100;

/// Makes and checks tokens.
#[derive(Debug, Clone)]
pub struct Pages {
    key: hmac::Key,
}

impl Pages {
    pub fn new(secret: &[u8]) -> Self {
        Pages { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The page of `items` after `token`, and the token of the next page, if there is one.
    ///
    /// `items` come with their sort keys, in ascending order. A token is good for the same `listing` only, which names
    /// the operation and its filters.
    pub fn cut<T>(
        &self,
        listing: &str,
        token: Option<&str>,
        items: impl IntoIterator<Item = (String, T)>,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let after = token.map(|token| self.open(listing, token)).transpose()?;
        let mut rest =
            items.into_iter().skip_while(|(key, _)| after.as_ref().is_some_and(|after| key <= after));
        let mut last = String::new();
        let mut page = Vec::new();
        for (key, item) in rest.by_ref().take(PAGE) {
            last = key;
            page.push(item);
        }
        let next = rest.next().map(|_| self.seal(listing, &last));
        Ok((page, next))
    }

    fn seal(&self, listing: &str, key: &str) -> String {
        let tag = hmac::sign(&self.key, &message(listing, key));
        format!("{}.{}", URL_SAFE_NO_PAD.encode(key), URL_SAFE_NO_PAD.encode(tag))
    }

    fn open(&self, listing: &str, token: &str) -> Result<String, ApiError> {
        let refused = || ErrorName::InvalidNextToken.because("nextToken was not issued for this list");
        let (key, tag) = token.split_once('.').ok_or_else(refused)?;
        let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| refused())?;
        let key = String::from_utf8(key).map_err(|_| refused())?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| refused())?;
        hmac::verify(&self.key, &message(listing, &key), &tag).map_err(|_| refused())?;
        Ok(key)
    }
}

/// The length in front keeps two pairs from making one message.
fn message(listing: &str, key: &str) -> Vec<u8> {
    format!("{}:{listing}{key}", listing.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<(String, usize)> {
        (0..count).map(|n| (format!("{n:06}"), n)).collect()
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_token() {
        let pages = Pages::new(b"k");
        let (first, token) = pages.cut("l", None, numbers(250)).unwrap();
        assert_eq!((first[0], first.len()), (0, 100));
        let (second, token) = pages.cut("l", token.as_deref(), numbers(250)).unwrap();
        assert_eq!(second[0], 100);
        let (third, token) = pages.cut("l", token.as_deref(), numbers(250)).unwrap();
        assert_eq!((third[0], third.len(), token), (200, 50, None));
        assert_eq!(pages.cut("l", None, numbers(100)).unwrap().1, None);
    }

    #[test]
    fn forged_tokens_and_those_of_another_list_are_refused() {
        let pages = Pages::new(b"k");
        let token = pages.cut("l", None, numbers(101)).unwrap().1.unwrap();
        for (listing, token) in [("m", token.as_str()), ("l", "x"), ("l", ""), ("l", "MDAx.AAAA")] {
            let refused = pages.cut(listing, Some(token), numbers(101)).unwrap_err();
            assert_eq!(refused.name, ErrorName::InvalidNextToken);
        }
    }
}
