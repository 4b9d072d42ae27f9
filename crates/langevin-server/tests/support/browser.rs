//! A browser, driven by WebDriver: JSON over HTTP, to a `chromedriver` that the test starts.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::call;

/// A window of Chromium without a screen. It closes with this value.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Where downloads go.
    pub downloads: tempfile::TempDir,
}

/// Why there is no browser, where there is none.
pub(crate) const MISSING: &str =
    "skipped: chromium and chromedriver are not installed (apt-get install chromium chromium-driver)";

impl Browser {
    /// Opens a window of this size; `None` where this machine has no Chromium or no chromedriver.
    pub(crate) fn open(width: u32, height: u32) -> Option<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        })?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let downloads = tempfile::tempdir().unwrap();
        let options = json!({
            // In a container Chromium's own sandbox has no place, and /dev/shm is small.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                format!("--window-size={width},{height}")],
            "prefs": { "download.default_directory": downloads.path() }
        });
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" }
        } } });
        let answer = call(
            address,
            "POST",
            "/session",
            &[],
            capabilities.to_string().as_bytes(),
        );
        let session = answer.json()["value"]["sessionId"].as_str().map(str::to_string);
        let Some(session) = session else {
            println!("{}", answer.text());
            let _ = driver.kill();
            let _ = driver.wait();
            return None;
        };
        let browser = Self {
            driver,
            address,
            session,
            downloads,
        };
        // A window of a phone's width is narrower than a window may be: the page is told another one.
        browser.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 }),
        );
        Some(browser)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/session/{}{path}", self.session);
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let answer = call(self.address, method, &path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()["value"].clone()
    }

    /// A command of Chromium's DevTools.
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command(
            "POST",
            "/goog/cdp/execute",
            &json!({ "cmd": command, "params": parameters }),
        )
    }

    pub(crate) fn go(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// What a piece of JavaScript returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What a promise in JavaScript comes to.
    pub(crate) fn wait_for(&self, promise: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; Promise.resolve({promise}).then(done, (e) => done(`${{e}}`));"
        );
        self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression of JavaScript is true, at most half a minute.
    pub(crate) fn until(&self, condition: &str) {
        let since = Instant::now();
        while self.run(&format!("return Boolean({condition});")) != true {
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "never: {condition}; {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn element(&self, selector: &str) -> String {
        let found = self.command(
            "POST",
            "/element",
            &json!({ "using": "css selector", "value": selector }),
        );
        let reference = found.as_object().and_then(|found| found.values().next());
        reference.and_then(Value::as_str).unwrap().to_string()
    }

    /// Clicks as a mouse does: what lies over the element gets the click instead, and the test fails.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types keys into whatever has the focus, or into an element.
    pub(crate) fn keys(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.command(
            "POST",
            &format!("/element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// Puts a value into a control, as a user's choice does.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.run(&format!(
            "const input = document.getElementById('settings').elements[{name:?}]; input.value = {value:?};
             for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind, {{ bubbles: true }}));"
        ));
    }

    /// Draws a line over an element with the mouse, between places in parts of its width and height.
    pub(crate) fn drag(&self, selector: &str, from: [f64; 2], to: [f64; 2]) {
        let rectangle = self.run(&format!(
            "const {{ x, y, width, height }} = document.querySelector({selector:?}).getBoundingClientRect(); return [x, y, width, height];"
        ));
        let side = |number: usize| rectangle[number].as_f64().unwrap();
        let at = |[x, y]: [f64; 2]| (side(0) + x * side(2), side(1) + y * side(3));
        let mouse = |kind: &str, (x, y): (f64, f64), buttons: u8| {
            // A move with a button would be one with that button down.
            let button = if kind == "mouseMoved" && buttons == 0 {
                "none"
            } else {
                "left"
            };
            self.devtools(
                "Input.dispatchMouseEvent",
                &json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1 }),
            );
        };
        mouse("mouseMoved", at(from), 0);
        mouse("mousePressed", at(from), 1);
        mouse("mouseMoved", at(to), 1);
        mouse("mouseReleased", at(to), 0);
    }

    pub(crate) fn text(&self, selector: &str) -> String {
        let text = self.run(&format!(
            "return document.querySelector({selector:?}).textContent;"
        ));
        text.as_str().unwrap().to_string()
    }

    /// The page as it looks, as a PNG.
    pub(crate) fn screenshot(&self, whole: bool) -> Vec<u8> {
        let shot = self.devtools(
            "Page.captureScreenshot",
            &json!({ "captureBeyondViewport": whole }),
        );
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// What the page complained of.
    pub(crate) fn log(&self) -> Value {
        self.command("POST", "/se/log", &json!({ "type": "browser" }))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let path = format!("/session/{}", self.session);
        call(self.address, "DELETE", &path, &[], b"");
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// axe-core, the accessibility checker, where it has been fetched: `.ci/run` does so.
pub(crate) fn axe() -> Option<String> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/axe/package/axe.min.js");
    std::fs::read_to_string(beside).ok()
}
