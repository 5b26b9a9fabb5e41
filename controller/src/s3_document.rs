//! The error documents of the S3 protocol.

/// Returns a member of an error document, such as `Code` or `Message`.
pub(crate) fn member(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (member, _) = rest.split_once("</")?;
    Some(
        member
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_text() {
        let document =
            "<Error><Code>NoSuchBucket</Code><Message>a &quot;b&quot; &amp;lt;</Message></Error>";
        assert_eq!(member(document, "Code").as_deref(), Some("NoSuchBucket"));
        assert_eq!(member(document, "Message").as_deref(), Some("a \"b\" &lt;"));
        assert_eq!(member(document, "Key"), None);
    }
}
