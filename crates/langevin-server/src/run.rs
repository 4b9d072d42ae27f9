//! From the first request to the last.

use std::{io, net::TcpListener, sync::Arc, thread, time::Duration};

use crate::{
    api::{App, router},
    metrics::Metrics,
    models::Models,
    options::ServerOptions,
    queue::Queue,
    worker::Worker,
};

/// How often the end is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a connection may outlive the last picture: whoever has not read its answer by then does not get it.
const LINGER: Duration = Duration::from_secs(5);

/// Serves the page and the API on `listener` until `is_over`, then draws what has been asked for, takes nothing more, and returns.
///
/// # Errors
/// If the system does not let it serve.
pub fn serve(
    listener: TcpListener,
    models: Models,
    options: ServerOptions,
    is_over: impl Fn() -> bool + Send + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let queue = Arc::new(Queue::new(options.queue));
    let metrics = Arc::new(Metrics::default());
    let (models, options) = (Arc::new(models), Arc::new(options));
    let worker = Worker {
        models: models.clone(),
        options: options.clone(),
        queue: queue.clone(),
        metrics: metrics.clone(),
    };
    let drawing = thread::Builder::new()
        .name("drawing".into())
        .spawn(move || worker.run())?;
    let app = App::new(models, options, queue.clone(), metrics);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (closed, mut closing) = tokio::sync::watch::channel(false);
        let end = async move {
            while !is_over() {
                tokio::time::sleep(ASK_EVERY).await;
            }
            queue.close();
            // There is always somebody who listens, see below.
            let _ = closed.send(true);
        };
        let served = axum::serve(listener, router(app)).with_graceful_shutdown(end);
        let last = async {
            // Also where the sender is gone, the server is about to end.
            let _ = closing.wait_for(|closing| *closing).await;
            while !drawing.is_finished() {
                tokio::time::sleep(ASK_EVERY).await;
            }
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            served = async { served.await } => served,
            () = last => Ok(()),
        }
    });
    // A file that is being read must not hold up the end.
    runtime.shutdown_background();
    // The thread ends with the queue; that it did not panic was seen to inside.
    let _ = drawing.join();
    served
}
