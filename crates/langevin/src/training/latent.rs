//! A run on top of a latent pipeline: from pictures and captions to latents and what the model is told of them, and back to a pipeline.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};
use sha2::{Digest, Sha256};

use super::{
    LearnableProperty, MixedPrecision, Observer, TraineeKind, TrainingConfig,
    class_pictures::{self, ClassPictures},
    latents::{Kept, Latents, Pixels, Whose},
    setup::transform,
    shelf::{Shelf, named, shaped},
    step::Batch,
    tags, templates,
    trainee::{AnyTrainee, Finished, Latent, Start},
};
use crate::{
    Error, Result,
    codec::{Codec, Encoded},
    conditioning::{TextCondition, Trained},
    data::{self, Dataset, cache_limit},
    generate::drawing,
    models::Conditioning,
    pipelines::{Held, LoadOptions, Pipeline},
    random::Generator,
    schedulers::AnyScheduler,
    weights,
    world::Team,
};

/// Pictures whose captions are looked for before the first step.
const LOOKED_AT: usize = 100;

/// What a run on a latent pipeline holds besides what it trains.
pub(super) struct LatentRun {
    /// The pipeline as it was.
    base: Pipeline,
    /// The scheduler of what is trained: it may predict another thing.
    scheduler: AnyScheduler,
    /// Its networks, outside of any graph.
    frozen: Latent,
    /// How texts are read, with the new word where one is learned.
    text: TextCondition,
    /// Each picture as the autoencoder has it, where nothing about it is random.
    encoded: Latents,
    /// Where what texts come to is kept on a disk too.
    shelf: Option<Shelf>,
    /// What texts come to, where the encoders are not trained.
    told: Mutex<Kept<String, Conditioning>>,
    /// Pictures of the class, where there are some.
    class: Option<ClassPictures>,
    device: Device,
}

impl LatentRun {
    /// The run on the pipeline in the folder that the configuration names.
    ///
    /// # Errors
    /// If it cannot be loaded, or takes no texts.
    pub(super) fn open(config: &TrainingConfig, folder: &Path, device: &Device) -> Result<Self> {
        let options = LoadOptions {
            held: held(config),
            ..LoadOptions::default()
        };
        let base = Pipeline::load_with(folder, &options, device)?;
        let scheduler = config.scheduler()?;
        let frozen = match options.held {
            Held::Bf16 => Latent::as_held(&base)?,
            _ => Latent::of(&base)?,
        };
        let (takes, latents) = (base.model.config().in_channels(), base.codec().channels());
        let edits = config.trainee == TraineeKind::Pix2Pix && takes == 2 * latents;
        if takes != latents && !edits {
            return Err(Error::Unsupported(format!(
                "{}: the UNet of this {} takes {takes} channels, {latents} of them latents: what else it is shown is not there in training yet",
                folder.display(),
                base.class().name
            )));
        }
        let text = base.condition::<TextCondition>().cloned().ok_or_else(|| {
            Error::file(
                folder,
                "takes no texts, and what is trained on top of a pipeline is learned with texts",
            )
        })?;
        let divisor = base.size_divisor();
        if !config.resolution.is_multiple_of(divisor) {
            return Err(Error::option(
                &["resolution"],
                format!(
                    "`resolution` is {}, and this pipeline's pictures have sides that {divisor} divides",
                    config.resolution
                ),
            ));
        }
        if config.enable_bucket && !config.bucket_reso_steps.is_multiple_of(divisor) {
            return Err(Error::option(
                &["bucket_reso_steps"],
                format!(
                    "`bucket_reso_steps` is {}, and this pipeline's pictures have sides that {divisor} divides",
                    config.bucket_reso_steps
                ),
            ));
        }
        let text = match config.trainee {
            TraineeKind::Embedding => {
                let widths = frozen.text_encoders().map(|encoder| {
                    let [_, width] = encoder.text_model.embeddings.token_embedding.weight.dims();
                    vec![0.0; config.num_vectors * width]
                });
                let word = config.placeholder_token.as_deref().unwrap_or_default();
                text.with_word(word, &widths.collect::<Vec<_>>())?
            }
            _ => text,
        };
        let encoded = Latents::new(cache_limit() / 2);
        let (encoded, shelf) = match &config.cache_latents_to_disk {
            None => (encoded, None),
            Some(folder) => (
                encoded.on_disk(folder, base.codec())?,
                Some(Shelf::open(folder, digest_of_encoders(&frozen))?),
            ),
        };
        let class = config
            .class_prompt
            .as_ref()
            .map(|prompt| ClassPictures::new(prompt));
        Ok(Self {
            base,
            scheduler,
            frozen,
            text,
            encoded,
            shelf,
            told: Mutex::new(Kept::new(cache_limit() / 4)),
            class,
            device: device.clone(),
        })
    }

    /// The networks with what is trained on them, as it begins.
    ///
    /// # Errors
    /// If the configuration asks for what they have not.
    pub(super) fn trainee(&self, config: &TrainingConfig, generator: &mut Generator) -> Result<Latent> {
        let start = Start {
            config,
            base: &self.base,
            device: &self.device,
        };
        (config.trainee.row().attach)(self.frozen.clone(), &start, generator)
    }

    /// The pipeline's conditions.
    pub(super) fn conditions(&self, config: &TrainingConfig) -> Vec<Trained> {
        let conditions = self.base.conditions().iter();
        conditions
            .map(|condition| Trained {
                condition: Arc::clone(condition),
                dropout: config.caption_dropout.unwrap_or(0.0),
            })
            .collect()
    }

    /// The pipeline that was trained on.
    pub(super) fn base(&self) -> &Pipeline {
        &self.base
    }

    /// Looks for captions and for the pictures that are drawn after on the way, before anything is written.
    ///
    /// # Errors
    /// If one of the first pictures has none where it needs one, or one of those cannot be read.
    pub(super) fn check(&self, config: &TrainingConfig, dataset: &dyn Dataset) -> Result<()> {
        for file in &config.validation_image {
            data::read_picture(file)?;
        }
        if config.instance_prompt.is_some() || config.trainee == TraineeKind::Embedding {
            return Ok(());
        }
        for index in 0..dataset.len().min(LOOKED_AT) {
            // A picture that cannot be read is the loader's to report.
            if let Ok(None) = dataset.caption(index)
                && dataset.get(index).is_ok()
            {
                return Err(no_caption(index));
            }
        }
        Ok(())
    }

    /// Draws the pictures of the class that are missing, with the model as it was, and says so; whether an observer had enough before the
    /// last.
    ///
    /// # Errors
    /// If they cannot be drawn, written or read.
    pub(super) fn prepare(
        &mut self,
        config: &TrainingConfig,
        run: &Path,
        team: &mut Team<'_>,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let stopped = match &mut self.class {
            // What a checker blackens is no picture of the class.
            Some(class) => class.fill(config, &self.base.clone().without_safety(), run, team, observer)?,
            None => false,
        };
        self.let_go(config);
        Ok(stopped)
    }

    /// Lets go of the UNet as it was, where another is trained in its place: nothing draws with it any more.
    fn let_go(&mut self, config: &TrainingConfig) {
        if (config.trainee.row().trains)(config, "unet.conv_in.weight") {
            let unet = weights::hollow(self.base.model.clone());
            self.frozen.unet = unet.clone();
            self.base = self.base.clone().with_parts(unet, None);
        }
    }

    /// The bytes of what will be kept of pictures.
    pub(super) fn kept(&self, config: &TrainingConfig, dataset: &dyn Dataset) -> u64 {
        self.encoded.bytes(self.base.codec(), config, dataset)
    }

    /// The bytes that drawing or encoding a picture takes beside the networks.
    pub(super) fn for_a_picture(&self, config: &TrainingConfig) -> u64 {
        drawing(&self.base, config.resolution)
    }

    /// A loader's batch as latents, with what the model is told of them.
    ///
    /// # Errors
    /// If a picture has no caption where it needs one, or does not fit.
    pub(super) fn batch(
        &self,
        config: &TrainingConfig,
        latent: &Latent,
        batch: data::Batch,
        generator: &mut Generator,
    ) -> Result<Batch> {
        let [count, ..] = batch.shape;
        let mut captions = self.captions(config, &batch, generator)?;
        let of_batch = |whose, values| Pixels {
            whose,
            indices: &batch.indices,
            values,
            shape: batch.shape,
        };
        let mut encoded = vec![self.encoded(config, of_batch(Whose::Instance, &batch.pixels))?];
        let mut sizes = batch.sizes.clone();
        if let Some(class) = &self.class {
            let [.., height, width] = batch.shape;
            let drawn = class.draw(count, &transform(config), [height, width], generator)?;
            let pictures = Pixels {
                whose: Whose::Class,
                indices: &drawn.indices,
                values: &drawn.pixels,
                shape: batch.shape,
            };
            encoded.push(self.encoded(config, pictures)?);
            captions.extend(vec![class.prompt().to_string(); count]);
            sizes.extend(drawn.sizes);
        }
        let codec = self.base.codec();
        let points = encoded.iter().map(|encoded| encoded.sample(generator)).collect();
        let clean = codec.scale(Tensor::cat(points, 0));
        let shown = batch.conditioning.as_deref();
        let mut conditioning = Conditioning::default();
        match config.trainee {
            TraineeKind::ControlNet => {
                let pixels = shown.ok_or_else(|| no_picture("conditioning_image"))?;
                let picture = self.tensor(pixels.to_vec(), batch.shape);
                conditioning.control = Some(picture * 0.5 + 0.5);
            }
            TraineeKind::Pix2Pix => {
                let pixels = shown.ok_or_else(|| no_picture("input_image"))?;
                let seen = self.encoded(config, of_batch(Whose::Shown, pixels))?.mode();
                conditioning.channels = Some(withhold(config, seen, &mut captions, generator));
            }
            _ => {}
        }
        let dropout = config.caption_dropout.unwrap_or(0.0);
        if dropout > 0.0 {
            for (caption, u) in captions.iter_mut().zip(generator.rand(count)) {
                if f64::from(u) < dropout {
                    caption.clear();
                }
            }
        }
        let learns = config.train_text_encoder || latent.words.is_some();
        let (told, beside) = match learns {
            true => {
                let told = latent.encode(&self.ids(&captions)?)?;
                (told.conditioning, told.beside)
            }
            false => (self.told(&captions)?, Vec::new()),
        };
        conditioning = conditioning.and(told);
        if latent.is_xl() {
            conditioning.time_ids = Some(self.time_ids(batch.shape, &sizes));
        }
        Ok(Batch {
            beside,
            prior_weight: self.class.as_ref().map(|_| config.prior_loss_weight),
            ..Batch::new(clean, conditioning)
        })
    }

    /// A batch of noise, as large as the run's and told nothing, to measure a step with.
    ///
    /// # Errors
    /// If the pictures do not fit the model.
    pub(super) fn blank(&self, config: &TrainingConfig, latent: &Latent, count: usize) -> Result<Batch> {
        let side = config.resolution;
        let shape = [count, 3, side, side];
        let pixels = vec![0.0; shape.iter().product()];
        let shown = matches!(config.trainee, TraineeKind::ControlNet | TraineeKind::Pix2Pix);
        let batch = data::Batch {
            conditioning: shown.then(|| pixels.clone()),
            pixels,
            shape,
            classes: None,
            captions: vec![Some(String::new()); count],
            attributes: Vec::new(),
            // Of no picture, so that nothing is kept of it.
            indices: vec![usize::MAX; count],
            sizes: vec![data::Cut::whole(side); count],
            number: 0,
        };
        let plain = Self {
            scheduler: self.scheduler.clone(),
            base: self.base.clone(),
            frozen: self.frozen.clone(),
            text: self.text.clone(),
            encoded: Latents::new(0),
            shelf: None,
            told: Mutex::new(Kept::new(0)),
            class: None,
            device: self.device.clone(),
        };
        plain.batch(config, latent, batch, &mut Generator::new(0))
    }

    /// Each picture's caption.
    fn captions(
        &self,
        config: &TrainingConfig,
        batch: &data::Batch,
        generator: &mut Generator,
    ) -> Result<Vec<String>> {
        if config.trainee == TraineeKind::Embedding {
            let word = config.placeholder_token.as_deref().unwrap_or_default();
            let templates: &[&str] = match config.learnable_property {
                LearnableProperty::Object => &templates::OBJECTS,
                LearnableProperty::Style => &templates::STYLES,
            };
            let drawn = generator.randint(0, templates.len() as i64, batch.captions.len());
            let sentence = |drawn: i64| templates[drawn as usize].replace("{}", word);
            return Ok(drawn.into_iter().map(sentence).collect());
        }
        if let Some(prompt) = &config.instance_prompt {
            return Ok(vec![prompt.clone(); batch.captions.len()]);
        }
        let captions = batch.captions.iter().zip(&batch.indices);
        let own = |(caption, index): (&Option<String>, &usize)| {
            let caption = caption.as_ref().ok_or_else(|| no_caption(*index))?;
            Ok(match config.shuffle_tags {
                true => tags::shuffled(caption, config.keep_tags, generator),
                false => caption.clone(),
            })
        };
        captions.map(own).collect()
    }

    fn tensor(&self, pixels: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(pixels, shape), &self.device)
    }

    /// Pictures as the autoencoder has them.
    fn encoded(&self, config: &TrainingConfig, pictures: Pixels<'_>) -> Result<Encoded> {
        self.encoded.of(self.base.codec(), config, pictures, &self.device)
    }

    /// The token ids of captions for each encoder.
    fn ids(&self, captions: &[String]) -> Result<Vec<Vec<Vec<u32>>>> {
        let rows: Vec<Vec<Vec<u32>>> = captions
            .iter()
            .map(|caption| self.text.token_ids(caption))
            .collect::<Result<_>>()?;
        let count = self.frozen.text_encoders().count();
        Ok((0..count)
            .map(|encoder| rows.iter().map(|row| row[encoder].clone()).collect())
            .collect())
    }

    /// What captions come to by the encoders as they are.
    fn told(&self, captions: &[String]) -> Result<Conditioning> {
        let mut kept = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Option<Conditioning> = None;
        for caption in captions {
            let told = match kept.get(caption) {
                Some(told) => told.clone(),
                None => {
                    let told = self.encoded_text(caption)?;
                    let numbers = told
                        .sequence
                        .as_ref()
                        .map_or(0, |sequence| sequence.shape().num_elements());
                    kept.keep(caption.clone(), &told, 4 * numbers as u64);
                    told
                }
            };
            all = Some(match all {
                Some(all) => all.followed_by(&told)?,
                None => told,
            });
        }
        all.ok_or_else(|| Error::Config("a batch has no pictures".into()))
    }

    /// What a caption comes to, from a disk where it is there.
    fn encoded_text(&self, caption: &String) -> Result<Conditioning> {
        let ids = self.ids(std::slice::from_ref(caption))?;
        let compute = || Ok(self.frozen.encode(&ids)?.conditioning);
        let Some(shelf) = &self.shelf else {
            return compute();
        };
        let tokens = ids.iter().flatten().flatten();
        let shape: Vec<usize> = ids.iter().flatten().map(Vec::len).collect();
        let file = shelf.file("text", &shape, tokens.map(|id| id.to_le_bytes()));
        if let Some(found) = shelf.read(&file, ["sequence", "vector"], &self.device) {
            let mut told = Conditioning::default();
            for (name, shape, tensor) in found {
                match name.as_str() {
                    "sequence" => told.sequence = shaped(tensor, &shape),
                    _ => told.vector = shaped(tensor, &shape),
                }
            }
            if told.sequence.is_some() && told.vector.is_some() == self.frozen.is_xl() {
                return Ok(told);
            }
        }
        let told = compute()?;
        let sequence = told.sequence.as_ref().map(|tensor| named("sequence", tensor));
        let vector = told.vector.as_ref().map(|tensor| named("vector", tensor));
        shelf.write(&file, sequence.into_iter().chain(vector).collect());
        Ok(told)
    }

    /// What Stable Diffusion XL is told of sizes: the picture's own, where it was cut, and the size that it has now.
    fn time_ids(&self, [.., height, width]: [usize; 4], sizes: &[data::Cut]) -> Tensor<2> {
        let numbers: Vec<f32> = sizes
            .iter()
            .flat_map(|cut| [cut.height, cut.width, cut.top, cut.left, height, width])
            .map(|number| number as f32)
            .collect();
        Tensor::from_data(TensorData::new(numbers, [sizes.len(), 6]), &self.device)
    }

    /// The pipeline with what was trained.
    ///
    /// # Errors
    /// If a ControlNet does not fit it.
    pub(super) fn pipeline(&self, config: &TrainingConfig, latent: &Latent) -> Result<Pipeline> {
        let mut text = self
            .base
            .condition::<TextCondition>()
            .map(|text| text.with_encoders(latent.text_encoders().cloned()));
        if let (Some(word), true) = (&config.placeholder_token, latent.words.is_some()) {
            let vectors = weights::named_tensors_of(latent, |name| name.starts_with("words."));
            let vectors: Vec<Vec<f32>> = vectors.into_iter().map(|tensor| tensor.values).collect();
            text = text.map(|text| text.with_word(word, &vectors)).transpose()?;
        }
        let mut pipeline = self.base.clone().with_parts(latent.unet.clone(), text);
        pipeline.scheduler = self.scheduler.clone();
        match &latent.controlnet {
            Some(network) => pipeline.with_controls(vec![network.clone().into()]),
            None if config.trainee == TraineeKind::Pix2Pix => {
                Ok(pipeline.with_class("StableDiffusionInstructPix2PixPipeline"))
            }
            None => Ok(pipeline),
        }
    }

    /// Leaves what was trained in a folder, in diffusers' files.
    ///
    /// # Errors
    /// If one cannot be written.
    pub(super) fn save(&self, config: &TrainingConfig, trainee: &AnyTrainee, folder: &Path) -> Result<()> {
        let AnyTrainee::Latent(latent) = trainee else {
            return Err(Error::Config("the run trains no latent pipeline".into()));
        };
        let pipeline = self.pipeline(config, latent)?;
        let finished = Finished {
            config,
            pipeline: &pipeline,
            folder,
        };
        (config.trainee.row().save)(latent, &finished)
    }

    /// Sentences about what is kept, and how much it takes.
    pub(super) fn remarks(&self, config: &TrainingConfig, dataset: &dyn Dataset) -> Vec<String> {
        let mut remarks = vec![self.encoded.remark(self.base.codec(), config, dataset)];
        if config.train_text_encoder {
            remarks.push("texts are encoded anew each time, for their encoder is trained".into());
        }
        remarks
    }
}

/// A hash of what reads the texts.
fn digest_of_encoders(networks: &Latent) -> [u8; 32] {
    let mut hash = Sha256::new();
    for encoder in networks.text_encoders() {
        hash.update(weights::digest(encoder));
    }
    hash.update([u8::from(networks.is_xl())]);
    hash.finalize().into()
}

/// What the pipeline's weights are held as: of what is not trained half is enough where products are of bf16 values.
fn held(config: &TrainingConfig) -> Held {
    let trains = config.trainee.row().trains;
    let trains_networks = [
        "unet.conv_in.weight",
        "text_encoder.text_model.final_layer_norm.weight",
    ]
    .iter()
    .any(|name| trains(config, name));
    match config.mixed_precision {
        MixedPrecision::Bf16 if !trains_networks => Held::Bf16,
        _ => Held::Float32,
    }
}

/// Withholds the text, both, or the picture, as InstructPix2Pix is trained (Brooks et al. 2022, section 3.2.1): one number for each picture decides.
fn withhold(
    config: &TrainingConfig,
    shown: Tensor<4>,
    captions: &mut [String],
    generator: &mut Generator,
) -> Tensor<4> {
    let dropout = config.conditioning_dropout_prob.unwrap_or(0.05);
    if dropout == 0.0 {
        return shown;
    }
    let [count, ..] = shown.dims();
    let mut kept = Vec::with_capacity(count);
    for (caption, u) in captions.iter_mut().zip(generator.rand(count)) {
        let u = f64::from(u);
        if u < 2.0 * dropout {
            caption.clear();
        }
        kept.push(if u >= dropout && u < 3.0 * dropout {
            0.0f32
        } else {
            1.0
        });
    }
    let kept = Tensor::<1>::from_floats(kept.as_slice(), &shown.device());
    shown * kept.reshape([count, 1, 1, 1])
}

fn no_caption(index: usize) -> Error {
    Error::option(
        &["instance_prompt"],
        format!(
            "picture {index} has no caption: a `.txt` beside each picture, a column `text` in metadata.jsonl, or `instance_prompt` for all \
             of them says what they show"
        ),
    )
}

fn no_picture(column: &str) -> Error {
    Error::option(
        &["conditioning_image"],
        format!(
            "the pictures have no others beside them, which the model is to be shown: `conditioning_image` names the column, such as \
             {column}"
        ),
    )
}

/// The folder of the class's pictures.
pub(super) fn class_folder(config: &TrainingConfig, run: &Path) -> PathBuf {
    config
        .class_data_dir
        .clone()
        .unwrap_or_else(|| run.join(class_pictures::FOLDER))
}
