use super::super::super::raw;
use super::*;

/// Reads the value of `traffic`; returns it, and all findings.
fn read(text: &str) -> (Option<Traffic>, Vec<String>) {
    let document = raw::read(text.as_bytes()).unwrap();
    let mut report = Report::default();
    let read = traffic(&Place::root(&document.root), &mut report);
    let failed = !report.problems.is_empty();
    assert_eq!(read.is_none(), failed, "{text}: {report:?}");
    let findings = report.problems.iter().chain(&report.warnings);
    (read, findings.map(ToString::to_string).collect())
}

fn valid(text: &str) -> Traffic {
    let (read, findings) = read(text);
    assert_eq!(findings, Vec::<String>::new(), "{text}");
    read.unwrap()
}

#[test]
fn haproxy_has_a_server_for_each_slot() {
    let Traffic::Haproxy(haproxy) =
        valid("haproxy: {socket: /run/haproxy/admin.sock, backend: shop}")
    else {
        panic!("another provider");
    };
    assert_eq!(
        haproxy.socket.as_path(),
        Path::new("/run/haproxy/admin.sock")
    );
    assert_eq!(haproxy.backend.to_string(), "shop");
    assert_eq!(haproxy.servers.blue.to_string(), "blue");
    let Traffic::Haproxy(haproxy) =
        valid("haproxy:\n  socket: /s\n  backend: b\n  servers: {blue: a1, green: 'a:2'}\n")
    else {
        panic!("another provider");
    };
    assert_eq!(haproxy.servers.blue.to_string(), "a1");
    assert_eq!(haproxy.servers.green.to_string(), "a:2");
}

#[test]
fn nginx_is_tested_and_reloaded_as_debian_does_it_unless_the_file_says_otherwise() {
    let Traffic::Nginx(nginx) = valid("nginx: {include: /etc/nginx/conf.d/u.conf}") else {
        panic!("another provider");
    };
    assert_eq!(nginx.upstream, None);
    assert_eq!(nginx.test.to_string(), "nginx -T -q");
    assert_eq!(nginx.reload.to_string(), "nginx -s reload");
    assert_eq!(nginx.pid.as_path(), Path::new("/run/nginx.pid"));
    let text = "nginx: {include: /u, upstream: shop, pid: /p, test: [/opt/n, -t], reload: [systemctl, reload, n]}";
    let Traffic::Nginx(nginx) = valid(text) else {
        panic!("another provider");
    };
    assert_eq!(nginx.upstream.unwrap().to_string(), "shop");
    let arguments = ["reload".to_owned(), "n".to_owned()];
    assert_eq!(nginx.reload.words(), ("systemctl", arguments.as_slice()));
}

#[test]
fn a_template_has_an_instance_for_each_slot() {
    let text = "systemd-socket: {socket: shop.socket, service: shop@.service}";
    let Traffic::SystemdSocket(units) = valid(text) else {
        panic!("another provider");
    };
    assert_eq!(units.socket.to_string(), "shop.socket");
    assert_eq!(units.service.of(SlotName::Green), "shop@green.service");
}

#[test]
fn a_script_belongs_to_the_revision_or_is_a_program_of_the_host() {
    let place = |text: &str| match valid(text) {
        Traffic::Command(command) => (command.script, command.timeout.as_secs()),
        other => panic!("{other:?}"),
    };
    let script = ScriptPlace::Revision(ArchivePath::new("s/move.sh").unwrap());
    assert_eq!(
        place("command: {location: s/move.sh}"),
        (script.clone(), 60)
    );
    assert_eq!(place("command: s/move.sh"), (script, 60));
    assert_eq!(valid("none"), Traffic::None);
    let program = ScriptPlace::Host {
        folder: "/usr/local/sbin".into(),
        name: ArchivePath::new("m").unwrap(),
    };
    let text = "command: {location: /usr/local/sbin/m, timeout: 5}";
    assert_eq!(place(text), (program, 5));
}

#[test]
fn a_finding_names_its_line_and_what_was_expected() {
    let long = format!("haproxy: {{socket: /{}, backend: b}}", "s".repeat(107));
    let cases = [
        ("[]", "found an empty list; expected one of haproxy, nginx"),
        ("{}", "line 1, column 1: names no provider; expected one of"),
        ("haproxi: {}", "did you mean \"haproxy\"?"),
        (
            "nginx: {include: /u}\nhaproxy: {socket: /s, backend: b}",
            "line 1, column 8: nginx: nginx stands beside haproxy; only one provider",
        ),
        (
            "haproxy: {socket: /s}",
            "haproxy.backend: missing; expected the name",
        ),
        (
            "haproxy: {backend: b}",
            "haproxy.socket: missing; expected the path",
        ),
        ("haproxy: {socket: s, backend: b}", "which is not absolute"),
        (
            &long,
            "has 108 bytes; the path of a socket must not have more than 107",
        ),
        (
            "haproxy:\n  socket: /s\n  backend: \"b state maint; x\"\n",
            "line 3, column 12: haproxy.backend: found \"b state maint; x\"; expected the name",
        ),
        (
            "haproxy: {socket: /s, backend: b, servers: {blue: a, green: a}}",
            "both slots have the server \"a\"",
        ),
        (
            "haproxy: {socket: /s, backend: b, servers: {blue: a}}",
            "servers.green: missing; expected the name of a server",
        ),
        (
            "nginx: {include: /etc/nginx/}",
            "expected the file that nginx includes",
        ),
        (
            "nginx: {include: /u, upstream: 'a {'}",
            "expected the name of an upstream",
        ),
        (
            "nginx: {include: /u, test: nginx -t}",
            "nginx.test: found \"nginx -t\"; expected a program",
        ),
        (
            "nginx: {include: /u, test: []}",
            "expected a program and its arguments as a list",
        ),
        (
            "nginx: {include: /u, test: [a, [b]]}",
            "nginx.test[1]: found a list; expected a word",
        ),
        (
            "nginx: {include: /u, reload: ['', x]}",
            "nginx.reload: found a list; expected a program",
        ),
        (
            "systemd-socket: {socket: shop, service: shop@.service}",
            "expected the name of a socket unit",
        ),
        (
            "systemd-socket: {socket: shop.socket, service: shop@blue.service}",
            "expected the name of a template whose instances are the slots",
        ),
        (
            "systemd-socket: {socket: -H.socket, service: shop@.service}",
            "expected the name of a socket unit",
        ),
        (
            "command: {location: ''}",
            "expected a script of the revision",
        ),
        (
            "command: {location: /}",
            "expected a script of the revision",
        ),
        ("command: {location: ../x}", "leads out of the revision"),
        (
            "command: {location: x, timeout: 0}",
            "a whole number of seconds greater than 0",
        ),
    ];
    for (text, expected) in cases {
        let (_, findings) = read(text);
        let found = findings.join("\n");
        assert!(found.contains(expected), "{text}:\n{found}");
    }
    let (read, warnings) = read("command: {location: x, retries: 3}");
    assert!(read.is_some());
    assert!(
        warnings[0].contains("unknown key, ignored; known here: location, timeout"),
        "{warnings:?}"
    );
}
