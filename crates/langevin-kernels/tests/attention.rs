//! Attention against plain sums in `f64`, on every instruction set.

mod common;

use common::{assert_close, assert_same_bits, instruction_sets, random, wide, with_thread_counts};
use langevin_kernels::attention::{AttentionShape, attention_backward, attention_forward};

struct Layer {
    shape: AttentionShape,
    scale: f32,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gout: Vec<f32>,
}

/// out, log_sum_exp, gq, gk, gv
type Results<T> = [Vec<T>; 5];

impl Layer {
    fn new(batch: usize, queries: usize, keys: usize, heads: usize, head_dim: usize) -> Self {
        let shape = AttentionShape {
            batch,
            queries,
            keys,
            heads,
            head_dim,
            causal: false,
        };
        let (of_queries, of_keys) = (
            batch * queries * heads * head_dim,
            batch * keys * heads * head_dim,
        );
        Self {
            shape,
            scale: 1.0 / (head_dim as f32).sqrt(),
            q: random(of_queries, 1).iter().map(|q| 3.0 * q).collect(),
            k: random(of_keys, 2),
            v: random(of_keys, 3),
            gout: random(of_queries, 4),
        }
    }

    fn causal(mut self) -> Self {
        self.shape.causal = true;
        self
    }

    fn run(&self) -> Results<f32> {
        self.run_with(0.0)
    }

    /// With logarithms of sums that are too small by `missing` in the backward.
    fn run_with(&self, missing: f32) -> Results<f32> {
        let AttentionShape {
            batch,
            queries,
            heads,
            ..
        } = self.shape;
        let nan = |len| vec![f32::NAN; len];
        let (mut out, mut lse) = (nan(self.q.len()), nan(batch * heads * queries));
        let (mut gq, mut gk, mut gv) = (nan(self.q.len()), nan(self.k.len()), nan(self.v.len()));
        attention_forward(
            &self.shape,
            self.scale,
            &self.q,
            &self.k,
            &self.v,
            &mut out,
            &mut lse,
        );
        lse.iter_mut().for_each(|lse| *lse -= missing);
        attention_backward(
            &self.shape,
            self.scale,
            &self.q,
            &self.k,
            &self.v,
            &out,
            &lse,
            &self.gout,
            &mut gq,
            &mut gk,
            &mut gv,
        );
        [out, lse, gq, gk, gv]
    }

    fn truth(&self) -> Results<f64> {
        let AttentionShape {
            batch,
            queries,
            keys,
            heads,
            head_dim: d,
            causal,
        } = self.shape;
        let (q, k, v, gout) = (wide(&self.q), wide(&self.k), wide(&self.v), wide(&self.gout));
        let scale = f64::from(self.scale);
        let mut out = vec![0.0; q.len()];
        let mut lse = vec![];
        let (mut gq, mut gk, mut gv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        for (n, h, t) in
            (0..batch).flat_map(|n| (0..heads).flat_map(move |h| (0..queries).map(move |t| (n, h, t))))
        {
            let row = (n * queries + t) * heads * d + h * d;
            let key = |j: usize| (n * keys + j) * heads * d + h * d;
            let dot = |a: &[f64], b: &[f64]| (0..d).map(|i| a[i] * b[i]).sum::<f64>();
            let seen = if causal { t + 1 } else { keys };
            let weights: Vec<f64> = (0..seen)
                .map(|j| (scale * dot(&q[row..], &k[key(j)..])).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            lse.push(sum.ln());
            for j in 0..seen {
                (0..d).for_each(|i| out[row + i] += weights[j] / sum * v[key(j) + i]);
            }
            let delta = dot(&out[row..], &gout[row..]);
            for j in 0..seen {
                let p = weights[j] / sum;
                let ds = scale * p * (dot(&gout[row..], &v[key(j)..]) - delta);
                for i in 0..d {
                    gv[key(j) + i] += p * gout[row + i];
                    gk[key(j) + i] += ds * q[row + i];
                    gq[row + i] += ds * k[key(j) + i];
                }
            }
        }
        [out, lse, gq, gk, gv]
    }
}

fn shapes() -> Vec<Layer> {
    vec![
        Layer::new(1, 1, 1, 1, 1),
        Layer::new(2, 64, 64, 8, 8),
        Layer::new(3, 16, 16, 2, 64),
        Layer::new(2, 49, 77, 3, 5),
        Layer::new(1, 33, 7, 2, 40),
        Layer::new(1, 5, 100, 1, 100),
        Layer::new(1, 256, 256, 2, 16),
        // More keys than go through at a time.
        Layer::new(2, 150, 700, 2, 24),
        Layer::new(1, 33, 1030, 1, 64),
        Layer::new(1, 3, 513, 2, 5),
        Layer::new(2, 77, 77, 2, 8).causal(),
        Layer::new(1, 600, 600, 1, 8).causal(),
        Layer::new(1, 3, 3, 1, 20).causal(),
    ]
}

#[test]
fn agrees_with_plain_sums() {
    for layer in shapes() {
        let truth = layer.truth();
        for isa in instruction_sets() {
            let results = isa.limit(|| layer.run());
            for ((name, values), truth) in ["out", "log_sum_exp", "gq", "gk", "gv"]
                .iter()
                .zip(&results)
                .zip(&truth)
            {
                assert_close(
                    &format!("{name} of {:?} with {isa:?}", layer.shape),
                    values,
                    truth,
                    5e-6,
                );
            }
        }
    }
}

#[test]
fn survives_scores_that_overflow_an_exponential() {
    for keys in [20, 1000] {
        let mut layer = Layer::new(1, 20, keys, 1, 8);
        layer.q.iter_mut().for_each(|q| *q *= 1e4);
        assert!(layer.run().concat().iter().all(|v| v.is_finite()));
    }
}

#[test]
fn logarithms_of_other_scores_give_no_gradient_that_looks_like_one() {
    let layer = Layer::new(1, 20, 20, 1, 8);
    for isa in instruction_sets() {
        let [.., gv] = isa.limit(|| layer.run_with(250.0));
        assert!(gv.iter().all(|v| !v.is_finite()), "{isa:?}");
    }
}

#[test]
fn gives_the_same_bits_with_any_number_of_threads_and_alone() {
    for keys in [130, 600] {
        one_sequence_and_all(&Layer::new(4, 100, keys, 4, 24));
    }
}

fn one_sequence_and_all(layer: &Layer) {
    with_thread_counts("attention", || layer.run().concat());
    let all = layer.run();
    let part = |values: &[f32], n: usize| values[n * values.len() / 4..][..values.len() / 4].to_vec();
    for n in 0..4 {
        let alone = Layer {
            shape: AttentionShape {
                batch: 1,
                ..layer.shape
            },
            scale: layer.scale,
            q: part(&layer.q, n),
            k: part(&layer.k, n),
            v: part(&layer.v, n),
            gout: part(&layer.gout, n),
        };
        for (one, all) in alone.run().iter().zip(&all) {
            assert_same_bits("one sequence", one, &part(all, n));
        }
    }
}
