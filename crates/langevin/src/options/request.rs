//! What somebody asks a pipeline for.

use std::path::PathBuf;

use burn::tensor::Tensor;
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(feature = "schema")]
use super::schema::OneOrMany;
use super::{
    ClassName, ControlInput, Embeddings, IpAdapterInput, LoraInput, SoundOptions, UpscaleBy, take_loras,
};
use crate::{
    Error, Offset, Size,
    conditioning::PromptSyntax,
    data::{Fit, ImageInput, Preprocess},
    guidance::{ClassifierFree, ClipLoss, GuidanceSchedule, Guide, Through},
    named::Named,
    ops::Precision,
};

/// Pictures, as somebody asks for them: a field is an option, in a program, on a command line and in the API.
///
/// Lists are taken in turn: the first picture has the first class and the first prompt, the next one the next. Defaults stand in
/// brackets.
///
/// ```
/// use langevin::Request;
///
/// let request = Request { class: vec!["cat".into()], steps: Some(50), ..Request::default() };
/// let read: Request = serde_json::from_str(r#"{"class": "cat", "steps": 50}"#)?;
/// assert_eq!((read.class, read.steps, read.seed), (request.class, request.steps, 0));
/// # Ok::<(), serde_json::Error>(())
/// ```
// Brackets hold defaults.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Request {
    /// How many pictures [the program: 16, others: 1; Stable Diffusion: one for each prompt].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub count: Option<usize>,
    /// Pictures drawn together [16].
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub batch_size: usize,
    /// Denoising steps [ddpm: 1000, lcm and tcd: 4, others: 50; Stable Diffusion: as in diffusers, mostly 50].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub steps: Option<usize>,
    /// The pictures' size, such as 64x48; what it must be a multiple of follows from the model [the model's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "WIDTHxHEIGHT"))]
    pub size: Option<Size>,
    /// The seed that everything random comes from [0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub seed: u64,
    /// A seed for each picture, taken in turn, in place of one generator that draws all of them.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "seed")
    )]
    pub seeds: Vec<u64>,
    /// What convolutions, linear layers and attention multiply: float32, or bf16 with float32 sums, which is faster where the processor has AMX
    /// or AVX-512 BF16 and differs in the last of what is seen [float32].
    #[cfg_attr(feature = "clap", arg(long, value_name = "TYPE"))]
    #[serde(deserialize_with = "by_name")]
    pub precision: Precision,
    /// The sampler, in place of the pipeline's own; the program's `schedulers` lists them.
    #[serde(alias = "sampler")]
    #[cfg_attr(feature = "clap", arg(long, value_parser = samplers(), hide_possible_values = true, value_name = "NAME"))]
    pub scheduler: Option<String>,
    /// ddim and tcd: how much noise a step adds, 0 for none to 1 for as much as ddpm [ddim: 0, tcd: 0.3].
    #[cfg_attr(feature = "clap", arg(long, value_name = "ETA"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 1), extend("x-needs" = "eta")))]
    pub eta: Option<f64>,
    /// The timesteps themselves, from the noisiest on, such as 999,749,499,249, in place of a number of steps.
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "TIMESTEPS",
            value_delimiter = ',',
            conflicts_with = "steps"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(inner(range(min = 0, max = 100_000))))]
    pub timesteps: Vec<f64>,
    /// lcm and tcd: the steps of the model's teacher [the model's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1), extend("x-needs" = "teacher")))]
    pub original_inference_steps: Option<usize>,

    /// The class to draw, by name or number, or none; given several times, pictures take turns [all in turn].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "CLASS"))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<ClassName>", extend("x-needs" = "classes")))]
    pub class: Vec<ClassName>,
    /// What the picture has of the attributes that the model knows, such as smiling,glasses, or none; given several times, pictures take
    /// turns [nothing said of them].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAMES"))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<String>", extend("x-needs" = "attributes")))]
    pub attributes: Vec<String>,
    /// The text to draw, for a model that looks at texts; given several times, pictures take turns.
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT"))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<String>", extend("x-needs" = "prompt")))]
    pub prompt: Vec<String>,
    /// The picture to colour, sharpen or paint in, for a model that is shown one; with a mask where it paints under one.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PICTURE"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "conditioning_image")))]
    pub conditioning_image: Option<ImageInput>,
    /// Show the conditioning picture as it is: it is blurred, small or an edge drawing already.
    #[cfg_attr(feature = "clap", arg(long, requires = "conditioning_image"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "conditioning_image")))]
    pub conditioning_as_is: bool,
    /// Draw with this picture's vector, for a model that is told one; where it is CLIP's, a CLIP model must be named.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PICTURE"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "vector_of")))]
    pub vector_of: Option<ImageInput>,
    /// Draw with this vector, such as the colour 0.8,-0.2,-1.
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_delimiter = ',',
            allow_hyphen_values = true,
            value_name = "NUMBERS",
            conflicts_with = "vector_of"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "vector")))]
    pub vector: Vec<f32>,
    /// A vector for each picture, `[1 or count, dimension]`, in place of `vector`.
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub vectors: Option<Tensor<2>>,

    /// Classifier-free guidance.
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", command(flatten))]
    pub guidance: ClassifierFree,
    /// The text that guidance leads away from; given several times, pictures take turns [the empty text].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT", help_heading = "Guidance"))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<String>", extend("x-needs" = "negative_prompt")))]
    pub negative_prompt: Vec<String>,
    /// The class that guidance leads away from [the null class].
    #[cfg_attr(feature = "clap", arg(long, value_name = "CLASS", help_heading = "Guidance"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "classes")))]
    pub negative_class: Option<ClassName>,

    /// Lead every step by a loss: colour:#1AE680, brightness:0.8, symmetry, picture:FILE, known:FILE, clip:TEXT, clip-picture:FILE;
    /// several add up, and @ sets a scale, as in symmetry@10.
    #[cfg_attr(feature = "clap", arg(long, value_name = "GUIDE", help_heading = "Guidance"))]
    pub guide: Vec<Guide>,
    /// What its gradient goes through: the predicted clean picture alone, or the model too, which costs three times as much [clean].
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHAT", help_heading = "Guidance"))]
    #[serde(deserialize_with = "by_name")]
    pub guide_through: Through,
    /// How its scale changes: constant, or with the signal, its root, or the noise's root [signal].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Guidance"))]
    #[serde(deserialize_with = "by_name")]
    pub guide_schedule: GuidanceSchedule,
    /// The most that a step may move a picture, as a Euclidean norm [no bound].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NORM", help_heading = "Guidance"))]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0)))]
    pub guide_clip: Option<f64>,
    /// White where to paint, black where the picture is known: that of `inpaint`, the conditioning picture, or the guide known's.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PICTURE", help_heading = "From a picture")
    )]
    pub mask: Option<ImageInput>,
    /// The CLIP model of the guides clip and clip-picture: a folder of transformers', an open_clip checkpoint, or a name of the Hub.
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FOLDER", help_heading = "Guidance"))]
    pub clip: Option<PathBuf>,
    /// Random cut-outs that CLIP looks at in each step; 0 for the whole picture [4].
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Guidance"))]
    pub cuts: usize,

    /// How many of the text encoder's last layers to leave out, as diffusers counts them; A1111 counts one more [0].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", help_heading = "Stable Diffusion")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 100), extend("x-needs" = "texts")))]
    pub clip_skip: Option<usize>,
    /// How weights, schedules and the like are written in prompts: plain, a1111, comfy or compel; docs/prompts.md has the differences [plain].
    #[serde(deserialize_with = "by_name")]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "NAME", help_heading = "Stable Diffusion")
    )]
    pub prompt_syntax: PromptSyntax,
    /// The text for the second text encoder of Stable Diffusion XL; given several times, pictures take turns [the prompt].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TEXT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<String>", extend("x-needs" = "prompt_2")))]
    pub prompt_2: Vec<String>,
    /// The text that guidance leads away from, for the second text encoder [the negative prompt].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TEXT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<String>", extend("x-needs" = "prompt_2")))]
    pub negative_prompt_2: Vec<String>,
    /// What texts come to, computed already, in place of prompts.
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub embeddings: Option<Embeddings>,
    /// The noise to begin with, `[1 or count, channels, height, width]` in the model's space, in place of drawn one.
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(skip))]
    pub latents: Option<Tensor<4>>,
    /// XL: the size that the picture is said to have had [the picture's].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WIDTHxHEIGHT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub original_size: Option<Size>,
    /// XL: where the picture is said to have been cut out [0,0].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TOP,LEFT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub crop_top_left: Option<Offset>,
    /// XL: the size that the picture is said to have [the picture's].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WIDTHxHEIGHT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub target_size: Option<Size>,
    /// XL: what guidance leads away from in place of the original size; needs the negative target size too.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WIDTHxHEIGHT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub negative_original_size: Option<Size>,
    /// XL: what guidance leads away from in place of the place of the cut [0,0].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "TOP,LEFT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub negative_crop_top_left: Option<Offset>,
    /// XL: what guidance leads away from in place of the target size; needs the negative original size too.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "WIDTHxHEIGHT", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sizes")))]
    pub negative_target_size: Option<Size>,
    /// XL's refiner: how well the picture is said to be liked, 1 to 10 [6].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SCORE", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 10), extend("x-needs" = "scores")))]
    pub aesthetic_score: Option<f64>,
    /// XL's refiner: the score that guidance leads away from [2.5].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SCORE", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 10), extend("x-needs" = "scores")))]
    pub negative_aesthetic_score: Option<f64>,
    /// XL: the part of the noise, from the cleanest, at which another model goes on, such as 0.8.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PART", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1, "x-needs" = "parts")))]
    pub denoising_end: Option<f64>,
    /// XL: the part at which another model ended; begins with its latents.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PART", help_heading = "Stable Diffusion XL")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1, "x-needs" = "parts")))]
    pub denoising_start: Option<f64>,
    /// InstructPix2Pix: how closely the edited picture follows the initial one [1.5].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SCALE", help_heading = "Stable Diffusion")
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = -1000, max = 1000), extend("x-needs" = "edit")))]
    pub image_guidance_scale: Option<f64>,
    /// Upscaling: how much noise the small picture is given, a timestep [20].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", help_heading = "Stable Diffusion")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 100_000), extend("x-needs" = "upscale")))]
    pub noise_level: Option<usize>,
    /// Depth to image: a picture of the depths, near white and far black.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PICTURE", help_heading = "Stable Diffusion")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "depth")))]
    pub depth: Option<ImageInput>,
    /// Paint only what the mask covers, enlarged, with so many pixels around, and paste it back.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PIXELS", help_heading = "From a picture")
    )]
    pub mask_crop: Option<usize>,

    /// Draw pictures that follow another one, such as edges or a pose, by a ControlNet: its folder, file or Hub's name, the picture, how
    /// strongly it leads and in which part of the steps, as in canny=edges.png:0.8:0:0.5. Several add up [scale 1; from a picture 0.8;
    /// painting in 0.5, XL 1].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "MODEL=PICTURE[:SCALE[:START:END]]",
            help_heading = "Control"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<ControlInput>", extend("x-needs" = "control")))]
    pub control: Vec<ControlInput>,
    /// Let the ControlNets lead where the prompt says nothing: they add only to what is drawn towards, most where the picture is coarse.
    #[cfg_attr(feature = "clap", arg(long, help_heading = "Control"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "control")))]
    pub guess_mode: bool,
    /// What is made of the controls' pictures first: canny, canny:100:200, blur, blur:9, grey, invert, joined by + where there are
    /// several; once for all of them, or once for each, with none in between [none].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHAT", help_heading = "Control"))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<Preprocess>", extend("x-needs" = "control")))]
    pub control_preprocess: Vec<Preprocess>,
    /// How controls' pictures of other proportions are brought to the size [stretch].
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "HOW",
            default_value_t = Fit::Stretch,
            hide_default_value = true,
            help_heading = "Control"
        )
    )]
    #[serde(deserialize_with = "by_name")]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "control")))]
    pub control_resize: Fit,

    /// Draw like a picture, beside the prompt, by an IP-Adapter: its file or Hub's name, the picture, or several with commas that are seen
    /// together, and how strongly it leads, as in ip-adapter_sd15.safetensors=cat.png:0.6. Several add up [scale 1].
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "MODEL=PICTURE[:SCALE]", help_heading = "Control")
    )]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<IpAdapterInput>", extend("x-needs" = "image_prompts")))]
    pub ip_adapter: Vec<IpAdapterInput>,
    /// The image encoder of the IP-Adapters [the one beside their file].
    #[serde(skip)]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FOLDER", help_heading = "Control"))]
    pub image_encoder: Option<PathBuf>,

    /// LoRA to draw with, by their names, each with how strongly it is applied: beside the model's weights, for this request alone. Tags in a
    /// prompt, as in <lora:pixel-art:0.8>, are such, too.
    #[serde(deserialize_with = "one_or_many")]
    #[cfg_attr(feature = "clap", arg(skip))]
    #[cfg_attr(feature = "schema", schemars(with = "OneOrMany<LoraInput>", extend("x-needs" = "loras")))]
    pub loras: Vec<LoraInput>,

    /// Draw the picture on so many times as large, as A1111's hires fix does: 2 for twice the width and height [one pass].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "FACTOR", help_heading = "Larger pictures")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 8), extend("exclusiveMinimum" = 1, "x-needs" = "enlarge")))]
    pub upscale: Option<f64>,
    /// The part of the noise that the larger picture is drawn through anew, above 0 to 1 [0.5].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PART", help_heading = "Larger pictures")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 1), extend("exclusiveMinimum" = 0, "x-needs" = "enlarge")))]
    pub upscale_strength: Option<f64>,
    /// The steps of the second pass, all of which are taken [as many as the first has].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", help_heading = "Larger pictures")
    )]
    #[cfg_attr(feature = "schema", schemars(range(min = 1), extend("x-needs" = "enlarge")))]
    pub upscale_steps: Option<usize>,
    /// The sampler of the second pass [that of the first].
    #[cfg_attr(feature = "clap", arg(long, value_parser = samplers(), hide_possible_values = true, value_name = "NAME", help_heading = "Larger pictures"))]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "enlarge")))]
    pub upscale_scheduler: Option<String>,
    /// How the picture comes to its new size: as a picture (lanczos), or in latents, which is faster and wants a strength of 0.55 or more
    /// [lanczos].
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "HOW",
            default_value_t = UpscaleBy::Lanczos,
            hide_default_value = true,
            help_heading = "Larger pictures"
        )
    )]
    #[serde(deserialize_with = "by_name")]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "enlarge")))]
    pub upscale_by: UpscaleBy,

    /// Begin with this picture under noise, in place of noise alone; what an editing, varying or upscaling model begins with.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PICTURE", help_heading = "From a picture")
    )]
    pub init_image: Option<ImageInput>,
    /// The part of the steps that is walked from the picture, above 0 to 1 [0.6; Stable Diffusion: 0.8, painting in: 1; XL: 0.3].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "PART", help_heading = "From a picture")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 1), extend("exclusiveMinimum" = 0, "x-needs" = "picture")))]
    pub strength: Option<f64>,
    /// Paint the white part of the mask anew in this picture: in latents, or by RePaint's sampler.
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_name = "PICTURE",
            conflicts_with = "init_image",
            help_heading = "From a picture"
        )
    )]
    pub inpaint: Option<ImageInput>,

    /// What is asked of sounds.
    #[serde(flatten)]
    #[cfg_attr(feature = "clap", command(flatten))]
    pub sound: SoundOptions,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            count: None,
            batch_size: 16,
            steps: None,
            size: None,
            seed: 0,
            seeds: Vec::new(),
            precision: Precision::default(),
            scheduler: None,
            eta: None,
            timesteps: Vec::new(),
            original_inference_steps: None,
            class: Vec::new(),
            attributes: Vec::new(),
            prompt: Vec::new(),
            conditioning_image: None,
            conditioning_as_is: false,
            vector_of: None,
            vector: Vec::new(),
            vectors: None,
            guidance: ClassifierFree::default(),
            negative_prompt: Vec::new(),
            negative_class: None,
            guide: Vec::new(),
            guide_through: Through::Clean,
            guide_schedule: GuidanceSchedule::Signal,
            guide_clip: None,
            mask: None,
            clip: None,
            cuts: ClipLoss::USUAL_CUTS,
            prompt_2: Vec::new(),
            negative_prompt_2: Vec::new(),
            clip_skip: None,
            prompt_syntax: PromptSyntax::Plain,
            embeddings: None,
            latents: None,
            original_size: None,
            crop_top_left: None,
            target_size: None,
            negative_original_size: None,
            negative_crop_top_left: None,
            negative_target_size: None,
            aesthetic_score: None,
            negative_aesthetic_score: None,
            denoising_end: None,
            denoising_start: None,
            image_guidance_scale: None,
            noise_level: None,
            depth: None,
            mask_crop: None,
            control: Vec::new(),
            guess_mode: false,
            control_preprocess: Vec::new(),
            control_resize: Fit::Stretch,
            upscale: None,
            upscale_strength: None,
            upscale_steps: None,
            upscale_scheduler: None,
            upscale_by: UpscaleBy::Lanczos,
            ip_adapter: Vec::new(),
            image_encoder: None,
            loras: Vec::new(),
            init_image: None,
            strength: None,
            inpaint: None,
            sound: SoundOptions::default(),
        }
    }
}

impl Request {
    /// Takes the LoRA that the prompts name out of them, as in `<lora:NAME:0.8>`, and puts them behind those that are named already. They hold
    /// for the whole request, so all prompts must name the same.
    ///
    /// # Errors
    /// If a tag cannot be read, or the prompts name other LoRA than each other.
    pub fn take_lora_tags(&mut self) -> Result<(), Error> {
        let mut named: Option<Vec<LoraInput>> = None;
        let mut prompts = Vec::with_capacity(self.prompt.len());
        for prompt in &self.prompt {
            let (rest, tags) = take_loras(prompt)?;
            prompts.push(rest);
            let tags: Vec<LoraInput> = tags.into_iter().map(LoraInput::from).collect();
            match &named {
                Some(first) if *first != tags => {
                    return Err(Error::option(
                        &["prompt"],
                        "the prompts name other LoRA than each other: a call puts the same on all of its pictures, so draw them in several",
                    ));
                }
                _ => named = Some(tags),
            }
        }
        self.prompt = prompts;
        self.loras.extend(named.unwrap_or_default());
        Ok(())
    }

    /// Puts a picture in the place of an option, where there is one of this name.
    pub(crate) fn set_image(&mut self, option: &str, image: ImageInput) {
        let place = match option {
            "conditioning_image" => &mut self.conditioning_image,
            "vector_of" => &mut self.vector_of,
            "mask" => &mut self.mask,
            "depth" => &mut self.depth,
            "init_image" => &mut self.init_image,
            "inpaint" => &mut self.inpaint,
            _ => return,
        };
        *place = Some(image);
    }

    /// Leaves out the pictures that it brings along.
    pub fn leave_images(&mut self) {
        for place in [
            &mut self.conditioning_image,
            &mut self.vector_of,
            &mut self.mask,
            &mut self.depth,
            &mut self.init_image,
            &mut self.inpaint,
        ] {
            *place = None;
        }
        self.control.clear();
        self.ip_adapter.clear();
        self.sound.leave_sounds();
    }

    /// The pictures that it brings along, by the names of their options.
    pub fn images_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut ImageInput)> {
        [
            ("conditioning_image", &mut self.conditioning_image),
            ("vector_of", &mut self.vector_of),
            ("mask", &mut self.mask),
            ("depth", &mut self.depth),
            ("init_image", &mut self.init_image),
            ("inpaint", &mut self.inpaint),
        ]
        .into_iter()
        .filter_map(|(option, image)| Some((option, image.as_mut()?)))
        .chain(
            self.control
                .iter_mut()
                .map(|control| ("control", &mut control.picture)),
        )
        .chain(
            self.ip_adapter
                .iter_mut()
                .map(|prompt| ("ip_adapter", &mut prompt.picture)),
        )
    }
}

/// Reads a sampler's name from a command line.
#[cfg(feature = "clap")]
fn samplers() -> clap::builder::PossibleValuesParser {
    let all = crate::schedulers::SamplerName::ALL.iter();
    clap::builder::PossibleValuesParser::new(all.map(|sampler| sampler.name))
}

/// A choice by its name; the error lists those that there are.
fn by_name<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::from_name(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// In JSON, one of something stands for a list of one, and null for none.
fn one_or_many<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany<T> {
        Many(Vec<T>),
        One(Option<T>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::Many(all) => all,
        OneOrMany::One(one) => one.into_iter().collect(),
    })
}
