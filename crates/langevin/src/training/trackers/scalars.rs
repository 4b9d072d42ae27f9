//! The numbers of an optimiser step under the names that every tracker gives them.

use crate::{data::of_this_process, training::UpdateReport};

/// Equal parts of the way from clean to noise that the loss is told for, each by its name.
const QUARTERS: [&str; 4] = [
    "loss_quarter_1",
    "loss_quarter_2",
    "loss_quarter_3",
    "loss_quarter_4",
];

/// The names and values of an optimiser step, the loss first.
///
/// `loss`, `lr` and `ema_decay` are the names of diffusers' training script. `loss_quarter_1` is the mean loss of the step's
/// pictures whose timestep is in the first, least noisy quarter of all; a quarter that no picture fell into is left out.
/// `memory_mb` is what the program holds in memory, in 10⁶ bytes, where the system tells.
pub fn scalars(report: &UpdateReport) -> Vec<(&'static str, f64)> {
    let mut scalars = vec![
        ("loss", report.loss),
        ("lr", report.learning_rate),
        ("grad_norm", report.grad_norm),
    ];
    scalars.extend(report.ema_decay.map(|decay| ("ema_decay", decay)));
    scalars.push(("pictures_per_second", report.pictures_per_second));
    for (quarter, name) in QUARTERS.into_iter().enumerate() {
        scalars.extend(quarter_loss(report, quarter).map(|loss| (name, loss)));
    }
    scalars.extend(of_this_process("VmRSS:").map(|bytes| ("memory_mb", bytes as f64 / 1e6)));
    scalars
}

/// The mean loss of the pictures in one of the quarters, counted from 0; `None` where there is none.
fn quarter_loss(report: &UpdateReport, quarter: usize) -> Option<f64> {
    let all = report.noise_levels.iter().zip(&report.losses);
    let inside: Vec<f64> = all
        .filter(|&(&level, _)| (level * QUARTERS.len() as f32) as usize == quarter)
        .map(|(_, &loss)| f64::from(loss))
        .collect();
    (!inside.is_empty()).then(|| inside.iter().sum::<f64>() / inside.len() as f64)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three pictures, two of them hardly noisy.
    pub(crate) fn report(step: usize) -> UpdateReport {
        UpdateReport {
            epoch: 1,
            step,
            loss: 0.5,
            learning_rate: 1e-3,
            grad_norm: 2.0,
            ema_decay: None,
            pictures_per_second: 30.0,
            noise_levels: vec![0.0, 0.2, 0.999],
            losses: vec![0.6, 0.8, 0.1],
        }
    }

    #[test]
    fn the_loss_is_told_for_each_quarter_that_has_pictures() {
        let scalars = scalars(&report(1));
        let value = |name| scalars.iter().find(|(n, _)| *n == name).map(|&(_, value)| value);
        assert_eq!(value("loss"), Some(0.5));
        assert!((value("loss_quarter_1").unwrap() - 0.7).abs() < 1e-6);
        assert!((value("loss_quarter_4").unwrap() - 0.1).abs() < 1e-6);
        assert_eq!(value("loss_quarter_2"), None);
        assert_eq!(value("ema_decay"), None);
        if cfg!(target_os = "linux") {
            assert!(value("memory_mb").unwrap() > 1.0);
        }
    }
}
