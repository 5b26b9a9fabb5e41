//! The commands about hosts: everything that a new host needs in one step, and its removal.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use codedeploy_api::codedeploy::{Tag, Timestamp};
use codedeploy_api::command::{ANY_SIGNER, AUTHORITY_SIGNER, SIGNER_SEPARATOR};
use serde_json::{Map, Value, json};

use super::admin::{AdminError, transact};
use super::data_dir::DataDir;
use super::output;
use super::table::{table, when};
use crate::config::Endpoint;
use crate::credentials::{self, AccessKey, NewKey, Role};
use crate::deployment::removal;
use crate::identity::Identity;
use crate::keys::Keys;
use crate::new_file::NewFile;
use crate::registry::instances;
use crate::request::{Field as _, NewInstanceName};
use crate::server::Announcement;
use crate::service::{must_exist, open_store};
use crate::signing::Signer;
use crate::tls::Authority;

/// The folder in which AWS's agents and this project's look for their files.
pub(super) const CONF_DIR: &str = "/etc/codedeploy-agent/conf";
const AGENT: &str = "codedeployagent.yml";
const ON_PREMISES: &str = "codedeploy.onpremises.yml";
const AUTHORITY: &str = "codedeploy-controller.pem";
/// As in AWS's package: its Ruby agent has no defaults for the folders, and does not start without
/// them.
const PACKAGED: &str = r#":program_name: codedeploy-agent
:log_dir: "/var/log/aws/codedeploy-agent"
:pid_dir: "/opt/codedeploy-agent/state/.pid"
:root_dir: "/opt/codedeploy-agent/deployment-root"
:max_revisions: 5
:wait_between_runs: 1
"#;

#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error(
        "the service of this data directory has not run yet, so its address is not known: start it, or give --endpoint"
    )]
    NoAddress,
    #[error(
        "the service listens on every address ({0}): give the URL that hosts reach it by with --endpoint, or set endpoint in its configuration file"
    )]
    AnyAddress(SocketAddr),
    #[error(
        "the endpoint {0:?} is not a URL such as https://codedeploy.example.com or http://10.0.0.5:7080, without a path"
    )]
    Endpoint(String),
    #[error(
        "{0} is plain http, and the service answers TLS alone: give the URL that begins with https:// with --endpoint, or set endpoint in its configuration file"
    )]
    PlainHttp(String),
    #[error("the service's own certificate is for {}, not for {host}: set endpoint or tls.names in its configuration file, restart it, and try again", names.join(", "))]
    NotInCertificate { host: String, names: Vec<String> },
    #[error("--conf-dir {} is not an absolute path: it is the folder on the host", .0.display())]
    Relative(PathBuf),
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("there is no on-premises instance {0:?} that is registered")]
    NoSuchHost(String),
}

/// The arguments of `host add`.
#[derive(Debug)]
pub(super) struct NewHost {
    pub(super) name: String,
    pub(super) tags: Vec<Tag>,
    pub(super) endpoint: Option<String>,
    pub(super) output: Option<PathBuf>,
    pub(super) conf_dir: PathBuf,
    pub(super) json: bool,
}

/// Names and contents.
type Files = Vec<(&'static str, String)>;

/// The facts about the service that a host needs.
struct Rendezvous {
    endpoint: Endpoint,
    /// The pins of the signing key and, if it was announced, of the next one.
    signer_pins: Vec<String>,
    /// The PEM of the authority that the host must trust.
    authority: Option<String>,
    has_s3: bool,
    conf_dir: PathBuf,
}

/// Registers and tags an on-premises instance, makes its key, and writes its files, as a whole or
/// not at all.
pub(super) fn add(data: &DataDir, host: NewHost) -> Result<(), AdminError> {
    let NewHost {
        name,
        tags,
        endpoint,
        output,
        conf_dir,
        json,
    } = host;
    if !conf_dir.is_absolute() {
        return Err(HostError::Relative(conf_dir).into());
    }
    let on_host = conf_dir.clone();
    let rendezvous = data.visit(|data_dir| Rendezvous::read(data_dir, endpoint, conf_dir))??;
    let output = match output {
        Some(folder) => rendezvous.new_files(&folder)?,
        None => Vec::new(),
    };
    let (key, files) = data.visit(|data_dir| {
        let open: Vec<_> = output.iter().map(NewFile::to_write).collect();
        transact(data_dir, move |work| {
            let name = NewInstanceName::read(Some(name))?;
            let arn = format!(
                "arn:aws:iam::{}:user/AWS/CodeDeploy/{}",
                work.partition.account_id, &*name
            );
            let identity = Identity::User(arn.clone());
            instances::enroll(work.tx, work.partition, work.now, &name, &identity, &tags)?;
            // The keys of a deregistered host must not become valid again with its name.
            credentials::revoke_host(work.tx, &arn)?;
            let new = NewKey {
                role: Role::Host,
                arn: arn.clone(),
                lifetime: None,
                scopes: Vec::new(),
                subject: None,
            };
            let key = credentials::create(work.tx, work.vault, new)?;
            work.note(
                "host add",
                &format!("{} with {}", &*name, key.access_key_id),
            )?;
            let files = rendezvous.files(&work.partition.region, &key);
            // Before the commit: without its files, the host would be registered with a key that
            // nobody knows.
            match open.as_slice() {
                [] if json => output::hand_over(as_json(&key, &files))?,
                [] => output::hand_over(as_text(&rendezvous.conf_dir, &files))?,
                open => open
                    .iter()
                    .zip(&files)
                    .try_for_each(|(file, (_, text))| file.write(text.as_bytes()))?,
            }
            Ok((key, files))
        })
    })??;
    if output.is_empty() {
        return Ok(());
    }
    let paths: Vec<_> = output
        .into_iter()
        .map(NewFile::keep)
        .collect::<Result<_, _>>()?;
    if json {
        return Ok(output::show(as_json(&key, &files))?);
    }
    let (host, there) = (&key.arn, on_host.display());
    let paths: String = paths
        .iter()
        .map(|path| format!("\n{}", path.display()))
        .collect();
    output::remark(format!(
        "{host} is registered; copy these to its {there}, owned by root with mode 0600:{paths}"
    ));
    Ok(())
}

fn as_json(key: &AccessKey, files: &Files) -> Value {
    let mut shown: Map<_, _> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), json!(text)))
        .collect();
    shown.insert("host_identifier".into(), json!(key.arn));
    shown.insert("access_key_id".into(), json!(key.access_key_id));
    shown.insert("secret_access_key".into(), json!(key.secret_access_key));
    Value::Object(shown)
}

fn as_text(on_host: &Path, files: &Files) -> String {
    let file = |(name, text): &(&str, String)| {
        format!(
            "# {} (owned by root, mode 0600)\n{text}\n",
            on_host.join(name).display()
        )
    };
    files.iter().map(file).collect()
}

fn choose_endpoint(
    given: Option<String>,
    service: Option<&Announcement>,
) -> Result<Endpoint, HostError> {
    let text = match (given, service) {
        (Some(given), _) => given,
        (
            None,
            Some(Announcement {
                endpoint: Some(endpoint),
                ..
            }),
        ) => endpoint.clone(),
        (None, Some(service)) => return Err(HostError::AnyAddress(service.address)),
        (None, None) => return Err(HostError::NoAddress),
    };
    let endpoint = Endpoint::read(&text).ok_or(HostError::Endpoint(text))?;
    if !endpoint.is_tls() && service.is_some_and(|service| service.tls) {
        return Err(HostError::PlainHttp(endpoint.url().to_owned()));
    }
    let names = service
        .map(|service| service.self_signed_for.as_slice())
        .unwrap_or_default();
    if endpoint.is_tls() && !names.is_empty() && !names.iter().any(|name| name == endpoint.host()) {
        return Err(HostError::NotInCertificate {
            host: endpoint.host().to_owned(),
            names: names.to_vec(),
        });
    }
    Ok(endpoint)
}

/// The reason why a URL may be unsuitable for hosts.
fn doubt(endpoint: &Endpoint) -> Option<&'static str> {
    let address = endpoint.host().parse::<IpAddr>();
    if endpoint.host() == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        return Some(
            "this URL reaches the service only from this machine: set endpoint in controller.yml, or give --endpoint",
        );
    }
    (!endpoint.is_tls())
        .then_some("over plain http, anyone between the host and the service can read along")
}

impl Rendezvous {
    /// Reads the facts about the service from its data directory.
    fn read(
        data_dir: &Path,
        endpoint: Option<String>,
        conf_dir: PathBuf,
    ) -> Result<Self, AdminError> {
        must_exist(data_dir)?;
        let announcement = Announcement::read(data_dir);
        let endpoint = choose_endpoint(endpoint, announcement.as_ref())?;
        if let Some(doubt) = doubt(&endpoint) {
            output::complain(format_args!("warning: {}: {doubt}", endpoint.url()));
        }
        let has_s3 = announcement.as_ref().is_some_and(|service| service.has_s3);
        let own = announcement.is_some_and(|service| !service.self_signed_for.is_empty())
            && endpoint.is_tls();
        Ok(Rendezvous {
            endpoint,
            signer_pins: signer_pins(data_dir)?,
            authority: Authority::certificate_pem(data_dir).filter(|_| own),
            has_s3,
            conf_dir,
        })
    }

    /// The files that [`files`](Self::files) fills, in the same order.
    fn new_files(&self, folder: &Path) -> Result<Vec<NewFile>, AdminError> {
        let failed = |source| HostError::Folder {
            path: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let names = [
            Some(AGENT),
            Some(ON_PREMISES),
            self.authority.as_ref().map(|_| AUTHORITY),
        ];
        let make = |name| Ok(NewFile::create(folder.join(name))?);
        names.into_iter().flatten().map(make).collect()
    }

    fn files(&self, region: &str, key: &AccessKey) -> Files {
        let on_the_host = |file: &str| self.conf_dir.join(file).display().to_string();
        let mut agent = format!(
            "{PACKAGED}:deploy_control_endpoint: {:?}\n:deployment_signer_pin: ",
            self.endpoint.url(),
        );
        agent.push_str(&match self.signer_pins.as_slice() {
            [pin] => format!("{pin:?}\n"),
            pins => format!("{pins:?}\n"),
        });
        if self.has_s3 {
            agent.push_str(&format!(
                ":s3_endpoint_override: {:?}\n",
                self.endpoint.url()
            ));
        }
        if self.authority.is_some() {
            agent.push_str(&format!(":ssl_ca_bundle: {:?}\n", on_the_host(AUTHORITY)));
        }
        if self.conf_dir != Path::new(CONF_DIR) {
            agent.push_str(&format!(
                ":on_premises_config_file: {:?}\n",
                on_the_host(ON_PREMISES)
            ));
        }
        let on_premises = format!(
            "region: {region}\niam_user_arn: {}\naws_access_key_id: {}\naws_secret_access_key: {}\n",
            key.arn, key.access_key_id, key.secret_access_key
        );
        let mut files = vec![(AGENT, agent), (ON_PREMISES, on_premises)];
        files.extend(self.authority.clone().map(|pem| (AUTHORITY, pem)));
        files
    }
}

/// Shows the registered hosts, and when each was last seen.
pub(super) fn list(data_dir: &Path, json: bool) -> Result<(), AdminError> {
    let hosts = transact(data_dir, |context| Ok(instances::hosts(context.tx)?))?;
    let pins = signer_pins(data_dir)?;
    let now = Timestamp::now();
    if json {
        let host = |host: &instances::HostReport| {
            let mut shown = json!(host);
            shown["state"] = json!(host.state(now));
            shown["accepts_signer"] = json!(Acceptance::of(host, &pins).words());
            shown
        };
        return Ok(output::show(json!(
            hosts.iter().map(host).collect::<Vec<_>>()
        ))?);
    }
    let row = |host: &instances::HostReport| {
        let half = |half: &Option<String>| half.clone().unwrap_or_default();
        let tags = host
            .tags
            .iter()
            .map(|tag| format!("{}={}", half(&tag.key), half(&tag.value)));
        [
            host.name.clone(),
            host.state(now).to_owned(),
            when(host.last_seen),
            host.agent_version.clone().unwrap_or_else(|| "-".into()),
            Acceptance::of(host, &pins).words().to_owned(),
            tags.collect::<Vec<_>>().join(" "),
        ]
    };
    let rows: Vec<_> = hosts.iter().map(row).collect();
    Ok(output::show(table(
        ["NAME", "STATE", "LAST SEEN", "AGENT", "SIGNER", "TAGS"],
        &rows,
    ))?)
}

/// The digests of the signing key and, if it was announced, of the next one.
fn signer_pins(data_dir: &Path) -> Result<Vec<String>, AdminError> {
    let keys = Keys::of(data_dir, &open_store(data_dir)?);
    let signers = [Some(Signer::open(&keys)?), Signer::announced(&keys)?];
    Ok(signers
        .iter()
        .flatten()
        .map(Signer::pin)
        .collect::<Result<_, _>>()?)
}

/// The signers that a host's agent accepts, as it last reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    /// It did not report any: it has not polled yet, or it is not this project's agent.
    Unknown,
    /// Any signer: it has neither a pin nor an authority.
    Anyone,
    Authority,
    /// The present key, and not the next one.
    Present,
    /// The present key and the next one.
    Both,
    Next,
    /// It rejects every deployment.
    Neither,
}

impl Acceptance {
    fn of(host: &instances::HostReport, pins: &[String]) -> Self {
        let Some(said) = host.accepted_signers.as_deref() else {
            return Self::Unknown;
        };
        let has = |pin: &String| said.split(SIGNER_SEPARATOR).any(|accepted| accepted == pin);
        match (
            said,
            pins.first().is_some_and(has),
            pins.get(1).is_some_and(has),
        ) {
            (ANY_SIGNER, ..) => Self::Anyone,
            (AUTHORITY_SIGNER, ..) => Self::Authority,
            (_, true, true) => Self::Both,
            (_, true, false) => Self::Present,
            (_, false, true) => Self::Next,
            (_, false, false) => Self::Neither,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unknown => "-",
            Self::Anyone => "any",
            Self::Authority => "authority",
            Self::Present => "present",
            Self::Both => "present+next",
            Self::Next => "next",
            Self::Neither => "neither",
        }
    }
}

/// Deregisters a host and revokes its keys: the service rejects its agent from now on.
pub(super) fn remove(data_dir: &Path, name: String) -> Result<(), AdminError> {
    let asked = name.clone();
    let removed = transact(data_dir, move |work| {
        let Some(arn) = removal::remove_host(work.tx, work.now, &name)? else {
            return Ok(false);
        };
        credentials::revoke_host(work.tx, &arn)?;
        work.note("host remove", &name)?;
        Ok(true)
    })?;
    if !removed {
        return Err(HostError::NoSuchHost(asked).into());
    }
    output::remark(format_args!(
        "{asked} is deregistered and its keys are revoked; what it had begun fails within a second"
    ));
    Ok(())
}
