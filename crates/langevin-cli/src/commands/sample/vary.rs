//! `--vary`: every combination of some settings, as one labelled picture.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use langevin::{
    Pipeline, Request,
    data::{ImageInput, Picture, is_picture_name},
    generate::Plan,
    grid,
    plot::labelled,
    settings::ModelName,
};
use serde_json::Value;

use super::draw::Drawing;
use crate::{processes::Processes, terminal};

/// The most combinations.
const MOST: usize = 100;

/// An option and the values that it takes in turn.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// As a request names it.
    option: String,
    values: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Axes(Vec<Axis>);

impl Axes {
    /// Reads `steps=10,20,40; scheduler=euler,unipc`. Values with commas in them stand between `|`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        axes(text).map(Self)
    }
}

fn axes(text: &str) -> Result<Vec<Axis>, String> {
    let mut axes: Vec<Axis> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (option, values) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is no option with its values, as in steps=10,20,40"))?;
        let separator = if values.contains('|') { '|' } else { ',' };
        let values: Vec<String> = values
            .split(separator)
            .map(|value| value.trim().to_owned())
            .collect();
        let option = option.trim().trim_start_matches('-').replace('-', "_");
        if axes.iter().any(|axis| axis.option == option) {
            return Err(format!("`{option}` is there twice"));
        }
        axes.push(Axis { option, values });
    }
    match axes.iter().map(|axis| axis.values.len()).product::<usize>() {
        _ if axes.is_empty() => Err("there is no option in it; steps=10,20,40 has one".into()),
        count if count > MOST => Err(format!("these are {count} combinations, and {MOST} are the most")),
        _ => Ok(axes),
    }
}

/// A request with an option set.
fn set(request: &Request, option: &str, text: &str) -> Result<Request> {
    // Pictures are files here, which JSON does not carry.
    let mut bare = request.clone();
    let mut pictures: Vec<(&'static str, ImageInput)> = Vec::new();
    for (name, picture) in bare.images_mut() {
        pictures.push((name, picture.clone()));
        *picture = ImageInput::Base64(String::new());
    }
    let mut fields = serde_json::to_value(&bare)?;
    let usual = fields
        .get(option)
        .ok_or_else(|| anyhow!("--vary: there is no option `{option}` in a request"))?;
    if pictures.iter().any(|(name, _)| *name == option) {
        bail!("--vary: `{option}` is a picture, which cannot vary");
    }
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text.to_owned()),
    };
    let value = if usual.is_array() {
        Value::Array(vec![value])
    } else {
        value
    };
    fields[option] = value;
    let mut varied: Request = serde_json::from_value(fields)
        .map_err(|e| anyhow!("--vary: `{text}` is no value of `{option}`: {e}"))?;
    varied.batch_size = request.batch_size;
    (varied.clip, varied.cuts) = (request.clip.clone(), request.cuts);
    for (place, (_, picture)) in varied.images_mut().zip(pictures) {
        *place.1 = picture;
    }
    Ok(varied)
}

/// Draws the first picture of every combination, from one seed, and writes them as one.
pub(super) fn run(
    Axes(axes): &Axes,
    request: &Request,
    pipeline: &Pipeline,
    output: &Path,
    model: Option<&ModelName>,
    processes: &mut Processes,
) -> Result<()> {
    let planned = planned(axes, request, pipeline, output);
    let (combinations, plans) = processes.agree(planned)?;
    let stop = super::stop_on_signals(processes)?;
    let mut pictures: Vec<Picture> = Vec::new();
    for (number, (plan, (labels, _))) in plans.iter().zip(&combinations).enumerate() {
        plan.notices().iter().for_each(|notice| terminal::say(notice));
        terminal::say(&format!(
            "{} of {}: {}",
            number + 1,
            plans.len(),
            labels.join(", ")
        ));
        let mut drawing = Drawing::new(1, &stop, None);
        let drawn = plan.run_among(pipeline, processes.world(), &mut drawing)?;
        let stopped = || anyhow!("stopped before the pictures were done; nothing was written");
        pictures.extend(processes.agree(drawn.ok_or_else(stopped))?);
    }
    if !processes.is_first() {
        return Ok(());
    }
    // The last option stands in columns, and the others in rows.
    let across = axes.last().map_or(1, |axis| axis.values.len());
    let columns: Vec<String> = combinations[..across]
        .iter()
        .map(|(labels, _)| labels.last().cloned().unwrap_or_default())
        .collect();
    let rows: Vec<String> = combinations
        .chunks(across)
        .map(|row| row[0].0[..axes.len() - 1].join(", "))
        .collect();
    let whole = labelled(&pictures, &columns, &rows)?;
    let mut texts = model.map_or_else(Vec::new, |model| plans[0].facts(&model.path, None));
    if model.is_some() {
        let varied = axes
            .iter()
            .map(|axis| format!("{}={}", axis.option, axis.values.join(",")));
        texts.push(("varied", varied.collect::<Vec<_>>().join("; ")));
    }
    grid::write_picture(output, &whole, &texts)?;
    terminal::print(&format!(
        "{} combinations in {}",
        pictures.len(),
        output.display()
    ))?;
    Ok(())
}

/// The labels of a combination, and what it asks for.
type Combination = (Vec<String>, Request);

/// Every combination, with its plan.
fn planned(
    axes: &[Axis],
    request: &Request,
    pipeline: &Pipeline,
    output: &Path,
) -> Result<(Vec<Combination>, Vec<Plan>)> {
    if !is_picture_name(output) {
        bail!(
            "--vary draws one picture: --output must name one, and {} does not",
            output.display()
        );
    }
    let mut combinations = vec![(
        Vec::new(),
        Request {
            count: Some(1),
            ..request.clone()
        },
    )];
    for axis in axes {
        let mut more = Vec::new();
        for (labels, request) in &combinations {
            for value in &axis.values {
                let label = format!("{} {value}", axis.option.replace('_', " "));
                more.push((
                    [labels.as_slice(), &[label]].concat(),
                    set(request, &axis.option, value)?,
                ));
            }
        }
        combinations = more;
    }
    // Everything that can be wrong is found out before the first step.
    let plans = combinations.iter().map(|(labels, request)| {
        Plan::of(pipeline, request).map_err(|error| anyhow!("--vary: {}: {error}", labels.join(", ")))
    });
    let plans = plans.collect::<Result<_>>()?;
    Ok((combinations, plans))
}
