//! The weights of a model as they lie in files: one safetensors file, several with an index, GGUF, or the pickles of older
//! repositories. Nothing of a pickle is executed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, ErrorKind, Write},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::safetensors::Dtype;
use burn::tensor::{Bytes as Memory, DType};
use half::{bf16, f16, vec::HalfFloatVecExt};
use langevin_kernels::buffer::Buffer;

use super::{
    DIFFUSERS, Edit, FileNames, NamedTensor, Precision, find,
    gguf::{self, GgufFile},
    index::Index,
    layout::{self, Bytes, as_type, to_bytes, turned},
    names,
    safetensors::{self, Entry, SafetensorsFile},
    torch::{self, TorchFile},
};
use crate::{Error, Result, files};

/// A tensor of a checkpoint, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// What its numbers are.
    pub dtype: Dtype,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
}

/// A model's weights, in whichever of diffusers' formats they are stored.
///
/// Parameters have today's names, whatever they are called in the files.
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<WeightsFile>>,
    places: BTreeMap<String, Place>,
    early_names: bool,
    keeps_types: bool,
    rounds: bool,
    in_bf16: bool,
}

/// A parameter's numbers, in the type that its module holds them in.
pub(super) struct Parameter {
    pub bytes: Memory,
    pub dtype: DType,
}

/// Where a parameter is.
struct Place {
    file: usize,
    /// What it, or the tensor that it is a part of, is called there.
    name: String,
    stored: StoredTensor,
    /// How many numbers of the tensor come before it.
    first: usize,
    /// Whether it is a matrix that lies in the file the other way round.
    transposed: bool,
    /// What is changed of it as it is read, in turn.
    edits: Vec<Arc<dyn Edit>>,
}

/// A parameter that is made of a stored tensor without a number being changed.
pub(super) struct Part {
    /// The tensor.
    pub of: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// How many of the tensor's numbers come before it.
    pub first: usize,
    /// Whether it is the matrix the other way round.
    pub transposed: bool,
}

impl Place {
    /// How a parameter of this shape lies in the file.
    fn shape_in_file(&self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        if self.transposed {
            shape.reverse();
        }
        shape
    }
}

impl Checkpoint {
    /// The weights of the model in `folder`, see [`Self::variant_in`].
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    pub fn in_folder(folder: impl AsRef<Path>) -> Result<Self> {
        Self::variant_in(folder, None)
    }

    /// The weights of the model in `folder`: of several files those that diffusers would load, safetensors before
    /// pickles. `variant` is what stands in the names of other versions of the same weights, `fp16` in
    /// `diffusion_pytorch_model.fp16.safetensors`; `None` is the plain files, or else the only variant that there is.
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    pub fn variant_in(folder: impl AsRef<Path>, variant: Option<&str>) -> Result<Self> {
        Self::named(folder, variant, &DIFFUSERS)
    }

    /// The same where the files are called otherwise.
    ///
    /// # Errors
    /// As [`Self::variant_in`].
    pub fn named(folder: impl AsRef<Path>, variant: Option<&str>, names: &FileNames) -> Result<Self> {
        Self::open(find::weights_in(folder.as_ref(), variant, names)?)
    }

    /// Tensors that were made here, as if they lay in the file `path`.
    pub(crate) fn of_tensors(path: PathBuf, tensors: Vec<NamedTensor>) -> Self {
        let stored = |tensor: NamedTensor| {
            let stored = StoredTensor {
                dtype: Dtype::F32,
                shape: tensor.shape,
            };
            (
                tensor.name,
                (stored, Arc::new(to_bytes(&tensor.values).into_owned())),
            )
        };
        let content = Content::Memory(tensors.into_iter().map(stored).collect());
        let file = WeightsFile {
            path: path.clone(),
            content,
        };
        let mut checkpoint = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
            early_names: false,
            keeps_types: false,
            rounds: false,
            in_bf16: false,
            path,
        };
        // Only an index looks for names that may not be there.
        drop(checkpoint.add(file, None));
        checkpoint
    }

    /// Gives every tensor another name, or leaves it out where there is none.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        self.places = std::mem::take(&mut self.places)
            .into_iter()
            .filter_map(|(old, place)| Some((name(&old)?, place)))
            .collect();
    }

    /// Other parameters that lie in the same files: each is a part of a tensor that there is, and not longer than it.
    pub(super) fn of_parts(&self, parts: impl IntoIterator<Item = (String, Part)>) -> Self {
        let place = |(name, part): (String, Part)| {
            let whole = self.places.get(&part.of)?;
            let stored = StoredTensor {
                dtype: whole.stored.dtype,
                shape: part.shape,
            };
            let place = Place {
                file: whole.file,
                name: whole.name.clone(),
                stored,
                first: whole.first + part.first,
                transposed: whole.transposed != part.transposed,
                edits: Vec::new(),
            };
            Some((name, place))
        };
        Self {
            path: self.path.clone(),
            files: self.files.clone(),
            places: parts.into_iter().filter_map(place).collect(),
            early_names: self.early_names,
            keeps_types: self.keeps_types,
            rounds: self.rounds,
            in_bf16: self.in_bf16,
        }
    }

    /// The same checkpoint, in which what is merged into weights is rounded to the type that they are stored in.
    pub(crate) fn rounding(mut self) -> Self {
        self.rounds = true;
        self
    }

    /// The same checkpoint, whose weights of 16 bits stay so in models that are loaded from it, where an operation takes them: those of linear
    /// layers, convolutions and embeddings on a CPU. It is for models that draw, which come to the same bits in half the memory; what is trained
    /// is float32. A weight that a LoRA is merged into is float32 too: what it changes is often less than a step between two numbers of 16 bits.
    pub fn keeping_types(mut self) -> Self {
        self.keeps_types = true;
        self
    }

    /// The same checkpoint, whose weights are rounded to bf16 where an operation takes them so, whatever they are stored as: half of the memory for
    /// what is not trained.
    pub fn in_bf16(mut self) -> Self {
        self.in_bf16 = true;
        self
    }

    /// Changes a parameter from now on, as it is read; one that there is not is left alone.
    pub(super) fn edit(&mut self, name: &str, edit: Arc<dyn Edit>) {
        if let Some(place) = self.places.get_mut(name) {
            place.edits.push(edit);
        }
    }

    /// What the header of a safetensors file says under a key.
    pub(super) fn metadata(&self, key: &str) -> Option<String> {
        self.files.iter().find_map(|file| match &file.content {
            Content::Safetensors(file) => file.metadata(key).map(str::to_owned),
            _ => None,
        })
    }

    /// How many steps of training the weights come from, where a trainer's file says so.
    pub fn step(&self) -> Option<i64> {
        self.files.iter().find_map(|file| match &file.content {
            Content::Torch(file) => lock(file).step(),
            _ => None,
        })
    }

    /// What the trainer of a learned embedding called it, where the file says so.
    pub(crate) fn title(&self) -> Option<String> {
        self.files.iter().find_map(|file| match &file.content {
            Content::Torch(file) => lock(file).title().map(String::from),
            _ => None,
        })
    }

    /// Opens a file of weights, or an index (`*.json`) with all the files that it names.
    ///
    /// # Errors
    /// If a file is missing, is of none of the formats, or not whole; or if it is a pickle that asks for more than
    /// tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut checkpoint = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
            early_names: false,
            keeps_types: false,
            rounds: false,
            in_bf16: false,
            path,
        };
        if checkpoint
            .path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let index = Index::load(&checkpoint.path)?;
            for (shard, names) in index.shards() {
                checkpoint.add(WeightsFile::open(shard)?, Some(names))?;
            }
        } else {
            checkpoint.add(WeightsFile::open(checkpoint.path.clone())?, None)?;
        }
        Ok(checkpoint)
    }

    /// Adds the tensors of a file: all, or those that an index looks for in it.
    fn add(&mut self, file: WeightsFile, wanted: Option<&BTreeSet<String>>) -> Result<()> {
        let mut tensors = file.tensors();
        if let Some(wanted) = wanted {
            if let Some(name) = wanted.iter().find(|name| !tensors.contains_key(*name)) {
                let index = self.path.file_name().unwrap_or_default().to_string_lossy();
                return Err(Error::file(
                    &file.path,
                    format!("lacks {name}, which {index} looks for in it"),
                ));
            }
            tensors.retain(|name, _| wanted.contains(name));
        }
        // A file that has a parameter under both names has been brought up to date.
        let present: BTreeSet<String> = tensors.keys().cloned().collect();
        let wrapped = names::wrapped(present.iter());
        for (name, stored) in tensors {
            let plain = names::not_compiled(&name[wrapped..]);
            let today = names::present(&plain).filter(|today| !present.contains(today));
            self.early_names |= today.is_some();
            let place = Place {
                file: self.files.len(),
                name: name.clone(),
                stored,
                first: 0,
                transposed: false,
                edits: Vec::new(),
            };
            self.places.insert(today.unwrap_or(plain), place);
        }
        self.files.push(Arc::new(file));
        Ok(())
    }

    /// The file of the weights, or their index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The names that begin with `prefix`, sorted.
    pub(super) fn names_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let names = self.places.range::<str, _>(from).map(|(name, _)| name.as_str());
        names.take_while(move |name| name.starts_with(prefix))
    }

    /// How many bytes its numbers take in a module that is loaded from it, about.
    pub fn loaded_bytes(&self) -> u64 {
        let bytes = |Place { stored, edits, .. }: &Place| {
            let is_matrix = stored.shape.len() > 1;
            let stays = self.keeps_types && edits.is_empty() && is_matrix;
            let size = match stored.dtype {
                _ if self.in_bf16 && is_matrix => 2,
                Dtype::F16 | Dtype::BF16 if stays => 2,
                _ => size_of::<f32>() as u64,
            };
            let sides = stored.shape.iter().map(|&side| side as u64);
            sides.fold(size, u64::saturating_mul)
        };
        self.places.values().map(bytes).fold(0, u64::saturating_add)
    }

    /// Type and shape of a tensor; `None` if there is no such.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.places.get(name).map(|place| &place.stored)
    }

    /// A tensor's numbers in row-major order.
    ///
    /// # Errors
    /// If there is no such tensor, it holds no real numbers, or the file is not whole.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        self.read_as(name, false)
    }

    /// The same, with the first axis last where it is to be turned, see [`layout::read`].
    pub(super) fn read_as(&self, name: &str, as_turned: bool) -> Result<Vec<f32>> {
        let Some(place) = self.places.get(name) else {
            return Err(Error::file(&self.path, format!("lacks {name}")));
        };
        if place.edits.is_empty() {
            return self.read_stored(name, place, as_turned);
        }
        let mut values = self.read_stored(name, place, false)?;
        for edit in &place.edits {
            edit.apply(&mut values, &place.stored.shape)?;
        }
        Ok(if as_turned {
            turned(values, &place.stored.shape)
        } else {
            values
        })
    }

    /// A parameter as its module holds it: with its type where this checkpoint keeps types, the module `takes_halves` there and nothing is
    /// put on it.
    pub(super) fn read_parameter(
        &self,
        name: &str,
        as_turned: bool,
        takes_halves: bool,
    ) -> Result<Parameter> {
        let Some(place) = self.places.get(name) else {
            return Err(Error::file(&self.path, format!("lacks {name}")));
        };
        if self.in_bf16 && takes_halves {
            let values = self.read_as(name, as_turned)?;
            let mut room = Buffer::lasting(values.len().div_ceil(2));
            let halves = &mut room.as_halves_mut()[..values.len()];
            for (half, value) in halves.iter_mut().zip(&values) {
                *half = bf16::from_f32(*value).to_bits();
            }
            return Ok(Parameter {
                bytes: room.into_bytes(2 * values.len()),
                dtype: DType::BF16,
            });
        }
        let StoredTensor { dtype, shape } = &place.stored;
        let halves = match dtype {
            Dtype::F16 => Some(DType::F16),
            Dtype::BF16 => Some(DType::BF16),
            _ => None,
        };
        let halves = halves.filter(|_| self.keeps_types && takes_halves);
        if !place.edits.is_empty() {
            let values = self.read_as(name, as_turned)?;
            let halves = halves.filter(|_| self.rounds);
            let bytes = match halves {
                Some(DType::F16) => Memory::from_elems(Vec::<f16>::from_f32_slice(&values)),
                Some(_) => Memory::from_elems(Vec::<bf16>::from_f32_slice(&values)),
                None => Memory::from_elems(values),
            };
            let dtype = halves.unwrap_or(DType::F32);
            return Ok(Parameter { bytes, dtype });
        }
        let (stored, in_file) = (self.bytes(place)?, place.shape_in_file(shape));
        let (len, turned) = (shape.iter().product::<usize>(), as_turned != place.transposed);
        let size = if halves.is_some() { 2 } else { size_of::<f32>() };
        let mut room = Buffer::lasting((len * size).div_ceil(size_of::<f32>()));
        let read = match halves {
            Some(_) => {
                let into = &mut room.as_halves_mut()[..len];
                layout::read_into(&stored, *dtype, &in_file, turned, into)
            }
            None => layout::read_into(&stored, *dtype, &in_file, turned, &mut room),
        };
        read.ok_or_else(|| self.unreal(name, place))?
            .map_err(|e| self.unread(place, e))?;
        Ok(Parameter {
            bytes: room.into_bytes(len * size),
            dtype: halves.unwrap_or(DType::F32),
        })
    }

    /// A tensor's numbers as the file has them.
    fn read_stored(&self, name: &str, place: &Place, turned: bool) -> Result<Vec<f32>> {
        let StoredTensor { dtype, shape } = &place.stored;
        let in_file = place.shape_in_file(shape);
        let read = layout::read(&self.bytes(place)?, *dtype, &in_file, turned != place.transposed);
        match read {
            Some(read) => read.map_err(|e| self.unread(place, e)),
            None => Err(self.unreal(name, place)),
        }
    }

    /// The bytes from a parameter's first on.
    fn bytes(&self, place: &Place) -> Result<Bytes<'_>> {
        let size = place.stored.dtype.bitsize() / 8;
        Ok(self.files[place.file]
            .bytes(&place.name)?
            .after(place.first * size))
    }

    /// Why a parameter was not read.
    fn unread(&self, place: &Place, error: io::Error) -> Error {
        let path = &self.files[place.file].path;
        match error.kind() {
            ErrorKind::UnexpectedEof => Error::file(path, "ends in the middle of its weights"),
            _ => Error::io("read", path, error),
        }
    }

    /// Why a tensor is no parameter.
    fn unreal(&self, name: &str, place: &Place) -> Error {
        let dtype = place.stored.dtype;
        let message = format!("{name} is stored as {dtype:?}: weights must be F32, F64, F16 or BF16");
        Error::file(&self.files[place.file].path, message)
    }

    /// Checks that all tensors hold real numbers.
    ///
    /// # Errors
    /// If one does not.
    pub(super) fn check_types(&self) -> Result<()> {
        let unreal = |(_, place): &(&String, &Place)| layout::size(place.stored.dtype).is_none();
        match self.places.iter().find(unreal) {
            Some((name, place)) => Err(self.unreal(name, place)),
            None => Ok(()),
        }
    }

    /// Writes all tensors into a safetensors file, a piece of one after another, without a number being changed unless `precision` asks for it.
    ///
    /// # Errors
    /// If a tensor holds no real numbers, or a file cannot be read or written; what was at `path` before then still is.
    pub fn save(&self, path: impl AsRef<Path>, precision: Precision) -> Result<()> {
        self.check_types()?;
        let entries = self.places.iter().map(|(name, place)| {
            let dtype = precision.of(place.stored.dtype);
            Entry {
                name: name.clone(),
                dtype,
                shape: place.stored.shape.clone(),
                write: Box::new(move |w| self.copy(name, dtype, w)),
            }
        });
        safetensors::write(path.as_ref(), entries.collect())
    }

    /// Writes a tensor's numbers, row-major, as numbers of a type that [`Precision::of`] gives.
    pub(super) fn copy(&self, name: &str, to: Dtype, w: &mut dyn Write) -> io::Result<()> {
        self.copy_as(name, false, to, w)
    }

    /// The same, with a matrix the other way round where it is to be `transposed`.
    pub(super) fn copy_as(
        &self,
        name: &str,
        transposed: bool,
        to: Dtype,
        w: &mut dyn Write,
    ) -> io::Result<()> {
        let lacking = || Error::file(&self.path, format!("lacks {name}"));
        let place = self.places.get(name).ok_or_else(|| io::Error::other(lacking()))?;
        let StoredTensor { dtype, shape } = &place.stored;
        if !place.edits.is_empty() {
            let values = self.read_as(name, false).map_err(io::Error::other)?;
            let values = match *shape.as_slice() {
                [_, columns] if transposed => layout::turned_back(&values, 1, columns),
                _ => values,
            };
            return w.write_all(&as_type(Dtype::F32, &to_bytes(&values), to));
        }
        let bytes = self.bytes(place).map_err(io::Error::other)?;
        let copied = match *shape.as_slice() {
            [rows, columns] if place.transposed != transposed => {
                let in_file = if place.transposed {
                    [columns, rows]
                } else {
                    [rows, columns]
                };
                layout::copy_transposed(&bytes, *dtype, in_file, to, w)
            }
            _ => layout::copy(&bytes, *dtype, shape.iter().product(), to, w),
        };
        copied.map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => io::Error::other(self.unread(place, e)),
            _ => e,
        })
    }

    /// The file that a tensor is in; where there is no such tensor, [`Self::path`].
    pub fn file_of(&self, name: &str) -> &Path {
        self.places
            .get(name)
            .map_or(&self.path, |place| &self.files[place.file].path)
    }
}

/// What a user would want to know: `safetensors in 2 files, F16, early names of attention`.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let formats: BTreeSet<String> = self.files.iter().map(|file| file.format()).collect();
        let formats: Vec<String> = formats.into_iter().collect();
        write!(f, "{}", formats.join(" and "))?;
        if self.files.len() > 1 {
            write!(f, " in {} files", self.files.len())?;
        }
        // GGUF files say theirs themselves.
        let plain = |place: &&Place| !matches!(self.files[place.file].content, Content::Gguf(_));
        let dtypes: BTreeSet<String> = self
            .places
            .values()
            .filter(plain)
            .map(|p| format!("{:?}", p.stored.dtype))
            .collect();
        for dtype in dtypes {
            write!(f, ", {dtype}")?;
        }
        if self.early_names {
            write!(f, ", early names of attention")?;
        }
        Ok(())
    }
}

/// One file of weights.
struct WeightsFile {
    path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors(SafetensorsFile),
    Gguf(GgufFile),
    /// Its archive is read by one thread at a time.
    Torch(Box<Mutex<TorchFile>>),
    /// What was made here.
    Memory(BTreeMap<String, (StoredTensor, Arc<Vec<u8>>)>),
}

impl WeightsFile {
    /// Opens a file whose format its first bytes tell.
    fn open(path: PathBuf) -> Result<Self> {
        let torch = |file| Content::Torch(Box::new(Mutex::new(file)));
        let fail = |message: String| Error::file(&path, message);
        let start = first_bytes(&path).map_err(|e| Error::io("read", &path, e))?;
        let content = if start.starts_with(torch::ZIP) {
            torch(TorchFile::open_zip(&path).map_err(fail)?)
        } else if start.starts_with(torch::LEGACY) {
            let bytes = files::read(&path)?;
            torch(TorchFile::open_legacy(bytes).map_err(fail)?)
        } else if start.starts_with(gguf::MAGIC) {
            Content::Gguf(GgufFile::open(&path)?)
        } else if start.starts_with(b"version https://git-lfs") {
            let message =
                "is a pointer of Git LFS, not the weights: `git lfs pull` in its repository brings them";
            return Err(fail(message.into()));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            Content::Safetensors(SafetensorsFile::open(&path)?)
        } else {
            return Err(fail(
                "is not a whole file of torch.save: it begins as neither of its formats".into(),
            ));
        };
        Ok(Self { path, content })
    }

    fn format(&self) -> String {
        match &self.content {
            Content::Safetensors(_) | Content::Memory(_) => "safetensors".into(),
            Content::Gguf(file) => file.format(),
            Content::Torch(file) => lock(file).format().into(),
        }
    }

    fn tensors(&self) -> BTreeMap<String, StoredTensor> {
        match &self.content {
            Content::Safetensors(file) => file
                .tensors()
                .map(|(name, stored)| (name.clone(), stored.clone()))
                .collect(),
            Content::Gguf(file) => file
                .tensors()
                .map(|(name, stored)| (name.clone(), stored.clone()))
                .collect(),
            Content::Memory(tensors) => tensors
                .iter()
                .map(|(name, (stored, _))| (name.clone(), stored.clone()))
                .collect(),
            Content::Torch(file) => lock(file).tensors().into_iter().collect(),
        }
    }

    /// A tensor's bytes, little-endian and row-major.
    fn bytes(&self, name: &str) -> Result<Bytes<'_>> {
        let lacking = || Error::file(&self.path, format!("lacks {name}"));
        match &self.content {
            Content::Safetensors(file) => file.bytes(name).ok_or_else(lacking),
            Content::Gguf(file) => file.bytes(name).ok_or_else(lacking),
            Content::Memory(tensors) => {
                let (_, bytes) = tensors.get(name).ok_or_else(lacking)?;
                Ok(Bytes::Memory(bytes.clone(), 0..bytes.len()))
            }
            Content::Torch(file) => lock(file)
                .read(name)
                .map_err(|message| Error::file(&self.path, message)),
        }
    }
}

fn lock(file: &Mutex<TorchFile>) -> MutexGuard<'_, TorchFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many bytes as tell the format; fewer where the file is shorter.
fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut start = Vec::new();
    fs::File::open(path)?.take(64).read_to_end(&mut start)?;
    Ok(start)
}
