//! `langevin evaluate`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use langevin::{
    Pipeline, Request,
    data::{
        self, Dataset, Medium, OpenOptions, Picture,
        evaluate::{
            Agreement, Gaussian, SHAPE_SPACE, SPECTRUM_SPACE, frechet_distance, nearest, precision_recall,
            shape_features, spectrum_features,
        },
    },
    device::DeviceName,
    generate::{PictureSet, Subjects, agreement, agreement_in, draw_set, real_set},
    grid,
    guidance::ClassifierFree,
    models::{INCEPTION_SPACE, Inception},
};
use serde_json::json;

use super::sample::Drawing;
use crate::{
    flags::{Options, scheduler},
    hub,
    processes::Processes,
    progress::Progress,
    stop::Stop,
    terminal,
};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Measure how good a model's samples are.

Draws pictures and compares them with real ones. Of a class-conditional model, the five real pictures nearest to each \
sample vote on what it shows: the figure is how often they name the class that was asked for. A model that takes a text is \
asked for the captions of real pictures, and for the classes of these where the data have some. The Fréchet distance says \
how far the two clouds of pictures are apart (0 is the best), precision how many samples look real, recall how much of what \
is real is drawn (1 is the best). They are measured in features that this program makes itself and names; they are no \
FID, and compare with nothing but themselves. Of sounds the spectra \
are compared, whatever is played when. With `--inception` they are measured in Inception's features, and the distance \
is FID as pytorch-fid computes it.";

/// Real pictures that vote on a sample.
const VOTERS: usize = 5;
/// Neighbours that a ball of precision and recall reaches to, as in the paper.
const REACH: usize = 3;
/// Samples whose neighbours are shown, and how many of these.
const SHOWN: usize = 10;
const NEIGHBOURS: usize = 6;

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    /// The run or pipeline, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// The real pictures: `digits`, a folder, a name of the Hub, or any other data set
    #[arg(long, value_name = "DATA", default_value = "digits")]
    pub data: String,
    /// Which of a repository's configurations [the default one]
    #[arg(long, value_name = "NAME")]
    pub dataset_config_name: Option<String>,
    /// The part of the data that the real pictures are of [train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Pictures drawn of each class
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub samples_per_class: usize,
    /// Pictures drawn, where the model knows no classes: of captions of the data, where it takes a text
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub samples: usize,
    /// Real pictures that are looked at, at most
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub real_pictures: usize,
    /// Measure in the features of Inception, whose weights this file holds: pytorch-fid's
    /// pt_inception-2015-12-05-6726825d.pth, or its tensors as safetensors
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,
    /// Write some samples with the real pictures nearest to them, to see whether these were learnt by heart
    #[arg(long, value_name = "PNG")]
    pub neighbours: Option<PathBuf>,
    /// Denoising steps
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub steps: usize,
    /// The seed that everything random comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// The sampler
    #[arg(long, value_parser = scheduler(), hide_possible_values = true, value_name = "NAME", default_value = "ddim")]
    pub scheduler: String,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub batch_size: usize,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub guidance: Options<ClassifierFree>,
}

/// Draws pictures and prints how they compare. The processes of a world share the drawing, and what Inception looks at; the first says what
/// came of it.
pub(crate) fn run(args: EvaluateArgs, processes: &mut Processes) -> Result<()> {
    // The first pulls what the others then find.
    let path = processes.first_then_others(|| {
        if let Some(path) = &args.neighbours {
            super::check_png("--neighbours", path)?;
        }
        hub::pipeline(&args.path)
    })?;
    let device = args.device.open()?;
    let pipeline =
        Pipeline::load(path, &device).and_then(|pipeline| pipeline.with_scheduler(&args.scheduler));
    let pipeline = processes.agree(pipeline.map_err(Into::into))?;
    let default = OpenOptions::default();
    let of_data = OpenOptions {
        config: args.dataset_config_name.clone(),
        split: args.split.clone().unwrap_or(default.split),
        // A model of sounds is compared with sounds, as it hears them.
        medium: match pipeline.mel() {
            Some(mel) => Medium::Sounds(Arc::new(mel.clone())),
            None => default.medium,
        },
        ..default
    };
    let data = processes.first_then_others(|| hub::dataset(&args.data, &of_data))?;
    let compared = Compared::of(&args, &pipeline, data::open_with(&data, &of_data));
    let Compared {
        dataset,
        space,
        subjects,
    } = processes.agree(compared)?;
    let request = Request {
        batch_size: args.batch_size,
        steps: Some(args.steps),
        seed: args.seed,
        guidance: args.guidance.0,
        ..Request::default()
    };
    let stop = super::sample::stop_on_signals(processes)?;
    let mut watch = Drawing::new(1, &stop, None);
    let drawn = draw_set(&pipeline, &subjects, &request, processes.world(), &mut watch)?;
    drop(watch);
    let drawn = processes.agree(drawn.ok_or_else(|| anyhow!("stopped before the last picture was drawn")))?;
    if !processes.is_first() && !matches!(space, Space::Inception(_)) {
        // What is left is quickly done.
        return Ok(());
    }
    let Some(like) = drawn.pictures.first() else {
        bail!("no picture was drawn")
    };
    let real = real_set(dataset.as_ref(), like, args.real_pictures)?;
    let rows = space.rows([&drawn, &real], &stop, processes)?;
    if !processes.is_first() {
        return Ok(());
    }
    let hears = pipeline.mel().is_some();
    let mut figures = json!({});
    if let Some(classes) = subjects.classes() {
        // What is played differs from sound to sound; the timbre is what a class is.
        let agreed = match hears {
            true => agreement_in(&drawn, &real, classes, VOTERS, spectrum_features)?,
            false => agreement(&drawn, &real, classes, VOTERS)?,
        };
        let names = dataset.class_names().unwrap_or_default();
        let of_classes = names.iter().zip(&agreed.per_class);
        figures["agreement"] = agreed.fraction().into();
        figures["classes"] = of_classes
            .map(|(name, (right, all))| json!({ "name": name, "right": right, "samples": all }))
            .collect();
        if !args.json {
            print_agreement(&agreed, names)?;
        }
    }
    let Some([samples, pictures]) = rows else {
        bail!("stopped before the last picture was looked at")
    };
    let features = samples.len() / drawn.pictures.len();
    let distance = distance(&space, &samples, &pictures, features)?;
    figures["frechet_distance"] = distance.value.into();
    figures["features"] = distance.space.into();
    figures["samples"] = drawn.pictures.len().into();
    figures["real_pictures"] = real.pictures.len().into();
    if !args.json {
        terminal::print_line(&distance.line)?;
    }
    if stop.requested() {
        bail!("stopped before precision and recall were computed")
    }
    let within = precision_recall(&pictures, &samples, features, REACH)?;
    figures["precision"] = within.precision.into();
    figures["recall"] = within.recall.into();
    if !args.json {
        terminal::print_line(&format!(
            "precision {:.3}, recall {:.3}, in the same features",
            within.precision, within.recall
        ))?;
    }
    if let Some(path) = &args.neighbours {
        draw_neighbours(&drawn, &real, path)?;
        if !args.json {
            terminal::print_line(&format!("neighbours in {}", path.display()))?;
        }
    }
    if args.json {
        terminal::print_json(&figures)?;
    }
    Ok(())
}

/// What is to be compared, and in what.
struct Compared {
    dataset: Box<dyn Dataset>,
    space: Space,
    subjects: Subjects,
}

impl Compared {
    /// Of a pipeline and data, if they can be.
    fn of(
        args: &EvaluateArgs,
        pipeline: &Pipeline,
        dataset: langevin::Result<Box<dyn Dataset>>,
    ) -> Result<Self> {
        let dataset = dataset?;
        let device = pipeline.model.device();
        let inception = args.inception.as_ref().map(|path| Inception::load(path, &device));
        let inception = inception.transpose()?;
        let subjects = Subjects::of(pipeline, dataset.as_ref(), args.samples_per_class, args.samples)?;
        let plain = match pipeline.mel() {
            Some(_) => Space::Spectra,
            None => Space::Shapes,
        };
        // Before pictures are drawn for hours.
        let real = dataset.len().min(args.real_pictures);
        enough(&subjects, real, dataset.as_ref())?;
        Ok(Self {
            space: inception.map_or(plain, Space::Inception),
            dataset,
            subjects,
        })
    }
}

/// Refuses numbers of samples and real pictures that nothing can be measured with, and says where one class alone has nothing to vote on.
fn enough(subjects: &Subjects, real: usize, dataset: &dyn Dataset) -> Result<()> {
    let sample_flag = match subjects {
        Subjects::Classes { .. } => "--samples-per-class",
        _ => "--samples",
    };
    for (what, count, flag) in [
        ("samples", subjects.count(), sample_flag),
        ("real pictures", real, "--real-pictures or another --data"),
    ] {
        if count <= REACH {
            bail!(
                "{count} {what} are too few: precision and recall look at the {REACH} nearest others of each, so there must be {} \
                 at least; say more with {flag}",
                REACH + 1
            );
        }
    }
    let Some(classes) = subjects.classes() else {
        return Ok(());
    };
    if real < VOTERS {
        bail!(
            "{real} real pictures are too few: {VOTERS} of them vote on what each sample shows; say more with --real-pictures"
        );
    }
    if classes == 1 {
        terminal::note(
            "there is one class, so all samples show the class asked for: the first figure says nothing",
        );
    } else if real < VOTERS * classes {
        terminal::note(&format!(
            "{real} real pictures of {classes} classes are fewer than {VOTERS} each, so their votes say little; there are {} in the data",
            terminal::thousands(dataset.len())
        ));
    }
    Ok(())
}

fn print_agreement(agreed: &Agreement, names: &[String]) -> Result<()> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, (right, all)) in names.iter().zip(&agreed.per_class) {
        terminal::print_line(&format!("{name:width$}  {right} of {all}"))?;
    }
    let drawn: usize = agreed.per_class.iter().map(|(_, all)| all).sum();
    terminal::print_line(&format!(
        "{:.1} % of {drawn} samples show the class asked for, by their {VOTERS} nearest neighbours",
        100.0 * agreed.fraction()
    ))?;
    Ok(())
}

/// What pictures are compared in.
enum Space {
    /// Features that need no trained network.
    Shapes,
    /// The same of sounds.
    Spectra,
    /// Those that FID is measured in.
    Inception(Inception),
}

impl Space {
    /// Pictures that Inception sees together.
    const TOGETHER: usize = 16;

    /// The features of each set, row by row; `None` where the user had enough. What Inception looks at is shared by all processes.
    fn rows(
        &self,
        sets: [&PictureSet; 2],
        stop: &Stop,
        processes: &mut Processes,
    ) -> Result<Option<[Vec<f32>; 2]>> {
        let plain = |features: fn(&Picture) -> Vec<f32>| {
            Ok(Some(
                sets.map(|set| set.pictures.iter().flat_map(features).collect()),
            ))
        };
        let inception = match self {
            Self::Shapes => return plain(shape_features),
            Self::Spectra => return plain(spectrum_features),
            Self::Inception(inception) => inception,
        };
        let (rank, size) = processes.rank_and_size();
        let mut bar = Progress::new("look", sets.map(|set| set.pictures.len()).iter().sum());
        let (mut rows, mut done) = ([vec![], vec![]], 0);
        for (set, rows) in sets.iter().zip(&mut rows) {
            for round in set.pictures.chunks(Self::TOGETHER * size) {
                if processes.any(stop.requested())? {
                    return Ok(None);
                }
                let own = round.chunks(Self::TOGETHER).nth(rank).unwrap_or_default();
                let features = processes.agree(inception.features(own).map_err(Into::into))?;
                let bytes: Vec<u8> = features.iter().flat_map(|value| value.to_le_bytes()).collect();
                for bytes in processes.world().gather(&bytes)? {
                    let (values, _) = bytes.as_chunks::<4>();
                    rows.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                }
                done += round.len();
                bar.update(done, String::new);
            }
        }
        Ok(Some(rows))
    }
}

/// How far sets of pictures are apart.
struct Distance {
    value: f64,
    /// The name of the features.
    space: &'static str,
    line: String,
}

/// The distance between two clouds of rows of `features` numbers.
fn distance(space: &Space, samples: &[f32], pictures: &[f32], features: usize) -> Result<Distance> {
    let (name, space, but) = match space {
        Space::Shapes => ("Fréchet distance", SHAPE_SPACE, " (not FID)"),
        Space::Spectra => ("Fréchet distance", SPECTRUM_SPACE, " (not FID)"),
        Space::Inception(_) => ("FID", INCEPTION_SPACE, ""),
    };
    let [real, drawn] = [
        Gaussian::of(pictures, features)?,
        Gaussian::of(samples, features)?,
    ];
    let distance = frechet_distance(&real, &drawn)?;
    let counts = [samples, pictures].map(|rows| rows.len() / features);
    let [drawn, real] = counts.map(terminal::thousands);
    let line = format!(
        "{name} {distance:.4}: {drawn} samples against {real} pictures, in the {features} features `{space}`{but}"
    );
    for (what, count) in ["samples", "real pictures"].into_iter().zip(counts) {
        if count <= features {
            terminal::note(&format!(
                "so few {what} make the {name} look larger than it is; take more than {features}"
            ));
        }
    }
    Ok(Distance {
        value: distance,
        space,
        line,
    })
}

/// A row for each of a few samples: itself, then the real pictures that are nearest pixel by pixel.
fn draw_neighbours(drawn: &PictureSet, real: &PictureSet, path: &Path) -> Result<()> {
    let rows: Vec<Vec<f32>> = real.pictures.iter().map(Picture::to_chw).collect();
    let (features, rows) = (rows.first().map_or(1, Vec::len), rows.concat());
    let apart = drawn.pictures.len().div_ceil(SHOWN);
    let mut cells = vec![];
    for sample in drawn.pictures.iter().step_by(apart) {
        cells.push(sample.clone());
        let near = nearest(&rows, &sample.to_chw(), features, NEIGHBOURS);
        cells.extend(near.into_iter().map(|index| real.pictures[index].clone()));
    }
    let columns = 1 + NEIGHBOURS.min(real.pictures.len());
    let picture = grid::side_by_side(&cells, columns)?;
    let text = [(
        "Title",
        "a sample in each row, then the real pictures nearest to it".to_string(),
    )];
    Ok(grid::write_png(path, &picture, &text)?)
}
