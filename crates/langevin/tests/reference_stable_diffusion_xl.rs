//! Calls of the Stable Diffusion family's pipelines against what diffusers draws: every case found under `sdxl/cases`.

mod support;

use support::{Report, call::Case, folders};

#[test]
fn calls_give_diffusers_latents_and_pictures() {
    let mut report = Report::new();
    for folder in folders("sdxl/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if folder.join("call.json").is_file() {
            report.case(&name, Case::in_folder(&folder).compare());
        }
    }
    report.finish();
}
