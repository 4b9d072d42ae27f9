//! From the first request to the last.

use std::{io, net::TcpListener, sync::Arc, thread, time::Duration};

use crate::{
    api::router, app::App, connections::Connections, metrics::Metrics, models::Models,
    options::ServerOptions, queue::Queue, worker::Worker,
};

/// How often the end is asked for.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a connection may outlive the last picture: whoever has not read its answer by then does not get it.
const LINGER: Duration = Duration::from_secs(5);

/// Threads for connections: while one encodes pictures, the other answers.
const CONNECTIONS: usize = 2;

/// Serves the page and the API on `listener` until `is_over`, then draws what has been asked for, answers further requests for
/// pictures by 503, and returns.
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
    let metrics = Arc::new(Metrics::default());
    let queue = Arc::new(Queue::new(options.queue, metrics.clone()));
    let patience = options.patience;
    let (models, options) = (Arc::new(models.beside(options.kept())), Arc::new(options));
    let worker = Worker {
        models: models.clone(),
        options: options.clone(),
        queue: queue.clone(),
        metrics: metrics.clone(),
    };
    let drawing = thread::Builder::new()
        .name("drawing".into())
        .spawn(move || worker.run())?;
    let app = App::new(models, options, queue.clone(), metrics, listener.local_addr()?);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONNECTIONS)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let ending = async {
            while !is_over() {
                tokio::time::sleep(ASK_EVERY).await;
            }
            queue.close();
            while !drawing.is_finished() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        let connections = Connections::new(router(app), patience);
        tokio::select! {
            never = connections.accept(listener) => match never {},
            () = ending => {}
        }
        let _ = tokio::time::timeout(LINGER, connections.end()).await;
        Ok(())
    });
    // A file that is being read must not hold up the end.
    runtime.shutdown_background();
    // The thread ends with the queue; that it did not panic was seen to inside.
    let _ = drawing.join();
    served
}
