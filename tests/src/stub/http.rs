//! Just enough HTTP/1.1 to answer an agent, and to break every rule of it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

use super::{Fault, Reply, Request, Shared};

const JSON: &str = "application/x-amz-json-1.1";

/// The next step on the connection.
enum Then {
    NextRequest,
    End,
    Silence,
    Reset,
}

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut number = 0;
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // An agent that disconnects affects only its own connection.
            let _ = connection(socket, number, &shared).await;
        });
        number += 1;
    }
}

async fn connection(socket: TcpStream, number: usize, shared: &Shared) -> io::Result<()> {
    let mut socket = BufStream::new(socket);
    while let Some(request) = read(&mut socket, number).await? {
        let mut next = [0];
        let reply = tokio::select! {
            biased;
            // Agents send nothing before they have a response: this one disconnected, and gets no
            // delivery.
            _ = socket.get_ref().peek(&mut next) => return Ok(()),
            reply = shared.reply(request) => reply,
        };
        let then = match reply {
            Reply::Json(value) => {
                let body = value.to_string();
                write(&mut socket, 200, (JSON, &shared.headers()), body.as_bytes()).await?;
                Then::NextRequest
            }
            Reply::Fault(fault) => fail(&mut socket, fault, &shared.headers()).await?,
            Reply::Lost => Then::Reset,
        };
        match then {
            Then::NextRequest => {}
            Then::End => break,
            Then::Silence => std::future::pending().await,
            Then::Reset => {
                socket.get_ref().set_zero_linger()?;
                break;
            }
        }
    }
    Ok(())
}

async fn fail(socket: &mut BufStream<TcpStream>, fault: Fault, headers: &str) -> io::Result<Then> {
    match fault {
        Fault::Error(status, kind) => {
            let body = json!({"__type": kind, "message": "as the test wants it"}).to_string();
            write(socket, status, (JSON, headers), body.as_bytes()).await?;
            Ok(Then::NextRequest)
        }
        Fault::Answer(status, content_type, body) => {
            write(socket, status, (content_type, headers), &body).await?;
            Ok(Then::NextRequest)
        }
        Fault::Hang => Ok(Then::Silence),
        Fault::Reset | Fault::LostAnswer => Ok(Then::Reset),
        Fault::CutBody => half(socket).await.map(|()| Then::End),
        Fault::HangInBody => half(socket).await.map(|()| Then::Silence),
    }
}

async fn half(socket: &mut BufStream<TcpStream>) -> io::Result<()> {
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"HostCommand\":")
        .await?;
    socket.flush().await
}

async fn write(
    socket: &mut BufStream<TcpStream>,
    status: u16,
    (content_type, headers): (&str, &str),
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    socket.flush().await
}

/// The next request; `None` when the agent has closed the connection.
async fn read(socket: &mut BufStream<TcpStream>, connection: usize) -> io::Result<Option<Request>> {
    let mut headers = HashMap::new();
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    let target = headers.get("x-amz-target").map_or("", String::as_str);
    Ok(Some(Request {
        operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        headers,
        at: Instant::now(),
        connection,
    }))
}
