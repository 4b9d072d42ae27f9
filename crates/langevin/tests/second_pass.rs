//! Second passes at a larger size beyond the calls that are compared.

mod support;

use langevin::{
    Request,
    data::{Channels, Picture},
    generate::{Plan, Watch},
    options::UpscaleBy,
    pipelines::{Pipeline, Sampling, Step},
    settings::{ModelName, Settings},
};
use support::{device, own_reference};

fn pipeline() -> Pipeline {
    Pipeline::load(own_reference().join("sd/models/sd1"), &device()).unwrap()
}

fn asked(factor: f64) -> Request {
    Request {
        prompt: vec!["a boat".into()],
        steps: Some(3),
        size: Some("24x32".parse().unwrap()),
        scheduler: Some("ddim".into()),
        upscale: Some(factor),
        ..Request::default()
    }
}

fn refused(request: &Request, parts: &[&str]) {
    let error = pipeline().generate(request).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// Counts what it sees.
#[derive(Default)]
struct Seen {
    sizes: Vec<[usize; 2]>,
    last: (usize, usize),
}

impl Watch for Seen {
    fn begin(&mut self, sampling: &Sampling<'_>) -> langevin::Result<()> {
        let [_, _, height, width] = sampling.sample().dims();
        self.sizes.push([height, width]);
        Ok(())
    }

    fn step(&mut self, _: &Step<'_>, done: usize, total: usize) -> langevin::Result<bool> {
        self.last = (done, total);
        Ok(true)
    }
}

#[test]
fn pictures_are_drawn_on_at_a_larger_size_in_so_many_steps() {
    let pipeline = pipeline();
    let request = Request {
        upscale_steps: Some(4),
        upscale_strength: Some(0.7),
        count: Some(2),
        ..asked(1.5)
    };
    let plan = Plan::of(&pipeline, &request).unwrap();
    let mut seen = Seen::default();
    let pictures = plan.run(&pipeline, &mut seen).unwrap().unwrap();
    let sizes: Vec<[usize; 2]> = pictures.iter().map(|p| [p.height(), p.width()]).collect();
    assert_eq!(sizes, [[48, 36]; 2]);
    assert_eq!(seen.sizes, [[16, 12], [24, 18]]);
    assert_eq!(seen.last, (7, 7));
    // A factor that leaves a part of a pixel is rounded down to what the autoencoder divides.
    let odd = pipeline.generate(&asked(1.3)).unwrap();
    assert_eq!([odd[0].height(), odd[0].width()], [40, 30]);
}

#[test]
fn each_way_to_a_size_draws_another_picture_and_repeats() {
    let pipeline = pipeline();
    let mut drawn: Vec<Picture> = Vec::new();
    for by in [
        UpscaleBy::Lanczos,
        UpscaleBy::Latent,
        UpscaleBy::LatentBicubic,
        UpscaleBy::LatentNearest,
    ] {
        let request = Request {
            upscale_by: by,
            ..asked(2.0)
        };
        let picture = pipeline.generate(&request).unwrap().remove(0);
        assert_eq!(picture, pipeline.generate(&request).unwrap().remove(0), "{by}");
        assert!(!drawn.contains(&picture), "{by}");
        assert_eq!(picture.channels(), Channels::Rgb);
        drawn.push(picture);
    }
}

#[test]
fn pictures_with_seeds_of_their_own_come_out_alone_as_they_do_together() {
    let pipeline = pipeline();
    let request = |seeds: &[u64]| Request {
        seeds: seeds.to_vec(),
        upscale_by: UpscaleBy::Latent,
        scheduler: Some("euler-a".into()),
        ..asked(2.0)
    };
    let both = pipeline.generate(&request(&[3, 8])).unwrap();
    for (seed, picture) in [3, 8].into_iter().zip(both) {
        assert_eq!(pipeline.generate(&request(&[seed])).unwrap(), [picture]);
    }
}

#[test]
fn a_picture_says_how_it_was_drawn_on_and_is_drawn_so_again() {
    let pipeline = pipeline();
    let request = Request {
        upscale_strength: Some(0.6),
        upscale_steps: Some(2),
        upscale_by: UpscaleBy::Latent,
        upscale_scheduler: Some("euler-a".into()),
        seeds: vec![5],
        ..asked(2.0)
    };
    let plan = Plan::of(&pipeline, &request).unwrap();
    let texts = plan.settings(&ModelName::of("sd1"), Some(0));
    let text = |keyword: &str| &texts.iter().find(|(known, _)| *known == keyword).unwrap().1;
    let parameters = text("parameters");
    for pair in [
        "Size: 24x32",
        "Denoising strength: 0.6",
        "Hires upscale: 2",
        "Hires steps: 2",
        "Hires upscaler: Latent",
        "Hires sampler: Euler a",
    ] {
        assert!(parameters.contains(pair), "`{pair}` is not in: {parameters}");
    }
    // Both what this program writes and what others read say the same.
    for keywords in [&["parameters", "langevin"][..], &["parameters"]] {
        let kept: Vec<(String, String)> = texts
            .iter()
            .filter(|(keyword, _)| keywords.contains(keyword))
            .map(|(keyword, text)| ((*keyword).to_string(), text.clone()))
            .collect();
        let read = Settings::of_texts(&kept).unwrap().unwrap();
        let again = read.request.unwrap();
        assert_eq!(
            (
                again.upscale,
                again.upscale_strength,
                again.upscale_steps,
                again.upscale_by
            ),
            (Some(2.0), Some(0.6), Some(2), UpscaleBy::Latent)
        );
        assert_eq!(again.upscale_scheduler.as_deref(), Some("euler-a"));
        let mut again = again;
        (again.scheduler, again.prompt_syntax) = (Some("ddim".into()), request.prompt_syntax);
        assert_eq!(
            pipeline.generate(&again).unwrap(),
            pipeline.generate(&request).unwrap()
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (change, parts) in [
        (
            (|r| r.upscale = Some(1.0)) as fn(&mut Request),
            &["`upscale` is 1: it must be above 1"][..],
        ),
        (|r| r.upscale = Some(f64::NAN), &["`upscale` is NaN"]),
        (|r| r.upscale_strength = Some(0.0), &["`upscale_strength` is 0"]),
        (|r| r.upscale_steps = Some(0), &["`upscale_steps` is 0"]),
        (
            |r| (r.upscale, r.upscale_steps) = (None, Some(3)),
            &["`upscale_steps` does nothing without `upscale`"],
        ),
        (
            |r| (r.upscale, r.upscale_by) = (None, UpscaleBy::Latent),
            &["`upscale_by` does nothing without `upscale`"],
        ),
        (|r| r.upscale_scheduler = Some("no-such".into()), &["no-such"]),
        (
            |r| r.denoising_end = Some(0.8),
            &["`upscale` draws all of the noise away"],
        ),
    ] {
        let mut request = asked(2.0);
        change(&mut request);
        refused(&request, parts);
    }
    let pixels = Pipeline::load(own_reference().join("pipelines/ddim"), &device()).unwrap();
    let request = Request {
        prompt: vec![],
        size: None,
        ..asked(2.0)
    };
    let error = pixels.generate(&request).unwrap_err().to_string();
    assert!(error.contains("draws latents on at a larger size"), "{error}");
}
