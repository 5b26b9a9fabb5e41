//! An HTTP server that fails on purpose, in place of S3 or GitHub: it cuts connections, sends wrong
//! lengths, ignores ranges, redirects. The test decides about each response.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A request as it arrived; header names are in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Arc<Vec<u8>>,
    /// The part of the body in this response.
    pub part: std::ops::Range<usize>,
    /// The connection ends after this number of bytes of the part.
    pub cut: Option<usize>,
    /// Nothing more is sent after this number of bytes, but the connection stays open.
    pub hang: Option<usize>,
    /// A Content-Length that is not the part's.
    pub claimed_length: Option<usize>,
}

/// The server; it ends with the runtime.
#[derive(Debug)]
pub struct S3Stub {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

type Handler = dyn Fn(usize, &Request) -> Reply + Send + Sync;

impl S3Stub {
    /// Sends the response that `handler` returns for each request and its number, counted from 0.
    pub async fn serve(handler: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has free ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                tokio::spawn(async move {
                    // The client may end a connection at any time.
                    let _ = converse(socket, &*handler, &seen).await;
                });
            }
        });
        Self { endpoint, requests }
    }

    /// The same as an HTTP proxy that plays every server: for each of `names` that a client
    /// connects to by TLS, it presents its own certificate. Returns the certificate as PEM.
    pub async fn serve_all(
        names: &[&str],
        handler: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
    ) -> (Self, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(names).expect("the names are names");
        let (certificate, key) = (
            certified.cert.der().clone(),
            certified.signing_key.serialize_der(),
        );
        let encoded = base64::engine::general_purpose::STANDARD.encode(&certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
        let key = PrivateKeyDer::try_from(key).expect("it was just made");
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("key and certificate belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has free ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (handler, seen, acceptor) =
                    (Arc::clone(&handler), Arc::clone(&seen), acceptor.clone());
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    head(&mut socket, &mut buffer).await?;
                    socket.write_all(b"HTTP/1.1 200 connected\r\n\r\n").await?;
                    converse(acceptor.accept(socket).await?, &*handler, &seen).await
                });
            }
        });
        (Self { endpoint, requests }, pem)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first and last requested byte.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (from, to) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((from.parse().ok()?, to.parse().unwrap_or(usize::MAX)))
    }
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let part = 0..body.len();
        let (cut, hang, claimed_length) = (None, None, None);
        Self {
            status,
            headers: Vec::new(),
            body: Arc::new(body),
            part,
            cut,
            hang,
            claimed_length,
        }
    }

    /// The response of S3 with an object, or with the requested range of it.
    pub fn object(request: &Request, body: &Arc<Vec<u8>>, etag: &str) -> Self {
        let quoted = format!("\"{etag}\"");
        if request
            .header("if-match")
            .is_some_and(|wanted| wanted != quoted)
        {
            return Self::error(412, "PreconditionFailed");
        }
        let whole = Self {
            body: Arc::clone(body),
            part: 0..body.len(),
            ..Self::new(200, "")
        };
        let whole = whole.header("etag", &quoted);
        let Some((from, last)) = request.range() else {
            return whole;
        };
        let end = body.len().min(last.saturating_add(1));
        let range = format!("bytes {from}-{}/{}", end - 1, body.len());
        Self {
            status: 206,
            part: from..end,
            ..whole
        }
        .header("content-range", &range)
    }

    /// An error in S3's format.
    pub fn error(status: u16, code: &str) -> Self {
        Self::new(
            status,
            format!("<Error><Code>{code}</Code><Message>stub says {code}</Message></Error>"),
        )
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

async fn converse(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    handler: &Handler,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = head(&mut socket, &mut buffer).await? else {
            return Ok(());
        };
        let number = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(request.clone());
            seen.len() - 1
        };
        let reply = handler(number, &request);
        let part = &reply.body[reply.part.clone()];
        let length = reply.claimed_length.unwrap_or(part.len());
        let mut head = format!(
            "HTTP/1.1 {} stub\r\ncontent-length: {length}\r\n",
            reply.status
        );
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        socket.write_all(format!("{head}\r\n").as_bytes()).await?;
        let sent = reply
            .cut
            .or(reply.hang)
            .unwrap_or(part.len())
            .min(part.len());
        socket.write_all(&part[..sent]).await?;
        socket.flush().await?;
        if reply.hang.is_some() {
            // Wait until the client gives up.
            while socket.read_buf(&mut buffer).await? > 0 {}
        }
        if sent < part.len() || length != part.len() {
            return socket.shutdown().await;
        }
    }
}

/// Reads a request up to its empty line; there are no bodies. `None` if the client has closed the
/// connection.
async fn head(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let request = parse(&String::from_utf8_lossy(&buffer[..end]));
    buffer.drain(..end);
    Ok(Some(request))
}

fn parse(head: &str) -> Request {
    let mut lines = head.lines();
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
        .to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers =
        headers.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    Request {
        path,
        headers: headers.collect(),
    }
}
