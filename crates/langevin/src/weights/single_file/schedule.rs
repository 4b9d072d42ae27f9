//! The schedulers that pipelines of each kind come with.

use serde_json::{Value, json};

use super::Kind;
use crate::{models::DIFFUSERS_VERSION, weights::Checkpoint};

/// A tensor at a file's root that says that the model predicts velocity.
pub(super) const V_PREDICTION: &str = "v_pred";
/// One that says that the last timestep is noise alone.
pub(super) const ZERO_SNR: &str = "ztsnr";

/// The configurations of a file's schedulers, by their folders' names.
pub(super) fn of(kind: Kind, file: &Checkpoint) -> Vec<(&'static str, Value)> {
    let mut scheduler = match kind {
        _ if kind.is_xl() => euler(),
        Kind::Sd1 | Kind::Sd2Base | Kind::Sd2Depth | Kind::ControlNet | Kind::Vae => pndm(),
        Kind::InstructPix2Pix => euler_of_version_1(),
        Kind::Sd1Inpaint | Kind::Sd2Inpaint => ddim("epsilon", [0.000_85, 0.012]),
        Kind::Upscale => ddim("v_prediction", [0.000_1, 0.02]),
        _ => ddim("v_prediction", [0.000_85, 0.012]),
    };
    if file.get(V_PREDICTION).is_some() {
        scheduler["prediction_type"] = "v_prediction".into();
    }
    if file.get(ZERO_SNR).is_some() {
        scheduler["rescale_betas_zero_snr"] = true.into();
        scheduler["timestep_spacing"] = "trailing".into();
    }
    let mut all = vec![("scheduler", scheduler)];
    if kind == Kind::Upscale {
        all.push(("low_res_scheduler", ddpm()));
    }
    all
}

/// What all have in common.
fn with(class: &str, [start, end]: [f64; 2], more: Value) -> Value {
    let mut config = json!({
        "_class_name": class,
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_start": start,
        "beta_end": end,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "trained_betas": null,
    });
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    config
}

fn pndm() -> Value {
    let more = json!({
        "prediction_type": "epsilon",
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    });
    with("PNDMScheduler", [0.000_85, 0.012], more)
}

fn ddim(prediction: &str, betas: [f64; 2]) -> Value {
    let more = json!({
        "clip_sample": false,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": false,
        "sample_max_value": 1.0,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "thresholding": false,
        "timestep_spacing": "leading",
    });
    with("DDIMScheduler", betas, more)
}

fn euler() -> Value {
    let more = json!({
        "final_sigmas_type": "zero",
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": false,
        "sigma_max": null,
        "sigma_min": null,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "timestep_type": "discrete",
        "use_beta_sigmas": false,
        "use_exponential_sigmas": false,
        "use_karras_sigmas": false,
    });
    with("EulerDiscreteScheduler", [0.000_85, 0.012], more)
}

fn euler_of_version_1() -> Value {
    let more = json!({
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "linspace",
    });
    with("EulerAncestralDiscreteScheduler", [0.000_85, 0.012], more)
}

/// The noise that is added to the picture which is to be upscaled.
fn ddpm() -> Value {
    let more = json!({
        "clip_sample": true,
        "prediction_type": "epsilon",
        "variance_type": "fixed_small",
    });
    with("DDPMScheduler", [0.000_1, 0.02], more)
}
