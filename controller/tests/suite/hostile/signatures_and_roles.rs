//! Access control: signatures, roles, and malformed requests.

use std::time::{Duration, SystemTime};

use aws_sdk_codedeploy::error::ProvideErrorMetadata as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Agent, Controller, Forgery, QUICK, text};

fn list() -> Forgery {
    Forgery {
        service: "codedeploy",
        target: "CodeDeploy_20141006.ListApplications".into(),
        ..Forgery::none("")
    }
}

fn kind(answer: &(u16, Value)) -> (u16, String) {
    (answer.0, text(&answer.1, "__type"))
}

#[tokio::test]
async fn requests_that_are_not_signed_right_are_refused() {
    let controller = Controller::start(QUICK);
    let caller = controller.operator();
    assert_eq!(
        caller.send(list(), json!({})).await,
        (200, json!({"applications": []}))
    );
    let quarter = Duration::from_secs(16 * 60);
    let invalid = (400, "InvalidSignatureException".to_owned());
    for forgery in [
        Forgery {
            time: SystemTime::now() - quarter,
            ..list()
        },
        Forgery {
            time: SystemTime::now() + quarter,
            ..list()
        },
        Forgery {
            body_sent: Some(r#"{"nextToken":"x"}"#.into()),
            ..list()
        },
        Forgery {
            region: "eu-west-1",
            ..list()
        },
        Forgery {
            service: "codedeploy-commands",
            ..list()
        },
    ] {
        assert_eq!(kind(&caller.send(forgery, json!({})).await), invalid);
    }
    let wrong_secret = Agent {
        secret: "wrong".into(),
        ..caller.clone()
    };
    assert_eq!(kind(&wrong_secret.send(list(), json!({})).await), invalid);
    let unknown = Agent {
        access_key_id: "AKIDUNKNOWN".into(),
        ..caller.clone()
    };
    let unrecognized = (400, "UnrecognizedClientException".to_owned());
    assert_eq!(kind(&unknown.send(list(), json!({})).await), unrecognized);
    let revoked = controller.admin(&["credentials", "revoke", &caller.access_key_id]);
    assert!(revoked.status.success());
    assert_eq!(kind(&caller.send(list(), json!({})).await), unrecognized);
    assert!(
        !controller
            .admin(&["credentials", "revoke", &caller.access_key_id])
            .status
            .success()
    );
    let listed = controller.admin_json(&["credentials", "list", "--all", "--json"]);
    assert!(listed[0]["revoked"].is_number());
    assert!(!listed.to_string().contains(&caller.secret));
}

#[tokio::test]
async fn an_unsigned_header_is_not_trusted() {
    let controller = Controller::start(QUICK);
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = axum::http::Request::post(format!("http://{}/", controller.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = client
            .request(request.body(axum::body::Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("x-amzn-requestid"));
        let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), usize::MAX)
            .await
            .unwrap();
        (
            status,
            text(&serde_json::from_slice(&body).unwrap(), "__type"),
        )
    };
    let target = ("x-amz-target", "CodeDeploy_20141006.ListApplications");
    let no_target_signed = (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AKID/20261123/us-east-1/codedeploy/aws4_request, SignedHeaders=host;x-amz-date, Signature=00",
    );
    let date = ("x-amz-date", "20261123T000000Z");
    for (headers, expected) in [
        (vec![target], "MissingAuthenticationTokenException"),
        (
            vec![target, ("authorization", "Basic x")],
            "IncompleteSignatureException",
        ),
        (
            vec![target, no_target_signed],
            "IncompleteSignatureException",
        ),
        (
            vec![target, no_target_signed, date],
            "IncompleteSignatureException",
        ),
        (vec![], "UnknownOperationException"),
    ] {
        assert_eq!(
            send(&headers).await,
            (400, expected.to_owned()),
            "{headers:?}"
        );
    }
    // The signer is checked before the contents: the answer comes although the contents never do.
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: box\r\n{}: {}\r\ncontent-length: {}\r\n\r\n",
        target.0,
        target.1,
        2 << 20
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ")
            && answer.contains("MissingAuthenticationTokenException"),
        "{answer}"
    );
    let host = controller.host("box1", &[]);
    let (status, refused) = host
        .call(
            "PollHostCommand",
            json!({"HostIdentifier": "x".repeat(2 << 20)}),
        )
        .await;
    assert_eq!(
        (status, text(&refused, "__type").as_str()),
        (413, "RequestEntityTooLargeException")
    );
}

#[tokio::test]
async fn roles_keep_to_their_api() {
    let controller = Controller::start(QUICK);
    let reader = controller.client("read-only");
    assert!(reader.list_applications().send().await.is_ok());
    let refused = reader
        .create_application()
        .application_name("shop")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        refused.into_service_error().code(),
        Some("AccessDeniedException")
    );
    let host = controller.host("box1", &[]);
    assert_eq!(
        kind(&host.send(list(), json!({})).await),
        (400, "AccessDeniedException".to_owned())
    );
    let operator = controller.operator();
    let poll = json!({"HostIdentifier": operator.identifier});
    assert_eq!(
        kind(&operator.call("PollHostCommand", poll).await),
        (400, "AccessDeniedException".to_owned())
    );
}

#[tokio::test]
async fn malformed_inputs_and_unknown_operations_are_named() {
    let controller = Controller::start(QUICK);
    let caller = controller.operator();
    let target = |operation: &str| Forgery {
        target: format!("CodeDeploy_20141006.{operation}"),
        ..list()
    };
    let answer = caller
        .send(target("CreateApplication"), json!({"applicationName": 1}))
        .await;
    assert_eq!(kind(&answer), (400, "SerializationException".to_owned()));
    for input in [
        json!(["shop"]),
        json!("shop"),
        Value::Null,
        json!({"tags": [null]}),
    ] {
        let answer = caller
            .send(target("CreateApplication"), input.clone())
            .await;
        assert_eq!(
            kind(&answer),
            (400, "SerializationException".to_owned()),
            "{input}"
        );
    }
    let odd =
        json!({"applicationName": "a+=,.@_-1", "computePlatform": null, "newerMember": [1.5]});
    assert_eq!(caller.send(target("CreateApplication"), odd).await.0, 200);
    let answer = caller.send(target("SkipWaitTime"), json!({})).await;
    assert_eq!(kind(&answer), (400, "UnknownOperationException".to_owned()));
    assert!(text(&answer.1, "message").contains("SkipWaitTime"));
}
