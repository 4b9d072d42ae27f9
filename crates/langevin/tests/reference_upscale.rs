//! Pictures of two passes, the second at a larger size, against two calls of diffusers: every case under `upscale`.

mod support;

use support::{Report, call::Case, own_or_given};

#[test]
fn second_passes_give_the_latents_and_pictures_of_diffusers_second_calls() {
    let mut report = Report::new();
    for folder in own_or_given("upscale") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, Case::in_folder(&folder).compare());
    }
    report.finish();
}
