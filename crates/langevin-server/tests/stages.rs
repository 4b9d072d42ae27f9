//! Callers that are slow, idle or many: none of them holds up another.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    data::{Channels, Picture},
    grid,
};
use langevin_server::{Limits, ServerOptions};
use serde_json::json;
use support::{Server, receive, until};

const PATIENCE: Duration = Duration::from_secs(4);

/// One of these tests at a time: what one of them asks for would count as another's slowness.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn server() -> Server {
    Server::start(ServerOptions {
        patience: PATIENCE,
        ..ServerOptions::default()
    })
}

/// A connection on which so much was said.
fn said(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(10 * PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// The head of a request for pictures with a body of so many bytes.
fn head(length: usize) -> String {
    format!(
        "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

fn draws(server: &Server) {
    let since = Instant::now();
    let request = json!({ "sampler": "ddim", "steps": 2 });
    server.generate("image/png", &request).expect(200);
    assert!(since.elapsed() < PATIENCE / 2, "{:?}", since.elapsed());
}

#[test]
fn connections_that_say_nothing_or_half_of_it_are_closed() {
    let _alone = alone();
    let server = server();
    let idle = said(&server, "");
    let half = said(&server, "GET /health HTTP/1.1\r\nHost: loc");
    let mut kept = said(&server, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = [0; 1024];
    assert!(kept.read(&mut answer).unwrap() > 0);
    draws(&server);
    for mut stream in [idle, half, kept] {
        let since = Instant::now();
        // Closed, with or without a word about it.
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(since.elapsed() < 3 * PATIENCE, "{:?}", since.elapsed());
    }
}

#[test]
fn slow_bodies_hold_up_nobody_and_do_not_last() {
    let _alone = alone();
    let server = server();
    let (mut slow, mut refused) = (Vec::new(), None);
    until("one more is refused", || {
        let since = Instant::now();
        // As many as one caller may send pictures at a time.
        slow.extend((0..16).map(|_| said(&server, &(head(1_000_000) + "{\"seed\":"))));
        while refused.is_none() && since.elapsed() < PATIENCE / 2 {
            let answer = receive(said(&server, &(head(100_000) + &" ".repeat(100_000))));
            refused = Some(answer).filter(|answer| answer.status == 429);
        }
        if refused.is_none() {
            // On a machine that is busy, the first are at their end before the last one is heard.
            slow.clear();
            std::thread::sleep(PATIENCE);
        }
        refused.is_some()
    });
    let refused = refused.unwrap();
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=120).contains(&seconds));
    refused.refused(429, &["16 requests of this address", "try again"]);
    draws(&server);
    let short = said(&server, &(head(100) + "{"));
    draws(&server);
    for stream in slow.into_iter().chain([short]) {
        receive(stream).refused(408, &["4 seconds"]);
    }
    draws(&server);
}

#[test]
fn pictures_that_take_long_to_decode_hold_up_nobody() {
    let _alone = alone();
    let server = Server::start(ServerOptions {
        limits: Limits {
            body: 64 << 20,
            ..Limits::default()
        },
        ..ServerOptions::default()
    });
    // Four of the largest in each: seconds of work, and sixteen of them wait.
    let large = Picture::new(4096, 4096, Channels::Rgb, vec![7; 3 << 24]).unwrap();
    let picture = STANDARD.encode(grid::png_bytes(&large).unwrap());
    let request = json!({ "model": "colour", "sampler": "ddim", "steps": 2, "init_image": vec![picture; 4], "count": 4, "strength": 0.5 });
    let since = Instant::now();
    let first = server.send("image/png", &request);
    let others: Vec<TcpStream> = (0..5).map(|_| server.send("image/png", &request)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let beside = Instant::now();
    server
        .generate("image/png", &json!({ "sampler": "ddim", "steps": 2 }))
        .expect(200);
    let beside = beside.elapsed();
    let answer = receive(first);
    let one = since.elapsed();
    println!("a small drawing took {beside:?} beside large pictures, the first of which took {one:?}");
    // What it answers is the library's affair: this model begins with one picture or with several of its size.
    assert!([200, 422].contains(&answer.status), "{}", answer.text());
    let rest = others
        .into_iter()
        .map(receive)
        .filter(|answer| [200, 422].contains(&answer.status));
    assert_eq!(rest.count(), 5);
    assert!(
        beside < since.elapsed() / 3,
        "{beside:?} of {:?}",
        since.elapsed()
    );
}
