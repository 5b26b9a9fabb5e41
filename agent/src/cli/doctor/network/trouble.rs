//! The reason why a server cannot be reached, in words that an operator can act on.

/// The kind of connection problem, as far as it can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    UnknownName,
    Refused,
    Timeout,
    NoRoute,
    UnknownAuthority,
    WrongName,
    Expired,
    NotTls,
    /// The proxy responds, but opens no tunnel.
    Proxy,
    Other,
}

/// No response, and the reason in the libraries' words.
#[derive(Debug)]
pub(super) struct Unreached {
    trouble: Trouble,
    reason: String,
}

impl Unreached {
    pub(super) fn new(reason: String) -> Self {
        Self {
            trouble: Trouble::of(&reason),
            reason,
        }
    }

    pub(super) fn words(&self) -> String {
        let words = match self.trouble {
            Trouble::UnknownName => "its name is not known",
            Trouble::Refused => "it refuses connections",
            Trouble::Timeout => "it does not answer in time",
            Trouble::NoRoute => "there is no route to it",
            Trouble::UnknownAuthority => {
                "its certificate is not signed by an authority that this host trusts"
            }
            Trouble::WrongName => "its certificate is for another name",
            Trouble::Expired => "its certificate is not valid at this host's time",
            Trouble::NotTls => "it does not speak TLS",
            Trouble::Proxy | Trouble::Other => return self.reason.clone(),
        };
        words.to_owned()
    }

    /// Whether the proxy is the one that refuses.
    pub(super) fn is_for_the_proxy(&self) -> bool {
        self.trouble == Trouble::Proxy
    }

    pub(super) fn advice(&self, setting: &str) -> String {
        match self.trouble {
            Trouble::UnknownName => format!("correct {setting} or this host's name server"),
            Trouble::Refused | Trouble::Timeout | Trouble::NoRoute => {
                format!("check firewall and routes, {setting}, and whether proxy_uri is needed")
            }
            Trouble::UnknownAuthority => {
                "name the authority's PEM file in ssl_ca_bundle, or add it to the system's store"
                    .into()
            }
            Trouble::WrongName => format!("use the name in the certificate, in {setting}"),
            Trouble::Expired => {
                "set this host's clock, or renew the certificate of the service".into()
            }
            Trouble::NotTls => format!("correct scheme and port of {setting}"),
            Trouble::Proxy | Trouble::Other => format!("check {setting} and proxy_uri"),
        }
    }
}

impl Trouble {
    /// Classifies the libraries' words; they share no type to match on.
    fn of(reason: &str) -> Self {
        let reason = reason.to_lowercase();
        let table: [(Self, &[&str]); 9] = [
            (
                Self::Proxy,
                &["tunnel", "proxy authentication", "proxy authorization"],
            ),
            (
                Self::UnknownAuthority,
                &["unknownissuer", "badsignature", "causedasendentity"],
            ),
            (Self::WrongName, &["notvalidforname", "not valid for name"]),
            (Self::Expired, &["expired", "notvalidyet", "not valid yet"]),
            (
                Self::NotTls,
                &[
                    "invalidcontenttype",
                    "corrupt message",
                    "unexpected eof during handshake",
                ],
            ),
            (
                Self::UnknownName,
                &["dns error", "failed to lookup", "name or service not known"],
            ),
            (Self::Refused, &["connection refused"]),
            (Self::NoRoute, &["unreachable", "no route"]),
            (Self::Timeout, &["timed out", "timeout"]),
        ];
        let said = |(_, words): &&(Self, &[&str])| words.iter().any(|word| reason.contains(word));
        table
            .iter()
            .find(said)
            .map_or(Self::Other, |(trouble, _)| *trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libraries_say_is_told_apart() {
        let cases = [
            (
                "TLS handshake failed: invalid peer certificate: UnknownIssuer",
                Trouble::UnknownAuthority,
            ),
            ("certificate not valid for name \"a\"", Trouble::WrongName),
            (
                "invalid peer certificate: certificate expired: verification time 1",
                Trouble::Expired,
            ),
            (
                "received corrupt message of type InvalidContentType",
                Trouble::NotTls,
            ),
            (
                "dns error: failed to lookup address information",
                Trouble::UnknownName,
            ),
            (
                "tcp connect error: Connection refused (os error 111)",
                Trouble::Refused,
            ),
            (
                "tcp connect error: Network is unreachable (os error 101)",
                Trouble::NoRoute,
            ),
            ("HTTP connect timeout occurred after 5s", Trouble::Timeout),
            ("tunnel error: unsuccessful", Trouble::Proxy),
            ("something new", Trouble::Other),
        ];
        for (reason, trouble) in cases {
            assert_eq!(Unreached::new(reason.into()).trouble, trouble, "{reason}");
        }
        assert!(
            Unreached::new("something new".into())
                .words()
                .contains("something new")
        );
    }
}
