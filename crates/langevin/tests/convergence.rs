//! Every sampler against data whose optimal denoiser is known in closed form: deterministic ones end where the probability
//! flow does, and come closer at their order as steps are halved; stochastic ones reach the data's mean and deviation.
//!
//! Nothing here comes from diffusers. `support/oracle.rs` says why the exact end of the flow is known.

#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/sampled.rs"]
mod sampled;
mod support;

use langevin::schedulers::{AnyScheduler, SASolverConfig, SASolverScheduler};
use oracle::{Data, Level, ranks, root_mean_square};
use sampled::{Sampled, scheduler};
use serde_json::{Value, json};
use support::values;

/// A schedule long enough that its whole timesteps are no limit, with ln σ even from ln 10 to ln 0.1.
fn fine_schedule() -> Value {
    const T: usize = 10_000;
    let alpha = |t: usize| {
        let sigma = 0.1 * 100_f64.powf(t as f64 / (T - 1) as f64);
        1.0 / (1.0 + sigma * sigma)
    };
    let betas: Vec<f64> = (0..T)
        .map(|t| 1.0 - alpha(t) / if t > 0 { alpha(t - 1) } else { 1.0 })
        .collect();
    json!({ "num_train_timesteps": T, "trained_betas": betas })
}

/// `config`, with the entries of `more` in place of its own.
fn with(config: &Value, more: Value) -> Value {
    let mut config = config.clone();
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

/// The error of a loop of `steps`, at the last level above zero: there all steps but the last have been done, which from
/// most schedulers leads straight to the predicted clean sample.
fn error(scheduler: &AnyScheduler, steps: usize, data: &Data) -> f64 {
    let mut sampled = Sampled::new(scheduler.clone(), steps, data);
    let start = sampled.beginning(&ranks(16));
    let last = sampled.calls() - 1;
    let exact = sampled.carried(&start, last);
    let found = sampled.run(start, last);
    root_mean_square(values(found - exact).into_iter().map(f64::from))
}

/// A deterministic sampler, how many steps to begin with (a few, so that halving them once does not come to float32's
/// rounding), and the order that it promises.
struct Deterministic {
    what: &'static str,
    scheduler: AnyScheduler,
    steps: usize,
    order: f64,
}

fn deterministic() -> Vec<Deterministic> {
    let fine = fine_schedule();
    let case = |what: &'static str, name, config, steps, order| Deterministic {
        what,
        scheduler: scheduler(name, &config),
        steps,
        order,
    };
    let fine_with = |more| with(&fine, more);
    let preserving =
        json!({ "clip_sample": false, "set_alpha_to_one": false, "timestep_spacing": "trailing" });
    let edm = json!({ "sigma_min": 0.1, "sigma_max": 10.0 });
    let solver = |order: usize| fine_with(json!({ "solver_order": order, "lower_order_final": false }));
    let noise_solver = fine_with(json!({ "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min" }));
    let sa_solver: SASolverConfig = serde_json::from_value(fine.clone()).unwrap();
    vec![
        case("ddim", "ddim", fine_with(preserving.clone()), 40, 1.0),
        case(
            "ddim-inverse",
            "ddim-inverse",
            fine_with(preserving.clone()),
            40,
            1.0,
        ),
        case("euler", "euler", fine.clone(), 40, 1.0),
        case("edm-euler", "edm-euler", edm.clone(), 40, 1.0),
        case("flow-euler", "flow-euler", json!({}), 40, 1.0),
        case("heun", "heun", fine.clone(), 20, 2.0),
        case("dpm2", "dpm2", fine.clone(), 20, 2.0),
        case("flow-heun", "flow-heun", json!({}), 20, 2.0),
        // Of fourth order, but for the first three steps; UniPC's corrector adds one to its order.
        case("lms", "lms", fine.clone(), 20, 3.0),
        case("pndm", "pndm", fine_with(preserving.clone()), 20, 2.0),
        // Of fourth order but for its first step, which from pure noise takes the clean sample for 0.
        case("ipndm", "ipndm", json!({}), 20, 1.0),
        case("dpm++2m of order 1", "dpm++2m", solver(1), 40, 1.0),
        case("dpm++2m", "dpm++2m", solver(2), 40, 2.0),
        case("dpm++2m of order 3", "dpm++2m", solver(3), 20, 2.0),
        case(
            "dpm++2m by heun",
            "dpm++2m",
            with(&solver(2), json!({ "solver_type": "heun" })),
            20,
            2.0,
        ),
        case("dpm2m", "dpm++2m", noise_solver, 20, 2.0),
        case("dpm++2m-inverse", "dpm++2m-inverse", solver(2), 20, 2.0),
        case(
            "dpm++2s",
            "dpm++2s",
            fine_with(json!({ "lower_order_final": true })),
            40,
            2.0,
        ),
        case("deis", "deis", solver(2), 20, 2.0),
        case("deis of order 3", "deis", solver(3), 20, 2.0),
        case("unipc", "unipc", solver(2), 20, 3.0),
        case("unipc of order 3", "unipc", solver(3), 20, 3.0),
        case(
            "edm-dpm++2m",
            "edm-dpm++2m",
            with(&edm, json!({ "lower_order_final": false })),
            20,
            2.0,
        ),
        Deterministic {
            what: "sa-solver without noise",
            scheduler: SASolverScheduler::new(sa_solver)
                .unwrap()
                .with_tau(|_| 0.0)
                .into(),
            steps: 20,
            order: 2.0,
        },
    ]
}

#[test]
fn halving_the_step_divides_the_error_by_two_to_the_order() {
    let mut wrong = Vec::new();
    for case in deterministic() {
        for (kind, data) in [("gaussian", Data::gaussian()), ("mixture", Data::mixture())] {
            let coarse = error(&case.scheduler, case.steps, &data);
            let fine = error(&case.scheduler, 2 * case.steps, &data);
            let order = (coarse / fine).log2();
            let line = format!(
                "{} on the {kind}: {coarse:.2e} at {}, {fine:.2e} at {} steps: order {order:.2}, promised {}",
                case.what,
                case.steps,
                2 * case.steps,
                case.order
            );
            println!("{line}");
            // Above its order is as good; below is not.
            if !(order > case.order - 0.3 && fine < 0.05) {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A stochastic sampler: its short name, its config, and how many steps it takes.
fn stochastic() -> Vec<(&'static str, Value, usize)> {
    let unclipped = json!({ "clip_sample": false });
    vec![
        ("ddpm", unclipped.clone(), 300),
        ("euler-a", json!({}), 500),
        ("dpm2-a", json!({}), 100),
        ("dpm-sde", json!({}), 100),
        ("dpm++2m", json!({ "algorithm_type": "sde-dpmsolver++" }), 100),
        ("dpm++2s", json!({ "algorithm_type": "sde-dpmsolver++" }), 500),
        ("edm-dpm++2m", json!({ "algorithm_type": "sde-dpmsolver++" }), 100),
        ("sa-solver", json!({}), 50),
        ("lcm", json!({}), 4),
        ("tcd", json!({}), 4),
        (
            "cm",
            json!({ "clip_denoised": false, "num_train_timesteps": 40 }),
            4,
        ),
        ("sde-ve", json!({}), 600),
        ("unclip", unclipped.clone(), 300),
        ("repaint", with(&unclipped, json!({ "eta": 1.0 })), 1000),
    ]
}

#[test]
fn noise_leads_to_the_mean_and_the_deviation_of_the_data() {
    let mut wrong = Vec::new();
    for (name, config, steps) in stochastic() {
        for (kind, data) in [("gaussian", Data::gaussian()), ("mixture", Data::mixture())] {
            let samples = values(Sampled::new(scheduler(name, &config), steps, &data).draw([1, 1, 96, 96]));
            let n = samples.len() as f64;
            let mean = samples.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let deviation = root_mean_square(samples.iter().map(|&x| f64::from(x) - mean));
            let line = format!(
                "{name} on the {kind}: mean {mean:.3} of {:.3}, deviation {deviation:.3} of {:.3}",
                data.mean(),
                data.deviation()
            );
            println!("{line}");
            // A mean of 9216 values is off by a hundredth of their deviation, as a rule.
            let near = |found: f64, expected: f64| (found - expected).abs() < 0.03 * data.deviation();
            if !(near(mean, data.mean()) && near(deviation, data.deviation())) {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_class_is_tried() {
    let deterministic = deterministic();
    let mut tried: Vec<&str> = deterministic
        .iter()
        .map(|case| case.scheduler.class_name())
        .collect();
    let stochastic = stochastic();
    let class = |name: &str| {
        AnyScheduler::NAMES
            .iter()
            .find(|(short, _)| *short == name)
            .unwrap()
            .1
    };
    tried.extend(stochastic.iter().map(|(name, ..)| class(name)));
    let missing: Vec<_> = AnyScheduler::NAMES
        .iter()
        .filter(|(_, class)| !tried.contains(class))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_oracle_agrees_with_itself() {
    // The flow of the mixture by small steps of the fourth-order Runge–Kutta method in ln σ.
    let data = Data::mixture();
    let slope = |x: f64, log: f64| x - data.denoised(x, Level::exploding(log.exp()));
    for start in [-7.0, -1.0, 0.2, 3.0] {
        let (mut x, mut log) = (start, 5_f64.ln());
        let step = (0.05_f64.ln() - log) / 2000.0;
        for _ in 0..2000 {
            let k1 = slope(x, log);
            let k2 = slope(x + step / 2.0 * k1, log + step / 2.0);
            let k3 = slope(x + step / 2.0 * k2, log + step / 2.0);
            let k4 = slope(x + step * k3, log + step);
            x += step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
            log += step;
        }
        let carried = data.carried(start, Level::exploding(5.0), Level::exploding(0.05));
        assert!((carried - x).abs() < 1e-8, "{start}: {carried} is not {x}");
    }
}
