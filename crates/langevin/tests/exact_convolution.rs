//! The switch between Winograd and plain sums. It is one for the process, so this is the only test of its program.

use burn::tensor::Tensor;
use langevin::{
    device::default_device,
    models::{Conditioning, Denoiser, ModelPreset},
    ops::set_exact_convolution,
    random::Generator,
};

#[test]
fn exact_convolution_changes_the_last_places_only() {
    let preset = ModelPreset::CourseMnist;
    let model = preset
        .config()
        .build(&default_device(), &mut Generator::new(0))
        .unwrap();
    let x = Generator::new(1).randn_tensor([2, 1, 28, 28], &default_device());
    let predict = || -> Vec<f32> {
        let t = Tensor::<1>::from_floats([10.0, 700.0], &default_device());
        let y = model.denoise(x.clone(), t, &Conditioning::default()).unwrap();
        y.into_data().try_to_vec().unwrap()
    };
    let fast = predict();
    set_exact_convolution(true);
    let exact = predict();
    set_exact_convolution(false);
    assert!(predict() == fast, "the switch goes back");
    assert!(
        fast != exact,
        "the layers of this model are large enough for Winograd"
    );
    let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (fast, exact) in fast.iter().zip(&exact) {
        assert!((fast - exact).abs() <= 3e-5 * largest, "{fast} {exact}");
    }
}
