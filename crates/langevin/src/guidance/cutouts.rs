//! Cut-outs: random views of a picture, so that what guides it holds from every near distance.

use burn::tensor::{Int, Tensor, TensorData};

use crate::{models::clip::resize_weights, random::Generator};

/// The shares of a picture's area that a cut-out may have.
const AREA: (f32, f32) = (0.08, 1.0);
/// The proportions of width to height that it may have.
const PROPORTIONS: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);
/// The most that it is turned by, in degrees.
const TURN: f32 = 5.0;

/// A view of the pictures at `size` x `size` pixels, the same part of all of them: torchvision's `RandomResizedCrop(size)`,
/// `RandomAffine(5)` and `RandomHorizontalFlip()` in this order, which the diffusion course guides by. Differentiable; `generator` is
/// drawn from as torchvision draws.
///
/// # Shapes
/// `[batch, channels, height, width]` → `[batch, channels, size, size]`
pub fn cutout(pictures: Tensor<4>, size: usize, generator: &mut Generator) -> Tensor<4> {
    let [_, _, height, width] = pictures.dims();
    let part = Part::draw(height, width, generator);
    let cut = pictures
        .narrow(2, part.top, part.height)
        .narrow(3, part.left, part.width);
    let turned = turned(resized(cut, size), uniform((-TURN, TURN), generator));
    if generator.rand(1)[0] < 0.5 {
        turned.flip([3])
    } else {
        turned
    }
}

/// A rectangle in a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Part {
    /// `RandomResizedCrop.get_params`.
    fn draw(height: usize, width: usize, generator: &mut Generator) -> Self {
        let area = (height * width) as f64;
        let logarithms = (PROPORTIONS.0.ln(), PROPORTIONS.1.ln());
        for _ in 0..10 {
            let area = area * f64::from(uniform(AREA, generator));
            let proportion = f64::from(uniform(logarithms, generator).exp());
            let w = (area * proportion).sqrt().round_ties_even() as usize;
            let h = (area / proportion).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                return Self {
                    top: generator.randint(0, (height - h + 1) as i64, 1)[0] as usize,
                    left: generator.randint(0, (width - w + 1) as i64, 1)[0] as usize,
                    height: h,
                    width: w,
                };
            }
        }
        // Ten parts were too long for the picture: the middle, as large as the proportions let it be.
        let proportion = width as f64 / height as f64;
        let (low, high) = (f64::from(PROPORTIONS.0), f64::from(PROPORTIONS.1));
        let (h, w) = if proportion < low {
            ((width as f64 / low).round_ties_even() as usize, width)
        } else if proportion > high {
            (height, (height as f64 * high).round_ties_even() as usize)
        } else {
            (height, width)
        };
        Self {
            top: (height - h) / 2,
            left: (width - w) / 2,
            height: h,
            width: w,
        }
    }
}

/// `torch.empty(1).uniform_(low, high)`.
fn uniform((low, high): (f32, f32), generator: &mut Generator) -> f32 {
    generator.rand(1)[0] * (high - low) + low
}

/// The pictures at `size` x `size` pixels, by the linear filter that widens when shrinking: one matrix product an axis.
fn resized(pictures: Tensor<4>, size: usize) -> Tensor<4> {
    let [_, _, height, width] = pictures.dims();
    let device = pictures.device();
    let matrix = |input: usize| {
        let weights = resize_weights(input, size, 1.0, |x: f64| (1.0 - x.abs()).max(0.0));
        Tensor::<4>::from_data(TensorData::new(weights, [1, 1, size, input]), &device)
    };
    let across = pictures.matmul(matrix(width).swap_dims(2, 3));
    matrix(height).matmul(across)
}

/// The pictures turned by `degrees` about their middle, each pixel the nearest one's value; black, or what is 0, comes in at the corners.
fn turned(pictures: Tensor<4>, degrees: f32) -> Tensor<4> {
    let [batch, channels, height, width] = pictures.dims();
    let device = pictures.device();
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    let middle = |side: usize| (side as f64 - 1.0) / 2.0;
    let (mut places, mut inside) = (Vec::new(), Vec::new());
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x as f64 - middle(width), y as f64 - middle(height));
            let from_x = (cos * dx + sin * dy + middle(width)).round_ties_even();
            let from_y = (cos * dy - sin * dx + middle(height)).round_ties_even();
            let within = |place: f64, side: usize| (0.0..side as f64).contains(&place);
            let known = within(from_x, width) && within(from_y, height);
            places.push(if known {
                from_y as i64 * width as i64 + from_x as i64
            } else {
                0
            });
            inside.push(if known { 1.0_f32 } else { 0.0 });
        }
    }
    let pixels = height * width;
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [pixels]), &device);
    let inside = Tensor::<3>::from_data(TensorData::new(inside, [1, 1, pixels]), &device);
    let moved = pictures.reshape([batch, channels, pixels]).select(2, places) * inside;
    moved.reshape([batch, channels, height, width])
}
