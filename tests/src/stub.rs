//! A command service that does what a test asks for, with faults at any of its calls. It checks
//! nothing and records everything.

mod http;
pub mod lone;
mod signer;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::wait;
use signer::Signer;

pub const POLL: &str = "PollHostCommand";
pub const SPECIFICATION: &str = "GetDeploymentSpecification";
pub const ACKNOWLEDGE: &str = "PutHostCommandAcknowledgement";
pub const COMPLETE: &str = "PutHostCommandComplete";
/// An operation of this project's controller.
pub const LOG: &str = "PutHostCommandLog";

/// A fault in place of a response.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An error document of this name.
    Error(u16, &'static str),
    /// This status, content type and body.
    Answer(u16, &'static str, Vec<u8>),
    /// Nothing is sent, ever.
    Hang,
    /// The connection is reset.
    Reset,
    /// The head and half of the body, then the end of the connection.
    CutBody,
    /// The head and half of the body, then silence.
    HangInBody,
    /// The service acts as usual; the connection is reset before it can respond.
    LostAnswer,
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub operation: String,
    pub body: Value,
    pub headers: HashMap<String, String>,
    pub at: Instant,
    /// Counts connections from 0.
    pub connection: usize,
}

/// A reported end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub status: String,
    pub error_code: u64,
    pub script_name: String,
    pub message: String,
    pub log: String,
    pub at: Instant,
}

/// The running service; it ends with the test.
#[derive(Debug)]
pub struct Stub {
    pub endpoint: String,
    shared: Arc<Shared>,
    signer: Signer,
    serving: Mutex<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The time that a poll is held open if there is nothing to do.
    hold: Duration,
    script: Mutex<Script>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Script {
    deliveries: VecDeque<Value>,
    /// By execution id.
    specifications: HashMap<String, Value>,
    /// By command; `InProgress` otherwise.
    acknowledgements: HashMap<String, Value>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    requests: Vec<Request>,
    /// By command: the outcomes that the service accepted.
    accepted: HashMap<String, Vec<Completion>>,
    refuses_duplicates: bool,
    /// Headers of each response.
    headers: Vec<(&'static str, &'static str)>,
    /// The response to an accepted outcome.
    completed: Option<Value>,
}

/// The fate of one request.
enum Reply {
    Json(Value),
    Fault(Fault),
    Lost,
}

impl Stub {
    /// Starts a service that keeps its signing key in `folder`, and holds empty polls open for
    /// `hold`.
    pub async fn start(folder: &Path, hold: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("loopback has a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            hold,
            script: Mutex::default(),
            changed: Notify::new(),
        });
        let serving = Mutex::new(tokio::spawn(http::serve(listener, Arc::clone(&shared))));
        Self {
            endpoint,
            shared,
            signer: Signer::create(folder),
            serving,
        }
    }

    /// Delivers `command` to the next poll that has no fault; every call is one delivery.
    pub fn deliver(&self, command: Value) {
        self.shared.script().deliveries.push_back(command);
        self.shared.changed.notify_one();
    }

    /// Deliveries that no poll has fetched yet.
    pub fn deliveries(&self) -> usize {
        self.shared.script().deliveries.len()
    }

    /// Sets the response to GetDeploymentSpecification for `execution`: `specification`, signed.
    pub fn specify(&self, execution: &str, specification: &Value) {
        let payload = self.signer.sign(&specification.to_string());
        self.specify_envelope(
            execution,
            json!({"Format": "PKCS7/JSON", "Payload": payload}),
        );
    }

    /// Sets the response to GetDeploymentSpecification for `execution`: this envelope.
    pub fn specify_envelope(&self, execution: &str, envelope: Value) {
        let answer = json!({
            "DeploymentSystem": "CodeDeploy", "DeploymentSpecification": {"GenericEnvelope": envelope}
        });
        self.shared
            .script()
            .specifications
            .insert(execution.into(), answer);
    }

    /// Sets any response to GetDeploymentSpecification for `execution`.
    pub fn specify_answer(&self, execution: &str, answer: Value) {
        self.shared
            .script()
            .specifications
            .insert(execution.into(), answer);
    }

    /// Sets the response to the acknowledgement of `command`.
    pub fn acknowledge(&self, command: &str, answer: Value) {
        self.shared
            .script()
            .acknowledgements
            .insert(command.into(), answer);
    }

    /// Sends the header of this project's controller from now on.
    pub fn pose_as_controller(&self) {
        let header = ("x-codedeploy-signers", "0");
        self.shared.script().headers.push(header);
    }

    /// Asks for the script log of each command whose outcome it accepts, as the controller does.
    pub fn ask_for_script_logs(&self, max_bytes: usize) {
        let answer = json!({"ScriptLog": {"MaxBytes": max_bytes}});
        self.shared.script().completed = Some(answer);
    }

    /// Rejects a second outcome of a command with a ClientException from now on.
    pub fn refuse_duplicates(&self) {
        self.shared.script().refuses_duplicates = true;
    }

    /// The outcomes of `command` that the service accepted, whether or not its response arrived.
    pub fn accepted(&self, command: &str) -> Vec<Completion> {
        self.shared
            .script()
            .accepted
            .get(command)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the service has accepted an outcome of `command`.
    pub async fn taken(&self, command: &str) -> Completion {
        let what = format!("an outcome of {command}");
        wait::until(&what, async || {
            self.accepted(command).into_iter().next().ok_or(())
        })
        .await
    }

    /// Ends the service with all its connections; nobody listens any more.
    pub fn vanish(&self) {
        self.serving().abort();
    }

    /// Starts it again, on the same address.
    pub async fn come_back(&self) {
        let address = self.endpoint.trim_start_matches("http://");
        let listener = wait::until("the address is free", async || {
            TcpListener::bind(address).await
        })
        .await;
        *self.serving() = tokio::spawn(http::serve(listener, Arc::clone(&self.shared)));
    }

    fn serving(&self) -> MutexGuard<'_, tokio::task::JoinHandle<()>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Injects `fault` into the next `times` requests of `operation`.
    pub fn fail(&self, operation: &'static str, fault: &Fault, times: usize) {
        let mut script = self.shared.script();
        let faults = script.faults.entry(operation).or_default();
        faults.extend(std::iter::repeat_n(fault.clone(), times));
    }

    /// Ends the remaining faults.
    pub fn recover(&self) {
        self.shared.script().faults.clear();
    }

    /// The requests of `operation`, oldest first.
    pub fn requests(&self, operation: &str) -> Vec<Request> {
        let script = self.shared.script();
        script
            .requests
            .iter()
            .filter(|request| request.operation == operation)
            .cloned()
            .collect()
    }

    /// Every attempt to complete `command`, oldest first, including those that met a fault.
    pub fn completions(&self, command: &str) -> Vec<Completion> {
        let about = |request: &Request| request.body["HostCommandIdentifier"] == command;
        self.requests(COMPLETE)
            .into_iter()
            .filter(about)
            .map(Completion::from)
            .collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.script().requests.clear();
    }

    /// Waits until `command` was completed `times` times.
    pub async fn completed(&self, command: &str, times: usize) -> Completion {
        let what = format!("completion {times} of {command}");
        wait::until(&what, async || {
            self.completions(command)
                .into_iter()
                .nth(times - 1)
                .ok_or_else(|| self.completions(command))
        })
        .await
    }

    /// Waits for request number `count` of `operation`.
    pub async fn requested(&self, operation: &str, count: usize) -> Request {
        let what = format!("{operation} number {count}");
        wait::until(&what, async || {
            let requests = self.requests(operation);
            requests.get(count - 1).cloned().ok_or(requests.len())
        })
        .await
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving().abort();
    }
}

impl From<Request> for Completion {
    fn from(request: Request) -> Self {
        let payload = request.body["Diagnostics"]["Payload"]
            .as_str()
            .unwrap_or_default();
        assert!(
            payload.chars().count() <= 8192,
            "a payload of {} characters",
            payload.chars().count()
        );
        let payload: Value =
            serde_json::from_str(payload).expect("a completion says how it ended, in JSON");
        let text = |member: &str| payload[member].as_str().unwrap_or_default().to_owned();
        Self {
            status: request.body["CommandStatus"]
                .as_str()
                .unwrap_or_default()
                .into(),
            error_code: payload["error_code"].as_u64().expect("a number"),
            script_name: text("script_name"),
            message: text("message"),
            log: text("log"),
            at: request.at,
        }
    }
}

impl Script {
    /// Whether the service accepts the outcome.
    fn accept(&mut self, request: Request) -> bool {
        let command = request.body["HostCommandIdentifier"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let accepted = self.accepted.entry(command).or_default();
        let takes = accepted.is_empty() || !self.refuses_duplicates;
        if takes {
            accepted.push(request.into());
        }
        takes
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reply(&self, request: Request) -> Reply {
        let (operation, body) = (request.operation.clone(), request.body.clone());
        let fault = {
            let mut script = self.script();
            script.requests.push(request.clone());
            let planned = script
                .faults
                .get_mut(operation.as_str())
                .and_then(VecDeque::pop_front);
            let acted = matches!(planned, None | Some(Fault::LostAnswer));
            if operation == COMPLETE && acted && !script.accept(request) {
                Some(Fault::Error(400, "ClientException"))
            } else {
                planned
            }
        };
        match fault {
            None => Reply::Json(self.answer(&operation, &body).await),
            Some(Fault::LostAnswer) => {
                self.answer(&operation, &body).await;
                Reply::Lost
            }
            Some(fault) => Reply::Fault(fault),
        }
    }

    async fn answer(&self, operation: &str, body: &Value) -> Value {
        match operation {
            POLL => self
                .next_delivery()
                .await
                .map_or_else(|| json!({}), |it| json!({"HostCommand": it})),
            SPECIFICATION => {
                let execution = body["DeploymentExecutionId"].as_str().unwrap_or_default();
                self.script()
                    .specifications
                    .get(execution)
                    .cloned()
                    .unwrap_or_else(|| json!({}))
            }
            ACKNOWLEDGE => {
                let command = body["HostCommandIdentifier"].as_str().unwrap_or_default();
                let answer = self.script().acknowledgements.get(command).cloned();
                answer.unwrap_or_else(|| json!({"CommandStatus": "InProgress"}))
            }
            COMPLETE => self.script().completed.clone().unwrap_or_else(|| json!({})),
            _ => json!({}),
        }
    }

    /// The headers of each response, as text.
    fn headers(&self) -> String {
        let headers = &self.script().headers;
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect()
    }

    async fn next_delivery(&self) -> Option<Value> {
        let next = async {
            loop {
                let changed = self.changed.notified();
                if let Some(command) = self.script().deliveries.pop_front() {
                    return command;
                }
                changed.await;
            }
        };
        tokio::time::timeout(self.hold, next).await.ok()
    }
}
