//! `doctor` against healthy and faulty services.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::host::{Host, json, stdout};

/// The response of a command service to a request for an unknown deployment.
const NONE_SUCH: &str = r#"{"__type":"ClientException","message":"no such deployment"}"#;

/// A server with one fixed response, until the test ends.
fn server(status: &'static str, date: Option<String>, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let date = date.map_or_else(String::new, |date| format!("Date: {date}\r\n"));
    let answer = format!(
        "HTTP/1.1 {status}\r\n{date}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(&stream, answer.as_bytes());
        }
    });
    format!("http://{address}")
}

fn serve(mut stream: &TcpStream, answer: &[u8]) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let line = line.to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let _ = reader.read_exact(&mut vec![0; length]);
    let _ = stream.write_all(answer);
}

/// The present time plus some seconds, in HTTP's format.
fn date(moved: i64) -> Option<String> {
    let moved = time::OffsetDateTime::now_utc() + time::Duration::seconds(moved);
    let rfc2822 = moved
        .format(&time::format_description::well_known::Rfc2822)
        .unwrap();
    Some(rfc2822.replace("+0000", "GMT"))
}

fn endpoints(service: &str) -> String {
    format!("deploy_control_endpoint: {service}\ns3_endpoint_override: {service}\n")
}

/// One check of a report: its verdict and its text.
fn check(report: &Value, name: &str) -> (String, String) {
    let checks = report["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("{report:#}"));
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (
        text("verdict"),
        format!("{}; {}", text("text"), text("advice")),
    )
}

/// Examines a host, and expects one check to be a problem with these words.
fn problem(host: &Host, name: &str, words: &[&str]) {
    let output = host.run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        !stdout(&output).contains("hush-hush"),
        "secrets are never shown"
    );
    let (verdict, text) = check(&json(&output), name);
    assert_eq!(verdict, "problem", "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} not in {text:?}");
    }
}

#[test]
fn a_host_that_can_deploy_has_no_problem() {
    let host = Host::new(&endpoints(&server("400 Bad Request", date(0), NONE_SUCH)));
    let output = host.run(&["doctor"]);
    assert!(output.status.success(), "{}", stdout(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 14, "{text}");
    for line in text
        .lines()
        .filter(|line| !line.contains("other-agents") && !line.contains(" disk "))
    {
        assert!(line.starts_with("ok "), "{text}");
    }
    assert!(!text.contains("hush-hush"));
    assert!(
        !host.path("root").exists() && !host.path("run").exists(),
        "an examination changes nothing"
    );
}

#[test]
fn a_wrong_secret_is_told_by_the_service() {
    let body =
        r#"{"__type":"InvalidSignatureException","message":"The signature does not match."}"#;
    let host = Host::new(&endpoints(&server("403 Forbidden", date(0), body)));
    problem(
        &host,
        "service",
        &["InvalidSignatureException", "secret access key is wrong"],
    );
}

#[test]
fn a_server_that_is_no_command_service_is_told() {
    let host = Host::new(&endpoints(&server(
        "404 Not Found",
        date(0),
        "<html>nothing here</html>",
    )));
    problem(&host, "service", &["HTTP 404", "deploy_control_endpoint"]);
}

#[test]
fn a_clock_that_the_service_refuses_is_told_with_how_far_and_the_key_is_not_blamed() {
    let body = r#"{"__type":"InvalidSignatureException","message":"Signature expired."}"#;
    let host = Host::new(&endpoints(&server("400 Bad Request", date(-3600), body)));
    problem(
        &host,
        "clock",
        &["ahead of the service", "refuses the signature", "chronyd"],
    );
    let report = json(&host.run(&["doctor", "--json"]));
    let (verdict, text) = check(&report, "service");
    assert_eq!(verdict, "warning", "{text}");
    assert!(
        text.ends_with("fix the clock first") && !text.contains("secret"),
        "{text}"
    );
    let host = Host::new(&endpoints(&server("400 Bad Request", date(3600), body)));
    problem(&host, "clock", &["behind the service"]);
}

#[test]
fn a_clock_that_the_service_accepts_is_a_warning() {
    let host = Host::new(&endpoints(&server(
        "400 Bad Request",
        date(-601),
        NONE_SUCH,
    )));
    let output = host.run(&["doctor", "--json"]);
    assert!(output.status.success(), "{}", stdout(&output));
    let report = json(&output);
    let (verdict, text) = check(&report, "clock");
    assert_eq!(verdict, "warning", "{text}");
    assert!(text.contains("60") && !text.contains("refuse"), "{text}");
    assert_eq!(check(&report, "service").0, "ok");
}

/// The checks with problems, and those that were skipped because of another.
fn blamed(report: &Value) -> (Vec<&str>, Vec<&str>) {
    let checks = report["checks"].as_array().unwrap();
    let names = |wanted: &dyn Fn(&Value) -> bool| {
        checks
            .iter()
            .filter(|check| wanted(check))
            .map(|check| check["name"].as_str().unwrap())
            .collect()
    };
    (
        names(&|check| check["verdict"] == "problem"),
        names(&|check| check["text"] == "not checked"),
    )
}

#[test]
fn a_proxy_that_is_away_is_the_only_thing_that_is_blamed() {
    let service = server("400 Bad Request", date(0), NONE_SUCH);
    let host = Host::new(&format!(
        "{}proxy_uri: http://user:hush-hush@127.0.0.1:9\n",
        endpoints(&service)
    ));
    problem(
        &host,
        "proxy",
        &["127.0.0.1:9 cannot be reached", "proxy_uri"],
    );
    let output = host.run(&["doctor", "--json"]);
    assert_eq!(
        blamed(&json(&output)),
        (
            vec!["proxy"],
            vec!["tls", "clock", "service", "signer", "s3"]
        )
    );
    for setting in ["deploy_control_endpoint", "s3_endpoint_override"] {
        assert!(!stdout(&output).contains(setting), "{}", stdout(&output));
    }
}

#[test]
fn a_proxy_that_refuses_is_the_only_thing_that_is_blamed() {
    let proxy = server("407 Proxy Authentication Required", None, "");
    let host = Host::new(&format!(
        "{}proxy_uri: {proxy}\n",
        endpoints("https://127.0.0.1:9")
    ));
    problem(
        &host,
        "proxy",
        &["does not let this host through", "proxy_uri"],
    );
    let report = json(&host.run(&["doctor", "--json"]));
    assert_eq!(
        blamed(&report),
        (
            vec!["proxy"],
            vec!["tls", "clock", "service", "signer", "s3"]
        )
    );
}

#[test]
fn a_host_name_that_does_not_exist_and_a_port_that_is_closed_are_told() {
    let host = Host::new(&endpoints("http://codedeploy.invalid"));
    problem(
        &host,
        "dns",
        &[
            "codedeploy.invalid has no address",
            "correct deploy_control_endpoint",
        ],
    );
    let report = json(&host.run(&["doctor", "--json"]));
    assert_eq!(
        blamed(&report),
        (vec!["dns"], vec!["tls", "clock", "service", "signer", "s3"])
    );
    host.configure(&endpoints("http://127.0.0.1:9"));
    problem(&host, "tls", &["refuses connections", "firewall"]);
    problem(
        &host,
        "s3",
        &["refuses connections", "s3_endpoint_override"],
    );
}

/// A TLS server with an unsigned certificate; it ends when dropped.
struct Tls {
    child: Child,
    url: String,
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tls_server(host: &Host) -> Tls {
    let (key, certificate) = (host.path("key.pem"), host.path("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=a test of doctor",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut child = Command::new("openssl")
        .args(["s_server", "-www", "-accept", "127.0.0.1:0", "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let port = lines
        .find_map(|line| Some(line.strip_prefix("ACCEPT 127.0.0.1:")?.to_owned()))
        .unwrap();
    // Its further output must be read, or it ends.
    std::thread::spawn(move || lines.for_each(drop));
    Tls {
        child,
        url: format!("https://localhost:{port}"),
    }
}

#[test]
fn an_unknown_authority_is_told_with_the_setting_that_helps_and_it_does() {
    let host = Host::new("");
    let server = tls_server(&host);
    host.configure(&endpoints(&server.url));
    problem(
        &host,
        "tls",
        &[
            "not signed by an authority that this host trusts",
            "ssl_ca_bundle",
        ],
    );
    let trusted = format!(
        "ssl_ca_bundle: {}\n",
        host.path("certificate.pem").display()
    );
    host.configure(&format!("{}{trusted}", endpoints(&server.url)));
    let (verdict, text) = check(&json(&host.run(&["doctor", "--json"])), "tls");
    assert_eq!(verdict, "ok", "{text}");
    host.configure(&format!(
        "{}{trusted}",
        endpoints(&server.url.replace("localhost", "127.0.0.1"))
    ));
    problem(&host, "tls", &["its certificate is for another name"]);
    host.configure(&endpoints(
        &self::server("200 OK", None, "").replace("http:", "https:"),
    ));
    problem(&host, "tls", &["does not speak TLS"]);
}

#[test]
fn what_is_wrong_with_the_files_is_told_and_the_rest_is_marked_as_not_checked() {
    let host = Host::new("");
    for noise in [&b"\xff\xfe"[..], b"- a", &vec![b'x'; 10 << 20]] {
        std::fs::write(host.path("agent.yml"), noise).unwrap();
        problem(&host, "configuration", &["agent.yml", "correct the file"]);
        std::fs::write(host.path("codedeploy.onpremises.yml"), noise).unwrap();
        host.configure("");
        problem(&host, "identity", &["codedeploy.onpremises.yml"]);
        let report = json(&host.run(&["doctor", "--json"]));
        assert_eq!(
            check(&report, "service").1,
            "not checked; fix the identity first"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_is_told_which_takes_root_to_make() {
    let host = Host::new(&endpoints("http://127.0.0.1:9"));
    std::fs::create_dir(host.path("root")).unwrap();
    let script =
        "mount -t tmpfs -o size=1m tmpfs \"$1\" && exec \"$2\" doctor --json --config-file \"$3\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(host.path("root"))
        .arg(env!("CARGO_BIN_EXE_codedeploy-agent"))
        .arg(host.path("agent.yml"))
        .output()
        .unwrap();
    let (verdict, text) = check(&json(&output), "disk");
    assert_eq!(verdict, "problem", "{text}");
    assert!(
        text.contains("MiB left") && text.contains("make room"),
        "{text}"
    );
}
