//! Models that were distilled to draw in a few steps: which they are, and what they want.
//!
//! Weights do not say it, and single files hold no scheduler, so it is the name that tells, as it is published: of a model, or of a LoRA that
//! makes one of another model, or what a LoRA's file says of itself.

use std::path::Path;

use serde_json::json;

use crate::{Lora, Result, schedulers::AnyScheduler, weights::lora};

/// What a kind of such models wants.
#[derive(Debug)]
struct Kind {
    /// What its files are called by.
    mark: &'static str,
    /// What people call it.
    name: &'static str,
    sampler: &'static str,
    /// Whether its steps end at the schedule's last timestep (`timestep_spacing` trailing).
    is_trailing: bool,
    /// How many steps where the name does not say.
    steps: usize,
    /// The most that still make sense.
    most_steps: usize,
    /// The largest guidance scale; up to 1 guides nothing.
    most_guidance: f64,
}

/// Latent consistency (Luo et al. 2023), Turbo (Sauer et al. 2023), Lightning (Lin et al. 2024), Hyper (Ren et al. 2024), trajectory
/// consistency (Zheng et al. 2024), distribution matching (Yin et al. 2024); settings from their cards.
const KINDS: [Kind; 6] = [
    Kind {
        mark: "turbo",
        name: "Turbo",
        sampler: "euler-a",
        is_trailing: true,
        steps: 1,
        most_steps: 4,
        most_guidance: 1.0,
    },
    Kind {
        mark: "lightning",
        name: "Lightning",
        sampler: "euler",
        is_trailing: true,
        steps: 4,
        most_steps: 8,
        most_guidance: 1.0,
    },
    Kind {
        mark: "hyper",
        name: "Hyper-SD",
        sampler: "ddim",
        is_trailing: true,
        steps: 4,
        most_steps: 8,
        most_guidance: 1.0,
    },
    Kind {
        mark: "lcm",
        name: "LCM",
        sampler: "lcm",
        is_trailing: false,
        steps: 4,
        most_steps: 8,
        most_guidance: 2.0,
    },
    Kind {
        mark: "tcd",
        name: "TCD",
        sampler: "tcd",
        is_trailing: false,
        steps: 4,
        most_steps: 8,
        most_guidance: 1.0,
    },
    Kind {
        mark: "dmd2",
        name: "DMD2",
        sampler: "lcm",
        is_trailing: false,
        steps: 4,
        most_steps: 8,
        most_guidance: 1.0,
    },
];

/// How many folders above a file of a usual name may say what it is: in the Hub's cache three.
const FOLDERS: usize = 4;

/// A model that draws in a few steps, by what its name says.
#[derive(Clone, Copy, Debug)]
pub struct FewSteps {
    kind: &'static Kind,
    steps: usize,
}

impl FewSteps {
    /// Reads the name of a file or folder: `sdxl_lightning_4step.safetensors`, `sd-turbo`, `Hyper-SD15-8steps`.
    pub fn of_name(path: &Path) -> Option<Self> {
        Self::of_words(&path.file_name()?.to_string_lossy())
    }

    /// What a LoRA makes of the model that it is put on: by what its file says of itself, its name, or, where that is one that many have,
    /// the folders that it lies in, as `models--latent-consistency--lcm-lora-sdv1-5`.
    pub fn of_lora(lora: &Lora) -> Option<Self> {
        let counts = lora.scale.numbers().any(|scale| scale != 0.0);
        counts.then(|| Self::of_lora_at(&lora.path)).flatten()
    }

    /// The same of the LoRA in a file or a folder, however strong it is. Its file's header is read.
    pub(super) fn of_lora_at(path: &Path) -> Option<Self> {
        let file = lora::file_of(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some(found) = Self::of_name(&file) {
            return Some(found);
        }
        let titles = lora::titles(&file);
        if let Some(found) = titles.iter().find_map(|title| Self::of_words(title)) {
            return Some(found);
        }
        if !lora::has_usual_name(&file) && !path.is_dir() {
            return None;
        }
        let folders = file.ancestors().skip(1).take(FOLDERS);
        folders
            .filter_map(Path::file_name)
            .find_map(|name| Self::of_words(&name.to_string_lossy()))
    }

    fn of_words(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let is_marked = |kind: &&Kind| {
            words.iter().any(|word| {
                let rest = word.strip_suffix(kind.mark).or(word.strip_prefix(kind.mark));
                rest.is_some_and(|rest| ["", "xl", "sdxl", "sd", "sd15"].contains(&rest))
            })
        };
        let kind = KINDS.iter().find(is_marked)?;
        let said = words.iter().enumerate().find_map(|(place, word)| {
            let digits = word.trim_end_matches("steps").trim_end_matches("step");
            let follows = words
                .get(place + 1)
                .is_some_and(|next| ["step", "steps"].contains(next));
            let number: usize = digits.parse().ok()?;
            (digits.len() < word.len() || follows).then_some(number)
        });
        let steps = said.filter(|steps| (1..=16).contains(steps));
        Some(Self {
            kind,
            steps: steps.unwrap_or(kind.steps),
        })
    }

    /// What people call models of its kind.
    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    /// How many steps it is drawn in.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Its sampler on the noise schedule of another.
    ///
    /// # Errors
    /// If the sampler does not fit.
    pub(crate) fn sampler(&self, scheduler: &AnyScheduler) -> Result<AnyScheduler> {
        let scheduler = scheduler.for_model(self.kind.sampler)?;
        match self.kind.is_trailing {
            true => scheduler.insisting(&[("timestep_spacing", json!("trailing"))]),
            false => Ok(scheduler),
        }
    }

    /// What it wants, in a line.
    pub fn wants(&self) -> String {
        let spacing = if self.kind.is_trailing {
            ", trailing spacing"
        } else {
            ""
        };
        let guidance = if self.kind.most_guidance > 1.0 {
            format!("a guidance scale of 1 to {}", self.kind.most_guidance)
        } else {
            "no guidance (a scale of 1)".into()
        };
        let steps = if self.steps == 1 {
            "1 step".into()
        } else {
            format!("{} steps", self.steps)
        };
        format!("{}{spacing}, {steps}, {guidance}", self.kind.sampler)
    }

    /// What of a drawing is not as the model wants it, with what would be right.
    pub(crate) fn warnings(&self, scheduler: &AnyScheduler, steps: usize, guidance: f64) -> Vec<String> {
        let kind = self.kind;
        let mut wrong = Vec::new();
        let own = scheduler.config().ok();
        let spacing = own
            .as_ref()
            .and_then(|config| config.get("timestep_spacing")?.as_str().map(String::from));
        let takes = |class: &str| match kind.sampler {
            // Turbo comes with either.
            "euler" | "euler-a" => class.starts_with("Euler"),
            "ddim" => {
                ["DDIMScheduler", "TCDScheduler", "LCMScheduler"].contains(&class)
                    || class.starts_with("Euler")
            }
            "lcm" => class == "LCMScheduler",
            _ => ["TCDScheduler", "LCMScheduler"].contains(&class),
        };
        if !takes(scheduler.class_name()) {
            wrong.push(format!("the sampler {}", scheduler.class_name()));
        } else if kind.is_trailing
            && spacing.as_deref().is_some_and(|spacing| spacing != "trailing")
            && steps > 1
        {
            wrong.push(format!("{} spacing of steps", spacing.unwrap_or_default()));
        }
        if steps > kind.most_steps.max(self.steps) {
            wrong.push(format!("{steps} steps"));
        }
        if guidance > kind.most_guidance {
            wrong.push(format!("a guidance scale of {guidance}"));
        }
        if wrong.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "this looks like a {} model, for which {} {} wrong; right is: {}",
            kind.name,
            wrong.join(" and "),
            if wrong.len() == 1 { "is" } else { "are" },
            self.wants()
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_model_is() {
        let cases = [
            ("sd-turbo", Some(("Turbo", 1))),
            ("sd_xl_turbo_1.0_fp16.safetensors", Some(("Turbo", 1))),
            ("sdxl_lightning_4step.safetensors", Some(("Lightning", 4))),
            ("SDXL-Lightning-8-step", Some(("Lightning", 8))),
            ("dreamshaperXL_lightningSDXL.safetensors", Some(("Lightning", 4))),
            ("juggernautXL_v9Rdphoto2Lightning.safetensors", None),
            ("RealVisXL_V4.0_Lightning", Some(("Lightning", 4))),
            ("Hyper-SD15-8steps.safetensors", Some(("Hyper-SD", 8))),
            ("LCM_Dreamshaper_v7", Some(("LCM", 4))),
            ("my-tcd", Some(("TCD", 4))),
            ("stable-diffusion-v1-5", None),
            ("turbocharged", None),
            ("film4steps", None),
            ("lcm-lora-sdv1-5", Some(("LCM", 4))),
            ("models--latent-consistency--lcm-lora-sdxl", Some(("LCM", 4))),
            ("Hyper-SDXL-8steps-lora.safetensors", Some(("Hyper-SD", 8))),
            ("sdxl_lightning_4step_lora.safetensors", Some(("Lightning", 4))),
            ("sd_xl_turbo_lora_v1.safetensors", Some(("Turbo", 1))),
            ("TCD-SDXL-LoRA", Some(("TCD", 4))),
            ("dmd2_sdxl_4step_lora_fp16.safetensors", Some(("DMD2", 4))),
        ];
        for (name, expected) in cases {
            let found = FewSteps::of_name(Path::new(name)).map(|found| (found.kind.name, found.steps));
            assert_eq!(found, expected, "{name}");
        }
    }
}
