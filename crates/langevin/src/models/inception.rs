//! Inception's features of pictures: the space that the Fréchet Inception distance is measured in.

use std::path::Path;

use burn::tensor::{
    Device, Tensor, TensorData,
    activation::relu,
    module::{avg_pool2d, max_pool2d},
    ops::{AvgPoolOptions, MaxPoolOptions},
};

use super::Checkpoint;
use crate::{
    Error, Result,
    data::{Channels, Picture},
    ops::{self, Geometry},
};

/// The name of the space that [`Inception::features`] makes.
pub const INCEPTION_SPACE: &str = "inception-2015-12-05 pool3";
/// How many numbers a picture's features are.
pub const INCEPTION_FEATURES: usize = 2048;

/// Height and width of the pictures that the network sees.
const SIDE: usize = 299;
/// What is added to the variances of its batch norms.
const EPSILON: f32 = 1e-3;

/// The Inception-v3 network of TensorFlow's archive of 2015-12-05 up to its last pooling, as Heusel et al. (2017) have it. Mirrors
/// `pytorch_fid.inception.InceptionV3`, whose weights it takes: `pt_inception-2015-12-05-6726825d.pth`, as that file is or its tensors
/// in a safetensors file.
///
/// Batch norms are part of the convolutions before them: the network only looks.
#[derive(Debug)]
pub struct Inception {
    /// Before the first pooling, between the two, and the blocks after them.
    stem: [Vec<Cell>; 2],
    blocks: Vec<Block>,
}

impl Inception {
    /// Reads the network's weights from a file of `torch.save`'s or a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read or is not whole, or it holds another network's weights.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Self::with_weights(&mut Checkpoint::open(path)?, device)
    }

    /// The network with the weights of a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint lacks some of them, or has one of another shape.
    pub fn with_weights(checkpoint: &mut Checkpoint, device: &Device) -> Result<Self> {
        let mut reader = Reader { checkpoint, device };
        let stem = [
            reader.cells(
                "",
                3,
                &[
                    Layer::new("Conv2d_1a_3x3", 32, [3, 3]).halving(),
                    Layer::new("Conv2d_2a_3x3", 32, [3, 3]).shrinking(),
                    Layer::new("Conv2d_2b_3x3", 64, [3, 3]),
                ],
            )?,
            reader.cells(
                "",
                64,
                &[
                    Layer::new("Conv2d_3b_1x1", 80, [1, 1]),
                    Layer::new("Conv2d_4a_3x3", 192, [3, 3]).shrinking(),
                ],
            )?,
        ];
        let blocks = vec![
            reader.block_a("Mixed_5b.", 192, 32)?,
            reader.block_a("Mixed_5c.", 256, 64)?,
            reader.block_a("Mixed_5d.", 288, 64)?,
            reader.block_b("Mixed_6a.")?,
            reader.block_c("Mixed_6b.", 128)?,
            reader.block_c("Mixed_6c.", 160)?,
            reader.block_c("Mixed_6d.", 160)?,
            reader.block_c("Mixed_6e.", 192)?,
            reader.block_d("Mixed_7a.")?,
            reader.block_e("Mixed_7b.", 1280, Pool::Average)?,
            // The archive's last block takes the largest, where the paper takes the mean.
            reader.block_e("Mixed_7c.", 2048, Pool::Largest)?,
        ];
        Ok(Self { stem, blocks })
    }

    /// The features of pictures, [`INCEPTION_FEATURES`] numbers each, one picture's after another's. Grey ones are seen in three equal
    /// channels; all are brought to 299x299 by bilinear interpolation without antialiasing, as `pytorch_fid` does.
    ///
    /// All are seen at once: some 30 MB of memory a picture.
    ///
    /// # Errors
    /// If the features are no finite numbers, which weights that are broken make.
    pub fn features(&self, pictures: &[Picture]) -> Result<Vec<f32>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<f32> = pictures.iter().flat_map(stretched).collect();
        let shape = [pictures.len(), SIDE, SIDE, 3];
        let device = self.stem[0][0].bias.device();
        let mut x = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
        for cells in &self.stem {
            x = Pool::Halving.of(through(cells, x));
        }
        for block in &self.blocks {
            x = block.forward(x);
        }
        let [batch, height, width, channels] = x.dims();
        let means = x.reshape([batch, height * width, channels]).mean_dim(1);
        let features = means
            .into_data()
            .try_into_vec::<f32>()
            .map_err(|e| Error::Shape(format!("Inception's features cannot be read: {e}")))?;
        if features.iter().all(|value| value.is_finite()) {
            Ok(features)
        } else {
            Err(Error::Config(
                "Inception's features are no finite numbers: its weights are broken".into(),
            ))
        }
    }
}

/// A convolution with its batch norm, and a rectified linear unit.
#[derive(Debug)]
struct Cell {
    weight: Tensor<4>,
    bias: Tensor<1>,
    geometry: Geometry,
}

impl Cell {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.clone(), self.bias.clone());
        relu(ops::conv2d(x, weight, Some(bias), None, self.geometry))
    }
}

fn through(cells: &[Cell], x: Tensor<4>) -> Tensor<4> {
    cells.iter().fold(x, |x, cell| cell.forward(x))
}

/// Branches that see the same, beside each other.
#[derive(Debug)]
struct Block(Vec<Branch>);

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branches = self.0.iter().flat_map(|branch| branch.forward(x.clone()));
        Tensor::cat(branches.collect(), 3)
    }
}

/// A pooling, then cells, then at most two cells beside each other.
#[derive(Debug, Default)]
struct Branch {
    pool: Option<Pool>,
    cells: Vec<Cell>,
    forks: Vec<Cell>,
}

impl Branch {
    fn forward(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let x = self.pool.map_or_else(|| x.clone(), |pool| pool.of(x.clone()));
        let x = through(&self.cells, x);
        if self.forks.is_empty() {
            return vec![x];
        }
        self.forks.iter().map(|cell| cell.forward(x.clone())).collect()
    }
}

/// Over places of 3x3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    /// The largest, at every other place.
    Halving,
    /// The largest.
    Largest,
    /// The mean of those inside the picture.
    Average,
}

impl Pool {
    fn of(self, x: Tensor<4>) -> Tensor<4> {
        let x = x.permute([0, 3, 1, 2]);
        let largest = MaxPoolOptions::new([3, 3]);
        let pooled = match self {
            Self::Halving => max_pool2d(x, largest.with_stride([2, 2])),
            Self::Largest => max_pool2d(x, largest.with_stride([1, 1]).with_padding([1, 1])),
            Self::Average => {
                let mean = AvgPoolOptions::new([3, 3]).with_stride([1, 1]);
                avg_pool2d(x, mean.with_padding([1, 1]).with_count_include_pad(false))
            }
        };
        pooled.permute([0, 2, 3, 1])
    }
}

/// What a cell is called, and its size.
#[derive(Clone, Copy)]
struct Layer {
    name: &'static str,
    outputs: usize,
    kernel: [usize; 2],
    stride: usize,
    padded: bool,
}

impl Layer {
    /// One that leaves a picture its size.
    const fn new(name: &'static str, outputs: usize, kernel: [usize; 2]) -> Self {
        Self {
            name,
            outputs,
            kernel,
            stride: 1,
            padded: true,
        }
    }

    /// One that looks at places inside the picture only.
    const fn shrinking(self) -> Self {
        Self {
            padded: false,
            ..self
        }
    }

    /// The same at every other place.
    const fn halving(self) -> Self {
        Self {
            stride: 2,
            ..self.shrinking()
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            stride: [self.stride; 2],
            padding: self
                .kernel
                .map(|side| [if self.padded { side / 2 } else { 0 }; 2]),
        }
    }
}

/// Reads cells, one block after another.
struct Reader<'a> {
    checkpoint: &'a mut Checkpoint,
    device: &'a Device,
}

impl Reader<'_> {
    fn block_a(&mut self, block: &str, inputs: usize, pooled: usize) -> Result<Block> {
        let single = [Layer::new("branch1x1", 64, [1, 1])];
        let wide = [
            Layer::new("branch5x5_1", 48, [1, 1]),
            Layer::new("branch5x5_2", 64, [5, 5]),
        ];
        let double = [
            Layer::new("branch3x3dbl_1", 64, [1, 1]),
            Layer::new("branch3x3dbl_2", 96, [3, 3]),
            Layer::new("branch3x3dbl_3", 96, [3, 3]),
        ];
        Ok(Block(vec![
            self.branch(block, inputs, &single)?,
            self.branch(block, inputs, &wide)?,
            self.branch(block, inputs, &double)?,
            self.pooled(block, inputs, Pool::Average, pooled)?,
        ]))
    }

    fn block_b(&mut self, block: &str) -> Result<Block> {
        let single = [Layer::new("branch3x3", 384, [3, 3]).halving()];
        let double = [
            Layer::new("branch3x3dbl_1", 64, [1, 1]),
            Layer::new("branch3x3dbl_2", 96, [3, 3]),
            Layer::new("branch3x3dbl_3", 96, [3, 3]).halving(),
        ];
        Ok(Block(vec![
            self.branch(block, 288, &single)?,
            self.branch(block, 288, &double)?,
            Branch {
                pool: Some(Pool::Halving),
                ..Branch::default()
            },
        ]))
    }

    fn block_c(&mut self, block: &str, inner: usize) -> Result<Block> {
        let single = [Layer::new("branch1x1", 192, [1, 1])];
        let cross = [
            Layer::new("branch7x7_1", inner, [1, 1]),
            Layer::new("branch7x7_2", inner, [1, 7]),
            Layer::new("branch7x7_3", 192, [7, 1]),
        ];
        let double = [
            Layer::new("branch7x7dbl_1", inner, [1, 1]),
            Layer::new("branch7x7dbl_2", inner, [7, 1]),
            Layer::new("branch7x7dbl_3", inner, [1, 7]),
            Layer::new("branch7x7dbl_4", inner, [7, 1]),
            Layer::new("branch7x7dbl_5", 192, [1, 7]),
        ];
        Ok(Block(vec![
            self.branch(block, 768, &single)?,
            self.branch(block, 768, &cross)?,
            self.branch(block, 768, &double)?,
            self.pooled(block, 768, Pool::Average, 192)?,
        ]))
    }

    fn block_d(&mut self, block: &str) -> Result<Block> {
        let single = [
            Layer::new("branch3x3_1", 192, [1, 1]),
            Layer::new("branch3x3_2", 320, [3, 3]).halving(),
        ];
        let cross = [
            Layer::new("branch7x7x3_1", 192, [1, 1]),
            Layer::new("branch7x7x3_2", 192, [1, 7]),
            Layer::new("branch7x7x3_3", 192, [7, 1]),
            Layer::new("branch7x7x3_4", 192, [3, 3]).halving(),
        ];
        Ok(Block(vec![
            self.branch(block, 768, &single)?,
            self.branch(block, 768, &cross)?,
            Branch {
                pool: Some(Pool::Halving),
                ..Branch::default()
            },
        ]))
    }

    fn block_e(&mut self, block: &str, inputs: usize, pool: Pool) -> Result<Block> {
        let single = [Layer::new("branch1x1", 320, [1, 1])];
        let mut forked = self.branch(block, inputs, &[Layer::new("branch3x3_1", 384, [1, 1])])?;
        forked.forks = self.forks(block, ["branch3x3_2a", "branch3x3_2b"])?;
        let double = [
            Layer::new("branch3x3dbl_1", 448, [1, 1]),
            Layer::new("branch3x3dbl_2", 384, [3, 3]),
        ];
        let mut double = self.branch(block, inputs, &double)?;
        double.forks = self.forks(block, ["branch3x3dbl_3a", "branch3x3dbl_3b"])?;
        Ok(Block(vec![
            self.branch(block, inputs, &single)?,
            forked,
            double,
            self.pooled(block, inputs, pool, 192)?,
        ]))
    }

    fn branch(&mut self, block: &str, inputs: usize, layers: &[Layer]) -> Result<Branch> {
        Ok(Branch {
            cells: self.cells(block, inputs, layers)?,
            ..Branch::default()
        })
    }

    fn pooled(&mut self, block: &str, inputs: usize, pool: Pool, outputs: usize) -> Result<Branch> {
        Ok(Branch {
            pool: Some(pool),
            ..self.branch(block, inputs, &[Layer::new("branch_pool", outputs, [1, 1])])?
        })
    }

    /// A cell that looks along rows, and one that looks along columns.
    fn forks(&mut self, block: &str, names: [&'static str; 2]) -> Result<Vec<Cell>> {
        let layers = [
            Layer::new(names[0], 384, [1, 3]),
            Layer::new(names[1], 384, [3, 1]),
        ];
        layers.iter().map(|layer| self.cell(block, 384, layer)).collect()
    }

    fn cells(&mut self, block: &str, inputs: usize, layers: &[Layer]) -> Result<Vec<Cell>> {
        let mut inputs = inputs;
        let mut cells = Vec::new();
        for layer in layers {
            cells.push(self.cell(block, inputs, layer)?);
            inputs = layer.outputs;
        }
        Ok(cells)
    }

    fn cell(&mut self, block: &str, inputs: usize, layer: &Layer) -> Result<Cell> {
        let (outputs, [height, width]) = (layer.outputs, layer.kernel);
        let name = format!("{block}{}", layer.name);
        let weight = self.read(&format!("{name}.conv.weight"), &[outputs, inputs, height, width])?;
        let mut norm = |part: &str| self.read(&format!("{name}.bn.{part}"), &[outputs]);
        let (scale, shift) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        // What the norm multiplies by, and what it then adds.
        let factors: Vec<f32> = scale
            .iter()
            .zip(&variance)
            .map(|(scale, variance)| scale / (variance + EPSILON).sqrt())
            .collect();
        let bias: Vec<f32> = shift
            .iter()
            .zip(&mean)
            .zip(&factors)
            .map(|((shift, mean), factor)| shift - mean * factor)
            .collect();
        // From [out, in, height, width] to [height, width, in, out].
        let mut turned = vec![0.0; weight.len()];
        let of_output = inputs * height * width;
        for (output, (values, factor)) in weight.chunks_exact(of_output).zip(&factors).enumerate() {
            for (place, value) in values.iter().enumerate() {
                let (input, tap) = (place / (height * width), place % (height * width));
                turned[(tap * inputs + input) * outputs + output] = value * factor;
            }
        }
        let shape = [height, width, inputs, outputs];
        Ok(Cell {
            weight: Tensor::from_data(TensorData::new(turned, shape), self.device),
            bias: Tensor::from_data(TensorData::new(bias, [outputs]), self.device),
            geometry: layer.geometry(),
        })
    }

    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        if let Some(stored) = self.checkpoint.get(name)
            && stored.shape != shape
        {
            return Err(Error::file(
                self.checkpoint.path(),
                format!(
                    "{name} has shape {:?} where Inception of 2015-12-05 has {shape:?}",
                    stored.shape
                ),
            ));
        }
        self.checkpoint.read(name)
    }
}

/// A picture in the network's size, channels last, -1 to 1: PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
fn stretched(picture: &Picture) -> Vec<f32> {
    let picture = picture.clone().into_channels(Channels::Rgb);
    let (rows, columns) = (taps(picture.height()), taps(picture.width()));
    let value = |y: usize, x: usize, channel: usize| {
        f32::from(picture.pixels()[(y * picture.width() + x) * 3 + channel]) / 255.0
    };
    let mut values = Vec::with_capacity(SIDE * SIDE * 3);
    for &(top, bottom, down) in &rows {
        for &(left, right, across) in &columns {
            for channel in 0..3 {
                let row = |y| value(y, left, channel) * (1.0 - across) + value(y, right, channel) * across;
                let value = row(top) * (1.0 - down) + row(bottom) * down;
                values.push(2.0 * value - 1.0);
            }
        }
    }
    values
}

/// For every place of a side of [`SIDE`]: the two places of a side of `size` that it lies between, and how far it is from the first.
fn taps(size: usize) -> Vec<(usize, usize, f32)> {
    let scale = size as f32 / SIDE as f32;
    let tap = |place: usize| {
        let source = ((place as f32 + 0.5) * scale - 0.5).max(0.0);
        let first = (source as usize).min(size - 1);
        (first, (first + 1).min(size - 1), source - first as f32)
    };
    (0..SIDE).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::default_device,
        random::Generator,
        weights::{NamedTensor, read_tensors},
    };

    /// The tensors that `scripts/inception_fixture.py` draws, in its order.
    fn weights() -> Vec<NamedTensor> {
        let shapes: Vec<(String, Vec<usize>)> = include_str!("../../tests/reference/inception/shapes.txt")
            .lines()
            .map(|line| {
                let mut words = line.split(' ');
                let name = words.next().unwrap().to_string();
                (name, words.map(|side| side.parse().unwrap()).collect())
            })
            .collect();
        let mut generator = Generator::new(0);
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let drawn = generator.randn(shape.iter().product());
            let fan_in: usize = shape[1..].iter().product();
            let value = |z: f32| match name.rsplit('.').next() {
                _ if shape.len() == 4 => z * (2.0 / fan_in as f32).sqrt(),
                Some("weight") => 1.0 + 0.1 * z,
                Some("running_var") => 1.0 + 0.1 * z * z,
                _ => 0.1 * z,
            };
            let values = drawn.into_iter().map(value).collect();
            NamedTensor { name, shape, values }
        };
        shapes.into_iter().map(tensor).collect()
    }

    fn checkpoint(tensors: Vec<NamedTensor>) -> Checkpoint {
        Checkpoint::of_tensors("inception.pth".into(), tensors)
    }

    #[test]
    fn features_are_those_of_pytorch_fid() {
        let device = default_device();
        let inception = Inception::with_weights(&mut checkpoint(weights()), &device).unwrap();
        let expected = read_tensors(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/reference/inception/features.safetensors"
        ))
        .unwrap();
        let mut generator = Generator::new(1);
        let mut picture = |height: usize, width: usize, channels: Channels| {
            let pixels = generator.randint(0, 256, height * width * channels.count());
            let pixels = pixels.into_iter().map(|value| value as u8).collect();
            Picture::new(height, width, channels, pixels).unwrap()
        };
        let pictures = [
            picture(32, 32, Channels::Rgb),
            picture(24, 40, Channels::Rgb),
            picture(8, 8, Channels::Grey),
            picture(310, 300, Channels::Rgb),
        ];
        let features = inception.features(&pictures).unwrap();
        let rows = features.chunks_exact(INCEPTION_FEATURES);
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.zip(expected.values()) {
            let largest = expected.values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let off = row.iter().zip(&expected.values).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0f32, f32::max);
            assert!(largest > 0.1 && off <= 1e-4 * largest, "{off} of {largest}");
        }
        // One at a time they are the same.
        assert_eq!(
            inception.features(&pictures[1..2]).unwrap(),
            features[INCEPTION_FEATURES..2 * INCEPTION_FEATURES]
        );
        assert!(inception.features(&[]).unwrap().is_empty());
    }

    #[test]
    fn another_networks_weights_are_refused() {
        let refused = |change: fn(&mut Vec<NamedTensor>)| {
            let mut tensors = weights();
            change(&mut tensors);
            let made = Inception::with_weights(&mut checkpoint(tensors), &default_device());
            made.unwrap_err().to_string()
        };
        let message = refused(|tensors| tensors.retain(|t| !t.name.contains("Mixed_7c.branch_pool")));
        assert!(
            message.contains("lacks Mixed_7c.branch_pool.conv.weight"),
            "{message}"
        );
        let message = refused(|tensors| tensors[0].shape.swap(0, 1));
        assert!(message.contains("has shape [3, 32, 3, 3]"), "{message}");
    }
}
