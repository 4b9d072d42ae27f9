//! Estimators of depths against what transformers computes: every folder under `sd/depth` that holds an `io.safetensors`.

mod support;

use std::path::{Path, PathBuf};

use langevin::models::{DptForDepthEstimation, Model};
use support::{Outcome, Report, device, read_tensors, values, within};

const TOLERANCE: f64 = 1e-4;

/// The values in the repository: they are made by `scripts/depth_fixture.py`, and a folder of others need not have any.
fn folders() -> Vec<PathBuf> {
    let of = |root: &Path| {
        let entries = std::fs::read_dir(root.join("sd/depth")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut all = of(&support::reference());
    if all.is_empty() {
        all = of(&own);
    }
    all.retain(|folder| folder.join("io.safetensors").is_file());
    all.sort();
    all
}

fn compare(folder: &Path) -> Result<Outcome, String> {
    let device = device();
    let io = read_tensors(folder.join("io.safetensors"));
    let estimator = DptForDepthEstimation::load(folder, &device).map_err(|e| e.to_string())?;
    let depths = estimator
        .forward(io["pixel_values"].tensor(&device))
        .map_err(|e| e.to_string())?;
    let expected = &io["predicted_depth"];
    let [batch, one, height, width] = depths.dims();
    if one != 1 || expected.shape != [batch, height, width] {
        return Err(format!(
            "{:?} where {:?} is expected",
            depths.dims(),
            expected.shape
        ));
    }
    let difference = |depths| support::relative_difference(&values(depths), &expected.f32());
    within("the depths", difference(depths), TOLERANCE)?;
    // What is saved is the same estimator.
    let saved = tempfile::tempdir().map_err(|e| e.to_string())?;
    estimator.save(saved.path()).map_err(|e| e.to_string())?;
    let again = DptForDepthEstimation::load(saved.path(), &device).map_err(|e| e.to_string())?;
    let depths = again
        .forward(io["pixel_values"].tensor(&device))
        .map_err(|e| e.to_string())?;
    within("what was saved", difference(depths), TOLERANCE)?;
    Ok(Outcome::Ran)
}

#[test]
fn estimators_give_transformers_depths() {
    let mut report = Report::new();
    for folder in folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, compare(&folder));
    }
    report.finish();
}
