//! Pagination with stateless tokens: a token contains the place to continue from, encrypted, so that
//! it tells its caller nothing and nobody else can make one.

use std::ops::ControlFlow;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, ErrorName};
use crate::store::{Params, Row, SqlError, Tx};
use crate::vault::random;

/// The number of items on a page.
pub const PAGE: usize = 100;

/// Makes and checks tokens.
#[derive(Debug)]
pub struct Pages {
    key: LessSafeKey,
}

/// A list that is being read; `K` is the sort key of its items.
#[derive(Debug)]
pub struct Listing<'a, K> {
    pages: &'a Pages,
    name: String,
    after: Option<K>,
}

impl Pages {
    pub fn new(key: UnboundKey) -> Self {
        Pages {
            key: LessSafeKey::new(key),
        }
    }

    /// Continues a list at `token`, or begins it.
    ///
    /// A token is valid only for the same `name`, which identifies the operation and its filters.
    pub fn listing<K: DeserializeOwned>(
        &self,
        name: impl Into<String>,
        token: Option<&str>,
    ) -> Result<Listing<'_, K>, ApiError> {
        let name = name.into();
        let after = token.map(|token| self.open(&name, token)).transpose()?;
        Ok(Listing {
            pages: self,
            name,
            after,
        })
    }

    fn seal<K: Serialize>(&self, listing: &str, key: &K) -> Result<String, ApiError> {
        let failed = || ErrorName::InternalFailure.because("a token could not be made");
        let mut sealed = serde_json::to_vec(key).map_err(|_| failed())?;
        let nonce = random::<NONCE_LEN>()?;
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(listing),
                &mut sealed,
            )
            .map_err(|_| failed())?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce, sealed.as_slice()].concat()))
    }

    fn open<K: DeserializeOwned>(&self, listing: &str, token: &str) -> Result<K, ApiError> {
        let opened = || {
            let token = URL_SAFE_NO_PAD.decode(token).ok()?;
            let (nonce, sealed) = token.split_at_checked(NONCE_LEN)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let key = self
                .key
                .open_in_place(nonce, Aad::from(listing), &mut sealed);
            serde_json::from_slice(key.ok()?).ok()
        };
        opened().ok_or_else(|| {
            ErrorName::InvalidNextToken.because(
                "The nextToken was not issued for this list: give it back as it was received, with the same filters.",
            )
        })
    }
}

impl<K: Serialize> Listing<'_, K> {
    /// The sort key of the last item of the previous page; `None` on the first page.
    pub fn after(&self) -> Option<&K> {
        self.after.as_ref()
    }

    /// Returns the next page, and the token of the one after it, if there is one.
    ///
    /// `items` are those after [`after`](Self::after) with their sort keys, in order; only as many
    /// as needed are taken.
    pub fn page<T, E>(
        &self,
        items: impl IntoIterator<Item = Result<(K, T), E>>,
    ) -> Result<(Vec<T>, Option<String>), ApiError>
    where
        ApiError: From<E>,
    {
        let mut page = Page::new();
        for item in items {
            let (key, value) = item?;
            if page.add(key, value).is_break() {
                break;
            }
        }
        self.end(page)
    }

    /// Returns the next page of a statement's results. The statement finds items after
    /// [`after`](Self::after), in order; `read` returns `None` for a row that is not listed.
    pub fn query<T>(
        &self,
        tx: &Tx<'_>,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<Option<(K, T)>, SqlError>,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let mut page = Page::new();
        tx.query_while(sql, params, |row| {
            Ok(
                read(row)?.map_or(ControlFlow::Continue(()), |(key, value)| {
                    page.add(key, value)
                }),
            )
        })?;
        self.end(page)
    }

    fn end<T>(&self, page: Page<K, T>) -> Result<(Vec<T>, Option<String>), ApiError> {
        let last = page.last.filter(|_| page.is_full);
        let token = last
            .map(|last| self.pages.seal(&self.name, &last))
            .transpose()?;
        Ok((page.items, token))
    }
}

/// A page that is being filled.
struct Page<K, T> {
    items: Vec<T>,
    last: Option<K>,
    /// Whether there is an item that did not fit.
    is_full: bool,
}

impl<K, T> Page<K, T> {
    fn new() -> Self {
        Page {
            items: Vec::new(),
            last: None,
            is_full: false,
        }
    }

    /// Adds an item, or leaves it to the next page and breaks.
    fn add(&mut self, key: K, item: T) -> ControlFlow<()> {
        if self.items.len() == PAGE {
            self.is_full = true;
            return ControlFlow::Break(());
        }
        self.items.push(item);
        self.last = Some(key);
        ControlFlow::Continue(())
    }
}

impl Listing<'_, String> {
    /// The name after which this page begins; on the first page empty, which sorts before every
    /// name.
    pub fn after_name(&self) -> String {
        self.after.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::AES_256_GCM;

    use super::*;

    fn page(
        count: usize,
        listing: &str,
        token: Option<&str>,
    ) -> Result<(Vec<usize>, Option<String>), ApiError> {
        let pages = Pages::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let listing = pages.listing::<usize>(listing, token)?;
        let first = listing.after().map_or(0, |after| after + 1);
        listing.page((first..count).map(|number| Ok::<_, ApiError>((number, number))))
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_token() {
        let (first, token) = page(250, "l", None).unwrap();
        assert_eq!((first[0], first.len()), (0, 100));
        let (second, token) = page(250, "l", token.as_deref()).unwrap();
        assert_eq!(second[0], 100);
        let (third, token) = page(250, "l", token.as_deref()).unwrap();
        assert_eq!((third[0], third.len(), token), (200, 50, None));
        assert_eq!(page(100, "l", None).unwrap().1, None);
    }

    #[test]
    fn forged_tokens_and_those_of_another_list_are_refused() {
        let token = page(101, "l", None).unwrap().1.unwrap();
        for (listing, token) in [
            ("m", token.as_str()),
            ("l", "x"),
            ("l", ""),
            ("l", "MDAx.AAAA"),
        ] {
            assert_eq!(
                page(101, listing, Some(token)).unwrap_err().name,
                ErrorName::InvalidNextToken
            );
        }
    }
}
