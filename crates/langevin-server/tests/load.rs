//! Many clients at once: nothing is lost, nothing is wrong, and memory does not grow.

mod support;

use std::{
    collections::HashMap,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use langevin::{data::Picture, pipelines::SampleOptions};
use langevin_server::ServerOptions;
use serde_json::json;
use support::{Server, alone};

const REQUESTS: usize = 1000;
const CLIENTS: usize = 50;
/// How many different pictures are asked for: few enough to be drawn alone as well.
const DIFFERENT: usize = 40;
const STEPS: usize = 4;

/// The memory of this process, in KiB, where the system tells.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().split(' ').next()?.parse().ok()
}

#[test]
fn a_thousand_requests_of_fifty_clients_all_come_back_right() {
    let server = Server::start(ServerOptions::default());
    let samplers = ["ddim", "ddpm", "euler-a", "dpm++2m"];
    let of = |number: usize| {
        (
            samplers[number % 4],
            number as u64 % DIFFERENT as u64,
            (number % DIFFERENT % 2) as i64,
        )
    };
    let grey = server.folder.path().join("grey");
    let expected: HashMap<usize, Picture> = (0..DIFFERENT)
        .map(|number| {
            let (sampler, seed, class) = of(number);
            let options = SampleOptions {
                classes: Some(vec![class]),
                ..SampleOptions::default()
            };
            (number, alone(&grey, sampler, STEPS, seed, options))
        })
        .collect();

    let draw_all = || {
        let (next, right) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= REQUESTS {
                            return;
                        }
                        let (sampler, seed, class) = of(number);
                        let class = ["dark", "light"][class as usize];
                        let request =
                            json!({ "sampler": sampler, "seed": seed, "steps": STEPS, "class": class });
                        let answer = server.generate("image/png", &request).expect(200);
                        assert_eq!(answer.picture(), expected[&(number % DIFFERENT)], "{request}");
                        right.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        right.into_inner()
    };
    // The first time, allocators take what they will keep.
    assert_eq!(draw_all(), REQUESTS);
    let before = resident();
    assert_eq!(draw_all(), REQUESTS);
    if let (Some(before), Some(after)) = (before, resident()) {
        println!("memory after 1000 and 2000 requests: {before} and {after} KiB");
        assert!(
            after < before + 8 * 1024,
            "memory grew from {before} to {after} KiB"
        );
    }
    let text = server.get("/metrics").text();
    assert!(
        text.contains("langevin_orders_total{outcome=\"done\"} 2000"),
        "{text}"
    );
    assert!(
        text.contains("langevin_orders_total{outcome=\"failed\"} 0"),
        "{text}"
    );
    assert_eq!((server.queue("waiting"), server.queue("running")), (0, 0));
    server.end();
}
