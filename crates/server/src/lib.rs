//! The decision over HTTP, for this machine only.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/decide` `{"text", "tags", "deadline_ms", "dry_run"}` | the decision's JSON, as `ganglion ask --json` prints it |
//! | … with `"stream": true` | server-sent events: a `field` for each field as soon as it is decided, then `answer` |
//! | … with `"parts": ["…", "…"]` in place of `"text"` | sentences decided together, each judged by itself |
//! | … with `"document": "…"` in place of `"text"` | what a longer text asks for, window by window; never actuated |
//! | … with `"cache_salt": "…"` | whoever knows the salt shares cached answers; else only a connection does |
//! | `POST /v1/mission` `{"text", "dry_run"}` | server-sent events: `state` and `plan` as `ganglion mission --json` prints them, then `answer` |
//! | `GET /v1/status` | the guard's and the link's state |
//! | `GET /v1/site` | schema and commands |
//! | `GET /healthz` | `ok` |
//!
//! Data flow: bytes → [`DecideRequest`], checked against the site → [`Decider`], which the caller implements → its JSON.
//! Errors are `{"error": {"code", "message"}}`.
//!
//! ```no_run
//! # use ganglion_server::{DecideError, DecideRequest, Decider, Fields, Mission, MissionRequest, Server};
//! # async fn example(site: std::sync::Arc<ganglion_site::Site>) -> Result<(), ganglion_server::Error> {
//! struct Never;
//! impl Decider for Never {
//!     async fn decide(&self, _: DecideRequest, _: Option<Fields>) -> Result<serde_json::Value, DecideError> {
//!         Err(DecideError::Unavailable("no model is loaded".to_owned()))
//!     }
//!     fn mission(&self, _: MissionRequest) -> Result<Mission, DecideError> {
//!         Err(DecideError::Invalid("this site has no plans".to_owned()))
//!     }
//!     fn status(&self) -> serde_json::Value {
//!         serde_json::json!({ "mode": "stopped" })
//!     }
//!     fn site(&self) -> serde_json::Value {
//!         serde_json::json!({ "commands": [] })
//!     }
//! }
//! let server = Server::bind("127.0.0.1:8420".parse().unwrap()).await?;
//! server.run(site, Never, std::future::pending()).await
//! # }
//! ```
//!
//! What it does not do: decide, actuate, authenticate users, speak TLS, or listen anywhere but on loopback.

mod clients;
mod error;
pub mod limits;
mod listener;
mod mission;
mod origin;
mod request;
mod routes;
mod stream;

pub use error::{DecideError, Error};
pub use mission::{Mission, MissionEvent, MissionRequest, MissionTeller};
pub use request::{DecideRequest, Subject};
pub use routes::{Decider, Server};
pub use stream::Fields;
