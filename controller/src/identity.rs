//! The identity of a host.

/// The IAM identity of a host, which its access keys represent and its agent polls with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    User(String),
    Session(String),
}

impl Identity {
    /// Reads `arn:aws:iam::<account>:user/<path and name>`.
    pub fn user(arn: &str) -> Option<Self> {
        let name = resource(arn, "iam")?.strip_prefix("user/")?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "/+=,.@_-".contains(c);
        let complete = !name.is_empty() && !name.ends_with('/') && name.chars().all(allowed);
        complete.then(|| Identity::User(arn.to_owned()))
    }

    /// Reads `arn:aws:sts::<account>:assumed-role/<role>/<session>`.
    pub fn session(arn: &str) -> Option<Self> {
        let (role, session) = resource(arn, "sts")?
            .strip_prefix("assumed-role/")?
            .split_once('/')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
        let named = |text: &str| !text.is_empty() && text.chars().all(allowed);
        (named(role) && named(session)).then(|| Identity::Session(arn.to_owned()))
    }

    pub fn arn(&self) -> &str {
        let (Identity::User(arn) | Identity::Session(arn)) = self;
        arn
    }
}

/// The resource part of an ARN of a global service.
fn resource<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let mut parts = arn.splitn(6, ':');
    let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let account = parts.next()?;
    let known = matches!(head.1, "aws" | "aws-cn" | "aws-us-gov");
    let digits = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (head.0 == "arn"
        && known
        && head.2 == service
        && head.3.is_empty()
        && digits
        && arn.len() <= 1024)
        .then(|| parts.next())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        assert!(Identity::user("arn:aws:iam::123456789012:user/AWS/CodeDeploy/box1").is_some());
        assert!(Identity::session("arn:aws-cn:sts::123456789012:assumed-role/role/box1").is_some());
        for arn in [
            "arn:aws:iam::1234:user/box1",
            "arn:aws:iam::123456789012:role/box1",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:iam:us-east-1:123456789012:user/a",
            "arn:aws:iam::123456789012:user/a b",
            "box1",
        ] {
            assert_eq!(Identity::user(arn), None, "{arn}");
            assert_eq!(Identity::session(arn), None, "{arn}");
        }
    }
}
