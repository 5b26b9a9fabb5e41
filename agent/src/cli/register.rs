//! `register` and `deregister`: makes this machine an on-premises instance of CodeDeploy, and
//! undoes it (AWS CodeDeploy User Guide, "Register an on-premises instance").
//!
//! [`request`] checks the request, [`operator`] finds the operator's keys, [`registry`] is the
//! service, [`host_file`] is the on-premises file. If the file cannot be written, the registration
//! is taken back.

mod host_file;
mod operator;
mod registry;
mod request;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::aws::json::CallError;
use crate::aws::{Access, AccessError};
use crate::config::{ConfigError, Environment, Settings};
use crate::identity::{IdentityError, Region};
use crate::output;
use crate::output::fail;
use crate::runtime::on_runtime;
use codedeploy_api::chain::Chain;
use host_file::{FileError, HostFile};
use operator::OperatorError;
use registry::Registry;
use request::{Registration, RequestError, Tag};

const PROGRAM: &str = "codedeploy-agent";

/// The service, and the keys for it. The keys belong to the person who registers, and come from the
/// environment (AWS_ACCESS_KEY_ID …) or a profile of the shared credentials file; they are not
/// stored.
#[derive(Debug, clap::Args)]
struct ServiceArguments {
    /// The instance's name: up to 100 of A–Z, a–z, 0–9 and + = , . @ _ -
    #[arg(long, value_name = "NAME")]
    instance_name: String,
    /// The service's region [default: AWS_REGION or AWS_DEFAULT_REGION]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Another address of the service, such as a controller's [default: AWS_ENDPOINT_URL_CODEDEPLOY
    /// or AWS_ENDPOINT_URL, else AWS]
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// Profile of the shared credentials file [default: keys in the environment, else AWS_PROFILE,
    /// else `default`]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The on-premises file [default: as configured,
    /// /etc/codedeploy-agent/conf/codedeploy.onpremises.yml]
    #[arg(long, value_name = "FILE")]
    on_premises_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("identity").required(true).args(["iam_user_arn", "iam_session_arn"])))]
pub struct RegisterArguments {
    #[command(flatten)]
    service: ServiceArguments,
    /// The IAM user of this machine; needs the user's access key.
    #[arg(long, value_name = "ARN", requires = "access_key_id")]
    iam_user_arn: Option<String>,
    /// The user's access key ID.
    #[arg(
        long,
        value_name = "ID",
        env = "CODEDEPLOY_HOST_ACCESS_KEY_ID",
        hide_env_values = true
    )]
    access_key_id: Option<String>,
    /// A file that contains only the user's secret access key; `-` reads the standard input
    /// [default: the environment's CODEDEPLOY_HOST_SECRET_ACCESS_KEY]
    #[arg(long, value_name = "FILE")]
    secret_access_key_file: Option<PathBuf>,
    /// The role session of this machine; needs --credentials-file.
    #[arg(long, value_name = "ARN", requires = "credentials_file")]
    iam_session_arn: Option<String>,
    /// The absolute path of the shared credentials file that is kept up to date with the session's
    /// keys.
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// A tag by which deployment groups select the machine; up to ten.
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// Replace an on-premises file with other contents.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub struct DeregisterArguments {
    #[command(flatten)]
    service: ServiceArguments,
}

#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Region(#[from] IdentityError),
    #[error("no region: name it with --region, or set AWS_REGION")]
    NoRegion,
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Service(#[from] CallError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{name} is registered already, as {arn}; deregister it first, or choose another name")]
    OtherIdentity { name: String, arn: String },
    #[error(
        "{cause}; the registration of {name} could not be taken back: run `{PROGRAM} deregister --instance-name {name}`"
    )]
    LeftBehind {
        name: String,
        cause: String,
        source: CallError,
    },
    #[error("cannot write to the standard output")]
    Output(#[from] io::Error),
}

/// The common needs of both commands.
struct Desk {
    registry: Registry,
    settings: Settings,
    region: Region,
    file: PathBuf,
}

/// Registers this machine. A repetition changes nothing.
pub fn register(arguments: RegisterArguments, config_file: Option<PathBuf>) -> ExitCode {
    ended(on_runtime(enroll(arguments, config_file)))
}

/// Deregisters this machine. A repetition changes nothing.
pub fn deregister(arguments: DeregisterArguments, config_file: Option<PathBuf>) -> ExitCode {
    ended(on_runtime(withdraw(arguments, config_file)))
}

fn ended(result: io::Result<Result<(), RegisterError>>) -> ExitCode {
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(PROGRAM, &error),
        Err(error) => fail(PROGRAM, &error),
    }
}

impl Desk {
    fn open(
        arguments: &ServiceArguments,
        config_file: Option<PathBuf>,
    ) -> Result<Self, RegisterError> {
        let environment = Environment::of_process();
        let (settings, _) = Settings::load(config_file.as_deref(), &environment)?;
        let region = [
            arguments.region.as_deref(),
            environment.text("AWS_REGION"),
            environment.text("AWS_DEFAULT_REGION"),
        ];
        let region = Region::new(
            region
                .into_iter()
                .flatten()
                .next()
                .ok_or(RegisterError::NoRegion)?,
        )?;
        let keys = operator::keys(arguments.profile.as_deref(), &environment)?;
        let access = Access::new(&settings, region.clone(), &keys)?;
        let endpoint = [
            arguments.endpoint_url.as_deref(),
            environment.text("AWS_ENDPOINT_URL_CODEDEPLOY"),
            environment.text("AWS_ENDPOINT_URL"),
        ];
        let endpoint = endpoint.into_iter().flatten().next();
        let file = arguments
            .on_premises_file
            .clone()
            .unwrap_or_else(|| settings.on_premises_config_file.clone());
        Ok(Self {
            registry: Registry::new(&access, endpoint),
            settings,
            region,
            file,
        })
    }
}

async fn enroll(
    arguments: RegisterArguments,
    config_file: Option<PathBuf>,
) -> Result<(), RegisterError> {
    let mut out = output::out();
    let registration = Registration::check(&arguments, &Environment::of_process())?;
    let Registration {
        name,
        identification,
        tags,
    } = &registration;
    let desk = Desk::open(&arguments.service, config_file)?;
    let host_file = HostFile {
        path: &desk.file,
        region: &desk.region,
        identification,
    };
    let file_stands = host_file.check(arguments.force)?;

    let arn = identification.arn();
    let known = desk
        .registry
        .instance(name)
        .await?
        .filter(|instance| instance.registered);
    let is_new = match known {
        Some(instance) if instance.arn.as_deref() == Some(arn) => {
            writeln!(out, "{name} is registered already, as {arn}")?;
            false
        }
        Some(instance) => {
            let arn = instance.arn.unwrap_or_else(|| "another identity".into());
            return Err(RegisterError::OtherIdentity {
                name: name.clone(),
                arn,
            });
        }
        None => {
            write!(
                out,
                "Registering the on-premises instance {name} as {arn}... "
            )?;
            out.flush()?;
            desk.registry.register(name, identification).await?;
            writeln!(out, "DONE")?;
            true
        }
    };
    let finished = finish(&desk, name, tags, (!file_stands).then_some(&host_file)).await;
    if let Err(error) = finished {
        return Err(take_back(&desk, name, tags, is_new, error).await);
    }
    if file_stands {
        writeln!(out, "{} has these contents already", desk.file.display())?;
    }
    if let (Some(endpoint), None) = (
        desk.registry.endpoint(),
        &desk.settings.endpoints.deploy_control,
    ) {
        writeln!(
            out,
            "For deployments from {endpoint}, set deploy_control_endpoint in the agent's configuration"
        )?;
    }
    writeln!(
        out,
        "{name} is registered; (re)start the agent: systemctl restart codedeploy-agent"
    )?;
    Ok(())
}

/// The steps after a registration: adds the tags, and writes the file unless it exists already.
async fn finish(
    desk: &Desk,
    name: &str,
    tags: &[Tag],
    file: Option<&HostFile<'_>>,
) -> Result<(), RegisterError> {
    let mut out = output::out();
    if !tags.is_empty() {
        write!(out, "Adding tags to {name}: {}... ", listed(tags))?;
        out.flush()?;
        desk.registry.add_tags(name, tags).await?;
        writeln!(out, "DONE")?;
    }
    if let Some(file) = file {
        write!(out, "Writing {}... ", file.path.display())?;
        out.flush()?;
        file.write()?;
        writeln!(out, "DONE")?;
    }
    Ok(())
}

/// Undoes a new registration, and returns the error to end with.
async fn take_back(
    desk: &Desk,
    name: &str,
    tags: &[Tag],
    is_new: bool,
    cause: RegisterError,
) -> RegisterError {
    if !is_new {
        return cause;
    }
    let mut out = output::out();
    let _ = write!(out, "FAILED\nTaking the registration of {name} back... ");
    // The service drops the tags of a deregistered instance; if it did not, the next instance of
    // this name would get them.
    let _ = desk.registry.remove_tags(name, tags).await;
    match desk.registry.deregister(name).await {
        Ok(()) => {
            let _ = writeln!(out, "DONE");
            cause
        }
        Err(source) => {
            let _ = writeln!(out, "FAILED");
            RegisterError::LeftBehind {
                name: name.to_owned(),
                cause: Chain(&cause).to_string(),
                source,
            }
        }
    }
}

async fn withdraw(
    arguments: DeregisterArguments,
    config_file: Option<PathBuf>,
) -> Result<(), RegisterError> {
    let mut out = output::out();
    let name = &request::instance_name(&arguments.service.instance_name)?;
    let desk = Desk::open(&arguments.service, config_file)?;
    let Some(instance) = desk.registry.instance(name).await? else {
        writeln!(out, "{name} was never registered; nothing to do")?;
        return Ok(());
    };
    if instance.registered {
        if !instance.tags.is_empty() {
            write!(
                out,
                "Removing tags from {name}: {}... ",
                listed(&instance.tags)
            )?;
            out.flush()?;
            desk.registry.remove_tags(name, &instance.tags).await?;
            writeln!(out, "DONE")?;
        }
        write!(out, "Deregistering the on-premises instance {name}... ")?;
        out.flush()?;
        desk.registry.deregister(name).await?;
        writeln!(out, "DONE")?;
    } else {
        writeln!(out, "{name} is deregistered already")?;
    }
    let file = desk.file.display();
    match (host_file::arn_in(&desk.file)?, &instance.arn) {
        (None, _) => {}
        (Some(found), Some(arn)) if found == *arn => {
            write!(out, "Removing {file}... ")?;
            out.flush()?;
            host_file::remove(&desk.file)?;
            writeln!(out, "DONE")?;
        }
        (Some(found), _) => writeln!(out, "{file} is kept: it is for {found}")?,
    }
    writeln!(
        out,
        "{name} is deregistered; if its agent runs here, stop it: systemctl stop codedeploy-agent"
    )?;
    Ok(())
}

fn listed(tags: &[Tag]) -> String {
    tags.iter()
        .map(|Tag { key, value }| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(", ")
}
