//! Many hosts at once.

use aws_sdk_codedeploy::types::DeploymentStatus;

use crate::support::{Controller, QUICK, shop};

const HOSTS: usize = 24;

#[tokio::test]
async fn half_a_fleet_at_a_time() {
    let controller = Controller::start(QUICK);
    let agents: Vec<_> = (0..HOSTS)
        .map(|number| controller.host(&format!("box{number:03}"), &["env=prod"]))
        .collect();
    let client = controller.client("operator");
    shop::open(&client, "CodeDeployDefault.HalfAtATime").await;
    let id = shop::deploy(&client, "app.zip").await;
    let mut runs = tokio::task::JoinSet::new();
    for agent in agents {
        runs.spawn(async move {
            // The second half is idle until the first is done.
            loop {
                if let Some(first) = agent.poll().await {
                    agent.acknowledge(&first).await;
                    agent.succeed(&first).await;
                    return agent.run_to("ValidateService").await.len();
                }
            }
        });
    }
    let mut most = 0;
    while let Some(commands) = runs.join_next().await {
        assert_eq!(commands.unwrap(), 6);
        let overview = shop::info(&client, &id)
            .await
            .deployment_overview()
            .unwrap()
            .clone();
        most = most.max(overview.in_progress());
    }
    assert!(most > 0 && most <= HOSTS as i64 / 2, "{most} in progress");
    let info = shop::ended(&client, &id).await;
    assert_eq!(info.status(), Some(&DeploymentStatus::Succeeded));
    assert_eq!(
        info.deployment_overview().unwrap().succeeded(),
        HOSTS as i64
    );
}
