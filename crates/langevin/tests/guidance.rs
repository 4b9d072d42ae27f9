//! Guidance, loops of one's own, and what begins with a picture: against diffusers' numbers (`guidance/make.py` made them with the
//! reference pipeline `ddim`), and what is refused.

mod support;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use langevin::{
    Result,
    device::default_device,
    grid,
    guidance::{
        ClassifierFree, ClipLoss, Colour, GuidanceLoss, GuidanceSchedule, GuideMaker, KnownRegion,
        LossGuidance, Through, cutout, gradient, great_circle, leaf,
    },
    models::{Model, UNet2DConfig, UNet2DModel, clip::ClipModel},
    objectives::PredictionType,
    pipelines::{Classes, Pipeline, SampleOptions, Sampling},
    random::Generator,
    schedulers::{AnyScheduler, DDIMConfig, DDIMScheduler, Scheduler},
};
use support::{largest_difference, values};

const TARGET: Colour = Colour {
    rgb: [0x1A, 0xE6, 0x80],
};

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/guidance")
        .join(name)
}

fn load(name: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/pipelines");
    Pipeline::load(folder.join(name), &default_device()).unwrap()
}

/// A tensor of `make.py`'s.
fn stored(name: &str) -> Tensor<4> {
    support::read_tensors(here("guidance.safetensors"))[name].tensor(&Device::default())
}

fn options(batch_size: usize, steps: usize) -> SampleOptions {
    SampleOptions {
        batch_size,
        num_inference_steps: Some(steps),
        ..SampleOptions::default()
    }
}

/// A loop of the pipeline's over two pictures, from `make.py`'s noise.
fn from_noise<'a>(pipeline: &'a Pipeline, steps: usize, generator: &'a mut Generator) -> Sampling<'a> {
    let sampling = pipeline.sample(&options(2, steps), generator).unwrap();
    sampling.starting_at(stored("noise"), 0).unwrap()
}

fn near(found: Tensor<4>, expected: &str, tolerance: f64) {
    let difference = largest_difference(&values(found), &values(stored(expected)));
    support::within(expected, difference, tolerance).unwrap();
}

/// A model of two classes and a null class.
fn conditional() -> Pipeline {
    let config = UNet2DConfig {
        sample_size: Some(langevin::models::unet2d::SampleSize::Square(8)),
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![8, 8],
        norm_num_groups: Some(4),
        num_class_embeds: Some(3),
        down_block_types: UNet2DConfig::default().down_block_types[..2].to_vec(),
        up_block_types: UNet2DConfig::default().up_block_types[2..].to_vec(),
        layers_per_block: 1,
        ..UNet2DConfig::default()
    };
    Pipeline::new(
        UNet2DModel::new(&config, &default_device(), &mut Generator::new(0))
            .unwrap()
            .into(),
        load("ddpm").scheduler,
        Some(Classes {
            names: vec!["cat".into(), "dog".into()],
            null_class: Some(2),
        }),
    )
    .unwrap()
}

#[test]
fn classes_guide_and_negative_classes_lead_away() {
    let pipeline = conditional();
    let draw = |scale: f64, negative: Option<i64>| {
        let options = SampleOptions {
            classes: Some(vec![0, 1]),
            guidance: ClassifierFree::of_scale(scale),
            negative_classes: negative.map(|class| vec![class; 2]),
            ..options(2, 3)
        };
        values(
            pipeline
                .sample(&options, &mut Generator::new(0))
                .unwrap()
                .finish()
                .unwrap(),
        )
    };
    let plain = draw(1.0, None);
    assert_ne!(draw(3.0, None), plain);
    assert_ne!(draw(3.0, Some(1)), draw(3.0, None));
    // The null class is what is led away from where nothing is said.
    assert_eq!(draw(3.0, Some(2)), draw(3.0, None));
    // Away from itself is nowhere, and at scale 0 only the negative is drawn.
    let half = plain.len() / 2;
    assert_eq!(draw(3.0, Some(0))[..half], plain[..half]);
    assert_eq!(draw(0.0, Some(0))[..half], plain[..half]);
}

#[test]
fn guidance_that_cannot_be_is_refused() {
    let refused = |pipeline: &Pipeline, options: SampleOptions| {
        let mut generator = Generator::new(0);
        let refused = pipeline.sample(&options, &mut generator).err();
        refused.expect("the options do not fit").to_string()
    };
    let guided = SampleOptions {
        classes: Some(vec![0]),
        guidance: ClassifierFree::of_scale(3.0),
        ..options(1, 2)
    };
    let without_null = Pipeline::new(conditional().model, conditional().scheduler, None).unwrap();
    assert!(refused(&without_null, guided.clone()).contains("no null class"));
    let negative = |negative: Vec<i64>| SampleOptions {
        negative_classes: Some(negative),
        ..guided.clone()
    };
    assert!(refused(&conditional(), negative(vec![3])).contains("there is no class 3"));
    assert!(refused(&conditional(), negative(vec![0, 0])).contains("one per picture"));
    let off = SampleOptions {
        guidance: ClassifierFree::default(),
        ..negative(vec![0])
    };
    assert!(refused(&conditional(), off).contains("guidance scale of 1"));
    let unconditional = load("ddpm");
    let unguided = SampleOptions {
        classes: None,
        ..guided
    };
    assert!(refused(&unconditional, unguided).contains("unconditional"));
}

#[test]
fn a_loop_by_hand_draws_what_the_pipeline_draws() {
    for name in ["ddim", "ddpm", "dpm++2m", "heun", "euler-a"] {
        let pipeline = load("ddim").with_scheduler(name).unwrap();
        let (mut one, mut other) = (Generator::new(4), Generator::new(4));
        let drawn = pipeline
            .sample(&options(1, 4), &mut one)
            .unwrap()
            .finish()
            .unwrap();
        let mut sampling = pipeline.sample(&options(1, 4), &mut other).unwrap();
        // A step that is opened and let go changes nothing.
        let mut step = sampling.open().unwrap();
        let prediction = step.predict(step.sample.clone()).unwrap();
        step.predicted_clean(&prediction, &step.sample).unwrap();
        while let Some(mut step) = sampling.open() {
            let prediction = step.predict(step.sample.clone()).unwrap();
            let clean = step.predicted_clean(&prediction, &step.sample).unwrap();
            step.take(prediction).unwrap();
            let told = sampling.latest().unwrap().predicted_clean.clone();
            assert_eq!(values(clean), values(told), "{name}");
        }
        assert_eq!(values(sampling.finish().unwrap()), values(drawn), "{name}");
    }
}

#[test]
fn a_step_knows_how_much_signal_is_left() {
    for (name, tolerance) in [("ddim", 1e-6), ("euler", 1e-5), ("dpm++2m", 1e-5)] {
        let pipeline = load("ddim").with_scheduler(name).unwrap();
        let mut generator = Generator::new(0);
        let mut sampling = pipeline.sample(&options(1, 5), &mut generator).unwrap();
        let step = sampling.open().unwrap();
        let table = load("ddim").scheduler.alphas_cumprod().to_vec();
        let expected = f64::from(table[step.timestep as usize]);
        assert!(
            (step.alpha_cumprod().unwrap() - expected).abs() < tolerance,
            "{name}"
        );
    }
}

/// The course's two variants by hand, with every step's loss.
fn by_hand(through: Through) -> (Tensor<4>, Vec<Vec<f32>>) {
    let pipeline = load("ddim");
    let mut generator = Generator::new(0);
    let sampling = from_noise(&pipeline, 6, &mut generator);
    let (mut sampling, mut losses) = (sampling.with_step_options(None, true), Vec::new());
    while let Some(mut step) = sampling.open() {
        let x = leaf(&step.sample);
        let prediction = match through {
            Through::Clean => step.predict(step.sample.clone()).unwrap(),
            Through::Model => step.predict(x.clone()).unwrap(),
        };
        let clean = step.predicted_clean(&prediction, &x).unwrap();
        let loss = TARGET.loss(clean, &mut Generator::new(0)).unwrap();
        losses.push(values(loss.clone()));
        step.sample = step.sample - gradient(&loss.sum(), &x).unwrap() * 40.0;
        step.take(prediction).unwrap();
    }
    (sampling.finish().unwrap(), losses)
}

#[test]
fn the_courses_loops_give_its_numbers() {
    for (through, name) in [(Through::Clean, "clean"), (Through::Model, "model")] {
        let (drawn, losses) = by_hand(through);
        near(drawn, &format!("guided.{name}"), 1e-3);
        let expected = &support::read_tensors(here("guidance.safetensors"))[&format!("losses.{name}")];
        assert!(
            largest_difference(&losses.concat(), &expected.f32()) < 1e-3,
            "{losses:?}"
        );
    }
}

#[test]
fn guidance_by_a_loss_is_the_courses_loop() {
    for (through, name) in [(Through::Clean, "clean"), (Through::Model, "model")] {
        let pipeline = load("ddim");
        let mut generator = Generator::new(0);
        let sampling = from_noise(&pipeline, 6, &mut generator);
        let guidance = LossGuidance::new(through).with(TARGET, 40.0);
        near(
            sampling.guided_by(guidance).finish().unwrap(),
            &format!("guided.{name}"),
            1e-3,
        );
    }
}

/// One step of guidance at a sample of ones whose clean picture is itself.
fn shift(guidance: LossGuidance) -> Result<Vec<f32>> {
    let mut guidance = guidance;
    let x = leaf(&Tensor::ones([2, 1, 1, 2], &Device::default()));
    guidance.shift(&x, x.clone(), 500.0, || Ok(0.25)).map(values)
}

/// Half the sum of squares, whose gradient is the picture.
fn half_squares(clean: Tensor<4>) -> Tensor<1> {
    clean.square().sum_dims(&[1, 2, 3]).flatten(0, 3) * 0.5
}

fn guidance() -> LossGuidance {
    LossGuidance::new(Through::Clean)
}

#[test]
fn losses_add_up_with_scales_that_follow_the_noise() {
    assert_eq!(shift(guidance().with(half_squares, 2.0)).unwrap(), [-2.0; 4]);
    let sum = |clean: Tensor<4>| clean.sum_dims(&[1, 2, 3]).flatten(0, 3);
    assert_eq!(
        shift(guidance().with(half_squares, 2.0).with(sum, -3.0)).unwrap(),
        [1.0; 4]
    );
    assert_eq!(shift(guidance()).unwrap(), [0.0; 4]);
    for (schedule, factor) in [
        (GuidanceSchedule::Constant, 1.0),
        (GuidanceSchedule::Signal, 0.25),
        (GuidanceSchedule::RootSignal, 0.5),
        (GuidanceSchedule::RootNoise, 0.75_f32.sqrt()),
    ] {
        let found = shift(guidance().with(half_squares, 1.0).with_schedule(schedule)).unwrap();
        assert!((found[0] + factor).abs() < 1e-6, "{schedule}: {found:?}");
    }
}

#[test]
fn a_bound_shortens_what_is_longer() {
    let bounded = |norm| shift(guidance().with(half_squares, 3.0).with_max_norm(norm)).unwrap();
    assert!(bounded(1.0).iter().all(|x| (x + 0.5_f32.sqrt()).abs() < 1e-6));
    assert_eq!(bounded(10.0), [-3.0; 4]);
    assert_eq!(
        shift(guidance().with(half_squares, 0.0).with_max_norm(1.0)).unwrap(),
        [0.0; 4]
    );
}

#[test]
fn losses_that_lead_nowhere_are_told_so() {
    let refused =
        |loss: fn(Tensor<4>) -> Tensor<1>| shift(guidance().with(loss, 1.0)).unwrap_err().to_string();
    let message = refused(|clean| half_squares(clean) * f32::NAN);
    assert!(
        message.contains("not a finite number at timestep 500"),
        "{message}"
    );
    // Finite, but not its gradient.
    let message = refused(|clean| half_squares(clean - 1.0).sqrt());
    assert!(message.contains("gradient"), "{message}");
    let message = refused(|clean| clean.mean());
    assert!(message.contains("one number per picture"), "{message}");
    let message = refused(|clean| Tensor::zeros([clean.dims()[0]], &clean.device()));
    assert!(message.contains("does not change"), "{message}");
}

/// The reference pipeline `ddim` as if its model predicted velocities: untrained as it is, its predicted noise would put every
/// predicted picture far out of range, where clipping leaves no slope.
fn of_velocities() -> Pipeline {
    let mut pipeline = load("ddim");
    let AnyScheduler::DDIM(scheduler) = &pipeline.scheduler else {
        panic!("a DDIM pipeline")
    };
    let config = DDIMConfig {
        prediction_type: PredictionType::VPrediction,
        ..scheduler.config().clone()
    };
    pipeline.scheduler = DDIMScheduler::new(config).unwrap().into();
    pipeline
}

#[test]
fn a_colour_draws_samples_to_it() {
    for through in [Through::Clean, Through::Model] {
        let pipeline = of_velocities();
        let distance = |guidance: Option<LossGuidance>| {
            let mut generator = Generator::new(2);
            let sampling = pipeline.sample(&options(4, 10), &mut generator).unwrap();
            let drawn = match guidance {
                Some(guidance) => sampling.guided_by(guidance),
                None => sampling,
            };
            let loss = TARGET
                .loss(drawn.finish().unwrap(), &mut Generator::new(0))
                .unwrap();
            loss.mean().into_scalar::<f32>()
        };
        let guided = distance(Some(
            LossGuidance::new(through)
                .with(TARGET, 100.0)
                .with_schedule(GuidanceSchedule::Signal),
        ));
        let plain = distance(None);
        assert!(guided < 0.8 * plain, "{through:?}: {guided} beside {plain}");
    }
}

#[test]
fn inversion_gives_diffusers_latents_and_pictures_back() {
    let pipeline = load("ddim");
    let walk = |pipeline: Pipeline, sample: Tensor<4>| {
        let mut unused = Generator::new(0);
        let sampling = pipeline.sample(&options(2, 8), &mut unused).unwrap();
        sampling.starting_at(sample, 0).unwrap().finish().unwrap()
    };
    let latent = walk(pipeline.clone().inverse().unwrap(), stored("picture"));
    near(latent, "latent", 1e-4);
    // From diffusers' latents: the way back, which ends at values of forty, makes a difference at its beginning seventy times as large.
    let again = walk(pipeline.unbounded_ddim().unwrap(), stored("latent"));
    near(again, "again", 1e-3);
}

#[test]
fn a_picture_under_noise_is_where_diffusers_begins() {
    let pipeline = load("ddim");
    let mut generator = Generator::new(0);
    let sampling = from_noise(&pipeline, 8, &mut generator);
    let drawn = sampling.starting_from(&stored("picture"), 0.5).unwrap();
    assert_eq!(drawn.total(), 4);
    near(drawn.finish().unwrap(), "from_picture", 1e-3);
}

#[test]
fn strengths_leave_the_steps_that_they_leave_in_diffusers() {
    for case in support::read_json(here("strengths.json")).as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let pipeline = load("ddim")
            .with_scheduler(case["scheduler"].as_str().unwrap())
            .unwrap();
        let mut generator = Generator::new(0);
        let sampling = pipeline
            .sample(&options(1, number("steps") as usize), &mut generator)
            .unwrap();
        let picture = Tensor::zeros([1, 3, 16, 16], &Device::default());
        let mut sampling = sampling.starting_from(&picture, number("strength")).unwrap();
        let expected: Vec<f64> = case["timesteps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_f64().unwrap())
            .collect();
        assert_eq!(
            (sampling.total(), sampling.open().unwrap().timestep),
            (expected.len(), expected[0]),
            "{case}"
        );
    }
}

#[test]
fn beginnings_that_cannot_be_are_refused() {
    let pipeline = load("ddim");
    let begin = |begin: &dyn Fn(Sampling<'_>) -> Result<()>| {
        let mut generator = Generator::new(0);
        let sampling = pipeline.sample(&options(2, 4), &mut generator).unwrap();
        begin(sampling).unwrap_err().to_string()
    };
    let pictures = |side| Tensor::zeros([2, 3, side, side], &Device::default());
    for strength in [0.0, 1.5, f64::NAN] {
        let message = begin(&|s| s.starting_from(&pictures(16), strength).map(drop));
        assert!(message.contains("above 0 and at most 1"), "{message}");
    }
    assert!(begin(&|s| s.starting_from(&pictures(16), 0.2).map(drop)).contains("leaves none of 4 steps"));
    assert!(begin(&|s| s.starting_from(&pictures(8), 0.5).map(drop)).contains("shape"));
    assert!(begin(&|s| s.starting_at(pictures(16), 4).map(drop)).contains("4 steps"));
    assert!(begin(&|s| s.starting_at(pictures(8), 0).map(drop)).contains("shape"));
}

#[test]
fn cut_outs_are_torchvisions() {
    let tensors = support::read_tensors(here("guidance.safetensors"));
    for name in ["wide", "small", "large"] {
        let picture = tensors[&format!("cut.{name}")].tensor(&Device::default());
        for seed in 0..4 {
            let found = values(cutout(picture.clone(), 24, &mut Generator::new(seed)));
            let expected = &tensors[&format!("cut.{name}.{seed}")];
            let off = largest_difference(&found, &expected.f32());
            assert!(off < 1e-4, "{name} {seed}: {off}");
        }
    }
}

#[test]
fn the_great_circle_is_the_courses() {
    let tensors = support::read_tensors(here("guidance.safetensors"));
    let [a, b] = ["circle.a", "circle.b"].map(|name| tensors[name].tensor(&Device::default()));
    let off = largest_difference(&values(great_circle(a.clone(), b)), &tensors["circle"].f32());
    assert!(off < 1e-5, "{off}");
    // At the same direction there is a slope, if a flat one.
    let x = leaf(&a.clone().reshape([3, 8, 1, 1]));
    let loss = great_circle(x.clone().reshape([3, 8]), a).sum();
    assert!(
        values(gradient(&loss, &x).unwrap())
            .iter()
            .all(|slope| slope.is_finite())
    );
}

#[test]
fn clip_guides_towards_what_it_sees() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/conditional/clip");
    let clip = ClipModel::load(folder, &default_device()).unwrap();
    let target = stored("picture").narrow(0, 0, 1);
    let pipeline = load("ddim");
    // Without cuts, so that the loss is the same each time it is asked for.
    let distance = |pictures: Tensor<4>| {
        let loss = ClipLoss::picture(clip.clone(), target.clone())
            .unwrap()
            .with_cuts(0);
        loss.loss(pictures, &mut Generator::new(0))
            .unwrap()
            .mean()
            .into_scalar::<f32>()
    };
    let drawn = |scale: f64, cuts: usize| {
        let mut generator = Generator::new(0);
        let sampling = from_noise(&pipeline, 40, &mut generator);
        let loss = ClipLoss::picture(clip.clone(), target.clone())
            .unwrap()
            .with_cuts(cuts);
        let guidance = LossGuidance::new(Through::Clean).with(loss, scale);
        let guidance = guidance.with_schedule(GuidanceSchedule::Signal);
        distance(sampling.guided_by(guidance).finish().unwrap())
    };
    // The table of docs/guidance.md.
    let plain = drawn(0.0, 0);
    println!("without guidance: {plain:.4}");
    for scale in [2.0, 10.0, 50.0, 250.0] {
        for cuts in [0, 4] {
            let guided = drawn(scale, cuts);
            println!("scale {scale}, {cuts} cut-outs: {guided:.4}");
            // Cut-outs see parts only, and what these weights make of a part is chance.
            assert!(guided < plain || cuts > 0, "scale {scale}: {guided}");
        }
    }
}

/// 1 in the left half of pictures of 16x16.
fn left() -> Tensor<4> {
    Tensor::ones([1, 1, 16, 16], &Device::default()).slice_fill([0..1, 0..1, 0..16, 8..16], 0.0)
}

#[test]
fn inpainting_keeps_what_is_known() {
    for name in ["ddim", "ddpm"] {
        let pipeline = load(name);
        let picture = stored("picture").narrow(0, 0, 1);
        let mut generator = Generator::new(0);
        let sampling = pipeline
            .inpaint(picture.clone(), left(), &options(2, 12), &mut generator)
            .unwrap();
        // Steps 0 and 1 are walked ten times for their jumps of ten.
        assert!(sampling.total() > 12);
        let drawn = sampling.finish().unwrap();
        for i in 0..2 {
            let known = |x: Tensor<4>| values(x.narrow(3, 0, 8));
            let off = largest_difference(&known(drawn.clone().narrow(0, i, 1)), &known(picture.clone()));
            assert!(off < 1e-6, "{off}");
        }
    }
}

#[test]
fn masks_and_pictures_of_another_size_are_refused() {
    let pipeline = load("ddim");
    let picture = stored("picture").narrow(0, 0, 1);
    let small = |channels| Tensor::zeros([1, channels, 8, 8], &Device::default());
    let inpaint = |picture: Tensor<4>, mask: Tensor<4>| {
        let mut generator = Generator::new(0);
        let sampling = pipeline
            .inpaint(picture, mask, &options(2, 4), &mut generator)
            .unwrap();
        sampling.finish().unwrap_err().to_string()
    };
    assert!(inpaint(picture.clone(), small(1)).contains("the mask has the shape [1, 1, 8, 8]"));
    assert!(inpaint(small(3), left()).contains("picture"));
    let guide = |picture: Tensor<4>, mask: Tensor<4>| {
        let loss = KnownRegion { picture, mask }.loss(stored("noise"), &mut Generator::new(0));
        loss.unwrap_err().to_string()
    };
    assert!(guide(picture.clone(), small(1)).contains("the mask has the shape [1, 1, 8, 8]"));
    assert!(guide(small(3), left()).contains("picture"));
    let grey = TARGET
        .loss(small(1), &mut Generator::new(0))
        .unwrap_err()
        .to_string();
    assert!(grey.contains("3 channels"), "{grey}");
}

#[test]
fn guides_are_made_of_files_that_fit_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, side: usize, value: u8| {
        let channels = langevin::data::Channels::Grey;
        let picture = langevin::data::Picture::new(side, side, channels, vec![value; side * side]).unwrap();
        let path = folder.path().join(name);
        grid::write_png(&path, &picture, &[]).unwrap();
        path
    };
    let (picture, mask, other) = (
        write("a.png", 32, 51),
        write("m.png", 32, 0),
        write("o.png", 16, 0),
    );
    let maker = |mask: Option<PathBuf>| GuideMaker {
        channels: 3,
        size: [16, 16].into(),
        device: default_device(),
        mask: mask.map(langevin::data::ImageInput::File),
        clip: None,
        cuts: 0,
    };
    let known = format!("known:{}", picture.display()).parse().unwrap();
    let loss = maker(Some(mask)).make(&known).unwrap();
    // All of it is known to be at 51 of 255, or -0.6, and the pictures are at 0.
    let zeros = Tensor::zeros([2, 3, 16, 16], &Device::default());
    let found = values(loss.loss(zeros, &mut Generator::new(0)).unwrap());
    assert!(found.iter().all(|loss| (loss - 0.36).abs() < 1e-5), "{found:?}");

    let refused = |mask: Option<PathBuf>| maker(mask).make(&known).err().unwrap().to_string();
    assert!(refused(None).contains("a mask must say"));
    assert!(refused(Some(other)).contains("must be of one size"));
    let colour = "colour:#1AE680".parse().unwrap();
    let grey = GuideMaker {
        channels: 1,
        ..maker(None)
    };
    assert!(
        grey.make(&colour)
            .err()
            .unwrap()
            .to_string()
            .contains("shades of grey")
    );
}
