//! Two servers behind nginx, by the file that docs/scale.md tells to use: answers come as they are made, and where one server is killed, every request is
//! answered by the other, or told to come again. Where there is no nginx, these tests say so and pass.

mod support;

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::serving::{Serving, read, send, send_for};
use tempfile::{TempDir, tempdir};

/// nginx before some servers. It ends with this value.
struct Proxy {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Proxy {
    /// `None` where there is no nginx.
    fn before(servers: &[Serving; 2]) -> Option<Self> {
        let found = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("there is no nginx: replicas behind it are not tested");
            return None;
        }
        let folder = tempdir().unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster/nginx.conf");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut text = fs::read_to_string(file).unwrap();
        for (told, real) in [
            ("127.0.0.1:7861", servers[0].address.as_str()),
            ("127.0.0.1:7862", &servers[1].address),
            ("listen 7860", &format!("listen {free}")),
        ] {
            assert_eq!(text.matches(told).count(), 1, "{told}");
            text = text.replace(told, real);
        }
        let place = folder.path().display();
        let whole = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log; events {{}}\nhttp {{ access_log off; \
             client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; \
             scgi_temp_path {place}/s;\n{text} }}\n"
        );
        fs::write(folder.path().join("nginx.conf"), whole).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self {
            child,
            address: free.to_string(),
            _folder: folder,
        };
        let start = Instant::now();
        while send(&proxy.address, "GET /health", "").is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "nginx does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        Some(proxy)
    }

    fn ask(&self, seed: usize, steps: usize) -> Vec<u8> {
        let body = format!("{{\"seed\": {seed}, \"steps\": {steps}, \"sampler\": \"ddpm\"}}");
        read(send(&self.address, "POST /api/generate", &body).unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn servers(folder: &Path) -> [Serving; 2] {
    [(), ()].map(|()| Serving::start(folder, &[]))
}

/// The status and the body of an answer.
fn parts(answer: &[u8]) -> (&str, &str, &[u8]) {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let text = std::str::from_utf8(&answer[..head]).unwrap();
    (&text[9..12], text, &answer[head + 4..])
}

#[test]
fn events_come_through_as_they_happen() {
    let folder = tempdir().unwrap();
    let servers = servers(folder.path());
    let Some(proxy) = Proxy::before(&servers) else {
        return;
    };
    let body = "{\"steps\": 900, \"sampler\": \"ddpm\"}";
    let mut stream = send_for("text/event-stream", &proxy.address, "POST /api/generate", body).unwrap();
    let start = Instant::now();
    let (mut seen, mut first) = (Vec::new(), None);
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes).unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&bytes[..count]);
        if first.is_none() && String::from_utf8_lossy(&seen).contains("event: progress") {
            first = Some(start.elapsed());
        }
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("event: done"), "{text}");
    assert!(
        first.unwrap() < start.elapsed() / 2,
        "{first:?} of {:?}",
        start.elapsed()
    );
}

#[test]
fn a_killed_server_leaves_no_request_without_an_answer() {
    const ASKED: usize = 24;
    let folder = tempdir().unwrap();
    let mut servers = servers(folder.path());
    let Some(proxy) = Proxy::before(&servers) else {
        return;
    };
    let steps = 200;
    let expected: Vec<Vec<u8>> = [0, ASKED - 1]
        .map(|seed| parts(&proxy.ask(seed, steps)).2.to_vec())
        .into();
    let answers: Vec<Vec<u8>> = thread::scope(|scope| {
        let proxy = &proxy;
        let asking: Vec<_> = (0..ASKED)
            .map(|seed| scope.spawn(move || proxy.ask(seed, steps)))
            .collect();
        thread::sleep(Duration::from_millis(150));
        servers[0].child.kill().unwrap();
        let unfinished = asking.iter().filter(|one| !one.is_finished()).count();
        assert!(unfinished > 0, "it was killed after the last answer");
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (seed, answer) in answers.iter().enumerate() {
        let (status, head, body) = parts(answer);
        match status {
            "200" => {
                assert!(body.starts_with(b"\x89PNG"), "{seed}");
                // The same picture, whoever drew it.
                let known = [(0, 0), (ASKED - 1, 1)].into_iter().find(|(of, _)| *of == seed);
                if let Some((_, place)) = known {
                    assert!(body == expected[place], "{seed}");
                }
            }
            "503" | "429" => assert!(head.to_lowercase().contains("retry-after"), "{head}"),
            other => panic!("{seed}: {other}: {head}"),
        }
    }
    let answered = answers.iter().filter(|answer| parts(answer).0 == "200").count();
    assert!(answered > ASKED / 2, "{answered} of {ASKED}");
    // The one that is left goes on, and when it is gone as well, that is said.
    assert_eq!(parts(&proxy.ask(3, 2)).0, "200");
    servers[1].child.kill().unwrap();
    let answer = proxy.ask(4, 2);
    let (status, head, body) = parts(&answer);
    assert!(status == "503" && head.contains("Retry-After: 5"), "{head}");
    assert!(String::from_utf8_lossy(body).contains("ask again"));
}
