//! The example in which a user adds a sampler in a file of their own, run.

#[path = "../examples/own_sampler.rs"]
mod own_sampler;

#[test]
fn a_sampler_of_ones_own_samples() {
    own_sampler::main().unwrap();
    let off = (own_sampler::sample().unwrap() - 0.25).abs().max();
    assert!(off.into_scalar::<f32>() < 1e-3);
}
