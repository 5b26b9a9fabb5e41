//! The ids of a deployment's trace: they follow from its own id, so that nothing is stored.

use aws_lc_rs::digest;
use codedeploy_api::trace::TraceParent;

use crate::config::Partition;

/// The root of a deployment's trace.
pub fn of_deployment(partition: &Partition, id: &str) -> TraceParent {
    let Partition { region, account_id } = partition;
    let name = format!("arn:aws:codedeploy:{region}:{account_id}:deployment/{id}");
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    let mut bytes = digest.as_ref().iter().copied();
    let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
    for (to, from) in trace_id.iter_mut().chain(&mut span_id).zip(&mut bytes) {
        *to = from;
    }
    TraceParent::new(trace_id, span_id)
}

/// The span of a host. Those of its lifecycle events are its children by their names, those of
/// scripts the children of these by their positions.
pub fn of_host(deployment: TraceParent, name: &str) -> TraceParent {
    deployment.child(name)
}
