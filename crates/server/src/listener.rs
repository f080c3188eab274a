//! Connections that are bounded in number and in patience.

use crate::clients::ConnectionId;
use crate::limits::{CONNECTIONS_MAX, IDLE_MS_MAX};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

const IDLE: Duration = Duration::from_millis(IDLE_MS_MAX);

pub(crate) struct BoundedListener {
    listener: TcpListener,
    accepted: u64,
    permits: Arc<Semaphore>,
}

impl BoundedListener {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, accepted: 0, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // The semaphore is never closed; were it, connections would only go uncounted.
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            if stream.set_nodelay(true).is_ok() {
                self.accepted += 1;
                let id = ConnectionId(self.accepted);
                return (Connection { stream, id, idle: Box::pin(sleep(IDLE)), _permit: permit }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A stream whose reads fail after [`IDLE_MS_MAX`] without a byte, read or written.
pub(crate) struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    idle: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(done) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.idle.as_mut().reset(Instant::now() + IDLE);
            return Poll::Ready(done);
        }
        this.idle.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(done, Poll::Ready(Ok(1..))) {
            self.idle.as_mut().reset(Instant::now() + IDLE);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
