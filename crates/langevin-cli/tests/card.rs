//! The model card in a run's folder.

mod support;

use std::fs;

use serde_json::json;
use support::{line, python, small_model};

#[test]
fn a_model_card_says_how_to_draw() {
    let folder = tempfile::tempdir().unwrap();
    for (run, conditioning) in [("plain", "none"), ("classes", "class")] {
        let model = small_model(folder.path(), 1, conditioning == "class");
        let args = format!(
            "train --dataset-name digits --model {model} --channels grey --conditioning {conditioning} --output-dir {run} \
             --train-batch-size 4 --eval-batch-size 10 --ddpm-num-inference-steps 2 --max-train-steps 1"
        );
        line(folder.path(), &args).ok();
        let card = fs::read_to_string(folder.path().join(run).join("README.md")).unwrap();
        assert!(card.contains(&format!("\nlangevin {args}\n")), "{card}");
        // Its own line for the command line works from where it says.
        let sample = card
            .lines()
            .find_map(|line| line.strip_prefix("langevin sample"))
            .unwrap();
        line(&folder.path().join(run), &format!("sample {sample}")).ok();
        assert!(folder.path().join(run).join("pictures.png").exists());
        if let Some(ran) = python("run_card.py", &folder.path().join(run)) {
            assert_eq!(ran, json!({"library_name": "diffusers", "picture": true}));
        }
        // A card that somebody made their own stays.
        fs::write(folder.path().join(run).join("README.md"), "mine").unwrap();
        line(folder.path(), &format!("{args} --overwrite-output-dir")).ok();
        assert_eq!(
            fs::read_to_string(folder.path().join(run).join("README.md")).unwrap(),
            "mine"
        );
    }
}
