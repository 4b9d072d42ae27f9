//! Whole pipelines against the pictures that diffusers made: every case in the reference folder's `pipelines`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use langevin::{
    device::default_device,
    pipelines::{AnyPipeline, SampleOptions},
    random::Generator,
};

/// A pixel may differ by one step of an 8-bit picture.
const TOLERANCE: f32 = 1.0 / 255.0;

/// The arguments of diffusers' call; a file with others is not understood, and fails.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    batch_size: usize,
    seed: u64,
    num_inference_steps: usize,
    #[serde(default)]
    eta: f64,
    #[serde(default)]
    use_clipped_model_output: Option<bool>,
}

fn reference() -> PathBuf {
    std::env::var_os("LANGEVIN_REFERENCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference"), PathBuf::from)
        .join("pipelines")
}

/// Every folder of the reference that holds a call.
fn cases() -> Vec<PathBuf> {
    let folder = reference();
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()));
    let mut cases: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("call.json").is_file()).collect();
    cases.sort();
    cases
}

/// The largest difference at any pixel between our pictures and diffusers'.
fn largest_difference(case: &Path) -> Result<f32, String> {
    let call: Call = serde_json::from_str(&fs::read_to_string(case.join("call.json")).map_err(|e| e.to_string())?)
        .map_err(|e| e.to_string())?;
    let pipeline = AnyPipeline::load(case, &default_device()).map_err(|e| e.to_string())?;
    let options = SampleOptions {
        batch_size: call.batch_size,
        num_inference_steps: Some(call.num_inference_steps),
        eta: call.eta,
        use_clipped_model_output: call.use_clipped_model_output.unwrap_or(false),
        classes: None,
    };
    let pictures = pipeline.call(&options, &mut Generator::new(call.seed)).map_err(|e| e.to_string())?;
    let bytes = fs::read(case.join("images.safetensors")).map_err(|e| e.to_string())?;
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let expected = file.tensor("images").map_err(|e| e.to_string())?;
    if expected.shape() != pictures.dims() {
        return Err(format!("shape {:?}, and diffusers' has {:?}", pictures.dims(), expected.shape()));
    }
    let expected: Vec<f32> = bytemuck::pod_collect_to_vec(expected.data());
    let pictures = pictures.into_data().to_vec::<f32>().map_err(|e| format!("{e:?}"))?;
    let differences = pictures.iter().zip(&expected).map(|(ours, theirs)| (ours - theirs).abs());
    // A NaN is no number's neighbour.
    Ok(differences.fold(0.0, |largest, d| if d.is_nan() { f32::INFINITY } else { largest.max(d) }))
}

#[test]
fn the_same_seed_gives_diffusers_pictures() {
    let cases = cases();
    let mut failed = 0;
    for case in &cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        match largest_difference(case) {
            Ok(difference) if difference <= TOLERANCE => println!("{name}: within {difference:.1e}"),
            Ok(difference) => {
                failed += 1;
                println!("{name}: FAILED, off by {difference:.1e}");
            }
            Err(message) => {
                failed += 1;
                println!("{name}: FAILED, {message}");
            }
        }
    }
    println!("ran {}, not supported 0, failed {failed}", cases.len());
    assert!(!cases.is_empty(), "{} holds no case", reference().display());
    assert_eq!(failed, 0);
}
