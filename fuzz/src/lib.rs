//! One function for each parser of input that others wrote. Each calls the parser as the program
//! does and may not panic, hang, or act outside a temporary folder. `targets/` wraps them for
//! libFuzzer; `tests/corpus.rs` replays the corpora.

mod scratch;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use codedeploy_agent::config::{Environment, Settings, SignerTrust};
use codedeploy_agent::revision::archive::{self, BundleType, Limits};
use codedeploy_agent::spec::parse::APPSPEC_FILENAMES;
use codedeploy_agent::spec::{DeploymentSpec, envelope};
use codedeploy_api::command::Envelope;
use codedeploy_api::lifecycle::LifecycleEvent;
use codedeploy_controller::config::Arguments;
use codedeploy_controller::events::bucket_notification as notification;
use codedeploy_hooks::{appspec as spec, install};

/// A target: it is given an input.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("agent_config", agent_config),
    ("appspec", appspec),
    ("bucket_notification", bucket_notification),
    ("cbor", cbor),
    ("controller_config", controller_config),
    ("envelope", envelope),
    ("identity_token", identity_token),
    ("journal", journal),
    ("ledger", ledger),
    ("on_premises", on_premises),
    ("sigv4", sigv4),
    ("specification", specification),
    ("tar", tar),
    ("zip", zip),
];

/// `appspec.yml` of a revision, and of an earlier one.
pub fn appspec(input: &[u8]) {
    let parsed = spec::parse(input);
    let earlier = spec::parse_earlier(input);
    assert!(
        parsed.is_err() || earlier.is_ok(),
        "an earlier revision is read more leniently"
    );
    spec::scripts_of_earlier(input, &LifecycleEvent::BeforeInstall);
    if let Err(invalid) = parsed {
        assert!(
            !invalid.problems.is_empty(),
            "an invalid file has a problem"
        );
        for finding in invalid.problems.iter().chain(&invalid.warnings) {
            assert!(!finding.to_string().is_empty());
        }
        let last = invalid
            .problems
            .last()
            .map_or("", |finding| finding.path.as_str());
        spec::position(input, last);
    }
}

/// `codedeployagent.yml`.
pub fn agent_config(input: &[u8]) {
    scratch::with_file(input, |path| {
        drop(Settings::read(Some(path), &Environment::default()))
    });
}

/// The on-premises configuration file.
pub fn on_premises(input: &[u8]) {
    scratch::with_file(input, codedeploy_agent::fuzzing::on_premises);
}

/// `controller.yml`.
pub fn controller_config(input: &[u8]) {
    scratch::with_file(input, |path| {
        let arguments = Arguments {
            data_dir: "/var/lib/codedeploy-controller".into(),
            listen: None,
            region: None,
            account_id: None,
            insecure_http: false,
            config_file: Some(path.to_path_buf()),
        };
        drop(codedeploy_controller::config::Settings::load(arguments));
    });
}

/// A signed specification: as a payload, or the bytes of the signature itself.
pub fn envelope(input: &[u8]) {
    let text = std::str::from_utf8(input)
        .ok()
        .filter(|text| text.starts_with("-----"));
    let payload = text.map_or_else(|| STANDARD.encode(input), str::to_owned);
    let envelope = Envelope {
        format: Envelope::PKCS7_JSON.into(),
        payload,
    };
    if let Ok(verified) = envelope::verify(&envelope, &SignerTrust::Anyone) {
        drop(DeploymentSpec::parse(&verified));
    }
}

/// The document in a specification.
pub fn specification(input: &[u8]) {
    drop(DeploymentSpec::parse(&envelope::trusted(input.to_vec())));
}

/// A tar bundle, compressed or not.
pub fn tar(input: &[u8]) {
    unpack(input, BundleType::Tgz);
}

/// A zip bundle.
pub fn zip(input: &[u8]) {
    unpack(input, BundleType::Zip);
}

fn unpack(input: &[u8], kind: BundleType) {
    let limits = Limits {
        max_extracted_bytes: Some(1 << 20),
        ..Limits::default()
    };
    scratch::with_file(input, |path| {
        let into = path.with_file_name("into");
        if std::fs::create_dir(&into).is_err() {
            return;
        }
        if let Ok(bundle) = std::fs::File::open(path)
            && archive::unpack(&bundle.into(), kind, &into, &limits).is_ok()
        {
            drop(archive::flatten_single_folder(&into, &APPSPEC_FILENAMES));
        }
    });
}

/// The journal of an Install, which is only looked at.
pub fn journal(input: &[u8]) {
    scratch::with_file(input, |path| {
        drop(install::unfinished(path));
        let record = path.with_file_name("undo.json");
        if std::fs::rename(path, &record).is_ok() {
            let folder = record.parent().unwrap_or(Path::new("/"));
            drop((install::completed(folder), install::can_restore(folder)));
        }
    });
}

/// A file of the ledger: a command in progress, the end of one, or one of the official agents.
pub fn ledger(input: &[u8]) {
    scratch::with_file(input, codedeploy_agent::fuzzing::ledger_record);
}

/// The body of a request in CBOR.
pub fn cbor(input: &[u8]) {
    codedeploy_controller::http::fuzzing::cbor(input);
}

/// The headers of a signed request, one in each line.
pub fn sigv4(input: &[u8]) {
    codedeploy_controller::http::fuzzing::sigv4(input);
}

/// The notification of a bucket about a new object.
pub fn bucket_notification(input: &[u8]) {
    drop(notification::read(input));
}

/// The parts of an identity token before they are encoded, one in each line: its header, its claims
/// and the key set of its issuer.
pub fn identity_token(input: &[u8]) {
    codedeploy_controller::web_identity::fuzzing::identity_token(input);
}
