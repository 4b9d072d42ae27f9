//! Adapters that are lent to a model: they lie beside its layers while a forward runs, by the identities of these layers' weights. The model is
//! not changed, so others may use it at the same time, with other adapters or none.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use burn::module::{Module, ParamId};

use super::adapter::{Adapter, Strength};

/// The adapters of one LoRA for the layers of one model.
#[derive(Clone, Debug)]
pub struct LentAdapters {
    /// What it is called: rows of several are added up in the order of their keys, whatever else is computed beside them.
    key: String,
    layers: HashMap<ParamId, Arc<Adapter>>,
}

impl LentAdapters {
    /// Adapters that lie beside the layers with these weights. `key` tells them from others of the same model.
    pub fn new(key: impl Into<String>, layers: impl IntoIterator<Item = (ParamId, Adapter)>) -> Self {
        let layers = layers.into_iter();
        Self {
            key: key.into(),
            layers: layers
                .map(|(weight, adapter)| (weight, Arc::new(adapter)))
                .collect(),
        }
    }

    /// What they are called.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How many layers they lie beside.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// How many parameters they have.
    pub fn num_parameters(&self) -> usize {
        self.layers.values().map(|adapter| adapter.num_params()).sum()
    }

    /// The same under another key, each counting so many times as strongly.
    pub(crate) fn scaled(&self, key: String, factor: impl Fn(&ParamId) -> f64) -> Self {
        let scaled = |(weight, adapter): (&ParamId, &Arc<Adapter>)| {
            let mut adapter = Adapter::clone(adapter);
            adapter.scale = (f64::from(adapter.scale) * factor(weight)) as f32;
            (*weight, Arc::new(adapter))
        };
        Self {
            key,
            layers: self.layers.iter().map(scaled).collect(),
        }
    }

    /// The weights of the layers that they lie beside.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &ParamId> {
        self.layers.keys()
    }
}

/// Adapters beside a batch: which, and how strongly each counts in each row.
#[derive(Clone, Debug, Default)]
pub struct LentRows {
    /// Sorted by their keys.
    all: Vec<(Arc<LentAdapters>, Vec<f32>)>,
    rows: usize,
}

impl LentRows {
    /// The same adapters for so many rows. Those that are named twice count as often.
    pub fn even(lent: impl IntoIterator<Item = (Arc<LentAdapters>, f32)>, rows: usize) -> Self {
        let mut all: Vec<(Arc<LentAdapters>, Vec<f32>)> = Vec::new();
        for (adapters, strength) in lent.into_iter().filter(|(adapters, _)| !adapters.is_empty()) {
            match all.iter_mut().find(|(known, _)| known.key == adapters.key) {
                Some((_, strengths)) => strengths.iter_mut().for_each(|known| *known += strength),
                None => all.push((adapters, vec![strength; rows])),
            }
        }
        all.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        Self { all, rows }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many rows they are beside.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Of the given rows, in their order.
    pub(crate) fn of_rows(&self, rows: &[usize]) -> Self {
        let of = |strengths: &Vec<f32>| rows.iter().map(|&row| strengths[row]).collect();
        Self {
            all: self
                .all
                .iter()
                .map(|(adapters, strengths)| (adapters.clone(), of(strengths)))
                .collect(),
            rows: rows.len(),
        }
    }

    /// Those of these rows, then those of the others. Each row keeps the order in which its own are added up, so that it comes to what it
    /// comes to alone.
    pub(crate) fn followed_by(&self, other: &Self) -> Self {
        let rows = self.rows + other.rows;
        let mut all: Vec<(Arc<LentAdapters>, Vec<f32>)> = Vec::new();
        for (first, lent) in [(0, self), (self.rows, other)] {
            for (adapters, strengths) in &lent.all {
                let known = all.iter().position(|(known, _)| Arc::ptr_eq(known, adapters));
                let place = known.unwrap_or_else(|| {
                    all.push((adapters.clone(), vec![0.0; rows]));
                    all.len() - 1
                });
                all[place].1[first..first + lent.rows].copy_from_slice(strengths);
            }
        }
        all.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        Self { all, rows }
    }

    /// Runs a forward of these rows with them.
    pub fn lend<R>(&self, work: impl FnOnce() -> R) -> R {
        let lent = self.all.iter().map(|(adapters, strengths)| Lent {
            adapters: adapters.clone(),
            strength: Strength::Rows(strengths.clone()),
        });
        lending(lent.collect(), work)
    }
}

/// Adapters, and how strongly they count in a forward.
#[derive(Clone, Debug)]
pub struct Lent {
    /// The adapters.
    pub adapters: Arc<LentAdapters>,
    /// How strongly each of them counts.
    pub strength: Strength,
}

thread_local! {
    static LENT: RefCell<Option<Arc<[Lent]>>> = const { RefCell::new(None) };
}

/// Runs a forward with these beside its model's layers, in their order. It holds on this thread until `work` returns, and goes inside of
/// [`ops::in_pool`](crate::ops::in_pool), which takes `work` to another thread.
pub fn lending<R>(lent: Vec<Lent>, work: impl FnOnce() -> R) -> R {
    lending_as((!lent.is_empty()).then(|| lent.into()), work)
}

/// [`lending`] as another forward did, see [`held`].
pub(super) fn lending_as<R>(lent: Option<Arc<[Lent]>>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<[Lent]>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LENT.set(self.0.take());
        }
    }
    let _restore = Restore(LENT.replace(lent));
    work()
}

/// What holds on this thread.
pub(super) fn held() -> Option<Arc<[Lent]>> {
    LENT.with_borrow(Clone::clone)
}

/// Whether some lie beside the layer of this weight.
pub(super) fn are_on(weight: ParamId) -> bool {
    LENT.with_borrow(|lent| {
        let mut lent = lent.iter().flat_map(|lent| lent.iter());
        lent.any(|lent| lent.counts() && lent.adapters.layers.contains_key(&weight))
    })
}

/// Those beside the layer of this weight that count, and how strongly.
pub(super) fn on(weight: ParamId) -> Vec<(Arc<Adapter>, Strength)> {
    LENT.with_borrow(|lent| {
        let lent = lent.iter().flat_map(|lent| lent.iter());
        let own = |lent: &Lent| {
            let adapter = lent.adapters.layers.get(&weight)?;
            Some((adapter.clone(), lent.strength.clone()))
        };
        lent.filter(|lent| lent.counts()).filter_map(own).collect()
    })
}

impl Lent {
    fn counts(&self) -> bool {
        self.strength.counts()
    }
}
