//! The server: what is asked where, and the bounds around every request.

use crate::clients::{Clients, ConnectionId};
use crate::error::{DecideError, Error, Refusal};
use crate::limits::{BODY_BYTES_MAX, REQUEST_MS_MAX, REQUESTS_MAX, SHUTDOWN_MS_MAX};
use crate::listener::BoundedListener;
use crate::mission::{self, Mission, MissionRequest};
use crate::origin;
use crate::request::{self, Asked, DecideRequest};
use crate::stream::{self, Fields};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use ganglion_site::Site;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};

/// What stands behind the server.
pub trait Decider: Send + Sync + 'static {
    /// One decision, as JSON. Dropped when the client leaves or time runs out. A client that wants the fields one by one
    /// gets them through `fields`, each as a JSON object.
    fn decide(
        &self,
        request: DecideRequest,
        fields: Option<Fields>,
    ) -> impl Future<Output = Result<Value, DecideError>> + Send;
    /// Begins a mission, or says why there is none. It does not end when the client leaves.
    ///
    /// # Errors
    /// The site has no plans, or another mission is under way.
    fn mission(&self, request: MissionRequest) -> Result<Mission, DecideError>;
    /// Answer to `GET /v1/status`.
    fn status(&self) -> Value;
    /// Answer to `GET /v1/site`.
    fn site(&self) -> Value;
}

/// A server that already listens; [`Server::run`] answers.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_address: SocketAddr,
}

struct App<D> {
    site: Arc<Site>,
    decider: D,
    clients: Clients,
}

impl Server {
    /// Starts listening.
    ///
    /// # Errors
    /// Not a loopback address, or not free.
    pub async fn bind(listen: SocketAddr) -> Result<Self, Error> {
        if !listen.ip().is_loopback() {
            return Err(Error::NotLoopback { address: listen });
        }
        let failed = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, local_address })
    }

    /// Where it listens; port 0 is resolved.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Answers until `shutdown` resolves, then lets requests under way finish, for [`SHUTDOWN_MS_MAX`] at most.
    ///
    /// # Errors
    /// [`Error::Serve`].
    pub async fn run<D: Decider>(
        self,
        site: Arc<Site>,
        decider: D,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let (asked, shutdown_asked) = oneshot::channel::<()>();
        let signal = async move {
            shutdown.await;
            let _ = asked.send(());
        };
        let app = App { site, decider, clients: Clients::default() };
        let service = router(Arc::new(app)).into_make_service_with_connect_info::<ConnectionId>();
        let serving =
            axum::serve(BoundedListener::new(self.listener), service).with_graceful_shutdown(signal);
        let out_of_patience = async {
            if shutdown_asked.await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_millis(SHUTDOWN_MS_MAX)).await;
        };
        tokio::select! {
            done = serving.into_future() => done.map_err(|source| Error::Serve { source }),
            () = out_of_patience => Ok(()),
        }
    }
}

fn router<D: Decider>(app: Arc<App<D>>) -> Router {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    Router::new()
        .route("/v1/decide", post(decide::<D>))
        .route("/v1/mission", post(order::<D>))
        .route("/v1/status", get(async |State(app): State<Arc<App<D>>>| Json(app.decider.status())))
        .route("/v1/site", get(async |State(app): State<Arc<App<D>>>| Json(app.decider.site())))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path"))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "the path takes another method",
            )
        })
        .layer(from_fn_with_state(requests, bounded))
        // Whoever asks whether this process lives gets an answer also while every place is taken.
        .route("/healthz", get(async || "ok\n"))
        .with_state(app)
}

/// Around every request: who may ask, how many at once, for how long.
async fn bounded(State(requests): State<Arc<Semaphore>>, mut request: Request, next: Next) -> Response {
    if let Err(refusal) = origin::check(request.uri(), request.headers()) {
        return refusal.into_response();
    }
    let Ok(permit) = requests.try_acquire_owned() else {
        let message = format!("{REQUESTS_MAX} requests are already under way; try again");
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message).into_response();
    };
    // A streamed answer keeps its place longer than this function runs.
    let permit = Arc::new(permit);
    request.extensions_mut().insert(Arc::clone(&permit));
    match timeout(Duration::from_millis(REQUEST_MS_MAX), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("not answered in {REQUEST_MS_MAX} ms");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message).into_response()
        }
    }
}

async fn decide<D: Decider>(
    State(app): State<Arc<App<D>>>,
    ConnectInfo(connection): ConnectInfo<ConnectionId>,
    Extension(permit): Extension<Arc<OwnedSemaphorePermit>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let bytes = json_body(&headers, body).await?;
    let Asked { request, stream } = request::parse(&app.site, &bytes, &app.clients, connection)?;
    if stream {
        let decide = |fields| async move { app.decider.decide(request, Some(fields)).await };
        return Ok(stream::respond(permit, decide));
    }
    Ok(Json(app.decider.decide(request, None).await?).into_response())
}

/// Its permit is kept as long as the mission is listened to.
async fn order<D: Decider>(
    State(app): State<Arc<App<D>>>,
    Extension(permit): Extension<Arc<OwnedSemaphorePermit>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request = mission::parse(&json_body(&headers, body).await?)?;
    Ok(mission::respond(permit, app.decider.mission(request)?))
}

/// A request's body, bounded, if it says that it is JSON.
async fn json_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    if !is_json(headers) {
        let message = "expected Content-Type: application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_content_type", message));
    }
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let message = format!("the body is longer than {BODY_BYTES_MAX} bytes or was cut off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
