//! Roles that CI systems assume with identity tokens in place of stored keys.

use aws_sdk_codedeploy::Client;
use serde_json::{Value, json};

use crate::support::issuer::{ISSUER, Issuer, SigningKey, claims, in_seconds};
use crate::support::{Controller, QUICK, eventually};

/// Settings with the roles `deploy`, `watch` and `shop`.
fn settings(keys: &str) -> String {
    format!(
        "{QUICK}\nmetrics: {{listen: '127.0.0.1:0'}}\nidentity_providers:\n  ci:\n    issuer: {ISSUER}\n    {keys}\n    roles:\n      deploy:\n        role: operator\n        \
         claims: {{sub: 'repo:acme/shop:ref:refs/heads/main'}}\n      watch:\n        role: read-only\n        claims: {{sub: \
         'repo:acme/*', repository_id: '17'}}\n      shop:\n        role: operator\n        claims: {{sub: ['x', 'repo:acme/shop:*']}}\n        \
         applications: [shop]\n        deployment_groups: [web]\n"
    )
}

fn at(issuer: &Issuer) -> String {
    settings(&format!("jwks_url: 'http://{}/jwks'", issuer.address))
}

/// Sends an unsigned form; returns the status and the document.
async fn post(controller: &Controller, form: &[(&str, &str)]) -> (u16, String) {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let request = axum::http::Request::post(format!("http://{}/", controller.address))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from(body.finish()))
        .unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).build_http();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::Body::new(response.into_body());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn assume(controller: &Controller, role: &str, token: &str) -> (u16, String) {
    let arn = format!("arn:aws:iam::123456789012:role/{role}");
    let form = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &arn),
        ("RoleSessionName", "job-7"),
        ("WebIdentityToken", token),
    ];
    post(controller, &form).await
}

fn element<'a>(document: &'a str, name: &str) -> &'a str {
    let (_, rest) = document
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("no {name} in {document}"));
    rest.split_once("</").unwrap().0
}

/// The new key, in the format of `credentials create --json`.
fn key(document: &str) -> Value {
    json!({
        "access_key_id": element(document, "AccessKeyId"),
        "secret_access_key": element(document, "SecretAccessKey"),
        "session_token": element(document, "SessionToken"),
        "arn": element(document, "Arn"),
    })
}

async fn client(controller: &Controller, role: &str, token: &str) -> Client {
    let (status, document) = assume(controller, role, token).await;
    assert_eq!(status, 200, "{document}");
    controller.client_with(&key(&document))
}

/// Asserts that a token is refused with a status and a code, and returns the document.
async fn refused(controller: &Controller, token: &str, status: u16, code: &str) -> String {
    let (found, document) = assume(controller, "deploy", token).await;
    assert_eq!(
        (found, element(&document, "Code")),
        (status, code),
        "{document}"
    );
    assert!(document.starts_with("<?xml") && document.contains("<ErrorResponse xmlns="));
    document
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_gets_a_temporary_key_with_the_rights_of_its_role() {
    for signer in [SigningKey::rsa(), SigningKey::ecdsa()] {
        let issuer = Issuer::start(&json!([signer.public("k1")])).await;
        let mut controller = Controller::start(&at(&issuer));
        let token = signer.token("k1", &claims());
        let (status, document) = assume(&controller, "deploy", &token).await;
        assert_eq!(status, 200, "{document}");
        let arn = "arn:aws:sts::123456789012:assumed-role/deploy/job-7";
        assert_eq!(element(&document, "Arn"), arn);
        let subject = element(&document, "SubjectFromWebIdentityToken");
        assert_eq!(subject, "repo:acme/shop:ref:refs/heads/main");
        assert_eq!(element(&document, "Audience"), "sts.amazonaws.com");
        assert_eq!(element(&document, "Provider"), ISSUER);
        assert!(element(&document, "AccessKeyId").starts_with("ASIA"));

        // The key is stored: it survives a crash, and can be listed and revoked.
        controller.crash_and_restart();
        let operator = controller.client_with(&key(&document));
        operator
            .create_application()
            .application_name("shop")
            .send()
            .await
            .unwrap();
        let entries = controller.admin_json(&["audit", "--json"]);
        let entries = entries.as_array().unwrap();
        let of = |operation: &str| {
            let mut found = entries
                .iter()
                .filter(|entry| entry["operation"] == operation);
            found
                .next()
                .unwrap_or_else(|| panic!("no {operation} in {entries:?}"))
        };
        let (assumed, created) = (of("AssumeRoleWithWebIdentity"), of("CreateApplication"));
        assert_eq!(assumed["names"]["subject"], subject);
        assert_eq!(assumed["names"]["identityProvider"], "ci");
        assert_eq!(
            (&assumed["who"], &created["who"]),
            (&json!(arn), &json!(arn))
        );
        assert_eq!(created["names"]["subject"], subject);
        assert_eq!(assumed["accessKeyId"], created["accessKeyId"]);

        // Its token belongs to it.
        let mut without = key(&document);
        without["session_token"] = Value::Null;
        let failed = controller.client_with(&without).list_applications().send();
        let failed = failed.await.unwrap_err().into_service_error();
        assert_eq!(failed.meta().code(), Some("UnrecognizedClientException"));

        // It expires soon by design, which is nothing to warn of.
        let announced = std::fs::read_to_string(controller.data().join("service.json")).unwrap();
        let announced: Value = serde_json::from_str(&announced).unwrap();
        let url = format!("http://{}/metrics", announced["metrics"].as_str().unwrap());
        let metrics = crate::support::command("curl")
            .args(["-s", &url])
            .output()
            .unwrap();
        let metrics = String::from_utf8(metrics.stdout).unwrap();
        let expiring = "codedeploy_controller_credentials_expiring{role=\"operator\"} ";
        let found = metrics.lines().find_map(|line| line.strip_prefix(expiring));
        assert!(found.is_none_or(|number| number == "0"), "{metrics}");
        assert!(metrics.contains("codedeploy_controller_requests_total"));

        let id = element(&document, "AccessKeyId");
        let listed = controller.admin_json(&["credentials", "list", "--json"]);
        let listed = listed.as_array().unwrap();
        let listed = listed
            .iter()
            .find(|key| key["access_key_id"] == id)
            .unwrap();
        assert_eq!(listed["subject"], subject);
        assert!(
            controller
                .admin(&["credentials", "revoke", id])
                .status
                .success()
        );
        assert!(operator.list_applications().send().await.is_err());
    }
}

#[tokio::test]
async fn the_claims_decide_which_role_a_token_assumes() {
    let signer = SigningKey::rsa();
    let issuer = Issuer::start(&json!([signer.public("k1")])).await;
    let controller = Controller::start(&at(&issuer));
    let operator = controller.client("operator");
    for name in ["shop", "blog"] {
        let created = operator.create_application().application_name(name);
        created.send().await.unwrap();
    }
    let branch = json!({"sub": "repo:acme/shop:ref:refs/heads/feature"});
    let of = |more: &Value| {
        let mut claims = claims();
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        signer.token("k1", &claims)
    };

    refused(&controller, &of(&branch), 403, "AccessDenied").await;
    let watch = client(&controller, "watch", &of(&branch)).await;
    let listed = watch.list_applications().send().await.unwrap();
    assert_eq!(listed.applications().len(), 2);
    let failed = watch.create_application().application_name("x").send();
    let failed = failed.await.unwrap_err().into_service_error();
    assert_eq!(failed.meta().code(), Some("AccessDeniedException"));

    let limited = client(&controller, "shop", &of(&branch)).await;
    let listed = limited.list_applications().send().await.unwrap();
    assert_eq!(listed.applications(), ["shop"]);

    // A foreign repository gets the same answer for each role, whether or not it exists.
    let foreign = of(&json!({"sub": "repo:acme-evil/shop:ref:refs/heads/main"}));
    for role in ["deploy", "watch", "shop", "none"] {
        let (status, document) = assume(&controller, role, &foreign).await;
        assert_eq!((status, element(&document, "Code")), (403, "AccessDenied"));
        let message = element(&document, "Message").replace(role, "ROLE");
        assert!(
            message.contains("may not assume the role ROLE"),
            "{message}"
        );
    }
    let (status, _) = assume(&controller, "watch", &of(&json!({"repository_id": 18}))).await;
    assert_eq!(status, 403);
    let (status, _) = assume(
        &controller,
        "watch",
        &of(&json!({"repository_id": {"17": "17"}})),
    )
    .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused() {
    let (signer, other) = (SigningKey::rsa(), SigningKey::rsa());
    let elliptic = SigningKey::ecdsa();
    let issuer = Issuer::start(&json!([signer.public("k1"), elliptic.public("e1")])).await;
    let controller = Controller::start(&at(&issuer));
    let invalid =
        async |token: &str| refused(&controller, token, 400, "InvalidIdentityToken").await;
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.token("k1", &claims)
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        signer.token("k1", &claims)
    };

    // Algorithms: none, the public key as a shared secret, another kind of key.
    let header = |algorithm: &str, id: &str| json!({"typ": "JWT", "alg": algorithm, "kid": id});
    let body = claims().to_string();
    for algorithm in ["none", "None", "NONE", "HS256", "HS512", "RS1", "EdDSA", ""] {
        let token = signer.token_with(&header(algorithm, "k1"), &body);
        invalid(&token).await;
        let (signed, _) = token.rsplit_once('.').unwrap();
        invalid(&format!("{signed}.")).await;
    }
    invalid(&signer.token_with(&header("ES256", "k1"), &body)).await;
    invalid(&elliptic.token_with(&header("RS256", "e1"), &body)).await;
    invalid(&signer.token_with(&header("RS384", "k1"), &body)).await;
    invalid(&signer.token_with(&header("PS256", "k1"), &body)).await;

    // Keys: of somebody else, in the header, unknown, none at all.
    invalid(&other.token("k1", &claims())).await;
    let mut own = header("RS256", "k1");
    own["jwk"] = other.public("k1");
    own["jku"] = json!("http://127.0.0.1:9/jwks");
    invalid(&other.token_with(&own, &body)).await;
    invalid(&signer.token("k2", &claims())).await;
    invalid(&signer.token_with(&json!({"alg": "RS256"}), &body)).await;
    let mut critical = header("RS256", "k1");
    critical["crit"] = json!(["b64"]);
    invalid(&signer.token_with(&critical, &body)).await;
    let access = json!({"typ": "at+jwt", "alg": "RS256", "kid": "k1"});
    invalid(&signer.token_with(&access, &body)).await;

    // A signature covers all of it.
    let good = signer.token("k1", &claims());
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut changed = claims();
    changed["sub"] = json!("repo:acme/shop:ref:refs/heads/other");
    let (kept, changed) = (parts(&good), parts(&signer.token("k1", &changed)));
    invalid(&format!("{}.{}.{}", kept[0], changed[1], kept[2])).await;

    // Claims.
    for audience in [
        json!("other"),
        json!(["other"]),
        json!([]),
        json!(17),
        Value::Null,
    ] {
        invalid(&with("aud", audience)).await;
    }
    assert_eq!(
        assume(
            &controller,
            "deploy",
            &with("aud", json!(["x", "sts.amazonaws.com"]))
        )
        .await
        .0,
        200
    );
    for issuer in [
        json!("https://evil.example.com"),
        json!("https://ci.example.com/"),
        json!([ISSUER]),
    ] {
        invalid(&with("iss", issuer)).await;
    }
    for name in ["iss", "aud", "sub", "exp", "iat"] {
        invalid(&without(name)).await;
    }
    refused(
        &controller,
        &with("exp", json!(in_seconds(-61))),
        400,
        "ExpiredTokenException",
    )
    .await;
    refused(
        &controller,
        &with("exp", json!(-1e300)),
        400,
        "ExpiredTokenException",
    )
    .await;
    for (name, value) in [
        ("nbf", json!(in_seconds(120))),
        ("iat", json!(in_seconds(120))),
        ("exp", json!("tomorrow")),
        ("nbf", json!([0])),
    ] {
        invalid(&with(name, value)).await;
    }
    // Clocks may differ a little.
    for (name, value) in [
        ("exp", in_seconds(-30)),
        ("nbf", in_seconds(30)),
        ("iat", in_seconds(30)),
    ] {
        let (status, document) = assume(&controller, "deploy", &with(name, json!(value))).await;
        assert_eq!(status, 200, "{document}");
    }

    // Texts that are no tokens.
    let huge = with("x", json!("a".repeat(30_000)));
    let document = invalid(&huge).await;
    assert!(document.contains("20000"), "{document}");
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    invalid(&signer.token_with(&header("RS256", "k1"), &nested)).await;
    let deep = format!("{{\"iss\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    invalid(&signer.token_with(&header("RS256", "k1"), &deep)).await;
    for text in [
        "a",
        "..",
        "a.b.c",
        "a.b.c.d",
        "é.é.é",
        &good.replace('.', " "),
        &format!("{good}="),
    ] {
        invalid(text).await;
    }
    assert!(
        issuer.requests() <= 3,
        "the keys were fetched {} times",
        issuer.requests()
    );
}

#[tokio::test]
async fn requests_that_ask_for_something_else_are_refused() {
    let signer = SigningKey::ecdsa();
    let issuer = Issuer::start(&json!([signer.public("k1")])).await;
    let controller = Controller::start(&at(&issuer));
    let token = signer.token("k1", &claims());
    let good = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", "arn:aws:iam::123456789012:role/deploy"),
        ("RoleSessionName", "job-7"),
        ("WebIdentityToken", &token),
    ];
    for wrong in [
        ("RoleArn", "arn:aws:iam::999999999999:role/deploy"),
        ("RoleArn", "deploy"),
        ("RoleSessionName", "a"),
        ("RoleSessionName", "a/b"),
        ("DurationSeconds", "899"),
        ("DurationSeconds", "3601"),
        ("DurationSeconds", "-1"),
        ("Policy", "{}"),
        (
            "PolicyArns.member.1.arn",
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
        ),
        (
            "PolicyArns.member.2.arn",
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
        ),
        ("PolicyArns", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        ("ProviderId", "www.example.com"),
    ] {
        let mut form = good.to_vec();
        form.retain(|(name, _)| *name != wrong.0);
        form.push(wrong);
        let (status, document) = post(&controller, &form).await;
        let code = element(&document, "Code");
        assert_eq!(
            (status, code),
            (400, "ValidationError"),
            "{wrong:?} {document}"
        );
        assert!(document.contains(wrong.0), "{document}");
    }
    for missing in 1..good.len() {
        let mut form = good.to_vec();
        let (name, _) = form.remove(missing);
        let (status, document) = post(&controller, &form).await;
        assert!(status == 400 && document.contains(name), "{document}");
    }
    let (status, document) = post(
        &controller,
        &[&good[..], &[("DurationSeconds", "900")]].concat(),
    )
    .await;
    assert_eq!(status, 200, "{document}");
    // Nothing else is unsigned, and nothing is read of a body that is larger than a token.
    for form in [
        &[("Action", "GetCallerIdentity")][..],
        &[("Action", "AssumeRole"), ("RoleArn", good[1].1)],
    ] {
        let (status, document) = post(&controller, form).await;
        let code = element(&document, "Code");
        assert_eq!(
            (status, code),
            (403, "MissingAuthenticationToken"),
            "{document}"
        );
    }
    let padding = "x".repeat(100_000);
    let (status, _) = post(&controller, &[&good[..], &[("Padding", &padding)]].concat()).await;
    assert_eq!(status, 413);
    // Without providers, there is no such operation.
    let plain = Controller::start(QUICK);
    assert_eq!(post(&plain, &good).await.0, 403);
}

#[tokio::test]
async fn new_keys_of_an_issuer_are_fetched_once_a_token_names_them_but_not_for_everyone() {
    let (first, second) = (SigningKey::ecdsa(), SigningKey::ecdsa());
    let issuer = Issuer::start(&json!([first.public("k1")])).await;
    let controller = Controller::start(&at(&issuer));
    for _ in 0..3 {
        client(&controller, "deploy", &first.token("k1", &claims())).await;
    }
    assert_eq!(issuer.requests(), 1, "keys are kept");
    issuer.publish(&json!([first.public("k1"), second.public("k2")]));
    client(&controller, "deploy", &second.token("k2", &claims())).await;
    assert_eq!(issuer.requests(), 2);
    for number in 0..20 {
        let token = first.token(&format!("guess-{number}"), &claims());
        refused(&controller, &token, 400, "InvalidIdentityToken").await;
    }
    assert_eq!(issuer.requests(), 3, "guesses do not become requests");
    client(&controller, "deploy", &second.token("k2", &claims())).await;
}

#[tokio::test]
async fn an_issuer_that_misbehaves_gets_no_memory_and_little_time() {
    use axum::body::Body;
    use axum::http::{Response, StatusCode, header};

    let signer = SigningKey::ecdsa();
    let token = signer.token("k1", &claims());
    let issuer = Issuer::start(&json!([])).await;
    let good = json!({"keys": [signer.public("k1")]}).to_string();
    let elsewhere = Issuer::start(&json!([signer.public("k1")])).await;
    let there = format!("http://{}/jwks", elsewhere.address);
    type Answer = Box<dyn Fn() -> Response<Body> + Send + Sync>;
    let answers: Vec<(&str, Answer)> = vec![
        (
            "expected 200",
            Box::new(move || {
                let redirect = Response::builder()
                    .status(StatusCode::FOUND)
                    .header(header::LOCATION, &there);
                redirect.body(Body::from(good.clone())).unwrap()
            }),
        ),
        (
            "at most 262144 bytes",
            Box::new(|| {
                let chunk = axum::body::Bytes::from(vec![b' '; 1 << 20]);
                let chunks = std::iter::repeat_n(chunk, 100).map(Ok::<_, std::io::Error>);
                Response::new(Body::from_stream(futures_util::stream::iter(chunks)))
            }),
        ),
        ("keys", Box::new(|| Response::new(Body::from("{}")))),
        (
            "not a JSON Web Key Set",
            Box::new(|| Response::new(Body::from("[".repeat(100_000)))),
        ),
        (
            "no key",
            Box::new(|| {
                Response::new(Body::from(
                    r#"{"keys": [{"kty": "oct", "kid": "k1", "k": "AA"}]}"#,
                ))
            }),
        ),
        (
            "10001 keys",
            Box::new(|| {
                let keys = vec![json!({"kty": "x"}); 10_001];
                Response::new(Body::from(json!({"keys": keys}).to_string()))
            }),
        ),
        (
            "did not answer within 10 s",
            Box::new(|| {
                Response::new(Body::from_stream(futures_util::stream::pending::<
                    Result<axum::body::Bytes, std::io::Error>,
                >()))
            }),
        ),
    ];
    for (words, answer) in answers {
        let controller = Controller::start(&at(&issuer));
        let before = controller.most_memory();
        issuer.answer_with(answer);
        let document = refused(&controller, &token, 400, "IDPCommunicationError").await;
        assert!(document.contains(words), "{words}: {document}");
        let grown = controller.most_memory().saturating_sub(before);
        assert!(grown < 24 << 20, "{words}: {grown} bytes");
    }
    assert_eq!(elsewhere.requests(), 0, "redirections are not followed");
    // Once the issuer is well, so is the controller.
    let controller = Controller::start(&at(&issuer));
    issuer.answer_with(|| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    });
    refused(&controller, &token, 400, "IDPCommunicationError").await;
    issuer.publish(&json!([signer.public("k1")]));
    client(&controller, "deploy", &token).await;
}

#[tokio::test]
async fn keys_come_from_a_file_for_a_fleet_without_internet() {
    let (first, second) = (SigningKey::rsa(), SigningKey::ecdsa());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let write = |keys: Value| std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    write(json!([first.public("k1")]));
    let controller = Controller::start(&settings(&format!("jwks_file: {}", path.display())));
    client(&controller, "deploy", &first.token("k1", &claims())).await;
    // A single key needs no id.
    let anonymous = first.token_with(&json!({"alg": "RS256"}), &claims().to_string());
    client(&controller, "deploy", &anonymous).await;
    write(json!([first.public("k1"), second.public("k2")]));
    client(&controller, "deploy", &second.token("k2", &claims())).await;

    // A file that cannot be used is found before a start.
    let bad = folder.path().join("bad.json");
    std::fs::write(&bad, "{}").unwrap();
    let config = folder.path().join("controller.yml");
    std::fs::write(&config, settings(&format!("jwks_file: {}", bad.display()))).unwrap();
    let mut program = crate::support::command(env!("CARGO_BIN_EXE_codedeploy-controller"));
    let output = program
        .arg("config")
        .arg("--config-file")
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("bad.json"),
        "{said}"
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_keep_the_keys_away_from_others() {
    use tokio::io::AsyncWriteExt as _;

    let signer = SigningKey::ecdsa();
    let token = signer.token("k1", &claims());
    let issuer = Issuer::start(&json!([signer.public("k1")])).await;
    let controller = Controller::start(&at(&issuer));
    let body = format!(
        "Action=AssumeRoleWithWebIdentity&RoleArn=arn:aws:iam::123456789012:role/deploy&RoleSessionName=xx&WebIdentityToken={token}"
    );
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..5 {
        let mut stream = tokio::net::TcpStream::connect(controller.address)
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        drop(stream);
    }
    eventually("the keys are fetched", async || {
        (assume(&controller, "deploy", &token).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(issuer.requests(), 1);
}
