//! What requests may name besides models: entries of a folder that the server was started with, by one plain name each, and those of them that
//! are loaded. A kind is a file beside this one.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use langevin::{Error, Result, files::is_plain_name};

/// Makes room in memory for what takes so many bytes, and is called so in messages.
pub(crate) type Room<'a> = &'a dyn Fn(u64, &str) -> Result<()>;

/// The entries of a folder, by the names that requests have for them.
#[derive(Debug)]
pub(crate) struct Shelf<A> {
    folder: PathBuf,
    all: BTreeMap<String, Entry<A>>,
    passed_over: Vec<String>,
}

/// An entry.
#[derive(Debug)]
pub(crate) struct Entry<A> {
    pub(crate) path: PathBuf,
    /// What is known of it before it is loaded.
    pub(crate) about: A,
}

impl<A> Shelf<A> {
    /// Those of a folder. `name` says what one is called, or that it is none by its looks, and `about` what is known of it before it is loaded.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub(crate) fn of(
        folder: &Path,
        name: impl Fn(&Path) -> Option<String>,
        about: impl Fn(&Path) -> Result<A>,
    ) -> Result<Self> {
        let mut shelf = Self {
            folder: folder.to_path_buf(),
            all: BTreeMap::new(),
            passed_over: Vec::new(),
        };
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
            let Some(name) = name(&path).filter(|name| is_plain_name(name)) else {
                continue;
            };
            match about(&path) {
                Ok(about) => {
                    if let Some(other) = shelf.all.insert(name.clone(), Entry { path, about }) {
                        let message =
                            format!("would be called `{name}` as another one there is: rename one of them");
                        return Err(Error::file(other.path, message));
                    }
                }
                Err(error) => shelf.passed_over.push(error.to_string()),
            }
        }
        Ok(shelf)
    }

    /// What in the folder is none, and why.
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// All of them, by their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry<A>)> {
        self.all.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The entry of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry<A>> {
        self.all.get(name)
    }

    /// An error whose sentence says of a path in the folder no more than what is in there, since whoever asked has no business with the rest.
    pub(crate) fn hiding(&self, path: &Path, error: Error) -> Error {
        let (said, whole) = (error.to_string(), path.display().to_string());
        if !said.contains(&whole) {
            return error;
        }
        let inside = path.strip_prefix(&self.folder).ok();
        let inside = inside.or(path.file_name().map(Path::new)).unwrap_or(path);
        let message = said.replace(&whole, &inside.display().to_string());
        match error {
            Error::Option { options, .. } => Error::option(options, message),
            _ => Error::Config(message),
        }
    }
}

/// What is loaded of a shelf: what was named last stays.
pub(crate) struct Kept<T> {
    /// How many.
    most: usize,
    /// The last that was named comes last.
    all: Mutex<Vec<One<T>>>,
    bytes: AtomicU64,
}

/// What is loaded under a name.
pub(crate) struct One<T> {
    pub(crate) name: String,
    pub(crate) value: T,
    bytes: u64,
}

impl<T: Clone> Kept<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            all: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// The one of a name, which is loaded where it is not there: `load` is told of the others, and says how many bytes it takes.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub(crate) fn get(&self, name: &str, load: impl FnOnce(&[One<T>]) -> Result<(T, u64)>) -> Result<T> {
        // Held while it is loaded, so that it is once.
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let one = match all.iter().position(|one| one.name == name) {
            Some(place) => all.remove(place),
            None => {
                let excess = (all.len() + 1).saturating_sub(self.most);
                all.drain(..excess);
                self.count(&all);
                let (value, bytes) = load(&all)?;
                One {
                    name: name.to_string(),
                    value,
                    bytes,
                }
            }
        };
        let value = one.value.clone();
        all.push(one);
        self.count(&all);
        Ok(value)
    }

    fn count(&self, all: &[One<T>]) {
        self.bytes
            .store(all.iter().map(|one| one.bytes).sum(), Ordering::Relaxed);
    }
}

/// Who keeps things in memory besides models.
pub(crate) trait Keeps: fmt::Debug + Send + Sync {
    /// What they take.
    fn bytes(&self) -> u64;

    /// Lets go of all that can be loaded again; whether there was any. What is being drawn with stays until that is done.
    fn let_go(&self) -> bool;
}

impl<T: Send> Keeps for Kept<T> {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn let_go(&self) -> bool {
        // Whoever loads one is making room for it.
        let Ok(mut all) = self.all.try_lock() else {
            return false;
        };
        self.bytes.store(0, Ordering::Relaxed);
        !std::mem::take(&mut *all).is_empty()
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("most", &self.most)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The name of a file without its ending, where that is one of these; nothing of hidden files.
pub(crate) fn stem(path: &Path, endings: &[&str]) -> Option<String> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let is_one = path.is_file() && endings.contains(&ending.as_str());
    is_one.then(|| Some(path.file_stem()?.to_str()?.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path_and_errors_say_nothing_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.bin", ".hidden.bin", "b.v2.bin", "c.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let shelf = Shelf::of(folder.path(), |path| stem(path, &["bin"]), |_| Ok(())).unwrap();
        let names: Vec<&str> = shelf.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b.v2"]);
        let error = Error::file(folder.path().join("a.bin"), "is broken");
        let said = shelf.hiding(&folder.path().join("a.bin"), error).to_string();
        assert_eq!(said, "a.bin: is broken");
        std::fs::write(folder.path().join("a.BIN"), "").unwrap();
        let twice = Shelf::of(folder.path(), |path| stem(path, &["bin"]), |_| Ok(())).unwrap_err();
        assert!(twice.to_string().contains("rename one of them"));
    }

    #[test]
    fn the_last_ones_stay_and_count() {
        let kept: Kept<u8> = Kept::new(2);
        let get = |name: &str, value: u8| kept.get(name, |_| Ok((value, 10))).unwrap();
        assert_eq!([get("a", 1), get("b", 2), get("a", 9)], [1, 2, 1]);
        assert_eq!(kept.bytes(), 20);
        // It takes the place of the one that was named longest ago.
        assert_eq!([get("c", 3), get("a", 9), get("b", 4)], [3, 1, 4]);
        assert_eq!(kept.bytes(), 20);
        assert!(
            kept.get("d", |others| {
                assert_eq!(others.len(), 1);
                Err(Error::Config("no room".into()))
            })
            .is_err()
        );
        assert_eq!(kept.bytes(), 10);
        assert!(kept.let_go() && !kept.let_go());
        assert_eq!(kept.bytes(), 0);
    }
}
