//! What a data set holds.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    data::{self, Dataset, DatasetSummary, OpenOptions, Picture, Transform},
    grid,
    random::Generator,
};

use serde_json::{Value, json};

use crate::terminal;

/// The pictures of a batch, and how many stand side by side.
const BATCH: usize = 64;
const COLUMNS: usize = 8;
/// The largest side of a picture in the grid.
const LARGEST: usize = 128;

/// Prints what the data set holds, and writes a grid of it where asked to. Broken pictures make it an error, after
/// everything is said.
pub(super) fn describe(path: &Path, options: &OpenOptions, grid: Option<&Path>, as_json: bool) -> Result<()> {
    let Some(name) = path.to_str() else {
        bail!("{}: is not a name in UTF-8", path.display())
    };
    let dataset = data::open_with(name, options)?;
    let summary = DatasetSummary::of(dataset.as_ref());
    if as_json {
        terminal::print_json(&json(&summary, grid))?;
    } else {
        terminal::print(&plain(&summary).to_string())?;
    }
    if let Some(grid_path) = grid {
        write_grid(dataset.as_ref(), &summary, grid_path)?;
        if !as_json {
            terminal::print_line(&format!("  grid      {}", grid_path.display()))?;
        }
    }
    match summary.broken.len() {
        0 => Ok(()),
        1 => bail!("a picture is broken"),
        count => bail!("{count} pictures are broken"),
    }
}

/// The summary for programs.
fn json(summary: &DatasetSummary, grid: Option<&Path>) -> Value {
    let size = |size: Option<(usize, usize)>| {
        size.map(|(height, width)| json!({ "height": height, "width": width }))
    };
    let of_classes = summary.classes.iter();
    let of_broken = summary.broken.iter();
    json!({
        "kind": "dataset",
        "name": summary.name,
        "description": summary.description,
        "pictures": summary.count,
        "smallest": size(summary.smallest),
        "largest": size(summary.largest),
        "grey": summary.grey,
        "colour": summary.colour,
        "classes": of_classes
            .map(|(name, count)| json!({ "name": name, "pictures": count }))
            .collect::<Vec<_>>(),
        "captions": summary.captions,
        "left_out": summary.left_out,
        "broken": of_broken
            .map(|(path, reason)| json!({ "path": path.display().to_string(), "reason": reason }))
            .collect::<Vec<_>>(),
        "grid": grid.map(|path| path.display().to_string()),
    })
}

/// The summary with each of its texts as one line.
fn plain(summary: &DatasetSummary) -> DatasetSummary {
    let line = |text: &str| terminal::plain(text).into_owned();
    let broken =
        |(path, reason): &(PathBuf, String)| (line(&path.display().to_string()).into(), line(reason));
    DatasetSummary {
        name: line(&summary.name),
        description: line(&summary.description),
        classes: summary
            .classes
            .iter()
            .map(|(name, count)| (line(name), *count))
            .collect(),
        left_out: summary.left_out.iter().map(|sentence| line(sentence)).collect(),
        broken: summary.broken.iter().map(broken).collect(),
        ..summary.clone()
    }
}

/// A batch as training might see it: pictures in a random but repeatable order, all brought to one size.
fn write_grid(dataset: &dyn Dataset, summary: &DatasetSummary, path: &Path) -> Result<()> {
    let side = summary
        .smallest
        .map_or(LARGEST, |(height, width)| height.min(width))
        .min(LARGEST);
    let channels = if summary.colour == 0 {
        data::Channels::Grey
    } else {
        data::Channels::Rgb
    };
    let transform = Transform {
        channels,
        ..Transform::new(side)
    };
    let mut generator = Generator::new(0);
    let mut pictures = Vec::with_capacity(BATCH);
    for index in data::epoch_order(dataset, 0, 0) {
        if pictures.len() == BATCH {
            break;
        }
        // A broken picture is in the summary already.
        let Ok(example) = dataset.get(index) else { continue };
        let values = transform.apply(example.picture, &mut generator)?;
        pictures.push(Picture::from_chw(&values, channels.count(), side, side)?);
    }
    if pictures.is_empty() {
        bail!("there is no picture to show");
    }
    Ok(grid::write_picture(
        path,
        &grid::side_by_side(&pictures, COLUMNS)?,
        &[("dataset", summary.name.clone())],
    )?)
}
