//! A real nginx with one site, which a file that it includes leads to a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::balancer::free_port;
use crate::bucket::tools;
use crate::programs::{Program, Running};
use crate::wait;

/// The name of the upstream that the site sends requests to.
pub const UPSTREAM: &str = "shop";

/// An nginx; it ends with this.
#[derive(Debug)]
pub struct Nginx {
    pub address: SocketAddr,
    folder: PathBuf,
    master: Running,
}

impl Nginx {
    /// Starts one whose files are in `folder`; a server of no site serves until the included file
    /// names another.
    pub async fn start(folder: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let nginx = |master| Self {
            address,
            folder: folder.to_owned(),
            master,
        };
        let include = folder.join("upstream.conf");
        let text = format!("upstream {UPSTREAM} {{ server 127.0.0.1:9; }}\n");
        std::fs::write(&include, text).expect("the file can be written");
        let at = |name: &str| folder.join(name).display().to_string();
        let text = format!(
            "worker_processes 2;\npid {};\nerror_log {} notice;\nevents {{ worker_connections 256; }}\n\
             http {{\n  access_log off;\n  {}\n  include {};\n  server {{\n    listen {address};\n    \
             location / {{\n      proxy_pass http://{UPSTREAM};\n      proxy_next_upstream off;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n",
            at("nginx.pid"),
            at("error.log"),
            temporary(folder),
            include.display(),
        );
        std::fs::write(folder.join("nginx.conf"), text).expect("the file can be written");
        let configured = |command: &mut Command| {
            command.arg("-c").arg(folder.join("nginx.conf"));
            command.args(["-e", &at("error.log"), "-g", "daemon off;"]);
        };
        let master = program().start(configured, &folder.join("nginx.log"));
        let nginx = nginx(master);
        wait::until("nginx listens", async || {
            tokio::net::TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| (error.to_string(), nginx.log()))
        })
        .await;
        nginx
    }

    /// The file that it includes.
    pub fn include(&self) -> PathBuf {
        self.folder.join("upstream.conf")
    }

    /// The value of `traffic` in an AppSpec file.
    pub fn traffic(&self) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let command = format!(
            "{}, -c, {}, -e, {}",
            path().display(),
            at("nginx.conf"),
            at("error.log")
        );
        format!(
            "nginx: {{include: {}, upstream: {UPSTREAM}, pid: {}, test: [{command}, -T, -q], reload: [{command}, -s, reload]}}",
            self.include().display(),
            at("nginx.pid")
        )
    }

    pub fn log(&self) -> String {
        let text = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        text("error.log") + &text("nginx.log")
    }

    /// Ends it with its workers.
    pub async fn stop(self) {
        self.master.stop().await;
    }
}

/// Directives that keep temporary files in `folder`.
fn temporary(folder: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let line = |kind| format!("{kind}_temp_path {}/{kind};", folder.display());
    kinds.map(line).join(" ")
}

fn path() -> PathBuf {
    tools().join("nginx/usr/sbin/nginx")
}

fn program() -> Program {
    let path = path();
    let found = path.exists();
    assert!(
        found,
        "{} is missing; tests/tools.sh unpacks it",
        path.display()
    );
    Program::at(path)
}
