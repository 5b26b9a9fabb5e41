//! The agent and the controller on kernels that lack newer system calls.

use std::fs;
use std::os::unix::fs::symlink;

use codedeploy_tests::old_kernel::Kernel;
use codedeploy_tests::programs::Programs;
use codedeploy_tests::service::Service;
use codedeploy_tests::stub::lone::Lone;

#[tokio::test]
async fn the_agent_deploys_and_stops_as_on_this_kernel() {
    for kernel in Kernel::ALL {
        let mut host = Lone::start("").await;
        host.agent.kill().await;
        host.restart_on(kernel);
        let appspec = format!(
            "version: 0.0\nos: linux\nfiles:\n  - source: site\n    destination: {}\nhooks:\n  AfterInstall:\n    - location: link/hook.sh\n",
            host.path("app").display()
        );
        let script = format!(
            "#!/bin/sh\necho \"$DEPLOYMENT_ID\" >> {}\n",
            host.path("ran").display()
        );
        for (id, page) in [("d-1", "one"), ("d-2", "two")] {
            host.deployment(
                "g1",
                id,
                &[
                    ("appspec.yml", &appspec),
                    ("scripts/hook.sh", &script),
                    ("site/page", page),
                    (&format!("site/{id}"), page),
                ],
            );
            symlink("scripts", host.path(&format!("revision-{id}/link"))).unwrap();
            for event in ["DownloadBundle", "Install", "AfterInstall"] {
                let ended = host.perform(id, event).await;
                assert_eq!(
                    ended.status, "Succeeded",
                    "{kernel:?}: {event}: {}",
                    ended.message
                );
            }
            assert_eq!(fs::read_to_string(host.path("app/page")).unwrap(), page);
        }
        assert!(!host.path("app/d-1").exists(), "{kernel:?}");
        assert_eq!(
            fs::read_to_string(host.path("ran")).unwrap(),
            "d-1\nd-2\n",
            "{kernel:?}"
        );
        let log = host.log();
        assert!(
            !log.contains("ENOSYS") && !log.contains("not implemented"),
            "{log}"
        );
        let status = host.ask(&["status"]).await;
        assert!(status.status.success(), "{kernel:?}");
        assert!(host.agent.stop().await.success(), "{kernel:?}");
    }
}

#[tokio::test]
async fn the_controller_starts_with_new_keys_answers_and_stops() {
    for kernel in Kernel::ALL {
        let folder = tempfile::tempdir().unwrap();
        let built = Programs::built();
        let programs = Programs {
            controller: kernel.program(&built.controller),
            ..built
        };
        let service = Service::start(&programs, &folder.path().join("controller")).await;
        service.create_group("shop", "web", ("env", "test")).await;
        let answer = service.client.list_applications().send().await.unwrap();
        assert_eq!(answer.applications(), ["shop"], "{kernel:?}");
        service.stop().await;
    }
}
