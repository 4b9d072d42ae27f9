//! What the loopback Hub answers.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    repos::{Object, Repo, etag, git_hash, is_large, pointer, sha256},
    wire::{Request, Response, serve},
};

/// A token that may read what is private, but not what is gated.
pub(crate) const READER: &str = "hf_reader";
/// A token that may do all.
pub(crate) const WRITER: &str = "hf_writer";

/// What goes wrong with a file that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes.
    Cut(usize),
    /// One byte is another.
    Damage,
    /// Ranges are overlooked.
    NoRanges,
    /// The server has trouble.
    Status(u16),
}

/// What goes wrong with a request of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An answer of this status and this text, and nothing is done.
    Status(u16, &'static str),
    /// Too many requests: so many seconds are to be waited.
    Limit(u64),
    /// The same by the older header.
    RetryAfter(u64),
    /// It is done, and the connection ends after so many bytes of the answer.
    Cut(usize),
    /// This part of the address is another now.
    Moved(&'static str, &'static str),
    /// It is done, and the answer has no such header.
    Without(&'static str),
}

impl Trouble {
    fn answer(self, request: &Request, usual: impl FnOnce() -> Response) -> Response {
        let limited = |name: &str, value: String| Response::error(429, "", "Too many").with(name, value);
        match self {
            Self::Status(status, said) => Response::error(status, "", said),
            Self::Limit(seconds) => limited("RateLimit", format!("\"api\";r=0;t={seconds}")),
            Self::RetryAfter(seconds) => limited("Retry-After", seconds.to_string()),
            Self::Cut(count) => {
                let mut response = usual();
                response.cut = Some(count);
                response
            }
            Self::Moved(from, to) => Response::new(307).with("Location", request.raw_path.replace(from, to)),
            Self::Without(name) => {
                let mut response = usual();
                response.headers.retain(|(known, _)| known != name);
                response
            }
        }
    }
}

/// What is behind the two ports.
#[derive(Default)]
pub(crate) struct State {
    /// By `models/ORG/NAME` and the like.
    pub repos: BTreeMap<String, Repo>,
    /// What was uploaded to the large store.
    pub store: BTreeMap<String, Arc<Vec<u8>>>,
    /// Parts of large files, by `OID/NUMBER`.
    pub parts: BTreeMap<String, Vec<u8>>,
    /// Faults by the ending of a path, and how many times they happen.
    pub faults: Vec<(String, Fault, usize)>,
    /// Troubles by the method and a part of a path, and how many times they happen.
    pub troubles: Vec<(&'static str, &'static str, Trouble, usize)>,
    /// What a token may do, where the Hub says so.
    pub role: Option<&'static str>,
    /// Every request: which port, and what.
    pub requests: Vec<(&'static str, Request)>,
    /// Large files come in parts of so many bytes, if at all.
    pub chunk_size: Option<usize>,
    /// How many entries a page of a listing has.
    pub page: usize,
}

/// A Hub, and the store of its large files on a port of its own, as the real one has them on other hosts.
pub(crate) struct Server {
    pub endpoint: String,
    pub store: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listen = |host: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, format!("http://{host}:{port}"))
        };
        // Clients tell the Hub from its store by the host's name.
        let ((hub, endpoint), (large, store)) = (listen("127.0.0.1"), listen("localhost"));
        let state = Arc::new(Mutex::new(State {
            page: 1000,
            ..State::default()
        }));
        let server = Self {
            endpoint,
            store,
            state,
        };
        let (state, addresses) = (
            server.state.clone(),
            (server.endpoint.clone(), server.store.clone()),
        );
        serve(
            hub,
            Arc::new(move |request| {
                let mut state = state.lock().unwrap();
                state.requests.push(("hub", request.clone()));
                let usual = |state: &mut State| state.hub(&request, &addresses.0, &addresses.1);
                match state.trouble(&request) {
                    Some(trouble) => trouble.answer(&request, || usual(&mut state)),
                    None => usual(&mut state),
                }
            }),
        );
        let state = server.state.clone();
        serve(
            large,
            Arc::new(move |request| {
                let mut state = state.lock().unwrap();
                state.requests.push(("store", request.clone()));
                match state.trouble(&request) {
                    Some(trouble) => trouble.answer(&request, || state.large(&request)),
                    None => state.large(&request),
                }
            }),
        );
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes a commit of these files on a branch of a repository, which is made if need be.
    pub(crate) fn add(&self, repo: &str, branch: &str, files: &[(&str, &[u8])]) -> String {
        let mut state = self.state();
        let repo = state.repos.entry(repo.to_string()).or_default();
        let objects = files.iter().map(|(path, bytes)| {
            let object = Object {
                bytes: Arc::new(bytes.to_vec()),
                lfs: is_large(path, bytes.len()),
            };
            (path.to_string(), object)
        });
        repo.commit(branch, "test", objects, &[])
    }

    /// Lets something go wrong, so many times, with files whose path ends so.
    pub(crate) fn fault(&self, path: &str, fault: Fault, times: usize) {
        self.state().faults.push((path.to_string(), fault, times));
    }

    /// Lets something go wrong, so many times, with requests of this method to a path with this part.
    pub(crate) fn trouble(&self, method: &'static str, path: &'static str, trouble: Trouble, times: usize) {
        self.state().troubles.push((method, path, trouble, times));
    }

    /// The requests to a port by their method and the beginning of their path.
    pub(crate) fn asked(&self, port: &str, method: &str, path: &str) -> Vec<Request> {
        let state = self.state();
        let is_meant = |(at, request): &&(&str, Request)| {
            *at == port && request.method == method && request.path.contains(path)
        };
        state
            .requests
            .iter()
            .filter(is_meant)
            .map(|(_, request)| request.clone())
            .collect()
    }
}

impl State {
    fn trouble(&mut self, request: &Request) -> Option<Trouble> {
        let is_meant = |(method, path, _, times): &&mut (&str, &str, Trouble, usize)| {
            *times > 0 && request.method == *method && request.path.contains(*path)
        };
        let (_, _, trouble, times) = self.troubles.iter_mut().find(is_meant)?;
        *times -= 1;
        Some(trouble.clone())
    }

    fn hub(&mut self, request: &Request, endpoint: &str, store: &str) -> Response {
        let token = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        if token.is_some_and(|token| token != READER && token != WRITER) {
            return Response::error(401, "", "Invalid credentials in Authorization header");
        }
        let parts: Vec<&str> = request.raw_path.trim_start_matches('/').split('/').collect();
        let decoded: Vec<String> = parts.iter().map(|part| super::wire::decode(part)).collect();
        let words: Vec<&str> = decoded.iter().map(String::as_str).collect();
        match (request.method.as_str(), words.as_slice()) {
            ("GET", ["api", "whoami-v2"]) => match token {
                Some(_) => {
                    let token = json!({ "displayName": "t", "role": self.role.unwrap_or("write") });
                    let auth = json!({ "type": "access_token", "accessToken": token });
                    Response::json(&json!({ "name": "me", "type": "user", "orgs": [], "auth": auth }))
                }
                None => Response::error(401, "", "Invalid username or password."),
            },
            ("POST", ["api", "validate-yaml"]) => Response::json(&json!({ "errors": [], "warnings": [] })),
            ("POST", ["api", "repos", "create"]) => self.create(request, token, endpoint),
            (
                "GET",
                [
                    "api",
                    kind @ ("models" | "datasets" | "spaces"),
                    org,
                    name,
                    rest @ ..,
                ],
            ) => {
                let id = format!("{kind}/{org}/{name}");
                let Some(repo) = self.visible(&id, token) else {
                    return no_repository(token);
                };
                match rest {
                    [] => info(&id, repo, "main"),
                    ["revision", revision] => info(&id, repo, revision),
                    ["tree", revision, below @ ..] => {
                        tree(repo, revision, &below.join("/"), request, endpoint, self.page)
                    }
                    _ => Response::error(404, "", "Not found"),
                }
            }
            (
                "POST",
                [
                    "api",
                    kind,
                    org,
                    name,
                    action @ ("preupload" | "commit"),
                    revision,
                ],
            ) => {
                let id = format!("{kind}/{org}/{name}");
                if self.visible(&id, token).is_none() {
                    return no_repository(token);
                }
                match (token, *action) {
                    (Some(WRITER), "preupload") => self.preupload(&id, revision, request),
                    (Some(WRITER), _) => self.commit(&id, revision, request, endpoint),
                    (Some(_), _) => Response::error(403, "", "You don't have the rights to create a commit"),
                    (None, _) => Response::error(401, "", "Invalid username or password."),
                }
            }
            ("POST", [.., "info", "lfs", "objects", "batch"]) if token == Some(WRITER) => {
                self.batch(request, endpoint, store)
            }
            ("POST", ["api", "complete_multipart", oid]) => self.complete(oid, request),
            ("POST", ["api", "verify"]) if token == Some(WRITER) => self.verify(request),
            ("GET" | "HEAD", ["api", "resolve-cache", kind, org, name, commit, path @ ..]) => {
                let found = self.repos.get(&format!("{kind}/{org}/{name}"));
                let found = found.and_then(|repo| repo.files(commit)?.get(&path.join("/")).cloned());
                match found {
                    Some(object) => self
                        .send(&object.bytes, &etag(&object), request, &path.join("/"))
                        .with("X-Repo-Commit", commit),
                    None => Response::error(404, "EntryNotFound", "Entry not found"),
                }
            }
            (
                "GET" | "HEAD",
                [
                    kind @ ("datasets" | "spaces"),
                    org,
                    name,
                    "resolve",
                    revision,
                    path @ ..,
                ],
            ) => self.resolve(
                &format!("{kind}/{org}/{name}"),
                revision,
                &path.join("/"),
                token,
                store,
            ),
            ("GET" | "HEAD", [org, name, "resolve", revision, path @ ..]) => self.resolve(
                &format!("models/{org}/{name}"),
                revision,
                &path.join("/"),
                token,
                store,
            ),
            _ => Response::error(404, "", "Sorry, we can't find the page you are looking for."),
        }
    }

    fn visible(&self, id: &str, token: Option<&str>) -> Option<&Repo> {
        self.repos.get(id).filter(|repo| !repo.private || token.is_some())
    }

    /// Where a file's bytes are, and what they are.
    fn resolve(&self, id: &str, revision: &str, path: &str, token: Option<&str>, store: &str) -> Response {
        let Some(repo) = self.visible(id, token) else {
            return no_repository(token);
        };
        if repo.gated && token != Some(WRITER) {
            let status = if token.is_some() { 403 } else { 401 };
            return Response::error(status, "GatedRepo", "Access to this model is restricted.");
        }
        let Some(commit) = repo.resolve(revision) else {
            return Response::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
        };
        let Some(object) = repo.files(commit).and_then(|files| files.get(path)) else {
            return Response::error(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", commit);
        };
        let (status, location) = if object.lfs {
            (
                302,
                format!(
                    "{store}/objects/{}/{path}?signature=for-one-hour",
                    sha256(&object.bytes)
                ),
            )
        } else {
            (307, format!("/api/resolve-cache/{id}/{commit}/{}", encode(path)))
        };
        let git = if object.lfs {
            git_hash(pointer(object).as_bytes())
        } else {
            etag(object)
        };
        Response::new(status)
            .with("Location", location)
            .with("X-Repo-Commit", commit)
            .with("ETag", format!("\"{git}\""))
            .with("X-Linked-Etag", format!("\"{}\"", etag(object)))
            .with("X-Linked-Size", object.bytes.len())
    }

    /// Bytes, or a range of them, unless something is to go wrong.
    fn send(&mut self, bytes: &[u8], etag: &str, request: &Request, path: &str) -> Response {
        let fault = self
            .faults
            .iter_mut()
            .find(|(ending, _, times)| {
                *times > 0 && path.ends_with(ending.as_str()) && request.method == "GET"
            })
            .map(|(_, fault, times)| {
                *times -= 1;
                *fault
            });
        if let Some(Fault::Status(status)) = fault {
            return Response::error(status, "", "Internal trouble");
        }
        let range = request
            .header("range")
            .filter(|_| fault != Some(Fault::NoRanges))
            .and_then(|range| range.strip_prefix("bytes="))
            .and_then(|range| range.split('-').next()?.parse::<usize>().ok());
        let start = range.unwrap_or(0);
        if start > 0 && start >= bytes.len() {
            return Response::error(416, "", "Range Not Satisfiable");
        }
        let mut response = Response::new(if range.is_some() { 206 } else { 200 })
            .with("ETag", format!("\"{etag}\""))
            .with("Accept-Ranges", "bytes");
        if range.is_some() {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            response = response.with("Content-Range", range);
        }
        response.body = bytes[start..].to_vec();
        match fault {
            Some(Fault::Cut(count)) => response.cut = Some(count),
            Some(Fault::Damage) => {
                let middle = response.body.len() / 2;
                response.body[middle] ^= 1;
            }
            _ => {}
        }
        response
    }

    fn large(&mut self, request: &Request) -> Response {
        // A signed address is all that a store wants; many refuse a request that brings more.
        if request.header("authorization").is_some() {
            return Response::error(400, "", "Only one auth mechanism allowed");
        }
        let words: Vec<&str> = request.path.trim_start_matches('/').splitn(3, '/').collect();
        match (request.method.as_str(), words.as_slice()) {
            ("GET" | "HEAD", ["objects", oid, path]) => {
                let of_repos = self
                    .repos
                    .values()
                    .flat_map(|repo| repo.commits.values())
                    .flat_map(BTreeMap::values);
                let found = of_repos
                    .filter(|object| object.lfs)
                    .find(|object| sha256(&object.bytes) == *oid)
                    .map(|object| object.bytes.clone());
                match found {
                    Some(bytes) => self.send(&bytes, oid, request, path),
                    None => Response::error(404, "", "no such object"),
                }
            }
            ("PUT", _) if request.header("content-length").is_none() => {
                Response::error(411, "", "You must provide the Content-Length HTTP header.")
            }
            ("PUT", ["upload", oid]) if sha256(&request.body) == *oid => {
                self.store.insert(oid.to_string(), Arc::new(request.body.clone()));
                Response::new(200).with("ETag", "\"whole\"")
            }
            ("PUT", ["upload", oid, part]) => {
                self.parts.insert(format!("{oid}/{part}"), request.body.clone());
                Response::new(200).with("ETag", format!("\"part-{part}\""))
            }
            _ => Response::error(400, "", "BadDigest"),
        }
    }

    fn create(&mut self, request: &Request, token: Option<&str>, endpoint: &str) -> Response {
        match token {
            Some(WRITER) => {}
            Some(_) => {
                return Response::error(
                    403,
                    "",
                    "You don't have the rights to create a model under this namespace",
                );
            }
            None => return Response::error(401, "", "Invalid username or password."),
        }
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let kind = asked["type"].as_str().unwrap_or("model");
        let (org, name) = (
            asked["organization"].as_str().unwrap_or("me"),
            asked["name"].as_str().unwrap(),
        );
        let id = format!("{kind}s/{org}/{name}");
        let page = match kind {
            "model" => format!("{endpoint}/{org}/{name}"),
            _ => format!("{endpoint}/{kind}s/{org}/{name}"),
        };
        if self.repos.contains_key(&id) {
            let mut response = Response::error(409, "", &format!("You already created this {kind} repo"));
            response.body = json!({ "error": "You already created this repo", "url": page })
                .to_string()
                .into_bytes();
            return response;
        }
        let mut repo = Repo {
            private: asked["visibility"] == "private" || asked["private"] == true,
            sdk: asked["sdk"].as_str().map(String::from),
            ..Repo::default()
        };
        let attributes = Object {
            bytes: Arc::new(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec()),
            lfs: false,
        };
        repo.commit(
            "main",
            "initial commit",
            [(".gitattributes".to_string(), attributes)],
            &[],
        );
        self.repos.insert(id, repo);
        Response::json(&json!({ "url": page, "name": format!("{org}/{name}"), "id": "0123" }))
    }

    fn preupload(&self, id: &str, revision: &str, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let there = self.repos[id].files(revision);
        let files = asked["files"].as_array().unwrap().iter().map(|file| {
            let path = file["path"].as_str().unwrap();
            let size = file["size"].as_u64().unwrap() as usize;
            STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
            let mode = if is_large(path, size) { "lfs" } else { "regular" };
            let known = there.and_then(|files| files.get(path));
            json!({ "path": path, "uploadMode": mode, "shouldIgnore": false, "oid": known.map(etag) })
        });
        Response::json(&json!({ "files": files.collect::<Vec<_>>() }))
    }

    fn batch(&self, request: &Request, endpoint: &str, store: &str) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        if !request
            .header("content-type")
            .unwrap_or_default()
            .starts_with("application/vnd.git-lfs+json")
        {
            return Response::error(415, "", "not of git-lfs");
        }
        let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
            let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
            if self.store.contains_key(oid) {
                return json!({ "oid": oid, "size": size });
            }
            let upload = match self.chunk_size {
                Some(chunk) if size > chunk => {
                    let mut header = serde_json::Map::new();
                    header.insert("chunk_size".into(), json!(chunk.to_string()));
                    for part in 1..=size.div_ceil(chunk) {
                        header.insert(format!("{part:05}"), json!(format!("{store}/upload/{oid}/{part}?signature=x")));
                    }
                    json!({ "href": format!("{endpoint}/api/complete_multipart/{oid}"), "header": header })
                }
                _ => json!({ "href": format!("{store}/upload/{oid}?signature=x"), "header": null }),
            };
            let verify = json!({ "href": format!("{endpoint}/api/verify"), "header": {} });
            json!({ "oid": oid, "size": size, "authenticated": true, "actions": { "upload": upload, "verify": verify } })
        });
        let transfer = if self.chunk_size.is_some() {
            "multipart"
        } else {
            "basic"
        };
        Response::json(&json!({ "transfer": transfer, "objects": objects.collect::<Vec<_>>() }))
    }

    fn complete(&mut self, oid: &str, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let mut whole = Vec::new();
        for (index, part) in asked["parts"].as_array().unwrap().iter().enumerate() {
            let number = index + 1;
            if part["partNumber"] != number || part["etag"] != format!("\"part-{number}\"") {
                return Response::error(400, "", "InvalidPart");
            }
            match self.parts.get(&format!("{oid}/{number}")) {
                Some(bytes) => whole.extend(bytes),
                None => return Response::error(400, "", "InvalidPart"),
            }
        }
        if sha256(&whole) != oid {
            return Response::error(400, "", "BadDigest");
        }
        self.store.insert(oid.to_string(), Arc::new(whole));
        Response::json(&json!({}))
    }

    fn verify(&self, request: &Request) -> Response {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        match self.store.get(asked["oid"].as_str().unwrap()) {
            Some(bytes) if asked["size"] == bytes.len() => Response::json(&json!({ "message": "ok" })),
            _ => Response::error(404, "", "the object does not exist"),
        }
    }

    fn commit(&mut self, id: &str, revision: &str, request: &Request, endpoint: &str) -> Response {
        let (mut added, mut removed, mut summary) = (Vec::new(), Vec::new(), String::new());
        if request.header("content-type") != Some("application/x-ndjson") {
            return Response::error(415, "", "not lines of JSON");
        }
        for line in request
            .body
            .split(|&b| b == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line: Value = serde_json::from_slice(line).unwrap();
            let value = &line["value"];
            let path = value["path"].as_str().unwrap_or_default().to_string();
            match line["key"].as_str().unwrap() {
                "header" => summary = value["summary"].as_str().unwrap().to_string(),
                "file" => {
                    let bytes = STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                    let object = Object {
                        bytes: Arc::new(bytes),
                        lfs: false,
                    };
                    added.push((path, object));
                }
                "lfsFile" => match self.store.get(value["oid"].as_str().unwrap()) {
                    Some(bytes) => added.push((
                        path,
                        Object {
                            bytes: bytes.clone(),
                            lfs: true,
                        },
                    )),
                    None => {
                        return Response::error(400, "", "LFS pointer pointed to a file that does not exist");
                    }
                },
                "deletedFile" => removed.push(path),
                key => return Response::error(400, "", &format!("unknown key {key}")),
            }
        }
        let Some(repo) = self.repos.get_mut(id) else {
            return no_repository(None);
        };
        let commit = repo.commit(revision, &summary, added, &removed);
        let page = id.strip_prefix("models/").unwrap_or(id);
        Response::json(&json!({
            "success": true,
            "commitOid": commit,
            "commitUrl": format!("{endpoint}/{page}/commit/{commit}"),
            "hookOutput": "",
        }))
    }
}

fn no_repository(token: Option<&str>) -> Response {
    // Whether there is one is nobody's business who may not see it.
    let status = if token.is_some() { 404 } else { 401 };
    Response::error(status, "RepoNotFound", "Repository not found")
}

fn info(id: &str, repo: &Repo, revision: &str) -> Response {
    let Some(commit) = repo.resolve(revision) else {
        return Response::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    let siblings: Vec<Value> = repo.commits[commit]
        .keys()
        .map(|path| json!({ "rfilename": path }))
        .collect();
    let (_, id) = id.split_once('/').unwrap();
    Response::json(&json!({
        "_id": "0123", "id": id, "modelId": id, "sha": commit, "private": repo.private,
        "gated": if repo.gated { json!("auto") } else { json!(false) }, "disabled": false,
        "lastModified": "2024-01-01T00:00:00.000Z", "createdAt": "2024-01-01T00:00:00.000Z",
        "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
    }))
}

fn tree(
    repo: &Repo,
    revision: &str,
    below: &str,
    request: &Request,
    endpoint: &str,
    page: usize,
) -> Response {
    let Some(commit) = repo.resolve(revision) else {
        return Response::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"));
    };
    let recursive = request
        .query
        .get("recursive")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut entries = Vec::new();
    let mut folders = std::collections::BTreeSet::new();
    for (path, object) in &repo.commits[commit] {
        let Some(rest) = path.strip_prefix(below).map(|rest| rest.trim_start_matches('/')) else {
            continue;
        };
        for (at, _) in rest.match_indices('/') {
            let folder = &path[..path.len() - rest.len() + at];
            if folders.insert(folder.to_string()) && (recursive || !rest[..at].contains('/')) {
                entries.push(json!({ "type": "directory", "oid": git_hash(folder.as_bytes()), "size": 0, "path": folder }));
            }
        }
        if recursive || !rest.contains('/') {
            let size = object.bytes.len();
            entries.push(if object.lfs {
                let pointer = pointer(object);
                let lfs = json!({ "oid": sha256(&object.bytes), "size": size, "pointerSize": pointer.len() });
                json!({ "type": "file", "oid": git_hash(pointer.as_bytes()), "size": size, "lfs": lfs, "path": path })
            } else {
                json!({ "type": "file", "oid": git_hash(&object.bytes), "size": size, "path": path })
            });
        }
    }
    let start: usize = request
        .query
        .get("cursor")
        .map_or(0, |cursor| cursor.parse().unwrap());
    let end = entries.len().min(start + page);
    let mut response = Response::json(&Value::from(entries[start..end].to_vec()));
    if end < entries.len() {
        let next = format!(
            "<{endpoint}{}?recursive={recursive}&expand=false&cursor={end}>",
            request.raw_path
        );
        response = response.with("Link", format!("{next}; rel=\"next\""));
    }
    response
}

fn encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
