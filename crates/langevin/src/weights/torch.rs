//! What `torch.save` writes: since PyTorch 1.6 a zip archive with the pickle beside the numbers, before that one pickle
//! after another and then the numbers.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, Read},
    ops::Range,
    path::Path,
    sync::Arc,
};

use safetensors::Dtype;
use zip::{CompressionMethod, ZipArchive};

use super::{
    StoredTensor,
    layout::Bytes,
    pickle::{Pickle, Value},
    rebuild::{self, TensorRef},
};

/// What a zip archive begins with.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";
/// What the older format begins with: a pickle of PyTorch's magic number, and one of its version, 1001.
pub(super) const LEGACY: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";

/// A pickle names tensors; this many bytes name more than any model has.
const PICKLE_LIMIT: u64 = 64 << 20;

/// A file of `torch.save` that holds a state dict.
pub(super) struct TorchFile {
    storages: Storages,
    tensors: BTreeMap<String, Arc<TensorRef>>,
    step: Option<i64>,
    title: Option<String>,
    /// The storage that was read last: many tensors may be views of one.
    latest: Option<(Arc<str>, Arc<Vec<u8>>)>,
}

enum Storages {
    /// One entry each, `folder/data/key`.
    Zip {
        archive: ZipArchive<BufReader<File>>,
        folder: String,
    },
    /// The whole file, and where in it each lies.
    Legacy {
        bytes: Arc<Vec<u8>>,
        places: HashMap<String, Range<usize>>,
    },
}

impl TorchFile {
    /// Opens a zip archive. Errors are parts of sentences that begin with the file's name.
    pub(super) fn open_zip(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken_zip)?;
        let mut folder = None;
        for name in archive.file_names() {
            if let Some(found) = name.map_err(broken_zip)?.strip_suffix("/data.pkl") {
                folder = Some(found.to_string());
            }
        }
        let folder =
            folder.ok_or("is a zip archive, but not one of torch.save: there is no data.pkl in it")?;
        let order = format!("{folder}/byteorder");
        if archive.index_for_name(&order).is_some() && entry(&mut archive, &order, 16)? != b"little" {
            return Err("was written on a big-endian machine, which is not supported".into());
        }
        let pickle = entry(&mut archive, &format!("{folder}/data.pkl"), PICKLE_LIMIT)?;
        let pickle = Pickle::read(&pickle, &mut 0)?;
        Ok(Self {
            storages: Storages::Zip { archive, folder },
            tensors: state_dict(&pickle)?,
            step: step(&pickle),
            title: title(&pickle),
            latest: None,
        })
    }

    /// Reads a file of the older format, which begins with [`LEGACY`].
    pub(super) fn open_legacy(bytes: Vec<u8>) -> Result<Self, String> {
        let mut at = LEGACY.len();
        let system = Pickle::read(&bytes, &mut at)?;
        if let Some(Value::Bool(false)) = system.get(system.root(), "little_endian") {
            return Err("was written on a big-endian machine, which is not supported".into());
        }
        let pickle = Pickle::read(&bytes, &mut at)?;
        let tensors = state_dict(&pickle)?;
        let storages = pickle.storages().iter();
        let dtypes: HashMap<&str, Dtype> = storages.map(|storage| (&*storage.key, storage.dtype)).collect();
        let keys = Pickle::read(&bytes, &mut at)?;
        let mut places = HashMap::new();
        for key in keys.items(keys.root()) {
            let Value::Text(key) = key else {
                return Err("has a broken list of storages".into());
            };
            let dtype = dtypes
                .get(&**key)
                .ok_or_else(|| format!("has a storage `{key}` that no tensor uses"))?;
            let place = numbers_at(&bytes, at, *dtype).ok_or("ends in the middle of its weights")?;
            at = place.end;
            places.insert(key.to_string(), place);
        }
        Ok(Self {
            storages: Storages::Legacy {
                bytes: Arc::new(bytes),
                places,
            },
            tensors,
            step: step(&pickle),
            title: title(&pickle),
            latest: None,
        })
    }

    /// How many steps of training it comes from, where it says so.
    pub(super) fn step(&self) -> Option<i64> {
        self.step
    }

    /// What the trainer of a learned embedding called it.
    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Every tensor's name with its type and shape.
    pub(super) fn tensors(&self) -> Vec<(String, StoredTensor)> {
        let stored = |(name, tensor): (&String, &Arc<TensorRef>)| {
            let stored = StoredTensor {
                dtype: tensor.storage.dtype,
                shape: tensor.shape.clone(),
            };
            (name.clone(), stored)
        };
        self.tensors.iter().map(stored).collect()
    }

    /// What a user would call it.
    pub(super) fn format(&self) -> &'static str {
        match self.storages {
            Storages::Zip { .. } => "PyTorch pickle",
            Storages::Legacy { .. } => "PyTorch pickle of before 1.6",
        }
    }

    /// A tensor's bytes, little-endian and row-major.
    pub(super) fn read(&mut self, name: &str) -> Result<Bytes<'static>, String> {
        let tensor = self.tensors.get(name).ok_or("does not hold it")?.clone();
        let key = &tensor.storage.key;
        let missing = || format!("lacks the storage `{key}`, which a tensor is a part of");
        let (bytes, storage) = match &mut self.storages {
            Storages::Legacy { bytes, places } => {
                let place = places.get(&**key).cloned().ok_or_else(missing)?;
                (bytes.clone(), place)
            }
            Storages::Zip { archive, folder } => match &self.latest {
                Some((latest, bytes)) if latest == key => (bytes.clone(), 0..bytes.len()),
                _ => {
                    // Before the next one is read: a storage may be as large as the model.
                    self.latest = None;
                    let name = format!("{folder}/data/{key}");
                    if archive.index_for_name(&name).is_none() {
                        return Err(missing());
                    }
                    let bytes = Arc::new(entry(archive, &name, u64::MAX)?);
                    self.latest = Some((key.clone(), bytes.clone()));
                    let whole = 0..bytes.len();
                    (bytes, whole)
                }
            },
        };
        match tensor.place() {
            Some(place) if place.end <= storage.len() => Ok(Bytes::Memory(
                bytes,
                storage.start + place.start..storage.start + place.end,
            )),
            _ => {
                let gathered = tensor.gather(bytes.get(storage).unwrap_or_default())?;
                let whole = 0..gathered.len();
                Ok(Bytes::Memory(Arc::new(gathered), whole))
            }
        }
    }
}

/// Where the numbers of a storage lie whose length stands at `at`, in eight bytes; `None` if the file ends before.
fn numbers_at(bytes: &[u8], at: usize, dtype: Dtype) -> Option<Range<usize>> {
    let length = bytes.get(at..)?.first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let start = at + 8;
    let end = start.checked_add(length.checked_mul(dtype.bitsize() / 8)?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// The content of an entry, which lies in the archive as it is: so it is no larger than the file, and `limit`.
fn entry(archive: &mut ZipArchive<BufReader<File>>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let mut entry = archive.by_name(name).map_err(broken_zip)?;
    if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
        return Err(format!(
            "has a compressed entry {name}, which torch.save does not write"
        ));
    }
    if entry.size() > limit {
        return Err(format!("has an entry {name} of {} bytes", entry.size()));
    }
    // Nothing is reserved on the word of a header: what is there is read.
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .map_err(|e| format!("is not whole: {name}: {e}"))?;
    Ok(content)
}

fn broken_zip(error: zip::result::ZipError) -> String {
    format!("is not a whole zip archive, as torch.save writes them ({error})")
}

/// The tensors of a pickled state dict: of the whole pickle, or of what trainers keep under `state_dict` beside other things.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<String, Arc<TensorRef>>, String> {
    let root = pickle.root();
    if let Some(parts) = parts(pickle) {
        return Ok(parts);
    }
    let inner = innermost(pickle);
    let is_whole = std::ptr::eq(root, inner);
    if let Value::Unknown(name) = inner {
        return Err(rebuild::refused(name));
    }
    if !matches!(inner, Value::Dict(_)) {
        return Err("holds no state dict: a dict of names and tensors".into());
    }
    let (entries, _) = pickle.items(inner).as_chunks::<2>();
    let mut tensors = BTreeMap::new();
    for entry in entries {
        match entry {
            [Value::Text(name), Value::Tensor(tensor)] => {
                drop(tensors.insert(name.to_string(), tensor.clone()))
            }
            [_, Value::Unknown(name)] => return Err(rebuild::refused(name)),
            _ if !is_whole => {}
            [Value::Text(name), _] => {
                return Err(format!(
                    "holds `{name}`, which is no tensor: a state dict of weights alone is needed"
                ));
            }
            _ => return Err("holds no state dict: a key is no text".into()),
        }
    }
    Ok(tensors)
}

/// The two dicts that an IP-Adapter's file consists of.
const PARTS: [&str; 2] = ["image_proj", "ip_adapter"];

/// The tensors of an IP-Adapter's two dicts, with the dict's name before their own, as its safetensors have them; `None` where these are
/// not all that there is.
fn parts(pickle: &Pickle) -> Option<BTreeMap<String, Arc<TensorRef>>> {
    let mut tensors = BTreeMap::new();
    for part in PARTS {
        let inner = pickle.get(pickle.root(), part)?;
        let (entries, _) = pickle.items(inner).as_chunks::<2>();
        for entry in entries {
            let [Value::Text(name), Value::Tensor(tensor)] = entry else {
                return None;
            };
            tensors.insert(format!("{part}.{name}"), tensor.clone());
        }
    }
    Some(tensors)
}

/// Where the trainers of textual inversion keep what was learned.
const LEARNED: &str = "string_to_param";

/// The dict of what was learned, or the one under `state_dict`, and under `state_dict` in that, as far as there is one.
fn innermost(pickle: &Pickle) -> &Value {
    /// A dict may lie in itself.
    const DEEPEST: usize = 4;
    if let Some(learned @ Value::Dict(_)) = pickle.get(pickle.root(), LEARNED) {
        return learned;
    }
    let inner = |value: &&_| {
        pickle
            .get(value, "state_dict")
            .filter(|inner| matches!(inner, Value::Dict(_)))
    };
    let nested = std::iter::successors(Some(pickle.root()), inner);
    nested.take(DEEPEST).last().unwrap_or(pickle.root())
}

/// What A1111 calls the embedding that it trained.
fn title(pickle: &Pickle) -> Option<String> {
    pickle.get(pickle.root(), LEARNED)?;
    match pickle.get(pickle.root(), "name") {
        Some(Value::Text(name)) => Some(name.to_string()),
        _ => None,
    }
}

/// The trainer's count of steps.
fn step(pickle: &Pickle) -> Option<i64> {
    match pickle.get(pickle.root(), "global_step") {
        Some(Value::Int(step)) => Some(*step),
        _ => None,
    }
}
