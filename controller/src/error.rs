//! The errors of both APIs, with AWS's names.

use codedeploy_api::chain::Chain;
use codedeploy_api::command::ErrorBody;

use crate::store::{SqlError, StoreError};

/// A rejected or failed request, as reported to the client.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {message}")]
pub struct ApiError {
    pub name: ErrorName,
    pub message: String,
}

impl ApiError {
    /// An error of the service itself; the cause goes to the log, not to the client.
    fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(cause), "a request failed inside the service");
        ErrorName::InternalFailure.because(
            "the service could not complete the request; its log has the cause under this request id",
        )
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            kind: self.name.text(),
            message: self.message.clone(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(cause: StoreError) -> Self {
        Self::internal(&cause)
    }
}

impl From<SqlError> for ApiError {
    fn from(cause: SqlError) -> Self {
        // The caller knows the record and its fate.
        if cause.is_damage() {
            return ErrorName::DamagedRecord
                .because(format!("a record cannot be read: {}", chain(&cause)));
        }
        Self::internal(&cause)
    }
}

/// Formats an error and its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

macro_rules! error_names {
    ($($name:ident)*) => {
        /// The name of an error, without the suffix `Exception` that most have on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorName { $($name,)* }

        impl ErrorName {
            /// The name without a suffix.
            pub fn bare(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

error_names! {
    AccessDenied AgentUpdateDoesNotExist AgentUpdateInProgress AlarmsLimitExceeded ApplicationAlreadyExists ApplicationDoesNotExist ApplicationLimitExceeded
    ApplicationNameRequired ArnNotSupported BatchLimitExceeded BucketNameFilterRequired Client DamagedRecord
    DeploymentAlreadyCompleted DeploymentConfigAlreadyExists DeploymentConfigDoesNotExist
    DeploymentConfigInUse DeploymentConfigLimitExceeded DeploymentConfigNameRequired DeploymentDoesNotExist
    DeploymentGroupAlreadyExists DeploymentGroupDoesNotExist DeploymentGroupLimitExceeded
    DeploymentGroupNameRequired DeploymentIdRequired DeploymentIsNotInReadyState DeploymentLimitExceeded
    DeploymentNotStarted DeploymentTargetDoesNotExist DeploymentTargetIdRequired DescriptionTooLong ExpiredIdentityToken
    ExpiredToken
    GitHubAccountTokenDoesNotExist GitHubAccountTokenNameRequired IamArnRequired
    IamSessionArnAlreadyRegistered IamUserArnAlreadyRegistered IdentityProviderCommunication IncompleteSignature InstanceDoesNotExist
    InstanceIdRequired InstanceLimitExceeded InstanceNameAlreadyRegistered InstanceNameRequired
    InstanceNotRegistered InternalFailure InvalidAlarmConfig InvalidApplicationName InvalidArn
    InvalidAutoRollbackConfig InvalidAutoScalingGroup InvalidAutoScalingGroupProcessToSuspend
    InvalidBlueGreenDeploymentConfiguration InvalidBucketNameFilter InvalidComputePlatform
    InvalidDeployedStateFilter InvalidDeploymentConfigName InvalidDeploymentGroupName InvalidDeploymentId
    InvalidDeploymentInstanceType InvalidDeploymentStatus InvalidDeploymentStyle InvalidDeploymentTargetId
    InvalidDeploymentWaitType InvalidEC2Tag InvalidEC2TagCombination InvalidECSService InvalidExternalId
    InvalidFileExistsBehavior InvalidGitHubAccountToken InvalidGitHubAccountTokenName InvalidIamSessionArn InvalidIamUserArn
    InvalidIdentityToken
    InvalidInput InvalidInstanceName InvalidInstanceStatus InvalidInstanceType InvalidKeyPrefixFilter
    InvalidLoadBalancerInfo InvalidMinimumHealthyHostValue InvalidNextToken InvalidOnPremisesTagCombination
    InvalidOperation InvalidRegistrationStatus InvalidRevision InvalidRole InvalidSignature InvalidSortBy
    InvalidSortOrder InvalidTag InvalidTagFilter InvalidTagsToAdd InvalidTargetFilterName
    InvalidTargetInstances InvalidTimeRange InvalidTrafficRoutingConfiguration InvalidTriggerConfig
    InvalidZonalDeploymentConfiguration MissingAuthenticationToken MultipleIamArnsProvided
    RequestEntityTooLarge RequestTimeout ResourceArnRequired RevisionDoesNotExist RevisionRequired
    RoleRequired Serialization TagLimitExceeded TagRequired TagSetListLimitExceeded Throttling
    TriggerTargetsLimitExceeded UnknownOperation UnrecognizedClient UnsupportedActionForDeploymentType UnsupportedMediaType
    ValidationError
}

impl ErrorName {
    /// The name on the wire.
    pub fn text(self) -> String {
        match self {
            Self::InternalFailure | Self::DamagedRecord => Self::InternalFailure.bare().to_owned(),
            named => format!("{}Exception", named.bare()),
        }
    }

    pub fn because(self, message: impl Into<String>) -> ApiError {
        ApiError {
            name: self,
            message: message.into(),
        }
    }

    /// The HTTP status: 400 for every error that the client can fix.
    pub fn status(self) -> u16 {
        match self {
            Self::InternalFailure | Self::DamagedRecord => 500,
            Self::RequestTimeout => 408,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            _ => 400,
        }
    }
}

impl std::fmt::Display for ErrorName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}
