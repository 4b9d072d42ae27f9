//! Connections: how many there may be, and for how long one may say nothing.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::app::Caller;

/// Connections that are open at once; fewer than the files that a process may have open.
const OPEN: usize = 768;
/// Those of one address, which may be a reverse proxy's.
const OPEN_OF_ONE: usize = 512;
/// How long to wait where the system has no connection to give, as for want of files.
const PAUSE: Duration = Duration::from_millis(100);
/// What a connection beyond that is told.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n\
    Connection: close\r\nContent-Length: 67\r\n\r\n\
    {\"error\": \"too many connections are open: try again in 5 seconds\"}\n";

/// The connections of a server.
pub(crate) struct Connections {
    router: Router,
    patience: Duration,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    graceful: GracefulShutdown,
}

/// A connection that is counted until it is dropped.
struct Counted {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Connections {
    /// Connections to this service. Whoever needs longer than `patience` for the head of a request is cut off, which holds for idle
    /// connections too.
    pub(crate) fn new(router: Router, patience: Duration) -> Self {
        Self {
            router,
            patience,
            open: Arc::default(),
            graceful: GracefulShutdown::new(),
        }
    }

    /// Takes connections for as long as it is waited for.
    pub(crate) async fn accept(&self, listener: TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.serve(stream, address.ip()),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!("no connection can be taken: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, mut stream: TcpStream, address: IpAddr) {
        let Some(counted) = self.count(address) else {
            tokio::spawn(async move {
                // Whoever does not read it does not get it.
                let _ = tokio::time::timeout(PAUSE, stream.write_all(TOO_MANY)).await;
            });
            return;
        };
        // An event should not wait for the next one.
        let _ = stream.set_nodelay(true);
        let service = self.router.clone().layer(Extension(Caller(address)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            // One that breaks is its caller's affair.
            let _ = connection.await;
            drop(counted);
        });
    }

    fn count(&self, address: IpAddr) -> Option<Counted> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&address).copied().unwrap_or_default();
        if all >= OPEN || own >= OPEN_OF_ONE {
            return None;
        }
        open.insert(address, own + 1);
        Some(Counted {
            open: self.open.clone(),
            address,
        })
    }

    /// Waits until every connection has had its answer.
    pub(crate) async fn end(self) {
        self.graceful.shutdown().await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Whether it is the caller who broke off.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}
