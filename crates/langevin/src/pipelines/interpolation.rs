//! Between two samples of noise.

use burn::tensor::Tensor;

use crate::{Result, schedulers::same_shape};

/// Above this cosine the arc between two samples is as good as a line, and the sine would divide by nearly nothing; diffusers'
/// threshold.
const NEARLY_PARALLEL: f32 = 0.9995;

/// Spherical interpolation, from `from` at `part` 0 to `to` at 1 (Shoemake 1985): sin((1 - p)θ) / sin θ of one and sin(pθ) / sin θ of
/// the other, with θ the angle between the two. Noise between noise then is as long as noise has to be, which a straight line's middle
/// is not.
///
/// Both are `[batch, channels, height, width]`; each picture of the batch has its own angle.
///
/// # Errors
/// If the shapes differ.
pub fn slerp(from: &Tensor<4>, to: &Tensor<4>, part: f64) -> Result<Tensor<4>> {
    same_shape("the first sample", from, "the second", to)?;
    let norm = |x: &Tensor<4>| x.clone().square().sum_dims(&[1, 2, 3]).sqrt();
    let dot = (from.clone() * to.clone()).sum_dims(&[1, 2, 3]);
    let cosine = dot / (norm(from) * norm(to)).clamp_min(f32::MIN_POSITIVE);

    let weights = |cosine: f32| {
        if cosine.abs() > NEARLY_PARALLEL {
            return [1.0 - part, part];
        }
        let angle = f64::from(cosine).acos();
        [1.0 - part, part].map(|part| (part * angle).sin() / angle.sin())
    };
    let [batch, ..] = from.dims();
    let of_pictures = (0..batch).map(|i| {
        let [of_from, of_to] = weights(cosine.clone().narrow(0, i, 1).into_scalar::<f32>());
        from.clone().narrow(0, i, 1) * of_from + to.clone().narrow(0, i, 1) * of_to
    });
    Ok(Tensor::cat(of_pictures.collect(), 0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn sample(values: [f32; 4]) -> Tensor<4> {
        Tensor::<1>::from_data(values, &Device::default()).reshape([2, 1, 1, 2])
    }

    fn values(x: Tensor<4>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn the_way_is_an_arc() {
        // The first picture turns by a right angle, the second by 60 degrees: cos and sin of a third of that.
        let (from, to) = (
            sample([1.0, 0.0, 2.0, 0.0]),
            sample([0.0, 1.0, 1.0, 3_f32.sqrt()]),
        );
        let (a, b) = (30_f32.to_radians(), 20_f32.to_radians());
        let expected = [a.cos(), a.sin(), 2.0 * b.cos(), 2.0 * b.sin()];
        for (found, expected) in values(slerp(&from, &to, 1.0 / 3.0).unwrap()).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(values(slerp(&from, &to, 0.0).unwrap()), values(from.clone()));
    }

    #[test]
    fn what_lies_on_a_line_stays_on_it() {
        let (from, to) = (sample([1.0, 0.0, 0.0, 0.0]), sample([3.0, 0.0, 0.0, 0.0]));
        assert_eq!(values(slerp(&from, &to, 0.5).unwrap()), [2.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn shapes_must_agree() {
        let one = Tensor::zeros([1, 1, 1, 2], &Device::default());
        assert!(slerp(&sample([0.0; 4]), &one, 0.5).is_err());
    }
}
