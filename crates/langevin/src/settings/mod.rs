//! How a picture was drawn, as its file says it: in words of our own, from which it can be drawn again, and as AUTOMATIC1111's web UI writes
//! them, which many programs read. What that program and ComfyUI wrote is read, too.

mod additions;
mod comfy;
mod parameters;
mod samplers;
mod upscalers;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

pub use additions::{NotedEmbedding, NotedLora, addition_hash};
pub use parameters::Parameters;
pub use upscalers::upscaler_of_a1111;

use crate::{
    Error, Lora, Request, Result,
    conditioning::{EmbeddingFile, PromptSyntax},
    data::ImageInput,
    generate::Enlarged,
    grid,
    options::{UpscaleBy, names_lora, take_loras},
    schedulers::SamplerName,
    weights::single_file::ENDINGS,
};

/// The keyword of A1111's text.
const PARAMETERS: &str = "parameters";
/// The keyword of our own.
const OWN: &str = "langevin";
/// The keyword of ComfyUI's graph.
const COMFY: &str = "prompt";
/// The largest text that is read as one of these.
const LONGEST: usize = 1 << 20;

/// A model as a picture's file names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelName {
    /// Its folder, file or name of the Hub, as whoever drew with it has it.
    pub path: String,
    /// The SHA-256 of its file, in hexadecimal digits, where it is a single one.
    pub sha256: Option<String>,
    /// The hashes of the LoRA and learned words on it, by their files, see [`addition_hash`].
    pub hashes: BTreeMap<PathBuf, String>,
    /// Whether files are named without their folders, which whoever reads the picture has no business with.
    pub without_folders: bool,
}

impl ModelName {
    /// A model of this path, whose hash nobody knows.
    pub fn of(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// The name alone, as A1111 writes it.
    pub fn short(&self) -> String {
        let name = self.path.rsplit(['/', '\\']).next().unwrap_or(&self.path);
        let stem = ENDINGS
            .iter()
            .find_map(|ending| name.strip_suffix(&format!(".{ending}")));
        stem.unwrap_or(name).to_owned()
    }
}

/// What was drawn, for the texts of its file.
#[derive(Clone, Debug)]
pub(crate) struct Drawn<'a> {
    /// What was asked for.
    pub request: &'a Request,
    /// The seed of the picture, or of all.
    pub seed: u64,
    /// One of several pictures with seeds of their own; `None` where the file stands for all.
    pub number: Option<usize>,
    /// How many there are.
    pub count: usize,
    /// Steps, guidance scale, size and strength as they were.
    pub steps: usize,
    pub guidance_scale: f64,
    pub size: crate::Size,
    pub strength: Option<f64>,
    /// The second pass.
    pub second: Option<Enlarged>,
    /// The sampler's short name, or its class.
    pub sampler: String,
    /// What was put on the model's weights.
    pub loras: &'a [Lora],
    /// What words were learned.
    pub embeddings: &'a [EmbeddingFile],
}

impl Drawn<'_> {
    /// Keywords and texts.
    pub(crate) fn texts(&self, model: &ModelName) -> Vec<(&'static str, String)> {
        let mut texts = vec![(PARAMETERS, self.parameters(model).to_string())];
        texts.extend(self.own(model).map(|own| (OWN, own.to_string())));
        texts
    }

    /// One of a list that pictures take in turn.
    fn one<'t>(&self, texts: &'t [String]) -> &'t str {
        let number = self.number.unwrap_or(0) % texts.len().max(1);
        texts.get(number).map_or("", String::as_str)
    }

    fn parameters(&self, model: &ModelName) -> Parameters {
        let request = self.request;
        let (sampler, schedule) = samplers::written(&self.sampler);
        let mut pairs: Vec<(&str, String)> = vec![("Steps", self.steps.to_string()), ("Sampler", sampler)];
        if schedule != "Automatic" {
            pairs.push(("Schedule type", schedule.into()));
        }
        pairs.push(("CFG scale", self.guidance_scale.to_string()));
        pairs.push(("Seed", self.seed.to_string()));
        pairs.push(("Size", self.size.to_string()));
        if let Some(hash) = &model.sha256 {
            pairs.push(("Model hash", hash.chars().take(10).collect()));
        }
        pairs.push(("Model", model.short()));
        if let Some(strength) = self.second.map(|second| second.strength()).or(self.strength) {
            pairs.push(("Denoising strength", strength.to_string()));
        }
        if let Some((second, factor)) = self.second.zip(request.upscale) {
            pairs.push(("Hires upscale", factor.to_string()));
            pairs.push(("Hires steps", second.walked().to_string()));
            pairs.push(("Hires upscaler", upscalers::written(second.by).into()));
            if let Some(sampler) = &request.upscale_scheduler {
                let (sampler, schedule) = samplers::written(sampler);
                pairs.push(("Hires sampler", sampler));
                pairs.push(("Hires schedule type", schedule.into()));
            }
        }
        if let Some(skipped) = request.clip_skip.filter(|&skipped| skipped > 0) {
            pairs.push(("Clip skip", (skipped + 1).to_string()));
        }
        let prompt = self.one(&request.prompt).trim().to_string();
        let negative_prompt = self.one(&request.negative_prompt).trim().to_string();
        pairs.extend(additions::pairs(self, model));
        // The noise is PyTorch's of a CPU, and not of a graphics card as is usual there.
        pairs.push(("RNG", "CPU".into()));
        if request.prompt_syntax != PromptSyntax::A1111 {
            pairs.push(("Prompt syntax", request.prompt_syntax.to_string()));
        }
        pairs.push(("Version", format!("langevin {}", env!("CARGO_PKG_VERSION"))));
        Parameters {
            prompt: additions::with_tags(&prompt, self.loras),
            negative_prompt,
            pairs: pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        }
    }

    /// What was asked for where it is not what is usual; `None` where it cannot be written.
    fn own(&self, model: &ModelName) -> Option<Value> {
        let mut request = self.request.clone();
        if let Some(number) = self.number {
            request.count = Some(1);
            request.seeds = vec![self.seed];
            for texts in [
                &mut request.prompt,
                &mut request.negative_prompt,
                &mut request.prompt_2,
                &mut request.negative_prompt_2,
            ] {
                if !texts.is_empty() {
                    *texts = vec![texts[number % texts.len()].clone()];
                }
            }
        } else {
            request.count = Some(self.count);
        }
        // Files by their paths; what was sent is not repeated.
        let mut pictures = BTreeMap::new();
        for (name, picture) in request.images_mut() {
            let path = match picture {
                ImageInput::File(path) => path.to_str().map(String::from),
                _ => None,
            };
            pictures.insert(name, path);
        }
        request.leave_images();
        // They are noted with their files and hashes, as those that the model was loaded with.
        request.loras.clear();
        let batch_size = request.batch_size;
        let (asked, usual) = (written(&request)?, written(&Request::default())?);
        let asked: Map<String, Value> = asked
            .into_iter()
            .filter(|(name, value)| usual.get(name) != Some(value))
            .collect();
        let mut own = json!({ "version": env!("CARGO_PKG_VERSION"), "model": model.path, "request": asked });
        if let Some(hash) = &model.sha256 {
            own["sha256"] = hash.clone().into();
        }
        if batch_size != Request::default().batch_size {
            own["batch_size"] = batch_size.into();
        }
        if !pictures.is_empty() {
            own["pictures"] = json!(pictures);
        }
        additions::note(self, model, &mut own);
        Some(own)
    }
}

fn written(request: &Request) -> Option<Map<String, Value>> {
    match serde_json::to_value(request).ok()? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// Who wrote a picture's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// This one.
    Langevin,
    /// AUTOMATIC1111's web UI, or one that writes as it does.
    A1111,
    /// ComfyUI.
    Comfy,
}

/// What a picture's file says about how it was drawn.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who wrote it.
    pub program: Program,
    /// Names and values, in words.
    pub facts: Vec<(String, String)>,
    /// The model, where it is named.
    pub model: Option<ModelName>,
    /// What was put on the model's weights.
    pub loras: Vec<NotedLora>,
    /// What words were learned.
    pub embeddings: Vec<NotedEmbedding>,
    /// What to ask for to draw it again; `None` where too little is known.
    pub request: Option<Request>,
    /// What will not be as it was.
    pub notices: Vec<String>,
}

impl Settings {
    /// Reads a PNG; `None` where it says nothing.
    ///
    /// # Errors
    /// If it is no whole PNG, or what this program wrote into it is broken.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>> {
        let path = path.as_ref();
        Self::of_texts(&grid::read_png_text(path)?).map_err(|e| Error::file(path, e.to_string()))
    }

    /// What a PNG's texts say.
    ///
    /// # Errors
    /// If what this program wrote is broken.
    pub fn of_texts(texts: &[(String, String)]) -> Result<Option<Self>> {
        let get = |keyword: &str| {
            let text = texts
                .iter()
                .find(|(known, text)| known == keyword && text.len() <= LONGEST);
            text.map(|(_, text)| text.as_str())
        };
        let parameters = get(PARAMETERS).map(Parameters::read);
        if let Some(own) = get(OWN) {
            return Self::of_own(own, parameters.as_ref()).map(Some);
        }
        if let Some(parameters) = parameters {
            return Ok(Some(Self::of_parameters(&parameters)));
        }
        let graph = get(COMFY).and_then(|text| serde_json::from_str(text).ok());
        let facts = graph
            .map(|graph: Value| comfy::facts(&graph))
            .filter(|facts| !facts.is_empty());
        Ok(facts.map(|facts| Self {
            program: Program::Comfy,
            model: facts
                .iter()
                .find(|(name, _)| name == "Model")
                .map(|(_, name)| ModelName::of(name)),
            facts,
            loras: Vec::new(),
            embeddings: Vec::new(),
            request: None,
            notices: Vec::new(),
        }))
    }

    /// What this program wrote.
    fn of_own(text: &str, parameters: Option<&Parameters>) -> Result<Self> {
        let broken = |what: String| Error::Config(format!("the settings in the picture are broken: {what}"));
        let own: Value = serde_json::from_str(text).map_err(|e| broken(e.to_string()))?;
        let mut request: Request =
            serde_json::from_value(own["request"].clone()).map_err(|e| broken(e.to_string()))?;
        if let Some(batch_size) = own["batch_size"].as_u64() {
            request.batch_size = usize::try_from(batch_size).unwrap_or(usize::MAX).clamp(1, 4096);
        }
        // They are noted beside it.
        request.loras.clear();
        let mut notices = Vec::new();
        for (name, path) in own["pictures"].as_object().into_iter().flatten() {
            match path.as_str() {
                _ if name == "control" => {
                    notices.push("it was drawn with ControlNets, which are left out: name them again".into());
                }
                _ if name == "ip_adapter" => {
                    notices.push(
                        "it was drawn like a picture by an IP-Adapter, which is left out: name it again"
                            .into(),
                    );
                }
                Some(path) => request.set_image(name, ImageInput::File(path.into())),
                None => notices.push(format!(
                    "it was drawn with a picture (`{name}`) that its file does not name: give it again"
                )),
            }
        }
        Ok(Self {
            program: Program::Langevin,
            facts: parameters.map_or_else(Vec::new, facts),
            model: own["model"].as_str().map(|path| ModelName {
                sha256: own["sha256"].as_str().map(String::from),
                ..ModelName::of(path)
            }),
            loras: additions::loras(&own),
            embeddings: additions::embeddings(&own),
            request: Some(request),
            notices,
        })
    }

    /// What A1111 wrote, and what of it can be had here.
    fn of_parameters(parameters: &Parameters) -> Self {
        let mut notices = Vec::new();
        let number = |name: &str| parameters.get(name).and_then(|value| value.parse::<f64>().ok());
        let whole = |name: &str| parameters.get(name).and_then(|value| value.parse::<u64>().ok());
        // A tag that cannot be read stays in the text.
        let (prompt, tags) =
            take_loras(&parameters.prompt).unwrap_or_else(|_| (parameters.prompt.clone(), Vec::new()));
        let mut request = Request {
            prompt: vec![prompt.trim().to_string()],
            // What this program adds where it is another.
            prompt_syntax: parameters
                .get("Prompt syntax")
                .and_then(|name| name.parse().ok())
                .unwrap_or(PromptSyntax::A1111),
            steps: whole("Steps").map(|steps| steps as usize),
            size: parameters.get("Size").and_then(|size| size.parse().ok()),
            // A picture has a generator of its own there.
            seeds: whole("Seed").into_iter().collect(),
            clip_skip: whole("Clip skip")
                .filter(|&skipped| skipped > 1)
                .map(|skipped| skipped as usize - 1),
            strength: None,
            ..Request::default()
        };
        let unreadable = [
            ("Steps", request.steps.is_none()),
            ("Seed", request.seeds.is_empty()),
            ("Size", request.size.is_none()),
            ("CFG scale", number("CFG scale").is_none()),
        ];
        for (name, _) in unreadable.into_iter().filter(|(_, is_left)| *is_left) {
            if let Some(value) = parameters.get(name) {
                let value: String = value.chars().take(40).collect();
                notices.push(format!(
                    "its {name} is `{value}`, which says nothing here and is left out"
                ));
            }
        }
        if !parameters.negative_prompt.is_empty() {
            request.negative_prompt = vec![parameters.negative_prompt.clone()];
        }
        request.guidance.scale = number("CFG scale");
        if let Some(sampler) = parameters.get("Sampler") {
            match samplers::read(sampler, parameters.get("Schedule type")) {
                Some((name, is_same)) => {
                    request.scheduler = Some(name.into());
                    if !is_same {
                        notices.push(format!(
                            "the sampler {sampler} is not here as it is there: {name} takes its place"
                        ));
                    }
                }
                None if SamplerName::find(sampler).is_some() => request.scheduler = Some(sampler.into()),
                None => notices.push(format!(
                    "there is no sampler {sampler} here: the model's own takes its place"
                )),
            }
        }
        if let Some(factor) = number("Hires upscale") {
            request.upscale = Some(factor);
            request.upscale_strength = number("Denoising strength");
            request.upscale_steps = whole("Hires steps")
                .filter(|&steps| steps > 0)
                .map(|steps| steps as usize);
            let upscaler = parameters.get("Hires upscaler").unwrap_or("Latent");
            request.upscale_by = upscaler_of_a1111(upscaler).unwrap_or_else(|| {
                notices.push(format!(
                    "there is no upscaler {upscaler} here: lanczos takes its place"
                ));
                UpscaleBy::Lanczos
            });
            if let Some(sampler) = parameters.get("Hires sampler") {
                match samplers::read(sampler, parameters.get("Hires schedule type")) {
                    Some((name, _)) => request.upscale_scheduler = Some(name.into()),
                    None => notices.push(format!(
                        "there is no sampler {sampler} here: that of the first pass takes its place in the second"
                    )),
                }
            }
        }
        let is_ours = parameters
            .get("Version")
            .is_some_and(|version| version.starts_with("langevin"));
        if !is_ours && !matches!(parameters.get("RNG"), Some("CPU")) {
            notices.push(
                "its noise was drawn by a graphics card: the same seed gives another picture here".into(),
            );
        }
        let absent = [
            ("Hires resize", "a second pass at a size of its own"),
            ("TI hashes", "learned words"),
            ("ControlNet 0", "a ControlNet"),
            ("Variation seed", "a variation seed"),
            ("Face restoration", "face restoration"),
            ("Denoising strength", "a picture to begin with"),
        ];
        for (name, what) in absent {
            let is_had = name == "Denoising strength" && request.upscale.is_some();
            if let Some(value) = parameters.get(name).filter(|_| !is_had) {
                notices.push(format!("it was drawn with {what} ({name}: {value}), which is left out: name it again where you have it"));
            }
        }
        let hashes = parameters.get("Lora hashes").unwrap_or_default();
        if !hashes.is_empty() && !names_lora(&parameters.prompt) {
            notices.push(format!(
                "it was drawn with LoRAs (Lora hashes: {hashes}), which are left out: name them again where you have them"
            ));
        }
        Self {
            program: Program::A1111,
            facts: facts(parameters),
            loras: additions::tagged(tags, hashes),
            embeddings: Vec::new(),
            model: parameters.get("Model").map(ModelName::of),
            request: (!parameters.pairs.is_empty()).then_some(request),
            notices,
        }
    }
}

/// What a text of parameters says, in words.
fn facts(parameters: &Parameters) -> Vec<(String, String)> {
    let texts = [
        ("Prompt", &parameters.prompt),
        ("Negative prompt", &parameters.negative_prompt),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.map(|(name, text)| (name.to_owned(), text.clone()));
    texts.chain(parameters.pairs.iter().cloned()).collect()
}
