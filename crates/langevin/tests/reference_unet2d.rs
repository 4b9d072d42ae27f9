//! `UNet2DModel` against PyTorch's outputs and gradients: every checkpoint found in the reference folder's `unet2d`.

use std::{collections::BTreeMap, fs, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Int, Tensor, TensorData},
};
use langevin::models::{Conditioning, Denoiser, UNet2DModel, weights};
use safetensors::{Dtype, SafeTensors};

fn tensor<const D: usize>(file: &SafeTensors, name: &str, device: &Device) -> Tensor<D> {
    let view = file.tensor(name).unwrap();
    let shape: [usize; D] = view.shape().try_into().unwrap();
    let values = weights::to_f32(view.dtype(), view.data()).unwrap();
    Tensor::from_data(TensorData::new(values, shape), device)
}

struct Norms<'a> { grads: &'a Gradients, values: Vec<Option<f32>> }
impl ModuleVisitor for Norms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.grads);
        self.values.push(grad.map(|g| g.powf_scalar(2.0).sum().sqrt().into_scalar::<f32>()));
    }
}

fn close(a: Tensor<4>, b: Tensor<4>) -> f32 {
    let largest = b.clone().abs().max().into_scalar::<f32>();
    (a - b).abs().max().into_scalar::<f32>() / largest
}

fn main() {
    for entry in fs::read_dir("tests/reference/unet2d").unwrap() {
        let dir = entry.unwrap().path();
        run(&dir);
    }
}
fn run(dir: &Path) {
    let device = Device::flex();
    let model = match UNet2DModel::load(dir, &device) { Ok(m) => m.train(), Err(e) => { println!("{dir:?} {e}"); return } };
    let bytes = fs::read(dir.join("io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&bytes).unwrap();
    let ad = device.clone().autodiff();
    let x: Tensor<4> = tensor::<4>(&io, "sample", &ad).require_grad();
    let view = io.tensor("timestep").unwrap();
    let ts: Vec<f32> = match view.dtype() { Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(), d => weights::to_f32(d, view.data()).unwrap() };
    let n = x.dims()[0];
    let ts = if ts.len() == 1 { vec![ts[0]; n] } else { ts };
    let t = Tensor::<1>::from_floats(&ts[..], &ad);
    let mut c = Conditioning::default();
    if let Ok(v) = io.tensor("class_labels") {
        let l: Vec<i64> = v.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        c.classes = Some(Tensor::<1, Int>::from_data(TensorData::new(l, [n]), &ad));
    }
    let y = model.denoise(x.clone(), t, &c).unwrap();
    let out = close(y.clone().inner(), tensor(&io, "output", &device));
    let target: Tensor<4> = tensor(&io, "target", &ad);
    let loss = (y - target).powf_scalar(2.0).mean();
    let grads = loss.backward();
    let gx = close(x.grad(&grads).unwrap(), tensor(&io, "grad_sample", &device));
    let names = weights::parameter_names(&model);
    let mut norms = Norms { grads: &grads, values: vec![] };
    model.visit(&mut norms);
    let expected: BTreeMap<String, f32> = io.names().into_iter().filter_map(|k| k.strip_prefix("grad_norm.").map(|n| (n.to_string(), weights::to_f32(io.tensor(k).unwrap().dtype(), io.tensor(k).unwrap().data()).unwrap()[0]))).collect();
    let largest = expected.values().cloned().fold(0f32, f32::max);
    let mut worst = (0f32, String::new()); let mut miss = vec![];
    for (n, v) in names.iter().zip(&norms.values) {
        match (expected.get(n), v) { (Some(e), Some(v)) => { let d = (e - v).abs() / largest; if d > worst.0 { worst = (d, n.clone()) } }, (None, None) => {}, o => miss.push((n, o.0.cloned(), *o.1)) }
    }
    println!("{:?} out {out:e} gx {gx:e} norms {worst:?} of {} missing {} {:?}", dir.file_name().unwrap(), expected.len(), miss.len(), miss.first());
}
