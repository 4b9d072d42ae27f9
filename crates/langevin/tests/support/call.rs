//! A call of a diffusers pipeline, as a `call.json` of the reference values describes it, made with this library.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use langevin::{
    Offset, Request, Size,
    codec::Codec,
    conditioning::EmbeddingFile,
    data::ImageInput,
    generate::Plan,
    options::{ClassName, ControlInput, Embeddings, IpAdapterInput},
    pipelines::{LoadOptions, Pipeline, PipelineClass},
};
use serde_json::{Value, json};

use super::{
    Outcome, Stored, largest_difference, own_reference, read_tensors, reference, relative_difference, values,
    within,
};

/// A folder with a `call.json` and what came of the call.
pub(crate) struct Case {
    folder: PathBuf,
    call: Value,
}

/// What a call came to here.
pub(crate) struct Drawn {
    pub latents: Tensor<4>,
    pub images: Vec<f32>,
    pub flagged: Option<Vec<bool>>,
}

type Checked<T> = Result<T, String>;

/// One or several.
fn several(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    }
}

fn said(error: langevin::Error) -> String {
    error.to_string()
}

impl Case {
    /// The case in a folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self::of(folder, super::read_json(folder.join("call.json")))
    }

    /// The call of another JSON in a folder.
    pub(crate) fn of(folder: &Path, call: Value) -> Self {
        Self {
            folder: folder.to_path_buf(),
            call,
        }
    }

    /// A path of the JSON: beside it, or from the reference folder, or from the repository's own.
    fn path(&self, name: &str) -> PathBuf {
        let places = [self.folder.clone(), reference(), own_reference()].map(|place| place.join(name));
        let there = places.iter().find(|path| path.exists());
        there.unwrap_or(&places[1]).clone()
    }

    /// The pipeline's folder: the model's, with what the call replaces.
    pub(crate) fn pipeline_folder(&self) -> tempfile::TempDir {
        let model = self.path(self.call["model"].as_str().unwrap());
        let mut index: Value = super::read_json(model.join("model_index.json"));
        let folder = tempfile::tempdir().unwrap();
        let link = |from: &Path, name: &str| copy_folder(from, &folder.path().join(name));
        let mut replaced: Vec<String> = Vec::new();
        if let Some(scheduler) = self.call["scheduler"].as_str() {
            let config = self.path(scheduler);
            index["scheduler"][1] = super::read_json(&config)["_class_name"].clone();
            link(config.parent().unwrap(), "scheduler");
            replaced.push("scheduler".into());
        }
        for (name, paths) in self.call["components"].as_object().into_iter().flatten() {
            index[name] = match (name.as_str(), paths) {
                ("safety_checker", _) => json!(["stable_diffusion", "StableDiffusionSafetyChecker"]),
                ("depth_estimator", _) => json!(["transformers", "DPTForDepthEstimation"]),
                ("controlnet", Value::Array(_)) => json!(["diffusers", "MultiControlNetModel"]),
                ("controlnet", _) => json!(["diffusers", "ControlNetModel"]),
                ("adapter", Value::Array(_)) => json!(["diffusers", "MultiAdapter"]),
                ("adapter", _) => json!(["diffusers", "T2IAdapter"]),
                ("unet", _) => json!(["diffusers", "UNet2DConditionModel"]),
                _ => json!(["transformers", "CLIPImageProcessor"]),
            };
            for (number, path) in several(paths).iter().enumerate() {
                let name = match number {
                    0 => name.clone(),
                    number => format!("{name}_{number}"),
                };
                link(&self.path(path.as_str().unwrap()), &name);
                replaced.push(name);
            }
        }
        for (name, value) in self.call["pipeline_config"].as_object().into_iter().flatten() {
            index[name] = value.clone();
        }
        index["_class_name"] = self.call["pipeline"].clone();
        for entry in fs::read_dir(&model).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() && !replaced.contains(&name) {
                link(&entry.path(), &name);
            }
        }
        fs::write(folder.path().join("model_index.json"), index.to_string()).unwrap();
        folder
    }

    /// What is loaded besides the pipeline.
    pub(crate) fn load_options(&self) -> LoadOptions {
        let learned = self.call["textual_inversions"].as_array();
        let embedding = |value: &Value| EmbeddingFile {
            path: self.path(value["file"].as_str().unwrap()),
            token: value["token"].as_str().map(String::from),
        };
        LoadOptions {
            embeddings: learned.into_iter().flatten().map(embedding).collect(),
            ..LoadOptions::default()
        }
    }

    fn input(&self, name: &str) -> Option<&Value> {
        self.call["inputs"].get(name)
    }

    /// A tensor that the call is given.
    fn tensor(&self, name: &str) -> Option<Stored> {
        let text = self.input(name)?.as_str()?;
        let (file, key) = text.split_once('#')?;
        Some(read_tensors(self.path(file))[key].clone())
    }

    /// Pictures that the call is given.
    fn images(&self, name: &str, device: &Device) -> Option<ImageInput> {
        if let Some(stored) = self.tensor(name) {
            return Some(ImageInput::Tensor(stored.tensor(device)));
        }
        let one = |value: &Value| ImageInput::File(self.path(value.as_str().unwrap()));
        Some(match self.input(name)? {
            Value::Array(all) => ImageInput::Several(all.iter().map(one).collect()),
            value => one(value),
        })
    }

    /// What the call asks for, in this library's words.
    pub(crate) fn request(&self, device: &Device) -> Checked<Request> {
        let mut request = Request::default();
        let arguments = self.call["arguments"].as_object().unwrap();
        let each = arguments
            .get("num_images_per_prompt")
            .map_or(1, |n| n.as_u64().unwrap() as usize);
        let prompts = texts(arguments.get("prompt"));
        let embeds = self.tensor("prompt_embeds");
        let count = match (&embeds, prompts.len()) {
            (Some(embeds), _) => embeds.shape[0] * each,
            (None, prompts) => prompts.max(1) * each,
        };
        request.count = Some(count);
        let spread = |texts: Vec<String>| match texts.len() {
            0 | 1 => texts,
            _ => texts.into_iter().flat_map(|text| vec![text; each]).collect(),
        };
        for (name, value) in arguments {
            let number = || value.as_f64().unwrap();
            let whole = || value.as_u64().unwrap() as usize;
            let pair = || {
                let numbers = value.as_array().unwrap();
                [0, 1].map(|place| numbers[place].as_u64().unwrap() as usize)
            };
            let size = || Some(Size::from(pair()));
            let offset = || {
                let [top, left] = pair();
                Some(Offset { top, left })
            };
            match name.as_str() {
                "prompt" => request.prompt = spread(texts(Some(value))),
                "negative_prompt" => request.negative_prompt = spread(texts(Some(value))),
                "prompt_2" => request.prompt_2 = spread(texts(Some(value))),
                "negative_prompt_2" => request.negative_prompt_2 = spread(texts(Some(value))),
                "num_images_per_prompt" | "width" => {}
                "num_inference_steps" => request.steps = Some(whole()),
                "guidance_scale" => request.guidance.scale = Some(number()),
                "guidance_rescale" => request.guidance.rescale = number(),
                "eta" if number() == 0.0 => {}
                "eta" => request.eta = Some(number()),
                "clip_skip" => request.clip_skip = Some(whole()),
                "timesteps" => {
                    let all = value.as_array().unwrap();
                    request.timesteps = all.iter().map(|t| t.as_f64().unwrap()).collect();
                }
                "strength" => request.strength = Some(number()),
                "height" => {
                    request.size = Some(Size {
                        height: whole(),
                        width: arguments["width"].as_u64().unwrap() as usize,
                    });
                }
                "padding_mask_crop" => request.mask_crop = Some(whole()),
                "original_inference_steps" => request.original_inference_steps = Some(whole()),
                "image_guidance_scale" => request.image_guidance_scale = Some(number()),
                "noise_level" => request.noise_level = Some(whole()),
                "original_size" => request.original_size = size(),
                "target_size" => request.target_size = size(),
                "crops_coords_top_left" => request.crop_top_left = offset(),
                "negative_original_size" => request.negative_original_size = size(),
                "negative_target_size" => request.negative_target_size = size(),
                "negative_crops_coords_top_left" => request.negative_crop_top_left = offset(),
                "aesthetic_score" => request.aesthetic_score = Some(number()),
                "negative_aesthetic_score" => request.negative_aesthetic_score = Some(number()),
                "denoising_end" => request.denoising_end = Some(number()),
                "denoising_start" => request.denoising_start = Some(number()),
                "class_labels" => {
                    let all = value.as_array().unwrap();
                    request.class = all
                        .iter()
                        .map(|class| ClassName::Number(class.as_u64().unwrap() as usize))
                        .collect();
                    request.count = Some(all.len());
                }
                "batch_size" => request.count = Some(whole()),
                "guess_mode" => request.guess_mode = value.as_bool().unwrap(),
                // Of each control, see `Self::controls`.
                "controlnet_conditioning_scale"
                | "control_guidance_start"
                | "control_guidance_end"
                | "adapter_conditioning_scale"
                | "adapter_conditioning_factor" => {}
                other => return Err(format!("the argument `{other}` is not known to this test")),
            }
        }
        // Defaults that the call does not name are the class's, but for these, which are the library's own affair.
        for name in self.call["inputs"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            let image = || self.images(name, device);
            match name.as_str() {
                "control_image" => {}
                "image" if !self.networks().is_empty() && self.input("control_image").is_none() => {}
                "image" if self.input("mask_image").is_some() => request.inpaint = image(),
                "image" => request.init_image = image(),
                "mask_image" => request.mask = image(),
                "depth_map" => {
                    let depth = self.tensor(name).unwrap();
                    let [count, height, width] = depth.shape[..] else {
                        return Err("depths should have three dimensions".into());
                    };
                    let depth = depth.tensor::<3>(device).reshape([count, 1, height, width]);
                    request.depth = Some(ImageInput::Tensor(depth));
                }
                "latents" => request.latents = Some(self.tensor(name).unwrap().tensor(device)),
                "prompt_embeds"
                | "negative_prompt_embeds"
                | "pooled_prompt_embeds"
                | "negative_pooled_prompt_embeds" => {
                    // One row for each picture.
                    let spread = |name: &str| self.tensor(name).map(|stored| stored.repeated(each));
                    request.embeddings = Some(Embeddings {
                        towards: spread("prompt_embeds")
                            .ok_or("there are no prompt_embeds")?
                            .tensor(device),
                        away: spread("negative_prompt_embeds").map(|away| away.tensor(device)),
                        pooled: spread("pooled_prompt_embeds").map(|pooled| pooled.tensor(device)),
                        pooled_away: spread("negative_pooled_prompt_embeds").map(|away| away.tensor(device)),
                    });
                }
                other => return Err(format!("the input `{other}` is not known to this test")),
            }
        }
        request.control = self.controls(device);
        request.ip_adapter = self.picture_prompts();
        let upscale = &self.call["upscale"];
        request.upscale = upscale["factor"].as_f64();
        request.upscale_strength = upscale["strength"].as_f64();
        request.upscale_steps = upscale["steps"].as_u64().map(|steps| steps as usize);
        request.upscale_scheduler = upscale["scheduler"].as_str().map(str::to_owned);
        if let Some(by) = upscale["by"].as_str() {
            request.upscale_by = by.parse().map_err(said)?;
        }
        request.image_encoder = self.call["image_encoder"].as_str().map(|path| self.path(path));
        let generator = &self.call["generator"];
        if let Some(seed) = generator["seed"].as_u64() {
            request.seed = seed;
        }
        if let Some(seeds) = generator["seeds"].as_array() {
            request.seeds = seeds.iter().map(|seed| seed.as_u64().unwrap()).collect();
        }
        request.batch_size = request.count.unwrap_or(1);
        Ok(request)
    }

    /// The ControlNets or T2I-Adapters that the call's pipeline has.
    fn networks(&self) -> Vec<Value> {
        let components = &self.call["components"];
        match [&components["controlnet"], &components["adapter"]] {
            [Value::Null, Value::Null] => Vec::new(),
            [Value::Null, networks] | [networks, _] => several(networks),
        }
    }

    /// What each of them is shown, and how strongly and when it leads.
    fn controls(&self, device: &Device) -> Vec<ControlInput> {
        let networks = self.networks();
        let name = match self.input("control_image") {
            Some(_) => "control_image",
            None => "image",
        };
        let number = |argument: &str, place: usize| match &self.call["arguments"][argument] {
            Value::Array(all) => all[place].as_f64(),
            one => one.as_f64(),
        };
        let pictures = |place: usize| {
            let listed = self.input(name).and_then(Value::as_array);
            match listed.filter(|_| networks.len() > 1) {
                // A picture for each network, or all of them for the only one.
                Some(listed) => ImageInput::File(self.path(listed[place].as_str().unwrap())),
                None => self.images(name, device).unwrap(),
            }
        };
        let either = |one: &str, other: &str, place| number(one, place).or_else(|| number(other, place));
        let control = |place| ControlInput {
            model: None,
            picture: pictures(place),
            scale: either(
                "controlnet_conditioning_scale",
                "adapter_conditioning_scale",
                place,
            ),
            start: number("control_guidance_start", place).unwrap_or(0.0),
            end: either("control_guidance_end", "adapter_conditioning_factor", place).unwrap_or(1.0),
        };
        (0..networks.len()).map(control).collect()
    }

    /// The IP-Adapters that the call's pipeline was loaded with, and what each is shown.
    fn picture_prompts(&self) -> Vec<IpAdapterInput> {
        let prompt = |value: &Value| {
            let pictures = several(&value["pictures"]);
            let file = |name: &Value| ImageInput::File(self.path(name.as_str().unwrap()));
            let parts = value["parts"].as_object().into_iter().flatten();
            IpAdapterInput {
                model: self.path(value["file"].as_str().unwrap()).display().to_string(),
                picture: ImageInput::Several(pictures.iter().map(file).collect()),
                scale: value["scale"].as_f64().unwrap(),
                parts: parts
                    .map(|(part, scale)| (part.clone(), scale.as_f64().unwrap()))
                    .collect(),
            }
        };
        let all = self.call["ip_adapters"].as_array();
        all.into_iter().flatten().map(prompt).collect()
    }

    /// Makes the call with a pipeline.
    pub(crate) fn draw(&self, pipeline: &Pipeline, device: &Device) -> Checked<Drawn> {
        self.draw_request(pipeline, &self.request(device)?)
    }

    /// The same with a request of one's own.
    pub(crate) fn draw_request(&self, pipeline: &Pipeline, request: &Request) -> Checked<Drawn> {
        let plan = Plan::of(pipeline, request).map_err(said)?;
        let latents = plan.samples(pipeline, &mut ()).map_err(said)?;
        let latents = Tensor::cat(latents.ok_or("the drawing was ended")?, 0);
        let decoded = pipeline.codec().decode(latents.clone()).map_err(said)?;
        let is_checked = self.call["components"]["safety_checker"].is_string();
        let as_bytes = self.call["output_type"] == "pil" || is_checked;
        let (images, flagged) = if as_bytes {
            let (drawn, flags) = plan.pictures(pipeline, latents.clone()).map_err(said)?;
            let flagged = is_checked.then_some(flags);
            let images = drawn.iter().flat_map(|picture| {
                let pixels: Vec<f32> = picture.pixels().iter().map(|&v| f32::from(v) / 255.0).collect();
                pixels
            });
            (images.collect(), flagged)
        } else {
            let unit = (decoded / 2.0 + 0.5).clamp(0.0, 1.0).permute([0, 2, 3, 1]);
            (values(unit), None)
        };
        Ok(Drawn {
            latents,
            images,
            flagged,
        })
    }

    /// Makes the call, and compares what comes of it with what came of it in Python.
    pub(crate) fn compare(&self) -> Checked<Outcome> {
        let class = self.call["pipeline"].as_str().unwrap();
        if PipelineClass::named(class).is_none() {
            return Ok(Outcome::NotSupported(class.into()));
        }
        let device = super::device();
        let folder = self.pipeline_folder();
        let pipeline = Pipeline::load_with(folder.path(), &self.load_options(), &device).map_err(said)?;
        let drawn = self.draw(&pipeline, &device)?;
        self.check(&drawn, "expected.safetensors")
    }

    /// Compares what was drawn with a file of what was expected.
    pub(crate) fn check(&self, drawn: &Drawn, expected: &str) -> Checked<Outcome> {
        let expected = read_tensors(self.folder.join(expected));
        if let Some(latents) = expected.get("latents") {
            let found = values(drawn.latents.clone());
            within("the latents", relative_difference(&found, &latents.f32()), 1e-3)?;
        }
        match expected.get("images") {
            // Where latents were asked for, they are what is called images.
            Some(images) if images.shape.last() == Some(&3) => {
                let off = largest_difference(&drawn.images, &images.f32());
                within("a picture", off, 1.0 / 255.0 + 1e-6)?;
            }
            Some(latents) if !expected.contains_key("latents") => {
                let found = values(drawn.latents.clone());
                within("the latents", relative_difference(&found, &latents.f32()), 1e-3)?;
            }
            _ => {}
        }
        if let (Some(flags), Some(found)) = (self.call["nsfw_content_detected"].as_array(), &drawn.flagged) {
            let flags: Vec<bool> = flags.iter().map(|flag| flag.as_bool().unwrap()).collect();
            if flags != *found {
                return Err(format!("pictures flagged: {found:?} where {flags:?} is expected"));
            }
        }
        Ok(Outcome::Ran)
    }
}

/// One text, several, or none.
fn texts(value: Option<&Value>) -> Vec<String> {
    let one = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}
