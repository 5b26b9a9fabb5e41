//! Checks whether this host accepts the key with which the service signs deployments.

use codedeploy_api::command::SIGNER_SEPARATOR;

use crate::cli::doctor::Check;
use crate::config::{KeyDigest, SignerTrust};

const NAME: &str = "signer";

/// Judges the signing keys that a controller announces, the present one first; `None` for a service
/// that announces none.
pub(super) fn check(trust: &SignerTrust, signers: Option<&str>) -> Check {
    let pins = match trust {
        SignerTrust::Anyone => {
            return Check::ok(
                NAME,
                "any signer is accepted: neither deployment_signer_pin nor deployment_signer_ca is set",
            );
        }
        SignerTrust::Authority(path) => {
            return Check::ok(NAME, format!("any that {} has certified", path.display()));
        }
        SignerTrust::Pins(pins) => pins,
    };
    let Some(signers) = signers else {
        return Check::ok(
            NAME,
            "the service does not announce its signing key; the next deployment shows it",
        );
    };
    let mut signers = signers
        .split(SIGNER_SEPARATOR)
        .map(str::trim)
        .filter(|key| is_digest(key));
    let is_pinned = |key: &&str| pins.iter().map(KeyDigest::to_string).any(|pin| pin == *key);
    let Some(present) = signers.next() else {
        return Check::warning(
            NAME,
            "the service announces no signing key",
            "update the controller",
        );
    };
    if !is_pinned(&present) {
        return Check::problem(
            NAME,
            format!(
                "deployments are signed with the key {present}, which is not in deployment_signer_pin"
            ),
            "if the service's key was changed on purpose (`codedeploy-controller signer` shows it), put that digest there",
        );
    }
    match signers.find(|key| !is_pinned(key)) {
        Some(next) => Check::warning(
            NAME,
            format!(
                "the service will sign with the key {next}, which is not in deployment_signer_pin"
            ),
            "add that digest there before the key is replaced",
        ),
        None => Check::ok(NAME, format!("the key {present} signs, and is pinned")),
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::super::Verdict;
    use super::*;

    #[test]
    fn a_key_that_is_not_pinned_is_a_problem_and_the_next_one_a_warning() {
        let (here, next) = (KeyDigest([1; 32]), KeyDigest([2; 32]));
        let said = |keys: &[KeyDigest]| {
            keys.iter()
                .map(KeyDigest::to_string)
                .collect::<Vec<_>>()
                .join(&SIGNER_SEPARATOR.to_string())
        };
        let pins = |keys: &[KeyDigest]| SignerTrust::Pins(keys.to_vec());
        let cases = [
            (pins(&[here]), Some(said(&[here])), Verdict::Ok, "is pinned"),
            (
                pins(&[here, next]),
                Some(said(&[here, next])),
                Verdict::Ok,
                "is pinned",
            ),
            (
                pins(&[here]),
                Some(said(&[here, next])),
                Verdict::Warning,
                "deployment_signer_pin",
            ),
            (
                pins(&[next]),
                Some(said(&[here])),
                Verdict::Problem,
                "deployment_signer_pin",
            ),
            (
                pins(&[here]),
                Some("<html>".to_owned()),
                Verdict::Warning,
                "announces no signing key",
            ),
            (pins(&[here]), None, Verdict::Ok, "does not announce"),
            (SignerTrust::Anyone, Some(said(&[here])), Verdict::Ok, "any"),
        ];
        for (trust, signers, verdict, text) in cases {
            let check = check(&trust, signers.as_deref());
            assert_eq!(check.verdict, verdict, "{check:?}");
            assert!(check.text.contains(text), "{check:?}");
        }
    }
}
