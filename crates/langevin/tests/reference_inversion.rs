//! The course's inversion and edit against its loops in Python: every case found under `inversion`.

mod support;

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Tensor};
use langevin::{
    Request,
    codec::Codec,
    data::read_picture,
    generate::{Inversion, Plan},
    guidance::ClassifierFree,
    pipelines::Pipeline,
    random::Generator,
};
use serde_json::{Value, json};
use support::{
    Outcome, Report, Stored, call::Case, folders, read_json, read_tensors, relative_difference, values,
    within,
};

const TOLERANCE: f64 = 1e-3;

type Checked<T> = Result<T, String>;

fn said(error: langevin::Error) -> String {
    error.to_string()
}

/// The latents after every step, in one tensor.
fn walked(latents: Option<Vec<Tensor<4>>>) -> Vec<Tensor<4>> {
    latents.expect("nobody ended the walk")
}

fn compare(what: &str, found: Tensor<4>, expected: &Stored) -> Checked<()> {
    within(
        what,
        relative_difference(&values(found), &expected.f32()),
        TOLERANCE,
    )
}

struct Run<'a> {
    case: &'a Value,
    folder: &'a Path,
    pipeline: &'a Pipeline,
    expected: BTreeMap<String, Stored>,
    device: Device,
}

impl Run<'_> {
    fn text(&self, key: &str) -> String {
        self.case[key].as_str().unwrap_or_default().to_owned()
    }

    fn whole(&self, key: &str) -> usize {
        self.case[key].as_u64().unwrap_or_default() as usize
    }

    fn request(&self, prompt: &str, scale: &str) -> Request {
        let guided = self.case["do_classifier_free_guidance"].as_bool().unwrap_or(true);
        let scale = if guided {
            self.case[scale].as_f64().unwrap_or(1.0)
        } else {
            1.0
        };
        Request {
            prompt: vec![self.text(prompt)],
            negative_prompt: if guided {
                vec![self.text("negative_prompt")]
            } else {
                Vec::new()
            },
            guidance: ClassifierFree::of_scale(scale),
            ..Request::default()
        }
    }

    /// The latents of the picture: in the file, another case's, or the posterior's sample.
    fn latents(&self) -> Checked<Tensor<4>> {
        if let Some(latents) = self.expected.get("latents") {
            return Ok(latents.tensor(&self.device));
        }
        let other = self.case["latents_from"]
            .as_str()
            .ok_or("there are no latents to begin with")?;
        let file = read_tensors(self.folder.join(other).join("expected.safetensors"));
        Ok(file["latents"].tensor(&self.device))
    }

    /// The posterior's sample is the one that the case names.
    fn check_encoding(&self) -> Checked<()> {
        let (Some(image), Some(seed)) = (self.case["image"].as_str(), self.case["posterior_seed"].as_u64())
        else {
            return Ok(());
        };
        let picture = read_picture(self.folder.join(image)).map_err(said)?;
        let shape = [1, 3, picture.height(), picture.width()];
        let picture = Tensor::<1>::from_floats(picture.to_chw().as_slice(), &self.device).reshape(shape);
        let codec = self.pipeline.codec();
        let encoded = codec.encode(picture).map_err(said)?;
        let latents = codec.scale(encoded.sample(&mut Generator::new(seed)));
        compare("the encoded picture", latents, &self.expected["latents"])
    }

    /// Inversion, and the edit from there.
    fn edit(&self) -> Checked<()> {
        self.check_encoding()?;
        let steps = self.whole("num_steps");
        let inversion = Inversion::new(self.pipeline, steps).map_err(said)?;
        let source = self.request("image_prompt", "invert_guidance_scale");
        let inverted = inversion
            .invert(&source, self.latents()?, &mut |_| true)
            .map_err(said)?;
        let inverted = walked(inverted);
        compare(
            "the inverted latents",
            Tensor::cat(inverted.clone(), 0),
            &self.expected["inverted"],
        )?;
        let first = self.whole("start_step");
        let start = Inversion::beginning(&inverted, first).map_err(said)?;
        // From Python's latents, so that what the inversion amplified does not count twice.
        let start: Tensor<4> = match self.expected.get("start_latents") {
            Some(expected) => {
                compare("where the edit begins", start, expected)?;
                expected.tensor(&self.device)
            }
            None => {
                let all: Tensor<4> = self.expected["inverted"].tensor(&self.device);
                let each = (0..all.dims()[0]).map(|row| all.clone().narrow(0, row, 1));
                Inversion::beginning(&each.collect::<Vec<_>>(), first).map_err(said)?
            }
        };
        for (prompt, scale, latents, picture) in [
            ("edit_prompt", "guidance_scale", "edited_latents", "images"),
            (
                "image_prompt",
                "invert_guidance_scale",
                "reconstructed_latents",
                "reconstructed_images",
            ),
        ] {
            let request = self.request(prompt, scale);
            let drawn = inversion
                .draw(&request, start.clone(), first, steps, &mut |_| true)
                .map_err(said)?;
            let drawn = walked(drawn);
            if let Some(all) = self
                .expected
                .get("step_latents")
                .filter(|_| prompt == "edit_prompt")
            {
                compare("the steps", Tensor::cat(drawn.clone(), 0), all)?;
            }
            let last = drawn.last().cloned().ok_or("no step was done")?;
            if let Some(expected) = self.expected.get(latents) {
                compare(latents, last.clone(), expected)?;
            }
            if let Some(expected) = self.expected.get(picture) {
                self.check_picture(picture, last, expected)?;
            }
        }
        Ok(())
    }

    /// The course's loop of sampling by hand.
    fn sample(&self) -> Checked<()> {
        let inversion = Inversion::new(self.pipeline, self.whole("num_steps")).map_err(said)?;
        let start: Tensor<4> = self.expected["start_latents"].tensor(&self.device);
        let request = self.request("prompt", "guidance_scale");
        let drawn = walked(
            inversion
                .draw(&request, start, 0, usize::MAX, &mut |_| true)
                .map_err(said)?,
        );
        if let Some(all) = self.expected.get("step_latents") {
            compare("the steps", Tensor::cat(drawn.clone(), 0), all)?;
        }
        let last = drawn.last().cloned().ok_or("no step was done")?;
        match self.expected.get("images") {
            Some(images) => self.check_picture("the picture", last, images),
            None => Ok(()),
        }
    }

    fn check_picture(&self, what: &str, latents: Tensor<4>, expected: &Stored) -> Checked<()> {
        let decoded = self.pipeline.codec().decode(latents).map_err(said)?;
        let unit = (decoded / 2.0 + 0.5).clamp(0.0, 1.0).permute([0, 2, 3, 1]);
        let off = support::largest_difference(&values(unit), &expected.f32());
        within(what, off, 1.0 / 255.0 + 1e-6)
    }

    /// Diffusers' own class for the way back.
    fn inverse(&self) -> Checked<()> {
        let steps = self.whole("num_steps");
        let inverse = self.pipeline.clone().inverse().map_err(said)?;
        let request = Request {
            steps: Some(steps),
            ..self.request("prompt", "guidance_scale")
        };
        let plan = Plan::of(&inverse, &request).map_err(said)?;
        let mut unused = Generator::new(0);
        let sampling = plan.batch(&inverse, 0..1, &mut unused).map_err(said)?;
        let mut sampling = sampling.starting_at(self.latents()?, 0).map_err(said)?;
        let mut all = Vec::new();
        while let Some(step) = sampling.next() {
            all.push(step.map_err(said)?.sample.clone());
        }
        let last = all.last().cloned().ok_or("no step was done")?;
        if let Some(steps) = self.expected.get("step_latents") {
            compare("the steps", Tensor::cat(all, 0), steps)?;
        }
        match self.expected.get("inverted") {
            Some(expected) => compare("the inverted latents", last, expected),
            None => Ok(()),
        }
    }
}

fn run(folder: &Path) -> Checked<Outcome> {
    let case = read_json(folder.join("case.json"));
    let call = json!({
        "pipeline": "StableDiffusionPipeline",
        "model": case["model"],
        "scheduler": case["scheduler"],
        "arguments": {},
    });
    let whole = Case::of(folder, call).pipeline_folder();
    let device = support::device();
    let pipeline = Pipeline::load(whole.path(), &device).map_err(said)?;
    let run = Run {
        case: &case,
        folder,
        pipeline: &pipeline,
        expected: read_tensors(folder.join("expected.safetensors")),
        device: device.clone(),
    };
    match &case {
        case if case["image_prompt"].is_string() => run.edit()?,
        case if case["timesteps"].is_array() => run.inverse()?,
        _ => run.sample()?,
    }
    Ok(Outcome::Ran)
}

#[test]
fn inversion_and_edits_are_the_courses() {
    let mut report = Report::new();
    for folder in folders("inversion") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if folder.join("case.json").is_file() {
            report.case(&name, run(&folder));
        }
    }
    report.finish();
}
