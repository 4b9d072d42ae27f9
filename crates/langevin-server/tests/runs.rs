//! Training runs that are followed by many: what it costs.

mod support;

use std::{
    fs,
    io::{BufWriter, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use langevin_server::ServerOptions;
use serde_json::json;
use support::Server;

const STEPS: u64 = 2_000_000;
const VIEWERS: usize = 20;
/// How often the page looks at a run that goes on.
const EVERY: Duration = Duration::from_secs(2);
/// The most that following may add to the memory of the process, in KiB.
const MOST: usize = 100 * 1024;

/// A line of `/proc/self/status`, in KiB, where the system has one.
fn memory(line: &str) -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|other| other.strip_prefix(line))?;
    line.trim().split(' ').next()?.parse().ok()
}

fn loss(step: u64) -> f64 {
    1.0 / (step as f64).sqrt()
}

/// A server that shows one long run.
fn server() -> Server {
    Server::of(|folder| {
        let run = folder.join("runs/long");
        fs::create_dir_all(&run).unwrap();
        let config = langevin::training::TrainingConfig::default();
        fs::write(run.join("training.json"), serde_json::to_string(&config).unwrap()).unwrap();
        let mut file = BufWriter::new(fs::File::create(run.join("metrics.jsonl")).unwrap());
        for step in 1..=STEPS {
            writeln!(
                file,
                "{{\"step\":{step},\"epoch\":0,\"loss\":{:.6},\"lr\":0.0001}}",
                loss(step)
            )
            .unwrap();
        }
        file.flush().unwrap();
        ServerOptions {
            runs: Some(folder.join("runs")),
            ..ServerOptions::default()
        }
    })
}

/// The quickest of a few drawings, in seconds.
fn seconds_of_drawing(server: &Server) -> f64 {
    let request = json!({ "sampler": "ddim", "steps": 300 });
    let seconds = (0..10).map(|_| {
        let since = Instant::now();
        server.generate("image/png", &request).expect(200);
        since.elapsed().as_secs_f64()
    });
    seconds.reduce(f64::min).unwrap()
}

#[test]
fn twenty_viewers_of_two_million_steps_cost_little() {
    let server = server();
    seconds_of_drawing(&server);
    let (alone, before) = (seconds_of_drawing(&server), memory("VmRSS:"));
    // What it peaked at until now does not count.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (over, first) = (AtomicBool::new(false), Instant::now());
    let beside = thread::scope(|scope| {
        let viewers: Vec<_> = (0..VIEWERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut looks = 0;
                    while !over.load(Ordering::Relaxed) || looks == 0 {
                        let runs = server.get("/api/runs").expect(200).json();
                        assert_eq!(
                            (runs[0]["steps"].as_u64(), runs[0]["name"].as_str()),
                            (Some(STEPS), Some("long"))
                        );
                        let run = server.get("/api/runs/long").expect(200).json();
                        let losses = run["losses"].as_array().unwrap();
                        assert!((300..=600).contains(&losses.len()), "{}", losses.len());
                        assert_eq!(losses.last().unwrap()[0], STEPS);
                        looks += 1;
                        thread::sleep(EVERY);
                    }
                    looks
                })
            })
            .collect();
        // All have seen it once.
        server.get("/api/runs/long").expect(200);
        println!("the first look took {:.2} s", first.elapsed().as_secs_f64());
        let beside = seconds_of_drawing(&server);
        over.store(true, Ordering::Relaxed);
        let looks: usize = viewers.into_iter().map(|viewer| viewer.join().unwrap()).sum();
        println!("{looks} looks of {VIEWERS} viewers");
        beside
    });
    println!("drawing took {alone:.3} s alone and {beside:.3} s beside them");
    if let (Some(before), Some(peak)) = (before, memory("VmHWM:")) {
        println!("memory: {before} KiB before, {peak} KiB at the most");
        assert!(peak < before + MOST, "memory grew from {before} to {peak} KiB");
    }
}
