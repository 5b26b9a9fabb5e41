//! The commands about hosts: all that a new one needs, in one step, and its end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use codedeploy_api::codedeploy::{Tag, Timestamp};
use serde_json::{Map, json};

use super::admin::{AdminError, partition};
use crate::config::Endpoint;
use crate::credentials::{self, AccessKey, Role};
use crate::registry::instances::{self, Identity};
use crate::request::Field as _;
use crate::request::members::InstanceName;
use crate::server::Announcement;
use crate::service::{open_store, prepare};
use crate::signing::Signer;
use crate::tls::Authority;
use crate::vault::Vault;

/// Where AWS's agents and this project's look for their files.
pub(super) const CONF_DIR: &str = "/etc/codedeploy-agent/conf";
const AGENT: &str = "codedeployagent.yml";
const ON_PREMISES: &str = "codedeploy.onpremises.yml";
const AUTHORITY: &str = "codedeploy-controller.pem";
/// As in AWS's package: its Ruby agent has no defaults for the folders and does not start without them.
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
    #[error("the service's own certificate is for {}, not for {host}: set endpoint or tls.names in its configuration file, restart it, and try again", names.join(", "))]
    NotInCertificate { host: String, names: Vec<String> },
    #[error("--conf-dir {} is not an absolute path: it is the folder on the host", .0.display())]
    Relative(PathBuf),
    #[error("{} exists already: give an empty or a new folder with --output", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("there is no on-premises instance {0:?} that is registered")]
    NoSuchHost(String),
}

/// What `host add` is told.
#[derive(Debug)]
pub(super) struct NewHost {
    pub(super) name: String,
    pub(super) tags: Vec<Tag>,
    pub(super) endpoint: Option<String>,
    pub(super) output: Option<PathBuf>,
    pub(super) conf_dir: PathBuf,
    pub(super) json: bool,
}

/// What a host is told of the service.
struct Rendezvous {
    endpoint: Endpoint,
    region: String,
    signer_pin: String,
    /// PEM of the authority that the host must trust.
    authority: Option<String>,
    has_s3: bool,
    conf_dir: PathBuf,
}

/// Registers and tags an on-premises instance, makes its key, and writes its files: all of it or nothing.
pub(super) fn add(data_dir: &Path, host: NewHost) -> Result<(), AdminError> {
    prepare(data_dir)?;
    let NewHost { name, tags, endpoint, output, conf_dir, json } = host;
    if !conf_dir.is_absolute() {
        return Err(HostError::Relative(conf_dir).into());
    }
    let announcement = Announcement::read(data_dir);
    let endpoint = choose_endpoint(endpoint, announcement.as_ref())?;
    let has_s3 = announcement.as_ref().is_some_and(|service| service.has_s3);
    let own = announcement.is_some_and(|service| !service.self_signed_for.is_empty()) && endpoint.is_tls();
    let partition = partition(data_dir)?;
    let on_host = conf_dir.clone();
    let rendezvous = Rendezvous {
        endpoint,
        region: partition.region.clone(),
        signer_pin: Signer::open(data_dir)?.pin()?,
        authority: Authority::certificate_pem(data_dir).filter(|_| own),
        has_s3,
        conf_dir,
    };
    let vault = Vault::open(data_dir)?;
    let written = output.clone();
    let (key, files) = open_store(data_dir)?.transact_blocking(move |tx| {
        let name = InstanceName::read(Some(name))?;
        let arn = format!("arn:aws:iam::{}:user/AWS/CodeDeploy/{name}", partition.account_id);
        let identity = Identity::User(arn.clone());
        instances::enroll(tx, &partition, Timestamp::now(), &name, &identity, &tags)?;
        // Keys of a host that was deregistered must not come back to life with its name.
        credentials::revoke_host(tx, &arn)?;
        let key = credentials::create(tx, &vault, Role::Host, &arn, None)?;
        let files = rendezvous.files(&key);
        // Before the commit: without its files the host would be registered with a key that nobody knows.
        if let Some(folder) = &written {
            write(folder, &files)?;
        }
        Ok::<_, AdminError>((key, files))
    })?;
    if json {
        let mut shown: Map<_, _> =
            files.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect();
        shown.insert("host_identifier".into(), json!(key.arn));
        shown.insert("access_key_id".into(), json!(key.access_key_id));
        shown.insert("secret_access_key".into(), json!(key.secret_access_key));
        println!("{}", json!(shown));
    } else if let Some(folder) = output {
        let there = on_host.display();
        println!("{} is registered; copy these to its {there}, owned by root with mode 0600:", key.arn);
        for (name, _) in files {
            println!("{}", folder.join(name).display());
        }
    } else {
        for (name, text) in files {
            println!("# {} (owned by root, mode 0600)\n{text}", on_host.join(name).display());
        }
    }
    Ok(())
}

fn choose_endpoint(given: Option<String>, service: Option<&Announcement>) -> Result<Endpoint, HostError> {
    let text = match (given, service) {
        (Some(given), _) => given,
        (None, Some(Announcement { endpoint: Some(endpoint), .. })) => endpoint.clone(),
        (None, Some(service)) => return Err(HostError::AnyAddress(service.address)),
        (None, None) => return Err(HostError::NoAddress),
    };
    let endpoint = Endpoint::read(&text).ok_or(HostError::Endpoint(text))?;
    let names = service.map(|service| service.self_signed_for.as_slice()).unwrap_or_default();
    if endpoint.is_tls() && !names.is_empty() && !names.iter().any(|name| name == endpoint.host()) {
        return Err(HostError::NotInCertificate { host: endpoint.host().to_owned(), names: names.to_vec() });
    }
    Ok(endpoint)
}

impl Rendezvous {
    fn files(&self, key: &AccessKey) -> Vec<(&'static str, String)> {
        let on_the_host = |file: &str| self.conf_dir.join(file).display().to_string();
        let mut agent = format!(
            "{PACKAGED}:deploy_control_endpoint: {:?}\n:deployment_signer_pin: {:?}\n",
            self.endpoint.url(),
            self.signer_pin,
        );
        if self.has_s3 {
            agent.push_str(&format!(":s3_endpoint_override: {:?}\n", self.endpoint.url()));
        }
        if self.authority.is_some() {
            agent.push_str(&format!(":ssl_ca_bundle: {:?}\n", on_the_host(AUTHORITY)));
        }
        if self.conf_dir != Path::new(CONF_DIR) {
            agent.push_str(&format!(":on_premises_config_file: {:?}\n", on_the_host(ON_PREMISES)));
        }
        let on_premises = format!(
            "region: {}\niam_user_arn: {}\naws_access_key_id: {}\naws_secret_access_key: {}\n",
            self.region, key.arn, key.access_key_id, key.secret_access_key
        );
        let mut files = vec![(AGENT, agent), (ON_PREMISES, on_premises)];
        files.extend(self.authority.clone().map(|pem| (AUTHORITY, pem)));
        files
    }
}

/// Writes new files, their owner's alone.
fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), HostError> {
    let failed = |path: &Path, source| HostError::Write { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(folder, error))?;
    if let Some((name, _)) = files.iter().find(|(name, _)| folder.join(name).symlink_metadata().is_ok()) {
        return Err(HostError::Exists(folder.join(name)));
    }
    for (name, text) in files {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| failed(&path, error))?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
}

/// Deregisters a host and revokes its keys: its agent is refused from now on.
pub(super) fn remove(data_dir: &Path, name: String) -> Result<(), AdminError> {
    let asked = name.clone();
    let removed = open_store(data_dir)?.transact_blocking(move |tx| {
        let Some(arn) = instances::remove(tx, Timestamp::now(), &name)? else {
            return Ok(false);
        };
        credentials::revoke_host(tx, &arn)?;
        Ok::<_, AdminError>(true)
    })?;
    if removed { Ok(()) } else { Err(HostError::NoSuchHost(asked).into()) }
}
