//! Blue/green deployments: their effect on later ones.

use aws_sdk_codedeploy::Client;
use aws_sdk_codedeploy::types::{
    AutoRollbackConfiguration, AutoRollbackEvent, BlueGreenDeploymentConfiguration,
    BlueInstanceTerminationOption, DeploymentOption, DeploymentReadyAction, DeploymentReadyOption,
    DeploymentStatus, DeploymentStyle, DeploymentType, DeploymentWaitType, Ec2TagFilter,
    GreenFleetProvisioningAction, GreenFleetProvisioningOption, InstanceAction, LoadBalancerInfo,
    TagFilter, TagFilterType, TargetGroupInfo, TargetInstances,
};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

use crate::support::{Agent, Controller, shop};

/// A controller with a load balancer that does everything asked for, and two instances that are
/// tagged with the name of their fleet; `a` is in the group.
async fn two_fleets() -> (Controller, Client, [Agent; 2]) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balancer = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(async || StatusCode::NO_CONTENT));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!(
        "timers: {{poll: 5}}\nload_balancers:\n  lb: {{webhook: {{url: 'http://{balancer}/'}}}}\n"
    );
    let controller = Controller::start(&config);
    let agents = ["a", "b"].map(|name| controller.host(name, &[format!("fleet={name}").as_str()]));
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.AllAtOnce").await;

    let ready = DeploymentReadyOption::builder()
        .action_on_timeout(DeploymentReadyAction::ContinueDeployment);
    let blue = BlueInstanceTerminationOption::builder()
        .action(InstanceAction::Terminate)
        .termination_wait_time_in_minutes(60);
    let green = GreenFleetProvisioningOption::builder()
        .action(GreenFleetProvisioningAction::DiscoverExisting);
    let configuration = BlueGreenDeploymentConfiguration::builder()
        .deployment_ready_option(ready.build())
        .terminate_blue_instances_on_deployment_success(blue.build())
        .green_fleet_provisioning_option(green.build());
    let style = DeploymentStyle::builder()
        .deployment_type(DeploymentType::BlueGreen)
        .deployment_option(DeploymentOption::WithTrafficControl);
    let balancer = TargetGroupInfo::builder().name("lb").build();
    let rollback = AutoRollbackConfiguration::builder()
        .enabled(true)
        .events(AutoRollbackEvent::DeploymentFailure);
    client
        .update_deployment_group()
        .application_name("shop")
        .current_deployment_group_name("web")
        .deployment_style(style.build())
        .load_balancer_info(
            LoadBalancerInfo::builder()
                .target_group_info_list(balancer)
                .build(),
        )
        .blue_green_deployment_configuration(configuration.build())
        .auto_rollback_configuration(rollback.build())
        .send()
        .await
        .unwrap();
    serve_from(&client, "a").await;
    (controller, client, agents)
}

/// Makes a fleet the group's.
async fn serve_from(client: &Client, fleet: &str) {
    let filter = TagFilter::builder()
        .key("fleet")
        .value(fleet)
        .r#type(TagFilterType::KeyAndValue);
    let update = client.update_deployment_group().application_name("shop");
    let update = update.current_deployment_group_name("web");
    update
        .on_premises_instance_tag_filters(filter.build())
        .send()
        .await
        .unwrap();
}

/// Creates a deployment to a fleet that is to replace the group's.
async fn replace_by(client: &Client, fleet: &str) -> String {
    let tag = Ec2TagFilter::builder().key("fleet").value(fleet).build();
    let request = client
        .create_deployment()
        .application_name("shop")
        .deployment_group_name("web");
    let request = request.target_instances(TargetInstances::builder().tag_filters(tag).build());
    let output = request
        .revision(shop::revision("app.zip"))
        .send()
        .await
        .unwrap();
    output.deployment_id().unwrap().to_owned()
}

async fn succeeds(client: &Client, id: &str) {
    let info = shop::ended(client, id).await;
    assert_eq!(
        info.status(),
        Some(&DeploymentStatus::Succeeded),
        "{info:?}"
    );
}

async fn is_deregistered(client: &Client, name: &str) -> bool {
    let output = client
        .get_on_premises_instance()
        .instance_name(name)
        .send()
        .await
        .unwrap();
    output.instance_info().unwrap().deregister_time().is_some()
}

#[tokio::test]
async fn an_original_that_serves_again_is_not_deregistered_when_its_time_would_be_over() {
    let (_controller, client, [a, b]) = two_fleets().await;
    let there = replace_by(&client, "b").await;
    b.run_to("AfterAllowTraffic").await;
    a.run_to("AfterBlockTraffic").await;
    succeeds(&client, &there).await;
    serve_from(&client, "b").await;
    let back = replace_by(&client, "a").await;
    a.run_to("AfterAllowTraffic").await;
    b.run_to("AfterBlockTraffic").await;
    succeeds(&client, &back).await;

    for (id, gone) in [(&there, false), (&back, true)] {
        let end = client.continue_deployment().deployment_id(id);
        end.deployment_wait_type(DeploymentWaitType::TerminationWait)
            .send()
            .await
            .unwrap();
        assert!(!is_deregistered(&client, "a").await, "it serves");
        assert_eq!(is_deregistered(&client, "b").await, gone);
    }
}

#[tokio::test]
async fn traffic_that_goes_back_makes_no_revision_good() {
    let (_controller, client, [a, b]) = two_fleets().await;
    let id = replace_by(&client, "b").await;
    b.run_to("BeforeAllowTraffic").await;
    b.fail(&b.poll().await.unwrap()).await;
    let by = shop::ended(&client, &id)
        .await
        .rollback_info()
        .unwrap()
        .rollback_deployment_id()
        .unwrap()
        .to_owned();
    a.run_to("AfterAllowTraffic").await;
    b.run_to("AfterBlockTraffic").await;
    succeeds(&client, &by).await;
    let group = client
        .get_deployment_group()
        .application_name("shop")
        .deployment_group_name("web");
    let group = group.send().await.unwrap().deployment_group_info.unwrap();
    assert_eq!(
        group.last_attempted_deployment().unwrap().deployment_id(),
        Some(by.as_str())
    );
    assert_eq!(
        group.last_successful_deployment(),
        None,
        "nothing has ever succeeded"
    );
}
