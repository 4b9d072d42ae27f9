//! What the server counts, in the text format of Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

/// The upper ends of the histogram of how long requests take, in seconds.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0];

/// What is told of the queue: `GET /api/queue` says this.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct QueueStatus {
    pub waiting: usize,
    pub limit: usize,
    pub running: usize,
    pub running_pictures: usize,
    pub draining: bool,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Responses by their status.
    responses: Mutex<BTreeMap<u16, u64>>,
    pub done: AtomicU64,
    pub cancelled: AtomicU64,
    pub failed: AtomicU64,
    pub pictures: AtomicU64,
    pub steps: AtomicU64,
    /// Rounds in which a model was asked for some pictures' next steps.
    pub rounds: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    seconds: Mutex<f64>,
}

/// Adds to a count.
pub(crate) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

impl Metrics {
    /// Counts a response.
    pub(crate) fn response(&self, status: u16) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry(status).or_default() += 1;
    }

    /// Counts an order that was drawn in so many seconds from when it came.
    pub(crate) fn order(&self, seconds: f64) {
        add(&self.done, 1);
        for (bucket, end) in self.buckets.iter().zip(BUCKETS) {
            if seconds <= end {
                add(bucket, 1);
            }
        }
        *self.seconds.lock().unwrap_or_else(PoisonError::into_inner) += seconds;
    }

    /// Everything as Prometheus reads it.
    pub(crate) fn text(&self, queue: QueueStatus) -> String {
        let mut text = String::new();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut metric = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP langevin_{name} {help}\n# TYPE langevin_{name} {kind}"
            );
            for (labels, value) in lines {
                let _ = writeln!(text, "langevin_{name}{labels} {value}");
            }
        };
        let one = |value: f64| [(String::new(), value)];
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        let by_status: Vec<(String, f64)> = responses
            .iter()
            .map(|(status, count)| (format!("{{status=\"{status}\"}}"), *count as f64))
            .collect();
        metric(
            "http_responses_total",
            "counter",
            "Responses by status.",
            &by_status,
        );
        let outcomes = [
            ("done", &self.done),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
        ];
        let outcomes =
            outcomes.map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), of(count) as f64));
        metric(
            "orders_total",
            "counter",
            "Requests for pictures by their end.",
            &outcomes,
        );
        metric(
            "pictures_total",
            "counter",
            "Pictures drawn.",
            &one(of(&self.pictures) as f64),
        );
        metric(
            "steps_total",
            "counter",
            "Denoising steps of pictures.",
            &one(of(&self.steps) as f64),
        );
        let help = "Rounds of steps; steps by rounds is the mean batch.";
        metric("rounds_total", "counter", help, &one(of(&self.rounds) as f64));
        metric(
            "queue_waiting",
            "gauge",
            "Requests that wait.",
            &one(queue.waiting as f64),
        );
        metric(
            "queue_limit",
            "gauge",
            "Requests that may wait.",
            &one(queue.limit as f64),
        );
        let running = one(queue.running_pictures as f64);
        metric("running_pictures", "gauge", "Pictures being drawn.", &running);
        let done = of(&self.done) as f64;
        let mut histogram: Vec<(String, f64)> = self
            .buckets
            .iter()
            .zip(BUCKETS)
            .map(|(bucket, end)| (format!("_bucket{{le=\"{end}\"}}"), of(bucket) as f64))
            .collect();
        let seconds = *self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.push(("_bucket{le=\"+Inf\"}".into(), done));
        histogram.push(("_sum".into(), seconds));
        histogram.push(("_count".into(), done));
        let help = "Seconds from a request to its last picture.";
        metric("order_seconds", "histogram", help, &histogram);
        text
    }
}
