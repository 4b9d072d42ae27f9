//! A server that tests start, and what they ask it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The program, and where it says that it is. It ends with this value.
pub(crate) struct Serving {
    pub child: Child,
    pub address: String,
}

impl Serving {
    /// A small pipeline, with the key `sesame`.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Self {
        Self::of(
            &super::reference_pipeline("ddpm").display().to_string(),
            folder,
            flags,
        )
    }

    /// The same of another model.
    pub(crate) fn of(model: &str, folder: &Path, flags: &[&str]) -> Self {
        let mut child = super::command(folder, ["serve", "--port", "0"])
            .arg(model)
            .args(flags)
            .env("LANGEVIN_API_KEY", "sesame")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .strip_prefix("open http://")
            .and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("{line}")).to_string();
        Self { child, address }
    }

    /// Sends a request, whose answer is read from what this gives.
    pub(crate) fn send(&self, head: &str, body: &str) -> TcpStream {
        send(&self.address, head, body).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of an answer.
pub(crate) fn read(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Sends a request to an address, with the key.
pub(crate) fn send(address: &str, head: &str, body: &str) -> io::Result<TcpStream> {
    send_for("*/*", address, head, body)
}

/// The same for an answer of this kind.
pub(crate) fn send_for(accept: &str, address: &str, head: &str, body: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nAuthorization: Bearer sesame\r\nAccept: {accept}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())?;
    Ok(stream)
}
