//! The effect of permissions.

use super::case::{Case, INSTALLED, PLAIN};

pub(crate) const PERMISSIONS: &[Case] = &[
    Case {
        name: "two stars mean everything below the object, and not the object",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/, mode: 700}]\n",
        host: &[
            "app/ 0755",
            "app/e/ 0700",
            r#"app/e/h 0700 "deeper""#,
            r#"app/g 0700 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "a parent of the destination that the Install makes is below its own parent",
        appspec: "files: [{source: f, destination: @/a/b/c}]\npermissions: [{object: @/a, type: [directory], mode: 711}]\n",
        host: &[
            "a/ 0755",
            "a/b/ 0711",
            "a/b/c/ 0711",
            r#"a/b/c/f 0644 "new""#,
        ],
        ..PLAIN
    },
    Case {
        name: "type chooses files or folders",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, type: [file], mode: 640}\n- {object: @/app, type: [directory], mode: 750}\n",
        host: &[
            "app/ 0755",
            "app/e/ 0750",
            r#"app/e/h 0640 "deeper""#,
            r#"app/g 0640 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "a name pattern means direct children, and except takes direct children out",
        bundle: &[
            ("d/a.sh", "1"),
            ("d/b.sh", "2"),
            ("d/c.txt", "3"),
            ("d/e/a.sh", "4"),
            ("d/e/c.tmp", "5"),
            ("d/c.tmp", "6"),
        ],
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, pattern: \"*.sh\", except: [\"b*\"], mode: 744}\n- {object: @/app/e, except: [\"*.tmp\"], mode: 600}\n",
        host: &[
            "app/ 0755",
            r#"app/a.sh 0744 "1""#,
            r#"app/b.sh 0644 "2""#,
            r#"app/c.tmp 0644 "6""#,
            r#"app/c.txt 0644 "3""#,
            "app/e/ 0755",
            r#"app/e/a.sh 0600 "4""#,
            r#"app/e/c.tmp 0644 "5""#,
        ],
        ..PLAIN
    },
    Case {
        name: "except does not reach below direct children",
        bundle: &[("d/e/c.tmp", "5"), ("d/c.tmp", "6")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, except: [\"*.tmp\"], type: [file], mode: 600}]\n",
        host: &[
            "app/ 0755",
            r#"app/c.tmp 0644 "6""#,
            "app/e/ 0755",
            r#"app/e/c.tmp 0600 "5""#,
        ],
        ..PLAIN
    },
    Case {
        name: "an object that is a file gets its mode, and a short one is padded with zeros",
        bundle: &[("d/empty", "")],
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/empty, mode: 40}]\n",
        host: &["app/ 0755", r#"app/empty 0040 """#],
        ..PLAIN
    },
    // YAML 1.1 reads 0644 as 420, which AWS's agent 1.8.1 then rejects or sets.
    Case {
        name: "a mode with a leading zero is octal, with or without quotes",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app/g, mode: 0600}\n- {object: @/app/e/h, mode: \"0640\"}\n",
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0640 "deeper""#,
            r#"app/g 0600 "deep""#,
        ],
        ..PLAIN
    },
    Case {
        name: "an object that is a file is not a folder",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/g, type: [directory], mode: 600}]\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "an object that is nowhere changes nothing",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/other, mode: 600}]\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "what this Install did not bring keeps its permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @, mode: 700}]\n",
        before: &[("mine", "stays"), ("app/", ""), ("app/mine", "stays")],
        host: &[
            "app/ 0755",
            "app/e/ 0700",
            r#"app/e/h 0700 "deeper""#,
            r#"app/g 0700 "deep""#,
            r#"app/mine 0644 "stays""#,
            r#"mine 0644 "stays""#,
        ],
        ..PLAIN
    },
    Case {
        name: "one path, two permissions",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: @/app, mode: 600}\n- {object: @/app/g, mode: 640}\n",
        failure: "app/g: two entries of permissions apply to it",
        ..PLAIN
    },
    Case {
        name: "a pattern for an object that is a file",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/g, pattern: \"*\", mode: 600}]\n",
        failure: "app/g is a file: pattern must be",
        ..PLAIN
    },
    Case {
        name: "a default ACL entry for a file",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, acls: [\"d:u:0:rw\"]}]\n",
        failure: "cannot have default ACL entries",
        ..PLAIN
    },
    // AWS's agent 2 silently ignores it, and 1.8.1 has changed half of the host by then.
    Case {
        name: "an owner that the host does not know",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app, owner: nobody-of-that-name}]\n",
        failure: "this host has no user \"nobody-of-that-name\"",
        ..PLAIN
    },
    Case {
        name: "entries that can apply to nothing",
        appspec: "files: [{source: d, destination: @/app}]\npermissions:\n- {object: d/, mode: 700}\n- {object: ., mode: 700}\n- {object: ~/app, mode: 700}\n- {object: @/app, mode: 700, type: []}\n- {object: @/app, mode: 700, pattern: \"\"}\n",
        host: INSTALLED,
        ..PLAIN
    },
    Case {
        name: "an object with ..",
        appspec: "files: [{source: d, destination: @/app}]\npermissions: [{object: @/app/e/../g, mode: 600}]\n",
        host: &[
            "app/ 0755",
            "app/e/ 0755",
            r#"app/e/h 0644 "deeper""#,
            r#"app/g 0600 "deep""#,
        ],
        ..PLAIN
    },
];
