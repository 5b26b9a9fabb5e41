//! An S3 server on loopback, and uploads to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use crate::programs::{Program, Running};
use crate::wait;

/// The keys of a person or a host.
#[derive(Debug, Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
}

/// A bucket and the server that holds it.
#[derive(Debug)]
pub struct Bucket {
    pub endpoint: String,
    pub name: String,
    client: aws_sdk_s3::Client,
    server: Server,
}

#[derive(Debug)]
enum Server {
    /// In this process; the task ends with the runtime.
    Embedded(tokio::task::JoinHandle<()>),
    Process(Box<Running>),
}

/// The identity of an upload.
#[derive(Debug, Clone)]
pub struct Object {
    pub key: String,
    /// Without quotes.
    pub etag: String,
    pub version: Option<String>,
}

impl Bucket {
    /// Starts a bucket that is a folder below `folder`, served from this process; signatures are
    /// verified with `keys`.
    pub async fn embedded(folder: &Path, name: &str, keys: &[Keys]) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder.join(name))?;
        let files =
            FileSystem::new(folder).map_err(|error| std::io::Error::other(format!("{error:?}")))?;
        let mut auth = SimpleAuth::new();
        for Keys {
            access_key_id,
            secret_access_key,
        } in keys
        {
            auth.register(access_key_id.clone(), secret_access_key.clone().into());
        }
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(auth);
        let service = builder.build();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            while let Ok((socket, _)) = listener.accept().await {
                let connection = server
                    .serve_connection(TokioIo::new(socket), service.clone())
                    .into_owned();
                tokio::spawn(async move {
                    // A client that disconnects affects only its own connection.
                    let _ = connection.await;
                });
            }
        });
        let client = client(&endpoint, &keys[0]);
        Ok(Self {
            endpoint,
            name: name.into(),
            client,
            server: Server::Embedded(serving),
        })
    }

    /// Starts a versioned bucket on moto's server, a Python program, which does not verify
    /// signatures.
    pub async fn versioned(folder: &Path, name: &str) -> Self {
        let log = folder.join("moto.log");
        let moto = Program::at(python_tool("moto_server"));
        let running = moto.start(
            |command| {
                command.args(["-H", "127.0.0.1", "-p", "0"]);
            },
            &log,
        );
        let endpoint = wait::until("moto's server says where it listens", async || {
            let text = running.output();
            let found = text
                .split_whitespace()
                .find(|word| word.starts_with("http://127.0.0.1:"));
            found.map(str::to_owned).ok_or(text.clone())
        })
        .await;
        let keys = Keys {
            access_key_id: "anybody".into(),
            secret_access_key: "anything".into(),
        };
        let client = client(&endpoint, &keys);
        wait::until("the bucket is made", async || {
            client.create_bucket().bucket(name).send().await
        })
        .await;
        let enabled = aws_sdk_s3::types::VersioningConfiguration::builder()
            .status(aws_sdk_s3::types::BucketVersioningStatus::Enabled)
            .build();
        client
            .put_bucket_versioning()
            .bucket(name)
            .versioning_configuration(enabled)
            .send()
            .await
            .expect("moto has versions");
        Self {
            endpoint,
            name: name.into(),
            client,
            server: Server::Process(Box::new(running)),
        }
    }

    /// Uploads `bytes` as `key`.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Object {
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .body(bytes.into())
            .send()
            .await;
        let put = put.expect("the upload is taken");
        let etag = put.e_tag().unwrap_or_default().trim_matches('"').to_owned();
        Object {
            key: key.into(),
            etag,
            version: put.version_id().map(str::to_owned),
        }
    }

    /// An address from which anyone can fetch the newest version of `key` for an hour.
    pub async fn presigned(&self, key: &str) -> String {
        let hour = PresigningConfig::expires_in(Duration::from_secs(3600));
        let request = self.client.get_object().bucket(&self.name).key(key);
        let request = request.presigned(hour.expect("an hour is allowed")).await;
        request.expect("it can be signed").uri().to_owned()
    }

    /// Looks up the newest version of `key`.
    pub async fn object(&self, key: &str) -> Object {
        let head = self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .send()
            .await
            .expect("it was uploaded");
        let etag = head
            .e_tag()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned();
        Object {
            key: key.into(),
            etag,
            version: head.version_id().map(str::to_owned),
        }
    }

    /// Ends the server.
    pub async fn stop(self) {
        match self.server {
            Server::Embedded(serving) => serving.abort(),
            Server::Process(running) => drop(running.stop().await),
        }
    }
}

fn client(endpoint: &str, keys: &Keys) -> aws_sdk_s3::Client {
    let credentials = Credentials::new(
        &keys.access_key_id,
        &keys.secret_access_key,
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .credentials_provider(credentials)
        .http_client(http_client())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// The HTTP client of all SDK clients in tests.
pub fn http_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https()
}

/// A program that `tests/run` installed from PyPI.
///
/// # Panics
///
/// If it is missing.
pub fn python_tool(name: &str) -> PathBuf {
    let folder = tools().join("python/bin");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing; tests/run installs it",
        path.display()
    );
    path
}

/// The folder in which `tests/run` installs further tools for tests.
pub fn tools() -> PathBuf {
    std::env::var_os("CODEDEPLOY_TEST_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"),
        PathBuf::from,
    )
}
