//! The agents' API, AWS JSON 1.1: `X-Amz-Target: CodeDeployCommandService_v20141006.<Operation>`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::diagnostics::ScriptRun;
use crate::object::{null_is_default, objects};
pub use crate::operation::Operation;
use crate::operation::operations;

/// The prefix of `X-Amz-Target`.
pub const TARGET_PREFIX: &str = "CodeDeployCommandService_v20141006";
/// The prefix of `X-Amz-Target` on the endpoint with authorisation policies.
pub const TARGET_PREFIX_SECURE: &str = "CodeDeployCommandService";
/// SigV4 service name.
pub const SIGNING_NAME: &str = "codedeploy-commands";
/// The SigV4 service name on the endpoint with authorisation policies.
pub const SIGNING_NAME_SECURE: &str = "codedeploy-commands-secure";
/// The header with the agent's version.
pub const AGENT_VERSION_HEADER: &str = "x-amz-codedeploy-agent-version";

/// The header in which this project's controller announces its signing keys: the SHA-256 digests of
/// the present public key and, if one is announced, of the next one. AWS's service does not send
/// it.
pub const SIGNERS_HEADER: &str = "x-codedeploy-signers";
/// The header in which an agent lists the signers that it accepts, sent to a service that sends
/// [`SIGNERS_HEADER`]: digests, or [`ANY_SIGNER`], or [`AUTHORITY_SIGNER`].
pub const ACCEPTED_SIGNERS_HEADER: &str = "x-codedeploy-accepted-signers";
/// The header in which an agent says that it carries out [`UPDATE`], sent to a service that sends
/// [`SIGNERS_HEADER`]; its value is [`CAN_UPDATE`].
pub const UPDATE_HEADER: &str = "x-codedeploy-agent-update";
/// The operator of the host has configured a command that updates the agent.
pub const CAN_UPDATE: &str = "configured";
/// The name of the host command that updates the agent.
pub const UPDATE: &str = "UpdateDeploymentAgent";

/// Any signer is accepted.
pub const ANY_SIGNER: &str = "any";
/// Signers whose certificate chains to an authority are accepted.
pub const AUTHORITY_SIGNER: &str = "authority";
/// The separator of the digests in a header.
pub const SIGNER_SEPARATOR: char = ',';

/// The header with which a service numbers its responses; proxies on the way have no reason to send
/// it.
pub const REQUEST_ID_HEADER: &str = "x-amzn-requestid";

/// The content type of both APIs.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The largest payload of an [`Envelope`] in a request, in characters.
pub const MAX_DIAGNOSTICS_PAYLOAD: usize = 8192;

/// The number of bytes of text in one part of a script log; the last part may be shorter.
pub const SCRIPT_LOG_PART: usize = 256 * 1024;
/// The largest script log that can be sent, in bytes of text.
pub const MAX_SCRIPT_LOG: usize = 4 * 1024 * 1024;

/// The only value of `DeploymentSystem`.
pub const DEPLOYMENT_SYSTEM: &str = "CodeDeploy";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PollHostCommandInput {
    pub host_identifier: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PollHostCommandOutput {
    /// Absent if there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_command: Option<HostCommand>,
}

/// One command for one host. The receiver checks the members: even a command that lacks one must be
/// answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct HostCommand {
    /// Opaque; the only key of acknowledgement and completion.
    pub host_command_identifier: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub host_identifier: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub deployment_execution_id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub command_name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub nonce: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct GetDeploymentSpecificationInput {
    pub deployment_execution_id: String,
    pub host_identifier: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct GetDeploymentSpecificationOutput {
    #[serde(default, deserialize_with = "null_is_default")]
    pub deployment_system: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_specification: Option<DeploymentSpecification>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct DeploymentSpecification {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic_envelope: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant_envelope: Option<Envelope>,
}

/// A payload and the name of its format, 1 to 64 characters. An envelope without a format is still
/// read: a report matters more than its form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct Envelope {
    #[serde(default, deserialize_with = "null_is_default")]
    pub format: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub payload: String,
}

impl Envelope {
    /// The format of diagnostics.
    pub const JSON: &'static str = "JSON";
    /// The format of a signed deployment specification.
    pub const PKCS7_JSON: &'static str = "PKCS7/JSON";
    /// The format of an unsigned one; only the local command makes it, for itself.
    pub const TEXT_JSON: &'static str = "TEXT/JSON";
}

/// The status of a command, as its host and the service exchange it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandStatus {
    Pending,
    InProgress,
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PutHostCommandAcknowledgementInput {
    pub host_command_identifier: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Envelope>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PutHostCommandAcknowledgementOutput {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_status: Option<CommandStatus>,
}

/// Reads a member whose form must not be a reason to lose a report.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    member: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(member)?;
    Ok(serde_json::from_value(value).ok())
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PutHostCommandCompleteInput {
    pub host_command_identifier: String,
    pub command_status: CommandStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Envelope>,
    /// The scripts that ran, if the specification has a place in a trace, which only this project's
    /// controller sends.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "if_readable"
    )]
    pub scripts: Option<Vec<ScriptRun>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PutHostCommandCompleteOutput {
    /// Asks for the whole script output of the command. Only this project's controller sends it,
    /// and only to an agent that has sent [`ACCEPTED_SIGNERS_HEADER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_log: Option<WantedScriptLog>,
}

/// The limits of a script log that the controller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct WantedScriptLog {
    /// The largest text that the controller keeps, in bytes.
    pub max_bytes: usize,
}

/// Sends a part of the script output of a command that has ended. Only this project's controller
/// has the operation, and an agent calls it only if the response to [`PutHostCommandCompleteInput`]
/// asked for the output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PutHostCommandLogInput {
    pub host_command_identifier: String,
    /// The size of the whole text.
    pub bytes: usize,
    /// The position of this part, from 0: all parts but the last have [`SCRIPT_LOG_PART`] bytes.
    pub part: usize,
    /// The text of the part, compressed with gzip, in Base64.
    pub content: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PutHostCommandLogOutput {}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PostHostCommandUpdateInput {
    pub host_command_identifier: String,
    /// Seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_completion_time: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Envelope>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PostHostCommandUpdateOutput {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_status: Option<CommandStatus>,
}

/// Reports a deployment that was taken back on a host outside of a command, by hand or by the host
/// itself. Only this project's controller has the operation, and only it receives the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", remote = "Self")]
pub struct PostHostRollbackInput {
    #[serde(default, deserialize_with = "null_is_default")]
    pub host_identifier: String,
    /// The deployment that was taken back.
    pub deployment_id: String,
    /// The deployment whose files are restored; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_deployment_id: Option<String>,
    /// Seconds since the epoch, by the host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<f64>,
    /// The result, for people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub message: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PostHostRollbackOutput {}

objects! {
    PostHostRollbackInput PostHostRollbackOutput
    PollHostCommandInput PollHostCommandOutput HostCommand
    GetDeploymentSpecificationInput GetDeploymentSpecificationOutput DeploymentSpecification Envelope
    PutHostCommandAcknowledgementInput PutHostCommandAcknowledgementOutput
    PutHostCommandCompleteInput PutHostCommandCompleteOutput WantedScriptLog
    PutHostCommandLogInput PutHostCommandLogOutput
    PostHostCommandUpdateInput PostHostCommandUpdateOutput
}

operations! {
    "PollHostCommand": PollHostCommandInput => PollHostCommandOutput, may_be_empty;
    "GetDeploymentSpecification": GetDeploymentSpecificationInput => GetDeploymentSpecificationOutput;
    "PutHostCommandAcknowledgement": PutHostCommandAcknowledgementInput => PutHostCommandAcknowledgementOutput;
    "PutHostCommandComplete": PutHostCommandCompleteInput => PutHostCommandCompleteOutput, may_be_empty;
    "PutHostCommandLog": PutHostCommandLogInput => PutHostCommandLogOutput;
    "PostHostCommandUpdate": PostHostCommandUpdateInput => PostHostCommandUpdateOutput;
    "PostHostRollback": PostHostRollbackInput => PostHostRollbackOutput;
}

/// The body of every error of both APIs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error's name, which a service may prefix with a namespace and `#`.
    #[serde(rename = "__type", default)]
    pub kind: String,
    #[serde(alias = "Message", default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
