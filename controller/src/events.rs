//! Reports deployments' changes to receivers, and starts deployments of new revisions.
//!
//! Out: the transaction that changes a state notes it in the database by itself (triggers of the
//! schema). Of what was noted, [`outbox`] makes messages ([`message`]: as EventBridge and as SNS
//! have them), and [`delivery`] takes them to their receivers until they are taken or a day is
//! over. In: [`bucket_notification`] reads notifications of buckets, and [`pending_deployments`]
//! starts what they ask for.

pub mod bucket_notification;
pub mod delivery;
pub mod message;
pub(crate) mod outbox;
pub mod pending_deployments;

use std::sync::Arc;

use crate::error::ApiError;
use crate::service::Service;

/// Creates messages for all recorded changes, before the changed objects are removed.
pub(crate) async fn catch_up(service: &Arc<Service>) -> Result<(), ApiError> {
    while service
        .transact(|service, context| outbox::compose(context, &service.settings.events))
        .await?
    {}
    Ok(())
}
