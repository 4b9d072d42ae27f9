//! The page: files that are part of the program.

use std::sync::Arc;

use axum::{Router, http::header, routing::get};

use crate::app::App;

/// What the API is, but for the schema of a request.
pub(crate) const DESCRIPTION: &str = include_str!("../page/openapi.json");

/// Address, kind and content of every file.
const FILES: &[(&str, &str, &str)] = &[
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../page/index.html"),
    ),
    (
        "/docs",
        "text/html; charset=utf-8",
        include_str!("../page/docs.html"),
    ),
    (
        "/page/icon.svg",
        "image/svg+xml",
        include_str!("../page/icon.svg"),
    ),
    ("/page/style.css", CSS, include_str!("../page/style.css")),
    ("/page/api.js", SCRIPT, include_str!("../page/api.js")),
    ("/page/app.js", SCRIPT, include_str!("../page/app.js")),
    (
        "/page/attributes.js",
        SCRIPT,
        include_str!("../page/attributes.js"),
    ),
    ("/page/chart.js", SCRIPT, include_str!("../page/chart.js")),
    ("/page/compare.js", SCRIPT, include_str!("../page/compare.js")),
    ("/page/docs.js", SCRIPT, include_str!("../page/docs.js")),
    ("/page/drawing.js", SCRIPT, include_str!("../page/drawing.js")),
    ("/page/dropped.js", SCRIPT, include_str!("../page/dropped.js")),
    ("/page/gallery.js", SCRIPT, include_str!("../page/gallery.js")),
    ("/page/loras.js", SCRIPT, include_str!("../page/loras.js")),
    ("/page/mask.js", SCRIPT, include_str!("../page/mask.js")),
    ("/page/options.js", SCRIPT, include_str!("../page/options.js")),
    ("/page/picture.js", SCRIPT, include_str!("../page/picture.js")),
    ("/page/schedule.js", SCRIPT, include_str!("../page/schedule.js")),
    ("/page/settings.js", SCRIPT, include_str!("../page/settings.js")),
    ("/page/size.js", SCRIPT, include_str!("../page/size.js")),
    ("/page/sound.js", SCRIPT, include_str!("../page/sound.js")),
    ("/page/tokens.js", SCRIPT, include_str!("../page/tokens.js")),
    ("/page/training.js", SCRIPT, include_str!("../page/training.js")),
];

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(crate) fn routes() -> Router<Arc<App>> {
    FILES
        .iter()
        .fold(Router::new(), |router, &(address, kind, content)| {
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
            router.route(address, get(move || async move { (headers, content) }))
        })
}
