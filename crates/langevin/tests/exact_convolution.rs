//! The choice between Winograd and plain sums.

use burn::tensor::Tensor;
use langevin::{
    device::default_device,
    models::{Conditioning, Denoiser, ModelPreset},
    ops::{Algorithm, Geometry, conv2d, convolving, in_pool},
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
    let (exact, elsewhere) = convolving(Algorithm::Exact, || {
        assert!(in_pool(predict) == predict(), "it holds in the pool");
        let elsewhere = std::thread::scope(|scope| scope.spawn(predict).join().unwrap());
        (predict(), elsewhere)
    });
    assert!(elsewhere == fast, "it is not another thread's");
    assert!(predict() == fast, "it ends with its scope");
    assert!(
        fast != exact,
        "the layers of this model are large enough for Winograd"
    );
    let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (fast, exact) in fast.iter().zip(&exact) {
        assert!((fast - exact).abs() <= 3e-5 * largest, "{fast} {exact}");
    }
}

#[test]
fn a_backward_follows_its_forward() {
    let input = |seed, shape| {
        Generator::new(seed)
            .randn_tensor(shape, &default_device())
            .autodiff()
            .require_grad()
    };
    let gradients = |forward: Algorithm, backward: Algorithm| {
        let (x, weight) = (input(1, [2, 16, 16, 32]), input(2, [3, 3, 32, 32]));
        let y = convolving(forward, || {
            conv2d(x.clone(), weight.clone(), None, None, Geometry::uniform(1, 1))
        });
        let loss = (y.clone() * y).sum();
        let gradients = convolving(backward, || loss.backward());
        [&x, &weight]
            .map(|leaf| -> Vec<f32> { leaf.grad(&gradients).unwrap().into_data().try_into_vec().unwrap() })
    };
    let [fast, exact] = [Algorithm::Fastest, Algorithm::Exact].map(|both| gradients(both, both));
    assert!(fast != exact);
    assert!(gradients(Algorithm::Fastest, Algorithm::Exact) == fast);
    assert!(gradients(Algorithm::Exact, Algorithm::Fastest) == exact);
}
