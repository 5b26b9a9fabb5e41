//! Attacks on the service by clients without a key, and by clients with a key and bad intentions.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Controller, Forgery, QUICK, shop, text};

/// Longer than anything here takes; an event that does not come within this time never comes.
const LONG: Duration = Duration::from_secs(30);

const WITH_S3: &str = "s3: {buckets: [revisions, events]}\ntimers: {poll: 5, request: 1}";

/// The response to the beginning of a request, on a connection that stays open.
async fn answer(controller: &Controller, request: &str) -> String {
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64 * 1024];
    let length = timeout(LONG, stream.read(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn what_nobody_signed_is_refused_before_any_of_it_is_kept() {
    let controller = Controller::start(WITH_S3);
    let form = "POST /revisions HTTP/1.1\r\nhost: x\r\ncontent-type: Multipart/Form-Data; boundary=b\r\n\
                content-length: 5000000000\r\n\r\n--b\r\n";
    let refused = answer(&controller, form).await;
    assert!(
        refused.starts_with("HTTP/1.1 403") && refused.contains("AccessDenied"),
        "{refused}"
    );
    let unsigned =
        "PUT /revisions/app.zip HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000000\r\n\r\nPK";
    let refused = answer(&controller, unsigned).await;
    assert!(
        refused.starts_with("HTTP/1.1 403") && refused.contains("not signed"),
        "{refused}"
    );
    let call = "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: CodeDeploy_20141006.ListApplications\r\n\
                content-length: 1000000\r\n\r\n{";
    let refused = answer(&controller, call).await;
    assert!(
        refused.contains("MissingAuthenticationTokenException"),
        "{refused}"
    );
}

#[tokio::test]
async fn plain_http_where_only_tls_is_spoken_is_answered_in_words() {
    let controller = Controller::start(&format!("{QUICK}\ntls: {{self_signed: true}}"));
    let api = "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: CodeDeploy_20141006.ListApplications\r\n\
               content-length: 2\r\n\r\n{}";
    let form = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 24\r\n\r\nAction=GetCallerIdentity";
    let s3 = "PUT /revisions/a HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 \
              Credential=A/20260101/us-east-1/s3/aws4_request\r\ncontent-length: 1\r\n\r\nx";
    for (request, begins) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "This port speaks TLS"),
        ("GET / HTTP/1.0\r\n\r\n", "This port speaks TLS"),
        (api, "{\"__type\":"),
        (
            form,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ErrorResponse",
        ),
        (s3, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error>"),
    ] {
        let refused = answer(&controller, request).await;
        let (head, body) = refused.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(" 400 Bad Request") && head.contains("connection: close"),
            "{refused}"
        );
        assert!(
            body.starts_with(begins) && body.contains("use https://"),
            "{refused}"
        );
    }
    // Bytes that are neither TLS nor http get no response.
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    stream.write_all(&[0; 8]).await.unwrap();
    let mut said = Vec::new();
    timeout(LONG, stream.read_to_end(&mut said))
        .await
        .expect("an end")
        .unwrap();
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
}

#[tokio::test]
async fn a_signature_in_the_query_is_refused_whatever_else_is_sent() {
    let controller = Controller::start(WITH_S3);
    for query in [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00",
        "X-Amz%2DSignature=00",
        "AWSAccessKeyId=AKIA&Signature=00&Expires=1",
    ] {
        let request = format!(
            "GET /revisions/app.zip?{query} HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 junk\r\n\r\n"
        );
        let refused = answer(&controller, &request).await;
        assert!(
            refused.starts_with("HTTP/1.1 403") && refused.contains("presigned"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn the_names_of_signed_headers_are_read_only_if_each_is_there_once() {
    let controller = Controller::start(WITH_S3);
    let host = controller.host("box1", &[]);
    let scope = format!(
        "{}/20261123/us-east-1/codedeploy/aws4_request",
        host.access_key_id
    );
    let names = [
        "host;x-amz-date;x-amz-date;x-amz-target",
        "x-amz-target;host;x-amz-date",
    ];
    for names in names
        .map(str::to_owned)
        .into_iter()
        .chain([vec!["host"; 5000].join(";")])
    {
        let signed = format!(
            "authorization: AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature=00\r\n\
             x-amz-date: 20261123T101112Z\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        );
        let target = "x-amz-target: CodeDeploy_20141006.ListApplications";
        let refused = answer(
            &controller,
            &format!("POST / HTTP/1.1\r\n{target}\r\n{signed}"),
        )
        .await;
        assert!(
            refused.contains("IncompleteSignatureException"),
            "{refused}"
        );
        let refused = answer(
            &controller,
            &format!("PUT /revisions/a HTTP/1.1\r\n{signed}"),
        )
        .await;
        assert!(
            refused.starts_with("HTTP/1.1 403") && refused.contains("each once"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn connections_without_a_key_give_way_to_those_with_one() {
    let controller = Controller::start_with_files(100, "s3: {buckets: [revisions]}");
    let operator = controller.operator();
    let ask = async |stream: &mut TcpStream| {
        let head = operator.s3_head("HEAD /revisions") + "\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = timeout(LONG, stream.read(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        assert!(
            answer[..length].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    };
    let mut known = TcpStream::connect(controller.address).await.unwrap();
    ask(&mut known).await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(TcpStream::connect(controller.address).await.unwrap());
    }
    let oldest = timeout(LONG, crowd[0].read(&mut [0]))
        .await
        .expect("it is closed");
    assert!(matches!(oldest, Ok(0) | Err(_)), "{oldest:?}");
    ask(&mut known).await;
    ask(&mut TcpStream::connect(controller.address).await.unwrap()).await;
}

#[tokio::test]
async fn clients_that_stand_still_are_cut_off() {
    let controller = Controller::start(WITH_S3);
    let operator = controller.operator();
    // Its body stops arriving.
    let put = operator.s3_head("PUT /revisions/app.zip") + "content-length: 1000\r\n\r\nPK";
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    stream.write_all(put.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .expect("the upload is given up");
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // It keeps sending requests without reading responses.
    let mut stream = TcpStream::connect(controller.address).await.unwrap();
    let hello = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let stuck = async { while stream.write_all(hello.as_bytes()).await.is_ok() {} };
    timeout(LONG, stuck)
        .await
        .expect("the connection is closed");
}

#[tokio::test]
async fn signatures_for_elsewhere_are_none_here_and_a_bucket_may_have_any_name() {
    let controller = Controller::start(WITH_S3);
    let operator = controller.operator();
    let head = operator.s3_head("HEAD /events");
    assert!(
        answer(&controller, &format!("{head}\r\n"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    // A header that changes the operation, but is not signed.
    let unsigned = format!("{head}x-amz-copy-source: /revisions/other\r\n\r\n");
    assert!(
        answer(&controller, &unsigned)
            .await
            .starts_with("HTTP/1.1 403")
    );
    let elsewhere = head.replace("/us-east-1/s3/", "/mars-1/s3/");
    assert!(
        answer(&controller, &format!("{elsewhere}\r\n"))
            .await
            .starts_with("HTTP/1.1 403")
    );
    // Hosts fetch known objects; they cannot list others.
    let host = controller.host("box1", &[]);
    let list = answer(&controller, &(host.s3_head("GET /revisions") + "\r\n")).await;
    assert!(list.starts_with("HTTP/1.1 403"), "{list}");
    let fetch = answer(
        &controller,
        &(host.s3_head("GET /revisions/app.zip") + "\r\n"),
    )
    .await;
    assert!(
        fetch.starts_with("HTTP/1.1 404") && fetch.contains("NoSuchKey"),
        "{fetch}"
    );
}

#[tokio::test]
async fn a_revoked_key_gets_nothing_from_a_poll_that_is_held() {
    let (controller, client, host) = shop::one_host(QUICK).await;
    let held = tokio::spawn({
        let host = host.clone();
        async move {
            let input = json!({"HostIdentifier": host.identifier});
            host.send(Forgery::none("PollHostCommand"), input).await
        }
    });
    let revoked = controller.admin(&["credentials", "revoke", &host.access_key_id]);
    assert!(revoked.status.success());
    shop::deploy(&client, "app.zip").await;
    let (status, answer): (u16, Value) = held.await.unwrap();
    assert_eq!(
        (status, text(&answer, "__type")),
        (400, "UnrecognizedClientException".to_owned()),
        "{answer}"
    );
}
