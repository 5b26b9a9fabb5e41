//! The commands that work on the data directory, whether the service runs or not.

use std::net::SocketAddr;
use std::path::Path;

use codedeploy_api::codedeploy::{Tag, Timestamp};
use serde_json::json;

use crate::config::{ConfigError, Partition, Quotas, Timers};
use crate::credentials::{self, Role};
use crate::error::ApiError;
use crate::page::Pages;
use crate::registry::Context;
use crate::registry::instances::{self, Identity};
use crate::request::Field as _;
use crate::request::members::InstanceName;
use crate::server::Announcement;
use crate::service::{OpenError, open_store, prepare};
use crate::signing::{Signer, SigningError};
use crate::traffic::Balancers;
use crate::vault::{Vault, VaultError};

#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("refused")]
    Refused(#[from] ApiError),
    #[error(
        "{0:?} is not an IAM user ARN (arn:aws:iam::<account>:user/<name>) or a session ARN (arn:aws:sts::<account>:assumed-role/<role>/<session>)"
    )]
    Arn(String),
    #[error(
        "a key of role host needs --user-arn, the identity its instance is registered with; `host add` does both"
    )]
    HostArn,
    #[error("there is no access key {0:?} that is not revoked already")]
    NoSuchKey(String),
    #[error(
        "the service of this data directory has not run yet, so its address is not known: start it, or give --endpoint"
    )]
    NoAddress,
    #[error(
        "the service listens on every address ({0}): give the one that hosts reach it by with --endpoint"
    )]
    AnyAddress(SocketAddr),
    #[error("the endpoint {0:?} is not a URL such as https://codedeploy.example.com or http://10.0.0.5:7080")]
    Endpoint(String),
}

/// Whether agents would take the text for their endpoint; it is printed between quotes.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let allowed = |c: char| c.is_ascii_graphic() && !"\"\\".contains(c);
        !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(allowed)
    })
}

/// Reads `key=value`.
pub(super) fn tag(text: &str) -> Result<Tag, String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not a tag: expected key=value"))?;
    Ok(Tag { key: Some(key.to_owned()), value: Some(value.to_owned()) })
}

/// Where the service of a data directory says its resources are.
fn partition(data_dir: &Path) -> Result<Partition, ConfigError> {
    match Announcement::read(data_dir) {
        Some(service) => Partition::new(Some(service.region), Some(service.account_id)),
        None => Partition::new(None, None),
    }
}

pub(super) fn create_credentials(
    data_dir: &Path,
    role: Role,
    user_arn: Option<String>,
    json: bool,
) -> Result<(), AdminError> {
    prepare(data_dir)?;
    let account_id = partition(data_dir)?.account_id;
    let arn = match (user_arn, role) {
        (Some(arn), _) if Identity::user(&arn).or_else(|| Identity::session(&arn)).is_some() => arn,
        (Some(arn), _) => return Err(AdminError::Arn(arn)),
        (None, Role::Host) => return Err(AdminError::HostArn),
        (None, Role::Operator) => format!("arn:aws:iam::{account_id}:user/operator"),
        (None, Role::ReadOnly) => format!("arn:aws:iam::{account_id}:user/read-only"),
    };
    let vault = Vault::open(data_dir)?;
    let key =
        open_store(data_dir)?.transact_blocking(move |tx| credentials::create(tx, &vault, role, &arn))?;
    if json {
        println!("{}", json!(key));
    } else {
        println!("Access key for {}; the secret is not shown again:", key.arn);
        println!("aws_access_key_id = {}", key.access_key_id);
        println!("aws_secret_access_key = {}", key.secret_access_key);
    }
    Ok(())
}

pub(super) fn list_credentials(data_dir: &Path, json: bool) -> Result<(), AdminError> {
    let keys = open_store(data_dir)?.transact_blocking(|tx| credentials::list(tx).map_err(ApiError::from))?;
    if json {
        println!("{}", json!(keys));
    } else {
        for key in keys {
            let state = if key.revoked.is_some() { "revoked" } else { "active" };
            println!("{}  {state:7}  {:9}  {}", key.access_key_id, key.role, key.arn);
        }
    }
    Ok(())
}

pub(super) fn revoke_credentials(data_dir: &Path, access_key_id: String) -> Result<(), AdminError> {
    let id = access_key_id.clone();
    let revoked = open_store(data_dir)?
        .transact_blocking(move |tx| credentials::revoke(tx, &id).map_err(ApiError::from))?;
    if revoked { Ok(()) } else { Err(AdminError::NoSuchKey(access_key_id)) }
}

pub(super) fn add_host(
    data_dir: &Path,
    name: String,
    tags: Vec<Tag>,
    endpoint: Option<String>,
    json: bool,
) -> Result<(), AdminError> {
    prepare(data_dir)?;
    let endpoint = match (endpoint, Announcement::read(data_dir)) {
        (Some(endpoint), _) if is_url(&endpoint) => endpoint,
        (Some(endpoint), _) => return Err(AdminError::Endpoint(endpoint)),
        (None, Some(service)) if service.address.ip().is_unspecified() => {
            return Err(AdminError::AnyAddress(service.address));
        }
        (None, Some(service)) => format!("http://{}", service.address),
        (None, None) => return Err(AdminError::NoAddress),
    };
    let partition = partition(data_dir)?;
    let vault = Vault::open(data_dir)?;
    let region = partition.region.clone();
    let signer = Signer::open(data_dir)?;
    let key = open_store(data_dir)?.transact_blocking(move |tx| {
        let name = InstanceName::read(Some(name))?;
        let arn = format!("arn:aws:iam::{}:user/AWS/CodeDeploy/{name}", partition.account_id);
        let context = Context {
            tx,
            now: Timestamp::now(),
            partition: &partition,
            quotas: &Quotas::default(),
            timers: &Timers::default(),
            balancers: &Balancers::default(),
            pages: &Pages::new(vault.page_key()),
        };
        let identity = Identity::User(arn.clone());
        instances::enroll(&context, &name, &identity, &tags)?;
        // Keys of a host that was deregistered must not come back to life with its name.
        credentials::revoke_host(tx, &arn)?;
        credentials::create(tx, &vault, Role::Host, &arn)
    })?;
    let on_premises = format!(
        "region: {region}\niam_user_arn: {}\naws_access_key_id: {}\naws_secret_access_key: {}\n",
        key.arn, key.access_key_id, key.secret_access_key
    );
    let agent =
        format!(":deploy_control_endpoint: \"{endpoint}\"\n:deployment_signer_pin: \"{}\"\n", signer.pin()?);
    if json {
        println!(
            "{}",
            json!({
                "host_identifier": key.arn,
                "access_key_id": key.access_key_id,
                "secret_access_key": key.secret_access_key,
                "codedeploy.onpremises.yml": on_premises,
                "codedeployagent.yml": agent,
            })
        );
    } else {
        println!("# /etc/codedeploy-agent/conf/codedeploy.onpremises.yml (mode 0600)\n{on_premises}");
        println!("# add to /etc/codedeploy-agent/conf/codedeployagent.yml\n{agent}");
    }
    Ok(())
}

pub(super) fn show_signer(data_dir: &Path) -> Result<(), AdminError> {
    prepare(data_dir)?;
    let signer = Signer::open(data_dir)?;
    print!("{}", signer.certificate_pem()?);
    println!("deployment_signer_pin: {}", signer.pin()?);
    Ok(())
}
