//! LoRA files on a small model: every formula computed again in float64 by index notation, and what files in the wild do to programs that
//! read them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use langevin::weights::{
    Checkpoint,
    lora::{LoraFile, LoraFit, LoraScale, Targets},
    single_file::Component,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use tempfile::TempDir;

/// Numbers with their shape.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// Numbers that look drawn, exact in float32.
fn array(seed: u32, shape: &[usize]) -> Array {
    let mut state = u64::from(seed) * 7919 + 17;
    let values = (0..shape.iter().product()).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    });
    Array {
        values: values.collect(),
        shape: shape.to_vec(),
    }
}

fn number(value: f64) -> Array {
    Array {
        shape: vec![],
        values: vec![value],
    }
}

impl Array {
    fn reshaped(&self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.values.len());
        Self {
            shape: shape.to_vec(),
            values: self.values.clone(),
        }
    }

    fn scaled(&self, factor: f64) -> Self {
        Self {
            values: self.values.iter().map(|value| value * factor).collect(),
            shape: self.shape.clone(),
        }
    }

    fn plus(&self, other: &Self) -> Self {
        assert_eq!(self.shape, other.shape);
        let sum = self.values.iter().zip(&other.values).map(|(a, b)| a + b);
        Self {
            values: sum.collect(),
            shape: self.shape.clone(),
        }
    }
}

/// A sum over products in index notation, `ij,jk->ik`, index by index.
fn einsum(spec: &str, operands: &[&Array]) -> Array {
    let (inputs, output) = spec.split_once("->").unwrap();
    let inputs: Vec<Vec<char>> = inputs.split(',').map(|labels| labels.chars().collect()).collect();
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (labels, operand) in inputs.iter().zip(operands) {
        assert_eq!(labels.len(), operand.shape.len(), "{spec}");
        for (label, size) in labels.iter().zip(&operand.shape) {
            assert_eq!(*sizes.entry(*label).or_insert(*size), *size, "{spec}: {label}");
        }
    }
    let output: Vec<char> = output.chars().collect();
    let shape: Vec<usize> = output.iter().map(|label| sizes[label]).collect();
    let mut values = vec![0.0; shape.iter().product()];
    let labels: Vec<char> = sizes.keys().copied().collect();
    let all: usize = sizes.values().product();
    for mut place in 0..all {
        let mut at: HashMap<char, usize> = HashMap::new();
        for label in labels.iter().rev() {
            at.insert(*label, place % sizes[label]);
            place /= sizes[label];
        }
        let index = |labels: &[char]| {
            labels
                .iter()
                .fold(0, |index, label| index * sizes[label] + at[label])
        };
        let term: f64 = inputs
            .iter()
            .zip(operands)
            .map(|(labels, operand)| operand.values[index(labels)])
            .product();
        values[index(&output)] += term;
    }
    Array { shape, values }
}

type Tensors = BTreeMap<String, Array>;

fn tensors(all: Vec<(&str, Array)>) -> Tensors {
    all.into_iter()
        .map(|(name, array)| (name.to_string(), array))
        .collect()
}

fn write(path: &Path, tensors: &Tensors, metadata: &[(&str, &str)]) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, array)| {
            let bytes = array
                .values
                .iter()
                .flat_map(|value| (*value as f32).to_le_bytes());
            (name.clone(), array.shape.clone(), bytes.collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let pairs = metadata
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    // The format's own library writes what is no JSON of neither tensors nor metadata.
    let metadata = (!metadata.is_empty()).then(|| pairs.collect());
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

const RESNET: &str = "down_blocks.0.resnets.0";
const BLOCK: &str = "down_blocks.0.attentions.0.transformer_blocks.0";

/// A UNet's parameters as far as these tests need them: outputs and inputs differ everywhere.
fn unet() -> Tensors {
    let of = |name: String, seed, shape: &[usize]| (name, array(seed, shape));
    [
        of("conv_in.weight".into(), 1, &[4, 9, 3, 3]),
        of(format!("{RESNET}.norm1.weight"), 2, &[4]),
        of(format!("{RESNET}.norm1.bias"), 3, &[4]),
        of(format!("{RESNET}.conv1.weight"), 4, &[6, 4, 3, 3]),
        of(format!("{RESNET}.conv1.bias"), 5, &[6]),
        of(
            "down_blocks.0.attentions.0.proj_in.weight".into(),
            6,
            &[6, 4, 1, 1],
        ),
        of(format!("{BLOCK}.attn1.to_q.weight"), 7, &[6, 4]),
        of(format!("{BLOCK}.attn1.to_q.bias"), 8, &[6]),
        of(format!("{BLOCK}.attn2.to_k.weight"), 9, &[6, 8]),
    ]
    .into()
}

struct Model {
    folder: TempDir,
    parts: Vec<(Component, Tensors)>,
}

impl Model {
    fn new(parts: Vec<(Component, Tensors)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (component, tensors) in &parts {
            write(
                &folder.path().join(format!("{component}.safetensors")),
                tensors,
                &[],
            );
        }
        Self { folder, parts }
    }

    fn unet() -> Self {
        Self::new(vec![(Component::Unet, unet())])
    }

    fn checkpoint(&self, component: Component) -> Checkpoint {
        Checkpoint::open(self.folder.path().join(format!("{component}.safetensors"))).unwrap()
    }

    fn fit(&self, path: &Path, scale: &LoraScale) -> langevin::Result<LoraFit> {
        let mut targets = Targets::default();
        for (component, tensors) in &self.parts {
            let shapes = tensors
                .iter()
                .map(|(name, array)| (name.as_str(), array.shape.as_slice()));
            targets.add(*component, shapes);
        }
        LoraFile::open(path)?.fit(&targets, scale)
    }

    /// A file of these tensors.
    fn file(&self, tensors: &Tensors, metadata: &[(&str, &str)]) -> PathBuf {
        let path = self.folder.path().join("lora.safetensors");
        write(&path, tensors, metadata);
        path
    }

    /// All parameters with a LoRA on them.
    fn with(&self, tensors: &Tensors, metadata: &[(&str, &str)], scale: &LoraScale) -> Tensors {
        let path = self.file(tensors, metadata);
        let fit = self.fit(&path, scale).unwrap();
        assert_eq!(fit.notice(), None);
        self.changed(&fit)
    }

    fn changed(&self, fit: &LoraFit) -> Tensors {
        let mut all = Tensors::new();
        for (component, _) in &self.parts {
            let mut checkpoint = self.checkpoint(*component);
            fit.apply(*component, &mut checkpoint);
            let names: Vec<String> = checkpoint.names().map(String::from).collect();
            for name in names {
                let values = checkpoint
                    .read(&name)
                    .unwrap()
                    .into_iter()
                    .map(f64::from)
                    .collect();
                let shape = checkpoint.get(&name).unwrap().shape.clone();
                all.insert(name, Array { shape, values });
            }
        }
        all
    }

    /// The sentence with which a file is refused.
    fn refusal(&self, path: &Path) -> String {
        let error = match self.fit(path, &LoraScale::default()) {
            Err(error) => error.to_string(),
            // Some of it may be read only as it is applied.
            Ok(fit) => {
                let mut checkpoint = self.checkpoint(Component::Unet);
                fit.apply(Component::Unet, &mut checkpoint);
                let names: Vec<String> = checkpoint.names().map(String::from).collect();
                let error = names.iter().find_map(|name| checkpoint.read(name).err());
                error.expect("it should be refused").to_string()
            }
        };
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(!error.contains('\n') && error.len() < 700, "{error}");
        error
    }
}

/// Holds one parameter to what it should be, and all others to what they were.
#[track_caller]
fn only(found: &Tensors, expected: &[(&str, Array)]) {
    for (name, before) in &unet() {
        let want = expected.iter().find(|(changed, _)| changed == name);
        let want = want.map_or(before, |(_, array)| array);
        let off = found[name]
            .values
            .iter()
            .zip(&want.values)
            .map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, f64::max);
        assert!(off < 1e-5, "{name} is off by {off}");
    }
}

fn named(module: &str) -> String {
    format!("lora_unet_{}", module.replace('.', "_"))
}

/// A LoRA of one module by kohya's names.
fn of_module(module: &str, parts: Vec<(&str, Array)>) -> Tensors {
    parts
        .into_iter()
        .map(|(part, array)| (format!("{}.{part}", named(module)), array))
        .collect()
}

#[test]
fn a_convolution_is_changed_through_its_kernel_and_through_a_core() {
    let (model, w) = (Model::unet(), unet()[&format!("{RESNET}.conv1.weight")].clone());
    let module = format!("{RESNET}.conv1");
    let (down, up) = (array(11, &[2, 4, 3, 3]), array(12, &[6, 2, 1, 1]));
    let lora = of_module(
        &module,
        vec![
            ("lora_down.weight", down.clone()),
            ("lora_up.weight", up.clone()),
            ("alpha", number(3.0)),
        ],
    );
    let delta = einsum("orxy,rikl->oikl", &[&up, &down]).scaled(0.7 * 3.0 / 2.0);
    only(
        &model.with(&lora, &[], &0.7.into()),
        &[(&format!("{module}.weight"), w.plus(&delta))],
    );

    let (down, mid, up) = (
        array(13, &[3, 4, 1, 1]),
        array(14, &[2, 3, 3, 3]),
        array(15, &[6, 2, 1, 1]),
    );
    let lora = of_module(
        &module,
        vec![
            ("lora_down.weight", down.clone()),
            ("lora_mid.weight", mid.clone()),
            ("lora_up.weight", up.clone()),
            ("alpha", number(1.0)),
        ],
    );
    let delta = einsum("nmkl,inxy,mjzw->ijkl", &[&mid, &up, &down]).scaled(1.0 / 3.0);
    only(
        &model.with(&lora, &[], &1.0.into()),
        &[(&format!("{module}.weight"), w.plus(&delta))],
    );
}

#[test]
fn loha_is_a_product_of_products() {
    let (model, w) = (Model::unet(), unet()[&format!("{RESNET}.conv1.weight")].clone());
    let module = format!("{RESNET}.conv1");
    let parts = [
        array(21, &[6, 2]),
        array(22, &[2, 36]),
        array(23, &[6, 2]),
        array(24, &[2, 36]),
    ];
    let names = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];
    let mut all: Vec<(&str, Array)> = names.into_iter().zip(parts.clone()).collect();
    all.push(("alpha", number(1.0)));
    let [a, b] = [[0, 1], [2, 3]].map(|[a, b]| einsum("or,ri->oi", &[&parts[a], &parts[b]]));
    let delta = einsum("oi,oi->oi", &[&a, &b]).scaled(0.5).reshaped(&[6, 4, 3, 3]);
    let found = model.with(&of_module(&module, all), &[], &1.0.into());
    only(&found, &[(&format!("{module}.weight"), w.plus(&delta))]);

    // With cores, `a` has its rank first, and the rank is that of `b`.
    let parts = [
        array(31, &[2, 6]),
        array(32, &[3, 4]),
        array(33, &[2, 6]),
        array(34, &[3, 4]),
        array(35, &[2, 3, 3, 3]),
        array(36, &[2, 3, 3, 3]),
    ];
    let names = [
        "hada_w1_a",
        "hada_w1_b",
        "hada_w2_a",
        "hada_w2_b",
        "hada_t1",
        "hada_t2",
    ];
    let mut all: Vec<(&str, Array)> = names.into_iter().zip(parts.clone()).collect();
    all.push(("alpha", number(1.0)));
    let factor =
        |core: usize, a: usize, b: usize| einsum("ijkl,jr,ip->prkl", &[&parts[core], &parts[b], &parts[a]]);
    let delta = einsum("oikl,oikl->oikl", &[&factor(4, 0, 1), &factor(5, 2, 3)]).scaled(1.0 / 3.0);
    let found = model.with(&of_module(&module, all), &[], &1.0.into());
    only(&found, &[(&format!("{module}.weight"), w.plus(&delta))]);
}

#[test]
fn lokr_is_a_kronecker_product_whatever_its_sides_are_made_of() {
    let model = Model::unet();
    let kron = |a: &Array, b: &Array, shape: &[usize]| einsum("ab,cdkl->acbdkl", &[a, b]).reshaped(shape);
    // Both whole: alpha is of no effect.
    let (module, w) = (
        format!("{BLOCK}.attn2.to_k"),
        unet()[&format!("{BLOCK}.attn2.to_k.weight")].clone(),
    );
    let (one, two) = (array(41, &[2, 4]), array(42, &[3, 2]));
    let lora = of_module(
        &module,
        vec![
            ("lokr_w1", one.clone()),
            ("lokr_w2", two.clone()),
            ("alpha", number(9.0)),
        ],
    );
    let delta = kron(&one, &two.reshaped(&[3, 2, 1, 1]), &[6, 8]);
    only(
        &model.with(&lora, &[], &1.0.into()),
        &[(&format!("{module}.weight"), w.plus(&delta))],
    );

    let (module, w) = (
        format!("{RESNET}.conv1"),
        unet()[&format!("{RESNET}.conv1.weight")].clone(),
    );
    // The first of low rank, the second a kernel.
    let (a, b, two) = (array(43, &[2, 1]), array(44, &[1, 2]), array(45, &[3, 2, 3, 3]));
    let lora = of_module(
        &module,
        vec![
            ("lokr_w1_a", a.clone()),
            ("lokr_w1_b", b.clone()),
            ("lokr_w2", two.clone()),
            ("alpha", number(0.25)),
        ],
    );
    let delta = kron(&einsum("ar,rb->ab", &[&a, &b]), &two, &[6, 4, 3, 3]).scaled(0.25);
    only(
        &model.with(&lora, &[], &1.0.into()),
        &[(&format!("{module}.weight"), w.plus(&delta))],
    );

    // The second with a core.
    let (one, a, b, core) = (
        array(46, &[2, 2]),
        array(47, &[2, 3]),
        array(48, &[2, 2]),
        array(49, &[2, 2, 3, 3]),
    );
    let lora = of_module(
        &module,
        vec![
            ("lokr_w1", one.clone()),
            ("lokr_w2_a", a.clone()),
            ("lokr_w2_b", b.clone()),
            ("lokr_t2", core.clone()),
            ("alpha", number(1.0)),
        ],
    );
    let two = einsum("ijkl,ip,jr->prkl", &[&core, &a, &b]);
    let delta = kron(&one, &two, &[6, 4, 3, 3]).scaled(0.5);
    only(
        &model.with(&lora, &[], &1.0.into()),
        &[(&format!("{module}.weight"), w.plus(&delta))],
    );
}

/// W with magnitudes along an axis, `o` or `i`.
fn with_magnitudes(w: &Array, magnitudes: &Array, axis: char) -> Array {
    let squares = einsum(&format!("oi,oi->{axis}"), &[w, w]);
    let factors = Array {
        values: magnitudes
            .values
            .iter()
            .zip(&squares.values)
            .map(|(m, square)| m / square.sqrt())
            .collect(),
        shape: squares.shape,
    };
    einsum(&format!("oi,{axis}->oi"), &[w, &factors])
}

#[test]
fn dora_has_magnitudes_of_outputs_or_inputs_and_its_scale_where_its_home_has_it() {
    let (model, w) = (
        Model::unet(),
        unet()[&format!("{BLOCK}.attn2.to_k.weight")].clone(),
    );
    let module = format!("{BLOCK}.attn2.to_k");
    let weight = format!("{module}.weight");
    let (down, up) = (array(51, &[2, 8]), array(52, &[6, 2]));
    let change = einsum("or,ri->oi", &[&up, &down]).scaled(3.0 / 2.0);
    for (axis, shape, count) in [('o', vec![6, 1], 6), ('i', vec![1, 8], 8)] {
        let magnitudes = array(53, &[count]);
        let lora = of_module(
            &module,
            vec![
                ("lora_down.weight", down.clone()),
                ("lora_up.weight", up.clone()),
                ("alpha", number(3.0)),
                ("dora_scale", magnitudes.reshaped(&shape)),
            ],
        );
        // A1111 and ComfyUI: W + scale · (W' − W).
        let whole = with_magnitudes(&w.plus(&change), &magnitudes, axis);
        let half = w.scaled(0.5).plus(&whole.scaled(0.5));
        only(&model.with(&lora, &[], &0.5.into()), &[(&weight, half)]);
        only(&model.with(&lora, &[], &1.0.into()), &[(&weight, whole)]);
    }
    // PEFT: the scale is inside of the norm.
    let magnitudes = array(54, &[6]);
    let lora = tensors(vec![
        ("unet.X.lora_A.weight", down.clone()),
        ("unet.X.lora_B.weight", up.clone()),
        ("unet.X.lora_magnitude_vector", magnitudes.clone()),
    ]);
    let lora = lora
        .into_iter()
        .map(|(name, array)| (name.replace('X', &module), array))
        .collect();
    let change = einsum("or,ri->oi", &[&up, &down]).scaled(0.5);
    only(
        &model.with(&lora, &[], &0.5.into()),
        &[(&weight, with_magnitudes(&w.plus(&change), &magnitudes, 'o'))],
    );
}

#[test]
fn whole_differences_biases_and_norms_are_added_as_they_are() {
    let (model, before) = (Model::unet(), unet());
    let (diff, bias) = (array(61, &[6, 4, 3, 3]), array(62, &[6]));
    let (gain, shift) = (array(63, &[4]), array(64, &[4]));
    let mut lora = of_module(
        &format!("{RESNET}.conv1"),
        vec![
            ("diff", diff.clone()),
            ("diff_b", bias.clone()),
            ("alpha", number(7.0)),
        ],
    );
    lora.extend(of_module(
        &format!("{RESNET}.norm1"),
        vec![("w_norm", gain.clone()), ("b_norm", shift.clone())],
    ));
    let found = model.with(&lora, &[], &2.0.into());
    let of = |name: &str, change: &Array| {
        (
            format!("{RESNET}.{name}"),
            before[&format!("{RESNET}.{name}")].plus(&change.scaled(2.0)),
        )
    };
    let all = [
        of("conv1.weight", &diff),
        of("conv1.bias", &bias),
        of("norm1.weight", &gain),
        of("norm1.bias", &shift),
    ];
    let all: Vec<(&str, Array)> = all
        .iter()
        .map(|(name, array)| (name.as_str(), array.clone()))
        .collect();
    only(&found, &all);
}

#[test]
fn alpha_is_what_the_authors_mean() {
    let (model, w) = (
        Model::unet(),
        unet()[&format!("{BLOCK}.attn1.to_q.weight")].clone(),
    );
    let module = format!("{BLOCK}.attn1.to_q");
    let (down, up) = (array(71, &[2, 4]), array(72, &[6, 2]));
    let delta = einsum("or,ri->oi", &[&up, &down]);
    let expect = |found: &Tensors, scale: f64| {
        only(
            found,
            &[(&format!("{module}.weight"), w.plus(&delta.scaled(scale)))],
        );
    };
    // sd-scripts: alpha 0 and no alpha are the rank; LyCORIS: `scale` is it itself.
    for (part, scale) in [
        (None, 1.0),
        (Some(("alpha", 0.0)), 1.0),
        (Some(("alpha", -1.0)), -0.5),
        (Some(("scale", 0.3)), f64::from(0.3f32)),
    ] {
        let mut parts = vec![("lora_down.weight", down.clone()), ("lora_up.weight", up.clone())];
        parts.extend(part.map(|(name, value)| (name, number(value))));
        expect(&model.with(&of_module(&module, parts), &[], &1.0.into()), scale);
    }
    // cloneofsimo/lora issue 187: an alpha of one number in an axis.
    let parts = vec![
        ("lora_down.weight", down.clone()),
        ("lora_up.weight", up.clone()),
        ("alpha", number(1.0).reshaped(&[1])),
    ];
    expect(&model.with(&of_module(&module, parts), &[], &1.0.into()), 0.5);
    // diffusers' header, and PEFT's configuration beside a file of its own.
    let peft = |prefix: &str| -> Tensors {
        [
            (format!("{prefix}{module}.lora_A.weight"), down.clone()),
            (format!("{prefix}{module}.lora_B.weight"), up.clone()),
        ]
        .into()
    };
    for (header, scale) in [
        (json!({"unet.r": 8, "unet.lora_alpha": 8}), 4.0),
        (
            json!({"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_q": 1, "to_k": 9}}),
            0.5,
        ),
        (
            json!({"unet.lora_alpha": 4, "unet.alpha_pattern": {"tn1.to_q": 1}}),
            2.0,
        ),
        (
            json!({"unet.lora_alpha": 4, "unet.use_rslora": true}),
            4.0 / 2.0f64.sqrt(),
        ),
        (json!({"text_encoder.lora_alpha": 4}), 1.0),
    ] {
        let header = header.to_string();
        let found = model.with(&peft("unet."), &[("lora_adapter_metadata", &header)], &1.0.into());
        expect(&found, scale);
    }
    fs::write(
        model.folder.path().join("adapter_config.json"),
        r#"{"r": 2, "lora_alpha": 6}"#,
    )
    .unwrap();
    let raw = peft("base_model.model.");
    let raw = raw
        .into_iter()
        .map(|(name, array)| (name.replace(".weight", ".default.weight"), array))
        .collect();
    expect(&model.with(&raw, &[], &1.0.into()), 3.0);
}

#[test]
fn linear_layers_and_convolutions_of_one_pixel_are_the_same() {
    let (model, before) = (Model::unet(), unet());
    let (down, up) = (array(81, &[2, 4]), array(82, &[6, 2]));
    let delta = einsum("or,ri->oi", &[&up, &down]);
    let wide = |array: &Array| array.reshaped(&[&array.shape[..], &[1, 1]].concat());
    for (module, down, up) in [
        (
            "down_blocks.0.attentions.0.proj_in".to_string(),
            down.clone(),
            up.clone(),
        ),
        (format!("{BLOCK}.attn1.to_q"), wide(&down), wide(&up)),
    ] {
        let weight = format!("{module}.weight");
        let delta = delta.reshaped(&before[&weight].shape);
        let lora = of_module(&module, vec![("lora_down.weight", down), ("lora_up.weight", up)]);
        only(
            &model.with(&lora, &[], &1.0.into()),
            &[(&weight, before[&weight].plus(&delta))],
        );
    }
}

#[test]
fn an_inpainting_models_further_channels_stay() {
    let (model, w) = (Model::unet(), unet()["conv_in.weight"].clone());
    let (down, up) = (array(91, &[2, 4, 3, 3]), array(92, &[4, 2, 1, 1]));
    let lora = of_module(
        "conv_in",
        vec![("lora_down.weight", down.clone()), ("lora_up.weight", up.clone())],
    );
    let delta = einsum("orxy,rikl->oikl", &[&up, &down]);
    let mut want = w.clone();
    for (place, value) in want.values.iter_mut().enumerate() {
        let (output, input, tap) = (place / 81, place / 9 % 9, place % 9);
        if input < 4 {
            *value += delta.values[(output * 4 + input) * 9 + tap];
        }
    }
    only(&model.with(&lora, &[], &1.0.into()), &[("conv_in.weight", want)]);
}

#[test]
fn parts_of_a_model_may_have_scales_of_their_own() {
    let (model, before) = (Model::unet(), unet());
    let (down, up) = (array(71, &[2, 4]), array(72, &[6, 2]));
    let delta = einsum("or,ri->oi", &[&up, &down]);
    let module = format!("{BLOCK}.attn1.to_q");
    let weight = format!("{module}.weight");
    let lora = of_module(&module, vec![("lora_down.weight", down), ("lora_up.weight", up)]);
    let scale = LoraScale::from(0.9)
        .with("unet.down_blocks", 0.5)
        .with("unet.down_blocks.0", 0.25)
        .with("unet.down_blocks.00", 7.0);
    only(
        &model.with(&lora, &[], &scale),
        &[(&weight, before[&weight].plus(&delta.scaled(0.25)))],
    );
}

fn low_rank(module: &str, outputs: usize, inputs: usize) -> Tensors {
    of_module(
        module,
        vec![
            ("lora_down.weight", array(1, &[2, inputs])),
            ("lora_up.weight", array(2, &[outputs, 2])),
        ],
    )
}

#[test]
fn what_does_not_fit_is_named_and_the_rest_is_applied() {
    let model = Model::unet();
    let mut lora = low_rank(&format!("{BLOCK}.attn1.to_q"), 6, 4);
    lora.extend(low_rank("up_blocks.7.resnets.0.conv1", 6, 4));
    lora.extend(low_rank("mid_block.x", 6, 4));
    // kohya's conversion in diffusers makes nothing of a file with one foreign key (ComfyUI puts embeddings into LoRA files).
    lora.insert("bundle_emb.cat.string_to_param.*".into(), array(3, &[1, 8]));
    let path = model.file(&lora, &[]);
    let fit = model.fit(&path, &1.0.into()).unwrap();
    assert_eq!((fit.modules(), fit.misfits().len()), (1, 3));
    let notice = fit.notice().unwrap();
    for part in [
        "1 of its modules",
        "bundle_emb",
        "there is no up_blocks_7_resnets_0_conv1",
        "mid_block_x",
    ] {
        assert!(notice.contains(part), "{notice}");
    }
    // A weight of another shape, and one that a file names under two names.
    let mut lora = low_rank(&format!("{BLOCK}.attn1.to_q"), 6, 4);
    lora.extend(low_rank(&format!("{RESNET}.conv1"), 6, 5));
    let inside = ["weight"].map(|_| low_rank("input_blocks.1.1.transformer_blocks.0.attn1.to_q", 6, 4));
    lora.extend(inside.into_iter().flatten());
    let path = model.file(&lora, &[]);
    let notice = model.fit(&path, &1.0.into()).unwrap().notice().unwrap();
    assert!(
        notice.contains("changes a weight of 6 x 5, where the model has 6 x 36"),
        "{notice}"
    );
    assert!(notice.contains("under another name too"), "{notice}");
}

#[test]
fn files_in_the_wild_are_read() {
    let text = |layers: &str| -> Tensors {
        [(
            format!("{layers}encoder.layers.0.mlp.fc1.weight"),
            array(1, &[6, 4]),
        )]
        .into()
    };
    let mut parts = vec![(Component::Unet, unet())];
    parts.push((Component::TextEncoder, text("text_model.")));
    // Version 5 of transformers leaves the prefix out.
    parts.push((Component::TextEncoder2, text("")));
    let model = Model::new(parts);
    let fits = |names: &[(&str, &[usize])]| {
        let lora = names
            .iter()
            .map(|(name, shape)| ((*name).to_string(), array(5, shape)))
            .collect();
        let fit = model.fit(&model.file(&lora, &[]), &1.0.into()).unwrap();
        assert_eq!(
            (fit.modules(), fit.notice()),
            (names.len() / 2, None),
            "{names:?}"
        );
    };
    let (down, up, kernel, pixel): (&[usize], &[usize], &[usize], &[usize]) =
        (&[2, 4], &[6, 2], &[2, 4, 3, 3], &[6, 2, 1, 1]);
    // A1111 8360, kohya_ss 307 and 310: convolutions by diffusers' names; stable-diffusion.cpp 203: by XL's original names.
    fits(&[
        ("lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", kernel),
        ("lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight", pixel),
    ]);
    fits(&[
        ("lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight", kernel),
        ("lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight", pixel),
    ]);
    // stable-diffusion.cpp 213: both text encoders, in any spelling.
    fits(&[
        (
            "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
            down,
        ),
        (
            "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
            up,
        ),
        (
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
            down,
        ),
        (
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
            up,
        ),
    ]);
    fits(&[
        (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            down,
        ),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", up),
        (
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            down,
        ),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", up),
    ]);
    fits(&[
        ("text_encoder.encoder.layers.0.mlp.fc1.lora_A.weight", down),
        ("text_encoder.encoder.layers.0.mlp.fc1.lora_B.weight", up),
    ]);
    // ComfyUI 3494: one module in two spellings, of which neither is whole.
    fits(&[
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1.to_q.lora_magnitude_vector",
            &[6],
        ),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            down,
        ),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
            up,
        ),
    ]);
    // Standalone trainers' prefix, and ComfyUI's generic one.
    fits(&[
        (
            "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            down,
        ),
        (
            "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
            up,
        ),
    ]);
    fits(&[
        (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
            down,
        ),
        (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_B.weight",
            up,
        ),
    ]);
}

#[test]
fn a_lora_for_another_base_is_refused_and_says_so() {
    let model = Model::unet();
    // ComfyUI 2364, diffusers: names that are there, and texts of another width.
    let path = model.file(&low_rank(&format!("{BLOCK}.attn2.to_k"), 6, 2048), &[]);
    let error = model.refusal(&path);
    assert!(
        error.contains("another base model") && error.contains("2048 numbers, as Stable Diffusion XL does"),
        "{error}"
    );
    assert!(error.contains("vectors of 8"), "{error}");
    let path = model.file(
        &low_rank("output_blocks.5.1.transformer_blocks.9.attn1.to_q", 6, 4),
        &[("ss_base_model_version", "sdxl_base_v1-0")],
    );
    let error = model.refusal(&path);
    assert!(
        error.contains("fits nowhere") && error.contains("sdxl_base_v1-0"),
        "{error}"
    );
}

#[test]
fn what_is_no_lora_is_said() {
    let model = Model::unet();
    for (name, part) in [
        // kohya-trainer 230: a whole model in place of a LoRA.
        ("model.diffusion_model.input_blocks.0.0.weight", "whole model"),
        ("emb_params", "embedding"),
        ("control_model.input_hint_block.0.weight", "ControlNet"),
        ("lora_unet_down_blocks_0_proj.oft_blocks", "not there yet"),
        ("lora_unet_x", "the first name in it is `lora_unet_x`"),
    ] {
        let path = model.file(&[(name.to_string(), array(1, &[2, 2]))].into(), &[]);
        let error = model.refusal(&path);
        assert!(error.contains(part), "{error}");
    }
    let error = model.refusal(&model.file(&Tensors::new(), &[]));
    assert!(error.contains("empty"), "{error}");
}

#[test]
fn hostile_files_are_refused_with_a_sentence() {
    let model = Model::unet();
    let module = format!("{BLOCK}.attn1.to_q");
    let refuse = |parts: Vec<(&str, Array)>, said: &str| {
        let error = model.refusal(&model.file(&of_module(&module, parts), &[]));
        assert!(error.contains(said), "`{said}` is not in: {error}");
    };
    let (down, up) = (array(1, &[2, 4]), array(2, &[6, 2]));
    let both = |part: (&'static str, Array)| {
        vec![
            ("lora_down.weight", down.clone()),
            ("lora_up.weight", up.clone()),
            part,
        ]
    };
    refuse(both(("alpha", number(f64::NAN))), "not finite");
    refuse(both(("alpha", array(1, &[3]))), "has alpha of shape [3]");
    refuse(both(("scale", number(f64::INFINITY))), "not finite");
    refuse(both(("dora_scale", array(1, &[5, 1]))), "has dora_scale [5, 1]");
    refuse(
        both(("lora_mid.weight", array(1, &[3, 3, 1, 1]))),
        "do not fit each other",
    );
    refuse(both(("lora_mid.weight", array(1, &[2]))), "too few axes");
    refuse(vec![("lora_down.weight", down.clone())], "lacks lora_up");
    refuse(vec![("lora_up.weight", up.clone())], "lacks lora_down");
    refuse(vec![("alpha", number(1.0))], "nothing that changes a weight");
    refuse(
        vec![
            ("lora_down.weight", array(1, &[3, 4])),
            ("lora_up.weight", up.clone()),
        ],
        "do not fit each other",
    );
    refuse(
        vec![
            ("lora_down.weight", array(1, &[0, 4])),
            ("lora_up.weight", array(1, &[6, 0])),
        ],
        "no matrix",
    );
    refuse(
        vec![
            ("lora_down.weight", array(1, &[8])),
            ("lora_up.weight", up.clone()),
        ],
        "no matrix",
    );
    refuse(
        vec![
            ("lora_down.weight", array(1, &[5000, 4])),
            ("lora_up.weight", array(1, &[6, 5000])),
        ],
        "rank 5000",
    );
    refuse(
        vec![("lokr_w1", array(1, &[3, 2])), ("lokr_w2_a", array(1, &[2, 2]))],
        "lacks lokr_w2_b",
    );
    refuse(
        vec![
            ("lokr_w1", array(1, &[100, 100])),
            ("lokr_w2", array(1, &[100, 100])),
        ],
        "10000 x 10000",
    );
    refuse(vec![("hada_w1_a", array(1, &[6, 2]))], "lacks hada_w1_b");
    refuse(vec![("diff", array(1, &[4, 6]))], "changes a weight of 4 x 6");
    refuse(vec![("diff_b", array(1, &[7]))], "changes a bias of [7]");
    let broken = Array {
        values: vec![f64::NAN; 8],
        ..down.clone()
    };
    refuse(
        vec![("lora_down.weight", broken), ("lora_up.weight", up.clone())],
        "not finite",
    );

    // A core that is cheap to store and dear to compute with.
    let core = vec![
        ("hada_w1_a", array(1, &[3000, 6])),
        ("hada_w1_b", array(1, &[1, 4])),
        ("hada_t1", array(1, &[3000, 1, 1, 1])),
        ("hada_w2_a", array(1, &[6, 1])),
        ("hada_w2_b", array(1, &[1, 4])),
    ];
    refuse(core, "rank 3000");
    let path = model.file(
        &of_module(&module, both(("alpha", number(1.0)))),
        &[("lora_adapter_metadata", "{")],
    );
    assert!(model.refusal(&path).contains("broken lora_adapter_metadata"));

    // Thousands of keys of which none is anything.
    let many: Tensors = (0..20_000)
        .map(|i| (format!("lora_unet_x{i}.alpha"), number(1.0)))
        .collect();
    let error = model.refusal(&model.file(&many, &[]));
    assert!(error.contains("of its 20000 modules none does"), "{error}");

    // A file that was cut short, and a scale that is no number.
    let path = model.file(&of_module(&module, both(("alpha", number(1.0)))), &[]);
    let fine = model.fit(&path, &f64::NAN.into()).err().unwrap().to_string();
    assert!(fine.contains("`lora` has the scale NaN"), "{fine}");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    assert!(model.refusal(&path).contains("not a whole safetensors file"));
}
