//! Random identifiers.

use crate::error::ApiError;

/// A random UUID (RFC 9562, version 4), as AWS writes identifiers of resources.
pub(crate) fn new_id() -> Result<String, ApiError> {
    let bits = u128::from_be_bytes(crate::vault::random()?);
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}

/// Returns `length` random characters of `alphabet`, which has at most 256 of them.
pub(crate) fn random_text(alphabet: &[u8], length: usize) -> Result<String, ApiError> {
    let mut text = String::with_capacity(length);
    // Bytes beyond the last whole multiple would favour the first characters.
    let usable = 256 - 256 % alphabet.len();
    while text.len() < length {
        let bytes: [u8; 32] = crate::vault::random()?;
        let chosen = bytes
            .into_iter()
            .filter(|byte| usize::from(*byte) < usable)
            .filter_map(|byte| alphabet.get(usize::from(byte) % alphabet.len()));
        text.extend(
            chosen
                .map(|byte| char::from(*byte))
                .take(length - text.len()),
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_forms_of_aws() {
        let id = new_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!("89ab".contains(char::from(id.as_bytes()[19])));
        let text = random_text(b"ABC", 100).unwrap();
        assert!(text.len() == 100 && text.bytes().all(|b| b"ABC".contains(&b)));
    }
}
